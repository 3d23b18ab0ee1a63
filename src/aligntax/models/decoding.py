"""One token after another from a cache: what is being written, how the next token is chosen, and when a row leaves.

A draw takes the token whose share of the distribution its uniform number falls into. The numbers belong to the start, so a
draw is the same in every batch, and rows that share a prefix are independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from aligntax.errors import NonFiniteError
from aligntax.models.hidden_logits import final_hidden, logits_of


@dataclass(frozen=True)
class Rollout:
    """New token ids, the end-of-text left out; `ended` is False where the limit of tokens cut the text off."""

    ids: tuple[int, ...]
    ended: bool


@dataclass(frozen=True)
class Place:
    """One start inside a strand: its index, what it had said before, and its limit."""

    index: int
    said: tuple[int, ...]
    limit: int

    def finish(self, strand: "Strand") -> Rollout:
        """The start's own rollout: what it said, then what the strand wrote, cut at its limit."""
        whole = (*self.said, *strand.tokens)
        # An end-of-text is a token of its own: it must come within the limit.
        return Rollout(whole[: self.limit], strand.ended and len(whole) < self.limit)


@dataclass
class Strand:
    """A row being written from token `length` of a host on; `uniforms` `(wanted,)` are its draws, None for greedy."""

    host: int
    length: int
    uniforms: np.ndarray | None
    places: list[Place] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    wanted: int = 0
    ended: bool = False

    @classmethod
    def of(cls, index: int, host: int, limit: int, seed: int | None, length: int = 0) -> "Strand":
        """The strand of one start."""
        draws = None if seed is None else np.random.default_rng(seed).random(limit)
        strand = cls(host, length, draws)
        strand.join(index, [], limit)
        return strand

    def join(self, index: int, said: Sequence[int], limit: int) -> None:
        """One more start comes through here."""
        self.places.append(Place(index, tuple(said), limit))
        self.wanted = max(self.wanted, limit - len(said))

    @property
    def open(self) -> bool:
        """Is there more to write?"""
        return not self.ended and len(self.tokens) < self.wanted

    def take(self, token: int, ends: set[int]) -> None:
        """Write one token, or stop at an end-of-text."""
        if token in ends:
            self.ended = True
        else:
            self.tokens.append(token)


def end_tokens(model: PreTrainedModel) -> set[int]:
    """Token ids that end a text, from the generation config."""
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    return {ends} if isinstance(ends, int) else set(ends or [])


def choose(logits: Tensor, strands: Sequence[Strand]) -> list[int]:
    """The next token of each strand from its logits `(B, vocab)`. Raises NonFiniteError for NaN or infinite ones."""
    if not bool(torch.isfinite(logits.amax(-1)).all()):
        raise NonFiniteError("rollouts: the logits are NaN or infinite; check the weights, or use --dtype float32")
    picks = logits.argmax(-1)
    drawn = [k for k, strand in enumerate(strands) if strand.uniforms is not None]
    if drawn:
        # float64: over a large vocabulary a float32 running sum drifts by more than its small shares.
        summed = logits[drawn].double().softmax(-1).cumsum(-1)
        now = [strands[k].uniforms[len(strands[k].tokens)] for k in drawn]  # type: ignore[index]
        aim = torch.tensor(now, dtype=torch.float64, device=logits.device)[:, None] * summed[:, -1:]
        picks[drawn] = torch.searchsorted(summed, aim, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    return [int(token) for token in picks.tolist()]


def decode(
    model: PreTrainedModel, strands: Sequence[Strand], cache: DynamicCache, mask: Tensor, hidden: Tensor
) -> None:
    """Write all strands to their ends, starting from hidden states `(B, d)`; the cache is used up."""
    ends, rows = end_tokens(model), list(strands)
    while True:
        tokens = choose(logits_of(model, hidden), rows)
        for strand, token in zip(rows, tokens, strict=True):
            strand.take(token, ends)
        alive = [k for k, strand in enumerate(rows) if strand.open]
        if not alive:
            return
        if len(alive) < len(rows):
            chosen = torch.tensor(alive, device=mask.device)
            cache.batch_select_indices(chosen)
            mask, rows = mask[chosen], [rows[k] for k in alive]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        row = torch.tensor([[tokens[k]] for k in alive], device=mask.device)
        hidden = final_hidden(model, row, mask, cache)[:, -1]
