"""The regression guard finds planted losses, and only those: never seconds, void lines or changes within the margin."""

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import guard  # noqa: E402

VALID: dict[str, Any] = {"state": "valid", "device": "cpu"}


def line(name: str, ratio: float | None, better: str = "more", **more: Any) -> dict[str, Any]:
    """One committed line of the script 'survey'."""
    plain = {"ours": 1.0, "unit": "s", "goal": "", "met": None, "void": False}
    return plain | {"script": "survey", "name": name, "ratio": ratio, "better": better} | more


def results(*lines: dict[str, Any], about: dict[str, Any] = VALID, cpu: str = "a") -> dict[str, Any]:
    """A results file of one script."""
    return {"machine": {"cpu": cpu, "device": "cpu"}, "scripts": {"survey": about}, "lines": list(lines)}


@pytest.mark.parametrize(
    ("better", "was", "now", "worse"),
    [
        ("more", 3.0, 2.39, True),
        ("more", 3.0, 2.41, False),
        ("more", 3.0, 9.0, False),
        ("less", 1.0, 1.21, True),
        ("less", 1.0, 1.19, False),
        ("less", 1.0, 0.1, False),
    ],
)
def test_a_ratio_is_worse_only_beyond_the_margin_and_on_the_bad_side(better, was, now, worse):
    found = guard.compare(results(line("x", was, better)), results(line("x", now, better)))
    assert found.judged == 1 and bool(found.worse) == worse
    if worse:
        assert found.worse == [f"survey, x: {was:.3g} -> {now:.3g}, {better} is better, margin 20%"]


def test_the_margin_is_what_is_given():
    pair = results(line("x", 2.0)), results(line("x", 1.5))
    assert guard.compare(*pair, margin=0.3).worse == [] and len(guard.compare(*pair, margin=0.2).worse) == 1


@pytest.mark.parametrize("void", [(True, False), (False, True), (True, True)])
def test_void_lines_are_said_and_not_judged(void):
    found = guard.compare(results(line("x", 3.0, void=void[0])), results(line("x", 0.1, void=void[1])))
    assert (found.worse, found.judged) == ([], 0)
    assert len(found.said) == 1 and "void" in found.said[0]


def test_missing_new_and_unmeasured_lines_are_said():
    found = guard.compare(
        results(line("gone", 3.0), line("null", 2.0)), results(line("fresh", 1.0), line("null", None))
    )
    assert (found.worse, found.judged) == ([], 0)
    assert sorted(found.said) == [
        "survey, fresh: new, nothing committed",
        "survey, gone: missing in this run",
        "survey, null: no ratio in this run",
    ]


def test_a_failed_script_is_said_once_and_not_line_by_line():
    failed = {"state": "failed", "why": "exit code 1: no memory"}
    found = guard.compare(results(line("x", 3.0), line("y", 3.0)), results(about=failed))
    assert found.said == ["survey failed: exit code 1: no memory"] and found.judged == 0


def test_seconds_are_never_judged_but_a_lost_cosine_is():
    seconds = {"unit": "s", "goal": "<= 6", "better": "less"}
    cosine = {"unit": "cosine", "goal": ">= 0.999"}
    old = results(line("t", None, **seconds, met=True), line("c", None, **cosine, met=True, ours=1.0))
    slow = line("t", None, **seconds, met=False, ours=60.0)
    found = guard.compare(old, results(slow, line("c", None, **cosine, met=False, ours=0.5)))
    assert found.worse == ["survey, c: 0.5 cosine misses >= 0.999, which was met"] and found.judged == 1
    assert guard.compare(old, results(slow, line("c", None, **cosine, met=True))).worse == []


def test_a_number_that_missed_its_goal_before_cannot_lose_it():
    missed = line("c", None, unit="cosine", goal=">= 0.999", met=False, ours=0.5)
    assert guard.compare(results(missed), results(missed)).judged == 0


def test_another_processor_is_said():
    found = guard.compare(results(line("x", 1.0)), results(line("x", 1.0), cpu="b"))
    assert found.said == ["cpu is b, committed on a"] and found.judged == 1


@given(st.lists(st.tuples(st.floats(1e-3, 1e3), st.sampled_from(["more", "less"])), max_size=8), st.floats(0.01, 0.9))
def test_a_run_is_never_worse_than_itself(ratios, margin):
    same = results(*(line(f"x{k}", value, better) for k, (value, better) in enumerate(ratios)))
    found = guard.compare(same, same, margin)
    assert (found.worse, found.said, found.judged) == ([], [], len(ratios))
