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

FIRST = 0.1
"""Share of the blocks that is skipped at the bottom: what is written there is rewritten by everything above."""

MOST_DIRECT = 0.1
"""A shift reaches the output on two ways: through the blocks above, and directly, because the residual stream carries it
to the unembedding unchanged. Late in the model most of the promised gain is direct: a lever on the word `I`, free of tax and
as empty as a bias on one logit. A candidate must earn at least nine tenths of its gain through the model's own computation."""


@dataclass(frozen=True)
class Trial:
    """A candidate that was run: its row in the table, gains by prompt `(n,)`, unit vector `(d,)` and length of the shift."""

    row: Candidate
    gains: np.ndarray
    unit: np.ndarray
    norm: float


def direct_share(gradient: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Share of the first-order gain of a shift along `direction[l]` that the residual stream carries to the output itself.

    `<g_last, v_l> / <g_l, v_l>` for mean gradients `(L, d)` and directions `(L, d)`; `(L,)`, 1 at the last layer, nan where the
    gain is 0. Through the blocks above goes the rest, which may be more than 1 when they work against the direct path.
    """
    total = np.einsum("ld,ld->l", gradient, direction)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total != 0, direction @ gradient[-1] / total, np.nan)


def promising(evidence: Evidence, direction: Direction, count: int) -> list[tuple[float, int]]:
    """The best layers of a direction by first-order gain at 0.1 nat: `(gain in nats, layer)`, best first.

    Layers whose direct share is over `MOST_DIRECT` are left out; where that leaves none, the one with the least stays.
    """
    gradient, mean = evidence.gradient.mean(0), direction.mean
    share = np.abs(direct_share(gradient, mean))
    layers = [k for k in range(int(FIRST * len(mean)), len(mean)) if np.isfinite(share[k])]
    found = []
    for layer in [k for k in layers if share[k] <= MOST_DIRECT] or sorted(layers, key=lambda k: share[k])[:1]:
        unit = mean[layer] / np.linalg.norm(mean[layer])
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
        return Trial(row, shard["gains"], unit, norm)


def interval(values: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Mean with its 90% bootstrap interval over prompts."""
    found = bootstrap_interval(values, lambda x: float(np.mean(x)), np.random.default_rng(seed))
    return found.value, found.low, found.high


def select(
    trials: Trials, chosen: Direction, others: Sequence[Direction], final: Sequence[Row]
) -> tuple[Selection, Trial]:
    """Try candidates, choose the best of the surveyed estimator, and score it once on the third split."""
    evidence, seed = trials.evidence, trials.bench.seed
    tried = promising(evidence, chosen, trials.bench.size.candidates)
    if not tried:
        raise AligntaxError(
            "the safety direction is zero in all layers: refusing does not depend on the prompts; give others"
        )
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
    scored = Trials(trials.bench, evidence, trials.kl, trials.metric, trials.label, final).run(
        chosen, best.row.layer, "final"
    )
    rest = [trial for trial in own if trial is not best]
    runner = max(rest, key=lambda trial: trial.row.gain or -np.inf) if rest else None
    gap = interval(best.gains - runner.gains, seed) if runner else (float("nan"),) * 3
    rows = [Candidate(**{**vars(t.row), "chosen": t is best}) for t in [*own, *rivals]]
    return (
        Selection(DECINAT, rows, scored.row.gain, scored.row.low, scored.row.high, *gap),
        Trial(Candidate(**{**vars(best.row), "chosen": True}), best.gains, best.unit, best.norm),
    )
