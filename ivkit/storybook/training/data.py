"""Clips for the diffusion stages: rendered, encoded once, kept on the GPU, renewed bit by bit."""

from __future__ import annotations

import numpy as np
import torch

from .. import words
from ..networks import CHANNELS, affinity
from ..world import MOVES, NUM_FRAMES, World, frame_times
from .common import Ranks

TILTS, TILT_LEFT = 0.08, MOVES.index("tilts left")


class Clips:
    """A ring of `size` clips: latents (N, 16, C, 16, 16), text ids (N, L), affinity (N, 16).

    One clip in eight runs forth and back (motion scales 3 to 5 of PIA): its affinity does the same.
    """

    def __init__(self, vae, ranks: Ranks, size: int, chunk: int = 32, seed: int = 0):
        d = ranks.device
        self.ranks, self.chunk, self.at = ranks, chunk, 0
        self.full = torch.zeros((), device=d, dtype=torch.long)  # on the device: see Ranks.replay
        self.world, self.rng = World(d), np.random.default_rng(seed + ranks.rank)
        self.world.draw = ranks.compile(self.world._draw)
        self.encode = ranks.compile(vae.encoder)
        low = torch.bfloat16 if d.type == "cuda" else torch.float32
        self.z = torch.empty(size, NUM_FRAMES, CHANNELS, 16, 16, device=d, dtype=low)

        def ids():
            return torch.zeros(size, words.MAX_TOKENS, device=d, dtype=torch.long)

        self.caption, self.motion, self.both = ids(), ids(), ids()
        self.affinity = torch.ones(size, NUM_FRAMES, device=d)
        self.steady = torch.zeros(size, device=d, dtype=torch.bool)

    @torch.no_grad()
    def fill(self, n: int) -> None:
        """Renders n more clips (a multiple of the chunk) over the oldest ones."""
        for _ in range(0, n, self.chunk):
            s = self.world.sample(self.chunk)
            tilts = torch.rand_like(s.size) < TILTS  # hard to learn, and rare in the world
            s.move = torch.where(tilts, TILT_LEFT + torch.randint_like(s.move, 2), s.move)
            forth = frame_times(self.chunk, device=self.world.device)
            loop = torch.rand(self.chunk, 1, device=forth.device) < 0.125
            t = torch.where(loop, 1 - (2 * forth - 1).abs(), forth)
            frames = (
                self.world.render(s, t).flatten(0, 1).contiguous(memory_format=torch.channels_last)
            )
            with self.ranks.autocast():
                z = self.encode(frames)
            rows = slice(self.at, self.at + self.chunk)
            self.z[rows] = z.view(self.chunk, NUM_FRAMES, *z.shape[1:])
            captions, motions = words.texts(s, self.world.labels, self.rng)
            for into, lines in (
                (self.caption, captions),
                (self.motion, motions),
                (self.both, [f"{c} , {m}" for c, m in zip(captions, motions, strict=False)]),
            ):
                into[rows] = torch.tensor(
                    [words.encode(line) for line in lines], device=into.device
                )
            self.affinity[rows], self.steady[rows] = (
                affinity(s.speed, t),
                (s.event == 0) & ~loop[:, 0],
            )
            self.at += self.chunk
            self.full.clamp_(min=self.at)
            if self.at + self.chunk > len(self.z):
                self.at = 0

    def rows(self, n: int) -> torch.Tensor:
        return (torch.rand(n, device=self.z.device, dtype=torch.float64) * self.full).long()

    def pictures(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """n frames (n, C, 16, 16) and their captions' ids; later ones only of steady scenes."""
        rows = self.rows(n)
        frame = torch.randint(NUM_FRAMES // 2, (n,), device=rows.device) * self.steady[rows]
        return self.z[rows, frame].float(), self.caption[rows]

    def clips(self, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """n clips, ids of the motion text (60%) or of caption and motion, ids of both, affinity."""
        rows = self.rows(n)
        alone = torch.rand(n, 1, device=rows.device) < 0.6
        return (
            self.z[rows].float(),
            torch.where(alone, self.motion[rows], self.both[rows]),
            self.both[rows],
            self.affinity[rows],
        )
