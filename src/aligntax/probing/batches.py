"""Rows of token ids, and batches of rows that fit a token budget.

Rows are sorted by length, so that little of a batch is padding, and the order of the input never matters to the
result. Padding is on the right and masked everywhere; attention is causal, so it cannot change a scored token.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import AligntaxError

T = TypeVar("T")


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

    Sorted by length, longest first: the largest batch comes first and an out-of-memory shows at once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
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

    def halve(self, smallest: int) -> None:
        """Halve the budget. Raises AligntaxError once a single row no longer fits."""
        if self.tokens <= smallest:
            raise AligntaxError(
                f"out of memory with a single row of {smallest} tokens; shorten the items or use a larger device"
            )
        self.tokens = max(smallest, self.tokens // 2)


def is_out_of_memory(error: BaseException) -> bool:
    """True for torch's out-of-memory error and for the CPU allocator's, which is a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "not enough memory" in str(error)
    )


def run_batches(
    rows: Sequence[Row], budget: TokenBudget, device: torch.device, step: Callable[[Batch], T]
) -> Iterator[tuple[Batch, T]]:
    """Run `step` on batches until every row was done once; on out-of-memory halve the budget and go on with what is left."""
    left = list(range(len(rows)))
    while left:
        groups = token_batches([len(rows[i].ids) for i in left], budget.tokens)
        done: set[int] = set()
        for group in groups:
            indices = [left[i] for i in group]
            try:
                batch = collate(rows, indices, device)
                result = step(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                budget.halve(len(rows[indices[0]].ids) if len(indices) == 1 else 1)
                break
            done.update(indices)
            yield batch, result
        left = [i for i in left if i not in done]
