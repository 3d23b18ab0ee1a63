"""KL between two models by position of the response, as sums and counts that merge.

The estimand is `D_t = E KL(aligned(.|y_<t) | base(.|y_<t))` in nats, over the responses that reach position `t`. On texts that
the aligned model wrote, `sum_t D_t` is the KL of whole responses; on forced texts it is not, and the profile says which it is.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from aligntax.depth.innovations import Array
from aligntax.errors import DepthError

Text = Literal["aligned", "forced"]


@dataclass(frozen=True, eq=False)
class KlProfile:
    """`total` `(T,)` nats summed by position 1..T of the response and `count` `(T,)` of positions that entered.

    `text`: "aligned" where the aligned model wrote the responses, "forced" where both models read given text.
    """

    total: Array
    count: NDArray[np.int64]
    text: Text

    @property
    def mean(self) -> Array:
        """`D_t` `(T,)` in nats per response token; nan at positions that no response reaches."""
        with np.errstate(invalid="ignore"):
            return np.where(self.count > 0, self.total / self.count, math.nan)

    @property
    def tokens(self) -> int:
        """Positions that entered, over all responses."""
        return int(self.count.sum())

    def merge(self, other: "KlProfile") -> "KlProfile":
        """Both sets of responses together; the shorter profile is padded. Raises DepthError for different kinds of text."""
        if self.text != other.text:
            raise DepthError(
                f"profiles on {self.text} and {other.text} text estimate different things; keep them apart"
            )
        length = max(self.total.size, other.total.size)
        total, count = np.zeros(length), np.zeros(length, dtype=np.int64)
        for part in (self, other):
            total[: part.total.size] += part.total
            count[: part.count.size] += part.count
        return KlProfile(total, count, self.text)


def kl_profile(aligned: Any, base: Any, mask: Any = None, *, text: Text) -> KlProfile:
    """Profile of one batch: log-probabilities or logits `(n, T, V)` of both models at the same response tokens.

    `mask` `(n, T)` is true where a response token is predicted (all if None); positions count from the first true entry of a row,
    so padding on either side changes nothing, and what stands in padding is never read. Log-softmax in float32, sums in float64;
    a token that the aligned model cannot say adds nothing, one that only it can say makes KL infinite. Raises DepthError for shapes
    that differ, nan or +inf in a scored position, or a scored position without any possible token. [S] §8, measured on a real pair.
    """
    p, q = np.asarray(aligned), np.asarray(base)
    if text not in get_args(Text):
        raise DepthError(f"text={text!r}; say 'aligned' (own samples) or 'forced' (given text)")
    if p.ndim != 3 or p.shape != q.shape:
        raise DepthError(f"aligned has shape {p.shape} and base {q.shape}; expected (n, T, V) from the same vocabulary")
    scored = np.ones(p.shape[:2], dtype=bool) if mask is None else np.asarray(mask).astype(bool)
    if scored.shape != p.shape[:2]:
        raise DepthError(f"mask has shape {scored.shape}; expected {p.shape[:2]}")
    longest = int(scored.sum(axis=1).max(initial=0))
    total, count = np.zeros(longest), np.zeros(longest, dtype=np.int64)
    for row, keep in enumerate(scored):
        nats = token_kl(p[row][keep], q[row][keep])
        total[: nats.size] += nats
        count[: nats.size] += 1
    return KlProfile(total, count, text)


def token_kl(aligned: Any, base: Any) -> Array:
    """`KL(aligned | base)` `(n,)` in nats, by row of logits or log-probabilities `(n, V)`; >= 0, accurate near 0.

    Summed as `p (d + e^-d - 1)`, `d = log p - log q`, whose terms are all >= 0: the plain sum loses a KL of 1e-8 in rounding.
    """
    p, q = _log_softmax(aligned, "aligned"), _log_softmax(base, "base")
    with np.errstate(invalid="ignore", over="ignore"):
        d = np.where(p > -np.inf, p - q, np.float32(0.0))
        near = np.exp(p) * (d + np.expm1(-d))
        far = np.where(p > -np.inf, np.exp(p) * d, np.float32(0.0)) + np.exp(q) - np.exp(p)
        terms = np.where((np.abs(d) < 0.5) & (p > -np.inf), near, far)
    return np.asarray(terms.sum(axis=-1, dtype=np.float64))


def _log_softmax(logits: Any, name: str) -> NDArray[np.float32]:
    rows = np.asarray(logits).astype(np.float32)
    if np.isnan(rows).any() or (rows == np.inf).any():
        raise DepthError(f"{name} holds {rows[np.isnan(rows) | (rows == np.inf)][0]} at a scored position; mask it out")
    top = rows.max(axis=-1, keepdims=True)
    if (top == -np.inf).any():
        raise DepthError(f"{name} gives every token -inf at a scored position; at least one must be possible")
    shifted = rows - top
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
