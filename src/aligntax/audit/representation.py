"""Where along a response the aligned model stands elsewhere than its base on the safety direction, layer by layer.

The estimand: `v_l . h_l(y_<t)`, the residual stream after block `l` at the last token before position `t` of the response, which is
what the law of that token is read from; so position for position it lines up with the KL profile. Both models read the same rows.
The difference has a horizon of its own, the position by which a share of its summed square has accumulated. It is compared with
that of KL on the same rows, since the two need not agree: a late difference may be one that the head does not read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from aligntax.audit.profile import REACH, KlByPosition, reached_by
from aligntax.audit.prompt_draws import DRAWS, LEVEL, Array, PromptDraws
from aligntax.audit.sides import LiveSide
from aligntax.errors import AligntaxError
from aligntax.models import capture_outputs, decoder_blocks, final_hidden
from aligntax.probing import Batch, Row, TokenBudget, run_batches
from aligntax.stats import Estimate

FACTOR = 2.0
"""Two horizons count as the same where they are within this factor of each other."""

Verdict = Literal["supported", "contradicted", "undecided"]


@dataclass(frozen=True, eq=False)
class RepresentationProfile:
    """Projections on the unit direction by layer and position `1..T`, in units of the residual stream.

    `base`, `aligned` `(L, T)`: means over responses that reach the position; `square` `(L, T)`: mean squared difference.
    `horizon[l]`: position by which `level` of layer `l`'s summed squares has accumulated, with an interval over prompts (nan where
    the models do not differ); `gap[l]`: that less the horizon of KL on the same responses, paired, in tokens.
    """

    base: Array
    aligned: Array
    square: Array
    horizon: tuple[Estimate, ...]
    gap: tuple[Estimate, ...]
    level: float

    @property
    def difference(self) -> Array:
        """`aligned - base` `(L, T)`."""
        return self.aligned - self.base

    @property
    def share(self) -> Array:
        """Share `(L, T)` of the squared difference accumulated by each position, for responses of equal length."""
        running = np.cumsum(np.nan_to_num(self.square), axis=1)
        with np.errstate(invalid="ignore"):
            return np.where(running[:, -1:] > 0, running / running[:, -1:], math.nan)


def projections(
    side: LiveSide, rows: Sequence[Row], directions: Array, budget: TokenBudget, device: torch.device
) -> Array:
    """`(n, L, T)`: projection of one model's residual stream on `directions` `(L, d)` before each response token; nan beyond it.

    Directions are scaled to length 1. Raises AligntaxError for no rows, another shape, or a layer without a direction.
    """
    lengths, layers = np.linalg.norm(directions, axis=1), len(decoder_blocks(side.model))
    if len(directions) != layers or not (np.isfinite(lengths) & (lengths > 0)).all():
        raise AligntaxError(
            f"directions of shape {directions.shape}, lengths {lengths.min():.3g} to {lengths.max():.3g}; "
            f"give one finite, nonzero vector for each of {layers} layers"
        )
    if not rows:
        raise AligntaxError("no responses to project; give at least one prompt with a response")
    unit = torch.as_tensor(directions / lengths[:, None], dtype=torch.float32)
    found = np.full((len(rows), layers, max(len(row.ids) - row.start for row in rows)), math.nan)

    def step(batch: Batch) -> Tensor:
        with torch.no_grad(), side.switch(), capture_outputs(side.model) as outputs:
            final_hidden(side.model, batch.ids, batch.mask)
            return torch.stack([(outputs[k].float() @ unit[k].to(outputs[k].device)).cpu() for k in range(layers)])

    for batch, values in run_batches(rows, budget, device, step):
        for k, r in enumerate(batch.rows):
            own = values[:, k, rows[r].start - 1 : len(rows[r].ids) - 1]
            found[r, :, : own.shape[1]] = own.numpy()
    return found


def representation_profile(
    base: Array, aligned: Array, kl: KlByPosition, rng: np.random.Generator, level: float = REACH, draws: int = DRAWS
) -> RepresentationProfile:
    """Both models' projections `(n, L, T)` on the rows of `kl`, and how deep their difference goes beside KL.

    Horizons are those of squares summed over responses, as KL's are of nats. Raises AligntaxError for rows that differ.
    """
    if base.shape != aligned.shape or base[:, 0].shape != kl.forward.shape:
        raise AligntaxError(
            f"projections of {base.shape} and {aligned.shape} beside KL of {kl.forward.shape}; read the same rows"
        )
    resampled = PromptDraws.make(kl.prompts, rng, draws, LEVEL)
    squares = (aligned - base) ** 2
    nats, drawn_nats = _horizons(resampled, kl.forward, level)
    horizon, gap = [], []
    for layer in range(base.shape[1]):
        at, drawn = _horizons(resampled, squares[:, layer], level)
        horizon.append(resampled.estimate(at, drawn))
        gap.append(resampled.estimate(at - nats, drawn - drawn_nats))
    means = [
        np.array([resampled.means(values[:, k])[0] for k in range(base.shape[1])])
        for values in (base, aligned, squares)
    ]
    return RepresentationProfile(means[0], means[1], means[2], tuple(horizon), tuple(gap), level)


def same_horizon(found: Estimate, harm: Estimate, factor: float = FACTOR) -> Verdict:
    """Is the horizon of a representation that of harm, as the paper conjectures (§10.3)? In tokens, with intervals.

    *supported* where every value of the one interval is within `factor` of every value of the other, *contradicted* where none is,
    else *undecided*, as for an undefined end. Raises AligntaxError for a factor not above 1.

    >>> same_horizon(Estimate(9.0, 8.0, 10.0, 1.0), Estimate(8.0, 7.0, 10.0, 1.0))
    'supported'
    """
    if not factor > 1:
        raise AligntaxError(f"factor={factor}; give a number above 1")
    ends = (found.low, found.high, harm.low, harm.high)
    if any(math.isnan(end) for end in ends) or min(ends) <= 0:
        return "undecided"
    if found.low > factor * harm.high or harm.low > factor * found.high:
        return "contradicted"
    return "supported" if max(found.high / harm.low, harm.high / found.low) <= factor else "undecided"


def _horizons(resampled: PromptDraws, values: Array, level: float) -> tuple[float, Array]:
    """Position by which `level` of sums over responses has accumulated, of the data and of every draw; nan where it is 0."""
    sums = resampled.sums(values)
    return float(reached_by(sums.sum(axis=0, keepdims=True), level)[0]), reached_by(resampled.weights @ sums, level)
