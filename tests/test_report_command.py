"""`aligntax report` renders what lies in a folder, whichever command wrote it."""

import dataclasses
from pathlib import Path

import pytest
from align_example import example_align, example_held
from audit_example import example_audit
from merge_example import example_merge
from pipeline_example import example_pipeline
from scale_example import example_scale
from survey_example import example_survey

from aligntax.cli import main
from aligntax.report import render_audit, render_html
from aligntax.report.align_page import render_align
from aligntax.report.merge_page import render_merge
from aligntax.report.pipeline_page import render_pipeline
from aligntax.report.scale_page import render_scale
from aligntax.results import plain, write_json

RESULTS = {
    "survey": (example_survey, render_html),
    "audit": (example_audit, render_audit),
    "pipeline": (example_pipeline, render_pipeline),
    "scale": (example_scale, render_scale),
    "align": (example_held, render_align),
    "merge": (example_merge, render_merge),
}
NEXT = {"survey": "align", "audit": "audit", "align": "audit", "merge": "audit", "scale": "align"}


@pytest.mark.parametrize("name", RESULTS)
def test_the_page_is_made_again_from_the_result_file_alone(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example, render = RESULTS[name]
    write_json(tmp_path / f"{name}.json", plain(example()))
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").read_text() == render(example())
    lines = capsys.readouterr().out.splitlines()
    assert f"Wrote: {tmp_path / 'report.html'}" in lines
    following = [line for line in lines if line.startswith("Next: aligntax ")]
    assert [line.split()[2] for line in following] == ([NEXT[name]] if name in NEXT else [])


def test_folders_of_several_commands_are_rendered_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, (example, _) in RESULTS.items():
        write_json(tmp_path / name / f"{name}.json", plain(example()))
    folders = sorted(tmp_path.iterdir())
    assert main(["report", *map(str, folders)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-len(folders) - 1 : -1] == [f"Wrote: {folder / 'report.html'}" for folder in folders]
    assert lines[-1].startswith("Next: aligntax align")


def test_the_way_on_from_an_adapter_and_from_a_reward_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = example_align()
    adapted = dataclasses.replace(run, provenance=dataclasses.replace(run.provenance, adapter="my-lora"))
    write_json(tmp_path / "a" / "align.json", plain(adapted))
    assert main(["report", str(tmp_path / "a")]) == 0
    assert f"Next: aligntax audit my-lora {tmp_path / 'a' / 'model'}" in capsys.readouterr().out
    write_json(tmp_path / "b" / "align.json", plain(dataclasses.replace(run, method="reward")))
    assert main(["report", str(tmp_path / "b")]) == 0
    assert f"--reward-model {tmp_path / 'b' / 'model'}" in capsys.readouterr().out


def test_the_way_on_keeps_the_options_of_the_run_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the command itself said it: the model as it was typed, its revision, its survey."""
    write_json(tmp_path / "survey.json", plain(example_survey()))
    (tmp_path / "run.yaml").write_text("command: survey\nmodel: org/name\nrevision: v2\nsystem: null\n")
    assert main(["report", str(tmp_path)]) == 0
    end = f"--survey {tmp_path} --protect kl --depth recovery --batches matched"
    assert capsys.readouterr().out.splitlines()[-1] == f"Next: aligntax align org/name --revision v2 {end}"
    (tmp_path / "survey.json").unlink()
    write_json(tmp_path / "merge.json", plain(example_merge()))
    (tmp_path / "run.yaml").write_text("command: merge\nbase: org/name\nsurvey: out/s\nrevision: v2\n")
    assert main(["report", str(tmp_path)]) == 0
    end = f"audit org/name {tmp_path} --revision v2 --survey out/s"
    assert capsys.readouterr().out.splitlines()[-1] == f"Next: aligntax {end}"


def test_a_folder_without_results_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 2
    said = " ".join("".join(capsys.readouterr()).split())
    assert "scale.json" in said and not (tmp_path / "report.html").exists()
