"""What is differentiated: one number for each row of a batch.

Three kinds. `answer`: mean log-probability of the scored tokens, nats per token, so that long answers do not count
more. `refusal`: log-odds, in nats, that the next token opens a refusal (the mass of a listed set of tokens against the
rest). And any function `metric(logits, batch) -> (batch,)` of the user. A choice item's metric is the weighted sum of
its rows: the gold answer's mean log-probability minus the mean of the distractors', a length-normalised margin.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import AligntaxError
from ..models import answer_logprobs, final_hidden, logits_of
from .batches import Batch

Metric = Callable[[PreTrainedModel, Batch], Tensor]


def answer_metric(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Mean log-probability of each row's scored tokens, `(batch,)`, nats per token."""
    return answer_logprobs(model, batch.ids, batch.mask, batch.scored).means()


def last_hidden(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Final hidden state at each row's last real token, `(batch, d)`."""
    hidden = final_hidden(model, batch.ids, batch.mask)
    last = (batch.mask.sum(1) - 1).to(hidden.device)
    return hidden[torch.arange(len(last), device=hidden.device), last]


def refusal_metric(token_ids: Sequence[int]) -> Metric:
    """Log-odds in nats that the token after the prompt is one of `token_ids`, as a metric `(batch,)`."""
    if not token_ids:
        raise AligntaxError("no refusal token is left; name some with --refusal-tokens 'I,Sorry'")
    ids = sorted(set(token_ids))

    def metric(model: PreTrainedModel, batch: Batch) -> Tensor:
        logits = logits_of(model, last_hidden(model, batch))
        chosen = logits[:, ids].logsumexp(-1)
        others = logits.clone()
        others[:, ids] = -torch.inf
        return chosen - others.logsumexp(-1)

    return metric


def callable_metric(function: Callable[[Tensor, Batch], Tensor]) -> Metric:
    """A user's `metric(logits, batch) -> (batch,)` as a metric. Raises AligntaxError for a result of another shape."""

    def metric(model: PreTrainedModel, batch: Batch) -> Tensor:
        logits = logits_of(model, final_hidden(model, batch.ids, batch.mask))
        values = function(logits, batch)
        found = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
        if not isinstance(values, Tensor) or values.shape != (len(batch.rows),):
            raise AligntaxError(f"the metric returned {found}; return a tensor, one number a row, ({len(batch.rows)},)")
        return values

    return metric
