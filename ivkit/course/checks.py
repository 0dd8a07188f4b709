"""Checks for the notebooks' exercises: each takes the reader's answer and says what is missing.

A check prints and returns True or False; it never raises, so that a notebook whose exercises are
not done yet still runs from top to bottom.
"""

import functools
from itertools import islice

import numpy as np

from ..support.validate import MAX_SENTENCE, as_array


class NotYet(Exception):
    """Says in one sentence what is missing."""


def exercise(work):
    """A check. `work` returns what is missing, or None where the answer is right."""

    @functools.wraps(work)
    def check(*args, **options) -> bool:
        try:
            missing = work(*args, **options)
        except NotYet as sentence:
            missing = str(sentence)
        except Exception as error:  # an answer of a kind that nobody foresaw
            missing = f"your answer cannot be checked, {type(error).__name__}: {error}"
        if missing:  # one line that can be printed, however long or odd the answer in it is
            missing = " ".join(missing.encode(errors="replace").decode().split())[:MAX_SENTENCE]
        print(f"✗ not yet: {missing}" if missing else "✓ right")
        return not missing

    return check


@exercise
def painted_share(alpha, low: float = 0.01, high: float = 0.1):
    """Quickstart, exercise 1: paint (H, W) in the upper half only, low to high of the picture."""
    alpha = None if alpha is None else as_array(alpha)
    if alpha is None or alpha.ndim != 2 or not alpha.any():
        return "nothing is painted yet: add at least one iv.Stroke to my_strokes"
    if alpha[len(alpha) // 2 :].any():
        return "some paint lies in the lower half: y grows downwards, and 0 is the top"
    share = float((alpha > 0.5).mean())
    if not low <= share <= high:
        return f"{share:.1%} of the picture is painted; aim for {low:.0%} to {high:.0%}"


@exercise
def blend(answer):
    """Quickstart, exercise 2: a function (eps, eps_edit, lam) -> Eq. 4 of the paper."""
    rng = np.random.default_rng(0)
    eps, eps_edit = rng.standard_normal((2, 3, 4, 8, 8))
    try:
        ends = [answer(eps, eps_edit, lam) for lam in (0.0, 1.0, 0.3)]
    except Exception as error:  # whatever the reader's function raises is the answer's fault
        return f"your function raised {type(error).__name__}: {error}"
    if any(end is None for end in ends):
        return "your function returns nothing yet"
    if not np.allclose(ends[1], eps):
        return "at lam = 1 the edit must not count: the answer is eps"
    if not np.allclose(ends[0], eps_edit):
        return "at lam = 0 only the edit counts: the answer is eps_edit"
    if not np.allclose(ends[2], 0.3 * eps + 0.7 * eps_edit):
        return "the two ends are right, but between them it must be a weighted sum"


@exercise
def fading_lam(lam, num_frames: int):
    """Quickstart, exercise 3: λ that falls from 1 in the first frame to 0 in the last."""
    try:
        lam = as_array(lam).astype(float)
        by_frame = np.broadcast_to(lam, (1, num_frames, 1, 1, 1))[0, :, 0, 0, 0]
    except (TypeError, ValueError):
        return (f"lam must broadcast to (steps, F, 1, h, w): reshape it to (F, 1, 1, 1), "
                f"with F = {num_frames}")  # fmt: skip
    if not (by_frame[0] == 1 and by_frame[-1] == 0):
        return (f"lam is {by_frame[0]:g} in the first frame and {by_frame[-1]:g} in the last; "
                "it must be 1 and 0")  # fmt: skip
    if (np.diff(by_frame) > 0).any():
        return "lam must never rise on its way from 1 to 0"


@exercise
def equal_strength(t, alpha_bar):
    """See noise, exercise 1: the time at which sqrt(alpha_bar) and sqrt(1 - alpha_bar) meet."""
    alpha_bar = as_array(alpha_bar).astype(float)
    if t is None:
        return "my_t is None: give a whole number from 0 to 999"
    if int(t) != t or not 0 <= t < len(alpha_bar):
        return f"my_t is {t}: a time is a whole number from 0 to {len(alpha_bar) - 1}"
    picture, noise = alpha_bar[int(t)] ** 0.5, (1 - alpha_bar[int(t)]) ** 0.5
    if int(t) != np.abs(alpha_bar - 0.5).argmin():
        more = "picture, so go deeper" if picture > noise else "noise, so go higher"
        return (f"at t = {t} there is {picture:.3f} of picture and {noise:.3f} of noise: "
                f"more {more}; some other t comes nearest")  # fmt: skip


@exercise
def step_down(answer):
    """See noise, exercise 2: a function (z, eps, a, a_next) -> the latent at alpha_bar = a_next."""
    rng = np.random.default_rng(0)
    z0, eps = _tensors(rng.standard_normal((2, 1, 4, 8, 8)))
    a, a_next = _tensors([0.7, 0.2])
    z, deeper = (b.sqrt() * z0 + (1 - b).sqrt() * eps for b in (a, a_next))
    found = _call(answer, z, eps, a, a_next)
    if found.shape != deeper.shape:
        return f"the latent has the shape {deeper.shape}, your answer has {found.shape}"
    if np.allclose(found, a_next.sqrt() * z + (1 - a_next).sqrt() * eps):
        return "Eq. 2 wants the clean x0 where you put z: get x0 out of z first"
    if np.allclose(found, z0):
        return "that is x0, half of the way: now noise it to a_next"
    if not np.allclose(found, deeper, atol=1e-6):
        return ("the shape is right, the numbers are not: "
                "x0 = (z - sqrt(1 - a) eps) / sqrt(a), then Eq. 2 at a_next")  # fmt: skip


@exercise
def schedule_without_leak(alpha_bar):
    """See noise, exercise 3: 1000 falling numbers from above 0.99 to 0."""
    if alpha_bar is None:
        return "my_alpha_bar is None: give 1000 numbers"
    alpha_bar = as_array(alpha_bar).astype(float)
    if alpha_bar.shape != (1000,):
        return f"the shape must be (1000,), one number for each time, not {alpha_bar.shape}"
    if not (np.isfinite(alpha_bar).all() and 0 <= alpha_bar.min() and alpha_bar.max() <= 1):
        return "alpha_bar is a share: every number must lie within [0, 1]"
    if (np.diff(alpha_bar) >= 0).any():
        return f"it must always fall, and does not at t = {np.diff(alpha_bar).argmax()}"
    if alpha_bar[0] <= 0.99:
        return f"at t = 0 it is {alpha_bar[0]:.3f}: above 0.99 there is almost no noise yet"
    if alpha_bar[-1] > 1e-12:
        return f"at t = 999 √ᾱ is {alpha_bar[-1] ** 0.5:.4f}: so much of the picture leaks"


@exercise
def caption(text, pipe):
    """Make a picture, exercise 1: known words, two things of the storybook's, one colour."""
    from ivkit.storybook import sprites

    if not isinstance(text, str) or not text.strip():
        return "my_text is empty: write a sentence"
    try:
        pipe.model.check_text(text, "my_text")
    except ValueError as error:
        return str(error)
    words = f" {text.lower().replace(',', ' ')} "
    things = [name for name in sprites.NAMES if f" {name} " in words]
    if len(things) < 2:
        return f"it names {' and '.join(things) or 'no thing'}: name two things"
    if not any(f" {colour} " in words for colour in sprites.COLOURS):
        return f"give one of them a colour: {', '.join(sprites.COLOURS)}"


@exercise
def rescaled_guidance(answer):
    """Make a picture, exercise 2: (uncond, cond, guidance_scale) -> guided, as large as cond."""
    uncond, cond = _tensors(np.random.default_rng(0).standard_normal((2, 1, 4, 8, 8)))
    guided = uncond + 6.0 * (cond - uncond)
    found = _call(answer, uncond, cond, 6.0)
    if found.shape != guided.shape:
        return f"the prediction has the shape {tuple(guided.shape)}, not {found.shape}"
    if np.allclose(found, guided):
        return (f"that is plain guidance: its standard deviation is {guided.std():.2f}, "
                f"that of cond {cond.std():.2f}")  # fmt: skip
    if np.allclose(found, cond):
        return "that is cond: guide first, then scale what came out"
    if not np.allclose(found, guided * (cond.std() / guided.std()), rtol=1e-2):
        return "it must be the guided prediction times one number: cond.std() / guided.std()"


@exercise
def mute(answer):
    """Make a picture, exercise 3: (scores (heads, cells, tokens), k) -> attention without k."""
    (scores,) = _tensors(np.random.default_rng(0).standard_normal((1, 2, 5, 6)))
    found, before = _attention(answer, scores, 2)
    if np.abs(found[..., 2]).max() > 1e-12:
        return f"some cell still looks at token k, by {np.abs(found[..., 2]).max():.2f}"
    if not np.allclose(found.sum(-1), 1):
        return (f"one cell's looks add up to {found.sum(-1)[0, 0]:.3f}, not to 1: mute before "
                "the softmax, not after")  # fmt: skip
    before[..., 2] = -np.inf
    if not np.allclose(found, before.softmax(-1)):
        return "token k is muted, but the others' shares are not the softmax of their scores"


@exercise
def ring(alpha):
    """Paint, exercise 1: paint (H, W) with a hole in it."""
    import cv2

    alpha = as_array(alpha)
    if not alpha.any():
        return "nothing is painted yet: add a dot with the brush to my_strokes"
    count, _, stats, _ = cv2.connectedComponentsWithStats((alpha < 0.5).astype(np.uint8))
    bare = sorted(stats[1:, cv2.CC_STAT_AREA]) if count > 1 else [0]
    if len(bare) < 2 or bare[-2] < 20:
        return "the paint has no hole: erase its middle, with a stroke after the brush's"


@exercise
def composite(answer):
    """Paint, exercise 2: (original, edited, mask) -> uint8 (H, W, 3), the original at mask 0."""
    rng = np.random.default_rng(0)
    original, edited = rng.integers(0, 256, (2, 16, 16, 3), np.uint8)
    mask = np.linspace(-0.5, 1.5, 16).clip(0, 1)[None].repeat(16, 0)
    found = _call(answer, original.copy(), edited.copy(), mask.copy())
    if found.shape != original.shape or found.dtype != np.uint8:
        return f"a picture here is uint8 (16, 16, 3), yours is {found.dtype} {found.shape}"
    if not (found[:, mask[0] == 0] == original[:, mask[0] == 0]).all():
        return "where the mask is 0, some pixels are not the original's"
    if not (found[:, mask[0] == 1] == edited[:, mask[0] == 1]).all():
        return "where the mask is 1, some pixels are not the edited picture's"
    wanted = original + mask[..., None] * (edited.astype(float) - original)
    off = np.abs(found - wanted).max()
    if off > 0.51:
        low = "; uint8 does not round, and wraps below 0: compute in float, then np.rint"
        return f"where the mask is between 0 and 1 you are off by up to {off:.1f}{low}"


@exercise
def left_crown(mask, picture):
    """Paint, exercise 3: the crown of the left of two trees, bool (H, W), found by its colour."""
    r, g, b = np.moveaxis(np.asarray(picture).astype(int), -1, 0)
    if mask is None:
        return "my_mask is None: give an array of True and False, one for each pixel"
    mask = as_array(mask)
    if mask.shape != r.shape:
        return f"the mask must have the picture's shape {r.shape}, not {mask.shape}"
    mask = mask > 0
    if not mask.any():
        return "the mask is empty"
    middle = r.shape[1] // 2
    if mask[:, middle:].mean() > 0.001:
        return f"some of it lies right of the middle, x = {middle}: that is the other tree"
    leaves = (g > r) & (r > b + 40)  # yellowish green: no sky, no meadow, no trunk
    leaves[:, middle:] = False
    inside, covered = (mask & leaves).sum() / mask.sum(), (mask & leaves).sum() / leaves.sum()
    if inside < 0.8:
        return f"only {inside:.0%} of the mask is leaves: sky is blue, meadow has little red"
    if covered < 0.6:
        return f"it covers {covered:.0%} of the leaves: loosen the thresholds"


@exercise
def affinity(values, num_frames: int):
    """Make it move, exercise 1: one number a frame, evenly from 1 down to 0.5."""
    if values is None:
        return f"my_affinity is None: give {num_frames} numbers, one for each frame"
    values = as_array(values).astype(float)
    if values.shape != (num_frames,):
        return f"the shape must be ({num_frames},), one number a frame, not {values.shape}"
    if not np.allclose(values[[0, -1]], (1, 0.5)):
        return f"it goes from {values[0]:g} to {values[-1]:g}; it must go from 1 to 0.5"
    if not np.allclose(np.diff(values), -0.5 / (num_frames - 1)):
        return "the ends are right, but the steps between them are not all the same"


@exercise
def widen(answer):
    """Make it move, exercise 2: weight (out, C, 3, 3) -> (out, 2C + 1, 3, 3), same answers."""
    import torch

    weight, z, extra = (
        _tensors(np.random.default_rng(k).standard_normal(shape))
        for k, shape in enumerate([(8, 4, 3, 3), (1, 4, 6, 6), (1, 5, 6, 6)])
    )
    found = _call(answer, weight.clone())
    if found.shape != (8, 9, 3, 3):
        return f"for C = 4 the shape must be (8, 9, 3, 3), yours is {found.shape}"
    conv, found = torch.nn.functional.conv2d, _tensors(found)
    if not torch.allclose(found[:, :4], weight):
        return "the first C channels must be the old weight: they meet z_t"
    if not torch.allclose(conv(torch.cat([z, extra], 1), found), conv(z, weight)):
        return "the answer changes with what stands in the new channels: they must add 0"


@exercise
def no_looking_ahead(answer):
    """Make it move, exercise 3: (scores (cells, heads, F, F)) -> attention to frames so far."""
    (scores,) = _tensors(np.random.default_rng(0).standard_normal((1, 3, 2, 5, 5)))
    found, before = _attention(answer, scores)
    ahead = np.triu(np.ones((5, 5), bool), 1)
    if np.abs(found[..., ahead]).max() > 1e-12:
        return (f"some frame looks ahead, by up to {np.abs(found[..., ahead]).max():.2f}: "
                "row i may look at columns 0 to i")  # fmt: skip
    if not np.allclose(found.sum(-1), 1):
        return (f"one frame's looks add up to {found.sum(-1)[0, 0, 0]:.3f}, not to 1: mask "
                "before the softmax, not after")  # fmt: skip
    hidden = before.masked_fill(_tensors(ahead) > 0, -np.inf)
    if not np.allclose(found, hidden.softmax(-1)):
        return "the future is hidden, but the rest is not the softmax of its scores"


@exercise
def late_edit(lam, num_steps: int, num_frames: int):
    """Lambda, exercise 1: 1 everywhere, but 0 from step 2 on in the last four frames."""
    shape = (num_steps, num_frames, 1, 1, 1)
    try:
        by_step = np.broadcast_to(as_array(lam).astype(float), shape)[:, :, 0, 0, 0]
    except (TypeError, ValueError):
        return (f"lam of shape {np.shape(lam)} does not broadcast to {shape}: steps first, "
                "then frames, then three axes of 1")  # fmt: skip
    wanted = np.ones((num_steps, num_frames))
    wanted[2:, -4:] = 0
    wrong = np.argwhere(by_step != wanted)
    if len(wrong):
        i, f = wrong[0]
        return (f"at step {i}, frame {f} it is {by_step[i, f]:g} and must be {wanted[i, f]:g} "
                "(both count from 0)")  # fmt: skip


@exercise
def two_edits(answer):
    """Lambda, exercise 2: (eps, eps_a, eps_b, lam, share) -> Eq. 4 with two edits."""
    eps, a, b = _tensors(np.random.default_rng(0).standard_normal((3, 2, 4, 8, 8)))
    for lam, share, wanted, words in (
        (1.0, 0.3, eps, "at lam = 1 no edit counts, whatever share is: the answer is eps"),
        (0.0, 1.0, a, "at lam = 0 and share = 1 only the first edit counts"),
        (0.0, 0.0, b, "at lam = 0 and share = 0 only the second edit counts"),
        (0.4, 0.25, 0.4 * eps + 0.15 * a + 0.45 * b, "the ends are right; in between, share "
         "divides what lam leaves over, so that the three weights add up to 1"),
    ):  # fmt: skip
        found = _call(answer, eps, a, b, lam, share)
        if found.shape != eps.shape or not np.allclose(found, wanted):
            return words


@exercise
def blend_in_eps(answer):
    """Lambda, exercise 3: (v, v_edit, z, z_edit, lam, a) -> the velocity of an epsilon-blend."""
    v, v_edit, z, z_edit = _tensors(np.random.default_rng(0).standard_normal((4, 2, 4, 8, 8)))
    lam, a = 0.3, 0.2
    found = _call(answer, v, v_edit, z, z_edit, lam, a)
    v_hat = lam * v + (1 - lam) * v_edit
    eps_hat = a**0.5 * v_hat + (1 - a) ** 0.5 * (lam * z + (1 - lam) * z_edit)
    if found.shape != v.shape:
        return f"the velocity has the shape {tuple(v.shape)}, not {found.shape}"
    if np.allclose(found, v_hat):
        return "that blends the velocities: turn each into eps first, with its own latent"
    if np.allclose(found, eps_hat):
        return "that is the blended eps: now turn it into the velocity of z_edit"
    if not np.allclose(found, v_hat + lam * ((1 - a) / a) ** 0.5 * (z - z_edit)):
        return ("the shape is right, the numbers are not: v goes with z, v_edit with z_edit, "
                "and the blend with z_edit")  # fmt: skip


@exercise
def detour(drag):
    """Drag, exercise 1: a path that rises 20 pixels on its way and ends 60 to the right."""
    if drag is None:
        return "my_drag is None: give an iv.Drag with a path of three points or more"
    path = np.array(getattr(drag, "path", ()), float)
    if len(path) < 3:
        return f"the path has {len(path)} points: it takes three to leave the straight line"
    right, down = path[-1] - path[0]
    if right < 60:
        return f"it ends {right:g} pixels to the right of its handle; 60 or more are wanted"
    if abs(down) > 5:
        return (f"it ends {abs(down):g} pixels {'below' if down > 0 else 'above'} its handle; "
                "it must end at the handle's height")  # fmt: skip
    rise = path[0, 1] - path[:, 1].min()
    if rise < 20:
        return f"it rises {rise:g} pixels on its way; y grows downwards, so subtract 20"


@exercise
def cut_and_drag(answer):
    """Drag, exercise 2: (picture, mask, background, (dx, dy)) -> the picture with the thing moved.

    Tried with a move that stays inside and with one that leaves the frame in part.
    """
    rng = np.random.default_rng(0)
    picture, background = rng.integers(0, 256, (2, 12, 16, 3), np.uint8)
    mask = np.zeros((12, 16), bool)
    mask[3:7, 4:9] = True
    for dx, dy, name in ((3, 2, "inside"), (9, -5, "beyond the frame")):
        mine = background.copy()
        for row, column in np.argwhere(mask) + (dy, dx):
            if 0 <= row < 12 and 0 <= column < 16:
                mine[row, column] = picture[row - dy, column - dx]
        given = picture.copy(), mask.copy(), background.copy(), (dx, dy)
        found = _call(answer, *given, where=f"for a move {name}, ")
        if found.shape != mine.shape or found.dtype != np.uint8:
            return f"a picture is uint8 (12, 16, 3) here, not {found.dtype} {found.shape}"
        wrong = (found != mine).any(-1)
        if wrong[mask & ~np.roll(mask, (dy, dx), (0, 1))].any() and name == "inside":
            return "where the thing was there must be background now"
        if wrong.any():
            return (f"for a move {name} by (dx, dy) = ({dx}, {dy}), {wrong.sum()} pixels are "
                    "not what they should be")  # fmt: skip


@exercise
def cell_means(answer):
    """Drag, exercise 3: (region (F, H, W), cell) -> (F, 1, h, w), the mean of each cell."""
    region = np.random.default_rng(0).random((3, 12, 16)).astype(np.float32)
    means = region.reshape(3, 3, 4, 4, 4).mean((2, 4))[:, None]
    found = _call(answer, region.copy(), 4)
    if found.shape == means[:, 0].shape:
        return f"almost: {found.shape} lacks the axis of the channel, (F, 1, h, w)"
    if found.shape != means.shape:
        return (f"for (3, 12, 16) and cells of 4 the shape must be {means.shape}, "
                f"yours is {found.shape}")  # fmt: skip
    if np.allclose(found[:, 0], region[:, ::4, ::4]):
        return "that is one pixel of each cell, not their mean"
    if not np.allclose(found, means, atol=1e-5):
        return "the shape is right, but the cells do not hold the mean of their pixels"


@exercise
def same_difference(pairs):
    """Align, exercise 1: ((v, x), (v, x)) that Eq. 5 as printed cannot tell apart."""
    from ..align import Align

    if pairs is None:
        return "my_pairs is None: give (v, x), (other_v, other_x)"
    try:
        (v, x), (other_v, other_x) = pairs
        module = Align()
        outs = [module(v.float(), x.float()), module(other_v.float(), other_x.float())]
    except Exception as error:  # whatever the answer is, the check says what it could not do
        return f"Eq. 5 could not take them, {type(error).__name__}: {error}"
    if v.shape != other_v.shape or np.abs(as_array(v - other_v)).mean() < 0.05:
        return "the two frames v are (nearly) the same: take frames that differ"
    if min(np.abs(as_array(d)).mean() for d in (v - x, other_v - other_x)) < 0.01:
        return "a difference v - x is zero: section 2 has that case already"
    off = float((outs[0] - outs[1]).detach().abs().max())
    if off > 1e-2:
        return f"Eq. 5 tells them apart, by up to {off:.2f}: v - x must be the same in both"


@exercise
def align_targets(answer):
    """Align, exercise 2: (x, x_edit, lam (F,)) -> (F, 3, H, W), what each frame is aligned with."""
    x, x_edit = _tensors(np.random.default_rng(0).uniform(-1, 1, (2, 1, 3, 8, 8)))
    (lam,) = _tensors([[1.0, 0.4, 0.0]])
    found = _call(answer, x, x_edit, lam)
    if found.shape != (3, 3, 8, 8):
        return f"three frames need targets of shape (3, 3, 8, 8), not {found.shape}"
    if not np.allclose(found[0], x[0]):
        return "where lam = 1 the edit does not count: the target is x"
    if not np.allclose(found[2], x_edit[0]):
        return "where lam = 0 only the edit counts: the target is x_edit"
    if not np.allclose(found[1], 0.4 * x[0] + 0.6 * x_edit[0]):
        return "the ends are right; in between it is lam x + (1 - lam) x_edit"


@exercise
def relative_flicker(answer):
    """Align, exercise 3: (frames, reference) -> mean change of frames over that of reference."""
    frames, reference = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 8, 3), np.uint8)
    reference = reference // 2
    changes = [np.abs(np.diff(c.astype(float), axis=0)).mean() for c in (frames, reference)]
    wrapped = [np.diff(c, axis=0).mean() for c in (frames, reference)]
    found = _call(answer, frames.copy(), reference.copy())
    if found.shape != ():
        return f"the answer is one number, yours has the shape {found.shape}"
    if np.isclose(found, wrapped[0] / wrapped[1]):
        return "uint8 wraps around below 0 (3 - 5 is 254): go to float first"
    if np.isclose(found, changes[1] / changes[0]):
        return "upside down: the reference clip's change divides"
    if np.isclose(found, changes[0]):
        return "that is the change of frames: divide it by the reference's"
    if not np.isclose(found, changes[0] / changes[1]):
        return f"for the check's clips it is {changes[0] / changes[1]:.3f}, you say {found:.3f}"


@exercise
def early_and_late(takes):
    """Studio, exercise 1: takes that were painted into on their way, three steps or more apart."""
    steps = [change.step + 1 for take in takes for change in take.changes if change.edited]
    if not steps:
        return "no try was painted into on its way: Generate, Pause, paint, Resume"
    if max(steps) - min(steps) < 3:
        return (f"your paint came from step {min(steps)} on: in one more try, let it come 3 "
                "steps earlier or later, or more")  # fmt: skip


@exercise
def inside_only(takes):
    """Studio, exercise 2: a take whose λ is 0 where it is painted and 1 elsewhere."""
    maps = [i for i in (take.instructions for take in takes) if np.shape(i.lam)[-1:] > (1,)]
    if not maps:
        return "in no try does λ differ from place to place: set it to inside and outside the paint"
    for i in maps:
        (x, y), (w, h) = i.content.strokes[0].points[0], i.image.picture.size
        at_paint = i.lam[..., int(y * i.lam.shape[-2] / h), int(x * i.lam.shape[-1] / w)]
        if at_paint.max() == 0 and i.lam.max() == 1:
            return None
    return (f"inside the paint λ is {at_paint.max():g}, and at most {i.lam.max():g}: it must "
            "be 0 inside and 1 outside")  # fmt: skip


@exercise
def against_the_words(takes):
    """Studio, exercise 3: a drag to the left while the text says right, at a low λ and a high."""
    lams = []
    for i in (take.instructions for take in takes):
        drags = i.trajectory.drags if i.trajectory else ()
        left = any(drag.path and drag.path[-1][0] < drag.path[0][0] for drag in drags)
        if left and "right" in i.motion.text.split():
            lams.append(float(np.mean(i.lam)))
    if not lams:
        return "no try has a drag to the left and a motion text with the word right"
    if not (min(lams) == 0 and max(lams) >= 0.5):
        said = " and ".join(f"{lam:.2g}" for lam in lams)
        return f"so far at λ = {said}: make a try at 0, and one at 0.5 or more"


@exercise
def lost_things(answer):
    """Measure, exercise 1: (ends (N, 2), targets (N, 2), width) -> mean drag distance in widths."""
    ends = np.array([[10.0, 20.0], [np.nan, np.nan], [70.0, 40.0], [5.0, 5.0]])
    targets, width = np.array([[13.0, 24.0], [50.0, 50.0], [70.0, 40.0], [5.0, 55.0]]), 200
    far = np.linalg.norm(ends - targets, axis=1) / width
    found = _call(answer, ends.copy(), targets.copy(), width)
    if found.shape != ():
        return f"the answer is one number, yours has the shape {found.shape}"
    if np.isnan(found):
        return "it is NaN: a thing that is gone counts as one width"
    if np.isclose(found, np.nanmean(far)):
        return "you left the lost thing out: then losing things is rewarded"
    if np.isclose(found, np.where(np.isnan(far), 1, far * width).mean()):
        return "in pixels, but for the lost one: divide by the width"
    if np.isclose(found, np.nan_to_num(far).mean()):
        return "a lost thing counts as 0, as if it had arrived"
    mine = np.where(np.isnan(far), 1, far).mean()
    if not np.isclose(found, mine):
        return f"for the check's four things it is {mine:.4f}, you say {found:.4f}"


@exercise
def preference(answer):
    """Measure, exercise 2: (rows of a study, method) -> share in which it was preferred."""
    votes = [("a", "b", "left"), ("b", "a", "left"), ("c", "a", "same"), ("b", "c", "right"),
             ("a", "c", "left"), ("c", "b", "same")]  # fmt: skip
    rows = [dict(zip(("left", "right", "image"), vote, strict=True)) for vote in votes]
    for method, mine, unshared in (("a", 0.625, 0.5), ("b", 0.375, 0.25), ("c", 0.5, 0.25)):
        found = _call(answer, [dict(row) for row in rows], method)
        if found.shape != ():
            return f"the answer is one number, yours has the shape {found.shape}"
        if np.isclose(found, mine * 4 / 6):
            return "divide by the number of pairs with that method in them, not by all"
        if np.isclose(found, unshared):
            return "a tie counts half, not nothing"
        if not np.isclose(found, mine):
            return (f"for {method!r} in the check's six pairs it is {mine}, you say {found:g}; "
                    "the method may be on either side")  # fmt: skip


@exercise
def moving_alignment(answer):
    """Measure, exercise 3: (image, motion, true_motion) -> alignment that stillness cannot buy."""
    cases = (
        ((1.0, 0.0, 4.0), 0.0, "a frozen clip must get 0"),
        ((0.8, 4.0, 4.0), 0.8, "one that moves as much as the truth gets its alignment"),
        ((0.8, 9.0, 4.0), 0.8, "more motion than the truth's must not earn more"),
        ((0.8, 1.0, 4.0), 0.2, "in between it grows evenly: a quarter of the motion, a quarter"),
    )
    for given, mine, rule in cases:
        found = _call(answer, *given)
        if found.shape != () or not np.isclose(float(found), mine):
            return f"{rule}; for image, motion, true_motion = {given} you say {found}"


@exercise
def dreambooth(answer):
    """Make it yours, exercise 1: (out, v, out_prior, v_prior, weight) -> both terms, one number."""
    out, v, out_prior, v_prior = _tensors(np.random.default_rng(0).standard_normal((4, 2, 4, 8, 8)))
    own, others = (out - v).square().mean(), (out_prior - v_prior).square().mean()
    found = _call(answer, out, v, out_prior, v_prior, 0.3)
    if found.shape != ():
        return f"the loss is one number, yours has the shape {found.shape}"
    if np.isclose(found, own):
        return "that is the first term: add the class pictures', times weight"
    if np.isclose(found, own + others):
        return "both terms are there; the second must be multiplied by weight"
    if not np.isclose(found, own + 0.3 * others):
        return (f"for the check's tensors it is {own + 0.3 * others:.4f}, you say {found:.4f}: "
                "squares of differences, their mean, and weight at the second")  # fmt: skip


@exercise
def lora_size(answer):
    """Make it yours, exercise 2: (rank, [(out, in), ...]) -> how many numbers A and B have."""
    layers = [(320, 768), (64, 64), (1280, 320)]
    found = _call(answer, 8, layers)
    if found.shape != ():
        return f"the answer is one number, yours has the shape {found.shape}"
    if found == sum(out * into for out, into in layers):
        return "that is how many the weights W have: A and B are thin"
    if found != 8 * sum(out + into for out, into in layers):
        right = 8 * (320 + 768)
        return f"you say {found}; of rank 8, the first layer's A and B alone have {right}"


@exercise
def two_loras(answer):
    """Make it yours, exercise 3: (A1, B1, A2, B2, s1, s2) -> A and B of one LoRA that is both."""
    rng = np.random.default_rng(0)
    A1, A2, B1, B2 = (_tensors(rng.standard_normal(s)) for s in ((3, 9), (2, 9), (7, 3), (7, 2)))
    try:
        A, B = (as_array(m) for m in answer(A1, B1, A2, B2, 0.5, -2.0))
    except (TypeError, ValueError):
        return "your function must return two matrices, A and B"
    if A.shape != (5, 9) or B.shape != (7, 5):
        return (f"of ranks 3 and 2 comes rank 5, so A is (5, 9) and B (7, 5); yours are {A.shape} "
                f"and {B.shape}")  # fmt: skip
    if np.allclose(B @ A, B1 @ A1 + B2 @ A2):
        return "that is the sum of the two at strength 1: put the strengths into the Bs"
    if np.allclose(B @ A, 0.25 * B1 @ A1 + 4 * B2 @ A2):
        return "the strengths are in A and in B, so they count twice"
    if not np.allclose(B @ A, 0.5 * B1 @ A1 - 2 * B2 @ A2):
        return "the shapes are right, but B A is not s1 B1 A1 + s2 B2 A2: mind the order"


@exercise
def fitting_models(names, memory_gb: float):
    """Real models, exercise 1: the table's models that are given a still and fit with all parts."""
    from ..models import TABLE

    names = [names] if isinstance(names, str) else list(islice(names or (), len(TABLE) + 1))
    if not names:
        return "my_models is empty: put names of the table into the list"
    for name in names:
        if name not in TABLE:
            return f"{name!r} is not in the table: its names are {', '.join(TABLE)}"
        row = TABLE[name]
        if row.image in ("none", "noised (SDEdit)"):
            return f"{name} does not move a still: in its row, image is {row.image!r}"
        if row.memory_gb > memory_gb:
            return f"{name} needs about {row.memory_gb:g} GB, and there are {memory_gb:g}"
    left = [n for n, row in TABLE.items() if n not in names and row.memory_gb <= memory_gb
            and row.image not in ("none", "noised (SDEdit)")]  # fmt: skip
    if left:
        return f"all of these fit, but {len(left)} more of the table would too"


@exercise
def longest_clip(answer):
    """Real models, exercise 2: (wanted, stride) -> most frames, stride * k + 1, up to wanted."""
    for wanted, stride in ((16, 4), (17, 4), (97, 8), (20, 1), (3, 8)):
        found = _call(answer, wanted, stride)
        right = (wanted - 1) // stride * stride + 1
        where = f"for wanted = {wanted} and stride = {stride} you say {found}"
        if found.shape != () or (found - 1) % stride:
            return f"{where}: a clip has a multiple of {stride} frames and one more"
        if found > wanted:
            return f"{where}, which is more than wanted"
        if found != right:
            return f"{where}, and {right} would do as well and is longer"


@exercise
def straight_velocity(answer):
    """Real models, exercise 3: (z, given, sigma) -> v with z - sigma v = given."""
    given, eps = _tensors(np.random.default_rng(0).standard_normal((2, 1, 4, 8, 8)))
    (sigma,) = _tensors([0.7])
    z = (1 - sigma) * given + sigma * eps
    found = _call(answer, z, given, sigma)
    if found.shape != z.shape:
        return f"a velocity has the latent's shape {tuple(z.shape)}, not {found.shape}"
    if np.allclose(found, given - eps):
        return "the other way round: v = ε - x0, and a step of the sampler subtracts it"
    if np.allclose(found, z - given):
        return "that is the way from given to z; it takes σ to go it, so v is it over σ"
    if np.allclose(found, eps):
        return "that is ε; take x0 off it"
    if not np.allclose(found, eps - given):
        return "with your v, z - σ v is not given"


def _tensors(values):
    import torch

    return torch.tensor(np.asarray(values), dtype=torch.float64)


def _call(answer, *arguments, where: str = "") -> np.ndarray:
    """What the reader's function returns; `NotYet` where it returns nothing that can be judged."""
    try:
        found = answer(*arguments)
    except Exception as error:  # whatever the reader's function raises is the answer's fault
        raise NotYet(f"{where}your function raised {type(error).__name__}: {error}") from None
    if found is None:
        raise NotYet(f"{where}your function returns nothing yet")
    return as_array(found)


def _attention(answer, scores, *more):
    """(attention, the scores as they were), of an answer that turns scores into attention."""
    before = scores.clone()
    found = _call(answer, scores, *more)
    if found.shape != scores.shape:
        raise NotYet(f"attention has the scores' shape {tuple(scores.shape)}, not {found.shape}")
    if not (scores == before).all():
        raise NotYet("your function changed the caller's scores: work on scores.clone()")
    if not np.isfinite(found).all():
        raise NotYet("there are infinities or NaN left: the softmax comes last")
    return found, before
