"""The four instructions of the paper (section 3.1) as plain data.

Points are (x, y) in picture pixels, y down; (0, 0) is the centre of the top left pixel. Everything
here is checked when it is made, cannot be changed afterwards, and survives a round trip through
JSON. Bad input raises ValueError (or TypeError) with one sentence that says what is accepted.
"""

from __future__ import annotations

import dataclasses
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from PIL import ImageColor

from .pictures import Picture
from .support.saved import Saved
from .support.validate import (
    MAX_DRAWN,
    MAX_STEPS,
    RENAMED,
    TEXT,
    Angle,
    Choice,
    Frames,
    Guidance,
    Guidances,
    Instance,
    Integer,
    Kind,
    Line,
    Listed,
    Number,
    Path2D,
    Point,
    Region,
    Seed,
    Sentence,
    Share,
    Size,
    Steps,
    Times,
    Weights,
    Zoom,
    check_clip,
    checked,
    once,
    scalar,
    shown,
)

if TYPE_CHECKING:
    from .models.protocol import VideoModel


def _colour(value: Any) -> str:
    if isinstance(value, str):
        rgb = ImageColor.getrgb(value)
    else:
        rgb = [] if isinstance(value, bytes) else [int(scalar(v)) for v in islice(value, 4)]
    if len(rgb) != 3 or not all(0 <= v <= 255 for v in rgb):
        raise ValueError
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def _motion_scale(value: Any) -> int:
    found = scalar(value)
    return Integer(0, 255)("motion_scale", int(found) if found % 1 == 0 else None)


def _rule(value: Any) -> Any:
    return value if callable(value) else TEXT.take(value)


Colour = Annotated[str, Kind("a CSS colour without alpha or (r, g, b) in [0, 255]", _colour)]
Width = Annotated[float, Number(0, 10_000, above=True)]
Tool = Literal["brush", "eraser", "mask", "lasso"]
Easing = Literal["linear", "ease", "ease-in", "ease-out"]
TOOLS, EASINGS = get_args(Tool), get_args(Easing)
READINGS = ("paired", "shared")
Reading = Annotated[str, Choice(*READINGS)]
Mechanism = Literal["both", "condition", "dual-clock"]
Source = Literal["still", "clip"]  # what a drag edits
UNITS = ("v", "eps", "x0", "native")  # in which Eq. 4 can be taken; native: the network's own
Rule = Annotated[Any, Kind("the name of a rule or a function (eps, eps_edit, lam)", _rule)]
Unit = Annotated[str, Choice(*UNITS)]
Posterior = Literal["mode", "sample"]
Decoder = Literal["full", "tiny"]
Cells = Annotated[float, Number(0, 1000)]
Rim = Annotated[float, Number(0, 10_000)]
MotionScale = Annotated[int, Kind("an integer in [0, 255]", _motion_scale)]


@checked
@dataclasses.dataclass(frozen=True, eq=False)
class Stroke(Saved):
    """One stroke of a painting tool.

    Attributes:
      points: (x, y) pairs in picture pixels; a single point is a dot.
      colour: any CSS colour or an (r, g, b) triple in [0, 255]; kept as "#rrggbb".
      width: diameter of the round tip in picture pixels, (0, 10000].
      opacity: in [0, 1], of the whole stroke: it does not add up where a stroke crosses itself.
      tool: "brush" paints; "eraser" removes what was drawn before; "mask" marks a region; "lasso"
        marks what lies inside of the line, whatever its width.
      times: seconds since the stroke began, one a point, or None.
    """

    points: Line
    colour: Colour = "#ffc81e"
    width: Width = 12.0
    opacity: Share = 1.0
    tool: Tool = "brush"
    times: Times | None = None

    def __post_init__(self) -> None:
        _check_times(self.times, self.points)

    def __repr__(self) -> str:
        ends = f"{_shown(self.points[0])} to {_shown(self.points[-1])}"
        count, look = len(self.points), f"{self.colour}, width {self.width:g}"
        return f"Stroke({ends}, {count} point{'s' * (count > 1)}, {look}, {self.tool})"


def _shown(point: Point) -> str:
    x, y = point
    return f"({round(x, 1):g}, {round(y, 1):g})"


def _check_times(times: Times | None, points: Path2D) -> None:
    if times is not None and len(times) != len(points):
        raise ValueError(
            f"times must be {len(points)} increasing times, one a point, got {len(times)}"
        )


Strokes = Annotated[tuple[Stroke, ...], Listed(Instance(Stroke), "Stroke", alone=Stroke)]


@checked
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

    path: Path2D | None = ()
    mask: Region | None = None
    times: Times | None = None
    rotate: Angle = 0.0
    scale: Zoom = 1.0
    easing: Easing = "linear"
    handles: tuple[Line, ...] = ()

    def __post_init__(self) -> None:
        path, handles, times = self.path or (), self.handles, self.times
        self._set(path=path)
        if bool(path) == bool(handles):
            raise ValueError("a drag must have a path, from handle to target, or several handles")
        if len(path) == 1:
            raise ValueError("path must have at least 2 points, got 1")
        starts = {handle[0] for handle in handles}
        if handles and (len(starts) != len(handles) or len(handles) < 2):
            raise ValueError("handles must be at least two paths that start at different points")
        if handles and ((self.rotate, self.scale) != (0, 1) or times is not None):
            raise ValueError("rotate, scale and times belong to a drag with a path, not to handles")
        _check_times(times, path)
        if times is not None and times[-1] > 1:
            raise ValueError(f"times must lie in [0, 1] of the clip, got {shown(times)}")

    @property
    def paths(self) -> tuple[Path2D, ...]:
        """The path of each handle."""
        return self.handles or (self.path,)

    def __repr__(self) -> str:
        ways = "; ".join(f"{_shown(path[0])} to {_shown(path[-1])}" for path in self.paths)
        region = "no mask" if self.mask is None else f"mask of {self.mask.mean():.1%}"
        return f"Drag({ways}, {region})"


DRAGS = Listed(Instance(Drag), "Drag", alone=Drag)
Drags = Annotated[tuple[Drag, ...], DRAGS]


@checked
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
    zoom: Zoom = 1.0
    roll: Angle = 0.0
    easing: Easing = "linear"


@checked
@dataclasses.dataclass(frozen=True, eq=False)
class ImageInstruction(Saved):
    """x: the picture to begin with, anything that `to_picture` takes; None begins from text."""

    picture: Picture | None = None


@checked
@dataclasses.dataclass(frozen=True, eq=False)
class ContentInstruction(Saved):
    """y: what the picture shows, as text and painted strokes.

    `strength` in [0, 1] is how far P_img may depart from the painted picture; 0 takes it as it is.
    """

    text: Sentence
    strokes: Strokes = ()
    strength: Share = 0.7


@checked
@dataclasses.dataclass(frozen=True, eq=False)
class MotionInstruction(Saved):
    """y': what happens, as text; "" is for a model that reads none. `motion_scale` is how much
    moves, as the model counts it (PIA: 0 to 8, SVD: 0 to 255); None takes the model's own."""

    text: str
    motion_scale: MotionScale | None = None


@checked
@dataclasses.dataclass(frozen=True, eq=False)
class TrajectoryInstruction(Saved):
    """r: drags (a later one lies on top), points that stay where they are, and one camera move."""

    drags: Drags = ()
    pins: Path2D = ()
    camera: Camera | None = None

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


def _moves(value: Any) -> Any:
    if isinstance(value, (TrajectoryInstruction, Camera)):
        return value
    return DRAGS("drags", () if value is None else value)


MOVES = Kind(
    "a TrajectoryInstruction, a Drag, a list of them, or a Camera", _moves, TypeError, speaks=True
)
Moves = Annotated[Any, MOVES]
Trajectory = Annotated[
    TrajectoryInstruction,
    Kind(MOVES.what, TrajectoryInstruction.of, TypeError, speaks=True),
]


@checked
@dataclasses.dataclass(frozen=True, eq=False)
class Change(Saved):
    """Edits that take effect from `step` on, counted from 0: made while the clip was paused."""

    step: Annotated[int, Integer(0, MAX_STEPS)]
    edited: Picture | None
    trajectory: TrajectoryInstruction
    lam: Weights
    motion: str

    def edits(self) -> dict[str, Any]:
        """The arguments of `Step.change`."""
        return {
            "edited": self.edited,
            "drags": self.trajectory,
            "lam": self.lam,
            "motion": self.motion,
        }


Changes = Annotated[tuple[Change, ...], Listed(Instance(Change), "Change", alone=Change)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    seed: Seed = 0
    num_inference_steps: Steps | None = None
    negative_prompt: str | None = None
    negative = once("negative", "negative_prompt")
    posterior: Posterior = "mode"
    size: Size | None = None

    def _resolved(self, model: VideoModel, own: dict[str, Any], multiple: int):
        """The settings with `own` where there is None, and what both kinds share checked."""
        own = {RENAMED.get(name, name): value for name, value in own.items()}
        given = {name: value for name, value in vars(self).items() if value is not None}
        if given.get("negative_prompt") not in (None, "", own.get("negative_prompt")):
            model.check_text(given["negative_prompt"], "negative_prompt")
        s = type(self)(**{"negative_prompt": "", **own, **given})
        w, h = s.size
        if w % multiple or h % multiple:
            raise ValueError(
                f"size must be multiples of {multiple} pixels for {model.name}, got {w} x {h}"
            )
        if w * h > MAX_DRAWN:
            raise ValueError(f"size must hold at most {MAX_DRAWN} pixels, got {w} x {h}")
        return s


@checked
@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureSettings(_Settings):
    """How a picture is made (P_img); None takes the model's own.

    Attributes:
        seed: of the starting noise, and of a stochastic scheduler's.
        num_inference_steps: at least 1.
        negative_prompt: text that guidance leads away from; "" for none. Wan, LTX-Video and
            I2VGen-XL have one of their own.
        posterior: "mode", or "sample" as diffusers' own pipelines do.
        size: (width, height) that pictures are fitted to.
        guidance_scale: a number; 1 and below switch guidance off.
        strength: in [0, 1], how far the result may depart from the painted picture.
        grow, feather: of the edit mask, see `edit_mask`.
    """

    guidance_scale: Guidance | None = None
    strength: Share = 0.7
    grow: Cells = 1.5
    feather: Rim | None = None

    def resolve(self, model: VideoModel, size: tuple[int, int], multiple: int) -> PictureSettings:
        """Checked, with `size` and the model's own values where there was None."""
        return self._resolved(model, {"size": size, **model.defaults["image"]}, multiple)


@checked
@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(_Settings):
    """How a clip is made (P_video); None takes the model's own.

    Attributes:
        seed, num_inference_steps, negative_prompt, posterior, size: as of `PictureSettings`.
        num_frames: at least 1.
        guidance_scale: a number, or one for each frame; 1 and below switch guidance off.
        motion_scale: how much moves, as the model counts it; PIA: 0 to 8, SVD: 0 to 255.
        reading: "paired" or "shared", the two readings of Eq. 4.
        mechanism: what carries a drag: "condition" (each frame has its own condition),
            "dual-clock" (the noised warped clip is put back at each step), or "both".
        source: what a drag edits, and dual-clock then holds: "clip", the clip as the text moves it
            without the drag, so that text and drag are both obeyed (where there is paint, this
            costs one more branch); or "still", the picture, so that all else stands still in the
            steps that hold the whole frame. The network sees the dragged still either way.
        weak, strong: shares of the steps in [0, 1]: dual-clock acts everywhere before `weak` (a
            text that moves the same thing elsewhere then leaves no second one behind), and where
            things move before `strong`; at 1 in the finished clip as well, so that a dragged thing
            looks as it did.
        blend: Eq. 4, "linear", or another rule: a name in `ivkit.blend.RULES`, or a function
            (eps, eps_edit, lam) -> eps_hat of tensors (F, C, h, w); lam broadcasts to them.
        blend_in: the unit in which Eq. 4 blends: "v", whatever the network predicts; "eps", the
            paper's letter; "x0"; or "native", what the network predicts. See `blend.blend_in`.
        skip_zero: do not evaluate a branch whose weight is zero everywhere, nor a step whose answer
            dual-clock overwrites before the next one.
        batch: both branches in one call of the network; None does so on a GPU, unless the network
            is compiled for one branch.
        eta: of a DDIM scheduler, in [0, 1]; 0 is deterministic.
        align: Eq. 5 after the denoising, where the model brings the module.
        decoder: "full", or "tiny" where the model has a tiny one: quicker, less sharp frames.
    """

    num_frames: Frames | None = None
    guidance_scale: Guidances | None = None
    motion_scale: MotionScale | None = None
    reading: Reading = "paired"
    mechanism: Mechanism = "both"
    source: Source = "clip"
    blend: Rule = "linear"
    blend_in: Unit = "v"
    weak: Share = 0.8
    strong: Share = 1.0
    skip_zero: bool = True
    batch: bool | None = None
    eta: Share = 0.0
    align: bool = True
    decoder: Decoder = "full"

    def resolve(self, model: VideoModel) -> Settings:
        """Checked, with the model's own values where there was None."""
        batch = model.device.type != "cpu" and not model.speed.one_shape
        own = {"num_frames": model.num_frames, "size": model.size, "batch": batch}
        own |= model.defaults["video"]
        s = self._resolved(model, own, model.multiple)
        scale = s.guidance_scale
        if isinstance(scale, list) and len(scale) != s.num_frames:
            raise ValueError(
                f"guidance_scale needs one number for each of the {s.num_frames} frames, "
                f"got {len(scale)}"
            )
        model.check_clip(s.num_frames, s.size)
        if s.mechanism == "condition" and "per_frame" not in model.capabilities:
            raise ValueError(
                f"mechanism must be both or dual-clock for {model.name}, which has one condition "
                "picture for the whole clip"
            )
        if s.decoder == "tiny" and "tiny_decoder" not in model.capabilities:
            raise ValueError(f"decoder must be full: {model.name} has no tiny one")
        check_clip(s.num_frames, s.size[::-1])
        return s


@checked
@dataclasses.dataclass(frozen=True, eq=False)
class Instructions(Saved, Settings):
    """All that a person asks for (Eq. 1), in one thing that can be saved and replayed.

    `run.instructions` are those of a clip: `pipe.run` makes of them the same frames again.

    Attributes:
      image, content, motion, trajectory: the four instructions; None where one is not given.
      lam: Eq. 4's weight in [0, 1], 1 = ignore the edits; a number or an array that broadcasts to
        (steps, F, 1, h, w). By 1 - lam dual-clock holds a drag, too.
      edited: x' as it is; None lets P_img make it of the content's strokes.
      changes: what is changed on the way, in order.
      seed and the others: those of `Settings`; `motion_scale` is that of the motion instruction.
    """

    image: ImageInstruction | None = None
    content: ContentInstruction | None = None
    motion: MotionInstruction | None = None
    trajectory: TrajectoryInstruction | None = None
    lam: Weights = 0.3
    edited: Picture | None = None
    changes: Changes = ()

    def __post_init__(self) -> None:
        if self.motion is None:
            return
        if self.motion.motion_scale is None:
            said = dataclasses.replace(self.motion, motion_scale=self.motion_scale)
            self._set(motion=said)
        self._set(motion_scale=self.motion.motion_scale)

    def options(self) -> dict[str, Any]:
        """What `Pipeline.video` takes by the same names: all but the texts and the edits."""
        edits = ("image", "content", "motion", "trajectory", "edited")
        return {n: v for n, v in vars(self).items() if n not in edits and v is not None}

    @classmethod
    def _opened(cls, fields: dict[str, Any]) -> Instructions:
        """Of older files, too. What they leave out, or say None of, is what was done then."""
        fields = {"blend_in": "native", "source": "still"} | fields
        return cls(**{RENAMED.get(n, n): v for n, v in fields.items() if v is not None})
