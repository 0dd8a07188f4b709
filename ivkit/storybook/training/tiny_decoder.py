"""Stage 7: the tiny decoder, from the autoencoder's latents back to the renders they are of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

from ...models import decoder as tiny
from ..world import World
from .common import Clock, Ranks, Trainer, pixel_loss, psnr
from .vae import evaluate, rendered


def train(
    folder: str | Path,
    out: str | Path,
    seconds: float,
    batch: int = 128,
    max_steps: int | None = None,
    lr: float = 1.5e-3,
    held_out: int = 64,
    save_every: float = 60.0,
) -> dict[str, float]:
    """Trains tiny_decoder.safetensors (fp16) for `seconds`, from what `folder` holds or anew."""
    from diffusers import AutoencoderTiny

    ranks, folder, out = Ranks(), Path(folder), Path(out)
    torch.manual_seed(600)
    decoder = tiny.load(folder) if (folder / tiny.FILE).is_file() else tiny.TinyDecoder()
    decoder.to(ranks.device).to(memory_format=torch.channels_last).train().requires_grad_(True)
    torch.manual_seed(600 + ranks.rank)
    world = World(ranks.device)
    world.draw = ranks.compile(world._draw)
    vae = AutoencoderTiny.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    vae.to(ranks.device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    trainer = Trainer(decoder.parameters(), ranks, lr, (0.9, 0.99), weight_decay=1e-3, decay=0.998)
    encode, decode = ranks.compile(vae.encoder), ranks.compile(decoder)
    scenes, turn = world.sample(8 * batch), torch.zeros((), device=ranks.device, dtype=torch.long)

    def gradient():
        with torch.no_grad():
            rows = torch.arange(batch, device=ranks.device) + turn * batch
            x = rendered(world, scenes[rows]).contiguous(memory_format=torch.channels_last)
            turn.add_(1).remainder_(8)
            with ranks.autocast():
                z = encode(x)
            unclean = torch.rand(batch, 1, 1, 1, device=x.device) * 0.05  # as the student's are
            z = z + torch.randn_like(z) * unclean
        with ranks.autocast():
            y = decode(z).float()
        loss = pixel_loss(y - x)
        trainer.backward(loss)
        return x, y.detach(), loss.detach()

    gradient = ranks.replay(gradient)
    clock, saved, more, losses = Clock(ranks, seconds, max_steps=max_steps), 0.0, True, []
    while more:
        if clock.n % 8 == 7:
            scenes.become(world.sample(8 * batch))
        x, y, loss = gradient()
        trainer.step(clock.share, 200)
        more = clock.tick()
        if clock.n % 400 == 1:
            losses.append([clock.n, round(clock.elapsed, 1), float(loss), psnr(x, y)])
            ranks.say("tiny_decoder: step, seconds, loss, dB", *losses[-1])
        if more and ranks.first and clock.share * seconds - saved > save_every:
            saved = clock.share * seconds
            with trainer.averaged():
                tiny.save(decoder, folder)
    result = {"steps": clock.n, "losses": losses}
    ranks.keep_compiled()
    if ranks.first:
        trainer.push(trainer.ema)
        tiny.save(decoder, folder)
        world.draw = world._draw
        both = SimpleNamespace(encoder=vae.encoder, decoder=tiny.load(folder).to(ranks.device))
        result |= evaluate(both, world, None, out, held_out)
        ranks.say("tiny_decoder", result["render_psnr"], "dB after", clock.n, "steps")
    return result
