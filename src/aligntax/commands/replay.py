"""`aligntax run.yaml`: the same command again, from its record."""

from pathlib import Path
from typing import Any

import msgspec
import yaml

from ..errors import AligntaxError
from .align import AlignCommand
from .audit import AuditCommand
from .survey import SurveyCommand

REPLAYED: dict[str, Any] = {"survey": SurveyCommand, "align": AlignCommand, "audit": AuditCommand}


def replayed(path: Path) -> SurveyCommand | AlignCommand | AuditCommand:
    """The command that `run.yaml` records. Raises AligntaxError for a file that is none."""
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AligntaxError(f"cannot read {path}: {error}; give the run.yaml that a command wrote") from error
    kind = REPLAYED.get(str(values.pop("command", None))) if isinstance(values, dict) else None
    if kind is None:
        raise AligntaxError(
            f"{path} is no record of a command; give the run.yaml that `aligntax {' or '.join(REPLAYED)}` wrote"
        )
    if values.get("metrics"):
        raise AligntaxError(f"{path}: the metrics of {values['metrics']} were Python functions; repeat it from Python")
    try:
        plain = kind.plain_fields()
        unknown = set(values) - set(plain)
        if unknown:
            raise AligntaxError(f"{path} has unknown fields {sorted(unknown)}; it comes from another version")
        typed = {name: msgspec.convert(value, plain[name], dec_hook=_decode) for name, value in values.items()}
        return kind(**typed)
    except (msgspec.ValidationError, NotImplementedError, TypeError) as error:
        raise AligntaxError(f"{path}: {error}; mend the value or write the command out") from error


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"{value!r} is no {kind.__name__}")
