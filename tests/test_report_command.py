"""`aligntax report` renders what lies in a folder, whichever command wrote it."""

from pathlib import Path

import pytest
from audit_example import example_audit
from pipeline_example import example_pipeline
from scale_example import example_scale
from survey_example import example_survey

from aligntax.cli import main
from aligntax.report import render_audit, render_html
from aligntax.report.pipeline_page import render_pipeline
from aligntax.report.scale_page import render_scale
from aligntax.results import plain, write_json

RESULTS = {
    "survey": (example_survey, render_html),
    "audit": (example_audit, render_audit),
    "pipeline": (example_pipeline, render_pipeline),
    "scale": (example_scale, render_scale),
}


@pytest.mark.parametrize("name", RESULTS)
def test_the_page_is_made_again_from_the_result_file_alone(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example, render = RESULTS[name]
    write_json(tmp_path / f"{name}.json", plain(example()))
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").read_text() == render(example())
    assert "report.html" in capsys.readouterr().out.replace("\n", "")


def test_a_folder_without_results_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 2
    said = " ".join("".join(capsys.readouterr()).split())
    assert "scale.json" in said and not (tmp_path / "report.html").exists()
