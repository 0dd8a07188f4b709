"""DragCanvas: pull things along paths, pin points, move the camera, and see it without a model."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
from itertools import pairwise

import cv2
import ipywidgets as w
import numpy as np
from PIL import Image

from ..instructions import EASINGS, Camera, Drag, Moves, Stroke, TrajectoryInstruction
from ..paint import region_mask
from ..pictures import Picture, to_picture
from ..regions import grow
from ..support.validate import Frames, Name, Point, Side, Video, checked
from ..trajectory import warp
from ..view import contact_sheet
from .board import LIVE, MARKS, MASK
from .canvas import Brush, Canvas, Edit, Outline, Tool
from .parts import Line, button, column, heading, picture_view, row, slider, words
from .session import Sketch

BOTH = (MASK, MARKS)  # layers
COLOURS = ("#e5006d", "#0a7bd6", "#2e8b57", "#d97706", "#7a3ff2")
REACH = 14  # screen pixels within which a click takes a point
NO_DRAG = "none yet: pull a thing to where it shall go"
VAGUE = (
    "Nothing stands out here, so the region is a disc. Press on a thing, or draw the region with "
    "Lasso, Box or Region +. To move all, move the camera."
)


SHAPE = {  # of a drag, at the end: label, what it does, value, from, to, step
    "rotate": ("Rotate °", "Turn of the thing at the end", 0, -180, 180, 1),
    "scale": ("Scale", "Size of the thing at the end", 1, 0.25, 3, 0.05),
}
CAMERA = {
    "pan_x": ("Pan x", "How far the camera goes right", 0, -1, 1, 1),  # the picture says how far
    "pan_y": ("Pan y", "How far the camera goes down", 0, -1, 1, 1),
    "zoom": ("Zoom", "How near the camera goes", 1, 0.5, 2, 0.01),
    "roll": ("Roll °", "How far the camera turns", 0, -45, 45, 1),
}


class Pull(Tool):
    """Begins a drag: the region under the press, and its way, straight or along the hand."""

    def begin(self, canvas, point):
        canvas.grow(point)

    def live(self, canvas, points):
        if len(points) > 1:
            path = points if self.straight else simplified(points, 1)
            canvas.draw_arrow(LIVE, path, len(canvas.trajectory.drags), -1)

    def end(self, canvas, points):
        canvas.pull(points, self.straight)


class Pin(Tool):
    """Holds a point still, or lets it go again."""

    def end(self, canvas, points):
        canvas.pin(points[-1])


class DragCanvas(Canvas):
    """Say what moves where, on a picture, with the mouse.

    Arrow and Path begin a drag: press on a thing, release at its target; the thing's region is
    grown from there, and corrected with Region + and Region −, Lasso or Box. Edit moves points,
    pins and regions, and chooses a drag; Delete and the arrow keys act on what it took last. A
    double click on a path adds a point. Pin holds a point still; a click on a pin takes it away.

    Args:
      image: anything `ivkit.to_picture` takes; None is a white square of 256 pixels.
      drags: what moves to begin with, as for `pipe.video`; it is not kept before it is changed.
      width: how wide it is shown, in screen pixels.
      num_frames: of the preview, the cut-and-drag clip that needs no model.
      autosave: name under outputs/autosave/ that the drags are kept in; None keeps nothing.
      line: a `Line` to say messages on; None makes one below the canvas.

    Attributes:
      trajectory: the `TrajectoryInstruction`, for `pipe.video(drags=...)`.
      selected: which drag the sliders act on, or None.
      picture, errors: as of `PaintCanvas`.
    """

    TOOLS = {
        "arrow": Pull("Arrow", "a", "Pull a thing straight to where it goes", BOTH, straight=True),
        "path": Pull("Path", "p", "Pull a thing along the way of the hand", BOTH),
        "edit": Edit(
            "Edit", "v", "Move points, pins and regions, choose a drag", BOTH, straight=True
        ),
        "add": Brush(
            "Region +", "b", "Add to the region of the chosen drag", ring=True, ink="mask"
        ),
        "cut": Brush(
            "Region −", "e", "Take from the region of the chosen drag", ring=True, ink="eraser"
        ),
        "lasso": Outline("Lasso", "l", "Draw round the region of the chosen drag"),
        "box": Outline("Box", "x", "Pull a box over the region of the chosen drag", straight=True),
        "pin": Pin("Pin", "n", "Hold a point still, or let it go again", (MARKS,)),
    }

    @checked
    def __init__(
        self,
        image: Picture | None = None,
        *,
        drags: Moves = (),
        width: Side = 340,
        num_frames: Frames = 16,
        autosave: Name | None = "drag",
        line: Line | None = None,
    ):
        layers = {MASK: ("Region", self._draw_regions), MARKS: ("Arrows", self._draw_arrows)}
        label, empty = "A picture to drag things on", TrajectoryInstruction()
        super().__init__(image, None, width, label, layers, autosave, line, trajectory=empty)
        moves = TrajectoryInstruction.of(drags)
        self.history.map(lambda sketch: dataclasses.replace(sketch, trajectory=moves))
        self._grown: tuple[np.ndarray, bool] | None = None  # a region, and whether it is a thing's
        self._quiet = False  # the sliders are being set, not moved
        self.selected: int | None = None
        self._point = -1  # of the selected drag
        self.num_frames = num_frames
        self._clip: tuple[Image.Image, np.ndarray] | None = None  # see `on_clip`
        guard = self.line.guard
        for work, rows in ((self._shape, SHAPE), (self._move_camera, CAMERA)):
            for name, values in rows.items():
                setattr(self, name, slider(*values))
                self._moves(name, functools.partial(work, name))
        says = "When it is at the chosen point; 1 is the end"
        self.time = slider("Point at", says, 1, 0, 1, 0.01)
        says = "Which drag the rows below are about"
        self.choice = row(w.Dropdown, "Drag", says, options=[(NO_DRAG, None)])
        self.easing = row(w.Dropdown, "Easing", "Its speed", options=EASINGS)
        point, whole = guard(self._delete_point), guard(self._delete_drag)
        self.delete_point = button("Point", "times", point, "Delete the chosen point of the path")
        self.delete_drag = button("Drag", "times", whole, "Delete the chosen drag")
        self.preview = picture_view(width, format="webp")
        self._moves("choice", self._choose)
        self._moves("time", self._retime)
        self._moves("easing", functools.partial(self._shape, "easing"))
        delete = w.HBox([words("Delete", width="64px"), self.delete_point, self.delete_drag])
        self.settings = column(
            244,
            *(self.choice, self.rotate, self.scale, self.easing, self.time, delete, self.size),
            heading("Camera, at the end of the clip", "4px 0 0 0"),
            *(getattr(self, name) for name in CAMERA),
        )
        says = heading("Cut and drag: the warp alone, no model", "4px 0 0 0")
        tip = "0 plays all; else the one frame to look at"
        at = {"min": 0, "max": num_frames, "continuous_update": True}
        self.shown_frame = row(w.IntSlider, "Frame", tip, **at)
        self.on(self.shown_frame, lambda _: self._show_frame())
        self.preview_box = column(width, self.preview, says, self.shown_frame)
        self._lay_out([], [self.preview_box, self.settings])
        self.listeners.append(guard(self._refresh))
        self._refresh()

    def _moves(self, name: str, work) -> None:
        """Have `work` called with the new value when a person moves a slider."""
        self.on(getattr(self, name), lambda value: None if self._quiet else work(value))

    @property
    def trajectory(self) -> TrajectoryInstruction:
        return self.sketch.trajectory

    @trajectory.setter
    def trajectory(self, trajectory) -> None:
        self.change(trajectory=TrajectoryInstruction.of(trajectory))

    def still(self) -> Image.Image:
        return contact_sheet(self.warped(2).frames) if self.trajectory else self.picture

    # ----------------------------------------------------------------------- changing the drags

    def _put(self, key=None, **fields) -> None:
        """The trajectory with other drags, pins or camera."""
        self.change(key, trajectory=dataclasses.replace(self.trajectory, **fields))

    def _replace(self, k: int, key=None, **fields) -> None:
        """Drag k with another path, mask, turn ..."""
        drag = dataclasses.replace(self.trajectory.drags[k], **fields)
        self._put(key, drags=replaced(self.trajectory.drags, k, drag))

    def _drag(self) -> Drag:
        if self.selected is None:
            raise ValueError("first pull a thing to where it shall go: Arrow or Path")
        return self.trajectory.drags[self.selected]

    def _choose(self, k: int | None) -> None:
        self.selected, self._point = k, -1
        self.hold(None)

    def _shape(self, name: str, value) -> None:
        self._drag()
        self._replace(self.selected, (name, self.selected), **{name: value})

    def _retime(self, time: float) -> None:
        drag = self._drag()
        times, i = list(drag.times or even_times(drag.path)), self._point % len(drag.path)
        low, high = times[i - 1] if i else 0.0, times[i + 1] if i + 1 < len(times) else 1.0
        gap = min(0.01, (high - low) / 4)  # the points stay in order, however near they are
        times[i] = min(max(time, low + gap * (i > 0)), high - gap * (i + 1 < len(times)))
        self._replace(self.selected, ("time", self.selected, i), times=times)

    def _move_camera(self, name: str, value: float) -> None:
        camera = self.trajectory.camera or Camera()
        if name in ("pan_x", "pan_y"):
            x, y = camera.pan
            name, value = "pan", (value, y) if name == "pan_x" else (x, value)
        camera = dataclasses.replace(camera, **{name: value})
        still = camera == Camera(easing=camera.easing)
        self._put("camera", camera=None if still else camera)

    def _delete_drag(self) -> None:
        self._drag()
        self._put(drags=replaced(self.trajectory.drags, self.selected))

    def _delete_point(self) -> None:
        drag = self._drag()
        if len(drag.path) <= 2:
            raise ValueError("a drag has at least two points: its handle and its target")
        i = self._point % len(drag.path)
        path, times = (old and replaced(old, i) for old in (drag.path, drag.times))
        self._replace(self.selected, path=path, times=times)

    def double(self, point: Point) -> None:
        """One more point where a path was clicked twice."""
        pieces = []
        for k, drag in enumerate(self.trajectory.drags):
            for i, (a, b) in enumerate(pairwise(np.asarray(drag.path))):
                along = b - a
                share = np.clip((point - a) @ along / max(along @ along, 1e-6), 0.01, 0.99)
                pieces.append((math.dist(point, a + share * along), k, i, float(share)))
        distance, k, i, share = min(pieces, default=(math.inf, 0, 0, 0))
        if distance * self.magnification > REACH:
            return
        drag = self.trajectory.drags[k]
        path, times = (*drag.path[: i + 1], point, *drag.path[i + 1 :]), drag.times
        if times:
            between = times[i] + share * (times[i + 1] - times[i])
            times = (*times[: i + 1], between, *times[i + 1 :])
        self.selected, self._point, self.held = k, i + 1, (k, i + 1)
        self._replace(k, path=path, times=times)

    # -------------------------------------------------------------------------------- the tools

    def _under(self, point: Point) -> list[int]:
        """The drags whose region lies under a point, the uppermost last."""
        x, y = self.pixel(point)
        drags = enumerate(self.trajectory.drags)
        return [k for k, drag in drags if drag.mask is not None and drag.mask[y, x]]

    def grow(self, point: Point) -> None:
        """Show which region a pull from here would take: a small disc where nothing stands out."""
        if any(self.trajectory.drags[k].path for k in self._under(point)):
            return
        mask, clear = grow(self.picture, self.pixel(point))
        if not clear:
            width = max(max(self.picture.size) / 10, 3)
            mask = region_mask([Stroke([point], width=width, tool="mask")], self.picture.size)
        self.line.say("" if clear else VAGUE)
        self._grown = mask, clear
        self._tint((mask, colour_of(len(self.trajectory.drags))))

    def pull(self, points, straight: bool) -> None:
        """A drag of what was grown; one thing goes one way, so a second pull is its new path."""
        self._tint()
        if math.dist(points[0], points[-1]) * self.magnification < 4 and len(points) < 8:
            raise ValueError("press on a thing, pull it, and release where it shall go")
        path = points if straight else simplified(points, 3 / self.magnification)
        drags = self.trajectory.drags
        taken = [k for k in self._under(points[0]) if drags[k].path]
        self.selected, self._point = taken[-1] if taken else len(drags), -1
        if taken:
            self._replace(self.selected, path=path, times=None)
            self.line.say("This thing goes another way now; Undo brings back the old one.")
            return
        mask, clear = self._grown
        self._put(drags=(*drags, Drag(path, mask=mask)))
        if not clear:
            self.line.say(VAGUE)

    def pin(self, point: Point) -> None:
        """Hold a point still, or let go of the pin that is there."""
        pins = self.trajectory.pins
        kept = [p for p in pins if math.dist(p, point) * self.magnification > REACH]
        self._put(pins=kept if len(kept) < len(pins) else [*kept, point])

    @property
    def tint(self) -> str:
        self._drag()
        return colour_of(self.selected)

    def stroke(self, points, tool: str) -> Stroke:
        """A stroke that corrects the region of the chosen drag."""
        return Stroke(points, self.tint, self.size.value, tool=tool)

    def add(self, stroke: Stroke) -> None:
        before = None if stroke.tool == "lasso" else self._drag().mask
        mask = region_mask([stroke], self.picture.size, before)
        if not mask.any():
            raise ValueError("nothing would be left of the region: Delete takes the whole drag")
        self._replace(self.selected, mask=mask)

    # held: (which drag, or None for the pins; which of its points, or None for region and path)

    def _line(self, k: int | None) -> tuple[Point, ...]:
        """The path of drag k; the pins where k is None."""
        return self.trajectory.pins if k is None else self.trajectory.drags[k].path

    def find(self, point: Point | None) -> tuple[int | None, int | None] | None:
        if point is None:
            path = self._drag().path
            return (self.selected, self._point % len(path)) if path else None
        drags = range(len(self.trajectory.drags))
        near = [
            (math.dist(p, point), n, k, i)
            for n, k in enumerate((None, *drags))
            for i, p in enumerate(self._line(k))
        ]
        distance, _, *nearest = min(near, default=(math.inf, 0))
        if distance * self.magnification <= REACH:
            return tuple(nearest)
        inside = self._under(point)
        return (inside[-1], None) if inside else None

    def hold(self, found: tuple[int | None, int | None] | None) -> None:
        if found and found[0] is not None:
            self.selected, self._point = found[0], -1 if found[1] is None else found[1]
        super().hold(found)
        self._refresh(preview=False)

    def anchor(self) -> Point | None:
        k, i = self.held
        return None if i is None else self._line(k)[i]

    def _shifted(self, x: float, y: float) -> list[Point]:
        """The path or the pins, as a shift of what is held would leave them."""
        k, i = self.held
        points = enumerate(self._line(k))
        return [(px + x, py + y) if i in (None, n) else (px, py) for n, (px, py) in points]

    def shift(self, x: float, y: float, key=None) -> None:
        (k, i), moved = self.held, self._shifted(x, y)
        if k is None:
            self._put(key, pins=moved)
            return
        fields = {"path": moved}
        if i is None:
            mask, by = self.trajectory.drags[k].mask, np.float32([[1, 0, x], [0, 1, y]])
            fields["mask"] = (
                cv2.warpAffine(mask.astype(np.uint8), by, self.picture.size, flags=0) > 0
            )
        self._replace(k, key, **fields)

    def show_shift(self, x: float, y: float) -> None:
        (k, i), moved = self.held, self._shifted(x, y)
        if k is None:
            self._dot(LIVE, moved[i], 5, "#111111")
        else:
            self.draw_arrow(LIVE, moved, k, i)

    def delete(self) -> None:
        """What Edit took last: a pin, a point between two others, else the whole drag."""
        if self.held and self.held[0] is None:
            pin, self.held = self.held[1], None
            self._put(pins=replaced(self.trajectory.pins, pin))
        elif 0 < self._point < len(self._drag().path) - 1:
            self._delete_point()
        else:
            self._delete_drag()

    # --------------------------------------------------------------------------------- drawing

    def _tint(self, *more: tuple[np.ndarray, str]) -> None:
        drags = enumerate(self.trajectory.drags)
        regions = [(drag.mask, colour_of(k)) for k, drag in drags if drag.mask is not None]
        self.regions([*regions, *more])

    def _draw_regions(self, old: Sketch | None, new: Sketch) -> None:
        if old is not new:
            self._tint()

    def _draw_arrows(self, old: Sketch | None, new: Sketch) -> None:
        self.view[MARKS].clear()
        for k, drag in enumerate(new.trajectory.drags):
            for path in drag.paths:
                chosen = self._point % len(path) if k == self.selected else None
                self.draw_arrow(MARKS, path, k, chosen)
        for pin in new.trajectory.pins:
            self._dot(MARKS, pin, 7, "white")
            self._dot(MARKS, pin, 4, "#111111")

    def draw_arrow(self, layer: int, path, k: int, chosen: int | None) -> None:
        """White below, so that it is seen on any picture; its number at the handle; the chosen
        point is filled white."""
        colour, scale = colour_of(k), self.magnification
        thick = 3 if chosen is None else 4
        ends = np.asarray(path, float)
        tip = ends[-1]
        far = ends[np.abs((ends - tip) @ [1, 1j]) * scale > 12]  # a dense path's last piece is tiny
        for stroke, width in (("white", thick + 3), (colour, thick)):
            self.path(layer, path, stroke, width)
            if len(far):
                angle = np.arctan2(*(tip - far[-1])[::-1])
                for side in (2.6, -2.6):
                    end = tip + 16 / scale * np.array([np.cos(angle + side), np.sin(angle + side)])
                    self.path(layer, [tip, end], stroke, width)
        crowded = len(path) > 2 and self._length(path) / len(path) < 12
        for i, point in enumerate(path):
            if crowded and i not in (0, len(path) - 1, chosen):
                continue
            self._dot(layer, point, 6 if i in (0, len(path) - 1) else 5, "white")
            self._dot(layer, point, 2 if i == chosen else 4, colour)
        self._dot(layer, path[0], 10, colour)
        disc, number = ("#111111", "white") if chosen == 0 else ("white", "#111111")
        self._dot(layer, path[0], 8, disc)
        self.text(layer, path[0], str(k + 1), number)

    def _length(self, path) -> float:
        """Of a path, in screen pixels."""
        return float(np.abs(np.diff(np.asarray(path) @ [1, 1j])).sum()) * self.magnification

    def _dot(self, layer: int, point, radius: float, colour: str) -> None:
        self.path(layer, [point], colour, 2 * radius)

    # ------------------------------------------------------------------------ sliders, preview

    def _refresh(self, preview: bool = True) -> None:
        """Sliders and preview, from the state."""
        r = self.trajectory
        if self.selected is None or self.selected >= len(r.drags):
            self.selected = len(r.drags) - 1 if r.drags else None
        k, i = self.held or (None, -1)
        if not ((k is None or k < len(r.drags)) and -1 < (i or 0) < len(self._line(k))):
            self.held = None  # it went with an undo or a delete, or has no one path
        drag = None if self.selected is None else r.drags[self.selected]
        one = drag is not None and bool(drag.path)  # a drag of several handles has no such sliders
        self._quiet = True
        try:
            names = [(f"{k + 1} of {len(r.drags)}", k) for k in range(len(r.drags))]
            self.choice.options = names or [(NO_DRAG, None)]
            self.choice.value = self.selected
            for slider in (self.rotate, self.scale, self.easing, self.time):
                slider.disabled = not one
            self.delete_point.disabled, self.delete_drag.disabled = not one, drag is None
            if one:
                self.rotate.value, self.scale.value = drag.rotate, drag.scale
                self.easing.value = drag.easing
                times = drag.times or even_times(drag.path)
                self.time.value = times[self._point % len(times)]
            camera = r.camera or Camera()
            for pan, side in zip((self.pan_x, self.pan_y), self.picture.size, strict=True):
                pan.min, pan.max = -side / 2, side / 2
            self.pan_x.value, self.pan_y.value = camera.pan
            self.zoom.value, self.roll.value = camera.zoom, camera.roll
        finally:
            self._quiet = False
        if preview:
            self._frames = self.warped().frames if r else [self.picture]
            self._show_frame()

    def _show_frame(self) -> None:
        n = min(self.shown_frame.value, len(self._frames))
        self.preview.value = webp(self._frames[n - 1 : n] if n else self._frames)

    @checked
    def on_clip(self, picture: Picture, frames: Video) -> None:
        """Wherever this picture is dragged, preview the drag of this clip of it, uint8
        (F, H, W, 3), in which it moves as the text says."""
        self._clip = picture, frames

    def warped(self, num_frames: int | None = None):
        """The cut-and-drag clip, see `ivkit.warp`: of the clip that is known, or of the still."""
        count, (picture, clip) = num_frames or self.num_frames, self._clip or (None, None)
        if picture != self.picture or len(clip) != count:
            clip = None
        return warp(self.picture, self.trajectory, count, clip)


def colour_of(k: int) -> str:
    return COLOURS[k % len(COLOURS)]


def replaced(items: tuple, i: int, *value) -> tuple:
    """The items, with another one at i, or without it."""
    return (*items[:i], *value, *items[i + 1 :])


def simplified(points, tolerance: float) -> list:
    """A freehand path as few points, none further than `tolerance` pixels away from it."""
    curve = np.asarray(points, np.float32).reshape(-1, 1, 2)
    few = cv2.approxPolyDP(curve, tolerance, False).reshape(-1, 2)
    return [tuple(map(float, p)) for p in few] if len(few) > 1 else [points[0], points[-1]]


def even_times(path) -> list[float]:
    """When each point is reached at constant speed, in [0, 1], strictly increasing."""
    steps = [max(math.dist(a, b), 1e-3) for a, b in pairwise(path)]
    walked = np.concatenate([[0], np.cumsum(steps)])
    return [float(v) for v in walked / walked[-1]]


def webp(frames, fps: float = 8) -> bytes:
    """An endless animation of frames; the last one stays for a while."""
    pictures = [to_picture(np.asarray(frame)) for frame in frames]
    times = [round(1000 / fps)] * len(pictures)
    times[-1] = max(times[-1], 700 if len(pictures) > 1 else 0)
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=times,
        loop=0,
        quality=85,
        method=0,
    )
    return buffer.getvalue()
