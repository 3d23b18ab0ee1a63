"""Text to token ids piece by piece, so that special tokens are placed by us and never twice."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_text(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """The ids of a text alone: no BOS, no EOS."""
    return list(tokenizer.encode(text, add_special_tokens=False)) if text else []


def leading_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The special tokens the tokenizer puts before a text, usually one BOS or none; an EOS behind it is left out."""
    bare, whole = encode_text(tokenizer, "a"), list(tokenizer.encode("a"))
    return whole[: whole.index(bare[0])]


def common_prefix(one: list[int], other: list[int]) -> int:
    """How many ids two sequences share from their beginning."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
