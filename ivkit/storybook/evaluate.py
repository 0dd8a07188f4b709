"""Measures the storybook on held-out scenes, by what the renderer knows to be true."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ..models.lora import merge_folder
from . import words
from .networks import Networks, affinity, load_vae
from .training.classifier import load as load_classifier
from .training.classifier import truth
from .training.common import psnr, save_grid
from .training.diffusion import decode, sample
from .training.vae import evaluate as evaluate_vae
from .world import EVENTS, MOVES, Scenes, World, frame_times

HELD_OUT = 90_000  # seed of the scenes; training never draws from it


class Judge:
    """The model in `folder`, its autoencoder and the classifier, with the sampling settings.

    guidance: of pictures and of clips.
    """

    def __init__(self, folder: Path, device, steps: int = 1, guidance=(1.0, 1.0), few_step=False):
        self.device = torch.device(device)
        self.steps, self.guidance = steps, guidance
        self.nets = Networks.load(folder)
        if few_step:
            merge_folder(self.nets.motion, folder / "few_step")
        low = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.nets.to(device, low).frozen()
        self.vae, self.world = load_vae(folder, device), World(device)
        self.classify = load_classifier(folder, device)

    def scenes(self, n: int, seed: int, keep: Callable, objects: int | None = None) -> Scenes:
        """n held-out scenes that fulfil `keep`."""
        g = torch.Generator(self.device).manual_seed(HELD_OUT + seed)
        found = []
        while sum(map(len, found)) < n:
            s = self.world.sample(256, g, objects)
            found.append(s[keep(s)])
        return Scenes.join(found)[:n]

    def texts(self, s: Scenes) -> tuple[list[str], list[str]]:
        """Captions, and motion texts that name what moves alone."""
        return words.texts(s, self.world.labels, None, vary=False)

    def draw(self, captions: list[str]) -> torch.Tensor:
        """Pictures (n, 3, 256, 256)."""
        ids = words.ids(captions, self.device).split(256)
        how = self.steps, self.guidance[0]
        z = [sample(self.nets, row, None, *how, seed=256 * i) for i, row in enumerate(ids)]
        return decode(self.vae, torch.cat(z))

    @torch.no_grad()
    def film(self, s: Scenes, chunk: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
        """Clips made from the scenes' true first frames: first and last, (n, 2, 3, 256, 256) each,
        for the generated and the true clip."""
        ids, made, true = words.ids(self.texts(s)[1], self.device), [], []
        for i in range(0, len(s), chunk):
            part = s[i : i + chunk]
            ends = self.world.render(part, frame_times(len(part), 2, self.device))
            mask = affinity(part.speed, frame_times(len(part), device=self.device))
            z, how = self.vae.encoder(ends[:, 0]), (self.steps, self.guidance[1], mask)
            clip = sample(self.nets, ids[i : i + chunk], z, *how, seed=i)
            made.append(decode(self.vae, clip[:, [0, -1]]))
            true.append(ends)
        return torch.cat(made), torch.cat(true)

    def nearest(
        self,
        last: torch.Tensor,
        variants: list[Scenes],
        measure=lambda pictures: pictures,
        t: float = 1.0,
    ) -> torch.Tensor:
        """Which variant's true frame at time t is nearest to the generated one: (n,) indices.

        By the pixels, or by what `measure` says of pictures (n, 3, 256, 256).
        """
        a = measure(last)
        away = [a - measure(self.world.stills(v, t)) for v in variants]
        return torch.stack([v.abs().flatten(1).mean(1) for v in away]).argmin(0)

    def moved_as(self, last: torch.Tensor, s: Scenes, slot: int, t: float = 1.0) -> torch.Tensor:
        """Which of MOVES, for the object in `slot`, explains the frame at time t best: (n,)."""
        here = torch.arange(s.move.shape[1], device=self.device) == slot
        variants = [s.with_(move=torch.where(here, m, s.move)) for m in range(len(MOVES))]
        return self.nearest(last, variants, t=t)

    def shown(self, last: torch.Tensor, s: Scenes, slot: int) -> torch.Tensor:
        """Whether the last frame is nearer to the true one with the object in `slot` than to that
        without it: (n,) bool."""
        others = torch.arange(s.move.shape[1], device=self.device) != slot
        return self.nearest(last, [s, s.with_(present=s.present & others)]) == 0


def lively(s: Scenes, *moving: bool, event: int = 0) -> torch.Tensor:
    """Which scenes are quick enough to be judged, have that event, and whose first objects are
    there and move or rest as asked: (n,) bool."""
    fits = (s.event == event) & (s.speed > 0.6)
    for k, moves in enumerate(moving):
        fits &= s.present[:, k] & ((s.move[:, k] > 0) == moves)
    return fits


def directed(moves: torch.Tensor) -> torch.Tensor:
    """Which of these moves lead somewhere."""
    return (moves > 0) & (moves < MOVES.index("grows"))


def specks(x: torch.Tensor) -> torch.Tensor:
    """How much of each picture (n, 3, 256, 256) is brighter than what is around it: (n, 1)."""
    around = torch.nn.functional.avg_pool2d(x, 31, 1, 15, count_include_pad=False)
    return (x - around).clamp(min=0).flatten(1).mean(1, keepdim=True)


def share(hits: torch.Tensor) -> float:
    return round(100 * float(hits.float().mean()), 1) if len(hits) else float("nan")


class Table(dict):
    """Rows that are printed as they come."""

    def __setitem__(self, name: str, row) -> None:
        print(name, row, flush=True)
        super().__setitem__(name, row)


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
    judge = Judge(folder, device, steps, (picture_guidance, clip_guidance), few_step)
    r, world, vae = Table(), judge.world, judge.vae
    r |= {"scenes": n, "steps": steps, "few_step": few_step}
    r |= {"picture_guidance": picture_guidance, "clip_guidance": clip_guidance}
    if not few_step:
        r["vae"] = evaluate_vae(vae.encoder, vae.decoder, world, out=out)

    def keep(name: str, rows: torch.Tensor, scale: float = 0.5) -> None:
        save_grid(rows, out / f"{name}{'_few' * few_step}.jpg", scale)

    def filmed(name: str, s: Scenes) -> tuple[torch.Tensor, torch.Tensor]:
        made, true = judge.film(s)
        keep(name, torch.cat([made[:12], true[:12, 1:]], 1).transpose(0, 1))
        return made, true

    s = judge.scenes(n, 1, lambda s: s.event == 0)
    x = judge.draw(judge.texts(s)[0])
    keep("pictures", x[:32].view(4, -1, 3, 256, 256) if n >= 32 else x[None], 0.6)
    said = zip(*(judge.classify(c) for c in x.split(64)), strict=True)
    what, ground, time = (torch.cat(c) for c in said)
    seen, want = what > 0, truth(s, what.shape[1]) > 0.5
    kinds = list(dict.fromkeys(name for name, _ in world.labels))
    of_kind = torch.zeros(len(world.labels), len(kinds), device=device)
    for i, (name, _) in enumerate(world.labels):
        of_kind[i, kinds.index(name)] = 1
    seen_kinds, want_kinds = (y.float() @ of_kind > 0 for y in (seen, want))
    r["pictures"] = {
        "objects": share((seen_kinds | ~want_kinds).all(1)),
        "exact_set": share((seen_kinds == want_kinds).all(1)),
        "objects_with_colours": share((seen | ~want).all(1)),
        "ground": share(ground.argmax(1) == s.ground),
        "time": share(time.argmax(1) == s.time),
    }

    s = judge.scenes(n, 2, lively, objects=1)
    made, true = filmed("one_object", s)
    told, move = judge.moved_as(made[:, 1], s, 0), s.move[:, 0]
    ceiling = decode(vae, torch.cat([vae.encoder(c) for c in true[:, 0].split(32)]))
    r["one_object"] = {
        "moves": share(told == move),
        "directions": share((told == move)[directed(move)]),
        **{name: share((told == m)[move == m]) for m, name in enumerate(MOVES)},
        "first_frame_psnr": round(float(psnr(made[:, 0], true[:, 0]).mean()), 2),
        "first_frame_ceiling": round(float(psnr(ceiling, true[:, 0]).mean()), 2),
    }

    s = judge.scenes(n, 3, lambda s: lively(s, True, True), objects=2)
    made, _ = filmed("two_objects", s)
    hits = torch.stack([judge.moved_as(made[:, 1], s, k) == s.move[:, k] for k in range(2)])
    ways = directed(s.move[:, :2].T)
    r["two_objects"] = {"moves": share(hits.flatten()), "directions": share(hits[ways])}

    s = judge.scenes(n, 4, lambda s: lively(s, True, False), objects=2)
    made, _ = judge.film(s)
    there = judge.shown(made[:, 1], s, 1)
    stays = there & (judge.moved_as(made[:, 1], s, 1) == 0)
    r["unnamed_object"] = {"stays": share(stays), "there": share(there)}

    events = {}
    for e, event in enumerate(EVENTS[1:], 1):
        fits = lambda s, e=e: lively(s, False, event=e)  # noqa: E731
        s = judge.scenes(max(8, n // 8), 10 + e, fits, objects=1)
        made, _ = judge.film(s)
        how = [specks] * (event == "the snow falls")  # no text says where flakes are
        events[event] = share(judge.nearest(made[:, 1], [s, s.with_(event=0)], *how) == 0)
    r["events"] = events
    return dict(r)
