"""Faster and smaller: exact ways change nothing, approximate ones are named, memory is planned."""

import numpy as np
import pytest
import tiny
import torch
from families import FAMILIES, NAMES

import ivkit as iv
from ivkit import memory
from ivkit.models import pia
from ivkit.pipeline import Pipeline

MOTION = "the boat moves right"


def fresh(name):
    """A pipeline over a model of its own, that a test may change."""
    if name == "pia":
        parts = tiny.parts()
        built = pia.build("tiny", parts, tiny.FACTS, device=torch.device("cpu"),
                          dtype=torch.float32)  # fmt: skip
        return Pipeline(built), tiny.picture
    family = FAMILIES[name]
    model = family.cls("tiny", family.parts(), size=family.size, num_frames=family.num_frames,
                       device=torch.device("cpu"), dtype=torch.float32)  # fmt: skip
    return Pipeline(model), family.picture


def clip(pipe, picture, **options):
    options = {"num_inference_steps": 4, "progress": False, "lam": 0.4, **options}
    return pipe.video(picture(0), MOTION, edited=picture(1), **options)


def close(a, b, atol=1e-3):
    torch.testing.assert_close(a.state.z, b.state.z, atol=atol, rtol=1e-3)


# ------------------------------------------------------------------------------- exact speed


@pytest.mark.parametrize("name", ["pia", *NAMES])
def test_speed_up_changes_nothing_and_says_what_it_did(name):
    pipe, picture = fresh(name)
    before = clip(pipe, picture)
    done = pipe.speed_up(compile=False)
    assert all(isinstance(line, str) and "approximate" not in line for line in done)
    if name == "pia":
        assert done[0].startswith("channels_last in ") and "2 networks" in done[1]
    close(clip(pipe, picture), before)


@pytest.mark.parametrize("name", ["pia", "svd", "wan-2.1", "cogvideox", "ltx", "i2vgenxl"])
def test_inner_blocks_are_compiled_one_by_one(name, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **options: compiled.append((self, options))
    )
    pipe, _ = fresh(name)
    done = pipe.speed_up(compile=True)
    assert compiled and len(compiled) == len({id(m) for m, _ in compiled})
    assert all(options == {"dynamic": False} for _, options in compiled)
    assert any(line.startswith(f"{len(compiled)} inner blocks") for line in done)


def test_latents_of_a_picture_are_computed_once(monkeypatch):
    pipe, picture = fresh("pia")
    calls, encode = [], pipe.model.vae.encode
    monkeypatch.setattr(pipe.model.vae, "encode", lambda x: calls.append(len(x)) or encode(x))
    drags = [iv.Drag(path=[(5, 7), (10, 7)], mask=tiny.region())]
    clip(pipe, picture, drags=drags)
    first = len(calls)
    assert first == 3  # the picture, and the warped clip two frames at a time: not once more
    clip(pipe, picture, drags=drags, lam=0.1)
    assert len(calls) == first
    pipe.forget()
    clip(pipe, picture, drags=drags, lam=0.1)
    assert len(calls) == 2 * first


# ------------------------------------------------------------------------- approximate speed


def test_reusing_deep_features_every_step_is_exact():
    from ivkit.models.reuse import Reuse

    pipe, picture = fresh("pia")
    before = clip(pipe, picture)
    pipe.forget()
    pipe.model.reuse = Reuse(1)
    close(clip(pipe, picture), before, 1e-5)
    assert pipe.model.reuse.shallow == 0 and pipe.model.reuse.whole == 8


@pytest.mark.parametrize("batch", [True, False])
def test_each_branch_reuses_its_own_deep_features(batch):
    pipe, picture = fresh("pia")
    options = {"num_inference_steps": 6, "batch": batch}
    exact = clip(pipe, picture, **options)
    done = pipe.speed_up(compile=False, reuse=3)
    assert done[-1].startswith("approximate: deep features kept over 3 steps")
    near = clip(pipe, picture, **options)
    assert (pipe.model.reuse.whole, pipe.model.reuse.shallow) == (4, 8)
    error = (near.state.z - exact.state.z).abs().mean()
    assert 0 < error < 0.1 * exact.state.z.std()
    pipe.forget()
    assert torch.equal(clip(pipe, picture, **options).state.z, near.state.z)
    # the reference branch is what it is without an edit: the edited branch leaves it alone
    alone, _ = fresh("pia")
    alone.speed_up(compile=False, reuse=3)
    alone = alone.video(picture(0), MOTION, num_inference_steps=6, progress=False)
    torch.testing.assert_close(alone.state.z, near.state.reference.end, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["wan-2.1", "cogvideox", "ltx"])
def test_a_transformers_cache_keeps_each_branch_apart(name):
    pipe, picture = fresh(name)
    before = clip(pipe, picture, batch=True)
    exact, _ = fresh(name)
    exact.speed_up(compile=False, cache=1e-9)
    close(clip(exact, picture, batch=True), before)
    near, _ = fresh(name)
    assert "approximate" in near.speed_up(compile=False, cache=0.9)[-1]
    run = clip(near, picture, batch=True)
    assert torch.isfinite(run.state.z).all() and not torch.equal(run.state.z, before.state.z)
    near.forget()
    assert torch.equal(clip(near, picture, batch=True).state.z, run.state.z)


def test_what_a_model_has_not_is_refused():
    with pytest.raises(ValueError, match="reuse is for motion UNets.*try cache"):
        fresh("wan-2.1")[0].speed_up(reuse=3)
    with pytest.raises(ValueError, match="cache is for transformers.*try reuse"):
        fresh("pia")[0].speed_up(cache=0.1)
    with pytest.raises(ValueError, match="must not be negative"):
        fresh("pia")[0].speed_up(reuse=-1)


# ------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize("name", ["pia", "svd", "wan-2.1"])
def test_every_plan_makes_the_same_clip(name, monkeypatch, capsys):
    pipe, picture = fresh(name)
    before = clip(pipe, picture, batch=True)
    assert pipe.plan.level == 0
    held = memory.model_bytes(pipe.model)
    monkeypatch.setattr(memory, "free_bytes", lambda device: held // 2)
    pipe.forget()
    close(clip(pipe, picture, batch=True), before)
    last = memory.last_level(pipe.model)
    assert pipe.plan.level == last and pipe.model.max_rows == 1
    assert f"memory: {memory.STEPS_DOWN[last]}, float32" in capsys.readouterr().out
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    clip(pipe, picture)
    assert (pipe.plan.level, pipe.model.max_rows) == (0, 0)


def test_more_free_memory_is_a_larger_plan():
    model = FAMILIES["wan-2.1"].model()
    shape, levels = (3, 4, 60, 104), []
    for free in (None, 10**12, 10**9, 6 * 10**8, 10**6):
        memory_was, memory.free_bytes = memory.free_bytes, lambda device, free=free: free
        try:
            levels.append(memory.choose(model, shape, guided=True).level)
        finally:
            memory.free_bytes = memory_was
    assert levels == sorted(levels) and levels[0] == levels[1] == 0 and levels[-1] == 3


def failing(pipe, monkeypatch, fits):
    """The device holds `fits` rows of the network at a time."""
    forward = pipe.model.video_unet.forward

    def limited(z, *args, **options):
        if len(z) > fits:
            raise torch.OutOfMemoryError("out of memory")
        return forward(z, *args, **options)

    monkeypatch.setattr(pipe.model.video_unet, "forward", limited)


@pytest.mark.parametrize("fits", [2, 1])
def test_out_of_memory_takes_a_smaller_plan_and_loses_nothing(fits, monkeypatch, capsys):
    pipe, picture = fresh("pia")
    before = clip(pipe, picture, batch=True)
    pipe.forget()
    failing(pipe, monkeypatch, fits)
    run = clip(pipe, picture, batch=True)
    close(run, before)
    said = "one branch at a time" if fits == 2 else "one row at a time"
    assert f"out of memory; going on with memory: {said}" in capsys.readouterr().out
    assert len(run.trace) == 4


def test_out_of_memory_under_the_smallest_plan_keeps_the_trace(monkeypatch):
    pipe, picture = fresh("pia")
    for step in pipe.denoise(picture(0), MOTION, edited=picture(1)):
        if step.index == 1:
            break
    failing(pipe, monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        pipe.resume(pipe.last_run, progress=False)
    assert "2 of 4 steps are kept" in caught.value.__notes__[0]
    monkeypatch.undo()
    assert pipe.resume(pipe.last_run, progress=False).finished


# -------------------------------------------------------------------------------- the brush


def test_the_brush_redraws_in_one_evaluation(monkeypatch):
    pipe = tiny.pipeline()
    brush = pipe.brush("a red sun", tiny.picture(), strength=0.5, seed=3)
    calls, forward = [], pipe.model.unet.forward
    monkeypatch.setattr(
        pipe.model.unet, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k)
    )
    stroke = iv.Stroke(points=[(8, 8)], width=6)
    plain, painted = brush(), brush([stroke])
    assert len(calls) == 2 and painted.size == (tiny.SIZE, tiny.SIZE) and brush.seconds > 0
    assert plain.tobytes() == brush().tobytes() != painted.tobytes()
    # one step of the picture loop from the same noise level, without guidance
    options = {"num_inference_steps": 2, "strength": 0.5, "guidance_scale": 1.0}
    step = next(iter(pipe.denoise_image("a red sun", tiny.picture(), seed=3, **options)))
    expected = np.asarray(step.preview(), int)
    monkeypatch.undo()
    eps = pipe.model.image_noise(tiny.picture().size, torch.Generator().manual_seed(3))
    assert torch.equal(brush.eps, eps)
    assert np.abs(np.asarray(plain, int) - expected).max() <= 2


def test_the_brush_says_what_it_needs():
    with pytest.raises(ValueError, match="strength must be above 0"):
        tiny.pipeline().brush("a sun", tiny.picture(), strength=0)
    with pytest.raises(ValueError, match="makes clips alone"):
        fresh("svd")[0].brush("a sun", tiny.picture())
