"""What an alignment run trains on: requests with written refusals, and the model's own words from before training.

Everything the model says is made once, kept in shards that only the user can read, and never leaves them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..data import (
    ChatFormat,
    Encoded,
    Item,
    load_contrast,
    look_alikes,
    over_refusal_prompts,
    plain_pairs,
    refusal_openings,
    request_categories,
    write_recovery,
    write_refusal,
)
from ..errors import AligntaxError
from ..judging.verdict import Judge
from ..probing import Probe, ShardStore, generate, opens_refusal, rows_from_arrays, rows_to_arrays
from ..probing.batches import Row
from ..stats import split_hash
from ..training.rows import evenly

TRAIN_SHARE = 0.6
"""Share of the built-in prompts that training may see; the rest is for the audit."""
CLEAR = 0.2
"""Refusal score up to which a greedy reply is an answer beyond doubt."""


@dataclass(frozen=True)
class Requests:
    """Prompts of a run: refused, answered, and answered although they sound alarming.

    `sources`: sha256 of what was read, by name; `replies`: what a user wrote to some.
    """

    harmful: tuple[str, ...]
    harmless: tuple[str, ...]
    alarming: tuple[str, ...]
    sources: Mapping[str, str]
    replies: Mapping[str, str] = field(default_factory=dict)

    def refusals(self) -> list[str]:
        """A refusal of each harmful prompt: the user's, or a written one."""
        return [self.replies.get(p, own) for p, own in zip(self.harmful, refusals(self.harmful), strict=True)]


def training_part(prompts: Sequence[str], train: bool = True) -> tuple[str, ...]:
    """The 60% of built-in prompts that training may see, or the 40% that the audit scores; by content, not by order."""
    parts = split_hash(list(prompts), (TRAIN_SHARE, 1 - TRAIN_SHARE))
    return tuple(p for p, part in zip(prompts, parts, strict=True) if (part == 0) == train)


def load_requests(spec: str, alike: int) -> Requests:
    """Requests of `--safety`: the training part of the built-in ones, or all of a user's file.

    Harmless prompts that sound alarming are built in, beside a user's file too. The harmless prompts of `alike` pairs of
    look-alikes join them. The built-in requests are joined by the harmful ones and by as many plain pairs.
    Raises AligntaxError where a class is empty or the contrast has choices instead of prompts.
    """
    contrast = load_contrast(spec)
    if contrast.items or not contrast.positive or not contrast.negative:
        raise AligntaxError(f"--safety {spec}: alignment needs harmful and harmless prompts, not choices")
    harmful, harmless, alarming = contrast.positive, contrast.negative, training_part(over_refusal_prompts())
    sources = {contrast.source: contrast.sha256}
    builtin = contrast.source.startswith("builtin:")
    if builtin:
        harmful, harmless = training_part(harmful), training_part(harmless)
    if alike:
        twins = look_alikes()
        bad, good = evenly(twins.positive, alike), evenly(twins.negative, alike)
        alarming = (*alarming, *good)
        sources[twins.source] = twins.sha256
        if builtin:
            more = plain_pairs()
            harmful = (*harmful, *bad, *evenly(more.positive, alike))
            harmless = (*harmless, *evenly(more.negative, alike))
            sources[more.source] = more.sha256
    return Requests(harmful, harmless, alarming, sources, contrast.replies)


@dataclass(frozen=True)
class Speaker:
    """The model before training, as an author: replies are ids, made once and kept."""

    probe: Probe
    store: ShardStore
    chat: ChatFormat
    seed: int

    def replies(self, name: str, prompts: Sequence[str], tokens: int, draw: int = 0) -> list[Encoded]:
        """The model's own reply to each prompt as a row, at most `tokens` long: greedy, or draw 1, 2, .. at temperature 1.

        Those to built-in pairs are kept apart, since runs of different length take different ones.
        """
        known = frozenset(
            prompt for pairs in (look_alikes(), plain_pairs()) for prompt in (*pairs.positive, *pairs.negative)
        )
        found: dict[int, Encoded] = {}
        for shard in (name, f"{name}-alike"):
            places = [k for k, prompt in enumerate(prompts) if (prompt in known) == (shard != name)]
            found |= zip(places, self._said(shard, [prompts[k] for k in places], tokens, draw), strict=True)
        return [found[k] for k in range(len(prompts))]

    def _said(self, name: str, prompts: Sequence[str], tokens: int, draw: int) -> list[Encoded]:
        """Replies made once and kept under a name."""
        if not prompts:
            return []
        ids = [self.chat.encode_prompt(prompt) for prompt in prompts]

        def make() -> dict[str, np.ndarray]:
            found = generate(self.probe, ids, tokens, sample=draw > 0, seed=self.seed + draw)
            pairs = [Row(tuple(p + r), len(p), k) for k, (p, r) in enumerate(zip(ids, found, strict=True))]
            return rows_to_arrays(pairs)

        key = (ids, tokens, draw) if draw else (ids, tokens)
        rows = rows_from_arrays(self.store.get(f"said-{name}", key, make))
        return [Encoded(row.ids, row.start) for row in rows]

    def text(self, row: Encoded) -> str:
        """The reply in a row as text, special tokens dropped."""
        return str(self.chat.tokenizer.decode(list(row.ids[row.start :]), skip_special_tokens=True))

    def complied(self, rows: Sequence[Encoded]) -> list[int]:
        """Rows whose reply is not empty and does not open as a refusal."""
        return [k for k, row in enumerate(rows) if len(row.ids) > row.start and not opens_refusal(self.text(row))]

    def answers(
        self, name: str, prompts: Sequence[str], tokens: int, draws: int, judge: Judge
    ) -> tuple[list[Encoded], list[int]]:
        """A reply to each prompt and which of them are answers: the greedy one, and where `judge` hears a refusal another draw.

        With one draw nothing is judged and a reply counts unless it opens as a refusal. With more, the greedy reply is kept
        where its refusal score is at most CLEAR, else the least refusing of the draws, and it counts below one half.
        """
        chosen = self.replies(name, prompts, tokens)
        if draws == 1:
            return chosen, self.complied(chosen)
        scores = self._scores(prompts, chosen, judge)
        unclear = np.flatnonzero(scores > CLEAR).tolist()
        asked = [prompts[k] for k in unclear]
        for draw in range(1, draws if asked else 1):
            drawn = self.replies(f"{name}-{draw}", asked, tokens, draw)
            for k, row, score in zip(unclear, drawn, self._scores(asked, drawn, judge).tolist(), strict=True):
                if score < scores[k]:
                    chosen[k], scores[k] = row, score
        return chosen, [k for k in self.complied(chosen) if scores[k] < 0.5]

    def _scores(self, prompts: Sequence[str], rows: Sequence[Encoded], judge: Judge) -> np.ndarray:
        """Refusal score of each reply `(n,)`; 1 where the judge failed."""
        said = judge(list(prompts), [""] * len(prompts), [self.text(row) for row in rows])
        return np.array([verdict.refusal if verdict.judged else 1.0 for verdict in said])


def recovery_tokens(chat: ChatFormat) -> list[int]:
    """First tokens of every written opening, with and without a space before it: where a model can turn back."""
    openings = {opening.split(".")[0] for opening in refusal_openings()}
    heads = [chat.encode_reply(opening) for opening in openings]
    heads += [chat.tokenizer.encode(f" {opening}", add_special_tokens=False) for opening in openings]
    return sorted({ids[0] for ids in heads if ids})


def refusals(prompts: Sequence[str]) -> list[str]:
    """A written refusal for each prompt."""
    kinds = request_categories()
    return [write_refusal(prompt, kinds.get(prompt)) for prompt in prompts]


def recoveries(prompts: Sequence[str], chat: ChatFormat, tokens: Sequence[int]) -> list[list[int]]:
    """Ids of a written recovery for each prompt, beginning with a recovery token, to follow a broken-off answer."""
    kinds = request_categories()
    found = []
    for prompt in prompts:
        ids = chat.tokenizer.encode(f" {write_recovery(prompt, kinds.get(prompt))}", add_special_tokens=False)
        assert ids[0] in tokens
        found.append([*ids, *([chat.tokenizer.eos_token_id] if chat.tokenizer.eos_token_id is not None else [])])
    return found


def conversation(prompt: str, reply: str, system: str | None) -> dict[str, list[dict[str, str]]]:
    """One row of TRL's conversational prompt-completion format."""
    before = [{"role": "system", "content": system}] if system else []
    return {
        "prompt": [*before, {"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": reply}],
    }


def capability_rows(items: Sequence[Item], encode: Callable[[Item, str], Sequence[Encoded]]) -> list[Encoded]:
    """The gold sequence of each item, in running text and as a conversation: what capabilities read and write."""
    rows = []
    for number, item in enumerate(items):
        encoded = encode(item, "plain" if number % 2 else "chat")
        rows.append(encoded[item.gold if len(encoded) > 1 and item.gold is not None else 0])
    return rows
