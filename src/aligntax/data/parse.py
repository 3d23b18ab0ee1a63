"""Rows to items and prompts: types are checked, text is cleaned, duplicates are dropped, and all of it is told."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aligntax.data.items import Item, clean_text
from aligntax.data.rows import Row
from aligntax.errors import DataError


@dataclass
class Gatherer:
    """Collects distinct items or prompts from rows and counts what it mended; `notes` says so in words."""

    stripped: int = 0
    duplicates: int = 0
    _seen: set[str] = field(default_factory=set)

    def items(self, rows: Iterable[Row]) -> tuple[Item, ...]:
        """The distinct items of rows, in order. Raises DataError naming the row that fits no kind of item."""
        items = (self.item(row) for row in rows)
        return tuple(item for item in items if self._is_new(item.key))

    def item(self, row: Row) -> Item:
        """One row as an item: `prompt` with `answer` or with `choices` and `gold`, or `prompts`, `answer`, `gold`."""
        cells = _fold_choices(row)
        if "prompt" not in cells and "prompts" not in cells:
            found = ", ".join(sorted(cells)) or "nothing"
            raise DataError(f"{row.place}: no prompt (found: {found}); name the column prompt")
        try:
            return Item(
                prompt=self._text(cells.get("prompt", ""), "prompt"),
                answer=None if cells.get("answer") is None else self._text(cells["answer"], "answer"),
                choices=self._texts(cells.get("choices", ()), "choices"),
                gold=_gold(cells.get("gold")),
                prompts=self._texts(cells.get("prompts", ()), "prompts"),
            )
        except DataError as error:
            raise DataError(f"{row.place}: {error}") from error

    def prompt(self, row: Row) -> str | None:
        """The prompt of a row, or None where the same prompt came before. Raises DataError when there is none."""
        try:
            text = self._text(row.cells.get("prompt"), "prompt")
        except DataError as error:
            raise DataError(f"{row.place}: {error}") from error
        if not text.strip():
            raise DataError(f"{row.place}: the prompt is empty; give a text or remove the row")
        return text if self._is_new(text) else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped and stripped, one sentence each; empty when nothing was."""
        told = ((self.duplicates, "duplicate rows dropped"), (self.stripped, "control characters stripped from text"))
        return tuple(f"{count} {what}" for count, what in told if count)

    def _is_new(self, key: str) -> bool:
        new = key not in self._seen
        self._seen.add(key)
        self.duplicates += not new
        return new

    def _text(self, value: Any, name: str) -> str:
        if not isinstance(value, str):
            raise DataError(f"{name} is {value!r:.60}; write it as text in quotes")
        text, count = clean_text(value)
        self.stripped += count
        return text

    def _texts(self, values: Any, name: str) -> tuple[str, ...]:
        if not isinstance(values, list | tuple):
            raise DataError(f"{name} is {values!r:.60}; give a list of texts")
        return tuple(self._text(value, f"{name}[{index}]") for index, value in enumerate(values))


def _gold(value: Any) -> int | None:
    if value is None:
        return None
    # Parquet stores a column of integers with gaps as floats.
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0:
        raise DataError(f"gold is {value!r:.60}; give the index of the right one as a whole number from 0")
    return int(value)


def _fold_choices(row: Row) -> dict[str, Any]:
    """The cells with columns choice_0, choice_1, ... gathered into choices."""
    numbered = {name: cell for name, cell in row.cells.items() if name.startswith("choice_")}
    if not numbered:
        return row.cells
    names = [f"choice_{index}" for index in range(len(numbered))]
    if "choices" in row.cells or set(names) != set(numbered):
        raise DataError(f"{row.place}: columns {', '.join(sorted(numbered))}; number them from choice_0 without a gap")
    rest = {name: cell for name, cell in row.cells.items() if name not in numbered}
    return rest | {"choices": [numbered[name] for name in names]}
