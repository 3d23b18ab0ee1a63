"""Judges behind one interface: `judge(prompt, prefill, continuation)` gives `.refusal` and `.harm` in [0, 1]."""

from aligntax.judging.agreement import Agreement, agreement
from aligntax.judging.classifier import default_judge, reward_judge
from aligntax.judging.lexical import lexical_judge
from aligntax.judging.own import callable_judge
from aligntax.judging.specs import make_judge
from aligntax.judging.verdict import Judge, Reply, Tally, Verdict, same_judge, tally, unjudged

__all__ = [
    "Agreement",
    "Judge",
    "Reply",
    "Tally",
    "Verdict",
    "agreement",
    "callable_judge",
    "default_judge",
    "lexical_judge",
    "make_judge",
    "reward_judge",
    "same_judge",
    "tally",
    "unjudged",
]
