"""Per-item scores out of what the language model evaluation harness writes with `--log_samples`.

One `samples_TASK_DATE.jsonl` a task, a line an item and filter: `doc_id`, hashes, metrics by name, and for multiple choice the
log-likelihood of every choice. Texts in it are never kept.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from aligntax.data.task_scores import FoundTasks, TaskScores, as_id, as_score, chosen_metric, file_sha256
from aligntax.errors import DataError

USUAL = ("acc", "exact_match", "acc_norm", "em", "f1", "pass@1", "mc2", "mc1", "prompt_level_strict_acc")
_NAME = re.compile(r"samples_(?P<task>.+?)(?:_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+))?\.jsonl")


def read_lm_eval(files: Sequence[Path], metrics: Sequence[str] = ()) -> FoundTasks:
    """All tasks of one model's sample files; of several runs of a task the newest.

    A task with several filters becomes one task for each, `task/filter`. A metric that the results file calls better when lower
    enters with its sign turned. Raises DataError for files of several models, malformed lines, or an id that comes twice.
    """
    folders = sorted({str(file.parent) for file in files})
    if len(folders) > 1:
        raise DataError(f"{folders[0]} and {folders[1]} hold samples of several models; give one of the folders")
    newest: dict[str, tuple[str, Path]] = {}
    for file in files:
        task, date = _named(file)
        newest[task] = max(newest.get(task, ("", file)), (date, file))
    notes = (
        [f"{len(files) - len(newest)} sample files of older runs are passed over"] if len(newest) < len(files) else []
    )
    tasks: list[TaskScores] = []
    for task, (_, file) in newest.items():
        found, told = _read_task(task, file, metrics)
        tasks, notes = tasks + found, notes + told
    return FoundTasks(tuple(tasks), file_sha256([file for _, file in newest.values()]), tuple(notes))


def _named(file: Path) -> tuple[str, str]:
    match = _NAME.fullmatch(file.name)
    return (match["task"], match["date"] or "") if match else (file.stem, "")


def _read_task(task: str, file: Path, metrics: Sequence[str]) -> tuple[list[TaskScores], list[str]]:
    by_filter: dict[str, dict[str, dict[str, Any]]] = {}
    for place, sample in _lines(file):
        key = as_id(sample.get("doc_id"))
        if key is None:
            raise DataError(f"{place}: no doc_id; give the samples_*.jsonl that lm-eval --log_samples wrote")
        items = by_filter.setdefault(str(sample.get("filter", "none")), {})
        if key in items:
            raise DataError(f"{place}: task {task!r} holds the doc_id {key!r} twice; give the samples of one run")
        items[key] = sample
    lower = _lower_is_better(file, task)
    tasks, notes = [], []
    for name, items in by_filter.items():
        full = task if len(by_filter) == 1 else f"{task}/{name}"
        scored = _task(full, items, metrics)
        if scored.metric in lower:
            scored = replace(scored, scores={key: -value for key, value in scored.scores.items()})
            notes.append(f"{full}: {scored.metric} is better when lower; its sign is turned")
        if len(scored.scores) < len(items):
            notes.append(
                f"{full}: {len(items) - len(scored.scores)} items without a number for {scored.metric} are left out"
            )
        tasks.append(scored)
    return tasks, notes


def _lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with file.open(encoding="utf-8") as stream:
        try:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield f"{file}:{number}", _slim(json.loads(line), f"{file}:{number}")
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: not valid UTF-8; write the log again") from error
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{file}:{number}: not valid JSON ({error}); write the log again") from error


def _slim(sample: Any, place: str) -> dict[str, Any]:
    """The sample without its texts, so that a long log stays small in memory."""
    if not isinstance(sample, dict):
        raise DataError(f"{place}: a sample is a JSON object, not {sample!r:.40}")
    known = sample.get("metrics")
    reserved = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"}
    names = known if isinstance(known, list) else [key for key in sample if key not in reserved]
    values = {name: as_score(sample.get(name)) for name in names if isinstance(sample.get(name), bool | int | float)}
    kept = {key: sample.get(key) for key in ("doc_id", "filter", "doc_hash", "prompt_hash") if key in sample}
    choices = None if "acc_mutual_info" in values else _choices(sample)
    return {**kept, "values": values, "choices": choices}


def _choices(sample: dict[str, Any]) -> tuple[float, ...] | None:
    """Log-likelihoods of the choices, gold first; None where the item is no multiple choice or its gold is not known."""
    answers = sample.get("filtered_resps")
    if not isinstance(answers, list) or len(answers) < 2:
        return None
    if not all(isinstance(answer, list) and len(answer) == 2 for answer in answers):
        return None
    values = [as_score(answer[0]) for answer in answers]
    gold = _gold(sample, len(values))
    if gold is None or any(value is None for value in values):
        return None
    ordered = [values[gold], *values[:gold], *values[gold + 1 :]]
    return tuple(value for value in ordered if value is not None)


def _gold(sample: dict[str, Any], count: int) -> int | None:
    target = str(sample.get("target", ""))
    if target.isdecimal():
        return int(target) if int(target) < count else None
    arguments = sample.get("arguments")
    parts = list(arguments.values()) if isinstance(arguments, dict) else []
    texts = [str(part.get("arg_1", "")).strip() for part in parts if isinstance(part, dict)]
    return texts.index(target.strip()) if len(texts) == count and texts.count(target.strip()) == 1 else None


def _task(name: str, items: dict[str, dict[str, Any]], metrics: Sequence[str]) -> TaskScores:
    found = {metric for item in items.values() for metric in item["values"]}
    metric = chosen_metric(name, sorted(found), metrics, USUAL)
    scores = {key: item["values"][metric] for key, item in items.items() if item["values"].get(metric) is not None}
    choices = {key: item["choices"] for key, item in items.items() if item["choices"] is not None}
    return TaskScores(
        name,
        metric,
        scores,
        {"as logged": choices} if choices else {},
        {key: str(item["doc_hash"]) for key, item in items.items() if item.get("doc_hash")},
        {key: str(item["prompt_hash"]) for key, item in items.items() if item.get("prompt_hash")},
    )


def _lower_is_better(file: Path, task: str) -> set[str]:
    """Metrics that the results file beside the samples calls better when lower; none where there is no such file."""
    date = _named(file)[1]
    try:
        results = json.loads((file.parent / f"results_{date}.json").read_text())
        directions = results["higher_is_better"][task]
        return {name for name, higher in directions.items() if higher is False}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
