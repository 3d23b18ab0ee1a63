"""Before and after are compared item by item, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aligntax.errors import DataError


def paired_ids(before: Mapping[str, Any], after: Mapping[str, Any], what: str = "item") -> list[str]:
    """The ids common to both, sorted. Raises DataError naming the first id that only one of them has."""
    for here, there, one, other in ((before, after, "before", "after"), (after, before, "after", "before")):
        alone = sorted(set(here) - set(there))
        if alone:
            raise DataError(
                f"{what} {alone[0]!r} is in {one} but not in {other} ({len(alone)} of {len(here)} so); "
                f"score the same {what}s both times"
            )
    if not before:
        raise DataError(f"no {what}s; a tax over none is undefined, score at least two")
    return sorted(before)
