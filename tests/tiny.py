"""Small models with random weights in the real classes.

tiny.pipeline()              4 latent channels, epsilon-prediction, AutoencoderKL: PIA's layout
tiny.pipeline("storybook")   6 latent channels, v-prediction, zero terminal SNR, AutoencoderTiny
"""

import functools
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ivkit.models import pia
from ivkit.pipeline import Pipeline

SIZE = 16  # pixels; two of them make a latent cell
WORDS = "a the boat sun moves right left stays still and , red".split()


def tokenizer() -> CLIPTokenizer:
    """Each word of WORDS is one token."""
    merges, vocab = [], {}
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        for pair in merges:  # what earlier merges make of this word
            i = 0
            while i + 1 < len(parts):
                if (parts[i], parts[i + 1]) == pair:
                    parts[i : i + 2] = ["".join(pair)]
                i += 1
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
    tokens = [word + "</w>" for word in WORDS] + ["<|startoftext|>", "<|endoftext|>"]
    letters = [c + end for word in WORDS for c in word for end in ("", "</w>")]
    for token in [*tokens, *letters, *("".join(pair) for pair in merges)]:
        vocab.setdefault(token, len(vocab))
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=12)


def parts(kind: str = "pia") -> dict:
    """Fresh diffusers parts, the same random weights each time."""
    torch.manual_seed(0)
    channels = 4 if kind == "pia" else 6
    words = tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=SIZE // 2,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    adapter = MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        motion_max_seq_length=16,
        conv_in_channels=2 * channels + 1,
    )
    if kind == "pia":
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            latent_channels=channels,
            sample_size=SIZE,
        )
        scheduler = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        )
    else:
        vae = AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            latent_channels=channels,
        )
        scheduler = DDIMScheduler(
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
    return {
        "unet": unet.eval(),
        "motion_adapter": adapter.eval(),
        "vae": vae.eval(),
        "text_encoder": CLIPTextModel(text).eval(),
        "tokenizer": words,
        "scheduler": scheduler,
    }


FACTS = {
    "num_frames": 4,
    "image": {"num_inference_steps": 4, "guidance_scale": 3.0},
    "video": {"num_inference_steps": 4, "guidance_scale": 3.0, "motion_scale": 1},
    "words": WORDS,
}


@functools.cache
def model(kind: str = "pia", dtype=torch.float32) -> pia.PIAModel:
    return pia.build("tiny", parts(kind), FACTS, device=torch.device("cpu"), dtype=dtype)


def pipeline(kind: str = "pia") -> Pipeline:
    """A fresh pipeline (nothing kept from other tests) over the one tiny model."""
    return Pipeline(model(kind))


def save(folder, kind: str = "storybook") -> Path:
    """The tiny model as a folder in diffusers' layout, as the package ships its own."""
    folder = Path(folder)
    for name, part in parts(kind).items():
        part.save_pretrained(folder / name)
    classes = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL" if kind == "pia" else "AutoencoderTiny"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    index = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False, **classes}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "storybook.json").write_text(json.dumps(FACTS))
    return folder


def picture(seed: int = 0) -> Image.Image:
    """A random but smooth picture of SIZE x SIZE."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(noise).resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def region() -> np.ndarray:
    """A mask for a drag: bool (SIZE, SIZE)."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[5:10, 3:8] = True
    return mask
