"""`aligntax run.yaml`: the same command again, from its record."""

from pathlib import Path
from typing import Any

import msgspec
import yaml

from ..errors import AligntaxError
from .record import NOT_RECORDED, recorded_fields
from .registry import COMMANDS

REPLAYED = ("survey", "align", "merge", "audit", "pipeline", "scale", "predict")
"""Commands that write a run.yaml."""


def replayed(path: Path, allow_code: bool = False) -> Any:
    """The command that `run.yaml` records.

    Raises AligntaxError for a file that is none, and for one that would run code of a checkpoint, unless `allow_code`: records
    are passed around, and reading one must not be a way to run what its writer put on the Hub.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AligntaxError(f"cannot read {path}: {error}; give the run.yaml that a command wrote") from error
    name = values.pop("command", None) if isinstance(values, dict) else None
    if name not in REPLAYED:
        raise AligntaxError(
            f"{path} is no record of a command; give the run.yaml that `aligntax {' or '.join(REPLAYED)}` wrote"
        )
    given = [field for field in NOT_RECORDED if values.get(field)]
    if given:
        raise AligntaxError(f"{path}: the {given[0]} {values[given[0]]} were Python functions; repeat it from Python")
    if values.get("trust_remote_code") and not allow_code:
        raise AligntaxError(f"{path} asks to run code that comes with the checkpoint; add --allow-code if you trust it")
    kind = COMMANDS[name].load()
    try:
        plain = recorded_fields(kind)
        unknown = set(values) - set(plain)
        if unknown:
            raise AligntaxError(f"{path} has unknown fields {sorted(unknown)}; it comes from another version")
        typed = {field: msgspec.convert(value, plain[field], dec_hook=_decode) for field, value in values.items()}
        return kind(**typed)
    except (msgspec.ValidationError, NotImplementedError, TypeError) as error:
        raise AligntaxError(f"{path}: {error}; mend the value or write the command out") from error


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"{value!r} is no {kind.__name__}")
