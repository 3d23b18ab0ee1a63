"""Many sequences as one tree: what several begin with alike is run once, wherever they part.

A token's hidden state depends on the tokens before it alone. So sequences are laid out as branches, each token with its depth as
position, and attention goes to ancestors only: one row then holds many sequences and no padding between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass
class Tree:
    """Tokens of a tree, parents before children: `ids`, `depths` and `parents` (-1: none) by token.

    `rows` are the indices of the sequences it holds, `paths` their tokens as indices into `ids`.
    """

    ids: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    paths: list[list[int]] = field(default_factory=list)

    def shared(self, sequence: tuple[int, ...]) -> list[int]:
        """The leading tokens of `sequence` that the last path has too, as indices."""
        last = self.paths[-1] if self.paths else []
        same = 0
        while same < min(len(last), len(sequence)) and self.ids[last[same]] == sequence[same]:
            same += 1
        return last[:same]

    def add(self, row: int, sequence: tuple[int, ...]) -> None:
        """Let `sequence` part from the last path where it differs."""
        path = self.shared(sequence)
        for depth in range(len(path), len(sequence)):
            self.parents.append(path[-1] if path else -1)
            path.append(len(self.ids))
            self.ids.append(sequence[depth])
            self.depths.append(depth)
        self.rows.append(row)
        self.paths.append(path)

    def ancestors(self) -> np.ndarray:
        """`(T, T)` bool: may token i see token j? Itself and what it came from."""
        seen = np.eye(len(self.ids), dtype=bool)
        for token, parent in enumerate(self.parents):
            if parent >= 0:
                seen[token] |= seen[parent]
        return seen


def plant(sequences: Sequence[tuple[int, ...]], width: int) -> list[Tree]:
    """Trees of at most `width` tokens (a longer sequence stands alone) that hold every sequence once.

    In sorted order neighbours share most, so a sequence is compared with the one before it only.

    >>> [(tree.ids, tree.paths) for tree in plant([(5, 6, 7), (5, 6, 8)], 10)]
    [([5, 6, 7, 8], [[0, 1, 2], [0, 1, 3]])]
    """
    trees: list[Tree] = []
    for row in sorted(range(len(sequences)), key=lambda k: sequences[k]):
        sequence = sequences[row]
        if not trees or len(trees[-1].ids) + len(sequence) - len(trees[-1].shared(sequence)) > width:
            trees.append(Tree())
        trees[-1].add(row, sequence)
    return trees


def tree_inputs(trees: Sequence[Tree], before: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Ids `(B, T)`, additive mask `(B, 1, T, before + T)` and positions `(B, T)` of trees that continue `before` tokens."""
    width = max(len(tree.ids) for tree in trees)
    ids, positions = np.zeros((2, len(trees), width), dtype=np.int64)
    seen = np.zeros((len(trees), width, before + width), dtype=bool)
    seen[:, :, :before] = True
    seen[:, np.arange(width), before + np.arange(width)] = True  # padding sees itself: no row of the mask is empty
    for k, tree in enumerate(trees):
        size = len(tree.ids)
        ids[k, :size], positions[k, :size] = tree.ids, np.array(tree.depths) + before
        seen[k, :size, before : before + size] = tree.ancestors()
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~torch.from_numpy(seen), torch.finfo(dtype).min)
    return torch.from_numpy(ids), mask.unsqueeze(1), torch.from_numpy(positions)
