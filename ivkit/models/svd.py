"""Stable Video Diffusion: a picture and no text; its latent is concatenated for each frame.

The network sees cat(z_t [4], condition latents [4]) on channels, CLIP's embedding of the picture in
place of a text, and three numbers: frames per second, how much moves, and the condition's noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .common import Branch, Family, cast, computing

PARTS = {
    "unet": "diffusers.UNetSpatioTemporalConditionModel",
    "vae": "diffusers.AutoencoderKLTemporalDecoder",
    "image_encoder": "transformers.CLIPVisionModelWithProjection",
    "feature_extractor": "transformers.CLIPImageProcessor",
    "scheduler": "diffusers.EulerDiscreteScheduler",
}


@dataclass
class SVDModel(Family):
    """`motion_scale` is its motion bucket, 0 (still) to 255. A number as `guidance_scale` rises
    from 1 at the first frame to that number at the last, as the model was made to be used.

    fps: that the clip is thought to have. noise_aug_strength: noise on the condition picture.
    decode_chunk_size: frames decoded together; more of them flicker less and take more memory.
    """

    fps: int = 7
    noise_aug_strength: float = 0.02
    decode_chunk_size: int = 8

    SIZE = (1024, 576)
    FRAMES = 14
    VIDEO = {"num_inference_steps": 25, "guidance_scale": 3.0, "motion_scale": 127}
    motion_scales = range(256)
    frames_first = True

    def encode_pixels(self, pixels: Tensor):
        vae = self.part("vae")
        if vae.dtype != torch.float16 or not vae.config.force_upcast:
            return super().encode_pixels(pixels)
        cast(vae, torch.float32)  # else it overflows
        try:
            return super().encode_pixels(pixels)
        finally:
            cast(vae, torch.float16)

    def decode_latents(self, z: Tensor) -> Tensor:
        vae = self.part("vae")
        return vae.decode(z.to(vae.dtype), num_frames=len(z)).sample

    @torch.no_grad()
    def encode_picture(self, pixels: Tensor) -> Tensor:
        """CLIP's embedding, (1, 1, width), of (1, 3, H, W): blurred, made small, normalised."""
        import cv2

        encoder, look = self.part("image_encoder"), self.parts["feature_extractor"]
        side = encoder.config.image_size
        image = pixels[0].permute(1, 2, 0).float().cpu().numpy()
        sigma = [max((length / side - 1) / 2, 1e-3) for length in image.shape[:2]]
        ky, kx = (int(max(4 * s, 3)) // 2 * 2 + 1 for s in sigma)
        image = cv2.GaussianBlur(image, (kx, ky), sigma[1], sigmaY=sigma[0])  # reflects the border
        image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        image = torch.nn.functional.interpolate(
            image, (side, side), mode="bicubic", align_corners=True
        )
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (look.image_mean, look.image_std))
        image = ((image + 1) / 2 - mean) / std
        with computing(self.device, self.dtype):
            found = encoder(image.to(self.device, encoder.dtype)).image_embeds
        return found[:, None]

    def rows(self, branch: Branch) -> dict[str, Tensor]:
        """CLIP's embedding, the latents of the noised pictures, and three numbers."""
        unet, pixels, scale = self.parts["unet"], branch.pixels, branch.guidance_scale
        embed = self.encode_picture(pixels[:1]).to(unet.dtype)
        noise = torch.randn(1, *pixels.shape[1:], generator=branch.generator)
        latents = self.encode(pixels + self.noise_aug_strength * noise.to(pixels))
        latents = (latents / self.parts["vae"].config.scaling_factor).to(unet.dtype)
        latents = latents.expand(branch.num_frames, -1, -1, -1)[None]
        if not isinstance(scale, Tensor) and scale > 1:
            rising = torch.linspace(1, scale, branch.num_frames, device=self.device)
            branch.guidance_scale = rising.view(-1, 1, 1, 1)
        if branch.guided:
            embed, latents = (torch.cat([torch.zeros_like(v), v]) for v in (embed, latents))
        motion_bucket_id = branch.motion_scale
        numbers = torch.tensor([[self.fps - 1, motion_bucket_id, self.noise_aug_strength]])
        return {"embed": embed, "latents": latents, "numbers": numbers.to(self.device, unet.dtype)}

    def network(self, z: Tensor, t: Tensor, *, embed, latents, numbers) -> Tensor:
        unet = self.part("unet")
        z = torch.cat([z.to(unet.dtype), latents], 2)
        return unet(z, t, encoder_hidden_states=embed, added_time_ids=numbers).sample


FAMILY = SVDModel
