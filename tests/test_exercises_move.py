"""Chapters 4 and 5: what they write out is the library's, and their checks say what is wrong."""

import cv2
import numpy as np
import pytest
import tiny
import torch
from test_exercises import defined, refused

import ivkit
from ivkit.bench.metrics import centre
from ivkit.course import checks

# ---- chapter 4 -------------------------------------------------------------------------------


def test_a_motion_module_written_out_is_the_librarys():
    chapter = defined("04_make_it_move")
    unet = tiny.model().video_unet
    module = next(m for n, m in unet.named_modules() if n.endswith("motion_modules.0"))
    width = module.proj_in.in_features
    frames = torch.randn(4, width, 5, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mine, theirs = chapter["motion_module"](module, frames), module(frames, num_frames=4)
    assert torch.equal(chapter["as_frames"](chapter["as_sentences"](frames), 5, 3), frames)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(theirs, frames)


@pytest.mark.parametrize("kind", ["pia", "storybook"])
def test_the_loop_written_out_is_ivkits(kind):
    from ivkit.models.common import computing

    pipe = tiny.pipeline(kind)
    model = pipe.model
    names = {"pipe": pipe, "model": model, "unet": model.video_unet, "computing": computing}
    chapter = defined("04_make_it_move", F=4, STEPS=4, SEED=7, GUIDANCE=3.0, **names)
    run = pipe.video(tiny.picture(), "the boat moves right", seed=7, progress=False)
    condition = run.state.reference.condition(0)
    with torch.no_grad():
        mine = chapter["denoise"](condition.text, condition.affinity, condition.latents)
    torch.testing.assert_close(mine, run.state.reference.end, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "values, words",
    [
        (None, "None"),
        (np.ones((8, 1)), "shape"),
        (np.ones(8), "from 1 to 1"),
        (np.linspace(1, 0.25, 8) ** 0.5, "not all the same"),
    ],
)
def test_affinity_says_what_is_wrong(values, words, capsys):
    refused(capsys, lambda v: checks.affinity(v, 8), values, words)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda weight: weight, "(8, 9, 3, 3)"),
        (lambda weight: torch.zeros(8, 9, 3, 3), "old weight"),
        (lambda weight: torch.cat([weight, weight, weight[:, :1]], 1), "add 0"),
        (lambda weight: torch.cat([weight, 0], 1), "TypeError"),
    ],
)
def test_widen_says_what_is_wrong(answer, words, capsys):
    refused(capsys, checks.widen, answer, words)


def hidden_in_place(scores):
    scores[..., torch.ones(5, 5).triu(1) > 0] = -torch.inf
    return scores.softmax(-1)


def hidden_evenly(scores):
    looks = torch.ones_like(scores).tril()
    return looks / looks.sum(-1, keepdim=True)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda scores: scores[0], "shape"),
        (hidden_in_place, "clone"),
        (lambda scores: scores / 0, "infinities"),
        (lambda scores: scores.softmax(-1), "looks ahead"),
        (lambda scores: scores.softmax(-1).tril(), "add up"),
        (hidden_evenly, "not the softmax"),
    ],
)
def test_no_looking_ahead_says_what_is_wrong(answer, words, capsys):
    refused(capsys, checks.no_looking_ahead, answer, words)


# ---- chapter 5 -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [[(4, 7), (11, 9)], [(4, 7), (4, 3), (12, 3)], [(5, 6), (5, 6)]])
def test_paths_and_fields_written_out_are_ivkits(path):
    chapter = defined("05_drag")
    where = chapter["along"](path, 6)
    for rotate, scale in ((0, 1), (-40, 0.5), (700, 2)):
        drag = ivkit.Drag(path=path, mask=tiny.region(), rotate=rotate, scale=scale)
        mine = chapter["turned"](tiny.region(), where, rotate, scale)
        theirs = ivkit.displacement(drag, (tiny.SIZE, tiny.SIZE), 6)
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_dual_clock_written_out_is_ivkits():
    chapter, pipe = defined("05_drag"), tiny.pipeline("storybook")
    drag = ivkit.Drag(path=[(5, 7), (9, 9)], mask=tiny.region())
    options = {"drags": [drag], "lam": 0.25, "mechanism": "dual-clock", "progress": False}
    run = pipe.video(tiny.picture(), "the boat moves right", **options)
    edit, eps = run.state.edit, run.state.reference.eps
    assert edit.weak > 0  # the first step: pure noise, and the mask is 1 everywhere
    t = run.state.scheduler.timesteps[:1]
    clip = run.state.scheduler.add_noise(edit.warped_latents, eps, t)
    mine = chapter["put_back"](eps, clip, torch.ones_like(edit.mask), 0.25)
    torch.testing.assert_close(mine, run.trace[0]["z_edit"])


def test_the_middle_of_a_thing_written_out_is_ivkits():
    chapter = defined("05_drag", cv2=cv2)
    background = np.full((40, 50, 3), 90, np.uint8)
    frame = background.copy()
    frame[5:15, 20:32], frame[30:34, 4:8] = 255, 0  # a thing, and something smaller
    mine, (theirs, _) = chapter["middle"](frame, background), centre(frame, background)
    np.testing.assert_allclose(mine, theirs)
    np.testing.assert_allclose(mine, (25.5, 9.5))


def path(*points):
    return ivkit.Drag(path=points)


@pytest.mark.parametrize(
    "drag, words",
    [
        (None, "None"),
        (path((50, 90), (120, 90)), "2 points"),
        (path((50, 90), (60, 60), (90, 90)), "40 pixels"),
        (path((50, 90), (60, 60), (120, 60)), "30 pixels above"),
        (path((50, 90), (60, 60), (120, 99)), "9 pixels below"),
        (path((50, 90), (80, 120), (120, 90)), "rises 0"),
    ],
)
def test_detour_says_what_is_wrong(drag, words, capsys):
    refused(capsys, checks.detour, drag, words)


def rolled(picture, mask, background, shift):
    there = np.roll(mask, shift[::-1], (0, 1))
    return np.where(there[..., None], np.roll(picture, shift[::-1], (0, 1)), background)


def uncut(picture, mask, background, shift):
    there = np.roll(mask, shift[::-1], (0, 1))
    return np.where(there[..., None], picture, background)


def left_behind(picture, mask, background, shift):
    moved = rolled(picture, mask, background, shift)
    moved[mask] = picture[mask]
    return moved


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda *given: rolled(*given).astype(float), "uint8"),
        (lambda *given: rolled(*given)[:5], "(12, 16, 3)"),
        (left_behind, "background now"),
        (uncut, "move inside by"),
        (rolled, "beyond the frame by"),
        (lambda picture, mask: picture, "for a move inside, your function raised TypeError"),
    ],
)
def test_cut_and_drag_says_what_is_wrong(answer, words, capsys):
    refused(capsys, checks.cut_and_drag, answer, words)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda region, cell: region.reshape(3, 3, 4, 4, 4).mean((2, 4)), "channel"),
        (lambda region, cell: region, "(3, 1, 3, 4)"),
        (lambda region, cell: region[:, None, ::cell, ::cell], "one pixel"),
        (lambda region, cell: region.reshape(3, 1, 3, 4, 4, 4).max((3, 5)), "not hold the mean"),
    ],
)
def test_cell_means_says_what_is_wrong(answer, words, capsys):
    refused(capsys, checks.cell_means, answer, words)
