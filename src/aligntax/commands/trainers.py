"""TRL's trainers, made thinly: one configuration each, their own loops untouched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ..errors import AligntaxError
from .launch import processes

METHODS = ("sft", "dpo", "reward", "rloo", "grpo")
_NAMES = {"sft": "SFT", "dpo": "DPO", "reward": "Reward", "rloo": "RLOO", "grpo": "GRPO"}
Reward = Callable[..., list[float | None]]


@dataclass(frozen=True)
class Recipe:
    """Size of a training run; `extra` are fields of TRL's configuration that the user set, and win over everything."""

    method: str
    steps: int
    batch: int
    learning_rate: float
    beta: float
    completion_tokens: int
    group: int
    seed: int
    save_every: int
    log_every: int
    extra: Mapping[str, Any]


def require_trl() -> Any:
    """TRL, or one line that says how to get it."""
    try:
        import trl
    except ImportError as error:
        raise AligntaxError("alignment training needs TRL: pip install 'aligntax[train]'") from error
    return trl


def read_config(path: str, method: str) -> dict[str, Any]:
    """Fields of the method's TRL configuration from a YAML mapping; epochs that are given without steps say when to stop.

    Numbers are made the field's type, since YAML reads `1e-5` as text. Raises AligntaxError for a file that is no mapping, a field
    that the method does not have, or a value that is no number where the field is one.
    """
    if not path:
        return {}
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AligntaxError(f"--config {path}: {error}; give a YAML mapping of TRL fields") from error
    if not isinstance(found, dict):
        raise AligntaxError(f"--config {path} is no mapping; write lines such as 'warmup_steps: 5'")
    kind = _kind(method, found)
    hints = get_type_hints(kind)
    values = {str(name): _typed(str(name), value, hints[str(name)], path) for name, value in found.items()}
    return {"max_steps": -1, **values} if "num_train_epochs" in values else values


def _kind(method: str, given: Iterable[Any]) -> Any:
    """The method's TRL configuration. Raises AligntaxError for a field that it does not have."""
    kind = getattr(require_trl(), f"{_NAMES[method]}Config")
    unknown = sorted({str(name) for name in given} - {f.name for f in fields(kind)})
    if unknown:
        raise AligntaxError(f"--config: {kind.__name__} has no field {unknown[0]!r}; see TRL's documentation of it")
    return kind


def _typed(name: str, value: Any, hint: Any, path: str) -> Any:
    """The value as a field of type `hint` takes it: numbers, and lists of them, as numbers; anything else as it stands."""
    kinds = get_args(hint) if isinstance(hint, UnionType) or get_origin(hint) is Union else (hint,)
    listed = next((kind for kind in kinds if get_origin(kind) in (list, tuple)), None)
    if isinstance(value, list):
        return value if listed is None else [_typed(name, one, get_args(listed)[0], path) for one in value]
    if str in kinds or not {int, float} & {*kinds} or (value is None and NoneType in kinds):
        return value
    try:
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else float(str(value))
        if float in kinds:
            return number
        if number != int(number):
            raise ValueError(number)
        return int(number)
    except (ValueError, OverflowError) as error:
        wanted = "number" if float in kinds else "whole number"
        raise AligntaxError(f"--config {path}: {name} is {value!r:.60}; give a {wanted}") from error


def configuration(recipe: Recipe, folder: Path, device: str, chat_kwargs: Mapping[str, Any], quiet: bool) -> Any:
    """The method's TRL configuration. Raises AligntaxError for a field it does not have."""
    kind = _kind(recipe.method, recipe.extra)
    known = {f.name for f in fields(kind)}
    values = _common(recipe, folder, device, quiet)
    if recipe.method in ("rloo", "grpo"):
        values |= {
            "num_generations": recipe.group,
            "max_completion_length": recipe.completion_tokens,
            "beta": recipe.beta,
            "chat_template_kwargs": dict(chat_kwargs) or None,
            "log_completions": False,
        }
    # Checkpointing trades speed for memory; TRL turns it on unless told.
    values["activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"] = False
    if recipe.method == "dpo":
        values["beta"] = recipe.beta
        # Of several processes the first would write it to a temporary folder of its own, where the others find nothing.
        values["precompute_ref_log_probs"] = processes() == 1
    values |= recipe.extra
    try:
        return kind(**{name: value for name, value in values.items() if name in known})
    except (TypeError, ValueError) as error:
        raise AligntaxError(f"{kind.__name__}: {str(error).splitlines()[0]}") from error


def _common(recipe: Recipe, folder: Path, device: str, quiet: bool) -> dict[str, Any]:
    """Fields that every method has."""
    return {
        "output_dir": str(folder),
        "max_steps": recipe.steps,
        "per_device_train_batch_size": recipe.batch,
        "learning_rate": recipe.learning_rate,
        "logging_steps": recipe.log_every,
        "save_steps": recipe.save_every,
        "save_strategy": "steps",
        "save_total_limit": 2,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "report_to": "none",
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": min(3, recipe.steps // 4),
        "use_cpu": device == "cpu",
        "ddp_backend": "gloo" if device == "cpu" and processes() > 1 else None,
        "ddp_find_unused_parameters": False,
        "bf16": device == "cuda",
        "disable_tqdm": quiet,
        "max_length": 512,
    }


def make_trainer(
    method: str,
    args: Any,
    parts: tuple[PreTrainedModel, PreTrainedTokenizerBase, Sequence[Mapping[str, Any]]],
    callbacks: Sequence[TrainerCallback],
    reward: Reward | PreTrainedModel | str | None = None,
) -> Any:
    """The method's trainer over model, tokenizer and rows."""
    import datasets

    model, tokenizer, rows = parts
    known: dict[str, Any] = {
        "model": model,
        "args": args,
        "train_dataset": datasets.Dataset.from_list([dict(row) for row in rows]),
        "processing_class": tokenizer,
        "callbacks": list(callbacks),
    }
    if method in ("rloo", "grpo"):
        known["reward_funcs"] = reward
    with _no_bars():
        trainer = getattr(require_trl(), f"{_NAMES[method]}Trainer")(**known)
    bar = trainer.pop_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    if bar is not None:
        trainer.add_callback(BareProgress)
    return trainer


class BareProgress(ProgressCallback):
    """The trainer's progress bar without a line for every log; the numbers are in the record."""

    def on_log(self, *_: Any, **__: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    import datasets

    shown = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
