"""Runs cases x methods: resumes, survives a broken case and Ctrl-C, splits over processes.

A row is written the moment it is measured (`rows-*.jsonl`, one file a process), and the tables are
made from the rows alone, so whatever was finished counts whoever finished it. `runs.jsonl` says of
each start what it was; every row names the run that made it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ..support import commands
from ..support.disk import append, write_text
from . import scores, study, tables
from .methods import Maker, Method

INTERRUPTED, TIME_IS_UP = "stopped", "time is up"


def add_arguments(parser) -> None:
    """What StoryBench and AnimateBench both take."""
    add, kept = parser.add_argument, "later, and 0 writes the tables of what is there"
    add("--model", help="a checkpoint's name or folder")
    add("--methods", nargs="+", metavar="NAME", help="these methods alone")
    add("--lam", type=float, default=0.3, help="of the blends (default: %(default)s)")
    add("--steps", type=commands.count, help="default: the model's own")
    add("--clip", help="CLIP model: a hub id, a folder or storybook")
    add("--out", type=commands.folder, help="default: outputs/BENCHMARK/MODEL")
    add(
        "--keep-clips",
        action="store_true",
        help="keep every clip as out/clips/CASE/METHOD.mp4, for the blind study",
    )
    add(
        "--latency",
        type=commands.file,
        nargs="+",
        metavar="JSON",
        help="of `python -m ivkit.bench latency --json`, one a machine, for Table 2",
    )
    add(
        "--study",
        type=commands.file,
        nargs="+",
        metavar="CSV",
        help="answers of a blind study, for Table 1",
    )
    add(
        "--seconds",
        type=commands.seconds,
        help="begin no clip after so many seconds, loading "
        f"included; the same command goes on {kept}",
    )
    add("--commit", help="of the code, where git cannot tell (default: git's)")


def main(
    args, cases: Sequence, build: Callable, methods: dict[str, Method], title: str, sweep=False
) -> None:
    """The whole of a benchmark's command. cases have `.id`; build(case, size) makes the Job."""
    begun = time.perf_counter()
    chosen = _checked(args, methods)
    state = _processes()
    _share_cores(state.num_processes)
    import ivkit as iv

    device = state.device if state.num_processes > 1 else None
    pipe = iv.load(args.model, device=device)
    size = square(pipe)
    options = {} if args.steps is None else {"num_inference_steps": args.steps}
    other = getattr(args, "t2v", None)  # a checkpoint for text alone; see methods.text_only
    t2v = iv.load(other, device=device) if other else None
    clip = scores.Clip(args.clip, pipe.device)
    settings = {"benchmark": title, "size": size, "dtype": str(pipe.model.dtype)}
    settings |= {name: getattr(args, name) for name in ("model", "lam", "steps", "clip")}
    settings["weights"] = scores.fingerprint(pipe.model.folder)
    this = tables.provenance(state.num_processes, args.commit)
    this |= {"device": str(pipe.device), "processes": state.num_processes}
    store = Store(args.out, settings, state, this)
    before, loaded = len(store.rows()), time.perf_counter()
    work = Work(
        Maker(pipe, args.lam, t2v, **options),
        clip,
        chosen,
        lambda case: build(case, size),
        store,
        clips=args.out / "clips" if args.keep_clips else None,
        threads=0 if pipe.device.type == "cpu" else 4,
        deadline=None if args.seconds is None else begun + args.seconds,
    )
    stopped = work.run(cases, state)
    if stopped == INTERRUPTED:  # a launcher passes the key on: once is enough
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:
        together(state)
    took = time.perf_counter() - loaded
    if not state.is_main_process:
        sys.exit(130 if stopped == INTERRUPTED else 0)
    rows, new = store.rows(), len(store.rows()) - before
    wanted = {case.id for case in cases}
    finished = [r for r in rows if r["case"] in wanted and r["method"] in work.names]
    names = list(methods)
    # A sweep's settings come together from several calls, see `full`.
    rows = [r for r in rows if r["method"] in names] if sweep else finished
    rows.sort(key=lambda r: names.index(r["method"]))
    made = list(dict.fromkeys(r["method"] for r in rows))
    facts = settings | this | {"run_seconds": round(took, 1), "run_clips": new, "methods": made}
    facts |= {"cases": len({r["case"] for r in rows}), "runs": store.runs(rows)}
    if rows:
        text = tables.write(args.out, rows, facts, sweep, args.latency, args.study)
        print("\n" + text)
    errors = store.errors()
    print(
        f"\n{len(finished)} of {len(wanted) * len(chosen)} clips are measured, {new} of them "
        f"here and now in {took:.0f} s with {state.num_processes} process(es); in {args.out}"
    )
    for error in errors:
        print(f"  broken: {error['case']}, {error['method']}: {error['error']}")
    if stopped:
        print(f"{stopped}; the same command goes on from here")
    if stopped == INTERRUPTED:
        sys.exit(130)
    if errors:
        sys.exit(1)


def _checked(args, methods: dict[str, Method]) -> list[Method]:
    names = args.methods or list(methods)
    for name in names:
        if name not in methods:
            raise ValueError(f"--methods: {name!r} is not known; known are {', '.join(methods)}")
    if not 0 <= args.lam <= 1:
        raise ValueError(f"--lam must be in [0, 1], got {args.lam}")
    return [methods[name] for name in names]


def square(pipe) -> int:
    """The side of the square clips that this pipeline is given, in pixels."""
    side = min(pipe.size)
    return side - side % pipe.model.multiple


def _processes():
    """accelerate's view of the processes; a slow one may take half a day longer than the rest.

    They only ever wait for each other, by gloo, so that several can share one GPU.
    """
    import torch
    from accelerate import PartialState

    if "WORLD_SIZE" in os.environ:
        cpu = not torch.cuda.is_available()
        return PartialState(cpu=cpu, backend="gloo", timeout=timedelta(hours=12))
    return PartialState()


def together(state) -> None:
    """Wait until every process is here (accelerate's own way takes a GPU for each).

    No tensor of Python's is sent for that: gloo's thread lets go of it when it comes to it, and
    where that is after Python has begun to end, the process aborts.
    """
    if state is not None and state.num_processes > 1:
        import torch

        torch.distributed.barrier()


def _share_cores(processes: int) -> None:
    """Of several processes each gets its share of the cores."""
    if processes > 1:
        import cv2
        import torch

        threads = max(1, (os.cpu_count() or 1) // processes)
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)


class Store:
    """A folder of rows. ValueError where it holds those of other settings.

    run: what this start is (command, date, machine ...), kept once for all its rows.
    """

    def __init__(self, folder: Path, settings: dict, state=None, run: dict | None = None):
        self.folder = Path(folder)
        index = 0 if state is None else state.process_index
        self.errors_file = self.folder / f"errors-{index}.jsonl"
        self.file = self.folder / f"rows-{index}.jsonl"
        first = state is None or state.is_main_process
        for turn in (True, False):
            if turn == first:
                self._open(settings, first)
                if first:
                    self._append(self.folder / "runs.jsonl", run or {})
            together(state)
        self.run = len(self._read("runs")) - 1

    def _open(self, settings: dict, first: bool) -> None:
        note = self.folder / "settings.json"
        if note.is_file():
            before = json.loads(note.read_text())
            other = [k for k in settings if before.get(k) != settings[k]]
            if other:
                k = other[0]
                raise ValueError(
                    f"--out {self.folder} holds results with {k} {before.get(k)!r}, not "
                    f"{settings[k]!r}: name another folder, or remove that one"
                )
        elif first:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(note, json.dumps(settings, indent=2) + "\n")
        if first:
            for file in self.folder.glob("errors-*.jsonl"):
                file.unlink()

    def rows(self) -> list[dict]:
        """All finished rows, one for each case and method, in an order of their own."""
        found = {(r["case"], r["method"]): r for r in self._read("rows")}
        return [found[key] for key in sorted(found)]

    def errors(self) -> list[dict]:
        return self._read("errors")

    def runs(self, rows: Sequence[dict]) -> list[dict]:
        """What each run that made any of these rows was, and how many it made."""
        made = Counter(row["run"] for row in rows)
        return [{**run, "clips": made[i]} for i, run in enumerate(self._read("runs")) if made[i]]

    def add(self, row: dict) -> None:
        self._append(self.file, {**row, "run": self.run})

    def add_error(self, row: dict) -> None:
        self._append(self.errors_file, row)

    def _read(self, kind: str) -> list[dict]:
        return read_lines(self.folder, kind)

    @staticmethod
    def _append(file: Path, row: dict) -> None:
        append(file, f"{json.dumps(row)}\n".encode())


def read_lines(folder: Path, kind: str) -> list[dict]:
    """The "rows", "runs" or "errors" that the processes wrote into a Store's folder."""
    found = []
    for file in sorted(folder.glob(f"{kind}*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # cut off when the machine stopped: that one is made again
                found.append(json.loads(line))
    return found


class _TimeIsUp(Exception):
    pass


@dataclass
class Work:
    """The loop over cases and methods of one process.

    Attributes:
        build: makes a case's Job.
        clips: where the clips are kept, if they are.
        threads: how many measure clips while the next ones are made; with 0 each clip waits to be
            measured, which is faster where the model runs on the CPU too.
        deadline: of `perf_counter`; after it no clip is begun.
    """

    maker: Maker
    clip: scores.Clip | None
    methods: Sequence[Method]
    build: Callable
    store: Store
    clips: Path | None = None
    threads: int = 0
    deadline: float | None = None

    @property
    def names(self) -> list[str]:
        return [method.name for method in self.methods]

    def run(self, cases: Sequence, state=None) -> str:
        """Does what is left of the cases; INTERRUPTED where Ctrl-C stopped it, TIME_IS_UP where the
        deadline did, else empty."""
        from tqdm.auto import tqdm

        done = {(r["case"], r["method"]) for r in self.store.rows()}
        left = [c for c in cases if any((c.id, m) not in done for m in self.names)]
        together(state)  # all have read the same rows: the split is of one list
        split = nullcontext(left) if state is None else state.split_between_processes(left)
        main = state is None or state.is_local_main_process
        with split as mine, ThreadPoolExecutor(max(1, self.threads)) as self.pool:
            total = sum((c.id, m) not in done for c in mine for m in self.names)
            with tqdm(total=total, desc="clips", unit="clip", disable=not main) as self.bar:
                try:
                    for case in mine:
                        self._check_time()
                        methods = [m for m in self.methods if (case.id, m.name) not in done]
                        self._case(case, methods)
                except KeyboardInterrupt:
                    return INTERRUPTED
                except _TimeIsUp:
                    return TIME_IS_UP
        return ""

    def _check_time(self) -> None:
        if self.deadline is not None and time.perf_counter() > self.deadline:
            raise _TimeIsUp

    def _case(self, case, methods: Sequence[Method]) -> None:
        try:
            job = self.build(case)
            edited = self.maker.begin(job)
        except Exception as error:
            self._broken(case, "all", error)
            self.bar.update(len(methods))
            return
        waiting: list[tuple[Method, Future]] = []
        try:
            for method in methods:
                self._check_time()
                self.bar.set_postfix_str(f"{case.id} {method.name}")
                if not self.maker.can(method):
                    self.bar.update()
                    continue
                try:
                    begun = time.perf_counter()
                    frames = self.maker.frames(method)
                    seconds = time.perf_counter() - begun
                except Exception as error:
                    self._broken(case, method.name, error)
                    self.bar.update()
                    continue
                task = self.pool.submit(self._measure, job, method, frames, edited, seconds)
                waiting.append((method, task))
                while waiting and (waiting[0][1].done() or len(waiting) > self.threads):
                    self._write(case, *waiting[0])
                    waiting.pop(0)  # after it is written: a Ctrl-C in between loses nothing
        finally:  # what was made before a Ctrl-C is kept too
            for method, task in waiting:
                self._write(case, method, task)

    def _measure(self, job, method: Method, frames, edited, seconds: float) -> dict:
        if self.clips is not None:
            study.keep(self.clips, job, edited, method.name, frames)
        row = {"case": job.id, "method": method.name, "group": job.group, "half": job.half}
        return row | {"seconds": seconds} | scores.measure(frames, job, edited, self.clip)

    def _write(self, case, method: Method, task: Future) -> None:
        try:
            self.store.add(task.result())
        except Exception as error:
            self._broken(case, method.name, error)
        self.bar.update()

    def _broken(self, case, method: str, error: Exception) -> None:
        text = " ".join(traceback.format_exception_only(error)).strip()
        self.store.add_error({"case": case.id, "method": method, "error": text})
        self.bar.write(f"broken: {case.id}, {method}: {text}")
