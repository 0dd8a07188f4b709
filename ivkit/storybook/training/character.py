"""Stage 5: the character of chapter 10, a LoRA of rank 8 that one GPU trains in a minute or two.

What it learns from are the renderer's pictures, of the character and, as the prior, of its class
and of anything else. It goes into media/, not into the model: the storybook does not know it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ... import load
from ...models import personal
from ...pictures import to_pixels
from ...support.disk import write_picture
from ..character import CLASS, NAME, cast, draw_robot, portraits
from ..world import World
from .common import Stage, save_grid

PLACES = (
    "on the green meadow at day",
    "on the yellow desert at sunset",
    "on the white snow at night",
)


def train(
    stage: Stage,
    into: str = "media/character",
    prior: bool = True,
    shots: int = 1024,
    batch: int = 32,
    rank: int = 8,
    lr: float = 1e-3,
    strengths: tuple[float, ...] = (0.0, 0.5, 1.0),
    image_steps: int | None = None,
) -> dict:
    """Trains robot.safetensors (without a prior: robot_no_prior.safetensors).

    shots: pictures of the character, and as many of its class and of the rest of the world.
    Writes robot.png beside it, and character.jpg to `out`: the character, its class and a neighbour
    at three strengths, and a clip.
    """
    ranks, into = stage.ranks, Path(into)
    pipe, world = load(stage.folder, ranks.device, "float32"), World(ranks.device)
    into.mkdir(parents=True, exist_ok=True)
    write_picture(into / "robot.png", draw_robot(), optimize=True)
    new, old = cast(world, draw_robot()), world.labels.index((CLASS, None))
    examples = portraits(world, new, shots, 800, vary=True)
    others = portraits(world, old, shots // 2, 801, vary=True)
    others += portraits(world, None, shots - shots // 2, 802, vary=True)
    ranks.say(f"{len(examples)} pictures of the character, {len(others)} of others")

    lora = personal.new(pipe, rank, seed=800)
    how = {"batch": batch, "lr": lr, "seed": 800, "progress": False}
    how |= {"steps": stage.max_steps} if stage.max_steps else {"seconds": stage.seconds}
    personal.train(lora, examples, others if prior else (), **{"steps": 100_000, **how})
    name = "robot" if prior else "robot_no_prior"
    file = lora.save(into / f"{name}.safetensors")
    ranks.say(lora, file, f"{file.stat().st_size / 1e6:.2f} MB")

    rows = []
    for strength in strengths:
        lora.set_strength(strength)
        captions = [f"a {what} {where}" for where in PLACES for what in (NAME, CLASS, "red car")]
        pairs = personal.drawn(pipe, captions, seed=5, num_inference_steps=image_steps)
        pictures = [p for p, _ in pairs]
        rows.append(torch.stack([to_pixels(p)[0] for p in pictures]))
    with torch.no_grad():
        motion, steps = f"the {NAME} moves right", {"num_inference_steps": image_steps}
        run = pipe.video(pictures[0], motion, progress=False, **steps)
    clip = torch.cat([to_pixels(np.asarray(run.frames[::2])), rows[-1][:1]])
    save_grid(torch.stack([*rows, clip]), stage.out / f"{name}.jpg", 0.5)
    tail = np.array([a for a, _ in lora.losses[-100:]])
    return {"steps": len(lora.losses), "seconds": lora.seconds, "loss": float(tail.mean())}
