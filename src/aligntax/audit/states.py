"""Mean hidden states of texts, over the positions that a shift of the probe's kind reaches: what a realised shift is read from."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from aligntax.models import capture_outputs, final_hidden
from aligntax.probing import Batch, Probe, Row, run_batches
from aligntax.probing.shiftable import shift_mask


def mean_states(probe: Probe, rows: Sequence[Row]) -> np.ndarray:
    """Mean block output `(n, L, d)` float32 of each row over the positions of `shift_mask`: no padding, no sinks.

    A cosine with a direction, or a first-order change from a gradient, is formed only of states of the same kind as that direction
    (theory 1.18); a row without such a position is 0.
    """
    layers, d = probe.shape
    result = np.zeros((len(rows), layers, d), dtype=np.float32)

    def step(batch: Batch) -> Tensor:
        mask = shift_mask(batch, probe.shift, probe.sinks)
        weight = (mask / mask.sum(1, keepdim=True).clamp(min=1)).float()
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
