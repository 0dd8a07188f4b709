"""DragCanvas: pull things along paths, pin points, move the camera, and see it without a model."""

from __future__ import annotations

import dataclasses
import io
import math
import os

import cv2
import ipywidgets as w
import numpy as np
from PIL import Image, ImageColor

from ..instructions import EASINGS, Camera, Drag, Stroke, TrajectoryInstruction, to_picture
from ..paint import region_mask
from ..trajectory import grow_mask, warp
from .board import LIVE, MARKS, MASK, Board, button, held
from .session import Sketch

TOOLS = (
    ("Arrow", "arrow"),
    ("Path", "path"),
    ("Edit", "edit"),
    ("Region +", "add"),
    ("Region −", "cut"),
    ("Pin", "pin"),
)
COLOURS = ("#e5006d", "#0a7bd6", "#2e8b57", "#d97706", "#7a3ff2")
REACH = 14  # screen pixels within which a click takes a point
NO_DRAG = "none yet: pull a thing to where it shall go"


class DragCanvas(w.VBox):
    """Say what moves where, on a picture, with the mouse.

    Arrow and Path begin a drag: press on a thing, release at its target; the thing's region is
    grown from there, and corrected with Region + and Region −. Edit moves points and pins, and
    chooses a drag. Pin holds a point still; a click on a pin takes it away.

    Args:
      image: anything `ivkit.to_picture` takes; None is a white square of 256 pixels.
      width: how wide it is shown, in screen pixels.
      num_frames: of the preview, the cut-and-drag clip that needs no model.
      autosave: name under outputs/autosave/ that the drags are kept in; None keeps nothing.

    Attributes:
      trajectory: the `TrajectoryInstruction`, for `pipe.video(drags=...)`.
      selected: which drag the sliders act on, or None.
      picture, errors: as of `PaintCanvas`.
    """

    def __init__(
        self, image=None, *, width: int = 340, num_frames: int = 16, autosave: str | None = "drag"
    ):
        picture = Image.new("RGB", (256, 256), "white") if image is None else to_picture(image)
        self._points: list = []
        self._held: tuple | None = None  # ("drag", k, i) or ("pin", i), while it is being moved
        self._tool = "arrow"
        self._quiet = False  # the sliders are being set, not moved
        self.selected: int | None = None
        self._point = -1  # of the selected drag
        self.num_frames = num_frames
        nothing = TrajectoryInstruction()
        clear = lambda sketch: dataclasses.replace(sketch, trajectory=nothing)  # noqa: E731
        self.board = Board(picture, width, self._draw, self._pen, clear, autosave)
        self.errors = self.board.errors
        guard = self.board.guard
        self.tool = w.ToggleButtons(
            options=TOOLS,
            style={"button_width": "80px"},
            layout=w.Layout(margin="0 0 4px 0"),
        )
        self.size = _slider("Brush", max(picture.size) / 16, 1, max(max(picture.size) / 4, 2), 0.5)
        self.choice = w.Dropdown(options=[(NO_DRAG, None)], description="Drag", **_ROW)
        self.rotate = _slider("Rotate °", 0, -180, 180, 1)
        self.scale = _slider("Scale", 1, 0.25, 3, 0.05, ".2f")
        self.easing = w.Dropdown(options=EASINGS, description="Easing", **_ROW)
        self.time = _slider("Point at", 1, 0, 1, 0.01, ".2f")
        self.delete_point = button("Point", "times", guard(self._delete_point))
        self.delete_drag = button("Drag", "times", guard(self._delete_drag))
        self.pan_x = _slider("Pan x", 0, -picture.width / 2, picture.width / 2, 1)
        self.pan_y = _slider("Pan y", 0, -picture.height / 2, picture.height / 2, 1)
        self.zoom = _slider("Zoom", 1, 0.5, 2, 0.01, ".2f")
        self.roll = _slider("Roll °", 0, -45, 45, 1)
        self.preview = w.Image(format="webp")
        self.choice.observe(guard(self._choose), "value")
        for name in ("rotate", "scale", "easing"):
            getattr(self, name).observe(guard(self._shape), "value")
        self.time.observe(guard(self._retime), "value")
        for name in ("pan_x", "pan_y", "zoom", "roll"):
            getattr(self, name).observe(guard(self._move_camera), "value")
        self.settings = w.VBox([
            self.choice, self.rotate, self.scale, self.easing, self.time,
            w.HBox([w.Label("Delete", layout=w.Layout(width="64px")),
                    self.delete_point, self.delete_drag]),
            _heading("Camera, at the end of the clip"),
            self.pan_x, self.pan_y, self.zoom, self.roll,
        ], layout=w.Layout(flex="0 0 auto", margin="0 0 0 12px"))  # fmt: skip
        self.preview_box = w.VBox(
            [self.preview, _heading("Cut and drag: the warp alone, no model")],
            layout=w.Layout(flex="0 0 auto", margin="0 0 0 12px"),
        )
        super().__init__([
            self.board.offer,
            self.tool,
            w.HBox([self.board.view, self.settings, self.preview_box],
                   layout=w.Layout(flex_flow="row wrap")),
            w.HBox([self.board.bar, self.size]),
            self.board.line,
        ])  # fmt: skip
        self.board.listeners.append(guard(self._refresh))
        self.board.redraw()
        self._refresh()

    # ------------------------------------------------------------------------- what is drawn

    @property
    def trajectory(self) -> TrajectoryInstruction:
        return self.board.sketch.trajectory

    @trajectory.setter
    def trajectory(self, trajectory) -> None:
        self._put(TrajectoryInstruction.of(trajectory))

    @property
    def picture(self) -> Image.Image:
        return self.board.sketch.picture

    @picture.setter
    def picture(self, image) -> None:
        """Another picture under the drags; they stay where it has the same size."""
        picture, old = to_picture(image), self.board.sketch
        r = old.trajectory if picture.size == old.picture.size else TrajectoryInstruction()
        self.board.commit(dataclasses.replace(old, picture=picture, trajectory=r))

    def save(self, path: str | os.PathLike) -> None:
        """Write picture and trajectory as JSON."""
        self.board.sketch.save(path)

    def load(self, path: str | os.PathLike) -> None:
        """Read what `save` wrote. ValueError where the file is damaged; the drags then stay."""
        self.board.commit(Sketch.load(path))

    def undo(self) -> bool:
        return self.board.undo()

    def redo(self) -> bool:
        return self.board.redo()

    def clear(self) -> None:
        self.board.clear()

    # ----------------------------------------------------------------------- changing the drags

    def _put(self, trajectory: TrajectoryInstruction, key=None) -> None:
        self.board.commit(dataclasses.replace(self.board.sketch, trajectory=trajectory), key)

    def _replace(self, k: int, drag: Drag | None, key=None) -> None:
        """Drag k by another one, or by none."""
        r = self.trajectory
        drags = (*r.drags[:k], *([drag] if drag else []), *r.drags[k + 1 :])
        self._put(dataclasses.replace(r, drags=drags), key)

    def _drag(self) -> Drag:
        if self.selected is None:
            raise ValueError("first pull a thing to where it shall go: Arrow or Path")
        return self.trajectory.drags[self.selected]

    def _choose(self, change) -> None:
        if not self._quiet:
            self.selected, self._point = change["new"], -1
            self._refresh()
            self.board.redraw(self.board.sketch)

    def _shape(self, change) -> None:
        if not self._quiet:
            name = next(
                n for n in ("rotate", "scale", "easing") if getattr(self, n) is change["owner"]
            )
            drag = dataclasses.replace(self._drag(), **{name: change["new"]})
            self._replace(self.selected, drag, key=(name, self.selected))

    def _retime(self, change) -> None:
        if self._quiet:
            return
        drag = self._drag()
        times, i = list(drag.times or even_times(drag.path)), self._point % len(drag.path)
        low = times[i - 1] + 0.01 if i else 0.0
        high = times[i + 1] - 0.01 if i + 1 < len(times) else 1.0
        times[i] = min(max(change["new"], low), high)
        drag = dataclasses.replace(drag, times=times)
        self._replace(self.selected, drag, key=("time", self.selected, i))

    def _move_camera(self, change) -> None:
        if not self._quiet:
            camera = Camera((self.pan_x.value, self.pan_y.value), self.zoom.value, self.roll.value)
            still = camera == Camera()
            r = dataclasses.replace(self.trajectory, camera=None if still else camera)
            self._put(r, key="camera")

    def _delete_drag(self) -> None:
        self._drag()
        self._replace(self.selected, None)

    def _delete_point(self) -> None:
        drag = self._drag()
        if len(drag.path) <= 2:
            raise ValueError("a drag has at least two points: its handle and its target")
        i = self._point % len(drag.path)
        without = lambda row: row and (*row[:i], *row[i + 1 :])  # noqa: E731
        self._replace(self.selected, dataclasses.replace(
            drag, path=without(drag.path), times=without(drag.times)))  # fmt: skip

    # ----------------------------------------------------------------------------------- mouse

    def _pen(self, kind: str, point) -> None:
        if kind == "down":
            self._points, self._tool = [], self.tool.value
            if self._tool in ("add", "cut"):
                self._drag()
            if self._tool == "edit":
                self._take(point)
            self._points = [point]
        tool = self._tool  # of the press: a change of tool in between changes nothing
        if kind != "down" and self._points:
            self._points = [self._points[0], point] if tool == "arrow" else [*self._points, point]
        if kind != "up":
            if self._points:
                self._live()
            return
        points, self._points = self._points, []
        self.board.view[LIVE].clear()
        if points:
            work = {"arrow": self._add, "path": self._add, "edit": self._moved, "pin": self._pin}
            work.get(tool, self._paint_region)(points)

    def _add(self, points) -> None:
        if math.dist(points[0], points[-1]) * self.board.scale < 4 and len(points) < 8:
            raise ValueError("press on a thing, pull it, and release where it shall go")
        if self._tool == "path":
            points = simplified(points, 3 / self.board.scale)
        r, (x, y) = self.trajectory, (round(v) for v in points[0])
        taken = [k for k, d in enumerate(r.drags) if d.path and d.mask is not None and d.mask[y, x]]
        if taken:  # one thing goes one way: a second pull is its new path
            self._point = -1
            self.selected = taken[-1]
            again = dataclasses.replace(r.drags[self.selected], path=points, times=None)
            self._replace(self.selected, again)
            self.board.say("This thing goes another way now; Undo brings back the old one.")
            return
        mask = grow_mask(self.picture, points[0])
        if mask.all():
            raise ValueError("nothing stands out here: press on a thing, or move the camera")
        drag = Drag(points, mask=mask)
        self.selected, self._point = len(r.drags), -1
        self._put(dataclasses.replace(r, drags=(*r.drags, drag)))

    def _take(self, point) -> None:
        """The point, the pin, or else the region under the mouse."""
        r, reach = self.trajectory, REACH / self.board.scale
        near = [(math.dist(p, point), ("pin", i)) for i, p in enumerate(r.pins)]
        for k, drag in enumerate(r.drags):
            near += [(math.dist(p, point), ("drag", k, i)) for i, p in enumerate(drag.path)]
        distance, self._held = min(near, default=(math.inf, None))
        if distance > reach:
            self._held = None
            x, y = (round(v) for v in point)
            inside = [k for k, d in enumerate(r.drags) if d.mask is not None and d.mask[y, x]]
            if inside:
                self.selected, self._point = inside[-1], -1
        elif self._held[0] == "drag":
            self.selected, self._point = self._held[1:]
        self._refresh(preview=False)
        self.board.redraw(self.board.sketch)

    def _moved(self, points) -> None:
        held, self._held, r = self._held, None, self.trajectory
        if held is None or points[0] == points[-1]:
            return
        if held[0] == "pin":
            pins = [*r.pins[: held[1]], points[-1], *r.pins[held[1] + 1 :]]
            self._put(dataclasses.replace(r, pins=pins))
        else:
            _, k, i = held
            self._replace(k, dataclasses.replace(r.drags[k], path=self._bent(k, i, points[-1])))

    def _bent(self, k: int, i: int, point) -> tuple:
        path = self.trajectory.drags[k].path
        return (*path[:i], point, *path[i + 1 :])

    def _pin(self, points) -> None:
        r, point = self.trajectory, points[-1]
        kept = [p for p in r.pins if math.dist(p, point) * self.board.scale > REACH]
        pins = kept if len(kept) < len(r.pins) else [*kept, point]
        self._put(dataclasses.replace(r, pins=pins))

    def _paint_region(self, points) -> None:
        drag = self._drag()
        stroke = Stroke(points, width=self.size.value, tool="mask")
        touched = region_mask([stroke], self.picture.size)
        mask = np.zeros_like(touched) if drag.mask is None else drag.mask
        mask = mask | touched if self._tool == "add" else mask & ~touched
        if not mask.any():
            raise ValueError("nothing would be left of the region: Delete takes the whole drag")
        self._replace(self.selected, dataclasses.replace(drag, mask=mask))

    # --------------------------------------------------------------------------------- drawing

    def _draw(self, old: Sketch | None, new: Sketch) -> None:
        self.board.view[MASK].clear()
        self.board.view[MARKS].clear()
        drags = new.trajectory.drags
        if drags:
            layer = np.zeros((new.picture.height, new.picture.width, 4), np.uint8)
            for k, drag in enumerate(drags):
                if drag.mask is not None:
                    layer[drag.mask] = (*ImageColor.getrgb(COLOURS[k % len(COLOURS)]), 90)
            self.board.put(MASK, Image.fromarray(layer))
        for k, drag in enumerate(drags):
            for path in drag.paths:
                chosen = self._point % len(path) if k == self.selected else None
                self._arrow(MARKS, path, COLOURS[k % len(COLOURS)], chosen)
        for pin in new.trajectory.pins:
            self._dot(MARKS, pin, 7, "white")
            self._dot(MARKS, pin, 4, "#111111")

    def _arrow(self, layer: int, path, colour: str, chosen: int | None) -> None:
        """White below, so that it is seen on any picture; the chosen point is filled white."""
        thick = 3 if chosen is None else 4
        for stroke, width in (("white", thick + 3), (colour, thick)):
            self.board.path(layer, path, stroke, width)
            ends = self.board.to_screen(path)
            far = ends[
                np.abs((ends - ends[-1]) @ [1, 1j]) > 12
            ]  # a dense path's last piece is tiny
            if len(far):
                tip = ends[-1]
                angle = np.arctan2(*(tip - far[-1])[::-1])
                for side in (2.6, -2.6):
                    end = tip + 16 * np.array([np.cos(angle + side), np.sin(angle + side)])
                    barb = np.stack([tip, end]) / self.board.scale - 0.5
                    self.board.path(layer, barb, stroke, width)
        crowded = len(path) > 2 and self._length(path) / len(path) < 12
        for i, point in enumerate(path):
            if crowded and i not in (0, len(path) - 1, chosen):
                continue
            self._dot(layer, point, 6 if i in (0, len(path) - 1) else 5, "white")
            self._dot(layer, point, 2 if i == chosen else 4, colour)

    def _length(self, path) -> float:
        """Of a path, in screen pixels."""
        return float(np.abs(np.diff(self.board.to_screen(path) @ [1, 1j])).sum())

    def _dot(self, layer: int, point, radius: float, colour: str) -> None:
        self.board.path(layer, [point], colour, 2 * radius)

    def _live(self) -> None:
        tool = self._tool
        with held():
            self.board.view[LIVE].clear()
            if tool in ("add", "cut"):
                width = self.size.value * self.board.scale
                colour = COLOURS[self.selected % len(COLOURS)] if tool == "add" else "white"
                self.board.path(LIVE, self._points, colour, width, 0.5)
            elif tool in ("arrow", "path") and len(self._points) > 1:
                k = len(self.trajectory.drags)
                self._arrow(LIVE, self._points if tool == "arrow" else
                            simplified(self._points, 1), COLOURS[k % len(COLOURS)], -1)  # fmt: skip
            elif self._held and self._held[0] == "drag":
                _, k, i = self._held
                self._arrow(LIVE, self._bent(k, i, self._points[-1]), COLOURS[k % len(COLOURS)], i)
            elif self._points:
                self._dot(LIVE, self._points[-1], 5, "#111111")

    # ------------------------------------------------------------------------ sliders, preview

    def _refresh(self, preview: bool = True) -> None:
        """Sliders and preview, from the state."""
        r = self.trajectory
        if self.selected is None or self.selected >= len(r.drags):
            self.selected = len(r.drags) - 1 if r.drags else None
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
            self.pan_x.value, self.pan_y.value = camera.pan
            self.zoom.value, self.roll.value = camera.zoom, camera.roll
        finally:
            self._quiet = False
        if preview:
            self._show_preview()

    def _show_preview(self) -> None:
        width = f"{self.board.view.width}px"
        self.preview.layout = w.Layout(width=width, height=f"{self.board.view.height}px")
        frames = [self.picture]
        if self.trajectory:
            frames = self.warped().frames
        self.preview.value = webp(frames)

    def warped(self, num_frames: int | None = None):
        """The cut-and-drag clip, see `ivkit.warp`."""
        return warp(self.picture, self.trajectory, num_frames or self.num_frames)


def simplified(points, tolerance: float) -> list:
    """A freehand path as few points, none further than `tolerance` pixels away from it."""
    curve = np.asarray(points, np.float32).reshape(-1, 1, 2)
    few = cv2.approxPolyDP(curve, tolerance, False).reshape(-1, 2)
    return [tuple(map(float, p)) for p in few] if len(few) > 1 else [points[0], points[-1]]


def even_times(path) -> list[float]:
    """When each point is reached at constant speed, in [0, 1], strictly increasing."""
    steps = [max(math.dist(a, b), 1e-3) for a, b in zip(path, path[1:], strict=False)]
    walked = np.concatenate([[0], np.cumsum(steps)])
    return [float(v) for v in walked / walked[-1]]


def webp(frames, fps: float = 8) -> bytes:
    """An endless animation of frames; the last one stays for a while."""
    pictures = [to_picture(np.asarray(frame)) for frame in frames]
    times = [round(1000 / fps)] * len(pictures)
    times[-1] = max(times[-1], 700 if len(pictures) > 1 else 0)
    buffer = io.BytesIO()
    pictures[0].save(buffer, "WEBP", save_all=True, append_images=pictures[1:], duration=times,
                     loop=0, quality=85, method=0)  # fmt: skip
    return buffer.getvalue()


_ROW = {"layout": w.Layout(width="300px"), "style": {"description_width": "64px"}}


def _slider(text: str, value, low, high, step, form: str = ".0f") -> w.FloatSlider:
    return w.FloatSlider(value=value, min=low, max=high, step=step, description=text,
                         readout_format=form, continuous_update=False, **_ROW)  # fmt: skip


def _heading(text: str) -> w.HTML:
    return w.HTML(f"<b style='color:#444'>{text}</b>", layout=w.Layout(margin="4px 0 0 0"))
