"""How much an audit reads, by name."""

from dataclasses import dataclass

from ..errors import AligntaxError


@dataclass(frozen=True)
class AuditSize:
    """Prompts of each kind, new tokens of a reply, depths of prefill, items a task; `horizon` rollouts are for full audits."""

    name: str
    harmful: int
    harmless: int
    alarming: int
    tokens: int
    depths: tuple[int, ...]
    items: int
    horizon: bool


SIZES = {
    "demo": AuditSize("demo", 8, 8, 8, 64, (0, 1, 5, 20), 8, False),
    "quick": AuditSize("quick", 16, 16, 29, 128, (0, 1, 5, 20, 40), 16, False),
    "full": AuditSize("full", 10**6, 10**6, 10**6, 128, (0, 1, 2, 5, 10, 20, 40, 80), 32, True),
}


def audit_size(name: str) -> AuditSize:
    """The size of that name. Raises AligntaxError for another."""
    if name not in SIZES:
        raise AligntaxError(f"--size {name!r}: choose one of {', '.join(SIZES)}")
    return SIZES[name]
