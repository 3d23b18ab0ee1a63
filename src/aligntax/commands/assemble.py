"""One survey, phase by phase: run what needs the model, then fill the tables.

Order matters only where a phase needs another's result: sinks before every gradient, replies before KL, the layer
before steering. Each phase's tokens are counted and timed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from ..models import LoadedModel
from ..probing import KlMeter, response_length, sum_rows, tokens_of
from ..results import (
    Controls,
    FisherInfo,
    Linearity,
    Phase,
    Provenance,
    RefusalToken,
    Selection,
    Survey,
    TaskInfo,
)
from ..stats.resample import t_quantile
from .analysis import Evidence, control_taxes, cosines, layer_row, task_rows
from .conflicts import conflict_rows, joint_conflict
from .estimators import Direction, difference_in_means, gradient_direction, probe_direction, singular_values
from .gather import (
    Gathered,
    Workbench,
    objective_metric,
)
from .linearity import Course, Steering, check
from .materials import Materials, TaskRows
from .phases import Raw, run_model
from .plan import linearity_tokens, selection_tokens
from .provenance import provenance
from .readout import readout_record
from .remarks import extra_of, warnings_of
from .selection import Trials, promising, select
from .tables import agreement_rows, frontier_curves, layer_spending, tolerance_table

if TYPE_CHECKING:
    from .survey import SurveyCommand


@dataclass(frozen=True)
class Arrays:
    """What goes into files beside `survey.json`."""

    raw: Raw
    safety: Direction
    materials: Materials


def directions_of(raw: Raw, materials: Materials) -> dict[str, list[Direction]]:
    """Every estimator's directions of the main objective (several for `dim`: one a position), and probe accuracy."""
    main = materials.main
    gradient = gradient_direction(raw.objectives[main.name])
    positive, negative = raw.activations[main.name]
    layers = list(range(gradient.groups.shape[1]))
    probe, accuracy = probe_direction(main, positive, negative, layers)
    raw_accuracy = Direction("accuracy", "", np.array([[accuracy[k] for k in layers]]))
    return {
        "gradient": [gradient],
        "dim": difference_in_means(main, positive, negative),
        "probe": [probe],
        "accuracy": [raw_accuracy],
    }


def motionless(effects: dict[str, np.ndarray]) -> list[str]:
    """A warning for every task whose gradient is zero at all layers. Raises DataError when that is every task."""
    names = [name for name, groups in effects.items() if not np.any(groups)]
    if len(names) == len(effects):
        raise DataError(
            f"no task has a gradient ({', '.join(names)}): their metrics do not depend on the model; give others"
        )
    return [
        f"task {name}: its gradient is zero, so its metric does not depend on the model; it is unranked"
        for name in names
    ]


def task_info(task: TaskRows, gathered: Gathered) -> TaskInfo:
    """Score before training on the gradient items, accuracy, and whether there is headroom to lose or gain."""
    items = len(task.gradient.keys)
    values = sum_rows(task.gradient.rows, gathered.values, items)
    half = t_quantile(0.9, items - 1) * values.std(ddof=1) / np.sqrt(items)
    accuracy = float("nan")
    if task.task.kind == "choices":
        best = [
            max((v, r.weight > 0) for r, v in zip(task.gradient.rows, gathered.values, strict=True) if r.item == k)
            for k in range(items)
        ]
        accuracy = float(np.mean([gold for _, gold in best]))
        headroom = task.chance + 0.1 <= accuracy <= 0.95
        notes = [] if headroom else [f"no headroom: accuracy {accuracy:.2f}, chance {task.chance:.2f}"]
    else:
        likely = float(np.exp(values.mean()))
        headroom = 0.1 <= likely <= 0.95
        notes = [] if headroom else [f"no headroom: mean probability of an answer token {likely:.3f}"]
    unit = "nats per answer token" if task.task.kind == "answer" else "nats per answer token (margin)"
    return TaskInfo(
        task.task.name, task.task.kind, unit, items, len(task.heldout.keys), float(values.mean()), float(values.mean() - half),
        float(values.mean() + half), accuracy, task.chance, headroom,
        [*task.task.notes, *notes], task.task.source, task.task.sha256,
    )  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What was measured, and the layer and direction that were chosen, before any table is made."""

    bench: Workbench
    raw: Raw
    directions: dict[str, list[Direction]]
    evidence: Evidence
    safety: Direction
    selection: Selection
    linearity: Linearity | None
    layer: int
    still: list[str]


def assemble(
    command: "SurveyCommand", bench: Workbench, loaded: LoadedModel, materials: Materials, began: float
) -> tuple[Survey, Arrays]:
    """Run every phase and fill the survey; `began` is when the command started (perf_counter)."""
    found = measured(command, bench, materials)
    survey = tabulated(command, found, materials, lambda: provenance(command, found.bench, loaded, materials, began))
    return survey, Arrays(found.raw, found.safety, materials)


def measured(command: "SurveyCommand", bench: Workbench, materials: Materials) -> Found:
    """Everything that needs the model: gradients, the choice of layer and direction, the linearity check."""
    bench, raw = run_model(bench, materials, command.refusal_tokens, command.capability == "probe")
    directions = directions_of(raw, materials)
    gradient = directions["gradient"][0]
    effects = {name: gathered.groups.means() for name, gathered in raw.tasks.items()}
    still = motionless(effects)
    evidence = Evidence(
        gradient.groups, gradient.groups, effects | raw.probes, effects,
        raw.controls, raw.scores, response_length(raw.texts), raw.sinks, {},
    )  # fmt: skip
    refusal = objective_metric(materials.main, [token for token, _, _ in raw.refusal])
    with bench.meter.phase("layer selection", selection_tokens(materials, bench.size, tokens_of(raw.texts))):
        kl = KlMeter(bench.probe, raw.texts)
        trials = Trials(bench, evidence, kl, *refusal, materials.selection)
        safety = chosen_direction(command.estimator, directions, trials)
        others = [
            d for kind in ("gradient", "dim", "probe") for d in directions[kind] if d.estimator != safety.estimator
        ]
        selection, best = select(trials, safety, others, materials.final)
    layer = best.row.layer
    evidence = replace(evidence, safety=safety.groups, norm={layer: best.norm})
    linearity = None
    if command.linearity:
        with bench.meter.phase("linearity check", linearity_tokens(materials, bench.size, tokens_of(raw.texts))):
            linearity = run_linearity(bench, evidence, kl, materials, (*refusal, materials.final), best.unit, layer)
    return Found(bench, raw, directions, evidence, safety, selection, linearity, layer, still)


def tabulated(command: "SurveyCommand", found: Found, materials: Materials, origin: Callable[[], Provenance]) -> Survey:
    """Every table of the survey, from arrays alone; `origin` is asked last, since it says how long all took."""
    began = time.perf_counter()
    raw, evidence, layer, bench = found.raw, found.evidence, found.layer, found.bench
    gradient, texts = found.directions["gradient"][0], raw.texts
    layers = [layer_row(evidence, k, bench.seed) for k in range(gradient.groups.shape[1])]
    estimators = [gradient, nearest_means(found.directions, layer), found.directions["probe"][0]]
    objectives = {name: g.groups.means() for name, g in raw.objectives.items()}
    rank = evidence.fisher(layer, 0.0).rank
    survey = Survey(
        model=command.model,
        size=bench.size.name,
        estimator=command.estimator,
        layer=layer,
        layers=layers,
        tasks=[task_info(task, raw.tasks[task.task.name]) for task in materials.tasks],
        selection=found.selection,
        agreement=agreement_rows(estimators, range(len(layers))),
        frontier=frontier_curves(evidence, layer),
        tolerances=tolerance_table(evidence, layer, command.tolerances(list(evidence.tasks)), command.budget_nats),
        linearity=found.linearity,
        conflicts=conflict_rows(objectives, evidence, layer),
        joint_conflict=joint_conflict(objectives, evidence, layer),
        refusal_tokens=[RefusalToken(i, text, origin, None) for i, text, origin in raw.refusal],
        fisher=FisherInfo(len(texts), len(raw.scores), rank, evidence.response_tokens, 1.0),
        layer_budget=layer_spending(evidence),
        readout=readout_record(raw, materials, bench.seed),
        controls=controls_info(evidence, raw, layer, bench.size.control_items),
        over_refusal=over_refusal_row(evidence, raw, layer),
        formats=format_table(evidence, raw, layer),
        subspace_singular_values=singular_values(gradient, layer).tolist(),
        timing=[],
        provenance=origin(),
        warnings=[*found.still, *warnings_of(command, materials, raw, bench, layers[layer].safety_reliability)],
        extra=extra_of(command, evidence, raw, found.directions, layer),
    )
    tables = Phase("tables", time.perf_counter() - began, 0)
    return replace(survey, timing=[*(Phase(p.name, p.seconds, p.tokens) for p in bench.meter.phases), tables])


def nearest_means(directions: dict[str, list[Direction]], layer: int) -> Direction:
    """The difference in means (of all positions) that lies nearest to the gradient at `layer`."""
    gradient = directions["gradient"][0].mean[layer]
    return max(directions["dim"], key=lambda d: abs(float(gradient @ d.mean[layer]) / np.linalg.norm(d.mean[layer])))


def chosen_direction(estimator: str, found: dict[str, list[Direction]], trials: Trials) -> Direction:
    """The surveyed estimator's direction; for `dim` the position that promises most. `subspace` is centred on the gradient."""
    kind = "gradient" if estimator == "subspace" else estimator
    return max(found[kind], key=lambda d: max(promising(trials.evidence, d, 1), default=(-np.inf, 0)))


def run_linearity(bench, evidence, kl, materials, refusal, unit, layer):  # type: ignore[no-untyped-def]
    """The linearity check at the selected layer, with a random direction beside it."""
    rng = np.random.default_rng([bench.seed, 7])
    other = rng.standard_normal(len(unit))
    other /= np.linalg.norm(other)
    gradients = {name: groups[:, layer] for name, groups in evidence.effects.items()}
    slope = float(evidence.gradient[:, layer].mean(0) @ unit)
    steering = Steering(bench, kl, materials.tasks, gradients, refusal, slope)
    safety = Course("safety", unit, layer, evidence.norm[layer], 0.1)
    random = Course("random", other, layer, evidence.shift_norm(other, layer), 0.1)
    return check(steering, safety, random, bench.size.budgets)


def over_refusal_row(evidence: Evidence, raw: Raw, layer: int):  # type: ignore[no-untyped-def]
    """Over-refusal as a capability: *not* refusing harmless prompts that sound alarming (metric: minus refusal log-odds)."""
    if raw.over is None:
        return None
    rows, _ = task_rows(evidence, layer, {"over-refusal": -raw.over.groups.means()})
    return rows["over-refusal"]


def controls_info(evidence: Evidence, raw: Raw, layer: int, items: int) -> Controls:
    """The empirical null at the selected layer."""
    null = control_taxes(evidence, layer)
    median, high = (float(np.median(null)), float(np.quantile(null, 0.95))) if len(null) else (np.nan, np.nan)
    return Controls(len(raw.controls), raw.pool, items, median, high)


def format_table(evidence: Evidence, raw: Raw, layer: int) -> dict[str, dict[str, float | None]]:
    """Signed cosine of every task in every other prompt format."""
    table: dict[str, dict[str, float | None]] = {}
    for (fmt, name), gathered in raw.other.items():
        row = cosines(evidence.safety[:, layer], gathered.groups.means()[None, :, layer])
        table.setdefault(fmt, {})[name] = float(row.at(0).value)
    return table
