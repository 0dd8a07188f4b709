"""Draw StoryBench's cases by lot, into ivkit/bench/: nothing overlaps or leaves the picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ivkit.bench.cases import FILE, SECOND, SPEED, Case, Thing
from ivkit.storybook.sprites import COLOURS, TINTED
from ivkit.storybook.world import _DX, _DY, MOVES
from ivkit.support import commands
from ivkit.support.disk import write_text

SEEDS = {FILE.name: 20, SECOND.name: 21}

SCENERIES = {
    "meadow-day": ("green meadow", "day"),
    "sea-sunset": ("blue sea", "sunset"),
    "desert-day": ("yellow desert", "day"),
    "snow-day": ("white snow", "day"),
    "street-night": ("grey street", "night"),
    "beach-day": ("sandy beach", "day"),
    "snow-night": ("white snow", "night"),
}
SCENE_TEXTS = {  # what each scenery can do, by its own event of storybook.world.EVENTS
    "meadow-day": "it gets dark",
    "sea-sunset": "it gets dark",
    "desert-day": "it gets dark",
    "snow-day": "the snow melts",
    "street-night": "it gets light",
    "beach-day": "the tide rises",
    "snow-night": "the snow falls",
}
LAND = "dog cat horse rabbit car tractor bus elephant penguin cow pig fox robot ball house".split()
SEA = "boat duck whale fish dolphin crab octopus turtle".split()
SKY = "balloon airplane rocket butterfly owl kite".split()
PAINTED = {  # what is painted: where it goes, and when
    "sun": ("sky", ("day", "sunset")),
    "moon": ("sky", ("night",)),
    "star": ("sky", ("night", "sunset")),
    "polar lights": ("sky", ("night",)),
    "cloud": ("sky", ("day", "sunset")),
    "bird": ("sky", ("day", "sunset")),
    "rainbow": ("sky", ("day",)),
    "wave": ("sea", ("day", "sunset")),
    "tree": ("land", ("day", "night")),
    "flower": ("land", ("day",)),
    "mushroom": ("land", ("day", "night")),
}
#: sketches of a few strokes, (colour, width, points), in shares of the thing's own side
SKETCHES = {
    "sun": [("#ffc81e", 0.55, [(0, 0)])],
    "moon": [("#ffcf40", 0.2, [(0.1, -0.38), (0.26, -0.1), (0.16, 0.2), (-0.1, 0.36),
                               (-0.36, 0.28)])],
    "star": [("#ffd735", 0.3, [(0, 0)]),
             ("#ffd735", 0.16, [(-0.38, -0.08), (0.38, -0.08)]),
             ("#ffd735", 0.16, [(0, -0.38), (-0.24, 0.36)]),
             ("#ffd735", 0.16, [(0, -0.38), (0.24, 0.36)])],
    "polar lights": [("#37e08c", 0.3, [(-0.34, 0.16), (0, 0.08), (0.34, 0.2)]),
                     ("#9a62d8", 0.24, [(-0.34, -0.18), (0, -0.24), (0.34, -0.14)])],
    "cloud": [("#e6ebf0", 0.34, [(-0.24, 0.12), (0.26, 0.12)]),
              ("#f2f5f8", 0.4, [(0.02, -0.06)])],
    "bird": [("#4aa3e0", 0.4, [(-0.05, 0.05), (0.12, 0.1)]),
             ("#4aa3e0", 0.3, [(-0.2, -0.18)]),
             ("#3b86c8", 0.14, [(0.12, 0), (0.4, -0.22)])],
    "rainbow": [("#e8453c", 0.13, [(-0.42, 0.42), (-0.3, 0), (0, -0.3), (0.42, -0.42)]),
                ("#ffc81e", 0.13, [(-0.28, 0.42), (-0.18, 0.1), (0.08, -0.18), (0.42, -0.28)]),
                ("#4cb04f", 0.13, [(-0.14, 0.42), (-0.06, 0.18), (0.16, -0.04), (0.42, -0.14)]),
                ("#3f7fd0", 0.13, [(0, 0.42), (0.06, 0.24), (0.24, 0.08), (0.42, 0)])],
    "wave": [("#1f74c4", 0.36, [(-0.2, 0.24), (0.26, 0.28)]),
             ("#3f97de", 0.3, [(-0.26, 0.1), (-0.18, -0.18), (0.06, -0.26)])],
    "tree": [("#7a5230", 0.16, [(0, 0.1), (0, 0.44)]),
             ("#5fa82c", 0.42, [(-0.16, -0.1), (0.16, -0.1)]),
             ("#6fbf34", 0.38, [(0, -0.24)])],
    "flower": [("#4c9a34", 0.08, [(0, 0), (0, 0.44)]),
               ("#ffc027", 0.56, [(0, -0.14)]),
               ("#7a4a20", 0.24, [(0, -0.14)])],
    "mushroom": [("#f0dfc0", 0.26, [(0, 0.12), (0, 0.34)]),
                 ("#e8442c", 0.44, [(-0.2, -0.12), (0.2, -0.12)])],
}  # fmt: skip


def add_arguments(parser) -> None:
    parser.add_argument(
        "--out", type=commands.folder, default=FILE.parent, help="default: ivkit/bench"
    )


def main(args) -> None:
    for name, seed in SEEDS.items():
        cases = make(seed)
        save(cases, args.out / name)
        print(f"{args.out / name}: {len(cases)} cases")


def save(cases: list[Case], file: Path) -> None:
    """One case a line, so that a change is seen as one."""
    lines = ",\n".join(json.dumps(asdict(case)) for case in cases)
    write_text(file, f"[\n{lines}\n]\n")


def make(seed: int = 20) -> list[Case]:
    """The 105 cases, drawn by lot so that nothing overlaps and nothing leaves the picture."""
    rng = np.random.default_rng(seed)
    cases, number = [], 0
    for scenery in SCENERIES:
        for i in range(5):
            trio = None
            while trio is None:
                trio = _picture(rng, scenery, i, number)
            cases += trio
            number += 1
    return cases


def _picture(rng, scenery: str, index: int, number: int) -> list[Case] | None:
    ground, time = SCENERIES[scenery]
    beach, wet = ground == "sandy beach", _wet(scenery)
    horizon = rng.uniform(0.38, 0.44) if beach else rng.uniform(0.46, 0.54)
    shore = rng.uniform(0.7, 0.76) if beach else 2.0
    first = _thing(rng, SEA if wet else LAND, horizon, beach, shore)
    above = rng.random() < 0.4
    pool = SKY if above else LAND if beach else SEA if wet else LAND
    second = _thing(rng, pool, horizon, beach, shore)
    things = (first, second)
    if first.name == second.name or not _apart([[first], [second]]):
        return None
    common = {
        "picture": f"{scenery}-{index + 1}",
        "half": "reporting" if (number + number // 8) % 2 else "tuning",
        "ground": ground,
        "time": time,
        "horizon": _short(horizon),
        "shore": _short(shore),
        "hills": (_short(rng.uniform(0, 6.28)), _short(rng.uniform(0, 0.05)), 8.0),
        "specks": (_short(rng.random()), _short(rng.random())),
        "things": things,
    }
    trio = []
    for kind in range(3):  # every move of world.MOVES as often as every other
        move = (1 + number % 8, 1 + number * 5 % 12, 0)[kind]
        name = _painted(rng, scenery, things)
        plans = (_plan(rng, kind, move, name, scenery, things, horizon) for _ in range(300))
        plan = next((plan for plan in plans if plan is not None), None)
        if plan is None:
            return None
        case = Case(id=f"{common['picture']}-{kind}", **common, **plan, seed=3 * number + kind)
        trio.append(case)
    return trio


def _painted(rng, scenery: str, things) -> str:
    wet, time = _wet(scenery), SCENERIES[scenery][1]
    fits = [
        name
        for name, (home, times) in PAINTED.items()
        if time in times
        and home in ("sky", "sea" if wet else "land")
        and name not in [thing.name for thing in things]
    ]
    return str(rng.choice(fits))


def _wet(scenery: str) -> bool:
    return SCENERIES[scenery][0] in ("blue sea", "sandy beach")


def _thing(rng, pool, horizon, beach, shore) -> Thing:
    name, size = str(rng.choice(pool)), rng.uniform(0.24, 0.31)
    if name in SKY:
        low, high = 0.16, max(0.17, horizon - 0.1)
    elif beach:  # in the water, or on the sand
        low, high = (horizon + 0.04, shore - 0.06) if name in SEA else (shore, 0.84)
    else:
        low, high = horizon + 0.06, 0.82
    tints = [c for c in COLOURS if name in TINTED and c != TINTED[name][0]]
    colour = str(rng.choice(tints)) if tints and rng.random() < 0.5 else None
    where = rng.uniform(size / 2, 1 - size / 2), rng.uniform(low, high)
    return Thing(name, _short(where[0]), _short(where[1]), _short(size), colour)


def _plan(rng, kind: int, move: int, name: str, scenery: str, things, horizon) -> dict | None:
    first = things[0]
    size = rng.uniform(0.24, 0.3) * (1.3 if name == "polar lights" else 1)
    low, high = (0.15, max(0.16, horizon - 0.12))
    if PAINTED[name][0] != "sky":
        low, high = horizon + 0.05, 0.66 if "beach" in scenery else 0.8
    x = _short(rng.uniform(size / 2, 1 - size / 2))
    painted = Thing(name, x, _short(rng.uniform(low, high)), _short(size))

    told = SPEED * np.array([_DX[move], _DY[move]])
    drags, ends = {}, [told, np.zeros(2)]
    if kind == 0:
        aside = np.array([-told[1], told[0]]) / np.linalg.norm(told)
        by = told * rng.uniform(0.6, 1.1) + aside * rng.uniform(-0.07, 0.07)
        drags[0] = _path(rng, first, by)
    for k in {0: (), 1: (1,), 2: (0, 1)}[kind]:
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.18, 0.32)
        drags[k] = _path(rng, things[k], length * np.array([np.cos(angle), np.sin(angle)]))
    tracks = []
    for k, thing in enumerate(things):
        ways = [_along(np.linspace((thing.x, thing.y), np.array((thing.x, thing.y)) + ends[k], 2))]
        if k in drags:
            ways.append(_along(np.array(drags[k])))
        side = thing.size * (1.5 if move == 9 and k == 0 else 1)
        tracks.append([Thing(thing.name, x, y, side) for way in ways for x, y in way])
    if not all(_inside(thing) for track in tracks for thing in track):
        return None
    # The edit mask grows by 1.5 latent cells, and must not reach what is beside the paint.
    beside = all(_apart([[painted], track], 0.05) for track in tracks)
    if not beside or not _apart(tracks) or not _inside(painted):
        return None
    event = SCENE_TEXTS[scenery] if kind == 2 else ""
    strokes = tuple(
        (
            colour,
            _short(width * size),
            [[_short(painted.x + u * size), _short(painted.y + v * size)] for u, v in points],
        )
        for colour, width, points in SKETCHES[name]
    )
    return {
        "painted": painted,
        "strokes": strokes,
        "move": "" if event else MOVES[move],
        "event": event,
        "motion": event or f"the {first.noun} {MOVES[move]}",
        "drags": drags,
    }


def _path(rng, thing: Thing, by) -> list:
    """From the thing to where it ends, half of the time by a bend."""
    start = np.array([thing.x, thing.y])
    points = [start, start + by]
    if rng.random() < 0.5:
        points.insert(1, start + by / 2 + 0.25 * np.array([-by[1], by[0]]) * rng.choice([-1, 1]))
    return [[_short(x), _short(y)] for x, y in points]


def _along(path, n: int = 5) -> np.ndarray:
    """n points of a polyline at constant speed, (n, 2)."""
    path = np.asarray(path, float)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    reached = np.concatenate([[0], np.cumsum(steps)]) / max(steps.sum(), 1e-9)
    t = np.linspace(0, 1, n)
    return np.stack([np.interp(t, reached, path[:, k]) for k in range(2)], 1)


def _inside(thing: Thing) -> bool:
    half = 0.5 * thing.size
    return all(half - 0.02 <= v <= 1 - half + 0.02 for v in (thing.x, thing.y))


def _apart(tracks: list[list[Thing]], gap: float = 0.0) -> bool:
    """No two of them ever come nearer than `gap`, wherever each is on its way."""
    for i, track in enumerate(tracks):
        for other in tracks[:i]:
            for a in track:
                for b in other:
                    reach = 0.45 * (a.size + b.size) + gap
                    if abs(a.x - b.x) < reach and abs(a.y - b.y) < reach:
                        return False
    return True


def _short(value) -> float:
    return round(float(value), 4)
