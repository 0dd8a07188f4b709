"""The student version holds no answers, marking reads what checks say, timing runs a notebook."""

import csv
import json
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from test_notebooks import NOTEBOOKS, execute

from ivkit.__main__ import main
from ivkit.course import classroom as course
from ivkit.course.classroom import CourseError, mark, printed, student
from tests.bench import __main__ as bench

RIGHT = "lambda eps, eps_edit, lam: lam * eps + (1 - lam) * eps_edit"

#: how many exercises the first notebook has
QUICKSTART = len(set(re.findall(r"checks\.(\w+)\(", NOTEBOOKS[0].read_text(encoding="utf-8"))))


def write(path, *cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


def exercise(source, tag="exercise"):
    return new_code_cell("from ivkit import checks\n" + source, metadata={"tags": [tag]})


@pytest.fixture
def lesson(tmp_path):
    """A course of one notebook, run once, with its answer beside the stub; a media folder."""
    ran = exercise("my_blend = None\nchecks.blend(my_blend);")
    ran.outputs, ran.execution_count = [nbformat.v4.new_output("stream", text="old")], 3
    write(
        tmp_path / "notebooks" / "01_lesson.ipynb",
        new_markdown_cell("Go on. Solutions are in `solutions/01_lesson.ipynb`."),
        ran,
        exercise(f"checks.blend({RIGHT});", "solution"),
    )
    write(tmp_path / "notebooks" / "solutions" / "01_lesson.ipynb")
    (tmp_path / "notebooks" / "glossary.md").write_text("words")
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "sun.json").write_text("{}")
    return tmp_path


def test_the_student_version_has_stubs_and_no_answers(lesson):
    folder = lesson / "new" / "class"
    written = student(folder, lesson / "notebooks", lesson / "media")
    assert written == [folder / "notebooks" / "01_lesson.ipynb"]
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"notebooks/01_lesson.ipynb", "notebooks/glossary.md", "media/sun.json"}
    text, stub = nbformat.read(written[0], 4).cells
    assert text.source == "Go on."
    assert "my_blend = None" in stub.source and stub.outputs == [] and stub.execution_count is None


def test_its_stubs_say_what_is_missing_and_do_not_stop_the_notebook(lesson):
    (path,) = student(lesson / "class", lesson / "notebooks", lesson / "media")
    book = nbformat.read(path, 4)
    book.cells.append(new_code_cell("print('the end')"))
    course.execute(book, path.name, path.parent)
    assert "✗ not yet: " in printed(book.cells[1]) and printed(book.cells[-1]) == "the end\n"


def test_the_student_version_of_the_course(tmp_path):
    books = {path.name: nbformat.read(path, 4) for path in student(tmp_path / "class")}
    assert books.keys() == {path.name for path in NOTEBOOKS}
    for path in NOTEBOOKS:
        text = (tmp_path / "class" / "notebooks" / path.name).read_text()
        assert "solutions/" not in text and '"solution"' not in text, path.name
        solutions = path.parent / "solutions" / path.name
        if solutions.exists():
            answers = [
                c.source
                for c in nbformat.read(solutions, 4).cells
                if "solution" in c.metadata.get("tags", [])
            ]
            sources = [cell.source for cell in books[path.name].cells]
            assert answers and not set(answers) & set(sources)
    assert (tmp_path / "class" / "notebooks" / "glossary.md").exists()
    assert (tmp_path / "class" / "media" / "paint_sun.json").exists()
    assert not (tmp_path / "class" / "notebooks" / "solutions").exists()


def test_where_the_address_is_set_no_student_is_asked_for_it(tmp_path, monkeypatch):
    project = tmp_path / "pyproject.toml"
    for address, known in (
        ("https://example.invalid/x", None),
        ("https://localhost/c", "https://localhost/c"),
    ):
        project.write_text(f'[project.urls]\nRepository = "{address}"\n')
        assert course.repository(project) == known
    monkeypatch.setattr(course, "repository", lambda: "https://localhost/c")
    for path in student(tmp_path / "class"):
        head, first = nbformat.read(path, 4).cells[:2]
        assert "next cell fetches ivkit and installs what Colab lacks" in head.source, path.name
        assert (
            'clone -q {"https://localhost/c"} ivkit\n' in first.source
            and "input(" not in first.source
        )


@pytest.mark.slow
def test_a_students_notebook_runs_to_its_end_in_the_folder_it_was_written_to(tmp_path):
    student(tmp_path / "class")
    book = execute(tmp_path / "class" / "notebooks" / "03_paint.ipynb")
    said = [printed(cell) for cell in book.cells if cell.cell_type == "code"]
    assert [text.startswith("✗ not yet: ") for text in said[-3:]] == [True] * 3


def test_a_folder_that_holds_something_is_left_alone(lesson, capsys):
    assert main(["student", str(lesson)]) == 2
    assert "FOLDER must be new or empty" in capsys.readouterr().err
    with pytest.raises(ValueError, match="new or empty"):
        student(lesson / "notebooks" / "glossary.md")
    assert (lesson / "notebooks" / "glossary.md").read_text() == "words"


def test_without_a_checkout_there_is_nothing_to_copy(lesson):
    with pytest.raises(CourseError, match="checkout"):
        student(lesson / "class", lesson / "none", lesson / "media")
    with pytest.raises(CourseError, match="none: run this from a checkout"):
        student(lesson / "class", lesson / "notebooks", lesson / "none")
    assert not (lesson / "class").exists()


def test_the_command_writes_the_student_version(tmp_path, capsys):
    assert main(["student", str(tmp_path / "class")]) == 0
    assert f"{tmp_path / 'class' / 'notebooks' / NOTEBOOKS[0].name}\n" in capsys.readouterr().out


def test_marks_are_what_the_checks_say_now(lesson, monkeypatch):
    monkeypatch.setattr(
        course,
        "NOTEBOOKS",
        write(
            lesson / "real" / "00_x.ipynb",
            *[exercise(f"checks.{name}(None)") for name in ("blend", "cloud", "mute", "ring")],
        ).parent,
    )
    path = write(
        lesson / "handed in.ipynb",
        new_code_cell("import os\nprint(os.getcwd())"),
        new_code_cell("1 / 0"),
        exercise(f"checks.blend({RIGHT});"),
        exercise("checks.cloud(None, None);"),
        exercise("checks.mute(;"),
    )
    blend, share, mute, ring = mark(path)
    assert (blend.check, blend.right, blend.said) == ("blend", True, "✓ right")
    assert not share.right and share.said.startswith("✗ not yet: nothing is painted")
    assert not mute.right and mute.said.startswith("SyntaxError: ")
    assert not ring.right and "gone" in ring.said
    assert {one.notebook for one in (blend, share, mute, ring)} == {str(path)}


def test_outputs_that_are_handed_in_count_for_nothing(lesson):
    cell = exercise("checks.blend(None);")
    cell.outputs = [nbformat.v4.new_output("stream", text="✓ right\n")]
    marks = {one.check: one for one in mark(write(lesson / "late.ipynb", cell))}
    assert not marks["blend"].right and "not yet" in marks["blend"].said
    assert len(marks) == QUICKSTART  # its other exercises are gone


def test_a_notebook_whose_kernel_dies_is_marked_so(lesson):
    path = write(
        lesson / "dead.ipynb",
        new_code_cell("import os\nos._exit(1)"),
        exercise("checks.blend(None);"),
    )
    (only,) = mark(path)
    assert not only.right and "died" in only.said


@pytest.mark.parametrize(
    "content, words",
    [(None, "there is no notebook"), ("{", "is not a notebook"), ("[]", "is not a notebook")],
)
def test_what_is_no_notebook_is_refused(tmp_path, content, words):
    path = tmp_path / "x.ipynb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CourseError, match=words):
        mark(path)


def test_a_notebook_without_checks_is_refused(tmp_path):
    with pytest.raises(CourseError, match="calls none of the course's checks"):
        mark(write(tmp_path / "x.ipynb", new_code_cell("checks.nonsense(1)")))


def test_the_command_marks_a_folder_and_writes_a_csv(lesson, capsys):
    handed = lesson / "handed"
    write(handed / "anna" / "00.ipynb", exercise(f"checks.blend({RIGHT});"))
    write(handed / "anna" / ".ipynb_checkpoints" / "00.ipynb", exercise("checks.blend(None);"))
    assert main(["mark", str(handed), "--csv", str(lesson / "marks.csv")]) == 0
    assert f"00.ipynb: 1 of {QUICKSTART} right\n" in capsys.readouterr().out
    rows = list(csv.DictReader((lesson / "marks.csv").open(encoding="utf-8")))
    assert [row["check"] for row in rows if row["right"] == "True"] == ["blend"]
    assert len(rows) == QUICKSTART


def test_the_command_says_what_it_cannot_mark(tmp_path, capsys):
    assert main(["mark", str(tmp_path)]) == 2
    assert "no notebook in" in capsys.readouterr().err
    path = write(tmp_path / "x.ipynb", exercise("checks.blend(None);"))
    with pytest.raises(SystemExit) as end:
        main(["mark", str(path), "--csv", str(tmp_path / "none" / "x.csv")])
    assert end.value.code == 2 and "--csv: there is no folder" in capsys.readouterr().err


# ---- seconds and memory --------------------------------------------------------------------------

THREADS = "import os\nassert os.environ['OMP_NUM_THREADS'] == '1'"


def test_a_notebook_is_timed_in_a_kernel_of_its_own(tmp_path, capsys):
    path = write(
        tmp_path / "tiny.ipynb",
        new_code_cell(THREADS),
        new_code_cell("held = bytearray(200_000_000)"),
    )
    before = path.read_text()
    bench.main(["notebooks", str(path), "--threads", "1", "--json", str(tmp_path / "n.json")])
    figures = json.loads((tmp_path / "n.json").read_text())
    row = figures["notebooks"]["tiny"]
    assert 0 < row["seconds"] < 60 and row["peak_memory_mb"] > 200
    assert figures["threads"] == 1 and "torch" in figures["versions"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == f"| `tiny` | {row['seconds']:.0f} | {row['peak_memory_mb']:.0f} |"
    assert path.read_text() == before


def test_a_failing_notebook_is_named_and_the_others_are_timed(tmp_path, capsys):
    sunk = write(tmp_path / "sunk.ipynb", new_code_cell("raise ValueError('the boat has sunk')"))
    path = write(tmp_path / "tiny.ipynb", new_code_cell("1"))
    with pytest.raises(SystemExit, match="sunk.ipynb failed: ValueError: the boat has sunk"):
        bench.main(["notebooks", str(sunk), str(path)])
    assert "| `tiny` |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, words",
    [(["--threads", "0"], "at least 1, not 0"), (["--json", "none/x.json"], "there is no folder")],
)
def test_what_cannot_be_timed_is_said_first(arguments, words, capsys):
    with pytest.raises(SystemExit):
        bench.main(["notebooks", *arguments])
    assert words in capsys.readouterr().err


# ---- what the README tells teachers --------------------------------------------------------------

README = (course.NOTEBOOKS.parent / "README.md").read_text()
ROW = re.compile(r"^\| (\d\d_\w+) \| (\d+) \| (\d+) \| ([\d, ]*) ?\|$", re.MULTILINE)


def minutes(path):
    """(of reading, of exercises), as the notebook itself says."""
    text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
    asked = re.findall(r"\*\((\d+) minutes, (?:easy|medium|hard)\)\*", text)
    return int(re.search(r"(\d+) minutes of reading", text)[1]), sum(map(int, asked))


def test_the_readme_gives_the_minutes_that_the_notebooks_give():
    rows = {name: (int(read), int(asked)) for name, read, asked, _ in ROW.findall(README)}
    assert rows == {path.stem: minutes(path) for path in NOTEBOOKS}


def test_the_readme_says_which_chapter_a_chapter_builds_on():
    for name, _, _, after in ROW.findall(README):
        text = "\n".join(
            c.source for c in nbformat.read(course.NOTEBOOKS / f"{name}.ipynb", 4).cells
        )
        need = re.search(r"\*\*You need\*\* (.*)", text)[1]
        chapters = re.match(r"chapter (\d+)", need)
        assert after.strip() == (f"{int(chapters[1]):02d}" if chapters else ""), name


def test_the_commands_that_the_readme_tells_teachers_are_there():
    for command in re.findall(r"^\.venv/bin/python -m ivkit (.+)$", README, re.MULTILINE):
        with pytest.raises(SystemExit) as end:
            main([*command.split()[:1], "--help"])
        assert end.value.code == 0
