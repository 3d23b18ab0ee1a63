"""From the surveys of a family to a fit and a call for each task (theory 2.6). No files here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..geometry import ScalingFit, fit_scaling
from ..geometry.arrays import Array
from ..geometry.family import MIN_WIDTHS
from ..report.verdict import RANKED
from ..results.scale import ScaleBand, ScaleControls, ScaleFree, ScalePoint, ScaleRow
from ..stats.resample import t_quantile
from .scale_errors import WidthMeans, width_means
from .scale_read import Member

# Level of the jackknife intervals of `cosines`, from which a standard error is read back.
JACKKNIFE = 0.9
CONTROL_BAND = (0.05, 0.95)
CONTROLS_NAME = "control tasks"
FEWEST_CONTROLS = 8


@dataclass(frozen=True)
class Measured:
    """All members at their layers: widths `(n,)`; taxes, standard errors, reliabilities `(n, tasks)`; control taxes `(K, n)`."""

    names: list[str]
    widths: Array
    taxes: Array
    standard_errors: Array
    reliability: Array
    safety_reliability: Array
    controls: Array | None


def measure(members: Sequence[Member], depth: float) -> Measured:
    """Every task's tax in every survey at relative depth `depth`, and the control tasks' where all surveys kept them."""
    columns = []
    for member in members:
        table = member.taxes(member.layer_at(depth))
        half = t_quantile(JACKKNIFE, len(member.safety) - 1)
        columns.append(
            (table.tax, (table.tax_high - table.tax) / half, table.reliability_u, np.ravel(table.reliability_v)[0])
        )
    taxes, errors, reliable, safety = (np.array(part, dtype=float) for part in zip(*columns, strict=True))
    kept = [None if m.controls is None else m.controls[:, m.layer_at(depth)] for m in members]
    found = [taxes_of for taxes_of in kept if taxes_of is not None]
    count = min((len(taxes_of) for taxes_of in found), default=0)
    controls = np.stack([c[:count] for c in found], axis=1) if len(found) == len(members) and count else None
    widths = np.array([member.width for member in members], dtype=float)
    return Measured(list(members[0].tasks), widths, taxes, errors, reliable, safety, controls)


def usable(found: Measured, task: int) -> np.ndarray:
    """Which surveys measured the task well enough to rank it: tax and error defined, both reliabilities at least .3."""
    tax, error = found.taxes[:, task], found.standard_errors[:, task]
    reliable = (found.reliability[:, task] >= RANKED) & (found.safety_reliability >= RANKED)
    return np.isfinite(tax) & np.isfinite(error) & reliable


def task_row(found: Measured, task: int, members: Sequence[Member], level: float, seed: int) -> ScaleRow:
    """Fit one task over the surveys that measured it reliably, and hold it against the control tasks there."""
    kept = usable(found, task)
    names = [member.name for member, keep in zip(members, kept, strict=True) if not keep]
    widths = found.widths[kept]
    if len(np.unique(widths)) < MIN_WIDTHS:
        return _unfitted(found.names[task], found, task, kept, names)
    means = width_means(widths, found.taxes[kept, task], found.standard_errors[kept, task])
    controls = None if found.controls is None else control_means(found.controls[:, kept], widths)
    return scale_row(found.names[task], means, controls, names, (level, seed))


def control_means(controls: Array, widths: Array) -> Array | None:
    """Taxes of control tasks `(K, n)` averaged over the surveys of each width `(K, widths)`; a control counts where it is
    defined at every width. None where fewer than eight are left."""
    distinct, where = np.unique(widths, return_inverse=True)
    means = np.full((len(controls), len(distinct)), np.nan)
    for k in range(len(distinct)):
        own = controls[:, where == k]
        held = np.isfinite(own)
        means[:, k] = np.where(held, own, 0.0).sum(1) / np.where(held.any(1), held.sum(1), np.nan)
    whole = means[np.isfinite(means).all(1)]
    return whole if len(whole) >= FEWEST_CONTROLS else None


def scale_row(
    name: str, means: WidthMeans, controls: Array | None, left_out: list[str], settings: tuple[float, int]
) -> ScaleRow:
    """The fit of one task from its means by width; `settings` are the level of the intervals and the seed."""
    level, seed = settings
    alone = fit_scaling(means.widths, means.taxes, means.standard_errors, None, level, seed)
    fit = alone if controls is None else fit_scaling(*_data(means), controls, level, seed)
    return _row(name, means, fit, alone, left_out)


def _data(means: WidthMeans) -> tuple[Array, Array, Array]:
    return means.widths, means.taxes, means.standard_errors


def _row(name: str, means: WidthMeans, fit: ScalingFit, alone: ScalingFit, left_out: list[str]) -> ScaleRow:
    free = ScaleFree(fit.free.p, fit.free.t, fit.free.low, fit.free.high, fit.free.call)
    return ScaleRow(
        name, points(means), fit.t, fit.low, fit.high, fit.b, fit.b_low, fit.b_high, fit.call, fit.reason, alone.call,
        fit.constant_p, fit.scatter, fit.same_as_controls, free, left_out,
    )  # fmt: skip


def points(means: WidthMeans) -> list[ScalePoint]:
    """The means as rows of the record."""
    columns = (means.widths, means.counts, means.taxes, means.standard_errors)
    return [ScalePoint(int(d), int(n), float(y), float(se)) for d, n, y, se in zip(*columns, strict=True)]


def _unfitted(name: str, found: Measured, task: int, kept: np.ndarray, left_out: list[str]) -> ScaleRow:
    """A task that too few widths measured: said so, never dropped."""
    widths = found.widths[kept]
    reason = f"measured reliably at {len(np.unique(widths))} widths, and a plateau needs {MIN_WIDTHS}"
    shown = (
        points(width_means(widths, found.taxes[kept, task], found.standard_errors[kept, task])) if kept.any() else []
    )
    return ScaleRow(
        name,
        shown,
        None,
        None,
        None,
        None,
        None,
        None,
        "undecided",
        reason,
        "undecided",
        None,
        None,
        None,
        None,
        left_out,
    )


def control_rows(found: Measured, level: float, seed: int) -> ScaleControls | None:
    """The control tasks themselves: their band at each width, and the fit to their mean; None without enough of them."""
    means = None if found.controls is None else control_means(found.controls, found.widths)
    if means is None:
        return None
    distinct, where = np.unique(found.widths, return_inverse=True)
    low, high = np.quantile(means, CONTROL_BAND, axis=0)
    band = [
        ScaleBand(int(d), float(m), float(a), float(b))
        for d, m, a, b in zip(distinct, np.median(means, axis=0), low, high, strict=True)
    ]
    error = np.maximum(means.std(axis=0, ddof=1) / np.sqrt(len(means)), np.finfo(float).tiny)
    pooled = WidthMeans(distinct, means.mean(axis=0), np.maximum(error, 1e-9), np.bincount(where))
    return ScaleControls(len(means), band, scale_row(CONTROLS_NAME, pooled, None, [], (level, seed)))
