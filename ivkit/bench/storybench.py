"""StoryBench: 105 cases of the storybook world, every method, measured by what is known to be true.

The renderer knows the true frames, positions and masks. Finished cases are kept in --out at once:
stop with Ctrl-C, start the same command again, and it goes on. On several GPUs, or by several
processes that share the GPUs there are (they take turns, a small model leaves a GPU idle):

    accelerate launch --multi_gpu --num_processes 2 -m ivkit.bench storybench
"""

from __future__ import annotations

import random
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ..instructions import Drag, Stroke
from ..pictures import to_frames, to_pixels
from ..support.cutout import specks
from . import cases as stories
from . import metrics, runner
from .cases import Case
from .methods import METHODS, SWEEP, UNITS, Job

SIDE = 256  # pixels of a rendered picture
SNOW = "the snow falls"  # the one event of which chance decides what is where
IDENTICAL = 60.0  # dB; above it nobody sees a difference, and a mean would say nothing else


def add_arguments(parser) -> None:
    runner.add_arguments(parser)
    flags = {
        "--subset": "ten cases, with the few-step variant unless --model says otherwise",
        "--sweep": "lam x reading x mechanism on the tuning half, in the place of methods",
        "--units": "the units in which Eq. 4 can blend, in the place of methods",
        "--second": "105 other cases, which no default was tuned on: for reporting alone",
    }
    for flag, said in flags.items():
        parser.add_argument(flag, action="store_true", help=said)
    halves, said = ("all", "tuning", "reporting"), "which cases (default: all; of a sweep, tuning)"
    parser.add_argument("--half", choices=halves, help=said)
    parser.add_argument("--cases", nargs="+", metavar="ID", help="these cases alone")
    parser.add_argument("--case-file", type=Path, default=stories.FILE, help="another set of cases")


def main(args) -> None:
    cases = choose(args)
    args.model = args.model or ("storybook-fast" if args.subset else "storybook")
    args.clip = args.clip or "storybook"
    # Drawn by lot, so that a run whose time is up has seen every scenery and kind of motion.
    cases = random.Random(0).sample(cases, len(cases))
    kind = "sweep" if args.sweep else "units" if args.units else "storybench"
    kind += "-second" if args.second else ""
    args.out = args.out or Path("outputs") / kind / Path(args.model).name
    world = cache(World)  # made once there is a case to do
    given = SWEEP if args.sweep else UNITS if args.units else METHODS.values()
    methods = {m.name: m for m in given}
    build = lambda case, size: world().job(case, size)  # noqa: E731
    runner.main(args, cases, build, methods, "StoryBench", sweep=args.sweep)


def choose(args) -> list[Case]:
    """The cases that the arguments ask for; ValueError where there is none."""
    cases = stories.load(stories.SECOND if args.second else args.case_file)
    if args.cases:
        known = {case.id: case for case in cases}
        missing = [name for name in args.cases if name not in known]
        if missing:
            raise ValueError(f"--cases: there is no case {missing[0]!r}; one is {cases[0].id!r}")
        return [known[name] for name in args.cases]
    half = args.half or ("tuning" if args.sweep else "all")
    if half != "all":
        cases = [case for case in cases if case.half == half]
    if not cases:
        raise ValueError(f"--half {half}: {args.case_file} has no such case")
    return stories.subset(cases) if args.subset else cases


class World:
    """Renders cases and judges clips by them; the classifier names what is seen."""

    def __init__(self):
        from ..models import storybook_folder
        from ..storybook.training.classifier import load
        from ..storybook.world import World as Renderer

        self.world = Renderer()
        self.classify = load(storybook_folder())

    def scene(self, case: Case, **changes):
        """The case as the renderer takes it: its two things, nothing painted, before any drag."""
        import torch

        from ..storybook import sprites
        from ..storybook.world import EVENTS, GROUNDS, MOVES, TIMES, Scenes

        def own(thing):
            plain = sprites.TINTED[thing.name][0] if thing.name in sprites.TINTED else None
            return self.world.labels.index((thing.name, thing.colour or plain))

        def slots(of):
            values = [of(thing) for thing in case.things]
            return values + values[:1] * (3 - len(values))

        fields = dict(
            ground=GROUNDS.index(case.ground),
            time=TIMES.index(case.time),
            horizon=case.horizon,
            shore=case.shore,
            sprite=slots(own),
            present=[k < len(case.things) for k in range(3)],
            size=slots(lambda thing: thing.size),
            x=slots(lambda thing: thing.x),
            y=slots(lambda thing: thing.y),
            move=[MOVES.index(case.move) if case.move else 0, 0, 0],
            event=EVENTS.index(case.event),
            speed=stories.SPEED if case.move else 1.0,
            hills=case.hills,
            specks=case.specks,
        )
        return Scenes(**{k: torch.tensor([v]) for k, v in fields.items()}).with_(**changes)

    def frames(self, scene, times) -> np.ndarray:
        """uint8 (T, 256, 256, 3)."""
        import torch

        drawn = self.world.render(scene, torch.tensor([list(times)], dtype=torch.float32))[0]
        return to_frames(drawn)

    def job(self, case: Case, size: int = SIDE) -> Job:
        """The case at `size` pixels a side."""
        import torch

        scene = self.scene(case)
        picture = Image.fromarray(self.frames(scene, [0])[0])
        alpha = self.world.masks(scene, torch.zeros(1, 1))[0, 0].numpy()
        masks = [fit(255 * (a > 0.15).astype(np.uint8), size) > 127 for a in alpha]
        strokes = tuple(
            Stroke([(x * size, y * size) for x, y in points], colour, width * size)
            for colour, width, points in case.strokes
        )
        drags = tuple(
            Drag([(x * size, y * size) for x, y in path], masks[k])
            for k, path in case.drags.items()
        )
        return Job(
            case.id,
            case.picture,
            Image.fromarray(fit(np.asarray(picture), size)),
            case.text,
            case.motion,
            strokes,
            drags,
            seed=case.seed,
            half=case.half,
            judge=Judge(self, case, strokes, drags, size),
        )


class Judge:
    """What the renderer knows of one case, put to a clip."""

    def __init__(self, world: World, case: Case, strokes, drags, size: int):
        self.world, self.case, self.strokes, self.drags = world, case, strokes, drags
        self.size = size

    def __call__(self, frames: np.ndarray, found) -> dict:
        """motion_obeyed, 0 or 1; edit_named, share of the frames; background, dB where it rests,
        up to IDENTICAL."""
        frames = np.stack([fit(frame, SIDE) for frame in frames])
        row = {"motion_obeyed": self.obeyed(frames[-1]), "edit_named": self.named(frames)}
        if not self.case.event:  # which changes all of the scene
            picture = self.world.frames(self.world.scene(self.case), [0])[0]
            row["background"] = min(IDENTICAL, metrics.psnr(frames, picture, self.untouched))
        return row

    def obeyed(self, last: np.ndarray) -> float:
        """1 where, of all true last frames that there could be, the nearest obeys the text.

        Nearest by the mean absolute difference; see `endings`. Snow counts wherever the flakes
        are, so there the share of the picture that they cover is compared.
        """
        ends, obeys = self.endings
        if self.case.event == SNOW:
            covered = np.array([specks(end).mean() for end in ends])
            return float(obeys[np.abs(covered - specks(last).mean()).argmin()])
        return float(obeys[np.abs(ends.astype(np.int16) - last).mean((1, 2, 3)).argmin()])

    @cached_property
    def endings(self) -> tuple[np.ndarray, np.ndarray]:
        """All true last frames that there could be, uint8 (N, 256, 256, 3), and which obey (N,).

        Could be: the thing that the text names in each of MOVES (or the scene's event or not), and
        each dragged thing where it was or at its target. A drag that takes the named thing the way
        that the text says obeys it too.
        """
        from ..storybook.world import MOVES, Scenes

        case, base = self.case, self.world.scene(self.case)
        told, variants, obeys = int(base.move[0, 0]), [], []
        others = [k for k in case.drags if not (case.move and k == 0)]
        for moved in np.ndindex(*(2,) * len(others)):
            x, y = base.x.clone(), base.y.clone()
            for k, at_target in zip(others, moved, strict=True):
                if at_target:
                    x[0, k], y[0, k] = case.drags[k][-1]
            there = base.with_(x=x, y=y)
            if not case.move:
                variants += [there, there.with_(event=0)]
                obeys += [True, False]
                continue
            variants += [there.with_(move=[[m, 0, 0]]) for m in range(len(MOVES))]
            obeys += [m == told for m in range(len(MOVES))]
        if case.move and 0 in case.drags:
            x, y = base.x.clone(), base.y.clone()
            x[0, 0], y[0, 0] = case.drags[0][-1]
            variants.append(base.with_(x=x, y=y, move=0))
            obeys.append(True)
        scenes = Scenes.join(variants)
        ends = [self.world.frames(scenes[[i]], [1.0])[0] for i in range(len(variants))]
        return np.stack(ends), np.array(obeys)

    def named(self, frames: np.ndarray) -> float:
        """Share of the frames in which the classifier, taught on true renders, names the painted
        thing, in whatever colour."""
        import torch

        with torch.no_grad():
            seen = self.world.classify(to_pixels(frames))[0] > 0
        labels = self.world.world.labels
        kinds = [i for i, (name, _) in enumerate(labels) if name == self.case.painted.name]
        return float(seen[:, kinds].any(1).float().mean())

    @cached_property
    def untouched(self) -> np.ndarray:
        """Where nothing was painted and nothing moves, by text or drag: bool (256, 256)."""
        import cv2
        import torch

        from ..paint import edit_mask, rasterise
        from ..trajectory import moving_region, warp

        blank = Image.new("RGB", (self.size, self.size))
        touched = edit_mask(rasterise(blank, self.strokes)[1], cell=max(1, self.size // 16)) > 0
        for drag in self.drags:
            touched |= moving_region(warp(blank, drag, 8)).max(0) > 0
        touched = fit(255 * touched.astype(np.uint8), SIDE) > 0
        scene = self.world.scene(self.case)
        true = self.world.world.masks(scene, torch.linspace(0, 1, 8)[None])[0]
        touched |= (true[:, : len(self.case.things)].amax((0, 1)) > 0).numpy()
        return cv2.dilate(touched.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0


def fit(pixels: np.ndarray, side: int) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3) at side x side."""
    if pixels.shape[:2] == (side, side):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS))
