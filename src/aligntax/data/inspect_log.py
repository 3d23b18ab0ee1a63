"""Per-item scores out of inspect's `.eval` logs, read by inspect itself where it is installed.

Only the summaries of samples are read, never messages. An `.eval` file is a zip archive: its unpacked size is checked before
anything of it is unpacked.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aligntax.data.task_scores import FoundTasks, TaskScores, as_id, as_score, chosen_metric, file_sha256
from aligntax.errors import DataError

LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""What inspect's scorers write for correct, partly correct, incorrect and no answer."""


def read_inspect(files: Sequence[Path], metrics: Sequence[str] = (), limit: int = 2 * 1024**3) -> FoundTasks:
    """All tasks of the logs; of several logs of a task the newest. Epochs of a sample are averaged.

    `metrics` are names of scorers, or `scorer/key` where a scorer gives several numbers. Raises DataError where inspect is not
    installed, for a file that is no archive or unpacks to more than `limit` bytes, and for scores that are no numbers.
    """
    for file in files:
        _check_archive(file, limit)
    try:
        from inspect_ai.log import read_eval_log, read_eval_log_sample_summaries
    except ImportError as error:
        raise DataError(f"{files[0]}: reading .eval logs needs inspect; pip install inspect-ai") from error
    newest: dict[str, tuple[str, Path]] = {}
    samples: dict[Path, Any] = {}
    for file in files:
        try:
            header = read_eval_log(str(file.resolve()), header_only=True)
            samples[file] = read_eval_log_sample_summaries(str(file.resolve()))
        except Exception as error:  # A damaged log fails in zip, JSON or validation code: many kinds of error.
            raise DataError(
                f"{file}: inspect cannot read it ({str(error).splitlines()[:1]}); write it again"
            ) from error
        task = str(header.eval.task)
        newest[task] = max(newest.get(task, ("", file)), (str(header.eval.created), file))
    notes = [f"{len(files) - len(newest)} logs of older runs are passed over"] if len(newest) < len(files) else []
    tasks: list[TaskScores] = []
    for task, (_, file) in newest.items():
        found, told = _task(task, samples[file], metrics)
        tasks, notes = [*tasks, found], notes + told
    return FoundTasks(tuple(tasks), file_sha256([file for _, file in newest.values()]), tuple(notes))


def _check_archive(file: Path, limit: int) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{file}: not a readable .eval log ({error}); give what inspect wrote") from error
    if size > limit:
        raise DataError(f"{file}: unpacks to {size} bytes, above the limit of {limit}; split the log by task")


def _task(task: str, samples: Sequence[Any], metrics: Sequence[str]) -> tuple[TaskScores, list[str]]:
    """Scores by sample id, averaged over epochs; samples without a score are counted."""
    numbers: dict[str, dict[str, list[float]]] = {}
    ids, seen = set(), set()
    for sample in samples:
        key = as_id(sample.id)
        if key is None or (key, sample.epoch) in seen:
            raise DataError(f"task {task!r}: sample {sample.id!r} has no id of its own; give every sample one id")
        seen.add((key, sample.epoch))
        ids.add(key)
        for name, value in _numbers(sample.scores or {}).items():
            numbers.setdefault(name, {}).setdefault(key, []).append(value)
    metric = chosen_metric(task, sorted(numbers), metrics, ())
    epochs = max(len(values) for values in numbers[metric].values())
    whole = {key: float(np.mean(values)) for key, values in numbers[metric].items() if len(values) == epochs}
    missing = len(ids) - len(whole)
    return TaskScores(task, metric, whole), [
        f"{task}: {missing} samples without all scores are left out"
    ] if missing else []


def _numbers(scores: dict[str, Any]) -> dict[str, float]:
    """Scorer -> number; a scorer that gives several becomes `scorer/key`. What is no number is left out, never 0."""
    found: dict[str, float] = {}
    for name, score in scores.items():
        value = score.value
        parts = {f"{name}/{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
        for part, each in parts.items():
            number = LETTERS[each] if isinstance(each, str) and each in LETTERS else as_score(each)
            if number is not None:
                found[part] = number
    return found
