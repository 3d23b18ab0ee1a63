"""The figures of the documentation, taken from real reports: `make figures SURVEY=out/survey AUDIT=out/audit`.

They are the program's own output and are made by nobody's hand; without the two folders nothing is taken.
"""

import os
import re
from pathlib import Path

import pytest
from watched import opened

from aligntax.report import render_audit, render_html
from aligntax.results import read_audit, read_survey

FIGURES = Path(__file__).parents[2] / "docs" / "figures"
MOST_BYTES = 150_000
SHOTS = {"survey-wide": ("SURVEY", 1100), "survey-phone": ("SURVEY", 375), "audit-phone": ("AUDIT", 375)}
SVGS = {
    "bill": ("SURVEY", "fig-bill"),
    "frontier": ("SURVEY", "fig-frontier"),
    "audit-prefill": ("AUDIT", "fig-attack"),
    "audit-paid": ("AUDIT", "fig-paid"),
}


def html_of(source: str) -> str:
    """The report of the folder that the environment names."""
    folder = os.environ.get(source)
    if not folder:
        pytest.skip(f"{source} names no folder with results")
    return render_html(read_survey(Path(folder))) if source == "SURVEY" else render_audit(read_audit(Path(folder)))


@pytest.mark.parametrize("name", SHOTS)
def test_take_a_picture(browser, name, tmp_path):
    source, width = SHOTS[name]
    path = tmp_path / "report.html"
    path.write_text(html_of(source))
    page = opened(browser, path, width).page
    picture = page.screenshot()
    assert len(picture) <= MOST_BYTES
    (FIGURES / f"{name}.png").write_bytes(picture)
    page.close()


@pytest.mark.parametrize("name", SVGS)
def test_take_a_drawing(name):
    source, drawn = SVGS[name]
    made = standalone(html_of(source), drawn)
    assert len(made.encode()) <= MOST_BYTES
    (FIGURES / f"{name}.svg").write_text(made)


def standalone(html: str, name: str) -> str:
    """The drawing of that name in a report as a file of its own: the report's light colours and the rules that it uses."""
    drawing = next(found for found in re.findall(r"<svg.*?</svg>", html, re.S) if f'id="{name}-title"' in found)
    sheet = re.findall(r"<style>(.*?)</style>", html, re.S)[0].split("@media (max-width")[0]
    colours = sheet[sheet.index(":root {") : sheet.index("}") + 1].replace(":root", "svg")
    words = set(re.findall(r"[\w-]+", drawing))
    rules = [rule for rule in re.findall(r"^\..*}$", sheet, re.M) if words & set(re.findall(r"\.([a-z][\w-]*)", rule))]
    style = "\n".join([colours, "svg { background: var(--paper); font-family: sans-serif; }", *rules])
    head, rest = drawing.split("<title", 1)
    return head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ') + f"<style>{style}</style><title{rest}\n"
