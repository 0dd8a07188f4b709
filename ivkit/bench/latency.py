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
    add = parser.add_argument
    add("--model", default="storybook", help="default: %(default)s")
    add("--steps", type=commands.count, help="default: the model's own")
    add("--repeat", type=commands.count, default=3, help="default: %(default)s")
    add("--json", type=commands.new_file, help="also write the figures here")


def main(args) -> None:
    import ivkit as iv

    imported = import_seconds()
    begun = perf_counter()
    pipe = iv.load(args.model)
    figures = {"model": args.model, "load_seconds": perf_counter() - begun}
    figures |= {"import_seconds": imported} | measure(pipe, args.steps, args.repeat)
    tell(args, figures, table(figures))


def tell(args, figures: dict, text: str) -> None:
    """Print the text, and write the figures where --json says."""
    print(text)
    if args.json is not None:
        write_text(args.json, json.dumps(figures, indent=2) + "\n")


def facts(pipe) -> dict:
    """What seconds depend on."""
    import ivkit as iv
    from ivkit.support.machine import device_name

    where = {"device": str(pipe.device), "machine": device_name(), "versions": iv.versions()}
    dtype = str(pipe.model.dtype).removeprefix("torch.")
    return where | {"dtype": dtype, "date": date.today().isoformat()}


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
    from ivkit.support.machine import peak_memory_mb

    seeds = count()  # never the same clip twice: what the pipeline keeps of a run must not be timed
    steps = {} if num_inference_steps is None else {"num_inference_steps": num_inference_steps}

    def image():
        return pipe.image(TEXT, seed=next(seeds), **steps)

    def content(picture):
        sun = iv.Stroke(_at(picture, (0.65, 0.2), (0.75, 0.2)), width=picture.height / 8)
        how = {"strokes": [sun], "strength": 0.7, "seed": next(seeds)}
        return pipe.image(EDIT_TEXT, picture, **how, **steps)

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
    peak = torch.cuda.max_memory_allocated() / 1e6 if cuda else peak_memory_mb()
    size = {"num_inference_steps": len(run.trace), "num_frames": frames}
    return seconds | {"peak_memory_mb": peak} | size | facts(pipe)


def table(figures: dict) -> str:
    """The figures as lines a person reads."""
    names = {"import": "import ivkit", "load": "load the model"}
    names |= {name: f"{name} instruction" for name in ("image", "content", "motion", "trajectory")}
    names["whole_job"] = "whole job"
    rows = {said: f"{figures[f'{name}_seconds']:.2f} s" for name, said in names.items()}
    frame = 1000 * figures["trajectory_frame_seconds"]
    rows["trajectory instruction"] += f" ({frame:.0f} ms a frame)"
    rows["peak memory"] = f"{figures['peak_memory_mb']:.0f} MB"
    head = (
        f"{figures['model']} on {figures['device']} in {figures['dtype']}: "
        f"{figures['num_frames']} frames, {figures['num_inference_steps']} steps"
    )
    return "\n".join([head, *(f"  {name:24s}{value}" for name, value in rows.items())])


def import_seconds() -> float:
    """Seconds that `import ivkit` takes in a fresh interpreter."""
    code = "import time; t = time.perf_counter(); import ivkit; print(time.perf_counter() - t)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return float(run.stdout)


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
