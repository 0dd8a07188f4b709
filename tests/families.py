"""Small models of the further families: random weights in the real classes, and their stock pipes.

    families.FAMILIES["svd"].model()      ours
    families.FAMILIES["svd"].stock(...)   latents of diffusers' own pipeline, (F, C, h, w)
"""

import functools
from dataclasses import dataclass, field

import diffusers
import numpy as np
import tiny
import torch
import transformers
from PIL import Image

from ivkit.models import cogvideox, i2vgenxl, ltx, svd, wan

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


def t5_tokenizer():
    """A tokenizer of whole words, as T5's: an end token and padding on the right."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "</s>", "<unk>", *tiny.WORDS]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def t5(cls=transformers.T5EncoderModel):
    config = cls.config_class(
        vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2
    )
    return cls(config)


def clip_vision(cls=transformers.CLIPVisionModelWithProjection, width=16, side=224):
    config = transformers.CLIPVisionConfig(
        hidden_size=width, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        projection_dim=16, image_size=side, patch_size=56 if side == 224 else side // 4,
    )  # fmt: skip
    return cls(config)


def svd_parts():
    unet = diffusers.UNetSpatioTemporalConditionModel(
        sample_size=16, in_channels=8, out_channels=4, block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        layers_per_block=1, cross_attention_dim=16, num_attention_heads=(2, 4),
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=24,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        layers_per_block=1, latent_channels=4, sample_size=16,
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
        "feature_extractor": transformers.CLIPImageProcessor(),
        "scheduler": scheduler,
    }


def wan_vae(channels=4, **options):
    return diffusers.AutoencoderKLWan(
        base_dim=4, z_dim=channels, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True], latents_mean=[0.1] * channels,
        latents_std=[1.5] * channels, **options,
    )  # fmt: skip


def wan_net(channels, **options):
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=channels,
        out_channels=4, text_dim=16, freq_dim=16, ffn_dim=32, num_layers=2,
        rope_max_seq_len=32, **options,
    )  # fmt: skip


def wan_parts(kind):
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    parts = {
        "vae": wan_vae(),
        "text_encoder": t5(transformers.UMT5EncoderModel),
        "tokenizer": t5_tokenizer(),
        "scheduler": scheduler,
        "transformer_2": None,
        "image_encoder": None,
        "image_processor": None,
    }
    if kind == "wan-2.1":
        parts["transformer"] = wan_net(12, image_dim=8, added_kv_proj_dim=24)
        parts["image_encoder"] = clip_vision(transformers.CLIPVisionModel, 8, 32)
        parts["image_processor"] = transformers.CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size=32
        )
    elif kind == "wan-2.2":
        parts["transformer"], parts["transformer_2"] = wan_net(12), wan_net(12)
    else:
        parts["transformer"] = wan_net(4)
    return parts


def cogvideox_parts():
    net = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=8, out_channels=4,
        time_embed_dim=4, text_embed_dim=16, num_layers=2, sample_width=8, sample_height=8,
        sample_frames=9, patch_size=2, temporal_compression_ratio=4, max_text_seq_length=12,
        use_rotary_positional_embeddings=True, use_learned_positional_embeddings=False,
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
    return {
        "transformer": net,
        "vae": vae,
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": scheduler,
    }


def ltx_parts():
    net = diffusers.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=2,
        attention_head_dim=8, cross_attention_dim=16, num_layers=2, caption_channels=16,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8), layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1), patch_size=1, patch_size_t=1,
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
    )  # fmt: skip
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_image_seq_len=16, max_image_seq_len=256, base_shift=0.95,
        max_shift=2.05, shift_terminal=0.1,
    )  # fmt: skip
    return {
        "transformer": net,
        "vae": vae,
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": scheduler,
    }


def i2vgenxl_parts():
    unet = diffusers.I2VGenXLUNet(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), cross_attention_dim=16,
        attention_head_dim=4,
    )  # fmt: skip
    base = tiny.parts()
    vision = clip_vision(side=32)
    look = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    keep = {k: base[k] for k in ("vae", "text_encoder", "tokenizer", "scheduler")}
    return {"unet": unet, "image_encoder": vision, "feature_extractor": look, **keep}


@dataclass
class Tiny:
    """One family: how its parts are made, how its stock pipeline is called."""

    cls: type
    parts_of: callable
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
        torch.manual_seed(0)
        parts = self.parts_of()
        for part in parts.values():
            if isinstance(part, torch.nn.Module):
                part.eval()
        return parts

    @functools.cached_property
    def made(self):
        return self.cls("tiny", self.parts(), size=self.size, num_frames=self.num_frames,
                        **self.own, **CPU)  # fmt: skip

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
        options = {"prompt": motion} if self.text else {}
        torch.random.set_rng_state(run.drawn)  # one stock pipeline draws from torch's own
        out = pipe(
            image=picture, height=self.size[1], width=self.size[0], num_frames=self.num_frames,
            num_inference_steps=steps, latents=latents, generator=generator, output_type="latent",
            **options, **self.stock_options, **{self.guidance: guidance},
        ).frames  # fmt: skip
        if self.cls is ltx.LTXModel:
            f, _, h, w = eps.shape
            return out[0].unflatten(0, (f, h, w)).permute(0, 3, 1, 2)
        return out[0] if self.frames_first else out[0].transpose(0, 1)


def drawn(run):
    generator = torch.Generator()
    generator.set_state(run.drawn)
    return generator


def pixels(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1


FAMILIES = {
    "svd": Tiny(svd.SVDModel, svd_parts, (32, 16), 4, "StableVideoDiffusionPipeline",
                guidance="max_guidance_scale", frames_first=True, text=False),
    "wan-2.1": Tiny(wan.WanModel, lambda: wan_parts("wan-2.1"), (32, 16), 9,
                    "WanImageToVideoPipeline"),
    "wan-2.2": Tiny(wan.WanModel, lambda: wan_parts("wan-2.2"), (32, 16), 9,
                    "WanImageToVideoPipeline", pipe_options={"boundary_ratio": 0.9}),
    "wan-ti2v": Tiny(wan.WanModel, lambda: wan_parts("wan-ti2v"), (32, 16), 9,
                     "WanImageToVideoPipeline", pipe_options={"expand_timesteps": True}),
    "cogvideox": Tiny(cogvideox.CogVideoXModel, cogvideox_parts, (64, 48), 9,
                      "CogVideoXImageToVideoPipeline", frames_first=True,
                      stock_options={"max_sequence_length": 12}),
    "ltx": Tiny(ltx.LTXModel, ltx_parts, (64, 32), 9, "LTXImageToVideoPipeline"),
    "i2vgenxl": Tiny(i2vgenxl.I2VGenXLModel, i2vgenxl_parts, (16, 16), 4, "I2VGenXLPipeline"),
}  # fmt: skip
NAMES = list(FAMILIES)
