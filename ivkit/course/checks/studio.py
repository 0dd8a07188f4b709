"""Checks of chapter 8: the tries of a session in the studio."""

import cv2
import numpy as np

from ...paint import edit_region, rasterise
from .compare import exercise, explained, normal, predicted, staged


@exercise
def early_and_late(takes):
    """Exercise 1: one try that was painted into early on its way, and one late."""
    painted = [(first, take) for take in takes if (first := _first_paint(take)) is not None]
    if not painted:
        return "no try was painted into on its way: Generate, Pause, paint, Resume"
    early, late = (pick(painted, key=lambda p: p[0]) for pick in (min, max))
    steps = early[1].instructions.num_inference_steps
    margin = max(2, steps // 3) if steps else early[0]
    if early[0] > margin:
        return f"no paint came before step {early[0] + 1}: paint at the second step in one try"
    if late[0] < (steps - margin if steps else early[0] + 2):
        more = "a second try, painted near its end" if len(painted) < 2 else "one painted later"
        return f"the latest first paint of a try came from step {late[0] + 1} on: make {more}"
    if early[1].instructions.seed != late[1].instructions.seed:
        return "the two tries have different seeds: make the same clip twice"


def _first_paint(take) -> int | None:
    """The step from which on x' is another picture than before."""
    before = take.edited
    for change in take.changes:
        if change.edited and (before is None or change.edited.tobytes() != before.tobytes()):
            return change.step
    return None


@exercise
def inside_only(takes):
    """Exercise 2: a take whose λ is 0 where it is painted and 1 elsewhere."""
    said = "in no try does λ differ from place to place: set it to inside and outside the paint"
    for i in (take.instructions for take in takes):
        if np.ndim(i.lam) < 2 or i.lam.shape[-2:] == (1, 1):
            continue
        if not (i.content and i.content.strokes):
            said = "the try whose λ differs from place to place has no paint"
            continue
        alpha = rasterise(i.image.picture, i.content.strokes)[1]
        lam = i.lam.reshape(-1, *i.lam.shape[-2:])
        cell = alpha.shape[0] // lam.shape[1]
        region = edit_region(i.content.strokes, alpha, cell=cell if cell > 1 else 16)
        paint = alpha > 0.5 if (alpha > 0.5).any() else region > 0.5
        low, high = (
            cv2.resize(m, alpha.shape[::-1], interpolation=cv2.INTER_NEAREST)
            for m in (lam.min(0), lam.max(0))
        )
        far = cv2.distanceTransform((region == 0).astype(np.uint8), cv2.DIST_L2, 5) > 1.5 * cell
        inside = high[paint].mean()
        outside = low[far].min() if far.any() else 1.0
        if inside <= 0.1 and outside >= 0.999:
            return None
        found = f"λ is {inside:.2g} inside the paint, and at least {outside:.2g} outside"
        said = f"{found}: it must be 0 inside and 1 outside"
    return said


@exercise
def against_the_words(takes):
    """Exercise 3: a drag to the left while the text says right, at a low λ and a high."""
    lams = []
    for i in (take.instructions for take in takes):
        drags = i.trajectory.drags if i.trajectory else ()
        paths = [path for drag in drags for path in drag.paths]
        left = any(path[0][0] - path[-1][0] > 0.03 * i.image.picture.width for path in paths)
        if left and "right" in i.motion.text.lower().replace(",", " ").split():
            lams.append(i.lam)
    if not lams:
        return "no try has a drag to the left and a motion text with the word right"
    low, high = min(float(np.max(lam)) for lam in lams), max(float(np.min(lam)) for lam in lams)
    if not (low == 0 and high >= 0.5):
        said = " and ".join(f"{float(np.mean(lam)):.2g}" for lam in lams)
        return f"so far at λ = {said}: make a try at 0, and one at 0.5 or more"


steps_that_know = predicted(
    "Exercise 4: the steps of 10 that know of an edit after the fourth.",
    6,
    (4, "these are the steps before the cloud was there"),
    (10, "what is done stays as it is: only later steps know of the cloud"),
    (5, "the step after the pause knows of the cloud as well"),
    (7, "the fourth step was done before you painted"),
    otherwise="the steps that are left know of the cloud",
)

late_cloud = explained(
    "Exercise 5: (the steps of 10 in which the cloud counts, why it stays pale).",
    (3, "b"),
    (6, "in the first three of them its weight 1 - λ is 0"),
    (0, "from the eighth step on ε' has the weight 1"),
    otherwise="count the steps after the pause in which λ is not 1",
    a="ε' is predicted with the cloud in six steps, and in three of them it has the weight 0",
    c="it is the same clip: neither the seed nor the noise changes on the way",
)


def _pauses():
    edits = [(0, 0.5)], [(0, -1.0), (2, 0.7)], [(0, 0.2), (1, 2.0), (4, -0.6)], [(0, 1.0), (3, 0.1)]
    for seed, changes in enumerate(edits):
        (z,), bars = list(normal(1))[seed], np.append(np.linspace(0.1, 0.8, seed + 3), 1.0)
        yield lambda z, i, edit: 0.6 * z + (edit + 0.1 * i) / (1 + z * z), z, bars, changes


@staged(_pauses)
def replay(eps, z, bars, changes):
    """Exercise 6, hard: (eps, z, bars, changes) -> each step's edit, each x0, the end."""
    at = np.arange(len(bars) - 1)
    by_step = np.array([[edit for step, edit in changes if step <= i][-1] for i in at])
    late = np.array([[e for step, e in changes if step < i or not step][-1] for i in at])
    begin, x0s = z, []
    for i, (a, b) in enumerate(zip(bars, bars[1:], strict=False)):
        e = eps(z, i, by_step[i])
        x0s.append((z - (1 - a) ** 0.5 * e) / a**0.5)
        z = b**0.5 * x0s[i] + (1 - b) ** 0.5 * e
    known = "an edit made when n steps are done counts from step n on, counted from 0"
    yield by_step, (late, known), (0 * at + changes[-1][1], "the past knows no later edit"), known
    yield np.stack(x0s), (np.stack(x0s[::-1]), "the first step is first"), "stack x0 of every step"
    yield z, (begin, "no step was taken"), "a step goes to √b x0 + √(1 - b) ε, with the next ᾱ"
