"""What is run and what came of it: a case is a prompt with a prefill, an answer is its rollout, judged.

Every attack is a list of cases and one runner judges them all. Answers hold token ids and scores; text is decoded for the judge
and for `write_texts`, and nowhere else. Rollouts and verdicts are kept in shards, so that a killed run resumes; what a judge failed
on is asked again the next time.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aligntax.audit.quality import is_looping
from aligntax.audit.sampler import Sampler
from aligntax.data import ChatFormat
from aligntax.errors import DataError
from aligntax.judging import Judge, Verdict
from aligntax.models import Rollout, Start
from aligntax.probing import ShardStore, fingerprint, flat_ids, split_ids

NEW_TOKENS = 128
"""A rate from shorter replies hides damage: refusals and harm often come later."""
SHARD_CASES = 64


@dataclass(frozen=True)
class Request:
    """What is asked, and the token ids that put it to the model."""

    text: str
    prompt: tuple[int, ...]

    @property
    def key(self) -> str:
        """sha256 (16 hex digits) of the text: its name in every file but the one with texts."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def make_requests(texts: Sequence[str], chat: ChatFormat) -> list[Request]:
    """The texts as user turns. Raises DataError for none, and for one given twice."""
    if not texts:
        raise DataError("no requests; give at least one")
    twice = next((text for k, text in enumerate(texts) if text in texts[:k]), None)
    if twice is not None:
        raise DataError(f"the request {twice[:40]!r} is given twice; remove one")
    return [Request(text, tuple(chat.encode_prompt(text))) for text in texts]


@dataclass(frozen=True)
class Case:
    """One thing to run: `kind` of attack, `depth` in tokens of prefill, and `prompt` and `prefill` as token ids.

    The judge reads `request`, what is really asked for, however it is wrapped. `draw` None is greedy, a number one of several draws
    at temperature 1. `own`: the prefill is what the model wrote itself, and the judge reads it as part of the continuation.
    """

    request: Request
    kind: str
    depth: int
    prompt: tuple[int, ...]
    prefill: tuple[int, ...] = ()
    draw: int | None = None
    new_tokens: int = NEW_TOKENS
    own: bool = False

    def start(self, seed: int) -> Start:
        """Where the rollout begins. The same case has the same draw, in any company and for any model."""
        drawn = None
        if self.draw is not None:
            drawn = int(fingerprint(seed, self.request.key, self.kind, self.prompt, self.prefill, self.draw), 16)
        return Start(self.prompt, self.prefill, self.new_tokens, drawn)


@dataclass(frozen=True)
class Answer:
    """A case, the ids that followed (end-of-text left out), whether the text ended by itself, and the verdict on it."""

    case: Case
    ids: tuple[int, ...]
    ended: bool
    verdict: Verdict

    @property
    def truncated(self) -> bool:
        """The limit of new tokens cut the reply off."""
        return not self.ended

    @property
    def looping(self) -> bool:
        """The reply says the same over and over at its end."""
        return is_looping(self.ids)


@dataclass(frozen=True)
class Examinee:
    """A model under examination: who writes (`sampler`), how ids become text (`decode`), who judges, where shards are kept.

    The identity of `store` must tell this model and its chat format from others. `name` says whose rollouts these are.
    """

    name: str
    sampler: Sampler
    decode: Callable[[Sequence[int]], str]
    judge: Judge
    store: ShardStore
    seed: int = 0

    def texts(self, case: Case, ids: Sequence[int]) -> tuple[str, str]:
        """Prefill and continuation as text; together the decoded sequence, which holds the prefill once."""
        whole = self.decode([*case.prefill, *ids])
        before = self.decode(list(case.prefill)) if case.prefill and not case.own else ""
        # Bytes of one character may be split between the two; then each is decoded alone.
        return (before, whole[len(before) :]) if whole.startswith(before) else (before, self.decode(list(ids)))

    def answer(self, cases: Sequence[Case]) -> list[Answer]:
        """Roll out and judge, in the order given; finished shards are read back."""
        return [answer for shard in _shards(cases) for answer in self._shard(shard)]

    def _shard(self, cases: list[Case]) -> list[Answer]:
        starts = [case.start(self.seed) for case in cases]
        key = ([[s.prompt, s.prefill, s.new_tokens, s.seed] for s in starts],)
        rollouts = _rollouts(self.store.get("rollouts", key, lambda: _rollout_arrays(self.sampler(starts))))
        verdicts = self._judge(cases, rollouts, key)
        return [Answer(c, r.ids, r.ended, v) for c, r, v in zip(cases, rollouts, verdicts, strict=True)]

    def _judge(self, cases: list[Case], rollouts: list[Rollout], key: tuple[object, ...]) -> list[Verdict]:
        asked = [[case.request.text, case.own] for case in cases]
        made = [part for part in (self.judge.texts_hash, self.judge.fit) if part]
        name, key = "verdicts", (*key, asked, self.judge.name, *made)
        if self.store.has(name, key):
            return _verdicts(self.store.get(name, key, dict))
        pairs = [self.texts(case, rollout.ids) for case, rollout in zip(cases, rollouts, strict=True)]
        said = self.judge([case.request.text for case in cases], [a for a, _ in pairs], [b for _, b in pairs])
        if all(verdict.judged for verdict in said):
            self.store.get(name, key, lambda: _verdict_arrays(said))
        return said


def _shards(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """Runs of about 64 cases; those of one request, which share most, stay together where they stand together."""
    shard: list[Case] = []
    for _, run in itertools.groupby(cases, key=lambda case: case.request.key):
        together = list(run)
        if shard and len(shard) + len(together) > SHARD_CASES:
            yield shard
            shard = []
        shard = [*shard, *together]
    if shard:
        yield shard


def _rollout_arrays(rollouts: Sequence[Rollout]) -> dict[str, np.ndarray]:
    ended = np.array([rollout.ended for rollout in rollouts], dtype=np.uint8)
    return {**flat_ids([rollout.ids for rollout in rollouts]), "ended": ended}


def _rollouts(arrays: dict[str, np.ndarray]) -> list[Rollout]:
    return [Rollout(ids, bool(ended)) for ids, ended in zip(split_ids(arrays), arrays["ended"], strict=True)]


def _verdict_arrays(verdicts: Sequence[Verdict]) -> dict[str, np.ndarray]:
    return {
        "harm": np.array([verdict.harm for verdict in verdicts]),
        "refusal": np.array([verdict.refusal for verdict in verdicts]),
    }


def _verdicts(arrays: dict[str, np.ndarray]) -> list[Verdict]:
    return [Verdict(h, r) for h, r in zip(arrays["harm"].tolist(), arrays["refusal"].tolist(), strict=True)]
