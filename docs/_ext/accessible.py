"""Mends what the theme leaves undone for people who use a keyboard or a screen reader, in every page that was written.

Captions of the navigation call themselves headings without saying of which level, two asides bear no name to tell them apart,
and a long line of code scrolls sideways in a box that the keyboard cannot reach.
"""

from pathlib import Path
from typing import Any

MENDED = (
    ('role="heading">', 'role="heading" aria-level="2">'),
    ("<pre>", '<pre tabindex="0">'),
    ('<aside class="sidebar-drawer"', '<aside aria-label="Site" class="sidebar-drawer"'),
    ('<aside class="toc-drawer', '<aside aria-label="On this page" class="toc-drawer'),
)


def mended(html: str) -> str:
    """A page with these put right.

    >>> mended('<p role="heading"><pre>x</pre>')
    '<p role="heading" aria-level="2"><pre tabindex="0">x</pre>'
    """
    for was, becomes in MENDED:
        html = html.replace(was, becomes)
    return html


def setup(app: Any) -> dict[str, bool]:
    """Hook into the end of the build."""

    def finish(made: Any, error: Exception | None) -> None:
        if error is None and made.builder.format == "html":
            for path in Path(made.outdir).rglob("*.html"):
                path.write_text(mended(path.read_text()))

    app.connect("build-finished", finish)
    return {"parallel_read_safe": True}
