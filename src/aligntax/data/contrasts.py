"""Safety contrasts: harmful against harmless prompts, or items whose gold choice is the good reply."""

import dataclasses
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from aligntax.data.conversations import conversed
from aligntax.data.hub import named_table
from aligntax.data.items import Contrast, clean_text
from aligntax.data.names import safe_name, split_name
from aligntax.data.parse import Gatherer
from aligntax.data.rows import Row, Table, read_table
from aligntax.errors import DataError

BUILTIN_CONTRASTS = ("harmlessness", "helpfulness", "honesty")


def load_contrast(spec: str) -> Contrast:
    """The contrast named by `[NAME=]FILE`, `[NAME=]HARMFUL_FILE,HARMLESS_FILE` or one of BUILTIN_CONTRASTS.

    One file holds rows `{"prompt", "harmful": true|false}`, or `{"prompt", "choices", "gold"}` with the good reply as
    gold; of two files each row needs a prompt only. A file may be `hf:DATASET:CONFIG:SPLIT`. TRL's `completion` (text or
    messages) or `messages` beside a prompt is its reply: how to refuse it, or how to answer it.
    Raises DataError naming file and line, or the class that is empty.
    """
    name, rest = (None, spec) if Path(spec).is_file() else split_name(spec)
    if rest in BUILTIN_CONTRASTS:
        table = dataclasses.replace(_builtin(rest), source=f"builtin:{rest}")
        return _from_table(name or rest, table)
    if "," in rest and not Path(rest).is_file():
        return _from_pair(name, rest)
    path = Path(rest)
    if rest.startswith("hf:"):
        path = Path(rest.removeprefix("hf:").split(":")[0])
    elif not path.suffix and not path.exists():
        raise DataError(f"unknown contrast {rest!r}; give a file, or one of {', '.join(BUILTIN_CONTRASTS)}")
    return _from_table(name or path.stem, named_table(rest))


def over_refusal_prompts() -> tuple[str, ...]:
    """The built-in harmless prompts that sound alarming: refusing one of them is over-refusal."""
    return _prompts(_builtin("over_refusal").rows, Gatherer(), {})


@cache
def look_alikes() -> Contrast:
    """Built-in pairs in alarming words, for training alone: a harmful prompt and a harmless one that sounds like it."""
    return _from_table("look-alikes", dataclasses.replace(_builtin("look_alikes"), source="builtin:look-alikes"))


@cache
def plain_pairs() -> Contrast:
    """Built-in pairs in plain words, for training alone: a harmful prompt and one of the same form that nobody would refuse."""
    return _from_table("plain-pairs", dataclasses.replace(_builtin("plain_pairs"), source="builtin:plain-pairs"))


@cache
def request_categories() -> dict[str, str]:
    """Kind of request (cybercrime, fraud, ..) of every built-in prompt of the harmlessness contrast and of the plain pairs."""
    rows = (row for name in ("harmlessness", "plain_pairs") for row in _builtin(name).rows)
    return {str(row.cells["prompt"]): str(row.cells["category"]) for row in rows}


def _builtin(name: str) -> Table:
    return read_table(files("aligntax.data").joinpath("builtin", f"{name}.jsonl"))


def _from_pair(name: str | None, rest: str) -> Contrast:
    paths = [part.strip() for part in rest.split(",")]
    if len(paths) != 2 or not all(paths):
        raise DataError(f"{rest!r} is not HARMFUL_FILE,HARMLESS_FILE; give two files with one comma between them")
    harmful, harmless = (named_table(path) for path in paths)
    sha256 = hashlib.sha256(f"{harmful.sha256},{harmless.sha256}".encode()).hexdigest()
    together = Table(f"{harmful.source},{harmless.source}", sha256, ())
    return _classes(name or Path(paths[0]).stem, together, harmful.rows, harmless.rows)


def _from_table(name: str, table: Table) -> Contrast:
    if any("choices" in row.cells or "choice_0" in row.cells for row in table.rows):
        gatherer = Gatherer()
        items = gatherer.items(table.rows)
        odd = next((item for item in items if not item.choices), None)
        if odd is not None:
            raise DataError(f"{table.source}: {odd.prompt[:40]!r} has no choices but other rows have; make two files")
        return _named(Contrast(name, (), (), items, table.source, table.sha256, gatherer.notes))
    harmful = [row for row in table.rows if _harmful(row)]
    harmless = [row for row in table.rows if not _harmful(row)]
    return _classes(name, table, harmful, harmless)


def _harmful(row: Row) -> bool:
    value = row.cells.get("harmful")
    if value not in (True, False):
        told = "no harmful" if value is None else f"harmful is {value!r:.40}"
        raise DataError(
            f"{row.place}: {told}; give true or false in every row, or name two files HARMFUL_FILE,HARMLESS_FILE"
        )
    return bool(value)


def _prompts(rows: Sequence[Row], gatherer: Gatherer, replies: dict[str, str]) -> tuple[str, ...]:
    """The distinct prompts of rows; what is written beside the first row of each goes into `replies`."""
    found = []
    for row in rows:
        flat = conversed(row)
        prompt = gatherer.prompt(flat)
        if prompt is not None:
            found.append(prompt)
            if reply := flat.cells.get("completion"):
                replies[prompt] = clean_text(reply)[0].strip()
    return tuple(found)


def _classes(name: str, table: Table, harmful: Sequence[Row], harmless: Sequence[Row]) -> Contrast:
    gatherers = Gatherer(), Gatherer()
    replies: dict[str, str] = {}
    positive, negative = (
        _prompts(rows, gatherer, replies) for rows, gatherer in zip((harmful, harmless), gatherers, strict=True)
    )
    for side, prompts in (("harmful", positive), ("harmless", negative)):
        if not prompts:
            raise DataError(f"{table.source}: the class of {side} prompts is empty; give prompts of both classes")
    both = sorted(set(positive) & set(negative))
    if both:
        raise DataError(
            f"{table.source}: {both[0][:40]!r} is harmful and harmless at once ({len(both)} such); keep one"
        )
    notes = tuple(note for gatherer in gatherers for note in gatherer.notes)
    return _named(Contrast(name, positive, negative, (), table.source, table.sha256, notes, replies))


def _named(contrast: Contrast) -> Contrast:
    allowed = safe_name(contrast.name)
    if allowed == contrast.name:
        return contrast
    notes = (f"renamed from {contrast.name!r} to {allowed!r}", *contrast.notes)
    return dataclasses.replace(contrast, name=allowed, notes=notes)
