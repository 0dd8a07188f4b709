"""A classifier of scenes, trained on clean renders: the judge of what a generated picture shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ...support.disk import write_tensors
from ..world import GROUNDS, TIMES, Scenes
from .common import Stage, Trainer, learn
from .data import softened

FILE = "classifier.safetensors"


class Classifier(nn.Module):
    """Pictures (B, 3, 256, 256) in [-1, 1] to logits of sprites (B, N), grounds, times."""

    def __init__(self, sprites_: int):
        super().__init__()
        widths, layers = [3, 24, 48, 96, 192], []
        for a, b in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()]
            layers += [nn.Conv2d(b, b, 3, 1, 1), nn.BatchNorm2d(b), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.what = nn.Conv2d(widths[-1], sprites_, 1)
        self.where = nn.Linear(widths[-1], len(GROUNDS) + len(TIMES))

    def forward(self, x):
        h = self.features(F.interpolate(x, size=144, mode="area"))
        scene = self.where(h.mean((2, 3)))
        return self.what(h).amax((2, 3)), scene[:, : len(GROUNDS)], scene[:, len(GROUNDS) :]


def truth(s: Scenes, n: int) -> torch.Tensor:
    """Which sprites a scene holds: (B, n) in {0, 1}."""
    return (F.one_hot(s.sprite, n) * s.present[..., None]).amax(1).float()


def load(folder: str | Path, device="cpu") -> Classifier:
    from safetensors.torch import load_file

    weights = load_file(Path(folder) / FILE)
    judge = Classifier(weights["what.weight"].shape[0])
    judge.load_state_dict(weights)  # which makes them float32
    return judge.to(device).eval()


def train(stage: Stage, batch: int = 256) -> dict[str, Any]:
    """Trains classifier.safetensors (fp16)."""
    ranks, folder = stage.ranks, stage.folder
    torch.manual_seed(400)
    world = ranks.world()
    judge = Classifier(len(world.labels)).to(ranks.device)
    # its last weights, not their average, which the batch norms' own averages would not fit
    trainer = Trainer(judge.parameters(), ranks, 2e-3, decay=0.0)

    def gradient():
        x, s = softened(world, batch, latest=0.5, noise=0.06)
        with ranks.autocast():
            what, ground, time = (v.float() for v in judge(x))
        loss = (
            10 * F.binary_cross_entropy_with_logits(what, truth(s, what.shape[1]))
            + F.cross_entropy(ground, s.ground)
            + F.cross_entropy(time, s.time)
        )
        trainer.backward(loss)
        return loss.detach()[None]

    def save():
        state = {k: v.half() if v.is_floating_point() else v for k, v in judge.state_dict().items()}
        write_tensors(folder / FILE, state, {"format": "pt"})

    clock = stage.clock()
    result = learn("classifier", trainer, clock, gradient, ["loss"], 200, save, warm_up=200)
    judge.eval()
    with torch.no_grad():
        x, s = softened(world, batch, latest=0.5, noise=0.06)
        what, ground, time = judge(x)
        exact = ((what > 0) == (truth(s, what.shape[1]) > 0.5)).all(1)
        scene = (ground.argmax(1) == s.ground) & (time.argmax(1) == s.time)
    result |= {
        "exact_on_renders": float(exact.float().mean()),
        "scene_on_renders": float(scene.float().mean()),
        "sprites": len(world.labels),
    }
    ranks.say("classifier", result)
    return result
