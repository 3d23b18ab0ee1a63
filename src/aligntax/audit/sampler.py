"""A model as a writer of rollouts: batches that fit the memory, with everything that is said after one prompt together.

Neighbours in sorted order share most, so batches are runs of that order. A rollout is the same in every batch, and the order of
the starts never matters.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from transformers import PreTrainedModel

from aligntax.models import Rollout, Start, roll_out, top_tokens
from aligntax.probing import TokenBudget
from aligntax.probing.batches import is_out_of_memory

Sampler = Callable[[Sequence[Start]], list[Rollout]]
"""Anything that continues starts: a model, or a world whose answers are known."""


def _nothing(tokens: int) -> None:
    """Count nothing."""


@dataclass(frozen=True)
class ModelSampler:
    """Rollouts of `model`, read under `switch` (such as the context that turns an adapter off); see `roll_out`.

    `budget` bounds rows times longest text and is halved on out-of-memory; `advance` hears how many tokens were handled.
    """

    model: PreTrainedModel
    budget: TokenBudget
    advance: Callable[[int], None] = _nothing
    switch: Callable[[], AbstractContextManager[None]] = nullcontext

    def __call__(self, starts: Sequence[Start]) -> list[Rollout]:
        """One rollout per start, in their order. Raises AligntaxError where a single one does not fit the memory."""
        found: dict[int, Rollout] = {}
        while len(found) < len(starts):
            for group in _groups(starts, [k for k in range(len(starts)) if k not in found], self.budget.tokens):
                try:
                    with self.switch():
                        rollouts = roll_out(self.model, [starts[k] for k in group])
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    self.budget.halve([_length(starts[k]) for k in group])
                    break
                found.update(zip(group, rollouts, strict=True))
                self.advance(sum(len(starts[k].ids) + len(found[k].ids) for k in group))
        return [found[k] for k in range(len(starts))]

    def top(self, prefixes: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        """The likeliest next tokens after each prefix; see `top_tokens`."""
        with self.switch():
            return top_tokens(self.model, prefixes, count)


def _length(start: Start) -> int:
    return len(start.ids) + start.new_tokens


def _groups(starts: Sequence[Start], indices: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Runs of the sorted order with `longest * count <= budget`; a single longer one stands alone."""
    group, longest = list[int](), 0
    for index in sorted(indices, key=lambda k: (starts[k].prompt, starts[k].prefill, k)):
        longer = max(longest, _length(starts[index]))
        if group and longer * (len(group) + 1) > budget:
            yield group
            group, longer = [], _length(starts[index])
        group.append(index)
        longest = longer
    if group:
        yield group
