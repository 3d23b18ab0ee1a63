"""Fisher information of a shift: sampled score vectors whose outer products average to it (theory 1.11).

For a fixed text, draw every next token from the model and take one backward pass of the sum of their log-probabilities
over the response: `E[g g^T] = sum_t F_t` exactly. Divided by the mean response length, `KL ~ 1/2 delta^T F delta` is in
nats per response token. The rank is at most the number of draws.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..models import add_shift, final_hidden, logits_of, target_logprobs
from .batches import Batch, Row, run_batches
from .gradients import Probe, require_finite
from .shiftable import shift_mask

CHUNK = 64


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
                score = target_logprobs(probe.model, picked, _sample(probe, picked, _uniforms(batch, seed, k)))
                (gradient,) = torch.autograd.grad(score.sum(), shift, retain_graph=k + 1 < draws)
                require_finite(gradient, "KL texts")
                found[:, k] = gradient.cpu().numpy()
        return found

    for batch, values in run_batches(texts, probe.budget, probe.device, step):
        scores[list(batch.rows)] = values
        probe.advance(batch.tokens)
    return scores.reshape(-1, layers, d)


def _uniforms(batch: Batch, seed: int, draw: int) -> Tensor:
    """One uniform number per scored token, from the text's own stream: draws do not depend on the batching."""
    counts = batch.scored.sum(1).tolist()
    streams = [np.random.default_rng([seed, draw, row]).random(n) for row, n in zip(batch.rows, counts, strict=True)]
    return torch.from_numpy(np.concatenate(streams))


def _sample(probe: Probe, hidden: Tensor, uniforms: Tensor) -> Tensor:
    """Next tokens `(N,)` from the model's own distribution, by inverting its cumulative distribution."""
    chosen = []
    with torch.no_grad():
        for piece, u in zip(hidden.detach().split(CHUNK), uniforms.split(CHUNK), strict=True):
            cumulative = logits_of(probe.model, piece).softmax(-1).cpu().double().cumsum(-1)
            aim = u[:, None] * cumulative[:, -1:]
            # Strictly above: a token of probability 0 is never drawn.
            chosen.append(torch.searchsorted(cumulative, aim, right=True)[:, 0])
    return torch.cat(chosen).to(hidden.device)


def response_length(texts: Sequence[Row]) -> float:
    """Mean number of response tokens of the texts."""
    return float(np.mean([len(row.ids) - row.start for row in texts]))
