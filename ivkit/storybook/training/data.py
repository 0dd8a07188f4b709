"""What is rendered for the stages: clips, encoded once and renewed bit by bit; softened stills."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from .. import words
from ..networks import affinity
from ..world import MOVES, NUM_FRAMES, Scenes, World, frame_times
from .common import Ranks

TILTS, TILT_LEFT = 0.08, MOVES.index("tilts left")


class Ring:
    """`size` rows of tensors by name, on one device: the oldest give way to new ones."""

    def __init__(self, size: int, device):
        self.size, self.next, self.tensors = size, 0, {}
        # since the beginning; on the device, see Ranks.replay
        self.filled = torch.zeros((), device=device, dtype=torch.long)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def add(self, **new: torch.Tensor) -> None:
        """As many rows of each."""
        n = len(next(iter(new.values())))
        rows = torch.arange(self.next, self.next + n, device=self.filled.device) % self.size
        for name, values in new.items():
            if name not in self.tensors:
                self.tensors[name] = values.new_zeros(self.size, *values.shape[1:])
            self.tensors[name][rows] = values
        self.filled += n
        self.next = (self.next + n) % self.size

    def chance(self, n: int, among: torch.Tensor) -> torch.Tensor:
        """n random numbers below `among`."""
        return (torch.rand(n, device=among.device, dtype=torch.float64) * among).long()


class Clips(Ring):
    """Latents z (N, 16, C, 16, 16); ids (N, L) of caption, motion, both; affinity (N, 16); steady
    (N,), where nothing but things moves.

    One clip in eight runs forth and back (motion scales 3 to 5 of PIA): its affinity does the same.
    """

    def __init__(self, vae, ranks: Ranks, size: int, chunk: int = 32, seed: int = 0):
        super().__init__(size, ranks.device)
        self.ranks, self.chunk, self.world = ranks, chunk, ranks.world()
        self.rng = np.random.default_rng(seed + ranks.rank)
        self.encode = ranks.compile(vae.encoder)

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
            frames = self.world.render(s, t).flatten(0, 1)
            with self.ranks.autocast():
                z = self.encode(frames.contiguous(memory_format=torch.channels_last))
            captions, motions = words.texts(s, self.world.labels, self.rng)
            both = [f"{c} , {m}" for c, m in zip(captions, motions, strict=True)]
            self.add(
                z=z.view(self.chunk, NUM_FRAMES, *z.shape[1:]).to(self.ranks.low),
                caption=words.ids(captions, z.device),
                motion=words.ids(motions, z.device),
                both=words.ids(both, z.device),
                affinity=affinity(s.speed, t),
                steady=(s.event == 0) & ~loop[:, 0],
            )

    def rows(self, n: int) -> torch.Tensor:
        return self.chance(n, self.filled.clamp(max=self.size))

    def pictures(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """n frames (n, C, 16, 16) and their captions' ids; later ones only of steady scenes."""
        rows = self.rows(n)
        frame = torch.randint(NUM_FRAMES // 2, (n,), device=rows.device) * self["steady"][rows]
        return self["z"][rows, frame].float(), self["caption"][rows]

    def clips(self, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """n clips, ids of the motion text (60%) or of caption and motion, ids of both, affinity."""
        rows = self.rows(n)
        alone = torch.rand(n, 1, device=rows.device) < 0.6
        both = self["both"][rows]
        ids = torch.where(alone, self["motion"][rows], both)
        return self["z"][rows].float(), ids, both, self["affinity"][rows]


@torch.no_grad()
def softened(
    world: World, n: int, latest: float, noise: float, resized=lambda frames: frames
) -> tuple[torch.Tensor, Scenes]:
    """n stills at times up to `latest`, `resized`, some of them blurred or noisy, and their scenes,
    in which no event goes on."""
    s = world.sample(n)
    s.event[:] = 0
    x = resized(world.stills(s, torch.rand(n, 1, device=world.device) * latest))
    blurred = F.avg_pool2d(x, 3, 1, 1)
    x = torch.where(torch.rand(n, 1, 1, 1, device=x.device) < 0.4, blurred, x)
    x = x + torch.randn_like(x) * noise * torch.rand(n, 1, 1, 1, device=x.device)
    return x.clamp(-1, 1), s
