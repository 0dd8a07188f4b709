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

import numpy as np

from ..support.disk import whole, write_text
from .scores import MEASURES, SCALE, bootstrap

#: Table 1 as the paper prints it: CLIP image and text, user study image and text, satisfaction %
PAPER_1 = {
    "VideoComposer": (225.3, 62.85, 0.180, 0.110, 43.5),
    "AnimateDiff": (218.0, 63.31, 0.295, 0.220, 51.6),
    "PIA": (225.9, 63.68, 0.525, 0.670, 52.5),
    "InteractiveVideo": (234.6, 65.31, 0.745, 0.813, 72.8),
}
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
    ("freer", "both", ("image", "motion_obeyed", "drag_distance", "edit_named", "flicker")),
)


def summary(rows: Sequence[dict]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """method -> measure -> (mean, low, high): 95% intervals, whole pictures resampled."""
    table = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        groups = [row["group"] for row in own]
        table[method] = {
            name: bootstrap([row.get(name, np.nan) for row in own], groups)
            for name in MEASURES
            if any(name in row for row in own)
        }
    return table


def differences(rows: Sequence[dict], claims=CLAIMS) -> list[dict]:
    """Case by case, how much better one method is than another; the interval says if it is at all.

    `gain` is positive where the first method is the better one by that measure.
    """
    by = {(row["method"], row["case"]): row for row in rows}
    found = []
    for better, worse, names in claims:
        cases = [c for m, c in by if m == better and (worse, c) in by]
        for name in names:
            sign = MEASURES[name][1]
            gain = [sign * (by[better, c].get(name, np.nan) - by[worse, c].get(name, np.nan))
                    for c in cases]  # fmt: skip
            mean, low, high = bootstrap(gain, [by[better, c]["group"] for c in cases])
            if np.isfinite(mean):
                verdict = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
                found.append({"method": better, "than": worse, "measure": name, "gain": mean,
                              "low": low, "high": high, "verdict": verdict})  # fmt: skip
    return found


def ranking(table: dict) -> list[tuple[str, float]]:
    """Methods by their mean rank over the measures that have a better end; the best comes first.

    No measure counts more than another; ties share a rank.
    """
    names = [n for n, (_, sign) in MEASURES.items() if sign and all(n in r for r in table.values())]
    ranks = {method: [] for method in table}
    for name in names:
        values = {m: round(MEASURES[name][1] * r[name][0], 6) for m, r in table.items()}
        for m, v in values.items():
            above = sum(other > v for other in values.values())
            ranks[m].append(above + (sum(other == v for other in values.values()) + 1) / 2)
    mean = {m: float(np.mean(r)) if r else float("nan") for m, r in ranks.items()}
    return sorted(mean.items(), key=lambda item: item[1])


def provenance(processes: int = 1, commit: str | None = None) -> dict:
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
    return {"command": " ".join(command), "date": date.today().isoformat(), "commit": commit,
            "machine": device_name(), "versions": versions()}  # fmt: skip


def write(folder: Path, rows: Sequence[dict], facts: dict, sweep: bool = False,
          latency: Sequence[Path] | None = None,
          study: Sequence[Path] | None = None) -> str:  # fmt: skip
    """Writes results.csv (every row), results.json (facts, means, intervals) and tables.md.

    Returns the text of tables.md.
    """
    halves = {half: [r for r in rows if r["half"] == half] for half in ("tuning", "reporting")}
    halves = {half: own for half, own in halves.items() if own}
    # A sweep is of the tuning half; few of its settings go on to the other one.
    parts = halves if sweep else {"all": list(rows)} | (halves if len(halves) == 2 else {})
    columns = ["case", "method", "group", "half"]
    columns += [name for name in MEASURES if any(name in row for row in rows)]
    path = folder / "results.csv"
    with whole(path) as part, part.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, [*columns, "run"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({k: _short(v) for k, v in row.items()} for row in rows)
    means = {part: summary(own) for part, own in parts.items()}
    gains = {} if sweep else {part: differences(own) for part, own in parts.items()}
    times = [json.loads(Path(file).read_text(encoding="utf-8")) for file in latency or ()]
    votes = None
    if study:
        from .study import columns as study_columns
        from .study import read

        votes = study_columns([row for file in study for row in read(file)])
    result = {"facts": facts, "means": means, "differences": gains,
              "ranking": {part: ranking(summary(_whole(own))) for part, own in parts.items()},
              }  # fmt: skip
    write_text(folder / "results.json", json.dumps(_plain(result), indent=1) + "\n")
    text = [f"# {facts['benchmark']}, {facts['model']}", _facts(facts)]
    if not sweep:
        text += ["## Table 1", table_1(means["all"], facts["clip"], votes)]
        text += ["## Table 2", table_2(times)]
    for part, table in means.items():
        count = len({row["case"] for row in parts[part]})
        text += [f"## Measures, {part}: {count} cases", measures(table, facts["size"])]
        if sweep:
            text.append(_best(result["ranking"][part]))
        elif gains[part]:
            text += ["Differences, case by case:", verdicts(gains[part])]
    text = "\n\n".join(text) + "\n"
    write_text(folder / "tables.md", text)
    return text


def _facts(facts: dict) -> str:
    made = [
        f"- {run['clips']} clips: `{run['command']}`, {run['date']}, commit {run['commit']},"
        f" {run['machine']}, {run['processes']} process(es)"
        for run in facts["runs"]
    ]
    head = (
        f"Weights {facts['weights']}, {facts['dtype'].removeprefix('torch.')}, "
        f"{facts['steps'] or 'its own number of'} steps, λ of the blends {facts['lam']:g}. "
        f"CLIP: {facts['clip']}. Intervals are 95%, by bootstrap over pictures."
    )
    return "\n".join([head, "", *made])


def table_1(means: dict, clip: str, votes: dict | None = None) -> str:
    """The paper's rows as printed, and below them ours in the same columns."""
    lines = [
        f"Alignment is {SCALE} x the mean cosine (raw cosine beside it). The paper names neither"
        f" its CLIP model nor its picture; ours is {clip}, against the edited picture, so only"
        " figures of one run compare. A clip that stands still (frozen) is the ceiling of image"
        " alignment: read it with the motion beside it.",
        "",
        "| method | Image | Text | motion | User Image | User Text | Satisfaction % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (image, text, vote_image, vote_text, satisfied) in PAPER_1.items():
        role = ROLES[name] or "not run"
        lines.append(f"| {name}, as the paper prints it ({role}) | {image} | {text} | |"
                     f" {vote_image:.3f} | {vote_text:.3f} | {satisfied} |")  # fmt: skip
    for method, row in means.items():
        cells = [f"{SCALE * row[k][0]:.1f} ({row[k][0]:.3f})" for k in ("image", "text")]
        own = (votes or {}).get(method, {})
        cells += [cell(row["motion"], 2)]
        cells += [cell(own.get(k), 3) for k in ("image", "text")]
        cells += [cell(own.get("satisfaction"), 1, 100)]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table_2(machines: Sequence[dict]) -> str:
    """The paper's latencies and ours, a row for each machine that they were measured on."""
    names = list(PAPER_2)
    lines = ["| | image | content | motion | trajectory | whole job | peak memory |",
             "|---|---|---|---|---|---|---|",
             "| the paper's, RTX 4090 | " + " | ".join(f"{PAPER_2[n]:g} s" for n in names)
             + " | | 16 GB |"]  # fmt: skip
    for figures in machines:
        cells = [f"{figures[f'{n}_seconds']:.3g} s" for n in [*names, "whole_job"]]
        cells.append(f"{figures['peak_memory_mb'] / 1000:.1f} GB")
        lines.append(f"| {figures['model']}, {figures['machine']} | " + " | ".join(cells) + " |")
    if not machines:
        lines.append("| ours | not run: `python -m ivkit.bench latency` | | | | | |")
    return "\n".join(lines)


def measures(table: dict, size: int) -> str:
    """Every measure by method, with its interval; size: the clips' width in pixels."""
    names = [name for name in MEASURES if any(name in row for row in table.values())]
    arrows = {1: " ↑", -1: " ↓", 0: ""}
    heads = [MEASURES[n][0] + arrows[MEASURES[n][1]] for n in names]
    lines = ["| method | " + " | ".join(heads) + " |", "|---" * (len(names) + 1) + "|"]
    for method, row in table.items():
        cells = []
        for n in names:
            if n.endswith("distance") or n in ("motion_obeyed", "edit_kept", "edit_named"):
                cells.append(cell(row.get(n), 1, 100, "%"))
            else:
                cells.append(cell(row.get(n), 3 if n in ("image", "image_x", "text") else 2))
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines += ["", f"Distances are per cent of the width, {size} pixels (1% is {size / 100:.1f} px);"
              " a thing that is gone counts as one width."]  # fmt: skip
    return "\n".join(lines)


def verdicts(gains: Sequence[dict]) -> str:
    lines = ["| method | than | by | gain | verdict |", "|---|---|---|---|---|"]
    for g in gains:
        gain = cell((g["gain"], g["low"], g["high"]), 3)
        by = MEASURES[g["measure"]][0]
        lines.append(f"| {g['method']} | {g['than']} | {by} | {gain} | {g['verdict']} |")
    return "\n".join(lines)


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
    """A mean with its interval, such as "4.1% [3.2, 5.0]"; empty where there is none."""
    if value is None or not np.isfinite(value[0]):
        return ""
    mean, low, high = (f"{times * v:.{digits}f}" for v in value)
    return f"{mean}{unit}" + (f" [{low}, {high}]" if np.isfinite(value[1]) else "")


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
