"""What `aligntax predict` prints: the protocol before a run, and estimate, baselines and verdict after it."""

from rich.console import Console

from ..predictions import PROTOCOLS
from ..results import Bound, Prediction


def print_protocol(name: str) -> None:
    """What is tested, against what, and what will be called supported."""
    protocol, console = PROTOCOLS[name], Console()
    console.print(f"{name}: {protocol.statement}", markup=False, highlight=False)
    for title, text in (
        ("measure", protocol.measure),
        ("candidates", "; ".join(protocol.candidates)),
        ("baselines", "; ".join(protocol.baselines)),
        ("verdict", protocol.rule),
        ("at least", ", ".join(f"{count} {what}" for what, count in protocol.least) or "no least counts"),
        ("sha256", protocol.sha256),
    ):
        console.print(f"  {title}: {text}", markup=False, highlight=False)


def print_prediction(found: Prediction) -> None:
    """Estimate, baselines and verdict in a few lines."""
    console = Console()
    console.print(f"{found.prediction}: {found.statement}", markup=False, highlight=False)
    console.print(f"  {found.measure}", markup=False, highlight=False)
    rows = {"estimate": Bound(found.estimate, found.low, found.high), **found.baselines, "ahead by": found.ahead}
    for name, bound in rows.items():
        console.print(f"  {name:<24} {_text(bound)}", markup=False, highlight=False)
    counts = ", ".join(f"{count} {what}" for what, count in found.n.items())
    console.print(f"  {counts}", markup=False, highlight=False)
    console.print(f"Verdict: {found.verdict}. {found.reason}", markup=False, highlight=False)


def _text(bound: Bound) -> str:
    values = [None if v is None or v != v else f"{v:.2f}" for v in (bound.estimate, bound.low, bound.high)]
    return f"{values[0] or 'undefined'} [{values[1] or '?'}, {values[2] or '?'}]"


def next_step(found: Prediction) -> tuple[str, ...]:
    """What to type next: after `undecided` the plan of the same protocol, which says what a verdict needs, else the next one's."""
    name = found.prediction if found.verdict == "undecided" else f"P{int(found.prediction[1]) % 7 + 1}"
    return ("aligntax", "predict", name, "--plan")
