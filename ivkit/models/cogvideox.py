"""CogVideoX-I2V: the picture's latent is concatenated on channels; one latent frame for four.

CogVideoX 1.0 (5B I2V). Version 1.5 pads its latent frames and has one more embedding: not here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .common import Branch, Family

PARTS = {
    "transformer": "diffusers.CogVideoXTransformer3DModel",
    "vae": "diffusers.AutoencoderKLCogVideoX",
    "text_encoder": "transformers.T5EncoderModel",
    "tokenizer": "transformers.AutoTokenizer",
    "scheduler": "diffusers.CogVideoXDDIMScheduler",
}


@dataclass
class CogVideoXModel(Family):
    SIZE = (720, 480)
    FRAMES = 49
    VIDEO = {"num_inference_steps": 50, "guidance_scale": 6.0, "motion_scale": None}
    frames_by = 8  # as it was trained; its autoencoder could do with four
    frames_first = whole_clip = True

    def layout(self) -> None:
        vae, net = self.parts["vae"].config, self.parts["transformer"].config
        if net.patch_size_t is not None:
            raise ValueError(f"{self.name} is CogVideoX 1.5; only the 1.0 layout (5b-I2V) is read")
        if net.in_channels != 2 * vae.latent_channels:
            raise ValueError(
                f"{self.name} takes {net.in_channels} channels: this CogVideoX makes clips from "
                "text alone; an I2V checkpoint is needed"
            )
        self.vae_scale_factor = 2 ** (len(vae.block_out_channels) - 1)
        self.stride = int(vae.temporal_compression_ratio)
        self.multiple = self.vae_scale_factor * net.patch_size
        self.channels = vae.latent_channels
        self.max_tokens, self.longest = net.max_text_seq_length, net.sample_frames

    def check_clip(self, num_frames: int, size: tuple[int, int]) -> None:
        super().check_clip(num_frames, size)
        net = self.parts["transformer"].config
        own = net.sample_width * self.vae_scale_factor, net.sample_height * self.vae_scale_factor
        if net.use_learned_positional_embeddings and tuple(size) != own:
            raise ValueError(
                f"size must be {own[0]} x {own[1]} for {self.name}, which has learned the places "
                f"of that size alone, got {size[0]} x {size[1]}"
            )

    def rows(self, branch: Branch) -> dict[str, Tensor]:
        """The picture's latent, then zeros; a warped clip's latents where it departs from its
        first frame."""
        dtype, pixels = self.parts["transformer"].dtype, branch.pixels
        first = self.encode(pixels[:1], branch.posterior, branch.generator)
        frames = self.latent_frames(branch.num_frames)
        zeros = first.new_zeros(frames - 1, *first.shape[1:])
        given = self.where_moved(torch.cat([first, zeros]), pixels)
        if self.parts["vae"].config.invert_scale_latents:  # as this checkpoint was trained
            given = given / self.parts["vae"].config.scaling_factor ** 2
        return {"text": self.text_rows(branch)[0].to(dtype), "given": given.to(dtype)[None]}

    def network(self, z: Tensor, t: Tensor, *, text, given) -> Tensor:
        net = self.part("transformer")
        turns = None
        if net.config.use_rotary_positional_embeddings:
            turns = self._rotary(net.config, *z.shape[1:2], *z.shape[3:])
        return net(
            hidden_states=torch.cat([z.to(net.dtype), given], 2),
            encoder_hidden_states=text,
            timestep=t.expand(len(z)),
            image_rotary_emb=turns,
            return_dict=False,
        )[0]

    def _rotary(self, net, frames: int, h: int, w: int):
        """Rotary embeddings of a grid laid centred into the one that the model was trained on."""
        from diffusers.models.embeddings import get_3d_rotary_pos_embed

        grid = h // net.patch_size, w // net.patch_size
        own = net.sample_height // net.patch_size, net.sample_width // net.patch_size
        scale = min(own[0] / grid[0], own[1] / grid[1])
        inner = tuple(min(round(g * scale), o) for g, o in zip(grid, own, strict=True))
        start = tuple(round((o - i) / 2) for o, i in zip(own, inner, strict=True))
        end = tuple(s + i for s, i in zip(start, inner, strict=True))
        return get_3d_rotary_pos_embed(
            embed_dim=net.attention_head_dim,
            crops_coords=(start, end),
            grid_size=grid,
            temporal_size=frames,
            device=self.device,
        )


FAMILY = CogVideoXModel
