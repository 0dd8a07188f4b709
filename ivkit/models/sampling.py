"""One step of a diffusers scheduler, and what its noise levels mean."""

from __future__ import annotations

import copy
import inspect
from typing import Annotated, Any

import torch
from torch import Tensor

from ..support.validate import MAX_STEPS, Kind, Number, check_index, checked
from .protocol import VideoModel


def placed(scheduler, *tensors: Tensor) -> list[Tensor]:
    """Tensors of any device as float32 (or finer) where the scheduler's timesteps are."""
    device = scheduler.timesteps.device
    return [x.to(device, torch.promote_types(x.dtype, torch.float32)) for x in tensors]


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
    kept = (
        [
            v
            for value in vars(s).values()
            for v in (value if type(value) is list else [value])
            if isinstance(v, Tensor)
        ]
        for s in after
    )
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
    """(alpha_t, sigma_t, prediction_type) at step i, where z = alpha_t x0 + sigma_t eps."""
    check_index("i", i, len(scheduler.timesteps))
    predicts = getattr(scheduler.config, "prediction_type", "flow_prediction")
    if not hasattr(scheduler, "alphas_cumprod") or predicts == "flow_prediction":
        sigma = float(scheduler.sigmas[i])
        return 1 - sigma, sigma, "flow_prediction"
    if float(scheduler.init_noise_sigma) != 1:  # Euler, Heun, LMS: the variance is not kept
        return 1.0, float(scheduler.sigmas[i]), predicts
    check_index("t", int(t), len(scheduler.alphas_cumprod))
    alpha_bar = float(scheduler.alphas_cumprod[int(t)].clamp(0, 1))
    return alpha_bar**0.5, (1 - alpha_bar) ** 0.5, predicts
