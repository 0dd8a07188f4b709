"""What `pipe.image` is asked for, ready for P_img: the picture to begin with and the edit mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .image import ImageStep, denoise_image, first_step
from .instructions import Stroke
from .models.protocol import VideoModel
from .paint import composite, edit_region, latent_mask, rasterise
from .pixels import fit, to_pictures, to_pixels
from .settings import PictureSettings
from .support.validate import as_array


@dataclass
class PictureJob:
    """One picture to make.

    Attributes:
        original: x, which is kept outside the region; None where the picture begins from noise.
        painted: x with the strokes on it, which P_img begins from; the same where there are none.
        region: the edit mask, float32 (H, W) in [0, 1]; None where all may change.
    """

    model: VideoModel
    prompt: str
    settings: PictureSettings
    original: Image.Image | None = None
    painted: Image.Image | None = None
    region: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        model: VideoModel,
        prompt: str,
        settings: PictureSettings,
        picture=None,
        strokes: Sequence[Stroke] = (),
        mask: np.ndarray | None = None,
    ) -> PictureJob:
        """Checked; `settings` are resolved ones, the rest as for `Pipeline.denoise_image`."""
        s, marked = settings, bool(strokes) or mask is not None
        if picture is None and marked:
            raise ValueError("strokes and mask need a picture: say which one they are on")
        if picture is None:
            return cls(model, prompt, s)
        original = painted = fit(picture, s.size, marked)
        region = None
        if strokes:
            painted, alpha = rasterise(original, strokes)
            region = edit_region(strokes, alpha, s.grow, model.cell, s.feather)
        if mask is not None:
            region = _checked(mask, original)
        return cls(model, prompt, s, original, painted, region)

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
            mask = torch.from_numpy(latent_mask(self.region, model.cell))
        condition = model.image_condition(self.prompt, s.negative, s.guidance_scale)
        start = {"z0": z0, "strength": s.strength, "original": keep, "mask": mask}
        for step in denoise_image(model, condition, noise, count, **start, seed=s.seed):
            step.finish = self.finish
            yield step

    def finish(self, z: Tensor) -> Image.Image:
        """A latent (1, C, h, w) decoded, with the original outside the region."""
        pixels = self.model.decode(z)
        if hasattr(self.model, "hide_unsafe"):
            pixels = self.model.hide_unsafe(pixels)
        drawn = to_pictures(pixels)[0]
        return drawn if self.region is None else composite(self.original, drawn, self.region)


def _checked(mask, picture: Image.Image) -> np.ndarray:
    mask = as_array(mask).astype(np.float32)
    if mask.shape != picture.size[::-1]:
        raise ValueError(f"mask must have the picture's {picture.size[::-1]}, got {mask.shape}")
    if not (np.isfinite(mask).all() and 0 <= mask.min() and 0 < mask.max() <= 1):
        raise ValueError("mask must hold values in [0, 1] and must not be empty")
    return mask
