"""Equation 5: every frame is aligned with the edited picture after the denoising.

    v'_i = Conv2D(SiLU(GroupNorm(v_i - x)))                       (as printed)
    v'_i = v_i + g(v_i - x'_i)                                    (residual)

As printed, the output has lost x, and no public weights fit: the layers that the paper names take
320 channels, v_i - x has 3. In the residual form g is the printed stack with one hidden layer, and
x'_i is the edited picture, warped for frame i where there is a drag. Its last convolution begins at
zero, so that before any training it changes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn

from .support.validate import Count, TensorOf, checked

Clip = Annotated[Tensor, TensorOf("F 3 H W")]
Frames = Annotated[Tensor, TensorOf("F 3 H W", broadcasts=True)]
Schedule = Annotated[Tensor, TensorOf("steps F 1 h w", broadcasts=True)]


class Align(nn.Module):
    """Eq. 5 as printed: v'_i = Conv2D(SiLU(GroupNorm(v_i - x)))."""

    def __init__(self, groups: int = 1):
        super().__init__()
        self.norm = nn.GroupNorm(groups, 3)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, v: Tensor, x: Tensor) -> Tensor:
        """v (F, 3, H, W) frames, x (1 or F, 3, H, W) picture, both in [-1, 1]: (F, 3, H, W)."""
        d = _difference(self, v, x)
        return self.conv(nn.functional.silu(self.norm(d))).to(v)


def _difference(module: nn.Module, v: Tensor, x: Tensor) -> Tensor:
    """v - x where the module's weights are; what it answers goes back to where v is."""
    v, x = (p.to(module.conv.weight) for p in (v, x))
    return v - x


class ResidualAlign(nn.Module):
    """The residual form: v'_i = v_i + g(v_i - x'_i), the identity before training."""

    def __init__(self, groups: int = 1, width: int = 16):
        super().__init__()
        self.norm = nn.GroupNorm(groups, 3)
        self.hidden = nn.Conv2d(3, width, 3, padding=1)
        self.conv = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, v: Tensor, x: Tensor) -> Tensor:
        """v (F, 3, H, W) frames, x (1 or F, 3, H, W) edited picture, both in [-1, 1]."""
        h = nn.functional.silu(self.norm(_difference(self, v, x)))
        return v + self.conv(nn.functional.silu(self.hidden(h))).to(v)


def load_align(folder: str | Path, device="cpu") -> ResidualAlign | None:
    """The module in `folder`/align/align.safetensors, on a device; None where there is none.

    The number of groups is in the file's metadata ("groups"), 1 where it is not.
    Raises ValueError where the file is damaged or of another layout.
    """
    file = Path(folder) / "align" / "align.safetensors"
    if not file.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as f:
            groups = int((f.metadata() or {}).get("groups", 1))
            state = {name: f.get_tensor(name).float() for name in f.keys()}  # noqa: SIM118
        module = ResidualAlign(groups, len(state["hidden.weight"]))
        module.load_state_dict(state)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(f"{file} holds no alignment module of Eq. 5 ({error})") from None
    return module.to(device).eval().requires_grad_(False)


@checked
def blended_target(x: Frames, x_edit: Frames, lam: Schedule) -> Tensor:
    """What a clip made with `lam` is aligned with: lam x + (1 - lam) x', as Eq. 4 blends.

    So that lam = 1 still means no edit. x (1, 3, H, W), x_edit (1 or F, 3, H, W), lam
    (steps, 1 or F, 1, h or 1, w or 1): its mean over the steps counts.
    """
    x_edit = x_edit.to(x)
    weight = lam.to(x).mean(0)
    if weight.shape[-2:] != (1, 1):
        weight = nn.functional.interpolate(weight, size=x.shape[-2:], mode="bilinear")
    return weight * x + (1 - weight) * x_edit


@checked
@torch.no_grad()
def align_frames(module: nn.Module, v: Clip, x: Frames, slice_: Count = 4) -> Tensor:
    """Eq. 5 over a clip, a few frames at a time: v (F, 3, H, W), x (1 or F, 3, H, W) in [-1, 1]."""
    x = x.to(v).expand_as(v)
    parts = zip(v.split(slice_), x.split(slice_), strict=True)
    return torch.cat([module(a, b) for a, b in parts]).clamp(-1, 1)
