"""The survey's bill against what was paid: the same tasks, other items, and baselines that know no geometry."""

from collections.abc import Mapping

import numpy as np

from ..audit import score_forecast
from ..results import Forecast, KlRecord, Survey, TaskTax

LEAST_TASKS = 4


def nats_per_token(kl: KlRecord) -> float:
    """Measured KL per response token, over all positions read; nan for none."""
    return (
        sum((m or 0.0) * c for m, c in zip(kl.mean, kl.count, strict=True)) / kl.tokens if kl.tokens else float("nan")
    )


def forecasts(survey: Survey | None, kl: KlRecord) -> dict[str, float]:
    """Predicted tax of each task, nats per token: the survey's change per 0.1 nat, at the KL per token that was measured.

    First order: a change grows with the root of KL. Tasks whose forecast is undefined are left out.
    """
    if survey is None or not kl.tokens:
        return {}
    spent = nats_per_token(kl)
    row = next(layer for layer in survey.layers if layer.layer == survey.layer)
    return {
        name: -task.change_per_decinat * float(np.sqrt(max(spent, 0.0) / 0.1))
        for name, task in row.tasks.items()
        if task.change_per_decinat is not None
    }


def forecast_of(
    survey: Survey | None, tax: list[TaskTax], drops: Mapping[str, np.ndarray], rng: np.random.Generator
) -> Forecast | None:
    """The forecast's rank correlation with what was paid, beside gradient norm and accuracy before; None below 4 tasks."""
    if survey is None:
        return None
    layer = next(found for found in survey.layers if found.layer == survey.layer)
    rows = [t for t in tax if t.forecast is not None and layer.tasks[t.task].gradient_norm is not None]
    if len(rows) < LEAST_TASKS:
        return None
    baselines = {
        "gradient norm": np.array([layer.tasks[t.task].gradient_norm for t in rows], dtype=float),
        "accuracy before": np.array([t.accuracy_before for t in rows], dtype=float),
    }
    predicted = np.array([t.forecast for t in rows], dtype=float)
    found = score_forecast(predicted, [drops[t.task] for t in rows], baselines, rng)
    best = max(found.baselines, key=lambda name: np.nan_to_num(found.baselines[name].value, nan=-1.0))
    ahead = found.ahead[best]
    return Forecast(
        found.correlation.value, found.correlation.low, found.correlation.high,
        {name: estimate.value for name, estimate in found.baselines.items()}, ahead.low, ahead.high, found.tasks,
        found.verdict,
    )  # fmt: skip
