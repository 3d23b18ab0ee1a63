"""Rows in TRL's supervised formats: a prompt as text or messages, and its reply as `completion` or at the end of `messages`."""

from typing import Any

from aligntax.data.rows import Row
from aligntax.errors import DataError


def conversed(row: Row) -> Row:
    """The row with `prompt` and, where a reply is written, `completion` as text; `messages` are one user's turn and the reply.

    An empty reply is none. Raises DataError naming the row for messages of another shape, or of another prompt than the one
    beside them.
    """
    cells = {name: cell for name, cell in row.cells.items() if name not in ("completion", "messages")}
    if isinstance(cells.get("prompt"), list):
        cells["prompt"] = _said(row, "prompt", ("user",))[0]
    reply = row.cells.get("completion")
    if isinstance(reply, list):
        reply = _said(row, "completion", ("assistant",))[0]
    elif reply is not None and not isinstance(reply, str):
        raise DataError(f"{row.place}: completion is {reply!r:.60}; write text, or a list of messages")
    if row.cells.get("messages"):
        prompt, answer = _said(row, "messages", ("user", "assistant"))
        if cells.setdefault("prompt", prompt) != prompt:
            raise DataError(f"{row.place}: messages ask {prompt[:40]!r} but the prompt is another; keep one of them")
        reply = reply or answer
    return Row(row.place, cells | ({"completion": reply} if reply and reply.strip() else {}))


def _said(row: Row, column: str, roles: tuple[str, ...]) -> list[str]:
    """What each of `roles` says in a list of messages of one turn each; the last may be missing after another."""
    turns: Any = row.cells[column]
    if not isinstance(turns, list) or not all(isinstance(t, dict) and {"role", "content"} <= set(t) for t in turns):
        raise DataError(f"{row.place}: column {column!r} is no list of messages with role and content")
    found = tuple(str(turn["role"]) for turn in turns)
    if found not in (roles, roles[:-1] or roles):
        raise DataError(
            f"{row.place}: column {column!r} holds turns of {', '.join(found) or 'nobody'}; give one turn of {', '.join(roles)} "
            "(a system message goes into --system)"
        )
    texts = [str(turn["content"]) for turn in turns]
    return [*texts, *([""] * (len(roles) - len(texts)))]
