"""What a panel leaves in the notebook's file: a picture, for whoever opens it without a kernel."""

from __future__ import annotations

import base64
import io

import ipywidgets as w
from IPython.display import HTML, display
from PIL import Image

from .board import words

WIDEST = 1024  # pixels of the picture that is left


class Panel(w.VBox):
    """A box of widgets that is displayed together with a picture of what it holds.

    The picture is a second output, which is hidden while the widgets are there. So a notebook that
    is opened again, or exported to HTML, shows it where the widgets are missing.
    """

    _left = None  # the handle of the picture

    def still(self) -> Image.Image:
        """What the panel holds, as one picture."""
        raise NotImplementedError

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
