"""Rows to tables: CSV, JSON, and markdown with the paper's Tables 1 and 2 beside our figures."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from ..support.disk import whole, write_text
from ..support.validate import TEXT, Choice, Count, Kind, Listed, Side, checked, scalar
from .scores import MEASURES, SCALE, bootstrap

#: Table 1 as the paper prints it: CLIP image and text, and its user study
PAPER_1 = {
    "VideoComposer": (225.3, 62.85),
    "AnimateDiff": (218.0, 63.31),
    "PIA": (225.9, 63.68),
    "InteractiveVideo": (234.6, 65.31),
}
PAPER_VOTES = {
    "VideoComposer": {"image": 0.180, "text": 0.110, "satisfaction": 0.435},
    "AnimateDiff": {"image": 0.295, "text": 0.220, "satisfaction": 0.516},
    "PIA": {"image": 0.525, "text": 0.670, "satisfaction": 0.525},
    "InteractiveVideo": {"image": 0.745, "text": 0.813, "satisfaction": 0.728},
}
#: how one method fares against another
VERDICTS = ("better", "worse", "no difference shown")
#: which of our methods stands in for whom
ROLES = {"VideoComposer": None, "AnimateDiff": "t2v", "PIA": "i2v", "InteractiveVideo": "both"}
#: Table 2 as the paper prints it, seconds (an RTX 4090)
PAPER_2 = {"image": 0.01934, "content": 0.03147, "motion": 12.22, "trajectory": 0.07735}
#: what the paper claims, as (better, worse, measure)
CLAIMS = (
    ("paired", "swap", ("image", "text", "motion_obeyed", "path_distance", "edit_named")),
    ("paired", "i2v", ("image", "text", "drag_distance", "edit_named")),
    ("paired", "shared", ("image", "text", "drag_distance", "edit_named", "flicker")),
    ("align", "paired", ("image", "background", "flicker")),
    ("both", "paired", ("drag_distance", "path_distance", "motion_obeyed")),
    ("both", "warp", ("image", "motion_obeyed", "flicker")),
    ("still", "both", ("image", "motion_obeyed", "drag_distance", "edit_named", "flicker")),
)


def _number(value: Any) -> float:
    """A number of a result; null, and so None, is NaN: JSON knows no other."""
    return np.nan if value is None else float(scalar(value))


def Rows(what: str, texts: dict[str, Any], numbers: Sequence[str] = (), least: int = 0) -> Listed:
    """A list of dicts that hold these names. texts: each with what it may be, or None for any."""

    def take(row):
        for name, known in texts.items():
            if not isinstance(row[name], str) or (known and row[name] not in known):
                raise ValueError
        measured = (*numbers, *(row.keys() & MEASURES.keys() - texts.keys()))
        return row | {name: _number(row[name]) for name in measured}

    names = ", ".join((*texts, *numbers))
    return Listed(Kind(f"a dict with {names}", take, TypeError), what, least)


def _results(value: Any) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for method, row in value.items():
        found[TEXT("method", method)] = own = {}
        for measure, (mean, low, high) in row.items():
            own[measure] = tuple(map(_number, (mean, low, high)))
    return found


def _claim(value: Any) -> tuple[str, str, list[str]]:
    better, worse, names = value
    return TEXT("it", better), TEXT("it", worse), [MEASURE("it", name) for name in names]


_GAIN = {"method": None, "than": None, "measure": MEASURES, "verdict": VERDICTS}
_SECONDS = [f"{name}_seconds" for name in PAPER_2]
RESULTS = Kind("a dict {method: {measure: (mean, low, high)}}", _results, TypeError)
GAINS = Rows("differences", _GAIN, ("gain", "low", "high"))
_MACHINE = {"model": None, "machine": None}
MACHINES = Rows("figures", _MACHINE, _SECONDS)
JOBS = Rows("figures", _MACHINE, (*_SECONDS, "whole_job_seconds", "peak_memory_mb"))
MEASURE = Choice(*MEASURES)
Means = Annotated[dict, RESULTS]
Claims = Annotated[tuple, Listed(Kind("(better, worse, measures)", _claim), "claims")]
Measured = Annotated[tuple, Rows("rows", dict.fromkeys(("method", "case", "group")))]


def has(means: dict, *measures: str, name: str = "means") -> None:
    """ValueError where a method has not all of the measures."""
    for method, row in means.items():
        for measure in measures:
            if measure not in row:
                raise ValueError(f"{name} has no {measure!r} of {method!r}")


@checked
def summary(rows: Measured) -> dict[str, dict[str, tuple[float, float, float]]]:
    """method -> measure -> (mean, low, high): 95% intervals, whole pictures resampled."""
    table = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        groups = [row["group"] for row in own]
        table[method] = {
            name: bootstrap([row.get(name, np.nan) for row in own], groups) for name in known(own)
        }
    return table


@checked
def known(rows: list[dict]) -> list[str]:
    """The measures that any of the rows has, in their order."""
    return [name for name in MEASURES if any(name in row for row in rows)]


@checked
def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """A table, a line for each row of cells."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows))


@checked
def differences(rows: Measured, claims: Claims = CLAIMS) -> list[dict]:
    """Case by case, how much better one method is than another; the interval says if it is at all.

    `gain` is positive where the first method is the better one by that measure.
    """
    by = {(row["method"], row["case"]): row for row in rows}
    found = []
    for better, worse, names in claims:
        cases = [c for m, c in by if m == better and (worse, c) in by]
        for name in names if cases else ():
            a, b = ([by[m, c].get(name, np.nan) for c in cases] for m in (better, worse))
            gain = MEASURES[name].better * np.subtract(a, b)
            mean, low, high = bootstrap(gain, [by[better, c]["group"] for c in cases])
            if np.isfinite(mean):
                verdict = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
                row = {"method": better, "than": worse, "measure": name, "gain": mean}
                found.append(row | {"low": low, "high": high, "verdict": verdict})
    return found


@checked
def ranking(table: Means) -> list[tuple[str, float]]:
    """Methods by their mean rank over the measures that have a better end; the best comes first.

    No measure counts more than another; ties share a rank.
    """
    ranks = {method: [] for method in table}
    for name, measure in MEASURES.items():
        if not measure.better or not all(name in row for row in table.values()):
            continue
        values = {m: round(measure.better * r[name][0], 6) for m, r in table.items()}
        for m, v in values.items():
            above = sum(other > v for other in values.values())
            ranks[m].append(above + (sum(other == v for other in values.values()) + 1) / 2)
    mean = {m: float(np.mean(r)) if r else float("nan") for m, r in ranks.items()}
    return sorted(mean.items(), key=lambda item: item[1])


@checked
def provenance(processes: Count = 1, commit: str | None = None) -> dict:
    """Command, date, commit and versions: without them a result is worth nothing.

    commit: where there is no git to ask.
    """
    from ..support.machine import device_name, versions

    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    if commit is None:
        with suppress(OSError, subprocess.CalledProcessError):
            commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    many = f"accelerate launch --multi_gpu --num_processes {processes}"
    command = ["python" if processes == 1 else many, "-m ivkit.bench", *sys.argv[1:]]
    when = {"command": " ".join(command), "date": date.today().isoformat(), "commit": commit}
    return when | {"machine": device_name(), "versions": versions()}


def write(
    folder: Path,
    rows: Sequence[dict],
    facts: dict,
    sweep: bool = False,
    latency: Sequence[Path] | None = None,
    study: Sequence[Path] | None = None,
) -> str:
    """Writes results.csv (every row), results.json (facts, means, intervals) and tables.md.

    Returns the text of tables.md.
    """
    halves = {half: [r for r in rows if r["half"] == half] for half in ("tuning", "reporting")}
    halves = {half: own for half, own in halves.items() if own}
    # A sweep is of the tuning half; few of its settings go on to the other one.
    parts = halves if sweep else {"all": list(rows)} | (halves if len(halves) == 2 else {})
    columns = ["case", "method", "group", "half", *known(rows), "run"]
    with whole(folder / "results.csv") as part, part.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({k: _short(v) for k, v in row.items()} for row in rows)
    means = {part: summary(own) for part, own in parts.items()}
    gains = {} if sweep else {part: differences(own) for part, own in parts.items()}
    ranks = {part: ranking(summary(_whole(own))) for part, own in parts.items()}
    result = {"facts": facts, "means": means, "differences": gains, "ranking": ranks}
    write_text(folder / "results.json", json.dumps(_plain(result), indent=1) + "\n")
    text = [f"# {facts['benchmark']}, {facts['model']}", _facts(facts)]
    if not sweep:
        from .study import columns as votes_of
        from .study import read

        people = votes_of([row for file in study or () for row in read(file)])
        times = [json.loads(Path(file).read_text(encoding="utf-8")) for file in latency or ()]
        text += ["## Table 1", table_1(means["all"], facts["clip"], people)]
        text += ["## Table 2", table_2(times)]
    for part, table in means.items():
        count = len({row["case"] for row in parts[part]})
        text += [f"## Measures, {part}: {count} cases", measures(table, facts["size"])]
        if sweep:
            text.append(_best(ranks[part]))
        elif gains[part]:
            text += ["Differences, case by case:", verdicts(gains[part])]
    text = "\n\n".join(text) + "\n"
    write_text(folder / "tables.md", text)
    return text


def _facts(facts: dict) -> str:
    line = (
        "- {clips} clips: `{command}`, {date}, commit {commit}, {machine}, {processes} process(es)"
    )
    made = [line.format(**run) for run in facts["runs"]]
    head = (
        f"Weights {facts['weights']}, {facts['dtype'].removeprefix('torch.')}, "
        f"{facts['steps'] or 'its own number of'} steps, λ of the blends {facts['lam']:g}. "
        f"CLIP: {facts['clip']}. Intervals are 95%, by bootstrap over pictures."
    )
    return "\n".join([head, "", *made])


@checked
def table_1(means: Means, clip: str, people: Means | None = None) -> str:
    """The paper's rows as printed, and below them ours in the same columns."""
    said = (
        f"Alignment is {SCALE} x the mean cosine (raw cosine beside it). The paper names neither"
        f" its CLIP model nor its picture; ours is {clip}, against the edited picture, so only"
        " figures of one run compare. A clip that stands still (frozen) is the ceiling of image"
        " alignment: read it with the motion beside it."
    )
    has(means, "image", "text", "motion")
    rows = []
    for name, alignment in PAPER_1.items():
        who = f"{name}, as the paper prints it ({ROLES[name] or 'not run'})"
        rows.append([who, *map(str, alignment), "", *votes(PAPER_VOTES[name])])
    for method, row in means.items():
        cells = [f"{SCALE * row[k][0]:.1f} ({row[k][0]:.3f})" for k in ("image", "text")]
        rows.append([method, *cells, cell(row["motion"], 2), *votes((people or {}).get(method))])
    heads = ["method", "Image", "Text", "motion", "User Image", "User Text", "Satisfaction %"]
    return said + "\n\n" + markdown(heads, rows)


def votes(row: dict | None) -> list[str]:
    """The User Study columns, as of PAPER_VOTES; empty where there was no study."""
    kinds = {"image": (3, 1), "text": (3, 1), "satisfaction": (1, 100)}
    return [cell((row or {}).get(name), *how) for name, how in kinds.items()]


@checked
def table_2(machines: Annotated[tuple, JOBS]) -> str:
    """The paper's latencies and ours, a row for each machine that they were measured on."""
    names = list(PAPER_2)
    rows = [["the paper's, RTX 4090", *(f"{PAPER_2[n]:g} s" for n in names), "", "16 GB"]]
    for figures in machines:
        cells = [f"{figures[f'{n}_seconds']:.3g} s" for n in [*names, "whole_job"]]
        memory = f"{figures['peak_memory_mb'] / 1000:.1f} GB"
        rows.append([f"{figures['model']}, {figures['machine']}", *cells, memory])
    if not machines:
        rows.append(["ours", "not run: `python -m ivkit.bench latency`", *[""] * 5])
    return markdown(["", *names, "whole job", "peak memory"], rows)


@checked
def measures(table: Means, size: Side) -> str:
    """Every measure by method, with its interval; size: the clips' width in pixels."""
    names = known(table.values())
    rows = []
    for method, row in table.items():
        cells = []
        for name in names:
            m = MEASURES[name]
            times, unit = (100, "%") if m.percent else (1, "")
            cells.append(cell(row.get(name), m.digits, times, unit))
        rows.append([method, *cells])
    heads = ["method", *(MEASURES[n].heading + MEASURES[n].arrow for n in names)]
    return markdown(heads, rows) + (
        f"\n\nDistances are per cent of the width, {size} pixels (1% is {size / 100:.1f} px);"
        " a thing that is gone counts as one width."
    )


@checked
def verdicts(gains: Annotated[tuple, GAINS]) -> str:
    rows = []
    for g in gains:
        gain, by = cell((g["gain"], g["low"], g["high"]), 3), MEASURES[g["measure"]].heading
        rows.append([g["method"], g["than"], by, gain, g["verdict"]])
    return markdown(["method", "than", "by", "gain", "verdict"], rows)


def _whole(rows: Sequence[dict]) -> list[dict]:
    """The rows of those cases that every method has done, or all rows where there are none.

    A run that was stopped must not rank a method by easier cases than another.
    """
    methods, done = {row["method"] for row in rows}, defaultdict(set)
    for row in rows:
        done[row["case"]].add(row["method"])
    return [row for row in rows if done[row["case"]] == methods] or list(rows)


def _best(ranked: list) -> str:
    first, *rest = ranked
    others = ", ".join(f"{name} ({rank:.1f})" for name, rank in rest[:4])
    return f"Best by mean rank over the measures: **{first[0]}** ({first[1]:.1f}); then {others}."


def cell(value, digits: int, times: float = 1, unit: str = "") -> str:
    """A mean with its interval, such as "4.1% [3.2, 5.0]", or a number alone; empty for none."""
    found = np.atleast_1d(np.nan if value is None else value) * times
    mean, *ends = (f"{v:.{digits}f}" if np.isfinite(v) else "" for v in found)
    return f"{mean}{unit} [{', '.join(ends)}]" if any(ends) else mean and f"{mean}{unit}"


def _short(value):
    """A number to six digits, more than any measure has."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _plain(value):
    """NaN as null: JSON knows no other."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else _short(value)
