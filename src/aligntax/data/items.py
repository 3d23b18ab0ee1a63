"""What is measured on: items, tasks and contrasts as frozen values.

An item is one of three things: a prompt with an answer (scored in nats per answer token), a prompt with choices of
which one is gold, or several prompts with one answer (Winograd style), of which one prompt is gold.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from aligntax.errors import DataError

Kind = Literal["answer", "choices"]

# CSI and OSC sequences first: their printable tail goes with them. Then C0 without \n and \t, DEL, C1, surrogates.
_UNPRINTABLE = re.compile(
    "\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]"
)


def clean_text(text: str) -> tuple[str, int]:
    """The text without ANSI sequences, control characters (newline and tab stay) and lone surrogates; how many went.

    Windows line ends become a newline and are not counted. An ANSI sequence counts once.

    >>> clean_text("a\\x1b[31mb\\x07")
    ('ab', 2)
    """
    return _UNPRINTABLE.subn("", text.replace("\r\n", "\n"))


@dataclass(frozen=True)
class Item:
    """One measurement: `prompt` with `answer`; `prompt` with `choices` and `gold`; `prompts` with `answer` and `gold`.

    `gold` is the index (from 0) of the right choice, or of the right prompt in the Winograd style.
    Raises DataError when the fields fit none of the three shapes.
    """

    prompt: str
    answer: str | None = None
    choices: tuple[str, ...] = ()
    gold: int | None = None
    prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.prompts:
            self._check_winograd()
        elif self.choices:
            if self.answer is not None:
                raise DataError("both answer and choices are given; keep one of them")
            self._check_gold("choices", self.choices)
        elif self.answer is None:
            raise DataError("neither answer nor choices; give answer, or choices and gold")
        elif self.answer == "":
            raise DataError("the answer is empty; give at least one character")
        elif self.gold is not None:
            raise DataError("gold without choices; give choices, or leave gold out")

    def _check_winograd(self) -> None:
        if self.prompt or self.choices:
            raise DataError("prompts cannot stand beside prompt or choices; keep prompts, answer and gold")
        if not self.answer:
            raise DataError("prompts without an answer; give the answer that continues each of them")
        self._check_gold("prompts", self.prompts)

    def _check_gold(self, field: str, texts: tuple[str, ...]) -> None:
        if len(texts) < 2:
            raise DataError(f"{len(texts)} {field}; give at least two")
        if self.gold is None:
            raise DataError(f"{field} without gold; give the index of the right one, from 0 to {len(texts) - 1}")
        if not 0 <= self.gold < len(texts):
            raise DataError(f"gold is {self.gold} but there are {len(texts)} {field}; give 0 to {len(texts) - 1}")
        if "" in texts:
            raise DataError(f"one of the {field} is empty; give at least one character")
        if texts.count(texts[self.gold]) > 1:
            raise DataError(f"the right one of {field}, {texts[self.gold][:40]!r}, is given twice; remove one")

    @property
    def kind(self) -> Kind:
        """`answer` when one text is scored, `choices` when alternatives are compared."""
        return "choices" if self.choices or self.prompts else "answer"

    @property
    def alternatives(self) -> int:
        """How many sequences the item is scored on: choices, prompts, or 1 for a plain answer."""
        return len(self.choices) or len(self.prompts) or 1

    @property
    def key(self) -> str:
        """sha256 of the content, the same wherever the item stands in a file and however its choices are ordered."""
        texts = self.choices or self.prompts
        right = texts[self.gold] if texts and self.gold is not None else None
        content = [self.prompt, self.answer, sorted(self.choices), sorted(self.prompts), right]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def digest(keys: Sequence[str]) -> str:
    """sha256 over item keys, whatever their order: the identity of a set of items that came from no single file."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()


@dataclass(frozen=True)
class Task:
    """A named set of items of one kind; `sha256` is of the file's bytes, or of the item keys where there is no file."""

    name: str
    items: tuple[Item, ...]
    kind: Kind
    source: str
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def chance(self) -> float:
        """Accuracy of guessing, a fraction: mean over items of 1/alternatives; nan for a task of answers.

        >>> Task("t", (Item("p", choices=("a", "b"), gold=0),), "choices", "", "").chance
        0.5
        """
        if self.kind == "answer" or not self.items:
            return math.nan
        return math.fsum(1 / item.alternatives for item in self.items) / len(self.items)


@dataclass(frozen=True)
class Contrast:
    """A safety contrast: two classes of prompts, or items whose gold choice is the good one.

    Prompt classes: `positive` (harmful) against `negative` (harmless), no items.
    Items: `items` non-empty, both classes empty.
    `replies`: prompts to the reply that was written beside them.
    """

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    items: tuple[Item, ...]
    source: str
    sha256: str
    notes: tuple[str, ...] = ()
    replies: Mapping[str, str] = field(default_factory=dict, hash=False)
