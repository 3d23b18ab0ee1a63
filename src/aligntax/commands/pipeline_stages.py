"""The training of each stage in the small world, by TRL's trainers; every stage leaves a plain folder and its course."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from ..data import ChatFormat
from ..lab.world import World
from ..models import ModelSpec, load
from ..models.quiet import quiet as hushed
from ..results import write_json
from ..training import AdaptiveKL, StopOnNonFinite
from . import pipeline_rows as rows
from .pipeline_model import Pretraining, pretrain, write_checkpoint
from .pipeline_sizes import PipelineSize
from .trainers import Recipe, configuration, make_trainer

KEPT = ("loss", "reward", "kl", "entropy", "accuracy", "beta", "rewards/gold/mean", "completions/mean_length")
RATES = {"sft": 1e-3, "reward": 5e-4, "rl": 3e-4, "dpo": 3e-5}
BATCH = {"sft": 32, "reward": 32, "rl": 64, "dpo": 32}


@dataclass(frozen=True)
class Course:
    """How a stage went: training seconds, single numbers, and curves name -> [(step, value)]."""

    seconds: float = 0.0
    facts: Mapping[str, float | None] = field(default_factory=dict)
    curves: Mapping[str, list[tuple[float, float]]] = field(default_factory=dict)

    @classmethod
    def read(cls, mark: Path) -> Course:
        """The course of a finished stage, from its `course.json`."""
        found = json.loads(mark.read_text())
        return cls(found["seconds"], found["facts"], found["curves"])


def mark_of(name: str, out: Path) -> Path:
    """The file that stands in the folder of a finished stage: its course."""
    return out / name / "course.json"


@dataclass(frozen=True)
class Settings:
    """What decides how a stage of a world is trained. `rate` overrides the learning rate where it is not 0."""

    world: World
    width: int
    size: PipelineSize
    seed: int = 0
    method: str = "rloo"
    beta: float = 0.05
    adaptive: float = 0.0
    group: int = 8
    preferences: str = ""
    gold: bool = False
    pretraining_rate: float = 3e-3
    quiet: bool = True


def run_stage(name: str, settings: Settings, out: Path) -> Course:
    """Train stage `name` in `out/name/model`, unless it stands there already; the course of a finished one is read."""
    place = out / name
    mark = mark_of(name, out)
    if mark.exists():
        return Course.read(mark)
    shutil.rmtree(place / "model", ignore_errors=True)
    course = _STAGES[name](settings, out)
    write_json(mark, course)
    shutil.rmtree(place / "model.state", ignore_errors=True)
    shutil.rmtree(place / "state", ignore_errors=True)
    return course


def _pretrain(settings: Settings, out: Path) -> Course:
    plan = Pretraining(settings.size.tokens, learning_rate=settings.pretraining_rate, seed=settings.seed)
    done = pretrain(settings.world, settings.width, out / "pretrain" / "model", plan, settings.quiet)
    facts = {"tokens": float(plan.steps * plan.batch * 128), "tokens per second": done.tokens_per_second}
    return Course(done.seconds, facts, {"loss": [(float(s), v) for s, v in done.losses]})


def _sft(settings: Settings, out: Path) -> Course:
    learnt = rows.demonstrations(settings.world, settings.size.demonstrations, settings.seed)
    return _train("sft", settings, out, out / "pretrain" / "model", learnt)


def pairs(settings: Settings, out: Path) -> list[dict[str, Any]]:
    """The preferences of a run: the user's, or the SFT policy's own replies ranked by the gold reward."""

    def make() -> list[dict[str, Any]]:
        return rows.preferences(settings.world, out / "sft" / "model", settings.size.pairs, settings.seed)

    return rows.kept_preferences(out / "preferences.jsonl", settings.preferences, make)


def split_pairs(found: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The pairs to train on, and every eighth, to score on."""
    held = [pair for k, pair in enumerate(found) if k % 8 == 7]
    return [pair for k, pair in enumerate(found) if k % 8 != 7] or found, held or found


def _reward(settings: Settings, out: Path) -> Course:
    learnt, held = split_pairs(pairs(settings, out))
    course = _train("reward", settings, out, out / "sft" / "model", learnt)
    facts = {"pairs": float(len(learnt)), "held pairs": float(len(held))}
    return Course(
        course.seconds, facts | {"pair accuracy": pair_accuracy(out / "reward" / "model", held)}, course.curves
    )


def _rl(settings: Settings, out: Path) -> Course:
    prompts = rows.policy_prompts(settings.world, 1024, settings.seed)
    return _train("rl", settings, out, out / "sft" / "model", prompts)


def _dpo(settings: Settings, out: Path) -> Course:
    return _train("dpo", settings, out, out / "sft" / "model", split_pairs(pairs(settings, out))[0])


_STAGES = {"pretrain": _pretrain, "sft": _sft, "reward": _reward, "rl": _rl, "dpo": _dpo}


def _recipe(name: str, settings: Settings) -> Recipe:
    method = settings.method if name == "rl" else name
    extra: dict[str, Any] = {"save_strategy": "no", "max_grad_norm": 1.0}
    if name == "rl":
        # Every sample is used twice, so that the clipped ratio has something to clip.
        extra |= {"num_iterations": 2, "reward_weights": [1.0, 0.0]}
    return Recipe(
        method, settings.size.steps[name], BATCH[name], RATES[name], settings.beta if name == "rl" else 0.1,
        settings.world.decided + rows.REPLY_ROOM, settings.group, settings.seed, 10**6, 1, extra,
    )  # fmt: skip


def _train(name: str, settings: Settings, out: Path, start: Path, data: list[dict[str, Any]]) -> Course:
    recipe = _recipe(name, settings)
    loaded = load(ModelSpec(str(start), dtype="float32"))
    model: Any = reward_model(start, settings.seed) if name == "reward" else loaded.model.requires_grad_(True)
    if name == "sft":
        data = rows.encoded(data, ChatFormat(loaded.tokenizer))
    exact = rows.gold_reward(settings.world)
    reward: Any = [exact if settings.gold else str(out / "reward" / "model"), _named(exact)] if name == "rl" else None
    with hushed():
        args = configuration(recipe, out / name / "state", loaded.device.type, {}, settings.quiet)
        trainer = make_trainer(recipe.method, args, (model, loaded.tokenizer, data), [StopOnNonFinite()], reward)
        if name == "rl" and settings.adaptive > 0:
            trainer.add_callback(AdaptiveKL(trainer, settings.adaptive))
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        write_checkpoint(trainer.accelerator.unwrap_model(trainer.model), out / name / "model")
    return Course(seconds, {"steps": float(trainer.state.global_step)}, curves_of(trainer.state.log_history))


def _named(function: Any) -> Any:
    """The gold reward again, only to be logged (its weight is 0), under its own name."""
    function.__name__ = "gold"
    return function


def reward_model(start: Path, seed: int) -> Any:
    """The weights of a policy with a scalar head, which is drawn from the seed."""
    with torch.random.fork_rng(devices=[]), hushed():
        torch.manual_seed(seed)
        model: Any = AutoModelForSequenceClassification.from_pretrained(start, num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = 0
    return model


def curves_of(log: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Name -> (step, value) of what a trainer logged. TRL logs KL per token; `kl` here is times the mean length: nats a reply."""
    found: dict[str, list[tuple[float, float]]] = {}
    for number, entry in enumerate(log, 1):
        step, length = float(entry.get("step") or number), entry.get("completions/mean_length")
        for name in KEPT:
            if isinstance(entry.get(name), int | float):
                found.setdefault(name, []).append((step, float(entry[name])))
        if isinstance(entry.get("kl"), int | float) and length:
            found["kl per token"] = [*found.get("kl per token", []), found["kl"][-1]]
            found["kl"][-1] = (step, float(entry["kl"]) * float(length))
    return found


def reward_scores(folder: Path, prompts: list[str], replies: list[str]) -> list[float]:
    """What a reward model gives to each reply."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    with hushed():
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32).eval()
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": p}, {"role": "assistant", "content": r}], tokenize=False
        )
        for p, r in zip(prompts, replies, strict=True)
    ]
    found: list[float] = []
    for start in range(0, len(texts), 256):
        batch = tokenizer(
            texts[start : start + 256],
            return_tensors="pt",
            padding=True,
            padding_side="right",
            add_special_tokens=False,
        )
        batch.pop("token_type_ids", None)
        with torch.no_grad():
            found += model(**batch).logits[:, 0].tolist()
    return found


def pair_accuracy(folder: Path, found: list[dict[str, Any]]) -> float:
    """Share of pairs whose chosen reply the reward model puts above the rejected one."""
    prompts = [pair["prompt"][-1]["content"] for pair in found]
    sides = [reward_scores(folder, prompts, [p[side][-1]["content"] for p in found]) for side in ("chosen", "rejected")]
    return sum(c > r for c, r in zip(*sides, strict=True)) / len(found)
