"""A classifier of scenes, trained on clean renders: the judge of what a generated picture shows."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ...support.disk import write_tensors
from .. import sprites
from ..world import GROUNDS, SLOTS, TIMES, Scenes, World
from .common import Clock, Ranks, Trainer


class Classifier(nn.Module):
    """Pictures (B, 3, 256, 256) in [-1, 1] to logits of sprites (B, N), grounds, times."""

    def __init__(self, sprites_: int):
        super().__init__()
        widths, layers = [3, 24, 48, 96, 192], []
        for a, b in zip(widths, widths[1:], strict=False):
            layers += [
                nn.Conv2d(a, b, 3, 2, 1),
                nn.BatchNorm2d(b),
                nn.ReLU(),
                nn.Conv2d(b, b, 3, 1, 1),
                nn.BatchNorm2d(b),
                nn.ReLU(),
            ]
        self.features = nn.Sequential(*layers)
        self.what = nn.Conv2d(widths[-1], sprites_, 1)
        self.where = nn.Linear(widths[-1], len(GROUNDS) + len(TIMES))

    def forward(self, x):
        h = self.features(F.interpolate(x, size=144, mode="area"))
        scene = self.where(h.mean((2, 3)))
        return self.what(h).amax((2, 3)), scene[:, : len(GROUNDS)], scene[:, len(GROUNDS) :]


def truth(s: Scenes, n: int) -> torch.Tensor:
    """Which sprites a scene holds: (B, n) in {0, 1}."""
    y = torch.zeros(len(s), n, device=s.ground.device)
    for k in range(SLOTS):
        y = torch.maximum(
            y,
            torch.zeros_like(y).scatter_(
                1, s.sprite[:, k : k + 1], s.present[:, k : k + 1].float()
            ),
        )
    return y


def load(folder: str | Path, device="cpu") -> Classifier:
    from safetensors.torch import load_file

    weights = load_file(Path(folder) / "classifier.safetensors")
    judge = Classifier(weights["what.weight"].shape[0])
    judge.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
    )
    return judge.to(device).eval()


def train(
    folder: str | Path,
    out: str | Path,
    seconds: float,
    batch: int = 256,
    max_steps: int | None = None,
) -> dict:
    """Trains classifier.safetensors (fp16) for `seconds`."""
    ranks = Ranks()
    d = ranks.device
    torch.manual_seed(400)
    world = World(d)
    world.draw = ranks.compile(world._draw)
    judge = Classifier(len(world.labels)).to(d)
    trainer = Trainer(judge.parameters(), ranks, 2e-3)
    clock, more = Clock(ranks, seconds, max_steps=max_steps), True

    def batch_of(n):
        s = world.sample(n)
        s.event[:] = 0
        x = torch.cat(
            [
                world.render(s[i : i + 64], torch.rand(min(64, n - i), 1, device=d) * 0.5)[:, 0]
                for i in range(0, n, 64)
            ]
        )
        soft = F.avg_pool2d(x, 3, 1, 1)
        x = torch.where(torch.rand(n, 1, 1, 1, device=d) < 0.4, soft, x)
        return (x + torch.randn_like(x) * 0.06 * torch.rand(n, 1, 1, 1, device=d)).clamp(-1, 1), s

    while more:
        with torch.no_grad():
            x, s = batch_of(batch)
        with ranks.autocast():
            what, ground, time = judge(x)
        loss = (
            10 * F.binary_cross_entropy_with_logits(what.float(), truth(s, what.shape[1]))
            + F.cross_entropy(ground.float(), s.ground)
            + F.cross_entropy(time.float(), s.time)
        )
        trainer.backward(loss)
        trainer.step(clock.share, 200)
        more = clock.tick()
        if clock.n % 200 == 1:
            ranks.say(
                "classifier", clock.n, f"{clock.elapsed:.0f} s loss {float(loss.detach()):.4f}"
            )
    judge.eval()
    with torch.no_grad():
        x, s = batch_of(batch)
        what, ground, time = judge(x)
        exact = float(((what > 0) == (truth(s, what.shape[1]) > 0.5)).all(1).float().mean())
        scene = float(((ground.argmax(1) == s.ground) & (time.argmax(1) == s.time)).float().mean())
    if ranks.first:
        state = {k: v.half() if v.is_floating_point() else v for k, v in judge.state_dict().items()}
        write_tensors(Path(folder) / "classifier.safetensors", state, {"format": "pt"})
    result = {
        "steps": clock.n,
        "exact_on_renders": exact,
        "scene_on_renders": scene,
        "sprites": len(sprites.sprites()[1]),
    }
    ranks.say("classifier", result)
    return result
