"""Weights on disk, read a few rows at a time: safetensors in one file or many, a LoRA adapter added on the way.

Nothing is held but the index: files are mapped, so a model larger than memory can be read. Only what is plainly addition
is added: an adapter of another kind than plain LoRA is refused, never approximated.
"""

import json
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from aligntax.errors import ModelError
from aligntax.models.checkpoint import Checkpoint, one_line

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Stored number types that can be averaged. Others (integers, 8-bit floats) mean a quantised checkpoint or a buffer."""

_INTEGERS = {"I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool, "I8": torch.int8}
_PLAIN_INIT = (True, False, None, "gaussian", "orthogonal", "eva")
_OTHER_KINDS = ("use_dora", "layer_replication", "lora_bias", "target_parameters", "trainable_token_indices")


@dataclass(frozen=True)
class LowRank:
    """One adapted tensor: names of `A` and `B` in the adapter, the scale of `B A`, and whether `A^T B^T` is stored."""

    a: str
    b: str
    scale: float
    transposed: bool


class StoredWeights:
    """The tensors of one checkpoint by name, in the order of their names; use inside `with opened(...)`."""

    def __init__(self, label: str, places: dict[str, Any], adapter: "StoredWeights | None" = None) -> None:
        self.label = label
        self._places = places
        self._adapter = adapter
        self._added: dict[str, LowRank] = {}
        self._replaced: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """Every tensor's name, sorted."""
        return sorted(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(self._places[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """Stored number type. Raises ModelError for one that weights cannot be averaged in."""
        code = self._places[name].get_slice(name).get_dtype()
        if code not in FLOATS and code not in _INTEGERS:
            raise ModelError(
                f"{self.label}: tensor {name!r} is stored as {code}; merging needs 16 or 32-bit weights, dequantise first"
            )
        return FLOATS.get(code) or _INTEGERS[code]

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start:stop` along the first axis (a scalar is its own single row), a copy; float32 for floats."""
        if name in self._replaced and self._adapter is not None:
            return self._adapter.rows(self._replaced[name], start, stop)
        part = self._places[name].get_slice(name)
        found: Tensor = part[start:stop] if part.get_shape() else part[...].reshape(1)
        # The mapped file must not change under the caller's in-place arithmetic.
        found = found.to(torch.float32, copy=True) if found.is_floating_point() else found.clone()
        return self._with_delta(name, found, start, stop) if name in self._added else found

    def adapt(self, adapter: "StoredWeights", config: dict[str, Any]) -> None:
        """Put a LoRA adapter on top. Raises ModelError for another kind, or a tensor that the base does not have."""
        _require_plain(adapter.label, config)
        self._adapter = adapter
        for key in adapter.names:
            module, part = _split_key(key, adapter.label)
            name = self._target(module, adapter.label)
            if part is None:
                if adapter.shape(key) != self.shape(name):
                    raise ModelError(_differs(name, self, self.shape(name), adapter, adapter.shape(key)))
                self._replaced[name] = key
            elif part.endswith("A"):
                self._added[name] = self._low_rank(name, key, module, config)

    def _low_rank(self, name: str, key: str, module: str, config: dict[str, Any]) -> LowRank:
        adapter = self._adapter
        assert adapter is not None
        other = key.replace("lora_A", "lora_B").replace("lora_embedding_A", "lora_embedding_B")
        if other not in adapter.names:
            raise ModelError(f"adapter {adapter.label} has {key!r} without {other!r}; save the adapter again")
        a, b = adapter.shape(key), adapter.shape(other)
        if len(a) != 2 or len(b) != 2 or len(self.shape(name)) != 2:
            raise ModelError(f"adapter {adapter.label}: {key!r} is no matrix; {_MERGE_FIRST}")
        product, stored = (b[0], a[1]), self.shape(name)
        transposed = bool(config.get("fan_in_fan_out")) or "lora_embedding" in key or product != stored
        if (product[::-1] if transposed else product) != stored:
            raise ModelError(_differs(name, self, stored, adapter, product))
        alpha = _matching(config.get("alpha_pattern"), module, config.get("lora_alpha", a[0]))
        scale = alpha / math.sqrt(a[0]) if config.get("use_rslora") else alpha / a[0]
        return LowRank(key, other, scale, transposed)

    def _with_delta(self, name: str, found: Tensor, start: int, stop: int) -> Tensor:
        low, adapter = self._added[name], self._adapter
        assert adapter is not None
        a = adapter.rows(low.a, 0, adapter.shape(low.a)[0])
        b = adapter.rows(low.b, 0, adapter.shape(low.b)[0])
        if low.transposed:
            return found.addmm_(a.T[start:stop], b.T, alpha=low.scale)
        return found.addmm_(b[start:stop], a, alpha=low.scale)

    def _target(self, module: str, label: str) -> str:
        tail = module if module in self._places else f"{module}.weight"
        # A base saved from its inner model lacks the prefix that the adapter's paths carry.
        for name in (tail, tail.partition(".")[2]):
            if name in self._places:
                return name
        raise ModelError(f"adapter {label} changes {tail!r}, which {self.label} does not have; {_MERGE_FIRST}")


_MERGE_FIRST = "merge it with peft's merge_and_unload and give that folder"


@contextmanager
def opened(checkpoint: Checkpoint, label: str) -> Iterator[StoredWeights]:
    """The weights of a checkpoint (base and adapter), mapped for the length of the `with`.

    Raises ModelError for pickled or damaged files, and for an index that points outside its folder.
    """
    with ExitStack() as stack:
        files = checkpoint.weight_files()
        own = [file for file in files if checkpoint.adapter is None or file.parent != checkpoint.adapter]
        base = StoredWeights(label, _places(stack, own))
        if checkpoint.adapter is not None:
            above = [file for file in files if file.parent == checkpoint.adapter]
            adapter = StoredWeights(str(checkpoint.adapter), _places(stack, above))
            base.adapt(adapter, _adapter_config(checkpoint.adapter))
        yield base


def _places(stack: ExitStack, files: list[Path]) -> dict[str, Any]:
    places: dict[str, Any] = {}
    for file in files:
        try:
            handle = stack.enter_context(safe_open(file, framework="pt"))
            names = list(handle.keys())
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{str(file)!r} is not a safetensors file ({one_line(error)}); fetch it again") from error
        twice = sorted(set(names) & set(places))
        if twice:
            raise ModelError(f"{str(file.parent)!r} holds the tensor {twice[0]!r} twice; fetch it again")
        places.update(dict.fromkeys(names, handle))
    return places


def _adapter_config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{str(folder)!r} has no readable adapter_config.json ({one_line(error)})") from error
    return dict(found)


def _require_plain(label: str, config: dict[str, Any]) -> None:
    kind, start = config.get("peft_type"), config.get("init_lora_weights")
    other = [name for name in _OTHER_KINDS if config.get(name)]
    if kind != "LORA" or other or start not in _PLAIN_INIT:
        what = f"peft_type {kind}" if kind != "LORA" else other[0] if other else f"init_lora_weights {start!r}"
        raise ModelError(f"adapter {label} is not plain LoRA ({what}); {_MERGE_FIRST}")


def _split_key(key: str, label: str) -> tuple[str, str | None]:
    """Module path and `lora_A`-like part of an adapter's key; part None where the tensor replaces the base's own."""
    path = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
    found = re.fullmatch(r"(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B)(\.weight)?", path)
    if found:
        return found[1], found[2]
    if "lora_" in path:
        raise ModelError(f"adapter {label} holds {key!r}, which is not plain LoRA; {_MERGE_FIRST}")
    return path, None


def _matching(patterns: dict[str, float] | None, module: str, default: float) -> float:
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _differs(name: str, one: StoredWeights, shape: tuple[int, ...], two: StoredWeights, other: tuple[int, ...]) -> str:
    return f"tensor {name!r} is {shape} in {one.label} and {other} in {two.label}; only equal shapes can be averaged"
