"""Chapters 4 and 5: what they write out is the library's, and their checks say what is wrong."""

import numpy as np
import pytest
import tiny
import torch
from test_exercises import defined, refused

from ivkit import checks

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
