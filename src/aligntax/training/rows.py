"""Token rows of a loss term: padded, run once, and read only where a scored token is predicted."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from aligntax.data import Encoded
from aligntax.models import embedding_device, final_hidden

T = TypeVar("T")


def pad(rows: Sequence[Encoded], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask and which tokens are scored, each `(B, T)`, padded on the right with id 0."""
    width = max(len(row.ids) for row in rows)
    ids, mask = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(2))
    scored = torch.zeros(len(rows), width, dtype=torch.bool)
    for k, row in enumerate(rows):
        ids[k, : len(row.ids)] = torch.tensor(row.ids)
        mask[k, : len(row.ids)] = 1
        scored[k, row.start : len(row.ids)] = True
    return ids.to(device), mask.to(device), scored.to(device)


def scored_hidden(model: PreTrainedModel, rows: Sequence[Encoded]) -> list[Tensor]:
    """Final hidden states `(n_k, d)` of each row at the positions that predict its `n_k` scored tokens."""
    ids, mask, _ = pad(rows, embedding_device(model))
    hidden = final_hidden(model, ids, mask)
    return [hidden[k, row.start - 1 : len(row.ids) - 1] for k, row in enumerate(rows)]


def evenly(rows: Sequence[T], most: int) -> list[T]:
    """At most so many of the rows, at even distances, the first one among them."""
    count = min(most, len(rows))
    return [rows[k * len(rows) // count] for k in range(count)]


def in_batches(rows: Sequence[Encoded], size: int) -> Iterator[list[int]]:
    """Indices in batches of `size`, alike in length."""
    order = sorted(range(len(rows)), key=lambda k: len(rows[k].ids))
    for start in range(0, len(order), size):
        yield order[start : start + size]


class Sampler:
    """Rows of step `s` on process `p`: a fixed shuffled order walked through, the same after a restart.

    Processes take disjoint parts of each pass; a pass ends when all rows were seen.
    """

    def __init__(self, count: int, size: int, seed: int) -> None:
        self.count, self.size, self.seed = count, min(size, count), seed

    def at(self, step: int, process: int = 0, processes: int = 1) -> list[int]:
        """Indices for one step."""
        first = (step * processes + process) * self.size
        return [self._order(place // self.count)[place % self.count] for place in range(first, first + self.size)]

    def drawn(self, steps: int | None) -> set[int]:
        """Indices that `steps` steps read, over all processes together; all of them for None."""
        places = self.count if steps is None else min(self.count, steps * self.size)
        return set(self._order(0)[:places])

    def _order(self, turn: int) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + turn)
        return torch.randperm(self.count, generator=generator).tolist()
