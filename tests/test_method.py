"""What must hold of the method: the blend, both readings, kept chains, stopping, changing."""

import diffusers
import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ivkit as iv
from ivkit.blend import blend, lam_schedule
from ivkit.instructions import READINGS, UNITS
from ivkit.models.sampling import scheduler_step, stepped
from ivkit.pictures import to_pixels
from ivkit.trace import convert
from ivkit.video import ReferenceChain

KINDS = ("pia", "storybook")
MOTION = "the boat moves right"


def drag(**options):
    return iv.Drag(path=[(5, 7), (10, 7)], mask=tiny.region(), **options)


def clip(pipe, seed=0, **options):
    options = {"edited": tiny.picture(1), "progress": False, **options}
    return pipe.video(tiny.picture(), MOTION, seed=seed, **options)


def close(a, b, atol=1e-4):
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


# ------------------------------------------------------------------ 1. the two ends of lam


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("skip_zero", [True, False])
def test_lam_one_ignores_the_edits_and_zero_follows_them_alone(kind, reading, unit, skip_zero):
    pipe = tiny.pipeline(kind)
    options = {"reading": reading, "skip_zero": skip_zero, "blend_in": unit}
    one = clip(pipe, lam=1.0, **options, drags=[drag()])
    plain = clip(tiny.pipeline(kind), edited=None)
    close(one.state.z, plain.state.z)
    zero = clip(pipe, lam=0.0, **options, drags=[drag()], mechanism="condition")
    alone = ReferenceChain(pipe.model, zero.state.edit.condition, zero.state.reference.eps, 4)
    close(zero.state.z, alone.end)
    assert (one.state.z - zero.state.z).abs().max() > 1e-2


@pytest.mark.parametrize("reading", READINGS)
def test_skipping_zero_weights_changes_nothing(reading):
    options = {"lam": [1.0, 0.0, 0.4, 0.0], "mechanism": "condition", "drags": [drag()]}
    runs = [
        clip(tiny.pipeline(), reading=reading, skip_zero=skip, **options) for skip in (True, False)
    ]
    close(runs[0].state.z, runs[1].state.z)
    assert len(runs[0].trace[0].tensors) < len(runs[1].trace[0].tensors)
    assert "out_edit" not in runs[0].trace[0]
    with pytest.raises(KeyError, match="weight 0"):
        runs[0].trace[0]["eps_edit"]


# ---------------------------------------------------------------- 2. nothing edited, no lam


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("skip_zero", [True, False])
def test_without_an_edit_lam_does_not_matter(kind, reading, skip_zero):
    options = {"edited": None, "reading": reading, "skip_zero": skip_zero}
    runs = [clip(tiny.pipeline(kind), lam=lam, **options) for lam in (0.0, 0.3, 1.0)]
    for run in runs[1:]:
        close(run.state.z, runs[0].state.z)
        assert np.abs(run.frames.astype(int) - runs[0].frames).max() <= 1


# ----------------------------------------------------------------- 4. batches, kept chains


@pytest.mark.parametrize("reading", READINGS)
def test_branches_in_one_batch_agree_with_one_by_one(reading):
    runs = [
        clip(tiny.pipeline(), reading=reading, batch=batch, lam=0.4, drags=[drag()])
        for batch in (True, False)
    ]
    close(runs[0].state.z, runs[1].state.z)
    assert torch.equal(runs[0].trace[0]["z_t"], runs[1].trace[0]["z_t"])


def test_a_second_edit_reuses_the_reference_chain_exactly(monkeypatch):
    pipe = tiny.pipeline()
    clip(pipe, lam=0.5, edited=tiny.picture(2))
    calls = []
    predict = type(pipe.model).predict

    def counted(self, z, t, conditions):
        calls.append(len(conditions))
        return predict(self, z, t, conditions)

    monkeypatch.setattr(type(pipe.model), "predict", counted)
    second = clip(pipe, lam=0.5)
    assert sum(calls) == 4  # one branch, four steps
    scratch = clip(tiny.pipeline(), lam=0.5)
    assert sum(calls) == 4 + 8
    assert torch.equal(second.state.z, scratch.state.z)
    assert np.array_equal(second.unedited, scratch.unedited)
    assert sum(calls) == 4 + 8  # the unedited clip came for nothing


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"negative_prompt": "red"}, {"motion_scale": 2}, {"num_frames": 3}]
)
def test_another_reference_is_not_mistaken_for_the_kept_one(other):
    pipe = tiny.pipeline()
    clip(pipe)
    run = clip(pipe, **other)
    assert torch.equal(run.state.z, clip(tiny.pipeline(), **other).state.z)


@pytest.mark.parametrize("reading", READINGS)
def test_unedited_is_the_clip_without_edits(reading):
    run = clip(tiny.pipeline(), lam=0.0, reading=reading)
    plain = clip(tiny.pipeline(), edited=None)
    assert np.array_equal(run.unedited, plain.frames)
    assert run.unedited is run.unedited  # kept


# ------------------------------------------------------------------- 5. stop, look, go on


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("stop", [1, 3])
def test_stop_and_resume_is_the_same_clip(reading, stop):
    pipe, options = tiny.pipeline(), {"reading": reading, "lam": 0.4, "eta": 0.5}
    steps = pipe.denoise(tiny.picture(), MOTION, edited=tiny.picture(1), drags=[drag()], **options)
    for _ in range(stop):
        next(steps)
    steps.close()
    run = pipe.last_run
    assert not run.finished and len(run.trace) == stop
    assert run.frames.shape == (4, tiny.SIZE, tiny.SIZE, 3)  # as foreseen
    resumed = pipe.resume(run, progress=False)
    whole = clip(tiny.pipeline(), drags=[drag()], **options)
    assert torch.equal(resumed.state.z, whole.state.z)
    assert len(resumed.trace) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_keeps_the_trace(monkeypatch, error):
    pipe = tiny.pipeline()
    predict, left = type(pipe.model).predict, [5]

    def failing(self, *args):
        left[0] -= 1
        if left[0] == 0:
            raise error("in the middle")
        return predict(self, *args)

    monkeypatch.setattr(type(pipe.model), "predict", failing)
    with pytest.raises(error) as caught:
        clip(pipe, lam=0.5)
    assert "2 of 4 steps are kept" in caught.value.__notes__[0]
    assert len(pipe.last_run.trace) == 2
    finished = pipe.resume(pipe.last_run, progress=False)
    assert torch.equal(finished.state.z, clip(tiny.pipeline(), lam=0.5).state.z)


@pytest.mark.parametrize("reading", READINGS)
def test_a_change_takes_effect_from_the_next_step(reading):
    pipe = tiny.pipeline()
    plain = clip(tiny.pipeline(), edited=None, reading=reading)
    for step in pipe.denoise(tiny.picture(), MOTION, reading=reading):
        if step.index == 1:
            step.change(edited=tiny.picture(1), drags=[drag()], lam=0.2)
    run = pipe.last_run
    for i in (0, 1):
        assert torch.equal(run.trace[i]["eps_hat"], plain.trace[i]["eps_hat"])
    assert not torch.allclose(run.trace[2]["eps_hat"], plain.trace[2]["eps_hat"], atol=1e-3)
    assert run.warped is not None and run.edited is not None
    assert np.array_equal(run.unedited, plain.frames)


def test_changing_the_motion_changes_both_branches_from_there_on():
    pipe = tiny.pipeline()
    before = clip(tiny.pipeline())
    for step in pipe.denoise(tiny.picture(), MOTION, edited=tiny.picture(1)):
        if step.index == 1:
            step.change(motion="the sun stays still")
    run = pipe.last_run
    for name in ("eps", "eps_edit"):
        assert torch.equal(run.trace[1][name], before.trace[1][name])
        assert not torch.equal(run.trace[2][name], before.trace[2][name])
    assert torch.equal(clip(pipe).state.z, before.state.z)  # the kept chain is untouched


def test_the_unedited_clip_is_that_of_the_motion_of_now():
    pipe, clips = tiny.pipeline(), []
    for step in pipe.denoise(tiny.picture(), MOTION, edited=tiny.picture(1)):
        clips.append(pipe.last_run.unedited)  # looked at on the way, before and after the change
        if step.index == 1:
            step.change(motion="the sun stays still")
    assert not np.array_equal(clips[1], clips[2])
    assert np.array_equal(pipe.last_run.unedited, clips[2])


def test_a_whole_trajectory_takes_the_place_of_all_that_was_there():
    """And of drags, pins and camera one by one, those that are not given stay."""
    pan, still = iv.Camera(pan=(2, 0)), iv.TrajectoryInstruction()
    for changes, left in [
        ({"drags": iv.TrajectoryInstruction([drag()])}, (1, 0, None)),
        ({"drags": still}, (0, 0, None)),
        ({"drags": iv.TrajectoryInstruction(pins=[(1, 1), (2, 2)])}, (0, 2, None)),
        ({"drags": still, "camera": pan}, (0, 0, pan)),
        ({"drags": drag(rotate=5)}, (1, 1, pan)),
        ({"drags": ()}, (0, 1, pan)),
        ({"pins": ()}, (1, 0, pan)),
        ({"camera": None}, (1, 1, None)),
    ]:
        pipe = tiny.pipeline()
        next(pipe.denoise(tiny.picture(), MOTION, drags=[drag()], pins=[(14, 14)], camera=pan))
        pipe.last_run.change(**changes)
        r = pipe.last_run.trajectory
        assert (len(r.drags), len(r.pins), r.camera) == left


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("was, becomes", [(0.8, 0.1), ([0.9, 0.7, 0.5, 0.3], np.eye(8))])
def test_another_lam_leaves_the_steps_so_far_on_record(reading, was, becomes):
    """In the run, in its trace, and in what Eq. 5 aligns the clip with."""
    pipe = tiny.pipeline()
    for step in pipe.denoise(
        tiny.picture(), MOTION, edited=tiny.picture(1), lam=was, reading=reading
    ):
        if step.index == 1:
            step.change(lam=becomes)
    run = pipe.last_run
    full = run.lam.shape
    before, after = (lam_schedule(lam, 4, (4, 8, 8)).expand(full) for lam in (was, becomes))
    assert torch.equal(run.state.lam, torch.cat([before[:2], after[2:]]))
    for record, lam in zip(run.trace, run.lam, strict=True):
        assert torch.equal(record.lam.expand_as(lam), lam)
    step.run = clip(tiny.pipeline(), lam=run.lam.numpy(), reading=reading)
    assert torch.equal(run.z, step.run.z) and np.array_equal(run.frames, step.run.frames)


def test_each_step_keeps_its_own_words_and_edit():
    pipe = tiny.pipeline()
    for step in pipe.denoise(tiny.picture(), MOTION):
        if step.index == 1:
            step.change(motion="the sun stays still", edited=tiny.picture(1))
    run = pipe.last_run
    assert [run.edit_at(i).motion for i in range(4)] == [MOTION] * 2 + ["the sun stays still"] * 2
    conditions = [run.edit_at(i).condition for i in range(4)]
    assert conditions[0] is conditions[1] and conditions[2] is conditions[3]
    assert torch.equal(conditions[1].latents, run.reference.condition(1).latents)
    assert not torch.equal(conditions[2].latents, run.reference.condition(2).latents)
    assert not torch.equal(conditions[1].text, conditions[2].text)


def test_a_finished_run_takes_no_change():
    run = clip(tiny.pipeline())
    frames = run.frames.copy()
    with pytest.raises(ValueError, match="the clip is finished: start another run"):
        run.change(lam=0.0)
    assert np.array_equal(run.frames, frames) and float(run.lam.max()) == pytest.approx(0.3)


@pytest.mark.parametrize(
    "change", [{"lam": 2}, {"motion": ""}, {"drags": [3]}, {"edited": "no.png"}, {"colour": 1}]
)
def test_a_bad_change_leaves_the_run_as_it_was(change):
    pipe = tiny.pipeline()
    for step in pipe.denoise(tiny.picture(), MOTION, edited=tiny.picture(1)):
        if step.index == 1:
            with pytest.raises((ValueError, TypeError)):
                step.change(**{"lam": 0.0, **change})
    assert torch.equal(pipe.last_run.state.z, clip(tiny.pipeline()).state.z)
    with pytest.raises(ValueError, match="finished"):
        step.change(lam=0.0)


def test_previews_are_pictures():
    for kind in KINDS:
        pipe = tiny.pipeline(kind)
        for step in pipe.denoise(tiny.picture(), MOTION):
            assert step.preview(2).size == (tiny.SIZE, tiny.SIZE)
        for step in pipe.denoise_image("a boat"):
            assert step.preview().size == (tiny.SIZE, tiny.SIZE)
        assert step.picture.tobytes() == pipe.image("a boat").tobytes()


# -------------------------------------------------------- what is handed out, and what is kept


def test_who_writes_into_what_is_handed_out_changes_no_clip_of_anyone():
    """Frames and masks are read-only; tensors and pictures are copies."""
    pipe, options = tiny.pipeline(), {"lam": 0.4, "drags": [drag()]}
    whole = clip(tiny.pipeline(), **options)
    steps = pipe.denoise(tiny.picture(), MOTION, edited=tiny.picture(1), **options)
    for step in steps:
        for name in ("z_t", "z_edit", "out", "out_edit_cond", "out_hat", "lam", "eps", "x0"):
            step[name].fill_(7.0)
        run = step.run
        for picture in (run.picture, run.edited, run.still):
            picture.paste("red", (0, 0, *picture.size))
        if not run.finished:
            step.change(lam=0.4)
    pipe.model.encode(to_pixels(tiny.picture())).fill_(7.0)
    pipe.model.encode_text(MOTION).fill_(7.0)
    warped = run.warped
    for array in (
        run.frames,
        run.unedited,
        warped.frames,
        warped.masks,
        warped.vacated,
        warped.field,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
    for other in (run, clip(pipe, **options)):
        assert torch.equal(other.z, whole.z) and np.array_equal(other.frames, whole.frames)
        assert np.array_equal(other.unedited, whole.unedited)
        assert torch.equal(other.trace["out_hat"], whole.trace["out_hat"])


def test_who_writes_into_the_latent_of_a_picture_does_not_disturb_the_next_step():
    for step in tiny.pipeline().denoise_image("a boat"):
        picture = step.picture
        step.z.fill_(7.0)
    assert picture == tiny.pipeline().image("a boat")


@pytest.mark.parametrize("kind", KINDS)
def test_latents_are_kept_by_shape_and_dtype_too(kind):
    """The same bytes, upright, across, twice, or in another precision."""
    pixels = torch.rand(1, 3, 16, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = tiny.model(kind)
    for other in (
        pixels.reshape(1, 3, 8, 16),
        pixels.view(torch.uint8).float() / 255,
        pixels.reshape(2, 3, 8, 8),
        pixels.bfloat16(),
        pixels.double(),
        torch.zeros(1, 3, 8, 8),
        torch.zeros(2, 3, 8, 8),
    ):
        model.encode(pixels)
        kept = model.encode(other)
        tiny.pipeline(kind).clear_cache()
        assert torch.equal(kept, model.encode(other))


# ----------------------------------------------------------------------- 6. drags


@pytest.mark.parametrize("mechanism", ["both", "condition", "dual-clock"])
@pytest.mark.parametrize("reading", READINGS)
def test_an_identity_drag_changes_nothing_outside_rounding(mechanism, reading):
    still = iv.Drag(path=[(5, 7), (5, 7)], mask=tiny.region())
    pipe = tiny.pipeline()
    run = clip(
        pipe,
        edited=None,
        drags=[still],
        lam=0.0,
        mechanism=mechanism,
        reading=reading,
        strong=0,
        weak=0,
    )
    plain = clip(tiny.pipeline(), edited=None)
    inside = np.abs(run.frames.astype(int) - plain.frames)
    assert inside.max() <= 2


@pytest.mark.parametrize("mechanism", ["both", "condition", "dual-clock"])
@pytest.mark.parametrize("reading", READINGS)
def test_every_mechanism_moves_something_and_lam_one_undoes_it(mechanism, reading):
    options = {"edited": None, "drags": [drag()], "mechanism": mechanism, "reading": reading}
    plain = clip(tiny.pipeline(), edited=None)
    moved = clip(tiny.pipeline(), lam=0.0, **options)
    assert (moved.state.z - plain.state.z).abs().max() > 0.05
    close(clip(tiny.pipeline(), lam=1.0, **options).state.z, plain.state.z)


def test_dual_clock_puts_the_noised_warped_clip_back():
    """Everywhere in the weak steps, then where things move, then no more."""
    pipe = tiny.pipeline("storybook")
    options = {"edited": None, "drags": [drag()], "mechanism": "dual-clock", "lam": 0.0}
    options["source"] = "still"
    run = clip(pipe, weak=0.5, strong=0.75, **options)
    edit, scheduler = run.state.edit, pipe.model.scheduler(4)
    assert (edit.weak, edit.strong) == (2, 3)
    for i in range(1, 4):
        t, eps = scheduler.timesteps[i : i + 1], run.state.reference.eps
        put = scheduler.add_noise(edit.warped_latents, eps, t)
        z = run.trace[i]["z_edit"]
        moving, still = edit.mask.expand_as(z) == 1, edit.mask.expand_as(z) == 0
        assert torch.allclose(z[moving], put[moving], atol=1e-4) == (i < 3)
        assert torch.allclose(z[still], put[still], atol=1e-4) == (i < 2)


def test_a_thing_held_to_the_end_looks_as_in_the_warped_clip():
    """By default, to the share that the edit has in the blend; the rest is the model's."""
    pipe = tiny.pipeline("storybook")
    options = {"edited": None, "drags": [drag()], "mechanism": "dual-clock", "weak": 0.5}
    options["source"] = "still"
    for lam in (0.0, 1.0):
        run = clip(pipe, lam=lam, **options)
        z, edit = run.state.z, run.state.edit
        moving, still = edit.mask.expand_as(z) == 1, edit.mask.expand_as(z) == 0
        assert torch.allclose(z[moving], edit.warped_latents[moving]) == (lam == 0)
        assert not torch.allclose(z[still], edit.warped_latents[still])


@pytest.mark.parametrize("steps", range(1, 30))
def test_all_of_the_noise_anew_is_finite_from_pure_noise_on(steps):
    """eta = 1 where alpha_bar is 0: NaN at 3 steps before."""
    scheduler = tiny.model("storybook").scheduler(steps)
    out, z = torch.randn(2, 4, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    assert scheduler_step(scheduler, out, scheduler.timesteps[0], z, 0, eta=1.0).isfinite().all()


def test_noise_of_a_stochastic_scheduler_differs_by_step_and_seed_alone():
    scheduler = tiny.model().scheduler(4)
    t, z = scheduler.timesteps[1], torch.zeros(2, 4, 8, 8)
    a, again, step, seed = (
        scheduler_step(scheduler, z, t, z, i, seed, eta=1.0)
        for i, seed in ((1, 0), (1, 0), (2, 0), (1, 1))
    )
    assert torch.equal(a, again)
    assert not torch.allclose(a, step) and not torch.allclose(a, seed)


@pytest.mark.parametrize("kind", ["PNDM", "UniPCMultistep", "HeunDiscrete", "DEISMultistep"])
def test_a_step_that_is_taken_again_is_the_same_step(kind):
    """Whatever a scheduler keeps of earlier steps: indices, lists, sums in place."""
    options = {"skip_prk_steps": False} if kind == "PNDM" else {}
    scheduler = getattr(diffusers, f"{kind}Scheduler")(beta_schedule="linear", **options)
    scheduler.set_timesteps(8)
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for i, t in enumerate(scheduler.timesteps):
        out = torch.sin(z + i)
        stepped(scheduler, out, t, z, i)  # cut short
        scheduler, z = stepped(scheduler, out, t, z, i)
    whole = getattr(diffusers, f"{kind}Scheduler")(beta_schedule="linear", **options)
    whole.set_timesteps(8)
    expected = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for i, t in enumerate(whole.timesteps):
        expected = scheduler_step(whole, torch.sin(expected + i), t, expected, i)
    assert torch.equal(z, expected)


# ------------------------------------------------------------------------- 7. painting


@settings(max_examples=25)
@given(
    x=st.floats(2, 14),
    y=st.floats(2, 14),
    width=st.floats(1, 6),
    strength=st.sampled_from([0, 0.5, 1]),
)
def test_pixels_outside_the_edit_mask_are_identical(x, y, width, strength):
    pipe, before = tiny.pipeline(), tiny.picture()
    strokes = [iv.Stroke(points=[(x, y)], width=width)]
    after = np.asarray(pipe.image("a red sun", before, strokes=strokes, strength=strength))
    _, alpha = iv.rasterise(before, strokes)
    outside = iv.edit_mask(alpha, cell=pipe.vae_scale_factor) == 0
    assert np.array_equal(after[outside], np.asarray(before)[outside])
    if strength == 0:
        assert np.array_equal(after, np.asarray(iv.rasterise(before, strokes)[0]))


def test_the_noised_original_is_put_back_outside_the_mask():
    pipe, model = tiny.pipeline(), tiny.model()
    mask = np.zeros((tiny.SIZE, tiny.SIZE), np.float32)
    mask[4:8, 4:12] = 1
    cells = torch.from_numpy(iv.latent_mask(mask, pipe.vae_scale_factor))
    outside = cells.expand(1, 4, -1, -1) == 0
    original = model.encode(to_pixels(tiny.picture()))
    steps = list(pipe.denoise_image("a red sun", tiny.picture(), mask=mask, strength=1.0, seed=5))
    noise = model.image_noise(pipe.size, torch.Generator().manual_seed(5))
    scheduler = model.scheduler(4, "image")
    for step, t in zip(steps, scheduler.timesteps[1:], strict=False):
        kept = scheduler.add_noise(original, noise, t[None])
        close(step.z[outside], kept[outside])
        assert not torch.allclose(step.z[~outside], kept[~outside], atol=1e-2)
    assert torch.equal(steps[-1].z[outside], original[outside])


def test_a_mask_alone_edits_its_region_and_no_more():
    mask = np.zeros((tiny.SIZE, tiny.SIZE), np.float32)
    mask[4:8, 4:12] = 1
    before = np.asarray(tiny.picture())
    after = np.asarray(tiny.pipeline().image("a red sun", tiny.picture(), mask=mask, strength=1.0))
    assert np.array_equal(after[mask == 0], before[mask == 0])
    assert (after[mask == 1] != before[mask == 1]).any()


# ------------------------------------------------------------------- 8. the same again


def test_saved_instructions_replay_to_the_same_frames(tmp_path):
    said = iv.Instructions(
        image=iv.ImageInstruction(tiny.picture()),
        content=iv.ContentInstruction("a red sun", [iv.Stroke(points=[(8, 8)], width=4)], 0.5),
        motion=iv.MotionInstruction(MOTION, motion_scale=1),
        trajectory=iv.TrajectoryInstruction([drag()]),
        lam=0.4,
        seed=3,
        num_frames=4,
    )
    said.save(tmp_path / "session.json")
    first = tiny.pipeline().run(said, progress=False)
    again = tiny.pipeline().run(iv.Instructions.load(tmp_path / "session.json"), progress=False)
    assert np.array_equal(first.frames, again.frames)
    assert not np.array_equal(first.frames, first.unedited)


def test_what_is_said_beside_saved_instructions_counts():
    said = iv.Instructions(
        image=iv.ImageInstruction(tiny.picture()),
        motion=iv.MotionInstruction(MOTION, motion_scale=1),
        num_frames=4,
    )
    run = tiny.pipeline().run(said, motion_scale=2, seed=5, progress=False)
    assert (run.settings.motion_scale, run.settings.seed) == (2, 5)


def test_another_seed_is_another_clip():
    assert not np.array_equal(clip(tiny.pipeline()).frames, clip(tiny.pipeline(), seed=1).frames)


# ------------------------------------------------------------------------ Eq. 4 itself


@given(st.floats(0, 1), st.integers(0, 99))
def test_blend_in_eps_v_or_x0_is_one_for_one_latent(lam, seed):
    torch.manual_seed(seed)
    z, eps, eps_edit = torch.randn(3, 2, 3, 4, 4)
    signal, noise = 0.6, 0.8
    mixed = blend(eps, eps_edit, lam)
    for to in ("v", "x0"):
        a, b, c = (convert(out, z, signal, noise, "epsilon", to) for out in (eps, eps_edit, mixed))
        close(blend(a, b, lam), c)


@pytest.mark.parametrize(
    "lam, shape",
    [
        (0.3, (4, 1, 1, 1, 1)),
        ([1, 0.5, 0.2, 0], (4, 1, 1, 1, 1)),
        (np.zeros((5, 1, 1, 1)), (4, 5, 1, 1, 1)),
        (np.zeros((4, 1, 1, 6, 8)), (4, 1, 1, 6, 8)),
        (np.zeros((6, 8)), (4, 1, 1, 6, 8)),
        (np.zeros((12, 16)), (4, 1, 1, 6, 8)),  # pixels of the picture
        (torch.ones(5, 1, 12, 16), (4, 5, 1, 6, 8)),
    ],
)
def test_lam_broadcasts(lam, shape):
    assert lam_schedule(lam, 4, (5, 6, 8), cell=2).shape == shape


@pytest.mark.parametrize(
    "lam", [-0.1, 1.5, float("nan"), [], [0.5] * 3, np.zeros((3, 8)), np.zeros((1,) * 6), "half"]
)
def test_bad_lam_is_one_sentence(lam):
    with pytest.raises(ValueError, match="lam "):
        lam_schedule(lam, 4, (5, 6, 8), cell=2)


def test_lam_of_a_region_edits_that_region_alone():
    """With `shared` and one step, the prediction outside the region is the reference's own."""
    lam = np.ones((8, 8))
    lam[2:5, 2:5] = 0
    run = clip(tiny.pipeline(), lam=lam, reading="shared")
    step, outside = run.trace[0], torch.from_numpy(lam == 1)
    assert torch.equal(step["eps_hat"][..., outside], step["eps"][..., outside])
    assert torch.equal(step["eps_hat"][..., ~outside], step["eps_edit"][..., ~outside])


def test_guidance_by_frame():
    pipe = tiny.pipeline()
    flat = clip(pipe, guidance_scale=3.0)
    close(clip(pipe, guidance_scale=[3.0] * 4).state.z, flat.state.z)
    first = clip(pipe, guidance_scale=[1.0, 3.0, 3.0, 3.0]).trace[0]
    close(first["eps"][0], first["eps_cond"][0])
    close(first["eps"][1:], flat.trace[0]["eps"][1:])
