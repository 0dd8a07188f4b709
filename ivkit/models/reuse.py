"""Deep features of a motion UNet reused across neighbouring steps: faster, and approximate.

DeepCache (arXiv 2312.00858): what the deep layers find changes slowly from step to step. Every
`every`-th evaluation of a branch is whole; between them only the first convolution and the last
layer of the last block run, on the deep features that this branch had. Each branch keeps its own.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from torch import Tensor

KEPT_BRANCHES = 4


@dataclass
class Reuse:
    """every: 1 is exact, 3 evaluates the whole network at every third step of a branch."""

    every: int = 3
    whole: int = 0  # evaluations of the whole network, and of its last layer alone
    shallow: int = 0
    _kept: OrderedDict = field(default_factory=OrderedDict, repr=False)

    def __call__(self, unet, rows: list[Tensor], t: Tensor, texts: list[Tensor],
                 branches: list) -> list[Tensor]:  # fmt: skip
        """What the UNet predicts, for each branch (n, C, F, h, w).

        rows: for each branch (n, channels, F, h, w). texts: for each (n, tokens, width).
        branches: what tells them apart: the same object at every step.
        """
        due = [self._due(branch, t) for branch in branches]
        found: list[Tensor | None] = [None] * len(rows)
        for whole in (True, False):
            some = [i for i, d in enumerate(due) if d == whole]
            if not some:
                continue
            counts = [len(rows[i]) for i in some]
            z, text = (torch.cat([v[i] for i in some]) for v in (rows, texts))
            text = text.repeat_interleave(z.shape[2], 0)
            if whole:
                out, deep = evaluate(unet, z, t, text)
                for i, part in zip(some, _split(deep, counts, z.shape[2]), strict=True):
                    self._kept[id(branches[i])] = [branches[i], float(t), 0, part]
                self.whole += len(some)
            else:
                deep = torch.cat([self._kept[id(branches[i])][3] for i in some])
                out = last_layer(unet, z, t, text, deep)
                self.shallow += len(some)
            for i, part in zip(some, out.split(counts), strict=True):
                found[i] = part
        while len(self._kept) > KEPT_BRANCHES:
            self._kept.popitem(last=False)
        return found

    def _due(self, branch, t: Tensor) -> bool:
        """Whether the whole network runs; counts this evaluation."""
        entry = self._kept.get(id(branch))
        if entry is None or float(t) >= entry[1] or entry[2] + 1 >= self.every:
            return True
        entry[1], entry[2] = float(t), entry[2] + 1
        self._kept.move_to_end(id(branch))
        return False


def evaluate(unet, z: Tensor, t: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """The whole UNet, and what reaches its last layer, (n F, channels, h, w)."""
    seen = []
    last = unet.up_blocks[-1].resnets[-1]

    def look(module, args, kwargs):
        seen.append(args[0] if args else kwargs["input_tensor"])

    handle = last.register_forward_pre_hook(look, with_kwargs=True)
    try:
        out = unet(z, t, text).sample
    finally:
        handle.remove()
    return out, seen[0][:, : -unet.conv_in.out_channels].clone()


def last_layer(unet, z: Tensor, t: Tensor, text: Tensor, deep: Tensor) -> Tensor:
    """The UNet's first convolution and last layer, on the deep features of another step."""
    n, _, frames, h, w = z.shape
    time = unet.time_proj(t.reshape(1).expand(n).to(z.device)).to(unet.dtype)
    time = unet.time_embedding(time).repeat_interleave(frames, 0)
    skip = unet.conv_in(z.transpose(1, 2).flatten(0, 1))
    block = unet.up_blocks[-1]
    x = block.resnets[-1](torch.cat([deep, skip], 1), time)
    if getattr(block, "has_cross_attention", False):
        x = block.attentions[-1](x, encoder_hidden_states=text, return_dict=False)[0]
    x = block.motion_modules[-1](x, num_frames=frames)
    x = unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))
    return x.unflatten(0, (n, frames)).transpose(1, 2)


def _split(deep: Tensor, counts: list[int], frames: int) -> tuple[Tensor, ...]:
    return deep.split([n * frames for n in counts])
