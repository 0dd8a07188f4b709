"""Checks of chapters 10 and 11: training, and real models."""

from functools import partial
from itertools import islice

import numpy as np

from ...support.validate import as_array
from .compare import NotYet, compared, exercise, explained, normal, predicted, staged

# ------------------------------------------------------------------------- 10_make_it_yours


@compared(lambda: [(*four, weight) for four in normal(4) for weight in (0.3, 1.0, 2.0)])
def dreambooth(out, v, out_prior, v_prior, weight):
    """Exercise 1: (out, v, out_prior, v_prior, weight) -> both terms, one number."""
    differences = out - v, out_prior - v_prior
    own, prior = (np.square(d).mean() for d in differences)
    yield own + weight * prior
    yield own, "that is the first term: add the class pictures', times weight"
    yield own + prior, "both terms are there; the second must be multiplied by weight"
    yield weight * own + prior, "weight belongs to the second term, not to the first"
    absolute = [np.abs(d).mean() for d in differences]
    yield absolute[0] + weight * absolute[1], "take the squares of the differences, not their sizes"
    yield "it is the mean of (out - v)², and weight times that of the class pictures"


def _layers():
    for n in (3, 1, 7):
        sizes = np.random.default_rng(n).integers(8, 999, (n, 2)).tolist()
        yield from ((rank, [tuple(size) for size in sizes]) for rank in (8, 1, 3))


@compared(_layers, "numpy")
def lora_size(rank, layers):
    """Exercise 2: (rank, [(out, in), ...]) -> how many numbers A and B have."""
    yield rank * sum(out + into for out, into in layers)
    yield sum(out * into for out, into in layers), "that counts the weights W: A and B are thin"
    yield rank * sum(out for out, _ in layers), "that is B alone; A has numbers too"
    yield rank * sum(into for _, into in layers), "that is A alone; B has numbers too"
    yield "A has rank x in numbers and B has out x rank, in every layer"


def _loras():
    for seed, (out, into, ranks) in enumerate(((7, 9, (3, 2)), (12, 5, (1, 4)))):
        rng = np.random.default_rng(seed)
        A1, A2 = (rng.standard_normal((rank, into)).astype("float32") for rank in ranks)
        B1, B2 = (rng.standard_normal((out, rank)).astype("float32") for rank in ranks)
        yield from ((A1, B1, A2, B2, *scales) for scales in ((0.5, -2.0), (1.0, 0.25)))


def _product(found):
    try:
        A, B = (as_array(matrix) for matrix in found)
    except (TypeError, ValueError):
        raise NotYet("your function must return two matrices, A and B") from None
    if A.ndim != 2 or B.ndim != 2 or B.shape[1] != A.shape[0]:
        raise NotYet(f"B of shape {B.shape} cannot be multiplied with A of shape {A.shape}")
    return B @ A, len(A)


@compared(_loras, seen=_product)
def two_loras(A1, B1, A2, B2, s1, s2):
    """Exercise 3: (A1, B1, A2, B2, s1, s2) -> A and B of one LoRA that is both."""
    rank = len(A1) + len(A2)
    first, second = B1 @ A1, B2 @ A2
    both = s1 * first + s2 * second
    yield both, rank
    yield (first + second, rank), "that is the sum of both at strength 1: put the strengths into it"
    yield (s1**2 * first + s2**2 * second, rank), "the strengths count twice: in A and in B"
    yield (both, ...), f"the product is right, but A must have {rank} rows, those of A1 and A2"
    yield "B A is not s1 B1 A1 + s2 B2 A2: mind the order of rows and columns"


share_of_a_lora = predicted(
    "Exercise 4: the share of a LoRA of rank 4 in a layer of 64 x 64.",
    0.125,
    (512, "that is the count: divide it by the layer's 64 x 64"),
    (0.0625, "that is one of the two factors"),
    (4, "that is the rank"),
    (12.5, "that is in percent: write the share itself"),
    otherwise="two factors of 4 x 64 numbers, against 64 x 64",
)

both_zero = explained(
    "Exercise 5: (the largest number in B A after training from A = B = 0, why).",
    (0, "a"),
    (1, "no step changes a matrix whose gradient is 0"),
    otherwise="the gradient of A is a product with B, and that of B a product with A",
    b="a learning rate makes a step longer, and here the gradient itself is 0",
    c="W stays as it is in every LoRA, and with one of the two random it trains all the same",
)


def _tuned():
    for seed, (out, into, rank) in enumerate(((6, 9, 2), (8, 5, 1), (7, 7, 3))):
        W, change = np.random.default_rng(seed).standard_normal((2, out, into))
        yield W, W + change, rank


@staged(_tuned)
def extracted(W, tuned, rank):
    """Exercise 6, hard: (W, tuned, rank) -> the singular values, B A, the share that is lost."""
    U, S, V = np.linalg.svd(tuned - W, full_matrices=False)
    own, change = np.linalg.svd(tuned)[1], "take those of the change, tuned - W"
    yield S, (own, change), (S[::-1], "the largest comes first"), change
    last = U[:, -rank:] * S[-rank:] @ V[-rank:], "keep the largest ones"
    whole = tuned - W, "that is all of the change: keep the first `rank` parts of it"
    bare = U[:, :rank] @ V[:rank], "multiply by the singular values"
    yield U[:, :rank] * S[:rank] @ V[:rank], whole, bare, last, "it is the sum of the first parts"
    plain, lost = (x[rank:].sum() / x.sum() for x in (S, S**2))
    kept = 1 - lost, "that is the share that is kept"
    yield lost, kept, (plain, "take the squares"), "divide what is left by the sum of all squares"


# --------------------------------------------------------------------------- 11_real_models


@exercise
def fitting_models(names, memory_gb: float):
    """Exercise 1: the table's models that are given a still and fit with all parts.

    Those that take more than 90% of the memory may be named or left out: ivkit keeps a tenth free.
    """
    from ...models import TABLE

    names = [] if names is None else [names] if isinstance(names, str) else names
    names = list(islice(names, len(TABLE) + 1))
    if not names:
        return "my_models is empty: put names of the table into the list"
    moves = {
        n: row.memory_gb for n, row in TABLE.items() if row.image not in ("none", "noised (SDEdit)")
    }
    for name in names:
        if name not in TABLE:
            return f"{name!r} is not in the table: its names are {', '.join(TABLE)}"
        if name not in moves:
            return f"{name} does not move a still: in its row, image is {TABLE[name].image!r}"
        if moves[name] > memory_gb:
            return f"{name} needs about {moves[name]:g} GB, and there are {memory_gb:g}"
    left = [name for name, gb in moves.items() if name not in names and gb <= 0.9 * memory_gb]
    if left:
        return f"all of these fit, but {len(left)} more of the table would too"


def _lengths():
    random = np.random.default_rng(0).integers(1, (200, 12), (20, 2)).tolist()
    return [(16, 4), (17, 4), (97, 8), (20, 1), (3, 8), (1, 4), *map(tuple, random)]


@compared(_lengths, "numpy")
def longest_clip(wanted, stride):
    """Exercise 2: (wanted, stride) -> most frames, stride * k + 1, up to wanted."""
    yield (wanted - 1) // stride * stride + 1
    yield wanted, "a clip has a multiple of stride frames, and one more"
    yield wanted // stride * stride, "the first frame stands alone, beside the stride * k others"
    yield wanted // stride * stride + 1, "that may be more than wanted"
    yield "a clip has stride * k + 1 frames, with the largest k that stays within wanted"


def _latents():
    for sigma in (0.7, 0.2, 1.0):
        for given, eps in normal(2):
            yield ((1 - sigma) * given + sigma * eps).astype(given.dtype), given, sigma


@compared(_latents)
def straight_velocity(z, given, sigma):
    """Exercise 3: (z, given, sigma) -> v with z - sigma v = given."""
    yield (z - given) / sigma
    yield (given - z) / sigma, "the other way round: a step of the sampler subtracts v = ε - x0"
    yield z - given, "that is the way from given to z; it takes σ to go it, so v is it over σ"
    yield (z - (1 - sigma) * given) / sigma, "that is ε; take x0 off it"
    yield "with your v, z - σ v is not given"


on_the_way = predicted(
    "Exercise 4: z after one of four steps of a flow from -2 to 2.",
    -1,
    (1, "that is after three steps, at σ = 0.25"),
    (0, "that is after two steps, at σ = 0.5"),
    (2, "that is the end, x0"),
    (-2, "that is the start, where z is the noise"),
    otherwise="σ is 0.75 after the first step",
)

wrong_way = explained(
    "Exercise 5: (where a flow from -2 to 2 ends with the sign of a step wrong, why).",
    (-6, "b"),
    (2, "that is where it ends with the right sign"),
    (-3, "that is after one of the four steps"),
    otherwise="it begins at -2, and the four steps together change z by 4",
    a="the steps together are as long as before: only their direction has changed",
    c="no step divides by σ: it is z plus v times the change of σ",
)


def _flows():
    for seed, (steps, shift, lam) in enumerate(((4, 1.0, 0.5), (3, 3.0, 0.3), (5, 5.0, 0.8))):
        noise, given = list(normal(2))[seed]
        parts = [partial(lambda lean, z, s: z - lean * (1 + s) / (1 + z * z), e) for e in (0.4, -1)]
        yield *parts, noise, given[0], steps, shift, lam


@staged(_flows)
def flow_clip(v, v_edit, noise, given, steps, shift, lam):
    """Exercise 6, hard: (v, v_edit, noise, ...) -> the σs, x0 at the first step, the end."""
    even = np.linspace(1, 0, steps + 1)
    sigmas = shift * even / (1 + (shift - 1) * even)

    def after(count=None, lam=lam, sigmas=sigmas, held=1):
        z = noise
        for s, t in list(zip(sigmas, sigmas[1:], strict=False))[:count]:
            blend = lam * v(z, s) + (1 - lam) * v_edit(z, s)
            blend[:held] = (z[:held] - given) / s
            z = z + ((0 if count else t) - s) * blend
        return z

    yield sigmas, (even, "these are not shifted"), (sigmas[::-1], "they must fall"), "shift them"
    for n, said in (
        (1, "x0 = z - σ v, with the blended v"),
        (None, "each step adds (next σ - σ) v"),
    ):
        swapped = after(n, 1 - lam), "lam is the weight of v, the unedited prediction"
        yield after(n), swapped, (after(n, held=0), "the first frame goes straight to given"), said
