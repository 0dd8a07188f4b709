"""The GPU benchmark, rehearsed on a CPU with small models of the same classes."""

import json

import pytest
import torch

from ivkit.bench import __main__ as bench
from ivkit.bench import gpu


def rehearse(tmp_path, *names, steps=2):
    out = tmp_path / "figures" / "gpu.json"
    bench.main(["gpu", "--tiny", "--no-compile", "--steps", str(steps), "--out", str(out),
                "--only", *names])  # fmt: skip
    return json.loads(out.read_text())


def test_sections_are_printed_and_saved(tmp_path, capsys):
    found = rehearse(tmp_path, "wan", "coding")
    assert {"device", "dtype", "versions", "goals", "wan", "coding"} <= set(found)
    wan, coding = found["wan"], found["coding"]
    assert "error" not in wan and "error" not in coding
    for name in ("stock", "exact", "second_edit", "one_by_one"):
        assert wan[f"{name}_seconds"] > 0
    assert wan["exact_of_stock"] == pytest.approx(wan["exact_seconds"] / wan["stock_seconds"])
    assert "%" in wan["profile"] and coding["decode_2_at_once_seconds"] > 0
    printed = capsys.readouterr().out
    assert "wan\n" in printed and "exact_of_stock" in printed


def test_one_sections_failure_costs_the_others_nothing(tmp_path, monkeypatch):
    def broken(args):
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(gpu.SECTIONS, "svd", broken)
    found = rehearse(tmp_path, "svd", "coding")
    assert found["svd"]["error"] == "RuntimeError: no such kernel"
    assert found["coding"]["encode_seconds"] > 0


def test_over_budget_sections_are_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(gpu.SECTIONS, "svd", lambda args: {})
    out = tmp_path / "gpu.json"
    bench.main(["gpu", "--tiny", "--budget", "-1", "--out", str(out), "--only", "svd"])
    assert "left out, the time is over (run it with --only svd)" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    with pytest.raises(SystemExit, match="no CUDA device is here; --tiny rehearses"):
        bench.main(["gpu", "--out", str(tmp_path / "gpu.json")])


@pytest.mark.slow
def test_every_section_runs(tmp_path):
    found = rehearse(tmp_path, "pia", "brush", "svd")
    assert not [name for name in ("pia", "brush", "svd") if "error" in found[name]]
    pia = found["pia"]
    assert pia["naive_blend_of_stock"] > 1 and pia["stock_teraflop"] > 0
    assert found["brush"]["stroke_ms"] > 0
