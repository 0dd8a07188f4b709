"""Measures of clips: uint8 (F, H, W, 3) frames in, plain numbers out.

Each says what it takes for granted; `ivkit.bench` and the chapter on measuring use them all.
"""

from __future__ import annotations

import numpy as np


def _frames(name: str, frames) -> np.ndarray:
    a = np.asarray(frames)
    if a.dtype != np.uint8 or a.ndim not in (3, 4) or a.shape[-1] != 3 or a.size == 0:
        raise ValueError(
            f"{name} must be uint8 pictures (H, W, 3) or (F, H, W, 3), got {a.dtype} {a.shape}"
        )
    return a.astype(np.float32)


def _pair(a, b) -> tuple[np.ndarray, np.ndarray]:
    a, b = _frames("the first", a), _frames("the second", b)
    if a.shape[-3:] != b.shape[-3:]:
        raise ValueError(f"the two differ in size: {a.shape} and {b.shape}")
    return a, b


def psnr(a, b, mask=None) -> float:
    """Peak signal-to-noise ratio in dB, over all frames; `mask` (H, W) keeps where it is true."""
    a, b = _pair(a, b)
    error = ((a - b) ** 2).mean(-1)
    if mask is not None:
        keep = np.asarray(mask, bool)
        if not keep.any():
            raise ValueError("mask is empty: there is nothing to compare")
        error = error[..., keep]
    return float(10 * np.log10(255**2 / max(float(error.mean()), 1e-10)))


def presence(frames, unedited, mask) -> np.ndarray:
    """How much of an edit is there: mean colour distance to the unedited clip inside `mask`.

    Returns (F,) in grey levels (0 to 255 * sqrt(3)); 0 where nothing was edited.
    """
    a, b = _pair(frames, unedited)
    keep = np.asarray(mask, bool)
    if not keep.any():
        raise ValueError("mask is empty: there is no edited region to look at")
    return np.linalg.norm(a - b, axis=-1)[..., keep].mean(-1)


def centre(frame, background, threshold: float = 40.0) -> tuple[np.ndarray | None, int]:
    """Where the largest thing stands that is not background: its (x, y) in pixels, and its area.

    frame, background: (H, W, 3); the background is the true one, without the thing. A pixel belongs
    to the thing where their colours are further apart than `threshold` grey levels on average.
    Returns (None, 0) where nothing differs.
    """
    import cv2

    a, b = _pair(frame, background)
    differs = (np.abs(a - b).mean(-1) > threshold).astype(np.uint8)
    differs = cv2.morphologyEx(differs, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, _, stats, centres = cv2.connectedComponentsWithStats(differs)
    if count < 2:
        return None, 0
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return centres[largest], int(stats[largest, cv2.CC_STAT_AREA])


def drag_distance(frames, background, start, target) -> float:
    """How far from its target a dragged thing ends, as a share of the width (MC-Bench's CTD).

    start, target: (x, y) of the handle. The thing's own centre is followed, so the distance is that
    between the centre's way and the handle's; 1 where the thing is gone.
    """
    frames = np.asarray(frames)
    first, _ = centre(frames[0], background)
    last, _ = centre(frames[-1], background)
    if first is None or last is None:
        return 1.0
    off = (last - first) - (np.asarray(target, float) - np.asarray(start, float))
    return float(np.linalg.norm(off) / frames.shape[2])


def track(frames, picture, mask, threshold: float = 0.5) -> np.ndarray:
    """Where a thing of `picture` is in each frame: the (x, y) of its mask's centre, (F, 2).

    Found by normalised cross-correlation under `mask` (H, W), whatever its brightness, wholly or in
    part inside the frame; it may move, not turn or grow. NaN where nothing is alike by `threshold`.
    """
    import cv2

    frames, picture = _pair(frames, picture)
    keep = np.asarray(mask, bool)
    if not keep.any():
        raise ValueError("mask is empty: there is nothing to follow")
    (top, left), (bottom, right) = np.argwhere(keep).min(0), np.argwhere(keep).max(0) + 1
    cut = picture[top:bottom, left:right]
    inside = keep[top:bottom, left:right].astype(np.float32)
    h, w = inside.shape
    centre = np.argwhere(inside).mean(0)[::-1] - (w // 2, h // 2)
    found = np.full((len(frames), 2), np.nan)
    for f, frame in enumerate(frames):
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


def find(picture, character, sides=range(24, 68, 4)) -> tuple[float, np.ndarray]:
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
    from .storybook.character import read

    frame, character = _frames("picture", picture), read(character)
    character = character.crop(character.getbbox())
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


def edit_kept(frames, picture, edited, region) -> float:
    """Share of the frames that, inside `region` (H, W), are nearer to x' than to x."""
    frames, picture = _pair(frames, picture)
    _, edited = _pair(frames.astype(np.uint8), edited)
    keep = np.asarray(region, bool)
    if not keep.any():
        raise ValueError("region is empty: there is no edit to look for")
    far = [np.abs(frames - still).mean(-1)[:, keep].mean(-1) for still in (picture, edited)]
    return float((far[1] < far[0]).mean())


def motion_amount(frames) -> float:
    """Mean absolute change from frame to frame, in grey levels; 0 for a clip that stands still."""
    a = _frames("frames", frames)
    return float(np.abs(np.diff(a, axis=0)).mean())


def flicker(frames) -> float:
    """Warp error: mean absolute difference of each frame to the next one, warped back by its flow.

    In grey levels, by Farneback's optical flow, a pixel counting as unmoved where that fits better:
    what moves smoothly does not count, what trembles, appears or fades does, a frozen clip has 0.
    """
    import cv2

    frames = _frames("frames", frames)
    h, w = frames.shape[1:3]
    grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).astype(np.float32)
    grey = [cv2.cvtColor(f.astype(np.uint8), cv2.COLOR_RGB2GRAY) for f in frames]
    errors = []
    for a, b, now, after in zip(frames, frames[1:], grey, grey[1:], strict=False):
        flow = cv2.calcOpticalFlowFarneback(now, after, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        warped = np.abs(a - cv2.remap(b, grid + flow, None, cv2.INTER_LINEAR))
        errors.append(
            np.minimum(warped, np.abs(a - b)).mean()
        )  # the flow of stillness is not quite 0
    return float(np.mean(errors))
