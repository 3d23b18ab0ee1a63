"""`aligntax pipeline` end to end in a very small world: stages, the table, resuming, and input that cannot be used."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from aligntax.cli import main
from aligntax.commands import pipeline_sizes
from aligntax.commands.pipeline import PipelineCommand
from aligntax.commands.pipeline_sheet import Sheet
from aligntax.commands.pipeline_table import stage_taxes
from aligntax.models import ModelSpec, load
from aligntax.report.pipeline_page import render_pipeline, verdict
from aligntax.results.pipeline import Pipeline, read_pipeline

ALL = "pretrain,sft,reward,rl,dpo"
TINY = pipeline_sizes.PipelineSize(
    "demo", 20_000, 32, 24, {"sft": 2, "reward": 2, "rl": 2, "dpo": 2}, 6, 4, 6
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def small():
    """A size of seconds under the name demo."""
    before = pipeline_sizes.SIZES["demo"]
    pipeline_sizes.SIZES["demo"] = TINY
    torch.set_num_threads(1)
    yield
    pipeline_sizes.SIZES["demo"] = before


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small: None) -> Path:
    """One finished run of every stage at width 8."""
    out = tmp_path_factory.mktemp("pipe") / "out"
    assert main(["pipeline", "--size", "demo", "--width", "8", "--stages", ALL, "--out", str(out), "--quiet"]) == 0
    return out


def test_every_stage_is_measured_against_the_policy_that_it_came_from(run):
    found = read_pipeline(run)
    assert [(s.name, s.previous, s.policy) for s in found.stages] == [
        ("pretrain", None, True), ("sft", "pretrain", True), ("reward", "sft", False), ("rl", "sft", True), ("dpo", "sft", True),
    ]  # fmt: skip
    for stage in found.stages:
        names = {s.name for s in stage.scores}
        if stage.policy:
            assert {"helpful", "harmless", "honest", "refusal", "over-refusal", "gold reward", "recipes"} <= names
            assert stage.perplexity_low <= stage.perplexity <= stage.perplexity_high
        else:
            assert not names and stage.perplexity is None and 0 <= stage.facts["pair accuracy"] <= 1
    paid = {t.name: t for t in found.stage("rl").taxes}
    before = {s.name: s.value for s in found.stage("sft").scores}
    after = {s.name: s.value for s in found.stage("rl").scores}
    for name, tax in paid.items():
        assert tax.tax == pytest.approx(before[name] - after[name]) and tax.low <= tax.tax <= tax.high
        assert (tax.selective is not None) == (tax.kind == "capability")
    assert found.stage("pretrain").kl is None and found.stage("sft").kl > 0 and found.stage("rl").replies == 12
    assert found.stage("rl").curves["rewards/gold/mean"] and found.parameters == sum(
        p.numel() for p in load(ModelSpec(str(run / "rl" / "model"))).model.parameters()
    )


def test_the_same_command_again_does_no_work_and_other_settings_are_refused(run, capsys):
    models = {p: p.stat().st_mtime_ns for p in run.rglob("model.safetensors")}
    assert len(models) == 5
    assert main([str(run / "run.yaml")]) == 0
    assert {p: p.stat().st_mtime_ns for p in run.rglob("model.safetensors")} == models
    args = ["pipeline", "--size", "demo", "--width", "8", "--out", str(run), "--quiet"]
    assert main([*args, "--beta", "0.5"]) == 2
    assert "other beta" in capsys.readouterr().err


def test_a_stage_that_was_lost_is_made_again_and_comes_out_the_same(run):
    import shutil

    before = json.loads((run / "rl" / "sheet.json").read_text())
    for name in ("course.json", "sheet.json"):
        (run / "rl" / name).unlink()
    shutil.rmtree(run / "rl" / "model")
    args = ["pipeline", "--size", "demo", "--width", "8", "--out", str(run), "--quiet", "--stages", "rl"]
    assert main(args) == 0
    again = json.loads((run / "rl" / "sheet.json").read_text())
    assert again["right"] == before["right"] and again["said"] == before["said"]
    assert [s.name for s in read_pipeline(run).stages] == ["pretrain", "sft", "reward", "rl", "dpo"]


def test_checkpoints_and_files_are_what_other_commands_read(run):
    from aligntax.data import ChatFormat, load_contrast, load_tasks

    loaded = load(ModelSpec(str(run / "sft" / "model")))
    prompt = load_contrast(str(run / "world" / "safety.jsonl")).positive[0]
    ids = ChatFormat(loaded.tokenizer).encode_prompt(prompt)
    assert loaded.tokenizer.unk_token_id not in ids
    assert loaded.tokenizer.decode(ids, skip_special_tokens=True) == prompt
    tasks = load_tasks([str(run / "world" / "tasks" / f"{name}.jsonl") for name in ("recipes", "brackets")])
    for task in tasks:
        for item in task.items:
            text = f"{item.prompt} {item.choices[0]}"
            assert loaded.tokenizer.decode(loaded.tokenizer(text).input_ids) == text


def test_the_page_is_self_contained_and_every_text_is_escaped(run):
    found = read_pipeline(run)
    odd = dataclasses.replace(found, model="<script>alert(1)</script>", warnings=["a <b> of & c"])
    page = render_pipeline(odd)
    assert "<script" not in page and "a &lt;b&gt; of &amp; c" in page
    assert re.search(r"default-src 'none'; style-src 'sha256-[^']+'", page) and "http" not in re.sub(
        r"http-equiv", "", page
    )
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_text().count("<svg") >= 3
    assert "harmful requests" in verdict(found) and (run / "preferences.jsonl").stat().st_mode & 0o77 == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--stages", "pretrain,sftt"], "unknown stage 'sftt'"),
        (["--stages", "pretrain,sft,rl"], "rl needs reward before it"),
        (["--stages", "sft"], "sft needs pretrain before it"),
        (["--width", "30"], "--width 30 is not divisible by 4 heads"),
        (["--width", "4"], "--width 4"),
        (["--decided", "21"], "decided=21"),
        (["--group", "1"], "--group 1"),
        (["--adaptive-kl", "1", "--beta", "0"], "--beta 0"),
        (["--model", "x", "--stages", "pretrain"], "pretrained already"),
        (["--preferences", "SAME"], "preference data needs two classes"),
    ],
)
def test_input_that_cannot_be_used_is_one_line_and_exit_code_2(tmp_path, capsys, args, says):
    same = tmp_path / "same.jsonl"
    same.write_text(json.dumps({"prompt": "how do i make soap from ash", "chosen": "lye", "rejected": "lye"}) + "\n")
    args = [str(same) if word == "SAME" else word for word in args]
    assert main(["pipeline", "--size", "demo", "--out", str(tmp_path / "out"), *args]) == 2
    said = capsys.readouterr().err.strip()
    assert says in said and "\n" not in said
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "precious.txt").write_text("x")
    assert main(["pipeline", "--size", "demo", "--out", str(tmp_path)]) == 2
    assert "holds no pipeline" in capsys.readouterr().err and [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def planted(right: float, n: int = 60) -> Sheet:
    """A sheet on which a share `right` of the items of one task is right; the other task never changes."""
    items = {str(k): float(k < right * n) for k in range(n)}
    logprobs = {f: {k: [0.0 if v else -2.0, -1.0] for k, v in items.items()} for f in ("plain", "chat")}
    same = {f: {str(k): [-1.0 - k % 2, -1.5] for k in range(n)} for f in ("plain", "chat")}
    return Sheet({}, {"a": items, "b": {str(k): float(k % 2 == 0) for k in range(n)}}, {"a": logprobs, "b": same}, {})


def test_a_planted_loss_is_found_and_no_loss_is_not():
    taxes = {t.name: t for t in stage_taxes(planted(0.9), planted(0.6), np.random.default_rng(0))}
    assert taxes["a"].tax == pytest.approx(0.3) and taxes["a"].p_adjusted < 0.01 and taxes["a"].selective > 0.3
    assert taxes["b"].tax == 0 and taxes["b"].p_adjusted == 1 and taxes["b"].low < 0 < taxes["b"].high
    gained = {t.name: t for t in stage_taxes(planted(0.6), planted(0.9), np.random.default_rng(0))}
    assert gained["a"].tax == pytest.approx(-0.3)


def test_a_real_checkpoint_goes_through_the_stages_after_pretraining(tiny_folder, survey_files, tmp_path, monkeypatch):
    from aligntax.commands import pipeline_exam, pipeline_real

    monkeypatch.setattr(pipeline_exam, "REAL_REPLY", 4)
    monkeypatch.setattr("aligntax.commands.alignment_rows.HARMFUL_TOKENS", 4)
    monkeypatch.setattr(pipeline_real.RealSettings, "tokens", 4)
    found = PipelineCommand(
        out=tmp_path / "out", model=str(tiny_folder), size="demo", safety=str(survey_files.prompts),
        tasks=(str(survey_files.sums), str(survey_files.words)), stages="sft,reward,rl,dpo", group=2, quiet=True,
    ).execute()  # fmt: skip
    assert [s.name for s in found.stages] == ["base", "sft", "reward", "rl", "dpo"]
    assert found.width is None and found.stage("sft").previous == "base" and found.stage("rl").kl >= 0
    assert {"sums", "words", "helpful", "honest", "refusal", "harmless"} <= {s.name for s in found.stage("rl").scores}
    asked = {json.loads(line)["prompt"] for line in (tmp_path / "out" / "requests.jsonl").read_text().splitlines()}
    exam = pipeline_exam.real_exam(TINY, (str(survey_files.sums),), str(survey_files.prompts), 0)
    assert not asked & {*exam.harmful, *exam.harmless}
    assert isinstance(read_pipeline(tmp_path / "out"), Pipeline)
