"""Choosing and confirming: planted structure is found, luck is not, and families are the unit throughout."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from aligntax.errors import AligntaxError, DataError
from aligntax.stats import Observed, best_of_unrelated, choose, confirm, rank_reliability, spearman, split_halves
from aligntax.stats.choose_confirm import shuffle_families
from aligntax.stats.rank_reliability import half_agreement

FAMILIES = tuple(f"family {k // 3}" for k in range(36))


def world(rng, within=1.0, between=1.0, noise=0.5, recipes=3, items=12, families=FAMILIES):
    """True tax by task with family parts, and drops of items under several recipes about it."""
    index = np.unique(families, return_inverse=True)[1]
    truth = between * rng.standard_normal(index.max() + 1)[index] + within * rng.standard_normal(len(index))
    drops = tuple(
        t + 0.3 * rng.standard_normal((recipes, 1)) + noise * rng.standard_normal((recipes, items)) for t in truth
    )
    return truth, Observed(drops, tuple(families))


def family_noise(rng, families=FAMILIES):
    index = np.unique(families, return_inverse=True)[1]
    return rng.standard_normal(index.max() + 1)[index] + 0.3 * rng.standard_normal(len(index))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=4, max_size=15), st.integers(0, 2**16))
def test_rank_correlation_is_scipys(values, seed):
    y = np.random.default_rng(seed).integers(-3, 4, len(values)).astype(float)
    x = np.array(values, dtype=float)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(spearman(x, y))
    else:
        assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-9)


def test_rank_correlation_refuses_what_has_no_answer():
    with pytest.raises(AligntaxError, match="at least three"):
        spearman([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(AligntaxError, match="nan"):
        spearman([1.0, np.nan, 2.0], [1.0, 2.0, 3.0])


def test_the_best_of_48_unrelated_predictors_looks_good_on_ten_tasks():
    rng = np.random.default_rng(0)
    assert best_of_unrelated(48, 10, 0.71, rng) == pytest.approx(0.42, abs=0.04)
    assert best_of_unrelated(1, 10, 0.71, rng) < 0.03
    assert best_of_unrelated(48, 40, 0.71, rng, draws=1000) < 0.005  # forty tasks leave luck no room


def test_a_family_is_never_on_both_sides_and_order_does_not_matter():
    recipes = ["sft", "dpo", "grpo", "sft+kl"]
    halves = split_halves(FAMILIES, recipes)
    for family in set(FAMILIES):
        sides = {bool(side) for side, own in zip(halves.tasks, FAMILIES, strict=True) if own == family}
        assert len(sides) == 1
    assert halves.tasks.sum() == 18 and halves.recipes.tolist() == [True, False, True, True]
    turned = split_halves(FAMILIES[::-1], recipes[::-1])
    assert (turned.tasks[::-1] == halves.tasks).all() and (turned.recipes[::-1] == halves.recipes).all()
    with pytest.raises(DataError, match="families"):
        split_halves(["a", "b", "c"], recipes)
    with pytest.raises(DataError, match="sft all choose"):
        split_halves(FAMILIES, ["sft", "sft"])
    more = split_halves(FAMILIES, [*recipes, "sft+recovery", "sft+replay"])
    assert (more.recipes[:4] == halves.recipes).all()  # recipes that come later move none


def test_two_seeds_of_one_recipe_choose_or_confirm_together():
    recipes = ["sft", "dpo", "sft", "grpo", "dpo", "kl"]
    side = split_halves(FAMILIES, recipes).recipes
    assert side[0] == side[2] and side[1] == side[4]


def test_a_planted_predictor_is_found_with_its_sign():
    rng = np.random.default_rng(1)
    truth, observed = world(rng)
    candidates = rng.standard_normal((60, 36))
    candidates[17] = -truth + 0.3 * rng.standard_normal(36)
    found = choose(candidates, observed, rng, draws=300)
    assert (found.index, found.sign) == (17, -1)
    assert found.correlation < -0.8 and found.p < 0.01 and found.tried == 60


def test_a_constant_predictor_is_not_tried_and_only_constants_are_an_error():
    rng = np.random.default_rng(2)
    truth, observed = world(rng)
    found = choose(np.stack([np.ones(36), truth]), observed, rng, draws=50)
    assert found.index == 1 and found.tried == 1
    with pytest.raises(DataError, match="nothing to choose"):
        choose(np.ones((3, 36)), observed, rng, draws=50)


def false_alarms(runs, families):
    """How often the search over 24 unrelated predictors, alike within families as tasks are, is called significant."""
    hits = 0
    for seed in range(runs):
        rng = np.random.default_rng([3, seed])
        _, observed = world(rng, within=0.3, items=4, recipes=2, families=families)
        candidates = np.stack([family_noise(rng, families) for _ in range(24)])
        hits += choose(candidates, observed, rng, draws=40).p <= 0.05
    return hits


def test_search_p_is_honest_where_nothing_is_there(monkeypatch):
    families = tuple(f"{k // 4}" for k in range(40))
    assert false_alarms(24, families) <= 5  # 1.2 expected; 6 has chance .001
    monkeypatch.setattr(
        "aligntax.stats.choose_confirm.shuffle_families",
        lambda tax, own, rng: np.asarray(tax)[:, rng.permutation(len(own))],
    )
    assert false_alarms(12, families) >= 6  # tasks shuffled one by one: four of a family are not four witnesses


def test_shuffled_families_keep_every_task_value_up_to_its_family_mean():
    rng = np.random.default_rng(5)
    tax = rng.standard_normal((2, 36))
    index = np.unique(FAMILIES, return_inverse=True)[1]
    moved = shuffle_families(tax, FAMILIES, rng)
    for row, other in zip(tax, moved, strict=True):
        means, new = (np.array([values[index == f].mean() for f in range(12)]) for values in (row, other))
        assert np.allclose(np.sort(means), np.sort(new))
        assert np.allclose(
            np.sort(np.concatenate([row[index == f] - means[f] for f in range(12)])),
            np.sort(np.concatenate([other[index == f] - new[f] for f in range(12)])),
        )
    assert not np.allclose(moved, tax)
    first, second = shuffle_families(np.stack([tax[0], 2 * tax[0] + 1]), FAMILIES, rng)
    assert np.allclose(second, 2 * first + 1)  # recipes move together


def test_confirming_tells_a_better_predictor_from_a_baseline():
    rng = np.random.default_rng(6)
    truth, observed = world(rng)
    weak = truth + 2.5 * rng.standard_normal(36)
    found = confirm(truth, {"norm": weak, "score": rng.standard_normal(36)}, observed, rng, draws=300)
    assert found.correlation.low > 0.6 and found.p < 0.01
    assert found.best == "norm" and found.ahead.low > 0
    assert (found.families, found.tasks, found.recipes) == (12, 36, 3)
    back = confirm(weak, {"norm": truth}, observed, rng, draws=300)
    assert back.ahead.high < 0 and back.ahead.value == pytest.approx(
        -(found.correlation.value - found.baselines["norm"].value)
    )


def test_a_lead_that_is_not_there_is_rarely_claimed():
    claims = 0
    for seed in range(40):
        rng = np.random.default_rng([7, seed])
        truth, observed = world(rng, items=6)
        mine, other = (truth + 1.5 * family_noise(rng) for _ in range(2))
        claims += confirm(mine, {"other": other}, observed, rng, draws=100).ahead.low > 0
    assert claims <= 7  # one side of a 90% interval: 2 of 40


def test_a_chosen_winner_does_not_confirm_where_nothing_is_there():
    confirmed = []
    for seed in range(40):
        rng = np.random.default_rng([8, seed])
        _, observed = world(rng, items=6)
        candidates = rng.standard_normal((48, 36))
        halves = split_halves(FAMILIES, ["sft", "dpo", "grpo"])
        picked = choose(candidates[:, halves.tasks], observed.part(halves.tasks, halves.recipes), rng, draws=2)
        rest = observed.part(~halves.tasks, ~halves.recipes)
        value = picked.sign * candidates[picked.index, ~halves.tasks]
        confirmed.append((abs(picked.correlation), float(np.mean(spearman(value, rest.tax)))))
    chosen, kept = np.array(confirmed).T
    assert chosen.mean() > 0.45  # luck looks like this
    assert abs(kept.mean()) < 3 * kept.std() / np.sqrt(len(kept))  # and is gone


def test_reliability_is_one_without_noise_and_knows_its_sources():
    rng = np.random.default_rng(9)
    truth = rng.standard_normal(200)

    item_part = [1.0 * rng.standard_normal(8) for _ in range(200)]
    same = [[np.full(8, t) for t in truth]] * 2
    assert rank_reliability(same, [(0, 1)], rng).cap == pytest.approx(1.0)
    runs = []
    for _ in range(2):
        own = truth + 0.7 * rng.standard_normal(200)
        runs.append([t + part for t, part in zip(own, item_part, strict=True)])
    found = rank_reliability(runs, [(0, 1)], rng)
    whole = 1 + 0.49 + 1 / 8
    assert found.seeds == pytest.approx((1 + 1 / 8) / whole, abs=0.08)
    assert found.items == pytest.approx(1.49 / whole, abs=0.05)
    assert found.cap == pytest.approx(np.sqrt(1 / whole), abs=0.06)


def test_reliability_without_a_second_seed_says_so():
    rng = np.random.default_rng(10)
    noise = [[rng.standard_normal(6) for _ in range(60)]]
    found = rank_reliability(noise, [], rng)
    assert np.isnan(found.seeds) and abs(found.items) < 0.5
    with pytest.raises(DataError, match="fewer than two"):
        half_agreement([np.ones(1), np.ones(3), np.ones(3)], rng)


def test_bad_input_names_itself():
    rng = np.random.default_rng(11)
    truth, observed = world(rng)
    with pytest.raises(DataError, match="no baselines"):
        confirm(truth, {}, observed, rng)
    with pytest.raises(DataError, match="36 tasks"):
        choose(np.ones((2, 35)), observed, rng)
    with pytest.raises(DataError, match="finite"):
        Observed((np.ones((2, 3)), np.ones((1, 3)), np.ones((2, 3))), ("a", "b", "c"))
