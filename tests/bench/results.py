"""Write the tables of media/results/README.md anew, from the files that lie beside it.

A table stands between `<!-- NAME -->` and `<!-- end -->`; NAME is one of `TABLES`.
"""

import json
import re

from ivkit.bench.tables import markdown
from ivkit.support.disk import write_text
from tests.bench.record import MEDIA

RESULTS = MEDIA / "results"
PLACE = re.compile(r"<!-- (\w+) -->\n.*?<!-- end -->", re.DOTALL)

METHODS = {
    "t2v": "text alone (AnimateDiff's role)",
    "i2v": "no interaction (PIA's role)",
    "swap": "condition swap (the authors' code)",
    "paired": "blend, reading `paired`",
    "shared": "blend, reading `shared`",
    "align": "`paired` and Eq. 5",
    "dual-clock": "`paired`, the drag by dual-clock denoising alone",
    "both": "both mechanisms and Eq. 5, the package's own",
    "still": 'the same, the drag on the still (`source="still"`)',
    "warp": "cut and drag, no model",
    "frozen": "frozen picture",
}
MEASURES = {
    "image": ("image alignment", "{:.3f}"),
    "text": ("text alignment", "{:.3f}"),
    "motion_obeyed": ("motion obeyed", "{:.0%}"),
    "drag_distance": ("drag distance", "{:.1%}"),
    "background": ("background dB", "{:.1f}"),
    "edit_kept": ("edit kept", "{:.0%}"),
    "edit_named": ("edit named", "{:.0%}"),
    "flicker": ("flicker", "{:.2f}"),
}
UNITS = {
    "v, paired": "`paired`, in v (the default)",
    "eps, paired": "`paired`, in ε (the paper's letter)",
    "x0, paired": "`paired`, in x̂0",
    "v, shared": "`shared` (all units are one)",
}
STAGES = {
    "image_seconds": "image instruction",
    "content_seconds": "content instruction (strokes)",
    "motion_seconds": "motion instruction (unedited clip)",
    "trajectory_seconds": "trajectory instruction (field, warped frames)",
    "whole_job_seconds": "**whole job**",
    "peak_memory_mb": "peak memory, MB",
}
PIA = {
    "stock": "diffusers' `PIAPipeline`, one clip",
    "naive_blend": "the blend as two stock clips",
    "one_by_one": "the blend here, branch by branch",
    "one_batch": "all branches in one batch",
    "tuned": "`speed_up(compile=False)`",
    "compiled_blocks": '`speed_up(compile="blocks")`',
    "compiled": '`speed_up(compile="whole", graphs=False)`',
    "compiled_batch": "the same, both branches compiled as one batch",
    "graphs": "`speed_up()`: compiled whole, recorded as CUDA graphs",
    "graphs_second_edit": "a second edit of the same clip",
    "reuse_3": "`speed_up(reuse=3)`: deep features kept over 3 steps (approximate)",
    "reuse_4": "`speed_up(reuse=4)`",
    "reuse_5": "`speed_up(reuse=5)`",
}


def add_arguments(parser) -> None:
    pass


def main(args) -> None:
    path = RESULTS / "README.md"
    write_text(path, filled(path.read_text(encoding="utf-8")))
    print(path)


def filled(text: str) -> str:
    """The page with each of its tables as the files give it."""
    return PLACE.sub(lambda m: f"<!-- {m[1]} -->\n{TABLES[m[1]]()}\n<!-- end -->", text)


def read(name: str) -> dict:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def storybench(name: str = "storybench", titles: dict[str, str] = METHODS) -> str:
    means = read(f"{name}.json")["means"]["all"]
    rows = [
        [titles[name], *(form.format(row[key][0]) for key, (_, form) in MEASURES.items())]
        for name, row in sorted(means.items(), key=lambda item: [*titles].index(item[0]))
    ]
    return markdown(["", *(head for head, _ in MEASURES.values())], rows)


def latency() -> str:
    machines = [read(path.name) for path in sorted(RESULTS.glob("latency-*.json"))]
    heads = [f"{m['machine'].split(', ')[0]}, {m['num_inference_steps']} steps" for m in machines]
    return markdown(
        ["seconds", *heads],
        [[title, *(f"{m[key]:.3g}" for m in machines)] for key, title in STAGES.items()],
    )


def notebooks() -> str:
    figures = {
        "seconds": read("notebooks.json")["notebooks"],
        "held to AVX2 and float32": read("notebooks-avx2.json")["notebooks"],
    }
    names, rows = sorted(figures["seconds"]), []
    for title, found in figures.items():
        seconds = [found[name]["seconds"] for name in names]
        rows.append([title, *(f"{s:.0f}" for s in (*seconds, sum(seconds)))])
    memory = [figures["seconds"][name]["peak_memory_mb"] for name in names]
    rows.append(["MB", *(f"{mb:.0f}" for mb in (*memory, max(memory)))])
    return markdown(["chapter", *(name[:2] for name in names), "all"], rows)


def pia() -> str:
    found = read("gpu.json")
    found = found["more"] | found["pia"]
    decibels, rows = read("caching.json")["caching"], []
    for key, title in PIA.items():
        seconds, memory = found[f"{key}_seconds"], found[f"{key}_peak_gb"]
        of_stock = seconds / found["stock_seconds"]
        loss = decibels.get(f"{key}_db_of_25_steps")
        rows.append([title, f"{seconds:.1f}", f"{of_stock:.2f}", f"{memory:.1f}"])
        rows[-1].append("" if loss is None else f"{loss:.0f}")
    return markdown(["", "seconds", "of one stock clip", "peak GB", "dB to the exact clip"], rows)


TABLES = {
    "storybench": storybench,
    "second": lambda: storybench("storybench-second"),
    "units": lambda: storybench("units", UNITS),
    "latency": latency,
    "notebooks": notebooks,
    "pia": pia,
}
