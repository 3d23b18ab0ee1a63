"""Rows of section 3 hold, and every one turns red when the room computes something plausible but wrong."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from aligntax import geometry
from aligntax.commands.theorems import section3
from aligntax.geometry import signed_cosines

Mutant = Callable[..., object]


def undivided(v1: np.ndarray, v2: np.ndarray, rows: np.ndarray) -> float:
    """Proposition 6.5 without its denominator."""
    kept = geometry.decompose_gains([v1, v2], rows, 1.0).kept
    return geometry.effective_correlation(v1, v2, rows) * float(kept.prod())


def without_gram(v1: np.ndarray, v2: np.ndarray, rows: np.ndarray) -> float:
    """Capabilities taken as orthogonal."""
    a, b = signed_cosines(v1, rows), signed_cosines(v2, rows)
    return float((v1 @ v2 - a @ b) / np.sqrt(abs(1 - a @ a) * abs(1 - b @ b)))


def mean_pull(objectives: np.ndarray, rows: np.ndarray, budget: float) -> tuple[float, np.ndarray]:
    """All objectives weighted alike instead of the hull's nearest point."""
    gains, shift = geometry.efficient_gains(objectives, rows, np.ones(len(objectives)), budget)
    return float(gains.min()), shift


def unprotected(objectives: np.ndarray, rows: np.ndarray, budget: float) -> tuple[float, np.ndarray]:
    return geometry.equal_gain(objectives, rows[:0], budget)


def leaking(objectives: np.ndarray, rows: np.ndarray, weights: np.ndarray, budget: float) -> tuple:
    return geometry.efficient_gains(objectives, rows[:0], weights, budget)


def untaxed(objectives: np.ndarray, rows: np.ndarray, budget: float) -> object:
    parts = geometry.decompose_gains(objectives, rows, budget)
    return replace(parts, gains=parts.gains / parts.kept)


def sign_rule(v1: np.ndarray, v2: np.ndarray, rows: np.ndarray, budget: float = 1.0) -> object:
    """Part (i) as printed: opposite signs always help."""
    effect = geometry.preservation_effect(v1, v2, rows, budget)
    helps = effect.helps or effect.mediated < 0
    return replace(effect, helps=helps, case="conflict removed" if helps and effect.mediated < 0 else effect.case)


def no_loss(*given: object) -> object:
    return replace(geometry.preservation_effect(*given), absolute_loss=0.0)


def unlike_case(*given: object) -> object:
    effect = geometry.preservation_effect(*given)
    return replace(effect, case="suppressor" if effect.helps else "worsened")


def all_of_them(v1: np.ndarray, v2: np.ndarray, rows: np.ndarray, budget: float = 1.0) -> object:
    """Preserve everything."""
    effect = geometry.preservation_effect(v1, v2, rows, budget)
    tasks = tuple(range(len(rows)))
    return geometry.PreserveChoice(tasks, effect.rho, effect.rho_eff, effect.rho_eff - effect.rho, 0.0, len(rows) <= 12)


MUTANTS: list[tuple[str, str, Mutant]] = [
    ("row_3_1", "effective_correlation", undivided),
    ("row_3_1", "effective_correlation", without_gram),
    ("row_3_1", "effective_correlations", lambda v, rows: np.clip(np.asarray(v) @ np.asarray(v).T, -1, 1)),
    ("row_3_2", "conflict_frontier", lambda rho, g: g * rho - np.sqrt((1 - g**2) * (1 - rho**2))),
    ("row_3_2", "conflict_frontier", lambda rho, g: g * rho + np.sqrt(1 - g**2) * (1 - rho**2)),
    ("row_3_2", "efficient_gains", leaking),
    ("row_3_3", "equal_normalised_gain", lambda rho: np.sqrt((1 - np.asarray(rho).flat[-2:][0]) / 2)),
    ("row_3_3", "equal_normalised_gain", lambda rho: geometry.equal_normalised_gain(rho) ** 2),
    ("row_3_4", "decompose_gains", untaxed),
    ("row_3_5", "equal_gain", mean_pull),
    ("row_3_5", "equal_gain", unprotected),
    ("row_3_5", "binding_weights", lambda v, rows: np.full(len(v), 1 / len(v))),
    ("row_3_6", "preservation_effect", sign_rule),
    ("row_3_6", "preservation_effect", no_loss),
    ("row_3_6", "preservation_effect", unlike_case),
    ("row_3_7", "which_to_preserve", all_of_them),
]


@pytest.fixture(scope="module")
def checks() -> dict[str, object]:
    return {row.__name__: row() for row in section3.ROWS}


def test_every_item_has_a_row_that_holds(checks: dict) -> None:
    assert [check.item for check in checks.values()] == [f"3.{n}" for n in range(1, 8)]
    assert [name for name, check in checks.items() if not check.passed] == []
    assert {row for row, _, _ in MUTANTS} == set(checks)


@pytest.mark.parametrize(
    ("row", "name", "mutant"), MUTANTS, ids=[f"{r}-{n}-{k}" for k, (r, n, _) in enumerate(MUTANTS)]
)
def test_a_wrong_formula_turns_the_row_red(
    row: str, name: str, mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(section3, name, mutant)
    assert not getattr(section3, row)().passed


def test_the_sign_rule_fails_on_the_counterexample_alone() -> None:
    """The paper's part (i) is refuted by one world, not only by the random ones."""
    world = geometry.directions_with(rho=-0.5, a=0.1, b=-0.9)
    assert sign_rule(*world).helps and not geometry.preservation_effect(*world).helps
