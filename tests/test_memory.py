"""Memory: the plan that is chosen, and what is done where it was not enough."""

import copy

import numpy as np
import pytest
import torch
from families import FAMILIES, NAMES
from test_speed import MOTION, clip, close, fresh

import ivkit as iv
from ivkit.models import memory

# ---------------------------------------------------------------------------------- the plan


@pytest.mark.parametrize("name", ["pia", "svd", "wan-2.1"])
def test_every_plan_makes_the_same_clip(name, monkeypatch, capsys):
    pipe, picture = fresh(name)
    before = clip(pipe, picture, batch=True)
    assert pipe.plan.level == 0
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    pipe.clear_cache()
    close(clip(pipe, picture, batch=True), before)
    last = memory.last_level(pipe.model)
    assert pipe.plan.level == last == 2
    assert f"memory: {memory.STEPS_DOWN[last]}, float32" in capsys.readouterr().out
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    clip(pipe, picture)
    assert pipe.plan.level == 0


class Somewhere:
    """Stands for a model's device where only its type is asked for."""

    def __init__(self, type):
        self.type = type


@pytest.mark.parametrize("device, last", [("cuda", 3), ("cpu", 2)])
def test_more_free_memory_is_a_larger_plan(device, last, monkeypatch):
    model = copy.copy(FAMILIES["wan-2.1"].model())
    model.device = Somewhere(device)
    shape, levels = (3, 4, 60, 104), []
    for free in (None, 10**12, 10**9, 4 * 10**8, 10**6):
        monkeypatch.setattr(memory, "free_bytes", lambda _, free=free: free)
        levels.append(memory.choose(model, shape, guided=True).level)
    assert levels == sorted(levels) and levels[:2] == [0, 0]
    assert levels[-1] == last


@pytest.mark.parametrize("name", ["pia", "wan-2.1"])
def test_weights_are_counted_once(name, monkeypatch):
    """They are in memory before the plan is made: what is asked to be free is the step's own."""
    model, shape = fresh(name)[0].model, (1, 4, 8, 8)
    weights = {
        id(p): p.nbytes
        for part in model.parts.values()
        if isinstance(part, torch.nn.Module)
        for p in part.parameters()
    }
    assert memory.model_bytes(model) == sum(weights.values())
    step = 1 * 8 * 8 * memory.CELL_BYTES * 2  # of one row in float32
    for free, level in ((4.5 * step, 0), (2.3 * step, 1), (1.2 * step, 2)):
        monkeypatch.setattr(memory, "free_bytes", lambda _, free=free: free)
        plan = memory.choose(model, shape, guided=True)
        assert plan.level == level
        assert plan.free_gb * 1e9 == pytest.approx(free + sum(weights.values()))


def test_a_cpus_free_memory_is_what_is_available():
    import psutil

    free, seen = memory.free_bytes(torch.device("cpu")), psutil.virtual_memory().available
    assert abs(free - seen) < 0.2 * seen


# -------------------------------------------------------------------------- out of memory


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
    pipe.clear_cache()
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


def run_out(module, nth, error=None):
    """The module's nth call fails, and no other; returns a handle whose `remove` ends it."""
    calls = []

    def check(*_):
        calls.append(1)
        if len(calls) == nth:
            raise error or torch.OutOfMemoryError("CUDA out of memory")

    handle = module.register_forward_pre_hook(check)
    handle.calls = calls
    return handle


def parts_of(pipe):
    """{name: module} of all that may run out of memory."""
    model = pipe.model
    found = {n: m for n, m in model.parts.items() if isinstance(m, torch.nn.Module)}
    vae = found.pop("vae")
    return {**found, "encoder": vae.encoder, "decoder": vae.decoder}


def a_clip(pipe, picture):
    return clip(pipe, picture, num_inference_steps=2).frames


def a_clip_by_steps(pipe, picture):
    for step in pipe.denoise(picture(0), MOTION, edited=picture(1), num_inference_steps=2):
        step.preview()
    return pipe.last_run.frames


def an_unedited_clip(pipe, picture):
    return clip(pipe, picture, lam=0.0, num_inference_steps=2).unedited


def a_picture(pipe, picture):
    return np.asarray(pipe.image("a red sun", picture(0), num_inference_steps=2))


def a_picture_by_steps(pipe, picture):
    steps = pipe.denoise_image("a red sun", num_inference_steps=2)
    return np.stack([np.asarray(step.preview()) for step in steps])


def a_round_trip(pipe, picture):
    return np.asarray(pipe.round_trip(picture(0))[0])


def a_brush(pipe, picture):
    brush = pipe.brush("a red sun", picture(0))
    return np.asarray(brush([iv.Stroke(points=[(8, 8)], width=6)]))


CLIPS = (a_clip, a_clip_by_steps, an_unedited_clip, a_round_trip)
PICTURES = (a_picture, a_picture_by_steps, a_brush)


@pytest.mark.parametrize(
    "name, work",
    [(name, work) for name in ("pia", *NAMES) for work in CLIPS]
    + [("pia", work) for work in PICTURES],
)
def test_whatever_runs_out_of_memory_is_done_again(name, work, capsys):
    pipe, picture = fresh(name)
    pipe.model.decode_chunk_size = 1  # SVD's frames depend on how many are decoded together
    counters = {n: run_out(m, 0) for n, m in parts_of(pipe).items()}
    before = work(pipe, picture).astype(int)
    counts = {n: len(counter.calls) for n, counter in counters.items()}
    for counter in counters.values():
        counter.remove()
    assert any(counts.values())
    for part, count in counts.items():
        for nth in {1, count} if count else ():
            pipe.model.plan = None
            pipe.clear_cache()
            handle = run_out(parts_of(pipe)[part], nth)
            again = work(pipe, picture)
            handle.remove()
            assert "out of memory; going on with memory: one branch" in capsys.readouterr().out
            assert np.abs(again - before).max() <= 1, f"{part}, call {nth}"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        MemoryError(),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"
        ),
    ],
)
def test_every_device_says_it_in_its_own_words(error, capsys):
    pipe, picture = fresh("pia")
    before = a_picture(pipe, picture).astype(int)
    run_out(pipe.model.unet, 1, error)
    assert np.abs(a_picture(pipe, picture) - before).max() <= 1
    assert "one branch at a time" in capsys.readouterr().out


def test_another_error_is_no_lack_of_memory():
    pipe, picture = fresh("pia")
    run_out(pipe.model.unet, 1, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        a_picture(pipe, picture)
    assert memory.level(pipe.model) == 0


def test_what_was_drawn_at_random_is_drawn_again():
    pipe, picture = fresh("pia")
    before = clip(pipe, picture, posterior="sample")
    pipe.clear_cache()
    run_out(pipe.model.vae.encoder, 1)
    close(clip(pipe, picture, posterior="sample"), before, 1e-5)


def test_parts_that_do_not_fit_take_turns(monkeypatch):
    model = fresh("wan-2.1")[0].model
    move, moves = torch.nn.Module.to, []

    def full(part, *args, **options):
        moves.append(str(args[0]))
        if len(moves) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return move(part, *args, **options)

    monkeypatch.setattr(torch.nn.Module, "to", full)
    model.place()
    assert model.offload and set(moves[2:]) == {"cpu"}


@pytest.mark.parametrize("name", ["pia", "svd", "wan-2.1"])
def test_parts_that_take_turns_make_the_same_clip(name, monkeypatch):
    pipe, picture = fresh(name)
    before = clip(pipe, picture)
    pipe.clear_cache()
    move, moved = torch.nn.Module.to, []

    def watched(part, *args, **options):
        moved.append((part, str(args[0])))
        return move(part, *args, **options)

    plan = memory.Plan(3, 0.0, None, "float32")
    monkeypatch.setattr(memory, "choose", lambda *args: plan)
    monkeypatch.setattr(torch.nn.Module, "to", watched)
    close(clip(pipe, picture), before)
    network = list(pipe.model.networks.values())[-1]
    turns = [i for i, (part, _) in enumerate(moved) if part is network]
    others = {id(part) for part, where in moved[: turns[-1]] if where == "cpu"}
    assert pipe.model.offload and len(turns) <= 8  # not anew for each of its many calls
    assert others >= {id(part) for part in pipe.model.modules() if part is not network}
