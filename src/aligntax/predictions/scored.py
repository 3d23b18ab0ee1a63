"""What every protocol hands back, and the one rule that turns intervals into a verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..results.prediction import Cell, Verdict
from ..stats import Estimate
from .protocol import Protocol

UNDEFINED = Estimate(np.nan, np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Scored:
    """A prediction against its baselines. Fields as in `results.Prediction`; intervals at the protocol's level."""

    estimate: Estimate
    baselines: dict[str, Estimate]
    ahead: Estimate
    p_value: float
    verdict: Verdict
    reason: str
    n: dict[str, int]
    seeds: list[int] = field(default_factory=list)
    reliability: dict[str, float] = field(default_factory=dict)
    negatives: list[str] = field(default_factory=list)
    tables: dict[str, list[dict[str, Cell]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def decide(
    protocol: Protocol, estimate: Estimate, ahead: Estimate, p_value: float, n: Mapping[str, int]
) -> tuple[Verdict, str]:
    """Verdict and its reason by the rule of `protocol`: too few units come first, then what contradicts, then what supports.

    `ahead` is the estimate minus the best baseline. Undefined intervals leave it undecided.
    """
    few = shortage(protocol, n)
    if few:
        return "undecided", few
    if ahead.high < 0 or estimate.high < 0:
        which = "the estimate" if estimate.high < 0 else "estimate minus best baseline"
        return "contradicted", f"the interval of {which} lies below 0"
    if ahead.low > 0 and estimate.low > 0 and p_value <= 0.05:
        return "supported", f"the interval of estimate minus best baseline lies above 0, p = {p_value:.3g}"
    if not np.isfinite([ahead.low, ahead.high]).all():
        return "undecided", "the lead over the best baseline is undefined"
    if ahead.low > 0:
        return "undecided", f"ahead of the best baseline, yet p = {p_value:.3g}"
    return "undecided", "the interval of estimate minus best baseline holds 0"


def shortage(protocol: Protocol, n: Mapping[str, int]) -> str:
    """Which least count is missed, in words; empty where all are reached."""
    missed = [
        f"{n.get(name, 0)} {name} of at least {least}" for name, least in protocol.least if n.get(name, 0) < least
    ]
    return f"too few to decide: {', '.join(missed)}" if missed else ""


def empty(protocol: Protocol, n: Mapping[str, int], warning: str) -> Scored:
    """Nothing to score yet: undecided, with undefined numbers."""
    return Scored(
        UNDEFINED, {}, UNDEFINED, np.nan, "undecided", shortage(protocol, n) or warning, dict(n), warnings=[warning]
    )
