"""The small world's model: its tokenizer, its sizes, pretraining that can be killed, and the policy trainers on it."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, TrainerCallback

from aligntax.commands import pipeline_model, pipeline_rows
from aligntax.commands.pipeline_model import (
    END,
    UNK,
    Pretraining,
    encode_documents,
    parameter_count,
    pretrain,
    tiny_model,
    vocabulary,
    world_tokenizer,
    write_checkpoint,
)
from aligntax.commands.pipeline_sizes import PipelineSize, ordered_stages, size_named
from aligntax.commands.pipeline_stages import Settings, curves_of, run_stage, split_pairs
from aligntax.data import ChatFormat
from aligntax.errors import AligntaxError
from aligntax.lab.world import World, documents, score

WORLD = World(0)
SMALL = Pretraining(tokens=6 * 4 * 128, batch=4, save_every=2)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_the_tokenizer_is_word_for_word_and_survives_a_folder(tmp_path):
    write_checkpoint(tiny_model(8), tmp_path / "m")
    for tokenizer in (world_tokenizer(), AutoTokenizer.from_pretrained(tmp_path / "m")):
        for document in islice(documents(WORLD), 60):
            ids = tokenizer(document.text).input_ids
            assert ids == [vocabulary()[word] for word in document.text.split()]
            assert tokenizer.decode(ids) == document.text
        chat = ChatFormat(tokenizer)
        assert chat.encode_prompt("12 plus 3 is")[-1] == vocabulary()["<assistant>"] and not chat.fallback
        assert tokenizer("sorry, zebra").input_ids[-1] == UNK


def test_documents_are_encoded_as_the_tokenizer_and_its_template_would():
    tokenizer, stream = world_tokenizer(), encode_documents(WORLD, 400, seed=3).tolist()
    rebuilt: list[int] = []
    for document in islice(documents(WORLD, 3), 60):
        if document.reply is None:
            rebuilt += [tokenizer.bos_token_id, *tokenizer(document.text).input_ids, END]
        else:
            turns = [{"role": "user", "content": document.text}, {"role": "assistant", "content": document.reply}]
            rebuilt += tokenizer.apply_chat_template(turns, return_dict=False)
    assert stream == rebuilt[:400] and UNK not in stream


@pytest.mark.parametrize("width", [8, 24, 64])
def test_sizes_and_seeds_of_the_model(width):
    model = tiny_model(width, seed=1)
    assert sum(p.numel() for p in model.parameters()) == parameter_count(width)
    same, other = tiny_model(width, seed=1), tiny_model(width, seed=2)
    pairs = zip(model.parameters(), same.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)


@pytest.mark.parametrize("width", [0, 4, 12, 30, -8])
def test_a_width_that_heads_do_not_divide_names_one_that_they_do(width):
    with pytest.raises(AligntaxError, match=f"--width {width} is not divisible by 4 heads"):
        tiny_model(width)


def test_killed_pretraining_goes_on_and_ends_where_it_would_have(tmp_path, monkeypatch):
    straight = pretrain(WORLD, 8, tmp_path / "straight", SMALL)
    assert straight.tokens == 6 * 4 * 128 and straight.tokens_per_second > 0 and len(straight.losses) == 6

    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 5:
                raise KeyboardInterrupt

    kind = pipeline_model.StopOnNonFinite
    monkeypatch.setattr(pipeline_model, "StopOnNonFinite", Kill)
    with pytest.raises(KeyboardInterrupt):
        pretrain(WORLD, 8, tmp_path / "killed", SMALL)
    assert not (tmp_path / "killed").exists()
    monkeypatch.setattr(pipeline_model, "StopOnNonFinite", kind)
    again = pretrain(WORLD, 8, tmp_path / "killed", SMALL)
    assert again.tokens == 2 * 4 * 128
    one, other = weights(tmp_path / "straight"), weights(tmp_path / "killed")
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)
    assert pretrain(WORLD, 8, tmp_path / "killed", SMALL).tokens == 0


def test_a_bad_rate_stops_with_a_line_and_leaves_no_folder(tmp_path):
    plan = Pretraining(tokens=12 * 4 * 128, batch=4, learning_rate=1e30)
    with pytest.raises(AligntaxError):
        pretrain(WORLD, 8, tmp_path / "m", plan)
    assert not (tmp_path / "m").exists()


def test_preferences_follow_the_gold_reward(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_rows, "said", lambda folder, prompts, tokens, seed: ["mint"] * len(prompts))
        with pytest.raises(AligntaxError, match="two classes"):
            pipeline_rows.preferences(WORLD, tmp_path, 20, 0)
        patch.setattr(
            pipeline_rows, "said", lambda f, prompts, t, seed: [("mint", "sorry no")[seed % 2]] * len(prompts)
        )
        pairs = pipeline_rows.preferences(WORLD, tmp_path, 20, 0)
    assert len(pairs) == 20
    for pair in pairs:
        prompt, chosen, rejected = (pair[k][-1]["content"] for k in ("prompt", "chosen", "rejected"))
        assert score(WORLD, prompt, chosen).gold > score(WORLD, prompt, rejected).gold


def test_demonstrations_are_mostly_good_and_learn_the_reply_only():
    rows = pipeline_rows.demonstrations(WORLD, 400, 0)
    asked = [r for r in rows if "lives in" not in r["prompt"][-1]["content"]]
    gold = [score(WORLD, r["prompt"][-1]["content"], r["completion"][-1]["content"]).gold for r in asked]
    assert 0.4 < sum(gold) / len(gold) < 0.8
    assert rows == pipeline_rows.demonstrations(WORLD, 400, 0) != pipeline_rows.demonstrations(WORLD, 400, 1)
    row = pipeline_rows.encoded(rows[:1], ChatFormat(world_tokenizer()))[0]
    learnt = [i for i in row["labels"] if i != -100]
    assert row["input_ids"][-len(learnt) :] == learnt and learnt[-1] == END
    assert world_tokenizer().decode(learnt[:-1]) == rows[0]["completion"][-1]["content"]


def test_grpo_with_the_gold_reward_and_adaptive_beta(tmp_path):
    write_checkpoint(tiny_model(8), tmp_path / "sft" / "model")
    size = PipelineSize("demo", 0, 8, 8, {"rl": 4}, 4, 4, 4)
    plan = Settings(WORLD, 8, size, method="grpo", beta=0.05, adaptive=50.0, group=4, gold=True)
    course = run_stage("rl", plan, tmp_path)
    # Two of four steps draw new replies: each batch of them is used twice.
    assert course.facts["steps"] == 4 and [step for step, _ in course.curves["rewards/gold/mean"]] == [1.0, 3.0]
    betas = [value for _, value in course.curves["beta"]]
    assert betas[0] >= 0.05 and all(0.05 <= beta <= 1.0 for beta in betas)
    assert not (tmp_path / "rl" / "state").exists() and (tmp_path / "rl" / "model" / "tokenizer.json").exists()


def test_kl_of_a_reply_is_kl_of_a_token_times_length():
    log = [{"step": 3, "kl": 0.1, "completions/mean_length": 12.0, "reward": 1.0}, {"step": 4, "loss": 2.0}]
    found = curves_of(log)
    assert found["kl"] == [(3.0, pytest.approx(1.2))] and found["kl per token"] == [(3.0, 0.1)]
    assert found["loss"] == [(4.0, 2.0)] and "accuracy" not in found


def test_held_pairs_are_never_learnt():
    pairs = [{"id": k} for k in range(40)]
    learnt, held = split_pairs(pairs)
    assert len(held) == 5 and not {p["id"] for p in learnt} & {p["id"] for p in held} and len(learnt) + len(held) == 40


def test_stages_are_ordered_and_need_what_comes_before():
    assert ordered_stages(["rl", "reward", "sft", "pretrain"], (), False) == ("pretrain", "sft", "reward", "rl")
    assert ordered_stages(["dpo", "sft"], (), True) == ("sft", "dpo")
    assert ordered_stages(["rl"], ("pretrain", "sft", "reward"), False) == ("rl",)
    with pytest.raises(AligntaxError, match="rl needs reward"):
        ordered_stages(["rl"], ("pretrain", "sft"), False)
    with pytest.raises(AligntaxError, match="unknown stage ''"):
        ordered_stages([], (), False)
    with pytest.raises(AligntaxError, match="unknown --size 'huge'"):
        size_named("huge")
