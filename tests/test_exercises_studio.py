"""Chapter 8: what its checks say of tries that are not there yet."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
from test_exercises import refused

import ivkit
from ivkit.course import checks
from ivkit.instructions import TrajectoryInstruction
from ivkit.widgets.session import Change, Session, Sketch, Take

ASKED = ivkit.Instructions(
    ivkit.ImageInstruction(picture=tiny.picture()),
    ivkit.ContentInstruction("a boat", [ivkit.Stroke([(9, 9), (10, 10)], width=4)]),
    ivkit.MotionInstruction("the boat moves right"),
)
LEFT = TrajectoryInstruction(drags=[ivkit.Drag(path=[(9, 7), (5, 7)], mask=tiny.region())])


def take(changes=(), **what):
    return Take("try", "storybook", replace(ASKED, **what), changes=changes)


def paused(*steps, paint=True):
    edited = tiny.picture(1) if paint else None
    return [take([Change(step, edited, TrajectoryInstruction(), 0.5, "a boat")]) for step in steps]


@pytest.mark.parametrize(
    "takes, words",
    [
        ([], "Generate, Pause"),
        ([take()], "Generate, Pause"),
        (paused(1, 8, paint=False), "Generate, Pause"),
        (paused(1, 3), "from step 2 on"),
    ],
)
def test_early_and_late_says_what_is_missing(takes, words, capsys):
    refused(capsys, checks.early_and_late, takes, words)


def region(inside, outside):
    """λ for a picture of 16 x 16 pixels and cells of 4 x 4; the paint is in cell (2, 2)."""
    lam = np.full((1, 1, 4, 4), float(outside))
    lam[..., 2, 2] = inside
    return [take(lam=lam)]


@pytest.mark.parametrize(
    "takes, words",
    [
        ([], "from place to place"),
        ([take(lam=0.0), take(lam=np.linspace(0, 1, 6).reshape(-1, 1, 1, 1, 1))], "from place"),
        (region(1, 0), "inside the paint λ is 1"),
        (region(0, 0.6), "at most 0.6"),
    ],
)
def test_inside_only_says_what_is_missing(takes, words, capsys):
    assert tiny.picture().size == (16, 16)
    refused(capsys, checks.inside_only, takes, words)


@pytest.mark.parametrize(
    "takes, words",
    [
        ([take(lam=0.0), take(lam=0.6)], "no try has a drag to the left"),
        ([take(lam=0.0, trajectory=replace(LEFT, drags=[
            ivkit.Drag(path=[(5, 7), (9, 7)], mask=tiny.region())]))], "no try has a drag"),
        ([take(lam=0.0, trajectory=LEFT, motion=ivkit.MotionInstruction("it moves"))], "right"),
        ([take(lam=lam, trajectory=LEFT) for lam in (0.1, 0.6)], "0.1 and 0.6"),
        ([take(lam=lam, trajectory=LEFT) for lam in (0.0, 0.3)], "0 and 0.3"),
    ],
)  # fmt: skip
def test_against_the_words_says_what_is_missing(takes, words, capsys):
    refused(capsys, checks.against_the_words, takes, words)


def test_a_saved_session_can_be_given_to_the_checks(tmp_path, capsys):
    """As the README tells teachers."""
    sketch = Sketch(tiny.picture())
    Session(sketch, takes=paused(1, 8)).save(tmp_path / "theirs.json")
    assert checks.early_and_late(Session.load(tmp_path / "theirs.json").takes)
    refused(capsys, checks.inside_only, Session.load(tmp_path / "theirs.json").takes, "place")
