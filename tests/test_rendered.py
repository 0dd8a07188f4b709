"""The chapters' copies with outputs: those that are there agree, and outputs are made small."""

import io
from base64 import b64encode

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from nbformat.v4 import new_output as new
from PIL import Image

import ivkit as iv
from ivkit.course import classroom as course
from ivkit.support.commands import Failed
from tests.bench import __main__ as bench
from tests.bench import rendered


def cells(book):
    return [(cell.cell_type, cell.id, cell.source) for cell in book.cells]


def test_the_copies_have_the_cells_of_their_chapters_and_are_small():
    total = 0
    for path in rendered.RENDERED.glob("*.ipynb"):
        copy = nbformat.read(path, 4)
        nbformat.validate(copy)
        source = nbformat.read(course.NOTEBOOKS / path.name, 4)
        assert cells(copy) == cells(source), f"run: make rendered CHAPTERS={path.name[:2]}"
        assert any(cell.outputs for cell in rendered.codes(copy)), path.name
        assert path.stat().st_size <= rendered.LIMIT
        assert (rendered.FACES / f"{path.name[:2]}.jpg").stat().st_size <= rendered.FACE
        total += path.stat().st_size
    assert total <= rendered.TOTAL


def test_every_chapter_has_its_copy_and_readme_shows_it():
    names = sorted(path.stem for path in course.NOTEBOOKS.glob("*.ipynb"))
    assert sorted(path.stem for path in rendered.RENDERED.glob("*.ipynb")) == names
    assert sorted(path.stem for path in rendered.FACES.glob("*.jpg")) == [n[:2] for n in names]
    readme = (rendered.ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in names if f"](media/rendered/{name}.ipynb) |" not in readme] == []


@pytest.fixture(scope="module")
def clip():
    noise = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), np.uint8)
    noise[..., 16:] = 40
    return noise


@pytest.fixture(scope="module")
def run(clip):
    """A chapter that was run: text, a warning, a widget, a picture, a clip, and a value."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((500, 1200, 3), 90, np.uint8)).save(buffer, "PNG")
    png = b64encode(buffer.getvalue()).decode()
    video = iv.show({"left": clip, "right": clip}, return_html=True)
    outputs = [
        [new("stream", name="stdout", text=f"{rendered.ROOT}/media\n" + "x" * 9000)],
        [new("stream", name="stderr", text="a warning")],
        [new("display_data", {rendered.WIDGET: {"model_id": "1"}, "text/plain": "a canvas"})],
        [new("execute_result", {"image/png": png, "text/plain": "<PIL>"}, execution_count=9)],
        [new("display_data", {"text/html": video, "text/plain": "<HTML>"})],
        [new("execute_result", {"text/plain": "(16, 4)"}, execution_count=11)],
    ]
    return new_notebook(
        cells=[new_code_cell(f"cell {i}", outputs=o, id=f"c{i}") for i, o in enumerate(outputs)]
    )


@pytest.fixture
def source(run):
    return new_notebook(cells=[new_code_cell(cell.source, id=cell.id) for cell in run.cells])


def outputs_of(text):
    return [cell.outputs for cell in nbformat.reads(text, 4).cells]


def opened(data):
    return Image.open(io.BytesIO(rendered.b64decode(data)))


def test_outputs_are_made_small(source, run):
    text = rendered.fitted(source, run)
    assert cells(nbformat.reads(text, 4)) == cells(source) and len(text) < 200_000
    said, warned, widget, picture, moving, value = outputs_of(text)
    assert said[0].text.startswith("media\nxxx") and said[0].text.endswith("(cut here)\n")
    assert len(said[0].text) < 3100 and warned == [] and widget == []
    assert opened(picture[0].data["image/jpeg"]).size == (640, 266)
    gif = opened(moving[0].data["image/png"])
    assert gif.format == "GIF" and 2 < gif.n_frames <= 12 and gif.width > 2 * 64
    assert value[0].data["text/plain"] == "(16, 4)" and value[0].execution_count == 6
    assert rendered.fitted(source, run) == text


def test_a_clip_that_may_not_move_is_a_row_of_frames(source, run, monkeypatch):
    monkeypatch.setattr(rendered, "LEVELS", ((9_000, 0, 0),))
    *_, moving, _ = outputs_of(rendered.fitted(source, run))
    strips = opened(moving[0].data["image/jpeg"])
    assert strips.format == "JPEG" and strips.width > 1.5 * strips.height


def test_the_picture_of_a_chapter_is_chosen_or_its_clip(run):
    first, chosen = rendered.face(run, None), rendered.face(run, "c3")
    assert first != chosen and max(len(first), len(chosen)) <= rendered.FACE
    assert Image.open(io.BytesIO(chosen)).size == (300, 125)
    with pytest.raises(Failed, match="'c0', which CHOSEN names, shows no picture"):
        rendered.face(run, "c0")


def test_the_cells_that_are_chosen_are_there():
    for name, chosen in rendered.CHOSEN.items():
        book = nbformat.read(course.NOTEBOOKS / f"{name}.ipynb", 4)
        assert chosen in [cell.id for cell in rendered.codes(book)], name


def test_a_run_of_another_version_and_a_copy_too_large_are_refused(source, run, monkeypatch):
    monkeypatch.setattr(rendered, "LIMIT", 1000)
    with pytest.raises(Failed, match="and 1000 are allowed"):
        rendered.write("00_quickstart", source, run)
    source.cells[0].source += "\n# changed"
    with pytest.raises(Failed, match="run it again"):
        rendered.fitted(source, run)


def test_the_readme_gets_the_picture_as_a_link_again_and_again():
    readme = "| [05_drag](notebooks/05_drag.ipynb) | fields | |\n| 05_drag | 40 | 59 | 04 |\n"
    once = rendered.linked(readme, "05_drag")
    assert "(media/chapters/05.jpg)](media/rendered/05_drag.ipynb) |\n| 05_drag | 40" in once
    assert rendered.linked(once, "05_drag") == once


def test_a_chapter_that_is_not_there_is_named():
    with pytest.raises(SystemExit, match="there is no chapter '77'"):
        bench.main(["rendered", "77"])
