"""Four estimators of the safety direction, each as group means `(J, L, d)`, so that each has error bars.

`gradient` is the default. The tax is defined between gradients: `dS = <v, delta>` holds for the gradient of the safety metric
and for nothing else, and only then do gain and cost share units. `dim` and `probe` say where harmful and harmless
prompts *differ*; a direction can separate two classes perfectly and still not be a lever. Which of them steers best at equal
KL is measured, and shown beside the choice.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from ..errors import AligntaxError
from ..stats import GroupSums
from .gather import Gathered
from .materials import Objective

ESTIMATORS = ("gradient", "dim", "probe", "subspace")


@dataclass(frozen=True)
class Direction:
    """Group means `(J, L, d)` of one estimator; `position` counts back from the last template token (`-1` is the last)."""

    estimator: str
    position: str
    groups: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean over groups `(L, d)`."""
        return self.groups.mean(axis=0)


def gradient_direction(gathered: Gathered) -> Direction:
    """Mean gradient of the objective's metric, by group."""
    return Direction("gradient", "all", gathered.groups.means())


def difference_in_means(objective: Objective, positive: np.ndarray, negative: np.ndarray) -> list[Direction]:
    """Mean activation of the positive class minus the negative's, by group, for each of the P positions."""
    found = []
    groups = objective.positive.groups, objective.negative.groups
    count = int(max(groups[0].max(), groups[1].max())) + 1
    for p in range(positive.shape[1]):
        means = [
            GroupSums.empty(count, x.shape[2:]).update(x[:, p], g).means()
            for x, g in ((positive, _per_row(groups[0], positive)), (negative, _per_row(groups[1], negative)))
        ]
        found.append(Direction("dim", str(p - positive.shape[1]), means[0] - means[1]))
    return found


def _per_row(groups: np.ndarray, rows: np.ndarray) -> np.ndarray:
    # Reply pairs have one row an item unless several distractors were kept: these repeat their item's group.
    return groups if len(groups) == len(rows) else np.repeat(groups, len(rows) // len(groups))


def probe_direction(
    objective: Objective, positive: np.ndarray, negative: np.ndarray, layers: list[int]
) -> tuple[Direction, dict[int, float]]:
    """Logistic probes at the last position, one fitted in each group, and cross-validated accuracy by layer.

    A group's probe is its unit weight vector; a strong ridge stands in for the covariance that few prompts cannot give.
    """
    count = int(objective.positive.groups.max()) + 1
    x = np.concatenate([positive[:, -1], negative[:, -1]])
    y = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    member = np.concatenate(
        [_per_row(objective.positive.groups, positive), _per_row(objective.negative.groups, negative)]
    )
    weights = np.zeros((count, x.shape[1], x.shape[2]))
    accuracy: dict[int, float] = {}
    for layer in layers:
        values = x[:, layer].astype(np.float64)
        scale = values.std() or 1.0
        model = LogisticRegression(C=0.01, max_iter=200)
        folds = min(5, len(positive), len(negative))
        accuracy[layer] = float(cross_val_score(model, values / scale, y, cv=folds).mean())
        for group in range(count):
            own = member == group
            coefficients = model.fit(values[own] / scale, y[own]).coef_[0]
            weights[group, layer] = coefficients / np.linalg.norm(coefficients)
    return Direction("probe", "-1", weights), accuracy


def singular_values(gradient: Direction, layer: int) -> np.ndarray:
    """Singular values of the group gradients at `layer`, scaled so that their squares sum to 1; `(J,)`, descending."""
    values = np.linalg.svd(gradient.groups[:, layer], compute_uv=False)
    return values / np.linalg.norm(values)


def subspace(gradient: Direction, layer: int, rank: int) -> np.ndarray:
    """The `rank` leading right singular vectors `(d, rank)` of the group gradients at `layer`.

    Raises AligntaxError when there are fewer groups than `rank`.
    """
    if not 1 <= rank <= gradient.groups.shape[0]:
        raise AligntaxError(
            f"--rank {rank}: a subspace from {gradient.groups.shape[0]} groups has rank 1 to that; give more --groups"
        )
    return np.linalg.svd(gradient.groups[:, layer], full_matrices=False)[2][:rank].T
