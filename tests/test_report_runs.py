"""Pages of an alignment run and of a merge: they say what the record holds, draw it, and let nothing in it act."""

import base64
import dataclasses
import hashlib
import io
import re

import pytest
from align_example import example_align, example_held
from merge_example import example_merge
from rich.console import Console
from test_report import EVIL, Page

from aligntax.report.align_page import align_summary, render_align
from aligntax.report.align_page import verdict as said_of_run
from aligntax.report.merge_page import merge_summary, render_merge
from aligntax.report.merge_page import verdict as said_of_merge
from aligntax.results import MergePick

PAGES = {
    "align": lambda: render_align(example_held()),
    "a plain run": lambda: render_align(example_align()),
    "merge": lambda: render_merge(example_merge()),
}


def words(html: str) -> str:
    return " ".join("".join(Page(html).text).split())


@pytest.mark.parametrize("name", PAGES)
def test_a_page_stands_alone_and_is_accessible(name: str) -> None:
    html = PAGES[name]()
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.names())
    assert not re.search(r"https?://|url\(|@import", html)
    for tag, attrs in page.tags:
        assert not any(key.startswith("on") or key == "style" for key in attrs), (tag, attrs)
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = next(a["content"] or "" for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and f"'sha256-{digest}'" in policy and "unsafe" not in policy
    assert page.names().count("h1") == 1 and page.tags[0] == ("html", {"lang": "en"})
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    drawn = [a for tag, a in page.tags if tag == "svg"]
    assert drawn and all(a["role"] == "img" and str(a["aria-labelledby"]).split()[0] in ids for a in drawn)
    assert all("scope" in a for tag, a in page.tags if tag == "th")


def test_the_page_of_a_run_says_what_was_held_paid_and_done() -> None:
    text = words(render_align(example_held()))
    for wanted in ("nullspace", "3.1×10⁻⁷", "0.012", "bfloat16", "+0.12", "arithmetic", "model.layers.3.mlp.down_proj"):
        assert wanted in text
    for wanted in ("first token", "Squared overlap", "0.63 [0.42, 0.84]", "learning-rate", "1e-05", "weights"):
        assert wanted in text
    assert "largest tax" in text and "lost on arithmetic" in text


def test_what_was_not_measured_is_not_claimed() -> None:
    text = words(render_align(example_align()))
    assert "largest tax" not in text and "The tax while" not in text and "What the update was worth" not in text
    assert "leak" not in text


def test_the_verdict_of_a_run_is_made_of_its_numbers() -> None:
    said = said_of_run(example_held())
    assert "sft" in said and "96 rows" in said and "rank 8" in said and "nullspace, kl" in said and "2.1 to 1.3" in said
    bare = dataclasses.replace(example_align(), lora_rank=0, protect=[], depth="none", steps=[], goal="capability")
    assert "all weights" in said_of_run(bare) and "Held: nothing." in said_of_run(bare)
    assert "loss" not in said_of_run(bare) and "refuse harmful" not in said_of_run(bare)


def test_the_front_has_every_scheme_the_line_and_the_frontier() -> None:
    html = render_merge(example_merge())
    text = words(html)
    for wanted in ("uniform", "random", "per-layer", "straight line", "frontier of one layer", "1.2", "over uniform"):
        assert wanted in text
    front = re.search(r"<svg[^>]*fig-front.*?</svg>", html, re.S)
    assert front is not None
    # Points of validation are in the table alone: the rule read them.
    assert front[0].count("<title>per-layer") == 1 and front[0].count("<title>uniform") == 3
    assert front[0].count("<title>frontier") == 5
    assert 'aria-labelledby="fig-fractions-title' in html


def test_a_better_mixture_stands_higher() -> None:
    def height(html: str, name: str) -> float:
        found = re.search(rf'translate\([\d.]+ ([\d.]+)\)"[^>]*><title>{name}', html)
        assert found is not None
        return float(found[1])

    html = render_merge(example_merge())
    assert height(html, "per-layer") < height(html, "random")


def test_a_merge_without_points_says_so_and_draws_its_fractions() -> None:
    pick = MergePick("given", None, "uniform", 0.5, "", None, None)
    merge = dataclasses.replace(example_merge(), points=[], pick=pick, geometry=None, scheme="uniform")
    html = render_merge(merge)
    assert "No mixture was scored" in html and "fig-front" not in html and "fig-fractions" in html
    assert "given, not picked" in said_of_merge(merge)


def test_the_verdict_of_a_merge_names_rule_split_and_value() -> None:
    said = said_of_merge(example_merge())
    assert "0.5" in said and "validation" in said and "floor" in said and "−0.1" in said and "+1.8" in said


def test_undefined_numbers_are_not_printed_as_zero() -> None:
    merge = example_merge()
    blank = [
        dataclasses.replace(p, safety_gain=None, capability=float("nan"), line=None, frontier=None)
        for p in merge.points
    ]
    html = render_merge(dataclasses.replace(merge, points=blank))
    assert "undefined" in html and "fig-front" not in html and "nan" not in words(html).lower().split()
    run = dataclasses.replace(
        example_held(), steps=[{"step": 1.0, "loss": None}], leak_saved=None, tokens_per_second=None
    )
    assert "fig-course" not in render_align(run) and "undefined" in render_align(run)


def test_hostile_words_are_escaped_on_the_page_and_in_the_terminal() -> None:
    run = dataclasses.replace(
        example_held(), model=EVIL, settings={EVIL: EVIL}, protect=[EVIL], kept_rank={EVIL: [1, 2]}, tax=[{f"tax/{EVIL}": 1.0}],
        recovery_tokens=[(1, EVIL)],
    )  # fmt: skip
    merge = example_merge()
    point = dataclasses.replace(merge.points[0], scheme=EVIL)
    merge = dataclasses.replace(
        merge, scheme=EVIL, points=[point], warnings=[EVIL],
        provenance=dataclasses.replace(merge.provenance, base=dataclasses.replace(merge.provenance.base, name=EVIL)),
    )  # fmt: skip
    for html in (render_align(run), render_merge(merge)):
        assert (
            "<script>" not in html and "onerror=alert(1)>" not in html and "\x1b" not in html and "\u202e" not in html
        )
        Page(html)
    for summary, record in ((align_summary, run), (merge_summary, merge)):
        out = io.StringIO()
        summary(record, Console(file=out, width=200))  # type: ignore[operator]
        assert "\x1b" not in out.getvalue() and "alert(1)" in out.getvalue()
