"""Stage 4: Eq. 5's residual form, on pairs that match.

True clips are noised at a low strength and denoised again, and each is paired with itself: clips
that the model makes freely match no true clip, and would teach blur. Small enough for a CPU.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tqdm.auto import tqdm

from ...align import Align, ResidualAlign
from ...support.disk import write_tensors
from .. import words
from ..networks import SCHEDULE, Networks, affinity
from ..world import World, frame_times
from .common import Clock, Ranks, Trainer, psnr
from .diffusion import alphas, decode, noised, video_input

STRENGTH, STEPS = 0.3, 10  # the last 3 of 10 steps
MOVED = 9.0  # how much more an error counts where the picture has changed


@torch.no_grad()
def pairs(folder: Path, clips: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Denoised and true clips, (clips, 16, 3, 256, 256) each in [-1, 1]."""
    from diffusers import AutoencoderTiny, DDIMScheduler

    ranks = Ranks()
    d = ranks.device
    vae = AutoencoderTiny.from_pretrained(folder / "vae", torch_dtype=torch.float32).to(d).eval()
    nets = Networks.load(folder)
    for part in nets.each():
        part.to(d).eval()
    world, g = World(d), torch.Generator(d).manual_seed(seed)
    torch.manual_seed(seed)
    scheduler = DDIMScheduler(**SCHEDULE)
    scheduler.set_timesteps(STEPS, device=d)
    steps = scheduler.timesteps[-round(STEPS * STRENGTH) :]
    made, true = [], []
    for _ in tqdm(range(clips), desc="clips denoised again"):
        s = world.sample(1, g)
        t = frame_times(1, device=d)
        x = world.render(s, t)
        _, motions = words.texts(s, world.labels, None, vary=False)
        with ranks.autocast():
            z = vae.encoder(x[0])[None].float()
            ids = torch.tensor([words.encode(m) for m in motions], device=d)
            h = nets.text(ids).last_hidden_state.repeat_interleave(z.shape[1], 0)
            condition, mask = z[:, :1].expand_as(z), affinity(s.speed, t)
            z, _ = noised(z, steps[:1].long(), alphas(d))
            for now in steps:
                v = nets.motion(video_input(z, condition, mask), now, h).sample.transpose(1, 2)
                z = scheduler.step(v.float(), now, z).prev_sample
            made.append(decode(vae, z, 8).cpu())
        true.append(x.cpu())
    return torch.cat(made), torch.cat(true)


def train(
    folder: str | Path,
    out: str | Path,
    seconds: float,
    clips: int = 24,
    held_out: int = 6,
    groups: int = 1,
    max_steps: int | None = None,
) -> dict:
    """Trains align/ for `seconds` after the pairs are made; returns PSNR before and after, in dB.

    The form as printed is trained beside it on the same pairs, to be compared.
    """
    ranks, folder = Ranks(), Path(folder)
    made, true = pairs(folder, clips, 700)
    torch.manual_seed(700)
    modules = {"residual": ResidualAlign(groups), "printed": Align(groups)}
    result = {}
    for name, module in modules.items():
        module.to(ranks.device)
        trainer = Trainer(module.parameters(), ranks, 3e-3, weight_decay=0.0, decay=0.99)
        clock, more = Clock(ranks, seconds / 2, warm_up=1, max_steps=max_steps), True
        while more:  # 16 crops of 64 pixels, each with the same crop of the clip's first frame
            i = torch.randint(clips - held_out, (16,))
            f = torch.randint(made.shape[1], (16,))
            x, y = (torch.randint(192, (16,)) for _ in range(2))
            cut = [(slice(b, b + 64), slice(a, a + 64)) for a, b in zip(x, y, strict=True)]
            picks = [
                torch.stack([c[n, k][:, r, q] for n, k, (r, q) in zip(i, frames, cut, strict=True)])
                for c, frames in ((made, f), (true, torch.zeros_like(f)), (true, f))
            ]
            v, x0, target = (p.to(ranks.device) for p in picks)
            moved = ((target - x0).abs().amax(1, keepdim=True) > 0.1).float()
            error = (module(v, x0) - target).abs()  # where things moved on, no trace of x may stay
            trainer.backward((error * (1 + MOVED * moved)).mean())
            trainer.step(clock.share, 50)
            more = clock.tick()
        trainer.push(trainer.ema)
        with torch.no_grad():
            v, target = made[-held_out:].flatten(0, 1), true[-held_out:].flatten(0, 1)
            x0 = true[-held_out:, :1].expand_as(true[-held_out:]).flatten(0, 1)
            aligned = torch.cat(
                [module.cpu()(a, b) for a, b in zip(v.split(8), x0.split(8), strict=True)]
            )
        result[name] = {"before": psnr(v, target), "after": psnr(aligned, target), "steps": clock.n}
    state = {k: v.half() for k, v in modules["residual"].state_dict().items()}
    if ranks.first:
        write_tensors(folder / "align" / "align.safetensors", state, {"groups": str(groups)})
    ranks.say("align", result)
    return result
