"""Seconds and peak memory of each notebook, run from top to bottom, as a table in markdown.

Every notebook gets a fresh kernel, one after the other. The seconds are what a person waits for
after Run All: from the kernel's start to the end of the last cell. The memory is the kernel's.
"""

import json
import sys
from pathlib import Path
from time import perf_counter

from ivkit.support import commands
from ivkit.support.disk import write_text

PROBE = "from ivkit.support.machine import peak_memory_mb\nprint(peak_memory_mb())"


def add_arguments(parser) -> None:
    parser.add_argument("paths", nargs="*", metavar="PATH", help="default: all of notebooks/")
    parser.add_argument("--threads", type=commands.count, default=2, help="default: %(default)s")
    parser.add_argument(
        "--json", type=commands.new_file, default=None, help="also write the figures here"
    )
    parser.add_argument(
        "--save", type=commands.folder, help="keep the notebooks with their outputs here"
    )


def main(args) -> None:
    from ivkit.course.classroom import NOTEBOOKS, CourseError

    figures, failed = {}, []
    for path in map(Path, args.paths or sorted(NOTEBOOKS.glob("*.ipynb"))):
        try:
            figures[path.stem] = measure(path, args.threads, args.save)
        except CourseError as error:
            failed.append(str(error))
            continue
        print(f"{path.stem}: {figures[path.stem]['seconds']:.1f} s", file=sys.stderr, flush=True)
        if args.json is not None:  # after each: a stop keeps what is done
            write_text(args.json, json.dumps(report(figures, args.threads), indent=2) + "\n")
    print(table(figures))
    if failed:
        sys.exit("\n".join(failed))


def measure(path, threads: int = 2, save=None) -> dict[str, float]:
    """Run one notebook in its own folder: {"seconds", "peak_memory_mb"} (10^6 bytes).

    Args:
        path: the notebook.
        threads: how many the kernel's libraries may use.
        save: a folder for the notebook with its outputs, to look at.

    Raises:
        ivkit.course.classroom.CourseError: it is no notebook, or a cell failed.
    """
    from nbformat import write
    from nbformat.v4 import new_code_cell

    from ivkit.course.classroom import execute, printed, read

    path = Path(path)
    book = read(path)
    book.cells.append(new_code_cell(PROBE))
    begun = perf_counter()
    execute(book, path.name, path.resolve().parent, threads=threads)
    seconds = perf_counter() - begun
    if save is not None:
        Path(save).mkdir(parents=True, exist_ok=True)
        write(book, Path(save) / path.name)
    return {"seconds": seconds, "peak_memory_mb": float(printed(book.cells[-1]))}


def report(figures: dict, threads: int) -> dict:
    """The figures with what they depend on."""
    import ivkit as iv
    from ivkit.support.machine import device_name

    machine = {"threads": threads, "device": device_name().split(": ")[0]}
    return {**machine, "versions": iv.versions(), "notebooks": figures}


def table(figures: dict) -> str:
    """{notebook: figures} as a table in markdown, with a line for all."""
    lines = ["| notebook | seconds | peak memory, MB |", "|---|---|---|"]
    for name, row in figures.items():
        lines.append(f"| `{name}` | {row['seconds']:.0f} | {row['peak_memory_mb']:.0f} |")
    if figures:
        total = sum(row["seconds"] for row in figures.values())
        most = max(row["peak_memory_mb"] for row in figures.values())
        lines.append(f"| all | {total:.0f} | {most:.0f} at most |")
    return "\n".join(lines)
