"""Rollouts of exact worlds, and the two rivals of the harm curve: biased, by exactly what is predicted."""

import math
from typing import Any

import numpy as np
import pytest

from aligntax.depth import harm_curve
from aligntax.errors import LabError
from aligntax.lab import (
    TabularPolicy,
    debiased_curve,
    exact_curve,
    plug_in_bias,
    plug_in_curve,
    pooled_bias,
    pooled_curve,
    sample_rollouts,
)
from aligntax.lab.oracles import depth as oracle

V, T = 3, 4
DEPTHS = [0, 1, 2, 4]
SEEDS = 200


def worlds() -> list[tuple[TabularPolicy, np.ndarray]]:
    """Four prompts, harm from rare to common, decided by two tokens."""
    rng = np.random.default_rng(0)
    return [(TabularPolicy.random(V, T, rng), np.repeat(rng.random(9) ** power, 9)) for power in (4.0, 1.5, 0.5, 0.1)]


def deviations(estimate: Any, continuations: int, rows: int = 6) -> np.ndarray:
    """Estimates less the truth, one row a seed."""
    chosen = worlds()
    truth = exact_curve(chosen, DEPTHS)
    found = [
        estimate(sample_rollouts(chosen, DEPTHS, rows, np.random.default_rng([1, seed]), continuations))
        for seed in range(SEEDS)
    ]
    return np.array(found) - truth


def z_scores(errors: np.ndarray) -> np.ndarray:
    return np.abs(errors.mean(axis=0)) / (errors.std(axis=0, ddof=1) / math.sqrt(len(errors)))


def test_the_truth_is_that_of_listed_sequences() -> None:
    listed = [
        np.cumsum(oracle.information_by_variances(oracle.sequence_probabilities(p.logits), h, V, T))
        for p, h in worlds()
    ]
    assert exact_curve(worlds(), [0, 1, 2, 3, 4]) == pytest.approx([0.0, *np.mean(listed, axis=0)], abs=1e-12)


@pytest.mark.parametrize("continuations", [2, 4])
def test_plug_in_means_are_biased_as_predicted(continuations: int) -> None:
    bias = plug_in_bias(worlds(), DEPTHS, continuations)
    errors = deviations(plug_in_curve, continuations)
    assert (z_scores(errors - bias) < 3.5).all()
    assert (z_scores(errors)[:2] > 5).all()  # and that is no small thing before the horizon
    noise = [np.mean([p.expect(h * h)[t] @ p.prefix_probabilities()[t] for p, h in worlds()]) for t in DEPTHS]
    seen = [np.mean([p.prefix_probabilities()[t] @ p.expect(h)[t] ** 2 for p, h in worlds()]) for t in DEPTHS]
    assert bias == pytest.approx((np.array(noise) - np.array(seen)) / continuations, abs=1e-12)
    assert bias[2:] == pytest.approx([0.0, 0.0], abs=1e-15)
    assert (z_scores(deviations(debiased_curve, continuations)) < 3.5).all()


def test_pooled_prompts_are_biased_by_the_variance_between_them() -> None:
    bias = pooled_bias(worlds(), 6)
    levels = [float(oracle.sequence_probabilities(p.logits) @ h) for p, h in worlds()]
    assert bias == pytest.approx(24 / 23 * np.var(levels)) and bias > 0.05
    errors = deviations(pooled_curve, 2)
    assert (z_scores(errors - bias) < 3.5).all() and (z_scores(errors) > 5).all()


def test_the_harm_curve_has_neither_bias() -> None:
    errors = deviations(lambda x: harm_curve(x.first, x.second, x.prompts, depths=DEPTHS).variance, 2)
    assert (z_scores(errors[:, 1:]) < 3.0).all()


def test_shapes_and_tokens() -> None:
    chosen = worlds()
    drawn = sample_rollouts(chosen, DEPTHS, 5, np.random.default_rng(2), 3)
    assert drawn.harm.shape == (20, 4, 3) and drawn.prompts.tolist() == np.repeat(range(4), 5).tolist()
    assert drawn.tokens == 20 * (4 + 2 * (4 + 3 + 2 + 0))
    assert (drawn.first == drawn.first[:, :1]).all()  # one response, first continuation of all its prefixes
    assert (drawn.first[:, 2:] == drawn.second[:, 2:]).all()  # settled harm is the same in every continuation
    again = sample_rollouts(chosen, DEPTHS, 5, np.random.default_rng(2), 3)
    assert (again.harm == drawn.harm).all()


def test_continuations_are_independent_given_the_prefix() -> None:
    chosen = worlds()[1:2]
    drawn = sample_rollouts(chosen, [0, 1], 20_000, np.random.default_rng(3))
    joint = (drawn.first * drawn.second).mean(axis=0)
    policy, harm = chosen[0]
    wanted = [policy.prefix_probabilities()[t] @ policy.expect(harm)[t] ** 2 for t in (0, 1)]
    assert joint == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"worlds": []}, "no worlds"),
        ({"depths": [0]}, r"depths \[0\]"),
        ({"depths": [1, 2]}, r"depths \[1, 2\]"),
        ({"depths": [0, 5]}, "at most 4"),
        ({"depths": [0, 2, 2]}, r"\[0, 2, 2\]"),
        ({"rows": 0}, "rows=0"),
        ({"continuations": 1}, "continuations=1"),
        ({"worlds": [(TabularPolicy([[[0.0, 0.0]]]), [0.0, 3.0])], "depths": [0, 1]}, r"harm is 3\.0"),
        ({"worlds": [*worlds(), (TabularPolicy([[[0.0, 0.0]]]), [0.0, 1.0])]}, r"\[1, 4\] tokens"),
    ],
)
def test_bad_input_is_repeated(change: dict[str, Any], said: str) -> None:
    call = {"worlds": worlds(), "depths": DEPTHS, "rows": 2, "rng": np.random.default_rng(0)} | change
    with pytest.raises(LabError, match=said):
        sample_rollouts(**call)
