"""Evaluation logs of other tools: what is read, what is refused, what is paired."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_rows
from hypothesis import given
from hypothesis import strategies as st

from aligntax.data import inspect_log
from aligntax.data.scores import ScoreLog, pair_tasks, read_scores
from aligntax.data.task_scores import TaskScores, as_id, as_score
from aligntax.errors import DataError

DATE = "2026-01-02T03-04-05.678901"


def sample(doc_id: int, right: bool = True, **more: object) -> dict[str, object]:
    """A line of a samples file as lm-eval 0.4.13 writes it, for a question of three choices whose gold is the second."""
    return {
        "doc_id": doc_id,
        "doc": {"q": "text"},
        "target": "1",
        "arguments": {f"gen_args_{k}": {"arg_0": "q", "arg_1": f" c{k}"} for k in range(3)},
        "resps": [[["-3.0", "False"]], [["-1.5", "True"]], [["-2.0", "False"]]],
        "filtered_resps": [["-3.0", "False"], ["-1.5", "True"], ["-2.0", "False"]],
        "filter": "none",
        "metrics": ["acc", "acc_norm"],
        "doc_hash": f"doc{doc_id}",
        "prompt_hash": f"prompt{doc_id}",
        "acc": float(right),
        "acc_norm": 0.0,
        **more,
    }


def harness_folder(folder: Path, rows: list[dict[str, object]], task: str = "sums", date: str = DATE) -> Path:
    """A folder as `lm-eval --log_samples` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / f"samples_{task}_{date}.jsonl", rows)
    return folder


def log_of(*tasks: TaskScores) -> ScoreLog:
    return ScoreLog("here", "rows", {task.task: task for task in tasks}, "", ())


class TestTables:
    def test_ids_tasks_and_scores_of_every_format_agree(self, tmp_path: Path) -> None:
        rows = [{"id": k, "task": "ab"[k % 2], "score": k / 7} for k in range(6)]
        files = [
            write_rows(tmp_path / "s.jsonl", rows),
            tmp_path / "s.json",
            tmp_path / "s.csv",
            tmp_path / "s.parquet",
        ]
        files[1].write_text(json.dumps(rows))
        files[2].write_text("id,task,score\n" + "".join(f"{r['id']},{r['task']},{r['score']!r}\n" for r in rows))
        pq.write_table(pa.Table.from_pylist(rows), files[3])
        read = [read_scores(file) for file in files]
        assert [log.kind for log in read] == ["rows"] * 4
        assert all(log.tasks == read[0].tasks for log in read)
        assert read[0].tasks["b"].scores == {"1": 1 / 7, "3": 3 / 7, "5": 5 / 7}
        assert len({log.sha256 for log in read}) == 4

    def test_without_a_task_column_there_is_one_task(self, tmp_path: Path) -> None:
        log = read_scores(write_rows(tmp_path / "s.jsonl", [{"id": "x", "score": True}, {"id": "y", "score": False}]))
        assert {name: task.scores for name, task in log.tasks.items()} == {"all": {"x": 1.0, "y": 0.0}}

    def test_our_own_items_average_over_formats(self, tmp_path: Path) -> None:
        columns = {
            "task": ["t"] * 4,
            "format": ["f", "f", "g", "g"],
            "item": ["a", "b", "a", "b"],
            "group": [0, 1, 0, 1],
            "value": [-1.0, -2.0, -3.0, -6.0],
        }
        pq.write_table(pa.table(columns), tmp_path / "items.parquet")
        log = read_scores(tmp_path)
        assert (log.kind, log.tasks["t"].formats, log.tasks["t"].scores) == ("items", 2, {"a": -2.0, "b": -4.0})

    def test_choices_are_kept_by_format(self, tmp_path: Path) -> None:
        rows = [{"id": k, "format": f, "score": 1, "choices": [-1.0 - k, -2]} for k in range(3) for f in "pq"]
        task = read_scores(write_rows(tmp_path / "s.jsonl", rows)).tasks["all"]
        assert task.choices["q"]["2"] == (-3.0, -2.0) and set(task.choices) == {"p", "q"}

    def test_rows_without_a_score_are_counted_not_zero(self, tmp_path: Path) -> None:
        log = read_scores(write_rows(tmp_path / "s.jsonl", [{"id": 1, "score": 1}, {"id": 2, "score": None}]))
        assert log.tasks["all"].scores == {"1": 1.0} and "1 rows without a score" in log.notes[0]

    @pytest.mark.parametrize(
        ("rows", "said"),
        [
            ([{"score": 1}], r"s.jsonl:1: no id \(found: score\)"),
            ([{"id": 1, "score": 1}, {"id": "1", "score": 0}], "s.jsonl:2: task 'all' holds the id '1' twice"),
            ([{"id": "a", "score": "good"}], "s.jsonl:1: item 'a' has the score 'good'"),
            ([{"id": "a", "score": float("nan")}], "item 'a' has the score nan"),
            ([{"id": "a", "score": 1, "choices": [-1]}], "two or more log-probabilities"),
            ([{"id": "a", "score": None}], "no item has a score"),
            ([{"id": "a", "score": 1, "format": "f"}, {"id": "b", "score": 1, "format": "g"}], "not in every format"),
            ([], "holds no rows"),
        ],
    )
    def test_bad_tables_are_refused(self, rows: list[dict[str, object]], said: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=said):
            read_scores(write_rows(tmp_path / "s.jsonl", rows))

    @given(
        st.one_of(st.floats(), st.booleans(), st.text(max_size=5), st.none(), st.integers(), st.lists(st.integers()))
    )
    def test_a_score_is_finite_or_nothing(self, value: object) -> None:
        score = as_score(value)
        assert score is None or (isinstance(score, float) and np.isfinite(score))
        if isinstance(value, int) and abs(value) < 2**53:
            assert score == value

    def test_ids_are_text(self) -> None:
        assert [as_id(v) for v in (3, 3.0, "3", 3.5, True, None, "  ")] == ["3", "3", "3", None, None, None, None]


class TestHarness:
    def test_samples_give_scores_choices_and_fingerprints(self, tmp_path: Path) -> None:
        log = read_scores(harness_folder(tmp_path, [sample(0), sample(1, False)]))
        task = log.tasks["sums"]
        assert (log.kind, task.metric, task.scores) == ("lm-eval", "acc", {"0": 1.0, "1": 0.0})
        assert task.choices["as logged"]["0"] == (-1.5, -3.0, -2.0)  # gold first, the others in order
        assert (task.contents["1"], task.prompts["1"]) == ("doc1", "prompt1")

    def test_the_metric_asked_for_is_read(self, tmp_path: Path) -> None:
        folder = harness_folder(tmp_path, [sample(0), sample(1)])
        assert read_scores(folder, ("f1", "acc_norm")).tasks["sums"].scores == {"0": 0.0, "1": 0.0}
        with pytest.raises(DataError, match="none of bleu, but acc, acc_norm"):
            read_scores(folder, ("bleu",))

    def test_a_metric_that_falls_when_better_is_turned(self, tmp_path: Path) -> None:
        rows = [sample(k, metrics=["wer"], wer=0.25 * k) for k in range(3)]
        harness_folder(tmp_path, rows)
        (tmp_path / f"results_{DATE}.json").write_text(json.dumps({"higher_is_better": {"sums": {"wer": False}}}))
        log = read_scores(tmp_path)
        assert log.tasks["sums"].scores["2"] == -0.5 and "sign is turned" in log.notes[0]

    def test_filters_are_tasks_of_their_own(self, tmp_path: Path) -> None:
        rows = [sample(k, filter=f, acc=float(f == "loose")) for f in ("strict", "loose") for k in range(2)]
        tasks = read_scores(harness_folder(tmp_path, rows)).tasks
        assert {name: list(task.scores.values()) for name, task in tasks.items()} == {
            "sums/strict": [0.0, 0.0],
            "sums/loose": [1.0, 1.0],
        }

    def test_the_newest_run_counts(self, tmp_path: Path) -> None:
        harness_folder(tmp_path / "m", [sample(0), sample(1)], date="2026-01-01T00-00-00.1")
        harness_folder(tmp_path / "m", [sample(0, False), sample(1, False)], date="2026-01-03T00-00-00.1")
        log = read_scores(tmp_path)
        assert log.tasks["sums"].scores == {"0": 0.0, "1": 0.0} and "1 sample files of older runs" in log.notes[0]

    def test_a_label_for_gold_is_found_among_the_choices(self, tmp_path: Path) -> None:
        rows = [sample(0, target="c2"), sample(1, target="elsewhere")]
        choices = read_scores(harness_folder(tmp_path, rows)).tasks["sums"].choices["as logged"]
        assert choices == {"0": (-2.0, -3.0, -1.5)}

    def test_several_models_and_repeats_are_refused(self, tmp_path: Path) -> None:
        harness_folder(tmp_path / "two" / "m1", [sample(0)])
        harness_folder(tmp_path / "two" / "m2", [sample(0)])
        with pytest.raises(DataError, match="several models"):
            read_scores(tmp_path / "two")
        with pytest.raises(DataError, match=r"samples_sums.*:2: task 'sums' holds the doc_id '0' twice"):
            read_scores(harness_folder(tmp_path / "one", [sample(0), sample(0)]))

    def test_damage_is_named_by_line(self, tmp_path: Path) -> None:
        folder = harness_folder(tmp_path, [sample(0)])
        file = next(folder.glob("*.jsonl"))
        file.write_text(file.read_text() + '{"doc_id": 1,')
        with pytest.raises(DataError, match=r"jsonl:2: not valid JSON"):
            read_scores(folder)

    def test_size_is_capped(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="above the limit of 100"):
            read_scores(harness_folder(tmp_path, [sample(0)]), limit=100)


class TestArchives:
    def test_an_archive_that_unpacks_large_is_refused_before_it_is_unpacked(self, tmp_path: Path) -> None:
        file = tmp_path / "bomb.eval"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("summaries.json", b"0" * 1_000_000)
        assert file.stat().st_size < 10_000
        with pytest.raises(DataError, match="unpacks to 1000000 bytes, above the limit of 20000"):
            read_scores(file, limit=20_000)

    def test_what_is_no_archive_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "x.eval").write_text("not a zip")
        with pytest.raises(DataError, match=r"not a readable \.eval log"):
            read_scores(tmp_path / "x.eval")

    def test_without_inspect_the_error_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with zipfile.ZipFile(tmp_path / "x.eval", "w") as archive:
            archive.writestr("header.json", "{}")
        monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
        with pytest.raises(DataError, match="pip install inspect-ai"):
            read_scores(tmp_path / "x.eval")

    def test_epochs_are_averaged_and_what_is_no_number_is_left_out(self) -> None:
        class Score:
            def __init__(self, value: object) -> None:
                self.value = value

        class Sample:
            def __init__(self, key: str, epoch: int, value: object) -> None:
                self.id, self.epoch, self.scores = key, epoch, {"judge": Score(value)}

        samples = [Sample("a", 1, "C"), Sample("a", 2, "P"), Sample("b", 1, "I"), Sample("b", 2, "perhaps")]
        task, notes = inspect_log._task("t", samples, ())
        assert task.scores == {"a": 0.75} and notes == ["t: 1 samples without all scores are left out"]
        with pytest.raises(DataError, match="'a' has no id of its own"):
            inspect_log._task("t", [samples[0], samples[0]], ())


class TestPairing:
    def test_an_item_of_one_log_alone_is_named_or_left_out_and_counted(self) -> None:
        one = log_of(TaskScores("t", "acc", {"a": 1, "b": 0, "c": 1}))
        two = log_of(TaskScores("t", "acc", {"a": 1, "b": 0, "x": 1}))
        with pytest.raises(DataError, match=r"task 't': item 'c' is scored before but not after \(1 of 3"):
            pair_tasks(one, two)
        pair = pair_tasks(one, two, common=True)["t"]
        assert (list(pair.before.scores), list(pair.after.scores), pair.left_out) == (["a", "b"], ["a", "b"], 2)
        assert "2 items" in pair.notes[0]

    def test_order_of_items_does_not_matter(self) -> None:
        one, two = TaskScores("t", "acc", {"a": 1, "b": 0}), TaskScores("t", "acc", {"b": 0.5, "a": 0.25})
        assert list(pair_tasks(log_of(one), log_of(two))["t"].after.scores.items()) == [("a", 0.25), ("b", 0.5)]

    def test_another_document_under_the_same_id_is_refused_even_where_missing_ones_are_not(self) -> None:
        one = TaskScores("t", "acc", {"a": 1, "b": 0}, contents={"a": "h1", "b": "h2"})
        two = TaskScores("t", "acc", {"a": 1, "b": 0}, contents={"a": "h1", "b": "h3"})
        with pytest.raises(DataError, match="item 'b' is another document"):
            pair_tasks(log_of(one), log_of(two), common=True)

    def test_other_prompts_are_told(self) -> None:
        one = TaskScores("t", "acc", {"a": 1, "b": 0}, prompts={"a": "h1", "b": "h2"})
        two = TaskScores("t", "acc", {"a": 1, "b": 0}, prompts={"a": "h1", "b": "h3"})
        assert "prompts of 1 of 2" in pair_tasks(log_of(one), log_of(two))["t"].notes[0]

    @pytest.mark.parametrize(
        ("after", "common", "said"),
        [
            (TaskScores("t", "f1", {"a": 1, "b": 0}), False, "scored by acc before and f1 after"),
            (TaskScores("u", "acc", {"a": 1, "b": 0}), False, "task 't' is in before"),
            (TaskScores("u", "acc", {"a": 1, "b": 0}), True, "share no task"),
            (TaskScores("t", "acc", {"a": 1, "x": 0}), True, "1 items are in both"),
        ],
    )
    def test_what_cannot_be_paired_says_so(self, after: TaskScores, common: bool, said: str) -> None:
        with pytest.raises(DataError, match=said):
            pair_tasks(log_of(TaskScores("t", "acc", {"a": 1, "b": 0})), log_of(after), common)


def test_a_folder_that_is_no_log_and_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no samples_"):
        read_scores(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_scores(tmp_path / "none")
