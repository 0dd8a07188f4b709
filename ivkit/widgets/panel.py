"""What every panel does: it says what happens, keeps what is made, and leaves a picture behind."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable
from typing import Any

import ipywidgets as w
from IPython.display import HTML, display
from PIL import Image

from .parts import Line, button, flow, words
from .session import Autosave

WIDEST = 1024  # pixels of the picture that is left


class Panel(w.VBox):
    """A box of widgets that is displayed together with a picture of what it holds.

    The picture is a second output, which is hidden while the widgets are there. So a notebook that
    is opened again, or exported to HTML, shows it where the widgets are missing.

    Attributes:
      line: where messages are said. errors: exceptions of callbacks, which were said there.
      autosave: what keeps the panel's state in a file, or None.
      offer: the row that offers what an earlier session left; empty where that is nothing.
    """

    autosave: Autosave | None = None
    _left = None  # the handle of the picture

    def __init__(self, line: Line | None = None):
        super().__init__()
        self.line = Line() if line is None else line
        self.errors, self.offer = self.line.errors, flow()

    def on(self, widget: w.Widget, work: Callable[[Any], Any]) -> None:
        """Have `work` called with each new value of a widget; its errors are said and recorded."""
        widget.observe(self.line.guard(lambda change: work(change["new"])), "value")

    def still(self) -> Image.Image:
        """What the panel holds, as one picture."""
        raise NotImplementedError

    def bring_back(self, kept) -> None:
        """Take up what `_keep` was given in an earlier session."""
        raise NotImplementedError

    def _keep_as(self, name: str | None, kind: type, says: str) -> None:
        """Keep the state under a name, and offer what lies there from an earlier session."""
        self.autosave = Autosave(name) if name else None
        kept = self.autosave and self.autosave.found(kind)
        leave = functools.partial(setattr, self.offer, "children", ())

        def accept():
            self.bring_back(kept)
            self.line.say("Here it is again.")
            leave()

        guarded = self.line.guard(accept)
        yes = button("Bring it back", "history", guarded, "Put it on the canvas", "130px")
        no = button("No", "times", leave, "Leave it in its file", "60px")
        self.offer.children = () if kept is None else (words(says), yes, no)

    def _keep(self, state: Any) -> None:
        """Keep the state of now, and put its picture in the place of the one that is left."""
        self.line.guard(self.leave_still)()
        if self.autosave is not None:
            self.autosave.put(state)
            if self.autosave.failed:
                self.line.say(f"This is not being saved: {self.autosave.failed}", error=True)

    def _ipython_display_(self, **options) -> None:
        if self._left is None:
            style = f"<style>.ivkit-still-{self.model_id} {{display: none !important}}</style>"
            self.children += (words(style, display="none"),)
        if hasattr(super(), "_ipython_display_"):  # ipywidgets 7
            super()._ipython_display_(**options)
        else:
            display(self._repr_mimebundle_(**options), raw=True)
        self._left = display(self._html(), display_id=True)

    def leave_still(self) -> None:
        """Put the picture of now in the place of the one that is left."""
        if self._left is not None:
            self._left.update(self._html())

    def _html(self) -> HTML:
        picture, file = self.still().convert("RGB"), io.BytesIO()
        picture.thumbnail((WIDEST, WIDEST))
        picture.save(file, "JPEG", quality=85)
        data = base64.b64encode(file.getvalue()).decode("ascii")
        name = f"A picture of the {type(self).__name__}, whose widgets need a running kernel"
        return HTML(
            f'<img class="ivkit-still-{self.model_id}" alt="{name}" '
            f'src="data:image/jpeg;base64,{data}">'
        )
