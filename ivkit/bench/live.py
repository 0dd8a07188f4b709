"""Frames a second of a live stream, and how long a pull of the pointer waits, without a browser.

    python -m ivkit.bench live --json outputs/live.json

A chunk of four frames is timed from the call to the decoded pixels: with nothing held, with a thing
held and moved before every chunk, and with lam = 0.5, where the unedited stream runs beside it. The
delay is from a move of the pointer to the frame that shows the thing there: a chunk, and on average
half of the one that was under way.
"""

from statistics import median
from time import perf_counter

from ..support import commands
from .latency import facts, tell

TEXT, MOTION = "a boat on the blue sea at day", "the waves roll"


def add_arguments(parser) -> None:
    add = parser.add_argument
    add("--model", default="storybook", help="default: %(default)s")
    add("--chunks", type=commands.count, default=16, help="of each kind; default: %(default)s")
    add("--json", type=commands.new_file, help="also write the figures here")


def main(args) -> None:
    import ivkit as iv

    figures = measure(iv.load(args.model), args.chunks)
    tell(args, figures, table(figures))


def measure(pipe, chunks: int = 16) -> dict:
    """Medians over `chunks` chunks of each kind, after two that are not counted.

    Returns `frames_per_second`, `frames_per_second_dragged`, `frames_per_second_two_streams`,
    `delay_seconds`, and what was measured where.
    """
    import torch

    from ivkit.models.live import NEW

    stream = pipe.live(pipe.image(TEXT, seed=5), MOTION)
    w, h = pipe.size

    def seconds(before=lambda i: None) -> float:
        found = []
        for i in range(chunks + 2):
            before(i)
            begun = perf_counter()
            next(stream)
            found.append(perf_counter() - begun)
        return median(found[2:])

    plain = seconds()
    handle = stream.grab((0.3 * w, 0.65 * h))
    dragged = seconds(lambda i: stream.move(handle, ((0.3 + 0.3 * (i % 2)) * w, 0.6 * h)))
    stream.lam = 0.5
    both = seconds()
    return {
        "frames_per_second": NEW / plain,
        "frames_per_second_dragged": NEW / dragged,
        "frames_per_second_two_streams": NEW / both,
        "delay_seconds": 1.5 * dragged,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        **facts(pipe),
    }


def table(figures: dict) -> str:
    """The figures as lines a person reads."""
    names = {"": "nothing held", "_dragged": "a thing held", "_two_streams": "lam 0.5"}
    rows = [f"  {n:16s}{figures[f'frames_per_second{k}']:6.1f} frames/s" for k, n in names.items()]
    head = (
        f"live on {figures['device']} in {figures['dtype']} ({figures['machine']}, "
        f"{figures['processor']}, {figures['threads']} threads)"
    )
    return "\n".join([head, *rows, f"  delay of a pull {figures['delay_seconds']:6.2f} s"])
