"""The folder of an alignment run: state to resume from, the released checkpoint, the record."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from .. import __version__
from ..data import ChatFormat
from ..errors import AligntaxError, NonFiniteError
from ..judging.verdict import Judge
from ..models import LoadedModel, resolve
from ..results import ALIGN_SCHEMA, Align, AlignProvenance, plain, read_align, write_bytes, write_json
from .alignment_whole import gathered, rounded_leak
from .launch import first_process, processes
from .record import now, run_record, versions

if TYPE_CHECKING:
    from .align import AlignCommand
    from .alignment_measure import Ruler
    from .alignment_rows import Rows
    from .protections import Protected
    from .rewards import Rewarder

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "numpy")
_NOT_SETTINGS = ("out", "texts", "resume", "overwrite", "quiet", "plan")


def settings_of(command: AlignCommand) -> dict[str, Any]:
    """What decides the result: two runs with the same settings are the same run."""
    values = {name: plain(getattr(command, name)) for name in command.__dataclass_fields__}
    return {name: value for name, value in values.items() if name not in _NOT_SETTINGS}


def folder_of(command: AlignCommand) -> Folder:
    """The output folder of a command."""
    defaults = {one.name: plain(one.default) for one in fields(command) if one.default is not MISSING}
    known = settings_of(command)
    return Folder(command.out, known, {name: value for name, value in defaults.items() if name in known})


@dataclass(frozen=True)
class Folder:
    """`out`, the settings of the run in it, and the default of every setting that has one."""

    out: Path
    settings: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """Where the trainer keeps what a killed run resumes from."""
        return self.out / "state"

    @property
    def checkpoint(self) -> Path:
        """The released model."""
        return self.out / "model"

    def prepare(self, resume: bool, overwrite: bool) -> None:
        """Make the folder ready. Raises AligntaxError where it holds another run, or this one and nothing was said.

        Of several processes the first does it while the others wait, lest they write into what it clears.
        """
        if first_process():
            self._begin(resume, overwrite)
        if processes() > 1:
            PartialState().wait_for_everyone()

    def _begin(self, resume: bool, overwrite: bool) -> None:
        mark = self.state / "run.json"
        found = json.loads(mark.read_text()) if mark.exists() else None
        # A run that failed before its first step leaves texts and settings only: nothing to lose, nothing to resume.
        holds = any(p.name != "state" for p in self.out.glob("*")) or any(self.state.glob("checkpoint-*"))
        if overwrite and holds:
            for part in (self.state, self.checkpoint):
                shutil.rmtree(part, ignore_errors=True)
            for name in ("align.json", "run.yaml"):
                (self.out / name).unlink(missing_ok=True)
        elif resume:
            # A setting that this version added had its default before.
            wanted = json.loads(json.dumps(self.settings))
            before = {**self.defaults, **(found or wanted)}
            changed = sorted(k for k in {*before, *wanted} if before.get(k) != wanted.get(k))
            if changed:
                raise AligntaxError(
                    f"--resume: {self.out} holds a run with other {', '.join(changed)}; use its settings, or --overwrite"
                )
        elif holds:
            raise AligntaxError(f"--out {self.out} is not empty; give --resume to go on there, or --overwrite")
        write_bytes(mark, json.dumps(self.settings, indent=1).encode(), 0o600)
        self.state.chmod(0o700)

    def last_state(self) -> str | None:
        """Newest complete checkpoint of the trainer."""
        found = [p for p in self.state.glob("checkpoint-*") if (p / "trainer_state.json").exists()]
        return str(max(found, key=lambda p: int(p.name.rpartition("-")[2]))) if found else None


def train(trainer: Any, place: Folder, resume: bool) -> float:
    """Run the trainer, from its last state where that is wanted; seconds.

    Raises NonFiniteError where a loss or gradient is NaN or infinite; the state before that step is saved first, and named.
    """
    began = time.perf_counter()
    try:
        trainer.train(resume_from_checkpoint=place.last_state() if resume else None)
    except NonFiniteError as error:
        step = int(trainer.state.global_step)
        kept = place.state / f"checkpoint-{step}"
        if step and not (kept / "trainer_state.json").exists():
            trainer._save_checkpoint(trainer.model, None)
        where = f"; {kept} holds the weights after step {step}" if step else "; nothing was trained before it"
        raise NonFiniteError(f"{error}{where}") from error
    return time.perf_counter() - began


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
    began: float
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
        protect=[name for name in command.protect.split(",") if name],
        depth=command.depth,
        lora_rank=command.lora_rank if command.lora else 0,
        settings={name: str(value) for name, value in settings_of(command).items()}
        | ({"mu used": repr(term.settings.mu)} if term else {}),
        counts=_counts(done.texts),
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


def _counts(texts: Rows) -> dict[str, int]:
    return {
        "refusals": len(texts.requests.harmful),
        "anchors": len(texts.anchors),
        "harmful continuations": len(texts.harmful),
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
        wall_seconds=time.perf_counter() - done.began,
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
