"""Small networks with random weights in each checkpoint's own classes: its layout, not its size.

`ivkit.load("svd", small=True)` runs what `ivkit.load("svd")` runs, in seconds on a CPU and without
a download. What such a model makes means nothing. Schedulers, multiples of sizes and of frames, and
lengths of texts are the checkpoint's own, so that what is refused here is refused there.
"""

from __future__ import annotations

import string
from importlib import import_module
from typing import Any

import torch

from . import pia
from .hub import quietly
from .sd import few_steps

SIZES = {  # (width, height) and frames of a small clip
    "pia": ((128, 128), 8),
    "animatediff": ((128, 128), 8),
    "svd": ((128, 64), 6),
    "wan": ((64, 64), 9),
    "cogvideox": ((64, 48), 9),
    "ltx": ((128, 64), 9),
    "i2vgenxl": ((128, 64), 6),
}
LEVELS = 4  # of Stable Diffusion's networks and of those that were made from them
WIDTHS = (16, 16, 32, 32)
CLIP_TOKENS = 77


def load(row, *, device, dtype, **options):
    """A small model of a row of the table; `options` are the fields of its family's class."""
    print(f"{row.name}: small networks with random weights: what they make means nothing")
    size, frames = SIZES[row.family]
    kind = {"device": device, "dtype": dtype}
    with quietly(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = parts(row.name)
    module = import_module(f".{row.family}", __package__)
    if hasattr(module, "FAMILY"):
        own = {**row.settings, "size": size, "num_frames": frames, **options}
        return module.FAMILY(row.name, made, **kind, **own)
    if options:
        raise TypeError(f"{next(iter(options))!r} is no option of a small {row.name}")
    cls = {"cls": module.AnimateDiffModel} if row.family == "animatediff" else {}
    facts = {**row.settings, "num_frames": frames, **(few_steps(made) if row.few_step else {})}
    return pia.build(row.name, made, facts, **kind, **cls)


def parts(name: str) -> dict[str, Any]:
    """Fresh parts of the checkpoint of that name in the table, by their names in diffusers."""
    if name.startswith("wan"):
        made = wan_parts(name)
    else:
        makers = {"svd": svd_parts, "svd-xt": svd_parts, "cogvideox": cogvideox_parts,
                  "ltx": ltx_parts, "i2vgenxl": i2vgenxl_parts}  # fmt: skip
        made = makers[name]() if name in makers else sd_parts(name)
    for part in made.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return made


# ----------------------------------------------------------------------- texts and pictures read


def letters() -> dict[str, int]:
    """Every letter, and every letter that ends a word."""
    tokens = [c + end for c in string.ascii_lowercase for end in ("", "</w>")]
    return {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}


def clip_tokenizer(length: int = CLIP_TOKENS):
    """Reads letters, and passes over what is none."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab=letters(), merges=[], model_max_length=length)


def clip_text(width: int, layers: int = 1):
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=64, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=4, bos_token_id=52, eos_token_id=53, pad_token_id=53,
    )  # fmt: skip
    return CLIPTextModel(config)


def t5_tokenizer():
    """Reads letters as T5's does words: an end token, and padding on the right."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {c: i for i, c in enumerate(["<pad>", "</s>", "<unk>", *string.ascii_lowercase, " "])}
    made = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def t5(name: str = "T5EncoderModel", width: int = 16, layers: int = 2):
    import transformers

    cls = getattr(transformers, name)
    config = cls.config_class(
        vocab_size=32, d_model=width, d_kv=8, d_ff=32, num_layers=layers, num_heads=2
    )
    return cls(config)


def clip_vision(name: str = "CLIPVisionModelWithProjection", width: int = 16, side: int = 224):
    import transformers

    config = transformers.CLIPVisionConfig(
        hidden_size=width, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        projection_dim=16, image_size=side, patch_size=side // 4,
    )  # fmt: skip
    return getattr(transformers, name)(config)


# ------------------------------------------------------------------------------------ families


def sd_parts(name: str = "pia") -> dict[str, Any]:
    """Stable Diffusion, with PIA's or AnimateDiff's motion adapter where the name asks for one."""
    import diffusers

    unet = diffusers.UNet2DConditionModel(
        sample_size=16, block_out_channels=WIDTHS, layers_per_block=1, cross_attention_dim=16,
        attention_head_dim=2, norm_num_groups=4,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * LEVELS,
        up_block_types=("UpDecoderBlock2D",) * LEVELS,
        block_out_channels=(8,) * LEVELS, norm_num_groups=4, latent_channels=4, sample_size=128,
    )  # fmt: skip
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    if name == "sd-turbo":
        scheduler = diffusers.EulerDiscreteScheduler(timestep_spacing="trailing", **betas)
    else:
        scheduler = diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1, **betas)
    made = {"unet": unet, "vae": vae, "text_encoder": clip_text(16), "tokenizer": clip_tokenizer(),
            "scheduler": scheduler}  # fmt: skip
    if name not in ("sd", "sd-turbo"):
        made["motion_adapter"] = diffusers.MotionAdapter(
            block_out_channels=WIDTHS, motion_layers_per_block=1, motion_num_attention_heads=2,
            motion_norm_num_groups=4, motion_max_seq_length=32,
            conv_in_channels=None if name == "animatediff" else 9,
        )  # fmt: skip
    return made


def svd_parts() -> dict[str, Any]:
    import diffusers
    from transformers import CLIPImageProcessor

    unet = diffusers.UNetSpatioTemporalConditionModel(
        sample_size=16, in_channels=8, out_channels=4, block_out_channels=(32,) * LEVELS,
        layers_per_block=1, cross_attention_dim=16, num_attention_heads=2,
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=24,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32,) * LEVELS, down_block_types=("DownEncoderBlock2D",) * LEVELS,
        layers_per_block=1, latent_channels=4, sample_size=128,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", sigma_max=700.0,
        sigma_min=0.002, prediction_type="v_prediction", use_karras_sigmas=True,
        timestep_spacing="leading", timestep_type="continuous", steps_offset=1,
        interpolation_type="linear",
    )  # fmt: skip
    return {
        "unet": unet,
        "vae": vae,
        "image_encoder": clip_vision(),
        "feature_extractor": CLIPImageProcessor(),
        "scheduler": scheduler,
    }


def wan_net(channels: int, **options):
    import diffusers

    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=channels,
        out_channels=4, text_dim=16, freq_dim=16, ffn_dim=32, num_layers=2, **options,
    )  # fmt: skip


def wan_parts(name: str) -> dict[str, Any]:
    """name: "wan-2.1..." (with CLIP), "wan-2.2..." (two transformers), "wan-2.2-ti2v"."""
    import diffusers
    from transformers import CLIPImageProcessor

    channels, replaces = 4, name.endswith("ti2v")
    finer = {"in_channels": 12, "out_channels": 12, "patch_size": 2, "is_residual": True,
             "scale_factor_spatial": 16}  # fmt: skip
    shift = 3.0 if name.startswith("wan-2.1") else 5.0
    made = {
        "vae": diffusers.AutoencoderKLWan(
            base_dim=4, z_dim=channels, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
            temperal_downsample=[False, True, True], latents_mean=[0.1] * channels,
            latents_std=[1.5] * channels, **(finer if replaces else {}),
        ),
        "text_encoder": t5("UMT5EncoderModel"),
        "tokenizer": t5_tokenizer(),
        "scheduler": diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
        ),
        "transformer_2": None,
        "image_encoder": None,
        "image_processor": None,
    }  # fmt: skip
    if replaces:
        return {**made, "transformer": wan_net(channels)}
    if name.startswith("wan-2.2"):
        return {**made, "transformer": wan_net(12), "transformer_2": wan_net(12)}
    return {
        **made,
        "transformer": wan_net(12, image_dim=8, added_kv_proj_dim=24),
        "image_encoder": clip_vision("CLIPVisionModel", 8, 32),
        "image_processor": CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32),
    }


def with_t5(net, vae, scheduler) -> dict[str, Any]:
    """The parts of a pipeline of a transformer that reads T5's words."""
    return {
        "transformer": net,
        "vae": vae,
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": scheduler,
    }


def cogvideox_parts() -> dict[str, Any]:
    import diffusers

    net = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=8, out_channels=4,
        time_embed_dim=4, text_embed_dim=16, num_layers=2, sample_width=8, sample_height=6,
        sample_frames=9, patch_size=2, temporal_compression_ratio=4,
        use_rotary_positional_embeddings=True, use_learned_positional_embeddings=True,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        temporal_compression_ratio=4,
    )  # fmt: skip
    scheduler = diffusers.CogVideoXDDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=1.0,
        timestep_spacing="trailing", set_alpha_to_one=True,
    )  # fmt: skip
    return with_t5(net, vae, scheduler)


def ltx_parts() -> dict[str, Any]:
    import diffusers

    net = diffusers.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=2,
        attention_head_dim=8, cross_attention_dim=16, num_layers=2, caption_channels=16,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8), layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )  # fmt: skip
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_image_seq_len=1024, base_shift=0.95, max_shift=2.05,
        shift_terminal=0.1,
    )  # fmt: skip
    return with_t5(net, vae, scheduler)


def i2vgenxl_parts() -> dict[str, Any]:
    import diffusers
    from transformers import CLIPImageProcessor

    unet = diffusers.I2VGenXLUNet(
        sample_size=16, block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=2,
        cross_attention_dim=16, attention_head_dim=4,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", rescale_betas_zero_snr=True, clip_sample=False,
        steps_offset=1, prediction_type="v_prediction",
    )  # fmt: skip
    base = sd_parts("sd")
    return {
        **{name: base[name] for name in ("vae", "tokenizer")},
        "scheduler": scheduler,
        "text_encoder": clip_text(16, layers=2),
        "unet": unet,
        "image_encoder": clip_vision(side=32),
        "feature_extractor": CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32),
    }
