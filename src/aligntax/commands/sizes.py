"""Named sizes: how much of everything a survey uses. The result and the report state the name."""

from dataclasses import dataclass

from ..errors import AligntaxError


@dataclass(frozen=True)
class Size:
    """Counts of one size; `None` means all there are.

    items: gradient items a task; heldout: items a task that only score the linearity check; distractors: at most so many
    a choice item; prompts: harmful prompts for direction, selection and final numbers; texts, reply_tokens, draws: model
    replies for KL and Fisher, their longest length, and Fisher draws a text; controls and control_items: control tasks and
    prompts of each; candidates: layers tried at measured KL; budgets: nats per response token of the linearity check.
    """

    name: str
    items: int | None
    heldout: int
    distractors: int
    prompts: tuple[int, int, int]
    over_refusal: int
    texts: int
    reply_tokens: int
    draws: int
    controls: int
    control_items: int
    candidates: int
    budgets: tuple[float, ...]


SIZES = {
    "demo": Size("demo", 16, 8, 1, (24, 8, 8), 16, 8, 16, 2, 64, 8, 2, (0.01, 0.1)),
    "quick": Size("quick", 32, 16, 1, (48, 16, 16), 16, 12, 24, 3, 64, 16, 3, (0.01, 0.1, 1.0)),
    "full": Size("full", None, 32, 3, (96, 32, 32), 48, 24, 48, 6, 128, 24, 8, (0.001, 0.004, 0.016, 0.063, 0.25, 1.0)),
}


def size_named(name: str) -> Size:
    """The size called `name`. Raises AligntaxError for another word."""
    if name not in SIZES:
        raise AligntaxError(f"unknown --size {name!r}; choose one of {', '.join(SIZES)}")
    return SIZES[name]
