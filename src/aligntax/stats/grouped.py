"""Sums over disjoint groups of items: the one statistic from which every direction and its error bar is computed.

Why sums and not means: sums add. A shard of the data yields a `GroupSums`, shards merge into the whole, and the result
does not depend on how the items were cut or ordered, except for float64 rounding (counts are exact).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aligntax.errors import AligntaxError, NonFiniteError


@dataclass(frozen=True, eq=False)
class GroupSums:
    """Per-group sums of vectors and the number of items behind each; a commutative monoid under `merge`.

    Every operation returns a new value and leaves its inputs unchanged. `empty` is the identity. Any split of the items
    into batches and any order of updates and merges gives equal sums, to float64 rounding, and equal counts, exactly.

    sums: (J, *shape) float64, in the unit of the values. counts: (J,) int64, items.

    >>> batch = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    >>> GroupSums.empty(2, (2,)).update(batch, np.array([0, 0, 1])).means().tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse sums and counts that disagree on the number of groups."""
        if self.counts.ndim != 1 or self.sums.shape[:1] != self.counts.shape:
            raise AligntaxError(
                f"sums {self.sums.shape} and counts {self.counts.shape} disagree; both need one entry per group"
            )

    @classmethod
    def empty(cls, groups: int, shape: tuple[int, ...]) -> GroupSums:
        """The identity: `groups` groups without items, for values of `shape`. Raises AligntaxError below one group."""
        if groups < 1:
            raise AligntaxError(f"groups={groups}; give at least 1 (8 for error bars)")
        return cls(np.zeros((groups, *shape)), np.zeros(groups, dtype=np.int64))

    @property
    def groups(self) -> int:
        """J, the number of groups."""
        return len(self.counts)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one item's value."""
        return self.sums.shape[1:]

    def update(self, values: NDArray, groups: NDArray) -> GroupSums:
        """Add items: `values` (n, *shape), `groups` (n,) int in [0, J).

        Raises AligntaxError on a shape or group that does not fit, NonFiniteError on nan or infinity.
        """
        values, groups = np.asarray(values, dtype=np.float64), np.asarray(groups)
        if values.shape[1:] != self.shape or groups.shape != values.shape[:1]:
            raise AligntaxError(
                f"values {values.shape} with groups {groups.shape} do not fit items of shape {self.shape}; "
                "give (n, *shape) and (n,)"
            )
        if not len(values):
            return self
        if not np.issubdtype(groups.dtype, np.integer) or groups.min() < 0 or groups.max() >= self.groups:
            raise AligntaxError(
                f"groups of type {groups.dtype} from {groups.min()} to {groups.max()}; "
                f"give integers from 0 to {self.groups - 1}"
            )
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            raise NonFiniteError(f"item {int(np.argmin(finite))} of the batch holds nan or infinity; drop or mend it")
        sums = self.sums.copy()
        np.add.at(sums, groups, values)
        return GroupSums(sums, self.counts + np.bincount(groups, minlength=self.groups))

    def merge(self, other: GroupSums) -> GroupSums:
        """The statistic of both sets of items together. Raises AligntaxError when groups or shapes differ."""
        if self.sums.shape != other.sums.shape:
            raise AligntaxError(f"cannot merge sums {self.sums.shape} with {other.sums.shape}; use one J and one shape")
        return GroupSums(self.sums + other.sums, self.counts + other.counts)

    def means(self) -> NDArray[np.float64]:
        """Mean of each group, (J, *shape). Raises AligntaxError when a group holds no item: its mean is undefined."""
        self.require(minimum=1)
        return self.sums / self.counts.reshape(-1, *(1,) * len(self.shape))

    def mean(self) -> NDArray[np.float64]:
        """Mean over all items, (*shape); items weigh equally, so groups weigh by their size. Raises without items."""
        total = int(self.counts.sum())
        if total == 0:
            raise AligntaxError("the mean of 0 items is undefined; update with at least one item")
        return self.sums.sum(axis=0) / total

    def at(self, index: int) -> GroupSums:
        """The same items, reduced to entry `index` of the shape's first axis (a layer)."""
        if not self.shape or not -self.shape[0] <= index < self.shape[0]:
            raise AligntaxError(f"index {index} is outside items of shape {self.shape}; its first axis is the one cut")
        return GroupSums(self.sums[:, index].copy(), self.counts.copy())

    def require(self, minimum: int = 2, name: str = "these items") -> GroupSums:
        """Return self if every group holds at least `minimum` items, else raise AligntaxError naming thing and mend."""
        if self.counts.min() < minimum:
            raise AligntaxError(
                f"{name}: {int(self.counts.sum())} items leave {int(self.counts.min())} in the smallest of "
                f"{self.groups} groups, need {minimum}; use fewer groups or more items"
            )
        return self
