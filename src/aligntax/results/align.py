"""What an alignment run did: everything needed to replay it, and its course, step by step."""

from dataclasses import dataclass, field
from pathlib import Path

from .files import read_result

ALIGN_SCHEMA = 1

Number = float | None


@dataclass(frozen=True)
class AlignProvenance:
    """Where the run came from. `data` maps what was read to its sha256; `versions` of the packages that matter."""

    package_version: str
    created: str
    model_source: str
    revision: str | None
    weights_sha256: str | None
    adapter: str | None
    dtype: str
    device: str
    processes: int
    seed: int
    chat_template: str
    data: dict[str, str]
    versions: dict[str, str]
    wall_seconds: float


@dataclass(frozen=True)
class Align:
    """`align.json`. Losses in nats per token, KL in nats per token, `tokens_per_second` over training alone.

    `steps` is the trainer's log: one mapping of name to number for each logged step. `kept_rank` maps each protected layer to
    `[protected, width]`; `leak` is the largest `|dW U|/(|dW||U|)` over layers after training, `leak_saved` after rounding to
    the saved number type. `recovery_tokens` are `[id, text]`. `reward_judge` names the judge that gave rewards, if any.
    """

    schema_version: int
    model: str
    method: str
    goal: str
    protect: list[str]
    depth: str
    lora_rank: int
    settings: dict[str, str]
    counts: dict[str, int]
    samples: int
    tokens: int
    tokens_per_second: Number
    seconds_per_step: Number
    steps: list[dict[str, Number]]
    kept_rank: dict[str, list[int]]
    leak: Number
    leak_saved: Number
    recovery_tokens: list[tuple[int, str]]
    reward_judge: str | None
    reward_judge_texts: str | None
    checkpoint: str
    saved_dtype: str
    provenance: AlignProvenance
    tax: list[dict[str, Number]] = field(default_factory=list)


def read_align(path: Path) -> Align:
    """Read `align.json` (or the folder that holds it); see `read_result`."""
    return read_result(path, "align", "a record", Align, ALIGN_SCHEMA)
