"""`aligntax run.yaml`: the same command again, from its record."""

from pathlib import Path
from typing import Any

import msgspec
import yaml

from ..errors import AligntaxError
from .align import AlignCommand
from .audit import AuditCommand
from .merge import MergeCommand
from .pipeline import PipelineCommand
from .predict import PredictCommand
from .record import NOT_RECORDED, recorded_fields
from .scale import ScaleCommand
from .survey import SurveyCommand

REPLAYED: dict[str, Any] = {
    "survey": SurveyCommand,
    "align": AlignCommand,
    "merge": MergeCommand,
    "audit": AuditCommand,
    "pipeline": PipelineCommand,
    "scale": ScaleCommand,
    "predict": PredictCommand,
}


def replayed(
    path: Path, allow_code: bool = False
) -> SurveyCommand | AlignCommand | MergeCommand | AuditCommand | PipelineCommand | ScaleCommand | PredictCommand:
    """The command that `run.yaml` records.

    Raises AligntaxError for a file that is none, and for one that would run code of a checkpoint, unless `allow_code`: records
    are passed around, and reading one must not be a way to run what its writer put on the Hub.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AligntaxError(f"cannot read {path}: {error}; give the run.yaml that a command wrote") from error
    kind = REPLAYED.get(str(values.pop("command", None))) if isinstance(values, dict) else None
    if kind is None:
        raise AligntaxError(
            f"{path} is no record of a command; give the run.yaml that `aligntax {' or '.join(REPLAYED)}` wrote"
        )
    given = [name for name in NOT_RECORDED if values.get(name)]
    if given:
        raise AligntaxError(f"{path}: the {given[0]} {values[given[0]]} were Python functions; repeat it from Python")
    if values.get("trust_remote_code") and not allow_code:
        raise AligntaxError(f"{path} asks to run code that comes with the checkpoint; add --allow-code if you trust it")
    try:
        plain = recorded_fields(kind)
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
