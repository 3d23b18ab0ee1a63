"""A cached prefix gives what the uncached pass gives, in every family."""

import pytest
import torch
from conftest import FAMILIES
from hypothesis import given
from hypothesis import strategies as st

from aligntax.models import SharedPrefix, can_share, common_length, final_hidden


@given(st.lists(st.lists(st.integers(0, 2), max_size=6).map(tuple), max_size=5), st.integers(0, 3))
def test_common_length_is_what_all_share_with_some_left_over(sequences, spare):
    found = common_length(sequences, spare)
    heads = {ids[:found] for ids in sequences}
    assert len(heads) <= 1 and all(len(ids) - found >= spare or found == 0 for ids in sequences)
    longer = {ids[: found + 1] for ids in sequences}
    assert not sequences or len(longer) > 1 or min(len(ids) for ids in sequences) <= found + spare


@pytest.mark.parametrize("family", FAMILIES)
def test_continuing_a_prefix_equals_one_pass(family, tiny_model):
    model = tiny_model(family)
    assert can_share(model)
    torch.manual_seed(0)
    head, rest = torch.randint(3, 20, (7,)), torch.randint(3, 20, (3, 5))
    mask = torch.ones_like(rest)
    mask[1, 3:] = 0
    whole = torch.cat([head.expand(3, -1), rest], 1)
    expected = final_hidden(model, whole, torch.cat([mask.new_ones(3, 7), mask], 1))[:, 7:]
    prefix = SharedPrefix(model, head.tolist())
    for _ in range(2):  # the cache is not used up
        torch.testing.assert_close(
            prefix.final_hidden(rest, mask)[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-4
        )


def test_an_empty_prefix_caches_nothing(tiny_model):
    model = tiny_model("llama")
    rest = torch.tensor([[4, 5, 6]])
    torch.testing.assert_close(
        SharedPrefix(model, ()).final_hidden(rest, torch.ones_like(rest)),
        final_hidden(model, rest, torch.ones_like(rest)),
    )
