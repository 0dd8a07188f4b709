"""P_video: the clip that a person asks for, made by a loop that blends two predictions a step.

`denoise` is the loop (Eq. 2 to 4), a `Run` all that it carries: a run needs no pipeline. It holds
the model, the state of its scheduler and everything else that a step changes. Whatever changes in
it changes in one go, so that an interrupt finds it whole.

Two readings of Eq. 4. `paired`, the paper's words: a reference chain z steps on its own eps, an
edited chain z' steps on eps_hat. `shared`: one latent, evaluated under both conditions, steps on
eps_hat. Both begin with the same noise.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .align import align_frames, blended_target
from .blend import blend, blend_in, lam_schedule, noised, rule
from .instructions import Camera, Change, Instructions, Moves, Settings, TrajectoryInstruction
from .models.common import to_cells
from .models.protocol import Condition, Prediction, VideoModel, alone
from .models.sampling import check_weights, forgets, levels, scaled, stepped
from .paint import painted_region
from .pictures import Picture, fit, to_frames, to_pictures, to_pixels
from .support.validate import Index, Path2D, Weights, check_index, checked, once
from .trace import ROWS, Record, Trace
from .trajectory import Warped, check, moving_region, warp

DRAGGED = ("drags", "pins", "camera")


# ------------------------------------------------------------------------------ the loop


def denoise(s: Run) -> Iterator[Step]:
    """Yields after every step. A new call with the same run goes on where it stands."""
    while not s.finished:
        for _ in s.settle():
            pass
        step = advance(s)
        if step is not None:
            yield step


@alone
def advance(s: Run) -> Step | None:
    """One step; None where another thread took the last. Cut short, it leaves the run as it was."""
    if s.finished:
        return None
    s.follow()
    check_weights(s.model, s.reference.changed)
    if s.skipped is not None and not overwritten(s, s.index):  # something was changed since
        take(s, s.index - 1, *s.skipped)
    return Step(take(s, s.index, s.scheduler, s.z), s)


def take(s: Run, i: int, scheduler, z: Tensor) -> Record:
    """Step i of a scheduler, from z."""
    t, lam, before = scheduler.timesteps[i], s.lam[i].to(z.device), (scheduler, z)
    z = dual_clock(s, i, z)
    skip = s.settings.skip_zero and overwritten(s, i + 1) and forgets(scheduler, t, z, i)
    if skip:
        held = {"lam": s.lam[i].cpu().clone(), "tensors": {"z_edit": z.detach()}}
        record = Record(i, float(t), *levels(scheduler, t, i), **held, overwritten=True)
        out = torch.zeros_like(z)
    else:
        record, out = predicted(s, i, t, lam, z)
    # Eq. 3: the step is taken on R(eps) = eps_hat where it would be taken on eps.
    scheduler, after = stepped(scheduler, out, t, z, i, s.reference.seed, s.reference.eta)
    if skip or i + 1 == s.num_steps:
        after = dual_clock(s, i + 1, after)
    del s.trace.records[i:]  # of a step that an interrupt cut short
    s.trace.append(record)
    new = {"scheduler": scheduler, "z": after, "skipped": before if skip else None}
    vars(s).update(last=record, index=i + 1, **new)  # in one go
    return record


def predicted(s: Run, i: int, t: Tensor, lam: Tensor, z: Tensor) -> tuple[Record, Tensor]:
    """What there is of step i at z, and the prediction that is stepped on."""
    eps, eps_edit = evaluate(s, i, t, lam, z)
    level, unit = levels(s.scheduler, t, i), "native"
    if eps is None:  # lam is 0 everywhere
        eps_hat = eps_edit.guided
    elif eps_edit is None:  # lam is 1 everywhere, or nothing is edited
        eps_hat = eps.guided
    else:  # Eq. 4
        z_ref = s.reference.z[i].to(z.device) if s.settings.reading == "paired" else z
        pair = eps.guided, eps_edit.guided
        eps_hat, unit = blend_in(s.settings.blend_in, *pair, lam, z_ref, z, level, s.rule)
    return _record(s, i, t, z, eps, eps_edit, eps_hat, level, unit), eps_hat


def evaluate(
    s: Run, i: int, t: Tensor, lam: Tensor, z: Tensor
) -> tuple[Prediction | None, Prediction | None]:
    """eps and eps' of step i; None for a branch whose weight is zero everywhere."""
    every = not s.settings.skip_zero or s.rule is not blend  # another rule may have use for it
    need, need_edit = every or bool((lam > 0).any()), every or bool((lam < 1).any())
    ref, now = s.reference, s.edit_at(i)
    if now.same and not every:  # are both branches one so far?
        if s.settings.reading == "shared" or (len(ref.z) > i and torch.equal(ref.z[i], z.cpu())):
            need, need_edit = True, False
    z_in = scaled(s.scheduler, z, t)
    edit = (z_in, now.condition)
    if s.settings.reading == "shared":
        found = predict(s, t, [(z_in, now.reference)] * need + [edit] * need_edit)
        return found[0] if need else None, found[-1] if need_edit else None
    if need and need_edit and s.settings.batch and len(ref.out) == i:
        z_ref = scaled(ref.scheduler, ref.latest, t)
        eps, eps_edit = predict(s, t, [(z_ref, ref.condition(i)), edit])
        ref.push(eps)
        return eps, eps_edit
    eps = ref.at(i) if need else None
    return eps, predict(s, t, [edit])[0] if need_edit else None


def predict(s: Run, t: Tensor, branches: list) -> list[Prediction]:
    """The branches' predictions, each branch a (scaled latent, condition)."""
    if s.settings.batch:
        z, conditions = zip(*branches, strict=True)
        return s.model.predict(torch.stack(z), t, list(conditions))
    return [s.model.predict(z[None], t, [condition])[0] for z, condition in branches]


def dual_clock(s: Run, i: int, z: Tensor) -> Tensor:
    """z' before step i, with the noised warped clip put back where things move (Time-to-Move).

    z' <- (1 - w) z' + w noise(V_warped), w = (1 - lam) mask, so that lam = 1 still means no edit;
    in the first, weak steps the mask is 1 everywhere. After the last step no noise is left.
    Where a drag edits a clip, that clip's own z is put back around what is dragged: noised anew, it
    would disagree with z of the reference chain, and the blend would drift.
    """
    w = hold(s, i)
    if w is None:
        return z
    edit = s.edit_at(min(i, s.num_steps - 1))
    warped = edit.warped_latents
    if i < s.num_steps:
        warped = noised(s.scheduler, warped, s.reference.eps, s.scheduler.timesteps[i])
    if edit.clip is not None:  # where nothing is dragged, the clip's own latents
        warped = torch.where(edit.mask > 0, warped, edit.clip.z[i].to(warped))
    return (1 - w) * z + w * warped


def hold(s: Run, i: int) -> Tensor | None:
    """The weight w of dual-clock before step i, (F, 1, h, w); None where it does not act."""
    k = min(i, s.num_steps - 1)
    edit = s.edit_at(k)
    if edit.warped_latents is None or i >= edit.strong:
        return None
    mask = edit.mask if i >= edit.weak else torch.ones_like(edit.mask)
    return (1 - s.lam[k].to(mask.device)) * mask


def overwritten(s: Run, i: int) -> bool:
    """Whether nothing of z' is left before step i, so that the step before need not be taken."""
    w = hold(s, i)
    return w is not None and bool((w == 1).all())


def _record(s: Run, i: int, t, z, eps, eps_edit, eps_hat, level, unit) -> Record:
    tensors, paired = {"z_edit": z, "out_hat": eps_hat}, s.settings.reading == "paired"
    if eps is not None:
        tensors["z_t"] = s.reference.z[i] if paired else z
        if paired:  # as it is kept, on the CPU
            eps = s.reference.out[i]
    for suffix, out in (("", eps), ("_edit", eps_edit)):
        if out is not None:
            tensors[f"out{suffix}_cond"] = out.cond
            tensors |= {} if out.uncond is None else {f"out{suffix}_uncond": out.uncond}
    scale, left = (eps_edit or eps).scale, ()
    if eps is not None and paired and not s.reference.whole:
        tensors["out"], left = tensors.pop("out_cond"), ROWS
    tensors = {name: value.detach() for name, value in tensors.items()}
    lam = s.lam[i].cpu().clone()
    return Record(i, float(t), *level, lam, tensors, scale, left, unit)


# ---------------------------------------------------------------------- what it carries


class ReferenceChain:
    """A branch that steps on its own prediction: z_T, z_{T-1}, ... and what was predicted there.

    The reference chain of P_video depends on no edit. It is computed as far as it is asked for and
    then kept, so that a second edit of the same picture costs one branch, not two.

    condition: what the branch sees. eps: the starting noise, (F, C, h, w).
    whole: keep both rows of guidance, as a trace of them needs; else the guided prediction alone.

    What is kept lies on the CPU, where a trace of it costs nothing more; `latest`, the latent that
    the next step is taken from, is on the model's device.
    """

    def __init__(
        self,
        model: VideoModel,
        condition: Condition,
        eps: Tensor,
        num_inference_steps: int,
        seed: int = 0,
        eta: float = 0.0,
        whole: bool = True,
    ):
        self.model, self.seed, self.eta, self.whole = model, seed, eta, whole
        self.eps = eps = eps.to(model.device, torch.float32)
        self.num_inference_steps, self.changed = num_inference_steps, model.changed
        self.conditions = [(0, condition)]  # (from this step on, what it sees)
        self.scheduler = model.scheduler(num_inference_steps, shape=tuple(eps.shape))
        self.latest = eps * getattr(self.scheduler, "init_noise_sigma", 1)
        self.z = [self.latest.cpu()]
        self.out: list[Prediction] = []
        self.frames: dict[tuple, np.ndarray] = {}  # the clip, by (align, decoder) of the settings

    def __len__(self) -> int:
        """Steps in all; a second-order scheduler takes more than `num_inference_steps`."""
        return len(self.scheduler.timesteps)

    def condition(self, i: int) -> Condition:
        return [c for start, c in self.conditions if start <= i][-1]

    @alone
    def push(self, out: Prediction) -> None:
        """Step on the prediction at the chain's end."""
        i, t = len(self.out), self.scheduler.timesteps[len(self.out)]
        found = stepped(self.scheduler, out.guided, t, self.latest, i, self.seed, self.eta)
        out = (out if self.whole else Prediction(out.guided)).to("cpu")
        new = {"z": [*self.z, found[1].cpu()], "out": [*self.out, out]}
        vars(self).update(scheduler=found[0], latest=found[1], **new)  # in one go

    @alone
    def at(self, i: int) -> Prediction:
        """The prediction at step i, computing what is missing up to there; on the device."""
        while len(self.out) <= i:
            check_weights(self.model, self.changed)
            k = len(self.out)
            t = self.scheduler.timesteps[k]
            z = scaled(self.scheduler, self.latest, t)
            self.push(self.model.predict(z[None], t, [self.condition(k)])[0])
        return self.out[i].to(self.eps.device)

    @property
    def nbytes(self) -> int:
        """What it takes on the CPU at most, once all its steps are computed."""
        return len(self) * (3 if self.whole else 2) * self.eps.nbytes

    @property
    def end(self) -> Tensor:
        """z_0, (F, C, h, w)."""
        self.at(len(self) - 1)
        return self.latest

    @alone
    def fork(self, i: int, condition: Condition) -> ReferenceChain:
        """The same chain up to step i, under another condition from there on."""
        same = (self.eps, self.num_inference_steps, self.seed, self.eta, self.whole)
        other = ReferenceChain(self.model, condition, *same)
        other.changed = self.changed
        other.conditions = [c for c in self.conditions if c[0] < i] + [(i, condition)]
        for out in self.out[:i]:
            other.push(out.to(self.eps.device))
        return other


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
    warped_latents: Tensor | None = None  # the warped clip's, (F, C, h, w), for dual-clock
    mask: Tensor | None = None  # cells in which things move, (F, 1, h, w), 0 or 1
    weak: int = 0  # before this step dual-clock acts everywhere,
    strong: int = 0  # before this one where things move; above the last, in the clip too
    waits: bool = False  # for the clip that a drag edits; see `Run.settle`
    clip: ReferenceChain | None = None  # the chain of that clip

    drag = once("drag", "warped_latents")


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
    rng_state: Tensor = field(repr=False)  # the generator's state after the noise
    instructions: Instructions = field(default_factory=Instructions, repr=False)
    made: int = 0
    align: torch.nn.Module | None = None
    _edited: Image.Image | None = field(default=None, repr=False)
    trajectory: TrajectoryInstruction = field(default_factory=TrajectoryInstruction)
    warped: Warped | None = None
    lam: Tensor | None = None
    reference: ReferenceChain | None = None
    painted: ReferenceChain | None = None
    index: int = 0
    z: Tensor | None = None
    skipped: tuple[Any, Tensor] | None = field(default=None, repr=False)
    scheduler: Any = None
    edits: tuple[tuple[int, Edit], ...] = ()
    trace: Trace = field(default_factory=Trace)
    last: Record | None = field(default=None, repr=False)
    seconds: dict[str, float] = field(default_factory=dict)
    _decoded: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _chain_of: Callable[[Run, Image.Image], ReferenceChain] | None = field(default=None, repr=False)

    drawn = once("drawn", "rng_state")

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
    def rule(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The rule of `settings.blend`, a function (eps, eps_edit, lam) -> eps_hat."""
        return rule(self.settings.blend)

    @property
    def finished(self) -> bool:
        return self.index >= self.num_steps

    @property
    def edit(self) -> Edit:
        """The `Edit` in force now."""
        return self.edits[-1][1]

    @checked
    def edit_at(self, index: Index) -> Edit:
        """The `Edit` that was in force at a step."""
        check_index("index", index, self.num_steps)
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
        return self.edit_at(record.index).warped_latents if record.overwritten else record["x0"]

    @property
    def unedited(self) -> np.ndarray:
        """The clip without the edits, uint8 (F, H, W, 3), read-only: computed if it has to be,
        then kept."""
        return self._frames_of(self.reference, self._picture)

    @property
    def undragged(self) -> np.ndarray | None:
        """The clip without the drags, with what was painted, uint8 (F, H, W, 3), read-only; None
        where it was not made: a drag on the clip needs it, and nothing else does."""
        if self._edited is None:
            return self.unedited
        made = self.painted is not None and len(self.painted.out) == len(self.painted)
        return self._frames_of(self.painted, self.still) if made else None

    def _frames_of(self, chain: ReferenceChain, still: Image.Image) -> np.ndarray:
        """A whole chain's clip, uint8 (F, H, W, 3), decoded once and kept with the chain."""
        how = self.settings.align, self.settings.decoder
        if how not in chain.frames:
            chain.frames[how] = self._decode(chain.end, to_pixels(still))
        return chain.frames[how]

    def _decode(self, z: Tensor, target: Tensor) -> np.ndarray:
        tiny = self.settings.decoder == "tiny"
        pixels = self.model.decode_tiny(z) if tiny else self.model.decode(z)
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
        reference: ReferenceChain,
        edits: dict[str, Any],
        chain_of: Callable[[Run, Image.Image], ReferenceChain] | None = None,
    ) -> None:
        """At the first step. `edits` are of `fields_of`: all that `edits` names but the motion.

        chain_of: gives the chain of a clip that begins with another picture, perhaps a kept one.
        """
        self.reference, self.z = reference, reference.z[0].to(reference.eps.device)
        self._chain_of = chain_of or Run.chain
        steps, shape = reference.num_inference_steps, tuple(reference.eps.shape)
        self.scheduler = self.model.scheduler(steps, shape=shape)
        self._apply(edits)

    def fields_of(self, changes: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """The changes as fields of a Run, or an error; shape: (steps, F, h, w).

        A whole TrajectoryInstruction takes the place of all that was there; of drags, pins and
        camera given one by one, those that are not given stay.
        """
        new = {name: changes[name] for name in ("motion",) if name in changes}
        if "lam" in changes:
            cell = self.model.vae_scale_factor
            new["lam"] = lam_schedule(changes["lam"], shape[0], shape[1:], cell)
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
    @checked(options=lambda: [edits])
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
        new = self.fields_of(changes, (self.num_steps, len(self.z), *self.z.shape[-2:]))
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
            held = new.warped is not None and self.settings.mechanism != "condition"
            new._put(new._edit(waits=held and self.settings.source == "clip"))
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
    def _settle(self, chain: ReferenceChain) -> None:
        new, keep = copy.copy(self), None
        clip = self._frames_of(chain, self.still)
        if self._edited is not None:
            keep = painted_region(self._picture, self._edited)
            keep = keep if keep.any() else None
        new.warped = warp(self.still, self.trajectory, len(clip), clip, keep)
        new._put(dataclasses.replace(new._edit(), clip=chain))
        vars(self).update(vars(new))

    def chain(
        self, picture: Image.Image, eps: Tensor | None = None, whole: bool = False
    ) -> ReferenceChain:
        """The chain of a clip that begins with `picture` and that nothing edits."""
        s, eps = self.settings, self.reference.eps if eps is None else eps
        condition = self.condition(to_pixels(picture))
        return ReferenceChain(
            self.model, condition, eps, s.num_inference_steps, s.seed, s.eta, whole
        )

    @property
    def _laid(self) -> Warped:
        """What the network sees of a drag: x' with the thing laid where the drag has it.

        Where a drag edits the clip, too. The network was trained on pictures that stand still, and
        reads from the text how the rest moves: shown what has moved already, it moves it again.
        """
        if self.settings.source == "still":
            return self.warped
        return warp(self.still, self.trajectory, self.settings.num_frames)

    def _edit(self, waits: bool = False) -> Edit:
        """What tells the edited branch from the reference; little of it while it waits."""
        s, pixels = self.settings, None if self.warped is None else to_pixels(self.warped.frames)
        condition = self.reference.condition(self.index)
        reference, condition = copy.copy(condition), copy.copy(condition)
        if waits:
            return Edit(self.motion, reference, condition, False, waits=True)
        if pixels is not None and s.mechanism != "dual-clock":
            condition = self.condition(to_pixels(self._laid.frames))
        elif self._edited is not None:
            condition = self.condition(to_pixels(self._edited))
        same = self._edited is None and (pixels is None or s.mechanism == "dual-clock")
        edit = Edit(self.motion, reference, condition, same)
        if pixels is None or s.mechanism == "condition":
            return edit
        z = self.model.encode(pixels)
        region = torch.from_numpy(moving_region(self.warped)).float()
        mask = to_cells(region, (len(z), *z.shape[-2:]))[0][:, None]
        weak, strong = (round(v * self.num_steps) for v in (s.weak, max(s.weak, s.strong)))
        strong += s.strong == 1  # the finished clip, too
        held = {"warped_latents": z, "mask": mask.to(z.device), "weak": weak, "strong": strong}
        return dataclasses.replace(edit, **held)

    def condition(self, pixels: Tensor) -> Condition:
        """One branch's condition. Both draw from the generator as the noise has left it."""
        s, model, generator = self.settings, self.model, torch.Generator()
        generator.set_state(self.rng_state)
        scale = s.guidance_scale
        if isinstance(scale, list):
            scale = torch.tensor(scale, device=model.device).view(-1, 1, 1, 1)
        return model.condition(
            pixels,
            self.motion,
            num_frames=s.num_frames,
            negative_prompt=s.negative_prompt,
            guidance_scale=scale,
            motion_scale=s.motion_scale,
            posterior=s.posterior,
            generator=generator,
        )


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

    @checked
    def preview(self, frame: Index = -1) -> Image.Image:
        """One frame of the clip as this step predicts it, decoded from x0: PIL RGB. Where a drag's
        hold overwrites the step, a frame of the warped clip."""
        check_index("frame", frame, len(self.run.z))
        foreseen = self.run.foreseen(self.record)
        return to_pictures(self.run.model.preview(foreseen, frame)[None])[0]

    @checked(options=lambda: [edits])
    def change(self, **changes) -> None:
        """`Run.change`: edits, `lam` or `motion` from the next step on."""
        self.run.change(**changes)
