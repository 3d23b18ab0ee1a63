"""Rows of token ids, and batches of rows that fit a token budget.

Rows are sorted by length, so that little of a batch is padding, and the order of the input never matters to the
result. Padding is on the right and masked everywhere; attention is causal, so it cannot change a scored token.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ..errors import AligntaxError

T = TypeVar("T")


class Sequenced(Protocol):
    """Anything that holds the token ids of one sequence."""

    @property
    def ids(self) -> Sequence[int]:
        """The tokens."""


def tokens_of(rows: Iterable[Sequenced]) -> int:
    """Tokens of all rows together."""
    return sum(len(row.ids) for row in rows)


@dataclass(frozen=True)
class Row:
    """One sequence to run: token ids, index of the first scored token, and the unit of account it belongs to.

    `item` is the index of the item whose metric this row enters with `weight` (1 for an answer and a gold choice,
    `-1/k` for each of k distractors).
    """

    ids: tuple[int, ...]
    start: int
    item: int
    weight: float = 1.0


@dataclass(frozen=True)
class Batch:
    """Padded rows: `ids`, `mask`, `positions` are `(batch, time)`; `scored` marks the tokens that are scored.

    `rows` are the indices of the rows in the caller's list, in the order of the batch.
    """

    rows: tuple[int, ...]
    ids: Tensor
    mask: Tensor
    scored: Tensor
    weights: Tensor

    @property
    def tokens(self) -> int:
        """Tokens that are not padding."""
        return int(self.mask.sum())


def token_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of rows grouped so that `longest * count <= budget` (a single longer row stands alone).

    Sorted by length, longest first: the largest batch comes first and an out-of-memory shows at once. Of all budgets that
    need no more batches the smallest is used, so that no batch is a remainder: short ones run slower per token.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    fewest = len(_filled(order, lengths, budget))
    smallest = bisect_left(range(budget), True, key=lambda size: len(_filled(order, lengths, size)) <= fewest)
    return _filled(order, lengths, smallest)


def _filled(order: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    batches: list[list[int]] = []
    for index in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def collate(rows: Sequence[Row], indices: Sequence[int], device: torch.device) -> Batch:
    """Pad the chosen rows on the right with id 0 (masked) and put them on `device`."""
    chosen = [rows[i] for i in indices]
    width = max(len(row.ids) for row in chosen)
    ids = torch.zeros(len(chosen), width, dtype=torch.long)
    mask = torch.zeros(len(chosen), width, dtype=torch.long)
    scored = torch.zeros(len(chosen), width, dtype=torch.bool)
    for k, row in enumerate(chosen):
        ids[k, : len(row.ids)] = torch.tensor(row.ids)
        mask[k, : len(row.ids)] = 1
        scored[k, row.start : len(row.ids)] = True
    weights = torch.tensor([row.weight for row in chosen], dtype=torch.float32)
    return Batch(tuple(indices), ids.to(device), mask.to(device), scored.to(device), weights.to(device))


class TokenBudget:
    """How many tokens a batch may hold; halved whenever the machine runs out of memory, and kept halved."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def halve(self, lengths: Sequence[int]) -> None:
        """Halve the budget, or the batch of these rows where that is smaller. Raises AligntaxError for a single row."""
        if len(lengths) == 1:
            raise AligntaxError(
                f"out of memory with a single row of {lengths[0]} tokens; shorten the items or use a larger device"
            )
        self.tokens = min(self.tokens, max(lengths) * len(lengths)) // 2


def is_out_of_memory(error: BaseException) -> bool:
    """True for torch's out-of-memory error and for the CPU allocator's, which is a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "not enough memory" in str(error)
    )


def run_groups(
    lengths: Sequence[int], budget: TokenBudget, step: Callable[[list[int]], T]
) -> Iterator[tuple[list[int], T]]:
    """Run `step` on groups of indices until every one was done once.

    On out-of-memory the budget is halved and what is left is regrouped. Raises AligntaxError when a group of one
    does not fit.
    """
    left = list(range(len(lengths)))
    while left:
        done: set[int] = set()
        for group in token_batches([lengths[i] for i in left], budget.tokens):
            indices = [left[i] for i in group]
            try:
                result = step(indices)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                budget.halve([lengths[i] for i in indices])
                break
            done.update(indices)
            yield indices, result
        left = [i for i in left if i not in done]
        if left and torch.cuda.is_available():
            torch.cuda.empty_cache()


def run_batches(
    rows: Sequence[Row], budget: TokenBudget, device: torch.device, step: Callable[[Batch], T]
) -> Iterator[tuple[Batch, T]]:
    """Run `step` on batches until every row was done once; out-of-memory as in `run_groups`."""

    def on(indices: list[int]) -> tuple[Batch, T]:
        batch = collate(rows, indices, device)
        return batch, step(batch)

    for _, found in run_groups([len(row.ids) for row in rows], budget, on):
        yield found
