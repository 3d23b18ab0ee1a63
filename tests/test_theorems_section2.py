"""Every row of the scaling section is green, and red once its formula is bent."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aligntax.commands.theorems import section2
from aligntax.geometry import packing_law
from aligntax.geometry.family import fit_scaling
from aligntax.geometry.packing import TaxLaw
from aligntax.geometry.scaling import coherence, coherence_bound, conflict_exponent, conflict_spread, scaling_regime

COVERED = {row.__name__ for row in section2.ROWS}


@pytest.fixture(scope="module")
def untouched() -> dict[str, Any]:
    return {row.__name__: row() for row in section2.ROWS}


def test_every_item_has_a_row_that_passes(untouched: dict[str, Any]) -> None:
    assert {check.item for check in untouched.values()} == {f"2.{i}" for i in range(1, 8)}
    assert [name for name, check in untouched.items() if not check.passed] == []


def _bound_with_constant_one(rho: Any, m2: int, mu: float, gram: Any = None, squared: Any = None) -> Any:
    right = coherence_bound(rho, m2, mu, gram, squared)
    last = right.eta * squared / (right.smallest * (right.smallest - right.eta))
    return dataclasses.replace(right, bound=right.bound - last + right.eta * squared)


def _bound_without_overlaps(rho: Any, m2: int, mu: float, gram: Any = None, squared: Any = None) -> Any:
    right = coherence_bound(rho, m2, mu, gram, squared)
    return dataclasses.replace(right, bound=right.bound - 2 * mu * float(np.abs(rho).sum()))


def _bound_doubled(*args: Any) -> Any:
    right = coherence_bound(*args)
    return dataclasses.replace(right, bound=2 * right.bound)


def _bound_blind_to_gram(rho: Any, m2: int, mu: float, gram: Any = None, squared: Any = None) -> Any:
    return dataclasses.replace(
        coherence_bound(rho, m2, mu, None, squared), centre=coherence_bound(rho, m2, mu, gram).centre
    )


def _law_without_the_remainder(tau: float, m1: int, m2: int, d: int) -> TaxLaw:
    return dataclasses.replace(packing_law(tau, m1, m2, d), a=m2, b=d - m1 - m2)


def _law_in_all_of_d(tau: float, m1: int, m2: int, d: int) -> TaxLaw:
    return dataclasses.replace(packing_law(tau, m1, m2, d), b=(d - m2) / 2)


def _law_of_the_paper(tau: float, m1: int, m2: int, d: int) -> TaxLaw:
    return TaxLaw(tau + m2 / d, 0.0, 0.0)


def _unweighted(widths: Any, taxes: Any, errors: Any, seed: int = 0) -> Any:
    return fit_scaling(widths, taxes, None, seed=seed)


def _signed_plateau(widths: Any, taxes: Any, errors: Any, seed: int = 0) -> Any:
    fit = fit_scaling(widths, taxes, errors, seed=seed)
    b, t = np.polyfit(1 / widths, taxes, 1, w=1 / errors)
    return dataclasses.replace(fit, t=float(t), b=float(b))


def _calls_by_threshold(widths: Any, taxes: Any, errors: Any, seed: int = 0) -> Any:
    fit = fit_scaling(widths, taxes, errors, seed=seed)
    return dataclasses.replace(fit, call="intrinsic" if fit.t > 0 else "incidental")


def _calls_by_free_exponent(widths: Any, taxes: Any, errors: Any, seed: int = 0) -> Any:
    fit = fit_scaling(widths, taxes, errors, seed=seed)
    return dataclasses.replace(fit, call=fit.free.call)


def _regime(**changes: Callable[[Any], float]) -> Callable[..., Any]:
    def wrong(*args: Any, **kwargs: Any) -> Any:
        right = scaling_regime(*args, **kwargs)
        return dataclasses.replace(right, **{name: change(right) for name, change in changes.items()})

    return wrong


MUTATIONS: list[tuple[str, str, Any]] = [
    ("row_2_1", "welch_bound", lambda n, d: np.sqrt((n - d) / (d * n))),
    ("row_2_1", "coherence", lambda rows: coherence(rows) ** 2),
    ("row_2_2", "coherence_bound", _bound_with_constant_one),
    ("row_2_2", "coherence_bound", _bound_without_overlaps),
    ("row_2_2", "coherence_bound", _bound_doubled),
    ("row_2_2_correlated", "coherence_bound", _bound_with_constant_one),
    ("row_2_2_correlated", "coherence_bound", _bound_blind_to_gram),
    ("row_2_3", "packing_law", _law_of_the_paper),
    ("row_2_3", "packing_mean_paper", lambda rho, m2, d: m2 / d),
    ("row_2_4", "packing_law", _law_without_the_remainder),
    ("row_2_4", "packing_law", _law_in_all_of_d),
    ("row_2_5", "scaling_regime", _regime(exponent=lambda right: right.exponent / 2)),
    ("row_2_5", "scaling_regime", _regime(limit=lambda right: right.coefficient)),
    ("row_2_5", "scaling_regime", _regime(fluctuation=lambda right: right.exponent)),
    ("row_2_5", "scaling_regime", lambda *args, residuals: scaling_regime(*args, residuals=False)),
    ("row_2_6", "fit_scaling", _unweighted),
    ("row_2_6", "fit_scaling", _signed_plateau),
    ("row_2_6_calls", "fit_scaling", _calls_by_threshold),
    ("row_2_6_calls", "fit_scaling", _calls_by_free_exponent),
    ("row_2_7", "conflict_spread", lambda rho, *rest: conflict_spread(0.0, *rest) * np.sqrt(1 - rho**2)),
    ("row_2_7", "conflict_spread", lambda rho, m1, m2, d: (1 - rho**2) * np.sqrt(m2 / d**2)),
    ("row_2_7_rates", "conflict_exponent", lambda growth, residual: -0.5),
    ("row_2_7_rates", "conflict_exponent", lambda growth, residual: conflict_exponent(growth)),
]


@pytest.mark.parametrize(("row", "name", "wrong"), MUTATIONS)
def test_a_bent_formula_turns_its_row_red(
    row: str, name: str, wrong: Any, untouched: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert untouched[row].passed
    monkeypatch.setattr(section2, name, wrong)
    assert not getattr(section2, row)().passed


def test_every_row_has_a_mutation() -> None:
    assert {row for row, _, _ in MUTATIONS} == COVERED
