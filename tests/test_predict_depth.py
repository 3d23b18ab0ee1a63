"""P5, P6 and P7: planted worlds get the verdict they deserve, and the trained ones are what they claim to be."""

import dataclasses
import json

import numpy as np
import pytest

from aligntax.cli import main
from aligntax.errors import AligntaxError
from aligntax.lab import TabularPolicy
from aligntax.predictions import (
    PROTOCOLS,
    AttackWorld,
    DepthWorld,
    RecoveryWorld,
    make_depth_worlds,
    score_attacks,
    score_depth,
    score_recovery,
)
from aligntax.predictions.depth_worlds import (
    attack_world,
    depth_world,
    entropies,
    graded_harm,
    prefilled_harm,
    recovery_world,
    sampled_prefixes,
)
from aligntax.results import read_prediction


def quick(name, **changed):
    protocol = PROTOCOLS[name]
    new = {"draws": 200} | changed
    return dataclasses.replace(protocol, settings=tuple((k, new.get(k, v)) for k, v in protocol.settings))


def planted_depth(follow, rng, positions=9):
    found = []
    for k in range(12):
        information = rng.gamma(0.5, size=positions)
        kl = {"information": information, "entropy": None, "none": rng.gamma(0.5, size=positions)}[follow]
        entropy = rng.random(positions)
        kl = entropy if kl is None else kl
        noisy = kl * np.exp(0.2 * rng.standard_normal(positions))
        found.append(DepthWorld(f"w{k}", (2, 5, 8)[k % 3], noisy, information, entropy, rng.random(positions)))
    return found


def test_kl_that_follows_harm_information_is_supported():
    found = score_depth(planted_depth("information", np.random.default_rng(0)), 0, quick("P5"))
    assert found.verdict == "supported" and found.estimate.low > 0.6 and found.p_value < 0.01


def test_kl_that_follows_entropy_contradicts():
    found = score_depth(planted_depth("entropy", np.random.default_rng(1)), 0, quick("P5"))
    assert found.verdict == "contradicted" and found.baselines["base entropy by position"].value > 0.6


def test_kl_that_follows_nothing_is_not_supported():
    verdicts = [
        score_depth(planted_depth("none", np.random.default_rng([2, k])), k, quick("P5")).verdict for k in range(10)
    ]
    assert "supported" not in verdicts


def test_too_few_worlds_stay_undecided():
    worlds = planted_depth("information", np.random.default_rng(3))
    found = score_depth(worlds[:4], 0, quick("P5"))
    assert found.verdict == "undecided" and "4 worlds of at least 6" in found.reason
    assert score_depth(worlds[:1], 0, quick("P5")).verdict == "undecided"


def test_a_depth_world_decides_where_it_says():
    for deciding in (2, 4):
        world = depth_world(deciding, 7, (3, 5), 8, 2.0)
        assert world.information[deciding:].max() < 1e-12 < world.information[deciding - 1]
        assert (world.kl >= 0).all() and world.kl.sum() > 1e-4
        assert (world.entropy <= np.log(3) + 1e-12).all()


def test_harm_of_a_world_is_graded_and_uses_two_positions():
    policy = TabularPolicy.random(3, 4, np.random.default_rng(4))
    harm = graded_harm(policy, np.array([0.3, 1.0, 0.0, 0.0]), np.random.default_rng(5))
    table = harm.reshape(3, 3, 9)
    assert harm.min() >= 0 and harm.max() <= 1
    assert np.ptp(table, axis=2).max() < 1e-12
    assert np.ptp(table, axis=1).max() > 0.1 and np.ptp(table, axis=0).max() > 0.05


def test_entropy_by_position_is_that_of_the_leaves():
    policy = TabularPolicy.random(3, 4, np.random.default_rng(6))
    logs = policy.leaf_log_probabilities()
    assert entropies(policy).sum() == pytest.approx(float(-(np.exp(logs) @ logs)))


def test_prefilled_harm_ends_at_the_attackers_own():
    base = TabularPolicy.random(2, 5, np.random.default_rng(7))
    harm = np.random.default_rng(8).random(32)
    reached = prefilled_harm(base, base, harm)
    p = np.exp(base.leaf_log_probabilities())
    assert reached[0] == pytest.approx(float(p @ harm))
    assert reached[-1] == pytest.approx(float(p @ harm**2 / (p @ harm)))
    assert (np.diff(reached) >= -1e-12).all()  # what is already harmful only grows more so under its own base


def test_batches_of_prefixes_are_shares_of_responses():
    policy = TabularPolicy.random(3, 4, np.random.default_rng(9))
    found = sampled_prefixes(policy, 4000, np.random.default_rng(10))
    for share, truth in zip(found, policy.prefix_probabilities(), strict=False):
        assert share.sum() == pytest.approx(1.0) and np.abs(share - truth).max() < 0.04


def recovery(rng, kind):
    depth = np.arange(3, 9)
    worlds = []
    for k in range(8):
        base = np.full(6, -4.0)
        rise = {"law": 3.0 * 0.8**depth, "flat": np.full(6, 1.5), "none": np.zeros(6)}[kind]
        trained = base + rise + 0.1 * rng.standard_normal(6)
        worlds.append(RecoveryWorld(f"w{k}", base, trained, base + 3.0 * 0.8**depth))
    return worlds


@pytest.mark.parametrize(
    ("kind", "verdict"), [("law", "supported"), ("flat", "contradicted"), ("none", "contradicted")]
)
def test_recovery_by_depth_is_scored_against_a_flat_rise(kind, verdict):
    found = score_recovery(recovery(np.random.default_rng(11), kind), 0, quick("P6"))
    assert found.verdict == verdict
    if kind == "law":
        assert (
            found.estimate.value > 0.7 and found.baselines["base recovery plus the mean rise over depths"].value == 0.0
        )


def test_training_on_sampled_prefixes_comes_near_the_closed_form():
    world = recovery_world(0.1, 5, (3, 5, 2), (2.0, 0.9), (4, 300))
    assert np.abs(world.trained - world.foretold).max() < 0.35
    assert np.abs(world.trained - world.base).min() > 0.8
    assert world.foretold[0] - world.base[0] == pytest.approx(2.0 * 0.9**3)


def attacks(rng, gain):
    return [
        AttackWorld(
            f"w{k}", np.concatenate([[0.2, 0.4], 0.5 + gain * np.linspace(0, 1, 6) + 0.01 * rng.standard_normal(6)]), 2
        )
        for k in range(14)
    ]


@pytest.mark.parametrize(("gain", "verdict"), [(0.0, "supported"), (0.4, "contradicted"), (0.08, "undecided")])
def test_an_equal_attack_is_shown_equal_and_not_merely_not_different(gain, verdict):
    worlds = attacks(np.random.default_rng(12), gain)
    if verdict == "undecided":  # near the margin
        rng = np.random.default_rng(15)
        worlds = [dataclasses.replace(w, reached=w.reached + 0.2 * rng.standard_normal(8)) for w in worlds]
    found = score_attacks(worlds, 0)
    assert found.verdict == verdict
    assert ("a longer prefill gains more" in " ".join(found.negatives)) == (verdict != "supported")


def test_few_noisy_worlds_never_show_equality():
    rng = np.random.default_rng(13)
    worlds = [dataclasses.replace(w, reached=w.reached + 0.3 * rng.standard_normal(8)) for w in attacks(rng, 0.0)]
    assert score_attacks(worlds, 0).verdict == "undecided"
    assert score_attacks(worlds[:3], 0).verdict == "undecided"


def test_an_attack_world_has_its_horizon():
    world = attack_world(0.3, 3, (3, 5), (8, 2.0, 0.95))
    assert world.horizon <= 3 and world.reached.shape == (6,)
    assert world.reached[-1] == world.reached.max() > world.reached[0]


def test_worlds_are_those_of_the_protocol_and_the_seed():
    small = quick("P5", length=4, **{"deciding positions": "2", "worlds a position": 2, "shared parameters": 4})
    kept = {}

    def keep(name, make):
        kept[name] = kept.get(name) or make()
        return kept[name]

    first, second = make_depth_worlds(0, keep, small), make_depth_worlds(0, protocol=small)
    assert [w.name for w in first] == list(kept) and len(kept) == 2
    kept["decided at 2, seed 1"] = {key: value + 1 for key, value in kept["decided at 2, seed 1"].items()}
    assert np.array_equal(make_depth_worlds(0, keep, small)[1].kl, second[1].kl + 1)  # what was kept is not made again
    assert all(np.array_equal(a.kl, b.kl) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0].kl, first[1].kl)


def test_worlds_measured_elsewhere_are_read_and_scored(tmp_path, capsys):
    worlds = planted_depth("information", np.random.default_rng(14))
    rows = [
        {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in dataclasses.asdict(w).items()} for w in worlds
    ]
    (tmp_path / "worlds.json").write_text(json.dumps(rows))
    assert main(["predict", "P5", "--inputs", str(tmp_path / "worlds.json"), "--out", str(tmp_path / "out")]) == 0
    found = read_prediction(tmp_path / "out", "P5")
    assert found.verdict == "supported" and list(found.provenance.data) == ["worlds.json"]
    assert found.provenance.protocol_sha256 == PROTOCOLS["P5"].sha256
    text = capsys.readouterr().out
    assert "Verdict: supported" in text and "Next: aligntax predict" in text and "P5.json" in text
    rows[0]["kl"] = rows[0]["kl"][:-1]
    (tmp_path / "worlds.json").write_text(json.dumps(rows))
    assert main(["predict", "P5", "--inputs", str(tmp_path / "worlds.json"), "--quiet"]) == 2
    assert "w0" in capsys.readouterr().err
    (tmp_path / "worlds.json").write_text("{}")
    assert main(["predict", "P5", "--inputs", str(tmp_path / "none.json"), "--quiet"]) == 2
    with pytest.raises(AligntaxError, match="JSON list"):
        from aligntax.commands.predict import read_worlds

        (tmp_path / "worlds.json").write_text("[1]")
        read_worlds(tmp_path / "worlds.json")
