"""The pipeline a person holds: instructions in, pictures and clips out (Eq. 1).

    pipe = ivkit.load("storybook")
    picture = pipe.image("a boat on the blue sea at day", seed=7)
    run = pipe.video(picture, "the boat moves right", drags=[drag], lam=0.3)
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d

from . import memory, models, speed
from .align import align_frames, blended_target, load_align
from .blend import lam_schedule
from .brush import Brush
from .image import ImageStep, denoise_image, first_step
from .instructions import (
    Instructions,
    Stroke,
    TrajectoryInstruction,
    _choice,
    _integer,
    _number,
    to_picture,
)
from .models.common import to_cells
from .models.protocol import VideoModel
from .paint import composite, edit_region, latent_mask, rasterise
from .pixels import to_frames, to_pictures, to_pixels
from .sampling import Chain
from .state import READINGS, Denoising, Edit, Step
from .trajectory import Warped, check, moving_region, warp
from .video import denoise

MECHANISMS = ("both", "condition", "dual-clock")
KEPT_REFERENCES = 2  # chains kept for a second edit


def load(
    name: str = "storybook", device=None, dtype=None, pictures: str | None = None, **options
) -> Pipeline:
    """The pipeline of a checkpoint, by its name in the table or from a folder.

    device: "cpu", "cuda" or "mps"; None takes the best there is. dtype: None takes the fastest
    that the device computes well in. pictures: another checkpoint that draws (P_img) where this one
    makes clips alone, as in `load("svd", pictures="sd")`. small: a few random weights in the same
    layout, for `pictures` too: no download. options and errors: `ivkit.models.load`.
    """
    small = {"small": options.get("small", False)}
    drawing = models.load(pictures, device, dtype, **small) if pictures else None
    if drawing is not None and "image" not in drawing.defaults:
        raise ValueError(f"pictures={pictures!r} makes clips alone: take 'sd' or 'pia'")
    return Pipeline(models.load(name, device, dtype, **options), drawing)


@dataclass
class Settings:
    """How a clip is made; None takes the model's own. All of it is plain data.

    Attributes:
        seed: of the starting noise, and of a stochastic scheduler's.
        num_frames, num_inference_steps: whole numbers of at least 1.
        guidance_scale: a number, or one for each frame; 1 and below switch guidance off.
        motion_scale: how much moves, as the model counts it; PIA: 0 to 8.
        negative: text that guidance leads away from.
        reading: "paired" or "shared", the two readings of Eq. 4.
        mechanism: what carries a drag: "condition" (each frame has its own condition),
            "dual-clock" (the noised warped clip is put back at the first steps), or "both".
        weak, strong: shares of the steps in [0, 1]: dual-clock acts everywhere before `weak` (a
            text that moves the same thing elsewhere then leaves no second one behind, but what
            else should move moves less), and where things move before `strong`.
        skip_zero: do not evaluate a branch whose weight is zero everywhere.
        batch: both branches in one call of the network; None does so on a GPU, unless the network
            is compiled for one branch.
        eta: of a DDIM scheduler, in [0, 1]; 0 is deterministic.
        posterior: "mode", or "sample" as diffusers' own pipelines do.
        align: Eq. 5 after the denoising, where the model brings the module.
        size: (width, height) that pictures are fitted to.
    """

    seed: int = 0
    num_frames: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | list[float] | None = None
    motion_scale: int | None = None
    negative: str = ""
    reading: str = "paired"
    mechanism: str = "both"
    weak: float = 0.4
    strong: float = 0.75
    skip_zero: bool = True
    batch: bool | None = None
    eta: float = 0.0
    posterior: str = "mode"
    align: bool = True
    size: tuple[int, int] | None = None

    def resolve(self, model: VideoModel) -> Settings:
        """Checked, with the model's own values where there was None."""
        given = {k: v for k, v in vars(self).items() if v is not None}
        own = {"num_frames": model.num_frames, "size": model.size, **model.defaults["video"]}
        batch = model.device.type != "cpu" and not getattr(model, "one_shape", False)
        s = Settings(**{"batch": batch, **own, **given})
        s.seed = _integer("seed", s.seed, 0)
        s.num_frames = _integer("num_frames", s.num_frames, 1)
        s.num_inference_steps = _integer("num_inference_steps", s.num_inference_steps, 1)
        if np.ndim(s.guidance_scale):
            s.guidance_scale = [_number("guidance_scale", g, 0, 100) for g in s.guidance_scale]
            if len(s.guidance_scale) != s.num_frames:
                raise ValueError(
                    f"guidance_scale needs one number for each of the {s.num_frames} frames, "
                    f"got {len(s.guidance_scale)}"
                )
        else:
            s.guidance_scale = _number("guidance_scale", s.guidance_scale, 0, 100)
        if s.negative:
            model.check_text(s.negative, "negative")
        _choice("reading", s.reading, READINGS)
        _choice("mechanism", s.mechanism, MECHANISMS)
        if s.mechanism == "condition" and not model.per_frame:
            raise ValueError(
                f"mechanism must be both or dual-clock for {model.name}, which has one condition "
                "picture for the whole clip"
            )
        _choice("posterior", s.posterior, ("mode", "sample"))
        for name in ("weak", "strong", "eta"):
            setattr(s, name, _number(name, getattr(s, name), 0, 1))
        s.size = _check_size(model, s.size)
        return s


@dataclass
class Run:
    """A clip and everything that happened on the way to it.

    Attributes:
        picture, edited: x and x', PIL RGB; the same where nothing is painted.
        motion: y'.
        trajectory: r.
        warped: the cut-and-drag clip and its masks, where there is a drag.
        settings: see `Settings`.
        seconds: of "prepare", "denoise" and "decode".
    """

    pipeline: Pipeline
    picture: Image.Image
    motion: str
    settings: Settings
    edited: Image.Image | None = None
    trajectory: TrajectoryInstruction = field(default_factory=TrajectoryInstruction)
    warped: Warped | None = None
    lam: Any = 1.0
    seconds: dict[str, float] = field(default_factory=dict)
    state: Denoising | None = field(default=None, repr=False)
    drawn: Tensor | None = field(default=None, repr=False)  # the generator's state after the noise
    _decoded: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        s, w = self.state, self.settings
        took = sum(self.seconds.values())
        return f"Run({w.num_frames} frames, {s.index} of {s.num_steps} steps, {took:.1f} s)"

    @property
    def trace(self):
        """The Trace: `run.trace[4]["eps_hat"]` is (F, C, h, w)."""
        return self.state.trace

    @property
    def finished(self) -> bool:
        return self.state.finished

    @property
    def frames(self) -> np.ndarray:
        """The clip, uint8 (F, H, W, 3); of a run that was stopped, as its last step foresaw it."""
        if "frames" not in self._decoded:
            z = self.state.z
            if not self.finished and len(self.trace):
                z = self.trace[-1]["x0"].to(z.device)
            still = self.picture if self.edited is None else self.edited
            edited = to_pixels(still if self.warped is None else self.warped.frames)
            target = blended_target(to_pixels(self.picture), edited, self.state.lam)
            frames = self._decode(z, target)
            if not self.finished:
                return frames
            self._decoded["frames"] = frames
        return self._decoded["frames"]

    @property
    def unedited(self) -> np.ndarray:
        """The clip without the edits, uint8 (F, H, W, 3): computed if it has to be, then kept."""
        if "unedited" not in self._decoded:
            self._decoded["unedited"] = self._decode(
                self.state.reference.end, to_pixels(self.picture)
            )
        return self._decoded["unedited"]

    def _decode(self, z: Tensor, target: Tensor) -> np.ndarray:
        pixels = self.pipeline.model.decode(z)
        if self.settings.align and self.pipeline.align is not None:
            pixels = align_frames(self.pipeline.align, pixels.cpu(), target)
        return to_frames(pixels)


class Pipeline:
    """P_img and P_video over one model. `model` is open to whoever wants to look inside.

    `pictures` is the model that draws, which is another one where `model` makes clips alone.
    """

    def __init__(self, model: VideoModel, pictures: VideoModel | None = None):
        self.model, self._pictures = model, pictures
        self.align = load_align(model.folder) if getattr(model, "folder", None) else None
        self.last_run: Run | None = None
        self.plan: memory.Plan | None = None  # of the latest run, see `memory`
        self._references: OrderedDict[str, Chain] = OrderedDict()

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
    def size(self) -> tuple[int, int]:
        """(width, height) that pictures are fitted to."""
        return self.model.size

    @property
    def cell(self) -> int:
        """Pixels of one latent cell."""
        return self.model.cell

    @property
    def words(self) -> list[str]:
        """Every word the model knows, sorted; empty where its language is open."""
        return sorted(w for w in getattr(self.model, "words", None) or () if w.isalpha())

    def decode(self, z: Tensor) -> np.ndarray:
        """Latents (N, C, h, w) as pictures, uint8 (N, H, W, 3)."""
        return to_frames(self.model.decode(z.to(self.device)))

    def round_trip(self, picture) -> tuple[Image.Image, float]:
        """A picture through the autoencoder and back, and how near it comes, in dB (PSNR).

        What is lost here, no clip of this model can show.
        """
        picture = to_picture(picture, self.size)
        back = to_pictures(self.model.decode(self.model.encode(to_pixels(picture))))[0]
        error = (np.asarray(picture, np.float32) - np.asarray(back, np.float32)) / 255
        return back, float(-10 * np.log10(max((error**2).mean(), 1e-10)))

    def foreign(self, picture) -> tuple[Image.Image, float, float] | None:
        """(the picture after a round trip, its dB, the least dB of the model's own world) where
        the model cannot show the picture; else None."""
        floor = getattr(self.model, "round_trip_db", None)
        if floor is None:
            return None
        back, found = self.round_trip(picture)
        return (back, found, floor) if found < floor else None

    def forget(self) -> None:
        """Drop what is kept between runs (after changing weights by hand, say with a LoRA)."""
        self._references.clear()
        for kept in ("_codes", "_texts"):
            getattr(self.model, kept, {}).clear()

    def speed_up(
        self,
        compile: bool | str | None = None,
        reuse: int = 0,
        cache: float = 0.0,
        graphs: bool | None = None,
    ) -> list[str]:
        """Make this pipeline faster; returns what was done, a line each. See `speed.speed_up`.

        Without `reuse` and `cache` nothing changes but rounding. Approximate, opt-in: `reuse=3`
        keeps a motion UNet's deep features over 3 steps, `cache=0.05` a transformer's.
        """
        done = speed.speed_up(self.model, compile, reuse, cache, graphs)
        self.forget()  # a chain is kept as it was computed
        return done

    # -------------------------------------------------------------------------------- P_img

    def image(self, prompt: str, picture=None, *, progress: bool = False, **options) -> Image.Image:
        """A picture: from text, from a picture, or a picture of which a region is edited.

        Args:
            prompt: y, what the picture shows.
            picture: x; None begins from noise. Anything `to_picture` takes.
            progress: show a bar.
            options: those of `denoise_image`.

        Returns:
            PIL RGB of `size`. Where strokes or a mask are given, every pixel outside the edit mask
            is exactly that of `picture`. With strength=0 it is the painted picture as it is.
        """
        steps, result = self._image_job(prompt, picture, **options)
        for step in _bar(steps, progress, "picture"):
            result = step
        return result.picture if isinstance(result, ImageStep) else result

    def denoise_image(self, prompt: str, picture=None, **options) -> Iterator[ImageStep]:
        """The steps of `image`, to be looked at; the last one's `.picture` is the result.

        Args:
            prompt, picture: as for `image`.
            strokes: `Stroke`s on `picture`, in its pixels; those of the tool "mask" mark a region.
            mask: (H, W) in [0, 1], the edit mask, instead of the one that follows from the strokes.
            strength: in [0, 1], how far the result may depart from the painted picture.
            seed: of the starting noise.
            num_inference_steps, guidance_scale: None takes the model's own.
            negative: what guidance leads away from.
            size: (width, height); None takes the model's own.
            grow, feather: of the edit mask, see `edit_mask`.
            posterior: "mode", or "sample" as diffusers' own pipelines do.

        Raises:
            ValueError or TypeError, before any work, naming the argument.
        """
        return self._image_job(prompt, picture, **options)[0]

    def brush(self, prompt: str, picture, strength: float = 0.5, seed: int = 0) -> Brush:
        """A real-time brush on `picture`: see `brush.Brush`. Load "sd-turbo" with `taesd=True`."""
        if "image" not in self.pictures.defaults:
            raise ValueError(f"{self.name} makes clips alone: take the brush of 'sd-turbo'")
        return Brush(self.pictures, prompt, _fit(picture, self.size, True), strength, seed)

    def _image_job(
        self,
        prompt: str,
        picture=None,
        *,
        strokes: Sequence[Stroke] = (),
        mask: np.ndarray | None = None,
        strength: float = 0.7,
        seed: int = 0,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative: str = "",
        size: tuple[int, int] | None = None,
        grow: float = 1.5,
        feather: float | None = None,
        posterior: str = "mode",
    ) -> tuple[Iterator[ImageStep], Image.Image | None]:
        model = self.pictures
        if "image" not in model.defaults:
            raise ValueError(
                f"{self.name} makes clips alone: say who draws, as in "
                f"ivkit.load({self.name!r}, pictures='sd')"
            )
        own = model.defaults["image"]
        model.check_text(prompt, "prompt")
        if negative:
            model.check_text(negative, "negative")
        multiple = None if model is self.model else model.cell
        size = _check_size(model, size or self.size, multiple)
        steps = own["num_inference_steps"] if num_inference_steps is None else num_inference_steps
        steps = _integer("num_inference_steps", steps, 1)
        guidance = own["guidance_scale"] if guidance_scale is None else guidance_scale
        guidance = _number("guidance_scale", guidance, 0, 100)
        strength = _number("strength", strength, 0, 1)
        seed = _integer("seed", seed, 0)
        _choice("posterior", posterior, ("mode", "sample"))
        original = painted = region = None
        if picture is not None:
            original = painted = _fit(picture, size, bool(strokes) or mask is not None)
            if strokes:
                painted, alpha = rasterise(original, strokes)
                region = edit_region(strokes, alpha, grow, model.cell, feather)
            region = region if mask is None else _check_region(mask, original)
            if first_step(steps, strength) >= steps:
                return iter(()), painted
        elif strokes or mask is not None:
            raise ValueError("strokes and mask need a picture: say which one they are on")

        def finish(z: Tensor) -> Image.Image:
            pixels = model.decode(z)
            if hasattr(model, "hide_unsafe"):
                pixels = model.hide_unsafe(pixels)
            drawn = to_pictures(pixels)[0]
            return drawn if region is None else composite(original, drawn, region)

        def work() -> Iterator[ImageStep]:
            generator = torch.Generator().manual_seed(seed)
            z0 = keep = cells = None
            if painted is not None:
                z0 = model.encode(to_pixels(painted), posterior, generator)
            noise = model.image_noise(size, generator)
            if region is not None:
                keep = model.encode(to_pixels(original), posterior, generator)
                cells = torch.from_numpy(latent_mask(region, model.cell)).to(model.device)
            condition = model.image_condition(prompt, negative, guidance)
            options = {"z0": z0, "strength": strength, "original": keep, "mask": cells}
            for step in denoise_image(model, condition, noise, steps, seed=seed, **options):
                step.finish = finish
                yield step

        return work(), None

    # ------------------------------------------------------------------------------ P_video

    def video(self, picture, motion: str, *, progress: bool = True, **options) -> Run:
        """A clip of `picture` moving as `motion` says, with its edits blended in (Eq. 4).

        Arguments and errors are those of `denoise`; `progress` shows a bar.

        An interrupt or an exception on the way loses nothing: `pipe.last_run` is the unfinished
        Run, its trace holds the steps so far, and `pipe.resume(run)` finishes it.
        """
        begun = time.perf_counter()
        run = self._start(picture, motion, **options)
        run.seconds["prepare"] = time.perf_counter() - begun
        return self.resume(run, progress=progress)

    def resume(self, run: Run, *, progress: bool = True) -> Run:
        """Finish a run that was stopped: the clip is the same as without the stop."""
        begun, state = time.perf_counter(), run.state
        try:
            while not state.finished:
                try:
                    for _ in _bar(denoise(state), progress, "clip", state.num_steps, state.index):
                        pass
                except torch.OutOfMemoryError:
                    self._take_less_memory()
                    state.batch = False
        except BaseException as error:
            error.add_note(
                f"{state.index} of {state.num_steps} steps are kept; "
                "pipe.resume(pipe.last_run) goes on from there"
            )
            raise
        finally:
            took = time.perf_counter() - begun
            run.seconds["denoise"] = run.seconds.get("denoise", 0.0) + took
        begun = time.perf_counter()
        while "frames" not in run._decoded:
            try:
                _ = run.frames
            except torch.OutOfMemoryError:
                self._take_less_memory()
        run.seconds["decode"] = time.perf_counter() - begun
        return run

    def _take_less_memory(self) -> None:
        """The next smaller plan, within an `except` for memory; raises where there is none."""
        smaller = self.plan.smaller(self.model) if self.plan else None
        if smaller is None:
            raise
        self.plan = smaller
        memory.let_go(self.device)
        smaller.apply(self.model)
        print(f"out of memory; going on with {smaller}")

    def denoise(self, picture, motion: str, **options) -> Iterator[Step]:
        """A generator that yields every step of `video`: look, stop, `step.change(...)`, go on.

        It may be closed at any step; `pipe.last_run` is the Run it belongs to.

        Args:
            picture: x, the unedited picture; anything `to_picture` takes.
            motion: y', what happens, as text.
            edited: x', the edited picture; None where only a drag, or nothing, is edited.
            drags, pins, camera: the Trajectory Instruction r in pixels of the picture; `drags` may
                be a whole `TrajectoryInstruction`.
            lam: lambda in [0, 1], 1 ignores the edits; a number, one for each step, or an array
                that broadcasts to (steps, F, 1, h, w), see `blend.lam_schedule`.
            options: the fields of `Settings`.

        Raises:
            ValueError or TypeError, before any work, with one sentence that names the argument.
        """
        return denoise(self._start(picture, motion, **options).state)

    def run(self, instructions: Instructions, **options) -> Run:
        """Replay saved instructions: picture, paint, drag and clip. Options as for `video`."""
        i = instructions
        if i.motion is None:
            raise ValueError("instructions.motion is missing: say what happens in the clip")
        picture = i.image.picture if i.image else None
        if picture is None and i.content is None:
            raise ValueError("instructions need a picture, or a content text to draw one from")
        if picture is None:
            picture = self.image(i.content.text, seed=i.seed)
        edited, y = None, i.content
        if y is not None and y.strokes:
            how = {"strokes": y.strokes, "strength": y.strength, "seed": i.seed}
            edited = self.image(y.text, picture, **how)
        names = ("lam", "seed", "num_frames", "num_inference_steps", "guidance_scale")
        options = {name: getattr(i, name) for name in names} | options
        options["motion_scale"] = i.motion.motion_scale
        drags = i.trajectory or ()
        return self.video(picture, i.motion.text, edited=edited, drags=drags, **options)

    def _start(
        self,
        picture,
        motion: str,
        *,
        edited=None,
        drags=(),
        pins=(),
        camera=None,
        lam=0.3,
        **options,
    ) -> Run:
        if "video" not in self.model.defaults:
            raise ValueError(f"{self.name} makes pictures alone: load 'pia', 'svd' or another")
        model, settings = self.model, Settings(**options).resolve(self.model)
        model.check_text(motion, "motion")
        marked = bool(TrajectoryInstruction.of(drags)) or camera is not None
        picture = _fit(picture, settings.size, marked)
        generator = torch.Generator().manual_seed(settings.seed)
        eps = model.noise(settings.num_frames, settings.size, generator)
        # Both branches draw from the generator as the noise has left it.
        run = Run(self, picture, motion, settings, drawn=generator.get_state())
        edits = {"edited": edited, "drags": drags, "pins": pins, "camera": camera, "lam": lam}
        shape = tuple(eps.shape)
        plan = memory.choose(model, shape, guided=np.max(settings.guidance_scale) > 1)
        before = 0 if self.plan is None else self.plan.level
        if plan.level != before or (self.plan is None and self.device.type != "cpu"):
            print(plan)
        if plan.level or before:
            plan.apply(model)
        self.plan, settings.batch = plan, settings.batch and plan.batch
        steps = len(model.scheduler(settings.num_inference_steps, shape=shape).timesteps)
        self._check(run, edits, (steps, len(eps), *eps.shape[-2:]))
        reference = self._reference(run, eps)
        run.state = Denoising(
            reference,
            Edit(reference.condition(0)),
            torch.ones(steps, 1, 1, 1, 1),
            settings.reading,
            bool(settings.skip_zero),
            settings.batch,
            lambda changes: self._change(run, changes),
        )
        self._change(run, edits)
        self.last_run = run
        return run

    def _reference(self, run: Run, eps: Tensor) -> Chain:
        """The chain of the unedited clip: kept from an earlier run where it is the same."""
        s = run.settings
        same = (run.motion, s.negative, s.seed, s.num_frames, s.num_inference_steps, s.posterior,
                s.guidance_scale, s.motion_scale, s.eta, s.size)  # fmt: skip
        key = hashlib.sha256(run.picture.tobytes() + repr(same).encode()).hexdigest()
        chain = self._references.pop(key, None)
        if chain is None:
            self._warn_if_foreign(run.picture)
            condition = self._condition(run, to_pixels(run.picture))
            chain = Chain(self.model, condition, eps, s.num_inference_steps, s.seed, s.eta)
        self._references[key] = chain
        while len(self._references) > KEPT_REFERENCES:
            self._references.popitem(last=False)
        return chain

    def _warn_if_foreign(self, picture: Image.Image) -> None:
        if foreign := self.foreign(picture):
            _, found, floor = foreign
            warnings.warn(
                f"this picture is foreign to {self.name}, which gives it back at {found:.0f} dB "
                f"where its own world reaches {floor:.0f}: see pipe.round_trip(picture), and "
                "ivkit.warp for a cut-and-drag clip that needs no model",
                stacklevel=5,
            )

    def _check(self, run: Run, changes: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """The changes, checked and as `Run` holds them; shape: (steps, F, h, w)."""
        for name in changes:
            if name not in ("edited", "drags", "pins", "camera", "lam", "motion"):
                raise TypeError(f"{name!r} cannot be changed; edits, lam and motion can")
        new = {k: changes[k] for k in ("lam", "motion") if k in changes}
        if "lam" in new:
            lam_schedule(new["lam"], shape[0], shape[1:], self.cell)
        if "motion" in new:
            self.model.check_text(new["motion"], "motion")
        if "edited" in changes:
            edited, size = changes["edited"], run.picture.size
            new["edited"] = None if edited is None else _fit(edited, size, True, "edited")
        if changes.keys() & {"drags", "pins", "camera"}:
            before = run.trajectory
            r = TrajectoryInstruction.of(changes.get("drags", before.drags))
            pins = r.pins or changes.get("pins", before.pins)
            camera = r.camera or changes.get("camera", before.camera)
            r = TrajectoryInstruction(r.drags, pins, camera)
            new["trajectory"] = check(r, run.picture.size[::-1])
        return new

    def _change(self, run: Run, changes: dict[str, Any]) -> None:
        """Put other edits, lam or motion in force from the next step on. All is made before any of
        it is set, so that an error leaves the run as it was."""
        state, reference = run.state, run.state.reference
        shape = (state.num_steps, len(state.z), *state.z.shape[-2:])
        new = dataclasses.replace(run, **self._check(run, changes, shape))
        if {"edited", "drags", "pins", "camera"} & changes.keys():
            still = new.picture if new.edited is None else new.edited
            new.warped = None
            if new.trajectory:
                new.warped = warp(still, new.trajectory, new.settings.num_frames)
        if new.motion != run.motion:
            reference = reference.fork(state.index, self._condition(new, to_pixels(new.picture)))
        edit = self._edit(new, reference.condition(state.index), state.num_steps)
        lam = lam_schedule(new.lam, shape[0], shape[1:], self.cell)
        for name in ("edited", "trajectory", "warped", "lam", "motion"):
            setattr(run, name, getattr(new, name))
        state.reference, state.edit, state.lam = reference, edit, lam

    def _edit(self, run: Run, condition, steps: int) -> Edit:
        s, pixels = run.settings, None if run.warped is None else to_pixels(run.warped.frames)
        if pixels is not None and s.mechanism != "dual-clock":
            condition = self._condition(run, pixels)
        elif run.edited is not None:
            condition = self._condition(run, to_pixels(run.edited))
        if pixels is None or s.mechanism == "condition":
            return Edit(condition)
        drag = self.model.encode(pixels)
        region = torch.from_numpy(moving_region(run.warped)).float()
        shape = (len(drag), *drag.shape[-2:])
        mask = to_cells(region, shape, adaptive_avg_pool3d)[0][:, None]
        weak, strong = round(s.weak * steps), round(max(s.weak, s.strong) * steps)
        return Edit(condition, drag, mask.to(drag.device), weak, strong)

    def _condition(self, run: Run, pixels: Tensor):
        s, generator = run.settings, torch.Generator()
        generator.set_state(run.drawn)
        scale = s.guidance_scale
        if isinstance(scale, list):
            scale = torch.tensor(scale, device=self.device).view(-1, 1, 1, 1)
        return self.model.condition(
            pixels,
            run.motion,
            num_frames=s.num_frames,
            negative=s.negative,
            guidance_scale=scale,
            motion_scale=s.motion_scale,
            posterior=s.posterior,
            generator=generator,
        )


def _bar(steps, progress: bool, what: str, total: int | None = None, initial: int = 0):
    from tqdm.auto import tqdm

    return tqdm(steps, desc=what, total=total, initial=initial, disable=not progress)


def _check_size(model: VideoModel, size, multiple: int | None = None) -> tuple[int, int]:
    multiple = multiple or model.multiple
    w, h = (_integer("size", side, 1) for side in size)
    if w % multiple or h % multiple:
        raise ValueError(
            f"size must be multiples of {multiple} pixels for {model.name}, got {w} x {h}"
        )
    return w, h


def _fit(picture, size: tuple[int, int], marked: bool, name: str = "picture") -> Image.Image:
    picture = to_picture(picture)
    if marked and picture.size != tuple(size):
        raise ValueError(
            f"{name} is {picture.width} x {picture.height} pixels where {size[0]} x {size[1]} are "
            f"needed for edits to fit it: use ivkit.to_picture({name}, size={tuple(size)}) first"
        )
    return to_picture(picture, size)


def _check_region(mask, picture: Image.Image) -> np.ndarray:
    mask = np.asarray(mask, np.float32)
    if mask.shape != picture.size[::-1]:
        raise ValueError(f"mask must have the picture's {picture.size[::-1]}, got {mask.shape}")
    if not (np.isfinite(mask).all() and 0 <= mask.min() and 0 < mask.max() <= 1):
        raise ValueError("mask must hold values in [0, 1] and must not be empty")
    return mask
