"""The region of a thing that is pointed at: what a drag moves where no mask was drawn."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .pictures import Picture
from .validate import Point, checked


@checked
def grow_mask(picture: Picture, point: Point) -> np.ndarray:
    """The thing at `point`, as a bool (H, W) mask: flood fill, made tight by GrabCut.

    The background is what can be reached from the frame around the point by small steps of colour;
    the thing is what is left. Show it, and let the person correct it.

    Raises:
      ValueError: a point outside the picture.
    """
    image, (x, y) = np.asarray(picture), point
    inside("point", point, image.shape[:2])
    return _grow(image, round(x), round(y))


def inside(name: str, point: Sequence[float], shape: tuple[int, int]) -> None:
    (x, y), (height, width) = point, shape
    if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
        raise ValueError(
            f"{name} must lie in the picture of {width} x {height} pixels, got ({x:g}, {y:g})"
        )


def _grow(image: np.ndarray, x: int, y: int) -> np.ndarray:
    height, width = image.shape[:2]
    smooth = cv2.bilateralFilter(image, 5, 20, 3)
    reached = np.zeros((height + 2, width + 2), np.uint8)  # OpenCV wants a rim of one pixel
    rim = [(i, j) for i in range(0, width, 4) for j in (0, height - 1)]
    rim += [(i, j) for j in range(0, height, 4) for i in (0, width - 1)]
    for seed in rim:
        if not reached[seed[1] + 1, seed[0] + 1]:
            cv2.floodFill(smooth, reached, seed, 0, (4,) * 3, (4,) * 3, 4 | cv2.FLOODFILL_MASK_ONLY)
    left = (reached[1:-1, 1:-1] == 0).astype(np.uint8)
    gap = np.ones((max(height, width) // 64 * 2 + 1,) * 2)  # a sun's rays belong to it
    thing = _component(cv2.dilate(left, gap), x, y) & (left > 0)
    if not thing.any() or thing.mean() > 0.6:  # no edge around the point: what has its own colour
        reached[:] = 0
        flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE
        cv2.floodFill(smooth, reached, (x, y), 0, (20,) * 3, (20,) * 3, flags)
        thing = reached[1:-1, 1:-1] > 0
    tight = _tighten(image, thing) if thing.sum() > 16 else thing
    return _filled(tight if tight[y, x] else thing)


def _tighten(image: np.ndarray, thing: np.ndarray) -> np.ndarray:
    """GrabCut in a window around a first guess; the guess itself where that finds nothing."""
    left, top, w, h = cv2.boundingRect(thing.astype(np.uint8))
    pad = max(8, max(w, h) // 4)
    window = np.s_[max(top - pad, 0) : top + h + pad, max(left - pad, 0) : left + w + pad]
    guess = thing[window].astype(np.uint8)
    labels = np.full(guess.shape, cv2.GC_BGD, np.uint8)
    labels[cv2.dilate(guess, np.ones((7, 7))) > 0] = cv2.GC_PR_BGD
    labels[guess > 0] = cv2.GC_PR_FGD
    labels[cv2.erode(guess, np.ones((7, 7))) > 0] = cv2.GC_FGD
    if not {cv2.GC_BGD, cv2.GC_PR_FGD} <= set(np.unique(labels)):
        return thing
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    part = np.ascontiguousarray(image[window])
    cv2.grabCut(part, labels, None, *models, 2, cv2.GC_INIT_WITH_MASK)
    tight = np.zeros_like(thing)
    tight[window] = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return tight if tight.any() else thing


def _component(mask: np.ndarray, x: int, y: int) -> np.ndarray:
    """The connected part of a mask at (x, y); empty when there is none."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    return (labels == labels[y, x]) & bool(mask[y, x])


def _filled(mask: np.ndarray) -> np.ndarray:
    """A mask without its holes."""
    mask = mask.astype(np.uint8)
    outline, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(mask, outline, -1, 1, cv2.FILLED) > 0
