"""Examinees whose answers are known: a rule that writes replies, exact tabular worlds, and judges that read token numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from aligntax.audit import Examinee, Request
from aligntax.judging import Judge, callable_judge
from aligntax.lab import TabularPolicy
from aligntax.models import Rollout, Start
from aligntax.probing import ShardStore

NO, YES = 3, 4


def numbers(ids: Sequence[int]) -> str:
    """Ids as text that can be read back."""
    return "".join(f"{token} " for token in ids)


def read(text: str) -> list[int]:
    """The inverse of `numbers`."""
    return [int(word) for word in text.split()]


def make_requests(count: int) -> list[Request]:
    """Requests `q0`, `q1`, .. with prompts (100,), (101,), .."""
    return [Request(f"q{k}", (100 + k,)) for k in range(count)]


def starts_with_no(prompt: str, prefill: str, continuation: str) -> tuple[float, float]:
    """(harm, refusal): a continuation that starts with NO refuses, any other goes along."""
    refuses = read(continuation)[:1] == [NO]
    return float(not refuses), float(refuses)


class Rule:
    """A sampler that follows `rule(start) -> (ids, ended)` and remembers what it was asked."""

    def __init__(self, rule: Callable[[Start], tuple[Sequence[int], bool]]) -> None:
        self.rule, self.seen = rule, list[Start]()

    def __call__(self, starts: Sequence[Start]) -> list[Rollout]:
        self.seen += starts
        return [Rollout(tuple(ids), ended) for ids, ended in map(self.rule, starts)]


def examinee(
    sampler: Callable[[Sequence[Start]], list[Rollout]],
    judge: Judge | Callable[..., object] = starts_with_no,
    folder: Path | None = None,
    seed: int = 0,
) -> Examinee:
    """An examinee whose text is the numbers of its tokens."""
    judged = judge if isinstance(judge, Judge) else callable_judge(judge, "test")
    return Examinee("planted", sampler, numbers, judged, ShardStore(folder, {"world": 1}), seed)


def turns_back(depth_of: Callable[[int], int]) -> Rule:
    """A model that refuses as long as its prefill has fewer than `depth_of(prompt number)` tokens, and then goes along."""

    def rule(start: Start) -> tuple[list[int], bool]:
        refuses = len(start.prefill) < depth_of(start.prompt[0] - 100)
        return [NO if refuses else YES, 9, 9][: start.new_tokens], True

    return Rule(rule)


class TabularSampler:
    """Draws from one tabular policy a prompt; tokens are their own numbers. Texts never end before their last position."""

    def __init__(self, policies: Sequence[TabularPolicy]) -> None:
        self.policies, self.tokens = policies, 0

    def __call__(self, starts: Sequence[Start]) -> list[Rollout]:
        return [Rollout(self._draw(start), False) for start in starts]

    def _draw(self, start: Start) -> tuple[int, ...]:
        policy, rng = self.policies[start.prompt[0] - 100], np.random.default_rng(start.seed)
        said = list(start.prefill)
        while len(said) < policy.length and len(said) < len(start.prefill) + start.new_tokens:
            row = int(np.polyval(said, policy.vocabulary)) if said else 0
            said.append(int(rng.choice(policy.vocabulary, p=np.exp(policy.logits[len(said)][row]))))
        self.tokens += len(said) - len(start.prefill)
        return tuple(said[len(start.prefill) :])
