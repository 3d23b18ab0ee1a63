"""Averaging two checkpoints, tensor by tensor: `(1 - f_l) base + f_l aligned`, one fraction a decoder block.

`aligned_fraction` is 0 at the base and 1 at the aligned model. Fractions are used as given, never normalised. Arithmetic is
float32 and the result has the base's number type. What stands outside the blocks (embeddings, final norm, head) has a
fraction of its own, by default the mean over blocks. Memory: the index and pieces of two tensors, whatever the model's size.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aligntax.errors import AligntaxError, ModelError, NonFiniteError
from aligntax.models.stored_weights import StoredWeights

PIECE = 2**24
"""Weights that are averaged at once: 64 MiB in float32. A larger tensor is done by rows."""

SHARD_BYTES = 5 * 10**9
"""Size at which the output is split into several files."""

_CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
_CODES |= {torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL", torch.int8: "I8"}


@dataclass(frozen=True)
class Fractions:
    """The aligned fraction of every decoder block, first to last, and of everything outside the blocks."""

    layers: tuple[float, ...]
    outside: float

    @classmethod
    def uniform(cls, fraction: float, depth: int) -> "Fractions":
        """The same fraction everywhere."""
        return cls((fraction,) * depth, fraction)

    @classmethod
    def of_layers(cls, layers: Sequence[float]) -> "Fractions":
        """A fraction for each block; outside them their mean."""
        return cls(tuple(float(f) for f in layers), float(np.mean(layers)))

    @property
    def mean(self) -> float:
        """Mean over blocks."""
        return float(np.mean(self.layers))

    def at(self, layer: int | None) -> float:
        """Fraction of block `layer`, or outside the blocks for None."""
        return self.outside if layer is None else self.layers[layer]


@dataclass(frozen=True)
class Layout:
    """Which block each tensor belongs to (None: outside), in the order of the base's names, and the path of the blocks."""

    blocks: str
    depth: int
    layer_of: dict[str, int | None]

    @property
    def outside(self) -> list[str]:
        """Names of the tensors outside the blocks."""
        return [name for name, layer in self.layer_of.items() if layer is None]


def block_path(names: Sequence[str], depth: int, home: str | None = None) -> str:
    """Path of the list of decoder blocks, found from tensor names alone: `model.layers` of `model.layers.0.mlp...`.

    A list is a path followed by the numbers 0 to `depth - 1` and no other. Of several, the one that shares most with the
    token embedding's name `home` (a vision tower may be as deep), then the one nearest the root (experts may be as many).
    Raises ModelError when nothing fits.

    >>> block_path(["wte.weight", "h.0.ln.weight", "h.1.ln.weight"], 2)
    'h'
    """
    numbers: dict[str, set[int]] = {}
    for name in names:
        for found in re.finditer(r"\.(\d+)(?=\.)", name):
            numbers.setdefault(name[: found.start()], set()).add(int(found[1]))
    fitting = [path for path, seen in numbers.items() if seen == set(range(depth))]
    if not fitting:
        seen = ", ".join(f"{path}[{len(found)}]" for path, found in sorted(numbers.items())) or "none"
        raise ModelError(f"no list of {depth} decoder blocks among the tensors (lists seen: {seen[:300]})")
    return min(fitting, key=lambda path: (-_shared(path, home or ""), path.count("."), path))


def _shared(left: str, right: str) -> int:
    pairs = zip(left.split("."), right.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def layout(base: StoredWeights, aligned: StoredWeights, config: Any) -> Layout:
    """Which block every tensor belongs to; `config` is the base's (its text part is looked at).

    Raises ModelError naming the first tensor that only one model has, or that differs in shape or kind. A head that is tied
    to the embedding may be stored or not, and is left out.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    depth, vocab = int(text.num_hidden_layers), getattr(text, "vocab_size", None)
    every = sorted({*base.names, *aligned.names})
    # Rows as many as words, outside any list: the token embedding and the head.
    wide = [n for n in every if not re.search(r"\.\d+\.", n) and _either(base, aligned, n)[:1] == (vocab,)]
    heads = {n for n in wide if re.search(r"head|embed_out|(^|\.)output\.", n)}
    path = block_path(base.names, depth, next((n for n in wide if n not in heads), None))
    number = re.compile(re.escape(path) + r"\.(\d+)\.")
    left_out = heads if getattr(config, "tie_word_embeddings", False) else set()
    found = {name: number.match(name) for name in every if name not in left_out}
    for name in found:
        _check_pair(base, aligned, name)
    return Layout(path, depth, {name: int(at[1]) if at else None for name, at in found.items()})


def _either(base: StoredWeights, aligned: StoredWeights, name: str) -> tuple[int, ...]:
    return base.shape(name) if name in base else aligned.shape(name)


def _check_pair(base: StoredWeights, aligned: StoredWeights, name: str) -> None:
    for one, two in ((base, aligned), (aligned, base)):
        if name not in two:
            raise ModelError(f"tensor {name!r} of {one.label} is missing in {two.label}; merge two models of one kind")
    if base.shape(name) != aligned.shape(name):
        raise ModelError(
            f"tensor {name!r} is {base.shape(name)} in {base.label} and {aligned.shape(name)} in {aligned.label}; only equal "
            "shapes, and so equal vocabularies, can be averaged"
        )
    types = base.dtype(name), aligned.dtype(name)
    if types[0].is_floating_point != types[1].is_floating_point:
        raise ModelError(
            f"tensor {name!r} is {types[0]} in {base.label} and {types[1]} in {aligned.label}; dequantise it"
        )


def merged_pieces(base: StoredWeights, aligned: StoredWeights, name: str, fraction: float) -> Iterator[Tensor]:
    """`(1 - f) base + f aligned` of one tensor, rows at a time, in the base's number type.

    Integer tensors (buffers) must agree and are copied. Raises NonFiniteError when the average is not finite.
    """
    dtype, shape = base.dtype(name), base.shape(name)
    count = shape[0] if shape else 1
    step = max(1, PIECE // max(1, int(np.prod(shape[1:]))))
    for start in range(0, count, step):
        stop = min(start + step, count)
        piece = base.rows(name, start, stop)
        if dtype.is_floating_point:
            piece.mul_(1.0 - fraction).add_(aligned.rows(name, start, stop), alpha=fraction)
            if piece.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(piece))).all()):
                raise NonFiniteError(
                    f"tensor {name!r}: the average is NaN or infinite; one of the checkpoints is damaged"
                )
            piece = piece.to(dtype)
        elif not torch.equal(piece, aligned.rows(name, start, stop)):
            raise ModelError(f"tensor {name!r} holds integers that differ; quantised weights cannot be averaged")
        yield piece


def update_norms(base: StoredWeights, aligned: StoredWeights, plan: Layout) -> np.ndarray:
    """`n_l`: Euclidean length `(L,)` of the weight update of each decoder block, in weight units (theory 1.15)."""
    squares = np.zeros(plan.depth)
    for name, layer in plan.layer_of.items():
        if layer is None or not base.dtype(name).is_floating_point:
            continue
        shape = base.shape(name)
        step = max(1, PIECE // max(1, int(np.prod(shape[1:]))))
        for start in range(0, shape[0] if shape else 1, step):
            moved = aligned.rows(name, start, start + step)
            moved.sub_(base.rows(name, start, start + step))
            squares[layer] += float(torch.linalg.vector_norm(moved, dtype=torch.float64)) ** 2
    return np.sqrt(squares)


def write_average(
    base: StoredWeights, aligned: StoredWeights, fractions: Fractions, plan: Layout, folder: Path,
    shard_bytes: int = SHARD_BYTES,
) -> tuple[Path, ...]:  # fmt: skip
    """Write the average of two models as safetensors into `folder`: one file, or several with an index.

    Files appear whole or not at all, the index last. Raises ModelError when the number of fractions is not the depth.
    """
    if len(fractions.layers) != plan.depth:
        raise ModelError(f"{len(fractions.layers)} fractions for {plan.depth} decoder blocks; give one each")
    shards = _shards(base, plan, shard_bytes)
    many = len(shards) > 1
    written, weight_map, total = [], {}, 0
    for number, names in enumerate(shards, 1):
        file = folder / (f"model-{number:05d}-of-{len(shards):05d}.safetensors" if many else "model.safetensors")
        total += write_tensors(
            file,
            {name: (base.dtype(name), base.shape(name)) for name in names},
            lambda name: merged_pieces(base, aligned, name, fractions.at(plan.layer_of[name])),
        )
        weight_map.update(dict.fromkeys(names, file.name))
        written.append(file)
    if many:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        _atomically(folder / "model.safetensors.index.json", [json.dumps(index, indent=1).encode()])
    return tuple(written)


def write_tensors(
    file: Path, tensors: dict[str, tuple[torch.dtype, tuple[int, ...]]], pieces: Callable[[str], Iterator[Tensor]]
) -> int:
    """Write a safetensors file without ever holding it: header first, then the pieces of each tensor. Returns data bytes.

    Wider types come first, so that every tensor is aligned to its own size.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name][0].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in order:
        dtype, shape = tensors[name]
        size = dtype.itemsize * int(np.prod(shape))
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    def content() -> Iterator[bytes | memoryview]:
        yield len(text).to_bytes(8, "little") + text
        for name in order:
            for piece in pieces(name):
                yield piece.contiguous().reshape(-1).view(torch.uint8).numpy().data

    _atomically(file, content())
    return offset


def _shards(base: StoredWeights, plan: Layout, limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name in plan.layer_of:
        size = base.dtype(name).itemsize * int(np.prod(base.shape(name)))
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _atomically(file: Path, parts: "Iterator[bytes | memoryview] | list[bytes]") -> None:
    partial = file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as stream:
                for part in parts:
                    stream.write(part)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, file)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise AligntaxError(
            f"cannot write {file}: {error.strerror}; free some space or choose another --out"
        ) from error
