"""Choosing the layer: refusal log-odds gained at one measured KL, on prompts that made no direction.

All layers are ranked by what the first order promises at 0.1 nat; the best few of the middle of the model are tried for
real, each at a shift whose KL was measured and solved for. Beside the surveyed estimator the best candidate of
every other one is tried at the same KL, so that the reader sees which kind of direction steers best.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import AligntaxError
from ..probing import KlMeter, Metric, Row, item_values
from ..results import Candidate, Selection
from ..stats import bootstrap_interval
from .analysis import DECINAT, Evidence
from .estimators import Direction
from .gather import Workbench, rows_key

# A shift in the last fifth of the blocks mostly adds to the logits of the opening tokens, and one in the first tenth is
# rewritten by everything above it: both are levers on a word, not on a decision.
FIRST, LAST = 0.1, 0.8


@dataclass(frozen=True)
class Trial:
    """A candidate that was run: what is in the table, its gains by prompt `(n,)` and its unit vector `(d,)`."""

    row: Candidate
    gains: np.ndarray
    unit: np.ndarray


def promising(evidence: Evidence, direction: Direction, count: int) -> list[tuple[float, int]]:
    """The best layers of a direction by first-order gain at 0.1 nat: `(gain in nats, layer)`, best first."""
    layers = direction.mean.shape[0]
    gradient = evidence.gradient.mean(0)
    found = []
    for layer in range(int(FIRST * layers), max(int(FIRST * layers) + 1, int(np.ceil(LAST * layers)))):
        mean = direction.mean[layer]
        if not np.linalg.norm(mean) > 0:
            continue
        unit = mean / np.linalg.norm(mean)
        gain = float(gradient[layer] @ unit) * evidence.shift_norm(unit, layer)
        if np.isfinite(gain):
            found.append((gain, layer))
    return sorted(found, reverse=True)[:count]


@dataclass(frozen=True)
class Trials:
    """Runs candidates; `rows` are the selection prompts, `metric` refusal log-odds."""

    bench: Workbench
    evidence: Evidence
    kl: KlMeter
    metric: Metric
    label: str
    rows: Sequence[Row]

    def run(self, direction: Direction, layer: int, name: str, target: float = DECINAT) -> Trial:
        """Solve for the shift of `target` nats and measure the gain of every prompt; kept as a shard."""
        unit = direction.mean[layer] / np.linalg.norm(direction.mean[layer])

        def make() -> dict[str, np.ndarray]:
            guess = self.evidence.shift_norm(unit, layer, target)
            solved = self.kl.solve(unit, layer, target, guess)
            shift = torch.as_tensor(unit * solved.norm, dtype=torch.float32, device=self.bench.probe.device)
            base = item_values(self.bench.probe, self.rows, self.metric)
            moved = item_values(self.bench.probe, self.rows, self.metric, shift, layer)
            return {"gains": moved - base, "solved": np.array([solved.norm, solved.kl])}

        key = (self.label, layer, target, unit.round(6).tolist(), rows_key(self.rows), rows_key(self.kl.texts))
        shard = self.bench.store.get(f"trial-{name}", key, make)
        norm, kl = shard["solved"].tolist()
        low_high = interval(shard["gains"], self.bench.seed)
        row = Candidate(layer, direction.position, direction.estimator, kl, norm, *low_high, False)
        return Trial(row, shard["gains"], unit)


def interval(values: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Mean with its 90% bootstrap interval over prompts."""
    found = bootstrap_interval(values, lambda x: float(np.mean(x)), np.random.default_rng(seed))
    return found.value, found.low, found.high


def select(trials: Trials, chosen: Direction, others: Sequence[Direction], final: Sequence[Row]) -> tuple[Selection, Trial]:
    """Try candidates, choose the best of the surveyed estimator, and score it once on the third split."""
    evidence, seed = trials.evidence, trials.bench.seed
    tried = promising(evidence, chosen, trials.bench.size.candidates)
    if not tried:
        raise AligntaxError("the safety direction is zero in all layers: refusing does not depend on the prompts; give others")
    own = [trials.run(chosen, layer, "own") for _, layer in tried]
    best = max(own, key=lambda trial: trial.row.gain or -np.inf)
    rivals = []
    by_kind: dict[str, tuple[float, int, Direction]] = {}
    for direction in others:
        for gain, layer in promising(evidence, direction, 1):
            if direction.estimator not in by_kind or gain > by_kind[direction.estimator][0]:
                by_kind[direction.estimator] = (gain, layer, direction)
    for _, layer, direction in by_kind.values():
        rivals.append(trials.run(direction, layer, "rival"))
    scored = Trials(trials.bench, evidence, trials.kl, trials.metric, trials.label, final).run(chosen, best.row.layer, "final")
    rest = [trial for trial in own if trial is not best]
    runner = max(rest, key=lambda trial: trial.row.gain or -np.inf) if rest else None
    gap = interval(best.gains - runner.gains, seed) if runner else (float("nan"),) * 3
    rows = [Candidate(**{**vars(t.row), "chosen": t is best}) for t in [*own, *rivals]]
    return (
        Selection(DECINAT, rows, scored.row.gain, scored.row.low, scored.row.high, *gap),
        Trial(Candidate(**{**vars(best.row), "chosen": True}), best.gains, best.unit),
    )
