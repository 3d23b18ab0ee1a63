"""Perplexity counts tokens, bits per byte count text; neither counts what is not scored."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligntax.errors import DataError
from aligntax.stats import bits_per_byte, perplexity


@given(st.integers(1, 500), st.integers(1, 40))
def test_a_uniform_model_is_as_perplexed_as_its_vocabulary_is_large(vocabulary: int, tokens: int) -> None:
    assert perplexity(np.full(tokens, -math.log(vocabulary))) == pytest.approx(vocabulary)


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=30), st.lists(st.floats(-20, 0), max_size=30))
def test_unscored_tokens_do_not_count(scored: list[float], other: list[float]) -> None:
    flags = [True] * len(scored) + [False] * len(other)
    assert perplexity(scored + other, flags) == pytest.approx(perplexity(scored))
    assert bits_per_byte(scored + other, 7, flags) == pytest.approx(bits_per_byte(scored, 7))


def test_how_a_text_is_cut_changes_perplexity_and_not_bits_per_byte() -> None:
    whole, halves = [math.log(1 / 16)], [math.log(1 / 4)] * 2
    assert perplexity(whole) == pytest.approx(16) and perplexity(halves) == pytest.approx(4)
    assert bits_per_byte(whole, 2) == pytest.approx(bits_per_byte(halves, 2)) == pytest.approx(2)


def test_padding_may_hold_anything() -> None:
    assert perplexity([[-1.0, np.nan], [-1.0, 5.0]], [[True, False]] * 2) == pytest.approx(math.e)


def test_an_impossible_token_is_infinitely_surprising() -> None:
    assert perplexity([-1.0, -np.inf]) == np.inf
    assert bits_per_byte([-1.0, -np.inf], 3) == np.inf


def test_undefined_is_an_error() -> None:
    with pytest.raises(DataError, match="0 of 2 tokens"):
        perplexity([-1.0, -2.0], [False, False])
    with pytest.raises(DataError, match=r"log-probability 0\.5"):
        perplexity([-1.0, 0.5])
    with pytest.raises(DataError, match="nan"):
        perplexity([-1.0, np.nan])
    with pytest.raises(DataError, match="differ"):
        perplexity([-1.0, -2.0], [True])
    with pytest.raises(DataError, match="byte_count=0"):
        bits_per_byte([-1.0], 0)
