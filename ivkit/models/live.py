"""The live student: with a LoRA of its own the motion UNet makes four frames in one pass.

A chunk is made of what was shown last and of where the pointer is now. Training, evaluation and the
stream itself call the very functions of this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .decoder import load as load_tiny
from .lora import merge_folder
from .pia import motion_unet, own_parts, video_input

FOLDER = "live"  # of the LoRA, beside the other weights
NEW, PAST = 4, 3  # frames of a chunk; frames of the past that it sees, beside the sink
REST = "everything stays still"  # what the network reads once a text has ended
ACTS = 16 // NEW  # chunks that a text acts for
HANDS = 2  # things that can be held at once
HELD = 1.5  # the affinity of cells that show a thing in a hand, whatever a text says of it


def affinity_of(speed: Tensor) -> Tensor:
    """Affinity (B,) of the new frames to their condition, for speeds (B,); 0 is a rest."""
    return 1 - 0.7 * speed


def chunk(network, noise, context, condition, text, affinity, held=None) -> Tensor:
    """x0 of the four new frames, (B, 4, C, h, w), in one pass from pure noise.

    Where the schedule ends in pure noise (zero terminal SNR), v is -x0. In the last frame held
    things look as in the condition: the network says no more of them than how bright they are.

    Args:
        network: the motion UNet with the student's LoRA; called as (x, t, text).
        noise: (B, 8, C, h, w).
        context: (B, 4, C, h, w), latents of the sink and of the last three frames.
        condition: (B, C, h, w), the last frame's latents; where things are held, of that frame with
            them where the pointer is now (see `carry`). The new frames go there in equal steps.
        text: (B, tokens, width), of the text in force or of REST.
        affinity: (B,), see `affinity_of`.
        held: (B, 4, h, w), see `in_hand`; None where nothing is held.
    """
    n, _, _, h, w = context.shape
    seen = torch.cat([context, condition[:, None].expand(-1, NEW, -1, -1, -1)], 1)
    mask = affinity.view(n, 1, 1, 1).expand(n, NEW, h, w)
    if held is not None:
        mask = mask + (HELD - mask) * held
    mask = torch.cat([mask.new_ones(n, PAST + 1, h, w), mask], 1)
    x = video_input(noise, seen, mask).to(text.dtype)
    t = torch.full((n,), 999, device=x.device)
    v = network(x, t, text.repeat_interleave(PAST + 1 + NEW, 0), return_dict=False)[0]
    new = -v.transpose(1, 2)[:, -NEW:].float()
    if held is None:
        return new
    share, off = held[:, -1:], condition - new[:, -1]
    light = (off * share).sum((2, 3), True) / share.sum((2, 3), True).clamp(min=1e-3)
    return torch.cat([new[:, :-1], (new[:, -1] + share * (off - light))[:, None]], 1)


def begin(latent: Tensor) -> Tensor:
    """Context of a stream that begins, or goes on after an edit, with the picture (B, C, h, w)."""
    return latent[:, None].expand(-1, PAST + 1, -1, -1, -1)


def follow(context: Tensor, new: Tensor) -> Tensor:
    """Context of the next chunk."""
    return torch.cat([context[:, :1], new[:, -PAST:]], 1)


def shifted(pictures: Tensor, by: Tensor) -> Tensor:
    """Pictures (B, C, H, W) moved by (B, 2) shares of the width and height; 0 comes in."""
    theta = torch.zeros(len(by), 2, 3, device=by.device, dtype=torch.float32)
    theta[:, 0, 0] = theta[:, 1, 1] = 1
    theta[:, :, 2] = -2 * by
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures.float(), grid, align_corners=False).to(pictures.dtype)


def filled(pictures: Tensor, hole: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) with what is around a hole (B, 1, H, W) in [0, 1] flowing into it."""
    kept = [1 - hole]
    colours = [pictures * kept[0]]
    while colours[-1].shape[-1] > 4:
        kept.append(F.avg_pool2d(kept[-1], 2))
        colours.append(F.avg_pool2d(colours[-1], 2))
    into = colours[-1] / kept[-1].clamp(min=1e-3)
    for colour, keep in zip(colours[-2::-1], kept[-2::-1], strict=True):
        into = colour + (1 - keep) * F.interpolate(into, size=colour.shape[-2:], mode="bilinear")
    return into


def carry(shown: Tensor, cut: Tensor, masks: Tensor, now: Tensor, to: Tensor) -> Tensor:
    """The last frame with held things cut out, the holes filled, and the things laid elsewhere.

    Args:
        shown: (B, 3, H, W), the last frame.
        cut: (B, H_, 3, H, W), the frame in which each thing was grabbed.
        masks: (B, H_, 1, H, W) in [0, 1], each thing there; all 0 where there is none.
        now, to: (B, H_, 2), how far each is away from there in `shown`, and shall be; in shares of
            the width and height.
    """
    b, h = masks.shape[:2]
    soft = F.avg_pool2d(masks.flatten(0, 1), 3, 1, 1)
    gone = shifted(F.max_pool2d(masks.flatten(0, 1), 5, 1, 2), now.flatten(0, 1))
    picture = filled(shown, gone.view(b, h, *gone.shape[1:]).amax(1))
    layers = torch.cat([cut.flatten(0, 1), soft.to(cut.dtype)], 1)
    layers = shifted(layers, to.flatten(0, 1)).view(b, h, 4, *shown.shape[-2:])
    for k in range(h):
        alpha = layers[:, k, 3:]
        picture = picture * (1 - alpha) + layers[:, k, :3] * alpha
    return picture


def in_hand(masks: Tensor, now: Tensor, to: Tensor, cells: int) -> Tensor:
    """How much of each cell of the new frames a held thing covers on its way, (B, 4, h, w).

    cells: of the latents, to a side; the rest as in `carry`.
    """
    b, hands = masks.shape[:2]
    small = F.avg_pool2d(masks.flatten(0, 1), masks.shape[-1] // (4 * cells))
    ways = [(now + (to - now) * (k / NEW)).flatten(0, 1) for k in range(1, NEW + 1)]
    there = torch.stack([F.avg_pool2d(shifted(small, by), 4)[:, 0] for by in ways], 1)
    return there.view(b, hands, *there.shape[1:]).amax(1)


def pull(encode, decode, last: Tensor, cut: Tensor, first: Tensor, masks: Tensor, *places):
    """What a chunk sees in which things are held: condition (B, C, h, w), and cells (B, 4, h, w) as
    of `in_hand`; and what the things look like, (B, H_, 3, H, W).

    Args:
        encode, decode: pictures (B, 3, H, W) to latents and back.
        last: (B, C, h, w), latents of the last frame.
        cut: (B, H_, 3, H, W), the frames in which the things were grabbed; where `first` (B,) is
            true they are grabbed now.
        masks: see `carry`.
        places: three of (B, H_, 2), in shares of the width and height: of the things when they were
            grabbed, in the last frame, and where the pointer is now.
    """
    shown = decode(last)
    cut = torch.where(first.view(-1, 1, 1, 1, 1), shown[:, None].to(cut.dtype), cut)
    now, to = (place - places[0] for place in places[1:])
    condition = encode(carry(shown, cut.float(), masks, now, to))
    return condition, in_hand(masks, now, to, last.shape[-1]), cut


def still(part: nn.Module, device, dtype) -> nn.Module:
    """The part itself, there and in `dtype`, not to be trained."""
    nn.Module.to(part, device, dtype, memory_format=torch.channels_last)
    return part.eval().requires_grad_(False)


@dataclass
class Student:
    """The networks that a stream needs, on one device and in one dtype."""

    network: nn.Module  # the motion UNet, the student's LoRA merged into it
    vae: nn.Module
    decoder: nn.Module  # the tiny one

    @classmethod
    @lru_cache(2)
    def load(cls, folder: Path, device, dtype) -> Student:
        """What a folder of the storybook's layout holds; one for all streams."""
        parts = own_parts(folder, "unet", "motion_adapter", "vae")
        network = motion_unet(parts["unet"], parts["motion_adapter"])
        merge_folder(network, folder / FOLDER)
        parts = network, parts["vae"], load_tiny(folder)
        return cls(*(still(part, device, dtype) for part in parts))

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to latents (B, C, h, w), float32."""
        pictures = pictures.to(self.vae.device, self.vae.dtype)
        return self.vae.encoder(pictures.contiguous(memory_format=torch.channels_last)).float()

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, C, h, w) to (B, 3, H, W) in [-1, 1], float32, by the tiny decoder."""
        z = z.to(self.vae.dtype).contiguous(memory_format=torch.channels_last)
        return self.decoder(z).clamp(-1, 1).float()

    @torch.no_grad()
    def chunk(self, noise, context, condition, text, affinity, held=None) -> Tensor:
        """`chunk` of its network, for tensors of any dtype."""
        low = self.vae.dtype
        return chunk(self.network, noise, context, condition, text.to(low), affinity, held)
