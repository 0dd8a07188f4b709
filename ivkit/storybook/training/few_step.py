"""Stage 3: the few-step variant, a LoRA that takes guidance and four denoising steps in one.

The trained network draws pictures and clips in 20 guided steps and every fourth state is kept. The
LoRA learns the v that carries DDIM from one kept state to the next (progressive distillation,
Salimans and Ho 2022, in one go), half of the time from a state that it reached itself.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from ...models.lora import beside
from ...models.personal import TARGETS
from ...support.disk import write_tensors
from ..networks import SCHEDULE, Networks
from ..world import NUM_FRAMES
from .common import Clock, Ranks, Trainer
from .data import Clips
from .diffusion import alphas, look, sample, video_input

STEPS, EACH = 5, 4  # both divide the 1000 training steps, so that DDIM meets itself
LORA = {"r": 8, "lora_alpha": 8, "target_modules": TARGETS}
PICTURE_GUIDANCE, CLIP_GUIDANCE = 3.5, 2.5


class Jump:
    """DDIM from kept state k to k + 1: z' = p z - q v, and the v that does it."""

    def __init__(self, device):
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler(**SCHEDULE)
        scheduler.set_timesteps(STEPS)
        self.t = scheduler.timesteps.to(device)
        bar = alphas(device)
        a = torch.cat([bar[self.t], torch.ones(1, device=device)]).sqrt()
        s = (1 - a**2).clamp(min=0).sqrt()
        self.p, self.q = a[1:] * a[:-1] + s[1:] * s[:-1], a[1:] * s[:-1] - s[1:] * a[:-1]

    def shape(self, v, k, like):
        return v[k].view(-1, *[1] * (like.dim() - 1))

    def __call__(self, z, v, k):
        return self.shape(self.p, k, z) * z - self.shape(self.q, k, z) * v

    def velocity(self, z, z_next, k):
        return (self.shape(self.p, k, z) * z - z_next) / self.shape(self.q, k, z)


def predict(nets, z, t, h, condition=None, affinity=None):
    """The network's v for pictures (B, C, h, w), or for clips (B, F, C, h, w)."""
    low = nets.low
    if condition is None:
        return nets.unet(z.to(low), t, h, return_dict=False)[0].float()
    x = video_input(z, condition[:, None].expand_as(z), affinity)
    return (
        nets.motion(x.to(low), t, h.repeat_interleave(NUM_FRAMES, 0), return_dict=False)[0]
        .float()
        .transpose(1, 2)
    )


def train(
    folder: str | Path,
    out: str | Path,
    seconds: float,
    share_drawn: float = 0.5,
    pictures: int = 96,
    clips: int = 20,
    draw_pictures: int = 384,
    draw_clips: int = 48,
    lr: float = 1e-3,
    rows: int = 8,
    max_steps: int | None = None,
) -> dict:
    """Draws trajectories for half of the `seconds`, trains the LoRA on them in the rest."""
    from diffusers import AutoencoderTiny

    ranks, folder, out = Ranks(), Path(folder), Path(out)
    d = ranks.device
    low = torch.bfloat16 if d.type == "cuda" else torch.float32
    vae = (
        AutoencoderTiny.from_pretrained(folder / "vae", torch_dtype=torch.float32)
        .to(d)
        .eval()
        .requires_grad_(False)
    )
    nets = Networks.load(folder)
    nets.low = low
    for part in nets.each():
        part.to(d).to(low).requires_grad_(False)
    torch.manual_seed(500 + ranks.rank)
    data = Clips(
        vae, ranks, 2048 if d.type == "cuda" else draw_clips, chunk=min(32, draw_clips), seed=77
    )
    start, kept_p, kept_c = time.time(), [], []
    while not kept_c or (time.time() - start < seconds * share_drawn and not max_steps):
        data.fill(min(draw_clips // data.chunk * data.chunk, 1024) or data.chunk)
        seed = int(torch.randint(2**31, ()))
        _, ids = data.pictures(draw_pictures)
        kept_p.append(
            (
                sample(nets, ids, None, STEPS * EACH, PICTURE_GUIDANCE, seed=seed, keep=EACH).to(
                    low
                ),
                ids,
            )
        )
        z, ids, _, mask = data.clips(draw_clips)
        states = sample(nets, ids, z[:, 0], STEPS * EACH, CLIP_GUIDANCE, mask, seed, keep=EACH)
        kept_c.append((states.to(low), ids, z[:, 0], mask))
    states_p, ids_p = (torch.cat(x) for x in zip(*kept_p, strict=False))
    states_c, ids_c, first_c, mask_c = (torch.cat(x) for x in zip(*kept_c, strict=False))
    ranks.say(
        f"{len(states_p)} pictures and {len(states_c)} clips drawn on each GPU",
        f"in {time.time() - start:.0f} s",
    )

    beside(nets.motion, "few_step", **LORA)
    params = [p for p in nets.motion.parameters() if p.requires_grad]
    ranks.say(f"LoRA of {sum(p.numel() for p in params) / 1e6:.2f}M parameters")
    if ranks.size > 1:
        for p in params:
            torch.distributed.broadcast(p.data, 0)
    trainer, jump = Trainer(params, ranks, lr, weight_decay=0.0, decay=0.995), Jump(d)
    sums = torch.zeros(2, device=d)

    def loss_of(own, states, ids, condition=None, mask=None):
        n = len(states)
        h = nets.text(ids).last_hidden_state
        k = torch.randint(STEPS, (n,), device=d)
        rows = torch.arange(n, device=d)
        z, z_next = states[rows, k].float(), states[rows, k + 1].float()
        if own:  # from where the LoRA itself gets to
            with torch.no_grad():
                back = (k - 1).clamp(min=0)
                before = states[rows, back].float()
                there = jump(before, predict(nets, before, jump.t[back], h, condition, mask), back)
                z = torch.where((k > 0).view(-1, *[1] * (z.dim() - 1)), there, z)
        v = predict(nets, z, jump.t[k], h, condition, mask)
        return F.mse_loss(v, jump.velocity(z, z_next, k))

    def gradient(own: bool):
        i = torch.randint(len(states_p), (pictures,), device=d)
        j = torch.randint(len(states_c), (clips,), device=d)
        loss_p = loss_of(own, states_p[i], ids_p[i])
        loss_c = loss_of(own, states_c[j], ids_c[j], first_c[j], mask_c[j])
        trainer.backward(loss_p + loss_c)
        sums.add_(torch.stack([loss_p.detach(), loss_c.detach()]))

    gradients = [ranks.replay(partial(gradient, own)) for own in (False, True)]
    sums.zero_()
    clock = Clock(ranks, seconds * (1 - share_drawn), warm_up=1, max_steps=max_steps)
    more = True
    while more:
        gradients[clock.n % 2]()
        trainer.step(clock.share, 50)
        more = clock.tick()
        if clock.n % 100 == 0:
            a, b = (sums / 100).tolist()
            sums.zero_()
            ranks.say("few_step", clock.n, f"{clock.elapsed:.0f} s pictures {a:.4f} clips {b:.4f}")
    if ranks.first:
        trainer.push(trainer.ema)
        save_lora(nets.motion, folder / "few_step")

        look(nets, vae, out, "few_step", rows, STEPS, (1.0, 1.0))
        ranks.say("few_step ended after", clock.n, "steps")
    return {"steps": clock.n, "drawn_clips": len(states_c), "drawn_pictures": len(states_p)}


def save_lora(motion, folder: Path) -> None:
    """Writes the LoRA in fp16, in PEFT's own format over UNetMotionModel's layers."""
    from peft import LoraConfig, get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    LoraConfig(**LORA).save_pretrained(folder)
    state = get_peft_model_state_dict(motion, adapter_name="few_step")
    state = {f"base_model.model.{k}": v.half() for k, v in state.items()}
    write_tensors(folder / "adapter_model.safetensors", state, {"format": "pt"})
