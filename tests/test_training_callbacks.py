"""Protections inside unmodified TRL trainers: what must not move does not, what the losses promise is reached."""

import copy
import math

import numpy as np
import pytest
import torch
import transformers
from conftest import WIDTH, build_model, build_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.data import Encoded
from aligntax.errors import AligntaxError, NonFiniteError
from aligntax.models import logits_of
from aligntax.probing import Probe, Row, TokenBudget, input_moments
from aligntax.training import (
    AdaptiveKL,
    DirectionPenalty,
    GradientProjection,
    NullSpaceProjection,
    RecoveryObjective,
    RecoveryRows,
    RecoverySettings,
    Reference,
    ReferenceKL,
    ScoredItem,
    StopOnNonFinite,
    TaxCallback,
    freeze_head,
    leak,
    subspace_of,
)
from aligntax.training.gradients import multipliers
from aligntax.training.rows import Sampler, scored_hidden

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def fresh(family="llama", trainable=True):
    model = copy.deepcopy(build_model(family))
    model.requires_grad_(trainable)
    return model


def loaded(folder):
    """A model with a folder of its own, from which TRL makes its reference."""
    build_model("llama").save_pretrained(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder).requires_grad_(True)


def chat(pairs):
    return datasets.Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": p}], "completion": [{"role": "assistant", "content": c}]}
            for p, c in pairs
        ]
    )


PAIRS = [("How do I burn it?", "I am sorry, I cannot help."), ("What is it?", "Sure, here is the plan.")] * 4


def sft(model, folder, callbacks=(), steps=3, peft_config=None, lr=1e-2, pairs=PAIRS, save=0, **more):
    args = trl.SFTConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=2,
        learning_rate=lr,
        report_to=[],
        save_strategy="steps" if save else "no",
        save_steps=save or 500,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        **({"logging_steps": 1} | more),
    )
    return trl.SFTTrainer(
        model=model,
        args=args,
        train_dataset=chat(pairs),
        processing_class=copy.deepcopy(build_tokenizer()),
        callbacks=list(callbacks),
        peft_config=peft_config,
    )


def probe(model, sinks=()):
    return Probe(model, torch.device("cpu"), TokenBudget(256), "all", sinks, lambda n: None)


def rows(count=4, length=9, start=4, seed=0):
    rng = np.random.default_rng(seed)
    return [Encoded(tuple(int(t) for t in rng.integers(7, 90, length)), start) for _ in range(count)]


def protection(model, energy=0.9, count=4):
    moments = input_moments(probe(model), [Row(r.ids, len(r.ids), k) for k, r in enumerate(rows(count))])
    return moments, {name: subspace_of(moments.of(name), energy, name) for name in moments.layers}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_moments_are_those_of_what_each_matrix_reads(family):
    model = build_model(family)
    found = input_moments(probe(model, (0,)), [Row(r.ids, len(r.ids), k) for k, r in enumerate(rows())])
    name, read = next(iter(found.layers)), []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, a: read.append(a[0]))
    for row in rows():
        model(torch.tensor([row.ids]))
    handle.remove()
    seen = torch.cat([x[0, 1:] for x in read]).double()  # position 0 counts as a sink here
    np.testing.assert_allclose(found.of(name), (seen.T @ seen).numpy(), rtol=1e-4, atol=1e-5)
    assert found.count == len(seen)
    halves = [input_moments(probe(model, (0,)), [Row(r.ids, len(r.ids), 0)]) for r in rows()]
    merged = halves[0].merge(halves[1]).merge(halves[2]).merge(halves[3])
    np.testing.assert_allclose(merged.of(name), found.of(name), rtol=1e-5, atol=1e-6)


def test_a_subspace_holds_the_energy_asked_for_and_an_empty_null_space_is_an_error():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    gram = basis @ np.diag(2.0 ** -np.arange(12)) @ basis.T
    for energy, rank in ((0.5, 1), (0.75, 2), (0.99, 7)):
        found = subspace_of(gram, energy, "layer")
        share = np.sum(2.0 ** -np.arange(12)[:rank]) / np.sum(2.0 ** -np.arange(12))
        assert (found.rank, round(found.energy, 9)) == (rank, round(share, 9))
        assert found.free == (rank > 6)
        np.testing.assert_allclose(found.project(torch.tensor(basis[:, :rank].T.copy()).float()), 0.0, atol=1e-6)
        inside = torch.tensor(basis[:, rank:].T.copy()).float()
        torch.testing.assert_close(found.project(inside), inside, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(found.protected().T @ found.protected(), np.eye(rank), atol=1e-6)
    with pytest.raises(AligntaxError, match=r"block\.3: rank 12 of 12 .* empty null space"):
        subspace_of(np.eye(12), 0.999, "block.3")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_nullspace_keeps_what_protected_inputs_give_and_trains_the_rest(family, tmp_path):
    model, held = fresh(family), rows()
    _, subspaces = protection(model, 0.9999)
    before = Reference(model, held)
    guard = NullSpaceProjection(model, subspaces)
    sft(model, tmp_path, [guard], steps=4, weight_decay=0.1).train()
    leaks = [value for value in guard.residual().values() if not math.isnan(value)]
    assert leaks and max(leaks) <= 1e-5
    moved = fresh(family)
    sft(moved, tmp_path, steps=4, weight_decay=0.1).train()

    def change(trained):
        trained.eval()
        pairs = zip(held, before._hidden, strict=True)
        return max(float((scored_hidden(trained, [row])[0] - old).detach().abs().max()) for row, old in pairs)

    assert change(model) < change(moved) / 5
    weights = dict(model.named_parameters())
    assert any(not torch.equal(weights[name], start) for name, start in fresh(family).named_parameters())
    assert all(p.requires_grad == (n.removesuffix(".weight") in subspaces) for n, p in model.named_parameters())


@pytest.mark.parametrize("energy", [0.5, 0.999])
@pytest.mark.parametrize("turned", [False, True])
def test_a_held_weight_keeps_the_part_of_its_way_that_protected_inputs_do_not_see(energy, turned):
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((200, 24)) * np.geomspace(1, 0.01, 24)
    subspace = subspace_of(inputs.T @ inputs, energy, "layer")
    assert subspace.free == (energy > 0.9)
    start = torch.randn(10, 24, generator=torch.Generator().manual_seed(0))
    weight = start + 0.1 * torch.randn(10, 24, generator=torch.Generator().manual_seed(1))
    wanted = start + subspace.project(weight - start)
    if turned:
        kept = weight.T.contiguous()
        subspace.hold(kept.T, start)
        weight = kept.T
    else:
        subspace.hold(weight, start)
    torch.testing.assert_close(weight, wanted, atol=1e-6, rtol=0)
    assert float(((weight - start) @ subspace.protected()).abs().max()) < 1e-6 < float((weight - start).abs().max())


def test_nullspace_with_lora_constrains_the_product(tmp_path):
    model = fresh(trainable=False)
    _, subspaces = protection(model, 0.9)
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    guard = NullSpaceProjection(model, subspaces)
    sft(model, tmp_path, [guard], steps=3).train()
    for name, subspace in subspaces.items():
        layer = model.get_submodule(f"base_model.model.{name}")
        product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        assert product.norm() > 0 and leak(product.detach(), subspace) <= 1e-5


def test_nullspace_of_unknown_or_frozen_layers_is_an_error():
    model = fresh()
    _, subspaces = protection(model)
    with pytest.raises(AligntaxError, match="no such module"):
        NullSpaceProjection(model, {"model.layers.9.x": next(iter(subspaces.values()))})
    model.requires_grad_(False)
    with pytest.raises(AligntaxError, match="none of the protected layers"):
        NullSpaceProjection(model, subspaces)


@given(st.integers(0, 10**6), st.integers(1, 4), st.booleans())
@settings(max_examples=40, deadline=None)
def test_multipliers_give_the_nearest_step_that_raises_no_loss(seed, k, two_sided):
    rng = np.random.default_rng(seed)
    gradients, step = rng.standard_normal((k, 6)), rng.standard_normal(6)
    amounts = multipliers(gradients @ gradients.T, gradients @ step, two_sided)
    left = step - amounts @ gradients
    rises = gradients @ left
    assert (np.abs(rises) < 1e-8).all() if two_sided else (rises < 1e-8).all()
    if not two_sided:
        assert (amounts >= 0).all() and abs(amounts @ rises) < 1e-7  # complementary: only binding losses are taken out
        for _ in range(30):
            other = rng.standard_normal(6)
            other = other - multipliers(gradients @ gradients.T, gradients @ other, False) @ gradients
            assert np.linalg.norm(step - left) <= np.linalg.norm(step - other) + 1e-8


def test_gradient_projection_holds_a_capability_loss_to_first_order(tmp_path):
    batch = {"input_ids": torch.tensor([rows(1)[0].ids]), "labels": torch.tensor([rows(1)[0].ids])}

    def run(callbacks):
        model = fresh()
        start = float(model(**batch).loss.detach())
        sft(model, tmp_path, callbacks, steps=1, lr=1e-4, optim="sgd").train()
        return float(model(**batch).loss.detach()) - start

    free, held = run([]), run([GradientProjection([batch], every=1, two_sided=True)])
    assert abs(held) < abs(free) / 5


@pytest.mark.parametrize("form", ["linear", "log"])
def test_recovery_objective_is_the_sum_over_depths_that_the_theory_states(form):
    model, base, other = fresh(), fresh(trainable=False), build_model("llama", seed=1)
    freeze_head(model)
    harmful = rows(2, 7, 4)
    tokens, mu, gamma = [11, 12], 1.5, 0.8
    plan = RecoverySettings(mu, gamma, form, text=0.0, hold=0.0, batch=2)
    term = RecoveryObjective(model, RecoveryRows(harmful, [[11]] * 2), tokens, plan)
    # Other weights under the same head, so that KL is not 0.
    model.model.layers.load_state_dict(other.model.layers.state_dict())
    expected = []
    for row in harmful:
        with torch.no_grad():
            p, q = (torch.softmax(m(torch.tensor([row.ids])).logits[0].double(), -1) for m in (model, base))
        for t in range(1, 4):
            place = row.start - 1 + t - 1
            mass = p[place, tokens].sum()
            kl = (p[place] * (p[place] / q[place]).log()).sum()
            expected.append(kl + mu * gamma**t * (1 - mass if form == "linear" else -mass.log()))
    assert float(term.loss(model, 0, 0, 1).detach()) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)


def test_recovery_objective_raises_the_mass_at_every_depth_and_keeps_harmless_text():
    model = fresh()
    freeze_head(model)
    harmful, harmless = rows(2, 9, 4), rows(2, 9, 4, seed=5)
    kept = RecoveryRows(harmful, [[11, 13], [12, 13]], harmless)
    term = RecoveryObjective(model, kept, [11, 12], RecoverySettings(4.0, 1.0, "log", batch=2))
    before, still = (Reference(model, part) for part in (harmful, harmless))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for step in range(60):
        optimizer.zero_grad()
        term.loss(model, step, 0, 1).backward()
        optimizer.step()
    with torch.no_grad():
        for k, row in enumerate(harmful):
            after = torch.log_softmax(logits_of(model, scored_hidden(model, [row])[0]), -1)
            gain = after[:, [11, 12]].logsumexp(-1) - before.logprobs(model, k)[:, [11, 12]].logsumexp(-1)
            assert (gain > 1.0).all()
        for k, row in enumerate(harmless):
            after = torch.log_softmax(logits_of(model, scored_hidden(model, [row])[0]), -1)
            assert still.kl(model, k, after).mean() < 0.3


def test_terms_add_up_with_the_trainers_loss(tmp_path):
    """A term in the callback gives the step that the sum of both losses would give."""
    model, twin = fresh(), fresh()
    for m in (model, twin):
        freeze_head(m)
    held = rows(4)
    sft(model, tmp_path, [ReferenceKL(model, held, 3.0)], steps=2, optim="sgd", max_grad_norm=0.5).train()
    term = ReferenceKL(twin, held, 3.0)

    class Summed(trl.SFTTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
            return loss + 3.0 * term.loss(model, self.state.global_step, 0, 1)

    trainer = sft(twin, tmp_path, steps=2, optim="sgd", max_grad_norm=0.5)
    trainer.__class__ = Summed
    trainer.train()
    for (name, a), (_, b) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("name", ["kl", "directions", "recovery"])
def test_terms_work_under_dpo_and_hold_what_they_promise(name, tmp_path):
    model = loaded(tmp_path)
    freeze_head(model)
    held = rows(3)
    term = {
        "kl": lambda: ReferenceKL(model, held, 50.0),
        "directions": lambda: DirectionPenalty(model, held, {1: torch.eye(WIDTH)[:3]}, 500.0),
        "recovery": lambda: RecoveryObjective(model, RecoveryRows(held, [[11, 12]] * 3, rows(2, seed=9)), [11]),
    }[name]()
    data = datasets.Dataset.from_list(
        [{"prompt": p, "chosen": c, "rejected": "Sure, here is the plan."} for p, c in PAIRS[:1] * 4]
    )
    args = trl.DPOConfig(
        output_dir=str(tmp_path), max_steps=6, per_device_train_batch_size=2, learning_rate=3e-3, report_to=[],
        logging_steps=1, save_strategy="no", use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=model, args=args, train_dataset=data, processing_class=copy.deepcopy(build_tokenizer()), callbacks=[term]
    )
    trainer.train()
    logged = [entry[f"{term.name}/loss"] for entry in trainer.state.log_history if f"{term.name}/loss" in entry]
    assert len(logged) == 6 and all(math.isfinite(value) for value in logged)
    with torch.no_grad():
        after = float(term.loss(model, 0, 0, 1))
    if name == "recovery":
        assert logged[-1] < logged[0]
    else:
        free = loaded(tmp_path)
        freeze_head(free)
        trl.DPOTrainer(
            model=free, args=args, train_dataset=data, processing_class=copy.deepcopy(build_tokenizer())
        ).train()
        with torch.no_grad():
            assert after < float(term.loss(free, 0, 0, 1)) / 2


def test_adaptive_kl_moves_the_beta_of_grpo(tmp_path):
    model = loaded(tmp_path)
    args = trl.GRPOConfig(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=2, num_generations=2, max_completion_length=4,
        learning_rate=1e-2, beta=0.1, report_to=[], logging_steps=1, save_strategy="no", use_cpu=True, bf16=False,
        gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=model, args=args, reward_funcs=lambda completions, **_: [float(len(c)) for c in completions],
        train_dataset=datasets.Dataset.from_list([{"prompt": p} for p, _ in PAIRS]),
        processing_class=copy.deepcopy(build_tokenizer()),
    )  # fmt: skip
    trainer.add_callback(AdaptiveKL(trainer, rate=5.0, low=0.01, high=0.3))
    trainer.train()
    pairs = [(e["kl"], e["beta"]) for e in trainer.state.log_history if "beta" in e]
    assert pairs and all(abs(b - min(0.3, max(0.01, 0.1 * math.exp(5.0 * max(k, 0.0))))) < 1e-9 for k, b in pairs)
    with pytest.raises(AligntaxError, match="beta"):
        AdaptiveKL(object())


def test_tax_callback_reports_the_change_of_margins(tmp_path):
    model = fresh()
    items = [ScoredItem(rows(3, seed=k), gold=1) for k in range(3)]
    callback = TaxCallback(model, {"odd": items, "free": [ScoredItem(rows(1))]}, every=2)
    assert callback.measure(model) == {"tax/odd": 0.0, "tax/odd/shared": 0.0, "tax/free": 0.0}
    trainer = sft(model, tmp_path, [callback], steps=3)
    trainer.train()
    assert [entry["step"] for entry in callback.history] == [2.0, 3.0]
    base = fresh()

    def score(m, row):
        with torch.no_grad():
            logp = torch.log_softmax(m(torch.tensor([row.ids])).logits[0].float(), -1)
        return float(np.mean([logp[t - 1, row.ids[t]] for t in range(row.start, len(row.ids))]))

    def margin(m, item):
        return score(m, item.rows[1]) - (score(m, item.rows[0]) + score(m, item.rows[2])) / 2

    expected = np.mean([margin(base, item) - margin(model, item) for item in items])
    assert callback.history[-1]["tax/odd"] == pytest.approx(expected, abs=1e-4)


def test_nan_stops_before_the_weights_are_touched(tmp_path):
    model = fresh()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    with pytest.raises(NonFiniteError, match="at step 1"):
        sft(model, tmp_path, [StopOnNonFinite()], steps=2).train()
    assert all(torch.equal(before[n].nan_to_num(), p.nan_to_num()) for n, p in model.named_parameters())


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 3))
def test_sampler_sees_every_row_once_a_pass_and_is_the_same_after_a_restart(count, size, processes):
    sampler = Sampler(count, size, 3)
    seen = [k for step in range(count) for p in range(processes) for k in sampler.at(step, p, processes)]
    for turn in range(len(seen) // count):
        assert sorted(seen[turn * count : (turn + 1) * count]) == list(range(count))
    assert Sampler(count, size, 3).at(2) == sampler.at(2)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(1, 6))
def test_what_a_run_will_draw_is_known_before_it(count, size, processes, steps):
    sampler = Sampler(count, size, 3)
    seen = {k for step in range(steps) for p in range(processes) for k in sampler.at(step, p, processes)}
    assert sampler.drawn(steps * processes) == seen
    assert sampler.drawn(None) == set(range(count))


@pytest.mark.parametrize("make", ["kl", "hold"])
def test_a_term_made_for_some_steps_reads_their_rows_only_and_says_the_same(make):
    """The term of all rows and the term of two steps agree on both steps; a third step was not read, and says so."""
    model, other, texts = fresh(), build_model("llama", seed=1), rows(6)
    freeze_head(model)

    def term(steps):
        if make == "kl":
            return ReferenceKL(model, texts, batch=2, steps=steps)
        plan = RecoverySettings(text=0.0, batch=2)
        return RecoveryObjective(model, RecoveryRows(rows(2, seed=5), [[1]] * 2, texts), [11], plan, steps=steps)

    read = []
    watch = model.model.register_forward_hook(lambda _, __, out: read.append(len(out.last_hidden_state)))
    whole, few = term(None), term(2)
    watch.remove()
    model.model.layers.load_state_dict(other.model.layers.state_dict())
    for step in range(2):
        assert float(few.loss(model, step, 0, 1)) == float(whole.loss(model, step, 0, 1)) > 0
    assert sum(read) == 6 + 4 + (4 if make == "hold" else 0)  # the recovery objective reads its two prefixes too, twice
    with pytest.raises(AligntaxError, match="not read before training"):
        few.loss(model, 2, 0, 1)


def test_bad_settings_repeat_the_value():
    model = fresh()
    with pytest.raises(AligntaxError, match="head is trainable"):
        ReferenceKL(model, rows()).loss(model, 0, 0, 1)
    with pytest.raises(AligntaxError, match=r"gamma=1\.5"):
        RecoverySettings(gamma=1.5)
    with pytest.raises(AligntaxError, match="no recovery tokens"):
        RecoveryObjective(model, RecoveryRows(rows(1), [[1]]), [])
    with pytest.raises(AligntaxError, match="2 harmful continuations but 1 recoveries"):
        RecoveryRows(rows(2), [[1]])
    with pytest.raises(AligntaxError, match="weight -1"):
        ReferenceKL(model, rows(), weight=-1.0)
    with pytest.raises(AligntaxError, match=r"layers \[7\]"):
        DirectionPenalty(model, rows(), {7: torch.eye(3)})
