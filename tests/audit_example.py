"""An audit with every table filled, for tests of the report."""

from aligntax.results import (
    AUDIT_SCHEMA,
    AttackRecord,
    Audit,
    AuditProvenance,
    Forecast,
    KlRecord,
    Phase,
    Rate,
    RecoveryRecord,
    RefusalRecord,
    ShiftRecord,
    TaskTax,
)


def _kl(text: str) -> KlRecord:
    mean = [2.0 / k for k in range(1, 41)]
    return KlRecord(
        text, list(range(1, 41)), mean, [0.8 * m for m in mean], [1.2 * m for m in mean], mean, mean, [16] * 40,
        0.55, 0.5, 0.6, 31.0, sum(mean), 16, 640,
    )  # fmt: skip


def example_audit() -> Audit:
    """Numbers of the size that real audits have."""
    depths = list(range(41))
    judged = [0.7 if d == 0 else 0.2 if d in (1, 5, 20, 40) else None for d in depths]
    recovery = RecoveryRecord(
        depths, [0.01] * 41, [0.6 / (d + 1) for d in depths], [0.4 / (d + 1) for d in depths],
        [0.8 / (d + 1) for d in depths], [16] * 41, [0.1 if j is not None else None for j in judged], judged,
        [0.9 if j is not None else None for j in judged], [20], 3.0, 0.9, 0.8, None, 40, 22.0,
        Rate(0.01, -0.01, 0.03, 16), False, [(42, "I"), (43, " Sorry")],
    )  # fmt: skip
    attack = [
        AttackRecord("prefill", "greedy", d, 1.0, 0.8, 1.0, 0.2 + d / 60, 0.1, 0.9, 0.6, 0.3, 16, 0, 0, 128)
        for d in (0, 1, 5, 20, 40)
    ]
    tax = [
        TaskTax(f"task-{k}", 16, 0.1 * k - 0.2, 0.1 * k - 0.3, 0.1 * k - 0.1, 0.01, 0.02, 0.1, 0.2, 0.5, 0.4, 0.3, 0.1 * k)
        for k in range(6)
    ]  # fmt: skip
    rate = Rate(0.9, 0.8, 0.95, 62)
    refusal = RefusalRecord(
        0.9, 0.1, Rate(0.3, 0.2, 0.4, 62), rate, rate, rate, rate, rate, "classifier:audit", 128, 0.0, 0.2
    )
    provenance = AuditProvenance(
        "0.1.0", "2026-01-01T00:00:00+00:00", "aligntax audit a b", "0" * 64, "1" * 64, None, "float32", "cpu", 0,
        "classifier:audit", "2" * 64, "the tokenizer's chat template", {"safety": "3" * 64}, {"harmful": 16}, 1000, 60.0,
        {"torch": "2"},
    )  # fmt: skip
    return Audit(
        AUDIT_SCHEMA, "base-model", "out/aligned/model", "quick", refusal, 0.1, _kl("aligned"), _kl("forced"), recovery,
        attack, None, tax, Forecast(0.6, 0.1, 0.9, {"gradient norm": 0.4}, -0.2, 0.5, 6, "undecided"),
        [ShiftRecord(k, 0.1, 0.5, -0.2) for k in range(3)], [Phase("replies", 1.0, 100)], provenance, ["Intervals are wide."],
    )  # fmt: skip
