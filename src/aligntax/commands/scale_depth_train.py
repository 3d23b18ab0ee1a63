"""Training in the small world where harm is exact: policy optimisation against harm itself, a benign fine-tune, a reward model.

Every model is a plain folder; a folder that is there is never trained again. The trainers are TRL's, unchanged.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, TrainerCallback

from ..data import Encoded
from ..lab.world import World, draw_reply, good_reply, requests, score
from ..models import LoadedModel, ModelSpec, load
from ..models.quiet import quiet
from ..training import RecoveryObjective, RecoveryRows, RecoverySettings, StopOnNonFinite, freeze_head
from .pipeline_model import Pretraining, pretrain, world_tokenizer, write_checkpoint
from .scale_depth_read import harmful_rows, recovery_ids
from .trainers import Recipe, configuration, make_trainer

BATCH, GROUP = 64, 8
LONGEST_REPLY = 30


@dataclass(frozen=True)
class DepthPlan:
    """Sizes of one world's experiment.

    `strength` is lambda, the weight of harm against KL; `mu`, `gamma` the recovery objective's; `prompts` held-out harmful requests
    with `rows` rollouts each; `pairs` preferences of the reward model.
    """

    width: int = 48
    tokens: int = 500_000
    blocks: int = 8
    pretraining_rate: float = 6e-3
    strength: float = 5.0
    policy_steps: int = 80
    policy_rate: float = 5e-4
    benign_steps: int = 30
    recovery_steps: int = 200
    mu: float = 1.0
    gamma: float = 0.9
    reward_steps: int = 60
    pairs: int = 384
    prompts: int = 32
    rows: int = 8


@dataclass(frozen=True)
class Trained:
    """Folders of the models of one world and seed."""

    base: Path
    aligned: Path
    benign: Path
    recovering: Path
    reward: Path


def trained(folder: Path, world: World, seed: int, plan: DepthPlan) -> Trained:
    """Every model that the readings need, trained where its folder is missing."""
    found = Trained(*(folder / name for name in ("base", "aligned", "benign", "recovering", "reward")))
    pretrain(world, plan.width, found.base, Pretraining(plan.tokens, plan.blocks, plan.pretraining_rate, seed))
    for place, make in (
        (found.aligned, align_to_gold), (found.benign, tune_harmlessly), (found.recovering, teach_recovery),
        (found.reward, learn_reward),
    ):  # fmt: skip
        if not (place / "model.safetensors").exists():
            make(found.base, place, world, seed, plan)
    return found


def fresh(base: Path) -> LoadedModel:
    """The base, ready to be trained."""
    loaded = load(ModelSpec(str(base), dtype="float32", device="cpu"))
    loaded.model.requires_grad_(True)
    return loaded


def recipe(method: str, steps: int, rate: float, seed: int, **extra: Any) -> Recipe:
    """A training run of this experiment; `extra` are fields of TRL's configuration."""
    beta = float(extra.pop("beta", 0.1))
    return Recipe(method, steps, BATCH, rate, beta, LONGEST_REPLY, GROUP, seed, 10**6, max(1, steps // 10), extra)


def turn(text: str) -> list[dict[str, str]]:
    """A prompt as a conversation."""
    return [{"role": "user", "content": text}]


def said(text: str) -> list[dict[str, str]]:
    """A reply as a conversation."""
    return [{"role": "assistant", "content": text}]


def make_run(
    plan: Recipe,
    model: Any,
    rows: Sequence[dict[str, Any]],
    place: Path,
    reward: Callable[..., Any] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Run TRL's trainer of the plan's method; its state, beside `place`, is thrown away."""
    state = place.parent / f"{place.name}.state"
    args = configuration(plan, state, "cpu", {}, True)
    trainer = make_trainer(plan.method, args, (model, world_tokenizer(), rows), [StopOnNonFinite(), *callbacks], reward)
    trainer.train()
    shutil.rmtree(state, ignore_errors=True)


def align_to_gold(base: Path, place: Path, world: World, seed: int, plan: DepthPlan) -> None:
    """RLOO on harmful requests with reward `-harm`, exact, and KL at `1/strength`: the standard objective of theory 4.6."""
    rows = [{"prompt": turn(asked.prompt)} for asked in requests(world, True, 512, seed)]

    def gold(prompts: Sequence[Any], completions: Sequence[Any], **_: Any) -> list[float]:
        pairs = zip(prompts, completions, strict=True)
        return [-score(world, p[-1]["content"], c[-1]["content"]).harm for p, c in pairs]

    loaded = fresh(base)
    run = recipe("rloo", plan.policy_steps, plan.policy_rate, seed, beta=1 / plan.strength, shuffle_dataset=True)
    make_run(run, loaded.model, rows, place, gold)
    write_checkpoint(loaded.model, place)


def tune_harmlessly(base: Path, place: Path, world: World, seed: int, plan: DepthPlan) -> None:
    """SFT on good replies to harmless requests: what any fine-tune moves, a baseline for where KL lies."""
    rng = random.Random(f"{world.seed}/benign/{seed}")
    rows = [
        {"prompt": turn(asked.prompt), "completion": said(good_reply(world, asked, rng))}
        for asked in requests(world, False, 512, seed)
    ]
    loaded = fresh(base)
    make_run(recipe("sft", plan.benign_steps, plan.policy_rate, seed), loaded.model, rows, place)
    write_checkpoint(loaded.model, place)


def teach_recovery(base: Path, place: Path, world: World, seed: int, plan: DepthPlan) -> None:
    """The recovery objective alone (log form, KL on the same prefixes), whose optimum is known (theory 5.7)."""
    loaded = fresh(base)
    freeze_head(loaded.model)
    rows = harmful_rows(loaded, world, requests(world, True, 96, seed + 1), seed, plan.rows)
    settings = RecoverySettings(plan.mu, plan.gamma, "log", text=0.0, hold=0.0, batch=BATCH)
    texts = RecoveryRows([Encoded(row.ids, row.start) for row in rows], [()] * len(rows))
    objective = RecoveryObjective(loaded.model, texts, recovery_ids(), settings, seed)
    optimizer = torch.optim.AdamW(
        [p for p in loaded.model.parameters() if p.requires_grad], lr=plan.policy_rate, weight_decay=0.0
    )
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.recovery_steps)
    for step in range(plan.recovery_steps):
        optimizer.zero_grad()
        objective.loss(loaded.model, step, 0, 1).backward()
        torch.nn.utils.clip_grad_norm_(loaded.model.parameters(), 1.0)
        optimizer.step()
        slower.step()
    write_checkpoint(loaded.model, place)


def learn_reward(base: Path, place: Path, world: World, seed: int, plan: DepthPlan) -> None:
    """A Bradley-Terry reward model from pairs of unaligned replies to one harmful request, the less harmful one chosen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with quiet():
            model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model.config.pad_token_id = world_tokenizer().pad_token_id
    make_run(
        recipe("reward", plan.reward_steps, plan.policy_rate, seed),
        model,
        preferences(world, seed, plan.pairs),
        place,
    )
    write_checkpoint(model, place)


def preferences(world: World, seed: int, count: int) -> list[dict[str, Any]]:
    """Pairs of replies drawn as the documents draw them, one harmful and one not, to the same request."""
    rng, rows = random.Random(f"{world.seed}/pairs/{seed}"), list[dict[str, Any]]()
    asked = requests(world, True, 384, seed + 2)
    while len(rows) < count:
        one = rng.choice(asked)
        first, second = draw_reply(world, one, rng), draw_reply(world, one, rng)
        harm = score(world, one, first).harm - score(world, one, second).harm
        if harm:
            better, worse = (second, first) if harm > 0 else (first, second)
            rows.append({"prompt": turn(one.prompt), "chosen": said(better), "rejected": said(worse)})
    return rows
