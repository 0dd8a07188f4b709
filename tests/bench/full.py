"""All that the chapter on measuring shows, in one command: latency, StoryBench, the sweep, the
units in which Eq. 4 can blend, and a second set of cases for reporting alone.

    python -m tests.bench full --processes 8 --seconds 420 --results media/results
    python -m tests.bench full --results media/results -- --subset

Several processes share the GPUs there are. When the time is up, or after Ctrl-C, the same command
goes on where it stopped; --seconds 0 writes the results of what is there. What follows -- goes to
storybench. The sweep ranks lam x reading x mechanism on the tuning half; its best settings and the
package's own then meet the reporting half, which had no say in the choice.

--results gets small files alone: a csv of each (every clip's measures), .json (means, intervals,
verdicts, what was run), latency-*.json, and tables.md.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

from ivkit.bench.methods import OWN
from ivkit.support import commands
from ivkit.support.disk import whole, write_text

BEST = 3  # settings of the sweep that go on to the reporting half
PARTS = ("storybench", "sweep", "units", "storybench-second")  # folders of --out
SLACK = 15  # seconds for starting Python and for the tables, of each step


def add_arguments(parser) -> None:
    add = parser.add_argument
    add("--model", help="default: that of each benchmark")
    add("--out", type=commands.folder, default=Path("outputs/full"), help="finished rows")
    add(
        "--results",
        type=commands.folder,
        default=Path("media/results"),
        help="small result files go here (default: %(default)s)",
    )
    add("--processes", type=commands.count, default=1, help="default: %(default)s")
    add("--seconds", type=commands.seconds, help="for everything together")
    add("--commit", help="of the code, where git cannot tell")
    add("rest", nargs="*", metavar="ARGUMENT", help="of storybench, after --")


def main(args) -> None:
    args.end = None if args.seconds is None else time.monotonic() + args.seconds
    args.out.mkdir(parents=True, exist_ok=True)
    args.results.mkdir(parents=True, exist_ok=True)
    try:
        _latency(args)
        times = sorted(args.results.glob("latency-*.json"))
        times = ["--latency", *times] if times else []
        _bench(args, "storybench", *times)
        _bench(args, "sweep", "--sweep")
        best = winners(args.out / "sweep")
        _bench(args, "sweep", "--sweep", "--half", "reporting", "--methods", *best)
        _bench(args, "units", "--units")
        if "--case-file" not in args.rest:
            _bench(args, "storybench-second", "--second", *times)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here")
        sys.exit(130)
    finally:
        gather(args.out, args.results)
    print(f"results are in {args.results}")


def _left(args) -> float | None:
    """Seconds for the next step, None without an end; 0 where there is no time to begin it."""
    return None if args.end is None else max(0.0, args.end - time.monotonic() - SLACK)


def _latency(args) -> None:
    """Before all else, as nothing may run beside it; once for each kind of device."""
    import torch

    file = args.results / f"latency-{'cuda' if torch.cuda.is_available() else 'cpu'}.json"
    if not file.is_file() and _left(args) != 0:
        run(["latency", "--json", file], model=args.model)


def _bench(args, name: str, *more) -> None:
    out, seconds = args.out / name, _left(args)
    if seconds == 0 and (args.seconds or not out.is_dir()):
        print(f"no time for storybench {' '.join(map(str, more))}")
        return
    options = {"model": args.model, "commit": args.commit}
    options["seconds"] = None if seconds is None else round(seconds)
    processes = 1 if seconds == 0 else args.processes
    run(["storybench", *args.rest, *more, "--out", out], processes, **options)


def run(command: list, processes: int = 1, **options) -> int:
    """One of ivkit.bench's commands, by several processes; its exit code. options: those that are
    None are left out.

    A step that fails is told of, and the next one goes on: each keeps what it has.
    """
    many = ["accelerate.commands.launch", "--multi_gpu", "--num_machines", 1]
    many += [
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--num_processes",
        processes,
        "-m",
    ]
    given = [(f"--{name}", value) for name, value in options.items() if value is not None]
    command = ["-m", *(many if processes > 1 else []), "ivkit.bench", *command, *chain(*given)]
    process = subprocess.Popen([sys.executable, *map(str, command)])
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()  # it was stopped by the same key, and writes its tables now
        raise
    if code:
        print(f"ended with {code}: python {' '.join(map(str, command))}")
    return code


def winners(sweep: Path) -> list[str]:
    """The sweep's settings that the reporting half is to judge: its best on the tuning half, and
    the package's own; the latter alone where there is no sweep yet."""
    file = sweep / "results.json"
    if not file.is_file():
        return [OWN]
    ranking = json.loads(file.read_text(encoding="utf-8"))["ranking"].get("tuning", [])
    return list(dict.fromkeys([*(name for name, _ in ranking[:BEST]), OWN]))


def gather(out: Path, results: Path) -> None:
    """Copies the small files of each step to `results`, and their tables into one tables.md."""
    texts = []
    for name in PARTS:
        if (out / name / "results.json").is_file():
            for kind in ("csv", "json"):
                with whole(results / f"{name}.{kind}") as part:
                    shutil.copyfile(out / name / f"results.{kind}", part)
            texts.append((out / name / "tables.md").read_text(encoding="utf-8"))
    if texts:
        write_text(results / "tables.md", "\n".join(texts))
