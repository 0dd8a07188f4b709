"""StoryBench by one process, then by several: how much faster, and are the numbers the same.

    python -m tests.bench scaling --processes 2 -- --cases meadow-day-1-0 sea-sunset-1-0

What follows -- goes to storybench. Both runs start from nothing, in folders of their own; time
counts from the first clip to the last, without loading.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path

from ivkit.bench.runner import read_lines
from ivkit.bench.scores import MEASURES
from ivkit.support import commands
from ivkit.support.disk import write_text
from tests.bench import full


def add_arguments(parser) -> None:
    parser.add_argument("--processes", type=commands.count, default=2, help="default: %(default)s")
    parser.add_argument("--out", type=commands.folder, default=Path("outputs/scaling"))
    parser.add_argument("rest", nargs="*", metavar="ARGUMENT", help="of storybench, after --")


def main(args) -> None:
    if args.processes < 2:
        sys.exit(f"--processes must be at least 2, not {args.processes}")
    folders = {"one": args.out / "one", "many": args.out / "many"}
    for name, folder in folders.items():
        shutil.rmtree(folder, ignore_errors=True)
        processes = 1 if name == "one" else args.processes
        if full.run(["storybench", *args.rest, "--out", folder], processes):
            sys.exit(1)
    figures = compare(folders["one"], folders["many"])
    write_text(args.out / "scaling.json", json.dumps(figures, indent=2) + "\n")
    print(
        f"{figures['clips']} clips: {figures['one_seconds']:.1f} s by one process, "
        f"{figures['many_seconds']:.1f} s by {figures['processes']}: {figures['ratio']:.2f} times "
        f"as fast. The largest difference of any measure is {figures['largest_difference']:.2g} "
        f"({figures['differs_most']})."
    )


def compare(one: Path, many: Path) -> dict:
    """Seconds, their ratio and the largest difference between two finished runs, relative to the
    measure's own size; ValueError where they did not measure the same clips."""
    runs = [json.loads((folder / "results.json").read_text()) for folder in (one, many)]
    rows = [
        {(row["case"], row["method"]): row for row in read_lines(folder, "rows")}
        for folder in (one, many)
    ]
    if rows[0].keys() != rows[1].keys():
        raise ValueError(f"{one} and {many} hold different clips")
    largest, where = 0.0, "none"
    for key, row in rows[0].items():
        for name in MEASURES:
            if name != "seconds" and name in row:
                a, b = row[name], rows[1][key].get(name, math.nan)
                off = abs(a - b) / max(1.0, abs(a))
                if not off <= largest:  # NaN counts as a difference
                    largest, where = off, " ".join((*key, name))
    seconds = [run["facts"]["run_seconds"] for run in runs]
    return {
        "clips": len(rows[0]),
        "processes": runs[1]["facts"]["processes"],
        "machine": runs[1]["facts"]["machine"],
        "one_seconds": seconds[0],
        "many_seconds": seconds[1],
        "ratio": seconds[0] / max(seconds[1], 1e-9),
        "largest_difference": largest,
        "differs_most": where,
    }
