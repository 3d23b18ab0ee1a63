"""The model before training, without a second copy of it: its final hidden states on given rows, computed once.

With the head frozen, logits of the reference are the head applied to what it saw then; `(tokens, d)` numbers are kept, never
`(tokens, vocab)`. Make it before training starts (and before a checkpoint is loaded): what the model is then is the reference.
"""

import contextlib
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from aligntax.data import Encoded
from aligntax.errors import AligntaxError
from aligntax.models import logits_of, unembedding
from aligntax.training.rows import in_batches, scored_hidden


class Reference:
    """`log pi_0` at every scored position of `rows`, or of those in `only`; adapters are switched off while it is made."""

    def __init__(
        self, model: PreTrainedModel, rows: Sequence[Encoded], only: Collection[int] | None = None, batch: int = 8
    ) -> None:
        if not rows:
            raise AligntaxError("no rows to hold the model to; give at least one text")
        self.rows = list(rows)
        self._hidden: list[Tensor] = [torch.empty(0)] * len(rows)
        training = model.training
        off = without_adapter(model)
        model.eval()
        with torch.no_grad(), off:
            read = [k for k in range(len(rows)) if only is None or k in only]
            for places in in_batches([rows[k] for k in read], batch):
                group = [read[place] for place in places]
                for k, hidden in zip(group, scored_hidden(model, [rows[k] for k in group]), strict=True):
                    self._hidden[k] = hidden.cpu().clone()
        model.train(training)

    def logprobs(self, model: PreTrainedModel, index: int) -> Tensor:
        """Reference log-probabilities `(n, vocab)` float32 of row `index`.

        Raises AligntaxError for a trainable head, and for a row that was not read before training.
        """
        if not self._hidden[index].numel():
            raise AligntaxError(
                f"row {index} was not read before training; make the term for as many steps as are taken"
            )
        head = unembedding(model)
        if any(parameter.requires_grad for parameter in head.parameters()):
            raise AligntaxError(
                "the language-model head is trainable, so the reference would move with it; freeze it "
                "(requires_grad_(False)), and with it the embedding where they are tied"
            )
        with torch.no_grad():
            hidden = self._hidden[index].to(next(head.parameters()).device)
            return torch.log_softmax(logits_of(model, hidden), dim=-1)

    def kl(self, model: PreTrainedModel, index: int, logprobs: Tensor) -> Tensor:
        """`KL(pi || pi_0)` `(n,)` nats at each scored position of row `index`, given `log pi` `(n, vocab)`; differentiable."""
        return (logprobs.exp() * (logprobs - self.logprobs(model, index))).sum(-1)


def without_adapter(model: PreTrainedModel) -> contextlib.AbstractContextManager[None]:
    """The base model while the context is open: adapters off where there are any."""
    switch: Any = getattr(model, "disable_adapter", None)
    return switch() if switch is not None else contextlib.nullcontext()


def freeze_head(model: PreTrainedModel) -> None:
    """Freeze embeddings and head, as every term with a reference needs."""
    for part in (model.get_input_embeddings(), unembedding(model)):
        part.requires_grad_(False)
