"""KL by position: in every term that holds a reference, and measured by a callback in runs that hold none."""

import math

import pytest
import torch
from conftest import build_model
from test_training_callbacks import fresh, rows, sft

from aligntax.cli import main
from aligntax.errors import AligntaxError
from aligntax.results import read_align
from aligntax.training import (
    KLCallback,
    RecoveryObjective,
    RecoveryRows,
    RecoverySettings,
    ReferenceKL,
    freeze_head,
)

pytest.importorskip("trl")
peft = pytest.importorskip("peft")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

BINS = {"1": (1, 1), "2-4": (2, 4), "5-16": (5, 16), "17-": (17, math.inf)}


def by_hand(model, base, texts):
    """Mean KL of each bin from two whole models, a row at a time."""
    model.eval()
    found = {label: [] for label in BINS}
    for row in texts:
        with torch.no_grad():
            p, q = (torch.log_softmax(m(torch.tensor([row.ids])).logits[0].double(), -1) for m in (model, base))
        kl = (p.exp() * (p - q)).sum(-1)
        for position in range(1, len(row.ids) - row.start + 1):
            value = float(kl[row.start - 1 + position - 1])
            for label, (first, last) in BINS.items():
                found[label] += [value] if first <= position <= last else []
    return {label: sum(values) / len(values) for label, values in found.items() if values}


def moved(model):
    """Other weights under the same head, so that KL is not 0."""
    model.model.layers.load_state_dict(build_model("llama", seed=1).model.layers.state_dict())


@pytest.mark.parametrize("length", [25, 12])
def test_terms_note_their_kl_by_position(length):
    model, base, texts, harmful = fresh(), fresh(), rows(2, length, 4), rows(2, length, 4, seed=3)
    freeze_head(model)
    held = ReferenceKL(model, texts, batch=2)
    plan = RecoverySettings(text=0.0, batch=2)
    term = RecoveryObjective(model, RecoveryRows(harmful, [[1]] * 2, texts), [11], plan)
    moved(model)
    for one in (held, term):
        one.loss(model, 0, 0, 1)
    noted = {key: values[0] for one in (held, term) for key, values in one._seen.items()}
    for prefix, read in (("reference_kl/kl", texts), ("recovery/kl", harmful), ("recovery/hold", texts)):
        wanted = {f"{prefix}_{label}": value for label, value in by_hand(model, base, read).items()}
        assert {key: v for key, v in noted.items() if key.startswith(f"{prefix}_")} == pytest.approx(wanted, rel=1e-4)
        assert len(wanted) == (4 if length == 25 else 3)  # a bin that no token falls into is not 0, it is absent


@pytest.mark.parametrize("every_log", [1, 2])
def test_a_plain_run_says_its_kl_by_position_every_few_steps_and_at_the_end(every_log, tmp_path):
    model, base, texts = fresh(), fresh(), rows(3, 40, 4)
    freeze_head(model)
    trainer = sft(model, tmp_path, [KLCallback(model, texts, every=3, tokens=20)], steps=7, logging_steps=every_log)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "anchor_kl/kl" in entry]
    assert [entry["step"] for entry in entries] == [3, 6, 7]
    assert ("loss" in entries[0]) == (every_log == 1) and "loss" in entries[1]
    cut = [type(row)(row.ids[:24], 4) for row in texts]
    wanted = by_hand(model, base, cut)
    last = entries[-1]
    assert {label: last[f"anchor_kl/kl_{label}"] for label in BINS} == pytest.approx(wanted, rel=1e-3)
    weights = {"1": 1, "2-4": 3, "5-16": 12, "17-": 4}
    mean = sum(wanted[label] * count for label, count in weights.items()) / 20
    assert last["anchor_kl/kl"] == pytest.approx(mean, rel=1e-3) and last["anchor_kl/kl"] > 0


def test_the_base_is_the_model_without_its_adapter_and_few_rows_are_read():
    model, base, texts = fresh(trainable=False), fresh(trainable=False), rows(30, 9, 4)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    callback = KLCallback(adapted, texts)
    read = callback._reference.rows
    assert [texts.index(row) for row in read] == [k * 30 // 8 for k in range(8)]
    wanted = {f"anchor_kl/kl_{label}": value for label, value in by_hand(adapted, base, read).items()}
    found = callback.measure(adapted)
    assert found.pop("anchor_kl/kl") > 0.01 and found == pytest.approx(wanted, rel=1e-3)


def test_a_trained_head_is_said_before_the_first_step(tmp_path):
    model = fresh()
    with pytest.raises(AligntaxError, match="freeze_head"):
        sft(model, tmp_path, [KLCallback(model, rows())], steps=5).train()
    with pytest.raises(AligntaxError, match="every 0 steps"):
        KLCallback(model, rows(), every=0)


def test_the_record_of_a_plain_run_has_its_kl_by_position(tiny_folder, survey_files, tmp_path):
    words = ["align", str(tiny_folder), "--safety", str(survey_files.prompts), "--tasks", str(survey_files.sums),
             "--steps", "3", "--batch", "4", "--completion-tokens", "6", "--learning-rate", "1e-3", "--quiet"]  # fmt: skip
    assert main([*words, "--out", str(tmp_path / "one"), "--kl-every", "2"]) == 0
    entries = [entry for entry in read_align(tmp_path / "one").steps if "anchor_kl/kl" in entry]
    assert [entry["step"] for entry in entries] == [2, 3]
    assert all(math.isfinite(entry["anchor_kl/kl_1"]) and entry["anchor_kl/kl_2-4"] > 0 for entry in entries)
    assert main([*words, "--out", str(tmp_path / "two"), "--kl-every", "0"]) == 0
    assert not [entry for entry in read_align(tmp_path / "two").steps if "anchor_kl/kl" in entry]
