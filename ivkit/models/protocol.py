"""What P_img and P_video ask of a model: text and pictures in, predictions out.

The loops in `image.py` and `video.py` know nothing of any family. A family is one class with the
members below; what a branch feeds its network (concatenated latents, a replaced first frame, an
image embedding, a guidance scale per frame ...) stays inside its own `condition` object.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

_LOCK = threading.RLock()


class _Alone(contextlib.ContextDecorator):
    # The lock's own two: with a line of ours between, an interrupt could leave it locked.
    __enter__, __exit__ = _LOCK.__enter__, _LOCK.__exit__


#: `@alone` or `with alone:`, one thread at a time. Networks, their autoencoders' caches, hooks and
#: torch's switches for attention are shared by whatever runs in this process, so every call of a
#: network, and every step of a run, has them for itself. A run that is left open holds nothing.
alone = _Alone()

Condition = Any  # one branch's inputs besides z_t: made and read by the model alone


def guided(cond: Tensor, uncond: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guidance: uncond + scale (cond - uncond)."""
    return uncond + scale * (cond - uncond)


@dataclass(frozen=True)
class Prediction:
    """One branch's answer at one step, in the network's native output (epsilon, v or flow).

    Each tensor is float32 with the latent's shape, (F, C, h, w) for video, (C, h, w) for a picture.
    `uncond` is None where guidance is off; `guided` is what the branch predicts.
    """

    cond: Tensor
    uncond: Tensor | None = None
    guidance_scale: float | Tensor = 1.0

    @property
    def guided(self) -> Tensor:
        if self.uncond is None:
            return self.cond
        return guided(self.cond, self.uncond, self.guidance_scale)

    @property
    def scale(self) -> Tensor | None:
        """The guidance scale as float32 on the CPU; None where guidance is off."""
        if self.uncond is None:
            return None
        return torch.as_tensor(self.guidance_scale, dtype=torch.float32).cpu()

    def to(self, device) -> Prediction:
        uncond = None if self.uncond is None else self.uncond.to(device)
        return Prediction(self.cond.to(device), uncond, self.guidance_scale)


class VideoModel(Protocol):
    """An image-to-video model (and, with `predict_image`, the picture model that belongs to it).

    Facts: `name`; `device`; `dtype` (of the computation); `vae_scale_factor`, pixels along
    a latent cell; `size`, the (width, height) it was trained at; `multiple`, which sides must be a
    multiple of; `num_frames`;
    `capabilities`, those of "image" (draws pictures), "video" (makes clips), "text" (reads one),
    "per_frame" (each frame can have a condition picture of its own), "tiny_decoder" (has
    `decode_tiny`, a quicker and coarser `decode`) and "text_only" (was trained without the picture,
    too);
    `motion_scales`, the range of what `motion_scale` may be, or None;
    `defaults`, {"image": {...}, "video": {...}} of `num_inference_steps`, `guidance_scale` and so
    on, for what it is capable of;
    `networks`, those that are evaluated at each step, by name; `vae`, the autoencoder;
    `tokenizer`, where it reads a text; `vocabulary`, all words that it knows, None where its
    language is open; `round_trip_db`, the least PSNR of its own world through the autoencoder, or
    None; `folder`, where it was loaded from, where further modules may lie beside it, or None;
    `changed`, a number that is another one once weights are changed; `plan` and `speed`, see
    `memory` and `speed`. A family without a picture model has none of the last four members.

    Latents are float32: (F, C, h, w) for a clip, where F counts latent frames (a video VAE may have
    fewer of them than the clip), (1, C, h, w) for a picture. Pixels are float32 (N, 3, H, W)
    in [-1, 1]. What a method is given may lie on any device and be of any float dtype: it goes to
    the model's own first.

    A family that fixes the first latent frame (Wan 2.2 TI2V, LTX) does so in `predict`: it puts the
    condition in place of that frame, gives it timestep zero, and answers for it with the velocity
    that leads straight to the condition, so that scheduler and blend need no special case.
    """

    name: str
    device: torch.device
    dtype: torch.dtype
    vae_scale_factor: int
    size: tuple[int, int]
    multiple: int
    num_frames: int
    capabilities: frozenset[str]
    motion_scales: range | None
    defaults: dict[str, dict[str, Any]]
    networks: dict[str, torch.nn.Module]
    vae: torch.nn.Module
    tokenizer: Any
    vocabulary: frozenset[str] | None
    round_trip_db: float | None
    folder: Path | None
    changed: int

    def weights_changed(self) -> None:
        """After weights or layers were changed: counts in `changed`, and drops what is kept."""

    def clear_cache(self) -> None:
        """Drop what is kept between runs: latents, embeddings, deep features, recorded graphs."""

    def check_text(self, text: str, argument: str) -> str:
        """The text as it will be read; ValueError naming `argument` where it cannot be read."""

    def check_clip(self, num_frames: int, size: tuple[int, int]) -> None:
        """ValueError where the model makes no clip of that length, or none of that size though it
        is one of the multiples."""

    def check_motion_scale(self, motion_scale: float | None) -> None:
        """ValueError where it is none of `motion_scales`."""

    def scheduler(self, num_inference_steps: int, kind: str = "video", shape=None) -> Any:
        """A fresh diffusers scheduler with its timesteps set (one for each chain).

        shape: of the clip's latents, (F, C, h, w), which some families' steps depend on.
        """

    def noise(self, num_frames: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Starting noise of a clip, (F, C, h, w), drawn in the family's own order."""

    def encode(
        self,
        pixels: Tensor,
        posterior: str = "mode",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """E(x): pixels (N, 3, H, W) to scaled latents (N, C, h, w)."""

    def decode(self, z: Tensor) -> Tensor:
        """Latents (N, C, h, w) to pixels (N, 3, H, W) in [-1, 1], a few frames at a time."""

    def preview(self, z: Tensor, frame: int) -> Tensor:
        """One frame of a clip's latents, as cheaply as can be: (3, H, W) in [-1, 1]."""

    def condition(
        self,
        pixels: Tensor,
        text: str,
        *,
        num_frames: int,
        negative_prompt: str = "",
        guidance_scale: float | Tensor = 1.0,
        motion_scale: float | None = None,
        posterior: str = "mode",
        generator: torch.Generator | None = None,
    ) -> Condition:
        """All that one branch feeds the network besides z_t.

        `pixels` (1, 3, H, W) is a still that conditions every frame, (num_frames, 3, H, W) gives
        each frame its own. `guidance_scale` is a number, or a tensor that broadcasts to
        (F, 1, 1, 1).
        """

    def predict(self, z: Tensor, t: Tensor, conditions: list[Condition]) -> list[Prediction]:
        """Predictions of len(conditions) branches in one batch; z is (B, F, C, h, w), scaled."""

    def image_noise(self, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Starting noise of a picture, (1, C, h, w)."""

    def image_condition(self, text: str, negative_prompt: str, guidance_scale: float) -> Condition:
        """All that the picture model is fed besides z_t."""

    def predict_image(self, z: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """Prediction for one picture; z is (1, C, h, w), scaled."""

    def hide_unsafe(self, pixels: Tensor) -> Tensor:
        """Black in place of pictures (N, 3, H, W) that the checkpoint's safety checker flags."""
