"""Streams of the storybook world: what is true while texts change and a pointer pulls things.

A stream goes in chunks of four frames. A text acts for four chunks or until the next one comes;
then everything rests, and what an event did stays. Things are held for some chunks, and go in equal
steps to where the pointer is when a chunk begins, whatever the text says of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch

from ..models.live import ACTS, HANDS, NEW, REST
from . import words
from .world import (
    BEACH,
    EVENTS,
    MOVE_ODDS,
    NIGHT,
    NUM_FRAMES,
    SEA,
    SLOTS,
    SNOW,
    Scenes,
    World,
    on_picture,
)

_DARK, _LIGHT, _FALLS, _MELTS, _TIDE, _ROLL, _IN, _OUT, _LEFT, _RIGHT = range(1, len(EVENTS))
_SMALL, _LARGE = 0.16, 0.62  # sides that things shrink and grow to


@dataclass
class Streams:
    """n streams of L chunks, 4 L + 1 frames; the first is the picture that they begin with."""

    scenes: Scenes
    state: tuple[torch.Tensor, ...]  # what `World.draw` reads of each frame
    ids: torch.Tensor  # (n, L, tokens) of the text in force, or of REST
    speed: torch.Tensor  # (n, L), 0 at rest
    press: torch.Tensor  # (n,) first chunk in which things are held; L where none are
    release: torch.Tensor  # (n,) first chunk in which they no longer are
    slots: torch.Tensor  # (n, 2) of the things held, the upper one last; the first may be -1
    at: torch.Tensor  # (n, L + 1, 2, 2) where they are on the picture when a chunk begins

    def to(self, device) -> Streams:
        """A copy on a device."""

        def moved(v):
            return tuple(map(moved, v)) if isinstance(v, tuple) else v.to(device)

        return Streams(*(moved(getattr(self, f.name)) for f in fields(self)))

    def draw(self, world: World) -> tuple[torch.Tensor, torch.Tensor]:
        """True frames (n, 4 L + 1, 3, 256, 256), and what is seen of the things held when they are
        grabbed, (n, 2, 1, 256, 256) in [0, 1]."""
        rows = torch.arange(len(self.ids), device=world.device)
        frames, alphas = world.draw(self.scenes, *self.state)
        grabbed = torch.stack([a[rows, NEW * self.press] for a in alphas], 1)
        under, upper = (grabbed[rows, self.slots[:, k]] for k in range(HANDS))
        seen = torch.stack([under * (1 - upper), upper], 1)
        return frames, seen * (self.slots >= 0)[:, :, None, None, None]


def plan(
    world: World,
    n: int,
    chunks: int,
    generator: torch.Generator,
    drag: float = 0.5,
    hold: tuple[int, int] | None = None,
    gaps: tuple[int, int] = (1, 6),
    late: float = 0.15,
    cameras: bool = True,
) -> Streams:
    """Draws n streams at random, on the CPU.

    Args:
        drag: share of the streams in which things are held.
        hold: their first chunk, and the first in which they are held no more, in place of random
            ones; the pointer rests in the last chunk between.
        gaps: chunks from one text to the next, at least and at most.
        late: share of the streams that begin with a rest of a chunk or two.
        cameras: whether texts may move the camera; never where things are held.
    """
    g = generator
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=g)))

    def rand(*shape):
        return torch.rand(n, *shape, generator=g)

    def whole(low, high):  # both included
        return torch.randint(low, high + 1, (n,), generator=g)

    s = world.sample(n, g)
    # what chance would decide in a frame to come has one place: a regression would average it
    canon = (s.time != NIGHT) | (rand() < 0.3)
    s.specks = torch.where(canon[:, None], torch.tensor([0.37, 0.61]), s.specks)
    press = torch.where(rand() < drag, whole(0, chunks - 1), torch.full((n,), chunks))
    release = press + whole(1, 5)
    if hold:
        press, release = (torch.full((n,), k) for k in hold)
    order = (s.present * torch.arange(1, SLOTS + 1)).sort(1).values - 1  # -1: none
    slots = order[:, -HANDS:].clone()
    slots[:, 0] = torch.where(rand() < 0.3, slots[:, 0], -1)
    held = (torch.arange(SLOTS)[None, :, None] == slots[:, None]).any(-1)

    x, y, size, tilt = s.x, s.y, s.size, torch.zeros_like(s.x)
    night = (s.time == NIGHT).float()
    past = torch.zeros(n, len(EVENTS))  # how far each event has gone
    past[:, _LIGHT] = 1 - night
    past[:, _DARK] = night
    zoom, pan, base = torch.ones(n), torch.zeros(n), size
    frames = [tuple(v[:, None] for v in (x, y, size, tilt, past, zoom, pan))]
    rest = torch.tensor(words.encode(REST))
    now, ids, speeds = rest.expand(n, -1), [], []
    begins = torch.where(rand() < late, whole(1, 2), 0)
    since, speed, move = torch.full((n,), ACTS), torch.zeros(n), torch.zeros_like(s.move)
    event, step = torch.zeros_like(s.event), torch.arange(1, NEW + 1)
    places = []
    for c in range(chunks):
        new = begins == c
        begins = torch.where(new, c + whole(*gaps), begins)
        since = torch.where(new, 0, since + 1)
        fresh = _instructions(world, s, x, y, past, canon, cameras & (press == chunks), g)
        move = torch.where(new[:, None], fresh.move, move)
        event = torch.where(new, fresh.event, event)
        speed = torch.where(new, fresh.speed, speed)
        acts = since < ACTS
        if new.any():
            _, said = words.texts(fresh[new], world.labels, rng)
            now = now.clone()
            now[new] = words.ids(said)
        ids.append(torch.where(acts[:, None], now, rest))
        speeds.append(torch.where(acts, speed, 0.0))
        # by text: rates of a frame
        pace = torch.where(acts, speed, 0.0) / (NUM_FRAMES - 1)
        beat = acts.float() / (NUM_FRAMES - 1)
        base = torch.where(new[:, None], size, base)

        fx = _go(x, pace[:, None] * world.dx[move], 0.1, 0.9)
        fy = _go(y, pace[:, None] * world.dy[move], 0.1, 0.9)
        fsize = _go(size, pace[:, None] * world.grow[move] * base, _SMALL, _LARGE)
        ftilt = _go(tilt, pace[:, None] * world.tilt[move], -9.0, 9.0)
        fnight = _go(night, beat * (_is(event, _DARK) - _is(event, _LIGHT)), 0.0, 1.0)
        fzoom = _go(zoom, pace * (0.5 * _is(event, _IN) - 0.35 * _is(event, _OUT)), 0.65, 1.5)
        fpan = _go(pan, pace * 0.3 * (_is(event, _RIGHT) - _is(event, _LEFT)), -0.3, 0.3)
        rates = torch.zeros(n, len(EVENTS))
        for k, rate in ((_FALLS, beat), (_MELTS, beat), (_TIDE, beat), (_ROLL, pace)):
            rates[:, k] = rate * (event == k)
        highest = torch.full((len(EVENTS),), 99.0)
        highest[[_MELTS, _TIDE]] = 1.0
        fpast = torch.minimum(past[:, None] + step[None, :, None] * rates[:, None], highest)
        fpast[..., _DARK], fpast[..., _LIGHT] = fnight, 1 - fnight
        # by hand
        here = on_picture(x[:, None], y[:, None], zoom[:, None], pan[:, None])[:, 0]
        places.append(here)
        far = torch.tensor([0.0, 0.12, 0.4])[torch.randint(3, (n, SLOTS), generator=g)]
        if hold and c == hold[1] - 1:
            far = torch.zeros_like(far)
        way = (torch.rand(n, SLOTS, 2, generator=g) * 2 - 1) * far[..., None]
        to = (here + way).clamp(torch.minimum(here, here.new_tensor(0.06)), here.clamp(min=0.94))
        to = (to - 0.5) / zoom[:, None, None] + 0.5
        in_hand = (((press <= c) & (c < release))[:, None] & held)[:, None]
        for f, v, k in ((fx, x, 0), (fy, y, 1)):
            goal = to[..., k] + (pan[:, None] if k == 0 else 0)
            pulled = v[:, None] + (goal - v)[:, None] * (step / NEW)[None, :, None]
            f.copy_(torch.where(in_hand, pulled, f))
        for f, v in ((fsize, size), (ftilt, tilt)):
            f.copy_(torch.where(in_hand, v[:, None], f))
        chunk = fx, fy, fsize, ftilt, fpast, fzoom, fpan
        frames.append(chunk)
        x, y, size, tilt, past, zoom, pan = (v[:, -1] for v in chunk)
        night = fnight[:, -1]
    places.append(on_picture(x[:, None], y[:, None], zoom[:, None], pan[:, None])[:, 0])
    at = torch.stack(places, 1)  # (n, L + 1, 3, 2)
    index = slots.clamp(min=0)[:, None, :, None].expand(-1, chunks + 1, -1, 2)
    state = tuple(torch.cat(v, 1) for v in zip(*frames, strict=True))
    texts = torch.stack(ids, 1), torch.stack(speeds, 1)
    return Streams(s, state, *texts, press, release, slots, at.gather(2, index))


def _go(v: torch.Tensor, rate: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """v (n, ...) in the four next frames, (n, 4, ...), at a rate a frame; it stops at low and high,
    or where it is if that is beyond."""
    low, high = v.clamp(max=low)[:, None], v.clamp(min=high)[:, None]
    steps = torch.arange(1, NEW + 1).view(1, -1, *[1] * (v.dim() - 1))
    return (v[:, None] + steps * rate[:, None]).clamp(low, high)


def _is(event: torch.Tensor, *kinds: int) -> torch.Tensor:
    return sum((event == k).float() for k in kinds)


def _instructions(world, s, x, y, past, canon, cameras, generator) -> Scenes:
    """The scenes with moves, events and speeds that are possible where things are now."""
    n = len(s)

    def drawn(odds, count):
        return torch.multinomial(torch.tensor(odds), count, True, generator=generator)

    move = drawn(MOVE_ODDS, n * SLOTS).view(n, SLOTS)
    speed = torch.rand(n, generator=generator) * 0.65 + 0.35
    move = world.inward(move, x, y, speed)
    event = drawn([10.0, 2.0, 2.0, 1.5, 2.0, 2.0, 1.5, 0.7, 0.7, 0.7, 0.7], n)
    wet = (s.ground == SEA) | (s.ground == BEACH)
    may = {
        _DARK: past[:, _DARK] < 0.5,
        _LIGHT: past[:, _LIGHT] < 0.5,
        _FALLS: canon,
        _MELTS: (s.ground == SNOW) & (past[:, _MELTS] < 0.5),
        _TIDE: (s.ground == BEACH) & (past[:, _TIDE] < 0.5),
        _ROLL: wet,
        **dict.fromkeys((_IN, _OUT, _LEFT, _RIGHT), cameras),
    }
    for k, possible in may.items():
        event = torch.where((event == k) & ~possible, 0, event)
    return s.with_(move=move, event=event, speed=speed)
