"""One audit, phase by phase: what both models say, what they would say after every prefix, what they score, where their states lie.

Phases ask the shards for what a killed run has left. Nothing is decided here: numbers are made by the room `audit` and put into
records by the modules beside this one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..audit import Answer, Examinee, PairReading, RealisedShift, Request, make_requests, write_texts
from ..data import Encoded, Item, Task
from ..judging import Judge
from ..probing import Row, tokens_of
from ..results import (
    CellsRecord,
    EfficiencyRecord,
    HorizonRecord,
    KlRecord,
    QualityRecord,
    RecoveryRecord,
    RepresentationRecord,
    ScoreRecord,
    Survey,
)
from .alignment_texts import recovery_tokens
from .audit_bearings import LAST, Bearings, difference, projected, states_of, surveyed
from .audit_behaviour import Asked, Attacked, by_depth, examinee, handed, replies, run_attacks, went_along
from .audit_efficiency import efficiency_record, fisher_at, fisher_rows, refusal_gain
from .audit_forecast import nats_per_token
from .audit_gather import Pair, as_rows, audit_items, item_scores, item_tokens
from .audit_shift import States, representation_record, shift_on, turned
from .audit_sizes import LEAST_SAMPLED
from .audit_tables import Judged, Scores, kl_record, recovery_record
from .audit_words import (
    answer_items,
    cell_items,
    cells_record,
    draw_samples,
    preference_items,
    preference_scores,
    score_records,
)
from .materials import Encoder

MOST_DEPTH = 96
"""Tokens of a continuation at which recovery is read."""
SHIFT_ITEMS = 4
"""Items a task whose states give the first-order tax of the shift."""


@dataclass(frozen=True)
class Given:
    """What an audit is asked: prompts by kind, tasks, judge, the survey with its directions, and whether to run every attack."""

    texts: Mapping[str, Sequence[str]]
    tasks: Sequence[Task]
    judge: Judge
    survey: Survey | None
    directions: Mapping[str, np.ndarray]
    everything: bool
    name: str
    """What the base model is called."""
    continuations: Mapping[str, str]
    """Harmful prompt -> answer, where a user gave them; else empty, and the base model's own replies are taken."""
    data: Mapping[str, str]
    """sha256 of what was read, by name."""

    @property
    def prompts(self) -> int:
        """Harmless prompts that are sampled eight times at a small size."""
        return LEAST_SAMPLED if self.everything else 0


@dataclass(frozen=True)
class Speech:
    """What both models said: to plain prompts, to attacks, to capability items and in samples."""

    requests: Mapping[str, list[Request]]
    examinees: list[Examinee]
    said: list[dict[str, list[Answer]]]
    asked: Asked
    attacked: Attacked
    samples: list[list[Answer]]
    quality: list[QualityRecord]

    def write(self, path: Path, answered: Sequence[Sequence[Answer]]) -> None:
        """Every answer of both models into the one private file."""
        parts = [
            [*attacks, *(a for kind in said.values() for a in kind), *samples, *cells]
            for attacks, said, samples, cells in zip(
                self.attacked.answers, self.said, self.samples, answered, strict=True
            )
        ]
        write_texts(path, list(zip(self.examinees, parts, strict=True)))


def speak(pair: Pair, given: Given) -> Speech:
    """Everything that needs rollouts, but for the capability items."""
    examinees = [examinee(pair, k, given.judge) for k in range(2)]
    requests = {name: make_requests(found, pair.chat) for name, found in given.texts.items()}
    said = [replies(pair, who, requests) for who in examinees]
    own = given.continuations
    asked = handed(said, own, pair.chat) if own else went_along(said, given.name)
    attacked = run_attacks(pair, examinees, asked, given.everything)
    count = max(pair.size.sampled, given.prompts)
    samples, quality = draw_samples(pair, examinees, requests["harmless"], count) if count else ([[], []], [])
    return Speech(requests, examinees, said, asked, attacked, samples, quality)


@dataclass(frozen=True)
class Laws:
    """Both models' next-token laws on the aligned model's own replies, on the harmful continuations, and on harmless replies."""

    own_rows: list[Row]
    own: PairReading
    forced: PairReading
    harmless: PairReading
    tokens: list[tuple[int, str]]


def read_laws(pair: Pair, speech: Speech) -> Laws:
    """One teacher-forced pass of each model over each set of rows."""
    asked, tokens = speech.asked, recovery_tokens(pair.chat)
    rows = {
        "own": reply_rows(asked.requests, [a.ids for a in asked.said[1]]),
        "forced": reply_rows(asked.requests, asked.continuations),
        "harmless": harmless_rows(speech),
    }
    with pair.meter.phase("next-token laws", 2 * sum(map(tokens_of, rows.values()))):
        read = {name: pair.read(name, part, tokens) for name, part in rows.items()}
    words = [(token, str(pair.chat.tokenizer.decode([token]))) for token in tokens]
    return Laws(rows["own"], read["own"], read["forced"], read["harmless"], words)


def reply_rows(requests: Sequence[Request], replies: Sequence[Sequence[int]]) -> list[Row]:
    """Prompts with replies, of which at most 96 tokens are read."""
    pairs = zip(requests, replies, strict=True)
    return as_rows([Encoded((*r.prompt, *ids), len(r.prompt)) for r, ids in pairs], MOST_DEPTH)


def harmless_rows(speech: Speech) -> list[Row]:
    """Harmless prompts with the base model's replies."""
    return reply_rows(speech.requests["harmless"], [a.ids for a in speech.said[0]["harmless"]])


@dataclass(frozen=True)
class Scored:
    """Items and log-probabilities of every task for both models, and how often each prefers the good reply of two."""

    items: dict[str, list[Item]]
    scores: dict[str, tuple[Scores, Scores]]
    preferred: dict[str, tuple[dict[str, float], dict[str, float]]]


def score(pair: Pair, given: Given) -> Scored:
    """Tasks in two formats, contrasts of replies in one."""
    encoder = Encoder(pair.chat, pair.base.loaded.context_length or 2**20, 8, pair.seed)
    items = {task.name: audit_items(task, pair.size.items, pair.seed) for task in given.tasks}
    with pair.meter.phase("tasks", 2 * item_tokens(encoder, items)):
        scores: dict[str, tuple[Scores, Scores]] = {}
        for name, own in items.items():
            base, aligned = (item_scores(model, encoder, name, own) for model in pair.both())
            scores[name] = (base, aligned)
    asked = preference_items(pair.size.items)
    with pair.meter.phase("preferences", 2 * item_tokens(encoder, asked, ("chat",))):
        preferred = preference_scores(pair, asked)
    return Scored(items, scores, preferred)


@dataclass(frozen=True)
class Words:
    """The four cells and the three scores, with the answers behind the cells."""

    answers: list[list[Answer]]
    cells: CellsRecord | None
    scores: list[ScoreRecord]


def say_items(pair: Pair, speech: Speech, scored: Scored, rng: np.random.Generator) -> Words:
    """Capability items answered in words by both models."""
    items = cell_items(scored.items, pair.size.cells)
    answers = answer_items(pair, speech.examinees, items)
    cells = cells_record(items, answers, scored.scores, rng)
    return Words(answers, cells, score_records(scored.preferred, [side["harmful"] for side in speech.said], rng))


@dataclass(frozen=True)
class Moved:
    """How training moved states: `shift` on harmful prompts, `costs` on the tasks' texts, `turn` of the difference in means."""

    bearings: Bearings
    shift: RealisedShift | None
    costs: RealisedShift | None
    turn: np.ndarray
    along: States


def move(pair: Pair, given: Given, speech: Speech, scored: Scored, own: Sequence[Row]) -> Moved:
    """States of both models: last tokens of prompts, the survey's kind of positions, and projections along `own` replies."""
    rows = {name: prompt_rows(speech.requests[name]) for name in ("harmful", "harmless")}
    known = surveyed(given.survey, given.directions, pair.base.probe.shape) if given.survey is not None else None
    tasks = task_rows(pair, scored.items) if known is not None and known.gradients else []
    again = rows["harmful"] if known is not None and known.kind != LAST else []
    with pair.meter.phase("states", 2 * tokens_of((*rows["harmful"], *rows["harmless"], *again, *tasks))):
        harmful, harmless = (_both(pair, rows[name], LAST) for name in ("harmful", "harmless"))
        bearings = known or difference(harmful[0], harmless[0])
        kind, sinks = bearings.kind, bearings.sinks
        on_prompts = harmful if kind == LAST else _both(pair, again, kind, sinks)
        costs = shift_on(_both(pair, tasks, kind, sinks), None, bearings.gradients) if tasks else None
    with pair.meter.phase("projections", 2 * tokens_of(own)):
        along = (projected(pair.base, own, bearings.safety), projected(pair.aligned, own, bearings.safety))
    shift = shift_on(on_prompts, bearings.safety, {})
    return Moved(bearings, shift, costs, turned(harmful, harmless), along)


def prompt_rows(requests: Sequence[Request]) -> list[Row]:
    """Prompts with nothing scored after them."""
    return [Row(r.prompt, len(r.prompt), k) for k, r in enumerate(requests)]


def task_rows(pair: Pair, items: Mapping[str, Sequence[Item]]) -> list[Row]:
    """A few items a task with their right answers, plain."""
    encoder = Encoder(pair.chat, pair.base.loaded.context_length or 2**20, 8, pair.seed)
    found = [encoder.items(name, own[:SHIFT_ITEMS], "plain").rows for name, own in items.items()]
    return [row for rows in found for row in rows if row.weight > 0]


def _both(pair: Pair, rows: Sequence[Row], kind: str, sinks: tuple[int, ...] = ()) -> States:
    return states_of(pair.base, rows, kind, sinks), states_of(pair.aligned, rows, kind, sinks)


def recovery_of(pair: Pair, speech: Speech, laws: Laws, rng: np.random.Generator) -> RecoveryRecord:
    """Recovery by depth beside what rollouts of the same prefixes were judged to be."""
    base, aligned = (by_depth(answers, speech.asked.requests) for answers in speech.attacked.prefills)
    return recovery_record(laws.forced, laws.harmless, Judged(pair.size.depths, base, aligned), laws.tokens, rng)


def representation_of(
    moved: Moved, laws: Laws, horizon: HorizonRecord | None, rng: np.random.Generator
) -> RepresentationRecord:
    """The profile of states beside the aligned model's own KL."""
    return representation_record(laws.own, moved.along, moved.bearings, horizon, rng)


def efficiency_of(
    pair: Pair, given: Given, speech: Speech, moved: Moved, bill: tuple[list, KlRecord]
) -> EfficiencyRecord | None:
    """What share of the frontier was reached; None without a survey. `bill` is the tax and the KL of own replies."""
    if given.survey is None:
        return None
    tax, kl = bill
    opened = [
        Row((*r.prompt, *a.ids[:1]), len(r.prompt), k)
        for k, (r, a) in enumerate(zip(speech.requests["harmful"], speech.said[0]["harmful"], strict=True))
        if a.ids
    ]
    texts = harmless_rows(speech)
    with pair.meter.phase("frontier", 2 * tokens_of(opened) + tokens_of(fisher_rows(texts))):
        gain = refusal_gain(pair, opened, given.survey)
        fisher = fisher_at(pair.base, texts, moved.bearings, given.survey.fisher.ridge)
    return efficiency_record(given.survey, moved.bearings, fisher, gain, (tax, nats_per_token(kl)), moved.shift)


def kl_of(laws: Laws, rng: np.random.Generator) -> KlRecord:
    """KL by position on the aligned model's own replies."""
    return kl_record(laws.own, "aligned", rng)


def warnings_of(pair: Pair, given: Given) -> list[str]:
    """What a reader must know before believing a number."""
    found, size, survey = [], pair.size, given.survey
    if size.name != "full":
        found.append(
            f"This is a {size.name} audit of few prompts: intervals are wide. Run it with --size full before deciding."
        )
    if survey is not None and survey.provenance.weights_sha256 != pair.base.loaded.weights_sha256:
        found.append("The survey is of other weights than BASE: its forecast is not about this pair.")
    if size.tokens < 128:
        found.append(f"Replies of {size.tokens} tokens hide harm and refusals that come later.")
    return found
