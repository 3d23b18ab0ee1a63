"""Measured KL against full logits, and sampled Fisher information against an enumeration of the vocabulary."""

import numpy as np
import pytest
import torch
from conftest import LAYERS, VOCAB, WIDTH
from probing_rows import make_probe, make_rows
from torch import Tensor

from aligntax.errors import AligntaxError
from aligntax.models import add_shift
from aligntax.probing import KlMeter, Row, fisher_draws, response_length

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
LAYER = 1


def make_texts() -> list[Row]:
    """Nine texts with responses of 1 to 5 tokens."""
    return [Row(row.ids, row.start, k) for k, row in enumerate(make_rows(seed=4))]


def direction(seed: int) -> np.ndarray:
    """A unit vector `(d,)`."""
    vector = np.random.default_rng(seed).normal(size=WIDTH)
    return vector / np.linalg.norm(vector)


def logprobs(model, row: Row, shift: Tensor, positions: str, sinks: tuple[int, ...]) -> Tensor:
    """Log-probabilities `(response, vocab)` in float64 of one text alone, full logits."""
    n = len(row.ids)
    reached = torch.tensor([t not in sinks and (positions == "all" or t >= row.start - 1) for t in range(n)])
    with torch.no_grad(), add_shift(model, shift[None], [LAYER], reached[None]):
        logits = model(input_ids=torch.tensor([row.ids])).logits[0]
    return logits[row.start - 1 : n - 1].double().log_softmax(-1)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "qwen2_moe"])
@pytest.mark.parametrize(("positions", "sinks"), [("all", ()), ("response", (0, 6))])
def test_measured_kl_is_the_kl_of_full_logits_per_response_token(family, positions, sinks, tiny_model):
    model, texts = tiny_model(family), make_texts()
    shift = torch.from_numpy(2 * direction(0)).float()
    total, count = 0.0, 0
    for row in texts:
        p = logprobs(model, row, torch.zeros(WIDTH), positions, sinks)
        q = logprobs(model, row, shift, positions, sinks)
        total, count = total + float((p.exp() * (p - q)).sum()), count + len(p)
    assert total / count > 1e-3
    for tokens in (1, 40, 4096):
        meter = KlMeter(make_probe(model, tokens, positions, sinks), texts)
        assert meter.measure(shift, LAYER) == pytest.approx(total / count, rel=1e-3)
        assert meter.measure(0 * shift, LAYER) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("target", [0.001, 0.1, 0.5])
@pytest.mark.parametrize("guess", [0.03, 1.0, 100.0])
def test_solve_hits_the_target_from_any_guess(target, guess, tiny_model):
    meter = KlMeter(make_probe(tiny_model("llama")), make_texts())
    # A direction of any length means the same.
    found = meter.solve(7 * direction(1), LAYER, target, guess)
    assert found.kl == pytest.approx(target, rel=0.05) and found.steps <= 8
    again = meter.measure(torch.from_numpy(found.norm * direction(1)).float(), LAYER)
    assert again == pytest.approx(found.kl, rel=1e-3, abs=1e-6)


def test_a_target_out_of_reach_gives_the_nearest_and_says_what_it_costs(tiny_model):
    meter = KlMeter(make_probe(tiny_model("llama")), make_texts())
    found = meter.solve(direction(1), LAYER, 50.0, 1.0)
    assert 0.1 < found.kl < 40 and found.steps == 8
    again = meter.measure(torch.from_numpy(found.norm * direction(1)).float(), LAYER)
    assert again == pytest.approx(found.kl, rel=1e-3)


def test_what_cannot_be_measured_is_refused(tiny_model):
    probe = make_probe(tiny_model("llama"))
    with pytest.raises(AligntaxError, match="only empty replies"):
        KlMeter(probe, [])
    with pytest.raises(AligntaxError, match="cannot be calibrated"):
        KlMeter(probe, make_texts()).solve(direction(1), LAYER, 0.1, 1e-30)


def exact_fisher(model, row: Row) -> np.ndarray:
    """`sum_t sum_y p(y) g g^T`, `(d, d)` at one layer, `g` the gradient of `log p(y)` at position `t`, by autograd."""
    shift = torch.zeros(1, WIDTH, requires_grad=True)
    with add_shift(model, shift, [LAYER]):
        logits = model(input_ids=torch.tensor([row.ids])).logits[0]
    scores = logits[row.start - 1 : len(row.ids) - 1].log_softmax(-1)
    flat = scores.flatten()
    (found,) = torch.autograd.grad(flat, shift, torch.eye(len(flat)), is_grads_batched=True)
    g, p = found[:, 0].double().numpy(), flat.detach().double().exp().numpy()
    return (g * p[:, None]).T @ g


def z_scores(samples: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Distance of the mean of outer products from `wanted`, in its own standard errors."""
    outer = samples[:, :, None] * samples[:, None, :]
    return (outer.mean(0) - wanted) / (outer.std(0) / np.sqrt(len(samples)))


def test_outer_products_of_draws_average_to_the_exact_fisher_information(tiny_model):
    model, row = tiny_model("llama"), make_texts()[2]
    scores = fisher_draws(make_probe(model), [row] * 100, 60, seed=3)
    assert scores.shape == (6000, LAYERS, WIDTH) and scores.dtype == np.float32
    found, wanted = scores[:, LAYER].astype(np.float64), exact_fisher(model, row)
    z = z_scores(found, wanted)
    assert np.abs(z).max() < 6 and 0.5 < np.mean(z**2) < 1.6
    assert np.trace(found.T @ found / len(found)) == pytest.approx(np.trace(wanted), rel=0.05)
    # The test can fail: a tenth more information is seen.
    assert np.mean(z_scores(found, 1.1 * wanted) ** 2) > 1.6 or np.abs(z_scores(found, 1.1 * wanted)).max() > 6
    mean = found.mean(0) / (found.std(0) / np.sqrt(len(found)))
    assert np.abs(mean).max() < 5, "the expectation of a score is 0"


def test_half_the_quadratic_form_predicts_the_measured_kl_per_response_token(tiny_model):
    model, texts = tiny_model("llama"), make_texts()
    assert response_length(texts) == pytest.approx(np.mean([len(row.ids) - row.start for row in texts]))
    total = sum(exact_fisher(model, row) for row in texts)
    assert response_length(texts) * len(texts) == sum(len(row.ids) - row.start for row in texts)
    scores = fisher_draws(make_probe(model, 50), texts, 300, seed=1)[:, LAYER].astype(np.float64)
    meter = KlMeter(make_probe(model), texts)
    for seed in range(4):
        unit = direction(seed)
        exact = 0.5 * unit @ total @ unit / len(texts) / response_length(texts)
        size = np.sqrt(2e-3 / exact)
        shift = torch.from_numpy(size * unit).float()
        # Both signs: the cubic term cancels.
        measured = (meter.measure(shift, LAYER) + meter.measure(-shift, LAYER)) / 2
        assert measured == pytest.approx(exact * size**2, rel=0.05)
        draws = 0.5 * (scores @ unit) ** 2 / response_length(texts) * size**2
        error = draws.reshape(len(texts), -1).std(1).mean() / np.sqrt(len(draws))
        assert abs(draws.mean() - measured) < 5 * error + 0.05 * measured
        assert error < 0.1 * measured


def test_draws_depend_on_seed_and_text_but_not_on_the_batching(tiny_model):
    model, texts = tiny_model("gpt2"), make_texts()
    whole = fisher_draws(make_probe(model), texts, 3, seed=1)
    for tokens in (1, 33):
        parts = fisher_draws(make_probe(model, tokens), texts, 3, seed=1)
        np.testing.assert_allclose(parts, whole, atol=2e-5 * np.abs(whole).max())
    assert np.abs(fisher_draws(make_probe(model), texts, 3, seed=2) - whole).max() > 0.1 * np.abs(whole).max()
    # More draws continue the same stream: row `i * draws + k` is draw `k` of text `i`.
    more = fisher_draws(make_probe(model), texts, 5, seed=1).reshape(len(texts), 5, LAYERS, WIDTH)
    np.testing.assert_allclose(more[:, :3].reshape(whole.shape), whole, atol=2e-5 * np.abs(whole).max())
    draws = whole.reshape(len(texts), 3, -1)
    assert (np.abs(draws[:, 0] - draws[:, 1]).max(1) > 0).mean() > 0.8


def test_draws_leave_sinks_and_padding_out(tiny_model):
    model, texts = tiny_model("llama"), make_texts()
    last = max(len(row.ids) for row in texts)
    nothing = fisher_draws(make_probe(model, sinks=tuple(range(last))), texts, 2, seed=1)
    assert not nothing.any() and last < VOCAB
