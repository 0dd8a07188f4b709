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

import cv2
import ipywidgets as w
import numpy as np
from ipycanvas import MultiCanvas, hold_canvas
from PIL import Image, ImageColor

from ..pictures import to_picture
from ..support.validate import Point
from .page import Page
from .session import Autosave, Sketch

PICTURE, PAINT, MASK, MARKS, LIVE = range(5)  # the layers; the last one gets the events
WIDEST = 1400  # pixels behind a canvas, however dense the screen and however near the view
KEYS = ["+", "-", "0"]  # the page zooms by them
TIP = "tooltip" if hasattr(w.DOMWidget, "tooltip") else "description_tooltip"  # ipywidgets 8, 7
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


class Line(w.HTML):
    """Messages beside what they are about, and the guard of callbacks, which speaks here.

    errors: the list that exceptions are recorded in, for widgets would swallow them.
    """

    def __init__(self, errors: list[BaseException] | None = None, **layout):
        self.errors, self.failed = [] if errors is None else errors, False
        super().__init__(layout=w.Layout(margin="0", **layout), **{TIP: ""})

    def say(self, text: str, error: bool = False, more: str = "") -> None:
        """One sentence. An error is known by its sign and its word, not by a colour alone.

        more: HTML after the sentence.
        """
        sign, colour = ("⚠ <b>Error:</b> ", "error") if error else ("", "success")
        bar = f"border-left:4px solid var(--jp-{colour}-color1, gray)"
        style = f"{bar};padding:0 6px;line-height:1.4"
        role, said = "alert" if error else "status", sign + html.escape(text, quote=False) + more
        self.failed = error
        self.value = f'<div role="{role}" style="{style}">{said}</div>' if text else ""

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)
        self.say(explain(error), error=True)

    def guard(self, work: Callable, ends: bool = True) -> Callable:
        """The same callback, whose errors are said and recorded; nothing else draws meanwhile.

        ends: whether its success ends an old error.
        """

        @functools.wraps(work)
        def guarded(*args):
            before = self.value
            try:
                with _LOCK:
                    result = work(*args)
            except Exception as error:
                self.fail(error)
                return None
            if ends and self.failed and self.value == before:
                self.say("")
            return result

        return guarded


class Board:
    """A sketch on screen: `stage` holds the canvas, `bar` its buttons, `line` the messages.

    Args:
      picture: anything `to_picture` takes.
      width: how wide the picture is shown, in screen pixels; all else is in picture pixels.
      layers: {layer: (what a person calls it, its draw)}; draw is called with (old, new) sketches
        after a change, old is None where all must be drawn. What has a name can be hidden.
      pen: called with ("down" | "move" | "up", (x, y)) in picture pixels.
      cleared: fields of the sketch, as Clear leaves them.
      autosave: name of the file that the sketch is kept in, or None.
      line: where messages are said.
      label: what the canvas is called.
    """

    def __init__(
        self,
        picture,
        width: int,
        layers: dict[int, tuple[str, Callable[[Sketch | None, Sketch], None]]],
        pen: Callable[[str, Point], None],
        cleared: dict[str, Any],
        autosave: str | None,
        line: Line,
        label: str,
    ):
        self.line, guard = line, line.guard
        self.listeners: list[Callable[[], None]] = []
        self.history = History(Sketch(picture))
        self.shown_width, self.layers, self.cleared = width, layers, cleared
        self._pen, self._down = pen, False
        self.keys: dict[str, Callable[[], None]] = {}
        self.double: Callable[[Point], None] | None = None  # what a double click does
        self.dropped: Callable[[str, bytes], None] | None = None  # with a file's name and content
        self.view = MultiCanvas(5, width=width, height=width)
        self.page = Page(label=label, takes=KEYS)
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
        self.autosave = Autosave(autosave) if autosave else None
        kept = self.autosave and self.autosave.found(Sketch)
        self.offer = offer(
            "A drawing of an earlier session is kept.", kept, self._bring_back, guard
        )
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
        self.show(*self.eyes)
        self.change(**self.cleared)
        self.line.say("Cleared. Undo brings it back.")

    def _step(self, by: int) -> bool:
        with _LOCK:
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
        for listener in self.listeners:
            listener()
        if self.autosave:
            self.autosave.put(self.sketch)
            if self.autosave.failed:
                self.line.say(f"This is not being saved: {self.autosave.failed}", error=True)

    def _buttons(self) -> None:
        self.undo_button.disabled = not self.history.can(-1)
        self.redo_button.disabled = not self.history.can(1)

    def _bring_back(self, kept: Sketch) -> None:
        self.commit(kept)
        self.line.say("Here it is again.")

    # --------------------------------------------------------------------------------- layers

    def _eye(self, name: str) -> w.ToggleButton:
        """The switch that hides one layer."""
        says = f"Show or hide: {name.lower()}. H hides and shows all"
        eye = w.ToggleButton(
            True, description=name, icon="eye", tooltip=says, layout=w.Layout(width="auto")
        )

        def turn(change):
            eye.icon = "eye" if eye.value else "eye-slash"
            self.redraw()

        eye.observe(self.line.guard(turn), "value")
        return eye

    def show(self, *layers: int, on: bool = True) -> None:
        """Show layers, or hide them."""
        for layer in layers:
            if layer in self.eyes:
                self.eyes[layer].value = on

    def _hide_all(self) -> None:
        self.show(*self.eyes, on=not any(eye.value for eye in self.eyes.values()))

    # ----------------------------------------------------------------------------------- mouse

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
        elif key in self.keys:
            self.keys[key]()

    def take_keys(self, keys: dict[str, Callable[[], None]]) -> None:
        """What each key of the canvas does, by its name in the page: "b", "[", "Delete"."""
        self.keys = keys | {"h": self._hide_all}
        self.page.takes = [*KEYS, *self.keys]

    def _page_says(self, _, content, buffers) -> None:
        if content["event"] == "key":
            self._key(content["key"], content["shift"], content["command"])
        elif content["event"] == "double" and self.double:
            self.double(self.to_picture_pixels(content["x"], content["y"]))
        elif content["event"] == "file" and self.dropped:
            self.dropped(content["name"], bytes(buffers[0]))

    # --------------------------------------------------------------------------------- drawing

    @property
    def scale(self) -> float:
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


# ------------------------------------------------------------------------------ small things


def button(text: str, icon: str, work: Callable[[], None], tip: str, width="80px", **options):
    """A button of one width with the others; `work` takes no argument."""
    look = {"description": text, "icon": icon, "tooltip": tip, **options}
    made = w.Button(layout=w.Layout(width=width), **look)
    made.on_click(lambda _: work())
    return made


def slider(text: str, tip: str, value, low, high, step, width: int = 240):
    """A row of a panel, which speaks up when it is let go."""
    form = ".2f" if step < 0.5 else ".0f"
    how = {"readout_format": form, "continuous_update": False, **row(tip, width)}
    return w.FloatSlider(value, min=low, max=high, step=step, description=text, **how)


def row(tip: str = "", width: int = 300, label: int = 64) -> dict:
    """Layout, style and tooltip of a panel's row. A Layout is an object: each needs its own."""
    layout = w.Layout(width=f"{width}px", max_width="100%", flex="0 0 auto")
    return {"layout": layout, "style": {"description_width": f"{label}px"}, TIP: tip}


def flow(*children, **layout) -> w.Box:
    """Side by side while there is room, then below one another."""
    wrap = {"display": "flex", "flex_flow": "row wrap", "overflow": "visible"}
    return w.Box(children, layout=w.Layout(**wrap, **layout))


def column(width: int, *children) -> w.VBox:
    """A column of one width, narrower only where the page is; for a row that wraps."""
    size = {"width": f"{width}px", "max_width": "100%", "flex": "0 0 auto"}
    layout = w.Layout(margin="0 8px 8px 0", overflow="visible", **size)
    return w.VBox(children, layout=layout)


def words(text: str = "", **layout) -> w.HTML:
    """Text in the theme's colour."""
    return w.HTML(text, layout=w.Layout(**layout), **{TIP: ""})


def picture_view(width: int, **options) -> w.Image:
    """A picture of one width. Its name in the page is the text that it shares a box with."""
    return w.Image(layout=w.Layout(width=f"{width}px", max_width="100%"), **options)


def heading(text: str, margin: str | None = None) -> w.HTML:
    return words(f"<div style='line-height:1.4'><b>{html.escape(text)}</b></div>", margin=margin)


def small(text: str) -> str:
    """HTML in a caption's size."""
    return f"<div style='line-height:1.35;font-size:12px'>{text}</div>"


def offer(text: str, kept, bring_back: Callable, guard: Callable) -> w.Box:
    """The line above a panel that offers what an earlier session left; empty where `kept` is None.

    bring_back: called with `kept`. guard: what callbacks are wrapped in.
    """
    line = flow()

    def accept():
        bring_back(kept)
        line.children = ()

    yes = button("Bring it back", "history", guard(accept), "Put it on the canvas", "130px")
    leave = functools.partial(setattr, line, "children", ())
    no = button("No", "times", leave, "Leave it in its file", "60px")
    line.children = () if kept is None else (words(text), yes, no)
    return line


def explain(error: BaseException) -> str:
    """One sentence for the person. What is no bad input is a fault of ours: it says where."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{str(error.filename)!r}: {error.strerror.lower()}"
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
