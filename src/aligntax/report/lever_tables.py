"""What only some settings give: the tax of a safety subspace, and probes as capability directions beside gradients.

Both lie in `extra`, which has no schema: whatever is there that is no number is shown as undefined.
"""

import math
from typing import Any

from ..results import Survey
from .tables import Table, table
from .text import interval, number, percent
from .verdict import held, selected


def _value(found: Any) -> float | None:
    """A number of `extra`, or None for anything else."""
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _degrees(angle: float | None) -> str:
    return f"{number(math.degrees(angle), 3)}°" if held(angle) else number(None)


def _subspace(survey: Survey) -> tuple[int, float | None, list[float | None]] | None:
    """Rank, tax and principal angles (radians) of the safety subspace; None where none was surveyed."""
    found = survey.extra.get("subspace")
    if not isinstance(found, dict):
        return None
    listed = found.get("principal_angles_radians")
    angles = [_value(angle) for angle in listed] if isinstance(listed, list) else []
    return int(_value(found.get("rank")) or len(angles)), _value(found.get("tax")), angles


def subspace_line(survey: Survey) -> str | None:
    """The subspace's tax in one line, and what the bill above it is for; None where none was surveyed."""
    found = _subspace(survey)
    if found is None:
        return None
    rank, tax, angles = found
    listed = ", ".join(_degrees(angle) for angle in angles) or number(None)
    return (
        f"Safety subspace of rank {rank}: tax {number(tax)}, principal angles with all tasks {listed}. "
        "The bill above is for one direction alone, the mean gradient about which it lies."
    )


def subspace_table(survey: Survey) -> Table | None:
    """Rank, tax, angles and singular values of the safety subspace at the selected layer; None where none was surveyed."""
    found, row = _subspace(survey), selected(survey)
    if found is None:
        return None
    rank, tax, angles = found
    rows = [
        ["Rank", number(rank)],
        ["Tax of the subspace (mean over its directions)", number(tax)],
        ["Tax of the bill's direction alone (joint, raw)", number(row.joint_tax if row else None)],
        ["Tax expected by chance", number(row.chance_joint if row else None)],
        ["Principal angles with the span of all tasks", ", ".join(map(_degrees, angles)) or number(None)],
    ]
    values = survey.subspace_singular_values
    total = sum(value**2 for value in values if held(value))
    if total > 0:
        leading = [value for value in values[:rank] if held(value)]
        share = percent(sum(value**2 for value in leading) / total)
        listed = ", ".join(number(value, 3) for value in leading)
        rows.append(["Singular values (share of the squares of all)", f"{listed} ({share})"])
    return table(f"The safety subspace at layer {survey.layer}", ["Quantity", "Value"], rows)


def probe_table(survey: Survey) -> Table | None:
    """Each task's probe beside its gradient at the selected layer; None where capability directions are gradients."""
    found = survey.extra.get("capability_agreement")
    found = found if isinstance(found, dict) else {}
    if not found and survey.provenance.capability != "probe":
        return None
    rows = []
    for name in dict.fromkeys([*(info.name for info in survey.tasks), *found]):
        if name not in found:
            rows.append([name, "no probe: its gradient is used", number(None)])
            continue
        entry = found[name] if isinstance(found[name], dict) else {}
        cosine, low, high = (_value(entry.get(key)) for key in ("cosine", "low", "high"))
        angle = math.acos(min(1.0, max(-1.0, cosine))) if held(cosine) else None
        rows.append([name, interval(cosine, low, high, plus=True), _degrees(angle)])
    caption = f"Capability directions at layer {survey.layer}: probe and gradient of each task"
    return table(caption, ["Task", "Cosine [90%]", "Angle"], rows, (1,))
