"""Rows of a run by use: conversations to learn, pairs to prefer, prompts to explore, texts to hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data import ChatFormat, Encoded, read_preferences
from ..errors import AligntaxError
from ..probing import Meter
from ..training import ScoredItem, Subspace
from .alignment_texts import Requests, Speaker, conversation, refusals

if TYPE_CHECKING:
    from .align import AlignCommand

HARMFUL_TOKENS = 64
"""Length of the model's own harmful continuations, the prefixes of recovery training."""
MOST_KEPT = 100
"""Augmentation keeps 1 to this many tokens of a harmful continuation."""


@dataclass(frozen=True)
class Rows:
    """Everything a trainer or a protection reads. `harmful[k]` is the continuation of `harmful_prompts[k]`."""

    conversations: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    prompts: list[dict[str, Any]]
    harmful: list[Encoded]
    harmful_prompts: list[str]
    anchors: list[Encoded]
    protected: list[Encoded]
    moved: list[Encoded]
    scored: dict[str, list[ScoredItem]]
    requests: Requests
    subspaces: dict[str, Subspace] = field(default_factory=dict)
    directions: dict[int, torch.Tensor] = field(default_factory=dict)

    def with_subspaces(self, found: dict[str, Subspace]) -> Rows:
        """The same with protected input directions."""
        return replace(self, subspaces=found)

    def with_directions(self, found: dict[int, torch.Tensor]) -> Rows:
        """The same with directions of the residual stream."""
        return replace(self, directions=found)


def training_rows(
    command: AlignCommand,
    speaker: Speaker,
    requests: Requests,
    meter: Meter,
    capability: tuple[list[Encoded], dict[str, list[ScoredItem]]],
) -> Rows:
    """Let the model speak, then lay out rows. Raises AligntaxError where it refuses everything and prefixes are needed."""
    chat, tokens = speaker.chat, command.completion_tokens
    anchor_prompts = [*requests.harmless, *requests.alarming]
    with meter.phase("own replies", (len(anchor_prompts) + len(requests.harmful)) * tokens):
        answered = speaker.replies("anchors", anchor_prompts, tokens)
        spoken = speaker.replies("harmful", requests.harmful, HARMFUL_TOKENS)
    kept = speaker.complied(answered)
    anchors = [(anchor_prompts[k], answered[k]) for k in kept]
    fell = speaker.complied(spoken)
    if not fell and command.depth != "none":
        raise AligntaxError(
            f"the model refuses all {len(requests.harmful)} harmful prompts, so there are no harmful beginnings to recover from; "
            "leave out --depth or give other prompts"
        )
    rows, scored = capability
    texts = refusals(requests.harmful)
    written = [encoded_reply(chat, p, t) for p, t in zip(requests.harmful, texts, strict=True)]
    learn = [_closed(chat, row, True, True) for row in written]
    # A reply that was cut off must not be learnt as one that ends there.
    anchored = [_closed(chat, row, len(row.ids) - row.start < tokens, False) for _, row in anchors]
    holding = rows if command.goal == "safety" else [*written, *[row for _, row in anchors]]
    return Rows(
        conversations=_conversations(command, (learn, anchored), rows, speaker, [spoken[k] for k in fell]),
        pairs=_pairs(command, requests, texts, speaker, spoken, fell),
        prompts=[
            {"prompt": conversation(p, "", chat.system)["prompt"], "harmful": bad}
            for group, bad in ((requests.harmful, True), (anchor_prompts, False))
            for p in group
        ],
        harmful=[spoken[k] for k in fell],
        harmful_prompts=[requests.harmful[k] for k in fell],
        anchors=[row for _, row in anchors],
        protected=[*holding, *([row for _, row in anchors] if command.goal == "safety" else [])],
        moved=[*written, *[row for _, row in anchors]],
        scored=scored,
        requests=requests,
    )


def encoded_reply(chat: ChatFormat, prompt: str, reply: str) -> Encoded:
    """Prompt and reply as a row, the reply scored."""
    head = chat.encode_prompt(prompt)
    return Encoded((*head, *chat.encode_reply(reply)), len(head))


def _conversations(
    command: AlignCommand,
    said: tuple[list[RefusalRow], list[RefusalRow]],
    rows: Sequence[Encoded],
    speaker: Speaker,
    harmful: Sequence[Encoded],
) -> list[dict[str, Any]]:
    """Refusals and anchors in equal parts; with replay half as many capability items again; ids, so that tokens are exact."""
    if command.goal == "capability":
        return [_ids(row) for row in rows]
    learnt = balanced(*said, command.seed)
    if command.depth == "augmentation":
        learnt = [_augmented(row, k, harmful, command.seed) if row.refusal else row for k, row in enumerate(learnt)]
    replay = rows[: max(1, len(learnt) // 2)] if "replay" in command.protect else []
    return [_ids(row) for row in [*learnt, *replay]]


def balanced(first: Sequence[RefusalRow], second: Sequence[RefusalRow], seed: int) -> list[RefusalRow]:
    """Alternating rows of both in a drawn order, the shorter one repeated. Raises AligntaxError where one is empty."""
    if not first or not second:
        raise AligntaxError(f"{len(first)} refusals and {len(second)} anchors; training needs both")
    count = max(len(first), len(second))
    rng = np.random.default_rng(seed)
    orders = [
        [int(k) for _ in range(-(-count // len(part))) for k in rng.permutation(len(part))] for part in (first, second)
    ]
    pairs = zip(orders[0][:count], orders[1][:count], strict=True)
    return [row for a, b in pairs for row in (first[a], second[b])]


@dataclass(frozen=True)
class RefusalRow(Encoded):
    """A row that knows whether it is a refusal."""

    refusal: bool = False


def _closed(chat: ChatFormat, row: Encoded, ended: bool, refusal: bool) -> RefusalRow:
    """The row with the end of the turn, where the reply came to its end."""
    end = chat.tokenizer.eos_token_id
    return RefusalRow((*row.ids, end) if ended and end is not None else row.ids, row.start, refusal)


def _ids(row: Encoded) -> dict[str, Any]:
    """A row as TRL takes it ready made: ids, and labels of -100 where nothing is learnt."""
    return {"input_ids": list(row.ids), "labels": [-100] * row.start + list(row.ids[row.start :])}


def _augmented(row: RefusalRow, number: int, harmful: Sequence[Encoded], seed: int) -> RefusalRow:
    """With probability 1/2: 1..100 tokens of a harmful continuation of the same prompt, then the refusal, which alone is learnt."""
    rng = np.random.default_rng([seed, number])
    prompt = row.ids[: row.start]
    own = [h for h in harmful if h.ids[: h.start] == prompt]
    if not own or rng.random() < 0.5:
        return row
    kept = own[0].ids[row.start : row.start + int(rng.integers(1, MOST_KEPT + 1))]
    return RefusalRow((*prompt, *kept, *row.ids[row.start :]), row.start + len(kept), True)


def _pairs(
    command: AlignCommand,
    requests: Requests,
    texts: Sequence[str],
    speaker: Speaker,
    spoken: Sequence[Encoded],
    fell: Sequence[int],
) -> list[dict[str, Any]]:
    """Preference pairs: of a user's file, or the written refusal over the model's own compliance."""
    if command.preferences:
        return read_preferences(Path(command.preferences))
    found = []
    for k in fell:
        turns = conversation(requests.harmful[k], texts[k], speaker.chat.system)
        rejected = [{"role": "assistant", "content": speaker.text(spoken[k])}]
        found.append({"prompt": turns["prompt"], "chosen": turns["completion"], "rejected": rejected})
    return found
