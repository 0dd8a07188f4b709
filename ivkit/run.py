"""A clip, from what a person asked for to its frames, and what may be changed on the way.

A run needs no pipeline: it holds the model, the state of its scheduler and everything else that a
step changes. Whatever changes in it changes in one go, so that an interrupt finds it whole.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .align import align_frames, blended_target
from .blend import lam_schedule
from .instructions import Camera, Change, Instructions, Moves, Settings, TrajectoryInstruction
from .models.common import to_cells
from .models.protocol import Condition, VideoModel, alone
from .models.sampling import Chain
from .pictures import Picture, fit, to_frames, to_pictures, to_pixels
from .support import validate
from .support.validate import Index, Path2D, Weights
from .trace import Record, Trace
from .trajectory import Warped, check, moving_region, warp

DRAGGED = ("drags", "pins", "camera")


def edits(
    *,
    edited: Picture | None,
    drags: Moves,
    pins: Path2D,
    camera: Camera | None,
    lam: Weights,
    motion: str,
) -> None:
    """What may be changed while a clip is made."""


@dataclass(frozen=True)
class Edit:
    """What tells the edited branch from the reference, from one step on. Both conditions are this
    run's own: what is kept of a branch, as with `reuse`, is kept by its condition."""

    motion: str  # y', which both branches read
    reference: Condition  # x, for `shared`; in `paired` the chain has its own
    condition: Condition  # x', for each frame where there is a drag
    same: bool  # both conditions say the same
    drag: Tensor | None = None  # the warped clip's latents, (F, C, h, w), for dual-clock
    mask: Tensor | None = None  # cells in which things move, (F, 1, h, w), 0 or 1
    weak: int = 0  # before this step dual-clock acts everywhere,
    strong: int = 0  # before this one where things move; above the last, in the clip too
    waits: bool = False  # for the clip that a drag edits; see `Run.settle`


@dataclass(eq=False)
class Run:
    """A clip and everything that happened on the way to it.

    Attributes:
        model, align: what makes the clip, and the module of Eq. 5 or None.
        picture, edited, still: x, x' (None where nothing is painted), and x' or else x: copies,
            PIL RGB.
        motion: y'.
        trajectory: r.
        warped: the cut-and-drag clip and its masks, where there is a drag.
        settings: see `Settings`.
        instructions: all that was asked for: `pipe.run` makes the same clip of them.
        made: how many of their `changes` are made; the others are made when their step comes.
        lam: what is in force at each step, float32 (steps, F or 1, 1, h or 1, w or 1).
        reference: the chain of the unedited clip.
        painted: the chain of the painted clip without the drag, where a drag edits that.
        index: how many steps are done.
        z: the latent after them, (F, C, h, w): z' in `paired`, the one latent in `shared`.
        skipped: the scheduler and the latent before the last of them, where that step was not
            evaluated because dual-clock overwrites it: a change now may want it after all.
        scheduler: the diffusers scheduler as these steps have left it.
        edits: (the step from which on, `Edit`), in order.
        trace: the Trace: `run.trace[4]["eps_hat"]` is (F, C, h, w).
        last: all there was of the latest step, whatever the trace keeps of it.
        seconds: of "prepare", "denoise" and "decode".
    """

    model: VideoModel
    _picture: Image.Image = field(repr=False)
    motion: str
    settings: Settings
    drawn: Tensor = field(repr=False)  # the generator's state after the noise
    instructions: Instructions = field(default_factory=Instructions, repr=False)
    made: int = 0
    align: torch.nn.Module | None = None
    _edited: Image.Image | None = field(default=None, repr=False)
    trajectory: TrajectoryInstruction = field(default_factory=TrajectoryInstruction)
    warped: Warped | None = None
    lam: Tensor | None = None
    reference: Chain | None = None
    painted: Chain | None = None
    index: int = 0
    z: Tensor | None = None
    skipped: tuple[Any, Tensor] | None = field(default=None, repr=False)
    scheduler: Any = None
    edits: tuple[tuple[int, Edit], ...] = ()
    trace: Trace = field(default_factory=Trace)
    last: Record | None = field(default=None, repr=False)
    seconds: dict[str, float] = field(default_factory=dict)
    _decoded: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _chain_of: Callable[[Run, Image.Image], Chain] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        took = sum(self.seconds.values())
        done = f"{self.index} of {self.num_steps} steps"
        return f"Run({self.settings.num_frames} frames, {done}, {took:.1f} s)"

    @property
    def state(self) -> Run:
        """The run itself: what the loop carries from step to step was once an object of its own."""
        return self

    @property
    def num_steps(self) -> int:
        return len(self.reference)

    @property
    def finished(self) -> bool:
        return self.index >= self.num_steps

    @property
    def edit(self) -> Edit:
        """The `Edit` in force now."""
        return self.edits[-1][1]

    @validate.checked
    def edit_at(self, index: Index) -> Edit:
        """The `Edit` that was in force at a step."""
        validate.check_index("index", index, self.num_steps)
        index %= self.num_steps
        return [edit for start, edit in self.edits if start <= index][-1]

    # ------------------------------------------------------------------------------- its frames

    @property
    def frames(self) -> np.ndarray:
        """The clip, uint8 (F, H, W, 3), read-only; of a run that was stopped, as its last step
        predicted it."""
        if "frames" in self._decoded:
            return self._decoded["frames"]
        z = self.z
        if not self.finished and self.last is not None:
            z = self.foreseen(self.last)
        edited = to_pixels(self.still if self.warped is None else self.warped.frames)
        frames = self._decode(z, blended_target(to_pixels(self._picture), edited, self.lam))
        if self.finished:
            self._decoded["frames"] = frames
        return frames

    def foreseen(self, record: Record) -> Tensor:
        """The clip's latents as a step predicts them, (F, C, h, w); those that dual-clock puts in
        their place where it overwrites them."""
        return self.edit_at(record.index).drag if record.overwritten else record["x0"]

    @property
    def unedited(self) -> np.ndarray:
        """The clip without the edits, uint8 (F, H, W, 3), read-only: computed if it has to be,
        then kept."""
        return self._frames_of(self.reference, self._picture)

    def _frames_of(self, chain: Chain, still: Image.Image) -> np.ndarray:
        """A whole chain's clip, uint8 (F, H, W, 3), decoded once and kept with the chain."""
        align = self.settings.align
        if align not in chain.frames:
            chain.frames[align] = self._decode(chain.end, to_pixels(still))
        return chain.frames[align]

    def _decode(self, z: Tensor, target: Tensor) -> np.ndarray:
        pixels = self.model.decode(z)
        if self.settings.align and self.align is not None:
            pixels = align_frames(self.align, pixels, target)
        frames = to_frames(pixels)
        frames.flags.writeable = False
        return frames

    # ------------------------------------------------------------------------- what is asked for

    @property
    def picture(self) -> Image.Image:
        return self._picture.copy()

    @property
    def edited(self) -> Image.Image | None:
        return None if self._edited is None else self._edited.copy()

    @property
    def still(self) -> Image.Image:
        return self.picture if self._edited is None else self._edited.copy()

    @alone
    def begin(
        self,
        reference: Chain,
        edits: dict[str, Any],
        chain_of: Callable[[Run, Image.Image], Chain] | None = None,
    ) -> None:
        """At the first step. `edits` are `checked` ones: all that `edits` names but the motion.

        chain_of: gives the chain of a clip that begins with another picture, perhaps a kept one.
        """
        self.reference, self.z = reference, reference.z[0].to(reference.eps.device)
        self._chain_of = chain_of or Run.chain
        steps, shape = reference.num_inference_steps, tuple(reference.eps.shape)
        self.scheduler = self.model.scheduler(steps, shape=shape)
        self._apply(edits)

    def checked(self, changes: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """The changes as fields of a Run, or an error; shape: (steps, F, h, w).

        A whole TrajectoryInstruction takes the place of all that was there; of drags, pins and
        camera given one by one, those that are not given stay.
        """
        new = {name: changes[name] for name in ("motion",) if name in changes}
        if "lam" in changes:
            new["lam"] = lam_schedule(changes["lam"], shape[0], shape[1:], self.model.cell)
        if "motion" in new:
            self.model.check_text(new["motion"], "motion")
        if "edited" in changes:
            edited, size = changes["edited"], self._picture.size
            new["_edited"] = None if edited is None else fit(edited, size, True, "edited")
        if changes.keys() & {*DRAGGED}:
            before, drags = self.trajectory, changes.get("drags", self.trajectory.drags)
            if isinstance(drags, TrajectoryInstruction):
                before = TrajectoryInstruction()
            r = TrajectoryInstruction.of(drags)
            pins = r.pins or changes.get("pins", before.pins)
            camera = r.camera or changes.get("camera", before.camera)
            r = TrajectoryInstruction(r.drags, pins, camera)
            new["trajectory"] = check(r, self._picture.size[::-1])
        return new

    @alone
    @validate.checked(options=lambda: [edits])
    def change(self, **changes) -> None:
        """Change `edited`, `drags`, `pins`, `camera`, `lam` or `motion` from the next step on.

        A whole `TrajectoryInstruction` as `drags` takes the place of drags, pins and camera. What
        the steps so far were made with stays on record. Raises what `Pipeline.video` would for the
        same argument, and ValueError for a finished run; then nothing is changed.
        """
        if self.finished:
            raise ValueError("the clip is finished: start another run to change it")
        before, after = self._changes
        lam = changes.get("lam", before[-1].lam if before else self.instructions.lam)
        new = self._changed(changes)
        now = {name: new.get(name, getattr(self, name)) for name in ("_edited", "trajectory")}
        change = Change(self.index, *now.values(), lam, new.get("motion", self.motion))
        said = dataclasses.replace(self.instructions, changes=(*before, change, *after))
        self._apply(new | {"instructions": said, "made": self.made + 1})

    @alone
    def follow(self) -> None:
        """Make the changes that the instructions have for the next step."""
        for change in self._changes[1]:
            if change.step > self.index:
                break
            self._apply(self._changed(change.edits()) | {"made": self.made + 1})

    @property
    def _changes(self) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
        """Those that are made, and those that are to come."""
        return self.instructions.changes[: self.made], self.instructions.changes[self.made :]

    def _changed(self, changes: dict[str, Any]) -> dict[str, Any]:
        """The changes as fields of a Run, without those that are as they were."""
        new = self.checked(changes, (self.num_steps, len(self.z), *self.z.shape[-2:]))
        edits = ("_edited", "trajectory", "motion")
        return {n: v for n, v in new.items() if n not in edits or v != getattr(self, n)}

    def _apply(self, fields: dict[str, Any]) -> None:
        """Put checked fields in force from the next step on: all of them in one go, at the end."""
        i, new = self.index, copy.copy(self)
        vars(new).update(fields)
        if i and "lam" in fields:
            before, now = torch.broadcast_tensors(self.lam, new.lam)
            new.lam = torch.cat([before[:i], now[i:]])
        if fields.keys() & {"_edited", "trajectory"}:
            frames, r = new.settings.num_frames, new.trajectory
            new.warped = warp(new.still, r, frames) if r else None
        if new.motion != self.motion:
            new.reference = self.reference.fork(i, new.condition(to_pixels(new._picture)))
            if self.painted is not None:
                new.painted = self.painted.fork(i, new.condition(to_pixels(new.still)))
        if "_edited" in fields:
            new.painted = None
        if fields.keys() & {"_edited", "trajectory", "motion"}:
            new._put(new._edit(waits=new.warped is not None and self.settings.source == "clip"))
        vars(self).update(vars(new))

    def _put(self, edit: Edit) -> None:
        """In force from the next step on."""
        self.edits = (*(e for e in self.edits if e[0] < self.index), (self.index, edit))

    def settle(self) -> Iterator[int]:
        """What a drag needs before the next step: the clip that it edits, step by step.

        That is the clip as the text moves it without the drag: of the reference chain, or, where
        there is paint as well, of the painted one. Yields after each step that had to be computed,
        how many there are now. Where nothing waits for it, it yields nothing.
        """
        if self.finished:
            return
        self.follow()
        if not self.edit.waits:
            return
        if self.settings.skip_zero and bool((self.lam == 1).all()):  # no edit will be seen
            return
        chain = self.reference
        if self._edited is not None:
            self.painted = chain = self.painted or self._chain_of(self, self.still)
        while len(chain.out) < len(chain):
            chain.at(len(chain.out))
            yield len(chain.out)
        self._settle(chain)

    @alone
    def _settle(self, chain: Chain) -> None:
        new, keep = copy.copy(self), None
        clip = self._frames_of(chain, self.still)
        if self._edited is not None:
            keep = _painted(self._picture, self._edited)
        new.warped = warp(self.still, self.trajectory, len(clip), clip, keep)
        new._put(new._edit())
        vars(self).update(vars(new))

    def chain(self, picture: Image.Image, eps: Tensor | None = None, whole: bool = False) -> Chain:
        """The chain of a clip that begins with `picture` and that nothing edits."""
        s, eps = self.settings, self.reference.eps if eps is None else eps
        condition = self.condition(to_pixels(picture))
        return Chain(self.model, condition, eps, s.num_inference_steps, s.seed, s.eta, whole)

    def _edit(self, waits: bool = False) -> Edit:
        """What tells the edited branch from the reference; little of it while it waits."""
        s, pixels = self.settings, None if self.warped is None else to_pixels(self.warped.frames)
        condition = self.reference.condition(self.index)
        reference, condition = copy.copy(condition), copy.copy(condition)
        if waits:
            return Edit(self.motion, reference, condition, False, waits=True)
        if pixels is not None and s.mechanism != "dual-clock":
            condition = self.condition(pixels)
        elif self._edited is not None:
            condition = self.condition(to_pixels(self._edited))
        same = self._edited is None and (pixels is None or s.mechanism == "dual-clock")
        edit = Edit(self.motion, reference, condition, same)
        if pixels is None or s.mechanism == "condition":
            return edit
        drag = self.model.encode(pixels)
        region = torch.from_numpy(moving_region(self.warped)).float()
        mask = to_cells(region, (len(drag), *drag.shape[-2:]))[0][:, None]
        weak, strong = (round(v * self.num_steps) for v in (s.weak, max(s.weak, s.strong)))
        strong += s.strong == 1  # the finished clip, too
        held = {"drag": drag, "mask": mask.to(drag.device), "weak": weak, "strong": strong}
        return dataclasses.replace(edit, **held)

    def condition(self, pixels: Tensor) -> Condition:
        """One branch's condition. Both draw from the generator as the noise has left it."""
        s, model, generator = self.settings, self.model, torch.Generator()
        generator.set_state(self.drawn)
        scale = s.guidance_scale
        if isinstance(scale, list):
            scale = torch.tensor(scale, device=model.device).view(-1, 1, 1, 1)
        return model.condition(
            pixels,
            self.motion,
            num_frames=s.num_frames,
            negative=s.negative_prompt,
            guidance_scale=scale,
            motion_scale=s.motion_scale,
            posterior=s.posterior,
            generator=generator,
        )


def _painted(picture: Image.Image, edited: Image.Image) -> np.ndarray | None:
    """Where something was painted, bool (H, W), without the faint rim of P_img's own work."""
    apart = np.abs(np.asarray(edited, np.int16) - np.asarray(picture)).max(-1) > 24
    found = cv2.morphologyEx(apart.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3))) > 0
    return found if found.any() else None


@dataclass
class Step:
    """A step just done. Tensors by name as in a trace: `step["eps_hat"]`, `step["x0"]`, ..., all of
    them, whatever the trace keeps."""

    record: Record
    run: Run = field(repr=False)

    def __getitem__(self, name: str):
        found = self.record[name]
        return found.cpu() if isinstance(found, Tensor) else found

    @property
    def index(self) -> int:
        return self.record.index

    @property
    def num_steps(self) -> int:
        return self.run.num_steps

    @validate.checked
    def preview(self, frame: Index = -1) -> Image.Image:
        """One frame of the clip as this step predicts it, decoded from x0: PIL RGB. Where a drag's
        hold overwrites the step, a frame of the warped clip."""
        validate.check_index("frame", frame, len(self.run.z))
        foreseen = self.run.foreseen(self.record)
        return to_pictures(self.run.model.preview(foreseen, frame)[None])[0]

    @validate.checked(options=lambda: [edits])
    def change(self, **changes) -> None:
        """`Run.change`: edits, `lam` or `motion` from the next step on."""
        self.run.change(**changes)
