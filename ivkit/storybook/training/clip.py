"""A small CLIP on the storybook's captions and frames: alignment scores with no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .. import words
from ..world import World
from .common import Clock, Ranks, Trainer

PIXELS = 128


def make_clip():
    from transformers import CLIPConfig, CLIPModel

    bos, eos = len(words.WORDS), len(words.WORDS) + 1
    return CLIPModel(
        CLIPConfig(
            text_config=dict(
                vocab_size=eos + 1,
                hidden_size=128,
                intermediate_size=384,
                num_hidden_layers=3,
                num_attention_heads=4,
                max_position_embeddings=words.MAX_TOKENS,
                bos_token_id=bos,
                eos_token_id=eos,
                pad_token_id=eos,
            ),
            vision_config=dict(
                image_size=PIXELS,
                patch_size=16,
                hidden_size=160,
                intermediate_size=480,
                num_hidden_layers=5,
                num_attention_heads=4,
            ),
            projection_dim=128,
        )
    )


def pixels(frames: torch.Tensor) -> torch.Tensor:
    """Frames (..., 3, H, W) in [-1, 1] as the model takes them: (n, 3, 128, 128)."""
    return F.interpolate(frames.flatten(0, -4), size=PIXELS, mode="area")


def embed_text(clip, ids: torch.Tensor) -> torch.Tensor:
    return F.normalize(
        clip.text_projection(clip.text_model(input_ids=ids).pooler_output).float(), dim=-1
    )


def embed_image(clip, x: torch.Tensor) -> torch.Tensor:
    return F.normalize(
        clip.visual_projection(clip.vision_model(pixel_values=x).pooler_output).float(), dim=-1
    )


def train(
    folder: str | Path,
    out: str | Path,
    seconds: float,
    batch: int = 768,
    max_steps: int | None = None,
) -> dict:
    """Trains clip/ for `seconds` on renders, some of them softened; writes its processor too."""
    from transformers import CLIPImageProcessor

    ranks, folder, rng = Ranks(), Path(folder), np.random.default_rng(3)
    d = ranks.device
    torch.manual_seed(300)
    world = World(d)
    world.draw = ranks.compile(world._draw)
    clip = make_clip().to(d)
    trainer = Trainer(clip.parameters(), ranks, 1e-3)
    clock, more = Clock(ranks, seconds, max_steps=max_steps), True

    def pairs(n):
        s = world.sample(n)
        s.event[:] = 0
        frames = []
        for i in range(0, n, 64):
            t = torch.rand(min(64, n - i), 1, device=d)
            frames.append(pixels(world.render(s[i : i + 64], t)))
        x = torch.cat(frames)
        soft = F.avg_pool2d(x, 3, 1, 1)
        x = torch.where(torch.rand(n, 1, 1, 1, device=d) < 0.4, soft, x)
        x = (x + torch.randn_like(x) * 0.05 * torch.rand(n, 1, 1, 1, device=d)).clamp(-1, 1)
        captions, _ = words.texts(s, world.labels, rng)
        return x, torch.tensor([words.encode(c) for c in captions], device=d), captions

    accuracy = 0.0
    while more:
        x, ids, captions = pairs(batch)
        with ranks.autocast():
            a, b = embed_image(clip, x), embed_text(clip, ids)
        logits = clip.logit_scale.exp().clamp(max=100) * a @ b.T
        same = torch.tensor([hash(c) for c in captions], device=d)
        same = (same[:, None] == same[None]) & ~torch.eye(batch, dtype=torch.bool, device=d)
        logits = logits.masked_fill(same, -1e4)  # the same caption twice is no mistake
        target = torch.arange(batch, device=d)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        trainer.backward(loss)
        trainer.step(clock.share, 200)
        accuracy = 0.95 * accuracy + 0.05 * float((logits.argmax(1) == target).float().mean())
        more = clock.tick()
        if clock.n % 100 == 1:
            ranks.say(
                "clip",
                clock.n,
                f"{clock.elapsed:.0f} s loss {float(loss.detach()):.3f}",
                f"picture finds its caption among {batch}: {accuracy:.3f}",
            )
    trainer.push(trainer.ema)
    if ranks.first:
        clip.half().save_pretrained(folder / "clip")
        CLIPImageProcessor(
            size={"shortest_edge": PIXELS},
            crop_size={"height": PIXELS, "width": PIXELS},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ).save_pretrained(folder / "clip")
        words.write_tokenizer(folder / "clip")
    return {"steps": clock.n, "accuracy": accuracy}
