"""What the stages share: several GPUs, time budgets, averaged weights, the loop itself."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.nn.functional  # imported later, it keeps a group alive that has ended

from ...models import cpu_has_bf16
from ...models.speed import recorded
from ...pictures import to_frames
from ...support.disk import whole, whole_folder, write_picture, write_tensors
from ...view import contact_sheet
from ..world import World

LORA = "adapter_model.safetensors"


class Ranks:
    """One process a GPU, as torchrun starts them; one process alone where it did not.

    Each process takes the GPU of its local rank. The environment variable IVKIT_COMPILED names a
    file that keeps compiled kernels between runs.
    """

    def __init__(self):
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        cuda = torch.cuda.is_available()
        self.device = torch.device("cpu")
        if cuda:  # modulo: a launcher may show each process its own GPU alone
            local = int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count()
            self.device = torch.device("cuda", local)
            torch.cuda.set_device(self.device)
        self.kept = Path(os.environ["IVKIT_COMPILED"]) if os.environ.get("IVKIT_COMPILED") else None
        if cuda:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
            import torch._inductor.config as inductor

            inductor.triton.coalesce_tiling_analysis = False  # asserts on UNetMotionModel otherwise
            if self.kept and self.kept.is_file():
                torch.compiler.load_cache_artifacts(self.kept.read_bytes())
        if self.size > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if cuda else "gloo")
            if not cuda:  # gloo's thread may hold a tensor yet: see `together` in bench/runner.py
                atexit.register(torch.distributed.destroy_process_group)

    def keep_compiled(self) -> None:
        """Writes what has been compiled so far to the file that IVKIT_COMPILED names."""
        if self.first and self.kept and self.device.type == "cuda":
            artifacts = torch.compiler.save_cache_artifacts()
            if artifacts:
                with whole(self.kept) as part:
                    part.write_bytes(artifacts[0])

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def low(self) -> torch.dtype:
        """What networks that are not autocast compute in."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    def world(self) -> World:
        """The storybook world on this process's device, its drawing compiled."""
        return World(self.device, self.compile)

    def wait(self) -> None:
        """Until the GPU has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def mean_(self, tensor: torch.Tensor) -> None:
        """Averages a tensor over the processes, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
            tensor /= self.size

    def end(self) -> None:
        """Waits for all processes: what the first one wrote is there for the next stage."""
        if self.size > 1:
            torch.distributed.barrier()

    def first_says(self, value: float) -> float:
        """The first process's value, for all: loops end, and rates fall, at the same step."""
        if self.size == 1:
            return value
        answer = torch.tensor([value], device=self.device, dtype=torch.float64)
        torch.distributed.broadcast(answer, 0)
        return answer.item()

    def compile(self, f):
        return torch.compile(f, dynamic=False) if self.compiles else f

    @property
    def compiles(self) -> bool:
        return self.device.type == "cuda" and not os.environ.get("EAGER")

    def replay(self, step):
        """`step`, a function of no arguments that launches kernels alone, as one CUDA graph.

        The network is so small that launching its kernels one by one takes longer than they do.
        Where there is no CUDA, or a graph can't be made of it, `step` comes back as it is.
        """
        if not self.compiles:
            return step
        try:
            graph, result = recorded(step, capture_error_mode="thread_local")
        except RuntimeError as error:
            self.say("no CUDA graph:", str(error).splitlines()[0])
            torch.cuda.synchronize()
            return step

        def replayed():
            graph.replay()
            return result

        return replayed

    def autocast(self):
        """bf16, but on a CPU that does not compute in it: there it would take ten times as long."""
        fast = self.device.type != "cpu" or cpu_has_bf16()
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=fast)

    def say(self, *words) -> None:
        if self.first:
            print(*words, flush=True)


@dataclass
class Stage:
    """What every stage is told.

    Attributes:
        folder: the model's, read and written. out: of pictures to look at.
        seconds: its budget. max_steps: it ends after so many, whatever the time.
        total, before: seconds of a longer run of several parts, and those already behind.
    """

    folder: Path
    out: Path
    seconds: float
    max_steps: int | None = None
    total: float | None = None
    before: float = 0.0

    def __post_init__(self):
        self.ranks = Ranks()

    def clock(self, seconds: float | None = None, warm_up: int = 4) -> Clock:
        """A clock that begins now; seconds: where a part of the budget is meant."""
        return Clock(self, self.seconds if seconds is None else seconds, warm_up)


@dataclass
class Clock:
    """A stage's time budget; starts after the warm-up, so that compiling does not eat it.

    The first process's watch counts for all, and is read every `every` steps alone: reading it
    waits for the GPU. `share` is what is spent of the budget.
    """

    stage: Stage
    seconds: float
    warm_up: int = 4
    every: int = 20
    n: int = 0
    start: float | None = None
    share: float = 0.0

    def tick(self) -> bool:
        """Counts a step; true while there is time left."""
        self.n += 1
        ranks, most = self.stage.ranks, self.stage.max_steps
        if self.n == self.warm_up:
            ranks.wait()
            self.start = time.time()
        if most:
            self.share = self.n / most
        elif self.start and self.n % self.every == 0:
            ranks.wait()
            self.share = ranks.first_says(self.elapsed / self.seconds)
        return self.share < 1

    @property
    def elapsed(self) -> float:
        return time.time() - self.start if self.start else 0.0

    @property
    def past(self) -> float:
        """What is spent of the longer run: the learning rate falls over the whole."""
        spent = self.stage.before + self.share * self.seconds
        return spent / self.stage.total if self.stage.total else self.share


class Trainer:
    """AdamW on fp32 masters of weights that compute in bf16, with averaged weights (EMA) beside.

    Masters, gradients and averages are one flat tensor each: a step is a handful of kernels.
    """

    def __init__(
        self, params, ranks: Ranks, lr: float, betas=(0.9, 0.98), weight_decay=0.01, decay=0.999
    ):
        self.params, self.ranks, self.lr, self.decay, self.n = list(params), ranks, lr, decay, 0
        self.master = torch.cat([p.detach().float().reshape(-1) for p in self.params])
        self.master.grad = torch.zeros_like(self.master)
        self.ema = self.master.clone()
        self.grads = self._views(self.master.grad)
        self.optimizer = torch.optim.AdamW(
            [self.master],
            lr=lr,
            betas=betas,
            weight_decay=weight_decay,
            fused=ranks.device.type == "cuda",
        )

    def _views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        return [
            v.view(p.shape)
            for v, p in zip(flat.split([p.numel() for p in self.params]), self.params, strict=False)
        ]

    def push(self, flat: torch.Tensor) -> None:
        """Writes a flat tensor into the network's weights."""
        with torch.no_grad():
            torch._foreach_copy_([p.data for p in self.params], self._views(flat))

    def backward(self, loss: torch.Tensor) -> None:
        """Writes the gradient of a loss, launching kernels alone: see `Ranks.replay`."""
        for p in self.params:
            p.grad = None
        loss.backward()
        with torch.no_grad():
            used = [
                (g, p.grad)
                for g, p in zip(self.grads, self.params, strict=False)
                if p.grad is not None
            ]
            if len(used) < len(self.params):
                self.master.grad.zero_()
            torch._foreach_copy_(*map(list, zip(*used, strict=False)))

    def step(self, share: float, warm_up: int = 300) -> None:
        """One step on the gradient, `share` of the way through the cosine of the learning rate."""
        with torch.no_grad():
            self.ranks.mean_(self.master.grad)
            torch.nn.utils.clip_grad_norm_([self.master], 1.0)
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * cosine(share, self.n, warm_up)
            self.optimizer.step()
            self.push(self.master)
            self.n += 1
            self.ema.lerp_(self.master, 1 - min(self.decay, (1 + self.n) / (10 + self.n)))

    @contextlib.contextmanager
    def averaged(self):
        """Context in which the network's weights are the averaged ones."""
        self.push(self.ema)
        yield
        self.push(self.master)


def learn(
    name: str,
    trainer: Trainer,
    clock: Clock,
    gradient: Callable[[], torch.Tensor],
    losses: Sequence[str],
    every: int,
    save: Callable[[], None],
    save_every: float = math.inf,
    warm_up: int = 300,
) -> dict[str, Any]:
    """Steps until the time is over; the network then has the averaged weights, and is saved.

    Args:
        gradient: writes one step's gradient, and returns what `losses` names: (K,), or (K, 2) of
            sums and of how many they are of.
        every: steps between two lines of means, which are printed and returned.
        save: called by the first process alone; every `save_every` seconds, and at the end.
        warm_up: steps in which the learning rate rises.
    """
    ranks, means, saved, more, sums = trainer.ranks, [], 0.0, True, 0.0
    while more:
        found = gradient()
        sums = sums + (
            found if found.dim() == 2 else torch.stack([found, torch.ones_like(found)], 1)
        )
        trainer.step(clock.past, warm_up)
        more = clock.tick()
        if clock.n == 1 or clock.n % every == 0:
            values = (sums[:, 0] / sums[:, 1].clamp(min=1)).tolist()
            means.append([clock.n, round(clock.elapsed, 1), *values])
            said = (f"{what} {value:.4g}" for what, value in zip(losses, values, strict=True))
            ranks.say(name, clock.n, f"{clock.elapsed:.0f} s", *said)
            sums = 0.0
        if more and clock.share * clock.seconds - saved > save_every:
            saved = clock.share * clock.seconds
            if ranks.first:
                with trainer.averaged():
                    save()
    ranks.keep_compiled()
    trainer.push(trainer.ema)
    if ranks.first:
        save()
    ranks.say(name, "ended after", clock.n, "steps in", f"{clock.elapsed:.0f} s")
    return {"steps": clock.n, "seconds": clock.elapsed, "losses": means}


def cosine(share: float, n: int, warm_up: int) -> float:
    return min(1, (n + 1) / warm_up) * (0.5 + 0.5 * math.cos(math.pi * min(share, 1))) + 0.005


def pixel_loss(error: torch.Tensor) -> torch.Tensor:
    """What pictures (B, 3, H, W) that differ by `error` cost: L1, L1 of their edges, and MSE."""
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 0.5 * edges + 6 * error.pow(2).mean()


def save_grid(frames: torch.Tensor, path, scale: float = 1.0) -> None:
    """Writes (rows, columns, 3, H, W) in [-1, 1] as one picture."""
    _, columns, _, height, _ = frames.shape
    pictures = to_frames(frames.flatten(0, 1).float())
    write_picture(path, contact_sheet(pictures, columns, height=int(height * scale)), quality=88)


def psnr(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of each of the pictures (n, 3, H, W) in [-1, 1]: (n,)."""
    error = (a.float() - b.float()).pow(2).flatten(1).mean(1).clamp(min=1e-10)
    return 10 * torch.log10(4 / error)


def write_lora(folder: Path, rank: int, targets: str, state: dict[str, torch.Tensor]) -> None:
    """Writes LoRA matrices by layer, "LAYER.lora_A.weight", in fp16 and in PEFT's own format."""
    from peft import LoraConfig

    state = {f"base_model.model.{k}": v.detach().half() for k, v in state.items()}
    with whole_folder(folder, new=False) as part:
        LoraConfig(r=rank, lora_alpha=rank, target_modules=targets).save_pretrained(part)
        write_tensors(part / LORA, state, {"format": "pt"})
