"""Stage 8: the live student, a LoRA with which the motion UNet makes four frames in one pass.

It learns from rendered streams (`streams.py`) by regression, and from its own past: every stream of
a pool goes on with what the student made of it, up to a hundred frames deep, at no further pass.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from ...models import live
from ...models.lora import merge_folder
from ...models.pia import motion_unet
from .. import words
from ..networks import Networks, load_vae
from ..streams import plan
from ..world import SIZE, World
from .common import LORA, Ranks, Stage, Trainer, learn, pixel_loss, save_grid, write_lora
from .data import Ring

RANK = 27
TARGETS = (
    r".*(to_q|to_k|to_v|to_out\.0|net\.0\.proj|net\.2|conv1|conv2|conv_shortcut"
    r"|samplers\.0\.conv|proj_in|proj_out|conv_in|conv_out)"
)


class Lora:
    """Factors b @ a of a network's layers; the network itself holds the base and their product.

    So it computes as fast as the base, and compiles as the base does.
    """

    def __init__(self, network: nn.Module):
        groups: dict[tuple, list] = {}  # layers of one shape are one product: far fewer kernels
        for name, layer in network.named_modules():
            if hasattr(layer, "weight") and re.fullmatch(TARGETS, name):
                shape = len(layer.weight), layer.weight[0].numel()
                groups.setdefault(shape, []).append((name, layer.weight))
        self.groups = list(groups.values())
        self.weights = [w for group in self.groups for _, w in group]
        self.base = [self._stack(w.detach() for _, w in group) for group in self.groups]
        self.a = [nn.Parameter(w.new_empty(len(w), RANK, w.shape[2])) for w in self.base]
        self.b = [nn.Parameter(w.new_zeros(len(w), w.shape[1], RANK)) for w in self.base]
        for a in self.a:
            nn.init.uniform_(a, -(a.shape[2] ** -0.5), a.shape[2] ** -0.5)

    @staticmethod
    def _stack(weights) -> torch.Tensor:
        return torch.stack([w.float().flatten(1) for w in weights])

    def parameters(self) -> list[nn.Parameter]:
        return [*self.a, *self.b]

    def merged(self) -> list[torch.Tensor]:
        return [torch.baddbmm(*parts) for parts in zip(self.base, self.b, self.a, strict=True)]

    @torch.no_grad()
    def write(self) -> None:
        """Sets the network's weights."""
        merged = [w for group in self.merged() for w in group]
        views = [m.view(w.shape) for m, w in zip(merged, self.weights, strict=True)]
        torch._foreach_copy_([w.data for w in self.weights], views)

    def loss(self) -> torch.Tensor:
        """What has the factors' gradients, once the weights have theirs."""
        grads = (self._stack(w.grad for _, w in group) for group in self.groups)
        return sum((m * g).sum() for m, g in zip(self.merged(), grads, strict=True))

    def _factors(self):
        """(layer's name, its weight, a, b) of each layer."""
        for group, a, b in zip(self.groups, self.a, self.b, strict=True):
            for (name, w), *factors in zip(group, a, b, strict=True):
                yield name, w, *factors

    def save(self, folder: Path) -> None:
        """Writes fp16 factors in PEFT's format over UNetMotionModel's layers."""
        state = {}
        for name, w, a, b in self._factors():
            state[f"{name}.lora_A.weight"] = a.view(-1, *w.shape[1:])
            state[f"{name}.lora_B.weight"] = b.view(*b.shape, *[1] * (w.dim() - 2))
        write_lora(folder, RANK, TARGETS, state)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        state = load_file(folder / LORA)
        for name, _, a, b in self._factors():
            a.copy_(state[f"base_model.model.{name}.lora_A.weight"].view_as(a))
            b.copy_(state[f"base_model.model.{name}.lora_B.weight"].view_as(b))


@dataclass
class Student(live.Student):
    """The networks that a stream needs, with the text encoder and the autoencoder's own decoder."""

    text: nn.Module

    @classmethod
    def of(cls, folder: Path, device, dtype, lora: bool = True) -> Student:
        """What `folder` holds; `lora=False`: the networks as they are without the student's."""
        nets, vae = Networks.load(folder), load_vae(folder, device, dtype)
        network = motion_unet(nets.unet, nets.adapter)
        if lora:
            merge_folder(network, folder / live.FOLDER)
        network, text = (live.still(part, device, dtype) for part in (network, nets.text))
        return cls(network, vae, vae.decoder, text)

    @torch.no_grad()
    def roll(self, pictures, ids, speed, held=None, seed: int = 0) -> torch.Tensor:
        """Latents (n, 4 L + 1, C, h, w) of streams that begin with pictures (n, 3, 256, 256).

        ids, speed: of L chunks, see `Streams`. held: Streams and masks of what is held, or None.
        """
        z = self.encode(pictures)
        g = torch.Generator(z.device).manual_seed(seed)
        context, found = live.begin(z), [z[:, None]]
        cut = pictures[:, None].expand(-1, live.HANDS, -1, -1, -1)
        rest = torch.tensor(words.encode(live.REST), device=ids.device)
        for c in range(ids.shape[1]):
            condition, cells, affinity = context[:, -1], None, live.affinity_of(speed[:, c])
            acts = (ids[:, c] != rest).any(1).view(-1, 1, 1, 1)
            if held and ((held[0].press <= c) & (c < held[0].release)).any():
                s, masks = held
                chunk = torch.full_like(s.press, c)
                now_held = ((s.press <= c) & (c < s.release)).view(-1, 1, 1, 1)
                seen = condition, cut, s.press, chunk, masks * now_held[:, None], s.at
                pulled, cells, cut = self.pull(*seen)
                condition = torch.where(now_held, pulled, condition)
                acts = acts | now_held
            noise = torch.randn(len(z), 8, *z.shape[1:], device=z.device, generator=g)
            text = self.text(ids[:, c]).last_hidden_state
            new = live.chunk(self.network, noise, context, condition, text, affinity, cells)
            new = torch.where(acts[:, None], new, context[:, -1:])  # as in a stream
            context = live.follow(context, new)
            found.append(new)
        return torch.cat(found, 1)

    def pull(self, last, cut, press, chunk, masks, at):
        rows = torch.arange(len(last), device=last.device)
        places = (at[rows, k] for k in (press.clamp(max=at.shape[1] - 1), chunk, chunk + 1))
        coders = self.encode, self.decode
        return live.pull(*coders, last, cut, press == chunk, masks, *places)


class Pool(Ring):
    """Rendered streams of so many chunks, `draw` of them at a time: latents z, the masks of what is
    held, and the fields of `Streams`."""

    def __init__(
        self, student: Student, ranks: Ranks, size: int, chunks: int, draw: int, seed: int
    ):
        super().__init__(size, ranks.device)
        self.student, self.world, self.planner = student, ranks.world(), World("cpu")
        self.generator = torch.Generator().manual_seed(seed)
        self.encode = ranks.compile(student.vae.encoder)
        self.chunks, self.draw = chunks, draw

    @torch.no_grad()
    def fill(self) -> None:
        """Renders as many streams as are drawn at once."""
        s = plan(self.planner, self.draw, self.chunks, self.generator, drag=0.7)
        s = s.to(self.filled.device)
        frames, seen = s.draw(self.world)
        frames = frames.flatten(0, 1).to(self.student.vae.dtype)
        z = self.encode(frames.contiguous(memory_format=torch.channels_last))
        fields = {name: getattr(s, name) for name in ("ids", "speed", "press", "release", "at")}
        z = z.view(self.draw, -1, *z.shape[1:])
        self.add(z=z, masks=(255 * grown(seen)).byte(), **fields)

    def newest(self, n: int) -> torch.Tensor:
        """n rows of the younger half, so that none is drawn over before its stream ends."""
        back = self.chance(n, self.filled.clamp(max=max(self.size // 2, 1)))
        return (self.filled - 1 - back) % self.size


def grown(seen: torch.Tensor) -> torch.Tensor:
    """Regions (n, 2, 1, H, W) of what is seen of things, some pixels too wide or too narrow, as a
    person's or a region grower's are."""
    soft = nn.functional.avg_pool2d(seen.flatten(0, 1), 9, 1, 4)
    level = torch.rand(len(soft), 1, 1, 1, device=seen.device) * 0.57 + 0.03
    return (soft > level).float().view_as(seen)


def train(
    stage: Stage,
    batch: int = 128,
    blocks: int = 16,
    chunks: int = 16,
    ring: int = 4096,
    first_fill: int = 1024,
    draw: int = 10,
    renew: int = 4,
    pixels: int = 32,
    lr: float = 2e-3,
    save_every: float = 120.0,
    rows: int = 6,
    wall: float | None = None,
) -> dict[str, Any]:
    """Trains live/, from what the folder holds (with a new warm-up), or anew.

    The pool has `blocks` of `batch` streams of `chunks` chunks, and rests; every `renew` steps
    `draw` streams are rendered anew. `pixels` rows of a batch are compared as pictures too. `wall`:
    seconds that compiling, filling and training take together at the most.
    """
    begun = time.time()
    ranks, folder = stage.ranks, stage.folder
    d, low = ranks.device, ranks.low
    student = Student.of(folder, d, low, lora=False)
    torch.manual_seed(700)  # the factors begin alike on all GPUs
    lora = Lora(student.network)
    if (folder / live.FOLDER / LORA).is_file():
        lora.load(folder / live.FOLDER)
    for w in lora.weights:
        w.requires_grad_(True)
    trainer = Trainer(lora.parameters(), ranks, lr, (0.9, 0.98), weight_decay=0.0)
    count = trainer.master.numel()
    ranks.say(f"live: {count / 1e6:.2f}M parameters, {2 * count / 1e6:.2f} MB in fp16")
    seed = 701 + ranks.rank + 100 * int(stage.before)
    torch.manual_seed(seed)
    data = Pool(student, ranks, ring, chunks, draw, seed)
    while int(data.filled) < first_fill:
        data.fill()
    ranks.say(f"{int(data.filled)} streams after {time.time() - begun:.0f} s")
    film = ranks.compile(student.network)
    rest = torch.tensor(words.encode(live.REST), device=d)
    end = live.NEW * chunks
    in_batch = torch.arange(batch, device=d)
    row = data.newest(batch * blocks)
    chunk = torch.zeros_like(row)
    context = live.begin(data["z"][row, 0]).float().clone()
    cut = torch.zeros(len(row), 1, 3, SIZE, SIZE, device=d, dtype=low)
    turn = torch.zeros((), device=d, dtype=torch.long)
    own_share = torch.zeros((), device=d)

    def chance(p):
        return torch.rand(batch, device=d) < p

    def wide(v):
        return v.view(-1, *[1] * 4)

    @torch.no_grad()
    def situation():
        """Where each stream of this turn's block stands."""
        here = in_batch + turn * batch
        r, c = row[here], chunk[here]
        frame = live.NEW * c[:, None]
        back = (frame + torch.arange(1 - live.PAST, 1, device=d)).clamp(0, end)
        taught = torch.cat([data["z"][r, :1], data["z"][r[:, None], back]], 1).float()
        unclean = 0.1 * torch.rand(batch, 1, 1, 1, 1, device=d)
        taught = taught + unclean * torch.randn_like(taught)
        own = chance(own_share)
        seen = torch.where(wide(own), context[here], taught)
        edited = chance(0.1)  # the stream goes on from its last picture, as after a stroke
        seen = torch.where(wide(edited), live.begin(seen[:, -1]), seen)
        over = c >= chunks  # everything rests, as long as chance has it
        k = c.clamp(max=chunks - 1)
        held = (data["press"][r] <= c) & (c < data["release"][r]) & ~over
        some = held.float().topk(max(batch // 2, 1)).indices  # those with hands on them first
        rs, last = r[some], seen[:, -1]
        masks = wide(held[some]) * data["masks"][rs].float() / 255
        grabbed = cut[here[some]].expand(-1, live.HANDS, -1, -1, -1)
        pulled, cells, grabbed = student.pull(
            *(last[some], grabbed, data["press"][rs], k[some], masks, data["at"][rs])
        )
        cut[here[some]] = grabbed[:, :1].to(low)
        condition = last.clone()
        condition[some] = torch.where(wide(held[some])[:, 0], pulled, last[some])
        taken = last.new_zeros(batch, live.NEW, *last.shape[-2:])
        taken[some] = cells
        affinity = live.affinity_of(data["speed"][r, k].masked_fill(over, 0.0))
        ids = torch.where(over[:, None], rest, data["ids"][r, k])
        ahead = (frame + torch.arange(1, live.NEW + 1, device=d)).clamp(max=end)
        true = data["z"][r[:, None], ahead].float()
        return here, r, c, own, held, seen, true, ids, condition, affinity, taken

    @torch.no_grad()
    def go_on(here, r, c, seen, new):
        """The pool's streams take what the student made; those at their end give way."""
        ended = (c + 1 >= chunks) & chance(0.5)
        fresh = data.newest(batch)
        first = live.begin(data["z"][fresh, 0]).float()
        context[here] = torch.where(wide(ended), first, live.follow(seen, new))
        row[here] = torch.where(ended, fresh, r)
        chunk[here] = (c + 1).masked_fill(ended, 0)
        turn.add_(1).remainder_(blocks)

    def gradient():
        lora.write()
        here, r, c, own, held, seen, true, ids, condition, *told = situation()
        text = student.text(ids).last_hidden_state
        noise = torch.randn(batch, 8, *true.shape[2:], device=d)
        new = live.chunk(film, noise, seen, condition, text, *told)
        error = new - true
        loss = error.pow(2).mean() + 0.3 * error.abs().mean()
        if pixels:
            made, wanted = (
                torch.cat([v[k : pixels : live.NEW, k] for k in range(live.NEW)])
                for v in (new, true)
            )
            with torch.no_grad():
                wanted = student.decode(wanted)
            made = student.vae.decoder(made.to(low)).float()
            loss = loss + pixel_loss(made - wanted)
        for w in lora.weights:
            w.grad = None
        loss.backward()
        trainer.backward(lora.loss())
        go_on(here, r, c, seen, new.detach())
        mse = error.detach().pow(2).flatten(1).mean(1)
        kinds = torch.stack([~own, own & ~held, own & held])
        return torch.stack([(mse * kinds).sum(1), kinds.sum(1)], 1)

    def show():
        """Pictures of held-out streams: the student's above, the true ones below."""
        lora.write()
        world = World(d)
        g = torch.Generator().manual_seed(90_000)
        s = plan(World("cpu"), rows, chunks, g).to(d)
        true, masks = s.draw(world)
        z = student.roll(true[:, 0], s.ids, s.speed, (s, masks))
        every = max(end // 8, 1)
        made = torch.stack([student.decode(v) for v in z[:, ::every]])
        both = torch.stack([made, true[:, ::every]], 1)
        save_grid(both.flatten(0, 1), stage.out / f"live_{clock.n:06d}.jpg", 0.4)

    gradient = ranks.replay(gradient)
    ranks.say(f"live: ready after {time.time() - begun:.0f} s")
    seconds = stage.seconds
    if wall:
        seconds = ranks.first_says(min(seconds, max(wall - (time.time() - begun), 1.0)))
    clock = stage.clock(seconds)

    def step():
        if clock.n and clock.n % renew == 0:
            data.fill()
        own_share.fill_(0.9 * min(max((clock.past - 0.06) / 0.2, 0), 1))
        return gradient()

    def save():
        lora.save(folder / live.FOLDER)
        if rows:
            show()

    names = ("MSE on the true past", "its own", "held")
    return learn("live", trainer, clock, step, names, 250, save, save_every)
