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
from ..models import final_hidden, logits_of
from .batches import Batch, Row, run_batches, tokens_of
from .gradients import Probe
from .resume import FromLayer

CHUNK = 256
MOST_STEPS = 8


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
            raise AligntaxError(
                "the model gave only empty replies, so KL cannot be measured; give other harmless prompts"
            )
        self.probe, self.texts = probe, list(texts)
        self.tokens = tokens_of(self.texts)
        self._base: dict[int, Tensor] = {}
        self._from: FromLayer | None = None
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

        if self._from is None or self._from.layer != layer:
            self._from = FromLayer(self.probe, self.texts, layer)
        total, count = 0.0, 0
        for batch, moved in self._from.run(self._hidden, shift):
            base = torch.cat([self._base[row] for row in batch.rows])
            total, count = total + self._sum(base, torch.cat(list(moved))), count + len(base)
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
        """Length of the shift along `direction` that costs `target` nats, from a first `guess` (any positive length).

        A bracketed secant in log length and log KL, where KL is a straight line of slope 2 near 0. Stops within 5% of
        the target, or after 8 measurements with the nearest: where KL levels off below the target no length reaches
        it, and `kl` says what the shift really costs. Raises AligntaxError when KL is 0 or not finite.
        """
        unit = torch.as_tensor(direction / np.linalg.norm(direction), dtype=torch.float32, device=self.probe.device)
        points: list[tuple[float, float]] = []
        x = math.log(guess)
        while len(points) < MOST_STEPS:
            kl = self.measure(unit * math.exp(x), layer)
            if not math.isfinite(kl) or kl <= 0:
                raise AligntaxError(
                    f"a shift of length {math.exp(x):.3g} at layer {layer} costs {kl} nats; "
                    "KL cannot be calibrated there"
                )
            points.append((x, math.log(kl / target)))
            if abs(kl / target - 1) < 0.05:
                break
            x = _next_point(points)
        x, y = min(points, key=lambda point: abs(point[1]))
        return Calibrated(math.exp(x), target * math.exp(y), len(points))


def _next_point(points: Sequence[tuple[float, float]]) -> float:
    """Where a rising function measured at `points` `(x, y)` may cross 0; its slope is 2 until two points tell."""
    below = max((p for p in points if p[1] < 0), default=None)
    above = min((p for p in points if p[1] >= 0), default=None)
    if below and above:
        share = -below[1] / (above[1] - below[1])
        return below[0] + min(max(share, 0.1), 0.9) * (above[0] - below[0])
    (x0, y0), (x, y) = points[-2] if len(points) > 1 else (0.0, 0.0), points[-1]
    slope = (y - y0) / (x - x0) if len(points) > 1 else 2.0
    step = -y / min(max(slope, 0.25), 4.0)
    return x + min(max(step, -math.log(8.0)), math.log(8.0))
