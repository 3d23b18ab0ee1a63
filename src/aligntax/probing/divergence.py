"""KL that a shift costs, measured, and the shift that costs a wanted KL.

The estimand: `KL(base || shifted)` of the next-token distribution, averaged over every response position of the base
model's own sampled replies, in nats per response token. Because the texts are the base model's own samples, times
the mean length this is an unbiased estimate of the sequence-level `KL(base || shifted)`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import AligntaxError
from ..models import add_shift, final_hidden, logits_of
from .batches import Batch, Row, run_batches
from .gradients import Probe
from .shiftable import shift_mask

CHUNK = 256


@dataclass(frozen=True)
class Calibrated:
    """A shift length that was measured to cost `kl` nats per response token, after `steps` measurements."""

    norm: float
    kl: float
    steps: int


class KlMeter:
    """Measures KL on fixed texts; the base model's final hidden states are computed once and kept.

    Kept are `(scored tokens, d)` hidden states, never `(tokens, vocab)`.
    """

    def __init__(self, probe: Probe, texts: Sequence[Row]) -> None:
        if not texts:
            raise AligntaxError("the model gave only empty replies, so KL cannot be measured; give other harmless prompts")
        self.probe, self.texts = probe, list(texts)
        self.tokens = sum(len(row.ids) for row in self.texts)
        self._base: dict[int, Tensor] = {}
        for batch, hidden in run_batches(self.texts, probe.budget, probe.device, self._hidden):
            for k, row in enumerate(batch.rows):
                self._base[row] = hidden[k]
            probe.advance(batch.tokens)

    def _hidden(self, batch: Batch) -> list[Tensor]:
        with torch.no_grad():
            hidden = final_hidden(self.probe.model, batch.ids, batch.mask)
        return [self._response(hidden[k], self.texts[row]) for k, row in enumerate(batch.rows)]

    @staticmethod
    def _response(hidden: Tensor, row: Row) -> Tensor:
        return hidden[row.start - 1 : len(row.ids) - 1]

    def measure(self, shift: Tensor, layer: int) -> float:
        """KL in nats per response token of adding `shift` `(d,)` to the output of block `layer`."""

        def step(batch: Batch) -> tuple[float, int]:
            mask = shift_mask(batch, self.probe.shift, self.probe.sinks)
            with torch.no_grad(), add_shift(self.probe.model, shift[None], layers=[layer], positions_mask=mask):
                moved = self._hidden(batch)
            base = torch.cat([self._base[row] for row in batch.rows])
            return self._sum(base, torch.cat(moved)), len(base)

        total, count = 0.0, 0
        for batch, (part, tokens) in run_batches(self.texts, self.probe.budget, self.probe.device, step):
            total, count = total + part, count + tokens
            self.probe.advance(batch.tokens)
        return total / count

    def _sum(self, base: Tensor, moved: Tensor) -> float:
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(base), CHUNK):
                p = torch.log_softmax(logits_of(self.probe.model, base[start : start + CHUNK]), dim=-1)
                q = torch.log_softmax(logits_of(self.probe.model, moved[start : start + CHUNK]), dim=-1)
                # A probability of exactly 0 under the base model contributes nothing, whatever q says.
                total += float(torch.where(p > -math.inf, p.exp() * (p - q), 0.0).sum(dtype=torch.float64))
        return total

    def solve(self, direction: np.ndarray, layer: int, target: float, guess: float) -> Calibrated:
        """Length of the shift along `direction` that costs `target` nats, to within 5%, from a first `guess`.

        Locally KL is quadratic, so each step multiplies the length by `sqrt(target / measured)`; at most 6
        measurements. Raises AligntaxError when KL stays 0 or is not finite.
        """
        unit = torch.as_tensor(direction / np.linalg.norm(direction), dtype=torch.float32, device=self.probe.device)
        norm, kl = guess, math.nan
        for step in range(1, 7):
            kl = self.measure(unit * norm, layer)
            if not math.isfinite(kl) or kl <= 0:
                raise AligntaxError(f"a shift of length {norm:.3g} at layer {layer} costs {kl} nats; KL cannot be calibrated there")
            if abs(kl / target - 1) < 0.05:
                break
            if step < 6:
                norm *= min(max(math.sqrt(target / kl), 0.2), 5.0)
        return Calibrated(norm, kl, step)
