"""The storybook's cast: one sprite per object, drawn once from the Noto Color Emoji font.

The sheet (`sprites.png`) ships with the package; `python -m ivkit.storybook sprites --font PATH`
draws it again. Colour variants ("a blue car") are made from the sheet when it is loaded.
"""

from __future__ import annotations

import colorsys
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..bench.metrics import Character
from ..support.disk import write_picture
from ..support.validate import checked

SHEET = Path(__file__).with_name("sprites.png")
SIZE, COLUMNS = 128, 8

#: what lives where, each with its emoji; "polar lights" is painted by `_polar_lights`
_CAST = {
    "sky": "sun ☀️, moon 🌙, cloud ☁️, bird 🐦, balloon 🎈, airplane ✈️, rocket 🚀, butterfly 🦋, "
    "star ⭐, owl 🦉, kite 🪁, rainbow 🌈, polar lights -",
    "land": "dog 🐕, cat 🐈, horse 🐎, rabbit 🐇, tree 🌳, palm tree 🌴, house 🏠, car 🚗, "
    "tractor 🚜, bus 🚌, flower 🌻, tulip 🌷, elephant 🐘, penguin 🐧, snowman ⛄, cow 🐄, pig 🐖, "
    "mushroom 🍄, cactus 🌵, castle 🏰, tent ⛺, fox 🦊, robot 🤖, ball ⚽",
    "sea": "boat ⛵, duck 🦆, whale 🐳, fish 🐠, dolphin 🐬, crab 🦀, octopus 🐙, turtle 🐢, "
    "wave 🌊",
}
#: name -> (emoji, where it lives)
CAST = {
    thing.rpartition(" ")[0]: (thing.rpartition(" ")[2], home)
    for home, things in _CAST.items()
    for thing in things.split(", ")
}
NAMES = list(CAST)
HOMES = [home for _, home in CAST.values()]
COLOURS = {"red": 0.0, "orange": 0.075, "yellow": 0.14, "green": 0.36, "blue": 0.58, "purple": 0.76}
#: objects that come in every colour -> (colour the emoji has, its hues as an interval on the wheel)
TINTED = {
    "car": ("red", (-0.08, 0.06)),
    "balloon": ("red", (-0.1, 0.08)),
    "bird": ("blue", (0.48, 0.68)),
    "boat": ("orange", (-0.08, 0.12)),
    "fish": ("yellow", (0.05, 0.2)),
    "tulip": ("pink", (-0.2, 0.08)),
    "mushroom": ("red", (-0.1, 0.06)),
    "star": ("yellow", (0.05, 0.2)),
    "tree": ("green", (0.15, 0.45)),
    "crab": ("red", (-0.1, 0.1)),
}
GLOWS = ("sun", "moon", "star", "polar lights")  # not darkened at night


def _polar_lights() -> Image.Image:
    """Curtains of green light that fade to violet above: the paper's Fig. 4 (c)."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    picture = np.zeros((SIZE, SIZE, 4))
    for k, (base, phase, weight) in enumerate([(0.80, 0.4, 1.0), (0.60, 2.6, 0.8)]):
        foot = base + 0.08 * np.sin(6 * x + phase) + 0.02 * np.sin(15 * x + 2 * phase)
        above = foot - y
        glow = np.where(above > 0, np.exp(-above / 0.30), np.exp(above / 0.03))
        rays = 0.8 + 0.2 * np.sin(40 * x + 4 * np.sin(6 * x + k))
        alpha = weight * glow * rays
        up = np.clip(above / 0.45, 0, 1)[..., None]
        colour = (1 - up) * np.array([0.25, 0.98, 0.55]) + up * np.array([0.70, 0.35, 0.95])
        picture[..., :3] += colour * alpha[..., None]
        picture[..., 3] += alpha
    picture[..., :3] /= np.maximum(picture[..., 3:], 1e-6)
    edge = np.clip(np.minimum(x, 1 - x) / 0.12, 0, 1) * np.clip(np.minimum(y, 1 - y) / 0.08, 0, 1)
    picture[..., 3] = np.clip(picture[..., 3], 0, 0.95) * edge**0.8
    return Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8), "RGBA")


@checked
def tile(picture: Character) -> Image.Image:
    """What is not transparent of an RGBA picture, in the middle of a sprite's square."""
    picture = picture.crop(picture.getbbox())
    side = max(picture.size)
    square = Image.new("RGBA", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    found = Image.new("RGBA", (SIZE, SIZE))
    found.paste(square.resize((SIZE - 8, SIZE - 8), Image.LANCZOS), (4, 4))
    return found


def draw_sheet(font_path: str | Path, path: Path = SHEET) -> Path:
    """Draws every sprite of `CAST` with the emoji font at `font_path`; writes the sheet (PNG)."""
    font = ImageFont.truetype(str(font_path), 109)  # the bitmap font's only size
    rows = -(-len(CAST) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * SIZE, rows * SIZE))
    for i, (name, (emoji, _)) in enumerate(CAST.items()):
        if name == "polar lights":
            picture = _polar_lights()
        else:
            glyph = Image.new("RGBA", (192, 192))
            ImageDraw.Draw(glyph).text((24, 24), emoji, font=font, embedded_color=True)
            if glyph.getbbox() is None:
                raise ValueError(f"the font {font_path} has no picture for {name!r} ({emoji})")
            picture = tile(glyph)
        sheet.paste(picture, (i % COLUMNS * SIZE, i // COLUMNS * SIZE))
    write_picture(path, sheet, optimize=True)
    return path


def tint(sprite: np.ndarray, hues: tuple[float, float], colour: str) -> np.ndarray:
    """Turns the hues inside `hues` of an RGBA sprite (uint8, (S, S, 4)) to `colour`."""
    rgb = sprite[..., :3] / 255.0
    top, low = rgb.max(-1), rgb.min(-1)
    spread = top - low
    r, g, b = np.moveaxis(rgb, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        sixths = [(g - b) / spread, 2 + (b - r) / spread], 4 + (r - g) / spread
    hue = np.nan_to_num(np.select([top == r, top == g], *sixths) / 6) % 1
    saturation = np.where(top > 0, spread / np.maximum(top, 1e-6), 0)
    hit = (((hue - hues[0]) % 1) <= hues[1] - hues[0]) & (saturation > 0.2)
    usual = max(np.median(saturation[hit & (sprite[..., 3] > 0)]), 0.4)
    saturation = (saturation * min(2.0, 0.85 / usual)).clip(0, 1)
    value = top * {"green": 0.9, "purple": 0.9, "blue": 0.9}.get(colour, 1.0)
    if colour in ("yellow", "orange"):
        value = np.minimum(1, top * 1.1)
    full = np.array(colorsys.hsv_to_rgb(COLOURS[colour], 1, 1))
    new = value[..., None] * (1 - saturation[..., None] * (1 - full))
    out = sprite.copy()
    out[..., :3][hit] = (new[hit] * 255).astype(np.uint8)
    return out


@cache
def sprites() -> tuple[np.ndarray, list[tuple[str, str | None]]]:
    """All sprites: uint8 (N, 128, 128, 4), straight alpha, and for each its (name, colour or None).

    The first `len(CAST)` are the cast in its own colours, with None (or its own colour's name for
    what is in `TINTED`) beside them; the other colours of `TINTED` follow.
    """
    sheet = np.array(Image.open(SHEET).convert("RGBA"))
    tiles, labels = [], []
    for i, name in enumerate(NAMES):
        row, column = divmod(i, COLUMNS)
        tiles.append(sheet[row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE])
        labels.append((name, TINTED[name][0] if name in TINTED else None))
    for name, (own, hues) in TINTED.items():
        for colour in COLOURS:
            if colour != own:
                tiles.append(tint(tiles[NAMES.index(name)], hues, colour))
                labels.append((name, colour))
    return np.stack(tiles), labels
