"""Rollouts with shared prefixes are the rollouts of one row at a time without a cache, in every family."""

import copy

import numpy as np
import pytest
import torch
from conftest import FAMILIES, VOCAB, build_model
from hypothesis import given
from hypothesis import strategies as st

from aligntax.errors import DataError, NonFiniteError
from aligntax.models import Start, can_cut, roll_out, rollouts, top_tokens
from aligntax.models.rollouts import _longest

END = 2


def ids(seed: int, length: int) -> tuple[int, ...]:
    return tuple(int(t) for t in np.random.default_rng(seed).integers(7, VOCAB, length))


def alone(model, start: Start) -> tuple[tuple[int, ...], bool]:
    """The oracle: the whole text again for every token, the model's own logits."""
    text, draws = list(start.ids), np.random.default_rng(start.seed or 0)
    uniforms = draws.random(start.new_tokens)
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or [])
    said: list[int] = []
    for u in uniforms:
        with torch.no_grad():
            logits = model(torch.tensor([text])).logits[0, -1].double()
        p = logits.softmax(-1).numpy()
        token = int(logits.argmax()) if start.seed is None else int(np.searchsorted(np.cumsum(p), u, side="right"))
        if token in ends:
            return tuple(said), True
        said.append(token)
        text.append(token)
    return tuple(said), False


def mixed_starts() -> list[Start]:
    """Prompts with a common head, growing prefills of one continuation, other prefills, repeated and unequal starts."""
    head, prompts = ids(0, 4), [ids(0, 4) + ids(k, n) for k, n in ((1, 3), (2, 6), (3, 1))]
    starts = [Start(p, ids(9, 12)[:depth], 7) for p in prompts for depth in (0, 1, 2, 5, 12)]
    starts += [Start(prompts[0], ids(8, 3), 7), Start(prompts[0], (), 3), Start(head, (), 5)]
    starts += [Start(prompts[1], ids(9, 12)[:2], 6, seed) for seed in (1, 2, 2)]
    return starts


@pytest.mark.parametrize("family", FAMILIES)
def test_rollouts_are_those_of_single_rows_without_a_cache(family, tiny_model):
    model = tiny_model(family)
    assert can_cut(model)
    found = roll_out(model, mixed_starts())
    assert [(r.ids, r.ended) for r in found] == [alone(model, start) for start in mixed_starts()]


def test_a_window_shorter_than_the_prefix_is_cut_right(monkeypatch):
    monkeypatch.setitem(FAMILIES["gemma2"][1], "sliding_window", 5)
    build = build_model.__wrapped__
    model = build("gemma2")
    found = roll_out(model, mixed_starts())
    assert [(r.ids, r.ended) for r in found] == [alone(model, start) for start in mixed_starts()]


def test_texts_end_where_the_model_ends_them(tiny_model):
    model = copy.deepcopy(tiny_model("llama"))
    starts = mixed_starts()
    whole = roll_out(model, starts)
    # Tokens that the model does say: a first one, a middle one, the last before a limit.
    model.generation_config.eos_token_id = [whole[0].ids[0], whole[6].ids[2], whole[3].ids[-1]]
    found = roll_out(model, starts)
    assert [(r.ids, r.ended) for r in found] == [alone(model, start) for start in starts]
    assert found[0].ids == () and {r.ended for r in found} == {True, False}


def test_a_start_that_chooses_the_prefill_itself_is_not_run_twice(tiny_model, monkeypatch):
    model, prompt = tiny_model("llama"), ids(0, 6)
    own, _ = alone(model, Start(prompt, (), 12))
    starts = [Start(prompt, own[:depth], 9) for depth in (0, 1, 4, 8)] + [Start(prompt, own[:2], 1)]
    rows = []
    decode = rollouts.decode
    monkeypatch.setattr(
        rollouts, "decode", lambda model, strands, *rest: (rows.append(len(strands)), decode(model, strands, *rest))
    )
    found = roll_out(model, starts)
    assert rows == [1]
    assert [(r.ids, r.ended) for r in found] == [alone(model, start) for start in starts]
    ends = copy.deepcopy(model)
    ends.generation_config.eos_token_id = own[5]  # an end inside the longest prefill
    assert [(r.ids, r.ended) for r in roll_out(ends, starts)] == [alone(ends, start) for start in starts]


def test_starts_of_one_row_keep_their_own_limits(tiny_model):
    model = copy.deepcopy(tiny_model("llama"))
    texts = [(ids(seed, 6), alone(model, Start(ids(seed, 6), (), 8))[0]) for seed in range(20)]
    # A text whose fourth token was not said before: it will end the text.
    end, (prompt, own) = 3, next((p, t) for p, t in texts if t.index(t[3]) == 3)
    model.generation_config.eos_token_id = own[end]
    starts = [Start(prompt, own[:depth], limit) for depth in (0, 2) for limit in range(1, end + 4)]
    found = roll_out(model, starts)
    assert [(r.ids, r.ended) for r in found] == [alone(model, start) for start in starts]
    assert [r.ended for r in found[: end + 3]] == [False] * end + [True] * 3


def test_the_shared_part_is_run_once(tiny_model, monkeypatch):
    model, run = tiny_model("llama"), []
    cached = rollouts.final_hidden
    monkeypatch.setattr(
        rollouts,
        "final_hidden",
        lambda m, row, mask, cache: (run.append(int(mask[:, -row.shape[1] :].sum())), cached(m, row, mask, cache))[1],
    )
    prompt, long = ids(0, 20), ids(1, 16)
    roll_out(model, [Start(prompt, long[:depth], 2, seed) for depth in (0, 1, 2, 5, 16) for seed in range(4)])
    assert sum(run) == 20 + 16  # not 20 * (20 + depth)


def test_rollouts_do_not_depend_on_company(tiny_model):
    model, starts = tiny_model("qwen2"), mixed_starts()
    together = roll_out(model, starts)
    assert together == [roll_out(model, [start])[0] for start in starts]
    assert together[::-1] == roll_out(model, starts[::-1])
    assert roll_out(model, []) == []


def test_draws_follow_the_models_distribution_and_are_independent(tiny_model):
    model, prompt, n = tiny_model("llama"), ids(0, 5), 3000
    model = copy.deepcopy(model)
    # Settings that a checkpoint brings along must not bend the distribution.
    model.generation_config.update(top_k=1, temperature=0.1, eos_token_id=None)
    found = roll_out(model, [Start(prompt, (), 2, seed) for seed in range(n)])
    with torch.no_grad():
        p = model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1).numpy()
    first = np.array([r.ids[0] for r in found])
    chi2 = ((np.bincount(first, minlength=VOCAB) - n * p) ** 2 / (n * p)).sum()
    assert chi2 < VOCAB + 6 * np.sqrt(2 * VOCAB)
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 5 / np.sqrt(n)


def test_families_that_sum_up_their_past_take_the_slow_way(tiny_model, monkeypatch):
    model, starts = tiny_model("llama"), mixed_starts()
    expected = roll_out(model, starts)
    monkeypatch.setattr(
        model.config, "layer_types", ["linear_attention", "full_attention", "full_attention"], raising=False
    )
    assert not can_cut(model)
    assert roll_out(model, starts) == expected


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_top_tokens_are_the_likeliest_that_do_not_end_the_text(family, tiny_model):
    model = copy.deepcopy(tiny_model(family))
    with torch.no_grad():
        order = model(torch.tensor([ids(3, 8)])).logits[0, -1].argsort(descending=True).tolist()
    model.generation_config.eos_token_id = order[1]
    assert top_tokens(model, [ids(3, 8)], 3) == [[order[0], order[2], order[3]]]


@given(st.sets(st.lists(st.integers(0, 2), max_size=5).map(tuple), min_size=1))
def test_longest_are_those_that_nothing_extends(prefills):
    found = _longest(prefills)
    assert sorted(found) == found
    assert set(found) == {a for a in prefills if not any(b != a and b[: len(a)] == a for b in prefills)}


def test_impossible_starts_and_broken_models_are_refused(tiny_model):
    with pytest.raises(DataError, match="prompt of 0"):
        Start((), (), 5)
    with pytest.raises(DataError, match="rollout of 0 tokens"):
        Start((1,), (), 0)
    broken = copy.deepcopy(tiny_model("llama"))
    broken.get_output_embeddings().weight.data[:] = torch.nan
    with pytest.raises(NonFiniteError, match="logits are NaN"):
        roll_out(broken, [Start((5, 6), (), 3)])
