"""Facts about the house itself: who imports whom, what is public, what a wheel would carry."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_import_contracts_hold():
    runner = Path(sys.executable).parent / "lint-imports"
    if not runner.exists():
        pytest.skip("import-linter is not installed; pip install -e '.[dev]'")
    done = subprocess.run([runner], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_report_and_results_load_no_model_library():
    code = "import sys, aligntax.report, aligntax.results; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_geometry_names():
    from aligntax import geometry

    for name in [
        "tax_rate",
        "signed_cosines",
        "principal_angles",
        "single_frontier",
        "max_safety",
        "max_safety_with_tolerances",
        "packing_law",
    ]:
        assert callable(getattr(geometry, name))


def test_no_room_is_a_dumping_ground():
    names = {path.name for path in (ROOT / "src").rglob("*.py")}
    assert not names & {"utils.py", "common.py", "helpers.py", "misc.py"}


def test_builtin_data_is_inside_the_package():
    folder = files("aligntax.data").joinpath("builtin")
    assert len([f for f in folder.joinpath("tasks").iterdir() if f.name.endswith(".jsonl")]) >= 12
    assert folder.joinpath("harmlessness.jsonl").is_file()
