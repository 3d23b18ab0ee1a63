"""`survey --plan`: tokens, memory and time of every phase, from encoded rows alone. No pass through the model is made."""

from ..models import LoadedModel, decoder_blocks, text_config
from .materials import Materials
from .plan_table import PlannedPhase, gib, show_plan
from .sizes import Size


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
