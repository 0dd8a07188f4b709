"""An interrupt, wherever it falls, loses no step, does none twice, and harms no later run.

The lines are those of the package and of the diffusers scheduler while a clip or a picture is made:
a seeded sample of them here; every line of a clip's loop and scheduler in `make test-slow`.
"""

import copy
import functools
import inspect
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from diffusers import LCMScheduler
from families import FAMILIES

import ivkit as iv
from ivkit.instructions import READINGS
from ivkit.models.speed import speed_up
from ivkit.pipeline import Pipeline
from ivkit.video import denoise

PACKAGE = str(Path(iv.__file__).parent)
LOOP = tuple(f"{PACKAGE}/{part}.py" for part in ("video", "models/sampling", "image"))
MOTION = "the boat moves right"
STEPS = 3  # a second-order multistep scheduler has begun to look back by then
CASES = ["pia", "pia-lcm", "pia-reuse", "storybook", *FAMILIES]


@functools.cache
def model(name):
    if name in FAMILIES:
        return FAMILIES[name].model()
    kind, _, how = name.partition("-")
    made = tiny.pia.build(
        "tiny", tiny.parts(kind), tiny.FACTS, device=torch.device("cpu"), dtype=torch.float32
    )
    if how == "reuse":
        speed_up(made, reuse=2)
    if how == "lcm":
        made.schedulers["video"] = LCMScheduler(beta_schedule="linear", clip_sample=False)
    return made


def asked(name, reading):
    family = FAMILIES.get(name, tiny)
    return {
        "picture": family.picture(0),
        "motion": MOTION,
        "edited": family.picture(1),
        "lam": 0.4,
        "reading": reading,
        "eta": 0.5,
        "num_inference_steps": STEPS,
        "guidance_scale": 1.0,
        "progress": False,
    }


class Lines:
    """Counts the lines that run in `files`, and interrupts at the n-th."""

    def __init__(self, files, at=0):
        self.files, self.at, self.count, self.places = tuple(files), at, 0, []

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, kind, error, trace):
        sys.settrace(self.before)
        return kind is KeyboardInterrupt

    def _call(self, frame, event, _):
        return self._line if frame.f_code.co_filename.startswith(self.files) else None

    def _line(self, frame, event, _):
        if event == "line":
            self.count += 1
            self.places.append((frame.f_code.co_filename, frame.f_lineno))
            if self.count == self.at:
                raise KeyboardInterrupt
        return self._line


def chosen(places, scheduler, name):
    """Some of the lines, by number: of the loop, of the scheduler, of all the rest."""
    parts = {"loop": [], "scheduler": [], "rest": []}
    for n, (file, _) in enumerate(places, 1):
        part = "loop" if file in LOOP else "scheduler" if file == scheduler else "rest"
        parts[part].append(n)
    pick, wanted = random.Random(name), {"loop": 5, "scheduler": 4, "rest": 2}
    return [n for part, some in parts.items() for n in pick.sample(some, wanted[part])]


def check_clip(name, reading, choose):
    scheduler = inspect.getfile(type(model(name).scheduler(STEPS)))
    files, pipe, options = (PACKAGE, scheduler), Pipeline(model(name)), asked(name, reading)
    whole = pipe.video(**options)
    pipe.clear_cache()
    with Lines(files) as all_lines:
        pipe.video(**options)
    at = choose(all_lines.places, scheduler, f"{name} {reading}")
    assert any(all_lines.places[n - 1][0] == scheduler for n in at)
    for n in at:
        pipe.clear_cache()
        before = pipe.last_run
        with Lines(files, n) as lines:
            pipe.video(**options)
        assert lines.count == n
        run = pipe.last_run
        if run is before:  # it had not begun
            run = pipe.video(**options)
        where = (n, lines.places[-1])
        assert len(run.trace) in (run.index, run.index + 1), where
        if not run.finished:
            pipe.resume(run, progress=False)
        same(run, whole, where)
    same(pipe.video(**options), whole, "the next run")  # with what the pipeline keeps of this one


def same(run, whole, where, frames=True):
    assert [r.index for r in run.trace] == list(range(whole.num_steps)), where
    for record, other in zip(run.trace, whole.trace, strict=True):
        assert record.tensors.keys() == other.tensors.keys(), where
        for tensor in record.tensors:
            assert torch.equal(record[tensor], other[tensor]), (where, record.index, tensor)
    assert torch.equal(run.z, whole.z), where
    assert torch.equal(run.reference.end, whole.reference.end), where
    assert not frames or np.array_equal(run.frames, whole.frames), where


@pytest.mark.filterwarnings("ignore:tiny takes no text")
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("name", CASES)
def test_a_clip_that_is_interrupted_at_a_line_goes_on_as_if_it_had_not_been(name, reading):
    check_clip(name, reading, chosen)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:tiny takes no text")
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("name", CASES)
def test_a_clip_that_is_interrupted_at_any_line_goes_on_as_if_it_had_not_been(
    name, reading, monkeypatch
):
    """Every line of the loop and of the scheduler, at the middle one of the steps it runs in.

    What the networks predict is computed once and then remembered, where it depends on what they
    are given alone; each run is a copy of one that has not begun to step.
    """
    used, options = model(name), asked(name, reading)
    options.pop("progress")
    pipe = Pipeline(used)
    pipe.denoise(**options)
    begun, predict, known = pipe.last_run, used.predict, {}
    conditions = begun.edit.condition, begun.edit.reference, begun.reference.condition(0)

    def remembered(z, t, conditions):
        asked = z.numpy().tobytes(), float(t), *map(id, conditions)
        if asked not in known:
            known[asked] = predict(z, t, conditions)
        return known[asked]

    if name != "pia-reuse":  # which keeps features from step to step
        monkeypatch.setattr(used, "predict", remembered)

    def stepped(at=0):
        """A run, and its lines up to the one that is interrupted."""
        run = copy.deepcopy(begun, {id(shared): shared for shared in (used, *conditions)})
        with Lines((PACKAGE, inspect.getfile(type(run.scheduler))), at) as lines:
            finish(run)
        return run, lines

    whole, lines = stepped()
    times = {}
    for n, place in enumerate(lines.places, 1):
        times.setdefault(place, []).append(n)
    assert len(times) > 200
    for place, counts in times.items():
        run, _ = stepped(counts[len(counts) // 2])
        assert len(run.trace) in (run.index, run.index + 1), place
        finish(run)
        same(run, whole, place, frames=place == lines.places[-1])


def finish(run):
    for _ in denoise(run):
        pass


def test_a_change_that_is_interrupted_is_made_wholly_or_not_at_all():
    pipe, options = Pipeline(model("pia")), asked("pia", "paired")
    options.pop("progress")
    drag = iv.Drag(path=[(5, 7), (10, 7)], mask=tiny.region())
    change = {"edited": tiny.picture(2), "drags": [drag], "lam": 0.1, "motion": "the sun moves"}
    held = ("_edited", "trajectory", "warped", "lam", "motion", "reference", "edits")

    def begun():
        next(pipe.denoise(**options))
        return pipe.last_run

    whole = begun()
    with Lines([PACKAGE]) as all_lines:
        whole.change(**change)
    pipe.resume(whole, progress=False)
    for n in random.Random(0).sample(range(1, all_lines.count + 1), 25):
        run = begun()
        before = {name: getattr(run, name) for name in held}
        with Lines([PACKAGE], n):
            run.change(**change)
        changed = [name for name in held if getattr(run, name) is not before[name]]
        assert changed in ([], list(held)), n
        run.change(**change)
        same(pipe.resume(run, progress=False), whole, n)


@pytest.mark.parametrize("kind", ["pia", "storybook"])
def test_a_picture_that_is_interrupted_harms_no_later_one(kind):
    pipe = Pipeline(model(kind))
    scheduler = inspect.getfile(type(pipe.model.scheduler(STEPS, "image")))
    strokes = [iv.Stroke(points=[(8, 8)], width=4)]

    def drawn():
        return pipe.image("a red sun", tiny.picture(), strokes=strokes, num_inference_steps=STEPS)

    whole = drawn()
    pipe.clear_cache()
    with Lines([PACKAGE, scheduler]) as all_lines:
        drawn()
    for n in chosen(all_lines.places, scheduler, kind):
        pipe.clear_cache()
        with Lines([PACKAGE, scheduler], n):
            drawn()
        assert drawn() == whole, all_lines.places[n - 1]


def test_a_brush_that_is_interrupted_draws_on():
    pipe = Pipeline(model("pia"))
    strokes = [iv.Stroke(points=[(8, 8)], width=4)]
    brush = pipe.brush("a red sun", tiny.picture())
    whole = brush(strokes)
    with Lines([PACKAGE]) as all_lines:
        brush(strokes)
    for n in random.Random(0).sample(range(1, all_lines.count + 1), 25):
        with Lines([PACKAGE], n):
            brush(strokes)
        assert brush(strokes) == whole, all_lines.places[n - 1]
