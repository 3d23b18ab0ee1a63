"""Results of all scripts in one file: what each of them wrote, or that it failed, with machine and load.

A script that failed or whose calibration differed is kept as such, never dropped: its lines are void or its reason stands there.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA = 1
LINE_KEYS = ("name", "ours", "unit", "peers", "ratio", "goal", "better", "met", "detail", "note")


@dataclass(frozen=True)
class Part:
    """One script's outcome: its JSON, or why there is none."""

    script: str
    found: dict[str, Any] | None
    why: str = ""

    @property
    def state(self) -> str:
        """'valid', 'void' (the calibration loops differed) or 'failed'."""
        if self.found is None:
            return "failed"
        return "void" if self.found["void"] else "valid"

    def about(self) -> dict[str, Any]:
        """What is kept of the script itself."""
        if self.found is None:
            return {"state": self.state, "why": self.why}
        kept = {key: self.found[key] for key in ("date", "seconds", "calibration_s", "load")}
        return {"state": self.state, **{key: self.found["machine"][key] for key in ("device", "dtype")}, **kept}

    def lines(self) -> list[dict[str, Any]]:
        """Its lines, each with the script's name and whether it is void."""
        if self.found is None:
            return []
        common = {"script": self.script, "void": self.state == "void"}
        return [common | {key: line[key] for key in LINE_KEYS} for line in self.found["lines"]]


def gather(parts: list[Part], machine: dict[str, Any]) -> dict[str, Any]:
    """Everything as one dict, ready to be written; date and load before are those of the first script, load after of the last."""
    ran = [part.found for part in parts if part.found is not None]
    return {
        "schema_version": SCHEMA,
        "date": min((found["date"] for found in ran), default=""),
        "machine": machine,
        "load": {"before": ran[0]["load"][0], "after": ran[-1]["load"][1]} if ran else {},
        "scripts": {part.script: part.about() for part in parts},
        "lines": [line for part in parts for line in part.lines()],
    }


def write(path: Path, results: dict[str, Any]) -> None:
    """As JSON that diffs well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any] | None:
    """Results, or None where nothing was measured yet. Raises ValueError for a file of another shape."""
    if not path.exists():
        return None
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); run `make bench` anew") from None
    if results.get("schema_version") != SCHEMA:
        raise ValueError(
            f"{path} has schema_version {results.get('schema_version')}, not {SCHEMA}; run `make bench` anew"
        )
    return results
