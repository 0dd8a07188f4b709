"""What the studio shows of its clips: cards with a video, a name, settings and buttons."""

from __future__ import annotations

import base64
import dataclasses
import html
import mimetypes
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import ipywidgets as w
import numpy as np
from PIL import Image

from ..pictures import png
from ..support.encode import encoded
from ..view import FPS
from .parts import TIP, Line, button, column, picture_view, small, toggle, words
from .session import Take

CARD = 216  # pixels
LARGEST_LINK = 2**24  # bytes of a file that a link in the page holds


@dataclass(eq=False)
class Result:
    """One clip on show. `frames` is None for a take of an opened session, until it is replayed."""

    take: Take
    frames: np.ndarray | None
    card: w.VBox = field(repr=False, default=None)
    line: Line = field(repr=False, default_factory=Line)  # what is said of it, on its card
    compared: bool = False


def card(result: Result, studio) -> w.VBox:
    """The card of a clip, whose buttons call `studio`'s renamed, replay, remove and export."""
    take, name = result.take, result.take.name
    result.line = Line(studio.errors, width=f"{CARD}px")
    guard = result.line.guard
    if result.frames is None:
        says, work = "Run the model once more: the frames will be the same", studio.replay
        again = button("Make it again", "refresh", guard(partial(work, result)), says, "130px")
        top = w.VBox([still(take.edited or take.instructions.image.picture), again])
    else:
        top = video(result.frames)
    named = {"placeholder": "name of the clip", TIP: "Name of the clip"}
    layout = w.Layout(width=f"{CARD - 6}px")
    title = w.Text(name, continuous_update=False, layout=layout, **named)
    keep = toggle("keep", "star", "It stays when newer clips need the room", take.kept, "76px")
    compare = toggle("⇄", "", "Choose it for Compare", result.compared, "44px")
    away = button("", "trash", guard(partial(studio.remove, result)), f"Delete {name}", "44px")
    kinds = []
    for kind in ("mp4", "gif", "png"):
        write = guard(partial(studio.export, result, kind))
        kinds.append(button(kind, "download", write, f"Write {name} as {kind}", "68px"))

    def change(field, changed):
        result.take = dataclasses.replace(result.take, **{field: changed["new"]})
        studio.renamed()

    title.observe(guard(partial(change, "name")), "value")
    keep.observe(guard(partial(change, "kept")), "value")
    compare.observe(lambda change: setattr(result, "compared", change["new"]), "value")
    facts = words(caption(take), width=f"{CARD}px")
    rows = w.HBox([keep, compare, away]), w.HBox(kinds), result.line
    return column(CARD, top, title, facts, *rows)


def side_by_side(named: list[tuple[str, np.ndarray]]) -> list[w.Widget]:
    """Names above one video of several clips, so that they play in step."""
    count = min(len(frames) for _, frames in named)
    gap = np.full((count, named[0][1].shape[1], 6, 3), 255, np.uint8)
    parts = [part for _, frames in named for part in (frames[:count], gap)][:-1]
    width = min(250 * len(named), 1000)
    names = "".join(
        f'<span style="display:inline-block;width:{width // len(named)}px">'
        f"{html.escape(name)}</span>"
        for name, _ in named
    )
    return [words(names), video(np.concatenate(parts, axis=2), width)]


def caption(take: Take) -> str:
    """The settings of a take, in short lines."""
    i = take.instructions
    lam = f"{i.lam:.2g}" if isinstance(i.lam, float) else f"{i.lam.min():.2g} to {i.lam.max():.2g}"
    strokes = len(i.content.strokes) if i.content else 0
    drags = len(i.trajectory.drags) if i.trajectory else 0
    changed = "".join(f", changed at step {c.step + 1}" for c in take.changes)
    stopped = f", stopped at step {take.stopped}" if take.stopped else ""
    facts = f"λ {lam} · seed {i.seed} · {i.num_inference_steps} steps{changed}{stopped}"
    edits = f"{counted(strokes, 'stroke')} · {counted(drags, 'drag')}"
    return small(f"{html.escape(i.motion.text)}<br>{facts}<br>{edits}")


def written(line: Line, path: str | os.PathLike) -> None:
    """Say where a file lies, and offer it as the browser's download: on Colab it begins itself."""
    path = Path(path)
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    link = ""
    try:
        from google.colab import files
    except ImportError:
        if path.stat().st_size <= LARGEST_LINK:
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            name = html.escape(path.name)
            link = f' <a download="{name}" href="data:{kind};base64,{data}">Download</a>'
    else:
        files.download(str(path))
    line.say(f"Written: {path}.", more=link)


def counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def picture_card(title: str, picture: Image.Image) -> w.VBox:
    return column(CARD, still(picture), words(small(html.escape(title))))


def still(picture: Image.Image) -> w.Image:
    return picture_view(CARD, value=png(picture), format="png")


def video(frames: np.ndarray, width: int = CARD) -> w.Video:
    return w.Video(
        value=encoded(frames, FPS),
        format="mp4",
        autoplay=True,
        loop=True,
        controls=True,
        layout=w.Layout(width=f"{width}px"),
    )
