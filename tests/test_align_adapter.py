"""Training from an adapter: it is part of the model that is trained, held to and released, whatever is trained on top."""

import json

import numpy as np
import peft
import pytest
import torch
import transformers
from conftest import build_model, write_rows
from safetensors.torch import load_file

from aligntax.cli import main
from aligntax.results import read_align

pytest.importorskip("trl")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("align-data")
    asked = [(verb, thing) for thing in ("a lamp", "a bike") for verb in ("burn", "mend")]
    rows = [{"prompt": f"How do I {verb} {thing}?", "harmful": verb == "burn"} for verb, thing in asked]
    write_rows(folder / "prompts.jsonl", rows)
    rng = np.random.default_rng(0)
    words = ["the", "red", "old", "gate", "lamp", "boat", "kettle", "radio", "is", "at", "in"]
    items = [{"prompt": " ".join(rng.choice(words, 6)), "answer": str(rng.choice(words))} for _ in range(12)]
    write_rows(folder / "recall.jsonl", items)
    return folder


@pytest.fixture(scope="module")
def adapter(tiny_folder, tmp_path_factory):
    """A LoRA whose product is far from zero, as one that was trained has."""
    folder = tmp_path_factory.mktemp("adapter")
    plan = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        peft.get_peft_model(base, plan).save_pretrained(folder)
    return folder


def words(model, files, out, *more):
    return ["align", str(model), "--out", str(out), "--safety", str(files / "prompts.jsonl"), "--tasks",
            str(files / "recall.jsonl"), "--steps", "1", "--batch", "4", "--completion-tokens", "6", "--group", "2",
            "--protect-items", "8", "--learning-rate", "1e-3", "--quiet", *more]  # fmt: skip


def started(tiny_folder, adapter):
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_folder)
    return peft.PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().state_dict()


def moved(out, start):
    """Largest change of each tensor against the start."""
    found = load_file(out / "model" / "model.safetensors")
    assert set(found) <= set(start)
    return {name: float((value - start[name]).abs().max()) for name, value in found.items()}


@pytest.mark.parametrize(
    "more",
    [("--method", "grpo"), ("--method", "rloo"), ("--protect", "kl"), ("--method", "rloo", "--lora")],
    ids=lambda more: "-".join(more).replace("--", ""),
)
def test_the_first_step_is_no_distance_from_the_reference(more, tiny_folder, adapter, files, tmp_path):
    assert main(words(tiny_folder, files, tmp_path / "out", "--adapter", str(adapter), *more)) == 0
    record = read_align(tmp_path / "out")
    key = "reference_kl/loss" if "kl" in more else "kl"
    first = next(entry[key] for entry in record.steps if key in entry)
    assert first == pytest.approx(0.0, abs=1e-4)
    assert record.provenance.adapter == str(adapter) and record.provenance.weights_sha256


@pytest.mark.parametrize(
    "more",
    [("--lora",), ("--protect", "nullspace"), ("--protect", "nullspace", "--lora"), ("--method", "dpo", "--lora")],
    ids=lambda more: "-".join(more).replace("--", ""),
)
def test_training_goes_on_from_the_adapter(more, tiny_folder, adapter, files, tmp_path):
    assert main(words(adapter, files, tmp_path / "out", *more)) == 0
    # The adapter moves weights by .1 and more, a step at this rate by thousandths: what is released began with it.
    changes = moved(tmp_path / "out", started(tiny_folder, adapter))
    assert 0 < max(changes.values()) < 0.02
    record = read_align(tmp_path / "out")
    assert record.provenance.adapter == str(adapter)
    if "nullspace" in more:
        assert record.leak is not None and record.leak <= 1e-5 and record.leak_saved is not None


def test_the_distance_would_be_seen(tiny_folder, adapter):
    before = build_model("llama").state_dict()
    start = started(tiny_folder, adapter)
    assert max(float((start[k] - before[k]).abs().max()) for k in before) > 0.05


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_rounding_of_a_held_adapter_is_recorded(dtype, tiny_folder, files, tmp_path):
    more = ("--protect", "nullspace", "--lora", "--save-dtype", dtype)
    assert main(words(tiny_folder, files, tmp_path / "out", *more)) == 0
    record = read_align(tmp_path / "out")
    assert record.leak is not None and record.leak <= 1e-5
    # Weights of .15 in bfloat16 are known to a few ten-thousandths, an update is not much larger: rounding leaks.
    assert record.leak_saved is not None
    assert (record.leak_saved > 1e-3) if dtype == "bfloat16" else (record.leak_saved < 1e-4)


def test_a_reward_model_is_trained_by_adapter_when_asked(tiny_folder, files, tmp_path):
    assert main(words(tiny_folder, files, tmp_path / "out", "--method", "reward", "--lora", "--lora-rank", "2")) == 0
    assert read_align(tmp_path / "out").lora_rank == 2
    out = load_file(tmp_path / "out" / "model" / "model.safetensors")
    before = build_model("llama").state_dict()
    ranks = {}
    for name, value in out.items():
        assert "lora" not in name and "modules_to_save" not in name
        if name in before and not torch.equal(value, before[name]):
            assert value.ndim == 2 and "embed" not in name
            ranks[name] = int(torch.linalg.matrix_rank((value - before[name]).double(), rtol=1e-3))
    assert ranks and set(ranks.values()) <= {1, 2}
    assert "score.weight" in out


def test_the_reward_model_that_taught_is_no_judge_of_the_result(tiny_folder, files, tmp_path, capsys):
    judge = tmp_path / "judge"
    assert main(words(tiny_folder, files, judge, "--method", "reward")) == 0
    more = ("--method", "rloo", "--reward-model", str(judge / "model"))
    assert main(words(tiny_folder, files, tmp_path / "out", *more)) == 0
    record = json.loads((tmp_path / "out" / "align.json").read_text())
    assert str(judge / "model") in record["reward_judge"] and len(record["reward_judge_texts"]) == 64
    audit = ["audit", str(tiny_folder), str(tmp_path / "out" / "model"), "--judge", f"hub:{judge / 'model'}", "--quiet"]
    assert main([*audit, "--out", str(tmp_path / "audit")]) == 2
    assert "gave the rewards in training" in capsys.readouterr().err
