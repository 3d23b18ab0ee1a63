"""What reaches the trainer: rows that were laid out come in their order and shares, in one process as in several."""

import copy
from types import SimpleNamespace

import pytest
import torch
from conftest import build_model, build_tokenizer

from aligntax.commands.align import AlignCommand
from aligntax.commands.alignment_checks import RATES, checked, recipe_of, wanted_recovery
from aligntax.commands.alignment_reads import rows_of_a_run
from aligntax.commands.alignment_trainer import made_trainer
from aligntax.commands.protections import Protected
from aligntax.commands.record import chat_options
from aligntax.commands.trainers import configuration, make_trainer
from aligntax.data import ChatFormat
from aligntax.errors import AligntaxError

pytest.importorskip("trl")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]


def batches(command, folder, count=24):
    rows = [{"input_ids": [7 + k, 8, 9], "labels": [-100, 8, 9]} for k in range(count)]
    args = configuration(recipe_of(command), folder, "cpu", {}, True)
    model = copy.deepcopy(build_model("llama")).requires_grad_(True)
    trainer = make_trainer("sft", args, (model, copy.deepcopy(build_tokenizer()), rows), [])
    return [batch["input_ids"][:, 0].tolist() for batch in trainer.get_train_dataloader()]


@pytest.mark.parametrize("kind", ["stratified", "matched"])
def test_laid_out_rows_reach_the_trainer_as_they_stand(kind, tmp_path):
    found = batches(AlignCommand("m", tmp_path, batches=kind, batch=4), tmp_path)
    assert [k for batch in found for k in batch] == list(range(7, 31))


def test_random_rows_are_shuffled_by_the_trainer(tmp_path):
    found = [k for batch in batches(AlignCommand("m", tmp_path, batch=4), tmp_path) for k in batch]
    assert sorted(found) == list(range(7, 31)) != found


def test_a_run_reads_as_many_rows_as_its_steps_ask_for(tmp_path, monkeypatch):
    command = AlignCommand("m", tmp_path, steps=6, batch=4)
    assert rows_of_a_run(command) == 24
    (tmp_path / "trl.yaml").write_text("gradient_accumulation_steps: 2\nmax_steps: 5\n")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert rows_of_a_run(AlignCommand("m", tmp_path, batch=4, config=str(tmp_path / "trl.yaml"))) == 5 * 4 * 2 * 3


def test_rates_follow_what_is_trained_and_the_users_configuration_wins(tmp_path):
    assert recipe_of(AlignCommand("m")).learning_rate == RATES["full"]
    assert recipe_of(AlignCommand("m", lora=True)).learning_rate == RATES["lora"]
    assert recipe_of(AlignCommand("m", learning_rate=3e-3)).learning_rate == 3e-3
    (tmp_path / "trl.yaml").write_text("train_sampling_strategy: random\n")
    recipe = recipe_of(AlignCommand("m", batches="matched", config=str(tmp_path / "trl.yaml")))
    assert recipe.extra["train_sampling_strategy"] == "random"
    # A capability fine-tune has one kind of row, so nothing is laid out.
    assert "train_sampling_strategy" not in recipe_of(AlignCommand("m", batches="matched", goal="capability")).extra


@pytest.mark.parametrize("given", ['{"enable_thinking": false}', "{}"], ids=["given", "by default"])
def test_pairs_are_rendered_with_the_arguments_that_the_model_was_measured_with(given, tmp_path):
    tokenizer = copy.deepcopy(build_tokenizer())
    said = (
        "('(no thought)' if message['role'] == 'assistant' and enable_thinking is false else '') + message['content']"
    )
    begun = "'<|assistant|>' }}{% if enable_thinking is false %}(no thought){% endif %}{% endif"
    template = tokenizer.chat_template.replace("'<|assistant|>' }}{% endif", begun)
    tokenizer.chat_template = template.replace("message['content']", said)
    chat = ChatFormat(tokenizer, None, chat_options(given))
    model = copy.deepcopy(build_model("llama")).requires_grad_(True)
    turn = {"prompt": [{"role": "user", "content": "Sing"}]} | {
        name: [{"role": "assistant", "content": text}] for name, text in (("chosen", "No"), ("rejected", "Yes"))
    }
    texts = SimpleNamespace(pairs=[turn], conversations=[], prompts=[])
    command = AlignCommand("m", tmp_path, method="dpo", batch=2, depth="none", chat_template_kwargs=given, quiet=True)
    loaded = SimpleNamespace(device=torch.device("cpu"), tokenizer=tokenizer, adapter=None)
    trainer, _ = made_trainer(command, (model, loaded, chat), texts, Protected((), None, {}), tmp_path)
    assert trainer.train_dataset[0]["prompt_ids"] == chat.encode_prompt("Sing")


def test_wanted_recovery_is_a_probability_at_a_depth():
    assert wanted_recovery("") is None and wanted_recovery("0.5@20") == (0.5, 20)
    for text in ("0.5", "1@3", "0@3", "0.5@-1", "x@y"):
        with pytest.raises(AligntaxError, match=f"--recover '{text}'"):
            wanted_recovery(text)


def test_checked_names_protections_without_touching_a_model():
    assert checked(AlignCommand("no such model", protect="kl,safety", goal="capability")) == ("kl", "nullspace")
