"""What a family of surveys says about width: `scale.json`, frozen dataclasses.

Taxes are squared cosines (fractions, debiased, so noise may make them negative). `low` and `high` are the ends of an interval at
`provenance.level`. Numbers that are undefined are null, never 0.
"""

from dataclasses import dataclass, field
from pathlib import Path

from .files import read_result

SCALE_SCHEMA = 1

Number = float | None


@dataclass(frozen=True)
class ScaleSource:
    """One survey of the family. `layer` (from 0, of `layers`) is where its taxes are taken, `selected` the survey's own choice."""

    name: str
    path: str
    model: str
    width: int
    layer: int
    layers: int
    selected: int
    size: str
    weights_sha256: str | None
    safety_reliability: Number
    controls: int


@dataclass(frozen=True)
class ScalePoint:
    """One width: mean tax over its `surveys` and the standard error of that mean."""

    width: int
    surveys: int
    tax: Number
    standard_error: Number


@dataclass(frozen=True)
class ScaleFree:
    """The fit with the exponent `p` set free, in [0.25, 2]: a sensitivity, and the call it would lead to."""

    p: Number
    t: Number
    low: Number
    high: Number
    call: str


@dataclass(frozen=True)
class ScaleRow:
    """One task over the family: `tau(d) = t + b/d`, `t >= 0`, and what it is called.

    `call` is incidental, intrinsic or undecided, `reason` says why; `alone` is the call before control tasks were looked at.
    `same_as_controls` is null without control tasks. `constant_p` is the p-value of a constant tax against the fit, `scatter` the
    size of the residuals in standard errors. `left_out` names the surveys where the task was not measured reliably. Everything is
    null where fewer than four widths were left.
    """

    task: str
    points: list[ScalePoint]
    t: Number
    low: Number
    high: Number
    b: Number
    b_low: Number
    b_high: Number
    call: str
    reason: str
    alone: str
    constant_p: Number
    scatter: Number
    same_as_controls: bool | None
    free: ScaleFree | None
    left_out: list[str]


@dataclass(frozen=True)
class ScaleBand:
    """Control tasks at one width, each averaged over the surveys there: median and central 90% of their taxes."""

    width: int
    median: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class ScaleControls:
    """The empirical null of the family: `tasks` control tasks in every survey, their band, and the fit to their mean."""

    tasks: int
    band: list[ScaleBand]
    fit: ScaleRow


@dataclass(frozen=True)
class ScaleProvenance:
    """Everything needed to repeat the fit. `error` says what the standard errors are made of."""

    package_version: str
    created: str
    command: str
    seed: int
    level: float
    error: str
    wall_seconds: float
    versions: dict[str, str]


@dataclass(frozen=True)
class Scale:
    """The result of `aligntax scale`: does the tax of each task vanish with width? `depth` is the relative depth compared."""

    estimator: str
    capability: str
    depth: float
    sources: list[ScaleSource]
    rows: list[ScaleRow]
    controls: ScaleControls | None
    provenance: ScaleProvenance
    warnings: list[str] = field(default_factory=list)
    schema_version: int = SCALE_SCHEMA


def read_scale(path: Path) -> Scale:
    """Read `scale.json` (or the folder that holds it); see `read_result`."""
    return read_result(path, "scale", "a record of a family", Scale, SCALE_SCHEMA)
