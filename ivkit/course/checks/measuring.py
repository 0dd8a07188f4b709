"""Checks of chapter 9: measures, and a study."""

import numpy as np

from .compare import compared, explained, predicted, staged


def _ends():
    for seed, (n, lost, width) in enumerate(((4, 1, 200), (9, 3, 256), (6, 0, 100), (3, 3, 320))):
        rng = np.random.default_rng(seed)
        ends, targets = rng.uniform(0, width, (2, n, 2))
        ends[rng.permutation(n)[:lost]] = np.nan
        yield ends, targets, width


@compared(_ends, "numpy")
def lost_things(ends, targets, width):
    """Exercise 1: (ends (N, 2), targets (N, 2), width) -> mean drag distance in widths."""
    far = np.linalg.norm(ends - targets, axis=1) / width
    yield np.nan_to_num(far, nan=1).mean()
    yield far.mean(), "it is NaN: a thing that is lost counts as one width"
    yield far[~np.isnan(far)].sum() / max(1, (~np.isnan(far)).sum()), "you left the lost things out"
    yield np.nan_to_num(far, nan=0).mean(), "a lost thing counts as 0, as if it had arrived"
    yield np.nan_to_num(far * width, nan=1).mean(), "that is in pixels: divide by the width"
    yield "a distance is the straight line from end to target, over the width"


def _votes():
    for seed, n in enumerate((6, 20, 35)):
        rng = np.random.default_rng(seed)
        names = [
            (*rng.permutation(list("abc"))[:2].tolist(), vote)
            for vote in rng.choice(["left", "right", "same"], n).tolist()
        ]
        rows = [dict(zip(("left", "right", "image"), row, strict=True)) for row in names]
        yield from ((rows, method) for method in "abc")


@compared(_votes, "numpy")
def preference(rows, method):
    """Exercise 2: (rows of a study, method) -> share in which it was preferred."""
    own = [row for row in rows if method in (row["left"], row["right"])]
    ties = sum(row["image"] == "same" for row in own)
    won = sum(row.get(row["image"]) == method for row in own)
    yield (won + ties / 2) / len(own)
    yield (won + ties / 2) / len(rows), "divide by the number of pairs with that method in them"
    yield won / len(own), "a tie counts half, not nothing"
    yield (won + ties) / len(own), "a tie counts half, not as much as a win"
    yield "the method may be on either side"


def _scores():
    random = np.random.default_rng(0).uniform(0.1, 5, (20, 3)) / (5, 1, 1)
    return [(1.0, 0.0, 4.0), (0.8, 4.0, 4.0), (0.8, 9.0, 4.0), (0.8, 1.0, 4.0), *random.tolist()]


@compared(_scores, "numpy")
def moving_alignment(image, motion, true_motion):
    """Exercise 3: (image, motion, true_motion) -> alignment that stillness cannot buy."""
    share = motion / true_motion
    yield image * min(1, share)
    if not motion:
        yield "a frozen clip must get 0"
    elif share > 1:
        yield "more motion than the truth's must not earn more, nor less"
    else:
        yield "it must grow evenly: a quarter of the true motion, a quarter of the alignment"


share_of_the_width = predicted(
    "Exercise 4: the drag distance of (12, 16) pixels in a picture 256 wide.",
    20 / 256,
    (20, "that is in pixels: divide by the width"),
    (28 / 256, "that adds the two sides: take the length of the diagonal"),
    (20 / 128, "that is a share of the height"),
    (7.8125, "that is in percent: write the share itself"),
    otherwise="12 and 16 are the sides of a right angle",
)

luckiest_of_forty = explained(
    "Exercise 5: (how many of 40 settings without an effect seem to have one, why).",
    (2, "c"),
    (1, "that is how many seem better: as many seem worse, and their intervals exclude 0 too"),
    (0, "an interval of 95% misses the truth in 5 cases of 100, and 0 is the truth here"),
    otherwise="it is 5% of 40",
    a="the intervals are right: each of them misses the truth as often as it says",
    b="more cases make the intervals shorter, and 5% of them still miss the truth",
)


def _pairs():
    for seed, (n, groups) in enumerate(((9, 3), (20, 6), (31, 10))):
        rng = np.random.default_rng(seed)
        mine, theirs = rng.normal(0.3, 1, (2, n)) + rng.normal(size=n)
        of = rng.permutation(np.arange(n) % (groups - 1) + (np.arange(n) == n - 1))
        yield mine, theirs, of, rng.integers(0, of.max() + 1, (200, of.max() + 1))


@staged(_pairs, "numpy")
def paired_interval(mine, theirs, groups, draws):
    """Exercise 6, hard: (mine, theirs, groups, draws) -> sums, bootstrapped means, interval."""
    sums, counts = np.bincount(groups, mine - theirs), np.bincount(groups)
    means, even = sums[draws].sum(1) / counts[draws].sum(1), (sums / counts)[draws].mean(1)
    own = np.bincount(groups, mine), "that is mine alone: take the differences case by case"
    mean = sums / counts, "take the sum over a picture's cases, not the mean"
    yield sums, own, (-sums, "it is mine minus theirs"), mean, "sum up each picture's differences"
    large = even, "a picture with more cases counts more: divide sums by the cases that were drawn"
    yield means, large, (sums[draws].sum(1), "divide by the cases drawn"), "do as section 4 does"
    low, high = np.percentile(means, [5, 95]), np.percentile(means, [2.5, 97.5])
    yield high, (low, "that leaves out 5% at each end, not in all"), "from 2.5% to 97.5% of stage 2"
