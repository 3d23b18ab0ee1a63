"""`aligntax demo`: three steps and one page on a tiny model; a second run keeps what is there; a killed one goes on."""

import re
import sys

import pytest

from aligntax.cli import main
from aligntax.commands.align import AlignCommand
from aligntax.commands.survey import SurveyCommand
from aligntax.results import read_align, read_audit, read_survey

pytest.importorskip("trl")
GROUPS = 5
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]


def arguments(model, files, out):
    return ["demo", str(model), "--out", str(out), "--steps", "2", "--safety", str(files.prompts), "--tasks",
            str(files.sums), str(files.words), "--groups", str(GROUPS), "--quiet"]  # fmt: skip


@pytest.fixture(scope="module")
def looped(tiny_folder, survey_files, tmp_path_factory):
    out = tmp_path_factory.mktemp("loop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AlignCommand, "execute", lambda self: pytest.fail("killed here"))
        with pytest.raises(pytest.fail.Exception):
            main(arguments(tiny_folder, survey_files, out))
    assert (out / "survey" / "survey.json").exists() and not (out / "report.html").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SurveyCommand, "execute", lambda self: pytest.fail("a finished survey ran again"))
        assert main(arguments(tiny_folder, survey_files, out)) == 0
    return out


def test_the_audit_is_of_the_trained_model_and_scores_the_survey(looped):
    survey, align, audit = read_survey(looped / "survey"), read_align(looped / "align"), read_audit(looped / "audit")
    assert audit.provenance.survey_weights == survey.provenance.weights_sha256 == align.provenance.weights_sha256
    assert audit.provenance.base_weights == survey.provenance.weights_sha256 != audit.provenance.aligned_weights
    assert align.depth == "recovery" and align.protect == ["kl"] and align.lora_rank > 0
    assert {t.task for t in audit.tax} == {"sums", "words"} and all(t.forecast is not None for t in audit.tax)


def test_the_page_tells_the_loop_in_order_and_leads_to_the_steps(looped):
    page = (looped / "report.html").read_text()
    parts = ["Before training, the survey said", "Then the model was trained", "Afterwards, the audit found"]
    parts += [
        "demo size: intervals are wide",
        "1. The forecast",
        "3. The bill",
        "4. The depth",
        "5. Did the forecast hold?",
    ]
    order = [page.index(part) for part in parts]
    assert order == sorted(order)
    links = re.findall(r'href="([^#"]+)"', page)
    assert links and all((looped / link).is_file() for link in links)
    assert "<script" not in page and "default-src 'none'" in page


def test_the_same_demo_again_runs_no_step(looped, tiny_folder, survey_files, monkeypatch):
    before = (looped / "report.html").read_bytes()
    for kind in ("survey.SurveyCommand", "align.AlignCommand", "audit.AuditCommand"):
        monkeypatch.setattr(f"aligntax.commands.{kind}.execute", lambda self: pytest.fail("ran again"))
    assert main(arguments(tiny_folder, survey_files, looped)) == 0
    (looped / "report.html").unlink()
    assert main(["report", str(looped)]) == 0
    assert (looped / "report.html").read_bytes() == before


def test_each_step_can_be_repeated_from_its_record(looped, monkeypatch):
    ran = []
    for name, kind in (("survey", "SurveyCommand"), ("align", "AlignCommand"), ("audit", "AuditCommand")):
        monkeypatch.setattr(
            f"aligntax.commands.{name}.{kind}.execute", lambda self, name=name: ran.append((name, self.out))
        )
        assert main([str(looped / name / "run.yaml")]) == 0
    assert ran == [(name, looped / name) for name in ("survey", "align", "audit")]


def test_other_settings_are_another_run(looped, tiny_folder, survey_files, capsys):
    assert main([*arguments(tiny_folder, survey_files, looped), "--steps", "3"]) == 2
    assert f"--out {looped} holds a demo with other steps; give another --out" in capsys.readouterr().err
    assert main(["demo", str(tiny_folder), "--steps", "0"]) == 2
    assert "--steps 0" in capsys.readouterr().err


def test_a_folder_without_results_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_plan_names_all_three_steps_and_writes_nothing(tiny_folder, survey_files, tmp_path, capsys):
    words = [word for word in arguments(tiny_folder, survey_files, tmp_path / "out") if word != "--quiet"]
    assert main([*words, "--plan"]) == 0
    shown = capsys.readouterr().out
    assert all(phase in shown for phase in ("capability gradients", "recovery", "next-token laws"))
    assert not (tmp_path / "out").exists() or not any(path.is_file() for path in (tmp_path / "out").rglob("*"))


def test_what_training_needs_is_asked_for_before_the_survey(tiny_folder, survey_files, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "trl", None)
    assert main(arguments(tiny_folder, survey_files, tmp_path / "out")) == 2
    assert "TRL" in capsys.readouterr().err and not (tmp_path / "out" / "survey").exists()
