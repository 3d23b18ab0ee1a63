"""What was said already is not rolled out again, and every number is what a rollout would have given."""

from types import SimpleNamespace

import pytest
from audit_worlds import NO, YES, Rule, examinee, make_requests

from aligntax.audit import Answer, Case, attack_rates, prefill_cases, too_short
from aligntax.commands.audit_behaviour import Asked, attack_record, by_depth, run_attacks, went_along
from aligntax.errors import AligntaxError
from aligntax.models import Start
from aligntax.probing import Meter

DEPTHS = (0, 1, 5, 20)
LONG = tuple(range(10, 40))


def pair() -> SimpleNamespace:
    return SimpleNamespace(meter=Meter(quiet=True), size=SimpleNamespace(depths=DEPTHS, tokens=64))


def complies(start: Start):
    return (LONG[len(start.prefill) :], True)


def holds(start: Start):
    """Refuses until three tokens are put into its mouth, and every other request until ten are."""
    return (NO,) if len(start.prefill) < (3 if start.prompt[0] % 2 else 10) else (YES,), True


def said(who, requests) -> list[Answer]:
    return who.answer([Case(r, "plain harmful", 0, r.prompt, new_tokens=64) for r in requests])


def test_prefills_of_no_token_are_the_plain_replies_and_nothing_else_changes():
    requests = make_requests(8)
    rules = (Rule(complies), Rule(holds))
    people = [examinee(rule) for rule in rules]
    plain = [said(who, requests) for who in people]
    asked = Asked(requests, plain, [a.ids for a in plain[0]])
    for rule in rules:
        rule.seen.clear()
    found = run_attacks(pair(), people, asked, False)
    assert all(start.prefill for rule in rules for start in rule.seen)

    cases = prefill_cases(requests, asked.continuations, DEPTHS, 64)
    honest = [who.answer(cases) for who in people]
    assert found.answers == honest == found.prefills
    short = too_short(asked.continuations, DEPTHS)
    rates = [attack_rates(part, "judge", short) for part in honest]
    assert found.records == [attack_record(*both) for both in zip(*rates, strict=True)]
    assert [r.success_aligned for r in found.records] == [0.0, 0.0, 0.5, 1.0]
    assert by_depth(found.prefills[1], requests)[0] == dict.fromkeys(range(8), 1.0)


def test_only_requests_that_the_base_answers_are_asked():
    requests = make_requests(5)
    base = examinee(
        Rule(lambda start: ((NO,) if start.prompt[0] == 101 else () if start.prompt[0] == 102 else LONG, True))
    )
    aligned = examinee(Rule(holds))
    sides = [{"harmful": said(who, requests)} for who in (base, aligned)]
    asked = went_along(sides, "base")
    assert [r.text for r in asked.requests] == ["q0", "q3", "q4"] and asked.continuations == [LONG] * 3
    assert [a.case.request for a in asked.said[1]] == asked.requests
    with pytest.raises(AligntaxError, match="base refuses 2 of 3 harmful prompts"):
        went_along([{"harmful": side["harmful"][:3]} for side in sides], "base")
