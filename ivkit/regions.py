"""The region of a thing that is pointed at: what a drag moves where no mask was drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from PIL import Image

from .pictures import Picture
from .support.validate import Point, checked, warn

STEPS = (2, 4, 8, 16)  # of colour, in levels, from which on two neighbours count as two things
EDGE, CLEAR = 16, 0.7  # levels that an edge has; the share of an outline that lies on edges
LARGEST, CUT = 0.4, 0.25  # shares of the picture, and of its frame, that a thing takes at the most


@checked
def grow_mask(picture: Picture, point: Point) -> np.ndarray:
    """The thing at `point`, as a bool (H, W) mask: see `grow`. Warns where no thing stands out.

    Show it, and let the person correct it.

    Raises:
      ValueError: a point outside the picture.
    """
    mask, clear = grow(picture, point)
    if not clear:
        x, y = point
        warn(
            f"no thing stands out at ({x:g}, {y:g}): the region is what has the colour of this "
            "point; draw a mask instead"
        )
    return mask


def grow(picture: Image.Image, point: Point) -> tuple[np.ndarray, bool]:
    """The thing at `point` as a bool (H, W) mask, and whether it is clearly one.

    The background is what can be reached from the frame by small steps of colour; the thing is what
    is left around the point, without lines such as a horizon, made tight by GrabCut. Of several
    sizes of step the first is taken that leaves a clear thing: one whose outline lies on edges of
    the picture, and which is not half of it. Else the region is what has the point's colour, which
    is clear by the same rule or not at all (sky, sea).
    """
    image = np.asarray(picture)
    inside("point", point, image.shape[:2])
    x, y = map(round, point)
    smooth = cv2.bilateralFilter(image, 5, 20, 3)
    edges = cv2.morphologyEx(cv2.GaussianBlur(smooth, (0, 0), 1), cv2.MORPH_GRADIENT, _square(5))
    for thing in _guesses(smooth, x, y):
        clear = _is_clear(thing, edges.max(axis=2) > EDGE)
        if clear:
            break
    tight = _tighten(image, thing) if thing.sum() > 16 else thing
    tight = _without_lines(tight, x, y)
    return _filled(tight if tight[y, x] else thing), clear


def inside(name: str, point: Sequence[float], shape: tuple[int, int]) -> None:
    (x, y), (height, width) = point, shape
    if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
        raise ValueError(
            f"{name} must lie in the picture of {width} x {height} pixels, got ({x:g}, {y:g})"
        )


def _guesses(smooth: np.ndarray, x: int, y: int) -> Iterator[np.ndarray]:
    """What may be the thing at (x, y): what each size of step leaves, then what has its colour."""
    height, width = smooth.shape[:2]
    rim = [(i, j) for i in range(0, width, 4) for j in (0, height - 1)]
    rim += [(i, j) for j in range(0, height, 4) for i in (0, width - 1)]
    for step in STEPS:
        reached = np.zeros((height + 2, width + 2), np.uint8)  # OpenCV wants a rim of one pixel
        for seed in rim:
            if not reached[seed[1] + 1, seed[0] + 1]:
                _flood(smooth, reached, seed, step)
        yield _without_lines(reached[1:-1, 1:-1] == 0, x, y)
    reached = np.zeros((height + 2, width + 2), np.uint8)
    _flood(smooth, reached, (x, y), 20, cv2.FLOODFILL_FIXED_RANGE)
    colour = reached[1:-1, 1:-1] > 0
    thing = _without_lines(colour, x, y)
    yield thing if thing[y, x] else colour


def _flood(image: np.ndarray, reached: np.ndarray, seed, step: int, flags: int = 0) -> None:
    flags |= 4 | cv2.FLOODFILL_MASK_ONLY
    cv2.floodFill(image, reached, seed, 0, (step,) * 3, (step,) * 3, flags)


def _is_clear(thing: np.ndarray, edges: np.ndarray) -> bool:
    """Whether a region's outline lies on edges, and it takes no large part of picture and frame."""
    frame = np.concatenate([thing[0], thing[-1], thing[1:-1, 0], thing[1:-1, -1]])
    outline = thing & ~(cv2.erode(thing.astype(np.uint8), _square(3), borderValue=1) > 0)
    if not outline.any() or thing.mean() > LARGEST or frame.mean() > CUT:
        return False
    return edges[outline].mean() > CLEAR


def _without_lines(mask: np.ndarray, x: int, y: int) -> np.ndarray:
    """The solid part of a mask at (x, y), and its thin parts that end beside it (a mast, the rays
    of a sun): not those that go on to the frame or to other things, such as a horizon."""
    height, width = mask.shape
    longest, mask = max(height, width), mask.astype(np.uint8)
    gap = _square(longest // 64 * 2 + 1)  # rays stand apart from their sun
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(longest // 28 | 1, 3),) * 2)
    solid = cv2.morphologyEx(mask, cv2.MORPH_OPEN, disc)
    if mask[y, x] and not solid[y, x]:
        solid = cv2.morphologyEx(mask, cv2.MORPH_OPEN, _square(3))
    thing = _component(cv2.dilate(solid, gap), x, y) & (solid > 0)
    if not thing.any():
        return thing
    near = cv2.dilate(thing.astype(np.uint8), gap) > 0
    others = cv2.dilate(solid & ~thing.view(np.uint8), _square(3)) > 0
    thin = mask & ~solid & 1
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(cv2.dilate(thin, _square(3)))
    size = max(cv2.boundingRect(thing.astype(np.uint8))[2:])
    for k in range(1, count):
        left, top, w, h, _ = boxes[k]
        cut = left == 0 or top == 0 or left + w == width or top + h == height
        window = np.s_[top : top + h, left : left + w]
        part = labels[window] == k
        if not cut and max(w, h) <= 0.7 * size and (part & near[window]).any():
            if not (part & others[window]).any():
                thing[window] |= part & (thin[window] > 0)
    return thing


def _square(side: int) -> np.ndarray:
    return np.ones((side, side), np.uint8)


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
