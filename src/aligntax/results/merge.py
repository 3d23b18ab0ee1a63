"""What a merge did: `merge.json`, frozen dataclasses.

Fractions are aligned fractions: 0 is the base, 1 the aligned model. Safety is the mean refusal log-odds on harmful prompts in
nats (or the mean of the caller's own measure, `safety_unit` says which); capability is the change from the base, averaged
over tasks, in nats per answer token: 0 at the base, negative is a loss. `low` and `high` are the ends of 90% intervals.
"""

from dataclasses import dataclass, field
from pathlib import Path

from .align import FrontierShare
from .files import read_result

MERGE_SCHEMA = 1

Number = float | None


@dataclass(frozen=True)
class MergePoint:
    """One mixture scored on one split. `fraction` is the mean over blocks, `layers` the fraction of each block.

    `safety_gain` is paired by prompt with the base. `line` is what the straight line between base and aligned model promises
    at this fraction (theory 1.13): `(capability, safety gain)`; None where the aligned model itself was not scored. `frontier` is
    what a shift at one layer could have gained at the mixture's own KL, where a survey was given and safety is refusal log-odds.
    """

    scheme: str
    fraction: float
    layers: list[float]
    split: str
    safety: Number
    safety_gain: Number
    safety_low: Number
    safety_high: Number
    capability: Number
    capability_low: Number
    capability_high: Number
    tasks: dict[str, Number]
    line: list[Number] | None
    frontier: FrontierShare | None = None


@dataclass(frozen=True)
class MergePick:
    """Which mixture was written and why. `rule` is `given`, `capability_floor` or `weight`, with its `value`.

    `safety_gain` and `capability` are those on `split`, where it was chosen; None where nothing was scored.
    """

    rule: str
    value: Number
    scheme: str
    fraction: float
    split: str
    safety_gain: Number
    capability: Number


@dataclass(frozen=True)
class LayerGeometry:
    """Where per-layer fractions came from (theory 1.15): yields `x_l`, update norms `n_l`, both `(L,)`.

    `predicted_ratio` is the gain of the per-layer fractions over uniform ones at an equal length of the whole update, with
    gains `S_l = x_l n_l`; `relative_length` the length of the averaged update over that of uniform averaging.
    """

    yields: list[float]
    update_norms: list[float]
    predicted_ratio: Number
    relative_length: Number


@dataclass(frozen=True)
class LearnedFractions:
    """Fractions that were searched: in `blocks` runs of layers, scored `evaluations` times, from `start` to `best`."""

    blocks: int
    evaluations: int
    start: Number
    best: Number


@dataclass(frozen=True)
class MergedModel:
    """One of the two models that were averaged; `weights_sha256` covers an adapter on it."""

    name: str
    source: str
    revision: str | None
    adapter: str | None
    weights_sha256: str


@dataclass(frozen=True)
class MergeProvenance:
    """Everything needed to repeat the merge."""

    package_version: str
    created: str
    command: str
    base: MergedModel
    aligned: MergedModel
    survey: str | None
    dtype: str
    device: str
    seed: int
    data: dict[str, str]
    counts: dict[str, int]
    wall_seconds: float
    versions: dict[str, str]


@dataclass(frozen=True)
class Merge:
    """The result of `aligntax merge`. `layers` are the fractions by decoder block, `outside` that of the tensors named in
    `outside_tensors`; `weights_sha256` is of the written files, `files` their names.
    """

    scheme: str
    aligned_fraction: float
    layers: list[float]
    outside: float
    outside_tensors: list[str]
    dtypes: dict[str, int]
    files: list[str]
    weights_sha256: str
    pick: MergePick
    points: list[MergePoint]
    geometry: LayerGeometry | None
    learned: LearnedFractions | None
    safety_unit: str
    provenance: MergeProvenance
    warnings: list[str] = field(default_factory=list)
    schema_version: int = MERGE_SCHEMA


def read_merge(path: Path) -> Merge:
    """Read `merge.json` (or the folder that holds it); see `read_result`."""
    return read_result(path, "merge", "a merge", Merge, MERGE_SCHEMA)
