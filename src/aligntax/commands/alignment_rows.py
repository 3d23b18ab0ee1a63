"""Rows of a run by use: conversations to learn, pairs to prefer, prompts to explore, texts to hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data import ChatFormat, Encoded, read_preferences
from ..errors import AligntaxError
from ..judging.classifier import reward_judge
from ..probing import Meter, opens_refusal
from ..training import ScoredItem, Subspace
from .alignment_mix import MixedRow, mixed, passes, slots
from .alignment_reads import hears_harm, rows_of_a_run
from .alignment_texts import Requests, Speaker, conversation, refusals
from .recovery_tokens import own_tokens

if TYPE_CHECKING:
    from .align import AlignCommand

HARMFUL_TOKENS = 64
"""Length of the model's own harmful continuations, the prefixes of recovery training."""
MOST_KEPT = 100
"""Augmentation keeps 1 to this many tokens of a harmful continuation."""


@dataclass(frozen=True)
class Rows:
    """Everything a trainer or a protection reads. `harmful[k]` is the continuation of `harmful_prompts[k]`; `turns` are tokens
    that begin the model's own refusals.

    `data` maps what was read to its sha256.
    """

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
    data: dict[str, str] = field(default_factory=dict)
    subspaces: dict[str, Subspace] = field(default_factory=dict)
    directions: dict[int, torch.Tensor] = field(default_factory=dict)
    turns: list[int] = field(default_factory=list)

    def with_subspaces(self, found: dict[str, Subspace]) -> Rows:
        """The same with protected input directions."""
        return replace(self, subspaces=found)

    def with_directions(self, found: dict[int, torch.Tensor]) -> Rows:
        """The same with directions of the residual stream."""
        return replace(self, directions=found)


@dataclass(frozen=True)
class Anchor:
    """A harmless prompt, its answer as a row, whether it sounds alarming, and the greedy reply.

    The answer is the model's own, or `given` by the user.
    """

    prompt: str
    row: Encoded
    alarming: bool
    first: Encoded
    given: bool = False

    def cut_off(self, tokens: int) -> bool:
        """The model's answer has as many tokens as were asked for, so it did not come to its end."""
        return not self.given and len(self.row.ids) - self.row.start >= tokens


@dataclass(frozen=True)
class Said:
    """What the model said before training: answers to harmless prompts, and `fell`: harmful prompts that it went along with.

    `written` are refusals of all harmful prompts; `spoken[k]` continues prompt `k`.
    """

    anchors: list[Anchor]
    written: list[str]
    spoken: list[Encoded]
    fell: list[int]

    @property
    def harmful(self) -> list[Encoded]:
        """Its harmful continuations."""
        return [self.spoken[k] for k in self.fell]


def speak(command: AlignCommand, speaker: Speaker, requests: Requests, meter: Meter) -> Said:
    """Let the model speak. Raises AligntaxError where it refuses everything and prefixes are needed."""
    tokens, draws, judge = command.completion_tokens, command.draws, reward_judge()
    every = [(p, False) for p in requests.harmless] + [(p, True) for p in requests.alarming]
    asked = [(p, alarming) for p, alarming in every if p not in requests.replies]
    prompts = [p for p, _ in asked]
    tempted = requests.harmful if hears_harm(command) else ()
    with meter.phase("own replies", draws * (len(prompts) * tokens + len(tempted) * HARMFUL_TOKENS)):
        answered, kept = speaker.answers("anchors", prompts, tokens, draws, judge)
        spoken, fell = speaker.answers("harmful", tempted, HARMFUL_TOKENS, draws, judge)
    if not fell and command.depth != "none":
        raise AligntaxError(
            f"the model refuses all {len(requests.harmful)} harmful prompts, so there are no harmful beginnings to recover from; "
            "leave out --depth, give other prompts, or draw more replies (--draws)"
        )
    first = speaker.replies("anchors", prompts, tokens)
    anchors = [Anchor(prompts[k], answered[k], asked[k][1], first[k]) for k in kept]
    given = [(p, alarming) for p, alarming in every if p in requests.replies]
    return Said([*anchors, *_given(command, speaker, given, requests)], requests.refusals(), spoken, fell)


def _given(
    command: AlignCommand, speaker: Speaker, prompts: Sequence[tuple[str, bool]], requests: Requests
) -> list[Anchor]:
    """Anchors whose answer the user wrote; the model is asked too where pairs forbid its refusals."""
    rows = [encoded_reply(speaker.chat, p, requests.replies[p]) for p, _ in prompts]
    first = rows
    if prompts and command.harmless_pairs:
        first = speaker.replies("answered", [p for p, _ in prompts], command.completion_tokens)
    return [Anchor(p, rows[k], alarming, first[k], True) for k, (p, alarming) in enumerate(prompts)]


def training_rows(
    command: AlignCommand,
    speaker: Speaker,
    requests: Requests,
    meter: Meter,
    capability: tuple[list[Encoded], dict[str, list[ScoredItem]]],
) -> Rows:
    """Let the model speak, then lay out rows. Raises as `speak`."""
    said, chat, (rows, scored) = speak(command, speaker, requests, meter), speaker.chat, capability
    written = [encoded_reply(chat, p, t) for p, t in zip(requests.harmful, said.written, strict=True)]
    learn = [_closed(chat, row, True, refusal=True) for row in written]
    # A reply that was cut off must not be learnt as one that ends there.
    cut = [a.cut_off(command.completion_tokens) for a in said.anchors]
    anchored = [_closed(chat, a.row, not c, alarming=a.alarming) for a, c in zip(said.anchors, cut, strict=True)]
    own = [a.row for a in said.anchors]
    safety = command.goal == "safety"
    return Rows(
        conversations=_conversations(command, (learn, anchored), rows, said.harmful),
        pairs=_pairs(command, requests, said, speaker),
        prompts=[
            {"prompt": conversation(p, "", chat.system)["prompt"], "harmful": bad}
            for group, bad in ((requests.harmful, True), ((*requests.harmless, *requests.alarming), False))
            for p in group
        ],
        harmful=said.harmful,
        harmful_prompts=[requests.harmful[k] for k in said.fell],
        anchors=own,
        protected=[*rows, *own] if safety else [*written, *own],
        moved=[*written, *own],
        scored=scored,
        requests=requests,
        turns=_turns(speaker, requests, said) if command.depth == "recovery" else [],
    )


def _turns(speaker: Speaker, requests: Requests, said: Said) -> list[int]:
    """Tokens that begin the model's refusals, from greedy replies that were made already."""
    replies = speaker.replies("harmful", requests.harmful, HARMFUL_TOKENS)
    return own_tokens(speaker, replies, [a.first for a in said.anchors if not a.given])


def encoded_reply(chat: ChatFormat, prompt: str, reply: str) -> Encoded:
    """Prompt and reply as a row, the reply scored."""
    head = chat.encode_prompt(prompt)
    return Encoded((*head, *chat.encode_reply(reply)), len(head))


def _conversations(
    command: AlignCommand,
    said: tuple[list[MixedRow], list[MixedRow]],
    rows: Sequence[Encoded],
    harmful: Sequence[Encoded],
) -> list[dict[str, Any]]:
    """Refusals and anchors in their shares; with replay half as many capability items again; ids, so that tokens are exact."""
    if command.goal == "capability":
        return [_ids(row) for row in rows]
    mix = command.mix()
    replay = "replay" in command.protect
    # Laid-out batches reach the trainer as they stand, so there must be rows for every step; two thirds beside the replayed.
    # Where epochs say when to stop, one epoch is every row once (0).
    wanted = (rows_of_a_run(command) or 0) if mix.ordered else 0
    learnt = mixed(*said, mix, math.ceil(wanted * 2 / 3) if replay else wanted)
    if command.depth == "augmentation":
        learnt = [_augmented(row, k, harmful, command.seed) if row.refusal else row for k, row in enumerate(learnt)]
    if not replay:
        return [_ids(row) for row in learnt]
    again = rows[: max(1, len(learnt) // 2)]
    if not mix.ordered:
        return [_ids(row) for row in [*learnt, *again]]
    order = passes(len(rows), len(learnt) // 2, np.random.default_rng([command.seed, 1]))
    return [_ids(row) for row in spread(learnt, [rows[k] for k in order])]


def spread(many: Sequence[Encoded], few: Sequence[Encoded]) -> list[Encoded]:
    """Both in their own order, `few` spread evenly among `many`."""
    places, one, two = slots(len(many) + len(few), len(few) / (len(many) + len(few))), iter(many), iter(few)
    return [next(two if place else one) for place in places]


def _closed(chat: ChatFormat, row: Encoded, ended: bool, refusal: bool = False, alarming: bool = False) -> MixedRow:
    """The row with the end of the turn, where the reply came to its end."""
    end = chat.tokenizer.eos_token_id
    ids = (*row.ids, end) if ended and end is not None else row.ids
    return MixedRow(ids, row.start, refusal, alarming, row.start)


def _ids(row: Encoded) -> dict[str, Any]:
    """A row as TRL takes it ready made: ids, and labels of -100 where nothing is learnt."""
    return {"input_ids": list(row.ids), "labels": [-100] * row.start + list(row.ids[row.start :])}


def _augmented(row: MixedRow, number: int, harmful: Sequence[Encoded], seed: int) -> MixedRow:
    """With probability 1/2: 1..100 tokens of a harmful continuation of the same prompt, then the refusal, which alone is learnt."""
    rng = np.random.default_rng([seed, number])
    prompt = row.ids[: row.start]
    own = [h for h in harmful if h.ids[: h.start] == prompt]
    if not own or rng.random() < 0.5:
        return row
    kept = own[0].ids[row.start : row.start + int(rng.integers(1, MOST_KEPT + 1))]
    return MixedRow((*prompt, *kept, *row.ids[row.start :]), row.start + len(kept), True, False, row.start)


def harmless_pairs(anchors: Sequence[Anchor], speaker: Speaker, tokens: int) -> list[dict[str, Any]]:
    """Pairs that forbid refusing: the model's own answer to a harmless prompt over its own refusal of it, or a written one.

    An answer that was cut off ends at its last whole sentence; without one it is left out, since its end would be learnt.
    """
    found = []
    for anchor, refusal in zip(anchors, refusals([a.prompt for a in anchors]), strict=True):
        text = speaker.text(anchor.row)
        whole = text if not anchor.cut_off(tokens) else text[: max(text.rfind(mark) for mark in ".!?\n") + 1].strip()
        if whole:
            turns = conversation(anchor.prompt, whole, speaker.chat.system)
            own = speaker.text(anchor.first)
            rejected = [{"role": "assistant", "content": own if opens_refusal(own) else refusal}]
            found.append({"prompt": turns["prompt"], "chosen": turns["completion"], "rejected": rejected})
    return found


def _pairs(command: AlignCommand, requests: Requests, said: Said, speaker: Speaker) -> list[dict[str, Any]]:
    """Preference pairs: of a user's file, or the written refusal over the model's own compliance; with harmless ones if asked.

    Of a file only as many are drawn as the run will read, all where it runs for epochs: the reference model scores every pair
    before the first step.
    """
    more = harmless_pairs(said.anchors, speaker, command.completion_tokens) if command.harmless_pairs else []
    if command.preferences:
        given = read_preferences(command.preferences)
        wanted = min(len(given), rows_of_a_run(command) or len(given))
        chosen = passes(len(given), wanted, np.random.default_rng(command.seed))
        return [*(given[k] for k in chosen), *more]
    found = []
    for k in said.fell:
        turns = conversation(requests.harmful[k], said.written[k], speaker.chat.system)
        rejected = [{"role": "assistant", "content": speaker.text(said.spoken[k])}]
        found.append({"prompt": turns["prompt"], "chosen": turns["completion"], "rejected": rejected})
    return [*found, *more]
