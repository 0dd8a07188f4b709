"""Chapters 6 and 7: what they write out is what ivkit computes."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
import tiny
import torch
from test_exercises import defined

from ivkit.align import Align, ResidualAlign
from ivkit.bench.metrics import flicker
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
