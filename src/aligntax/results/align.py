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
class UpdateOverlap:
    """Where one block's update writes ([G] §7.2): squared overlap, in [0, 1], of its `rank`-dimensional output subspace (of
    `width`) with the survey's directions at that layer. `chance` is `rank/width`, `low` and `high` the 90% interval of its law.
    """

    layer: int
    rank: int
    width: int
    chance: float
    low: float
    high: float
    safety: Number
    tasks: dict[str, Number]


@dataclass(frozen=True)
class FrontierShare:
    """Measured safety gain beside the frontier of one `layer` at the same `nats` of KL per response token (theory 1.13).

    `gain` in nats of refusal log-odds over `prompts` harmful prompts (`held_out`: training did not see them), `changes` of each
    task's metric, negative is a loss. `exact`: the most that a shift at the layer gains with just these changes; `within`: with no
    task losing more. Shares are gain over frontier, above 1 where several layers beat one; None where undefined, see `reason`.
    """

    layer: int
    nats: Number
    gain: Number
    gain_low: Number
    gain_high: Number
    changes: dict[str, Number]
    exact: Number
    exact_share: Number
    exact_low: Number
    exact_high: Number
    within: Number
    within_share: Number
    reason: str
    held_out: bool = True
    prompts: int = 0


@dataclass(frozen=True)
class Align:
    """`align.json`. Losses in nats per token, KL in nats per token, `tokens_per_second` over training alone, and
    after a resume over its last part.

    `steps` is the trainer's log: one mapping of name to number for each logged step. `kept_rank` maps each protected layer to
    `[protected, width]`; `leak` is the largest `|dW U|/(|dW||U|)` over layers after training, `leak_saved` after rounding to
    the saved number type. `recovery_tokens` are `[id, text]`. `reward_judge` names the judge that gave rewards, if any.
    `overlap` (a row for each block that moved) and `efficiency` are there where a survey was given.
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
    overlap: list[UpdateOverlap] = field(default_factory=list)
    efficiency: FrontierShare | None = None


def read_align(path: Path) -> Align:
    """Read `align.json` (or the folder that holds it); see `read_result`."""
    return read_result(path, "align", "a record", Align, ALIGN_SCHEMA)
