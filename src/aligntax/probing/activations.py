"""Activations of prompts at the positions between instruction and reply, at every layer, from one forward pass.

Everything that a difference in means or a linear probe needs: for prompts that end in the same template tokens, the
block outputs at each of the last `P` positions. Prompts never interact, so the pass is exact in any batching.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..models import capture_outputs, final_hidden
from .batches import Batch, Row, run_batches
from .gradients import Probe


def tail_activations(probe: Probe, rows: Sequence[Row], positions: int) -> np.ndarray:
    """Block outputs `(n, P, L, d)` float32 at the last `P` real positions of every row, last position last."""
    layers, d = probe.shape
    result = np.zeros((len(rows), positions, layers, d), dtype=np.float32)

    def step(batch: Batch) -> Tensor:
        last = batch.mask.sum(1)
        where = (last[:, None] - positions + torch.arange(positions, device=last.device)).clamp(min=0)
        with torch.no_grad(), capture_outputs(probe.model) as outputs:
            final_hidden(probe.model, batch.ids, batch.mask)
            picked = [
                outputs[k].gather(1, where.to(outputs[k].device)[..., None].expand(-1, -1, d)).float().cpu()
                for k in range(layers)
            ]
        return torch.stack(picked, dim=2)

    for batch, values in run_batches(rows, probe.budget, probe.device, step):
        result[list(batch.rows)] = values.numpy()
        probe.advance(batch.tokens)
    return result


def answer_activations(probe: Probe, rows: Sequence[Row]) -> np.ndarray:
    """Mean block output `(n, L, d)` float32 over each row's scored tokens, sinks left out."""
    layers, d = probe.shape
    result = np.zeros((len(rows), layers, d), dtype=np.float32)

    def step(batch: Batch) -> Tensor:
        chosen = batch.scored.clone()
        chosen[:, [p for p in probe.sinks if p < chosen.shape[1]]] = False
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
