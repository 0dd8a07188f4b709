"""PaintCanvas, strokes on a picture kept as vectors in its pixels; and what both canvases share."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import ipywidgets as w
import numpy as np
from PIL import Image, ImageOps

from ..instructions import Stroke, Strokes
from ..paint import MARKING, rasterise, region_mask
from ..pictures import Picture, check_area, to_picture
from ..support.validate import Name, Point, Side, Size, checked
from .board import KEYS, LIVE, MARKS, MASK, PAINT, Board
from .parts import Line, choice, column, flow, held, row, slider
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

    def keys(self, canvas: Canvas) -> dict[str, Callable[[], None]]:
        """What other keys do, by their names in the page."""
        return {}

    def begin(self, canvas: Canvas, point: Point) -> None:
        """At the press. A ValueError refuses it: then nothing follows."""

    def live(self, canvas: Canvas, points: list[Point]) -> None:
        """Show what is under way on the layer LIVE, which is empty."""

    def end(self, canvas: Canvas, points: list[Point]) -> None:
        """What comes of a press, once it is let go."""


class Brush(Tool):
    """Draws a line as wide as the slider says. Its canvas makes a `stroke` and has it `add`ed."""

    def keys(self, canvas):
        return {"[": partial(canvas.resize, 1 / 1.25), "]": partial(canvas.resize, 1.25)}

    def live(self, canvas, points):
        stroke = canvas.stroke(points, self.ink)
        colour, alpha = stroke.colour, stroke.opacity
        if self.ink != "brush":
            colour = "white" if self.ink == "eraser" else canvas.tint
            alpha = SEEN_THROUGH
        canvas.path(LIVE, points, colour, stroke.width * canvas.magnification, alpha)

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
            canvas.path(LIVE, [*ring, ring[0]], colour, width)

    def end(self, canvas, points):
        canvas.add(canvas.stroke(self.corners(points), self.ink))


class Edit(Tool):
    """Takes what lies under the mouse and moves it; Delete and the arrow keys go on from there.

    Its canvas can `find` what lies at a point (or, for None, what the keys act on where nothing was
    taken); what it then `held`, it can `shift`, `show_shift` and `delete`; `anchor` says where that
    is, if it is a point.
    """

    def keys(self, canvas):
        arrows = {f"Arrow{name}": partial(self.nudge, canvas, *by) for name, by in ARROWS.items()}
        return arrows | {"Delete": canvas.delete, "Backspace": canvas.delete}

    def nudge(self, canvas, x, y):
        if canvas.held is None:
            canvas.held = canvas.find(None)
        if canvas.held is None:
            raise ValueError("first take something with Edit, then move it by the arrow keys")
        canvas.shift(x, y, ("nudge", canvas.held))

    def begin(self, canvas, point):
        canvas.hold(canvas.find(point))

    def live(self, canvas, points):
        if canvas.held is not None:
            canvas.show_shift(*self.pulled(canvas, points))

    def end(self, canvas, points):
        if canvas.held is not None and points[0] != points[-1]:
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


class Canvas(Board):
    """A board with its tools. A subclass says how a sketch is drawn and what `Edit` may take.

    Attributes:
      picture: PIL RGB. tool: the switch of tools. size: the brush's width.
      tint: the colour of a region that is being drawn. held: what `Edit` took, or None.
      column: what belongs together whatever the window: tools, canvas, message, buttons, `below`.
      errors: exceptions in callbacks, which were said below the canvas.
    """

    TOOLS: dict[str, Tool]
    tint = REGION

    def __init__(self, image, size, width: int, label: str, layers, autosave, line, **cleared):
        wide, high = size or (256, 256)
        check_area(wide, high, "size")
        blank = Image.new("RGB", (wide, high), "white")
        picture = blank if image is None else to_picture(image, size)
        self.size_wanted, self.held = size, None
        self._points: list[Point] = []
        if line is None:
            line = Line(min_height="24px")
            line.say(HINT)
        super().__init__(picture, width, label, layers, autosave, line, **cleared)
        tools = {n: (t.label, f"{t.says}: {t.key.upper()}") for n, t in self.TOOLS.items()}
        letters = max(len(tool.label) for tool in self.TOOLS.values())
        self.tool = choice("Tool", tools, 20 + 8 * letters)
        longest = max(picture.size)
        says = "Width of the brush, in pixels of the picture: [ and ]"
        self.size = slider("Size", says, longest / 20, 1, max(longest / 4, 2), 0.5)
        for widget in (self.tool, self.size):
            widget.observe(lambda _: self._cursor(), "value")
        look = {"tooltip": "Load a picture from a file", "layout": w.Layout(width="108px")}
        self.upload = w.FileUpload(accept="image/*", description="Picture", **look)
        self.on(self.upload, self._uploaded)
        self.fit = row(w.Dropdown, "", "How a picture is made to fit", 76, options=["crop", "pad"])
        self.fit.layout.display = "none" if size is None else ""
        self.bar.children += (self.upload, self.fit)
        self.below = w.VBox([])
        self.column, self.row = column(max(width, 360)), flow()
        self.children = [self.offer, self.row]

    def _lay_out(self, above, beside, bar=None) -> None:
        """Widgets above the canvas, and what stands beside it; then all is drawn."""
        below = (self.line, self.bar if bar is None else bar, self.below)
        self.column.children = [self.tool, *above, self.stage, *below]
        self.row.children = [self.column, *beside]
        for name, tool in self.TOOLS.items():
            self.keymap |= tool.keys(self) | {tool.key: partial(setattr, self.tool, "value", name)}
        self.page.takes = [*KEYS, *self.keymap]
        self._cursor()
        self.redraw()

    def resize(self, by: float) -> None:
        size = self.size
        size.value = min(max(size.value * by, size.min), size.max)

    def _cursor(self) -> None:
        ring = self.TOOLS[self.tool.value].ring
        self.page.brush = self.size.value / self.picture.width * ring

    def _pen(self, kind: str, point: Point) -> None:
        if kind == "down":  # a change of tool before it is let go changes nothing
            self._using, self._points = self.TOOLS[self.tool.value], [point]
            if self.held is not None:
                self.hold(None)
            self.show(*self._using.on)
            self._using.begin(self, point)
        elif point != self._points[-1]:
            self._points[1 if self._using.straight else len(self._points) :] = [point]
        with held():
            self.view[LIVE].clear()
            if kind != "up":
                self._using.live(self, self._points)
        if kind == "up":
            self._using.end(self, self._points)

    def hold(self, found) -> None:
        """Take what was found, or let go of what was held."""
        self.held = found
        self.redraw(self.sketch)

    # ------------------------------------------------------------------------------ the picture

    @property
    def picture(self) -> Image.Image:
        return self.sketch.picture

    @picture.setter
    def picture(self, image) -> None:
        """Another picture, with nothing on it. Undo brings back the old one and what was on it.

        Raises what `to_picture` does; the drawing then stays.
        """
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            picture = to_picture(image, self.size_wanted)
        self.change(picture=picture, **self.cleared)
        self.size.max = max(max(picture.size) / 4, 2)
        says = [str(warning.message).capitalize() + "." for warning in told[:1]]
        says.append("Undo brings back the old picture and what was on it.")
        self.line.say(" ".join(says))

    def _uploaded(self, files) -> None:
        for name, content in uploaded(files):
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
        return rasterise(self.picture, self.sketch.strokes)[0]

    def save(self, path: str | os.PathLike) -> None:
        """Write all that is on the canvas as JSON."""
        self.sketch.save(path)

    def load(self, path: str | os.PathLike) -> None:
        """Read what `save` wrote. ValueError where the file is damaged; what is here then stays."""
        self.commit(Sketch.load(path))


class PaintCanvas(Canvas):
    """Paint on a picture with the mouse.

    Tools: brush, eraser (of paint and of region), region, lasso and box (mark where a picture may
    change; drawn translucent), a picker that takes a colour from the picture, and edit, which moves
    a stroke or a region. Everything can be undone, Clear included, also by Ctrl+Z and Ctrl+Y over
    the canvas. A picture is loaded by its button, or dropped or pasted onto the canvas. Ctrl and
    the wheel, or + and -, bring it nearer.

    Args:
      image: anything `ivkit.to_picture` takes; None is a white square of 256 pixels.
      strokes: what is painted on it to begin with; it is not kept before something is changed.
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
        strokes: Strokes = (),
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
        super().__init__(image, size, width, label, layers, autosave, line, strokes=())
        self.history.map(lambda sketch: dataclasses.replace(sketch, strokes=strokes))
        self.colour = colour_of_brush()
        self.opacity = slider("Opacity", "How much the paint covers", 1, 0.05, 1, 0.05)
        self._lay_out([flow(self.colour, self.size, self.opacity)], [])

    @property
    def strokes(self) -> tuple[Stroke, ...]:
        return self.sketch.strokes

    @strokes.setter
    def strokes(self, strokes) -> None:
        self.change(strokes=strokes)

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

    def find(self, point: Point | None) -> int | None:
        """The uppermost stroke there; a thin one is found from beside it."""
        if point is None:
            return None
        x, y = self.pixel(point)
        for n, stroke in reversed(list(enumerate(self.strokes))):
            tool = stroke.tool if stroke.tool == "lasso" else "mask"
            width = max(stroke.width, 12 / self.magnification)
            there = dataclasses.replace(stroke, tool=tool, width=width)
            if stroke.tool != "eraser" and region_mask([there], self.picture.size)[y, x]:
                return n
        return None

    def anchor(self) -> None:
        """A stroke is no point."""

    def shift(self, x: float, y: float, key=None) -> None:
        """Move the stroke. `key` joins several moves into one step of Undo."""
        strokes = list(self.strokes)
        strokes[self.held] = dataclasses.replace(strokes[self.held], points=self._shifted(x, y))
        self.change(key, strokes=strokes)

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
        added = old is not None and new.strokes[: len(old.strokes)] == old.strokes
        if not added:
            self.view[PAINT].clear()
        for stroke in new.strokes[len(old.strokes) if added else 0 :]:
            if stroke.tool not in MARKING:
                erase, width = stroke.tool == "eraser", stroke.width * self.magnification
                colour = "white" if erase else stroke.colour
                self.path(PAINT, stroke.points, colour, width, stroke.opacity, erase)

    def _draw_region(self, old: Sketch | None, new: Sketch) -> None:
        if old is None or marks(old) != marks(new):
            self.regions([(self.mask, REGION)])

    def _draw_held(self, old: Sketch | None, new: Sketch) -> None:
        self.view[MARKS].clear()
        if self.held is not None and self.held < len(new.strokes):
            stroke = new.strokes[self.held]
            self._line(MARKS, stroke.points, stroke.tool)
        else:
            self.held = None  # it went with an undo

    def _line(self, layer: int, points, tool: str) -> None:
        """The middle of a stroke, or the outline of a lasso."""
        closed = [*points, points[0]] if tool == "lasso" else points
        for colour, width in (("white", 5), ("#111111", 2)):
            self.path(layer, closed, colour, width)


def marks(sketch: Sketch) -> list[Stroke]:
    """The strokes that a region comes from."""
    return [stroke for stroke in sketch.strokes if stroke.tool != "brush"]


def colour_of_brush() -> w.ColorPicker:
    look = {"value": "#ffc81e", "concise": True}
    return row(w.ColorPicker, "Colour", "Colour of the brush", 112, **look)


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
