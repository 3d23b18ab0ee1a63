"""Mean states against loops, the conjecture's verdict, shifts of too few texts, and what a survey's directions speak of."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import VOCAB, build_model
from hypothesis import given
from hypothesis import strategies as st
from survey_example import example_survey

from aligntax.audit import kl_by_position, mean_states, realised_shift, same_horizon
from aligntax.audit.reading import PairReading
from aligntax.commands.audit_bearings import difference, surveyed
from aligntax.commands.audit_shift import representation_record, shift_on, shift_records, turned, with_first_order
from aligntax.errors import AligntaxError
from aligntax.probing import Probe, Row, TokenBudget
from aligntax.results import HorizonRecord, TaskTax
from aligntax.stats import Estimate


def probe(kind: str, sinks: tuple[int, ...] = (), budget: int = 64) -> Probe:
    return Probe(build_model("llama"), torch.device("cpu"), TokenBudget(budget), kind, sinks, lambda _: None)


def rows(count: int = 5) -> list[Row]:
    rng = np.random.default_rng(0)
    return [Row(tuple(int(t) for t in rng.integers(7, VOCAB, 4 + k)), 2 + k % 3, k) for k in range(count)]


@pytest.mark.parametrize(("kind", "sinks"), [("all", ()), ("all", (0, 2)), ("response", ()), ("last", (0,))])
def test_mean_states_are_means_over_the_positions_that_a_shift_reaches(kind, sinks):
    given_probe = probe(kind, sinks)
    found = mean_states(given_probe, rows())
    for k, row in enumerate(rows()):
        with torch.no_grad():
            states = given_probe.model(input_ids=torch.tensor([row.ids]), output_hidden_states=True).hidden_states[1:]
        reached = {"all": range(len(row.ids)), "response": range(row.start - 1, len(row.ids)), "last": [row.start - 1]}[
            kind
        ]
        kept = [t for t in reached if t not in sinks]
        for layer in range(len(states) - 1):  # the last one has passed the final norm
            assert np.allclose(found[k, layer], states[layer][0, kept].mean(0).numpy(), atol=1e-5)


def test_mean_states_do_not_depend_on_the_batching():
    assert np.allclose(mean_states(probe("all"), rows()), mean_states(probe("all", budget=4096), rows()), atol=1e-5)


@pytest.mark.parametrize(
    ("found", "harm", "said"),
    [
        ((9, 8, 10), (8, 7, 10), "supported"),
        ((50, 40, 60), (9, 8, 10), "contradicted"),
        ((9, 8, 10), (50, 40, 60), "contradicted"),
        ((20, 5, 60), (9, 8, 10), "undecided"),
        ((9, math.nan, math.nan), (9, 8, 10), "undecided"),
    ],
)
def test_the_conjecture_is_decided_by_both_intervals(found, harm, said):
    assert same_horizon(Estimate(*map(float, found), 1.0), Estimate(*map(float, harm), 1.0)) == said
    with pytest.raises(AligntaxError, match="factor=1"):
        same_horizon(Estimate(1, 1, 1, 0), Estimate(1, 1, 1, 0), 1)


ends = st.tuples(st.floats(1, 100), st.floats(1, 100)).map(sorted)


@given(ends, ends)
def test_the_conjecture_is_symmetric(first, second):
    one, other = (Estimate(low, low, high, 1.0) for low, high in (first, second))
    assert same_horizon(one, other) == same_horizon(other, one)


def planted(n: int = 24, d: int = 12):
    """States of two layers: the second moves by 2 along the first axis; harmful prompts stand apart from harmless ones by 3."""
    rng = np.random.default_rng(1)
    v = np.eye(d)[0]
    harmless = 0.3 * rng.standard_normal((n, 2, d))
    harmful = 0.3 * rng.standard_normal((n, 2, d)) + 3 * v
    move = np.stack([0 * v, 2 * v])
    return (harmful, harmful + move), (harmless, harmless.copy()), v


def test_a_planted_shift_is_in_the_table_with_its_cosine_its_turn_and_its_first_order_tax():
    harmful, harmless, v = planted()
    bearings = difference(harmful[0], harmless[0])
    assert (bearings.layer, bearings.kind) == (1, "last")
    names = [f"t{k}" for k in range(5)]
    gradients = {name: np.stack([v, -k * v]) for k, name in enumerate(names)}
    tax = [TaskTax(name, 8, 0.1 * k, 0, 1, 0.1, 0.1, 0, 0, 1, 1, 0, None) for k, name in enumerate(names)]
    costs = realised_shift(*harmful, None, gradients)
    found = shift_records(shift_on(harmful, bearings.safety, {}), turned(harmful, harmless), costs, tax)
    assert found[0].relative_length == 0 and found[1].coherence == pytest.approx(1)
    assert found[1].cosine == pytest.approx(1, abs=0.02) and found[1].turn == pytest.approx(1, abs=0.02)
    assert found[1].tax_rank == pytest.approx(1)
    first_order = [t.first_order for t in with_first_order(tax, costs, 1)]
    assert np.allclose(first_order, [2 * k for k in range(5)])
    assert (
        shift_records(shift_on(harmful, bearings.safety, {}), turned(harmful, harmless), costs, tax[:3])[1].tax_rank
        is None
    )


def test_too_few_texts_give_no_table_rather_than_an_error():
    harmful, harmless, _ = planted(2)
    assert shift_on(harmful, None, {}) is None and np.isnan(turned(harmful, harmless)).all()
    assert shift_records(None, turned(harmful, harmless), None, []) == []


def test_a_turned_direction_shows():
    harmful, harmless, _ = planted()
    away = np.roll(harmful[0], 1, axis=2)
    assert abs(turned((harmful[0], away), (harmless[0], np.roll(harmless[0], 1, axis=2)))[0]).max() < 0.1


def test_a_surveys_bearings_are_of_its_kind_and_of_its_shape():
    survey = example_survey()
    layers = len(survey.layers)
    safety = np.ones((layers, 8), dtype=np.float32)
    arrays = {"safety": safety, **{f"task.{t.name}": 2 * safety for t in survey.tasks}}
    arrays[f"gradient.task.{survey.tasks[0].name}"] = 3 * safety
    found = surveyed(survey, arrays, (layers, 8))
    assert (found.kind, found.layer) == (survey.provenance.shift, survey.layer)
    assert found.gradients[survey.tasks[0].name][0, 0] == 3 and found.gradients[survey.tasks[1].name][0, 0] == 2
    assert set(found.sinks) == {p for row in survey.layers for p in row.sinks}
    with pytest.raises(AligntaxError, match="give a survey of BASE"):
        surveyed(survey, arrays, (layers, 16))


def horizon(tokens: float | None) -> HorizonRecord:
    ends = (None, None) if tokens is None else (tokens - 1, tokens + 1)
    return HorizonRecord("aligned", [], [], [], [], tokens, *ends, None, tokens is not None, 3, 3)


def test_a_representation_record_has_the_profile_and_scores_the_conjecture_at_one_layer():
    n, length = 12, 24
    forward = np.where(np.arange(length) < 4, 1.0, 1e-9) * np.ones((n, length))
    reading = PairReading(forward, forward, np.arange(n))
    base = np.zeros((n, 2, length))
    aligned = base.copy()
    aligned[:, 0], aligned[:, 1, :5] = 1.0, 1.0
    bearings = replace(difference(np.ones((4, 2, 3)), np.zeros((4, 2, 3))), layer=1)

    def record(harm):
        return representation_record(reading, (base, aligned), bearings, harm, np.random.default_rng(0))

    found = record(horizon(5.0))
    assert found.position == [*range(1, 11), 15, 20]
    assert np.array(found.aligned).shape == (2, 12) and found.aligned[1][4] == 1 and found.aligned[1][5] == 0
    assert found.horizon[1] == 5 and found.gap[1] == 5 - kl_reach(reading) and found.horizon[0] == 23
    assert found.verdict == "supported" and record(horizon(20.0)).verdict == "contradicted"
    assert record(None).verdict == record(horizon(None)).verdict == "undecided"
    assert "attacks all" in record(None).reason and "itself is undecided" in record(horizon(None)).reason


def kl_reach(reading: PairReading) -> float:
    sums = kl_by_position(reading, "aligned").forward.sum(0)
    return float(1 + np.argmax(np.cumsum(sums) >= 0.95 * sums.sum()))
