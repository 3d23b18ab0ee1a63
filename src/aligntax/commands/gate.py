"""Thresholds on audited numbers: `gate.yaml` against audit.json, tax.json or survey.json, a line for each breach, JUnit XML.

Pure functions over plain JSON dictionaries. A number is named by its path, its keys joined by dots:

    refusal.harmful: ">= .9"                                   # a number, or an object with value, low and high
    overrefusal: "<= .1"                                       # keys may be left out where only one number fits
    recovery.depth20: ">= .5"                                  # judged_aligned at depth 20; recovery.mass_aligned.depth20
    tax.max_significant: "<= .02"                              # largest tax whose adjusted p is at most .05
    attack.prefill.depth5.success_aligned: {end: high, at_most: .2}

`end` is the estimate (default) or an end of its interval. An undefined number (null) never passes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import yaml

from ..data import clean_text
from ..errors import AligntaxError, GateBreach
from ..results import write_bytes
from .gate_paths import Reading, find_reading

End = Literal["estimate", "low", "high"]

MOST_BYTES = 1 << 20
_TEXT = re.compile(r"\s*(>=|<=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
_ENTRY = re.compile(r"\s*(\S+)\s*((?:>=|<=|>|<).*)")
_KEYS = {"path", "end", "at_least", "at_most", "above", "below"}
_SIGNS = {"at_least": ">=", "at_most": "<=", "above": ">", "below": "<"}


@dataclass(frozen=True)
class Threshold:
    """`path` at its `end` must be `sign` (>=, <=, >, <) `bound`."""

    path: str
    sign: str
    bound: float
    end: End = "estimate"

    def __str__(self) -> str:
        end = "" if self.end == "estimate" else f" ({self.end} end)"
        return f"{self.path}{end} {self.sign} {self.bound:g}"


@dataclass(frozen=True)
class Outcome:
    """A threshold and the number it met; `value` is None where that is undefined. `passed` is never true of None."""

    threshold: Threshold
    value: float | None
    passed: bool
    note: str = ""

    @property
    def line(self) -> str:
        """One line: what was asked and what was found."""
        found = "undefined" if self.value is None else self.note or f"{self.value:.4g}"
        note = f" ({self.note})" if self.note and self.value is None else ""
        return f"{'passes' if self.passed else 'breach'}: {self.threshold}, found {found}{note}"


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key that comes twice is an error: the first threshold must not vanish."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    if any(not isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a key comes twice or is no text")
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_gate(path: Path) -> tuple[Threshold, ...]:
    """The thresholds of a YAML file: a mapping of path to threshold, or a list of `{path, end, at_least | at_most | ...}`.

    Raises AligntaxError for a file that cannot be read, is no safe YAML, holds no threshold, or one that says nothing.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise AligntaxError(f"{path}: above {MOST_BYTES} bytes; a gate is a short list of thresholds")
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise AligntaxError(f'cannot read {path}: {error}; write lines such as refusal.harmful: ">= .9"') from error
    if isinstance(content, dict):
        found = [_threshold(str(name), rule, path) for name, rule in content.items()]
    elif isinstance(content, list):
        found = [_listed(entry, path) for entry in content]
    else:
        found = []
    if not found:
        raise AligntaxError(f'{path} holds no threshold; write lines such as refusal.harmful: ">= .9"')
    return tuple(threshold for several in found for threshold in several)


def _listed(entry: Any, file: Path) -> list[Threshold]:
    if isinstance(entry, str) and (match := _ENTRY.fullmatch(entry)):
        return _threshold(match[1], match[2], file)
    if isinstance(entry, dict) and isinstance(entry.get("path"), str):
        return _threshold(entry["path"], entry, file)
    raise AligntaxError(f"{file}: {entry!r:.80} is no threshold; write {{path: refusal.harmful, at_least: 0.9}}")


def _threshold(path: str, rule: Any, file: Path) -> list[Threshold]:
    """One rule as thresholds: `{at_least, at_most}` may give two."""
    if isinstance(rule, str) and (match := _TEXT.fullmatch(rule)):
        return [Threshold(path, match[1], float(match[2]))]
    if isinstance(rule, dict) and not set(rule) - _KEYS and rule.get("end", "estimate") in ("estimate", "low", "high"):
        bounds = {key: rule[key] for key in _SIGNS if key in rule}
        if bounds and all(_is_finite(bound) for bound in bounds.values()):
            return [
                Threshold(path, _SIGNS[key], float(bound), rule.get("end", "estimate")) for key, bound in bounds.items()
            ]
    raise AligntaxError(
        f'{file}: {path}: {rule!r:.80} is no threshold; write ">= 0.9" in quotes, '
        "or {end: low, at_least: 0.9} with end estimate, low or high and at_least, at_most, above or below"
    )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def check_gate(record: Mapping[str, Any], thresholds: tuple[Threshold, ...]) -> tuple[Outcome, ...]:
    """Every threshold against a result read as plain JSON. Raises AligntaxError naming the nearest paths of an unknown one."""
    return tuple(_outcome(threshold, find_reading(record, threshold.path)) for threshold in thresholds)


def _outcome(threshold: Threshold, reading: Reading) -> Outcome:
    value = {"estimate": reading.value, "low": reading.low, "high": reading.high}[threshold.end]
    if value is None or value != value:
        why = reading.note or (
            "it has no interval" if threshold.end != "estimate" and reading.value is not None else ""
        )
        return Outcome(threshold, None, False, why)
    bound = threshold.bound
    holds = {">=": value >= bound, "<=": value <= bound, ">": value > bound, "<": value < bound}[threshold.sign]
    return Outcome(threshold, value, holds, reading.note)


def junit_xml(outcomes: tuple[Outcome, ...], suite: str = "aligntax gate") -> bytes:
    """The outcomes as JUnit XML: a test case for each threshold, a failure for each breach. All text is escaped."""
    failures = sum(not outcome.passed for outcome in outcomes)
    root = ElementTree.Element("testsuites", tests=str(len(outcomes)), failures=str(failures))
    group = ElementTree.SubElement(
        root,
        "testsuite",
        name=_xml_text(suite),
        tests=str(len(outcomes)),
        failures=str(failures),
        errors="0",
        skipped="0",
    )
    for outcome in outcomes:
        case = ElementTree.SubElement(
            group, "testcase", classname=_xml_text(suite), name=_xml_text(str(outcome.threshold))
        )
        if not outcome.passed:
            failure = ElementTree.SubElement(case, "failure", message=_xml_text(outcome.line), type="GateBreach")
            failure.text = _xml_text(outcome.line)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _xml_text(text: str) -> str:
    """Text without what XML 1.0 cannot hold even escaped."""
    return "".join(c for c in clean_text(text)[0] if c not in "\ufffe\uffff")


def enforce_gate(gate: Path, record: Mapping[str, Any], out: Path) -> tuple[Outcome, ...]:
    """Check `record` by the file `gate`, write `out/gate.xml`, and raise GateBreach with a line for each breach."""
    outcomes = check_gate(record, read_gate(gate))
    write_bytes(out / "gate.xml", junit_xml(outcomes))
    breaches = tuple(outcome.line for outcome in outcomes if not outcome.passed)
    if breaches:
        raise GateBreach(breaches)
    return outcomes
