"""Every attack, killed and resumed: the same numbers, nothing rolled out twice; and what `--plan` says beforehand."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import build_model, build_tokenizer, write_rows

import aligntax.audit.sampler as sampler
from aligntax.cli import main
from aligntax.models import roll_out
from aligntax.probing import ShardStore
from aligntax.results import read_audit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def command(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """An audit of every attack on four requests of each kind; `--out` is left to say."""
    folder = tmp_path_factory.mktemp("inputs")
    build_model("llama", seed=1).save_pretrained(folder / "moved")
    build_tokenizer().save_pretrained(folder / "moved")
    rows = [
        {"prompt": f"{v} {t}?", "harmful": v == "burn"} for t in ("a hat", "tea", "it", "us") for v in ("burn", "mend")
    ]
    write_rows(folder / "p.jsonl", rows)
    return ["audit", str(tiny_folder), str(folder / "moved"), "--size", "demo", "--quiet", "--tasks", "arithmetic", "copying",
            "--attacks", "all", "--safety", str(folder / "p.jsonl")]  # fmt: skip


class Counter:
    """Counts the starts that a model really continues."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.starts = 0
        monkeypatch.setattr(sampler, "roll_out", self)

    def __call__(self, model: Any, starts: list[Any]) -> Any:
        self.starts += len(starts)
        return roll_out(model, starts)


def numbers(out: Path) -> dict[str, Any]:
    """An audit without what tells one run from another."""
    found = json.loads((out / "audit.json").read_text())
    return {key: value for key, value in found.items() if key not in ("timing", "provenance")}


@pytest.fixture(scope="module")
def straight(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A run that nobody disturbed, and how many starts it took."""
    out = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        counter = Counter(patch)
        assert main([*command, "--out", str(out)]) == 0
    return out, counter.starts


def test_every_attack_is_run_and_every_number_has_its_record(straight: tuple[Path, int]) -> None:
    audit = read_audit(straight[0])
    assert {"prefill", "rank-assisted", "refusal-prefix", "multi-turn", "base64", "rot13"} <= {
        a.kind for a in audit.attack
    }
    assert {a.length for a in audit.attack} == {64} and audit.horizon is not None
    assert [q.model for q in audit.quality] == ["base", "aligned"] and all(
        q.samples == 8 * q.prompts for q in audit.quality
    )
    assert {s.name for s in audit.scores} == {"helpful", "harmless", "honest"}
    assert audit.representation is not None and audit.depth is not None and audit.cells is not None
    assert {a.method for a in audit.attack} == {"greedy", "sampled"} and len({a.kind for a in audit.attack}) >= 9
    assert all(a.n > 0 and 0 <= a.success_aligned <= 1 for a in audit.attack if a.success_aligned is not None)
    assert (audit.late is None) == (audit.horizon.tokens is None) and audit.horizon.tried >= audit.horizon.prompts
    assert audit.efficiency is None and audit.shift and audit.kl.longest > 0


@pytest.mark.parametrize("shards", [20])
def test_a_killed_run_resumes_where_it_was_and_ends_with_the_same_numbers(
    shards: int, command: list[str], straight: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter, written, write = Counter(monkeypatch), list[Path](), ShardStore._write

    def killed(path: Path, arrays: Any) -> None:
        write(path, arrays)
        written.append(path)
        if len(written) == shards:
            raise KeyboardInterrupt

    monkeypatch.setattr(ShardStore, "_write", staticmethod(killed))
    assert main([*command, "--out", str(tmp_path)]) != 0 and not (tmp_path / "audit.json").exists()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    assert len(before) == shards and 0 < counter.starts < straight[1]
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert counter.starts == straight[1]  # what was finished before the kill was not rolled out again
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert numbers(tmp_path) == numbers(straight[0])
    assert {p.name for p in (tmp_path / "shards").iterdir()} == {p.name for p in (straight[0] / "shards").iterdir()}


def test_a_finished_run_reads_everything_back(
    command: list[str], straight: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(straight[0], tmp_path / "again")
    counter = Counter(monkeypatch)
    monkeypatch.setattr(ShardStore, "_write", lambda *_: pytest.fail("a shard was made again"))
    assert main([*command, "--out", str(out)]) == 0
    assert counter.starts == 0 and numbers(out) == numbers(straight[0])


def test_the_plan_starts_nothing_and_bounds_what_is_then_done(
    command: list[str], straight: tuple[Path, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--plan", "--out", str(tmp_path / "none")]) == 0
    shown = capsys.readouterr().out
    assert not (tmp_path / "none").exists() and "Nothing was started" in shown and "memory: weights" in shown
    planned: dict[str, int] = {}
    for line in shown.splitlines():
        cells = [cell.strip() for cell in line.strip("│ ").split("│")]
        if len(cells) == 3 and cells[1].replace(",", "").isdigit():
            planned[cells[0]] = int(cells[1].replace(",", ""))
    used: dict[str, int] = {}
    for phase in read_audit(straight[0]).timing:
        name = phase.name.partition(" (")[0]
        used[name] = used.get(name, 0) + phase.tokens
    used["states and projections"] = used.pop("states") + used.pop("projections")
    total = planned.pop("all, at most")
    assert sum(planned.values()) == total and set(used) <= set(planned)
    for name, tokens in used.items():
        assert 0 < tokens <= planned[name], name
    for exact in ("tasks", "preferences"):
        assert used[exact] == planned[exact]
