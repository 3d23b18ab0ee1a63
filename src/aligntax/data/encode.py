"""Items to token ids, and which of these are scored.

An answer is scored on its own tokens only, each given everything before it. Where the tokenizer merges the end of the
prompt with the beginning of the answer, the tokens that differ from those of the prompt alone are the answer's.
"""

import dataclasses
import hashlib
from dataclasses import dataclass

from aligntax.data.chat import ChatFormat
from aligntax.data.items import Item, Task
from aligntax.data.tokens import common_prefix, encode_text, leading_ids
from aligntax.errors import DataError

FORMATS = {
    "plain": "the prompt, then the answer, as running text",
    "chat": "the prompt as the user's turn, the answer as the reply",
    "qa": "Question: the prompt, Answer: the answer, as running text",
}


@dataclass(frozen=True)
class Encoded:
    """Token ids and the index, at least 1, of the first scored one: `ids[start:]` is scored and never empty."""

    ids: tuple[int, ...]
    start: int


def encode_item(item: Item, fmt: str, chat: ChatFormat, max_length: int) -> tuple[Encoded, ...]:
    """One sequence per choice (per prompt in the Winograd style), in their order, or a single one for an answer.

    `fmt` is one of FORMATS; `max_length` is the model's context in tokens.
    Raises DataError when an answer has no tokens of its own or a sequence is longer than the context.
    """
    if fmt not in FORMATS:
        raise DataError(f"unknown format {fmt!r}; give one of {', '.join(FORMATS)}")
    if item.choices:
        pairs = [(item.prompt, choice) for choice in item.choices]
    else:
        pairs = [(prompt, item.answer or "") for prompt in item.prompts or (item.prompt,)]
    return tuple(_encode(prompt, answer, fmt, chat, max_length) for prompt, answer in pairs)


def encode_task(task: Task, fmt: str, chat: ChatFormat, max_length: int) -> tuple[tuple[Encoded, ...], ...]:
    """`encode_item` of every item of a task, in order. Raises DataError naming the task and the item (from 1)."""
    encoded = []
    for number, item in enumerate(task.items, 1):
        try:
            encoded.append(encode_item(item, fmt, chat, max_length))
        except DataError as error:
            raise DataError(f"task {task.name}, item {number} of {len(task.items)}: {error}") from error
    return tuple(encoded)


def choose_distractors(item: Item, count: int, seed: int) -> Item:
    """The item with its gold and at most `count` of the other choices (or prompts), in their old order.

    Which ones stay depends on the item's content and the seed only. Raises DataError when `count` is below 1.
    """
    if count < 1:
        raise DataError(f"{count} distractors leave nothing to compare with; give at least 1")
    texts = item.choices or item.prompts
    if item.gold is None or len(texts) <= count + 1:
        return item
    others = sorted(set(range(len(texts))) - {item.gold}, key=lambda at: _draw(item.key, texts[at], seed))
    kept = sorted([item.gold, *others[:count]])
    gold, shorter = kept.index(item.gold), tuple(texts[at] for at in kept)
    if item.choices:
        return dataclasses.replace(item, gold=gold, choices=shorter)
    return dataclasses.replace(item, gold=gold, prompts=shorter)


def joined(prompt: str, answer: str) -> str:
    """The answer as it continues the prompt: with one space before it where two words would run together.

    That is where the prompt ends in a letter, digit or closing mark and the answer begins with a letter, digit, opening
    quote, minus or currency sign. Scripts written without spaces (U+2E80 on) and white space on either side get none.

    >>> joined("therefore", "it fell"), joined("7+5=", "12"), joined("the cat", ".")
    (' it fell', '12', '.')
    """
    last, first = prompt[-1:], answer[:1]
    ends = last.isalnum() or (last != "" and last in ".,;:?!)]\"'”’%…")
    # A minus after a letter or digit is more often an operator in code than a sign.
    starts = first.isalnum() or (first != "" and first in '"“‘$£€') or (first == "-" and not last.isalnum())
    spaceless = max(last, first) >= "\u2e80"
    return f" {answer}" if ends and starts and not spaceless else answer


def _draw(key: str, text: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{key}\n{text}".encode()).digest()


def _encode(prompt: str, answer: str, fmt: str, chat: ChatFormat, max_length: int) -> Encoded:
    if fmt == "chat":
        encoded = _as_turn(prompt, answer, chat)
    else:
        framed = _as_question(prompt) if fmt == "qa" else prompt
        encoded = _as_text(framed, joined(framed, answer), chat)
    if len(encoded.ids) == encoded.start:
        raise DataError(f"the answer {answer[:40]!r} to {prompt[:40]!r} tokenises to nothing; change or remove it")
    if len(encoded.ids) > max_length:
        size = f"{len(encoded.ids)} tokens ({encoded.start} of them the prompt)"
        raise DataError(f"{prompt[:40]!r} takes {size}, longer than the context of {max_length}; shorten or remove it")
    return encoded


def _as_turn(prompt: str, answer: str, chat: ChatFormat) -> Encoded:
    turn = chat.encode_prompt(prompt)
    return Encoded((*turn, *chat.encode_reply(answer)), len(turn))


def _as_question(prompt: str) -> str:
    # An empty prompt asks nothing: its choices are whole sentences and stay running text.
    if not prompt or prompt.rstrip().endswith("Answer:"):
        return prompt
    opening = "" if prompt.lstrip().startswith("Question:") else "Question: "
    return f"{opening}{prompt.rstrip()}\nAnswer:"


def _as_text(prompt: str, answer: str, chat: ChatFormat) -> Encoded:
    tokenizer = chat.tokenizer
    alone, whole = encode_text(tokenizer, prompt), encode_text(tokenizer, prompt + answer)
    shared = common_prefix(alone, whole)
    lead = leading_ids(tokenizer)
    if not lead and not shared:
        lead = _some_context(chat)
    return Encoded((*lead, *whole), len(lead) + shared)


def _some_context(chat: ChatFormat) -> list[int]:
    """BOS, else EOS, for a first token that has nothing before it."""
    tokenizer = chat.tokenizer
    marks = [mark for mark in (tokenizer.bos_token_id, tokenizer.eos_token_id) if mark is not None]
    if not marks:
        raise DataError("an empty prompt needs a BOS or EOS token and the tokenizer has neither; give a prompt")
    return [int(marks[0])]
