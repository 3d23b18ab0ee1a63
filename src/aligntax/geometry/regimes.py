"""One word per task for the reader of a bill ([G] §9.3, with *free* tied to a test instead of a threshold)."""

import math
from typing import Literal

from aligntax.errors import GeometryError

Regime = Literal["free", "tradeoff", "entangled", "unranked"]

MIN_RELIABILITY = 0.3
ENTANGLED_ABOVE = 0.5


def regime(significant: bool, tax: float, tax_low: float, reliability: float) -> Regime:
    """Regime of one task.

    `unranked`: reliability below .3 or any undefined number, nothing can be said. `free`: the tax is not
    distinguishable from incidental overlap (`significant` is the corrected test against the control tasks).
    `entangled`: the interval of the tax lies above 0.5 (`tax_low > .5`): more than half of the safety direction is
    that task. `tradeoff`: the rest. Raises GeometryError where `tax_low` exceeds `tax`.
    """
    if any(math.isnan(x) for x in (tax, tax_low, reliability)) or reliability < MIN_RELIABILITY:
        return "unranked"
    if tax_low > tax:
        raise GeometryError(f"tax_low {tax_low} exceeds tax {tax}; give the lower end of the interval")
    if not significant:
        return "free"
    return "entangled" if tax_low > ENTANGLED_ABOVE else "tradeoff"
