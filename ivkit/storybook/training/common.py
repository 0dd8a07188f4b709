"""What the stages share: time budgets, several GPUs, averaged weights, pictures to look at."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import time
from pathlib import Path

import torch
from PIL import Image

from ...models import cpu_has_bf16


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
            if not cuda:  # see `_processes` in bench/runner.py
                atexit.register(torch.distributed.destroy_process_group)

    def keep_compiled(self) -> None:
        """Writes what has been compiled so far to the file that IVKIT_COMPILED names."""
        if self.first and self.kept and self.device.type == "cuda":
            artifacts = torch.compiler.save_cache_artifacts()
            if artifacts:
                self.kept.write_bytes(artifacts[0])

    @property
    def first(self) -> bool:
        return self.rank == 0

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
        return (
            torch.compile(f, dynamic=False)
            if self.device.type == "cuda" and not os.environ.get("EAGER")
            else f
        )

    def replay(self, step):
        """`step`, a function of no arguments that launches kernels alone, as one CUDA graph.

        The network is so small that launching its kernels one by one takes longer than they do.
        Where there is no CUDA, or a graph can't be made of it, `step` comes back as it is.
        """
        if self.device.type != "cuda" or os.environ.get("EAGER"):
            return step
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(aside)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = step()
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


class Clock:
    """A stage's time budget; starts after the warm-up, so that compiling does not eat it.

    The first process's watch counts for all, and is read every `every` steps alone: reading it
    waits for the GPU.
    """

    def __init__(
        self,
        ranks: Ranks,
        seconds: float,
        warm_up: int = 4,
        max_steps: int | None = None,
        every: int = 20,
    ):
        self.ranks, self.seconds, self.warm_up, self.max_steps, self.every = (
            ranks,
            seconds,
            warm_up,
            max_steps,
            every,
        )
        self.n, self.start, self.share = 0, None, 0.0

    def tick(self) -> bool:
        """Counts a step; true while there is time left. `share` is what is spent of the budget."""
        self.n += 1
        if self.n == self.warm_up:
            if self.ranks.device.type == "cuda":
                torch.cuda.synchronize()
            self.start = time.time()
        if self.max_steps:
            self.share = self.n / self.max_steps
        elif self.start and self.n % self.every == 0:
            if self.ranks.device.type == "cuda":
                torch.cuda.synchronize()
            self.share = self.ranks.first_says(self.elapsed / self.seconds)
        return self.share < 1

    @property
    def elapsed(self) -> float:
        return time.time() - self.start if self.start else 0.0


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


def cosine(share: float, n: int, warm_up: int) -> float:
    return min(1, (n + 1) / warm_up) * (0.5 + 0.5 * math.cos(math.pi * min(share, 1))) + 0.005


def pixel_loss(error: torch.Tensor) -> torch.Tensor:
    """What pictures (B, 3, H, W) that differ by `error` cost: L1, L1 of their edges, and MSE."""
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 0.5 * edges + 6 * error.pow(2).mean()


def save_grid(frames: torch.Tensor, path, scale: float = 1.0) -> None:
    """Writes (rows, columns, 3, H, W) in [-1, 1] as one picture."""
    r, c, _, h, w = frames.shape
    grid = ((frames.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 3, 1, 4, 2)
    picture = Image.fromarray(grid.reshape(r * h, c * w, 3).cpu().numpy())
    picture.resize((int(c * w * scale), int(r * h * scale)), Image.LANCZOS).save(path, quality=88)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1], the mean over the pictures."""
    error = (a.float() - b.float()).pow(2).flatten(1).mean(1).clamp(min=1e-10)
    return float((10 * torch.log10(4 / error)).mean())
