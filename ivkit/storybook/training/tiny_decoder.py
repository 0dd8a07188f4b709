"""Stage 7: the tiny decoder, from the autoencoder's latents back to the renders they are of."""

from __future__ import annotations

from typing import Any

import torch

from ...models import decoder as tiny
from ..networks import load_vae
from ..world import World
from .common import Stage, Trainer, learn, pixel_loss, psnr
from .vae import Crops, evaluate


def train(
    stage: Stage,
    batch: int = 128,
    lr: float = 1.5e-3,
    held_out: int = 64,
    save_every: float = 60.0,
) -> dict[str, Any]:
    """Trains tiny_decoder.safetensors (fp16), from what the folder holds or anew."""
    ranks, folder = stage.ranks, stage.folder
    torch.manual_seed(600)
    decoder = tiny.load(folder) if (folder / tiny.FILE).is_file() else tiny.TinyDecoder()
    decoder.to(ranks.device).to(memory_format=torch.channels_last).train().requires_grad_(True)
    torch.manual_seed(600 + ranks.rank)
    vae, world = load_vae(folder, ranks.device), ranks.world()
    trainer = Trainer(decoder.parameters(), ranks, lr, (0.9, 0.99), weight_decay=1e-3, decay=0.998)
    encode, decode = ranks.compile(vae.encoder), ranks.compile(decoder)
    data = Crops(world, batch)

    def gradient():
        with torch.no_grad():
            x = data.next().contiguous(memory_format=torch.channels_last)
            with ranks.autocast():
                z = encode(x)
            unclean = torch.rand(batch, 1, 1, 1, device=x.device) * 0.05  # as the student's are
            z = z + torch.randn_like(z) * unclean
        with ranks.autocast():
            y = decode(z).float()
        loss = pixel_loss(y - x)
        trainer.backward(loss)
        return torch.stack([loss.detach(), psnr(x, y.detach()).mean()])

    def save():
        tiny.save(decoder, folder)

    gradient, clock = ranks.replay(gradient), stage.clock()
    step, names = data.renewed(clock, gradient), ("loss", "dB")
    result = learn("tiny_decoder", trainer, clock, step, names, 400, save, save_every, warm_up=200)
    if ranks.first:
        decoder = tiny.load(folder).to(ranks.device)
        result |= evaluate(vae.encoder, decoder, World(ranks.device), n=held_out)
        ranks.say("tiny_decoder", result["render_psnr"], "dB")
    return result
