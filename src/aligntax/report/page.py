"""One self-contained HTML page of a survey: no script, no request, a content security policy that allows neither."""

from markupsafe import Markup

from ..results import Survey
from . import appendix, figures, lever_tables, tables
from .document import document
from .text import clean, interval
from .verdict import MEANING, RANKED, cautions, held, kept, key_figures, selected, verdict


def render_html(survey: Survey) -> str:
    """The whole report as one HTML document (UTF-8 text).

    Every string of the survey is stripped of control characters and escaped; None and non-finite numbers are shown as
    an en dash that says *undefined*. The page loads nothing: its style sheet is inline and allowed by hash.
    """
    survey = clean(survey)
    return document(
        "survey.html.j2",
        s=survey,
        row=selected(survey),
        verdict=verdict(survey),
        figures_first=key_figures(survey),
        cautions=cautions(survey),
        meaning=MEANING,
        ranked=RANKED,
        kept=kept(selected(survey)),
        gap=gap_words(survey),
        fig=_drawings(survey),
        tab=_tables(survey),
    )


def gap_words(survey: Survey) -> str:
    """Whether the chosen layer beats its runner-up, in words."""
    choice = survey.selection
    if not held(choice.runner_up_gap):
        return "There is no runner-up to compare with, or the gap is undefined."
    gap = interval(choice.runner_up_gap, choice.gap_low, choice.gap_high, plus=True)
    said = f"The chosen candidate leads the runner-up by {gap} nats of refusal log-odds"
    if not held(choice.gap_low) or not held(choice.gap_high):
        return f"{said}; without an interval this cannot be called a difference."
    if choice.gap_low <= 0 <= choice.gap_high:
        return f"{said}: the interval includes 0, so the two are not distinguishable."
    return f"{said}: the interval leaves out 0, so the difference is real on these prompts."


def _drawings(survey: Survey) -> dict[str, Markup | None]:
    row = selected(survey)
    return {
        "bill": figures.bill(row),
        "frontier": figures.frontier(survey.frontier, row),
        "joint": figures.joint(survey),
        "heat": figures.heat(survey),
        "agreement": figures.agreement(survey),
        "linearity": figures.scatter(survey.linearity.points if survey.linearity else []),
    }


def _tables(survey: Survey) -> dict[str, tables.Table | None]:
    return {
        "bill": tables.bill_table(survey),
        "subspace": lever_tables.subspace_table(survey),
        "probes": lever_tables.probe_table(survey),
        "chance": tables.chance_table(selected(survey)),
        "over_refusal": tables.over_refusal_table(survey),
        "frontier": tables.frontier_table(survey),
        "joint": tables.joint_table(survey),
        "heat": tables.heat_table(survey),
        "agreement": tables.agreement_table(survey),
        "tolerances": tables.tolerance_table(survey),
        "selection": tables.selection_table(survey),
        "tokens": tables.token_table(survey),
        "budgets": tables.budget_table(survey),
        "points": tables.points_table(survey),
        "conflicts": appendix.conflict_table(survey),
        "joint_conflict": appendix.joint_conflict_table(survey),
        "spend": appendix.spend_table(survey),
        "calibration": appendix.calibration_table(survey),
        "formats": appendix.format_table(survey),
        "tasks": appendix.task_table(survey),
        "provenance": appendix.provenance_table(survey),
        "extra": appendix.extra_table(survey),
        "timing": appendix.timing_table(survey),
    }
