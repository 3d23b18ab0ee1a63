"""How much an audit reads, by name."""

from dataclasses import dataclass

from ..errors import AligntaxError


@dataclass(frozen=True)
class AuditSize:
    """Prompts of each kind, new tokens of a reply, depths of prefill, items a task that are scored.

    `cells` items a task are also answered in words, in at most `cell_tokens`; `sampled` harmless prompts are answered eight times
    each (0 unless every attack is asked for).
    """

    name: str
    harmful: int
    harmless: int
    alarming: int
    tokens: int
    depths: tuple[int, ...]
    items: int
    cells: int
    cell_tokens: int
    sampled: int


SIZES = {
    "demo": AuditSize("demo", 8, 8, 8, 64, (0, 1, 5, 20), 8, 1, 32, 0),
    "quick": AuditSize("quick", 16, 16, 29, 128, (0, 1, 5, 20, 40), 16, 2, 64, 0),
    "full": AuditSize("full", 10**6, 10**6, 10**6, 128, (0, 1, 2, 5, 10, 20, 40, 80), 32, 8, 128, 16),
}
LEAST_SAMPLED = 8
"""Prompts answered eight times each where every attack is asked for at a small size."""


def audit_size(name: str) -> AuditSize:
    """The size of that name. Raises AligntaxError for another."""
    if name not in SIZES:
        raise AligntaxError(f"--size {name!r}: choose one of {', '.join(SIZES)}")
    return SIZES[name]
