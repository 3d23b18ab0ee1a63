"""From what the user typed to a judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aligntax.errors import JudgeError
from aligntax.judging.classifier import default_judge, reward_judge
from aligntax.judging.lexical import lexical_judge
from aligntax.judging.own import callable_judge
from aligntax.judging.verdict import Judge

SPECS = "lexical, classifier, reward, hub:ID[@REVISION][#refusal=LABEL,harm=LABEL], openai:MODEL@URL"


def make_judge(spec: str | Callable[..., Any] | Judge) -> Judge:
    """The judge that `spec` names: a word or address of SPECS, a callable of (prompt, prefill, continuation), or a judge itself.

    Raises JudgeError for anything else, naming what is possible.

    >>> make_judge("lexical").name
    'lexical'
    """
    if isinstance(spec, Judge):
        return spec
    if not isinstance(spec, str):
        return callable_judge(spec)
    kind, _, rest = spec.partition(":")
    if spec == "lexical":
        return lexical_judge()
    if spec in ("classifier", "reward"):
        return default_judge() if spec == "classifier" else reward_judge()
    if kind == "hub" and rest:
        return _hub(rest)
    if kind == "openai" and rest:
        model, found, url = rest.partition("@http")
        if not found or not model:
            raise JudgeError(f"judge {model!r} names no endpoint; give openai:MODEL@URL with an https URL")
        from aligntax.judging.endpoint import endpoint_judge

        return endpoint_judge(model, "http" + url)
    raise JudgeError(f"judge {spec!r} is unknown; give one of {SPECS}")


def _hub(rest: str) -> Judge:
    # torch takes seconds to import, and most judges need none.
    from aligntax.judging.hub import hub_judge

    address, _, mapping = rest.partition("#")
    name, _, revision = address.partition("@")
    wanted: dict[str, str] = {}
    for part in filter(None, mapping.split(",")):
        side, _, label = part.partition("=")
        if side not in ("refusal", "harm") or not label:
            raise JudgeError(f"{part!r} in judge 'hub:{rest}' maps nothing; write refusal=LABEL or harm=LABEL")
        wanted[side] = label
    return hub_judge(name, wanted, revision or None)
