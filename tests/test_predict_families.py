"""P2, P3, P4, the rule of verdicts and the protocols themselves."""

import dataclasses

import numpy as np
import pytest
from conftest import build_model, build_tokenizer

from aligntax.cli import main
from aligntax.geometry import effective_correlation
from aligntax.predictions import (
    PROTOCOLS,
    ConflictGroups,
    MergedPair,
    decide,
    merged_pair,
    score_averaging,
    score_conflict,
    score_scaling,
)
from aligntax.predictions.conflict_scores import gains
from aligntax.predictions.family_scores import above
from aligntax.results import read_prediction
from aligntax.results.merge import LayerGeometry, Merge, MergedModel, MergePick, MergePoint, MergeProvenance
from aligntax.results.scale import Scale, ScalePoint, ScaleProvenance, ScaleRow, ScaleSource
from aligntax.stats import Estimate


def test_every_protocol_has_a_hash_that_its_rule_changes():
    assert list(PROTOCOLS) == [f"P{k}" for k in range(1, 8)]
    hashes = {p.sha256 for p in PROTOCOLS.values()}
    assert len(hashes) == 7
    for protocol in PROTOCOLS.values():
        assert dataclasses.replace(protocol, rule="another").sha256 not in hashes
        assert protocol.baselines and protocol.measure and protocol.sha256 == protocol.sha256


ENOUGH = {"tasks": 50, "recipes": 8, "families": 20}


@pytest.mark.parametrize(
    ("estimate", "ahead", "p", "n", "verdict"),
    [
        ((0.3, 0.9), (0.1, 0.4), 0.01, ENOUGH, "supported"),
        ((0.3, 0.9), (0.1, 0.4), 0.2, ENOUGH, "undecided"),
        ((0.3, 0.9), (-0.1, 0.4), 0.01, ENOUGH, "undecided"),
        ((-0.1, 0.9), (0.1, 0.4), 0.01, ENOUGH, "undecided"),
        ((0.3, 0.9), (-0.4, -0.1), 0.01, ENOUGH, "contradicted"),
        ((-0.9, -0.3), (-0.4, 0.1), 0.9, ENOUGH, "contradicted"),
        ((0.3, 0.9), (0.1, 0.4), 0.01, ENOUGH | {"recipes": 5}, "undecided"),
        ((-0.9, -0.3), (-0.4, -0.1), 0.9, ENOUGH | {"tasks": 39}, "undecided"),
        ((np.nan, np.nan), (np.nan, np.nan), np.nan, ENOUGH, "undecided"),
    ],
)
def test_the_rule_of_verdicts(estimate, ahead, p, n, verdict):
    both = (Estimate(float(np.mean(x)), *x, 0.1) for x in (estimate, ahead))
    found, why = decide(PROTOCOLS["P1"], *both, p, n)
    assert found == verdict and why


def family(plateaus, taxes):
    sources = [ScaleSource(f"w{d}", "", "m", d, 2, 4, 2, "quick", None, 0.9, 64) for d in (24, 48, 96, 192)]
    rows = []
    for name, t in plateaus.items():
        points = [ScalePoint(d, 1, t + taxes[name] / d, 0.01) for d in (24, 48, 96, 192)]
        rows.append(
            ScaleRow(name, points, t, t - 0.01, t + 0.01, taxes[name], 0.0, 1.0, "intrinsic" if t > 0.1 else "incidental", "", "",
                     0.01, 1.0, None, None, [])
        )  # fmt: skip
    return Scale("gradient", "gradient", 0.6, sources, rows, None, ScaleProvenance("0", "", "", 0, 0.95, "", 0.0, {}))


def test_plateaus_that_tell_intrinsic_tasks_apart():
    rng = np.random.default_rng(0)
    names = [f"t{k}" for k in range(14)]
    plateaus = {name: (0.3 if k < 5 else 0.0) + 0.01 * rng.random() for k, name in enumerate(names)}
    slopes = {name: (0.5 if k < 5 else 14 + 14 * rng.random()) for k, name in enumerate(names)}
    found = score_scaling(family(plateaus, slopes), names[:5], 0)
    assert found.estimate.value == 1.0 and found.n == {"widths": 4, "intrinsic tasks": 5, "incidental tasks": 9}
    assert found.p_value < 0.01 and not found.negatives
    back = score_scaling(family(plateaus, slopes), names[5:9], 0)
    assert back.estimate.value < 0.5 and back.verdict != "supported" and back.negatives


def test_scaling_without_a_family_or_labels_is_undecided():
    assert score_scaling(None, ("a",), 0).verdict == "undecided"
    plain = family({"a": 0.2, "b": 0.1}, {"a": 1.0, "b": 1.0})
    assert "intrinsic tasks" in score_scaling(plain, (), 0).reason


def test_above_counts_ties_half():
    assert above(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, False])) == pytest.approx((1 + 0.5) / 3)


def pairs(rng, count, noise):
    predicted = 1 + rng.random(count)
    return [
        MergedPair(f"p{k}", x, x + noise * rng.standard_normal(), rng.random(), rng.random())
        for k, x in enumerate(predicted)
    ]


def test_averaging_needs_eight_pairs_and_then_speaks():
    rng = np.random.default_rng(1)
    assert score_averaging(pairs(rng, 7, 0.0), 0).verdict == "undecided"
    assert "7 aligned pairs of at least 8" in score_averaging(pairs(rng, 7, 0.0), 0).reason
    found = score_averaging(pairs(rng, 16, 0.05), 0)
    assert found.verdict == "supported" and found.estimate.low > 0.7
    assert score_averaging(pairs(rng, 16, 9.0), 0).verdict != "supported"


def point(scheme, fraction, gain, split="test"):
    return MergePoint(scheme, fraction, [], split, 0.0, gain, None, None, -0.1, None, None, {}, None)


def merge(points, geometry=True):
    model = MergedModel("x", "x", None, None, "0")
    provenance = MergeProvenance(
        "0", "", "", model, dataclasses.replace(model, name="sft"), None, "", "", 0, {}, {}, 0.0, {}
    )
    found = LayerGeometry([1.0, 3.0], [1.0, 1.0], 1.2, 1.0) if geometry else None
    return Merge("per-layer", 0.5, [], 0.5, [], {}, [], "", MergePick("given", None, "x", 0.5, "test", None, None), points, found,
                 None, "", provenance)  # fmt: skip


def test_a_merge_gives_its_ratio_near_a_half_on_test_items():
    scored = [
        point("uniform", 0.25, 9.0),
        point("uniform", 0.5, 2.0),
        point("surveyed", 0.5, 3.0),
        point("surveyed", 0.25, 1.0),
    ]
    found = merged_pair(merge(scored))
    assert (found.name, found.predicted, found.measured, found.spread) == ("sft", 1.2, 1.5, 0.5)
    assert merged_pair(merge(scored, geometry=False)) is None
    assert merged_pair(merge([point("uniform", 0.5, -1.0), point("surveyed", 0.5, 3.0)])) is None
    assert (
        merged_pair(merge([point("uniform", 0.5, 2.0, "validation"), point("surveyed", 0.5, 3.0, "validation")]))
        is None
    )


def conflict(rng, planted, noise=0.3, tasks=8, layers=4, d=40):
    """Two objectives in conflict over one direction; task 0 is that direction where `planted`."""
    common = rng.standard_normal((layers, d))
    first = rng.standard_normal((layers, d)) + 1.5 * common
    second = rng.standard_normal((layers, d)) - 1.5 * common
    rows = rng.standard_normal((tasks, layers, d))
    if planted:
        rows[0] = common + 0.3 * rng.standard_normal((layers, d))

    def groups(x):
        return x[..., None, :, :] + noise * rng.standard_normal((*x.shape[:-2], 8, layers, d))

    return ConflictGroups(groups(first), groups(second), groups(rows), tuple(f"t{k}" for k in range(tasks)))


def test_one_task_held_is_the_partial_correlation():
    rng = np.random.default_rng(2)
    v, w, u = rng.standard_normal(12), rng.standard_normal(12), rng.standard_normal((3, 12))
    rho = effective_correlation(v, w, np.zeros((0, 12)))
    expected = [effective_correlation(v, w, u[[k]]) - rho for k in range(3)]
    assert np.allclose(gains(v, w, u)[0], expected)


def test_holding_the_shared_direction_eases_the_conflict():
    found = score_conflict(conflict(np.random.default_rng(3), True))
    assert found.verdict == "supported" and found.estimate.low > 0.1
    assert all(row["named"] == "t0" and row["absolute loss"] >= 0 for row in found.tables["all groups"])


def test_where_no_task_shares_the_conflict_none_is_claimed():
    verdicts = [
        score_conflict(conflict(np.random.default_rng([4, k]), False, noise=6.0, d=12)).verdict for k in range(8)
    ]
    assert verdicts.count("supported") <= 1


def test_the_commands_without_models(tmp_path, capsys):
    for name in ("P2", "P3"):
        assert main(["predict", name, "--out", str(tmp_path)]) == 0
        found = read_prediction(tmp_path, name)
        assert found.verdict == "undecided" and found.estimate is None and "too few to decide" in found.reason
    for name in PROTOCOLS:
        if name != "P1":
            assert main(["predict", name, "--plan", "--out", str(tmp_path / "none")]) == 0
    assert not (tmp_path / "none").exists()
    assert PROTOCOLS["P7"].sha256 in capsys.readouterr().out
    assert main(["predict", "P2", "--inputs", str(tmp_path / "absent"), "--quiet"]) == 2
    (tmp_path / "P3.json").unlink()
    assert main([str(tmp_path / "run.yaml")]) == 0 and (tmp_path / "P3.json").exists()  # the record replays


def test_p4_on_a_tiny_model(tmp_path):
    build_model("llama").save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    words = [
        "predict",
        "P4",
        "--model",
        str(tmp_path / "model"),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--quiet",
    ]
    assert main(words) == 0
    found = read_prediction(tmp_path / "out", "P4")
    assert found.n["groups"] == 8 and found.n["tasks"] == 14 and found.estimate is not None
    assert found.provenance.tokens > 0
