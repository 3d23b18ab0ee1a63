"""What is read off the trained models of one world: KL, harm information, entropy and recovery mass by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from ..audit import Examinee, LiveSide, ModelSampler, PairedRollouts, make_requests, paired_rollouts, read_pair
from ..audit.reading import PairReading
from ..data import ChatFormat, Encoded
from ..geometry.arrays import Array
from ..judging import Judge, callable_judge
from ..lab import TabularPolicy
from ..lab.world import Request, World, score
from ..lab.world.requests import REFUSING, WORKING
from ..models import LoadedModel, ModelSpec, Start, load, logits_of
from ..probing import Row, ShardStore, TokenBudget
from ..training.rows import scored_hidden
from .pipeline_model import END, vocabulary, world_tokenizer

BUDGET = 16384
BEHIND = 7
"""Positions behind the deciding one: closing words, up to three of flattery, the end."""
REFUSAL = 8
"""Positions of a whole refusal with its end."""


def recovery_ids() -> list[int]:
    """Token ids that begin a refusal."""
    return [vocabulary()["sorry"]]


def longest(world: World) -> int:
    """Positions read: a whole reply, or a whole refusal where that is longer."""
    return max(world.decided + BEHIND, REFUSAL)


def opened(folder: Path) -> LoadedModel:
    """A trained model, frozen."""
    return load(ModelSpec(str(folder), dtype="float32", device="cpu"))


@dataclass(frozen=True)
class Bench:
    """One world with its held-out requests, and how often each is answered."""

    world: World
    asked: tuple[Request, ...]
    rows: int
    seed: int

    def replies(self, loaded: LoadedModel) -> list[Row]:
        """Sampled replies of a model to every request, `rows` each, the end of the text a token of its own."""
        chat, length = ChatFormat(loaded.tokenizer), longest(self.world)
        prompts = [tuple(chat.encode_prompt(one.prompt)) for one in self.asked for _ in range(self.rows)]
        starts = [Start(ids, (), length, seed=self.seed * 10**6 + k) for k, ids in enumerate(prompts)]
        found = ModelSampler(loaded.model, TokenBudget(BUDGET))(starts)
        ends = [(*reply.ids, END) if reply.ended else reply.ids for reply in found]
        return [
            Row((*ids, *said), len(ids), k // self.rows)
            for k, (ids, said) in enumerate(zip(prompts, ends, strict=True))
        ]

    def scores(self, loaded: LoadedModel, rows: Sequence[Row]) -> list[tuple[float, float]]:
        """(harm, refusal) of each reply."""
        texts = [text_of(loaded, row) for row in rows]
        found = [score(self.world, self.asked[row.item], text) for row, text in zip(rows, texts, strict=True)]
        return [(one.harm, one.refusal) for one in found]

    def paired(self, loaded: LoadedModel, judge: Judge, store: Path) -> PairedRollouts:
        """Two continuations of every prefix on a grid of depths that is fine where harm may be decided."""
        chat, decided = ChatFormat(loaded.tokenizer), self.world.decided
        kept = ShardStore(store, {"weights": loaded.weights_sha256, "rows": self.rows})
        sampler = ModelSampler(loaded.model, TokenBudget(BUDGET))
        examinee = Examinee("base", sampler, lambda ids: words_of(loaded, ids), judge, kept, self.seed)
        grid = sorted({0, 1, 2, decided // 2, decided - 1, decided, decided + 1, decided + 3})
        texts = [one.prompt for one in self.asked]
        return paired_rollouts(examinee, make_requests(texts, chat), grid, self.rows, longest(self.world))


def words_of(loaded: LoadedModel, ids: Sequence[int]) -> str:
    """Ids as words, the end left out."""
    return str(loaded.tokenizer.decode([token for token in ids if token != END]))


def text_of(loaded: LoadedModel, row: Row) -> str:
    """The reply of a row."""
    return words_of(loaded, row.ids[row.start :])


def gold_judge(world: World) -> Judge:
    """Exact harm and refusal from the text alone."""

    def gold(prompt: str, prefill: str, continuation: str) -> tuple[float, float]:
        found = score(world, prompt, f"{prefill} {continuation}")
        return found.harm, found.refusal

    return callable_judge(gold, f"gold-{world.seed}-{world.decided}")


def reward_judge(folder: Path, typical: Sequence[tuple[str, str]]) -> Judge:
    """Harm as a reward model sees it: the chance to lose against a typical reply, `sigmoid(mean - r)`, in [0, 1].

    `typical` are pairs of prompt and reply whose mean reward is the yardstick.
    """
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()
    chat = ChatFormat(world_tokenizer())

    def rewards(pairs: Sequence[tuple[str, str]]) -> list[float]:
        found = []
        with torch.no_grad():
            for prompt, reply in pairs:
                ids = [*chat.encode_prompt(prompt), *(vocabulary()[word] for word in reply.split()), END]
                found.append(float(model(torch.tensor([ids])).logits[0, 0]))
        return found

    mean = float(np.mean(rewards(typical)))

    def losing(prompt: str, prefill: str, continuation: str) -> tuple[float, float]:
        reward = rewards([(prompt, f"{prefill} {continuation}")])[0]
        return float(1 / (1 + np.exp(reward - mean))), 0.0

    return callable_judge(losing, f"reward-{folder}")


def compare(base: LoadedModel, other: LoadedModel, rows: Sequence[Row]) -> PairReading:
    """Both models at every position of `rows`: KL of `other` to `base`, and the log-odds of recovery tokens."""
    sides = LiveSide(base.model), LiveSide(other.model)
    return read_pair(*sides, rows, TokenBudget(BUDGET), base.device, recovery_ids())


def by_position(values: Array, length: int) -> Array:
    """`(length,)` sums over responses over their number: positions that a response does not reach add nothing."""
    found = np.zeros(length)
    means = np.nansum(values[:, :length], axis=0) / len(values)
    found[: len(means)] = means
    return found


def entropy_by_position(loaded: LoadedModel, rows: Sequence[Row], length: int) -> Array:
    """Entropy of the next token in nats at each position of the model's own replies, `(length,)`, as `by_position`."""
    found = np.full((len(rows), length), np.nan)
    with torch.no_grad():
        for start in range(0, len(rows), 128):
            part = [Encoded(row.ids, row.start) for row in rows[start : start + 128]]
            for k, hidden in enumerate(scored_hidden(loaded.model, part)):
                logs = torch.log_softmax(logits_of(loaded.model, hidden), dim=-1)
                values = -(logs.exp() * logs).sum(-1)[:length].double().numpy()
                found[start + k, : len(values)] = values
    return by_position(found, length)


def harmful_rows(loaded: LoadedModel, world: World, asked: Sequence[Request], seed: int, rows: int) -> list[Row]:
    """The model's own harmful replies to requests: the prefixes from which it is to turn back."""
    bench = Bench(world, tuple(asked), rows, seed)
    replies = bench.replies(loaded)
    harmful = [row for row, (harm, _) in zip(replies, bench.scores(loaded, replies), strict=True) if harm]
    return [Row(row.ids[:-1] if row.ids[-1] == END else row.ids, row.start, row.item) for row in harmful]


def equilibrium(world: World, strength: float) -> tuple[Array, float]:
    """KL by position `(T,)` and harm at the optimum of `strength E[H] + KL` under the law of the documents, exactly.

    The reduced world has the two choices that matter, whether to refuse and what to name; both are word 1 where that decides.
    """
    refuse, harm = REFUSING, WORKING
    kl = np.zeros(longest(world))
    if world.decided == 1:
        policy = TabularPolicy.from_probabilities([[[refuse, (1 - refuse) * harm, (1 - refuse) * (1 - harm)]]])
        leaves, places = np.array([0.0, 1.0, 0.0]), [0]
    else:
        policy = TabularPolicy.from_probabilities([[[refuse, 1 - refuse]], [[0.5, 0.5], [harm, 1 - harm]]])
        leaves, places = np.array([0.0, 0.0, 1.0, 0.0]), [0, world.decided - 1]
    best = policy.equilibrium(leaves, strength)
    kl[places] = best.per_position_kl(policy)
    return kl, best.harm_information(leaves).mean
