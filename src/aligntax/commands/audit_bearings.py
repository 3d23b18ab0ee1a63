"""What the states of both models are compared with: a safety direction, task gradients, and the positions that these speak of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..audit import LiveSide, mean_states, projections
from ..errors import AligntaxError
from ..probing import Row, tokens_of
from ..results import Survey
from .audit_gather import Model
from .gather import rows_key

LAST = "last"


@dataclass(frozen=True, eq=False)
class Bearings:
    """A direction `safety` `(L, d)` called `name`, and `gradients` `(L, d)` by task: both of shifts of one `kind`, without `sinks`.

    `layer` is the one that is scored, chosen before these models were compared.
    """

    name: str
    safety: np.ndarray
    kind: str
    layer: int
    sinks: tuple[int, ...] = ()
    gradients: Mapping[str, np.ndarray] = field(default_factory=dict)


def surveyed(survey: Survey, arrays: Mapping[str, np.ndarray], shape: tuple[int, int]) -> Bearings:
    """Those of a survey. Raises AligntaxError where it is of a model of another shape `(L, d)`."""
    if arrays["safety"].shape != shape:
        raise AligntaxError(
            f"--survey: its directions have shape {arrays['safety'].shape}, the base model {shape}; give a survey of BASE"
        )
    names = [task.name for task in survey.tasks if f"task.{task.name}" in arrays]
    gradients = {name: arrays.get(f"gradient.task.{name}", arrays[f"task.{name}"]) for name in names}
    sinks = tuple(sorted({position for row in survey.layers for position in row.sinks}))
    name = "the survey's safety direction"
    return Bearings(name, arrays["safety"], survey.provenance.shift, survey.layer, sinks, gradients)


def difference(harmful: np.ndarray, harmless: np.ndarray) -> Bearings:
    """The base model's difference in means at the last token of harmful and harmless prompts, states `(n, L, d)`."""
    safety = harmful.mean(0) - harmless.mean(0)
    return Bearings("the base model's difference in means, harmful less harmless", safety, LAST, len(safety) // 2)


def states_of(model: Model, rows: Sequence[Row], kind: str, sinks: tuple[int, ...] = ()) -> np.ndarray:
    """Mean states `(n, L, d)` over the positions of `kind`; see `mean_states`."""
    probe = replace(model.probe, shift=kind, sinks=sinks)
    key = (rows_key(rows), kind, sinks)
    return model.store.get("states", key, lambda: {"states": mean_states(probe, rows)})["states"]


def projected(model: Model, rows: Sequence[Row], safety: np.ndarray) -> np.ndarray:
    """Projections `(n, L, T)` of one model's states along each row's response."""

    def make() -> dict[str, np.ndarray]:
        probe = model.probe
        found = projections(LiveSide(model.loaded.model), rows, safety, probe.budget, probe.device)
        probe.advance(tokens_of(rows))
        return {"along": found.astype(np.float32)}

    key = (rows_key(rows), np.round(safety.astype(float), 6).tolist())
    return model.store.get("projections", key, make)["along"].astype(np.float64)
