"""Personalisation: teach a model a thing it has never seen, from a handful of pictures.

A LoRA (Hu et al., 2021) leaves every weight W as it is and learns B A beside it, two thin matrices:
the layer computes W x + B A x. DreamBooth (Ruiz et al., 2022) says what it learns from: pictures of
"a sks robot", where `sks` is a word without a meaning and `robot` the class, and beside them, so
that the class keeps its own looks, what the model drew for "a robot" before (prior preservation).

    lora = personal.new(pipe)
    personal.train(lora, pictures_and_captions, prior=others)
    lora.set_strength(0.8)
    lora.save("robot.safetensors")                      # iv.load("storybook", lora=that file)

It is trained on pictures alone. A PIA-layout model holds the same modules in its picture network
and in its video network, so that what was learned moves, too.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..pictures import PICTURE, to_picture, to_pixels
from ..pipeline import Pipeline
from ..support.disk import destination, write_tensors
from ..support.validate import (
    SENTENCE,
    TEXT,
    Guidance,
    Integer,
    Kind,
    Listed,
    Number,
    Seed,
    Share,
    checked,
    shown,
)
from .lora import beside, find, read
from .protocol import alone

ADAPTER = "personal"
#: every attention, feed-forward and residual convolution of a UNet
TARGETS = r".*(to_q|to_k|to_v|to_out\.0|net\.0\.proj|net\.2|conv1|conv2)$"


def _pair(value: Any) -> tuple:
    picture, caption = value
    return PICTURE("picture", picture), TEXT("caption", caption)


def _pattern(value: Any) -> str:
    return re.compile(SENTENCE("targets", value)).pattern


PAIR = Kind("a (picture, caption) pair", _pair, TypeError)
Targets = Annotated[str, Kind("a regular expression", _pattern)]
Examples = Annotated[tuple, Listed(PAIR, "(picture, caption) pairs", least=1)]
Prior = Annotated[tuple, Listed(PAIR, "(picture, caption) pairs")]
Captions = Annotated[tuple, Listed(SENTENCE, "captions")]
Training = Annotated[int, Integer(1, 10**7)]
Rank = Annotated[int, Integer(1, 256)]
Batch = Annotated[int, Integer(1, 1024)]
Seconds = Annotated[float, Number(1e-3)]
Strength = Annotated[float, Number(-10, 10)]


@dataclass
class Lora:
    """A LoRA that lies beside the weights of a pipeline's networks, to be trained or turned down.

    Attributes:
        pipe: the pipeline; its pictures and its clips both have the LoRA in them.
        losses: mean squared error of each step so far: (of the examples, of the prior or None).
        seconds: spent in training.
    """

    pipe: Pipeline
    losses: list[tuple[float, float | None]] = field(default_factory=list)
    seconds: float = 0.0

    def __repr__(self) -> str:
        size = sum(p.numel() for p in self.parameters)
        return f"Lora({size / 1e6:.2f}M parameters, {len(self.losses)} steps, {self.seconds:.0f} s)"

    @property
    def unet(self):
        return self.pipe.pictures.unet

    @property
    def parameters(self) -> list[Tensor]:
        """A and B of every layer, float32."""
        return [p for name, p in self.unet.named_parameters() if f".{ADAPTER}." in name]

    @checked
    @alone
    def set_strength(self, strength: Strength) -> None:
        """W x + strength B A x from now on; 0 is the model as it was, negative leads away."""
        self.unet.set_adapters(ADAPTER, weights=strength)
        self.pipe.pictures.weights_changed()

    @checked
    def save(self, file: str | Path) -> Path:
        """Writes A and B in half precision, as diffusers and `iv.load(..., lora=file)` read them.

        Raises ValueError where `file` is no .safetensors, OSError where it cannot be written.
        """
        file, own = destination("file", file, ".safetensors"), f".{ADAPTER}."
        named = [(n, p) for n, p in self.unet.named_parameters() if own in n]
        matrices = {f"unet.{name.replace(own, '.')}": p.half() for name, p in named}
        write_tensors(file, matrices, {"format": "pt"})
        return file

    @alone
    def remove(self) -> None:
        """The pipeline is again what it was without this LoRA."""
        self.unet.unload_lora()
        self.pipe.pictures.weights_changed()


@checked
@alone
def new(pipe: Pipeline, rank: Rank = 8, seed: Seed = 0, targets: Targets = TARGETS) -> Lora:
    """A LoRA that changes nothing yet: A is random, B is zero.

    rank: rows of A and columns of B, 1 to 256.
    targets: a regular expression over the names of the UNet's layers.
    Raises ValueError where the pipeline has a LoRA of this module already, TypeError where no UNet
    draws its pictures.
    """
    unet = _bare_unet(pipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if not any(re.fullmatch(targets, name) for name, _ in unet.named_modules()):
            raise ValueError(f"targets {shown(targets)} fits no layer of {pipe.name}'s UNet")
        beside(unet, ADAPTER, r=rank, lora_alpha=rank, target_modules=targets)
    return _ready(pipe)


@checked
@alone
def attach(pipe: Pipeline, file: str | Path, strength: Strength = 1.0) -> Lora:
    """A LoRA from a file beside the weights, instead of merged into them as by `iv.load`.

    It can be turned up and down, or trained further. file: as for `iv.load(..., lora=...)`; what it
    holds for the text encoder is left out. Raises FileNotFoundError or ValueError where the file is
    missing, damaged, or made for another network.
    """
    unet = _bare_unet(pipe)
    networks = {"unet": unet, "text_encoder": pipe.pictures.text_encoder}
    pairs = read(find(file, "file"), networks, pipe.name)["unet"]
    if not pairs:
        raise ValueError(f"the LoRA {file} names no layer of {pipe.name}'s UNet")
    ranks = {f"^{re.escape(layer)}": len(a) for layer, (a, _) in pairs.items()}
    patterns = {"rank_pattern": ranks, "alpha_pattern": ranks}
    beside(unet, ADAPTER, target_modules="|".join(ranks), **patterns)
    for layer, (a, b) in pairs.items():
        found = unet.get_submodule(layer)
        found.lora_A[ADAPTER].weight.data, found.lora_B[ADAPTER].weight.data = a, b
    lora = _ready(pipe)
    lora.set_strength(strength)
    return lora


def _bare_unet(pipe):
    if "image" not in pipe.pictures.capabilities:
        raise TypeError(f"{pipe.name} draws without a UNet; a LoRA here needs one, as 'storybook'")
    unet = pipe.pictures.unet
    if ADAPTER in getattr(unet, "peft_config", {}):
        raise ValueError("this pipeline has such a LoRA already: take that, or .remove() it first")
    return unet


def _ready(pipe) -> Lora:
    lora = Lora(pipe)
    for p in lora.parameters:
        p.data = p.data.to(pipe.device, torch.float32)
        p.requires_grad_(True)
    pipe.pictures.weights_changed()
    return lora


@checked(options=lambda: [Pipeline.image])
@torch.no_grad()
def drawn(pipe: Pipeline, captions: Captions, seed: Seed = 0, **options) -> list[tuple[Any, str]]:
    """What the pipeline draws for each caption: the class pictures of prior preservation.

    Take it before the training, of captions that name the class without the new word.
    options: those of `pipe.image`. Returns (picture, caption) pairs.
    """
    for i, caption in enumerate(captions):
        pipe.pictures.check_text(caption, f"captions[{i}]")
    return [(pipe.image(c, seed=seed + i, **options), c) for i, c in enumerate(captions)]


def loss(model, z: Tensor, text: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Mean squared error of the picture network about z noised to t (Eq. 2), a scalar.

    z, eps: (N, C, h, w); text: (N, tokens, width); t: (N,) training times.
    """
    scheduler, t = model.schedulers["image"], t.to(model.device)
    z, eps, text = (x.to(model.device, torch.float32) for x in (z, eps, text))
    kind = scheduler.config.prediction_type
    wanted = {"epsilon": eps, "sample": z}
    if kind == "v_prediction":
        wanted[kind] = scheduler.get_velocity(z, eps, t)
    z_t = scheduler.add_noise(z, eps, t).to(model.unet.dtype)
    with _computing(model):
        out = model.unet(z_t, t, text.to(z_t.dtype)).sample
    return F.mse_loss(out.float(), wanted[kind])


def _computing(model):
    """bfloat16 where the model computes in it; A and B themselves stay float32."""
    low = model.dtype == torch.bfloat16
    return torch.autocast(model.device.type, torch.bfloat16, enabled=low)


@contextlib.contextmanager
def finely(network):
    """Within it, weights of float16 are held as float32: small gradients vanish in float16."""
    coarse = [p for p in network.parameters() if p.dtype == torch.float16]
    try:
        for p in coarse:
            p.data = p.data.float()
        yield
    finally:
        for p in coarse:
            p.data = p.data.half()


def _cosine(share: float) -> float:
    return 0.5 + 0.5 * math.cos(math.pi * min(share, 1))


@torch.no_grad()
def _encode(model, pairs) -> tuple[Tensor, Tensor]:
    """Pictures and captions as latents (N, C, h, w) and text embeddings (N, tokens, width)."""
    codes, texts = [], []
    for picture, caption in pairs:
        codes.append(model.encode(to_pixels(to_picture(picture, model.size))))
        texts.append(model.encode_text(caption))
    return torch.cat(codes), torch.cat(texts)


@checked
def train(
    lora: Lora,
    examples: Examples,
    prior: Prior = (),
    *,
    prior_weight: Guidance = 1.0,
    steps: Training = 200,
    seconds: Seconds | None = None,
    batch: Batch = 4,
    lr: Share = 1e-3,
    seed: Seed = 0,
    progress: bool = True,
) -> Lora:
    """Trains A and B on pictures and their captions; DreamBooth's loss, with its prior term.

        |v(z_t, caption) - v|^2 + prior_weight |v(z_t', class caption) - v'|^2

    (v stands for what the network predicts: epsilon in Stable Diffusion 1.5.) The learning rate
    warms up over a twentieth of the way and falls as a cosine. An interrupt loses nothing: what
    was learned stays in the pipeline, and a later call goes on from it.

    Args:
        lora: of `new` or `attach`; its strength is set to 1.
        examples: (picture, caption) pairs, pictures as anything that `to_picture` takes.
        prior: pairs that shall stay as they are, see `drawn`; empty for none.
        prior_weight: of the second term, 0 or more.
        steps: at most so many.
        seconds: at most so long; None for no limit. Whatever comes first ends the training.
        batch: examples in one step, and as many of the prior.
        lr: learning rate of AdamW.

    Returns:
        `lora`, with `losses` and `seconds` added to.

    Raises:
        ValueError or TypeError, before any work, with one sentence that names the argument.
    """
    from tqdm.auto import tqdm

    model = lora.pipe.pictures
    seconds = math.inf if seconds is None else seconds
    if not lora.parameters:
        raise ValueError("lora has been removed from its pipeline: make a new one")
    given = {"examples": examples, "prior": prior}
    for name, pairs in given.items():
        for i, (_, caption) in enumerate(pairs):
            model.check_text(caption, f"the caption of {name}[{i}]")
    sets = [_encode(model, pairs) for pairs in given.values() if pairs]
    lora.set_strength(1.0)
    optimizer = torch.optim.AdamW(lora.parameters, lr=lr, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    times = model.schedulers["image"].config.num_train_timesteps
    begun, share, before = time.perf_counter(), 0.0, len(lora.losses)
    bar = tqdm(total=steps, desc="training", disable=not progress)
    try:
        with finely(model.unet):
            while share < 1:
                for group in optimizer.param_groups:
                    group["lr"] = lr * min(1, 20 * (share + 1 / steps)) * _cosine(share)
                optimizer.zero_grad()
                errors = []
                for (z, text), weight in zip(sets, (1.0, prior_weight), strict=False):
                    rows = torch.randint(len(z), (batch,), generator=generator)
                    t = torch.randint(times, (batch,), generator=generator)
                    eps = torch.randn(batch, *z.shape[1:], generator=generator).to(z)
                    with alone, torch.enable_grad():
                        error = loss(model, z[rows], text[rows], t, eps)
                        (weight * error).backward()
                    errors.append(error.item())
                torch.nn.utils.clip_grad_norm_(lora.parameters, 1.0)
                with alone:
                    optimizer.step()
                    model.changed += 1
                lora.losses.append((errors[0], errors[1] if prior else None))
                bar.set_postfix(loss=f"{errors[0]:.3f}", refresh=False)
                bar.update()
                done = len(lora.losses) - before
                share = max(done / steps, (time.perf_counter() - begun) / seconds)
    except KeyboardInterrupt:
        print(f"stopped after {len(lora.losses) - before} steps; what was learned is kept")
    finally:
        bar.close()
        lora.seconds += time.perf_counter() - begun
        model.weights_changed()
    return lora
