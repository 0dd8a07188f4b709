"""Write the chapters with their outputs into media/rendered/, small enough for the repository.

    python -m tests.bench rendered          # every chapter
    python -m tests.bench rendered 05 06    # these chapters; the others stay as they are

Each chapter is run in a fresh kernel. Pictures become JPEG, clips become small GIFs or a row of
frames, and what needs a kernel to be seen is left out. One picture of each chapter goes into
media/chapters/, and README's table shows it as the link to the copy.
"""

import io
import os
import re
import sys
import tempfile
from base64 import b64decode, b64encode
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from ivkit.support import commands
from ivkit.support.disk import write_text
from tests.bench.record import MEDIA

ROOT = MEDIA.parent
RENDERED, FACES = MEDIA / "rendered", MEDIA / "chapters"
SECONDS_A_CELL = 1800  # slow machines have their time
AIM, LIMIT = 205_000, 250_000  # bytes of a chapter: what is tried for, and the most
TOTAL, FACE = 3_000_000, 12_000  # bytes of all chapters, and of a small picture, at most
LONGEST = 3000  # characters of one text
WIDGET = "application/vnd.jupyter.widget-view+json"
LABEL = 16  # pixels of a title

#: the cell whose picture stands for the chapter; else the first clip, else the largest picture
CHOSEN = {
    "00_quickstart": "cell-13",
    "02_make_a_picture": "cell-59",
    "03_paint": "cell-40",
    "04_make_it_move": "cell-29",
    "05_drag": "cell-16",
    "06_lambda": "cell-14",
    "07_align": "cell-29",
    "08_studio": "cell-08",
    "10_make_it_yours": "cell-23",
    "13_from_noise": "cell-30",
}


#: what outputs may take, tried in turn: bytes of a still, bytes of a clip that moves, how many move
LEVELS = (
    *((30_000, 60_000, 3), (24_000, 50_000, 2), (20_000, 40_000, 1), (16_000, 40_000, 1)),
    *((12_000, 35_000, 1), (9_000, 30_000, 1), (8_000, 0, 0), (6_000, 0, 0)),
)
#: (width in pixels, JPEG's quality) of a still; (width of each clip, colours) of a GIF
STILLS = ((640, 75), (640, 65), (600, 60), (540, 55), (480, 50), (420, 45), (360, 40), (320, 35))
GIFS = ((170, 128), (170, 64), (150, 64), (128, 64), (112, 64), (96, 64))


def add_arguments(parser) -> None:
    parser.add_argument("chapters", nargs="*", metavar="NN", help="default: all of notebooks/")
    parser.add_argument(
        "--from",
        dest="runs",
        type=Path,
        help="chapters with outputs, by `notebooks --save`, not to be run again",
    )


def main(args) -> None:
    from ivkit.course.classroom import NOTEBOOKS, execute, read

    sources = {path.stem: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    asked = [name for name in sources if name.startswith(tuple(args.chapters or [""]))]
    if unknown := [c for c in args.chapters if not any(n.startswith(c) for n in asked)]:
        sys.exit(
            f"there is no chapter {unknown[0]!r}: give the first digits of a name in notebooks/"
        )
    os.environ["PYTHONHASHSEED"] = "0"
    for name in asked:
        book = read(sources[name] if args.runs is None else args.runs / f"{name}.ipynb")
        if args.runs is None:
            execute(book, name, NOTEBOOKS, seconds=SECONDS_A_CELL)
        write(name, read(sources[name]), book)
    for path in (*RENDERED.glob("*.ipynb"), *FACES.glob("*.jpg")):
        if not any(name.startswith(path.stem) for name in sources):
            path.unlink()  # of a chapter that has another name now
    if (total := sum(path.stat().st_size for path in RENDERED.glob("*.ipynb"))) > TOTAL:
        sys.exit(f"the rendered chapters take {total} bytes together, and {TOTAL} are allowed")


def write(name: str, source, run) -> None:
    """A chapter's copy, its picture and its row in README.

    Raises commands.Failed where the copy stays too large.
    """
    text = fitted(source, run, CHOSEN.get(name))
    if len(text.encode()) > LIMIT:
        raise commands.Failed(f"{name} takes {len(text.encode())} bytes, and {LIMIT} are allowed")
    RENDERED.mkdir(exist_ok=True)
    FACES.mkdir(exist_ok=True)
    write_text(RENDERED / f"{name}.ipynb", text)
    (FACES / f"{name[:2]}.jpg").write_bytes(face(run, CHOSEN.get(name)))
    readme = ROOT / "README.md"
    write_text(readme, linked(readme.read_text(encoding="utf-8"), name))
    print(f"{name}: {len(text.encode())} bytes", flush=True)


def linked(readme: str, name: str) -> str:
    """README with the chapter's picture as the link to its copy."""
    row = re.compile(rf"^(\| \[{name}\]\([^)]*\) \|[^|]*\|)[^|]*\|$", re.MULTILINE)
    picture = f"![{name} with its outputs](media/chapters/{name[:2]}.jpg)"
    return row.sub(rf"\1 [{picture}](media/rendered/{name}.ipynb) |", readme)


def fitted(source, run, chosen: str | None = None) -> str:
    """The copy as JSON at the first level at which it is small enough, or else at the last.

    Raises commands.Failed where the run is not of this source.
    """
    import nbformat

    ran = {cell.id: cell.source for cell in codes(run)}
    if any(ran.get(cell.id) != cell.source for cell in codes(source)):
        raise commands.Failed("the chapter has changed since it was run: run it again")
    shown = {cell.id: [part for o in cell.outputs if (part := seen(o))] for cell in codes(run)}
    clips = [(key != chosen, part) for key, parts in shown.items() for part in parts if moves(part)]
    clips = [part for _, part in sorted(clips, key=lambda clip: clip[0])]
    for still, moving, count in LEVELS:
        sizes = {id(part): moving for part in clips[:count]}
        text = nbformat.writes(copied(source, shown, still, sizes)) + "\n"
        if len(text.encode()) <= AIM:
            break
    return text


def codes(book) -> list:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def moves(part) -> bool:
    return isinstance(part, Tiles) and part.moves


def copied(source, shown: dict, still: int, moving: dict):
    """The source with outputs.

    Args:
        shown: {cell's id: [Tiles, or an output that stays as it is]}.
        still: bytes of a picture. moving: {id of Tiles: bytes of its GIF}.
    """
    from nbformat import NotebookNode

    book = deepcopy(source)
    for count, cell in enumerate(codes(book), 1):
        cell.execution_count = count
        cell.outputs = []
        for part in shown[cell.id]:
            if isinstance(part, Tiles):
                most = moving.get(id(part))
                part = part.still(still) if most is None else part.animated(most)
            if part["output_type"] == "execute_result":
                part = part | {"execution_count": count}
            cell.outputs.append(NotebookNode(part))
    return book


def seen(output):
    """What is kept of an output: Tiles, an output of text, or None."""
    data = output.get("data", {})
    if output.output_type == "error":
        return output
    if output.output_type == "stream":
        return output | {"text": cut(output.text)} if output.name == "stdout" else None
    if WIDGET in data:
        return None
    if picture := data.get("image/png") or data.get("image/jpeg"):
        return Tiles([[Tile("", [opened(b64decode(picture))])]])
    if tiles := Tiles.read(data.get("text/html", "")):
        return tiles
    texts = {kind: cut(text) for kind, text in data.items() if kind.startswith("text/")}
    return output | {"data": texts, "metadata": {}}


def cut(text: str) -> str:
    """A text without this machine's folders, and no longer than `LONGEST`."""
    text = text.replace(f"{ROOT}/", "").replace(str(Path.home()), "~")
    text = re.sub(re.escape(tempfile.gettempdir()) + r"/\w+/", "", text)
    return text if len(text) <= LONGEST else text[:LONGEST] + "\n... (cut here)\n"


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


@dataclass
class Tile:
    """A picture or a clip with its title."""

    title: str
    frames: list[Image.Image]

    def at(self, i: int) -> Image.Image:
        """A frame; a shorter clip waits at its end."""
        return self.frames[min(i, len(self.frames) - 1)]


class Tiles(HTMLParser):
    """Pictures and clips in rows, as mediapy shows them."""

    def __init__(self, rows):
        super().__init__()
        self.rows, self.title, self.fps = rows, "", 8.0

    @classmethod
    def read(cls, html: str) -> "Tiles | None":
        """The pictures and clips that a piece of HTML holds as data; None if there are none."""
        tiles = cls([[]])
        tiles.feed(html)
        tiles.rows = [row for row in tiles.rows if row]
        return tiles if tiles.rows else None

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "tr":
            self.rows.append([])
        kind, _, data = attrs.get("src", "").partition(";base64,")
        if kind.startswith("data:"):
            frames = self.clip(b64decode(data)) if "video" in kind else [opened(b64decode(data))]
            wide, high = int(attrs.get("width", 0)), int(attrs.get("height", 0))
            if wide and high:  # a map of few pixels is shown large
                frames = [f.resize((wide, high), Image.Resampling.NEAREST) for f in frames]
            self.rows[-1].append(Tile(self.title.strip(), frames))
            self.title = ""

    def handle_data(self, data):
        self.title += data if "does not support" not in data else ""

    def clip(self, data: bytes) -> list[Image.Image]:
        from ivkit.support.encode import mediapy

        video = mediapy().decompress_video(data)
        self.fps = video.metadata.fps
        return [Image.fromarray(frame) for frame in video]

    @property
    def moves(self) -> bool:
        return any(len(tile.frames) > 1 for row in self.rows for tile in row)

    def sheet(self, rows, width: int) -> Image.Image:
        """Rows of (title, picture) on one picture at most so wide."""
        from ivkit.view import _write

        label = LABEL * any(title for row in rows for title, _ in row)
        wide = max(sum(picture.width + 2 for _, picture in row) - 2 for row in rows)
        part = min(1.0, width / wide)
        parts, top = [], 0
        for row in rows:
            left = 0
            for title, picture in row:
                size = (max(int(picture.width * part), 1), max(int(picture.height * part), 1))
                parts.append((title, picture.resize(size, Image.Resampling.LANCZOS), left, top))
                left += size[0] + 2
            top = max(t + p.height for _, p, _, t in parts) + label + 2
        right = max(left + picture.width for _, picture, left, _ in parts)
        sheet = Image.new("RGB", (right, top - 2), "white")
        for title, picture, left, top in parts:
            if title:  # over what the title on its left has too much
                strip = Image.new("RGB", (right - left, LABEL), "white")
                _write(strip, (0, 0), title, LABEL)
                sheet.paste(strip, (left, top))
            sheet.paste(picture, (left, top + label))
        return sheet

    def still(self, most: int):
        """As an output: one JPEG. A clip has a row of its own, of four frames."""
        return output("image/jpeg", fitting(self.stills, most))

    @cached_property
    def stills(self) -> list[bytes]:
        rows = self.strips(4)
        return [jpeg(self.sheet(rows, width), quality) for width, quality in STILLS]

    def strips(self, count: int) -> list:
        if not self.moves:
            return [[(tile.title, tile.frames[0]) for tile in row] for row in self.rows]
        return [
            [(tile.title if i == 0 else "", frame) for i, frame in enumerate(spread(tile, count))]
            for row in self.rows
            for tile in row
        ]

    def animated(self, most: int):
        """As an output: a GIF. GitHub shows no image/gif, but browsers play it as image/png."""
        return output("image/png", fitting(self.gifs, most))

    @cached_property
    def gifs(self) -> list[bytes]:
        return [self.gif(width, colours) for width, colours in GIFS]

    def gif(self, width: int, colours: int) -> bytes:
        """At most 12 frames, of clips so wide side by side."""
        count = max(len(tile.frames) for row in self.rows for tile in row)
        step = -(-count // 12)
        sheets = []
        for i in range(0, count, step):
            rows = [[(tile.title, tile.at(i)) for tile in row] for row in self.rows]
            sheets.append(self.sheet(rows, width * max(map(len, rows))))
        every = self.sheet([[("", sheet) for sheet in sheets]], 4000)
        # this way of quantising keeps what is small and bright
        palette = every.quantize(colours, Image.Quantize.FASTOCTREE)
        first, *more = [s.quantize(palette=palette, dither=Image.Dither.NONE) for s in sheets]
        buffer, how = io.BytesIO(), {"duration": round(1000 * step / self.fps), "loop": 0}
        first.save(buffer, "GIF", save_all=True, append_images=more, optimize=True, **how)
        return buffer.getvalue()


def fitting(candidates: list[bytes], most: int) -> bytes:
    """The first that is small enough, or else the last."""
    return next((data for data in candidates if len(data) <= most), candidates[-1])


def spread(tile: Tile, count: int) -> list[Image.Image]:
    """At most so many of its frames, from the first to the last."""
    last = len(tile.frames) - 1
    places = {round(last * i / (count - 1)) for i in range(count)}
    return [tile.frames[i] for i in sorted(places)]


def jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
    return buffer.getvalue()


def output(kind: str, data: bytes):
    from nbformat.v4 import new_output

    return new_output("display_data", {kind: b64encode(data).decode(), "text/plain": "a picture"})


def face(run, chosen: str | None) -> bytes:
    """The chapter's picture, a JPEG of at most `FACE` bytes.

    Raises commands.Failed where the chosen cell shows nothing.
    """
    shown = {}
    for cell in codes(run):
        found = [part for o in cell.outputs if isinstance(part := seen(o), Tiles)]
        shown |= {cell.id: found[-1]} if found else {}
    if chosen and chosen not in shown:
        raise commands.Failed(f"the cell {chosen!r}, which CHOSEN names, shows no picture")
    clips = [tiles for tiles in shown.values() if tiles.moves]
    largest = sorted(shown.values(), key=lambda tiles: -area(tiles))
    tiles = shown[chosen] if chosen else [*clips, *largest][0]
    row = tiles.strips(3)[-1][-3:]
    high = min(picture.height for _, picture in row)
    row = [("", p.resize((p.width * high // p.height, high))) for _, p in row]
    sheet = tiles.sheet([row], 300)
    sheet.thumbnail((300, 150))
    return next(data for q in range(80, 0, -5) if len(data := jpeg(sheet, q)) <= FACE)


def area(tiles: Tiles) -> int:
    return sum(t.frames[0].width * t.frames[0].height for row in tiles.rows for t in row)
