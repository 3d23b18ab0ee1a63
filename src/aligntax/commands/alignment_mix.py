"""Which rows stand together in a batch: shares of refusals and anchors, and each request beside its harmless twin.

A refusal is easy to learn and hard to confine: what confines it are answers to prompts that look alike. So the share of anchors,
how many of them sound alarming, and which stand beside which refusal are settings, and a batch can be laid out rather than drawn.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..data import Encoded
from ..errors import AligntaxError

Batches = Literal["random", "stratified", "matched"]


@dataclass(frozen=True)
class MixedRow(Encoded):
    """A row that knows what it is: a refusal, or an anchor that may sound alarming; `prompt` is where the user's part ends."""

    refusal: bool = False
    alarming: bool = False
    prompt: int = 0


@dataclass(frozen=True)
class Mix:
    """`anchor_share` of rows are anchors, `alarming_share` of those sound alarming (None: as they come).

    `batches`: rows in a drawn order that the trainer shuffles again (random), laid out so that every batch has its shares
    (stratified), or so that every second anchor is the harmless prompt nearest to the refusal before it (matched).
    """

    anchor_share: float = 0.5
    alarming_share: float | None = None
    batches: Batches = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.anchor_share < 1.0:
            raise AligntaxError(f"--anchor-share {self.anchor_share}: training needs refusals and anchors; give (0, 1)")
        if self.alarming_share is not None and not 0.0 <= self.alarming_share <= 1.0:
            raise AligntaxError(f"--alarming-share {self.alarming_share}: a share of the anchors lies in [0, 1]")

    @property
    def ordered(self) -> bool:
        """True where the trainer must take rows as they stand."""
        return self.batches != "random"


def slots(count: int, share: float) -> list[bool]:
    """`count` places of which `share` are True, as evenly spread as can be; any run of n holds n * share of them, to one.

    >>> slots(4, 0.5)
    [False, True, False, True]
    """
    return [int((k + 1) * share + 1e-9) > int(k * share + 1e-9) for k in range(count)]


def passes(count: int, wanted: int, rng: np.random.Generator) -> list[int]:
    """`wanted` indices of `count` rows: pass after pass, each in a fresh order, so that none is seen twice before all are."""
    return [int(k) for _ in range(-(-wanted // count)) for k in rng.permutation(count)][:wanted]


def mixed(refusals: Sequence[MixedRow], anchors: Sequence[MixedRow], mix: Mix, rows: int = 0) -> list[MixedRow]:
    """Refusals and anchors in the shares of `mix`; `rows` of them, or (0) until each was seen once.

    Raises AligntaxError where one of the two is empty, or no anchor sounds alarming although some should.
    """
    if not refusals or not anchors:
        raise AligntaxError(f"{len(refusals)} refusals and {len(anchors)} anchors; training needs both")
    share = mix.anchor_share
    rows = rows or max(math.ceil(len(refusals) / (1 - share)), math.ceil(len(anchors) / share))
    places, rng = slots(rows, share), np.random.default_rng(mix.seed)
    first = iter(passes(len(refusals), rows - sum(places), rng))
    others = _anchors(anchors, sum(places), mix.alarming_share, rng)
    twins = nearest(refusals, anchors) if mix.batches == "matched" else []
    found: list[MixedRow] = []
    last, turn = -1, 0
    for anchor in places:
        if not anchor:
            last = next(first)
            found.append(refusals[last])
            continue
        turn += 1
        other = next(others)
        found.append(anchors[twins[last] if twins and last >= 0 and turn % 2 else other])
    return found


def _anchors(
    anchors: Sequence[MixedRow], wanted: int, alarming_share: float | None, rng: np.random.Generator
) -> Iterator[int]:
    if alarming_share is None:
        return iter(passes(len(anchors), wanted, rng))
    kinds = [[k for k, row in enumerate(anchors) if row.alarming == alarming] for alarming in (False, True)]
    places = slots(wanted, alarming_share)
    orders = []
    for kind, count in zip(kinds, (wanted - sum(places), sum(places)), strict=True):
        if count and not kind:
            which = "sounds alarming" if kind is kinds[1] else "sounds harmless"
            raise AligntaxError(f"--alarming-share {alarming_share}: no anchor {which}; give another share or prompts")
        orders.append(iter([kind[k] for k in passes(len(kind), count, rng)] if count else []))
    return iter([next(orders[alarming]) for alarming in places])


def nearest(refusals: Sequence[MixedRow], anchors: Sequence[MixedRow]) -> list[int]:
    """For each refusal the anchor whose prompt shares most tokens with its prompt (Jaccard), the first of equals."""
    sets = [frozenset(row.ids[: row.prompt or row.start]) for row in anchors]
    found = []
    for row in refusals:
        own = frozenset(row.ids[: row.prompt or row.start])
        found.append(int(np.argmax([len(own & other) / len(own | other) for other in sets])))
    return found
