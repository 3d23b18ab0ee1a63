"""Finished pieces of work on disk, so that a killed run resumes and nothing is computed twice.

A shard is a safetensors file named after what it holds and a fingerprint of everything it depends on. A run that
finds it reads it; a run with another model, other data or other settings has other fingerprints and never sees it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from ..errors import AligntaxError
from ..results import replacing

Arrays = dict[str, np.ndarray]


def fingerprint(*parts: Any) -> str:
    """sha256 (hex, 16 digits) of the parts as canonical JSON; token ids, settings and hashes go in, objects do not."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class ShardStore:
    """A folder of shards; with `folder=None` nothing is kept (used from Python without an output folder).

    Shards hold prompts and replies as token ids, so the folder is kept at mode 0700 and every file at 0600.
    `identity` fingerprints model and engine settings and is part of every name.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.identity = fingerprint(dict(identity))
        self.reused = 0
        self.made = 0

    def depend(self, **more: Any) -> None:
        """From here on every shard also depends on `more` (JSON values), such as the sinks that were found."""
        self.identity = fingerprint(self.identity, more)

    def _path(self, name: str, key: tuple[Any, ...]) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}-{fingerprint(self.identity, *key)}.safetensors"

    def has(self, name: str, key: tuple[Any, ...]) -> bool:
        """Is this shard on disk?"""
        path = self._path(name, key)
        return path is not None and path.exists()

    def get(self, name: str, key: tuple[Any, ...], make: Callable[[], Arrays]) -> Arrays:
        """The shard's arrays: read from disk, or made, written atomically and returned.

        A damaged file is made anew. Raises AligntaxError when the disk refuses the write.
        """
        path = self._path(name, key)
        if path is not None and path.exists():
            try:
                arrays = load_file(path)
            except Exception:
                path.unlink(missing_ok=True)
            else:
                self.reused += 1
                return arrays
        arrays = {k: np.ascontiguousarray(v) for k, v in make().items()}
        self.made += 1
        if path is not None:
            self._write(path, arrays)
        return arrays

    @staticmethod
    def _write(path: Path, arrays: Arrays) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(0o700)
            with replacing(path, 0o600) as temporary:
                save_file(arrays, temporary)
        except Exception as error:
            raise AligntaxError(f"cannot write {path}: {error}; free some space or choose another --out") from error
