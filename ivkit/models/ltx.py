"""LTX-Video: the first latent frame is the picture's and its tokens have timestep zero.

One latent frame for eight frames, one cell for 32 pixels; the transformer reads tokens.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .common import Branch, Family
from .wan import to_given

PARTS = {
    "transformer": "diffusers.LTXVideoTransformer3DModel",
    "vae": "diffusers.AutoencoderKLLTXVideo",
    "text_encoder": "transformers.T5EncoderModel",
    "tokenizer": "transformers.AutoTokenizer",
    "scheduler": "diffusers.FlowMatchEulerDiscreteScheduler",
}


@dataclass
class LTXModel(Family):
    """fps: frames per second that the clip is thought to have."""

    fps: int = 25

    SIZE = (704, 512)
    FRAMES = 121
    VIDEO = {
        "num_inference_steps": 50,
        "guidance_scale": 3.0,
        "motion_scale": None,
        "negative_prompt": "worst quality, inconsistent motion, blurry, jittery, distorted",
    }
    max_tokens = 128
    per_frame, whole_clip = False, True

    def layout(self) -> None:
        vae, net = self.parts["vae"], self.parts["transformer"].config
        if net.patch_size != 1 or net.patch_size_t != 1:
            raise ValueError(f"{self.name} has patches of its own; LTX-Video takes cells as tokens")
        self.vae_scale_factor, self.stride = (
            vae.spatial_compression_ratio,
            vae.temporal_compression_ratio,
        )
        self.multiple, self.channels = self.vae_scale_factor, net.in_channels

    def scheduler(self, num_inference_steps: int, kind: str = "video", shape=None):
        """shape: (F, C, h, w); more tokens shift the steps towards more noise."""
        scheduler = copy.deepcopy(self.schedulers["video"])
        c = scheduler.config
        if num_inference_steps < 2 and c.get("shift_terminal"):
            raise ValueError(
                f"num_inference_steps must be at least 2 for {self.name}, which stretches steps "
                f"between the first and the last, got {num_inference_steps}"
            )
        w, h = (side // self.vae_scale_factor for side in self.size)
        tokens = h * w * self.latent_frames(self.num_frames)
        tokens = tokens if shape is None else shape[0] * shape[2] * shape[3]
        small, large = c.get("base_image_seq_len", 256), c.get("max_image_seq_len", 4096)
        low, high = c.get("base_shift", 0.5), c.get("max_shift", 1.15)
        mu = low + (high - low) * (tokens - small) / (large - small)
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
        scheduler.set_timesteps(sigmas=sigmas, mu=mu, device=self.device)
        return scheduler

    @property
    def latent_scale(self):
        vae = self.vae
        return vae.latents_mean, vae.latents_std, vae.config.scaling_factor

    def decode_latents(self, z: Tensor) -> Tensor:
        vae = self.part("vae")
        clean = z.new_zeros(1, dtype=vae.dtype) if vae.config.timestep_conditioning else None
        return vae.decode(z.to(vae.dtype), clean, return_dict=False)[0]

    def rows(self, branch: Branch) -> dict[str, Tensor]:
        """One picture for the whole clip: of a warped clip, its first frame."""
        embed, mask = self.text_rows(branch)
        given = self.encode(branch.pixels[:1], branch.posterior, branch.generator)[None]
        return {"text": embed.to(self.parts["transformer"].dtype), "mask": mask, "given": given}

    def network(self, z: Tensor, t: Tensor, *, text, mask, given) -> Tensor:
        net, vae = self.part("transformer"), self.parts["vae"]
        n, frames, _, h, w = z.shape
        tokens = torch.cat([given, z[:, 1:]], 1).permute(0, 1, 3, 4, 2).flatten(1, 3)
        time = t * torch.ones(n, tokens.shape[1], device=z.device)
        time[:, : h * w] = 0
        pace = vae.temporal_compression_ratio / self.fps
        out = net(
            hidden_states=tokens.to(net.dtype),
            encoder_hidden_states=text,
            timestep=time,
            encoder_attention_mask=mask.bool(),
            num_frames=frames,
            height=h,
            width=w,
            rope_interpolation_scale=(pace, self.vae_scale_factor, self.vae_scale_factor),
            return_dict=False,
        )[0]
        out = out.unflatten(1, (frames, h, w)).permute(0, 1, 4, 2, 3)
        return to_given(z, out, given, t, self.parts["scheduler"])


FAMILY = LTXModel
