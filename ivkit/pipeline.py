"""The pipeline a person holds: instructions in, pictures and clips out (Eq. 1).

pipe = ivkit.load("storybook")
picture = pipe.image("a boat on the blue sea at day", seed=5)
run = pipe.video(picture, "the boat moves right", drags=[drag], lam=0.3)
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import models
from .align import load_align
from .blend import check_rule
from .image import Brush, ImageStep, PictureJob, Strength
from .instructions import (
    Camera,
    Changes,
    ImageInstruction,
    Instructions,
    MotionInstruction,
    MotionScale,
    Moves,
    PictureSettings,
    Settings,
    Strokes,
    TrajectoryInstruction,
)
from .live import Live, LiveInstructions
from .models import memory, speed
from .models.protocol import VideoModel, alone
from .pictures import Picture, fit, psnr, to_frames, to_picture, to_pictures, to_pixels
from .support.progress import bar
from .support.validate import (
    Integer,
    Latents,
    Path2D,
    Seed,
    Sentence,
    Share,
    SoftMask,
    Weights,
    checked,
    once,
    warn,
)
from .trace import Trace, TraceOptions
from .video import ReferenceChain, Run, Step, denoise

Reuse = Annotated[int, Integer(0, 100)]  # steps
KEPT_REFERENCES = 3  # chains kept for a second edit: at most so many, and all but the latest
KEPT_BYTES = 4 * 10**9  # only as long as they take no more than this together
#: the settings that a clip without edits depends on
UNEDITED = ("seed", "num_frames", "num_inference_steps", "guidance_scale", "motion_scale")
UNEDITED += ("negative_prompt", "posterior", "eta", "size")


@checked(options=lambda: [models.load])
def load(
    name: models.Name = "storybook",
    device: Any = None,
    dtype: Any = None,
    pictures: models.Name | None = None,
    **options,
) -> Pipeline:
    """The pipeline of a checkpoint, by its name in the table or from a folder.

    device: "cpu", "cuda" or "mps"; None takes the best there is. dtype: None takes the fastest
    that the device computes well in. pictures: another checkpoint that draws (P_img) where this one
    makes clips alone, as in `load("svd", pictures="sd")`. small: a few random weights in the same
    layout, for `pictures` too: no download. options and errors: `ivkit.models.load`.
    """
    small = {"small": options.get("small", False)}
    drawing = None if pictures is None else models.load(pictures, device, dtype, **small)
    if drawing is not None and "image" not in drawing.capabilities:
        raise ValueError(f"pictures={pictures!r} makes clips alone: take 'sd' or 'pia'")
    return Pipeline(models.load(name, device, dtype, **options), drawing)


class Pipeline:
    """P_img and P_video over one model. `model` is open to whoever wants to look inside.

    `pictures` is the model that draws, which is another one where `model` makes clips alone.
    """

    def __init__(self, model: VideoModel, pictures: VideoModel | None = None):
        self.model, self._pictures = model, pictures
        self.align = load_align(model.folder, model.device) if model.folder else None
        self.last_run: Run | None = None
        self._references: OrderedDict[str, ReferenceChain] = OrderedDict()

    def __repr__(self) -> str:
        w, h = self.size
        return f"Pipeline({self.name!r}, {w} x {h}, {self.device}, {self.model.dtype})"

    @property
    def pictures(self) -> VideoModel:
        return self._pictures or self.model

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def plan(self) -> memory.Plan | None:
        """How much memory the model takes at a time, see `memory`; None before the first run."""
        return self.model.plan

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) that pictures are fitted to."""
        return self.model.size

    @property
    def vae_scale_factor(self) -> int:
        """Pixels of one latent cell, along a side."""
        return self.model.vae_scale_factor

    cell, forget = once("cell", "vae_scale_factor"), once("forget", "clear_cache")
    foreign = once("foreign", "out_of_domain")

    @property
    def words(self) -> list[str]:
        """Every word the model knows, sorted; empty where its language is open."""
        return sorted(w for w in self.model.vocabulary or () if w.isalpha())

    @checked
    def decode(self, z: Latents) -> np.ndarray:
        """Latents (N, C, h, w) as pictures, uint8 (N, H, W, 3)."""
        return to_frames(self.model.decode(z))

    @checked
    def round_trip(self, picture: Picture) -> tuple[Image.Image, float]:
        """A picture through the autoencoder and back, and how near it comes, in dB (PSNR).

        What is lost here, no clip of this model can show.
        """
        picture = to_picture(picture, self.size)
        back = to_pictures(self.model.decode(self.model.encode(to_pixels(picture))))[0]
        return back, psnr(picture, back)

    @checked
    def out_of_domain(self, picture: Picture) -> tuple[Image.Image, float, float] | None:
        """(the picture after a round trip, its dB, the least dB of the model's own world) where
        the model cannot show the picture; else None."""
        floor = self.model.round_trip_db
        if floor is None:
            return None
        back, found = self.round_trip(picture)
        return (back, found, floor) if found < floor else None

    @alone
    def clear_cache(self) -> None:
        """Drop what is kept between runs. Whoever changes weights by hand calls the model's
        `weights_changed` instead, so that no clip of the old ones is gone on with."""
        self._references.clear()
        for model in (self.model, self.pictures):
            model.clear_cache()

    @checked
    def speed_up(
        self,
        compile: bool | Literal["whole", "blocks"] | None = None,
        reuse: Reuse = 0,
        cache: Share = 0.0,
        graphs: bool | None = None,
        *,
        on: bool = True,
    ) -> list[str]:
        """Make this pipeline faster; returns what was done, a line each. See `speed.speed_up`.

        Without `reuse` and `cache` nothing changes but rounding. Approximate, opt-in: `reuse=3`
        keeps a motion UNet's deep features over 3 steps, `cache=0.05` a transformer's. Each call
        first undoes the one before; `on=False` undoes it and does nothing else.
        """
        done = speed.speed_up(self.model, compile, reuse, cache, graphs, on=on)
        self.clear_cache()  # a chain is kept as it was computed
        return done

    # -------------------------------------------------------------------------------- P_img

    @checked(options=lambda: [Pipeline._picture_job])
    def image(
        self, prompt: Sentence, picture: Picture | None = None, *, progress: bool = True, **options
    ) -> Image.Image:
        """A picture: from text, from a picture, or a picture of which a region is edited.

        Args:
            prompt: y, what the picture shows.
            picture: x; None begins from noise. Anything `to_picture` takes.
            progress: show a bar where it takes more than a second.
            options: those of `denoise_image`.

        Returns:
            PIL RGB of `size`. Where strokes or a mask are given, every pixel outside the edit mask
            is exactly that of `picture`. With strength=0 it is the painted picture as it is.
        """
        job, last = self._picture_job(prompt, picture, **options), None
        for step in bar(job.steps(), "picture", progress):
            last = step
        return job.painted if last is None else last.picture

    @checked(options=lambda: [Pipeline._picture_job])
    def denoise_image(
        self, prompt: Sentence, picture: Picture | None = None, **options
    ) -> Iterator[ImageStep]:
        """The steps of `image`, to be looked at; the last one's `.picture` is the result.

        Args:
            prompt, picture: as for `image`.
            strokes: `Stroke`s on `picture`, in its pixels; "mask" and "lasso" mark a region.
            mask: (H, W) in [0, 1], the edit mask, instead of the one that follows from the strokes.
            options: the fields of `PictureSettings`.

        Raises:
            ValueError or TypeError, before any work, naming the argument.
        """
        return self._picture_job(prompt, picture, **options).steps()

    @checked
    def brush(
        self, prompt: Sentence, picture: Picture, strength: Strength = 0.5, seed: Seed = 0
    ) -> Brush:
        """A real-time brush on `picture`: see `image.Brush`. Load "sd-turbo" with `taesd=True`."""
        if "image" not in self.pictures.capabilities:
            raise ValueError(f"{self.name} makes clips alone: take the brush of 'sd-turbo'")
        return Brush(self.pictures, prompt, fit(picture, self.size, True), strength, seed)

    @checked(options=lambda: [PictureSettings])
    def _picture_job(
        self,
        prompt: Sentence,
        picture: Picture | None = None,
        *,
        strokes: Strokes = (),
        mask: SoftMask | None = None,
        **options,
    ) -> PictureJob:
        model = self.pictures
        if "image" not in model.capabilities:
            raise ValueError(
                f"{self.name} makes clips alone: say who draws, as in "
                f"ivkit.load({self.name!r}, pictures='sd')"
            )
        model.check_text(prompt, "prompt")
        multiple = model.multiple if model is self.model else model.vae_scale_factor
        settings = PictureSettings(**options).resolve(model, self.size, multiple)
        return PictureJob(model, prompt, settings, picture, strokes, mask)

    # ------------------------------------------------------------------------------ P_video

    @checked(options=lambda: [Pipeline._start])
    def video(self, picture: Picture, motion: str, *, progress: bool = True, **options) -> Run:
        """A clip of `picture` moving as `motion` says, with its edits blended in (Eq. 4).

        Arguments and errors are those of `denoise`; `progress` shows a bar.

        An interrupt or an exception on the way loses nothing: `pipe.last_run` is the unfinished
        Run, its trace holds the steps so far, and `pipe.resume(run)` finishes it.
        """
        begun = time.perf_counter()
        run = self._start(picture, motion, **options)
        run.seconds["prepare"] = time.perf_counter() - begun
        return self.resume(run, progress=progress)

    @checked
    def resume(self, run: Run, *, progress: bool = True) -> Run:
        """Finish a run that was stopped: the clip is the same as without the stop."""
        begun = time.perf_counter()
        try:
            length = {"total": run.num_steps, "initial": run.index}
            run.follow()
            if run.edit.waits:
                for _ in bar(run.settle(), "clip to drag", progress, delay=0, total=run.num_steps):
                    pass
            for _ in bar(denoise(run), "clip", progress, delay=0, **length):
                pass
        except BaseException as error:
            error.add_note(
                f"{run.index} of {run.num_steps} steps are kept; "
                "pipe.resume(pipe.last_run) goes on from there"
            )
            raise
        finally:
            took = time.perf_counter() - begun
            run.seconds["denoise"] = run.seconds.get("denoise", 0.0) + took
        begun = time.perf_counter()
        for _ in bar([run], "frames", progress, delay=0, leave=False):
            _ = run.frames
        run.seconds["decode"] = time.perf_counter() - begun
        return run

    @checked(options=lambda: [Pipeline._start])
    def denoise(self, picture: Picture, motion: str, **options) -> Iterator[Step]:
        """A generator that yields every step of `video`: look, stop, `step.change(...)`, go on.

        It may be closed at any step; `pipe.last_run` is the Run it belongs to.

        Args:
            picture: x, the unedited picture; anything `to_picture` takes.
            motion: y', what happens, as text.
            edited: x', the edited picture; None where only a drag, or nothing, is edited.
            drags, pins, camera: the Trajectory Instruction r in pixels of the picture; `drags` may
                be a whole `TrajectoryInstruction`.
            lam: lambda in [0, 1], 1 ignores the edits; a number, one for each step, or an array
                that broadcasts to (steps, F, 1, h, w), see `blend.lam_schedule`. It weighs the two
                predictions (Eq. 4) and, where dual-clock holds a drag, by 1 - lam the hold.
            trace: what is kept of each step, where and in which numbers: True (all, 32-bit floats
                on the CPU), False, names, or a `TraceOptions`.
            options: the fields of `Settings`.

        Raises:
            ValueError or TypeError, before any work, with one sentence that names the argument.
        """
        return denoise(self._start(picture, motion, **options))

    @checked(options=lambda: [Pipeline.video])
    def run(self, instructions: Instructions, **options) -> Run:
        """Replay saved instructions: picture, paint, drag and clip. Options as for `video`.

        `pipe.run(run.instructions)` makes the same frames as `run` has.
        """
        i, progress = instructions, options.get("progress", True)
        if i.motion is None:
            raise ValueError("instructions.motion is missing: say what happens in the clip")
        picture = i.image.picture if i.image else None
        if picture is None and i.content is None:
            raise ValueError("instructions need a picture, or a content text to draw one from")
        how = {"seed": i.seed, "size": options.get("size", i.size), "progress": progress}
        y = i.content
        if picture is None:
            picture = self.image(y.text, **how)
        edits = {"edited": i.edited, "drags": i.trajectory}
        if i.edited is None and y is not None and y.strokes:
            strokes = {"strokes": y.strokes, "strength": y.strength}
            edits["edited"] = self.image(y.text, picture, **how, **strokes)
        return self.video(picture, i.motion.text, **edits | i.options() | options)

    @checked
    def live(
        self,
        picture: Any,
        motion: str = "",
        *,
        motion_scale: MotionScale | None = None,
        lam: Share = 0.0,
        seed: Seed = 0,
    ) -> Live:
        """A stream that plays on from `picture`, four frames a pass, while you act: see `Live`.

        Args:
            picture: anything `to_picture` takes; or the `LiveInstructions` of a stream, which then
                makes the same frames again, whatever the other arguments.
            motion: the first text; empty where all rests until one is said.
            motion_scale, lam, seed: see `Live.say` and `Live`.
        """
        if isinstance(picture, LiveInstructions):
            return Live(self, picture)
        stream = Live(self, LiveInstructions(picture, seed))
        if motion:
            self.model.check_text(motion, "motion")
            stream.say(motion, motion_scale)
        if lam:
            stream.lam = lam
        return stream

    @alone
    @checked(options=lambda: [Settings])
    def _start(
        self,
        picture: Picture,
        motion: str,
        *,
        edited: Picture | None = None,
        drags: Moves = (),
        pins: Path2D = (),
        camera: Camera | None = None,
        lam: Weights = 0.3,
        changes: Changes = (),
        trace: Any = True,
        **options,
    ) -> Run:
        if "video" not in self.model.capabilities:
            raise ValueError(f"{self.name} makes pictures alone: load 'pia', 'svd' or another")
        model, s = self.model, Settings(**options).resolve(self.model)
        model.check_text(motion, "motion")
        trace = TraceOptions.of(trace)
        marked = bool(TrajectoryInstruction.of(drags)) or camera is not None
        generator = torch.Generator().manual_seed(s.seed)
        eps = model.noise(s.num_frames, s.size, generator)
        picture = fit(picture, s.size, marked)
        run = Run(model, picture, motion, s, generator.get_state(), align=self.align)
        run.trace = Trace(options=trace)
        steps = len(model.scheduler(s.num_inference_steps, shape=tuple(eps.shape)).timesteps)
        edits = {"edited": edited, "drags": drags, "pins": pins, "camera": camera, "lam": lam}
        shape = (steps, len(eps), *eps.shape[-2:])
        edits = run.fields_of(edits, shape)
        check_rule(s.blend, eps, edits["lam"][0])
        for k, change in enumerate(changes):
            run.fields_of(change.edits(), shape)
            if change.step >= steps:
                raise ValueError(f"changes[{k}] is at step {change.step}; the clip has {steps}")
        asked = vars(s) | {"batch": options.get("batch")}
        run.instructions = Instructions(
            ImageInstruction(picture),
            motion=MotionInstruction(motion),
            trajectory=edits["trajectory"],
            lam=lam,
            edited=edits["_edited"],
            changes=changes,
            **asked,
        )
        guided = bool(np.max(s.guidance_scale) > 1)
        memory.prepare(model, tuple(eps.shape), steps, guided, trace)
        reference = self._reference(run, run.picture, eps, trace.whole)
        run.begin(reference, edits, lambda run, picture: self._reference(run, picture, eps))
        self.last_run = run
        return run

    def _reference(
        self, run: Run, picture: Image.Image, eps: Tensor, whole: bool = False
    ) -> ReferenceChain:
        """The chain of a clip that nothing edits: kept from an earlier run where it is the same."""
        same = [run.motion, self.model.changed, *(getattr(run.settings, name) for name in UNEDITED)]
        key = hashlib.sha256(picture.tobytes() + repr(same).encode()).hexdigest()
        chain = self._references.pop(key, None)
        if chain is None or whole > chain.whole:
            self._warn_if_foreign(picture)
            chain = run.chain(picture, eps, whole)
        self._references[key] = chain
        while len(self._references) > 1 and (
            len(self._references) > KEPT_REFERENCES
            or sum(kept.nbytes for kept in self._references.values()) > KEPT_BYTES
        ):
            self._references.popitem(last=False)
        return chain

    def _warn_if_foreign(self, picture: Image.Image) -> None:
        if foreign := self.out_of_domain(picture):
            _, found, floor = foreign
            warn(
                f"this picture is foreign to {self.name}, which gives it back at {found:.0f} dB "
                f"where its own world reaches {floor:.0f}: see pipe.round_trip(picture), and "
                "ivkit.warp for a cut-and-drag clip that needs no model"
            )
