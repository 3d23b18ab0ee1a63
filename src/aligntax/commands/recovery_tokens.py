"""Recovery tokens beyond the written ones: those that begin the model's own refusals, and those that the user names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..data import ChatFormat, Encoded
from ..errors import AligntaxError
from ..probing import opens_refusal
from .alignment_texts import Speaker, recovery_tokens

if TYPE_CHECKING:
    from .align import AlignCommand

MOST_ANSWERS = 0.05
"""Largest share of a model's answers that may begin with a token that is taken for a recovery token."""


def own_tokens(speaker: Speaker, harmful: Sequence[Encoded], harmless: Sequence[Encoded]) -> list[int]:
    """First tokens of the model's own refusals among its replies to harmful prompts, and the same words after a space.

    A token that also begins answers says nothing of turning back: left out are those that begin more than 5% of the replies
    to either kind of prompt that do not open as a refusal, those that begin more of these than refusals, and those without a
    letter. The word after a space is added where that is one token. Empty where the model refuses nothing.
    """
    spoken = [(row.ids[row.start], speaker.text(row)) for row in (*harmful, *harmless) if len(row.ids) > row.start]
    count = sum(len(row.ids) > row.start for row in harmful)
    refused = Counter(first for first, text in spoken[:count] if opens_refusal(text))
    answered = Counter(first for first, text in spoken if not opens_refusal(text))
    most = MOST_ANSWERS * answered.total()
    found = {token for token, times in refused.items() if answered[token] <= min(most, times)}
    tokenizer = speaker.chat.tokenizer
    words = {token: str(tokenizer.decode([token])) for token in found}
    found = {token for token in found if any(letter.isalpha() for letter in words[token])}
    spaced = [tokenizer.encode(f" {words[token].strip()}", add_special_tokens=False) for token in found]
    return sorted(found | {ids[0] for ids in spaced if len(ids) == 1})


def given_tokens(chat: ChatFormat, texts: Sequence[str]) -> list[int]:
    """The token of each text of `--recovery-tokens`. Raises AligntaxError naming a text that is not one token, and its tokens."""
    found = []
    for text in texts:
        ids = chat.tokenizer.encode(text, add_special_tokens=False)
        if len(ids) != 1:
            parts = ", ".join(repr(str(chat.tokenizer.decode([token]))) for token in ids)
            raise AligntaxError(
                f"--recovery-tokens {text!r} is {len(ids)} tokens ({parts}) and not one; give texts of one token each, "
                "spaces before them included"
            )
        found += ids
    return found


def check_tokens(command: AlignCommand, chat: ChatFormat) -> None:
    """Raises AligntaxError for tokens that cannot be used, before the model has said a word."""
    if command.recovery_tokens and command.depth != "recovery":
        raise AligntaxError(f"--recovery-tokens {' '.join(map(repr, command.recovery_tokens))} needs --depth recovery")
    given_tokens(chat, command.recovery_tokens)


def all_tokens(command: AlignCommand, chat: ChatFormat, own: Sequence[int]) -> list[int]:
    """First tokens of written openings, of the model's `own` refusals, and those that the user names; each once, in order."""
    return sorted({*recovery_tokens(chat), *own, *given_tokens(chat, command.recovery_tokens)})
