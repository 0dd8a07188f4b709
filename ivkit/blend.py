"""Equations 2 to 4 of the paper: noising, and the blend of two predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from .models.sampling import placed
from .support.validate import SIDE, Listed, Number, Side, Steps, TensorOf, Weights, checked, shown
from .trace import NATIVE, convert

Noise = Annotated[Tensor, TensorOf("F C h w", "C h w", "")]
Weight = Annotated[Tensor | float, TensorOf("F C h w", broadcasts=True, number=Number(0, 1))]
LatentShape = Annotated[tuple, Listed(SIDE, "lengths", least=3)]


def noised(scheduler, z0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Eq. 2: z_t = sqrt(alpha_bar_t) z0 + sqrt(1 - alpha_bar_t) eps, in the scheduler's terms."""
    z0, eps = placed(scheduler, z0, eps)
    t = torch.as_tensor(t, device=z0.device)
    if hasattr(scheduler, "scale_noise"):  # flow matching
        return scheduler.scale_noise(z0, t.reshape(1), eps)
    return scheduler.add_noise(z0, eps, t.reshape(1))


@checked
def blend(eps: Noise, eps_edit: Noise, lam: Weight) -> Tensor:
    """Eq. 4: the prediction that the edited video steps on, which is R(eps) of Eq. 3.

    eps, eps_edit: (F, C, h, w), the network's native output under x and under the edited x.
    lam: in [0, 1], broadcasts to (F, 1, h, w); 1 ignores the edits, 0 follows them alone.
    """
    eps_edit = eps_edit.to(eps.device)
    lam = lam.to(eps.device) if isinstance(lam, Tensor) else lam
    return lam * eps + (1 - lam) * eps_edit


#: rules by name, so that instructions which use one can be saved: `video(..., blend=NAME)`
RULES = {"linear": blend}


def rule(blend: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The rule of that name, or the function itself. ValueError where no rule has the name."""
    if not isinstance(blend, str):
        return blend
    if blend not in RULES:
        known = ", ".join(RULES)
        raise ValueError(f"blend must be one of {known}, or a function, got {shown(blend)}")
    return RULES[blend]


def check_rule(blend: Any, eps: Tensor, lam: Tensor) -> None:
    """Try a rule on eps and the lam of one step.

    ValueError where no rule has the name, or the function fails or answers in another shape.
    """
    mix = rule(blend)
    try:
        found = mix(eps, eps, lam)
    except Exception as error:
        raise ValueError(
            f"blend fails as a function (eps, eps_edit, lam): {shown(error)}"
        ) from None
    if not isinstance(found, Tensor) or found.shape != eps.shape:
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else shown(found)
        raise ValueError(f"blend must answer a tensor of shape {tuple(eps.shape)}, got {got}")


def blend_in(
    unit: str,
    out: Tensor,
    out_edit: Tensor,
    lam: Tensor | float,
    z: Tensor,
    z_edit: Tensor,
    level: tuple[float, float, str],
    mix: Callable[[Tensor, Tensor, Tensor], Tensor] = blend,
) -> tuple[Tensor, str]:
    """Eq. 4 in a unit of choice: (the blend in the network's native unit, the unit blended in).

    For one latent (reading `shared`) every unit gives the same. In `paired` z and z' differ, and
    with x0 = (z - sigma eps) / alpha a blend of eps, the paper's letter, leaves lam (z' - z) /
    alpha in x0', which drifts; of v the factor is alpha, which is tame whatever the network says.

    Args:
        unit: one of `instructions.UNITS`. Where alpha is 0 the native outputs are blended, since
            other units are undefined there.
        out, out_edit: the native outputs under x, at z, and under the edited x, at z'.
        level: (signal, noise, kind of prediction) of the step, as of `sampling.levels`.
        mix: the rule, Eq. 4's own or another.
    """
    native = NATIVE[level[2]]
    unit = native if unit == "native" or level[0] == 0 else unit
    if unit == native or (z is z_edit and mix is blend):  # there Eq. 4 is the same in every unit
        return mix(out, out_edit, lam), unit
    mixed = mix(convert(out, z, *level, unit), convert(out_edit, z_edit, *level, unit), lam)
    return to_native(mixed, z_edit, *level, unit), unit


def to_native(value: Tensor, z: Tensor, signal: float, noise: float, kind: str, unit: str):
    """What a network would have put out for `value` in `unit`: the inverse of `trace.convert`."""
    if kind == "flow_prediction":
        return (z - value) / noise if unit == "x0" else (value - z) / signal
    said = {"v": "v_prediction", "x0": "sample", "eps": "epsilon"}[unit]
    return convert(value, z, signal, noise, said, NATIVE[kind])


@checked
def lam_schedule(
    lam: Weights, num_inference_steps: Steps, latent_shape: LatentShape, cell: Side = 1
) -> Tensor:
    """lam as float32 (steps, F or 1, 1, h or 1, w or 1), checked.

    lam: a number in [0, 1]; a flat sequence with one number for each step; or an array of two or
    more axes that broadcasts to (steps, F, 1, h, w), where the last two may also be the picture's
    own (h * cell, w * cell), which are averaged over the cells.
    latent_shape: (F, h, w).
    Raises ValueError where lam is not finite, not within [0, 1] or does not fit.
    """
    frames, h, w = latent_shape[:3]
    full = (num_inference_steps, frames, 1, h, w)
    lam = lam if isinstance(lam, Tensor) else np.array(lam, np.float32)
    value = torch.as_tensor(lam, dtype=torch.float32)
    if value.ndim == 1 and len(value) > 1:  # one number a step
        if len(value) != num_inference_steps:
            raise ValueError(
                f"lam as a flat sequence needs one number for each of the {num_inference_steps} "
                f"steps, got {len(value)}"
            )
        value = value.view(-1, 1, 1, 1, 1)
    shape = tuple(value.shape)
    if value.ndim >= 2 and cell > 1 and shape[-2:] == (h * cell, w * cell):
        rows = torch.nn.functional.avg_pool2d(value.reshape(-1, 1, *shape[-2:]), cell)
        value = rows.reshape(*shape[:-2], h, w)
    value = value.reshape((1,) * max(0, 5 - value.ndim) + tuple(value.shape))
    if value.ndim != 5 or any(a not in (1, b) for a, b in zip(value.shape, full, strict=True)):
        raise ValueError(
            f"lam of shape {shape} does not broadcast to (steps, frames, 1, h, w) = {full}"
        )
    return value.expand(num_inference_steps, -1, -1, -1, -1)
