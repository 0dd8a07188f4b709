"""P_video: the denoising loop that blends two predictions at each step (Eq. 2 to 4).

Two readings of Eq. 4. `paired`, the paper's words: a reference chain z steps on its own eps, an
edited chain z' steps on eps_hat. `shared`: one latent, evaluated under both conditions, steps on
eps_hat. Both begin with the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .blend import blend, noised
from .models.protocol import Condition, Prediction
from .pixels import to_pictures
from .sampling import Chain, levels, scheduler_step
from .trace import Record, Trace

READINGS = ("paired", "shared")


@dataclass
class Edit:
    """What tells the edited branch from the reference."""

    condition: Condition  # x', for each frame where there is a drag
    drag: Tensor | None = None  # the warped clip's latents, (F, C, h, w), for dual-clock
    mask: Tensor | None = None  # where things move, (F, 1, h, w) in [0, 1]
    weak: int = 0  # before this step dual-clock acts everywhere,
    strong: int = 0  # before this one where things move


@dataclass
class Denoising:
    """What the loop carries from step to step: it can be left and taken up at any of them."""

    reference: Chain
    edit: Edit
    lam: Tensor  # (steps, F or 1, 1, h or 1, w or 1)
    reading: str = "paired"
    skip_zero: bool = True  # do not evaluate a branch whose weight is zero everywhere
    batch: bool = False  # both branches in one call of the network
    on_change: Callable[[dict[str, Any]], None] | None = None
    index: int = 0
    trace: Trace = field(default_factory=Trace)

    def __post_init__(self):
        self.model = self.reference.model
        self.scheduler = self.model.scheduler(self.reference.num_inference_steps)
        self.z = self.reference.z[0]  # z' in `paired`, the one latent in `shared`

    @property
    def num_steps(self) -> int:
        return len(self.reference)

    @property
    def finished(self) -> bool:
        return self.index >= self.num_steps


def denoise(s: Denoising) -> Iterator[Step]:
    """Yields after every step. A new call with the same `s` goes on where it stands."""
    while not s.finished:
        i = s.index
        t, lam = s.scheduler.timesteps[i], s.lam[i].to(s.z.device)
        z = dual_clock(s, lam, t)
        eps, eps_edit = evaluate(s, i, t, lam, z)
        if eps is None:  # lam is 0 everywhere
            eps_hat = eps_edit.guided
        elif eps_edit is None:  # lam is 1 everywhere, or nothing is edited
            eps_hat = eps.guided
        else:
            eps_hat = blend(eps.guided, eps_edit.guided, lam)
        s.trace.append(_record(s, i, t, z, eps, eps_edit, eps_hat))
        s.z = scheduler_step(s.scheduler, eps_hat, t, z, i, s.reference.seed, s.reference.eta)
        s.index = i + 1
        yield Step(s.trace[-1], s)


def evaluate(
    s: Denoising, i: int, t: Tensor, lam: Tensor, z: Tensor
) -> tuple[Prediction | None, Prediction | None]:
    """eps and eps' of step i; None for a branch whose weight is zero everywhere."""
    need = not s.skip_zero or bool((lam > 0).any())
    need_edit = not s.skip_zero or bool((lam < 1).any())
    ref, condition = s.reference, s.reference.condition(i)
    if s.skip_zero and s.edit.condition is condition:  # are both branches one so far?
        if s.reading == "shared" or (len(ref.z) > i and torch.equal(ref.z[i], z)):
            need, need_edit = True, False
    z_in = s.scheduler.scale_model_input(z, t)
    edit = (z_in, s.edit.condition)
    if s.reading == "shared":
        found = predict(s, t, [(z_in, condition)] * need + [edit] * need_edit)
        return found[0] if need else None, found[-1] if need_edit else None
    if need and need_edit and s.batch and len(ref.out) == i:
        z_ref = ref.scheduler.scale_model_input(ref.z[i], t)
        eps, eps_edit = predict(s, t, [(z_ref, condition), edit])
        ref.push(eps)
        return eps, eps_edit
    eps = ref.at(i) if need else None
    return eps, predict(s, t, [edit])[0] if need_edit else None


def predict(s: Denoising, t: Tensor, branches: list) -> list[Prediction]:
    """The branches' predictions, each branch a (scaled latent, condition)."""
    if s.batch:
        z, conditions = zip(*branches, strict=True)
        return s.model.predict(torch.stack(z), t, list(conditions))
    return [s.model.predict(z[None], t, [condition])[0] for z, condition in branches]


def dual_clock(s: Denoising, lam: Tensor, t: Tensor) -> Tensor:
    """z', with the noised warped clip put back where things move (Time-to-Move, training-free).

    z' <- (1 - w) z' + w noise(V_warped), w = (1 - lam) mask, so that lam = 1 still means no edit;
    in the first, weak steps the mask is 1 everywhere.
    """
    if s.edit.drag is None or s.index >= s.edit.strong:
        return s.z
    w = (1 - lam) * (s.edit.mask if s.index >= s.edit.weak else torch.ones_like(s.edit.mask))
    return (1 - w) * s.z + w * noised(s.scheduler, s.edit.drag, s.reference.eps, t)


def _record(s: Denoising, i: int, t, z, eps, eps_edit, eps_hat) -> Record:
    tensors = {"z_edit": z, "out_hat": eps_hat}
    if eps is not None:
        tensors["z_t"] = s.reference.z[i] if s.reading == "paired" else z
    for suffix, out in (("", eps), ("_edit", eps_edit)):
        if out is not None:
            tensors |= {f"out{suffix}": out.guided, f"out{suffix}_cond": out.cond}
            tensors |= {} if out.uncond is None else {f"out{suffix}_uncond": out.uncond}
    tensors = {name: value.detach().cpu() for name, value in tensors.items()}
    return Record(i, float(t), *levels(s.scheduler, t, i), s.lam[i].cpu(), tensors)


@dataclass
class Step:
    """A step just done. Tensors by name as in a trace: `step["eps_hat"]`, `step["x0"]`, ..."""

    record: Record
    state: Denoising

    def __getitem__(self, name: str):
        return self.record[name]

    @property
    def index(self) -> int:
        return self.record.index

    @property
    def num_steps(self) -> int:
        return self.state.num_steps

    def preview(self, frame: int = -1) -> Image.Image:
        """One frame of the clip as it is foreseen now, decoded from x0: PIL RGB."""
        model = self.state.model
        return to_pictures(model.preview(self["x0"].to(model.device), frame)[None])[0]

    def change(self, **changes) -> None:
        """Change `edited`, `drags`, `pins`, `camera`, `lam` or `motion` from the next step on.

        Raises what `Pipeline.video` would for the same argument; then nothing is changed.
        """
        if self.state.finished:
            raise ValueError("the clip is finished: start another run to change it.")
        self.state.on_change(changes)
