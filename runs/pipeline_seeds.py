"""Several seeds of `aligntax pipeline` as one: scores by stage and what each stage took, with t intervals over seeds.

    python runs/pipeline_seeds.py out/pipeline-0 out/pipeline-1 out/pipeline-2

Seeds are worlds of their own, so an interval speaks of worlds. Writes runs/pipeline/seeds.json and prints both tables.
"""

import argparse
from pathlib import Path
from typing import Any

from tradeoff_claims import over_seeds

from aligntax.lab.world import INTRINSIC
from aligntax.results import write_json
from aligntax.results.pipeline import Pipeline, read_pipeline

PLACE = Path("runs/pipeline/seeds.json")


def scores(runs: list[Pipeline]) -> dict[str, dict[str, dict[str, Any]]]:
    """Stage -> score -> mean over seeds; `capability` is the mean over tasks."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for stages in zip(*(run.stages for run in runs), strict=True):
        if not stages[0].scores:
            continue
        columns = [{score.name: score.value for score in stage.scores} for stage in stages]
        kinds = {score.name: score.kind for score in stages[0].scores}
        tasks = [name for name, kind in kinds.items() if kind == "capability"]
        for column, stage in zip(columns, stages, strict=True):
            column |= {"capability": sum(column[name] for name in tasks) / len(tasks), "perplexity": stage.perplexity}
            column |= {"KL, nats a reply": stage.kl}
        names = [name for name in columns[0] if all(column[name] is not None for column in columns)]
        found[stages[0].name] = {name: over_seeds([column[name] for column in columns]) for name in names}
    return found


def taxes(runs: list[Pipeline]) -> dict[str, dict[str, dict[str, Any]]]:
    """Stage -> task -> accuracy lost in it, and how much more the tasks lose that share structure with safety."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for stages in zip(*(run.stages for run in runs), strict=True):
        if not stages[0].taxes:
            continue
        lost = [{tax.name: tax.tax for tax in stage.taxes if tax.kind == "capability"} for stage in stages]
        row = {name: over_seeds([one[name] for one in lost]) for name in lost[0]}
        ahead = [_mean(one, True) - _mean(one, False) for one in lost]
        found[stages[0].name] = row | {"intrinsic - incidental": over_seeds(ahead)}
    return found


def _mean(lost: dict[str, float], intrinsic: bool) -> float:
    values = [value for name, value in lost.items() if (name in INTRINSIC) == intrinsic]
    return sum(values) / len(values)


def table(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Stages down, numbers across, as Markdown."""
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for stage, row in found.items():
        cells = [_cell(row[name]) if name in row else "" for name in names]
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(one: dict[str, Any]) -> str:
    return (
        f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]" if one["low"] is not None else f"{one['value']:.2f}"
    )


def main() -> None:
    """Read, combine, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    runs = [read_pipeline(folder) for folder in parser.parse_args().folders]
    found = {"seeds": [run.provenance.seed for run in runs], "width": runs[0].width, "size": runs[0].size}
    found |= {"seconds": [sum(stage.seconds for stage in run.stages) for run in runs]}
    found |= {"scores": scores(runs), "taxes": taxes(runs)}
    write_json(PLACE, found)
    print(table(found["scores"]), table(found["taxes"]), sep="\n\n")


if __name__ == "__main__":
    main()
