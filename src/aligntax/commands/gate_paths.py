"""A number of a result file by its dotted path, with the ends of its interval.

Keys are joined by dots. Entries of a list are named by what tells them apart (`task`, `name`, `kind`, `before`, `after`, and
`depth5` for a depth), else by their place from 0; a column beside a column `depth` or `position` is read at `depth20`. Keys may
be left out of a path, all but the last, where only one number fits what remains.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import AligntaxError

SIGNIFICANT = 0.05
NAMES = ("kind", "method", "before", "after", "name", "task", "layer", "depth")
AXES = ("depth", "position")
ENDS = {
    **dict.fromkeys(("tax", "mean", "cosine", "correlation", "share", "gain", "mass_aligned"), ""),
    "success_base": "base_",
    "success_aligned": "aligned_",
    "first5_share": "first5_",
    "final_gain": "final_",
}
"""Where the interval of a number stands that does not bear the number's own name: the prefix of `low` and `high`."""
DEPTH_COLUMN = "judged_aligned"
"""What `recovery.depth20` reads: behaviour, not mass, since mass may rise while the model goes on complying."""


@dataclass(frozen=True)
class Reading:
    """A number and the ends of its interval, None where undefined or absent; `note` says how it is to be read."""

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""


def find_reading(record: Mapping[str, Any], path: str) -> Reading:
    """The number at `path`. Raises AligntaxError naming the nearest paths where there is none, or several."""
    readings = all_readings(record)
    if path not in readings and "tax" not in record:
        path = path.removeprefix("tax.")  # One gate serves an audit and a tax record: the latter is all tax.
    if path in readings:
        return readings[path]
    fitting = [known for known in readings if _abbreviates(path.split("."), known.split("."))]
    if len(fitting) == 1:
        return readings[fitting[0]]
    if fitting:
        raise AligntaxError(
            f"gate path {path!r} fits {len(fitting)} numbers: {', '.join(sorted(fitting)[:5])}; write one of them out"
        )
    near = difflib.get_close_matches(path, readings, n=3, cutoff=0.0)
    raise AligntaxError(f"gate path {path!r} is no number of this result; the nearest are {', '.join(near) or 'none'}")


def _abbreviates(short: Sequence[str], full: Sequence[str]) -> bool:
    """Whether `full` ends as `short` does and holds all its keys in order."""
    rest = iter(full)
    return short[-1] == full[-1] and all(key in rest for key in short)


def all_readings(record: Mapping[str, Any]) -> dict[str, Reading]:
    """Every path that a gate may name, with its number."""
    found = dict(_walk(record, ()))
    return {**dict(_derived(record, ())), **found}


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _walk(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, Reading]]:
    if isinstance(node, Mapping):
        estimate = next((key for key in ("value", "estimate") if key in node and _is_number(node[key])), None)
        if estimate is not None and keys:
            yield ".".join(keys), Reading(_number(node[estimate]), _number(node.get("low")), _number(node.get("high")))
        for key, value in node.items():
            if _is_number(value):
                yield ".".join((*keys, str(key))), _with_ends(node, str(key))
            elif isinstance(value, list) and (axis := _axis_of(node, value)) and str(key) != axis:
                yield from _column(node, str(key), axis, keys)
            else:
                yield from _walk(value, (*keys, str(key)))
    elif isinstance(node, list):
        for name, entry in zip(_entry_names(node), node, strict=True):
            if _is_number(entry):
                yield ".".join((*keys, name)), Reading(_number(entry))
            else:
                yield from _walk(entry, (*keys, name))


def _with_ends(node: Mapping[str, Any], key: str, at: int | None = None) -> Reading:
    """A number with the ends of its interval, which stand beside it under names that belong to it."""

    def cell(name: str) -> float | None:
        value = node.get(name)
        return _number(value[at] if at is not None and isinstance(value, list) and at < len(value) else value)

    own = f"{key}_low" in node or f"{key}_high" in node
    prefix = f"{key}_" if own else ENDS.get(key)
    if prefix is not None and f"{prefix}low" in node:
        return Reading(cell(key), cell(f"{prefix}low"), cell(f"{prefix}high"))
    rate = node.get(f"{key}_aligned")  # Such as `harmful`, whose interval stands in `harmful_aligned`.
    if isinstance(rate, Mapping) and _number(rate.get("value")) == cell(key):
        return Reading(cell(key), _number(rate.get("low")), _number(rate.get("high")))
    return Reading(cell(key))


def _axis_of(node: Mapping[str, Any], column: list[Any]) -> str | None:
    """The column of depths or positions that `column` runs along."""
    for axis in AXES:
        steps = node.get(axis)
        if (
            isinstance(steps, list)
            and len(steps) == len(column)
            and all(_is_number(value) for value in (*steps, *column))
        ):
            return axis
    return None


def _column(node: Mapping[str, Any], key: str, axis: str, keys: tuple[str, ...]) -> Iterator[tuple[str, Reading]]:
    for place, step in enumerate(node[axis]):
        yield ".".join((*keys, key, f"{axis}{step:g}")), _with_ends(node, key, place)


def _entry_names(entries: Sequence[Any]) -> list[str]:
    """Names that tell the entries of a list apart, else their places."""
    places = [str(place) for place in range(len(entries))]
    if not entries or not all(isinstance(entry, Mapping) for entry in entries):
        return places
    known = [key for key in NAMES if key != "method" or "kind" in entries[0]]  # The method of a test is no name.
    keys = [key for key in known if all(isinstance(entry.get(key), str | int) for entry in entries)]
    names = [
        ".".join(f"{key}{entry[key]}" if key in ("depth", "layer") else str(entry[key]) for key in keys)
        for entry in entries
    ]
    return names if keys and len(set(names)) == len(names) else places


def _derived(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, Reading]]:
    """Numbers that follow from others: `depth20` of a block with depths, `max` and `max_significant` of a bill."""
    if isinstance(node, Mapping):
        column = node.get(DEPTH_COLUMN)
        if isinstance(column, list) and _axis_of(node, column) == "depth":
            for place, step in enumerate(node["depth"]):
                note = "" if column[place] is not None else "no replies judged at this depth"
                reading = _with_ends(node, DEPTH_COLUMN, place)
                yield ".".join((*keys, f"depth{step:g}")), Reading(reading.value, reading.low, reading.high, note)
        for key, value in node.items():
            yield from _derived(value, (*keys, str(key)))
    entries = list(node.values()) if isinstance(node, Mapping) else node if isinstance(node, list) else []
    if entries and all(isinstance(entry, Mapping) and {"tax", "p_adjusted"} <= set(entry) for entry in entries):
        for prefix in {keys, keys[:-1]}:  # `tax.pairs.max` may also be written `tax.max`.
            yield from ((".".join((*prefix, name)), reading) for name, reading in _largest(entries).items())


def _largest(bill: Sequence[Mapping[str, Any]]) -> dict[str, Reading]:
    """The largest tax of all, and of those told from noise; minus infinity where none is, which any upper bound holds."""
    taxes = [(reading, entry) for entry in bill if (reading := _tax_of(entry)).value is not None]
    if not taxes:
        return {name: Reading(None, note="no tax is defined") for name in ("max", "max_significant")}
    sure = [
        reading for reading, entry in taxes if (p := _number(entry.get("p_adjusted"))) is not None and p <= SIGNIFICANT
    ]
    none = Reading(float("-inf"), float("-inf"), float("-inf"), f"no tax with adjusted p <= {SIGNIFICANT}")
    return {"max": _top([reading for reading, _ in taxes]), "max_significant": _top(sure) if sure else none}


def _tax_of(entry: Mapping[str, Any]) -> Reading:
    tax = entry["tax"]
    if isinstance(tax, Mapping):
        return Reading(_number(tax.get("value")), _number(tax.get("low")), _number(tax.get("high")))
    return _with_ends(entry, "tax")


def _top(readings: Sequence[Reading]) -> Reading:
    """The largest of each end: an upper bound on the high end must hold for every task."""

    def most(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return max(known) if known and len(known) == len(values) else None

    return Reading(
        most([reading.value for reading in readings]),
        most([reading.low for reading in readings]),
        most([reading.high for reading in readings]),
    )
