"""The loop on one page: what the survey said, how the model was trained, what the audit found, and whether the two agree."""

from pathlib import Path

from ..results import Align, Audit, Survey, read_align, read_audit, read_survey
from . import audit_figures, figures
from . import audit_verdict as after
from . import verdict as before
from .align_page import course, ends
from .document import document
from .tables import Table, table
from .text import clean, interval, number
from .verdict import held, selected

STEPS = ("survey", "align", "audit")
"""Folders of a loop, each with the result file of its name."""


def read_loop(folder: Path) -> tuple[Survey, Align, Audit]:
    """Survey, alignment record and audit out of their folders under `folder`. Raises AligntaxError for one that cannot be read."""
    survey, align, audit = (folder / step for step in STEPS)
    return read_survey(survey), read_align(align), read_audit(audit)


def render_loop(survey: Survey, align: Align, audit: Audit) -> str:
    """One HTML document (UTF-8): no script, no request, everything escaped. Links lead to the reports of the steps beside it."""
    survey, align, audit = clean(survey), clean(align), clean(audit)
    row = selected(survey)
    return document(
        "loop.html.j2",
        s=survey,
        a=audit,
        story=story(survey, align, audit),
        forecast_keys=before.key_figures(survey)[:3],
        paid_keys=after.key_figures(audit),
        cautions=cautions(survey, audit),
        forecast=after.forecast_words(audit),
        fig={
            "survey": figures.bill(row),
            "course": course(align),
            "paid": audit_figures.bill(audit),
            "attack": audit_figures.attack(audit.attack),
            "recovery": audit_figures.recovery(audit.recovery),
            "kl": audit_figures.kl(audit.kl, audit.kl_forced),
        },
        tab={"training": _training(align, audit), "forecast": _forecast(audit)},
    )


def story(survey: Survey, align: Align, audit: Audit) -> list[str]:
    """Forecast, training, bill, depth and verdict in three paragraphs, from the numbers alone."""
    recipe = ", ".join([align.method, *align.protect, *([] if align.depth == "none" else [align.depth])])
    return [
        f"Before training, the survey said: {before.verdict(survey)}",
        f"Then the model was trained ({recipe}; {align.samples} rows, {number(align.provenance.wall_seconds / 60)} minutes).",
        f"Afterwards, the audit found: {after.verdict(audit)}",
    ]


def cautions(survey: Survey, audit: Audit) -> list[str]:
    """What to know before relying on the page; the steps' own reports have the rest."""
    small = [name for name in (survey.size, audit.size) if name != "full"]
    found = (
        [f"{small[0]} size: intervals are wide. It shows how the loop works, not whether to ship this model."]
        if small
        else []
    )
    return [*found, *(w for w in audit.warnings if "size" not in w)]


def _training(align: Align, audit: Audit) -> Table:
    first, last = ends(align.steps, "recovery/mass")
    rows = [
        ["method", align.method],
        ["held", ", ".join(align.protect) or "nothing"],
        ["depth", align.depth],
        ["adapter", f"rank {align.lora_rank}, merged" if align.lora_rank else "full weights"],
        ["rows and tokens", f"{align.samples} rows, {align.tokens} tokens"],
        ["recovery mass on training prefixes", f"{number(first)} → {number(last)}" if held(first) else "–"],
        ["seconds a step", number(align.seconds_per_step)],
    ]
    if (e := audit.efficiency) is not None and held(e.share):
        rows.append(["gain over the frontier's at the same KL", interval(e.share, e.low, e.high)])
    return table("How it was trained", ["what", "value"], rows, (1,))


def _forecast(audit: Audit) -> Table:
    rows = [
        [
            t.task,
            number(t.forecast, 2, True),
            interval(t.tax, t.low, t.high, plus=True),
            number(t.shared, 2, True),
            str(t.n),
        ]
        for t in sorted(audit.tax, key=lambda t: -(t.forecast or 0.0))
    ]
    columns = ["task", "forecast", "lost of its own", "lost by all answers", "n"]
    return table("Forecast beside what was paid (nats per token; positive is a loss)", columns, rows)
