"""`aligntax tax` from the outside: what is paired with what, what the record says, what is refused, exit codes."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_rows
from scipy import stats as reference

from aligntax.cli import main
from aligntax.commands.tax import TaxCommand, compared, stage_names
from aligntax.errors import AligntaxError
from aligntax.report.tax_table import verdict
from aligntax.results import plain
from aligntax.results.tax import read_tax

HOSTILE = '=cmd|"<script>\x1b[31m[bold]'


def stage(path: Path, losses: dict[str, float], seed: int = 0, n: int = 80) -> Path:
    """Right or wrong on `n` items of each task; of those that were right a share `losses[task]` is lost."""
    rng = np.random.default_rng(seed)
    rows = [
        {"id": f"{task}-{k}", "task": task, "score": float(k % 4 > 0 and rng.random() >= loss)}
        for task, loss in losses.items()
        for k in range(n)
    ]
    return write_rows(path, rows)


def run(*words: object) -> int:
    return main(["tax", *map(str, words)])


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "tax.json").read_text())


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Three stages: the first loses nothing more, then `hurt` loses a third, then nothing more is lost."""
    losses = [{"kept": 0.0, "hurt": 0.0}, {"kept": 0.0, "hurt": 0.35}, {"kept": 0.0, "hurt": 0.35}]
    return [
        stage(tmp_path / f"{name}.jsonl", loss, 1) for name, loss in zip(("base", "sft", "rl"), losses, strict=True)
    ]


def test_every_adjacent_pair_and_first_to_last_in_the_order_given(three: list[Path], tmp_path: Path) -> None:
    assert run(*three, "--out", tmp_path / "out", "--quiet") == 0
    found = record(tmp_path / "out")
    assert found["schema_version"] == 1 and found["stages"] == ["base", "sft", "rl"]
    order = [(p["before"], p["after"], p["task"], p["span"]) for p in found["pairs"]]
    assert order == [
        (a, b, task, span)
        for a, b, span in (("base", "sft", "adjacent"), ("sft", "rl", "adjacent"), ("base", "rl", "total"))
        for task in ("kept", "hurt")
    ]
    by = {(p["before"], p["after"], p["task"]): p for p in found["pairs"]}
    total = by["base", "rl", "hurt"]["tax"]
    assert total == pytest.approx(by["base", "sft", "hurt"]["tax"] + by["sft", "rl", "hurt"]["tax"])
    assert by["sft", "rl", "hurt"]["tax"] == 0 and total > 0.15
    assert {"source", "kind", "sha256"} <= set(found["sources"][0]) and len(found["sources"][0]["sha256"]) == 64
    assert found["provenance"]["seed"] == 0 and "aligntax tax" in found["provenance"]["command"]


def test_a_planted_loss_is_found_with_its_interval_and_the_kept_task_is_not(three: list[Path], tmp_path: Path) -> None:
    tax = TaxCommand(str(three[0]), str(three[1]), out=tmp_path / "out", quiet=True).execute()
    assert read_tax(tmp_path / "out") == tax
    kept, hurt = tax.pairs
    rows = [json.loads(line) for line in three[1].read_text().splitlines()]
    after = np.mean([row["score"] for row in rows if row["task"] == "hurt"])
    assert (hurt.n, hurt.score_before, hurt.score_after) == (80, 0.75, pytest.approx(after))
    assert hurt.tax == pytest.approx(0.75 - after) and hurt.low > 0 and hurt.low < hurt.tax < hurt.high
    assert hurt.p_value == pytest.approx(reference.binomtest(hurt.lost, hurt.lost + hurt.gained).pvalue)
    assert hurt.p_adjusted == pytest.approx(2 * hurt.p_value) and hurt.relative == pytest.approx(hurt.tax / 0.75)
    assert (kept.tax, kept.p_value, kept.method) == (0.0, 1.0, "mcnemar") and kept.low < 0 < kept.high


def test_graded_scores_and_the_same_seed_give_the_same_record(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=30)
    for name, shift in (("a", 0.0), ("b", 0.4)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("id", "score"), *((k, s - shift) for k, s in enumerate(scores))])
    taxes = [
        TaxCommand(
            str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), out=tmp_path / "o", quiet=True, draws=200
        ).execute()
        for _ in range(2)
    ]
    assert plain(taxes[0].pairs) == plain(taxes[1].pairs)
    (pair,) = taxes[0].pairs
    assert (pair.method, pair.lost, pair.task) == ("bootstrap", None, "all") and pair.tax == pytest.approx(0.4)
    assert pair.low == pytest.approx(0.4) == pair.high  # every item lost the same: nothing is left to resample
    assert pair.score_before < 0 and record(tmp_path / "o")["pairs"][0]["relative"] is None


def test_what_every_answer_lost_is_no_loss_of_capability(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    before = [
        {"id": k, "score": 1, "format": f, "choices": list(rng.normal(-5, 1, 3))} for k in range(40) for f in "pq"
    ]
    moved = {"shared": [0.5, 0.5, 0.5], "gold": [0.5, 0.0, 0.0]}
    for name, drop in moved.items():
        after = [{**row, "choices": [c - d for c, d in zip(row["choices"], drop, strict=True)]} for row in before]
        files = [write_rows(tmp_path / "b.jsonl", before), write_rows(tmp_path / "a.jsonl", after)]
        (pair,) = TaxCommand(str(files[0]), str(files[1]), out=tmp_path / name, quiet=True, draws=200).execute().pairs
        assert pair.split is not None and pair.split.formats == 2
        assert pair.split.gold == pytest.approx(0.5)
        assert (pair.split.shared, pair.split.selective) == pytest.approx(
            (0.5, 0.0) if name == "shared" else (0.0, 0.5)
        )


def test_a_lone_format_is_resampled_over_items_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    drop = rng.normal(0.3, 0.2, 50)
    rows = [
        [{"id": k, "score": 1, "choices": [-1.0 - d * after, -2.0]} for k, d in enumerate(drop)] for after in (0, 1)
    ]
    files = [write_rows(tmp_path / f"{k}.jsonl", each) for k, each in enumerate(rows)]
    (pair,) = TaxCommand(str(files[0]), str(files[1]), out=tmp_path / "o", quiet=True).execute().pairs
    assert pair.split is not None and pair.split.formats == 1 and pair.split.selective == pytest.approx(drop.mean())
    width = pair.split.selective_high - pair.split.selective_low
    assert width == pytest.approx(2 * 1.645 * reference.sem(drop), rel=0.1)


def test_what_cannot_be_paired_names_an_id_and_is_exit_code_two(
    three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = three[1].read_text().splitlines()
    three[1].write_text("\n".join(lines[:-1]))
    assert run(*three[:2], "--out", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "'hurt-79' is scored before but not after" in told and len(told.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert run(*three[:2], "--common", "--out", tmp_path / "out") == 0
    found = record(tmp_path / "out")
    assert [(p["n"], p["left_out"]) for p in found["pairs"]] == [(80, 0), (79, 1)] and "1 items" in found["warnings"][0]
    assert "1 items" in " ".join(capsys.readouterr().out.split())


def test_the_table_tells_loss_from_noise(three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*three, "--out", tmp_path / "out") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Loss on hurt, of 2 tasks" in text and "No change is told from noise on 2 tasks" in text
    assert "base to rl, first to last" in text
    tax = read_tax(tmp_path / "out")
    assert verdict([pair for pair in tax.pairs if pair.task == "kept"]).startswith(
        "No change is told from noise on 3 tasks "
    )


def test_hostile_names_are_inert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for k, file in enumerate(files):
        write_rows(file, [{"id": f"{HOSTILE}{i}", "task": HOSTILE, "score": (i + k) % 2} for i in range(4)])
    assert run(*files, "--out", tmp_path / "out") == 0
    assert "\x1b[31m" not in capsys.readouterr().out
    assert "\\u001b" not in (tmp_path / "out" / "tax.json").read_text()
    assert record(tmp_path / "out")["pairs"][0]["task"] == HOSTILE.replace("\x1b[31m", "")
    write_rows(files[1], [{"id": f"{HOSTILE}x{i}", "task": HOSTILE, "score": 1} for i in range(4)])
    assert run(*files, "--out", tmp_path / "out") == 2
    assert "\x1b" not in capsys.readouterr().err


def test_a_breach_of_the_gate_is_exit_code_three(
    three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = tmp_path / "gate.yaml"
    gate.write_text("tax.max_significant: '<= .02'\npairs.base.rl.kept.tax: {end: high, at_most: .1}\n")
    assert run(*three, "--out", tmp_path / "out", "--gate", gate, "--quiet") == 3
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "breach: tax.max_significant <= 0.02" in told[0]
    assert (tmp_path / "out" / "tax.json").is_file() and 'failures="1"' in (tmp_path / "out" / "gate.xml").read_text()
    gate.write_text("tax.max_significant: '<= .5'\n")
    assert run(*three, "--out", tmp_path / "out", "--gate", gate, "--quiet") == 0
    gate.write_text("tax.max_significnt: '<= .5'\n")
    assert run(*three, "--out", tmp_path / "out", "--gate", gate, "--quiet") == 2
    assert "nearest are" in capsys.readouterr().err


def test_bad_settings_and_names_are_refused(
    three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*three, "--level", "90", "--out", tmp_path / "out") == 2
    assert "level=90" in capsys.readouterr().err
    assert run(f"x={three[0]}", f"x={three[1]}", "--out", tmp_path / "out") == 2
    assert "'x' comes twice" in capsys.readouterr().err
    assert run(three[0], tmp_path / "none.csv", "--out", tmp_path / "out") == 2
    assert run(three[0]) == 2


def test_stages_get_the_shortest_names_that_tell_them_apart() -> None:
    assert stage_names([(None, "runs/base"), (None, "runs/sft.csv")]) == ["base", "sft"]
    assert stage_names([(None, "base/s.eval"), ("b", "sft/s.eval"), (None, "rl/s.eval")]) == ["base/s", "b", "rl/s"]
    with pytest.raises(AligntaxError, match="comes twice"):
        stage_names([(None, "a.csv"), (None, "a.csv")])
    assert compared(["a", "b"]) == [("a", "b", "adjacent")]
