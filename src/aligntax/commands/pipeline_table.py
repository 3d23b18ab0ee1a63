"""From sheets to the stage table: means with intervals, and what each stage paid against the policy that it came from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..results.pipeline import StageRecord, StageScore, StageTax
from ..stats import (
    Estimate,
    ObservedTax,
    SplitTax,
    adjusted_p_values,
    bootstrap_interval,
    observed_tax,
    split_tax,
)
from .pipeline_sheet import HIGH, LOW, Sheet
from .pipeline_stages import Course

WORSE_WHEN_HIGH = ("over-refusal",)
REWARDS = ("gold reward",)


def stage_record(
    name: str, previous: str | None, sheets: tuple[Sheet | None, Sheet | None], course: Course, seed: int
) -> StageRecord:
    """The record of a stage. `sheets` are its own and the previous policy's; a reward model has neither."""
    own, before = sheets
    rng = np.random.default_rng([seed, len(name)])
    words = own if own is not None else Sheet({}, {}, {}, {})
    level = _interval(list(words.texts.values()), rng, _perplexity)
    nats = _interval(list(words.kl.values()), rng, lambda rows: float(rows[:, 0].mean()))
    tokens = sum(row[1] for row in words.kl.values())
    return StageRecord(
        name=name, previous=previous, policy=own is not None, checkpoint=f"{name}/model",
        perplexity=level.value, perplexity_low=level.low, perplexity_high=level.high,
        scores=[_score(key, kind, values, rng) for key, kind, values in _all_scores(words)],
        taxes=[] if own is None or before is None else stage_taxes(before, own, rng),
        kl=nats.value, kl_low=nats.low, kl_high=nats.high,
        kl_token=sum(row[0] for row in words.kl.values()) / tokens if tokens else None,
        replies=len(words.kl), facts=dict(course.facts),
        curves={key: [(float(s), v) for s, v in points] for key, points in course.curves.items()},
        seconds=course.seconds,
    )  # fmt: skip


def _perplexity(rows: np.ndarray) -> float:
    """Perplexity per token of documents given as (nats, tokens)."""
    return float(np.exp(rows[:, 0].sum() / rows[:, 1].sum()))


def _interval(rows: list[list[float]], rng: np.random.Generator, statistic: object) -> Estimate:
    if len(rows) < 2:
        return Estimate(float("nan"), float("nan"), float("nan"), float("nan"))
    return bootstrap_interval(np.array(rows), statistic, rng, 1000)  # type: ignore[arg-type]


def _all_scores(sheet: Sheet) -> list[tuple[str, str, Mapping[str, float]]]:
    """(name, kind, item -> value): capabilities, then choices of the good reply and scores of replies."""
    capability = [(name, "capability", values) for name, values in sheet.right.items() if name in sheet.logprobs]
    chosen = [(name, "alignment", values) for name, values in sheet.right.items() if name not in sheet.logprobs]
    return [*capability, *chosen, *((name, "alignment", values) for name, values in sheet.said.items())]


def _score(name: str, kind: str, values: Mapping[str, float], rng: np.random.Generator) -> StageScore:
    found = _interval([[value] for value in values.values()], rng, lambda rows: float(rows.mean()))
    better, unit = (LOW if name in WORSE_WHEN_HIGH else HIGH), ("reward" if name in REWARDS else "fraction")
    return StageScore(name, kind, better, unit, found.value, found.low, found.high, len(values))


def stage_taxes(before: Sheet, after: Sheet, rng: np.random.Generator) -> list[StageTax]:
    """Every score before minus after, paired by item; items that only one of them could be marked on are left out."""
    kinds, taxes = {}, {}
    earlier = {name: values for name, _, values in _all_scores(before)}
    for name, kind, values in _all_scores(after):
        common = [item for item in values if item in earlier.get(name, {})]
        if len(common) >= 2:
            sides = ({item: earlier[name][item] for item in common}, {item: values[item] for item in common})
            kinds[name], taxes[name] = kind, observed_tax(*sides, rng, 1000)
    if not taxes:
        return []
    adjusted = adjusted_p_values(taxes)
    splits = {name: split_tax(before.logprobs[name], after.logprobs[name], rng, 1000)
              for name, kind in kinds.items() if kind == "capability"}  # fmt: skip
    return [_tax(name, kinds[name], tax, adjusted[name], splits.get(name)) for name, tax in taxes.items()]


def _tax(name: str, kind: str, tax: ObservedTax, adjusted: float, split: SplitTax | None) -> StageTax:
    own = split.selective if split else None
    return StageTax(
        name=name, kind=kind, before=tax.before, after=tax.after, tax=tax.tax.value, low=tax.tax.low, high=tax.tax.high,
        p_value=tax.p_value, p_adjusted=adjusted, selective=own.value if own else None,
        selective_low=own.low if own else None, selective_high=own.high if own else None, n=tax.n, method=tax.method,
    )  # fmt: skip


def mean_capability(sheet: Sheet) -> float:
    """Accuracy over all capabilities, each counted alike; nan without any."""
    means = [float(np.mean(list(sheet.right[name].values()))) for name in sheet.logprobs]
    return float(np.mean(means)) if means else float("nan")


def mean_said(sheet: Sheet, name: str) -> float:
    """Mean of one score of replies; nan where it was not given."""
    values = list(sheet.said.get(name, {}).values())
    return float(np.mean(values)) if values else float("nan")
