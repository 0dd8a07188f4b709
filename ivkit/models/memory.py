"""A plan for the memory there is: how many branches at once, how many frames decoded, what waits.

Needs are estimates from the networks' sizes. Where they are too low, whatever ran out of memory is
done again under the next plan (`retried`).
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass

import psutil
import torch
from accelerate.utils.memory import clear_device_cache

from ..support.validate import warn
from .protocol import alone

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

    def apply(self, model) -> None:
        """Set the model to it. Moving parts to and fro begins and ends here too."""
        before, model.plan, vae = level(model), self, model.vae
        if hasattr(vae, "enable_tiling") and (self.level >= 2) != (before >= 2):
            with contextlib.suppress(NotImplementedError):
                vae.enable_tiling() if self.level >= 2 else vae.disable_tiling()
        if model.offload != (self.level >= 3):
            model.offload = self.level >= 3
            model.place()


def level(model) -> int:
    """Of the plan that the model is set to: 0 is all at once."""
    return 0 if model.plan is None else model.plan.level


def last_level(model) -> int:
    """On a CPU there is nowhere that parts could wait."""
    return 3 if model.device.type != "cpu" else 2


def choose(model, shape: tuple[int, ...], guided: bool, kept: int = 0) -> Plan:
    """The plan for a clip of latents (F, C, h, w), from the memory that is free now.

    kept: bytes on the model's device that will be kept of its steps, see `kept_bytes`.
    """
    free = free_bytes(model.device)
    held = model_bytes(model)
    largest = max(map(_bytes, model.networks.values()), default=0)
    row = shape[0] * shape[2] * shape[3] * CELL_BYTES * (2 if model.dtype == torch.float32 else 1)
    rows = 2 if guided else 1
    here = 0 if model.offload else held  # taken already
    needs = [held + 2 * rows * row, held + rows * row, held + row, largest + row]
    needs = [need + kept for need in needs]
    fits = [free is None or need - here <= free * 0.9 for need in needs[: last_level(model) + 1]]
    chosen = fits.index(True) if any(fits) else last_level(model)
    free_gb = None if free is None else (free + here) / 1e9
    return Plan(chosen, needs[chosen] / 1e9, free_gb, str(model.dtype).removeprefix("torch."))


def kept_bytes(shape: tuple[int, ...], steps: int, guided: bool, trace) -> dict[str, int]:
    """{device type: bytes} that a run's reference chain and trace take at most.

    shape: of the clip's latents, (F, C, h, w). trace: its `TraceOptions`. The tensors that a whole
    trace has in common with the chain, both on the CPU, count once.
    """
    latent = 4 * steps * torch.Size(shape).numel()
    rows = 2 if guided else 1
    chain = 1 + (rows if trace.whole else 1)  # z_t, and the rows or the guided prediction
    every = 3 + 2 * rows  # z_t, z_edit, out_hat and the rows of both branches
    traced = min(every, len(trace.wanted))
    if trace.names is True and trace.device.type == "cpu" and trace.dtype is None:
        traced -= chain
    size = 2 if trace.dtype in (torch.float16, torch.bfloat16) else 4
    found = {"cpu": latent * chain}
    found[trace.device.type] = found.get(trace.device.type, 0) + latent * traced * size // 4
    return found


def prepare(model, shape: tuple[int, ...], steps: int, guided: bool, trace) -> None:
    """Choose how much memory a run may take; said where it is not all that it would like.

    shape: of the clip's latents, (F, C, h, w). trace: its `TraceOptions`. Warns where the CPU's
    memory is short of what the run will keep.
    """
    kept = kept_bytes(shape, steps, guided, trace)
    plan = choose(model, shape, guided, kept.get(model.device.type, 0))
    need, free = kept["cpu"], free_bytes(torch.device("cpu"))
    if free is not None and need > 0.9 * free:
        warn(
            f"what this run keeps of its steps takes about {need / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free: trace=False keeps less, and so do names, trace='x0'"
        )
    if plan.level != level(model) or (not model.plan and model.device.type != "cpu"):
        print(plan)
    plan.apply(model)


def model_bytes(model) -> int:
    """Of all parts; what two of them share counts once."""
    return _bytes(*model.modules())


def _bytes(*parts: torch.nn.Module) -> int:
    return sum(p.nbytes for p in torch.nn.ModuleList(parts).parameters())


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on the device; None where nobody tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + held
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return psutil.virtual_memory().available


# --------------------------------------------------------------------------- when it runs out


def retried(call):
    """Of a model's method, which one thread at a time calls (`alone`): where memory runs out it is
    done again under the next smaller plan.

    Under the smallest the error goes on to the caller. What it draws from a generator is drawn
    again from the same state.
    """

    @functools.wraps(call)
    @alone
    def frugal(self, *args, **options):
        drawn = [g for g in (*args, *options.values()) if isinstance(g, torch.Generator)]
        states = [g.get_state() for g in drawn]
        while True:
            try:
                return call(self, *args, **options)
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error) or level(self) >= last_level(self):
                    raise
            clear_device_cache()  # after the error, whose frames hold tensors
            _step_down(self)
            for generator, state in zip(drawn, states, strict=True):
                generator.set_state(state)

    return frugal


def ran_out(error: BaseException) -> bool:
    """Whether memory ran out, as CUDA, MPS or a CPU's allocator say it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in said or "can't allocate memory" in said
    )


def _step_down(model) -> None:
    dtype = str(model.dtype).removeprefix("torch.")
    now = model.plan or Plan(0, model_bytes(model) / 1e9, None, dtype)
    smaller = Plan(now.level + 1, now.need_gb, now.free_gb, dtype)
    smaller.apply(model)
    print(f"out of memory; going on with {smaller}")
