"""Checks of chapter 12: a stream that is steered while it plays."""

import numpy as np

from .compare import compared, exercise, normal, numbers_of

CHUNK, FPS = 4, 8


@exercise
def first_frame_there(frame):
    """Exercise 1: the first frame that shows a thing where its pointer jumped to in chunk k."""
    (frame,) = numbers_of("my_first_frame", frame, "one whole number").reshape(-1)[:1]
    if frame == 8:
        return "the frames are counted from 0: the last frame of the second chunk is number 7"
    if frame < 4:
        return "chunk k was begun before the pointer jumped: its four frames know nothing of it"
    if frame < 7:
        return "the next chunk goes there in four equal steps: only the last one arrives"
    return None if frame == 7 else "the chunk after k is the first to know of it, and it arrives"


def _weights():
    pairs = (0.5, 3), (0.3, 1), (1.0, 4), (0.0, 2), (0.8, 0)
    return [(*two, *pair) for two in normal(2) for pair in pairs]


@compared(_weights)
def forgotten(x, x_edit, lam, chunks):
    """Exercise 2: (x, x_edit, lam, chunks) -> what a stream shows that repeats its blended past."""
    left = (1 - lam) ** chunks
    yield left * x_edit + (1 - left) * x
    yield (1 - lam) * x_edit + lam * x, "that is one chunk: each next one blends what is left again"
    yield lam**chunks * x_edit + (1 - lam**chunks) * x, "lam is the weight of x, not of the edit"
    yield left * x_edit, "what the edit loses, the unedited stream gains: the weights add up to 1"
    yield "after each chunk the edited stream is lam x + (1 - lam) times what it was before"


def _trails():
    for seed, n in enumerate((1, 4, 9)):
        rng = np.random.default_rng(seed)
        times = np.cumsum(rng.uniform(0.05, 0.6, n))
        yield times, rng.uniform(0, 255, (n, 2))


def _known(times, points, now):
    return points[max(np.searchsorted(times, now, side="right") - 1, 0)]


def _moments():
    for times, points in _trails():
        for now in (0.0, float(times[-1]), float(times[-1]) + 1, float(times.mean())):
            yield times, points, now


@compared(_moments, "numpy")
def known_pointer(times, points, now):
    """Exercise 3, stage 1: (times, points, now) -> the last point that is known at `now`."""
    before = points[max(np.searchsorted(times, now, side="left") - 1, 0)]
    after = points[min(np.searchsorted(times, now, side="right"), len(points) - 1)]
    yield _known(times, points, now)
    yield before, "a point whose time is `now` is known: take side='right'"
    yield after, "that point lies in the future: take the one before"
    yield points[-1], "the last point of the trail is not always known: look at its time"
    yield "it is the last point whose time is not later than `now`, or the first point"


def _places(times, points, chunks, known=_known, step=1):
    shown, found = points[0], []
    for k in range(chunks):
        there = known(times, points, k * CHUNK / FPS)
        found += [shown + (there - shown) * i / CHUNK for i in range(step, CHUNK + step)]
        shown = there
    return np.stack(found)


def _at_the_end(times, points, now):
    return _known(times, points, now + CHUNK / FPS)


@compared(lambda: [(*trail, chunks) for trail in _trails() for chunks in (1, 3, 6)], "numpy")
def shown_places(times, points, chunks):
    """Exercise 3, stage 2: (times, points, chunks) -> where the thing is shown, (4 chunks, 2)."""
    jumps = np.repeat([_known(times, points, k * CHUNK / FPS) for k in range(chunks)], CHUNK, 0)
    yield _places(times, points, chunks)
    yield _places(times, points, chunks, step=0), "the last of the four frames is there already"
    late = _places(times, points, chunks, _at_the_end)
    yield late, "a chunk knows the pointer at its begin, at k / 2 seconds, not at its end"
    yield jumps, "it does not jump: it goes in four equal steps, from where it was shown last"
    yield "each chunk goes in four equal steps from where it was shown last to the known pointer"


def _contexts():
    for (context,), (edited,) in zip(
        normal(1, (1, 4, 3, 6, 5), (1, 4, 2, 8, 8)),
        normal(1, (1, 3, 6, 5), (1, 2, 8, 8)),
        strict=True,
    ):
        yield context, edited


@compared(_contexts)
def contexts(context, edited):
    """Exercise 4: (context, edited) -> the context after paint, and that after letting go."""
    painted = np.repeat(edited[:, None], 4, 1)
    released = np.concatenate([context[:, -1:], context[:, 1:]], 1)
    only_sink = np.concatenate([edited[:, None], context[:, 1:]], 1)
    yield painted, released
    yield (released, painted), "the two are the wrong way round: after paint first"
    yield (only_sink, ...), "after paint all four frames are the edited picture, not the sink alone"
    yield (painted, context), "after letting go the sink is the last frame, context[:, -1:]"
    yield (painted, ...), "after paint it is right; letting go replaces the first frame alone"
    yield "after paint the edited picture stands in all four places, (1, 4, C, h, w)"
