"""What the stages share: time budgets, several GPUs, averaged weights, pictures to look at."""

from __future__ import annotations

import math
import os
import time

import numpy as np
import torch
from PIL import Image


class Ranks:
    """One process a GPU, as torchrun starts them; one process alone where it did not."""

    def __init__(self):
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        cuda = torch.cuda.is_available()
        self.device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if cuda else "cpu")
        if cuda:
            torch.cuda.set_device(self.device)
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
            import torch._inductor.config as inductor

            inductor.triton.coalesce_tiling_analysis = False  # asserts on UNetMotionModel otherwise
        if self.size > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if cuda else "gloo")

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mean_(self, tensors: list[torch.Tensor]) -> None:
        """Averages tensors over the processes, in place, in one message."""
        if self.size > 1:
            flat = torch.cat([t.reshape(-1) for t in tensors])
            torch.distributed.all_reduce(flat)
            flat /= self.size
            torch._foreach_copy_(tensors, [p.view_as(t) for p, t in
                                           zip(flat.split([t.numel() for t in tensors]), tensors)])

    def agree(self, flag: bool) -> bool:
        """The first process's answer, for all: loops must end at the same step."""
        if self.size == 1:
            return flag
        answer = torch.tensor([float(flag)], device=self.device)
        torch.distributed.broadcast(answer, 0)
        return bool(answer.item())

    def compile(self, f):
        return torch.compile(f, dynamic=False) if self.device.type == "cuda" and not os.environ.get("EAGER") else f

    def autocast(self):
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def say(self, *words) -> None:
        if self.first:
            print(*words, flush=True)


class Clock:
    """A stage's time budget. Starts after the warm-up, so that compiling does not eat it."""

    def __init__(self, seconds: float, warm_up: int = 4, max_steps: int | None = None):
        self.seconds, self.warm_up, self.max_steps, self.n, self.start = seconds, warm_up, max_steps, 0, None

    def tick(self) -> float:
        """Counts a step; returns the share of the budget that is spent."""
        self.n += 1
        if self.n == self.warm_up:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.start = time.time()
        if self.max_steps:
            return self.n / self.max_steps
        return 0. if self.start is None else (time.time() - self.start) / self.seconds

    @property
    def elapsed(self) -> float:
        return time.time() - self.start if self.start else 0.


def cosine(share: float, n: int, warm_up: int) -> float:
    return min(1, (n + 1) / warm_up) * (.5 + .5 * math.cos(math.pi * min(share, 1))) + .005


class Trainer:
    """AdamW on fp32 masters of weights that compute in bf16, with averaged weights (EMA) beside."""

    def __init__(self, params, ranks: Ranks, lr: float, betas=(.9, .98), weight_decay=.01, decay=.999,
                 low: torch.dtype = torch.bfloat16):
        self.params, self.ranks, self.lr, self.decay, self.n = list(params), ranks, lr, decay, 0
        self.master = [p.detach().clone().float() for p in self.params]
        self.ema = [p.clone() for p in self.master]
        for p in self.master:
            p.grad = torch.zeros_like(p)
        self.optimizer = torch.optim.AdamW(self.master, lr=lr, betas=betas, weight_decay=weight_decay,
                                           fused=ranks.device.type == "cuda")

    def push(self, values) -> None:
        with torch.no_grad():
            torch._foreach_copy_([p.data for p in self.params], values)

    def step(self, loss: torch.Tensor, share: float, warm_up: int = 300) -> None:
        for p in self.params:
            p.grad = None
        loss.backward()
        with torch.no_grad():
            for m, p in zip(self.master, self.params):
                m.grad.zero_() if p.grad is None else m.grad.copy_(p.grad)
            self.ranks.mean_([m.grad for m in self.master])
            torch.nn.utils.clip_grad_norm_(self.master, 1.)
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * cosine(share, self.n, warm_up)
            self.optimizer.step()
            self.push(self.master)
            self.n += 1
            keep = min(self.decay, (1 + self.n) / (10 + self.n))
            torch._foreach_lerp_(self.ema, self.master, 1 - keep)

    def averaged(self):
        """Context in which the weights are the averaged ones."""
        trainer = self

        class Averaged:
            def __enter__(self):
                trainer.push(trainer.ema)

            def __exit__(self, *_):
                trainer.push(trainer.master)

        return Averaged()


def save_grid(frames: torch.Tensor, path, scale: float = 1.) -> None:
    """Writes (rows, columns, 3, H, W) in [-1, 1] as one picture."""
    r, c, _, h, w = frames.shape
    grid = ((frames.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 3, 1, 4, 2)
    picture = Image.fromarray(grid.reshape(r * h, c * w, 3).cpu().numpy())
    picture.resize((int(c * w * scale), int(r * h * scale)), Image.LANCZOS).save(path, quality=88)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1], the mean over the pictures."""
    error = (a.float() - b.float()).pow(2).flatten(1).mean(1).clamp(min=1e-10)
    return float((10 * torch.log10(4 / error)).mean())


def seeded(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
