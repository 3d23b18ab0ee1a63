"""Which positions a shift reaches, and which are attention sinks.

A sink is a position whose activation is over ten times as long as the median one (usually the first token). Sinks
carry no text, dominate every second moment they enter, and are left out of shifts, means and covariances alike
(theory 1.18). They are found once, by position, on a sample of the rows that will be run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import AligntaxError
from ..models import capture_outputs, decoder_blocks, final_hidden
from .batches import Batch, Row, TokenBudget, run_batches

SINK_FACTOR = 10.0
SINK_SHARE = 0.5
KINDS = ("all", "response", "last")


@dataclass(frozen=True)
class Sinks:
    """Sink positions per layer, and the median activation length `(L,)` of the other positions."""

    by_layer: tuple[tuple[int, ...], ...]
    activation_norm: tuple[float, ...]

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions that are sinks at any layer; these are left out everywhere."""
        return tuple(sorted({p for layer in self.by_layer for p in layer}))


def find_sinks(model: PreTrainedModel, rows: Sequence[Row], budget: TokenBudget, device: torch.device) -> Sinks:
    """Find positions that are sinks in at least half of the rows that reach them. Raises for no rows."""
    if not rows:
        raise AligntaxError("no rows to look for attention sinks in")
    depth = len(decoder_blocks(model))
    width = max(len(row.ids) for row in rows)
    high, seen = np.zeros((depth, width)), np.zeros(width)
    norms: list[list[np.ndarray]] = [[] for _ in range(depth)]

    def step(batch: Batch) -> dict[int, Tensor]:
        with torch.no_grad(), capture_outputs(model) as outputs:
            final_hidden(model, batch.ids, batch.mask)
            return {k: v.float().norm(dim=-1).cpu() for k, v in outputs.items()}

    for batch, lengths in run_batches(rows, budget, device, step):
        mask = batch.mask.bool().cpu()
        seen[: mask.shape[1]] += mask.sum(0).numpy()
        for layer in range(depth):
            for row, real in zip(lengths[layer], mask, strict=True):
                own = row[real].numpy()
                median = float(np.median(own))
                big = own > SINK_FACTOR * median
                high[layer, : len(own)] += big
                norms[layer].append(own[~big])
    share = high / np.maximum(seen, 1)
    by_layer = tuple(tuple(int(p) for p in np.flatnonzero(share[k] >= SINK_SHARE)) for k in range(depth))
    return Sinks(by_layer, tuple(float(np.median(np.concatenate(layer))) for layer in norms))


def shift_mask(batch: Batch, kind: str, sinks: Sequence[int]) -> Tensor:
    """Positions `(batch, time)` that a shift of `kind` reaches: never padding, never a sink.

    `all`: every position; `response`: from the position that predicts the first scored token on; `last`: only that one.
    """
    if kind not in KINDS:
        raise AligntaxError(f"unknown --shift {kind!r}; choose one of {', '.join(KINDS)}")
    mask = batch.mask.bool().clone()
    inside = [p for p in sinks if p < mask.shape[1]]
    mask[:, inside] = False
    if kind != "all":
        time = torch.arange(mask.shape[1], device=mask.device)
        first = batch.mask.sum(1) - batch.scored.sum(1) - 1
        mask &= (time == first[:, None]) if kind == "last" else (time >= first[:, None])
    return mask
