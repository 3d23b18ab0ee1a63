"""PAPERS.md cannot drift: the committed page is the generated one, and every tag and every listed item fit together."""

import sys
from pathlib import Path

import pytest
import yaml

from aligntax.commands.theory import ITEMS_PER_SECTION

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import papers  # noqa: E402
import tags  # noqa: E402

KNOWN = {"reward model": "reward model", "Bradley-Terry": "reward model", "adaptive KL": "adaptive KL"}


def read(text: str) -> list[tuple[str, str, str]]:
    """The tags of one docstring."""
    return list(tags.tags_of(text, KNOWN))


@pytest.fixture(scope="module")
def here() -> papers.Papers:
    """This repository, read once."""
    return papers.gather()


class TestThisRepository:
    def test_every_tag_and_every_item_fit_together(self, here: papers.Papers) -> None:
        assert here.problems == []

    def test_the_committed_page_is_the_generated_one(self, here: papers.Papers) -> None:
        assert (ROOT / "PAPERS.md").read_text() == papers.render(here), "run `make papers`"

    def test_rows_named_are_items_of_the_theory(self, here: papers.Papers) -> None:
        named = [entry["theory"] for _, entry in papers.entries(here) if "theory" in entry]
        named += [row["theory"] for row in here.listed["disagreements"]]
        items = {f"{section}.{n + 1}" for section, count in ITEMS_PER_SECTION.items() for n in range(count)}
        assert named and set(named) <= items

    def test_theorems_of_both_papers_are_all_listed(self, here: papers.Papers) -> None:
        listed = here.listed["sources"]
        spoken = {item.partition(" ")[2] for item in listed["S"]["items"] if item[0] not in "§A"}
        assert spoken == {
            str(n) for n in range(1, 30)
        }  # one counter for theorems, definitions, ...; remarks have their own
        assert {f"Rem {n}" for n in range(1, 11)} <= set(listed["S"]["items"])
        for section, count in {3: 4, 4: 7, 5: 8, 6: 7}.items():
            numbers = {item.partition(" ")[2] for item in listed["G"]["items"]}
            assert {f"{section}.{n + 1}" for n in range(count)} <= numbers


class TestReadingTags:
    def test_one_item(self) -> None:
        assert read("The exact condition ([G] Thm 6.4, corrected).") == [("G", "Thm 6.4", "corrected")]

    def test_many_items_share_kind_and_status(self) -> None:
        found = read("Frontiers ([G] Thm 4.1, 4.3, Cor 4.4 and §7.3, sharpened; [S] Lem 28).")
        wanted = ["Thm 4.1", "Thm 4.3", "Cor 4.4", "§7.3"]
        assert found == [*(("G", item, "sharpened") for item in wanted), ("S", "Lemma 28", "as stated")]

    def test_ranges_parts_sections_and_appendices(self) -> None:
        found = [item for _, item, _ in read("([S] §3-4) ([G] Thm 6.4 (i), Prop 6.5) ([S] App. A, Asm 1)")]
        assert found == ["§3", "§4", "Thm 6.4", "Prop 6.5", "App A", "Assumption 1"]

    def test_numbers_of_prose_are_no_items(self) -> None:
        assert [item for _, item, _ in read("[S] Def 5. 12 tokens, 3 prompts")] == ["Def 5"]
        assert [item for _, item, _ in read("[G] Thm 4.3 over 2 points")] == ["Thm 4.3"]

    def test_pipeline_items_by_any_name(self) -> None:
        assert read("([R] Bradley-Terry, adaptive KL, corrected)") == [
            ("R", "reward model", "corrected"),
            ("R", "adaptive KL", "corrected"),
        ]

    def test_an_unreadable_tag_is_kept_to_be_complained_about(self) -> None:
        assert read("([R] something else)") == [("R", "something else)", "as stated")]
        assert read("([G] the theorem)") == [("G", "the theorem)", "as stated")]

    def test_code_and_private_names_carry_no_tags(self) -> None:
        source = '"""Room."""\ndef f():\n    """`exp(x 1[R] - cost)`."""\ndef _g():\n    """([G] Thm 1.1)."""\n'
        assert [(name, read(text)) for name, text in tags.docstrings(source)] == [("", []), ("f", [])]


CODE = '''"""A room ([G] Cor 1.3)."""

def first() -> None:
    """One ([G] Thm 1.1).{more}"""

class Second:
    def method(self) -> None:
        """Two ([G] Rem 1.2, corrected)."""
'''
TESTS = """from aligntax.geometry import Second, first

def test_first():
    assert first() is None

def test_both(monkeypatch):
    monkeypatch.setattr("aligntax.geometry.first", None)
    Second().method()
"""
ITEMS = {
    "Thm 1.1": {"title": "one"},
    "Rem 1.2": {"title": "two", "corrected": "because 1 | 2"},
    "Cor 1.3": {"title": "three", "theory": "3.1"},
    "Rem 1.4": {"title": "four", "within": "Thm 1.1"},
    "Rem 1.5": {"title": "five", "reason": "a remark"},
}


ROW = {"source": "[G]", "says": "one", "finds": "two", "theory": "3.1"}


def small(root: Path, items: dict[str, dict[str, str]] = ITEMS, more: str = "", tests: str = TESTS) -> Path:
    """A repository of one module, two test files and a short list."""
    for folder in ("src/aligntax/geometry", "tests", "docs"):
        (root / folder).mkdir(parents=True)
    (root / "src/aligntax/geometry/room.py").write_text(CODE.replace("{more}", more))
    (root / "tests/test_geometry_room.py").write_text(tests)
    (root / "tests/test_cli_all.py").write_text("from aligntax.geometry import first\n\ndef test_all():\n    first()\n")
    listed = {"sources": {"G": {"title": "Geometry", "items": items}, "R": {"title": "Pipeline", "items": {}}}}
    (root / "docs/papers.yaml").write_text(yaml.safe_dump({**listed, "disagreements": [{**ROW, "code": ["first"]}]}))
    return root


class TestAnotherRepository:
    def test_page_joins_list_code_and_tests(self, tmp_path: Path) -> None:
        assert papers.main([], small(tmp_path)) == 0
        page = (tmp_path / "PAPERS.md").read_text()
        first = "geometry/room.py `first` | test_geometry_room.py::test_first<br>test_geometry_room.py::test_both"
        assert f"| Thm 1.1 | one | as stated | {first} |" in page
        assert f"| Rem 1.4 | four (see Thm 1.1) | as stated | {first} |" in page
        assert f"| Cor 1.3 | three | as stated | {first} | 3.1 |" in page  # the module's tag, said by no function
        method = "geometry/room.py `Second.method` | test_geometry_room.py::test_both"
        assert f"| Rem 1.2 | two | corrected: because 1 \\| 2 | {method} |" in page
        assert "| Rem 1.5 | five | out of scope: a remark |" in page
        assert "| [G] | one | two | `first` | test_geometry_room.py::test_first" in page
        assert "3 as stated, 1 corrected, 1 out of scope." in page
        assert papers.main(["--check"], tmp_path) == 0

    def test_check_sees_a_stale_page_and_leaves_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        papers.main([], small(tmp_path))
        page = tmp_path / "PAPERS.md"
        page.write_text(page.read_text().replace("as stated", "proved"))
        assert papers.main(["--check"], tmp_path) == 1
        assert "PAPERS.md is not current: run `make papers`" in capsys.readouterr().err
        assert "proved" in page.read_text()

    @pytest.mark.parametrize(
        ("change", "more", "tests", "complaint"),
        [
            ({}, " And ([G] Thm 9.9).", TESTS, "first is tagged [G] Thm 9.9, which docs/papers.yaml does not list"),
            ({"Thm 1.6": {"title": "six"}}, "", TESTS, "[G] Thm 1.6 is tagged nowhere"),
            ({"Thm 1.1": {"title": "one", "reason": "none"}}, "", TESTS, "has 'reason' in docs/papers.yaml; drop one"),
            ({"Rem 1.2": {"title": "two"}}, "", TESTS, "[G] Rem 1.2: 'corrected' stands only in the docstring"),
            (
                {"Cor 1.3": {"title": "3", "corrected": "no"}},
                "",
                TESTS,
                "[G] Cor 1.3: 'corrected' stands only in the list",
            ),
            ({"Rem 1.4": {"title": "4", "within": "Rem 1.5"}}, "", TESTS, "within Rem 1.5, which is tagged nowhere"),
            ({}, " ([G] Thm 1.1, sharpened)", TESTS, "[G] Thm 1.1: the docstring says sharpened; say how"),
            ({"Rem 1.4": {"title": "4", "tradeoff": "x", "reason": "y"}}, "", TESTS, "unknown key 'tradeoff'"),
            ({}, "", "def test_nothing():\n    pass\n", "[G] Rem 1.2: no test mentions Second.method"),
        ],
    )
    def test_what_does_not_fit_is_named(
        self, tmp_path: Path, change: dict[str, dict[str, str]], more: str, tests: str, complaint: str
    ) -> None:
        found = papers.gather(small(tmp_path, {**ITEMS, **change}, more, tests)).problems
        assert any(complaint in problem for problem in found), found

    def test_a_module_is_silent_where_a_function_speaks(self, tmp_path: Path) -> None:
        code = small(tmp_path) / "src/aligntax/geometry/room.py"
        code.write_text(code.read_text() + '\ndef third() -> None:\n    """Three ([G] Cor 1.3)."""\n')
        assert [tag.name for tag in papers.gather(tmp_path).of(("G", "Cor 1.3"))] == ["third"]

    def test_a_disagreement_names_tagged_functions(self, tmp_path: Path) -> None:
        listed = small(tmp_path) / "docs/papers.yaml"
        listed.write_text(listed.read_text().replace("- first", "- absent"))
        assert papers.gather(tmp_path).problems == ["[G] (one): absent is no tagged function"]

    def test_outside_its_room_a_method_counts_only_beside_its_class(self, tmp_path: Path) -> None:
        small(tmp_path, tests="def test_nothing():\n    pass\n")
        far = tmp_path / "tests/test_cli_all.py"
        far.write_text(TESTS.replace("Second, first", "first").replace("Second()", "first()"))
        assert papers.gather(tmp_path).problems == ["[G] Rem 1.2: no test mentions Second.method"]
        far.write_text(TESTS)
        assert papers.gather(tmp_path).problems == []
