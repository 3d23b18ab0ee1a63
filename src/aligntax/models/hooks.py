"""Edits of a running model, each a context manager that leaves the model as it found it, exception or not.

Everything happens at block *outputs*: layer `l` is the residual stream after block `l`, which transformers calls
`hidden_states[l + 1]` (its entry 0 is the embedding, and its last entry has passed the final norm).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from aligntax.errors import ModelError
from aligntax.models.blocks import decoder_blocks, repack, unpack

_Hook = Callable[[nn.Module, tuple[object, ...], Tensor | tuple[Tensor, ...]], Tensor | tuple[Tensor, ...] | None]


@contextmanager
def add_shift(
    model: PreTrainedModel,
    shift: Tensor,
    layers: Sequence[int] | None = None,
    positions_mask: Tensor | None = None,
    blocks: nn.ModuleList | None = None,
) -> Iterator[int]:
    """Add a vector to the output of every chosen block while the context is open; yields the number of hooks.

    `shift` is `(L, d)`, or `(B, L, d)` with one vector per row of the batch, in the residual stream's own unit;
    `L = len(layers)`, or the number of blocks when `layers` is None. It reaches every position, or those where
    `positions_mask` `(B, T)` is true. It is cast to the activation's dtype and device, and the gradient flows back
    through the cast: with a zero `(B, L, d)` leaf, one backward pass gives per-row gradients at all layers
    (the zero-shift estimator, [G] Def 3.2; rows must not interact, which attention within a row does not make them).
    Raises ModelError for shapes or layers that do not fit.
    """
    blocks = decoder_blocks(model) if blocks is None else blocks
    chosen = _chosen(blocks, layers)
    if shift.ndim not in (2, 3) or shift.shape[-2] != len(chosen):
        raise ModelError(
            f"shift has shape {tuple(shift.shape)}; give ({len(chosen)}, d) or (batch, {len(chosen)}, d): "
            "one vector per chosen layer"
        )
    rows = shift if shift.ndim == 3 else shift.unsqueeze(0)

    def hook_for(index: int) -> _Hook:
        def hook(_: nn.Module, __: tuple[object, ...], output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple:
            activation = unpack(output)
            return repack(output, activation + _spread(rows[:, index], activation, positions_mask))

        return hook

    with _hooked({blocks[layer]: hook_for(index) for index, layer in enumerate(chosen)}) as placed:
        yield placed


@contextmanager
def capture_outputs(
    model: PreTrainedModel,
    layers: Sequence[int] | None = None,
    blocks: nn.ModuleList | None = None,
    detach: bool = True,
) -> Iterator[dict[int, Tensor]]:
    """Yield a dict that each forward pass fills: layer number -> block output `(B, T, d)`, detached, not copied.

    The next forward pass replaces the entries. Shifts added in an outer `add_shift` are included. With `detach=False` the
    outputs keep their graph.
    """
    blocks = decoder_blocks(model) if blocks is None else blocks
    outputs: dict[int, Tensor] = {}

    def hook_for(layer: int) -> _Hook:
        def hook(_: nn.Module, __: tuple[object, ...], output: Tensor | tuple[Tensor, ...]) -> None:
            activation = unpack(output)
            outputs[layer] = activation.detach() if detach else activation

        return hook

    with _hooked({blocks[layer]: hook_for(layer) for layer in _chosen(blocks, layers)}):
        yield outputs


@contextmanager
def start_after(model: PreTrainedModel, layer: int, output: Tensor, as_tuple: bool) -> Iterator[None]:
    """Skip blocks 0 to `layer` while the context is open: the output of block `layer` is `output` `(B, T, d)`.

    What was computed once below `layer` (by `capture_outputs`) is not computed again. Inputs must be those of the pass
    that gave `output`; `as_tuple` is what `returns_tuple` says of this model. An `add_shift` at `layer` or above adds to it
    as usual; one below has no effect. Exact: the blocks above see the same numbers.
    """
    blocks = decoder_blocks(model)
    skipped = list(blocks)[: _chosen(blocks, [layer])[0] + 1]
    given = (output,) if as_tuple else output
    own = [block.__dict__.get("forward") for block in skipped]
    try:
        for block in skipped:
            block.forward = lambda *_, **__: given  # type: ignore[method-assign]
        yield
    finally:
        for block, forward in zip(skipped, own, strict=True):
            if forward is None:
                del block.forward
            else:
                block.forward = forward  # type: ignore[method-assign]


def returns_tuple(model: PreTrainedModel) -> bool:
    """Does a decoder block of this model return a tuple rather than a tensor? Found by running one token."""
    seen: list[bool] = []
    handle = decoder_blocks(model)[0].register_forward_hook(
        lambda _, __, output: seen.append(isinstance(output, tuple))
    )
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device))
    finally:
        handle.remove()
    return seen[0]


@contextmanager
def _hooked(hooks: Mapping[nn.Module, _Hook]) -> Iterator[int]:
    handles = []
    try:
        for block, hook in hooks.items():
            handles.append(block.register_forward_hook(hook))
        yield len(handles)
    finally:
        for handle in handles:
            handle.remove()


def _chosen(blocks: nn.ModuleList, layers: Sequence[int] | None) -> list[int]:
    depth = len(blocks)
    chosen = list(range(depth) if layers is None else layers)
    wrong = [layer for layer in chosen if not 0 <= layer < depth]
    if wrong or len(set(chosen)) != len(chosen):
        raise ModelError(f"layers {chosen}: each must be given once and lie in 0..{depth - 1}")
    return chosen


def _spread(vector: Tensor, activation: Tensor, mask: Tensor | None) -> Tensor:
    """`vector` `(1 or B, d)` as something that adds to `activation` `(B, T, d)`."""
    if vector.shape[-1] != activation.shape[-1] or vector.shape[0] not in (1, activation.shape[0]):
        raise ModelError(
            f"shift of {tuple(vector.shape)} per layer does not fit activations of shape {tuple(activation.shape)}"
        )
    moved = vector.to(activation.device, activation.dtype).unsqueeze(1)
    if mask is None:
        return moved
    if mask.shape != activation.shape[:2]:
        raise ModelError(
            f"positions_mask has shape {tuple(mask.shape)}, the activations {tuple(activation.shape)}; "
            "a mask fits one uncached pass over the whole batch"
        )
    return moved * mask.to(activation.device, activation.dtype).unsqueeze(-1)
