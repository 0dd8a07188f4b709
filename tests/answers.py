"""Right and wrong answers to the exercises of each chapter, for tests/test_checks.py."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as nn
from diffusers import DDIMScheduler
from PIL import Image

import ivkit as iv
from ivkit.instructions import TrajectoryInstruction
from ivkit.models import TABLE
from ivkit.widgets.session import Change, Take

MEDIA = Path(__file__).parents[1] / "media"


@dataclass(frozen=True)
class Answers:
    """Of one exercise. beside: what its check is given beside the answer."""

    right: Sequence
    wrong: Sequence
    beside: Callable[[], tuple] = tuple


def foretold(right: float, *mistakes: float) -> Answers:
    """Of a prediction, one number."""
    forms = float, np.float32, torch.tensor, lambda n: [n], lambda n: np.array([[n]], "float64")
    return Answers(
        right=[right, *(form(right) for form in forms)],
        wrong=[None, math.nan, [right, right], right + 1e4, right - 1e4, *mistakes],
    )


def foretold_why(right: float, letter: str, others: str, *mistakes: float) -> Answers:
    """Of a prediction with a reason; others: the wrong letters."""
    forms = float, np.float32, torch.tensor, lambda n: [n]
    return Answers(
        right=[
            (right, letter),
            [right, letter.upper()],
            *((f(right), f" {letter} ") for f in forms),
        ],
        wrong=[
            *(None, right, (right,), (math.nan, letter), (right, None), (right, "z")),
            *((right, other) for other in others),
            *((wrong, letter) for wrong in (*mistakes, right + 1e4, right - 1e4)),
        ],
    )


# ------------------------------------------------------------------------------ 00_quickstart


def line(*points, width=30, colour="white", tool="brush", opacity=1.0):
    return iv.Stroke(points, colour=colour, width=width, tool=tool, opacity=opacity)


def around(x, y, r, n=40):
    """The points of a circle."""
    turns = np.linspace(0, 2 * np.pi, n)
    return [(x + r * np.cos(a), y + r * np.sin(a)) for a in turns]


PUFF = line((60, 40), (120, 40))


def here_and_now(eps, eps_edit, mask, rise=(0, 1), cut=None, late=False, product=True, blend=None):
    """(frames' shares, λ, the blend); each option is a mistake."""
    eps, eps_edit, mask = (torch.as_tensor(x) for x in (eps, eps_edit, mask))
    steps, frames = eps.shape[:2]
    by_frame = torch.linspace(*rise, frames, dtype=eps.dtype).view(-1, 1, 1, 1)
    early = torch.arange(steps).view(-1, 1, 1, 1, 1) < (steps // 2 if cut is None else cut)
    share = (early ^ late).to(eps) * by_frame * mask
    lam = 1 - share if product else (1 - by_frame) * (1 - early.to(eps) * mask)
    return (
        by_frame,
        lam,
        (blend or (lambda e, e_edit, w: w * e + (1 - w) * e_edit))(eps, eps_edit, lam),
    )


def here_and_now_loop(eps, eps_edit, mask):
    eps, eps_edit, mask = (np.asarray(x) for x in (eps, eps_edit, mask))
    steps, frames, _, h, w = eps.shape
    lam, blended = np.ones((steps, frames, 1, h, w)), np.zeros(eps.shape)
    for i in range(steps):
        for f in range(frames):
            if i < steps // 2:
                lam[i, f, 0] -= f / (frames - 1) * mask
            blended[i, f] = lam[i, f] * eps[i, f] + (1 - lam[i, f]) * eps_edit[i, f]
    return np.arange(frames).reshape(-1, 1, 1, 1) / (frames - 1), lam, blended


QUICKSTART = {
    "cloud": Answers(
        right=[
            [PUFF],  # the hint
            [line((40, 50), (90, 50), width=24), line((55, 36), (75, 36), width=24)],
            line(*around(100, 60, 20), width=16, colour="#eef4ff"),
            [line((50, 40)), line((120, 44)), line((190, 40))],
            [line((50, 60), (110, 60), width=40, opacity=0.4)],
            (PUFF, line((90, 52), width=12, tool="eraser")),
        ],
        wrong=[
            [],
            None,
            [line((20, 30), (230, 30), colour="red", width=10)],
            [line((20, 30), (230, 30), width=10)],
            [line((20, 10), (200, 110), width=10)],
            [line((60, 140), (120, 140))],
            [line((60, 40), width=20)],
            [line((60, 60), (200, 60), width=100)],
            [replace(PUFF, colour="#808080")],
        ],
        beside=lambda: (Image.new("RGB", (256, 256)),),
    ),
    "blend": Answers(
        right=[
            lambda eps, eps_edit, lam: lam * eps + (1 - lam) * eps_edit,
            lambda eps, eps_edit, lam: torch.lerp(eps_edit, eps, lam),
            lambda eps, eps_edit, lam: eps_edit + lam * (eps - eps_edit),
            lambda eps, eps_edit, lam: eps_edit.lerp(eps, float(lam)),
            lambda eps, eps_edit, lam: np.average([eps, eps_edit], axis=0, weights=[lam, 1 - lam]),
            lambda eps, eps_edit, lam: torch.add(eps * lam, eps_edit, alpha=1 - float(lam)).float(),
        ],
        wrong=[
            lambda eps, eps_edit, lam: None,
            lambda eps, eps_edit, lam: lam * eps_edit + (1 - lam) * eps,
            lambda eps, eps_edit, lam: lam * eps + eps_edit,
            lambda eps, eps_edit, lam: eps if lam > 0.5 else eps_edit,
            lambda eps, eps_edit, lam: lam**2 * eps + (1 - lam**2) * eps_edit,
            lambda eps, eps_edit, lam: (lam * eps + (1 - lam) * eps_edit).mean(0),
            lambda eps, eps_edit, lam: eps.mul_(lam).add_((1 - lam) * eps_edit),
            lambda eps, eps_edit, lam: eps[:99] @ "x",
        ],
    ),
    "fading_lam": Answers(
        right=[
            np.linspace(1, 0, 16).reshape(-1, 1, 1, 1),
            torch.linspace(1, 0, 16).view(1, 16, 1, 1, 1),
            np.linspace(1, 0, 16).reshape(1, -1, 1, 1, 1).repeat(25, 0),
            np.cos(np.linspace(0, np.pi / 2, 16)).reshape(-1, 1, 1, 1),
            np.broadcast_to(np.linspace(1, 0, 16).reshape(-1, 1, 1, 1), (16, 1, 8, 8)),
            [[[[1 - f / 15]]] for f in range(16)],
        ],
        wrong=[
            0.5,
            None,
            "much",
            np.linspace(1, 0, 16),
            np.linspace(0, 1, 16).reshape(-1, 1, 1, 1),
            np.array([1, 0.2, 0.6, 0]).repeat(4).reshape(-1, 1, 1, 1),
            np.array([1] + [np.nan] * 14 + [0]).reshape(-1, 1, 1, 1),
            np.linspace(1, 0.1, 16).reshape(-1, 1, 1, 1),
            np.linspace(1, 0, 16).reshape(-1, 1, 1, 1, 1),
        ],
        beside=lambda: (16,),
    ),
    "blended_number": foretold(8, 4, 6, 10.5, 2.5),
    "weights_above_one": foretold_why(3, "a", "bc", 2, 4, 1),
    "edit_here_and_now": Answers(
        right=[
            here_and_now,
            here_and_now_loop,
            lambda *given: list(here_and_now(*given)),
            lambda *given: here_and_now(*given, blend=lambda e, x, w: torch.lerp(x, e, w)),
            lambda *given: tuple(x.numpy() for x in here_and_now(*given)),
        ],
        wrong=[
            lambda *given: None,
            lambda *given: (None, None, None),
            lambda *given: here_and_now(*given)[1],
            lambda *given: here_and_now(*given, rise=(1, 0)),
            lambda *given: (here_and_now(*given)[0], None, None),
            lambda *given: (here_and_now(*given)[0].flatten(), *here_and_now(*given)[1:]),
            lambda *given: here_and_now(*given, late=True),
            lambda *given: here_and_now(*given, cut=99),
            lambda *given: here_and_now(*given, cut=1),
            lambda *given: here_and_now(*given, product=False),
            lambda *given: (lambda a, b, c: (a, 1 - b, c))(*here_and_now(*given)),
            lambda *given: (*here_and_now(*given)[:2], None),
            lambda *given: here_and_now(*given, blend=lambda e, x, w: w * x + (1 - w) * e),
        ],
    ),
}

# ------------------------------------------------------------------------------- 01_see_noise

ALPHA_BAR = torch.linspace(0.02, 1.55, 1000).cos().square().double()
ALPHA_BAR[-1] = 0
HALF = int((ALPHA_BAR - 0.5).abs().argmin())
TIME = np.linspace(0, 1, 1000)


def sampled(predict, noise, bars, steps, end=1.0, sign=1, renoise=True, times=None, of_eps=False):
    """(times, after the first step, at the end); each option is a mistake."""
    gap = len(bars) // steps
    times = range(len(bars) - 1, -1, -gap) if times is None else times(len(bars), gap)
    z, seen = noise, []
    for t in times:
        a = float(bars[t])
        b = float(bars[t - gap]) if t >= gap else end
        v = predict(z, t)
        x0, eps = a**0.5 * z - sign * (1 - a) ** 0.5 * v, (1 - a) ** 0.5 * z + a**0.5 * v
        if of_eps:
            x0, eps = (z - (1 - a) ** 0.5 * v) / max(a, 1e-6) ** 0.5, v
        z = b**0.5 * x0 + (1 - b) ** 0.5 * eps if renoise else x0
        seen.append(z)
    return list(times), seen[0], seen[-1]


def sampled_by_diffusers(predict, noise, bars, steps):
    """With the library's step. Its schedule is ours, its number of times too."""
    bars = torch.as_tensor(bars)
    how = {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    scheduler = DDIMScheduler(len(bars), clip_sample=False, **how)
    scheduler.alphas_cumprod = bars
    scheduler.set_timesteps(steps)
    z, seen = torch.as_tensor(noise), []
    for t in scheduler.timesteps:
        z = scheduler.step(predict(z, t), int(t), z).prev_sample
        seen.append(z)
    return scheduler.timesteps, seen[0], seen[-1]


def sampled_as_in_the_chapter(predict, noise, bars, steps):
    times = torch.arange(len(bars) - 1, -1, -(len(bars) // steps))
    levels = torch.cat([bars[times], torch.ones(1)])
    z, seen = noise, []
    for t, a, b in zip(times, levels, levels[1:], strict=False):
        v = predict(z, t)
        x0, eps = a.sqrt() * z - (1 - a).sqrt() * v, (1 - a).sqrt() * z + a.sqrt() * v
        z = b.sqrt() * x0 + (1 - b).sqrt() * eps
        seen.append(z)
    return times, seen[0], seen[-1]


SEE_NOISE = {
    "equal_strength": Answers(
        right=[
            HALF,
            torch.tensor(HALF),
            np.int64(HALF),
            float(HALF),
            (ALPHA_BAR.sqrt() - (1 - ALPHA_BAR).sqrt()).abs().argmin(),
            int((ALPHA_BAR > 0.5).sum()),
        ],
        wrong=[None, -1, HALF + 0.5, 100, 900, "half", HALF + 5, ALPHA_BAR, True],
        beside=lambda: (ALPHA_BAR,),
    ),
    "step_down": Answers(
        right=[
            lambda z, eps, a, b: (
                b.sqrt() * (z - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps
            ),
            lambda z, eps, a, b: (
                math.sqrt(b / a) * (z - math.sqrt(1 - a) * eps) + math.sqrt(1 - b) * eps
            ),
            lambda z, eps, a, b: (
                (b / a) ** 0.5 * z + ((1 - b) ** 0.5 - (b * (1 - a) / a) ** 0.5) * eps
            ),
            lambda z, eps, a, b: (
                np.sqrt(b) * (z - np.sqrt(1 - a) * eps) / np.sqrt(a) + np.sqrt(1 - b) * eps
            ),
            lambda z, eps, a, b: (
                torch.sqrt(b) * (z - torch.sqrt(1 - a) * eps) / torch.sqrt(a)
                + torch.sqrt(1 - b) * eps
            ),
        ],
        wrong=[
            lambda z, eps, a, b: None,
            lambda z, eps, a, b: b.sqrt() * z + (1 - b).sqrt() * eps,
            lambda z, eps, a, b: (z - (1 - a).sqrt() * eps) / a.sqrt(),
            lambda z, eps, a, b: b * (z - (1 - a) * eps) / a + (1 - b) * eps,
            lambda z, eps, a, b: z,
            lambda z, eps, a, b: z[0],
            lambda z, eps: z,
        ],
    ),
    "schedule_without_leak": Answers(
        right=[
            np.cos(np.linspace(0, np.pi / 2, 1000)) ** 2,
            torch.linspace(0, math.pi / 2, 1000).cos() ** 2,
            (1 - 3 * TIME**2 + 2 * TIME**3).tolist(),
            (1 + np.cos(np.pi * TIME)) / 2,
            1 - TIME**3 * (10 - 15 * TIME + 6 * TIME**2),
            0.995 * np.cos(np.linspace(0.01, np.pi / 2, 1000)) ** 2,
        ],
        wrong=[
            None,
            np.linspace(1, 0, 1000),
            ALPHA_BAR,
            np.ones(10),
            np.linspace(2, 0, 1000),
            np.ones(1000),
            0.9 * np.cos(np.linspace(0, np.pi / 2, 1000)) ** 2,
            np.cos(np.linspace(0, 1.5, 1000)) ** 2,
            np.linspace(1, 0, 1000) ** 2,
            np.full(1000, np.nan),
        ],
        beside=lambda: (ALPHA_BAR,),
    ),
    "noised_pixel": foretold(-0.5, -0.1, -0.46, 1.1, 0.1),
    "hidden_error": foretold_why(0.25, "b", "ac", 0.0004, 6.245, 0.01),
    "sampler": Answers(
        right=[
            sampled,
            sampled_as_in_the_chapter,
            sampled_by_diffusers,
            lambda *given: [np.asarray(x) for x in sampled(*given)],
            lambda f, noise, bars, steps: sampled(f, np.asarray(noise), np.asarray(bars), steps),
        ],
        wrong=[
            lambda *given: None,
            lambda *given: (None, None, None),
            lambda *given: sampled(*given)[2],
            lambda *given: (*sampled(*given)[:2], None),
            lambda *given: sampled(*given, times=lambda n, gap: range(n - gap, -1, -gap)),
            lambda *given: (sampled(*given)[0][::-1], *sampled(*given)[1:]),
            lambda *given: sampled(*given, sign=-1),
            lambda *given: sampled(*given, renoise=False),
            lambda *given: sampled(*given, of_eps=True),
            lambda *given: sampled(*given, end=float(given[2][-1])),
            lambda *given: sampled(*given, end=float(given[2][0])),
            lambda *given: (*sampled(*given)[:2], sampled(*given)[1]),
        ],
    ),
}

# -------------------------------------------------------------------------- 02_make_a_picture


def softened(scores, hidden):
    scores = torch.where(hidden, torch.tensor(-1e30, dtype=scores.dtype), scores)
    return scores.softmax(-1)


def renormalised(scores, hidden):
    looks = scores.softmax(-1) * ~hidden
    return looks / looks.sum(-1, keepdim=True)


def by_hand(scores, hidden):
    exp = np.exp(np.asarray(scores)) * ~np.asarray(hidden)
    return exp / exp.sum(-1, keepdims=True)


def at(scores, k):
    """Where the token is, bool of the scores' shape."""
    return (torch.arange(scores.shape[-1]) == k).expand(scores.shape)


def in_place(scores, hidden):
    scores[hidden] = -torch.inf
    return scores.softmax(-1)


def mute_loop(scores, k):
    kept = [i for i in range(scores.shape[-1]) if i != k]
    looks = torch.zeros_like(scores)
    looks[..., kept] = scores[..., kept].softmax(-1)
    return looks


#: attention with hidden places, rightly and wrongly: (scores, hidden) -> attention
HIDE = (
    lambda scores, hidden: scores.masked_fill(hidden, -torch.inf).softmax(-1),
    softened,
    renormalised,
    by_hand,
    lambda scores, hidden: (scores + torch.where(hidden, -torch.inf, 0.0)).softmax(-1),
)
HIDE_WRONGLY = (
    lambda scores, hidden: None,
    lambda scores, hidden: scores.softmax(-1),
    lambda scores, hidden: scores.softmax(-1) * ~hidden,
    lambda scores, hidden: (scores * ~hidden).softmax(-1),
    lambda scores, hidden: ~hidden / (~hidden).sum(-1, keepdim=True),
    lambda scores, hidden: scores.masked_fill(hidden, -torch.inf),
    lambda scores, hidden: scores / 0,
    lambda scores, hidden: scores[0],
    in_place,
)


def std_ratio(uncond, cond, w, **how):
    return cond.std(**how) / (uncond + w * (cond - uncond)).std(**how)


def cross_attended(q, k, v, keep, heads, root=None, hide=HIDE[0], joined=True, cut=None):
    """(scores, looks, new cells); each option is a mistake."""
    q, k, v, keep = (torch.as_tensor(x) for x in (q, k, v, keep))
    cut = cut or (lambda x: x.unflatten(-1, (heads, -1)).transpose(0, 1))
    q_, k_, v_ = map(cut, (q, k, v))
    scores = q_ @ k_.mT / (root or q_.shape[-1]) ** 0.5
    looks = hide(scores, ~keep.expand(scores.shape))
    new = looks @ v_
    return scores, looks, (new.transpose(0, 1).flatten(1) if joined else new.reshape(q.shape))


def by_torch(q, k, v, keep, heads):
    """The new cells by the library's own attention."""
    cut = (x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (q, k, v))
    new = nn.scaled_dot_product_attention(*cut, attn_mask=keep.expand(len(q), -1))
    return *cross_attended(q, k, v, keep, heads)[:2], new.transpose(0, 1).flatten(1)


def by_einsum(q, k, v, keep, heads):
    q, k, v = (np.asarray(x).reshape(len(x), heads, -1) for x in (q, k, v))
    scores = np.einsum("chd,thd->hct", q, k) / np.sqrt(q.shape[-1])
    looks = by_hand(scores, ~np.asarray(keep))
    return scores, looks, np.einsum("hct,thd->chd", looks, v).reshape(len(q), -1)


def head_by_head(q, k, v, keep, heads):
    parts = zip(*(torch.as_tensor(x).chunk(heads, -1) for x in (q, k, v)), strict=True)
    made = [cross_attended(*part, keep, 1) for part in parts]
    scores, looks, new = zip(*made, strict=True)
    return torch.cat(scores), torch.cat(looks), torch.cat(new, -1)


MAKE_A_PICTURE = {
    "caption": Answers(
        right=[
            "a red boat and a sun",
            "a red car and a blue car on the grey street at day",
            "A boat and a moon, on the blue sea at night.",
            "a palm tree and a crab on the yellow beach",
            "the purple balloon rises and the cow stays still",
            "polar lights and a green tree",
        ],
        wrong=[
            "",
            None,
            "blue boat sun",
            "a red boat and a zebra",
            "the boat moves on the blue sea",
            "a boat and a sun",
            "a boat sun on the blue sea",
            "red and blue and green",
        ],
        beside=lambda: (iv.load("storybook"),),
    ),
    "rescaled_guidance": Answers(
        right=[
            lambda u, c, w: (u + w * (c - u)) * std_ratio(u, c, w),
            lambda u, c, w: (u + w * (c - u)) * std_ratio(u, c, w, correction=0),
            lambda u, c, w: torch.lerp(u, c, w) * c.std() / torch.lerp(u, c, w).std(),
            lambda u, c, w: (u + w * (c - u)) * std_ratio(u, c, w, dim=(1, 2, 3), keepdim=True),
            lambda u, c, w: ((1 - w) * u + w * c) * float(std_ratio(u, c, w)),
        ],
        wrong=[
            lambda u, c, w: None,
            lambda u, c, w: u + w * (c - u),
            lambda u, c, w: c,
            lambda u, c, w: u,
            lambda u, c, w: (u + w * (c - u)) / std_ratio(u, c, w),
            lambda u, c, w: (u + w * (c - u)) * std_ratio(u, c, w) ** 2,
            lambda u, c, w: c.std(),
            lambda u, c, w: (u + w * (c - u)) * std_ratio(u, c, w, dim=(2, 3), keepdim=True),
            lambda u, c, w: guidance,  # noqa: F821
        ],
    ),
    "mute": Answers(
        right=[*(lambda scores, k, f=f: f(scores, at(scores, k)) for f in HIDE), mute_loop],
        wrong=[
            *(lambda scores, k, f=f: f(scores, at(scores, k)) for f in HIDE_WRONGLY),
            lambda scores, k: mute_loop(scores, 2),
        ],
    ),
    "guided_number": foretold(8, 10, 10.5, -4, 7),
    "unscaled_scores": foretold_why(2981, "a", "bc", math.e, 8, 2),
    "cross_attention": Answers(
        right=[
            cross_attended,
            by_torch,
            by_einsum,
            head_by_head,
            lambda *given: list(cross_attended(*given, hide=renormalised)),
        ],
        wrong=[
            lambda *given: None,
            lambda *given: (None, None, None),
            lambda *given: cross_attended(*given)[2],
            lambda *given: (*cross_attended(*given)[:2], None),
            lambda *given: cross_attended(*given, root=1),
            lambda *given: cross_attended(*given, root=given[0].shape[1]),
            lambda *given: cross_attended(
                *given, cut=lambda x: x.unflatten(-1, (-1, given[4])).permute(2, 0, 1)
            ),
            *(lambda *given, f=f: cross_attended(*given, hide=f) for f in HIDE_WRONGLY[1:4]),
            lambda q, k, v, keep, heads: cross_attended(q, k, v, ~keep, heads),
            lambda *given: cross_attended(*given, joined=False),
            lambda q, k, v, keep, heads: cross_attended(q, k, k, keep, heads),
        ],
    ),
}

# ----------------------------------------------------------------------------------- 03_paint


def painted(*strokes):
    return iv.rasterise(Image.new("RGB", (256, 256)), strokes)[1]


def dot(x, y, width, tool="brush"):
    return line((x, y), (x, y), width=width, tool=tool)


def mixed(original, edited, mask):
    return original + mask[..., None] * (edited.astype(float) - original)


def composite_loop(original, edited, mask):
    result = original.copy()
    for y, x in np.argwhere(mask > 0):
        result[y, x] = np.rint(mixed(original, edited, mask)[y, x])
    return result


TREES = iv.Instructions.load(MEDIA / "paint_recolour.json").image.picture
R, G, B = np.moveaxis(np.asarray(TREES).astype(int), -1, 0)
LEFT = np.arange(256) < 128
CROWN = (G > R) & (R > B + 40) & LEFT


def softly(eps, original, painted, mask, noise, bars, strength, hold=1, clean=False, whole=False):
    """The latents before the first step, after it and at the end; each option is a mistake."""

    def noised(x, a):
        return a**0.5 * x + (1 - a) ** 0.5 * noise

    steps = len(bars) - 1
    first = 0 if whole else steps - int(steps * strength)
    way = [noised(painted, bars[first])]
    for i, (a, b) in list(enumerate(zip(bars[:-1], bars[1:], strict=True)))[first:]:
        e = eps(way[-1], i)
        x0 = (way[-1] - (1 - a) ** 0.5 * e) / a**0.5
        held = original if clean else noised(original, bars[i + hold])
        way.append(mask * (b**0.5 * x0 + (1 - b) ** 0.5 * e) + (1 - mask) * held)
    return way[0], way[1], way[-1]


def softly_by_diffusers(eps, original, painted, mask, noise, bars, strength):
    """The library's own step, at a schedule whose only times are those of bars."""
    scheduler = DDIMScheduler(num_train_timesteps=len(bars) - 1, clip_sample=False)
    steps = len(bars) - 1
    scheduler.alphas_cumprod = torch.as_tensor(bars[:-1]).flip(0)
    scheduler.final_alpha_cumprod = torch.ones(())
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps[steps - int(steps * strength) :]
    way = [scheduler.add_noise(painted, noise, times[:1])]
    for t, after in zip(times, [*times[1:], None], strict=True):
        z = scheduler.step(eps(way[-1], steps - 1 - int(t)), t, way[-1]).prev_sample
        held = original if after is None else scheduler.add_noise(original, noise, after[None])
        way.append(torch.lerp(held, z, mask))
    return way[0], way[1], way[-1]


PAINT = {
    "ring": Answers(
        right=[
            painted(dot(60, 50, 60), dot(60, 50, 30, "eraser")),
            painted(line(*around(120, 70, 30), width=10)),
            painted(dot(200, 40, 90), dot(210, 50, 20, "eraser")),
            torch.from_numpy(painted(dot(60, 80, 50), dot(60, 80, 12, "eraser"))),
            painted(line((40, 40), (80, 40), (80, 80), (40, 80), (40, 40), width=8)),
        ],
        wrong=[
            np.zeros((256, 256)),
            painted(dot(60, 50, 60)),
            painted(line((0, 60), (255, 60), width=20)),
            painted(line((0, 60), (255, 60), width=40), dot(100, 60, 20, "eraser")),
            painted(dot(60, 220, 60), dot(60, 220, 30, "eraser")),
            painted(line(*around(120, 70, 30)[:30], width=10)),
            painted(dot(60, 50, 60), dot(100, 50, 50, "eraser")),
            painted(dot(60, 50, 60), dot(60, 50, 90, "eraser")),
        ],
    ),
    "composite": Answers(
        right=[
            lambda original, edited, mask: np.rint(mixed(original, edited, mask)).astype("u1"),
            lambda original, edited, mask: (mixed(original, edited, mask) + 0.5).astype("uint8"),
            lambda o, e, m: np.round((1 - m[..., None]) * o + m[..., None] * e).astype(np.uint8),
            lambda o, e, m: (
                torch.lerp(
                    torch.tensor(o).double(),
                    torch.tensor(e).double(),
                    torch.tensor(m)[..., None] * 1.0,
                )
                .round()
                .to(torch.uint8)
                if m.dtype == np.float64
                else np.rint(mixed(o, e, m)).astype("u1")
            ),
            composite_loop,
        ],
        wrong=[
            lambda original, edited, mask: None,
            lambda original, edited, mask: mixed(original, edited, mask),
            lambda original, edited, mask: edited,
            lambda original, edited, mask: original,
            lambda original, edited, mask: mixed(original, edited, mask > 0.5).astype("u1"),
            lambda original, edited, mask: mixed(original, edited, mask).astype("u1"),
            lambda original, edited, mask: original + mask * edited,
            lambda o, e, m: (o + m[..., None] * (e - o)).astype("u1"),
            lambda original, edited, mask: np.rint(mixed(edited, original, mask)).astype("u1"),
        ],
    ),
    "left_crown": Answers(
        right=[
            CROWN,
            (R > 80) & (G > R) & (B < 60) & LEFT,
            torch.from_numpy(CROWN),
            CROWN.astype(np.uint8) * 255,
            (R > 1.6 * B) & (G > R) & LEFT,
            cv2.dilate(CROWN.astype(np.uint8), np.ones((3, 3))) > 0,
        ],
        wrong=[
            None,
            CROWN[0],
            R < 0,
            (G > R) & (R > B + 40),
            (B > 200) & LEFT,
            CROWN & (G > 190),
            ~CROWN & LEFT,
            CROWN[:, ::-1],
        ],
        beside=lambda: (TREES,),
    ),
    "steps_of_an_edit": foretold(7, 20, 13, 14, 6),
    "clean_hold": foretold_why(0.8, "c", "ab", 0.64, 0.6, 0),
    "soft_edit": Answers(
        right=[
            softly,
            softly_by_diffusers,
            lambda *given: list(softly(*given)),
            lambda *given: tuple(np.asarray(z) for z in softly(*given)),
            lambda e, x, y, m, n, bars, s: softly(e, x, y, m[None, None], n, bars.tolist(), s),
        ],
        wrong=[
            lambda *given: None,
            lambda *given: (None, None, None),
            lambda *given: softly(*given)[2],
            lambda *given: (softly(*given)[0], None, None),
            lambda *given: (*softly(*given)[:2], None),
            lambda *given: (*softly(*given)[:2], softly(*given)[1] * 0),
            lambda *given: softly(*given, hold=0),
            lambda *given: softly(*given, clean=True),
            lambda *given: softly(*given, whole=True),
            lambda e, x, y, *given: softly(e, y, x, *given),
            lambda e, x, y, m, *given: softly(e, x, y, 1 - m, *given),
            lambda e, x, y, m, *given: softly(e, x, y, 1.0 * (m > 0), *given),
            lambda e, x, y, m, *given: softly(e, x, y, 1.0, *given),
        ],
    ),
}

# ---------------------------------------------------------------------------- 04_make_it_move

F = 8  # the chapter's number of frames


def tril_loop(scores):
    looks = np.zeros(scores.shape)
    for i in range(scores.shape[-1]):
        looks[..., i, : i + 1] = torch.as_tensor(scores[..., i, : i + 1]).softmax(-1)
    return looks


def ahead(scores):
    return torch.ones(scores.shape[-2:]).triu(1).bool().expand(scores.shape)


def in_time(frames, code, to_q, to_k, to_v, out, root=True, axis=-1, keep=1.0, coded=False):
    """(sentences, attention, frames); each option is a mistake."""
    given = (torch.as_tensor(x) for x in (frames, code, to_q, to_k, to_v, out))
    frames, code, to_q, to_k, to_v, out = given
    h, w = frames.shape[-2:]
    cells = frames.permute(2, 3, 0, 1).flatten(0, 1) + code
    q, k, v = (cells @ weight.mT for weight in (to_q, to_k, to_v))
    looks = (q @ k.mT / (q.shape[-1] ** 0.5 if root else 1)).softmax(axis)
    added = (looks @ v @ out.mT).unflatten(0, (h, w)).permute(2, 3, 0, 1)
    return cells, looks, keep * frames + added + coded * code[:, :, None, None]


def in_time_by_torch(frames, code, to_q, to_k, to_v, out):
    """The library's own attention, from an axis of cells that comes last."""
    cells = (frames.flatten(2) + code[..., None]).permute(2, 0, 1)
    new = nn.scaled_dot_product_attention(*(nn.linear(cells, x) for x in (to_q, to_k, to_v)))
    new = nn.linear(new, out).permute(1, 2, 0).reshape(frames.shape)
    return cells, in_time(frames, code, to_q, to_k, to_v, out)[1], frames + new


def in_time_by_einsum(frames, code, to_q, to_k, to_v, out):
    x = np.asarray(frames) + np.asarray(code)[..., None, None]
    q, k, v = (np.einsum("fchw,dc->hwfd", x, np.asarray(weight)) for weight in (to_q, to_k, to_v))
    scores = np.einsum("hwfc,hwgc->hwfg", q, k) / np.sqrt(len(code[0]))
    looks = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    new = np.einsum("hwfg,hwgc,dc->fdhw", looks, v, np.asarray(out))
    cells = x.transpose(2, 3, 0, 1).reshape(-1, *code.shape)
    return cells, looks.reshape(len(cells), len(code), -1), np.asarray(frames) + new


def in_time_cell_by_cell(frames, code, *weights):
    f, c, h, w = frames.shape
    parts = [
        in_time(frames[:, :, i : i + 1, j : j + 1], code, *weights)
        for i in range(h)
        for j in range(w)
    ]
    cells, looks, new = zip(*parts, strict=True)
    return torch.cat(cells), torch.cat(looks), torch.cat(new, 2).view(f, c, h, w)


MAKE_IT_MOVE = {
    "affinity": Answers(
        right=[
            np.linspace(1, 0.5, F),
            torch.linspace(1, 0.5, F),
            [1 - 0.5 * f / (F - 1) for f in range(F)],
            np.linspace(1, 0.5, F).reshape(F, 1, 1, 1),
            torch.linspace(1, 0.5, F).view(F, 1, 1, 1).expand(-1, -1, 4, 4),
        ],
        wrong=[
            None,
            np.ones((F, 1)),
            np.ones(F),
            np.linspace(1, 0.25, F) ** 0.5,
            np.linspace(0.5, 1, F),
            np.linspace(1, 0.5, F + 1),
            np.linspace(1, 0.5, F + 1)[:F],
            [1.0, *[np.nan] * (F - 2), 0.5],
        ],
        beside=lambda: (F,),
    ),
    "widen": Answers(
        right=[
            lambda w: torch.cat([w, torch.zeros_like(w), torch.zeros_like(w[:, :1])], 1),
            lambda w: nn.pad(w, (0, 0, 0, 0, 0, w.shape[1] + 1)),
            lambda w: np.concatenate([w, np.zeros((len(w), w.shape[1] + 1, 3, 3))], 1),
            lambda w: torch.cat([w, w.new_zeros(w.shape[0], w.shape[1] + 1, 3, 3)], 1),
            lambda w: torch.nn.Parameter(torch.cat([w, 0 * w, 0 * w[:, :1]], 1)),
        ],
        wrong=[
            lambda w: None,
            lambda w: w,
            lambda w: torch.zeros(len(w), 2 * w.shape[1] + 1, 3, 3),
            lambda w: torch.cat([w, w, w[:, :1]], 1),
            lambda w: torch.cat([torch.zeros_like(w[:, :1]), torch.zeros_like(w), w], 1),
            lambda w: torch.cat([w, 0 * w[:, :1], w], 1) / 2,
            lambda w: torch.cat([w, torch.zeros(8, 5, 3, 3)], 1),
            lambda w: torch.cat([w, 0], 1),
        ],
    ),
    "no_looking_ahead": Answers(
        right=[
            *(lambda scores, f=f: f(scores, ahead(scores)) for f in HIDE),
            lambda scores: scores.masked_fill(torch.ones(F, F).triu(1) > 0, -torch.inf).softmax(-1),
            tril_loop,
        ],
        wrong=[
            *(lambda scores, f=f: f(scores, ahead(scores)) for f in HIDE_WRONGLY),
            lambda scores: HIDE[0](scores, ahead(scores).mT),
            lambda scores: HIDE[0](scores, torch.ones(F, F).triu(2) > 0),
        ],
        beside=lambda: (F,),
    ),
    "looks_over_time": foretold(16384, 2048, 64, 524288, 4194304),
    "no_position": foretold_why(7, "a", "bc", 0, 8),
    "over_time": Answers(
        right=[
            in_time,
            in_time_by_torch,
            in_time_by_einsum,
            in_time_cell_by_cell,
            lambda *given: [x.numpy() for x in in_time(*given)],
        ],
        wrong=[
            lambda *given: None,
            lambda *given: (None, None, None),
            lambda *given: in_time(*given)[2],
            lambda *given: (in_time(*given)[0], None, None),
            lambda *given: (*in_time(*given)[:2], None),
            lambda x, code, *w: in_time(x, code * 0, *w),
            lambda x, code, *w: (x.reshape(-1, *code.shape) + code, *in_time(x, code, *w)[1:]),
            lambda *given: in_time(*given, root=False),
            lambda *given: in_time(*given, axis=1),
            lambda *given: in_time(*given, keep=0.0),
            lambda *given: in_time(*given, coded=True),
            lambda x, code, q, k, v, out: in_time(x, code, k, q, v, out),
            lambda x, code, q, k, v, out: in_time(x, code, q, k, v.T, out),
        ],
    ),
}

# ------------------------------------------------------------------------------------- 05_drag

TURTLE = np.zeros((256, 256), bool)
TURTLE[160:200, 50:105] = True
HANDLE = (77, 180)


def drag(*points, mask=TURTLE, **how):
    return iv.Drag(path=[HANDLE, *points], mask=mask, **how)


def cut_loop(picture, mask, background, shift):
    dx, dy = shift
    result = background.copy()
    for y, x in np.argwhere(mask):
        if 0 <= y + dy < mask.shape[0] and 0 <= x + dx < mask.shape[1]:
            result[y + dy, x + dx] = picture[y, x]
    return result


def cut_padded(picture, mask, background, shift):
    h, w = mask.shape
    shift = (shift[1], shift[0])
    wide = [
        np.roll(np.pad(p, [(h, h), (w, w), *[(0, 0)] * (p.ndim - 2)]), shift, (0, 1))
        for p in (picture, mask)
    ]
    there, what = wide[1][h : 2 * h, w : 2 * w], wide[0][h : 2 * h, w : 2 * w]
    return np.where(there[..., None], what, background)


def cut_warped(picture, mask, background, shift):
    move = np.float32([[1, 0, shift[0]], [0, 1, shift[1]]])
    size = mask.shape[::-1]
    there = cv2.warpAffine(mask.astype(np.uint8), move, size, flags=cv2.INTER_NEAREST)
    what = cv2.warpAffine(picture, move, size, flags=cv2.INTER_NEAREST)
    result = background.copy()
    result[there > 0] = what[there > 0]
    return result


def cut_torch(picture, mask, background, shift):
    return torch.from_numpy(cut_loop(picture, mask, background, shift))


def cut_selected(picture, mask, background, shift):
    y, x = np.nonzero(mask)
    ny, nx = y + shift[1], x + shift[0]
    keep = (ny >= 0) & (nx >= 0) & (ny < len(mask)) & (nx < mask.shape[1])
    result = np.array(background)
    result[ny[keep], nx[keep]] = picture[y[keep], x[keep]]
    return result


def rolled(picture, mask, background, shift):
    there = np.roll(mask, shift[::-1], (0, 1))
    return np.where(there[..., None], np.roll(picture, shift[::-1], (0, 1)), background)


def uncut(picture, mask, background, shift):
    return np.where(np.roll(mask, shift[::-1], (0, 1))[..., None], picture, background)


def left_behind(picture, mask, background, shift):
    return cut_loop(picture, mask, picture, shift)


def wraps_below(picture, mask, background, shift):
    """Negative places come back on the other side."""
    result = background.copy()
    for y, x in np.argwhere(mask):
        if y + shift[1] < len(mask) and x + shift[0] < mask.shape[1]:
            result[y + shift[1], x + shift[0]] = picture[y, x]
    return result


def squares(region, cell):
    f, h, w = region.shape
    return torch.as_tensor(region).reshape(f, 1, h // cell, cell, w // cell, cell)


def bent(v, p, q, power=1, scale=True, sign=1, flat=False):
    """Moving least squares with real numbers; each option is a mistake."""
    w = 1 / ((p - v) ** 2).sum(1) ** power
    w = w / w.sum()
    k = w * 0 + 1 / len(w) if flat else w
    p_mean, q_mean = (k[:, None] * p).sum(0), (k[:, None] * q).sum(0)
    (px, py), (qx, qy), (dx, dy) = (p - p_mean).T, (q - q_mean).T, v - p_mean
    a, b = (w * (px * qx + py * qy)).sum(), sign * (w * (px * qy - py * qx)).sum()
    size = (w * (px**2 + py**2)).sum() if scale else (a**2 + b**2) ** 0.5
    stack = torch.stack if isinstance(v, torch.Tensor) else np.stack
    turned = stack([a * dx - b * dy, b * dx + a * dy]) / size
    return w, stack([p_mean, q_mean]), q_mean + turned


def bent_complex(v, p, q):
    """As the library computes it."""
    v, p, q = (np.asarray(x) @ (1, 1j) for x in (v, p, q))
    w = 1 / abs(v - p) ** 2
    w /= w.sum()
    a, b = w @ p, w @ q
    end = b + (w @ ((p - a).conj() * (q - b))) / (w @ abs(p - a) ** 2) * (v - a)
    return w, [[a.real, a.imag], [b.real, b.imag]], [end.real, end.imag]


def bent_solved(v, p, q):
    """By a weighted least squares fit of (a, b, tx, ty)."""
    v, p, q = (np.asarray(x) for x in (v, p, q))
    w = bent(v, p, q)[0]
    x, y, one, zero = *p.T, np.ones(len(p)), np.zeros(len(p))
    rows = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    root = np.sqrt(np.concatenate([w, w]))
    a, b, tx, ty = np.linalg.lstsq(rows * root[:, None], q.T.ravel() * root, rcond=None)[0]
    end = np.array([a * v[0] - b * v[1] + tx, b * v[0] + a * v[1] + ty])
    return w, np.stack([w @ p, w @ q]), end


DRAG = {
    "detour": Answers(
        right=[
            drag((117, 150), (157, 180)),
            drag((117, 150), (157, 180), mask=None),
            drag((100, 155), (120, 150), (140, 176), rotate=5, easing="ease"),
            drag((60, 100), (200, 183)),
            iv.Drag(path=[(60, 170), (90, 140), (130, 172)], mask=TURTLE, times=[0, 0.2, 1]),
        ],
        wrong=[
            None,
            drag((137, 180)),
            drag((87, 150), (117, 180)),
            drag((87, 150), (147, 150)),
            drag((87, 150), (147, 189)),
            drag((107, 210), (147, 180)),
            iv.Drag(path=[(200, 60), (220, 30), (265, 60)]),
            drag((117, 150), (157, 180), mask=TURTLE[::-1]),
            iv.Drag(path=[(5, 250), (40, 220), (80, 250)], mask=TURTLE),
        ],
        beside=lambda: (TURTLE,),
    ),
    "cut_and_drag": Answers(
        right=[cut_loop, cut_padded, cut_warped, cut_torch, cut_selected],
        wrong=[
            lambda *given: None,
            lambda *given: cut_loop(*given).astype(float),
            lambda *given: cut_loop(*given)[:5],
            left_behind,
            uncut,
            rolled,
            wraps_below,
            lambda p, m, b, shift: cut_loop(p, m, b, shift[::-1]),
            lambda picture, mask: picture,
        ],
    ),
    "cell_means": Answers(
        right=[
            lambda region, cell: squares(region, cell).mean((3, 5)),
            lambda region, cell: nn.avg_pool2d(torch.as_tensor(region)[:, None], cell),
            lambda region, cell: torch.from_numpy(squares(region, cell).numpy().mean(5).mean(3)),
            lambda region, cell: nn.interpolate(
                torch.from_numpy(region)[:, None], scale_factor=1 / cell, mode="area"
            ),
            lambda region, cell: nn.conv2d(
                torch.tensor(region).float()[:, None],
                torch.full((1, 1, cell, cell), cell**-2.0),
                stride=cell,
            ),
        ],
        wrong=[
            lambda region, cell: None,
            lambda region, cell: squares(region, cell).mean((3, 5)).numpy(),
            lambda region, cell: squares(region, cell).mean((3, 5))[:, 0],
            lambda region, cell: torch.as_tensor(region),
            lambda region, cell: torch.as_tensor(region)[:, None, ::cell, ::cell],
            lambda region, cell: squares(region, cell).amax((3, 5)),
            lambda region, cell: squares(region, cell).sum((3, 5)),
            lambda region, cell: squares(region, 4).mean((3, 5)),
        ],
    ),
    "steps_not_evaluated": foretold(7, 8, 3, 2, 10),
    "torn_apart": foretold(300, 400, 3, 303, 100),
    "bend": Answers(
        right=[
            bent,
            bent_complex,
            bent_solved,
            lambda *given: list(bent(*given)),
            lambda *given: bent(*(np.asarray(g, "float64") for g in given)),
        ],
        wrong=[
            lambda *given: None,
            lambda *given: (None, None, None),
            lambda *given: bent(*given)[2],
            lambda *given: (*bent(*given)[:2], None),
            lambda *given: bent(*given, power=0.5),
            lambda *given: bent(*given, flat=True),
            lambda *given: (bent(*given)[0] * 2, *bent(*given)[1:]),
            lambda *given: bent(*given, sign=-1),
            lambda *given: bent(*given, scale=False),
            lambda v, p, q: (*bent(v, p, q)[:2], v),
            lambda v, p, q: bent(v, q, p),
        ],
    ),
}

# ----------------------------------------------------------------------------------- 06_lambda


def late(value=0.0, start=2, frames=4):
    lam = np.ones((6, 8, 1, 1, 1))
    lam[start:, -frames:] = value
    return lam


def by_eps(v, v_edit, z, z_edit, lam, a):
    """The chapter's own idiom, with `a` a tensor."""
    eps, eps_edit = (a.sqrt() * p + (1 - a).sqrt() * q for p, q in ((v, z), (v_edit, z_edit)))
    eps_hat = lam * eps + (1 - lam) * eps_edit
    return eps_hat, (eps_hat - (1 - a).sqrt() * z_edit) / a.sqrt()


def by_powers(v, v_edit, z, z_edit, lam, a):
    s, n = a**0.5, (1 - a) ** 0.5
    eps_hat = lam * (s * v + n * z) + (1 - lam) * (s * v_edit + n * z_edit)
    return eps_hat, (eps_hat - n * z_edit) / s


def by_formula(v, v_edit, z, z_edit, lam, a):
    """Section 9's formula, as it is displayed."""
    v_hat = lam * v + (1 - lam) * v_edit
    return v_hat + lam * (1 - a) ** 0.5 / a**0.5 * (z - z_edit)


def by_lerp(v, v_edit, z, z_edit, lam, a):
    s, n = math.sqrt(a), math.sqrt(1 - a)
    eps_hat = torch.lerp(s * v_edit + n * z_edit, s * v + n * z, float(lam))
    return [eps_hat, (eps_hat - n * z_edit) / s]


def by_formula_and_back(*given):
    v_hat, z_edit, a = by_formula(*given), given[3], given[5]
    return a**0.5 * v_hat + (1 - a) ** 0.5 * z_edit, v_hat


def chains(eps, eps_edit, noise, bars, lam, unit="v", **how):
    """Both latents at the end; each of `how` is a mistake."""
    z, z_edit = noise, noise + 0
    for i in range(len(bars) - 1):
        a, b = float(bars[i]), float(bars[i + how.get("shift", 1)])
        s, n = a**0.5, (1 - a) ** 0.5
        e, e_edit = eps(z_edit if how.get("shared") else z, i), eps_edit(z_edit, i)
        if unit == "v":
            v, v_edit = (e - n * z) / s, (e_edit - n * z_edit) / s
            e_hat = s * (lam * v + (1 - lam) * v_edit) + n * z_edit
        else:
            e_hat = e + (1 - lam) * (e_edit - e)
        ends = (
            (w - n * p) * (b**0.5 / s) + p * (1 - b) ** 0.5 for w, p in ((z, e), (z_edit, e_hat))
        )
        z, z_edit = ends
    return z, z_edit


def three(*given, **how):
    z, in_eps = chains(*given, unit="eps", **how)
    return z, in_eps, chains(*given, **how)[1]


LAMBDA = {
    "late_edit": Answers(
        right=[
            late(),
            torch.from_numpy(late()),
            late().tolist(),
            np.broadcast_to(late(), (6, 8, 1, 4, 4)),
            late().astype("float32").repeat(2, 3),
            1 - np.outer(np.arange(6) >= 2, np.arange(8) >= 4).reshape(6, 8, 1, 1, 1),
        ],
        wrong=[
            0.5,
            None,
            np.ones((6, 8)),
            "late",
            late(0.2),
            late(start=3),
            late(frames=5),
            late().swapaxes(0, 1),
            late(np.nan),
        ],
        beside=lambda: (6, 8),
    ),
    "two_edits": Answers(
        right=[
            lambda e, a, b, lam, s: lam * e + (1 - lam) * (s * a + (1 - s) * b),
            lambda e, a, b, lam, s: lam * e + (1 - lam) * s * a + (1 - lam) * (1 - s) * b,
            lambda e, a, b, lam, s: torch.lerp(torch.lerp(b, a, s), e, lam),
            lambda e, a, b, lam, s: b + lam * (e - b) + (1 - lam) * s * (a - b),
            lambda e, a, b, lam, s: np.tensordot(
                [float(w) for w in (lam, (1 - lam) * s, (1 - lam) * (1 - s))], [e, a, b], 1
            ),
        ],
        wrong=[
            lambda e, a, b, lam, s: None,
            lambda e, a, b, lam, s: lam * e + (1 - lam) * (s * b + (1 - s) * a),
            lambda e, a, b, lam, s: lam * e + s * a + (1 - s) * b,
            lambda e, a, b, lam, s: (1 - lam) * e + lam * (s * a + (1 - s) * b),
            lambda e, a, b, lam, s: e if lam == 1 else s * a + (1 - s) * b,
            lambda e, a, b, lam, s: lam * e + (1 - lam) * (a + b) / 2,
            lambda e, a, b, lam, s: e[0],
            lambda e, a, b: e,
        ],
    ),
    "blend_in_eps": Answers(
        right=[
            by_eps,
            by_powers,
            by_lerp,
            by_formula_and_back,
            lambda *given: tuple(np.asarray(found) for found in by_powers(*given)),
        ],
        wrong=[
            lambda *given: None,
            by_formula,
            lambda *given: by_powers(*given)[0],
            lambda *given: by_powers(*given)[::-1],
            lambda v, v_edit, z, z_edit, lam, a: [lam * v + (1 - lam) * v_edit] * 2,
            lambda v, v_edit, z, z_edit, lam, a: (
                by_powers(v, v_edit, z, z_edit, lam, a)[0],
                lam * v + (1 - lam) * v_edit,
            ),
            lambda v, v_edit, z, z_edit, lam, a: by_powers(v, v_edit, z_edit, z, lam, a),
            lambda v, v_edit, z, z_edit, lam, a: by_powers(v, v_edit, z, z, lam, a),
            lambda v, v_edit, z, z_edit, lam, a: (v[0], v),
        ],
    ),
    "evaluations": foretold(15, 30, 20, 10, 25),
    "push_in_eps": Answers(
        right=[
            (0.5, 0.001, "b"),
            [0.25, 1e-6, "B"],
            (torch.tensor(0.5), torch.tensor(0.002), " b "),
            (np.float32(0.4), np.float64(1e-4), "b"),
            (0.5, 1 / 401, "b"),
        ],
        wrong=[
            None,
            (0.5, 0.001),
            (0.5, 0.001, "a"),
            (0.5, 0.001, "c"),
            (0.5, 0.001, "d"),
            (0.5, 0.1, "b"),
            (0.5, 0, "b"),
            (20, 0.5, "b"),
            ([0.5, 0.5], 0.001, "b"),
            (math.nan, 0.001, "b"),
        ],
    ),
    "two_chains": Answers(
        right=[
            three,
            lambda *given: list(three(*given)),
            lambda *given: tuple(np.asarray(end) for end in three(*given)),
            lambda e, e_edit, z, bars, lam: three(e, e_edit, z, bars.tolist(), float(lam)),
            lambda e, e_edit, z, bars, lam: three(e, e_edit, np.asarray(z, "float64"), bars, lam),
        ],
        wrong=[
            lambda *given: None,
            lambda *given: (None, None, None),
            lambda *given: three(*given)[0],
            lambda *given: (*three(*given)[:1], None, None),
            lambda *given: (*three(*given)[:2], None),
            lambda *given: three(*given, shared=True),
            lambda *given: three(*given, shift=0),
            lambda *given: three(*given[:4], 1 - given[4]),
            lambda *given: (three(*given)[0],) * 3,
            lambda *given: (*three(*given)[:2], three(*given)[1]),
            lambda *given: three(*given)[::-1],
            lambda e, e_edit, z, bars, lam: three(e_edit, e, z, bars, lam),
        ],
    ),
}

# ------------------------------------------------------------------------------------ 07_align

V, X, OTHER = torch.rand(3, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def weighted(x, x_edit, lam):
    lam = lam.reshape(-1, 1, 1, 1)
    return lam * x + (1 - lam) * x_edit


def change(clip):
    return np.abs(np.diff(clip.astype(float), axis=0)).mean()


def change_loop(clip):
    steps = [np.abs(b.astype(int) - a).mean() for a, b in zip(clip, clip[1:], strict=False)]
    return sum(steps) / len(steps)


def change_torch(clip):
    return torch.as_tensor(clip).float().diff(dim=0).abs().mean()


def change_cv2(clip):
    return np.mean([cv2.absdiff(a, b) for a, b in zip(clip[:-1], clip[1:], strict=True)])


def change_split(clip):
    clip = clip / 255
    return (np.maximum(clip[1:], clip[:-1]) - np.minimum(clip[1:], clip[:-1])).mean()


def aligned(v, x, x_edit, lam, groups, conv, correction=0, silu=nn.silu, sign=1):
    """(normalised, as printed, residual); each option is a mistake."""
    v, x, x_edit, lam = (torch.as_tensor(p) for p in (v, x, x_edit, lam))
    parts = (v - weighted(x, x_edit, lam)).view(len(v), groups, -1)
    variance, mean = torch.var_mean(parts, -1, correction=correction, keepdim=True)
    normed = ((parts - mean) / (variance + 1e-5) ** 0.5).view_as(v)
    printed = conv(silu(normed))
    return normed, printed, v + sign * printed


def aligned_by_torch(v, x, x_edit, lam, groups, conv):
    normed = nn.group_norm(v - torch.lerp(x_edit, x, lam.view(-1, 1, 1, 1)), groups)
    return normed, conv(nn.silu(normed)), v + conv(nn.silu(normed))


def aligned_loop(v, x, x_edit, lam, groups, conv):
    v, x, x_edit = (np.asarray(p, "float64") for p in (v, x, x_edit))
    normed, size = np.zeros(v.shape), v.shape[1] // groups
    for f, w in enumerate(np.asarray(lam, "float64")):
        for c in range(0, v.shape[1], size):
            d = (v[f] - w * x[0] - (1 - w) * x_edit[0])[c : c + size]
            normed[f, c : c + size] = (d - d.mean()) / np.sqrt(d.var() + 1e-5)
    printed = conv(normed / (1 + np.exp(-normed)))
    return normed, printed, v + printed


ALIGN = {
    "same_difference": Answers(
        right=[
            ((V, X), (V + OTHER, X + OTHER), "c"),
            [(V, X), (V - 0.5, X - 0.5), " C "],
            ((V.numpy(), X.numpy()), (V.numpy() * 0 + 1, (X - V).numpy() + 1), "c"),
            ((V, X), (X + 2 * (V - X), X), "c"),  # the normalisation takes the size away as well
            ((V.double(), X.double()), (OTHER.double(), (OTHER - V + X).double()), "c"),
        ],
        wrong=[
            None,
            3,
            (),
            ((V, X), (V + OTHER, X + OTHER)),
            ((V, X), (V + OTHER, X + OTHER), None),
            *(((V, X), (V + OTHER, X + OTHER), letter) for letter in "abd"),
            ((V, X), (V, X), "c"),
            ((X, X), (OTHER, OTHER), "c"),
            ((V, X), (OTHER, X), "c"),
            ((V, X), (V + OTHER, X), "c"),
            ((V, X), (V + OTHER, X + OTHER, X), "c"),
            ((V, X), (X, V), "c"),
        ],
    ),
    "align_targets": Answers(
        right=[
            weighted,
            lambda x, e, lam: lam[:, None, None, None] * x + (1 - lam[:, None, None, None]) * e,
            lambda x, e, lam: torch.lerp(e, x, lam.view(-1, 1, 1, 1)),
            lambda x, e, lam: torch.cat([w * x + (1 - w) * e for w in lam]),
            lambda x, e, lam: np.stack([w * x[0] + (1 - w) * e[0] for w in np.asarray(lam)]),
            lambda x, e, lam: weighted(x, e, lam.reshape(8, 1, 1, 1)),  # the chapter's FRAMES
        ],
        wrong=[
            lambda x, e, lam: None,
            lambda x, e, lam: x,
            lambda x, e, lam: e.expand(8, -1, -1, -1),
            lambda x, e, lam: weighted(e, x, lam),
            lambda x, e, lam: torch.where(lam.view(-1, 1, 1, 1) > 0.5, x, e),
            lambda x, e, lam: weighted(x, e, lam.mean()).expand(8, -1, -1, -1),
            lambda x, e, lam: lam @ x,
        ],
    ),
    "relative_flicker": Answers(
        right=[
            lambda f, r: change(f) / change(r),
            lambda f, r: change_loop(f) / change_loop(r),
            lambda f, r: change_torch(f) / change_torch(r),
            lambda f, r: change_cv2(f) / change_cv2(r),
            lambda f, r: [change_split(f) / change_split(r)],
        ],
        wrong=[
            lambda f, r: None,
            lambda f, r: np.diff(f, axis=0).mean() / np.diff(r, axis=0).mean(),
            lambda f, r: change(r) / change(f),
            lambda f, r: change(f),
            lambda f, r: change(f) - change(r),
            lambda f, r: np.diff(f * 1.0, axis=0).std() / np.diff(r * 1.0, axis=0).std(),
            lambda f, r: f,
        ],
    ),
    "louder_difference": foretold(1, 9, 3**0.5, 0, 1 / 3),
    "align_clip": Answers(
        right=[
            aligned,
            aligned_by_torch,
            aligned_loop,
            lambda *given: list(aligned(*given)),
            lambda *given: tuple(x.numpy() for x in aligned(*given)),
        ],
        wrong=[
            lambda *given: None,
            lambda *given: (None, None, None),
            lambda *given: aligned(*given)[2],
            lambda *given: (aligned(*given)[0], None, None),
            lambda *given: (*aligned(*given)[:2], None),
            lambda v, x, y, lam, groups, conv: aligned(v, x, y, lam, 1, conv),
            lambda v, x, y, lam, groups, conv: aligned(v, x, y, lam, v.shape[1], conv),
            lambda v, x, y, *given: aligned(v, y, x, *given),
            lambda v, x, y, lam, *given: aligned(v, x, y, lam * 0, *given),
            lambda *given: aligned(*given, correction=1),
            lambda *given: aligned(*given, silu=lambda d: d),
            lambda *given: aligned(*given, silu=torch.relu),
            lambda *given: aligned(*given, sign=-1),
            lambda *given: aligned(*given, sign=0),
        ],
    ),
}

# ----------------------------------------------------------------------------------- 08_studio

CLOUD = Image.new("RGB", (64, 64), "white")
ASKED = iv.Instructions(
    iv.ImageInstruction(picture=Image.new("RGB", (64, 64), "navy")),
    iv.ContentInstruction("a boat", [iv.Stroke([(38, 38), (42, 42)], width=10)]),
    iv.MotionInstruction("the boat moves right"),
)


def take(changes=(), **what):
    return Take("try", "storybook", replace(ASKED, **what), changes=changes)


def paused(*steps, of=None, paint=True, **what):
    """A try that was changed before each of these steps."""
    shades = [Image.new("RGB", (64, 64), (200 + i, 0, 0)) if paint else None for i in steps]
    changes = [
        Change(step, shade, TrajectoryInstruction(), 0.5, "a boat")
        for step, shade in zip(steps, shades, strict=True)
    ]
    return take(changes, num_inference_steps=of, **what)


def region(inside, outside, shape=(1, 1, 16, 16)):
    """λ for 64 x 64 pixels; the paint is in cells 8 to 11 of 16."""
    lam = np.full((1, 1, 16, 16), float(outside))
    lam[..., 8:12, 8:12] = inside
    lam = lam.repeat(shape[-2] // 16, -2).repeat(shape[-1] // 16, -1)
    return take(lam=np.broadcast_to(lam, shape))


def aside(lam, dx=-40, motion="the boat moves right"):
    path = [(50, 30), (50 + dx, 30)]
    drags = [iv.Drag(path=path, mask=np.ones((64, 64), bool))]
    how = {"trajectory": TrajectoryInstruction(drags=drags), "lam": lam}
    return take(motion=iv.MotionInstruction(motion), **how)


def replayed(eps, z, bars, changes, late=0, known=None, shift=1, begin=None):
    """(each step's edit, each x0, the end); each option is a mistake."""
    z, bars, steps = torch.as_tensor(z), [float(b) for b in bars], len(bars) - 1
    edits = [changes[0][1]] * steps
    for done, edit in changes[known:]:
        for i in range(done + late if done else 0, steps):
            edits[i] = edit
    seen = []
    for i, edit in enumerate(edits):
        e = eps(z, i, edit)
        seen.append((z - (1 - bars[i]) ** 0.5 * e) / bars[i] ** 0.5)
        z = bars[i + shift] ** 0.5 * seen[-1] + (1 - bars[i + shift]) ** 0.5 * e
    return torch.tensor(edits), torch.stack(seen), z


def replayed_by_diffusers(eps, z, bars, changes):
    steps = len(bars) - 1
    scheduler = DDIMScheduler(num_train_timesteps=steps, clip_sample=False)
    scheduler.alphas_cumprod = torch.as_tensor(bars[:-1]).flip(0)
    scheduler.final_alpha_cumprod = torch.ones(())
    scheduler.set_timesteps(steps)
    edits, seen, left = [], [], list(changes)
    for i, t in enumerate(scheduler.timesteps):
        edits.append(left.pop(0)[1] if left and left[0][0] == i else edits[-1])
        out = scheduler.step(eps(z, i, edits[-1]), t, z)
        z, seen = out.prev_sample, [*seen, out.pred_original_sample]
    return edits, torch.stack(seen), z


def replayed_in_parts(eps, z, bars, changes):
    """From each change to the next, as the studio does it."""
    ends = [*(done for done, _ in changes[1:]), len(bars) - 1]
    edits, seen = [], []
    for (done, edit), end in zip(changes, ends, strict=True):

        def from_here(z, i, e, n=done):
            return eps(z, i + n, e)

        part = replayed(from_here, z, bars[done : end + 1], [(0, edit)])
        edits, seen, z = [*edits, *part[0]], [*seen, *part[1]], part[2]
    return edits, torch.stack(seen), z


STUDIO = {
    "early_and_late": Answers(
        right=[
            [paused(1, of=10), paused(8, of=10)],
            [paused(1, of=5), paused(3, of=5)],
            [paused(2, of=5), take(), paused(4, of=5)],
            [paused(9, of=10), paused(2, of=10)],
            [paused(1), paused(4)],
            [paused(1, 3, of=10), paused(9, of=10)],
        ],
        wrong=[
            [],
            [take()],
            [paused(1, 8, of=10)],
            [paused(1, of=10), paused(3, of=10)],
            [paused(1, of=10, paint=False), paused(8, of=10, paint=False)],
            [paused(7, of=10), paused(9, of=10)],
            [paused(1, of=10), paused(8, of=10, seed=4)],
            [replace(paused(1, of=10), edited=Image.new("RGB", (64, 64), (201, 0, 0))),
             paused(8, of=10)],
        ],
    ),
    "inside_only": Answers(
        right=[
            [region(0, 1)],
            [take(), region(0, 1, (5, 8, 1, 16, 16))],
            [region(0, 1, (1, 1, 64, 64))],
            [region(1, 0), region(0, 1)],
            [take(lam=1 - iv.latent_mask(iv.edit_mask(
                iv.rasterise(CLOUD, ASKED.content.strokes)[1], cell=4), 4, "mean"))],
        ],
        wrong=[
            [],
            [take(lam=0.0), take(lam=np.linspace(0, 1, 6).reshape(-1, 1, 1, 1, 1))],
            [region(1, 0)],
            [region(0, 0.6)],
            [region(0.4, 1)],
            [take(lam=np.r_[1, np.zeros(255)].reshape(1, 1, 16, 16))],
            [take(lam=[0.0, 1.0, 1.0])],
        ],
    ),
    "against_the_words": Answers(
        right=[
            [aside(0.0), aside(0.6)],
            [aside(1.0), aside(0.3), aside(0.0)],
            [aside(0.0), aside(np.full((1, 8, 1, 1, 1), 0.7))],
            [aside(0.5, motion="the boat moves right, slowly"), aside(0.0)],
            [aside(0.0, motion="it moves Right"), aside(0.9, dx=-20), take()],
        ],
        wrong=[
            [],
            [take(lam=0.0), take(lam=0.6)],
            [aside(0.0, dx=13), aside(0.6, dx=13)],
            [aside(0.0, motion="it moves"), aside(0.6, motion="it moves")],
            [aside(0.1), aside(0.6)],
            [aside(0.0), aside(0.3)],
            [aside(0.0, dx=-1), aside(0.6, dx=-1)],
            [aside(0.0), aside(0.6, motion="it moves left")],
        ],
    ),
    "steps_that_know": foretold(6, 4, 10, 5, 7),
    "late_cloud": foretold_why(3, "b", "ac", 6, 0, 10),
    "replay": Answers(
        right=[
            replayed,
            replayed_by_diffusers,
            replayed_in_parts,
            lambda *given: tuple(x.numpy() for x in replayed(*given)),
            lambda e, z, bars, c: replayed(e, z, bars.tolist(), c),
        ],
        wrong=[
            lambda *given: None,
            lambda *given: (None, None, None),
            lambda *given: replayed(*given)[2],
            lambda *given: (replayed(*given)[0], None, None),
            lambda *given: (*replayed(*given)[:2], None),
            lambda *given: replayed(*given, late=1),
            lambda *given: replayed(*given, known=1)[::-1],
            lambda e, z, bars, c: replayed(e, z, bars, c[-1:]),
            lambda e, z, bars, c: replayed(e, z, bars, [(0, c[-1][1])]),
            lambda *given: replayed(*given, shift=0),
            lambda *given: (*replayed(*given)[:2], given[1]),
            lambda *given: (lambda a, b, z: (a, b[-1], z))(*replayed(*given)),
            lambda *given: (lambda a, b, z: (a, b.flip(0), z))(*replayed(*given)),
        ],
    ),
}  # fmt: skip

# ---------------------------------------------------------------------------------- 09_measure


def far(e, t, w):
    return np.linalg.norm(e - t, axis=1) / w


def lost_loop(ends, targets, width):
    off = [math.dist(e, t) / width for e, t in zip(ends, targets, strict=True)]
    return sum(1 if math.isnan(d) else d for d in off) / len(off)


def votes(rows, method, tie=0.5, of_all=False):
    own = [row for row in rows if method in (row["left"], row["right"])]
    won = [tie if row["image"] == "same" else row[row["image"]] == method for row in own]
    return sum(won) / len(rows if of_all else own)


def votes_counted(rows, method):
    score = pairs = 0
    for row in rows:
        for side in ("left", "right"):
            if row[side] == method:
                pairs += 1
                score += {"same": 1, side: 2}.get(row["image"], 0)
    return score / (2 * pairs)


def own_side(row, m):
    return "left" if row["left"] == m else "right"


def votes_by_side(rows, m):
    rows = [r for r in rows if m in r.values()]
    worth = [1.0 if r["image"] == own_side(r, m) else 0.5 * (r["image"] == "same") for r in rows]
    return np.mean(worth)


def resampled(mine, theirs, groups, draws, counted=True, ends=(2.5, 97.5)):
    """(sums, means, interval); each option is a mistake."""
    sums, counts = np.bincount(groups, mine - theirs), np.bincount(groups)
    sums, counts = (sums, counts) if counted else (sums / counts, counts * 0 + 1)
    means = sums[draws].sum(1) / counts[draws].sum(1)
    return sums, means, np.percentile(means, ends)


def resampled_loop(mine, theirs, groups, draws):
    cases = [[] for _ in range(groups.max() + 1)]
    for a, b, g in zip(mine, theirs, groups, strict=True):
        cases[g].append(a - b)
    means = [np.mean([d for g in row for d in cases[g]]) for row in draws]
    return [sum(c) for c in cases], means, (np.quantile(means, 0.025), np.quantile(means, 0.975))


def resampled_by_torch(mine, theirs, groups, draws):
    mine, theirs, groups, draws = (torch.as_tensor(x) for x in (mine, theirs, groups, draws))
    empty = torch.zeros(draws.shape[1], dtype=mine.dtype)
    sums = empty.index_add(0, groups, mine - theirs)
    counts = empty.index_add(0, groups, torch.ones_like(mine))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    return sums, means, torch.quantile(means, torch.tensor([0.025, 0.975], dtype=mine.dtype))


def resampled_by_counts(mine, theirs, groups, draws):
    """By how often each picture was drawn, as weights of the cases."""
    often = (draws[:, :, None] == np.arange(draws.shape[1])).sum(1)[:, groups]
    sums = (mine - theirs) @ (groups[:, None] == np.arange(draws.shape[1]))
    means = (often * (mine - theirs)).sum(1) / often.sum(1)
    return sums, means, np.percentile(means, [2.5, 97.5])


MEASURE = {
    "lost_things": Answers(
        right=[
            lambda e, t, w: np.where(np.isnan(far(e, t, w)), 1, far(e, t, w)).mean(),
            lambda e, t, w: np.nan_to_num(far(e, t, w), nan=1.0).mean(),
            lambda e, t, w: np.mean([1 if np.isnan(d) else d for d in far(e, t, w)]),
            lambda e, t, w: torch.as_tensor(e - t).norm(dim=1).div(w).nan_to_num(1).mean(),
            lambda e, t, w: np.nan_to_num(np.hypot(*(e - t).T), nan=w).mean() / w,
            lost_loop,
        ],
        wrong=[
            lambda e, t, w: None,
            lambda e, t, w: far(e, t, w).mean(),
            lambda e, t, w: np.nanmean(far(e, t, w)) if not np.isnan(e).all() else 0.0,
            lambda e, t, w: np.nan_to_num(far(e, t, w)).mean(),
            lambda e, t, w: np.nan_to_num(far(e, t, w) * w, nan=1).mean(),
            lambda e, t, w: np.nan_to_num(np.abs(e - t).sum(1) / w, nan=1).mean(),
            lambda e, t, w: e,
            lambda e: e,
        ],
    ),
    "preference": Answers(
        right=[
            votes,
            votes_counted,
            votes_by_side,
            lambda rows, m: np.float32(votes(rows, m)),
            lambda rows, m: torch.tensor(votes(list(reversed(rows)), m)),
        ],
        wrong=[
            lambda rows, m: None,
            lambda rows, m: votes(rows, m, tie=0),
            lambda rows, m: votes(rows, m, tie=1),
            lambda rows, m: votes(rows, m, of_all=True),
            lambda rows, m: np.mean([r["left"] == m for r in rows]),
            lambda rows, m: votes([r for r in rows if r["left"] == m], m),
            lambda rows, m: 1 - votes(rows, m),
            lambda rows, m: [1, 0],
        ],
    ),
    "moving_alignment": Answers(
        right=[
            lambda image, motion, true: image * min(1, motion / true),
            lambda image, motion, true: image * np.clip(motion / true, 0, 1),
            lambda image, motion, true: image if motion >= true else image * motion / true,
            lambda image, motion, true: min(image, image * motion / true),
            lambda image, motion, true: torch.tensor(image * np.minimum(motion, true) / true),
        ],
        wrong=[
            lambda image, motion, true: None,
            lambda image, motion, true: image,
            lambda image, motion, true: image * motion / true,
            lambda image, motion, true: image * motion,
            lambda image, motion, true: image * min(1, motion / true) ** 2,
            lambda image, motion, true: image if motion >= true else 0.0,
            lambda image, motion, true: image * min(motion / true, true / motion if motion else 0),
            lambda image, motion: image,
        ],
    ),
    "share_of_the_width": foretold(20 / 256, 20, 28 / 256, 20 / 128, 7.8125),
    "luckiest_of_forty": foretold_why(2, "c", "ab", 1, 0, 38),
    "paired_interval": Answers(
        right=[
            resampled,
            resampled_loop,
            resampled_by_torch,
            lambda *given: [x.tolist() for x in resampled(*given)],
            resampled_by_counts,
        ],
        wrong=[
            lambda *given: None,
            lambda *given: (None, None, None),
            lambda *given: resampled(*given)[2],
            lambda *given: (resampled(*given)[0], None, None),
            lambda *given: (*resampled(*given)[:2], None),
            lambda m, t, *given: resampled(t, m, *given),
            lambda m, t, *given: resampled(m, t * 0, *given),
            lambda *given: resampled(*given, counted=False),
            lambda *given: (resampled(*given)[0], *resampled(*given, counted=False)[1:]),
            lambda *given: (resampled(*given)[0], given[0][given[3]].mean(1), None),
            lambda *given: resampled(*given, ends=(5, 95)),
            lambda *given: resampled(*given, ends=(97.5, 2.5)),
            lambda *given: (*resampled(*given)[:2], resampled(*given)[1].std()),
        ],
    ),
}

# ---------------------------------------------------------------------------- 10_make_it_yours


def mse(a, b):
    return (a - b).square().mean()


def pair(a=0, b=1, order=(0, 1), rows=(0, 1)):
    """A solution with powers of the strengths at A and at B."""

    def answer(A1, B1, A2, B2, s1, s2):
        As, Bs = [s1**a * A1, s2**a * A2], [s1**b * B1, s2**b * B2]
        return torch.cat([As[i] for i in rows]), torch.cat([Bs[i] for i in order], 1)

    return answer


def squeezed(W, tuned, rank, part=None, scaled=True, power=2):
    """(the singular values, B A, the share that is lost); each option is a mistake."""
    change, part = torch.as_tensor(tuned) - torch.as_tensor(W), part or slice(rank)
    U, S, Vh = torch.linalg.svd(change, full_matrices=False)
    BA = U[:, part] * (S[part] if scaled else 1) @ Vh[part]
    return S, BA, (S[rank:] ** power).sum() / (S**power).sum()


def squeezed_numpy(W, tuned, rank):
    change = np.asarray(tuned) - np.asarray(W)
    U, S, Vh = np.linalg.svd(change)
    BA = sum(S[i] * np.outer(U[:, i], Vh[i]) for i in range(rank))
    return S, BA, np.square(change - BA).sum() / np.square(change).sum()


def squeezed_by_eigenvectors(W, tuned, rank):
    """The change, projected on what it does most of all to its inputs."""
    change = tuned - W
    squares, vectors = torch.linalg.eigh(change.T @ change)
    squares, vectors = squares.flip(0)[: min(W.shape)].clamp(0), vectors.flip(1)[:, :rank]
    BA = change @ vectors @ vectors.T
    return squares.sqrt(), BA, 1 - BA.square().sum() / change.square().sum()


MAKE_IT_YOURS = {
    "dreambooth": Answers(
        right=[
            lambda out, v, o, w, s: mse(out, v) + s * mse(o, w),
            lambda out, v, o, w, s: nn.mse_loss(out, v) + s * nn.mse_loss(o, w),
            lambda out, v, o, w, s: ((out - v) ** 2).mean() + s * ((o - w) ** 2).mean(),
            lambda out, v, o, w, s: np.mean((out - v) ** 2) + s * np.mean((o - w) ** 2),
            lambda out, v, o, w, s: (
                float(torch.dist(out, v) ** 2 + s * torch.dist(o, w) ** 2) / out.numel()
            ),
        ],
        wrong=[
            lambda out, v, o, w, s: None,
            lambda out, v, o, w, s: (out - v).square(),
            lambda out, v, o, w, s: mse(out, v),
            lambda out, v, o, w, s: mse(out, v) + mse(o, w),
            lambda out, v, o, w, s: s * mse(out, v) + mse(o, w),
            lambda out, v, o, w, s: (out - v).abs().mean() + s * (o - w).abs().mean(),
            lambda out, v, o, w, s: (out - v).square().sum() + s * (o - w).square().sum(),
        ],
    ),
    "lora_size": Answers(
        right=[
            lambda rank, layers: sum(rank * (out + into) for out, into in layers),
            lambda rank, layers: rank * int(np.sum(layers)),
            lambda rank, layers: rank * torch.tensor(layers).sum(),
            lambda rank, layers: sum(rank * out + rank * into for into, out in layers),
            lambda rank, layers: float(sum(map(sum, layers)) * rank),
        ],
        wrong=[
            lambda rank, layers: None,
            lambda rank, layers: layers,
            lambda rank, layers: sum(a * b for a, b in layers),
            lambda rank, layers: rank * len(layers),
            lambda rank, layers: rank * sum(a for a, b in layers),
            lambda rank, layers: rank * sum(b for a, b in layers),
            lambda rank, layers: 8 * sum(a + b for a, b in layers),
        ],
    ),
    "two_loras": Answers(
        right=[
            pair(),
            pair(1, 0),
            pair(order=(1, 0), rows=(1, 0)),
            lambda A1, B1, A2, B2, s1, s2: [np.vstack([A1, A2]), np.hstack([s1 * B1, s2 * B2])],
            lambda A1, B1, A2, B2, s1, s2: (
                torch.cat([2 * A1, A2]),
                torch.cat([s1 / 2 * B1, s2 * B2], dim=-1),
            ),
        ],
        wrong=[
            lambda *given: None,
            lambda A1, B1, A2, B2, s1, s2: (A1, B1),
            lambda A1, B1, A2, B2, s1, s2: s1 * B1 @ A1 + s2 * B2 @ A2,
            lambda A1, B1, A2, B2, s1, s2: (
                torch.eye(A1.shape[1], dtype=A1.dtype),
                s1 * B1 @ A1 + s2 * B2 @ A2,
            ),
            pair(0, 0),
            pair(1, 1),
            pair(order=(1, 0)),
            pair(0.5, 0.5),
        ],
    ),
    "share_of_a_lora": foretold(0.125, 512, 0.0625, 4, 12.5),
    "both_zero": foretold_why(0, "a", "bc", 1, 100, -1),
    "extracted": Answers(
        right=[
            squeezed,
            squeezed_numpy,
            squeezed_by_eigenvectors,
            lambda *given: list(squeezed(*given)),
            lambda W, tuned, rank: squeezed(np.asarray(W), np.asarray(tuned), rank),
        ],
        wrong=[
            lambda *given: None,
            lambda *given: (None, None, None),
            lambda *given: squeezed(*given)[1],
            lambda *given: (squeezed(*given)[0], None, None),
            lambda *given: (*squeezed(*given)[:2], None),
            lambda W, tuned, rank: squeezed(W * 0, tuned, rank),
            lambda *given: (squeezed(*given)[0].flip(0), *squeezed(*given)[1:]),
            lambda *given: squeezed(*given, part=slice(None)),
            lambda *given: squeezed(*given, part=slice(-given[2], None)),
            lambda *given: squeezed(*given, scaled=False),
            lambda *given: squeezed(*given, power=1),
            lambda *given: (*squeezed(*given)[:2], 1 - squeezed(*given)[2]),
            lambda *given: (lambda S, BA, lost: (S, BA.T, lost))(*squeezed(*given)),
        ],
    ),
}

# ----------------------------------------------------------------------------- 11_real_models

PICTURES_ALONE = "none", "noised (SDEdit)"
FIT = [n for n, row in TABLE.items() if row.memory_gb <= 16 and row.image not in PICTURES_ALONE]


def flowed(v, v_edit, noise, given, steps, shift, lam, held=True, sign=1):
    """(noise levels, x0 at the first step, the end); each option is a mistake."""
    noise, given = torch.as_tensor(noise), torch.as_tensor(given)
    sigmas = torch.linspace(1, 0, steps + 1, dtype=noise.dtype)
    sigmas = shift * sigmas / (1 + (shift - 1) * sigmas)
    z, x0 = noise, None
    for s, t in zip(sigmas[:-1], sigmas[1:], strict=True):
        blend = torch.lerp(v_edit(z, s), v(z, s), float(lam))
        blend = torch.cat([(z[:1] - given) / s, blend[1:]]) if held else blend
        x0 = z - s * blend if x0 is None else x0
        z = z + sign * (t - s) * blend
    return sigmas, x0, z


def flowed_by_diffusers(v, v_edit, noise, given, steps, shift, lam):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=float(shift))
    scheduler.set_timesteps(sigmas=[1 - i / steps for i in range(steps)])
    sigmas, z, x0 = scheduler.sigmas, noise, None
    for i, t in enumerate(scheduler.timesteps):
        blend = lam * v(z, sigmas[i]) + (1 - lam) * v_edit(z, sigmas[i])
        blend[0] = (z[0] - given) / sigmas[i]
        x0 = z - sigmas[i] * blend if x0 is None else x0
        z = scheduler.step(blend, t, z).prev_sample
    return sigmas, x0, z


def flowed_frame_by_frame(v, v_edit, noise, given, steps, shift, lam):
    even = [1 - i / steps for i in range(steps + 1)]
    sigmas = [float(shift) * s / (1 + (float(shift) - 1) * s) for s in even]
    first, ends = [], []
    for f, z in enumerate(noise):
        x0s = []
        for s, t in zip(sigmas[:-1], sigmas[1:], strict=True):
            x0 = given if f == 0 else z - s * (lam * v(z, s) + (1 - lam) * v_edit(z, s))
            x0s, z = [*x0s, x0], x0 + t / s * (z - x0)
        first, ends = [*first, x0s[0]], [*ends, z]
    return sigmas, torch.stack(first), torch.stack(ends)


REAL_MODELS = {
    "fitting_models": Answers(
        right=[
            FIT,
            FIT[::-1],
            set(FIT),
            iter(FIT),
            np.array(FIT),
            [name for name in FIT if TABLE[name].memory_gb <= 0.9 * 16],  # by the chapter's `fits`
        ],
        wrong=[[], "sdxl", [*FIT, "animatediff"], [*FIT, "sd"], [*FIT, "svd-xt"], "pia", FIT[1:]],
        beside=lambda: (16,),
    ),
    "longest_clip": Answers(
        right=[
            lambda wanted, stride: (wanted - 1) // stride * stride + 1,
            lambda wanted, stride: wanted - (wanted - 1) % stride,
            lambda wanted, stride: max(n for n in range(1, wanted + 1) if (n - 1) % stride == 0),
            lambda wanted, stride: stride * math.floor((wanted - 1) / stride) + 1,
            lambda wanted, stride: range(1, wanted + 1, stride)[-1],
        ],
        wrong=[
            lambda wanted, stride: None,
            lambda wanted, stride: wanted,
            lambda wanted, stride: (wanted // stride + 1) * stride + 1,
            lambda wanted, stride: wanted // stride * stride + 1,
            lambda wanted, stride: wanted // stride * stride,
            lambda wanted, stride: 1,
            lambda wanted: wanted,
        ],
    ),
    "straight_velocity": Answers(
        right=[
            lambda z, given, sigma: (z - given) / sigma,
            lambda z, given, sigma: (z - (1 - sigma) * given) / sigma - given,
            lambda z, given, sigma: torch.sub(z, given).div(sigma),
            lambda z, given, sigma: (1 / sigma) * (z - given),
            lambda z, given, sigma: np.true_divide(np.subtract(z, given), float(sigma)),
        ],
        wrong=[
            lambda z, given, sigma: None,
            lambda z, given, sigma: (given - z) / sigma,
            lambda z, given, sigma: z - given,
            lambda z, given, sigma: (z - (1 - sigma) * given) / sigma,
            lambda z, given, sigma: z,
            lambda z, given, sigma: (z - given) / (1 - sigma + 1e-3),
            lambda z, given, sigma: z[0],
        ],
    ),
    "on_the_way": foretold(-1, 1, 0, 2, -2),
    "wrong_way": foretold_why(-6, "b", "ac", 2, -3, 6),
    "flow_clip": Answers(
        right=[
            flowed,
            flowed_by_diffusers,
            flowed_frame_by_frame,
            lambda *given: tuple(np.asarray(x) for x in flowed(*given)),
            lambda *given: list(flowed(*given[:4], given[4], float(given[5]), float(given[6]))),
        ],
        wrong=[
            lambda *given: None,
            lambda *given: (None, None, None),
            lambda *given: flowed(*given)[2],
            lambda *given: (flowed(*given)[0], None, None),
            lambda *given: (*flowed(*given)[:2], None),
            lambda *given: flowed(*given[:5], 1.0, given[6]),
            lambda *given: (flowed(*given)[0].flip(0), *flowed(*given)[1:]),
            lambda *given: flowed(*given[:6], 1 - given[6]),
            lambda *given: flowed(*given, held=False),
            lambda *given: flowed(*given, sign=-1),
            lambda *given: (flowed(*given)[0], given[2], None),
            lambda *given: (*flowed(*given)[:2], flowed(*given)[1]),
            lambda *given: (*flowed(*given)[:2], flowed(*given, held=False)[2]),
        ],
    ),
}

# ------------------------------------------------------------------------------------- 12_live


def last_known(times, points, now):
    found = points[0]
    for time, point in zip(times, points, strict=True):
        found = point if time <= now else found
    return found


def blended_often(x, x_edit, lam, chunks):
    for _ in range(chunks):
        x_edit = lam * x + (1 - lam) * x_edit
    return x_edit


def in_steps(times, points, chunks, shares=(0.25, 0.5, 0.75, 1.0), ahead=0.0):
    shown, found = points[0], []
    for k in range(chunks):
        there = last_known(times, points, k / 2 + ahead)
        found += [shown * (1 - share) + there * share for share in shares]
        shown = found[-1]
    return np.array(found)


def by_linspace(times, points, chunks):
    ends = np.stack([points[0], *(last_known(times, points, k / 2) for k in range(chunks))])
    ways = [np.linspace(a, b, 5)[1:] for a, b in zip(ends[:-1], ends[1:], strict=True)]
    return np.concatenate(ways)


def by_interp(times, points, chunks):
    ends = np.stack([points[0], *(last_known(times, points, k / 2) for k in range(chunks))])
    at = np.arange(1, 4 * chunks + 1) / 4
    return np.stack([np.interp(at, np.arange(chunks + 1), ends[:, i]) for i in (0, 1)], 1)


def let_go(context):
    return torch.cat([torch.as_tensor(context)[:, -1:], torch.as_tensor(context)[:, 1:]], 1)


def four_times(edited):
    return torch.as_tensor(edited)[:, None].repeat(1, 4, 1, 1, 1)


LIVE = {
    "first_frame_there": Answers(
        right=[7, 7.0, np.int64(7), torch.tensor(7), [7], np.array([7.0])],
        wrong=[None, 0, 3, 4, 6, 8, 11, "seven", float("nan")],
    ),
    "forgotten": Answers(
        right=[
            blended_often,
            lambda x, x_edit, lam, chunks: x + (1 - lam) ** chunks * (x_edit - x),
            lambda x, x_edit, lam, chunks: torch.lerp(x, x_edit, (1 - lam) ** chunks),
            lambda x, x_edit, lam, chunks: np.add(
                (1 - (1 - float(lam)) ** chunks) * np.asarray(x),
                (1 - float(lam)) ** chunks * np.asarray(x_edit),
            ),
            lambda x, x_edit, lam, chunks: x - (x - x_edit) * math.pow(1 - lam, chunks),
        ],
        wrong=[
            lambda x, x_edit, lam, chunks: None,
            lambda x, x_edit, lam, chunks: lam * x + (1 - lam) * x_edit,
            lambda x, x_edit, lam, chunks: x_edit,
            lambda x, x_edit, lam, chunks: (1 - lam) ** chunks * x_edit,
            lambda x, x_edit, lam, chunks: lam**chunks * x_edit + (1 - lam**chunks) * x,
            lambda x, x_edit, lam, chunks: x[0],
            lambda x, x_edit, lam: x,
        ],
    ),
    "known_pointer": Answers(
        right=[
            last_known,
            lambda times, points, now: points[max(np.searchsorted(times, now, "right") - 1, 0)],
            lambda times, points, now: points[max((times <= now).sum() - 1, 0)],
            lambda times, points, now: tuple(points[max(np.sum(np.array(times) <= now), 1) - 1]),
            lambda times, points, now: torch.as_tensor(points)[
                max(int((times <= now).sum()), 1) - 1
            ],
        ],
        wrong=[
            lambda times, points, now: None,
            lambda times, points, now: points[-1],
            lambda times, points, now: points[0],
            lambda times, points, now: points[max((times < now).sum() - 1, 0)],
            lambda times, points, now: points[min((times <= now).sum(), len(points) - 1)],
            lambda times, points, now: points,
            lambda times, points: points[0],
        ],
    ),
    "shown_places": Answers(
        right=[
            in_steps,
            by_linspace,
            by_interp,
            lambda times, points, chunks: torch.as_tensor(in_steps(times, points, chunks)),
            lambda times, points, chunks: in_steps(times, points, chunks).tolist(),
        ],
        wrong=[
            lambda times, points, chunks: None,
            lambda times, points, chunks: in_steps(times, points, chunks, (0, 0.25, 0.5, 0.75)),
            lambda times, points, chunks: in_steps(times, points, chunks, ahead=0.5),
            lambda times, points, chunks: in_steps(times, points, chunks, (1, 1, 1, 1)),
            lambda times, points, chunks: in_steps(times, points, chunks)[::4],
            lambda times, points, chunks: np.repeat(points[:1], 4 * chunks, 0),
            lambda times, points, chunks: in_steps(times, points, chunks)[:, 0],
        ],
    ),
    "contexts": Answers(
        right=[
            lambda context, edited: (four_times(edited), let_go(context)),
            lambda context, edited: [four_times(edited), let_go(context)],
            lambda context, edited: (
                np.stack([edited] * 4, 1),
                np.concatenate([context[:, 3:], context[:, 1:]], 1),
            ),
            lambda context, edited: (
                edited[:, None].expand(-1, 4, -1, -1, -1),
                context[:, [3, 1, 2, 3]],
            ),
            lambda context, edited: (
                torch.as_tensor(edited).unsqueeze(1).repeat_interleave(4, 1),
                torch.as_tensor(context).index_select(1, torch.tensor([3, 1, 2, 3])),
            ),
        ],
        wrong=[
            lambda context, edited: (None, None),
            lambda context, edited: (let_go(context), four_times(edited)),
            lambda context, edited: (four_times(edited), context),
            lambda context, edited: (
                torch.cat([torch.as_tensor(edited)[:, None], torch.as_tensor(context)[:, 1:]], 1),
                let_go(context),
            ),
            lambda context, edited: (four_times(edited), torch.as_tensor(context).flip(1)),
            lambda context, edited: four_times(edited),
            lambda context, edited: (edited, let_go(context)),
        ],
    ),
}

# -------------------------------------------------------------------------------- 13_from_noise

CLOUD = np.random.default_rng(0).gamma(1.0, 0.7, (400, 2))


def stepped(z, v, a, s, b, r, eta, xi, both=True, square=True, after=True):
    x, eps = a * z - s * v, s * z + a * v
    fresh = eta * r / s * (1 - (a / b) ** 2) ** 0.5
    kept = (r**2 - fresh**2) ** 0.5 if square else r - fresh
    return (b if after else a) * x + kept * eps + (fresh * xi if both else 0)


def stepped_by_angles(z, v, a, s, b, r, eta, xi):
    a, s, b, r, eta = map(float, (a, s, b, r, eta))
    fresh = min(eta * math.sqrt(max(b**2 - a**2, 0)) * r / (s * b), r)
    old = math.sqrt(max(r**2 - fresh**2, 0))
    z, v, xi = map(torch.as_tensor, (z, v, xi))
    return (b * a + old * s) * z + (old * a - b * s) * v + fresh * xi


def least(values, power):
    at = np.sort(values)
    if power == 1:
        return (at[(len(at) - 1) // 2] + at[len(at) // 2]) / 2
    return np.dot(at, np.ones(len(at)) / len(at))


FROM_NOISE = {
    "one_step_lands": Answers(
        right=[
            CLOUD.mean(0),
            torch.tensor(CLOUD.mean(0)),
            CLOUD.mean(0).tolist(),
            [CLOUD[:, 0].sum() / 400, CLOUD[:, 1].sum() / 400],
            CLOUD.mean(0)[None] + 0.003,
        ],
        wrong=[None, [0, 0], CLOUD[3], np.median(CLOUD, 0), CLOUD.mean(), CLOUD.max(0), "there"],
        beside=lambda: (CLOUD,),
    ),
    "best_constants": Answers(
        right=[
            lambda values: (np.mean(values), np.median(values)),
            lambda values: [sum(values) / len(values), np.quantile(values, 0.5)],
            lambda values: (least(values, 2), least(values, 1)),
            lambda values: (
                torch.as_tensor(values).mean(),
                torch.quantile(torch.as_tensor(values), 0.5),
            ),
            lambda values: (np.average(values), np.percentile(values, 50)),
        ],
        wrong=[
            lambda values: (None, None),
            lambda values: (np.median(values), np.mean(values)),
            lambda values: (np.mean(values), np.mean(values)),
            lambda values: (np.median(values), np.median(values)),
            lambda values: (np.mean(values), (values.min() + values.max()) / 2),
            lambda values: np.mean(values),
            lambda values: (np.mean(values), values[0]),
            lambda values: (values, values),
        ],
    ),
    "sampler_step": Answers(
        right=[
            stepped,
            stepped_by_angles,
            lambda z, v, a, s, b, r, eta, xi: stepped(xi=xi, eta=eta, r=r, b=b, s=s, a=a, v=v, z=z),
            lambda z, v, a, s, b, r, eta, xi: stepped(z, v, a, s, b, r, eta, xi) + 0,
            lambda *given: torch.as_tensor(stepped(*given)).double(),
        ],
        wrong=[
            lambda z, v, a, s, b, r, eta, xi: None,
            lambda *given: stepped(*given[:6], 0.0, given[7]),
            lambda *given: stepped(*given, square=False),
            lambda *given: stepped(*given, after=False),
            lambda *given: stepped(*given, both=False),
            lambda z, v, a, s, b, r, eta, xi: b * (a * z - s * v) + r * xi,
            lambda z, v, a, s, b, r, eta, xi: z,
            lambda z, v: z,
        ],
    ),
}

CHAPTERS = {
    "00_quickstart": QUICKSTART,
    "01_see_noise": SEE_NOISE,
    "02_make_a_picture": MAKE_A_PICTURE,
    "03_paint": PAINT,
    "04_make_it_move": MAKE_IT_MOVE,
    "05_drag": DRAG,
    "06_lambda": LAMBDA,
    "07_align": ALIGN,
    "08_studio": STUDIO,
    "09_measure": MEASURE,
    "10_make_it_yours": MAKE_IT_YOURS,
    "11_real_models": REAL_MODELS,
    "12_live": LIVE,
    "13_from_noise": FROM_NOISE,
}
