"""The report states what the survey holds: nothing hidden, nothing invented, nothing executable."""

import base64
import dataclasses
import hashlib
import io
import itertools
import math
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console
from survey_example import COSINES, WARNING, example_survey

from aligntax.report import render_html, strip_control, terminal_summary
from aligntax.report.figures import LABELS, bill, bill_scale, scatter
from aligntax.report.svg import WIDTH, Scale
from aligntax.report.text import clean, interval, number, p_text, percent, show_token
from aligntax.report.verdict import cautions, kept, key_figures, radius, verdict
from aligntax.results import LinearityPoint, ReadoutRecord, RefusalToken, Selection, Survey, TaskAtLayer

VOID = {"meta", "br", "hr", "img", "link", "input"}
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x1b[31mred\x1b]0;title\x07\u202eback\x00"


class Page(HTMLParser):
    """Collects tags, attributes, heading levels and visible text; fails on an unbalanced tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def names(self) -> list[str]:
        return [tag for tag, _ in self.tags]


@pytest.fixture(scope="module")
def html() -> str:
    return render_html(example_survey())


def _blank(value: object) -> object:
    """Every optional number of a survey set to None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {}
        for field in dataclasses.fields(value):
            optional = "Number" in str(field.type) or "None" in str(field.type)
            held = getattr(value, field.name)
            changes[field.name] = None if optional and (held is None or isinstance(held, int | float)) else _blank(held)
        return dataclasses.replace(value, **changes)
    if isinstance(value, dict):
        return {key: None if isinstance(item, float) else _blank(item) for key, item in value.items()}
    return [_blank(item) for item in value] if isinstance(value, list) else value


def _empty(survey: Survey) -> Survey:
    lists = {f.name: [] for f in dataclasses.fields(survey) if isinstance(getattr(survey, f.name), list)}
    return dataclasses.replace(
        survey,
        **lists,
        formats={},
        linearity=None,
        over_refusal=None,
        selection=Selection(0.1, [], None, None, None, None, None, None),
        tolerances=dataclasses.replace(survey.tolerances, rows=[]),
        layer_budget=dataclasses.replace(survey.layer_budget, spend=[]),
    )


def test_page_is_balanced_and_self_contained(html: str) -> None:
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.names())
    for tag, attrs in page.tags:
        assert not any(name.startswith("on") or name == "style" for name in attrs), (tag, attrs)
        assert all((attrs.get(name) or "#").startswith("#") for name in ("href", "src", "xlink:href", "action"))
    assert not re.search(r"https?://|url\(|@import", html)


def test_policy_allows_exactly_the_inline_style(html: str) -> None:
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = next(a["content"] or "" for t, a in Page(html).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy and "script-src" not in policy


def test_page_is_accessible(html: str) -> None:
    page = Page(html)
    levels = [int(tag[1]) for tag in page.names() if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert ("html", {"lang": "en"}) in page.tags
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in page.tags if tag == "th")
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.tags:
        if tag == "svg":
            assert attrs["role"] == "img" and set((attrs["aria-labelledby"] or "").split()) <= set(ids)
        if "scroll" in (attrs.get("class") or "").split():
            assert attrs["tabindex"] == "0" and attrs["aria-label"]
    assert page.names().count("svg") == 6


def test_everything_named_in_the_survey_is_on_the_page(html: str) -> None:
    seen = " ".join(Page(html).text)
    survey = example_survey()
    for name in (*COSINES, *(p.name for p in survey.timing), *(r for r in survey.provenance.versions), WARNING):
        assert name in seen
    assert survey.provenance.weights_sha256 in seen
    assert "not distinguishable" in seen
    assert "one more nat per answer token of tolerance on word-problems buys 1.3 nats" in seen


def test_untrusted_text_is_escaped_and_stripped_everywhere() -> None:
    def poison(value: object) -> object:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = [f.name for f in dataclasses.fields(value)]
            return dataclasses.replace(value, **{f: poison(getattr(value, f)) for f in fields})
        if isinstance(value, dict):
            return {poison(k): poison(v) for k, v in value.items()}
        if isinstance(value, list):
            return [poison(v) for v in value]
        return value + EVIL if isinstance(value, str) else value

    survey = poison(dataclasses.replace(example_survey(), extra={"angle": {"deep": "x", "n": [1.5, 2]}}))
    assert isinstance(survey, Survey)
    plain, hostile = Page(render_html(example_survey())), render_html(survey)
    page = Page(hostile)
    assert not {"script", "img"} & set(page.names())
    assert set(page.names()) == set(plain.names())
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", hostile)
    assert "[31m" not in hostile and "&lt;script&gt;" in hostile
    out = io.StringIO()
    terminal_summary(survey, Console(file=out, force_terminal=False, width=200))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out.getvalue())


def test_terminal_shows_the_bill_and_reads_no_markup() -> None:
    survey = dataclasses.replace(example_survey(), model="[red]bold[/nonsense]")
    out = io.StringIO()
    terminal_summary(survey, Console(file=out, force_terminal=False, width=200))
    said = out.getvalue()
    assert "[red]bold[/nonsense]" in said and "over-refusal" in said and WARNING in said
    assert all(name in said for name in COSINES)
    assert "\x1b" not in said
    order = [said.index(f" {name} ") for name in ("persuasion", "word-problems", "instructions")]
    assert order == sorted(order)


SUBSPACE = {"subspace": {"rank": 2, "tax": 0.1234, "principal_angles_radians": [math.pi / 3, math.pi / 2]}}
AGREEMENT = {
    "copying": {"cosine": 0.5, "low": 0.3, "high": 0.7},
    "arithmetic": {"cosine": 1.02, "low": None, "high": None},
}


def rows_of(html: str, caption: str) -> dict[str, list[str]]:
    """The rows of the table whose caption begins so, by their header."""
    body = html[html.index(f"<caption>{caption}") :].partition("</table>")[0]
    cells = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)[1:])
    return {found[0]: [re.sub(r"<[^>]+>", "", cell) for cell in found[1:]] for found in cells}


def test_a_subspace_is_billed_beside_its_mean(html: str) -> None:
    survey = dataclasses.replace(example_survey(), estimator="subspace", extra=SUBSPACE)
    page = render_html(survey)
    rows = rows_of(page, "The safety subspace at layer 15")
    assert rows["Rank"] == ["2"] and rows["Tax of the subspace (mean over its directions)"] == ["0.12"]
    assert rows["Principal angles with the span of all tasks"] == ["60.0°, 90.0°"]
    assert rows["Singular values (share of the squares of all)"] == ["4.10, 1.30 (98%)"]
    assert rows["Tax of the bill's direction alone (joint, raw)".replace("'", "&#39;")] == [
        number(survey.at_layer().joint_tax)
    ]
    assert "The bill above is for one direction alone" in page and "The safety subspace" not in html
    out = io.StringIO()
    terminal_summary(survey, Console(file=out, width=200))
    assert "Safety subspace of rank 2: tax 0.12, principal angles with all tasks 60.0°, 90.0°." in out.getvalue()
    terminal_summary(example_survey(), Console(file=(plain := io.StringIO()), width=200))
    assert "subspace" not in plain.getvalue()


def test_probes_of_capabilities_stand_beside_gradients(html: str) -> None:
    survey = example_survey()
    asked = dataclasses.replace(survey.provenance, capability="probe")
    page = render_html(dataclasses.replace(survey, provenance=asked, extra={"capability_agreement": AGREEMENT}))
    rows = rows_of(page, "Capability directions at layer 15")
    assert set(rows) == set(COSINES) and rows["copying"] == ["+0.50 [+0.30, +0.70]", "60.0°"]
    assert rows["arithmetic"] == ["+1.0 [–]", "0°"] and rows["persuasion"] == ["no probe: its gradient is used", "–"]
    none = render_html(dataclasses.replace(survey, provenance=asked))
    assert all(cells[0].startswith("no probe") for cells in rows_of(none, "Capability directions").values())
    assert "Capability directions" not in html


@pytest.mark.parametrize(
    "value", [EVIL, [EVIL], {EVIL: EVIL}, None, 1, {"rank": EVIL, "principal_angles_radians": [EVIL]}]
)
def test_findings_of_another_shape_are_undefined_and_escaped(value: object) -> None:
    extra = {"subspace": value, "capability_agreement": {EVIL: value} if value else value}
    survey = dataclasses.replace(example_survey(), extra=extra)
    page = render_html(survey)
    assert not {"script", "img"} & set(Page(page).names()) and "\x1b" not in page
    terminal_summary(survey, Console(file=(out := io.StringIO()), width=200))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out.getvalue())


def test_undefined_values_and_empty_lists_render() -> None:
    for survey in (_blank(example_survey()), _empty(example_survey()), _blank(_empty(example_survey()))):
        assert isinstance(survey, Survey)
        html = render_html(survey)
        Page(html)
        assert not re.search(r"\b(None|nan|inf)\b", " ".join(Page(html).text))
        terminal_summary(survey, Console(file=io.StringIO(), width=120))
    blank = _blank(example_survey())
    assert isinstance(blank, Survey)
    assert 'title="undefined">–</abbr>' in render_html(blank)
    assert radius(_empty(example_survey())) == "not checked"


def test_nan_counts_as_undefined() -> None:
    survey = example_survey()
    row = dataclasses.replace(survey.at_layer(), joint_tax_crossfit=float("nan"))
    assert kept(clean(row)) is None
    layers = [row if r.layer == row.layer else r for r in survey.layers]
    assert "Undefined here" in render_html(dataclasses.replace(survey, layers=layers))


def test_verdict_counts_and_names_the_largest_cost() -> None:
    said = verdict(example_survey())
    assert (
        "touch 4 of 14 capabilities (3 for the worse, 1 for the better); 9 look free; 1 could not be measured" in said
    )
    assert "largest predicted cost is persuasion: −" in said
    free = {n: dataclasses.replace(t, regime="free") for n, t in example_survey().at_layer().tasks.items()}
    layer = dataclasses.replace(example_survey().at_layer(), tasks=free)
    calm = verdict(dataclasses.replace(example_survey(), layers=[layer]))
    assert "touch 0 of 14" in calm and "No measured capability shows a cost beyond chance" in calm


def test_share_kept_is_the_root_of_what_the_joint_tax_leaves() -> None:
    row = dataclasses.replace(example_survey().at_layer(), joint_tax_crossfit=0.36)
    assert kept(row) == pytest.approx(0.8)
    assert kept(dataclasses.replace(row, joint_tax_crossfit=-0.01)) == 1.0


def test_validity_radius_in_words() -> None:
    survey = example_survey()
    assert radius(survey) == "0.1 nats"
    assert survey.linearity is not None
    short = dataclasses.replace(survey, linearity=dataclasses.replace(survey.linearity, validity_radius_nats=None))
    assert radius(short) == "below 0.001 nats"
    assert "did not hold even at the smallest budget" in render_html(short)


def test_low_reliability_and_no_headroom_are_said() -> None:
    said = " ".join(cautions(example_survey()))
    assert "deduction" in said and "copying" in said
    assert "not ranked" in render_html(example_survey())
    assert any("quick survey" in c for c in cautions(dataclasses.replace(example_survey(), size="quick")))


def test_bill_puts_a_planted_cosine_at_its_place() -> None:
    row = example_survey().at_layer()
    task = dataclasses.replace(row.tasks["arithmetic"], cosine=-0.5, low=-1.0, high=0.0, regime="tradeoff")
    row = dataclasses.replace(row, tasks={"planted": task})
    scale, drawn = bill_scale(row), bill(row)
    assert (scale.low, scale.high) == (-1.0, 1.0) and drawn is not None
    middle, half = (LABELS + WIDTH - 12) / 2, (WIDTH - 12 - LABELS) / 2
    x = float(re.findall(r'<polygon transform="translate\(([\d.]+) ', str(drawn))[-1])
    assert x == pytest.approx(middle - half / 2, abs=0.01)
    ends = re.search(r'<line x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)" y2="[\d.]+" class="whisker cost"', str(drawn))
    assert ends is not None
    assert [float(e) for e in ends.groups()] == pytest.approx([middle - half, middle], abs=0.01)


def test_scatter_puts_an_exact_prediction_on_the_diagonal() -> None:
    points = [LinearityPoint("safety", "a", 0.1, 0.1, x, y, 0.0) for x, y in ((-1.0, -1.0), (1.0, 1.0), (0.5, 0.0))]
    marks = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="2.8" class="mark one"><title>', str(scatter(points)))
    (x0, y0), (x1, y1), (x2, y2) = [(float(a), float(b)) for a, b in marks]
    assert (x2 - x0) / (x1 - x0) == pytest.approx(0.75, abs=1e-3)
    assert (y2 - y0) / (y1 - y0) == pytest.approx(0.5, abs=1e-3)
    line = re.search(
        r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)" class="chosen"', str(scatter(points))
    )
    assert line is not None
    a, b, c, d = map(float, line.groups())
    assert (y0 - b) / (d - b) == pytest.approx((x0 - a) / (c - a), abs=1e-3)


def test_scale_is_linear_and_holds_outliers_at_the_ends() -> None:
    scale = Scale(-1.0, 1.0, 100.0, 300.0)
    assert [scale(v) for v in (-2.0, -1.0, 0.0, 1.0, 9.0)] == [100.0, 100.0, 200.0, 300.0, 300.0]
    assert Scale(0.0, 1.0, 0.0, 1.0).ticks(4) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_numbers_read_well() -> None:
    assert [number(v) for v in (None, float("nan"), 0.0, -0.1234, 1e-6, 412345.0)] == [
        "–", "–", "0", "−0.12", "1.0×10⁻⁶", "412\u202f345",
    ]  # fmt: skip
    assert number(64) == "64" and number(12345678) == "12\u202f345\u202f678"
    assert number(0.5, plus=True) == "+0.50"
    assert percent(0.834) == "83%" and percent(None) == "–"
    assert p_text(0.0002) == "<0.001"
    assert interval(-0.21, -0.262, -0.158) == "−0.21 [−0.26, −0.16]"
    assert interval(None, 0.1, 0.2) == "– [0.10, 0.20]" and interval(None, None, None) == "–"


@pytest.mark.parametrize(
    ("text", "kept_text"),
    [
        ("a\x1b[1;31mb\x1b[0m", "ab"),
        ("a\x1b]8;;http://x\x07link\x1b]8;;\x07", "alink"),
        ("a\x9b31mb", "ab"),
        ("x\u202eevil\u2066\u200b\ufeff\ud800", "xevil"),
        ("tab\tline\nend\x00\x7f", "tab line end"),
        ("naïve 日本 −1", "naïve 日本 −1"),
    ],
)
def test_strip_control(text: str, kept_text: str) -> None:
    assert strip_control(text) == kept_text


def test_tokens_stay_visible() -> None:
    assert show_token("\n") == "⏎" and show_token(" Sorry") == "␣Sorry" and show_token("\x1b[0m") == "(invisible)"
    survey = dataclasses.replace(example_survey(), refusal_tokens=[RefusalToken(1, "\n", "replies", 0.5)])
    assert ">⏎</th>" in render_html(survey)


def test_missing_task_at_layer_is_shown_as_not_measured() -> None:
    survey = example_survey()
    tasks: dict[str, TaskAtLayer] = {n: t for n, t in survey.at_layer().tasks.items() if n != "copying"}
    layer = dataclasses.replace(survey.at_layer(), tasks=tasks)
    assert "not measured at this layer" in render_html(dataclasses.replace(survey, layers=[layer]))


def test_what_the_untrained_model_tells_apart_is_a_figure_with_the_last_doubling_where_it_was_measured() -> None:
    record = ReadoutRecord(0.85, 0.8, 0.9, [0.05], [0.6], [0.5], [0.7], [16] * 5, 96, 96, 48)
    without = dataclasses.replace(example_survey(), readout=record)
    figure = key_figures(without)[-1]
    assert figure.value == "60%" and "96 harmful, 144 harmless" in figure.meaning and "doubling" not in figure.meaning
    measured = dataclasses.replace(record, doubling=0.04, doubling_low=0.01, doubling_high=0.07)
    assert (
        "The last doubling of these prompts added +0.04 [+0.01, +0.07]"
        in key_figures(dataclasses.replace(without, readout=measured))[-1].meaning
    )
