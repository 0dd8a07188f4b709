"""Trajectories: drags, pins and a camera move become a displacement field and warped frames.

This carries r of Eq. 1 into the video. Every frame of the edited branch gets its own condition: the
picture with its regions dragged as far as they are at that time. The last of these frames is the
dragged still of the paper's footnote 2.

Inside this file, points are complex numbers x + iy, so that turning and scaling is one product.
What moves, a dragged region or the whole background, is a layer with control points: `p` is where
they are in the picture, `q[f]` where they are in frame f. Two of them define a similarity; more
bend the layer by moving least squares (Schaefer, McPhail, Warren 2006, section 2.2).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from PIL import Image

from .instructions import Camera, Drag, Trajectory, TrajectoryInstruction
from .pictures import Picture
from .regions import LIKE, Track, follow, grow_mask, inside
from .support import cutout
from .support.validate import Frames, Region, Shape, Video, check_clip, checked

_ARM = 8.0  # pixels from a handle to the second point that carries its turning and scaling


@dataclasses.dataclass(frozen=True)
class Warped:
    """What `warp` returns, for F frames of H x W pixels. The arrays are read-only.

    Attributes:
      frames: uint8 (F, H, W, 3).
      masks: float32 (F, H, W) in [0, 1], where moved things are; 1 everywhere if the camera moves.
      vacated: float32 (F, H, W) in [0, 1], the places that things have left, filled from around.
      field: float32 (F, H, W, 2), the displacement (dx, dy) of each pixel of the picture; computed
        on first use, since a preview does not need it.
    """

    frames: np.ndarray
    masks: np.ndarray
    vacated: np.ndarray
    _field: Callable[[], np.ndarray] = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        for array in (self.frames, self.masks, self.vacated):
            array.flags.writeable = False

    @functools.cached_property
    def field(self) -> np.ndarray:
        field = self._field()
        field.flags.writeable = False
        return field


@checked
def displacement(
    trajectory: Trajectory, shape: Shape, num_frames: Frames = 16, picture: Picture | None = None
) -> np.ndarray:
    """How far each pixel of the picture has moved in each frame.

    A region with one handle moves rigidly, one with several by moving least squares (pins in it are
    handles that stay). Pins do not move, and all else follows the camera. A drag's path says where
    its handle is on the screen, whatever the camera does. Where regions overlap, the later counts.

    Args:
      trajectory: a `TrajectoryInstruction`, a `Drag`, a list of them, or a `Camera`.
      shape: (H, W).
      num_frames: F; frame 0 is not moved, and frame F - 1 is at the target.
      picture: needed only if a drag has no mask, to grow one from its handle.

    Returns:
      float32 (F, H, W, 2): (dx, dy) in pixels.

    Raises:
      ValueError: a handle outside the picture, a mask of another size, a missing mask.
    """
    layers, background = _layers(trajectory, shape, num_frames, picture)
    return _field(layers, background, shape, num_frames)


@checked
def warp(
    picture: Picture,
    trajectory: Trajectory,
    num_frames: Frames = 16,
    clip: Video | None = None,
    keep: Region | None = None,
) -> Warped:
    """Cut the regions out, move them, and fill what they uncover from the surroundings.

    A later drag lies on top. A drag by whole pixels copies its region exactly, a drag back to its
    start changes nothing, and whatever leaves the frame is cut off.

    With `clip`, the clip is dragged instead of the still. Each region is followed through the clip
    and cut out of each frame. The thing from the picture is then laid where the drag has it, with
    the colours changed, turned and scaled as they are in the clip by that time.

    Args:
      picture: anything `to_picture` takes.
      trajectory, num_frames: as for `displacement`; drags without a mask get one.
      clip: uint8 (F, H, W, 3), the picture as it moves without the drag.
      keep: bool (H, W), a thing that must not get lost in the clip, such as a painted one; once it
        cannot be found any more, it is laid where it was last seen.

    Raises:
      ValueError: as for `displacement`, or if a region covers the whole picture.
    """
    image = np.asarray(picture)
    shape = image.shape[:2]
    if keep is not None and keep.shape != shape:
        raise ValueError(f"keep must be a mask of the picture's shape {shape}, got {keep.shape}")
    layers, background = _layers(trajectory, shape, num_frames, picture)
    scene = _Still(image, layers) if clip is None else _Clip(image, layers, clip, keep)
    frames = np.empty((num_frames, *image.shape), np.uint8)
    masks = np.zeros((num_frames, *shape), np.float32)
    vacated = np.zeros_like(masks)
    for f in range(num_frames):
        pans = background.moves(f)  # then what rests on the screen leaves its place as well
        moving = tuple(k for k in range(len(layers)) if pans or scene.moves(k, f))
        plate, hole = scene.plate(f, moving)
        if pans:
            plate = background.render(plate, f, cv2.BORDER_REPLICATE)
            hole = background.render(hole, f, cv2.BORDER_CONSTANT)
            masks[f] = 1
        out, cover = plate.astype(np.float32), np.zeros(shape, np.float32)
        for layer, sprite in scene.things(f, moving):
            if layer.moves(f):
                sprite = layer.render(sprite, f, cv2.BORDER_CONSTANT)
            alpha = np.clip(sprite[..., 3], 0, 1)
            out += sprite[..., :3] - alpha[..., None] * out
            cover = np.maximum(cover, alpha)
        frames[f] = np.clip(np.rint(out), 0, 255)
        masks[f] = np.maximum(masks[f], np.maximum(cover, scene.kept(f)))
        vacated[f] = np.clip(hole, 0, 1) * (1 - cover)
    field = functools.partial(_field, layers, background, shape, num_frames)
    return Warped(frames, masks, vacated, field)


@checked
def drag_still(picture: Picture, trajectory: Trajectory) -> Image.Image:
    """The picture with everything at its target: the dragged still of the paper's footnote 2."""
    return Image.fromarray(warp(picture, trajectory, num_frames=2).frames[-1])


@checked
def moving_region(warped: Warped) -> np.ndarray:
    """Where things are and where they were: float32 (F, H, W) in [0, 1].

    For dual-clock denoising both count as moving; otherwise a copy of the thing would stay behind.
    """
    return np.minimum(warped.masks + warped.vacated, 1)


@checked
def with_masks(trajectory: Trajectory, picture: Picture) -> TrajectoryInstruction:
    """The same trajectory, with a mask grown for every drag that has none."""
    drags = list(trajectory.drags)
    for k, drag in enumerate(drags):
        if drag.mask is None:
            drags[k] = dataclasses.replace(drag, mask=grow_mask(picture, drag.paths[0][0]))
    return dataclasses.replace(trajectory, drags=drags)


@checked
def check(trajectory: Trajectory, shape: Shape) -> TrajectoryInstruction:
    """The trajectory, or ValueError if it does not fit a picture of `shape` (H, W)."""
    height, width = shape
    for k, drag in enumerate(trajectory.drags):
        for path in drag.paths:
            inside(f"the handle of drags[{k}]", path[0], shape)
            for x, y in path:
                if not (-width <= x <= 2 * width and -height <= y <= 2 * height):
                    raise ValueError(
                        f"the path of drags[{k}] may leave the picture of {width} x {height} "
                        f"pixels by its own size at most, got ({x:g}, {y:g})"
                    )
        if drag.mask is not None and drag.mask.shape != tuple(shape):
            raise ValueError(
                f"the mask of drags[{k}] must have the picture's shape {tuple(shape)}, "
                f"got {drag.mask.shape}"
            )
    for i, pin in enumerate(trajectory.pins):
        inside(f"pins[{i}]", pin, shape)
    return trajectory


# ----------------------------------------------------------------------------------------- layers


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A part that moves as one: its region (None for everything) and its control points."""

    mask: np.ndarray | None
    p: np.ndarray  # complex (n,)
    q: np.ndarray  # complex (F, n)
    turns: bool = False  # may turn and scale about its handle, as nothing else holds it

    def moves(self, f: int) -> bool:
        return bool(np.abs(self.q[f] - self.p).max() > 1e-6)

    def render(self, image: np.ndarray, f: int, border: int) -> np.ndarray:
        """The image as it is in frame f, with each pixel read from where it came from."""
        height, width = image.shape[:2]
        p, q = self.p, self.q[f]
        if len(p) == 2:
            turn = _ratio(p[1] - p[0], q[1] - q[0])
            shift = p[0] - turn * q[0]
            a, b = turn.real, turn.imag
            matrix = np.array([[a, -b, shift.real], [b, a, shift.imag]])
            flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
            return cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=border)
        source = _inverse(p, q, height, width)
        return cv2.remap(image, source[..., 0], source[..., 1], cv2.INTER_CUBIC, borderMode=border)


def _layers(
    trajectory: Trajectory, shape: Shape, num_frames: Frames, picture: Picture | None
) -> tuple[list[_Layer], _Layer]:
    """A layer for each drag, and one for the background."""
    check_clip(num_frames, shape)
    check(trajectory, shape)
    missing = [k for k, drag in enumerate(trajectory.drags) if drag.mask is None]
    if missing and picture is None:
        raise ValueError(f"drags[{missing[0]}] has no mask: give one, or picture= to grow one")
    if missing:
        trajectory = with_masks(trajectory, picture)
    clock = np.arange(num_frames) / max(num_frames - 1, 1)
    free = list({complex(*pin): None for pin in trajectory.pins})
    layers, above = [], np.zeros(shape, bool)
    for k in reversed(range(len(trajectory.drags))):  # a pin holds the uppermost region it is in
        drag = trajectory.drags[k]
        if drag.mask.all():
            raise ValueError(f"the mask of drags[{k}] covers the whole picture: use a Camera")
        if not (drag.mask & ~above).any():
            raise ValueError(
                f"the mask of drags[{k}] lies wholly under those of later drags: "
                "put it after them, or make them one drag with several handles"
            )
        above |= drag.mask
        held = [v for v in free if drag.mask[round(v.imag), round(v.real)]]
        free = [v for v in free if v not in held]
        turns = len(drag.paths) == 1 and not held
        layers.insert(0, _Layer(drag.mask, *_drag_points(k, drag, held, clock), turns))
    return layers, _Layer(None, *_camera_points(trajectory.camera, free, shape, clock))


def _drag_points(
    k: int, drag: Drag, pins: list[complex], clock: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    progress = _ease(drag.easing, clock)
    p = [complex(*path[0]) for path in drag.paths]
    q = [_along(path, drag.times, progress) for path in drag.paths]
    turns = drag.rotate != 0 or drag.scale != 1
    if len(p) == 1 and (turns or not pins):
        p.append(p[0] + _ARM)
        turn = drag.scale**progress * np.exp(1j * np.radians(drag.rotate) * progress)
        q.append(q[0] + _ARM * turn)
    for pin in pins:
        if pin in p:
            raise ValueError(f"the pin at ({pin.real:g}, {pin.imag:g}) is a handle of drags[{k}]")
        p.append(pin)
        q.append(np.full(len(clock), pin))
    return np.array(p), np.stack(q, 1)


def place(drag: Drag, time: float) -> tuple[float, float]:
    """The position (x, y) of the handle of a drag with a path, at a time in [0, 1] of the clip."""
    there = _along(drag.path, drag.times, _ease(drag.easing, np.array([time])))[0]
    return float(there.real), float(there.imag)


def _along(path: Sequence, times: Sequence[float] | None, progress: np.ndarray) -> np.ndarray:
    """The position of the handle at each moment, at constant speed unless times are given."""
    points = np.array([complex(*point) for point in path])
    if times is None:
        walked = np.concatenate([[0], np.cumsum(np.abs(np.diff(points)))])
        if walked[-1] == 0:
            return np.full(len(progress), points[0])
        times = walked / walked[-1]
    return np.interp(progress, times, points)


def _ease(easing: str, t: np.ndarray) -> np.ndarray:
    return {
        "linear": t,
        "ease": t * t * (3 - 2 * t),
        "ease-in": t * t,
        "ease-out": t * (2 - t),
    }[easing]


def _camera_points(
    camera: Camera | None, pins: list[complex], shape: tuple[int, int], clock: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    camera = camera or Camera()
    right, bottom = shape[1] - 1, shape[0] - 1
    middle = complex(right, bottom) / 2
    p = np.array([0, right + 1j * bottom])
    if pins:  # hold the frame at those of eight points that are not too close to a pin
        thirds = [x * right + 1j * y * bottom for x in (0, 0.5, 1) for y in (0, 0.5, 1)]
        frame = [v for v in thirds if v != middle]
        p = np.array([v for v in frame if min(abs(v - pin) for pin in pins) > abs(middle) / 4])
    s = _ease(camera.easing, clock)[:, None]
    turn = camera.zoom**s * np.exp(-1j * np.radians(camera.roll) * s)
    q = middle + turn * (p - middle - complex(*camera.pan) * s)
    held = np.tile(np.array(pins, complex), (len(clock), 1))
    return np.concatenate([p, pins]), np.concatenate([q, held], 1)


# ------------------------------------------------------------------------- what is dragged in what


class _Still:
    """A picture whose regions are dragged."""

    def __init__(self, image: np.ndarray, layers: list[_Layer]):
        self.layers = layers
        masks = [layer.mask for layer in layers]
        sprites = [cutout.sprite(image, mask, masks[k + 1 :]) for k, mask in enumerate(masks)]
        self._things = list(zip(layers, sprites, strict=True))
        # one fill serves every frame in which the same things move
        self._plate = functools.cache(
            lambda moving: cutout.plate(image, [masks[k] for k in moving])
        )

    def moves(self, k: int, f: int) -> bool:
        return self.layers[k].moves(f)

    def plate(self, f: int, moving: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        return self._plate(moving)

    def things(self, f: int, moving: tuple[int, ...]):
        return self._things

    def kept(self, f: int) -> float:
        return 0.0


class _Clip:
    """A clip whose regions are followed, cut out and dragged."""

    def __init__(self, image, layers: list[_Layer], clip: np.ndarray, keep: np.ndarray | None):
        self.clip = np.concatenate([image[None], clip[1:]])
        masks = [layer.mask for layer in layers]
        sprites = [cutout.cut_out(image, mask, masks[k + 1 :]) for k, mask in enumerate(masks)]
        self.tracks = [follow(self.clip, image, mask) for mask in masks]
        layers = [_turned(a, track) for a, track in zip(layers, self.tracks, strict=True)]
        self.layers = layers
        self._things = list(zip(layers, sprites, self.tracks, strict=True))
        self._kept = []
        free = np.zeros(image.shape[:2], bool) if keep is None else keep.copy()
        for layer in layers:
            free &= ~layer.mask
        for mask in cutout.parts(free):
            track = follow(self.clip, image, mask)
            q = np.stack([track.centre, track.centre + _ARM * track.factor], 1)
            layer = _Layer(mask, np.array([track.start, track.start + _ARM]), q)
            self._kept.append((layer, cutout.cut_out(image, mask), track))

    @functools.cached_property
    def holes(self) -> np.ndarray:
        """The places where a dragged region may be, bool (F, H, W)."""
        rim = np.ones((2 * cutout.RIM + 3,) * 2)
        holes = [
            np.any([t.hole(a.mask, f) for a, _, t in self._things], axis=0)
            for f in range(len(self.clip))
        ]
        return np.stack([cv2.dilate(hole.astype(np.uint8), rim) > 0 for hole in holes])

    def moves(self, k: int, f: int) -> bool:
        return self.layers[k].moves(f) or self.tracks[k].moves(f)

    def plate(self, f: int, moving: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        if not moving:
            return self.clip[f], np.zeros(self.clip.shape[1:3], np.float32)
        hole = self.holes[f]
        frame, left = cutout.fill_from_others(self.clip, self.holes, f)
        return cutout.fill(frame, left) if left.any() else frame, hole.astype(np.float32)

    def things(self, f: int, moving: tuple[int, ...]):
        for layer, thing, track in self._kept:
            lost = np.clip((LIKE - track.like[f]) / 0.2, 0, 1)
            if lost > 0:
                yield layer, cutout.lit(thing, track.light[f]) * lost
        if moving:
            for layer, thing, track in self._things:
                yield layer, cutout.lit(thing, track.light[f])

    def kept(self, f: int) -> np.ndarray | float:
        """The places of the dragged things while all of them rest, and of those that must not get
        lost, float32 (H, W) in [0, 1]."""
        rest = not any(self.moves(k, f) for k in range(len(self._things)))
        things = [*self._things * rest, *self._kept]
        places = [track.place(layer.mask, f) for layer, _, track in things]
        return np.max(places, axis=0) if places else 0.0


def _turned(layer: _Layer, track: Track) -> _Layer:
    """The layer, turned and scaled about its handle as the clip turns and scales the region."""
    if not (layer.turns and track.turns):
        return layer
    q = layer.q.copy()
    q[:, 1] = q[:, 0] + (q[:, 1] - q[:, 0]) * track.factor
    return dataclasses.replace(layer, q=q)


# --------------------------------------------------------------------------------- fields, pixels


def _grid(height: int, width: int) -> np.ndarray:
    return np.arange(width) + 1j * np.arange(height)[:, None]


def _ratio(a: complex, b: complex) -> complex:
    """a / b, where b may vanish: a thing shrunk to a point is drawn a thousandth of its size."""
    return a / b if abs(b) > 1e-3 * abs(a) else 1e3 + 0j


def _moved(v: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The new places of points v when the control points p go to q."""
    if len(p) == 2:
        return (q[1] - q[0]) / (p[1] - p[0]) * (v - p[0]) + q[0]
    return _mls(v, p, q)[0]


def _mls(v: np.ndarray, p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moving least squares: for each v the similarity that best takes p to q, weighted by nearness.

    Returns the new places of v and the complex factor (turn and scale) at each.
    """
    away = v[..., None] - p
    weight = 1 / (away.real**2 + away.imag**2 + 1e-6)
    weight /= weight.sum(-1, keepdims=True)
    table = np.stack([p, q, p.conj() * q, np.abs(p) ** 2], 1)  # real view: one product for all four
    means = (weight @ table.view(np.float64)).view(np.complex128)
    p_mean, q_mean, product, square = np.moveaxis(means, -1, 0)
    spread = square.real - np.abs(p_mean) ** 2
    factor = (product - p_mean.conj() * q_mean) / np.maximum(spread, 1e-9)
    return factor * (v - p_mean) + q_mean, factor


def _inverse(p: np.ndarray, q: np.ndarray, height: int, width: int) -> np.ndarray:
    """Where each pixel of the frame came from: float32 (H, W, 2).

    Swapping p and q gives only a first guess, which may be tens of pixels off; steps like Newton's
    correct it. The map is smooth, so it is computed at every fourth pixel.
    """
    cell = 4
    rows, columns = -(-height // cell) + 2, -(-width // cell) + 2
    y = _grid(rows, columns) * cell - (cell + 1) / 2 * (1 + 1j)  # cell centres, one cell around
    x, factor = _mls(y, q, p)
    for _ in range(10):
        x = x + factor * (y - _mls(x, p, q)[0])
    coarse = np.stack([x.real, x.imag], -1).astype(np.float32)
    fine = cv2.resize(coarse, (columns * cell, rows * cell), interpolation=cv2.INTER_LINEAR)
    return fine[cell : cell + height, cell : cell + width]


def _field(
    layers: list[_Layer], background: _Layer, shape: tuple[int, int], num_frames: int
) -> np.ndarray:
    grid = _grid(*shape)
    field = np.zeros((num_frames, *shape, 2), np.float32)
    for f in range(num_frames):
        for layer in (background, *layers):
            if layer is background and not layer.moves(f):
                continue
            inside = np.s_[:, :] if layer.mask is None else layer.mask
            v = grid[inside]
            u = _moved(v, layer.p, layer.q[f]) - v if layer.moves(f) else np.zeros_like(v)
            field[f][inside] = np.stack([u.real, u.imag], -1)
    return field
