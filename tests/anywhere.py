"""What a person gets from the package, handed back to it from another device or in another dtype.

`given_back` goes over the public functions that take tensors. `test_anywhere.py` calls it on a CPU;
`plain_cells.py` on whatever device there is, for every family, and drives the widgets there too.
"""

import time
from functools import partial

import numpy as np
import torch

import ivkit as iv
from ivkit import align, blend, pictures, view
from ivkit.bench import metrics
from ivkit.models import TABLE, attention, personal, sampling
from ivkit.trace import convert

MOTION = "the boat moves right"


def clip_of(pipe, motion: str = MOTION, **options):
    """A clip of two steps of a picture with an edit and a drag."""
    w, h = pipe.size
    colours = np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8)
    edited, mask = colours.copy(), np.zeros((h, w), bool)
    edited[: h // 2] //= 2
    mask[h // 4 : h // 2, : w // 4] = True
    drag = iv.Drag(path=[(w / 8, h / 3), (w / 2, h / 3)], mask=mask)
    text = motion if getattr(pipe.model, "max_tokens", 1) else ""
    how = {"num_inference_steps": 3, "progress": False, "lam": 0.4, "edited": edited}
    return pipe.video(colours, text, drags=[drag], **how | options)


def given_back(pipe, run, away):
    """(title, call) of each function; `away` puts a tensor on another device or in another dtype.

    Each call returns what the function answered.
    """
    model, state, trace = pipe.model, run.state, run.trace
    record, scheduler = trace[1], state.scheduler
    t, condition, eps = scheduler.timesteps[1], state.edit.condition, state.reference.eps
    z, out, x0 = (away(record[name]) for name in ("z_edit", "out_hat", "x0"))
    still = pictures.to_pixels(run.picture)
    clip = pictures.to_pixels(run.warped.frames)
    count, size = run.settings.num_frames, run.picture.size
    mask = away(torch.rand(size[::-1]))
    at = t.to(away(t).device)  # a coarser time would be another time
    own = {"text": run.motion, "num_frames": count}
    scale = away(torch.full((len(z), 1, 1, 1), 2.0))
    yield "decode", lambda: model.decode(x0)
    yield "pipe.decode", lambda: pipe.decode(x0)
    yield "preview", lambda: model.preview(x0, 0)
    yield "encode", lambda: model.encode(away(clip))
    yield "encode, sample", lambda: model.encode(away(clip), "sample", torch.Generator())
    yield "predict", lambda: model.predict(z[None], at, [condition])[0].guided
    yield "predict at a number", lambda: model.predict(z[None], int(t), [condition])[0].guided
    guided = partial(model.condition, away(still), guidance_scale=scale, **own)
    yield "condition", lambda: model.predict(z[None], t, [guided()])[0].guided
    yield "noised", lambda: blend.noised(scheduler, x0, eps, at)
    yield "blend", lambda: blend.blend(out, model.decode(x0).new_ones(()), away(torch.rand(1)))
    yield "blend of two places", lambda: blend.blend(out, eps, state.lam[1])
    level = record.signal, record.noise, record.kind
    yield "convert", lambda: convert(out, eps, *level, "x0")
    yield "scaled", lambda: sampling.scaled(fresh(model, eps), z, at)
    yield "scheduler_step", lambda: sampling.scheduler_step(fresh(model, eps), out, t, z, 0)
    yield "trace_grid", lambda: view.trace_grid(trace, decode=model.decode)
    yield "heat", lambda: view.heat(out, record["out_edit"], run.picture)
    yield "cmp", lambda: view.cmp("out", out, record["out_hat"].to(model.device), 0.1)
    yield "show_pictures", lambda: view.show_pictures({"mask": mask, "eps": eps[0, 0]})
    yield "principal_colours", lambda: view.principal_colours([out, eps])(out[0])
    yield "field_arrows", lambda: view.field_arrows(run.picture, away(torch.rand(*size[::-1], 2)))
    yield "contact_sheet", lambda: iv.contact_sheet(bytes_of(run, away))
    yield "show", lambda: iv.show(bytes_of(run, away))
    yield "latent_mask", lambda: iv.latent_mask(mask, pipe.vae_scale_factor)
    yield "edit_mask", lambda: iv.edit_mask(mask, cell=pipe.vae_scale_factor)
    yield "composite", lambda: iv.composite(run.picture, run.picture, mask)
    pulled = partial(iv.Drag, path=[(4, 4), (9, 9)])
    yield "drag of a mask", lambda: iv.warp(run.picture, pulled(mask=(mask > 0.5) * 1))
    yield "psnr", lambda: metrics.psnr(bytes_of(run, away), run.frames, mask > 0.5)
    yield "presence", lambda: metrics.presence(run.frames, run.frames, mask > 0.5)
    yield "to_frames", lambda: pictures.to_frames(away(clip))
    yield "to_pixels", lambda: pictures.to_pixels(bytes_of(run, away))
    yield "blended_target", lambda: align.blended_target(away(still), clip, away(state.lam))
    for module in (align.Align(), align.ResidualAlign()):
        yield "align_frames", lambda m=module: align.align_frames(m, away(clip), still)
        yield "align", lambda m=module: m(away(clip), still)
    lam = away(state.lam[:, :1])
    yield "lam of a clip", lambda: clip_of(pipe, run.motion, lam=lam, num_frames=count)
    yield "change", lambda: changed(pipe, run, away)
    if "image" in model.defaults:
        yield from pictures_back(pipe, away)


def pictures_back(pipe, away):
    """The same of P_img."""
    model = pipe.model
    z = away(model.image_noise(pipe.size, torch.Generator().manual_seed(0)))
    t = model.scheduler(4, "image").timesteps[1]
    condition, at = model.image_condition(MOTION, "", 3.0), t.to(away(t).device)
    yield "predict_image", lambda: model.predict_image(z, at, condition).guided
    yield "predict_image at a number", lambda: model.predict_image(z, int(t), condition).guided
    texts = model.encode_text(MOTION)
    times, drawn = torch.tensor([10]), torch.ones(z.shape)
    yield "loss", lambda: personal.loss(model, z, away(texts), times, drawn)
    w, h = pipe.size
    mask = away(torch.ones(h, w))
    picture = np.zeros((h, w, 3), np.uint8)
    how = {"num_inference_steps": 2}
    yield "image", lambda: pipe.image(MOTION, picture, mask=mask, **how)
    yield "hide_unsafe", lambda: model.hide_unsafe(away(torch.zeros(1, 3, h, w)))
    if hasattr(model, "unet"):
        layer = next(m for n, m in model.unet.named_modules() if n.endswith("attn2"))
        cells = away(torch.rand(1, 4, layer.to_q.in_features))
        yield "looks", lambda: attention.looks(layer, cells, texts)


def fresh(model, eps):
    """A scheduler that no run steps with."""
    return model.scheduler(3, shape=tuple(eps.shape))


def bytes_of(run, away):
    """The clip as a tensor: bytes where `away` only changes the device."""
    frames = torch.from_numpy(run.frames)
    return away(frames) if away(frames).dtype == torch.uint8 else frames


def changed(pipe, run, away):
    """A λ of another place put in force in the middle of a run."""
    for step in pipe.denoise(
        run.picture, run.motion, num_inference_steps=2, num_frames=run.settings.num_frames
    ):
        if step.index == 0:
            step.change(lam=away(torch.full((1, 1, 1, 1, 1), 0.5)), edited=np.asarray(run.picture))
    return step["out_hat"]


# ---------------------------------------------------------------------- on a device, no notebook


def families(device=None):
    """(title, call): a clip by a small network of each family, then all that it gave given back."""
    aways = {"the cpu": torch.Tensor.cpu}
    aways |= {str(kind)[6:]: to(kind) for kind in (torch.float64, torch.float16, torch.bfloat16)}
    for name in [*(row.name for row in TABLE.values() if row.ids), "storybook-fast"]:
        made = {}
        yield name, partial(made_by, name, device, made)
        for place, away in aways.items() if "run" in made else ():
            for what, call in given_back(made["pipe"], made["run"], away):
                yield f"{name}: {what} of {place}", call


def made_by(name: str, device, made: dict) -> None:
    """A picture, and a clip where the model makes clips."""
    pipe = made["pipe"] = iv.load(name, device, small=True)
    if "image" in pipe.model.defaults:
        pipe.image("a boat", num_inference_steps=2)
    if "video" in pipe.model.defaults:
        frames = min(pipe.model.num_frames, 9)
        made["run"] = clip_of(pipe, num_frames=frames)
        assert made["run"].unedited.shape == made["run"].frames.shape


def to(dtype):
    """`away` to another dtype; numbers that count something stay whole."""
    return lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor


def widgets(device=None):
    """(title, call): the widgets' callbacks and the studio's worker, in the order of an hour."""
    import hand

    pipe = iv.load("storybook-fast", device)
    recorded = iv.Instructions.load("../media/quickstart.json")
    made = {}

    def paint():
        canvas = made["paint"] = iv.PaintCanvas(
            pipe.image("a boat on the blue sea at day", seed=5), autosave=None
        )
        hand.stroke(canvas, (60, 40), (90, 50), (110, 45))
        assert len(canvas.strokes) == 1 and not canvas.errors

    def drag():
        canvas = made["drag"] = iv.DragCanvas(made["paint"].picture, autosave=None)
        canvas.trajectory = recorded.trajectory
        hand.stroke(canvas, (128, 30), (150, 40))
        assert canvas.trajectory and not canvas.errors

    def explorer():
        run = pipe.video(
            made["paint"].picture,
            MOTION,
            edited=made["paint"].painted,
            num_frames=4,
            drags=recorded.trajectory,
            progress=False,
        )
        seen = iv.TraceExplorer(run)
        for step in range(len(run.trace)):
            seen.step.value = step
        seen.frame.value, seen.what_if.value, seen.words.value = 1, 0.8, True
        assert not seen.errors, seen.errors

    def studio():
        panel = made["studio"] = iv.Studio(pipe, made["paint"].picture, autosave=None, folder=".")
        panel.panel["frames"].value = 4
        panel.draw()
        panel.join(100)
        hand.stroke(panel.paint, (60, 40), (110, 45))
        panel.panel["content"].value = recorded.content.text
        panel.drag.trajectory = recorded.trajectory
        generated(panel)

    def blends():
        panel = made["studio"]
        for mode in panel.panel["lam_mode"].options[1:]:
            panel.panel["lam_mode"].value = mode
            generated(panel)
        panel.panel["lam_mode"].value = panel.panel["lam_mode"].options[0]

    def paused():
        panel = made["studio"]
        panel.panel["steps"].value = 6
        panel.generate()
        panel.pause()
        end = time.monotonic() + 100
        while panel.state != "paused" and time.monotonic() < end:
            time.sleep(0.01)
        panel.panel["lam"].value = 0.1
        hand.stroke(panel.paint, (150, 60), (190, 65))
        panel.resume()
        panel.join(100)
        assert not panel.errors, panel.errors
        assert panel.results[-1].take.changes

    def kept():
        panel = made["studio"]
        before = panel.results[-1].frames
        panel.compare()
        panel.export(panel.results[-1], "png")
        panel.save("session.json")
        panel.load("session.json")
        panel.replay(panel.results[-1])
        panel.join(100)
        assert not panel.errors, panel.errors
        # half precision rounds differently where the reference chain is kept already
        assert metrics.psnr(panel.results[-1].frames, before) > 30

    def trained():
        lora = personal.new(pipe, rank=2)
        personal.train(lora, [(made["paint"].picture, "a boat")], steps=2, batch=1, progress=False)
        assert all(np.isfinite(error) for error, _ in lora.losses)
        lora.remove()

    for work in (paint, drag, explorer, studio, blends, paused, kept, trained):
        yield work.__name__, work


def generated(panel) -> None:
    panel.generate()
    panel.join(200)
    assert not panel.errors, panel.errors
    assert panel.results[-1].frames is not None and len(panel.results[-1].frames)
