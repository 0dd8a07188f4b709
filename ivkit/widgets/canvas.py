"""PaintCanvas, strokes on a picture kept as vectors in its pixels; and what both canvases share."""

from __future__ import annotations

import functools
import os
import warnings

import ipywidgets as w
import numpy as np
from PIL import Image, ImageOps

from ..instructions import Stroke
from ..paint import rasterise, region_mask
from ..pictures import Picture, check_area, to_picture
from ..support.validate import Name, Point, Side, Size, checked
from .board import (
    LIVE,
    PAINT,
    TIP,
    Board,
    Line,
    column,
    flow,
    held,
    picture_from_bytes,
    row,
    slider,
    uploaded,
)
from .panel import Panel
from .session import Sketch

MASK_COLOUR, MASK_ALPHA = "#e5006d", 0.4  # of the stroke under way


class Canvas(Panel):
    """A board with its tools; what the pen does and how a sketch is drawn is the subclass's.

    Attributes:
      picture: PIL RGB. tool: the switch of tools. board: see `Board`.
      column: what belongs together whatever the window: tools, canvas, message, buttons, `below`.
      errors: exceptions in callbacks, which were said below the canvas.
    """

    TOOLS: dict[tuple[str, str], tuple[str, str]]  # (what the button says, value): (key, what for)

    def __init__(self, image, size, width: int, label: str, autosave, line, **cleared):
        wide, high = size or (256, 256)
        check_area(wide, high, "size")
        blank = Image.new("RGB", (wide, high), "white")
        picture = blank if image is None else to_picture(image, size)
        self.size_wanted = size
        self._points: list[Point] = []
        self._tool = ""  # of the press: a change of tool in between changes nothing
        line = Line(min_height="24px") if line is None else line
        self.board = Board(picture, width, self._draw, self._pen, cleared, autosave, line, label)
        self.errors = self.board.errors
        says = [f"{does}: {key.upper()}" for key, does in self.TOOLS.values()]
        style = {"button_width": "84px"}
        self.tool = w.ToggleButtons(
            options=list(self.TOOLS), tooltips=says, style=style, **{TIP: "Tool"}
        )
        self.tool.observe(lambda _: self._cursor(), "value")
        self.below = w.VBox([])
        self.column = column(max(width, 360))
        self.row = flow(self.column)
        super().__init__([self.board.offer, self.row])

    def _lay_out(self, above, buttons, beside) -> None:
        """Widgets above the canvas, more buttons below it, and what stands beside it."""
        board = self.board
        board.bar.children += tuple(buttons)
        self.column.children = [self.tool, *above, board.stage, board.line, board.bar, self.below]
        self.row.children = [self.column, *beside]
        choose = functools.partial(functools.partial, setattr, self.tool, "value")
        keys = {key: choose(value) for (_, value), (key, _) in self.TOOLS.items()}
        board.take_keys(
            keys | {"[": lambda: self._resize(1 / 1.25), "]": lambda: self._resize(1.25)}
        )
        self.size.observe(lambda _: self._cursor(), "value")
        self._cursor()
        board.listeners.append(board.guard(self.leave_still))

    def _resize(self, by: float) -> None:
        size = self.size
        size.value = min(max(size.value * by, size.min), size.max)

    def _cursor(self) -> None:
        """A ring as wide as the brush goes along with the mouse, where the tool is a brush."""
        brush = self.tool.value in ("brush", "eraser", "mask", "add", "cut")
        self.board.page.brush = self.size.value / self.picture.width * brush

    @property
    def picture(self) -> Image.Image:
        return self.board.sketch.picture

    @picture.setter
    def picture(self, image) -> None:
        """Another picture, with nothing on it. Undo brings back the old one and what was on it.

        Raises what `to_picture` does; the drawing then stays.
        """
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            picture = to_picture(image, self.size_wanted)
        self.board.change(picture=picture, **self.board.cleared)
        says = [str(warning.message).capitalize() + "." for warning in told[:1]]
        says.append("Undo brings back the old picture and what was on it.")
        self.board.say(" ".join(says))

    def still(self) -> Image.Image:
        return rasterise(self.picture, self.board.sketch.strokes)[0]

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
    included, also by Ctrl+Z and Ctrl+Y over the canvas. A picture is loaded by its button,
    or dropped or pasted onto the canvas. Ctrl and the wheel, or + and -, bring it nearer.

    Args:
      image: anything `ivkit.to_picture` takes; None is a white square of 256 pixels.
      width: how wide it is shown, in screen pixels.
      autosave: name under outputs/autosave/ that the drawing is kept in; None keeps nothing.
      size: (W, H) that every picture is cropped and resized to; None takes each as it is.
      line: a `Line` to say messages on; None makes one below the canvas.

    Attributes:
      strokes: `Stroke`s in picture pixels, for `pipe.image(strokes=...)`.
      mask: bool (H, W), the region that is marked.
      picture: PIL RGB, without the paint.
      painted: PIL RGB, with the paint.
      errors: exceptions in callbacks, which were said below the canvas.
    """

    TOOLS = {
        ("Brush", "brush"): ("b", "Paint"),
        ("Eraser", "eraser"): ("e", "Take paint and region away"),
        ("Region", "mask"): ("r", "Mark where the picture may change"),
        ("Pick", "pick"): ("p", "Take a colour from the picture"),
    }

    @checked
    def __init__(
        self,
        image: Picture | None = None,
        *,
        width: Side = 512,
        autosave: Name | None = "paint",
        size: Size | None = None,
        line: Line | None = None,
    ):
        super().__init__(image, size, width, "A picture to paint on", autosave, line, strokes=())
        longest = max(self.picture.size)
        self.colour = w.ColorPicker(
            value="#ffc81e", concise=True, description="Colour", **row("Colour of the brush", 112)
        )
        says = "Width of the brush, in pixels of the picture: [ and ]"
        self.size = slider("Size", says, longest / 20, 1, max(longest / 4, 2), 0.5)
        self.opacity = slider("Opacity", "How much the paint covers", 1, 0.05, 1, 0.05)
        self.upload = w.FileUpload(
            accept="image/*",
            description="Picture",
            tooltip="Load a picture from a file",
            layout=w.Layout(width="100px"),
        )
        self.upload.observe(self.board.guard(self._uploaded), "value")
        self.fit = w.Dropdown(
            options=["crop", "pad"],
            description="Fit",
            **row("How a picture is made to fit", 112, 30),
        )
        self.fit.layout.display = "none" if size is None else ""
        self.board.dropped = self._load
        self._lay_out([flow(self.colour, self.size, self.opacity)], [self.upload, self.fit], [])
        self.board.redraw()

    # ------------------------------------------------------------------------- what is drawn

    @property
    def strokes(self) -> tuple[Stroke, ...]:
        return self.board.sketch.strokes

    @strokes.setter
    def strokes(self, strokes) -> None:
        self.board.change(strokes=strokes)

    @property
    def painted(self) -> Image.Image:
        return rasterise(self.picture, self.strokes)[0]

    @property
    def mask(self) -> np.ndarray:
        return region_mask(self.strokes, self.picture.size)

    # --------------------------------------------------------------------------------- events

    def _uploaded(self, change) -> None:
        for name, content in uploaded(change["new"]):
            self._load(name, content)

    def _load(self, name: str, content: bytes) -> None:
        """A file that was chosen, dropped or pasted."""
        picture = picture_from_bytes(name, content)
        if self.fit.value == "pad" and self.size_wanted:
            picture = ImageOps.pad(picture, self.size_wanted, color="white")
        self.picture = picture

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
        strokes = new.strokes[len(old.strokes) if added else 0 :]
        for stroke in strokes:
            self._paint(stroke)
        if not added or any(stroke.tool in ("eraser", "mask") for stroke in strokes):
            mask = region_mask(new.strokes, new.picture.size)
            self.board.regions([(mask, MASK_COLOUR)])

    def _paint(self, stroke: Stroke) -> None:
        """One stroke as `rasterise` understands it."""
        if stroke.tool != "mask":
            colour = stroke.colour if stroke.tool == "brush" else "white"
            self.board.path(PAINT, stroke.points, colour, stroke.width * self.board.scale,
                            stroke.opacity, erase=stroke.tool == "eraser")  # fmt: skip
