"""Observed tax: paired by id, exact where it can be, and never from unpaired items."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from aligntax.errors import DataError
from aligntax.stats import adjusted_p_values, mcnemar_interval, observed_tax, paired_ids, sign_flip_p


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_right_and_wrong_items_by_hand() -> None:
    before = {"a": 1, "b": 1, "c": 1, "d": 0}
    tax = observed_tax(before, {"d": 1, "c": 0, "b": 0, "a": 1}, rng())
    assert (tax.n, tax.lost, tax.gained, tax.method) == (4, 2, 1, "mcnemar")
    assert (tax.before, tax.after, tax.tax.value) == (0.75, 0.5, 0.25)
    assert tax.relative.value == pytest.approx(1 / 3)
    assert tax.p_value == 1.0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 40), st.sampled_from([0.8, 0.9, 0.95]))
def test_interval_and_exact_test_agree(lost: int, gained: int, same: int, level: float) -> None:
    n = max(lost + gained + same, 1)
    interval, mirror = mcnemar_interval(lost, gained, n, level), mcnemar_interval(gained, lost, n, level)
    assert -1 <= interval.low <= interval.value <= interval.high <= 1
    assert (interval.low, interval.high) == pytest.approx((-mirror.high, -mirror.low), abs=1e-8)
    if lost + gained:
        rejects = reference.binomtest(lost, lost + gained).pvalue < 1 - level - 1e-12
        assert (interval.low > 0 or interval.high < 0) == rejects


def test_the_score_limit_solves_its_equation() -> None:
    """The hull's outer end is the exact one, or solves the score equation with the likeliest nuisance (found on a grid)."""
    n, z = 60, reference.norm.ppf(0.95)
    outer = []
    for lost, gained in ((12, 4), (3, 1), (20, 0), (0, 0)):
        low = mcnemar_interval(lost, gained, n, 0.9).low
        gain = np.linspace(max(-low, 0), (1 - low) / 2, 400_001)[1:-1]
        likelihood = lost * np.log(gain + low) + gained * np.log(gain) + (n - lost - gained) * np.log1p(-2 * gain - low)
        variance = n * (2 * gain[np.argmax(likelihood)] + low - low**2)
        solves = (lost - gained - n * low) / np.sqrt(variance) == pytest.approx(z, abs=1e-3)
        changed = lost + gained
        share = reference.binomtest(lost, changed).proportion_ci(0.9).low if changed else 1.0
        assert solves or low == pytest.approx(changed * (2 * share - 1) / n)
        outer.append(solves)
    assert any(outer) and not all(outer)


def test_no_change_is_not_certainty() -> None:
    items = {str(i): 1.0 for i in range(20)}
    tax = observed_tax(items, items, rng())
    assert tax.p_value == 1.0 and tax.tax.low < -0.05 < 0.05 < tax.tax.high


def test_the_interval_covers_where_all_change_is_one_way() -> None:
    """The conditional interval alone fails here: it never reaches above the share that changed."""
    draws = np.random.default_rng(1).binomial(60, 0.1, size=400)
    held = [mcnemar_interval(int(lost), 0, 60).high >= 0.1 for lost in draws]
    assert np.mean(held) > 0.9 > 0.75 > np.mean(draws / 60 >= 0.1)


def test_graded_scores_are_bootstrapped_and_planted_loss_is_found() -> None:
    source = np.random.default_rng(2)
    before = {str(i): v for i, v in enumerate(source.normal(5, 3, size=80))}
    after = {key: value - 0.4 + source.normal(0, 0.5) for key, value in before.items()}
    tax = observed_tax(before, after, rng())
    drop = np.array([before[k] - after[k] for k in before])
    assert tax.method == "bootstrap" and tax.lost is None and tax.gained is None
    assert tax.tax.value == pytest.approx(drop.mean()) and tax.tax.se == pytest.approx(reference.sem(drop), rel=0.1)
    assert tax.tax.low > 0 and tax.p_value < 0.002
    unpaired = reference.ttest_ind(list(before.values()), list(after.values())).pvalue
    assert unpaired > 0.1  # two independent error bars would have missed it
    assert tax.relative.value == pytest.approx(drop.mean() / np.mean(list(before.values())))


def test_noise_alone_is_not_a_tax() -> None:
    source = np.random.default_rng(3)
    p = [sign_flip_p(source.normal(size=15), source, draws=99) for _ in range(300)]
    assert reference.kstest(p, "uniform").pvalue > 0.01
    assert sign_flip_p(np.zeros(9), source, 50) == 1.0


def test_relative_tax_of_logprobs_is_undefined() -> None:
    tax = observed_tax({"a": -2.0, "b": -3.0}, {"a": -2.5, "b": -3.5}, rng(), draws=50)
    assert tax.tax.value == 0.5 and np.isnan(tax.relative.value)


def test_net_of_a_control_recipe_the_score_before_cancels() -> None:
    source = np.random.default_rng(4)
    before, control, after = ({str(i): v for i, v in enumerate(source.normal(size=30))} for _ in range(3))
    taxes = [
        observed_tax(*pair, rng(), draws=50).tax.value
        for pair in ((before, after), (before, control), (control, after))
    ]
    assert taxes[0] - taxes[1] == pytest.approx(taxes[2])


def test_false_discoveries_over_tasks() -> None:
    source = np.random.default_rng(5)
    taxes = {}
    for name, loss in (("kept", 0.0), ("hurt", 0.3), ("same", 0.0)):
        before = {str(i): float(i % 4 > 0) for i in range(80)}
        after = {k: v * float(source.random() >= loss) for k, v in before.items()}
        taxes[name] = observed_tax(before, after, rng(), draws=20)
    adjusted = adjusted_p_values(taxes)
    assert list(adjusted) == list(taxes) and adjusted["hurt"] < 0.01 < 0.5 < adjusted["kept"]
    assert all(adjusted[name] >= taxes[name].p_value for name in taxes)


def test_unpaired_items_are_named() -> None:
    with pytest.raises(DataError, match=r"'x7' is in before but not in after \(1 of 3"):
        observed_tax({"a": 1, "x7": 1, "b": 0}, {"a": 1, "b": 0}, rng())
    with pytest.raises(DataError, match="'y' is in after but not in before"):
        observed_tax({"a": 1, "b": 0}, {"a": 1, "b": 0, "y": 1}, rng())
    with pytest.raises(DataError, match=r"'b' has scores \[0.0, nan\]"):
        observed_tax({"a": 1, "b": 0}, {"a": 1, "b": np.nan}, rng())
    with pytest.raises(DataError, match="1 item"):
        observed_tax({"a": 1}, {"a": 1}, rng())
    with pytest.raises(DataError, match="no items"):
        paired_ids({}, {})
    with pytest.raises(DataError, match="lost=3, gained=2, n=4"):
        mcnemar_interval(3, 2, 4)
    with pytest.raises(DataError, match="level=90"):
        mcnemar_interval(3, 2, 9, 90)
