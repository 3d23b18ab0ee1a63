"""Docstrings of this project are plain text with `code`, doctests and indented examples; this turns them into reStructuredText.

Everything outside backticks is literal: a formula such as |P_C v|^2 or a name such as step_ must not be read as markup.
"""

import re
from collections.abc import Sequence
from typing import Any

ARRAY = "ndarray[tuple[Any, ...], dtype[float64]]"
_SPECIAL = re.compile(r"([\\*|_`\[\]<>:])")
_ITEM = re.compile(r"(\s*)([-*]|\d+\.) (?=\S)")


def inline(text: str) -> str:
    """One line: code in backticks becomes literal, all else is escaped.

    >>> inline("the norm |x| of `x_`s")
    'the norm \\\\|x\\\\| of \\\\ ``x_``\\\\ s'
    """
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # a lone backtick
        return _SPECIAL.sub(r"\\\1", text)
    shown = [
        _SPECIAL.sub(r"\\\1", piece) if place % 2 == 0 else f"\\ ``{piece}``\\ " if piece.strip() else ""
        for place, piece in enumerate(pieces)
    ]
    return "".join(shown)


def converted(lines: Sequence[str]) -> list[str]:
    """The lines of a docstring as reStructuredText."""
    found: list[str] = []
    for block in _blocks(_joined(lines)):
        found += [*_shown(block), ""]
    return found


def _joined(lines: Sequence[str]) -> list[str]:
    """Code that begins on one line and ends on the next, put on one."""
    found: list[str] = []
    for line in lines:
        if found and found[-1].count("`") % 2 and line.strip() and not found[-1].lstrip().startswith(">>>"):
            found[-1] = f"{found[-1]} {line.strip()}"
        else:
            found.append(line)
    return found


def _blocks(lines: Sequence[str]) -> list[list[str]]:
    """Runs of lines between blank ones; a doctest, an indented example and a list item begin a block of their own."""
    blocks: list[list[str]] = []
    before = ""
    for line in lines:
        if line.strip():
            first = _kind(blocks[-1][0]) if blocks and before.strip() else ""
            inside = first == "doctest" or (first == "item" and line.startswith("  ") and _kind(line) != "item")
            fresh = not before.strip() or (not inside and (_kind(line) != _kind(before) or _kind(line) == "item"))
            if fresh:
                blocks.append([])
            blocks[-1].append(line)
        before = line
    return blocks


def _kind(line: str) -> str:
    if line.lstrip().startswith(">>>"):
        return "doctest"
    if _ITEM.match(line):
        return "item"
    return "indented" if line.startswith("    ") else "text"


def _shown(block: list[str]) -> list[str]:
    kind = _kind(block[0])
    if kind == "doctest":
        return block
    if kind == "indented":
        return ["::", "", *(f"    {line}" for line in block)]
    if kind == "item":
        match = _ITEM.match(block[0])
        assert match is not None
        return ["- " + inline(" ".join([block[0][match.end() :], *(line.strip() for line in block[1:])]))]
    return [inline(line.strip()) for line in block]


def setup(app: Any) -> dict[str, bool]:
    """Hook into autodoc."""

    def process(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
        lines[:] = converted(lines)

    def named(
        _a: Any, _w: str, _n: str, _o: Any, _s: Any, signature: str, returns: str
    ) -> tuple[str | None, str | None]:
        return tuple(text.replace(ARRAY, "Array") if text else text for text in (signature, returns))  # type: ignore[return-value]

    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-process-signature", named)
    return {"parallel_read_safe": True}
