"""How well two classes can be told apart by a straight line through what a model holds of them, before any training.

Trained refusals must tell harmful requests from harmless ones by what the network represents. A linear readout, always scored on
prompts it has not seen, says how far the untrained network gets: the share of harmful prompts caught while a given share
of the others is caught with them. It is a reference, not a bound: training may sharpen what the network represents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aligntax.errors import AligntaxError
from aligntax.stats.association import area_under_curve
from aligntax.stats.resample import Estimate

Array = NDArray[np.float64]
FOLDS = 5
DRAWS = 400
HALVES = 2
"""Random halves of the training prompts that say what the other half is worth."""


@dataclass(frozen=True)
class Readout:
    """`auc` in [0, 1], .5 by chance; `caught[k]` the share of positives above the score that `shares[k]` of negatives pass.

    Scores `(n,)` and `(m,)` are out of fold; `layers` `(folds,)` were chosen inside each training part. `doubling`: `auc` less that
    of readouts fitted on half as many prompts. Intervals (90%) resample prompts, so they say how far other prompts would differ,
    not other training prompts.
    """

    auc: Estimate
    shares: tuple[float, ...]
    caught: tuple[Estimate, ...]
    positive: Array
    negative: Array
    layers: tuple[int, ...]
    doubling: Estimate


def linear_readout(positive: Array, negative: Array, shares: Sequence[float] = (0.05, 0.1), seed: int = 0) -> Readout:
    """Ridge readout of states `(n, L, d)` against `(m, L, d)`, five-fold; the layer is chosen in each fold's training part alone.

    The ridge is the mean eigenvalue of the training Gram matrix, for lack of data to tune it. Raises AligntaxError for shapes that
    do not belong together, a share outside (0, 1), or fewer than 10 prompts of a class.
    """
    a, b = _states(positive, negative)
    if not all(0 < share < 1 for share in shares):
        raise AligntaxError(f"shares {list(shares)}: give numbers in (0, 1)")
    label = np.r_[np.ones(len(a)), np.zeros(len(b))].astype(bool)
    rng, more = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    grams = np.stack([x @ x.T for x in np.concatenate([a, b]).transpose(1, 0, 2)])
    score, half, layers = np.zeros(len(label)), np.zeros((HALVES, len(label))), []
    fold = _folds(label, FOLDS, rng)
    for k in range(FOLDS):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        score[test], layer = _fitted(grams, label, train, test, rng)
        layers.append(layer)
        for draw in half:
            part = train[_folds(label[train], 2, more) == 0]
            draw[test] = _fitted(grams, label, part, test, more)[0]
    up, down = score[label], score[~label]
    numbers = _numbers(up, down, shares)
    draws = np.array([_numbers(rng.choice(up, up.size), rng.choice(down, down.size), shares) for _ in range(DRAWS)])
    ends = (*np.quantile(draws, [0.05, 0.95], axis=0), draws.std(axis=0, ddof=1))
    found = [Estimate(*(float(v) for v in row)) for row in zip(numbers, *ends, strict=True)]
    doubling = _doubling(np.vstack([score, half]), label, more)
    return Readout(found[0], tuple(shares), tuple(found[1:]), up, down, tuple(layers), doubling)


def read_out(positive: Array, negative: Array, others: Array, seed: int = 0) -> tuple[Array, int]:
    """Scores `(k,)` of states `(k, L, d)` by the readout of `(n, L, d)` against `(m, L, d)`, higher for positive, and its layer.

    Which training requests teach a model whom to refuse shows before training: read them, and score prompts that are in none
    of them. The layer is chosen by cross-validation within the two classes. Raises AligntaxError as `linear_readout` does.
    """
    a, b = _states(positive, negative)
    c = np.asarray(others, dtype=float)
    if c.ndim != 3 or c.shape[1:] != a.shape[1:]:
        raise AligntaxError(f"states {c.shape} to score beside {a.shape}: give (k, L, d), with the same L and d")
    label = np.r_[np.ones(len(a)), np.zeros(len(b) + len(c))].astype(bool)
    train, test = np.split(np.arange(len(label)), [len(a) + len(b)])
    grams = np.stack([x @ x.T for x in np.concatenate([a, b, c]).transpose(1, 0, 2)])
    return _fitted(grams, label, train, test, np.random.default_rng(seed))


def _states(positive: Array, negative: Array) -> tuple[Array, Array]:
    a, b = np.asarray(positive, dtype=float), np.asarray(negative, dtype=float)
    if a.ndim != 3 or b.ndim != 3 or a.shape[1:] != b.shape[1:]:
        raise AligntaxError(f"states {a.shape} and {b.shape}: give (n, L, d) of both classes, with the same L and d")
    if min(len(a), len(b)) < 2 * FOLDS:
        raise AligntaxError(
            f"{len(a)} and {len(b)} prompts: a readout in {FOLDS} folds needs {2 * FOLDS} of each class"
        )
    return a, b


def _fitted(
    grams: Array, label: NDArray[np.bool_], train: NDArray[np.int64], test: NDArray[np.int64], rng: np.random.Generator
) -> tuple[Array, int]:
    """Scores of `test` by a readout of `train`, and its layer, chosen within `train`."""
    inner = _folds(label[train], FOLDS - 1, rng)
    layer = int(np.argmax([_inner_auc(gram[np.ix_(train, train)], label[train], inner) for gram in grams]))
    return _ridge(grams[layer], label, train, test), layer


def _doubling(scores: Array, label: NDArray[np.bool_], rng: np.random.Generator) -> Estimate:
    """What all training prompts bring beyond half of them; `scores` `(1 + HALVES, n)`, that of all first."""
    up, down = np.flatnonzero(label), np.flatnonzero(~label)

    def gain(chosen: NDArray[np.int64]) -> float:
        full, *halves = (area_under_curve(row[chosen], label[chosen]) for row in scores)
        return full - float(np.mean(halves))

    draws = [gain(np.r_[rng.choice(up, up.size), rng.choice(down, down.size)]) for _ in range(DRAWS)]
    low, high = np.quantile(draws, [0.05, 0.95])
    return Estimate(gain(np.r_[up, down]), float(low), float(high), float(np.std(draws, ddof=1)))


def caught_at(positive: Array, negative: Array, share: float) -> float:
    """Share of positives above the lowest threshold that at most `share` of the negatives pass."""
    allowed = int(np.floor(share * len(negative) + 1e-9))
    threshold = np.sort(negative)[::-1][allowed]
    return float((positive > threshold).mean())


def _numbers(up: Array, down: Array, shares: Sequence[float]) -> list[float]:
    positive = np.r_[np.ones(up.size), np.zeros(down.size)]
    return [area_under_curve(np.r_[up, down], positive), *(caught_at(up, down, share) for share in shares)]


def _folds(label: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A fold `(n,)` for every prompt, each class spread evenly."""
    fold = np.zeros(len(label), dtype=np.int64)
    for kind in (True, False):
        own = rng.permutation(np.flatnonzero(label == kind))
        fold[own] = np.arange(len(own)) % count
    return fold


def _inner_auc(gram: Array, label: NDArray[np.bool_], fold: NDArray[np.int64]) -> float:
    score = np.zeros(len(label))
    for k in range(int(fold.max()) + 1):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        score[test] = _ridge(gram, label, train, test)
    return area_under_curve(score, label)


def _ridge(gram: Array, label: NDArray[np.bool_], train: NDArray[np.int64], test: NDArray[np.int64]) -> Array:
    """Scores of `test` by a ridge fit of `train`, both classes of equal weight; `gram` `(n, n)` of uncentred states."""
    share = label[train].mean()
    weight = np.where(label[train], 0.5 / share, 0.5 / (1 - share)) / len(train)
    middle = gram[:, train] @ weight
    centre = float(weight @ middle[train])
    own = gram[np.ix_(train, train)] - middle[train][:, None] - middle[train][None] + centre
    cross = gram[np.ix_(test, train)] - middle[test][:, None] - middle[train][None] + centre
    root = np.sqrt(weight * len(train))
    ridge = float(np.trace(own)) / len(train)
    if ridge <= 1e-9 * float(gram.diagonal()[train].mean()):  # equal states: what is left is rounding, not to be read
        return np.zeros(len(test))
    target = np.where(label[train], 1.0, -1.0)
    solved = np.linalg.solve(root[:, None] * own * root[None] + ridge * np.eye(len(train)), root * target)
    return np.asarray(cross @ (root * solved))
