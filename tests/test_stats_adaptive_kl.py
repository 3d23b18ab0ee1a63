"""The adaptive penalty: exponential, clipped, and without a target."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligntax.errors import DataError
from aligntax.stats import adaptive_beta

WIDE = (1e-9, 1e9)


@given(st.floats(0, 5), st.floats(0, 5), st.floats(0.01, 1), st.floats(-1, 1))
def test_steps_multiply(first: float, second: float, beta0: float, rate: float) -> None:
    at_once = adaptive_beta(first + second, beta0, rate, WIDE)
    assert at_once == pytest.approx(adaptive_beta(second, adaptive_beta(first, beta0, rate, WIDE), rate, WIDE))


@given(st.floats(-1, 1e6), st.floats(0.001, 10), st.floats(-5, 5))
def test_it_stays_within_its_bounds(kl: float, beta0: float, rate: float) -> None:
    assert 0.01 <= adaptive_beta(kl, beta0, rate, (0.01, 1.0)) <= 1.0


def test_halfway_it_has_its_closed_form_and_does_not_overflow() -> None:
    assert adaptive_beta(2.0, 0.1, 0.5, WIDE) == pytest.approx(0.1 * math.e)
    assert adaptive_beta(1e8, 0.1, 0.5, (0.01, 1.0)) == 1.0
    assert adaptive_beta(1e8, 0.1, -0.5, (0.01, 1.0)) == 0.01


def test_it_has_no_target() -> None:
    """Where the KL falls as 1/beta, it comes to rest at another place for every pull: nothing draws it to one value."""
    rests = []
    for pull in (0.05, 0.5, 5.0):
        kl = 1.0
        for _ in range(200):
            kl = 0.5 * kl + 0.5 * pull / adaptive_beta(kl, 0.1, 0.5, WIDE)
        assert kl == pytest.approx(pull / adaptive_beta(kl, 0.1, 0.5, WIDE))
        rests.append(kl)
    assert rests[0] < 0.8 * rests[1] < 0.64 * rests[2]


@pytest.mark.parametrize(
    ("kl", "beta0", "rate", "bounds", "says"),
    [
        (math.nan, 0.1, 1.0, WIDE, "kl=nan"),
        (1.0, 0.0, 1.0, WIDE, r"beta0=0\.0"),
        (1.0, 0.1, 1.0, (1.0, 0.1), r"bounds=\(1\.0, 0\.1\)"),
        (1.0, 0.1, 1.0, (0.0, 0.1), r"bounds=\(0\.0"),
        (1.0, 0.1, math.inf, WIDE, "rate=inf"),
    ],
)
def test_bad_input_is_named(kl, beta0, rate, bounds, says) -> None:
    with pytest.raises(DataError, match=says):
        adaptive_beta(kl, beta0, rate, bounds)
