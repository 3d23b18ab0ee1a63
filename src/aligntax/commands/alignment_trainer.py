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
from .alignment_reads import steps_of_a_run
from .alignment_rows import Rows
from .alignment_texts import recoveries
from .alignment_whole import check_sharding, start_reference
from .protections import Protected
from .recovery_tokens import all_tokens
from .rewards import Rewarder, judged_reward, reward_model
from .trainers import configuration, make_trainer

if TYPE_CHECKING:
    from .align import AlignCommand


def trainable(command: AlignCommand, loaded: LoadedModel) -> PreTrainedModel:
    """What is trained, gradients on: adapters on all matrices, or all weights but embeddings and head; a classifier (`reward`)."""
    reward = command.method == "reward"
    model = classifier(command, loaded) if reward else loaded.model
    if command.lora:
        import peft

        # The head of a classifier is trained whole beside its adapters.
        plan = peft.LoraConfig(r=command.lora_rank, lora_alpha=2 * command.lora_rank, target_modules="all-linear",
                               lora_dropout=0.0, task_type="SEQ_CLS" if reward else "CAUSAL_LM")  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(command.seed)
            adapted: Any = peft.get_peft_model(model, plan)
            return adapted  # type: ignore[no-any-return]
    model.requires_grad_(True)
    if not reward:
        freeze_head(model)
    return model


def made_trainer(
    command: AlignCommand,
    parts: tuple[PreTrainedModel, LoadedModel, ChatFormat],
    texts: Rows,
    protected: Protected,
    state: Path,
) -> tuple[Any, Judge | Rewarder | None]:
    """The trainer of the method with every callback, and who gives rewards, if somebody does.

    Raises AligntaxError where the launcher splits a model that has to be whole.
    """
    model, loaded, chat = parts
    args = configuration(recipe_of(command), state, loaded.device.type, chat.arguments, command.quiet)
    # Pairs are rendered by TRL, row by row; without the arguments it would train on another template than was measured.
    pairs = [pair | {"chat_template_kwargs": chat.arguments} for pair in texts.pairs] if chat.arguments else texts.pairs
    if command.method == "reward":
        return make_trainer("reward", args, (model, loaded.tokenizer, pairs), [StopOnNonFinite()]), None
    callbacks: list[Any] = [*protected.callbacks, StopOnNonFinite()]
    term = depth_term(command, model, chat, texts)
    if term is not None:
        callbacks.append(term)
    if command.tax_every:
        callbacks.append(TaxCallback(model, texts.scored, command.tax_every))
    judge, reward = _rewards(command)
    rows = {"sft": texts.conversations, "dpo": pairs}.get(command.method, texts.prompts)
    trainer = make_trainer(command.method, args, (model, loaded.tokenizer, rows), callbacks, reward)
    check_sharding(trainer, command, protected)
    start_reference(trainer, loaded)
    if command.adaptive_kl > 0:
        trainer.add_callback(AdaptiveKL(trainer, command.adaptive_kl))
    return trainer, judge


def _rewards(command: AlignCommand) -> tuple[Judge | Rewarder | None, Any]:
    """Who gives rewards, for the record, and what TRL asks for them."""
    if command.method not in ("rloo", "grpo"):
        return None, None
    if command.reward_model:
        return reward_model(command.reward_model), command.reward_model
    judge = reward_judge()
    return judge, judged_reward(judge)


def depth_term(command: AlignCommand, model: PreTrainedModel, chat: ChatFormat, texts: Rows) -> LossTerm | None:
    """The recovery objective where it is asked for, its penalty derived from a wanted recovery if one is named."""
    if command.depth != "recovery":
        return None
    tokens = all_tokens(command, chat, texts.turns)
    rows = RecoveryRows(texts.harmful, recoveries(texts.harmful_prompts, chat, tokens), texts.anchors)
    settings = RecoverySettings(command.mu, command.gamma, command.recovery_form)
    term = RecoveryObjective(model, rows, tokens, settings, command.seed, steps_of_a_run(command))
    wanted = wanted_recovery(command.recover)
    return term if wanted is None else term.aimed_at(model, *wanted)
