"""A small CLIP on the storybook's captions and frames: alignment scores with no download."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ...support.disk import whole_folder
from .. import words
from ..networks import WEIGHTS
from .common import Stage, Trainer, learn
from .data import softened

PIXELS = 128


def make_clip():
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig.from_pretrained(WEIGHTS / "clip")
    config.text_config.update(words.TOKENS)
    return CLIPModel(config).float()


def pixels(frames: torch.Tensor) -> torch.Tensor:
    """Frames (..., 3, H, W) in [-1, 1] as the model takes them: (n, 3, 128, 128)."""
    return F.interpolate(frames.flatten(0, -4), size=PIXELS, mode="area")


def embedded(tower, projection, **inputs: torch.Tensor) -> torch.Tensor:
    """Unit vectors (n, width) of what one of CLIP's two towers is given."""
    return F.normalize(projection(tower(**inputs).pooler_output).float(), dim=-1)


def train(stage: Stage, batch: int = 768) -> dict[str, Any]:
    """Trains clip/ on renders, some of them softened; writes its processor too."""
    from transformers import CLIPImageProcessor

    ranks, folder, rng = stage.ranks, stage.folder, np.random.default_rng(3)
    d = ranks.device
    torch.manual_seed(300)
    world, clip = ranks.world(), make_clip().to(d)
    trainer = Trainer(clip.parameters(), ranks, 1e-3)
    target, itself = torch.arange(batch, device=d), torch.eye(batch, dtype=torch.bool, device=d)

    def gradient():
        x, s = softened(world, batch, latest=1.0, noise=0.05, resized=pixels)
        captions, _ = words.texts(s, world.labels, rng)
        with ranks.autocast():
            a = embedded(clip.vision_model, clip.visual_projection, pixel_values=x)
            ids = words.ids(captions, d)
            b = embedded(clip.text_model, clip.text_projection, input_ids=ids)
        logits = clip.logit_scale.exp().clamp(max=100) * a @ b.T
        same = torch.tensor([hash(c) for c in captions], device=d)
        same = (same[:, None] == same[None]) & ~itself
        logits = logits.masked_fill(same, -1e4)  # the same caption twice is no mistake
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        trainer.backward(loss)
        found = (logits.argmax(1) == target).float().mean()
        return torch.stack([loss.detach(), found])

    def save():
        with whole_folder(folder / "clip", new=False) as part:
            clip.half().save_pretrained(part)
            CLIPImageProcessor.from_pretrained(WEIGHTS / "clip").save_pretrained(part)
            words.write_tokenizer(part)

    names = ("loss", f"picture finds its caption among {batch}")
    clock = stage.clock()
    result = learn("clip", trainer, clock, gradient, names, 100, save, warm_up=200)
    return result | {"accuracy": result["losses"][-1][-1]}
