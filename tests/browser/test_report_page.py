"""The reports in a real browser: no network, no script, readable on a phone, by keyboard, by a screen reader, on paper."""

import re
from pathlib import Path

import pytest
from align_example import example_align, example_held
from audit_example import example_audit
from merge_example import example_merge
from pipeline_example import example_pipeline
from scale_example import example_scale
from survey_example import example_survey
from watched import opened

from aligntax.report import render_audit, render_html
from aligntax.report.align_page import render_align
from aligntax.report.loop_page import render_loop
from aligntax.report.merge_page import render_merge
from aligntax.report.pipeline_page import render_pipeline
from aligntax.report.scale_page import render_scale

PAGES = {
    "survey": lambda: render_html(example_survey()),
    "audit": lambda: render_audit(example_audit()),
    "loop": lambda: render_loop(example_survey(), example_align(), example_audit()),
    "pipeline": lambda: render_pipeline(example_pipeline()),
    "scale": lambda: render_scale(example_scale()),
    "align": lambda: render_align(example_held()),
    "merge": lambda: render_merge(example_merge()),
}
FIGURES = {"survey": 4, "audit": 4, "loop": 4, "pipeline": 4, "scale": 1, "align": 2, "merge": 2}
A4 = (794 - 2 * 76, 1123 - 2 * 76)  # CSS pixels inside margins of 2 cm


@pytest.fixture(scope="module", params=PAGES)
def page_file(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp(request.param) / "report.html"
    path.write_text(PAGES[request.param]())
    return path


@pytest.mark.parametrize(("width", "scheme"), [(375, "light"), (1440, "dark")])
def test_page_asks_for_nothing_and_breaks_no_accessibility_rule(browser, page_file, width, scheme):
    watched = opened(browser, page_file, width, scheme)
    page = watched.page
    assert watched.requests == [page_file.as_uri()] and watched.complaints == []
    assert (
        page.locator("h1").count() == 1
        and page.locator("svg").count() >= FIGURES[page_file.parent.name.rstrip("0123456789")]
    )
    assert watched.violations() == []
    page.close()


def test_page_is_as_wide_as_the_window_folded_and_unfolded(browser, page_file):
    watched = opened(browser, page_file)
    for unfolded in (False, True):
        watched.page.evaluate(f"document.querySelectorAll('details').forEach(d => d.open = {str(unfolded).lower()})")
        for width in (320, 375, 768, 1440, 2560):
            watched.page.set_viewport_size({"width": width, "height": 900})
            assert watched.sideways <= 0
    watched.page.close()


def test_folded_tables_break_no_accessibility_rule(browser, page_file):
    watched = opened(browser, page_file)
    watched.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert watched.violations("details") == []
    watched.page.close()


def test_the_checker_can_find_something(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<html><body><img src=''><p style='color:#ccc;background:#fff'>pale</p></body></html>")
    watched = opened(browser, path)
    assert {line.split()[0] for line in watched.violations()} >= {"image-alt", "color-contrast", "html-has-lang"}
    watched.page.close()


def test_page_has_a_name_for_every_figure_and_a_scope_for_every_header(browser, page_file):
    page = opened(browser, page_file).page
    assert page.evaluate("[...document.querySelectorAll('svg[role=img]')].every(s => s.querySelector('title'))")
    assert page.evaluate("[...document.querySelectorAll('th')].every(t => t.hasAttribute('scope'))")
    page.close()


def test_everything_is_reached_by_keyboard_in_the_order_of_the_page(browser, page_file):
    page = opened(browser, page_file, 375).page
    wanted = page.evaluate(
        "(() => { const all = [...document.querySelectorAll('a[href], summary, [tabindex=\"0\"]')];"
        " window.order = all.filter(e => e.checkVisibility()); return window.order.length; })()"
    )
    seen = []
    for _ in range(wanted):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("window.order.indexOf(document.activeElement)"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert seen == list(range(wanted)) and wanted >= 7
    page.close()


def test_the_skip_link_skips_and_a_folded_table_unfolds_by_key(browser, page_file):
    page = opened(browser, page_file).page
    page.keyboard.press("Tab")
    box = page.evaluate("(({x, y}) => [x, y])(document.activeElement.getBoundingClientRect())")
    assert page.evaluate("document.activeElement.className") == "skip" and min(box) >= 0
    page.keyboard.press("Enter")
    page.wait_for_url("**#main")  # the address follows the key a moment later
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('details').open")
    page.close()


def test_a_wide_table_scrolls_by_keyboard_on_a_phone(browser, page_file):
    page = opened(browser, page_file, 375).page
    moved = page.evaluate(
        "(() => { const wide = [...document.querySelectorAll('.scroll')].find(e => e.scrollWidth > e.clientWidth + 20);"
        " if (!wide) return false; wide.focus(); return document.activeElement === wide; })()"
    )
    assert moved
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    for _ in range(50):  # the scrolling is smooth; the page's policy forbids a check that runs inside it
        if page.evaluate("document.activeElement.scrollLeft > 0"):
            break
        page.wait_for_timeout(20)
    assert page.evaluate("document.activeElement.scrollLeft > 0")
    page.close()


def test_prints_on_a4_with_nothing_cut_off(browser, page_file):
    page = opened(browser, page_file, A4[0]).page
    page.emulate_media(media="print", color_scheme="dark")
    wide = page.evaluate(
        "[...document.querySelectorAll('table, svg, p, h1, h2')].filter(e => e.checkVisibility())"
        ".filter(e => e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('.skip')).display") == "none"
    margin = dict.fromkeys(("top", "bottom", "left", "right"), "2cm")
    pdf = page.pdf(format="A4", margin=margin)
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 30
    assert re.findall(rb"/MediaBox\s*\[\s*0 0 59[456][\d.]* 84[12]", pdf)
    page.close()
