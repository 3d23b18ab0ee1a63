"""Central differences through a whole model: what moving block outputs at chosen positions does to a score.

Knows only that blocks are modules whose output is a tensor, or a tuple that begins with it; rows run alone, without
padding, so that no batching can hide here.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


@contextmanager
def pushed(block: nn.Module, push: Tensor, positions: Sequence[int]) -> Iterator[None]:
    """Add `push` `(d,)` to the output of `block` at `positions`."""

    def hook(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        states = (output[0] if isinstance(output, tuple) else output).clone()
        states[:, list(positions)] += push
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = block.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def answer_score(model: Callable[..., object], ids: Sequence[int], start: int) -> float:
    """Mean log-probability, nats, of the tokens from `start` on, of one row alone."""
    with torch.no_grad():
        logits = model(torch.tensor([list(ids)])).logits[0].double()  # type: ignore[attr-defined]
    log = torch.log_softmax(logits, dim=-1)
    return float(np.mean([float(log[t - 1, ids[t]]) for t in range(start, len(ids))]))


def shift_slopes(
    score: Callable[[], float], blocks: Sequence[nn.Module], pushes: Array, positions: Sequence[int], step: float = 1e-2
) -> Array:
    """Slope of the score along each push `(n, d)` at every block in turn, `(L, n)`.

    Four points each, so that the step can be wide: parts of a model may round in single precision whatever its weights
    are kept in.
    """
    slopes = np.zeros((len(blocks), len(pushes)))
    for layer, block in enumerate(blocks):
        for k, along in enumerate(pushes):
            for steps, weight in ((-2, 1.0), (-1, -8.0), (1, 8.0), (2, -1.0)):
                with pushed(block, torch.tensor(steps * step * along), positions):
                    slopes[layer, k] += weight * score() / (12 * step)
    return slopes


def outputs_of(model: Callable[..., object], blocks: Sequence[nn.Module], ids: Sequence[int]) -> Array:
    """Block outputs `(L, T, d)` of one row alone."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> None:
        kept.append((output[0] if isinstance(output, tuple) else output)[0].detach().double())

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        with torch.no_grad():
            model(torch.tensor([list(ids)]))
    finally:
        for handle in handles:
            handle.remove()
    return np.stack([states.numpy() for states in kept])


def long_positions(states: Array, factor: float) -> list[list[int]]:
    """For each layer of `(L, T, d)`, the positions over `factor` times as long as the median one."""
    found = []
    for layer in states:
        lengths = [float(np.sqrt(sum(x * x for x in row))) for row in layer]
        middle = float(np.median(lengths))
        found.append([t for t, length in enumerate(lengths) if length > factor * middle])
    return found
