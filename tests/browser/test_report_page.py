"""The report in a real browser: no network, no script, no sideways scrolling on a phone, light and dark."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from aligntax.report import render_audit, render_html

sys.path.insert(0, str(Path(__file__).parents[1]))
from audit_example import example_audit
from survey_example import example_survey

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine; install it or name it in CHROMIUM")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module", params=["survey", "audit"])
def page_file(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_html(example_survey()) if request.param == "survey" else render_audit(example_audit()))
    return path


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_and_asks_for_nothing(browser, page_file, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(page_file.as_uri())
    assert requests == [page_file.as_uri()]
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").count() == 1
    assert page.locator("svg").count() >= 4
    page.close()


def test_page_has_a_name_for_every_figure_and_a_scope_for_every_header(browser, page_file):
    page = browser.new_page()
    page.goto(page_file.as_uri())
    assert page.evaluate("[...document.querySelectorAll('svg[role=img]')].every(s => s.querySelector('title'))")
    assert page.evaluate("[...document.querySelectorAll('th')].every(t => t.hasAttribute('scope'))")
    page.close()
