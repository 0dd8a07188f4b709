"""The trace: names, derived tensors, where they are undefined, saving. And Eq. 5."""

import json

import pytest
import tiny
import torch
from safetensors.torch import save_file

import ivkit as iv
from ivkit.align import Align, ResidualAlign, align_frames, load_align
from ivkit.blend import noised
from ivkit.sampling import levels
from ivkit.trace import convert

MOTION = "the boat moves right"


@pytest.fixture(scope="module", params=["pia", "storybook"])
def run(request):
    pipe = tiny.pipeline(request.param)
    return pipe.video(tiny.picture(), MOTION, edited=tiny.picture(1), lam=0.3, progress=False)


def test_by_step_and_by_name(run):
    trace, channels = run.trace, run.pipeline.model.channels
    assert len(trace) == 4 and len(trace[1:3]) == 2
    assert trace[2]["eps_hat"].shape == (4, channels, 8, 8)
    assert trace["eps_hat"].shape == (4, 4, channels, 8, 8)
    assert torch.equal(trace["z_t"][1], trace[1]["z_t"])
    for name in ("eps", "eps_uncond", "eps_cond", "eps_edit", "eps_hat", "v_hat", "x0", "x0_ref"):
        assert name in trace.names() and name in trace[0]
    with pytest.raises(KeyError, match="step 1 holds no 'noise'"):
        trace[1]["noise"]


def test_equation_4_and_guidance_can_be_checked_from_the_trace(run):
    for step in run.trace:
        mixed = step.lam * step["out"] + (1 - step.lam) * step["out_edit"]
        torch.testing.assert_close(step["out_hat"], mixed)
        guided = step["out_uncond"] + 3.0 * (step["out_cond"] - step["out_uncond"])
        torch.testing.assert_close(step["out"], guided)


def test_derived_tensors_agree_with_each_other_and_the_scheduler(run):
    model = run.pipeline.model
    for step in run.trace[1:]:
        z, a, s = step["z_edit"], step.signal, step.noise
        torch.testing.assert_close(a * step["x0"] + s * step["eps_hat"], z, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            a * step["eps_hat"] - s * step["x0"], step["v_hat"], atol=1e-3, rtol=1e-3
        )
        scheduler = model.scheduler(4)
        t = scheduler.timesteps[step.index]
        theirs = scheduler.step(step["out_hat"], t, z).pred_original_sample
        torch.testing.assert_close(step["x0"], theirs, atol=1e-3, rtol=1e-3)


def test_undefined_where_alpha_bar_is_zero():
    pipe = tiny.pipeline("storybook")
    first = pipe.video(tiny.picture(), MOTION, progress=False).trace[0]
    assert first.alpha_bar == 0
    assert first.undefined("eps_hat") and torch.isnan(first["eps_hat"]).all()
    assert not first.undefined("x0") and torch.isfinite(first["x0"]).all()
    z, out = torch.randn(2, 3, 4, 4)
    assert torch.isnan(convert(out, z, 0.0, 1.0, "epsilon", "x0")).all()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow_prediction"])
def test_convert_finds_the_truth_from_every_kind(kind):
    torch.manual_seed(0)
    x0, eps = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    levels_ = (0.7, 0.3) if kind == "flow_prediction" else (1.0, 1.7)  # flow; Euler's sigma
    z, norm = levels_[0] * x0 + levels_[1] * eps, (levels_[0] ** 2 + levels_[1] ** 2) ** 0.5
    v = (levels_[0] * eps - levels_[1] * x0) / norm
    out = {"epsilon": eps, "v_prediction": v, "sample": x0, "flow_prediction": eps - x0}[kind]
    close = {"atol": 1e-9, "rtol": 1e-9}
    torch.testing.assert_close(convert(out, z, *levels_, kind, "eps"), eps, **close)
    torch.testing.assert_close(convert(out, z, *levels_, kind, "x0"), x0, **close)
    expected = out if kind == "flow_prediction" else v
    torch.testing.assert_close(convert(out, z, *levels_, kind, "v"), expected, **close)
    with pytest.raises(ValueError, match="not known"):
        convert(out, z, *levels_, "magic", "v")


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler",
                                  "DPMSolverMultistepScheduler", "PNDMScheduler"])  # fmt: skip
def test_levels_are_what_the_scheduler_noises_by(name):
    import diffusers

    scheduler = getattr(diffusers, name)()
    scheduler.set_timesteps(5)
    z0, eps = torch.randn(2, 1, 3, 4, 4)
    for i in (0, 3):
        t = scheduler.timesteps[i]
        signal, noise, _ = levels(scheduler, t, i)
        z = noised(scheduler, z0, eps, t)
        torch.testing.assert_close(z, signal * z0 + noise * eps, atol=1e-4, rtol=1e-4)


def test_saved_and_loaded_tensor_for_tensor(run, tmp_path):
    run.trace.save(tmp_path / "trace.safetensors")
    loaded = iv.Trace.load(tmp_path / "trace.safetensors")
    assert len(loaded) == len(run.trace)
    for a, b in zip(run.trace, loaded, strict=True):
        assert set(a.names()) == set(b.names())
        assert all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
        assert torch.equal(a.lam, b.lam)
        assert (a.index, a.t, a.kind, a.signal) == (b.index, b.t, b.kind, b.signal)
    whole = (tmp_path / "trace.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="half.safetensors is not a whole ivkit trace"):
        iv.Trace.load(tmp_path / "half.safetensors")


GOOD = [[0, 500.0, 0.6, 0.8, "epsilon"]]


@pytest.mark.parametrize(
    "steps", ["5", "null", "[1]", "{}", "", "{", "[" * 100_000, "[[]]", "[[0, 1, 2, 3]]",
              '["abcde"]', json.dumps([[0, 500.0, 0.6, 0.8, "magic"]]),
              json.dumps([[1, *GOOD[0][1:]]]), json.dumps([[0, "t", 0.6, 0.8, "epsilon"]]),
              "[[0, NaN, 0.6, 0.8, \"epsilon\"]]",
              "[[0, 1" + "0" * 400 + ", 0.6, 0.8, \"epsilon\"]]", json.dumps(GOOD * 2), None]
)  # fmt: skip
def test_foreign_steps_are_no_trace(steps, tmp_path):
    """TypeError, IndexError, or taken before."""
    metadata = {} if steps is None else {"steps": steps}
    tensors = {"0.lam": torch.zeros(1, 1, 1, 1), "0.z_t": torch.zeros(1, 4, 2, 2)}
    save_file(tensors, tmp_path / "t.safetensors", metadata)
    with pytest.raises(ValueError, match="t.safetensors is not a whole ivkit trace") as caught:
        iv.Trace.load(tmp_path / "t.safetensors")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("key", ["x.out", "-1.out", "1.out", "out", "0.", "", "0.a b", "9" * 5000])
def test_foreign_names_are_no_trace(key, tmp_path):
    tensors = {"0.lam": torch.zeros(1, 1, 1, 1), key: torch.zeros(1, 4, 2, 2)}
    save_file(tensors, tmp_path / "t.safetensors", {"steps": json.dumps(GOOD)})
    with pytest.raises(ValueError, match="is not a whole ivkit trace"):
        iv.Trace.load(tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match="is not a whole ivkit trace"):
        iv.Trace.load(tmp_path)
    with pytest.raises(ValueError, match="is not a whole ivkit trace"):
        iv.Trace.load(tmp_path / "none")


# ------------------------------------------------------------------------------------ Eq. 5


def test_alignment_as_printed():
    torch.manual_seed(0)
    v, x = torch.randn(4, 3, 8, 8), torch.randn(1, 3, 8, 8)
    module = Align()
    norm = torch.nn.functional.group_norm(v - x, 1)
    expected = torch.nn.functional.conv2d(
        torch.nn.functional.silu(norm), module.conv.weight, module.conv.bias, padding=1
    )
    torch.testing.assert_close(module(v, x), expected)


@pytest.mark.parametrize("groups", [1, 3])
def test_residual_alignment_begins_as_the_identity(groups):
    v, x = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    assert torch.equal(ResidualAlign(groups)(v, x), v)


def test_a_trained_alignment_is_loaded_and_used(tmp_path):
    assert load_align(tmp_path) is None
    module = ResidualAlign(groups=3, width=8)
    torch.nn.init.constant_(module.conv.bias, 0.25)
    (tmp_path / "align").mkdir()
    file = tmp_path / "align" / "align.safetensors"
    save_file(module.state_dict(), file, metadata={"groups": "3"})
    loaded = load_align(tmp_path)
    v, x = torch.rand(5, 3, 8, 8) - 1, torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(align_frames(loaded, v, x), (v + 0.25).clamp(-1, 1))

    pipe = tiny.pipeline()
    pipe.align = loaded
    options = {"lam": 0.3, "edited": tiny.picture(1), "progress": False}
    on = pipe.video(tiny.picture(), MOTION, **options).frames.astype(int)
    off = pipe.video(tiny.picture(), MOTION, align=False, **options).frames.astype(int)
    assert abs((on - off)[off < 200] - 32).max() <= 1  # 0.25 of the range, in uint8
    save_file({"conv.bias": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match="holds no alignment module"):
        load_align(tmp_path)


def test_what_a_cell_echoes_is_one_line(run):
    for thing in (run, run.trace, run.trace[0], run.pipeline, run.pipeline.model):
        assert "\n" not in repr(thing) and len(repr(thing)) < 400
    assert repr(run).startswith("Run(4 frames, 4 of 4 steps, ")
    step = next(run.pipeline.denoise(tiny.picture(), MOTION))
    assert "\n" not in repr(step)
