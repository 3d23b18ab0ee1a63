"""The benchmark of protections runs as it stands and writes every ratio it promises; timing itself is never asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "align.py"


def test_tiny_run_reports_a_ratio_for_each_protection_and_the_projectors_memory(tmp_path):
    words = [
        "--tiny",
        "--rounds",
        "1",
        "--steps",
        "1",
        "--only",
        "nullspace",
        "kl",
        "--json",
        str(tmp_path / "out.json"),
    ]
    subprocess.run([sys.executable, str(SCRIPT), *words], check=True, capture_output=True, timeout=240)
    found = json.loads((tmp_path / "out.json").read_text())
    lines = {line["name"]: line for line in found["lines"]}
    assert {"nullspace: step over plain", "kl: step over plain"} <= {*lines} and len(found["calibration_s"]) == 2
    assert lines["nullspace: step over plain"]["goal"] == "<= 1.1" and lines["kl: step over plain"]["value"] > 0
    # Start weights are kept once, and of protected and free directions the fewer: never more than half of d by d a matrix.
    assert lines["null space: start weights over weights"]["value"] == pytest.approx(1.0)
    assert 0 < lines["null space: bases over weights"]["value"] < 1
