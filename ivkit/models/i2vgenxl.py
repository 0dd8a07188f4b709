"""I2VGen-XL: the picture's latent is an argument of its own, with CLIP's embedding of the picture.

Both the unconditional and the conditional row see the latent; the embedding is zero in the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image, ImageOps
from torch import Tensor

from .common import Branch, Family, computing, kept_text, pil

PARTS = {
    "unet": "diffusers.I2VGenXLUNet",
    "vae": "diffusers.AutoencoderKL",
    "text_encoder": "transformers.CLIPTextModel",
    "tokenizer": "transformers.CLIPTokenizer",
    "image_encoder": "transformers.CLIPVisionModelWithProjection",
    "feature_extractor": "transformers.CLIPImageProcessor",
    "scheduler": "diffusers.DDIMScheduler",
}


@dataclass
class I2VGenXLModel(Family):
    """fps: frames per second that the clip is thought to have."""

    fps: int = 16
    decode_chunk_size: int = 2

    SIZE = (1280, 704)
    VIDEO = {
        "num_inference_steps": 50,
        "guidance_scale": 9.0,
        "motion_scale": None,
        "negative_prompt": "Distorted, discontinuous, Ugly, blurry, low resolution, motionless, "
        "static, disfigured, disconnected limbs, Ugly faces, incomplete arms",
    }
    per_frame = False

    def layout(self) -> None:
        super().layout()
        self.max_tokens = self.parts["tokenizer"].model_max_length

    @kept_text
    def encode_text(self, text: str) -> tuple[Tensor, Tensor]:
        """The last layer but one, as the model was trained: (1, tokens, width) and its mask."""
        tokens, encoder = self.tokens(text), self.part("text_encoder")
        with computing(self.device, self.dtype):
            found = encoder(tokens.input_ids, output_hidden_states=True).hidden_states[-2]
            found = getattr(encoder, "text_model", encoder).final_layer_norm(found)
        return found, tokens.attention_mask

    @torch.no_grad()
    def encode_picture(self, pixels: Tensor) -> Tensor:
        """CLIP's embedding, (1, 1, width), of the square in the middle of (1, 3, H, W)."""
        encoder, look = self.part("image_encoder"), self.parts["feature_extractor"]
        wide = pixels.shape[-1]
        square = ImageOps.fit(pil(pixels), (wide, wide), Image.Resampling.BOX)
        square = square.resize(
            (look.crop_size["width"], look.crop_size["height"]), Image.Resampling.BILINEAR
        )
        seen = look(
            images=square, do_center_crop=False, do_resize=False, return_tensors="pt"
        ).pixel_values
        with computing(self.device, self.dtype):
            return encoder(seen.to(self.device, encoder.dtype)).image_embeds[:, None]

    def rows(self, branch: Branch) -> dict[str, Tensor]:
        """The picture's latent, then each later frame's place in the clip in (0, 1]; of a warped
        clip, its first frame: the layout has no place for the others."""
        dtype, still = self.parts["unet"].dtype, branch.pixels[:1]
        first = self.encode(still, branch.posterior, branch.generator)
        places = torch.linspace(0, 1, branch.num_frames, device=self.device)[1:].view(-1, 1, 1, 1)
        given = torch.cat([first, places.expand(-1, *first.shape[1:])]).to(dtype)
        seen = self.encode_picture(still).to(dtype)
        if branch.guided:
            seen = torch.cat([torch.zeros_like(seen), seen])
        return {"text": self.text_rows(branch)[0].to(dtype), "seen": seen, "given": given[None]}

    def network(self, z: Tensor, t: Tensor, *, text, seen, given) -> Tensor:
        unet = self.part("unet")
        return unet(
            z.transpose(1, 2).to(unet.dtype),
            t,
            encoder_hidden_states=text,
            fps=torch.full((len(z),), self.fps, device=z.device),
            image_latents=given.transpose(1, 2),
            image_embeddings=seen,
        ).sample.transpose(1, 2)


FAMILY = I2VGenXLModel
