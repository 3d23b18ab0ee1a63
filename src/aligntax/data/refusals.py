"""Written refusals: each opens differently, names a reason and offers an alternative that fits the kind of request.

Two kinds: a refusal answers a request; a recovery breaks off an answer that has already begun. Which parts are put together
depends on the request alone, so a data set is the same every time. No request's content is repeated.
"""

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

from aligntax.errors import DataError

CATEGORY_ANY = "any"


@cache
def _parts() -> dict[str, Any]:
    text = files("aligntax.data").joinpath("builtin", "refusals.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def refusal_categories() -> tuple[str, ...]:
    """Categories of request with reasons and alternatives of their own; anything else gets the general ones."""
    return tuple(name for name, part in _parts().items() if isinstance(part, dict))


def refusal_openings() -> tuple[str, ...]:
    """First sentences of refusals and of recoveries: their first tokens are where a model can turn back."""
    return (*_parts()["openings"], *_parts()["recoveries"])


def write_refusal(prompt: str, category: str | None = None) -> str:
    """A refusal of `prompt`: opening, reason, alternative. Raises DataError for an empty prompt."""
    return _compose(prompt, category, "openings")


def write_recovery(prompt: str, category: str | None = None) -> str:
    """What to say after having begun to comply with `prompt`. Raises DataError for an empty prompt."""
    return _compose(prompt, category, "recoveries")


def _compose(prompt: str, category: str | None, first: str) -> str:
    if not prompt.strip():
        raise DataError("a refusal needs the request that it refuses, and this one is empty")
    parts = _parts()
    kind = category if category in refusal_categories() else CATEGORY_ANY
    draw = hashlib.sha256(f"{first}\0{prompt}".encode()).digest()
    lists = (parts[first], parts[kind]["reasons"], parts[kind]["alternatives"])
    return " ".join(options[draw[place] % len(options)] for place, options in enumerate(lists))
