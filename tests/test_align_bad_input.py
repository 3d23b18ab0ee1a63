"""What cannot be trained on is said in one line, with exit code 2, before it costs anything; what breaks off loses no good step."""

import pytest
import torch
from conftest import build_model, build_tokenizer, write_rows
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from aligntax.cli import main
from aligntax.models import ModelSpec, load
from aligntax.results import read_align

pytest.importorskip("trl")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture
def refused(tiny_folder, survey_files, tmp_path, capsys):
    """Align with more arguments, which must end in exit code 2; returns its one line."""

    def call(*more, base=None):
        words = ["align", str(base or tiny_folder), "--out", str(tmp_path / "out"), "--safety", str(survey_files.prompts),
                 "--tasks", str(survey_files.words), "--steps", "3", "--batch", "2", "--completion-tokens", "4",
                 "--protect-items", "4", "--quiet", *more]  # fmt: skip
        capsys.readouterr()
        assert main(words) == 2
        told = capsys.readouterr()
        lines = [line for line in told.err.strip().splitlines() if line.startswith("aligntax: ")]
        assert len(lines) == 1 and "Traceback" not in told.err + told.out
        assert not (tmp_path / "out" / "align.json").exists()
        return lines[0]

    return call


def test_an_empty_null_space_names_layer_and_rank(refused):
    told = refused("--protect", "nullspace", "--energy", "1.0")
    assert "model.layers.0" in told and "rank 32 of 32" in told and "lower the energy" in told


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": "a b", "harmful": True}, {"prompt": "c d"}], ("prompts.jsonl:2", "harmful")),
        ([{"prompt": "a b", "harmful": True}, {"harmful": False}], ("prompts.jsonl:2", "prompt")),
        ([{"prompt": "a b", "harmful": True}], ("harmless", "empty")),
    ],
)
def test_a_request_without_a_column_is_named_by_row_and_column(rows, said, refused, tmp_path):
    told = refused("--safety", str(write_rows(tmp_path / "prompts.jsonl", rows)))
    assert all(part in told for part in said)


def test_a_task_without_a_column_is_named_by_row_and_column(refused, tmp_path):
    rows = [{"prompt": "2 + 2 =", "answer": "4"}, {"prompt": "3 + 3 ="}]
    told = refused("--tasks", str(write_rows(tmp_path / "sums.jsonl", rows)))
    assert "sums.jsonl:2" in told and "answer" in told


@pytest.mark.parametrize("more", [(), ("--lora", "--protect", "kl")], ids=["full", "lora-kl"])
def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_good_weights(more, refused, tmp_path):
    told = refused("--learning-rate", "1e25", "--steps", "8", *more)
    step = int(told.rpartition("after step ")[2])
    assert f"at step {step + 1}" in told and str(tmp_path / "out" / "state" / f"checkpoint-{step}") in told
    (file,) = (tmp_path / "out" / "state" / f"checkpoint-{step}").glob("*model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(file).values())
    assert not (tmp_path / "out" / "model").exists()


def adapter(base, folder):
    wrapped = get_peft_model(load(ModelSpec(str(base))).model, LoraConfig(r=2, target_modules=["up_proj"]))
    wrapped.save_pretrained(folder)
    return folder


def test_an_adapter_of_another_base(refused, tiny_folder, tmp_path):
    build_model("llama", seed=5).save_pretrained(tmp_path / "other")
    build_tokenizer().save_pretrained(tmp_path / "other")
    told = refused("--adapter", str(adapter(tmp_path / "other", tmp_path / "lora")))
    assert str(tmp_path / "other") in told and str(tiny_folder) in told and "adapter" in told


def test_an_adapter_of_this_base_is_trained_on(tiny_folder, survey_files, tmp_path):
    words = ["align", str(tiny_folder), "--out", str(tmp_path / "out"), "--safety", str(survey_files.prompts), "--tasks",
             str(survey_files.words), "--steps", "1", "--batch", "2", "--completion-tokens", "4", "--quiet",
             "--adapter"]  # fmt: skip
    assert main([*words, str(adapter(tiny_folder, tmp_path / "lora"))]) == 0
    assert read_align(tmp_path / "out").provenance.adapter


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--draws", "0"), "--draws 0"),
        (("--anchor-share", "1"), "--anchor-share 1.0"),
        (("--alarming-share", "2"), "--alarming-share 2.0"),
        (("--preferences", "nowhere.jsonl", "--method", "dpo"), "nowhere.jsonl"),
        (("--survey", "nowhere"), "nowhere"),
    ],
)
def test_settings_repeat_the_value(more, said, refused):
    assert said in refused(*more)
