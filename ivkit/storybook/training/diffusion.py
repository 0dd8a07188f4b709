"""Stage 2: the diffusion network, on pictures and clips at once."""

from __future__ import annotations

import time
from pathlib import Path

import torch
import torch.nn.functional as F

from ...models.pia import video_input
from .. import words
from ..networks import SCHEDULE, Networks, affinity
from ..world import NUM_FRAMES, frame_times
from .common import Clock, Ranks, Trainer, save_grid
from .data import Clips


def alphas(device) -> torch.Tensor:
    from diffusers import DDIMScheduler

    return DDIMScheduler(**SCHEDULE).alphas_cumprod.to(device).clamp(0, 1)


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
    forward=None,
):
    """Draws pictures (condition None) or clips by DDIM for text ids (B, L), all rows at once.

    Returns latents (B, C, h, w) or (B, F, C, h, w); with `keep`, those after every `keep`-th step
    too, the starting noise first: (B, steps / keep + 1, ...).
    """
    from diffusers import DDIMScheduler

    d, low = ids.device, next(nets.unet.parameters()).dtype
    scheduler = DDIMScheduler(**SCHEDULE)
    scheduler.set_timesteps(steps, device=d)
    empty = torch.tensor([words.encode("")], device=d).expand_as(ids)
    h = nets.text(torch.cat([ids, empty]) if guidance != 1 else ids).last_hidden_state
    frames = () if condition is None else (NUM_FRAMES,)
    x = torch.randn(
        len(ids), *frames, 16, 16, 16, device=d, generator=torch.Generator(d).manual_seed(seed)
    )
    if condition is not None:
        h = h.repeat_interleave(NUM_FRAMES, 0)
        if condition.dim() == 4:
            condition = condition[:, None].expand_as(x)
    forward = forward or (nets.unet if condition is None else nets.motion)
    kept = [x]
    for i, t in enumerate(scheduler.timesteps):
        z = x if condition is None else video_input(x, condition.float(), affinity)
        z = torch.cat([z, z]) if guidance != 1 else z
        v = forward(z.to(low), t.expand(len(z)), h, return_dict=False)[0].float()
        v = v if condition is None else v.transpose(1, 2)
        if guidance != 1:
            with_text, without = v.chunk(2)
            v = without + guidance * (with_text - without)
        x = scheduler.step(v, t, x).prev_sample
        if keep and (i + 1) % keep == 0:
            kept.append(x)
    return torch.stack(kept, 1) if keep else x


@torch.no_grad()
def decode(vae, z: torch.Tensor, chunk: int = 64) -> torch.Tensor:
    """Latents (..., C, h, w) to pictures (..., 3, 256, 256) in [-1, 1]."""
    d = next(vae.parameters())
    out = [vae.decoder(c.to(d.dtype)).clamp(-1, 1).float() for c in z.flatten(0, -4).split(chunk)]
    return torch.cat(out).view(*z.shape[:-3], 3, 256, 256)


LOOK = [
    "a red car and a blue bird on the grey street at day",
    "a sun and a boat on the blue sea at day",
    "a dog on the green meadow at sunset",
    "polar lights and a house on the white snow at night",
    "a purple balloon and a tree on the sandy beach at day",
    "a fox and a rocket and a cow on the yellow desert at night",
    "a green fish on the blue sea at night",
    "a castle and an owl on the green meadow at day",
]
LOOK_MOTION = [
    "the car moves right",
    "the boat moves left",
    "the dog moves up",
    "the polar lights move right",
    "the balloon moves up and the tree stays still",
    "the rocket moves down and the cow moves right",
    "the fish grows",
    "the owl moves left and it gets dark",
]


def look(
    nets, vae, path: Path, tag: str, rows: int = 8, steps: int = 16, guidance=(4.0, 2.5)
) -> None:
    """Pictures of fixed captions and clips made of them, to look at while it trains."""
    if not rows:
        return
    d = next(nets.unet.parameters()).device

    def ids(lines):
        return torch.tensor([words.encode(line) for line in lines], device=d)

    mask = affinity(torch.full((rows,), 0.8, device=d), frame_times(rows, device=d))
    z = sample(nets, ids(LOOK[:rows]), None, steps, guidance[0])
    clips = sample(nets, ids(LOOK_MOTION[:rows]), z, steps, guidance[1], mask)
    save_grid(decode(vae, clips[:, ::3]), path / f"{tag}.jpg", 0.5)


def train(
    folder: str | Path,
    out: str | Path,
    seconds: float,
    total: float | None = None,
    before: float = 0.0,
    pictures: int = 192,
    clips: int = 28,
    ring: int = 24_000,
    first_fill: int = 6_000,
    renew: int = 16,
    lr: float = 1e-3,
    max_steps: int | None = None,
    save_every: float = 150.0,
    rows: int = 8,
) -> dict[str, float]:
    """Trains unet/, motion_adapter/ and text_encoder/ for `seconds`, from what `folder` holds (its
    averaged weights, with a new warm-up), or anew.

    `total` and `before`: seconds of a longer run of several parts, and those already behind: the
    learning rate falls over the whole. What has been learned is saved every `save_every` seconds.
    Every `renew` steps a few clips are rendered anew.
    """
    from diffusers import AutoencoderTiny

    ranks, folder, out = Ranks(), Path(folder), Path(out)
    d = ranks.device
    low = torch.bfloat16 if d.type == "cuda" else torch.float32
    vae = AutoencoderTiny.from_pretrained(folder / "vae", torch_dtype=torch.float32).to(d).eval()
    vae.to(memory_format=torch.channels_last).requires_grad_(False)
    nets = Networks.load(folder) if (folder / "motion_adapter").exists() else Networks.new()
    voice(nets.text)
    for part in nets.each():
        part.to(d)
    trainer = Trainer([p for _, p in nets.named_parameters()], ranks, lr)
    for part in nets.each():
        part.to(low).to(memory_format=torch.channels_last)
    trainer.push(trainer.master)
    torch.manual_seed(200 + ranks.rank)
    start = time.time()
    data = Clips(vae, ranks, ring, chunk=min(32, ring), seed=int(start) % 10_000)
    data.fill(first_fill)
    if d.type == "cuda":
        torch.cuda.synchronize()
    ranks.say(f"{first_fill} clips in {time.time() - start:.0f} s")
    draw, film = ranks.compile(nets.unet), ranks.compile(nets.motion)
    bar, empty = alphas(d), torch.tensor([words.encode("")], device=d)
    sums = torch.zeros(2, device=d)

    def chance(n, p):
        return torch.rand(n, 1, device=d) < p

    def gradient():
        zi, ci = data.pictures(pictures)
        ci = torch.where(chance(pictures, 0.1), empty, ci)
        zv, cv, both, mask = data.clips(clips)
        blind = chance(clips, 0.08)  # no picture: what a text-to-video model sees
        cv = torch.where(blind, both, torch.where(chance(clips, 0.1), empty, cv))
        unclean = 0.1 * torch.rand(clips, 1, device=d) * chance(clips, 0.3)
        condition = zv[:, :1] + torch.randn_like(zv[:, :1]) * unclean.view(-1, 1, 1, 1, 1)
        condition = condition.masked_fill(blind.view(-1, 1, 1, 1, 1), 0.0).expand_as(zv)
        h = nets.text(torch.cat([ci, cv])).last_hidden_state
        ti = torch.randint(1000, (pictures,), device=d)
        x, v = noised(zi, ti, bar)
        x = x.to(low).contiguous(memory_format=torch.channels_last)
        loss_i = F.mse_loss(draw(x, ti, h[:pictures], return_dict=False)[0].float(), v)
        tv = torch.where(
            torch.rand(clips, device=d) < 0.5,
            torch.randint(600, 1000, (clips,), device=d),
            torch.randint(1000, (clips,), device=d),
        )  # motion is decided early
        x, v = noised(zv, tv, bar)
        x = video_input(x, condition, mask.masked_fill(blind, 0.0)).to(low)
        hv = h[pictures:].repeat_interleave(NUM_FRAMES, 0)
        loss_v = F.mse_loss(film(x, tv, hv, return_dict=False)[0].float().transpose(1, 2), v)
        trainer.backward(loss_i + loss_v)
        sums.add_(torch.stack([loss_i.detach(), loss_v.detach()]))

    gradient = ranks.replay(gradient)
    sums.zero_()
    clock, saved, more = Clock(ranks, seconds, max_steps=max_steps), 0.0, True
    while more:
        gradient()
        past = (before + clock.share * seconds) / total if total else clock.share
        trainer.step(past)
        more = clock.tick()
        if clock.n % renew == 0:
            data.fill(data.chunk)
        if clock.n % 500 == 0:
            a, b = (sums / 500).tolist()
            sums.zero_()
            ranks.say("diffusion", clock.n, f"{clock.elapsed:.0f} s pictures {a:.4f} clips {b:.4f}")
        if more and (clock.share * seconds - saved > save_every):
            saved = clock.share * seconds
            if ranks.first:
                with trainer.averaged():
                    nets.save(folder)
                    look(nets, vae, out, f"look_{clock.n:06d}", rows)
    ranks.keep_compiled()
    if ranks.first:
        trainer.push(trainer.ema)
        nets.save(folder)
        look(nets, vae, out, f"look_{clock.n:06d}", rows)
        ranks.say("diffusion ended after", clock.n, "steps in", f"{clock.elapsed:.0f} s")
    return {"steps": clock.n, "seconds": clock.elapsed}
