"""A label says Eq. 4 only where the numbers do: each place that prints or draws it, by hand."""

import re
from pathlib import Path

import nbformat
import pytest
import tiny
import torch

import ivkit as iv
from ivkit import view
from ivkit.blend import blend
from ivkit.instructions import READINGS, UNITS
from ivkit.trace import TERMS, convert
from ivkit.widgets.explorer import TraceExplorer

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LAM, STEPS = 0.3, 5


@pytest.fixture(scope="module")
def runs():
    """By (kind, reading, unit): a painted and dragged clip of five steps."""
    drag = iv.Drag(path=[(5, 7), (10, 7)], mask=tiny.region())
    edits = {"edited": tiny.picture(1), "drags": [drag], "lam": LAM}
    found = {}
    for kind in ("pia", "storybook"):
        pipe = tiny.pipeline(kind)
        for reading in READINGS:
            for unit in UNITS:
                found[kind, reading, unit] = pipe.video(
                    tiny.picture(),
                    "the boat moves right",
                    reading=reading,
                    blend_in=unit,
                    num_inference_steps=STEPS,
                    progress=False,
                    **edits,
                )
    return found


def off(record, terms) -> float:
    """How far x_hat is from lam x + (1 - lam) x_edit, against its size; NaN where undefined."""
    x, x_edit, x_hat = (record[name] for name in terms)
    return float((record.lam * x + (1 - record.lam) * x_edit - x_hat).norm() / x_hat.norm())


def holds(record, terms) -> bool:
    return off(record, terms) < 1e-4


def test_a_record_names_terms_of_which_eq_4_holds(runs):
    """And of no others in `paired`, where there are two latents, once these differ."""
    for (kind, reading, unit), run in runs.items():
        for record in run.trace:
            assert holds(record, record.terms), (kind, reading, unit, record)
            if unit != "native" and record.alpha_bar > 0:
                assert record.blended == unit
        for name, terms in TERMS.items():
            if name != run.trace[3].blended:
                assert holds(run.trace[3], terms) == (reading == "shared"), (kind, unit, name)


def test_the_explorers_titles(runs):
    """Under "x̂ = λ x + (1 - λ) x'" it is so, what-if included; under "derived" it need not be."""
    for run in runs.values():
        explorer = TraceExplorer(run)
        for record in run.trace:
            explorer.step.value = record.index
            for _, unit in explorer.unit.options:
                explorer.unit.value = unit
                title, shown = explorer.titles["x_hat"].value, unit or record.blended
                assert ("= λ" in title) == (shown == record.blended) != ("derived" in title)
                if "= λ" in title:
                    assert holds(record, TERMS[shown])
                    for lam in (0.0, 0.6, 1.0):
                        again = explorer.recomputed(lam)
                        again.lam = torch.full_like(record.lam, lam)
                        assert holds(again, TERMS[shown])
        assert explorer.errors == []


def test_the_explorers_tiles_show_what_their_titles_say(runs):
    run = runs["pia", "paired", "x0"]
    explorer, record = TraceExplorer(run), run.trace[2]
    for unit, terms in TERMS.items():
        explorer.unit.value = unit
        for tile, name in zip(("x", "x_edit", "x_hat"), terms, strict=True):
            f = explorer.frame.value
            assert explorer.tiles[tile].value == explorer._latent(record, name, f)
    assert explorer.tiles["x_hat"].value != explorer.tiles["x"].value


def test_the_rows_of_a_grid(runs, monkeypatch):
    drawn = []
    monkeypatch.setattr(view, "_drawn", drawn.append)
    hats = ("v_hat", "eps_hat")
    for run in runs.values():
        iv.trace_grid(run.trace[1:], hats)
        for row, name in zip(drawn.pop().axes[:: STEPS - 1], hats, strict=True):
            marked = "derived" in [text.get_text() for text in row.texts]
            for record in run.trace[1:]:
                terms = next(terms for terms in TERMS.values() if name in terms)
                assert marked == (name not in record.terms)
                assert marked or holds(record, terms)


def test_each_step_of_the_explorer_has_its_own_words():
    steps = tiny.pipeline("storybook").denoise(
        tiny.picture(), "the boat moves right", lam=0.25, edited=tiny.picture(1)
    )
    for step in steps:
        if step.index == 1:
            before = {name: step.record[name].clone() for name in ("lam", "out_hat")}
            step.change(lam=0.75, motion="the sun moves left")
    explorer = TraceExplorer(step.run)
    for i in range(4):
        explorer.step.value = i
        text = explorer.text.value
        assert ("the boat moves right" in text, "0.25" in text) == (i < 2, i < 2)
        assert ("the sun moves left" in text, "0.75" in text) == (i >= 2, i >= 2)
    for name, value in before.items():
        assert torch.equal(step.run.trace[1][name], value)


# ---- what the chapters print ----


def cells(name):
    book = nbformat.read(next(NOTEBOOKS.glob(f"{name}_*.ipynb")), 4)
    return [c.source for c in book.cells if "identity" in c.metadata.get("tags", [])]


def agrees(capsys) -> bool:
    return "approximate: True" in capsys.readouterr().out


def test_in_the_quickstart(runs, capsys):
    (cell,) = cells("00")
    for run in runs.values():
        for step in run.trace:
            exec(cell, {"iv": iv, "step": step})
            assert agrees(capsys) or off(step, step.terms) < 1e-4


def test_in_the_studios_chapter(runs, capsys):
    (cell,) = cells("08")
    for run in runs.values():
        exec(cell, {"iv": iv, "run": run, "explorer": TraceExplorer(run)})
        assert agrees(capsys)


def test_in_the_chapter_on_lambda(runs, capsys):
    one_latent, formula, by_unit = cells("06")
    names = {"iv": iv, "blend": blend, "convert": convert, "LAM": LAM}
    for kind in ("pia", "storybook"):
        exec(one_latent, {**names, "run": runs[kind, "shared", "v"]})
        assert agrees(capsys)
        names["clip"] = lambda lam, blend_in, kind=kind: runs[kind, "paired", blend_in]
        exec(formula, names)
        assert agrees(capsys)
        exec(by_unit, names)
        said = capsys.readouterr().out
        found = re.findall(r"blended in (\w+) +\| Eq. 4 in (\w+) +is off by (\S+)", said)
        assert len(found) == 9
        for unit, name, by in found:
            assert (float(by) < 1e-3) == (unit == name), (kind, unit, name)
