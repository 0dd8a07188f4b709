"""Checks of chapters 6 and 7: λ, and alignment."""

import functools
from itertools import pairwise

import numpy as np

from ...support.validate import as_array
from .compare import compared, exercise, normal, numbers_of, predicted, reason, staged

# ----------------------------------------------------------------------------------- 06_lambda


@exercise
def late_edit(lam, num_steps: int, num_frames: int):
    """Exercise 1: 1 everywhere, but 0 from step 2 on in the last four frames."""
    lam = numbers_of("my_lam", lam, "numbers")
    shape = (num_steps, num_frames, 1, *(lam.shape[-2:] if lam.ndim > 1 else (1, 1)))
    try:
        found = np.broadcast_to(lam, shape)
    except ValueError:
        return f"lam of shape {lam.shape} does not broadcast to {shape}: steps first, then frames"
    wanted = np.ones(shape)
    wanted[2:, -4:] = 0
    for at in np.argwhere(np.abs(found - wanted) > 1e-6)[:1]:
        is_, must = found[tuple(at)], wanted[tuple(at)]
        return f"at step {at[0]}, frame {at[1]} (from 0) it is {is_:g} and must be {must:g}"


def _two_edits():
    weights = (1.0, 0.3), (0.0, 1.0), (0.0, 0.0), (0.4, 0.25), (0.7, 0.6)
    return [(*three, *pair) for three in normal(3) for pair in weights]


@compared(_two_edits)
def two_edits(eps, eps_a, eps_b, lam, share):
    """Exercise 2: (eps, eps_a, eps_b, lam, share) -> Eq. 4 with two edits."""
    edits, other = share * eps_a + (1 - share) * eps_b, share * eps_b + (1 - share) * eps_a
    yield lam * eps + (1 - lam) * edits
    yield lam * eps + (1 - lam) * other, "share is the part of the first edit, not of the second"
    yield (1 - lam) * eps + lam * edits, "lam is the weight of eps, not of the edits"
    yield lam * eps + edits, "the weights add up to more than 1: share divides what lam leaves over"
    weights = lam, (1 - lam) * share, (1 - lam) * (1 - share)
    yield "at lam = {:g}, share = {:g} the weights are {:g}, {:g}, {:g}".format(
        lam, share, *weights
    )


@compared(lambda: [(*four, *pair) for four in normal(4) for pair in ((0.3, 0.2), (0.8, 0.6))])
def blend_in_eps(v, v_edit, z, z_edit, lam, a):
    """Exercise 3: (v, v_edit, z, z_edit, lam, a) -> the blended eps, and its velocity at z_edit."""
    signal, noise = a**0.5, (1 - a) ** 0.5
    v_hat = lam * v + (1 - lam) * v_edit
    eps_hat = signal * v_hat + noise * (lam * z + (1 - lam) * z_edit)
    velocity = (eps_hat - noise * z_edit) / signal
    yield eps_hat, velocity
    yield (velocity, eps_hat), "the two are the wrong way round: ε first, then its velocity"
    yield (v_hat, ...), "the first is a blend of velocities: turn each into ε, with its own latent"
    yield (eps_hat, v_hat), "the second blends the velocities: turn the blended ε into one instead"
    yield (eps_hat, ...), "ε is right; its velocity at z_edit is (ε - √(1 - a) z_edit) / √a"
    yield "the first is not the blended ε: v goes with z, and v_edit with z_edit"


evaluations = predicted(
    "Exercise 4: the predictions of three clips at λ = 0.25, 0.5 and 1.",
    15,
    (30, "that keeps nothing: the reference chain is kept for the second clip"),
    (20, "λ = 1 gives the unedited clip, which the first run has made already"),
    (10, "that is the first clip alone"),
    (25, "the reference chain is computed only once"),
    otherwise="the first clip takes two branches, the second one, and the third none",
)


@exercise
def push_in_eps(answer):
    """Exercise 5: (lam, a, letter), for which a blend in ε pushes by 10 (z - z_edit), and why."""
    if not (isinstance(answer, (tuple, list)) and len(answer) == 3):
        return "give three things: lam, a and the letter of the reason"
    lam, a = numbers_of("lam and a", answer[:2], "one number each").tolist()
    if not (0 <= lam <= 0.5 and 0 < a <= 1):
        return f"lam = {lam:g} must be from 0 to 0.5, and a = {a:g} above 0 and at most 1"
    push = lam * ((1 - a) / a) ** 0.5
    if push < 10:
        return f"the push is {push:.3g} (z - z_edit), and it must be 10 or more"
    agreeing, small = "the two predictions agree here, v = v_edit", "√(1 - a) is at most 1"
    return reason(answer[2], "b", a=agreeing, c=f"{small}, so it amplifies nothing")


def _loops():
    for seed, (steps, lam) in enumerate(((1, 0.3), (4, 0.5), (6, 0.0), (3, 1.0), (5, 0.8))):
        (noise,) = list(normal(1))[seed % 4]
        bars = np.append(np.linspace(0.1, 0.8, steps), 1.0)

        def eps(z, i, lean=0.2):
            return 0.6 * z + (lean + 0.1 * i) / (1 + z * z)

        yield eps, functools.partial(eps, lean=-0.7), noise, bars, lam


def _paired(eps, eps_edit, z, bars, lam, unit, *, own=True, last=False):
    """Both latents at the end. unit: the weight of z in what is blended, at a step's ᾱ."""
    z_edit = z
    for i, (a, b) in enumerate(pairwise(bars)):
        out, out_edit = eps(z if own else z_edit, i), eps_edit(z_edit, i)
        push = lam * unit(a) * (z_edit - z)
        out_hat = lam * out + (1 - lam) * out_edit + push * own
        z, z_edit = (
            b**0.5 * (x - (1 - a) ** 0.5 * e) / a**0.5 + (1 - (a if last else b)) ** 0.5 * e
            for x, e in ((z, out), (z_edit, out_hat))
        )
    return z, z_edit


@staged(_loops)
def two_chains(eps, eps_edit, noise, bars, lam):
    """Exercise 6, hard: (eps, eps_edit, noise, bars, lam) -> z, z' blended in ε, z' in v."""
    given, in_eps = (eps, eps_edit, noise, bars, lam), lambda a: 0.0
    (z, by_eps), (_, by_v) = _paired(*given, in_eps), _paired(*given, lambda a: (1 - a) ** 0.5)
    stale, shared = _paired(*given, in_eps, last=True), _paired(*given, in_eps, own=False)
    swapped = _paired(*given[:4], 1 - lam, in_eps)[1]
    yield (
        z,
        (stale[0], "the new noise has the amount √(1 - b), with the next step's b"),
        ("a step finds x0 = (z - √(1 - a) ε) / √a, and goes to √b x0 + √(1 - b) ε"),
    )
    yield (
        by_eps,
        (shared[1], "eps must be evaluated at z, not at z_edit: that is the reading `shared`"),
        (swapped, "lam is the weight of the unedited prediction"),
        (z, "that is the unedited chain: z_edit steps on the blend"),
        "z_edit begins at the noise, and steps on lam eps(z, i) + (1 - lam) eps_edit(z_edit, i)",
    )
    yield (
        by_v,
        (by_eps, "that is the blend in ε again: each ε becomes a v with its own latent first"),
        "v = (ε - √(1 - a) z) / √a; blend, then ε = √a v + √(1 - a) z_edit",
    )


# ------------------------------------------------------------------------------------ 07_align


@exercise
def same_difference(pairs):
    """Exercise 1: ((v, x), (v, x), why), which Eq. 5 as printed cannot tell apart."""
    import torch

    from ...align import Align

    *pairs, letter = pairs if isinstance(pairs, (tuple, list)) and pairs else (None,)
    if [len(pair) for pair in pairs if isinstance(pair, (tuple, list))] != [2, 2]:
        return "give two pairs of tensors and a letter, (v, x), (other_v, other_x), why"
    (v, x), (other_v, other_x) = (
        [torch.tensor(as_array(p)).float() for p in pair] for pair in pairs
    )
    if v.shape != other_v.shape or (v - other_v).abs().mean() < 0.05:
        return "the two frames v are (nearly) the same: take frames that differ"
    if min((v - x).abs().mean(), (other_v - other_x).abs().mean()) < 0.01:
        return "a difference v - x is zero: section 2 has that case already"
    for seed in range(3):
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            module = Align()
            off = (module(v, x) - module(other_v, other_x)).abs().max()
        if not off <= 1e-2:
            return f"Eq. 5 tells them apart, by up to {off:.2f}: v - x must be the same in both"
    trained = "the weights do not matter: what reaches them is the same in both pairs"
    return reason(letter, "c", a=trained, b="SiLU makes numbers smaller, and two stay two")


def _lams():
    lams = [1.0, 0.4, 0.0, 0.7, 1.0, 0.0, 0.2, 0.8], np.linspace(1, 0, 8)
    for x, x_edit in normal(2, (1, 3, 8, 8), (1, 3, 5, 9)):
        yield from ((x, x_edit, np.asarray(lam, x.dtype)) for lam in lams)


@compared(_lams)
def align_targets(x, x_edit, lam):
    """Exercise 2: (x, x_edit, lam (F,)) -> (F, 3, H, W), what each frame is aligned with."""
    lam = lam.reshape(-1, 1, 1, 1)
    yield lam * x + (1 - lam) * x_edit
    yield lam * x_edit + (1 - lam) * x, "where lam = 1 the edit does not count: the target is x"
    yield np.where(lam > 0.5, x, x_edit), "where lam lies between 0 and 1 the target is a mixture"
    yield "the target of a frame is lam x + (1 - lam) x_edit, with that frame's lam"


def _clips():
    for seed, shape in enumerate(((4, 8, 8, 3), (7, 5, 9, 3), (2, 6, 4, 3))):
        frames, reference = np.random.default_rng(seed).integers(0, 256, (2, *shape), np.uint8)
        yield frames, np.concatenate([reference, reference[:1]]) // 2


@compared(_clips, "numpy")
def relative_flicker(frames, reference):
    """Exercise 3: (frames, reference) -> mean change of frames over that of reference."""
    steps = [np.diff(clip.astype(float), axis=0) for clip in (frames, reference)]
    own, other = (np.abs(step).mean() for step in steps)
    wrapped = np.diff(frames, axis=0).mean() / np.diff(reference, axis=0).mean()
    yield own / other
    yield wrapped, "uint8 wraps around below 0 (3 - 5 is 254): go to float first"
    yield other / own, "upside down: the reference clip's change divides"
    yield own, "that is the change of frames: divide it by the reference's"
    yield steps[0].std() / steps[1].std(), "take the mean of absolute changes, not their spread"
    yield "it is the mean absolute change of frames over that of reference"


louder_difference = predicted(
    "Exercise 4: the factor by which Eq. 5 changes with a difference 2 or 3 times as large.",
    1,
    (9, "that is the factor of the variance, and the layer divides by its root"),
    (3**0.5, "the layer divides by the standard deviation, which grows as fast as the difference"),
    (0, "the output is not zero: only the size of the difference is lost"),
    (1 / 3, "the layer divides by 3 times as much, and what it divides is 3 times as large"),
    otherwise="group normalisation divides by the size of the difference",
)


def _aligned():
    for seed, (f, c, groups) in enumerate(((2, 4, 2), (3, 3, 1), (1, 6, 3), (4, 6, 2))):
        v, x, x_edit = list(normal(3, (f, c, 4, 5)))[seed % 2]
        lam = np.linspace(0.1, 0.8, f).astype(v.dtype)
        yield v, x[:1], x_edit[:1], lam, groups, lambda d: 0.4 * d - 0.3 * d[:, :1] + 0.1


@staged(_aligned)
def align_clip(v, x, x_edit, lam, groups, conv):
    """Exercise 5, hard: (v, x, x_edit, lam, groups, conv) -> normalised, as printed, residual."""
    import torch

    def norm(lam=lam, groups=groups):
        d = v - x_edit - lam.reshape(-1, 1, 1, 1) * (x - x_edit)
        return torch.nn.functional.group_norm(torch.as_tensor(d), groups).numpy()

    n, all_of_it, each = norm(), norm(groups=1), norm(groups=v.shape[1])
    printed = conv(n / (1 + np.exp(-n)))
    one = all_of_it, "that is one group: each group of channels has a mean and a deviation"
    swapped = norm(1 - lam), "lam is the weight of x, the unedited picture"
    yield n, one, (each, "a group is C / groups channels"), swapped, "do it as section 1 does"
    yield printed, (conv(n), "SiLU is missing"), "it is conv(SiLU(what stage 1 returns))"
    yield v + printed, (v - printed, "the correction is added"), "it is v plus what stage 2 returns"
