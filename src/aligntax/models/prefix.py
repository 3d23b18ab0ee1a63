"""One prefix, many continuations: what comes before is computed once and its keys and values are shared.

Prompts of one chat template begin alike (system prompt, role markers), and every rollout from a prefill begins with all
of it. Attention is causal, so the shared part is the same whatever follows.
"""

import copy
import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from aligntax.models.blocks import backbone, embedding_device, text_config
from aligntax.models.hidden_logits import final_hidden
from aligntax.models.tree import Tree, tree_inputs

CUTTABLE = {"full_attention", "sliding_attention"}
MASKED = ("sdpa", "eager")
"""Attention that takes a mask of any shape."""


def common_length(sequences: Sequence[tuple[int, ...]], spare: int = 1) -> int:
    """Number of leading tokens that all sequences share, at least `spare` tokens left over in each; 0 for none."""
    if not sequences:
        return 0
    low, high = min(sequences), max(sequences)  # whatever these two share, everything between them shares
    shared = next((k for k, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return max(0, min(shared, min(len(ids) for ids in sequences) - spare))


class SharedPrefix:
    """Keys and values of a prefix `(P,)` of token ids, ready to continue in any number of rows.

    `final_hidden` is then that of the continuation alone: equal to the uncached pass to rounding (in bf16, to its
    rounding: compare cached with cached). Nothing is differentiable. An empty prefix is allowed and caches nothing.
    """

    def __init__(self, model: PreTrainedModel, ids: Sequence[int]) -> None:
        self.model = model
        self.length = len(ids)
        self._cache: DynamicCache | None = None
        if ids:
            self._cache = DynamicCache(config=model.config)
            device = embedding_device(model)
            row = torch.tensor([list(ids)], device="cpu" if device.type == "meta" else device)
            with torch.no_grad():
                final_hidden(model, row, torch.ones_like(row), self._cache)

    def final_hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Hidden states after the final norm `(B, T, d)` of continuations `(B, T)`, padded on the right."""
        if self.length:
            before = attention_mask.new_ones(len(input_ids), self.length)
            attention_mask = torch.cat([before, attention_mask], dim=1)
        with torch.no_grad():
            return final_hidden(self.model, input_ids, attention_mask, self._copy(len(input_ids)))

    def tree_hidden(self, trees: Sequence[Tree]) -> Tensor:
        """The same `(B, T, d)` for continuations laid out as trees, one a row, in a family that `can_branch`."""
        device = embedding_device(self.model)
        inputs = tree_inputs(trees, self.length, self.model.dtype)
        ids, mask, positions = (each if device.type == "meta" else each.to(device) for each in inputs)
        with torch.no_grad():
            return final_hidden(self.model, ids, mask, self._copy(len(trees)), positions)

    def _copy(self, rows: int) -> DynamicCache | None:
        if self._cache is None:
            return None
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache


def can_share(model: PreTrainedModel) -> bool:
    """Does this family keep keys and values (`past_key_values`)? State-space models do not."""
    return "past_key_values" in inspect.signature(backbone(model).forward).parameters


def can_cut(model: PreTrainedModel) -> bool:
    """Are keys and values all that this family remembers? A state that was summed up cannot be cut back to a shorter prefix."""
    kinds = getattr(text_config(model), "layer_types", None) or ()
    return can_share(model) and set(kinds) <= CUTTABLE


def can_branch(model: PreTrainedModel, longest: int) -> bool:
    """Does this family take positions and a mask as given, for sequences of `longest` tokens?

    Not where states are summed up along the row, where the mask is what positions are read from, or where a window is shorter.
    """
    config = text_config(model)
    positions = "position_ids" in inspect.signature(backbone(model).forward).parameters
    window = getattr(config, "sliding_window", None) or longest
    alibi = getattr(config, "alibi", False)
    return can_cut(model) and positions and config._attn_implementation in MASKED and longest <= window and not alibi
