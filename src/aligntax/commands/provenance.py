"""What a result must say about where it came from."""

import time
from typing import TYPE_CHECKING

from .. import __version__
from ..models import LoadedModel
from ..results import Provenance
from .gather import Workbench
from .materials import Materials
from .record import now, versions

if TYPE_CHECKING:
    from .survey import SurveyCommand

PACKAGES = ("torch", "transformers", "numpy", "scipy", "clarabel")


def provenance(
    command: "SurveyCommand", bench: Workbench, loaded: LoadedModel, materials: Materials, began: float
) -> Provenance:
    """Model, data, settings and cost of a run that began at `began` (perf_counter)."""
    data = {f"task {t.task.name}": t.task.sha256 for t in materials.tasks}
    data |= {f"safety {o.name}": o.sha256 for o in materials.objectives}
    counts = {f"task {t.task.name}": len(t.gradient.keys) for t in materials.tasks}
    counts |= {f"safety {o.name}": len(o.positive.keys) for o in materials.objectives}
    counts |= {
        "selection prompts": len(materials.selection),
        "final prompts": len(materials.final),
        "texts": len(materials.texts),
    }
    return Provenance(
        package_version=__version__,
        created=now(),
        command=f"aligntax survey {command.model} --size {bench.size.name} --seed {command.seed}",
        model_source=loaded.source,
        revision=loaded.revision,
        weights_sha256=loaded.weights_sha256,
        adapter=loaded.adapter,
        dtype=str(loaded.dtype).removeprefix("torch."),
        device=str(loaded.device),
        seed=command.seed,
        groups=command.groups,
        shift=command.shift,
        capability=command.capability,
        formats=list(command.formats),
        chat_template=bench.chat.describe(),
        data=data,
        counts=counts,
        tokens=sum(phase.tokens for phase in bench.meter.phases),
        wall_seconds=time.perf_counter() - began,
        versions=versions(PACKAGES),
    )
