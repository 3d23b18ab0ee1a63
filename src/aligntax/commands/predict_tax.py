"""P1 on real checkpoints: gather what is known before training, read what was paid, hand both to the protocol."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.names import split_name
from ..errors import AligntaxError
from ..models import decoder_blocks
from ..predictions import PROTOCOLS, Paid, Scored, TaskEvidence, score_task_tax
from ..probing import Meter, ShardStore, tokens_of
from ..stats import rank_reliability
from .plan_table import PlannedPhase, show_plan
from .predict_gather import (
    Examined,
    fisher_scores,
    opened,
    safety_directions,
    scored_task,
    task_gradient,
    unscored_task,
    virtual_steps,
    without_sinks,
)
from .predict_items import PlannedRows, planned_rows

PROTOCOL = PROTOCOLS["P1"]


@dataclass(frozen=True)
class Trained:
    """A trained checkpoint: its recipe and seed, read off NAME-SEED, and where it is."""

    recipe: str
    seed: int
    source: str


def trained_from(words: Sequence[str]) -> list[Trained]:
    """Checkpoints from `[NAME-SEED=]FOLDER`; without a name, that of the folder (of the one above `model/`).

    Raises AligntaxError for a name that comes twice.

    >>> trained_from(["out/dpo-1/model", "mine=out/x"])[0]
    Trained(recipe='dpo', seed=1, source='out/dpo-1/model')
    """
    found = []
    for word in words:
        name, path = split_name(word)
        place = Path(path)
        title = name or (place.parent.name if place.name == "model" else place.name)
        parts = re.fullmatch(r"(.+)-(\d+)", title)
        found.append(Trained(parts[1], int(parts[2]), path) if parts else Trained(title, 0, path))
    names = [(t.recipe, t.seed) for t in found]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice:
        raise AligntaxError(
            f"--aligned: {twice[0]}-{twice[1]} comes twice; give each checkpoint a name: NAME-SEED=FOLDER"
        )
    return found


@dataclass(frozen=True)
class Setting:
    """Where P1 reads and writes: the base, trained checkpoints, a pilot (or none), public tasks (or none), shards."""

    base: str
    trained: tuple[Trained, ...]
    pilot: str
    public: Path | None
    shards: Path | None
    device: str
    seed: int


@dataclass(frozen=True)
class TaxRun:
    """What P1 gave, and what it was made from."""

    scored: Scored
    models: dict[str, str]
    tokens: int


def task_tax_run(setting: Setting, meter: Meter, plan: bool = False) -> TaxRun | None:
    """Gather, score. With `plan`: print tokens and time, start nothing, return None."""
    store = ShardStore(setting.shards, {})
    base = opened(setting.base, store, meter, setting.device)
    planned = planned_rows(setting.public, base.chat, base.loaded.context_length or 2**20, setting.seed, PROTOCOL)
    if plan:
        print_plan(base, planned, setting)
        return None
    base = without_sinks(base, planned)
    known, before = _known(base, planned, setting, meter, store)
    drops, truth, models = _paid(base, planned, setting, (meter, store), known.gradients, before)
    paid = _by_recipe(drops, truth, setting)
    scored = score_task_tax(known, paid, setting.seed)
    scored.warnings.extend([*planned.skipped, *_warnings(setting)])
    return TaxRun(scored, {"base": base.weights, **models}, sum(phase.tokens for phase in meter.phases))


def _warnings(setting: Setting) -> list[str]:
    found = []
    if not setting.pilot:
        found.append("no pilot: its predictors were not tried")
    if setting.public is None:
        found.append("no folder of public tasks (--data): built-in and generated tasks alone are too few")
    return found


def _known(
    base: Examined, planned: PlannedRows, setting: Setting, meter: Meter, store: ShardStore
) -> tuple[TaskEvidence, list[tuple[np.ndarray, np.ndarray]]]:
    """Everything known before training, and the base's own margins and states on the scored items."""
    with meter.phase("task gradients", planned.gradient_tokens):
        gradients = [task_gradient(base, task) for task in planned.tasks]
    with meter.phase("safety gradients", tokens_of((*planned.prompts, *planned.refusals))):
        directions = safety_directions(base, planned)
        fisher = fisher_scores(base, planned, PROTOCOL, setting.seed)
    with meter.phase("virtual steps", 4 * planned.forward_tokens):
        steps = virtual_steps(base, planned, PROTOCOL)
    with meter.phase("base, scored items", planned.scored_tokens):
        paid_from = [scored_task(base, task, base.probe.sinks) for task in planned.tasks]
    shift = fall = None
    if setting.pilot:
        with meter.phase("pilot", 2 * planned.forward_tokens):
            pilot = opened(setting.pilot, store, meter, setting.device)
            old, new = ([unscored_task(model, t, base.probe.sinks) for t in planned.tasks] for model in (base, pilot))
        shift = np.stack([after[1] - before[1] for before, after in zip(old, new, strict=True)]).astype(np.float64)
        fall = np.array([float((before[0] - after[0]).mean()) for before, after in zip(old, new, strict=True)])
    return TaskEvidence(
        tuple(task.name for task in planned.tasks),
        tuple(task.family for task in planned.tasks),
        np.stack([mean for mean, _ in gradients]),
        directions,
        fisher,
        steps,
        shift,
        fall,
        np.array([own.mean() for _, own in gradients]),
        np.array([(own > 0).mean() for _, own in gradients]),
        np.array([task.questions for task in planned.tasks]),
    ), paid_from


def _paid(
    base: Examined,
    planned: PlannedRows,
    setting: Setting,
    shared: tuple[Meter, ShardStore],
    gradients: np.ndarray,
    before: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[list[list[np.ndarray]], np.ndarray, dict[str, str]]:
    """Drops by checkpoint, task, item; first-order tax of the true shift `(L, checkpoints, m)`; hashes of weights."""
    meter, store = shared
    drops: list[list[np.ndarray]] = []
    truth, models = [], {}
    for each in setting.trained:
        with meter.phase(f"{each.recipe}-{each.seed}", planned.scored_tokens):
            model = opened(each.source, store, meter, setting.device)
            after = [scored_task(model, task, base.probe.sinks) for task in planned.tasks]
        drops.append([(old[0] - new[0]).mean(axis=0) for old, new in zip(before, after, strict=True)])
        shift = np.stack([new[1] - old[1] for old, new in zip(before, after, strict=True)]).astype(np.float64)
        truth.append(-np.einsum("mld,mld->lm", gradients, shift))
        models[f"{each.recipe}-{each.seed}"] = model.weights
    layers = len(decoder_blocks(base.probe.model))
    return drops, np.stack(truth, axis=1) if truth else np.zeros((layers, 0, len(planned.tasks))), models


def _by_recipe(drops: list[list[np.ndarray]], truth: np.ndarray, setting: Setting) -> Paid:
    """Seeds of one recipe averaged: the recipe is the unit; what its seeds disagree on is the reliability."""
    recipes = list(dict.fromkeys(each.recipe for each in setting.trained))
    of = [[k for k, each in enumerate(setting.trained) if each.recipe == recipe] for recipe in recipes]
    pairs = [(own[a], own[b]) for own in of for a in range(len(own)) for b in range(a + 1, len(own))]
    merged = tuple(
        np.stack([np.mean([drops[k][task] for k in own], axis=0) for own in of]) for task in range(len(drops[0]))
    )
    return Paid(
        merged,
        tuple(recipes),
        np.stack([truth[:, own].mean(axis=1) for own in of], axis=1),
        rank_reliability(drops, pairs, np.random.default_rng([setting.seed, 3])),
        tuple(sorted({each.seed for each in setting.trained})),
    )


def print_plan(base: Examined, planned: PlannedRows, setting: Setting) -> None:
    """Tokens and time of every phase, from encoded rows alone."""
    gradient, forward, scored = planned.gradient_tokens, planned.forward_tokens, planned.scored_tokens
    small = tokens_of((*planned.prompts, *planned.refusals))
    phases = [
        PlannedPhase("task gradients", gradient, 2.0),
        PlannedPhase("safety gradients", small, 2.0),
        PlannedPhase("virtual steps", 4 * forward, 1.0),
        PlannedPhase("base, scored items", scored, 1.0),
        PlannedPhase("pilot and base on gradient items", 2 * forward * bool(setting.pilot), 1.0),
        PlannedPhase(f"{len(setting.trained)} checkpoints", len(setting.trained) * scored, 1.0),
    ]
    parameters = sum(p.numel() for p in base.loaded.model.parameters())
    notes = [*(f"left out: {line}" for line in planned.skipped), f"protocol {PROTOCOL.sha256[:16]}"]
    title = f"Plan: P1, {len(planned.tasks)} tasks in {len({t.family for t in planned.tasks})} families"
    show_plan(title, phases, parameters, base.loaded.device, notes)
