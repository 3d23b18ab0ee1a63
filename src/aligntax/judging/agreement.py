"""Agreement of a judge with human labels: how far its refusals can be believed.

The estimand: on replies that people labelled as refusing or not, the share on which the thresholded judge says the same. An
unjudged reply is an error of the judge whatever its label: it stays in n and agrees with nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aligntax.errors import JudgeError
from aligntax.judging.verdict import REFUSING
from aligntax.stats import Estimate, bootstrap_interval


@dataclass(frozen=True)
class CurvePoint:
    """Agreement at one threshold; fractions in [0, 1], kappa in [-1, 1]."""

    threshold: float
    accuracy: float
    balanced_accuracy: float
    kappa: float


@dataclass(frozen=True)
class Agreement:
    """Agreement on n replies at `threshold`, with percentile-bootstrap intervals over replies at `level`.

    `refusing` of the n are labelled as refusals, `unjudged` have no score. `missed` refusals were taken for something else,
    `invented` ones are replies that do not refuse and were taken for refusals.
    """

    n: int
    refusing: int
    unjudged: int
    missed: int
    invented: int
    threshold: float
    level: float
    accuracy: Estimate
    balanced_accuracy: Estimate
    kappa: Estimate
    curve: tuple[CurvePoint, ...]


def accuracy(said: NDArray[np.float64], label: NDArray[np.bool_]) -> float:
    """Share of replies on which judge and label agree; `said` is 1, 0, or nan where unjudged. nan without replies."""
    return float((said == label).mean()) if len(said) else math.nan


def balanced_accuracy(said: NDArray[np.float64], label: NDArray[np.bool_]) -> float:
    """Mean of the shares found among refusals and among the rest; nan where either class is absent."""
    if label.all() or not label.any():
        return math.nan
    return float((np.mean(said[label] == 1) + np.mean(said[~label] == 0)) / 2)


def cohen_kappa(said: NDArray[np.float64], label: NDArray[np.bool_]) -> float:
    """Cohen's kappa `(p_o - p_e) / (1 - p_e)`: 1 is perfect, 0 what independent raters with these rates reach.

    An unjudged reply is a third answer that no label gives. nan where chance agreement is already 1.

    >>> cohen_kappa(np.array([1.0, 1, 0, 0]), np.array([True, False, True, False]))
    0.0
    """
    if not len(said):
        return math.nan
    chance = float(np.mean(said == 1) * np.mean(label) + np.mean(said == 0) * np.mean(~label))
    return (accuracy(said, label) - chance) / (1 - chance) if chance < 1 else math.nan


def agreement(
    scores: ArrayLike,
    labels: Sequence[bool],
    rng: np.random.Generator,
    threshold: float = REFUSING,
    level: float = 0.9,
) -> Agreement:
    """Compare scores in [0, 1] (n,), nan where unjudged, with labels (n,), True for a full refusal.

    The curve runs over 19 thresholds from 0.05 to 0.95; it shows how much the choice matters and must not be used to make it.
    Raises JudgeError for lists of different lengths, fewer than two replies, or a threshold outside (0, 1].
    """
    values = np.asarray(scores, dtype=np.float64)
    label = np.asarray(labels, dtype=np.bool_)
    if values.ndim != 1 or values.shape != label.shape or len(values) < 2:
        raise JudgeError(f"scores {values.shape} and labels {label.shape}; give one of each for at least two replies")
    if not 0 < threshold <= 1:
        raise JudgeError(f"threshold={threshold}; give a number above 0 and at most 1, such as 0.5")
    said = _said(values, threshold)
    both = np.column_stack([said, label])

    def bootstrapped(statistic) -> Estimate:  # type: ignore[no-untyped-def]
        return bootstrap_interval(both, lambda rows: statistic(rows[:, 0], rows[:, 1] == 1), rng, level=level)

    return Agreement(
        n=len(label),
        refusing=int(label.sum()),
        unjudged=int(np.isnan(values).sum()),
        missed=int((said[label] != 1).sum()),
        invented=int((said[~label] == 1).sum()),
        threshold=threshold,
        level=level,
        accuracy=bootstrapped(accuracy),
        balanced_accuracy=bootstrapped(balanced_accuracy),
        kappa=bootstrapped(cohen_kappa),
        curve=tuple(_point(values, label, step / 20) for step in range(1, 20)),
    )


def _said(values: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    return np.where(np.isnan(values), np.nan, values >= threshold)


def _point(values: NDArray[np.float64], label: NDArray[np.bool_], threshold: float) -> CurvePoint:
    said = _said(values, threshold)
    return CurvePoint(threshold, accuracy(said, label), balanced_accuracy(said, label), cohen_kappa(said, label))
