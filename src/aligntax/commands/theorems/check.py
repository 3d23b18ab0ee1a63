"""One row of the table that `aligntax theory` prints."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """`error` is the largest deviation found between `computed` and `oracle`, in the unit both share.

    `item` is the number in the theory ("1.3"), `statement` says it in short, `computed` names the public function and on
    what it ran, `oracle` the independent way. Passes when `error <= tolerance`; nan never passes. Statistical rows state
    the error in standard errors.
    """

    item: str
    statement: str
    computed: str
    oracle: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """True where the two agree."""
        return not math.isnan(self.error) and self.error <= self.tolerance


Row = Callable[[], Check]
"""A check that has not run yet; fixed seeds, so that it gives the same numbers every time."""
