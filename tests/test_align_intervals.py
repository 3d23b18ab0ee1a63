"""Steps between renewals and measurements: they reach what they are of, the plan counts them, and bad ones are said at once."""

import re
from types import SimpleNamespace

import pytest
from test_training_callbacks import fresh, rows

from aligntax.cli import main
from aligntax.commands.align import AlignCommand
from aligntax.commands.protections import build

pytest.importorskip("trl")


def test_gradients_are_renewed_as_often_as_asked():
    command = AlignCommand("m", protect="gradient", renew_every=4)
    made = build(("gradient",), fresh(), ({}, rows(4), [], {}), command._settings())
    assert [callback.every for callback in made.callbacks] == [4]


@pytest.fixture
def planned(tiny_folder, survey_files, tmp_path, capsys):
    def call(*more):
        words = ["align", str(tiny_folder), "--safety", str(survey_files.prompts), "--tasks", str(survey_files.sums),
                 "--protect-items", "4", "--out", str(tmp_path / "out"), "--steps", "40", "--plan", *more]  # fmt: skip
        capsys.readouterr()
        code = main(words)
        told = capsys.readouterr()
        found = re.findall(r"│ (.+?) +│ +([\d,]+) │", told.out)
        return SimpleNamespace(code=code, error=told.err, tokens={a: int(b.replace(",", "")) for a, b in found})

    return call


def test_the_plan_counts_renewals_and_measurements(planned):
    seldom = planned("--protect", "gradient", "--renew-every", "20").tokens
    often = planned("--protect", "gradient", "--renew-every", "5", "--kl-every", "4").tokens
    assert often["capability losses"] == pytest.approx(4 * seldom["capability losses"], rel=1e-3)
    assert often["KL by position"] == pytest.approx(3 * seldom["KL by position"], rel=1e-3)  # 2 + 10 against 2 + 2
    assert "KL by position" not in planned("--kl-every", "0").tokens


@pytest.mark.parametrize("option", ["--renew-every 0", "--kl-every -1", "--tax-every -2"])
def test_bad_intervals_are_said_before_a_model_is_loaded(planned, option):
    found = planned(*option.split())
    assert found.code == 2 and option in " ".join(found.error.split())
