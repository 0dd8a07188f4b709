"""The storybook's networks: a miniature of Stable Diffusion with PIA's motion adapter.

Text-to-image and image-to-video are one network, as in PIA: the motion UNet holds the very modules
of the picture UNet and adds the adapter's, so a LoRA trained on pictures works in video.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..models.live import still
from ..models.pia import motion_unet, own_parts, video_input
from ..support.disk import whole_folder, write_text
from .words import TOKENS, write_tokenizer

WEIGHTS = Path(__file__).with_name("weights")  # the config.json of each part says its sizes


def make(kind, name: str):
    """A part anew, of one of diffusers' classes, as the package's own one of that name is."""
    return kind.from_config(kind.load_config(WEIGHTS / name))


def make_text_encoder():
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig.from_pretrained(WEIGHTS / "text_encoder")
    config.update(TOKENS)
    return CLIPTextModel(config)


def scheduler(steps: int | None = None, device="cpu"):
    """DDIM as the network was trained for: v-prediction, zero terminal SNR, trailing spacing."""
    from diffusers import DDIMScheduler

    found = DDIMScheduler.from_pretrained(WEIGHTS / "scheduler")
    if steps:
        found.set_timesteps(steps, device=device)
    return found


def load_vae(folder: str | Path, device="cpu", dtype=torch.float32):
    """The autoencoder that `folder` holds, not to be trained. 256 px are 16 x 16 x 16, about
    standard normal."""
    return still(own_parts(Path(folder), "vae")["vae"], device, dtype)


class WidenedIn(nn.Module):
    """conv_in of the motion UNet while it trains: the UNet's own weights beside the adapter's."""

    def __init__(self, own: nn.Conv2d, widened: nn.Conv2d):
        super().__init__()
        self.own, self.widened = own, widened

    def forward(self, x):
        weight = torch.cat([self.own.weight, self.widened.weight[:, self.own.in_channels :]], 1)
        return nn.functional.conv2d(x, weight, self.own.bias, padding=1)


@dataclass
class Networks:
    """Everything that training touches; `motion` shares the modules of `unet` and `adapter`."""

    unet: nn.Module
    adapter: nn.Module
    text: nn.Module
    motion: nn.Module

    @classmethod
    def of(cls, unet, adapter, text) -> Networks:
        motion = motion_unet(unet, adapter)
        motion.conv_in = WidenedIn(unet.conv_in, adapter.conv_in)
        return cls(unet, adapter, text, motion)

    @classmethod
    def made(cls) -> Networks:
        """Of the package's own sizes, as each class begins."""
        from diffusers import MotionAdapter, UNet2DConditionModel

        unet, adapter = make(UNet2DConditionModel, "unet"), make(MotionAdapter, "motion_adapter")
        return cls.of(unet, adapter, make_text_encoder())

    @classmethod
    def new(cls, seed: int = 0) -> Networks:
        torch.manual_seed(seed)
        nets = cls.made()
        nn.init.normal_(nets.adapter.conv_in.weight, std=0.02)
        return nets

    @classmethod
    def load(cls, folder: str | Path) -> Networks:
        names = "unet", "motion_adapter", "text_encoder"
        return cls.of(*own_parts(Path(folder), *names).values())

    def parameters(self):
        """Each once, though the networks share modules."""
        return nn.ModuleList([self.unet, self.adapter, self.text]).parameters()

    def to(self, device, dtype) -> Networks:
        """These networks themselves, there and in `dtype`."""
        for part in (self.unet, self.adapter, self.text, self.motion):
            nn.Module.to(part, device, dtype, memory_format=torch.channels_last)
        return self

    def frozen(self) -> Networks:
        """These networks themselves, not to be trained."""
        for part in (self.unet, self.adapter, self.text, self.motion):
            part.eval().requires_grad_(False)
        return self

    def v(self, x, t, text, condition=None, affinity=None) -> torch.Tensor:
        """v, as x: of pictures (B, C, h, w), or of clips (B, F, C, h, w).

        t: (B,) training times. text: (B, L, width). Of clips alone, condition: (B, C, h, w), or
        (B, F, C, h, w), one a frame; affinity: (B, F).
        """
        low = next(self.unet.parameters()).dtype
        if condition is None:
            x = x.to(low).contiguous(memory_format=torch.channels_last)
            return self.unet(x, t, text, return_dict=False)[0].float()
        condition = condition[:, None] if condition.dim() == 4 else condition
        x = video_input(x, condition.float().expand_as(x), affinity).to(low)
        text = text.repeat_interleave(x.shape[2], 0)
        return self.motion(x, t, text, return_dict=False)[0].float().transpose(1, 2)

    def save(self, folder: str | Path) -> None:
        """Writes unet/ and motion_adapter/ in fp16 and text_encoder/ in fp32, diffusers' layout."""
        fresh = Networks.made()  # whose configuration names no folder
        for name in ("unet", "adapter", "text"):
            getattr(fresh, name).load_state_dict(getattr(self, name).state_dict())
        for name, part, how in (
            ("unet", fresh.unet.half(), {"max_shard_size": "14MB"}),
            ("motion_adapter", fresh.adapter.half(), {"max_shard_size": "14MB"}),
            ("text_encoder", fresh.text, {}),
        ):
            with whole_folder(Path(folder) / name, new=False) as place:
                part.save_pretrained(place, **how)


def write_layout(folder: Path) -> None:
    """Writes what is no weight: model_index.json, storybook.json, scheduler/ and tokenizer/."""
    for name in ("model_index.json", "storybook.json", "scheduler/scheduler_config.json"):
        write_text(folder / name, (WEIGHTS / name).read_text(encoding="utf-8"))
    write_tokenizer(folder / "tokenizer")


def affinity(speed: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Affinity mask of a clip, (B, F), for speeds (B,) in (0, 1] and frame times t (B, F).

    PIA's mask (its Section 3.2) says how like the condition each frame is: 1 at the first frame,
    the lower the more has moved by then.
    """
    return 1 - 0.7 * speed[:, None] * t
