"""A plan for the memory there is: how many branches at once, how many frames decoded, what waits.

Needs are estimates from the networks' sizes; where they are too low the run takes the next plan.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

import torch

from .speed import networks_of

CELL_BYTES = 16_000  # of one latent cell in one row, at the step's peak, half precision; about
STEPS_DOWN = ("all at once", "one branch at a time", "one row at a time", "parts take turns")


@dataclass(frozen=True)
class Plan:
    """level: index into STEPS_DOWN; each step down needs less memory and more time."""

    level: int
    need_gb: float
    free_gb: float | None
    dtype: str

    def __str__(self) -> str:
        free = "" if self.free_gb is None else f" of {self.free_gb:.1f} GB free"
        return f"memory: {STEPS_DOWN[self.level]}, {self.dtype}, about {self.need_gb:.1f} GB{free}"

    @property
    def batch(self) -> bool:
        return self.level == 0

    def smaller(self, model) -> Plan | None:
        """The next plan down; None where there is none for this model."""
        if self.level >= last_level(model):
            return None
        return Plan(self.level + 1, self.need_gb, self.free_gb, self.dtype)

    def apply(self, model) -> None:
        """Set the model to it. Moving parts to and fro begins and ends here too."""
        if hasattr(model, "decode_slice"):
            full = type(model).__dataclass_fields__["decode_slice"].default
            model.decode_slice = full if self.level == 0 else 1
        model.max_rows = 1 if self.level >= 2 else 0
        if self.level >= 1:
            vae = model.parts["vae"] if hasattr(model, "parts") else model.vae
            if hasattr(vae, "enable_tiling") and self.level >= 2:
                with contextlib.suppress(NotImplementedError):
                    vae.enable_tiling()
        if hasattr(model, "offload") and model.offload != (self.level >= 3):
            model.offload = self.level >= 3
            model.place()


def last_level(model) -> int:
    return 3 if hasattr(model, "offload") else 2


def choose(model, shape: tuple[int, ...], guided: bool) -> Plan:
    """The plan for a clip of latents (F, C, h, w), from the memory that is free now."""
    free = free_bytes(model.device)
    dtype = str(model.dtype).removeprefix("torch.")
    held = model_bytes(model)
    largest = max((_bytes(n) for n in networks_of(model)), default=0)
    row = shape[0] * shape[2] * shape[3] * CELL_BYTES * (2 if model.dtype == torch.float32 else 1)
    rows = 2 if guided else 1
    on = model.device.type != "cpu"
    here = held if on and not getattr(model, "offload", False) else 0  # already taken
    needs = [held + 2 * rows * row, held + rows * row, held + row, largest + row]
    fits = [free is None or need - here <= free * 0.9 for need in needs[: last_level(model) + 1]]
    level = fits.index(True) if any(fits) else last_level(model)
    free_gb = None if free is None else (free + here) / 1e9
    return Plan(level, needs[level] / 1e9, free_gb, dtype)


def model_bytes(model) -> int:
    if hasattr(model, "parts"):
        return sum(_bytes(part) for part in model.modules())
    extra = [p for p in (model.video_unet, model.vae, model.text_encoder) if p is not None]
    seen = {id(p): p for part in [model.unet, *extra] for p in part.parameters()}
    return sum(p.numel() * p.element_size() for p in seen.values())


def _bytes(part) -> int:
    return sum(p.numel() * p.element_size() for p in part.parameters())


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on the device; None where nobody tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + held
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not told on this system
        return None


def let_go(device: torch.device) -> None:
    """Give unused memory back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
