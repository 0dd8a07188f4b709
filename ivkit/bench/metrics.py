"""Measures of clips: uint8 (F, H, W, 3) frames in, plain numbers out.

Each says what it takes for granted; `ivkit.bench` and the chapter on measuring use them all.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from PIL import Image

from ..pictures import open_file
from ..pictures import psnr as psnr  # one of the measures
from ..support.validate import (
    FILE,
    Array,
    Clip,
    Kind,
    Listed,
    Number,
    Pixels,
    Point,
    Region,
    Video,
    checked,
)

_CUT_OUT = Kind("a PIL image with alpha, or its file", FILE.take, TypeError)


def _character(value) -> Image.Image:
    picture = value if isinstance(value, Image.Image) else open_file(_CUT_OUT("a character", value))
    picture = picture.convert("RGBA")
    least, most = picture.getchannel("A").getextrema()
    if not most or least:
        what = "is wholly transparent" if not most else "has no transparent background"
        raise ValueError(f"the character {what}: cut it out, and save it as a PNG with alpha")
    return picture


Character = Annotated[Image.Image, Kind(_CUT_OUT.what, _character, TypeError, speaks=True)]
Several = Annotated[np.ndarray, Array("F H W 3", of="uint8", least=2)]
Sides = Annotated[tuple, Listed(Number(0, 1000, above=True), "percentages", least=1)]
Grey = Annotated[float, Number(0, 255)]
Likeness = Annotated[float, Number(-1, 1)]


@checked
def cut_out(picture: Character) -> Image.Image:
    """A thing on nothing, from a PIL image or a file (PNG, WebP) with a transparent background:
    RGBA. Raises ValueError where there is no such file, no transparency, or nothing but it."""
    return picture


@checked
def presence(frames: Video, unedited: Clip, mask: Region) -> np.ndarray:
    """How much of an edit is there: mean colour distance to the unedited clip inside `mask`.

    Returns (F,) in grey levels (0 to 255 * sqrt(3)); 0 where nothing was edited.
    """
    away = np.linalg.norm(frames.astype(np.float32) - unedited, axis=-1)
    return away[..., mask].mean(-1)


@checked
def centre(
    frame: Pixels, background: Pixels, threshold: Grey = 40.0
) -> tuple[np.ndarray | None, int]:
    """Where the largest thing stands that is not background: its (x, y) in pixels, and its area.

    frame, background: (H, W, 3); the background is the true one, without the thing. A pixel belongs
    to the thing where their colours are further apart than `threshold` grey levels on average.
    Returns (None, 0) where nothing differs.
    """
    import cv2

    differs = np.abs(frame.astype(np.float32) - background).mean(-1) > threshold
    differs = differs.astype(np.uint8)
    differs = cv2.morphologyEx(differs, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, _, stats, centres = cv2.connectedComponentsWithStats(differs)
    if count < 2:
        return None, 0
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return centres[largest], int(stats[largest, cv2.CC_STAT_AREA])


@checked
def drag_distance(frames: Video, background: Pixels, start: Point, target: Point) -> float:
    """How far from its target a dragged thing ends, as a share of the width (MC-Bench's CTD).

    start, target: (x, y) of the handle. The thing's own centre is followed, so the distance is that
    between the centre's way and the handle's; 1 where the thing is gone.
    """
    first, _ = centre(frames[0], background)
    last, _ = centre(frames[-1], background)
    if first is None or last is None:
        return 1.0
    off = (last - first) - (np.array(target) - start)
    return float(np.linalg.norm(off) / frames.shape[2])


@checked
def track(frames: Video, picture: Pixels, mask: Region, threshold: Likeness = 0.5) -> np.ndarray:
    """Where a thing of `picture` is in each frame: the (x, y) of its mask's centre, (F, 2).

    Found by normalised cross-correlation under `mask` (H, W), whatever its brightness, wholly or in
    part inside the frame; it may move, not turn or grow. NaN where nothing is alike by `threshold`.
    """
    import cv2

    (top, left), (bottom, right) = np.argwhere(mask).min(0), np.argwhere(mask).max(0) + 1
    cut = picture[top:bottom, left:right].astype(np.float32)
    inside = mask[top:bottom, left:right].astype(np.float32)
    h, w = inside.shape
    centre = np.argwhere(inside).mean(0)[::-1] - (w // 2, h // 2)
    found = np.full((len(frames), 2), np.nan)
    for f, frame in enumerate(frames.astype(np.float32)):
        wide = cv2.copyMakeBorder(frame, h // 2, h // 2, w // 2, w // 2, cv2.BORDER_REPLICATE)
        like, x, y = _likest(wide, cut, inside)
        if like >= threshold:
            found[f] = (x, y) + centre
    return found


def _likest(frame, cut, inside) -> tuple[float, int, int]:
    """The highest correlation of `cut` (h, w, 3) under `inside` (h, w), and its corner (x, y)."""
    import cv2

    like = cv2.matchTemplate(frame, cut, cv2.TM_CCOEFF_NORMED, mask=cv2.merge([inside] * 3))
    like[~np.isfinite(like) | (like > 1.01)] = -1  # under the mask all of one colour
    y, x = np.unravel_index(like.argmax(), like.shape)
    return float(like[y, x]), int(x), int(y)


@checked
def find(
    picture: Pixels, character: Character, sides: Sides = range(24, 68, 4)
) -> tuple[float, np.ndarray]:
    """How like a character the likest place of a picture is, and where that is.

    The character, of whatever size, is laid over every place. The likeness is the correlation of
    the colours under it, 1 for its very pixels, about 0 for another thing.

    Args:
        picture: uint8 (H, W, 3) or a PIL image.
        character: PIL RGBA, drawn or cut out, with nothing around it.
        sides: how large it may be, in percent of the picture's width; each is tried. (An emoji's
            square is wider than what is seen of it.)

    Returns:
        the likeness in [-1, 1], and the character laid there on nothing, uint8 RGBA (H, W, 4).
        What counted as the character is where its alpha is above 127.

    Raises:
        ValueError: the character has no transparent background, or no size fits into the picture.
    """
    frame, character = picture.astype(np.float32), character.crop(character.getbbox())
    h, w = frame.shape[:2]
    best = (-2.0, None)
    for side in sides:
        k = side / 100 * w / max(character.size)
        size = [max(1, round(k * s)) for s in character.size]
        if size[0] > w or size[1] > h:
            continue
        cut = np.asarray(character.resize(size))
        colours, inside = cut[..., :3].astype(np.float32), (cut[..., 3] > 127).astype(np.float32)
        like, x, y = _likest(frame, colours, inside)
        if like > best[0]:
            laid = np.zeros((h, w, 4), np.uint8)
            laid[y : y + size[1], x : x + size[0]] = cut
            best = like, laid
    if best[1] is None:
        raise ValueError("sides has no size at which the character fits into the picture")
    return best


@checked
def edit_kept(frames: Video, picture: Pixels, edited: Pixels, region: Region) -> float:
    """Share of the frames that, inside `region` (H, W), are nearer to x' than to x."""
    frames = frames.astype(np.float32)
    far = [np.abs(frames - still).mean(-1)[:, region].mean(-1) for still in (picture, edited)]
    return float((far[1] < far[0]).mean())


@checked
def motion_amount(frames: Several) -> float:
    """Mean absolute change from frame to frame, in grey levels; 0 for a clip that stands still."""
    return float(np.abs(np.diff(frames.astype(np.float32), axis=0)).mean())


@checked
def flicker(frames: Several) -> float:
    """Warp error: mean absolute difference of each frame to the next one, warped back by its flow.

    In grey levels, by Farneback's optical flow, a pixel counting as unmoved where that fits better:
    what moves smoothly does not count, what trembles, appears or fades does, a frozen clip has 0.
    """
    import cv2

    h, w = frames.shape[1:3]
    grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).astype(np.float32)
    grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]
    errors = []
    floats = frames.astype(np.float32)
    for a, b, now, after in zip(floats, floats[1:], grey, grey[1:], strict=False):
        flow = cv2.calcOpticalFlowFarneback(now, after, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        warped = np.abs(a - cv2.remap(b, grid + flow, None, cv2.INTER_LINEAR))
        still = np.abs(a - b)  # the flow of stillness is not quite 0
        errors.append(np.minimum(warped, still).mean())
    return float(np.mean(errors))
