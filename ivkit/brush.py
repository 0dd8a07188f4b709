"""A real-time brush: stroke in, picture out, by one step of a picture model (SD-Turbo's layout).

All that does not depend on the stroke is made once: the text's embedding, the noise, its level.
What is left is one function from pixels to pixels of fixed shapes, on a CUDA device one graph.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .instructions import Strokes
from .models.protocol import alone
from .models.speed import Graphed
from .paint import paint_over
from .pictures import Picture
from .pixels import as_bytes, as_floats
from .support.validate import Number, Seed, Sentence, checked

Strength = Annotated[float, Number(0, 1, above=True)]


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
        painted = np.array(self.picture)
        if strokes:
            paint_over(painted, strokes)
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
