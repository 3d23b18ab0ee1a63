"""The built site in a real browser: nothing from elsewhere, no accessibility rule broken, readable on a phone."""

import re
from pathlib import Path

import pytest
from watched import opened

SITE = Path(__file__).parents[2] / "build" / "docs"
PAGES = ("index", "tour", "concepts/regimes", "predictions/index", "reference/commands")

pytestmark = pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="no site; run `make docs`")


@pytest.mark.parametrize("name", PAGES)
def test_page_is_offline_and_accessible(browser, name):
    watched = opened(browser, SITE / f"{name}.html", 375)
    assert [url for url in watched.requests if not url.startswith(("file:", "data:"))] == []
    assert watched.complaints == [] and watched.sideways <= 0
    assert watched.violations() == []
    watched.page.close()


def test_nothing_in_the_site_is_loaded_from_elsewhere():
    pages = list(SITE.rglob("*.html"))
    loaded = re.compile(r"<(?:script|img|iframe|source)[^>]+src=\"(?:https?:)?//|<link[^>]+href=\"(?:https?:)?//")
    assert len(pages) > 30
    assert [page.name for page in pages if loaded.search(page.read_text())] == []
