"""What the site is made of: verdicts come from records and from nowhere else, docstrings survive, no page is orphaned."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest

from aligntax.commands.registry import COMMANDS
from aligntax.results.prediction import Bound, Prediction, PredictionProvenance

DOCS = Path(__file__).parents[1] / "docs"
pytest.importorskip("sphinx", reason="the docs extra is not installed; pip install -e '.[docs]'")
sys.path.insert(0, str(DOCS / "_ext"))

import accessible  # noqa: E402
import commands as command_pages  # noqa: E402
import measured_recipes  # noqa: E402
import plain_docstrings  # noqa: E402
import verdicts  # noqa: E402


def prediction(**changed: object) -> Prediction:
    """A record with invented numbers."""
    provenance = PredictionProvenance("0.1.0", "aligntax predict P1", {}, "0" * 64, {}, {}, 0, 1.0, {})
    made = Prediction(
        "P1", "statement", "rank correlation", 0.42, 0.11, 0.63, {"gradient norm": Bound(0.4, 0.1, 0.6)},
        Bound(0.02, -0.2, 0.25), 0.4, "undecided", "the interval holds 0", {"tasks": 20, "recipes": 3}, [0], {},
        ["the pilot of two steps"], "2026-11-21T10:00:00", provenance,
    )  # fmt: skip
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def written(folder: Path, name: str, record: Prediction) -> None:
    (folder / f"{name}.json").write_text(json.dumps(dataclasses.asdict(record)))


class TestRecipes:
    def test_ends_and_matched_rows_are_what_the_records_say(self, tmp_path: Path) -> None:
        mass = {depth: [0.1, 0.2345] for depth in ("0", "1", "5", "20")}
        share = {"exact_share": 0.41, "exact_low": 0.3, "exact_high": 0.5}
        for name, refused in (("base", 0.1), ("plain", 0.5), ("strong", 0.9)):
            rate = {"value": refused, "low": refused - 0.1, "high": refused + 0.1, "n": 96}
            record = {"harmful": rate, "harmless": rate, "mass": mass, "kl_forced": {"mean": 0.3}, "selective_mean": -0.2,
                      "tasks_worse": ["code"], "tax": {"code": [], "logic": []},
                      "efficiency": share if name == "strong" else None}  # fmt: skip
            (tmp_path / f"{name}-0.json").write_text(json.dumps(record))
        second = {**record, "harmful": {"value": 0.7, "low": 0.6, "high": 0.8}}
        (tmp_path / "plain-1.json").write_text(json.dumps(second))
        (tmp_path / "plain-0@20.json").write_text("no end of a recipe: must not be read")
        rows = measured_recipes.end_rows(tmp_path)
        assert [row[0] for row in rows] == ["recipe", "base", "strong", "plain"]
        assert rows[2][1:3] == ("0.90 [0.80, 1.00]",) * 2 and rows[2][3] == ", ".join(["0.234"] * 4)
        assert rows[2][5].endswith(" (1)") and rows[1][4:] == ("",) * 4 and len({len(row) for row in rows}) == 1
        assert rows[2][6] == "0.41 [0.30, 0.50]" and rows[3][6] == "–"
        seeds = measured_recipes.seed_rows(tmp_path)
        assert [row[:3] for row in seeds[1:]] == [("plain", "2", "0.60 (0.50 to 0.70)")] and len(seeds[0]) == len(
            seeds[1]
        )
        scores = dict.fromkeys(measured_recipes.MATCHED, 0.25)
        courses = {"strong-0": scores, "plain-1": {**scores, "over-refusal": 0.125}, "weak-0": None}
        (tmp_path / "matched.json").write_text(json.dumps({"levels": {"0.5": courses}}))
        assert [row[0] for row in measured_recipes.matched_rows("0.5", tmp_path)] == [
            "recipe",
            "plain, seed 1",
            "strong",
        ]

    def test_forecasts_stand_beside_every_model_that_was_trained_on_the_set(self, tmp_path: Path) -> None:
        ends = {test: {"value": 0.8, "low": 0.7, "high": 0.9} for test in measured_recipes.TESTS}
        trained = {name: {test: {"value": 0.75} for test in ends} for name in ("plain-0", "plain-1")}
        sets = {
            "few": {**ends, "requests": [94, 137], "became": trained},
            "many": {**ends, "requests": [354, 937], "became": {}},
        }
        (tmp_path / "separation.json").write_text(json.dumps(sets))
        head, few, many = measured_recipes.separation_rows(tmp_path)
        assert few == ("few", "plain", "0.80 [0.70, 0.90]", "0.75, 0.75", "0.80", "0.75, 0.75")
        assert many == ("many", "", "0.80 [0.70, 0.90]", "", "0.80", "") and len(head) == len(few)


class TestVerdicts:
    def test_without_records_nothing_is_scored(self, tmp_path: Path) -> None:
        assert [row[1] for row in verdicts.verdict_rows(tmp_path)[1:]] == ["not scored yet"] * 7
        said = "".join(node.astext() for node in verdicts.verdict_nodes({}))
        assert "not scored yet" in said and not re.search("supported|contradicted|undecided", said)

    def test_a_record_is_shown_whole(self, tmp_path: Path) -> None:
        written(tmp_path, "P1", prediction())
        found = verdicts.records_of("P1", tmp_path)
        assert found is not None
        said = "\n".join(node.astext() for node in verdicts.verdict_nodes(found))
        for part in (
            "Verdict: undecided",
            "+0.4 [+0.1, +0.6]",
            "gradient norm",
            "20 tasks, 3 recipes",
            "2026-11-21",
            "the pilot of two steps",
        ):
            assert part in said
        assert verdicts.verdict_rows(tmp_path)[1][:2] == ("P1", "undecided")

    def test_an_undefined_estimate_is_no_zero(self, tmp_path: Path) -> None:
        written(tmp_path, "P1", prediction(estimate=None, low=None, high=None))
        row = verdicts.verdict_rows(tmp_path)[1]
        assert row[2] == "–"

    @pytest.mark.parametrize("changed", [{"verdict": "promising"}, {"prediction": "P2"}, {"schema_version": 99}])
    def test_a_record_that_says_nothing_fails_the_build(self, changed: dict[str, object], tmp_path: Path) -> None:
        written(tmp_path, "P1", prediction(**changed))
        with pytest.raises(ValueError, match=r"P1\.json"):
            verdicts.records_of("P1", tmp_path)

    def test_committed_records_can_be_read(self) -> None:
        assert {row[0].split(",")[0] for row in verdicts.verdict_rows()[1:]} == {f"P{k}" for k in range(1, 8)}

    def test_a_second_record_stands_beside_the_first(self, tmp_path: Path) -> None:
        written(tmp_path, "P5", prediction(prediction="P5"))
        written(tmp_path, "networks-P5", prediction(prediction="P5", verdict="contradicted"))
        rows = [row[:2] for row in verdicts.verdict_rows(tmp_path) if row[0].startswith("P5")]
        assert rows == [("P5", "undecided"), ("P5, networks", "contradicted")]
        said = "\n".join(node.astext() for node in verdicts.verdict_nodes(verdicts.records_of("P5", tmp_path)))
        assert "Verdict: undecided" in said and "Verdict on networks: contradicted" in said


class TestDocstrings:
    def test_formulas_are_no_markup(self) -> None:
        shown = plain_docstrings.inline("tau = |P_C v|^2 <= 1, *never* more; `x_` and `y`s")
        assert shown == r"tau = \|P\_C v\|^2 \<= 1, \*never\* more; \ ``x_``\  and \ ``y``\ s"

    def test_code_over_a_line_break_stays_code(self) -> None:
        assert plain_docstrings.converted(["the gap `a -", "b` closes"])[0] == r"the gap \ ``a - b``\  closes"

    def test_doctests_items_and_examples_keep_their_shape(self) -> None:
        lines = ["Text:", "", "    path: 1", "", "- one `a|b`", "  more", "- two", "", ">>> 1 + 1", "2"]
        made = plain_docstrings.converted(lines)
        assert "        path: 1" in made and made[made.index("        path: 1") - 2] == "::"
        assert "- one \\ ``a|b``\\  more" in made and "- two" in made
        assert made[made.index(">>> 1 + 1") + 1] == "2"


class TestPages:
    def test_every_page_is_in_a_table_of_contents(self) -> None:
        listed = set()
        for page in DOCS.rglob("*.md"):
            for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.S):
                names = [line for line in tree.splitlines() if line and not line.startswith(":")]
                listed |= {(page.parent / f"{name}.md").resolve() for name in names}
        assert {page.resolve() for page in DOCS.rglob("*.md")} - listed == {(DOCS / "index.md").resolve()}

    def test_figures_are_small_and_every_picture_says_what_it_shows(self) -> None:
        figures = list((DOCS / "figures").iterdir())
        assert figures and max(path.stat().st_size for path in figures) <= 150_000
        for page in DOCS.rglob("*.md"):
            for name, options in re.findall(r"```\{image\} (\S+)\n(.*?)```", page.read_text(), re.S):
                assert (page.parent / name).is_file() and re.search(r"^:alt: .{15,}", options, re.M)

    def test_commands_are_documented_from_their_dataclasses(self) -> None:
        for name, entry in COMMANDS.items():
            said = command_pages.section(name, entry).astext()
            assert f"aligntax {name}" in said and all(example in said for example in entry.examples)

    def test_mended_pages_name_their_landmarks(self) -> None:
        made = accessible.mended('<aside class="sidebar-drawer"><pre>')
        assert 'aria-label="Site"' in made and 'tabindex="0"' in made
