"""What to type next: of every command that leaves a result, told from the options it was given, so that none gets lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .ending import MODEL_OPTIONS, READ_OPTIONS, kept_options

Words = tuple[object, ...]
Given = Mapping[str, Any]
"""Options of a command by field: `vars(command)`, or what its run.yaml holds."""

LARGER = {"demo": "quick", "quick": "full"}
OPENED = ("revision", "trust_remote_code")
"""What a merge reads a model with: it writes no text, so no template."""


def recorded(folder: Path) -> dict[str, Any]:
    """The options in a folder's run.yaml; none where there is no such file, or none that can be read."""
    try:
        found = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return dict(found) if isinstance(found, Mapping) else {}


def after_survey(given: Given, folder: Path) -> Words:
    """Training as it went best where recipes were compared: deep, held near the start, refusals beside their nearest answers."""
    recipe = ("--protect", "kl", "--depth", "recovery", "--batches", "matched")
    return ("aligntax", "align", given["model"], *kept_options(given, *MODEL_OPTIONS), "--survey", folder, *recipe)


def after_align(given: Given, checkpoint: Path) -> Words:
    """An audit; a reward model is put to use first."""
    if given.get("method") == "reward":
        return ("aligntax", "align", given["model"], "--method", "rloo", "--reward-model", checkpoint)
    base = given.get("adapter") or given["model"]  # a folder of an adapter names its base
    return ("aligntax", "audit", base, checkpoint, *kept_options(given, *READ_OPTIONS, "survey"))


def after_audit(given: Given, size: str) -> Words:
    """More data where intervals are wide, else a mixture of the two models, which may pay less."""
    pair, survey = (given["base"], given["aligned"]), kept_options(given, "survey")
    if size in LARGER:
        return ("aligntax", "audit", *pair, *kept_options(given, *READ_OPTIONS), *survey, "--size", LARGER[size])
    return ("aligntax", "merge", *pair, *kept_options(given, *OPENED), "--points", "5", *survey)


def after_merge(given: Given, folder: Path) -> Words:
    """An audit of the mixture."""
    return ("aligntax", "audit", given["base"], folder, *kept_options(given, *OPENED, "survey"))
