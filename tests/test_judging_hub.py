"""Hub classifiers and reward models as judges, on tiny random models in a folder."""

import math

import pytest
import torch
from conftest import build_tokenizer
from transformers import LlamaConfig, LlamaForSequenceClassification

from aligntax.errors import JudgeError
from aligntax.judging import make_judge, tally
from aligntax.judging.hub import label_map


def save(folder, labels: list[str]) -> str:
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForSequenceClassification(config)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


def test_a_classifier_scores_by_its_label_names(tmp_path):
    judge = make_judge(f"hub:{save(tmp_path, ['compliance', 'refusal'])}")
    other = make_judge(f"hub:{tmp_path}#refusal=compliance")
    verdict, opposite = judge("How?", "I", " can't."), other("How?", "I", " can't.")
    assert judge.measures == {"refusal"} and "refusal = refusal" in judge.name
    assert verdict.judged and math.isnan(verdict.harm)
    assert verdict.refusal + opposite.refusal == pytest.approx(1.0, abs=1e-5)
    assert math.isnan(tally([verdict]).harm)


def test_batches_and_padding_do_not_change_a_score(tmp_path):
    judge = make_judge(f"hub:{save(tmp_path, ['safe', 'unsafe'])}")
    texts = ["a", "a much longer reply than the first one", "b " * 200] * 4
    batch = judge(["How?"] * 12, [""] * 12, texts)
    single = [judge("How?", "", text) for text in texts]
    assert [v.harm for v in batch] == pytest.approx([v.harm for v in single], abs=1e-5)
    assert batch[0].harm != pytest.approx(batch[1].harm, abs=1e-6)


def test_prefill_and_continuation_are_one_response(tmp_path):
    judge = make_judge(f"hub:{save(tmp_path, ['safe', 'unsafe'])}")
    whole = judge("How?", "", "I cannot.").harm
    assert judge("How?", "I can", "not.").harm == whole
    assert judge("Why?", "", "I cannot.").harm != whole


def test_a_reward_model_gives_harm_only_and_says_how(tmp_path):
    judge = make_judge(f"hub:{save(tmp_path, ['LABEL_0'])}")
    verdict = judge("How?", "", "Yes.")
    assert judge.measures == {"harm"} and "sigmoid(-reward)" in judge.name
    assert 0 < verdict.harm < 1 and math.isnan(verdict.refusal)


def test_labels_without_meaning_must_be_named(tmp_path):
    save(tmp_path, ["LABEL_0", "LABEL_1"])
    with pytest.raises(JudgeError, match="LABEL_0, LABEL_1"):
        make_judge(f"hub:{tmp_path}")
    assert make_judge(f"hub:{tmp_path}#harm=LABEL_1").measures == {"harm"}
    with pytest.raises(JudgeError, match="LABEL_7"):
        make_judge(f"hub:{tmp_path}#harm=LABEL_7")


@pytest.mark.parametrize(
    ("labels", "stated"),
    [
        (["safe", "unsafe"], "harm = unsafe"),
        (["harmless", "harmful"], "harm = harmful"),
        (["unharmful", "harmful"], "harm = harmful"),
        (["NORMAL", "REJECTION"], "refusal = REJECTION"),
        (["non-refusal", "refusal"], "refusal = refusal"),
        (["not_toxic", "toxic", "severe_toxic"], "harm = toxic + severe_toxic"),
    ],
)
def test_label_names_are_read(labels, stated):
    assert label_map(dict(enumerate(labels)), {}).stated() == stated


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(JudgeError, match="cannot be loaded"):
        make_judge(f"hub:{tmp_path / 'nothing'}")
