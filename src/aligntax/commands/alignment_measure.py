"""What the update was worth, by the survey: where it writes, and how near it came to the frontier (theory 7.2, 1.13).

Scored on prompts and items that neither training nor a protection nor the survey's gradients have seen: safety is the mean
log-odds, in nats, that a harmful prompt is refused, by the survey's refusal tokens; a capability its metric in the survey's format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from ..data import choose_distractors, load_contrast
from ..geometry import output_overlap
from ..models import text_config
from ..probing import Probe, Row, answer_metric, item_values, linear_layers, refusal_metric, sum_rows, tokens_of
from ..results import FrontierShare, UpdateOverlap, read_survey
from ..stats import Estimate
from ..stats.resample import t_quantile
from .alignment_frontier import GRADIENTS, TEXT_TOKENS, TEXTS, PriceMeter, layer_gradients
from .alignment_gather import Bench
from .alignment_texts import training_part
from .materials import Encoder, ItemRows
from .merge_front import used_items

ITEMS, PROMPTS, DISTRACTORS = 8, 48, 3


@dataclass(frozen=True)
class Ruler:
    """The model before training, as numbers: what is scored again after it."""

    survey: Path
    probe: Probe
    price: PriceMeter
    prompts: Sequence[Row]
    held_out: bool
    tasks: Mapping[str, ItemRows]
    refusal_ids: Sequence[int]
    safety: np.ndarray
    scores: Mapping[str, np.ndarray]
    starts: Mapping[str, torch.Tensor]

    def read(self, model: PreTrainedModel) -> tuple[list[UpdateOverlap], FrontierShare]:
        """Overlap of the update in every block, and its efficiency, from the model after training."""
        model.eval()
        probe = replace(self.probe, model=model)
        gained = self._refusal(probe) - self.safety
        moved = {name: _values(probe, rows) - self.scores[name] for name, rows in self.tasks.items()}
        share = self.price.frontier.share(
            _mean(gained), {name: float(x.mean()) for name, x in moved.items()}, self.price.nats(model)
        )
        return self.overlaps(model), replace(share, held_out=self.held_out, prompts=len(gained))

    def _refusal(self, probe: Probe) -> np.ndarray:
        return item_values(probe, self.prompts, refusal_metric(self.refusal_ids))

    def overlaps(self, model: PreTrainedModel) -> list[UpdateOverlap]:
        """For each block that moved: what its matrices write into the residual stream, against the survey's directions there."""
        _, gradients = layer_gradients(self.survey)
        after = dict(model.named_parameters())
        found = []
        for layer, names in enumerate(residual_writers(model)):
            parts = [after[n].detach().float().cpu() - self.starts[n] for n in names if n in self.starts]
            update = (
                torch.cat([_upright(part, names[k], model) for k, part in enumerate(parts)], dim=1).double().numpy()
            )
            kept = {name: g[layer] for name, g in gradients.items() if np.any(g[layer])}
            if not np.any(update) or not kept:
                continue
            overlap = output_overlap(update, np.stack([*kept.values()]))
            squared = dict(zip(kept, overlap.squared.tolist(), strict=True))
            low, high = overlap.interval()
            safety = squared.pop("safety", None)
            found.append(
                UpdateOverlap(layer, overlap.rank, overlap.width, overlap.law.mean(), low, high, safety, squared)
            )
        return found


def measuring(bench: Bench) -> Ruler | None:
    """Score the model before training; None without a survey, or where its safety direction is no gradient and prices nothing."""
    if not bench.command.survey:
        return None
    folder = Path(bench.command.survey)
    survey = read_survey(folder)
    if survey.estimator not in GRADIENTS:
        return None
    probe, encoder = bench.probe, Encoder(bench.chat, bench.limit, 1, bench.command.seed)
    harmful, harmless, held_out = _unseen(bench)
    texts = bench.speaker.replies("texts", harmless[:TEXTS], TEXT_TOKENS)
    rows = [Row(t.ids, t.start, k) for k, t in enumerate(texts) if len(t.ids) > t.start]
    tasks = _unseen_items(bench, encoder, used_items(folder), survey.provenance.formats[0])
    prompts = encoder.prompts("prompts", harmful[:PROMPTS]).rows
    ids = [token.id for token in survey.refusal_tokens]
    total = 2 * tokens_of(rows) + tokens_of(prompts) + sum(task.tokens for task in tasks.values())
    with bench.meter.phase("before training", total):
        price = PriceMeter(probe, folder, rows, bench.command.seed)
        safety = item_values(probe, prompts, refusal_metric(ids))
        scores = {name: _values(probe, items) for name, items in tasks.items()}
    model = bench.loaded.model
    writers = {name for names in residual_writers(model) for name in names}
    starts = {n: p.detach().float().cpu().clone() for n, p in model.named_parameters() if n in writers}
    return Ruler(folder, probe, price, prompts, held_out, tasks, ids, safety, scores, starts)


def _unseen(bench: Bench) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Harmful and harmless prompts that training does not see; of a user's file there are none, and its own are taken."""
    contrast = load_contrast(bench.command.safety)
    if contrast.source.startswith("builtin:"):
        return training_part(contrast.positive, False), training_part(contrast.negative, False), True
    return contrast.positive, contrast.negative, False


def _unseen_items(bench: Bench, encoder: Encoder, used: Mapping[str, set[str]], fmt: str) -> dict[str, ItemRows]:
    """A few items of each task that neither the survey nor a protection has read; tasks with fewer than two are left out."""
    found = {}
    for task in bench.tasks:
        free = [i for i in task.items[bench.command.protect_items :] if i.key not in used.get(task.name, set())][
            -ITEMS:
        ]
        if len(free) >= 2:
            chosen = [choose_distractors(item, DISTRACTORS, bench.command.seed) for item in free]
            found[task.name] = encoder.items(task.name, chosen, fmt)
    return found


def _values(probe: Probe, items: ItemRows) -> np.ndarray:
    return sum_rows(items.rows, item_values(probe, items.rows, answer_metric), len(items.keys))


def _mean(values: np.ndarray, level: float = 0.9) -> Estimate:
    """Mean with its t interval over prompts."""
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    half = t_quantile(level, len(values) - 1) * error if len(values) > 1 else float("nan")
    return Estimate(float(values.mean()), float(values.mean()) - half, float(values.mean()) + half, error)


def residual_writers(model: PreTrainedModel) -> list[list[str]]:
    """Weights of each block whose output is added to the residual stream: the last matrix of width d in attention and in the MLP.

    By structure: of the matrices that one module holds, the last whose output has the width of the stream.
    """
    width = int(text_config(model).hidden_size)
    last: dict[str, str] = {}
    for name, part in linear_layers(model).items():
        shape = part.get_parameter("weight").shape
        out = shape[1] if type(part).__name__ == "Conv1D" else shape[0]
        if out == width:
            last[name.rpartition(".")[0]] = f"{name}.weight"
    blocks: dict[str, list[str]] = {}
    for parent, name in last.items():
        number = next(word for word in parent.split(".") if word.isdigit())
        blocks.setdefault(number, []).append(name)
    return [blocks[number] for number in sorted(blocks, key=int)]


def _upright(change: torch.Tensor, name: str, model: PreTrainedModel) -> torch.Tensor:
    """`(d_out, d_in)`: GPT-2 keeps its matrices the other way round."""
    turned = type(model.get_submodule(name.removesuffix(".weight"))).__name__ == "Conv1D"
    return change.T if turned else change
