"""Files to rows: JSON lines, JSON, CSV and Parquet, each row with the place it came from.

Knows file formats and nothing of items. Every row is a dict of plain Python values without empty cells.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from aligntax.errors import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True)
class Row:
    """One row and its place: `file:line` (of JSON lines and CSV), `file, row n` (of JSON and Parquet, from 1)."""

    place: str
    cells: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """The rows of one file and the sha256 of its bytes."""

    source: str
    sha256: str
    rows: tuple[Row, ...]


def read_table(path: Path | Traversable) -> Table:
    """All rows of a .jsonl, .json, .csv or .parquet file.

    Raises DataError, naming file and line, when the file is missing, empty, malformed or not UTF-8.
    """
    suffix = Path(path.name).suffix.lower()
    source = str(path) if isinstance(path, Path) else path.name
    if suffix not in SUFFIXES:
        raise DataError(f"{source}: unknown kind of file; give one of {', '.join(SUFFIXES)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error}); check the path") from error
    readers = {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    rows = tuple(_without_empty(row) for row in readers[suffix](source, content))
    if not rows:
        raise DataError(f"{source}: the file holds no rows; give at least one")
    return Table(source, hashlib.sha256(content).hexdigest(), rows)


def _without_empty(row: Row) -> Row:
    return Row(row.place, {name: cell for name, cell in row.cells.items() if cell is not None})


def _decode(source: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{source}:{line}: not valid UTF-8 (byte {error.start}); save the file as UTF-8") from error


def _json_lines(source: str, content: bytes) -> Iterator[Row]:
    # Not splitlines(): that also cuts at U+2028, which is legal inside a JSON string.
    for number, line in enumerate(_decode(source, content).split("\n"), 1):
        if line.strip():
            yield _row(f"{source}:{number}", _parse(f"{source}:{number}", line))


def _json(source: str, content: bytes) -> Iterator[Row]:
    text = _decode(source, content)
    if not text.strip():
        return
    rows = _parse(source, text)
    if not isinstance(rows, list):
        raise DataError(f"{source}: holds one {type(rows).__name__}; give a JSON list of rows, or name the file .jsonl")
    for number, cells in enumerate(rows, 1):
        yield _row(f"{source}, row {number}", cells)


def _parse(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if "\n" in text.strip() else f"column {error.colno}"
        raise DataError(f"{place}: not valid JSON ({error.msg}, {where}); mend or remove it") from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"{place}: not usable JSON ({error}); mend or remove it") from error


def _row(place: str, cells: Any) -> Row:
    if not isinstance(cells, dict):
        raise DataError(f'{place}: a row is a JSON object such as {{"prompt": ..., "answer": ...}}, not {cells!r:.60}')
    return Row(place, cells)


def _csv(source: str, content: bytes) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(_decode(source, content), newline=""), strict=True)
    line = 1
    try:
        names = next(reader, [])
        while True:
            line = reader.line_num + 1
            values = next(reader, None)
            if values is None:
                return
            if values:
                yield Row(f"{source}:{line}", _csv_cells(f"{source}:{line}", names, values))
    except csv.Error as error:
        raise DataError(f"{source}:{line}: not valid CSV ({error}); mend the quotes") from error


def _csv_cells(place: str, names: list[str], values: list[str]) -> dict[str, Any]:
    if len(values) != len(names):
        raise DataError(f"{place}: {len(values)} cells under {len(names)} columns; quote cells that hold commas")
    cells: dict[str, Any] = {}
    for name, value in zip(names, values, strict=True):
        if name == "prompt":
            cells[name] = value
        elif value:
            cells[name] = _csv_value(place, name, value)
    return cells


def _csv_value(place: str, name: str, value: str) -> Any:
    if name in ("choices", "prompts"):
        return _parse(f"{place}, column {name}", value)
    if name == "gold":
        return int(value) if value.strip().lstrip("-").isdecimal() else value
    if name == "harmful":
        return {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower(), value)
    return value


def _parquet(source: str, content: bytes) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not content:
        return
    try:
        rows = pq.read_table(pa.BufferReader(content)).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{source}: not a readable Parquet file ({reason}); write it again") from error
    for number, cells in enumerate(rows, 1):
        yield Row(f"{source}, row {number}", cells)
