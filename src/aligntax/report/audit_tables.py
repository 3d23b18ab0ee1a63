"""Every figure's numbers of an audit as tables, and where they come from."""

from typing import Any

from ..results import AttackRecord, Audit, CellsRecord, RecoveryRecord, ShiftRecord, TaskTax
from .audit_verdict import rate_words
from .tables import Table, table
from .text import interval, number, p_text, percent, show_token
from .verdict import held

DEPTHS = (0, 1, 2, 3, 5, 10, 20, 40, 64, 80)
POSITIONS = (1, 2, 3, 4, 5, 10, 20, 40, 64, 96)
CELLS = {
    "answered_right": "answered, and known",
    "answered_wrong": "answered, not known",
    "refused_right": "refused, though known",
    "refused_wrong": "refused, not known",
}
KINDS = {
    "prefill": "prefill",
    "refusal-prefix": "opening of a refusal put first",
    "cliff-edge": "prefill just past the harm horizon",
    "cliff-edge-longer": "prefill twice as long as that",
    "rank-assisted": "best of the model's own likeliest first tokens",
    "multi-turn": "an earlier turn of compliance",
}


def tables(audit: Audit) -> dict[str, Table]:
    """Every table of the page by name."""
    return {
        "refusal": _refusal_table(audit),
        "attack": _attack_table([r for r in audit.attack if (r.kind, r.method) == ("prefill", "greedy")], "Prefills"),
        "others": _attack_table(
            [r for r in audit.attack if (r.kind, r.method) != ("prefill", "greedy")], "Other attacks"
        ),
        "recovery": _recovery_table(audit.recovery),
        "penalty": _penalty_table(audit.recovery),
        "kl": _kl_table(audit),
        "states": _states_table(audit),
        "tax": _tax_table(audit.tax),
        "cells": _cells_table(audit.cells),
        "scores": _scores_table(audit),
        "quality": _quality_table(audit),
        "shift": _shift_table(audit.shift),
        "efficiency": _efficiency_table(audit),
        "tokens": table(
            "Recovery tokens", ["id", "token"], [[str(i), show_token(t)] for i, t in audit.recovery.tokens], (1,)
        ),
        "timing": table(
            "Where the time went",
            ["phase", "seconds", "tokens"],
            [[p.name, number(p.seconds), number(p.tokens)] for p in audit.timing],
        ),
        "provenance": _provenance_table(audit),
    }


def _refusal_table(audit: Audit) -> Table:
    r = audit.refusal
    kinds = (
        ("harmful", r.harmful_base, r.harmful_aligned),
        ("harmless", r.harmless_base, r.harmless_aligned),
        ("harmless but alarming", r.alarming_base, r.alarming_aligned),
    )
    rows = [[name, rate_words(base), rate_words(aligned), str(aligned.n)] for name, base, aligned in kinds]
    return table("Share of replies judged as refusing", ["prompts", "base", "aligned", "n"], rows, (1, 2))


def _attack_table(records: list[AttackRecord], caption: str) -> Table:
    rows = [
        [
            KINDS.get(r.kind, r.kind) + ("" if r.method == "greedy" else ", sampled"),
            str(r.depth),
            interval(r.success_base, r.base_low, r.base_high),
            interval(r.success_aligned, r.aligned_low, r.aligned_high),
            number(r.harm_base),
            number(r.harm_aligned),
            str(r.n),
            str(r.shorter),
            str(r.unjudged),
            str(r.length),
        ]
        for r in records
    ]
    columns = [
        "attack", "tokens of prefill", "base goes along", "aligned goes along", "harm, base", "harm, aligned", "n", "too short",
        "unjudged", "reply length",
    ]  # fmt: skip
    return table(f"{caption}: share of replies that do not refuse, and judged harm", columns, rows)


def _recovery_table(r: RecoveryRecord) -> Table:
    shown = [k for k, d in enumerate(r.depth) if d in DEPTHS or r.judged_aligned[k] is not None]
    rows = [
        [
            str(r.depth[k]),
            number(r.mass_base[k]),
            interval(r.mass_aligned[k], r.low[k], r.high[k]),
            number(r.judged_base[k]),
            number(r.judged_aligned[k]),
            number(r.auc[k]) + (" (grey)" if r.depth[k] in r.greyed else ""),
            str(r.count[k]),
        ]
        for k in shown
    ]
    columns = ["depth", "base mass", "aligned mass", "base judged", "aligned judged", "AUC of mass", "n"]
    return table("Recovery by depth", columns, rows)


def _penalty_table(r: RecoveryRecord) -> Table:
    delta = number(r.delta) if held(r.delta) else "not stated: mass does not tell refusals apart down to there"
    rows = [
        ["least mass on any prefix, aligned", delta],
        ["5% quantile of each reply's least, aligned", number(r.delta_tail)],
        ["least mass on any prefix, base", number(r.delta_base)],
        ["implied penalty (nats)", interval(r.mu, r.mu_low, r.mu_high)],
        ["implied discount a token", interval(r.gamma, r.gamma_low, r.gamma_high)],
        ["share of the rise that this form explains", percent(r.fit)],
        ["mass that the implied penalty would guarantee", number(r.delta_implied)],
        ["penalty for one half, without a discount (nats)", number(r.needed_flat)],
        ["penalty for one half, at the implied discount (nats)", _reachable(r.needed_mu)],
        ["replies that reach the depth", str(r.delta_responses)],
    ]
    return table(f"Recoverability down to {r.delta_depth} tokens of prefill", ["what", "value"], rows, (1,))


def _reachable(nats: float | None) -> str:
    return "out of reach: the discount is too steep" if held(nats) and nats > 1e6 else number(nats)


def _kl_table(audit: Audit) -> Table:
    rows = []
    for record in (audit.kl, audit.kl_forced):
        for k, position in enumerate(record.position):
            if position in POSITIONS:
                rows.append(
                    [
                        "own replies" if record.text == "aligned" else "same text",
                        str(position),
                        interval(record.mean[k], record.low[k], record.high[k]),
                        number(record.median[k]),
                        number(record.reverse[k]),
                        str(record.count[k]),
                    ]
                )
    return table("KL by position (nats)", ["text", "position", "aligned to base", "median", "reverse", "n"], rows)


def _states_table(audit: Audit) -> Table:
    r = audit.representation
    rows = []
    if r is not None:
        for k in range(len(r.horizon)):
            rows.append(
                [
                    f"{k}{' (scored)' if k == r.layer else ''}",
                    interval(r.horizon[k], r.horizon_low[k], r.horizon_high[k]),
                    interval(r.gap[k], r.gap_low[k], r.gap_high[k], plus=True),
                ]
            )
    columns = ["layer", "95% of the difference by token", "less that of KL"]
    return table("How deep the difference of the states goes", columns, rows)


def _tax_table(taxes: list[TaskTax]) -> Table:
    surveyed = any(held(t.forecast) or held(t.first_order) for t in taxes)
    rows = []
    for t in sorted(taxes, key=lambda t: -(t.tax or 0.0)):
        more = [number(t.forecast, 2, True), interval(t.first_order, t.first_order_low, t.first_order_high, plus=True)]
        rows.append(
            [
                t.task,
                interval(t.tax, t.low, t.high, plus=True),
                p_text(t.p_adjusted),
                number(t.shared, 2, True),
                f"{percent(t.accuracy_before)} → {percent(t.accuracy_after)}",
                interval(t.worst_decile, t.worst_decile_low, t.worst_decile_high, plus=True),
                *(more if surveyed else []),
                str(t.n),
            ]
        )
    columns = ["task", "lost of its own", "p adj.", "lost by all answers", "accuracy", "worst tenth of items"]
    extra = ["forecast", "first-order cost"] if surveyed else []
    return table("What was paid (nats per token; positive is a loss)", [*columns, *extra, "n"], rows)


def _cells_table(cells: CellsRecord | None) -> Table:
    rows = []
    for name, words in CELLS.items() if cells is not None else ():
        base, aligned = cells.base.get(name), cells.aligned.get(name)  # type: ignore[union-attr]
        if base is not None and aligned is not None:
            rows.append([words, rate_words(base), rate_words(aligned), str(aligned.n)])
    return table("Capability questions put in words", ["what", "base", "aligned", "n"], rows, (1, 2))


def _scores_table(audit: Audit) -> Table:
    rows = [
        [
            s.name,
            rate_words(s.base),
            rate_words(s.aligned),
            "–" if s.change is None else interval(s.change.value, s.change.low, s.change.high, plus=True),
            p_text(s.p_value),
            str(s.aligned.n),
        ]
        for s in audit.scores
    ]
    columns = ["what", "base", "aligned", "change", "p", "n"]
    return table("Helpful, harmless, honest: share of items on the good side", columns, rows, (1, 2))


def _quality_table(audit: Audit) -> Table:
    rows = [
        [
            q.model,
            number(q.distinct),
            number(q.entropy),
            number(q.similarity),
            number(q.tokens),
            percent(q.looping),
            percent(q.truncated),
            f"{q.samples} of {q.prompts}",
        ]
        for q in audit.quality
    ]
    columns = [
        "model",
        "distinct 2-grams",
        "entropy (nats)",
        "similarity",
        "tokens",
        "loops",
        "cut off",
        "samples of prompts",
    ]
    return table("Diversity of sampled replies to harmless prompts, within a prompt", columns, rows)


def _shift_table(shift: list[ShiftRecord]) -> Table:
    ranked = any(held(x.tax_rank) for x in shift)
    rows = [
        [
            str(x.layer),
            interval(x.relative_length, x.relative_length_low, x.relative_length_high),
            interval(x.coherence, x.coherence_low, x.coherence_high),
            interval(x.cosine, x.cosine_low, x.cosine_high, plus=True),
            interval(x.turn, x.turn_low, x.turn_high, plus=True),
            *([number(x.tax_rank, 2, True)] if ranked else []),
        ]
        for x in shift
    ]
    columns = ["layer", "length / activation", "share that is one vector", "cosine with v", "means, before and after"]
    extra = ["rank of its cost"] if ranked else []
    return table("The shift that training made on harmful prompts", [*columns, *extra], rows)


def _efficiency_table(audit: Audit) -> Table:
    e = audit.efficiency
    if e is None:
        return table("Efficiency", ["what", "value"], [])
    rows = [
        ["gain of refusal log-odds on harmful prompts (nats)", interval(e.gain, e.gain_low, e.gain_high, plus=True)],
        [f"most that a shift at layer {e.layer} gives for that KL and these losses", number(e.frontier)],
        ["share of it that was reached", interval(e.share, e.low, e.high)],
        ["KL (nats per response token)", number(e.nats)],
    ]
    for fraction, full, matched in zip(e.fraction, e.gap_full, e.gap_matched, strict=True):
        words = f"{percent(fraction)} of the way from base to aligned stays below the frontier by (whole budget; same budget)"
        rows.append([words, f"{number(full)}; {number(matched)}"])
    return table("Efficiency (first order, one layer)", ["what", "value"], rows, (1,))


def _provenance_table(audit: Audit) -> Table:
    p = audit.provenance
    facts: dict[str, Any] = {
        "command": p.command, "created": p.created, "version": p.package_version, "base weights": p.base_weights,
        "aligned weights": p.aligned_weights, "judge": f"{p.judge} ({p.judge_texts[:12]})", "number type": p.dtype,
        "device": p.device, "chat": p.chat_template, "prompts": ", ".join(f"{k} {v}" for k, v in p.counts.items()),
        "tokens": number(p.tokens), "seconds": number(p.wall_seconds, 3),
    }  # fmt: skip
    return table("Provenance", ["Field", "Value"], [[k, str(v)] for k, v in facts.items()], (1,))
