"""Where a run stands: phases, tokens, tokens per second, time left.

Totals are known before the model runs, because every row is already encoded; time left is what remains of the tokens at
the speed measured so far in this phase. Where a phase decides by what it finds how much it reads, the total is an estimate: once
it is passed, and where there is none, the bar says only that work goes on.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

NAME_WIDTH = 22
"""Columns of a phase's name: with these the times are whole at 80."""


@dataclass(frozen=True)
class PhaseTime:
    """Wall seconds and tokens of a finished phase."""

    name: str
    seconds: float
    tokens: int


class Meter:
    """Collects phases and, unless `quiet`, draws one bar a phase on stderr."""

    def __init__(self, quiet: bool = False) -> None:
        self.phases: list[PhaseTime] = []
        self._tokens, self._total = 0, 0
        # Only the bar gives way on a narrow screen.
        self._bar = Progress(
            TextColumn(
                "{task.description}", table_column=Column(no_wrap=True, max_width=NAME_WIDTH, overflow="ellipsis")
            ),
            BarColumn(),
            TextColumn("{task.fields[count]}", justify="right"),
            TextColumn("{task.fields[speed]}", justify="right"),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=Console(stderr=True),
            disable=quiet,
        )
        self._task: int | None = None
        self._began = 0.0

    def __enter__(self) -> "Meter":
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    @contextmanager
    def phase(self, name: str, total: int | None) -> Iterator[None]:
        """One phase of `total` tokens, None or 0 where that is not known; its time is recorded even when nothing is computed."""
        self._tokens, self._total, self._began = 0, total or 0, time.perf_counter()
        self._task = self._bar.add_task(name, total=total or None, speed="", count=self._count())
        try:
            yield
        finally:
            seconds = time.perf_counter() - self._began
            self.phases.append(PhaseTime(name, seconds, self._tokens))
            if self._task is not None:
                done = max(self._tokens, 1)
                self._bar.update(self._task, total=done, completed=done, count=f"{self._tokens:,}")  # type: ignore[arg-type]
            self._task = None

    def advance(self, tokens: int) -> None:
        """Count tokens that were processed."""
        self._tokens += tokens
        if self._task is None:
            return
        if self._tokens > self._total > 0:
            self._total = 0
            next(task for task in self._bar.tasks if task.id == self._task).total = None
        speed = f"{self._tokens / max(time.perf_counter() - self._began, 1e-9):,.0f} tok/s"
        self._bar.update(self._task, advance=tokens, speed=speed, count=self._count())  # type: ignore[arg-type]

    def _count(self) -> str:
        return f"{self._tokens:,}/{self._total:,}" if self._total else f"{self._tokens:,}"
