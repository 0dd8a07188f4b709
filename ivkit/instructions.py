"""The four instructions of the paper (section 3.1) as plain data.

Points are (x, y) in picture pixels, y down; (0, 0) is the centre of the top left pixel. Everything
here is checked when it is made, cannot be changed afterwards, and survives a round trip through
JSON. Bad input raises ValueError (or TypeError) with one sentence that says what is accepted.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from PIL import Image, ImageColor

from . import validate
from .pictures import to_picture
from .saved import Saved
from .validate import Path2D, Point, to_mask

TOOLS = ("brush", "eraser", "mask")
EASINGS = ("linear", "ease", "ease-in", "ease-out")


@dataclasses.dataclass(frozen=True, eq=False)
class Stroke(Saved):
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
        validate.choice("tool", self.tool, TOOLS)
        points = validate.points("points", self.points, 1)
        width = validate.number("width", self.width, 0, 10_000)
        if width == 0:
            raise ValueError("width must be greater than 0 pixels, got 0")
        self._set(
            points=points,
            colour=_colour(self.colour),
            width=width,
            opacity=validate.number("opacity", self.opacity, 0, 1),
            times=validate.times("times", self.times, len(points), math.inf),
        )


def _colour(value: Any) -> str:
    try:
        rgb = ImageColor.getrgb(value) if isinstance(value, str) else tuple(int(v) for v in value)
    except (TypeError, ValueError, OverflowError):
        rgb = ()
    if len(rgb) != 3 or not all(0 <= v <= 255 for v in rgb):
        raise ValueError(
            "colour must be a CSS colour without alpha or (r, g, b) in [0, 255], "
            f"got {validate.shown(value)}"
        )
    return "#{:02x}{:02x}{:02x}".format(*rgb)


@dataclasses.dataclass(frozen=True, eq=False)
class Drag(Saved):
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
        validate.choice("easing", self.easing, EASINGS)
        paths = validate.listed("handles", self.handles, "paths")
        handles = tuple(validate.points(f"handles[{i}]", path, 1) for i, path in enumerate(paths))
        path = validate.points("path", () if self.path is None else self.path, 0)
        if bool(path) == bool(handles):
            raise ValueError("a drag must have a path, from handle to target, or several handles")
        if len(path) == 1:
            raise ValueError("path must have at least 2 point(s), got 1")
        rotate = validate.number("rotate", self.rotate, -3600, 3600)
        scale = validate.number("scale", self.scale, 0.05, 20)
        if handles and (len({h[0] for h in handles}) != len(handles) or len(handles) < 2):
            raise ValueError("handles must be at least two paths that start at different points")
        if handles and ((rotate, scale) != (0, 1) or self.times is not None):
            raise ValueError("rotate, scale and times belong to a drag with a path, not to handles")
        self._set(
            path=path,
            mask=None if self.mask is None else to_mask(self.mask),
            times=validate.times("times", self.times, len(path), 1),
            rotate=rotate,
            scale=scale,
            handles=handles,
        )

    @property
    def paths(self) -> tuple[Path2D, ...]:
        """The path of each handle."""
        return self.handles or (self.path,)


@dataclasses.dataclass(frozen=True, eq=False)
class Camera(Saved):
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
        validate.choice("easing", self.easing, EASINGS)
        self._set(
            pan=validate.point("pan", self.pan),
            zoom=validate.number("zoom", self.zoom, 0.05, 20),
            roll=validate.number("roll", self.roll, -3600, 3600),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ImageInstruction(Saved):
    """x: the picture to begin with, anything that `to_picture` takes; None begins from text."""

    picture: Image.Image | None = None

    def __post_init__(self) -> None:
        if self.picture is not None:
            self._set(picture=to_picture(self.picture))


@dataclasses.dataclass(frozen=True, eq=False)
class ContentInstruction(Saved):
    """y: what the picture shows, as text and painted strokes.

    `strength` in [0, 1] is how far P_img may depart from the painted picture; 0 takes it as it is.
    """

    text: str
    strokes: tuple[Stroke, ...] = ()
    strength: float = 0.7

    def __post_init__(self) -> None:
        validate.text("text", self.text)
        self._set(
            strokes=validate.instances("strokes", self.strokes, Stroke),
            strength=validate.number("strength", self.strength, 0, 1),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class MotionInstruction(Saved):
    """y': what happens, as text. `motion_scale` is PIA's: an integer in 0...8; None takes the
    model's own."""

    text: str
    motion_scale: int | None = 0

    def __post_init__(self) -> None:
        validate.text("text", self.text)
        if self.motion_scale is None:
            return
        if validate.number("motion_scale", self.motion_scale, 0, 8) % 1:
            raise ValueError(f"motion_scale must be an integer, got {self.motion_scale!r}")
        self._set(motion_scale=int(self.motion_scale))


@dataclasses.dataclass(frozen=True, eq=False)
class TrajectoryInstruction(Saved):
    """r: drags (a later one lies on top), points that stay where they are, and one camera move."""

    drags: tuple[Drag, ...] = ()
    pins: Path2D = ()
    camera: Camera | None = None

    def __post_init__(self) -> None:
        if self.camera is not None:
            validate.instance("camera", self.camera, Camera)
        self._set(
            drags=validate.instances("drags", self.drags, Drag),
            pins=validate.points("pins", self.pins, 0),
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
class Instructions(Saved):
    """All that a person asks for (Eq. 1), in one thing that can be saved and replayed.

    Attributes:
      image, content, motion, trajectory: the four instructions; None where one is not given.
      lam: Eq. 4's weight in [0, 1], 1 = ignore the edits; a number or an array that broadcasts to
        (steps, F, 1, h, w).
      seed: of the starting noise.
      num_frames: F.
      num_inference_steps, guidance_scale: None takes the model's own.
      weak: how long a drag holds the whole frame, a share of the steps in [0, 1]; None takes that
        of `Settings`.
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
    weak: float | None = None

    def __post_init__(self) -> None:
        kinds = (ImageInstruction, ContentInstruction, MotionInstruction, TrajectoryInstruction)
        for name, kind in zip(("image", "content", "motion", "trajectory"), kinds, strict=True):
            if not isinstance(value := getattr(self, name), kind | None):
                raise TypeError(f"{name} must be {kind.__name__}, got {type(value).__name__}")
        self._set(
            lam=validate.weights("lam", self.lam),
            seed=validate.integer("seed", self.seed, 0),
            num_frames=validate.integer("num_frames", self.num_frames, 1),
        )
        if self.num_inference_steps is not None:
            validate.integer("num_inference_steps", self.num_inference_steps, 1)
        if self.guidance_scale is not None:
            validate.number("guidance_scale", self.guidance_scale, 0, 100)
        if self.weak is not None:
            validate.number("weak", self.weak, 0, 1)

    def options(self) -> dict[str, Any]:
        """What `Pipeline.video` takes by the same names: all but the texts and the edits."""
        names = ("lam", "seed", "num_frames", "num_inference_steps", "guidance_scale")
        options = {name: getattr(self, name) for name in names}
        options |= {} if self.weak is None else {"weak": self.weak}
        return options | ({"motion_scale": self.motion.motion_scale} if self.motion else {})
