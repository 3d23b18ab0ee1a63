"""Rows whose lower blocks were run once: for a shift at one layer only the blocks above it are run again.

Steering at block `l` of `L` leaves everything below unchanged, so a pass costs `(L - l - 1) / L` of a full one. Kept are the
outputs of block `l` at every position, `(tokens, d)` in the model's own dtype.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..models import add_shift, capture_outputs, final_hidden, returns_tuple, start_after
from .batches import Batch, Row, run_batches
from .gradients import Probe
from .metrics import Metric
from .shiftable import shift_mask

Step = Callable[[Batch], Tensor | list[Tensor]]


class FromLayer:
    """Batches of `rows` with their outputs at `layer`; runs anything from there on, with a shift added."""

    def __init__(self, probe: Probe, rows: Sequence[Row], layer: int) -> None:
        self.probe, self.rows, self.layer = probe, list(rows), layer
        self._tuple = returns_tuple(probe.model)
        self._kept: list[tuple[Batch, Tensor]] = list(
            run_batches(self.rows, probe.budget, probe.device, self._run_below)
        )
        for batch, _ in self._kept:
            probe.advance(batch.tokens)

    def _run_below(self, batch: Batch) -> Tensor:
        with torch.no_grad(), capture_outputs(self.probe.model, layers=[self.layer]) as outputs:
            final_hidden(self.probe.model, batch.ids, batch.mask)
        return outputs[self.layer]

    def run(self, step: Step, shift: Tensor) -> Iterator[tuple[Batch, Tensor | list[Tensor]]]:
        """`step` on every batch with `shift` `(d,)` added to the layer's output at every shiftable position."""
        for batch, output in self._kept:
            mask = shift_mask(batch, self.probe.shift, self.probe.sinks)
            shifted = add_shift(self.probe.model, shift[None], layers=[self.layer], positions_mask=mask)
            with torch.no_grad(), start_after(self.probe.model, self.layer, output, self._tuple), shifted:
                result = step(batch)
            self.probe.advance(batch.tokens)
            yield batch, result

    def values(self, metric: Metric, shift: Tensor) -> Tensor:
        """Metric of every row under `shift`, `(rows,)` float64 in the order given."""
        values = torch.zeros(len(self.rows), dtype=torch.float64)
        for batch, found in self.run(lambda b: metric(self.probe.model, b), shift):
            values[list(batch.rows)] = torch.as_tensor(found).double().cpu()
        return values
