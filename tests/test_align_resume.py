"""A run goes on from its own state alone: the same settings, the same base, the same data."""

import dataclasses
import json
import shutil
import time

import pytest
from align_example import example_align
from safetensors.torch import load_file, save_file

from aligntax.cli import main
from aligntax.commands.alignment_folder import READ, WEIGHTS, Folder
from aligntax.commands.alignment_output import ELAPSED, Clock, whole_run
from aligntax.errors import AligntaxError
from aligntax.models import ModelSpec, load
from aligntax.results import write_json

pytest.importorskip("trl")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

ONE, OTHER = {WEIGHTS: "a" * 64, "task sums": "c" * 64}, {WEIGHTS: "b" * 64, "task sums": "c" * 64}


def folder(out, **settings):
    return Folder(out, {"seed": 0, **settings})


def noted(out):
    return json.loads((out / "state" / "run.json").read_text())


def test_a_state_of_nobody_is_not_resumed_from(tmp_path):
    (tmp_path / "state" / "checkpoint-4").mkdir(parents=True)
    with pytest.raises(AligntaxError, match="not written by this run; give --overwrite, or another --out"):
        folder(tmp_path).prepare(True, False)
    assert not (tmp_path / "state" / "run.json").exists()
    folder(tmp_path).prepare(False, True)
    assert not (tmp_path / "state" / "checkpoint-4").exists()


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_settings_that_cannot_be_read_are_said(text, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "run.json").write_text(text)
    with pytest.raises(AligntaxError, match=r"run\.json .*; give --overwrite"):
        folder(tmp_path).prepare(True, False)
    folder(tmp_path).prepare(False, True)
    assert noted(tmp_path) == {"seed": 0}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (OTHER, "the base's weights as aaaaaaaaaaaa, now it is bbbbbbbbbbbb"),
        ({**ONE, "task sums": "d" * 64}, "task sums as cccccccccccc, now it is dddddddddddd"),
        ({WEIGHTS: ONE[WEIGHTS]}, "task sums as cccccccccccc, now it is nothing"),
    ],
)
def test_what_was_read_must_be_the_same(now, said, tmp_path):
    place = folder(tmp_path)
    place.prepare(False, False)
    place.confirm(ONE)
    (tmp_path / "state" / "checkpoint-2").mkdir()
    place.prepare(True, False)
    place.confirm(ONE)
    with pytest.raises(AligntaxError, match=said):
        place.confirm(now)
    assert noted(tmp_path) == {"seed": 0, READ: ONE}


def test_a_run_that_took_no_step_holds_nobody_to_what_it_read(tmp_path):
    place = folder(tmp_path)
    place.prepare(False, False)
    place.confirm(ONE)
    place.prepare(True, False)
    place.confirm(OTHER)
    assert noted(tmp_path)[READ] == OTHER


def test_a_run_begun_anew_may_read_anything(tmp_path):
    place = folder(tmp_path)
    place.prepare(False, False)
    place.confirm(ONE)
    (tmp_path / "state" / "checkpoint-2").mkdir()
    place.prepare(False, True)
    place.confirm(OTHER)
    assert noted(tmp_path)[READ] == OTHER


def test_a_run_that_noted_nothing_is_compared_with_its_record_where_it_has_one(tmp_path):
    place = folder(tmp_path)
    place.prepare(False, False)
    (tmp_path / "state" / "checkpoint-2").mkdir()
    place.prepare(True, False)
    place.confirm(ONE)
    assert noted(tmp_path)[READ] == ONE
    place._note({"seed": 0})
    record = example_align()
    made = dataclasses.replace(record.provenance, weights_sha256=ONE[WEIGHTS], data={"task sums": "c" * 64})
    write_json(tmp_path / "align.json", dataclasses.replace(record, provenance=made))
    with pytest.raises(AligntaxError, match="the base's weights as aaaaaaaaaaaa"):
        place.confirm(OTHER)
    place.confirm(ONE)


def test_a_changed_base_is_said_before_anything_is_trained(tiny_folder, survey_files, tmp_path, capsys):
    base = tmp_path / "base"
    shutil.copytree(tiny_folder, base)
    words = ["align", str(base), "--out", str(tmp_path / "out"), "--safety", str(survey_files.prompts), "--tasks",
             str(survey_files.words), "--steps", "2", "--batch", "2", "--save-every", "1", "--completion-tokens", "4",
             "--protect-items", "4", "--quiet"]  # fmt: skip
    assert main(words) == 0
    before = load(ModelSpec(str(base))).weights_sha256
    tensors = {name: tensor.clone() for name, tensor in load_file(base / "model.safetensors").items()}
    next(iter(tensors.values())).add_(1e-3)
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    after = load(ModelSpec(str(base))).weights_sha256
    capsys.readouterr()
    assert main([*words, "--resume"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("aligntax: ")]
    assert len(lines) == 1 and before[:12] in lines[0] and after[:12] in lines[0] and before != after


def test_the_pace_of_a_resumed_run_is_that_of_its_last_part():
    assert whole_run(30.0, 0, 10) == 30.0 and whole_run(30.0, 4, 10) == 50.0 and whole_run(2.0, 10, 10) == 2.0


def test_a_note_of_seconds_that_is_none_is_said(tmp_path):
    state = tmp_path / "checkpoint-2"
    state.mkdir()
    assert Clock(time.perf_counter(), str(state)).seconds() < 60.0
    (state / ELAPSED).write_text("[]")
    with pytest.raises(AligntaxError, match=r"elapsed\.json holds no number of seconds"):
        Clock(time.perf_counter(), str(state))
