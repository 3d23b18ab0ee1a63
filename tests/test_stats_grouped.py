"""Grouped sums form a commutative monoid; partitions depend on keys alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.errors import AligntaxError, NonFiniteError
from aligntax.stats import GroupSums, group_of, split_hash

GROUPS, SHAPE = 4, (2, 3)


def _items(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, *SHAPE)) * 10.0 ** rng.integers(-3, 4), rng.integers(GROUPS, size=count)


def _gather(values: np.ndarray, groups: np.ndarray) -> GroupSums:
    return GroupSums.empty(GROUPS, SHAPE).update(values, groups)


def _assert_same(one: GroupSums, two: GroupSums) -> None:
    np.testing.assert_array_equal(one.counts, two.counts)
    np.testing.assert_allclose(one.sums, two.sums, rtol=1e-12, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(0, 30), cuts=st.lists(st.integers(0, 30), max_size=4))
def test_any_split_and_any_order_give_one_answer(seed: int, count: int, cuts: list[int]) -> None:
    values, groups = _items(seed, count)
    order = np.random.default_rng(seed + 1).permutation(count)
    parts = [_gather(values[p], groups[p]) for p in np.split(order, sorted(min(c, count) for c in cuts))]
    merged = GroupSums.empty(GROUPS, SHAPE)
    for part in reversed(parts):
        merged = merged.merge(part)
    chained = GroupSums.empty(GROUPS, SHAPE)
    for i in order:
        chained = chained.update(values[i : i + 1], groups[i : i + 1])
    _assert_same(merged, _gather(values, groups))
    _assert_same(chained, _gather(values, groups))


@settings(max_examples=30, deadline=None)
@given(seeds=st.tuples(*[st.integers(0, 2**31)] * 3))
def test_merge_is_associative_commutative_with_identity(seeds: tuple[int, int, int]) -> None:
    a, b, c = (_gather(*_items(seed, 7)) for seed in seeds)
    _assert_same(a.merge(b).merge(c), a.merge(b.merge(c)))
    _assert_same(a.merge(b), b.merge(a))
    _assert_same(a.merge(GroupSums.empty(GROUPS, SHAPE)), a)


def test_inputs_are_unchanged() -> None:
    values, groups = _items(3, 9)
    first = _gather(values, groups)
    sums, counts, given_values = first.sums.copy(), first.counts.copy(), values.copy()
    first.update(values, groups).merge(first).at(1)
    np.testing.assert_array_equal(first.sums, sums)
    np.testing.assert_array_equal(first.counts, counts)
    np.testing.assert_array_equal(values, given_values)


def test_means_are_the_plain_means_of_each_group() -> None:
    values, groups = _items(5, 40)
    stat = _gather(values, groups)
    for j in range(GROUPS):
        np.testing.assert_allclose(stat.means()[j], values[groups == j].mean(axis=0))
        np.testing.assert_allclose(stat.at(1).means()[j], values[groups == j, 1].mean(axis=0))
    np.testing.assert_allclose(stat.mean(), values.mean(axis=0))
    assert np.abs(stat.mean() - stat.means().mean(axis=0)).max() > 1e-6  # unequal groups: not the mean of means


def test_what_is_undefined_or_does_not_fit_is_refused_with_the_mend() -> None:
    stat = GroupSums.empty(3, (2,)).update(np.ones((4, 2)), np.array([0, 0, 1, 1]))
    with pytest.raises(AligntaxError, match=r"^task arc: 4 items .* need 2; use fewer groups or more items"):
        stat.require(2, name="task arc")
    with pytest.raises(AligntaxError, match="fewer groups or more items"):
        stat.means()
    with pytest.raises(AligntaxError, match="undefined"):
        GroupSums.empty(3, (2,)).mean()
    with pytest.raises(NonFiniteError, match="item 1"):
        stat.update(np.array([[0.0, 1.0], [np.nan, 0.0]]), np.array([0, 1]))
    for values, groups in [
        (np.ones((1, 2)), np.array([3])),
        (np.ones((1, 2)), np.array([-1])),
        (np.ones((1, 2)), np.array([0.0])),
        (np.ones((1, 3)), np.array([0])),
        (np.ones((2, 2)), np.array([0])),
    ]:
        with pytest.raises(AligntaxError):
            stat.update(values, groups)
    with pytest.raises(AligntaxError, match="merge"):
        stat.merge(GroupSums.empty(3, (1,)))
    assert stat.update(np.ones((1, 2)), np.array([2])).require(1) is not None


@settings(max_examples=40, deadline=None)
@given(keys=st.lists(st.text(), unique=True, max_size=40), groups=st.integers(1, 9), seed=st.integers(0, 99))
def test_groups_are_balanced_and_ignore_order(keys: list[str], groups: int, seed: int) -> None:
    assigned = group_of(keys, groups)
    sizes = np.bincount(assigned, minlength=groups)
    assert sizes.max() - sizes.min() <= 1
    assert len(sizes) == groups
    order = np.random.default_rng(seed).permutation(len(keys))
    np.testing.assert_array_equal(group_of([keys[i] for i in order], groups), assigned[order])


def test_equal_keys_share_a_group_and_a_part() -> None:
    keys = ["x", "y", "x", "z", "y", "w", "x"]
    for assigned in (group_of(keys, 3), split_hash(keys, [0.5, 0.3, 0.2])):
        assert len({assigned[i] for i in (0, 2, 6)}) == 1
        assert assigned[1] == assigned[4]
    assert group_of(["x"], 3).tolist() == [0]


def test_split_is_balanced_order_free_and_keeps_groups_balanced() -> None:
    keys = [f"item {i}" for i in range(1000)]
    parts = split_hash(keys, [0.5, 0.25, 0.25])
    assert np.bincount(parts).tolist() == [500, 250, 250]
    np.testing.assert_array_equal(split_hash(keys[::-1], [0.5, 0.25, 0.25]), parts[::-1])
    for part in range(3):
        sizes = np.bincount(group_of(keys, 8)[parts == part], minlength=8)
        assert sizes.max() - sizes.min() <= 1
    for wrong in ([0.5, 0.4], [1.2, -0.2], []):
        with pytest.raises(AligntaxError, match="sum to 1"):
            split_hash(keys, wrong)
    with pytest.raises(AligntaxError, match="sequence of strings"):
        group_of("abc", 2)
