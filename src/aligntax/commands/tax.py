"""`aligntax tax`: what was really paid, out of evaluation logs of two or more stages, paired by item."""

import itertools
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.console import Console

from .. import __version__
from ..data.names import split_name
from ..data.scores import PairedScores, ScoreLog, pair_tasks, read_scores
from ..errors import AligntaxError
from ..report.tax_table import tax_summary
from ..results import plain, write_json
from ..results.tax import Tax, TaxPair, TaxProvenance, TaxSource, TaxSplit
from ..stats import ObservedTax, SplitTax, adjusted_p_values, observed_tax, split_tax
from .ending import say_written
from .gate import enforce_gate
from .outputs import printable
from .record import now, versions

PACKAGES = ("numpy", "scipy")

Span = Literal["adjacent", "total"]


@dataclass(frozen=True)
class TaxCommand:
    """Compare evaluation logs of the same items BEFORE and AFTER (and MORE stages, in order): writes tax.json.

    A log is a folder of lm-eval (--log_samples), an inspect .eval file or a folder of them, a folder with items.parquet, or
    a .csv, .jsonl, .json or .parquet file with id, score and optional task. NAME=PATH gives a stage a name.
    """

    before: tyro.conf.Positional[str]
    """The log of the first stage."""
    after: tyro.conf.Positional[str]
    """The log of the next stage."""
    more: tyro.conf.Positional[tuple[str, ...]] = ()
    """Logs of further stages, in order."""
    out: Path = Path("out/tax")
    """Folder of tax.json."""
    metric: tuple[str, ...] = ()
    """Metrics or scorers in order of preference, where a log has several."""
    common: bool = False
    """Compare the tasks and items that both logs have and count the others, instead of refusing."""
    gate: Path | None = None
    """YAML file of thresholds on numbers of tax.json: a breach is exit code 3."""
    draws: int = 2000
    """Resamples of each bootstrap."""
    level: float = 0.9
    """Coverage of the intervals, a fraction."""
    seed: int = 0
    """Seed of the resampling."""
    quiet: bool = False
    """Print nothing."""

    def execute(self) -> Tax:
        """Compare, write tax.json and return it. Raises AligntaxError for logs that cannot be paired, GateBreach by --gate."""
        began = time.perf_counter()
        if self.draws < 100 or not 0 < self.level < 1:
            raise AligntaxError(
                f"draws={self.draws}, level={self.level}; give at least 100 draws and a fraction such as 0.9"
            )
        stages = self._read()
        pairs: list[TaxPair] = []
        warnings = [note for log in stages.values() for note in log.notes]
        for first, last, span in compared(list(stages)):
            paired = pair_tasks(stages[first], stages[last], self.common)
            pairs += self._pairs(paired, first, last, span)
            warnings += [f"{first} to {last}: {note}" for each in paired.values() for note in each.notes]
        tax = Tax(list(stages), [_source(*item) for item in stages.items()], pairs, self._provenance(began), warnings)
        write_json(self.out / "tax.json", printable(plain(tax)))
        if not self.quiet:
            console = Console()
            tax_summary(tax, console)
            logs = (self.before, self.after, *self.more)
            say_written(
                self.out / "tax.json", following=("aligntax", "tax", *logs, "--gate", "gate.yaml"), console=console
            )
        if self.gate is not None:
            enforce_gate(self.gate, printable(plain(tax)), self.out)
        return tax

    def _read(self) -> dict[str, ScoreLog]:
        given = [split_name(word) for word in (self.before, self.after, *self.more)]
        names = stage_names(given)
        paths = [Path(path).expanduser() for _, path in given]
        return {name: read_scores(path, self.metric) for name, path in zip(names, paths, strict=True)}

    def _pairs(self, paired: Mapping[str, PairedScores], first: str, last: str, span: Span) -> list[TaxPair]:
        rng = np.random.default_rng(self.seed)
        taxes = {
            task: observed_tax(pair.before.scores, pair.after.scores, rng, self.draws, self.level)
            for task, pair in paired.items()
        }
        splits = {task: self._split(pair, rng) for task, pair in paired.items()}
        adjusted = adjusted_p_values(taxes)
        found = []
        for task, pair in paired.items():
            where = _Where(first, last, task, pair.before.metric, span, pair.left_out)
            found.append(tax_pair(where, taxes[task], adjusted[task], splits[task]))
        return found

    def _split(self, pair: PairedScores, rng: np.random.Generator) -> TaxSplit | None:
        """Shared and selective drop where both logs hold the answers' log-probabilities of every item."""
        before, after = pair.before.choices, pair.after.choices
        formats = [name for name in before if name in after]
        if not formats:
            return None
        # The split resamples formats too; a lone format given twice leaves the resampling of items alone.
        names = formats if len(formats) > 1 else [formats[0], formats[0] + "'"]
        both = [
            {name: side[name.removesuffix("'") if len(formats) == 1 else name] for name in names}
            for side in (before, after)
        ]
        return _split_record(split_tax(both[0], both[1], rng, self.draws, self.level), len(formats))

    def _provenance(self, began: float) -> TaxProvenance:
        return TaxProvenance(
            package_version=__version__,
            created=now(),
            command=shlex.join(["aligntax", "tax", self.before, self.after, *self.more, "--seed", str(self.seed)]),
            seed=self.seed,
            draws=self.draws,
            level=self.level,
            wall_seconds=time.perf_counter() - began,
            versions=versions(PACKAGES),
        )


@dataclass(frozen=True)
class _Where:
    """What is compared: stages, task, metric, span, and the items that were left out."""

    before: str
    after: str
    task: str
    metric: str
    span: Span
    left_out: int = field(default=0)


def compared(stages: Sequence[str]) -> list[tuple[str, str, Span]]:
    """Every adjacent pair of stages in the order given, then first to last where there are more than two.

    >>> compared(["base", "sft", "rl"])
    [('base', 'sft', 'adjacent'), ('sft', 'rl', 'adjacent'), ('base', 'rl', 'total')]
    """
    pairs: list[tuple[str, str, Span]] = [(a, b, "adjacent") for a, b in itertools.pairwise(stages)]
    return [*pairs, (stages[0], stages[-1], "total")] if len(stages) > 2 else pairs


def stage_names(given: Sequence[tuple[str | None, str]]) -> list[str]:
    """A name for each (name, path): as given, else the shortest end of the path that no other stage shares.

    Raises AligntaxError for a name that comes twice.

    >>> stage_names([(None, "a/scores.csv"), (None, "b/scores.csv"), ("rl", "c.csv")])
    ['a/scores', 'b/scores', 'rl']
    """
    paths = [
        Path(path).absolute().with_suffix("") if Path(path).suffix in _SUFFIXES else Path(path).absolute()
        for _, path in given
    ]
    depth = max(len(path.parts) for path in paths)
    for kept in range(1, depth + 1):
        names = [name or "/".join(path.parts[-kept:]) for (name, _), path in zip(given, paths, strict=True)]
        if len(set(names)) == len(names):
            return names
    twice = next(name for name in names if names.count(name) > 1)
    raise AligntaxError(f"the stage {twice!r} comes twice; give each a name of its own: NAME=PATH")


_SUFFIXES = (".csv", ".jsonl", ".json", ".parquet", ".eval")


def tax_pair(where: _Where, tax: ObservedTax, adjusted: float, split: TaxSplit | None) -> TaxPair:
    """One row of the record."""
    return TaxPair(
        before=where.before,
        after=where.after,
        task=where.task,
        metric=where.metric,
        span=where.span,
        n=tax.n,
        left_out=where.left_out,
        score_before=tax.before,
        score_after=tax.after,
        tax=tax.tax.value,
        low=tax.tax.low,
        high=tax.tax.high,
        p_value=tax.p_value,
        p_adjusted=adjusted,
        relative=tax.relative.value,
        relative_low=tax.relative.low,
        relative_high=tax.relative.high,
        lost=tax.lost,
        gained=tax.gained,
        method=tax.method,
        split=split,
    )


def _split_record(split: SplitTax, formats: int) -> TaxSplit:
    shared, selective = split.shared, split.selective
    return TaxSplit(
        formats, split.gold.value, shared.value, shared.low, shared.high, selective.value, selective.low, selective.high
    )


def _source(stage: str, log: ScoreLog) -> TaxSource:
    counts = {name: len(task.scores) for name, task in log.tasks.items()}
    return TaxSource(stage, log.source, log.kind, log.sha256, counts, list(log.notes))
