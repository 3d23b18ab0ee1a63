"""P1 from tokens to verdict: what is gathered is what theory says, a planted forecast is found, a planted null is not."""

import copy
import dataclasses
import functools
import json

import numpy as np
import pytest
import torch
from conftest import LAYERS, build_model, build_tokenizer

from aligntax.cli import main
from aligntax.commands.predict_gather import (
    moved,
    opened,
    read_rows,
    task_gradient,
    unscored_task,
    virtual_steps,
    weight_gradients,
)
from aligntax.commands.predict_items import by_format, margins, planned_rows, run_tokens, shared_length
from aligntax.commands.predict_tax import trained_from
from aligntax.errors import AligntaxError
from aligntax.models import capture_outputs
from aligntax.predictions import PROTOCOLS, Paid, TaskEvidence, family_tasks, score_task_tax
from aligntax.predictions.task_tax import baselines, candidates, kind_of
from aligntax.probing import Meter, ShardStore, answer_metric, item_values
from aligntax.results import read_prediction
from aligntax.stats import RankReliability, split_halves

P1 = PROTOCOLS["P1"]
FAMILIES = tuple(f"family {k // 3}" for k in range(42))
RECIPES = ("sft", "dpo", "grpo", "sft+kl", "sft+replay", "sft+recovery")


def save(model, folder):
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


def nudged(size, seed):
    generator = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(build_model("llama"))
    for weight in model.parameters():
        weight.data += size * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("p1") / "base"
    return opened(save(build_model("llama"), folder), ShardStore(None, {}), Meter(True), "cpu")


@pytest.fixture(scope="module")
def planned(base):
    found = planned_rows(None, base.chat, 512, 0, P1)
    return type(found)(found.tasks[:3], found.prompts[:4], found.refusals[:3], found.texts[:2], found.skipped)


def test_items_that_give_gradients_are_never_scored(base):
    found = planned_rows(None, base.chat, 512, 0, P1)
    assert len(found.tasks) >= 14
    for task in found.tasks:
        given = {row.ids for row in task.gradient}
        for rows in task.scored.values():
            assert not given & {row.ids for row in rows}
        assert task.items >= 8 and sorted({row.item for row in task.gradient}) == list(range(task.count))
        for rows in (task.gradient, *task.scored.values()):
            weights = np.bincount([row.item for row in rows], weights=[row.weight for row in rows])
            assert np.allclose(weights, 0.0)  # gold against one other answer: a margin


def test_families_cover_every_builtin_task_and_generated_answers_are_right():
    tasks = {task.name: task for task in family_tasks(None)}
    assert len(tasks) >= 25 and len({task.family for task in tasks.values()}) >= 14
    for item in tasks["product-2"].items:
        a, b = (int(x) for x in item.prompt.removesuffix(" =").split(" * "))
        assert item.choices[item.gold] == f" {a * b}"
    for item in tasks["count-down"].items:
        shown = [int(x) for x in item.prompt.rstrip(",").split(",")]
        assert int(item.choices[item.gold]) == 2 * shown[-1] - shown[-2]
    for item in tasks["larger-3"].items:
        assert int(item.choices[item.gold]) > int(item.choices[1 - item.gold])
    for item in tasks["letters"].items:
        shown = [ord(x) for x in item.prompt.rstrip(",").split(", ")]
        assert ord(item.choices[item.gold].strip()) == 2 * shown[-1] - shown[-2]


def test_reading_with_a_shared_beginning_is_reading_without(base, planned):
    task = planned.tasks[0]
    chat = task.scored["chat"]
    assert shared_length(chat) > 1 and run_tokens(chat) < sum(len(row.ids) for row in chat)
    found = read_rows(base, "x", chat, ())
    assert np.allclose(found.values, item_values(base.probe, chat, answer_metric), atol=1e-5)
    assert found.state.shape == (LAYERS, 32)


def test_the_mean_state_leaves_out_sinks_and_the_shared_beginning(base, planned):
    rows = planned.tasks[0].scored["chat"][:5]
    shared = shared_length(rows)
    for sinks in ((), (0, shared + 1)):
        means = []
        for row in rows:
            with torch.no_grad(), capture_outputs(base.probe.model) as outputs:
                base.probe.model(input_ids=torch.tensor([row.ids]))
            kept = [p for p in range(shared, len(row.ids)) if p not in sinks]
            means.append(np.stack([outputs[k][0, kept].mean(0).numpy() for k in range(LAYERS)]))
        assert np.allclose(read_rows(base, f"s{len(sinks)}", rows, sinks).state, np.mean(means, axis=0), atol=1e-4)


def test_a_virtual_step_is_the_inner_product_of_weight_gradients(base, planned):
    mean, _ = weight_gradients(base, planned.refusals)
    gold = [row for row in planned.tasks[0].gradient if row.item == 0]
    task_mean = {}
    for row in gold:
        own, _ = weight_gradients(base, [row])
        for name, g in own.items():
            task_mean[name] = task_mean.get(name, 0) + row.weight * g
    product = sum(float((task_mean[name] * g).sum()) for name, g in mean.items())
    size = 1e-3 / sum(float((g * g).sum()) for g in mean.values())
    values = []
    for sign in (1, -1):
        with moved(base, mean, sign * size):
            values.append(float(margins(item_values(base.probe, gold, answer_metric), gold, 1)[0]))
    assert (values[0] - values[1]) / (2 * size) == pytest.approx(product, rel=0.05)


def test_the_model_is_what_it_was_after_a_virtual_step(base, planned):
    before = {name: w.clone() for name, w in base.probe.model.named_parameters()}
    found = virtual_steps(base, planned, P1)
    assert set(found) == {"plain", "Adam scaled"} and all(v.shape == (3,) for v in found.values())
    assert not np.allclose(found["plain"], found["Adam scaled"])
    assert all(torch.equal(w, before[name]) for name, w in base.probe.model.named_parameters())
    assert not any(w.requires_grad for w in base.probe.model.parameters())


def test_gradient_items_have_one_margin_however_they_are_read(base, planned):
    for task in planned.tasks:
        _, own = task_gradient(base, task)
        assert np.allclose(own, unscored_task(base, task, ())[0], atol=1e-5)
        assert sum(len(part) for part in by_format(task.gradient)) == len(task.gradient)


def evidence(rng, truth=None, layer=2, steps=None):
    """Random evidence over 42 tasks; `truth` plants the tax at one layer along the safety direction."""
    m, layers, d = 42, 4, 24
    gradients = rng.standard_normal((m, layers, d))
    v = rng.standard_normal((layers, d))
    if truth is not None:
        u = v[layer] / np.linalg.norm(v[layer])
        gradients[:, layer] -= np.outer(gradients[:, layer] @ u + 2 * truth, u)
    return TaskEvidence(
        tuple(f"t{k}" for k in range(m)), FAMILIES, gradients, {"refusal": v}, rng.standard_normal((30, layers, d)),
        steps or {"plain": rng.standard_normal(m)}, None, None, rng.standard_normal(m), rng.random(m), rng.random(m),
    )  # fmt: skip


def paid(rng, truth, noise=0.5):
    drops = tuple(t + noise * rng.standard_normal((6, 12)) + 0.2 * rng.standard_normal((6, 1)) for t in truth)
    return Paid(drops, RECIPES, None, RankReliability(0.9, 0.9, 0.9), (0,))


def test_signs_a_task_whose_gradient_opposes_safety_is_to_lose():
    v = np.array([[1.0, 0.0]])
    gradients = np.array([[[-2.0, 0.0]], [[1.0, 1.0]], [[0.0, 3.0]], [[-1.0, 1.0]]])
    known = TaskEvidence(
        tuple("abcd"), tuple("abcd"), gradients, {"s": v}, np.ones((4, 1, 2)), {}, np.tile(v, (4, 1, 1)), np.arange(4.0),
        np.zeros(4), np.zeros(4), np.zeros(4),
    )  # fmt: skip
    found = candidates(known, 1.0)
    assert np.allclose(found["change, layer 0 | s"], [2, -1, 0, 1])
    assert np.allclose(found["cosine, layer 0 | s"], [1, -(0.5**0.5), 0, 0.5**0.5])
    assert np.allclose(found["tax, layer 0 | s"], [1, 0.5, 0, 0.5])
    assert np.allclose(found["pilot shift, layer 0"], [2, -1, 0, 1])
    assert np.allclose(found["pilot, measured"], np.arange(4.0))
    assert kind_of("whitened change, layer 0 | s") == "whitened change | s"


def test_a_planted_forecast_is_supported():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(14)[np.arange(42) // 3] + 0.5 * rng.standard_normal(42)
    found = score_task_tax(evidence(rng, truth), paid(rng, truth), 0)
    assert found.verdict == "supported" and "layer 2 | refusal" in found.reason
    assert found.estimate.value > 0.8 and found.ahead.low > 0 and found.p_value < 0.01
    assert set(found.baselines) == {"gradient norm", "random direction", "base score", "question form"}
    assert found.n["confirming families"] == 7 and found.n["recipes"] == 6


def test_a_null_is_not_supported_and_its_luck_is_shown_as_a_negative():
    verdicts, kept = [], []
    for seed in range(12):
        rng = np.random.default_rng([1, seed])
        truth = rng.standard_normal(42)
        found = score_task_tax(evidence(rng), paid(rng, truth), seed, quick(100))
        verdicts.append(found.verdict)
        kept.append(found.estimate.value)
        assert "where chosen" in found.negatives[0] and any("passed over" in line for line in found.negatives)
    assert verdicts.count("supported") == 0
    assert abs(np.mean(kept)) < 0.25


def quick(draws):
    settings = tuple((key, draws if key == "draws" else value) for key, value in P1.settings)
    return dataclasses.replace(P1, settings=settings)


def test_a_forecast_that_is_only_the_gradient_norm_is_not_ahead():
    rng = np.random.default_rng(2)
    known = evidence(rng)
    norm = np.linalg.norm(known.gradients, axis=-1)[:, 1]
    found = score_task_tax(known, paid(rng, norm / norm.std(), 0.3), 0, quick(200))
    assert found.baselines["gradient norm"].value > 0.8
    assert found.verdict != "supported" and not found.ahead.low > 0


def test_what_confirms_is_never_looked_at_when_choosing():
    rng = np.random.default_rng(3)
    truth = rng.standard_normal(42)
    known, one = evidence(rng, truth), paid(rng, truth)
    halves = split_halves(FAMILIES, RECIPES)
    other = [d.copy() for d in one.drops]
    for k, drop in enumerate(other):
        drop[~halves.recipes] = rng.standard_normal(drop[~halves.recipes].shape)
        if not halves.tasks[k]:
            drop[:] = rng.standard_normal(drop.shape)
    first, second = (score_task_tax(known, Paid(tuple(d), *rest(one)), 0, quick(60)) for d in (one.drops, other))
    assert first.tables["chosen half"] == second.tables["chosen half"] and first.p_value == second.p_value
    assert first.estimate.value != second.estimate.value


def rest(one):
    return one.recipes, one.foretold_by_truth, one.reliability, one.seeds


def test_few_recipes_or_tasks_stay_undecided_whatever_the_numbers():
    rng = np.random.default_rng(4)
    truth = rng.standard_normal(42)
    known, all_paid = evidence(rng, truth), paid(rng, truth)
    few = Paid(tuple(d[:3] for d in all_paid.drops), RECIPES[:3], None, all_paid.reliability, (0,))
    found = score_task_tax(known, few, 0, quick(60))
    assert found.verdict == "undecided" and "3 recipes of at least 6" in found.reason
    assert np.isnan(found.estimate.value) and not found.tables and not found.baselines  # what confirms stays unseen
    assert found.reliability["cap"] == 0.9


def test_random_directions_search_as_widely_as_the_candidates():
    known = evidence(np.random.default_rng(5))
    found = baselines(known, 10)
    assert len(found["random direction"]) == 40 and len(found["gradient norm"]) == 4
    rows = np.stack(list(found["random direction"].values()))
    assert np.allclose(rows, np.stack(list(baselines(known, 10)["random direction"].values())))  # seeded


def test_names_of_checkpoints():
    assert [(t.recipe, t.seed) for t in trained_from(["a/sft+kl-2/model", "x=b/c", "out/dpo"])] == [
        ("sft+kl", 2), ("x", 0), ("dpo", 0),
    ]  # fmt: skip
    with pytest.raises(AligntaxError, match="twice"):
        trained_from(["a/sft-0", "b/sft-0/model"])


def test_the_command_end_to_end_and_again_without_work(tmp_path, capsys, monkeypatch):
    few = [task for task in family_tasks(None) if task.name in FEW]
    monkeypatch.setattr("aligntax.commands.predict_items.family_tasks", lambda _: few)
    base = save(build_model("llama"), tmp_path / "base")
    trained = [f"{name}={save(nudged(0.02, k), tmp_path / name)}" for k, name in enumerate(("sft-0", "sft-1", "dpo-0"))]
    pilot = save(nudged(0.005, 9), tmp_path / "pilot")
    words = ["predict", "P1", "--model", base, "--aligned", *trained, "--pilot", pilot, "--out", str(tmp_path / "out")]
    assert main([*words, "--device", "cpu", "--quiet"]) == 0
    found = read_prediction(tmp_path / "out")
    assert found.verdict == "undecided" and found.n["recipes"] == 2 and found.seeds == [0, 1] and found.estimate is None
    assert found.provenance.protocol_sha256 == P1.sha256 and found.provenance.tokens > 0
    assert found.reliability["seed against seed"] is not None
    relaxed = dataclasses.replace(quick(60), least=())
    monkeypatch.setattr(
        "aligntax.commands.predict_tax.score_task_tax", functools.partial(score_task_tax, protocol=relaxed)
    )
    assert main([*words, "--device", "cpu", "--quiet"]) == 0
    found = read_prediction(tmp_path / "out")
    assert found.estimate is not None and len(found.tables["tasks"]) == len(few)
    assert len(found.tables["first order of the true shift (not a forecast)"]) == LAYERS
    shards = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "shards").iterdir()}
    assert main([*words, "--device", "cpu"]) == 0
    assert shards == {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "shards").iterdir()}
    again = json.loads((tmp_path / "out" / "P1.json").read_text())
    assert again["estimate"] == found.estimate
    assert "Next: " in capsys.readouterr().out


FEW = ("arithmetic", "biology", "copying", "grammar", "larger-2", "letters", "sum-1", "code")


def test_bad_input_is_one_line(capsys, tmp_path):
    assert main(["predict", "P1", "--out", str(tmp_path)]) == 2
    assert "--aligned" in capsys.readouterr().err
    assert main(["predict", "P1", "--aligned", str(tmp_path / "none"), "--model", str(tmp_path / "no"), "--quiet"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
