"""Every chapter and its solutions as plain cells on one device and dtype: no browser, no kernel.

    python -m tests.plain_cells --device cuda --dtype float16 --jobs 8 --json cells.json
    python -m tests.plain_cells --dtype float32 bfloat16 float16 --only 00 05 widgets

What runs: each notebook, one process each, cell by cell as Python (a cell that fails does not end
it), then "widgets" (the studio's worker and the widgets' callbacks, as a hand without a browser
drives them) and "families" (small networks of every family, and what they gave handed back to
them). A cell fails where it raises, and in a solution where a check says "not yet". Comparisons by
`iv.cmp` that do not hold are listed, but do not count as failures: rounding differs by dtype.

Works without IPython's kernel, without ffmpeg (clips are then not encoded), and without a network.
Exits with 1 where something failed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import faulthandler
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
BESIDE = ("widgets", "families")
DTYPES = ("float32", "bfloat16", "float16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default=None, help="default: the best there is")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES, help="default: all")
    parser.add_argument(
        "--only",
        nargs="+",
        default=None,
        metavar="NAME",
        help="such as 00, solutions/10, widgets; default: all",
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--threads", type=int, default=2, help="of each process")
    parser.add_argument("--seconds", type=int, default=500, help="after which one is stopped")
    parser.add_argument("--json", type=Path, default=None, help="write the results here")
    parser.add_argument("--one", nargs=2, default=None, help=argparse.SUPPRESS)  # in a process
    args = parser.parse_args()
    if args.one:
        run_one(*args.one, args.device, args.dtype[0])
        return
    names = [name for name in names_of_all() if wanted(name, args.only)]
    todo = [(name, dtype) for name in names for dtype in args.dtype]
    rows: list[dict] = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for row in pool.map(lambda pair: in_a_process(*pair, args), todo):
            rows.append(row)
            print(told(row), flush=True)
            if args.json:  # after each: a stop keeps what is done
                args.json.write_text(json.dumps(rows, indent=1))
    bad = sum(bool(row["failed"]) for row in rows)
    print(f"{len(rows) - bad} passed, {bad} failed")
    sys.exit(bool(bad))


def names_of_all() -> list[str]:
    books = [*sorted(NOTEBOOKS.glob("*.ipynb")), *sorted(NOTEBOOKS.glob("solutions/*.ipynb"))]
    chapters = [str(book.relative_to(NOTEBOOKS).with_suffix("")) for book in books]
    return sorted(chapters, key=lambda n: not n.startswith(("10", "09", "11"))) + [*BESIDE]


def wanted(name: str, only) -> bool:
    return only is None or any(name.startswith(begin) for begin in only)


def told(row: dict) -> str:
    """A line for each chapter, and one for each cell that failed."""
    lines = [
        f"{row['name']:28s}{row['dtype']:9s} {'FAILED' if row['failed'] else 'passed'}"
        f"{row['seconds']:7.1f} s"
    ]
    lines += [f"    [{f['cell']}] {f['error']}" for f in row["failed"]]
    lines += [f"    [{c['cell']}] does not hold: {c['said']}" for c in row["claims"]]
    return "\n".join(lines)


def in_a_process(name: str, dtype: str, args) -> dict:
    """Run one and read what it says, whatever becomes of it."""
    device = ["--device", args.device] if args.device else []
    call = [sys.executable, "-m", "tests.plain_cells", "--one", name, "", "--dtype", dtype, *device]
    own = {"MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(args.threads)}
    own["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.jsonl"
        call[call.index("")] = str(report)
        try:
            done = subprocess.run(
                call,
                cwd=ROOT,
                env=os.environ | own,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=args.seconds,
            )
            ended, said = done.returncode, done.stderr
        except subprocess.TimeoutExpired:
            ended, said = f"stopped after {args.seconds} s", ""
        lines = [json.loads(s) for s in report.read_text().splitlines()] if report.is_file() else []
    failed = [line for line in lines if "error" in line]
    if ended:
        why = f"exit {ended} after [{lines[-1]['cell'] if lines else 'nothing'}]"
        failed.append({"cell": "end", "error": why, "trace": said[-4000:]})
    return {
        "name": name,
        "dtype": dtype,
        "failed": failed,
        "claims": [{**line, "said": s} for line in lines for s in line.get("claims", [])],
        "cells": {str(line["cell"]): line["seconds"] for line in lines},
        "seconds": time.perf_counter() - begun,
    }


# ------------------------------------------------------------------------- inside the process


def run_one(name: str, report: str, device: str | None, dtype: str) -> None:
    faulthandler.enable()
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    force(device, dtype)
    stand_in_for_ffmpeg()
    pieces = beside(name, device) if name in BESIDE else cells(NOTEBOOKS / f"{name}.ipynb")
    solved = name.startswith("solutions")
    with scratch(name), open(report, "w") as out:
        for cell, work in pieces:
            begun, said, line = time.perf_counter(), io.StringIO(), {"cell": cell}
            try:
                with contextlib.redirect_stdout(said):
                    work()
            except Exception as error:
                line["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                line["trace"] = traceback.format_exc()[-3000:]
            lines = said.getvalue().splitlines()
            line["claims"] = [s for s in lines if "| exact:" in s and "approximate: True" not in s]
            if solved and (wrong := [s for s in lines if "not yet:" in s]):
                line["error"] = wrong[0]
            line["seconds"] = round(time.perf_counter() - begun, 2)
            out.write(json.dumps(line) + "\n")
            out.flush()


def force(device: str | None, dtype: str) -> None:
    """What `iv.load` takes where a cell says nothing; float16 as on a GPU without bfloat16."""
    import torch

    from ivkit import models

    own = models.pick

    def pick(asked=None, kind=None, exact=False):
        if kind is not None or dtype != "float16":
            return own(asked or device, kind or dtype, exact)
        there = own(asked or device, "float32", exact)[0]
        return there, torch.float32 if there.type == "cpu" else torch.float16

    models.pick = pick
    if dtype == "float16":
        torch.cuda.is_bf16_supported = lambda *args, **options: False


def stand_in_for_ffmpeg() -> None:
    import mediapy

    if mediapy.video_is_available():
        return
    try:
        import imageio_ffmpeg  # noqa: F401
    except ImportError:
        mediapy.video_is_available = lambda: True
        mediapy.compress_video = lambda *args, **options: b"no encoder here"
        mediapy.write_video = lambda path, *args, **options: Path(path).write_bytes(b"")
        mediapy.show_videos = lambda *args, **options: None


@contextlib.contextmanager
def scratch(name: str):
    """A folder of its own to run in, from which media/ is where a notebook looks for it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "media").symlink_to(ROOT / "media")
        place = (Path(folder) / "notebooks" / name).parent
        place.mkdir(parents=True)
        before = os.getcwd()
        os.chdir(place)
        try:
            yield
        finally:
            os.chdir(before)


def cells(path: Path):
    """(index in the notebook, what runs it) of each code cell."""
    from IPython.display import display

    space = {"__name__": "__main__", "display": display}
    book = json.loads(path.read_text(encoding="utf-8"))
    for i, cell in enumerate(book["cells"]):
        if cell["cell_type"] == "code":
            source = re.sub(r"^(\s*)[!%].*$", r"\1pass", "".join(cell["source"]), flags=re.M)
            yield i, lambda source=source, i=i: run_cell(source, space, f"{path.stem}[{i}]")


def run_cell(source: str, space: dict, name: str) -> None:
    """As a notebook does: the value of a last expression is displayed."""
    tree = ast.parse(source, name)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";"):
        last = ast.Expression(tree.body.pop().value)
    exec(compile(tree, name, "exec"), space)
    value = None if last is None else eval(compile(last, name, "eval"), space)
    if value is not None:
        for form in ("_repr_mimebundle_", "_repr_png_", "__repr__"):
            if shown := getattr(value, form, None):
                shown()
                break
    if plt := sys.modules.get("matplotlib.pyplot"):
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
        plt.close("all")


def beside(name: str, device: str | None):
    """(title, work) of what no notebook holds."""
    sys.path.insert(0, str(Path(__file__).parent))
    import anywhere

    yield from getattr(anywhere, name)(device)


if __name__ == "__main__":
    main()
