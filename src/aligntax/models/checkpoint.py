"""From what the user typed to files on disk: which folder, which weights, which hash. Loads nothing."""

import hashlib
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import list_repo_files, snapshot_download

from aligntax.errors import ModelError
from aligntax.models import embedded

_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
# Some repositories carry their weights twice: once more in a subfolder, or unsharded under another name.
_HUB_SKIP = ["*/*.safetensors", "consolidated*.safetensors"]
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# What trainers leave beside weights, pickled as well.
_NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Checkpoint:
    """Files of one model: `folder` with a config (or `gguf`, a file), and the folder of an adapter on top, if any.

    `source` is where the base came from: 'embedded', 'folder', 'hub' or 'gguf'; `revision` the Hub commit if known.
    """

    folder: Path
    source: str
    revision: str | None = None
    gguf: Path | None = None
    adapter: Path | None = None

    def weight_files(self) -> tuple[Path, ...]:
        """Files that hold the weights, base first, then adapter; ModelError when they are pickled or missing."""
        base = (self.gguf,) if self.gguf else _safetensors(self.folder, "model")
        return base + (_safetensors(self.adapter, "adapter_model") if self.adapter else ())


def resolve(name: str, revision: str | None, adapter: str | None, remote_code: bool = False) -> Checkpoint:
    """Find a model by embedded name, GGUF path, folder, adapter folder or Hub id, and the adapter to put on it.

    A folder or repository with `adapter_config.json` and no `config.json` names its own base.
    Raises ModelError for anything that is none of these.
    """
    found = _resolve_one(name, revision, remote_code)
    if found.gguf is None and _is_adapter(found.folder):
        if adapter is not None:
            raise ModelError(f"{name!r} is an adapter itself; give its base model when naming adapter {adapter!r}")
        base = _base_of(found.folder, name)
        below = resolve(base, None, None, remote_code)
        if below.adapter is not None:
            raise ModelError(f"adapter {name!r} names {base!r} as its base, which is an adapter; merge that one first")
        return replace(below, adapter=found.folder)
    if adapter is None:
        return found
    above = _resolve_one(adapter, None, remote_code)
    if above.gguf is not None or not (above.folder / "adapter_config.json").is_file():
        raise ModelError(f"adapter {adapter!r} has no adapter_config.json; give a folder or Hub id saved by peft")
    return replace(found, adapter=above.folder)


def weights_sha256(files: tuple[Path, ...]) -> str:
    """Identity of the weights: a file's own sha256, or for several files the sha256 of their hex digests in order.

    Files are streamed; one fetched from the Hub is stored there under its sha256, which is then read off, not computed.
    """
    digests = [_file_sha256(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def parameter_count(files: tuple[Path, ...]) -> int:
    """Number of stored weights, from the safetensors headers alone (a GGUF counts its bytes, 4 bits a weight)."""
    return sum(_stored(file) for file in files)


def one_line(error: BaseException) -> str:
    """First line of an error's message without its trailing full stop, for an error of ours that quotes it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300].rstrip(".")


def _resolve_one(name: str, revision: str | None, remote_code: bool) -> Checkpoint:
    if name in embedded.EMBEDDED:
        return Checkpoint(embedded.fetch(name), "embedded")
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"no GGUF file {name!r}; give the path of an existing .gguf file")
        return Checkpoint(path.parent, "gguf", gguf=path)
    if path.is_dir():
        if not (path / "config.json").is_file() and not _is_adapter(path):
            raise ModelError(f"folder {name!r} has no config.json; give a folder written by save_pretrained")
        return Checkpoint(path, "folder")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or path.exists():
        raise ModelError(f"no model folder {name!r}; give an existing folder, a .gguf file, {_choices()}")
    return _from_hub(name, revision, remote_code)


def _from_hub(name: str, revision: str | None, remote_code: bool) -> Checkpoint:
    patterns = [*_HUB_FILES, "*.py"] if remote_code else _HUB_FILES
    try:
        # Falls back to the local cache by itself when the Hub cannot be reached.
        folder = snapshot_download(
            name, revision=revision, allow_patterns=patterns, ignore_patterns=_HUB_SKIP, etag_timeout=10
        )
    except (OSError, ValueError) as error:
        at = f" at revision {revision!r}" if revision else ""
        raise ModelError(
            f"cannot get model {name!r}{at}: neither a folder nor on the Hub or in its cache "
            f"({type(error).__name__}); check the spelling, the network and your access, or give {_choices()}"
        ) from error
    if not (Path(folder) / "config.json").is_file() and not _is_adapter(Path(folder)):
        raise ModelError(f"Hub repository {name!r} has no config.json; it is not a transformers model")
    return Checkpoint(Path(folder), "hub", revision=Path(folder).name)


def _choices() -> str:
    return "a Hub id such as owner/name, or " + " or ".join(embedded.EMBEDDED)


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def _base_of(folder: Path, name: str) -> str:
    try:
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        base = None
    if not base:
        raise ModelError(f"adapter {name!r} does not name its base model; give the base as MODEL and this as adapter")
    return str(base)


def _safetensors(folder: Path, stem: str) -> tuple[Path, ...]:
    index, single = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
    if single.is_file():
        return (single,)
    if not index.is_file():
        raise ModelError(_without_safetensors(folder, stem))
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{str(index)!r} is not a weight index ({one_line(error)}); fetch it again") from error
    outside = [shard for shard in names if Path(str(shard)).name != shard]
    if outside:
        raise ModelError(
            f"{str(index)!r} points outside its folder ({outside[0]!r}); fetch the model from a source you trust"
        )
    missing = [shard for shard in names if not (folder / shard).is_file()]
    if missing:
        raise ModelError(f"{str(folder)!r} lacks the weight file {missing[0]!r}; fetch the model again")
    return tuple(folder / shard for shard in names)


def _without_safetensors(folder: Path, stem: str) -> str:
    """Why a folder without safetensors cannot be used. Of the Hub only the files that are read were fetched, so it is asked."""
    repository = _repository(folder)
    name, mend = repository or str(folder), f"save {stem}.safetensors with save_pretrained"
    pickled = _pickled(file.name for file in folder.iterdir())
    if repository and not pickled:
        try:
            pickled = _pickled(list_repo_files(repository, revision=folder.name))
        except (
            Exception
        ) as error:  # errors of its own, of HTTP and of the OS; none of them is what the user asked about
            told = f"and the Hub does not say what else there is ({type(error).__name__})"
            return f"{name!r} has no {stem}.safetensors, {told}; {mend}, or give a revision that has it"
    if not pickled:
        return f"{name!r} has no weights; {mend}"
    refused = f"{name!r} has only pickled weights ({pickled[0]}), which are refused: they can run code when opened"
    if not repository:
        return f"{refused}; {mend}"
    revision = "a revision with safetensors (--revision; the Hub's own conversions are under refs/pr)"
    return f"{refused}; give {revision}, or convert them where you trust them: {mend}"


def _pickled(names: Iterable[str]) -> list[str]:
    """Those of a folder's own files that hold pickled weights."""
    return sorted(n for n in names if "/" not in n and n.endswith(_PICKLES) and not n.startswith(_NO_WEIGHTS))


def _repository(folder: Path) -> str | None:
    """Id of the Hub repository that a folder of its cache (`models--owner--name/snapshots/commit`) comes from."""
    kind, _, rest = folder.parent.parent.name.partition("--")
    return rest.replace("--", "/", 1) if kind == "models" and folder.parent.name == "snapshots" else None


def _file_sha256(file: Path) -> str:
    real = file.resolve()
    if real.parent.name == "blobs" and len(real.name) == 64 and set(real.name) <= _HEX:
        return real.name
    with real.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _stored(file: Path) -> int:
    if file.suffix == ".gguf":
        return 2 * file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        shapes = [entry["shape"] for key, entry in header.items() if key != "__metadata__"]
    except (ValueError, KeyError, TypeError, struct.error, MemoryError, OverflowError) as error:
        raise ModelError(f"{str(file)!r} is not a safetensors file; fetch or save it again") from error
    total = 0
    for shape in shapes:
        count = 1
        for size in shape:
            count *= size
        total += count
    return total
