"""Benchmark results: one shape for every line, failures kept, and a README table that is what the committed JSON gives."""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import measure  # noqa: E402
import record  # noqa: E402
import run_all  # noqa: E402
import table  # noqa: E402

RATIO = measure.Line("fast", 2.5, ">= 3", "note", "s", 2.0, {"peer a": 5.0, "peer b": 7.0})
MACHINE = {"cpu": "a | b", "cores": 2, "threads": 1, "device": "cpu", "torch": "2.13", "aligntax": "0.1.0"}

GOOD = """
import sys
device, path = sys.argv[2], sys.argv[4]
open(path, "w").write({text!r}) if sys.argv[1::2] == ["--device", "--json"] and device == "cpu" else sys.exit("what?")
"""
BAD = "import sys\nprint('some progress')\nsys.exit('no memory | left')\n"


def written(folder: Path, after: float) -> str:
    """What a script writes whose second calibration took `after` times as long as the first."""
    run = measure.Run("cpu", calibration=[1.0, after], load=[(0.1, 0.2, 0.3), (1.0, 1.0, 1.0)])
    run.add(
        measure.Line("fast", 2.5, ">= 3", "", "s", 2.0, {"peer": 5.0}), measure.Line("absent", math.nan, detail=True)
    )
    run.close(folder / "written.json")
    return (folder / "written.json").read_text()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[record.Part]:
    """What a valid, a void and a failing script leave; a stale JSON of the failing one lies there."""
    folder = tmp_path_factory.mktemp("scripts")
    code = {
        "good": GOOD.format(text=written(folder, 1.1)),
        "shaky": GOOD.format(text=written(folder, 1.3)),
        "bad": BAD,
    }
    for name, text in code.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "out").mkdir()
    (folder / "out/bad.json").write_text('{"void": false}')
    return run_all.run_scripts([folder / f"{name}.py" for name in code], "cpu", folder / "out", 0.0, MACHINE)


@pytest.fixture
def results(parts: list[record.Part]) -> dict[str, Any]:
    """The three together."""
    return record.gather(parts, MACHINE)


class TestLine:
    def test_goals_judge_the_value_and_give_the_direction(self):
        assert (RATIO.verdict, RATIO.direction, RATIO.facts()["met"]) == ("missed", "more", False)
        assert measure.Line("x", 0.9, "<= 1").facts()["better"] == "less"
        assert measure.Line("x", 0.9).facts()["met"] is None

    def test_a_line_with_peers_is_a_ratio_and_one_without_is_our_own_number(self):
        assert (RATIO.facts()["ours"], RATIO.facts()["ratio"]) == (2.0, 2.5)
        alone = measure.Line("x", 0.9, unit="GB").facts()
        assert (alone["ours"], alone["ratio"], alone["peers"]) == (0.9, None, {})

    @pytest.mark.parametrize("more", [{"better": "less"}, {"ours": 1.0}])
    def test_a_ratio_without_ours_or_without_direction_is_refused(self, more: dict[str, Any]):
        with pytest.raises(ValueError, match="line 'x' has peers: give ours, and a goal or better"):
            measure.Line("x", 0.9, peers={"a": 1.0}, **more)


class TestSteady:
    @pytest.mark.parametrize(
        ("speeds", "kept", "void", "seconds"),
        [
            ([1.0, 1.0, 1.5, 1.5, 1.4], [[1.0, 1.0], [1.5, 1.5]], False, [0.0, 2.0]),
            ([1.0, 1.5] * 4, [[1.5, 1.0]], True, [math.nan]),
            ([1.0, 1.5, 1.0, 1.5, 1.0, 1.5, 1.5], [[1.0, 1.5], [1.5, 1.5]], True, [5.0]),
        ],
    )
    def test_a_round_in_which_the_machine_changed_is_repeated(
        self,
        speeds: list[float],
        kept: list[list[float]],
        void: bool,
        seconds: list[float],
        monkeypatch: pytest.MonkeyPatch,
    ):
        order = iter(speeds)
        monkeypatch.setattr(measure, "calibrate", lambda device: next(order))
        monkeypatch.setattr(measure, "timed", lambda action, device: action())
        run, runs = measure.Run("cpu", calibration=[1.0, 2.0]), iter(range(100))
        found = measure.steady({"ours": lambda: float(next(runs))}, 2, "cpu", run)
        assert (run.void, run.rounds[-len(kept) :]) == (void, kept)
        assert found["ours"] == pytest.approx(seconds, nan_ok=True)


class TestRecord:
    def test_failed_and_void_scripts_are_recorded_as_such(self, results: dict[str, Any]):
        assert {name: about["state"] for name, about in results["scripts"].items()} == {
            "good": "valid",
            "shaky": "void",
            "bad": "failed",
        }
        assert results["scripts"]["bad"]["why"] == "exit code 1: no memory | left"
        assert {(x["script"], x["void"]) for x in results["lines"]} == {("good", False), ("shaky", True)}
        assert run_all.failed(results) == ["bad"]

    def test_every_line_has_the_same_keys_and_missing_numbers_are_null(self, results: dict[str, Any], tmp_path: Path):
        assert {frozenset(x) for x in results["lines"]} == {frozenset({*record.LINE_KEYS, "script", "void"})}
        assert [x["ours"] for x in results["lines"] if x["name"] == "absent"] == [None, None]
        record.write(tmp_path / "r.json", results)
        assert record.read(tmp_path / "r.json") == json.loads(json.dumps(results))

    def test_nothing_measured_is_none_and_another_shape_is_refused(self, tmp_path: Path):
        assert record.read(tmp_path / "absent.json") is None
        (tmp_path / "r.json").write_text('{"schema_version": 99}')
        with pytest.raises(ValueError, match="has schema_version 99"):
            record.read(tmp_path / "r.json")

    @pytest.mark.parametrize(
        ("void", "age", "threads", "keeps"),
        [(False, 1, 1, True), (False, 3, 1, False), (True, 1, 1, False), (False, 1, 2, False)],
    )
    def test_only_young_and_valid_parts_of_this_machine_are_kept(
        self, tmp_path: Path, void: bool, age: float, threads: int, keeps: bool
    ):
        path = tmp_path / "x.json"
        path.write_text(json.dumps({"void": void, "machine": {**MACHINE, "threads": threads}}))
        written = path.stat().st_mtime - age * 3600
        os.utime(path, (written, written))
        assert (run_all.kept(path, 2.0, MACHINE) is not None) == keeps

    def test_a_kept_part_is_not_run_again(self, tmp_path: Path):
        (tmp_path / "x.py").write_text(BAD)
        (tmp_path / "x.json").write_text(json.dumps({"void": False, "machine": MACHINE}))
        assert run_all.run_scripts([tmp_path / "x.py"], "cpu", tmp_path, 1.0, MACHINE)[0].state == "valid"
        assert run_all.run_scripts([tmp_path / "x.py"], "cpu", tmp_path, 0.0, MACHINE)[0].state == "failed"

    def test_a_void_script_is_run_again_until_its_calibration_agrees(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        rests: list[float] = []
        monkeypatch.setattr(run_all.time, "sleep", rests.append)
        text, count = [written(tmp_path, after) for after in (1.3, 1.1)], tmp_path / "count"
        code = "import pathlib\ncount = pathlib.Path({count!r})\nn = len(count.read_text()) if count.exists() else 0\n"
        code = code.format(count=str(count)) + "count.write_text('x' * (n + 1))\n"
        (tmp_path / "x.py").write_text(code + f"import sys\nopen(sys.argv[4], 'w').write({text!r}[min(n, 1)])\n")
        states = []
        for tries in (1, 3):
            count.unlink(missing_ok=True)
            states += [run_all.run_scripts([tmp_path / "x.py"], "cpu", tmp_path, 0.0, MACHINE, tries)[0].state]
        assert (states, count.read_text(), rests) == (["void", "valid"], "xx", [run_all.REST])


class TestTable:
    def test_rows_show_ours_peers_limit_ratio_and_verdict(self, results: dict[str, Any]):
        text = table.render(results)
        assert "| good | fast | 2 s | peer 5 s | >= 3 | 2.5 | missed |" in text
        assert "| shaky | fast | 2 s | peer 5 s | >= 3 | 2.5 | void |" in text
        assert "| bad | exit code 1: no memory \\| left | | | | | failed |" in text
        assert "absent" not in text
        assert "load average 0.10 before, 1.00 after" in text and "float32" in text

    def test_a_gpu_is_named_and_a_run_of_failures_says_so(self, parts: list[record.Part]):
        gathered = record.gather(parts[2:], {**MACHINE, "device": "GPU X"})
        assert "1 threads, GPU X, torch 2.13; nothing ran to its end." in table.render(gathered)

    def test_the_page_around_the_table_stays(self):
        page = f"above\n{table.OPEN}\nold\n{table.CLOSE}\nbelow\n"
        new = table.replaced(page, table.section([]))
        assert new == f"above\n{table.OPEN}\n{table.EMPTY}\n{table.CLOSE}\nbelow\n"
        assert table.replaced(new, table.EMPTY) == new

    @pytest.mark.parametrize("page", ["", table.OPEN, f"{table.CLOSE}{table.OPEN}", f"{table.OPEN}{table.CLOSE}" * 2])
    def test_a_page_without_its_markers_is_refused(self, page: str):
        with pytest.raises(ValueError, match="once each"):
            table.replaced(page, "")

    def test_the_readme_shows_what_was_committed(self):
        page = run_all.README.read_text()
        measured = [found for path in run_all.FILES.values() if (found := record.read(path)) is not None]
        assert table.replaced(page, table.section(measured)) == page, "run `benchmarks/run_all.py --table`"


class TestRunAll:
    def test_every_script_beside_it_is_run(self):
        pages = (ROOT / "benchmarks").glob("*.py")
        assert {path.stem for path in pages if "with calibrated(" in path.read_text()} == {*run_all.SCRIPTS}

    @pytest.mark.parametrize(("words", "code"), [([], 0), (["--guard"], 1)])
    def test_a_new_run_is_written_and_a_guarded_one_only_compared(
        self, results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int
    ):
        page, path = tmp_path / "README.md", tmp_path / "results.json"
        page.write_text(f"{table.OPEN}\n{table.CLOSE}\n")
        good = {**results, "scripts": {"good": results["scripts"]["good"]}, "lines": results["lines"][:1]}
        better = {**good, "lines": [{**good["lines"][0], "ratio": 9.0}]}
        record.write(path, better)
        before = path.read_text(), page.read_text()
        monkeypatch.setattr(run_all, "FILES", {"cpu": path})
        monkeypatch.setattr(run_all, "README", page)
        monkeypatch.setattr(run_all, "measure_all", lambda device, hours, tries: good)
        assert run_all.main(["--device", "cpu", *words]) == code
        if words:
            assert (path.read_text(), page.read_text()) == before
        else:
            assert record.read(path) == json.loads(json.dumps(good)) and table.render(good) in page.read_text()

    def test_a_guard_without_committed_results_says_so_before_it_runs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        monkeypatch.setattr(run_all, "FILES", {"cpu": tmp_path / "absent.json"})
        monkeypatch.setattr(run_all, "measure_all", lambda device, hours, tries: pytest.fail("it ran"))
        assert run_all.main(["--device", "cpu", "--guard"]) == 2
        assert "nothing to compare with" in capsys.readouterr().err
        assert run_all.main(["--device", "mps"]) == 2

    def test_when_nothing_can_be_judged_the_guard_does_not_pass(self, results: dict[str, Any]):
        void = {**results, "scripts": {"shaky": results["scripts"]["shaky"]}}
        void["lines"] = [x for x in results["lines"] if x["script"] == "shaky"]
        assert run_all.judged(void, void, 0.2) == 2
        assert run_all.judged(results, results, 0.2) == 1  # a script failed
