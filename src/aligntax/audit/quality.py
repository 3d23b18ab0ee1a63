"""Whether replies are texts at all: loops, cut-off ends, repeated phrases, and how much several samples differ.

Everything is counted on token ids, so no text is needed. `distinct_n` and `entropy` depend on how many tokens went in: compare
samples of one length only, and print it beside them.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from aligntax.errors import DataError

PERIODS = 32
LOOP_TOKENS, LOOP_TIMES = 24, 3

Ids = Sequence[int]


def is_looping(ids: Ids) -> bool:
    """Does the text end in the same 1 to 32 tokens at least three times over, for 24 tokens or more?

    >>> is_looping([5, 6, 7, 8] * 6), is_looping(list(range(40)))
    (True, False)
    """
    return any(_repeats(ids, period) for period in range(1, PERIODS + 1))


def _repeats(ids: Ids, period: int) -> bool:
    needed = max(LOOP_TOKENS, LOOP_TIMES * period)
    tail = list(ids[-needed:])
    return len(tail) == needed and tail[period:] == tail[:-period]


def _ngrams(ids: Ids, n: int) -> list[tuple[int, ...]]:
    if n < 1:
        raise DataError(f"n={n}: an n-gram has at least one token")
    return [tuple(ids[k : k + n]) for k in range(len(ids) - n + 1)]


def repeated_ngrams(ids: Ids, n: int = 4) -> float:
    """Share in [0, 1) of a text's n-grams that stood in it before; nan for fewer than `n` tokens.

    >>> round(repeated_ngrams([1, 2, 1, 2], n=2), 3)
    0.333
    """
    grams = _ngrams(ids, n)
    return 1.0 - len(set(grams)) / len(grams) if grams else math.nan


def distinct_n(samples: Iterable[Ids], n: int = 2) -> float:
    """Distinct n-grams over all n-grams of the samples together, in (0, 1]; nan without any. Falls with length."""
    grams = [gram for ids in samples for gram in _ngrams(ids, n)]
    return len(set(grams)) / len(grams) if grams else math.nan


def entropy(samples: Iterable[Ids]) -> float:
    """Entropy in nats of the token frequencies of the samples together; nan without tokens. Too small for few tokens."""
    counts = np.array(list(Counter(token for ids in samples for token in ids).values()), dtype=float)
    if not counts.size:
        return math.nan
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum() + 0.0)


def self_similarity(samples: Sequence[Ids], n: int = 2) -> float:
    """Mean over pairs of samples of the n-grams they share over those that either has, in [0, 1]; 1 says always the same.

    Pairs of which neither has an n-gram are left out; nan without any pair.
    """
    sets = [set(_ngrams(ids, n)) for ids in samples]
    pairs = [len(a & b) / len(a | b) for a, b in itertools.combinations(sets, 2) if a | b]
    return float(np.mean(pairs)) if pairs else math.nan


@dataclass(frozen=True)
class Quality:
    """Means over prompts of `prompts` prompts with `samples` replies in all; nan is undefined.

    `looping`, `truncated`, `empty`: shares of replies in [0, 1]. `tokens`: mean length. `repeated`: repeated 4-grams per reply.
    `distinct`, `entropy`, `similarity`: see `distinct_n` (n = 2), `entropy` (nats), `self_similarity` (n = 2), within prompts.
    """

    prompts: int
    samples: int
    tokens: float
    looping: float
    truncated: float
    empty: float
    repeated: float
    distinct: float
    entropy: float
    similarity: float


def quality(replies: Sequence[Sequence[tuple[Ids, bool]]]) -> Quality:
    """Quality of replies given by prompt, each as its ids and whether it ended by itself.

    Raises DataError for no prompts or a prompt without replies.
    """
    if not replies or not all(replies):
        raise DataError(f"{len(replies)} prompts, one of them without replies; give every prompt at least one")
    texts = [[ids for ids, _ in given] for given in replies]
    return Quality(
        prompts=len(replies),
        samples=sum(map(len, replies)),
        tokens=_mean([_mean([len(ids) for ids in given]) for given in texts]),
        looping=_mean([_mean([is_looping(ids) for ids in given]) for given in texts]),
        truncated=_mean([_mean([not ended for _, ended in given]) for given in replies]),
        empty=_mean([_mean([not len(ids) for ids in given]) for given in texts]),
        repeated=_mean([_mean([repeated_ngrams(ids) for ids in given]) for given in texts]),
        distinct=_mean([distinct_n(given) for given in texts]),
        entropy=_mean([entropy(given) for given in texts]),
        similarity=_mean([self_similarity(given) for given in texts]),
    )


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan
