"""Draw the recorded results: means with their intervals, verdicts, the sweep, the latencies.

    python -m ivkit.bench charts media/results

writes measures.png, verdicts.png, sweep.png and latency.png beside the tables. Each function
returns one picture, which a notebook's cell shows when it is its last line.
"""

from __future__ import annotations

import json
import re
from itertools import cycle
from pathlib import Path
from typing import Annotated

import numpy as np

from ..support.disk import write_picture
from ..support.validate import Count, File, Kind, Listed, checked, shown
from ..view import _drawn, _figure
from .methods import OWN
from .scores import MEASURES, SCALE
from .tables import GAINS, MACHINES, MEASURE, PAPER_1, PAPER_2, RESULTS, ROLES, VERDICTS, has

GRID = tuple(name for name, m in MEASURES.items() if m.better)
SWEPT = ("text", "edit_named", "motion_obeyed", "drag_distance", "background", "flicker")
COLOURS = dict(zip(VERDICTS, ("#7fc97f", "#f08080", "#dddddd"), strict=True))


def _shown(value) -> dict:
    if not value:
        raise ValueError
    return RESULTS.take(value)


Means = Annotated[dict, Kind(f"{RESULTS.what} of at least one method", _shown, TypeError)]
Measures = Annotated[tuple, Listed(MEASURE, "measures", least=1)]


def add_arguments(parser) -> None:
    parser.add_argument("results", type=Path, help="a --results folder of `full`")


def main(args) -> None:
    storybench, sweep, machines = read(args.results)
    pictures = {
        "measures": dots(storybench["means"]["all"]),
        "verdicts": verdicts(storybench["differences"]["all"]),
        "sweep": sweep_lines(sweep["means"]["tuning"]),
        "latency": latencies(machines),
    }
    for name, picture in pictures.items():
        write_picture(args.results / f"{name}.png", picture)
        print(args.results / f"{name}.png")


@checked
def read(results: File) -> tuple[dict, dict, list[dict]]:
    """(storybench.json, sweep.json, every latency-*.json) of a folder that `full` wrote.

    ValueError, naming the command that makes it, where something is missing.
    """
    names = ("storybench.json", "sweep.json")
    times = sorted(file.name for file in results.glob("latency-*.json"))
    try:
        found = [json.loads((results / n).read_text(encoding="utf-8")) for n in (*names, *times)]
    except (OSError, ValueError):
        command = f"python -m tests.bench full --results {results}"
        raise ValueError(f"{results} holds no results: `{command}` makes them") from None
    return *found[:2], found[2:]


@checked
def dots(means: Means, measures: Measures = GRID, columns: Count = 3):
    """Every method's mean and 95% interval, a panel for each measure.

    means: method -> measure -> (mean, low, high), as in a result's "means".
    """
    shown = [m for m in measures if any(m in row for row in means.values())]
    if not shown:
        raise ValueError(f"means has none of the measures {', '.join(measures)}")
    rows = -(-len(shown) // columns)
    height = 0.55 + 0.19 * len(means)
    fig, axes = _panels(rows, min(columns, len(shown)), 3.4, height)
    for axis, measure in zip(axes.flat, shown, strict=False):
        _dots(axis, means, measure)
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    return _drawn(fig)


def _panels(rows: int, columns: int, width: float, height: float):
    fig, axes = _figure(rows, columns, width, height)
    for axis in axes.flat:
        axis.set_axis_on()
    return fig, axes


def _dots(axis, means: dict, measure: str, scale: float = 1.0) -> None:
    table = np.array([row.get(measure, [np.nan] * 3) for row in means.values()], float) * scale
    mean, low, high = table.T
    ends = np.nan_to_num([mean - low, high - mean])
    places = np.arange(len(means))
    axis.errorbar(mean, places, xerr=ends, fmt="o", ms=3.5, capsize=2, lw=1)
    axis.set_yticks(places, list(means), fontsize=7)
    axis.set_ylim(len(means) - 0.5, -0.5)
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(axis="x", alpha=0.3)
    arrow = ("", " →", " ←")[MEASURES[measure].better]
    axis.set_title(MEASURES[measure].heading + arrow, fontsize=8)


@checked
def table_1(means: Means):
    """The paper's Table 1 as points: ours with intervals, the paper's as open diamonds at whoever
    has that role, and how much moves, which the paper leaves out."""
    has(means, "image", "text", "motion")
    fig, axes = _panels(1, 3, 3.4, 0.6 + 0.2 * len(means))
    for axis, (measure, scale) in zip(
        axes.flat, (("image", SCALE), ("text", SCALE), ("motion", 1)), strict=True
    ):
        _dots(axis, means, measure, scale)
    names = list(means)
    for who, values in PAPER_1.items():
        if ROLES[who] in names:
            for axis, value in zip(axes.flat, values[:2], strict=False):
                axis.plot(value, names.index(ROLES[who]), "kD", mfc="none", ms=5)
    return _drawn(fig)


@checked
def against_motion(means: Means, measures: Measures = ("image", "text")):
    """Each method by how much moves in its clips, and by another measure."""
    has(means, "motion", *measures)
    fig, axes = _panels(1, len(measures), 4, 2.8)
    for axis, measure in zip(axes.flat, measures, strict=True):
        for (name, row), mark in zip(means.items(), cycle("os^vDP<>X*h")):
            axis.plot(row["motion"][0], row[measure][0], mark, ms=6, alpha=0.8, label=name)
        axis.tick_params(labelsize=7)
        axis.set_xlabel("motion amount, grey levels", fontsize=8)
        axis.set_title(MEASURES[measure].heading, fontsize=8)
    fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside right", fontsize=7)
    return _drawn(fig)


@checked
def verdicts(gains: Annotated[tuple, GAINS]):
    """How one method fares against another, measure by measure: green better, red worse, grey
    where no difference is shown; in each field the gain, positive for the better.

    gains: of `tables.differences`.
    """
    if not gains:
        raise ValueError("gains is empty: there is nothing to show")
    pairs = list(dict.fromkeys((g["method"], g["than"]) for g in gains))
    names = [m for m in MEASURES if any(g["measure"] == m for g in gains)]
    fig, axes = _panels(1, 1, 1.7 + 0.95 * len(names), 0.9 + 0.4 * len(pairs))
    axis = axes.flat[0]
    for g in gains:
        x, y = names.index(g["measure"]), pairs.index((g["method"], g["than"]))
        colour = COLOURS[g["verdict"]]
        sides = [x - 0.48, x + 0.48, x + 0.48, x - 0.48], np.repeat([y - 0.46, y + 0.46], 2)
        axis.fill(*sides, color=colour)
        axis.text(x, y, f"{g['gain']:+.2g}", ha="center", va="center", fontsize=8)
    axis.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(pairs) - 0.5, -0.5))
    axis.set_xticks(range(len(names)), [MEASURES[m].heading.replace(" ", "\n") for m in names])
    axis.set_yticks(range(len(pairs)), [f"{a} against {b}" for a, b in pairs])
    axis.tick_params(labelsize=7, length=0)
    return _drawn(fig)


@checked
def sweep_lines(means: Means, measures: Measures = SWEPT, columns: Count = 3):
    """The sweep: measures over lambda, a colour for each mechanism, a stroke for each reading.

    means: as of `dots`; its methods are named "lam 0.3, paired, both".
    """
    lines: dict[tuple, dict] = {}
    for name, row in means.items():
        found = re.fullmatch(r"lam (\d+\.?\d*), (\w+), ([\w-]+)", name)
        if found is None:
            raise ValueError(f"means has methods such as {OWN!r} here, not {shown(name)}")
        lines.setdefault(found.group(3, 2), {})[float(found[1])] = row
    colours = dict(zip(dict.fromkeys(m for m, _ in lines), ("C0", "C1", "C2"), strict=False))
    columns = min(columns, len(measures))
    fig, axes = _panels(-(-len(measures) // columns), columns, 3.4, 2.3)
    for axis, measure in zip(axes.flat, measures, strict=False):
        for (mechanism, reading), rows in lines.items():
            lams = sorted(lam for lam in rows if measure in rows[lam])
            values = [rows[lam][measure][0] for lam in lams]
            style = {"color": colours[mechanism], "ls": "-" if reading == "paired" else ":"}
            axis.plot(lams, values, label=f"{reading}, {mechanism}", **style)
        axis.tick_params(labelsize=7)
        axis.set_title(f"{MEASURES[measure].heading} over λ{MEASURES[measure].arrow}", fontsize=8)
    axes.flat[0].legend(fontsize=6)
    return _drawn(fig)


@checked
def latencies(machines: Annotated[tuple, MACHINES]):
    """Table 2 as bars on a logarithmic scale: the paper's, and a group for each machine."""
    rows = {"the paper's, RTX 4090": list(PAPER_2.values())}
    for m in machines:
        rows[f"{m['model']}, {m['machine']}"] = [m[f"{name}_seconds"] for name in PAPER_2]
    fig, axes = _panels(1, 1, 7, 2.8)
    axis, width = axes.flat[0], 0.8 / len(rows)
    for i, (who, seconds) in enumerate(rows.items()):
        bars = axis.bar(np.arange(4) + i * width, seconds, 0.9 * width, label=who)
        axis.bar_label(bars, [f"{s:.2g}" for s in seconds], fontsize=6)
    axis.set_xticks(np.arange(4) + (0.8 - width) / 2, [f"{name} instruction" for name in PAPER_2])
    axis.set(yscale="log", ylabel="seconds")
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7)
    return _drawn(fig)
