"""How much of the safety that could be had for what was paid was in fact had."""

from dataclasses import dataclass

from numpy.typing import ArrayLike

from aligntax.errors import GeometryError
from aligntax.geometry import Fisher, max_gain_at_changes
from aligntax.stats import Estimate


@dataclass(frozen=True)
class FrontierEfficiency:
    """`share` = measured gain / `frontier` gain, with the interval of the measured gain alone; nan where undefined, and the
    `reason` why.
    """

    share: Estimate
    frontier: float
    reason: str = ""


def frontier_efficiency(
    gain: Estimate,
    safety: ArrayLike,
    capabilities: ArrayLike,
    changes: ArrayLike,
    fisher: Fisher,
    nats: float,
) -> FrontierEfficiency:
    """Measured safety gain over the most that a shift at one layer gives for the same KL and the same capability changes.

    `safety` (d,) and `capabilities` (m, d) are gradients, `changes` (m,) the measured changes (negative = lost) in their metrics'
    units, `nats` the measured KL per response token, `gain` in the safety gradient's unit. First order, one layer: training moves
    all layers, so a share above 1 is possible and says that one layer's frontier was left. Undefined where that layer cannot make
    these changes within this KL, or gains nothing while doing so.
    """
    if not nats > 0:
        return FrontierEfficiency(_undefined(), float("nan"), f"KL is {nats} nats: nothing was spent")
    try:
        frontier, _ = max_gain_at_changes(safety, capabilities, changes, fisher, nats)
    except GeometryError as error:
        return FrontierEfficiency(_undefined(), float("nan"), str(error))
    if not frontier > 0:
        return FrontierEfficiency(_undefined(), frontier, f"the frontier's own gain is {frontier:.4g} at these changes")
    share = Estimate(gain.value / frontier, gain.low / frontier, gain.high / frontier, gain.se / frontier)
    return FrontierEfficiency(share, frontier)


def _undefined() -> Estimate:
    return Estimate(float("nan"), float("nan"), float("nan"), float("nan"))
