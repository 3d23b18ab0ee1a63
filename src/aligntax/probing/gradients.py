"""The zero-shift estimator: gradients of a metric at every layer from one forward and one activation-only backward.

The estimand (theory 1.2): for each item, the derivative of its metric with respect to a vector added to the output of
decoder block `l` at every shiftable position, evaluated at zero. One zero vector for each row of the batch gives one
gradient a row; weights need none. Item gradients are summed into `J` disjoint groups in float64 and never stored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import NonFiniteError
from ..models import add_shift, capture_outputs, decoder_blocks, final_hidden, text_config
from .batches import Batch, Row, TokenBudget, run_batches
from .metrics import Metric
from .shiftable import shift_mask


@dataclass(frozen=True)
class Probe:
    """A model ready to be probed: what every pass needs and no pass changes (the token budget may shrink).

    `advance` is called with the number of tokens of every finished batch.
    """

    model: PreTrainedModel
    device: torch.device
    budget: TokenBudget
    shift: str
    sinks: tuple[int, ...]
    advance: Callable[[int], None]

    @property
    def shape(self) -> tuple[int, int]:
        """`(L, d)`."""
        return len(decoder_blocks(self.model)), int(text_config(self.model).hidden_size)


@dataclass(frozen=True)
class ItemGradients:
    """Sums of item gradients by group `(J, L, d)` float64, items by group `(J,)`, metric by row `(rows,)`."""

    sums: np.ndarray
    counts: np.ndarray
    values: np.ndarray


def row_gradients(probe: Probe, batch: Batch, metric: Metric) -> tuple[Tensor, Tensor]:
    """Metric `(batch,)` and its zero-shift gradient `(batch, L, d)`, both float32, for each row on its own."""
    layers, d = probe.shape
    shift = torch.zeros(len(batch.rows), layers, d, device=batch.ids.device, requires_grad=True)
    with torch.enable_grad(), add_shift(probe.model, shift, positions_mask=shift_mask(batch, probe.shift, probe.sinks)):
        values = metric(probe.model, batch)
        # A metric that ignores the logits carries no graph; its gradient is zero like that of any constant.
        gradient = (
            torch.autograd.grad(values.float().sum(), shift)[0] if values.requires_grad else torch.zeros_like(shift)
        )
    return values.detach().float(), gradient


def item_gradients(
    probe: Probe, rows: Sequence[Row], metric: Metric, groups: np.ndarray, shape: tuple[int, str]
) -> ItemGradients:
    """Gather gradients of items (weighted sums of their rows) into groups.

    `groups[i]` is the group of item `i`; `shape` is `(J, name)`: number of groups, and the name that an error repeats.
    Raises NonFiniteError, naming task and layer, when a metric or gradient is NaN or infinite.
    """
    count, name = shape
    sums = np.zeros((count, *probe.shape))
    values = np.zeros(len(rows))
    for batch, (value, gradient) in run_batches(
        rows, probe.budget, probe.device, lambda b: row_gradients(probe, b, metric)
    ):
        _require_finite_values(probe, batch, value, name)
        require_finite(gradient, name)
        # One copy a batch: every copy of its own would make a GPU wait.
        weighted = (gradient * batch.weights[:, None, None]).cpu().numpy()
        for row, own in zip(batch.rows, weighted, strict=True):
            sums[groups[rows[row].item]] += own
        values[list(batch.rows)] = value.cpu().numpy()
        probe.advance(batch.tokens)
    return ItemGradients(sums, np.bincount(groups, minlength=count), values)


def item_values(
    probe: Probe, rows: Sequence[Row], metric: Metric, shift: Tensor | None = None, layer: int | None = None
) -> np.ndarray:
    """Metric of every *row*, `(rows,)` float64, in the order given, with `shift` `(d,)` at `layer` if there is one."""
    values = np.zeros(len(rows))

    def step(batch: Batch) -> Tensor:
        with torch.no_grad():
            if shift is None or layer is None:
                return metric(probe.model, batch)
            mask = shift_mask(batch, probe.shift, probe.sinks)
            with add_shift(probe.model, shift[None], layers=[layer], positions_mask=mask):
                return metric(probe.model, batch)

    for batch, value in run_batches(rows, probe.budget, probe.device, step):
        values[list(batch.rows)] = value.float().cpu().numpy()
        probe.advance(batch.tokens)
    return values


def sum_rows(rows: Sequence[Row], values: np.ndarray, items: int) -> np.ndarray:
    """Row values to item values: the weighted sum over each item's rows, `(items,)`."""
    index = np.array([row.item for row in rows])
    return np.bincount(index, weights=values * np.array([row.weight for row in rows]), minlength=items)


def require_finite(gradient: Tensor, name: str) -> None:
    """Raise NonFiniteError naming `name` and the layer where a gradient `(batch, L, d)`, on its way back, broke."""
    bad = ~torch.isfinite(gradient).all(dim=-1).all(dim=0)
    if bool(bad.any()):
        layer = int(bad.nonzero()[-1])
        raise NonFiniteError(f"{name}: the gradient at layer {layer} is NaN or infinite; use --dtype float32")


def _require_finite_values(probe: Probe, batch: Batch, values: Tensor, name: str) -> None:
    if bool(torch.isfinite(values).all()):
        return
    with torch.no_grad(), capture_outputs(probe.model) as outputs:
        final_hidden(probe.model, batch.ids, batch.mask)
        bad = [k for k, output in sorted(outputs.items()) if not bool(torch.isfinite(output[batch.mask.bool()]).all())]
    where = f"the output of layer {bad[0]}" if bad else "the metric, with every layer finite,"
    raise NonFiniteError(f"{name}: {where} is NaN or infinite; check the weights, or use --dtype float32")
