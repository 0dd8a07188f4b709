"""Studio: type, paint, drag, generate, pause, paint again, go on; compare and keep the clips."""

from __future__ import annotations

import dataclasses
import functools
import html
import os
import re
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets as w
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..instructions import (
    ContentInstruction,
    ImageInstruction,
    Instructions,
    MotionInstruction,
    Settings,
    TrajectoryInstruction,
)
from ..paint import edit_region, latent_mask, rasterise
from ..pictures import Picture, png
from ..pipeline import Pipeline
from ..support import validate
from ..support.disk import unused, write_picture
from ..trajectory import warp
from ..view import contact_sheet, save_video
from .canvas import PaintCanvas
from .cards import CARD, Result, card, counted, picture_card, side_by_side, video, written
from .drag import DragCanvas, webp
from .panel import Panel
from .parts import TIP, Line, button, choice, column, flow, heading, picture_view, row, small, words
from .session import Change, Session, Sketch, Take, provenance
from .suggest import Suggestion, suggestions

CONSTANT, RAMP, REGION = "the same everywhere", "from step to step", "inside and outside the paint"
PLACEHOLDER = (225, 229, 235)
TRIES = 8  # clips on show besides those that are kept
PREVIEW = 0.25  # of a step's time, that its moving preview may take
FAINT = 0.3  # of a stroke's colour; what shows less of it in x' can hardly be seen


class Control(NamedTuple):
    """A row of the panel. reads: the field of `Instructions` that it is, where it is just one.
    fixed: whether it is in force from the first step on, so that it rests while a clip is made."""

    kind: type[w.Widget]
    text: str
    tip: str
    reads: str
    fixed: bool
    options: dict[str, Any]


SHARE = {"min": 0, "max": 1, "step": 0.05, "readout_format": ".2f"}
SECTIONS = {
    "Picture": ("prompt", "seed"),
    "Paint": ("content", "strength"),
    "Motion": ("motion", "motion_scale", "weak"),
    "Blend: 1 ignores the edits, 0 follows them": ("lam_mode", "lam", "lam_end", "steps", "frames"),
}
FORMERLY = {"hold": "weak"}  # names of controls in the sessions of earlier versions


def controls(model) -> dict[str, Control]:
    """The rows of the panel, by name."""
    video, frames = model.defaults["video"], model.num_frames
    scales = len(model.motion_scales or ())
    steps, scale = video["num_inference_steps"], video.get("motion_scale", 0) if scales else 0
    table = {
        "prompt": Control(w.Text, "Picture", "What Draw makes a picture of", "", False,
                          {"value": "a boat on the blue sea at day"}),
        "seed": Control(w.BoundedIntText, "Seed", "Another number, another noise", "seed", True,
                        {"value": 3, "min": 0, "max": 2**31 - 1, "width": 170}),
        "content": Control(w.Text, "Painted", "What the picture shows together with the paint",
                           "content.text", False, {"placeholder": "what it shows with the paint"}),
        "strength": Control(w.FloatSlider, "Strength", "How freely the model redraws the paint",
                            "content.strength", False, {"value": 0.7, **SHARE}),
        "motion": Control(w.Text, "Motion", "What moves, and how", "motion.text", False,
                          {"value": "the boat moves right"}),
        "motion_scale": Control(w.IntSlider, "How much", "How much moves", "motion.motion_scale",
                                True, {"value": scale, "min": 0, "max": max(scales - 1, 1)}),
        "weak": Control(w.FloatSlider, "Weak", "The part of the steps in which a drag holds all "
                        "else still", "weak", True, {"value": Settings.weak, **SHARE}),
        "lam_mode": Control(w.Dropdown, "λ is", "Whether λ is one number", "", False,
                            {"options": [CONSTANT, RAMP, REGION]}),
        "lam": Control(w.FloatSlider, "λ", "1 ignores the edits, 0 follows them and holds a drag",
                       "lam", False, {"value": 0.3, **SHARE}),
        "lam_end": Control(w.FloatSlider, "λ, last", "λ at the last step, or outside the paint",
                           "", False, {"value": 1.0, **SHARE}),
        "steps": Control(w.IntSlider, "Steps", "More steps take longer and look finer",
                         "num_inference_steps", True,
                         {"value": steps, "min": 1, "max": max(50, steps)}),
        "frames": Control(w.IntSlider, "Frames", "How long the clip is", "num_frames", True,
                          {"value": frames, "min": 2, "max": max(frames, 2)}),
    }  # fmt: skip
    return table


class Studio(Panel):
    """The whole pipeline in one panel.

    Draw makes a picture from its sentence (or load one). Paint on it, drag things, say what moves,
    and Generate. While the clip is made it is shown as it is predicted. Pause, paint or drag or
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
        weak, lam_mode, lam, lam_end, steps, frames.
      results: what is on show, each with `take` and `frames`.
      errors: exceptions of callbacks and of the worker, all of which were said in the panel.
    """

    @validate.checked
    def __init__(
        self,
        pipe: Pipeline,
        picture: Picture | None = None,
        *,
        autosave: validate.Name | None = "studio",
        folder: validate.File = Path("outputs"),
        width: validate.Side = 360,
    ):
        if "video" not in pipe.model.capabilities:
            raise ValueError(f"{pipe.name} makes pictures alone: load 'pia', 'svd' or another")
        super().__init__(Line(min_height="44px"))  # of both canvases: one place for what is said
        self.pipe, self.folder = pipe, folder
        self.files_line = Line(self.errors)
        blank, frames = Image.new("RGB", pipe.size, PLACEHOLDER), pipe.model.num_frames
        shared = {"width": width, "autosave": None, "line": self.line}
        self.paint = PaintCanvas(blank, size=pipe.size, **shared)
        self.drag = DragCanvas(blank, num_frames=frames, **shared)
        self.results: list[Result] = []
        self.gone: list[Result] = []  # deleted ones, and old ones that made room
        self._tries = 0  # numbers go onwards, whatever is deleted
        self._laid: list[tuple[Image.Image, TrajectoryInstruction]] = []  # the drags of a picture
        self._drawn: tuple[Image.Image | None, str] = None, ""  # by Draw, from this text
        self._asked_about: str | None = None  # the picture text that a question was about
        self.unedited: np.ndarray | None = None
        self._thread: threading.Thread | None = None
        self._go, self._stop = threading.Event(), threading.Event()
        self._next: _Asked | None = None  # what Resume asked for
        self._made: tuple | None = None  # (what x' was made from, x'), of the last x'
        self._keeps = False  # the clip that is made is to be kept
        self._build()
        self._keep_as(autosave, Session, "What you made in an earlier session is kept.")
        if picture is not None:
            self.paint.picture = picture
        self._base = self.paint.picture  # which the drags lie on
        self.drag.rebase(self._base)
        self.paint.listeners.append(self._new_picture)
        for canvas in (self.paint, self.drag):
            canvas.listeners.append(self._save_soon)
        for widget in self.panel.values():
            widget.observe(lambda _: self._save_soon(), "value")
        self._state("idle")
        self.line.say(
            "Press Draw for a picture, or load one."
            if self._empty_picture()
            else "Paint on the picture, drag what is in it, or press Generate."
        )

    # --------------------------------------------------------------------------------- layout

    def _build(self) -> None:
        """The widgets. Two canvases share a place; what they bring along wraps with the rest."""
        guard, files = self.line.guard, self.files_line.guard
        modes = {"Paint": "Paint on the picture", "Drag": "Say what moves where"}
        modes = {name: (name, says) for name, says in modes.items()}
        self.mode = choice("What the mouse does", modes, 164, margin="0 0 8px 0")
        self.on(self.mode, lambda _: self._switch())
        buttons = {
            "draw": ("Draw", "magic", self.draw, "A picture from its sentence and seed", "156px"),
            "generate": ("Generate", "film", self.generate, "Make the clip", "120px"),
            "pause": ("Pause", "pause", self._pause_or_resume, "Wait after this step", "102px"),
            "stop": ("Stop", "stop", self.stop, "End now, and keep what there is", "100px"),
        }
        for name, (text, icon, work, tip, width) in buttons.items():
            setattr(self, f"{name}_button", button(text, icon, guard(work), tip, width))
        self.generate_button.button_style = "primary"
        length = w.Layout(width="330px", max_width="100%", height="16px")
        self.progress = w.IntProgress(0, 0, 1, layout=length, **{TIP: "Progress"})
        buttons = flow(self.generate_button, self.pause_button, self.stop_button)
        actions = w.VBox([buttons, self.progress])
        for canvas in (self.paint, self.drag):
            canvas.below.children = (actions,)
            canvas.row.layout.display = "contents"  # its parts wrap with those of the studio
        drag = self.drag  # its warp stands with the clips, its settings after the panel
        drag.load_picture, drag.upload.layout.display = self.paint.load_picture, "none"
        drag.row.children, drag.settings.layout.order = (drag.column, drag.settings), "1"
        drag.preview_box.layout.width = drag.preview.layout.width = f"{CARD}px"

        self.live, self.live_text = picture_view(CARD, format="webp"), words()
        says = "End now, and keep the clip as it is shown"
        enough = button("Stop and keep this", "star", files(self.keep_this), says, "180px")
        self._live_card = w.VBox([self.live, self.live_text, enough])
        self._live_card.layout.display = "none"
        self.edited_view, self.edited_text = picture_view(CARD, format="png"), words()
        self._edited = w.VBox([self.edited_view, self.edited_text])
        self._edited.layout.display = "none"
        self._answer: list[w.Widget] = []  # to a photograph that the model cannot show
        self._plain: list[w.Widget] = []  # the unedited clip
        self._empty = words(small("Press Generate: your clip is shown here, step by step."))
        self._newest, self._cards = column(CARD), flow()  # beside the canvas, and below
        self._compared, self._gone_row, self._next_row = w.VBox(), flow(), w.VBox()
        path = {"value": "outputs/session.json"}
        self.file = row(w.Text, "Session", "The session's file", 330, 70, **path)
        save, opens = (files(lambda do=do: do(self.file.value)) for do in (self.save, self.load))
        says = "Show the clips marked ⇄, or the last two, side by side"
        bar = flow(
            button("Compare", "columns", files(self.compare), says, "110px"),
            self.file,
            button("Save", "save", save, "Write all that is here into the session's file"),
            button("Open", "folder-open", opens, "Read the session's file"),
        )
        parts = flow(self.paint, drag, self._newest, self._build_panel())
        tries = (self._next_row, self._gone_row, self._cards, bar, self.files_line, self._compared)
        self.children = [self.offer, self.mode, parts, *tries]
        self._switch()

    def _build_panel(self) -> w.VBox:
        self.controls = controls(self.pipe.model)
        self.panel: dict[str, Any] = {}
        for name, c in self.controls.items():
            options = {"width": 330, "label": 70, **c.options}
            self.panel[name] = row(c.kind, c.text, c.tip, **options)
        says = "A drag holds all else still for so long; at 0.5 the text can move other things."
        known = ", ".join(self.pipe.words)
        more = {"seed": self.draw_button, "weak": words(small(says), width="330px")}
        if known:
            knows = f"<summary>Words that {html.escape(self.pipe.name)} knows</summary>"
            more["frames"] = words(f"<details>{knows}{known}</details>", width="330px")
        self.panel["lam_mode"].observe(lambda _: self._lam_rows(), "value")
        self._lam_rows()
        shown = []
        for title, names in SECTIONS.items():
            shown.append(heading(title))
            shown += [flow(self.panel[n], more[n]) if n in more else self.panel[n] for n in names]
        return column(340, *shown)

    def _lam_rows(self) -> None:
        mode, lam, end = (self.panel[n] for n in ("lam_mode", "lam", "lam_end"))
        names = {CONSTANT: ("λ", ""), RAMP: ("λ, first", "λ, last"), REGION: ("Inside", "Outside")}
        lam.description, end.description = names[mode.value]
        end.layout.display = "none" if mode.value == CONSTANT else ""

    def _switch(self) -> None:
        painting = self.mode.value == "Paint"
        if not painting:
            self.drag.rebase(self._x_edited())
        self.paint.layout.display = "contents" if painting else "none"
        self.drag.layout.display = "none" if painting else "contents"
        self._lay_out()

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def join(self, seconds: float | None = None) -> None:
        """Wait until the worker has finished, at most so many seconds."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _state(self, state: str) -> None:
        self.state = state
        self.draw_button.disabled = self.generate_button.disabled = state != "idle"
        for name, control in self.controls.items():
            self.panel[name].disabled = control.fixed and state != "idle"
        self.panel["motion_scale"].disabled |= not self.pipe.model.motion_scales
        self.pause_button.disabled = state not in ("running", "paused")
        self.stop_button.disabled = state == "idle"
        paused = state == "paused"
        self.pause_button.description = "Resume" if paused else "Pause"
        self.pause_button.icon = "play" if paused else "pause"

    # --------------------------------------------------------------------------- what is asked

    def _asked(self) -> _Asked:
        """All that the panel says, checked before any work."""
        v = {name: widget.value for name, widget in self.panel.items()}
        sketch, r = self.paint.sketch, self.drag.trajectory
        if self._empty_picture():
            raise ValueError("there is no picture yet: press Draw, or load one under Paint")
        content = v["content"].strip() or v["prompt"].strip()
        self.pipe.model.check_text(v["motion"], "motion")
        if sketch.strokes:
            name = "painted" if v["content"].strip() else "picture"
            self.pipe.pictures.check_text(content, name)
        scale = v["motion_scale"] if self.pipe.model.motion_scales else None
        painted = content or sketch.strokes
        reads = {name: control.reads for name, control in self.controls.items()}
        numbers = {field: v[name] for name, field in reads.items() if field and "." not in field}
        y = ContentInstruction(content, sketch.strokes, v["strength"]) if painted else None
        instructions = Instructions(
            image=ImageInstruction(sketch.picture),
            content=y,
            motion=MotionInstruction(v["motion"], scale),
            trajectory=r if r or r.pins else None,
            **numbers | {"lam": self._lam(sketch)},
        )
        return _Asked(instructions, sketch)

    def _lam(self, sketch: Sketch):
        first, last = self.panel["lam"].value, self.panel["lam_end"].value
        mode = self.panel["lam_mode"].value
        if mode == RAMP:
            return np.linspace(first, last, self.panel["steps"].value).reshape(-1, 1, 1, 1, 1)
        if mode == REGION:
            if not sketch.strokes:
                raise ValueError(f"λ {REGION} needs paint, or a region that is marked")
            alpha = rasterise(sketch.picture, sketch.strokes)[1]
            region = edit_region(sketch.strokes, alpha, cell=self.pipe.pictures.vae_scale_factor)
            inside = latent_mask(region, self.pipe.vae_scale_factor, "mean")
            return np.clip(first * inside + last * (1 - inside), 0, 1)
        return float(first)

    def _empty_picture(self) -> bool:
        return self.paint.picture.getcolors(1) is not None

    def _x_edited(self) -> Image.Image:
        """x' as far as it is known: what P_img made of this paint, else the painted picture."""
        if self._made is not None:
            (sketch, *_, weights), edited = self._made
            if sketch is self.paint.sketch and weights == self.pipe.pictures.changed:
                return edited
        return self.paint.painted

    def _new_picture(self) -> None:
        """Each picture has its own drags: another one begins with none, Undo brings them back."""
        picture = self.paint.picture
        made = self._made is not None and self._made[0][0].picture is picture
        self._edited.layout.display = "" if made else "none"
        if picture is self._base:
            return
        self._laid = [(old, r) for old, r in self._laid if old is not self._base]
        self._laid.append((self._base, self.drag.trajectory))
        r = next((r for old, r in self._laid if old is picture), TrajectoryInstruction())
        self._base = picture
        self.drag.rebase(picture)
        if r != self.drag.trajectory:
            self.drag.trajectory = r

    # --------------------------------------------------------------------------------- buttons

    def draw(self) -> None:
        """A picture from its sentence, put under the strokes; Undo brings the old one back."""
        self._free()
        prompt, seed = self.panel["prompt"].value, self.panel["seed"].value
        self.pipe.pictures.check_text(prompt, "picture")
        self._begin("drawing", self._draw, prompt, seed)

    def generate(self) -> None:
        """The clip that the panel asks for. ValueError while another one is being made."""
        self._free()
        asked, (picture, text) = self._asked(), self._drawn
        now = self.panel["prompt"].value
        if picture is self.paint.picture and now != text and self._asked_about != now:
            self._asked_about = now
            self.line.say(
                "The picture was drawn from another text. Press Draw for a new one, or press "
                "Generate once more to use it as it is."
            )
            return
        self._begin("running", self._generate, asked)

    def stop(self) -> None:
        """End at the next step; what is predicted so far is kept."""
        self._stop.set()
        self._go.set()

    def keep_this(self) -> None:
        """`stop`, and mark the clip as kept."""
        self._keeps = True
        self.stop()

    def pause(self) -> None:
        """Stop at the next step, to paint, drag or move λ."""
        self._go.clear()
        self.line.say("Pausing after this step.")

    def resume(self) -> None:
        """Go on, with what was changed meanwhile."""
        self._next = self._asked()
        self._go.set()

    def _pause_or_resume(self) -> None:
        self.resume() if self.state == "paused" else self.pause()

    def _free(self) -> None:
        if self.busy:
            raise ValueError("one thing at a time: wait for it, or press Stop")

    def _begin(self, state: str, work, *args) -> None:
        self._next, self._keeps = None, False
        self._stop.clear()
        self._go.set()

        def run():
            self.line.guard(work, alone=False)(*args)
            self._live_on(False)
            self._state("idle")

        self._state(state)
        self._thread = threading.Thread(target=run, daemon=True, name="ivkit-studio")
        self._thread.start()

    # ---------------------------------------------------------------------- the worker's part

    def _draw(self, prompt: str, seed: int) -> None:
        self.line.say("Drawing the picture.")
        picture = self._image(prompt, None, seed=seed)
        if picture is not None:
            self.paint.picture = picture
            self._drawn = self.paint.picture, prompt
            self.line.say(
                "Paint on it, drag what is in it, or go straight on to Generate. "
                "Undo brings back the old picture and what was on it."
            )

    def _image(self, prompt: str, picture, **options) -> Image.Image | None:
        """P_img, shown step by step; None where it was stopped."""
        step = None
        for n, step in enumerate(self.pipe.denoise_image(prompt, picture, **options), 1):
            self._show("the picture", step, n)
            if self._stop.is_set():
                self.line.say("Stopped. The picture stays as it was.")
                return None
        return self.pipe.image(prompt, picture, **options) if step is None else step.picture

    def _edit(self, asked: _Asked) -> Image.Image | None:
        """x', or None where nothing is painted. The same paint is not drawn twice."""
        i, strokes = asked.instructions, asked.sketch.strokes
        if not strokes:
            return None
        weights = self.pipe.pictures.changed
        wanted = (asked.sketch, i.content.text, i.content.strength, i.seed, weights)
        if self._made is None or self._made[0] != wanted:
            how = {"strokes": strokes, "strength": i.content.strength, "seed": i.seed}
            edited = self._image(i.content.text, asked.sketch.picture, **how)
            if edited is None:
                return None
            self._made = (wanted, edited)
            self.edited_view.value = png(edited)
            says = "x̃′: what the model made of the paint"
            if faint := unseen(asked.sketch, edited):
                says += (
                    f"<br>⚠ Stroke {' and '.join(map(str, faint))} can hardly be seen in it: "
                    "paint it wider, or lower Strength."
                )
            self.edited_text.value = small(says)
            self._edited.layout.display = ""
        return self._made[1]

    def _generate(self, asked: _Asked) -> None:
        if self._foreign(asked):
            return
        self.line.say("Working on the painted picture." if asked.sketch.strokes else "Beginning.")
        edited, i = self._edit(asked), asked.instructions
        if self._stop.is_set():
            return
        self._tries += 1
        take = Take(f"try {self._tries}", self.pipe.name, i, edited)
        changes: list[Change] = []
        for step in take.start(self.pipe):
            self._show("the clip", step, step.index + 1)
            if step.index + 1 < step.num_steps and (self._next or not self._go.is_set()):
                asked = self._wait(step, asked, changes)
            if self._stop.is_set():
                break
        run = step.run
        stopped = None if run.finished else run.index
        made = {"changes": tuple(changes), "stopped": stopped, "kept": self._keeps}
        take = dataclasses.replace(take, **made)
        self.line.say("Decoding the frames.")
        edits = run.finished and (edited is not None or i.trajectory or changes)
        self.unedited = run.unedited if edits else None
        clip = None if not run.finished else run.undragged if edits else run.frames
        if clip is not None:
            self.drag.on_clip(run.still, clip)
        self._plain = []
        if edits:
            says = words(small("<b>unedited</b><br>the same seed and motion, λ = 1"))
            self._plain = [column(CARD, video(self.unedited), says)]
        self._add(Result(take, run.frames))
        if stopped:
            self.line.say(
                f"Stopped after {counted(stopped, 'step')}: the clip as it was predicted."
            )
            return
        took = sum(run.seconds.values())
        done = f"Done in {took:.0f} s." if took >= 1 else "Done."
        says = f"the last {TRIES} tries stay, and all that you keep."
        self.line.say(f"{done} Change something and generate again: {says}")

    def _wait(self, step, before: _Asked, changes: list[Change]) -> _Asked:
        """Until Resume or Stop. What was changed takes effect from the next step on."""
        done = step.index + 1
        while True:
            if not self._go.is_set() and not self._stop.is_set():
                self._state("paused")
                self.line.say(
                    f"Paused after step {done} of {step.num_steps}. Paint, drag or move λ: "
                    "Resume takes it up from there."
                )
                self._go.wait()
            if self._stop.is_set():
                return before
            self._state("running")
            now, self._next = self._next, None
            if now is None or now.same_edits(before):
                return before
            try:
                i, edited = now.instructions, self._edit(now)
                if self._stop.is_set():
                    return before
                trajectory = i.trajectory or TrajectoryInstruction()
                change = Change(done, edited, trajectory, i.lam, i.motion.text)
                step.change(**change.edits())
            except (ValueError, TypeError) as error:  # bad input: say so and stay paused
                self.line.fail(error)
                self._go.clear()
                continue
            changes.append(change)
            self.line.say(f"Your changes are in force from step {done + 1} on.")
            return now

    def _foreign(self, asked: _Asked) -> bool:
        """A photograph that the embedded model cannot show: say so, and show what can be shown."""
        i, picture = asked.instructions, asked.sketch.picture
        found = self.pipe.out_of_domain(picture)
        if found is None:
            return False
        back, decibels, floor = found
        self._answer = [
            picture_card("your picture", picture),
            picture_card(f"after {self.pipe.name}", back),
        ]
        hint = " Drag something in it, and its cut-and-drag clip shows here."
        if i.trajectory:
            hint, still = "", rasterise(picture, asked.sketch.strokes)[0]
            clip = video(warp(still, i.trajectory, i.num_frames).frames)
            self._answer.append(column(CARD, clip, words(small("cut and drag, no model"))))
        self._lay_out()
        self.line.say(
            f"{self.pipe.name} was not made for this picture: it gives it back at "
            f"{decibels:.0f} dB, where its own world reaches {floor:.0f}.{hint}"
        )
        return True

    def _show(self, what: str, step, number: int) -> None:
        self._live_on(True)
        self.progress.max, self.progress.value = step.num_steps, number
        says = f"{what}, step {number} of {step.num_steps}, as it is predicted"
        self.live_text.value = small(says)
        if step.record.overwritten or not step.record.undefined("x0"):
            self.live.value = webp(self._predicted(step))
        self._shown_at = time.perf_counter()

    def _predicted(self, step) -> list[Image.Image]:
        """As many frames of the clip, evenly spread, as may be decoded in a part of a step's time;
        one of a picture."""
        if not hasattr(step, "change"):
            return [step.preview()]
        begun, count = time.perf_counter(), len(step.run.z)
        took = begun - self._shown_at if step.index else 0
        frames = [step.preview(count - 1)]
        each = max(time.perf_counter() - begun, 1e-4)
        more = min(int(PREVIEW * took / each), count - 1)
        return [step.preview(round(count * k / (more + 1))) for k in range(more)] + frames

    def _live_on(self, on: bool) -> None:
        self._live_card.layout.display = "" if on else "none"
        if not on:
            self.progress.value = 0

    # --------------------------------------------------------------------------------- results

    def _add(self, result: Result, at: int | None = None) -> None:
        self._answer = []
        result.card = card(result, self)
        if number := re.fullmatch(r"try (\d{1,9})", result.take.name):
            self._tries = max(self._tries, int(number[1]))
        self.results.insert(len(self.results) if at is None else at, result)
        loose = [r for r in self.results if not r.take.kept]
        self._take_off(loose[: len(loose) - TRIES] if len(loose) > TRIES else ())

    def _take_off(self, results) -> None:
        """Clips leave the panel, but not for good: `show_again` has the last of them."""
        for result in results:
            self.results.remove(result)
            self.gone.append(result)
        self.gone = self.gone[-TRIES:]
        guard, tip = self.files_line.guard, "Bring it back, and keep it"
        works = [(r.take.name, guard(partial(self.show_again, r))) for r in self.gone]
        back = [button(name, "history", work, tip, "110px") for name, work in works]
        says = words(small(f"Deleted, or off the panel, which shows {TRIES} besides those kept:"))
        self._gone_row.children = [says, *back] if back else []
        self._lay_out()
        self.renamed()

    def show_again(self, result: Result) -> None:
        """A clip that was deleted or made room is on show again, and is kept."""
        self.gone.remove(result)
        result.take = dataclasses.replace(result.take, kept=True)
        self._add(result, 0)

    def renamed(self) -> None:
        """What a card says of its take has changed: its name, or whether it is kept."""
        self._suggest()
        self._save_soon()

    def _lay_out(self) -> None:
        """The clip that is made and the newest one beside the canvas, the others below."""
        warp = [self.drag.preview_box] if self.mode.value == "Drag" else []
        newest, *others = [result.card for result in reversed(self.results)] or [self._empty]
        self._newest.children = [self._live_card, *warp, newest, self._edited]
        self._cards.children = [*self._answer, *self._plain, *others]

    def remove(self, result: Result) -> None:
        """Take a clip off the panel; `show_again` undoes it."""
        if result.take.kept:
            raise ValueError(f"{result.take.name!r} is kept: press keep again first")
        self._take_off([result])

    def _suggest(self) -> None:
        """Offer what to try next, each with the rule that it follows from."""
        rows = []
        for found in suggestions([result.take for result in self.results]):
            work = self.line.guard(partial(self.follow, found))
            press = button("Try it", "lightbulb-o", work, found.says, "90px")
            says = words(small(html.escape(f"{found.says} {found.why}")))
            rows.append(flow(press, says, align_items="center"))
        self._next_row.children = rows

    def follow(self, found: Suggestion) -> None:
        """Put what is suggested into the panel and onto the canvases, and generate."""
        self._free()
        i, sketch = found.instructions, self.paint.sketch
        strokes = i.content.strokes if i.content else ()
        if (sketch.picture, sketch.strokes) != (i.image.picture, strokes):
            self.paint.change(picture=i.image.picture, strokes=strokes)
        self.drag.trajectory = i.trajectory
        if isinstance(i.lam, float):
            self.panel["lam_mode"].value = CONSTANT
        for name, control in self.controls.items():
            fields = control.reads.split(".")
            value = functools.reduce(lambda at, field: getattr(at, field, None), fields, i)
            if isinstance(value, (str, int, float)):
                self.panel[name].value = value
        self.generate()

    def replay(self, result: Result) -> None:
        """Make the clip of an opened session again; the frames are the same."""
        self._free()

        def work():
            for step in result.take.steps(self.pipe):
                self._show("the clip", step, step.index + 1)
                if self._stop.is_set():
                    self.line.say(f"Stopped. {result.take.name} can be made again.")
                    return
            result.frames = step.run.frames
            result.card = card(result, self)
            self._lay_out()
            self.line.say(f"{result.take.name} is made again.")

        self._begin("replaying", work)

    def compare(self) -> None:
        """The clips marked ⇄ (else the last two) as one, so that they play in step."""
        shown = [r for r in self.results if r.frames is not None]
        chosen = [r for r in shown if r.compared] or shown[-2:]
        named = [(r.take.name, r.frames) for r in chosen]
        if self.unedited is not None and len(named) < 4:
            named.insert(0, ("unedited", self.unedited))
        if len(named) < 2:
            raise ValueError("there is nothing to compare yet: two clips are needed")
        self._compared.children = side_by_side(named)

    def export(self, result: Result, kind: str) -> Path:
        """Write a clip as mp4, gif, or png (its frames on one sheet); the file says what it is.

        Its metadata hold that it is generated, by which model, with which settings and seed.
        """
        if result.frames is None:
            raise ValueError(f"{result.take.name!r} has no frames yet: make it again first")
        stem = re.sub(r"[^\w-]+", "-", result.take.name).strip("-") or "clip"
        path, says = unused(self.folder / f"{stem}.{kind}"), provenance(result.take)
        if kind == "png":
            info = PngInfo()
            info.add_text("Comment", says)
            write_picture(path, contact_sheet(result.frames), pnginfo=info)
        else:
            save_video(path, result.frames, comment=says)
        written(result.line, path)
        return path

    # --------------------------------------------------------------------------------- session

    def _checked(self, panel) -> dict[str, Any]:
        """{name: value} of a session's panel. ValueError where a value cannot be shown here."""
        values = {FORMERLY.get(name, name): value for name, value in panel}
        for name in values.keys() & self.panel.keys():
            widget, value = self.panel[name], values[name]
            if hasattr(widget, "min"):
                validate.Number(widget.min, widget.max)(name, value)
            elif hasattr(widget, "options"):
                validate.Choice(*widget.options)(name, value)
            elif not isinstance(value, str):
                raise ValueError(f"{name} must be a text, got {value!r}")
        return {name: values[name] for name in self.panel if name in values}

    @property
    def session(self) -> Session:
        """All that is in the panel, as plain data."""
        sketch = dataclasses.replace(self.paint.sketch, trajectory=self.drag.trajectory)
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
        for name, value in self._checked(session.panel).items():
            self.panel[name].value = value
        sketch = session.sketch
        self.paint.commit(dataclasses.replace(sketch, trajectory=TrajectoryInstruction()))
        self.drag.trajectory = sketch.trajectory
        have = {result.take.name: result.take for result in self.results}
        for take in session.takes:
            mine = have.get(take.name)
            if mine is not None and dataclasses.replace(take, kept=mine.kept) == mine:
                continue
            if mine is not None:  # another clip of the same name
                self._tries += 1
                take = dataclasses.replace(take, name=f"try {self._tries}")
            self._add(Result(take, None))

    def save(self, path: str | os.PathLike) -> None:
        """Write the session as JSON: sketch, settings, and every take on show."""
        self.session.save(path)
        written(self.files_line, path)

    def load(self, path: str | os.PathLike) -> None:
        """Open a session. ValueError where the file is damaged; what is here then stays."""
        self._free()
        self.session = Session.load(path)
        self.files_line.say("Opened. Each clip can be made again: the frames will be the same.")

    def still(self) -> Image.Image:
        clips = [result.frames for result in self.results if result.frames is not None]
        return contact_sheet(clips[-1]) if clips else self._x_edited()

    def _save_soon(self) -> None:
        self._keep(self.session)

    def bring_back(self, kept: Session) -> None:
        self.session = kept


@dataclass(frozen=True)
class _Asked:
    """What the panel said at one moment."""

    instructions: Instructions
    sketch: Sketch  # what was painted

    def same_edits(self, other: _Asked) -> bool:
        a, b = self.instructions, other.instructions
        same = (a.content, a.motion.text, a.trajectory) == (b.content, b.motion.text, b.trajectory)
        return same and np.array_equal(a.lam, b.lam)


def unseen(sketch: Sketch, edited: Image.Image) -> list[int]:
    """Which strokes, counted from 1, x' shows hardly anything of."""
    plain, made = (np.asarray(p, np.float32) for p in (sketch.picture, edited))
    painted, cover = rasterise(sketch.picture, sketch.strokes)
    painted, found = np.asarray(painted, np.float32), []
    for n, stroke in enumerate(sketch.strokes, 1):
        if stroke.tool != "brush":
            continue
        there = np.minimum(rasterise(sketch.picture, [stroke])[1], cover) > 0.5
        asked, shown = (np.abs(p - plain)[there].sum() for p in (painted, made))
        if asked and shown < FAINT * asked:
            found.append(n)
    return found
