"""A prompt as a user turn, in token ids, and where in them the template ends.

Ids come straight from the chat template; text never makes a round trip, so BOS and template stand exactly once.
Position 0 of a response is the token after the last id of `encode_prompt`. For reasoning models it lies after the think
block: a template with an `enable_thinking` switch is told False unless the caller says otherwise, one that leaves `<think>`
open is closed here, and `response_start` skips a block written by the model.
"""

import itertools
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError

from aligntax.data.tokens import common_prefix, encode_text, leading_ids
from aligntax.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FALLBACK_TEMPLATE = "Human: {prompt}\n\nAssistant:"
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
THINKING = "enable_thinking"
"""The template argument that reasoning models go by; where a template reacts to it, False puts position 0 after the thought."""
NO_THINKING = f"--chat-template-kwargs '{{\"{THINKING}\": false}}'"
"""The option of the command line that says so."""
_RESERVED = ("conversation", "add_generation_prompt", "tokenize", "return_dict", "return_tensors")
# First and last characters all differ: a tokenizer may merge the edge of one text with the template, not of all.
_PROBES = ("the end", "Why not?", "7 + 5 =", "One more thing.", "(z)")


@dataclass(frozen=True, eq=False)
class ChatFormat:
    """How a prompt is put to a chat model: the tokenizer's template, or a stated fallback where it has none.

    `template_kwargs` go to the template (such as `enable_thinking=False`); names it does not know have no effect. What
    goes to it in the end is `arguments`.
    """

    tokenizer: "PreTrainedTokenizerBase"
    system: str | None = None
    template_kwargs: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        taken = sorted(set(self.template_kwargs or {}) & set(_RESERVED))
        if taken:
            raise DataError(f"template argument {taken[0]!r} is set by aligntax; leave it out")

    @property
    def fallback(self) -> bool:
        """True where the tokenizer has no chat template and FALLBACK_TEMPLATE stands in."""
        return not self.tokenizer.chat_template

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """Arguments that go to the template: those given, and `enable_thinking=False` where none is given and it matters."""
        given = dict(self.template_kwargs or {})
        return given if THINKING in given or not self._switched else given | {THINKING: False}

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of the user turn up to the place where the reply begins, an open think block closed.

        Raises DataError when the template refuses the messages, such as a system message it does not know, and when it was
        asked for thinking and leaves it to the model to open the block: no position is then known to follow it.
        """
        return self._open_prompt(text) + self._closing

    def encode_reply(self, text: str) -> list[int]:
        """Ids of a reply to append to `encode_prompt`: without one leading space (with one after the fallback)."""
        # Deeper indentation is content (code), a single space is the habit of plain-text items.
        bare = text[1:] if text.startswith(" ") and not text[1:2].isspace() else text
        return encode_text(self.tokenizer, f" {bare}" if self.fallback and bare else bare)

    @cached_property
    def prefix_length(self) -> int:
        """Number of tokens before the user text: those that the encodings of unlike texts share from the beginning."""
        return min(common_prefix(one, other) for one, other in itertools.combinations(self._probes, 2))

    @cached_property
    def post_instruction(self) -> int:
        """Number of template tokens after the user text, counted on `encode_prompt`; may be 0.

        Tokens that merge with the end of some text are not counted: position -k is the same token for every prompt.
        """
        return self._open_suffix + len(self._closing)

    def response_start(self, reply_ids: Sequence[int]) -> int:
        """Index in a reply of its first token after the think block and the white space behind it.

        0 when the reply does not begin with a think block; its length when the block never ends. A template that leaves
        the block open counts as its beginning.
        """
        text = self._decode(reply_ids)
        begins = text.lstrip().startswith(THINK_OPEN)
        if THINK_CLOSE not in text:
            return len(reply_ids) if begins else 0
        if not begins and not self._closing:
            return 0
        start = bisect_left(range(len(reply_ids)), True, key=lambda end: THINK_CLOSE in self._decode(reply_ids[:end]))
        while start < len(reply_ids) and not self._decode(reply_ids[start : start + 1]).strip():
            start += 1
        return start

    def describe(self) -> str:
        """One line for reports: which template, system message, arguments, and what was added to it."""
        parts = [f"no chat template: {FALLBACK_TEMPLATE!r}" if self.fallback else "the tokenizer's chat template"]
        if self.system:
            parts.append(f"system message {self.system!r}")
        if self.template_kwargs:
            parts.append(", ".join(f"{name}={value!r}" for name, value in sorted(self.template_kwargs.items())))
        if len(self.arguments) > len(self.template_kwargs or {}):
            parts.append(f"{THINKING}=False by default, so that position 0 follows the think block")
        if self._closing:
            parts.append(f"its open {THINK_OPEN} closed")
        return "; ".join([*parts, f"{self.post_instruction} tokens after the instruction"])

    def _open_prompt(self, text: str) -> list[int]:
        return self._fallback_prompt(text) if self.fallback else self._rendered(text, self.arguments)

    def _rendered(self, text: str, arguments: Mapping[str, Any]) -> list[int]:
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": text})
        try:
            ids: Any = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=False, **arguments
            )
        except (TemplateError, TypeError) as error:
            mend = "drop the system message" if self.system else "mend the template or its arguments"
            raise DataError(f"the chat template refuses the prompt ({error}); {mend}") from error
        return [int(token) for token in ids]

    def _fallback_prompt(self, text: str) -> list[int]:
        # The frame is encoded apart from the text, so that its tokens are the same for every prompt.
        before, after = FALLBACK_TEMPLATE.split(" {prompt}")
        system = f"{self.system}\n\n" if self.system else ""
        pieces = (system + before, f" {text}" if text else "", after)
        return leading_ids(self.tokenizer) + [token for piece in pieces for token in encode_text(self.tokenizer, piece)]

    @cached_property
    def _switched(self) -> bool:
        """Does the template, with the arguments given, render otherwise than with `enable_thinking=False`?"""
        if self.fallback:
            return False
        given = dict(self.template_kwargs or {})
        return self._rendered(_PROBES[0], given) != self._rendered(_PROBES[0], given | {THINKING: False})

    @cached_property
    def _probes(self) -> tuple[list[int], ...]:
        probes = tuple(self._open_prompt(text) for text in _PROBES)
        if any(probe == probes[0] for probe in probes[1:]):
            raise DataError("the chat template leaves out the user's text; give a tokenizer with another template")
        return probes

    @cached_property
    def _open_suffix(self) -> int:
        pairs = itertools.combinations([probe[::-1] for probe in self._probes], 2)
        return min(common_prefix(one, other) for one, other in pairs)

    @cached_property
    def _closing(self) -> list[int]:
        """Ids that end the think block the template leaves open; empty where it leaves none."""
        first = self._probes[0]
        tail = self._decode(first[len(first) - self._open_suffix :])
        if tail.rfind(THINK_OPEN) <= tail.rfind(THINK_CLOSE):
            if THINK_CLOSE not in tail and THINKING in (self.template_kwargs or {}) and self._switched:
                raise DataError(
                    f"with {THINKING}={self.arguments[THINKING]!r} the chat template leaves it to the model to open a think block, "
                    f"so no position is known to follow it; leave {THINKING} out or give {NO_THINKING}"
                )
            return []
        # The empty block that reasoning models are trained on: a blank line inside, a blank line after.
        gap = "\n" if tail.endswith("\n") else "\n\n"
        return encode_text(self.tokenizer, f"{gap}{THINK_CLOSE}\n\n")

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))
