"""Fisher information of a shift: sampled score vectors whose outer products average to it (theory 1.11).

For a fixed text, draw every next token from the model and take one backward pass of the sum of their log-probabilities
over the response: `E[g g^T] = sum_t F_t` exactly. Divided by the mean response length, `KL ~ 1/2 delta^T F delta` is in
nats per response token. The rank is at most the number of draws.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..models import add_shift, final_hidden, logits_of, target_logprobs
from .batches import Batch, Row, run_batches
from .gradients import Probe
from .shiftable import shift_mask


def fisher_draws(probe: Probe, texts: Sequence[Row], draws: int, seed: int) -> np.ndarray:
    """Score vectors `(texts * draws, L, d)` float32; text `i` holds rows `i * draws` to `(i + 1) * draws - 1`."""
    layers, d = probe.shape
    scores = np.zeros((len(texts), draws, layers, d), dtype=np.float32)

    def step(batch: Batch) -> np.ndarray:
        shift = torch.zeros(len(batch.rows), layers, d, device=batch.ids.device, requires_grad=True)
        mask = shift_mask(batch, probe.shift, probe.sinks)
        found = np.zeros((len(batch.rows), draws, layers, d), dtype=np.float32)
        with torch.enable_grad(), add_shift(probe.model, shift, positions_mask=mask):
            hidden = final_hidden(probe.model, batch.ids, batch.mask)
            rows, positions = batch.scored.nonzero(as_tuple=True)
            picked = hidden[rows.to(hidden.device), positions.to(hidden.device) - 1]
            for k in range(draws):
                score = target_logprobs(probe.model, picked, _sample(probe, picked, batch.rows, seed, k))
                (gradient,) = torch.autograd.grad(score.sum(), shift, retain_graph=k + 1 < draws)
                found[:, k] = gradient.cpu().numpy()
        return found

    for batch, values in run_batches(texts, probe.budget, probe.device, step):
        scores[list(batch.rows)] = values
        probe.advance(batch.tokens)
    return scores.reshape(-1, layers, d)


def _sample(probe: Probe, hidden: torch.Tensor, rows: Sequence[int], seed: int, draw: int) -> torch.Tensor:
    generator = torch.Generator(device="cpu").manual_seed(hash((seed, draw, tuple(rows))) % 2**63)
    chosen = []
    with torch.no_grad():
        for piece in hidden.detach().split(256):
            p = logits_of(probe.model, piece).softmax(-1).cpu()
            chosen.append(torch.multinomial(p, 1, generator=generator)[:, 0])
    return torch.cat(chosen).to(hidden.device)


def response_length(texts: Sequence[Row]) -> float:
    """Mean number of response tokens of the texts."""
    return float(np.mean([len(row.ids) - row.start for row in texts]))
