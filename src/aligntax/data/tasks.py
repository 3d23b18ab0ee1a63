"""Where tasks come from: built in, a file, a dataset of the Hub, or the evaluation harness."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from aligntax.data.harness import harness_rows
from aligntax.data.hub import hub_rows
from aligntax.data.items import Item, Task, digest
from aligntax.data.names import free_name, safe_name, split_name
from aligntax.data.parse import Gatherer
from aligntax.data.rows import SUFFIXES, Row, read_table
from aligntax.errors import DataError


def BUILTIN_TASKS() -> tuple[str, ...]:
    """The names of the built-in capability tasks, sorted."""
    folder = _builtin_folder()
    if not folder.is_dir():
        return ()
    return tuple(sorted(file.name.removesuffix(".jsonl") for file in folder.iterdir() if file.name.endswith(".jsonl")))


def load_task(spec: str) -> Task:
    """The task of `[NAME=]SPEC`: a built-in name, a .jsonl, .json, .csv or .parquet file, hf:DATASET:CONFIG:SPLIT
    or lm_eval:TASK.

    Rows: `prompt` with `answer`, or with `choices` and `gold`, or `prompts` with `answer` and `gold`.
    Raises DataError naming file and line.
    """
    name, rest = (None, spec) if Path(spec).is_file() else split_name(spec)
    if rest.startswith("hf:"):
        dataset = rest.removeprefix("hf:").split(":")[0]
        return _remote(name or os.path.basename(dataset.rstrip("/")), rest, hub_rows(rest.removeprefix("hf:")))
    if rest.startswith("lm_eval:"):
        title = rest.removeprefix("lm_eval:")
        return _remote(name or title, rest, harness_rows(title))
    if rest in BUILTIN_TASKS():
        table = read_table(_builtin_folder().joinpath(f"{rest}.jsonl"))
        return _task(name or rest, table.rows, f"builtin:{rest}", table.sha256)
    path = Path(rest)
    if path.suffix.lower() not in SUFFIXES and not path.exists():
        known = ", ".join(BUILTIN_TASKS())
        raise DataError(f"unknown task {rest!r}; give a file ({', '.join(SUFFIXES)}) or a built-in task: {known}")
    table = read_table(path)
    return _task(name or path.stem, table.rows, table.source, table.sha256)


def load_tasks(specs: Iterable[str]) -> tuple[Task, ...]:
    """The tasks of several specs, in order; a name that is taken gets the suffix -2, -3, ... and a note."""
    tasks: dict[str, Task] = {}
    for spec in specs:
        task = load_task(spec)
        name = free_name(task.name, tasks)
        if name != task.name:
            note = f"renamed from {task.name!r} to {name!r}: the name was taken"
            task = dataclasses.replace(task, name=name, notes=(*task.notes, note))
        tasks[name] = task
    return tuple(tasks.values())


def _builtin_folder() -> Traversable:
    return files("aligntax.data").joinpath("builtin", "tasks")


def _remote(name: str, source: str, rows: Sequence[Row]) -> Task:
    task = _task(name, rows, source, "")
    return dataclasses.replace(task, sha256=digest([item.key for item in task.items]))


def _task(name: str, rows: Sequence[Row], source: str, sha256: str) -> Task:
    gatherer = Gatherer()
    items = gatherer.items(rows)
    _check_one_kind(items, source)
    allowed = safe_name(name)
    renamed = () if allowed == name else (f"renamed from {name!r} to {allowed!r}",)
    return Task(allowed, items, items[0].kind, source, sha256, (*renamed, *gatherer.notes))


def _check_one_kind(items: Sequence[Item], source: str) -> None:
    compared = sum(item.kind == "choices" for item in items)
    if compared not in (0, len(items)):
        raise DataError(
            f"{source}: {compared} items with choices and {len(items) - compared} with answers; make two files"
        )
