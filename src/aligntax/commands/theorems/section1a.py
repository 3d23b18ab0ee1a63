"""Section 1 to 1.10, one layer: tax rates, frontiers and tolerances against numeric optimisation."""

import numpy as np

from ...errors import GeometryError
from ...geometry import (
    Fisher,
    full_frontier,
    max_gain_at_changes,
    max_safety,
    max_safety_with_tolerances,
    principal_angles,
    signed_cosines,
    single_frontier,
    single_frontier_shift,
    subsidy_threshold,
    sum_tax,
    tax_free_safety,
    tax_rate,
)
from ...lab.oracles import geometry as oracle
from .check import Check
from .gap import gap, unit_draws, worst

CASES = 20
D, M = 7, 3


class _Bumpy:
    """A smooth metric `tanh <w, h> + .2 <q, h>^2` and its gradient."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.w, self.q = rng.standard_normal((2, D)) * rng.uniform(0.3, 2)

    def __call__(self, h: np.ndarray) -> float:
        return float(np.tanh(self.w @ h) + 0.2 * (self.q @ h) ** 2)

    def gradient(self, h: np.ndarray) -> np.ndarray:
        return (1 - np.tanh(self.w @ h) ** 2) * self.w + 0.4 * (self.q @ h) * self.q


def row_1_1() -> Check:
    """Gain and changes in metric units."""
    rng, errors = np.random.default_rng(11), []
    for _ in range(CASES):
        metrics, at = [_Bumpy(rng) for _ in range(M + 1)], 0.3 * rng.standard_normal(D)
        slopes = np.stack([m.gradient(at) for m in metrics])
        wanted = 0.1 * rng.uniform(-1, 1, M) * np.linalg.norm(slopes[1:], axis=1)
        round_budget = Fisher(np.zeros((0, D)), level=1.0)
        gain, shift = max_gain_at_changes(slopes[0], slopes[1:], wanted, round_budget, 0.5)
        errors.append(gap([gain, *wanted], oracle.slope_along(metrics, at, shift)))
    return Check(
        "1.1",
        "a shift changes metric i by |gradient_i| times its component along the unit gradient",
        f"max_gain_at_changes on {CASES} random worlds of nonlinear metrics",
        "central differences of the metrics along the shift",
        worst(errors),
        1e-6,
    )


def row_1_3() -> Check:
    """Tax rate and principal angles."""
    rng, errors = np.random.default_rng(13), []
    for _ in range(CASES):
        v, rows = unit_draws(rng, D), rng.standard_normal((M, D)) * rng.uniform(0.1, 10, (M, 1))
        dependent = np.vstack([rows, rows[0] + 2 * rows[1]])
        errors.append(gap(tax_rate(v, dependent), oracle.share_inside(v, dependent)))
        space = rng.standard_normal((D, 2))
        angles = oracle.angles_between(space.T, rows)
        errors.append(gap(principal_angles(space, dependent), angles))
        frame = np.linalg.qr(space)[0].T
        errors.append(gap(tax_rate(space, rows), np.mean([oracle.share_inside(x, rows) for x in frame])))
        errors.append(gap(tax_rate(space, rows), np.mean(np.cos(angles) ** 2)))
    return Check(
        "1.3",
        "tax = |P_C v|^2; for a subspace the mean of cos^2 over its principal angles; capabilities may be dependent",
        f"tax_rate and principal_angles on {CASES} random worlds",
        "iterative least squares on the capabilities; scipy's subspace angles",
        worst(errors),
        1e-7,
    )


def row_1_4() -> Check:
    """Signed tax of one task."""
    rng, errors = np.random.default_rng(14), []
    for _ in range(CASES):
        v, rows = unit_draws(rng, D), rng.standard_normal((M, D))
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = np.array([oracle.best_multiple(v, u) for u in units])
        errors.append(gap(signed_cosines(v, rows), cosines))
        errors.append(gap([tax_rate(v, u[None]) for u in units], cosines**2))
    return Check(
        "1.4",
        "the tax of one task is its squared cosine; the sign tells cost from subsidy",
        f"signed_cosines and tax_rate on {CASES} random worlds",
        "the best multiple of each capability, by line search",
        worst(errors),
        1e-6,
    )


def row_1_5() -> Check:
    """Joint tax against the sum of taxes."""
    rng, errors, over, under = np.random.default_rng(15), [], 0, 0
    worlds = [(np.eye(3)[0], np.array([[0.3, 1.0, 0.0], [0.05, -1.0, 0.0]]))]  # suppression turns .085 into 1
    worlds += [(unit_draws(rng, D), unit_draws(rng, M, D) + 0.7 * unit_draws(rng, D)) for _ in range(2 * CASES)]
    for v, rows in worlds:
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        joint, single = oracle.share_inside(v, rows), sum(oracle.best_multiple(v, u) ** 2 for u in units)
        errors += [gap(tax_rate(v, rows), joint), gap(sum_tax(v, rows), single)]
        over, under = over + (joint > single), under + (joint < single)
    orthogonal = np.linalg.qr(rng.standard_normal((D, M)))[0].T
    errors.append(gap(tax_rate(worlds[-1][0], orthogonal), sum_tax(worlds[-1][0], orthogonal)))
    errors.append(0.0 if min(over, under) > 0 else float("nan"))
    return Check(
        "1.5",
        "joint tax equals the sum of single taxes only for orthogonal capabilities: it may be smaller or larger",
        f"tax_rate and sum_tax on {2 * CASES} random worlds and on one where suppression turns .085 into 1",
        f"least squares and line searches; larger in {over} worlds, smaller in {under}",
        worst(errors),
        1e-6,
    )


def row_1_6() -> Check:
    """Frontier of one capability."""
    rng, errors = np.random.default_rng(16), []
    for _ in range(CASES):
        (v, u), eps = unit_draws(rng, 2, D), rng.uniform(0.5, 2)
        change, cosine = eps * rng.uniform(-0.95, 0.95), oracle.best_multiple(v, u)
        best = oracle.in_ball(v, u[None], np.array([change]), eps)
        found, shift = single_frontier(v @ u, change, eps), single_frontier_shift(v, u, change, eps)
        errors += [gap(found, best), gap([v @ shift, u @ shift, shift @ shift], [best, change, eps**2])]
        errors.append(gap(found**2 - 2 * found * change * cosine + change**2, eps**2 * (1 - cosine**2)))
    return Check(
        "1.6",
        "most safety at capability change c is c cos + sin sqrt(eps^2 - c^2), a conic; its shift attains it",
        f"single_frontier and its shift on {CASES} random worlds",
        "numeric optimisation over shifts",
        worst(errors),
        1e-6,
    )


def row_1_7() -> Check:
    """Frontier of many capabilities."""
    rng, errors = np.random.default_rng(17), []
    for _ in range(CASES):
        v, rows, eps = unit_draws(rng, D), unit_draws(rng, M, D), rng.uniform(0.5, 2)
        changes = rows @ (eps * rng.uniform(0.1, 1.4) * unit_draws(rng, D))
        needed = float(np.linalg.norm(np.linalg.lstsq(rows, changes, rcond=None)[0]))
        mixed = rows[0] + rows[1]
        both = np.vstack([rows, mixed]), np.append(changes, (changes[0] + changes[1]) / np.linalg.norm(mixed))
        (drawn,) = full_frontier(v, *both, eps)
        if needed > eps:
            errors.append(0.0 if np.isnan(drawn) and _refused(v, both[0], both[1], eps) else 1.0)
            continue
        gain, shift = max_safety(v, *both, eps)
        best = oracle.in_ball(v, rows, changes, eps)
        errors += [gap([gain, drawn, v @ shift], best), gap(rows @ shift, changes), gap(shift @ shift, eps**2)]
        errors.append(float(not _refused(v, both[0], both[1] + np.eye(M + 1)[M], eps)))
    return Check(
        "1.7",
        "most safety at given changes of all tasks is <v,c> + sqrt(eps^2-|c|^2) sqrt(1-tax); impossible changes raise",
        f"max_safety and full_frontier on {CASES} random worlds with a dependent task",
        "numeric optimisation over shifts; the length of the least shift decides what is possible",
        worst(errors),
        1e-6,
    )


def _refused(v: np.ndarray, rows: np.ndarray, changes: np.ndarray, eps: float) -> bool:
    try:
        max_safety(v, rows, changes, eps)
    except GeometryError:
        return True
    return False


def row_1_8() -> Check:
    """Tax-free safety."""
    rng, errors = np.random.default_rng(18), []
    for _ in range(CASES):
        v, rows, eps = unit_draws(rng, D), unit_draws(rng, M, D), rng.uniform(0.5, 2)
        errors.append(gap(tax_free_safety(v, rows, eps), oracle.in_ball(v, rows, np.zeros(M), eps)))
    return Check(
        "1.8",
        "safety that costs no capability: eps sqrt(1 - tax)",
        f"tax_free_safety on {CASES} random worlds",
        "numeric optimisation over shifts",
        worst(errors),
        1e-6,
    )


def row_1_9() -> Check:
    """Subsidy."""
    rng, errors = np.random.default_rng(19), []
    for case in range(CASES // 2):
        v, eps = unit_draws(rng, D), rng.uniform(0.5, 2)
        span = np.linalg.qr(rng.standard_normal((D, M)))[0].T
        target = span @ v + (0.05 if case % 2 else 1.0) * unit_draws(rng, M)
        target *= np.sign(target @ span @ v) / np.linalg.norm(target)
        cosine, tax = float(target @ span @ v), oracle.share_inside(v, span)
        found = subsidy_threshold(cosine, tax, eps)
        free = oracle.in_ball(v, span, np.zeros(M), eps)

        def above(t: float, v=v, span=span, target=target, eps=eps, free=free) -> float:  # type: ignore[no-untyped-def]
            return oracle.in_ball(v, span, t * target, eps) - free

        low, high = 1e-3 * eps, (1 - 1e-9) * eps
        if above(high) > 0:
            errors.append(gap(found, eps))
            continue
        for _ in range(24):
            middle = (low + high) / 2
            low, high = (middle, high) if above(middle) > 0 else (low, middle)
        errors.append(gap(found, low))
    return Check(
        "1.9",
        "moving capabilities along a target helps safety up to 2 a s eps/(a^2+s^2), or always where a > s",
        f"subsidy_threshold on {CASES // 2} random worlds",
        "bisection on numerically optimised safety",
        worst(errors),
        1e-5,
    )


def row_1_10() -> Check:
    """Tolerances and prices."""
    rng, errors = np.random.default_rng(110), []
    none, step = np.zeros((0, D)), 1e-4
    for case in range(CASES):
        v, rows, eps = unit_draws(rng, D), unit_draws(rng, M, D), rng.uniform(0.5, 2)
        t = np.zeros(M) if case % 4 == 0 else eps * rng.uniform(-0.1, 0.4, M)

        def best(t: np.ndarray, eps: float = eps, v=v, rows=rows) -> float:  # type: ignore[no-untyped-def]
            return oracle.most_gain(v, (none, none[:, 0]), (rows, -t), np.eye(D) / eps**2)[0]

        found = max_safety_with_tolerances(v, rows, t, eps)
        value, prices = oracle.dual_minimum(v, rows, t, eps)
        errors += [gap([found.gain, v @ found.shift], best(t)) * 100, gap(found.gain, value) * 100]
        errors += [gap(found.prices, prices), max(0.0, -float((rows @ found.shift + t).min()))]
        errors.append(gap(found.budget_price, (best(t, eps + step) - best(t, eps - step)) / (2 * step)))
        errors.append(float((found.active != (prices > 1e-4)).any()))
    errors += _one_sided_prices(rng)
    return Check(
        "1.10",
        "most safety when task i loses at most t_i; prices are its slopes, one-sided for dependent tasks",
        f"max_safety_with_tolerances on {CASES} random worlds, the optimum to a hundredth of the tolerance",
        "primal and dual optimised numerically; differences of the optimum",
        worst(errors),
        5e-4,
    )


def _one_sided_prices(rng: np.random.Generator) -> list[float]:
    """A task that is listed twice: more tolerance on one copy buys nothing, less costs."""
    u, none, step = unit_draws(rng, D), np.zeros((0, D)), 1e-5
    v = unit_draws(rng, D) - 2 * u
    v /= np.linalg.norm(v)
    rows, t = np.stack([u, u]), np.array([0.1, 0.1])

    def best(t: np.ndarray) -> float:
        return oracle.most_gain(v, (none, none[:, 0]), (rows, -t), np.eye(D))[0]

    found, first = max_safety_with_tolerances(v, rows, t, 1.0), np.array([step, 0.0])
    more, less = (best(t + first) - best(t)) / step, (best(t) - best(t - first)) / step
    return [gap(found.price_low, more), gap(found.price_high, less)]
