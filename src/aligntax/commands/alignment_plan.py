"""`aligntax align --plan`: tokens, memory and time of every phase. The model is loaded and asked nothing.

A forward pass costs 2 multiply-adds a weight and token, a step with gradients three times that; adapters save the weight
gradients, a third of it. What the model will say is not known, so its replies count at their greatest length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..data import ChatFormat, Encoded
from ..models import LoadedModel
from ..probing import Meter, linear_layers, tokens_of
from ..training.positions import KL_ROWS, KL_TOKENS
from .alignment_frontier import DRAWS, TEXT_TOKENS, TEXTS
from .alignment_gather import Bench, capability
from .alignment_measure import ITEMS, PROMPTS
from .alignment_reads import hears_harm, steps_of_a_run
from .alignment_rows import HARMFUL_TOKENS, encoded_reply
from .launch import processes
from .plan_table import PlannedPhase, gib, show_plan
from .protections import LOSS_BATCHES, LOSS_ROWS

if TYPE_CHECKING:
    from .align import AlignCommand

FULL, LOW_RANK = 4.0, 3.0
"""Forward passes that a step takes as long as, a token: with the gradients of all weights, of adapters alone; both as measured."""
REDRAWN = 0.4
"""Share of prompts whose greedy reply is drawn again, as measured on the embedded model."""
TERM_ROWS = 4
"""Rows a step of each added loss term."""


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a row by use."""

    prompt: float
    refusal: float
    capability: float

    @classmethod
    def of(cls, bench: Bench, rows: Sequence[Encoded]) -> Lengths:
        """Encoded here; nothing is run."""
        chat, harmful = bench.chat, bench.requests.harmful
        written = [encoded_reply(chat, p, t) for p, t in zip(harmful, bench.requests.refusals(), strict=True)]
        return cls(
            _mean([row.start for row in written]),
            _mean([len(r.ids) for r in written]),
            _mean([len(r.ids) for r in rows]),
        )


def phases(bench: Bench, names: Sequence[str]) -> list[PlannedPhase]:
    """Every phase of the run with its tokens."""
    command, requests = bench.command, bench.requests
    rows, scored = capability(bench)
    length = Lengths.of(bench, rows)
    anchors = len(requests.harmless) + len(requests.alarming)
    asked = sum(p not in requests.replies for p in (*requests.harmless, *requests.alarming))
    answer = length.prompt + command.completion_tokens
    texts, harmful = tokens_of(rows), len(requests.harmful) * (length.prompt + HARMFUL_TOKENS)
    said = (1 + REDRAWN * (command.draws - 1)) * (asked * answer + harmful * hears_harm(command))
    found = [PlannedPhase("own replies", int(said), 1.5)]
    if "nullspace" in names:
        found.append(PlannedPhase("protected inputs", int(texts + anchors * answer), 1))
    if read := _reference(command, names, (texts, len(rows)), (anchors * answer, anchors), harmful):
        found.append(PlannedPhase("reference", int(read), 1))
    if command.survey:
        read = TEXTS * (length.prompt + TEXT_TOKENS) * (1.5 + DRAWS) + PROMPTS * length.prompt
        found.append(PlannedPhase("before and after", int(2 * (read + len(scored) * ITEMS * 2 * length.capability)), 1))
    if command.tax_every:
        times = 2 + command.steps // command.tax_every
        items = sum(tokens_of(item.rows) for own in scored.values() for item in own)
        found.append(PlannedPhase("tax while training", times * items, 1))
    if command.kl_every and command.method != "reward":
        row = length.prompt + min(KL_TOKENS, command.completion_tokens)
        found.append(PlannedPhase("KL by position", int((2 + command.steps // command.kl_every) * KL_ROWS * row), 1))
    return [*found, *_training(command, names, length, answer)]


def _reference(
    command: AlignCommand, names: Sequence[str], texts: tuple[float, int], anchors: tuple[float, int], harmful: float
) -> float:
    """Tokens read before the first step, of texts and anchors as (tokens, rows): those held by KL as far as they will be drawn."""
    drawn = (steps_of_a_run(command) or 2**40) * TERM_ROWS
    (every, count), (own, few) = (texts[0] + anchors[0], texts[1] + anchors[1]), anchors
    found = every * min(1.0, drawn / count) if "kl" in names else 0.0
    found += every if "directions" in names else 0.0
    return found + (harmful + own * min(1.0, drawn / few) if command.depth == "recovery" else 0.0)


def _training(command: AlignCommand, names: Sequence[str], length: Lengths, answer: float) -> list[PlannedPhase]:
    passes = LOW_RANK if command.lora else FULL
    row = command.anchor_share * answer + (1 - command.anchor_share) * length.refusal
    tokens, cost = command.steps * command.batch * row, passes
    if command.method in ("dpo", "reward"):
        tokens *= 2
    if command.method in ("rloo", "grpo"):
        tokens, cost = command.steps * command.batch * answer, passes + 2.5
    found = [PlannedPhase("training", int(tokens), cost)]
    terms = sum(name in names for name in ("kl", "directions"))
    if terms:
        found.append(PlannedPhase("held texts", int(terms * command.steps * TERM_ROWS * length.capability), passes))
    if command.depth == "recovery":
        depth = TERM_ROWS * (2 * (length.prompt + HARMFUL_TOKENS) + answer)
        found.append(PlannedPhase("recovery", int(command.steps * depth), passes))
    if "gradient" in names:
        renewals = -(-command.steps // command.renew_every)
        found.append(
            PlannedPhase("capability losses", int(renewals * LOSS_BATCHES * LOSS_ROWS * length.capability), passes)
        )
    return found


def memory(bench: Bench, names: Sequence[str]) -> dict[str, float]:
    """Bytes by part on each process, activations of a batch left out: float32 weights, gradients, optimizer, protections."""
    command, model = bench.command, bench.loaded.model
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    shapes = {name: tuple(part.get_parameter("weight").shape) for name, part in linear_layers(model).items()}
    whole = sum(a * b for a, b in shapes.values())
    trained = sum(command.lora_rank * (a + b) for a, b in shapes.values()) if command.lora else whole
    found = {"weights": float(weights), "gradients and optimizer": 12.0 * trained}
    if "nullspace" in names:
        # Of the protected and the free directions the fewer are kept; layers that read the same share them.
        inputs = {(name.rpartition(".")[0], shape[1]): shape[1] for name, shape in shapes.items()}
        found["null space at most"] = sum(2.0 * d * d for d in inputs.values()) + (0 if command.lora else 4.0 * whole)
    if "gradient" in names:
        found["capability gradients"] = 4.0 * trained * (LOSS_BATCHES + 1)
    return found


def print_plan(command: AlignCommand, loaded: LoadedModel, chat: ChatFormat, names: Sequence[str]) -> None:
    """Print the table to standard output; nothing is started."""
    bench = Bench(command, loaded, chat, Meter(True))
    parameters = sum(p.numel() for p in loaded.model.parameters())
    parts = " + ".join(f"{name} {gib(size)}" for name, size in memory(bench, names).items())
    count = f" on each of {processes()} processes" if processes() > 1 else ""
    title = f"Plan: {loaded.name}, {command.method}, {command.steps} steps of {command.batch}"
    show_plan(title, phases(bench, names), parameters, loaded.device, [f"memory{count}: {parts} + one batch"])


def _mean(values: Sequence[int]) -> float:
    return sum(values) / max(1, len(values))
