"""The frontier of one layer, for updates that were really made: what a shift there could have gained for the same price.

Taken from a survey: the safety gradient and every task's, in metric units, at the layer it selected. The price is measured
here, with the model before the update: Fisher draws on its own replies to harmless prompts, scaled so that the safety direction
costs what the survey measured, and KL(base | updated) on the same replies, in nats per response token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from ..audit import LiveSide, StoredSide, frontier_efficiency, read_pair
from ..errors import AligntaxError, GeometryError
from ..geometry import Fisher, max_gain_per_nats
from ..probing import Probe, Row, fisher_draws, response_length
from ..results import FrontierShare, Survey, read_arrays, read_survey
from ..stats import Estimate
from .analysis import fisher_matrix, measured_scale
from .tables import RIDGE

GRADIENTS = ("gradient", "subspace")
"""Estimators of a survey whose safety direction is a gradient."""
DRAWS = 4
"""Fisher draws a text."""
TEXTS, TEXT_TOKENS = 16, 48
"""Replies on which KL and Fisher information are measured, and their greatest length."""


@dataclass(frozen=True)
class LayerFrontier:
    """Gradients at `layer` in metric units a shift, safety `(d,)` and by task `(d,)`, and what a shift costs."""

    layer: int
    safety: np.ndarray
    tasks: dict[str, np.ndarray]
    fisher: Fisher

    def share(self, gain: Estimate, changes: Mapping[str, float], nats: float) -> FrontierShare:
        """The measured `gain` beside the frontier's at the same KL and the same changes of the tasks that both know.

        `within`: no task loses more than it did and gains are free, which can always be met; `exact`: every change as it was,
        which one layer often cannot make.
        """
        known = [name for name in self.tasks if name in changes]
        rows = np.stack([self.tasks[name] for name in known]) if known else np.zeros((0, len(self.safety)))
        moved = np.array([changes[name] for name in known])
        exact = frontier_efficiency(gain, self.safety, rows, moved, self.fisher, nats)
        within, why = self._within(rows, moved, nats)
        share = gain.value / within if within > 0 else float("nan")
        return FrontierShare(
            layer=self.layer, nats=nats, gain=gain.value, gain_low=gain.low, gain_high=gain.high,
            changes={name: changes[name] for name in known}, exact=exact.frontier, exact_share=exact.share.value,
            exact_low=exact.share.low, exact_high=exact.share.high, within=within, within_share=share,
            reason=exact.reason or why,
        )  # fmt: skip

    def _within(self, rows: np.ndarray, moved: np.ndarray, nats: float) -> tuple[float, str]:
        if not nats > 0:
            return float("nan"), ""
        try:
            return max_gain_per_nats(self.safety, rows, np.maximum(-moved, 0.0), self.fisher, nats).gain, ""
        except GeometryError as error:
            return float("nan"), str(error)


def layer_gradients(folder: Path) -> tuple[Survey, dict[str, np.ndarray]]:
    """A survey and its gradients `(L, d)`: `safety`, and the tasks' under their names.

    Raises AligntaxError where its safety direction is no gradient.
    """
    survey = read_survey(folder)
    if survey.estimator not in GRADIENTS:
        raise AligntaxError(
            f"--survey {folder} has no safety gradient; run `aligntax survey` with --estimator gradient"
        )
    arrays = read_arrays(folder / "directions.safetensors")
    # With probes as capability directions the metrics' gradients have names of their own.
    names = [name for name in arrays if name.startswith("task.")]
    tasks = {name.removeprefix("task."): arrays.get(f"gradient.{name}", arrays[name]) for name in names}
    return survey, {"safety": arrays["safety"], **tasks}


class PriceMeter:
    """The model before an update, kept as what it said on its own replies: what an update of it costs, and what could be had.

    Made from the model as it was; `nats(model)` is then asked of the same architecture after the update.
    """

    def __init__(self, probe: Probe, folder: Path, texts: Sequence[Row], seed: int) -> None:
        if not texts:
            raise AligntaxError(
                "the model gave only empty replies, so KL cannot be measured; give other harmless prompts"
            )
        self._probe, self._texts = probe, list(texts)
        self._side = StoredSide(probe.model, self._texts, probe.budget)
        survey, gradients = layer_gradients(folder)
        row = survey.at_layer()
        own = replace(probe, shift=survey.provenance.shift, sinks=tuple(row.sinks))
        scores = fisher_draws(own, self._texts, DRAWS, seed)[:, survey.layer].astype(np.float64)
        fisher = fisher_matrix(scores, response_length(self._texts), RIDGE)
        safety = gradients.pop("safety")[survey.layer].astype(np.float64)
        scale = measured_scale(fisher, safety, row.shift_norm_per_decinat)
        fisher = Fisher(fisher.factor * np.sqrt(scale), RIDGE)
        tasks = {name: g[survey.layer].astype(np.float64) for name, g in gradients.items()}
        # A zero gradient has no direction: it bounds nothing.
        moving = {name: g for name, g in tasks.items() if np.linalg.norm(g) > 0}
        self.frontier = LayerFrontier(survey.layer, safety, moving, fisher)

    def nats(self, model: PreTrainedModel) -> float:
        """`KL(base | model)` in nats per response token of the base's own replies."""
        reading = read_pair(self._side, LiveSide(model), self._texts, self._probe.budget, self._probe.device)
        return float(np.nanmean(reading.reverse))
