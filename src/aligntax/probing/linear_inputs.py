"""What every linear layer reads on given rows: second moments of its inputs, float64, pads and sinks left out.

Layers that read the same tensor (query, key and value; gate and up) share one matrix. An attention sink is thousands of times
larger than any text, and with it in the mean a few directions hold all the energy and nothing of the text is protected.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import AligntaxError, NonFiniteError
from ..models import decoder_blocks, final_hidden
from .batches import Batch, Row, run_batches
from .gradients import Probe


@dataclass(frozen=True)
class InputMoments:
    """Sums `sum x x^T` `(d_in, d_in)` float64 over `count` tokens; `layers` maps a module's name to the key of its sum."""

    sums: dict[str, np.ndarray]
    layers: dict[str, str]
    count: int

    def merge(self, other: "InputMoments") -> "InputMoments":
        """Sums over both sets of rows. Raises AligntaxError where they are of different models."""
        if self.layers != other.layers:
            raise AligntaxError("input moments of different models cannot be merged")
        return InputMoments({k: v + other.sums[k] for k, v in self.sums.items()}, self.layers, self.count + other.count)

    def of(self, layer: str) -> np.ndarray:
        """The sum of one layer."""
        return self.sums[self.layers[layer]]


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Matrices inside the decoder blocks by module name: linear layers and GPT-2's transposed ones; adapters left out."""
    homes = {id(block) for block in decoder_blocks(model)}
    prefixes = [f"{name}." for name, part in model.named_modules() if id(part) in homes]
    return {
        name: part
        for name, part in model.named_modules()
        if any(name.startswith(prefix) for prefix in prefixes)
        and type(part).__name__ in ("Linear", "Conv1D")
        and "lora_" not in name
    }


class _Gatherer:
    """Takes each layer's input as it is read; the tensor itself is let go when the next layer reads another one."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.shared: dict[str, str] = {}
        self.count = 0
        self._keep = torch.empty(0, dtype=torch.bool)
        self._last: tuple[str, Tensor] = ("", torch.empty(0))

    @contextmanager
    def reading(self, layers: dict[str, nn.Module], keep: Tensor) -> Iterator[None]:
        """Gather while the context is open; `keep` `(B, T)` marks the positions that count."""
        self._keep, self.count = keep, self.count + int(keep.sum())
        handles = [
            part.register_forward_pre_hook(lambda _, args, name=name: self._take(name, args[0]))
            for name, part in layers.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._last = ("", torch.empty(0))

    def _take(self, name: str, read: Tensor) -> None:
        if read is self._last[1]:
            self.shared[name] = self._last[0]
            return
        if read.shape[:2] != self._keep.shape:
            raise AligntaxError(f"{name} does not read every token (experts?); it cannot be protected this way")
        self.shared[name], self._last = name, (name, read)
        chosen = read.detach()[self._keep.to(read.device)].double()
        if not bool(torch.isfinite(chosen).all()):
            raise NonFiniteError(f"{name}: its inputs are NaN or infinite on a capability prompt")
        total = self.sums.setdefault(name, torch.zeros(2 * chosen.shape[1:], dtype=torch.float64, device=read.device))
        total.addmm_(chosen.T, chosen)


def input_moments(probe: Probe, rows: Sequence[Row]) -> InputMoments:
    """One pass over `rows`; every real position counts once, sinks apart.

    Mixture-of-experts layers, which see some tokens only, are an error that names the layer, as is NaN or infinity.
    """
    layers = linear_layers(probe.model)
    if not layers:
        raise AligntaxError(f"{type(probe.model).__name__} has no linear layers in its blocks that could be protected")
    gatherer = _Gatherer()

    def step(batch: Batch) -> None:
        keep = batch.mask.bool().clone()
        keep[:, [p for p in probe.sinks if p < keep.shape[1]]] = False
        with torch.no_grad(), gatherer.reading(layers, keep):
            final_hidden(probe.model, batch.ids, batch.mask)

    for batch, _ in run_batches(rows, probe.budget, probe.device, step):
        probe.advance(batch.tokens)
    sums = {name: total.cpu().numpy() for name, total in gatherer.sums.items()}
    return InputMoments(sums, gatherer.shared, gatherer.count)
