"""Intervals of whole curves by resampling prompts, all positions together: a response's tokens are not independent.

Curves are ratios of sums over prompts, so that prompts may have several responses and responses several lengths.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligntax.errors import AligntaxError
from aligntax.stats import Estimate

Array = NDArray[np.float64]

DRAWS, LEVEL = 2000, 0.9


@dataclass(frozen=True, eq=False)
class Band:
    """A curve `(D,)` with its percentile interval; nan where it is undefined."""

    mean: Array
    low: Array
    high: Array


@dataclass(frozen=True, eq=False)
class PromptDraws:
    """Resamples of prompts: `index` `(n,)` is the prompt of each row, `weights` `(draws, P)` how often each was drawn."""

    index: NDArray[np.int64]
    weights: Array
    level: float

    @classmethod
    def make(
        cls, prompts: NDArray[Any], rng: np.random.Generator, draws: int = DRAWS, level: float = LEVEL
    ) -> "PromptDraws":
        """Draw with replacement; `prompts` `(n,)` names the prompt of each row. Raises AligntaxError for no rows."""
        if not len(prompts) or draws < 2 or not 0 < level < 1:
            raise AligntaxError(
                f"{len(prompts)} rows, draws={draws}, level={level}; give rows, draws >= 2, level in (0, 1)"
            )
        _, index = np.unique(prompts, return_inverse=True)
        count = int(index.max()) + 1
        weights = rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(float)
        return cls(index, weights, level)

    @property
    def prompts(self) -> int:
        """Distinct prompts."""
        return self.weights.shape[1]

    def sums(self, values: Array) -> Array:
        """Sums over each prompt's rows `(P, ..)` of `values` `(n, ..)`, nan counted as 0."""
        total = np.zeros((self.prompts, *values.shape[1:]))
        np.add.at(total, self.index, np.where(np.isnan(values), 0.0, values))
        return total

    def means(self, values: Array) -> tuple[Array, Array]:
        """Mean over the rows that are not nan, `(D,)`, and the same in every draw, `(draws, D)`; `values` is `(n, D)`."""
        total, count = self.sums(values), self.sums(np.where(np.isnan(values), math.nan, 1.0))
        with np.errstate(invalid="ignore", divide="ignore"):
            return total.sum(axis=0) / count.sum(axis=0), (self.weights @ total) / (self.weights @ count)

    def band(self, values: Array) -> Band:
        """Mean of `values` `(n, D)` with its interval, nan with fewer than two prompts to resample."""
        mean, drawn = self.means(values)
        low, high = self.ends(drawn)
        return Band(mean, np.where(np.isnan(mean), math.nan, low), np.where(np.isnan(mean), math.nan, high))

    def ends(self, drawn: Array) -> tuple[Array, Array]:
        """Percentile ends `(D,)` of draws `(draws, D)`; undefined draws are left out, and where over 1 in 20 are, ends are nan."""
        if self.prompts < 2:
            return np.full(drawn.shape[1:], math.nan), np.full(drawn.shape[1:], math.nan)
        lost = np.isnan(drawn)
        usable = lost.mean(axis=0) <= 0.05
        tail = (1 - self.level) / 2
        kept = np.where(usable, drawn, 0.0)
        low, high = np.nanquantile(kept, [tail, 1 - tail], axis=0)
        return np.where(usable, low, math.nan), np.where(usable, high, math.nan)

    def estimate(self, value: float, drawn: Array) -> Estimate:
        """A number with its interval from draws `(draws,)` of it; nan where the value itself is undefined."""
        low, high = (float(end) for end in self.ends(drawn))
        if math.isnan(value) or math.isnan(low):
            return Estimate(value, math.nan, math.nan, math.nan)
        return Estimate(value, low, high, float(np.nanstd(drawn, ddof=1)))
