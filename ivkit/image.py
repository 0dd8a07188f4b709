"""P_img, the first half of Eq. 1: text to picture, picture to picture, and the regional edit.

`PictureJob` is what `pipe.image` is asked for, `denoise_image` the loop. `Brush` is the same in one
step, for which all that does not depend on the stroke is made once: one function from pixels to
pixels of fixed shapes is left, on a CUDA device one graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .blend import noised
from .instructions import PictureSettings, Stroke, Strokes
from .models.protocol import Condition, Prediction, VideoModel, alone
from .models.sampling import levels, scheduler_step
from .models.speed import Graphed
from .paint import composite, edit_region, latent_mask, paint_over, rasterise
from .pictures import Picture, as_bytes, as_floats, fit, to_pictures, to_pixels
from .support.validate import Number, Seed, Sentence, checked
from .trace import Record

Strength = Annotated[float, Number(0, 1, above=True)]


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
    noise, z0, original, mask = (
        x if x is None else x.to(model.device, torch.float32) for x in given
    )
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


@dataclass
class PictureJob:
    """One picture to make.

    Attributes:
        settings: resolved ones.
        original: x, which is kept outside the region; None where the picture begins from noise.
        strokes, mask: as for `Pipeline.denoise_image`.
        painted: x with the strokes on it, which P_img begins from; the same where there are none.
        region: the edit mask, float32 (H, W) in [0, 1]; None where all may change.
    """

    model: VideoModel
    prompt: str
    settings: PictureSettings
    original: Image.Image | None = None
    strokes: Sequence[Stroke] = ()
    mask: np.ndarray | None = None
    painted: Image.Image | None = field(default=None, init=False)
    region: np.ndarray | None = field(default=None, init=False)

    def __post_init__(self):
        s, mask, marked = self.settings, self.mask, bool(self.strokes) or self.mask is not None
        if self.original is None:
            if marked:
                raise ValueError("strokes and mask need a picture: say which one they are on")
            return
        self.original = self.painted = picture = fit(self.original, s.size, marked)
        if self.strokes:
            self.painted, alpha = rasterise(picture, self.strokes)
            cell = self.model.vae_scale_factor
            self.region = edit_region(self.strokes, alpha, s.grow, cell, s.feather)
        if mask is not None:
            if mask.shape != picture.size[::-1]:
                shape = picture.size[::-1]
                raise ValueError(f"mask must have the picture's {shape}, got {mask.shape}")
            if not mask.any():
                raise ValueError("mask must not be empty")
            self.region = mask.astype(np.float32)

    def steps(self) -> Iterator[ImageStep]:
        """The steps of P_img; none where strength 0 takes the painted picture as it is."""
        s, model, painted = self.settings, self.model, self.painted
        count = s.num_inference_steps
        if painted is not None and first_step(count, s.strength) == count:
            return
        generator = torch.Generator().manual_seed(s.seed)
        z0 = keep = mask = None
        if painted is not None:
            z0 = model.encode(to_pixels(painted), s.posterior, generator)
        noise = model.image_noise(s.size, generator)
        if self.region is not None:
            keep = model.encode(to_pixels(self.original), s.posterior, generator)
            mask = torch.from_numpy(latent_mask(self.region, model.vae_scale_factor))
        condition = model.image_condition(self.prompt, s.negative_prompt, s.guidance_scale)
        start = {"z0": z0, "strength": s.strength, "original": keep, "mask": mask}
        for step in denoise_image(model, condition, noise, count, **start, seed=s.seed):
            step.finish = self.finish
            yield step

    def finish(self, z: Tensor) -> Image.Image:
        """A latent (1, C, h, w) decoded, with the original outside the region."""
        drawn = to_pictures(self.model.hide_unsafe(self.model.decode(z)))[0]
        return drawn if self.region is None else composite(self.original, drawn, self.region)


class Brush:
    """`brush(strokes)` draws on `picture` and redraws the whole in one evaluation of the network.

        brush = pipe.brush("a sun over the sea", picture)
        picture = brush([ivkit.Stroke(points)])   # PIL RGB; brush.seconds: how long it took

    strength: in (0, 1], how far the result may depart from what is painted: the noise level of the
        one step, the nearest of 1, 1/2, 1/3 and so on. Guidance is off. `taesd` codes the pictures
        where the model has it, which is what makes the brush fast.
    """

    @checked
    def __init__(
        self, model: Any, prompt: Sentence, picture: Picture, strength: Strength, seed: Seed = 0
    ):
        self.model, self.picture = model, picture
        self.seconds = 0.0
        model, device = self.model, self.model.device
        self.scheduler = model.scheduler(max(1, round(1 / strength)), "image")
        alphas = self.scheduler.alphas_cumprod.to(device)
        self.t = self.scheduler.timesteps[-1 if strength < 1 else 0].long().to(device)
        self.signal, self.noise_level = alphas[self.t] ** 0.5, (1 - alphas[self.t]) ** 0.5
        self.kind = self.scheduler.config.prediction_type
        self.condition = model.image_condition(model.check_text(prompt, "prompt"), "", 1.0)
        self.eps = model.image_noise(picture.size, torch.Generator().manual_seed(seed))
        self._steps = Graphed(self._draw) if device.type == "cuda" else self._draw
        self()  # what is made at the first use is made now

    @checked
    def __call__(self, strokes: Strokes = ()) -> Image.Image:
        """The picture with the strokes, redrawn; PIL RGB of the picture's size."""
        begun = time.perf_counter()
        painted, _ = paint_over(np.asarray(self.picture), strokes)
        drawn = Image.fromarray(self.draw(torch.from_numpy(painted)).cpu().numpy())
        self.seconds = time.perf_counter() - begun
        return drawn

    @alone
    @torch.no_grad()
    def draw(self, painted: Tensor) -> Tensor:
        """uint8 (H, W, 3) to the same, on the model's device."""
        return self._steps(painted.to(self.model.device))

    def _draw(self, painted: Tensor) -> Tensor:
        model = self.model
        z0 = self._encode(as_floats(painted[None]))
        z = self.signal * z0 + self.noise_level * self.eps  # Eq. 2, whatever the scheduler
        out = model.predict_image(z, self.t, self.condition).guided
        if self.kind == "v_prediction":
            x0 = self.signal * z - self.noise_level * out
        else:
            x0 = (z - self.noise_level * out) / self.signal
        return as_bytes(self._decode(x0))[0].contiguous()

    def _encode(self, pixels: Tensor) -> Tensor:
        tiny = self.model.taesd
        if tiny is None:
            return self.model.encode.__wrapped__(self.model, pixels)  # nothing to keep here
        return tiny.encode(pixels.to(tiny.dtype)).latents.float()

    def _decode(self, z: Tensor) -> Tensor:
        tiny = self.model.taesd
        if tiny is None:
            return self.model.decode(z)
        return tiny.decode(z.to(tiny.dtype)).sample.float().clamp(-1, 1)
