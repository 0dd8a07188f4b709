"""A motion UNet in two parts: the deep one, and the last layer of its last block.

Together they are the network itself. Apart, the deep part's result can be kept for the next steps
(`reuse.py`), and each can be compiled or recorded as a graph (`speed.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

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
