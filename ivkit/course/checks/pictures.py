"""Checks of chapters 0 to 3: a picture, its noise, its text, its paint."""

import re

import cv2
import numpy as np

from ...instructions import ContentInstruction
from ...paint import rasterise
from ...support.validate import as_array
from .compare import compared, exercise, explained, normal, numbers_of, outcome, predicted, staged

# ------------------------------------------------------------------------------- 00_quickstart


@exercise
def cloud(strokes, picture):
    """Exercise 1: white strokes in the upper half that cover 1 to 10% of the picture."""
    strokes = ContentInstruction("a cloud", strokes or ()).strokes
    if not strokes:
        return "nothing is painted yet: add at least one iv.Stroke to my_strokes"
    alpha = rasterise(picture, strokes)[1]
    for stroke in strokes:
        shade = [int(stroke.colour[i : i + 2], 16) for i in (1, 3, 5)]
        if stroke.tool == "brush" and min(shade) < 200:
            return f"a stroke has the colour {stroke.colour}: clouds are white"
    if alpha[len(alpha) // 2 :].any():
        return "some paint lies in the lower half: y grows downwards, and 0 is the top"
    share = float((alpha > 0.1).mean())
    if not 0.01 <= share <= 0.1:
        return f"{share:.1%} of the picture is painted; aim for 1% to 10%"
    outlines, _ = cv2.findContours(
        (alpha > 0.1).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    _, sides, _ = cv2.minAreaRect(max(outlines, key=cv2.contourArea))
    if min(sides) < 0.25 * max(sides):
        return f"a shape of {max(sides):.0f} x {min(sides):.0f} pixels is a line: make it rounder"


@compared(lambda: [(*two, lam) for two in normal(2) for lam in (1.0, 0.0, 0.3)])
def blend(eps, eps_edit, lam):
    """Exercise 2: a function (eps, eps_edit, lam) -> Eq. 4 of the paper."""
    yield lam * eps + (1 - lam) * eps_edit
    yield lam * eps_edit + (1 - lam) * eps, "lam is the weight of eps, not of eps_edit"
    yield f"at lam = {lam:g} it must be {lam:g} eps + {1 - lam:g} eps_edit"


@exercise
def fading_lam(lam, num_frames: int):
    """Exercise 3: λ that falls from 1 in the first frame to 0 in the last."""
    lam = numbers_of("my_lam", lam, "numbers")
    if lam.ndim not in (4, 5) or lam.shape[-4:-2] != (num_frames, 1):
        wants = f"reshape it to (F, 1, 1, 1), with F = {num_frames}"
        return f"lam of shape {lam.shape} does not broadcast to (steps, F, 1, h, w): {wants}"
    by_frame = np.moveaxis(lam, -4, 0).reshape(num_frames, -1)
    for f, wanted, where in ((0, 1, "first"), (-1, 0, "last")):
        if not np.allclose(by_frame[f], wanted, atol=1e-6):
            return f"lam is {by_frame[f].mean():g} in the {where} frame; it must be {wanted}"
    if (np.diff(by_frame, axis=0) > 1e-6).any():
        return "lam must never rise on its way from 1 to 0"


blended_number = predicted(
    "Exercise 4: ε̂ where ε = 2, ε' = 10 and λ = 0.25.",
    8,
    (4, "that is with the weights the other way round: λ belongs to ε"),
    (6, "that is the mean, which is right at λ = 0.5"),
    (10.5, "the weights must add up to 1: ε' has 1 - λ"),
    (2.5, "that is Eq. 4 with λ in both places"),
    otherwise="a weighted mean of 2 and 10, nearer to 10",
)

weights_above_one = explained(
    "Exercise 5: (λε + ε' where both are 2 and λ = 0.5, why).",
    (3, "a"),
    (2, "that is Eq. 4, whose weights add up to 1: here they add up to 1.5"),
    (4, "that adds the two in full: ε still has the weight λ = 0.5"),
    otherwise="it is 0.5 of the first 2, and all of the second",
    b="the edit counts as much as before, and more: it has the weight 1 now",
    c="the two chains begin at the same noise here, and the two predictions are equal",
)


def _edits():
    for seed, size in enumerate(((4, 3, 4, 6, 5), (5, 8, 2, 3, 7), (3, 2, 1, 4, 4))):
        eps, eps_edit = list(normal(2, size))[seed % 2]
        yield eps, eps_edit, np.random.default_rng(seed).random(size[3:]).astype(eps.dtype)


@staged(_edits)
def edit_here_and_now(eps, eps_edit, mask):
    """Exercise 6, hard: (eps, eps_edit, mask) -> the share of each frame, λ, the blend."""
    steps, frames = eps.shape[:2]
    by_frame = np.linspace(0, 1, frames).reshape(-1, 1, 1, 1)
    early = (np.arange(steps) < steps // 2).reshape(-1, 1, 1, 1, 1)
    lam = 1 - early * by_frame * mask
    outside = "λ is 1 minus the edit's share, and the share is the product of three shares"
    yield by_frame, (by_frame[::-1], "it must rise from 0"), "it goes evenly from 0 to 1"
    yield (
        lam,
        (1 - lam, "that is the edit's share: λ is what the share leaves over"),
        (1 - (1 - early) * by_frame * mask, "the edit counts in the first steps // 2 steps"),
        (1 - by_frame * mask + 0 * early, "in the later steps λ must be 1 everywhere"),
        ((1 - by_frame) * (1 - early * mask), outside),
        outside,
    )
    blend = lam * eps + (1 - lam) * eps_edit
    swapped = eps + eps_edit - blend, "lam is the weight of eps, not of eps_edit"
    yield blend, swapped, "it is Eq. 4 with the λ of stage 2"


# ------------------------------------------------------------------------------- 01_see_noise


@exercise
def equal_strength(t, alpha_bar):
    """Exercise 1: the time at which sqrt(alpha_bar) and sqrt(1 - alpha_bar) meet."""
    alpha_bar, last = as_array(alpha_bar).astype(float), len(alpha_bar) - 1
    t = numbers_of("my_t", t, f"a whole number from 0 to {last}")
    if t.size != 1 or t.item() % 1 or not 0 <= t.item() <= last:
        return f"my_t is {t}: a time is a whole number from 0 to {last}"
    t = int(t.item())
    near = alpha_bar[max(t - 1, 0) : t + 2]
    if not near.min() <= 0.5 <= near.max():
        picture, noise = alpha_bar[t] ** 0.5, (1 - alpha_bar[t]) ** 0.5
        more = "picture, so take a later t" if picture > noise else "noise, so take an earlier t"
        return f"at t = {t} there is {picture:.3f} of picture and {noise:.3f} of noise: more {more}"


@compared(lambda: [(*two, *a) for two in normal(2) for a in ((0.7, 0.2), (0.95, 0.6))])
def step_down(z, eps, a, a_next):
    """Exercise 2: a function (z, eps, a, a_next) -> the latent at alpha_bar = a_next."""

    def noised(z0):
        return a_next**0.5 * z0 + (1 - a_next) ** 0.5 * eps

    x0 = (z - (1 - a) ** 0.5 * eps) / a**0.5
    yield noised(x0)
    yield noised(z), "Eq. 2 wants the clean x0 where you put z: get x0 out of z first"
    yield x0, "that is x0, half of the way: now noise it to a_next"
    yield noised((z - (1 - a) * eps) / a), "take the square roots of a and of 1 - a"
    yield "x0 = (z - sqrt(1 - a) eps) / sqrt(a), then Eq. 2 at a_next"


@exercise
def schedule_without_leak(mine, alpha_bar):
    """Exercise 3: 1000 numbers from above 0.99 down to 0, slowest at both ends, and a new curve."""
    mine = numbers_of("my_alpha_bar", mine, "1000 numbers")
    if mine.shape != (1000,):
        return f"the shape must be (1000,), one number for each time, not {mine.shape}"
    if not 0 <= mine.min() <= mine.max() <= 1:
        return "alpha_bar is a share: every number must lie within [0, 1]"
    if (np.diff(mine) >= 0).any():
        return f"it must always fall, and does not at t = {np.diff(mine).argmax()}"
    if mine[0] <= 0.99:
        return f"at t = 0 it is {mine[0]:.3f}: above 0.99 there is almost no noise yet"
    if mine[-1] > 1e-9:
        return f"at t = 999 √ᾱ is {mine[-1] ** 0.5:.5f}: that much of the picture leaks"
    fall = [mine[t] - mine[t + 100] for t in (0, 450, 899)]
    if max(fall[0], fall[2]) >= fall[1]:
        falls = "in the first, the middle and the last 100 times it falls by {:.3f}, {:.3f}, {:.3f}"
        return f"{falls.format(*fall)}: it must fall slower at both ends than in the middle"
    if np.abs(mine - as_array(alpha_bar)).max() < 1e-3:
        return "that is the schedule the model already has: design one of your own"


noised_pixel = predicted(
    "Exercise 4: z_t where √ᾱ = 0.6, z0 = 0.5 and ε = -1.",
    -0.5,
    (-0.1, "the weight of the noise is √(1 - ᾱ), not 1 - √ᾱ"),
    (-0.46, "these are ᾱ and 1 - ᾱ: take their square roots"),
    (1.1, "the noise is negative"),
    (0.1, "the noise is -1, and its weight is not 0.2"),
    otherwise="0.6 of the latent, and 0.8 of the noise",
)

hidden_error = explained(
    "Exercise 5: (the error of x0 where ε errs by 0.01 at √ᾱ = 0.04, why).",
    (0.25, "b"),
    (0.0004, "x0 is divided by √ᾱ, not multiplied by it"),
    (6.245, "x0 is divided by √ᾱ = 0.04, not by ᾱ"),
    (0.01, "x0 is not off by as much as ε: look at the table in section 3"),
    otherwise="x0 is off by √(1 - ᾱ) / √ᾱ times the error of ε",
    a="an average blurs whatever the network predicts, and here it errs by only 0.01",
    c="the schedule says what is in z, and z has no error here: only ε has",
)


def _samplers():
    for seed, (steps, end) in enumerate(((2, 0.1), (4, 0.0), (5, 0.05), (10, 0.0))):
        (noise,) = list(normal(1))[seed]
        bars = np.cos(np.linspace(0.05, 1.5, 200)) ** 2
        bars[-1] = end**2
        yield lambda z, t: 0.6 * z + (float(t) / 200 - 0.3) / (1 + z * z), noise, bars, steps


@staged(_samplers)
def sampler(predict, noise, alpha_bar, steps):
    """Exercise 6, hard: (predict, noise, alpha_bar, steps) -> times, after one step, at the end."""
    gap = len(alpha_bar) // steps
    times = np.arange(len(alpha_bar) - 1, -1, -gap)
    levels = [*alpha_bar[times[1:]], 1.0]

    def after(count, last=1.0, sign=1, hold=False):
        z = noise
        for t, b in list(zip(times, [*levels[:-1], last], strict=True))[:count]:
            a, v = alpha_bar[t], predict(noise if hold else z, t)
            x0, eps = a**0.5 * z - sign * (1 - a) ** 0.5 * v, (1 - a) ** 0.5 * z + a**0.5 * v
            z = b**0.5 * x0 + (1 - b) ** 0.5 * eps
        return z

    leading, evenly = times - gap + 1, np.linspace(times[0], 0, steps)
    yield (
        times,
        (leading, "that is leading spacing: begin at the last time"),
        (times[::-1], "sampling begins at the noisiest time: the largest comes first"),
        (evenly, "the times are T / steps apart, so none of them is 0"),
        "begin at T - 1 and go down by T / steps",
    )
    a, v = alpha_bar[-1], predict(noise, times[0])
    x0 = a**0.5 * noise - (1 - a) ** 0.5 * v
    yield (
        after(1),
        (x0, "that is x0: add noise to it again, up to the next time's level"),
        (after(1, sign=-1), "x0 is √ᾱ z minus √(1 - ᾱ) v"),
        "x0 and ε come from v as in section 3's `views`; Eq. 2 with the next ᾱ follows",
    )
    yield (
        after(steps),
        (after(steps, alpha_bar[-1]), "the last alpha_bar is the noisiest: end at 1"),
        (after(steps, alpha_bar[0]), "alpha_bar[0] is not quite 1, and the last step ends at 1"),
        (after(steps, hold=True), "predict must be given the latent of the step, not the noise"),
        (after(1), "that is the latent after one step: take all of them"),
        "repeat stage 2 with each time, and let the last step end at ᾱ = 1",
    )


# -------------------------------------------------------------------------- 02_make_a_picture


@exercise
def caption(text, pipe):
    """Exercise 1: a sentence of known words, with two things of the storybook's and a colour."""
    from ...storybook import sprites
    from ...storybook.words import PLURAL

    if not isinstance(text, str) or not text.strip():
        return "my_text is empty: write a sentence"
    try:
        pipe.model.check_text(text, "my_text")
    except ValueError as error:
        return str(error)
    words = " ".join(re.findall(r"\w+", text.lower()))
    colours = "|".join((*sprites.COLOURS, "pink", "white", "grey"))
    names = "|".join(sorted(sprites.NAMES, key=len, reverse=True))
    every = re.findall(rf"\b(?:{names})\b", words)
    things = re.findall(rf"\b(?:an?|the) (?:(?:{colours}) )?({names})\b", words)
    things += [name for name in every if name in PLURAL and name not in things]
    if len(things) < 2:
        named = " and ".join(every) or "no thing"
        more = ": give each an article, as in 'a boat'" if len(every) > 1 else ": name two things"
        return f"it names {named}{more}"
    if not re.search(rf"\b(?:{colours})\b", words):
        return f"give one of them a colour: {', '.join(sprites.COLOURS)}"


def _guidances():
    shapes = (1, 4, 8, 8), (1, 16, 5, 6)
    return [(*two, scale) for two in normal(2, *shapes) for scale in (6.0, 2.5)]


@compared(_guidances)
def rescaled_guidance(uncond, cond, guidance_scale):
    """Exercise 2: (uncond, cond, guidance_scale) -> guided, as large as cond."""
    guided = uncond + guidance_scale * (cond - uncond)
    ratio = cond.std() / guided.std()
    yield guided * ratio
    yield guided, f"plain guidance has {1 / ratio:.1f} times the standard deviation of cond"
    yield cond, "that is cond: guide first, then scale what came out"
    yield guided / ratio, "the ratio is upside down"
    yield (guided - guided.mean()) * ratio + guided.mean(), "multiply all of it, its mean as well"
    yield "it must be the guided prediction times one number, cond.std() / guided.std()"


def softmax(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(scores, hidden, whose):
    """Yields, for `compared`, attention in which the `hidden` places of the scores get nothing."""
    yield softmax(np.where(hidden, -np.inf, scores))
    yield softmax(scores), f"{whose} still gets attention"
    after = softmax(scores) * ~hidden
    yield after, "the looks of a row no longer add up to 1: hide before the softmax, not after"
    yield softmax(scores * ~hidden), "a score of 0 is no small score: its softmax is not 0"
    even = ~hidden / (~hidden).sum(-1, keepdims=True)
    yield even, "all that is left gets the same: take the softmax of its scores"
    yield f"{whose} must get 0, and the rest the softmax of its scores, which comes last"


def _scores():
    for (scores,) in normal(1, (2, 5, 6), (4, 9, 12)):
        yield from ((scores, k) for k in (2, 0, scores.shape[-1] - 1))


@compared(_scores)
def mute(scores, k):
    """Exercise 3: (scores (heads, cells, tokens), k) -> attention without the token k."""
    hidden = np.broadcast_to(np.arange(scores.shape[-1]) == k, scores.shape)
    yield from attention(scores, hidden, f"token {k}")


guided_number = predicted(
    "Exercise 4: the guided prediction of uncond 1, cond 3 at a scale of 3.5.",
    8,
    (10, "that starts from the prediction with the text: it starts from the one without"),
    (10.5, "that is 3.5 times the prediction with the text: only the difference is scaled"),
    (-4, "the difference has the wrong sign: cond - uncond"),
    (7, "that is the scaled difference alone: add it to the prediction without text"),
    otherwise="1, and 3.5 times what the text changes",
)

unscaled_scores = explained(
    "Exercise 5: (how many times the share of the other token, why).",
    (2981, "a"),
    (2.71828, "that is with the division by √64: it is left out here"),
    (8, "the softmax is not linear: it takes the exponential of each score"),
    (2, "the softmax compares the exponentials of the scores, not the scores"),
    otherwise="the ratio of two shares is the exponential of the difference of their scores",
    b="the shares still add up to 1: the softmax sees to that at any size of the scores",
    c="the order of the tokens stays the same: all scores are multiplied by one number",
)


def _layers():
    shapes = (1, 5, 4, 8), (2, 6, 5, 12), (4, 9, 7, 16)
    for seed, (heads, cells, tokens, width) in enumerate(shapes):
        rng, dtype = np.random.default_rng(seed), ("float32", "float64")[seed % 2]
        q, k, v = (rng.standard_normal((n, width)).astype(dtype) for n in (cells, tokens, tokens))
        yield 2 * q, k, v, np.arange(tokens) < tokens - 1 - seed, heads


@staged(_layers)
def cross_attention(q, k, v, keep, heads):
    """Exercise 6, hard: (q, k, v, keep, heads) -> scores, looks, the new cells."""
    d = q.shape[1] // heads
    q_, k_, v_ = (x.reshape(len(x), heads, d).swapaxes(0, 1) for x in (q, k, v))
    mixed = [x.reshape(len(x), d, heads).transpose(2, 0, 1) for x in (q, k)]
    raw = q_ @ k_.swapaxes(1, 2)
    yield (
        raw / d**0.5,
        (raw, "divide by the square root of a head's width"),
        (raw / (heads * d) ** 0.5, "divide by the root of one head's width, not of all heads'"),
        (mixed[0] @ mixed[1].swapaxes(1, 2) / d**0.5, "a head's numbers lie next to each other"),
        "cut the last axis into (heads, width / heads), and bring the heads to the front",
    )
    right, *mistakes = attention(raw / d**0.5, ~keep[None, None] & (raw == raw), "a filled token")
    yield right, *mistakes
    new = (right @ v_).swapaxes(0, 1).reshape(q.shape)
    yield (
        new,
        ((right @ v_).reshape(q.shape), "first move the heads' axis next to the last one"),
        "each head mixes its own part of v, and the parts are put side by side again",
    )


# ------------------------------------------------------------------------------------ 03_paint


@exercise
def ring(alpha):
    """Exercise 1: paint (H, W) in the sky, with a hole in it."""
    alpha = as_array(alpha)
    if alpha.ndim != 2 or not alpha.any():
        return "nothing is painted yet: add a dot with the brush to my_strokes"
    paint = (alpha > 0.5).astype(np.uint8)
    if paint[int(0.59 * len(paint)) :].any():
        return "some of it lies in the sea: the sky ends at 0.59 of the height"
    _, _, pieces, _ = cv2.connectedComponentsWithStats(paint)
    if pieces[1:, cv2.CC_STAT_WIDTH].max(initial=0) == paint.shape[1]:
        return "the paint reaches from edge to edge, and makes a band: a ring ends inside"
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - paint)
    outside = {*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]}
    holes = [stats[i, cv2.CC_STAT_AREA] for i in range(1, len(stats)) if i not in outside]
    if max(holes, default=0) < 20:
        return "the paint surrounds no hole: erase its middle, with a stroke after the brush's"


@exercise
def composite(answer):
    """Exercise 2: (original, edited, mask) -> uint8 (H, W, 3), the original at mask 0."""
    for seed, (h, w) in enumerate(((16, 16), (9, 20), (24, 11))):
        rng = np.random.default_rng(seed)
        original, edited = rng.integers(0, 256, (2, h, w, 3), np.uint8)
        mask = (rng.random((h, w)) * 2 - 0.5).clip(0, 1).astype("float32" if seed else "float64")
        found = as_array(outcome(answer, (original, edited, mask), "numpy"))
        if found.shape != original.shape or found.dtype != np.uint8:
            return f"a picture here is uint8 {original.shape}, yours is {found.dtype} {found.shape}"
        off = np.abs(found - (original + mask[..., None] * (edited.astype(float) - original)))
        for value, whose in ((0, "original"), (1, "edited picture")):
            if off[mask == value].any():
                return f"where the mask is {value}, some pixels are not the {whose}'s"
        if off.max() > 0.51:
            advice = "uint8 does not round, and wraps below 0: compute in float, then np.rint"
            return f"where the mask lies between 0 and 1 you are off by {off.max():.1f}; {advice}"


@exercise
def left_crown(mask, picture):
    """Exercise 3: the crown of the left of two trees, bool (H, W), found by its colour."""
    r, g, b = np.moveaxis(np.asarray(picture).astype(int), -1, 0)
    mask = numbers_of("my_mask", mask, "True or False for each pixel")
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


steps_of_an_edit = predicted(
    "Exercise 4: the steps of an edit of 20 steps at strength 0.35.",
    7,
    (20, "that is without strength: the painted picture skips the noisy steps"),
    (13, "these are the steps that are left out"),
    (14, "each step counts once here, guidance or not"),
    (6, "the first step that is left counts as well"),
    otherwise="strength is the share of the steps that are taken",
)

clean_hold = explained(
    "Exercise 5: (the noise that a clean original lacks at √ᾱ = 0.6, why it matters).",
    (0.8, "c"),
    (0.64, "that is 1 - ᾱ, the variance: take its square root"),
    (0, "the cells that are put back have no noise, and the level asks for some"),
    otherwise="Eq. 2 adds √(1 - ᾱ) of noise, and nothing else is missing",
    a="the free cells may change at every step, whatever is put back around them",
    b="the last step puts the clean original back in any case, so the outside ends exact",
)


def _soft_edits():
    for seed, (steps, strength) in enumerate(((4, 0.6), (5, 0.5), (3, 1.0), (7, 0.45))):
        *latents, noise = list(normal(3))[seed]
        mask = np.random.default_rng(seed).uniform(-0.3, 1.3, noise.shape[2:]).clip(0, 1)
        bars = np.append(np.linspace(0.05, 0.8, steps), 1.0)
        given = *latents, mask.astype(noise.dtype), noise, bars, strength
        yield lambda z, i: 0.6 * z + (0.1 * i - 0.3) / (1 + z * z), *given


@staged(_soft_edits)
def soft_edit(eps, original, painted, mask, noise, bars, strength):
    """Exercise 6, hard: (eps, original, ...) -> z at the begin, after one step, at the end."""
    first = len(bars) - 1 - int((len(bars) - 1) * strength)

    def after(count=None, begin=first, base=painted, free=mask, hold=0, held=None):
        z = bars[begin] ** 0.5 * base + (1 - bars[begin]) ** 0.5 * noise
        for i in range(len(bars) - 1)[begin:][:count]:
            a, b, e = *bars[i : i + 2], eps(z, i)
            z = b**0.5 * (z - (1 - a) ** 0.5 * e) / a**0.5 + (1 - b) ** 0.5 * e
            level = held or bars[i + 1 + hold]
            z = free * z + (1 - free) * (level**0.5 * original + (1 - level) ** 0.5 * noise)
        return z

    full, swapped = after(0, 0), "the original is put back where the mask is 0"
    yield (
        after(0),
        (after(0, base=original), "noise the painted latent, not the original"),
        (full, "only the last int(steps * strength) steps are taken: begin at their level"),
        "Eq. 2 on the painted latent, with ᾱ of the first step that is taken",
    )
    clean = "noise the original to the level that the step has reached"
    for n, where in ((1, "one DDIM step to the next ᾱ, then the mask"), (None, "repeat stage 2")):
        wrong = (after(n, free=1 - mask), swapped), (after(n, held=1.0), clean)
        stale = after(n, hold=-1), "the original must have the noise of the next ᾱ, not of this one"
        hard = after(n, free=mask > 0), "the mask is soft: weigh the two with it, as it is"
        yield after(n), *wrong, stale, hard, (after(n, free=1), "put the original back"), where
