"""Which pixels are one thing, and where it goes.

`grow` finds the region of a thing that is pointed at: what a drag moves where no mask was drawn.
`follow` finds that region again in a clip that begins with the picture: where a drag edits the
clip, what the text moves, turns, scales, darkens or hides has to be known before the region can be
cut out of each frame and laid where the drag has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from .pictures import Picture
from .support.masks import EDGE, filled, square, without_lines, without_whiskers
from .support.validate import Point, checked, warn

STEPS = (2, 4, 8, 16)  # of colour, in levels, from which on two neighbours count as two things
CLEAR = 0.7  # the share of an outline that lies on edges
LARGEST, CUT = 0.4, 0.25  # shares of the picture, and of its frame, that a thing takes at the most
SURE = 0.5  # correlation from which a region counts as found
LIKE = 0.9  # below it the region may have turned or changed its size, which is then searched for
_TURN, _SCALE = np.radians(6), 1.06  # steps of that search
_REST = 0.25  # pixels; nearer to its first place a region counts as resting
_REACH = 24 / 256  # how far a region may go from frame to frame, a share of the picture's width


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
    is left around the point, without lines such as a horizon, made tight by GrabCut, and without
    what GrabCut added of such lines. Of several sizes of step the first is taken that leaves a
    clear thing: one whose outline lies on edges of the picture, and which is not half of it. Else
    the region is what has the point's colour, which is clear by the same rule or not at all (sky,
    sea).
    """
    image = np.asarray(picture)
    inside("point", point, image.shape[:2])
    x, y = map(round, point)
    smooth = cv2.bilateralFilter(image, 5, 20, 3)
    edges = cv2.morphologyEx(cv2.GaussianBlur(smooth, (0, 0), 1), cv2.MORPH_GRADIENT, square(5))
    for thing in _guesses(smooth, x, y):
        clear = _is_clear(thing, edges.max(axis=2) > EDGE)
        if clear:
            break
    tight = _tighten(image, thing) if thing.sum() > 16 else thing
    tight = without_whiskers(image, without_lines(tight, x, y))
    return filled(tight if tight[y, x] else thing), clear


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
        yield without_lines(reached[1:-1, 1:-1] == 0, x, y)
    reached = np.zeros((height + 2, width + 2), np.uint8)
    _flood(smooth, reached, (x, y), 20, cv2.FLOODFILL_FIXED_RANGE)
    colour = reached[1:-1, 1:-1] > 0
    thing = without_lines(colour, x, y)
    yield thing if thing[y, x] else colour


def _flood(image: np.ndarray, reached: np.ndarray, seed, step: int, flags: int = 0) -> None:
    flags |= 4 | cv2.FLOODFILL_MASK_ONLY
    cv2.floodFill(image, reached, seed, 0, (step,) * 3, (step,) * 3, flags)


def _is_clear(thing: np.ndarray, edges: np.ndarray) -> bool:
    """Whether a region's outline lies on edges, and it takes no large part of picture and frame."""
    frame = np.concatenate([thing[0], thing[-1], thing[1:-1, 0], thing[1:-1, -1]])
    outline = thing & ~(cv2.erode(thing.astype(np.uint8), square(3), borderValue=1) > 0)
    if not outline.any() or thing.mean() > LARGEST or frame.mean() > CUT:
        return False
    return edges[outline].mean() > CLEAR


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


# -------------------------------------------------------------------- through a clip


@dataclass(frozen=True)
class Track:
    """Where a region is in each of F frames. Points are complex numbers x + iy, in pixels.

    Attributes:
      start: the middle of the region's box in the picture.
      centre: complex (F,), where that is in each frame, to a part of a pixel.
      factor: complex (F,), by how much the region is turned and scaled; 1 where it is not.
      like: (F,), the correlation under the region, at most 1; low where the region is not found,
        and `centre` and `factor` are those of the last frame in which it was.
      light: (F, 3), by how much its colours have changed, as factors of red, green and blue.
    """

    start: complex
    centre: np.ndarray
    factor: np.ndarray
    like: np.ndarray
    light: np.ndarray

    @property
    def turns(self) -> bool:
        """Whether the text turns or scales the region, and not just the model's trembling hand."""
        return self.like[-1] >= 0.8 and abs(np.log(self.factor[-1])) >= 0.25

    @property
    def sure(self) -> np.ndarray:
        """bool (F,)."""
        return self.like >= SURE

    def moves(self, f: int) -> bool:
        """Whether frame f shows the region somewhere else than the picture, or not at all."""
        away = max(abs(self.centre[f] - self.start), 40 * abs(self.factor[f] - 1))
        return away > 0.5 or not self.sure[f]

    def place(self, mask: np.ndarray, f: int) -> np.ndarray:
        """A mask (H, W) of the picture as it lies in frame f, float32 in [0, 1]."""
        return _placed(mask.astype(np.float32), self.start, self.centre[f], self.factor[f])

    def hole(self, mask: np.ndarray, f: int) -> np.ndarray:
        """Wherever the region may be in frame f, bool (H, W).

        Where it is not found, that is where it was last seen, where it is seen next, and between.
        It counts as no smaller than in the picture: a region that fades seems to shrink.
        """
        found, inside = np.flatnonzero(self.sure), mask.astype(np.float32)
        near = {f, found[found <= f].max(initial=0), found[found >= f].min(initial=f)}
        places = [(self.centre[k], turn) for k in near for turn in {1, self.factor[k]}]
        return np.any([_placed(inside, self.start, *place) > 0.3 for place in places], axis=0)


def follow(clip: np.ndarray, picture: np.ndarray, mask: np.ndarray) -> Track:
    """The region `mask` of `picture` in each frame, by normalised correlation under the mask.

    The search goes from frame to frame, in a window around the last place; turning and scaling are
    searched for where the region is no longer like itself. Brightness does not matter.

    Args:
      clip: uint8 (F, H, W, 3).
      picture: uint8 (H, W, 3), what the clip begins with.
      mask: bool (H, W), not empty.
    """
    top, left, bottom, right = _box(mask)
    start = complex(left + right - 1, top + bottom - 1) / 2
    reach = max(4, round(_REACH * clip.shape[2]))
    count = len(clip)
    centre, factor = np.full(count, start), np.ones(count, complex)
    like, light = np.ones(count), np.ones((count, 3))
    for f in range(1, count):
        frame, here, turn = clip[f].astype(np.float32), centre[f - 1], factor[f - 1]
        best = _search(frame, picture, mask, start, here, turn, reach)
        while best[0] < LIKE:
            around = [
                turn * _SCALE**s * np.exp(1j * _TURN * r)
                for s, r in ((0, 1), (0, -1), (1, 0), (-1, 0))
            ]
            tries = [
                (*_search(frame, picture, mask, start, here, k, reach // 2), k) for k in around
            ]
            found = max(tries, key=lambda one: one[0])
            if found[0] < best[0] + 0.01 or not 0.2 < abs(found[2]) < 5:
                break
            best, turn = found[:2], found[2]
        like[f] = best[0]
        sure = best[0] >= SURE
        if turn == 1 and abs(best[1] - start) < _REST:
            best = best[0], start
        centre[f], factor[f] = (best[1], turn) if sure else (here, factor[f - 1])
        light[f] = _light(frame, picture, mask, start, centre[f], factor[f]) if sure else np.nan
    known = np.isfinite(light[:, 0])
    steps = np.arange(count)
    light = np.stack([np.interp(steps, steps[known], c[known]) for c in light.T], 1)
    return Track(start, centre, factor, like, _smooth(light))


def likeness(frame: np.ndarray, cut: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """How like `cut` (h, w, 3) under `inside` (h, w) each place of a frame is: in [-1, 1].

    Normalised correlation of the colours; -1 where all under the mask is of one colour.
    """
    like = cv2.matchTemplate(frame, cut, cv2.TM_CCOEFF_NORMED, mask=cv2.merge([inside] * 3))
    like[~np.isfinite(like) | (like > 1.01)] = -1
    return like


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def _placed(image: np.ndarray, start: complex, centre: complex, factor: complex) -> np.ndarray:
    shift = centre - factor * start
    a, b = factor.real, factor.imag
    matrix = np.array([[a, -b, shift.real], [b, a, shift.imag]])
    return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR)


def _search(frame, picture, mask, start, here, factor, reach) -> tuple[float, complex]:
    """(correlation, centre) of the likest place within `reach` pixels of `here`."""
    if factor != 1:  # the region turned and scaled where it is in the picture
        picture = _placed(picture, start, start, factor)
        mask = _placed(mask.astype(np.float32), start, start, factor) > 0.5
        if not mask.any():
            return -1.0, here
    top, left, bottom, right = _box(mask)
    middle = complex(left + right - 1, top + bottom - 1) / 2
    offset = middle - start  # a turned region's box has another middle
    x = round((here + offset).real - (right - left - 1) / 2) - reach
    y = round((here + offset).imag - (bottom - top - 1) / 2) - reach
    h, w = bottom - top + 2 * reach, right - left + 2 * reach
    rows = np.clip(np.arange(y, y + h), 0, frame.shape[0] - 1)
    columns = np.clip(np.arange(x, x + w), 0, frame.shape[1] - 1)
    window = np.ascontiguousarray(frame[np.ix_(rows, columns)])
    cut = picture[top:bottom, left:right].astype(np.float32)
    like = likeness(window, cut, mask[top:bottom, left:right].astype(np.float32))
    j, i = np.unravel_index(like.argmax(), like.shape)
    at = complex(x + i + _peak(like[j], i), y + j + _peak(like[:, i], j))
    return float(like[j, i]), at + complex(right - left - 1, bottom - top - 1) / 2 - offset


def _peak(values: np.ndarray, i: int) -> float:
    """How far beside i the top of the parabola through three values is, in [-0.5, 0.5]."""
    if not 0 < i < len(values) - 1:
        return 0.0
    a, b, c = (float(v) for v in values[i - 1 : i + 2])
    bend = a - 2 * b + c
    return 0.0 if bend > -1e-9 else float(np.clip((a - c) / (2 * bend), -0.5, 0.5))


def _light(frame, picture, mask, start, centre, factor) -> np.ndarray:
    """The factors of red, green and blue that take the region to what the frame shows there."""
    before = _placed(picture.astype(np.float32), start, centre, factor)
    inside = _placed(mask.astype(np.float32), start, centre, factor) > 0.9
    if not inside.any():
        return np.full(3, np.nan)
    before, after = before[inside] + 1, frame[inside] + 1
    ratio, bright = after / before, before > 24  # nearly black pixels say nothing of the light
    whole = np.median(after.sum(1) / before.sum(1))
    light = [
        np.median(r[b]) if b.mean() > 0.1 else whole for r, b in zip(ratio.T, bright.T, strict=True)
    ]
    return np.clip(light, 0.2, 3)


def _smooth(light: np.ndarray) -> np.ndarray:
    """Over three frames, so that the decoder's own trembling is not laid on the thing."""
    wide = np.pad(light, ((1, 1), (0, 0)), "edge")
    return (wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4
