"""What panels are made of: rows, buttons, lines of messages; each says what it is for."""

from __future__ import annotations

import functools
import html
import threading
import traceback
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from pathlib import Path

import ipywidgets as w
from ipycanvas import hold_canvas

TIP = "tooltip" if hasattr(w.DOMWidget, "tooltip") else "description_tooltip"  # ipywidgets 8, 7
LOCK = threading.RLock()  # ipycanvas has one command list for all canvases of a kernel


@contextmanager
def held():
    """Send all drawing in one message. ipycanvas's own stays frozen where the body raises."""
    with LOCK:
        hold = hold_canvas()
        hold.__enter__()
        try:
            yield
        finally:
            hold.__exit__(None, None, None)


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

    def guard(self, work: Callable, ends: bool = True, alone: bool = True) -> Callable:
        """The same callback, whose errors are said and recorded.

        ends: whether its success ends an old error. alone: whether nothing else may draw meanwhile.
        """

        @functools.wraps(work)
        def guarded(*args):
            before = self.value
            try:
                with LOCK if alone else nullcontext():
                    result = work(*args)
            except Exception as error:
                self.fail(error)
                return None
            if ends and self.failed and self.value == before:
                self.say("")
            return result

        return guarded


def row(kind: type[w.Widget], text: str, tip: str, width: int = 240, label: int = 64, **options):
    """A labelled row of a panel. A text says nothing before Enter, a slider before it is let go."""
    if "continuous_update" in kind.class_trait_names():
        options = {"continuous_update": False} | options
    layout = w.Layout(width=f"{width}px", max_width="100%", flex="0 0 auto")
    style = {"description_width": f"{label}px"}
    return kind(description=text, layout=layout, style=style, **{TIP: tip}, **options)


def slider(text: str, tip: str, value, low, high, step, **more) -> w.FloatSlider:
    form = ".2f" if step < 0.5 else ".0f"
    size = {"value": value, "min": low, "max": high, "step": step, "readout_format": form}
    return row(w.FloatSlider, text, tip, **size, **more)


def button(text: str, icon: str, work: Callable[[], None], tip: str, width="80px", **options):
    """A button of one width with the others; `work` takes no argument."""
    look = {"description": text, "icon": icon, "tooltip": tip, **options}
    made = w.Button(layout=w.Layout(width=width), **look)
    made.on_click(lambda _: work())
    return made


def toggle(text: str, icon: str, tip: str, value: bool = False, width="80px") -> w.ToggleButton:
    look = {"description": text, "icon": icon, "tooltip": tip}
    return w.ToggleButton(value, layout=w.Layout(width=width), **look)


def choice(tip: str, options: dict[str, tuple], width: int, **layout) -> w.ToggleButtons:
    """Buttons of which one is pressed. options: {value: (what it says, what it is for)}."""
    labels = [(text, value) for value, (text, _) in options.items()]
    look = {"style": {"button_width": f"{width}px"}, "layout": w.Layout(**layout), TIP: tip}
    return w.ToggleButtons(options=labels, tooltips=[says for _, says in options.values()], **look)


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


def small(text: str) -> str:
    """HTML in a caption's size."""
    return f"<div style='line-height:1.35;font-size:12px'>{text}</div>"


def heading(text: str, margin: str | None = None) -> w.HTML:
    return words(f"<div style='line-height:1.4'><b>{html.escape(text)}</b></div>", margin=margin)


def picture_view(width: int, **options) -> w.Image:
    """A picture of one width. Its name in the page is the text that it shares a box with."""
    return w.Image(layout=w.Layout(width=f"{width}px", max_width="100%"), **options)


def explain(error: BaseException) -> str:
    """One sentence for the person. What is no bad input is a fault of ours: it says where."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{str(error.filename)!r}: {error.strerror.lower()}"
    if isinstance(error, (ValueError, TypeError, OSError)) and str(error):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
