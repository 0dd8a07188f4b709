"""Checks of chapters 4 and 5: a clip, and a drag."""

import numpy as np

from ...support.validate import as_array
from .compare import NotYet, compared, exercise, explained, normal, numbers_of, predicted, staged
from .pictures import attention, softmax

# ---------------------------------------------------------------------------- 04_make_it_move


@exercise
def affinity(values, num_frames: int):
    """Exercise 1: one number a frame, evenly from 1 down to 0.5."""
    values = numbers_of("my_affinity", values, f"{num_frames} numbers, one for each frame")
    rows = values.reshape(len(values), -1) if values.ndim else values[None, None]
    if len(rows) != num_frames or (values.ndim > 1 and values.shape[1:2] != (1,)):
        return f"the shape must be ({num_frames},), one number a frame, not {values.shape}"
    values = rows[:, 0]
    if np.abs(rows - rows[:, :1]).max() > 1e-6:
        return "within a frame all cells must have the same number"
    if not np.allclose(values[[0, -1]], (1, 0.5)):
        return f"it goes from {values[0]:g} to {values[-1]:g}; it must go from 1 to 0.5"
    if not np.allclose(values, np.linspace(1, 0.5, num_frames)):
        return "the ends are right, but the steps between them are not all the same"


@compared(lambda: [(w,) for (w,) in normal(1, (8, 4, 3, 3), (6, 16, 3, 3))])
def widen(weight):
    """Exercise 2: weight (out, C, 3, 3) -> (out, 2C + 1, 3, 3), same answers."""
    new = np.zeros_like(weight)
    yield np.concatenate([weight, new, new[:, :1]], 1)
    yield np.concatenate([new, new[:, :1], weight], 1), "the first C channels must meet z_t"
    yield np.concatenate([weight, weight, new[:, :1]], 1), "the new channels must add 0"
    yield "the first C channels must be the old weight, and the new ones must add 0"


@compared(lambda f: [(s,) for (s,) in normal(1, (3, 2, f, f), (5, 1, f, f))])
def no_looking_ahead(scores):
    """Exercise 3: (scores (cells, heads, F, F)) -> attention to the frames so far."""
    ahead = np.triu(np.ones(scores.shape, bool), 1)
    yield from attention(scores, ahead, "a frame after the one that looks")


looks_over_time = predicted(
    "Exercise 4: the numbers of temporal attention, 8 frames of 16 x 16 cells.",
    16384,
    (2048, "that is one number for each cell and frame: each frame looks at 8 frames"),
    (64, "that is the square of one cell: there are 16 x 16 cells"),
    (524288, "that is attention over the cells of each frame, as in the picture model"),
    (4194304, "that is attention of all cells of all frames to each other"),
    otherwise="each of 256 cells has a square of 8 x 8",
)

no_position = explained(
    "Exercise 5: (which frame's result frame 0 has in the reversed clip, why).",
    (7, "a"),
    (0, "its vectors were those of the last frame before, and nothing says that it comes first"),
    (8, "the eight frames are counted from 0"),
    otherwise="what a frame gets depends only on its own vectors and on the set of all others",
    b="each frame still looks at all others: only the order of the others is not known",
    c="the softmax adds up to 1 with the code and without it",
)


def _clips():
    for seed, (f, c, h, w) in enumerate(((3, 4, 2, 5), (8, 6, 3, 3), (5, 2, 4, 1))):
        rng, dtype = np.random.default_rng(seed), ("float32", "float64")[seed % 2]
        shapes = (f, c, h, w), (f, c), *[(c, c)] * 4
        yield tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


@staged(_clips)
def over_time(frames, code, to_q, to_k, to_v, out):
    """Exercise 6, hard: (frames, code, to_q, ...) -> the sentences, the looks, the new frames."""
    f, c, h, w = frames.shape
    bare, folded = frames.transpose(2, 3, 0, 1).reshape(h * w, f, c), frames.reshape(h * w, f, c)
    cells = bare + code
    scores = (cells @ to_q.T) @ (cells @ to_k.T).swapaxes(1, 2)
    looks, raw, across = softmax(scores / c**0.5), softmax(scores), scores.swapaxes(1, 2) / c**0.5
    added = (looks @ cells @ to_v.T @ out.T).reshape(h, w, f, c).transpose(2, 3, 0, 1)
    coded = code.reshape(f, c, 1, 1), "the result is added to the frames without the code"
    said = "bring the axes into the order h, w, F, C before you join the first two"
    yield cells, (bare, "add the code"), (folded + code, said), said
    wrong = (raw, "divide by √C"), (softmax(across), "each row is a frame that looks: q k^T")
    yield looks, *wrong, "the softmax of q k^T / √C, over the frames that are looked at"
    kept = added, "add the result to the frames that were there"
    yield frames + added, kept, (frames + added + coded[0], coded[1]), "out comes after looks v"


# ------------------------------------------------------------------------------------- 05_drag


@exercise
def detour(drag, mask):
    """Exercise 1: from the turtle a path that rises 20 pixels and ends 60 to the right."""
    if drag is None:
        return "my_drag is None: give an iv.Drag with a path of three points or more"
    path = np.array(getattr(drag, "path", ()), float)
    if len(path) < 3:
        return f"the path has {len(path)} points: it takes three to leave the straight line"
    mask = as_array(mask) > 0
    x, y = path[0].round().astype(int)
    if not (0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x]):
        return f"the path starts at ({x}, {y}), which is not on the turtle"
    if drag.mask is not None:
        region = as_array(drag.mask) > 0
        if region.shape != mask.shape or (region & mask).sum() < 0.5 * (region | mask).sum():
            return "the drag's mask is not that of the turtle"
    right, down = path[-1] - path[0]
    if right < 60:
        return f"it ends {right:g} pixels to the right of its handle; 60 or more are wanted"
    if abs(down) > 5:
        side = "below" if down > 0 else "above"
        return f"it ends {abs(down):g} pixels {side} its handle; it must end at the same height"
    rise = path[0, 1] - path[:, 1].min()
    if rise < 20:
        return f"it rises {rise:g} pixels on its way; y grows downwards, so subtract 20"


def _moves():
    moves = ((12, 16), (3, 2)), ((12, 16), (9, -5)), ((20, 11), (-6, 9)), ((9, 9), (0, 0))
    for seed, (size, shift) in enumerate(moves):
        rng = np.random.default_rng(seed)
        picture, background = rng.integers(0, 256, (2, *size, 3), np.uint8)
        mask = np.zeros(size, bool)
        mask[3:7, 4:9] = rng.random((4, 5)) < 0.8
        yield picture, mask, background, shift


def _picture(found):
    if as_array(found).dtype != np.uint8:
        raise NotYet(f"a picture is uint8, not {as_array(found).dtype}")
    return found


@compared(_moves, "numpy", _picture)
def cut_and_drag(picture, mask, background, shift):
    """Exercise 2: (picture, mask, background, (dx, dy)) -> the picture with the thing moved."""
    moved, over, swapped = background.copy(), picture.copy(), background.copy()
    old = np.argwhere(mask)
    for way, result in ((shift[::-1], moved), (shift[::-1], over), (shift, swapped)):
        new = old + way
        inside = ((new >= 0) & (new < mask.shape)).all(1)
        result[tuple(new[inside].T)] = picture[tuple(old[inside].T)]
    rolled, there = (np.roll(p, shift[::-1], (0, 1)) for p in (picture, mask))
    yield moved
    yield over, "where the thing was, there must be background now"
    yield swapped, "shift is (dx, dy), and an array's axes are (y, x)"
    yield np.where(there[..., None], rolled, background), "what leaves the frame must not come back"
    yield "some pixels are not what they should be"


def _regions():
    for cell, shape in ((4, (3, 12, 16)), (8, (2, 16, 40))):
        yield from ((np.abs(region), cell) for (region,) in normal(1, shape))


def _tensor(found):
    import torch

    if not isinstance(found, torch.Tensor):
        raise NotYet("the mask must be a torch tensor")
    return found


@compared(_regions, "numpy", _tensor)
def cell_means(region, cell):
    """Exercise 3: (region (F, H, W), cell) -> a tensor (F, 1, h, w), the mean of each cell."""
    f, h, w = region.shape
    cells = region.reshape(f, 1, h // cell, cell, w // cell, cell)
    yield cells.mean((3, 5))
    yield cells[:, :, :, 0, :, 0], "that is one pixel of each cell, not their mean"
    yield cells.max((3, 5)), "that is the largest pixel of each cell, not their mean"
    yield cells.sum((3, 5)), "that is the sum of each cell, not the mean"
    yield "the shape is right, but the cells do not hold the mean of their pixels"


steps_not_evaluated = predicted(
    "Exercise 4: the steps not evaluated of 10 at λ = 0 and weak = 0.8.",
    7,
    (8, "before step 8 nothing is replaced as a whole any more, so the result of step 7 counts"),
    (3, "these are the steps that are evaluated"),
    (2, "these are the steps after the hold"),
    (10, "the last steps replace only where things move"),
    otherwise="the frame is replaced before the steps 1 to 7",
)

torn_apart = predicted(
    "Exercise 5: how far a point moves, 100 pixels from two handles that are close together.",
    300,
    (400, "that is its new distance from the first handle: it was 100 away before"),
    (3, "only the second handle moves so little: the similarity scales what lies beyond it too"),
    otherwise="the ends are 4 pixels apart, the handles 1, so all distances grow by 4",
)


def _bends():
    for seed, n in enumerate((2, 3, 5, 8)):
        v, *p = (rng := np.random.default_rng(seed)).uniform(0, 64, (n + 1, 2))
        yield v, np.stack(p), p + rng.uniform(-12, 12, (n, 2))


@staged(_bends)
def bend(v, p, q):
    """Exercise 6, hard: (v, p, q) -> the weights (n,), the weighted means (2, 2), v's new place."""
    near = 1 / ((p - v) ** 2).sum(1)
    w = near / near.sum()
    means = np.stack([w @ p, w @ q])
    p_, q_, v_ = ((x - m) @ (1, 1j) for x, m in zip((p, q, v), means[[0, 1, 0]], strict=True))
    turn = (w * p_.conj() * q_).sum() / (w * abs(p_) ** 2).sum()
    end, rigid = (means[1] + ((t * v_).real, (t * v_).imag) for t in (turn, turn / abs(turn)))
    yield w, (near, "the weights must add up to 1"), "divide 1 / |v - p|^2 by the sum of all"
    yield means, (means[::-1], "the mean of p comes first"), "use the weights of stage 1"
    yield end, (rigid, "it must scale as well"), "it is q* + (a dx - b dy, b dx + a dy)"
