"""Log-probabilities of chosen tokens without the `(batch, time, vocab)` logits.

The transformer runs to its final hidden states; the head is applied only where a scored token is predicted, in
chunks, and reduced at once in float32. A row's log-probability depends on its own hidden state alone, so each chunk
also yields its own gradient while its logits are still there: the graph keeps `(N, d)`, never `(N, vocab)`.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from aligntax.errors import DataError, ModelError
from aligntax.models.blocks import backbone, embedding_device, finish_logits, text_config, unembedding

CHUNK_BYTES = 64 * 2**20
"""Bytes of float32 logits alive at once; a chunk never has fewer than one row."""


@dataclass(frozen=True)
class TokenLogprobs:
    """Scored tokens of a batch: `logprobs` `(N,)` nats in float32, `rows` and `positions` `(N,)`, `counts` `(B,)`.

    `positions` is where the scored token itself stands; it was predicted one position before.
    """

    logprobs: Tensor
    rows: Tensor
    positions: Tensor
    counts: Tensor

    def sums(self) -> Tensor:
        """Log-probability of each row's scored tokens together, `(B,)` nats; nan for a row with none."""
        total = torch.zeros_like(self.counts, dtype=self.logprobs.dtype).index_add(0, self.rows, self.logprobs)
        return torch.where(self.counts > 0, total, torch.nan)

    def means(self) -> Tensor:
        """Mean log-probability per scored token of each row, `(B,)` nats per token; nan for a row with none."""
        return self.sums() / self.counts


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions `(B, T)` counted over attended tokens, so that left and right padding give the same answer."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def final_hidden(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    cache: DynamicCache | None = None,
    positions: Tensor | None = None,
) -> Tensor:
    """Hidden states after the final norm, `(B, T, d)`; what the head sees. Padding-side independent.

    With a `cache` of `W` columns the mask is `(B, W + T)`; the cache grows by `T`. Positions count attended tokens, unless
    `positions` `(B, T)` are given: then the mask may be an additive one of `(B, 1, T, W + T)`.
    """
    inner = backbone(model)
    inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    if cache is not None:  # state-space families do not know the argument
        inputs |= {"use_cache": True, "past_key_values": cache}
    # Families with position biases instead of positions (BLOOM) read them off the mask themselves.
    if "position_ids" in inspect.signature(inner.forward).parameters:
        counted = position_ids(attention_mask)[:, -input_ids.shape[1] :] if positions is None else positions
        inputs["position_ids"] = counted
    return inner(**inputs, return_dict=True).last_hidden_state


def answer_logprobs(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, targets_mask: Tensor
) -> TokenLogprobs:
    """Log-probability in nats of every token where `targets_mask` is true, given all tokens before it in its row.

    All three inputs are `(B, T)`, padded on either side. Differentiable in the activations (zero-shift gradients),
    once; not in the head's own weights, which must be frozen. Equal to a float32 log-softmax of `model(...).logits`.
    Raises DataError when a target has no attended token before it, ModelError when the head is trainable.
    """
    targets = targets_mask.bool()
    attended = attention_mask.bool()
    before = torch.zeros_like(attended)
    before[:, 1:] = attended[:, :-1]
    if bool((targets & ~(before & attended)).any()):
        raise DataError("a scored token has no token before it to predict it from; put a token in front of the answer")
    rows, positions = targets.nonzero(as_tuple=True)
    hidden = final_hidden(model, input_ids, attention_mask)
    device = hidden.device
    picked = hidden[rows.to(device), positions.to(device) - 1]
    logprobs = target_logprobs(model, picked, input_ids[rows, positions])
    device = logprobs.device
    return TokenLogprobs(logprobs, rows.to(device), positions.to(device), targets.sum(-1).to(device))


def target_logprobs(model: PreTrainedModel, hidden: Tensor, targets: Tensor) -> Tensor:
    """Log-probability `(N,)` in nats of token `targets[n]` after final hidden state `hidden[n]` `(N, d)`."""
    head = unembedding(model)
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in head.parameters()):
        raise ModelError("the language-model head is trainable; freeze it (requires_grad_(False)) before scoring")
    vocab = getattr(text_config(model), "vocab_size", None) or 2**17
    return _ChunkedLogprobs.apply(hidden, targets, model, max(1, CHUNK_BYTES // (4 * vocab)))


def logits_of(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits `(.., vocab)` in float32 of final hidden states `(.., d)`, with the family's scaling and capping."""
    return finish_logits(model, unembedding(model)(hidden).float())


def check_head(model: PreTrainedModel) -> None:
    """Compare head-after-backbone with the model's own logits on four tokens; ModelError when they disagree.

    Guards against a family that transforms its logits in a way `finish_logits` does not know.
    """
    device = embedding_device(model)
    # A model whose weights are offloaded keeps its embedding on "meta"; its hooks take inputs from anywhere.
    ids = torch.arange(4, device="cpu" if device.type == "meta" else device).unsqueeze(0)
    with torch.no_grad():
        own = model(input_ids=ids, use_cache=False).logits
        ours = logits_of(model, final_hidden(model, ids, torch.ones_like(ids))).to(own)
    # float32 agrees to 1e-5; bf16 rounds after the head where we do not, 2^-8 of the largest logit.
    slack = (1e-4 if own.dtype == torch.float32 else 2e-2) * own.abs().max().clamp(min=1.0)
    worst = (own - ours).abs().max()
    if bool(worst > slack):
        raise ModelError(
            f"{type(model).__name__} changes its logits after the head in an unknown way (off by {float(worst):.3g}); "
            "this family is not supported"
        )


class _ChunkedLogprobs(torch.autograd.Function):
    """Rows are independent, so the gradient of a chunk's sum is every row's own gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, model: PreTrainedModel, chunk: int) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        scores, slopes = [], []
        for start in range(0, len(targets), chunk):
            piece = hidden[start : start + chunk].detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                logits = logits_of(model, piece)
                aim = targets[start : start + chunk].to(logits.device).unsqueeze(-1)
                score = logits.gather(-1, aim).squeeze(-1) - logits.logsumexp(-1)
                if wanted:
                    slopes.append(torch.autograd.grad(score.sum(), piece)[0])
            scores.append(score.detach())
        if wanted:
            ctx.save_for_backward(torch.cat(slopes) if slopes else hidden)
        return torch.cat(scores) if scores else hidden.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return (upstream.to(slope.device).unsqueeze(-1) * slope).to(slope.dtype), None, None, None
