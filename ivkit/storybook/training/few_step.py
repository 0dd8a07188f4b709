"""Stage 3: the few-step variant, a LoRA that takes guidance and four denoising steps in one.

The trained network draws pictures and clips in 20 guided steps and every fourth state is kept. The
LoRA learns the v that carries DDIM from one kept state to the next (progressive distillation,
Salimans and Ho 2022, in one go), half of the time from a state that it reached itself.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from ...models.lora import beside
from ...models.personal import TARGETS
from ..networks import Networks, load_vae, scheduler
from .common import Stage, Trainer, learn, write_lora
from .data import Clips
from .diffusion import alphas, look, sample

STEPS, EACH = 5, 4  # both divide the 1000 training steps, so that DDIM meets itself
RANK = 8
PICTURE_GUIDANCE, CLIP_GUIDANCE = 3.5, 2.5


class Jump:
    """DDIM from kept state k to k + 1: z' = p z - q v, and the v that does it."""

    def __init__(self, device):
        self.t = scheduler(STEPS, device).timesteps
        bar = alphas(device)
        a = torch.cat([bar[self.t], torch.ones(1, device=device)]).sqrt()
        s = (1 - a**2).clamp(min=0).sqrt()
        self.p, self.q = a[1:] * a[:-1] + s[1:] * s[:-1], a[1:] * s[:-1] - s[1:] * a[:-1]

    def at(self, z, k):
        """p and q of states k (B,), as z (B, ...) is multiplied by them."""
        return (v[k].view(-1, *[1] * (z.dim() - 1)) for v in (self.p, self.q))

    def __call__(self, z, v, k):
        p, q = self.at(z, k)
        return p * z - q * v

    def velocity(self, z, z_next, k):
        p, q = self.at(z, k)
        return (p * z - z_next) / q


def train(
    stage: Stage,
    share_drawn: float = 0.5,
    pictures: int = 96,
    clips: int = 20,
    draw_pictures: int = 384,
    draw_clips: int = 48,
    lr: float = 1e-3,
    rows: int = 8,
) -> dict[str, Any]:
    """Draws trajectories for half of the time, trains the LoRA on them in the rest."""
    ranks, folder = stage.ranks, stage.folder
    d, low = ranks.device, ranks.low
    vae, nets = load_vae(folder, d), Networks.load(folder).to(d, low).frozen()
    torch.manual_seed(500 + ranks.rank)
    size = 2048 if d.type == "cuda" else draw_clips
    data = Clips(vae, ranks, size, chunk=min(32, draw_clips), seed=77)
    start, kept_p, kept_c = time.time(), [], []
    while not kept_c or (not stage.max_steps and time.time() - start < stage.seconds * share_drawn):
        data.fill(min(draw_clips // data.chunk * data.chunk, 1024) or data.chunk)
        how = {"seed": int(torch.randint(2**31, ())), "keep": EACH}
        _, ids = data.pictures(draw_pictures)
        states = sample(nets, ids, None, STEPS * EACH, PICTURE_GUIDANCE, **how)
        kept_p.append((states.to(low), ids))
        z, ids, _, mask = data.clips(draw_clips)
        states = sample(nets, ids, z[:, 0], STEPS * EACH, CLIP_GUIDANCE, mask, **how)
        kept_c.append((states.to(low), ids, z[:, 0], mask))
    drawn_p, drawn_c = ([torch.cat(x) for x in zip(*k, strict=True)] for k in (kept_p, kept_c))
    count = {"drawn_clips": len(drawn_c[0]), "drawn_pictures": len(drawn_p[0])}
    ranks.say(count, f"on each GPU in {time.time() - start:.0f} s")

    beside(nets.motion, "few_step", r=RANK, lora_alpha=RANK, target_modules=TARGETS)
    params = [p for p in nets.motion.parameters() if p.requires_grad]
    ranks.say(f"LoRA of {sum(p.numel() for p in params) / 1e6:.2f}M parameters")
    if ranks.size > 1:
        for p in params:
            torch.distributed.broadcast(p.data, 0)
    trainer, jump = Trainer(params, ranks, lr, weight_decay=0.0, decay=0.995), Jump(d)

    def loss_of(own, states, ids, *seen):
        n = len(states)
        h = nets.text(ids).last_hidden_state
        k, rows = torch.randint(STEPS, (n,), device=d), torch.arange(n, device=d)
        z, z_next = states[rows, k].float(), states[rows, k + 1].float()
        if own:  # from where the LoRA itself gets to
            with torch.no_grad():
                back = (k - 1).clamp(min=0)
                before = states[rows, back].float()
                there = jump(before, nets.v(before, jump.t[back], h, *seen), back)
                z = torch.where((k > 0).view(-1, *[1] * (z.dim() - 1)), there, z)
        return F.mse_loss(nets.v(z, jump.t[k], h, *seen), jump.velocity(z, z_next, k))

    def gradient(own: bool):
        i = torch.randint(len(drawn_p[0]), (pictures,), device=d)
        j = torch.randint(len(drawn_c[0]), (clips,), device=d)
        losses = [loss_of(own, *(v[i] for v in drawn_p)), loss_of(own, *(v[j] for v in drawn_c))]
        trainer.backward(sum(losses))
        return torch.stack(losses).detach()

    gradients = [ranks.replay(partial(gradient, own)) for own in (False, True)]
    clock = stage.clock(stage.seconds * (1 - share_drawn), warm_up=1)

    def step():
        return gradients[clock.n % 2]()

    def save():
        from peft import get_peft_model_state_dict

        state = get_peft_model_state_dict(nets.motion, adapter_name="few_step")
        write_lora(folder / "few_step", RANK, TARGETS, state)
        look(nets, vae, stage.out / "few_step.jpg", rows, STEPS, (1.0, 1.0))

    names = ("pictures", "clips")
    return count | learn("few_step", trainer, clock, step, names, 100, save, warm_up=50)
