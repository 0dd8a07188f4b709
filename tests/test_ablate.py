"""Whose work is it: each part of the method alone, and what is measured of it."""

import numpy as np
import pytest
import tiny
import torch
from families import FAMILIES

import ivkit as iv
from ivkit.align import ResidualAlign
from ivkit.pipeline import Pipeline

MOTION = "the boat moves right"
DRAG = iv.Drag(path=[(5, 7), (10, 7)], mask=tiny.region())


def aligned(pipe):
    """With an alignment (Eq. 5) that is seen."""
    torch.manual_seed(0)
    pipe.align = ResidualAlign()
    torch.nn.init.normal_(pipe.align.conv.weight, std=0.1)
    return pipe


def test_each_part_is_the_clip_that_it_says():
    pipe, edited = aligned(tiny.pipeline("storybook")), tiny.picture(1)
    options = {"lam": 0.3, "seed": 2, "progress": False}
    run = pipe.video(tiny.picture(), MOTION, edited=edited, drags=[DRAG], **options)
    found = iv.ablate(pipe, run)
    assert list(found.clips) == ["Eq. 4 alone", "+ condition", "+ dual-clock", "+ Eq. 5"]
    np.testing.assert_array_equal(found.clips["+ Eq. 5"], run.frames)
    off = {**options, "align": False}
    still = iv.drag_still(edited, [DRAG])
    alone = pipe.video(tiny.picture(), MOTION, edited=still, **off)
    np.testing.assert_array_equal(found.clips["Eq. 4 alone"], alone.frames)
    both = {"edited": edited, "drags": [DRAG], **off}
    for part, mechanism in (("+ condition", "condition"), ("+ dual-clock", "both")):
        clip = pipe.video(tiny.picture(), MOTION, mechanism=mechanism, **both)
        np.testing.assert_array_equal(found.clips[part], clip.frames)
    for measures in found.measures.values():
        assert measures.keys() >= {"drag_distance", "edit_kept", "flicker"}
    assert found.measures["+ dual-clock"] != found.measures["+ condition"]
    assert found.sheet(every=2).width > 100


def test_parts_that_there_are_not_are_left_out():
    pipe = tiny.pipeline()
    run = pipe.video(tiny.picture(), MOTION, edited=tiny.picture(1), progress=False)
    found = iv.ablate(pipe, run)
    assert list(found.clips) == ["Eq. 4 alone"]
    np.testing.assert_array_equal(found.clips["Eq. 4 alone"], run.frames)
    assert "drag_distance" not in found.measures["Eq. 4 alone"]


@pytest.mark.parametrize("name", ["cogvideox", "wan-2.2"])
def test_of_a_model_with_one_condition(name):
    family = FAMILIES[name]
    pipe = Pipeline(family.model())
    w, h = family.size
    drag = iv.Drag(path=[(w / 4, h / 3), (w / 2, h / 3)], mask=np.eye(h, w, dtype=bool))
    run = pipe.video(family.picture(), MOTION, drags=[drag], num_inference_steps=2, progress=False)
    parts = list(iv.ablate(pipe, run).clips)
    assert parts == ["Eq. 4 alone", *["+ condition"] * pipe.model.per_frame, "+ dual-clock"]


def test_what_was_changed_on_the_way_is_changed_in_every_part():
    pipe = tiny.pipeline("storybook")
    for step in pipe.denoise(tiny.picture(), MOTION, trace=False):
        if step.index == 1:
            step.change(drags=[DRAG], lam=0.1, edited=tiny.picture(1))
    found = iv.ablate(pipe, step.run)
    assert list(found.clips) == ["Eq. 4 alone", "+ condition", "+ dual-clock"]
    np.testing.assert_array_equal(found.clips["+ dual-clock"], step.run.frames)
    for step in pipe.denoise(tiny.picture(), MOTION):
        if step.index == 1:
            step.change(lam=0.1, edited=iv.drag_still(tiny.picture(1), [DRAG]))
    np.testing.assert_array_equal(found.clips["Eq. 4 alone"], step.run.frames)
