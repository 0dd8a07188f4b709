"""PaintCanvas, strokes on a picture kept as vectors in its pixels; and what both canvases share."""

from __future__ import annotations

import os
import warnings

import ipywidgets as w
import numpy as np
from PIL import Image

from ..instructions import Stroke
from ..paint import rasterise, region_mask
from ..pictures import to_picture
from ..validate import Point
from .board import LIVE, MASK, PAINT, Board, held, picture_from_bytes, row, slider, uploaded
from .session import Sketch

TOOLS = (("Brush", "brush"), ("Eraser", "eraser"), ("Region", "mask"), ("Pick", "pick"))
MASK_COLOUR, MASK_ALPHA = "#e5006d", 0.4


class Canvas(w.VBox):
    """A board with its tools; what the pen does and how a sketch is drawn is the subclass's.

    Attributes:
      picture: PIL RGB. tool: the switch of tools. board: see `Board`.
      errors: exceptions in callbacks, which were said below the canvas.
    """

    def __init__(self, image, size, width: int, tools, autosave: str | None, **cleared):
        blank = Image.new("RGB", size or (256, 256), "white")
        picture = blank if image is None else to_picture(image, size)
        self._points: list[Point] = []
        self._tool = tools[0][1]  # of the press: a change of tool in between changes nothing
        self.board = Board(picture, width, self._draw, self._pen, cleared, autosave)
        self.errors = self.board.errors
        self.tool = w.ToggleButtons(options=tools, style={"button_width": "80px"},
                                    layout=w.Layout(margin="0 0 4px 0"))  # fmt: skip
        super().__init__()

    @property
    def picture(self) -> Image.Image:
        return self.board.sketch.picture

    def save(self, path: str | os.PathLike) -> None:
        """Write all that is on the canvas as JSON."""
        self.board.sketch.save(path)

    def load(self, path: str | os.PathLike) -> None:
        """Read what `save` wrote. ValueError where the file is damaged; what is here then stays."""
        self.board.commit(Sketch.load(path))

    def undo(self) -> bool:
        return self.board.undo()

    def redo(self) -> bool:
        return self.board.redo()

    def clear(self) -> None:
        self.board.clear()

    def _pixel(self, point: Point) -> tuple[int, int]:
        """(x, y) of the picture's pixel at a point, or the nearest one."""
        x, y = (round(min(max(v, 0), n - 1)) for v, n in zip(point, self.picture.size, strict=True))
        return x, y


class PaintCanvas(Canvas):
    """Paint on a picture with the mouse.

    Tools: brush, eraser (of paint and of region), region (marks where a picture may change; drawn
    translucent), and a picker that takes a colour from the picture. Everything can be undone, Clear
    included, also by Ctrl+Z and Ctrl+Y over the canvas.

    Args:
      image: anything `ivkit.to_picture` takes; None is a white square of 256 pixels.
      width: how wide it is shown, in screen pixels.
      autosave: name under outputs/autosave/ that the drawing is kept in; None keeps nothing.
      size: (W, H) that every picture is cropped and resized to; None takes each as it is.

    Attributes:
      strokes: `Stroke`s in picture pixels, for `pipe.image(strokes=...)`.
      mask: bool (H, W), the region that is marked.
      picture: PIL RGB, without the paint.
      painted: PIL RGB, with the paint.
      errors: exceptions in callbacks, which were said below the canvas.
    """

    def __init__(self, image=None, *, width: int = 512, autosave: str | None = "paint", size=None):
        super().__init__(image, size, width, TOOLS, autosave, strokes=())
        self.size_wanted = size
        self.colour = w.ColorPicker(value="#ffc81e", description="Colour", **row(200))
        longest = max(self.picture.size)
        self.size = slider("Size", longest / 20, 1, max(longest / 4, 2), 0.5)
        self.opacity = slider("Opacity", 1, 0.05, 1, 0.05, ".2f")
        self.upload = w.FileUpload(
            accept="image/*", multiple=False, description="Picture", layout=w.Layout(width="110px")
        )
        self.upload.observe(self.board.guard(self._uploaded), "value")
        self.side = w.VBox(
            [self.colour, self.size, self.opacity, self.upload],
            layout=w.Layout(flex="0 0 auto", margin="0 0 0 12px"),
        )
        middle = w.HBox([self.board.view, self.side])
        self.children = [self.board.offer, self.tool, middle, self.board.bar, self.board.line]
        self.board.redraw()

    # ------------------------------------------------------------------------- what is drawn

    @property
    def strokes(self) -> tuple[Stroke, ...]:
        return self.board.sketch.strokes

    @strokes.setter
    def strokes(self, strokes) -> None:
        self.board.change(strokes=strokes)

    @Canvas.picture.setter
    def picture(self, image) -> None:
        """Another picture under the strokes; they stay where it has the same size.

        Undo brings the old one back. Raises what `to_picture` does; the drawing then stays.
        """
        old = self.board.sketch
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            picture = to_picture(image, self.size_wanted)
        kept = old.strokes if picture.size == old.picture.size else ()
        self.board.change(picture=picture, strokes=kept)
        if told:
            self.board.say(str(told[0].message).capitalize() + ".")
        if len(kept) < len(old.strokes):
            self.board.say("This picture has another size; Undo brings back the strokes.")

    @property
    def painted(self) -> Image.Image:
        return rasterise(self.picture, self.strokes)[0]

    @property
    def mask(self) -> np.ndarray:
        return region_mask(self.strokes, self.picture.size)

    # --------------------------------------------------------------------------------- events

    def _uploaded(self, change) -> None:
        for name, content in uploaded(change["new"]):
            self.picture = picture_from_bytes(name, content)

    def _pen(self, kind: str, point: Point) -> None:
        if kind == "down":
            self._points, self._tool = [], self.tool.value
        if self._tool == "pick":
            if kind == "up":
                self.colour.value = "#{:02x}{:02x}{:02x}".format(
                    *self.painted.getpixel(self._pixel(point))
                )
                self.tool.value = "brush"
            return
        if not self._points or point != self._points[-1]:
            self._points.append(point)
        if kind != "up":
            self._live()
            return
        self.board.view[LIVE].clear()
        look = (self.colour.value, self.size.value, self.opacity.value, self._tool)
        self.board.change(strokes=(*self.strokes, Stroke(self._points, *look)))

    def _live(self) -> None:
        """The stroke under way; region and eraser are seen through."""
        colour = {"mask": MASK_COLOUR, "eraser": "white"}.get(self._tool, self.colour.value)
        alpha = self.opacity.value if self._tool == "brush" else MASK_ALPHA
        with held():
            self.board.view[LIVE].clear()
            self.board.path(LIVE, self._points, colour, self.size.value * self.board.scale, alpha)

    def _draw(self, old: Sketch | None, new: Sketch) -> None:
        added = old is not None and new.strokes[: len(old.strokes)] == old.strokes
        if not added:
            self.board.view[PAINT].clear()
            self.board.view[MASK].clear()
        for stroke in new.strokes[len(old.strokes) if added else 0 :]:
            draw_stroke(self.board, stroke)


def draw_stroke(board: Board, stroke: Stroke) -> None:
    """One stroke as `rasterise` and `region_mask` understand it."""
    width = stroke.width * board.scale
    if stroke.tool == "eraser":
        board.path(PAINT, stroke.points, "white", width, stroke.opacity, erase=True)
    if stroke.tool in ("eraser", "mask"):  # erased first, so that translucent never adds up
        board.path(MASK, stroke.points, "white", width, erase=True)
    if stroke.tool == "mask":
        board.path(MASK, stroke.points, MASK_COLOUR, width, MASK_ALPHA)
    if stroke.tool == "brush":
        board.path(PAINT, stroke.points, stroke.colour, width, stroke.opacity)
