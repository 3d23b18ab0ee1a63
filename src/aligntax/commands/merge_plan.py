"""`aligntax merge --plan`: how many mixtures, what is read and written, and what scoring them takes. No model is loaded."""

import math
from dataclasses import dataclass

import torch
from transformers import AutoTokenizer

from ..data import ChatFormat, choose_distractors
from ..errors import AligntaxError
from ..models.checkpoint import one_line
from .alignment_frontier import DRAWS, TEXT_TOKENS
from .materials import Encoder
from .merge_front import DISTRACTORS, Inputs
from .merge_sources import Pair
from .plan_table import PlannedPhase, gib, show_plan

BYTES_PER_SECOND = 0.5e9
"""What a disk is taken to read and write; printed beside the time."""


@dataclass(frozen=True)
class Asked:
    """What a merge will score: `points` mean fractions, an `own` scheme at each inner one or a `single` mixture of its own,
    `searched` mixtures at most before that, on so many `splits`.
    """

    points: int
    own: bool
    single: bool
    searched: int
    splits: int

    @property
    def mixtures(self) -> int:
        """Mixtures of the front: uniform, random and the scheme's own; a mean of its own adds one of each."""
        inner = self.points - 2 + self.single
        return 2 + inner * 2 + (self.points - 2) * self.own + self.single


def phases(pair: Pair, inputs: Inputs | None, asked: Asked) -> list[PlannedPhase]:
    """Tokens of every phase; `passes` are forward passes of one mixture."""
    if inputs is None:
        return []
    tokens = scored_tokens(pair, inputs)
    found = [PlannedPhase("front", asked.mixtures * sum(tokens[-asked.splits :]), 1)]
    if asked.searched:
        found.insert(0, PlannedPhase("search, at most", asked.searched * tokens[0], 1))
    if inputs.survey:
        texts = len(inputs.texts) * TEXT_TOKENS
        found.append(PlannedPhase("frontier", texts * (2 + DRAWS + asked.mixtures), 1))
    return found


def scored_tokens(pair: Pair, inputs: Inputs) -> list[int]:
    """Tokens that one mixture is scored on in each split, validation first."""
    folder = pair.tokenizer_folders[0] if pair.tokenizer_folders else pair.config_folder
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise AligntaxError(f"cannot read a tokenizer in {folder} ({one_line(error)}); put one there") from error
    encoder = Encoder(ChatFormat(tokenizer), 2**20, 1, 0)
    found = []
    for split, tasks in inputs.tasks.items():
        rows = [
            encoder.items(name, [choose_distractors(i, DISTRACTORS, 0) for i in task.items], "plain").tokens
            for name, task in tasks.items()
        ]
        found.append(sum(rows) + encoder.prompts("prompts", inputs.prompts[split]).tokens)
    return found


def print_plan(pair: Pair, inputs: Inputs | None, asked: Asked, device: torch.device) -> None:
    """Print the table to standard output."""
    sizes = {name: pair.base.dtype(name).itemsize * math.prod(pair.base.shape(name)) for name in pair.plan.layer_of}
    weights = sum(math.prod(pair.base.shape(name)) for name in pair.plan.layer_of)
    written = 1 + (asked.mixtures + asked.searched if inputs else 0)
    moved = 3 * sum(sizes.values()) * written
    files = PlannedPhase(f"{written} mixtures, {gib(moved)}", None, seconds=moved / BYTES_PER_SECOND)
    scored = f"; {gib(sum(sizes.values()))} while a mixture is scored" if inputs else ""
    memory = f"memory: {gib(2 * max(sizes.values()))} while weights stream{scored}"
    title = f"Plan: {pair.identity[0].name} and {pair.identity[1].name}"
    notes = [f"{memory}. Time of files at {BYTES_PER_SECOND / 1e9:g} GB/s"]
    show_plan(title, [files, *phases(pair, inputs, asked)], weights, device, notes)
