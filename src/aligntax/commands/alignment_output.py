"""What an alignment run leaves: the released checkpoint, its card, the record."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, TrainerCallback

from .. import __version__
from ..data import ChatFormat
from ..errors import AligntaxError, NonFiniteError
from ..judging.verdict import Judge
from ..models import LoadedModel, resolve
from ..report.align_page import render_align
from ..results import ALIGN_SCHEMA, Align, AlignProvenance, read_align, write_bytes, write_json
from .alignment_folder import Folder, settings_of
from .alignment_reads import hears_harm
from .alignment_whole import gathered, rounded_leak
from .protections import Protected, listed
from .record import now, run_record, versions

if TYPE_CHECKING:
    from .align import AlignCommand
    from .alignment_measure import Ruler
    from .alignment_rows import Rows
    from .rewards import Rewarder

ELAPSED = "elapsed.json"
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "numpy")


class Clock(TrainerCallback):
    """Seconds since the run began, those before a resume included; noted beside every saved state.

    Raises AligntaxError where the note cannot be read.
    """

    def __init__(self, began: float, state: str | None) -> None:
        self._began, self._before = began, 0.0
        noted = Path(state or "") / ELAPSED
        if state and noted.is_file():
            try:
                self._before = float(json.loads(noted.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError) as error:
                raise AligntaxError(f"{noted} holds no number of seconds ({error}); delete it") from error

    def seconds(self) -> float:
        """Until now."""
        return self._before + time.perf_counter() - self._began

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After a state was written."""
        if state.is_world_process_zero:
            place = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_bytes(place / ELAPSED, json.dumps(self.seconds()).encode(), 0o600)


def train(trainer: Any, place: Folder, state: str | None) -> float:
    """Run the trainer, from a saved state where one is given; seconds, what came before a resume at the same pace.

    Raises NonFiniteError where a loss or gradient is NaN or infinite; the state before that step is saved first, and named.
    """
    began = time.perf_counter()
    try:
        trainer.train(resume_from_checkpoint=state)
    except NonFiniteError as error:
        step = int(trainer.state.global_step)
        kept = place.state / f"checkpoint-{step}"
        if step and not (kept / "trainer_state.json").exists():
            trainer._save_checkpoint(trainer.model, None)
        where = f"; {kept} holds the weights after step {step}" if step else "; nothing was trained before it"
        raise NonFiniteError(f"{error}{where}") from error
    return whole_run(time.perf_counter() - began, step_of(state), int(trainer.state.global_step))


def step_of(state: str | None) -> int:
    """The optimizer step of a saved state `checkpoint-N`; 0 without one."""
    return int(state.rpartition("-")[2]) if state else 0


def whole_run(seconds: float, first: int, last: int) -> float:
    """Seconds of steps 1 to `last` where those after `first` took `seconds`; what was measured where none was left to do.

    >>> whole_run(30.0, 0, 10), whole_run(30.0, 4, 10)
    (30.0, 50.0)
    """
    return seconds * last / (last - first) if last > first else seconds


def classifier(command: AlignCommand, loaded: LoadedModel) -> PreTrainedModel:
    """The same weights with a scalar head, for a reward model. Raises AligntaxError for a GGUF file or an adapter."""
    found = resolve(command.model, command.revision, command.adapter, command.trust_remote_code)
    if found.gguf is not None or found.adapter is not None:
        raise AligntaxError(f"--method reward starts from a plain folder or Hub id, not {command.model!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(command.seed)
        model: Any = AutoModelForSequenceClassification.from_pretrained(found.folder, num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = loaded.tokenizer.pad_token_id
    model.to(loaded.device)
    return model  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Finished:
    """All that a record is made from."""

    command: AlignCommand
    loaded: LoadedModel
    chat: ChatFormat
    texts: Rows
    protected: Protected
    judge: Judge | Rewarder | None
    trainer: Any
    seconds: float
    clock: Clock
    ruler: Ruler | None = None


def release(done: Finished, place: Folder) -> Align:
    """Write the plain folder, its card, `run.yaml` and `align.json`, and return the record. Every process calls it."""
    guard = done.protected.nullspace
    worst = _worst(guard.residual()) if guard else None
    dtype = getattr(torch, done.command.save_dtype)
    trained = gathered(done.trainer, done.command)
    if trained is not None:
        saved = _worst(rounded_leak(guard, trained, dtype)) if guard else None
        released = trained.merge_and_unload() if hasattr(trained, "merge_and_unload") else trained
        overlap, efficiency = done.ruler.read(released) if done.ruler else ([], None)
        released.to(dtype=dtype).save_pretrained(place.checkpoint, safe_serialization=True)
        done.loaded.tokenizer.save_pretrained(place.checkpoint)
        write_bytes(place.checkpoint / "README.md", model_card(done).encode())
        write_bytes(place.out / "run.yaml", run_record("align", done.command))
        found = replace(_record(done, worst, saved), overlap=overlap, efficiency=efficiency)
        write_bytes(place.out / "report.html", render_align(found).encode())
        write_json(place.out / "align.json", found)
    done.trainer.accelerator.wait_for_everyone()
    return read_align(place.out)


def _worst(leaks: dict[str, float]) -> float | None:
    found = [value for value in leaks.values() if value == value]
    return max(found, default=None)


def _record(done: Finished, worst: float | None, saved: float | None) -> Align:
    command, state = done.command, done.trainer.state
    per_step = command.batch * done.trainer.args.gradient_accumulation_steps * done.trainer.args.world_size
    tokens = int(state.num_input_tokens_seen) or int(
        max((e.get("num_tokens", 0) for e in state.log_history), default=0)
    )
    term = next((c for c in done.trainer.callback_handler.callbacks if getattr(c, "name", "") == "recovery"), None)
    decode = done.loaded.tokenizer.decode
    steps: list[dict[str, float | None]] = [
        {k: float(v) for k, v in e.items() if isinstance(v, int | float)} for e in state.log_history
    ]
    return Align(
        schema_version=ALIGN_SCHEMA,
        model=command.model,
        method=command.method,
        goal=command.goal,
        protect=list(listed(command.protect)),
        depth=command.depth,
        lora_rank=command.lora_rank if command.lora else 0,
        settings={name: str(value) for name, value in settings_of(command).items()}
        | ({"mu used": repr(term.settings.mu)} if term else {}),
        counts=_counts(command, done.texts),
        samples=int(state.global_step) * per_step,
        tokens=tokens,
        tokens_per_second=tokens / done.seconds if tokens and done.seconds else None,
        seconds_per_step=done.seconds / max(1, state.global_step),
        steps=[entry for entry in steps if not any(key.startswith("tax/") for key in entry)],
        kept_rank={name: [rank, _width(done, name)] for name, rank in done.protected.ranks.items()},
        leak=worst,
        leak_saved=saved,
        recovery_tokens=[(token, str(decode([token]))) for token in (term.tokens if term else [])],
        reward_judge=done.judge.name if done.judge else None,
        reward_judge_texts=done.judge.texts_hash if done.judge else None,
        checkpoint="model",
        saved_dtype=command.save_dtype,
        provenance=_provenance(done),
        tax=[entry for entry in steps if any(key.startswith("tax/") for key in entry)],
    )


def _counts(command: AlignCommand, texts: Rows) -> dict[str, int]:
    return {
        "refusals": len(texts.requests.harmful),
        "anchors": len(texts.anchors),
        **({"harmful continuations": len(texts.harmful)} if hears_harm(command) else {}),
        "pairs": len(texts.pairs),
        "protected rows": len(texts.protected),
    }


def _width(done: Finished, name: str) -> int:
    return int(done.texts.subspaces[name].basis.shape[0])


def _provenance(done: Finished) -> AlignProvenance:
    return AlignProvenance(
        package_version=__version__,
        created=now(),
        model_source=done.loaded.source,
        revision=done.loaded.revision,
        weights_sha256=done.loaded.weights_sha256,
        adapter=done.loaded.adapter,
        dtype="float32",
        device=str(done.loaded.device),
        processes=int(done.trainer.args.world_size),
        seed=done.command.seed,
        chat_template=done.chat.describe(),
        data=done.texts.data,
        versions=versions(PACKAGES),
        wall_seconds=done.clock.seconds(),
    )


def model_card(done: Finished) -> str:
    """What the folder is and how it was made, for whoever finds it."""
    command = done.command
    recipe = ", ".join(
        part
        for part in (
            f"method {command.method}",
            f"{done.trainer.state.global_step} steps of {command.batch}",
            f"protected by {command.protect}" if command.protect else "",
            f"depth {command.depth}" if command.depth != "none" else "",
            f"LoRA rank {command.lora_rank}, merged" if command.lora else "",
        )
        if part
    )
    return (
        "---\nlibrary_name: transformers\ntags:\n- aligntax\n---\n\n"
        f"# {command.model}, aligned\n\nMade by aligntax {__version__} from `{command.model}` "
        f"(weights {str(done.loaded.weights_sha256)[:12]}): {recipe}.\n\n"
        "The full record is `align.json` beside this folder; `aligntax audit` measures what was paid and how deep it goes.\n"
        "The base model's licence and limits apply.\n"
    )
