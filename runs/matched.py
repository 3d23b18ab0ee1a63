"""Recipes at matched refusal: every score interpolated along training to the step at which a recipe refuses as much as wanted.

    python runs/matched.py [--results runs/recipes] [--level 0.45 ...]

A course is the base (step 0), the states that were scored (NAME-SEED@20.json) and the end. Between two neighbours every score is
taken as linear in refusal; a recipe that never refuses so much says so, and none is extrapolated. Some recipes refuse everything
before they learn whom and come down again: of several crossings the last counts, since the end of training is what one
releases. Writes matched.json beside them and prints the table.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from aligntax.results import plain

SCORES = ("over-refusal", "mass 0", "mass 5", "mass 20", "kl", "selective", "shared", "worst task")
LEVELS = (0.35, 0.45, 0.5, 0.75)
END = 10**6


def scores(found: dict[str, Any], base: bool) -> dict[str, float]:
    """The compared numbers of one checkpoint; the base differs from itself in nothing. The mass is the aligned model's."""
    mass = {depth: values[1] for depth, values in found["mass"].items()}
    taxes = [row[0] for row in found["tax"].values() if row[0] is not None]
    return {
        "refusal": found["harmful"]["value"],
        "over-refusal": found["harmless"]["value"],
        **{f"mass {depth}": mass[depth] for depth in ("0", "5", "20")},
        "kl": 0.0 if base else found["kl_forced"]["mean"],
        "selective": 0.0 if base else found["selective_mean"],
        "shared": 0.0 if base else found["shared_mean"],
        "worst task": 0.0 if base else max(taxes),
    }


def courses(folder: Path) -> dict[str, list[tuple[int, dict[str, float]]]]:
    """Recipe and seed -> (step, scores) from the base on; the end, whose file names no step, comes last."""
    base = scores(json.loads((folder / "base-0.json").read_text()), True)
    found: dict[str, list[tuple[int, dict[str, float]]]] = {}
    for path in sorted(folder.glob("*-*.json")):
        name, _, step = path.stem.partition("@")
        if name.startswith("base"):
            continue
        point = (int(step) if step else END, scores(json.loads(path.read_text()), False))
        found.setdefault(name, [(0, base)]).append(point)
    return {name: sorted(points, key=lambda p: p[0]) for name, points in found.items()}


def at(course: list[tuple[int, dict[str, float]]], level: float) -> dict[str, float] | None:
    """Scores where refusal last passes `level`, up or down, linear between two neighbours; None where it never does."""
    for (_, before), (_, after) in reversed([*pairwise(course)]):
        first, then = before["refusal"], after["refusal"]
        if min(first, then) <= level <= max(first, then) and first != then:
            share = (level - first) / (then - first)
            return {name: before[name] + share * (after[name] - before[name]) for name in SCORES}
    return None


def table(found: dict[str, dict[str, float] | None], points: dict[str, int]) -> str:
    """The rows of one level as Markdown."""
    head = ["recipe", "points", *SCORES]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in found.items():
        cells = ["never refuses so much"] if row is None else [f"{row[score]:+.3f}" for score in SCORES]
        lines.append("| " + " | ".join([name, str(points[name]), *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Read, interpolate, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--level", type=float, nargs="*", default=list(LEVELS))
    given = parser.parse_args()
    every = courses(given.results)
    points = {name: len(course) for name, course in every.items()}
    levels = {f"{level:g}": {name: at(course, level) for name, course in every.items()} for level in given.level}
    (given.results / "matched.json").write_text(
        json.dumps(plain({"points": points, "levels": levels}), indent=1) + "\n"
    )
    for level, found in levels.items():
        print(f"refusal {level}\n\n{table(found, points)}\n")


if __name__ == "__main__":
    main()
