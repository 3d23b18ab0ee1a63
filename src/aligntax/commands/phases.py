"""The phases that run the model and do not depend on the selected layer, in the order in which they need each other."""

from dataclasses import dataclass

import numpy as np

from ..models import text_config
from ..probing import Row, Sinks, refusal_metric, tokens_of
from .gather import (
    Gathered,
    Workbench,
    discover_refusals,
    gather_activations,
    gather_answer_means,
    gather_controls,
    gather_fisher,
    gather_items,
    gather_last_states,
    gather_sinks,
    gather_texts,
    leave_out,
    objective_metric,
    probed_tasks,
    sink_rows,
)
from .materials import Materials
from .plan import control_tokens, opening_tokens, reply_tokens


@dataclass(frozen=True)
class Raw:
    """Everything that came from the model, as arrays by name."""

    sinks: Sinks
    texts: list[Row]
    refusal: list[tuple[int, str, str]]
    objectives: dict[str, Gathered]
    activations: dict[str, tuple[np.ndarray, np.ndarray]]
    tasks: dict[str, Gathered]
    other: dict[tuple[str, str], Gathered]
    probes: dict[str, np.ndarray]
    controls: np.ndarray
    pool: int
    scores: np.ndarray
    over: Gathered | None
    alarming: np.ndarray | None = None


def run_model(bench: Workbench, materials: Materials, words: str, probe_capability: bool) -> tuple[Workbench, Raw]:
    """All phases that do not depend on the selected layer; returns the bench with the sinks left out."""
    meter, main = bench.meter, materials.main
    with meter.phase("attention sinks", tokens_of(sink_rows(materials))):
        sinks = gather_sinks(bench, materials)
    bench = leave_out(bench, sinks)
    with meter.phase("replies", reply_tokens(materials, bench.size) + opening_tokens(materials)):
        texts = gather_texts(bench, materials)
        refusal = named_tokens(bench, words) if words else discover_refusals(bench, materials)
    ids = [token for token, _, _ in refusal]
    with meter.phase("safety gradients", sum(o.positive.tokens for o in materials.objectives)):
        objectives = {o.name: gather_items(bench, o.positive, *objective_metric(o, ids)) for o in materials.objectives}
    with meter.phase("activations", main.positive.tokens + main.negative.tokens):
        activations = {main.name: gather_activations(bench, main)}
    every = [*materials.tasks, *materials.other_formats]
    probed = probed_tasks(materials.tasks) if probe_capability else []
    with meter.phase("capability gradients", sum(t.gradient.tokens for t in (*every, *probed))):
        tasks = {t.task.name: gather_items(bench, t.gradient, *bench.metric(t.task.name)) for t in materials.tasks}
        other = {
            (t.fmt, t.task.name): gather_items(bench, t.gradient, *bench.metric(t.task.name))
            for t in materials.other_formats
        }
        probes = gather_answer_means(bench, probed)
    with meter.phase("control tasks", control_tokens(materials.tasks, bench.size, bench.groups)):
        controls, pool = gather_controls(bench, materials.tasks, int(text_config(bench.probe.model).vocab_size))
    with meter.phase("Fisher information", tokens_of(texts)):
        scores = gather_fisher(bench, texts)
    over, alarming = None, None
    if materials.over_refusal is not None:
        with meter.phase("over-refusal", 2 * materials.over_refusal.tokens):
            over = gather_items(bench, materials.over_refusal, refusal_metric(ids), f"refusal {sorted(ids)}")
            alarming = gather_last_states(bench, materials.over_refusal)
    raw = Raw(
        sinks, texts, refusal, objectives, activations, tasks, other, probes, controls, pool, scores, over, alarming
    )
    return bench, raw


def named_tokens(bench: Workbench, words: str) -> list[tuple[int, str, str]]:
    """First token of each word the user names as opening a refusal."""
    openings = [bench.chat.encode_reply(word.strip()) for word in words.split(",") if word.strip()]
    found = {ids[0]: "--refusal-tokens" for ids in openings if ids}
    return [(token, bench.text([token]), origin) for token, origin in found.items()]
