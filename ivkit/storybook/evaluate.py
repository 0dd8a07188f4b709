"""Measures the storybook on held-out scenes, by what the renderer knows to be true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..models.lora import merge_folder
from . import words
from .networks import Networks, affinity
from .training.classifier import load as load_classifier
from .training.classifier import truth
from .training.common import psnr, save_grid
from .training.diffusion import decode, sample
from .training.vae import evaluate as evaluate_vae
from .world import EVENTS, MOVES, Scenes, World, frame_times

HELD_OUT = 90_000  # seed of the scenes; training never draws from it


class Judge:
    """The model in `folder`, its autoencoder and the classifier, with the sampling settings."""

    def __init__(
        self,
        folder: Path,
        device: str,
        steps: int,
        picture_guidance: float,
        clip_guidance: float,
        few_step: bool = False,
        chunk: int = 32,
    ):
        from diffusers import AutoencoderTiny

        self.device, self.steps, self.chunk = torch.device(device), steps, chunk
        self.guidance = picture_guidance, clip_guidance
        self.nets = Networks.load(folder)
        if few_step:
            merge_folder(self.nets.motion, folder / "few_step")
        low = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        for part in self.nets.each():
            part.to(self.device).to(low).eval().requires_grad_(False)
        self.vae = (
            AutoencoderTiny.from_pretrained(folder / "vae", torch_dtype=torch.float32)
            .to(self.device)
            .eval()
            .requires_grad_(False)
        )
        self.classify = load_classifier(folder, self.device)
        self.world = World(self.device)

    def ids(self, lines):
        return torch.tensor([words.encode(line) for line in lines], device=self.device)

    def scenes(
        self,
        n: int,
        seed: int,
        objects: int | None = None,
        keep=lambda s: torch.ones(len(s), dtype=torch.bool),
    ) -> Scenes:
        """n held-out scenes that fulfil `keep`."""
        g = torch.Generator(self.device).manual_seed(HELD_OUT + seed)
        parts, count = [], 0
        while count < n:
            s = self.world.sample(256, g, objects)
            s = s[keep(s).nonzero()[:, 0]]
            parts.append(s)
            count += len(s)
        return Scenes.join(parts)[torch.arange(n, device=self.device)]

    def draw(self, captions: list[str]) -> torch.Tensor:
        z = [
            sample(
                self.nets,
                self.ids(captions[i : i + 256]),
                None,
                self.steps,
                self.guidance[0],
                seed=i,
            )
            for i in range(0, len(captions), 256)
        ]
        return decode(self.vae, torch.cat(z))

    @torch.no_grad()
    def film(self, s: Scenes, motions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Clips made from the scenes' true first frames: first and last, (n, 2, 3, 256, 256) each,
        for the generated and the true clip."""
        made, true = [], []
        for i in range(0, len(s), self.chunk):
            part = s[torch.arange(i, min(i + self.chunk, len(s)), device=self.device)]
            ends = self.world.render(
                part, torch.tensor([[0.0, 1.0]], device=self.device).expand(len(part), 2)
            )
            z = self.vae.encoder(ends[:, 0])
            clip = sample(
                self.nets,
                self.ids(motions[i : i + self.chunk]),
                z,
                self.steps,
                self.guidance[1],
                affinity(part.speed, frame_times(len(part), device=self.device)),
                seed=i,
            )
            made.append(decode(self.vae, clip[:, [0, -1]]))
            true.append(ends)
        return torch.cat(made), torch.cat(true)

    def frames(self, s: Scenes, t: float) -> torch.Tensor:
        """True frames (n, 3, 256, 256) at time t."""
        return torch.cat(
            [
                self.world.render(
                    s[torch.arange(i, min(i + 64, len(s)), device=self.device)],
                    torch.full((min(64, len(s) - i), 1), t, device=self.device),
                )[:, 0]
                for i in range(0, len(s), 64)
            ]
        )

    def nearest(
        self, last: torch.Tensor, variants: list[Scenes], measure=None, t: float = 1.0
    ) -> torch.Tensor:
        """Which variant's true frame at time t is nearest to the generated one: (n,) indices.

        By the pixels, or by what `measure` says of pictures (n, 3, 256, 256)."""
        measure = measure or torch.nn.Identity()
        a = measure(last)
        return torch.stack(
            [(a - measure(self.frames(v, t))).abs().flatten(1).mean(1) for v in variants]
        ).argmin(0)

    def moved_as(self, last: torch.Tensor, s: Scenes, slot: int, t: float = 1.0) -> torch.Tensor:
        """Which of MOVES, for the object in `slot`, explains the frame at time t best: (n,)."""
        variants = []
        for m in range(len(MOVES)):
            move = s.move.clone()
            move[:, slot] = m
            variants.append(s.with_(move=move))
        return self.nearest(last, variants, t=t)


def specks(x: torch.Tensor) -> torch.Tensor:
    """How much of each picture (n, 3, 256, 256) is brighter than what is around it: (n, 1)."""
    around = torch.nn.functional.avg_pool2d(x, 31, 1, 15, count_include_pad=False)
    return (x - around).clamp(min=0).flatten(1).mean(1, keepdim=True)


def share(hits: torch.Tensor) -> float:
    return round(100 * float(hits.float().mean()), 1) if len(hits) else float("nan")


def evaluate(folder: Path, out: Path, n: int = 256, device: str | None = None, **options) -> dict:
    """The table of the model card, in per cent and dB; pictures of some of it go to `out`.

    options: steps, picture_guidance, clip_guidance, few_step; see `measure`.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=device == "cpu"):
        return measure(Path(folder), out, n, device, **options)


def measure(
    folder: Path,
    out: Path,
    n: int,
    device: str,
    steps: int = 16,
    picture_guidance: float = 3.5,
    clip_guidance: float = 2.5,
    few_step: bool = False,
) -> dict:
    """What `evaluate` reports, on n scenes a row (the events on an eighth, 8 at least)."""
    r = {
        "scenes": n,
        "steps": steps,
        "few_step": few_step,
        "picture_guidance": picture_guidance,
        "clip_guidance": clip_guidance,
    }
    judge = Judge(folder, device, steps, picture_guidance, clip_guidance, few_step)
    world = judge.world
    rng = np.random.default_rng(HELD_OUT)
    if not few_step:
        r["vae"] = evaluate_vae(judge.vae, world, None, out)

    def still(s):
        return s.event == 0

    s = judge.scenes(n, 1, keep=still)
    captions, _ = words.texts(s, world.labels, rng, vary=False)
    x = judge.draw(captions)
    save_grid(
        x[:32].view(4, -1, 3, 256, 256) if n >= 32 else x[None],
        out / f"pictures{'_few' * few_step}.jpg",
        0.6,
    )
    what, ground, time = [
        torch.cat(c) for c in zip(*(judge.classify(c) for c in x.split(64)), strict=False)
    ]
    seen, want = what > 0, truth(s, what.shape[1]) > 0.5
    cast = {
        name: torch.tensor(
            [i for i, (k, _) in enumerate(world.labels) if k == name], device=s.ground.device
        )
        for name, _ in world.labels
    }

    def by_name(y):
        return torch.stack([y[:, i].any(1) for i in cast.values()], 1)

    r["pictures"] = {
        "objects": share((by_name(seen) & by_name(want)).sum(1) == by_name(want).sum(1)),
        "exact_set": share((by_name(seen) == by_name(want)).all(1)),
        "objects_with_colours": share((seen & want).sum(1) == want.sum(1)),
        "ground": share(ground.argmax(1) == s.ground),
        "time": share(time.argmax(1) == s.time),
    }

    def quick(s):
        return (s.event == 0) & (s.speed > 0.6)

    s = judge.scenes(n, 2, objects=1, keep=quick)
    _, motions = words.texts(s, world.labels, rng, vary=False)
    made, true = judge.film(s, motions)
    told = judge.moved_as(made[:, 1], s, 0)
    ceiling = decode(judge.vae, torch.cat([judge.vae.encoder(c) for c in true[:, 0].split(32)]))
    r["one_object"] = {
        "moves": share(told == s.move[:, 0]),
        "directions": share((told == s.move[:, 0])[(s.move[:, 0] > 0) & (s.move[:, 0] < 9)]),
        **{MOVES[m]: share((told == m)[s.move[:, 0] == m]) for m in range(len(MOVES))},
        "first_frame_psnr": round(psnr(made[:, 0], true[:, 0]), 2),
        "first_frame_ceiling": round(psnr(ceiling, true[:, 0]), 2),
    }
    save_grid(
        torch.cat([made[:12], true[:12, 1:]], 1).transpose(0, 1),
        out / f"one_object{'_few' * few_step}.jpg",
        0.5,
    )

    def both(s):
        return (
            quick(s) & s.present[:, 0] & s.present[:, 1] & (s.move[:, 0] > 0) & (s.move[:, 1] > 0)
        )

    s = judge.scenes(n, 3, objects=2, keep=both)
    _, motions = words.texts(s, world.labels, rng, vary=False)
    made, true = judge.film(s, motions)
    hits = torch.stack([judge.moved_as(made[:, 1], s, k) == s.move[:, k] for k in range(2)])
    ways = torch.stack([(s.move[:, k] > 0) & (s.move[:, k] < 9) for k in range(2)])
    r["two_objects"] = {"moves": share(hits.flatten()), "directions": share(hits[ways])}
    save_grid(
        torch.cat([made[:12], true[:12, 1:]], 1).transpose(0, 1),
        out / f"two_objects{'_few' * few_step}.jpg",
        0.5,
    )

    def one(s):
        return (
            quick(s) & s.present[:, 0] & s.present[:, 1] & (s.move[:, 0] > 0) & (s.move[:, 1] == 0)
        )

    s = judge.scenes(n, 4, objects=2, keep=one)
    _, motions = words.texts(s, world.labels, rng, vary=False)  # names the moving object alone
    made, true = judge.film(s, motions)
    gone = s.with_(present=s.present & ~torch.tensor([False, True, False], device=s.ground.device))
    stays = judge.moved_as(made[:, 1], s, 1) == 0
    there = judge.nearest(made[:, 1], [s, gone]) == 0
    r["unnamed_object"] = {"stays": share(stays & there), "there": share(there)}

    events = {}
    for e in range(1, len(EVENTS)):
        s = judge.scenes(
            max(8, n // 8),
            10 + e,
            objects=1,
            keep=lambda s, e=e: (s.event == e) & (s.speed > 0.6) & (s.move[:, 0] == 0),
        )
        _, motions = words.texts(s, world.labels, rng, vary=False)
        made, true = judge.film(s, motions)
        measure = specks if EVENTS[e] == "the snow falls" else None  # no text says where flakes are
        events[EVENTS[e]] = share(judge.nearest(made[:, 1], [s, s.with_(event=0)], measure) == 0)
    r["events"] = events
    for key, row in r.items():
        print(key, row, flush=True)
    return r
