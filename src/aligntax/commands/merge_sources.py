"""The two models of a merge, as files: resolved, identified, opened side by side; and the folder of their average."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from ..errors import AligntaxError, ModelError
from ..models.averaging import Fractions, Layout, layout, write_average
from ..models.checkpoint import Checkpoint, one_line, resolve, weights_sha256
from ..models.gguf import read_gguf
from ..models.quiet import quiet
from ..models.stored_weights import StoredWeights, opened
from ..results import MergedModel

TOKENIZER_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "chat_template*",
    "generation_config.json",
)  # fmt: skip
"""What is copied from ALIGNED, whose template and end tokens the alignment was trained with, else from BASE."""


@dataclass(frozen=True)
class Pair:
    """BASE and ALIGNED, open: weights, which tensor belongs to which block, folders to copy from, identities, and
    `references` that mergekit understands.
    """

    base: StoredWeights
    aligned: StoredWeights
    plan: Layout
    config_folder: Path
    tokenizer_folders: tuple[Path, ...]
    identity: tuple[MergedModel, MergedModel]
    references: tuple[str, str]
    remote_code: bool

    def write(self, fractions: Fractions, folder: Path) -> tuple[Path, ...]:
        """Put the average into `folder` as a plain Hugging Face folder, config last; returns the weight files."""
        files = write_average(self.base, self.aligned, fractions, self.plan, folder)
        for source in self.tokenizer_folders:
            for pattern in TOKENIZER_FILES:
                for file in source.glob(pattern):
                    if file.is_file():
                        shutil.copyfile(file, folder / file.name)
        if self.remote_code:
            for file in self.config_folder.glob("*.py"):
                shutil.copyfile(file, folder / file.name)
        shutil.copyfile(self.config_folder / "config.json", folder / "config.json")
        return files


@contextmanager
def opened_pair(names: tuple[str, str], revision: str | None, remote_code: bool) -> Iterator[Pair]:
    """Resolve, check and open BASE and ALIGNED. Raises ModelError for what cannot be averaged, naming the tensor."""
    base, aligned = (resolve(name, rev, None, remote_code) for name, rev in zip(names, (revision, None), strict=True))
    identity = (_identity(names[0], base), _identity(names[1], aligned))
    references = (_reference(names[0], base), _reference(names[1], aligned))
    check_adapter(names, base, aligned)
    with ExitStack() as stack:
        one, two = _as_folder(stack, base), _as_folder(stack, aligned)
        weights = [stack.enter_context(opened(found, name)) for found, name in zip((one, two), names, strict=True)]
        configs = [_config(found, remote_code) for found in (one, two)]
        if configs[0].model_type != configs[1].model_type:
            raise ModelError(
                f"{names[0]!r} is a {configs[0].model_type} and {names[1]!r} a {configs[1].model_type}; merge two models of "
                "one kind"
            )
        plan = layout(weights[0], weights[1], configs[0])
        # Later folders win, so ALIGNED's tokenizer replaces the base's where it has one.
        tokenizers = _tokenizers(one, two)
        yield Pair(weights[0], weights[1], plan, one.folder, tokenizers, identity, references, remote_code)


def _identity(name: str, found: Checkpoint) -> MergedModel:
    adapter = str(found.adapter) if found.adapter else None
    return MergedModel(name, found.source, found.revision, adapter, weights_sha256(found.weight_files()))


def _reference(name: str, found: Checkpoint) -> str:
    """How mergekit names a model: a Hub id with its commit, or a folder; `model+adapter` for an adapter."""
    own = str(found.gguf or found.folder)
    if found.source == "hub" and found.revision and found.adapter is None:
        own = f"{name}@{found.revision}"
    return f"{own}+{found.adapter}" if found.adapter else own


def check_adapter(names: tuple[str, str], base: Checkpoint, aligned: Checkpoint) -> None:
    """Where ALIGNED is an adapter, its own base must be BASE. Raises ModelError naming both."""
    if aligned.adapter is None:
        return
    below, given = replace(aligned, adapter=None), replace(base, adapter=None)
    same = below.folder.resolve() == given.folder.resolve() and below.gguf == given.gguf
    if not same and weights_sha256(below.weight_files()) != weights_sha256(given.weight_files()):
        raise ModelError(
            f"{names[1]!r} is an adapter of {str(below.folder)!r}, whose weights are not those of {names[0]!r}; give that base"
        )


def _as_folder(stack: ExitStack, found: Checkpoint) -> Checkpoint:
    """The checkpoint itself, or a GGUF file dequantised into a folder that lasts as long as the stack."""
    if found.gguf is None:
        return found
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aligntax-gguf-")))
    with quiet():
        model, tokenizer = read_gguf(found.gguf, torch.bfloat16)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return replace(found, folder=folder, gguf=None)


def _config(found: Checkpoint, remote_code: bool) -> Any:
    try:
        config: Any = AutoConfig.from_pretrained(found.folder, local_files_only=True, trust_remote_code=remote_code)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"cannot read the config of {str(found.folder)!r} ({one_line(error)})") from error
    if getattr(config, "quantization_config", None):
        raise ModelError(
            f"{str(found.folder)!r} holds quantised weights; give the 16 or 32-bit checkpoint to average it"
        )
    return config


def _tokenizers(base: Checkpoint, aligned: Checkpoint) -> tuple[Path, ...]:
    folders = [base.folder, aligned.folder] + ([aligned.adapter] if aligned.adapter else [])
    own = [folder for folder in folders if (folder / "tokenizer_config.json").is_file()]
    return (own[-1],) if own else ()


def read_fractions(path: Path, depth: int) -> Fractions:
    """Fractions of a JSON file: a list, one number a block, or `{"layers": [...], "outside": number}`.

    `outside` is the mean of the layers by default. Raises AligntaxError for anything else, or a number outside [0, 1].
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AligntaxError(f"--fractions {path}: {error}; give a JSON list of {depth} numbers from 0 to 1") from error
    layers = found.get("layers") if isinstance(found, dict) else found
    given = isinstance(found, dict) and found.get("outside") is not None
    numbers = [*layers, *([found["outside"]] if given else [])] if isinstance(layers, list) else []
    plain = all(isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x <= 1 for x in numbers)
    if not isinstance(layers, list) or len(layers) != depth or not plain:
        size = f"{len(layers)} entries" if isinstance(layers, list) else "no list"
        raise AligntaxError(
            f"--fractions {path} has {size}; give {depth} numbers from 0 (base) to 1 (aligned), one a block"
        )
    of_layers = Fractions.of_layers(layers)
    return Fractions(of_layers.layers, float(found["outside"])) if given else of_layers


def prepare_output(out: Path, overwrite: bool, inputs: tuple[Path, ...]) -> None:
    """Make the folder, or refuse one that holds something. With `overwrite` the old result stops counting first.

    Only files that a merge writes are ever replaced. Raises AligntaxError also where the output is one of the inputs.
    """
    if any(out.exists() and out.resolve() == folder.resolve() for folder in inputs):
        raise AligntaxError(f"--out {out} is one of the models that are merged; choose another folder")
    if out.exists() and not out.is_dir():
        raise AligntaxError(f"--out {out} is a file; give a folder")
    if out.is_dir() and not overwrite and any(not file.name.startswith(".") for file in out.iterdir()):
        raise AligntaxError(f"--out {out} is not empty; give --overwrite or another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AligntaxError(f"cannot make {out}: {error.strerror}; choose another --out") from error


def clear_old(out: Path) -> None:
    """Remove what an earlier merge left, its record first, so that a killed run never looks finished."""
    for pattern in (
        "merge.json",
        "report.html",
        "run.yaml",
        "config.json",
        "model*.safetensors",
        "model.safetensors.index.json",
    ):
        for file in out.glob(pattern):
            file.unlink()


@contextmanager
def candidate_folder(out: Path) -> Iterator[Path]:
    """A hidden folder inside `out` for mixtures that are only scored; gone afterwards, and any left by a killed run."""
    for old in out.glob(".candidate-*"):
        shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".candidate-") as folder:
        yield Path(folder)
