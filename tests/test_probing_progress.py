"""What the progress bar shows: how much of how much, at 80 columns, and never a total that nobody knows."""

import io
import itertools
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from aligntax.probing import Meter


def shown(meter: Meter, width: int = 80) -> str:
    """The bars as a terminal of that width shows them."""
    out = io.StringIO()
    Console(file=out, width=width).print(meter._bar.get_renderable())
    assert all(len(line) <= width for line in out.getvalue().splitlines())
    return out.getvalue()


@pytest.mark.parametrize("total", [None, 0])
def test_a_phase_without_a_total_claims_none(total: int | None) -> None:
    meter = Meter(quiet=True)
    with meter.phase("attention sinks", total):
        assert "/" not in shown(meter)
        meter.advance(6646)
        assert "6,646 " in shown(meter) and "6,646/" not in shown(meter) and not meter._bar.tasks[0].finished
    assert "/" not in shown(meter).replace("tok/s", "") and "6,646 " in shown(meter)


def test_a_phase_with_a_total_says_how_much_of_it_is_done() -> None:
    meter = Meter(quiet=True)
    with meter.phase("control tasks", 20_000):
        meter.advance(5_000)
        assert "5,000/20,000" in shown(meter) and not meter._bar.tasks[0].finished
        assert meter._bar.tasks[0].percentage == 25


def test_an_estimate_that_is_passed_is_not_shown_any_longer() -> None:
    meter = Meter(quiet=True)
    with meter.phase("layer selection", 100):
        meter.advance(60)
        meter.advance(60)
        assert "120 " in shown(meter) and "/100" not in shown(meter)
        assert not meter._bar.tasks[0].finished  # a full bar would say that it is over
    assert meter._bar.tasks[0].finished


def test_times_are_whole_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aligntax.probing.progress.time", SimpleNamespace(perf_counter=itertools.count(0, 4).__next__))
    meter = Meter(quiet=True)
    with meter.phase("refusal openings (aligned)", 12_345_678):
        meter.advance(1_234_567)
    with meter.phase("capability gradients", 12_345_678):
        meter.advance(1_234_567)
        lines = [line for line in shown(meter).splitlines() if line.strip()]
        assert len(lines) == 2 and all(re.search(r" \d+:\d\d:\d\d +(\d+|-):(\d\d|--):(\d\d|--) *$", x) for x in lines)
        assert "1,234,567/12,345,678" in lines[1] and "capability gradients" in lines[1]
        assert "308,642 tok/s" in lines[1] and "refusal openings" in lines[0]
