"""Wan: image to video in one latent frame for four frames.

Two layouts, told apart by the transformer's width. Wan 2.1 and 2.2 I2V 14B concatenate
cat(z_t [16], mask [4], condition latents [16]) on channels; 2.1 also takes CLIP's embedding of the
picture, 2.2 has a second transformer for the steps of little noise. Wan 2.2 TI2V-5B replaces the
first latent frame by the picture's and gives its tokens timestep zero.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

import torch
from torch import Tensor

from .common import Branch, Family, computing, pil
from .table import WAN_NEGATIVE

PARTS = {
    "transformer": "diffusers.WanTransformer3DModel",
    "transformer_2": "diffusers.WanTransformer3DModel?",
    "vae": "diffusers.AutoencoderKLWan",
    "text_encoder": "transformers.UMT5EncoderModel",
    "tokenizer": "transformers.AutoTokenizer",
    "image_encoder": "transformers.CLIPVisionModel?",
    "image_processor": "transformers.CLIPImageProcessor?",
    "scheduler": "diffusers.UniPCMultistepScheduler",
}


@dataclass
class WanModel(Family):
    """boundary: share of the timesteps below which `transformer_2` takes over, where there is one.

    replaces: the first latent frame is the condition (TI2V-5B); None: told by the transformer.
    flow_shift: of the scheduler; None: as the checkpoint's own has it.
    """

    boundary: float = 0.9
    replaces: bool | None = None
    flow_shift: float | None = None

    SIZE = (832, 480)
    FRAMES = 81
    VIDEO = {
        "num_inference_steps": 40,
        "guidance_scale": 5.0,
        "motion_scale": None,
        "negative_prompt": WAN_NEGATIVE,
    }
    max_tokens = 512
    mask_text = whole_clip = True
    float_parts = ("vae", "image_encoder")

    def layout(self) -> None:
        vae, net = self.parts["vae"].config, self.parts["transformer"].config
        self.vae_scale_factor, self.stride = vae.scale_factor_spatial, vae.scale_factor_temporal
        self.multiple = self.vae_scale_factor * net.patch_size[1]
        self.channels = vae.z_dim
        if self.replaces is None:
            self.replaces = net.in_channels == vae.z_dim
        if not self.replaces and net.in_channels != 2 * vae.z_dim + self.stride:
            raise ValueError(
                f"{self.name} takes {net.in_channels} channels: this Wan makes clips from text "
                "alone, or is of another layout; an I2V or TI2V checkpoint is needed"
            )
        self.per_frame = not self.replaces
        if self.flow_shift is not None:
            own = self.parts["scheduler"]
            made = type(own).from_config(own.config, flow_shift=self.flow_shift)
            self.parts = {**self.parts, "scheduler": made}

    def clean(self, text: str) -> str:
        return " ".join(html.unescape(html.unescape(text)).split())

    @property
    def latent_scale(self):
        return self.vae.config.latents_mean, self.vae.config.latents_std, 1.0

    def rows(self, branch: Branch) -> dict[str, Tensor]:
        """The autoencoder's mode, as the stock pipeline takes it, whatever `posterior` says."""
        dtype, pixels = self.parts["transformer"].dtype, branch.pixels
        rows = {"text": self.text_rows(branch)[0].to(dtype)}
        if self.parts["transformer"].config.image_dim is not None:
            look, encoder = self.parts["image_processor"], self.part("image_encoder")
            seen = look(images=pil(pixels[:1]), return_tensors="pt").pixel_values
            with computing(self.device, self.dtype):
                seen = encoder(seen.to(self.device, encoder.dtype), output_hidden_states=True)
            rows["picture"] = seen.hidden_states[-2].to(dtype)
        if self.replaces:
            rows["given"] = self.encode(pixels[:1])[None]
        else:
            rows["given"] = self._concatenated(pixels, branch.num_frames)[None]
        return rows

    def _concatenated(self, pixels: Tensor, num_frames: int) -> Tensor:
        """Mask and condition latents, (F, 4 + C, h, w): the picture, and then grey.

        Where a warped clip departs from its first frame its own latents take grey's place, as
        Wan-Move carries the first frame's features along tracks; the mask stays the picture's.
        """
        grey = pixels.new_zeros(num_frames - 1, *pixels.shape[1:])
        z = self.encode(torch.cat([pixels[:1], grey]))
        z = self.where_moved(z, pixels)
        mask = z.new_zeros(len(z), self.stride, *z.shape[-2:])
        mask[0] = 1
        return torch.cat([mask, z], 1)

    def network(self, z: Tensor, t: Tensor, *, text, given, picture=None) -> Tensor:
        low = self.parts.get("transformer_2") is not None
        low = low and t < self.boundary * self.parts["scheduler"].config.num_train_timesteps
        net = self.part("transformer_2" if low else "transformer")
        if self.replaces:
            seen = torch.cat([given, z[:, 1:]], 1)
            time = t * torch.ones(z.shape[1], z.shape[3] // 2, z.shape[4] // 2, device=z.device)
            time[0] = 0
            time = time.flatten().expand(len(z), -1)
        else:
            seen, time = torch.cat([z, given], 2), t.expand(len(z))
        out = net(
            hidden_states=seen.transpose(1, 2).to(net.dtype),
            timestep=time,
            encoder_hidden_states=text,
            encoder_hidden_states_image=picture,
            return_dict=False,
        )[0].transpose(1, 2)
        return to_given(z, out, given, t, self.parts["scheduler"]) if self.replaces else out


def to_given(z: Tensor, out: Tensor, given: Tensor, t: Tensor, scheduler) -> Tensor:
    """`out` with the velocity of the first latent frame that leads straight to the condition."""
    sigma = (t / scheduler.config.num_train_timesteps).clamp(min=1e-3)
    return torch.cat([(z[:, :1] - given) / sigma, out[:, 1:].float()], 1)


FAMILY = WanModel
