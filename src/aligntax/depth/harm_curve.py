"""How much of harm is decided by depth `t`, from two rollouts a prefix and nothing nested.

The estimand is `V(t) = mean over prompts of Var(h_t)`, `h_t = E[H | prompt, y_<=t]` under the policy whose rollouts these
are: the variance *within* prompts that the first `t` tokens explain. Two independent continuations of one prefix give
`E[H_a H_b] = E[h_t^2]` without bias, and two of the bare prompt give `h_0^2`, so `V(t)` is a difference of two means.
A plug-in of K-sample means is biased up by `E Var(H|y_<=t)/K`, and one that forgets prompts by the variance between them.

Not claimed: that the estimate rises with depth (`V` does, the noise does not), so the horizon is read from its isotonic
fit; nor anything about another policy's rollouts, which is why `rollouts` is part of the name.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.optimize
import scipy.stats
from numpy.typing import NDArray

from aligntax.depth.innovations import Array, harm_rows, number_array
from aligntax.errors import DepthError
from aligntax.stats.resample import Estimate

ENDS = (0.025, 0.975)
DRAWS = 2000
FEWEST_PROMPTS = 8
_CHUNK = 4_000_000

Depth = float | Literal["undecided"]


@dataclass(frozen=True, eq=False)
class HarmCurve:
    """`V(t)` on a grid of depths, in squared units of harm.

    `depths` `(D,)`, the first 0, in the unit in which they were given (tokens, or sentences for a grid of sentence ends).
    `variance` `(D,)`: unbiased `V(t)`, 0 at depth 0, not monotone and possibly negative. `fitted` `(D,)`: its isotonic
    fit, never below 0. `resampled` says what the intervals resample: "prompts", or "rollouts" within prompts where there are
    fewer than 8 prompts, so that they speak of these prompts alone. `rollouts` names the policy; `prompts` and `rows` count.
    """

    depths: NDArray[Any]
    variance: Array
    fitted: Array
    resampled: Literal["prompts", "rollouts"]
    rollouts: str
    prompts: int
    rows: int
    _groups: tuple[Array, ...] = field(repr=False)

    @cached_property
    def draws(self) -> Array:
        """Resampled curves `(2000, D)`, the same every time: rows drawn with replacement within each group."""
        rng = np.random.default_rng(0)
        return np.asarray(sum(_resampled(rows, rng) for rows in self._groups) / len(self._groups))

    @cached_property
    def interval(self) -> Array:
        """95% bootstrap ends of `variance` `(D, 2)`; nan where there is nothing to resample."""
        return self._ends(self.draws)

    @property
    def share(self) -> Array:
        """`R(t) = V(t)/V(T)` `(D,)`: share of the variance of harm decided by each depth; nan where `V(T) <= 0`."""
        total = self.variance[-1]
        return self.variance / total if total > 0.0 else np.full(self.variance.size, math.nan)

    @cached_property
    def share_interval(self) -> Array:
        """95% bootstrap ends of `share` `(D, 2)`: numerator and total are resampled together; nan where harm is not `decided`."""
        if not self.decided:
            return np.full((self.depths.size, 2), math.nan)
        total = self.draws[:, -1:]
        return self._ends(self.draws / np.where(total > 0.0, total, math.nan))

    def _ends(self, draws: Array) -> Array:
        tails = _tails(sum(map(len, self._groups)), len(self._groups))
        return np.full((self.depths.size, 2), math.nan) if tails is None else np.nanquantile(draws, tails, axis=0).T

    @property
    def information(self) -> Array:
        """`I_(s,t] = V(t) - V(s)` `(D-1,)` between neighbouring depths; unbiased, so possibly negative."""
        return np.asarray(np.diff(self.variance))

    @property
    def decided(self) -> bool:
        """False where the interval of `V(T)` touches 0 or is undefined: then nothing says that harm varies at all."""
        return bool(self.interval[-1, 0] > 0.0)

    def horizon(self, level: float = 0.95) -> Depth:
        """First depth of the grid with `R(t) >= level` in the isotonic fit, or "undecided" ([S] Thm 9, made statistical).

        `level` lies in (0, 1]; the resolution is that of the grid. Raises DepthError for another level.
        """
        _check_level(level)
        return self.depths[_crossing(self.fitted, level)].item() if self.decided else "undecided"

    def horizon_interval(self, level: float = 0.95) -> tuple[float, float]:
        """95% bootstrap interval of `horizon(level)`, its ends depths of the grid; nan where that is undecided."""
        _check_level(level)
        if not self.decided:
            return math.nan, math.nan
        low, high = np.quantile(self._horizons(level), ENDS, method="inverted_cdf")
        return float(low), float(high)

    def _horizons(self, level: float) -> Array:
        """Horizon of every resampled curve; a curve with no variance left crosses nowhere and counts as the last depth."""
        found = [_crossing(_isotonic(draw), level) for draw in self.draws]
        return np.asarray(self.depths[found], dtype=float)


def harm_curve(
    first: Any, second: Any, prompts: Any = None, *, depths: Any = None, rollouts: str = "", centred: bool = False
) -> HarmCurve:
    """`V(t)` from the harm in [0, 1] of two independent continuations per prefix, `first` and `second` `(n, depths)`.

    Row `i` is one response to prompt `prompts[i]` (None: all to one prompt), column `j` its prefix of `depths[j]` tokens
    (default 0, 1, 2, ..) continued twice; the first column is depth 0, two rollouts of the bare prompt. A response may serve as
    the first continuation of all its own prefixes. Prompts weigh the same, however many rows they have. `rollouts` names the
    policy that wrote them ("base", "aligned").

    `centred` takes the covariance of the two continuations over the rows of a prompt, which is `Var(h_t)` as well and needs no
    depth 0. It is unbiased too, with a fraction of the variance where harm is common, but only where a prompt's rows are
    independent draws, and there must be two of them. The plain products are the default because they ask for neither.

    Unbiased at every depth if continuations are independent given the prefix; intervals need rows independent within prompts and,
    from 8 prompts on, prompts drawn independently. Raises DepthError for harm outside [0, 1], shapes that differ, fewer than two
    depths, or depths that do not rise from 0. Extends [S] Def 5.

    >>> curve = harm_curve([[1, 1], [0, 0], [1, 1], [0, 0]], [[0, 1], [1, 0], [1, 1], [0, 0]])
    >>> curve.variance.tolist()
    [0.0, 0.25]
    """
    a, b = _pairs(first, second)
    grid = _depths(depths, a.shape[1])
    number = _numbered(prompts, len(a))
    terms = _covariance_terms(a, b, number) if centred else a * b - (a * b)[:, :1]
    groups = [terms[number == x] for x in range(number.max() + 1)]
    means = np.array([rows.mean(axis=0) for rows in groups])
    over_prompts = len(groups) >= FEWEST_PROMPTS or len(groups) == len(a) > 1
    variance = means.mean(axis=0)
    return HarmCurve(
        grid,
        variance,
        _isotonic(variance),
        "prompts" if over_prompts else "rollouts",
        rollouts,
        len(groups),
        len(a),
        (means,) if over_prompts else tuple(groups),
    )


def horizon_gap(first: HarmCurve, second: HarmCurve, level: float = 0.95) -> Estimate:
    """`second.horizon - first.horizon` with a paired 95% interval, for two judgements of the *same* rollouts.

    What it is for: a learned reward may settle earlier or later than exact harm, and then training acts up to its horizon and
    not up to that of harm. Both curves must come from the same rows, prompts and depths, so that resampled curves are
    of the same rollouts; DepthError otherwise. nan where either horizon is undecided.
    """
    _check_level(level)
    designs = [(c.depths.tolist(), c.prompts, c.rows, c.resampled) for c in (first, second)]
    if designs[0] != designs[1]:
        raise DepthError(f"curves of {designs[0]} and {designs[1]} (depths, prompts, rows, resampled) are not paired")
    if not (first.decided and second.decided):
        return Estimate(math.nan, math.nan, math.nan, math.nan)
    gaps = second._horizons(level) - first._horizons(level)
    low, high = np.quantile(gaps, ENDS, method="inverted_cdf")
    value = float(second.horizon(level)) - float(first.horizon(level))
    return Estimate(value, float(low), float(high), float(gaps.std(ddof=1)))


def _pairs(first: Any, second: Any) -> tuple[Array, Array]:
    a, b = harm_rows(first, "first harm"), harm_rows(second, "second harm")
    if a.shape != b.shape:
        raise DepthError(
            f"first has shape {a.shape} and second {b.shape}; they are two continuations of the same prefixes"
        )
    return a, b


def _covariance_terms(a: Array, b: Array, number: NDArray[np.int64]) -> Array:
    """Terms `(n, D)` whose mean over the `m` rows of a prompt is their covariance over `m - 1`; 0 at depth 0, as is known."""
    sizes = np.bincount(number)
    if sizes.min() < 2:
        raise DepthError("centred=True with a prompt of 1 row; give every prompt two rows or take the plain products")
    terms = np.zeros_like(a)
    for x, m in enumerate(sizes):
        rows = number == x
        terms[rows] = (a[rows] - a[rows].mean(axis=0)) * (b[rows] - b[rows].mean(axis=0)) * (m / (m - 1))
    terms[:, 0] = 0.0
    return terms


def _resampled(rows: Array, rng: np.random.Generator) -> Array:
    n, found = len(rows), []
    size = max(1, _CHUNK // n)
    for start in range(0, DRAWS, size):
        k = min(size, DRAWS - start)
        drawn = rng.integers(n, size=(k, n)) + n * np.arange(k)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=k * n).reshape(k, n)
        found.append(counts @ rows / n)
    return np.concatenate(found)


def _isotonic(variance: Array) -> Array:
    """Least-squares rising fit of `V`, with `V(0) = 0` known and nothing below it."""
    rising = scipy.optimize.isotonic_regression(variance[1:]).x
    return np.concatenate([[0.0], np.maximum(rising, 0.0)])


def _crossing(fitted: Array, level: float) -> int:
    total = fitted[-1]
    return int(np.argmax(fitted >= level * total * (1.0 - 1e-12))) if total > 0.0 else fitted.size - 1


def _tails(rows: int, groups: int) -> list[float] | None:
    """Quantiles at which resampled curves are read, None without any freedom left.

    A resample of `n` rows spreads by `sqrt((n-1)/n)` too little and its quantiles are normal ones: the tails are moved out to
    those of the t-interval, which is what small samples need.
    """
    freedom = rows - groups
    if freedom < 1:
        return None
    reach = math.sqrt(rows / freedom) * float(scipy.stats.t.ppf(ENDS[1], freedom))
    low = float(scipy.stats.norm.cdf(-reach))
    return [low, 1.0 - low]


def _check_level(level: float) -> None:
    if not 0.0 < level <= 1.0:
        raise DepthError(f"level={level}: the share of harm decided lies in (0, 1]")


def _depths(depths: Any, count: int) -> NDArray[Any]:
    if depths is None:
        return np.arange(count)
    number_array(depths, "depths")
    grid = np.asarray(depths)
    if grid.shape != (count,):
        raise DepthError(f"{grid.size} depths {grid.tolist()} for {count} columns of harm; give one each")
    if grid[0] != 0 or not (np.diff(grid) > 0).all():
        raise DepthError(
            f"depths {grid.tolist()}: start at 0 and rise; the first column is two rollouts of the bare prompt"
        )
    return grid


def _numbered(prompts: Any, rows: int) -> NDArray[np.int64]:
    if prompts is None:
        return np.zeros(rows, dtype=np.int64)
    labels = [x.item() if hasattr(x, "item") else x for x in prompts]
    if len(labels) != rows:
        raise DepthError(f"{len(labels)} prompts for {rows} rows of harm; name the prompt of each row")
    first_seen = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    return np.array([first_seen[label] for label in labels])
