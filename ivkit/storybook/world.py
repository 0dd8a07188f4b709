"""The storybook world: sprites on six grounds at three times of day, and what moves there.

`World.sample` draws a batch of scenes, `World.render` draws their frames on any device, and because
the renderer knows every true frame, position and mask, every claim about the model can be measured.
Coordinates are shares of the picture's width and height, y pointing down; time runs from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F

from ..models import DEVICE, pick
from ..support.validate import (
    Count,
    Frames,
    Instance,
    Integer,
    Kind,
    Number,
    TensorOf,
    checked,
    shown,
)
from . import sprites

NUM_FRAMES, SIZE, SLOTS = 16, 256, 3  # frames of a clip; pixels; objects of a scene at the most
GROUNDS = ["green meadow", "blue sea", "yellow desert", "white snow", "grey street", "sandy beach"]
TIMES = ["day", "sunset", "night"]
#: a move -> how far at speed 1, in shares of the width: right, down; growth; tilt in radians; odds
_MOVES = {
    "stays still": (0, 0, 0, 0, 0.22),
    "moves left": (-0.42, 0, 0, 0, 0.12),
    "moves right": (0.42, 0, 0, 0, 0.12),
    "moves up": (0, -0.34, 0, 0, 0.12),
    "moves down": (0, 0.34, 0, 0, 0.12),
    "moves up and left": (-0.30, -0.26, 0, 0, 0.03),
    "moves up and right": (0.30, -0.26, 0, 0, 0.03),
    "moves down and left": (-0.30, 0.26, 0, 0, 0.03),
    "moves down and right": (0.30, 0.26, 0, 0, 0.03),
    "grows": (0, 0, 0.6, 0, 0.06),
    "shrinks": (0, 0, -0.5, 0, 0.06),
    "tilts left": (0, 0, 0, -0.6, 0.03),
    "tilts right": (0, 0, 0, 0.6, 0.03),
}
MOVES = list(_MOVES)
_DX, _DY, _GROW, _TILT, MOVE_ODDS = map(list, zip(*_MOVES.values(), strict=True))
_FLIP_X = [0, 2, 1, 3, 4, 6, 5, 8, 7, 9, 10, 11, 12]  # the same move, mirrored
_FLIP_Y = [0, 1, 2, 4, 3, 7, 8, 5, 6, 9, 10, 11, 12]
EVENTS = [
    "",
    *("it gets dark", "it gets light", "the snow falls", "the snow melts", "the tide rises"),
    *("the waves roll", "the camera zooms in", "the camera zooms out"),
    *("the camera pans left", "the camera pans right"),
]
_GROUND = [
    *([0.36, 0.72, 0.30], [0.16, 0.45, 0.80], [0.92, 0.78, 0.45]),
    *([0.95, 0.96, 0.99], [0.55, 0.55, 0.58], [0.18, 0.50, 0.80]),
]
_SAND = [0.93, 0.83, 0.60]
_SKY_TOP = [[0.35, 0.65, 0.95], [0.85, 0.45, 0.50], [0.05, 0.07, 0.20]]
_SKY_LOW = [[0.80, 0.92, 1.0], [1.0, 0.78, 0.45], [0.15, 0.18, 0.38]]
_LIGHT = [[1.0, 1.0, 1.0], [0.98, 0.82, 0.72], [0.45, 0.48, 0.65]]
Device = Annotated[torch.device, DEVICE]
MELTED, SEA, SNOW, BEACH, NIGHT = 0, 1, 3, 5, 2


@dataclass
class Scenes:
    """A batch of B scenes with up to 3 objects each; every field is a tensor of B rows."""

    ground: torch.Tensor  # (B,) index into GROUNDS
    time: torch.Tensor  # (B,) index into TIMES
    horizon: torch.Tensor  # (B,) height of the horizon
    shore: torch.Tensor  # (B,) where a beach's sand begins
    sprite: torch.Tensor  # (B, 3) index into sprites.sprites()
    present: torch.Tensor  # (B, 3) bool: is the slot used
    size: torch.Tensor  # (B, 3) side of the sprite at time 0
    x: torch.Tensor  # (B, 3) centre at time 0
    y: torch.Tensor  # (B, 3)
    move: torch.Tensor  # (B, 3) index into MOVES
    event: torch.Tensor  # (B,) index into EVENTS
    speed: torch.Tensor  # (B,) 0.35 (slow) to 1 (quick); also the clip's motion scale
    hills: torch.Tensor  # (B, 3) phase, height and frequency of the horizon's waves
    specks: torch.Tensor  # (B, 2) offset of stars and snow flakes

    def __len__(self) -> int:
        return len(self.ground)

    @property
    def shape(self) -> tuple[int]:
        return self.ground.shape

    def each(self, f, *others: Scenes) -> Scenes:
        """What f makes of every field, of these scenes and of others."""
        return Scenes(*(f(*(getattr(s, k.name) for s in (self, *others))) for k in fields(self)))

    def __getitem__(self, rows) -> Scenes:
        return self.each(lambda v: v[rows])

    def to(self, device) -> Scenes:
        return self.each(lambda v: v.to(device))

    def with_(self, **changes) -> Scenes:
        """A copy with some fields replaced (tensors that broadcast to the field's shape)."""
        for k, v in changes.items():
            if k not in vars(self):
                raise TypeError(f"with_ has no argument {shown(k)}; it has {', '.join(vars(self))}")
            old = getattr(self, k)
            try:
                v = torch.as_tensor(v, device=old.device).expand_as(old)
                changes[k] = v.to(old.dtype).clone()
            except Exception:
                raise ValueError(
                    f"{k} must be numbers that broadcast to {tuple(old.shape)}, got {shown(v)}"
                ) from None
        return replace(self, **changes)

    def become(self, other: Scenes) -> None:
        """Takes over as many other scenes, in place."""
        self.each(torch.Tensor.copy_, other)

    @staticmethod
    def join(parts: list[Scenes]) -> Scenes:
        return parts[0].each(lambda *rows: torch.cat(rows), *parts[1:])


class _Floats(TensorOf):
    """As float32, on its own device."""

    def converted(self, value: Any) -> torch.Tensor:
        found = super().converted(value)
        if found.is_meta:
            raise ValueError
        return found.float() if found.is_floating_point() else found


class _Batch(Kind):
    """Scenes, B of them."""

    def axes(self, value: Scenes) -> dict[str, int]:
        return {"B": len(value)}


Times = Annotated[torch.Tensor, _Floats("B T")]
Time = Annotated[Any, _Floats("B 1", broadcasts=True, number=Number())]
Corner = Annotated[torch.Tensor, _Floats("B 2")]
Batch = Annotated[Scenes, _Batch("Scenes", Instance(Scenes).take, TypeError)]


class World:
    """Samples and renders scenes on one device; `compile` may make the drawing faster."""

    @checked
    def __init__(self, device="cpu", compile: Callable = lambda draw: draw):
        self.device = pick(device)[0]
        tiles, self.labels = sprites.sprites()
        self.sheet = self._sheet(tiles)
        cast = len(sprites.CAST)
        ids = torch.arange(cast, device=self.device)
        homes = np.array(sprites.HOMES)
        self.homes = {h: ids[torch.from_numpy(homes == h)] for h in ("sky", "land", "sea")}
        self.aurora = sprites.NAMES.index("polar lights")
        self.glows = torch.tensor([n in sprites.GLOWS for n, _ in self.labels], device=self.device)
        tints = [[i for i, (n, _) in enumerate(self.labels) if n == name] for name in sprites.NAMES]
        self.tints = torch.full((cast, max(map(len, tints))), -1, device=self.device)
        for i, row in enumerate(tints):  # every row repeats its own variants, the plain one first
            self.tints[i] = torch.tensor([row[k % len(row)] for k in range(self.tints.shape[1])])

        def table(values):
            return torch.tensor(values, device=self.device, dtype=torch.float32)

        self.dx, self.dy, self.grow, self.tilt = map(table, (_DX, _DY, _GROW, _TILT))
        self.ground, self.sand, self.sky_top, self.sky_low, self.light = map(
            table, (_GROUND, _SAND, _SKY_TOP, _SKY_LOW, _LIGHT)
        )
        self.draw = compile(self._draw)

    def _sheet(self, tiles: np.ndarray) -> torch.Tensor:
        """Sprites uint8 (N, S, S, 4) as (2, N, 4, S, S), the second for those below half size."""
        sheet = torch.tensor(tiles, device=self.device).float().div(255).permute(0, 3, 1, 2)
        sheet = torch.cat([sheet[:, :3] * sheet[:, 3:], sheet[:, 3:]], 1)  # no dark fringes
        small = F.interpolate(F.avg_pool2d(sheet, 2), scale_factor=2, mode="bilinear")
        return torch.stack([sheet, small])

    def add_sprite(self, tile, name: str) -> int:
        """One sprite more (RGBA, see `sprites.tile`), that `sample` never draws; its index."""
        self.sheet = torch.cat([self.sheet, self._sheet(np.asarray(tile)[None])], 1)
        self.labels = [*self.labels, (name, None)]
        self.glows = torch.cat([self.glows, self.glows.new_zeros(1)])
        return len(self.labels) - 1

    # ---- sampling -------------------------------------------------------------------------
    @checked
    def sample(
        self,
        n: Count,
        generator: torch.Generator | None = None,
        objects: Annotated[int, Integer(1, SLOTS)] | None = None,
    ) -> Scenes:
        """Draws n scenes at random. `objects`: exactly that many in each (1 to 3), else 1 to 3."""
        d, g = self.device, generator

        def rand(*shape):
            return torch.rand(n, *shape, device=d, generator=g)

        def uniform(low, high, *shape):
            return rand(*shape) * (high - low) + low

        def pick(k, *shape):
            return torch.randint(k, (n, *shape), device=d, generator=g)

        ground, time = pick(len(GROUNDS)), pick(len(TIMES))
        beach = ground == BEACH
        horizon = torch.where(beach, uniform(0.38, 0.52), uniform(0.46, 0.68))
        shore = torch.where(beach, uniform(0.66, 0.80), torch.full((n,), 2.0, device=d))
        if objects:
            count = torch.full((n,), objects, device=d)
        else:  # 1-3, most often 1 or 2
            count = 1 + (rand() > 0.38).long() + (rand() > 0.72).long()
        present = torch.arange(SLOTS, device=d)[None] < count[:, None]

        def from_pool(home):
            return self.homes[home][pick(len(self.homes[home]), SLOTS)]

        in_sky = rand(SLOTS) < 0.38
        wet = (ground == SEA)[:, None] | (beach[:, None] & (rand(SLOTS) < 0.4))
        sky, below = from_pool("sky"), torch.where(wet, from_pool("sea"), from_pool("land"))
        cast = torch.where(in_sky, sky, below)
        aurora = (cast == self.aurora) & (time != NIGHT)[:, None]
        cast = torch.where(aurora, torch.zeros_like(cast), cast)  # no polar lights by day: the sun
        for k in range(1, SLOTS):  # no two of a kind, but for two colours of one thing (below)
            same = (cast[:, k : k + 1] == cast[:, :k]).any(1)
            present[:, k] &= ~same
        alike = ~in_sky[:, 0] & ~in_sky[:, 1] & (wet[:, 0] == wet[:, 1])
        twin = present[:, 1] & alike & (rand() < 0.12)
        cast[:, 1] = torch.where(twin, cast[:, 0], cast[:, 1])
        plain = rand(SLOTS) < 0.3
        variant = torch.where(plain, torch.zeros_like(cast), pick(self.tints.shape[1], SLOTS))
        sprite = self.tints[cast, variant]
        same = twin & (sprite[:, 0] == sprite[:, 1])
        present[:, 1] &= ~same
        present[:, 2] &= ~(present[:, 1] & (cast[:, 2] == cast[:, 1]))

        many = count[:, None] == SLOTS
        size = torch.where(many, uniform(0.22, 0.34, SLOTS), uniform(0.26, 0.44, SLOTS))
        size = torch.where(cast == self.aurora, size * 1.5, size)
        two = torch.stack([uniform(0.16, 0.38), uniform(0.62, 0.84), uniform(0.16, 0.84)], 1)
        three = torch.stack([uniform(0.13, 0.24), uniform(0.43, 0.57), uniform(0.76, 0.87)], 1)
        order = rand(SLOTS).argsort(1)
        two = torch.where((rand() < 0.5)[:, None], two, two[:, [1, 0, 2]])
        x = torch.where(many, three.gather(1, order), two)
        x = torch.where((count == 1)[:, None], uniform(0.2, 0.8, SLOTS), x)
        low = torch.where(beach[:, None] & ~wet, shore[:, None], horizon[:, None])
        high = torch.where(beach[:, None] & wet, shore[:, None] - 0.04, torch.full_like(low, 0.88))
        above = 0.14 + rand(SLOTS) * (horizon[:, None] - 0.28).clamp(min=0.02)
        y = torch.where(in_sky, above, low + rand(SLOTS) * (high - low).clamp(min=0.01))

        odds = torch.tensor(MOVE_ODDS, device=d)
        move = torch.multinomial(odds, n * SLOTS, replacement=True, generator=g).view(n, SLOTS)
        speed = uniform(0.35, 1.0)
        move = self.inward(move, x, y, speed)
        event = torch.where(rand() < 0.58, 0, 1 + pick(len(EVENTS) - 1))
        event = torch.where((rand() < 0.5) & (event > 6), 0, event)  # cameras less
        sea, snow, night = ground == SEA, ground == SNOW, time == NIGHT
        for name, fits in {1: ~night, 2: night, 4: snow, 5: beach, 6: sea | beach}.items():
            event = torch.where((event == name) & ~fits, 0, event)
        rare = rand() < 0.25  # melting and tides need their own ground: ask for them there
        event = torch.where(rare & snow, 4, event)
        event = torch.where(rare & beach, 5, event)
        hills = torch.stack([uniform(0, 6.28), uniform(0, 0.05), uniform(4, 12)], 1)
        who = sprite, present, size, x, y, move
        return Scenes(ground, time, horizon, shore, *who, event, speed, hills, rand(2))

    def inward(self, move: torch.Tensor, x, y, speed: torch.Tensor) -> torch.Tensor:
        """Moves (B, 3) from places x and y at speeds (B,), mirrored where they would leave the
        picture."""
        for delta, start, flip in ((self.dx, x, _FLIP_X), (self.dy, y, _FLIP_Y)):
            end = start + speed[:, None] * delta[move]
            mirrored = torch.tensor(flip, device=move.device)[move]
            move = torch.where((end < 0.1) | (end > 0.9), mirrored, move)
        return move

    # ---- where things are -----------------------------------------------------------------
    @checked
    def place(self, s: Batch, t: Times) -> dict[str, torch.Tensor]:
        """True centre, side and tilt of every object at times t (B, T), camera apart: (B, T, 3)."""
        move, at = s.move[:, None], (s.speed[:, None] * t)[..., None]

        def inside(start, delta):
            return (start + delta).clamp(min=start.clamp(max=0.1), max=start.clamp(min=0.9))

        return dict(
            x=inside(s.x[:, None], at * self.dx[move]),
            y=inside(s.y[:, None], at * self.dy[move]),
            size=s.size[:, None] * (1 + at * self.grow[move]),
            tilt=at * self.tilt[move],
        )

    @checked
    def camera(self, s: Batch, t: Times) -> tuple[torch.Tensor, torch.Tensor]:
        """Zoom and horizontal pan of the camera at times t (B, T): two tensors (B, T)."""

        def is_(k):
            return (s.event == k).float()[:, None] * s.speed[:, None] * t

        return 1 + 0.5 * is_(7) - 0.35 * is_(8), 0.3 * (is_(10) - is_(9))

    @checked
    def progress(self, s: Batch, t: Times) -> torch.Tensor:
        """How far each of EVENTS is at times t (B, T): (B, T, 11), 1 where it is over."""
        pace = torch.ones(len(s), len(EVENTS), device=self.device)
        pace[:, EVENTS.index("the waves roll")] = s.speed  # the others' last state is always there
        return (F.one_hot(s.event, len(EVENTS)) * pace)[:, None] * t[..., None]

    @checked
    def state(self, s: Batch, t: Times) -> tuple[torch.Tensor, ...]:
        """What `draw` needs to know of times t (B, T): x, y, size, tilt, progress, zoom, pan."""
        return *self.place(s, t).values(), self.progress(s, t), *self.camera(s, t)

    @checked
    def positions(self, s: Batch, t: Times) -> torch.Tensor:
        """True centres on the picture, camera included: (B, T, 3, 2) in shares of the width."""
        where = self.place(s, t)
        return on_picture(where["x"], where["y"], *self.camera(s, t))

    # ---- drawing --------------------------------------------------------------------------
    @checked
    def render(
        self,
        s: Batch,
        t: Times,
        size: Annotated[int, Integer(1, SIZE)] = SIZE,
        corner: Corner | None = None,
        objects: bool = True,
    ) -> torch.Tensor:
        """Draws frames: (B, T, 3, size, size) in [-1, 1] at times t (B, T).

        A `size` below 256 draws that crop of the 256-pixel picture, with its upper left at `corner`
        (B, 2), shares of the width. `objects=False` leaves the background alone.
        """
        if not objects:
            s = replace(s, present=torch.zeros_like(s.present))
        return self.draw(s, *self.state(s, t), corner, size)[0]

    @checked
    def stills(self, s: Batch, t: Time) -> torch.Tensor:
        """A frame of each scene, (B, 3, 256, 256), at times t (B, 1) or a time for all."""
        t = torch.as_tensor(t, device=self.device, dtype=torch.float32).expand(len(s), 1)
        rows = torch.arange(len(s), device=self.device).split(64)
        return torch.cat([self.render(s[i], t[i])[:, 0] for i in rows])

    @checked
    def masks(self, s: Batch, t: Times) -> torch.Tensor:
        """What is seen of each object: alpha (B, T, 3, 256, 256) in [0, 1], later ones in front."""
        alphas = self._draw(s, *self.state(s, t))[1]
        seen, cover = [], torch.zeros_like(alphas[0])
        for a in reversed(alphas):
            seen.append(a * (1 - cover))
            cover = cover + a * (1 - cover)
        return torch.stack(seen[::-1], 2)[:, :, :, 0]

    def _draw(
        self, s, ox, oy, oside, otilt, progress, zoom, pan, corner=None, size: int = SIZE
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Frames (B, T, 3, size, size) in [-1, 1], and each thing's alpha (B, T, 1, size, size)."""
        corner = zoom.new_zeros(len(zoom), 2) if corner is None else corner

        def wide(v):
            return v[:, :, None, None]  # (B, T) -> (B, T, 1, 1)

        def flat(v):
            return v[:, None, None, None]  # (B,)   -> (B, 1, 1, 1)

        line = (torch.arange(size, device=zoom.device) + 0.5) / SIZE
        sx = line[None, None, None, :] + flat(corner[:, 0])
        sy = line[None, None, :, None] + flat(corner[:, 1])
        x = (sx - 0.5) / wide(zoom) + 0.5 + wide(pan)  # (B, T, 1, R)
        y = (sy - 0.5) / wide(zoom) + 0.5  # (B, T, R, 1)

        dark, light, fall, melt, tide, rolled = progress[..., 1:7].unbind(-1)
        late = (s.time == NIGHT)[:, None]
        night = late.float() * (1 - light) + dark * (~late).float()
        day = torch.where(s.time == NIGHT, 0, s.time)

        def tone(table):  # (B, T, 3, 1, 1): by day or sunset, towards night
            share = night[..., None]
            return (table[day][:, None] * (1 - share) + table[NIGHT] * share)[..., None, None]

        lamp = tone(self.light)
        water = ((s.ground == SEA) | (s.ground == BEACH)).float()
        phase = flat(s.hills[:, 0])
        waves = torch.sin(x * flat(s.hills[:, 2]) + phase)
        hill = flat(s.horizon) + flat(s.hills[:, 1] * (1 - water)) * waves
        up = (y / hill).clamp(0, 1)[:, :, None]
        sky = tone(self.sky_top) * (1 - up) + tone(self.sky_low) * up
        across, along = flat(s.specks[:, 0]), flat(s.specks[:, 1])
        stars = self._specks(x * 7 + across * 9, y * 7 + along * 9, 0.055, 0.30)
        sky = sky + 0.75 * (stars * wide(night) * (1 - up[:, :, 0]))[:, :, None]

        soil, bare = self.ground[s.ground][:, None], melt[..., None]
        soil = soil * (1 - bare) + self.ground[MELTED] * bare
        depth = ((y - hill) / (1 - hill)).clamp(0, 1)
        roll = 6.28 * wide(rolled)
        swell = torch.sin(34 * y * y + x * 16 + phase + 2 * roll)
        shade = 1 - 0.22 * depth + 0.08 * swell * flat(water)
        road = (s.ground == 4).float()
        lane = ((y - flat(s.horizon) - 0.24).abs() < 0.012) & (torch.sin(x * 28 + phase) > 0)
        shade = shade + 0.45 * lane * flat(road)
        land = soil[..., None, None] * shade[:, :, None]
        edge = flat(s.shore) + wide(tide * 0.34) + 0.015 * torch.sin(x * 11 + phase)
        sand = ((y - edge) * SIZE / 3).clamp(0, 1)[:, :, None]
        foam = (1 - (y - edge + 0.008).abs() / 0.012).clamp(0, 1)[:, :, None]
        land = land * (1 - sand) + self.sand[:, None, None] * sand
        land = (land * (1 - 0.7 * foam) + 0.7 * foam).clamp(0, 1) * lamp
        ground = ((y - hill) * SIZE).clamp(0, 1)[:, :, None]
        picture = sky.clamp(0, 1) * (1 - ground) + land * ground

        alphas = []
        for k in range(SLOTS):
            side, c, n = oside[..., k], torch.cos(otilt[..., k]), torch.sin(otilt[..., k])
            u, v = (x - wide(ox[..., k])) * 2 / wide(side), (y - wide(oy[..., k])) * 2 / wide(side)
            turned = u * wide(c) + v * wide(n), v * wide(c) - u * wide(n)
            grid = torch.stack(torch.broadcast_tensors(*turned), -1)
            tile = self.sheet[(s.size[:, k] < 0.30).long(), s.sprite[:, k]]
            B, T = zoom.shape
            drawn = F.grid_sample(tile, grid.reshape(B, T * size, size, 2), align_corners=False)
            drawn = drawn.view(B, 4, T, size, size).transpose(1, 2)
            drawn = drawn * flat(s.present[:, k].float())[:, None]
            glow = flat(self.glows[s.sprite[:, k]].float())[:, None]
            lit = drawn[:, :, :3] * (lamp.sqrt() * (1 - glow) + glow)
            picture = lit + picture * (1 - drawn[:, :, 3:])
            alphas.append(drawn[:, :, 3:])

        flakes = 0
        for n, radius in ((9.0, 0.13), (6.0, 0.16)):
            u = sx * n + across * n + 0.3 * torch.sin(sy * 9 + n)
            v = sy * n - wide(fall) * n * 0.9 + along * n
            flakes = flakes + self._specks(u, v, radius, 0.32)
        strength = wide((fall * 6).clamp(0, 1))[:, :, None]
        picture = picture + (1 - picture) * (0.9 * strength * flakes.clamp(0, 1)[:, :, None])
        return picture.clamp(0, 1) * 2 - 1, alphas

    @staticmethod
    def _specks(x, y, radius: float, share: float):
        """Round specks, one for each unit cell of the plane with probability `share`: in [0, 1]."""
        x, y = torch.broadcast_tensors(x, y)
        cx, cy = x.floor(), y.floor()

        def noise(a, b):
            return (torch.sin(cx * a + cy * b) * 437.585).frac().abs()

        u = x - cx - 0.2 - 0.6 * noise(12.99, 78.23)
        v = y - cy - 0.2 - 0.6 * noise(39.35, 11.14)
        far = (u**2 + v**2).sqrt()
        return ((radius - far) / radius * 3).clamp(0, 1) * (noise(73.16, 52.24) < share)


def on_picture(x, y, zoom, pan) -> torch.Tensor:
    """Where the camera shows what is at x, y (B, T, 3): (B, T, 3, 2) in shares of the width."""
    zoom, pan = zoom[..., None], pan[..., None]
    return torch.stack([(x - pan - 0.5) * zoom + 0.5, (y - 0.5) * zoom + 0.5], -1)


@checked
def frame_times(n: Count, frames: Frames = NUM_FRAMES, device: Device = "cpu") -> torch.Tensor:
    """Times of a clip's frames, (n, frames) from 0 to 1."""
    return torch.linspace(0, 1, frames, device=device).expand(n, -1)
