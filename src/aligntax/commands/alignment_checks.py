"""What an alignment run may be asked for: every setting checked before a model is loaded, and the recipe they make."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..data import read_preferences
from ..errors import AligntaxError
from ..models.checkpoint import resolve
from ..results import read_survey
from ..training import RecoverySettings
from .alignment_reads import hears_itself
from .merge_sources import check_adapter
from .protections import listed, parse_protections
from .record import chat_options
from .trainers import METHODS, Recipe, read_config, require_trl

if TYPE_CHECKING:
    from .align import AlignCommand

# Found on the embedded model: full weights move well at 1e-5, adapters need twenty times that.
RATES = {"full": 1e-5, "lora": 2e-4}


def checked(command: AlignCommand) -> tuple[str, ...]:
    """Names of the protections. Raises AligntaxError for settings that contradict each other or cannot be read."""
    require_trl()
    names = parse_protections(command.protect)
    if command.method not in METHODS:
        raise AligntaxError(f"--method {command.method!r}: choose from {', '.join(METHODS)}")
    _check_method(command, names)
    sizes = (command.steps, command.batch, command.lora_rank, command.protect_items, command.draws)
    if any(given < least for given, least in zip(sizes, (1, 2, 1, 2, 1), strict=True)):
        raise AligntaxError(
            f"--steps {command.steps} --batch {command.batch} --lora-rank {command.lora_rank} --protect-items "
            f"{command.protect_items} --draws {command.draws}: need at least 1, 2, 1, 2 and 1"
        )
    if command.renew_every < 1 or command.kl_every < 0 or command.tax_every < 0:
        raise AligntaxError(
            f"--renew-every {command.renew_every} --kl-every {command.kl_every} --tax-every {command.tax_every}: steps between "
            "renewals are at least 1, between measurements at least 0 (never)"
        )
    command.mix()
    chat_options(command.chat_template_kwargs)
    wanted_recovery(command.recover)
    RecoverySettings(command.mu, command.gamma, command.recovery_form)
    _check_read(command)
    read_config(command.config, command.method)
    if command.survey:
        read_survey(Path(command.survey))
    if command.preferences:
        read_preferences(command.preferences)
    return names


def _check_method(command: AlignCommand, names: tuple[str, ...]) -> None:
    if command.method == "reward" and (names or command.depth != "none" or command.goal != "safety" or command.survey):
        raise AligntaxError(
            "--method reward trains a judge, not the model: leave out --protect, --depth, --goal and --survey"
        )
    if command.method == "reward" and command.tax_every:
        raise AligntaxError("--method reward trains a judge, which pays no tax: leave out --tax-every")
    if "directions" in names and not command.survey:
        raise AligntaxError("--protect directions needs --survey DIR, the folder that `aligntax survey` wrote")
    if command.goal == "capability" and (command.method != "sft" or command.depth != "none"):
        raise AligntaxError("--goal capability is supervised (--method sft) and has no --depth")
    if "safety" in listed(command.protect) and command.goal != "capability":
        raise AligntaxError(
            "--protect safety holds refusals while --goal capability trains; for --goal safety give --protect nullspace"
        )


def _check_read(command: AlignCommand) -> None:
    """Raises AligntaxError for an option that nothing in this run would read, lest it be taken for one that had an effect."""
    refusals = command.method == "sft" and command.goal == "safety"
    pairs, explored = command.method in ("dpo", "reward"), command.method in ("rloo", "grpo")
    own = hears_itself(command)
    rows, other = "rows of supervised refusals", "or use --method sft with --goal safety"
    policy = "or use --method rloo or grpo"
    options: tuple[tuple[str, bool, bool, str, str], ...] = (
        ("--protect replay", "replay" in listed(command.protect), refusals, f"mixes capability items into {rows}", other),
        ("--depth augmentation", command.depth == "augmentation", refusals, f"puts harmful beginnings into {rows}", other),
        (f"--batches {command.batches}", command.batches != "random", refusals, f"lays out {rows}", other),
        (f"--anchor-share {command.anchor_share}", command.anchor_share != 0.5, refusals, f"adds anchors to {rows}", other),
        (f"--alarming-share {command.alarming_share}", command.alarming_share is not None, refusals, f"adds anchors to {rows}",
         other),
        (f"--preferences {command.preferences}", bool(command.preferences), pairs, "holds preference pairs",
         "or use --method dpo or reward"),
        ("--harmless-pairs", command.harmless_pairs, pairs, "adds preference pairs", "or use --method dpo or reward"),
        ("--look-alikes", command.look_alikes, own or explored, "adds prompts to refuse and to answer",
         "or add a --protect or --depth that does"),
        (f"--draws {command.draws}", command.draws > 1, own, "draws replies of the model's own",
         "or add a --protect or --depth that does"),
        (f"--reward-model {command.reward_model}", bool(command.reward_model), explored, "scores drawn completions", policy),
        (f"--adaptive-kl {command.adaptive_kl}", command.adaptive_kl > 0, explored, "follows the KL of drawn completions", policy),
        (f"--recover {command.recover}", bool(command.recover), command.depth == "recovery", "aims recovery losses",
         "or give --depth recovery"),
    )  # fmt: skip
    run = "--goal capability" if command.goal == "capability" else f"--method {command.method}"
    for option, given, read, does, mend in options:
        if given and not read:
            raise AligntaxError(f"{option} {does}, and {run} reads none; leave it out, {mend}")


def check_base(command: AlignCommand) -> None:
    """Raises ModelError where --adapter was made for another base that lies on this disk; nothing is fetched to find out."""
    if not command.adapter:
        return
    folder = Path(command.adapter).expanduser()
    try:
        own = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # a Hub id, or a folder that loading will complain about
    if own and Path(own).expanduser().is_dir():
        given = resolve(command.model, command.revision, None, command.trust_remote_code)
        check_adapter((command.model, command.adapter), given, replace(resolve(str(own), None, None), adapter=folder))


def wanted_recovery(text: str) -> tuple[float, int] | None:
    """`DELTA@DEPTH` as numbers, None for no wish. Raises AligntaxError for anything else."""
    if not text:
        return None
    delta, _, depth = text.partition("@")
    try:
        wanted = float(delta), int(depth)
    except ValueError as error:
        raise AligntaxError(f"--recover {text!r}: write DELTA@DEPTH, such as 0.5@20") from error
    if not 0 < wanted[0] < 1 or wanted[1] < 0:
        raise AligntaxError(f"--recover {text!r}: DELTA lies in (0, 1) and DEPTH is 0 or more")
    return wanted


def recipe_of(command: AlignCommand) -> Recipe:
    """Size and rates of the training run; rows that were laid out are read in their order."""
    rate = command.learning_rate or RATES["lora" if command.lora else "full"]
    extra = read_config(command.config, command.method)
    if command.method == "sft" and command.goal == "safety" and command.mix().ordered:
        extra = {"train_sampling_strategy": "sequential", **extra}
    return Recipe(
        command.method, command.steps, command.batch, rate, command.beta, command.completion_tokens, command.group,
        command.seed, command.save_every, 1, extra,
    )  # fmt: skip
