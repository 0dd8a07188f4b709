"""Studio: type, paint, drag, generate, pause, paint again, go on; compare and keep the clips."""

from __future__ import annotations

import dataclasses
import html
import io
import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..instructions import (
    ContentInstruction,
    ImageInstruction,
    Instructions,
    MotionInstruction,
    TrajectoryInstruction,
    _choice,
    _number,
)
from ..paint import latent_mask, rasterise
from ..trajectory import warp
from ..view import FPS, contact_sheet, encode_video, save_video
from .board import button, explain, message
from .canvas import PaintCanvas
from .drag import DragCanvas
from .session import Autosave, Change, Session, Sketch, Take, provenance

CONSTANT, RAMP, REGION = "the same everywhere", "from step to step", "inside and outside the paint"
PLACEHOLDER = (225, 229, 235)
TRIES = 8  # clips on show besides those that are kept
CARD = 240


@dataclass
class Result:
    """One clip on show. `frames` is None for a take of an opened session, until it is replayed."""

    take: Take
    frames: np.ndarray | None
    card: w.VBox = field(repr=False, default=None)
    kept: bool = False
    compared: bool = False


class Studio(w.VBox):
    """The whole pipeline in one panel.

    Draw makes a picture from its sentence (or load one). Paint on it, drag things, say what moves,
    and Generate. While the clip is made it is shown as it is foreseen. Pause, paint or drag or
    move λ, Resume: the edit takes effect from that step on. Every try stays on show with its
    settings, can be kept, named, compared, exported and, from a session file, made again.

    Args:
      pipe: a pipeline, as from `ivkit.load`.
      picture: to begin with; None is an empty one.
      autosave: name under outputs/autosave/ that all is kept in; None keeps nothing.
      folder: where exports go.

    Attributes:
      paint, drag: the `PaintCanvas` and the `DragCanvas`.
      panel: the panel's widgets by name: prompt, seed, content, strength, motion, motion_scale,
        lam_mode, lam, lam_end, steps, frames.
      results: what is on show, each with `take` and `frames`.
      errors: exceptions of callbacks and of the worker, all of which were said in the panel.
    """

    def __init__(
        self, pipe, picture=None, *, autosave: str | None = "studio", folder="outputs", width=360
    ):
        self.pipe, self.folder = pipe, Path(folder)
        blank = Image.new("RGB", pipe.size, PLACEHOLDER)
        frames = pipe.model.num_frames
        self.paint = PaintCanvas(blank, width=width, autosave=None, size=pipe.size)
        self.drag = DragCanvas(blank, width=width, num_frames=frames, autosave=None)
        self._own_errors: list[BaseException] = []
        self.results: list[Result] = []
        self.unedited: np.ndarray | None = None
        self._thread: threading.Thread | None = None
        self._go, self._stop = threading.Event(), threading.Event()
        self._next: _Asked | None = None
        self._made: tuple = (None, None)  # what the last x' was made from, and x'
        self.edited_view = w.Image(
            format="png", layout=w.Layout(width="220px", margin="0 0 0 70px")
        )
        self.edited_text = w.HTML(layout=w.Layout(margin="0 0 0 70px"))
        self.paint.side.children = (*self.paint.side.children, self.edited_view, self.edited_text)
        self.edited_view.layout.display = "none"
        self._build_panel(frames)
        self._build_results()
        self.offer = w.HBox([])
        super().__init__([
            self.offer,
            w.HBox([w.VBox([self.mode, self.paint, self.drag], layout=_fixed(width + 324)),
                    self._controls]),
            self._out,
        ])  # fmt: skip
        self.autosave = Autosave(autosave) if autosave else None
        if self.autosave and (kept := self.autosave.found(Session)):
            self._offer(kept)
        if picture is not None:
            self.paint.picture = picture
        for board in (self.paint.board, self.drag.board):
            board.listeners.append(self._keep)
        for widget in self.panel.values():
            widget.observe(lambda _: self._keep(), "value")
        self._state("idle")

    # --------------------------------------------------------------------------------- layout

    def _build_panel(self, frames: int) -> None:
        own, video = self.pipe.model.defaults["image"], self.pipe.model.defaults["video"]
        scales = max(len(getattr(self.pipe.model, "affinity", ())) - 1, 1)
        slide = {"min": 0, "max": 1, "step": 0.05, "readout_format": ".2f"}
        self.panel: dict[str, Any] = {
            "prompt": _row(w.Text, "Picture", value="a boat on the blue sea at day"),
            "seed": w.BoundedIntText(
                3, min=0, max=2**31 - 1, description="Seed", style=_LABEL,
                layout=w.Layout(width="170px"),
            ),
            "content": _row(w.Text, "Painted", placeholder="what it shows with the paint"),
            "strength": _row(w.FloatSlider, "Strength", value=0.7, **slide),
            "motion": _row(w.Text, "Motion", value="the boat moves right"),
            "motion_scale": _row(
                w.IntSlider, "How much", value=video.get("motion_scale", 0), min=0, max=scales
            ),
            "lam_mode": w.Dropdown(
                options=[CONSTANT, RAMP, REGION], description="λ is", style=_LABEL,
                layout=w.Layout(width="330px"),
            ),
            "lam": _row(w.FloatSlider, "λ", value=0.3, **slide),
            "lam_end": _row(w.FloatSlider, "λ, last", value=1.0, **slide),
            "steps": _row(
                w.IntSlider, "Steps", value=video["num_inference_steps"], min=1,
                max=max(50, video["num_inference_steps"]),
            ),
            "frames": _row(w.IntSlider, "Frames", value=frames, min=2, max=max(frames, 2)),
        }  # fmt: skip
        self._image_steps = own["num_inference_steps"]
        p, guard = self.panel, self._guard
        self.mode = w.ToggleButtons(options=["Paint", "Drag"], style={"button_width": "164px"},
                                    layout=w.Layout(margin="0 0 8px 0"))  # fmt: skip
        self.mode.observe(guard(self._switch), "value")
        self.draw_button = button("Draw", "magic", guard(self.draw), "156px")
        self.draw_button.tooltip = "a picture from its sentence and seed"
        self.generate_button = button(
            "Generate", "film", guard(self.generate), "120px", button_style="primary"
        )
        self.pause_button = button("Pause", "pause", guard(self._pause_or_resume), "102px")
        self.stop_button = button("Stop", "stop", guard(self.stop), "100px")
        self.progress = w.IntProgress(0, 0, 1, layout=w.Layout(width="330px", height="16px"))
        self.line = w.HTML(layout=w.Layout(width="330px", min_height="44px"))
        p["lam_mode"].observe(lambda _: self._lam_rows(), "value")
        self._lam_rows()
        words = ", ".join(self.pipe.words)
        known = f"<details><summary>Words that {html.escape(self.pipe.name)} knows</summary>"
        self._controls = w.VBox([
            _title("Picture"), p["prompt"], w.HBox([p["seed"], self.draw_button]),
            _title("Paint"), p["content"], p["strength"],
            _title("Motion"), p["motion"], p["motion_scale"],
            _title("Blend: 1 ignores the edits, 0 follows them"),
            p["lam_mode"], p["lam"], p["lam_end"], p["steps"], p["frames"],
            w.HBox([self.generate_button, self.pause_button, self.stop_button]),
            self.progress, self.line,
            w.HTML(f"{known}{words}</details>" if words else "", layout=w.Layout(width="330px")),
        ], layout=_fixed(340))  # fmt: skip
        self._switch({"new": "Paint"})

    def _build_results(self) -> None:
        guard = self._guard
        self.live = w.Image(format="jpeg", layout=w.Layout(width=f"{CARD}px"))
        self.live_text = w.HTML()
        self._live_card = w.VBox([self.live, self.live_text], layout=_fixed(CARD))
        self._cards = w.HBox([], layout=w.Layout(flex_flow="row wrap"))
        self._compared = w.VBox([])
        self.file = w.Text("outputs/session.json", description="Session", style=_LABEL,
                           layout=w.Layout(width="330px"))  # fmt: skip
        self._out = w.VBox([
            self._cards,
            w.HBox([button("Compare", "columns", guard(self.compare), "110px"),
                    self.file,
                    button("Save", "save", guard(lambda: self.save(self.file.value))),
                    button("Open", "folder-open", guard(lambda: self.load(self.file.value)))]),
            self._compared,
        ])  # fmt: skip

    def _lam_rows(self) -> None:
        mode, lam, end = (self.panel[n] for n in ("lam_mode", "lam", "lam_end"))
        names = {CONSTANT: ("λ", ""), RAMP: ("λ, first", "λ, last"), REGION: ("Inside", "Outside")}
        lam.description, end.description = names[mode.value]
        end.layout.display = "none" if mode.value == CONSTANT else ""

    def _switch(self, change) -> None:
        painting = change["new"] == "Paint"
        if not painting:
            self.drag.board.rebase(self._x_edited())
        self.paint.layout.display = "" if painting else "none"
        self.drag.layout.display = "none" if painting else ""

    # -------------------------------------------------------------------------------- messages

    @property
    def errors(self) -> list[BaseException]:
        return [*self._own_errors, *self.paint.errors, *self.drag.errors]

    def say(self, text: str, error: bool = False) -> None:
        self.line.value = message(text, error)

    def _fail(self, error: BaseException) -> None:
        self._own_errors.append(error)
        self.say(explain(error), error=True)

    def _guard(self, work):
        def guarded(*args):
            try:
                return work(*args)
            except Exception as error:
                self._fail(error)

        return guarded

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def join(self, seconds: float | None = None) -> None:
        """Wait until the worker has finished, at most so many seconds."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _state(self, state: str) -> None:
        running = state != "idle"
        self.draw_button.disabled = running
        self.pause_button.disabled = state not in ("running", "paused")
        self.stop_button.disabled = not running
        paused = state == "paused"
        self.pause_button.description = "Resume" if paused else "Pause"
        self.pause_button.icon = "play" if paused else "pause"
        self.state = state

    # --------------------------------------------------------------------------- what is asked

    def _asked(self) -> _Asked:
        """All that the panel says, checked before any work."""
        v = {name: widget.value for name, widget in self.panel.items()}
        strokes, r = self.paint.strokes, self.drag.trajectory
        model, content = self.pipe.model, v["content"].strip() or v["prompt"]
        model.check_text(v["motion"], "motion")
        if strokes:
            model.check_text(content, "painted" if v["content"].strip() else "picture")
        instructions = Instructions(
            image=ImageInstruction(self.paint.picture),
            content=ContentInstruction(content, strokes, v["strength"])
            if content.strip()
            else None,
            motion=MotionInstruction(v["motion"], v["motion_scale"]),
            trajectory=r if r or r.pins else None,
            lam=self._lam(strokes),
            seed=v["seed"],
            num_frames=v["frames"],
            num_inference_steps=v["steps"],
        )
        return _Asked(instructions)

    def _lam(self, strokes):
        first, last = self.panel["lam"].value, self.panel["lam_end"].value
        mode = self.panel["lam_mode"].value
        if mode == RAMP:
            return np.linspace(first, last, self.panel["steps"].value).reshape(-1, 1, 1, 1, 1)
        if mode == REGION:
            if not strokes:
                raise ValueError(f"λ {REGION} needs paint, or a region that is marked")
            alpha = rasterise(self.paint.picture, strokes)[1]
            inside = latent_mask(
                self.pipe._region(strokes, alpha, 1.5, None), self.pipe.cell, "mean"
            )
            return np.clip(first * inside + last * (1 - inside), 0, 1)
        return float(first)

    def _x_edited(self) -> Image.Image:
        """x' as far as it is known: what P_img made of this paint, else the painted picture."""
        made_from, edited = self._made
        known = made_from is not None and made_from.picture is self.paint.picture
        if known and made_from.strokes == self.paint.strokes and edited is not None:
            return edited
        return self.paint.painted

    # --------------------------------------------------------------------------------- buttons

    def draw(self) -> None:
        """A picture from its sentence, put under the strokes; Undo brings the old one back."""
        self._free()
        prompt, seed = self.panel["prompt"].value, self.panel["seed"].value
        self.pipe.model.check_text(prompt, "picture")
        self._begin(self._draw, prompt, seed)

    def generate(self) -> None:
        """The clip that the panel asks for. ValueError while another one is being made."""
        self._free()
        self._begin(self._generate, self._asked())

    def stop(self) -> None:
        """End at the next step; what is foreseen so far is kept."""
        self._stop.set()
        self._go.set()

    def pause(self) -> None:
        """Stop at the next step, to paint, drag or move λ."""
        self._go.clear()
        self.say("Pausing after this step.")

    def resume(self) -> None:
        """Go on, with what was changed meanwhile."""
        self._next = self._asked()
        self._go.set()

    def _pause_or_resume(self) -> None:
        self.resume() if self.state == "paused" else self.pause()

    def _free(self) -> None:
        if self.busy:
            raise ValueError("one thing at a time: wait for it, or press Stop")

    def _begin(self, work, *args) -> None:
        self._stop.clear()
        self._go.set()

        def guarded():
            try:
                work(*args)
            except BaseException as error:  # in a thread nobody else would ever hear of it
                self._fail(error)
            finally:
                self._live_on(False)
                self._state("idle")
                self.progress.value = 0

        self._state("drawing" if work == self._draw else "running")
        self._thread = threading.Thread(target=guarded, daemon=True, name="ivkit-studio")
        self._thread.start()

    # ---------------------------------------------------------------------- the worker's part

    def _draw(self, prompt: str, seed: int) -> None:
        self.say("Drawing the picture.")
        picture = self._image(prompt, None, seed=seed)
        if picture is not None:
            self.paint.picture = picture
            self.say("Paint on it, drag what is in it, or go straight on to Generate.")

    def _image(self, prompt: str, picture, **options) -> Image.Image | None:
        """P_img, shown step by step; None where it was stopped."""
        strength = options.get("strength", 1)
        if picture is not None and int(self._image_steps * strength) == 0:
            return self.pipe.image(prompt, picture, **options)
        step = None
        for step in self.pipe.denoise_image(prompt, picture, **options):
            self._show("the picture", step, step.num_steps)
            if self._stop.is_set():
                self.say("Stopped. The picture stays as it was.")
                return None
        return step.picture

    def _edit(self, asked: _Asked) -> Image.Image | None:
        """x', or None where nothing is painted. The same paint is not drawn twice."""
        i = asked.instructions
        if not i.content or not i.content.strokes:
            return None
        wanted = dataclasses.replace(asked.sketch, trajectory=TrajectoryInstruction())
        key = (wanted, i.content.text, i.content.strength, i.seed)
        if getattr(self, "_edit_key", None) != key:
            how = {"strokes": i.content.strokes, "strength": i.content.strength, "seed": i.seed}
            edited = self._image(i.content.text, i.image.picture, **how)
            if edited is None:
                return None
            self._edit_key, self._made = key, (self.paint.board.sketch, edited)
            self.edited_view.value = _png(edited)
            self.edited_view.layout.display = ""
            self.edited_text.value = _small("x̃′: what the model made of the paint")
        return self._made[1]

    def _generate(self, asked: _Asked) -> None:
        if self._foreign(asked):
            return
        self.say("Working on the painted picture." if asked.strokes else "Beginning.")
        edited, i = self._edit(asked), asked.instructions
        if self._stop.is_set():
            return
        take = Take(self._name(), self.pipe.name, i, edited)
        changes: list[Change] = []
        for step in take.start(self.pipe):
            done = step.index + 1
            self._show("the clip", step, step.num_steps)
            if done < step.num_steps and not self._go.is_set():
                asked = self._wait(step, asked, changes)
            if self._stop.is_set():
                break
        run = self.pipe.last_run
        stopped = None if run.finished else run.state.index
        take = dataclasses.replace(take, changes=tuple(changes), stopped=stopped)
        self.say("Decoding the frames.")
        if run.finished and (edited is not None or i.trajectory or changes):
            self.unedited = run.unedited
        self._add(Result(take, run.frames))
        took = sum(run.seconds.values())
        self.say(f"Stopped after {stopped} steps; this is what was foreseen." if stopped
                 else "Done. Change something and generate again: every try stays."
                 + (f" ({took:.0f} s)" if took >= 1 else ""))  # fmt: skip

    def _wait(self, step, before: _Asked, changes: list[Change]) -> _Asked:
        """Until Resume or Stop. What was changed takes effect from the next step on."""
        while True:
            done = step.index + 1
            self._state("paused")
            self.say(f"Paused after step {done} of {step.num_steps}. Paint, drag or move λ: "
                     "Resume takes it up from there.")  # fmt: skip
            self._go.wait()
            if self._stop.is_set():
                return before
            self._state("running")
            now = self._next
            if now is None or now.same_edits(before):
                return before
            try:
                i, edited = now.instructions, self._edit(now)
                trajectory = i.trajectory or TrajectoryInstruction()
                change = Change(done, edited, trajectory, i.lam, i.motion.text)
                step.change(**change.edits())
            except (ValueError, TypeError) as error:  # bad input: say so and stay paused
                self._fail(error)
                self._go.clear()
                continue
            changes.append(change)
            self.say(f"Your changes are in force from step {done + 1} on.")
            return now

    def _foreign(self, asked: _Asked) -> bool:
        """A photograph that the embedded model cannot show: say so, and show what can be shown."""
        floor = getattr(self.pipe.model, "round_trip_db", None)
        i = asked.instructions
        if floor is None:
            return False
        back, decibels = self.pipe.round_trip(i.image.picture)
        if decibels >= floor:
            return False
        still = rasterise(i.image.picture, asked.strokes)[0]
        pictures = {"your picture": i.image.picture, f"after {self.pipe.name}": back}
        cards = [_picture_card(title, picture) for title, picture in pictures.items()]
        if i.trajectory:
            clip = warp(still, i.trajectory, i.num_frames).frames
            cards.append(w.VBox([_video(clip), w.HTML("cut and drag, no model")]))
        self._answer = cards
        self._lay_out()
        hint = (
            "" if i.trajectory else " Drag something in it, and its cut-and-drag clip shows here."
        )
        self.say(f"{self.pipe.name} was not made for this picture: it gives it back at "
                 f"{decibels:.0f} dB, where its own world reaches {floor:.0f}.{hint}")  # fmt: skip
        return True

    def _show(self, what: str, step, total: int) -> None:
        self._live_on(True)
        self.progress.max, self.progress.value = total, min(self.progress.value + 1, total)
        number = getattr(step, "index", 0) + 1 if what == "the clip" else self.progress.value
        if what == "the clip":
            self.progress.value = number
        self.live_text.value = f"{what}, step {number} of {total}, as it is foreseen"
        if not step.record.undefined("x0"):
            buffer = io.BytesIO()
            step.preview().save(buffer, "JPEG", quality=88)
            self.live.value = buffer.getvalue()

    def _live_on(self, on: bool) -> None:
        if on != getattr(self, "_live_shown", False):
            self._live_shown = on
            self.progress.value = 0
            self._lay_out()

    # --------------------------------------------------------------------------------- results

    def _name(self) -> str:
        taken = {result.take.name for result in self.results}
        return next(f"try {n}" for n in range(1, 10_000) if f"try {n}" not in taken)

    def _add(self, result: Result) -> None:
        self._answer = []
        result.card = self._card(result)
        loose = [r for r in self.results if not r.kept]
        for old in loose[: max(0, len(loose) - TRIES + 1)]:
            self.results.remove(old)
        self.results.append(result)
        self._lay_out()
        self._keep()

    def _lay_out(self) -> None:
        cards = [self._live_card] if getattr(self, "_live_shown", False) else []
        cards += getattr(self, "_answer", [])
        if self.unedited is not None:
            if getattr(self, "_unedited_of", None) is not self.unedited:
                self._unedited_of = self.unedited
                plain = _small("<b>unedited</b><br>the same seed and motion, λ = 1")
                self._unedited_card = w.VBox([_video(self.unedited), w.HTML(plain)],
                                             layout=_fixed(CARD))  # fmt: skip
            cards.append(self._unedited_card)
        self._cards.children = [*cards, *(r.card for r in reversed(self.results))]

    def _card(self, result: Result) -> w.VBox:
        guard, take = self._guard, result.take
        if result.frames is None:
            replay = button("Make it again", "refresh", guard(lambda: self.replay(result)), "130px")
            top: w.Widget = w.VBox([_still(take.edited or take.instructions.image.picture), replay])
        else:
            top = _video(result.frames)
        name = w.Text(take.name, layout=w.Layout(width=f"{CARD - 6}px"), continuous_update=False)
        small = {"layout": w.Layout(width="76px")}
        keep = w.ToggleButton(result.kept, description="keep", icon="star", **small)
        compare = w.ToggleButton(result.compared, description="⇄", tooltip="compare",
                                 layout=w.Layout(width="44px"))  # fmt: skip
        away = button("", "trash", guard(lambda: self.remove(result)), "44px")
        kinds = [button(kind, "download", guard(lambda k=kind: self.export(result, k)), "76px")
                 for kind in ("mp4", "gif", "png")]  # fmt: skip

        def rename(change):
            result.take = dataclasses.replace(result.take, name=change["new"])
            self._keep()

        name.observe(guard(rename), "value")
        keep.observe(lambda c: setattr(result, "kept", c["new"]), "value")
        compare.observe(lambda c: setattr(result, "compared", c["new"]), "value")
        rows = [top, name, w.HTML(_caption(take), layout=w.Layout(width=f"{CARD}px")),
                w.HBox([keep, compare, away])]  # fmt: skip
        return w.VBox([*rows, w.HBox(kinds)], layout=_fixed(CARD))

    def remove(self, result: Result) -> None:
        """Take a clip off the panel."""
        if result.kept:
            raise ValueError(f"{result.take.name!r} is kept: press keep again first")
        self.results.remove(result)
        self._lay_out()
        self._keep()

    def replay(self, result: Result) -> None:
        """Make the clip of an opened session again; the frames are the same."""
        self._free()

        def work():
            run = result.take.replay(
                self.pipe, lambda step: self._show("the clip", step, step.num_steps)
            )
            result.frames = run.frames
            result.card = self._card(result)
            self._lay_out()
            self.say(f"{result.take.name} is made again.")

        self._begin(work)

    def compare(self) -> None:
        """The clips marked ⇄ (else the last two) as one, so that they play in step."""
        shown = [r for r in self.results if r.frames is not None]
        chosen = [r for r in shown if r.compared] or shown[-2:]
        named = [(r.take.name, r.frames) for r in chosen]
        if self.unedited is not None and len(named) < 4:
            named.insert(0, ("unedited", self.unedited))
        if len(named) < 2:
            raise ValueError("there is nothing to compare yet: two clips are needed")
        count = min(len(frames) for _, frames in named)
        gap = np.full((count, named[0][1].shape[1], 6, 3), 255, np.uint8)
        parts = [part for _, frames in named for part in (frames[:count], gap)][:-1]
        width = min(250 * len(named), 1000)
        clip = _video(np.concatenate(parts, axis=2), width)
        names = "".join(f'<span style="display:inline-block;width:{width // len(named)}px">'
                        f"{html.escape(name)}</span>" for name, _ in named)  # fmt: skip
        self._compared.children = (w.HTML(names), clip)

    def export(self, result: Result, kind: str) -> Path:
        """Write a clip as mp4, gif, or png (its frames on one sheet); the file says what it is.

        Its metadata hold that it is generated, by which model, with which settings and seed.
        """
        if result.frames is None:
            raise ValueError(f"{result.take.name!r} has no frames yet: make it again first")
        stem = re.sub(r"[^\w-]+", "-", result.take.name).strip("-") or "clip"
        path, says = self.folder / f"{stem}.{kind}", provenance(result.take)
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "png":
            info = PngInfo()
            info.add_text("Comment", says)
            contact_sheet(result.frames).save(path, pnginfo=info)
        else:
            save_video(path, result.frames, comment=says)
        self.say(f"Written: {path}")
        return path

    # --------------------------------------------------------------------------------- session

    def _check_panel(self, panel) -> None:
        """ValueError where a value is not one that the panel can show."""
        for name, value in panel:
            widget = self.panel.get(name)
            if hasattr(widget, "min"):
                _number(name, value, widget.min, widget.max)
            elif hasattr(widget, "options"):
                _choice(name, value, widget.options)
            elif widget is not None and not isinstance(value, str):
                raise ValueError(f"{name} must be a text, got {value!r}")

    @property
    def session(self) -> Session:
        """All that is in the panel, as plain data."""
        sketch = dataclasses.replace(self.paint.board.sketch, trajectory=self.drag.trajectory)
        panel = tuple((name, widget.value) for name, widget in self.panel.items())
        return Session(sketch, panel, tuple(r.take for r in self.results))

    @session.setter
    def session(self, session: Session) -> None:
        if session.sketch.picture.size != self.pipe.size:
            raise ValueError(
                "the session's picture is {} x {} pixels, where {} works at {} x {}".format(
                    *session.sketch.picture.size, self.pipe.name, *self.pipe.size
                )
            )
        self._check_panel(session.panel)
        for name, value in session.panel:
            if name in self.panel:
                self.panel[name].value = value
        sketch = session.sketch
        self.paint.board.commit(dataclasses.replace(sketch, trajectory=TrajectoryInstruction()))
        self.drag.board.commit(Sketch(sketch.picture, trajectory=sketch.trajectory))
        have = {id(r.take) for r in self.results}
        for take in session.takes:
            if id(take) not in have:
                self._add(Result(take, None))

    def save(self, path: str | os.PathLike) -> None:
        """Write the session as JSON: sketch, settings, and every take on show."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.session.save(path)
        self.say(f"Written: {path}")

    def load(self, path: str | os.PathLike) -> None:
        """Open a session. ValueError where the file is damaged; what is here then stays."""
        self._free()
        self.session = Session.load(path)
        self.say("Opened. Each clip can be made again: the frames will be the same.")

    def _keep(self) -> None:
        if self.autosave is not None:
            self.autosave.put(self.session)
            if self.autosave.failed:
                self.say(f"This is not being saved: {self.autosave.failed}", error=True)

    def _offer(self, kept: Session) -> None:
        def bring_back():
            self.session = kept
            self.offer.children = ()
            self.say("Here it is again.")

        text = w.HTML("What you made in an earlier session is kept.")
        yes = button("Bring it back", "history", self._guard(bring_back), "130px")
        no = button("No", "times", lambda: setattr(self.offer, "children", ()), "60px")
        self.offer.children = (text, yes, no)


@dataclass(frozen=True)
class _Asked:
    """What the panel said at one moment."""

    instructions: Instructions

    @property
    def strokes(self):
        return self.instructions.content.strokes if self.instructions.content else ()

    @property
    def sketch(self) -> Sketch:
        return Sketch(self.instructions.image.picture, self.strokes)

    def same_edits(self, other: _Asked) -> bool:
        a, b = self.instructions, other.instructions
        same = (a.content, a.motion.text, a.trajectory) == (b.content, b.motion.text, b.trajectory)
        return same and np.array_equal(a.lam, b.lam)


_LABEL = {"description_width": "70px"}


def _row(kind, text: str, **options):
    """One row of the panel. A Layout is an object: each widget needs its own."""
    layout = w.Layout(width="330px")
    return kind(description=text, layout=layout, style=_LABEL, continuous_update=False, **options)


def _fixed(width: int) -> w.Layout:
    return w.Layout(width=f"{width}px", flex="0 0 auto", margin="0 8px 8px 0")


def _title(text: str) -> w.HTML:
    return w.HTML(f"<b style='color:#444'>{html.escape(text)}</b>")


def _video(frames: np.ndarray, width: int = CARD) -> w.Video:
    return w.Video(value=encode_video(frames, FPS), format="mp4", autoplay=True, loop=True,
                   controls=True, layout=w.Layout(width=f"{width}px"))  # fmt: skip


def _still(picture: Image.Image) -> w.Image:
    return w.Image(value=_png(picture), format="png", layout=w.Layout(width=f"{CARD}px"))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _small(text: str) -> str:
    """HTML in a caption's size."""
    return f"<div style='line-height:1.35;font-size:12px;color:#444'>{text}</div>"


def _picture_card(title: str, picture: Image.Image) -> w.VBox:
    return w.VBox([_still(picture), w.HTML(html.escape(title))], layout=_fixed(CARD))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _caption(take: Take) -> str:
    """The settings of a take, in two short lines."""
    i = take.instructions
    lam = f"{i.lam:.2g}" if isinstance(i.lam, float) else f"{i.lam.min():.2g} to {i.lam.max():.2g}"
    strokes = len(i.content.strokes) if i.content else 0
    drags = len(i.trajectory.drags) if i.trajectory else 0
    changed = "".join(f", changed at step {c.step + 1}" for c in take.changes)
    stopped = f", stopped at step {take.stopped}" if take.stopped else ""
    facts = f"λ {lam} · seed {i.seed} · {i.num_inference_steps} steps{changed}{stopped}"
    edits = f"{_count(strokes, 'stroke')} · {_count(drags, 'drag')}"
    return _small(f"{html.escape(i.motion.text)}<br>{facts}<br>{edits}")
