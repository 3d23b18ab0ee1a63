"""An audit with every table filled, for tests of the report."""

from aligntax.results import (
    AUDIT_SCHEMA,
    AttackRecord,
    Audit,
    AuditProvenance,
    CellsRecord,
    EfficiencyRecord,
    Forecast,
    HeldDepth,
    HorizonRecord,
    KlRecord,
    LateRecord,
    Phase,
    QualityRecord,
    Rate,
    RecoveryRecord,
    RefusalRecord,
    RepresentationRecord,
    ScoreRecord,
    SeparationRecord,
    ShiftRecord,
    TaskTax,
)


def _kl(text: str) -> KlRecord:
    mean = [2.0 / k for k in range(1, 41)]
    return KlRecord(
        text, list(range(1, 41)), mean, [0.8 * m for m in mean], [1.2 * m for m in mean], mean, mean, [16] * 40,
        0.55, 0.5, 0.6, 31.0, sum(mean), 16, 640, 28.0, 34.0, 40,
    )  # fmt: skip


def example_audit() -> Audit:
    """Numbers of the size that real audits have."""
    depths = list(range(41))
    judged = [0.7 if d == 0 else 0.2 if d in (1, 5, 20, 40) else None for d in depths]
    recovery = RecoveryRecord(
        depths, [0.01] * 41, [0.6 / (d + 1) for d in depths], [0.4 / (d + 1) for d in depths],
        [0.8 / (d + 1) for d in depths], [16] * 41, [0.1 if j is not None else None for j in judged], judged,
        [0.9 if j is not None else None for j in judged], [20], 3.0, 0.9, 0.8, None, 40, 22.0,
        Rate(0.01, -0.01, 0.03, 16), False, [(42, "I"), (43, " Sorry")], 2.0, 4.0, 0.8, 0.95, 0.02, 0.001, 0.1, 16, 9.0,
    )  # fmt: skip
    attack = [
        AttackRecord("prefill", "greedy", d, 1.0, 0.8, 1.0, 0.2 + d / 60, 0.1, 0.9, 0.6, 0.3, 16, 0, 0, 128)
        for d in (0, 1, 5, 20, 40)
    ]
    tax = [
        TaskTax(f"task-{k}", 16, 0.1 * k - 0.2, 0.1 * k - 0.3, 0.1 * k - 0.1, 0.01, 0.02, 0.1, 0.2, 0.5, 0.4, 0.3, 0.1 * k, 0.2,
                0.5, 0.05 * k, 0.0, 0.1 * k + 0.1)
        for k in range(6)
    ]  # fmt: skip
    rate = Rate(0.9, 0.8, 0.95, 62)
    refusal = RefusalRecord(
        0.9, 0.1, Rate(0.3, 0.2, 0.4, 62), rate, rate, rate, rate, rate, "classifier:audit", 128, 0.0, 0.2,
        0.1, 0.3, Rate(0.6, 0.4, 0.8, 62), 0.001, Rate(0.02, -0.1, 0.1, 78), 0.8,
    )  # fmt: skip
    provenance = AuditProvenance(
        "0.1.0", "2026-01-01T00:00:00+00:00", "aligntax audit a b", "0" * 64, "1" * 64, None, "float32", "cpu", 0,
        "classifier:audit", "2" * 64, "the tokenizer's chat template", {"safety": "3" * 64}, {"harmful": 16}, 1000, 60.0,
        {"torch": "2"},
    )  # fmt: skip
    horizon = HorizonRecord(
        "aligned", [0, 1, 5, 20], [0.2, 0.5, 0.9, 1.0], [0.1] * 4, [1.0] * 4, 9.0, 5.0, 12.0, 2.0, True, 6, 16
    )
    return Audit(
        AUDIT_SCHEMA, "base-model", "out/aligned/model", "quick", refusal, 0.1, _kl("aligned"), _kl("forced"), recovery,
        [*attack, AttackRecord("base64", "greedy", 0, 0.5, 0.3, 0.7, 0.4, 0.2, 0.6, 0.2, 0.1, 16, 0, 0, 128)], horizon, tax,
        Forecast(0.6, 0.1, 0.9, {"gradient norm": 0.4}, -0.2, 0.5, 6, "undecided"),
        [ShiftRecord(k, 0.1, 0.5, -0.2, 0.05, 0.15, 0.4, 0.6, -0.3, -0.1, 0.9, 0.8, 0.95, 0.4) for k in range(3)],
        [Phase("replies", 1.0, 100)], provenance, ["Intervals are wide."],
        late=LateRecord("undecided", 0.1, 0.05, 0.15, 0.01, -0.1, 0.1, 0.3, 0.05, 9, 16),
        depth=HeldDepth(0.8, 0.001, 5, 20, 16),
        representation=_representation(),
        efficiency=EfficiencyRecord(0.4, 0.2, 0.6, 3.0, 2.0, 4.0, 7.5, 0.3, 1, 16, "", [0.5, 1.0], [2.0, 1.0], [0.5, 1.0]),
        cells=_cells(),
        scores=[ScoreRecord(name, rate, rate, Rate(0.0, -0.1, 0.1, 62), 1.0, "by a rule") for name in ("helpful", "honest")],
        separation=SeparationRecord(
            Rate(0.6, 0.5, 0.7, 140), Rate(0.9, 0.85, 0.95, 140), Rate(0.05, 0.02, 0.12, 78), Rate(0.05, 0.02, 0.1, 78),
            Rate(0.85, 0.8, 0.9, 160),
        ),
        quality=[QualityRecord(name, 8, 64, 90.0, 0.0, 0.1, 0.0, 0.2, 0.8, 4.0, 0.3) for name in ("base", "aligned")],
    )  # fmt: skip


def _representation() -> RepresentationRecord:
    ends = [20.0, 22.0, 24.0]
    return RepresentationRecord(
        "the survey's direction", 1, [1, 2, 3, 5], [[0.0] * 4] * 3, [[0.5, -0.2, 0.1, None]] * 3, *([ends] * 6),
        16, "undecided", "the harm horizon was not measured",
    )  # fmt: skip


def _cells() -> CellsRecord:
    shares = {
        name: Rate(0.25, 0.1, 0.4, 28)
        for name in ("answered_right", "answered_wrong", "refused_right", "refused_wrong")
    }
    return CellsRecord(28, 0, 64, shares, shares, 7, 5, 1, 1, Rate(0.1, 0.0, 0.2, 28), 0.5)
