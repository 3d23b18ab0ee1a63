"""Does the first order hold? Steer for real on held-out items and compare with the forecast (issue: linearity check).

Gradients come from other items than those scored here, and KL is measured at every budget. `predicted` is
`<mean gradient, delta>` in the metric's unit; `measured` the mean paired change over held-out items; `noise` its standard
error. The validity radius is the largest budget up to which `sum|measured - predicted| / sum|measured|` over tasks stays
below .2 after the noise floor: what the sampling of items alone would give is taken off the numerator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..probing import FromLayer, KlMeter, Metric, item_values, sum_rows
from ..results import Linearity, LinearityPoint
from ..stats import Estimate, pearson, slope_through_origin
from .gather import Workbench, rows_key
from .materials import TaskRows

LIMIT = 0.2


@dataclass(frozen=True)
class Course:
    """A direction to steer along: unit vector `(d,)`, layer, and a length known to cost `nats`."""

    name: str
    unit: np.ndarray
    layer: int
    length: float
    nats: float


@dataclass(frozen=True)
class Steering:
    """Steers held-out items along courses; `gradients[task]` are group means `(J, d)` at the course's layer.

    `slope` is the predicted gain of refusal log-odds per unit of length along the safety course.
    """

    bench: Workbench
    kl: KlMeter
    tasks: Sequence[TaskRows]
    gradients: Mapping[str, np.ndarray]
    refusal: tuple[Metric, str, Sequence]
    slope: float
    kept: dict[str, FromLayer] = field(default_factory=dict)

    def _values(self, task: TaskRows, shift: np.ndarray | None, layer: int) -> np.ndarray:
        """Metric of every held-out item; the blocks below `layer` run once for all shifts."""
        rows = task.heldout.rows
        metric, label = self.bench.metric(task.task.name)
        none = np.zeros(self.bench.probe.shape[1])
        moved = torch.as_tensor(none if shift is None else shift, dtype=torch.float32, device=self.bench.probe.device)

        def make() -> dict[str, np.ndarray]:
            if task.task.name not in self.kept:
                self.kept[task.task.name] = FromLayer(self.bench.probe, rows, layer)
            return {"values": self.kept[task.task.name].values(metric, moved).numpy()}

        key = (label, rows_key(rows), None if shift is None else shift.round(6).tolist(), layer)
        values = self.bench.store.get(f"steered-{task.task.name}", key, make)["values"]
        return sum_rows(rows, values, len(task.heldout.keys))

    def solved(self, course: Course, nats: float) -> tuple[float, float]:
        """Length along `course` that costs `nats`, and the KL that was measured there."""
        guess = course.length * np.sqrt(nats / course.nats)

        def make() -> dict[str, np.ndarray]:
            solved = self.kl.solve(course.unit, course.layer, nats, float(guess))
            return {"solved": np.array([solved.norm, solved.kl])}

        key = (course.unit.round(6).tolist(), course.layer, nats, rows_key(self.kl.texts))
        norm, kl = self.bench.store.get("budget", key, make)["solved"].tolist()
        return norm, kl

    def refusal_gain(self, course: Course, norm: float) -> float:
        """Mean change of refusal log-odds (nats) on the final prompts."""
        metric, label, rows = self.refusal
        shift = torch.as_tensor(course.unit * norm, dtype=torch.float32, device=self.bench.probe.device)

        def base() -> dict[str, np.ndarray]:
            return {"values": item_values(self.bench.probe, rows, metric)}

        def moved() -> dict[str, np.ndarray]:
            return {"values": item_values(self.bench.probe, rows, metric, shift, course.layer)}

        store, texts = self.bench.store, rows_key(rows)
        before = store.get("refusal-before", (label, texts), base)["values"]
        key = (label, course.unit.round(6).tolist(), norm, course.layer, texts)
        return float((store.get("refusal-after", key, moved)["values"] - before).mean())

    def points(self, course: Course, nats: float) -> list[LinearityPoint]:
        """Every task at one budget."""
        norm, kl = self.solved(course, nats)
        shift = course.unit * norm
        found = []
        for task in self.tasks:
            if not task.heldout.keys:
                continue
            change = self._values(task, shift, course.layer) - self._values(task, None, course.layer)
            groups = self.gradients[task.task.name] @ shift
            spread = groups.var(ddof=1) / len(groups) + change.var(ddof=1) / len(change)
            found.append(
                LinearityPoint(
                    course.name,
                    task.task.name,
                    nats,
                    kl,
                    float(groups.mean()),
                    float(change.mean()),
                    float(np.sqrt(spread)),
                )
            )
        return found


def relative_error(points: Sequence[LinearityPoint]) -> float:
    """`sum|measured - predicted| / sum|measured|` over tasks, after the noise floor; nan where noise decides.

    A normal error of standard deviation s has mean absolute value `s sqrt(2/pi)`; the sum of these is what sampling of
    items alone would give, and is taken off the numerator. Where the measured changes together are less than twice
    that floor, nothing can be said at this budget.
    """
    floor = np.sqrt(2 / np.pi) * sum(p.noise for p in points)
    size = sum(abs(p.measured) for p in points)
    if size < 2 * floor:
        return float("nan")
    return float(max(sum(abs(p.measured - p.predicted) for p in points) - floor, 0.0) / size)


def validity_radius(errors: Mapping[float, float]) -> float:
    """Largest budget such that it and all smaller ones (nan ones apart) have an error below .2; nan when there is none."""
    radius = float("nan")
    for nats in sorted(errors):
        if np.isnan(errors[nats]):
            continue
        if errors[nats] >= LIMIT:
            break
        radius = nats
    return radius


def curvature(points: Sequence[LinearityPoint]) -> float:
    """Least-squares `c` of `measured = predicted + c predicted |predicted|`, per unit of the metric; negative: bends down."""
    x = np.array([p.predicted * abs(p.predicted) for p in points])
    y = np.array([p.measured - p.predicted for p in points])
    return float(x @ y / (x @ x)) if x @ x > 0 else float("nan")


def check(steering: Steering, safety: Course, random: Course, budgets: Sequence[float]) -> Linearity:
    """Steer along both courses at every budget and sum up."""
    rng = np.random.default_rng(steering.bench.seed)
    by_course: dict[str, dict[float, list[LinearityPoint]]] = {safety.name: {}, random.name: {}}
    gains: dict[str, float | None] = {}
    promised: dict[str, float | None] = {}
    for course in (safety, random):
        for nats in budgets:
            by_course[course.name][nats] = steering.points(course, nats)
            if course is safety:
                norm, _ = steering.solved(course, nats)
                gains[f"{nats:g}"] = steering.refusal_gain(course, norm)
                promised[f"{nats:g}"] = steering.slope * norm
    mine, other = by_course[safety.name], by_course[random.name]
    flat = [p for points in mine.values() for p in points]
    nearest = min(budgets, key=lambda nats: abs(np.log(nats / safety.nats)))
    at, off = _pairs(mine[nearest]), _pairs(other[nearest])
    r, random_r = _correlation(at, rng), _correlation(off, rng)
    errors = {nats: relative_error(points) for nats, points in mine.items()}
    return Linearity(
        correlation=r.value,
        correlation_low=r.low,
        correlation_high=r.high,
        slope=_slope(at, rng),
        slope_by_budget={f"{n:g}": _slope(_pairs(p), rng) for n, p in mine.items()},
        error_by_budget={f"{n:g}": e for n, e in errors.items()},
        curvature=curvature(flat),
        validity_radius_nats=validity_radius(errors),
        smallest_budget_nats=min(budgets),
        random_correlation=random_r.value,
        random_slope=_slope(off, rng),
        random_validity_radius_nats=validity_radius({n: relative_error(p) for n, p in other.items()}),
        refusal_gain_by_budget=gains,
        points=flat + [p for points in other.values() for p in points],
        refusal_predicted_by_budget=promised,
    )


def _correlation(pairs: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> Estimate:
    # Two points always correlate perfectly, so fewer than three tasks have no correlation.
    return pearson(*pairs, rng) if len(pairs[0]) > 2 else Estimate(*[float("nan")] * 4)


def _slope(pairs: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> float:
    return slope_through_origin(*pairs, rng).value if len(pairs[0]) > 1 else float("nan")


def _pairs(points: Sequence[LinearityPoint]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p.predicted for p in points]), np.array([p.measured for p in points])
