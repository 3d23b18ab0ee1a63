"""Activations of prompts at the positions between instruction and reply, at every layer, from one forward pass.

Everything that a difference in means or a linear probe needs: for prompts that end in the same template tokens, the
block outputs at each of the last `P` positions. Prompts never interact, so the pass is exact in any batching.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..models import SharedPrefix, can_share, capture_outputs, common_length, final_hidden
from .batches import Batch, Row, run_batches
from .gradients import Probe


def tail_activations(probe: Probe, rows: Sequence[Row], positions: int) -> np.ndarray:
    """Block outputs `(n, P, L, d)` float32 at the last `P` real positions of every row, last position last.

    Prompts of one template begin with the same tokens; those are run once. A row shorter than `P` repeats its first.
    """
    layers, d = probe.shape
    result = np.zeros((len(rows), positions, layers, d), dtype=np.float32)
    shared = common_length([row.ids for row in rows], spare=positions) if can_share(probe.model) else 0
    prefix = SharedPrefix(probe.model, rows[0].ids[:shared] if rows else ())
    rests = [Row(row.ids[shared:], 0, row.item) for row in rows]

    def step(batch: Batch) -> Tensor:
        last = batch.mask.sum(1)
        where = (last[:, None] - positions + torch.arange(positions, device=last.device)).clamp(min=0)
        with torch.no_grad(), capture_outputs(probe.model) as outputs:
            prefix.final_hidden(batch.ids, batch.mask)
            picked = [
                outputs[k].gather(1, where.to(outputs[k].device)[..., None].expand(-1, -1, d)).float().cpu()
                for k in range(layers)
            ]
        return torch.stack(picked, dim=2)

    for batch, values in run_batches(rests, probe.budget, probe.device, step):
        result[list(batch.rows)] = values.numpy()
        probe.advance(batch.tokens + shared * len(batch.rows))
    return result


def answer_activations(probe: Probe, rows: Sequence[Row]) -> np.ndarray:
    """Mean block output `(n, L, d)` float32 over each row's scored tokens, sinks left out."""

    def scored(batch: Batch) -> Tensor:
        chosen = batch.scored.clone()
        chosen[:, [p for p in probe.sinks if p < chosen.shape[1]]] = False
        return chosen

    return mean_outputs(probe, rows, scored)


def mean_outputs(probe: Probe, rows: Sequence[Row], positions: Callable[[Batch], Tensor]) -> np.ndarray:
    """Mean block output `(n, L, d)` float32 of each row over the positions `(rows, T)` that `positions` picks of a batch.

    A row of which nothing is picked is 0.
    """
    layers, d = probe.shape
    result = np.zeros((len(rows), layers, d), dtype=np.float32)

    def step(batch: Batch) -> Tensor:
        chosen = positions(batch)
        weight = (chosen / chosen.sum(1, keepdim=True).clamp(min=1)).float()
        with torch.no_grad(), capture_outputs(probe.model) as outputs:
            final_hidden(probe.model, batch.ids, batch.mask)
            means = [
                torch.einsum("bt,btd->bd", weight.to(outputs[k].device), outputs[k].float()) for k in range(layers)
            ]
        return torch.stack([m.cpu() for m in means], dim=1)

    for batch, values in run_batches(rows, probe.budget, probe.device, step):
        result[list(batch.rows)] = values.numpy()
        probe.advance(batch.tokens)
    return result
