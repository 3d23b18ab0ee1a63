"""Rows of a task of the language model evaluation harness, `lm_eval:TASK`, where lm-eval is installed.

The task's own doc_to_text, doc_to_target and doc_to_choice speak, 0-shot and without a description.
Its target delimiter (usually one space) becomes the beginning of the answer or of each choice.
"""

from typing import Any

from aligntax.data.rows import Row
from aligntax.errors import DataError


def harness_rows(name: str) -> tuple[Row, ...]:
    """The documents of the evaluation split of one task, as rows.

    Raises DataError when lm-eval is not installed, the task is unknown, is a group, or has no answers.
    """
    task = _find(name)
    try:
        docs = list(task.eval_docs)
    except Exception as error:  # Loading reaches the Hub through the datasets library: many kinds of error.
        raise DataError(f"lm_eval:{name}: its documents cannot be loaded ({_first_line(error)})") from error
    if not docs:
        raise DataError(f"lm_eval:{name}: the task holds no documents; choose another")
    return tuple(Row(f"lm_eval:{name}, document {n}", _cells(task, doc)) for n, doc in enumerate(docs, 1))


def _find(name: str) -> Any:
    try:
        from lm_eval.tasks import TaskManager, get_task_dict
    except ImportError as error:
        raise DataError(f"lm_eval:{name}: needs lm-eval; pip install 'aligntax[eval]'") from error
    try:
        found = get_task_dict([name], TaskManager())
    except Exception as error:
        raise DataError(f"lm_eval:{name}: not a usable task ({_first_line(error)}); see lm-eval ls tasks") from error
    task = found.get(name)
    if task is None or isinstance(task, dict):
        raise DataError(f"lm_eval:{name}: is a group of tasks; name one of its tasks")
    return task


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _cells(task: Any, doc: Any) -> dict[str, Any]:
    text, target = task.doc_to_text(doc), task.doc_to_target(doc)
    delimiter = task.config.target_delimiter
    if task.multiple_input:
        return {"prompts": task.doc_to_choice(doc), "gold": text, "answer": _delimited(delimiter, target)}
    if task.config.output_type == "multiple_choice":
        choices = list(task.doc_to_choice(doc))
        gold = choices.index(target) if isinstance(target, str) and target in choices else target
        return {"prompt": text, "choices": [_delimited(delimiter, choice) for choice in choices], "gold": gold}
    # Several accepted answers: the first is the one the harness shows as an example.
    answer = target[0] if isinstance(target, list) and target else target
    return {"prompt": text, "answer": _delimited(delimiter, answer)}


def _delimited(delimiter: str, text: Any) -> Any:
    if not isinstance(text, str) or text[:1].isspace():
        return text
    return delimiter + text
