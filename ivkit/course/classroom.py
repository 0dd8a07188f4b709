"""The course as files: run a notebook in a fresh kernel, write the student version, mark answers.

A notebook asks in cells that carry the tag `exercise`: a stub, and the call of its check from
`ivkit.course.checks`. Answers are cells with the tag `solution`, in notebooks of their own
(notebooks/solutions/). Checks print and never raise, so an unanswered notebook runs to its end.
"""

import csv
import os
import re
import shutil
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

from ..support.commands import Failed
from ..support.disk import new_folder, whole, whole_folder

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
MEDIA = NOTEBOOKS.parent / "media"
ASKS = {  # what the notebooks say while the repository's address is unknown: what then
    "asks for the address of the repository you found this notebook in, and installs":
        "fetches ivkit and installs",
    'input("Address of ivkit\'s repository, where you found this notebook: ")': '"{address}"',
}  # fmt: skip
TO_SOLUTIONS = re.compile(r"\s*Solutions are in `solutions/[^`]*`\.")
CALL = re.compile(r"\bchecks\.(\w+)\(")
SECONDS_A_CELL = 600


class CourseError(Failed):
    """A notebook could not be run, copied or marked; the message is one sentence."""


class NotANotebook(CourseError, ValueError):
    """The path that was given leads to no notebook of the course."""


def read(path):
    """A notebook as nbformat's node.

    Raises:
        CourseError: there is no such file, or it is not a notebook.
    """
    import nbformat

    path = Path(path)
    if not path.is_file():
        raise NotANotebook(f"there is no notebook {path}")
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # json's, nbformat's and jsonschema's, which share no base
        raise NotANotebook(f"{path} is not a notebook: {str(error).splitlines()[0]}") from error


def execute(
    book, name, folder, threads=None, keep_going=False, on_cell=None, seconds=SECONDS_A_CELL
) -> None:
    """Run all cells of a notebook in a fresh kernel; outputs and times are written into it.

    Args:
        book: nbformat's node, changed in place, also when a cell fails.
        name: what an error calls it.
        folder: where its cells run.
        threads: how many the kernel computes with; None leaves that to it.
        keep_going: a cell that fails keeps its error as an output, and the next one runs.
        on_cell: called without arguments after each cell.
        seconds: that one cell may take.

    Raises:
        CourseError: a cell failed or took too long, or the kernel died.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    client = NotebookClient(
        book,
        timeout=seconds,
        kernel_name="python3",
        allow_errors=keep_going,
        extra_arguments=["--log-level=40"],  # errors only: its warnings are for servers
        resources={"metadata": {"path": str(folder)}},
        on_cell_executed=None if on_cell is None else lambda **_: on_cell(),
    )
    limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    try:
        client.execute(env=os.environ | limits)
    except CellExecutionError as error:
        reason = f"{error.ename}: {error.evalue}"
        raise CourseError(f"a cell of {name} failed: {reason}") from error
    except CellTimeoutError as error:
        raise CourseError(f"a cell of {name} took longer than {seconds} s") from error
    except DeadKernelError as error:
        raise CourseError("the notebook's kernel died, most often of too little memory") from error


def printed(cell) -> str:
    """What a cell that was run has printed."""
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


def student(folder, notebooks=NOTEBOOKS, media=MEDIA) -> list[Path]:
    """Write the student version into a folder: stubs and no solutions.

    FOLDER/notebooks/ gets each notebook without outputs, without cells tagged `solution` and
    without the sentence that says where solutions are, and the glossary; FOLDER/media/ gets the
    recordings that the notebooks read. With ivkit installed the folder needs nothing else. Where
    the publisher has set the repository's address in pyproject.toml, the cell for Colab holds it
    and asks nobody.

    Returns:
        the notebooks that were written.

    Raises:
        CourseError: there are no notebooks.
        ValueError: the folder holds something already. OSError: it cannot be written.
    """
    import nbformat

    folder = new_folder("FOLDER", folder)
    notebooks, media = Path(notebooks), Path(media)
    books = sorted(notebooks.glob("*.ipynb"))
    if not books or not media.is_dir():
        raise NotANotebook(
            f"there is no {notebooks if media.is_dir() else media}: run this from a "
            "checkout of the repository"
        )
    address = repository()
    with whole_folder(folder) as part:
        (part / "notebooks").mkdir()
        outputs = shutil.ignore_patterns("rendered", "chapters")  # nobody reads them in class
        shutil.copytree(media, part / "media", ignore=outputs)
        for page in notebooks.glob("*.md"):
            shutil.copy(page, part / "notebooks")
        for path in books:
            nbformat.write(without_solutions(read(path), address), part / "notebooks" / path.name)
    return [folder / "notebooks" / path.name for path in books]


def repository(project=NOTEBOOKS.parent / "pyproject.toml") -> str | None:
    """The address that people clone, from [project.urls]; None until the publisher sets it."""
    address = tomllib.loads(Path(project).read_text())["project"]["urls"]["Repository"]
    return None if ".invalid/" in address else address


def without_solutions(book, address: str | None = None):
    """The notebook as a student gets it, changed in place and returned.

    Args:
        address: of the repository, for the cell that Colab needs; None leaves that cell asking.
    """
    from nbconvert.preprocessors import ClearOutputPreprocessor, TagRemovePreprocessor

    TagRemovePreprocessor(remove_cell_tags={"solution"}).preprocess(book, {})
    ClearOutputPreprocessor().preprocess(book, {})
    book.metadata.pop("widgets", None)
    for cell in book.cells:
        cell.source = TO_SOLUTIONS.sub("", cell.source)
        for asks, instead in ASKS.items() if address else ():
            cell.source = cell.source.replace(asks, instead.format(address=address))
    return book


@dataclass(frozen=True)
class Mark:
    """One exercise of one notebook.

    Attributes:
        notebook: its path.
        check: the check's name in `ivkit.course.checks`.
        right: whether the check said so.
        said: what it printed, or the error of the cell.
    """

    notebook: str
    check: str
    right: bool
    said: str


def mark(path) -> list[Mark]:
    """Run a student's notebook from top to bottom and read what its checks say.

    This executes the student's code on this machine, in the repository's notebooks/, so that the
    recordings are found. Outputs saved in the file are ignored. The chapter is recognised by the
    checks that the notebook calls, not by the file's name. A notebook that does not run to its end
    (see `execute`) gives one Mark that says why.

    Returns:
        a Mark for each exercise of the chapter, in order; a missing exercise counts as not right.

    Raises:
        CourseError: it is not a notebook, or calls no check of the course.
    """
    book = read(path)
    answers = _exercises(book)
    chapters = [list(_exercises(read(chapter))) for chapter in sorted(NOTEBOOKS.glob("*.ipynb"))]
    asked = [check for checks in chapters if answers.keys() & checks for check in checks]
    if not asked:
        raise NotANotebook(f"{path} calls none of the course's checks: is it one of its notebooks?")
    try:
        execute(book, Path(path).name, NOTEBOOKS, keep_going=True)
    except CourseError as error:
        return [Mark(str(path), "", False, str(error))]
    return [_mark(str(path), check, answers.get(check)) for check in asked]


def _exercises(book) -> dict:
    """{check: the last cell that calls it}, in the order of the notebook."""
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    return {call[1]: cell for cell in cells if (call := CALL.search(cell.source))}


def _mark(path, check, cell) -> Mark:
    if cell is None:
        return Mark(path, check, False, "the exercise is gone from the notebook")
    errors = [f"{o.ename}: {o.evalue}" for o in cell.outputs if o.output_type == "error"]
    said = " ".join(errors or printed(cell).split("\n")).strip()
    return Mark(path, check, said.endswith("✓ right"), said)


def notebooks_in(paths) -> list[Path]:
    """The notebooks among files and folders, those in folders by name; checkpoints left out."""
    found = []
    for path in map(Path, paths):
        inside = sorted(p for p in path.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
        found += inside if path.is_dir() else [path]
    return found


def write_marks(path, marks) -> None:
    """The marks as a CSV file with a header, in UTF-8."""
    with whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(Mark.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(one) for one in marks)
