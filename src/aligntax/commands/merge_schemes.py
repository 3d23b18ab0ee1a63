"""Schemes of a merge: fractions as a function of their mean, which mixtures make a front, and which one is picked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import AligntaxError
from ..models.averaging import Fractions, update_norms
from ..results import LayerGeometry, LearnedFractions, MergePick, MergePoint
from .alignment_frontier import layer_gradients
from .merge_front import Bench
from .merge_sources import Pair
from .merging import Rule, pick, random_fractions, search_fractions, spend_by_layer, surveyed_yields


@dataclass(frozen=True)
class Scheme:
    """Fractions `at` a mean fraction, and where they came from. `only` is the one mean of given or learned ones."""

    name: str
    at: Callable[[float], Fractions]
    only: float | None = None
    geometry: Callable[[float], LayerGeometry] | None = None
    learned: LearnedFractions | None = None


def uniform_scheme(depth: int) -> Scheme:
    """The same fraction everywhere."""
    return Scheme("uniform", lambda mean: Fractions.uniform(mean, depth))


def random_scheme(depth: int, seed: int) -> Scheme:
    """Random fractions of equal mean, drawn anew for every mean: the control of per-layer averaging."""

    def at(mean: float) -> Fractions:
        drawn = random_fractions(mean, depth, np.random.default_rng([seed, round(1e6 * mean)]))
        return Fractions(tuple(drawn.tolist()), mean)

    return Scheme("random", at)


def given_scheme(fractions: Fractions) -> Scheme:
    """Fractions of the user, as they are."""
    return Scheme("given", lambda mean: fractions, only=fractions.mean)


def surveyed_scheme(pair: Pair, survey: Path) -> Scheme:
    """Fractions from a survey's layer yields and the lengths of the update (theory 1.15).

    Raises AligntaxError where the survey's direction is no gradient or its depth another.
    """
    yields = _yields(survey, pair.plan.depth)
    norms = update_norms(pair.base, pair.aligned, pair.plan)

    def at(wanted: float) -> Fractions:
        return Fractions(tuple(spend_by_layer(yields, norms, wanted).fractions.tolist()), wanted)

    def geometry(mean: float) -> LayerGeometry:
        spent = spend_by_layer(yields, norms, mean)
        return LayerGeometry(yields.tolist(), norms.tolist(), spent.ratio, spent.relative_length)

    return Scheme("per-layer", at, geometry=geometry)


def learned_scheme(bench: Bench, blocks: int, mean: float, rule: Rule) -> Scheme:
    """Fractions searched on validation items at a fixed mean, in `blocks` runs of layers."""

    def objective(layers: np.ndarray) -> float:
        point = bench.point("learned", Fractions(tuple(layers.tolist()), mean), "validation")
        return rule.slope(number(point.safety_gain), number(point.capability))

    found = search_fractions(objective, bench.pair.plan.depth, mean, blocks)
    learned = Fractions(tuple(found.fractions.tolist()), mean)
    told = LearnedFractions(blocks, found.evaluations, found.start, found.best)
    return Scheme("learned", lambda _: learned, only=mean, learned=told)


def mixtures(scheme: Scheme, points: int, depth: int, seed: int) -> dict[str, list[Fractions]]:
    """What the front shows: `points` uniform fractions, ends included; at each inner mean random ones and the scheme's own.

    A scheme that exists at one mean only is shown there, beside uniform and random fractions of that mean.
    """
    means = np.linspace(0.0, 1.0, points).tolist()
    if scheme.only is not None:
        means = sorted({*means, scheme.only})
    inner = [mean for mean in means if 0.0 < mean < 1.0]
    control = random_scheme(depth, seed)
    found = {"uniform": [Fractions.uniform(m, depth) for m in means], "random": [control.at(m) for m in inner]}
    if scheme.name not in found:
        found[scheme.name] = [scheme.at(m) for m in (inner if scheme.only is None else [scheme.only])]
    return found


def picked(scheme: Scheme, points: Sequence[MergePoint], rule: Rule) -> tuple[Fractions, MergePick]:
    """The scheme's best mixture by `rule` on validation items; base and aligned model themselves are candidates too."""
    held = [
        point
        for point in points
        if point.split == "validation"
        and (point.scheme == scheme.name or (point.scheme == "uniform" and point.fraction in (0.0, 1.0)))
    ]
    best = held[pick(rule, [(number(point.safety_gain), number(point.capability)) for point in held])]
    why = MergePick(rule.name, rule.value, best.scheme, best.fraction, best.split, best.safety_gain, best.capability)
    outside = scheme.at(best.fraction).outside if best.scheme == scheme.name else best.fraction
    return replace(Fractions.of_layers(best.layers), outside=outside), why


def number(value: float | None) -> float:
    """The number, nan for an undefined one."""
    return float("nan") if value is None else value


def _yields(survey: Path, depth: int) -> np.ndarray:
    _, gradients = layer_gradients(survey)
    safety = gradients.pop("safety")
    if len(safety) != depth:
        raise AligntaxError(f"--survey {survey} has {len(safety)} layers, the model {depth}; survey that model")
    return surveyed_yields(safety, [*gradients.values()])
