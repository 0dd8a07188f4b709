"""The blend against the stock pipelines: time, memory and the distance to the chip, on one GPU.

Full-size random weights in half precision. Ways to be faster are tried one after the other, from
the plain blend to compiled networks and recorded graphs, each timed in the same run as the stock
pipeline. What fails is noted and the rest goes on; everything so far is saved after each way.
`--tiny` rehearses it all on a CPU.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

from ivkit.support import commands
from ivkit.support.disk import write_text

MOTION = "the boat moves right"
GOALS = {
    "exact_of_stock": 1.0,
    "cached_of_stock": 0.5,
    "cached_db": 30.0,
    "second_edit_of_first": 0.55,
    "stroke_ms": 8.0,
    "peak_gb": 8.0,
}
KERNELS = {
    "attention": r"flash|fmha|sdpa|attention|_one_pixel_and_head",
    "convolutions": r"conv|fprop|implicit|cudnn|nhwc",
    "matrix products": r"gemm|cutlass|nvjet|cublas|addmm|aten::mm|bmm",
    "copies": r"memcpy|memset|copy|catarray",
}  # the rest: norms and elementwise


def add_arguments(parser) -> None:
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--steps", type=commands.count, default=25, help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="small models, any device")
    parser.add_argument(
        "--seconds",
        type=float,
        default=540,
        help="what would take longer is left out; default: %(default)s",
    )
    parser.add_argument("--peak", type=float, default=790, help="TFLOP/s; default: %(default)s")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--out", type=commands.deep_file, default=Path("outputs/gpu.json"))


def main(args) -> None:
    import torch

    from ivkit.support.machine import device_name, versions

    if not args.tiny and not torch.cuda.is_available():
        sys.exit("no CUDA device is here; --tiny rehearses the benchmark on a CPU")
    bench = Bench(args, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    bench.found |= {
        "device": device_name(),
        "dtype": str(bench.dtype),
        "versions": versions(),
        "steps": args.steps,
        "tiny": args.tiny,
        "goals": GOALS,
    }
    if args.out.is_file():  # what an earlier run found of other sections stays
        before = json.loads(args.out.read_text())
        if before.get("device") == bench.found["device"] and before.get("tiny") == args.tiny:
            bench.found = before | bench.found
    for i, name in enumerate(args.only):
        bench.section(name)
        if not bench.alive():
            return bench.begin_anew(args.only[i + 1 :])
    print(f"saved in {args.out}")


@dataclass
class Bench:
    """One run: what is asked for, what was found, and the clock."""

    args: object
    device: object
    found: dict = field(default_factory=dict)
    here: dict = field(default_factory=dict)  # of the section at work
    begun: float = field(default_factory=perf_counter)

    @property
    def dtype(self):
        import torch

        return torch.float16 if self.on_gpu else torch.float32

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        return self.args.seconds - (perf_counter() - self.begun)

    def section(self, name: str) -> None:
        self.here = self.found[name] = {}
        started = perf_counter()
        print(name, flush=True)
        if self.left < 0:
            print(f"  left out, the time is over (run it with --only {name})", flush=True)
            return
        self._try("", SECTIONS[name], self)
        self.here["section_seconds"] = perf_counter() - started
        self.save()
        if self.on_gpu and self.alive():
            self.let_go()

    def way(self, name: str, need: float, call, *inputs, **options) -> bool:
        """One way within a section: `call` returns what it found.

        need: seconds that it takes on an H100, about; it is left out where less is left.
        """
        if self.left < (need if self.on_gpu else 0):
            self.note({f"{name}_left_out": f"{self.left:.0f} s were left"})
            return False
        return self._try(name, lambda: self.note(call(*inputs, **options)))

    def _try(self, name: str, call, *inputs) -> bool:
        try:
            call(*inputs)
        except Exception as error:  # one way's failure must not cost the others their figures
            said = f"{type(error).__name__}: {str(error).strip()[:300]}"
            self.note({f"{name}_error" if name else "error": said})
            traceback.print_exc(limit=-4)
            return False
        return True

    def note(self, found: dict) -> None:
        self.here |= found
        for key, value in found.items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            print(f"  {key:28s}{shown}", flush=True)
        self.save()

    def save(self) -> None:
        write_text(self.args.out, json.dumps(self.found, indent=2, default=str) + "\n")

    def sync(self) -> None:
        import torch

        if self.on_gpu:
            torch.cuda.synchronize()

    def let_go(self) -> None:
        import torch
        from accelerate.utils.memory import clear_device_cache

        torch._dynamo.reset()
        torch.backends.cudnn.benchmark = False  # as a stock pipeline finds it
        clear_device_cache(garbage_collection=True)

    def alive(self) -> bool:
        """Whether the device still answers: an illegal access leaves this process without it."""
        try:
            self.sync()
        except RuntimeError:
            return False
        return True

    def begin_anew(self, names: list[str]) -> None:
        """The sections that are left, in a process of their own."""
        a = self.args
        options = ["--steps", a.steps, "--seconds", self.left, "--peak", a.peak, "--out", a.out]
        options += ["--no-compile"] * (not a.compile) + ["--tiny"] * a.tiny
        if names:
            call = [sys.executable, "-m", "tests.bench", "gpu", "--only", *names, *options]
            subprocess.run([str(part) for part in call], check=False)

    def timed(self, name: str, call, warm=None) -> dict:
        """Seconds of one call after `warm`, and on a GPU its peak memory."""
        import torch

        if warm is not None:
            begun = perf_counter()
            warm()
            self.sync()
            first = {f"{name}_first_seconds": perf_counter() - begun}
        self.sync()
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        begun = perf_counter()
        call()
        self.sync()
        found = {f"{name}_seconds": perf_counter() - begun}
        if self.on_gpu:
            found[f"{name}_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        return found if warm is None else first | found

    def parts(self, make, bfloat: bool = False) -> dict:
        """The parts that `make()` makes, on the device itself, in half precision."""
        import torch

        from ivkit.models.common import cast

        torch.manual_seed(0)
        with torch.device(self.device):
            parts = make()
        dtype = torch.bfloat16 if bfloat and self.on_gpu else self.dtype
        for part in parts.values():
            if isinstance(part, torch.nn.Module):
                cast(torch.nn.Module.to(part, self.device), dtype)
                part.eval().requires_grad_(False)
        return parts


# -------------------------------------------------------------------------------------- sections


def pia(b: Bench) -> None:
    """SD 1.5 + PIA: 16 frames, 512 x 512: stock, naive blend, ours in each way."""
    from tests.bench import bodies

    side, frames, options = _pia_size(b)
    parts = b.parts(lambda: bodies.sd(b.args.tiny))
    x, edited = _picture(side), _picture(side, 1)
    _stock_pia(b, parts, x, edited, options)
    b.let_go()
    clips = _pia_clips(b, parts, x, edited, options)
    b.way("floor", 3, _floor, b, clips.pipe.model, frames, side)
    b.way("one_by_one", 30, clips.timed, "one_by_one", batch=False)
    b.way("one_batch", 20, clips.timed, "one_batch", second=False, batch=True)
    clips.ladder("whole", reuse=(3, 4, 5))
    b.way("summary", 0, _summary, b.here)


def more(b: Bench) -> None:
    """Further ways on the clip of `pia`: inner blocks compiled, both branches compiled in one."""
    from tests.bench import bodies

    side, _, options = _pia_size(b)
    parts = b.parts(lambda: bodies.sd(b.args.tiny))
    clips = _pia_clips(b, parts, _picture(side), _picture(side, 1), options)
    if not b.args.compile:
        return
    b.way(
        "compiled_batch",
        90,
        clips.faster,
        "compiled_batch",
        {"compile": "whole", "graphs": False},
        second=False,
        batch=True,
    )
    b.way(
        "compiled_blocks", 60, clips.faster, "compiled_blocks", {"compile": "blocks"}, batch=False
    )


def _pia_size(b: Bench) -> tuple[int, int, dict]:
    side, frames = (128, 4) if b.args.tiny else (512, 16)
    options = {"num_frames": frames, "num_inference_steps": b.args.steps, "guidance_scale": 7.5}
    return side, frames, options


def _pia_clips(b: Bench, parts: dict, x, edited, options: dict) -> Clips:
    from ivkit.models import pia as family
    from ivkit.pipeline import Pipeline

    facts = {"num_frames": options["num_frames"]}
    model = family.build("pia", parts, facts, device=b.device, dtype=b.dtype)
    model.size = x.size
    return Clips(b, Pipeline(model), x, edited, options)


def _stock_pia(b: Bench, parts: dict, x, edited, options: dict) -> None:
    import copy

    import torch
    from diffusers import PIAPipeline

    adapter = copy.deepcopy(parts["motion_adapter"])  # its own: the two would share a convolution
    with torch.device(b.device):
        stock = PIAPipeline(**{**parts, "motion_adapter": adapter})
    stock.set_progress_bar_config(disable=True)
    stock.to(b.device)

    def theirs(picture=x, **more):
        return stock(
            picture, MOTION, height=x.height, width=x.width, output_type="np", **{**options, **more}
        )

    short = {"num_inference_steps": 2}
    b.way("stock", 15, b.timed, "stock", theirs, lambda: theirs(**short))
    b.way("stock_profile", 5, _profile, "stock", b, lambda: theirs(**short))
    b.way("naive_blend", 20, b.timed, "naive_blend", lambda: (theirs(), theirs(edited)))


@dataclass
class Clips:
    """Our blend of a clip and its edit, made in one way after the other."""

    bench: Bench
    pipe: object
    x: object
    edited: object
    options: dict
    first: object = None  # latents of the first way, which the others are compared with

    def blend(self, lam=0.3, fresh=True, **more):
        if fresh:
            self.pipe.clear_cache()
        motion = MOTION if getattr(self.pipe.model, "max_tokens", True) else ""
        more = {"progress": False, **self.options, **more}
        return self.pipe.video(self.x, motion, edited=self.edited, lam=lam, **more)

    def short(self, **more):
        return self.blend(num_inference_steps=2, **more)

    def timed(self, name: str, second: bool = True, **more) -> dict:
        """A first edit and a second one; how far the latents are from the first way's."""
        runs = []
        found = self.bench.timed(
            name, lambda: runs.append(self.blend(**more)), lambda: self.short(**more)
        )
        found |= {f"{name}_{part}": s for part, s in runs[0].seconds.items() if part != "prepare"}
        z = runs[0].state.z
        if self.first is None:
            self.first = z
        else:
            found[f"{name}_off"] = float((z - self.first).abs().max() / self.first.std())
        if second:
            again = {"lam": 0.5, "fresh": False, **more}
            found |= self.bench.timed(f"{name}_second_edit", lambda: self.blend(**again))
        return found

    def faster(self, name: str, ways: dict, **more) -> dict:
        self.bench.note({f"{name}_did": self.pipe.speed_up(**ways)})
        return self.timed(name, **more)

    def ladder(self, compile: str, reuse=()) -> None:
        """Each way on the shoulders of the one before; where the time of the best one goes.

        compile: "whole" or "blocks", what `speed_up` does by itself for this model.
        """
        b, ways = self.bench, {"compile": False, "graphs": False}
        b.way("tuned", 30, self.faster, "tuned", ways)
        if b.args.compile:
            compiled = {"compile": compile, "graphs": False}
            if b.way("compiled", 120, self.faster, "compiled", compiled):
                ways = compiled
        b.way("profile", 5, _profile, "best", b, self.short)
        if compile == "whole" and b.on_gpu:
            recorded = {**ways, "graphs": True}
            if b.way("graphs", 25, self.faster, "graphs", recorded):
                ways = recorded
        for every in reuse:
            more = {**ways, "reuse": every}
            b.way(f"reuse_{every}", 10, self.faster, f"reuse_{every}", more, second=False)


def _summary(here: dict) -> dict:
    """The best exact way, what is cached, and both against the stock pipeline."""
    exact = {
        name: here[f"{name}_seconds"]
        for name in ("one_by_one", "one_batch", "tuned", "compiled", "compiled_whole", "graphs")
        if f"{name}_seconds" in here
    }
    best = min(exact, key=exact.get)
    stock = here["stock_seconds"]
    found = {"best": best, "exact_of_stock": exact[best] / stock}
    found |= {f"{name}_of_stock": seconds / stock for name, seconds in exact.items()}
    if "naive_blend_seconds" in here:
        found["naive_blend_of_stock"] = here["naive_blend_seconds"] / stock
    cached = {
        k: here[f"{k}_seconds"] / stock
        for k in ("reuse_3", "reuse_4", "reuse_5")
        if f"{k}_seconds" in here
    }
    found |= {f"{name}_of_stock": ratio for name, ratio in cached.items()}
    if f"{best}_second_edit_seconds" in here:
        found["second_edit_of_first"] = here[f"{best}_second_edit_seconds"] / exact[best]
    if f"{best}_peak_gb" in here:
        found["peak_gb"] = here[f"{best}_peak_gb"]
    if "floor_seconds" in here:
        found["exact_of_chip"] = 2 * here["floor_seconds"] / exact[best]
        found["stock_of_chip"] = here["floor_seconds"] / stock
    return found


def caching(b: Bench) -> None:
    """The embedded model: what reused deep features cost its clip (PSNR), and its time.

    A painted sun and a text: a drag would hold pixels, and what is held costs nothing.
    Neighbouring steps are nearer each other where there are more: at the model's own number of
    steps, and at that which the times of the large models are taken at.
    """
    import ivkit as iv
    from ivkit.bench import metrics

    pipe = iv.load("storybook", device=b.device, dtype=None if b.on_gpu else "float32")
    text = "a boat on the blue sea at day"
    x = pipe.image(text, seed=5)
    sun = iv.Stroke([(x.width * 0.8, x.height * 0.2)], colour="yellow", width=x.width / 6)
    edited = pipe.image(f"{text}, a yellow sun", x, strokes=[sun], seed=5)

    def clip(**more):
        pipe.clear_cache()
        return pipe.video(x, MOTION, edited=edited, progress=False, **more).frames

    def near(name: str, every: int, exact, steps: int | None) -> dict:
        pipe.speed_up(compile=False, graphs=False, reuse=every)
        return {name: metrics.psnr(clip(num_inference_steps=steps), exact)}

    def quick(name: str, **ways) -> dict:
        b.note({f"{name}_did": pipe.speed_up(**ways)})
        return b.timed(name, clip, clip)

    b.way("clip", 8, b.timed, "clip", clip, clip)
    for steps in (None, b.args.steps):
        pipe.speed_up(compile=False, graphs=False)
        exact = clip(num_inference_steps=steps)
        for every in (2, 3, 4, 5, 6):
            name = f"reuse_{every}_db" + (f"_of_{steps}_steps" if steps else "")
            b.way(name, 4, near, name, every, exact, steps)
    b.way("clip_tuned", 8, quick, "clip_tuned", compile=False, graphs=False)
    if b.on_gpu:
        b.way("clip_graphs", 12, quick, "clip_graphs", compile=False, graphs=True)


def brush(b: Bench) -> None:
    """Stroke to picture, 512 x 512, SD-Turbo's size with TAESD: latency, each stroke alone."""
    from ivkit.models import pia as family
    from ivkit.pipeline import Pipeline
    from tests.bench import bodies

    side = 128 if b.args.tiny else 512
    parts = b.parts(lambda: bodies.turbo(b.args.tiny))
    model = family.build("sd-turbo", parts, {}, device=b.device, dtype=b.dtype)
    model.size = (side, side)
    pipe = Pipeline(model)
    b.way("recorded", 10, _strokes, b, pipe, "recorded")
    b.way("tuned", 15, _strokes, b, pipe, "tuned", {"compile": False})
    if b.args.compile:
        b.way("compiled", 75, _strokes, b, pipe, "compiled", {"compile": "whole"})
    found = [v for k, v in b.here.items() if k.endswith("_stroke_ms")]
    b.note({"stroke_ms": min(found)} if found else {})


def _strokes(b: Bench, pipe, name: str, way: dict | None = None) -> dict:
    """Milliseconds from a stroke to its picture, of the drawing alone, and until all was ready."""
    import numpy as np
    import torch

    import ivkit as iv

    side = pipe.size[0]
    did = {} if way is None else {f"{name}_did": pipe.speed_up(**way)}
    begun = perf_counter()
    brush = pipe.brush("a sun over the sea", _picture(side), strength=0.5)
    found = {**did, f"{name}_prepare_seconds": perf_counter() - begun}
    seconds, drawing = [], []
    for i in range(24):
        brush([iv.Stroke([(side / 2 + i, side / 2), (side / 2, side / 2 + i)])])
        seconds.append(brush.seconds)
    painted = torch.from_numpy(np.array(brush.picture)).to(b.device)
    for _ in range(24):
        b.sync()
        begun = perf_counter()
        brush.draw(painted)
        b.sync()
        drawing.append(perf_counter() - begun)
    found[f"{name}_stroke_ms"] = 1000 * median(seconds)
    found[f"{name}_worst_stroke_ms"] = 1000 * max(seconds[2:])
    found[f"{name}_drawing_ms"] = 1000 * median(drawing)
    return found


def coding(b: Bench) -> None:
    """Encode and decode 16 frames of 512 x 512; a drag's field and its warped frames."""
    import torch

    import ivkit as iv
    from ivkit.models import pia as family
    from tests.bench import bodies

    side, frames = (128, 4) if b.args.tiny else (512, 16)
    parts = b.parts(lambda: bodies.sd(b.args.tiny, motion=False))
    model = family.build("sd", parts, {}, device=b.device, dtype=b.dtype)
    pixels = torch.rand(frames, 3, side, side) * 2 - 1
    z = model.encode(pixels)

    def encode():
        model._codes.clear()
        return model.encode(pixels)

    b.way("encode", 5, b.timed, "encode", encode, encode)
    for held in (1, 2, 8):
        model.decode_chunk_size = held
        name = f"decode_{held}_at_once"
        b.way(name, 5, b.timed, name, lambda: model.decode(z), lambda: model.decode(z))
    picture = _picture(side)
    drag = iv.Drag([(side * 0.4, side * 0.5), (side * 0.6, side * 0.5)], mask=_disc(picture, 0.15))
    trajectory = iv.TrajectoryInstruction([drag])
    b.way("warp", 5, b.timed, "warp", lambda: iv.warp(picture, trajectory, frames).frames)
    field_of = lambda: iv.displacement(trajectory, (side, side), frames)  # noqa: E731
    b.way("field", 5, b.timed, "field", field_of)


def svd(b: Bench) -> None:
    """SVD: 14 frames, 1024 x 576, ten steps: stock and ours."""
    from diffusers import StableVideoDiffusionPipeline

    from ivkit.models.svd import SVDModel
    from tests.bench import bodies

    size, frames = ((128, 64), 4) if b.args.tiny else ((1024, 576), 14)
    parts = b.parts(lambda: bodies.svd(b.args.tiny))
    stock = StableVideoDiffusionPipeline(**parts)
    options = {"num_frames": frames, "num_inference_steps": min(b.args.steps, 10)}
    call = {"height": size[1], "width": size[0], "decode_chunk_size": 8, "output_type": "np"}
    made = {"size": size, "num_frames": frames}
    _against(b, stock, call, options, lambda: SVDModel("svd", parts, b.device, b.dtype, **made))


def wan(b: Bench) -> None:
    """Wan 2.2 TI2V 5B: 49 frames, 832 x 480, ten steps: stock and ours."""
    import diffusers.pipelines.wan.pipeline_wan_i2v as stock_wan

    from ivkit.models.wan import WanModel
    from tests.bench import bodies

    stock_wan.prompt_clean = str.strip  # its cleaning needs a library that is no part of this
    size, frames = ((64, 32), 5) if b.args.tiny else ((832, 480), 49)
    parts = b.parts(lambda: bodies.wan(b.args.tiny), bfloat=True)
    parts["vae"].float()  # as its makers use it
    stock = stock_wan.WanImageToVideoPipeline(**parts, expand_timesteps=True)
    options = {
        "num_frames": frames,
        "num_inference_steps": min(b.args.steps, 10),
        "guidance_scale": 5.0,
    }
    call = {"height": size[1], "width": size[0], "output_type": "np", "prompt": MOTION}
    made = {"size": size, "num_frames": frames, "replaces": True}
    dtype = parts["transformer"].dtype
    _against(b, stock, call, options, lambda: WanModel("wan", parts, b.device, dtype, **made))


def _against(b: Bench, stock, call: dict, options: dict, build) -> None:
    """A stock pipeline and our blend over the same networks."""
    from ivkit.pipeline import Pipeline

    stock.set_progress_bar_config(disable=True)
    size = call["width"], call["height"]
    x, edited = _picture(size), _picture(size, 1)

    def theirs(**more):
        return stock(image=x, **{**call, **options, **more})

    b.way("stock", 20, b.timed, "stock", theirs, lambda: theirs(num_inference_steps=2))
    clips = Clips(b, Pipeline(build()), x, edited, options)
    b.way("one_batch", 25, clips.timed, "one_batch", batch=True)
    clips.ladder("blocks")
    if b.args.compile and "unet" in clips.pipe.model.parts:
        b.way(
            "compiled_whole",
            130,
            clips.faster,
            "compiled_whole",
            {"compile": "whole", "graphs": False},
        )
    b.way("summary", 0, _summary, b.here)


# ------------------------------------------------------------------------------------- measuring


def _floor(b: Bench, model, frames: int, side: int) -> dict:
    """Operations of one stock clip (both rows of guidance), and the least time they can take."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    cell, kind = model.vae_scale_factor, {"device": b.device, "dtype": model.unet.dtype}
    z = torch.randn(2, 9, frames, side // cell, side // cell, **kind)
    width = model.video_unet.config.cross_attention_dim
    text = torch.randn(2 * frames, 77, width, **kind)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.video_unet(z, torch.tensor(1, device=b.device), text)
    tera = counter.get_total_flops() * b.args.steps / 1e12
    parts = {
        str(k).removeprefix("aten."): v * b.args.steps / 1e12
        for k, v in counter.get_flop_counts()["Global"].items()
    }
    return {"stock_teraflop": tera, "floor_seconds": tera / b.args.peak, "teraflop_of": parts}


def _profile(name: str, b: Bench, call, rows: int = 12) -> dict:
    """Where the time of a short run goes: by kind of kernel, and the largest kernels."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA if b.on_gpu else ProfilerActivity.CPU]) as seen:
        call()
        b.sync()
    key = "self_device_time_total" if b.on_gpu else "self_cpu_time_total"
    events = sorted(seen.key_averages(), key=lambda e: -getattr(e, key))
    total = sum(getattr(e, key) for e in events) or 1
    shares = dict.fromkeys([*KERNELS, "norms and elementwise"], 0.0)
    for e in events:
        kinds = (k for k, known in KERNELS.items() if re.search(known, e.key.lower()))
        shares[next(kinds, "norms and elementwise")] += getattr(e, key) / total
    lines = [f"{getattr(e, key) / total:6.1%} {e.count:6d} x {e.key[:76]}" for e in events[:rows]]
    print("    " + "\n    ".join(lines))
    shown = {k: round(v, 3) for k, v in shares.items()}
    return {
        f"{name}_kernels": lines,
        f"{name}_shares": shown,
        f"{name}_kernel_seconds": total / 1e6,
    }


def _picture(size, seed: int = 0):
    import numpy as np
    from PIL import Image

    size = (size, size) if isinstance(size, int) else size
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR)


def _disc(picture, radius: float):
    import numpy as np

    y, x = np.mgrid[: picture.height, : picture.width]
    centre = picture.width * 0.5, picture.height * 0.6
    return np.hypot(x - centre[0], y - centre[1]) < radius * picture.width


SECTIONS = {
    "pia": pia,
    "brush": brush,
    "caching": caching,
    "coding": coding,
    "svd": svd,
    "wan": wan,
    "more": more,
}
