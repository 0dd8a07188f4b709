"""The four instructions of the paper (section 3.1) as plain data.

Points are (x, y) in picture pixels, y down; (0, 0) is the centre of the top left pixel. Everything
here is checked when it is made, cannot be changed afterwards, and survives a round trip through
JSON. Bad input raises ValueError (or TypeError) with one sentence that says what is accepted.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageOps

VERSION = 1  # of the JSON form; another version is refused, never guessed at
MAX_PIXELS = 64_000_000
TOOLS = ("brush", "eraser", "mask")
EASINGS = ("linear", "ease", "ease-in", "ease-out")

Point = tuple[float, float]
Path2D = tuple[Point, ...]


# ------------------------------------------------------------------------------------- pictures


def to_picture(obj: Any, size: tuple[int, int] | None = None) -> Image.Image:
    """Any picture as an RGB PIL image.

    Args:
      obj: a PIL image of any mode, a path, or an array of shape (H, W), (H, W, 3) or (H, W, 4),
        uint8 in [0, 255] or float in [0, 1]. EXIF rotation is applied, alpha is laid over white,
        greyscale becomes RGB.
      size: (W, H) to centre-crop and resize to; a warning says so when that changes the picture.

    Raises:
      ValueError: no pixels, more than 64 megapixels, no colours, an unreadable file.
      TypeError: something that is no picture.
    """
    if isinstance(obj, (str, os.PathLike)):
        picture = _open(Path(obj))
    elif isinstance(obj, Image.Image):
        picture = obj
    elif isinstance(obj, np.ndarray):
        picture = _from_array(obj)
    else:
        raise TypeError(
            f"a picture must be a PIL image, a numpy array or a path, got {type(obj).__name__}"
        )
    _check_area(*picture.size)
    try:
        picture = _to_rgb(ImageOps.exif_transpose(picture))
    except (OSError, SyntaxError) as error:  # PIL reads files late: a cut-off one fails only here
        raise ValueError(f"the picture cannot be read to its end ({error})") from None
    if size is None or picture.size == tuple(size):
        return picture
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be (width, height) in pixels, each at least 1, got {size!r}")
    warnings.warn(
        "the picture of {} x {} pixels was cropped about its centre and resized to {} x {}".format(
            *picture.size, *size
        ),
        stacklevel=2,
    )
    return ImageOps.fit(picture, tuple(size), Image.Resampling.LANCZOS)


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise ValueError(f"there is no picture at {str(path)!r}")
    try:
        with warnings.catch_warnings():  # our own limit is the stricter one
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path)
    except Image.DecompressionBombError:
        raise ValueError(
            f"{path.name!r} has more than the accepted {MAX_PIXELS // 10**6} megapixels"
        ) from None
    except (OSError, SyntaxError):
        raise ValueError(f"{path.name!r} is not a picture that PIL can read") from None


def _from_array(array: np.ndarray) -> Image.Image:
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(
            f"a picture array must have shape (H, W), (H, W, 3) or (H, W, 4), got {array.shape}"
        )
    _check_area(array.shape[1], array.shape[0])
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError("a float picture array must hold finite values in [0, 1]")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(
            f"a picture array must be uint8 in [0, 255] or float in [0, 1], got {array.dtype}"
        )
    return Image.fromarray(array)


def _check_area(width: int, height: int) -> None:
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise ValueError(
            f"a picture must have between 1 pixel and {MAX_PIXELS // 10**6} megapixels, "
            f"got {width} x {height}"
        )


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16-bit grey: PIL's own conversion would clip it to white
        grey = np.clip(np.asarray(picture).astype(np.int64) // 257, 0, 255)
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("a picture of float pixels (PIL mode 'F') is not accepted; use 'RGB'")
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return picture.convert("RGB")


# --------------------------------------------------------------------------------------- checks


def _number(name: str, value: Any, low: float, high: float) -> float:
    """A finite float in [low, high]."""
    try:
        number = float("nan") if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not low <= number <= high:
        raise ValueError(f"{name} must be a number in [{low:g}, {high:g}], got {value!r}")
    return number


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a sentence, got {value!r}")
    return value


def _choice(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def _point(name: str, value: Any) -> Point:
    try:
        x, y = (float(v) for v in value)
    except (TypeError, ValueError):
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"{name} must be a point (x, y) of two finite numbers, got {value!r}")
    return x, y


def _points(name: str, value: Any, at_least: int) -> Path2D:
    if isinstance(value, str) or not isinstance(value, (Iterable, np.ndarray)):
        raise ValueError(f"{name} must be a list of points (x, y), got {value!r}")
    points = tuple(_point(f"{name}[{i}]", v) for i, v in enumerate(value))
    if len(points) < at_least:
        raise ValueError(f"{name} must have at least {at_least} point(s), got {len(points)}")
    return points


def _times(name: str, value: Any, count: int, high: float) -> tuple[float, ...] | None:
    if value is None:
        return None
    times = tuple(_number(name, v, 0, high) for v in np.ravel(value))
    if len(times) != count or any(b <= a for a, b in pairwise(times)):
        raise ValueError(f"{name} must hold {count} increasing times, one a point, got {value!r}")
    return times


def _instances(name: str, value: Any, kind: type) -> tuple:
    items = (value,) if isinstance(value, kind) else value
    if isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
        raise TypeError(f"{name} must be a list of {kind.__name__}, got {type(value).__name__}")
    items = tuple(items)
    for item in items:
        if not isinstance(item, kind):
            raise TypeError(f"{name} must hold {kind.__name__} only, got {type(item).__name__}")
    return items


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


# ----------------------------------------------------------------------------------------- JSON


class _Saved:
    """to_json / from_json / save / load and equality, the same for every instruction."""

    def to_json(self) -> dict:
        """A dict of plain JSON values, with the version of the format."""
        return {"version": VERSION, **_encode(self)}

    @classmethod
    def from_json(cls, data: dict | str):
        """The instruction that `to_json` described, from the dict or its text.

        Raises ValueError for another version, another kind of instruction, or damaged data.
        """
        name = cls.__name__
        if isinstance(data, (str, bytes)):
            try:
                data = json.loads(data)
            except ValueError as error:
                raise ValueError(f"this is no complete {name} in JSON: {error}") from None
        if not isinstance(data, dict):
            raise ValueError(f"a saved {name} must be a JSON object, got {type(data).__name__}")
        if data.get("version") != VERSION:
            raise ValueError(
                f"a saved {name} must be of version {VERSION}, got {data.get('version')!r}"
            )
        found = _decode({k: v for k, v in data.items() if k != "version"})
        if type(found) is not cls:
            raise ValueError(f"expected a saved {name}, got {data.get('type')!r}")
        return found

    def save(self, path: str | os.PathLike) -> None:
        """Write as JSON. The old file stays whole until the new one is."""
        path = Path(path)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.to_json()), encoding="utf-8")
        part.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike):
        """Read what `save` wrote; raises ValueError naming the file when it cannot be."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{str(path)!r} cannot be loaded: {error}") from None

    def __eq__(self, other: object) -> bool:  # by value, arrays and pictures included
        return type(other) is type(self) and _encode(self) == _encode(other)

    __hash__ = None


def _png(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _encode(value: Any) -> Any:
    if isinstance(value, _Saved):
        fields = {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Image.Image):
        return {"type": "picture", "png": _png(value)}
    if isinstance(value, np.ndarray) and value.dtype == bool:
        return {"type": "mask", "png": _png(Image.fromarray(value))}
    if isinstance(value, np.ndarray):
        return {"type": "array", "values": value.tolist()}
    if isinstance(value, tuple):
        return [_encode(v) for v in value]
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(v) for v in value]
    if not isinstance(value, dict):
        return value
    value = dict(value)
    kind = value.pop("type", None)
    fields = {k: _decode(v) for k, v in value.items()}
    known = {c.__name__: c for c in _Saved.__subclasses__()}
    try:
        if kind in ("picture", "mask"):
            image = Image.open(io.BytesIO(base64.b64decode(fields["png"], validate=True)))
            return to_picture(image) if kind == "picture" else _mask_of(image)
        if kind == "array":
            return np.asarray(fields["values"], np.float64)
        return known[kind](**fields)
    except KeyError:
        raise ValueError(f"damaged data: {kind!r} with {sorted(fields)} is not known") from None
    except TypeError as error:  # a field too many or too few
        raise ValueError(f"damaged data in a saved {kind}: {error}") from None
    except OSError as error:
        raise ValueError(f"damaged {kind} in saved data: {error}") from None


def _mask_of(image: Image.Image) -> np.ndarray:
    _check_area(*image.size)
    return np.asarray(image.convert("L")) > 0


# --------------------------------------------------------------------------------- instructions


def _set(self: Any, **values: Any) -> None:
    for name, value in values.items():  # the way a frozen dataclass normalises its own fields
        object.__setattr__(self, name, value)


@dataclasses.dataclass(frozen=True, eq=False)
class Stroke(_Saved):
    """One stroke of a painting tool.

    Attributes:
      points: (x, y) pairs in picture pixels; a single point is a dot.
      colour: any CSS colour or an (r, g, b) triple in [0, 255]; kept as "#rrggbb".
      width: diameter of the round tip in picture pixels, (0, 10000].
      opacity: in [0, 1], of the whole stroke: it does not add up where a stroke crosses itself.
      tool: "brush" paints; "eraser" removes what was drawn before; "mask" marks a region.
      times: seconds since the stroke began, one a point, or None.
    """

    points: Path2D
    colour: str = "#ffc81e"
    width: float = 12.0
    opacity: float = 1.0
    tool: str = "brush"
    times: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _choice("tool", self.tool, TOOLS)
        points = _points("points", self.points, 1)
        width = _number("width", self.width, 0, 10_000)
        if width == 0:
            raise ValueError("width must be greater than 0 pixels, got 0")
        _set(
            self,
            points=points,
            colour=_colour(self.colour),
            width=width,
            opacity=_number("opacity", self.opacity, 0, 1),
            times=_times("times", self.times, len(points), math.inf),
        )


def _colour(value: Any) -> str:
    try:
        rgb = ImageColor.getrgb(value) if isinstance(value, str) else tuple(int(v) for v in value)
    except (TypeError, ValueError):
        rgb = ()
    if len(rgb) != 3 or not all(0 <= v <= 255 for v in rgb):
        raise ValueError(
            f"colour must be a CSS colour without alpha or (r, g, b) in [0, 255], got {value!r}"
        )
    return "#{:02x}{:02x}{:02x}".format(*rgb)


@dataclasses.dataclass(frozen=True, eq=False)
class Drag(_Saved):
    """A region and where it goes.

    Attributes:
      path: at least two points: the handle first, the target last. The handle lies in the picture;
        later points may leave it, so that a thing can sail out of the frame.
      mask: the region, bool or number (H, W) of the picture's size, non-zero inside; None grows one
        from the handle (`ivkit.grow_mask`). A tight mask matters: a box drags a halo.
      times: when each point of the path is reached, in [0, 1] of the clip, increasing; None moves
        at constant speed.
      rotate, scale: reached at the last frame, about the handle; degrees, clockwise on the screen.
      easing: "linear", "ease" (slow at both ends), "ease-in" or "ease-out".
      handles: instead of `path`, several paths that bend one region (moving least squares); here a
        path of one point holds still. Turning and scaling follow from the handles themselves.
    """

    path: Path2D = ()
    mask: np.ndarray | None = None
    times: tuple[float, ...] | None = None
    rotate: float = 0.0
    scale: float = 1.0
    easing: str = "linear"
    handles: tuple[Path2D, ...] = ()

    def __post_init__(self) -> None:
        none = self.path is None or len(self.path) == 0
        if none != (len(self.handles) > 0):
            raise ValueError("a drag must have a path, from handle to target, or several handles")
        _choice("easing", self.easing, EASINGS)
        path = () if none else _points("path", self.path, 2)
        handles = tuple(_points(f"handles[{i}]", h, 1) for i, h in enumerate(self.handles))
        rotate = _number("rotate", self.rotate, -3600, 3600)
        scale = _number("scale", self.scale, 0.05, 20)
        if handles and (len({h[0] for h in handles}) != len(handles) or len(handles) < 2):
            raise ValueError("handles must be at least two paths that start at different points")
        if handles and (rotate, scale, self.times) != (0, 1, None):
            raise ValueError("rotate, scale and times belong to a drag with a path, not to handles")
        _set(
            self,
            path=path,
            mask=None if self.mask is None else to_mask(self.mask),
            times=_times("times", self.times, len(path), 1),
            rotate=rotate,
            scale=scale,
            handles=handles,
        )

    @property
    def paths(self) -> tuple[Path2D, ...]:
        """The path of each handle."""
        return self.handles or (self.path,)


@dataclasses.dataclass(frozen=True, eq=False)
class Camera(_Saved):
    """One move of the camera, reached at the last frame; the picture moves the other way.

    Attributes:
      pan: (dx, dy) of the camera in pixels: (40, 0) looks to the right, so things move left.
      zoom: above 1 comes closer, about the middle of the picture.
      roll: degrees clockwise, so the picture turns the other way.
      easing: as for a drag.
    """

    pan: Point = (0.0, 0.0)
    zoom: float = 1.0
    roll: float = 0.0
    easing: str = "linear"

    def __post_init__(self) -> None:
        _choice("easing", self.easing, EASINGS)
        _set(
            self,
            pan=_point("pan", self.pan),
            zoom=_number("zoom", self.zoom, 0.05, 20),
            roll=_number("roll", self.roll, -3600, 3600),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ImageInstruction(_Saved):
    """x: the picture to begin with, anything that `to_picture` takes; None begins from text."""

    picture: Image.Image | None = None

    def __post_init__(self) -> None:
        if self.picture is not None:
            _set(self, picture=to_picture(self.picture))


@dataclasses.dataclass(frozen=True, eq=False)
class ContentInstruction(_Saved):
    """y: what the picture shows, as text and painted strokes.

    `strength` in [0, 1] is how far P_img may depart from the painted picture; 0 takes it as it is.
    """

    text: str
    strokes: tuple[Stroke, ...] = ()
    strength: float = 0.7

    def __post_init__(self) -> None:
        _text("text", self.text)
        _set(
            self,
            strokes=_instances("strokes", self.strokes, Stroke),
            strength=_number("strength", self.strength, 0, 1),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class MotionInstruction(_Saved):
    """y': what happens, as text. `motion_scale` is PIA's: an integer in 0...8."""

    text: str
    motion_scale: int = 0

    def __post_init__(self) -> None:
        _text("text", self.text)
        if _number("motion_scale", self.motion_scale, 0, 8) % 1:
            raise ValueError(f"motion_scale must be an integer, got {self.motion_scale!r}")
        _set(self, motion_scale=int(self.motion_scale))


@dataclasses.dataclass(frozen=True, eq=False)
class TrajectoryInstruction(_Saved):
    """r: drags (a later one lies on top), points that stay where they are, and one camera move."""

    drags: tuple[Drag, ...] = ()
    pins: Path2D = ()
    camera: Camera | None = None

    def __post_init__(self) -> None:
        if self.camera is not None and not isinstance(self.camera, Camera):
            raise TypeError(f"camera must be a Camera, got {type(self.camera).__name__}")
        _set(
            self,
            drags=_instances("drags", self.drags, Drag),
            pins=_points("pins", self.pins, 0),
        )

    def __bool__(self) -> bool:
        return bool(self.drags) or self.camera is not None

    @classmethod
    def of(cls, obj: Any) -> TrajectoryInstruction:
        """From a trajectory, one drag, a list of drags, a camera, or None."""
        if isinstance(obj, cls):
            return obj
        if isinstance(obj, Camera):
            return cls(camera=obj)
        return cls(drags=() if obj is None else obj)


@dataclasses.dataclass(frozen=True, eq=False)
class Instructions(_Saved):
    """All that a person asks for (Eq. 1), in one thing that can be saved and replayed.

    Attributes:
      image, content, motion, trajectory: the four instructions; None where one is not given.
      lam: Eq. 4's weight in [0, 1], 1 = ignore the edits; a number or an array that broadcasts to
        (steps, F, 1, h, w).
      seed: of the starting noise.
      num_frames: F.
      num_inference_steps, guidance_scale: None takes the model's own.
    """

    image: ImageInstruction | None = None
    content: ContentInstruction | None = None
    motion: MotionInstruction | None = None
    trajectory: TrajectoryInstruction | None = None
    lam: float | np.ndarray = 0.3
    seed: int = 0
    num_frames: int = 16
    num_inference_steps: int | None = None
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        for name, kind in (
            ("image", ImageInstruction),
            ("content", ContentInstruction),
            ("motion", MotionInstruction),
            ("trajectory", TrajectoryInstruction),
        ):
            if not isinstance(value := getattr(self, name), kind | None):
                raise TypeError(f"{name} must be {kind.__name__}, got {type(value).__name__}")
        lam = np.asarray(self.lam)
        numbers = lam.dtype.kind in "uif" and lam.size > 0 and lam.ndim <= 5
        if not numbers or not ((lam >= 0) & (lam <= 1)).all():
            raise ValueError(
                f"lam must be in [0, 1] and broadcast to (steps, F, 1, h, w), got {self.lam!r}"
            )
        _set(
            self,
            lam=lam.astype(np.float64) if lam.ndim else float(lam),
            seed=_integer("seed", self.seed, 0),
            num_frames=_integer("num_frames", self.num_frames, 1),
        )
        if self.num_inference_steps is not None:
            _integer("num_inference_steps", self.num_inference_steps, 1)
        if self.guidance_scale is not None:
            _number("guidance_scale", self.guidance_scale, 0, 100)


def _integer(name: str, value: Any, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}")
    return int(value)
