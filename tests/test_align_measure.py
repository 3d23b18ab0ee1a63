"""What an update was worth: where it writes against chance, and its gain against the frontier at the same price."""

import json

import numpy as np
import pytest
import torch
from conftest import LAYERS, WIDTH, build_model
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.cli import main
from aligntax.commands.alignment_frontier import LayerFrontier
from aligntax.commands.alignment_measure import residual_writers
from aligntax.errors import GeometryError
from aligntax.geometry import Fisher, max_gain_per_nats, output_overlap
from aligntax.models import ModelSpec, load
from aligntax.results import read_align, read_arrays, read_survey
from aligntax.stats import Estimate

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@given(st.integers(0, 10**6), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_overlap_is_how_much_of_a_direction_the_update_can_write(seed, rank):
    rng = np.random.default_rng(seed)
    update = rng.standard_normal((9, rank)) @ rng.standard_normal((rank, 12))
    directions = rng.standard_normal((4, 9))
    found = output_overlap(update, directions, 1.0)
    for direction, squared in zip(directions, found.squared, strict=True):
        target = direction / np.linalg.norm(direction)
        left = target - update @ np.linalg.lstsq(update, target, rcond=1e-10)[0]
        assert squared == pytest.approx(1 - left @ left, abs=1e-8)
    assert (found.rank, found.width, found.law.mean()) == (rank, 9, pytest.approx(rank / 9))


def test_a_planted_direction_is_found_and_random_ones_follow_the_law():
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((2000, 24))
    update = np.outer(directions[0], rng.standard_normal(7)) + 1e-3 * rng.standard_normal((24, 7))
    assert output_overlap(update, directions[:1]).squared[0] > 0.999
    found = output_overlap(rng.standard_normal((24, 3)), directions, 1.0)
    low, high = found.interval(0.9)
    inside = np.mean((found.squared >= low) & (found.squared <= high))
    assert abs(inside - 0.9) < 0.03 and found.squared.mean() == pytest.approx(3 / 24, abs=0.01)


def test_the_rank_is_where_the_energy_is():
    update = np.diag([10.0, 1.0, 0.1])
    assert [output_overlap(update, np.eye(3), e).rank for e in (0.98, 0.995, 1.0)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("update", "energy", "said"),
    [(np.zeros((3, 2)), 0.99, "zero"), (np.eye(3), 0.0, "energy is 0"), (np.ones(3), 1, "shape")],
)
def test_what_has_no_output_subspace_is_an_error(update, energy, said):
    with pytest.raises(GeometryError, match=said):
        output_overlap(update, np.eye(3), energy)


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3", "gpt2", "gpt_neox"])
def test_residual_writers_are_what_moves_the_stream(family):
    """With these matrices at zero a block passes its input on; with any other one at zero it does not."""
    model = build_model(family)
    writers = residual_writers(model)
    assert len(writers) == LAYERS and all(len(names) == 2 for names in writers)
    named = dict(model.named_parameters())
    ids = torch.tensor([[7, 8, 9, 10]])
    kept = {name: named[name].detach().clone() for names in writers for name in names}
    biases = {n: p for n, p in named.items() if n.removesuffix("bias") + "weight" in kept}
    saved = {n: p.detach().clone() for n, p in biases.items()}
    try:
        for part in [*(named[n] for n in kept), *biases.values()]:
            part.data.zero_()
        states = model(ids, output_hidden_states=True).hidden_states
        torch.testing.assert_close(states[0], states[-2])
    finally:
        for name, value in kept.items():
            named[name].data.copy_(value)
        for name, value in saved.items():
            biases[name].data.copy_(value)


def problem(seed=0, tasks=3, width=10):
    rng = np.random.default_rng(seed)
    fisher = Fisher(rng.standard_normal((30, width)) / 6, 0.1)
    return rng.standard_normal(width), {f"t{k}": rng.standard_normal(width) for k in range(tasks)}, fisher


@pytest.mark.parametrize("seed", range(5))
def test_no_shift_of_the_same_price_that_loses_no_more_gains_more(seed):
    safety, tasks, fisher = problem(seed)
    rng = np.random.default_rng(seed + 100)
    shift = rng.standard_normal(10)
    nats = fisher.quad(shift) / 2
    changes = {name: float(g @ shift) for name, g in tasks.items()}
    share = LayerFrontier(3, safety, tasks, fisher).share(Estimate(float(safety @ shift), 0, 0, 0), changes, nats)
    assert share.exact >= float(safety @ shift) - 1e-9 and share.within >= share.exact - 1e-9
    for other in rng.standard_normal((400, 10)):
        other *= np.sqrt(nats / (fisher.quad(other) / 2))
        if all(float(tasks[n] @ other) >= min(changes[n], 0.0) for n in tasks):
            assert float(safety @ other) <= share.within + 1e-9
    assert share.exact_share == pytest.approx(float(safety @ shift) / share.exact)


def test_the_best_shift_has_the_whole_share_and_half_of_it_less():
    safety, tasks, fisher = problem(7)
    best = max_gain_per_nats(safety, np.stack([*tasks.values()]), np.full(3, 0.05), fisher, 0.1)
    changes = {name: float(g @ best.shift) for name, g in tasks.items()}
    frontier = LayerFrontier(0, safety, tasks, fisher)
    whole = frontier.share(Estimate(best.gain, best.gain, best.gain, 0.0), changes, 0.1)
    assert whole.exact_share == pytest.approx(1.0, abs=1e-4) and whole.within_share <= 1.0 + 1e-4
    half = frontier.share(Estimate(best.gain / 2, 0.0, best.gain, 0.1), changes, 0.1)
    assert half.exact_share == pytest.approx(0.5, abs=1e-4) and half.exact_high == pytest.approx(1.0, abs=1e-4)


def test_what_no_shift_can_do_is_undefined_and_says_why():
    safety, tasks, fisher = problem(1)
    far = LayerFrontier(0, safety, tasks, fisher).share(Estimate(1, 1, 1, 0), dict.fromkeys(tasks, 1e3), 1e-3)
    assert np.isnan(far.exact_share) and "budget" in far.reason and far.within > 0
    none = LayerFrontier(0, safety, tasks, fisher).share(Estimate(1, 1, 1, 0), {"t0": 0.0, "other": 1.0}, 0.0)
    assert np.isnan(none.within_share) and "0.0 nats" in none.reason and [*none.changes] == ["t0"]


@pytest.fixture(scope="module")
def surveyed(tiny_folder, survey_files, tmp_path_factory):
    out = tmp_path_factory.mktemp("align-survey") / "survey"
    words = [
        "survey",
        str(tiny_folder),
        "--out",
        str(out),
        "--size",
        "demo",
        "--groups",
        "5",
        "--quiet",
        "--no-linearity",
    ]
    assert (
        main(
            [*words, "--safety", str(survey_files.prompts), "--tasks", str(survey_files.sums), str(survey_files.words)]
        )
        == 0
    )
    return out


def align(folder, files, out, *more):
    pytest.importorskip("trl")
    return main(
        ["align", str(folder), "--out", str(out), "--safety", str(files.prompts), "--tasks", str(files.sums),
         str(files.words), "--steps", "3", "--batch", "4", "--completion-tokens", "6", "--protect-items", "4",
         "--learning-rate", "3e-3", "--quiet", *more]
    )  # fmt: skip


@pytest.mark.parametrize("lora", [True, False])
def test_align_says_where_the_update_writes_and_what_it_was_worth(lora, tiny_folder, survey_files, surveyed, tmp_path):
    more = ("--lora", "--lora-rank", "2") if lora else ()
    assert align(tiny_folder, survey_files, tmp_path / "out", "--survey", str(surveyed), *more) == 0
    record = read_align(tmp_path / "out")
    survey, arrays = read_survey(surveyed), read_arrays(surveyed / "directions.safetensors")
    base = load(ModelSpec(str(tiny_folder))).model.state_dict()
    after = load(ModelSpec(str(tmp_path / "out" / "model"))).model.state_dict()
    assert [row.layer for row in record.overlap] == list(range(LAYERS))
    for row in record.overlap:
        names = [f"model.layers.{row.layer}.{part}.weight" for part in ("self_attn.o_proj", "mlp.down_proj")]
        update = torch.cat([after[n] - base[n] for n in names], 1).double().numpy()
        left, values, _ = np.linalg.svd(update)
        assert (np.square(values[: row.rank]).sum() / np.square(values).sum()) >= 0.99 - 1e-6
        assert (row.rank <= 4) if lora else (row.rank > 4)
        g = arrays["task.sums"][row.layer].astype(float)
        expected = np.square(left[:, : row.rank].T @ g / np.linalg.norm(g)).sum()
        assert row.tasks["sums"] == pytest.approx(expected, abs=1e-4)
        assert row.chance == pytest.approx(row.rank / WIDTH) and row.low < row.chance < row.high
    share = record.efficiency
    assert share is not None and share.layer == survey.layer and set(share.changes) == {"sums", "words"}
    assert share.nats > 0 and share.within > 0 and share.within_share == pytest.approx(share.gain / share.within)
    assert share.prompts == 36 and not share.held_out and share.gain_low < share.gain < share.gain_high


def test_a_survey_without_gradients_prices_nothing(tiny_folder, survey_files, surveyed, tmp_path):
    for file in surveyed.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    found = json.loads((tmp_path / "survey.json").read_text())
    (tmp_path / "survey.json").write_text(json.dumps(found | {"estimator": "dim"}))
    assert align(tiny_folder, survey_files, tmp_path / "out", "--survey", str(tmp_path)) == 0
    record = read_align(tmp_path / "out")
    assert record.efficiency is None and record.overlap == []


def test_a_survey_of_other_weights_is_refused_before_anything_is_run(
    tiny_folder, survey_files, surveyed, tmp_path, capsys
):
    other = tmp_path / "other"
    other.mkdir()
    for file in surveyed.iterdir():
        if file.is_file():
            (other / file.name).write_bytes(file.read_bytes())
    found = json.loads((other / "survey.json").read_text())
    found["provenance"]["weights_sha256"] = "0" * 64
    (other / "survey.json").write_text(json.dumps(found))
    assert align(tiny_folder, survey_files, tmp_path / "out", "--survey", str(other)) == 2
    assert "survey this model first" in capsys.readouterr().err
    assert not any((tmp_path / "out" / "state").glob("shards/*"))
    assert align(tiny_folder, survey_files, tmp_path / "new", "--survey", str(tmp_path / "nowhere")) == 2
    assert align(tiny_folder, survey_files, tmp_path / "new", "--method", "reward", "--survey", str(surveyed)) == 2
    assert "--survey" in capsys.readouterr().err
