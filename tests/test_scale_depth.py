"""Safety depth in trained worlds: closed forms against enumeration, profiles scored right, readings that add up."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.commands.pipeline_model import END, tiny_model, world_tokenizer, write_checkpoint
from aligntax.commands.scale_depth import DECIDED, DepthReading, by_token, depth_worlds, recovery_worlds, score_shares
from aligntax.commands.scale_depth_read import (
    Bench,
    by_position,
    compare,
    entropy_by_position,
    equilibrium,
    gold_judge,
    longest,
    opened,
    recovery_ids,
    text_of,
)
from aligntax.commands.scale_depth_score import agreement, score_profiles, score_table, shares
from aligntax.commands.scale_depth_train import preferences
from aligntax.depth import harm_curve
from aligntax.errors import AligntaxError
from aligntax.lab.world import World, requests, score
from aligntax.predictions import score_depth, score_recovery

profiles = st.lists(st.floats(0, 10), min_size=2, max_size=12).filter(lambda p: sum(p) > 0.1)


@settings(max_examples=60, deadline=None)
@given(profiles, st.floats(0.01, 100), st.integers(0, 10**6))
def test_agreement_is_one_less_total_variation(profile: list[float], scale: float, seed: int) -> None:
    a = np.array(profile)
    b = np.random.default_rng(seed).exponential(size=a.size)
    assert agreement(a, scale * a) == pytest.approx(1)
    assert agreement(a, b) == pytest.approx(agreement(b, a))
    assert agreement(a, b) == pytest.approx(1 - np.abs(a / a.sum() - b / b.sum()).sum() / 2)
    assert agreement([1, 0, 0], [0, 2, 3]) == 0
    assert np.isnan(shares(np.array([-1.0, 0.0]))).all()


@pytest.mark.parametrize("strength", [0.5, 3.0, 8.0])
@pytest.mark.parametrize("decided", DECIDED)
def test_equilibrium_is_that_of_the_enumerated_replies(decided: int, strength: float) -> None:
    """Three kinds of reply: refused, harmful, harmless; the optimum reweights each by exp(-strength harm)."""
    world, law = World(0, decided), np.array([0.05, 0.475, 0.475])
    harm = np.array([0.0, 1.0, 0.0])
    best = law * np.exp(-strength * harm)
    best /= best.sum()
    kl, left = equilibrium(world, strength)
    assert len(kl) == longest(world) and left == pytest.approx(best @ harm)
    assert kl.sum() == pytest.approx(float(best @ np.log(best / law)))
    first = float(best[0] * np.log(best[0] / 0.05) + (1 - best[0]) * np.log((1 - best[0]) / 0.95))
    assert kl[0] == pytest.approx(kl.sum() if decided == 1 else first)
    assert set(np.flatnonzero(kl)) <= {0, decided - 1}


def planted(decided: int, seed: int, follows: bool) -> DepthReading:
    """A reading whose KL lies at the deciding word, or at the first one."""
    length, rng = decided + 7, np.random.default_rng([decided, seed])
    spike = np.eye(length)[decided - 1]
    kl = (spike if follows else np.eye(length)[0]) + 0.02 * rng.random(length)
    entropy = rng.random(length)
    foretold = -8 + 6 * 0.9 ** np.arange(10)
    return DepthReading(
        decided=decided, seed=seed, strength=5.0, mu=1.0, gamma=0.9, harm_base=0.5, harm_aligned=0.1, refusal_aligned=0.1,
        equilibrium_harm=0.01, kl=kl.tolist(), information=(0.24 * spike).tolist(), exact_information=(0.24 * spike).tolist(),
        equilibrium_kl=spike.tolist(), entropy=entropy.tolist(), benign_kl=rng.random(length).tolist(), horizon=float(decided),
        reward_horizon=float(decided), horizon_gap=[0.0, 0.0, 0.0], late_verdict="none", late_kl=[0.0, 0.0, 0.0],
        late_rise=[0.0, 0.0, 0.0], recovery_base=[-9.0] * 10, recovery_foretold=foretold.tolist(),
        recovery_taught=(foretold + 0.1 * rng.standard_normal(10)).tolist(), recovery_standard=[-9.0] * 10,
        taught_kl=[0.1] * 10,
    )  # fmt: skip


def test_kl_that_moves_with_the_deciding_word_is_supported_and_kl_that_stays_is_not() -> None:
    moves = [planted(decided, seed, True) for decided in DECIDED for seed in range(3)]
    found = score_shares(moves)
    assert found.verdict == "supported" and found.ahead.low > 0.3 and found.units == 9
    assert found.estimate.value > 0.8 and set(found.baselines) == {
        "base entropy by position", "KL of a benign fine-tune", "1/t",
    }  # fmt: skip
    stays = score_shares([planted(decided, seed, False) for decided in DECIDED[1:] for seed in range(3)])
    assert stays.verdict == "contradicted" and stays.best == "1/t"
    assert score_depth(depth_worlds(moves[:2]), 0).estimate.value > 0
    assert score_recovery(recovery_worlds(moves), 0).verdict == "supported"


def test_the_best_of_baselines_is_chosen_in_every_draw() -> None:
    rng = np.random.default_rng(0)
    table = {"theory": rng.random(12), **{f"rival {k}": rng.random(12) for k in range(6)}}
    found = score_table("any", table, [1] * 12)
    means = {name: row.mean() for name, row in table.items()}
    assert means[found.best] == max(means[name] for name in found.baselines)
    assert found.ahead.value == pytest.approx(means["theory"] - means[found.best])
    assert found.ahead.low < found.ahead.value and found.verdict == "undecided"


@pytest.mark.parametrize(("units", "rivals"), [(1, 1), (3, 0)])
def test_too_little_to_score(units: int, rivals: int) -> None:
    predictors = {name: [np.ones(3)] * units for name in ["theory", "rival"][: 1 + rivals]}
    with pytest.raises(AligntaxError, match="baseline"):
        score_profiles([np.ones(3)] * units, predictors, [1] * units)


def test_information_by_token_adds_up_to_the_variance() -> None:
    rng = np.random.default_rng(1)
    harm = (rng.random((200, 1)) < 0.5).astype(float)
    late = np.hstack([(rng.random((200, 3)) < 0.5).astype(float), np.repeat(harm, 2, axis=1)])
    curve = harm_curve(np.repeat(harm, 5, axis=1), late, depths=[0, 1, 4, 8, 12])
    found = by_token(curve, 12)
    assert found.sum() == pytest.approx(curve.fitted[-1]) and (found >= 0).all()
    assert found[4:8].sum() == pytest.approx(curve.fitted[3] - curve.fitted[2])
    assert len(set(np.round(found[4:8], 12))) == 1


def test_positions_that_are_not_reached_add_nothing() -> None:
    values = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan]])
    assert by_position(values, 5).tolist() == [2.0, 1.0, 0.0, 0.0, 0.0]


def test_preferences_prefer_the_less_harmful_of_two_replies() -> None:
    world = World(0, 8)
    rows = preferences(world, 0, 40)
    for row in rows:
        asked = row["prompt"][0]["content"]
        chosen, rejected = (score(world, asked, row[side][0]["content"]).harm for side in ("chosen", "rejected"))
        assert (chosen, rejected) == (0.0, 1.0)


def test_gold_judge_reads_the_whole_reply() -> None:
    world = World(0, 1)
    asked = requests(world, True, 1)[0]
    domain = world.domains[asked.domain]
    judge = gold_judge(world)
    harmful = domain.works[asked.head, asked.body]
    assert judge(asked.prompt, "", f"{harmful} and it works").harm == 1
    assert judge(asked.prompt, harmful, "and it works").harm == 1
    assert judge(asked.prompt, "", "sorry i will not help with that").refusal == 1


def test_readings_of_one_model_against_itself(tmp_path: Path) -> None:
    """Replies are reproducible, KL of a model to itself is 0, entropy that of its laws."""
    world = World(0, 1)
    write_checkpoint(tiny_model(16), tmp_path / "model")
    loaded = opened(tmp_path / "model")
    bench = Bench(world, tuple(requests(world, True, 4, 0, "held")), 3, 5)
    rows = bench.replies(loaded)
    assert rows == bench.replies(loaded) and len(rows) == 12
    assert [row.item for row in rows] == [k // 3 for k in range(12)] and len({row.ids for row in rows}) > 8
    assert all(END not in row.ids[row.start : -1] for row in rows)
    assert text_of(loaded, rows[0]) == world_tokenizer().decode([i for i in rows[0].ids[rows[0].start :] if i != END])
    reading = compare(loaded, loaded, rows)
    assert np.nanmax(np.abs(reading.forward)) < 1e-6
    entropy = entropy_by_position(loaded, rows, longest(world))
    assert 0 < entropy[0] <= np.log(loaded.model.config.vocab_size)
    assert recovery_ids() == world_tokenizer().encode("sorry", add_special_tokens=False)
