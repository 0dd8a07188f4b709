"""The Stable Diffusion parts of a model: by id, from a folder or one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .hub import PICKLES, check_file, check_layout, fetch, quietly, read
from .lora import MEND

BASE = {
    "unet": "diffusers.UNet2DConditionModel",
    "vae": "diffusers.AutoencoderKL",
    "text_encoder": "transformers.CLIPTextModel",
    "tokenizer": "transformers.CLIPTokenizer",
    "scheduler": "diffusers.DDIMScheduler",
}
# How PIA and AnimateDiff were trained to make clips (PIA's example/config/base.yaml and
# AnimateDiff's configs/inference). A Stable Diffusion checkpoint's own schedule is for pictures.
CLIP_SCHEDULE = {
    "beta_schedule": "linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
    "clip_sample": False,
}


def base_parts(source, row=None, config=None, allow_pickle: bool = False) -> dict[str, Any]:
    """unet, vae, text_encoder, tokenizer, scheduler of a checkpoint.

    source: a hub id, a folder in diffusers' layout, or one safetensors file (DreamBooth and merged
    checkpoints come so). config: for one file, the folder or id whose configs it goes with; None
    lets diffusers tell it from the weights.
    """
    if Path(source).suffix in (".safetensors", *PICKLES):
        return _one_file(Path(source), config, allow_pickle)
    folder = fetch(str(source), tuple(BASE), row)
    check_layout(folder, row)
    own = row is not None and str(source) == row.ids.get("base")
    return read(
        folder, BASE, mend=MEND, allow_pickle=allow_pickle, variant=row.variant if own else None
    )


def _one_file(file: Path, config, allow_pickle: bool) -> dict[str, Any]:
    from diffusers import StableDiffusionPipeline
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    check_file(file, MEND, allow_pickle)
    options = {"config": str(config)} if config else {}
    options |= {"safety_checker": None, "torch_dtype": torch.float32}
    try:
        with quietly():
            pipe = StableDiffusionPipeline.from_single_file(str(file), **options)
    except (SingleFileComponentError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{file} is no Stable Diffusion checkpoint of the wanted layout ({why})"
        ) from None
    return {name: getattr(pipe, name) for name in BASE}


def few_steps(parts: dict[str, Any]) -> dict[str, Any]:
    """Take LCM's scheduler in `parts`; the facts that go with it."""
    from diffusers import LCMScheduler

    with quietly():  # it has no use for some of the other scheduler's settings, and says so
        parts["scheduler"] = LCMScheduler.from_config(parts["scheduler"].config)
    parts["video_scheduler"] = LCMScheduler(**CLIP_SCHEDULE)
    return {kind: {"num_inference_steps": 4, "guidance_scale": 1.0} for kind in ("image", "video")}


def safety_of(source, row) -> tuple | None:
    """The checkpoint's own safety checker and its processor; None where it brings none."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    folder = fetch(str(source), ("safety_checker", "feature_extractor"), row)
    if not (folder / "safety_checker").is_dir():
        return None
    with quietly():
        checker = StableDiffusionSafetyChecker.from_pretrained(folder / "safety_checker")
        look = CLIPImageProcessor.from_pretrained(folder / "feature_extractor")
    return checker.eval(), look
