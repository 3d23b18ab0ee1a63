"""`--plan`: tokens, memory and time of every phase, from encoded rows alone. No pass through the model is made.

Time is `2 x parameters` multiply-adds a token for a forward pass and twice that with an activation-only backward pass, at the
speed of one matrix product measured here, times an efficiency typical of small batches.
"""

import time
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from ..models import LoadedModel, decoder_blocks, text_config
from .materials import Materials
from .sizes import Size

EFFICIENCY = 0.35


@dataclass(frozen=True)
class PlannedPhase:
    """Tokens of a phase and how many forward-pass equivalents each costs."""

    name: str
    tokens: int
    passes: float


def planned(materials: Materials, size: Size) -> list[PlannedPhase]:
    """Every phase with its tokens."""
    texts = sum(len(ids) + size.reply_tokens for ids in materials.texts)
    tasks = sum(t.gradient.tokens for t in (*materials.tasks, *materials.other_formats))
    held = sum(t.heldout.tokens for t in materials.tasks)
    mean = tasks / max(sum(len(t.gradient.rows) for t in materials.tasks), 1)
    prompts = sum(len(row.ids) for row in (*materials.selection, *materials.final))
    over = materials.over_refusal.tokens if materials.over_refusal else 0
    main = materials.main
    return [
        PlannedPhase("replies", texts, 1.5),
        PlannedPhase("safety gradients", sum(o.positive.tokens for o in materials.objectives) + over, 2),
        PlannedPhase("activations", main.positive.tokens + main.negative.tokens + over, 1),
        PlannedPhase("capability gradients", tasks, 2),
        PlannedPhase("control tasks", int(size.controls * size.control_items * mean * 0.6), 1),
        PlannedPhase("Fisher information", texts * size.draws, 1.2),
        PlannedPhase("layer selection", (size.candidates + 2) * (3 * texts + prompts), 1),
        PlannedPhase("linearity check", (2 * len(size.budgets) + 1) * held + 4 * len(size.budgets) * texts, 1),
    ]


def flops_per_second(device: torch.device) -> float:
    """Speed of one float32 matrix product on `device`."""
    n = 1024
    a = torch.randn(n, n, device=device)
    a @ a
    began = time.perf_counter()
    for _ in range(4):
        a @ a
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 4 * 2 * n**3 / (time.perf_counter() - began)


def print_plan(materials: Materials, loaded: LoadedModel, size: Size) -> None:
    """Print the table to standard output."""
    parameters = sum(p.numel() for p in loaded.model.parameters())
    weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    speed = flops_per_second(loaded.device) * EFFICIENCY
    layers, d = len(decoder_blocks(loaded.model)), int(text_config(loaded.model).hidden_size)
    groups = int(materials.main.positive.groups.max()) + 1
    sums = 8 * groups * layers * d * (len(materials.tasks) + size.controls + 2)
    table = Table(title=f"Plan: {loaded.name}, size {size.name}")
    for column in ("phase", "tokens", "time"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    total = 0.0
    for phase in planned(materials, size):
        seconds = phase.tokens * phase.passes * 2 * parameters / speed
        total += seconds
        table.add_row(phase.name, f"{phase.tokens:,}", f"{seconds:,.0f} s")
    table.add_section()
    table.add_row("all", f"{sum(p.tokens for p in planned(materials, size)):,}", f"{total:,.0f} s")
    console = Console()
    console.print(table)
    console.print(
        f"memory: weights {weights / 2**30:.2f} GiB + statistics {sums / 2**30:.2f} GiB + one batch. Nothing was started."
    )
