"""What the stages of a training did, one after the other: `pipeline.json`, frozen dataclasses.

Every stage that is a policy is measured on the same items, and compared item by item with the policy it came from. A tax is the
score before minus the score after: positive is a loss. Undefined numbers are null, never 0.
"""

from dataclasses import dataclass, field
from pathlib import Path

from .files import read_result

PIPELINE_SCHEMA = 1

Number = float | None


@dataclass(frozen=True)
class StageScore:
    """One score at one stage, a mean over `n` items with an interval.

    `kind` is `capability` (share of items right) or `alignment`. `better` says whether `high` or `low` is wanted; `unit` is
    `fraction`, or `reward`.
    """

    name: str
    kind: str
    better: str
    unit: str
    value: Number
    low: Number
    high: Number
    n: int


@dataclass(frozen=True)
class StageTax:
    """A score before minus after, paired by item, against the policy that the stage came from.

    `p_adjusted` is Benjamini-Hochberg over the scores of the stage. `selective` is the part of a capability's change, in nats per
    answer token, that wrong answers to the same items did not undergo; only it is called a loss of capability.
    """

    name: str
    kind: str
    before: Number
    after: Number
    tax: Number
    low: Number
    high: Number
    p_value: Number
    p_adjusted: Number
    selective: Number
    selective_low: Number
    selective_high: Number
    n: int
    method: str


@dataclass(frozen=True)
class StageRecord:
    """One stage. `policy` is false for a reward model, which says nothing; `previous` is the stage it started from, if any.

    `perplexity` per token of held-out text. `kl` is KL(this | previous) in nats per reply on its own sampled replies to `replies`
    prompts, `kl_token` per token. `facts` are single numbers of the stage (such as `pair accuracy` of a reward model), `curves`
    name -> `[step, value]` from the trainer's log. `seconds` of training, 0 where nothing had to be done.
    """

    name: str
    previous: str | None
    policy: bool
    checkpoint: str
    perplexity: Number
    perplexity_low: Number
    perplexity_high: Number
    scores: list[StageScore]
    taxes: list[StageTax]
    kl: Number
    kl_low: Number
    kl_high: Number
    kl_token: Number
    replies: int
    facts: dict[str, Number]
    curves: dict[str, list[tuple[float, Number]]]
    seconds: float


@dataclass(frozen=True)
class PipelineProvenance:
    """Everything needed to repeat the run. `data` maps what was read or drawn to its sha256 or description."""

    package_version: str
    created: str
    command: str
    seed: int
    data: dict[str, str]
    versions: dict[str, str]
    wall_seconds: float


@dataclass(frozen=True)
class Pipeline:
    """The result of `aligntax pipeline`. `model` is `world` or what --model named; `width`, `parameters`, `decided` of a world."""

    schema_version: int
    model: str
    size: str
    width: int | None
    parameters: int | None
    decided: int | None
    stages: list[StageRecord]
    provenance: PipelineProvenance
    warnings: list[str] = field(default_factory=list)

    def stage(self, name: str) -> StageRecord | None:
        """The stage of that name, or None."""
        return next((stage for stage in self.stages if stage.name == name), None)


def read_pipeline(path: Path) -> Pipeline:
    """Read `pipeline.json` (or the folder that holds it); see `read_result`."""
    return read_result(path, "pipeline", "a pipeline record", Pipeline, PIPELINE_SCHEMA)
