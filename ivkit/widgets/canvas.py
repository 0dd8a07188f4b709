"""PaintCanvas, strokes on a picture kept as vectors in its pixels; and what both canvases share."""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from dataclasses import dataclass

import ipywidgets as w
import numpy as np
from PIL import Image, ImageOps

from ..instructions import Stroke
from ..paint import MARKING, rasterise, region_mask
from ..pictures import Picture, check_area, to_picture
from ..support.validate import Name, Point, Side, Size, checked
from .board import (
    LIVE,
    MARKS,
    MASK,
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

REGION, SEEN_THROUGH = "#e5006d", 0.45  # a region's colour; how region and eraser look under way
HINT = "Ctrl and the wheel, or + and −, bring the picture nearer; with the space bar it moves."
ARROWS = {"Left": (-1, 0), "Right": (1, 0), "Up": (0, -1), "Down": (0, 1)}


@dataclass(frozen=True)
class Tool:
    """What the pen does. A new tool is a subclass, and one entry among the TOOLS of its canvas.

    label, key, says: what its button says, the key that chooses it, what it is for.
    on: the layers that it draws on; where they were hidden they are shown again.
    ring: whether a ring as wide as the brush goes along with the mouse.
    straight: whether of the points of a pull only the first and the last count.
    ink: the tool of the `Stroke` that it leaves.
    """

    label: str
    key: str
    says: str
    on: tuple[int, ...] = (MASK,)
    ring: bool = False
    straight: bool = False
    ink: str = "lasso"

    def begin(self, canvas: Canvas, point: Point) -> None:
        """At the press. A ValueError refuses it: then nothing follows."""

    def live(self, canvas: Canvas, points: list[Point]) -> None:
        """Show what is under way on the layer LIVE, which is empty."""

    def end(self, canvas: Canvas, points: list[Point]) -> None:
        """What comes of a press, once it is let go."""


class Brush(Tool):
    """Draws a line as wide as the slider says."""

    def live(self, canvas, points):
        stroke = canvas.stroke(points, self.ink)
        colour, alpha = stroke.colour, stroke.opacity
        if self.ink != "brush":
            colour = "white" if self.ink == "eraser" else canvas.tint
            alpha = SEEN_THROUGH
        canvas.board.path(LIVE, points, colour, stroke.width * canvas.board.scale, alpha)

    def end(self, canvas, points):
        canvas.add(canvas.stroke(points, self.ink))


class Outline(Tool):
    """Draws round a region: by hand, or straight as a box from corner to corner."""

    def corners(self, points) -> list[Point]:
        if not self.straight:
            return points
        (left, top), (right, bottom) = points[0], points[-1]
        return [(left, top), (right, top), (right, bottom), (left, bottom)]

    def live(self, canvas, points):
        ring = self.corners(points)
        for colour, width in (("white", 5), (canvas.tint, 2)):
            canvas.board.path(LIVE, [*ring, ring[0]], colour, width)

    def end(self, canvas, points):
        canvas.add(canvas.stroke(self.corners(points), self.ink))


class Edit(Tool):
    """Takes what lies under the mouse and moves it; Delete and the arrow keys go on from there."""

    def begin(self, canvas, point):
        canvas.hold(canvas.find(point))

    def live(self, canvas, points):
        if canvas.held is not None:
            canvas.show_shift(*self.pulled(canvas, points))

    def end(self, canvas, points):
        if canvas.held is not None and len(points) > 1:
            canvas.shift(*self.pulled(canvas, points))

    def pulled(self, canvas, points) -> Point:
        """How far the mouse took what is held: a point goes to it, all else goes along."""
        (x, y), (from_x, from_y) = points[-1], canvas.anchor() or points[0]
        return x - from_x, y - from_y


class Pick(Tool):
    """Takes a colour from what is seen."""

    def end(self, canvas, points):
        pixel = canvas.painted.getpixel(canvas.pixel(points[-1]))
        canvas.colour.value = "#{:02x}{:02x}{:02x}".format(*pixel)
        canvas.tool.value = "brush"


class Canvas(Panel):
    """A board with its tools. A subclass says how a sketch is drawn and what `Edit` may take.

    Attributes:
      picture: PIL RGB. tool: the switch of tools. board: see `Board`.
      size: the brush's width. tint: the colour of a region that is being drawn.
      held: what `Edit` took, or None.
      column: what belongs together whatever the window: tools, canvas, message, buttons, `below`.
      errors: exceptions in callbacks, which were said below the canvas.
    """

    TOOLS: dict[str, Tool]
    tint = REGION

    def __init__(self, image, size, width: int, label: str, autosave, line, layers, **cleared):
        wide, high = size or (256, 256)
        check_area(wide, high, "size")
        blank = Image.new("RGB", (wide, high), "white")
        picture = blank if image is None else to_picture(image, size)
        self.size_wanted, self.held = size, None
        self._points: list[Point] = []
        if line is None:
            line = Line(min_height="24px")
            line.say(HINT)
        self.board = Board(picture, width, layers, self._pen, cleared, autosave, line, label)
        self.errors, guard = line.errors, line.guard
        says = [f"{tool.says}: {tool.key.upper()}" for tool in self.TOOLS.values()]
        options = [(tool.label, name) for name, tool in self.TOOLS.items()]
        letters = max(len(label) for label, _ in options)
        look = {"style": {"button_width": f"{20 + 8 * letters}px"}, TIP: "Tool"}
        self.tool = w.ToggleButtons(options=options, tooltips=says, **look)
        longest = max(picture.size)
        says = "Width of the brush, in pixels of the picture: [ and ]"
        self.size = slider("Size", says, longest / 20, 1, max(longest / 4, 2), 0.5)
        for widget in (self.tool, self.size):
            widget.observe(lambda _: self._cursor(), "value")
        look = {"tooltip": "Load a picture from a file", "layout": w.Layout(width="108px")}
        self.upload = w.FileUpload(accept="image/*", description="Picture", **look)
        self.upload.observe(guard(self._uploaded), "value")
        self.fit = w.Dropdown(options=["crop", "pad"], **row("How a picture is made to fit", 76))
        self.fit.layout.display = "none" if size is None else ""
        self.board.dropped = self.load_picture
        self.below = w.VBox([])
        self.column = column(max(width, 360))
        self.row = flow(self.column)
        super().__init__([self.board.offer, self.row])

    def _lay_out(self, above, beside) -> None:
        """Widgets above the canvas, and what stands beside it; then all is drawn."""
        board = self.board
        board.bar.children += (self.upload, self.fit)
        self.column.children = [self.tool, *above, board.stage, board.line, board.bar, self.below]
        self.row.children = [self.column, *beside]
        keys = {
            tool.key: functools.partial(setattr, self.tool, "value", name)
            for name, tool in self.TOOLS.items()
        }
        keys |= {"[": lambda: self._resize(1 / 1.25), "]": lambda: self._resize(1.25)}
        keys |= {"Delete": self.delete, "Backspace": self.delete}
        for name, (x, y) in ARROWS.items():
            keys[f"Arrow{name}"] = functools.partial(self._nudge, x, y)
        board.take_keys(keys)
        self._cursor()
        board.listeners.append(board.line.guard(self.leave_still))
        board.redraw()

    def _resize(self, by: float) -> None:
        size = self.size
        size.value = min(max(size.value * by, size.min), size.max)

    def _cursor(self) -> None:
        ring = self.TOOLS[self.tool.value].ring
        self.board.page.brush = self.size.value / self.picture.width * ring

    def _pen(self, kind: str, point: Point) -> None:
        if kind == "down":  # a change of tool before it is let go changes nothing
            self._using, self._points = self.TOOLS[self.tool.value], [point]
            self.hold(None)
            self.board.show(*self._using.on)
            self._using.begin(self, point)
        elif point != self._points[-1]:
            self._points[1 if self._using.straight else len(self._points) :] = [point]
        with held():
            self.board.view[LIVE].clear()
            if kind != "up":
                self._using.live(self, self._points)
        if kind == "up":
            self._using.end(self, self._points)

    # -------------------------------------------------------------------------- what Edit takes

    def find(self, point: Point):
        """What lies under a point, as `held` knows it, or None."""
        raise NotImplementedError

    def hold(self, found) -> None:
        self.held = found
        self.board.redraw(self.board.sketch)

    def anchor(self) -> Point | None:
        """Where what is held lies, if it is a point."""

    def shift(self, x: float, y: float, key=None) -> None:
        """Move what is held so far. `key` joins several moves into one step of Undo."""
        raise NotImplementedError

    def show_shift(self, x: float, y: float) -> None:
        """Show on the layer LIVE where `shift` would move it."""
        raise NotImplementedError

    def delete(self) -> None:
        """Take away what is held."""
        raise NotImplementedError

    def _nudge(self, x: int, y: int) -> None:
        """What is held, by one pixel of the picture."""
        if self.held is None:
            raise ValueError("first take something with Edit, then move it by the arrow keys")
        self.shift(x, y, ("nudge", self.held))

    # ------------------------------------------------------------------------------ the picture

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
        self.size.max = max(max(picture.size) / 4, 2)
        says = [str(warning.message).capitalize() + "." for warning in told[:1]]
        says.append("Undo brings back the old picture and what was on it.")
        self.board.line.say(" ".join(says))

    def _uploaded(self, change) -> None:
        for name, content in uploaded(change["new"]):
            self.load_picture(name, content)

    def load_picture(self, name: str, content: bytes) -> None:
        """A file that was chosen, dropped or pasted; ValueError where it is no picture."""
        picture = picture_from_bytes(name, content)
        if self.fit.value == "pad" and self.size_wanted:
            picture = ImageOps.pad(picture, self.size_wanted, color="white")
        self.picture = picture

    def pixel(self, point: Point) -> tuple[int, int]:
        """(x, y) of the picture's pixel at a point, or the nearest one."""
        x, y = (round(min(max(v, 0), n - 1)) for v, n in zip(point, self.picture.size, strict=True))
        return x, y

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


class PaintCanvas(Canvas):
    """Paint on a picture with the mouse.

    Tools: brush, eraser (of paint and of region), region, lasso and box (mark where a picture may
    change; drawn translucent), a picker that takes a colour from the picture, and edit, which moves
    a stroke or a region. Everything can be undone, Clear included, also by Ctrl+Z and Ctrl+Y over
    the canvas. A picture is loaded by its button, or dropped or pasted onto the canvas. Ctrl and
    the wheel, or + and -, bring it nearer.

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
        "brush": Brush("Brush", "b", "Paint", (PAINT,), ring=True, ink="brush"),
        "eraser": Brush(
            "Eraser", "e", "Take paint and region away", (PAINT, MASK), ring=True, ink="eraser"
        ),
        "mask": Brush("Region", "r", "Mark where the picture may change", ring=True, ink="mask"),
        "lasso": Outline("Lasso", "l", "Draw round where the picture may change"),
        "box": Outline("Box", "x", "Pull a box over where the picture may change", straight=True),
        "pick": Pick("Pick", "p", "Take a colour from the picture", ()),
        "edit": Edit("Edit", "v", "Move a stroke or a region; Delete takes it away", (PAINT, MASK)),
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
        layers = {
            PAINT: ("Paint", self._draw_paint),
            MASK: ("Region", self._draw_region),
            MARKS: ("", self._draw_held),
        }
        label = "A picture to paint on"
        super().__init__(image, size, width, label, autosave, line, layers, strokes=())
        look = row("Colour of the brush", 112)
        self.colour = w.ColorPicker(value="#ffc81e", concise=True, description="Colour", **look)
        self.opacity = slider("Opacity", "How much the paint covers", 1, 0.05, 1, 0.05)
        self._lay_out([flow(self.colour, self.size, self.opacity)], [])

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

    # -------------------------------------------------------------------------------- the tools

    def stroke(self, points, tool: str) -> Stroke:
        """A stroke with what the panel says."""
        return Stroke(points, self.colour.value, self.size.value, self.opacity.value, tool)

    def add(self, stroke: Stroke) -> None:
        self.strokes = (*self.strokes, stroke)

    def find(self, point: Point) -> int | None:
        """The uppermost stroke there; a thin one is found from beside it."""
        x, y = self.pixel(point)
        for n, stroke in reversed(list(enumerate(self.strokes))):
            tool = stroke.tool if stroke.tool == "lasso" else "mask"
            width = max(stroke.width, 12 / self.board.scale)
            there = dataclasses.replace(stroke, tool=tool, width=width)
            if stroke.tool != "eraser" and region_mask([there], self.picture.size)[y, x]:
                return n
        return None

    def shift(self, x: float, y: float, key=None) -> None:
        strokes = list(self.strokes)
        strokes[self.held] = dataclasses.replace(strokes[self.held], points=self._shifted(x, y))
        self.board.change(key, strokes=strokes)

    def _shifted(self, x: float, y: float) -> list[Point]:
        return [(px + x, py + y) for px, py in self.strokes[self.held].points]

    def show_shift(self, x: float, y: float) -> None:
        self._line(LIVE, self._shifted(x, y), self.strokes[self.held].tool)

    def delete(self) -> None:
        if self.held is None:
            raise ValueError("first take a stroke with Edit: Delete takes it away")
        at, self.held = self.held, None
        self.strokes = (*self.strokes[:at], *self.strokes[at + 1 :])

    # ------------------------------------------------------------------------- what is drawn

    def _draw_paint(self, old: Sketch | None, new: Sketch) -> None:
        """Strokes as `rasterise` understands them."""
        board = self.board
        added = old is not None and new.strokes[: len(old.strokes)] == old.strokes
        if not added:
            board.view[PAINT].clear()
        for stroke in new.strokes[len(old.strokes) if added else 0 :]:
            if stroke.tool not in MARKING:
                erase, width = stroke.tool == "eraser", stroke.width * board.scale
                colour = "white" if erase else stroke.colour
                board.path(PAINT, stroke.points, colour, width, stroke.opacity, erase)

    def _draw_region(self, old: Sketch | None, new: Sketch) -> None:
        if old is None or marks(old) != marks(new):
            self.board.regions([(self.mask, REGION)])

    def _draw_held(self, old: Sketch | None, new: Sketch) -> None:
        self.board.view[MARKS].clear()
        if self.held is not None and self.held < len(new.strokes):
            stroke = new.strokes[self.held]
            self._line(MARKS, stroke.points, stroke.tool)
        else:
            self.held = None  # it went with an undo

    def _line(self, layer: int, points, tool: str) -> None:
        """The middle of a stroke, or the outline of a lasso."""
        closed = [*points, points[0]] if tool == "lasso" else points
        for colour, width in (("white", 5), ("#111111", 2)):
            self.board.path(layer, closed, colour, width)


def marks(sketch: Sketch) -> list[Stroke]:
    """The strokes that a region comes from."""
    return [stroke for stroke in sketch.strokes if stroke.tool != "brush"]
