"""The fit over a family of widths: optimal, calibrated, and decided where the data decide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.errors import GeometryError
from aligntax.geometry import fit_scaling
from aligntax.lab.oracles.scaling import planted_families, plateau_by_descent

WIDTHS = 64 * 2.0 ** np.arange(6)
seeds = st.integers(0, 10**6)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_fit_is_the_bounded_weighted_optimum_in_any_order_and_scale(seed: int) -> None:
    rng = np.random.default_rng(seed)
    errors = rng.uniform(0.002, 0.02, 6)
    taxes = rng.choice([0.0, 0.05]) + 4 / WIDTHS + errors * rng.standard_normal(6)
    fit = fit_scaling(WIDTHS, taxes, errors)
    t, b = plateau_by_descent(WIDTHS, taxes, errors)
    assert fit.t == pytest.approx(t, abs=1e-6) and fit.b == pytest.approx(b, abs=1e-4)
    assert fit.t >= 0 and fit.low <= fit.high and fit.b_low <= fit.b_high
    np.testing.assert_allclose(fit.predict(WIDTHS), fit.t + fit.b / WIDTHS)
    turned = fit_scaling(WIDTHS[::-1], taxes[::-1], errors[::-1])
    assert turned.t == pytest.approx(fit.t) and turned.constant_p == pytest.approx(fit.constant_p)
    percent = fit_scaling(WIDTHS, 100 * taxes, 100 * errors)
    assert percent.t == pytest.approx(100 * fit.t) and percent.high == pytest.approx(100 * fit.high)
    assert percent.call == fit.call
    assert fit == fit_scaling(WIDTHS, taxes, errors)


@pytest.mark.parametrize("given_errors", [True, False])
@pytest.mark.parametrize("b", [1.0, 20.0])
def test_error_rates_of_planted_families(b: float, given_errors: bool) -> None:
    rng = np.random.default_rng(5)
    for t in (0.0, 0.1):
        families, errors = planted_families(t, b, WIDTHS, 0.1, 60, rng)
        fits = [fit_scaling(WIDTHS, y, errors if given_errors else None, seed=i) for i, y in enumerate(families)]
        calls = [fit.call for fit in fits]
        assert calls.count("intrinsic" if t == 0 else "incidental") <= 0.05 * len(calls)
        assert calls.count("undecided") <= 0.2 * len(calls)
        assert np.mean([fit.low <= t <= fit.high for fit in fits]) >= 0.9


def test_errors_that_are_estimated_or_too_small_do_not_raise_the_false_alarms() -> None:
    rng = np.random.default_rng(6)
    families, errors = planted_families(0.0, 5.0, WIDTHS, 0.1, 120, rng)
    halved = [fit_scaling(WIDTHS, y, errors / 2, seed=i) for i, y in enumerate(families)]
    assert np.mean([fit.call == "intrinsic" for fit in halved]) <= 0.05
    assert 1.7 < np.median([fit.scatter for fit in halved]) < 2.3


def test_flat_and_absent_taxes_are_not_called_incidental() -> None:
    rng = np.random.default_rng(7)
    errors = np.full(6, 0.01)
    for level, allowed in ((0.0, {"undecided"}), (0.1, {"intrinsic"})):
        calls = [fit_scaling(WIDTHS, level + errors * rng.standard_normal(6), errors, seed=i).call for i in range(40)]
        assert sum(call not in allowed for call in calls) <= 4
    rising = fit_scaling(WIDTHS, 0.02 + 0.05 * (1 - 64 / WIDTHS), errors)
    assert rising.call == "intrinsic" and rising.b < 0


def test_a_plateau_that_noise_may_hide_is_left_undecided() -> None:
    errors = np.full(6, 0.15)
    fit = fit_scaling(WIDTHS, 0.1 + 0.8 * 64 / WIDTHS, errors)
    assert fit.low == 0 and fit.constant_p < 0.05 and fit.high > 0.3 * 0.8
    assert fit.call == "undecided" and "good part" in fit.reason
    assert fit_scaling(WIDTHS, 0.8 * 64 / WIDTHS, errors / 10).call == "incidental"


def test_exact_data_give_exact_answers() -> None:
    for errors in (None, np.full(6, 1e-6)):
        vanishing, plateau = (fit_scaling(WIDTHS, t + 2 / WIDTHS, errors) for t in (0.0, 0.1))
        assert vanishing.call == "incidental" and vanishing.t == pytest.approx(0, abs=1e-9)
        assert plateau.call == "intrinsic" and plateau.t == pytest.approx(0.1, abs=1e-9)
    assert fit_scaling(WIDTHS, np.zeros(6)).call == "undecided"
    assert fit_scaling(WIDTHS, np.full(6, 0.1)).call == "intrinsic"


def test_free_exponent_finds_a_slower_decay_and_says_how_little_a_plateau_is_then_known() -> None:
    slow = 0.8 / np.sqrt(WIDTHS)
    fit = fit_scaling(WIDTHS, slow, 0.005 * slow)
    assert fit.p == 1.0 and fit.call == "intrinsic"  # the primary fit mistakes a slow decay for a plateau ..
    assert fit.free.p == pytest.approx(0.5, abs=0.05) and fit.free.call == "incidental"  # .. and its sensitivity tells
    plain = fit_scaling(WIDTHS, 0.1 + 6 / WIDTHS, np.full(6, 0.002))
    assert plain.free.p == pytest.approx(1, abs=0.1) and plain.free.call == "intrinsic"
    assert plain.free.high - plain.free.low > plain.high - plain.low


def test_controls_with_the_same_slope_withdraw_a_call() -> None:
    rng = np.random.default_rng(8)
    errors = 0.05 / WIDTHS + 1e-4
    controls = np.outer(rng.uniform(0.5, 2, 30), 1 / WIDTHS)
    like_controls = fit_scaling(WIDTHS, 1 / WIDTHS, errors, controls)
    assert like_controls.call == "undecided" and like_controls.same_as_controls and "slope" in like_controls.reason
    steeper = fit_scaling(WIDTHS, 20 / WIDTHS, errors, controls)
    assert steeper.call == "incidental" and steeper.same_as_controls is False
    raised = fit_scaling(WIDTHS, 0.1 + 1 / WIDTHS, errors, controls)
    assert raised.call == "intrinsic"  # the same slope, yet a plateau that no control has
    lifted = fit_scaling(WIDTHS, 0.1 + 1 / WIDTHS, errors, 0.1 + controls)
    assert lifted.call == "undecided" and "plateau" in lifted.reason
    assert fit_scaling(WIDTHS, 1 / WIDTHS, errors).same_as_controls is None
    assert fit_scaling(WIDTHS, 1 / WIDTHS, errors, 3 * controls[0]).same_as_controls is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([64, 128, 256], [0.3, 0.2, 0.1]), "3 different widths"),
        (([64, 64, 128, 256], [0.3, 0.3, 0.2, 0.1]), "3 different widths"),
        (([64, 128, 256, 0], [0.3, 0.2, 0.1, 0.1]), "width is a number > 0"),
        (([64, 128, 256, 512], [0.3, 0.2, 0.1]), "taxes"),
        (([64, 128, 256, 512], [0.3, 0.2, 0.1, np.nan]), "nan"),
        (([64, 128, 256, 512], [0.3, 0.2, 0.1, 0.1], [0.1, 0.1, 0.1, 0]), "standard_errors"),
        (([64, 128, 256, 512], [0.3, 0.2, 0.1, 0.1], None, [[0.1, 0.1]]), "controls"),
        (([64, 128, 256, 512], [0.3, 0.2, 0.1, 0.1], None, None, 1.0), "level=1.0"),
    ],
)
def test_unusable_input_is_named(arguments: tuple, words: str) -> None:
    with pytest.raises(GeometryError, match=words):
        fit_scaling(*arguments)
