"""The losses of the training stages, written once in numpy so that training code has something to be compared with.

Losses are to be minimised, objectives and rewards to be maximised. Sums over tokens are divided by the number of tokens
that count (nats per token), so that padding and batch size change nothing; the papers' sums are these means times that
number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax

from aligntax.errors import DataError

Array = NDArray[np.float64]


def token_logprobs(logits: ArrayLike, tokens: ArrayLike) -> Array:
    """`log P(x_t | x_<t)` in nats, (..., T-1), from `logits` (..., T, V) and `tokens` (..., T): logits at t-1 predict t.

    The first token has nothing before it and no entry. Raises DataError for shapes that disagree, fewer than 2 tokens, or
    a token id outside [0, V).
    """
    scores, ids = np.asarray(logits, dtype=np.float64), np.asarray(tokens, dtype=np.int64)
    if scores.ndim < 2 or scores.shape[:-1] != ids.shape or ids.shape[-1] < 2:
        raise DataError(f"logits {scores.shape} and tokens {ids.shape}; give (..., T, V) and (..., T) with T >= 2")
    outside = ids[(ids < 0) | (ids >= scores.shape[-1])]
    if outside.size:
        raise DataError(
            f"token {outside[0]} is outside the vocabulary of {scores.shape[-1]}; mask padding, do not mark it"
        )
    logp = log_softmax(scores[..., :-1, :], axis=-1)
    return np.asarray(np.take_along_axis(logp, ids[..., 1:, None], axis=-1)[..., 0])


def language_model_loss(logits: ArrayLike, tokens: ArrayLike, mask: ArrayLike | None = None) -> float:
    """`-mean log P(x_t | x_<t)`, nats per token, over real tokens that follow a real token.

    `mask` (..., T) is false on padding, left or right: the first real token of a row is never scored, whether padding
    stands before it or not. Raises DataError as `token_logprobs` does, or when no token is left. ([R] pre-training loss)
    """
    real = _flags(mask, np.shape(tokens), "mask")
    return _mean_loss(token_logprobs(logits, tokens), real[..., 1:] & real[..., :-1])


def sft_loss(logits: ArrayLike, tokens: ArrayLike, completion: ArrayLike) -> float:
    """`-mean log P(y_t | x, y_<t)`, nats per token, over the tokens of the completion only: the prompt is given, not learned.

    `completion` (..., T) is true on the answer's tokens, false on prompt and padding. Raises DataError as `token_logprobs`
    does, for a completion that starts at position 0 (nothing predicts it), or when no token is left. ([R] SFT loss)
    """
    flags = _flags(completion, np.shape(tokens), "completion")
    if flags[..., 0].any():
        raise DataError(
            "completion is true at position 0, which nothing predicts; put at least one prompt token before it"
        )
    return _mean_loss(token_logprobs(logits, tokens), flags[..., 1:])


def bradley_terry_loss(chosen: ArrayLike, rejected: ArrayLike) -> float:
    """`-mean log sigmoid(r_w - r_l)`, nats per pair, in (0, inf), from rewards (n,) of the preferred and the other answer.

    Only differences enter, so rewards are known up to a constant for each prompt. log 2 is chance. Raises DataError for
    unequal lengths, no pairs, or rewards that are not finite. ([R] reward model)

    >>> round(bradley_terry_loss([2.0], [2.0]), 6)
    0.693147
    """
    won, lost = _same(("chosen", chosen), ("rejected", rejected))
    return float(np.logaddexp(0.0, lost - won).mean())


def kl_regularised_reward(
    reward: ArrayLike, logprobs: ArrayLike, reference: ArrayLike, beta: float, mask: ArrayLike | None = None
) -> Array:
    """`r(x, y) - beta sum_t log(pi / pi_ref)` for each response, (n,): its mean over responses *sampled from pi* is without
    bias for `E[r] - beta KL(pi || pi_ref)`.

    `reward` (n,); `logprobs` and `reference` (n, T) nats per token or (n,) per response, of the same tokens under policy
    and reference; `mask` like them, false on prompt and padding. A larger beta keeps the policy nearer to the reference.
    Raises DataError for shapes that disagree, beta < 0, or numbers that are not finite. ([R] RLHF objective)
    """
    if not (np.isfinite(beta) and beta >= 0):
        raise DataError(f"beta={beta}; give a finite number of at least 0")
    counts = _flags(mask, np.shape(logprobs), "mask")
    policy, base = _same(("logprobs", logprobs), ("reference", reference), where=counts)
    (gain,) = _same(("reward", reward))
    if policy.ndim not in (1, 2) or gain.shape != policy.shape[:1]:
        raise DataError(f"reward {gain.shape} and logprobs {policy.shape}; give (n,) and (n,) or (n, T)")
    ratio = np.where(counts, policy - base, 0.0)
    return gain - beta * ratio.reshape(len(gain), -1).sum(axis=1)


def clipped_policy_objective(
    logprobs: ArrayLike, old_logprobs: ArrayLike, advantage: ArrayLike, clip: float = 0.2, mask: ArrayLike | None = None
) -> float:
    """`mean min(r A, clip(r, 1-eps, 1+eps) A)` with `r = pi/pi_old` of each token, to be maximised, in units of reward.

    `logprobs` and `old_logprobs` (n, T) nats; `advantage` of the same shape, or (n, 1) where it is one for a response;
    `mask` (n, T) false on prompt and padding. A bound from below on `mean r A`: nothing is won by leaving the range in the
    direction that A pushes, everything is lost by leaving it in the other. Raises DataError for shapes that disagree, eps
    outside (0, 1), numbers that are not finite, or when no token counts. ([R] PPO clipped objective)
    """
    if not 0 < clip < 1:
        raise DataError(f"clip={clip}; give a fraction between 0 and 1, such as 0.2")
    counts = _flags(mask, np.shape(logprobs), "mask")
    new, old = _same(("logprobs", logprobs), ("old_logprobs", old_logprobs), where=counts)
    (gain,) = _same(("advantage", advantage))
    try:
        gain = np.broadcast_to(gain, new.shape)
    except ValueError:
        raise DataError(f"advantage {gain.shape} and logprobs {new.shape}; give one for each token or (n, 1)") from None
    if not counts.any():
        raise DataError(
            f"0 of {counts.size} tokens count; the mean over none is undefined, leave at least one in the mask"
        )
    ratio = np.exp((new - old)[counts])
    return float(np.minimum(ratio * gain[counts], np.clip(ratio, 1 - clip, 1 + clip) * gain[counts]).mean())


def _mean_loss(logp: Array, counts: NDArray[np.bool_]) -> float:
    if not counts.any():
        raise DataError(f"0 of {counts.size} tokens count; the mean over none is undefined, score at least one")
    return float(-logp[counts].mean())


def _flags(mask: ArrayLike | None, shape: tuple[int, ...], name: str) -> NDArray[np.bool_]:
    flags = np.ones(shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if flags.shape != shape:
        raise DataError(f"{name} {flags.shape}; give one flag for each token, {shape}")
    return flags


def _same(*named: tuple[str, ArrayLike], where: NDArray[np.bool_] | None = None) -> list[Array]:
    """Float arrays of one shape, finite where they count."""
    arrays = [np.asarray(values, dtype=np.float64) for _, values in named]
    for (name, _), array in zip(named, arrays, strict=True):
        if array.shape != arrays[0].shape or not array.size:
            raise DataError(
                f"{name} {array.shape} and {named[0][0]} {arrays[0].shape}; give one number for each, at least one"
            )
        counted = array if where is None else array[where]
        if not np.isfinite(counted).all():
            raise DataError(f"{name} holds {counted[~np.isfinite(counted)][0]}; leave that response out and say so")
    return arrays
