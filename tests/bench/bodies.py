"""Models of the real sizes with random weights: their values change neither time nor memory.

`tiny=True` makes the same classes small, to rehearse a benchmark on a CPU. Text encoders have one
layer: they are outside the loop that is timed.
"""

from ivkit.models.sd import CLIP_SCHEDULE
from ivkit.models.small import layout, made

WIDE = {"block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2}


def part(name: str, which: str, **others):
    """A part of a small random network, with other settings."""
    return made({**layout(name)["parts"][which], **others})


def on_cpu(scheduler, **config):
    """A scheduler counts on the CPU, wherever the networks are made."""
    import torch

    with torch.device("cpu"):
        return scheduler(**config)


def sd(tiny: bool, width: int = 768, motion: bool = True) -> dict:
    """Stable Diffusion 1.5 (width 768) or 2.1 (1024), with PIA's motion adapter if `motion`."""
    from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel

    body = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1} if tiny else WIDE
    width = 32 if tiny else width
    heads = 8 if width != 1024 else (5, 10, 20, 20)
    unet = UNet2DConditionModel(
        sample_size=8 if tiny else 64,
        cross_attention_dim=width,
        attention_head_dim=heads,
        use_linear_projection=width == 1024,
        **body,
    )
    side = (8, 8, 8, 8) if tiny else (128, 256, 512, 512)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=side,
        layers_per_block=1 if tiny else 2,
        latent_channels=4,
        norm_num_groups=4 if tiny else 32,
    )
    parts = {
        "unet": unet,
        "vae": vae,
        "text_encoder": part("sd", "text_encoder", hidden_size=width, intermediate_size=2 * width),
        "tokenizer": part("sd", "tokenizer"),
        "scheduler": on_cpu(DDIMScheduler, **CLIP_SCHEDULE),
    }
    if motion:
        parts["motion_adapter"] = MotionAdapter(
            block_out_channels=body["block_out_channels"],
            conv_in_channels=9,
            motion_layers_per_block=body["layers_per_block"],
            motion_max_seq_length=32,
        )
    return parts


def turbo(tiny: bool) -> dict:
    """SD-Turbo's size, with TAESD."""
    from diffusers import AutoencoderTiny

    return {**sd(tiny, 1024, motion=False), "taesd": AutoencoderTiny()}


def svd(tiny: bool) -> dict:
    import diffusers
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    small = {
        "block_out_channels": (32, 32, 32, 32),
        "layers_per_block": 1,
        "sample_size": 8,
        "cross_attention_dim": 32,
        "num_attention_heads": 2,
    }
    full = {"cross_attention_dim": 1024, "sample_size": 96, "num_frames": 14}
    width = 32 if tiny else 1024
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=width,
        patch_size=32,
    )
    side = (32, 32, 32, 32) if tiny else (128, 256, 512, 512)
    return {
        "unet": diffusers.UNetSpatioTemporalConditionModel(**(small if tiny else full)),
        "vae": diffusers.AutoencoderKLTemporalDecoder(
            block_out_channels=side,
            down_block_types=("DownEncoderBlock2D",) * 4,
            layers_per_block=1 if tiny else 2,
        ),
        "image_encoder": CLIPVisionModelWithProjection(vision),
        "feature_extractor": CLIPImageProcessor(),
        "scheduler": on_cpu(
            diffusers.EulerDiscreteScheduler,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            sigma_min=0.002,
            sigma_max=700.0,
            prediction_type="v_prediction",
            use_karras_sigmas=True,
            timestep_type="continuous",
            timestep_spacing="leading",
            steps_offset=1,
        ),
    }


def wan(tiny: bool) -> dict:
    """Wan 2.2 TI2V 5B."""
    import diffusers

    width = 32 if tiny else 4096
    small = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "ffn_dim": 32,
        "num_layers": 2,
        "freq_dim": 16,
    }
    full = {
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "ffn_dim": 14336,
        "num_layers": 30,
    }
    net = diffusers.WanTransformer3DModel(
        in_channels=48, out_channels=48, text_dim=width, **(small if tiny else full)
    )
    base = 8 if tiny else 160
    vae = diffusers.AutoencoderKLWan(
        base_dim=base,
        decoder_base_dim=base if tiny else 256,
        z_dim=48,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        is_residual=True,
        scale_factor_spatial=16,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 48,
        latents_std=[1.0] * 48,
    )
    return {
        "transformer": net,
        "transformer_2": None,
        "vae": vae,
        "text_encoder": part("wan-2.2", "text_encoder", d_model=width, num_layers=1),
        "tokenizer": part("wan-2.2", "tokenizer"),
        "image_encoder": None,
        "image_processor": None,
        "scheduler": on_cpu(
            diffusers.UniPCMultistepScheduler,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=5.0,
        ),
    }
