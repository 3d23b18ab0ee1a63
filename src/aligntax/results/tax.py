"""What evaluation logs say was paid: `tax.json`, frozen dataclasses.

A tax is the score before minus the score after, so positive is a loss, in the unit of the score. `low` and `high` are the ends of
an interval at `provenance.level`. Numbers that are undefined are null, never 0.
"""

from dataclasses import dataclass, field
from pathlib import Path

from .files import read_result

TAX_SCHEMA = 1

Number = float | None


@dataclass(frozen=True)
class TaxSource:
    """One log: the stage's name, where it was read and as what, and how many items of each task it scores."""

    stage: str
    source: str
    kind: str
    sha256: str
    tasks: dict[str, int]
    notes: list[str]


@dataclass(frozen=True)
class TaxSplit:
    """Drop of the gold answer's log-probability in nats, split: what every answer lost, and what the margin lost.

    Only the selective part is a loss of capability. With `formats` = 1 the intervals know nothing of prompt formats.
    """

    formats: int
    gold: Number
    shared: Number
    shared_low: Number
    shared_high: Number
    selective: Number
    selective_low: Number
    selective_high: Number


@dataclass(frozen=True)
class TaxPair:
    """One task from one stage to another, paired by item. `span` is `adjacent` or `total` (first to last).

    `p_value` is two-sided against no change, `p_adjusted` after Benjamini-Hochberg over the tasks of the same two stages.
    `relative` = tax / before, a fraction. `lost` and `gained` count items right before and wrong after, and the reverse; null
    for graded scores. `method` is `mcnemar` for scores that are all 0 or 1, else `bootstrap`.
    """

    before: str
    after: str
    task: str
    metric: str
    span: str
    n: int
    left_out: int
    score_before: Number
    score_after: Number
    tax: Number
    low: Number
    high: Number
    p_value: Number
    p_adjusted: Number
    relative: Number
    relative_low: Number
    relative_high: Number
    lost: int | None
    gained: int | None
    method: str
    split: TaxSplit | None


@dataclass(frozen=True)
class TaxProvenance:
    """Everything needed to repeat the comparison."""

    package_version: str
    created: str
    command: str
    seed: int
    draws: int
    level: float
    wall_seconds: float
    versions: dict[str, str]


@dataclass(frozen=True)
class Tax:
    """The result of `aligntax tax`: `stages` in the order given, a pair for each task and two stages that are compared."""

    stages: list[str]
    sources: list[TaxSource]
    pairs: list[TaxPair]
    provenance: TaxProvenance
    warnings: list[str] = field(default_factory=list)
    schema_version: int = TAX_SCHEMA


def read_tax(path: Path) -> Tax:
    """Read `tax.json` (or the folder that holds it); see `read_result`."""
    return read_result(path, "tax", "a tax record", Tax, TAX_SCHEMA)
