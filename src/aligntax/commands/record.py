"""What every command says of itself: the record that replays it, and the versions and time of its run."""

import dataclasses
import datetime
import importlib.metadata
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from ..errors import AligntaxError

NOT_RECORDED = ("metrics", "measure")
"""Fields that no file can hold: Python functions."""


def chat_options(text: str) -> dict[str, Any]:
    """Arguments for the chat template from `--chat-template-kwargs`. Raises AligntaxError where it is no JSON object."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise AligntaxError(f"--chat-template-kwargs {text!r} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise AligntaxError(f"--chat-template-kwargs {text!r} must be a JSON object")
    return found


def recorded_fields(kind: type) -> dict[str, Any]:
    """Fields of a command that its record holds, with their types."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.name not in NOT_RECORDED}


def run_record(name: str, command: Any) -> bytes:
    """The resolved command as YAML; `aligntax run.yaml` replays it."""
    values = {field: _plain(getattr(command, field)) for field in recorded_fields(type(command))}
    own = {field: _names(getattr(command, field)) for field in NOT_RECORDED if getattr(command, field, None)}
    return str(yaml.safe_dump({"command": name, **values, **own}, sort_keys=False)).encode()


def _names(functions: Any) -> list[str]:
    """What to call functions that are not recorded: the keys of a mapping, or the function's own name."""
    return sorted(functions) if isinstance(functions, Mapping) else [getattr(functions, "__name__", repr(functions))]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def now() -> str:
    """This moment in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Installed versions of `packages` and of Python."""
    return {name: importlib.metadata.version(name) for name in packages} | {"python": sys.version.split()[0]}
