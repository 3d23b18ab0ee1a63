"""The horizon code on worlds whose harm is known at every prefix, and on planted samplers."""

import dataclasses
import math

import numpy as np
import pytest
from audit_worlds import Rule, TabularSampler, examinee, make_requests, read

from aligntax.audit import choose_open, first_pass, harm_horizon, paired_rollouts, sentences_by
from aligntax.audit import horizon as horizon_room
from aligntax.depth import harm_curve
from aligntax.errors import DataError
from aligntax.judging import callable_judge
from aligntax.lab import TabularPolicy, exact_curve

V, T = 3, 4
DEPTHS = (0, 1, 2, 3)


def worlds(count: int, settled: int, seed: int = 0):
    """Policies with harm 0 or 1 that the first `settled` tokens decide."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        early = rng.permutation(np.arange(V**settled) % 2).astype(float)
        found.append((TabularPolicy.random(V, T, rng, spread=0.5), np.repeat(early, V ** (T - settled))))
    return found


def reads_harm(found):
    """A judge that looks the harm of the whole text up in the world of its prompt."""

    def judge(prompt, prefill, continuation):
        assert prefill == ""
        row = int(np.polyval(read(continuation), V))
        return float(found[int(prompt[1:])][1][row]), None

    return callable_judge(judge, "exact")


def run(found, rows, seed=0):
    sampler = TabularSampler([policy for policy, _ in found])
    person = examinee(sampler, reads_harm(found), seed=seed)
    return sampler, paired_rollouts(person, make_requests(len(found)), DEPTHS, rows, T)


def test_the_curve_of_rollouts_is_the_exact_one_of_the_world():
    found = worlds(6, 2)
    _, pairs = run(found, 150)
    curve = harm_curve(pairs.first, pairs.second, pairs.prompts, depths=pairs.depths)
    exact = exact_curve(found, [*DEPTHS, T])
    assert curve.depths.tolist() == [0, 1, 2, 3, 4] and pairs.unjudged == 0
    sd = curve.draws.std(axis=0)
    assert (np.abs(curve.variance - exact)[1:] <= 4 * sd[1:]).all() and exact[-1] > 0.1
    assert curve.horizon() == 2


def test_it_is_unbiased_over_seeds_and_a_response_is_reused():
    found = worlds(2, 3, seed=1)
    exact = exact_curve(found, [*DEPTHS, T])
    curves = []
    for seed in range(25):
        sampler, pairs = run(found, 20, seed)
        curves.append(harm_curve(pairs.first, pairs.second, pairs.prompts, depths=pairs.depths).variance)
        # One response a row and one continuation from each prefix: the rest of it, none at the limit.
        assert sampler.tokens == 40 * (T + sum(T - depth for depth in DEPTHS))
    error = np.mean(curves, axis=0) - exact
    assert (np.abs(error) <= 4 * np.std(curves, axis=0, ddof=1) / 5 + 1e-12).all()


@pytest.mark.parametrize("settled", [1, 2, 3])
def test_the_horizon_is_found_where_it_was_planted(settled):
    found = worlds(10, settled, seed=settled)
    person = examinee(TabularSampler([policy for policy, _ in found]), reads_harm(found))
    result = harm_horizon(person, make_requests(10), DEPTHS, rows=24, new_tokens=T)
    assert result.tokens == settled and result.interval[0] <= settled <= result.interval[1]
    assert (
        result.curve is not None and result.curve.prompts == len(result.chosen) and result.curve.rollouts == "planted"
    )
    assert len(result.by_prompt) == len(result.chosen) and settled in result.by_prompt
    assert result.sentences == 1.0 and result.settled == (0.0, 0.0, 0.0, 0.0, 1.0)
    assert (result.judge, result.new_tokens) == ("callable:exact", T)


def test_harm_that_no_token_decides_has_no_horizon():
    """A judge that tosses a coin on every whole text: nothing before the last token settles anything."""
    rng = np.random.default_rng(0)
    found = [(TabularPolicy.random(V, T, rng, 0.3), np.full(V**T, 0.5)) for _ in range(8)]
    person = examinee(TabularSampler([p for p, _ in found]), reads_harm(found))
    result = harm_horizon(person, make_requests(8), DEPTHS, rows=8, new_tokens=T)
    assert result.tokens == "undecided" and math.isnan(result.sentences) and math.isnan(result.interval[0])
    assert set(result.by_prompt) == {"undecided"}


def test_only_open_prompts_are_used_and_the_first_pass_is_not():
    """Prompts 0 and 1 always and never harm; 2 and 3 are open."""
    base = worlds(4, 1)
    flat = [np.ones(V**T), np.zeros(V**T)]
    found = [(policy, flat[k] if k < 2 else harm) for k, (policy, harm) in enumerate(base)]
    person = examinee(TabularSampler([p for p, _ in found]), reads_harm(found))
    result = harm_horizon(person, make_requests(4), DEPTHS, rows=30, new_tokens=T)
    assert result.h0[:2] == (1.0, 0.0) and result.chosen == (2, 3)
    assert result.curve is not None and result.curve.rows == 60
    assert choose_open([0.1, 0.9, 0.91, math.nan]) == [0, 1]
    closed = harm_horizon(person, make_requests(2), DEPTHS, rows=4, new_tokens=T)
    assert closed.curve is None and closed.tokens == "undecided" and closed.h0 == (1.0, 0.0) and closed.chosen == ()
    pass_seeds = {case.start(0).seed for case in _cases_of(person, lambda p: first_pass(p, make_requests(1), 4, T))}
    used = {
        case.start(0).seed for case in _cases_of(person, lambda p: paired_rollouts(p, make_requests(1), DEPTHS, 4, T))
    }
    assert len(pass_seeds) == 4 and len(used) == 4 + 4 * 4 and not pass_seeds & used


def _cases_of(person, action):
    seen = []

    class Watched(type(person)):
        def answer(self, cases):
            seen.extend(cases)
            return super().answer(cases)

    action(Watched(**{f.name: getattr(person, f.name) for f in dataclasses.fields(person)}))
    return seen


def test_a_text_that_has_ended_is_settled_and_its_end_is_a_token():
    """Responses of 2 tokens that end by themselves: depth 2 may still go on, depth 3 may not."""
    model = Rule(lambda start: ((5, 6)[len(start.prefill) :] if len(start.prefill) < 2 else (7,), True))
    person = examinee(model, lambda prompt, prefill, text: (float(read(text)[-1] == 7), None))
    pairs = paired_rollouts(person, make_requests(1), (0, 1, 2, 3, 5), 3, 10)
    assert pairs.depths.tolist() == [0, 1, 2, 3, 5, 10]
    assert pairs.settled.tolist() == [0, 0, 0, 1, 1, 1]
    assert pairs.first.tolist() == [[0.0] * 6] * 3 and pairs.second.tolist() == [[0, 0, 1, 0, 0, 0]] * 3
    continued = model.seen[3:]
    assert all(start.new_tokens == 10 - len(start.prefill) for start in continued)


def test_unjudged_rows_are_left_out_and_counted():
    found = worlds(2, 1)
    exact = reads_harm(found)

    def deaf(prompt, prefill, text):
        if prompt == "q0":
            raise RuntimeError("no")
        return exact(prompt, prefill, text).harm, None

    sampler = TabularSampler([p for p, _ in found])
    pairs = paired_rollouts(examinee(sampler, deaf), make_requests(2), DEPTHS, 5, T)
    assert pairs.unjudged == 5 and set(pairs.prompts) == {1} and len(pairs.responses) == 5
    h0 = first_pass(examinee(sampler, deaf), make_requests(2), 8, T)
    assert math.isnan(h0[0]) and 0 <= h0[1] <= 1
    result = harm_horizon(examinee(sampler, lambda *_: 1 / 0), make_requests(2), DEPTHS, 4, T)
    assert result.curve is None and result.chosen == ()


def test_a_resumed_horizon_is_the_straight_one(tmp_path):
    found = worlds(3, 2)
    judge = reads_harm(found)
    straight = harm_horizon(examinee(TabularSampler([p for p, _ in found]), judge), make_requests(3), DEPTHS, 20, T)
    for _ in range(2):
        sampler = TabularSampler([p for p, _ in found])
        again = harm_horizon(examinee(sampler, judge, tmp_path), make_requests(3), DEPTHS, 20, T)
        assert again.curve is not None and straight.curve is not None
        assert again.curve.variance.tolist() == straight.curve.variance.tolist() and again.h0 == straight.h0
    assert sampler.tokens == 0


def test_sentences_are_counted_up_to_the_horizon():
    answers = paired_rollouts(
        examinee(Rule(lambda s: ((1, 2, 1, 2, 1, 2), True)), lambda *_: (1.0, None)), make_requests(1), (0,), 2, 9
    ).responses
    person = dataclasses.replace(
        examinee(Rule(lambda s: ((), True))), decode=lambda ids: "".join({1: "Mix it well", 2: ". "}[t] for t in ids)
    )
    assert [sentences_by(person, answers, depth) for depth in (0, 1, 2, 3, 6)] == [0, 1, 1, 2, 3]
    assert math.isnan(sentences_by(person, answers, "undecided")) and math.isnan(sentences_by(person, (), 3))


def test_impossible_grids_and_counts_are_refused():
    found = worlds(1, 1)
    person = examinee(TabularSampler([p for p, _ in found]), reads_harm(found))
    with pytest.raises(DataError, match="begin at 0"):
        paired_rollouts(person, make_requests(1), (1, 2), 2, T)
    with pytest.raises(DataError, match="rows=0"):
        paired_rollouts(person, make_requests(1), DEPTHS, 0, T)
    with pytest.raises(DataError, match="draws=1"):
        first_pass(person, make_requests(1), 1)
    assert horizon_room.GRID[0] == 0
