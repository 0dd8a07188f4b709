"""The demo: executes notebooks/00_quickstart.ipynb and keeps what it made.

The notebook itself knows nothing of the demo. Its cells carry tags, `stage:image` and so on, by
which their seconds are summed; one cell is added at the end, which calls `keep`.
"""

import json
import re
from datetime import datetime
from pathlib import Path

from ivkit.course.classroom import NOTEBOOKS, NotANotebook, execute, read
from ivkit.support.disk import whole, write_picture, write_text

NOTEBOOK = NOTEBOOKS / "00_quickstart.ipynb"
MODEL_LINE = re.compile(r'^MODEL = "[^"]*"', re.MULTILINE)


def demo(out="outputs/demo", model: str | None = None, notebook=NOTEBOOK) -> dict:
    """Execute the quickstart and write video.mp4, edited.png, contact_sheet.png, report.json.

    The executed notebook is written beside them, also when a cell fails.

    Args:
        out: folder for the results, made if missing.
        model: replaces the notebook's MODEL line.
        notebook: the notebook to execute; its cells run in the folder where it lies.

    Returns:
        the report: `seconds` of each stage and in all, `model`, `device`, `seed`, `versions`.

    Raises:
        CourseError: the notebook is missing, or one of its cells failed.
    """
    import nbformat
    from tqdm import tqdm

    notebook, out = Path(notebook), Path(out).resolve()
    if not notebook.is_file():
        raise NotANotebook(f"there is no {notebook}: run it from a checkout of the repository")
    book = read(notebook)
    if model is not None:
        for cell in book.cells:
            cell.source = MODEL_LINE.sub(lambda _: f"MODEL = {model!r}", cell.source)
    out.mkdir(parents=True, exist_ok=True)
    keeper = f"import ivkit.course.demo\nivkit.course.demo.keep(globals(), {str(out)!r})"
    book.cells.append(nbformat.v4.new_code_cell(keeper))

    count = sum(cell.cell_type == "code" for cell in book.cells)
    bar = tqdm(total=count, desc=notebook.stem, unit="cell")
    try:
        execute(book, notebook.name, notebook.parent, on_cell=bar.update)
    finally:
        bar.close()
        book.cells.pop()  # the one added above
        with whole(out / notebook.name) as part:
            nbformat.write(book, part)

    report = json.loads((out / "report.json").read_text())
    report = {"seconds": stage_seconds(book), **report}
    write_text(out / "report.json", json.dumps(report, indent=2) + "\n")
    seconds = ", ".join(f"{stage} {took:.1f} s" for stage, took in report["seconds"].items())
    print(f"{report['model']} on {report['device']}: {seconds}")
    for name in ("video.mp4", "edited.png", "contact_sheet.png", "report.json"):
        print(out / name)
    return report


def keep(names: dict, out) -> None:
    """Write what the quickstart made; called in its kernel, after its last cell.

    Args:
        names: the notebook's variables; of them `MODEL`, `SEED`, `pipe`, `edited` and `run` are
            used.
        out: folder that is there.
    """
    from ivkit import contact_sheet, save_video, versions

    out, run = Path(out), names["run"]
    save_video(out / "video.mp4", run.frames)
    write_picture(out / "edited.png", names["edited"])
    rows = {"unedited": run.unedited, "edited": run.frames}
    write_picture(out / "contact_sheet.png", contact_sheet(rows, every=2))
    report = {
        "model": names["MODEL"],
        "device": str(names["pipe"].device),
        "seed": names["SEED"],
        "versions": versions(),
    }
    write_text(out / "report.json", json.dumps(report))


def stage_seconds(book) -> dict[str, float]:
    """Seconds of an executed notebook by stage, from its cells' tags and recorded times."""
    seconds, total = {}, 0.0
    for cell in book.cells:
        times = cell.metadata.get("execution", {})
        if "iopub.execute_input" not in times or "shell.execute_reply" not in times:
            continue
        begun, ended = (
            datetime.fromisoformat(times[key].replace("Z", "+00:00"))
            for key in ("iopub.execute_input", "shell.execute_reply")
        )
        took = (ended - begun).total_seconds()
        total += took
        for tag in cell.metadata.get("tags", []):
            if tag.startswith("stage:"):
                stage = tag.removeprefix("stage:")
                seconds[stage] = round(seconds.get(stage, 0.0) + took, 3)
    return {**seconds, "all": round(total, 3)}
