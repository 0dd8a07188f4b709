"""A drag edits the clip: regions followed, cut out, filled and laid elsewhere in their own light.

The clips are the renderer's own, so where everything is, and what is behind it, is known.
"""

import dataclasses
import itertools
import random

import numpy as np
import pytest
import tiny
import torch
from families import FAMILIES
from hypothesis import given
from hypothesis import strategies as st
from test_interrupts import model

from ivkit.bench import cases, storybench
from ivkit.bench.metrics import psnr, track
from ivkit.blend import blend, blend_in
from ivkit.instructions import UNITS, Camera, Drag, TrajectoryInstruction
from ivkit.paint import painted_region
from ivkit.pipeline import Pipeline
from ivkit.regions import Track, follow
from ivkit.support.cutout import specks
from ivkit.trace import KINDS, NATIVE, convert
from ivkit.trajectory import warp

FRAMES = 8
TIMES = np.linspace(0, 1, FRAMES)


@pytest.fixture(scope="module")
def world():
    return storybench.World()


@pytest.fixture(scope="module")
def every():
    return {case.id: case for case in cases.load()}


def scene(world, case, **changes):
    """(job, clip as the text moves it, the true last frame with the drags as well)."""
    case = dataclasses.replace(case, **changes)
    job, there = world.job(case), world.scene(case)
    x, y, move = there.x.clone(), there.y.clone(), there.move.clone()
    for k, path in case.drags.items():
        x[0, k], y[0, k] = path[-1]
        if k == 0:
            move[0, 0] = 0
    last = world.frames(there.with_(x=x, y=y, move=move), [1.0])[0]
    return job, world.frames(there, TIMES), last


def first(world, case):
    """(picture, the region of the case's first drag)."""
    job = world.job(case)
    return np.asarray(job.picture), job.drags[0].mask


def dragged(job, clip, **options):
    return warp(job.picture, TrajectoryInstruction(job.drags), len(clip), clip, **options)


# ---- following ----


@pytest.mark.parametrize(
    "move", ["moves down", "moves up", "grows", "shrinks", "tilts left", "tilts right"]
)
def test_a_region_is_followed_where_the_text_takes_it(world, every, move):
    case = dataclasses.replace(every["street-night-2-0"], move=move)
    there = world.scene(case)
    found = follow(world.frames(there, np.linspace(0, 1, 16)), *first(world, case))
    true = world.world.place(there, torch.tensor([[0.0, 1.0]]))
    x, y, size, tilt = (true[name][0, :, 0].numpy() for name in ("x", "y", "size", "tilt"))
    assert found.sure.all()
    assert abs(found.centre[-1] - found.start - 256 * complex(x[1] - x[0], y[1] - y[0])) < 2
    assert abs(found.factor[-1] - size[1] / size[0] * np.exp(1j * (tilt[1] - tilt[0]))) < 0.12


@given(st.floats(-9, 9), st.floats(-9, 9), st.floats(0.4, 1.6))
def test_places_come_to_a_part_of_a_pixel_and_light_as_a_factor(dx, dy, light):
    import cv2

    rng = np.random.default_rng(3)
    picture = cv2.GaussianBlur(rng.integers(40, 150, (72, 96, 3), np.uint8), (0, 0), 2)
    mask = np.zeros((72, 96), bool)
    mask[26:46, 34:60] = True
    matrix = np.array([[1, 0, dx], [0, 1, dy]])
    moved = cv2.warpAffine(picture, matrix, (96, 72), borderMode=cv2.BORDER_REPLICATE)
    later = np.clip(moved * light, 0, 255).round().astype(np.uint8)
    found = follow(np.stack([picture, later, later]), picture, mask)
    assert abs(found.centre[-1] - found.start - complex(dx, dy)) < 0.35
    assert np.allclose(found.light[-1], light, rtol=0.05)


def test_a_region_that_is_gone_stays_where_it_was_last_seen(world, every):
    case = dataclasses.replace(every["meadow-day-1-0"], move="stays still")
    clip = world.frames(world.scene(case), TIMES).copy()
    empty = world.frames(world.scene(case, present=world.scene(case).present & False), TIMES)
    clip[4:] = empty[4:]
    mask = world.job(every["meadow-day-1-0"]).drags[0].mask
    found = follow(clip, clip[0], mask)
    assert found.sure[:4].all() and not found.sure[4:].any()
    assert (found.centre[4:] == found.centre[3]).all()
    assert all(found.moves(f) for f in range(4, FRAMES))


# ---- dragging ----


def test_on_a_clip_that_stands_still_it_is_cut_and_drag(world, every):
    job = world.job(every["meadow-day-1-2"])
    still = np.repeat(np.asarray(job.picture)[None], FRAMES, 0)
    a, b = dragged(job, still), warp(job.picture, job.drags, FRAMES)
    assert psnr(a.frames, b.frames) > 45
    assert abs(a.masks - b.masks).mean() < 0.02


def test_an_identity_drag_changes_no_frame(world, every):
    job, clip, _ = scene(world, every["meadow-day-1-1"])
    drag = dataclasses.replace(job.drags[0], path=[job.drags[0].path[0]] * 2)
    assert (warp(job.picture, drag, FRAMES, clip).frames == clip).all()


def test_text_and_drag_are_both_obeyed(world, every):
    """Of a sample of the cases: judged as the benchmark judges, and near to the true last frame."""
    some = random.Random(0).sample(sorted(every), 24)
    found = []
    for name in some:
        job, clip, last = scene(world, every[name])
        frames = dragged(job, clip).frames
        assert job.judge.obeyed(frames[-1]) == 1, name
        found.append(psnr(frames[-1], last))
        if every[name].event not in ("the tide rises", storybench.SNOW):
            assert found[-1] > 30, name
    assert np.mean(found) > 42


def test_a_thing_that_the_text_moves_leaves_no_second_one(world, every):
    job, clip, last = scene(world, every["snow-day-2-0"], move="moves right")
    frames = dragged(job, clip).frames
    assert psnr(frames[-1], last) > 35  # a ball left behind costs some 20 dB


def test_the_dragged_thing_darkens_with_its_scene(world, every):
    case = every["meadow-day-1-2"]
    job, clip, last = scene(world, case, event="it gets dark")
    r = dragged(job, clip)
    thing = r.masks[-1] > 0.9
    assert abs(r.frames[-1][thing].astype(float).mean() - last[thing].mean()) < 6
    still = warp(job.picture, job.drags, FRAMES).frames[-1]
    assert still[thing].astype(float).mean() > last[thing].mean() + 20


def test_two_dragged_things_arrive(world, every):
    job, clip, _ = scene(world, every["desert-day-1-2"], event="it gets dark")
    frames = dragged(job, clip).frames
    for drag in job.drags:
        there = track(frames[-1:], job.picture, drag.mask)[0]
        start = track(np.asarray(job.picture)[None], job.picture, drag.mask)[0]
        assert np.abs(there - start - np.subtract(drag.path[-1], drag.path[0])).max() < 2


def test_a_camera_moves_the_clip_as_well(world, every):
    job, clip, _ = scene(world, every["meadow-day-1-1"], drags={})
    moved = warp(job.picture, Camera(pan=(32, 0)), FRAMES, clip).frames
    assert psnr(moved[-1][:, : 256 - 40], clip[-1][:, 32:-8]) > 40


def test_what_is_painted_is_laid_again_where_the_clip_loses_it(world, every):
    job, clip, _ = scene(world, every["meadow-day-1-1"])
    keep = np.zeros((256, 256), bool)
    keep[20:60, 20:60] = True
    picture = np.asarray(job.picture).copy()
    picture[25:55, 25:55] = (240, 200, 40)
    picture[35:45, 35:45] = (200, 60, 40)
    there = clip.copy()
    there[:4, keep] = picture[keep]
    r = warp(picture, job.drags, FRAMES, there, keep)
    assert psnr(r.frames[-1], picture, keep) > 30
    assert r.masks[-1][keep].mean() > 0.9  # held there, too
    assert (warp(picture, job.drags, FRAMES, there).frames[-1][keep] == clip[-1][keep]).all()


# ---- the judge ----


def test_snow_counts_wherever_the_flakes_are(world, every):
    """The renderer's own snowfall with other offsets obeys; a starry night without flakes not."""
    generator = torch.Generator().manual_seed(0)
    for case in every.values():
        if case.event == storybench.SNOW:
            judge = world.job(case).judge
            other = world.scene(case, specks=torch.rand(1, 2, generator=generator))
            assert judge.obeyed(world.frames(other, [1.0])[0]) == 1
            assert judge.obeyed(world.frames(other.with_(event=0), [1.0])[0]) == 0


def test_specks_are_small_round_and_bright():
    picture = np.full((128, 128, 3), 60, np.uint8)
    picture[64:] = 120  # a horizon
    picture[30:33] = 200  # a line
    picture[90:94, 40:44] = 255  # a flake
    found = specks(picture)
    assert found[91:93, 41:43].all() and found.sum() == 16


def test_a_mask_is_a_drags_region(every):
    """`Drag` without a mask grows one from the picture, on a clip as on a still."""
    clip = np.full((3, 40, 48, 3), 200, np.uint8)
    clip[:, 12:24, 10:22] = 30
    r = warp(clip[0], Drag([(16, 18), (30, 18)]), 3, clip)
    assert r.frames[-1][18, 30].max() < 60 and r.frames[-1][18, 14].min() > 150


# ---- in a run ----


def pulled(pipe, **options):
    drag = Drag(path=[(5, 7), (10, 7)], mask=tiny.region())
    options = {"drags": [drag], "source": "clip", "progress": False, **options}
    return pipe.video(tiny.picture(), "the boat moves right", **options)


@pytest.mark.parametrize("reading", ["paired", "shared"])
def test_lam_one_is_the_unedited_clip_whatever_a_drag_edits(reading):
    pipe = tiny.pipeline("storybook")
    run = pulled(pipe, lam=1.0, reading=reading)
    assert (run.frames == run.unedited).all()


def test_a_drag_edits_the_unedited_clip_and_a_second_one_costs_one_branch(monkeypatch):
    pipe, calls = tiny.pipeline("storybook"), []
    inner = type(pipe.model).predict

    def counted(self, z, t, conditions):
        calls.append(len(conditions))
        return inner(self, z, t, conditions)

    monkeypatch.setattr(type(pipe.model), "predict", counted)
    first = pulled(pipe, batch=False)
    assert sum(calls) == 8
    expected = warp(tiny.picture(), first.trajectory, len(first.unedited), first.unedited)
    assert (first.warped.frames == expected.frames).all()
    still = pulled(pipe, batch=False, source="still")
    assert (still.warped.frames != first.warped.frames).any()
    calls.clear()
    other = [Drag(path=[(5, 7), (5, 10)], mask=tiny.region())]
    pulled(pipe, batch=False, drags=other)
    assert sum(calls) == 4


def test_with_paint_the_painted_clip_is_dragged_and_kept(monkeypatch):
    pipe = tiny.pipeline("storybook")
    run = pulled(pipe, edited=tiny.picture(1))
    alone = pipe.video(
        tiny.picture(), "the boat moves right", edited=tiny.picture(1), lam=0.0, progress=False
    )
    torch.testing.assert_close(run.painted.end, alone.z, atol=1e-4, rtol=1e-4)
    again = pulled(pipe, edited=tiny.picture(1), lam=0.1)
    assert again.painted is run.painted


@pytest.mark.parametrize("reading", ["paired", "shared"])
def test_left_and_taken_up_the_dragged_clip_is_the_same(reading):
    whole = pulled(tiny.pipeline(), reading=reading, edited=tiny.picture(1))
    pipe = tiny.pipeline()
    drag = Drag(path=[(5, 7), (10, 7)], mask=tiny.region())
    steps = pipe.denoise(
        tiny.picture(),
        "the boat moves right",
        drags=[drag],
        source="clip",
        reading=reading,
        edited=tiny.picture(1),
    )
    next(steps)
    steps.close()
    run = pipe.resume(pipe.last_run, progress=False)
    assert (run.frames == whole.frames).all()


def test_a_drag_that_is_changed_on_the_way_edits_the_clip_too():
    pipe = tiny.pipeline("storybook")
    steps = pipe.denoise(tiny.picture(), "the boat moves right", source="clip")
    step = next(steps)
    step.change(drags=[Drag(path=[(5, 7), (10, 7)], mask=tiny.region())])
    next(steps)
    run = pipe.last_run
    expected = warp(tiny.picture(), run.trajectory, len(run.unedited), run.unedited)
    assert (run.warped.frames == expected.frames).all()


@pytest.mark.parametrize("edited", [None, 1])
def test_around_what_is_dragged_the_clips_own_latents_are_held(edited):
    edited = None if edited is None else tiny.picture(edited)
    run = pulled(tiny.pipeline("storybook"), edited=edited, lam=0.0, weak=1.0)
    clip, dragged = run.painted or run.reference, run.edit.mask.expand_as(run.z) > 0
    for record in run.trace:
        assert torch.equal(record["z_edit"][~dragged], clip.z[record.index][~dragged])
        same = torch.equal(record["z_edit"][dragged], clip.z[record.index][dragged])
        assert same == (record.index == 0)  # where all is noise
    whole = run.edit.mask.expand_as(run.z) == 1
    assert torch.equal(run.z[whole], run.edit.warped_latents[whole]) and whole.any()


def test_the_network_sees_the_still_with_the_thing_where_the_drag_has_it():
    pipe = tiny.pipeline("storybook")
    clip, still = (pulled(pipe, source=source).edit for source in ("clip", "still"))
    for name, rows in still.condition.rows.items():
        assert torch.equal(rows, clip.condition.rows[name])
    assert not torch.equal(clip.warped_latents, still.warped_latents)


def test_no_clip_is_made_where_the_drag_is_in_the_condition_alone():
    run = pulled(tiny.pipeline("storybook"), mechanism="condition", lam=0.0)
    assert not run.reference.out


@pytest.mark.parametrize("seed", range(3))
def test_a_dragged_thing_is_held_where_it_rests(world, every, seed):
    case = random.Random(seed).choice([c for c in every.values() if len(c.drags) == 1])
    scene = world.scene(case).with_(move=0)
    job = world.job(case)
    clip = world.frames(scene, TIMES)
    (drag,) = job.drags
    path = [drag.path[0], drag.path[0], drag.path[-1]]
    waits = dataclasses.replace(drag, path=path, times=[0, 0.5, 1])
    found = warp(job.picture, waits, FRAMES, clip)
    for f in range(FRAMES // 2):
        assert found.masks[f][drag.mask].min() > 0.9


def test_the_hole_of_a_region_that_seems_to_shrink_is_no_smaller_than_it_was():
    mask = np.zeros((64, 64), bool)
    mask[20:40, 24:44] = True
    shrunk = np.full(3, 0.6 + 0j)
    track = Track(33.5 + 29.5j, np.full(3, 38.5 + 29.5j), shrunk, np.ones(3), np.ones((3, 3)))
    assert not track.place(mask, 2)[20, 29] and track.hole(mask, 2)[20:40, 29:49].all()


# ---- the unit of Eq. 4 ----


@pytest.mark.parametrize("kind", ["pia", "storybook"])
def test_one_latent_gives_the_same_blend_in_every_unit(kind):
    pipe, options = tiny.pipeline(kind), {"edited": tiny.picture(1), "reading": "shared"}
    runs = [pulled(pipe, drags=(), blend_in=unit, **options) for unit in UNITS]
    for run in runs[1:]:
        torch.testing.assert_close(run.z, runs[0].z, atol=1e-3, rtol=1e-3)


@st.composite
def levels_of(draw):
    """(signal, noise, kind of prediction) of a step: variance kept, flow matching or sigma-scaled
    as SVD's."""
    kind, signal = draw(st.sampled_from(KINDS)), draw(st.floats(0.05, 0.99))
    if kind == "flow_prediction":
        return signal, 1 - signal, kind
    noise = (1 - signal**2) ** 0.5
    return (1.0, noise / signal, kind) if draw(st.booleans()) else (signal, noise, kind)


def four(dtype=torch.float64):
    """out, out_edit, z, z_edit."""
    g = torch.Generator().manual_seed(0)
    return torch.randn(4, 2, 3, 4, 4, generator=g, dtype=dtype)


@given(levels_of(), st.sampled_from(["v", "eps", "x0"]), st.floats(0, 1))
def test_the_identity_holds_in_the_unit_that_was_blended(level, unit, lam):
    """x_hat = lam x + (1 - lam) x_edit."""
    out, edit, z, z_edit = four()
    hat, found = blend_in(unit, out, edit, lam, z, z_edit, level)
    assert found == unit
    mixed = lam * convert(out, z, *level, unit) + (1 - lam) * convert(edit, z_edit, *level, unit)
    torch.testing.assert_close(convert(hat, z_edit, *level, unit), mixed)


@given(levels_of(), st.sampled_from(UNITS), st.floats(0, 1))
def test_where_the_units_must_be_one(level, unit, lam):
    """Where both latents are one; where lam is 0 the network's word on the edits; and in its own
    unit, bit for bit, what was blended before there was a choice."""
    out, edit, z, z_edit = four()
    native = blend(out, edit, lam)
    torch.testing.assert_close(blend_in(unit, out, edit, lam, z, z.clone(), level)[0], native)
    torch.testing.assert_close(blend_in(unit, out, edit, 0.0, z, z_edit, level)[0], edit)
    for same in ("native", NATIVE[level[2]]):
        assert torch.equal(blend_in(same, out, edit, lam, z, z_edit, level)[0], native)


@given(levels_of(), st.floats(0.05, 1))
def test_other_units_drift_by_as_much_as_is_said(level, lam):
    """x0' beyond lam x0 + (1 - lam) x0': of eps by lam (z' - z) / alpha, of v by alpha times it."""
    out, edit, z, z_edit = four()
    signal, norm = level[0], np.hypot(*level[:2])
    x0 = blend(convert(out, z, *level, "x0"), convert(edit, z_edit, *level, "x0"), lam)
    factors = {"eps": 1 / signal, "v": signal / norm**2, "x0": 0}
    if level[2] == "flow_prediction":  # v = eps - x0
        factors["v"] = 1
    for unit, factor in factors.items():
        hat, _ = blend_in(unit, out, edit, lam, z, z_edit, level)
        drift = convert(hat, z_edit, *level, "x0") - x0
        torch.testing.assert_close(drift, factor * lam * (z_edit - z))


@pytest.mark.parametrize("name", ["pia", "storybook", *FAMILIES])
@pytest.mark.parametrize("reading", ["paired", "shared"])
def test_every_family_blends_v_by_itself(name, reading):
    """And where its network predicts v, that is what it did before, bit for bit."""
    family, pipe = FAMILIES.get(name, tiny), Pipeline(model(name))
    options = {"edited": family.picture(1), "num_inference_steps": 2, "reading": reading}
    text = "" if name == "svd" else "the boat moves right"
    runs = {
        unit: pipe.video(family.picture(), text, progress=False, **options, **given)
        for unit, given in {"": {}, **{u: {"blend_in": u} for u in UNITS}}.items()
    }
    assert torch.equal(runs[""].z, runs["v"].z)
    if NATIVE[runs["v"].trace[0].kind] == "v":
        assert torch.equal(runs["v"].z, runs["native"].z)
    if reading == "shared":
        for unit in UNITS:
            torch.testing.assert_close(runs[unit].z, runs["v"].z, atol=1e-3, rtol=1e-3)


def test_pure_noise_is_blended_as_the_network_has_it():
    out, edit, z, z_edit = four(torch.float32)
    for unit, kind in itertools.product(UNITS, KINDS):
        hat, found = blend_in(unit, out, edit, 0.3, z, z_edit, (0.0, 1.0, kind))
        assert found == NATIVE[kind] and torch.equal(hat, 0.3 * out + 0.7 * edit)


def test_paint_that_can_hardly_be_seen_is_no_obstacle():
    picture = np.asarray(tiny.picture())
    faint = picture + np.where(picture < 128, 3, -3).astype(np.uint8)
    assert not painted_region(picture, faint).any()
    run = pulled(tiny.pipeline("storybook"), edited=faint)
    assert run.finished and run.painted is not None
