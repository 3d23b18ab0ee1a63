"""`aligntax survey`: what will safety cost this model, which capabilities pay, and how much is free.

The command composes rooms and decides nothing else: files to rows (`materials`), rows to arrays (`gather`), arrays to
tables (`analysis`, `selection`, `linearity`, `tables`), tables to files (`outputs`).
"""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, NoneType
from typing import Annotated, Literal

import torch
import tyro

from ..data import (
    BUILTIN_CONTRASTS,
    BUILTIN_TASKS,
    FORMATS,
    ChatFormat,
    load_contrast,
    load_tasks,
    over_refusal_prompts,
)
from ..errors import AligntaxError
from ..models import LoadedModel, ModelSpec, load
from ..probing import KINDS, Meter, Probe, ShardStore, TokenBudget, callable_metric
from ..results import Survey, read_survey
from .assemble import assemble
from .estimators import ESTIMATORS
from .gather import Workbench
from .materials import Encoder, Materials, build_materials
from .outputs import write_survey
from .plan import print_plan
from .record import chat_options
from .sizes import Size, size_named

# Tokens per second, forward and backward, on 2 cores: 252-280 at 2048, 298-305 at 1024, 311-315 at 512 (and less memory).
CPU_TOKENS, GPU_TOKENS = 512, 16384


@dataclass(frozen=True)
class SurveyCommand:
    """Survey the alignment tax of MODEL before any training: writes survey.json, directions.safetensors and report.html."""

    model: tyro.conf.Positional[str]
    """Hub id, folder, folder of a PEFT adapter, .gguf file, or smollm2-135m-instruct (embedded)."""
    out: Path = Path("out/survey")
    """Folder for the results; finished shards in it are never computed again."""
    size: Literal["auto", "demo", "quick", "full"] = "auto"
    """How much data: demo, quick (default on CPU) or full (default on GPU)."""
    safety: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Safety objective, repeatable: [NAME=]FILE, [NAME=]HARMFUL_FILE,HARMLESS_FILE or a built-in name. The first is surveyed."""
    tasks: tuple[str, ...] = ()
    """Capability tasks: files, built-in names, hf:DATASET:CONFIG:SPLIT, lm_eval:TASK. Default: all built-in ones."""
    estimator: Literal["gradient", "dim", "probe", "subspace"] = "gradient"
    """What the safety direction is: gradient of refusal log-odds (default), difference in means, linear probe, or subspace."""
    rank: int = 2
    """Rank of the safety subspace (with --estimator subspace)."""
    capability: Literal["gradient", "probe"] = "gradient"
    """What a capability direction is: gradient of the metric (default), or right-against-wrong mean activations."""
    shift: Literal["all", "response", "last"] = "all"
    """Positions that the zero shift reaches."""
    formats: tuple[str, ...] = ("plain",)
    """Prompt formats of the tasks (plain, chat, qa); the first is surveyed, the others are compared with it."""
    tolerance: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Tolerated loss, repeatable: NUMBER for every task or TASK=NUMBER, in the task's unit. Default 0.01."""
    budget_nats: float = 0.1
    """Budget of the tolerance table, in nats of KL per response token."""
    refusal_tokens: str = ""
    """Comma-separated words that open a refusal, instead of those found from replies and standard openings."""
    system: str | None = None
    """System message of the chat template."""
    chat_template_kwargs: str = "{}"
    """JSON object of arguments for the chat template, such as '{"enable_thinking": false}'."""
    revision: str | None = None
    """Hub revision (branch, tag or commit)."""
    adapter: str | None = None
    """PEFT adapter to put on the model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number type; auto is bf16 on a GPU that has it, else float32."""
    device: str = "auto"
    """Device; auto takes CUDA where there is one."""
    trust_remote_code: bool = False
    """Run code that comes with the checkpoint. Only for checkpoints you trust."""
    groups: int = 8
    """Number of disjoint groups of items behind every interval (at least 8 for the stated coverage)."""
    seed: int = 0
    """Seed of everything that is drawn."""
    batch_tokens: int = 0
    """Tokens a batch may hold (0: chosen by device); halved when memory runs out."""
    linearity: bool = True
    """Steer for real and compare with the forecast."""
    plan: bool = False
    """Print tokens, memory and time per phase, and start nothing."""
    quiet: bool = False
    """No progress bars and no summary."""
    metrics: tyro.conf.Suppress[Mapping[str, Callable[..., torch.Tensor]]] = field(default_factory=dict)
    """From Python only: task name to metric(logits, batch) -> (batch,)."""

    def execute(self, loaded: LoadedModel | None = None) -> Survey | None:
        """Run, write the files and return what they say; None with `plan`. Raises AligntaxError for input that cannot be used."""
        began = time.perf_counter()
        self._check()
        loaded = loaded or load(
            ModelSpec(self.model, self.revision, self.adapter, self.dtype, self.device, self.trust_remote_code)
        )
        size = self._size(loaded)
        chat = ChatFormat(loaded.tokenizer, self.system, chat_options(self.chat_template_kwargs))
        materials = self._materials(loaded, chat, size)
        self.tolerances([task.task.name for task in materials.tasks])
        if self.plan:
            print_plan(materials, loaded, size)
            return None
        with Meter(self.quiet) as meter:
            bench = self._bench(loaded, chat, size, meter)
            survey, arrays = assemble(self, bench, loaded, materials, began)
        write_survey(self, survey, arrays, loaded.tokenizer)
        return read_survey(self.out)

    def _check(self) -> None:
        if self.groups < 5:
            raise AligntaxError(
                f"--groups {self.groups}: the interval of a tax needs at least 5 groups; 8 is the default"
            )
        if not 1 <= self.rank <= self.groups:
            raise AligntaxError(f"--rank {self.rank}: a subspace from {self.groups} groups has rank 1 to {self.groups}")
        if self.size != "auto":
            size_named(self.size)
        for entry in self.tolerance:
            _tolerance(entry)
        if self.refusal_tokens and not self.refusal_tokens.replace(",", " ").split():
            raise AligntaxError(f"--refusal-tokens {self.refusal_tokens!r} names no word; give some, such as 'I,Sorry'")
        if self.batch_tokens < 0:
            raise AligntaxError(f"--batch-tokens {self.batch_tokens}: give a number of tokens, or 0 to have it chosen")
        chat_options(self.chat_template_kwargs)
        if self.shift not in KINDS or self.estimator not in ESTIMATORS:
            raise AligntaxError(f"--shift {self.shift} --estimator {self.estimator}: one of them is unknown")
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise AligntaxError(f"unknown --formats {' '.join(unknown) or '(none)'}; choose from {', '.join(FORMATS)}")
        if not self.budget_nats > 0:
            raise AligntaxError(f"--budget-nats {self.budget_nats}: give a positive number of nats per response token")

    def _size(self, loaded: LoadedModel) -> Size:
        automatic = "full" if loaded.device.type == "cuda" else "quick"
        return size_named(automatic if self.size == "auto" else self.size)

    def _materials(self, loaded: LoadedModel, chat: ChatFormat, size: Size) -> Materials:
        tasks = load_tasks(self.tasks or BUILTIN_TASKS())
        unknown = set(self.metrics) - {task.name for task in tasks}
        if unknown:
            raise AligntaxError(f"metrics for {sorted(unknown)}, but the tasks are {[task.name for task in tasks]}")
        specs = list(self.safety or BUILTIN_CONTRASTS)
        contrasts = [load_contrast(spec) for spec in specs]
        names = [contrast.name for contrast in contrasts]
        if len(set(names)) < len(names):
            raise AligntaxError(f"--safety names {names} repeat; name them with NAME=FILE")
        limit = loaded.context_length or 2**20
        encoder = Encoder(chat, limit, self.groups, self.seed)
        return build_materials(encoder, tasks, contrasts, over_refusal_prompts(), (size, self.formats))

    def _bench(self, loaded: LoadedModel, chat: ChatFormat, size: Size, meter: Meter) -> Workbench:
        device = loaded.device
        tokens = self.batch_tokens or (GPU_TOKENS if device.type == "cuda" else CPU_TOKENS)
        probe = Probe(loaded.model, device, TokenBudget(tokens), self.shift, (), meter.advance)
        identity = {"weights": loaded.weights_sha256, "dtype": str(loaded.dtype), "shift": self.shift, "shards": 1}
        store = ShardStore(self.out / "shards", identity)
        own = {name: callable_metric(function) for name, function in self.metrics.items()}
        labels = {name: _label(function) for name, function in self.metrics.items()}
        return Workbench(probe, store, meter, size, chat, self.seed, self.groups, own, labels)

    def tolerances(self, names: list[str]) -> dict[str, float]:
        """Tolerated loss per task. Raises AligntaxError for a task that is not surveyed or a value that is no number."""
        found = dict.fromkeys(names, 0.01)
        for entry in self.tolerance:
            name, number = _tolerance(entry)
            if name and name not in found:
                raise AligntaxError(f"--tolerance {entry!r}: no task {name!r}; the tasks are {', '.join(names)}")
            found.update({name: number} if name else dict.fromkeys(names, number))
        return found


def _tolerance(entry: str) -> tuple[str, float]:
    name, _, value = entry.rpartition("=")
    try:
        number = float(value)
    except ValueError as error:
        raise AligntaxError(f"--tolerance {entry!r}: {value!r} is no number; give NUMBER or TASK=NUMBER") from error
    if not number >= 0:
        raise AligntaxError(f"--tolerance {entry!r}: a tolerated loss is 0 or more, in the task's unit")
    return name, number


def _label(function: Callable[..., torch.Tensor]) -> str:
    """What a metric computes, as text for fingerprints: code, constants, and plain values that it captured.

    A function that captured anything else (a tensor, an object) cannot be told from its next version, so it gets a label of
    its own and its shards are never read again.
    """
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None) or ()
    values = [*(cell.cell_contents for cell in cells), *(getattr(function, "__defaults__", None) or ())]
    if code is None or not all(isinstance(value, int | float | str | NoneType) for value in values):
        return f"{function!r} {uuid.uuid4()}"
    return f"{function.__qualname__} {_code_text(code)} {values!r}"


def _code_text(code: CodeType) -> str:
    inner = [_code_text(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return " ".join([code.co_code.hex(), *code.co_names, *inner])
