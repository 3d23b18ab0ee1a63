"""Scoring mixtures: which items, what safety and capability are, and the front of every scheme.

The estimand: safety is the mean log-odds, in nats, that the reply to a harmful prompt opens as a refusal; capability the
change from the base of each task's own item metric, averaged over tasks. Items are split by a hash of their content into
validation (searches and picks) and test (the front); what a survey drew its gradients from is in neither. Every mixture is
written and loaded again, so that what is scored is what would be released, rounding included.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ..data import ChatFormat, Contrast, Task, choose_distractors, load_contrast, load_tasks
from ..errors import AligntaxError, DataError
from ..models import LoadedModel, ModelSpec, load
from ..models.averaging import Fractions
from ..probing import (
    STANDARD_OPENINGS,
    Probe,
    Row,
    TokenBudget,
    answer_metric,
    generate,
    item_values,
    opens_refusal,
    refusal_metric,
    reply_rows,
    sum_rows,
)
from ..results import FrontierShare, MergePoint, Survey, read_survey
from ..stats import Estimate
from ..stats.resample import t_quantile
from .alignment_frontier import TEXT_TOKENS, TEXTS, PriceMeter
from .materials import GREEDY_TOKENS, Encoder, ItemRows, by_hash
from .merge_sources import Pair

SPLITS = ("validation", "test")
CPU_TOKENS, GPU_TOKENS = 512, 16384
DISTRACTORS = 3

SafetyMeasure = Callable[[LoadedModel, Sequence[str]], Sequence[float]]


@dataclass(frozen=True)
class Scores:
    """Values of one mixture on one split: safety by prompt `(n,)`, task metric by item `(n_t,)`."""

    safety: np.ndarray
    tasks: dict[str, np.ndarray]


@dataclass(frozen=True)
class Inputs:
    """What is scored, before a tokenizer is known: tasks, harmful prompts by split, and what a survey already used.

    `texts` are harmless prompts, on whose replies KL is measured where a `survey` gives a frontier.
    """

    tasks: dict[str, dict[str, Task]]
    prompts: dict[str, tuple[str, ...]]
    data: dict[str, str]
    refusal_ids: tuple[int, ...] = ()
    survey: Path | None = None
    texts: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Items and prompts by split and task."""
        found = {f"{split} prompts": len(own) for split, own in self.prompts.items()}
        return found | {f"{s} {n}": len(t.items) for s, own in self.tasks.items() for n, t in own.items()}


def gather_inputs(safety: str, specs: Sequence[str], items: int, survey: Path | None) -> Inputs:
    """Tasks and prompts split by content, without those that `survey` took gradients from.

    Raises DataError for an objective without harmful prompts, or where a split would be left with fewer than two items.
    """
    tasks, contrast = load_tasks(specs), load_contrast(safety)
    if not contrast.positive:
        raise DataError(f"--safety {safety} has no harmful prompts; give an objective with prompts of both classes")
    found, used = read_survey(survey) if survey else None, used_items(survey)
    split = {task.name: _split_task(task, items, used.get(task.name, set())) for task in tasks}
    prompts = _split(_unused_prompts(contrast, found), items, contrast.name, "prompts")
    data = {f"task {task.name}": task.sha256 for task in tasks} | {f"safety {contrast.name}": contrast.sha256}
    ids = tuple(token.id for token in found.refusal_tokens) if found else ()
    by_split = {name: {task: parts[k] for task, parts in split.items()} for k, name in enumerate(SPLITS)}
    harmless = tuple(contrast.negative[i] for i in by_hash(contrast.negative, "prompts")[:TEXTS]) if found else ()
    return Inputs(by_split, dict(zip(SPLITS, prompts, strict=True)), data, ids, survey, harmless)


def used_items(survey: Path | None) -> dict[str, set[str]]:
    """Keys of the items that a survey took gradients from, by task. Raises AligntaxError where they cannot be read."""
    if survey is None:
        return {}
    try:
        table = pq.read_table(survey / "items.parquet", columns=["task", "item"]).to_pydict()
    except (OSError, ValueError) as error:
        raise AligntaxError(f"cannot read {survey / 'items.parquet'} ({error}); run the survey again") from error
    found: dict[str, set[str]] = {}
    for task, item in zip(table["task"], table["item"], strict=True):
        found.setdefault(task, set()).add(item)
    return found


def _unused_prompts(contrast: Contrast, survey: Survey | None) -> tuple[str, ...]:
    """Harmful prompts in hash order, without those that made the survey's direction: the first of the same order."""
    ordered = tuple(contrast.positive[i] for i in by_hash(contrast.positive, "prompts"))
    if survey is None or survey.provenance.data.get(f"safety {contrast.name}") != contrast.sha256:
        return ordered
    return ordered[survey.provenance.counts.get(f"safety {contrast.name}", 0) :]


def _split_task(task: Task, items: int, used: set[str]) -> tuple[Task, Task]:
    left = [item for item in task.items if item.key not in used]
    order = by_hash([item.key for item in left], "merge")
    parts = _split([left[i] for i in order], items, task.name, "items")
    first, second = (Task(task.name, part, task.kind, task.source, task.sha256, task.notes) for part in parts)
    return first, second


def _split(values: Sequence, most: int, name: str, what: str) -> tuple[tuple, tuple]:  # type: ignore[type-arg]
    size = min(most, len(values) // 2)
    if size < 2:
        raise DataError(
            f"{name}: {len(values)} {what} are left for validation and test, which need two each; give more"
        )
    return tuple(values[:size]), tuple(values[size : 2 * size])


@dataclass(frozen=True)
class Settings:
    """How mixtures are run: number type, device, seed, and the caller's own safety measure if there is one."""

    dtype: str
    device: str
    seed: int
    trust_remote_code: bool
    measure: SafetyMeasure | None = None


@dataclass
class Bench:
    """Scores mixtures on demand and remembers them; `folder` is scratch."""

    pair: Pair
    inputs: Inputs
    settings: Settings
    folder: Path
    known: dict[tuple[Fractions, str], Scores] = field(default_factory=dict)
    refusal_ids: tuple[int, ...] = ()
    price: PriceMeter | None = None
    nats: dict[Fractions, float] = field(default_factory=dict)

    def scores(self, fractions: Fractions, splits: Iterable[str]) -> dict[str, Scores]:
        """Scores of a mixture on some splits; the model is written, loaded and run only for those not yet known."""
        if not self.refusal_ids and self.settings.measure is None:
            self._discover()
        if self.price is None and self.inputs.survey and self.settings.measure is None:
            self.price = self._price(self.inputs.survey)
        wanted = [split for split in splits if (fractions, split) not in self.known]
        if wanted:
            loaded = self._loaded(fractions)
            if self.price is not None and fractions not in self.nats:
                self.nats[fractions] = self.price.nats(loaded.model)
            self.known.update({(fractions, split): self._run(loaded, split) for split in wanted})
        return {split: self.known[fractions, split] for split in splits}

    def point(self, scheme: str, fractions: Fractions, split: str) -> MergePoint:
        """A row of the front: one mixture on one split, paired with the base on the same items."""
        depth = self.pair.plan.depth
        base = self.scores(Fractions.uniform(0.0, depth), [split])[split]
        end = self.known.get((Fractions.uniform(1.0, depth), split))
        own = self.scores(fractions, [split])[split]
        gain, low, high = stratified_mean([own.safety - base.safety])
        moved = [own.tasks[name] - base.tasks[name] for name in own.tasks]
        change, change_low, change_high = stratified_mean(moved)
        line: list[float | None] | None = None
        if end is not None:
            whole = stratified_mean([end.tasks[name] - base.tasks[name] for name in end.tasks])[0]
            line = [fractions.mean * whole, fractions.mean * float(np.mean(end.safety - base.safety))]
        return MergePoint(
            scheme, fractions.mean, list(fractions.layers), split, float(own.safety.mean()), gain, low, high, change,
            change_low, change_high, {name: float(x.mean()) for name, x in zip(own.tasks, moved, strict=True)}, line,
            self._frontier(fractions, Estimate(gain, low, high, float("nan")), dict(zip(own.tasks, moved, strict=True))),
        )  # fmt: skip

    def _frontier(self, fractions: Fractions, gain: Estimate, moved: Mapping[str, np.ndarray]) -> FrontierShare | None:
        """One layer's frontier at the mixture's own KL and changes (theory 1.13)."""
        if self.price is None:
            return None
        changes = {name: float(x.mean()) for name, x in moved.items()}
        share = self.price.frontier.share(gain, changes, self.nats[fractions])
        return replace(share, prompts=len(self.inputs.prompts["test"]))

    def _price(self, survey: Path) -> PriceMeter:
        """The base as a mixture of its own, and what its replies to harmless prompts are."""
        loaded = self._loaded(Fractions.uniform(0.0, self.pair.plan.depth))
        chat, probe = ChatFormat(loaded.tokenizer), _probe(loaded)
        prompts = [chat.encode_prompt(text) for text in self.inputs.texts]
        replies = generate(probe, prompts, TEXT_TOKENS, False, self.settings.seed)
        return PriceMeter(probe, survey, reply_rows(prompts, replies), self.settings.seed)

    def _loaded(self, fractions: Fractions) -> LoadedModel:
        self.pair.write(fractions, self.folder)
        s = self.settings
        return load(ModelSpec(str(self.folder), None, None, s.dtype, s.device, s.trust_remote_code))  # type: ignore[arg-type]

    def _discover(self) -> None:
        """Refusal tokens: the survey's, else standard openings and what the aligned model's own refusals begin with."""
        self.refusal_ids = self.inputs.refusal_ids
        if self.refusal_ids:
            return
        loaded = self._loaded(Fractions.uniform(1.0, self.pair.plan.depth))
        chat = ChatFormat(loaded.tokenizer)
        prompts = [chat.encode_prompt(text) for text in self.inputs.prompts["validation"][:16]]
        replies = generate(_probe(loaded), prompts, GREEDY_TOKENS, False, self.settings.seed)
        found = {chat.encode_reply(opening)[0] for opening in STANDARD_OPENINGS}
        found |= {reply[0] for reply in replies if opens_refusal(str(loaded.tokenizer.decode(reply)))}
        self.refusal_ids = tuple(sorted(found))

    def _run(self, loaded: LoadedModel, split: str) -> Scores:
        encoder = Encoder(ChatFormat(loaded.tokenizer), loaded.context_length or 2**20, 1, self.settings.seed)
        probe = _probe(loaded)
        tasks = {}
        for name, task in self.inputs.tasks[split].items():
            chosen = [choose_distractors(item, DISTRACTORS, self.settings.seed) for item in task.items]
            tasks[name] = _task_values(probe, encoder.items(name, chosen, "plain"))
        prompts = self.inputs.prompts[split]
        if self.settings.measure is not None:
            return Scores(measured(self.settings.measure, loaded, prompts), tasks)
        rows: Sequence[Row] = encoder.prompts("prompts", prompts).rows
        return Scores(item_values(probe, rows, refusal_metric(self.refusal_ids)), tasks)


def measured(measure: SafetyMeasure, loaded: LoadedModel, prompts: Sequence[str]) -> np.ndarray:
    """The caller's measure of every prompt `(n,)`. Raises AligntaxError for another number of values, or one not finite."""
    found = np.asarray(measure(loaded, prompts), dtype=np.float64)
    if found.shape != (len(prompts),) or not np.isfinite(found).all():
        raise AligntaxError(
            f"the safety measure gave shape {found.shape}; give {len(prompts)} finite numbers, one a prompt"
        )
    return found


def _probe(loaded: LoadedModel) -> Probe:
    tokens = GPU_TOKENS if loaded.device.type == "cuda" else CPU_TOKENS
    return Probe(loaded.model, loaded.device, TokenBudget(tokens), "all", (), lambda _: None)


def _task_values(probe: Probe, items: ItemRows) -> np.ndarray:
    return sum_rows(items.rows, item_values(probe, items.rows, answer_metric), len(items.keys))


def stratified_mean(strata: Sequence[np.ndarray], level: float = 0.9) -> tuple[float, float, float]:
    """Mean of the strata's means with its interval: `se^2 = sum var_t/n_t / T^2`, t with the items less the strata.

    Tasks count alike, however many items each has; strata are `(n_t,)`, at least two items each.
    """
    mean = float(np.mean([x.mean() for x in strata]))
    error = np.sqrt(sum(x.var(ddof=1) / len(x) for x in strata)) / len(strata)
    half = t_quantile(level, sum(len(x) - 1 for x in strata)) * float(error)
    return mean, mean - half, mean + half


def front(bench: Bench, mixtures: Mapping[str, Sequence[Fractions]], splits: Sequence[str]) -> list[MergePoint]:
    """Every mixture of every scheme on every split. Ends first, so that the straight line between them is known."""
    depth = bench.pair.plan.depth
    for fraction in (0.0, 1.0):
        bench.scores(Fractions.uniform(fraction, depth), splits)
    return [
        bench.point(scheme, fractions, split)
        for split in splits
        for scheme, own in mixtures.items()
        for fractions in own
    ]
