"""What the null space is for: at equal refusal, held-out capability prompts keep their logits; and a killed run goes on."""

import copy
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import transformers
from conftest import VOCAB, build_tokenizer
from safetensors.torch import load_file

from aligntax.cli import main
from aligntax.data import Encoded
from aligntax.probing import Probe, Row, TokenBudget, input_moments
from aligntax.results import read_align
from aligntax.training import NullSpaceProjection, freeze_head, subspace_of

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

CAPABLE, HARMFUL, REFUSAL = range(7, 12), range(40, 90), (20, 21)
WANTED = -0.7
"""Log-probability of the refusal, in nats, at which the two runs are compared: one half."""


def wide_model():
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.1, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.LlamaForCausalLM(config)


def texts(tokens, count, seed, length=6):
    rng = np.random.default_rng(seed)
    return [[1, *(int(t) for t in rng.choice(list(tokens), length))] for _ in range(count)]


class Watch(transformers.TrainerCallback):
    """After every step: mean log-probability of the refusal on held-out harmful prompts, and how far capability logits moved."""

    def __init__(self, model):
        self.harmful, self.capable = (torch.tensor(texts(t, 32, 9)) for t in (HARMFUL, CAPABLE))
        self.curve: list[tuple[float, float]] = []
        with torch.no_grad():
            self.before = model.eval()(self.capable).logits

    def on_step_end(self, args, state, control, model=None, **_):
        model.eval()
        with torch.no_grad():
            refusal = model(self.harmful).logits[:, -1].log_softmax(-1)[:, REFUSAL[0]].mean()
            moved = (model(self.capable).logits - self.before).square().mean().sqrt()
        model.train()
        self.curve.append((float(refusal), float(moved)))

    def at(self, wanted):
        """How far logits had moved when refusal reached `wanted`, between steps on a straight line."""
        refusal, moved = np.array(self.curve).T
        first = int(np.argmax(refusal >= wanted))
        assert refusal[first] >= wanted and first > 0, f"refusal reached {refusal.max():.2f}"
        share = (wanted - refusal[first - 1]) / (refusal[first] - refusal[first - 1])
        return moved[first - 1] + share * (moved[first] - moved[first - 1])


def trained(folder, protect):
    model = wide_model().requires_grad_(True)
    freeze_head(model)
    watch, callbacks = Watch(model), []
    if protect:
        probe = Probe(model.eval(), torch.device("cpu"), TokenBudget(1024), "all", (), lambda _: None)
        held = [Row(tuple(ids), len(ids), k) for k, ids in enumerate(texts(CAPABLE, 64, 1))]
        moments = input_moments(probe, held)
        callbacks.append(
            NullSpaceProjection(model, {name: subspace_of(moments.of(name), 0.99, name) for name in moments.layers})
        )
    rows = [Encoded((*ids, *REFUSAL), len(ids)) for ids in texts(HARMFUL, 64, 2)]
    data = [{"input_ids": list(r.ids), "labels": [-100] * r.start + list(r.ids[r.start :])} for r in rows]
    args = trl.SFTConfig(
        output_dir=str(folder), max_steps=20, per_device_train_batch_size=16, learning_rate=2e-3, report_to=[],
        logging_steps=100, save_strategy="no", use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    tokenizer = copy.deepcopy(build_tokenizer())
    trl.SFTTrainer(
        model=model, args=args, train_dataset=datasets.Dataset.from_list(data), processing_class=tokenizer,
        callbacks=[*callbacks, watch],
    ).train()  # fmt: skip
    return watch


def test_at_equal_refusal_capability_logits_move_a_fifth_of_what_they_do_unprotected(tmp_path):
    free, held = trained(tmp_path, False), trained(tmp_path, True)
    assert held.at(WANTED) <= free.at(WANTED) / 5


def test_a_run_that_is_killed_goes_on_to_the_same_curve(tiny_folder, survey_files, tmp_path):
    """kill -9 in the middle, then --resume: every loss and every weight of the run that was never touched."""
    words = ["align", str(tiny_folder), "--safety", str(survey_files.prompts), "--tasks", str(survey_files.words), "--steps",
             "24", "--batch", "4", "--completion-tokens", "4", "--protect-items", "4", "--protect", "nullspace,kl",
             "--batches", "matched", "--learning-rate", "1e-3", "--save-every", "2", "--quiet", "--out"]  # fmt: skip
    assert main([*words, str(tmp_path / "straight")]) == 0
    state, env = tmp_path / "killed" / "state", {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "aligntax", *words, str(tmp_path / "killed")], env=env, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while child.poll() is None and not [*state.glob("checkpoint-*/trainer_state.json")]:
            time.sleep(0.02)
        assert child.poll() is None, "the run ended before it could be killed"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not (tmp_path / "killed" / "align.json").exists()
    assert main([*words, str(tmp_path / "killed"), "--resume"]) == 0
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("straight", "killed"))
    assert max(float((one[k] - two[k]).abs().max()) for k in one) < 1e-5
    curves = [[e["loss"] for e in read_align(tmp_path / name).steps if "loss" in e] for name in ("straight", "killed")]
    assert len(curves[0]) == 24 and curves[0] == pytest.approx(curves[1], abs=1e-4)
