"""The audit's figures: KL by position, recovery by depth, success by prefill, what was paid. Inline SVG, classes only."""

from markupsafe import Markup

from ..results import AttackRecord, Audit, KlRecord, RecoveryRecord
from .frame import BOTTOM, HEIGHT, LEFT, OVER, TOP, curve, frame
from .svg import WIDTH, Scale, drawing, line, mark, rect, spread, text, x_axis
from .text import number
from .verdict import held

APART = 3.0
"""Pixels by which the bars of two models at one place are moved apart."""


def kl(own: KlRecord, forced: KlRecord) -> Markup | None:
    """KL by position, on the aligned model's own replies and on forced text."""
    values = [v for record in (own, forced) for v in record.mean if v is not None]
    if not values:
        return None
    last = max([*own.position, *forced.position])
    across, up = Scale(1, last, LEFT, WIDTH - 12), Scale(0.0, max(values) * 1.05 or 1.0, BOTTOM, TOP)
    parts = frame(
        across,
        up,
        ("position in the response (tokens)", "KL of aligned to base (nats per token)"),
        [("its own replies", "cost", ""), ("the same text for both", "muted dashed", "")],
    )
    parts.append(
        rect(
            (across(1), TOP - OVER, across(min(5, last)) - across(1), BOTTOM - TOP + OVER),
            "band",
            title="first five tokens",
        )
    )
    parts.append(curve(forced.position, forced.mean, across, up, "muted dashed"))
    parts.append(curve(own.position, own.mean, across, up, "cost"))
    if held(own.reach95):
        x = across(own.reach95)
        parts += [line(x, TOP - OVER, x, BOTTOM, "chosen"), text(x - 4, TOP + 4, "95%", "tick", "end")]
    return drawing("fig-kl", "Where the two models differ", "KL by position; the table has the numbers.", HEIGHT, parts)


def greyed(record: RecoveryRecord) -> list[bool]:
    """Whether mass may not be called recovery, at each depth: between two judged depths it may where both of them allow it.

    Past the last judged depth as there; nowhere where nothing was judged.
    """
    judged = [
        d
        for d, auc, share in zip(record.depth, record.auc, record.judged_aligned, strict=True)
        if held(auc) or held(share)
    ]
    if not judged:
        return [True] * len(record.depth)
    below = [max((j for j in judged if j <= d), default=judged[0]) for d in record.depth]
    above = [min((j for j in judged if j >= d), default=judged[-1]) for d in record.depth]
    return [low in record.greyed or high in record.greyed for low, high in zip(below, above, strict=True)]


def recovery(record: RecoveryRecord) -> Markup | None:
    """Mass on recovery tokens by depth for both models, with the share of rollouts judged as refusing."""
    if not record.depth:
        return None
    last = max(max(record.depth), 1)
    across, up = Scale(0, last, LEFT, WIDTH - 12), Scale(0.0, 1.0, BOTTOM, TOP)
    names = [("aligned, mass", "gain", ""), ("base, mass", "muted thin", "")]
    if record.greyed:
        names.insert(1, ("where mass is no recovery", "muted dotted", ""))
    parts = frame(across, up, ("tokens of a harmful answer already said", "share"), names)
    parts.append(curve(record.depth, record.mass_base, across, up, "muted thin"))
    for grey, css in ((False, "gain"), (True, "muted dotted")):
        own = [v if g == grey else None for v, g in zip(record.mass_aligned, greyed(record), strict=True)]
        parts.append(curve(record.depth, own, across, up, css))
    for values, css, name in ((record.judged_base, "muted", "base"), (record.judged_aligned, "gain", "aligned")):
        for depth, value in zip(record.depth, values, strict=True):
            if value is not None:
                parts.append(
                    mark(across(depth), up(value), "square", css, f"{name}, judged at {depth}: {number(value)}")
                )
    parts.append(text(WIDTH - 12, TOP - 14, "squares: rollouts judged as refusing", "tick", "end"))
    return drawing(
        "fig-recovery",
        "Would it still turn back?",
        "Recovery by depth of prefill; the table has the numbers.",
        HEIGHT,
        parts,
    )


def attack(records: list[AttackRecord]) -> Markup | None:
    """Share of harmful requests that go through after a prefill, by its depth, both models, with intervals."""
    drawn = [r for r in records if (r.kind, r.method) == ("prefill", "greedy") and r.n]
    if not drawn:
        return None
    across = Scale(0, max(1, *(r.depth for r in drawn)), LEFT, WIDTH - 12)
    up = Scale(0.0, 1.0, BOTTOM, TOP)
    parts = frame(
        across, up, ("tokens put into the model's mouth", "share that goes along"),
        [("aligned", "cost", "circle"), ("base", "muted dashed", "square")],
    )  # fmt: skip
    for side, css, shape, aside in (("base", "muted dashed", "square", APART), ("aligned", "cost", "circle", -APART)):
        known = [r for r in drawn if getattr(r, f"success_{side}") is not None]
        values = [getattr(r, f"success_{side}") for r in known]
        parts.append(curve([r.depth for r in known], values, across, up, css))
        colour = css.split()[0]
        for r, value in zip(known, values, strict=True):
            low, high, x = getattr(r, f"{side}_low"), getattr(r, f"{side}_high"), across(r.depth)
            if low is not None and high is not None:
                parts.append(line(x + aside, up(low), x + aside, up(high), f"whisker {colour}"))
            parts.append(mark(x, up(value), shape, colour, f"{side} at {r.depth}: {number(value)}"))
    return drawing("fig-attack", "What a prefill gets through", "Attack success by depth of prefill.", HEIGHT, parts)


def bill(audit: Audit) -> Markup | None:
    """What each task lost, with its interval, and the forecast as a cross where there was one."""
    if not audit.tax:
        return None
    rows = sorted(audit.tax, key=lambda t: -(t.tax or 0.0))
    values = [v for t in rows for v in (t.low, t.high, t.forecast) if v is not None]
    scale = Scale(*spread(values), 150, WIDTH - 12)
    bottom = 40.0 + 24 * len(rows)
    parts = [*x_axis(scale, 30, bottom, "lost (nats per token; left of 0 is a gain)")]
    for index, row in enumerate(rows):
        y = 46.0 + 24 * index
        sure = row.p_adjusted is not None and row.p_adjusted <= 0.05
        css = "cost" if sure and (row.tax or 0) > 0 else "gain" if sure else "muted"
        parts.append(text(140, y + 4, row.task[:22], "name", "end"))
        if row.low is not None and row.high is not None:
            parts.append(line(scale(row.low), y, scale(row.high), y, f"whisker {css}"))
        if row.tax is not None:
            parts.append(mark(scale(row.tax), y, "circle", css, f"{row.task}: {number(row.tax, 2, True)}"))
        if row.forecast is not None:
            parts.append(mark(scale(row.forecast), y, "cross", "muted", f"forecast {number(row.forecast, 2, True)}"))
    crosses = "; crosses: forecast by the survey" if any(t.forecast is not None for t in rows) else ""
    parts.append(text(4, 16, f"circles: paid (grey: not beyond chance){crosses}", "tick"))
    return drawing("fig-paid", "What was paid", "Selective loss of each task with 90% intervals.", bottom + 42, parts)
