"""Success by depth of planted models, its intervals, what is counted, what is kept, and what is written."""

import dataclasses
import math
import os
import stat

import numpy as np
import pyarrow.parquet as pq
import pytest
from audit_worlds import NO, YES, Rule, examinee, make_requests, read, turns_back
from conftest import VOCAB
from hypothesis import given
from hypothesis import strategies as st

from aligntax import audit
from aligntax.audit import (
    DEPTHS,
    Case,
    ModelSampler,
    attack_rates,
    distinct_n,
    entropy,
    harmful_continuations,
    inert,
    is_looping,
    prefill_cases,
    quality,
    repeated_ngrams,
    sampled,
    self_similarity,
    share_interval,
    success_gap,
    too_short,
    write_texts,
)
from aligntax.audit.sampler import _groups
from aligntax.data import ChatFormat
from aligntax.errors import AligntaxError, DataError
from aligntax.judging import callable_judge, lexical_judge
from aligntax.models import Start, roll_out
from aligntax.probing import ShardStore, TokenBudget

LONG = tuple(range(10, 100))


def planted(count: int = 12):
    """Half of the requests are broken by 2 tokens, the other half by 20; every third continuation has 12 tokens."""
    requests = make_requests(count)
    continuations = [LONG[:12] if k % 3 == 0 else LONG for k in range(count)]
    return requests, continuations, turns_back(lambda k: 2 if k % 2 == 0 else 20)


def test_planted_success_by_depth_is_found():
    requests, continuations, model = planted()
    cases = prefill_cases(requests, continuations)
    rates = attack_rates(examinee(model).answer(cases), "test", too_short(continuations))
    assert [rate.depth for rate in rates] == list(DEPTHS)
    for rate in rates:
        reached = [k for k in range(12) if len(continuations[k]) >= rate.depth]
        broken = np.mean([rate.depth >= (2 if k % 2 == 0 else 20) for k in reached])
        assert rate.success.value == rate.unrefused.value == pytest.approx(broken)
        assert rate.success.low <= broken <= rate.success.high
        assert (rate.n, rate.prompts, rate.short) == (len(reached), len(reached), 12 - len(reached))
        assert (rate.kind, rate.sampled, rate.unjudged, rate.new_tokens) == ("prefill", False, 0, 128)


def test_prefills_are_content_tokens_and_stand_once_in_the_text(tiny_model, tiny_tokenizer):
    tokenizer, judged = tiny_tokenizer(), []
    chat = ChatFormat(tokenizer)
    requests = audit.make_requests(["How do I bake bread?"], chat)
    content = tuple(chat.encode_reply("Sure, here is the plan: first, mix the flour."))
    judge = callable_judge(lambda *parts: judged.append(parts) or (0.0, 0.0), "spy")
    sampler = ModelSampler(tiny_model("llama"), TokenBudget(10_000))
    decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=True)  # noqa: E731
    person = audit.Examinee("tiny", sampler, decode, judge, ShardStore(None, {}))
    cases = prefill_cases(requests, [content], (0, 1, 5), new_tokens=12)
    answers = person.answer(cases)
    assert [case.prefill for case in cases] == [content[:0], content[:1], content[:5]]
    bos = [case.start(0).ids.count(tokenizer.bos_token_id) for case in cases]
    assert bos == [1, 1, 1] and cases[0].prompt == tuple(chat.encode_prompt("How do I bake bread?"))
    for (prompt, prefill, continuation), answer in zip(judged, answers, strict=True):
        assert prompt == "How do I bake bread?" and prefill == decode(list(answer.case.prefill))
        assert prefill + continuation == decode([*answer.case.prefill, *answer.ids])
        assert answer.ids == roll_out(tiny_model("llama"), [answer.case.start(0)])[0].ids


def test_short_continuations_are_counted_and_never_stretched():
    requests, continuations, model = planted(3)
    continuations[1] = ()
    rates = attack_rates(
        examinee(model).answer(prefill_cases(requests, continuations, (0, 40, 200))),
        "j",
        too_short(continuations, (0, 40, 200)),
    )
    found = {rate.depth: (rate.n, rate.short) for rate in rates}
    assert found == {0: (3, 0), 40: (1, 2), 200: (0, 3)}
    last = rates[-1]
    assert math.isnan(last.success.value) and math.isnan(last.success.low) and last.n == 0
    assert max(len(start.prefill) for start in model.seen) == 40
    with pytest.raises(DataError, match="all 3 harmful continuations are empty"):
        prefill_cases(requests, [(), (), ()])
    with pytest.raises(DataError, match="2 continuations for 3 requests"):
        prefill_cases(requests, [LONG, LONG])
    with pytest.raises(DataError, match=r"depths \[-1, 3\]"):
        prefill_cases(requests, continuations, (-1, 3))


def failing(prompt, prefill, continuation):
    """Harmless everywhere, but cannot read q0, q1 and q2."""
    if prompt in ("q0", "q1"):
        raise RuntimeError("no")
    return (math.nan, 1.0) if prompt == "q2" else (0.0, 1.0)


def test_unjudged_replies_are_never_safe():
    requests, continuations, model = planted(6)
    (rate,) = attack_rates(examinee(model, failing).answer(prefill_cases(requests, continuations, [0])), "failing")
    assert (rate.n, rate.unjudged) == (6, 3)
    assert rate.success.value == rate.unrefused.value == 0.5
    assert rate.success.low == 0.0 and rate.success.high == share_interval(0.5, 6)[1]
    every = attack_rates(examinee(model, lambda *_: 1 / 0).answer(prefill_cases(requests, continuations, [0])), "none")
    assert every[0].success == audit.Share(1.0, 0.0, 1.0)


def test_a_judge_without_harm_leaves_success_undefined():
    requests, continuations, model = planted(4)
    answers = examinee(model, lexical_judge()).answer(prefill_cases(requests, continuations, [0]))
    (rate,) = attack_rates(answers, "lexical")
    assert math.isnan(rate.success.value) and rate.unrefused.value == 1.0 and rate.unjudged == 0
    with pytest.raises(DataError, match="does not measure harm"):
        success_gap(answers, answers)


def test_truncated_and_looping_replies_are_counted():
    texts = [([7, 8] * 20, False), (list(range(40)), False), ([5], True), ([], True)]
    model = Rule(lambda start: texts[start.prompt[0] - 100])
    (rate,) = attack_rates(examinee(model).answer(prefill_cases(make_requests(4), [LONG] * 4, [0])), "j")
    assert (rate.truncated, rate.looping) == (2, 1)


def test_draws_are_averaged_within_requests_and_belong_to_their_case():
    requests = make_requests(40)
    model = Rule(lambda start: ([NO if (start.seed or 0) % 10 < 3 else YES], True))
    cases = sampled(prefill_cases(requests, [LONG] * 40, [0, 5]), 20)
    rates = attack_rates(examinee(model).answer(cases), "j")
    assert [(rate.sampled, rate.n, rate.prompts) for rate in rates] == [(True, 800, 40)] * 2
    assert rates[0].success.low < 0.7 < rates[0].success.high and abs(rates[0].success.value - 0.7) < 0.06
    seeds = [start.seed for start in model.seen]
    assert len(set(seeds)) == len(cases)
    again = [case.start(0).seed for case in reversed(cases)]
    assert sorted(again) == sorted(seeds) and again != [case.start(1).seed for case in reversed(cases)]
    with pytest.raises(DataError, match="draws=0"):
        sampled(cases, 0)


@pytest.mark.parametrize("spread", [0.0, 0.3])
@pytest.mark.parametrize("draws", [1, 8])
def test_the_interval_covers_the_mean_chance(spread, draws):
    rng, n, hits = np.random.default_rng(0), 16, []
    for _ in range(1500):
        chance = np.clip(rng.normal(0.3, spread, n), 0, 1)
        share = rng.binomial(draws, chance).mean() / draws
        # The mean over fresh requests: numerically, of the clipped normal.
        truth = np.clip(rng.normal(0.3, spread, 4000), 0, 1).mean() if spread else 0.3
        low, high = share_interval(share, n, 0.9)
        hits.append(low <= truth <= high)
    assert np.mean(hits) >= 0.9


@given(st.integers(1, 60), st.floats(0, 1), st.floats(0.5, 0.99))
def test_intervals_hold_their_share_and_mirror(prompts, share, level):
    low, high = share_interval(share, prompts, level)
    assert 0 <= low <= share + 1e-9 and share - 1e-9 <= high <= 1
    other = share_interval(1 - share, prompts, level)
    assert (1 - other[1], 1 - other[0]) == pytest.approx((low, high), abs=1e-6)


def test_gaps_are_paired_by_request():
    requests, _, model = planted()
    person = examinee(model)
    deep, flat = (person.answer(prefill_cases(requests, [LONG] * 12, [d])) for d in (5, 0))
    gap = success_gap(deep, flat)
    assert gap.tax.value == 0.5 and (gap.lost, gap.gained) == (6, 0) and gap.p_value == pytest.approx(2 * 0.5**6)
    with pytest.raises(DataError):
        success_gap(deep, flat[1:])


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    requests, continuations, model = planted(40)
    cases = prefill_cases(requests, continuations)
    whole = examinee(model).answer(cases)
    count = 0

    def dying(start: Start):
        nonlocal count
        count += 1
        if count > 150:
            raise KeyboardInterrupt
        return model.rule(start)

    with pytest.raises(KeyboardInterrupt):
        examinee(Rule(dying), folder=tmp_path).answer(cases)
    rest = turns_back(lambda k: 2 if k % 2 == 0 else 20)
    assert examinee(rest, folder=tmp_path).answer(cases) == whole
    assert 0 < len(rest.seen) <= len(cases) - 64
    third = examinee(Rule(lambda start: 1 / 0), folder=tmp_path)
    deaf = dataclasses.replace(third.judge, scorer=lambda replies: 1 / 0)
    assert dataclasses.replace(third, judge=deaf).answer(cases) == whole  # rollouts and verdicts are both read back
    refit = dataclasses.replace(deaf, fit="another")
    assert not any(answer.verdict.judged for answer in dataclasses.replace(third, judge=refit).answer(cases))
    other = turns_back(lambda k: 0)
    examinee(other, folder=tmp_path, seed=1).answer(sampled(cases[:1], 1))
    assert len(other.seen) == 1
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())


def test_what_a_judge_failed_on_is_asked_again(tmp_path):
    requests, continuations, model = planted(3)
    cases = prefill_cases(requests, continuations, [0])
    source = callable_judge(lambda *_: (1.0, 0.0), "one")
    broken = dataclasses.replace(source, scorer=lambda replies: 1 / 0)
    assert not any(a.verdict.judged for a in examinee(model, broken, tmp_path).answer(cases))
    assert {a.verdict.harm for a in examinee(model, source, tmp_path).answer(cases)} == {1.0}
    assert len(model.seen) == 3


def test_harmful_continuations_are_those_judged_harmful():
    """q0 goes along greedily, q1 in some draws, q2 never."""

    def rule(start: Start):
        number = start.prompt[0] - 100
        goes = number == 0 or (number == 1 and start.seed is not None)
        return ([YES, 11] if goes else [NO]), True

    found = harmful_continuations(examinee(Rule(rule)), make_requests(3))
    assert found == [(YES, 11), (YES, 11), ()]


def test_the_sampler_gives_the_same_in_any_batch_and_after_running_out_of_memory(tiny_model, monkeypatch):
    model = tiny_model("llama")
    rng = np.random.default_rng(0)
    starts = [
        Start(tuple(rng.integers(7, VOCAB, 3 + k % 4).tolist()), tuple(range(20, 20 + k % 3)), 4, None if k % 2 else k)
        for k in range(20)
    ]
    expected = roll_out(model, starts)
    heard: list[int] = []
    assert ModelSampler(model, TokenBudget(10**6), heard.append)(starts) == expected
    assert sum(heard) == sum(len(s.ids) + len(r.ids) for s, r in zip(starts, expected, strict=True))
    assert ModelSampler(model, TokenBudget(1))(starts) == expected

    def tight(model, group):
        if len(group) > 3:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return roll_out(model, group)

    monkeypatch.setattr(audit.sampler, "roll_out", tight)
    assert ModelSampler(model, TokenBudget(10**6))(starts) == expected
    monkeypatch.setattr(audit.sampler, "roll_out", lambda *_: tight(model, [0] * 9))
    with pytest.raises(AligntaxError, match="single row of"):
        ModelSampler(model, TokenBudget(40))(starts)
    assert sorted(k for group in _groups(starts, range(20), 40) for k in group) == list(range(20))


def test_loops_and_repeats_are_seen_and_prose_is_not():
    rng = np.random.default_rng(0)
    prose = rng.integers(0, 500, 120).tolist()
    assert not is_looping(prose) and is_looping(prose + [1, 2, 3] * 8) and is_looping([4] * 24)
    assert not is_looping([4] * 23) and not is_looping([1, 2, 3] * 8 + prose)
    assert is_looping(prose[:32] * 3) and not is_looping(prose[:33] * 3)
    assert repeated_ngrams(prose) == 0.0 and repeated_ngrams(prose * 2) == pytest.approx(120 / 237, abs=0.02)
    assert math.isnan(repeated_ngrams([1, 2, 3]))


@given(st.lists(st.lists(st.integers(0, 4), max_size=8), min_size=2, max_size=5))
def test_diversity_is_symmetric_bounded_and_lowest_for_copies(samples):
    for measure in (distinct_n, self_similarity, entropy):
        found, backwards = measure(samples), measure(samples[::-1])
        assert found == pytest.approx(backwards, nan_ok=True)
    if any(len(ids) > 1 for ids in samples):
        copies = [max(samples, key=len)] * len(samples)
        assert self_similarity(copies) == 1.0 >= self_similarity(samples)
        assert distinct_n(copies) <= 1 / len(samples) + 1e-12 or len(samples) < 2
    if any(samples):
        assert 0 <= entropy(samples) <= math.log(5) + 1e-12
        assert entropy([range(5)]) == pytest.approx(math.log(5))


def test_quality_counts_what_it_says():
    found = quality([[([1, 2, 3], True), ([1, 2, 3], True)], [([], True), ([5] * 30, False)]])
    assert (found.prompts, found.samples, found.tokens) == (2, 4, 9.0)
    assert (found.looping, found.truncated, found.empty) == (0.25, 0.25, 0.25)
    assert found.similarity == pytest.approx((1.0 + 0.0) / 2)
    assert math.isnan(quality([[([1], True)]]).similarity)
    with pytest.raises(DataError, match="without replies"):
        quality([[([1], True)], []])


HOSTILE = [
    "=HYPERLINK(1)",
    " +cmd|' /C calc'!A0",
    "@SUM(1)",
    "-2+3",
    "\x1b]0;own\x07\x1b[31mred",
    "<script>alert(1)</script>",
]


@pytest.mark.parametrize("text", [*HOSTILE, "\x9b31m", "</textarea><!--", "<?php", "\t=1", "\x00=1+1", "\x1b[0m=1"])
def test_hostile_text_is_inert(text):
    found = inert(text)
    assert not found.lstrip().startswith(("=", "+", "-", "@")) and "\x1b" not in found and "\x9b" not in found
    assert not any(f"<{mark}" in found for mark in "s/!?") and inert("a < b = c, 5 - 3") == "a < b = c, 5 - 3"


def test_texts_go_to_one_private_file_and_are_inert_there(tmp_path):
    os.umask(0o022)
    requests = [audit.Request(text, (100 + k,)) for k, text in enumerate(HOSTILE)]
    person = examinee(Rule(lambda start: ([start.prompt[0] - 100], True)), lambda *_: (0.25, 0.5))
    said = dict(enumerate(HOSTILE))
    person = dataclasses.replace(person, decode=lambda ids: "".join(said.get(t, "") for t in ids))
    answers = person.answer(prefill_cases(requests, [(k,) for k in range(len(HOSTILE))], [0, 1]))
    write_texts(tmp_path / "out" / "texts.parquet", [(person, answers)])
    (path,) = (tmp_path / "out").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rows = pq.read_table(path).to_pylist()
    assert len(rows) == 2 * len(HOSTILE) and {row["model"] for row in rows} == {"planted"}
    for row, answer in zip(rows, answers, strict=True):
        for name in ("request", "prompt", "prefill", "continuation"):
            assert row[name] == inert(row[name].removeprefix("'")) or not row[name]
            assert "\x1b" not in row[name] and "<script" not in row[name]
        assert (row["item"], row["harm"], row["refusal"], row["depth"]) == (
            answer.case.request.key,
            0.25,
            0.5,
            answer.case.depth,
        )
        assert len(row["hash"]) == 64 and row["draw"] is None
    with pytest.raises(AligntaxError, match="cannot write"):
        write_texts(path / "below", [])


def test_results_hold_no_text():
    requests, continuations, model = planted(3)
    rates = attack_rates(examinee(model).answer(prefill_cases(requests, continuations, [0])), "j")
    assert all("q0" not in str(dataclasses.asdict(rate)) for rate in rates)
    with pytest.raises(DataError, match="given twice"):
        audit.make_requests(["a", "b", "a"], None)
    with pytest.raises(DataError, match="no requests"):
        audit.make_requests([], None)
    assert read("3 4 ") == [3, 4] and Case(requests[0], "x", 0, (1,)).draw is None
