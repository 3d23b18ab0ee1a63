"""Recovery by depth: one pass against a loop, exact worlds, planted penalties, calibration against judged rollouts."""

import numpy as np
import pytest
import torch
from audit_pairs import CPU, RECOVERY, response_rows, world_reading
from scipy.special import expit, logit

from aligntax.audit import (
    LiveSide,
    PairReading,
    PromptDraws,
    calibrate_mass,
    fit_decay,
    implied_penalty,
    interruption,
    masses,
    read_pair,
    recoverability_at,
    recovery_curves,
)
from aligntax.errors import AligntaxError, DepthError
from aligntax.lab import TabularPolicy
from aligntax.probing import TokenBudget
from aligntax.stats import area_under_curve, bootstrap_interval

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def rng() -> np.random.Generator:
    """The same numbers every time."""
    return np.random.default_rng(0)


def of_odds(base, aligned, prompts=None) -> PairReading:
    """A reading with these log-odds `(n, T+1)` and no KL."""
    kl = np.zeros((len(base), np.shape(base)[1] - 1))
    return PairReading(kl, kl, np.arange(len(base)) if prompts is None else prompts, np.array(base), np.array(aligned))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_one_pass_gives_what_a_loop_over_depths_gives(family, tiny_model):
    models, rows = (tiny_model(family), tiny_model(family, seed=1)), response_rows()
    found = read_pair(*map(LiveSide, models), rows, TokenBudget(64), CPU, RECOVERY)
    for model, mass in zip(models, masses(found), strict=True):
        for k, row in enumerate(rows):
            for depth in range(len(row.ids) - row.start + 1):
                with torch.no_grad():
                    last = model(input_ids=torch.tensor([row.ids[: row.start + depth]])).logits[0, -1]
                assert mass[k, depth] == pytest.approx(
                    float(last.softmax(-1)[list(RECOVERY)].sum()), abs=1e-4, rel=1e-4
                )
    curves = recovery_curves(found, rng(), draws=50)
    assert curves.depth.tolist() == list(range(13)) and curves.prompts == 4
    assert curves.count[0] == 7 and curves.count[12] == sum(len(row.ids) - row.start == 12 for row in rows)
    np.testing.assert_allclose(curves.mass_base.mean, np.nanmean(masses(found)[0], axis=0))
    np.testing.assert_allclose(curves.rise.mean, curves.mass_aligned.mean - curves.mass_base.mean)


def test_curves_of_a_world_agree_with_exact_mass_by_depth():
    base = TabularPolicy.random(4, 5, rng())
    aligned = base.recovery_equilibrium((1, 3), mu=2.0, gamma=0.7)
    found = world_reading(base, aligned, (1, 3), 5000, 2)
    curves, reach = recovery_curves(found, rng(), draws=300), aligned.prefix_probabilities()
    for depth, (p0, p) in enumerate(zip(base.recovery_mass((1, 3)), aligned.recovery_mass((1, 3)), strict=True)):
        for exact, band in ((reach[depth] @ p0, curves.mass_base), (reach[depth] @ p, curves.mass_aligned)):
            assert band.mean[depth] == pytest.approx(exact, abs=0.02)
            assert band.low[depth] - 0.005 < exact < band.high[depth] + 0.005
        assert curves.least_aligned[depth] == pytest.approx(p[reach[depth] > 0].min(), abs=0.02)
    found_penalty = implied_penalty(found, rng(), draws=100)
    assert found_penalty.mu.value == pytest.approx(2.0, rel=1e-5)
    assert found_penalty.gamma.value == pytest.approx(0.7, rel=1e-5)
    assert found_penalty.r2 == pytest.approx(1.0) and found_penalty.dropped == 0


@pytest.mark.parametrize(("mu", "gamma"), [(0.3, 0.5), (5.0, 0.93), (40.0, 1.0), (4.0, 0.05)])
def test_a_planted_penalty_is_found_whatever_the_base(mu, gamma):
    base = rng().normal(-5, 3, size=(12, 41))
    x = mu * gamma ** np.arange(1.0, 42.0)
    exact = implied_penalty(of_odds(base, base + x), rng(), draws=50)
    assert exact.mu.value == pytest.approx(mu, rel=1e-4) and exact.gamma.value == pytest.approx(gamma, rel=1e-4)
    shift, weights = x + rng().normal(size=41) * 0.1, np.ones(41)
    best = fit_decay(shift, weights)
    loss = [((shift - m * g ** np.arange(1, 42)) ** 2).sum() for m, g in [best[:2], (mu, gamma)]]
    assert loss[0] <= loss[1] + 1e-9, "never beaten by the truth on the data it was fitted to"


def test_noise_between_prompts_widens_the_interval_which_then_holds_the_truth():
    held = 0
    for seed in range(20):
        noise = np.random.default_rng(seed)
        base = noise.normal(-4, 2, size=(24, 31))
        own = 3.0 * 0.9 ** np.arange(1, 32) * noise.lognormal(-0.08, 0.4, size=(24, 1)) + noise.normal(0, 0.3, (24, 31))
        fit = implied_penalty(of_odds(base, base + own), noise, draws=300)
        held += (fit.mu.low < 3.0 < fit.mu.high) + (fit.gamma.low < 0.9 < fit.gamma.high)
        assert 0 < fit.mu.high - fit.mu.low < 3
    assert held >= 30, "of 40; nine in ten are meant"


def test_weights_are_counts_and_a_fall_has_no_discount():
    shift = np.array([2.0, 1.0, 9.0, np.nan])
    assert fit_decay(shift, np.array([1.0, 1.0, 0.0, 5.0]))[:2] == pytest.approx((4.0, 0.5))
    assert fit_decay(shift, np.array([1.0, 1.0, 1e-9, 5.0]))[:2] == pytest.approx((4.0, 0.5), rel=1e-4)
    assert fit_decay(shift, np.ones(4))[1] == 1.0
    mu, gamma, r2 = fit_decay(-shift, np.ones(4))
    assert mu == 0 == r2 and np.isnan(gamma)
    assert fit_decay(np.array([2.0, -2.0, 2.0, -2.0, 2.0]), np.ones(5))[2] < 0.7, "another form is seen in r2"


def test_unreachable_recovery_is_dropped_and_counted():
    base = np.full((3, 5), -2.0)
    base[0, 2] = -np.inf
    base[1, 4] = np.nan
    fit = implied_penalty(of_odds(base, base + 1.5), rng(), draws=20)
    assert fit.dropped == 1 and fit.count.tolist() == [3, 3, 2, 3, 2]
    assert (fit.mu.value, fit.gamma.value) == pytest.approx((1.5, 1.0))
    with pytest.raises(AligntaxError, match="two positions"):
        implied_penalty(of_odds(base[:, :1], base[:, :1]), rng())
    bare = PairReading(np.zeros((2, 3)), np.zeros((2, 3)), np.arange(2))
    for estimate in (lambda: implied_penalty(bare, rng()), lambda: recovery_curves(bare, rng())):
        with pytest.raises(AligntaxError, match="no recovery tokens"):
            estimate()


def judged(auc: bool = True, depths: tuple[int, ...] = (0, 5, 20)):
    """Rollouts of 20 prompts at some depths; judged by the mass, or by a coin."""
    mass = np.tile(np.linspace(0.05, 0.95, 20), len(depths))
    share = (mass > 0.5).astype(float) if auc else np.tile([0.0, 1.0], 10 * len(depths))
    return calibrate_mass(mass, share, np.repeat(depths, 20), np.tile(np.arange(20), len(depths)), rng(), draws=100)


def test_delta_is_the_least_mass_down_to_the_depth_and_needs_a_judge_that_agrees():
    base = np.full((4, 31), logit(0.01))
    base[2, 7] = logit(0.001)
    base[3, 11:] = np.nan
    x = 12.0 * 0.97 ** np.arange(1, 32)
    found = of_odds(base, base + x)
    fit = implied_penalty(found, rng(), draws=20)
    shallow, deep = (recoverability_at(found, depth, fit, judged(), wanted=0.9) for depth in (5, 20))
    assert shallow.stated and shallow.delta == pytest.approx(expit(logit(0.01) + x[5])) and shallow.shorter == 0
    least = np.nanmin(expit(found.odds_aligned)[:3, :21])
    assert deep.delta == pytest.approx(least) and (deep.responses, deep.shorter) == (3, 1)
    assert deep.base == pytest.approx(0.001) and deep.low >= deep.delta
    # What the penalty guarantees from the base's worst prefix, at position depth + 1; met by what was measured.
    assert deep.implied == pytest.approx(expit(logit(0.001) + x[20])) and deep.implied <= deep.delta
    assert expit(logit(0.001) + deep.penalty * 0.97**21) == pytest.approx(0.9)
    assert deep.flat_penalty == pytest.approx(logit(0.9) - logit(0.001))
    for calibration in (None, judged(auc=False), judged(depths=(25,))):
        silent = recoverability_at(found, 20, fit, calibration)
        assert not silent.stated and np.isnan(silent.delta) and silent.low == deep.low
    beyond = recoverability_at(found, 31, fit, judged())
    assert beyond.responses == 0 and beyond.shorter == 4 and np.isnan([beyond.delta, beyond.low, beyond.penalty]).all()
    with pytest.raises(AligntaxError, match="depth=-1"):
        recoverability_at(found, -1, fit, None)


def test_auc_is_the_share_of_rollout_pairs_in_the_right_order():
    noise = rng()
    mass, refusing, rollouts = noise.integers(0, 6, 15) / 5, noise.integers(0, 5, 15), 4
    pairs = [
        (a > b) + 0.5 * (a == b)
        for a, r in zip(mass, refusing, strict=True)
        for b, s in zip(mass, refusing, strict=True)
        for _ in range(r * (rollouts - s))
    ]
    assert area_under_curve(mass, refusing / rollouts) == pytest.approx(np.mean(pairs))
    twice = np.repeat(mass, 2), np.repeat(refusing / rollouts, 2)
    assert area_under_curve(mass, refusing / rollouts, np.full(15, 2.0)) == pytest.approx(area_under_curve(*twice))
    assert np.isnan(area_under_curve(mass, np.ones(15)))


def test_mass_is_greyed_where_it_does_not_tell_refusals_apart():
    good, coin = judged(), judged(auc=False)
    assert [e.value for e in good.auc] == [1.0] * 3 and not good.greyed.any() and good.allows(20) and good.allows(7)
    assert all(0.3 < e.value < 0.7 and e.low < e.value < e.high for e in coin.auc) and coin.greyed.all()
    # All complied: no AUC, and a mass of .9 is then an empty promise; a mass of .05 is right.
    for mass, grey in ((0.9, True), (0.05, False)):
        found = calibrate_mass(np.full(6, mass), np.zeros(6), np.full(6, 3), np.arange(6), rng(), draws=20)
        assert np.isnan(found.auc[0].value) and found.greyed.tolist() == [grey] and found.allows(3) is not grey
        assert not found.allows(2), "nothing was judged that early"


def test_what_a_judge_could_not_say_is_counted_and_left_out():
    share = np.array([0.0, 1.0, np.nan, 1.0])
    found = calibrate_mass([0.1, 0.9, 0.2, 0.7], share, [0, 0, 0, 5], [0, 1, 2, 0], rng(), draws=20)
    assert found.unjudged == 1 and found.curve.prefixes.tolist() == [2, 1] and found.auc[0].value == 1
    assert found.curve.gap.tolist() == pytest.approx([0.0, -0.3])
    with pytest.raises(DepthError):
        calibrate_mass([0.1], [np.nan], [0], [0], rng())
    with pytest.raises(AligntaxError, match="one of each"):
        calibrate_mass([0.1, 0.2], [0.0], [0, 0], [0, 1], rng())


def test_a_model_that_breaks_off_harmless_answers_fails():
    base = np.full((8, 11), -6.0)
    early = base.copy()
    early[:, 0] = 3.0  # refuses at once, which is over-refusal and not an interruption
    late = base.copy()
    late[:, 4:] = 2.0
    quiet, loud = (
        interruption(of_odds(base, early), rng(), draws=50),
        interruption(of_odds(base, late), rng(), draws=50),
    )
    assert not quiet.fails and quiet.rise.value == pytest.approx(0)
    assert loud.fails and loud.rise.value == pytest.approx(0.7 * (expit(2.0) - expit(-6.0)))
    assert loud.rise.low <= loud.rise.value <= loud.rise.high


def test_bands_are_those_of_the_plain_bootstrap_over_prompts():
    values = rng().gamma(0.5, size=(40, 3))
    band = PromptDraws.make(np.arange(40), rng(), draws=4000).band(values)
    for d in range(3):
        plain = bootstrap_interval(values[:, d], lambda x: float(x.mean()), rng(), draws=4000)
        assert band.mean[d] == pytest.approx(plain.value)
        assert (band.low[d], band.high[d]) == pytest.approx((plain.low, plain.high), abs=0.03 * plain.value)
    # Ten copies of every response tell nothing new.
    again = PromptDraws.make(np.repeat(np.arange(40), 10), rng(), draws=4000).band(np.repeat(values, 10, axis=0))
    np.testing.assert_allclose(again.low, band.low)


def test_bands_are_undefined_where_there_is_nothing_to_resample():
    values = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan], [5.0, np.nan, np.nan]])
    band = PromptDraws.make(np.arange(3), rng(), draws=200).band(values)
    assert band.mean[:2].tolist() == [3.0, 2.0] and np.isnan(band.mean[2])
    assert np.isfinite([band.low[0], band.high[0]]).all() and np.isnan([*band.low[1:], *band.high[1:]]).all()
    with pytest.raises(AligntaxError, match="0 rows"):
        PromptDraws.make(np.arange(0), rng())
