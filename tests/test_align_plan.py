"""`--plan` says what a run will cost and starts nothing."""

import json
import re

import pytest
from conftest import write_rows

from aligntax.cli import main

pytest.importorskip("trl")


@pytest.fixture
def plan(tiny_folder, survey_files, tmp_path, capsys):
    def call(*more):
        out = tmp_path / "out"
        words = ["align", str(tiny_folder), "--out", str(out), "--safety", str(survey_files.prompts), "--tasks",
                 str(survey_files.sums), "--protect-items", "4", "--plan", *more]  # fmt: skip
        capsys.readouterr()
        assert main(words) == 0
        told = capsys.readouterr().out
        assert not out.exists() and "Nothing was started" in " ".join(told.split())
        rows = re.findall(r"│ (.+?) +│ +([\d,]+) │ +([\d,]+) s │", told)
        memory = dict(re.findall(r"([a-z ]+?) ([\d.]+) GiB", told.replace("\n", " ")))
        return {name: int(tokens.replace(",", "")) for name, tokens, _ in rows}, memory

    return call


def test_tokens_follow_steps_and_draws(plan):
    one, _ = plan("--steps", "10")
    two, _ = plan("--steps", "20", "--draws", "3")
    assert two["training"] == pytest.approx(2 * one["training"], rel=1e-3)
    assert two["own replies"] > 1.5 * one["own replies"]
    assert one["all"] == sum(tokens for name, tokens in one.items() if name != "all")


def test_every_protection_has_its_phase(plan):
    bare, _ = plan()
    full, memory = plan("--protect", "nullspace,kl,gradient", "--depth", "recovery", "--tax-every", "5")
    assert {*full} - {*bare} == {
        "protected inputs",
        "reference",
        "held texts",
        "recovery",
        "capability losses",
        "tax while training",
    }
    assert any("null space" in name for name in memory) and any("capability gradients" in name for name in memory)


def test_bad_settings_are_said_before_the_plan(tiny_folder, tmp_path, capsys):
    assert main(["align", str(tiny_folder), "--plan", "--anchor-share", "1.0", "--out", str(tmp_path / "out")]) == 2
    assert "--anchor-share 1.0" in capsys.readouterr().err


def test_replies_that_the_user_wrote_are_not_asked_of_the_model(plan, survey_files, tmp_path):
    rows = [json.loads(line) for line in survey_files.prompts.read_text().splitlines()]
    answered = [row | ({} if row["harmful"] else {"completion": "Wait a day."}) for row in rows]
    few, _ = plan("--safety", str(write_rows(tmp_path / "answered.jsonl", answered)))
    assert few["own replies"] < plan()[0]["own replies"]
