"""Stage 4: Eq. 5's residual form, on pairs that match.

True clips are noised at a low strength and denoised again, and each is paired with itself: clips
that the model makes freely match no true clip, and would teach blur. Small enough for a CPU.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ...align import Align, ResidualAlign
from ...support.disk import write_tensors
from .. import words
from ..networks import Networks, affinity, load_vae
from ..world import World, frame_times
from .common import Ranks, Stage, Trainer, learn, psnr
from .diffusion import decode, sample

STRENGTH, STEPS = 0.3, 10  # the last 3 of 10 steps
MOVED = 9.0  # how much more an error counts where the picture has changed


@torch.no_grad()
def pairs(folder: Path, ranks: Ranks, clips: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Denoised and true clips, (clips, 16, 3, 256, 256) each in [-1, 1]."""
    d = ranks.device
    vae, nets = load_vae(folder, d), Networks.load(folder).to(d, torch.float32).frozen()
    world, g = World(d), torch.Generator(d).manual_seed(seed)
    torch.manual_seed(seed)
    made, true = [], []
    for _ in tqdm(range(clips), desc="clips denoised again"):
        s, t = world.sample(1, g), frame_times(1, device=d)
        x = world.render(s, t)
        _, motions = words.texts(s, world.labels, None, vary=False)
        with ranks.autocast():
            z = vae.encoder(x[0])[None].float()
            ids, mask = words.ids(motions, d), affinity(s.speed, t)
            z = sample(nets, ids, z[:, 0], STEPS, 1.0, mask, start=z, strength=STRENGTH)
            made.append(decode(vae, z, 8).cpu())
        true.append(x.cpu())
    return torch.cat(made), torch.cat(true)


def train(
    stage: Stage,
    clips: int = 24,
    held_out: int = 6,
    groups: int = 1,
) -> dict[str, Any]:
    """Trains align/ on pairs that it makes first; returns PSNR before and after, in dB.

    The form as printed is trained beside it on the same pairs, to be compared.
    """
    ranks, folder = stage.ranks, stage.folder
    made, true = pairs(folder, ranks, clips, 700)
    torch.manual_seed(700)
    result = {}

    def gradient(module, trainer):
        """On 16 crops of 64 pixels, each with the same crop of the clip's first frame."""
        i = torch.randint(clips - held_out, (16,))
        f = torch.randint(made.shape[1], (16,))
        x, y = (torch.randint(192, (16,)) for _ in range(2))
        cut = [(slice(b, b + 64), slice(a, a + 64)) for a, b in zip(x, y, strict=True)]
        v, x0, target = (
            torch.stack([c[n, k][:, r, q] for n, k, (r, q) in zip(i, frames, cut, strict=True)]).to(
                ranks.device
            )
            for c, frames in ((made, f), (true, torch.zeros_like(f)), (true, f))
        )
        moved = ((target - x0).abs().amax(1, keepdim=True) > 0.1).float()
        error = (module(v, x0) - target).abs()  # where things moved on, no trace of x may stay
        loss = (error * (1 + MOVED * moved)).mean()
        trainer.backward(loss)
        return loss.detach()[None]

    def save(module):
        if isinstance(module, ResidualAlign):
            state = {k: v.half() for k, v in module.state_dict().items()}
            write_tensors(folder / "align" / "align.safetensors", state, {"groups": str(groups)})

    for name, module in {"residual": ResidualAlign(groups), "printed": Align(groups)}.items():
        trainer = Trainer(
            module.to(ranks.device).parameters(), ranks, 3e-3, weight_decay=0.0, decay=0.99
        )
        clock = stage.clock(stage.seconds / 2, warm_up=1)
        step = partial(gradient, module, trainer)
        found = learn(
            f"align {name}", trainer, clock, step, ["loss"], 100, partial(save, module), warm_up=50
        )
        with torch.no_grad():
            v, target = made[-held_out:].flatten(0, 1), true[-held_out:].flatten(0, 1)
            x0 = true[-held_out:, :1].expand_as(true[-held_out:]).flatten(0, 1)
            both = zip(v.split(8), x0.split(8), strict=True)
            aligned = torch.cat([module.cpu()(a, b) for a, b in both])
        db = {"before": float(psnr(v, target).mean()), "after": float(psnr(aligned, target).mean())}
        result[name] = found | db
    ranks.say("align", result)
    return result
