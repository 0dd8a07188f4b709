"""Chapters 4 and 5: what they write out is what the libraries compute."""

import cv2
import numpy as np
import pytest
import tiny
import torch
from test_exercises import defined

import ivkit
from ivkit.bench.metrics import centre

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
