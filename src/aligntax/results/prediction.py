"""What became of a prediction: `P1.json` to `P7.json`, frozen dataclasses.

`low` and `high` are the ends of a 90% interval. Numbers that are undefined are null, never 0. The analysis that gave the
verdict was fixed before the outcome was read; `provenance.protocol` holds all of it and `provenance.protocol_sha256` its hash.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .files import read_result

PREDICTION_SCHEMA = 1

Number = float | None
Verdict = Literal["supported", "contradicted", "undecided"]
Cell = str | float | int | bool | None


@dataclass(frozen=True)
class Bound:
    """A number with its interval."""

    estimate: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class PredictionProvenance:
    """Where the numbers came from, and the analysis as it was fixed."""

    package_version: str
    command: str
    protocol: dict[str, str | float | list[str] | None]
    protocol_sha256: str
    models: dict[str, str]
    data: dict[str, str]
    tokens: int
    wall_seconds: float
    versions: dict[str, str]


@dataclass(frozen=True)
class Prediction:
    """One prediction, scored. `estimate` is the `measure` in words; `baselines` are the same measure without the theory.

    `ahead` is the estimate minus the best baseline, paired; it decides. `p_value` is named in `protocol`. `n` counts units of each
    kind, `reliability` what a second measurement agrees to. `negatives` are what was tried and failed, in words. `tables` hold
    what a reader may want to see behind the numbers: name -> rows.
    """

    prediction: str
    statement: str
    measure: str
    estimate: Number
    low: Number
    high: Number
    baselines: dict[str, Bound]
    ahead: Bound
    p_value: Number
    verdict: Verdict
    reason: str
    n: dict[str, int]
    seeds: list[int]
    reliability: dict[str, Number]
    negatives: list[str]
    date: str
    provenance: PredictionProvenance
    tables: dict[str, list[dict[str, Cell]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    schema_version: int = PREDICTION_SCHEMA


def read_prediction(path: Path, name: str = "P1") -> Prediction:
    """Read a scored prediction, or NAME.json in the folder that holds it; see `read_result`."""
    return read_result(path, name, "a scored prediction", Prediction, PREDICTION_SCHEMA)
