"""A motion UNet in two parts: the deep one, and the last layer of its last block.

Together they are the network itself. Apart, each can be compiled or recorded as a graph
(`speed.py`), and deep features can be reused across neighbouring steps: faster, and approximate.

DeepCache (arXiv 2312.00858): what the deep layers find changes slowly from step to step. Every
`every`-th evaluation of a branch is whole; between them only the first convolution and the last
layer of the last block run, on the deep features that this branch had. Each branch keeps its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor


def deep_features(unet, z: Tensor, t: Tensor, text: Tensor) -> Tensor:
    """What reaches the last layer: (n F, channels, h, w).

    z: (n, channels, F, h, w). t: the timestep, a 0-dimensional tensor. text: (n F, tokens, width).
    """
    frames = z.shape[2]
    time = _time(unet, z, t)
    x = _first(unet, z)
    skips = (x,)
    for block in unet.down_blocks:
        x, found = block(x, temb=time, num_frames=frames, **_reads(block, text))
        skips += found
    moves = {"num_frames": frames} if hasattr(unet.mid_block, "motion_modules") else {}
    x = unet.mid_block(x, time, encoder_hidden_states=text, **moves)
    for block in unet.up_blocks[:-1]:
        mine, skips = skips[-len(block.resnets) :], skips[: -len(block.resnets)]
        x = block(
            hidden_states=x,
            res_hidden_states_tuple=mine,
            temb=time,
            num_frames=frames,
            **_reads(block, text),
        )
    last = unet.up_blocks[-1]
    for i, skip in enumerate(reversed(skips[1:])):
        x = _layer(last, i, x, skip, time, text, frames)
    return x


def last_layer(unet, z: Tensor, t: Tensor, text: Tensor, deep: Tensor) -> Tensor:
    """What the UNet predicts, (n, C, F, h, w), from deep features of this step or another."""
    n, _, frames, _, _ = z.shape
    x = _layer(unet.up_blocks[-1], -1, deep, _first(unet, z), _time(unet, z, t), text, frames)
    x = unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))
    return x.unflatten(0, (n, frames)).transpose(1, 2)


def _time(unet, z: Tensor, t: Tensor) -> Tensor:
    """The timestep's embedding for each frame, (n F, width)."""
    n, _, frames, _, _ = z.shape
    time = unet.time_proj(t.reshape(1).expand(n).to(z.device)).to(unet.dtype)
    return unet.time_embedding(time).repeat_interleave(frames, 0, output_size=n * frames)


def _first(unet, z: Tensor) -> Tensor:
    return unet.conv_in(z.transpose(1, 2).flatten(0, 1))


def _reads(block, text: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}


def _layer(block, i: int, x: Tensor, skip: Tensor, time, text, frames: int) -> Tensor:
    """One layer of an up block: convolutions, attention to space and text, attention to time."""
    x = block.resnets[i](torch.cat([x, skip], 1), time)
    if reads := _reads(block, text):
        x = block.attentions[i](x, **reads, return_dict=False)[0]
    return block.motion_modules[i](x, num_frames=frames)


@dataclass
class Network:
    """The two parts of one UNet, which `speed.speed_up` may put faster ones in place of.

    deep_features: (z, t, text) -> deep. last_layer: (z, t, text, deep) -> prediction.
    """

    deep_features: Callable[..., Tensor]
    last_layer: Callable[..., Tensor]

    @classmethod
    def of(cls, unet, change: Callable = lambda call: call) -> Network:
        """`change` is done to each part before it is bound to `unet`."""
        return cls(partial(change(deep_features), unet), partial(change(last_layer), unet))

    def __call__(self, z: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return self.last_layer(z, t, text, self.deep_features(z, t, text))


# ------------------------------------------------------------------------------ approximate: reuse

KEPT_BRANCHES = 4  # of two clips at once; another one's begin anew


@dataclass
class Reuse:
    """A network that is called as `motion.Network` is, for one branch at a time.

    every: 1 is exact, 3 evaluates the whole network at every third step of a branch.
    branch: (its condition, which of its rows), set before each call.
    """

    network: Network
    every: int = 3
    whole: int = 0  # evaluations of the whole network, and of its last layer alone
    shallow: int = 0
    branch: tuple[Any, int] = (None, 0)
    _kept: OrderedDict = field(default_factory=OrderedDict, repr=False)

    def clear(self) -> None:
        """Let go of what was kept, as when weights were changed."""
        self._kept.clear()

    def __call__(self, z: Tensor, t: Tensor, text: Tensor) -> Tensor:
        key = id(self.branch[0]), self.branch[1]
        if self._due(key, t):
            deep = self.network.deep_features(z, t, text)
            self._kept[key] = [self.branch, float(t), 0, deep]
            self.whole += 1
        else:
            deep = self._kept[key][3]
            self.shallow += 1
        out = self.network.last_layer(z, t, text, deep)
        while len(self._kept) > KEPT_BRANCHES:
            self._kept.popitem(last=False)
        return out

    def _due(self, key: tuple[int, int], t: Tensor) -> bool:
        """Whether the whole network runs; counts this evaluation, but not the second one of the
        same step: an interrupt has cut the first short, and this one does as it would have."""
        entry = self._kept.get(key)
        if entry is None or float(t) > entry[1]:
            return True
        if float(t) < entry[1]:
            if entry[2] + 1 >= self.every:
                return True
            entry[1:3] = [float(t), entry[2] + 1]
        self._kept.move_to_end(key)
        return entry[2] == 0
