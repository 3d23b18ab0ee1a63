"""Names of tasks and contrasts: what is allowed, and the nearest allowed name of one that is not."""

import re
from collections.abc import Container

LONGEST = 64
_ALLOWED = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def safe_name(name: str) -> str:
    """The name lowercased, every run of other characters a hyphen, at most 64 characters; `unnamed` where none is left.

    >>> safe_name("Old English (v2)")
    'old-english-v2'
    """
    if _ALLOWED.fullmatch(name):
        return name
    hyphened = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).lstrip("._-")
    return hyphened[:LONGEST].rstrip("-") or "unnamed"


def free_name(name: str, taken: Container[str]) -> str:
    """The name itself, or with the first suffix -2, -3, ... that is not taken, within 64 characters."""
    candidate, number = name, 2
    while candidate in taken:
        suffix = f"-{number}"
        candidate, number = name[: LONGEST - len(suffix)] + suffix, number + 1
    return candidate


def split_name(spec: str) -> tuple[str | None, str]:
    """`NAME=REST` as (NAME, REST), or (None, spec). A path that holds `=` after a slash or a comma has no name.

    >>> split_name("sums=data/sums.jsonl"), split_name("run=1/x/y=2.csv"), split_name("a/b=2.csv")
    (('sums', 'data/sums.jsonl'), ('run', '1/x/y=2.csv'), (None, 'a/b=2.csv'))
    """
    name, equals, rest = spec.partition("=")
    if not equals or not name or not rest or any(mark in name for mark in "/\\,"):
        return None, spec
    return name, rest
