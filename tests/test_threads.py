"""Two threads on one model: each gets what it would get alone, and none waits for ever."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiny
import torch
from families import FAMILIES
from test_interrupts import CASES, MOTION, asked, model

import ivkit as iv
from ivkit.instructions import READINGS
from ivkit.models import personal
from ivkit.models.attention import record
from ivkit.pipeline import Pipeline

pytestmark = pytest.mark.filterwarnings("ignore:tiny takes no text")
LONG = 120  # seconds: what takes longer waits for ever


@pytest.fixture(autouse=True)
def _often():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(*works):
    """What each returns, all begun together, each in a thread of its own."""
    gate = threading.Barrier(len(works))

    def work(call):
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(works)) as pool:
        return [made.result(LONG) for made in [pool.submit(work, call) for call in works]]


@pytest.mark.parametrize("name", CASES)
def test_clips_made_at_once_are_those_made_one_after_the_other(name):
    """Both readings, with and without an edit, and pictures coded and decoded beside them."""
    family, pipe = FAMILIES.get(name, tiny), Pipeline(model(name))
    clips = [
        asked(name, reading) | {"seed": seed, "edited": edited and family.picture(edited)}
        for seed, reading in enumerate(READINGS)
        for edited in (None, 1)
    ]
    if name == "pia-reuse":  # keeps the features of four branches, which are two clips
        clips = clips[1::2]
    alone = [Pipeline(model(name)).video(**options) for options in clips]
    pixels = iv.pictures.to_pixels(family.picture(3))
    z = alone[0].z
    there_and_back = pipe.model.encode(pixels), pipe.model.decode(z)
    pipe.clear_cache()

    def coded():
        pipe.clear_cache()
        return pipe.model.encode(pixels), pipe.model.decode(z)

    *together, found = at_once(*(lambda o=o: pipe.video(**o) for o in clips), coded)
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a.z, b.z) and torch.equal(a.trace["out_hat"], b.trace["out_hat"])
        assert np.array_equal(a.frames, b.frames) and np.array_equal(a.unedited, b.unedited)
    assert all(map(torch.equal, found, there_and_back))


def test_pictures_and_brushes_at_once():
    pipe, strokes = Pipeline(model("pia")), [iv.Stroke(points=[(8, 8)], width=4)]
    brush = pipe.brush("a red sun", tiny.picture())
    works = [
        lambda: pipe.image("a red sun", tiny.picture(), strokes=strokes, seed=1),
        lambda: pipe.image("the boat", seed=2),
        lambda: brush(strokes),
    ]
    alone = [work() for work in works]
    assert at_once(*works, *works) == [*alone, *alone]


@pytest.mark.parametrize("reading", READINGS)
def test_one_run_taken_up_by_two_threads_is_made_once(reading):
    pipe, options = Pipeline(model("storybook")), asked("storybook", reading)
    whole = pipe.video(**options)
    options.pop("progress")
    pipe.denoise(**options)
    run = pipe.last_run
    at_once(*[lambda: pipe.resume(run, progress=False)] * 3)
    assert [r.index for r in run.trace] == [0, 1, 2] and torch.equal(run.z, whole.z)


def test_a_clip_that_is_left_open_holds_up_nobody():
    pipe, options = Pipeline(model("storybook")), asked("storybook", "paired")
    whole = pipe.video(**options)
    options.pop("progress")
    steps = pipe.denoise(**options)
    next(steps)
    (other,) = at_once(lambda: pipe.video(**options, progress=False))
    assert torch.equal(other.z, whole.z)
    *_, last = steps
    assert torch.equal(last.run.z, whole.z)


@pytest.mark.parametrize("kind", ["text", "time"])
def test_attention_is_recorded_of_ones_own_calls_alone(kind):
    pipe, options = Pipeline(model("pia")), asked("pia", "shared")
    network = pipe.model.video_unet
    with record(network, kind) as alone:
        whole = pipe.video(**options)

    def recorded():
        with record(network, kind) as maps:
            pipe.video(**options)
        return maps

    maps, others, run = at_once(recorded, recorded, lambda: pipe.video(**options))
    for found in (maps, others):
        assert found.shape == alone.shape
        for layer, calls in alone.layers.items():
            assert len(found.layers[layer]) == len(calls)
            assert all(map(torch.equal, found.layers[layer], calls))
    assert torch.equal(run.z, whole.z)
    assert not any(layer._forward_pre_hooks for layer in network.modules())


def test_the_studio_and_a_cell_at_once(tmp_path):
    """The studio shows its own clip, whatever a cell makes on the same pipeline meanwhile."""
    pipe = Pipeline(model("storybook"))
    studio = iv.Studio(pipe, tiny.picture(), autosave=None, folder=tmp_path)
    studio.panel["motion"].value = MOTION
    options = asked("storybook", "paired") | {"seed": 7}
    alone = Pipeline(model("storybook")).video(**options)
    studio.generate()
    while studio.busy:
        mine = pipe.video(**options)
        assert np.array_equal(mine.frames, alone.frames)
    assert studio.errors == []
    take = studio.results[-1].take
    again = take.replay(Pipeline(model("storybook")))
    assert np.array_equal(studio.results[-1].frames, again.frames)


def test_weights_that_change_while_a_clip_is_made_end_it_with_one_sentence():
    """Half a clip by one LoRA and half by another would be neither; so with what is computed when
    it is asked for."""
    pipe = Pipeline(
        tiny.pia.build(
            "tiny", tiny.parts(), tiny.FACTS, device=torch.device("cpu"), dtype=torch.float32
        )
    )
    options = asked("pia", "shared")
    finished = pipe.video(**options)
    options.pop("progress")
    lora = personal.new(pipe)
    steps = pipe.denoise(**options)
    next(steps)
    lora.set_strength(0.5)
    with pytest.raises(ValueError, match="weights of tiny have changed since this clip was begun"):
        next(steps)
    with pytest.raises(ValueError, match="weights of tiny have changed"):
        _ = finished.unedited
    assert finished.frames.shape == (4, tiny.SIZE, tiny.SIZE, 3)
    examples = [(tiny.picture(i), "the boat") for i in range(2)]

    def made():
        try:
            return pipe.video(**options, progress=False)
        except ValueError as error:
            return error

    found, _ = at_once(made, lambda: personal.train(lora, examples, steps=3, progress=False))
    again = made()
    assert "have changed" in str(found) or found.num_steps == 3
    assert torch.equal(again.z, made().z)
