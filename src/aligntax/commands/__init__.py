"""Commands: one dataclass with `execute()` per verb; the only place where rooms meet.

A command is imported when it is asked for: `registry.py` names them all.
"""

from typing import Any

from .registry import COMMANDS

__all__ = sorted(entry.kind for entry in COMMANDS.values())


def __getattr__(name: str) -> Any:
    for entry in COMMANDS.values():
        if entry.kind == name:
            return entry.load()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
