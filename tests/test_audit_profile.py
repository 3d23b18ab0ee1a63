"""KL by position: full vocabularies, padding, adapters and stored sides, exact worlds, and what never exists in memory."""

import copy

import numpy as np
import pytest
import torch
from audit_pairs import CPU, RECOVERY, full_logprobs, response_rows, world_reading
from conftest import VOCAB
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

from aligntax.audit import (
    LiveSide,
    PairReading,
    StoredSide,
    adapter_sides,
    kl_by_position,
    reached_by,
    read_pair,
    reading,
    summarise_kl,
)
from aligntax.depth import kl_profile
from aligntax.errors import AligntaxError, ModelError, NonFiniteError
from aligntax.lab import TabularPolicy
from aligntax.probing import Row, TokenBudget

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def read(base, aligned, rows, tokens=4096, recovery=RECOVERY) -> PairReading:
    """Two live models on rows."""
    return read_pair(LiveSide(base), LiveSide(aligned), rows, TokenBudget(tokens), CPU, recovery)


def arrays(found: PairReading) -> list[np.ndarray]:
    """Everything of a reading that is a number."""
    return [found.forward, found.reverse, found.odds_base, found.odds_aligned]


@pytest.mark.parametrize("family", ["llama", "gemma2", "granite", "gpt2"])
def test_both_directions_and_log_odds_are_those_of_full_logits(family, tiny_model, monkeypatch):
    base, aligned, rows = tiny_model(family), tiny_model(family, seed=1), response_rows()
    monkeypatch.setattr(reading, "CHUNK_BYTES", 5 * 4 * VOCAB)  # chunks of 5 cut rows anywhere
    found = read(base, aligned, rows)
    assert found.forward.shape == (7, 12) and found.odds_base.shape == (7, 13)
    assert found.prompts.tolist() == [row.item for row in rows]
    for k, row in enumerate(rows):
        p, q = full_logprobs(aligned, row), full_logprobs(base, row)
        n = len(row.ids) - row.start
        forward = (p.exp() * (p - q)).sum(-1)[:-1].numpy()
        assert np.abs(forward - (q.exp() * (q - p)).sum(-1)[:-1].numpy()).max() > 1e-3
        np.testing.assert_allclose(found.forward[k, :n], forward, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.reverse[k, :n], (q.exp() * (q - p)).sum(-1)[:-1].numpy(), rtol=1e-4, atol=1e-6)
        for odds, law in ((found.odds_base, q), (found.odds_aligned, p)):
            mass = law[:, list(RECOVERY)].exp().sum(-1)
            np.testing.assert_allclose(odds[k, : n + 1], (mass / (1 - mass)).log().numpy(), rtol=1e-4, atol=1e-5)
        assert np.isnan(found.forward[k, n:]).all() and np.isnan(found.odds_base[k, n + 1 :]).all()


def test_order_batching_and_padding_change_nothing(tiny_model):
    base, aligned, rows = tiny_model("llama"), tiny_model("llama", seed=1), response_rows()
    whole = read(base, aligned, rows)
    for order in (list(range(7)), [3, 0, 6, 1, 5, 2, 4]):
        for tokens in (1, 40):
            part = read(base, aligned, [rows[k] for k in order], tokens)
            for a, b in zip(arrays(whole), arrays(part), strict=True):
                np.testing.assert_allclose(b, a[order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("start", [1, 6])
def test_what_all_rows_begin_with_is_run_once_and_changes_nothing(start, tiny_model):
    base, aligned = tiny_model("llama"), tiny_model("llama", seed=1)
    rng = np.random.default_rng(5)
    rows = [Row((*range(20, 26), *rng.integers(30, 90, 3 + k).tolist()), start + k % 2, k) for k in range(5)]
    found = read(base, aligned, rows)
    alone = [read(base, aligned, [Row((7, *row.ids[1:]), row.start, 0), row]) for row in rows]
    for a, parts in zip(arrays(found), zip(*(arrays(one) for one in alone), strict=True), strict=True):
        for k, part in enumerate(parts):
            n = part.shape[1]
            np.testing.assert_allclose(a[k, :n], part[1], rtol=1e-4, atol=1e-6)


def test_a_small_kl_is_not_lost_in_rounding(tiny_model):
    base, rows = tiny_model("llama"), response_rows()
    aligned = copy.deepcopy(base)
    with torch.no_grad():
        aligned.lm_head.weight += 3e-5 * torch.randn(VOCAB, 32, generator=torch.Generator().manual_seed(0))
    double = [copy.deepcopy(m).double() for m in (base, aligned)]
    found = read(base, aligned, rows)
    for k, row in enumerate(rows):
        q, p = (full_logprobs(m, row)[:-1] for m in double)
        exact = (p.exp() * (p - q)).sum(-1).numpy()
        assert exact.max() < 1e-7
        np.testing.assert_allclose(found.forward[k, : len(exact)], exact, rtol=0.05, atol=1e-12)
        back = (q.exp() * (q - p)).sum(-1).numpy()
        np.testing.assert_allclose(found.reverse[k, : len(exact)], back, rtol=0.05, atol=1e-12)
    same = read(base, base, rows)
    assert np.nanmax(same.forward) == 0 == np.nanmax(same.reverse)


class FixedSide:
    """Logits by position, whatever the rows: a side for what no random model says."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.table, self.vocabulary = logits, logits.shape[1]

    def hidden(self, rows, batch):
        return torch.arange(len(self.table))[:, None]

    def logits(self, hidden):
        return self.table[hidden[:, 0]].clone()


def test_impossible_tokens_add_nothing_or_make_kl_infinite():
    inf = float("inf")
    p = torch.tensor([[0.0, 1.0, -inf, 2.0], [0.0, 1.0, -inf, 2.0], [0.0, 1.0, 1.0, -inf], [0.0, 0.0, 0.0, 0.0]])
    q = torch.tensor([[1.0, 1.0, -inf, 0.0], [1.0, 1.0, 3.0, 0.0], [1.0, -inf, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    row = [Row((5, 6, 7, 8), 1, 0)]
    found = read_pair(FixedSide(q), FixedSide(p), row, TokenBudget(99), CPU, (1,))
    both = [x.double().softmax(-1).numpy() for x in (p, q)]
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = np.nansum(np.where(both[0] > 0, both[0] * np.log(both[0] / both[1]), 0), axis=1)[:3]
    np.testing.assert_allclose(found.forward[0], exact, rtol=1e-5)
    assert np.isinf(found.forward[0, 2]) and np.isfinite(found.forward[0, :2]).all()
    assert np.isinf(found.reverse[0]).tolist() == [False, True, True]
    assert found.odds_base[0, 2] == -inf and found.odds_aligned[0, 3] == pytest.approx(np.log(1 / 3))
    summary = summarise_kl(kl_by_position(found, "forced"), np.random.default_rng(0))
    assert summary.infinite == 1 and np.isnan(summary.first.value) and summary.total.value == inf


def test_a_mass_next_to_one_keeps_its_log_odds():
    logits = torch.tensor([[40.0, 0.0, 0.0], [0.0, 40.0, 0.0]])
    found = read_pair(FixedSide(logits), FixedSide(logits), [Row((1, 2), 1, 0)], TokenBudget(9), CPU, (0,))
    np.testing.assert_allclose(found.odds_base[0], [40 - np.log(2), -40], rtol=1e-6)


@pytest.mark.parametrize("target", ["q_proj", "lm_head"])
def test_one_adapter_switched_is_two_models(target, tiny_model):
    base, rows = tiny_model("llama"), response_rows()
    tuned = get_peft_model(copy.deepcopy(base), LoraConfig(r=2, target_modules=[target], init_lora_weights=False))
    tuned.eval().requires_grad_(False)
    merged = copy.deepcopy(tuned).merge_and_unload()
    found = read_pair(*adapter_sides(tuned), rows, TokenBudget(60), CPU, RECOVERY)
    assert np.nanmean(found.forward) > 1e-2
    for a, b in zip(arrays(found), arrays(read(base, merged, rows)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    assert not any(p.requires_grad for p in tuned.parameters())
    with pytest.raises(ModelError, match="no adapter"):
        adapter_sides(base)


@pytest.mark.parametrize("family", ["gemma2", "granite"])
def test_a_side_read_beforehand_gives_the_same_without_its_model(family, tiny_model):
    base, aligned, rows = copy.deepcopy(tiny_model(family)), tiny_model(family, seed=1), response_rows()
    live = read(base, aligned, rows)
    stored = StoredSide(base, rows, TokenBudget(30))
    for block in base.model.layers:
        block.forward = None
    found = read_pair(stored, LiveSide(aligned), rows, TokenBudget(50), CPU, RECOVERY)
    for a, b in zip(arrays(live), arrays(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    with pytest.raises(AligntaxError, match="6 others"):
        read_pair(stored, LiveSide(aligned), rows[1:], TokenBudget(50), CPU)


class Largest(TorchDispatchMode):
    """Elements of the largest float tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for x in found if isinstance(found, tuple | list) else (found,):
            if isinstance(x, torch.Tensor) and x.is_floating_point():
                self.elements = max(self.elements, x.numel())
        return found


def test_no_tensor_of_all_positions_by_vocabulary_ever_exists(tiny_model, monkeypatch):
    base, aligned = tiny_model("llama"), tiny_model("llama", seed=1)
    rows = [Row((8,) * 30, 3, k) for k in range(8)]
    monkeypatch.setattr(reading, "CHUNK_BYTES", 16 * 4 * VOCAB)
    with Largest() as spy:
        read(base, aligned, rows)
    positions, widest = 8 * 28, 8 * 30 * 48  # the widest activation of the model itself
    assert spy.elements <= max(16 * VOCAB, widest) < positions * VOCAB
    with Largest() as spy, torch.no_grad():
        base(input_ids=torch.tensor([row.ids for row in rows]))
    assert spy.elements >= positions * VOCAB, "the spy sees such a tensor where there is one"


def test_profile_agrees_with_the_profile_of_full_logits(tiny_model):
    base, aligned, rows = tiny_model("llama"), tiny_model("llama", seed=1), response_rows()
    profile = kl_by_position(read(base, aligned, rows), "aligned")
    wanted = None
    for row in rows:
        p, q = (full_logprobs(m, row)[None, :-1].numpy() for m in (aligned, base))
        one = kl_profile(p, q, text="aligned")
        wanted = one if wanted is None else wanted.merge(one)
    np.testing.assert_array_equal(profile.count, wanted.count)
    assert profile.tokens == wanted.tokens == sum(len(row.ids) - row.start for row in rows)
    np.testing.assert_allclose(profile.mean(), wanted.mean, rtol=1e-4)
    np.testing.assert_allclose(profile.profile().mean, wanted.mean, rtol=1e-4)
    assert profile.position.tolist() == list(range(1, 13))


def test_own_samples_of_a_world_estimate_its_exact_kl():
    rng = np.random.default_rng(3)
    base = TabularPolicy.random(4, 5, rng)
    aligned = TabularPolicy(
        [rows + (2.0, 1.0, 0.3, 0.1, 0.0)[t] * rng.normal(size=rows.shape) for t, rows in enumerate(base.logits)]
    )
    profile = kl_by_position(world_reading(base, aligned, (1,), 20_000, 1), "aligned")
    exact = aligned.per_position_kl(base)
    error = profile.forward.std(axis=0) / np.sqrt(20_000)
    assert (np.abs(profile.mean() - exact) < 5 * error + 1e-12).all() and exact[0] > 20 * error[0]
    summary = summarise_kl(profile, rng, first=2, draws=200)
    assert summary.first.value == pytest.approx(exact[:2].sum() / exact.sum(), abs=0.02)
    assert summary.first.low < exact[:2].sum() / exact.sum() < summary.first.high
    assert summary.total.low < exact.sum() < summary.total.high
    assert summary.reach.value == 1 + np.argmax(np.cumsum(exact) >= 0.95 * exact.sum())


def test_summary_speaks_of_nats_over_responses_and_resamples_prompts():
    nan = np.nan
    kl = np.array([[4.0, 2, 1, 1], [4, 2, nan, nan], [0, 0, 0, 2], [1, nan, nan, nan]])
    profile = kl_by_position(PairReading(kl, 2 * kl, np.array([5, 5, 8, 9])), "forced")
    np.testing.assert_allclose(profile.mean(), [9 / 4, 4 / 3, 0.5, 1.5])
    np.testing.assert_allclose(profile.mean("reverse"), 2 * profile.mean())
    np.testing.assert_allclose(profile.quantiles((0.5,))[0], [1, 1, 0.5, 1.5])
    assert profile.count.tolist() == [4, 3, 2, 2]
    summary = summarise_kl(profile, np.random.default_rng(0), first=2, level=0.9)
    assert summary.first.value == pytest.approx(13 / 17) and summary.first.low < 13 / 17 < summary.first.high
    assert summary.reach.value == 4 and summary.total.value == pytest.approx(17 / 4)
    assert (summary.responses, summary.prompts, summary.tokens, summary.longest, summary.text) == (
        4,
        3,
        11,
        4,
        "forced",
    )
    one = summarise_kl(
        kl_by_position(PairReading(kl[:1], kl[:1], np.zeros(1, dtype=int)), "forced"), np.random.default_rng(0)
    )
    assert one.first.value == 1 and np.isnan([one.first.low, one.first.se, one.mean.low[0]]).all()


def test_models_that_are_the_same_have_no_share_and_no_reach():
    zero = np.zeros((3, 6))
    summary = summarise_kl(kl_by_position(PairReading(zero, zero, np.arange(3)), "aligned"), np.random.default_rng(0))
    assert np.isnan([summary.first.value, summary.reach.value]).all() and summary.total.value == 0
    assert np.isnan(reached_by(zero)).all() and reached_by(np.ones((1, 20)), 0.5).tolist() == [10]


def test_what_cannot_be_read_is_refused(tiny_model):
    model, rows = tiny_model("llama"), response_rows()
    with pytest.raises(AligntaxError, match="no responses"):
        read(model, model, [])
    for row in (Row((8, 9), 0, 0), Row((8, 9), 2, 0)):
        with pytest.raises(AligntaxError, match="needs a prompt before and a token after"):
            read(model, model, [row])
    with pytest.raises(AligntaxError, match=r"recovery tokens \[97\]"):
        read(model, model, rows, recovery=(97,))
    with pytest.raises(AligntaxError, match="all"):
        read(model, model, rows, recovery=tuple(range(VOCAB)))
    with pytest.raises(ModelError, match="vocabularies of 97 "):
        read_pair(LiveSide(model), FixedSide(torch.zeros(2, 4)), rows, TokenBudget(9), CPU)
    with pytest.raises(NonFiniteError, match="nan"):
        read_pair(
            FixedSide(torch.full((2, 4), torch.nan)),
            FixedSide(torch.zeros(2, 4)),
            [Row((1, 2), 1, 0)],
            TokenBudget(9),
            CPU,
        )
    with pytest.raises(AligntaxError, match="text='own'"):
        kl_by_position(read(model, model, rows), "own")
