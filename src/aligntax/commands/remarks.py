"""What a survey says beside its tables: warnings, and findings that only some settings give."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..geometry import principal_angles, tax_rate
from .analysis import Evidence, cosines, with_direction
from .estimators import Direction, subspace
from .gather import Workbench
from .materials import Materials
from .phases import Raw
from .selection import direct_share

if TYPE_CHECKING:
    from .survey import SurveyCommand


def warnings_of(
    command: "SurveyCommand", materials: Materials, raw: Raw, bench: Workbench, reliability: float | None
) -> list[str]:
    """What a reader must know before believing a number."""
    found = [f"task {t.task.name}: {note}" for t in materials.tasks for note in t.task.notes]
    found += [f"safety {o.name}: {note}" for o in materials.objectives for note in o.notes]
    if command.capability == "probe":
        found += unprobed([t.task.name for t in materials.tasks if t.task.name not in raw.probes])
    if bench.chat.fallback:
        found.append(
            f"the tokenizer has no chat template; prompts were framed with a fallback ({bench.chat.describe()})"
        )
    if reliability is None or not reliability >= 0.8:
        found.append("the safety direction itself is noisy (reliability below 0.8): joint tax is not to be trusted")
    if not any(origin.startswith("the model") for _, _, origin in raw.refusal):
        found.append(
            "the model refused none of the sampled harmful prompts; refusal tokens come from standard openings"
        )
    return found


def unprobed(names: Sequence[str]) -> list[str]:
    """A warning that `names` have no wrong answers, so that their directions are gradients among probes; none for no names."""
    if not names:
        return []
    one = len(names) == 1
    return [
        f"--capability probe: {', '.join(names)} {'has' if one else 'have'} no wrong answers to compare with, so the "
        f"{'direction is' if one else 'directions are'} the gradient, as without it; give choices to have a probe"
    ]


def extra_of(
    command: "SurveyCommand", evidence: Evidence, raw: Raw, found: dict[str, list[Direction]], layer: int
) -> dict:
    """What is only there for some settings: probe accuracy, capability agreement, the subspace and its angles."""
    gradient = found["gradient"][0].mean
    extra: dict = {
        "probe_accuracy": found["accuracy"][0].groups[0].tolist(),
        "direct_share": direct_share(gradient, evidence.safety.mean(0)).tolist(),
    }
    means = np.stack([groups[:, layer].mean(0) for groups in with_direction(evidence.tasks, layer).values()])
    if command.estimator == "subspace":
        space = subspace(found["gradient"][0], layer, command.rank)
        extra["subspace"] = {
            "rank": command.rank,
            "tax": tax_rate(space, means),
            "principal_angles_radians": principal_angles(space, means).tolist(),
        }
    if raw.probes:
        pairs = {
            name: cosines(raw.tasks[name].groups.means()[:, layer], p[None, :, layer]).at(0)
            for name, p in raw.probes.items()
        }
        extra["capability_agreement"] = {
            name: {"cosine": c.value, "low": c.low, "high": c.high} for name, c in pairs.items()
        }
    return extra
