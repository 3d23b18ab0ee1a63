"""Preference files: real transcripts train a policy and a reward model; a bad row is named."""

from pathlib import Path

import pytest
from conftest import write_rows

from aligntax.cli import main
from aligntax.data import read_preferences
from aligntax.results import read_align

pytest.importorskip("trl")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

HH = Path(__file__).parents[2] / "shared" / "data" / "preferences" / "hh_harmless.jsonl"


def align(folder, files, out, *more):
    return main(
        ["align", str(folder), "--out", str(out), "--safety", str(files.prompts), "--tasks", str(files.words), "--steps",
         "2", "--batch", "2", "--completion-tokens", "6", "--protect-items", "4", "--learning-rate", "1e-3", "--quiet", *more]
    )  # fmt: skip


@pytest.mark.skipif(not HH.exists(), reason="the public preference file hh_harmless.jsonl is not beside this checkout")
@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_public_transcripts_train_a_policy_and_a_reward_model(method, tiny_folder, survey_files, tmp_path):
    assert len(read_preferences(HH)) >= 900
    assert align(tiny_folder, survey_files, tmp_path / "out", "--method", method, "--preferences", str(HH)) == 0
    record = read_align(tmp_path / "out")
    # The reference scores every pair before the first step, so only what the run reads is drawn.
    assert record.counts["pairs"] == 4 == record.samples
    assert {f"preferences {HH}", "task words", str(survey_files.prompts)} == {*record.provenance.data}
    assert [entry["step"] for entry in record.steps if "loss" in entry] == [1.0, 2.0]


@pytest.mark.parametrize("pairs", ["--harmless-pairs", ""])
def test_harmless_pairs_are_added_to_those_of_harmful_requests(pairs, tiny_folder, survey_files, tmp_path):
    assert align(tiny_folder, survey_files, tmp_path / "out", "--method", "dpo", *filter(None, [pairs])) == 0
    counts = read_align(tmp_path / "out").counts
    assert counts["pairs"] - counts["harmful continuations"] == (
        pytest.approx(counts["anchors"], abs=counts["anchors"] - 1) if pairs else 0
    )


def test_likelihood_of_the_chosen_can_stand_beside_the_preference(tiny_folder, survey_files, tmp_path):
    (tmp_path / "both.yaml").write_text("loss_type: [sigmoid, sft]\nloss_weights: [1.0, 0.5]\n")
    assert (
        align(tiny_folder, survey_files, tmp_path / "out", "--method", "dpo", "--config", str(tmp_path / "both.yaml"))
        == 0
    )
    assert read_align(tmp_path / "out").steps


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": "Hi", "chosen": "A", "rejected": "B"}, {"prompt": "Hi", "rejected": "B"}], ("2", "'chosen'")),
        ([{"chosen": "A", "rejected": "B"}], ("1", "'chosen'")),
        ([{"prompt": "Hi", "chosen": "A", "rejected": "A"}], ("same in every row",)),
    ],
)
def test_a_bad_row_is_named_by_row_and_column(rows, said, tiny_folder, survey_files, tmp_path, capsys):
    file = write_rows(tmp_path / "bad.jsonl", rows)
    assert align(tiny_folder, survey_files, tmp_path / "out", "--method", "dpo", "--preferences", str(file)) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("aligntax: ") and "bad.jsonl" in line and all(part in line for part in said)


def test_harmless_pairs_without_a_method_that_reads_them(tiny_folder, survey_files, tmp_path, capsys):
    assert align(tiny_folder, survey_files, tmp_path / "out", "--harmless-pairs") == 2
    assert "--method sft reads none" in capsys.readouterr().err
