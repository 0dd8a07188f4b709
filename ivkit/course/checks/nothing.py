"""Checks of the chapter that begins from nothing: averages, and one step of a sampler."""

import numpy as np

from .compare import compared, exercise, normal, numbers_of


@exercise
def one_step_lands(point, points):
    """Exercise 1: the point (2,) at which every one-step sample of `points` (n, 2) lands."""
    point = numbers_of("my_point", point, "two numbers").reshape(-1)
    if len(point) != 2:
        return f"my_point must be one point, two numbers, not {len(point)}"
    points = np.asarray(points)
    off = np.linalg.norm(point - points.mean(0))
    if off < 0.02:
        return None
    if np.allclose(point, np.median(points, 0), atol=0.01):
        return "that is the median, which minimises the absolute error: training squares it"
    if np.linalg.norm(points - point, axis=1).min() < 1e-4:
        return "that is one of the points; nothing tells the network which one the noise came from"
    return f"it lands {off:.2f} away from there: it is the best single answer for all points"


def _values():
    for seed, n in enumerate((1, 4, 7, 200)):
        rng = np.random.default_rng(seed)
        yield (np.round(rng.gamma(1.0, 3.0, n), 3),)
    yield (np.array([0.0, 0.0, 9.0]),)


@compared(_values, "numpy")
def best_constants(values):
    """Exercise 2: values (n,) -> (the least squared error's number, the least absolute error's)."""
    mean, median = values.mean(), np.median(values)
    yield mean, median
    yield (median, mean), "the two are the wrong way round: the squared error comes first"
    yield (mean, mean), "for the absolute error as many values lie above the number as below it"
    yield (median, median), "the squared error's derivative is zero at the mean"
    yield (mean, (values.min() + values.max()) / 2), "that is the middle of the range"
    yield (mean, ...), "the first is right; the second must have half of the values on each side"
    yield "they are two statistics that you know, one for each error"


def _steps():
    for seed, (now, then) in enumerate(((0.9, 0.7), (0.5, 0.3), (1.0, 0.8), (0.4, 0.0))):
        turns = np.array([now, then]) * np.pi / 2
        (a, b), (s, r) = np.cos(turns).tolist(), np.sin(turns).tolist()
        for z, v, xi in list(normal(3, (6, 2)))[:1]:
            yield from ((z, v, a, s, b, r, eta, xi * (seed + 1)) for eta in (0.0, 1.0, 0.4))


@compared(_steps)
def sampler_step(z, v, a, s, b, r, eta, xi):
    """Exercise 3: (z, v, a, s, b, r, eta, xi) -> z after one step."""
    x, eps = a * z - s * v, s * z + a * v
    fresh = eta * r / s * max(1 - (a / b) ** 2, 0) ** 0.5
    kept = max(r**2 - fresh**2, 0) ** 0.5
    yield b * x + kept * eps + fresh * xi
    yield b * x + r * eps, "that is DDIM whatever eta is: fresh noise must come in"
    yield b * x + r * eps + fresh * xi, "the old noise must give way: squares add up to r squared"
    yield b * x + (r - fresh) * eps + fresh * xi, "it is the squares that add up, not the amounts"
    yield a * x + kept * eps + fresh * xi, "after the step there is b of the clean point, not a"
    yield b * z + kept * eps + fresh * xi, "mix the clean point, not z: x0 = a z - s v"
    yield b * x + r * xi, "all of the noise is fresh: eta says how much of it"
    yield "z is b x0 + sqrt(r^2 - f^2) eps + f xi, with x0 = a z - s v and eps = s z + a v"
