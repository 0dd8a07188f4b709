"""DragCanvas: pull things along paths, pin points, move the camera, and see it without a model."""

from __future__ import annotations

import dataclasses
import functools
import io
import math

import cv2
import ipywidgets as w
import numpy as np
from PIL import Image

from ..instructions import EASINGS, Camera, Drag, Stroke, TrajectoryInstruction
from ..paint import region_mask
from ..pictures import Picture, to_picture
from ..regions import grow
from ..support.validate import Frames, Name, Point, Side, checked
from ..trajectory import warp
from ..view import contact_sheet
from .board import (
    LIVE,
    MARKS,
    Line,
    button,
    column,
    heading,
    held,
    picture_view,
    row,
    slider,
    words,
)
from .canvas import Canvas
from .session import Sketch

COLOURS = ("#e5006d", "#0a7bd6", "#2e8b57", "#d97706", "#7a3ff2")
REACH = 14  # screen pixels within which a click takes a point
NO_DRAG = "none yet: pull a thing to where it shall go"
VAGUE = (
    "Nothing stands out here, so the region is a disc. Press on a thing, or draw the region with "
    "Lasso, Box or Region +. To move all, move the camera."
)


class DragCanvas(Canvas):
    """Say what moves where, on a picture, with the mouse.

    Arrow and Path begin a drag: press on a thing, release at its target; the thing's region is
    grown from there, and corrected with Region + and Region −, Lasso or Box. Edit moves points,
    pins and regions, and chooses a drag; Delete and the arrow keys act on what it took last. A
    double click on a path adds a point. Pin holds a point still; a click on a pin takes it away.

    Args:
      image: anything `ivkit.to_picture` takes; None is a white square of 256 pixels.
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
        ("Arrow", "arrow"): ("a", "Pull a thing straight to where it goes"),
        ("Path", "path"): ("p", "Pull a thing along the way of the hand"),
        ("Edit", "edit"): ("v", "Move points and pins, choose a drag"),
        ("Region +", "add"): ("b", "Paint more to the region of the chosen drag"),
        ("Region −", "cut"): ("e", "Take from the region of the chosen drag"),
        ("Lasso", "lasso"): ("l", "Draw round the region of the chosen drag"),
        ("Box", "box"): ("x", "Pull a box over the region of the chosen drag"),
        ("Pin", "pin"): ("n", "Hold a point still, or let it go again"),
    }

    @checked
    def __init__(
        self,
        image: Picture | None = None,
        *,
        width: Side = 340,
        num_frames: Frames = 16,
        autosave: Name | None = "drag",
        line: Line | None = None,
    ):
        label, empty = "A picture to drag things on", TrajectoryInstruction()
        super().__init__(image, None, width, label, autosave, line, trajectory=empty)
        self._grown: tuple[np.ndarray, bool] | None = None  # a region, and whether it is a thing's
        self._held: tuple | None = None  # ("drag", k, i) or ("pin", i), while it is being moved
        self._quiet = False  # the sliders are being set, not moved
        self.selected: int | None = None
        self._point = -1  # of the selected drag
        self.num_frames = num_frames
        guard, (wide, high) = self.board.guard, self.picture.size
        longest = max(wide, high)
        rows = {  # the label, what it does, the value, from, to, step
            "size": ("Brush", "Width of the brush for regions: [ and ]", longest / 16, 1,
                     max(longest / 4, 2), 0.5),
            "rotate": ("Rotate °", "Turn of the thing at the end", 0, -180, 180, 1),
            "scale": ("Scale", "Size of the thing at the end", 1, 0.25, 3, 0.05),
            "time": ("Point at", "When it is at the chosen point; 1 is the end", 1, 0, 1, 0.01),
            "pan_x": ("Pan x", "How far the camera goes right", 0, -wide / 2, wide / 2, 1),
            "pan_y": ("Pan y", "How far the camera goes down", 0, -high / 2, high / 2, 1),
            "zoom": ("Zoom", "How near the camera goes", 1, 0.5, 2, 0.01),
            "roll": ("Roll °", "How far the camera turns", 0, -45, 45, 1),
        }  # fmt: skip
        for name, values in rows.items():
            setattr(self, name, slider(*values))
        which, speed = row("Which drag the rows below are about", 240), row("Its speed", 240)
        self.choice = w.Dropdown(options=[(NO_DRAG, None)], description="Drag", **which)
        self.easing = w.Dropdown(options=EASINGS, description="Easing", **speed)
        point, whole = guard(self._delete_point), guard(self._delete_drag)
        self.delete_point = button("Point", "times", point, "Delete the chosen point of the path")
        self.delete_drag = button("Drag", "times", whole, "Delete the chosen drag")
        self.preview = picture_view(width, format="webp")
        self._on("choice", self._choose)
        self._on("time", self._retime)
        for name in ("rotate", "scale", "easing"):
            self._on(name, functools.partial(self._shape, name))
        for name in ("pan_x", "pan_y", "zoom", "roll"):
            self._on(name, functools.partial(self._move_camera, name))
        delete = w.HBox([words("Delete", width="64px"), self.delete_point, self.delete_drag])
        self.settings = column(
            244,
            *(self.choice, self.rotate, self.scale, self.easing, self.time, delete, self.size),
            heading("Camera, at the end of the clip", "4px 0 0 0"),
            *(self.pan_x, self.pan_y, self.zoom, self.roll),
        )
        says = heading("Cut and drag: the warp alone, no model", "4px 0 0 0")
        at = {"min": 0, "max": num_frames, **row("0 plays all; else the one frame to look at", 240)}
        self.shown_frame = w.IntSlider(0, description="Frame", **at)
        self.shown_frame.observe(guard(lambda _: self._show_frame()), "value")
        self.preview_box = column(width, self.preview, says, self.shown_frame)
        self._lay_out([], [], [self.preview_box, self.settings])
        keys = {"Delete": self._delete, "Backspace": self._delete}
        for key, by in {"Left": (-1, 0), "Right": (1, 0), "Up": (0, -1), "Down": (0, 1)}.items():
            keys[f"Arrow{key}"] = functools.partial(self._nudge, *by)
        self.board.take_keys(self.board.keys | keys)
        self.board.double = self._insert
        self.board.listeners.append(guard(self._refresh))
        self.board.redraw()
        self._refresh()

    def _on(self, name: str, work) -> None:
        """Have `work` called with the new value when a person moves a slider."""

        def moved(change):
            if not self._quiet:
                work(change["new"])

        getattr(self, name).observe(self.board.guard(moved), "value")

    # ------------------------------------------------------------------------- what is drawn

    @property
    def trajectory(self) -> TrajectoryInstruction:
        return self.board.sketch.trajectory

    @trajectory.setter
    def trajectory(self, trajectory) -> None:
        self.board.change(trajectory=TrajectoryInstruction.of(trajectory))

    def still(self) -> Image.Image:
        return contact_sheet(self.warped(2).frames) if self.trajectory else self.picture

    # ----------------------------------------------------------------------- changing the drags

    def _put(self, key=None, **fields) -> None:
        """The trajectory with other drags, pins or camera."""
        self.board.change(key, trajectory=dataclasses.replace(self.trajectory, **fields))

    def _replace(self, k: int, key=None, **fields) -> None:
        """Drag k with another path, mask, turn ..."""
        drags = list(self.trajectory.drags)
        drags[k] = dataclasses.replace(drags[k], **fields)
        self._put(key, drags=drags)

    def _drag(self) -> Drag:
        if self.selected is None:
            raise ValueError("first pull a thing to where it shall go: Arrow or Path")
        return self.trajectory.drags[self.selected]

    def _choose(self, k: int | None) -> None:
        self.selected, self._point = k, -1
        self._refresh()
        self.board.redraw(self.board.sketch)

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
        k, drags = self.selected, self.trajectory.drags
        self._put(drags=drags[:k] + drags[k + 1 :])

    def _delete_point(self) -> None:
        drag = self._drag()
        if len(drag.path) <= 2:
            raise ValueError("a drag has at least two points: its handle and its target")
        i = self._point % len(drag.path)
        path, times = (old and old[:i] + old[i + 1 :] for old in (drag.path, drag.times))
        self._replace(self.selected, path=path, times=times)

    def _delete(self) -> None:
        """What Edit took last: a pin, a point between two others, else the whole drag."""
        if self._held and self._held[0] == "pin":
            self._put(pins=replaced(self.trajectory.pins, self._held[1]))
            self._held = None
        elif 0 < self._point < len(self._drag().path) - 1:
            self._delete_point()
        else:
            self._delete_drag()

    def _nudge(self, x: int, y: int) -> None:
        """What Edit took last, by one pixel of the picture."""
        if self._held is None and (path := self._drag().path):
            self._held = ("drag", self.selected, self._point % len(path))
        if self._held is not None:
            self._shift(x, y, ("nudge", *self._held))

    def _shift(self, x: float, y: float, key=None) -> None:
        """What Edit took, moved so far: a pin, a point, or a region with its path."""
        kind, k, *i = self._held
        if kind == "pin":
            pins = self.trajectory.pins
            self._put(key, pins=replaced(pins, k, moved(pins[k], x, y)))
        elif kind == "drag":
            path = self.trajectory.drags[k].path
            self._replace(k, key, path=replaced(path, *i, moved(path[i[0]], x, y)))
        else:
            drag, by = self.trajectory.drags[k], np.float32([[1, 0, x], [0, 1, y]])
            mask = cv2.warpAffine(drag.mask.astype(np.uint8), by, self.picture.size, flags=0) > 0
            self._replace(k, key, mask=mask, path=[moved(point, x, y) for point in drag.path])

    def _insert(self, point: Point) -> None:
        """One more point where a path was clicked twice."""
        pieces = []
        for k, drag in enumerate(self.trajectory.drags):
            for i, (a, b) in enumerate(zip(drag.path, drag.path[1:], strict=False)):
                (px, py), (ax, ay), (bx, by) = point, a, b
                length = max(math.dist(a, b) ** 2, 1e-6)
                share = ((px - ax) * (bx - ax) + (py - ay) * (by - ay)) / length
                share = min(max(share, 0.01), 0.99)
                foot = (ax + share * (bx - ax), ay + share * (by - ay))
                pieces.append((math.dist(point, foot), k, i, share))
        distance, k, i, share = min(pieces, default=(math.inf, 0, 0, 0))
        if distance * self.board.scale > REACH:
            return
        drag = self.trajectory.drags[k]
        path, times = (*drag.path[: i + 1], point, *drag.path[i + 1 :]), drag.times
        if times:
            between = times[i] + share * (times[i + 1] - times[i])
            times = (*times[: i + 1], between, *times[i + 1 :])
        self.selected, self._point, self._held = k, i + 1, ("drag", k, i + 1)
        self._replace(k, path=path, times=times)

    # ----------------------------------------------------------------------------------- mouse

    def _pen(self, kind: str, point: Point) -> None:
        if kind == "down":
            self._points, self._tool, self._held = [], self.tool.value, None
            if self._tool in ("add", "cut", "lasso", "box"):
                self._drag()
            if self._tool == "edit":
                self._take(point)
            if self._tool in ("arrow", "path"):
                self._grow(point)
            self._points = [point]
        elif self._points:
            first = self._points[:1] if self._tool in ("arrow", "box") else self._points
            self._points = [*first, point]
        if not self._points:  # a press that was refused
            return
        if kind != "up":
            self._live()
            return
        points, self._points = self._points, []
        self.board.view[LIVE].clear()
        if self._tool in ("arrow", "path"):
            self._tint()
        work = {"arrow": self._add, "path": self._add, "edit": self._moved, "pin": self._pin}
        work.get(self._tool, self._paint_region)(points)

    def _under(self, point: Point) -> list[int]:
        """The drags whose region lies under a point, the uppermost last."""
        x, y = self._pixel(point)
        drags = enumerate(self.trajectory.drags)
        return [k for k, drag in drags if drag.mask is not None and drag.mask[y, x]]

    def _grow(self, point: Point) -> None:
        """Show which region a pull from here would take: a small disc where nothing stands out."""
        if any(self.trajectory.drags[k].path for k in self._under(point)):
            return
        mask, clear = grow(self.picture, self._pixel(point))
        if not clear:
            width = max(max(self.picture.size) / 10, 3)
            mask = region_mask([Stroke([point], width=width, tool="mask")], self.picture.size)
        self.board.say("" if clear else VAGUE)
        self._grown = mask, clear
        self._tint((mask, colour_of(len(self.trajectory.drags))))

    def _tint(self, *more: tuple[np.ndarray, str]) -> None:
        drags = enumerate(self.trajectory.drags)
        regions = [(drag.mask, colour_of(k)) for k, drag in drags if drag.mask is not None]
        self.board.regions([*regions, *more])

    def _add(self, points) -> None:
        if math.dist(points[0], points[-1]) * self.board.scale < 4 and len(points) < 8:
            raise ValueError("press on a thing, pull it, and release where it shall go")
        if self._tool == "path":
            points = simplified(points, 3 / self.board.scale)
        drags = self.trajectory.drags
        taken = [k for k in self._under(points[0]) if drags[k].path]
        if taken:  # one thing goes one way: a second pull is its new path
            self.selected, self._point = taken[-1], -1
            self._replace(self.selected, path=points, times=None)
            self.board.say("This thing goes another way now; Undo brings back the old one.")
            return
        mask, clear = self._grown
        self.selected, self._point = len(drags), -1
        self._put(drags=(*drags, Drag(points, mask=mask)))
        if not clear:
            self.board.say(VAGUE)

    def _take(self, point: Point) -> None:
        """The point, the pin, or else the region under the mouse."""
        r = self.trajectory
        near = [(math.dist(p, point), ("pin", i)) for i, p in enumerate(r.pins)]
        for k, drag in enumerate(r.drags):
            near += [(math.dist(p, point), ("drag", k, i)) for i, p in enumerate(drag.path)]
        distance, nearest = min(near, default=(math.inf, None))
        if distance * self.board.scale <= REACH:
            self._held = nearest
            if nearest[0] == "drag":
                self.selected, self._point = nearest[1:]
        elif inside := self._under(point):
            self.selected, self._point = inside[-1], -1
            self._held = ("region", self.selected) if r.drags[self.selected].path else None
        self._refresh(preview=False)
        self.board.redraw(self.board.sketch)

    def _moved(self, points) -> None:
        if self._held is not None and points[0] != points[-1]:
            self._shift(*self._pulled(points))

    def _pulled(self, points) -> Point:
        """How far the mouse took what it holds: a point goes to it, a region goes along."""
        start, (x, y) = points[0], points[-1]
        if self._held[0] == "pin":
            start = self.trajectory.pins[self._held[1]]
        elif self._held[0] == "drag":
            start = self.trajectory.drags[self._held[1]].path[self._held[2]]
        return x - start[0], y - start[1]

    def _pin(self, points) -> None:
        pins, point = self.trajectory.pins, points[-1]
        kept = [p for p in pins if math.dist(p, point) * self.board.scale > REACH]
        self._put(pins=kept if len(kept) < len(pins) else [*kept, point])

    def _paint_region(self, points) -> None:
        drag = self._drag()
        if self._tool in ("lasso", "box"):
            mask = np.zeros(self.picture.size[::-1], np.uint8)
            corners = np.round(outline(self._tool, points)).astype(np.int32)
            mask = cv2.fillPoly(mask, [corners], 1) > 0
        else:
            stroke = Stroke(points, width=self.size.value, tool="mask")
            touched = region_mask([stroke], self.picture.size)
            mask = np.zeros_like(touched) if drag.mask is None else drag.mask
            mask = mask | touched if self._tool == "add" else mask & ~touched
        if not mask.any():
            raise ValueError("nothing would be left of the region: Delete takes the whole drag")
        self._replace(self.selected, mask=mask)

    # --------------------------------------------------------------------------------- drawing

    def _draw(self, old: Sketch | None, new: Sketch) -> None:
        self._tint()
        self.board.view[MARKS].clear()
        for k, drag in enumerate(new.trajectory.drags):
            for path in drag.paths:
                chosen = self._point % len(path) if k == self.selected else None
                self._arrow(MARKS, path, k, chosen)
        for pin in new.trajectory.pins:
            self._dot(MARKS, pin, 7, "white")
            self._dot(MARKS, pin, 4, "#111111")

    def _arrow(self, layer: int, path, k: int, chosen: int | None) -> None:
        """White below, so that it is seen on any picture; its number at the handle; the chosen
        point is filled white."""
        colour, scale = colour_of(k), self.board.scale
        thick = 3 if chosen is None else 4
        ends = np.asarray(path, float)
        tip = ends[-1]
        far = ends[np.abs((ends - tip) @ [1, 1j]) * scale > 12]  # a dense path's last piece is tiny
        for stroke, width in (("white", thick + 3), (colour, thick)):
            self.board.path(layer, path, stroke, width)
            if len(far):
                angle = np.arctan2(*(tip - far[-1])[::-1])
                for side in (2.6, -2.6):
                    end = tip + 16 / scale * np.array([np.cos(angle + side), np.sin(angle + side)])
                    self.board.path(layer, [tip, end], stroke, width)
        crowded = len(path) > 2 and self._length(path) / len(path) < 12
        for i, point in enumerate(path):
            if crowded and i not in (0, len(path) - 1, chosen):
                continue
            self._dot(layer, point, 6 if i in (0, len(path) - 1) else 5, "white")
            self._dot(layer, point, 2 if i == chosen else 4, colour)
        self._dot(layer, path[0], 10, colour)
        disc, number = ("#111111", "white") if chosen == 0 else ("white", "#111111")
        self._dot(layer, path[0], 8, disc)
        self.board.text(layer, path[0], str(k + 1), number)

    def _length(self, path) -> float:
        """Of a path, in screen pixels."""
        return float(np.abs(np.diff(np.asarray(path) @ [1, 1j])).sum()) * self.board.scale

    def _dot(self, layer: int, point, radius: float, colour: str) -> None:
        self.board.path(layer, [point], colour, 2 * radius)

    def _live(self) -> None:
        points, r = self._points, self.trajectory
        with held():
            self.board.view[LIVE].clear()
            if self._tool in ("add", "cut"):
                width = self.size.value * self.board.scale
                colour = colour_of(self.selected) if self._tool == "add" else "white"
                self.board.path(LIVE, points, colour, width, 0.5)
            elif self._tool in ("arrow", "path") and len(points) > 1:
                path = points if self._tool == "arrow" else simplified(points, 1)
                self._arrow(LIVE, path, len(r.drags), -1)
            elif self._tool in ("lasso", "box"):
                ring = outline(self._tool, points)
                for colour, width in (("white", 5), (colour_of(self.selected), 2)):
                    self.board.path(LIVE, [*ring, ring[0]], colour, width)
            elif self._tool == "edit" and self._held and self._held[0] != "pin":
                kind, k, *i = self._held
                path, by = r.drags[k].path, self._pulled(points)
                path = [moved(p, *by) if kind == "region" or [n] == i else p
                        for n, p in enumerate(path)]  # fmt: skip
                self._arrow(LIVE, path, k, *(i or [None]))
            else:
                self._dot(LIVE, points[-1], 5, "#111111")

    # ------------------------------------------------------------------------ sliders, preview

    def _refresh(self, preview: bool = True) -> None:
        """Sliders and preview, from the state."""
        r = self.trajectory
        if self.selected is None or self.selected >= len(r.drags):
            self.selected = len(r.drags) - 1 if r.drags else None
        kind, k, *i = self._held or ("pin", -1)
        here = r.pins if kind == "pin" else r.drags
        if not (0 <= k < len(here) and all(n < len(here[k].path) for n in i)):
            self._held = None  # it went with an undo or a delete
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
        frames = [self.picture]
        if self.trajectory:
            frames = self.warped().frames
        self._frames = frames
        self._show_frame()

    def _show_frame(self) -> None:
        n = min(self.shown_frame.value, len(self._frames))
        self.preview.value = webp(self._frames[n - 1 : n] if n else self._frames)

    def warped(self, num_frames: int | None = None):
        """The cut-and-drag clip, see `ivkit.warp`."""
        return warp(self.picture, self.trajectory, num_frames or self.num_frames)


def colour_of(k: int) -> str:
    return COLOURS[k % len(COLOURS)]


def replaced(items: tuple, i: int, *value) -> tuple:
    """The items, with another one at i, or without it."""
    return (*items[:i], *value, *items[i + 1 :])


def moved(point: Point, x: float, y: float) -> Point:
    return point[0] + x, point[1] + y


def outline(tool: str, points) -> list[Point]:
    """Corners of what a lasso or a box has been pulled round."""
    if tool == "lasso":
        return points
    (left, top), (right, bottom) = points[0], points[-1]
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


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
