"""One task over a family of models: does its tax vanish with width? ([G] Rem 5.7, Prediction 2)

The estimand is the plateau `t` in `tau(d) = t + b d^-p`. The exponent is 1 by default, the rate of a fixed number of
capabilities; a fitted exponent is a sensitivity, since six widths barely tell a slow decay from a plateau.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.stats

from aligntax.errors import GeometryError
from aligntax.geometry.arrays import Array, as_array, as_vector

Call = Literal["incidental", "intrinsic", "undecided"]

MIN_WIDTHS = 4
DRAWS = 2000
CONSTANT_BEATEN_BELOW = 0.05
# Share of the decay that a plateau may still hide under an incidental call. Without it, noise of a tenth of the largest
# tax lets planted plateaus of a third of the decay pass for 0 in 10% of families, with it in 1.5%; a limit of .25 would
# leave 18% of vanishing taxes undecided under that noise, .3 leaves 7%.
HIDDEN_AT_MOST = 0.3
EXPONENTS = np.geomspace(0.25, 2.0, 31)
FREE_DRAWS = 500

# Relative scatter below which data are exact: it is the rounding of the fit itself.
_EXACT = 1e-10


@dataclass(frozen=True)
class FreeExponentFit:
    """The fit with `p` chosen in [0.25, 2] beside `t` and `b`, and the call it would lead to."""

    p: float
    t: float
    low: float
    high: float
    b: float
    call: Call


@dataclass(frozen=True)
class ScalingFit:
    """`tau(d) = t + b d^-p` for one task, all taxes as fractions.

    `t >= 0` with interval [low, high]; `b` with [b_low, b_high] in tax times width. `constant_p` is the p-value of a constant
    against the fit. `scatter` is the size of the residuals in standard errors (in units of tax when none were given).
    `same_as_controls` is None without controls. `reason` says in a few words why the call is what it is; `free` is the
    sensitivity to the exponent.
    """

    t: float
    low: float
    high: float
    b: float
    b_low: float
    b_high: float
    p: float
    call: Call
    reason: str
    constant_p: float
    scatter: float
    same_as_controls: bool | None
    free: FreeExponentFit

    def predict(self, d: Any) -> Any:
        """Fitted tax at width `d`."""
        return self.t + self.b * np.power(np.asarray(d, dtype=float), -self.p)


@dataclass(frozen=True)
class _Data:
    """Widths `(n,)`, taxes `(n,)`, weights `1/se^2` `(n,)`, and whether the standard errors were given."""

    widths: Array
    taxes: Array
    weights: Array
    known: bool


def _read(widths: Any, taxes: Any, standard_errors: Any) -> _Data:
    d = as_vector(widths, "widths")
    y = as_vector(taxes, "taxes", d.size)
    if (d <= 0.0).any():
        raise GeometryError(f"widths {d.tolist()}: a width is a number > 0")
    if np.unique(d).size < MIN_WIDTHS:
        raise GeometryError(
            f"widths {d.tolist()} hold {np.unique(d).size} different widths; a plateau needs at least {MIN_WIDTHS}, add models"
        )
    if standard_errors is None:
        return _Data(d, y, np.ones(d.size), known=False)
    se = as_vector(standard_errors, "standard_errors", d.size)
    if (se <= 0.0).any():
        raise GeometryError(f"standard_errors {se.tolist()}: give numbers > 0, or None to take the scatter of the fit")
    return _Data(d, y, se**-2.0, known=True)


def _fit(x: Array, y: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Weighted least squares of `y` `(..., n)` on `t + b x` with `t >= 0`: `t`, `b` and the weighted sum of squares."""
    w = weights / weights.sum()
    centre = x - w @ x
    b = y @ (w * centre) / (w @ np.square(centre))
    t = y @ w - b * (w @ x)
    clamped = t < 0.0
    b = np.where(clamped, y @ (w * x) / (w @ np.square(x)), b)
    t = np.where(clamped, 0.0, t)
    return t, b, np.square(y - t[..., None] - b[..., None] * x) @ weights


def _fit_free(d: Array, y: Array, weights: Array) -> tuple[Array, Array, Array, Array]:
    """The same with the exponent that leaves the least sum of squares: `p`, `t`, `b` and that sum."""
    fits = np.array([_fit(np.power(d, -p), y, weights) for p in EXPONENTS])
    best = np.argmin(fits[:, 2], axis=0)[None, None]
    t, b, left = np.take_along_axis(fits, np.broadcast_to(best, (1, *fits.shape[1:])), axis=0)[0]
    return EXPONENTS[best[0, 0]], t, b, left


def _noise(data: _Data, left: float, freedom: int, rng: np.random.Generator) -> tuple[Array, float]:
    """Draws of the error of the taxes `(DRAWS, n)` and the scatter they were scaled with.

    The scale comes from the residuals and is itself drawn, which gives the tails of Student's t. Given standard errors
    are a least scale: they are estimates too (from 8 groups off by a quarter), so residuals may enlarge them but never
    shrink them.
    """
    floor = 0.0 if data.known else _EXACT * max(float(np.abs(data.taxes).max()), np.finfo(float).tiny)
    scatter = max(floor, float(np.sqrt(left / freedom)))
    scale = scatter * np.sqrt(freedom / rng.chisquare(freedom, (DRAWS, 1)))
    errors = rng.standard_normal((DRAWS, data.taxes.size)) / np.sqrt(data.weights)
    return errors * (np.maximum(1.0, scale) if data.known else scale), scatter


def _constant_p(data: _Data, left: float, extra: int, scatter: float) -> float:
    """p-value of a constant tax against a fit with `extra` more parameters that leaves the sum of squares `left`."""
    mean = data.weights @ data.taxes / data.weights.sum()
    gained = max(0.0, float(data.weights @ np.square(data.taxes - mean)) - left) / extra
    if gained == 0.0:
        return 1.0
    if data.known:
        return float(scipy.stats.chi2.sf(extra * gained / max(1.0, scatter) ** 2, extra))
    return float(scipy.stats.f.sf(gained / scatter**2, extra, data.taxes.size - 1 - extra))


def _interval(draws: Array, level: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _call(low: float, high: float, decay: float, constant_p: float) -> tuple[Call, str]:
    """Call and reason; `decay` is the part of the tax at the smallest width that the fit takes to vanish."""
    if low > 0.0:
        return "intrinsic", "the interval of the plateau excludes 0"
    if decay <= 0.0 or constant_p >= CONSTANT_BEATEN_BELOW:
        return "undecided", "the plateau may be 0, yet a constant fits as well"
    if high > HIDDEN_AT_MOST * decay:
        return "undecided", "the plateau may be 0, yet also a good part of the tax"
    return "incidental", "the plateau may be 0, is small at most, and the decay beats a constant"


def _meets(low: float, high: float, values: Array) -> bool:
    """Whether [low, high] meets the central 95% of the values."""
    start, end = np.quantile(values, [0.025, 0.975])
    return bool(low <= end and start <= high)


def _controlled(fit: ScalingFit, data: _Data, controls: Any) -> tuple[Call, str, bool]:
    """Withdraw a call that control tasks would get too: same slope, and for a plateau also the same plateau."""
    rows = np.atleast_2d(as_array(controls, "controls"))
    if rows.ndim != 2 or rows.shape[1] != data.widths.size or not len(rows):
        raise GeometryError(
            f"controls has shape {rows.shape}; expected (tasks, {data.widths.size}), one column a width"
        )
    t, b, _ = _fit(1.0 / data.widths, rows, data.weights)
    same = _meets(fit.b_low, fit.b_high, b)
    if fit.call == "intrinsic":
        same = same and _meets(fit.low, fit.high, t)
    if same and fit.call != "undecided":
        return "undecided", f"control tasks show the same {'plateau' if fit.call == 'intrinsic' else 'slope'}", True
    return fit.call, fit.reason, same


def _free(data: _Data, level: float, rng: np.random.Generator) -> FreeExponentFit:
    p, t, b, left = (float(part[0]) for part in _fit_free(data.widths, data.taxes[None, :], data.weights))
    noise, scatter = _noise(data, left, data.taxes.size - 3, rng)
    drawn = _fit_free(data.widths, t + b * np.power(data.widths, -p) + noise[:FREE_DRAWS], data.weights)
    low, high = _interval(drawn[1], level)
    return FreeExponentFit(
        p, t, low, high, b, _call(low, high, b * data.widths.min() ** -p, _constant_p(data, left, 2, scatter))[0]
    )


def fit_scaling(
    widths: Any,
    taxes: Any,
    standard_errors: Any = None,
    controls: Any = None,
    level: float = 0.95,
    seed: int = 0,
) -> ScalingFit:
    """Fit `tau(d) = t + b/d`, `t >= 0`, to one task over a family and call it ([G] Rem 5.7, sharpened).

    *intrinsic*: the interval of `t` excludes 0. *incidental*: it includes 0, the fit beats a constant (p < .05, `b > 0`), and
    a plateau of at most 30% of the decay may still hide (`high`). *undecided*: neither, or control tasks show the same slope
    (and, for a plateau, the same plateau). A decay slower than `1/d`, as when incidental capabilities multiply with width,
    looks like a plateau to this fit: believe *intrinsic* only where `free.call` does not say *incidental*.

    `widths` `(n,)`, `taxes` `(n,)` as fractions (debiased estimates may be negative), `standard_errors` `(n,)` are the
    weights; without them all widths count the same and the scatter of the fit is the error. `controls` `(tasks, n)` are
    taxes of control tasks through the same estimator. The interval is a parametric bootstrap about the fit with 2000
    draws; standard errors smaller than the residuals are enlarged to them. Raises GeometryError with fewer than four
    different widths, and for widths or standard errors that are not positive.

    >>> fit_scaling([64, 128, 256, 512], [0.2, 0.15, 0.125, 0.1125], [0.01] * 4).call
    'intrinsic'
    """
    if not 0.0 < level < 1.0:
        raise GeometryError(f"level={level}; give a fraction between 0 and 1, such as 0.95")
    data, rng = _read(widths, taxes, standard_errors), np.random.default_rng(seed)
    x = 1.0 / data.widths
    t, b, left = (float(part) for part in _fit(x, data.taxes, data.weights))
    noise, scatter = _noise(data, left, data.taxes.size - 2, rng)
    drawn_t, drawn_b, _ = _fit(x, t + b * x + noise, data.weights)
    low, high = _interval(drawn_t, level)
    constant_p = _constant_p(data, left, 1, scatter)
    call, reason = _call(low, high, b * x.max(), constant_p)
    slopes = _interval(drawn_b, level)
    free = _free(data, level, rng)
    fit = ScalingFit(t, low, high, b, *slopes, 1.0, call, reason, constant_p, scatter, None, free)
    if controls is None:
        return fit
    call, reason, same = _controlled(fit, data, controls)
    return ScalingFit(t, low, high, b, *slopes, 1.0, call, reason, constant_p, scatter, same, free)
