"""How every command ends: the files it wrote, and what to type next."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from rich.console import Console


def say_written(*paths: object, following: tuple[object, ...] = (), console: Console | None = None) -> None:
    """`Wrote: PATH` for each file, then `Next: COMMAND` with the words of `following` quoted for a shell.

    A `*` is left for the shell to expand. A path is never broken over lines, so that it can be copied.
    """
    from ..report import strip_control  # the first screen shares this module and waits for no reports

    console = console or Console()
    lines = [f"Wrote: {path}" for path in paths]
    if following:
        lines.append(f"Next: {' '.join(map(_quoted, following))}")
    for line in lines:
        console.print(strip_control(line), highlight=False, markup=False, soft_wrap=True)


READ_OPTIONS = ("revision", "system", "chat_template_kwargs", "trust_remote_code")
"""Options without which the next command would read another model, or another template."""
MODEL_OPTIONS = ("adapter", *READ_OPTIONS)
"""The same for a command that takes an adapter beside its model."""


def kept_options(values: Mapping[str, Any], *names: str) -> tuple[object, ...]:
    """Words for those of the options `names` that a command was given, to be given to the next one too.

    >>> kept_options({"revision": None, "adapter": "lora", "trust_remote_code": True}, *MODEL_OPTIONS)
    ('--adapter', 'lora', '--trust-remote-code')
    """
    words: list[object] = []
    for name in names:
        value = values.get(name)
        if value not in (None, "", "{}", False):
            flag = "--" + name.replace("_", "-")
            words += [flag] if value is True else [flag, value]
    return tuple(words)


def _quoted(word: object) -> str:
    return re.sub(r"[^*]+", lambda part: shlex.quote(part[0]), str(word)) or "''"
