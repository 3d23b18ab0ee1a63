"""The stages after pretraining on a real checkpoint: each is an ordinary alignment run, on requests that the exam does not ask."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from ..data import ChatFormat, load_contrast
from ..models import ModelSpec, load
from ..probing import Meter, Probe, ShardStore, TokenBudget
from ..results import write_bytes, write_json
from .align import AlignCommand
from .alignment_rows import training_rows
from .alignment_texts import Speaker, load_requests
from .pipeline_exam import REAL_TOKENS, file_part
from .pipeline_sizes import PipelineSize
from .pipeline_stages import Course, curves_of, mark_of

Method = Literal["sft", "dpo", "reward", "rloo", "grpo"]


@dataclass(frozen=True)
class RealSettings:
    """What decides how a stage of a real model is trained. `safety` and `preferences` as in `aligntax align`."""

    model: str
    size: PipelineSize
    seed: int = 0
    method: str = "rloo"
    beta: float = 0.05
    adaptive: float = 0.0
    group: int = 8
    safety: str = "harmlessness"
    preferences: str = ""
    tasks: tuple[str, ...] = ()
    lora: bool = False
    tokens: int = 48
    quiet: bool = True


def run_real_stage(name: str, settings: RealSettings, out: Path) -> Course:
    """Run stage `name` in `out/name`, unless it is finished; a killed one goes on from its last state."""
    mark = mark_of(name, out)
    if mark.exists():
        return Course.read(mark)
    began = time.perf_counter()
    record = stage_command(name, settings, out).execute()
    assert record is not None  # only a plan has none
    course = Course(time.perf_counter() - began, {"steps": float(len(record.steps))}, curves_of(record.steps))
    write_json(mark, course)
    return course


def stage_command(name: str, settings: RealSettings, out: Path) -> AlignCommand:
    """The alignment run that stage `name` is."""
    pairs = ""
    if name in ("reward", "dpo"):
        pairs = settings.preferences or str(_own_pairs(settings, out))
    start = settings.model if name in ("sft", "reward") else str(out / "sft" / "model")
    return AlignCommand(
        model=start, out=out / name, method=cast(Method, settings.method if name == "rl" else name),
        safety=requests_file(settings.safety, out), preferences=pairs, tasks=settings.tasks,
        steps=settings.size.steps[name], beta=settings.beta if name == "rl" else 0.1, lora=settings.lora and name != "reward",
        adaptive_kl=settings.adaptive if name == "rl" else 0.0, group=settings.group, completion_tokens=settings.tokens,
        reward_model=str(out / "reward" / "model") if name == "rl" else "", texts=str(out / "texts"), seed=settings.seed,
        resume=True, quiet=True,
    )  # fmt: skip


def requests_file(safety: str, out: Path) -> str:
    """`--safety` for the stages: built-in prompts split themselves, of a user's file the part that the exam does not ask."""
    found = load_contrast(safety)
    if found.source.startswith("builtin:"):
        return safety
    path = out / "requests.jsonl"
    sides = ((True, found.positive), (False, found.negative))
    written = {p: {"completion": reply} for p, reply in found.replies.items()}
    rows = [
        {"prompt": p, "harmful": bad} | written.get(p, {})
        for bad, prompts in sides
        for p in file_part(prompts, train=True)
    ]
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode(), 0o600)
    return str(path)


def _own_pairs(settings: RealSettings, out: Path) -> Path:
    """Preferences: a written refusal over what the model itself said to a harmful request before any stage; kept private."""
    path = out / "preferences.jsonl"
    if path.exists():
        return path
    loaded = load(ModelSpec(settings.model, dtype="float32"))
    chat = ChatFormat(loaded.tokenizer)
    with Meter(True) as meter:
        probe = Probe(loaded.model, loaded.device, TokenBudget(REAL_TOKENS), "all", (), meter.advance)
        store = ShardStore(out / "texts", {"weights": loaded.weights_sha256, "seed": settings.seed})
        asked = load_requests(requests_file(settings.safety, out), 0)
        command = AlignCommand(settings.model, method="dpo", seed=settings.seed, completion_tokens=settings.tokens)
        # No protected items: only the pairs are wanted.
        rows = training_rows(command, Speaker(probe, store, chat, settings.seed), asked, meter, ([], {}))
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows.pairs).encode(), 0o600)
    return path
