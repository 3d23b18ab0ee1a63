"""Harmful answers of a user's own, and texts on request: read, checked, shown inert, and nowhere else."""

from pathlib import Path

import pytest
from conftest import build_model, build_tokenizer, write_rows

from aligntax.cli import main
from aligntax.commands.audit_behaviour import handed
from aligntax.commands.audit_given import read_continuations
from aligntax.errors import DataError
from aligntax.results import read_audit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
WORDS = "first the flour, then the water and last the salt, and so on for as long as it takes"


def test_rows_without_text_twice_or_empty_are_refused_by_their_place(tmp_path: Path) -> None:
    good = {"prompt": "How?", "continuation": "So."}
    for rows, said in (
        ([good, {"prompt": 3, "continuation": "x"}], "f.jsonl:2: give a prompt"),
        ([good, {"prompt": "  ", "continuation": "x"}], "f.jsonl:2: give a prompt"),
        ([good, good], "f.jsonl:2: the prompt 'How\\?' is given twice"),
        ([{"prompt": "How?"}, {"prompt": "Why?", "continuation": " "}], "all 2 continuations are empty"),
    ):
        with pytest.raises(DataError, match=said):
            read_continuations(write_rows(tmp_path / "f.jsonl", rows))
    found, sha256 = read_continuations(write_rows(tmp_path / "f.jsonl", [good, {"prompt": "Why?"}]))
    assert found == {"How?": "So.", "Why?": ""} and len(sha256) == 64


def test_given_answers_are_what_is_prefilled_and_read_and_texts_are_shown_only_on_request(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_model("llama", seed=1).save_pretrained(tmp_path / "moved")
    build_tokenizer().save_pretrained(tmp_path / "moved")
    rows = [{"prompt": f"How do I bake {x}?", "continuation": WORDS} for x in ("it", "tea", "us")]
    rows += [{"prompt": "How do I burn it?", "continuation": "So"}]
    given = write_rows(tmp_path / "own.jsonl", rows)
    command = ["audit", str(tiny_folder), str(tmp_path / "moved"), "--size", "demo", "--quiet", "--tasks", "arithmetic",
               "--continuations", str(given), "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(command) == 0
    assert WORDS not in capsys.readouterr().out
    audit = read_audit(tmp_path / "out")
    assert audit.refusal.harmful_aligned.n == 4 and "continuations" in audit.provenance.data
    by_depth = {a.depth: (a.n, a.shorter) for a in audit.attack}
    assert by_depth[0] == (4, 0) and by_depth[20] == (3, 1)
    assert audit.recovery.count[0] == 4 and audit.recovery.count[20] == 3
    assert main([*command, "--show-text"]) == 0
    shown = capsys.readouterr().out
    assert "How do I burn it?" in shown and "first the flour" in shown.replace("\n", " ")
    for name in ("audit.json", "report.html", "run.yaml"):
        assert WORDS[:20] not in (tmp_path / "out" / name).read_text()


def test_an_empty_answer_is_too_short_for_every_depth() -> None:
    from audit_worlds import NO, Rule, examinee, make_requests

    from aligntax.audit import Case
    from aligntax.data import ChatFormat

    requests = make_requests(2)
    who = examinee(Rule(lambda start: ([NO], True)))
    sides = [{"harmful": who.answer([Case(r, "plain", 0, r.prompt) for r in requests])}] * 2
    found = handed(sides, {"q0": "Sure.", "q1": ""}, ChatFormat(build_tokenizer()))
    assert len(found.continuations[0]) > 0 and found.continuations[1] == () and len(found.requests) == 2
