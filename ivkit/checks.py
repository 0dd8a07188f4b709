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


def equal_strength(t, alpha_bar) -> bool:
    """See noise, exercise 1: the time at which sqrt(alpha_bar) and sqrt(1 - alpha_bar) meet."""
    alpha_bar = np.asarray(alpha_bar, float)
    if t is None:
        return _say("my_t is None: give a whole number from 0 to 999")
    if int(t) != t or not 0 <= t < len(alpha_bar):
        return _say(f"my_t is {t}: a time is a whole number from 0 to {len(alpha_bar) - 1}")
    picture, noise = alpha_bar[int(t)] ** 0.5, (1 - alpha_bar[int(t)]) ** 0.5
    if int(t) != np.abs(alpha_bar - 0.5).argmin():
        more = "picture, so go deeper" if picture > noise else "noise, so go higher"
        return _say(f"at t = {t} there is {picture:.3f} of picture and {noise:.3f} of noise: "
                    f"more {more}; some other t comes nearest")  # fmt: skip
    return _say()


def step_down(answer) -> bool:
    """See noise, exercise 2: a function (z, eps, a, a_next) -> the latent at alpha_bar = a_next."""
    rng = np.random.default_rng(0)
    z0, eps = _tensors(rng.standard_normal((2, 1, 4, 8, 8)))
    a, a_next = _tensors([0.7, 0.2])
    z, deeper = (b.sqrt() * z0 + (1 - b).sqrt() * eps for b in (a, a_next))
    found, trouble = _call(answer, z, eps, a, a_next)
    if trouble:
        return _say(trouble)
    if found.shape != deeper.shape:
        return _say(f"the latent has the shape {deeper.shape}, your answer has {found.shape}")
    if np.allclose(found, a_next.sqrt() * z + (1 - a_next).sqrt() * eps):
        return _say("Eq. 2 wants the clean x0 where you put z: get x0 out of z first")
    if np.allclose(found, z0):
        return _say("that is x0, half of the way: now noise it to a_next")
    if not np.allclose(found, deeper, atol=1e-6):
        return _say("the shape is right, the numbers are not: "
                    "x0 = (z - sqrt(1 - a) eps) / sqrt(a), then Eq. 2 at a_next")  # fmt: skip
    return _say()


def schedule_without_leak(alpha_bar) -> bool:
    """See noise, exercise 3: 1000 falling numbers from above 0.99 to 0."""
    if alpha_bar is None:
        return _say("my_alpha_bar is None: give 1000 numbers")
    alpha_bar = np.asarray(alpha_bar, float)
    if alpha_bar.shape != (1000,):
        return _say(f"the shape must be (1000,), one number for each time, not {alpha_bar.shape}")
    if not (np.isfinite(alpha_bar).all() and 0 <= alpha_bar.min() and alpha_bar.max() <= 1):
        return _say("alpha_bar is a share: every number must lie within [0, 1]")
    if (np.diff(alpha_bar) >= 0).any():
        return _say(f"it must always fall, and does not at t = {np.diff(alpha_bar).argmax()}")
    if alpha_bar[0] <= 0.99:
        return _say(f"at t = 0 it is {alpha_bar[0]:.3f}: above 0.99 there is almost no noise yet")
    if alpha_bar[-1] > 1e-12:
        return _say(f"at t = 999 √ᾱ is {alpha_bar[-1] ** 0.5:.4f}: so much of the picture leaks")
    return _say()


def _tensors(values):
    import torch

    return torch.tensor(np.asarray(values), dtype=torch.float64)


def _call(answer, *arguments):
    """(what the reader's function returns as an array, "") or (None, what is wrong with it)."""
    try:
        found = answer(*arguments)
    except Exception as error:  # whatever the reader's function raises is the answer's fault
        return None, f"your function raised {type(error).__name__}: {error}"
    if found is None:
        return None, "your function returns nothing yet"
    return np.asarray(found), ""


def _say(missing: str = "") -> bool:
    print(f"✗ not yet: {missing}" if missing else "✓ right")
    return not missing
