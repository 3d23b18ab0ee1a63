"""How much of the safety that the measured KL could have bought at the survey's layer was in fact bought (theory 1.13)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..audit import FrontierEfficiency, frontier_efficiency
from ..audit.realised_shift import RealisedShift
from ..errors import GeometryError
from ..geometry import Fisher, straight_line_gaps
from ..probing import Row, fisher_draws, response_length
from ..results import EfficiencyRecord, Survey, TaskTax
from ..stats import Estimate
from ..stats.resample import t_quantile
from .alignment_frontier import GRADIENTS
from .analysis import fisher_matrix, measured_scale
from .audit_bearings import Bearings
from .audit_gather import Model, Pair
from .gather import rows_key

TEXTS, TEXT_TOKENS, DRAWS = 16, 48, 3
FRACTIONS = [0.25, 0.5, 0.75, 1.0]


def refusal_gain(pair: Pair, prompts: Sequence[Row], survey: Survey) -> Estimate:
    """Mean rise of the survey's refusal log-odds on harmful prompts, aligned less base, nats; t interval over prompts."""
    reading = pair.read("gain", prompts, [token.id for token in survey.refusal_tokens])
    assert reading.odds_base is not None and reading.odds_aligned is not None
    rise = (reading.odds_aligned - reading.odds_base)[:, 0]
    rise = rise[np.isfinite(rise)]
    if len(rise) < 2:
        return Estimate(float("nan"), float("nan"), float("nan"), float("nan"))
    mean, se = float(rise.mean()), float(rise.std(ddof=1) / np.sqrt(len(rise)))
    half = t_quantile(0.9, len(rise) - 1) * se
    return Estimate(mean, mean - half, mean + half, se)


def fisher_rows(texts: Sequence[Row]) -> list[Row]:
    """The replies that the Fisher matrix is taken from, each cut to `TEXT_TOKENS`."""
    return [Row(row.ids[: row.start + TEXT_TOKENS], row.start, k) for k, row in enumerate(texts[:TEXTS])]


def fisher_at(model: Model, texts: Sequence[Row], bearings: Bearings, ridge: float) -> Fisher:
    """Fisher matrix of the base model at the bearings' layer on its own replies to harmless prompts, nats per response token."""
    rows = fisher_rows(texts)
    probe = replace(model.probe, shift=bearings.kind, sinks=bearings.sinks)

    def make() -> dict[str, np.ndarray]:
        return {"scores": fisher_draws(probe, rows, DRAWS, model.speaker.seed)[:, bearings.layer]}

    key = (rows_key(rows), DRAWS, model.speaker.seed, bearings.kind, bearings.sinks, bearings.layer)
    scores = model.store.get("fisher", key, make)["scores"]
    return fisher_matrix(scores, response_length(rows), ridge)


def efficiency_record(
    survey: Survey,
    bearings: Bearings,
    fisher: Fisher,
    gain: Estimate,
    spent: tuple[Sequence[TaskTax], float],
    shift: RealisedShift | None,
) -> EfficiencyRecord:
    """The share, or why it is undefined; `spent` is the bill and the KL in nats per response token."""
    tax, nats = spent
    layer = bearings.layer
    slopes = {name: found[layer].astype(float) for name, found in bearings.gradients.items()}
    changes = {t.task: -t.tax for t in tax if t.tax is not None and np.linalg.norm(slopes.get(t.task, 0.0)) > 0}
    safety = bearings.safety[layer].astype(float)
    rows = np.array([slopes[name] for name in changes])
    if survey.estimator not in GRADIENTS:
        found = _undefined(f"the survey's direction is {survey.estimator}, no gradient of what was gained")
    elif not changes:
        found = _undefined("no task of the survey was scored")
    else:
        budget = nats / measured_scale(fisher, safety, survey.at_layer().shift_norm_per_decinat)
        found = frontier_efficiency(gain, safety, rows, list(changes.values()), fisher, budget)
    share = found.share
    return EfficiencyRecord(
        share.value, share.low, share.high, gain.value, gain.low, gain.high, found.frontier, nats, layer,
        shift.texts if shift else 0, found.reason, FRACTIONS, *_gaps(safety, rows, shift, layer),
    )  # fmt: skip


def _undefined(reason: str) -> FrontierEfficiency:
    nan = float("nan")
    return FrontierEfficiency(Estimate(nan, nan, nan, nan), nan, reason)


def _gaps(
    safety: np.ndarray, rows: np.ndarray, shift: RealisedShift | None, layer: int
) -> tuple[list[float | None], list[float | None]]:
    """Gaps of the straight line to the mean shift at `layer`, full and matched budget, nats of refusal log-odds."""
    nothing: list[float | None] = [None] * len(FRACTIONS)
    if shift is None or not len(rows):
        return nothing, nothing
    try:
        found = straight_line_gaps(safety, rows, shift.mean[layer], FRACTIONS)
    except GeometryError:
        return nothing, nothing
    size = float(np.linalg.norm(safety))
    return (size * found.full).tolist(), (size * found.matched).tolist()
