"""P_img, the first half of Eq. 1: text to picture, picture to picture, and the regional edit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from .blend import noised
from .models.protocol import Condition, Prediction, VideoModel
from .models.sampling import levels, scheduler_step
from .trace import Record


@dataclass
class ImageStep:
    """One step of P_img. `step["x0"]`, `step["eps_uncond"]` ... as in a `Record` of a trace."""

    record: Record
    z: Tensor  # (1, C, h, w) after this step
    num_steps: int
    finish: Callable[[Tensor], Image.Image] | None = None  # latent to picture, with its composite

    def __getitem__(self, name: str):
        return self.record[name]

    @property
    def index(self) -> int:
        return self.record.index

    @property
    def picture(self) -> Image.Image:
        """The latent after this step, decoded: after the last step, the result."""
        return self.finish(self.z)

    def preview(self) -> Image.Image:
        """The clean picture as it is foreseen at this step."""
        return self.finish(self.record["x0"])


def first_step(num_inference_steps: int, strength: float) -> int:
    """Where SDEdit begins: strength 1 at step 0, strength 0 after the last."""
    return num_inference_steps - min(int(num_inference_steps * strength), num_inference_steps)


def denoise_image(
    model: VideoModel,
    condition: Condition,
    noise: Tensor,
    num_inference_steps: int,
    z0: Tensor | None = None,
    strength: float = 1.0,
    original: Tensor | None = None,
    mask: Tensor | None = None,
    seed: int = 0,
) -> Iterator[ImageStep]:
    """Yields once per step; the last step's `z` is the picture's latent.

    noise: eps, (1, C, h, w).
    z0: latent to begin from (SDEdit): it is noised to the step that `strength` in [0, 1] tells.
    original, mask: regional edit. After each step the noised `original` is put back where
        `mask` (1, 1, h, w) in [0, 1] is 0.
    """
    given = (noise, z0, original, mask)
    noise, z0, original, mask = (x if x is None else x.to(model.device, torch.float32)
                                 for x in given)  # fmt: skip
    scheduler = model.scheduler(num_inference_steps, "image")
    start = 0 if z0 is None else first_step(num_inference_steps, strength) * scheduler.order
    timesteps = scheduler.timesteps[start:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    if z0 is None:
        z = noise * scheduler.init_noise_sigma
    elif len(timesteps):
        z = noised(scheduler, z0, noise, timesteps[0])
    for i, t in enumerate(timesteps):
        out: Prediction = model.predict_image(scheduler.scale_model_input(z, t), t, condition)
        signal, sigma, kind = levels(scheduler, t, start + i)
        tensors = {"z_t": z, "out_cond": out.cond, "out_hat": out.guided}
        tensors |= {} if out.uncond is None else {"out_uncond": out.uncond}
        tensors = {name: value.cpu() for name, value in tensors.items()}
        tensors["z_edit"], lam = tensors["z_t"], torch.ones(1, 1, 1, 1)
        record = Record(start + i, float(t), signal, sigma, kind, lam, tensors, out.scale)
        z = scheduler_step(scheduler, out.guided, t, z, start + i, seed)
        if mask is not None:
            last = i + 1 == len(timesteps)
            keep = original if last else noised(scheduler, original, noise, timesteps[i + 1])
            z = mask * z + (1 - mask) * keep
        yield ImageStep(record, z.clone(), len(timesteps))
