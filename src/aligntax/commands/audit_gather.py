"""Everything an audit asks of the two models, phase by phase, each a shard on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..audit import LiveSide, PairReading, read_pair
from ..data import ChatFormat, Encoded, Item, Task, choose_distractors
from ..errors import ModelError
from ..models import LoadedModel
from ..probing import Meter, Probe, Row, ShardStore, TokenBudget, answer_metric, item_values, tokens_of
from .alignment_texts import Speaker
from .audit_sizes import AuditSize
from .gather import rows_key
from .materials import Encoder, by_hash

FORMATS = ("plain", "chat")
OTHERS = 2


@dataclass(frozen=True)
class Model:
    """One of the two, ready to be run, and its shards."""

    loaded: LoadedModel
    probe: Probe
    store: ShardStore
    speaker: Speaker


@dataclass(frozen=True)
class Pair:
    """Both models under one tokenizer."""

    base: Model
    aligned: Model
    chat: ChatFormat
    meter: Meter
    size: AuditSize
    seed: int

    def both(self) -> tuple[Model, Model]:
        """Base, then aligned."""
        return self.base, self.aligned

    def read(self, name: str, rows: Sequence[Row], tokens: Sequence[int]) -> PairReading:
        """Both models' next-token laws on the same rows, in numbers."""

        def make() -> dict[str, np.ndarray]:
            found = read_pair(
                LiveSide(self.base.loaded.model), LiveSide(self.aligned.loaded.model), rows,
                self.aligned.probe.budget, self.aligned.probe.device, tokens,
            )  # fmt: skip
            assert found.odds_base is not None and found.odds_aligned is not None
            self.meter.advance(2 * tokens_of(rows))
            return {
                "forward": found.forward,
                "reverse": found.reverse,
                "prompts": found.prompts,
                "odds_base": found.odds_base,
                "odds_aligned": found.odds_aligned,
            }

        key = (self.base.loaded.weights_sha256, rows_key(rows), sorted(tokens))
        return PairReading(**self.aligned.store.get(f"reading-{name}", key, make))


def make_model(
    loaded: LoadedModel, chat: ChatFormat, meter: Meter, folder: ShardStore, tokens: int, seed: int
) -> Model:
    """A model with a probe of `tokens` a batch and shards in `folder`."""
    probe = Probe(loaded.model, loaded.device, TokenBudget(tokens), "all", (), meter.advance)
    return Model(loaded, probe, folder, Speaker(probe, folder, chat, seed))


def require_same_tokens(base: LoadedModel, aligned: LoadedModel) -> None:
    """Raises ModelError where the two do not read the same ids."""
    one, other = base.tokenizer.get_vocab(), aligned.tokenizer.get_vocab()
    if one != other:
        odd = sorted(set(one.items()) ^ set(other.items()), key=str)[0][0]
        raise ModelError(
            f"{base.name} and {aligned.name} have different vocabularies ({len(one)} and {len(other)} tokens, such as {odd!r}); "
            "an audit compares models of one tokenizer"
        )


def as_rows(encoded: Sequence[Encoded], most: int) -> list[Row]:
    """Responses as rows, at most `most` tokens of each; `item` is the prompt's number; empty responses are left out."""
    rows = [Row(row.ids[: row.start + most], row.start, k) for k, row in enumerate(encoded)]
    return [row for row in rows if len(row.ids) > row.start]


def audit_items(task: Task, count: int, seed: int) -> list[Item]:
    """Items that nothing else has read: the end of the order whose beginning a survey and a training run take.

    Answers without choices get another item's answer beside them, so that what all answers lose can be told from the rest.
    """
    chosen = last_items(task.items, count)
    if all(item.choices or item.prompts for item in chosen):
        return [choose_distractors(item, OTHERS, seed) for item in chosen]
    answers = [item.answer or "" for item in chosen]
    return [
        Item(
            item.prompt,
            choices=(answer, next(a for a in [*answers[k + 1 :], *answers[:k], f"{answer}?"] if a != answer)),
            gold=0,
        )
        for k, (item, answer) in enumerate(zip(chosen, answers, strict=True))
    ]


def last_items(items: Sequence[Item], count: int) -> list[Item]:
    """The `count` items that come last in the order whose beginning a survey and a training run take."""
    return [items[k] for k in by_hash([item.key for item in items], "items")[::-1][:count]]


def item_tokens(encoder: Encoder, items: Mapping[str, Sequence[Item]], formats: Sequence[str] = FORMATS) -> int:
    """Tokens of the rows that one model is scored on, by task, in all `formats`."""
    return sum(encoder.items(name, own, fmt).tokens for name, own in items.items() for fmt in formats)


def item_scores(
    model: Model, encoder: Encoder, name: str, items: Sequence[Item], formats: Sequence[str] = FORMATS
) -> dict[str, dict[str, list[float]]]:
    """Format -> item -> mean log-probability of each answer in nats per token, gold first."""
    found: dict[str, dict[str, list[float]]] = {}
    for fmt in formats:
        rows = encoder.items(name, items, fmt)

        def make(rows=rows) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
            return {"values": item_values(model.probe, rows.rows, answer_metric)}

        values = model.store.get(f"scores-{name}", (fmt, rows_key(rows.rows)), make)["values"]
        table: dict[str, list[float]] = {}
        for key, number in zip(rows.keys, range(len(items)), strict=True):
            own = [(row.weight, float(v)) for row, v in zip(rows.rows, values, strict=True) if row.item == number]
            table[key] = [v for w, v in own if w > 0] + [v for w, v in own if w < 0]
        found[fmt] = table
    return found
