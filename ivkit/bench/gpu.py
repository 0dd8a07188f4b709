"""The blend against the stock pipelines: time, memory and the distance to the chip, on one GPU.

Full-size random weights in half precision. Each section is printed when it is done and everything
so far is saved, so that an interrupted run loses nothing; `--tiny` rehearses it all on a CPU.
"""

import json
import sys
from argparse import BooleanOptionalAction
from pathlib import Path
from statistics import median
from time import perf_counter

MOTION = "the boat moves right"
GOALS = {"exact": 1.0, "reuse_4": 0.5, "second_edit": 0.55, "stroke_ms": 8.0, "peak_gb": 8.0}


def add_arguments(parser) -> None:
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--steps", type=int, default=25, help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="small models, any device")
    parser.add_argument("--budget", type=float, default=540, help="seconds; default: %(default)s")
    parser.add_argument("--peak", type=float, default=790, help="TFLOP/s; default: %(default)s")
    parser.add_argument("--compile", action=BooleanOptionalAction, help="default: on a GPU")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu.json"))


def main(args) -> None:
    import torch

    from ivkit.machine import device_name, versions

    if not args.tiny and not torch.cuda.is_available():
        sys.exit("no CUDA device is here; --tiny rehearses the benchmark on a CPU")
    args.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.dtype = torch.float16 if args.device.type == "cuda" else torch.float32
    args.out.parent.mkdir(parents=True, exist_ok=True)
    found = {"device": device_name(), "dtype": str(args.dtype), "versions": versions(),
             "steps": args.steps, "tiny": args.tiny, "goals": GOALS}  # fmt: skip
    args.found, begun = found, perf_counter()
    for name in args.only:
        if perf_counter() - begun > args.budget:
            print(f"{name}: left out, the time is over (run it with --only {name})", flush=True)
            continue
        started = perf_counter()
        try:
            found[name] = SECTIONS[name](args)
        except Exception as error:  # one section's failure must not cost the others their figures
            found[name] = {"error": f"{type(error).__name__}: {error}"}
        found[name]["section_seconds"] = perf_counter() - started
        print(f"{name}\n" + "\n".join(f"  {k:28s}{_show(v)}" for k, v in found[name].items()),
              flush=True)  # fmt: skip
        args.out.write_text(json.dumps(found, indent=2, default=str) + "\n")
        _let_go(args)
    print(f"saved in {args.out}")


# -------------------------------------------------------------------------------------- sections


def pia(args) -> dict:
    """SD 1.5 + PIA: 16 frames, 512 x 512: stock, naive blend, ours in each way."""
    from diffusers import PIAPipeline

    from ivkit.bench import bodies
    from ivkit.models import pia as family
    from ivkit.pipeline import Pipeline

    side, frames = (128, 4) if args.tiny else (512, 16)
    parts = _on(args, lambda: bodies.sd(args.tiny))
    options = {"num_frames": frames, "num_inference_steps": args.steps, "guidance_scale": 7.5}
    stock = PIAPipeline(**_copy(parts))
    stock.set_progress_bar_config(disable=True)
    stock.to(args.device)
    x, edited = _picture(side), _picture(side, 1)

    def theirs(picture=x, **more):
        return stock(picture, MOTION, height=side, width=side, output_type="np",
                     **{**options, **more})  # fmt: skip

    found = {}
    found |= _timed(args, "stock", theirs, lambda: theirs(num_inference_steps=2))
    found |= _timed(args, "naive_blend", lambda: (theirs(), theirs(edited)))
    stock = None
    _let_go(args)
    facts = {"num_frames": frames}
    model = family.build("pia", parts, facts, device=args.device, dtype=args.dtype)
    model.size = (side, side)
    found |= _ours(args, Pipeline(model), x, edited, options)
    base = found["stock_seconds"]
    for name in ("naive_blend", "exact", "second_edit", "sped_up", "reuse_3", "reuse_4"):
        if f"{name}_seconds" in found:
            found[f"{name}_of_stock"] = found[f"{name}_seconds"] / base
    found["second_edit_of_first"] = found["second_edit_seconds"] / found["exact_seconds"]
    return found | _floor(args, model, frames, side, found)


def _ours(args, pipe, x, edited, options: dict, ways: bool = True) -> dict:
    """Our blend of a clip and its edit: exact, a second edit, sped up, with reused features."""

    motion = MOTION if getattr(pipe.model, "max_tokens", True) else ""

    def blend(lam=0.3, fresh=True, **more):
        if fresh:
            pipe.forget()
        more = {"batch": True, "progress": False, **options, **more}
        return pipe.video(x, motion, edited=edited, lam=lam, **more)

    warm = {"num_inference_steps": 2}
    found = _timed(args, "exact", blend, lambda: blend(**warm))
    found |= _timed(args, "second_edit", lambda: blend(lam=0.5, fresh=False))
    one_by_one = {"batch": False}
    found |= _timed(args, "one_by_one", lambda: blend(**one_by_one))
    found["profile"] = _profile(args, lambda: blend(**warm))
    if ways:
        found["did"] = pipe.speed_up(compile=False)
        found |= _timed(args, "fused", blend, lambda: blend(**warm))
        if args.compile or (args.compile is None and args.device.type == "cuda"):
            found["did"] = pipe.speed_up(compile=True)
            began = perf_counter()
            blend(**warm)
            found["compile_seconds"] = perf_counter() - began
        found |= _timed(args, "sped_up", blend)
        for every in (3, 4):
            pipe.speed_up(compile=False, reuse=every)
            found |= _timed(args, f"reuse_{every}", blend, lambda: blend(**warm))
    return found


def caching(args) -> dict:
    """What reused deep features cost the picture, on the embedded model: PSNR to exact."""
    import numpy as np

    import ivkit as iv

    pipe = iv.load("storybook", device=args.device, dtype=None if args.device.type != "cpu" else
                   args.dtype)  # fmt: skip
    x = pipe.image("a boat on the blue sea at day", seed=7)
    mask = _disc(x, 0.2)
    drag = iv.Drag([(x.width * 0.5, x.height * 0.6), (x.width * 0.7, x.height * 0.6)], mask=mask)
    found, clips = {}, {}
    for every in (1, 2, 3, 4, 5):
        pipe.speed_up(compile=False, reuse=every)
        clips[every] = pipe.video(x, MOTION, drags=[drag], progress=False).frames.astype(float)
        if every > 1:
            error = ((clips[every] - clips[1]) ** 2).mean()
            found[f"reuse_{every}_db"] = float(10 * np.log10(255**2 / max(error, 1e-9)))
    return found


def brush(args) -> dict:
    """Stroke to picture, 512 x 512, SD-Turbo's size with TAESD: latency, each stroke alone."""
    import ivkit as iv
    from ivkit.bench import bodies
    from ivkit.models import pia as family
    from ivkit.pipeline import Pipeline

    side = 128 if args.tiny else 512
    parts = _on(args, lambda: bodies.turbo(args.tiny))
    model = family.build("sd-turbo", parts, {}, device=args.device, dtype=args.dtype)
    model.size = (side, side)
    begun = perf_counter()
    brush = Pipeline(model).brush("a sun over the sea", _picture(side), strength=0.5)
    found = {"prepare_seconds": perf_counter() - begun}
    strokes = [iv.Stroke([(side / 2 + i, side / 2), (side / 2, side / 2 + i)]) for i in range(24)]
    seconds = []
    for stroke in strokes:
        brush([stroke])
        seconds.append(brush.seconds)
    network = []
    pixels = brush._pixels.clone()
    for _ in strokes:
        _sync(args)
        begun = perf_counter()
        brush.draw(pixels)
        _sync(args)
        network.append(perf_counter() - begun)
    found["stroke_ms"] = 1000 * median(seconds)
    found["stroke_worst_ms"] = 1000 * max(seconds[2:])
    found["network_ms"] = 1000 * median(network)
    return found


def coding(args) -> dict:
    """Encode and decode 16 frames of 512 x 512; a drag's field and its warped frames."""
    import torch

    import ivkit as iv
    from ivkit.bench import bodies
    from ivkit.models import pia as family

    side, frames = (128, 4) if args.tiny else (512, 16)
    parts = _on(args, lambda: bodies.sd(args.tiny, motion=False))
    model = family.build("sd", parts, {}, device=args.device, dtype=args.dtype)
    pixels = torch.rand(frames, 3, side, side) * 2 - 1
    z = model.encode(pixels)

    def encode():
        model._codes.clear()
        return model.encode(pixels)

    found = _timed(args, "encode", encode)
    for held in (2, 8):
        model.decode_slice = held
        found |= _timed(args, f"decode_{held}_at_once", lambda: model.decode(z))
    picture = _picture(side)
    drag = iv.Drag([(side * 0.4, side * 0.5), (side * 0.6, side * 0.5)], mask=_disc(picture, 0.15))
    trajectory = iv.TrajectoryInstruction([drag])
    found |= _timed(args, "warp", lambda: iv.warp(picture, trajectory, frames).frames)
    found |= _timed(args, "field", lambda: iv.displacement(trajectory, (side, side), frames))
    return found


def svd(args) -> dict:
    """SVD: 14 frames, 1024 x 576, ten steps: stock and ours."""
    from diffusers import StableVideoDiffusionPipeline

    from ivkit.bench import bodies
    from ivkit.models.svd import SVDModel
    from ivkit.pipeline import Pipeline

    size, frames = ((128, 64), 4) if args.tiny else ((1024, 576), 14)
    parts = _on(args, lambda: bodies.svd(args.tiny))
    stock = StableVideoDiffusionPipeline(**parts)
    options = {"num_frames": frames, "num_inference_steps": min(args.steps, 10)}
    call = {"height": size[1], "width": size[0], "decode_chunk_size": 8, "output_type": "np"}
    return _against(args, stock, lambda: SVDModel("svd", parts, args.device, args.dtype, size=size,
                    num_frames=frames), size, options, {}, call, Pipeline)  # fmt: skip


def wan(args) -> dict:
    """Wan 2.2 TI2V 5B: 49 frames, 832 x 480, ten steps: stock and ours."""
    import diffusers.pipelines.wan.pipeline_wan_i2v as stock_wan

    from ivkit.bench import bodies
    from ivkit.models.wan import WanModel
    from ivkit.pipeline import Pipeline

    stock_wan.prompt_clean = str.strip  # its cleaning needs a library that is no part of this
    size, frames = ((64, 32), 5) if args.tiny else ((832, 480), 49)
    parts = _on(args, lambda: bodies.wan(args.tiny), bfloat=True)
    parts["vae"].float()  # as its makers use it
    stock = stock_wan.WanImageToVideoPipeline(**parts, expand_timesteps=True)
    options = {"num_frames": frames, "num_inference_steps": min(args.steps, 10)}
    call = {"height": size[1], "width": size[0], "output_type": "np", "prompt": MOTION}
    return _against(args, stock, lambda: WanModel("wan", parts, args.device, parts["transformer"]
                    .dtype, size=size, num_frames=frames, replaces=True), size, options,
                    {"guidance_scale": 5.0}, call, Pipeline)  # fmt: skip


def _against(args, stock, build, size, options, guidance, call, pipeline) -> dict:
    stock.set_progress_bar_config(disable=True)
    x, edited = _picture(size), _picture(size, 1)

    def theirs(**more):
        return stock(image=x, **{**call, **options, **guidance, **more})

    found = _timed(args, "stock", theirs, lambda: theirs(num_inference_steps=2))
    pipe = pipeline(build())
    found |= _ours(args, pipe, x, edited, {**options, **guidance}, ways=False)
    for name in ("exact", "second_edit", "one_by_one"):
        found[f"{name}_of_stock"] = found[f"{name}_seconds"] / found["stock_seconds"]
    return found


# ------------------------------------------------------------------------------------- measuring


def _timed(args, name: str, call, warm=None) -> dict:
    """Seconds of one call after `warm`, and on a GPU its peak memory."""
    import torch

    if warm is not None:
        warm()
    _sync(args)
    if args.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begun = perf_counter()
    call()
    _sync(args)
    found = {f"{name}_seconds": perf_counter() - begun}
    if args.device.type == "cuda":
        found[f"{name}_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return found


def _floor(args, model, frames: int, side: int, found: dict) -> dict:
    """Operations of one branch's step (both rows of guidance), and the least time they can take."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    cell, dtype = model.cell, model.unet.dtype
    z = torch.randn(2, 9, frames, side // cell, side // cell, device=args.device, dtype=dtype)
    width = model.video_unet.config.cross_attention_dim
    text = torch.randn(2 * frames, 77, width, device=args.device, dtype=dtype)
    model.reuse = None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.video_unet(z, torch.tensor(1, device=args.device), text)
    tera = counter.get_total_flops() * args.steps / 1e12
    floor = tera / args.peak
    return {"stock_teraflop": tera, "stock_floor_seconds": floor, "blend_floor_seconds": 2 * floor,
            "stock_of_chip": floor / found["stock_seconds"],
            "exact_of_chip": 2 * floor / found["exact_seconds"]}  # fmt: skip


def _profile(args, call, rows: int = 12) -> str:
    """Where the time goes: the largest kernels of a short run."""
    from torch.profiler import ProfilerActivity, profile

    on = args.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on else ProfilerActivity.CPU]) as seen:
        call()
    key = "self_device_time_total" if on else "self_cpu_time_total"
    events = sorted(seen.key_averages(), key=lambda e: -getattr(e, key, 0))
    total = sum(getattr(e, key, 0) for e in events) or 1
    lines = (f"{getattr(e, key, 0) / total:6.1%}  {e.key[:80]}" for e in events[:rows])
    return "\n    " + "\n    ".join(lines)


def _on(args, make, bfloat: bool = False) -> dict:
    """The parts that `make()` makes, on the device itself, in half precision."""
    import torch

    from ivkit.models.common import cast

    torch.manual_seed(0)
    with torch.device(args.device):
        parts = make()
    dtype = torch.bfloat16 if bfloat and args.device.type == "cuda" else args.dtype
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            cast(torch.nn.Module.to(part, args.device), dtype)
            part.eval().requires_grad_(False)
    return parts


def _copy(parts: dict) -> dict:
    """The same networks for the stock pipeline: it makes a motion UNet of its own out of them."""
    import copy

    return {**parts, "motion_adapter": copy.deepcopy(parts["motion_adapter"])}


def _sync(args) -> None:
    import torch

    if args.device.type == "cuda":
        torch.cuda.synchronize()


def _let_go(args) -> None:
    import gc

    from ivkit.memory import let_go

    gc.collect()
    let_go(args.device)


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


def _show(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


SECTIONS = {"pia": pia, "brush": brush, "coding": coding, "svd": svd, "wan": wan,
            "caching": caching}  # fmt: skip
