"""How surprised a model is by text: per token, and per byte so that tokenizers can be compared.

Only scored tokens count. A perplexity belongs to its tokenizer: two models that cut the text differently are compared by
bits per byte, never by perplexity.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aligntax.errors import DataError


def perplexity(logprobs: ArrayLike, scored: ArrayLike | None = None) -> float:
    """`exp(-mean log p)` over scored tokens: the number of equally likely tokens that would surprise as much, in [1, inf].

    `logprobs` (any shape) are natural logarithms of the tokens' probabilities; `scored` (same shape, true or false) says
    which count, all without it. inf where a scored token was impossible. Raises DataError when nothing is scored, on nan
    and on `log p > 0` among the scored. ([R] perplexity)

    >>> round(perplexity(np.log([0.5, 0.125])), 12)
    4.0
    """
    counted = _scored(logprobs, scored)
    with np.errstate(over="ignore"):
        return float(np.exp(-counted.mean()))


def bits_per_byte(logprobs: ArrayLike, byte_count: int, scored: ArrayLike | None = None) -> float:
    """`-sum log2 p / bytes`: bits of an ideal code for each UTF-8 byte of the scored text, in [0, inf].

    `byte_count` is of the text that the scored tokens spell, nothing else: `len(text.encode())`. Unlike perplexity it
    does not depend on how the text was cut. Raises DataError as `perplexity` does, and for fewer than 1 byte.
    ([R] perplexity, sharpened)

    >>> bits_per_byte(np.log([0.5, 0.125]), 8)
    0.5
    """
    if byte_count < 1:
        raise DataError(f"byte_count={byte_count}; give the number of UTF-8 bytes of the scored text, at least 1")
    return float(-_scored(logprobs, scored).sum() / (np.log(2) * byte_count))


def _scored(logprobs: ArrayLike, scored: ArrayLike | None) -> NDArray[np.float64]:
    values = np.asarray(logprobs, dtype=np.float64)
    counts = np.ones(values.shape, dtype=bool) if scored is None else np.asarray(scored, dtype=bool)
    if counts.shape != values.shape:
        raise DataError(f"scored {counts.shape} and logprobs {values.shape} differ; give one flag for each token")
    values = values[counts]
    if not values.size:
        raise DataError(f"0 of {counts.size} tokens are scored; the mean over none is undefined, score at least one")
    wrong = values[np.isnan(values) | (values > 1e-6)]
    if wrong.size:
        raise DataError(
            f"log-probability {wrong[0]} of a scored token; give natural logarithms of probabilities, at most 0"
        )
    return values
