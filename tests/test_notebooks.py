"""Every notebook runs from top to bottom, and what it says on the way is right."""

from pathlib import Path

import nbformat
import pytest

from ivkit.course import classroom as course

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
QUICKSTART = NOTEBOOKS[0]


def execute(path):
    book = course.read(path)
    course.execute(book, path.name, path.parent)
    return book


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_top_to_bottom(path):
    book = execute(path)
    lines = "\n".join(course.printed(cell) for cell in book.cells).splitlines()
    # Colab's torchao misses the triton that a torch for CPUs alone does not bring.
    said = "\n".join(line for line in lines if not line.startswith("WARNING:torchao."))
    for line in said.splitlines():
        if "| exact:" in line:
            assert "approximate: True" in line, f"what {path.stem} claims does not hold: {line}"
    assert "Traceback" not in said and "Warning" not in said, said


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def test_the_quickstart_is_a_lesson_of_ten_to_fifteen_code_cells():
    assert QUICKSTART.stem == "00_quickstart"
    exercises = [c for c in code_cells(QUICKSTART) if "exercise" in c.metadata.get("tags", [])]
    assert exercises and 10 <= len(code_cells(QUICKSTART)) - len(exercises) <= 15


def test_the_quickstart_marks_the_stages_that_the_demo_reports():
    tags = {tag for cell in code_cells(QUICKSTART) for tag in cell.metadata.get("tags", [])}
    stages = ("load", "image", "content", "trajectory", "motion")
    assert tags >= {f"stage:{name}" for name in stages}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_one_line_switches_the_model(path):
    sources = "\n".join(cell.source for cell in code_cells(path))
    loads = "iv.load(" in sources  # one chapter begins from nothing
    assert sources.count('MODEL = "storybook') == loads


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cell_does_nothing_off_colab(path, monkeypatch):
    """It installs nothing where there is no Colab: its commands lie under that one condition."""
    lines = code_cells(path)[0].source.splitlines()
    guard = next(i for i, line in enumerate(lines) if '"google.colab" in sys.modules' in line)
    commands = [i for i, line in enumerate(lines) if line.lstrip().startswith(("!", "%"))]
    assert all(i > guard and lines[i].startswith("    ") for i in commands)
    installs = [lines[i] for i in commands if "pip install" in lines[i]]
    assert all("torch" not in line and "numpy" not in line for line in installs)
