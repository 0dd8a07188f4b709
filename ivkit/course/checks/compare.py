"""What the checks are made of: the decorators, and the comparison of functions."""

import functools
import inspect
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from ...support.validate import MAX_SENTENCE, as_array

SHAPES = (1, 4, 8, 8), (3, 2, 6, 5)


class NotYet(Exception):
    """Says in one sentence what is missing."""


def exercise(work: Callable) -> Callable:
    """A check. `work` returns what is missing, or None where the answer is right."""

    @functools.wraps(work)
    def check(*args, **options) -> bool:
        try:
            missing = work(*args, **options)
        except NotYet as sentence:
            missing = str(sentence)
        except Exception as error:  # an answer of a kind that nobody thought of
            missing = f"your answer cannot be checked, {type(error).__name__}: {error}"
        if missing:  # one line that can be printed, however long or odd the answer in it is
            missing = " ".join(missing.encode(errors="replace").decode().split())[:MAX_SENTENCE]
        print(f"✗ not yet: {missing}" if missing else "✓ right")
        return not missing

    return check


def compared(cases: Callable, first: str = "torch", seen: Callable = lambda found: found):
    """Makes the check of a reader's function out of the solution, a generator.

    The solution takes the arguments of a case, as NumPy arrays and numbers. It yields the right
    result first, a tuple where there are several, then (what a known mistake results in, what to
    say of it), and last the sentence for all other results.

    cases: called with what the check is given beside the answer; the arguments of each call.
    first: see `outcome`. seen: makes of the reader's result what is compared.
    """

    def decorate(solution):
        names = inspect.signature(solution).parameters

        def work(answer, *beside):
            for given in cases(*beside):
                right, *mistakes = solution(*given)
                found = seen(outcome(answer, given, first))
                if missing := _difference(
                    found, right, mistakes, dict(zip(names, given, strict=True))
                ):
                    return missing
            return None

        return _check(work, solution)

    return decorate


def staged(cases: Callable, first: str = "torch"):
    """Makes the check of a reader's function in stages, which returns one result for each.

    The solution takes the arguments of a case and yields for each stage what one of `compared`
    yields in all, as a tuple. What is said is of the first stage that is wrong in any case; a stage
    that is not written yet is None. first: see `outcome`.
    """

    def decorate(solution):
        names = inspect.signature(solution).parameters

        def work(answer):
            missing = {}
            for given in cases():
                stages = list(solution(*given))
                found = outcome(answer, given, first)
                if not (isinstance(found, (tuple, list)) and len(found) == len(stages)):
                    return f"your function must return {len(stages)} results, one for each stage"
                values = dict(zip(names, given, strict=True))
                for i, (mine, (right, *mistakes)) in enumerate(zip(found, stages, strict=True), 1):
                    said = "it returns nothing yet"
                    if mine is None or (said := _difference(mine, right, mistakes, values)):
                        missing.setdefault(i, f"stage {i}: {said}")
            return missing[min(missing)] if missing else None

        return _check(work, solution)

    return decorate


def reason(letter, right: str, **others: str) -> str | None:
    """What is missing in the letter of a reason; others: what to say of each wrong letter."""
    letter = str(letter).strip().lower()
    if letter != right:
        letters = ", ".join(sorted([right, *others]))
        return others.get(letter, f"the reason must be one of the letters {letters}")


def predicted(asks: str, right: float, *mistakes: tuple[float, str], otherwise: str):
    """The check of one number that a reader predicts; (a wrong number, what to say of it).

    asks: the check's docstring. otherwise: what leads to the right number, said of all others.
    """

    def work(answer):
        value = numbers_of("your prediction", answer, "a number")
        if value.size != 1:
            return f"your prediction must be one number, not {value.size}"
        for wanted, said in ((right, None), *mistakes):
            if abs(value.item() - wanted) <= 1e-3 * max(abs(wanted), 0.1):
                return said
        side = "high" if value.item() > right else "low"
        return f"{value.item():g} is too {side}: {otherwise}"

    work.__doc__ = asks
    return exercise(work)


def explained(asks: str, right: tuple[float, str], *mistakes, otherwise: str, **others):
    """The check of (a number, the letter of its reason); see `predicted` and `reason`."""
    number = predicted(asks, right[0], *mistakes, otherwise=otherwise).__wrapped__

    def work(answer):
        if not (isinstance(answer, (tuple, list)) and len(answer) == 2):
            return "give two things: a number and the letter of the reason"
        return number(answer[0]) or reason(answer[1], right[1], **others)

    work.__doc__ = asks
    return exercise(work)


def _check(work: Callable, named: Callable) -> Callable:
    for name in ("__name__", "__doc__", "__module__"):
        setattr(work, name, getattr(named, name))
    return exercise(work)


def _difference(found, right, mistakes, given: dict) -> str | None:
    several = isinstance(right, tuple)
    if several and not (isinstance(found, (tuple, list)) and len(found) == len(right)):
        return f"your function must return {len(right)} results, one beside the other"
    found = list(found) if several else [found]
    if any(f is None for f in found):
        return "your function returns None in one of its places"
    found = [as_array(f) for f in found]
    wanted = [np.asarray(w) for w in (right if several else [right])]
    for i, (f, w) in enumerate(zip(found, wanted, strict=True)):
        if f.size == 1 and not w.ndim:
            found[i] = f.reshape(())
        elif f.shape != w.shape:
            wants = f"an array of shape {w.shape}" if w.ndim else "one number"
            arrays = [f"{n} {g.shape}" for n, g in given.items() if isinstance(g, np.ndarray)]
            at = f" (given {', '.join(arrays)})" if arrays else ""
            return f"the result must be {wants}, and yours has the shape {f.shape}{at}"
    if all(map(agree, found, wanted)):
        return None
    *mistakes, otherwise = mistakes
    for wrong, said in mistakes:
        if all(map(agree, found, wrong if several else [wrong])):
            return said
    if not all(np.isfinite(f).all() for f in found):
        return f"there are infinities or NaN in the result; {otherwise}"
    numbers = [f"{n} = {g}" for n, g in given.items() if isinstance(g, (int, float))]
    at = f" at {', '.join(numbers)}" if numbers else ""
    return f"{otherwise} (you are off by {np.abs(found[0] - wanted[0]).max():.3g}{at})"


def agree(found, wanted) -> bool:
    """Whether two arrays are equal up to the rounding of float32; Ellipsis is equal to anything."""
    if wanted is ...:
        return True
    if np.shape(found) != np.shape(wanted):
        return False
    size = np.abs(np.nan_to_num(wanted)).max(initial=1e-3)
    try:
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * size)
    except AssertionError:
        return False
    return True


def normal(count: int, *shapes) -> Iterator[list[np.ndarray]]:
    """`count` random arrays of one shape, for each shape and dtype, each with a seed of its own."""
    for seed, (shape, dtype) in enumerate(product(shapes or SHAPES, ("float32", "float64"))):
        rng = np.random.default_rng(seed)
        yield list((rng.standard_normal((count, *shape)) + 0.25).astype(dtype))


def outcome(answer: Callable, given: tuple, first: str = "torch") -> Any:
    """What the reader's function returns; NotYet where that is nothing, or it raises.

    A function that raises is called again with the arguments in the other forms: as tensors and
    0-d tensors, tensors and numbers, arrays and numbers. `first` is "torch" or "numpy".
    """
    forms, error = [_tensors, _tensors_and_numbers, _arrays], None
    for form in forms if first == "torch" else forms[::-1]:
        mine = [form(value) for value in given]
        try:
            found = answer(*mine)
        except Exception as wrong:  # whatever the reader's function raises is the answer's fault
            error = error or wrong
            continue
        if found is None:
            raise NotYet("your function returns nothing yet")
        for value, before in zip(mine, given, strict=True):
            if isinstance(before, np.ndarray) and np.asarray(value).tobytes() != before.tobytes():
                raise NotYet("your function changes what it was given: work on a copy")
        return found
    raise NotYet(f"your function raised {type(error).__name__}: {error}")


def numbers_of(name: str, values, wants: str) -> np.ndarray:
    """An answer that is finite numbers, as float64; NotYet says what it wants instead."""
    try:
        found = as_array(values)
        if (
            found.size
            and found.dtype.kind in "biufO"
            and np.isfinite(found := found.astype(float)).all()
        ):
            return found
    except (TypeError, ValueError):
        pass
    raise NotYet(f"{name} must be {wants}, without infinities or NaN")


def _tensors(value):
    import torch

    if isinstance(value, float):
        return torch.tensor(value)
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else _arrays(value)


def _tensors_and_numbers(value):
    return value if isinstance(value, float) else _tensors(value)


def _arrays(value):
    return value.copy() if isinstance(value, (np.ndarray, list)) else value
