"""The trace: names, derived tensors, where they are undefined, saving. And Eq. 5."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from safetensors.torch import save_file

import ivkit as iv
from ivkit import pipeline
from ivkit.align import Align, ResidualAlign, align_frames, load_align
from ivkit.blend import noised
from ivkit.models import memory
from ivkit.models.sampling import levels
from ivkit.trace import NAMES, convert

MOTION = "the boat moves right"


@pytest.fixture(scope="module", params=["pia", "storybook"])
def run(request):
    pipe = tiny.pipeline(request.param)
    return pipe.video(tiny.picture(), MOTION, edited=tiny.picture(1), lam=0.3, progress=False)


def test_by_step_and_by_name(run):
    trace, channels = run.trace, run.model.channels
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
        x, x_edit, x_hat = (step[name] for name in step.terms)
        mixed = step.lam * x + (1 - step.lam) * x_edit
        torch.testing.assert_close(x_hat, mixed, atol=1e-4, rtol=1e-4)
        guided = step["out_uncond"] + 3.0 * (step["out_cond"] - step["out_uncond"])
        torch.testing.assert_close(step["out"], guided)


def test_derived_tensors_agree_with_each_other_and_the_scheduler(run):
    model = run.model
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
    with pytest.raises(ValueError, match="kind must be one of"):
        convert(out, z, *levels_, "magic", "v")


@pytest.mark.parametrize(
    "name",
    [
        "EulerDiscreteScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "PNDMScheduler",
    ],
)
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
        assert a.blended == b.blended == "v"
    whole = (tmp_path / "trace.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="half.safetensors is not a whole ivkit trace"):
        iv.Trace.load(tmp_path / "half.safetensors")


GOOD = [[0, 500.0, 0.6, 0.8, "epsilon"]]


@pytest.mark.parametrize(
    "steps",
    [
        "5",
        "null",
        "[1]",
        "{}",
        "",
        "{",
        "[" * 100_000,
        "[[]]",
        "[[0, 1, 2, 3]]",
        '["abcde"]',
        json.dumps([[0, 500.0, 0.6, 0.8, "magic"]]),
        json.dumps([[1, *GOOD[0][1:]]]),
        json.dumps([[0, "t", 0.6, 0.8, "epsilon"]]),
        '[[0, NaN, 0.6, 0.8, "epsilon"]]',
        "[[0, 1" + "0" * 400 + ', 0.6, 0.8, "epsilon"]]',
        json.dumps(GOOD * 2),
        None,
    ],
)
def test_foreign_steps_are_no_trace(steps, tmp_path):
    """TypeError, IndexError, or taken before."""
    metadata = {} if steps is None else {"steps": steps}
    tensors = {"0.lam": torch.zeros(1, 1, 1, 1), "0.z_t": torch.zeros(1, 4, 2, 2)}
    save_file(tensors, tmp_path / "t.safetensors", metadata)
    with pytest.raises(ValueError, match="t.safetensors is not a whole ivkit trace") as caught:
        iv.Trace.load(tmp_path / "t.safetensors")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["left", "blended"])
@pytest.mark.parametrize("said", ["5", "null", "[1]", '[["x0"], [[]]]', '["x"]', "[" * 100_000])
def test_foreign_words_of_its_steps_are_no_trace(name, said, tmp_path):
    tensors = {"0.lam": torch.zeros(1, 1, 1, 1), "0.z_t": torch.zeros(1, 4, 2, 2)}
    save_file(tensors, tmp_path / "t.safetensors", {"steps": json.dumps(GOOD), name: said})
    with pytest.raises(ValueError, match=f"is not a whole ivkit trace .*{name}"):
        iv.Trace.load(tmp_path / "t.safetensors")


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


# ---------------------------------------------------------------------------- what is kept

OPTIONS = {"edited": tiny.picture(1), "lam": 0.3, "progress": False}
SAVED = Path(__file__).with_name("data") / "trace_of_nine_tensors.safetensors"


def test_a_trace_saved_with_nine_tensors_a_step_still_opens_and_two_follow_from_the_rest():
    for step in iv.Trace.load(SAVED):
        assert len(step.tensors) == 9 and step.left == () and step.guidance is None
        rest = {n: t for n, t in step.tensors.items() if n not in ("out", "out_edit")}
        seven = dataclasses.replace(step, tensors=rest, guidance=torch.tensor(3.0))
        assert set(seven.names()) == set(step.names())
        for name in step.names():  # to the last bit
            assert torch.equal(seven[name], step[name])
        assert "x0" in step and step["x0"].shape == (2, 4, 8, 8)


def test_what_follows_from_other_tensors_is_not_kept(run):
    model = run.model
    for step in run.trace:
        assert "out" not in step.tensors and "out_edit" not in step.tensors
        assert len(step.tensors) == 7
    condition, z = run.state.edit.condition, run.trace[1]["z_edit"]
    t = run.state.scheduler.timesteps[1]
    found = model.predict(run.state.scheduler.scale_model_input(z, t)[None], t, [condition])[0]
    torch.testing.assert_close(run.trace[1]["out_edit"], found.guided)


@pytest.mark.parametrize("reading", ["paired", "shared"])
def test_the_chain_and_the_trace_share_their_tensors(reading):
    pipe = tiny.pipeline()
    run = pipe.video(tiny.picture(), MOTION, reading=reading, **OPTIONS)
    latent = run.state.z.nbytes
    chain = run.state.reference
    # in `shared` the two latents are one; in `paired` they begin as one
    assert run.trace.nbytes == (4 * 7 - 1 if reading == "paired" else 4 * 6) * latent
    if reading == "paired":
        both = iv.Trace([*run.trace])
        both.records.append(dataclasses.replace(run.trace[0], tensors=chain_tensors(chain)))
        kept = memory.kept_bytes(tuple(run.state.z.shape), 4, True, iv.TraceOptions())
        assert both.nbytes == kept["cpu"]  # one less, and z_0
        assert chain.nbytes == 4 * 3 * latent


def chain_tensors(chain):
    tensors = {f"z{i}": z for i, z in enumerate(chain.z)}
    for i, out in enumerate(chain.out):
        tensors |= {f"cond{i}": out.cond}
        tensors |= {} if out.uncond is None else {f"uncond{i}": out.uncond}
    return tensors


CHOICES = {
    "one": ("x0", {"x0"}),
    "names": (["eps_hat", "z_edit"], {"eps_hat", "z_edit"}),
    "pattern": ("eps*", {n for n in NAMES if n.startswith("eps")}),
    "function": (lambda name: name.endswith("hat"), {"out_hat", "eps_hat", "v_hat"}),
    "nothing": (False, set()),
    "all": (True, set(NAMES)),
    "parts": (["out_cond", "out_uncond", "z_t"], {"out", "eps", "v", "x0_ref", "z_t"}),
}


@pytest.mark.parametrize("trace, names", CHOICES.values(), ids=CHOICES)
def test_what_is_asked_for_is_kept_and_the_clip_is_the_same(trace, names):
    pipe = tiny.pipeline("storybook")
    whole = pipe.video(tiny.picture(), MOTION, **OPTIONS)
    some = tiny.pipeline("storybook").video(tiny.picture(), MOTION, trace=trace, **OPTIONS)
    assert torch.equal(whole.state.z, some.state.z) and (whole.frames == some.frames).all()
    assert names <= set(some.trace[2].names()) and len(some.trace) == 4
    for a, b in zip(whole.trace, some.trace, strict=True):
        for name in names:
            assert torch.allclose(a[name], b[name], atol=1e-5, equal_nan=True)
    again = pipe.video(tiny.picture(), MOTION, trace=trace, **OPTIONS)  # on the chain that is kept
    assert torch.equal(again.state.z, whole.state.z)
    assert some.trace.nbytes <= 4 * 7 * some.state.z.nbytes
    assert (some.trace.nbytes == 0) == (trace is False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_trace_in_half_precision_takes_half_and_rounds_as_that_type_does(dtype):
    whole = tiny.pipeline().video(tiny.picture(), MOTION, **OPTIONS)
    options = iv.TraceOptions(dtype=dtype)
    half = tiny.pipeline().video(tiny.picture(), MOTION, trace=options, **OPTIONS)
    assert 2 * half.trace.nbytes == 4 * 7 * half.state.z.nbytes
    for name in ("z_t", "out_hat", "out_edit", "x0"):
        a, b = half.trace[2][name], whole.trace[2][name]
        assert a.dtype == torch.float32 and torch.equal(half.state.z, whole.state.z)
        # guidance of 3, and x0 from an epsilon, multiply the rounding
        limit = 16 * torch.finfo(dtype).eps * float(b.abs().max())
        assert float((a - b).abs().max()) <= limit


def test_what_was_not_kept_is_said_in_one_sentence_with_how_to_keep_it(tmp_path):
    pipe = tiny.pipeline()
    run = pipe.video(tiny.picture(), MOTION, trace="out_hat", **OPTIONS)
    said = r"step 1 did not keep 'x0': make the clip with trace='x0', or with trace=True"
    run.trace.save(tmp_path / "t.safetensors")
    for trace in (run.trace, iv.Trace.load(tmp_path / "t.safetensors")):
        with pytest.raises(KeyError, match=said):
            trace[1]["x0"]
        with pytest.raises(KeyError, match="step 0 did not keep 'z_t'"):
            trace["z_t"]
        with pytest.raises(KeyError, match="did not keep 'eps_uncond'"):
            trace[3]["eps_uncond"]
        with pytest.raises(KeyError, match="did not keep"):
            iv.trace_grid(trace)
    with pytest.raises(KeyError, match="did not keep"):
        iv.TraceExplorer(run)
    one = pipe.video(tiny.picture(), MOTION, lam=1.0, progress=False)
    with pytest.raises(KeyError, match="holds no 'eps_edit' .not evaluated, weight 0."):
        one.trace[1]["eps_edit"]


@pytest.mark.parametrize("batch", [True, False])
def test_a_step_has_all_there_is_whatever_is_kept(batch):
    pipe, last = tiny.pipeline(), None
    options = {"edited": tiny.picture(1), "trace": False, "batch": batch}
    for step in pipe.denoise(tiny.picture(), MOTION, **options):
        assert step["x0"].shape == (4, 4, 8, 8) and step.preview().size == (16, 16)
        last = step["x0"]
        if step.index == 1:
            break
    run = pipe.last_run
    assert (run.frames == pipe.decode(last)).all()
    with pytest.raises(KeyError, match="step 1 did not keep 'eps_cond'"):
        run.trace[1]["eps_cond"]
    whole = pipe.video(tiny.picture(), MOTION, edited=tiny.picture(1), progress=False)
    assert "eps_cond" in whole.trace[0]  # the chain is computed anew, with all of it


def test_kept_references_are_bounded_by_what_they_take(monkeypatch):
    pipe = tiny.pipeline()
    monkeypatch.setattr(pipeline, "KEPT_REFERENCES", 5)
    for seed in range(3):
        run = pipe.video(tiny.picture(seed), MOTION, progress=False)
    assert len(pipe._references) == 3
    monkeypatch.setattr(pipeline, "KEPT_BYTES", int(2.5 * run.state.reference.nbytes))
    pipe.video(tiny.picture(3), MOTION, progress=False)
    assert len(pipe._references) == 2
    monkeypatch.setattr(pipeline, "KEPT_BYTES", 1)
    pipe.video(tiny.picture(4), MOTION, progress=False)
    assert len(pipe._references) == 1


def test_at_wans_size_a_run_keeps_less_than_half_of_what_it_did():
    shape = (21, 16, 90, 160)  # 81 frames of 1280 x 720, 50 steps with guidance
    latent = 4 * 50 * torch.Size(shape).numel()
    before = 9 * latent + 4 * latent  # the trace on the CPU, the chain on the GPU
    kept = memory.kept_bytes(shape, 50, True, iv.TraceOptions())
    assert kept == {"cpu": 7 * latent} and kept["cpu"] < 0.54 * before
    assert memory.kept_bytes(shape, 50, True, iv.TraceOptions(False)) == {"cpu": 2 * latent}
    half = SimpleNamespace(names=("x0",), wanted=["x0"], whole=False)
    half.device, half.dtype = torch.device("cuda"), torch.float16
    assert memory.kept_bytes(shape, 50, True, half) == {"cpu": 2 * latent, "cuda": latent // 2}


def test_a_run_that_keeps_more_than_is_free_is_warned_of(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10_000)
    pipe = tiny.pipeline()
    with pytest.warns(UserWarning, match="takes about .* GB, and .* free: trace=False keeps less"):
        pipe.video(tiny.picture(), MOTION, progress=False)
    memory.Plan(0, 0.0, None, "float32").apply(pipe.model)


@pytest.mark.parametrize(
    "trace, error, said",
    [
        ("epshat", ValueError, "trace has 'epshat' in its names, which no step holds; there are: "),
        (["x0", 3], ValueError, "trace has 3 in its names"),
        (None, TypeError, "trace, or names, must be"),
        (7, TypeError, "trace, or names, must be"),
        ({"device": "cpu"}, TypeError, "trace, or names, must be"),
    ],
)
def test_a_trace_of_no_such_kind_is_refused_before_any_work(trace, error, said, monkeypatch):
    pipe = tiny.pipeline()
    monkeypatch.setattr(pipe.model, "encode", None)
    with pytest.raises(error, match=said):
        pipe.video(tiny.picture(), MOTION, trace=trace)
    with pytest.raises(ValueError, match="device of a trace must be one of this machine, got 'gpu"):
        iv.TraceOptions(device="gpu")
    with pytest.raises(ValueError, match="trace has a function as its names that fails"):
        iv.TraceOptions(lambda name: 1 / 0)
    with pytest.raises(ValueError, match="dtype of a trace must be float32, float16 or bfloat16"):
        iv.TraceOptions(dtype="half")


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
    for thing in (run, run.trace, run.trace[0], tiny.pipeline(), run.model):
        assert "\n" not in repr(thing) and len(repr(thing)) < 400
    assert repr(run).startswith("Run(4 frames, 4 of 4 steps, ")
    step = next(tiny.pipeline().denoise(tiny.picture(), MOTION))
    assert "\n" not in repr(step)
