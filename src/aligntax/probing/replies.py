"""The model's own replies: texts on which KL is measured, and openings from which refusal tokens are found."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from ..errors import NonFiniteError
from .batches import Row, TokenBudget, run_groups
from .gradients import Probe

ROWS_PER_ROW = 8
"""How many times the rows of a gradient pass are generated from at once."""

STANDARD_OPENINGS = (
    "I'm sorry",
    "I am sorry",
    "I cannot",
    "I can't",
    "I can’t",
    "Sorry",
    "I apologize",
    "I'm unable",
    "Unfortunately",
)
_REFUSAL = re.compile(
    r"^\W*(i\W?m (really |very |so )?sorry|i am (really |very |so )?sorry|sorry\b"
    r"|i (can(no|'|’)?t|cannot|will not|won['’]t)\b"
    r"|i(['’]m| am) (not able|unable|not going)|i apologi[sz]e|unfortunately\b|as an ai\b.{0,80}(can|not|unable))",
    re.IGNORECASE | re.DOTALL,
)


def opens_refusal(text: str) -> bool:
    """Does a reply open as a refusal? Anchored at the start; a cheap test for discovery, not a judge."""
    return _REFUSAL.match(text) is not None


def generate(
    probe: Probe, prompts: Sequence[Sequence[int]], new_tokens: int, sample: bool, seed: int
) -> list[list[int]]:
    """Reply ids for each prompt (end-of-text dropped), at most `new_tokens` each; sampled at temperature 1, or greedy.

    Greedy replies do not depend on the batching; sampled ones do.
    """
    config = probe.model.generation_config  # type: ignore[union-attr]
    ends = config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or [])
    replies: list[list[int]] = [[] for _ in prompts]
    torch.manual_seed(seed)
    longest = max(len(p) for p in prompts) + new_tokens

    def step(group: list[int]) -> list[list[int]]:
        return _generate_batch(probe, [prompts[i] for i in group], new_tokens, sample, min(ends, default=0))

    # One token a row and step: without gradients, and bound by reading the weights, so more rows are nearly free.
    budget = TokenBudget(ROWS_PER_ROW * probe.budget.tokens)
    for group, found in run_groups([longest] * len(prompts), budget, step):
        for i, tokens in zip(group, found, strict=True):
            replies[i] = list(itertools.takewhile(lambda token: token not in ends, tokens))
            probe.advance(len(prompts[i]) + len(replies[i]))
    return replies


def _generate_batch(
    probe: Probe, prompts: Sequence[Sequence[int]], new_tokens: int, sample: bool, pad: int
) -> list[list[int]]:
    """New tokens of each prompt, padded on the left to one width; what follows an end-of-text is padding."""
    width = max(len(p) for p in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for k, prompt in enumerate(prompts):
        ids[k, width - len(prompt) :] = torch.tensor(prompt)
        mask[k, width - len(prompt) :] = 1
    with torch.no_grad(), _finite_sampling():
        out = probe.model.generate(  # type: ignore[operator]
            input_ids=ids.to(probe.device),
            attention_mask=mask.to(probe.device),
            max_new_tokens=new_tokens,
            do_sample=sample,
            temperature=1.0 if sample else None,
            top_k=0 if sample else None,
            top_p=1.0 if sample else None,
            repetition_penalty=1.0,
            pad_token_id=pad,
        )
    return out[:, width:].tolist()


@contextmanager
def _finite_sampling() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "probability tensor" not in str(error):
            raise
        raise NonFiniteError(
            "replies: the logits are NaN or infinite; check the weights, or use --dtype float32"
        ) from error


def reply_rows(prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> list[Row]:
    """Prompt and reply as one row each, the reply scored; prompts with an empty reply are left out."""
    pairs = [(p, r) for p, r in zip(prompts, replies, strict=True) if r]
    return [Row(tuple(p) + tuple(r), len(p), k) for k, (p, r) in enumerate(pairs)]


def flat_ids(texts: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Token ids of texts of any lengths as arrays for a shard: all ids in one line, and the lengths."""
    return {
        "ids": np.array([token for ids in texts for token in ids], dtype=np.int64),
        "lengths": np.array([len(ids) for ids in texts], dtype=np.int64),
    }


def split_ids(arrays: Mapping[str, np.ndarray]) -> list[tuple[int, ...]]:
    """The inverse of `flat_ids`."""
    ends = np.cumsum(arrays["lengths"])
    return [tuple(arrays["ids"][a:b].tolist()) for a, b in zip(ends - arrays["lengths"], ends, strict=True)]


def rows_to_arrays(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Rows as arrays for a shard: flat ids, lengths and starts."""
    return {**flat_ids([row.ids for row in rows]), "starts": np.array([row.start for row in rows], dtype=np.int64)}


def rows_from_arrays(arrays: dict[str, np.ndarray]) -> list[Row]:
    """The inverse of `rows_to_arrays`."""
    pairs = zip(split_ids(arrays), arrays["starts"], strict=True)
    return [Row(ids, int(start), k) for k, (ids, start) in enumerate(pairs)]
