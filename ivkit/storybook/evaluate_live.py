"""Measures the live student on held-out streams, by what the renderer knows to be true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..bench.metrics import track
from ..models import decoder as tiny
from ..models.live import ACTS, NEW
from ..pictures import to_frames
from . import words
from .evaluate import HELD_OUT, Judge, Table, directed, lively, share
from .streams import Streams, plan
from .training.classifier import truth
from .training.common import psnr, save_grid
from .training.live import Student
from .training.vae import evaluate as evaluate_vae
from .world import NUM_FRAMES, SIZE, Scenes, World

MINUTE = 120  # chunks of four frames, at 8 frames a second
CHUNK = 32  # streams at a time
STEP = 1 / (NUM_FRAMES - 1)  # of the world's time, from frame to frame


class LiveJudge(Judge):
    """The student in `folder`, and what judges it."""

    def __init__(self, folder: Path, device: str):
        super().__init__(folder, device)
        self.student = Student.of(folder, self.device, torch.float32)
        self.planner = World("cpu")

    def plans(self, n: int, seed: int, chunks: int, **options):
        """Held-out streams, a few at a time."""
        g = torch.Generator().manual_seed(HELD_OUT + seed)
        for i in range(0, n, CHUNK):
            yield plan(self.planner, min(CHUNK, n - i), chunks, g, **options).to(self.device)

    def told(self, s: Scenes, frame: int, *texts: tuple[Scenes, int]) -> torch.Tensor:
        """A frame (n, 3, 256, 256) of streams that begin with the scenes' first frames, and hear
        what is said of other scenes, of each for so many chunks."""
        ids = [words.ids(self.texts(then)[1], self.device)[:, None] for then, _ in texts]
        ids = torch.cat([row.expand(-1, k, -1) for row, (_, k) in zip(ids, texts, strict=True)], 1)
        first, found = self.world.stills(s, 0.0), []
        for i in range(0, len(s), CHUNK):
            rows = slice(i, i + CHUNK)
            speed = s.speed[rows, None].expand(-1, ids.shape[1])
            z = self.student.roll(first[rows], ids[rows], speed, seed=i)
            found.append(self.student.decode(z[:, frame]))
        return torch.cat(found)

    def against_truth(self, n: int, seed: int, **options) -> tuple[dict, list, torch.Tensor]:
        """dB at frames 4, 8, 12 against the true stream through the same decoder, and a still's;
        where each dragged thing ends away from the pointer; some pictures."""
        frames, rows, stills, away, sheet = [4, 8, 12], [], [], [], None
        for s in self.plans(n, seed, ACTS, gaps=(ACTS, ACTS), late=0.0, **options):
            true, masks = s.draw(self.world)
            z = self.student.roll(true[:, 0], s.ids, s.speed, (s, masks), seed=seed)
            made = torch.stack([self.student.decode(z[:, f]) for f in (0, *frames, z.shape[1] - 1)])
            wanted = [self.student.decode(self.student.encode(true[:, f])) for f in (0, *frames)]
            rows.append([psnr(a, b) for a, b in zip(made[1:4], wanted[1:], strict=True)])
            stills.append([psnr(wanted[0], b) for b in wanted[1:]])
            if options.get("drag"):
                away += distances(s, true[:, 0], masks[:, 1, 0], made[-1])
            if sheet is None:
                sheet = torch.cat([made[:4, :6], torch.stack(wanted)[:, :6]])
        table = {}
        for name, found in (("dB", rows), ("still_dB", stills)):
            for k, f in enumerate(frames):
                found_f = torch.cat([r[k] for r in found])
                table[f"{name}_{f}"] = round(float(found_f.clamp(max=60).mean()), 2)
        return table, away, sheet


def distances(s: Streams, first, masks, last) -> list[float]:
    """How far the upper held thing of each stream is from where the pointer rests, in shares of the
    width; 1 where it can't be found."""
    frames, pictures, regions = to_frames(last), to_frames(first), masks.cpu().numpy() > 0.5
    way = (s.at[:, -1, 1] - s.at[:, 0, 1]).cpu().numpy() * SIZE
    found = []
    for frame, picture, region, by in zip(frames, pictures, regions, way, strict=True):
        if not region.any():
            continue
        here, there = (track(x[None], picture, region)[0] for x in (picture, frame))
        off = np.linalg.norm(there - here - by) / SIZE
        found.append(1.0 if np.isnan(off) else float(off))
    return found


def recognised(judge: LiveJudge, r: Table, seed: int, n: int, chunks: int) -> torch.Tensor:
    """After so many chunks: what the classifier still sees, and whether latents drift; pictures."""
    student, world, seen, expected, level, sheet = judge.student, judge.world, 0, 0, [], []
    for s in judge.plans(n, seed, chunks, drag=0.0, gaps=(8, 8), cameras=False):
        ends = tuple(v[:, [0, -1]] for v in s.state)
        first, true = world.draw(s.scenes, *ends)[0].unbind(1)
        z = student.roll(first, s.ids, s.speed)
        made, wanted = student.decode(z[:, -1]), student.encode(true)
        what = judge.classify(true)[0]
        there = (truth(s.scenes, what.shape[1]) > 0.5) & (what > 0)  # not behind something else
        expected += int(there.sum())
        seen += int((there & (judge.classify(made)[0] > 0)).sum())
        level.append((z[:, -1].std(), wanted.std(), z[:, 0].std(), z[:, -1].mean()))
        at = range(0, z.shape[1], max(chunks * NEW // 6, 1))
        sheet.append(torch.stack([student.decode(z[:, f]) for f in at], 1))
    std, true_std, first_std, mean = torch.tensor(level).mean(0).tolist()
    r["minute"] = {
        "recognised": round(100 * seen / max(expected, 1), 1),
        "std": round(std, 4),
        "std_of_truth": round(true_std, 4),
        "std_at_first": round(first_std, 4),
        "off_percent": round(100 * (std / true_std - 1), 2),
        "mean": round(mean, 4),
    }
    return torch.cat(sheet)


@torch.no_grad()
def evaluate(
    folder: Path, out: Path, n: int = 256, device: str | None = None, chunks: int = MINUTE
) -> dict:
    """The live part of the model card's table: dB, distances and shares in per cent.

    n: streams a row; the long ones, of so many `chunks`, are an eighth as many, 8 at least.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    folder, out = Path(folder), Path(out)
    judge, r = LiveJudge(folder, device), Table(streams=n)
    vae, world = judge.student.vae, judge.world
    if (folder / tiny.FILE).is_file():
        decoders = {"tiny_dB": tiny.load(folder).to(device), "shipped_dB": vae.decoder}
        r["decoder"] = {
            name: evaluate_vae(vae.encoder, decoder, world)["render_psnr"]
            for name, decoder in decoders.items()
        }
    table, away, sheet = judge.against_truth(n, 50, drag=1.0, hold=(0, ACTS))
    r["dragged"] = table | {
        "distance_percent": round(100 * float(np.mean(away)), 2),
        "median_percent": round(100 * float(np.median(away)), 2),
        "lost": round(100 * float((np.array(away) == 1).mean()), 1),
    }
    save_grid(sheet, out / "live_dragged.jpg", 0.4)
    r["told"], _, sheet = judge.against_truth(n, 51, drag=0.0)
    save_grid(sheet, out / "live_told.jpg", 0.4)

    def ways(s, *moving):
        return lively(s, True, *moving) & directed(s.move[:, 0])

    s = judge.scenes(n, 52, ways, objects=1)
    last = judge.told(s, NUM_FRAMES - 1, (s, ACTS))
    r["direction"] = {"obeyed": share(judge.moved_as(last, s, 0) == s.move[:, 0])}

    half = ACTS // 2
    where = world.place(s, torch.full((len(s), 1), half * NEW * STEP, device=s.x.device))
    then = s.with_(x=where["x"][:, 0], y=where["y"][:, 0])
    other = (s.move + torch.randint(1, 8, s.move.shape, device=s.x.device) - 1) % 8 + 1
    then = then.with_(move=world.inward(other, then.x, then.y, s.speed))
    changed = (then.move != s.move)[:, 0]
    s, then = s[changed], then[changed]
    last = judge.told(s, ACTS * NEW, (s, half), (then, half))
    heard = judge.moved_as(last, then, 0, t=half * NEW * STEP) == then.move[:, 0]
    r["changed_in_mid_stream"] = {"obeyed_within_2_chunks": share(heard), "streams": len(s)}

    s = judge.scenes(n, 53, lambda s: ways(s, False), objects=2)
    last = judge.told(s, NUM_FRAMES - 1, (s, ACTS))
    stays = judge.shown(last, s, 1) & (judge.moved_as(last, s, 1) == 0)
    r["unnamed"] = {"stays": share(stays)}
    sheet = recognised(judge, r, 54, max(8, n // 8), chunks)
    save_grid(sheet[:8], out / "live_minute.jpg", 0.4)
    return dict(r)
