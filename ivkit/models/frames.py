"""Attention over a clip's frames by a kernel of its own (Triton): few keys, very many pixels.

PyTorch's kernels work in tiles of 64 or 128 queries and keys where a motion module has 16 frames.
Here one program reads the queries, keys and values of one pixel and head, and writes the answer.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_FRAMES = 64


@triton.jit
def _one_pixel_and_head(
    qkv, out, scale, frames, heads, width: tl.constexpr, F: tl.constexpr, W: tl.constexpr
):
    program = tl.program_id(0)
    pixel, head = (program // heads).to(tl.int64), program % heads
    row, column = tl.arange(0, F), tl.arange(0, W)
    inside = (row[:, None] < frames) & (column[None, :] < width)
    across = heads * width
    where = (pixel * frames + row[:, None]) * 3 * across + head * width + column[None, :]
    q = tl.load(qkv + where, inside, 0.0)
    k = tl.load(qkv + across + where, inside, 0.0)
    v = tl.load(qkv + 2 * across + where, inside, 0.0)
    looks = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    looks = tl.where(row[None, :] < frames, looks, float("-inf"))
    looks = tl.exp(looks - tl.max(looks, 1)[:, None])
    looks = looks / tl.sum(looks, 1)[:, None]
    found = tl.dot(looks.to(v.dtype), v, input_precision="ieee")
    where = (pixel * frames + row[:, None]) * across + head * width + column[None, :]
    tl.store(out + where, found.to(v.dtype), inside)


@torch.library.custom_op("ivkit::attend_frames", mutates_args=())
def attend_frames(qkv: Tensor, heads: int) -> Tensor:
    """softmax(q k / sqrt(width)) v over frames: (pixels, F, 3 heads width) -> (pixels, F, ...)."""
    pixels, frames, wide = qkv.shape
    width = wide // 3 // heads
    out = qkv.new_empty(pixels, frames, wide // 3)
    _one_pixel_and_head[(pixels * heads,)](
        qkv.contiguous(), out, width**-0.5, frames, heads, width,
        F=max(16, triton.next_power_of_2(frames)), W=max(16, triton.next_power_of_2(width)),
        num_warps=1,
    )  # fmt: skip
    return out


@attend_frames.register_fake
def _(qkv: Tensor, heads: int) -> Tensor:
    return qkv.new_empty(*qkv.shape[:2], qkv.shape[2] // 3)


class FramesAttention:
    """An attention processor of diffusers for a motion module whose projections are fused."""

    def __call__(self, attn, hidden_states: Tensor, *args, **options) -> Tensor:
        found = attend_frames(attn.to_qkv(hidden_states), attn.heads)
        return attn.to_out[1](attn.to_out[0](found))
