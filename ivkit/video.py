"""P_video: the denoising loop that blends two predictions at each step (Eq. 2 to 4).

Two readings of Eq. 4. `paired`, the paper's words: a reference chain z steps on its own eps, an
edited chain z' steps on eps_hat. `shared`: one latent, evaluated under both conditions, steps on
eps_hat. Both begin with the same noise.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .blend import blend, noised
from .models.protocol import Condition, Prediction, VideoModel
from .trace import Record, Trace

READINGS = ("paired", "shared")


class Chain:
    """One branch that steps on its own prediction: z_T, z_T-1, ... and what was predicted.

    The reference chain depends on no edit. So it is computed as far as it is asked for, and kept:
    a second edit of the same picture costs one branch, not two.
    """

    def __init__(
        self,
        model: VideoModel,
        condition: Condition,
        eps: Tensor,
        num_inference_steps: int,
        seed: int = 0,
        eta: float = 0.0,
    ):
        self.model, self.eps, self.seed, self.eta = model, eps, seed, eta
        self.num_inference_steps = num_inference_steps
        self.conditions = [(0, condition)]  # (from this step on, what it sees)
        self.scheduler = model.scheduler(num_inference_steps)
        self.num_steps = len(self.scheduler.timesteps)  # more for second-order schedulers
        self.z = [eps * self.scheduler.init_noise_sigma]
        self.out: list[Prediction] = []

    def condition(self, i: int) -> Condition:
        return [c for start, c in self.conditions if start <= i][-1]

    def push(self, out: Prediction) -> None:
        """Step on the prediction at the chain's end."""
        i = len(self.out)
        t = self.scheduler.timesteps[i]
        z = scheduler_step(self.scheduler, out.guided, t, self.z[i], self.seed, i, self.eta)
        self.z.append(z)
        self.out.append(out)

    def at(self, i: int) -> Prediction:
        """The prediction at step i, computing what is missing up to there."""
        while len(self.out) <= i:
            k = len(self.out)
            t = self.scheduler.timesteps[k]
            z = self.scheduler.scale_model_input(self.z[k], t)
            self.push(self.model.predict(z[None], t, [self.condition(k)])[0])
        return self.out[i]

    def fork(self, i: int, condition: Condition) -> Chain:
        """The same chain up to step i, under another condition from there on."""
        other = Chain(
            self.model, None, self.eps, self.num_inference_steps, self.seed, self.eta
        )
        other.conditions = [c for c in self.conditions if c[0] < i] + [(i, condition)]
        for out in self.out[:i]:
            other.push(out)
        return other

    @property
    def end(self) -> Tensor:
        """z_0, (F, C, h, w)."""
        self.at(self.num_steps - 1)
        return self.z[self.num_steps]


@dataclass
class Denoising:
    """All that the loop carries from one step to the next; it can be left and taken up at any step."""

    model: VideoModel
    reference: Chain
    condition: Condition  # x: the unedited picture
    condition_edit: Condition  # x': the edited one, per frame where there is a drag
    lam: Tensor  # (steps, F or 1, 1, h or 1, w or 1)
    reading: str = "paired"
    drag_latents: Tensor | None = None  # V_warped, (F, C, h, w), for dual-clock denoising
    drag_mask: Tensor | None = None  # moving region, (F, 1, h, w)
    drag_steps: int = 0  # dual-clock acts at steps before this one
    skip_zero: bool = True
    batch: bool = False  # both branches in one call of the network
    rebuild: Callable[[Denoising, dict[str, Any]], None] | None = None
    index: int = 0
    z: Tensor | None = None  # z' in `paired`, the one latent in `shared`
    trace: Trace = field(default_factory=Trace)
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self.scheduler = self.model.scheduler(self.reference.num_inference_steps)
        self.z = self.reference.z[0]

    @property
    def num_steps(self) -> int:
        return self.reference.num_steps

    @property
    def finished(self) -> bool:
        return self.index >= self.num_steps

    def change(self, **changes) -> None:
        if self.finished:
            raise ValueError("the clip is finished; start another run to change it.")
        self.rebuild(self, changes)


@dataclass
class Step:
    """One step, just done. Tensors by name as in a trace: `step["eps_hat"]`, `step["x0"]` ..."""

    record: Record
    state: Denoising

    def __getitem__(self, name: str):
        return self.record[name]

    @property
    def index(self) -> int:
        return self.record.index

    @property
    def t(self) -> float:
        return self.record.t

    @property
    def lam(self) -> Tensor:
        return self.record.lam

    @property
    def x0(self) -> Tensor:
        """The clean-picture estimate, (F, C, h, w)."""
        return self.record["x0"]

    @property
    def num_steps(self) -> int:
        return self.state.num_steps

    def preview(self, frame: int = -1) -> Image.Image:
        """One frame of the clip as it is foreseen at this step, decoded from x0: PIL RGB."""
        model = self.state.model
        return to_pictures(model.preview(self.x0.to(model.device), frame)[None])[0]

    def change(self, **changes) -> None:
        """Change `edited`, `drags`, `pins`, `camera`, `lam` or `motion` from the next step on.

        Raises what `Pipeline.video` would for the same argument; then nothing is changed.
        """
        self.state.change(**changes)


def denoise(s: Denoising) -> Iterator[Step]:
    """The loop. Yields after every step; a new call on the same `s` goes on where it stands."""
    while not s.finished:
        i = s.index
        t = s.scheduler.timesteps[i]
        lam = s.lam[i].to(s.z.device)
        z_edit = dual_clock(s, lam, t)
        eps, eps_edit = evaluate(s, i, t, lam, z_edit)
        if eps is None:  # lam is 0 everywhere
            eps_hat = eps_edit.guided
        elif eps_edit is None:  # lam is 1 everywhere, or nothing was edited
            eps_hat = eps.guided
        else:
            eps_hat = blend(eps.guided, eps_edit.guided, lam)
        tensors = {"z_edit": z_edit, "out_hat": eps_hat}
        if eps is not None:
            tensors |= {"z_t": s.reference.z[i] if s.reading == "paired" else z_edit}
        record = _record(s, i, t, tensors, eps, eps_edit)
        seed, eta = s.reference.seed, s.reference.eta
        s.z = scheduler_step(s.scheduler, eps_hat, t, z_edit, seed, i, eta)
        s.index = i + 1
        s.trace.append(record)
        yield Step(record, s)


def evaluate(
    s: Denoising, i: int, t: Tensor, lam: Tensor, z_edit: Tensor
) -> tuple[Prediction | None, Prediction | None]:
    """eps and eps' of step i; None for a branch whose weight is zero in every place."""
    need = not s.skip_zero or bool((lam > 0).any())
    need_edit = not s.skip_zero or bool((lam < 1).any())
    if s.skip_zero and _unedited(s, i, z_edit):  # both branches are one
        need, need_edit = True, False
    z_in = s.scheduler.scale_model_input(z_edit, t)
    if s.reading == "shared":
        conditions = [s.condition] * need + [s.condition_edit] * need_edit
        found = _predict(s, [z_in] * len(conditions), t, conditions)
        return (found.pop(0) if need else None), (found.pop(0) if need_edit else None)
    if need and need_edit and s.batch and len(s.reference.out) == i:
        z = s.scheduler.scale_model_input(s.reference.z[i], t)
        eps, eps_edit = _predict(s, [z, z_in], t, [s.reference.condition(i), s.condition_edit])
        s.reference.push(eps)
        return eps, eps_edit
    eps = s.reference.at(i) if need else None
    return eps, (_predict(s, [z_in], t, [s.condition_edit])[0] if need_edit else None)


def _unedited(s: Denoising, i: int, z_edit: Tensor) -> bool:
    if s.condition_edit is not s.condition:
        return False
    z = s.reference.z
    return s.reading == "shared" or (len(z) > i and torch.equal(z[i], z_edit))


def _predict(s: Denoising, z: list[Tensor], t: Tensor, conditions: list) -> list[Prediction]:
    if s.batch:
        return s.model.predict(torch.stack(z), t, conditions)
    return [s.model.predict(a[None], t, [c])[0] for a, c in zip(z, conditions, strict=True)]


def dual_clock(s: Denoising, lam: Tensor, t: Tensor) -> Tensor:
    """z', with the noised warped video put back where things move (Time-to-Move, without training).

    z' <- (1 - w) z' + w noise(V_warped), w = (1 - lam) mask, so that lam = 1 means: no edit.
    """
    if s.drag_latents is None or s.index >= s.drag_steps:
        return s.z
    w = (1 - lam) * s.drag_mask
    return (1 - w) * s.z + w * noised(s.scheduler, s.drag_latents, s.reference.eps, t)


def scheduler_step(scheduler, out: Tensor, t: Tensor, z: Tensor, seed: int, i: int, eta=0.0):
    """z_{t-1}. Noise of a stochastic scheduler is seeded by step, so that a pause changes nothing."""
    accepted = inspect.signature(scheduler.step).parameters
    options = {"eta": eta} if "eta" in accepted else {}
    if "generator" in accepted:
        options["generator"] = torch.Generator().manual_seed((seed + 1) * 1_000_003 + i)
    return scheduler.step(out, t, z, **options).prev_sample


def levels(scheduler, t: Tensor, i: int) -> tuple[float, float, str]:
    """signal, noise and kind of prediction at step i, where z = signal x0 + noise eps."""
    kind = getattr(scheduler.config, "prediction_type", "flow_prediction")
    sigmas = getattr(scheduler, "sigmas", None)
    if not hasattr(scheduler, "alphas_cumprod") or "flow" in kind:
        sigma = float(sigmas[i])
        return 1 - sigma, sigma, "flow_prediction"
    if sigmas is not None and float(scheduler.init_noise_sigma) != 1:  # Euler, Heun, LMS ...
        return 1.0, float(sigmas[i]), kind
    alpha_bar = float(scheduler.alphas_cumprod[int(t)].clamp(0, 1))
    return alpha_bar**0.5, (1 - alpha_bar) ** 0.5, kind


def _record(s: Denoising, i: int, t, tensors: dict, eps, eps_edit) -> Record:
    for suffix, out in (("", eps), ("_edit", eps_edit)):
        if out is not None:
            tensors |= {f"out{suffix}": out.guided, f"out{suffix}_cond": out.cond}
            tensors |= {} if out.uncond is None else {f"out{suffix}_uncond": out.uncond}
    tensors = {name: value.detach().cpu() for name, value in tensors.items()}
    signal, noise, kind = levels(s.scheduler, t, i)
    return Record(i, float(t), signal, noise, kind, s.lam[i].cpu(), tensors)


def to_pixels(frames: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_frames(pixels: Tensor) -> np.ndarray:
    """float (N, 3, H, W) in [-1, 1] to uint8 (N, H, W, 3)."""
    values = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return values.permute(0, 2, 3, 1).cpu().numpy()


def to_pictures(pixels: Tensor) -> list[Image.Image]:
    """float (N, 3, H, W) in [-1, 1] to PIL RGB."""
    return [Image.fromarray(frame) for frame in to_frames(pixels)]
