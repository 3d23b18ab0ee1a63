"""The survey's conflict rows: planted objectives, intervals, undefined pairs that keep their row, and the report's table."""

from dataclasses import replace

import numpy as np
import pytest
from survey_example import example_survey

from aligntax.commands.analysis import Evidence
from aligntax.commands.conflicts import conflict_rows, joint_conflict
from aligntax.geometry import directions_with, equal_gain, preservation_effect
from aligntax.probing import Sinks
from aligntax.report.appendix import conflict_table, joint_conflict_table
from aligntax.results import read_survey, write_json
from aligntax.stats import jackknife, jackknife_each

J, D, LENGTH = 8, 24, 2.5


def groups(rng: np.random.Generator, direction: np.ndarray, noise: float) -> np.ndarray:
    """Group means `(J, 1, d)` of a direction, one layer."""
    wide = np.zeros(D)
    wide[: direction.size] = direction
    return (wide + noise * rng.normal(size=(J, D)))[:, None]


def evidence(tasks: dict[str, np.ndarray]) -> Evidence:
    nothing = np.zeros((1, J, 1, D))
    return Evidence(
        np.ones((J, 1, D)), np.ones((J, 1, D)), tasks, tasks, nothing, np.ones((4, 1, D)), 1.0, Sinks(((),), (1.0,)),
        {0: LENGTH},
    )  # fmt: skip


def planted(noise: float, seed: int = 0) -> tuple[dict[str, np.ndarray], Evidence]:
    rng = np.random.default_rng(seed)
    v1, v2, rows = directions_with(-0.3, [0.5, 0.0], [-0.6, 0.1])
    objectives = {"one": groups(rng, v1, noise), "two": groups(rng, v2, noise)}
    return objectives, evidence({"apart": groups(rng, rows[0], noise), "beside": groups(rng, rows[1], noise)})


def test_numbers_are_those_of_the_geometry() -> None:
    objectives, seen = planted(0.02)
    (row,) = conflict_rows(objectives, seen, 0)
    pair = [g[:, 0].mean(0) for g in objectives.values()]
    caps = np.stack([g[:, 0].mean(0) for g in seen.tasks.values()])
    effect = preservation_effect(*pair, caps, LENGTH)
    assert (row.first, row.second, row.case) == ("one", "two", "conflict removed")
    assert row.rho_eff == pytest.approx(effect.rho_eff) and row.margin == pytest.approx(effect.margin)
    assert row.rho_plain == pytest.approx(effect.rho) and row.rho == pytest.approx(-0.3, abs=0.05)
    assert row.absolute_loss_per_decinat == pytest.approx(effect.absolute_loss)
    assert row.equal_absolute_gain_per_decinat == pytest.approx(equal_gain(pair, caps, LENGTH)[0])
    share = row.equal_normalised_gain
    assert row.gain_first_per_decinat == pytest.approx(LENGTH * np.sqrt(1 - row.tax_first) * share)
    assert row.gain_second_per_decinat == pytest.approx(LENGTH * np.sqrt(1 - row.tax_second) * share)
    assert row.frontier[0] == pytest.approx([row.rho_eff, 1]) and row.frontier[-1] == pytest.approx([1, row.rho_eff])
    assert any(abs(a - b) < 0.1 for a, b in row.frontier)
    assert "apart" in row.preserve and row.preserve_gain > 0.25 and row.preserve_gain_heldout > 0.2
    assert row.decided and row.note == ""


def test_intervals_hold_the_planted_values_and_noise_is_undecided() -> None:
    kept = []
    for seed in range(60):
        (row,) = conflict_rows(*planted(0.05, seed), 0)
        kept.append((row.tax_first_low <= 0.25 <= row.tax_first_high, row.margin_low < row.margin < row.margin_high))
    assert np.mean(kept, axis=0) == pytest.approx([0.9, 1.0], abs=0.1)
    rng = np.random.default_rng(1)
    empty = {name: groups(rng, np.zeros(1), 1.0) for name in ("one", "two")}
    undecided = [conflict_rows(empty, planted(1.0, seed)[1], 0)[0].decided for seed in range(20)]
    assert np.mean(undecided) <= 0.3


def test_a_pair_that_is_undefined_keeps_its_row_and_says_why() -> None:
    objectives, seen = planted(0.02)
    inside = {**objectives, "inside": seen.tasks["apart"] * 2, "nothing": np.zeros((J, 1, D))}
    rows = {(r.first, r.second): r for r in conflict_rows(inside, seen, 0)}
    assert len(rows) == 6
    spanned = rows["one", "inside"]
    assert spanned.case == "undefined" and "v2 lies inside the capability span" in spanned.note
    assert np.isnan(spanned.rho_eff) and np.isnan(spanned.margin) and spanned.frontier == []
    assert spanned.tax_second == pytest.approx(1) and spanned.equal_absolute_gain_per_decinat == 0
    missing = rows["one", "nothing"]
    assert missing.case == "undefined" and "v2 is the zero vector" in missing.note and np.isnan(missing.tax_first)
    assert rows["one", "two"].case == "conflict removed"


def test_no_task_with_a_direction_leaves_the_conflict_unchanged() -> None:
    objectives, seen = planted(0.02)
    still = {name: 0 * g for name, g in seen.tasks.items()}
    (row,) = conflict_rows(objectives, replace(seen, tasks=still), 0)
    assert row.case == "unchanged" and row.rho_eff == pytest.approx(row.rho_plain) and row.preserve == []


def test_three_objectives_are_shown_together() -> None:
    objectives, seen = planted(0.02)
    assert joint_conflict(objectives, seen, 0) is None
    rng = np.random.default_rng(5)
    three = {**objectives, "aside": groups(rng, np.eye(D)[6], 0.02)}
    joint = joint_conflict(three, seen, 0)
    means, caps = (np.stack([g[:, 0].mean(0) for g in d.values()]) for d in (three, seen.tasks))
    assert joint.objectives == ["one", "two", "aside"] and np.diag(joint.correlations) == pytest.approx(1)
    assert joint.equal_absolute_gain_per_decinat == pytest.approx(equal_gain(means, caps, LENGTH)[0])
    assert joint.equal_absolute_gain_low < joint.equal_absolute_gain_per_decinat < joint.equal_absolute_gain_high
    assert sum(joint.weights) == pytest.approx(1) and joint.absolute_loss_per_decinat >= 0
    spanned = joint_conflict({**three, "inside": seen.tasks["apart"]}, seen, 0)
    assert "inside the capability span" in spanned.note and np.isnan(spanned.equal_normalised_gain)


def test_file_and_report_carry_what_is_undefined(tmp_path) -> None:
    objectives, seen = planted(0.02)
    every = {**objectives, "inside": seen.tasks["apart"]}
    survey = replace(
        example_survey(), conflicts=conflict_rows(every, seen, 0), joint_conflict=joint_conflict(every, seen, 0)
    )
    write_json(tmp_path / "survey.json", survey)
    back = read_survey(tmp_path)
    assert back.conflicts[1].rho_eff is None and back.conflicts[1].note and not back.conflicts[1].decided
    rows = conflict_table(back).rows
    assert rows[0][12] == "conflict removed" and rows[0][13].startswith("apart")
    assert rows[1][12].startswith("undefined: v2 lies inside")
    assert len(conflict_table(back).columns) == len(rows[0])
    assert joint_conflict_table(back).rows[-1][0] == "Undefined because"
    assert joint_conflict_table(example_survey()) is None


def test_jackknife_of_several_numbers_is_the_jackknife_of_each() -> None:
    x = np.random.default_rng(0).normal(size=(9, 2))
    for k, found in enumerate(jackknife_each(lambda keep: x[keep].mean(0) ** 2, 9)):
        one = jackknife(lambda keep, k=k: x[keep].mean(0)[k] ** 2, 9)
        assert vars(found) == pytest.approx(vars(one))
