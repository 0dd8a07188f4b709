"""Masks and their thin parts: which belong to a thing, and which are lines of the background."""

from __future__ import annotations

import cv2
import numpy as np

EDGE = 16  # levels that an edge has
BEYOND, TILT = 3, 2  # columns beyond a thin part, and rows that a line may climb in between


def without_lines(mask: np.ndarray, x: int, y: int) -> np.ndarray:
    """The solid part of a mask at (x, y), and its thin parts that end beside it (a mast, the rays
    of a sun): not those that go on to the frame or to other things, such as a horizon."""
    height, width = mask.shape
    longest, mask = max(height, width), mask.astype(np.uint8)
    gap = square(longest // 64 * 2 + 1)  # rays stand apart from their sun
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(longest // 28 | 1, 3),) * 2)
    solid = cv2.morphologyEx(mask, cv2.MORPH_OPEN, disc)
    if mask[y, x] and not solid[y, x]:
        solid = cv2.morphologyEx(mask, cv2.MORPH_OPEN, square(3))
    thing = _component(cv2.dilate(solid, gap), x, y) & (solid > 0)
    if not thing.any():
        return thing
    near = cv2.dilate(thing.astype(np.uint8), gap) > 0
    others = cv2.dilate(solid & ~thing.view(np.uint8), square(3)) > 0
    thin = mask & ~solid & 1
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(cv2.dilate(thin, square(3)))
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


def without_whiskers(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A mask without its thin parts that lie along a line of the background, sideways.

    Of a horizon or a surf the picture shows more beyond the end of such a part. A real part (a bow,
    a beak, a tail) ends there: the columns inside it look unlike those beyond.
    """
    thickest = max(max(mask.shape) // 32 | 1, 3)
    reach = thickest // 2 + 2 + TILT  # rows on either side of a line that are compared
    padded = cv2.copyMakeBorder(image, reach, reach, 0, 0, cv2.BORDER_REPLICATE).astype(int)
    whole = mask.astype(np.uint8)
    upright = cv2.getStructuringElement(cv2.MORPH_RECT, (1, thickest + 1))
    thin = whole & ~cv2.morphologyEx(whole, cv2.MORPH_OPEN, upright)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(thin)
    kept = mask.copy()
    for k in range(1, count):
        left, top, w, h, _ = boxes[k]
        part = labels[top : top + h, left : left + w] == k
        rows = top + np.round(np.arange(h) @ part / part.sum(axis=0)).astype(int)
        for inwards in (1, -1):
            columns = range(left, left + w)[::inwards]
            outside = columns[0] - inwards * np.arange(1, 1 + BEYOND)
            row = rows[columns[0] - left]
            if outside.min() < 0 or outside.max() >= mask.shape[1]:
                continue
            if mask[max(row - thickest, 0) : row + thickest + 1, outside].any():
                continue  # this end is not free
            beyond = padded[row : row + 2 * reach + 1, outside]
            for x in columns:
                if not _goes_on(padded[rows[x - left] :][: 2 * reach + 1, x], beyond):
                    break
                kept[top : top + h, x] &= ~part[:, x - left]
    return kept


def _goes_on(column: np.ndarray, beyond: np.ndarray) -> bool:
    """Whether a column (n, 3) is like the columns (n, m, 3) beyond, up to TILT rows up or down."""
    low, high = beyond.min(axis=1), beyond.max(axis=1)
    size = np.ones((3, 1), np.uint8)  # a row more on either side, for parts of a row
    low = cv2.erode(low.astype(np.uint8), size).astype(int)
    high = cv2.dilate(high.astype(np.uint8), size).astype(int)
    n, inner = len(column), column[TILT:-TILT]
    shifts = [slice(s, n - 2 * TILT + s) for s in range(2 * TILT + 1)]
    return any(np.maximum(low[s] - inner, inner - high[s]).max() < EDGE for s in shifts)


def square(side: int) -> np.ndarray:
    return np.ones((side, side), np.uint8)


def _component(mask: np.ndarray, x: int, y: int) -> np.ndarray:
    """The connected part of a mask at (x, y); empty when there is none."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    return (labels == labels[y, x]) & bool(mask[y, x])


def filled(mask: np.ndarray) -> np.ndarray:
    """A mask without its holes."""
    mask = mask.astype(np.uint8)
    outline, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(mask, outline, -1, 1, cv2.FILLED) > 0
