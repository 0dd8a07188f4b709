"""The surface that both canvases draw on: layers, mouse, undo, messages, and the faults it mends.

ipycanvas keeps nothing: after a page's reload it is blank. So whatever lies on the canvas is drawn
from the state, which is one immutable `Sketch`; undo and redo move through a list of them.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ipywidgets as w
import numpy as np
from ipycanvas import MultiCanvas, hold_canvas
from PIL import Image

from ..pictures import to_picture
from ..validate import Point
from .session import Autosave, Sketch

PICTURE, PAINT, MASK, MARKS, LIVE = range(5)  # the layers; the last one gets the events
_LOCK = threading.RLock()  # ipycanvas has one command list for all canvases of a kernel


@contextmanager
def held():
    """Send all drawing in one message. ipycanvas's own stays frozen where the body raises."""
    with _LOCK:
        hold = hold_canvas()
        hold.__enter__()
        try:
            yield
        finally:
            hold.__exit__(None, None, None)


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


class Board:
    """A sketch on screen: `view` is the canvas, `bar` undo, redo and clear, `line` the messages.

    Args:
      picture: anything `to_picture` takes.
      width: how wide the picture is shown, in screen pixels; all else is in picture pixels.
      draw: called with (old, new) sketches after a change; old is None where all must be drawn.
      pen: called with ("down" | "move" | "up", (x, y)) in picture pixels.
      cleared: fields of the sketch, as Clear leaves them.
      autosave: name of the file that the sketch is kept in, or None.
    """

    def __init__(
        self,
        picture,
        width: int,
        draw: Callable[[Sketch | None, Sketch], None],
        pen: Callable[[str, Point], None],
        cleared: dict[str, Any],
        autosave: str | None,
    ):
        self.errors: list[BaseException] = []
        self.listeners: list[Callable[[], None]] = []
        self.history = History(Sketch(picture))
        self.shown_width, self._draw, self._pen, self._cleared = width, draw, pen, cleared
        self._down = False
        self.line = w.HTML(layout=w.Layout(min_height="22px", margin="0"))
        self.view = MultiCanvas(5, width=width, height=width)
        self._fit()
        for name in ("down", "move", "up", "out"):
            getattr(self.view, f"on_mouse_{name}")(functools.partial(self._mouse, name))
        for name, kind in (("start", "down"), ("move", "move"), ("end", "up"), ("cancel", "up")):
            getattr(self.view, f"on_touch_{name}")(functools.partial(self._touch, kind))
        self.view.on_client_ready(self._client_ready)
        self.view.on_key_down(self._key)
        self.undo_button = button("Undo", "undo", self.undo)
        self.redo_button = button("Redo", "repeat", self.redo)
        self.clear_button = button("Clear", "trash", self.guard(self.clear))
        self.bar = w.HBox([self.undo_button, self.redo_button, self.clear_button])
        self.autosave = Autosave(autosave) if autosave else None
        kept = self.autosave and self.autosave.found(Sketch)
        says = "A drawing of an earlier session is kept."
        self.offer = offer(says, kept, self._bring_back, self.guard)
        self._buttons()

    # ------------------------------------------------------------------------------- the state

    @property
    def sketch(self) -> Sketch:
        return self.history.now

    def commit(self, sketch: Sketch, key=None) -> None:
        """Put a new sketch in place, draw it, keep it. `key` joins the moves of one slider."""
        with _LOCK:
            old = self.sketch
            self.history.push(sketch, key)
            self._changed(old)

    def change(self, key=None, **fields) -> None:
        """Commit the sketch of now with other fields."""
        self.commit(dataclasses.replace(self.sketch, **fields), key)

    def rebase(self, picture: Image.Image) -> None:
        """Another picture of the same size under all of the history: no step of its own."""
        with _LOCK:
            self.history.map(lambda sketch: dataclasses.replace(sketch, picture=picture))
            self.redraw()
            for listener in self.listeners:
                listener()

    def undo(self) -> bool:
        return self._step(-1)

    def redo(self) -> bool:
        return self._step(1)

    def clear(self) -> None:
        """Take everything off the picture; Undo brings it back."""
        self._let_go()
        self.change(**self._cleared)
        self.say("Cleared. Undo brings it back.")

    def _step(self, by: int) -> bool:
        with _LOCK:
            old = self.sketch
            moved = self.history.move(by)
            if moved:
                self._let_go()
                self._changed(old)
            return moved

    def _let_go(self) -> None:
        """End a press that is under way: what it began on is gone."""
        self._down = False
        self.view[LIVE].clear()

    def _changed(self, old: Sketch) -> None:
        self.say("")
        if self.sketch.picture is not old.picture:
            self._fit()
            old = None
        self.redraw(old)
        self._buttons()
        if self.autosave:
            self.autosave.put(self.sketch)
            if self.autosave.failed:
                self.say(f"This is not being saved: {self.autosave.failed}", error=True)
        for listener in self.listeners:
            listener()

    def _buttons(self) -> None:
        self.undo_button.disabled = not self.history.can(-1)
        self.redo_button.disabled = not self.history.can(1)

    def _bring_back(self, kept: Sketch) -> None:
        self.commit(kept)
        self.say("Here it is again.")

    # -------------------------------------------------------------------------------- messages

    def say(self, text: str, error: bool = False) -> None:
        """One sentence under the canvas."""
        self.line.value = message(text, error)

    def guard(self, work: Callable) -> Callable:
        """The same callback, whose errors are said and recorded: widgets would swallow them."""

        @functools.wraps(work)
        def guarded(*args):
            try:
                with _LOCK:
                    return work(*args)
            except Exception as error:
                self.fail(error)

        return guarded

    def fail(self, error: Exception) -> None:
        self.errors.append(error)
        self.say(explain(error), error=True)

    # ----------------------------------------------------------------------------------- mouse

    def _mouse(self, name: str, x: float, y: float) -> None:
        if not self._down and name != "down":
            return  # a move without the button, or one that came too late
        if self._down and name == "down":
            self._send("up", self._last)  # the button went up where nobody saw it
        self._last = self.to_picture_pixels(x, y)
        self._down = name in ("down", "move")
        self._send("up" if name == "out" else name, self._last)

    def _touch(self, kind: str, touches: Sequence[Point]) -> None:
        if touches:
            self._mouse(kind, *touches[0])
        elif self._down:  # the last finger left: there is no point any more
            self._down = False
            self._send("up", self._last)

    def _send(self, kind: str, point: Point) -> None:
        self.guard(self._pen)(kind, point)

    def _key(self, key: str, shift: bool, ctrl: bool, meta: bool) -> None:
        if ctrl or meta:
            back = key.lower() == "z" and not shift
            forth = key.lower() == "y" or (key.lower() == "z" and shift)
            if back or forth:
                self._step(1 if forth else -1)

    # --------------------------------------------------------------------------------- drawing

    @property
    def scale(self) -> float:
        """Screen pixels for each pixel of the picture."""
        return self.view.width / self.sketch.picture.width

    def to_picture_pixels(self, x: float, y: float) -> Point:
        return x / self.scale - 0.5, y / self.scale - 0.5

    def to_screen(self, points) -> np.ndarray:
        """(n, 2) picture pixels to (n, 2) screen pixels."""
        return (np.asarray(points, float).reshape(-1, 2) + 0.5) * self.scale

    def _fit(self) -> None:
        picture = self.sketch.picture
        width = min(self.shown_width, round(1.25 * self.shown_width * picture.width
                                            / picture.height))  # fmt: skip
        height = max(round(width * picture.height / picture.width), 1)
        self.view.width, self.view.height = max(width, 1), height
        layout = {"width": f"{self.view.width}px", "height": f"{height}px", "border": "none",
                  "padding": "0", "margin": "0"}  # fmt: skip
        self.view.layout = w.Layout(**layout, flex="0 0 auto")

    def redraw(self, old: Sketch | None = None) -> None:
        with held():
            if old is None:
                self.view.clear()
                self.put(PICTURE, self.sketch.picture)
            self._draw(old, self.sketch)

    def put(self, layer: int, picture: Image.Image) -> None:
        """A picture, or an RGBA one, over the whole layer. RGB would be sent as a coarse JPEG."""
        shown = picture.convert("RGBA").resize((self.view.width, self.view.height))
        self.view[layer].put_image_data(np.asarray(shown), 0, 0)

    def path(self, layer: int, points, colour: str, width: float, alpha=1.0, erase=False) -> None:
        """A round-ended line through picture points; `width` in screen pixels."""
        canvas, on_screen = self.view[layer], self.to_screen(points)
        canvas.global_composite_operation = "destination-out" if erase else "source-over"
        canvas.global_alpha, canvas.stroke_style, canvas.fill_style = alpha, colour, colour
        canvas.line_width, canvas.line_cap, canvas.line_join = width, "round", "round"
        if len(on_screen) == 1 or np.ptp(on_screen, axis=0).max() == 0:
            canvas.fill_circle(*map(float, on_screen[0]), width / 2)
        else:
            canvas.stroke_lines(on_screen)

    def _client_ready(self) -> None:
        # After a reload the page knows no current canvas, while ipycanvas takes the last for known.
        manager = getattr(self.view, "_canvas_manager", None)
        if hasattr(manager, "_current_canvas"):
            manager._current_canvas = None
        self.guard(self.redraw)()


# ------------------------------------------------------------------------------ small things


def button(text: str, icon: str, work: Callable[[], None], width: str = "88px", **options):
    """A button of one width with the others; `work` takes no argument."""
    made = w.Button(description=text, icon=icon, layout=w.Layout(width=width), **options)
    made.on_click(lambda _: work())
    return made


def slider(text: str, value, low, high, step, form: str = ".0f", width: int = 300):
    """A row of a panel, which speaks up when it is let go."""
    return w.FloatSlider(value=value, min=low, max=high, step=step, description=text,
                         readout_format=form, continuous_update=False, **row(width))  # fmt: skip


def row(width: int = 300, label: int = 64) -> dict:
    """Layout and style of a panel's row. A Layout is an object: each widget needs its own."""
    return {"layout": w.Layout(width=f"{width}px"), "style": {"description_width": f"{label}px"}}


def heading(text: str, margin: str | None = None) -> w.HTML:
    text = f"<b style='color:#444'>{html.escape(text)}</b>"
    return w.HTML(text, layout=w.Layout(margin=margin))


def offer(text: str, kept, bring_back: Callable, guard: Callable) -> w.HBox:
    """The line above a panel that offers what an earlier session left; empty where `kept` is None.

    bring_back: called with `kept`. guard: what callbacks are wrapped in.
    """
    line = w.HBox([])

    def accept():
        bring_back(kept)
        line.children = ()

    yes = button("Bring it back", "history", guard(accept), width="130px")
    no = button("No", "times", lambda: setattr(line, "children", ()), width="60px")
    line.children = () if kept is None else (w.HTML(text), yes, no)
    return line


def message(text: str, error: bool = False) -> str:
    colour = "#b3261e" if error else "#3c6e47"
    style = f"color:{colour};line-height:1.35"
    return f'<div style="{style}">{html.escape(text)}</div>' if text else ""


def explain(error: BaseException) -> str:
    """One sentence for the person. What is no bad input is a fault of ours: it says where."""
    if isinstance(error, (ValueError, TypeError, OSError)) and str(error):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def uploaded(value) -> list[tuple[str, bytes]]:
    """(name, bytes) of what a FileUpload holds; ipywidgets 7 and 8 lay it out differently."""
    rows = value.values() if isinstance(value, dict) else value
    return [(row.get("name") or row["metadata"]["name"], bytes(row["content"])) for row in rows]


def picture_from_bytes(name: str, content: bytes) -> Image.Image:
    """An uploaded file as an RGB picture; ValueError names the file where it is none."""
    with TemporaryDirectory() as folder:  # so that one function knows all about files
        path = Path(folder) / (Path(name).name or "picture")
        path.write_bytes(content)
        try:
            return to_picture(path)
        except ValueError as error:
            said = str(error)
            raise ValueError(said if path.name in said else f"{path.name!r}: {said}") from None
