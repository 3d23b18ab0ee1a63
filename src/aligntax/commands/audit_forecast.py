"""The survey's bill against what was paid: the same tasks, other items, and baselines that know no geometry."""

import numpy as np
import scipy.stats

from ..results import Forecast, KlRecord, Survey, TaskTax

LEVEL, DRAWS, LEAST_TASKS = 0.9, 2000, 4


def forecasts(survey: Survey | None, kl: KlRecord) -> dict[str, float]:
    """Predicted tax of each task, nats per token: the survey's change per 0.1 nat, at the KL per token that was measured.

    First order: a change grows with the root of KL. Tasks whose forecast is undefined are left out.
    """
    if survey is None or not kl.tokens:
        return {}
    spent = sum((m or 0.0) * c for m, c in zip(kl.mean, kl.count, strict=True)) / kl.tokens
    row = next(layer for layer in survey.layers if layer.layer == survey.layer)
    return {
        name: -task.change_per_decinat * float(np.sqrt(max(spent, 0.0) / 0.1))
        for name, task in row.tasks.items()
        if task.change_per_decinat is not None
    }


def forecast_of(survey: Survey | None, tax: list[TaskTax], rng: np.random.Generator) -> Forecast | None:
    """Spearman correlation of forecast and observed tax over tasks, beside two baselines; None below 4 forecast tasks."""
    rows = [t for t in tax if t.forecast is not None and t.tax is not None]
    if survey is None or len(rows) < LEAST_TASKS:
        return None
    layer = next(found for found in survey.layers if found.layer == survey.layer)
    observed = np.array([t.tax for t in rows], dtype=float)
    predictors = {
        "forecast": np.array([t.forecast for t in rows], dtype=float),
        "gradient norm": np.array([layer.tasks[t.task].gradient_norm or np.nan for t in rows]),
        "accuracy before": np.array([t.accuracy_before for t in rows], dtype=float),
    }
    values = {name: _rank(x, observed) for name, x in predictors.items()}
    best = max((n for n in values if n != "forecast"), key=lambda n: np.nan_to_num(values[n], nan=-1.0))
    draws = [rng.integers(0, len(rows), len(rows)) for _ in range(DRAWS)]
    mine = np.array([_rank(predictors["forecast"][d], observed[d]) for d in draws])
    gap = mine - np.array([_rank(predictors[best][d], observed[d]) for d in draws])
    low, high = np.nanquantile(mine, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    gap_low, gap_high = np.nanquantile(gap, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    verdict = "supported" if gap_low > 0 and low > 0 else "contradicted" if high < 0 or gap_high < 0 else "undecided"
    return Forecast(
        values["forecast"], float(low), float(high),
        {name: value for name, value in values.items() if name != "forecast"},
        float(gap_low), float(gap_high), len(rows), verdict,
    )  # fmt: skip


def _rank(x: np.ndarray, y: np.ndarray) -> float:
    if len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
        return float("nan")
    return float(scipy.stats.spearmanr(x, y).statistic)
