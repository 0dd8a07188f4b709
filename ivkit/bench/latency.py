"""Seconds of each instruction and of the whole job (the paper's Table 2), and peak memory.

Every figure is the median of --repeat runs after one that is not counted, except the whole job,
which is measured once from a cold start: what a person waits for the first time.
"""

import json
import subprocess
import sys
from datetime import date
from itertools import count
from statistics import median
from time import perf_counter

from ..support import commands
from ..support.disk import write_text

TEXT = "a boat on the blue sea at day"
EDIT_TEXT = "a sun and a boat on the blue sea at day"
MOTION = "the boat moves right"


def add_arguments(parser) -> None:
    parser.add_argument("--model", default="storybook", help="default: %(default)s")
    parser.add_argument(
        "--steps", type=commands.count, default=None, help="default: the model's own"
    )
    parser.add_argument("--repeat", type=commands.count, default=3, help="default: %(default)s")
    parser.add_argument(
        "--json", type=commands.new_file, default=None, help="also write the figures here"
    )


def main(args) -> None:
    import ivkit as iv

    imported = import_seconds()
    begun = perf_counter()
    pipe = iv.load(args.model)
    figures = {"model": args.model, "load_seconds": perf_counter() - begun}
    figures |= {"import_seconds": imported} | measure(pipe, args.steps, args.repeat)
    print(table(figures))
    if args.json is not None:
        write_text(args.json, json.dumps(figures, indent=2) + "\n")


def measure(pipe, num_inference_steps: int | None = None, repeat: int = 3) -> dict:
    """Time the four instructions and the whole job on a loaded pipeline.

    Returns:
        `image_seconds`: text to picture. `content_seconds`: strokes and text to edited picture.
        `motion_seconds`: picture and motion text to clip, no edit. `trajectory_seconds`: a drag to
        field and warped frames (`trajectory_frame_seconds`: the same, per frame).
        `whole_job_seconds`: all of them with both branches blended, decoded and aligned.
        `peak_memory_mb`: of the GPU's memory on CUDA, else of the process.
        `device`, `machine`, `dtype`, `num_inference_steps`, `num_frames`, `date`, `versions`.
    """
    import torch

    import ivkit as iv
    from ivkit.support.machine import device_name, peak_memory_mb

    seeds = count()  # never the same clip twice: what the pipeline keeps of a run must not be timed
    steps = {} if num_inference_steps is None else {"num_inference_steps": num_inference_steps}

    def image():
        return pipe.image(TEXT, seed=next(seeds), **steps)

    def content(picture):
        sun = iv.Stroke(_at(picture, (0.65, 0.2), (0.75, 0.2)), width=picture.height / 8)
        return pipe.image(
            EDIT_TEXT, picture, strokes=[sun], strength=0.7, seed=next(seeds), **steps
        )

    def motion(picture, **edits):
        return pipe.video(picture, MOTION, seed=next(seeds), **edits, **steps)

    def drag(picture):
        path = _at(picture, (0.5, 0.6), (0.75, 0.5))
        return iv.Drag(path=path, mask=_disc(picture, path[0], picture.height / 6))

    begun = perf_counter()
    picture = image()
    edited = content(picture)
    run = motion(picture, edited=edited, drags=[drag(edited)], lam=0.3)
    whole = perf_counter() - begun
    frames = len(run.frames)
    trajectory = _median_seconds(lambda: iv.warp(edited, drag(edited), frames).field, repeat)
    seconds = {
        "image_seconds": _median_seconds(image, repeat),
        "content_seconds": _median_seconds(lambda: content(picture), repeat),
        "motion_seconds": _median_seconds(lambda: motion(picture), repeat),
        "trajectory_seconds": trajectory,
        "trajectory_frame_seconds": trajectory / frames,
        "whole_job_seconds": whole,
    }
    cuda = torch.device(pipe.device).type == "cuda"
    return {
        **seconds,
        "peak_memory_mb": torch.cuda.max_memory_allocated() / 1e6 if cuda else peak_memory_mb(),
        "device": str(pipe.device),
        "machine": device_name(),
        "date": date.today().isoformat(),
        "dtype": str(pipe.model.dtype).removeprefix("torch."),
        "num_inference_steps": len(run.trace),
        "num_frames": frames,
        "versions": iv.versions(),
    }


def table(figures: dict) -> str:
    """The figures as lines a person reads."""
    rows = [
        ("import ivkit", f"{figures['import_seconds']:.2f} s"),
        ("load the model", f"{figures['load_seconds']:.2f} s"),
        ("image instruction", f"{figures['image_seconds']:.2f} s"),
        ("content instruction", f"{figures['content_seconds']:.2f} s"),
        ("motion instruction", f"{figures['motion_seconds']:.2f} s"),
        (
            "trajectory instruction",
            f"{figures['trajectory_seconds']:.2f} s"
            f" ({1000 * figures['trajectory_frame_seconds']:.0f} ms a frame)",
        ),
        ("whole job", f"{figures['whole_job_seconds']:.2f} s"),
        ("peak memory", f"{figures['peak_memory_mb']:.0f} MB"),
    ]
    head = (
        f"{figures['model']} on {figures['device']} in {figures['dtype']}: "
        f"{figures['num_frames']} frames, {figures['num_inference_steps']} steps"
    )
    return "\n".join([head, *(f"  {name:24s}{value}" for name, value in rows)])


def import_seconds() -> float:
    """Seconds that `import ivkit` takes in a fresh interpreter."""
    code = "import time; t = time.perf_counter(); import ivkit; print(time.perf_counter() - t)"
    return float(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    )


def _median_seconds(call, repeat: int) -> float:
    call()
    seconds = []
    for _ in range(repeat):
        begun = perf_counter()
        call()
        seconds.append(perf_counter() - begun)
    return median(seconds)


def _at(picture, *shares):
    """Points of a picture, given as shares of its width and height."""
    return [(x * picture.width, y * picture.height) for x, y in shares]


def _disc(picture, centre, radius):
    import numpy as np

    y, x = np.mgrid[: picture.height, : picture.width]
    return np.hypot(x - centre[0], y - centre[1]) <= radius
