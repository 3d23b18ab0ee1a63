"""Choice: a weighted one is never dominated, a constrained one reaches where weights cannot."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.errors import DataError
from aligntax.stats import constrained_choice, hypervolume, pareto_set, weighted_choice

SETS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8)


@settings(deadline=None)
@given(SETS, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_a_choice_is_never_dominated(points: list[tuple[int, int]], weight: float) -> None:
    scores = np.array(points, dtype=float)
    front = pareto_set(scores).tolist()
    chosen = weighted_choice(scores[:, 0], scores[:, 1], weight)
    assert chosen in front
    assert all(
        weight * c + (1 - weight) * a <= weight * scores[chosen, 0] + (1 - weight) * scores[chosen, 1]
        for c, a in points
    )
    enough = scores[:, 1] >= scores[:, 1].max() - 1
    picked = constrained_choice(scores[:, 0], scores[:, 1], scores[:, 1].max() - 1)
    assert picked in front and scores[picked, 0] == scores[enough, 0].max()


@settings(deadline=None)
@given(SETS)
def test_dominated_candidates_add_no_volume(points: list[tuple[int, int]]) -> None:
    scores = np.array(points, dtype=float)
    volume = hypervolume(scores, [0, 0])
    assert hypervolume(scores[pareto_set(scores)], [0, 0]) == pytest.approx(volume)
    cells = sum(any(c > x and a > y for c, a in points) for x in range(4) for y in range(4))
    assert volume == pytest.approx(cells)  # unit squares counted one by one


def test_below_the_hull_only_a_constraint_reaches() -> None:
    capability, alignment = [1.0, 0.4, 0.0], [0.0, 0.4, 1.0]
    assert pareto_set(np.transpose([capability, alignment])).tolist() == [0, 1, 2]
    assert 1 not in {weighted_choice(capability, alignment, w) for w in np.linspace(0, 1, 101)}
    assert constrained_choice(capability, alignment, 0.3) == 1


def test_ties_and_equals() -> None:
    assert weighted_choice([1, 1], [0, 5], 1.0) == 1
    assert constrained_choice([1, 1, 1], [2, 3, 3], 2) == 1
    assert pareto_set([[1, 2], [1, 2], [1, 1]]).tolist() == [0, 1]


def test_a_candidate_below_the_reference_adds_nothing() -> None:
    assert hypervolume([[5.0, -1.0]], [0, 0]) == 0
    assert hypervolume([[5.0, -1.0], [1.0, 1.0]], [0, 0]) == 1
    assert hypervolume([[1.0, 2.0, 3.0]], [0, 0, 1]) == 4


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: weighted_choice([1.0], [1.0], 1.5), r"weight=1\.5"),
        (lambda: weighted_choice([1.0, 2.0], [1.0], 0.5), r"alignment \(1,\)"),
        (lambda: weighted_choice([], [], 0.5), r"scores \(0, 2\)"),
        (lambda: weighted_choice([1.0, np.nan], [1.0, 2.0], 0.5), r"candidate 1 has scores \[nan, 2\.0\]"),
        (lambda: constrained_choice([1.0, 2.0], [0.3, 0.4], 0.9), r"minimum=0\.9 .* has 0\.4"),
        (lambda: pareto_set([1.0, 2.0]), r"scores \(2,\)"),
        (lambda: hypervolume([[1.0, 2.0]], [0.0]), r"reference \[0\.0\]"),
    ],
)
def test_bad_input_is_named(call, says) -> None:
    with pytest.raises(DataError, match=says):
        call()
