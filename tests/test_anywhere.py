"""Whatever a person gets may be handed back to any function, on any device and in any dtype."""

import anywhere
import far
import pytest
import tiny
import torch
from families import FAMILIES

from ivkit.models import personal, pia
from ivkit.pipeline import Pipeline

HAS_FAR = pytest.mark.skipif(not far.possible(), reason="this torch knows no device in Python")
DTYPES = {"float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}


def refused(pipe, run, away) -> list[str]:
    """Every call that does not take what `away` makes of it."""
    faults = []
    for what, call in anywhere.given_back(pipe, run, away):
        try:
            call()
        except Exception as error:
            faults.append(f"{what}: {type(error).__name__}: {error}")
    return faults


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["pia", "storybook"])
def test_what_is_given_back_may_be_of_another_dtype(kind, dtype):
    pipe = tiny.pipeline(kind)
    run = anywhere.clip_of(pipe)
    assert refused(pipe, run, anywhere.to(DTYPES[dtype])) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_half_precision_back(name):
    pipe = Pipeline(FAMILIES[name].model())
    run = anywhere.clip_of(pipe)
    assert refused(pipe, run, anywhere.to(torch.bfloat16)) == []


def far_pipeline(name: str) -> Pipeline:
    where = {"device": far.DEVICE, "dtype": torch.float32}
    if name in ("pia", "storybook"):
        return Pipeline(pia.build("tiny", tiny.parts(name), tiny.FACTS, **where))
    family = FAMILIES[name]
    size = {"size": family.size, "num_frames": family.num_frames}
    return Pipeline(family.cls("tiny", family.parts(), **size, **family.own, **where))


# Without svd, whose scheduler makes a tensor of a device's numbers where Python cannot see it.
AWAY = ["pia", "storybook", "wan-ti2v"]
SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES if n not in ("svd", *AWAY)]


@HAS_FAR
@pytest.mark.parametrize("name", [*AWAY, *SLOW])
def test_what_a_model_on_a_device_gave_may_come_back_from_the_cpu(name):
    """A trace lies on the CPU, whatever the model computes on: each function moves it there."""
    with far.Device():
        pipe = far_pipeline(name)
        run = anywhere.clip_of(pipe)
        assert run.state.z.device.type == far.DEVICE.type
        assert run.trace[0]["z_edit"].device.type == "cpu"
        assert refused(pipe, run, torch.Tensor.cpu) == []
        assert refused(pipe, run, lambda x: x.to(far.DEVICE)) == []


@HAS_FAR
def test_the_far_device_refuses_what_a_gpu_refuses():
    with far.Device():
        there = torch.ones(2, 3, device=far.DEVICE)
        assert (there * torch.tensor(2.0)).cpu().tolist() == [[2.0] * 3] * 2
        with pytest.raises(RuntimeError, match="one device for all"):
            there + torch.ones(2, 3)
        with pytest.raises(RuntimeError, match="one device for all"):
            torch.ones(2, 3) * there.sum()
        with pytest.raises((TypeError, RuntimeError)):
            there.numpy()


def test_weights_of_float16_are_trained_as_float32():
    """What a T4 gets: A and B are trained and finite, the weights come back to the bit."""
    where = {"device": torch.device("cpu"), "dtype": torch.float32}
    pipe = Pipeline(pia.build("tiny", tiny.parts("storybook"), tiny.FACTS, **where))
    unet = pipe.model.unet.half()
    lora, seen = personal.new(pipe, rank=2), []
    before = {n: p.clone() for n, p in unet.named_parameters() if "lora" not in n}
    hook = unet.register_forward_pre_hook(lambda m, given: seen.append(given[0].dtype))
    personal.train(lora, [(tiny.picture(), "the boat")], steps=2, batch=1, progress=False)
    hook.remove()
    assert set(seen) == {torch.float32} and len(lora.losses) == 2
    after = dict(unet.named_parameters())
    assert {after[n].dtype for n in before} == {torch.float16}
    assert all(torch.equal(before[n], after[n]) for n in before)
    trained = [p for n, p in after.items() if "lora_B" in n]
    assert all(p.isfinite().all() for p in trained) and any(p.abs().max() > 0 for p in trained)
