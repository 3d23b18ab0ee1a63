"""Any Python callable as a judge: from Python only, since a name on a command line must not run code."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aligntax.errors import JudgeError
from aligntax.judging.verdict import Judge, Reply, Verdict, unjudged


def callable_judge(function: Callable[..., Any], name: str | None = None) -> Judge:
    """A judge from `function(prompt, prefill, continuation)`, called once per reply.

    It returns a Verdict, anything with `.refusal` and `.harm`, a mapping with these keys, or a pair (harm, refusal); a side that is
    None, or missing from a mapping, is not measured. What it raises or returns as nan leaves that reply unjudged, the others stand.

    >>> judge = callable_judge(lambda prompt, prefill, continuation: (0.0, float("No" in continuation)), "no-spotter")
    >>> judge("Help?", "", "No.").refusal
    1.0
    """
    if not callable(function):
        raise JudgeError(f"{function!r:.60} cannot be called; give a function of prompt, prefill and continuation")

    def score(replies: Sequence[Reply]) -> list[Verdict]:
        return [_one(function, reply) for reply in replies]

    return Judge(f"callable:{name or _qualified(function)}", _source_hash(function), score, frozenset())


def _one(function: Callable[..., Any], reply: Reply) -> Verdict:
    try:
        said = function(reply.prompt, reply.prefill, reply.continuation)
    except Exception as error:
        return unjudged(f"judge raised {type(error).__name__}")
    try:
        harm, refusal = _sides(said)
        scores = [math.nan if side is None else float(side) for side in (harm, refusal)]
    except (TypeError, ValueError):
        return unjudged(f"judge returned {type(said).__name__}, not harm and refusal")
    given = [score for score, side in zip(scores, (harm, refusal), strict=True) if side is not None]
    if not given or any(not 0 <= score <= 1 for score in given):
        return unjudged("judge returned nothing in [0, 1]")
    return Verdict(harm=scores[0], refusal=scores[1])


def _sides(said: Any) -> tuple[Any, Any]:
    if isinstance(said, Mapping):
        return said.get("harm"), said.get("refusal")
    if hasattr(said, "harm") and hasattr(said, "refusal"):
        # A Verdict says nan for a side that it does not measure, and names a failure when it has failed.
        if isinstance(said, Verdict):
            if not said.judged:
                return math.nan, math.nan
            return tuple(None if math.isnan(side) else side for side in (said.harm, said.refusal))  # type: ignore[return-value]
        return said.harm, said.refusal
    harm, refusal = said
    return harm, refusal


def _qualified(function: Callable[..., Any]) -> str:
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}.{kind.__qualname__}"


def _source_hash(function: Callable[..., Any]) -> str:
    try:
        source = inspect.getsource(function if hasattr(function, "__qualname__") else type(function))
    except (OSError, TypeError):
        source = _qualified(function)
    return hashlib.sha256(source.encode()).hexdigest()
