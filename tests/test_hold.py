"""Steps that dual-clock's full hold overwrites are not evaluated, and the clip is the same."""

import copy

import diffusers
import numpy as np
import pytest
import tiny
import torch
from families import FAMILIES
from test_interrupts import model

import ivkit as iv
from ivkit import video, view
from ivkit.instructions import READINGS
from ivkit.pipeline import Pipeline
from ivkit.widgets.explorer import TraceExplorer, _says

pytestmark = pytest.mark.filterwarnings("ignore:tiny takes no text")
MOTION = "the boat moves right"
DRAG = iv.Drag(path=[(5, 7), (10, 7)], mask=tiny.region())


def steps_of(pipe, family=tiny, **options):
    """The steps of a clip of ten with a drag, of which seven are held at lam = 0."""
    options = {"drags": [DRAG], "source": "still", "lam": 0.0, "num_inference_steps": 10, **options}
    return pipe.denoise(family.picture(), MOTION, **options)


def made(pipe, **options):
    for step in steps_of(pipe, **options):
        run = step.run
    return run


@pytest.fixture
def calls(monkeypatch):
    """How many branches each call of the network evaluated."""
    found, inner = [], tiny.pia.PIAModel.predict

    def counted(self, z, t, conditions):
        found.append(len(conditions))
        return inner(self, z, t, conditions)

    monkeypatch.setattr(tiny.pia.PIAModel, "predict", counted)
    return found


@pytest.fixture
def everything(monkeypatch):
    """Calls a function once as it is, and once with every step evaluated."""

    def both(work):
        found = work()
        with monkeypatch.context() as patch:
            patch.setattr(video, "overwritten", lambda s, i: False)
            return found, work()

    return both


def same(a, b):
    assert torch.equal(a.z, b.z)
    np.testing.assert_array_equal(a.frames, b.frames)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("kind", ["pia", "storybook"])
@pytest.mark.parametrize(
    "lam, held, branches",
    [
        (0.0, range(7), 3),
        (0.3, (), 20),
        ([0.5] * 3 + [0.0] * 7, range(2, 7), 2 * 2 + 3),  # the third answer is not wanted either
        ([0.0] * 9 + [0.5], range(7), 2 + 2),
    ],
)
def test_the_clip_is_the_same_bit_for_bit(kind, reading, lam, held, branches, calls, everything):
    run, whole = everything(lambda: made(tiny.pipeline(kind), reading=reading, lam=lam))
    same(run, whole)
    assert [r.index for r in run.trace if r.overwritten] == list(held)
    calls.clear()
    made(tiny.pipeline(kind), reading=reading, lam=lam)
    kept = 9 if reading == "paired" and isinstance(lam, list) and lam[-1] else 0
    assert sum(calls) == branches + kept  # the reference chain up to the last step


@pytest.mark.parametrize("name", [*FAMILIES])
def test_of_every_family(name, everything):
    family = FAMILIES[name]
    w, h = family.size
    mask = np.zeros((h, w), bool)
    mask[h // 4 : h // 2, w // 8 : w // 3] = True
    options = {
        "drags": [iv.Drag([(w / 5, h / 3), (w / 2, h / 3)], mask)],
        "family": family,
        "num_inference_steps": 4,
    }
    same(*everything(lambda: made(Pipeline(model(name)), **options)))


@pytest.mark.parametrize(
    "change",
    [
        {"lam": 0.4},
        {"drags": iv.TrajectoryInstruction()},
        {"lam": 0.4, "motion": "the sun moves left", "edited": tiny.picture(2)},
        {"drags": [iv.Drag(path=[(5, 7), (5, 12)], mask=tiny.region())]},
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("at", [0, 4, 6])
def test_what_a_change_wants_after_all_is_evaluated_then(reading, at, change, everything):
    def work():
        for step in steps_of(tiny.pipeline("storybook"), reading=reading, lam=[0.2] + [0.0] * 9):
            if step.index == at:
                held = step.record.overwritten
                step.change(**change)
        return step.run, held

    (run, held), (whole, _) = everything(work)
    same(run, whole)
    moved = "lam" in change or not change["drags"]
    assert held and run.trace[at].overwritten != (moved and at < 7)
    assert torch.equal(run.trace[at]["z_edit"], whole.trace[at]["z_edit"])
    assert torch.equal(run.trace[at].lam, whole.trace[at].lam)


def test_left_within_the_hold_and_taken_up(everything):
    def work():
        pipe = tiny.pipeline("storybook")
        steps = steps_of(pipe)
        for step in steps:
            if step.index == 3:
                steps.close()
        return pipe.resume(pipe.last_run, progress=False)

    same(*everything(work))


@pytest.mark.parametrize(
    "name, held",
    [
        ("DDIMScheduler", 7),
        ("DDPMScheduler", 7),
        ("EulerDiscreteScheduler", 7),
        ("EulerAncestralDiscreteScheduler", 7),
        ("LCMScheduler", 7),
        ("DPMSolverMultistepScheduler", 0),
        ("UniPCMultistepScheduler", 0),
        ("HeunDiscreteScheduler", 7),  # of 19: the second halves of its steps
    ],
)
def test_a_scheduler_that_keeps_what_was_predicted_is_given_it(name, held, everything):
    own = copy.copy(tiny.model())
    scheduler = getattr(diffusers, name)(beta_start=0.00085, beta_end=0.012)
    own.schedulers = {**own.schedulers, "video": scheduler}
    run, whole = everything(lambda: made(Pipeline(own)))
    same(run, whole)
    assert sum(r.overwritten for r in run.trace) == held


def test_a_held_step_says_so_wherever_it_is_shown(tmp_path):
    run = made(tiny.pipeline("storybook"))
    run.trace.save(tmp_path / "trace.safetensors")
    for trace in (run.trace, iv.Trace.load(tmp_path / "trace.safetensors")):
        for name in ("eps_edit", "eps_hat", "x0"):
            with pytest.raises(KeyError, match=f"{name}' .overwritten, not evaluated."):
                trace[3][name]
            assert view._latent(trace[3], name, 0) == "overwritten,\nnot evaluated"
            assert torch.is_tensor(view._latent(trace[8], name, 0))
        assert view._latent(trace[8], "eps", 0) == "not evaluated,\nweight 0"
    iv.trace_grid(run.trace, decode=run.model.decode)
    explorer = TraceExplorer(run)
    explorer.step.value = 3
    says = _says("overwritten, not evaluated")
    assert not explorer.errors
    for name in ("x_edit", "x_hat", "x0"):
        assert explorer.tiles[name].value == says


def test_a_held_step_foresees_the_dragged_clip():
    pipe = tiny.pipeline("storybook")
    step = next(steps_of(pipe))
    held = step.run.edit.warped_latents
    seen = np.stack([np.asarray(step.preview(f)) for f in range(len(held))])
    np.testing.assert_array_equal(seen, pipe.decode(held))
    np.testing.assert_array_equal(step.run.frames, seen)
