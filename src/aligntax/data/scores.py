"""Evaluation logs of other tools as one thing: item id -> score, task by task.

A log is a folder of the language model evaluation harness (`--log_samples`), an inspect `.eval` file or a folder of them, a
folder with our own `items.parquet`, or a table (.csv, .jsonl, .json, .parquet) with `id`, `score` and optional `task`. Scores
are such that higher is better. Two logs are compared item by item or not at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aligntax.data.inspect_log import read_inspect
from aligntax.data.lm_eval_log import read_lm_eval
from aligntax.data.rows import SUFFIXES
from aligntax.data.score_rows import read_score_rows
from aligntax.data.task_scores import MAX_BYTES, TaskScores, checked_size
from aligntax.errors import DataError


@dataclass(frozen=True)
class ScoreLog:
    """All tasks of one log. `kind` says which reader understood it; `sha256` is over the bytes of `files`, in order."""

    source: str
    kind: str
    tasks: dict[str, TaskScores]
    sha256: str
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairedScores:
    """One task in two logs, over the same ids. `left_out`: items of only one log, where those may be left out."""

    before: TaskScores
    after: TaskScores
    left_out: int
    notes: tuple[str, ...] = field(default=())


def read_scores(path: Path, metrics: Sequence[str] = (), limit: int = MAX_BYTES) -> ScoreLog:
    """Read one log, whichever kind it is. `metrics`: names in order of preference; `limit`: bytes of a file, unpacked.

    Raises DataError, naming file and line or item, for what is missing, too large, malformed, or holds an id twice.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give an evaluation log")
    kind, files = _recognise(path)
    for file in files:
        checked_size(file, limit)
    if kind == "lm-eval":
        found = read_lm_eval(files, metrics)
    elif kind == "inspect":
        found = read_inspect(files, metrics, limit)
    else:
        found = read_score_rows(files[0])
    if not any(task.scores for task in found.tasks):
        raise DataError(f"{path}: no item has a score; score at least two")
    tasks = {task.task: task for task in found.tasks}
    return ScoreLog(str(path), kind, tasks, found.sha256, tuple(str(file) for file in files), found.notes)


def _recognise(path: Path) -> tuple[str, list[Path]]:
    """The kind of log and its files. Raises DataError for a folder or file that is none."""
    if path.is_file():
        if path.suffix == ".eval":
            return "inspect", [path]
        harness = path.name.startswith("samples_") and path.suffix == ".jsonl"
        return ("lm-eval" if harness else "rows"), [path]
    if (path / "items.parquet").is_file():
        return "items", [path / "items.parquet"]
    samples = sorted([*path.glob("samples_*.jsonl"), *path.glob("*/samples_*.jsonl")])
    if samples:
        return "lm-eval", samples
    logs = sorted(path.glob("*.eval"))
    if logs:
        return "inspect", logs
    raise DataError(
        f"{path}: no samples_*.jsonl (lm-eval --log_samples), *.eval (inspect) or items.parquet in this folder; "
        f"give such a folder or a file ({', '.join(SUFFIXES)}) with the columns id and score"
    )


def pair_tasks(before: ScoreLog, after: ScoreLog, common: bool = False) -> dict[str, PairedScores]:
    """Task -> the scores of the same items in both logs, in the order of `before`.

    Raises DataError naming the first task, or task and id, that only one log has, unless `common`: then those are left out and
    counted. Raises in any case where the logs share nothing, hold another metric, or another document under the same id.
    """
    for here, there, one, other in ((before, after, "before", "after"), (after, before, "after", "before")):
        alone = [task for task in here.tasks if task not in there.tasks]
        if alone and not common:
            raise DataError(
                f"task {alone[0]!r} is in {one} ({here.source}) but not in {other} ({there.source}); "
                "run the same tasks on both, or compare what is common with --common"
            )
    shared = [task for task in before.tasks if task in after.tasks]
    if not shared:
        raise DataError(
            f"{before.source} and {after.source} share no task ({_some(before.tasks)}; {_some(after.tasks)})"
        )
    return {task: _pair_items(before.tasks[task], after.tasks[task], common) for task in shared}


def _some(tasks: Mapping[str, TaskScores]) -> str:
    return ", ".join(list(tasks)[:5])


def _pair_items(before: TaskScores, after: TaskScores, common: bool) -> PairedScores:
    name = before.task
    if before.metric != after.metric:
        raise DataError(
            f"task {name!r} is scored by {before.metric} before and {after.metric} after; name one with --metric"
        )
    for here, there, one, other in ((before, after, "before", "after"), (after, before, "after", "before")):
        alone = sorted(set(here.scores) - set(there.scores))
        if alone and not common:
            raise DataError(
                f"task {name!r}: item {alone[0]!r} is scored {one} but not {other} ({len(alone)} of {len(here.scores)} so); "
                "score the same items both times, or compare what is common with --common"
            )
    ids = [key for key in before.scores if key in after.scores]
    if len(ids) < 2:
        raise DataError(f"task {name!r}: {len(ids)} items are in both logs; a tax needs at least two")
    _check_contents(before, after, ids)
    left_out = len(before.scores) + len(after.scores) - 2 * len(ids)
    notes = [f"{name}: {left_out} items that only one log has are left out"] if left_out else []
    changed = sum(
        before.prompts[key] != after.prompts[key] for key in ids if key in before.prompts and key in after.prompts
    )
    if changed:
        notes.append(
            f"{name}: the prompts of {changed} of {len(ids)} items differ between the logs, as a chat template would do"
        )
    return PairedScores(before.only(ids), after.only(ids), left_out, tuple(notes))


def _check_contents(before: TaskScores, after: TaskScores, ids: Sequence[str]) -> None:
    for key in ids:
        one, other = before.contents.get(key), after.contents.get(key)
        if one is not None and other is not None and one != other:
            raise DataError(
                f"task {before.task!r}: item {key!r} is another document before than after; "
                "the logs number other data, run both on the same version of it"
            )
