"""The storybook's networks: a miniature of Stable Diffusion with PIA's motion adapter.

Text-to-image and image-to-video are one network, as in PIA: the motion UNet holds the very modules
of the picture UNet and adds the adapter's, so a LoRA trained on pictures works in video.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..models.pia import motion_unet
from .words import MAX_TOKENS, WORDS
from .world import NUM_FRAMES

CHANNELS, CELL, WIDTHS, TEXT = 16, 16, (96, 192), 192
#: speeds of motion scale 0 to 2 (slow, usual, quick); 3 to 5 are the same, forth and back
MOTION_SCALES = 0.45, 0.8, 1.0
SCHEDULE = dict(
    num_train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    clip_sample=False,
    set_alpha_to_one=True,
    prediction_type="v_prediction",
    rescale_betas_zero_snr=True,
    timestep_spacing="trailing",
    steps_offset=1,
)


def make_vae():
    """AutoencoderTiny, 256 px to 16 x 16 x 16. Its latents are trained to be standard normal."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        encoder_block_out_channels=(64,) * 5,
        decoder_block_out_channels=(64,) * 5,
        num_encoder_blocks=(0, 1, 2, 4, 6),
        num_decoder_blocks=(6, 5, 3, 2, 0),
        latent_channels=CHANNELS,
        scaling_factor=1.0,
    )


def make_text_encoder():
    from transformers import CLIPTextConfig, CLIPTextModel

    bos, eos = len(WORDS), len(WORDS) + 1
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(WORDS) + 2,
            hidden_size=TEXT,
            intermediate_size=3 * TEXT,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=TEXT,
            bos_token_id=bos,
            eos_token_id=eos,
            pad_token_id=eos,
        )
    )


def make_unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=TEXT,
        attention_head_dim=4,
    )


def make_adapter():
    """MotionAdapter with a conv_in of 2C + 1 channels: z_t, affinity mask, condition (PIA's order).

    As in PIA's checkpoints only the last C + 1 are the adapter's: the first C are the UNet's own.
    """
    from diffusers import MotionAdapter

    return MotionAdapter(
        block_out_channels=WIDTHS,
        motion_layers_per_block=1,
        motion_mid_block_layers_per_block=1,
        motion_num_attention_heads=4,
        motion_max_seq_length=32,
        use_motion_mid_block=True,
        conv_in_channels=2 * CHANNELS + 1,
    )


class WidenedIn(nn.Module):
    """conv_in of the motion UNet while it trains: the UNet's own weights beside the adapter's."""

    def __init__(self, own: nn.Conv2d, widened: nn.Conv2d):
        super().__init__()
        self.own, self.widened = own, widened

    def forward(self, x):
        weight = torch.cat([self.own.weight, self.widened.weight[:, self.own.in_channels :]], 1)
        return nn.functional.conv2d(x, weight, self.own.bias, padding=1)


def tie(unet, adapter):
    """UNetMotionModel of the very modules of `unet` and `adapter`, to be trained: see WidenedIn."""
    motion = motion_unet(unet, adapter)
    motion.conv_in = WidenedIn(unet.conv_in, adapter.conv_in)
    return motion


@dataclass
class Networks:
    """Everything that training touches; `motion` shares the modules of `unet` and `adapter`."""

    unet: nn.Module
    adapter: nn.Module
    text: nn.Module
    motion: nn.Module

    @classmethod
    def new(cls, seed: int = 0) -> Networks:
        torch.manual_seed(seed)
        unet, adapter, text = make_unet(), make_adapter(), make_text_encoder()
        nn.init.normal_(adapter.conv_in.weight, std=0.02)
        return cls(unet, adapter, text, tie(unet, adapter))

    @classmethod
    def load(cls, folder: str | Path) -> Networks:
        from diffusers import MotionAdapter, UNet2DConditionModel
        from transformers import CLIPTextModel

        folder = Path(folder)
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
        adapter = MotionAdapter.from_pretrained(
            folder / "motion_adapter", torch_dtype=torch.float32
        )
        text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        return cls(unet, adapter, text, tie(unet, adapter))

    def named_parameters(self):
        seen = set()
        for part in ("unet", "adapter", "text"):
            for name, p in getattr(self, part).named_parameters():
                if id(p) not in seen:
                    seen.add(id(p))
                    yield f"{part}.{name}", p

    def each(self):
        return self.unet, self.adapter, self.text, self.motion

    def save(self, folder: str | Path) -> None:
        """Writes unet/ and motion_adapter/ in fp16 and text_encoder/ in fp32, diffusers' layout."""
        folder = Path(folder)
        halves = [
            (self.unet, make_unet(), "unet"),
            (self.adapter, make_adapter(), "motion_adapter"),
        ]
        for trained, fresh, name in halves:
            fresh.load_state_dict(
                {k: v.detach().float().cpu() for k, v in trained.state_dict().items()}
            )
            fresh.half().save_pretrained(folder / name, max_shard_size="14MB")
        fresh = make_text_encoder()
        fresh.load_state_dict(
            {k: v.detach().float().cpu() for k, v in self.text.state_dict().items()}
        )
        fresh.save_pretrained(folder / "text_encoder")


def write_layout(folder: str | Path) -> None:
    """Writes what is no weight: model_index.json, scheduler/, tokenizer/ and storybook.json."""
    import json

    from diffusers import DDIMScheduler

    from .words import write_tokenizer

    folder = Path(folder)
    DDIMScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
    write_tokenizer(folder / "tokenizer")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.35.0",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderTiny"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    forth = torch.linspace(0, 1, NUM_FRAMES)
    loop = 1 - (2 * forth - 1).abs()
    rows = [affinity(torch.tensor([s]), t[None])[0] for t in (forth, loop) for s in MOTION_SCALES]
    facts = {
        "num_frames": NUM_FRAMES,
        "fps": 8,
        "round_trip_db": 27.0,
        "image": {"num_inference_steps": 15, "guidance_scale": 3.5},
        "video": {"num_inference_steps": 10, "guidance_scale": 2.5, "motion_scale": 1},
        "few_step": {
            "image": {"num_inference_steps": 5, "guidance_scale": 1.0},
            "video": {"num_inference_steps": 5, "guidance_scale": 1.0, "motion_scale": 1},
        },
        "affinity": [[round(float(v), 4) for v in row] for row in rows],
    }
    (folder / "storybook.json").write_text(json.dumps(facts) + "\n")


def affinity(speed: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Affinity mask of a clip, (B, F), for speeds (B,) in (0, 1] and frame times t (B, F).

    PIA's mask (its Section 3.2) says how like the condition each frame is: 1 at the first frame,
    the lower the more has moved by then.
    """
    return 1 - 0.7 * speed[:, None] * t
