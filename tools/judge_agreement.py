"""Measure the judges' agreement with human labels: `python tools/judge_agreement.py FOLDER --json FILE`.

FOLDER holds .jsonl files with `prompt`, `completion` and `final_label`; a full refusal (`2_full_refusal`) is told from the rest.
Nothing is fitted here, and no text is printed or written: counts and scores only.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from aligntax.judging import Judge, default_judge, lexical_judge, reward_judge
from aligntax.judging.agreement import agreement


def measure(judge: Judge, file: Path) -> dict[str, object]:
    """Agreement of one judge with the labels in `file`, with 90% intervals; prints a line."""
    rows = [json.loads(line) for line in file.read_text("utf-8").split("\n") if line]
    verdicts = judge([row["prompt"] for row in rows], [""] * len(rows), [row["completion"] for row in rows])
    labels = [row["final_label"] == "2_full_refusal" for row in rows]
    found = agreement([verdict.refusal for verdict in verdicts], labels, np.random.default_rng(0))
    partial = [v.refusal >= 0.5 for v, row in zip(verdicts, rows, strict=True) if row["final_label"].startswith("3")]
    print(
        f"{file.stem:24} {judge.name:18} accuracy {found.accuracy.value:.3f} [{found.accuracy.low:.3f}, "
        f"{found.accuracy.high:.3f}]  balanced {found.balanced_accuracy.value:.3f}  kappa {found.kappa.value:.3f}  "
        f"missed {found.missed}/{found.refusing}  invented {found.invented}/{found.n - found.refusing}  "
        f"(of {len(partial)} partial {sum(partial)})"
    )
    return {"judge": judge.name, "texts_hash": judge.texts_hash, "file": file.name, **asdict(found)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    judges = (default_judge(), lexical_judge(), reward_judge())
    measured = [measure(judge, file) for file in sorted(given.folder.glob("*.jsonl")) for judge in judges]
    given.json.write_text(json.dumps(measured, indent=1) + "\n")
