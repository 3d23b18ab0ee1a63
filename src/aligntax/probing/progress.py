"""Where a run stands: phases, tokens, tokens per second, time left.

Totals are known before the model runs, because every row is already encoded; time left is what remains of the tokens at
the speed measured so far in this phase.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


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
        self._tokens = 0
        self._bar = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            TextColumn("{task.completed:>8.0f}/{task.total:.0f} tokens"),
            TextColumn("{task.fields[speed]:>8}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
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
    def phase(self, name: str, total: int) -> Iterator[None]:
        """One phase of `total` tokens; its time is recorded even when nothing had to be computed."""
        self._tokens, self._began = 0, time.perf_counter()
        self._task = self._bar.add_task(name, total=max(total, 1), speed="")
        try:
            yield
        finally:
            seconds = time.perf_counter() - self._began
            self.phases.append(PhaseTime(name, seconds, self._tokens))
            if self._task is not None:
                self._bar.update(self._task, completed=max(total, 1))
            self._task = None

    def advance(self, tokens: int) -> None:
        """Count tokens that were processed."""
        self._tokens += tokens
        if self._task is not None:
            speed = self._tokens / max(time.perf_counter() - self._began, 1e-9)
            self._bar.update(self._task, advance=tokens, speed=f"{speed:,.0f}/s")  # type: ignore[arg-type]
