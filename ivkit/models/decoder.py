"""The tiny decoder: the storybook's latents to pictures for a sixth of the arithmetic."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..support.disk import write_tensors

FILE = "tiny_decoder.safetensors"
WIDTHS = (128, 80, 56, 32, 8)  # channels at 16, 32, 64, 128 and 256 pixels


class Mix(nn.Module):
    """Each channel over 5 x 5 cells, then all channels of a cell: many weights, few cells."""

    def __init__(self, width: int):
        super().__init__()
        self.around = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.up, self.down = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.silu(self.up(self.around(x))))


class Fine(nn.Module):
    """Two full convolutions, where a channel is cheap and a cell is not."""

    def __init__(self, width: int):
        super().__init__()
        self.a, self.b = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.silu(self.a(F.silu(x))))


def _twice(a: int, b: int, kernel: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, 4 * b, kernel, padding=kernel // 2), nn.PixelShuffle(2))


class TinyDecoder(nn.Module):
    """Latents (B, C, h, w) to pictures (B, 3, 16 h, 16 w), about in [-1, 1]."""

    def __init__(self, channels: int = 16):
        super().__init__()
        a, b, c, d, e = WIDTHS
        self.body = nn.Sequential(
            nn.Conv2d(channels, a, 3, padding=1),
            *(Mix(a) for _ in range(4)),
            _twice(a, b),
            *(Mix(b) for _ in range(4)),
            _twice(b, c),
            *(Fine(c) for _ in range(2)),
            _twice(c, d),
            *(Fine(d) for _ in range(2)),
            _twice(d, e, 3),
            nn.SiLU(),
            nn.Conv2d(e, 3, 3, padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.body(3 * torch.tanh(z / 3))  # as AutoencoderTiny's own begins


def beside(vae: nn.Module, folder: str | Path) -> nn.Module:
    """An AutoencoderTiny with the encoder of `vae` and the tiny decoder of a folder."""
    tiny = copy.copy(vae)
    tiny._modules = {**vae._modules, "decoder": load(folder)}
    return tiny


def load(folder: str | Path) -> TinyDecoder:
    from safetensors.torch import load_file

    decoder = TinyDecoder()
    weights = load_file(Path(folder) / FILE)
    decoder.load_state_dict({k: v.float() for k, v in weights.items()})
    return decoder.eval().requires_grad_(False)


def save(decoder: TinyDecoder, folder: str | Path) -> None:
    """Writes the decoder in fp16."""
    write_tensors(Path(folder) / FILE, {k: v.half() for k, v in decoder.state_dict().items()})
