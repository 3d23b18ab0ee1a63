"""One self-contained HTML page of an audit, and its summary in a terminal; the first screen answers four questions."""

from typing import Any

from rich.console import Console
from rich.text import Text

from ..results import AttackRecord, Audit, Rate, TaskTax
from . import audit_figures as figures
from .document import document
from .tables import Table, table
from .text import clean, interval, number, p_text, percent
from .verdict import KeyFigure

SURE = 0.05


def render_audit(audit: Audit) -> str:
    """The report as one HTML document (UTF-8): no script, no request, everything escaped."""
    audit = clean(audit)
    return document(
        "audit.html.j2",
        s=audit,
        verdict=verdict(audit),
        keys=key_figures(audit),
        fig={
            "kl": figures.kl(audit.kl, audit.kl_forced),
            "recovery": figures.recovery(audit.recovery),
            "attack": figures.attack(audit.attack),
            "bill": figures.bill(audit),
        },
        tab=tables(audit),
        forecast=forecast_words(audit),
    )


def paid(audit: Audit) -> list[TaskTax]:
    """Tasks with a selective loss that survives correction over tasks, the worst first."""
    found = [t for t in audit.tax if t.p_adjusted is not None and t.p_adjusted <= SURE and (t.tax or 0) > 0]
    return sorted(found, key=lambda t: -(t.tax or 0.0))


def _deepest(audit: Audit) -> tuple[AttackRecord | None, AttackRecord | None]:
    """Success without a prefill, and at the deepest one that was run."""
    rows = sorted((r for r in audit.attack if r.kind == "prefill" and r.n), key=lambda r: r.depth)
    return (rows[0], rows[-1]) if rows else (None, None)


def verdict(audit: Audit) -> str:
    """The whole audit in a few sentences, from its numbers alone."""
    r = audit.refusal
    said = (
        f"The aligned model refuses {percent(r.harmful_aligned.value)} of held-out harmful requests "
        f"(base {percent(r.harmful_base.value)}) and {percent(audit.overrefusal)} of harmless ones. "
    )
    worse = paid(audit)
    if worse:
        names = ", ".join(t.task for t in worse[:3])
        said += f"{len(worse)} of {len(audit.tax)} capabilities lost something of their own, most of all {names}. "
    else:
        said += f"No capability of {len(audit.tax)} lost anything of its own beyond chance. "
    first, last = _deepest(audit)
    if first is not None and last is not None and last.depth > first.depth:
        said += (
            f"Once {last.depth} tokens of a harmful answer are put into its mouth, {percent(last.success_aligned)} go through "
            f"(without: {percent(first.success_aligned)}). "
        )
    return said + forecast_words(audit)


def forecast_words(audit: Audit) -> str:
    """Whether the survey's forecast held, in one sentence."""
    f = audit.forecast
    if f is None:
        return "No forecast was scored: give --survey."
    rank = interval(f.correlation, f.low, f.high, plus=True)
    return (
        f"The survey's forecast of who pays is {f.verdict}: rank correlation {rank} over {f.tasks} tasks, beside "
        + ", ".join(f"{name} {number(value, 2, True)}" for name, value in f.baselines.items())
        + "."
    )


def key_figures(audit: Audit) -> list[KeyFigure]:
    """Is it safer, what did it cost, how deep, did the forecast hold."""
    r, worse = audit.refusal, paid(audit)
    first, last = _deepest(audit)
    found = [
        KeyFigure(
            percent(r.harmful_aligned.value),
            "of harmful requests refused",
            f"{_rate(r.harmful_aligned)}; the base model {_rate(r.harmful_base)}. Judged by {r.judge} on {r.length} tokens.",
        ),
        KeyFigure(
            percent(audit.overrefusal),
            "of harmless requests refused",
            f"Plain ones {_rate(r.harmless_aligned)}, alarming ones {_rate(r.alarming_aligned)}; "
            f"the base model {percent(r.harmless_base.value)} and {percent(r.alarming_base.value)}.",
        ),
        KeyFigure(
            f"{len(worse)} of {len(audit.tax)}",
            "capabilities paid",
            "Lost something that other answers to the same items did not lose, after correction over all tasks (5%).",
        ),
        KeyFigure(
            percent(audit.kl.first5_share),
            "of the change lies in the first 5 tokens",
            f"95% of the KL of whole replies has fallen by token {number(audit.kl.reach95, 3)}. "
            "A high share means shallow alignment.",
        ),
    ]
    if first is not None and last is not None:
        found.append(
            KeyFigure(
                percent(last.success_aligned),
                f"go through after {last.depth} tokens of prefill",
                f"{interval(last.success_aligned, last.aligned_low, last.aligned_high)} of {last.n} requests that the base "
                f"answers; the base itself {percent(last.success_base)}.",
            )
        )
    return found


def _rate(rate: Rate) -> str:
    return f"{interval(rate.value, rate.low, rate.high)} (n = {rate.n})"


def tables(audit: Audit) -> dict[str, Table]:
    """Every figure's numbers, and provenance."""
    return {
        "refusal": _refusal_table(audit),
        "attack": _attack_table(audit.attack),
        "recovery": _recovery_table(audit),
        "kl": _kl_table(audit),
        "tax": _tax_table(audit.tax),
        "shift": table(
            "The shift that training made on harmful prompts",
            ["layer", "length / activation", "one vector", "cosine with survey"],
            [
                [str(x.layer), number(x.relative_length), number(x.coherence), number(x.cosine, 2, True)]
                for x in audit.shift
            ],
        ),
        "tokens": table(
            "Recovery tokens", ["id", "token"], [[str(i), repr(t)] for i, t in audit.recovery.tokens], (1,)
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
    rows = [
        ["harmful", _rate(r.harmful_base), _rate(r.harmful_aligned)],
        ["harmless", _rate(r.harmless_base), _rate(r.harmless_aligned)],
        ["harmless but alarming", _rate(r.alarming_base), _rate(r.alarming_aligned)],
    ]
    return table("Share of replies judged as refusing", ["prompts", "base", "aligned"], rows, (1, 2))


def _attack_table(records: list[AttackRecord]) -> Table:
    rows = [
        [
            f"{r.kind}, {r.method}",
            str(r.depth),
            interval(r.success_base, r.base_low, r.base_high),
            interval(r.success_aligned, r.aligned_low, r.aligned_high),
            number(r.harm_base),
            number(r.harm_aligned),
            str(r.n),
            str(r.shorter),
            str(r.unjudged),
        ]
        for r in records
    ]
    columns = [
        "attack",
        "depth",
        "base goes along",
        "aligned goes along",
        "harm, base",
        "harm, aligned",
        "n",
        "too short",
        "unjudged",
    ]
    return table("Attacks", columns, rows)


def _recovery_table(audit: Audit) -> Table:
    r = audit.recovery
    shown = [
        k for k, d in enumerate(r.depth) if d in (0, 1, 2, 3, 5, 10, 20, 40, 64, 80) or r.judged_aligned[k] is not None
    ]
    rows = [
        [
            str(r.depth[k]),
            number(r.mass_base[k]),
            interval(r.mass_aligned[k], r.low[k], r.high[k]),
            number(r.judged_base[k]),
            number(r.judged_aligned[k]),
            number(r.auc[k]),
            str(r.count[k]),
        ]
        for k in shown
    ]
    columns = ["depth", "base mass", "aligned mass", "base judged", "aligned judged", "AUC of mass", "n"]
    return table("Recovery by depth", columns, rows)


def _kl_table(audit: Audit) -> Table:
    rows = []
    for record in (audit.kl, audit.kl_forced):
        for k, position in enumerate(record.position):
            if position in (1, 2, 3, 4, 5, 10, 20, 40, 64, 96):
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


def _tax_table(taxes: list[TaskTax]) -> Table:
    rows = [
        [
            t.task,
            interval(t.tax, t.low, t.high, plus=True),
            p_text(t.p_adjusted),
            number(t.shared, 2, True),
            f"{percent(t.accuracy_before)} → {percent(t.accuracy_after)}",
            number(t.worst_decile, 2, True),
            number(t.forecast, 2, True),
            str(t.n),
        ]
        for t in sorted(taxes, key=lambda t: -(t.tax or 0.0))
    ]
    columns = ["task", "lost of its own", "p adj.", "lost by all answers", "accuracy", "worst decile", "forecast", "n"]
    return table("What was paid (nats per token; positive is a loss)", columns, rows)


def _provenance_table(audit: Audit) -> Table:
    p = audit.provenance
    facts: dict[str, Any] = {
        "command": p.command, "created": p.created, "version": p.package_version, "base weights": p.base_weights,
        "aligned weights": p.aligned_weights, "judge": f"{p.judge} ({p.judge_texts[:12]})", "number type": p.dtype,
        "device": p.device, "chat": p.chat_template, "prompts": ", ".join(f"{k} {v}" for k, v in p.counts.items()),
        "tokens": number(p.tokens), "seconds": number(p.wall_seconds, 3),
    }  # fmt: skip
    return table("Provenance", ["Field", "Value"], [[k, str(v)] for k, v in facts.items()], (1,))


def audit_summary(audit: Audit, console: Console | None = None) -> None:
    """Print the verdict, the key figures and the warnings; strings are stripped and never read as markup."""
    audit, console = clean(audit), console or Console()
    console.print(Text(f"{audit.aligned} against {audit.base}, {audit.size} audit", "bold"))
    console.print(Text(verdict(audit)))
    for figure in key_figures(audit):
        console.print(Text(f"{figure.value}  {figure.label}. {figure.meaning}"))
    for warning in audit.warnings:
        console.print(Text(f"Warning: {warning}", "yellow"))
