"""Checks for the notebooks' exercises: each takes the reader's answer and says what is missing.

A check prints and returns True or False; it never raises, so that a notebook whose exercises are
not done yet still runs from top to bottom.
"""

import numpy as np


def painted_share(alpha, low: float = 0.01, high: float = 0.1) -> bool:
    """Quickstart, exercise 1: paint (H, W) in the upper half only, low to high of the picture."""
    alpha = None if alpha is None else np.asarray(alpha)
    if alpha is None or alpha.ndim != 2 or not alpha.any():
        return _say("nothing is painted yet: add at least one iv.Stroke to my_strokes")
    if alpha[len(alpha) // 2 :].any():
        return _say("some paint lies in the lower half: y grows downwards, and 0 is the top")
    share = float((alpha > 0.5).mean())
    if not low <= share <= high:
        return _say(f"{share:.1%} of the picture is painted; aim for {low:.0%} to {high:.0%}")
    return _say()


def blend(answer) -> bool:
    """Quickstart, exercise 2: a function (eps, eps_edit, lam) -> Eq. 4 of the paper."""
    rng = np.random.default_rng(0)
    eps, eps_edit = rng.standard_normal((2, 3, 4, 8, 8))
    try:
        ends = [answer(eps, eps_edit, lam) for lam in (0.0, 1.0, 0.3)]
    except Exception as error:  # whatever the reader's function raises is the answer's fault
        return _say(f"your function raised {type(error).__name__}: {error}")
    if any(end is None for end in ends):
        return _say("your function returns nothing yet")
    if not np.allclose(ends[1], eps):
        return _say("at lam = 1 the edit must not count: the answer is eps")
    if not np.allclose(ends[0], eps_edit):
        return _say("at lam = 0 only the edit counts: the answer is eps_edit")
    if not np.allclose(ends[2], 0.3 * eps + 0.7 * eps_edit):
        return _say("the two ends are right, but between them it must be a weighted sum")
    return _say()


def fading_lam(lam, num_frames: int) -> bool:
    """Quickstart, exercise 3: λ that falls from 1 in the first frame to 0 in the last."""
    try:
        by_frame = np.broadcast_to(np.asarray(lam, float), (1, num_frames, 1, 1, 1))[0, :, 0, 0, 0]
    except (TypeError, ValueError):
        return _say(f"lam must broadcast to (steps, F, 1, h, w): reshape it to (F, 1, 1, 1), "
                    f"with F = {num_frames}")  # fmt: skip
    if not (by_frame[0] == 1 and by_frame[-1] == 0):
        return _say(f"lam is {by_frame[0]:g} in the first frame and {by_frame[-1]:g} in the last; "
                    "it must be 1 and 0")  # fmt: skip
    if (np.diff(by_frame) > 0).any():
        return _say("lam must never rise on its way from 1 to 0")
    return _say()


def _say(missing: str = "") -> bool:
    print(f"✗ not yet: {missing}" if missing else "✓ right")
    return not missing
