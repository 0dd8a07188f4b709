"""The pipeline a person holds: instructions in, pictures and clips out (Eq. 1).

    pipe = ivkit.load("storybook")
    picture = pipe.image("a boat on the blue sea at day", seed=3)
    run = pipe.video(picture, "the boat moves right", drags=[drag], lam=0.3)
"""

from __future__ import annotations

import hashlib
import inspect
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

from . import models
from .align import align_frames, load_align
from .blend import lam_schedule
from .image import ImageStep, denoise_image, first_step
from .instructions import (
    Camera,
    Drag,
    Instructions,
    Stroke,
    TrajectoryInstruction,
    to_picture,
)
from .models.protocol import VideoModel
from .paint import composite, edit_mask, latent_mask, rasterise, region_mask
from .trajectory import Warped, check, moving_region, warp
from .video import READINGS, Chain, Denoising, Step, denoise, to_frames, to_pictures, to_pixels

MECHANISMS = ("both", "condition", "dual-clock")
KEPT_REFERENCES = 2


def load(name: str = "storybook", device=None, dtype=None, **options) -> Pipeline:
    """The pipeline of a checkpoint, by its name in the table or from a folder.

    device: "cpu", "cuda" or "mps"; None takes the best there is. dtype: None takes the fastest
    that the device computes well in. See `ivkit.models.load` for the errors.
    """
    return Pipeline(models.load(name, device, dtype, **options))


@dataclass
class Run:
    """A clip and everything that happened on the way to it.

    `frames` and `unedited` are uint8 (F, H, W, 3). Of a run that was stopped, `frames` shows the
    clip as it was foreseen at its last step, and `Pipeline.resume` finishes it.
    """

    state: Denoising
    pipeline: Pipeline
    settings: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    _decoded: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def trace(self):
        """The Trace: `run.trace[4]["eps_hat"]` is (F, C, h, w)."""
        return self.state.trace

    @property
    def finished(self) -> bool:
        return self.state.finished

    @property
    def picture(self) -> Image.Image:
        return self.state.info["picture"]

    @property
    def edited(self) -> Image.Image:
        """The picture with its edits; the unedited one where there are none."""
        return self.state.info["edited"] or self.picture

    @property
    def warped(self) -> Warped | None:
        """The cut-and-drag clip and its masks, where there was a drag."""
        return self.state.info["warped"]

    @property
    def frames(self) -> np.ndarray:
        """uint8 (F, H, W, 3), aligned (Eq. 5) where the model has the module for it."""
        if "frames" in self._decoded:
            return self._decoded["frames"]
        z = self.state.z
        if not self.finished and len(self.trace):
            z = self.trace[-1]["x0"].to(z.device)
        target = self.edited if self.warped is None else self.warped.frames
        frames = self.pipeline._decode(z, target, self.settings["align"])
        if self.finished:
            self._decoded["frames"] = frames
        return frames

    @property
    def unedited(self) -> np.ndarray:
        """The clip without the edits, uint8 (F, H, W, 3): computed when first asked for, then kept."""
        if "unedited" not in self._decoded:
            z = self.state.reference.end
            self._decoded["unedited"] = self.pipeline._decode(
                z, self.picture, self.settings["align"]
            )
        return self._decoded["unedited"]


class Pipeline:
    """P_img and P_video over one model. `model` is open to whoever wants to look inside."""

    def __init__(self, model: VideoModel):
        self.model = model
        self.align = load_align(model.folder) if getattr(model, "folder", None) else None
        self.last_run: Run | None = None
        self._references: OrderedDict[str, Chain] = OrderedDict()

    def __repr__(self) -> str:
        w, h = self.size
        return f"Pipeline({self.name!r}, {w} x {h}, {self.device}, {self.model.dtype})"

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

    def forget(self) -> None:
        """Drop the kept reference chains (after changing weights by hand, say with a LoRA)."""
        self._references.clear()

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
        model, defaults = self.model, self.model.defaults["image"]
        prompt = model.check_text(prompt, "prompt")
        negative = model.check_text(negative, "negative") if negative else ""
        size = self._check_size(size)
        steps = _whole("num_inference_steps", num_inference_steps, defaults, 1, 1000)
        guidance = _number("guidance_scale", guidance_scale, defaults, 0, 100)
        strength = _number("strength", strength, {}, 0, 1)
        seed = _whole("seed", seed, {}, 0, 2**63 - 1)
        _one_of("posterior", posterior, ("mode", "sample"))
        strokes = tuple(strokes)
        if picture is None:
            if strokes or mask is not None:
                raise ValueError("strokes and mask need a picture: say on which they are.")
            painted = original = None
        else:
            original = self._fit(picture, size, bool(strokes) or mask is not None)
            painted, region = original, None
            if strokes:
                painted, alpha = rasterise(original, strokes)
                region = self._region(strokes, alpha, grow, feather)
            region = region if mask is None else _check_region(mask, original)
            if not first_step(steps, strength) < steps:
                return iter(()), painted if mask is None else composite(original, painted, region)

        def work() -> Iterator[ImageStep]:
            generator = torch.Generator().manual_seed(seed)
            condition = model.image_condition(prompt, negative, guidance)
            if painted is None:
                noise = model.image_noise(size, generator)
                found = denoise_image(model, condition, noise, steps, seed=seed)
                finish = self._picture
            else:
                z0 = model.encode(_pixels(painted), posterior, generator)
                noise = model.image_noise(size, generator)
                keep = cells = None
                finish = self._picture
                if region is not None:
                    keep = model.encode(_pixels(original), posterior, generator)
                    cells = torch.from_numpy(latent_mask(region, model.cell)).to(model.device)

                    def finish(z):
                        return composite(original, self._picture(z), region)

                found = denoise_image(
                    model, condition, noise, steps, z0, strength, keep, cells, seed
                )
            for step in found:
                step.finish = finish
                yield step

        return work(), None

    def _region(self, strokes, alpha, grow, feather) -> np.ndarray:
        marked = region_mask(strokes, alpha.shape[::-1])
        parts = [edit_mask(alpha, grow, self.cell, feather)] if alpha.any() else []
        parts += [edit_mask(marked, 0, self.cell, feather)] if marked.any() else []
        if not parts:
            raise ValueError("the strokes leave no paint and mark no region on the picture.")
        return np.maximum.reduce(parts)

    # ------------------------------------------------------------------------------ P_video

    def video(self, picture, motion: str, *, progress: bool = True, **options) -> Run:
        """A clip of `picture` moving as `motion` says, with its edits blended in (Eq. 4).

        Args:
            picture: x, the unedited picture.
            motion: y', what happens, as text.
            progress: show a bar.
            options: those of `denoise`, and `align` (Eq. 5 after the denoising, where the model
                has the module for it; True).

        Returns:
            a Run: `frames`, `unedited`, `trace`, `settings`, `seconds`.

        An interrupt or an exception on the way keeps what was done: `pipe.last_run` is the
        unfinished run, its trace holds the steps so far, and `pipe.resume(run)` goes on.
        """
        begun = time.perf_counter()
        run = self._start(picture, motion, **options)
        run.seconds["prepare"] = time.perf_counter() - begun
        return self.resume(run, progress=progress)

    def resume(self, run: Run, *, progress: bool = True) -> Run:
        """Finish a run that was stopped; the clip is the same as without the stop."""
        begun = time.perf_counter()
        state = run.state
        try:
            steps = denoise(state)
            for _ in _bar(steps, progress, "clip", state.num_steps, state.index):
                pass
        except BaseException as error:
            done = f"{state.index} of {state.num_steps} steps are kept in pipe.last_run"
            error.add_note(f"{done}; pipe.resume(pipe.last_run) goes on.")
            raise
        finally:
            took = time.perf_counter() - begun
            run.seconds["denoise"] = run.seconds.get("denoise", 0.0) + took
        begun = time.perf_counter()
        _ = run.frames
        run.seconds["decode"] = time.perf_counter() - begun
        return run

    def denoise(self, picture, motion: str, **options) -> Iterator[Step]:
        """A generator that yields every step of `video`: look, stop, `step.change(...)`, go on.

        `pipe.last_run` is the run that it belongs to. The generator may be closed at any step.

        Args:
            picture, motion: as for `video`.
            edited: x', the edited picture; None where only a drag, or nothing, is edited.
            drags, pins, camera: the Trajectory Instruction r, in pixels of the picture; `drags`
                may also be a whole `TrajectoryInstruction`.
            lam: in [0, 1], 1 ignores the edits; a number, one for each step, or an array that
                broadcasts to (steps, F, 1, h, w) (see `lam_schedule`).
            seed: of the starting noise and of a stochastic scheduler's.
            num_frames, num_inference_steps, guidance_scale, motion_scale: None takes the model's
                own. guidance_scale may also hold one number for each frame.
            negative: what guidance leads away from.
            reading: "paired" or "shared", the two readings of Eq. 4.
            mechanism: what carries a drag: "condition" (each frame has its own condition),
                "dual-clock" (the noised warped clip is put back), or "both".
            strong: in [0, 1], share of the steps at which dual-clock acts.
            skip_zero: do not evaluate a branch whose weight is zero everywhere.
            batch: both branches in one call of the network; None does so on a GPU.
            eta: of a DDIM scheduler; 0 is deterministic.
            posterior: "mode", or "sample" as diffusers' own pipelines do.
            size: (width, height); None takes the model's own.

        Raises:
            ValueError or TypeError, before any work, naming the argument.
        """
        return denoise(self._start(picture, motion, **options).state)

    def run(self, instructions: Instructions, **options) -> Run:
        """Replay saved instructions: picture, paint, drag and clip. Options as for `video`."""
        i = instructions
        if i.motion is None:
            raise ValueError("instructions.motion is missing: say what happens in the clip.")
        if i.content is None and (i.image is None or i.image.picture is None):
            raise ValueError("instructions need a picture, or a content text to make one from.")
        picture = i.image.picture if i.image else None
        if picture is None:
            picture = self.image(i.content.text, seed=i.seed)
        edited, content = None, i.content
        if content is not None and content.strokes:
            how = {"strokes": content.strokes, "strength": content.strength, "seed": i.seed}
            edited = self.image(content.text, self._fit(picture, self.size, True), **how)
        return self.video(
            picture,
            i.motion.text,
            edited=edited,
            drags=i.trajectory or (),
            lam=i.lam,
            seed=i.seed,
            num_frames=i.num_frames,
            num_inference_steps=i.num_inference_steps,
            guidance_scale=i.guidance_scale,
            motion_scale=i.motion.motion_scale,
            **options,
        )

    def _start(
        self,
        picture,
        motion: str,
        *,
        edited=None,
        drags: Sequence[Drag] | TrajectoryInstruction = (),
        pins: Sequence = (),
        camera: Camera | None = None,
        lam=0.3,
        seed: int = 0,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale=None,
        motion_scale=None,
        negative: str = "",
        reading: str = "paired",
        mechanism: str = "both",
        strong: float = 0.75,
        skip_zero: bool = True,
        batch: bool | None = None,
        eta: float = 0.0,
        posterior: str = "mode",
        align: bool = True,
        size: tuple[int, int] | None = None,
    ) -> Run:
        model, defaults = self.model, self.model.defaults["video"]
        _one_of("reading", reading, READINGS)
        _one_of("mechanism", mechanism, MECHANISMS)
        _one_of("posterior", posterior, ("mode", "sample"))
        size = self._check_size(size)
        moved = bool(TrajectoryInstruction.of(drags)) or camera is not None
        settings = {
            "model": self.name,
            "motion": model.check_text(motion, "motion"),
            "negative": model.check_text(negative, "negative") if negative else "",
            "seed": _whole("seed", seed, {}, 0, 2**63 - 1),
            "num_frames": _whole(
                "num_frames", num_frames, {"num_frames": model.num_frames}, 1, 10_000
            ),
            "num_inference_steps": _whole(
                "num_inference_steps", num_inference_steps, defaults, 1, 1000
            ),
            "guidance_scale": _guidance(guidance_scale, defaults),
            "motion_scale": defaults.get("motion_scale") if motion_scale is None else motion_scale,
            "reading": reading,
            "mechanism": mechanism,
            "strong": _number("strong", strong, {}, 0, 1),
            "eta": _number("eta", eta, {}, 0, 1),
            "posterior": posterior,
            "align": bool(align),
            "size": size,
        }
        picture = self._fit(picture, size, moved)
        frames = settings["num_frames"]
        steps = len(model.scheduler(settings["num_inference_steps"]).timesteps)
        # Shapes of the latent are known only after drawing the noise, which is cheap.
        generator = torch.Generator().manual_seed(settings["seed"])
        eps = model.noise(frames, size, generator)
        lam_schedule(lam, steps, (len(eps), *eps.shape[-2:]), model.cell)
        self._check_edits(picture, edited, drags, pins, camera)
        options = self._condition_options(settings, generator.get_state())
        key = _digest(picture, settings, ("mechanism", "strong", "reading", "align"))
        reference = self._references.pop(key, None)
        if reference is None:
            condition = self._condition(picture, settings["motion"], options)
            reference = Chain(
                model, condition, eps, settings["num_inference_steps"], settings["seed"], eta
            )
        self._references[key] = reference
        while len(self._references) > KEPT_REFERENCES:
            self._references.popitem(last=False)
        state = Denoising(
            model,
            reference,
            condition=reference.condition(0),
            condition_edit=reference.condition(0),
            lam=torch.ones(steps, 1, 1, 1, 1),
            reading=reading,
            skip_zero=bool(skip_zero),
            batch=model.device.type != "cpu" if batch is None else bool(batch),
            rebuild=self._change,
            info={
                "picture": picture,
                "edited": None,
                "trajectory": TrajectoryInstruction(),
                "motion": settings["motion"],
                "warped": None,
                "settings": settings,
                "options": options,
            },
        )
        edits = {"edited": edited, "drags": drags, "pins": pins, "camera": camera, "lam": lam}
        self._change(state, edits)
        self.last_run = Run(state, self, settings)
        return self.last_run

    def _change(self, state: Denoising, changes: dict[str, Any]) -> None:
        """Put other edits, lam or motion in force; all is made first, then set, so an error is safe."""
        known = ("edited", "drags", "pins", "camera", "lam", "motion")
        for name in changes:
            if name not in known:
                raise TypeError(f"{name!r} cannot be changed in mid-run; {', '.join(known)} can.")
        info, settings = dict(state.info), dict(state.info["settings"])
        picture, eps = info["picture"], state.reference.eps
        lam = state.lam
        if "lam" in changes:
            shape = (len(eps), *eps.shape[-2:])
            lam = lam_schedule(changes["lam"], state.num_steps, shape, self.cell)
            settings["lam"] = np.asarray(changes["lam"]).tolist()
        reference, condition = state.reference, state.condition
        if "motion" in changes:
            info["motion"] = self.model.check_text(changes["motion"], "motion")
            settings["motion"] = info["motion"]
        if changes.keys() & {"edited", "drags", "pins", "camera"}:
            edited = changes.get("edited", info["edited"])
            before = info["trajectory"]
            edited, trajectory = self._check_edits(
                picture,
                edited,
                changes.get("drags", before.drags),
                changes.get("pins", before.pins),
                changes.get("camera", before.camera),
            )
            warped = None
            if trajectory:
                warped = warp(edited or picture, trajectory, settings["num_frames"])
            info |= {"edited": edited, "trajectory": trajectory, "warped": warped}
        if "motion" in changes:
            condition = self._condition(picture, info["motion"], info["options"])
            reference = reference.fork(state.index, condition)
        edits = self._edits(info, settings, condition, state)
        state.reference, state.condition, state.lam = reference, condition, lam
        state.condition_edit, state.drag_latents, state.drag_mask, state.drag_steps = edits
        state.info = info | {"settings": settings}

    def _edits(self, info, settings, condition, state):
        """condition' and what dual-clock needs."""
        picture, edited, warped = (info[k] for k in ("picture", "edited", "warped"))
        if edited is None and warped is None:
            return condition, None, None, 0
        still = edited or picture
        mechanism = settings["mechanism"]
        pixels = None if warped is None else to_pixels(warped.frames)
        if pixels is not None and mechanism != "dual-clock":
            condition_edit = self._condition(pixels, info["motion"], info["options"])
        elif edited is None:
            condition_edit = condition
        else:
            condition_edit = self._condition(still, info["motion"], info["options"])
        if pixels is None or mechanism == "condition":
            return condition_edit, None, None, 0
        latents = self.model.encode(pixels)
        region = torch.from_numpy(moving_region(warped)).float()[None, None]
        shape = (len(latents), *latents.shape[-2:])
        mask = adaptive_avg_pool3d(region, shape)[0, 0][:, None].to(latents.device)
        return condition_edit, latents, mask, round(settings["strong"] * state.num_steps)

    def _check_edits(self, picture, edited, drags, pins, camera):
        """The edited picture (or None) and the trajectory, fitting the picture."""
        if edited is not None:
            edited = self._fit(edited, picture.size, False, "edited")
        if isinstance(drags, TrajectoryInstruction):
            trajectory = drags
        else:
            trajectory = TrajectoryInstruction(TrajectoryInstruction.of(drags).drags, pins, camera)
        return edited, check(trajectory, picture.size[::-1])

    def _condition_options(self, settings: dict, state: Tensor) -> dict:
        names = ("num_frames", "negative", "guidance_scale", "motion_scale", "posterior")
        options = {name: settings[name] for name in names}
        if isinstance(options["guidance_scale"], list):
            scale = torch.tensor(options["guidance_scale"], device=self.device)
            options["guidance_scale"] = scale.view(-1, 1, 1, 1)
        return options | {"generator": state}

    def _condition(self, picture: Image.Image | Tensor, text: str, options: dict):
        """Both branches draw from the same generator state, after the starting noise."""
        generator = torch.Generator()
        generator.set_state(options["generator"])
        pixels = picture if isinstance(picture, Tensor) else _pixels(picture)
        return self.model.condition(pixels, text, **{**options, "generator": generator})

    # ------------------------------------------------------------------------------ helpers

    def _decode(self, z: Tensor, target, align: bool) -> np.ndarray:
        pixels = self.model.decode(z)
        if align and self.align is not None:
            x = to_pixels(target) if isinstance(target, np.ndarray) else _pixels(target)
            pixels = align_frames(self.align, pixels.cpu(), x)
        return to_frames(pixels)

    def _picture(self, z: Tensor) -> Image.Image:
        return to_pictures(self.model.decode(z))[0]

    def _check_size(self, size) -> tuple[int, int]:
        if size is None:
            return self.size
        w, h = (_whole("size", side, {}, 1, 8192) for side in size)
        if w % self.model.multiple or h % self.model.multiple:
            raise ValueError(
                f"size must be multiples of {self.model.multiple} pixels for {self.name}, "
                f"got {w} x {h}."
            )
        return w, h

    def _fit(self, picture, size, marked: bool, name: str = "picture") -> Image.Image:
        picture = to_picture(picture)
        if picture.size == tuple(size):
            return picture
        if marked or name == "edited":
            raise ValueError(
                f"{name} is {picture.width} x {picture.height} pixels, {size[0]} x {size[1]} are "
                f"needed for strokes, masks and drags to fit: use to_picture({name}, size={size})."
            )
        return to_picture(picture, size)


def _pixels(picture: Image.Image) -> Tensor:
    return to_pixels(np.asarray(picture)[None])


def _bar(steps, progress: bool, what: str, total: int | None = None, initial: int = 0):
    from tqdm.auto import tqdm

    return tqdm(steps, desc=what, total=total, initial=initial, disable=not progress)


def _whole(name: str, value, defaults: dict, low: int, high: int) -> int:
    value = defaults.get(name) if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, got {value}.")
    return int(value)


def _number(name: str, value, defaults: dict, low: float, high: float) -> float:
    value = defaults.get(name) if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if not low <= value <= high:
        raise ValueError(f"{name} must be within [{low:g}, {high:g}], got {value}.")
    return float(value)


def _guidance(value, defaults: dict) -> float | list[float]:
    if isinstance(value, (list, tuple, np.ndarray, Tensor)):
        return [_number("guidance_scale", float(v), {}, 0, 100) for v in value]
    return _number("guidance_scale", value, defaults, 0, 100)


def _one_of(name: str, value, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r}.")


def _check_region(mask, picture: Image.Image) -> np.ndarray:
    mask = np.asarray(mask, np.float32)
    if mask.shape != picture.size[::-1]:
        raise ValueError(
            f"mask must be {picture.size[::-1]} (H, W) like the picture, got {mask.shape}."
        )
    if not np.isfinite(mask).all() or mask.min() < 0 or mask.max() > 1 or not mask.any():
        raise ValueError("mask must lie within [0, 1] and must not be empty.")
    return mask


def _digest(picture: Image.Image, settings: dict, without: tuple[str, ...]) -> str:
    used = {k: v for k, v in settings.items() if k not in without}
    return hashlib.sha256(picture.tobytes() + repr(sorted(used.items())).encode()).hexdigest()
