"""One step of a diffusers scheduler, what its noise levels mean, and a chain of such steps."""

from __future__ import annotations

import copy
import inspect
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from ..blend import placed
from ..support.validate import MAX_STEPS, Kind, Number, check_index, checked
from .protocol import Condition, Prediction, VideoModel, alone


def stepped(
    scheduler, out: Tensor, t: Tensor, z: Tensor, i: int, seed: int = 0, eta: float = 0.0
) -> tuple[Any, Tensor]:
    """(the scheduler as step i leaves it, z_{t-1}). `scheduler` itself stays as it was.

    A scheduler changes while it steps (its index, its lists of earlier predictions, sums of them in
    place), and an interrupt may fall in between. So a copy steps, and takes the old one's place
    with the latent.
    """
    after = copy.copy(scheduler)
    for name, value in vars(scheduler).items():
        if type(value) is list:
            setattr(after, name, list(value))
        elif isinstance(value, Tensor) and value.shape == z.shape:
            setattr(after, name, value.clone())
    return after, scheduler_step(after, out, t, z, i, seed, eta)


def scheduler_step(
    scheduler, out: Tensor, t: Tensor, z: Tensor, i: int, seed: int = 0, eta: float = 0.0
) -> Tensor:
    """z_{t-1} from the prediction `out` at step i.

    A stochastic scheduler's noise is seeded anew for each step, so that a pause changes nothing.
    """
    out, z = placed(scheduler, out, z)
    accepted = inspect.signature(scheduler.step).parameters
    # At 1 and alpha_bar 0, DDIM takes the root of 1 - 1, which rounds to below 0.
    options = {"eta": min(eta, 1 - 1e-6)} if "eta" in accepted else {}
    if "generator" in accepted:
        drawn = ((seed + 1) * 1_000_003 + i) % 2**64  # what a generator takes
        options["generator"] = torch.Generator().manual_seed(drawn)
    return scheduler.step(out, t, z, **options).prev_sample


def forgets(scheduler, t: Tensor, z: Tensor, i: int) -> bool:
    """Whether a prediction at step i counts in z_{t-1} alone; a multistep scheduler keeps it."""
    after = (stepped(scheduler, z * 0 + k, t, z, i)[0] for k in (0, 1))
    kept = ([v for value in vars(s).values() for v in (value if type(value) is list else [value])
             if isinstance(v, Tensor)] for s in after)  # fmt: skip
    return all(torch.equal(a, b) for a, b in zip(*kept, strict=True))


def check_weights(model: VideoModel, changed: int) -> None:
    """ValueError where weights were changed since `model.changed` was `changed`."""
    if model.changed != changed:
        raise ValueError(
            f"the weights of {model.name} have changed since this clip was begun, as by a LoRA: "
            "start another run"
        )


def scaled(scheduler, z: Tensor, t: Tensor) -> Tensor:
    """z as the network takes it; a flow-matching scheduler leaves it as it is."""
    (z,) = placed(scheduler, z)
    return scheduler.scale_model_input(z, t) if hasattr(scheduler, "scale_model_input") else z


def _scheduler(value: Any) -> Any:
    if not (hasattr(value, "config") and hasattr(value, "timesteps")):
        raise TypeError
    return value


Scheduler = Annotated[Any, Kind("a scheduler of diffusers", _scheduler, TypeError)]
Time = Annotated[float, Number(-MAX_STEPS, MAX_STEPS)]  # SVD's times are below 0, too


@checked
def levels(scheduler: Scheduler, t: Time, i: int) -> tuple[float, float, str]:
    """(signal, noise, kind of prediction) at step i, where z = signal x0 + noise eps."""
    check_index("i", i, len(scheduler.timesteps))
    kind = getattr(scheduler.config, "prediction_type", "flow_prediction")
    if not hasattr(scheduler, "alphas_cumprod") or kind == "flow_prediction":
        sigma = float(scheduler.sigmas[i])
        return 1 - sigma, sigma, "flow_prediction"
    if float(scheduler.init_noise_sigma) != 1:  # Euler, Heun, LMS: the variance is not kept
        return 1.0, float(scheduler.sigmas[i]), kind
    check_index("t", int(t), len(scheduler.alphas_cumprod))
    alpha_bar = float(scheduler.alphas_cumprod[int(t)].clamp(0, 1))
    return alpha_bar**0.5, (1 - alpha_bar) ** 0.5, kind


class Chain:
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
        self.frames: dict[bool, np.ndarray] = {}  # the clip, by whether it is aligned (Eq. 5)

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
    def fork(self, i: int, condition: Condition) -> Chain:
        """The same chain up to step i, under another condition from there on."""
        same = (self.eps, self.num_inference_steps, self.seed, self.eta, self.whole)
        other = Chain(self.model, condition, *same)
        other.changed = self.changed
        other.conditions = [c for c in self.conditions if c[0] < i] + [(i, condition)]
        for out in self.out[:i]:
            other.push(out.to(self.eps.device))
        return other
