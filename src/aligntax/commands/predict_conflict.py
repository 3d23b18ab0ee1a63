"""P4 on a model: gradients of two objectives and of every built-in task, in groups of items."""

import numpy as np

from ..data import BUILTIN_TASKS, choose_distractors, load_contrast, load_tasks
from ..predictions import PROTOCOLS, ConflictGroups
from ..probing import Meter, Metric, ShardStore, answer_metric, find_sinks, item_gradients, refusal_metric
from .alignment_texts import recovery_tokens
from .gather import rows_key
from .materials import Encoder, ItemRows, by_hash
from .predict_gather import Examined, opened

PROTOCOL = PROTOCOLS["P4"]


def conflict_items(base: Examined, seed: int) -> dict[str, ItemRows]:
    """Items by name: `refusal`, `helpfulness`, then every built-in task."""
    groups = int(PROTOCOL.setting("groups"))
    encoder = Encoder(base.chat, base.loaded.context_length or 2**20, groups, seed)
    count = int(PROTOCOL.setting("items a task"))
    harmful = load_contrast("harmlessness").positive
    prompts = [harmful[k] for k in by_hash(harmful, "prompts")[: int(PROTOCOL.setting("harmful prompts"))]]
    helpful = load_contrast("helpfulness").items
    chosen = [helpful[k] for k in by_hash([item.key for item in helpful], "items")[:count]]
    found = {
        "refusal": encoder.prompts("refusal", prompts),
        "helpfulness": encoder.items("helpfulness", chosen, "chat"),
    }
    for task in load_tasks(BUILTIN_TASKS()):
        order = by_hash([item.key for item in task.items], "items")[:count]
        found[task.name] = encoder.items(
            task.name, [choose_distractors(task.items[k], 1, seed) for k in order], "plain"
        )
    return found


def conflict_groups(
    source: str, shards: ShardStore, device: str, seed: int, meter: Meter
) -> tuple[ConflictGroups, str]:
    """Group means of everything, and the hash of the weights."""
    base = opened(source, shards, meter, device)
    items = conflict_items(base, seed)
    sample = [row for own in items.values() for row in own.rows[:2]]
    sinks = find_sinks(base.probe.model, sample, base.probe.budget, base.probe.device).positions
    probe = type(base.probe)(base.probe.model, base.probe.device, base.probe.budget, "all", sinks, meter.advance)
    means = {}
    for name, own in items.items():
        metric: Metric = refusal_metric(recovery_tokens(base.chat)) if name == "refusal" else answer_metric
        count = int(own.groups.max()) + 1

        def make(own: ItemRows = own, metric: Metric = metric, count: int = count) -> dict[str, np.ndarray]:
            found = item_gradients(probe, own.rows, metric, own.groups, (count, own.name))
            return {"means": (found.sums / found.counts[:, None, None]).astype(np.float32)}

        with meter.phase(name, own.tokens):
            key = (rows_key(own.rows), own.groups.tolist(), list(sinks))
            means[name] = base.store.get(f"conflict-{name}", key, make)["means"].astype(np.float64)
    tasks = [name for name in items if name not in ("refusal", "helpfulness")]
    return ConflictGroups(
        means["refusal"], means["helpfulness"], np.stack([means[t] for t in tasks]), tuple(tasks)
    ), base.weights
