"""TraceExplorer: each tensor of a run by step and frame, and what another λ would have done."""

from __future__ import annotations

import dataclasses
import functools
from html import escape

import ipywidgets as w
import numpy as np
from PIL import Image, ImageDraw

from ..blend import blend, blend_in
from ..models.attention import of_words
from ..models.sampling import scaled
from ..pictures import png, to_frames
from ..support.validate import checked
from ..trace import TERMS, Record
from ..video import Run
from ..view import _font, contact_sheet, heat, principal_colours
from .page import Page
from .panel import Panel
from .parts import TIP, flow, picture_view, row, slider, toggle, words

TILE = 188
X0 = "x̂<sub>0</sub>"
SIGNS = {"v": ("v", "v′", "v̂"), "eps": ("ε", "ε′", "ε̂"), "x0": (f"{X0} of x", f"{X0}′", X0)}
TILES = ("z_t", "z_edit", "x0", "heat", "frame", "x", "x_edit", "x_hat", "if_x_hat", "if_x0")


def titles(record: Record, unit: str, linear: bool = True) -> dict[str, str]:
    """What stands above each tile, in HTML: Eq. 4 in the unit that was blended and in no other.

    linear: whether the step was blended by Eq. 4, and by no rule of a person's own.
    """
    x, x_edit, x_hat = SIGNS[unit]
    by = f"λ {x} + (1 − λ) {x_edit}" if linear else f"blend({x}, {x_edit}, λ)"
    derived = f"{x_hat}, derived: blended in {SIGNS[record.blended][0]}"
    return {
        "z_t": "z<sub>t</sub>, unedited",
        "z_edit": "z′<sub>t</sub>, edited",
        "x0": f"{X0}, as predicted",
        "heat": f"|{x} − {x_edit}| on the picture",
        "frame": "the finished frame",
        "x": f"{x}, given x",
        "x_edit": f"{x_edit}, given the edits",
        "x_hat": f"{x_hat} = {by}" if unit == record.blended else derived,
        "if_x_hat": f"{x_hat}, if λ were so",
        "if_x0": f"{X0}, if λ were so",
    }


class TraceExplorer(Panel):
    """Look into a run: sliders for step and frame, a player over the steps, and "what if λ were".

    Latents have more channels than a picture has colours: their three main directions, the same for
    all tiles, are shown as red, green and blue. The words' maps are computed when asked for: what
    the edited branch's network looks at, word by word, at this step. "What if" is of Eq. 4 at this
    step alone: z', which a drag's hold has weighted by 1 - lam as well, stays as it was.

    Args:
      run: a `Run`, as from `pipe.video`; one that was stopped shows the steps it has. KeyError
        where its trace did not keep what is shown.

    Attributes:
      step, frame, what_if: the sliders. words: the switch of the words' maps. unit: "v", "eps",
        "x0", or "" for the one that was blended: in which the predictions are shown.
      tiles: {name: widgets.Image} of what is shown. errors: exceptions of the callbacks.
    """

    @checked
    def __init__(self, run: Run):
        if not len(run.trace):
            raise ValueError("the run has no steps yet: there is nothing to explore")
        for record in run.trace:
            record.check("z_t", "z_edit", "x0", "out", "out_edit")
        super().__init__()
        self.run, self._frames = run, run.frames
        last, frames = len(run.trace) - 1, len(run.state.z)
        wide = {"width": 400, "label": 90, "continuous_update": True}
        step = {"value": (last + 1) // 2, "min": 0, "max": last}
        self.step = row(w.IntSlider, "Step", "Which step of the run", **step, **wide)
        frame = {"value": frames - 1, "min": 0, "max": frames - 1}
        self.frame = row(w.IntSlider, "Frame", "Which frame of the clip", **frame, **wide)
        says = "Another λ in Eq. 4 at this step"
        self.what_if = slider("What if λ =", says, 0.5, 0, 1, 0.05, **wide)
        play = w.Play(interval=900, **step, **{TIP: "Play the steps"})
        w.jslink((play, "value"), (self.step, "value"))
        self.words = toggle("Words", "eye", "Where the network looks at each word", width="110px")
        units = [("as blended", ""), ("v", "v"), ("ε", "eps"), ("x̂0", "x0")]
        says = "The unit in which predictions are shown"
        self.unit = row(w.Dropdown, "Shown in", says, 200, 90, options=units)
        self.text = words()
        self.tiles = {name: _tile() for name in TILES}
        boxes = [_boxed("", tile) for tile in self.tiles.values()]
        self.titles = {name: box.children[0] for name, box in zip(TILES, boxes, strict=True)}
        self.word_row = flow()
        sliders, below = (
            flow(self.step, play, self.frame),
            flow(self.what_if, self.unit, self.words),
        )
        tiles = flow(*boxes, max_width="1020px")  # five in a row at the most
        self.children = [sliders, self.text, tiles, below, self.word_row, self.line, Page()]
        self._decoded = functools.lru_cache(64)(self._decode)
        self._attention = functools.lru_cache(32)(self._attend)
        self._colours = functools.cache(self._colours_of)
        for widget in (self.step, self.frame, self.unit, self.words):
            self.on(widget, lambda _: self._show())
        self.on(self.what_if, lambda _: self._show_if())
        self.line.guard(self._show)()

    def still(self) -> Image.Image:
        return contact_sheet(self._frames)

    # --------------------------------------------------------------------------------- showing

    @property
    def record(self):
        return self.run.trace[self.step.value]

    @property
    def shown_unit(self) -> str:
        return self.unit.value or self.record.blended

    def _frame(self, f: int) -> np.ndarray:
        """The clip's frame that latent frame f ends at: a video autoencoder has fewer of these."""
        return self._frames[f * (len(self._frames) - 1) // max(self.frame.max, 1)]

    def recomputed(self, lam: float):
        """The record of this step as it would be with another λ. ValueError where a branch was
        not evaluated, because its weight was 0."""
        record = self.record
        for name, edits in (("out", "without"), ("out_edit", "of")):
            if name not in record:
                raise ValueError(
                    f"step {record.index} has no prediction {edits} the edits: "
                    f"{record.missing(name)} (skip_zero=False evaluates it all the same)"
                )
        out, out_edit, z, z_edit = (record[n] for n in ("out", "out_edit", "z_t", "z_edit"))
        level = record.signal, record.noise, record.kind
        pair, at = (out, out_edit), (z, z_edit)
        out_hat, _ = blend_in(record.blended, *pair, lam, *at, level, self.run.rule)
        return dataclasses.replace(record, tensors=record.tensors | {"out_hat": out_hat})

    def _show(self) -> None:
        record, f = self.record, self.frame.value
        lam, edit, unit = record.lam, self.run.edit_at(record.index), self.shown_unit
        span = f"{float(lam.mean()):.2f}"
        if float(lam.max()) > float(lam.min()):
            span = f"{float(lam.min()):.2f} to {float(lam.max()):.2f}"
        self.text.value = (
            f"<b><code>run.trace[{record.index}]</code></b> · t = {record.t:g} · "
            f"ᾱ = {record.alpha_bar:.4f} · <b>λ in force: {span}</b> · frame {f} · "
            f"<b>y′: {escape(edit.motion) or '(no text)'}</b>"
        )
        for name, title in titles(record, unit, self.run.rule is blend).items():
            self.titles[name].value = _titled(title)
        a, b, _ = TERMS[unit]
        for tile, name in zip(
            ("z_t", "z_edit", "x", "x_edit", "x_hat"), ("z_t", "z_edit", *TERMS[unit]), strict=True
        ):
            self.tiles[tile].value = self._latent(record, name, f)
        self.tiles["x0"].value = self._picture(record, f, None)
        self.tiles["frame"].value = _png(self._frame(f))
        why = record.missing(a) or record.missing(b)
        self.tiles["heat"].value = (
            _says(why) if why else _png(heat(record[a][f], record[b][f], self._frame(f)))
        )
        self._show_words()
        self._show_if()

    def _show_if(self) -> None:
        record, f, lam = self.record, self.frame.value, round(self.what_if.value, 4)
        why = record.missing("out") or record.missing("out_edit")
        if why:
            for name in ("if_x_hat", "if_x0"):
                self.tiles[name].value = _says(f"one branch only: {why}")
            return
        record = self.recomputed(lam)
        self.tiles["if_x_hat"].value = self._latent(record, TERMS[self.shown_unit][2], f)
        self.tiles["if_x0"].value = self._picture(record, f, lam)

    def _show_words(self) -> None:
        if not self.words.value:
            self.word_row.children = ()
            return
        maps, f = self._attention(self.step.value), self.frame.value
        shown = []
        for word, places in maps.items():
            tile = _tile(TILE * 2 // 3)
            tile.value = _png(heat(places[f][None], 0 * places[f][None], self._frame(f)))
            shown.append(_boxed(word, tile, TILE * 2 // 3))
        self.word_row.children = shown

    # ------------------------------------------------------------------------------- computing

    def _colours_of(self, unit: str):
        names = ("z_t", "z_edit", *TERMS[unit])
        return principal_colours([r[n] for r in self.run.trace for n in names if n in r])

    def _latent(self, record, name: str, f: int) -> bytes:
        if why := record.missing(name):
            return _says(why)
        return _png((self._colours(self.shown_unit)(record[name][f]) * 255).astype(np.uint8))

    def _picture(self, record, f: int, lam: float | None) -> bytes:
        why = record.missing("x0")
        return _says(why) if why else _png(self._decoded(record.index, f, lam))

    def _decode(self, index: int, f: int, lam: float | None) -> np.ndarray:
        record = self.run.trace[index] if lam is None else self.recomputed(lam)
        return to_frames(self.run.model.decode(record["x0"][f][None]))[0]

    def _attend(self, index: int) -> dict[str, np.ndarray]:
        run, z, edit = self.run, self.run.trace[index]["z_edit"], self.run.edit_at(index)
        scheduler = run.model.scheduler(run.settings.num_inference_steps, shape=tuple(z.shape))
        t = scheduler.timesteps[index]
        return of_words(run.model, edit.motion, scaled(scheduler, z, t), t, edit.condition)


def _tile(width: int = TILE) -> w.Image:
    tile = picture_view(width, format="png")
    tile.layout.height = f"{width}px"
    return tile


def _titled(title: str) -> str:
    title = title.replace("<sub>", "<sub style='line-height:0'>")
    return f"<div style='font-size:12px;line-height:1.4'>{title}</div>"


def _boxed(title: str, tile: w.Image, width: int = TILE) -> w.VBox:
    label = words(_titled(title), margin="0 0 0 2px", height="20px")
    layout = w.Layout(width=f"{width + 8}px", flex="0 0 auto", margin="0 6px 6px 0")
    return w.VBox([label, tile], layout=layout)


def _png(picture) -> bytes:
    """Small things, such as latents, in hard squares; pictures as they are."""
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    if picture.width < TILE:
        side = (TILE, max(round(TILE * picture.height / picture.width), 1))
        picture = picture.resize(side, Image.Resampling.NEAREST)
    return png(picture, compress_level=1)


@functools.cache
def _says(text: str) -> bytes:
    """A grey tile with a remark, which stands on several lines."""
    text = text.replace(": ", ":\n").replace(", ", ",\n")
    tile = Image.new("RGB", (TILE, TILE), (236, 238, 241))
    draw = ImageDraw.Draw(tile)
    draw.multiline_text(
        (TILE / 2, TILE / 2), text, fill=(90, 90, 90), font=_font(14), anchor="mm", align="center"
    )
    return _png(tile)
