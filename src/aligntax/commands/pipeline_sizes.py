"""Stages and sizes of a pipeline: what comes after what, and how much of everything is spent on it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..errors import AligntaxError

BEFORE: dict[str, tuple[str, ...]] = {
    "pretrain": (), "sft": ("pretrain",), "reward": ("sft",), "rl": ("sft", "reward"), "dpo": ("sft",),
}  # fmt: skip
"""Stage -> the stages that must be finished before it; the policy that it starts from is the first of them."""
DEFAULT = ("pretrain", "sft", "reward", "rl")


@dataclass(frozen=True)
class PipelineSize:
    """Counts of one size.

    tokens: of pretraining. demonstrations: rows of SFT; pairs: preferences; steps: optimizer steps of sft, reward, rl, dpo.
    prompts: held-out requests of each class that are answered; items: of each capability; texts: held-out documents.
    """

    name: str
    tokens: int
    demonstrations: int
    pairs: int
    steps: dict[str, int]
    prompts: int
    items: int
    texts: int


SIZES = {
    "demo": PipelineSize("demo", 400_000, 256, 128, {"sft": 20, "reward": 20, "rl": 8, "dpo": 12}, 24, 16, 32),
    "quick": PipelineSize("quick", 2_000_000, 1024, 1024, {"sft": 100, "reward": 100, "rl": 100, "dpo": 100}, 96, 64, 256),
    "full": PipelineSize("full", 20_000_000, 2000, 2000, {"sft": 200, "reward": 200, "rl": 300, "dpo": 200}, 256, 64, 512),
}  # fmt: skip


def size_named(name: str) -> PipelineSize:
    """The size called `name`. Raises AligntaxError for another word."""
    if name not in SIZES:
        raise AligntaxError(f"unknown --size {name!r}; choose one of {', '.join(SIZES)}")
    return SIZES[name]


def ordered_stages(wanted: Sequence[str], finished: Collection[str], given: bool) -> tuple[str, ...]:
    """The wanted stages in the order in which they run. With `given` a model takes the place of `pretrain`.

    Raises AligntaxError for an unknown stage, none at all, or one whose predecessor is neither wanted nor `finished`.

    >>> ordered_stages(["reward", "sft"], {"pretrain"}, False)
    ('sft', 'reward')
    """
    unknown = [name for name in wanted if name not in BEFORE]
    if unknown or not wanted:
        raise AligntaxError(f"--stages: unknown stage {(unknown or [''])[0]!r}; choose from {', '.join(BEFORE)}")
    if given and "pretrain" in wanted:
        raise AligntaxError("--stages pretrain with --model: the model is pretrained already; leave one of them out")
    ready = {*finished, *wanted} | ({"pretrain"} if given else set())
    for name in wanted:
        missing = [before for before in BEFORE[name] if before not in ready]
        if missing:
            raise AligntaxError(
                f"--stages: {name} needs {missing[0]} before it, which is neither asked for nor in the folder; add {missing[0]}"
            )
    return tuple(name for name in BEFORE if name in wanted)
