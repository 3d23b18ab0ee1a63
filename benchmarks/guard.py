"""The regression guard: ratios of a new run against committed ones, never seconds, which are the machine's.

Worse is a ratio that moved by more than `margin` times the committed one in the direction that is not better, or a number without
peers that met its goal, no longer does, and is not a time. Void lines are not judged; what is missing is said.
"""

from dataclasses import dataclass, field
from typing import Any

MARGIN = 0.2
TIMES = ("s", "tokens/s")
Key = tuple[str, str]


@dataclass
class Findings:
    """`worse` fails a run, `said` does not; `judged` counts the ratios that were compared."""

    worse: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    judged: int = 0


def compare(committed: dict[str, Any], found: dict[str, Any], margin: float = MARGIN) -> Findings:
    """Judge every line that was committed; say what cannot be judged and what is new."""
    findings = Findings()
    old, new = _lines(committed), _lines(found)
    for script, about in found["scripts"].items():
        if about["state"] == "failed":
            findings.said.append(f"{script} failed: {about['why']}")
    for key, line in old.items():
        if key in new:
            _judge(line, new[key], margin, findings)
        elif found["scripts"].get(key[0], {}).get("state") != "failed" and _counts(line):
            findings.said.append(f"{_named(line)}: missing in this run")
    findings.said += [f"{_named(line)}: new, nothing committed" for key, line in new.items() if key not in old]
    for field_ in ("cpu", "device"):
        was, now = committed["machine"].get(field_), found["machine"].get(field_)
        if was != now:
            findings.said.append(f"{field_} is {now}, committed on {was}")
    return findings


def _judge(old: dict[str, Any], new: dict[str, Any], margin: float, findings: Findings) -> None:
    """One line that both runs have."""
    if not _counts(old):
        return
    if old["void"] or new["void"]:
        findings.said.append(f"{_named(new)}: void in {'this' if new['void'] else 'the committed'} run, not judged")
    elif old["ratio"] is None:
        findings.judged += 1
        if not new["met"]:
            findings.worse.append(
                f"{_named(new)}: {_number(new['ours'])} {new['unit']} misses {old['goal']}, which was met"
            )
    elif new["ratio"] is None:
        findings.said.append(f"{_named(new)}: no ratio in this run")
    else:
        findings.judged += 1
        if _is_worse(old, new["ratio"], margin):
            change = f"{_number(old['ratio'])} -> {_number(new['ratio'])}"
            findings.worse.append(f"{_named(new)}: {change}, {old['better']} is better, margin {margin:.0%}")


def _is_worse(old: dict[str, Any], ratio: float, margin: float) -> bool:
    """True where the ratio left the margin on the bad side."""
    was: float = old["ratio"]
    return ratio < was * (1 - margin) if old["better"] == "more" else ratio > was * (1 + margin)


def _counts(line: dict[str, Any]) -> bool:
    """True for ratios, and for numbers other than times that met a goal."""
    return line["ratio"] is not None or (bool(line["met"]) and line["unit"] not in TIMES)


def _lines(results: dict[str, Any]) -> dict[Key, dict[str, Any]]:
    return {(line["script"], line["name"]): line for line in results["lines"]}


def _named(line: dict[str, Any]) -> str:
    return f"{line['script']}, {line['name']}"


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.3g}"
