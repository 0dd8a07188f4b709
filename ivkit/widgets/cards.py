"""What the studio shows of its clips: cards with a video, a name, settings and buttons."""

from __future__ import annotations

import dataclasses
import html
from dataclasses import dataclass, field

import ipywidgets as w
import numpy as np
from PIL import Image

from ..pictures import png
from ..view import FPS, encode_video
from .board import button
from .session import Take

CARD = 240  # pixels


@dataclass
class Result:
    """One clip on show. `frames` is None for a take of an opened session, until it is replayed."""

    take: Take
    frames: np.ndarray | None
    card: w.VBox = field(repr=False, default=None)
    kept: bool = False
    compared: bool = False


def card(result: Result, guard, on_rename, on_replay, on_remove, on_export) -> w.VBox:
    """The card of a clip. `guard` wraps callbacks; each `on_...` takes the result, `on_export` also
    one of "mp4", "gif", "png"."""
    take = result.take
    if result.frames is None:
        again = button("Make it again", "refresh", guard(lambda: on_replay(result)), "130px")
        top = w.VBox([still(take.edited or take.instructions.image.picture), again])
    else:
        top = video(result.frames)
    name = w.Text(take.name, layout=w.Layout(width=f"{CARD - 6}px"), continuous_update=False)
    keep = w.ToggleButton(result.kept, description="keep", icon="star",
                          layout=w.Layout(width="76px"))  # fmt: skip
    compare = w.ToggleButton(result.compared, description="⇄", tooltip="compare",
                             layout=w.Layout(width="44px"))  # fmt: skip
    away = button("", "trash", guard(lambda: on_remove(result)), "44px")
    kinds = [button(kind, "download", guard(lambda k=kind: on_export(result, k)), "76px")
             for kind in ("mp4", "gif", "png")]  # fmt: skip

    def rename(change):
        result.take = dataclasses.replace(result.take, name=change["new"])
        on_rename(result)

    name.observe(guard(rename), "value")
    keep.observe(lambda change: setattr(result, "kept", change["new"]), "value")
    compare.observe(lambda change: setattr(result, "compared", change["new"]), "value")
    says = w.HTML(caption(take), layout=w.Layout(width=f"{CARD}px"))
    rows = [top, name, says, w.HBox([keep, compare, away]), w.HBox(kinds)]
    return w.VBox(rows, layout=fixed(CARD))


def side_by_side(named: list[tuple[str, np.ndarray]]) -> list[w.Widget]:
    """Names above one video of several clips, so that they play in step."""
    count = min(len(frames) for _, frames in named)
    gap = np.full((count, named[0][1].shape[1], 6, 3), 255, np.uint8)
    parts = [part for _, frames in named for part in (frames[:count], gap)][:-1]
    width = min(250 * len(named), 1000)
    names = "".join(f'<span style="display:inline-block;width:{width // len(named)}px">'
                    f"{html.escape(name)}</span>" for name, _ in named)  # fmt: skip
    return [w.HTML(names), video(np.concatenate(parts, axis=2), width)]


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


def counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def small(text: str) -> str:
    """HTML in a caption's size."""
    return f"<div style='line-height:1.35;font-size:12px;color:#444'>{text}</div>"


def picture_card(title: str, picture: Image.Image) -> w.VBox:
    return w.VBox([still(picture), w.HTML(html.escape(title))], layout=fixed(CARD))


def still(picture: Image.Image) -> w.Image:
    return w.Image(value=png(picture), format="png", layout=w.Layout(width=f"{CARD}px"))


def video(frames: np.ndarray, width: int = CARD) -> w.Video:
    return w.Video(value=encode_video(frames, FPS), format="mp4", autoplay=True, loop=True,
                   controls=True, layout=w.Layout(width=f"{width}px"))  # fmt: skip


def fixed(width: int) -> w.Layout:
    return w.Layout(width=f"{width}px", flex="0 0 auto", margin="0 8px 8px 0")
