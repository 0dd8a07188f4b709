"""Chapters 6 and 7: what their checks say of wrong answers, and what they write out is ivkit's."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
import tiny
import torch
from test_exercises import defined, refused

from ivkit.align import Align, ResidualAlign
from ivkit.bench.metrics import flicker
from ivkit.course import checks
from ivkit.pictures import to_pixels


@pytest.mark.parametrize("reading", ["paired", "shared"])
def test_both_readings_written_out_are_ivkits_loop(reading):
    chapter, pipe = defined("06_lambda"), tiny.pipeline("storybook")
    model, x, edited = pipe.model, tiny.picture(), tiny.picture(1)
    options = {"num_frames": 3, "guidance_scale": 1.0}
    settings = {"num_inference_steps": 4, "reading": reading, "progress": False, **options}
    run = pipe.video(x, "the boat moves", edited=edited, lam=0.3, batch=False, **settings)
    found = chapter[reading](
        lambda z, t, condition: model.predict(z[None], t, [condition])[0].guided,
        model.scheduler(4),
        model.noise(3, pipe.size, torch.Generator().manual_seed(0)),
        *(model.condition(to_pixels(p), "the boat moves", **options) for p in (x, edited)),
        0.3,
    )
    z, z_edit = found if reading == "paired" else (run.state.reference.end, found)
    torch.testing.assert_close(z, run.state.reference.end)
    torch.testing.assert_close(z_edit, run.state.z)
    assert not torch.allclose(z, z_edit, atol=1e-3)


def test_both_forms_of_alignment_written_out_are_ivkits():
    chapter = defined("07_align")
    v, x = torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    printed, module = Align(), ResidualAlign()
    torch.nn.init.normal_(module.conv.weight)
    with torch.no_grad():
        mine = printed.conv(chapter["silu"](chapter["normalised"](v - x)))
        torch.testing.assert_close(mine, printed(v, x))
        layers = (module.norm, torch.nn.SiLU(), module.hidden, torch.nn.SiLU(), module.conv)
        mine = chapter["residual"](v, x, torch.nn.Sequential(*layers))
        torch.testing.assert_close(mine, module(v, x))


def test_flicker_written_out_is_ivkits():
    chapter = defined("07_align", cv2=cv2)
    rng = np.random.default_rng(0)
    still = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (64, 48))
    clip = np.stack([np.roll(still, 2 * f, 1) for f in range(3)] + [still // 2])
    maps = [chapter["unexplained"](*pair) for pair in pairwise(clip)]
    assert maps[0].shape == (48, 64)
    np.testing.assert_allclose(np.mean(maps), flicker(clip), rtol=1e-5)
    assert maps[2].mean() > 2 * maps[0].mean()  # a change of light is none that motion explains


def late(value=0.0, start=2):
    lam = np.ones((6, 8, 1, 1, 1))
    lam[start:, -4:] = value
    return lam


@pytest.mark.parametrize(
    "lam, words",
    [
        (0.5, "step 0, frame 0"),
        (np.ones((6, 8)), "does not broadcast"),
        ("late", "does not broadcast"),
        (late(0.2), "step 2, frame 4"),
        (late(start=3), "step 2, frame 4"),
    ],
)
def test_late_edit_says_where_it_is_wrong(lam, words, capsys):
    refused(capsys, lambda lam: checks.late_edit(lam, 6, 8), lam, words)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda eps, a, b, lam, share: a, "no edit counts"),
        (lambda eps, a, b, lam, share: lam * eps + (1 - lam) * b, "only the first"),
        (lambda eps, a, b, lam, share: lam * eps + (1 - lam) * a, "only the second"),
        (lambda eps, a, b, lam, share: eps if lam == 1 else share * a + (1 - share) * b, "weights"),
        (lambda eps, a, b, lam, share: eps[0], "no edit counts"),
        (lambda eps, a, b: eps, "TypeError"),
    ],
)
def test_two_edits_says_what_is_wrong(answer, words, capsys):
    refused(capsys, checks.two_edits, answer, words)


def blended_eps(v, v_edit, z, z_edit, lam, a):
    eps, eps_edit = (a**0.5 * p + (1 - a) ** 0.5 * q for p, q in ((v, z), (v_edit, z_edit)))
    return lam * eps + (1 - lam) * eps_edit


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda v, v_edit, z, z_edit, lam, a: lam * v + (1 - lam) * v_edit, "own latent"),
        (blended_eps, "velocity of z_edit"),
        (lambda v, v_edit, z, z_edit, lam, a: z - z_edit, "goes with"),
        (lambda v, v_edit, z, z_edit, lam, a: v[0], "shape"),
    ],
)
def test_blend_in_eps_says_what_is_wrong(answer, words, capsys):
    refused(capsys, checks.blend_in_eps, answer, words)


V, X, OTHER = torch.rand(3, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "pairs, words",
    [
        (None, "None"),
        (3, "could not take"),
        (((V, X), (V, X)), "same"),
        (((X, X), (OTHER, OTHER)), "zero"),
        (((V, X), (OTHER, X)), "tells them apart"),
    ],
)
def test_same_difference_says_what_is_wrong(pairs, words, capsys):
    torch.manual_seed(0)
    refused(capsys, checks.same_difference, pairs, words)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda x, x_edit, lam: x, "shape"),
        (lambda x, x_edit, lam: x_edit.expand(3, -1, -1, -1), "target is x"),
        (lambda x, x_edit, lam: x.expand(3, -1, -1, -1), "x_edit"),
        (
            lambda x, x_edit, lam: torch.where(lam.view(-1, 1, 1, 1) > 0.2, x, x_edit),
            "in between",
        ),
        (lambda x, x_edit, lam: lam @ x, "RuntimeError"),
    ],
)
def test_align_targets_says_what_is_wrong(answer, words, capsys):
    refused(capsys, checks.align_targets, answer, words)


def change(clip):
    return np.abs(np.diff(clip.astype(float), axis=0)).mean()


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda f, r: np.diff(f, axis=0).mean() / np.diff(r, axis=0).mean(), "wraps"),
        (lambda f, r: change(r) / change(f), "upside down"),
        (lambda f, r: change(f), "divide"),
        (lambda f, r: change(f) - change(r), "you say"),
        (lambda f, r: f, "one number"),
    ],
)
def test_relative_flicker_says_what_is_wrong(answer, words, capsys):
    refused(capsys, checks.relative_flicker, answer, words)
