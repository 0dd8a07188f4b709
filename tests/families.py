"""Small models of the further families: random weights in the real classes, and their stock pipes.

families.FAMILIES["svd"].model()      ours
families.FAMILIES["svd"].stock(...)   latents of diffusers' own pipeline, (F, C, h, w)
"""

import functools
from dataclasses import dataclass, field

import diffusers
import numpy as np
import torch
from PIL import Image

from ivkit.models import cogvideox, i2vgenxl, ltx, small, svd, wan

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


@dataclass
class Tiny:
    """One family: how its parts are made, how its stock pipeline is called."""

    cls: type
    layout: str  # of `small`
    size: tuple[int, int]
    num_frames: int
    pipeline: str
    guidance: str = "guidance_scale"
    frames_first: bool = False  # whether the stock latents are (1, F, C, h, w)
    stock_options: dict = field(default_factory=dict)
    pipe_options: dict = field(default_factory=dict)
    text: bool = True
    own: dict = field(default_factory=dict)

    def parts(self):
        return small.parts(self.layout)

    @functools.cached_property
    def made(self):
        return self.cls(
            "tiny", self.parts(), size=self.size, num_frames=self.num_frames, **self.own, **CPU
        )

    def model(self):
        return self.made

    def picture(self, seed=0):
        noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
        return Image.fromarray(noise).resize(self.size, Image.Resampling.BILINEAR)

    def stock(self, run, picture, motion, steps, guidance, seed=None):
        """Latents (F, C, h, w) of the stock pipeline, begun where `run` was, or from a seed."""
        parts = {k: v for k, v in self.parts().items()}
        if self.cls is i2vgenxl.I2VGenXLModel:  # where newer transformers have no inner model
            parts["text_encoder"].__dict__.setdefault("text_model", parts["text_encoder"])
        pipe = getattr(diffusers, self.pipeline)(**parts, **self.pipe_options)
        pipe.set_progress_bar_config(disable=True)
        eps = run.state.reference.eps
        latents = (eps if self.frames_first else eps.transpose(0, 1))[None]
        if self.cls is ltx.LTXModel:  # tokens, the first frame already replaced
            z = eps.clone()
            z[:1] = self.model().encode(pixels(picture), "sample", drawn(run))
            latents = z.permute(0, 2, 3, 1).flatten(0, 2)[None]
        generator = drawn(run)
        if seed is not None:
            latents, generator = None, torch.Generator().manual_seed(seed)
        against = self.model().defaults["video"].get("negative_prompt")
        options = {"prompt": motion, "negative_prompt": against} if self.text else {}
        torch.random.set_rng_state(run.rng_state)  # one stock pipeline draws from torch's own
        out = pipe(
            image=picture,
            height=self.size[1],
            width=self.size[0],
            num_frames=self.num_frames,
            num_inference_steps=steps,
            latents=latents,
            generator=generator,
            output_type="latent",
            **options,
            **self.stock_options,
            **{self.guidance: guidance},
        ).frames
        if self.cls is ltx.LTXModel:
            f, _, h, w = eps.shape
            return out[0].unflatten(0, (f, h, w)).permute(0, 3, 1, 2)
        return out[0] if self.frames_first else out[0].transpose(0, 1)


def drawn(run):
    generator = torch.Generator()
    generator.set_state(run.rng_state)
    return generator


def pixels(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1


FAMILIES = {
    "svd": Tiny(svd.SVDModel, "svd", (64, 64), 4, "StableVideoDiffusionPipeline",
                guidance="max_guidance_scale", frames_first=True, text=False),
    "wan-2.1": Tiny(wan.WanModel, "wan-2.1", (32, 16), 9,
                    "WanImageToVideoPipeline"),
    "wan-2.2": Tiny(wan.WanModel, "wan-2.2", (32, 16), 9,
                    "WanImageToVideoPipeline", pipe_options={"boundary_ratio": 0.9}),
    "wan-ti2v": Tiny(wan.WanModel, "wan-2.2-ti2v", (64, 32), 9,
                     "WanImageToVideoPipeline", pipe_options={"expand_timesteps": True}),
    "cogvideox": Tiny(cogvideox.CogVideoXModel, "cogvideox", (64, 48), 9,
                      "CogVideoXImageToVideoPipeline", frames_first=True),
    "ltx": Tiny(ltx.LTXModel, "ltx", (128, 64), 9, "LTXImageToVideoPipeline"),
    "i2vgenxl": Tiny(i2vgenxl.I2VGenXLModel, "i2vgenxl", (64, 64), 4, "I2VGenXLPipeline"),
}  # fmt: skip
NAMES = list(FAMILIES)
