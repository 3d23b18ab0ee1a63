"""What `aligntax` alone shows: the loop, the commands, and the one to type next, told from the folders that are there."""

import json
import shlex
import textwrap
from pathlib import Path
from typing import Any

from .next_step import Words, after_align, after_audit, after_survey, recorded
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
    given = {**surveyed(survey), "survey": survey}
    if not (align / "align.json").is_file():
        return typed(after_survey(given, survey)), f"{survey} says what training would cost; now train"
    words = after_align(given, align / "model")
    if not (audit / "audit.json").is_file():
        return typed(words), f"{align} holds a trained model; now see what was paid"
    pair = {"base": words[2], "aligned": words[3]}
    return typed(
        after_audit({**given, **pair}, "full")
    ), f"{audit / 'report.html'} says what was paid; a mixture may pay less"


def typed(words: Words) -> str:
    """The command line of these words."""
    return shlex.join(map(str, words))


def surveyed(folder: Path) -> dict[str, Any]:
    """The options of the survey in `folder`, MODEL as it was typed among them, from its run.yaml.

    Without that the name in survey.json, and without that the embedded model.
    """
    given = recorded(folder)
    if given.get("model"):
        return given
    try:
        return {"model": str(json.loads((folder / "survey.json").read_text())["model"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"model": MODEL}


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
