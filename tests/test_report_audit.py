"""The audit's page: four questions answered first, nothing hostile alive, nothing said that the numbers do not hold."""

import dataclasses
from typing import Any

import pytest
from audit_example import example_audit
from rich.console import Console

from aligntax.report import audit_summary, render_audit
from aligntax.report.audit_figures import greyed
from aligntax.report.audit_tables import tables
from aligntax.report.audit_verdict import change_words, depth_words, key_figures, shift_words, verdict, whom_words
from aligntax.results import Audit, HeldDepth, Rate

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}\x1b[31mred\x1b]0;title\x07\u202e=1+1[bold]"


def poisoned(value: Any) -> Any:
    """The same value with every text in it hostile, keys of dictionaries too where they are not names of cells."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(
            value, **{f.name: poisoned(getattr(value, f.name)) for f in dataclasses.fields(value)}
        )
    if isinstance(value, dict):
        return {key if key.startswith(("answered", "refused")) else EVIL + key: poisoned(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(poisoned(v) for v in value)
    return EVIL if isinstance(value, str) else value


def texts(value: Any) -> int:
    """How many texts a value holds."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return sum(texts(getattr(value, f.name)) for f in dataclasses.fields(value))
    if isinstance(value, dict):
        return sum(texts(v) for v in value.values())
    if isinstance(value, list | tuple):
        return sum(map(texts, value))
    return isinstance(value, str)


@pytest.mark.parametrize("kept", [(), ("attack", "horizon")])
def test_every_text_of_an_audit_may_be_hostile_and_none_is_alive(kept):
    audit, safe = poisoned(example_audit()), example_audit()
    audit = dataclasses.replace(audit, **{name: getattr(safe, name) for name in kept})
    assert texts(audit) > 50
    page = render_audit(audit)
    for alive in ("<script", "<img", "\x1b", "\x07", "\u202e", "49red"):
        assert alive not in page
    assert page.count("&lt;script&gt;") > 20 and "default-src 'none'" in page
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    audit_summary(audit, console)
    shown = console.export_text(styles=True)
    assert "\x1b]0" not in shown and "\x1b[31m" not in shown and "[bold]" in shown


def test_the_first_screen_answers_the_four_questions():
    audit = example_audit()
    labels = " ".join(figure.label for figure in key_figures(audit))
    for question in ("Is it safer?", "What did it cost?", "How deep does it go?", "Did the forecast hold?"):
        assert question in labels
    page = render_audit(audit)
    assert page.index("Is it safer?") < page.index("Before you rely on this") < page.index('id="h-safer"')


@pytest.mark.parametrize(
    ("change", "p", "said"),
    [(0.5, 0.01, "Yes"), (-0.5, 0.01, "No"), (0.5, 0.2, "not shown"), (None, None, ""), (0.5, None, "")],
)
def test_a_change_is_claimed_only_beyond_chance(change, p, said):
    rate = None if change is None else Rate(change, change - 0.1, change + 0.1, 16)
    assert change_words(rate, p, "Yes", "No") == said


@pytest.mark.parametrize(
    ("depth", "said"),
    [
        (HeldDepth(0.5, 0.01, 5, 20, 16), "hold down to a prefill of 5 tokens, and no longer after 20 tokens"),
        (HeldDepth(0.5, 0.01, 0, 1, 16), "hold only without a prefill, and no longer after 1 token"),
        (HeldDepth(0.5, 0.01, 40, None, 16), "withstand even 40 tokens"),
        (HeldDepth(-0.1, 0.5, None, None, 16), "no refusals"),
    ],
)
def test_the_depth_is_said_in_words(depth, said):
    assert said in depth_words(depth)


def test_a_gain_that_may_be_chance_is_said_to_be():
    audit = dataclasses.replace(example_audit(), depth=HeldDepth(0.2, 0.4, 5, 20, 10))
    figure = next(f for f in key_figures(audit) if f.label.startswith("How deep"))
    assert "may be chance (p = 0.40, 10 requests)" in figure.meaning
    sure = dataclasses.replace(audit, depth=HeldDepth(0.9, 0.001, 5, 20, 10))
    assert "chance" not in next(f for f in key_figures(sure) if f.label.startswith("How deep")).meaning


def test_mass_is_grey_between_judged_depths_unless_both_allow_it():
    record = dataclasses.replace(
        example_audit().recovery,
        depth=list(range(7)),
        mass_base=[0.0] * 7,
        mass_aligned=[0.5] * 7,
        auc=[1.0, None, 0.9, None, 0.5, None, None],
        judged_aligned=[0.5, None, 0.5, None, 0.5, None, None],
        greyed=[4],
    )
    assert greyed(record) == [False, False, False, True, True, True, True]
    assert all(greyed(dataclasses.replace(record, auc=[None] * 7, judged_aligned=[None] * 7)))


def test_a_penalty_out_of_reach_and_a_poor_fit_are_no_numbers_on_the_page():
    recovery = dataclasses.replace(example_audit().recovery, mu=2853.0, gamma=0.001, fit=0.2, needed_mu=2.6e124)
    page = render_audit(dataclasses.replace(example_audit(), recovery=recovery))
    assert "No discounted penalty would have made this rise" in page and "out of reach" in page
    assert "¹²⁴" not in page and "discounted by" not in page


def test_undefined_parts_are_left_out_or_said_to_be_undefined():
    bare: Audit = dataclasses.replace(
        example_audit(),
        cells=None,
        scores=[],
        quality=[],
        efficiency=None,
        representation=None,
        depth=None,
        shift=[],
        forecast=None,
    )
    page = render_audit(bare)
    for absent in ("Does it still say what it knows?", "Was the price a fair one?", "Where their states differ"):
        assert absent not in page and absent in render_audit(example_audit())
    assert "No forecast was scored" in verdict(bare)
    assert not tables(bare)["efficiency"].rows and not tables(bare)["cells"].rows


def test_forecasts_have_columns_only_where_there_was_a_survey():
    audit = example_audit()
    none = dataclasses.replace(audit, tax=[dataclasses.replace(t, forecast=None, first_order=None) for t in audit.tax])
    assert "forecast" in tables(audit)["tax"].columns and "forecast" not in tables(none)["tax"].columns


def test_the_rank_of_the_real_shift_is_said_at_the_layer_that_was_chosen_beforehand():
    audit = example_audit()
    shift = [dataclasses.replace(x, tax_rank=rank) for x, rank in zip(audit.shift, (-0.1, 0.4, 0.8), strict=True)]
    said = shift_words(dataclasses.replace(audit, shift=shift))
    assert "+0.40 at layer 1" in said and "from −0.10 to +0.80" in said
    assert shift_words(dataclasses.replace(audit, shift=[dataclasses.replace(x, tax_rank=None) for x in shift])) == ""


@pytest.mark.parametrize(("shares", "said"), [((0.0, 0.67, 0.5, 0.0, 0.0), True), ((0.2, 0.3, 0.4, 0.5, 0.6), False)])
def test_a_shallow_prefill_that_gets_more_through_than_the_deepest_is_not_passed_over(shares, said):
    audit = example_audit()
    rows = [r for r in audit.attack if r.kind == "prefill"]
    attack = [dataclasses.replace(r, success_aligned=share) for r, share in zip(rows, shares, strict=True)]
    changed = dataclasses.replace(audit, attack=attack)
    texts = [verdict(changed), next(f.meaning for f in key_figures(changed) if "prefill?" in f.label)]
    assert all(("most after 1 token: 67%" in text) == said for text in texts)


def test_whom_it_refuses_is_said_as_far_as_it_is_known():
    audit = example_audit()
    assert audit.separation is not None
    known = " ".join(whom_words(audit))
    assert "90% [85%, 95%] of pairs" in known and "85% [80%, 90%]" in known and "its replies refuse 10%" in known
    nothing = Rate(None, None, None, 78)
    bare = dataclasses.replace(audit.separation, ranked=nothing, against=Rate(0.0, 0.0, 0.04, 78), readout=None)
    assert len(whom_words(dataclasses.replace(audit, separation=bare))) == 1
    assert whom_words(dataclasses.replace(audit, separation=None)) == []
    assert "Does it know whom to refuse?" not in render_audit(dataclasses.replace(audit, separation=None))
