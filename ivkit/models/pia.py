"""The PIA layout: Stable Diffusion, and on it a motion adapter with a condition picture.

Serves the storybook and any SD 1.5 checkpoint with `openmmlab/PIA-condition-adapter`. The video
network sees cat(z_t [C], affinity mask [1], condition latents [C]) on channels. Both networks hold
the very same spatial modules, so memory is not doubled and a LoRA made for pictures works in video.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..support.validate import warn
from . import decoder
from .common import Branch, Condition, Family, at_once, computing, guide, kept_text, part_of
from .hub import fetch, pipeline_of, quietly, read
from .lora import add_lora, find, merge_folder
from .memory import retried
from .protocol import Prediction
from .sd import BASE, CLIP_SCHEDULE, base_parts, few_steps, safety_of
from .table import TAESD

# PIA's affinity of each frame to the condition picture, by motion scale; the last value holds on.
# The order is that of PIA's own table (RANGE_LIST in its animatediff/utils/util.py), in which the
# rows of another style begin with the largest motion; diffusers' PIAPipeline has rows 6 and 8
# exchanged.
AFFINITY = (
    (1.0, 0.9, 0.85, 0.85, 0.85, 0.8),  # 0-2: small, moderate, large motion
    (1.0, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75),
    (1.0, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.5),
    (1.0, 0.9, 0.85, 0.85, 0.85, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.85, 0.85, 0.9, 1.0),
    (1.0, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75, 0.75, 0.75, 0.75, 0.75, 0.78, 0.79, 0.8, 0.8, 1.0),
    (1.0, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.5, 0.6, 0.7, 0.7, 0.7, 0.7, 0.8, 1.0),
    (0.5, 0.2),  # 3-5: the same as a loop; 6-8: another style, from large motion to small
    (0.5, 0.4, 0.4, 0.4, 0.35, 0.35, 0.3, 0.25, 0.2),
    (0.5, 0.4, 0.4, 0.4, 0.35, 0.3),
)


def motion_unet(unet, adapter):
    """UNetMotionModel of the very modules of `unet` and `adapter`: shared, not copied.

    conv_in takes its first C channels from the UNet and the others (mask, condition) from the
    adapter, whose own first C are not used. The network's conv_in is a new layer: diffusers'
    `from_unet2d` hands out the adapter's own, so that a second network would overwrite the first,
    and takes C to be 4.
    """
    from diffusers import UNetMotionModel

    with torch.device("meta"):  # nothing is made that will be replaced
        model = UNetMotionModel.from_unet2d(unet, adapter, load_weights=False)
    blocks = [
        *zip(model.down_blocks, unet.down_blocks, adapter.down_blocks, strict=True),
        *zip(model.up_blocks, unet.up_blocks, adapter.up_blocks, strict=True),
        (model.mid_block, unet.mid_block, adapter.mid_block),
    ]
    for block, spatial, motion in blocks:
        for part in ("resnets", "attentions", "downsamplers", "upsamplers"):
            if getattr(spatial, part, None) is not None:
                setattr(block, part, getattr(spatial, part))
        if motion is not None:
            block.motion_modules = motion.motion_modules
    for part in ("time_embedding", "conv_norm_out", "conv_out"):
        setattr(model, part, getattr(unet, part))
    own, extra = unet.conv_in, adapter.conv_in
    if extra is None:  # AnimateDiff: no condition picture
        model.conv_in = own
        return torch.nn.Module.to(model, unet.dtype).eval()
    model.conv_in.to_empty(device=unet.device)
    with torch.no_grad():
        model.conv_in.weight.copy_(torch.cat([own.weight, extra.weight[:, own.in_channels :]], 1))
        model.conv_in.bias.copy_(own.bias)
    return torch.nn.Module.to(model, unet.dtype).eval()


def video_input(z_t: Tensor, condition: Tensor, affinity: Tensor) -> Tensor:
    """cat(z_t, affinity mask, condition) on channels: (B, F, C, h, w) -> (B, 2C + 1, F, h, w).

    affinity: (B, F), or of each cell (B, F, h, w).
    """
    b, f, _, h, w = z_t.shape
    if affinity.dim() == 2:
        affinity = affinity[:, :, None, None].expand(b, f, h, w)
    return torch.cat([z_t, affinity[:, :, None], condition], 2).transpose(1, 2)


@dataclass(repr=False)
class PIAModel(Family):
    """`dtype` bfloat16 on a CPU means autocast; elsewhere the networks are held in `dtype`
    themselves. The text encoder stays in float32.

    parts: "unet", "video_unet" (None where there is no motion adapter), "vae", "text_encoder",
        "tokenizer", "scheduler", "video_scheduler", "taesd" (a tiny autoencoder for previews),
        "safety" (the checkpoint's safety checker and its processor); the last three may be missing.
    """

    affinity: tuple = AFFINITY
    decode_chunk_size: int = 2

    IMAGE = {"num_inference_steps": 25, "guidance_scale": 7.5}
    VIDEO = {**IMAGE, "motion_scale": 0}
    float_parts = ("text_encoder",)

    unet, video_unet, text_encoder = part_of("unet"), part_of("video_unet"), part_of("text_encoder")
    taesd, safety = part_of("taesd"), part_of("safety")

    def layout(self) -> None:
        super().layout()
        self.size = (self.unet.config.sample_size * self.vae_scale_factor,) * 2
        self.max_tokens = self.tokenizer.model_max_length
        self.vae.to(memory_format=torch.channels_last)
        if self.video_unet is None:
            del self.defaults["video"]
        else:
            self.longest = self.video_unet.config.motion_max_seq_length

    @kept_text
    def encode_text(self, text: str) -> Tensor:
        """(1, tokens, width)."""
        return self.part("text_encoder")(self.tokens(text).input_ids)[0]

    def text_rows(self, branch: Branch) -> Tensor:
        return torch.cat([self.encode_text(t) for t in branch.texts]).to(self.unet.dtype)

    # ------------------------------------------------------------------------------- pictures

    def image_noise(self, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        w, h = (side // self.vae_scale_factor for side in size)
        return torch.randn(1, self.channels, h, w, generator=generator).to(self.device)

    def preview(self, z: Tensor, frame: int) -> Tensor:
        if self.taesd is None:
            return super().preview(z, frame)
        return self.decode_tiny(z[frame][None])[0]

    @retried
    @torch.no_grad()
    def decode_tiny(self, z: Tensor) -> Tensor:
        tiny, found = self.part("taesd"), []
        for some in z.split(at_once(self)):
            with computing(self.device, self.dtype):
                found.append(tiny.decode(some.to(self.device, tiny.dtype)).sample)
        return torch.cat(found).float().clamp(-1, 1)

    @retried
    @torch.no_grad()
    def hide_unsafe(self, pixels: Tensor) -> Tensor:
        if self.safety is None:
            return pixels
        checker, look = self.safety
        shares = list((pixels.float().cpu() + 1) / 2)
        seen = look(images=shares, do_rescale=False, return_tensors="pt")
        blank = [torch.zeros(1, 1, 3).numpy() for _ in pixels]  # it blackens these; ours are torch
        _, flagged = checker(images=blank, clip_input=seen.pixel_values)
        if any(flagged):
            warn(
                f"{self.name}'s safety checker hid a picture: take another seed or text, or load "
                "it with safety_checker=False"
            )
        keep = torch.tensor([0.0 if bad else 1.0 for bad in flagged], device=pixels.device)
        return torch.where(keep.view(-1, 1, 1, 1) > 0, pixels, -torch.ones_like(pixels))

    def image_condition(self, text: str, negative_prompt: str, guidance_scale: float) -> Condition:
        rows = {"text": self.text_rows(Branch(None, text, 1, negative_prompt, guidance_scale))}
        return Condition(rows, guidance_scale)

    @retried
    @torch.no_grad()
    def predict_image(self, z: Tensor, t: Tensor, condition: Condition) -> Prediction:
        rows = z.expand(len(condition), -1, -1, -1).to(self.device)
        out = self._evaluate(self._image_network, rows, t, condition.rows, condition)
        return guide(out[:, None], condition.guidance_scale)

    def _image_network(self, z: Tensor, t: Tensor, text: Tensor) -> Tensor:
        unet = self.part("unet")
        return unet(z.to(unet.dtype), t, text).sample

    # ---------------------------------------------------------------------------------- video

    @property
    def capabilities(self) -> frozenset[str]:
        known = self.per_frame and self.vocabulary  # a world of its own, of which a share had none
        return super().capabilities | ({"text_only"} if known else set())

    @property
    def motion_scales(self) -> range:
        return range(len(self.affinity))

    def rows(self, branch: Branch) -> dict[str, Tensor]:
        """The text; of each frame its affinity to its condition picture, and that one's latents."""
        known, frames = self.affinity[branch.motion_scale], branch.num_frames
        affinity = torch.tensor([known[min(f, len(known) - 1)] for f in range(frames)])
        latents = self.encode(branch.pixels, branch.posterior, branch.generator)
        latents = latents.expand(frames, -1, -1, -1)
        affinity = affinity.to(latents).view(-1, 1, 1, 1).expand(-1, 1, *latents.shape[-2:])
        return {
            "text": self.text_rows(branch),
            "affinity": affinity[None],
            "latents": latents[None],
        }

    def network(self, z: Tensor, t: Tensor, *, text, affinity=None, latents=None) -> Tensor:
        unet = self.part("video_unet")
        seen = z if latents is None else torch.cat([z, affinity, latents], 2)
        seen = seen.transpose(1, 2).to(unet.dtype)
        predict = self.speed.reuse or self.speed.network or (lambda *inputs: unet(*inputs).sample)
        return predict(seen, t, text.repeat_interleave(z.shape[1], 0)).transpose(1, 2)


# ------------------------------------------------------------------------------------- loading

MEND = "install ivkit anew (pip install --force-reinstall), or fetch that file from its source"
LAYOUT = {**BASE, "motion_adapter": "diffusers.MotionAdapter"}  # of the storybook's folder


def own_parts(folder: Path, *names: str, allow_pickle: bool = False) -> dict[str, Any]:
    """The parts of a folder in the storybook's layout that are named, or all, in float32."""
    wanted = {name: LAYOUT[name] for name in names or LAYOUT}
    return read(folder, wanted, mend=MEND, allow_pickle=allow_pickle)


def load(
    row,
    folder=None,
    *,
    device,
    dtype,
    allow_pickle: bool = False,
    lora=None,
    lora_scale: float = 1.0,
    **options,
) -> PIAModel:
    """Load from a folder in diffusers' layout, or the hub ids of `row` (see models/table.py).

    lora, lora_scale: a LoRA that is merged in, for pictures and clips alike.
    options: the others of `from_base`, for a Stable Diffusion checkpoint.
    """
    from . import storybook_folder

    options |= {} if lora is None else {"lora": lora, "lora_scale": lora_scale}
    if options.get("base") or (folder is None and row.ids):
        return from_base(row, device=device, dtype=dtype, allow_pickle=allow_pickle, **options)
    folder = folder or storybook_folder()
    if not (folder / "motion_adapter").is_dir() and pipeline_of(folder):  # pictures alone
        options = {"base": folder, "allow_pickle": allow_pickle, **options}
        return from_base(None, device=device, dtype=dtype, **options)
    if unknown := options.keys() - {"lora", "lora_scale"}:
        raise TypeError(f"{min(unknown)!r} is no option of {folder.name}")
    facts_file = folder / "storybook.json"
    facts = json.loads(facts_file.read_text()) if facts_file.is_file() else {}
    parts = own_parts(folder, allow_pickle=allow_pickle)
    if (folder / decoder.FILE).is_file():
        parts["taesd"] = decoder.beside(parts["vae"], folder)
    words = facts.get("words")
    if facts and words is None:  # every whole word that has an embedding
        known = parts["text_encoder"].config.vocab_size
        vocab = parts["tokenizer"].get_vocab().items()
        words = [t.removesuffix("</w>") for t, i in vocab if t.endswith("</w>") and i < known]
    facts["words"] = frozenset(words) if words else None
    if lora is not None:
        add_lora(parts, lora, lora_scale)
    few = row is not None and row.few_step
    if few:
        find(folder / "few_step")  # before the work of building
        facts |= facts.get("few_step", {})
    model = build(row.name if row else folder.name, parts, facts, device=device, dtype=dtype)
    model.folder = folder
    if few:
        merge_folder(model.video_unet, folder / "few_step")
    return model


def build(
    name: str, parts: dict[str, Any], facts: dict, *, device, dtype, cls=PIAModel
) -> PIAModel:
    """A model from diffusers' parts: unet, vae, text_encoder, tokenizer, motion_adapter, scheduler.

    facts: what storybook.json holds; each may be missing: "image" and "video" (the defaults of
    each), "num_frames", "affinity" (rows by motion scale), "words", "round_trip_db".
    """
    from diffusers import DDIMScheduler

    parts = dict(parts)
    if parts["scheduler"].config.prediction_type == "epsilon":  # as PIA was trained
        parts.setdefault("video_scheduler", DDIMScheduler(**CLIP_SCHEDULE))
    adapter, channels = parts.pop("motion_adapter", None), parts["unet"].config.in_channels
    if cls.per_frame and adapter and adapter.config.conv_in_channels != 2 * channels + 1:
        raise ValueError(
            f"the motion adapter takes {adapter.config.conv_in_channels} channels in, PIA's layout "
            f"needs {2 * channels + 1}: this is no adapter with a condition picture"
        )
    if adapter:
        parts["video_unet"] = motion_unet(parts["unet"], adapter)
    model = cls(
        name,
        parts,
        device,
        dtype,
        num_frames=facts.get("num_frames"),
        defaults=facts,
        affinity=tuple(map(tuple, facts.get("affinity", AFFINITY))),
    )
    model.vocabulary, model.round_trip_db = facts.get("words"), facts.get("round_trip_db")
    return model


def from_base(
    row,
    *,
    device,
    dtype,
    cls=PIAModel,
    base=None,
    config=None,
    motion_adapter=None,
    lora=None,
    lora_scale: float = 1.0,
    taesd: bool | str = False,
    safety_checker: bool = True,
    allow_pickle: bool = False,
) -> PIAModel:
    """A Stable Diffusion checkpoint, with a motion adapter where the row or the call names one.

    base: a hub id, a folder or a single safetensors file in place of the row's own checkpoint.
    config: for a single file, the folder or id whose configs it goes with, if not SD 1.5's.
    motion_adapter: an id or a folder in place of the row's own.
    lora, lora_scale: a LoRA that is merged in, for pictures and clips alike.
    taesd: previews through the tiny autoencoder (True: the table's; or an id or folder).
    safety_checker: use the checkpoint's own on pictures, where it brings one.
    """
    from diffusers import AutoencoderTiny, MotionAdapter

    ids = row.ids if row is not None else {}
    source = base or ids["base"]
    motion_adapter = motion_adapter or ids.get("motion_adapter")
    parts = base_parts(source, row, config, allow_pickle)
    inside = {"torch_dtype": torch.float32, "use_safetensors": True}
    more = {"motion_adapter": (motion_adapter, MotionAdapter)}
    more["taesd"] = ids.get("taesd", TAESD) if taesd is True else taesd, AutoencoderTiny
    for part, (place, kind) in more.items():
        if place:
            place = fetch(str(place), ("",), row, part)
            with quietly():
                parts[part] = kind.from_pretrained(place, **inside)
    if safety_checker and not Path(source).is_file():
        parts["safety"] = safety_of(source, row)
    if lora is not None:
        add_lora(parts, lora, lora_scale)
    facts = dict(row.settings) if row is not None else {}
    if "few_step" in ids:
        add_lora(parts, ids["few_step"])
        facts |= few_steps(parts)
    name = Path(source).stem if base else row.name
    return build(name, parts, facts, device=device, dtype=dtype, cls=cls)
