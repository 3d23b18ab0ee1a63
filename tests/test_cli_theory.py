"""`aligntax theory` from the outside: what is printed, what counts as falling short, the exit code; on made-up rows."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from aligntax.cli import main
from aligntax.commands.theorems.check import Check, Row
from aligntax.commands.theory import ITEMS_PER_SECTION, check_section, section_rows, summary
from aligntax.errors import AligntaxError

GOOD = Check("0", "gains add up on the whole budget", "max_safety on 40 draws", "a conic program", 3e-13, 1e-9)
Plant = Callable[..., None]


def constant(check: Check) -> Row:
    """A row that always gives `check`."""

    def row() -> Check:
        return check

    row.__name__ = "row_" + check.item.replace(".", "_")
    return row


def good_rows(section: int) -> list[Row]:
    """One holding row an item."""
    return [constant(replace(GOOD, item=f"{section}.{n + 1}")) for n in range(ITEMS_PER_SECTION[section])]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """`plant(section, rows)` puts rows in place of a section's own; the other sections get rows that hold."""

    def put(section: int, rows: list[Row]) -> None:
        name = f"aligntax.commands.theorems.section{section}"
        module = ModuleType(name)
        module.ROWS = tuple(rows)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)

    for section in ITEMS_PER_SECTION:
        put(section, good_rows(section))
    return put


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


def test_all_items_hold_is_exit_code_zero(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory"]) == 0
    assert "56 of 56 items hold, none falls short" in capsys.readouterr().out


@pytest.mark.parametrize("error", [2e-9, float("nan"), float("inf")])
def test_one_row_beyond_its_tolerance_is_exit_code_one(
    plant: Plant, capsys: pytest.CaptureFixture[str], error: float
) -> None:
    plant(3, [*good_rows(3)[:5], constant(replace(GOOD, item="3.6", error=error)), good_rows(3)[6]])
    assert main(["theory"]) == 1
    assert "55 of 56 items hold, these fall short: 3.6;" in capsys.readouterr().out


def test_an_item_without_a_row_falls_short_and_stands_in_its_place(
    plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(2, good_rows(2)[:3] + good_rows(2)[4:])
    assert main(["theory", "--section", "2"]) == 1
    out = capsys.readouterr().out
    assert "6 of 7 items hold, these fall short: 2.4;" in out
    assert out.index("2.3 ") < out.index("2.4   no row checks this item") < out.index("2.5 ")


def test_a_row_that_raises_falls_short_and_hides_no_other(
    plant: Plant, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")

    def row_5_2() -> Check:
        raise ZeroDivisionError("no prefix left")

    plant(5, [row_5_2, *good_rows(5)[:1], *good_rows(5)[2:]])
    assert main(["theory", "--section", "5"]) == 1
    out = capsys.readouterr().out
    assert "row_5_2 raised ZeroDivisionError: no prefix left" in out
    assert "7 of 8 items hold, these fall short: 5.2;" in out


def test_two_rows_of_one_item_must_both_hold(plant: Plant) -> None:
    plant(4, [*good_rows(4), constant(replace(GOOD, item="4.3", error=1.0))])
    assert check_section(4).short == ("4.3",)
    assert summary([check_section(4)]).startswith("8 of 9 items hold")


def test_rows_print_in_the_order_of_the_theory(plant: Plant) -> None:
    plant(1, good_rows(1)[::-1])
    assert [check.item for check in check_section(1).checks] == [f"1.{n}" for n in range(1, 19)]


def test_sections_repeat_and_only_they_run(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    plant(2, [])
    assert main(["theory", "--section", "6", "--section", "3", "--section", "6"]) == 0
    out = capsys.readouterr().out
    assert "14 of 14 items hold" in out
    assert out.index("3. Several") < out.index("6. Pipeline") and "2. Scaling" not in out


def test_eighty_columns_show_every_text_whole(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", "--section", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for piece in (GOOD.statement, GOOD.computed, GOOD.oracle, "3e-13", "1e-09", "1.18", "holds"):
        assert text.count(piece) >= 1
    assert "…" not in text


def test_markup_in_a_statement_is_text(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    plant(6, [constant(replace(GOOD, item="6.1", statement="p in [0, 1], [bold]not markup[/bold]")), *good_rows(6)[1:]])
    assert main(["theory", "--section", "6"]) == 0
    assert "p in [0, 1], [bold]not markup[/bold]" in capsys.readouterr().out


def test_json_has_a_row_an_item_and_null_for_undefined(plant: Plant, tmp_path: Path) -> None:
    plant(3, [*good_rows(3)[:5], constant(replace(GOOD, item="3.6", error=float("nan")))])
    assert main(["theory", "--section", "3", "--json", str(tmp_path / "theory.json")]) == 1
    found = json.loads((tmp_path / "theory.json").read_text())
    assert found["holds"] is False and found["missing"] == ["3.7"]
    assert [row["item"] for row in found["rows"]] == [f"3.{n}" for n in range(1, 7)]
    assert found["rows"][5]["error"] is None and found["rows"][5]["passed"] is False
    assert set(found["rows"][0]) == {"item", "statement", "computed", "oracle", "error", "tolerance", "passed"}


@pytest.mark.parametrize("value", ["0", "7", "one"])
def test_unknown_section_is_exit_code_two(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", "--section", value]) == 2
    assert value in capsys.readouterr().err


def test_unknown_section_from_python_says_which_there_are() -> None:
    with pytest.raises(AligntaxError, match=r"no section 8; choose from 1, 2, 3, 4, 5, 6"):
        section_rows(8)


@pytest.mark.parametrize("section", ITEMS_PER_SECTION)
def test_every_item_of_the_theory_has_a_row(section: int) -> None:
    covered = {tuple(row.__name__.split("_")[1:3]) for row in section_rows(section)}
    assert covered == {(str(section), str(n + 1)) for n in range(ITEMS_PER_SECTION[section])}


def test_the_real_rows_of_a_section_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", "--section", "1"]) == 0
    assert "18 of 18 items hold, none falls short" in capsys.readouterr().out
