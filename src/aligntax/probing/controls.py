"""Control tasks: directions that no capability has, through the same estimator (theory 2.4).

A control task asks for an answer that does not belong to its prompt. Two kinds, half each: *shuffled*, the first token
of another item's answer of the same task, and *random*, one random token for all prompts. One forward pass of the
prompts serves every control task made from them; each costs one more backward pass.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..models import add_shift, target_logprobs
from .batches import Batch, Row, run_batches
from .gradients import Probe, require_finite
from .metrics import last_hidden
from .shiftable import shift_mask


def control_targets(firsts: Sequence[int], copies: int, vocab: int, rng: np.random.Generator) -> np.ndarray:
    """Targets `(copies, n)`: even copies shuffle the items' own first answer tokens, odd ones repeat a random token."""
    n = len(firsts)
    targets = np.zeros((copies, n), dtype=np.int64)
    for c in range(copies):
        if c % 2 == 0:
            turn = rng.permutation(n)
            shuffled = np.empty(n, dtype=np.int64)
            shuffled[turn] = np.asarray(firsts)[np.roll(turn, 1)]
            targets[c] = shuffled
        else:
            targets[c] = rng.integers(0, vocab)
    return targets


def control_gradients(
    probe: Probe, prompts: Sequence[Row], targets: np.ndarray, groups: np.ndarray, count: int
) -> np.ndarray:
    """Group means of the gradients of `log p(target)` after each prompt: `(copies, J, L, d)` float64.

    `groups[i]` is the group of prompt `i`; every group must have at least one prompt.
    """
    layers, d = probe.shape
    sums = np.zeros((len(targets), count, layers, d))

    def step(batch: Batch) -> np.ndarray:
        return _row_gradients(probe, batch, targets[:, list(batch.rows)])

    for batch, found in run_batches(prompts, probe.budget, probe.device, step):
        for k, row in enumerate(batch.rows):
            sums[:, groups[row]] += found[:, k]
        probe.advance(batch.tokens * (1 + len(targets)) // 2)
    return sums / np.maximum(np.bincount(groups, minlength=count), 1)[None, :, None, None]


def _row_gradients(probe: Probe, batch: Batch, targets: np.ndarray) -> np.ndarray:
    """Gradients `(copies, batch, L, d)` float32 of the log-probability of every copy's targets `(copies, batch)`."""
    shift = torch.zeros(len(batch.rows), *probe.shape, device=batch.ids.device, requires_grad=True)
    mask = shift_mask(batch, probe.shift, probe.sinks)
    found = np.zeros((len(targets), *shift.shape), dtype=np.float32)
    with torch.enable_grad(), add_shift(probe.model, shift, positions_mask=mask):
        hidden = last_hidden(probe.model, batch)
        for c, wanted in enumerate(targets):
            score = target_logprobs(probe.model, hidden, torch.as_tensor(wanted, device=hidden.device))
            (gradient,) = torch.autograd.grad(score.sum(), shift, retain_graph=c + 1 < len(targets))
            require_finite(gradient, "control tasks")
            found[c] = gradient.cpu().numpy()
    return found
