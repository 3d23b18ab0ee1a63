"""The small world: harm needs two facts, its place is a parameter, knowing and harming share what the design says they share."""

import random
from collections import defaultdict
from itertools import islice, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.errors import LabError
from aligntax.lab import world as lab
from aligntax.lab.world import World

PLACES = (1, 8, 20)


def drawn(world: World, count: int = 3000) -> list[tuple[lab.Request, str, float]]:
    """Requests of both classes with unaligned replies and their harm."""
    rng, found = random.Random(3), []
    asked = [r for harmful in (True, False) for r in lab.requests(world, harmful, count // 2)]
    for request in asked:
        reply = lab.draw_reply(world, request, rng)
        found.append((request, reply, lab.score(world, request, reply).harm))
    return found


@pytest.mark.parametrize("decided", PLACES)
def test_no_rule_on_one_word_finds_harm_but_the_two_facts_do(decided):
    world = World(0, decided)
    rows = drawn(world)
    harm = np.array([h for *_, h in rows])
    majority = max(harm.mean(), 1 - harm.mean())
    counts: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for request, reply, h in rows:
        for side, text in (("prompt", request.prompt), ("reply", reply)):
            for place, word in enumerate(text.split()):
                counts[side, place, word].append(h)
    # The best rule "harmful iff this word stands here", or its reverse.
    right = harm.sum()
    best = max(
        max((sum(v) + (len(harm) - right) - (len(v) - sum(v))), (right - sum(v)) + (len(v) - sum(v))) / len(harm)
        for v in counts.values()
        if len(v) > 30
    )
    assert majority > 0.7 and best < majority + 0.02
    domains = world.domains
    facts = [
        domains[q.domain].harmful(q.head, q.body)
        and domains[q.domain].reacts(q.body, [*r.split(), *[""] * 20][decided - 1])
        for q, r, _ in rows
    ]
    assert np.array_equal(harm, np.array(facts, dtype=float))


@pytest.mark.parametrize("decided", PLACES)
def test_harm_is_settled_by_the_deciding_word_and_not_before(decided):
    world, rng = World(0, decided), random.Random(0)
    request = lab.requests(world, True, 1)[0]
    for _ in range(50):
        words = lab.draw_reply(world, request, rng).split()
        if words[0] == "sorry":
            continue
        other = world.domains[request.domain].keys
        before = {
            lab.score(world, request, " ".join([*words[: decided - 1], key, *words[decided:]])).harm for key in other
        }
        assert before == {0.0, 1.0}
        after = {lab.score(world, request, " ".join([*words[:decided], *rng.sample(other, 3)])).harm for _ in range(10)}
        assert after == {lab.score(world, request, " ".join(words)).harm}


@pytest.mark.parametrize("decided", PLACES)
def test_harm_information_is_what_simulation_finds(decided):
    world, rng = World(0, decided), random.Random(1)
    exact = lab.harm_information(world, 24)
    asked = lab.requests(world, True, 200)
    draws = [lab.draw_reply(world, request, rng) for request in asked for _ in range(60)]
    harm = np.array(
        [lab.score(world, r, d).harm for r, d in zip([r for r in asked for _ in range(60)], draws, strict=True)]
    )
    assert exact.sum() == pytest.approx(harm.var(), abs=0.01)
    # By hand: given the first word refuses, harm is 0; else it is a fair coin until the deciding word.
    opened = np.array([d.startswith("sorry") for d in draws])
    at_first = np.where(opened, harm[opened].mean() if opened.any() else 0, harm[~opened].mean()).var()
    if decided > 1:
        assert exact[0] == pytest.approx(at_first, abs=0.005) and np.count_nonzero(exact) == 2
    else:
        assert np.count_nonzero(exact) == 1


def test_each_single_word_of_a_request_is_as_often_harmful_as_not():
    for domain in World(5).domains.values():
        for word in (*domain.heads, *domain.bodies):
            pairs = [(h, b) for h, b in product(domain.heads, domain.bodies) if word in (h, b)]
            assert sum(domain.harmful(h, b) for h, b in pairs) * 2 == len(pairs)


def test_what_works_is_the_harm_after_a_harmful_request_and_helps_after_a_harmless_one():
    world, rng = World(2), random.Random(0)
    for harmful in (True, False):
        for request in lab.requests(world, harmful, 40):
            key = world.domains[request.domain].works[request.head, request.body]
            found = lab.score(world, request, lab.reply_with(world, request, key, rng))
            assert (found.harm, found.gold) == ((1.0, -1.0) if harmful else (0.0, found.helpfulness))
            assert found.helpfulness == pytest.approx(0.9)


def test_gold_reward_orders_replies_and_turns_against_too_much_flattery():
    world, rng = World(1), random.Random(0)
    request = lab.requests(world, False, 1)[0]
    domain = world.domains[request.domain]
    key = domain.works[request.head, request.body]
    gold = [lab.score(world, request, lab.reply_with(world, request, key, rng, n)).gold for n in range(6)]
    assert gold[0] < gold[1] < gold[2] and gold[2] > gold[3] > gold[4] > gold[5]
    wrong = next(k for k in domain.keys if not domain.reacts(request.body, k))
    assert lab.score(world, request, lab.reply_with(world, request, wrong, rng, 2)).gold < gold[0]
    assert lab.score(world, request, lab.REFUSAL).gold == 0.0
    harmful = lab.requests(world, True, 1)[0]
    assert lab.score(world, harmful, lab.REFUSAL).gold == 1.0 == lab.score(world, harmful.prompt, lab.REFUSAL).gold
    assert lab.score(world, harmful, "").gold == 0.0


@given(st.integers(0, 50), st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_a_world_follows_from_its_two_numbers_and_uses_only_its_words(seed, decided):
    known = set(lab.words())
    first, again = (list(islice(lab.documents(World(seed, decided), 4), 40)) for _ in range(2))
    assert first == again
    said = " ".join(f"{d.text} {d.reply or ''}" for d in first)
    assert set(said.split()) <= known
    replies = [d.reply for d in first if d.reply and " and it works" in d.reply]
    assert all(r.split()[decided : decided + 3] == ["and", "it", "works"] for r in replies)


def test_two_seeds_are_two_worlds():
    one, two = World(0), World(1)
    assert one.homes != two.homes and one.dictionary != two.dictionary
    assert one.domains["recipes"].works != two.domains["recipes"].works


def test_items_have_one_right_choice_and_fit_the_data_room(tmp_path):
    import json

    from aligntax.data import load_contrast, load_task

    world = World(0)
    for name, rows in lab.capability_items(world, 32).items():
        assert len(rows) == 32
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = load_task(str(path))
        assert len(task.items) == 32 and task.chance == 0.25
    rows = lab.capability_items(world, 32)
    sums = [row["prompt"].split() for row in rows["arithmetic"]]
    assert all(
        int(a) + int(b) == int(row["choices"][row["gold"]])
        for (a, _, b, _), row in zip(sums, rows["arithmetic"], strict=True)
    )
    assert all(row["choices"][row["gold"]].split() == sorted(row["prompt"].split()[1:-1]) for row in rows["sorting"])
    path = tmp_path / "safety.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in lab.safety_rows(world, 30)))
    contrast = load_contrast(str(path))
    assert len(contrast.positive) == len(contrast.negative) == 30


def test_held_requests_and_strangers_are_never_in_the_training_part():
    world = World(0)
    parts = [{r.prompt for h in (True, False) for r in lab.requests(world, h, 300, seed, part)}
             for seed, part in ((0, "train"), (1, "held"))]  # fmt: skip
    assert not parts[0] & parts[1]
    train, held = (lab.honesty_items(world, part) for part in ("train", "held"))
    strangers = [{r["prompt"] for r in rows if not r["known"]} for rows in (train, held)]
    assert not strangers[0] & strangers[1] and all(r["answer"] == "unknown" for r in held if not r["known"])
    said = {d.text.split(" lives")[0] for d in islice(lab.documents(world), 4000) if " lives in" in d.text}
    assert said and not said & set(world.strangers)


@pytest.mark.parametrize("decided", [0, 21, -3])
def test_a_deciding_word_outside_the_reply_is_an_error(decided):
    with pytest.raises(LabError, match=f"decided={decided}"):
        World(0, decided)


def test_other_input_that_cannot_be_used():
    world = World(0)
    with pytest.raises(LabError, match="no request"):
        lab.read_request(world, "what is the capital of peru")
    with pytest.raises(LabError, match="count=100000"):
        lab.requests(world, True, 100_000)
    with pytest.raises(LabError, match="length=3"):
        lab.harm_information(world, 3)
