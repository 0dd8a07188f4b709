"""The GPU benchmark, rehearsed on a CPU with small models of the same classes."""

import json

import pytest
import torch

from tests.bench import __main__ as bench
from tests.bench import gpu


def rehearse(tmp_path, *names, steps=2):
    out = tmp_path / "figures" / "gpu.json"
    bench.main(
        [
            "gpu",
            "--tiny",
            "--no-compile",
            "--steps",
            str(steps),
            "--out",
            str(out),
            "--only",
            *names,
        ]
    )
    return json.loads(out.read_text())


def test_sections_are_printed_and_saved(tmp_path, capsys):
    found = rehearse(tmp_path, "wan", "coding")
    assert {"device", "dtype", "versions", "goals", "wan", "coding"} <= set(found)
    wan, coding = found["wan"], found["coding"]
    assert "error" not in wan and "error" not in coding
    assert not [k for section in (wan, coding) for k in section if k.endswith("error")]
    for name in ("stock", "one_batch", "one_batch_second_edit", "tuned"):
        assert wan[f"{name}_seconds"] > 0
    best = wan[f"{wan['best']}_seconds"]
    assert wan["exact_of_stock"] == pytest.approx(best / wan["stock_seconds"])
    assert wan["tuned_off"] < 1e-3
    assert "%" in wan["best_kernels"][0] and coding["decode_2_at_once_seconds"] > 0
    assert sum(wan["best_shares"].values()) == pytest.approx(1, abs=0.01)
    printed = capsys.readouterr().out
    assert "wan\n" in printed and "exact_of_stock" in printed


def test_one_sections_failure_costs_the_others_nothing(tmp_path, monkeypatch):
    def broken(*args):
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(gpu.SECTIONS, "svd", broken)
    monkeypatch.setattr("ivkit.warp", broken)
    found = rehearse(tmp_path, "svd", "coding")
    assert found["svd"]["error"] == "RuntimeError: no such kernel"
    assert found["coding"]["warp_error"] == "RuntimeError: no such kernel"
    assert found["coding"]["encode_seconds"] > 0 and found["coding"]["field_seconds"] > 0


def test_an_earlier_runs_other_sections_stay(tmp_path, monkeypatch):
    monkeypatch.setitem(gpu.SECTIONS, "svd", lambda b: b.note({"stock_seconds": 1.0}))
    monkeypatch.setitem(gpu.SECTIONS, "wan", lambda b: b.note({"stock_seconds": 2.0}))
    rehearse(tmp_path, "svd")
    found = rehearse(tmp_path, "wan")
    assert (found["svd"]["stock_seconds"], found["wan"]["stock_seconds"]) == (1.0, 2.0)


def test_after_the_device_is_lost_the_rest_runs_in_another_process(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(gpu.subprocess, "run", lambda call, check: calls.append(call))
    monkeypatch.setattr(gpu.Bench, "alive", lambda self: False)
    monkeypatch.setitem(gpu.SECTIONS, "svd", lambda b: None)
    rehearse(tmp_path, "svd", "wan", "coding")
    assert calls[0][3:7] == ["gpu", "--only", "wan", "coding"] and "--tiny" in calls[0]


def test_over_budget_sections_are_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(gpu.SECTIONS, "svd", lambda args: {})
    out = tmp_path / "gpu.json"
    bench.main(["gpu", "--tiny", "--seconds", "-1", "--out", str(out), "--only", "svd"])
    assert "left out, the time is over (run it with --only svd)" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    with pytest.raises(SystemExit, match="no CUDA device is here; --tiny rehearses"):
        bench.main(["gpu", "--out", str(tmp_path / "gpu.json")])


@pytest.mark.slow
def test_every_section_runs(tmp_path):
    names = ("pia", "brush", "svd", "more")
    found = rehearse(tmp_path, *names)
    assert not [k for name in names for k in found[name] if k.endswith("error")]
    pia = found["pia"]
    assert pia["naive_blend_of_stock"] > 1 and pia["stock_teraflop"] > 0
    assert pia["tuned_off"] < 1e-3 < pia["reuse_3_off"] and pia["reuse_3_of_stock"] > 0
    assert found["brush"]["stroke_ms"] > 0
