"""TRL's trainers, made thinly: one configuration each, their own loops untouched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

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


def read_config(path: str) -> dict[str, Any]:
    """Fields of a TRL configuration from a YAML mapping. Raises AligntaxError for a file that is none."""
    if not path:
        return {}
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AligntaxError(f"--config {path}: {error}; give a YAML mapping of TRL fields") from error
    if not isinstance(found, dict):
        raise AligntaxError(f"--config {path} is no mapping; write lines such as 'warmup_steps: 5'")
    return {str(key): value for key, value in found.items()}


def configuration(recipe: Recipe, folder: Path, device: str, chat_kwargs: Mapping[str, Any], quiet: bool) -> Any:
    """The method's TRL configuration. Raises AligntaxError for a field it does not have."""
    kind = getattr(require_trl(), f"{_NAMES[recipe.method]}Config")
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(recipe.extra) - known)
    if unknown:
        raise AligntaxError(f"--config: {kind.__name__} has no field {unknown[0]!r}; see TRL's documentation of it")
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
        values["precompute_ref_log_probs"] = True
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
