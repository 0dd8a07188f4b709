"""Stage 1: the autoencoder, on crops of renders and of photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..networks import make_vae
from ..world import Scenes, World
from .common import Clock, Ranks, Trainer, pixel_loss, psnr, save_grid

CROP = 128


def load_photos(folder: str | Path | None, device, limit: int = 4000) -> torch.Tensor | None:
    """Pictures of a folder (JPEG or PNG, at least 192 px) as uint8 (N, 3, 192, 192)."""
    files = sorted(Path(folder).glob("*.jpg"))[:limit] if folder else []
    if not files:
        return None
    shots = [np.asarray(Image.open(f).convert("RGB"))[:192, :192] for f in files]
    return torch.tensor(np.stack(shots), device=device).permute(0, 3, 1, 2).contiguous()


def crops(photos: torch.Tensor, n: int) -> torch.Tensor:
    """Random crops, flipped and with other brightness and contrast: (n, 3, 128, 128) in [-1, 1]."""
    d = photos.device
    rows = photos[torch.randint(len(photos), (n,), device=d)].float() / 127.5 - 1
    size = torch.empty(n, device=d).uniform_(0.42, 1.0)  # of the 192 pixels
    centre = (torch.rand(n, 2, device=d) * 2 - 1) * (1 - size)[:, None]
    flip = torch.where(torch.rand(n, device=d) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3, device=d)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = size * flip, size, centre
    grid = torch.nn.functional.affine_grid(theta, (n, 3, CROP, CROP), align_corners=False)
    rows = torch.nn.functional.grid_sample(
        rows, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    gain, shift = torch.empty(2, n, 1, 1, 1, device=d).uniform_(-1, 1)
    return (rows * (1 + 0.25 * gain) + 0.15 * shift).clamp(-1, 1)


def rendered(world: World, s: Scenes) -> torch.Tensor:
    """Crops of scenes at random times, most of them near an object: (n, 3, 128, 128)."""
    d, n = world.device, len(s)
    t = torch.rand(n, 1, device=d)
    slot = (torch.rand(n, device=d) * s.present.sum(1)).long().clamp(max=2)
    at = world.positions(s, t)[:, 0].gather(1, slot[:, None, None].expand(-1, 1, 2))[:, 0]
    near = at - 0.25 + (torch.rand(n, 2, device=d) - 0.5) * 0.3
    corner = torch.where(
        torch.rand(n, 1, device=d) < 0.25, torch.rand(n, 2, device=d) * 0.5, near.clamp(0, 0.5)
    )
    return world.render(s, t, CROP, (corner * 256).round() / 256)[:, 0]


@torch.no_grad()
def evaluate(
    vae, world: World, photos: list[torch.Tensor] | None, out: Path | None, n: int = 64
) -> dict[str, float]:
    """Round trips of n held-out renders and of photographs (each (3, 256, 256) in [-1, 1])."""
    torch.manual_seed(10_001)
    s = world.sample(n)
    t = torch.rand(n, 1, device=world.device)

    def trip(x):
        return torch.cat([vae.decoder(vae.encoder(c)).clamp(-1, 1) for c in x.split(16)])

    x = torch.cat([world.render(s[i : i + 1], t[i : i + 1])[:, 0] for i in range(n)])
    z, y = torch.cat([vae.encoder(c) for c in x.split(16)]), trip(x)
    result = {
        "render_psnr": psnr(x, y),
        "latent_mean": float(z.mean()),
        "latent_std": float(z.std()),
        "latent_max": float(z.abs().max()),
    }
    if out and n >= 12:
        save_grid(torch.stack([x[:6], y[:6], x[6:12], y[6:12]]), out / "vae_renders.png")
    if photos:
        x = torch.stack(photos).to(world.device)
        y = trip(x)
        result |= {
            "photo_psnr": psnr(x, y),
            **{f"photo_{i}": psnr(x[i : i + 1], y[i : i + 1]) for i in range(len(x))},
        }
        if out:
            save_grid(torch.stack([x[:6], y[:6]]), out / "vae_photos.png")
    return result


def train(
    folder: str | Path,
    out: str | Path,
    seconds: float,
    photos: str | None = None,
    batch: int = 128,
    max_steps: int | None = None,
    lr: float = 1.5e-3,
    decoder_only: bool = False,
    held_out: int = 64,
) -> dict[str, float]:
    """Trains vae/ for `seconds`, from what `folder` holds or anew, and writes it there (fp16).

    `decoder_only` leaves the encoder, and so every latent that the diffusion network knows, as it
    is. Pictures of round trips go to `out`, figures are returned.
    """
    from diffusers import AutoencoderTiny

    ranks, folder, out = Ranks(), Path(folder), Path(out)
    torch.manual_seed(100 + ranks.rank)
    world = World(ranks.device)
    world.draw = ranks.compile(world._draw)
    shots = load_photos(photos, ranks.device)
    vae = (
        AutoencoderTiny.from_pretrained(folder / "vae", torch_dtype=torch.float32)
        if (folder / "vae").exists()
        else make_vae()
    )
    vae = vae.to(ranks.device).to(memory_format=torch.channels_last)
    vae.encoder.requires_grad_(not decoder_only)
    params = [p for p in vae.parameters() if p.requires_grad]
    trainer = Trainer(params, ranks, lr, betas=(0.9, 0.99), weight_decay=1e-3, decay=0.998)
    encode, decode = ranks.compile(vae.encoder), ranks.compile(vae.decoder)
    n_photos = batch * 5 // 16 if shots is not None else 0
    n = batch - n_photos
    scenes, turn = world.sample(8 * n), torch.zeros((), device=ranks.device, dtype=torch.long)

    def gradient():
        with torch.no_grad():
            x = rendered(world, scenes[torch.arange(n, device=ranks.device) + turn * n])
            turn.add_(1).remainder_(8)
            if n_photos:
                x = torch.cat([x, crops(shots, n_photos)])
            x = x.contiguous(memory_format=torch.channels_last)
        with ranks.autocast():
            z = encode(x)
            noise = torch.rand(batch, 1, 1, 1, device=x.device) * 0.05
            y = decode(z + torch.randn_like(z) * noise)
        y, z = y.float(), z.float()
        # standard normal latents: no scale need be folded in (the decoder begins with tanh)
        loss = pixel_loss(y - x) + 0.02 * (
            z.mean((0, 2, 3)).pow(2).mean()
            + (z.std((0, 2, 3)) - 1).pow(2).mean()
            + (z.abs() - 2.5).clamp(min=0).pow(2).mean()
        )
        trainer.backward(loss)
        return x, y.detach(), z.detach(), loss.detach()

    gradient = ranks.replay(gradient)
    clock, more = Clock(ranks, seconds, max_steps=max_steps), True
    while more:
        if clock.n % 8 == 7:
            scenes.become(world.sample(8 * n))
        x, y, z, loss = gradient()
        trainer.step(clock.share, 200)
        more = clock.tick()
        if clock.n % 400 == 1:
            ranks.say(
                "vae",
                clock.n,
                f"{clock.elapsed:.0f} s",
                f"loss {float(loss):.4f} renders {psnr(x[:n], y[:n]):.2f} dB",
                f"photos {psnr(x[n:], y[n:]):.2f} dB" if n_photos else "",
                f"std {float(z.std()):.3f}",
            )
    trainer.push(trainer.ema)
    result = {}
    if ranks.first:
        vae.half().save_pretrained(folder / "vae")
        vae.float().eval()
        world.draw = world._draw
        held = (
            [
                torch.tensor(
                    np.asarray(Image.open(f).convert("RGB").resize((256, 256), Image.LANCZOS))
                ).permute(2, 0, 1)
                / 127.5
                - 1
                for f in sorted(Path(photos, "held_out").glob("*"))
            ]
            if photos
            else None
        )
        result = {"steps": clock.n, **evaluate(vae, world, held, out, held_out)}
        ranks.say("vae", result)
    return result
