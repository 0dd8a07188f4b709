"""A character that the storybook never saw: drawn here, and put into its scenes by the renderer.

The world's renderer plays the photographer: it sets any picture with a transparent background into
scenes, in random places and sizes, and knows the caption of each.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..bench.metrics import Character
from ..bench.metrics import cut_out as read  # noqa: F401
from ..pictures import to_pictures
from ..support.validate import Count, Integer, Seed, Sentence, check_index, checked
from . import sprites, words
from .world import Scenes, World

#: what the shipped character is called, and what it is one of
NAME, CLASS = "sks robot", "robot"
HOMES = ("land", "sea")  # a character takes the place of something that stands there


@checked
def draw_robot(side: Annotated[int, Integer(1, 2048)] = 256) -> Image.Image:
    """Our character: a violet robot with one eye. RGBA, `side` x `side`, nothing around it."""
    k, picture = 4 * side / 100, Image.new("RGBA", (4 * side, 4 * side))
    pen = ImageDraw.Draw(picture)

    def box(shape, x0, y0, x1, y1, colour, **how):
        getattr(pen, shape)([v * k for v in (x0, y0, x1, y1)], fill=colour, **how)

    violet, dark, lime = "#8a3ffc", "#4b1a9b", "#b6f238"
    box("rectangle", 47.5, 12, 52.5, 28, dark)
    box("ellipse", 42, 2, 58, 18, lime)
    for x in (24, 58):
        box("rounded_rectangle", x, 80, x + 18, 97, "#ff8a1f", radius=6 * k)
    for x in (4, 80):
        box("rounded_rectangle", x, 42, x + 16, 74, dark, radius=8 * k)
    box("rounded_rectangle", 14, 24, 86, 88, violet, radius=24 * k)
    box("ellipse", 30, 29, 70, 67, "white")
    box("ellipse", 41, 37, 63, 60, "#16213e")
    box("ellipse", 45, 41, 52, 48, "white")
    box("rounded_rectangle", 32, 72, 68, 80, lime, radius=4 * k)
    return picture.resize((side, side), Image.Resampling.LANCZOS)


@checked
def cast(world: World, picture: Character, name: Sentence = NAME) -> int:
    """Makes a character one of the world's sprites; returns its index. No scene draws it by chance.

    name: as captions say it, made of words that the storybook knows.
    """
    words.known(name, "name")
    return world.add_sprite(sprites.tile(picture), name)


@checked
def portraits(
    world: World, sprite: int | None, n: Count, seed: Seed = 0, vary: bool = False
) -> list[tuple[Image.Image, str]]:
    """Random scenes with their captions: n (PIL RGB 256 x 256, text).

    sprite: what stands in each, by its index in `world.labels`; None takes the scenes as they come.
    vary: leave parts of the captions out at random, as in the storybook's own training.
    """
    if sprite is not None:
        check_index("sprite", sprite, len(world.labels))
    parts, g = [], torch.Generator(world.device).manual_seed(seed)
    while sum(map(len, parts)) < n:
        s = world.sample(64, g)
        if sprite is not None:
            stands = torch.isin(s.sprite[:, 0], torch.cat([world.homes[h] for h in HOMES]))
            s = s[(stands & (s.sprite[:, 1:] != sprite).all(1)).nonzero()[:, 0]]
            s.sprite[:, 0] = sprite
        s.event[:] = 0
        parts.append(s)
    s = Scenes.join(parts)[:n]
    captions, _ = words.texts(s, world.labels, np.random.default_rng(seed), vary)
    return list(zip(to_pictures(world.stills(s, 0.0).cpu()), captions, strict=True))
