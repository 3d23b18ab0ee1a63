"""Activations of prompts at the positions between instruction and reply, at every layer, from one forward pass.

Everything that a difference in means or a linear probe needs: for prompts that end in the same template tokens, the
block outputs at each of the last `P` positions. Prompts never interact, so the pass is exact in any batching.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..models import SharedPrefix, Tree, can_branch, can_share, capture_outputs, common_length, final_hidden, plant
from .batches import Batch, Row, run_batches, run_groups
from .gradients import Probe

TREE_WIDTH = 128
"""Tokens of one tree: masks and attention grow with their square, what is run twice falls with them."""
TREE_SAVES = 0.95
"""Trees are used where they leave at most this share of the tokens to run."""


def tail_activations(probe: Probe, rows: Sequence[Row], positions: int) -> np.ndarray:
    """Block outputs `(n, P, L, d)` float32 at the last `P` real positions of every row, last position last.

    Prompts of one template begin with the same tokens; those are run once. So is, where the family allows it, whatever else
    several prompts begin with. A row shorter than `P` repeats its first.
    """
    layers, d = probe.shape
    result = np.zeros((len(rows), positions, layers, d), dtype=np.float32)
    shared = common_length([row.ids for row in rows], spare=positions) if can_share(probe.model) else 0
    prefix = SharedPrefix(probe.model, rows[0].ids[:shared] if rows else ())
    rests = [row.ids[shared:] for row in rows]

    def tails(run: Callable[[], Tensor], line: Tensor, last: Tensor) -> np.ndarray:
        """Outputs of `run` at places `last` `(n, P)` of its lines `(n,)`."""
        with capture_outputs(probe.model) as outputs:
            run()
            picked = [outputs[k][line[:, None], last].float().cpu() for k in range(layers)]
        return torch.stack(picked, dim=2).numpy()

    def in_batch(batch: Batch) -> np.ndarray:
        last = batch.mask.sum(1)
        where = (last[:, None] - positions + torch.arange(positions, device=last.device)).clamp(min=0)
        line = torch.arange(len(batch.rows), device=last.device)
        return tails(lambda: prefix.final_hidden(batch.ids, batch.mask), line, where)

    def in_trees(trees: Sequence[Tree]) -> np.ndarray:
        line = torch.tensor([k for k, tree in enumerate(trees) for _ in tree.rows])
        ends = [[path[max(0, len(path) - back)] for back in range(positions, 0, -1)] for t in trees for path in t.paths]
        return tails(lambda: prefix.tree_hidden(trees), line, torch.tensor(ends))

    def found() -> Iterator[tuple[Sequence[int], np.ndarray]]:
        trees = plant(rests, TREE_WIDTH) if can_branch(probe.model, max(map(len, rests), default=0) + shared) else []
        if not trees or sum(len(tree.ids) for tree in trees) > TREE_SAVES * sum(map(len, rests)):
            plain = [Row(ids, 0, 0) for ids in rests]
            yield from ((batch.rows, part) for batch, part in run_batches(plain, probe.budget, probe.device, in_batch))
            return
        sizes = [len(tree.ids) for tree in trees]
        for chosen, part in run_groups(sizes, probe.budget, lambda group: in_trees([trees[k] for k in group])):
            yield [row for k in chosen for row in trees[k].rows], part

    for indices, values in found():
        result[list(indices)] = values
        probe.advance(sum(len(rows[k].ids) for k in indices))
    return result


def answer_activations(probe: Probe, rows: Sequence[Row]) -> np.ndarray:
    """Mean block output `(n, L, d)` float32 over each row's scored tokens, sinks left out."""

    def scored(batch: Batch) -> Tensor:
        chosen = batch.scored.clone()
        chosen[:, [p for p in probe.sinks if p < chosen.shape[1]]] = False
        return chosen

    return mean_outputs(probe, rows, scored)


def mean_outputs(probe: Probe, rows: Sequence[Row], positions: Callable[[Batch], Tensor]) -> np.ndarray:
    """Mean block output `(n, L, d)` float32 of each row over the positions `(rows, T)` that `positions` picks of a batch.

    A row of which nothing is picked is 0.
    """
    layers, d = probe.shape
    result = np.zeros((len(rows), layers, d), dtype=np.float32)

    def step(batch: Batch) -> Tensor:
        chosen = positions(batch)
        weight = (chosen / chosen.sum(1, keepdim=True).clamp(min=1)).float()
        with torch.no_grad(), capture_outputs(probe.model) as outputs:
            final_hidden(probe.model, batch.ids, batch.mask)
            means = [
                torch.einsum("bt,btd->bd", weight.to(outputs[k].device), outputs[k].float()) for k in range(layers)
            ]
        return torch.stack([m.cpu() for m in means], dim=1)

    for batch, values in run_batches(rows, probe.budget, probe.device, step):
        result[list(batch.rows)] = values.numpy()
        probe.advance(batch.tokens)
    return result
