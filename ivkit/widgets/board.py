"""The surface that canvases draw on: layers, mouse, keys, undo, and the faults it mends.

ipycanvas keeps nothing: after a page's reload it is blank. So whatever lies on the canvas is drawn
from the state, which is one immutable `Sketch`; undo and redo move through a list of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import cv2
import ipywidgets as w
import numpy as np
from ipycanvas import MultiCanvas
from PIL import Image, ImageColor

from ..support.validate import Point
from .page import Page
from .panel import Panel
from .parts import LOCK, Line, button, flow, held, toggle
from .session import Sketch

PICTURE, PAINT, MASK, MARKS, LIVE = range(5)  # the layers; the last one gets the events
WIDEST = 1400  # pixels behind a canvas, however dense the screen and however near the view
KEYS = ["+", "-", "0"]  # the page zooms by them


class History:
    """States to go back and forth between; the state of now is `now`."""

    def __init__(self, start):
        self._states, self._at, self._key = [start], 0, None

    @property
    def now(self):
        return self._states[self._at]

    def push(self, state, key=None) -> None:
        """A new state. With the `key` of the one before it takes that one's place (a slider)."""
        if key is not None and key == self._key:
            self._states[self._at] = state
            return
        self._states[self._at + 1 :] = [state]
        self._at, self._key = self._at + 1, key

    def map(self, change) -> None:
        """Each state changed in the same way."""
        self._states = [change(state) for state in self._states]

    def can(self, by: int) -> bool:
        return 0 <= self._at + by < len(self._states)

    def move(self, by: int) -> bool:
        """Undo (-1) or redo (+1); False where there is nothing more."""
        self._key = None
        moved = self.can(by)
        self._at += by * moved
        return moved


class Board(Panel):
    """A sketch on screen. A subclass draws it, lays out the parts and says what the pen does.

    Args:
      picture: PIL RGB.
      width: how wide the picture is shown, in screen pixels; all else is in picture pixels.
      label: what the canvas is called for who cannot see it.
      layers: {layer: (what a person calls it, its draw)}; draw is called with (old, new) sketches
        after a change, old is None where all must be drawn. What has a name can be hidden.
      autosave: name of the file that the sketch is kept in, or None.
      line: where messages are said.
      cleared: fields of the sketch, as Clear leaves them.

    Attributes:
      stage: holds the canvas. bar: its buttons. eyes: {layer: the switch that hides it}.
      listeners: called after each change.
    """

    def __init__(
        self,
        picture: Image.Image,
        width: int,
        label: str,
        layers: dict[int, tuple[str, Callable[[Sketch | None, Sketch], None]]],
        autosave: str | None,
        line: Line | None,
        **cleared,
    ):
        super().__init__(line)
        self.listeners: list[Callable[[], None]] = []
        self.history = History(Sketch(picture))
        self.shown_width, self.layers, self.cleared = width, layers, cleared
        self._down, guard = False, self.line.guard
        self.keymap: dict[str, Callable[[], None]] = {"h": self._hide_all}  # by names in the page
        self.view = MultiCanvas(5, width=width, height=width)
        self.page = Page(label=label)
        self.stage = w.Box([self.view, self.page])
        self.stage.add_class("ivkit-stage")
        self._fit()
        self.page.observe(guard(self._dense), ["density", "zoom"])
        self.page.on_msg(guard(self._page_says))
        for name in ("down", "move", "up", "out"):
            work = guard(functools.partial(self._mouse, name), ends=False)
            getattr(self.view, f"on_mouse_{name}")(work)
        for name, kind in (("start", "down"), ("move", "move"), ("end", "up"), ("cancel", "up")):
            work = guard(functools.partial(self._touch, kind), ends=False)
            getattr(self.view, f"on_touch_{name}")(work)
        self.view.on_client_ready(guard(self._client_ready))
        self.view.on_key_down(guard(self._key))
        self.undo_button = button("Undo", "undo", self.undo, "Take the last step back: Ctrl+Z")
        self.redo_button = button("Redo", "repeat", self.redo, "Do it once more: Ctrl+Y")
        tip = "Take all off; Undo brings it back"
        self.clear_button = button("Clear", "trash", guard(self.clear), tip)
        self.eyes = {layer: self._eye(name) for layer, (name, _) in layers.items() if name}
        buttons = (self.undo_button, self.redo_button, self.clear_button)
        self.bar = flow(*buttons, flow(*self.eyes.values()))
        self._keep_as(autosave, Sketch, "A drawing of an earlier session is kept.")
        self._buttons()

    # ------------------------------------------------------------------------------- the state

    @property
    def sketch(self) -> Sketch:
        return self.history.now

    def commit(self, sketch: Sketch, key=None) -> None:
        """Put a new sketch in place, draw it, keep it. `key` joins the moves of one slider."""
        with LOCK:
            old = self.sketch
            self.history.push(sketch, key)
            self._changed(old)

    bring_back = commit

    def change(self, key=None, **fields) -> None:
        """Commit the sketch of now with other fields."""
        self.commit(dataclasses.replace(self.sketch, **fields), key)

    def rebase(self, picture: Image.Image) -> None:
        """Another picture of the same size under all of the history: no step of its own."""
        with LOCK:
            self.history.map(lambda sketch: dataclasses.replace(sketch, picture=picture))
            self.redraw()
            self._tell()

    def undo(self) -> bool:
        return self._step(-1)

    def redo(self) -> bool:
        return self._step(1)

    def clear(self) -> None:
        """Take everything off the picture; Undo brings it back."""
        self._let_go()
        self.show(*self.eyes)
        self.change(**self.cleared)
        self.line.say("Cleared. Undo brings it back.")

    def _step(self, by: int) -> bool:
        with LOCK:
            old = self.sketch
            moved = self.history.move(by)
            if moved:
                self._let_go()
                self.show(*self.eyes)
                self._changed(old)
            return moved

    def _let_go(self) -> None:
        """End a press that is under way: what it began on is gone."""
        self._down = False
        self.view[LIVE].clear()

    def _changed(self, old: Sketch) -> None:
        self.line.say("")
        if self.sketch.picture is not old.picture:
            self._fit()
            old = None
        self.redraw(old)
        self._buttons()
        self._tell()
        self._keep(self.sketch)

    def _tell(self) -> None:
        for listener in self.listeners:
            listener()

    def _buttons(self) -> None:
        self.undo_button.disabled = not self.history.can(-1)
        self.redo_button.disabled = not self.history.can(1)

    # --------------------------------------------------------------------------------- layers

    def _eye(self, name: str) -> w.ToggleButton:
        """The switch that hides one layer."""
        tip = f"Show or hide: {name.lower()}. H hides and shows all"
        eye = toggle(name, "eye", tip, True, "auto")

        def turn(shown):
            eye.icon = "eye" if shown else "eye-slash"
            self.redraw()

        self.on(eye, turn)
        return eye

    def show(self, *layers: int, on: bool = True) -> None:
        """Show layers, or hide them."""
        for layer in layers:
            if layer in self.eyes:
                self.eyes[layer].value = on

    def _hide_all(self) -> None:
        self.show(*self.eyes, on=not any(eye.value for eye in self.eyes.values()))

    # ---------------------------------------------------------------------------- mouse and keys

    def _pen(self, kind: str, point: Point) -> None:
        """The pen went "down", moved ("move") or went "up", at a point in picture pixels."""

    def double(self, point: Point) -> None:
        """What a double click does."""

    def load_picture(self, name: str, content: bytes) -> None:
        """What comes of a file that was dropped or pasted."""

    def _mouse(self, name: str, x: float, y: float) -> None:
        if not self._down and name != "down":
            return  # a move without the button, or one that came too late, or its press was refused
        if self._down and name == "down":
            self._pen("up", self._last)  # the button went up where nobody saw it
        self._last = self.to_picture_pixels(x, y)
        self._down = name == "move"
        self._pen("up" if name == "out" else name, self._last)
        self._down = name in ("down", "move")

    def _touch(self, kind: str, touches: Sequence[Point]) -> None:
        if touches:
            self._mouse(kind, *touches[0])
        elif self._down:  # the last finger left: there is no point any more
            self._down = False
            self._pen("up", self._last)

    def _key(self, key: str, shift: bool, ctrl: bool, meta: bool = False) -> None:
        key = key.lower() if len(key) == 1 else key
        if ctrl or meta:
            if key in ("z", "y"):
                self._step(1 if shift or key == "y" else -1)
        elif key in self.keymap:
            self.keymap[key]()

    def _page_says(self, _, content, buffers) -> None:
        if content["event"] == "key":
            self._key(content["key"], content["shift"], content["command"])
        elif content["event"] == "double":
            self.double(self.to_picture_pixels(content["x"], content["y"]))
        elif content["event"] == "file":
            self.load_picture(content["name"], bytes(buffers[0]))

    # --------------------------------------------------------------------------------- drawing

    @property
    def magnification(self) -> float:
        """Screen pixels for each pixel of the picture."""
        return self._fine / self.density

    @property
    def _fine(self) -> float:
        """Canvas pixels for each pixel of the picture."""
        return self.view.width / self.sketch.picture.width

    def to_picture_pixels(self, x: float, y: float) -> Point:
        return x / self._fine - 0.5, y / self._fine - 0.5

    def to_screen(self, points) -> np.ndarray:
        """(n, 2) picture pixels to (n, 2) pixels of the canvas."""
        return (np.asarray(points, float).reshape(-1, 2) + 0.5) * self._fine

    def _fit(self) -> None:
        picture, page = self.sketch.picture, self.page
        shape = picture.width / picture.height
        width = max(min(self.shown_width, round(1.25 * self.shown_width * shape)), 1)
        height = max(round(width / shape), 1)
        fine = min(page.density * page.zoom, WIDEST / max(width, height))
        self.view.width, self.view.height = round(width * fine), round(height * fine)
        self.density = self.view.width / width / page.zoom  # canvas pixels for each on screen
        bare = {"border": "none", "padding": "0", "margin": "0"}
        frame = {"display": "block", "max_width": "100%", "overflow": "hidden"}
        self.view.layout = w.Layout(width="100%", height="auto", **bare)
        self.stage.layout = w.Layout(width=f"{width}px", **frame, **bare)

    def _dense(self, change) -> None:
        self._fit()
        self.redraw()

    def redraw(self, old: Sketch | None = None) -> None:
        with held():
            if old is None:
                self.view.clear()
                self.put(PICTURE, self.sketch.picture)
            for layer, (_, draw) in self.layers.items():
                if layer not in self.eyes or self.eyes[layer].value:
                    draw(old, self.sketch)

    def put(self, layer: int, picture: Image.Image) -> None:
        """A picture, or an RGBA one, over the whole layer. RGB would be sent as a coarse JPEG."""
        shown = picture.convert("RGBA").resize((self.view.width, self.view.height))
        self.view[layer].put_image_data(np.asarray(shown), 0, 0)

    def regions(self, regions: Sequence[tuple[np.ndarray, str]]) -> None:
        """Tint, hatch and outline (mask, colour)s: seen on any picture, and without its colour."""
        self.view[MASK].clear()
        size, line = (self.view.width, self.view.height), max(round(self.density), 1)
        across = np.add.outer(np.arange(size[1]), np.arange(size[0])) % (8 * line) < line
        layer = np.zeros((*size[::-1], 4), np.uint8)
        for mask, colour in regions:
            rims = [cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)]
            for _ in range(2):
                rims.append(cv2.erode(rims[-1], np.ones((2 * line + 1, 2 * line + 1), np.uint8)))
            whole, inner, core = (rim > 0 for rim in rims)
            layer[whole] = (*ImageColor.getrgb(colour), 90)
            layer[whole & across] = (255, 255, 255, 130)
            layer[whole & ~core] = (255, 255, 255, 255)
            layer[whole & ~inner] = (17, 17, 17, 255)
        if layer.any():
            self.put(MASK, Image.fromarray(layer))

    def path(self, layer: int, points, colour: str, width: float, alpha=1.0, erase=False) -> None:
        """A round-ended line through picture points; `width` in screen pixels."""
        canvas, on_screen = self.view[layer], self.to_screen(points)
        canvas.global_composite_operation = "destination-out" if erase else "source-over"
        canvas.global_alpha, canvas.stroke_style, canvas.fill_style = alpha, colour, colour
        width *= self.density
        canvas.line_width, canvas.line_cap, canvas.line_join = width, "round", "round"
        if len(on_screen) == 1 or np.ptp(on_screen, axis=0).max() == 0:
            canvas.fill_circle(*map(float, on_screen[0]), width / 2)
        else:
            canvas.stroke_lines(on_screen)

    def text(self, layer: int, point: Point, text: str, colour: str) -> None:
        """A word or a number, with its middle at a picture point."""
        canvas, ((x, y),) = self.view[layer], self.to_screen([point])
        canvas.font, canvas.text_align = f"bold {round(12 * self.density)}px sans-serif", "center"
        canvas.text_baseline, canvas.fill_style = "middle", colour
        canvas.global_alpha, canvas.global_composite_operation = 1, "source-over"
        canvas.fill_text(text, float(x), float(y))

    def _client_ready(self) -> None:
        # After a reload the page knows no current canvas, while ipycanvas takes the last for known.
        manager = getattr(self.view, "_canvas_manager", None)
        if hasattr(manager, "_current_canvas"):
            manager._current_canvas = None
        self.redraw()
