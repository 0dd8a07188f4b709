"""No wrong call ends in anything but one sentence that names the argument; see `fuzz.py`."""

import inspect
import time

import answers
import families
import fuzz
import numpy as np
import pytest
import tiny
import torch

import ivkit as iv
from ivkit.bench import metrics
from ivkit.course import checks
from ivkit.pipeline import Pipeline
from ivkit.support import validate

CALLS = 5000


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("fuzz"))
        yield fuzz.World()


def test_wrong_calls_are_answered_by_one_sentence(world):
    functions, possible, counts, wrong = fuzz.fuzz(CALLS, 0, world)
    print(functions, possible, counts)
    assert sum(counts.values()) == CALLS and functions > 150
    assert not wrong, "\n".join(wrong)


def test_right_calls_of_the_benchmarks_are_taken(world):
    assert fuzz.refused(world) == []


@pytest.mark.parametrize("name", families.NAMES)
@pytest.mark.parametrize("seed", [2**45, 2**64 - 1])
def test_every_seed_makes_a_clip(name, seed):
    family = families.FAMILIES[name]
    run = Pipeline(family.model()).video(
        family.picture(), "a boat", seed=seed, num_inference_steps=2, progress=False
    )
    assert run.finished


@pytest.mark.parametrize("seed", [2**64, -1, 10**400])
def test_a_seed_beyond_is_refused_by_name(seed):
    with pytest.raises(ValueError, match="seed must be an integer of at least 0 and"):
        tiny.pipeline().video(tiny.picture(), "the boat moves", seed=seed)


def test_ltx_refuses_one_step_before_any_work():
    family = families.FAMILIES["ltx"]
    with pytest.raises(ValueError, match="num_inference_steps must be at least 2 for tiny"):
        Pipeline(family.model()).video(family.picture(), "a boat", num_inference_steps=1)


def test_an_unknown_argument_is_named_with_the_nearest_known_one():
    pipe = tiny.pipeline()
    with pytest.raises(TypeError, match="'generator': its place is taken by seed"):
        pipe.image("a boat", generator=torch.Generator())
    with pytest.raises(TypeError, match="image has no argument 'strenght'; did you mean strength?"):
        pipe.image("a boat", tiny.picture(), strenght=0.5)
    with pytest.raises(TypeError, match="Stroke has no argument 'color'; did you mean colour?"):
        iv.Stroke([(1, 1)], color="red")
    with pytest.raises(TypeError, match="video needs motion"):
        pipe.video(tiny.picture())


def test_numbers_may_be_0_d_tensors_and_numpy_scalars():
    pipe = tiny.pipeline()
    options = {"seed": np.int64(3), "strength": torch.tensor(0.5), "grow": np.float32(1)}
    options |= {"num_inference_steps": torch.tensor(2)}
    assert pipe.image("a boat", tiny.picture(), **options).size == (16, 16)


def test_limits_are_said_before_any_work():
    picture = tiny.picture()
    begun = time.perf_counter()
    for call, name in (
        (lambda: iv.to_picture(picture, (10**6, 10**6)), "size"),
        (lambda: tiny.pipeline().image("a boat", size=(20_000, 20_000)), "size"),
        (lambda: iv.warp(picture, iv.Camera(pan=(1, 0)), num_frames=2**40), "num_frames"),
        (lambda: iv.contact_sheet({"a": [picture] * 4}, height=10**6), "height"),
        (lambda: tiny.pipeline().video(picture, "a boat", num_inference_steps=10**9), "steps"),
    ):
        with pytest.raises(ValueError, match=name):
            call()
    assert time.perf_counter() - begun < 30


def test_a_mask_of_another_size_and_a_single_picture_are_refused():
    clip = np.zeros((4, 16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="mask of shape .* does not fit a of shape"):
        metrics.psnr(clip, clip, np.ones((8, 8)))
    with pytest.raises(ValueError, match="frames must be uint8 of shape"):
        metrics.flicker(clip[0])


def test_whatever_is_given_can_be_shown_in_a_sentence():
    for value in (fuzz.deep(), fuzz.Liar(), 10**6000, "x" * 10**6, "\ud800"):
        assert len(validate.shown(value)) <= 100


@pytest.mark.parametrize("canvas", [iv.PaintCanvas, iv.DragCanvas])
def test_a_canvas_names_what_it_cannot_take(canvas):
    for name, value in {"width": "wide", "image": 3, "line": "here", "autosave": "a/b"}.items():
        with pytest.raises((ValueError, TypeError), match=f"{name} must be|{name}: "):
            canvas(**{"autosave": None, name: value})


def test_the_panels_name_what_they_cannot_take():
    with pytest.raises(TypeError, match="pipe must be a Pipeline, got 'storybook'"):
        iv.Studio("storybook")
    with pytest.raises(TypeError, match="run must be a Run, got None"):
        iv.TraceExplorer(None)
    with pytest.raises(TypeError, match="folder must be a path, got 5"):
        iv.Studio(tiny.pipeline("storybook"), folder=5, autosave=None)


def test_a_step_that_a_trace_has_not_is_named(world):
    trace = world.trace
    with pytest.raises(IndexError, match="key must be one of 4 steps, got 4"):
        trace[4]
    with pytest.raises(KeyError, match="step 0 holds no 'esp'; it holds: z_t"):
        trace["esp"]
    with pytest.raises(KeyError, match="the trace has no steps"):
        trace[:0]["eps"]
    for key in (slice("a", 2), slice(None, None, 0), 1.5, None, [0]):
        with pytest.raises(TypeError, match="key must be an integer or a slice of integers or"):
            trace[key]
    with pytest.raises(TypeError, match="name must be a text, got 3"):
        trace[0][3]


def exercises(world):
    """(name, check, what it is given beside the answer) of every exercise."""
    beside = {"num_frames": 16, "num_steps": 8, "memory_gb": 12.0, "pipe": world.pipe}
    beside |= {"picture": world.picture, "alpha_bar": torch.linspace(0.99, 0, 1000)}
    beside["mask"] = torch.ones(16, 16)
    for name, check in checks.CHECKS.items():
        _, *more = inspect.signature(check).parameters
        yield name, check, {k: beside[k] for k in more if k in beside}


def is_the_number(name: str, value) -> bool:
    """Whether a value is by chance the one number that an exercise asks for."""
    wanted = next(c[name] for c in answers.CHAPTERS.values() if name in c).right[0]
    return isinstance(wanted, (int, float)) and validate.as_array(value).item() == wanted


@pytest.mark.filterwarnings("ignore")
def test_a_check_answers_whatever_it_is_given_by_one_line(world, capsys):
    tried, wrong = 0, []
    for name, check, more in exercises(world):
        for kind, values in fuzz.WRONG.items():
            for i, value in enumerate(values):
                # no array can be made of what never ends, and print says what it is given
                if isinstance(value, fuzz.Endless) or value is print:
                    continue
                for answer in (value, lambda *_, value=value: value):
                    right = check(answer, **more)
                    said = capsys.readouterr().out.removesuffix("\n")
                    tried += 1
                    one_line = "\n" not in said and len(said) <= fuzz.LONGEST
                    if right and answer is value and is_the_number(name, value):
                        continue
                    if right or not one_line or not said.startswith("✗ not yet: "):
                        wrong.append(f"{name}({kind}[{i}]): {said[:200]!r}")
    assert tried > 5000 and not wrong, "\n".join(wrong)
