"""Several turns as token ids, up to the place where the next reply begins."""

from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from aligntax.data import ChatFormat
from aligntax.data.tokens import encode_text, leading_ids
from aligntax.errors import DataError

ROLES = ("user", "assistant")


def encode_turns(chat: ChatFormat, turns: Sequence[str]) -> list[int]:
    """Ids of user, assistant, user, .. turns; the last one is the user's. For one turn the ids of `chat.encode_prompt`.

    Raises DataError for an even number of turns, or a template that knows no second turn.
    """
    if len(turns) % 2 == 0:
        raise DataError(f"{len(turns)} turns; a conversation begins and ends with the user")
    if len(turns) == 1:
        return chat.encode_prompt(turns[0])
    if chat.fallback:
        return _plain_turns(chat, turns)
    # Whatever encode_prompt adds behind the template (the end of a think block) comes here too.
    added = chat.encode_prompt(turns[-1])[len(_template(chat, turns[-1:])) :]
    return [*_template(chat, turns), *added]


def _template(chat: ChatFormat, turns: Sequence[str]) -> list[int]:
    messages = [{"role": "system", "content": chat.system}] if chat.system else []
    messages += [{"role": ROLES[k % 2], "content": text} for k, text in enumerate(turns)]
    try:
        ids: Any = chat.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False, **chat.arguments
        )
    except (TemplateError, TypeError) as error:
        raise DataError(f"the chat template refuses {len(turns)} turns ({error}); leave out multi-turn") from error
    return [int(token) for token in ids]


def _plain_turns(chat: ChatFormat, turns: Sequence[str]) -> list[int]:
    bare, lead = ChatFormat(chat.tokenizer), len(leading_ids(chat.tokenizer))
    ids = chat.encode_prompt(turns[0])
    for said, asked in zip(turns[1::2], turns[2::2], strict=True):
        ids += chat.encode_reply(said) + encode_text(chat.tokenizer, "\n\n") + bare.encode_prompt(asked)[lead:]
    return ids
