"""Things cut out of a picture, and what was behind them.

A sprite is float32 (H, W, 4): colour times alpha, then alpha. Masks are bool (H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

RIM = 3  # pixels around a region that are filled too: its antialiased edge is no background


def sprite(image: np.ndarray, mask: np.ndarray, later: Sequence[np.ndarray] = ()) -> np.ndarray:
    """The region of a mask cut out, without what regions that lie above it, `later`, hide.

    Alpha is 1 inside and fades over the two pixels around it, where the thing's antialiased edge
    is. What a later region hides is filled, so that no piece of that region is carried along.
    """
    hidden = np.any(later, axis=0) & mask
    if hidden.any():
        image = fill(image, hidden)
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    alpha = np.clip(1 - away / 2, 0, 1)[..., None]
    return np.concatenate([image * alpha, alpha], -1, dtype=np.float32)


def cut_out(image: np.ndarray, mask: np.ndarray, later: Sequence[np.ndarray] = ()) -> np.ndarray:
    """The same for another background.

    In its rim, the old background shines through. There the thing takes the colour from further in
    and the background the colour that would fill its place; alpha says how they are mixed.
    """
    found = sprite(image, mask, later)
    core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    away, nearest = cv2.distanceTransformWithLabels(
        1 - core, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    rim = (core == 0) & (away < 2 + RIM) & (found[..., 3] > 0)
    if not core.any() or not rim.any():
        return found
    colours = np.zeros((nearest.max() + 1, 3), np.float32)
    colours[nearest[core > 0]] = image[core > 0]
    thing = colours[nearest[rim]]
    behind = plate(image, [mask])[0][rim].astype(np.float32)
    apart = thing - behind
    share = ((image[rim] - behind) * apart).sum(-1) / np.maximum((apart**2).sum(-1), 1)
    alpha = np.where((apart**2).sum(-1) > 300, np.clip(share, 0, 1), found[rim, 3])[:, None]
    found[rim] = np.concatenate([thing * alpha, alpha], -1)
    return found


def plate(image: np.ndarray, masks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The background without the regions, and float32 (H, W) where it had to be filled."""
    if not masks:
        return image, np.zeros(image.shape[:2], np.float32)
    hole = cv2.dilate(np.any(masks, axis=0).astype(np.uint8), np.ones((2 * RIM + 1,) * 2))
    return fill(image, hole > 0), hole.astype(np.float32)


def fill(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Inpaint the hole from its surroundings, in a picture squeezed sideways.

    Plain inpainting bends a horizon into a hill. Most of what lies behind things (horizons, shores,
    skies) runs sideways, and in the squeezed picture it is filled from the left and right. Stars
    and snowflakes beside the hole are ignored, since they would be drawn out to streaks.
    """
    if hole.all():
        return image
    height, width = hole.shape
    widest = cv2.connectedComponentsWithStats(hole.astype(np.uint8))[2][1:, cv2.CC_STAT_WIDTH].max()
    narrow = (max(width * 12 // max(widest, 12), 1), height)
    known = (~(hole | specks(image))).astype(np.float32)
    share = cv2.resize(known, narrow, interpolation=cv2.INTER_AREA)
    total = cv2.resize(image * known[..., None], narrow, interpolation=cv2.INTER_AREA)
    squeezed = (total / np.maximum(share, 1e-6)[..., None]).clip(0, 255).astype(np.uint8)
    missing = (share < 0.3 * share.max()).astype(np.uint8)
    filled = cv2.inpaint(squeezed, missing, 3, cv2.INPAINT_TELEA)
    filled = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(hole[..., None], filled, image)


def specks(image: np.ndarray) -> np.ndarray:
    """Small spots that are brighter than their surroundings both ways, bool (H, W)."""
    side = max(3, image.shape[1] // 20)
    across, down = (
        cv2.morphologyEx(image, cv2.MORPH_TOPHAT, np.ones(shape, np.uint8)).max(-1)
        for shape in ((1, side), (side, 1))
    )
    return np.minimum(across, down) > 25


def fill_from_others(clip: np.ndarray, holes: np.ndarray, f: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame f with its hole filled from other frames, and the part of the hole that is left.

    The nearest frame that shows what is behind comes first, in the light of frame f. A frame counts
    only if the two agree around the hole. (They do not while a camera moves, or the tide rises.)
    """
    frame, left = clip[f], holes[f].copy()
    if not (left & ~holes.all(0)).any():
        return frame, left
    ring = cv2.dilate(left.astype(np.uint8), np.ones((15, 15))).astype(bool) & ~left
    frame = frame.astype(np.float32)
    for g in sorted(range(len(clip)), key=lambda g: abs(g - f))[1:]:
        new, both = left & ~holes[g], ring & ~holes[g]
        if new.any() and both.sum() >= 50:
            here, there = frame[both], clip[g][both].astype(np.float32)
            light = (here * there).sum(0) / np.maximum((there**2).sum(0), 1)
            if np.abs(here - light * there).mean() < 5:
                frame[new] = light * clip[g][new]
                left &= holes[g]
    return frame.clip(0, 255).round().astype(np.uint8), left


def lit(sprite: np.ndarray, light: np.ndarray) -> np.ndarray:
    return sprite * np.append(light, 1).astype(np.float32)


def parts(mask: np.ndarray, smallest: int = 16) -> list[np.ndarray]:
    """The connected parts of a mask, without specks."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8))
    found = [labels == k for k in range(1, count)]
    return [part for part in found if part.sum() >= smallest]
