"""What P1 asks of the models, each a shard on disk: gradients, a virtual step, a pilot, and what trained checkpoints score."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..data import ChatFormat
from ..models import (
    LoadedModel,
    ModelSpec,
    SharedPrefix,
    answer_logprobs,
    can_share,
    capture_outputs,
    load,
    target_logprobs,
)
from ..predictions import Protocol
from ..probing import (
    Batch,
    Meter,
    Probe,
    Row,
    ShardStore,
    TokenBudget,
    answer_metric,
    find_sinks,
    fisher_draws,
    generate,
    item_gradients,
    linear_layers,
    refusal_metric,
    reply_rows,
    run_batches,
)
from .alignment_texts import recovery_tokens
from .gather import rows_key
from .predict_items import PlannedRows, TaskItems, by_format, margins, shared_length

TOKENS = 1024
"""Tokens a batch: small ones waste nothing on CPU."""


@dataclass(frozen=True)
class Examined:
    """One checkpoint as P1 reads it: a probe and its shards."""

    loaded: LoadedModel
    probe: Probe
    store: ShardStore
    chat: ChatFormat

    @property
    def weights(self) -> str:
        """Hash of the weights."""
        return str(self.loaded.weights_sha256)


def opened(source: str, folder: ShardStore | None, meter: Meter, device: str = "auto") -> Examined:
    """The checkpoint at `source`, in float32; shards go where `folder` says."""
    loaded = load(ModelSpec(source, None, None, "float32", device, False))
    probe = Probe(loaded.model, loaded.device, TokenBudget(TOKENS), "all", (), meter.advance)
    store = ShardStore(folder.folder if folder else None, {"weights": loaded.weights_sha256})
    return Examined(loaded, probe, store, ChatFormat(loaded.tokenizer))


def without_sinks(base: Examined, planned: PlannedRows) -> Examined:
    """The base with the positions of its attention sinks left out of shifts and means."""
    rows = [row for task in planned.tasks for row in task.gradient[:2]]

    def make() -> dict[str, np.ndarray]:
        sinks = find_sinks(base.probe.model, rows, base.probe.budget, base.probe.device)
        return {"positions": np.array(sinks.positions, dtype=np.int64)}

    found = base.store.get("sinks", (rows_key(rows),), make)["positions"].tolist()
    return replace(base, probe=replace(base.probe, sinks=tuple(found)))


@dataclass(frozen=True)
class Reading:
    """Rows of one checkpoint: mean log-probability of each row's answer `(rows,)` and the mean state `(L, d)` over all rows."""

    values: np.ndarray
    state: np.ndarray


def read_rows(model: Examined, name: str, rows: Sequence[Row], sinks: tuple[int, ...]) -> Reading:
    """One forward pass of `rows`; what they begin with in common is run once and enters no mean, nor do sinks."""
    found = model.store.get(name, (rows_key(rows), list(sinks)), lambda: _read(model, rows, sinks))
    return Reading(found["values"], found["state"])


def _read(model: Examined, rows: Sequence[Row], sinks: tuple[int, ...]) -> dict[str, np.ndarray]:
    shared = shared_length(rows) if can_share(model.probe.model) else 0
    prefix = SharedPrefix(model.probe.model, rows[0].ids[:shared])
    rests = [Row(row.ids[shared:], row.start - shared, row.item, row.weight) for row in rows]
    layers, d = model.probe.shape
    values, state = np.zeros(len(rows)), np.zeros((layers, d))
    out = [p - shared for p in sinks if p >= shared]

    def step(batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), capture_outputs(model.probe.model) as outputs:
            hidden = prefix.final_hidden(batch.ids, batch.mask)
            lines, positions = batch.scored.nonzero(as_tuple=True)
            scores = target_logprobs(model.probe.model, hidden[lines, positions - 1], batch.ids[lines, positions])
            kept = batch.mask.clone()
            kept[:, [p for p in out if p < kept.shape[1]]] = 0
            weight = (kept / kept.sum(1, keepdim=True).clamp(min=1)).float()
            means = torch.stack([torch.einsum("bt,btd->d", weight, outputs[k].float()) for k in range(layers)])
        total = torch.zeros(len(batch.rows)).index_add(0, lines, scores.float())
        return total / batch.scored.sum(1), means

    for batch, (scores, means) in run_batches(rests, model.probe.budget, model.probe.device, step):
        values[list(batch.rows)] = scores.cpu().numpy()
        state += means.cpu().double().numpy() / len(rows)
        model.probe.advance(batch.tokens)
    return {"values": values, "state": state.astype(np.float32)}


def scored_task(model: Examined, task: TaskItems, sinks: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Margins `(formats, items)` of the scored items and the mean state `(L, d)` over formats."""
    readings = {fmt: read_rows(model, f"scored-{task.name}", rows, sinks) for fmt, rows in task.scored.items()}
    found = [margins(readings[fmt].values, rows, task.items) for fmt, rows in task.scored.items()]
    return np.stack(found), np.mean([reading.state for reading in readings.values()], axis=0)


def task_gradient(base: Examined, task: TaskItems) -> tuple[np.ndarray, np.ndarray]:
    """Mean gradient `(L, d)` of the margin over the gradient items, and their margins `(n,)`."""

    def make() -> dict[str, np.ndarray]:
        groups = np.zeros(task.count, dtype=np.int64)
        found = item_gradients(base.probe, task.gradient, answer_metric, groups, (1, task.name))
        return {"mean": (found.sums[0] / task.count).astype(np.float32), "values": found.values}

    key = (rows_key(task.gradient), list(base.probe.sinks))
    found = base.store.get(f"gradient-{task.name}", key, make)
    return found["mean"].astype(np.float64), margins(found["values"], task.gradient, task.count)


def unscored_task(model: Examined, task: TaskItems, sinks: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Margins `(n,)` of the gradient items, each in its format, and the mean state `(L, d)` over formats."""
    parts = by_format(task.gradient)
    readings = [read_rows(model, f"unscored-{task.name}", part, sinks) for part in parts]
    found = [margins(reading.values, part, task.count) for reading, part in zip(readings, parts, strict=True)]
    return np.sum(found, axis=0), np.mean([reading.state for reading in readings], axis=0)


def safety_directions(base: Examined, planned: PlannedRows) -> dict[str, np.ndarray]:
    """Gradients `(L, d)` of what safety training raises: odds that a refusal opens, log-probability of written refusals."""
    metrics = {
        "first token of a refusal": (planned.prompts, refusal_metric(recovery_tokens(base.chat))),
        "written refusal": (planned.refusals, answer_metric),
    }
    found = {}
    for name, (rows, metric) in metrics.items():

        def make(rows=rows, metric=metric, name=name) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
            groups = np.zeros(len(rows), dtype=np.int64)
            return {"mean": item_gradients(base.probe, rows, metric, groups, (1, name)).sums[0] / len(rows)}

        key = (rows_key(rows), list(base.probe.sinks))
        found[name] = base.store.get(f"direction-{name.replace(' ', '-')}", key, make)["mean"]
    return found


def fisher_scores(base: Examined, planned: PlannedRows, protocol: Protocol, seed: int) -> np.ndarray:
    """Score vectors `(n, L, d)` on the base's own replies to harmless prompts."""
    draws, tokens = int(protocol.setting("draws a text")), int(protocol.setting("reply tokens"))
    prompts = [list(ids) for ids in planned.texts]

    def make() -> dict[str, np.ndarray]:
        texts = reply_rows(prompts, generate(base.probe, prompts, tokens, sample=True, seed=seed))
        return {"scores": fisher_draws(base.probe, texts, draws, seed)}

    return base.store.get("fisher", (prompts, draws, tokens, seed, list(base.probe.sinks)), make)["scores"]


def virtual_steps(base: Examined, planned: PlannedRows, protocol: Protocol) -> dict[str, np.ndarray]:
    """Fall of every task's margin `(m,)` along one virtual training step on written refusals: plain, and scaled as Adam would.

    The inner product of two weight gradients is the derivative of one metric along the other's gradient, so two forward
    passes of all tasks, at equal steps to either side, give it for every task at once. The step is as long as makes the training
    loss fall by the protocol's nats to first order.
    """
    rows = planned.refusals[: int(protocol.setting("rows a virtual step"))]
    nats = float(protocol.setting("virtual step in nats of training loss"))
    key = (rows_key(rows), [rows_key(task.gradient) for task in planned.tasks], nats)
    found = base.store.get("virtual-steps", key, lambda: _virtual(base, rows, planned, nats))
    return {name.replace("-", " "): values for name, values in found.items()}


def _virtual(base: Examined, rows: Sequence[Row], planned: PlannedRows, nats: float) -> dict[str, np.ndarray]:
    mean, square = weight_gradients(base, rows)
    loose = replace(base, store=ShardStore(None, {}))  # the weights are not those that name its shards
    found = {}
    for name in ("plain", "Adam-scaled"):
        ways = {k: g / (square[k].sqrt() + 1e-8) if name != "plain" else g for k, g in mean.items()}
        slope = sum(float((g.double() * ways[k].double()).sum()) for k, g in mean.items())
        sides = []
        for sign in (1.0, -1.0):
            with moved(base, ways, sign * nats / slope):
                own = [unscored_task(loose, task, base.probe.sinks)[0].mean() for task in planned.tasks]
            sides.append(np.array(own))
        found[name] = (sides[1] - sides[0]) / 2
    return found


def weight_gradients(base: Examined, rows: Sequence[Row]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Mean gradient of the answers' log-probability with respect to every matrix in the blocks, and its mean square over rows."""
    parts = {name: layer.weight for name, layer in linear_layers(base.probe.model).items()}
    weights: dict[str, Tensor] = {name: part for name, part in parts.items() if isinstance(part, Tensor)}
    mean = {name: torch.zeros_like(w) for name, w in weights.items()}
    square = {name: torch.zeros_like(w) for name, w in weights.items()}
    for w in weights.values():
        w.requires_grad_(True)
    try:
        for row in rows:
            ids = torch.tensor([row.ids], device=base.probe.device)
            scored = torch.zeros_like(ids, dtype=torch.bool)
            scored[:, row.start :] = True
            with torch.enable_grad():
                value = answer_logprobs(base.probe.model, ids, torch.ones_like(ids), scored).means().sum()
                own = torch.autograd.grad(value, list(weights.values()))
            for name, g in zip(weights, own, strict=True):
                mean[name] += g / len(rows)
                square[name] += g.square() / len(rows)
            base.probe.advance(3 * len(row.ids))
    finally:
        for w in weights.values():
            w.requires_grad_(False)
    return mean, square


@contextmanager
def moved(base: Examined, ways: dict[str, Tensor], size: float) -> Iterator[None]:
    """The model with `size * ways` added to its matrices while the context is open; afterwards it is what it was, bit by bit."""
    layers = linear_layers(base.probe.model)
    before = {name: layers[name].weight.detach().clone() for name in ways}  # type: ignore[operator, union-attr]
    try:
        with torch.no_grad():
            for name, way in ways.items():
                layers[name].weight.add_(way, alpha=size)  # type: ignore[operator, union-attr]
        yield
    finally:
        with torch.no_grad():
            for name, old in before.items():
                layers[name].weight.copy_(old)  # type: ignore[operator, union-attr]
