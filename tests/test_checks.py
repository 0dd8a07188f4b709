"""The exercises' checks: a stub is told what is missing, a solution is right."""

import inspect

import numpy as np
import pytest
from PIL import Image

import ivkit as iv
from ivkit.course import checks

SKY = np.zeros((64, 64))
SKY[4:12, 10:40] = 1


@pytest.mark.parametrize(
    "alpha, words",
    [
        (None, "nothing is painted"),
        (np.zeros((64, 64)), "nothing is painted"),
        (np.ones((64, 64)), "lower half"),
        (SKY * (np.arange(64) < 12), "%"),
    ],
)
def test_painted_share_says_what_is_missing(alpha, words, capsys):
    assert not checks.painted_share(alpha)
    assert words in capsys.readouterr().out


def test_painted_share_takes_a_cloud():
    assert checks.painted_share(SKY)


def test_the_hint_of_the_first_exercise_solves_it():
    stroke = iv.Stroke([(60, 40), (120, 40)], colour="white", width=30)
    alpha = iv.rasterise(Image.new("RGB", (256, 256)), [stroke])[1]
    assert checks.painted_share(alpha) and round(alpha.mean(), 2) == 0.04


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda eps, eps_edit, lam: None, "nothing yet"),
        (lambda eps, eps_edit, lam: lam * eps_edit + (1 - lam) * eps, "lam = 1"),
        (lambda eps, eps_edit, lam: lam * eps, "lam = 0"),
        (lambda eps, eps_edit, lam: eps if lam > 0.5 else eps_edit, "weighted sum"),
        (lambda eps, eps_edit, lam: eps[:99] @ "x", "raised"),
    ],
)
def test_blend_says_what_is_wrong(answer, words, capsys):
    assert not checks.blend(answer)
    assert words in capsys.readouterr().out


def test_blend_takes_equation_four():
    assert checks.blend(lambda eps, eps_edit, lam: lam * eps + (1 - lam) * eps_edit)


@pytest.mark.parametrize(
    "lam, words",
    [
        (0.5, "0.5 in the first"),
        (np.linspace(1, 0, 16), "reshape"),
        (None, "first frame"),
        ("much", "reshape"),
        (np.linspace(0, 1, 16).reshape(-1, 1, 1, 1), "1 and 0"),
        (np.array([1, 0.2, 0.6, 0]).repeat(4).reshape(-1, 1, 1, 1), "rise"),
    ],
)
def test_fading_lam_says_what_is_wrong(lam, words, capsys):
    assert not checks.fading_lam(lam, 16)
    assert words in capsys.readouterr().out


def test_fading_lam_takes_a_ramp_over_frames():
    assert checks.fading_lam(np.linspace(1, 0, 16).reshape(-1, 1, 1, 1), 16)


CHECKS = {name: value for name, value in vars(checks).items() if hasattr(value, "__wrapped__")}


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("answer", ["a word", 3, object(), lambda *given: "a word", lambda: 1])
def test_no_check_raises_whatever_the_answer_is(name, answer, capsys):
    """In a lesson the next cells must run, and one sentence must say what is wrong."""
    given = {"pipe": None, "num_frames": 4, "num_steps": 4, "memory_gb": 8, "picture": SKY,
             "alpha_bar": [1, 0]}  # fmt: skip
    first, *others = inspect.signature(CHECKS[name]).parameters.values()
    others = [given[p.name] for p in others if p.default is p.empty]
    assert CHECKS[name](answer, *others) is False
    assert capsys.readouterr().out.startswith("✗ not yet: ")
