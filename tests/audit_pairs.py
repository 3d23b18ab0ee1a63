"""Pairs of models, rows and exact worlds that the tests of the audit share."""

import numpy as np
import torch
from conftest import VOCAB

from aligntax.audit import PairReading
from aligntax.lab import TabularPolicy
from aligntax.probing import Row

CPU = torch.device("cpu")
RECOVERY = (9, 11, 40)


def response_rows(seed: int = 0, rows: int = 7, prompts: int = 4, longest: int = 12) -> list[Row]:
    """Rows of many lengths; several answer the same prompt number."""
    rng = np.random.default_rng(seed)
    lengths = [longest, *rng.integers(1, longest + 1, rows - 1)]
    return [
        Row(tuple(int(t) for t in rng.integers(7, VOCAB, 2 + k % 5 + n)), 2 + k % 5, k % prompts)
        for k, n in enumerate(int(n) for n in lengths)
    ]


def full_logprobs(model, row: Row) -> torch.Tensor:
    """Log-probabilities `(n + 1, vocab)` in float64 after each prefix of one response alone, from the model's own logits."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.ids])).logits[0]
    return logits[row.start - 1 :].double().log_softmax(-1)


def world_reading(
    base: TabularPolicy, aligned: TabularPolicy, recovery: tuple[int, ...], draws: int, seed: int
) -> PairReading:
    """What a pass would read of two exact policies on sequences that `aligned` wrote, one prompt each.

    Depths `0..T-1`: a world ends after `T` tokens, so nothing is said after the last prefix.
    """
    leaves = aligned.sample(np.zeros(draws, dtype=np.int64), 0, np.random.default_rng(seed))
    size, length = aligned.vocabulary, aligned.length
    columns = []
    for t in range(length):
        prefix = leaves // size ** (length - t)
        p, q = aligned.logits[t][prefix], base.logits[t][prefix]
        columns.append(
            [(np.exp(p) * (p - q)).sum(-1), (np.exp(q) * (q - p)).sum(-1)] + [_log_odds(x, recovery) for x in (q, p)]
        )
    forward, reverse, odds_base, odds_aligned = np.array(columns).transpose(1, 2, 0)
    beyond = np.full((draws, 1), np.nan)
    return PairReading(
        forward, reverse, np.arange(draws), np.hstack([odds_base, beyond]), np.hstack([odds_aligned, beyond])
    )


def _log_odds(rows: np.ndarray, recovery: tuple[int, ...]) -> np.ndarray:
    mass = np.exp(rows[:, list(recovery)]).sum(-1)
    return np.log(mass / (1 - mass))
