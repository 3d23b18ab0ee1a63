"""Replies that a user wrote are what is learnt; prompts without one keep the written refusal or the model's own answer."""

import pytest
from conftest import write_rows

from aligntax.cli import main
from aligntax.commands import alignment_trainer
from aligntax.data import write_refusal
from aligntax.results import read_align

pytest.importorskip("trl")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

BAD, GOOD = [f"burn {thing}" for thing in "abcd"], [f"mend {thing}" for thing in "abcd"]
WRITTEN = "No. I keep things whole."
SHOWN = "First find the part that is loose, then turn it back and wait until it holds again."


@pytest.fixture
def requests(tmp_path):
    rows = [{"prompt": p, "harmful": p in BAD} for p in (*BAD, *GOOD)]
    rows[0]["completion"] = WRITTEN
    rows[4]["messages"] = [{"role": "user", "content": GOOD[0]}, {"role": "assistant", "content": SHOWN}]
    return write_rows(tmp_path / "requests.jsonl", rows)


@pytest.fixture
def learnt(tiny_folder, requests, survey_files, tmp_path, monkeypatch):
    """Align with more arguments; returns the rows that the trainer was given."""
    made, found = alignment_trainer.make_trainer, []

    def watched(method, args, parts, *more):
        found.extend((parts[1], row) for row in parts[2])
        return made(method, args, parts, *more)

    def call(*more):
        monkeypatch.setattr(alignment_trainer, "make_trainer", watched)
        words = ["align", str(tiny_folder), "--out", str(tmp_path / "out"), "--safety", str(requests), "--tasks",
                 str(survey_files.words), "--steps", "1", "--batch", "2", "--completion-tokens", "4", "--protect-items", "4",
                 "--quiet", *more]  # fmt: skip
        assert main(words) == 0
        return found

    return call


def test_supervised_rows_end_with_what_was_written(learnt, tmp_path):
    said = {}
    for tokenizer, row in learnt():
        start = row["labels"].count(-100)
        prompt, reply = (tokenizer.decode(ids) for ids in (row["input_ids"][:start], row["input_ids"][start:]))
        said[next((p for p in (*BAD, *GOOD) if p in prompt), prompt)] = reply
    assert (
        said[BAD[0]] == f"{WRITTEN}<eos>" and said[GOOD[0]] == f"{SHOWN}<eos>"
    )  # longer than the model's own would be
    assert all(said[prompt] == f"{write_refusal(prompt)}<eos>" for prompt in BAD[1:])
    assert not any(SHOWN in reply for prompt, reply in said.items() if prompt != GOOD[0])
    assert read_align(tmp_path / "out").counts["refusals"] == 4


def test_pairs_choose_what_was_written(learnt):
    chosen = {
        row["prompt"][-1]["content"]: row["chosen"][0]["content"]
        for _, row in learnt("--method", "dpo", "--harmless-pairs")
    }
    assert chosen[BAD[0]] == WRITTEN and chosen[GOOD[0]] == SHOWN and chosen[BAD[1]] == write_refusal(BAD[1])
