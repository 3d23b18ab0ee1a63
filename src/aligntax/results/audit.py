"""What an audit found about a pair of models: one frozen dataclass of others, one for each question of the report."""

from dataclasses import dataclass, field
from pathlib import Path

from .audit_cost import (
    CellsRecord,
    EfficiencyRecord,
    Forecast,
    QualityRecord,
    RefusalRecord,
    ScoreRecord,
    SeparationRecord,
    ShiftRecord,
    TaskTax,
)
from .audit_depth import (
    AttackRecord,
    HeldDepth,
    HorizonRecord,
    KlRecord,
    LateRecord,
    Number,
    RecoveryRecord,
    RepresentationRecord,
)
from .files import read_result
from .survey import Phase

AUDIT_SCHEMA = 1


@dataclass(frozen=True)
class AuditProvenance:
    """Where the numbers came from."""

    package_version: str
    created: str
    command: str
    base_weights: str | None
    aligned_weights: str | None
    survey_weights: str | None
    dtype: str
    device: str
    seed: int
    judge: str
    judge_texts: str
    chat_template: str
    data: dict[str, str]
    counts: dict[str, int]
    tokens: int
    wall_seconds: float
    versions: dict[str, str]


@dataclass(frozen=True)
class Audit:
    """`audit.json`."""

    schema_version: int
    base: str
    aligned: str
    size: str
    refusal: RefusalRecord
    overrefusal: Number
    kl: KlRecord
    kl_forced: KlRecord
    recovery: RecoveryRecord
    attack: list[AttackRecord]
    horizon: HorizonRecord | None
    tax: list[TaskTax]
    forecast: Forecast | None
    shift: list[ShiftRecord]
    timing: list[Phase]
    provenance: AuditProvenance
    warnings: list[str] = field(default_factory=list)
    late: LateRecord | None = None
    depth: HeldDepth | None = None
    representation: RepresentationRecord | None = None
    efficiency: EfficiencyRecord | None = None
    cells: CellsRecord | None = None
    scores: list[ScoreRecord] = field(default_factory=list)
    quality: list[QualityRecord] = field(default_factory=list)
    separation: SeparationRecord | None = None


def read_audit(path: Path) -> Audit:
    """Read `audit.json` (or the folder that holds it); see `read_result`."""
    return read_result(path, "audit", "an audit", Audit, AUDIT_SCHEMA)
