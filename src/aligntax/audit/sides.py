"""One of two models under comparison: final hidden states of given rows, and the head that turns them into logits.

KL needs both next-token laws at the same positions, never both models at the same time: a side that was read beforehand keeps
`(positions, d)` hidden states on the CPU in the model's own dtype, and its head. Where one model carries an adapter, the base is
the same weights with the adapter off.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from aligntax.errors import AligntaxError, ModelError
from aligntax.models import (
    SharedPrefix,
    can_share,
    common_length,
    embedding_device,
    logits_of,
    text_config,
    unembedding,
)
from aligntax.probing import Batch, Row, TokenBudget, run_batches

Switch = Callable[[], AbstractContextManager[None]]


class Side(Protocol):
    """What a comparison asks of a model. Positions of a row: its prefixes that end just before each scored token, then the
    whole row, so `n + 1` for `n` scored tokens, row after row in the order of the batch.
    """

    @property
    def vocabulary(self) -> int:
        """Number of tokens the head speaks of."""

    def hidden(self, rows: Sequence[Row], batch: Batch) -> Tensor:
        """Final hidden states `(N, d)` at the positions of the batch's rows; `batch.rows` are indices into `rows`."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `(n, vocab)` in float32, a tensor of its own that the caller may overwrite."""


class LiveSide:
    """A model in memory, read under `switch` (a context manager, such as the one that turns an adapter off)."""

    def __init__(self, model: PreTrainedModel, switch: Switch = nullcontext) -> None:
        self.model, self.switch = model, switch
        self.vocabulary = _vocabulary(model)
        # Walking every module to switch an adapter for a head without one costs as much as the head itself.
        self._head_switch = switch if _adapted(unembedding(model)) else nullcontext

    def hidden(self, rows: Sequence[Row], batch: Batch) -> Tensor:
        """Run the batch, what all rows begin with only once; see `Side`."""
        first = min(row.start for row in rows) - 1
        shared = min(first, common_length([row.ids for row in rows])) if can_share(self.model) else 0
        with torch.no_grad(), self.switch():
            prefix = SharedPrefix(self.model, rows[0].ids[:shared])
            hidden = prefix.final_hidden(batch.ids[:, shared:], batch.mask[:, shared:])
            ends = [(k, rows[r].start - 1 - shared, len(rows[r].ids) - shared) for k, r in enumerate(batch.rows)]
            return torch.cat([hidden[k, start:end] for k, start, end in ends])

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the head; see `Side`."""
        with torch.no_grad(), self._head_switch():
            return logits_of(self.model, hidden)


class StoredSide:
    """What a model said about `rows`, kept without the model: hidden states on the CPU in its dtype, and its head.

    Only these rows, in this order, can be compared with it later.
    """

    def __init__(self, model: PreTrainedModel, rows: Sequence[Row], budget: TokenBudget) -> None:
        live = LiveSide(model)
        self.rows, self.vocabulary = tuple(rows), live.vocabulary
        head = unembedding(model)
        # All that logits need of a model: its head, and its configuration, where the family's scaling is written.
        shell = SimpleNamespace(config=model.config, get_output_embeddings=lambda: head)
        self._shell, self._head = cast(PreTrainedModel, shell), head
        self._hidden: list[Tensor] = [torch.empty(0)] * len(rows)

        def step(batch: Batch) -> list[Tensor]:
            return list(live.hidden(rows, batch).cpu().split(widths([rows[r] for r in batch.rows])))

        for batch, found in run_batches(rows, budget, embedding_device(model), step):
            for row, hidden in zip(batch.rows, found, strict=True):
                self._hidden[row] = hidden.clone()

    def hidden(self, rows: Sequence[Row], batch: Batch) -> Tensor:
        """Look up; see `Side`. Raises AligntaxError for rows other than those that were read."""
        if tuple(rows) != self.rows:
            raise AligntaxError(
                f"this side read {len(self.rows)} rows and is asked for {len(rows)} others; read them first"
            )
        return torch.cat([self._hidden[r] for r in batch.rows]).to(next(self._head.parameters()).device)

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the head; see `Side`."""
        with torch.no_grad():
            return logits_of(self._shell, hidden)


def adapter_sides(model: PreTrainedModel) -> tuple[LiveSide, LiveSide]:
    """`(base, aligned)` of one PEFT model: adapter off, and on. Raises ModelError for a model without an adapter."""
    wrapped: Any = model
    if not hasattr(model, "disable_adapter"):
        raise ModelError(f"{type(model).__name__} carries no adapter; give a base and an aligned model")

    @contextmanager
    def off() -> Any:
        # Switching an adapter on again makes its weights trainable.
        flags = {p: p.requires_grad for p in model.parameters()}
        try:
            with wrapped.disable_adapter():
                yield
        finally:
            for parameter, flag in flags.items():
                parameter.requires_grad_(flag)

    return LiveSide(model, off), LiveSide(model)


def widths(rows: Sequence[Row]) -> list[int]:
    """Positions of each row: scored tokens and one."""
    return [len(row.ids) - row.start + 1 for row in rows]


def _adapted(head: torch.nn.Module) -> bool:
    return any(type(part).__module__.startswith("peft.") for part in head.modules())


def _vocabulary(model: PreTrainedModel) -> int:
    weight = getattr(unembedding(model), "weight", None)
    return int(weight.shape[0]) if weight is not None else int(text_config(model).vocab_size)
