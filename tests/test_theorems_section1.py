"""Rows of section 1 hold, and every one turns red when the room computes something plausible but wrong."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from aligntax import geometry, probing, stats
from aligntax.commands.theorems import section1, section1a, section1b, section1c
from aligntax.geometry import sum_tax, tax_rate

Mutant = Callable[..., object]


def unit_gradients(g, rows, changes, fisher, nats):
    """Gradients' norms forgotten on the way out."""
    gain, shift = geometry.max_gain_at_changes(g, rows, changes, fisher, nats)
    return gain / np.linalg.norm(g), shift


def no_subsidy(v, rows, changes, eps):
    """Theorem 4.3 without its first term."""
    gain, shift = geometry.max_safety(v, rows, changes, eps)
    return gain - v @ np.linalg.pinv(rows) @ changes, shift


def raw_changes(v, rows, changes, eps):
    """Task changes taken for coordinates of the shift: |b| in place of |c|."""
    left = np.maximum(eps**2 - np.square(changes).sum(), 0)
    return np.array([v @ np.linalg.pinv(rows) @ changes + np.sqrt(left * (1 - tax_rate(v, rows)))])


def gains_unwelcome(v, rows, t, eps):
    """Tolerances as equalities."""
    solution = geometry.max_safety_with_tolerances(v, rows, t, eps)
    return replace(solution, gain=geometry.max_safety(v, rows[:2], np.zeros(2), eps)[0])


def one_price(*given):
    """One price where a dependent task has two."""
    solution = geometry.max_safety_with_tolerances(*given)
    return replace(solution, price_low=solution.prices, price_high=solution.prices)


def price_per_budget(*given):
    solution = geometry.max_safety_with_tolerances(*given)
    return replace(solution, budget_price=solution.gain / given[3] * 1.1)


def no_ridge(factor, ridge=0.0, level=0.0):
    return geometry.Fisher(factor, 1e-9, level)


def whole_inverse(v, rows, fisher):
    """Whitened by F^-1."""
    return fisher.solve(v), fisher.solve(rows)


def gaps_alike(v, rows, shift, fractions):
    gaps = geometry.straight_line_gaps(v, rows, shift, fractions)
    return replace(gaps, matched=gaps.full)


def yields_of_tax(g, rows):
    """Taxes alone drive the spending."""
    return np.sqrt([1 - tax_rate(x, u) for x, u in zip(g, rows, strict=True)])


def spend_like_tax(x, eps):
    found = geometry.layer_budget(x, eps)
    return replace(found, gain=found.equal_gain)


def no_compensation(g, rows, eps):
    return geometry.layer_budget(geometry.layer_yields(g, rows), eps).gain


def layers_add(g, rows, fisher, nats, protect):
    """Off-diagonal blocks of the joint Fisher matrix left out."""
    d = g.shape[1]
    wide = np.zeros((len(g) * len(fisher.factor), g.size))
    for k in range(len(g)):
        wide[k * len(fisher.factor) : (k + 1) * len(fisher.factor), k * d : (k + 1) * d] = fisher.factor[
            :, k * d : (k + 1) * d
        ]
    return geometry.joint_layer_gain(g, rows, geometry.Fisher(wide, fisher.ridge), nats, protect)


def by_hand(significant, tax, tax_low, reliability):
    """Regimes by a threshold on the tax."""
    return "free" if tax < 0.01 else "entangled" if tax_low > 0.5 else "tradeoff"


def cosine_of_means(v, u):
    """The plain cosine divided by reliabilities: wrong where noise is shared."""
    found = stats.estimate_cosine(v, u)
    a, b = v.mean(0), u.mean(0)
    trust = np.sqrt(found.reliability_v * found.reliability_u)
    return replace(found, value=a @ b / np.linalg.norm(a) / np.linalg.norm(b) / trust)


def narrow(v, u):
    """Intervals a third as wide."""
    found = stats.estimate_cosine(v, u)
    return replace(found, low=found.value - found.se / 2, high=found.value + found.se / 2)


def without_crossfit(v, caps, splits):
    tau = tax_rate(v.mean(0), caps.mean(1))
    return replace(stats.crossfit_tax(v, caps, splits=splits), value=tau)


def layer_late(probe, batch, metric):
    """Off by one block."""
    values, gradient = probing.row_gradients(probe, batch, metric)
    return values, gradient.roll(1, dims=1)


def per_position(probe, batch, metric):
    """A mean over positions in place of one shared shift."""
    values, gradient = probing.row_gradients(probe, batch, metric)
    return values, gradient / batch.mask.sum(1)[:, None, None]


def kind_ignored(probe, batch, metric):
    return probing.row_gradients(replace(probe, shift="all"), batch, metric)


def sinks_kept(probe, batch, metric):
    return probing.row_gradients(replace(probe, sinks=()), batch, metric)


def no_sinks(*given):
    found = probing.find_sinks(*given)
    return replace(found, by_layer=tuple(() for _ in found.by_layer))


def shifted_mean(*given):
    found = probing.find_sinks(*given)
    return replace(found, activation_norm=tuple(2 * x for x in found.activation_norm))


a, b, c = section1a, section1b, section1c
MUTANTS: list[tuple[ModuleType, str, str, Mutant]] = [
    (a, "row_1_1", "max_gain_at_changes", unit_gradients),
    (c, "row_1_2", "row_gradients", layer_late),
    (c, "row_1_2", "row_gradients", per_position),
    (a, "row_1_3", "tax_rate", sum_tax),
    (a, "row_1_3", "principal_angles", lambda v, rows: geometry.principal_angles(v, rows)[::-1]),
    (a, "row_1_4", "signed_cosines", lambda v, rows: np.abs(geometry.signed_cosines(v, rows))),
    (a, "row_1_5", "tax_rate", lambda v, rows: min(1.0, sum_tax(v, rows))),
    (a, "row_1_5", "sum_tax", tax_rate),
    (a, "row_1_6", "single_frontier", lambda cos, x, eps: x * cos - np.sqrt((1 - cos**2) * (eps**2 - x**2))),
    (a, "row_1_6", "single_frontier", lambda cos, x, eps: x * cos + (1 - cos**2) * np.sqrt(eps**2 - x**2)),
    (a, "row_1_6", "single_frontier_shift", lambda v, u, x, eps: x * u + np.sqrt(eps**2 - x**2) * (v - v @ u * u)),
    (a, "row_1_7", "max_safety", no_subsidy),
    (a, "row_1_7", "full_frontier", raw_changes),
    (a, "row_1_8", "tax_free_safety", lambda v, rows, eps: eps * (1 - tax_rate(v, rows))),
    (a, "row_1_9", "subsidy_threshold", lambda x, tax, eps: eps),
    (a, "row_1_9", "subsidy_threshold", lambda x, tax, eps: geometry.subsidy_threshold(x, tax, eps) / 2),
    (a, "row_1_10", "max_safety_with_tolerances", gains_unwelcome),
    (a, "row_1_10", "max_safety_with_tolerances", one_price),
    (a, "row_1_10", "max_safety_with_tolerances", price_per_budget),
    (b, "row_1_11", "max_gain_per_nats", lambda g, u, t, f, k: geometry.max_gain_per_nats(g, u, t, f, k / 2)),
    (b, "row_1_11", "budget_to_norm", np.sqrt),
    (b, "row_1_11", "Fisher", no_ridge),
    (b, "row_1_11", "whiten", whole_inverse),
    (b, "row_1_12", "max_capability", lambda v, u, w, eps: (eps * (1 - (v @ (w @ u)) ** 2), 0 * v)),
    (b, "row_1_13", "straight_line_gaps", gaps_alike),
    (b, "row_1_14", "random_overlap", lambda r, d: geometry.random_overlap(2 * r, 2 * d)),
    (b, "row_1_15", "layer_yields", yields_of_tax),
    (b, "row_1_15", "layer_budget", spend_like_tax),
    (b, "row_1_15", "total_change_gain", no_compensation),
    (b, "row_1_15", "averaging_ratio", lambda n, s: 1.0),
    (b, "row_1_15", "joint_layer_gain", layers_add),
    (b, "row_1_16", "regime", by_hand),
    (c, "row_1_17", "estimate_cosine", cosine_of_means),
    (c, "row_1_17", "estimate_cosine", narrow),
    (c, "row_1_17", "debiased_squared_inner", lambda table: np.mean(table, axis=(-1, -2)) ** 2),
    (c, "row_1_17", "debiased_norm2", lambda x: float(np.sum(x.mean(0) ** 2))),
    (c, "row_1_17", "crossfit_tax", without_crossfit),
    (c, "row_1_18", "find_sinks", no_sinks),
    (c, "row_1_18", "find_sinks", shifted_mean),
    (c, "row_1_18", "row_gradients", kind_ignored),
    (c, "row_1_18", "row_gradients", sinks_kept),
]


@pytest.fixture(scope="module")
def checks() -> dict[str, object]:
    return {row.__name__: row() for row in section1.ROWS}


def test_every_item_has_a_row_that_holds(checks: dict) -> None:
    assert [check.item for check in checks.values()] == [f"1.{n}" for n in range(1, 19)]
    assert [name for name, check in checks.items() if not check.passed] == []
    assert {row for _, row, _, _ in MUTANTS} == set(checks)


@pytest.mark.parametrize(
    ("module", "row", "name", "mutant"), MUTANTS, ids=[f"{m[1]}-{m[2]}-{k}" for k, m in enumerate(MUTANTS)]
)
def test_a_wrong_formula_turns_the_row_red(
    module: ModuleType, row: str, name: str, mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, mutant)
    assert not getattr(module, row)().passed
