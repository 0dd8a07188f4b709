"""Checks of what a person gave: each returns it in one form, or raises one sentence that names the
argument, what is accepted, and what was given."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

Point = tuple[float, float]
Path2D = tuple[Point, ...]


def shown(value: Any) -> str:
    """A value in one line, cut where it is long."""
    line = " ".join(repr(value).split())
    return line if len(line) <= 100 else f"{line[:97]}..."


def number(name: str, value: Any, low: float, high: float) -> float:
    """A finite float in [low, high]."""
    try:
        found = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not low <= found <= high:
        raise ValueError(f"{name} must be a number in [{low:g}, {high:g}], got {shown(value)}")
    return found


def integer(name: str, value: Any, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise ValueError(f"{name} must be an integer of at least {low}, got {shown(value)}")
    return int(value)


def text(name: str, value: Any) -> str:
    """A text with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a sentence, got {shown(value)}")
    return value


def choice(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {shown(value)}")


def listed(name: str, value: Any, what: str) -> list:
    """Whatever can be gone through, but a text, as a list."""
    try:
        return list(None if isinstance(value, (str, bytes)) else value)
    except TypeError:
        raise ValueError(f"{name} must be a list of {what}, got {shown(value)}") from None


def point(name: str, value: Any) -> Point:
    try:
        x, y = (float(v) for v in value)
    except (TypeError, ValueError, OverflowError):
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"{name} must be a point (x, y) of two finite numbers, got {shown(value)}")
    return x, y


def points(name: str, value: Any, at_least: int) -> Path2D:
    listing = enumerate(listed(name, value, "points (x, y)"))
    found = tuple(point(f"{name}[{i}]", v) for i, v in listing)
    if len(found) < at_least:
        raise ValueError(f"{name} must have at least {at_least} point(s), got {len(found)}")
    return found


def times(name: str, value: Any, count: int, high: float) -> tuple[float, ...] | None:
    """Increasing times in [0, high], one for each of `count` points; None where there are none."""
    if value is None:
        return None
    found = tuple(number(name, v, 0, high) for v in np.ravel(np.asarray(value, object)))
    if len(found) != count or any(b <= a for a, b in pairwise(found)):
        raise ValueError(
            f"{name} must hold {count} increasing times, one a point, got {shown(value)}"
        )
    return found


def instance(name: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__}")
    return value


def instances(name: str, value: Any, kind: type) -> tuple:
    """One of a kind, or a list of them, as a tuple; TypeError for anything else."""
    items = (value,) if isinstance(value, kind) else value
    if isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
        raise TypeError(f"{name} must be a list of {kind.__name__}, got {type(value).__name__}")
    items = tuple(items)
    for item in items:
        if not isinstance(item, kind):
            raise TypeError(f"{name} must hold {kind.__name__} only, got {type(item).__name__}")
    return items


def weights(name: str, value: Any) -> float | np.ndarray:
    """A number in [0, 1], or a float64 array of such that may broadcast to (steps, F, 1, h, w)."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.empty(0)
    numbers = array.dtype.kind in "uif" and array.size > 0 and array.ndim <= 5
    if not numbers or not ((array >= 0) & (array <= 1)).all():
        raise ValueError(
            f"{name} must be in [0, 1] and broadcast to (steps, F, 1, h, w), got {shown(value)}"
        )
    return array.astype(np.float64) if array.ndim else float(array)


def to_mask(mask: Any, name: str = "mask") -> np.ndarray:
    """A region as a read-only bool (H, W) array: any value but zero is inside.

    Raises ValueError when it is not two-dimensional, holds NaN, or nothing is inside.
    """
    array = np.asarray(mask)
    if array.ndim != 2 or array.dtype.kind not in "buif":
        raise ValueError(
            f"{name} must be a bool or number array of shape (H, W), "
            f"got shape {array.shape} of {array.dtype}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} must hold finite values, got NaN or infinity")
    array = array != 0
    if not array.any():
        raise ValueError(f"{name} is empty: it must have at least one pixel inside the region")
    array.flags.writeable = False
    return array
