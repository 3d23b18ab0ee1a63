"""Rows of a batch: shares hold in every batch, every row is seen, twins stand beside each other, refused answers are redrawn."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligntax.commands.alignment_mix import Mix, MixedRow, mixed, nearest, passes, slots
from aligntax.commands.alignment_rows import Anchor, harmless_pairs, spread
from aligntax.commands.alignment_texts import Speaker
from aligntax.commands.protections import loss_batches
from aligntax.data import Encoded, write_refusal
from aligntax.errors import AligntaxError
from aligntax.judging.verdict import Verdict

shares = st.floats(0.05, 0.95)


def refusals(count: int = 5) -> list[MixedRow]:
    return [MixedRow((100 + k, 7, 7), 1, True, False, 1) for k in range(count)]


def anchors(count: int = 6, alarming: int = 2) -> list[MixedRow]:
    return [MixedRow((100 + k, 200 + k, 8), 2, False, k < alarming, 2) for k in range(count)]


@given(st.integers(0, 80), shares, st.integers(0, 40), st.integers(1, 40))
def test_any_run_of_slots_holds_its_share(count, share, start, length):
    run = slots(count, share)[start : start + length]
    assert abs(sum(run) - len(run) * share) <= 1.0 + 1e-6


@given(st.integers(1, 9), st.integers(0, 40), st.integers(0, 5))
def test_a_pass_sees_every_row_before_any_is_seen_twice(count, wanted, seed):
    found = passes(count, wanted, np.random.default_rng(seed))
    assert len(found) == wanted
    for start in range(0, wanted - count + 1, count):
        assert sorted(found[start : start + count]) == list(range(count))


@given(st.integers(1, 7), st.integers(1, 7), shares, st.sampled_from(["random", "stratified"]))
def test_without_a_number_every_row_is_there_in_its_share(some, others, share, batches):
    found = mixed(refusals(some), anchors(others, 0), Mix(share, batches=batches))
    assert {row.ids for row in found} == {row.ids for row in [*refusals(some), *anchors(others)]}
    assert abs(sum(not row.refusal for row in found) - share * len(found)) <= 1.0


def test_half_alternates_refusal_first():
    found = mixed(refusals(3), anchors(2), Mix(seed=4))
    assert [row.refusal for row in found] == [True, False] * 3


def test_every_batch_holds_its_shares_and_the_run_is_as_long_as_asked():
    mix = Mix(0.75, 0.5, "stratified", seed=1)
    found = mixed(refusals(), anchors(), mix, 64)
    batches = [found[k : k + 8] for k in range(0, 64, 8)]
    assert [sum(row.refusal for row in batch) for batch in batches] == [2] * 8
    assert [sum(row.alarming for row in batch) for batch in batches] == [3] * 8
    assert mixed(refusals(), anchors(), mix, 64) == found != mixed(refusals(), anchors(), replace(mix, seed=2), 64)


def test_matched_puts_every_second_anchor_beside_the_refusal_it_resembles():
    red, blue = MixedRow((1, 2, 3, 9), 3, True, False, 3), MixedRow((4, 5, 6, 9), 3, True, False, 3)
    like_blue, like_red, other = (
        MixedRow((*head, 8), len(head), False, False, len(head)) for head in ((4, 5, 7), (1, 2, 7), (11, 12))
    )
    some, pool = [red, blue], [other, like_blue, like_red]
    assert nearest(some, pool) == [2, 1]
    found = mixed(some, pool, Mix(batches="matched"), 40)
    pairs = list(zip(found[::2], found[1::2], strict=True))
    twin = {red: like_red, blue: like_blue}
    assert all(twin[refusal] == answer for refusal, answer in pairs[::2])
    assert any(answer == other for _, answer in pairs[1::2])


@pytest.mark.parametrize(
    ("settings", "said"),
    [((0.0,), "--anchor-share 0.0"), ((1.0,), "--anchor-share 1.0"), ((0.5, 1.5), "--alarming-share 1.5")],
)
def test_shares_out_of_range_repeat_the_value(settings, said):
    with pytest.raises(AligntaxError, match=said):
        Mix(*settings)


def test_an_empty_side_is_an_error():
    with pytest.raises(AligntaxError, match="0 refusals and 6 anchors"):
        mixed([], anchors(), Mix())
    with pytest.raises(AligntaxError, match="no anchor sounds alarming"):
        mixed(refusals(), anchors(6, 0), Mix(0.5, 0.3))


def test_few_are_spread_among_many_in_their_own_order():
    many, few = [Encoded((k,), 0) for k in range(6)], [Encoded((10 + k,), 0) for k in range(3)]
    found = [row.ids[0] for row in spread(many, few)]
    assert [k for k in found if k < 10] == list(range(6)) and [k for k in found if k >= 10] == [10, 11, 12]
    assert max(np.diff([place for place, k in enumerate(found) if k >= 10])) <= 4


class Author(Speaker):
    """Says what the test lists: text of draw `d` to prompt `k` is `said[d][k]`."""

    def __init__(self, said):
        object.__setattr__(self, "said", said)
        object.__setattr__(self, "chat", SimpleNamespace(system=None))

    def replies(self, name, prompts, tokens, draw=0):
        return [Encoded((0, 1000 * draw + "abcd".find(prompt[-1])), 1) for prompt in prompts]

    def text(self, row):
        draw, k = divmod(row.ids[-1], 1000)
        return self.said[draw][k]


def hears(prompts, before, texts):
    """A judge whose score stands in the text."""
    return [Verdict(math.nan, float(text.split()[-1])) for text in texts]


def test_a_refused_answer_is_drawn_again_and_a_clear_one_is_kept():
    author = Author([["fine 0.1", "no 0.9", "no 0.9", "unsure 0.4"], ["x 0.0", "yes 0.05", "no 0.8", "y 0.3"]])
    rows, kept = author.answers("x", ["a", "b", "c", "d"], 4, 2, hears)
    assert [author.text(row) for row in rows] == ["fine 0.1", "yes 0.05", "no 0.8", "y 0.3"]
    assert kept == [0, 1, 3]


def test_one_draw_asks_no_judge():
    author = Author([["Sure.", "I cannot do that.", ""]])
    author.said[0][2] = "Then"
    _, kept = author.answers("x", ["a", "b", "c"], 4, 1, lambda *_: pytest.fail("judged"))
    assert kept == [0, 2]


def test_harmless_pairs_prefer_the_answer_and_end_where_a_sentence_ends():
    author = Author([["Mix it. Then wait. And th", "Whole answer", "no end in sight", "I cannot mix anything."]])
    rows = [Encoded((0, *([5] * n), k), 1) for k, n in ((0, 3), (1, 1), (2, 3))]
    first = [rows[0], Encoded((0, 3), 1), rows[2]]
    pairs = harmless_pairs([Anchor(f"prompt {k}", row, False, first[k]) for k, row in enumerate(rows)], author, 4)
    assert [pair["chosen"][0]["content"] for pair in pairs] == ["Mix it. Then wait.", "Whole answer"]
    written, own = (pair["rejected"][0]["content"] for pair in pairs)
    assert written == write_refusal("prompt 0") and own == "I cannot mix anything."
    assert [pair["prompt"][-1]["content"] for pair in pairs] == ["prompt 0", "prompt 1"]


@pytest.mark.parametrize("tasks", [14, 3, 40])
def test_capability_losses_cut_through_all_tasks(tasks):
    """Rows come task by task, twelve each; 32 of them are read, of as many tasks as there is room for, each once."""
    rows = [Encoded((task + 1, item + 1, 5), 1) for task in range(tasks) for item in range(12)]
    batches = loss_batches(rows)
    taken = [tuple(ids) for batch in batches for ids in batch["input_ids"].tolist()]
    assert len(taken) == len(set(taken)) == min(32, len(rows)) and len(batches) == 4
    assert len({ids[0] for ids in taken}) == min(tasks, 32)
    assert all(len({ids[0] for ids in batch["input_ids"].tolist()}) >= min(tasks, 8) for batch in batches)
    assert loss_batches(rows[:3])[0]["input_ids"].shape == (3, 3)
