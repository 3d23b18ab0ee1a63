"""The last lines of every command: paths stay whole, and what follows can be pasted into a shell."""

import shlex
from pathlib import Path

from aligntax.commands.ending import say_written


def test_words_are_quoted_and_stars_are_left_to_the_shell(capsys):
    long = Path("out") / ("very-" * 40 + "long name")
    say_written(long, following=("aligntax", "audit", "a model", "", long / "*.jsonl"))
    written, following = capsys.readouterr().out.splitlines()
    assert written == f"Wrote: {long}"
    assert shlex.split(following) == ["Next:", "aligntax", "audit", "a model", "", f"{long}/*.jsonl"]
    assert following.endswith("'*.jsonl")  # unquoted: a shell expands it
    say_written("x.json")
    assert capsys.readouterr().out == "Wrote: x.json\n"
