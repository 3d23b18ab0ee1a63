"""Rewards for policy optimisation, from a judge or a reward model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..judging.verdict import Judge
from ..models.checkpoint import resolve, weights_sha256


@dataclass(frozen=True)
class Rewarder:
    """A reward model as the record names it: like the judge `hub:ID` of an audit, with the sha256 of its weights."""

    name: str
    texts_hash: str


def reward_model(name: str) -> Rewarder:
    """The reward model in a folder or on the Hub. Raises ModelError for one that is not there or has no safetensors."""
    return Rewarder(f"hub:{name}", weights_sha256(resolve(name, None, None).weight_files()))


def judged_reward(judge: Judge) -> Any:
    """Reward in [0, 1] of completions: refusal where the request is harmful, the lack of one where it is not."""

    def reward(
        prompts: Sequence[Any], completions: Sequence[Any], harmful: Sequence[bool], **_: Any
    ) -> list[float | None]:
        verdicts = judge([_said(p) for p in prompts], [""] * len(prompts), [_said(c) for c in completions])
        return [
            None if not v.judged else (v.refusal if bad else 1.0 - v.refusal)
            for v, bad in zip(verdicts, harmful, strict=True)
        ]

    reward.__name__ = judge.name.replace("-", "_")
    return reward


def _said(turns: str | Sequence[Mapping[str, str]]) -> str:
    return turns if isinstance(turns, str) else turns[-1]["content"]
