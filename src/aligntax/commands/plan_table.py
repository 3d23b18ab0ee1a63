"""What every `--plan` prints: a row a phase with its tokens and its time, what they come to, and the memory it takes.

Time is `2 x parameters` multiply-adds a token for a forward pass and twice that with an activation-only backward pass, at the
speed of one matrix product measured here, times the share of it that these passes reach.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..report import strip_control

EFFICIENCY = {"cpu": 0.75, "cuda": 0.35}
"""On two idle cores a survey, a training run and an audit took .5 to 1.1 times as long as this says; on GPUs a guess."""
PRODUCTS = 8


@dataclass(frozen=True)
class PlannedPhase:
    """Tokens of a phase and how many forward-pass equivalents each costs; None and `seconds` where no model is run."""

    name: str
    tokens: int | None
    passes: float = 0.0
    seconds: float = 0.0


def flops_per_second(device: torch.device) -> float:
    """Speed of one float32 matrix product on `device`: the fastest of a few, since other work on the machine comes and goes."""
    n = 1024
    a = torch.randn(n, n, device=device)
    took = []
    for _ in range(1 + PRODUCTS):
        began = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    return float(2 * n**3 / min(took[1:]))


def gib(size: float) -> str:
    """Bytes in GiB."""
    return f"{size / 2**30:.2f} GiB"


def show_plan(
    title: str,
    phases: Sequence[PlannedPhase],
    parameters: int,
    device: torch.device,
    notes: Iterable[str],
    total: str = "all",
) -> None:
    """Print the table to standard output and `notes` below it, the memory last; `total` names the last row."""
    table = Table(title=Text(strip_control(title), style="table.title"))
    for column in ("phase", "tokens", "time"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    counted = [phase.tokens for phase in phases if phase.tokens is not None]
    reached = EFFICIENCY.get(device.type, EFFICIENCY["cuda"])
    cost = 2 * parameters / (flops_per_second(device) * reached) if any(counted) else 0.0
    seconds = [phase.seconds + (phase.tokens or 0) * phase.passes * cost for phase in phases]
    for phase, each in zip(phases, seconds, strict=True):
        table.add_row(Text(phase.name), "" if phase.tokens is None else f"{phase.tokens:,}", f"{each:,.0f} s")
    table.add_section()
    table.add_row(total, f"{sum(counted):,}" if counted else "", f"{sum(seconds):,.0f} s")
    console = Console()
    console.print(table)
    *above, last = notes
    for line in (*above, f"{last}. Nothing was started."):
        console.print(line, highlight=False, markup=False)
