"""Losses of the stages: what counts, what cancels, and where gradients stop. Torch is the second opinion."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.errors import DataError
from aligntax.stats import (
    bradley_terry_loss,
    clipped_policy_objective,
    kl_regularised_reward,
    language_model_loss,
    regularised_optimum,
    sft_loss,
    token_logprobs,
)

RNG = np.random.default_rng(0)
LOGITS, TOKENS = RNG.normal(size=(2, 6, 5)), RNG.integers(5, size=(2, 6))


def test_a_token_is_predicted_from_the_position_before_it() -> None:
    certain = np.full((1, 3, 4), -1e9)
    certain[0, 0, 2] = certain[0, 1, 1] = 0.0
    assert token_logprobs(certain, [[3, 2, 1]]).tolist() == [[0.0, 0.0]]
    assert language_model_loss(LOGITS, TOKENS) == pytest.approx(-token_logprobs(LOGITS, TOKENS).mean())


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(side: str) -> None:
    pad, ids = np.full((2, 3, 5), 7.0), np.zeros((2, 3), dtype=int)
    parts = [(pad, ids, ids > 0), (LOGITS, TOKENS, TOKENS >= 0)]
    ordered = parts if side == "left" else parts[::-1]
    logits, tokens, mask = (np.concatenate(columns, axis=1) for columns in zip(*ordered, strict=True))
    assert language_model_loss(logits, tokens, mask) == pytest.approx(language_model_loss(LOGITS, TOKENS))


def test_sft_learns_the_completion_and_not_the_prompt() -> None:
    completion = np.arange(6) >= np.array([[2], [4]])
    logits = torch.tensor(LOGITS, requires_grad=True)
    labels = torch.tensor(np.where(completion, TOKENS, -100))[:, 1:].reshape(-1)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 5), labels)
    loss.backward()
    assert sft_loss(LOGITS, TOKENS, completion) == pytest.approx(loss.item())
    untouched = LOGITS.copy()
    untouched[logits.grad.numpy() == 0] += 3.0  # what has no gradient in torch must not matter here
    assert sft_loss(untouched, TOKENS, completion) == pytest.approx(loss.item())


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(-50, 50))
def test_only_reward_differences_matter(won: float, lost: float, shift: float) -> None:
    loss = bradley_terry_loss([won], [lost])
    assert loss == pytest.approx(bradley_terry_loss([won + shift], [lost + shift]), rel=1e-6, abs=1e-9)
    assert loss == pytest.approx(-torch.nn.functional.logsigmoid(torch.tensor(won - lost, dtype=torch.double)).item())
    both = math.exp(-loss) + math.exp(-bradley_terry_loss([lost], [won]))
    assert both == pytest.approx(1.0)


def test_bradley_terry_does_not_overflow() -> None:
    assert bradley_terry_loss([-1e4], [1e4]) == pytest.approx(2e4)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 5))
def test_the_optimum_beats_every_other_policy(seed: int, beta: float) -> None:
    rng = np.random.default_rng(seed)
    reward, reference, other = rng.normal(size=5), rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5))
    best = regularised_optimum(reward, reference, beta)
    sampled = kl_regularised_reward(reward, np.log(other), np.log(reference), beta)
    assert other @ sampled <= best.value + 1e-9
    assert kl_regularised_reward(reward, np.log(best.policy), np.log(reference), beta) == pytest.approx(
        best.value, abs=1e-6
    )


def test_a_larger_beta_gives_less_reward_and_less_change() -> None:
    sweep = [regularised_optimum([0.0, 0.3, 1.0], [0.5, 0.3, 0.2], beta) for beta in (0.1, 0.5, 1.0, 5.0, 100.0)]
    assert (np.diff([best.reward for best in sweep]) < 0).all() and (np.diff([best.kl for best in sweep]) < 0).all()
    assert sweep[-1].policy == pytest.approx([0.5, 0.3, 0.2], abs=0.01)
    assert regularised_optimum([5.0, 0.0, 0.0], [0.0, 0.5, 0.5], 0.01).policy.tolist() == [0.0, 0.5, 0.5]


def test_tokens_add_up_to_responses_and_padding_does_not() -> None:
    policy, base = -RNG.random((2, 3, 4))
    mask = np.arange(4) < np.array([[4], [2], [3]])
    policy[~mask] = np.nan
    summed = np.where(mask, policy - base, 0).sum(axis=1)
    assert kl_regularised_reward([1.0, 2.0, 3.0], policy, base, 0.5, mask) == pytest.approx([1, 2, 3] - 0.5 * summed)


def test_the_clipped_objective_is_a_bound_and_its_gradient_stops() -> None:
    shift = np.linspace(-1, 1, 201)[:, None]
    for advantage in (1.5, -1.5):
        value = np.array([clipped_policy_objective(s, [0.0], [advantage]) for s in shift])
        assert (value <= np.exp(shift[:, 0]) * advantage + 1e-12).all()
        flat = np.exp(shift[:-1, 0]) > 1.2 if advantage > 0 else np.exp(shift[1:, 0]) < 0.8
        assert np.diff(value)[flat] == pytest.approx(0) and (np.abs(np.diff(value)[~flat]) > 1e-6).all()
    assert clipped_policy_objective([[0.0, 9.0]], [[0.0, 0.0]], [[2.0]], mask=[[True, False]]) == 2.0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: token_logprobs(LOGITS, TOKENS[:, :4]), r"\(2, 4\)"),
        (lambda: token_logprobs(LOGITS, TOKENS - 100), "outside the vocabulary of 5"),
        (lambda: language_model_loss(LOGITS, TOKENS, np.zeros((2, 6))), "0 of 10"),
        (lambda: language_model_loss(LOGITS, TOKENS, np.ones((2, 5))), r"mask \(2, 5\)"),
        (lambda: sft_loss(LOGITS, TOKENS, np.ones((2, 6))), "position 0"),
        (lambda: bradley_terry_loss([1.0, 2.0], [1.0]), r"rejected \(1,\)"),
        (lambda: bradley_terry_loss([np.nan], [1.0]), "chosen holds nan"),
        (lambda: bradley_terry_loss([], []), "at least one"),
        (lambda: kl_regularised_reward([1.0], [-1.0], [-1.0], -0.1), "beta=-0.1"),
        (lambda: kl_regularised_reward([1.0, 2.0], [-1.0], [-1.0], 0.1), r"reward \(2,\)"),
        (lambda: clipped_policy_objective([[0.0]], [[0.0]], [[1.0]], clip=2), "clip=2"),
        (lambda: clipped_policy_objective([[0.0]], [[0.0]], [[1.0]], mask=[[False]]), "0 of 1"),
        (lambda: clipped_policy_objective(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((3, 1))), r"advantage \(3, 1\)"),
        (lambda: regularised_optimum([1.0, 2.0], [0.5, 0.6], 1.0), r"sums to 1\.1"),
        (lambda: regularised_optimum([1.0, 2.0], [0.5, 0.5], 0.0), r"beta=0\.0"),
        (lambda: regularised_optimum([1.0, np.inf], [0.5, 0.5], 1.0), "finite reward"),
    ],
)
def test_bad_input_is_named(call, says) -> None:
    with pytest.raises(DataError, match=says):
        call()
