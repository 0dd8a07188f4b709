"""Every exercise of the chapters: its stub is told what is missing, its solution is right."""

import builtins
import contextlib
import io
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import tiny
import torch
from test_notebooks import execute

import ivkit
from ivkit.course.classroom import printed

ROOT = Path(__file__).parents[1] / "notebooks"
CHAPTERS = sorted(
    path for path in ROOT.glob("*.ipynb") if (ROOT / "solutions" / path.name).exists()
)


def cells(path, tag=None):
    """Sources of a notebook's code cells, or of those with a tag."""
    found = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    return [c.source for c in found if tag is None or tag in c.metadata.get("tags", [])]


def run(source, names) -> str:
    """Execute a cell and return what it printed; magics are Colab's alone and are left out."""
    lines = [re.sub(r"^(\s+)[!%].*", r"\1pass", line) for line in source.splitlines()]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec("\n".join(lines), names)
    return printed.getvalue()


@pytest.fixture
def names(monkeypatch):
    """An empty notebook, beside the solutions, in which `iv.load` gives the tiny model."""
    monkeypatch.chdir(ROOT / "solutions")
    monkeypatch.setattr(ivkit, "load", lambda *args, **options: tiny.pipeline("storybook"))
    nothing_tried = SimpleNamespace(session=SimpleNamespace(takes=()))  # for chapter 8's stubs
    return {"__builtins__": builtins, "studio": nothing_tried}


def prepared(path, names):
    """`names` with all that stands before the first solution: imports, the model, the data."""
    for source in cells(ROOT / "solutions" / path.name):
        if source in cells(ROOT / "solutions" / path.name, "solution"):
            break
        run(source, names)
    return names


def called(source) -> str:
    return re.search(r"checks\.(\w+)\(", source)[1]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_each_exercise_has_a_solution_and_a_hint(path):
    exercises = cells(path, "exercise")
    solutions = cells(ROOT / "solutions" / path.name, "solution")
    assert 2 <= len(exercises) <= 6
    assert [called(source) for source in exercises] == [called(source) for source in solutions]
    text = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")
    asked = text[text.index("## Exercises") :]
    assert asked.count("<details><summary>Hint") == len(exercises)
    assert len(re.findall(r"\*\(\d+ minutes, (?:easy|medium|hard)\)\*", asked)) == len(exercises)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_stubs_are_told_what_is_missing(path, names, monkeypatch):
    names = prepared(path, names)
    monkeypatch.chdir(ROOT)
    for source in cells(path, "exercise"):
        said = run(source, names)
        assert said.startswith("✗ not yet: ") and len(said) > 25, source


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_solutions_are_right(path, names):
    names = prepared(path, names)
    for source in cells(ROOT / "solutions" / path.name, "solution"):
        assert run(source, names) == "✓ right\n", source


@pytest.mark.slow
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_solution_notebooks_run_from_top_to_bottom(path):
    book = execute(ROOT / "solutions" / path.name)
    said = "".join(printed(cell) for cell in book.cells)
    assert said.count("✓ right") == len(cells(path, "exercise")) and "✗" not in said


# ---- definitions that the chapters write out, against the libraries ------------------------------


def defined(stem, **names) -> dict:
    """What a chapter's cells with the tag `definition` define."""
    names |= {"torch": torch, "np": np, "__builtins__": builtins}
    for source in cells(ROOT / f"{stem}.ipynb", "definition"):
        run(source, names)
    return names


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_ddim_step_written_out_is_the_librarys(kind):
    from diffusers import DDIMScheduler

    chapter = defined("01_see_noise")
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    scheduler.set_timesteps(10)
    z, out = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for t in (900, 300):
        a, a_next = scheduler.alphas_cumprod[[t, t - 100]]
        eps, x0 = chapter["views"](out, z, a, kind)
        mine = chapter["ddim_step"](x0, eps, a_next)
        theirs = scheduler.step(out, t, z).prev_sample
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_zero_terminal_keeps_the_beginning_and_ends_at_zero():
    from diffusers import DDIMScheduler

    chapter = defined("01_see_noise")
    before = DDIMScheduler(beta_schedule="scaled_linear").alphas_cumprod
    after = chapter["zero_terminal"](before)
    assert after[-1] == 0 and torch.isclose(after[0], before[0]) and (after.diff() < 0).all()


def test_attention_written_out_is_the_layers_own():
    chapter = defined("02_make_a_picture")
    unet = tiny.parts()["unet"]
    layer = next(m for n, m in unet.named_modules() if n.endswith("attn2"))
    cells, words = torch.randn(2, 64, layer.to_q.in_features), torch.randn(2, 12, 16)
    with torch.no_grad():
        mine, looks = chapter["attention"](layer, cells, words)
        torch.testing.assert_close(mine, layer(cells, encoder_hidden_states=words))
    assert looks.shape == (2, layer.heads, 64, 12)


def test_guidance_written_out_is_the_models():
    chapter = defined("02_make_a_picture")
    model = tiny.model()
    found = model.predict_image(
        torch.ones(1, 4, 8, 8), torch.tensor(500), model.image_condition("a boat", "", 3.0)
    )
    torch.testing.assert_close(chapter["guide"](found.uncond, found.cond, 3.0), found.guided)


# ---- chapter 3 -------------------------------------------------------------------------------

STROKES = [
    ivkit.Stroke([(5, 9), (20, 14), (20, 14), (12, 25.5)], width=6),
    ivkit.Stroke([(40, 30), (31, 38)], width=9.5),
]


def test_strokes_and_masks_written_out_are_ivkits():
    chapter = defined("03_paint")
    picture = tiny.picture().resize((64, 48))
    alpha = 1 - np.prod([1 - chapter["coverage"](s, picture.size) for s in STROKES], axis=0)
    theirs = ivkit.rasterise(picture, STROKES)[1]
    np.testing.assert_allclose(alpha, theirs, atol=1e-6)
    for grow, cell in ((1.5, 8), (0.5, 16)):
        mine = chapter["grown"](theirs, grow * cell, cell / 2)
        np.testing.assert_allclose(mine, ivkit.edit_mask(theirs, grow, cell), atol=1e-6)


@pytest.mark.parametrize("name", ["birds", "sun", "waves", "polar_lights", "recolour"])
def test_recorded_drawings_are_what_their_command_records(name):
    from ivkit.storybook.words import WORDS
    from tests.bench import drawings

    picture, text, strokes = drawings.cases()[name]
    recorded = ivkit.Instructions.load(ROOT.parent / "media" / f"paint_{name}.json")
    assert recorded.content.text == text and set(text.split()) <= set(WORDS)
    assert recorded.content.strokes == tuple(strokes)
    difference = np.abs(np.asarray(recorded.image.picture, float) - np.asarray(picture))
    assert difference.mean() < 2  # the world may be drawn a little better by now
