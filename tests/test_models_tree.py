"""A tree of sequences gives every sequence what it gets alone, in every family that can branch."""

import copy

import pytest
import torch
from conftest import FAMILIES
from hypothesis import given
from hypothesis import strategies as st

from aligntax.models import SharedPrefix, can_branch, final_hidden, plant

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=8)


@given(SEQUENCES, st.integers(1, 12))
def test_trees_hold_every_sequence_once_within_their_width(sequences, width):
    trees = plant(sequences, width)
    held = {
        row: tuple(tree.ids[k] for k in path) for tree in trees for row, path in zip(tree.rows, tree.paths, strict=True)
    }
    assert held == dict(enumerate(sequences))
    assert sum(len(tree.rows) for tree in trees) == len(sequences)
    for tree in trees:
        assert len(tree.ids) <= max(width, *(len(sequences[row]) for row in tree.rows))
        assert all(parent < token for token, parent in enumerate(tree.parents))
        assert all(tree.depths[k] == depth for path in tree.paths for depth, k in enumerate(path))


@given(SEQUENCES)
def test_one_tree_runs_every_prefix_once(sequences):
    (tree,) = plant(sequences, 10**6)
    assert len(tree.ids) == len({ids[: k + 1] for ids in sequences for k in range(len(ids))})


@given(SEQUENCES)
def test_a_token_sees_its_own_path_and_nothing_else(sequences):
    for tree in plant(sequences, 8):
        seen = tree.ancestors()
        for path in tree.paths:
            assert set(seen[path[-1]].nonzero()[0]) == set(path)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("before", [0, 4])
def test_hidden_states_in_trees_are_those_of_the_sequences(family, before, tiny_model):
    model = tiny_model(family)
    assert can_branch(model, 12)
    head = tuple(range(3, 3 + before))
    sequences = [(9, 8, 7), (9, 8, 6, 5), (9, 8, 6, 5), (4,), (5, 6, 7, 8, 9), (9,)]
    trees = plant(sequences, 6)
    assert len(trees) > 1  # of unequal width, so that one is padded
    hidden = SharedPrefix(model, head).tree_hidden(trees)
    for line, tree in zip(hidden, trees, strict=True):
        for row, path in zip(tree.rows, tree.paths, strict=True):
            ids = torch.tensor([head + sequences[row]])
            alone = final_hidden(model, ids, torch.ones_like(ids))[0, before:]
            torch.testing.assert_close(line[path], alone, atol=1e-5, rtol=1e-4)


def test_families_that_read_positions_off_the_mask_or_look_back_less_far_do_not_branch(tiny_model):
    model = copy.deepcopy(tiny_model("llama"))  # the fixture's own is shared
    assert can_branch(model, 50)
    model.config.sliding_window = 20
    assert can_branch(model, 20) and not can_branch(model, 21)
    del model.config.sliding_window
    model.config.alibi = True
    assert not can_branch(model, 20)
