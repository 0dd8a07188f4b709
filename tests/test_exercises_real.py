"""Chapter 11: the figures that it reads, and the small models that it runs on."""

import json
from pathlib import Path

import pytest
import torch
from test_exercises import ROOT, defined

import ivkit as iv
from ivkit.models import small
from ivkit.models.table import TABLE


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
