"""A run that is killed and resumed takes the steps that it would have taken: callbacks keep nothing that a state has not."""

import copy

import pytest
import torch
from conftest import build_tokenizer
from test_training_callbacks import PAIRS, fresh, loaded, rows, sft

from aligntax.training import AdaptiveKL, GradientProjection

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]


def same(one, other):
    pairs = zip(one.named_parameters(), other.named_parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for (_, a), (_, b) in pairs)


def letters(completions, **_):
    return [sum(map(ord, text)) / 99.0 for text in completions]


def curve(trainer, key):
    return {entry["step"]: entry[key] for entry in trainer.state.log_history if key in entry}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_gradient_projection_resumes_between_renewals(family, tmp_path):
    """States at 2 and 4, renewals at 0, 3 and 6: none of the states falls on one. gpt2 has dropout."""
    batches = [{"input_ids": torch.tensor([row.ids]), "labels": torch.tensor([row.ids])} for row in rows(2)]

    def trainer(folder):
        model = fresh(family)
        made = sft(model, folder, [GradientProjection(batches, every=3, two_sided=True)], steps=6, lr=3e-3, save=2)
        return model, made

    straight, whole = trainer(tmp_path / "run")
    whole.train()
    resumed, rest = trainer(tmp_path / "run")
    rest.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert curve(whole, "gradient/removed") == pytest.approx(curve(rest, "gradient/removed"), abs=1e-6)
    assert max(curve(whole, "gradient/removed").values()) > 1e-3
    assert same(straight, resumed) < 1e-6


def test_gradients_are_renewed_at_their_interval_and_after_a_state(tmp_path):
    seen = []
    projection = GradientProjection(
        [lambda model: (seen.append(trainer.state.global_step), model.lm_head.weight.sum())[1]], 3
    )
    trainer = sft(fresh(), tmp_path, [projection], steps=8, save=4)
    trainer.train()
    assert seen == [0, 3, 4, 6]


def test_adaptive_kl_goes_on_from_the_beta_of_the_state(tmp_path):
    base = loaded(tmp_path / "base")

    def trainer():
        args = trl.GRPOConfig(
            output_dir=str(tmp_path / "run"), max_steps=5, per_device_train_batch_size=2, num_generations=2,
            max_completion_length=4, learning_rate=1e-2, beta=0.1, report_to=[], logging_steps=1, save_strategy="steps",
            save_steps=3, use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
        )  # fmt: skip
        made = trl.GRPOTrainer(
            model=copy.deepcopy(base), args=args, reward_funcs=letters,
            train_dataset=datasets.Dataset.from_list([{"prompt": p} for p, _ in PAIRS]),
            processing_class=copy.deepcopy(build_tokenizer()),
        )  # fmt: skip
        made.add_callback(AdaptiveKL(made, rate=50.0, low=0.01, high=100.0))
        return made

    whole, rest = trainer(), trainer()
    whole.train()
    rest.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    betas = curve(whole, "beta")
    assert betas[3] != pytest.approx(0.1, rel=1e-3)  # else restarting at beta_0 would not show
    assert betas == pytest.approx(curve(rest, "beta"), rel=1e-5)
    assert same(whole.model, rest.model) < 1e-6
