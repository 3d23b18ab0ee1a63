"""What `aligntax` alone shows: the loop, the commands, and the one to type next, told from the folders that are there."""

import json
import shlex
import textwrap
from pathlib import Path
from typing import Any

import yaml

from .ending import MODEL_OPTIONS, READ_OPTIONS, kept_options
from .registry import COMMANDS, MODEL

LOOP = """\
   before training            training              after training

     +--------+         +----------------+         +-------+
     | survey |  ---->  | align or merge |  ---->  | audit |
     +--------+         +----------------+         +-------+
         ^                                             |
         +----------- did the forecast hold? ----------+
"""

TITLE = "aligntax: what will it cost to make a language model safe, and what did it cost?"
WIDTH = 96


def next_command(out: Path = Path("out")) -> tuple[str, str]:
    """The command to type next and why, told from what stands in the default folders under `out`."""
    survey, align, audit = out / "survey", out / "align", out / "audit"
    if not (survey / "survey.json").is_file():
        return (
            f"aligntax survey {MODEL} --size demo",
            "a survey of the embedded model, in minutes; the whole loop at once: aligntax demo",
        )
    model, given = surveyed_model(survey)
    if not (align / "align.json").is_file():
        kept = kept_options(given, *MODEL_OPTIONS)
        words = ("align", model, *kept, "--protect", "kl", "--depth", "recovery", "--survey", survey)
        return typed(*words), f"{survey} says what training would cost; now train"
    pair = (given.get("adapter") or model, align / "model")  # a folder of an adapter names its base
    if not (audit / "audit.json").is_file():
        words = ("audit", *pair, *kept_options(given, *READ_OPTIONS), "--survey", survey)
        return typed(*words), f"{align} holds a trained model; now see what was paid"
    opened = kept_options(given, "revision", "trust_remote_code")
    words = ("merge", *pair, *opened, "--points", "5", "--survey", survey)
    return typed(*words), f"{audit / 'report.html'} says what was paid; a mixture may pay less"


def typed(*words: object) -> str:
    """The command line of these words."""
    return shlex.join(["aligntax", *map(str, words)])


def surveyed_model(folder: Path) -> tuple[str, dict[str, Any]]:
    """MODEL as it was typed for the survey in `folder`, and the options it was read with, from its run.yaml.

    Without that the name in survey.json, and without that the embedded model.
    """
    try:
        given = yaml.safe_load((folder / "run.yaml").read_text())
        return str(given["model"]), dict(given)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        pass
    try:
        return str(json.loads((folder / "survey.json").read_text())["model"]), {}
    except (OSError, ValueError, KeyError, TypeError):
        return MODEL, {}


def first_screen(out: Path = Path("out")) -> str:
    """The whole screen, at most 40 lines of 100 columns."""
    lines = [TITLE, "", *LOOP.splitlines(), ""]
    for name, entry in COMMANDS.items():
        lines += textwrap.wrap(entry.gist, WIDTH, initial_indent=f"  {name:<10} ", subsequent_indent=" " * 13)
    command, why = next_command(out)
    return "\n".join(
        [
            *lines,
            "",
            "Next, type:",
            f"  {command}",
            f"  ({why})",
            "",
            "aligntax COMMAND --help      what a command does, with examples",
            "aligntax run.yaml            repeat the command that wrote this record",
            "aligntax completion bash     completion for your shell: bash, zsh or fish",
        ]
    )
