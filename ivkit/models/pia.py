"""The PIA layout: Stable Diffusion, and on it a motion adapter with a condition picture.

Serves the storybook and any SD 1.5 checkpoint with `openmmlab/PIA-condition-adapter`. The video
network sees cat(z_t [C], affinity mask [1], condition latents [C]) on channels. Both networks hold
the very same spatial modules, so memory is not doubled and a LoRA made for pictures works in video.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..support.validate import warn
from .common import (
    Branch,
    Speed,
    at_once,
    computing,
    guide,
    kept,
    kept_text,
    posterior_of,
    rows_at_once,
)
from .hub import fetch, pipeline_of, quietly, read
from .lora import add_lora, find, merge_folder
from .memory import Plan, level, retried
from .motion import Network
from .protocol import Prediction
from .sd import BASE, CLIP_SCHEDULE, base_parts, safety_of, to_few_step

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
    """cat(z_t, affinity mask, condition) on channels: (B, F, C, h, w) -> (B, 2C + 1, F, h, w)."""
    b, f, _, h, w = z_t.shape
    mask = affinity[:, :, None, None, None].expand(b, f, 1, h, w)
    return torch.cat([z_t, mask, condition], 2).transpose(1, 2)


@dataclass(frozen=True)
class Condition:
    """What one branch of a PIA-layout network sees besides z_t."""

    text: Tensor  # (rows, tokens, width): uncond and cond, or cond alone where guidance is off
    latents: Tensor | None  # (F, C, h, w), one condition picture for each frame; None for a picture
    affinity: Tensor | None  # (F, 1, h, w)
    guidance_scale: float | Tensor


@dataclass
class PIAModel:
    """See `VideoModel` for the members. `dtype` bfloat16 on a CPU means autocast; elsewhere the
    networks are held in `dtype` themselves. The text encoder stays as it is given."""

    name: str
    unet: Any
    video_unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    schedulers: dict[str, Any]  # "image", "video": diffusers schedulers
    defaults: dict[str, dict[str, Any]]
    num_frames: int = 16
    affinity: tuple = AFFINITY
    words: frozenset[str] | None = None  # all that the text encoder knows; None where it is open
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    taesd: Any = None  # a tiny autoencoder for previews
    safety: tuple | None = None  # the checkpoint's safety checker and its processor
    round_trip_db: float | None = None  # a picture below this is foreign to the autoencoder
    decode_slice: int = 2
    plan: Plan | None = None  # how much memory a call may take, see `memory`; None: all at once
    speed: Speed = field(default_factory=Speed, repr=False)
    changed: int = 0  # how often weights were changed, as by a LoRA
    folder: Path | None = None
    _codes: dict[tuple, Tensor] = field(default_factory=dict)
    _texts: dict[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"PIAModel({self.name!r}, {self.size}, {self.device}, {self.dtype})"

    per_frame = True

    def __post_init__(self):
        levels = len(self.vae.config.block_out_channels) - 1
        self.cell = 2**levels
        self.multiple = self.cell * 2 ** (len(self.unet.config.block_out_channels) - 1)
        self.channels = self.unet.config.in_channels
        side = self.unet.config.sample_size * self.cell
        self.size = (side, side)
        inside = torch.float32 if self.device.type == "cpu" else self.dtype
        for part in (self.unet, self.video_unet, self.vae, self.taesd):
            if part is not None:
                torch.nn.Module.to(part, self.device, inside).eval().requires_grad_(False)
        self.text_encoder.to(self.device).eval().requires_grad_(False)
        self.vae.to(memory_format=torch.channels_last)

    # ---------------------------------------------------------------------------------- text

    def check_text(self, text: str, argument: str) -> str:
        if not isinstance(text, str):
            raise TypeError(f"{argument} must be a text, got {type(text).__name__}")
        if not text.strip():
            raise ValueError(f"{argument} is empty: say in words what there is or what happens")
        if self.words is not None:
            for word in re.findall(r"[^\W\d_]+|\d|[^\w\s]", text.lower()):
                if word not in self.words:
                    near = difflib.get_close_matches(word, self.words, 4, 0.6)
                    hint = f"; near it are {', '.join(near)}" if near else ""
                    raise ValueError(
                        f"{argument} has the word {word!r}, which {self.name} does not know{hint}"
                    )
        ids = self.tokenizer(text).input_ids
        longest = self.tokenizer.model_max_length
        if len(ids) > longest:
            raise ValueError(
                f"{argument} is {len(ids) - 2} tokens long; {self.name} reads {longest - 2}"
            )
        return text

    @kept_text
    def encode_text(self, text: str) -> Tensor:
        """(1, tokens, width)."""
        longest = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            text, padding="max_length", max_length=longest, truncation=True, return_tensors="pt"
        )
        return self.text_encoder(tokens.input_ids.to(self.device))[0]

    def _text_rows(self, branch: Branch) -> Tensor:
        return torch.cat([self.encode_text(t) for t in branch.texts]).to(self.unet.dtype)

    # ------------------------------------------------------------------------------- pictures

    def scheduler(self, num_inference_steps: int, kind: str = "video", shape=None):
        scheduler = copy.deepcopy(self.schedulers[kind])
        scheduler.set_timesteps(num_inference_steps, device=self.device)
        return scheduler

    def noise(self, num_frames: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        w, h = (side // self.cell for side in size)
        drawn = torch.randn(1, self.channels, num_frames, h, w, generator=generator)
        return drawn[0].transpose(0, 1).to(self.device)

    def image_noise(self, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        w, h = (side // self.cell for side in size)
        return torch.randn(1, self.channels, h, w, generator=generator).to(self.device)

    @kept
    def encode(
        self,
        pixels: Tensor,
        posterior: str = "mode",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        found = []
        for part in pixels.split(at_once(self)):
            part = part.to(self.device, self.vae.dtype, memory_format=torch.channels_last)
            with computing(self.device, self.dtype, self.speed):
                code = self.vae.encode(part)
            z = posterior_of(code, posterior, generator)
            found.append(z.float() * self.vae.config.scaling_factor)
        return torch.cat(found).contiguous()

    @retried
    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        found = []
        z = z.to(self.device) / self.vae.config.scaling_factor
        for part in z.split(at_once(self)):
            part = part.to(self.vae.dtype).contiguous(memory_format=torch.channels_last)
            with computing(self.device, self.dtype, self.speed):
                found.append(self.vae.decode(part).sample.float().clamp(-1, 1))
        return torch.cat(found)

    @retried
    def preview(self, z: Tensor, frame: int) -> Tensor:
        if self.taesd is None:
            return self.decode(z[frame][None])[0]
        with torch.no_grad(), computing(self.device, self.dtype, self.speed):
            found = self.taesd.decode(z[frame][None].to(self.device, self.taesd.dtype)).sample
        return found[0].float().clamp(-1, 1)

    @retried
    @torch.no_grad()
    def hide_unsafe(self, pixels: Tensor) -> Tensor:
        """Black in place of pictures (N, 3, H, W) that the checkpoint's safety checker flags."""
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

    def image_condition(self, text: str, negative: str, guidance_scale: float) -> Condition:
        rows = self._text_rows(Branch(None, text, 1, negative, guidance_scale))
        return Condition(rows, None, None, guidance_scale)

    @retried
    @torch.no_grad()
    def predict_image(self, z: Tensor, t: Tensor, condition: Condition) -> Prediction:
        rows = z.expand(len(condition.text), -1, -1, -1).to(self.device, self.unet.dtype)
        count, outs = rows_at_once(self, len(rows)), []
        for some, text in zip(rows.split(count), condition.text.split(count), strict=True):
            with computing(self.device, self.dtype, self.speed):
                outs.append(self.unet(some, t, text).sample.float())
        return guide(torch.cat(outs)[:, None], condition.guidance_scale)

    # ---------------------------------------------------------------------------------- video

    @retried
    def condition(self, pixels: Tensor, text: str, **asked) -> Condition:
        """asked: the further arguments of `VideoModel.condition`."""
        branch = Branch(pixels, text, **asked)
        return Condition(self._text_rows(branch), *self.picture(branch), branch.guidance_scale)

    def picture(self, branch: Branch) -> tuple[Tensor | None, Tensor | None]:
        """The condition picture's latents and affinity for each frame."""
        mask = self._affinity(branch.motion_scale, branch.num_frames).to(self.device)
        latents = self.encode(branch.pixels, branch.posterior, branch.generator)
        latents = latents.expand(branch.num_frames, -1, -1, -1)
        return latents, mask.view(-1, 1, 1, 1).expand(-1, 1, *latents.shape[-2:])

    def check_clip(self, num_frames: int, size: tuple[int, int]) -> None:
        longest = self.video_unet.config.motion_max_seq_length
        if num_frames > longest:
            raise ValueError(f"num_frames is {num_frames}; {self.name} knows {longest} at most")

    def _affinity(self, motion_scale: int | None, num_frames: int) -> Tensor:
        if motion_scale is None:
            motion_scale = self.defaults["video"]["motion_scale"]
        if motion_scale not in range(len(self.affinity)):
            raise ValueError(
                f"motion_scale must be an integer from 0 (small) to {len(self.affinity) - 1} for "
                f"{self.name}, got {motion_scale!r}"
            )
        row = self.affinity[motion_scale]
        return torch.tensor([row[min(f, len(row) - 1)] for f in range(num_frames)])

    @retried
    @torch.no_grad()
    def predict(self, z: Tensor, t: Tensor, conditions: list[Condition]) -> list[Prediction]:
        z, t = z.to(self.device), torch.as_tensor(t, device=self.device)
        if len(conditions) > 1 and level(self):
            return [self.predict(zb[None], t, [c])[0] for zb, c in zip(z, conditions, strict=True)]
        counts = [len(c.text) for c in conditions]
        rows = [
            torch.cat([v for v in (zb, c.affinity, c.latents) if v is not None], 1)
            .transpose(0, 1)
            .expand(n, -1, -1, -1, -1)
            for zb, c, n in zip(z, conditions, counts, strict=True)
        ]  # each (n, 2C + 1, F, h, w)
        rows, texts = [r.to(self.unet.dtype) for r in rows], [c.text for c in conditions]
        with computing(self.device, self.dtype, self.speed):
            if self.speed.reuse is not None:
                network = self.speed.network or Network.of(self.video_unet)
                outs = self.speed.reuse(network, rows, t, texts, conditions)
            else:
                outs = self._evaluate(torch.cat(rows), t, torch.cat(texts)).split(counts)
        outs = [o.transpose(1, 2).float() for o in outs]
        return [guide(o, c.guidance_scale) for o, c in zip(outs, conditions, strict=True)]

    def _evaluate(self, z: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """(rows, C, F, h, w), as many rows at a time as the plan allows."""
        found, count = [], rows_at_once(self, len(z))
        for rows, texts in zip(z.split(count), text.split(count), strict=True):
            texts = texts.repeat_interleave(z.shape[2], 0)
            whole = self.speed.network or (lambda *inputs: self.video_unet(*inputs).sample)
            found.append(whole(rows, t, texts))
        return torch.cat(found)


# ------------------------------------------------------------------------------------- loading

MEND = "install ivkit anew (pip install --force-reinstall), or fetch that file from its source"


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
    classes = {**BASE, "motion_adapter": "diffusers.MotionAdapter"}
    parts = read(folder, classes, mend=MEND, allow_pickle=allow_pickle)
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

    image_scheduler = parts["scheduler"]
    video_scheduler = parts.get("video_scheduler")
    if video_scheduler is None:
        if image_scheduler.config.prediction_type == "epsilon":  # as PIA was trained
            video_scheduler = DDIMScheduler(**CLIP_SCHEDULE)
        else:
            video_scheduler = image_scheduler
    adapter = parts.get("motion_adapter")
    channels = parts["unet"].config.in_channels
    if cls.per_frame and adapter and adapter.config.conv_in_channels != 2 * channels + 1:
        raise ValueError(
            f"the motion adapter takes {adapter.config.conv_in_channels} channels in, PIA's layout "
            f"needs {2 * channels + 1}: this is no adapter with a condition picture"
        )
    image = {"num_inference_steps": 25, "guidance_scale": 7.5, **facts.get("image", {})}
    video = {"num_inference_steps": 25, "guidance_scale": 7.5, "motion_scale": 0}
    video |= facts.get("video", {})
    return cls(
        name=name,
        unet=parts["unet"],
        video_unet=motion_unet(parts["unet"], adapter) if adapter else None,
        vae=parts["vae"],
        text_encoder=parts["text_encoder"],
        tokenizer=parts["tokenizer"],
        schedulers={"image": image_scheduler, "video": video_scheduler},
        defaults={"image": image, "video": video} if adapter else {"image": image},
        num_frames=facts.get("num_frames", 16),
        affinity=tuple(map(tuple, facts.get("affinity", AFFINITY))),
        words=facts.get("words"),
        taesd=parts.get("taesd"),
        safety=parts.get("safety"),
        round_trip_db=facts.get("round_trip_db"),
        device=device,
        dtype=dtype,
    )


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
    if motion_adapter:
        place = fetch(str(motion_adapter), ("",), row, "motion_adapter")
        with quietly():
            parts["motion_adapter"] = MotionAdapter.from_pretrained(place, **inside)
    if taesd:
        place = fetch(ids.get("taesd", "") if taesd is True else str(taesd), ("",), row, "taesd")
        with quietly():
            parts["taesd"] = AutoencoderTiny.from_pretrained(place, **inside)
    if safety_checker and not Path(source).is_file():
        parts["safety"] = safety_of(source, row)
    if lora is not None:
        add_lora(parts, lora, lora_scale)
    facts = dict(row.settings) if row is not None else {}
    if "few_step" in ids:
        facts |= to_few_step(parts, ids["few_step"])
    name = Path(source).stem if base else row.name
    return build(name, parts, facts, device=device, dtype=dtype, cls=cls)
