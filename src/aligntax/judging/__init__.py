"""Judges behind one interface: `judge(prompt, prefill, continuation)` gives `.refusal` and `.harm` in [0, 1]."""

from aligntax.judging.classifier import default_judge, reward_judge
from aligntax.judging.lexical import lexical_judge
from aligntax.judging.verdict import Judge, Reply, Tally, Verdict, same_judge, tally, unjudged

__all__ = [
    "Judge",
    "Reply",
    "Tally",
    "Verdict",
    "default_judge",
    "lexical_judge",
    "reward_judge",
    "same_judge",
    "tally",
    "unjudged",
]
