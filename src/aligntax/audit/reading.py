"""One teacher-forced pass of each of two models over the same rows: everything that is read off next-token laws, at every depth.

A row is a prompt and a response; position 1 of the response follows the prompt (depth 0), position `t` follows `t - 1` of its
tokens. Kept are numbers a position: KL both ways, and the log-odds of the recovery tokens under either model. The head is applied
to a chunk of positions at a time and reduced at once, so that no `(batch, time, vocab)` tensor ever exists.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aligntax.audit.sides import Side, widths
from aligntax.errors import AligntaxError, ModelError, NonFiniteError
from aligntax.probing import Batch, Row, TokenBudget, run_batches

Array = NDArray[np.float64]

CHUNK_BYTES = 32 * 2**20
"""Bytes of one float32 chunk of logits `(positions, vocab)`; one of either model is alive at once."""
CACHED_BYTES = 2**21
"""Bytes of a chunk that are compared at once on a CPU: some twenty passes go over them, within its cache."""


@dataclass(frozen=True, eq=False)
class PairReading:
    """What two models said at every position of `n` responses of at most `T` tokens; nan beyond a response.

    `forward` `(n, T)` is `KL(aligned | base)` and `reverse` `KL(base | aligned)`, nats, of the token at position `1..T`.
    `odds_base`, `odds_aligned` `(n, T + 1)`: `logit pi(R | prefix)` in nats after prefixes of `0..T` response tokens; None where no
    recovery tokens were given. `prompts` `(n,)`: which prompt a row belongs to.
    """

    forward: Array
    reverse: Array
    prompts: NDArray[np.int64]
    odds_base: Array | None = None
    odds_aligned: Array | None = None


def read_pair(
    base: Side,
    aligned: Side,
    rows: Sequence[Row],
    budget: TokenBudget,
    device: torch.device,
    recovery: Sequence[int] = (),
) -> PairReading:
    """Read both models on `rows` (prompt and response ids, `start` the first response token, `item` the prompt).

    `recovery` are the token ids of `R`. Log-softmax in float32, `-inf` logits allowed: a token that neither model can say adds
    nothing, one that only the first can makes KL infinite. Results do not depend on order, batching or padding.
    Raises ModelError for vocabularies that differ, NonFiniteError for nan or `+inf` logits, AligntaxError for no rows, a row
    without a response or without a token before it, or recovery tokens that are not some of the vocabulary.
    """
    _check(base, aligned, rows, recovery)
    chosen = torch.tensor(sorted(set(recovery)), dtype=torch.long)
    size = max(1, CHUNK_BYTES // (4 * base.vocabulary))
    longest = max(len(row.ids) - row.start for row in rows)
    found = np.full((4, len(rows), longest + 1), math.nan)

    def step(batch: Batch) -> NDArray[np.float64]:
        p, q = aligned.hidden(rows, batch), base.hidden(rows, batch)
        pieces = [
            _compared(aligned.logits(p[start : start + size]), base.logits(q[start : start + size]), chosen)
            for start in range(0, len(p), size)
        ]
        return torch.cat(pieces, dim=1).double().cpu().numpy()

    for batch, values in run_batches(rows, budget, device, step):
        sizes = widths([rows[r] for r in batch.rows])
        for r, part in zip(batch.rows, np.split(values, np.cumsum(sizes)[:-1], axis=1), strict=True):
            found[:, r, : part.shape[1]] = part
            found[:2, r, part.shape[1] - 1] = math.nan  # nothing is scored after the last token
    odds = (found[2], found[3]) if len(chosen) else (None, None)
    prompts = np.array([row.item for row in rows], dtype=np.int64)
    return PairReading(found[0, :, :-1], found[1, :, :-1], prompts, *odds)


def _compared(aligned: Tensor, base: Tensor, recovery: Tensor) -> Tensor:
    """`_compare` of a chunk, on a CPU a few rows at a time."""
    few = CACHED_BYTES // (4 * aligned.shape[1]) if aligned.device.type == "cpu" else len(aligned)
    pairs = zip(aligned.split(max(1, few)), base.split(max(1, few)), strict=True)
    return torch.cat([_compare(*pair, recovery) for pair in pairs], dim=1)


def _compare(aligned: Tensor, base: Tensor, recovery: Tensor) -> Tensor:
    """`(4, n)`: KL of aligned to base, the reverse, log-odds of recovery under base and aligned (nan without tokens).

    Consumes its logits. With `d = log p - log q` both sums have terms that are >= 0, `p d + (q - p)` and `-q d - (q - p)`, and
    `q - p` is taken from `d`: the plain sum loses a KL of 1e-8 in rounding.
    """
    base = base.to(aligned.device)
    logp, odds_aligned = _normalised(aligned, recovery.to(aligned.device))
    logq, odds_base = _normalised(base, recovery.to(aligned.device))
    d = logp - logq
    possible = bool(torch.isfinite(d).all())
    if not possible:
        d = torch.nan_to_num(d, nan=0.0, posinf=math.inf, neginf=-math.inf)
    p, q = logp.exp_(), logq.exp_()
    gain = d.abs().neg_().expm1_().mul_(torch.maximum(p, q)).copysign_(d).neg_()  # q - p
    forward, reverse = p.mul_(d), q.mul_(d).neg_()
    if not possible:  # a probability of exactly 0 contributes nothing, whatever the other model says
        forward, reverse = (torch.nan_to_num(x, nan=0.0, posinf=math.inf) for x in (forward, reverse))
    sums = [forward.add_(gain).sum(-1).clamp_(min=0), reverse.sub_(gain).sum(-1).clamp_(min=0)]
    return torch.stack([*sums, odds_base, odds_aligned])


def _normalised(logits: Tensor, recovery: Tensor) -> tuple[Tensor, Tensor]:
    """Log-softmax, in place, and the log-odds `(n,)` of the recovery tokens, exact however near their mass is to 1."""
    kept = logits[:, recovery]
    logits[:, recovery] = -math.inf
    rest, mass = logits.logsumexp(-1), kept.logsumexp(-1)
    logits[:, recovery] = kept
    total = torch.logaddexp(rest, mass)
    if not bool(torch.isfinite(total).all()):
        bad = float(total[~torch.isfinite(total)][0])
        raise NonFiniteError(f"logits sum to {bad} (nan or infinite); check the weights, or use --dtype float32")
    odds = mass - rest if len(recovery) else torch.full_like(total, math.nan)
    return logits.sub_(total[:, None]), odds


def _check(base: Side, aligned: Side, rows: Sequence[Row], recovery: Sequence[int]) -> None:
    if base.vocabulary != aligned.vocabulary:
        raise ModelError(
            f"vocabularies of {base.vocabulary} (base) and {aligned.vocabulary} (aligned) tokens; "
            "compare models of one tokenizer"
        )
    if not rows:
        raise AligntaxError("no responses to read; give at least one prompt with a response")
    for row in rows:
        if not 1 <= row.start < len(row.ids):
            raise AligntaxError(
                f"a row of {len(row.ids)} tokens starts its response at {row.start}; it needs a prompt before and a token after"
            )
    wrong = [token for token in recovery if not 0 <= token < base.vocabulary]
    if wrong or len(set(recovery)) >= base.vocabulary:
        raise AligntaxError(f"recovery tokens {wrong or 'all'}: give some, not all, of 0..{base.vocabulary - 1}")
