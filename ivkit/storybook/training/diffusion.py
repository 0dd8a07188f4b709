"""Stage 2: the diffusion network, on pictures and clips at once."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from .. import words
from ..networks import Networks, affinity, load_vae, scheduler
from ..world import NUM_FRAMES, frame_times
from .common import Stage, Trainer, learn, save_grid
from .data import Clips


def alphas(device) -> torch.Tensor:
    return scheduler().alphas_cumprod.to(device).clamp(0, 1)


def noised(
    z: torch.Tensor, t: torch.Tensor, bar: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(z_t, v): Eq. 2 with fresh noise, and the v-prediction's target."""
    a = bar[t].view(-1, *[1] * (z.dim() - 1))
    eps = torch.randn_like(z)
    return a.sqrt() * z + (1 - a).sqrt() * eps, a.sqrt() * eps - (1 - a).sqrt() * z


@torch.no_grad()
def voice(text) -> None:
    """Makes the words that are kept free as long as the others (in the embedding's rows).

    No text trains them: as they begin, the text encoder would hardly hear them, and a character's
    name would sound like its class.
    """
    rows = text.get_input_embeddings().weight
    free = [words.encode(word)[1] for word in words.FREE]
    rows[free] *= rows.norm(dim=1).mean() / rows[free].norm(dim=1, keepdim=True)


@torch.no_grad()
def sample(
    nets: Networks,
    ids: torch.Tensor,
    condition: torch.Tensor | None,
    steps: int,
    guidance: float,
    affinity: torch.Tensor | None = None,
    seed: int = 0,
    keep: int | None = None,
    start: torch.Tensor | None = None,
    strength: float = 1.0,
) -> torch.Tensor:
    """Draws pictures (condition None) or clips by DDIM for text ids (B, L), all rows at once.

    condition: (B, C, h, w). start: latents to noise at `strength` and to denoise again, in place of
    pure noise; see `Networks.v` for the rest.

    Returns latents (B, C, h, w) or (B, F, C, h, w); with `keep`, those after every `keep`-th step
    too, the starting noise first: (B, steps / keep + 1, ...).
    """
    d = ids.device
    ddim = scheduler(steps, d)
    times = ddim.timesteps[-round(steps * strength) :]
    if start is None:
        frames = () if condition is None else (NUM_FRAMES,)
        generator = torch.Generator(d).manual_seed(seed)
        x = torch.randn(len(ids), *frames, 16, 16, 16, device=d, generator=generator)
    else:
        x, _ = noised(start, times[:1].long(), alphas(d))
    guided, rows = guidance != 1, ids
    if guided:
        rows = torch.cat([ids, words.ids([""], d).expand_as(ids)])
        condition, affinity = (c if c is None else torch.cat([c, c]) for c in (condition, affinity))
    h = nets.text(rows).last_hidden_state
    kept = [x]
    for i, t in enumerate(times):
        z = torch.cat([x, x]) if guided else x
        v = nets.v(z, t.expand(len(z)), h, condition, affinity)
        if guided:
            with_text, without = v.chunk(2)
            v = without + guidance * (with_text - without)
        x = ddim.step(v, t, x).prev_sample
        if keep and (i + 1) % keep == 0:
            kept.append(x)
    return torch.stack(kept, 1) if keep else x


@torch.no_grad()
def decode(vae, z: torch.Tensor, chunk: int = 64) -> torch.Tensor:
    """Latents (..., C, h, w) to pictures (..., 3, 256, 256) in [-1, 1]."""
    d = next(vae.parameters())
    out = [vae.decoder(c.to(d.dtype)).clamp(-1, 1).float() for c in z.flatten(0, -4).split(chunk)]
    return torch.cat(out).view(*z.shape[:-3], 3, 256, 256)


LOOK = {  # captions, and what moves in clips of them
    "a red car and a blue bird on the grey street at day": "the car moves right",
    "a sun and a boat on the blue sea at day": "the boat moves left",
    "a dog on the green meadow at sunset": "the dog moves up",
    "polar lights and a house on the white snow at night": "the polar lights move right",
    "a purple balloon and a tree on the sandy beach at day": (
        "the balloon moves up and the tree stays still"
    ),
    "a fox and a rocket and a cow on the yellow desert at night": (
        "the rocket moves down and the cow moves right"
    ),
    "a green fish on the blue sea at night": "the fish grows",
    "a castle and an owl on the green meadow at day": "the owl moves left and it gets dark",
}


def look(nets, vae, file: Path, rows: int = 8, steps: int = 16, guidance=(4.0, 2.5)) -> None:
    """Pictures of fixed captions and clips made of them, to look at while it trains."""
    if not rows:
        return
    d = next(nets.unet.parameters()).device
    captions, motions = (words.ids(list(lines)[:rows], d) for lines in (LOOK, LOOK.values()))
    mask = affinity(torch.full((rows,), 0.8, device=d), frame_times(rows, device=d))
    z = sample(nets, captions, None, steps, guidance[0])
    clips = sample(nets, motions, z, steps, guidance[1], mask)
    save_grid(decode(vae, clips[:, ::3]), file, 0.5)


def train(
    stage: Stage,
    pictures: int = 192,
    clips: int = 28,
    ring: int = 24_000,
    first_fill: int = 6_000,
    renew: int = 16,
    lr: float = 1e-3,
    save_every: float = 150.0,
    rows: int = 8,
) -> dict[str, Any]:
    """Trains unet/, motion_adapter/ and text_encoder/, from what the folder holds (its averaged
    weights, with a new warm-up), or anew.

    What has been learned is saved every `save_every` seconds. Every `renew` steps a few clips are
    rendered anew.
    """
    ranks, folder = stage.ranks, stage.folder
    d = ranks.device
    vae = load_vae(folder, d)
    nets = Networks.load(folder) if (folder / "motion_adapter").exists() else Networks.new()
    voice(nets.text)
    trainer = Trainer(nets.to(d, torch.float32).parameters(), ranks, lr)
    nets.to(d, ranks.low)
    trainer.push(trainer.master)
    torch.manual_seed(200 + ranks.rank)
    start = time.time()
    data = Clips(vae, ranks, ring, chunk=min(32, ring), seed=int(start) % 10_000)
    data.fill(first_fill)
    ranks.wait()
    ranks.say(f"{first_fill} clips in {time.time() - start:.0f} s")
    fast = replace(nets, unet=ranks.compile(nets.unet), motion=ranks.compile(nets.motion))
    bar, empty = alphas(d), words.ids([""], d)

    def chance(n, p):
        return torch.rand(n, 1, device=d) < p

    def gradient():
        zi, ci = data.pictures(pictures)
        ci = torch.where(chance(pictures, 0.1), empty, ci)
        zv, cv, both, mask = data.clips(clips)
        blind = chance(clips, 0.08)  # no picture: what a text-to-video model sees
        cv = torch.where(blind, both, torch.where(chance(clips, 0.1), empty, cv))
        unclean = 0.1 * torch.rand(clips, 1, device=d) * chance(clips, 0.3)
        condition = zv[:, 0] + torch.randn_like(zv[:, 0]) * unclean.view(-1, 1, 1, 1)
        condition = condition.masked_fill(blind.view(-1, 1, 1, 1), 0.0)
        h = nets.text(torch.cat([ci, cv])).last_hidden_state
        ti = torch.randint(1000, (pictures,), device=d)
        x, v = noised(zi, ti, bar)
        loss_i = F.mse_loss(fast.v(x, ti, h[:pictures]), v)
        early = torch.rand(clips, device=d) < 0.5  # motion is decided early
        tv = torch.where(
            early,
            torch.randint(600, 1000, (clips,), device=d),
            torch.randint(1000, (clips,), device=d),
        )
        x, v = noised(zv, tv, bar)
        said = fast.v(x, tv, h[pictures:], condition, mask.masked_fill(blind, 0.0))
        loss_v = F.mse_loss(said, v)
        trainer.backward(loss_i + loss_v)
        return torch.stack([loss_i.detach(), loss_v.detach()])

    gradient, clock = ranks.replay(gradient), stage.clock()

    def step():
        if clock.n and clock.n % renew == 0:
            data.fill(data.chunk)
        return gradient()

    def save():
        nets.save(folder)
        look(nets, vae, stage.out / f"look_{clock.n:06d}.jpg", rows)

    return learn("diffusion", trainer, clock, step, ("pictures", "clips"), 500, save, save_every)
