"""`aligntax align` through `main(args)`: each method makes a plain folder and a record, a killed run goes on, bad input is said."""

import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
import yaml
from conftest import write_rows
from safetensors.torch import load_file

from aligntax.cli import main
from aligntax.commands import alignment_output
from aligntax.data import read_preferences, write_recovery, write_refusal
from aligntax.data.refusals import refusal_categories
from aligntax.errors import AligntaxError, DataError
from aligntax.results import read_align

pytest.importorskip("trl")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("align-data")
    things = ["the lamp", "a kettle", "my bike", "the gate", "a boat", "this radio"]
    write_rows(
        folder / "prompts.jsonl",
        [
            {"prompt": f"How do I {verb} {thing}?", "harmful": verb == "burn"}
            for thing in things
            for verb in ("burn", "mend")
        ],
    )
    rng = np.random.default_rng(0)
    words = ["the", "red", "old", "gate", "lamp", "boat", "kettle", "radio", "is", "at", "in"]
    items = [{"prompt": " ".join(rng.choice(words, 6)), "answer": str(rng.choice(words))} for _ in range(30)]
    write_rows(folder / "recall.jsonl", items)
    return folder


def run(folder, files, out, *more, steps=2):
    return main(
        ["align", str(folder), "--out", str(out), "--safety", str(files / "prompts.jsonl"), "--tasks",
         str(files / "recall.jsonl"), "--steps", str(steps), "--batch", "4", "--completion-tokens", "6", "--group", "2",
         "--protect-items", "8", "--learning-rate", "1e-3", "--quiet", *more]
    )  # fmt: skip


def weights(out):
    return load_file(out / "model" / "model.safetensors")


@pytest.mark.parametrize(
    "more",
    [
        ("--protect", "nullspace,kl,gradient,replay", "--depth", "recovery", "--tax-every", "1"),
        ("--depth", "augmentation", "--lora"),
        ("--goal", "capability", "--protect", "safety"),
        ("--method", "dpo", "--protect", "kl"),
        ("--method", "grpo", "--adaptive-kl", "1"),
        ("--method", "rloo", "--protect", "nullspace", "--lora"),
        ("--method", "reward"),
    ],
    ids=lambda more: "-".join(more).replace("--", ""),
)
def test_each_recipe_leaves_a_plain_folder_and_a_record(more, tiny_folder, files, tmp_path):
    assert run(tiny_folder, files, tmp_path / "out", *more) == 0
    record = read_align(tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"model", "state", "align.json", "report.html", "run.yaml"}
    assert not [p for p in (tmp_path / "out" / "model").rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl")]
    kind = "SequenceClassification" if "reward" in more else "CausalLM"
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(tmp_path / "out" / "model")
    before = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder).state_dict()
    moved = [k for k, v in model.state_dict().items() if k in before and not torch.equal(v, before[k])]
    assert moved and not any("embed" in k or "lm_head" in k for k in moved if "reward" not in more)
    assert record.samples == 8 and [e["step"] for e in record.steps if "loss" in e][:2] == [1.0, 2.0]
    assert record.provenance.weights_sha256 and record.counts["refusals"] == 6
    assert stat.S_IMODE(os.stat(tmp_path / "out" / "state").st_mode) == 0o700
    if "nullspace" in " ".join(more) or "safety" in more:
        assert record.leak is not None and record.leak <= 1e-5
        assert all(0 < rank < width for rank, width in record.kept_rank.values())
    if "grpo" in more:
        assert record.reward_judge and record.reward_judge_texts
        assert all("beta" in e for e in record.steps if "kl" in e)
    if "recovery" in more:
        assert record.recovery_tokens and any("recovery/mass" in e for e in record.steps) and record.tax
    again = yaml.safe_load((tmp_path / "out" / "run.yaml").read_text())
    assert again["command"] == "align" and again["steps"] == 2


def test_a_killed_run_resumes_to_the_same_weights(tiny_folder, files, tmp_path, monkeypatch):
    more = ("--protect", "kl,nullspace", "--depth", "recovery", "--save-every", "2")
    assert run(tiny_folder, files, tmp_path / "straight", *more, steps=4) == 0
    assert run(tiny_folder, files, tmp_path / "killed", *more, steps=4) == 0
    # What a kill after step 2 leaves: state of step 2, nothing released.
    (tmp_path / "killed" / "align.json").unlink()
    for path in (tmp_path / "killed" / "model").iterdir():
        path.unlink()
    last = tmp_path / "killed" / "state" / "checkpoint-4"
    (last / "trainer_state.json").unlink()
    (last.with_name("checkpoint-2") / alignment_output.ELAPSED).write_text("1000.0")
    paces = []
    monkeypatch.setattr(alignment_output, "whole_run", lambda seconds, *steps: paces.append(steps) or seconds)
    assert run(tiny_folder, files, tmp_path / "killed", *more, "--resume", steps=4) == 0
    assert paces == [(2, 4)]
    took = [read_align(tmp_path / name).provenance.wall_seconds for name in ("straight", "killed")]
    assert took[0] < 1000.0 < took[1] < 2000.0
    one, other = weights(tmp_path / "straight"), weights(tmp_path / "killed")
    assert max(float((one[k] - other[k]).abs().max()) for k in one) < 1e-6
    curves = [[e.get("loss") for e in read_align(tmp_path / p).steps if "loss" in e] for p in ("straight", "killed")]
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)


def test_the_record_replays(tiny_folder, files, tmp_path):
    assert run(tiny_folder, files, tmp_path / "one") == 0
    record = yaml.safe_load((tmp_path / "one" / "run.yaml").read_text())
    record["out"] = str(tmp_path / "two")
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(record))
    assert main([str(tmp_path / "again.yaml")]) == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_two_processes_give_what_one_gives(tiny_folder, files, tmp_path):
    """Data-parallel on CPU: a batch of 4 on one process is 2 and 2 on two, with the null space kept by both."""
    more = ["--protect", "nullspace", "--steps", "2", "--learning-rate", "1e-3"]
    common = ["align", str(tiny_folder), "--safety", str(files / "prompts.jsonl"), "--tasks", str(files / "recall.jsonl"),
              "--completion-tokens", "6", "--protect-items", "8", "--quiet", *more]  # fmt: skip
    (tmp_path / "sgd.yaml").write_text("optim: sgd\nmax_grad_norm: 0.0\n")
    common += ["--config", str(tmp_path / "sgd.yaml")]
    assert main([*common, "--batch", "4", "--out", str(tmp_path / "one")]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", "aligntax",
         *common, "--batch", "2", "--out", str(tmp_path / "two")],
        capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    before = load_file(tiny_folder / "model.safetensors")
    assert read_align(tmp_path / "two").provenance.processes == 2
    step = max(float((one[k] - before[k]).abs().max()) for k in one)
    assert step > 0 and max(float((one[k] - two[k]).abs().max()) for k in one) < 0.02 * step


def test_hh_transcripts_and_trl_columns_are_read(tmp_path):
    write_rows(
        tmp_path / "hh.jsonl",
        [{"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: And?\n\nAssistant: No.",
          "rejected": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: And?\n\nAssistant: Yes."},
         {"prompt": "Hi", "chosen": "A", "rejected": "A"}],
    )  # fmt: skip
    (pair,) = read_preferences(tmp_path / "hh.jsonl")
    assert [t["role"] for t in pair["prompt"]] == ["user", "assistant", "user"]
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("No.", "Yes.")
    write_rows(
        tmp_path / "bad.jsonl", [{"prompt": "Hi", "chosen": "A", "rejected": "B"}, {"prompt": "Hi", "chosen": "A"}]
    )
    with pytest.raises(DataError, match=r"bad\.jsonl.*2.*'rejected'"):
        read_preferences(tmp_path / "bad.jsonl")


def test_refusals_are_varied_and_name_a_reason_and_an_alternative():
    prompts = [f"prompt number {k}" for k in range(200)]
    for kind in refusal_categories():
        texts = {write_refusal(p, kind) for p in prompts}
        assert len(texts) >= 40 and all(text.count(".") + text.count(";") >= 3 for text in texts)
    assert len({write_recovery(p) for p in prompts}) >= 20
    assert write_refusal("x") == write_refusal("x", "unheard-of")
    with pytest.raises(DataError, match="empty"):
        write_refusal("  ")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--protect", "magic"), "no protection 'magic'"),
        (("--protect", "directions"), "needs --survey"),
        (("--method", "reward", "--depth", "recovery"), "trains a judge"),
        (("--goal", "capability", "--method", "dpo"), "supervised"),
        (("--gamma", "1.5"), "1.5"),
        (("--recover", "half"), "DELTA@DEPTH"),
        (("--protect", "nullspace", "--energy", "1.0"), "empty null space"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
        (("--steps", "0"), "--steps 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(more, said, tiny_folder, files, tmp_path, capsys):
    assert run(tiny_folder, files, tmp_path / "out", *more) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("aligntax: ") and said in error


def test_a_folder_that_holds_another_run_is_not_touched(tiny_folder, files, tmp_path, capsys):
    assert run(tiny_folder, files, tmp_path / "out") == 0
    before = (tmp_path / "out" / "align.json").read_bytes()
    assert run(tiny_folder, files, tmp_path / "out") == 2
    assert "not empty" in capsys.readouterr().err
    assert run(tiny_folder, files, tmp_path / "out", "--resume", "--seed", "5") == 2
    assert "other seed" in capsys.readouterr().err
    assert (tmp_path / "out" / "align.json").read_bytes() == before


def test_a_config_with_an_unknown_field_names_it(tiny_folder, files, tmp_path, capsys):
    (tmp_path / "trl.yaml").write_text("warmup: 3\n")
    assert run(tiny_folder, files, tmp_path / "out", "--config", str(tmp_path / "trl.yaml")) == 2
    assert "SFTConfig has no field 'warmup'" in capsys.readouterr().err


def test_a_survey_of_other_weights_is_refused(tiny_folder, files, tmp_path):
    from aligntax.commands.protections import survey_subspace

    survey = tmp_path / "survey"
    assert main(["survey", str(tiny_folder), "--out", str(survey), "--size", "demo", "--quiet", "--no-linearity"]) == 0
    weights_hash = json.loads((survey / "survey.json").read_text())["provenance"]["weights_sha256"]
    ((layer, rows),) = survey_subspace(str(survey), weights_hash).items()
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=1e-5)
    assert layer >= 0
    with pytest.raises(AligntaxError, match="survey this model first"):
        survey_subspace(str(survey), "0" * 64)
