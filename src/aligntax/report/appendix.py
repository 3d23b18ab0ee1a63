"""The tables at the end of the report: conflicts, calibration, controls, formats, provenance, timing."""

from typing import Any

from ..results import Conflict, Survey
from .tables import Table, table
from .text import interval, number, percent


def _case(conflict: Conflict) -> str:
    """The case, whether noise could have made it, and why it is undefined."""
    if conflict.note and conflict.case == "undefined":
        return f"undefined: {conflict.note}"
    doubt = "" if conflict.case == "undefined" or conflict.decided else " (within noise)"
    return f"{conflict.case}{doubt}"


def _worth(conflict: Conflict) -> str:
    """Tasks worth protecting, what that adds to the cosine, and the same on items that did not choose them."""
    if not conflict.preserve:
        return "none"
    gain, heldout = number(conflict.preserve_gain, plus=True), number(conflict.preserve_gain_heldout, plus=True)
    search = "" if conflict.preserve_exact else "; greedy search"
    return f"{', '.join(conflict.preserve)} ({gain}; {heldout} on other items{search})"


def conflict_table(survey: Survey) -> Table:
    """Pairs of safety objectives; a pair whose numbers are undefined says why."""
    rows = [
        [
            f"{c.first} and {c.second}",
            interval(c.rho, c.rho_low, c.rho_high, plus=True),
            interval(c.rho_plain, c.rho_plain_low, c.rho_plain_high, plus=True),
            interval(c.rho_eff, c.rho_eff_low, c.rho_eff_high, plus=True),
            interval(c.tax_first, c.tax_first_low, c.tax_first_high),
            interval(c.tax_second, c.tax_second_low, c.tax_second_high),
            interval(c.margin, c.margin_low, c.margin_high, plus=True),
            interval(c.equal_normalised_gain, c.equal_normalised_gain_low, c.equal_normalised_gain_high),
            interval(c.gain_first_per_decinat, c.gain_first_low, c.gain_first_high),
            interval(c.gain_second_per_decinat, c.gain_second_low, c.gain_second_high),
            interval(c.equal_absolute_gain_per_decinat, c.equal_absolute_gain_low, c.equal_absolute_gain_high),
            interval(c.absolute_loss_per_decinat, c.absolute_loss_low, c.absolute_loss_high),
            _case(c),
            _worth(c),
        ]
        for c in survey.conflicts
    ]
    columns = ["Objectives", "Cosine without noise [90%]", "Cosine of the means [90%]"]
    columns += ["Cosine of the means with tasks protected [90%]", "Tax, first [90%]", "Tax, second [90%]"]
    columns += ["Help from protecting (above 0) [90%]", "Equal share of each maximum [90%]"]
    columns += ["Gain there, first [90%]", "Gain there, second [90%]", "Equal gain per 0.1 nat [90%]"]
    columns += ["Equal gain lost by protecting [90%]", "Case", "Worth protecting (added to the cosine)"]
    return table("Conflicts between objectives", columns, rows, (12, 13))


def joint_conflict_table(survey: Survey) -> Table | None:
    """All safety objectives at once; None where there are fewer than three."""
    found = survey.joint_conflict
    if found is None:
        return None
    share = interval(found.equal_normalised_gain, found.equal_normalised_gain_low, found.equal_normalised_gain_high)
    gain = interval(
        found.equal_absolute_gain_per_decinat, found.equal_absolute_gain_low, found.equal_absolute_gain_high
    )
    rows = [
        ["Equal share of each maximum [90%]", share],
        ["Equal gain per 0.1 nat [90%]", gain],
        [
            "Equal gain lost by protecting [90%]",
            interval(found.absolute_loss_per_decinat, found.absolute_loss_low, found.absolute_loss_high),
        ],
        *(
            [f"Weight of {name} in the equal gain (0: it does not bind)", number(weight)]
            for name, weight in zip(found.objectives, found.weights, strict=True)
        ),
    ]
    if found.note:
        rows.append(["Undefined because", found.note])
    return table("All objectives together", ["Quantity", "Value"], rows)


def spend_table(survey: Survey) -> Table:
    """Share of one total budget that each layer should get."""
    total = sum(s for s in survey.layer_budget.spend if s is not None)
    names = [row.layer for row in survey.layers]
    rows = [
        [
            str(names[k] if k < len(names) else k),
            number(share),
            percent(share / total) if total and share is not None else number(None),
        ]
        for k, share in enumerate(survey.layer_budget.spend)
    ]
    return table("Layer budget", ["Layer", "Spend", "Share of all"], rows)


def calibration_table(survey: Survey) -> Table:
    """How the KL budget and the empirical null were made."""
    fisher, controls, budget = survey.fisher, survey.controls, survey.layer_budget
    rows = [
        ["Fisher: texts", number(fisher.texts)],
        ["Fisher: sampled draws", number(fisher.draws)],
        ["Fisher: rank reached", number(fisher.rank)],
        ["Fisher: mean response length (tokens)", number(fisher.mean_response_tokens, 3)],
        ["Fisher: ridge", number(fisher.ridge)],
        ["Controls: tasks", number(controls.tasks)],
        ["Controls: pool of items", number(controls.pool_items)],
        ["Controls: items per task", number(controls.items_per_task)],
        ["Controls: median tax", number(controls.median_tax)],
        ["Controls: 95th percentile of tax", number(controls.p95_tax)],
        ["Layer budget: gain over equal spending", number(budget.ratio_isotropic, 3)],
        ["Layer budget: gain when layers may compensate", number(budget.ratio_total_change, 3)],
        ["Layer budget: note", budget.note or "none"],
        [
            "Singular values of the safety subspace",
            ", ".join(number(s, 3) for s in survey.subspace_singular_values) or "not computed",
        ],
    ]
    return table("Calibration", ["Quantity", "Value"], rows)


def format_table(survey: Survey) -> Table:
    """Signed cosine of each task in each prompt format."""
    formats = list(survey.formats)
    names = dict.fromkeys(name for values in survey.formats.values() for name in values)
    rows = [[name, *(number(survey.formats[f].get(name), 2, True) for f in formats)] for name in names]
    return table("Cosine by prompt format", ["Task", *formats], rows)


def task_table(survey: Survey) -> Table:
    """Where each task came from."""
    rows = [[t.name, t.kind, str(t.items), str(t.heldout), t.source, t.sha256] for t in survey.tasks]
    return table("Tasks", ["Task", "Kind", "Items", "Held out", "Source", "SHA-256"], rows, (1, 4, 5))


def _flat(value: Any, name: str) -> list[list[str]]:
    if isinstance(value, dict):
        return [row for key, item in value.items() for row in _flat(item, f"{name}: {key}" if name else str(key))]
    if isinstance(value, list):
        return [[name, ", ".join(number(v, 4) if isinstance(v, float) else str(v) for v in value[:64]) or "none"]]
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return [[name, str(value) if isinstance(value, int) else number(value, 4)]]
    return [[name, str(value)]]


def provenance_table(survey: Survey) -> Table:
    """Everything needed to repeat the run, and whatever else the run wished to say."""
    names = {"weights_sha256": "weights SHA-256", "created": "created (UTC)", "wall_seconds": "wall time (s)"}
    rows = [
        row
        for key, value in vars(survey.provenance).items()
        for row in (
            [[names.get(key, key.replace("_", " ")), "none"]]
            if value is None
            else _flat(value, names.get(key, key.replace("_", " ")))
        )
    ]
    rows.append(["schema version", str(survey.schema_version)])
    return table("Provenance", ["Field", "Value"], rows, (1,))


def extra_table(survey: Survey) -> Table | None:
    """Findings outside the schema, as name and value."""
    rows = _flat(survey.extra, "")
    return table("Other findings", ["Name", "Value"], rows, (1,)) if rows else None


def timing_table(survey: Survey) -> Table:
    """Wall time by phase."""
    rows = [
        [
            p.name,
            number(p.seconds, 3),
            number(p.tokens),
            number(p.tokens / p.seconds, 3) if p.tokens and p.seconds else number(None),
        ]
        for p in survey.timing
    ]
    return table("Timing", ["Phase", "Seconds", "Tokens", "Tokens per second"], rows)
