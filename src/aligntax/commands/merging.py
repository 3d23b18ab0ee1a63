"""Which fraction for which layer: pure arithmetic of `aligntax merge`. No model, no file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import AligntaxError
from ..geometry import averaging_ratio, layer_yields

SEARCHED = 60
"""Mixtures that a search scores at most."""

Objective = Callable[[np.ndarray], float]


def fill_to_mean(weights: np.ndarray, mean: float) -> np.ndarray:
    """Fractions in [0, 1], proportional to `weights` `(L,)` up to a cap of 1, whose mean is `mean`.

    `f_l = min(1, c w_l)`: what a capped layer cannot take, the others share in proportion. Layers of weight 0 are filled,
    equally, only when all others are full.

    >>> fill_to_mean(np.array([1.0, 1.0, 4.0]), 0.5)
    array([0.25, 0.25, 1.  ])
    """
    w = np.asarray(weights, dtype=float)
    if (w < 0).any() or not np.isfinite(w).all() or not w.any():
        raise AligntaxError(f"layer weights are {w.tolist()}; they are >= 0 and at least one is positive")
    if not 0.0 <= mean <= 1.0:
        raise AligntaxError(f"mean fraction {mean}: give a number from 0 (base) to 1 (aligned)")
    found, total = np.zeros(len(w)), mean * len(w)
    for group in (w, np.ones(len(w))):
        open_ = (found < 1.0) & (group > 0)
        while open_.any() and total - found.sum() > 1e-12:
            left = total - found[~open_].sum()
            part = group[open_] / group[open_].max()  # weights may be so small that products with them round to nothing
            scaled = left * part / part.sum()
            found[open_] = np.minimum(1.0, scaled)
            if (scaled <= 1.0).all():
                break
            open_ &= found < 1.0
    return found


def random_fractions(mean: float, depth: int, rng: np.random.Generator) -> np.ndarray:
    """A random fraction in [0, 1] for every layer, of the given mean: the control of per-layer averaging.

    Weights are uniform, then filled to the mean; above one half the complement is filled, so that 0.2 and 0.8 vary alike.
    """
    weights = rng.uniform(size=depth)
    return fill_to_mean(weights, mean) if mean <= 0.5 else 1.0 - fill_to_mean(weights, 1.0 - mean)


@dataclass(frozen=True)
class Spending:
    """Fractions `(L,)` from the layer geometry; yields `x_l`, update norms `n_l` `(L,)`.

    `ratio` of gains at equal length, before capping; `relative_length` of the capped update against the uniform one.
    """

    fractions: np.ndarray
    yields: np.ndarray
    norms: np.ndarray
    ratio: float
    relative_length: float


def surveyed_yields(safety: np.ndarray, tasks: Sequence[np.ndarray]) -> np.ndarray:
    """`x_l = |g_l| sqrt(1 - tau_l)` `(L,)` from a survey's mean gradients, safety and each task `(L, d)` (theory 1.15).

    A task without a gradient at some layer has no direction there and bounds nothing: it is left out at that layer.
    """
    found = []
    for layer, gradient in enumerate(safety):
        rows = [task[layer] for task in tasks if np.any(task[layer])]
        stack = np.stack(rows) if rows else np.zeros((0, len(gradient)))
        found.append(float(layer_yields(gradient[None], stack[None])[0]))
    return np.asarray(found)


def spend_by_layer(yields: np.ndarray, norms: np.ndarray, mean: float) -> Spending:
    """Fractions `f_l ~ y_l / n_l` at a fixed mean, for an update with layer norms `n_l` (theory 1.15).

    A layer's update is taken to gain `S_l = x_l n_l`, so `y_l = S_l / n_l = x_l`: at a fixed length `sum (f_l n_l)^2` the best
    is `f_l n_l ~ x_l`. The fixed mean then sets the scale, and a fraction over 1 is capped. A layer that the update leaves
    alone gets the mean, which changes nothing.
    """
    moved = norms > 0
    if not moved.any():
        raise AligntaxError("BASE and ALIGNED have equal weights in every decoder block; there is nothing to average")
    weights = np.zeros(len(norms))
    weights[moved] = yields[moved] / norms[moved]
    fractions = np.full(len(norms), mean)
    fractions[moved] = fill_to_mean(weights[moved], mean)
    n = norms[moved]
    length = float(np.linalg.norm(fractions[moved] * n) / (mean * np.linalg.norm(n))) if mean > 0 else float("nan")
    return Spending(fractions, yields, norms, averaging_ratio(n, yields[moved] * n), length)


@dataclass(frozen=True)
class Search:
    """What a search found: fractions `(L,)`, the objective at the start and at the end, and how often it was asked."""

    fractions: np.ndarray
    start: float
    best: float
    evaluations: int


def search_fractions(
    objective: Objective, depth: int, mean: float, blocks: int, step: float = 0.25, most: int = SEARCHED
) -> Search:
    """Raise `objective(fractions (L,))` over K blocks of layers at a fixed mean fraction, by moving fraction between blocks.

    A coordinate search in the plane of equal mean: for each pair of blocks some of the fraction of one is handed to the other
    (by size of block, within [0, 1]); a move that improves is kept; when none does, the step is halved, down to a
    sixteenth. At most `most` evaluations. It needs no gradient, never leaves the mean, and never ends below the start, which is
    uniform. The optimum of a concave objective is reached to within the last step.
    """
    if not 1 <= blocks <= depth:
        raise AligntaxError(f"--blocks {blocks}: the model has {depth} decoder blocks; give 1 to {depth}")
    runs = np.array_split(np.arange(depth), blocks)
    best = np.full(depth, float(mean))
    value = start = objective(best)
    asked, smallest = 1, step / 16
    while step >= smallest and asked < most:
        improved = False
        for one, two in [(i, j) for i in range(blocks) for j in range(blocks) if i != j]:
            tried = _handed(best, runs[one], runs[two], step)
            if tried is None or asked >= most:
                continue
            asked += 1
            found = objective(tried)
            if found > value:
                best, value, improved = tried, found, True
        step = step if improved else step / 2
    return Search(best, start, value, asked)


def _handed(fractions: np.ndarray, give: np.ndarray, take: np.ndarray, step: float) -> np.ndarray | None:
    """`step` of mean fraction, or as much as fits, from the layers `give` to `take`; None when nothing fits."""
    sizes = len(give), len(take)
    amount = min(step * min(sizes), fractions[give[0]] * sizes[0], (1.0 - fractions[take[0]]) * sizes[1])
    if amount < 1e-9:
        return None
    moved = fractions.copy()
    moved[give] -= amount / sizes[0]
    moved[take] += amount / sizes[1]
    return np.clip(moved, 0.0, 1.0)


@dataclass(frozen=True)
class Rule:
    """How a mixture is chosen: the most safety with capability at least `floor`, or `weight` of safety against capability.

    (theory 6.7.) Exactly one of the two is set. Capability is a change from the base, so a floor is usually below 0.
    """

    floor: float | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        if (self.floor is None) == (self.weight is None):
            raise AligntaxError("give one of --capability-floor and --weight, not both")
        if self.weight is not None and not 0.0 <= self.weight <= 1.0:
            raise AligntaxError(f"--weight {self.weight}: give a number from 0 (capability only) to 1 (safety only)")

    @property
    def name(self) -> str:
        """`capability_floor` or `weight`."""
        return "weight" if self.floor is None else "capability_floor"

    @property
    def value(self) -> float:
        """The floor or the weight."""
        return float(self.weight if self.floor is None else self.floor)  # type: ignore[arg-type]

    def score(self, safety: float, capability: float) -> float:
        """What is maximised; nan, which is never chosen, where the floor is not met."""
        if self.floor is None:
            assert self.weight is not None
            return self.weight * safety + (1.0 - self.weight) * capability
        return safety if capability >= self.floor else float("nan")

    def slope(self, safety: float, capability: float) -> float:
        """The same for a search, which must find its way back: below the floor, how far below, less a large constant."""
        found = self.score(safety, capability)
        assert self.floor is not None or np.isfinite(found)
        return found if np.isfinite(found) else 1e6 * (capability - float(self.floor or 0.0)) - 1e9


def pick(rule: Rule, points: Sequence[tuple[float, float]]) -> int:
    """Index of the best of `(safety, capability)` points; ties go to the first.

    Raises AligntaxError when none meets the floor, and says how near the best came.
    """
    scores = np.array([rule.score(*point) for point in points])
    if not np.isfinite(scores).any():
        nearest = max(capability for _, capability in points)
        raise AligntaxError(
            f"--capability-floor {rule.floor}: the best mixture reaches {nearest:.4g} on validation items; lower the floor"
        )
    return int(np.nanargmax(scores))
