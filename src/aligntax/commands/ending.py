"""How every command ends: the files it wrote, and what to type next."""

import re
import shlex

from rich.console import Console


def say_written(*paths: object, following: tuple[object, ...] = (), console: Console | None = None) -> None:
    """`Wrote: PATH` for each file, then `Next: COMMAND` with the words of `following` quoted for a shell.

    A `*` is left for the shell to expand. A path is never broken over lines, so that it can be copied.
    """
    console = console or Console()
    lines = [f"Wrote: {path}" for path in paths]
    if following:
        lines.append(f"Next: {' '.join(map(_quoted, following))}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _quoted(word: object) -> str:
    return re.sub(r"[^*]+", lambda part: shlex.quote(part[0]), str(word)) or "''"
