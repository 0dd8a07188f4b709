"""The table of checkpoints: what there is, under which licence, how large, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Checkpoint:
    """One row. Sizes are of the files that are fetched, in GB, about; memory of the family's own
    clip in half precision with every part on the device, about.

    Attributes:
        family: module of ivkit.models.
        text: takes a text condition.
        image: how the condition picture goes in.
        ids: part -> hub id; empty for what the package brings.
        fallback: part -> another id, where the first has gone.
        pipelines: diffusers' names for this layout in model_index.json.
        variant: of the weights' files, such as "fp16".
        settings: fields of the family's class that this checkpoint sets.
        notice: what the licence forbids; printed when the checkpoint is loaded.
    """

    name: str
    family: str
    what: str
    licence: str
    download_gb: float
    memory_gb: float
    text: bool = True
    ids: dict[str, str] = field(default_factory=dict)
    fallback: dict[str, str] = field(default_factory=dict)
    few_step: bool = False
    image: str = "concatenated latents"
    pipelines: tuple[str, ...] = ()
    variant: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    notice: str = ""


SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
PIA = "openmmlab/PIA-condition-adapter"
TAESD = "madebyollin/taesd"
SD = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
RAIL = "CreativeML Open RAIL-M"
ON_SD15 = {
    "fallback": {"base": "Lykon/dreamshaper-8"},
    "pipelines": SD,
    "notice": f"{RAIL} forbids the uses in its attachment A",
}
STABILITY = "Stability AI Community Licence"
OF_STABILITY = {
    "variant": "fp16",
    "notice": "free below 1 million USD of yearly revenue; its acceptable use policy applies",
}
SVD = ("StableVideoDiffusionPipeline",)
# What Wan's own code leads away from where nothing else is said (sample_neg_prompt in its
# wan/configs): garish colours, overexposure, stillness, blur, subtitles, low quality, malformed
# hands and faces. The 2.1 I2V model adds a shaking camera.
WAN_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，"
    "低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，"
    "毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
WAN = ("WanImageToVideoPipeline", "WanPipeline")
WAN_I2V = {"image": "concatenated latents and a mask", "pipelines": WAN}

TABLE = {
    row.name: row
    for row in (
        Checkpoint(
            "storybook",
            "pia",
            "the embedded model: a small world of emoji scenes, 256 px",
            "Apache-2.0",
            0.0,
            1.0,
        ),
        Checkpoint(
            "storybook-fast",
            "pia",
            "the same in 4 to 6 steps, guidance folded in",
            "Apache-2.0",
            0.0,
            1.0,
            few_step=True,
        ),
        Checkpoint(
            "pia",
            "pia",
            "Stable Diffusion 1.5 with PIA's motion adapter, 512 px: the paper's own",
            f"{RAIL} (SD 1.5), Apache-2.0 (PIA)",
            6.0,
            8.0,
            ids={"base": SD15, "motion_adapter": PIA, "taesd": TAESD},
            **ON_SD15,
        ),
        Checkpoint(
            "pia-lcm",
            "pia",
            "the same with LCM-LoRA: 4 steps, guidance off",
            f"{RAIL} (SD 1.5), Apache-2.0 (PIA), OpenRAIL++ (LCM-LoRA)",
            6.2,
            8.0,
            ids={
                "base": SD15,
                "motion_adapter": PIA,
                "taesd": TAESD,
                "few_step": "latent-consistency/lcm-lora-sdv1-5",
            },
            few_step=True,
            **ON_SD15,
        ),
        Checkpoint(
            "sd",
            "pia",
            "Stable Diffusion 1.5, 512 px: pictures alone",
            RAIL,
            4.3,
            3.0,
            ids={"base": SD15, "taesd": TAESD},
            image="noised (SDEdit)",
            **ON_SD15,
        ),
        Checkpoint(
            "sd-turbo",
            "pia",
            "SD-Turbo, 512 px: pictures alone, in 1 step, for the brush",
            STABILITY,
            2.6,
            3.0,
            ids={"base": "stabilityai/sd-turbo", "taesd": TAESD},
            image="noised (SDEdit)",
            **OF_STABILITY,
            pipelines=SD,
            settings={"image": {"num_inference_steps": 1, "guidance_scale": 0.0}},
        ),
        Checkpoint(
            "animatediff",
            "animatediff",
            "SD 1.5 with AnimateDiff: a baseline, no picture",
            f"{RAIL} (SD 1.5), Apache-2.0 (AnimateDiff)",
            6.0,
            8.0,
            ids={
                "base": SD15,
                "motion_adapter": "guoyww/animatediff-motion-adapter-v1-5-2",
                "taesd": TAESD,
            },
            image="none",
            **ON_SD15,
        ),
        Checkpoint(
            "svd",
            "svd",
            "Stable Video Diffusion: 14 frames, 1024 x 576, no text",
            STABILITY,
            4.5,
            16.0,
            text=False,
            ids={"base": "stabilityai/stable-video-diffusion-img2vid"},
            fallback={"base": "stabilityai/stable-video-diffusion-img2vid-xt"},
            **OF_STABILITY,
            pipelines=SVD,
        ),
        Checkpoint(
            "svd-xt",
            "svd",
            "the same for 25 frames",
            STABILITY,
            4.5,
            20.0,
            text=False,
            ids={"base": "stabilityai/stable-video-diffusion-img2vid-xt"},
            fallback={"base": "stabilityai/stable-video-diffusion-img2vid-xt-1-1"},
            **OF_STABILITY,
            pipelines=SVD,
            settings={"num_frames": 25},
        ),
        Checkpoint(
            "wan-2.1-i2v",
            "wan",
            "Wan 2.1 I2V 14B: 81 frames, 832 x 480",
            "Apache-2.0",
            90.0,
            45.0,
            ids={"base": "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"},
            fallback={"base": "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers"},
            **WAN_I2V,
            settings={"defaults": {"video": {"negative_prompt": f"镜头晃动，{WAN_NEGATIVE}"}}},
        ),
        Checkpoint(
            "wan-2.2-i2v",
            "wan",
            "Wan 2.2 I2V A14B: two transformers, 81 frames, 832 x 480",
            "Apache-2.0",
            126.0,
            72.0,
            ids={"base": "Wan-AI/Wan2.2-I2V-A14B-Diffusers"},
            fallback={"base": "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"},
            **WAN_I2V,
            settings={"defaults": {"video": {"guidance_scale": 3.5}}, "flow_shift": 5.0},
        ),
        Checkpoint(
            "wan-2.2-ti2v",
            "wan",
            "Wan 2.2 TI2V 5B: 121 frames, 1280 x 704",
            "Apache-2.0",
            34.0,
            30.0,
            ids={"base": "Wan-AI/Wan2.2-TI2V-5B-Diffusers"},
            image="first latent frame",
            pipelines=WAN,
            settings={
                "size": (1280, 704),
                "num_frames": 121,
                "replaces": True,
                "defaults": {"video": {"num_inference_steps": 50}},
            },
        ),
        Checkpoint(
            "cogvideox",
            "cogvideox",
            "CogVideoX 5B I2V: 49 frames, 720 x 480",
            "CogVideoX licence",
            22.0,
            26.0,
            ids={"base": "zai-org/CogVideoX-5b-I2V"},
            fallback={"base": "THUDM/CogVideoX-5b-I2V"},
            pipelines=("CogVideoXImageToVideoPipeline",),
            notice="the CogVideoX licence asks commercial users to register, and limits visits",
        ),
        Checkpoint(
            "ltx",
            "ltx",
            "LTX-Video 2B: 121 frames, 704 x 512",
            "LTX-Video open weights licence",
            25.0,
            16.0,
            ids={"base": "Lightricks/LTX-Video"},
            image="first latent frame",
            pipelines=("LTXPipeline", "LTXImageToVideoPipeline"),
            notice="the LTX-Video licence forbids the uses in its attachment",
        ),
        Checkpoint(
            "i2vgenxl",
            "i2vgenxl",
            "I2VGen-XL: 16 frames, 1280 x 704",
            "MIT",
            8.0,
            18.0,
            ids={"base": "ali-vilab/i2vgen-xl"},
            image="image_latents and CLIP's embedding",
            pipelines=("I2VGenXLPipeline",),
            variant="fp16",
        ),
    )
}


def listing() -> str:
    """The table as lines a person reads."""
    lines = []
    for row in TABLE.values():
        size = f"{row.download_gb:g} GB" if row.ids else "no download"
        text = "text" if row.text else "no text"
        lines += [
            f"{row.name:16s}{row.what}",
            f"{'':16s}{size}, about {row.memory_gb:g} GB of memory; {text}; {row.licence}",
        ]
        lines += [f"{'':16s}{row.notice}"] * bool(row.notice)
    return "\n".join(lines)
