"""What an alignment run will read: how many rows and steps, and whether the model has to speak for it first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..data import look_alikes, plain_pairs
from .launch import processes
from .protections import listed
from .trainers import read_config

if TYPE_CHECKING:
    from .align import AlignCommand


def rows_of_a_run(command: AlignCommand) -> int | None:
    """Rows that all processes together read in a run; None where epochs say when to stop: then the data, so many times over."""
    extra = read_config(command.config, command.method)
    steps, batch = extra.get("max_steps", command.steps), extra.get("per_device_train_batch_size", command.batch)
    rows = int(steps) * int(batch) * int(extra.get("gradient_accumulation_steps", 1)) * processes()
    return rows if steps > 0 else None


def steps_of_a_run(command: AlignCommand) -> int | None:
    """Optimizer steps of all processes together; None where epochs say when to stop."""
    steps = int(read_config(command.config, command.method).get("max_steps", command.steps))
    return steps * processes() if steps > 0 else None


def hears_itself(command: AlignCommand) -> bool:
    """Does anything in the run read the model's own replies to the requests?"""
    if command.depth == "recovery" or set(listed(command.protect)) - {"replay"}:
        return True
    if command.method == "sft":
        return command.goal == "safety"
    return command.method in ("dpo", "reward") and (not command.preferences or command.harmless_pairs)


def hears_harm(command: AlignCommand) -> bool:
    """Does anything in the run read what the model says to harmful prompts?"""
    return command.depth != "none" or (command.method in ("dpo", "reward") and not command.preferences)


def look_alikes_of_a_run(command: AlignCommand) -> int:
    """Pairs of either kind for a run: a quarter as many as it reads rows, since the model has to answer each of them first."""
    if not command.look_alikes:
        return 0
    most, rows = max(len(pairs().negative) for pairs in (look_alikes, plain_pairs)), rows_of_a_run(command)
    return most if rows is None else min(most, -(-rows // 4))
