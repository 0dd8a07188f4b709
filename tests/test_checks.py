"""The exercises' checks: every right answer is accepted, every wrong one refused with a reason."""

import inspect

import numpy as np
import pytest
from answers import CHAPTERS, paused
from test_exercises import ROOT, called, cells

from ivkit.course import checks
from ivkit.course.checks import CHECKS
from ivkit.widgets.session import Session, Sketch

ANSWERS = {name: answers for chapter in CHAPTERS.values() for name, answers in chapter.items()}
RIGHT = [pytest.param(n, i, id=f"{n}-{i}") for n, a in ANSWERS.items() for i in range(len(a.right))]
WRONG = [pytest.param(n, i, id=f"{n}-{i}") for n, a in ANSWERS.items() for i in range(len(a.wrong))]


def test_each_check_has_five_right_answers_and_five_wrong_ones():
    assert set(ANSWERS) == set(CHECKS)
    for name, answers in ANSWERS.items():
        assert len(answers.right) >= 5 and len(answers.wrong) >= 5, name


@pytest.mark.parametrize("stem", CHAPTERS)
def test_each_check_is_asked_for_in_its_chapter(stem):
    assert list(CHAPTERS[stem]) == [called(c) for c in cells(ROOT / f"{stem}.ipynb", "exercise")]


@pytest.mark.parametrize("name, i", RIGHT)
def test_right_answers_are_accepted(name, i, capsys):
    answers = ANSWERS[name]
    right = CHECKS[name](answers.right[i], *answers.beside())
    assert right, capsys.readouterr().out
    assert capsys.readouterr().out == "✓ right\n"


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.parametrize("name, i", WRONG)
def test_wrong_answers_are_refused_in_one_line(name, i, capsys):
    answers = ANSWERS[name]
    assert not CHECKS[name](answers.wrong[i], *answers.beside())
    said = capsys.readouterr().out
    assert (
        said.startswith("✗ not yet: ") and said.count("\n") == 1 and "cannot be checked" not in said
    )


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.parametrize("name", ANSWERS)
def test_different_mistakes_are_told_apart(name, capsys):
    for wrong in ANSWERS[name].wrong:
        CHECKS[name](wrong, *ANSWERS[name].beside())
    assert len(set(capsys.readouterr().out.splitlines())) >= 4


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("answer", ["a word", 3, object(), lambda *given: "a word", lambda: 1])
def test_no_check_raises_whatever_the_answer_is(name, answer, capsys):
    """In a lesson the next cells must run, and one sentence must say what is wrong."""
    assert CHECKS[name](answer, *ANSWERS[name].beside()) is False
    assert capsys.readouterr().out.startswith("✗ not yet: ")


def test_a_check_shows_what_it_takes():
    assert all(check.__name__ == name and check.__doc__ for name, check in CHECKS.items())
    assert list(inspect.signature(CHECKS["blend"]).parameters)[0] == "answer"
    assert "Eq. 4" in CHECKS["blend"].__doc__ and CHECKS["blend"].__name__ == "blend"


def test_a_function_that_changes_its_arguments_is_told_so(capsys):
    def in_place(scores, k):
        scores[..., k] = -np.inf
        return scores.softmax(-1)

    assert not CHECKS["mute"](in_place)
    assert "work on a copy" in capsys.readouterr().out


def test_a_saved_session_can_be_given_to_the_checks(tmp_path):
    """As the README tells teachers."""
    takes = paused(1, of=10), paused(8, of=10)
    Session(Sketch(takes[0].instructions.image.picture), takes=takes).save(tmp_path / "theirs.json")
    theirs = Session.load(tmp_path / "theirs.json").takes
    assert checks.early_and_late(theirs) and not checks.inside_only(theirs)
