"""Chapter 11: what its checks say of wrong answers, and the small models that it runs on."""

import json
from pathlib import Path

import pytest
import torch
from test_exercises import ROOT, defined, refused

import ivkit as iv
from ivkit.course import checks
from ivkit.models import small
from ivkit.models.table import TABLE


@pytest.mark.parametrize(
    "names, words",
    [
        ("sdxl", "not in the table"),
        (["animatediff"], "does not move a still"),
        (["pia", "svd-xt"], "needs about 20 GB"),
        ("pia", "more of the table would too"),
    ],
)
def test_fitting_models_says_what_is_wrong(names, words, capsys):
    refused(capsys, lambda names: checks.fitting_models(names, 16), names, words)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda wanted, stride: wanted, "multiple of 4 frames and one more"),
        (lambda wanted, stride: (wanted // stride + 1) * stride + 1, "more than wanted"),
        (lambda wanted, stride: 1, "is longer"),
        (lambda wanted: wanted, "TypeError"),
    ],
)
def test_longest_clip_says_what_is_wrong(answer, words, capsys):
    refused(capsys, checks.longest_clip, answer, words)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda z, given, sigma: (given - z) / sigma, "other way round"),
        (lambda z, given, sigma: z - given, "over σ"),
        (lambda z, given, sigma: (z - (1 - sigma) * given) / sigma, "that is ε"),
        (lambda z, given, sigma: z, "is not given"),
        (lambda z, given, sigma: z[0], "shape"),
    ],
)
def test_straight_velocity_says_what_is_wrong(answer, words, capsys):
    refused(capsys, checks.straight_velocity, answer, words)


def test_the_straight_velocity_is_the_replaced_first_frames():
    from ivkit.models.wan import to_given

    z, out, given = torch.randn(3, 1, 3, 4, 6, 6)
    scheduler = small.parts("wan-2.2-ti2v")["scheduler"]
    mine = to_given(z, out, given[:, :1], torch.tensor(600.0), scheduler)
    torch.testing.assert_close(mine[:, :1], (z[:, :1] - given[:, :1]) / 0.6)
    assert torch.equal(mine[:, 1:], out[:, 1:])


def test_figures_are_those_of_the_file_or_none(tmp_path):
    chapter = defined("11_real_models", json=json, Path=Path)
    assert chapter["measured"](tmp_path / "gpu.json") == {}
    section = {"stock_seconds": 4.0, "stock_peak_gb": 7.0, "exact_of_stock": 1.25}
    (tmp_path / "gpu.json").write_text(json.dumps({"pia": section}))
    chapter["WAYS"] = {"stock": "stock pipeline", "tuned": "blend, tuned"}
    lines = list(chapter["figures"](chapter["measured"](tmp_path / "gpu.json")["pia"]))
    assert len(lines) == 2 and "4.00 s" in lines[0] and "1.25 of one stock clip" in lines[1]


# ------------------------------------------------------------------------------- small models


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.ids])
def test_every_checkpoint_has_a_small_model_of_its_layout(name, capsys):
    before = torch.random.get_rng_state()
    pipe = iv.load(name, small=True)
    assert "small networks with random weights" in capsys.readouterr().out
    assert torch.equal(torch.random.get_rng_state(), before)
    assert pipe.model.dtype == torch.float32 or pipe.device.type != "cpu"
    if "video" not in pipe.model.defaults:
        assert pipe.image("a boat", num_inference_steps=1).size == pipe.size
        return
    motion = "the boat moves right" if TABLE[name].text else ""
    picture = iv.Instructions.load(ROOT / "../media/paint_sun.json").image.picture
    how = {"num_inference_steps": 2, "progress": False}
    run = pipe.video(picture.resize(pipe.size), motion, **how)
    assert run.frames.shape == (pipe.model.num_frames, *pipe.size[::-1], 3)
    assert pipe.model.per_frame == (name not in ("animatediff", "ltx", "i2vgenxl", "wan-2.2-ti2v"))
    again = iv.load(name, small=True).video(picture.resize(pipe.size), motion, **how)
    assert torch.equal(again.state.z, run.state.z)


def test_small_is_for_models_of_the_table():
    with pytest.raises(ValueError, match="small is for models of the table, not for 'some/one'"):
        iv.load("some/one", small=True)
    with pytest.raises(TypeError, match="'base' is no option of a small pia"):
        iv.load("pia", small=True, base="x")
    pipe = iv.load("svd", pictures="sd", small=True)
    assert pipe.image("a boat", num_inference_steps=1).size == pipe.size
    assert iv.load("storybook", small=True).name == "storybook"
