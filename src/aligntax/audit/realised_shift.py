"""The shift that training made: how far it is one vector, where that vector points, and what it alone would cost.

From mean hidden states of the same texts under both models, layer by layer. `delta(x) = h_aligned(x) - h_base(x)`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aligntax.errors import DataError
from aligntax.stats import CosineTable, Estimate, estimate_cosines_from_grams, jackknife_each

Array = NDArray[np.float64]
GROUPS = 8


@dataclass(frozen=True)
class RealisedShift:
    """Per layer `(L,)`, each with a jackknife interval over groups of texts; nan where undefined.

    mean: `(L, d)`, activation units. relative_length: length of the mean shift over the mean length of base states. coherence:
    share of `mean |delta(x)|^2` that is the mean, noise taken out (may be negative). cosine: of mean shift and safety
    direction; empty without one. tax: task -> `-<gradient, mean shift>`, the first-order tax in the gradient's metric,
    positive = lost. chance: expected squared cosine of an isotropic direction, 1/d.
    """

    mean: Array
    relative_length: tuple[Estimate, ...]
    coherence: tuple[Estimate, ...]
    cosine: tuple[Estimate, ...]
    tax: dict[str, tuple[Estimate, ...]]
    texts: int
    chance: float


def realised_shift(
    base: ArrayLike,
    aligned: ArrayLike,
    safety: ArrayLike | None = None,
    gradients: Mapping[str, ArrayLike] | None = None,
    groups: int = GROUPS,
    level: float = 0.9,
) -> RealisedShift:
    """The shift from states `base` and `aligned` (n, L, d), with `safety` (L, d) and capability `gradients` (L, d) each.

    Lengths are debiased (`mean_{a != b} <delta_a, delta_b>`), so that noise over texts is no shift. Gradients must be those of the
    same kind of shift, and texts other than those that gave them. First order: says what the mean shift at one layer alone would
    cost; layers do not add. Raises DataError for shapes that disagree, values not finite, or fewer than `groups` texts.
    """
    old, new = _states(base, aligned, groups)
    delta = new - old
    layers, width = delta.shape[1:]
    direction = None if safety is None else _rows("safety", safety, layers, width)
    slopes = {name: _rows(name, each, layers, width) for name, each in (gradients or {}).items()}
    member = np.arange(len(delta)) % groups

    def numbers(kept: NDArray[np.int64]) -> Array:
        rows = np.isin(member, kept)
        return _numbers(delta[rows], old[rows], direction, list(slopes.values()))

    found = jackknife_each(numbers, groups, level)
    rows = [tuple(found[k : k + layers]) for k in range(0, len(found), layers)]
    after = 3 if direction is not None else 2
    return RealisedShift(
        mean=delta.mean(axis=0),
        relative_length=rows[0],
        coherence=rows[1],
        cosine=rows[2] if direction is not None else (),
        tax=dict(zip(slopes, rows[after:], strict=True)),
        texts=len(delta),
        chance=1 / width,
    )


def _states(base: ArrayLike, aligned: ArrayLike, groups: int) -> tuple[Array, Array]:
    old, new = (np.asarray(x, dtype=np.float64) for x in (base, aligned))
    if old.ndim != 3 or old.shape != new.shape or len(old) < max(groups, 3) or groups < 3:
        raise DataError(
            f"states {old.shape} and {new.shape}, groups={groups}; give (n, L, d) twice with n >= groups >= 3"
        )
    if not (np.isfinite(old).all() and np.isfinite(new).all()):
        raise DataError("hidden states hold nan or infinity; leave those texts out of both")
    return old, new


def _rows(name: str, value: ArrayLike, layers: int, width: int) -> Array:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != (layers, width) or not np.isfinite(array).all():
        raise DataError(f"{name} of shape {array.shape}; give finite ({layers}, {width}), a row for each layer")
    return array


def _numbers(delta: Array, old: Array, direction: Array | None, slopes: list[Array]) -> Array:
    """Relative length, coherence, cosine if any, then a tax for each gradient: `(L,)` each, end to end."""
    n, mean = len(delta), delta.mean(axis=0)
    size = np.square(delta).sum(axis=2).mean(axis=0)
    square = (n * np.square(mean).sum(axis=1) - size) / (n - 1)  # mean over pairs of different texts
    length = np.sqrt(np.where((square > 0) | (size == 0), square, np.nan))  # exactly no shift has length 0
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [length / np.linalg.norm(old, axis=2).mean(axis=0), square / np.where(size > 0, size, np.nan)]
        if direction is not None:
            scale = np.where(length > 0, length, np.nan) * np.linalg.norm(direction, axis=1)
            parts.append((mean * direction).sum(axis=1) / scale)
    parts += [-(mean * slope).sum(axis=1) for slope in slopes]
    return np.concatenate(parts)


@dataclass(frozen=True)
class DirectionTurn:
    """How far a direction turned: debiased `cosine` per layer and the `angle` `(L,)` in radians; nan where undefined.

    `chance`: expected squared cosine of unrelated isotropic directions, 1/d.
    """

    cosine: CosineTable
    angle: Array
    chance: float


def direction_turn(before: ArrayLike, after: ArrayLike, level: float = 0.9) -> DirectionTurn:
    """Angle between a direction of the base model and the same contrast's in the aligned one, from group means (J, L, d).

    One partition of prompts for both. Raises DataError for shapes that disagree or J < 3.
    """
    old, new = (np.moveaxis(np.asarray(x, dtype=np.float64), 0, 1) for x in (before, after))
    if old.ndim != 3 or old.shape != new.shape or old.shape[1] < 3:
        raise DataError(
            f"directions {np.shape(before)} and {np.shape(after)}; give group means (J, L, d) twice with J >= 3"
        )
    old_t, new_t = np.swapaxes(old, 1, 2), np.swapaxes(new, 1, 2)
    table = estimate_cosines_from_grams(old @ old_t, old @ new_t, new @ new_t, level)
    return DirectionTurn(table, np.arccos(np.clip(table.value, -1.0, 1.0)), 1 / old.shape[2])
