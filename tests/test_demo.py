"""The demo: executes a notebook, keeps its results, and says in one sentence what went wrong."""

import json

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from ivkit.__main__ import main
from ivkit.course.classroom import CourseError
from ivkit.course.demo import demo, stage_seconds
from ivkit.view import _mediapy

MADE = """
from types import SimpleNamespace
import numpy as np
from PIL import Image
SEED = 5
pipe = SimpleNamespace(device="cpu")
edited = Image.new("RGB", (32, 32), (9, 99, 9))
frames = np.full((4, 32, 32, 3), 77, np.uint8)
run = SimpleNamespace(frames=frames, unedited=frames)
"""


def book(tmp_path, *sources):
    cells = [new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["stage:load"]
    path = tmp_path / "lesson.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_demo_writes_what_the_notebook_made_and_how_long_it_took(tmp_path, capsys):
    lesson = book(tmp_path, 'MODEL = "storybook"', MADE)
    out = tmp_path / "new" / "demo"
    report = demo(out, model="other", notebook=lesson)
    assert json.loads((out / "report.json").read_text()) == report
    assert report["model"] == "other" and report["seed"] == 5 and report["device"] == "cpu"
    assert set(report["seconds"]) == {"load", "all"} and "torch" in report["versions"]
    assert _mediapy().read_video(out / "video.mp4").shape == (4, 32, 32, 3)
    assert (np.asarray(Image.open(out / "edited.png")) == (9, 99, 9)).all()
    assert Image.open(out / "contact_sheet.png").width > 32
    executed = nbformat.read(out / "lesson.ipynb", 4)
    assert [cell.execution_count for cell in executed.cells] == [1, 2]
    assert nbformat.read(lesson, 4).cells[0].execution_count is None
    printed = capsys.readouterr().out
    assert all(str(out / name) in printed for name in ("video.mp4", "edited.png", "report.json"))


def test_a_failing_cell_is_one_sentence_and_what_ran_is_kept(tmp_path):
    lesson = book(tmp_path, "kept = 1", "raise ValueError('the boat has sunk')")
    with pytest.raises(CourseError, match="lesson.ipynb failed: ValueError: the boat has sunk"):
        demo(tmp_path / "out", notebook=lesson)
    assert nbformat.read(tmp_path / "out" / "lesson.ipynb", 4).cells[0].execution_count == 1


def test_without_a_checkout_the_demo_says_so(tmp_path):
    with pytest.raises(CourseError, match="checkout"):
        demo(tmp_path / "out", notebook=tmp_path / "none.ipynb")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_sentence_and_fails(monkeypatch, capsys):
    def sunk(*args, **kwargs):
        raise CourseError("the boat has sunk")

    monkeypatch.setattr("ivkit.course.demo.demo", sunk)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "ivkit demo: the boat has sunk\n"


def test_seconds_are_summed_by_stage():
    def cell(tag, begun, ended):
        times = {"iopub.execute_input": begun, "shell.execute_reply": ended}
        return new_code_cell("", metadata={"tags": [tag], "execution": times})

    lesson = new_notebook(
        cells=[
            cell("stage:a", "2025-01-01T00:00:00.5Z", "2025-01-01T00:00:02.0Z"),
            cell("stage:a", "2025-01-01T00:00:03Z", "2025-01-01T00:00:04Z"),
            cell("other", "2025-01-01T00:00:04Z", "2025-01-01T00:00:05Z"),
            new_code_cell("never ran"),
        ]
    )
    assert stage_seconds(lesson) == {"a": 2.5, "all": 3.5}
