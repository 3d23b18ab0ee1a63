"""From settings and gathered rows to a trainer that is ready to run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from ..data import ChatFormat
from ..judging.classifier import reward_judge
from ..judging.verdict import Judge
from ..models import LoadedModel
from ..training import (
    AdaptiveKL,
    LossTerm,
    RecoveryObjective,
    RecoveryRows,
    RecoverySettings,
    StopOnNonFinite,
    TaxCallback,
    freeze_head,
)
from .alignment_checks import recipe_of, wanted_recovery
from .alignment_output import classifier
from .alignment_rows import Rows, steps_of_a_run
from .alignment_texts import recoveries, recovery_tokens
from .protections import Protected
from .rewards import judged_reward
from .trainers import configuration, make_trainer

if TYPE_CHECKING:
    from .align import AlignCommand


def trainable(command: AlignCommand, loaded: LoadedModel) -> PreTrainedModel:
    """The model with gradients on: adapters on every matrix, or all weights but embeddings and head."""
    model = loaded.model
    if command.lora:
        import peft

        plan = peft.LoraConfig(r=command.lora_rank, lora_alpha=2 * command.lora_rank, target_modules="all-linear",
                               lora_dropout=0.0, task_type="CAUSAL_LM")  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(command.seed)
            adapted: Any = peft.get_peft_model(model, plan)
            return adapted  # type: ignore[no-any-return]
    model.requires_grad_(True)
    freeze_head(model)
    return model


def made_trainer(
    command: AlignCommand,
    parts: tuple[PreTrainedModel, LoadedModel, ChatFormat],
    texts: Rows,
    protected: Protected,
    state: Path,
) -> tuple[Any, Judge | None]:
    """The trainer of the method with every callback, and the judge that gives rewards, if one does."""
    model, loaded, chat = parts
    args = configuration(recipe_of(command), state, loaded.device.type, chat.arguments, command.quiet)
    # Pairs are rendered by TRL, row by row; without the arguments it would train on another template than was measured.
    pairs = [pair | {"chat_template_kwargs": chat.arguments} for pair in texts.pairs] if chat.arguments else texts.pairs
    if command.method == "reward":
        given = (classifier(command, loaded), loaded.tokenizer, pairs)
        return make_trainer("reward", args, given, [StopOnNonFinite()]), None
    callbacks: list[Any] = [*protected.callbacks, StopOnNonFinite()]
    term = depth_term(command, model, chat, texts)
    if term is not None:
        callbacks.append(term)
    if command.tax_every:
        callbacks.append(TaxCallback(model, texts.scored, command.tax_every))
    judge = reward_judge() if command.method in ("rloo", "grpo") and not command.reward_model else None
    reward = command.reward_model or (None if judge is None else judged_reward(judge))
    rows = {"sft": texts.conversations, "dpo": pairs}.get(command.method, texts.prompts)
    trainer = make_trainer(command.method, args, (model, loaded.tokenizer, rows), callbacks, reward)
    if command.adaptive_kl > 0:
        trainer.add_callback(AdaptiveKL(trainer, command.adaptive_kl))
    return trainer, judge


def depth_term(command: AlignCommand, model: PreTrainedModel, chat: ChatFormat, texts: Rows) -> LossTerm | None:
    """The recovery objective where it is asked for, its penalty derived from a wanted recovery if one is named."""
    if command.depth != "recovery":
        return None
    tokens = recovery_tokens(chat)
    rows = RecoveryRows(texts.harmful, recoveries(texts.harmful_prompts, chat, tokens), texts.anchors)
    settings = RecoverySettings(command.mu, command.gamma, command.recovery_form)
    term = RecoveryObjective(model, rows, tokens, settings, command.seed, steps_of_a_run(command))
    wanted = wanted_recovery(command.recover)
    return term if wanted is None else term.aimed_at(model, *wanted)
