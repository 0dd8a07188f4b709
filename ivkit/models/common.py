"""What all families have in common: text, latents, noise, guidance, rows in a batch.

A family adds `layout`, `rows` and `network`; the loops see `protocol.VideoModel`.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import functools
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from PIL import Image
from torch import Tensor

from ..pictures import to_pictures
from ..support.validate import once, warn
from .memory import Plan, level, ran_out, retried
from .protocol import Prediction, alone

KEPT_CODES = 4  # clips whose latents are kept


@dataclass(frozen=True)
class Condition:
    """What one branch feeds its network besides z_t, ready for the batch.

    rows: tensors by the name that `network` takes them under, each (rows, ...), where rows are
        uncond and cond, or cond alone where guidance is off.
    """

    rows: dict[str, Tensor]
    guidance_scale: float | Tensor

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))

    @property
    def text(self) -> Tensor:
        """(rows, tokens, width)."""
        return self.rows["text"]

    @property
    def latents(self) -> Tensor:
        """One condition picture for each frame, (F, C, h, w), where it is concatenated."""
        return self.rows["latents"][-1]

    @property
    def affinity(self) -> Tensor:
        """Of each frame to its condition picture in the PIA layout, (F, 1, h, w)."""
        return self.rows["affinity"][-1]


@dataclass
class Branch:
    """What one branch is asked for: the arguments of `VideoModel.condition`."""

    pixels: Tensor
    text: str
    num_frames: int
    negative_prompt: str = ""
    guidance_scale: float | Tensor = 1.0
    motion_scale: float | None = None
    posterior: str = "mode"
    generator: torch.Generator | None = None

    @property
    def guided(self) -> bool:
        return guided(self.guidance_scale)

    @property
    def texts(self) -> list[str]:
        """One for each row: uncond and cond, or cond alone."""
        return [self.negative_prompt, self.text] if self.guided else [self.text]


def guided(guidance_scale: float | Tensor) -> bool:
    """Whether classifier-free guidance is on: above 1 for any frame."""
    return float(torch.as_tensor(guidance_scale).max()) > 1


def guide(rows: Tensor, guidance_scale: float | Tensor) -> Prediction:
    """Classifier-free guidance of (rows, ...) in the order uncond, cond."""
    if len(rows) == 1:
        return Prediction(rows[0])
    if isinstance(guidance_scale, Tensor):
        guidance_scale = guidance_scale.to(rows)
    uncond, cond = rows
    return Prediction(cond, uncond, guidance_scale)


@dataclass
class Speed:
    """What `speed.speed_up` has switched on for a model; by default nothing.

    Attributes:
        one_shape: branches are evaluated one by one, so that one compiled shape serves all.
        one_frame: the autoencoder takes one frame at a time, for the same reason.
        network: a motion UNet compiled or recorded, see `motion.Network`.
        reuse: the same with its deep features kept over steps, see `motion.Reuse`.
        cached: whether the hooks of diffusers' first-block cache are on.
        undo: callbacks that leave the model as it was; renew: those that follow changed weights.
    """

    one_shape: bool = False
    one_frame: bool = False
    network: Any = None
    reuse: Any = None
    cached: bool = False
    undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)
    renew: list[Callable[[], None]] = field(default_factory=list, repr=False)

    @property
    def keeps(self) -> bool:
        """Whether something is kept of a branch from step to step, each evaluated alone then."""
        return self.cached or self.reuse is not None


def computing(device: torch.device, dtype: torch.dtype):
    """Around one call of a network: bf16 autocast on CPUs; a GPU's networks are in `dtype`."""
    if device.type == "cpu" and dtype != torch.float32:
        return torch.autocast("cpu", dtype)
    return contextlib.nullcontext()


def at_once(model) -> int:
    """Frames in one call of the autoencoder."""
    return 1 if model.speed.one_frame or level(model) else model.decode_chunk_size


def rows_at_once(model, rows: int) -> int:
    """Of so many rows of a batch, those in one call of the network."""
    return 1 if level(model) >= 2 else rows


def posterior_of(code, posterior: str, generator: torch.Generator | None) -> Tensor:
    """The latent of an autoencoder's answer: the posterior's mode, or a sample of it."""
    if not hasattr(code, "latent_dist"):  # a tiny autoencoder has no posterior
        return code.latents
    dist = code.latent_dist
    return dist.mode() if posterior == "mode" else dist.sample(generator)


def pil(pixels: Tensor) -> Image.Image:
    """(1, 3, H, W) in [-1, 1] as PIL RGB, for CLIP's image processors."""
    return to_pictures(pixels.float())[0]


def moved_cells(pixels: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Where a warped clip (N, 3, H, W) differs from its first frame, (1, F, h, w) of 0 and 1.

    shape: (F, h, w).
    """
    moved = (pixels - pixels[:1]).abs().amax(1) > 1 / 127
    return to_cells(moved.float(), shape)


def to_cells(mask: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """A mask by pixel (N, H, W) as one of whole cells, (1, F, h, w); shape: (F, h, w).

    A video autoencoder's first latent frame holds the first frame of the clip alone.
    """
    pool = torch.nn.functional.adaptive_max_pool3d
    if shape[0] in (1, len(mask)):
        return pool(mask[None], shape)
    first = pool(mask[None, :1], (1, *shape[1:]))
    return torch.cat([first, pool(mask[None, 1:], (shape[0] - 1, *shape[1:]))], 1)


def cast(part: torch.nn.Module, dtype: torch.dtype) -> None:
    """Hold `part` in `dtype`, except the layers that its class keeps in float32 and the buffers
    that are not saved (rotary angles lose their meaning in half precision): as `from_pretrained`
    does."""
    keep = set(getattr(part, "_keep_in_fp32_modules", None) or ())
    for name, weight in part.state_dict(keep_vars=True).items():
        if not weight.is_floating_point():
            continue
        wanted = torch.float32 if keep & set(name.split(".")) else dtype
        weight.data = weight.data.to(wanted)


def kept(encode):
    """Of an `encode` method: the latest pictures' latents are kept, as edits come back to them.

    What is handed out is a copy, here and in `kept_text`: who writes into it changes no later clip.
    """

    encode = retried(encode)

    @functools.wraps(encode)
    @alone
    @torch.no_grad()
    def look(self, pixels: Tensor, posterior: str = "mode", generator=None) -> Tensor:
        pixels = pixels.detach().float()
        if posterior != "mode":
            return encode(self, pixels, posterior, generator)
        values = pixels.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        key = (tuple(pixels.shape), pixels.dtype, hashlib.blake2b(values).digest())
        if key not in self._codes:
            self._codes[key] = encode(self, pixels, posterior, generator)
            for old in list(self._codes)[:-KEPT_CODES]:
                del self._codes[old]
        return self._codes[key].clone()

    return look


def kept_text(encode_text):
    """Of an `encode_text` method: what it finds is kept, because one text serves many runs."""
    encode_text = retried(encode_text)

    @functools.wraps(encode_text)
    @alone
    @torch.no_grad()
    def look(self, text: str):
        if text not in self._texts:
            self._texts[text] = encode_text(self, text)
        return copy.deepcopy(self._texts[text])

    return look


def part_of(name: str) -> property:
    """A part of a model by its name in `parts`; None where it has none."""

    def put(model, part) -> None:
        model.parts[name] = part

    return property(lambda model: model.parts.get(name), put)


@dataclass
class Family:
    """See `VideoModel` for the members.

    parts: diffusers' and transformers' modules by their names in model_index.json.
    offload: keep only the part at work on the device.
    plan: how much memory a call may take, see `memory`; None is all at once.
    schedulers: one of diffusers for "image", for "video", or both.
    changed: how often weights were changed, as by a LoRA.
    """

    name: str
    parts: dict[str, Any]
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    size: tuple[int, int] | None = None
    num_frames: int | None = None
    defaults: dict[str, dict[str, Any]] = field(default_factory=dict)
    offload: bool = False
    plan: Plan | None = field(default=None, init=False)
    speed: Speed = field(default_factory=Speed, init=False, repr=False)
    vocabulary: frozenset[str] | None = field(default=None, init=False, repr=False)
    round_trip_db: float | None = field(default=None, init=False)
    folder: Path | None = field(default=None, init=False)
    schedulers: dict[str, Any] = field(init=False, repr=False)
    changed: int = field(default=0, init=False)
    _working: Any = field(default=None, init=False, repr=False)  # the part that is not waiting
    _latest: float = field(default=float("inf"), init=False, repr=False)
    _codes: dict[tuple, Tensor] = field(default_factory=dict, init=False, repr=False)
    _texts: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    SIZE = (512, 512)  # the family's own, where the checkpoint names none
    FRAMES = 16
    IMAGE = None  # settings of P_img, where there is one, and of P_video
    VIDEO = {"num_inference_steps": 25, "guidance_scale": 7.5}
    max_tokens = 0  # 0: takes no text
    mask_text = False  # whether the text encoder is told which tokens are padding
    stride = 1  # frames of one latent frame, after the first
    frames_by = 0  # a clip has a multiple of these frames and one more; 0 takes `stride`
    longest = None  # frames of a clip at most
    frames_first = False  # whether noise is drawn frame by frame, or channel by channel
    float_parts = ()  # parts that are held in float32 whatever the dtype
    per_frame = True  # each frame can have its own condition picture
    motion_scales = None  # the range of `motion_scale`; None: the model has none
    whole_clip = False  # whether its autoencoder takes a clip as one, (1, C, F, h, w)
    decode_chunk_size = 1  # else the frames in one call

    vae, tokenizer = part_of("vae"), part_of("tokenizer")
    cell = once("cell", "vae_scale_factor")
    decode_slice = once("decode_slice", "decode_chunk_size")

    def __post_init__(self):
        self.size, self.num_frames = self.size or self.SIZE, self.num_frames or self.FRAMES
        own = {"image": self.IMAGE, "video": self.VIDEO}
        self.defaults = {
            kind: {**known, **self.defaults.get(kind, {})} for kind, known in own.items() if known
        }
        inside = torch.float32 if self.device.type == "cpu" else self.dtype
        for name, part in self.parts.items():
            if isinstance(part, torch.nn.Module):
                cast(part, torch.float32 if name in self.float_parts else inside)
                part.eval().requires_grad_(False)
        self.place()
        self.layout()
        self.schedulers = {
            kind: self.parts.get(f"{kind}_scheduler", self.parts["scheduler"])
            for kind in self.defaults
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.size}, {self.device}, {self.dtype})"

    def layout(self) -> None:
        """Set `vae_scale_factor`, `multiple` and `channels` from the parts, here a UNet."""
        vae, unet = self.vae.config, self.parts["unet"].config
        self.vae_scale_factor = 2 ** (len(vae.block_out_channels) - 1)
        self.multiple = self.vae_scale_factor * 2 ** (len(unet.block_out_channels) - 1)
        self.channels = unet.out_channels

    @property
    def capabilities(self) -> frozenset[str]:
        tiny = self.parts.get("taesd") is not None
        able = {"text": self.max_tokens, "per_frame": self.per_frame, "tiny_decoder": tiny}
        return frozenset({*self.defaults, *(name for name, can in able.items() if can)})

    @property
    def networks(self) -> dict[str, torch.nn.Module]:
        names = ("unet", "video_unet", "transformer", "transformer_2")
        return {n: self.parts[n] for n in names if self.parts.get(n) is not None}

    @alone
    def weights_changed(self) -> None:
        self.changed += 1
        self.clear_cache()

    @alone
    def clear_cache(self) -> None:
        for follow in self.speed.renew:
            follow()
        self._codes.clear()
        self._texts.clear()

    # ------------------------------------------------------------------------- where parts are

    def modules(self) -> list[torch.nn.Module]:
        return [part for part in self.parts.values() if isinstance(part, torch.nn.Module)]

    def place(self) -> None:
        """Every part on the device, or on the CPU until its turn where `offload` is set.

        Where not all of them fit on the device they take turns.
        """
        self._working = None
        try:
            for part in self.modules():
                torch.nn.Module.to(part, "cpu" if self.offload else self.device)
        except RuntimeError as error:
            if self.offload or not ran_out(error):
                raise
            self.offload = True
            self.place()
            clear_device_cache()

    def part(self, name: str) -> torch.nn.Module:
        """A part on the device; with `offload` it is alone there."""
        part = self.parts[name]
        if self.offload and self._working is not part:
            self._working = None
            for other in self.modules():
                if other is not part:
                    torch.nn.Module.to(other, "cpu")
            self._working = torch.nn.Module.to(part, self.device)
        return part

    # ---------------------------------------------------------------------------------- text

    def check_text(self, text: str, argument: str) -> str:
        if not isinstance(text, str):
            raise TypeError(f"{argument} must be a text, got {type(text).__name__}")
        if not self.max_tokens:
            if text.strip() and argument == "motion":
                warn(
                    f"{self.name} takes no text: what moves is not read from {argument}; "
                    "motion_scale says how much"
                )
            return text
        if not text.strip():
            raise ValueError(f"{argument} is empty: say in words what there is or what happens")
        if self.vocabulary is not None:
            self._check_words(text, argument)
        added = self.tokenizer.num_special_tokens_to_add()
        found, most = len(self.tokenizer(text).input_ids) - added, self.max_tokens - added
        if found > most:
            raise ValueError(f"{argument} is {found} tokens long; {self.name} reads {most}")
        return text

    def _check_words(self, text: str, argument: str) -> None:
        for word in re.findall(r"[^\W\d_]+|\d|[^\w\s]", text.lower()):
            if word not in self.vocabulary:
                near = difflib.get_close_matches(word, self.vocabulary, 4, 0.6)
                hint = f"; near it are {', '.join(near)}" if near else ""
                raise ValueError(
                    f"{argument} has the word {word!r}, which {self.name} does not know{hint}"
                )

    def tokens(self, text: str):
        """`input_ids` and `attention_mask`, (1, tokens), padded to the length that is read."""
        return self.tokenizer(
            self.clean(text),
            padding="max_length",
            max_length=self.max_tokens,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)

    def clean(self, text: str) -> str:
        return text

    @kept_text
    def encode_text(self, text: str) -> tuple[Tensor, Tensor]:
        """(1, tokens, width) and its mask (1, tokens)."""
        tokens = self.tokens(text)
        mask = tokens.attention_mask
        options = {"attention_mask": mask} if self.mask_text else {}
        with computing(self.device, self.dtype):
            found = self.part("text_encoder")(tokens.input_ids, **options)[0]
        return found * mask[..., None] if self.mask_text else found, mask

    def text_rows(self, branch: Branch) -> tuple[Tensor, Tensor]:
        """Embeddings (rows, tokens, width) and masks (rows, tokens) of uncond and cond."""
        return tuple(map(torch.cat, zip(*map(self.encode_text, branch.texts), strict=True)))

    # ------------------------------------------------------------------------------- latents

    def scheduler(self, num_inference_steps: int, kind: str = "video", shape=None):
        scheduler = copy.deepcopy(self.schedulers[kind])
        scheduler.set_timesteps(num_inference_steps, device=self.device)
        return scheduler

    def check_clip(self, num_frames: int, size: tuple[int, int]) -> None:
        every = self.frames_by or self.stride
        if (num_frames - 1) % every:
            below = (num_frames - 1) // every * every + 1
            raise ValueError(
                f"num_frames must be a multiple of {every} and one more for {self.name}, "
                f"such as {below} or {below + every}, got {num_frames}"
            )
        if self.longest is not None and num_frames > self.longest:
            raise ValueError(
                f"num_frames is {num_frames}; {self.name} knows {self.longest} at most"
            )

    def check_motion_scale(self, motion_scale: float | None) -> None:
        known = self.motion_scales
        if known is not None and motion_scale not in known:
            raise ValueError(
                f"motion_scale must be an integer from 0 (little) to {known[-1]} for {self.name}, "
                f"got {motion_scale!r}"
            )

    def latent_frames(self, num_frames: int) -> int:
        return (num_frames - 1) // self.stride + 1

    def noise(self, num_frames: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        w, h = (side // self.vae_scale_factor for side in size)
        frames, channels = self.latent_frames(num_frames), self.channels
        if self.frames_first:
            return torch.randn(frames, channels, h, w, generator=generator).to(self.device)
        drawn = torch.randn(channels, frames, h, w, generator=generator)
        return drawn.transpose(0, 1).to(self.device)

    @property
    def latent_scale(self) -> tuple[Any, Any, float]:
        """Mean and deviation by channel, or None, and the factor: (z - mean) / deviation x factor
        is what the network sees of the autoencoder's z."""
        config = self.vae.config
        return None, None, config.scaling_factor

    def encode_pixels(self, pixels: Tensor):
        """What the autoencoder says of frames (N, 3, H, W), or of a clip (1, 3, N, H, W)."""
        vae = self.part("vae")
        return vae.encode(pixels.to(self.device, vae.dtype))

    def decode_latents(self, z: Tensor) -> Tensor:
        """The autoencoder's own latents to pixels; the shapes are those of `encode_pixels`."""
        vae = self.part("vae")
        return vae.decode(z.to(vae.dtype)).sample

    @kept
    def encode(
        self,
        pixels: Tensor,
        posterior: str = "mode",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        found, (mean, deviation, factor) = [], self.latent_scale
        for some in self._pieces(pixels):
            with computing(self.device, self.dtype):
                code = self.encode_pixels(some)
            found.append(self._as_frames(posterior_of(code, posterior, generator)).float())
        z = torch.cat(found)
        if mean is not None:
            z = normalise(z, mean, deviation)
        return (z * factor).contiguous()

    @retried
    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        found, (mean, deviation, factor) = [], self.latent_scale
        z = z.to(self.device) / factor
        if mean is not None:
            z = normalise(z, mean, deviation, back=True)
        for some in self._pieces(z):
            with computing(self.device, self.dtype):
                pixels = self.decode_latents(some)
            found.append(self._as_frames(pixels).float().clamp(-1, 1))
        return torch.cat(found)

    def _pieces(self, frames: Tensor) -> tuple[Tensor, ...]:
        """What goes through the autoencoder in one call: some frames, or the clip as one."""
        if self.whole_clip:
            return (frames.transpose(0, 1)[None],)
        return frames.split(at_once(self))

    def _as_frames(self, found: Tensor) -> Tensor:
        return found[0].transpose(0, 1) if self.whole_clip else found

    @retried
    def preview(self, z: Tensor, frame: int) -> Tensor:
        """Of a frame that stands for several, the last."""
        return self.decode(z[frame][None])[-1]

    # ---------------------------------------------------------------------------------- video

    @retried
    def condition(self, pixels: Tensor, text: str, **asked) -> Condition:
        """asked: the further arguments of `VideoModel.condition`."""
        branch = Branch(pixels, text, **asked)
        if branch.motion_scale is None:
            branch.motion_scale = self.defaults["video"].get("motion_scale")
        self.check_motion_scale(branch.motion_scale)
        count, rows = 2 if branch.guided else 1, self.rows(branch)
        rows = {k: v.expand(count, *v.shape[1:]) if len(v) == 1 else v for k, v in rows.items()}
        return Condition(rows, branch.guidance_scale)

    def where_moved(self, given: Tensor, pixels: Tensor) -> Tensor:
        """`given` (F, C, h, w), with a warped clip's latents where it leaves its first frame."""
        if len(pixels) == 1:
            return given
        moved = moved_cells(pixels, (len(given), *given.shape[-2:])).transpose(0, 1)
        return torch.lerp(given, self.encode(pixels), moved.to(given))

    def rows(self, branch: Branch) -> dict[str, Tensor]:
        """What `network` takes besides z and t, by name: one row, which serves both, or two."""
        raise NotImplementedError

    @retried
    @torch.no_grad()
    def predict(self, z: Tensor, t: Tensor, conditions: list[Condition]) -> list[Prediction]:
        z, t = z.to(self.device), torch.as_tensor(t, device=self.device)
        if len(conditions) > 1 and (self.speed.keeps or level(self)):  # each branch on its own
            return [self.predict(zb[None], t, [c])[0] for zb, c in zip(z, conditions, strict=True)]
        counts = [len(c) for c in conditions]
        rows = torch.cat([zb.expand(n, *zb.shape) for zb, n in zip(z, counts, strict=True)])
        inputs = {k: torch.cat([c.rows[k] for c in conditions]) for k in conditions[0].rows}
        parts = self._evaluate(self.network, rows, t, inputs, conditions[0]).split(counts)
        return [guide(o, c.guidance_scale) for o, c in zip(parts, conditions, strict=True)]

    def _evaluate(self, network, rows: Tensor, t: Tensor, inputs, condition) -> Tensor:
        """As many rows at a time as the plan allows."""
        found, count = [], rows_at_once(self, len(rows))
        for start in range(0, len(rows), count):
            some = slice(start, start + count)
            branch = self._branch(condition, start, t)
            with computing(self.device, self.dtype), branch:
                out = network(rows[some], t, **{k: v[some] for k, v in inputs.items()})
            found.append(out.float())
        return torch.cat(found)

    @contextlib.contextmanager
    def _branch(self, condition: Condition, start: int, t: Tensor):
        """What is kept of a branch from step to step is its own: deep features, or what diffusers'
        cache hooks keep. That begins anew for each run, and after an interrupt, which may leave it
        half renewed."""
        if self.speed.reuse is not None:
            self.speed.reuse.branch = condition, start
        if not self.speed.cached:
            yield
            return
        with contextlib.ExitStack() as stack:
            for network in self.networks.values():
                if float(t) > self._latest:
                    network._reset_stateful_cache()
                stack.enter_context(network.cache_context(f"{id(condition)} {start}"))
            self._latest = float("-inf")
            yield
            self._latest = float(t)

    def network(self, z: Tensor, t: Tensor, **inputs: Tensor) -> Tensor:
        """The network's native output (rows, F, C, h, w) for z of the same shape."""
        raise NotImplementedError


def normalise(z: Tensor, mean, std, back: bool = False) -> Tensor:
    """Latents (F, C, h, w) with the autoencoder's mean and deviation by channel taken off."""
    mean, std = (
        torch.as_tensor(v, device=z.device, dtype=z.dtype).view(1, -1, 1, 1) for v in (mean, std)
    )
    return z * std + mean if back else (z - mean) / std
