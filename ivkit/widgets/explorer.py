"""TraceExplorer: each tensor of a run by step and frame, and what another λ would have done."""

from __future__ import annotations

import copy
import dataclasses
import functools

import ipywidgets as w
import numpy as np
from PIL import Image, ImageDraw

from ..blend import blend
from ..models.attention import record as record_attention
from ..models.sampling import scaled
from ..pictures import png
from ..pixels import to_frames
from ..run import Run
from ..support.validate import checked
from ..view import _font, contact_sheet, heat, principal_colours
from .board import TIP, Line, Page, flow, picture_view, row, words
from .panel import Panel

TILE = 188
LATENTS = ("z_t", "z_edit", "eps", "eps_edit", "eps_hat")
TITLES = {
    "z_t": "z<sub>t</sub>, unedited",
    "z_edit": "z′<sub>t</sub>, edited",
    "x0": "x̂<sub>0</sub>, as predicted",
    "heat": "|ε − ε′| on the picture",
    "frame": "the finished frame",
    "eps": "ε, given x",
    "eps_edit": "ε′, given the edits",
    "eps_hat": "ε̂ = λ ε + (1 − λ) ε′",
    "if_eps_hat": "ε̂, if λ were so",
    "if_x0": "x̂<sub>0</sub>, if λ were so",
}


class TraceExplorer(Panel):
    """Look into a run: sliders for step and frame, a player over the steps, and "what if λ were".

    Latents have more channels than a picture has colours: their three main directions, the same for
    all tiles, are shown as red, green and blue. The words' maps are computed when asked for: what
    the edited branch's network looks at, word by word, at this step.

    Args:
      run: a `Run`, as from `pipe.video`; one that was stopped shows the steps it has. KeyError
        where its trace did not keep what is shown.

    Attributes:
      step, frame, what_if: the sliders. words: the switch of the words' maps.
      tiles: {name: widgets.Image} of what is shown. errors: exceptions of the callbacks.
    """

    @checked
    def __init__(self, run: Run):
        if not len(run.trace):
            raise ValueError("the run has no steps yet: there is nothing to explore")
        for record in run.trace:
            record.check(*LATENTS, "x0", "out", "out_edit")
        self.run, self.line = run, Line()
        self.errors = self.line.errors
        count, frames = len(run.trace), len(run.state.z)
        latents = {n: [r[n] for r in run.trace if n in r] for n in LATENTS}
        self._colours = principal_colours([z for row in latents.values() for z in row])
        self._frames = run.frames
        last = {"min": 0, "max": count - 1, **row("Which step of the run", 400, 90)}
        self.step = w.IntSlider(count // 2, description="Step", **last)
        last = {"min": 0, "max": frames - 1, **row("Which frame of the clip", 400, 90)}
        self.frame = w.IntSlider(frames - 1, description="Frame", **last)
        share = {"min": 0, "max": 1, "step": 0.05, **row("Another λ at this step", 400, 90)}
        self.what_if = w.FloatSlider(0.5, description="What if λ =", **share)
        last = {"min": 0, "max": count - 1, TIP: "Play the steps"}
        play = w.Play(value=count // 2, interval=900, **last)
        w.jslink((play, "value"), (self.step, "value"))
        self.words = w.ToggleButton(
            False, description="Words", icon="eye", tooltip="Where the network looks at each word",
            layout=w.Layout(width="110px"),
        )  # fmt: skip
        self.text = words()
        self.tiles = {name: _tile() for name in TITLES}
        boxes = [_boxed(TITLES[name], tile) for name, tile in self.tiles.items()]
        self.word_row = flow()
        super().__init__([
            flow(self.step, play, self.frame),
            self.text,
            flow(*boxes[:5]),
            flow(*boxes[5:]),
            flow(self.what_if, self.words),
            self.word_row,
            self.line,
            Page(),
        ])  # fmt: skip
        self._decoded = functools.lru_cache(64)(self._decode)
        self._attention = functools.lru_cache(32)(self._attend)
        guard = self.line.guard
        for slider in (self.step, self.frame, self.words):
            slider.observe(guard(lambda _: self._show()), "value")
        self.what_if.observe(guard(lambda _: self._show_if()), "value")
        guard(self._show)()

    def still(self) -> Image.Image:
        return contact_sheet(self._frames)

    # --------------------------------------------------------------------------------- showing

    @property
    def record(self):
        return self.run.trace[self.step.value]

    def _frame(self, f: int) -> np.ndarray:
        """The clip's frame that latent frame f ends at: a video autoencoder has fewer of these."""
        return self._frames[f * (len(self._frames) - 1) // max(self.frame.max, 1)]

    def recomputed(self, lam: float):
        """The record of this step as it would be with another λ. ValueError where a branch was
        not evaluated, because its weight was 0."""
        record = self.record
        for name in ("out", "out_edit"):
            if name not in record:
                raise ValueError(
                    f"step {record.index} has no prediction {'of the edits' * (name != 'out')}"
                    f"{'without the edits' * (name == 'out')}: its weight was 0 there "
                    "(skip_zero=False evaluates it all the same)"
                )
        out_hat = blend(record["out"], record["out_edit"], lam)
        return dataclasses.replace(record, tensors=record.tensors | {"out_hat": out_hat})

    def _show(self) -> None:
        record, f = self.record, self.frame.value
        lam = record.lam
        span = f"{float(lam.mean()):.2f}"
        if float(lam.max()) > float(lam.min()):
            span = f"{float(lam.min()):.2f} to {float(lam.max()):.2f}"
        self.text.value = (
            f"<b><code>run.trace[{record.index}]</code></b> · t = {record.t:g} · "
            f"ᾱ = {record.alpha_bar:.4f} · <b>λ in force: {span}</b> · frame {f}"
        )
        for name in LATENTS:
            self.tiles[name].value = self._latent(record, name, f)
        self.tiles["x0"].value = _png(self._decoded(record.index, f, None))
        self.tiles["frame"].value = _png(self._frame(f))
        pair = [n for n in ("eps", "out") if n in record and f"{n}_edit" in record
                and not record.undefined(n)]  # fmt: skip
        if pair:
            a, b = record[pair[0]][f], record[f"{pair[0]}_edit"][f]
            self.tiles["heat"].value = _png(heat(a, b, self._frame(f)))
        else:
            self.tiles["heat"].value = _says("one branch only:\nλ is 0 or 1 here")
        self._show_words()
        self._show_if()

    def _show_if(self) -> None:
        f, lam = self.frame.value, round(self.what_if.value, 4)
        try:
            record = self.recomputed(lam)
        except ValueError:
            for name in ("if_eps_hat", "if_x0"):
                self.tiles[name].value = _says("one branch only:\nλ was 0 or 1 here")
            return
        self.tiles["if_eps_hat"].value = self._latent(record, "eps_hat", f)
        self.tiles["if_x0"].value = _png(self._decoded(record.index, f, lam))

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

    def _latent(self, record, name: str, f: int) -> bytes:
        if name not in record:
            return _says("not evaluated:\nits weight was 0")
        if record.undefined(name):
            return _says("undefined here:\nᾱ = 0, pure noise")
        return _png((self._colours(record[name][f]) * 255).astype(np.uint8))

    def _decode(self, index: int, f: int, lam: float | None) -> np.ndarray:
        record = self.run.trace[index] if lam is None else self.recomputed(lam)
        if record.undefined("x0"):
            return np.full((8, 8, 3), 225, np.uint8)
        return to_frames(self.run.model.decode(record["x0"][f][None]))[0]

    def _attend(self, index: int) -> dict[str, np.ndarray]:
        """{word: float32 (F, h, w)}: where the edited branch looks at each word of the motion."""
        run, z = self.run, self.run.trace[index]["z_edit"]
        model, edit, frames = run.model, run.edit_at(index), len(z)
        network = getattr(model, "video_unet", None)
        if network is None:
            raise ValueError(f"{model.name} has no attention on words that could be shown")
        scheduler = model.scheduler(run.settings.num_inference_steps, shape=tuple(z.shape))
        t = scheduler.timesteps[index]
        z = scaled(scheduler, z, t)
        words = words_of(model.tokenizer, edit.motion)
        tokens = [i for _, at in words for i in at]
        # the last rows of the batch are the frames with the text
        with record_attention(network, tokens=tokens, rows=frames) as maps:
            model.predict(z[None], t, [copy.copy(edit.condition)])
        return {
            word: np.stack([
                np.mean([maps.of_token(i, row=f).float().numpy() for i in at], axis=0)
                for f in range(frames)
            ])
            for word, at in words
        }  # fmt: skip


def words_of(tokenizer, text: str) -> list[tuple[str, list[int]]]:
    """(word, positions of its tokens) in the order they stand in the text; the n-th repeat is
    "word (n)"."""
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)
    found, part, at, seen = [], "", [], {}
    for i, token in enumerate(tokens[1:-1], 1):  # between the marks of begin and end
        part, at = part + token.removesuffix("</w>"), [*at, i]
        if token.endswith("</w>"):
            seen[part] = seen.get(part, 0) + 1
            found.append((part if seen[part] == 1 else f"{part} ({seen[part]})", at))
            part, at = "", []
    return found


def _tile(width: int = TILE) -> w.Image:
    tile = picture_view(width, format="png")
    tile.layout.height = f"{width}px"
    return tile


def _boxed(title: str, tile: w.Image, width: int = TILE) -> w.VBox:
    title = title.replace("<sub>", "<sub style='line-height:0'>")
    title = f"<div style='font-size:12px;line-height:1.4'>{title}</div>"
    label = words(title, margin="0 0 0 2px", height="20px")
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
    """A grey tile with a remark."""
    tile = Image.new("RGB", (TILE, TILE), (236, 238, 241))
    draw = ImageDraw.Draw(tile)
    draw.multiline_text((TILE / 2, TILE / 2), text, fill=(90, 90, 90), font=_font(14),
                        anchor="mm", align="center")  # fmt: skip
    return _png(tile)
