"""What `aligntax` alone shows: the loop, the commands, and the one to type next, told from the folders that are there."""

import json
import shlex
import textwrap
from pathlib import Path

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
    model = shlex.quote(surveyed_model(survey / "survey.json"))
    if not (align / "align.json").is_file():
        rest = f"--protect kl --depth recovery --survey {shlex.quote(str(survey))}"
        return f"aligntax align {model} {rest}", f"{survey} says what training would cost; now train"
    trained = shlex.quote(str(align / "model"))
    if not (audit / "audit.json").is_file():
        rest = f"--survey {shlex.quote(str(survey))}"
        return f"aligntax audit {model} {trained} {rest}", f"{align} holds a trained model; now see what was paid"
    rest = f"--scheme per-layer --survey {shlex.quote(str(survey))}"
    return (
        f"aligntax merge {model} {trained} {rest}",
        f"{audit / 'report.html'} says what was paid; a mixture may pay less",
    )


def surveyed_model(path: Path) -> str:
    """What was typed as MODEL for the survey at `path`; the embedded model where the file does not say."""
    try:
        found = json.loads(path.read_text())
        return str(found["provenance"]["model_source"] or found["model"])
    except (OSError, ValueError, KeyError, TypeError):
        return MODEL


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
