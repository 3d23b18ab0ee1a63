"""Writing and reading result files: JSON for people, safetensors for arrays, every write atomic.

A file is first written beside its final name and then moved over it, so that a killed run leaves the old file or the
new one, never half of one. NaN and infinity become `null` in JSON.
"""

import dataclasses
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from safetensors.numpy import load_file, save

from ..errors import AligntaxError
from .survey import SCHEMA_VERSION, Survey

T = TypeVar("T")


@contextmanager
def replacing(path: Path, mode: int) -> Iterator[Path]:
    """An empty file beside `path`, to be filled: it takes the place of `path` in the end, or is gone. The folder is created.

    Its name is its own, since several processes may write the same file at once. Created private, then filled, then given
    `mode`: at no moment can another user read more than that allows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Put `content` at `path` atomically; creates the folder. Raises AligntaxError where the disk refuses."""
    try:
        with replacing(path, mode) as temporary, temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise AligntaxError(
            f"cannot write {path}: {error.strerror}; free some space or choose another --out"
        ) from error


def plain(value: Any) -> Any:
    """`value` as JSON types: dataclasses to dicts, numpy to Python, NaN and infinity to None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Write any result as indented JSON, atomically."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(plain(value)), indent=1) + b"\n")


def write_arrays(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write named arrays as safetensors, atomically."""
    write_bytes(path, save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, metadata=metadata))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a safetensors file. Raises AligntaxError when it is missing or damaged."""
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise AligntaxError(f"no file {path}: run `aligntax survey MODEL --out {path.parent}` first") from error
    except Exception as error:
        raise AligntaxError(f"{path} is not a readable safetensors file ({error}); delete it and run again") from error


def read_result(path: Path, verb: str, noun: str, kind: type[T], schema: int) -> T:
    """The result that `aligntax VERB` wrote as `VERB.json`, at `path` or in the folder that it is, types and version checked.

    `noun` is what an error calls it ("a survey"). Raises AligntaxError for a missing, malformed or newer file.
    """
    file = path / f"{verb}.json" if path.is_dir() else path
    try:
        found = msgspec.json.decode(file.read_bytes(), type=kind, strict=True)
    except OSError as error:
        raise AligntaxError(
            f"cannot read {file}: {error.strerror}; give the folder that `{verb} --out` wrote"
        ) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise AligntaxError(f"{file} is not {noun} this version can read: {error}") from error
    version = found.schema_version  # type: ignore[attr-defined]
    if version != schema:
        raise AligntaxError(f"{file} has schema_version {version}; this version reads {schema}")
    return found


def read_survey(path: Path) -> Survey:
    """Read `survey.json` (or the folder that holds it); see `read_result`."""
    return read_result(path, "survey", "a survey", Survey, SCHEMA_VERSION)
