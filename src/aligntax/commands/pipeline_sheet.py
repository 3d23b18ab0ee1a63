"""What is measured of one stage, item by item: the sheet that later stages are compared with. It holds numbers, never text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..audit import LiveSide, read_pair
from ..data import ChatFormat, Encoded, Task
from ..models import LoadedModel, ModelSpec, answer_logprobs, load
from ..probing import Batch, Meter, Row, ShardStore, TokenBudget, generate, item_values
from ..results import write_json
from .audit_gather import Model, item_scores, make_model
from .materials import Encoder

HIGH, LOW = "high", "low"


@dataclass(frozen=True)
class Sheet:
    """Numbers of one policy by item. `texts`: document -> [nats, tokens]; `right`: task -> item -> share of formats answered right;
    `logprobs`: task -> format -> item -> nats per token of each answer, gold first; `said`: score -> prompt -> value;
    `kl`: prompt -> [nats of its reply, tokens], against the policy that it came from."""

    texts: dict[str, list[float]]
    right: dict[str, dict[str, float]]
    logprobs: dict[str, dict[str, dict[str, list[float]]]]
    said: dict[str, dict[str, float]]
    kl: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Exam:
    """What every stage is asked, and how its replies are marked.

    `texts` are documents as rows; `tasks` capabilities; `contrasts` score -> items whose gold choice is the good reply;
    `harmful` and `harmless` prompts that training never saw; `questions` prompts that are answered greedily. `mark` scores
    replies: `(kind, prompts, replies) -> score -> values`, kind `harmful`, `harmless` or `questions`; nan leaves an item out.
    """

    texts: Callable[[ChatFormat], Sequence[Encoded]]
    tasks: Sequence[Task]
    contrasts: Mapping[str, Task]
    harmful: Sequence[str]
    harmless: Sequence[str]
    questions: Sequence[str]
    mark: Callable[[str, Sequence[str], Sequence[str]], Mapping[str, Sequence[float]]]
    reply_tokens: int
    batch_tokens: int
    seed: int


def key(text: str) -> str:
    """A prompt's id in a sheet: the beginning of its sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def examine(exam: Exam, folder: str, previous: str | None, path: Path, meter: Meter) -> Sheet:
    """The sheet of the checkpoint in `folder`, read from `path` where it was made before."""
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Sheet)
    loaded = load(ModelSpec(folder))
    chat = ChatFormat(loaded.tokenizer)
    model = make_model(loaded, chat, meter, ShardStore(None, {}), exam.batch_tokens, exam.seed)
    replies = {kind: _replies(model, exam, kind) for kind in ("harmful", "harmless", "questions")}
    found = Sheet(*_read(model, exam, loaded), said=_marks(exam, chat, replies), kl={})
    if previous is not None:
        before = load(ModelSpec(previous))
        found.kl.update(_kl(before, model, exam, [*replies["harmful"], *replies["harmless"]]))
    write_json(path, found)
    return found


def _read(
    model: Model, exam: Exam, loaded: LoadedModel
) -> tuple[dict[str, list[float]], dict[str, dict[str, float]], dict[str, dict[str, dict[str, list[float]]]]]:
    """Texts, shares right, log-probabilities: everything that needs no replies."""
    encoder = Encoder(model.speaker.chat, loaded.context_length or 2**20, 1, exam.seed)
    documents = [Row(d.ids, d.start, k) for k, d in enumerate(exam.texts(model.speaker.chat))]
    nats = item_values(model.probe, documents, _total)
    texts = {
        key(str(row.ids)): [-float(v), float(len(row.ids) - row.start)] for row, v in zip(documents, nats, strict=True)
    }
    logprobs = {task.name: item_scores(model, encoder, task.name, task.items) for task in exam.tasks}
    chosen = {name: item_scores(model, encoder, name, task.items) for name, task in exam.contrasts.items()}
    right = {name: _right(scores) for name, scores in (logprobs | chosen).items()}
    return texts, right, logprobs


def _total(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Log-probability of each row's scored tokens, nats."""
    found = answer_logprobs(model, batch.ids, batch.mask, batch.scored)
    return torch.as_tensor(found.means() * batch.scored.sum(1).to(found.means().device))


def _right(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Item -> share of formats in which the gold answer is the likeliest per token."""
    items = next(iter(scores.values()))
    return {
        item: float(np.mean([found[item][0] > max(found[item][1:]) for found in scores.values()])) for item in items
    }


def _replies(model: Model, exam: Exam, kind: str) -> list[tuple[str, list[int], list[int]]]:
    """(prompt, its ids, ids of the reply) for each prompt of a kind; sampled, but questions greedily."""
    prompts: Sequence[str] = getattr(exam, kind)
    if not prompts:
        return []
    ids = [model.speaker.chat.encode_prompt(prompt) for prompt in prompts]
    said = generate(model.probe, ids, exam.reply_tokens, sample=kind != "questions", seed=exam.seed)
    return list(zip(prompts, ids, said, strict=True))


def _marks(
    exam: Exam, chat: ChatFormat, replies: Mapping[str, Sequence[tuple[str, list[int], list[int]]]]
) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for kind, rows in replies.items():
        if not rows:
            continue
        prompts = [prompt for prompt, *_ in rows]
        texts = [str(chat.tokenizer.decode(reply, skip_special_tokens=True)) for *_, reply in rows]
        for name, values in exam.mark(kind, prompts, texts).items():
            kept = {key(p): float(v) for p, v in zip(prompts, values, strict=True) if v == v}
            found[name] = found.get(name, {}) | kept
    return found


def _kl(
    before: LoadedModel, model: Model, exam: Exam, replies: Sequence[tuple[str, list[int], list[int]]]
) -> dict[str, list[float]]:
    """Prompt -> [KL(this | previous) summed over the reply and its end, positions], on this policy's own replies."""
    end = model.loaded.tokenizer.eos_token_id
    rows = []
    for k, (_, ids, said) in enumerate(replies):
        # A reply that came to its end chose to end: that choice counts too.
        closed = [*said, end] if len(said) < exam.reply_tokens and end is not None else said
        rows.append(Row(tuple(ids + closed), len(ids), k))
    rows = [row for row in rows if len(row.ids) > row.start]
    if not rows:
        return {}
    reading = read_pair(
        LiveSide(before.model), LiveSide(model.loaded.model), rows, TokenBudget(exam.batch_tokens), model.probe.device
    )
    return {
        key(replies[row.item][0]): [float(np.nansum(own)), float(np.isfinite(own).sum())]
        for row, own in zip(rows, reading.forward, strict=True)
    }
