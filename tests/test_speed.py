"""Faster and smaller: exact ways change nothing, approximate ones are named, memory is planned."""

import functools
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import tiny
import torch
from diffusers import MotionAdapter
from families import FAMILIES, NAMES

import ivkit as iv
from ivkit.instructions import Settings
from ivkit.models import pia, speed
from ivkit.models.attention import record
from ivkit.pipeline import Pipeline

MOTION = "the boat moves right"


def fresh(name):
    """A pipeline over a model of its own, that a test may change."""
    if name == "pia":
        parts = tiny.parts()
        built = pia.build(
            "tiny", parts, tiny.FACTS, device=torch.device("cpu"), dtype=torch.float32
        )
        return Pipeline(built), tiny.picture
    family = FAMILIES[name]
    model = family.cls(
        "tiny",
        family.parts(),
        size=family.size,
        num_frames=family.num_frames,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
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
        assert done[0].startswith("channels_last in ")
    close(clip(pipe, picture), before)


@pytest.fixture
def no_compiler(monkeypatch):
    """torch.compile traces and runs what it traced, without a compiler behind it."""
    compile_ = torch.compile

    def compile(f, options=None, **o):
        return compile_(f, backend="eager", **o)

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(speed, "_compiled", functools.cache(speed._compiled.__wrapped__))
    yield
    torch._dynamo.reset()


def test_a_unet_compiled_whole_is_the_same_in_two_graphs(no_compiler):
    pipe, picture = fresh("pia")
    before = clip(pipe, picture)
    drawn = pipe.image("a red sun", num_inference_steps=2)
    torch._dynamo.utils.counters.clear()
    done = pipe.speed_up(compile=True)
    assert done[-1].startswith("the UNets and the decoder compiled whole")
    run = clip(pipe, picture)
    close(run, before)
    assert not run.settings.batch and not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3  # deep, last, decoder
    assert np.abs(np.asarray(pipe.image("a red sun", num_inference_steps=2), int) - drawn).max() < 3
    pipe.clear_cache()
    with record(pipe.model.video_unet, "time") as maps:
        clip(pipe, picture, lam=1.0)
    assert maps.shape == (8, 8) and all(len(calls) == 4 for calls in maps.layers.values())
    pipe.speed_up(compile=False)
    assert pipe.model.speed.network is None and pipe.model.unet._compiled_call_impl is None
    close(clip(pipe, picture), before)


@pytest.mark.parametrize("name", ["svd", "i2vgenxl"])
def test_another_unet_compiled_whole_is_the_same_and_one_shape_serves_a_second_edit(
    name, no_compiler
):
    pipe, picture = fresh(name)
    before = clip(pipe, picture)
    assert pipe.speed_up(compile="whole")[-1].startswith("the UNets and the decoder compiled whole")
    assert pipe.model.speed.one_shape
    pipe.clear_cache()
    close(clip(pipe, picture), before)
    made = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    clip(pipe, picture, lam=0.7)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == made > 0
    pipe.speed_up(compile=False)
    assert not pipe.model.speed.one_shape and pipe.model.parts["unet"]._compiled_call_impl is None


def test_what_is_compiled_for_one_branch_is_asked_for_one_at_a_time():
    model = fresh("pia")[0].model
    model.device = torch.device("cuda")  # of which nothing is asked here
    assert Settings().resolve(model).batch
    model.speed.one_shape = True
    assert not Settings().resolve(model).batch and Settings(batch=True).resolve(model).batch


@pytest.mark.parametrize("other", [{}, {"conv_in_channels": None, "use_motion_mid_block": False}])
def test_a_motion_unet_in_two_parts_is_the_network_itself(other):
    from ivkit.models.motion import Network

    parts = tiny.parts()
    config = {**parts["motion_adapter"].config, **other}
    unet = pia.motion_unet(parts["unet"], MotionAdapter.from_config(config).eval())
    z = torch.randn(2, unet.conv_in.in_channels, 4, 8, 8)
    t, text = torch.tensor(400), torch.randn(8, 12, 16)
    with torch.no_grad():
        torch.testing.assert_close(Network.of(unet)(z, t, text), unet(z, t, text).sample)


def test_attention_over_frames_by_its_own_kernel_is_attention():
    """Through Triton's interpreter, in a process of its own: it is asked for before the import."""
    pytest.importorskip("triton")
    code = """
import torch
from torch.nn.functional import scaled_dot_product_attention as attend
from ivkit.models.frames import attend_frames
for pixels, frames, heads, width in ((6, 16, 8, 40), (3, 4, 2, 5), (2, 24, 4, 80)):
    qkv = torch.randn(3, pixels, frames, heads * width).unbind()
    q, k, v = (x.unflatten(-1, (heads, width)).transpose(1, 2) for x in qkv)
    expected = attend(q, k, v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attend_frames(*qkv, heads), expected, atol=1e-5, rtol=1e-5)

import tiny
from ivkit.models.frames import FramesAttention
from ivkit.models.pia import motion_unet
parts = tiny.parts()
unet = motion_unet(parts["unet"], parts["motion_adapter"])
inputs = torch.randn(2, 9, 4, 8, 8), torch.tensor(400), torch.randn(8, 12, 16)
with torch.no_grad():
    expected = unet(*inputs).sample
    layers = [m for n, m in unet.named_modules() if "motion_modules" in n and hasattr(m, "to_q")]
    for layer in layers:
        layer.set_processor(FramesAttention())
    assert layers
    torch.testing.assert_close(unet(*inputs).sample, expected, atol=1e-4, rtol=1e-4)
"""
    here = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": here}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize("faster", [True, False])
def test_the_kernel_for_frames_is_put_on_where_it_is_faster_and_taken_off_again(
    faster, monkeypatch
):
    """Without a GPU: the kernel is torch's own attention here, and the clock is told its times."""
    attend, calls = torch.nn.functional.scaled_dot_product_attention, []

    def attend_frames(q, k, v, heads):
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        return attend(q, k, v).transpose(1, 2).flatten(2)

    class FramesAttention:
        def __call__(self, attn, x, *args, **options):
            calls.append(attn)
            found = attend_frames(attn.to_q(x), attn.to_k(x), attn.to_v(x), attn.heads)
            return attn.to_out[0](found)

    times = iter([1.0, 2.0] if faster else [2.0, 1.0])
    stub = {"MOST_FRAMES": 64, "attend_frames": attend_frames, "FramesAttention": FramesAttention}
    monkeypatch.setitem(sys.modules, "ivkit.models.frames", types.SimpleNamespace(**stub))
    monkeypatch.setattr(speed, "milliseconds", lambda call: call() is not None and next(times))
    pipe, picture = fresh("pia")
    before = clip(pipe, picture)
    said = "by a kernel of its own" if faster else "by torch: the kernel for it takes"
    assert said in speed._attend_frames(pipe.model)[0]
    pipe.clear_cache()
    close(clip(pipe, picture), before)
    assert bool(calls) == faster
    calls.clear()
    pipe.speed_up(on=False)
    close(clip(pipe, picture), before)
    assert not calls


@pytest.mark.parametrize("name", ["svd", "wan-2.1", "cogvideox", "ltx", "i2vgenxl", "pia"])
def test_inner_blocks_are_compiled_one_by_one(name, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        torch, "compile", lambda call, **options: compiled.append((call.__self__, options)) or call
    )
    pipe, _ = fresh(name)
    done = pipe.speed_up(compile="blocks")
    assert compiled and len(compiled) == len({id(m) for m, _ in compiled})
    assert all(options["dynamic"] is False for _, options in compiled)
    assert any(line.startswith(f"{len(compiled)} inner blocks") for line in done)


def test_latents_of_a_picture_are_computed_once(monkeypatch):
    pipe, picture = fresh("pia")
    calls, encode = [], pipe.model.vae.encode
    monkeypatch.setattr(pipe.model.vae, "encode", lambda x: calls.append(len(x)) or encode(x))
    drags = [iv.Drag(path=[(5, 7), (10, 7)], mask=tiny.region())]
    options = {"drags": drags, "source": "still"}
    clip(pipe, picture, **options)
    first = len(calls)
    assert first == 3  # the picture, and the warped clip two frames at a time: not once more
    clip(pipe, picture, **options, lam=0.1)
    assert len(calls) == first
    pipe.clear_cache()
    clip(pipe, picture, **options, lam=0.1)
    assert len(calls) == 2 * first


# ------------------------------------------------------------------------- approximate speed


def test_reusing_deep_features_every_step_is_exact():
    from ivkit.models.motion import Network, Reuse

    pipe, picture = fresh("pia")
    before = clip(pipe, picture)
    pipe.clear_cache()
    pipe.model.speed.reuse = Reuse(Network.of(pipe.model.video_unet), 1)
    close(clip(pipe, picture), before, 1e-5)
    assert pipe.model.speed.reuse.shallow == 0 and pipe.model.speed.reuse.whole == 8


@pytest.mark.parametrize("batch", [True, False])
def test_each_branch_reuses_its_own_deep_features(batch):
    pipe, picture = fresh("pia")
    options = {"num_inference_steps": 6, "batch": batch}
    exact = clip(pipe, picture, **options)
    done = pipe.speed_up(compile=False, reuse=3)
    assert done[-1].startswith("approximate: deep features kept over 3 steps")
    near = clip(pipe, picture, **options)
    assert (pipe.model.speed.reuse.whole, pipe.model.speed.reuse.shallow) == (4, 8)
    error = (near.state.z - exact.state.z).abs().mean()
    assert 0 < error < 0.1 * exact.state.z.std()
    pipe.clear_cache()
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
    near.clear_cache()
    assert torch.equal(clip(near, picture, batch=True).state.z, run.state.z)


def test_what_a_model_has_not_is_refused():
    with pytest.raises(ValueError, match="reuse is for motion UNets.*try cache"):
        fresh("wan-2.1")[0].speed_up(reuse=3)
    with pytest.raises(ValueError, match="cache is for transformers.*try reuse"):
        fresh("pia")[0].speed_up(cache=0.1)
    with pytest.raises(ValueError, match="reuse must be an integer of at least 0"):
        fresh("pia")[0].speed_up(reuse=-1)
    with pytest.raises(ValueError, match="compile must be True or False or one of whole, blocks"):
        fresh("pia")[0].speed_up(compile="all")
    with pytest.raises(ValueError, match="'whole' is for UNets; tiny has none"):
        fresh("ltx")[0].speed_up(compile="whole")
    with pytest.raises(ValueError, match="graphs are for motion UNets on a CUDA device"):
        fresh("pia")[0].speed_up(graphs=True)


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


def test_the_brush_and_its_tiny_autoencoder_compiled_draw_the_same(no_compiler):
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    pipe, small = tiny.pipeline(), {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    wide = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    pipe.model.taesd = AutoencoderTiny(**small, **wide).eval()
    stroke = iv.Stroke(points=[(8, 8)], width=6)
    before = np.asarray(pipe.brush("a red sun", tiny.picture())([stroke]), int)
    torch._dynamo.utils.counters.clear()
    pipe.speed_up(compile="whole")
    after = np.asarray(pipe.brush("a red sun", tiny.picture())([stroke]), int)
    assert np.abs(after - before).max() <= 1
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3  # encoder, UNet, decoder


def test_the_brush_says_what_it_needs():
    with pytest.raises(ValueError, match=r"strength must be a number in \(0, 1\]"):
        tiny.pipeline().brush("a sun", tiny.picture(), strength=0)
    with pytest.raises(ValueError, match="makes clips alone"):
        fresh("svd")[0].brush("a sun", tiny.picture())
