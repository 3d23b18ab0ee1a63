"""`survey --plan`: tokens, memory and time of every phase, from encoded rows alone. No pass through the model is made."""

from collections.abc import Sequence

from ..models import LoadedModel, decoder_blocks, text_config
from ..probing import tokens_of
from .gather import FIRST_PROMPTS, control_rows, sink_rows
from .materials import GREEDY_TOKENS, Materials, TaskRows
from .plan_table import PlannedPhase, gib, show_plan
from .sizes import Size

RIVALS = 2
"""Estimators beside the surveyed one, whose best candidates are tried too."""
SOLVING = 3
"""Passes over the replies in which the shift of a wanted KL is found, on average."""


def reply_tokens(materials: Materials, size: Size) -> int:
    """Tokens of the harmless prompts with the longest replies."""
    return sum(len(ids) + size.reply_tokens for ids in materials.texts)


def opening_tokens(materials: Materials) -> int:
    """Tokens of the harmful prompts in whose replies refusal tokens are looked for."""
    return sum(len(row.ids) + GREEDY_TOKENS for row in materials.main.positive.rows[:FIRST_PROMPTS])


def control_tokens(tasks: Sequence[TaskRows], size: Size, groups: int) -> int:
    """Tokens of the control tasks: a prompt counts half for its forward pass and half for every answer's backward one."""
    return sum(sum(row.start for row in rows) * (1 + count) // 2 for rows, count in control_rows(tasks, size, groups))


def selection_tokens(materials: Materials, size: Size, texts: int) -> int:
    """About what the choice of the layer runs, the replies having `texts` tokens: candidates, rivals and the final numbers."""
    tried, prompts = size.candidates + RIVALS, tokens_of(materials.selection)
    solved = texts * (1 + SOLVING * (tried + 1))
    return solved + 2 * (tried * prompts + tokens_of(materials.final))


def linearity_tokens(materials: Materials, size: Size, texts: int) -> int:
    """About what the linearity check runs: two courses at every budget, the replies having `texts` tokens."""
    held, budgets = sum(t.heldout.tokens for t in materials.tasks), len(size.budgets)
    return 2 * (budgets + 1) * held + 2 * budgets * SOLVING * texts + (1 + budgets) * tokens_of(materials.final)


def planned(materials: Materials, size: Size) -> list[PlannedPhase]:
    """Every phase with its tokens."""
    texts = reply_tokens(materials, size)
    tasks = sum(t.gradient.tokens for t in (*materials.tasks, *materials.other_formats))
    groups = int(materials.main.positive.groups.max()) + 1
    over = materials.over_refusal.tokens if materials.over_refusal else 0
    main = materials.main
    return [
        PlannedPhase("attention sinks", tokens_of(sink_rows(materials)), 1),
        PlannedPhase("replies", texts + opening_tokens(materials), 1.5),
        PlannedPhase("safety gradients", sum(o.positive.tokens for o in materials.objectives) + over, 2),
        PlannedPhase("activations", main.positive.tokens + main.negative.tokens + over, 1),
        PlannedPhase("capability gradients", tasks, 2),
        PlannedPhase("control tasks", control_tokens(materials.tasks, size, groups), 2),
        PlannedPhase("Fisher information", texts * size.draws, 1.2),
        PlannedPhase("layer selection", selection_tokens(materials, size, texts), 1),
        PlannedPhase("linearity check", linearity_tokens(materials, size, texts), 1),
    ]


def print_plan(materials: Materials, loaded: LoadedModel, size: Size) -> None:
    """Print the table to standard output."""
    weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    layers, d = len(decoder_blocks(loaded.model)), int(text_config(loaded.model).hidden_size)
    groups = int(materials.main.positive.groups.max()) + 1
    sums = 8 * groups * layers * d * (len(materials.tasks) + size.controls + 2)
    parameters = sum(p.numel() for p in loaded.model.parameters())
    memory = f"memory: weights {gib(weights)} + statistics {gib(sums)} + one batch"
    title = f"Plan: {loaded.name}, size {size.name}"
    show_plan(title, planned(materials, size), parameters, loaded.device, [memory])
