"""P1: does what is known before training rank what tasks lose in it? Candidates, baselines, and their score (theory 7, 6.4).

Every candidate and every baseline is a *predicted tax* of each task, positive = lost, in any unit: only ranks count. Items
that give gradients are not those that are scored. `delta` is a shift that raises safety, so a task with gradient g is to lose
`-<g, delta>`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..geometry import Fisher
from ..results.prediction import Cell
from ..stats import Choice, Observed, RankReliability, choose, confirm, mean_correlation, split_halves
from ..stats.rank_correlation import Array
from .protocol import P1, Protocol
from .scored import Scored, decide, empty, shortage

SHOWN = 12


@dataclass(frozen=True)
class TaskEvidence:
    """What is known of m tasks before training, all from items that are never scored.

    gradients `(m, L, d)` of the margin; directions name -> `(L, d)`, gradients of safety; fisher `(n, L, d)` score vectors; steps
    name -> `(m,)` measured fall of the margin along a virtual training step; pilot_shift `(m, L, d)` and pilot_fall `(m,)` of a
    pilot training, None without one; margin and accuracy `(m,)` of the base; questions `(m,)` share of questions.
    """

    names: tuple[str, ...]
    families: tuple[str, ...]
    gradients: Array
    directions: dict[str, Array]
    fisher: Array
    steps: dict[str, Array]
    pilot_shift: Array | None
    pilot_fall: Array | None
    margin: Array
    accuracy: Array
    questions: Array


@dataclass(frozen=True)
class Paid:
    """What training cost: `drops` for each task `(R, n_i)` in nats, recipe of each row, and for reference the tax that the *true*
    mean shift would have cost to first order, `(R, m)` for each layer, `(L, R, m)`.
    """

    drops: tuple[Array, ...]
    recipes: tuple[str, ...]
    foretold_by_truth: Array | None
    reliability: RankReliability
    seeds: tuple[int, ...]


def candidates(known: TaskEvidence, ridge: float) -> dict[str, Array]:
    """Name -> predicted tax `(m,)` of everything that P1 tries."""
    found: dict[str, Array] = {}
    for name, direction in known.directions.items():
        found |= {f"{key} | {name}": value for key, value in _along(known, direction, ridge).items()}
    found |= {f"virtual step | {name}": fall for name, fall in known.steps.items()}
    if known.pilot_shift is not None:
        by_layer = -np.einsum("mld,mld->lm", known.gradients, known.pilot_shift)
        found |= {f"pilot shift, layer {k}": row for k, row in enumerate(by_layer)}
        found["pilot shift, all layers"] = by_layer.sum(axis=0)
    if known.pilot_fall is not None:
        found["pilot, measured"] = known.pilot_fall
    return found


def _along(known: TaskEvidence, direction: Array, ridge: float) -> dict[str, Array]:
    """Squared cosine, cosine, change, whitened cosine and change, by layer and for all layers joined."""
    found: dict[str, Array] = {}
    for layer in range(direction.shape[0]):
        own, v = known.gradients[:, layer], direction[layer]
        cosine = unit(own) @ unit(v)
        found[f"tax, layer {layer}"] = cosine**2
        found[f"cosine, layer {layer}"] = -cosine
        found[f"change, layer {layer}"] = -own @ unit(v)
        metric = Fisher(known.fisher[:, layer] / np.sqrt(len(known.fisher)), ridge)
        white, aim = metric.sqrt_solve(own), unit(metric.sqrt_solve(v))
        found[f"whitened cosine, layer {layer}"] = -unit(white) @ aim
        found[f"whitened change, layer {layer}"] = -white @ aim
    joined, v = known.gradients.reshape(len(known.names), -1), unit(direction.ravel())
    found["cosine, all layers"] = -unit(joined) @ v
    found["change, all layers"] = -joined @ v
    return found


def baselines(known: TaskEvidence, draws: int, seed: int = 0) -> dict[str, dict[str, Array]]:
    """Baseline -> variant -> predicted tax `(m,)`; each baseline chooses its variant and sign as the candidates do."""
    norms = np.linalg.norm(known.gradients, axis=-1)
    rng = np.random.default_rng([seed, 1])
    layers, width = known.gradients.shape[1:]
    random = unit(rng.standard_normal((draws, layers, width)))
    by_direction = -np.einsum("mld,kld->klm", known.gradients, random).reshape(draws * layers, -1)
    return {
        "gradient norm": {f"layer {k}": norms[:, k] for k in range(layers)},
        "random direction": {f"draw {k}": row for k, row in enumerate(by_direction)},
        "base score": {"margin": known.margin, "accuracy": known.accuracy},
        "question form": {"share of questions": known.questions},
    }


def score_task_tax(known: TaskEvidence, paid: Paid, seed: int, protocol: Protocol = P1) -> Scored:
    """Choose on half of the families and recipes, confirm on the others, and say what came of it."""
    n = {"tasks": len(known.names), "families": len(set(known.families)), "recipes": len(set(paid.recipes))}
    few = shortage(protocol, n)
    if few:
        # Recipes are still to come, and they will be split anew: whoever had looked could not confirm any more.
        waiting = empty(
            protocol, n, "nothing was correlated yet, so that what confirms stays unseen until there is enough"
        )
        return replace(waiting, seeds=list(paid.seeds), reliability=_reliability(paid.reliability))
    halves = split_halves(known.families, paid.recipes)
    observed = Observed(paid.drops, known.families)
    first = observed.part(halves.tasks, halves.recipes)
    second = observed.part(~halves.tasks, ~halves.recipes)
    draws, rng = int(protocol.setting("draws")), np.random.default_rng([seed, 2])
    tried = candidates(known, float(protocol.setting("ridge")))
    table = np.stack(list(tried.values()))
    choice = choose(table[:, halves.tasks], first, rng, draws)
    rivals, rival_names = {}, {}
    for name, variants in baselines(known, int(protocol.setting("random directions a layer"))).items():
        own = np.stack(list(variants.values()))
        if np.isnan(mean_correlation(own[:, halves.tasks], first.tax)).all():
            continue
        picked = choose(own[:, halves.tasks], first, rng, 1)
        rivals[name] = picked.sign * own[picked.index, ~halves.tasks]
        rival_names[name] = f"{'' if picked.sign > 0 else 'minus '}{list(variants)[picked.index]}"
    found = confirm(choice.sign * table[choice.index, ~halves.tasks], rivals, second, rng, draws)
    n |= {"confirming tasks": found.tasks, "confirming families": found.families, "confirming recipes": found.recipes}
    n |= {"predictors tried": choice.tried}
    decided, why = decide(protocol, found.correlation, found.ahead, choice.p, n)
    name = f"{'' if choice.sign > 0 else 'minus '}{list(tried)[choice.index]}"
    passed_over = _negatives({k: v[halves.tasks] for k, v in tried.items()}, first, choice, found.correlation.value)
    return Scored(
        found.correlation, found.baselines, found.ahead, choice.p, decided,
        f"chosen: {name} ({choice.correlation:.2f} where it was chosen); best baseline: {found.best}; {why}",
        n, list(paid.seeds), _reliability(paid.reliability), passed_over,
        {
            "chosen half": _ranking(tried, first, halves.tasks),
            "baselines": [{"baseline": key, "variant": value} for key, value in rival_names.items()],
            "first order of the true shift (not a forecast)": truth_rows(paid, halves.tasks, halves.recipes),
            "tasks": _task_rows(known, observed, halves.tasks),
        },
    )  # fmt: skip


def unit(rows: Array) -> Array:
    """Rows scaled to length 1; a zero row stays 0."""
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1.0))


def truth_rows(paid: Paid, tasks: np.ndarray, recipes: np.ndarray) -> list[dict[str, Cell]]:
    """By layer: correlation with the first-order change of the shift that training really made, on both halves.

    It reads the trained model, so it forecasts nothing: it says how much is lost by not knowing the shift.
    """
    if paid.foretold_by_truth is None:
        return []
    tax = np.stack([drop.mean(axis=1) for drop in paid.drops], axis=1)
    rows: list[dict[str, Cell]] = []
    for layer, told in enumerate(paid.foretold_by_truth):
        values = [
            float(np.mean([mean_correlation(told[r, side], tax[r : r + 1, side]) for r in np.flatnonzero(runs)]))
            for side, runs in ((tasks, recipes), (~tasks, ~recipes))
        ]
        rows.append({"layer": layer, "choosing half": round(values[0], 3), "confirming half": round(values[1], 3)})
    return rows


def _reliability(found: RankReliability) -> dict[str, float]:
    return {"seed against seed": found.seeds, "half of the items against the other": found.items, "cap": found.cap}


def _ranking(tried: Mapping[str, Array], first: Observed, tasks: np.ndarray) -> list[dict[str, Cell]]:
    """The strongest candidates where choosing was allowed."""
    values = mean_correlation(np.stack(list(tried.values()))[:, tasks], first.tax)
    order = np.argsort(-np.abs(np.nan_to_num(values)))[:SHOWN]
    return [{"predictor": list(tried)[k], "correlation": round(float(values[k]), 3)} for k in order]


def _negatives(tried: Mapping[str, Array], first: Observed, choice: Choice, confirmed: float) -> list[str]:
    """What did not work, in words: what the choice lost on the way, and the best of each kind that was passed over."""
    values = mean_correlation(np.stack(list(tried.values())), first.tax)
    kinds: dict[str, tuple[float, str]] = {}
    for name, value in zip(tried, values, strict=True):
        if np.isfinite(value) and abs(value) > abs(kinds.get(kind_of(name), (0.0, ""))[0]):
            kinds[kind_of(name)] = float(value), name
    chosen = list(tried)[choice.index]
    said = [
        f"{chosen}: {choice.correlation:.2f} where chosen, {confirmed:.2f} confirmed (best of {choice.tried} tried)",
        *(f"passed over: {name}, {value:.2f} where chosen" for value, name in kinds.values() if name != chosen),
    ]
    return said


def kind_of(name: str) -> str:
    """The kind of a candidate: its name without layer.

    >>> kind_of("tax, layer 3 | refusal"), kind_of("virtual step | plain")
    ('tax | refusal', 'virtual step | plain')
    """
    return re.sub(r", (layer \d+|all layers)", "", name)


def _task_rows(known: TaskEvidence, observed: Observed, tasks: np.ndarray) -> list[dict[str, Cell]]:
    mean = observed.tax.mean(axis=0)
    return [
        {
            "task": name,
            "family": known.families[k],
            "half": "choose" if tasks[k] else "confirm",
            "items": int(observed.drops[k].shape[1]),
            "selective tax, nats": round(float(mean[k]), 4),
        }
        for k, name in enumerate(known.names)
    ]
