"""Replies that a user wrote are what is learnt; prompts without one keep the written refusal or the model's own answer."""

import pytest
from conftest import write_rows

from aligntax.cli import main
from aligntax.commands import alignment_trainer
from aligntax.commands.align import AlignCommand
from aligntax.commands.alignment_reads import look_alikes_of_a_run
from aligntax.commands.alignment_texts import load_requests, refusals
from aligntax.data import look_alikes, plain_pairs, request_categories, write_refusal
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


def test_pairs_are_refused_and_answered_beside_builtin_requests_and_only_answered_beside_a_users(requests):
    twins, plain = look_alikes(), plain_pairs()
    both, without = load_requests("harmlessness", 400), load_requests("harmlessness", 0)
    assert {*both.harmful} - {*without.harmful} == {*twins.positive, *plain.positive} and len(twins.positive) == 260
    assert {*both.alarming} - {*without.alarming} == {*twins.negative}
    assert {*both.harmless} - {*without.harmless} == {*plain.negative}
    given = load_requests(str(requests), 1000)
    assert given.harmful == tuple(BAD) and {*twins.negative} < {*given.alarming}
    assert not {*plain.negative} & {*given.harmless}
    assert {*load_requests(str(requests), 0).sources} == {str(requests)} < {*given.sources}


def test_a_run_takes_a_quarter_as_many_pairs_of_either_kind_as_it_reads_rows():
    def wanted(**more):
        return look_alikes_of_a_run(AlignCommand("m", look_alikes=True, **more))

    assert [wanted(steps=n) for n in (1, 60, 1000)] == [2, 120, len(plain_pairs().negative)] and look_alikes_of_a_run(
        AlignCommand("m")
    ) == 0
    few, twins, plain = load_requests("harmlessness", 40), look_alikes(), plain_pairs()
    places = [twins.negative.index(prompt) for prompt in few.alarming[-40:]]
    assert (
        places
        == [twins.positive.index(prompt) for prompt in few.harmful[-80:-40]]
        == [k * 260 // 40 for k in range(40)]
    )
    assert [plain.positive.index(prompt) for prompt in few.harmful[-40:]] == [
        k * len(plain.positive) // 40 for k in range(40)
    ]


def test_a_plain_pair_is_refused_for_the_reason_of_its_kind():
    kinds, plain = request_categories(), plain_pairs()
    assert {kinds[prompt] for prompt in plain.positive} > {"fraud", "weapons", "hate"}
    assert all(
        own == write_refusal(p, kinds[p]) for p, own in zip(plain.positive, refusals(plain.positive), strict=True)
    )
    assert any(own != write_refusal(p) for p, own in zip(plain.positive, refusals(plain.positive), strict=True))


@pytest.mark.parametrize("more", [(), ("--depth", "augmentation"), ("--method", "dpo"), ("--method", "reward")])
def test_the_model_is_tempted_only_where_its_answers_are_read(more, learnt, tmp_path):
    learnt(*more)
    counts = read_align(tmp_path / "out").counts
    assert counts.get("harmful continuations", 0) > 0 if more else "harmful continuations" not in counts
    shards = {path.name.rpartition("-")[0] for path in (tmp_path / "out" / "state").rglob("said-*")}
    assert ("said-harmful" in shards) == bool(more) and "said-anchors" in shards


def test_replies_to_the_other_prompts_are_kept_when_the_look_alikes_change(learnt, tmp_path):
    texts = tmp_path / "texts"
    learnt("--texts", str(texts))
    before = {path.name for path in texts.rglob("said-*")}
    learnt("--texts", str(texts), "--look-alikes", "--overwrite")
    added = {path.name for path in texts.rglob("said-*")} - before
    assert before and {name.rpartition("-")[0] for name in added} == {"said-anchors-alike"}


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
