"""Stage 1: the autoencoder, on crops of renders and of photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...support.disk import whole_folder
from ..networks import load_vae, make
from ..world import Scenes, World
from .common import Clock, Stage, Trainer, learn, pixel_loss, psnr, save_grid

CROP = 128


def load_photos(folder: str | None, device, held_out: bool = False) -> torch.Tensor | None:
    """Photographs as uint8, None where there are none.

    A folder's *.jpg, of at least 192 px, give a corner each, (N, 3, 192, 192), 4000 at the most;
    what is in its held_out/ is taken whole, (N, 3, 256, 256).
    """
    if not folder:
        return None
    shots = []
    for file in sorted(Path(folder).glob("held_out/*" if held_out else "*.jpg"))[:4000]:
        shot = Image.open(file).convert("RGB")
        shot = shot.resize((256, 256), Image.LANCZOS) if held_out else shot.crop((0, 0, 192, 192))
        shots.append(np.asarray(shot))
    shots = torch.tensor(np.stack(shots), device=device) if shots else None
    return shots if shots is None else shots.permute(0, 3, 1, 2).contiguous()


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
    encode,
    decode,
    world: World,
    photos: torch.Tensor | None = None,
    out: Path | None = None,
    n: int = 64,
) -> dict[str, float]:
    """Round trips of n held-out renders and of photographs (P, 3, 256, 256) in [-1, 1].

    encode, decode: pictures to latents and back. Some of both go to `out` as pictures.
    """
    torch.manual_seed(10_001)
    s = world.sample(n)
    x = world.stills(s, torch.rand(n, 1, device=world.device))
    z = torch.cat([encode(c) for c in x.split(16)])
    y = torch.cat([decode(c) for c in z.split(16)]).clamp(-1, 1)
    result = {
        "render_psnr": float(psnr(x, y).mean()),
        "latent_mean": float(z.mean()),
        "latent_std": float(z.std()),
        "latent_max": float(z.abs().max()),
    }
    if out and n >= 12:
        save_grid(torch.stack([x[:6], y[:6], x[6:12], y[6:12]]), out / "vae_renders.png")
    if photos is not None:
        back = torch.cat([decode(encode(c)) for c in photos.split(16)]).clamp(-1, 1)
        found = psnr(photos, back).tolist()
        result["photo_psnr"] = sum(found) / len(found)
        result |= {f"photo_{i}": value for i, value in enumerate(found)}
        if out:
            save_grid(torch.stack([photos[:6], back[:6]]), out / "vae_photos.png")
    return result


class Crops:
    """Crops of renders, n at a time; eight times as many scenes are drawn at once."""

    def __init__(self, world: World, n: int):
        self.world, self.n = world, n
        self.scenes = world.sample(8 * n)
        self.turn = torch.zeros((), device=world.device, dtype=torch.long)  # see Ranks.replay

    def renewed(self, clock: Clock, gradient):
        """`gradient`, before which new scenes are drawn every eighth time."""

        def step():
            if clock.n % 8 == 7:
                self.scenes.become(self.world.sample(8 * self.n))
            return gradient()

        return step

    def next(self) -> torch.Tensor:
        rows = torch.arange(self.n, device=self.turn.device) + self.turn * self.n
        x = rendered(self.world, self.scenes[rows])
        self.turn.add_(1).remainder_(8)
        return x


def train(
    stage: Stage,
    photos: str | None = None,
    batch: int = 128,
    lr: float = 1.5e-3,
    decoder_only: bool = False,
    held_out: int = 64,
) -> dict[str, Any]:
    """Trains vae/, from what the folder holds or anew, and writes it there (fp16).

    `decoder_only` leaves the encoder, and so every latent that the diffusion network knows, as it
    is. Pictures of round trips go to the stage's `out`, figures are returned.
    """
    from diffusers import AutoencoderTiny

    ranks, folder = stage.ranks, stage.folder
    torch.manual_seed(100 + ranks.rank)
    world, shots = ranks.world(), load_photos(photos, ranks.device)
    vae = load_vae(folder) if (folder / "vae").exists() else make(AutoencoderTiny, "vae")
    vae = vae.to(ranks.device).to(memory_format=torch.channels_last).requires_grad_(True)
    vae.encoder.requires_grad_(not decoder_only)
    params = [p for p in vae.parameters() if p.requires_grad]
    trainer = Trainer(params, ranks, lr, betas=(0.9, 0.99), weight_decay=1e-3, decay=0.998)
    encode, decode = ranks.compile(vae.encoder), ranks.compile(vae.decoder)
    n_photos = batch * 5 // 16 if shots is not None else 0
    n = batch - n_photos
    data = Crops(world, n)

    def gradient():
        with torch.no_grad():
            x = data.next()
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
        db = psnr(x, y.detach())
        kinds = [db[:n].mean(), db[n:].mean()] if n_photos else [db.mean()]
        return torch.stack([loss.detach(), *kinds, z.detach().std()])

    def save():
        fresh = make(AutoencoderTiny, "vae").half()  # whose configuration names no folder
        fresh.load_state_dict(vae.state_dict())
        with whole_folder(folder / "vae", new=False) as part:
            fresh.save_pretrained(part)

    names = ["loss", "renders' dB", *["photos' dB"] * bool(n_photos), "latents' std"]
    gradient, clock = ranks.replay(gradient), stage.clock()
    step = data.renewed(clock, gradient)
    result = learn("vae", trainer, clock, step, names, 400, save, warm_up=200)
    if ranks.first:
        vae = load_vae(folder, ranks.device)
        held = load_photos(photos, ranks.device, held_out=True)
        held = held if held is None else held / 127.5 - 1
        world = World(ranks.device)
        result |= evaluate(vae.encoder, vae.decoder, world, held, stage.out, held_out)
        ranks.say("vae", {k: v for k, v in result.items() if k != "losses"})
    return result
