"""A blend rule of one's own in place of Eq. 4's: `video(..., blend=f)`."""

import json

import pytest
import tiny
import torch

import ivkit as iv
from ivkit import blend


def stronger(eps, eps_edit, lam):
    """Of each number the prediction that is farther from zero, where lam lets both count."""
    return torch.where(eps.abs() * lam > eps_edit.abs() * (1 - lam), eps, eps_edit)


def clip(**options):
    pipe = tiny.pipeline()
    how = {"edited": tiny.picture(1), "lam": 0.4, "seed": 2, "progress": False}
    return pipe.video(tiny.picture(), "the boat moves right", **how | options)


@pytest.mark.parametrize("reading", ["paired", "shared"])
def test_the_step_is_taken_on_what_the_rule_answers(reading):
    run = clip(blend=stronger, blend_in="native", reading=reading)
    for record in run.trace:
        assert torch.equal(record["out_hat"], stronger(record["out"], record["out_edit"], 0.4))
    assert not torch.equal(run.z, clip(reading=reading).z)
    own = clip(blend=blend.blend, reading=reading)
    assert torch.equal(own.z, clip(reading=reading).z)


def test_a_rule_is_asked_also_where_eq_4_needs_one_branch():
    run = clip(blend=lambda eps, eps_edit, lam: eps_edit, lam=1.0, blend_in="native")
    assert torch.equal(run.z, clip(lam=0.0).z)


def test_a_rule_with_a_name_is_saved_and_one_without_is_refused(monkeypatch):
    run = clip(blend=stronger)
    with pytest.raises(ValueError, match="blend is a function, which no file can hold"):
        run.instructions.to_json()
    assert run.instructions == clip(blend=stronger).instructions
    monkeypatch.setitem(blend.RULES, "stronger", stronger)
    named = clip(blend="stronger")
    assert torch.equal(named.z, run.z)
    saved = iv.Instructions.from_json(json.dumps(named.instructions.to_json()))
    assert torch.equal(tiny.pipeline().run(saved, progress=False).z, run.z)


@pytest.mark.parametrize(
    "rule, words",
    [
        (3, "blend must be the name of a rule or a function"),
        ("half", "blend must be one of linear, or a function, got 'half'"),
        ("x" * 10**4, "blend must be one of linear, or a function, got 'xxx.{,100}$"),
        (lambda eps, eps_edit: eps, "blend fails as a function"),
        (lambda eps, eps_edit, lam: eps[:1], "blend must answer a tensor of shape .* got shape"),
        (lambda eps, eps_edit, lam: 0.5, "blend must answer a tensor of shape .* got 0.5"),
    ],
)
def test_a_rule_that_is_none_is_refused_before_any_work(rule, words):
    with pytest.raises((ValueError, TypeError), match=words):
        clip(blend=rule)


@pytest.mark.parametrize("unit", ["v", "eps", "x0"])
@pytest.mark.parametrize("reading", ["paired", "shared"])
def test_the_unit_that_a_step_names_is_the_one_the_rule_was_asked_in(unit, reading):
    run = clip(blend=stronger, blend_in=unit, reading=reading)
    for record in run.trace:
        x, x_edit, x_hat = (record[name] for name in record.terms)
        assert record.blended == unit
        torch.testing.assert_close(x_hat, stronger(x, x_edit, 0.4), rtol=1e-3, atol=1e-3)


def test_the_explorer_does_not_call_another_rule_eq_4():
    explorer = iv.TraceExplorer(clip(blend=stronger))
    assert "blend(" in explorer.titles["x_hat"].value
    assert "λ v + (1 − λ)" in iv.TraceExplorer(clip()).titles["x_hat"].value
