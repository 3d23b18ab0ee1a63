"""The harm curve on exact worlds: unbiased, honest intervals, a horizon that is found where planted and not where absent."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aligntax.depth import harm_curve, horizon_gap
from aligntax.errors import DepthError
from aligntax.lab import TabularPolicy, exact_curve, sample_rollouts

V, T = 3, 5
DEPTHS = [0, 1, 2, 3, 5]


def world(rng: np.random.Generator, horizon: int = 3, common: float = 0.5) -> tuple[TabularPolicy, np.ndarray]:
    """Harm 0 or 1, decided by the first `horizon` tokens."""
    decided = (rng.random(V**horizon) < common).astype(float)
    return TabularPolicy.random(V, T, rng), np.repeat(decided, V ** (T - horizon))


def curve_of(worlds: list[Any], rows: int, seed: int, **given: Any) -> Any:
    drawn = sample_rollouts(worlds, DEPTHS, rows, np.random.default_rng([7, seed]))
    return harm_curve(drawn.first, drawn.second, drawn.prompts, depths=DEPTHS, **given)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("prompts", [4, 10])
def test_unbiased_at_every_depth(prompts: int, centred: bool) -> None:
    rng = np.random.default_rng(1)
    worlds = [world(rng, common=c) for c in np.linspace(0.1, 0.9, prompts)]
    truth = exact_curve(worlds, DEPTHS)
    off = np.array([curve_of(worlds, 5, seed, centred=centred).variance - truth for seed in range(200)])
    assert (off[:, 0] == 0.0).all()
    errors = off[:, 1:]
    assert (np.abs(errors.mean(axis=0)) <= 3 * errors.std(axis=0, ddof=1) / math.sqrt(len(errors))).all()


@pytest.mark.parametrize(
    ("prompts", "rows", "resampled"), [(4, 25, "rollouts"), (1, 60, "rollouts"), (12, 8, "prompts")]
)
@pytest.mark.parametrize("centred", [False, True])
def test_intervals_cover(prompts: int, rows: int, resampled: str, centred: bool) -> None:
    rng = np.random.default_rng(2)
    population = [world(rng, common=c) for c in np.tile([0.2, 0.5, 0.8], 10)]
    fixed = resampled == "rollouts"
    truth = exact_curve(population[:prompts] if fixed else population, DEPTHS)
    covered = []
    for seed in range(150):
        picked = range(prompts) if fixed else np.random.default_rng([9, seed]).integers(30, size=prompts)
        curve = curve_of([population[i] for i in picked], rows, seed, centred=centred)
        assert curve.resampled == resampled
        covered.append((curve.interval[1:, 0] <= truth[1:]) & (truth[1:] <= curve.interval[1:, 1]))
    assert 0.90 <= np.mean(covered) <= 0.98


def test_intervals_of_the_share_cover_and_are_shares() -> None:
    rng = np.random.default_rng(2)
    population = [world(rng, common=c) for c in (0.2, 0.5, 0.8, 0.5)]
    truth = exact_curve(population, DEPTHS)
    covered = []
    for seed in range(150):
        curve = curve_of(population, 60, seed)
        if not curve.decided:
            continue
        low, high = curve.share_interval.T
        assert (low[0], high[0]) == (0.0, 0.0) and low[-1] == high[-1] == pytest.approx(1.0)
        assert (low <= high).all() and (low[1:-1] < 1.0).any()
        covered.append((low[1:-1] <= truth[1:-1] / truth[-1]) & (truth[1:-1] / truth[-1] <= high[1:-1]))
    assert len(covered) > 100 and 0.90 <= np.mean(covered) <= 0.99


@settings(max_examples=30, deadline=None)
@given(
    arrays(float, (6, 3), elements=st.floats(0, 1)),
    arrays(float, (6, 3), elements=st.floats(0, 1)),
    st.lists(st.sampled_from("abc"), min_size=6, max_size=6),
)
def test_difference_of_products_within_prompts(first: np.ndarray, second: np.ndarray, prompts: list[str]) -> None:
    wanted = []
    for prompt in sorted(set(prompts)):
        rows = [k for k in range(6) if prompts[k] == prompt]
        wanted.append(
            [np.mean([first[k, t] * second[k, t] - first[k, 0] * second[k, 0] for k in rows]) for t in range(3)]
        )
    curve = harm_curve(first, second, prompts)
    assert curve.variance == pytest.approx(np.mean(wanted, axis=0), abs=1e-12)
    assert curve.information == pytest.approx(np.diff(curve.variance))
    assert (np.diff(curve.fitted) >= 0).all() and curve.fitted[0] == 0.0
    shuffled = np.random.default_rng(0).permutation(6)
    other = harm_curve(second[shuffled], first[shuffled], [prompts[k] for k in shuffled])
    assert other.variance == pytest.approx(curve.variance, abs=1e-12)


def test_centred_is_the_covariance_within_prompts() -> None:
    rng = np.random.default_rng(11)
    first, second, prompts = rng.random((9, 3)), rng.random((9, 3)), list("aaaabbbcc")
    wanted = np.zeros((3, 3))
    for k, prompt in enumerate("abc"):
        rows = [i for i in range(9) if prompts[i] == prompt]
        wanted[k, 1:] = [np.cov(first[rows, t], second[rows, t])[0, 1] for t in (1, 2)]
    curve = harm_curve(first, second, prompts, centred=True)
    assert curve.variance == pytest.approx(wanted.mean(axis=0), abs=1e-12)
    with pytest.raises(DepthError, match="prompt of 1 row"):
        harm_curve(first, second, list("aaaabbbbc"), centred=True)


def test_centring_saves_variance_where_harm_is_common() -> None:
    worlds = [world(np.random.default_rng(3), common=0.5)]
    spread = [np.var([curve_of(worlds, 40, s, centred=c).variance[-1] for s in range(100)]) for c in (False, True)]
    assert spread[1] < 0.4 * spread[0]


def test_a_planted_horizon_is_found_in_the_unit_of_the_grid() -> None:
    worlds = [world(np.random.default_rng([4, k]), horizon=3) for k in range(9)]
    curve = curve_of(worlds, 300, 0, rollouts="base", centred=True)
    assert curve.horizon() == 3 and curve.horizon(0.2) < 3 and curve.rollouts == "base"
    assert curve.share[-1] == 1.0 and curve.share[0] == 0.0
    low, high = curve.horizon_interval()
    assert low <= 3 <= high
    sentences = harm_curve([[0, 0], [1, 1]] * 30, [[1, 0], [0, 1]] * 30, depths=[0, 2.5])
    assert sentences.horizon() == 2.5


def test_the_raw_curve_crosses_early_and_the_isotonic_fit_does_not() -> None:
    """Harm is the sign of a walk with shrinking steps: `V(t) = arcsin(share of its variance walked)/2 pi`, exactly."""
    variances = 0.8 ** np.arange(40)
    walked = np.concatenate([[0.0], np.cumsum(variances)])
    left = np.sqrt(np.maximum(walked[-1] - walked, 0.0))
    planted = int(np.argmax(np.arcsin(walked / walked[-1]) >= 0.95 * math.pi / 2))
    raw, read = [], []
    for seed in range(80):
        rng = np.random.default_rng([10, seed])
        walks = np.cumsum(rng.standard_normal((300, 40)) * np.sqrt(variances), axis=1)
        prefixes = np.concatenate([np.zeros((300, 1)), walks], axis=1)
        first, second = (prefixes + rng.standard_normal((300, 41)) * left > 0 for _ in range(2))
        curve = harm_curve(first, second)
        raw.append(int(np.argmax(curve.share >= 0.95)))
        read.append(int(np.argmax(curve.fitted >= 0.95 * curve.fitted[-1])))
    assert np.median(raw) <= planted - 2 <= planted - 1 <= np.median(read) <= planted + 1
    assert np.square(np.array(read) - planted).mean() < np.square(np.array(raw) - planted).mean()


def test_no_variance_is_undecided_and_not_zero() -> None:
    rng = np.random.default_rng(6)
    policy = TabularPolicy.random(V, T, rng)
    absent = curve_of([(policy, np.full(V**T, 0.4))] * 10, 4, 0)
    assert absent.horizon() == "undecided" and not absent.decided
    assert np.isnan(absent.horizon_interval()).all() and np.isnan(absent.share).all()
    assert np.isnan(absent.share_interval).all()
    coins = rng.integers(0, 2, (2, 40, 4)).astype(float)  # harm independent of every prefix
    assert harm_curve(coins[0], coins[1]).horizon() == "undecided"
    single = harm_curve([[0.0, 1.0]], [[0.0, 1.0]])
    assert single.variance[-1] == 1.0 and np.isnan(single.interval).all() and single.horizon() == "undecided"


def test_a_judge_with_a_shorter_horizon_is_told_apart() -> None:
    policy, harm = world(np.random.default_rng(8), horizon=3)
    judged = np.repeat((np.arange(V) == 1).astype(float), V ** (T - 1))  # looks at the first token only
    drawn = [sample_rollouts([(policy, h)], DEPTHS, 500, np.random.default_rng(8)) for h in (harm, judged)]
    exact, learned = (harm_curve(x.first, x.second, depths=DEPTHS, centred=True) for x in drawn)
    gap = horizon_gap(exact, learned)
    assert gap.value == -2.0 and gap.high < 0.0
    same = horizon_gap(exact, exact)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    assert math.isnan(horizon_gap(exact, harm_curve(np.zeros((500, 5)), np.zeros((500, 5)), depths=DEPTHS)).value)
    with pytest.raises(DepthError, match="not paired"):
        horizon_gap(exact, harm_curve([[0, 1]], [[0, 1]]))


GOOD = np.full((3, 2), 0.5)


@pytest.mark.parametrize(
    ("first", "second", "given", "said"),
    [
        (np.full((3, 2), 1.5), GOOD, {}, r"1\.5"),
        (GOOD, np.full((3, 2), -0.25), {}, r"second harm is -0\.25"),
        (GOOD, np.full((3, 2), np.nan), {}, "nan"),
        (np.full((3, 1), 0.5), np.full((3, 1), 0.5), {}, "has 1 depth"),
        (GOOD, np.full((4, 2), 0.5), {}, r"\(3, 2\) and second \(4, 2\)"),
        (np.zeros((0, 2)), np.zeros((0, 2)), {}, r"\(0, 2\)"),
        (["x", "y"], GOOD, {}, "not an array of numbers"),
        (GOOD, GOOD, {"prompts": ["a"]}, "1 prompts for 3 rows"),
        (GOOD, GOOD, {"depths": [0]}, r"1 depths \[0\] for 2"),
        (GOOD, GOOD, {"depths": [1, 2]}, r"\[1, 2\]"),
        (GOOD, GOOD, {"depths": [0, 0]}, r"\[0, 0\]"),
    ],
)
def test_bad_input_is_repeated(first: Any, second: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(DepthError, match=said):
        harm_curve(first, second, **given)


@pytest.mark.parametrize("level", [0.0, -1.0, 1.5, math.nan])
def test_levels_outside_the_unit_interval(level: float) -> None:
    curve = harm_curve(GOOD, GOOD)
    for ask in (curve.horizon, curve.horizon_interval):
        with pytest.raises(DepthError, match=f"level={level}"):
            ask(level)
