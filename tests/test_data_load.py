"""Tasks from every source: what is read, what is mended with a note, and what is refused with its line."""

import csv
import hashlib
import json
import math
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_data_chat import make_tokenizer

from aligntax.data import (
    BUILTIN_TASKS,
    FORMATS,
    ChatFormat,
    Item,
    Task,
    clean_text,
    encode_task,
    load_task,
    load_tasks,
)
from aligntax.errors import DataError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "tasks"
CHOICES = [{"prompt": f"Is {n} odd?", "choices": ["yes", "no"], "gold": (n + 1) % 2} for n in range(4)]
ANSWERS = [{"prompt": f"{n} + 1 =", "answer": f" {n + 1}"} for n in range(4)]
AS_ITEMS = tuple(Item(row["prompt"], choices=("yes", "no"), gold=row["gold"]) for row in CHOICES)


def lines(path: Path, rows: Iterable[Any]) -> str:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return str(path)


def table(path: Path, rows: list[list[str]]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def refusal(spec: str) -> str:
    with pytest.raises(DataError) as caught:
        load_task(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_file_kind_gives_the_same_items(tmp_path: Path) -> None:
    whole = tmp_path / "whole.json"
    whole.write_text("\ufeff" + json.dumps(CHOICES))
    listed = [
        ["prompt", "choices", "gold"],
        *([r["prompt"], json.dumps(r["choices"]), str(r["gold"])] for r in CHOICES),
    ]
    apart = [
        ["prompt", "choice_0", "choice_1", "gold"],
        *([r["prompt"], *r["choices"], str(r["gold"])] for r in CHOICES),
    ]
    pq.write_table(pa.Table.from_pylist(CHOICES), tmp_path / "columns.parquet")
    specs = [
        lines(tmp_path / "lines.jsonl", CHOICES),
        str(whole),
        table(tmp_path / "listed.csv", listed),
        table(tmp_path / "apart.csv", apart),
        str(tmp_path / "columns.parquet"),
    ]
    tasks = load_tasks(specs)
    assert [task.name for task in tasks] == ["lines", "whole", "listed", "apart", "columns"]
    for spec, task in zip(specs, tasks, strict=True):
        assert (task.items, task.kind, task.notes, task.chance) == (AS_ITEMS, "choices", (), 0.5)
        assert task.sha256 == hashlib.sha256(Path(spec).read_bytes()).hexdigest()
        assert task.source == spec


def test_answers_and_winograd_prompts(tmp_path: Path) -> None:
    answers = load_task(lines(tmp_path / "sums.jsonl", ANSWERS))
    assert answers.kind == "answer" and math.isnan(answers.chance)
    assert answers.items[0] == Item("0 + 1 =", " 1")
    assert load_task(table(tmp_path / "s.csv", [["prompt", "answer"], ["0 + 1 =", " 1"]])).items == answers.items[:1]
    row = {"prompts": ["a cup", "a case", "a box"], "gold": 2, "answer": "fell"}
    winograd = load_task(lines(tmp_path / "w.jsonl", [row]))
    assert (winograd.kind, winograd.chance) == ("choices", 1 / 3)
    assert winograd.items == (Item("", "fell", gold=2, prompts=("a cup", "a case", "a box")),)


def test_parquet_gold_as_float_and_gaps(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"prompt": ["a"], "answer": [None], "choices": [["x", "y"]], "gold": [1.0]}), path)
    assert load_task(str(path)).items == (Item("a", choices=("x", "y"), gold=1),)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"prompt": "a"', r"f.jsonl:3: not valid JSON"),
        ('["a"]', r"f.jsonl:3: a row is a JSON object"),
        ('{"prompt": "a"}', r"f.jsonl:3: neither answer nor choices"),
        ('{"answer": "a"}', r"f.jsonl:3: no prompt (found: answer)"),
        ('{"prompt": "a", "answer": ""}', r"f.jsonl:3: the answer is empty"),
        ('{"prompt": "a", "answer": "\\u0007"}', r"f.jsonl:3: the answer is empty"),
        ('{"prompt": 3, "answer": "b"}', r"f.jsonl:3: prompt is 3; write it as text"),
        ('{"prompt": "a", "answer": 3}', r"f.jsonl:3: answer is 3; write it as text"),
        ('{"prompt": "a", "answer": "b", "choices": ["b", "c"], "gold": 0}', r"f.jsonl:3: both answer and choices"),
        ('{"prompt": "a", "choices": ["b", "c"]}', r"f.jsonl:3: choices without gold"),
        (
            '{"prompt": "a", "choices": ["b", "c"], "gold": 2}',
            r"f.jsonl:3: gold is 2 but there are 2 choices; give 0 to 1",
        ),
        ('{"prompt": "a", "choices": ["b", "c"], "gold": -1}', r"f.jsonl:3: gold is -1"),
        ('{"prompt": "a", "choices": ["b", "c"], "gold": "B"}', r"f.jsonl:3: gold is 'B'"),
        ('{"prompt": "a", "choices": ["b", "c"], "gold": true}', r"f.jsonl:3: gold is True"),
        ('{"prompt": "a", "choices": ["b", "c"], "gold": NaN}', r"f.jsonl:3: gold is nan"),
        ('{"prompt": "a", "choices": ["b", "c"], "gold": Infinity}', r"f.jsonl:3: gold is inf"),
        ('{"prompt": "a", "choices": ["b"], "gold": 0}', r"f.jsonl:3: 1 choices; give at least two"),
        (
            '{"prompt": "a", "choices": ["b", "b"], "gold": 0}',
            r"f.jsonl:3: the right one of choices, 'b', is given twice",
        ),
        ('{"prompt": "a", "choices": ["b", ""], "gold": 0}', r"f.jsonl:3: one of the choices is empty"),
        ('{"prompt": "a", "choices": "bc", "gold": 0}', r"f.jsonl:3: choices is 'bc'; give a list"),
        ('{"prompt": "a", "choices": ["b", 4], "gold": 0}', r"f.jsonl:3: choices[1] is 4"),
        ('{"prompt": "a", "choice_0": "b", "choice_2": "c", "gold": 0}', r"f.jsonl:3: columns choice_0, choice_2"),
        ('{"prompts": ["a", "b"], "gold": 0}', r"f.jsonl:3: prompts without an answer"),
        ('{"prompt": "a", "answer": "b", "gold": 0}', r"f.jsonl:3: gold without choices"),
        ("[" * 100_000, r"f.jsonl:3: not "),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(tmp_path: Path, row: str, reason: str) -> None:
    assert reason in refusal(lines(tmp_path / "f.jsonl", [*ANSWERS[:1], "", row, *ANSWERS]))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(str(tmp_path / "none.jsonl"))
    assert "cannot be read" in refusal(str(tmp_path / "d.jsonl")[: -len("d.jsonl")] + "gone/x.csv")
    for kind in ("jsonl", "json", "csv", "parquet"):
        empty = tmp_path / f"empty.{kind}"
        empty.touch()
        assert "holds no rows" in refusal(str(empty))
    assert "holds no rows" in refusal(table(tmp_path / "head.csv", [["prompt", "answer"]]))
    (tmp_path / "f.txt").write_text("x")
    assert "unknown kind of file; give one of .jsonl" in refusal(str(tmp_path / "f.txt"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    assert "bad.parquet: not a readable Parquet file" in refusal(str(tmp_path / "bad.parquet"))
    (tmp_path / "one.json").write_text('{"prompt": "a", "answer": "b"}')
    assert "holds one dict" in refusal(str(tmp_path / "one.json"))
    assert "unknown task 'no-such-task'" in refusal("no-such-task")


def test_invalid_utf8_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"prompt": "a", "answer": "b"}\n{"prompt": "caf\xe9", "answer": "b"}\n')
    assert "latin.jsonl:2: not valid UTF-8" in refusal(str(path))
    path = tmp_path / "wide.csv"
    path.write_bytes("prompt,answer\na,b\n".encode("utf-16"))
    assert "wide.csv:1: not valid UTF-8" in refusal(str(path))


def test_csv_lines_count_quoted_newlines(tmp_path: Path) -> None:
    rows = [["prompt", "choices", "gold"], ["a\nb", '["x", "y"]', "0"], ["c", "[x", "0"]]
    assert "f.csv:4, column choices: not valid JSON" in refusal(table(tmp_path / "f.csv", rows))
    (tmp_path / "g.csv").write_text("prompt,answer\na,b\nc,d,e\n")
    assert "g.csv:3: 3 cells under 2 columns" in refusal(str(tmp_path / "g.csv"))
    (tmp_path / "h.csv").write_text('prompt,answer\na,"b\n')
    assert "h.csv:2: not valid CSV" in refusal(str(tmp_path / "h.csv"))


def test_line_separators_inside_text_are_not_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps({"prompt": "a\u2028b\x85", "answer": "c"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert load_task(str(path)).items[0].prompt == "a\u2028b"


def test_duplicates_and_control_characters_are_noted(tmp_path: Path) -> None:
    turned = {"prompt": "Is 1 odd?", "choices": ["no", "yes"], "gold": 1}
    dirty = {"prompt": "\x1b[1mIs\x1b[0m 9 odd\x07?", "choices": ["yes", "no"], "gold": 0}
    task = load_task(lines(tmp_path / "f.jsonl", [*CHOICES, turned, CHOICES[0], dirty]))
    assert len(task.items) == 5 and task.items[-1].prompt == "Is 9 odd?"
    assert task.notes == ("2 duplicate rows dropped", "3 control characters stripped from text")


@pytest.mark.parametrize(
    ("text", "clean", "count"),
    [
        ("a\tb\nc", "a\tb\nc", 0),
        ("a\r\nb\r", "a\nb", 1),
        ("\x1b]0;title\x07x\x1b]8;;u\x1b\\y", "xy", 2),
        ("\x1b[38;5;1mred\x1b[0m", "red", 2),
        ("\x00\x7f\x9b\ud800", "", 4),
        ("👩‍👧 é\u200f", "👩‍👧 é\u200f", 0),
    ],
)
def test_clean_text(text: str, clean: str, count: int) -> None:
    assert clean_text(text) == (clean, count)


def test_a_lone_surrogate_in_json_does_not_break_identity(tmp_path: Path) -> None:
    task = load_task(lines(tmp_path / "f.jsonl", ['{"prompt": "a\\ud800", "answer": "b"}']))
    assert task.items[0].key == Item("a", "b").key


def test_keys_follow_content_and_nothing_else() -> None:
    one = Item("p", choices=("a", "b", "c"), gold=0)
    assert one.key == Item("p", choices=("c", "a", "b"), gold=1).key
    others = [
        Item("p", choices=("a", "b", "c"), gold=1),
        Item("p", "a"),
        Item("p", "b"),
        Item("q", "a"),
        Item("", "p", gold=0, prompts=("a", "b")),
    ]
    assert len({item.key for item in [one, *others]}) == 6
    assert len(one.key) == 64


def test_names_are_mended_and_told(tmp_path: Path) -> None:
    spec = lines(tmp_path / "Old English (v2).jsonl", ANSWERS)
    task = load_task(spec)
    assert task.name == "old-english-v2"
    assert task.notes == ("renamed from 'Old English (v2)' to 'old-english-v2'",)
    names = [task.name for task in load_tasks([spec, f"sums={spec}", spec, f"sums={spec}", f"{'x' * 70}={spec}"])]
    assert names == ["old-english-v2", "sums", "old-english-v2-2", "sums-2", "x" * 64]
    assert load_tasks([spec, spec])[1].notes[-1].endswith("the name was taken")
    assert load_task(f"漢字={spec}").name == "unnamed"


def test_an_equals_sign_in_a_path_is_not_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "run=1"
    folder.mkdir()
    assert load_task(lines(folder / "a=b.jsonl", ANSWERS)).name == "a-b"


def test_mixed_kinds_are_refused(tmp_path: Path) -> None:
    assert "1 items with choices and 4 with answers" in refusal(lines(tmp_path / "f.jsonl", [*ANSWERS, CHOICES[0]]))


def test_builtin_tasks_load_by_name() -> None:
    names = BUILTIN_TASKS()
    assert list(names) == sorted(names)
    if not names:
        pytest.skip("the built-in tasks are not in this checkout")
    for task in load_tasks(names):
        assert task.source == f"builtin:{task.name}" and task.notes == ()


def test_hub_datasets_from_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    pytest.importorskip("datasets")
    folder = tmp_path / "quiz"
    folder.mkdir()
    listed = {"text": ["yes", "no"], "label": ["A", "B"]}
    rows = [{"question": r["prompt"], "choices": listed, "answerKey": "AB"[r["gold"]]} for r in CHOICES]
    lines(folder / "train.jsonl", rows)
    task = load_task(f"hf:{folder}::train")
    assert (task.name, task.items) == ("quiz", AS_ITEMS)
    assert task.sha256 != "" and task.source == f"hf:{folder}::train"
    assert load_task(f"mine=hf:{folder}:default:train").name == "mine"
    assert "cannot be loaded" in refusal(f"hf:{folder}::nosuchsplit")
    assert "give hf:DATASET:CONFIG:SPLIT" in refusal("hf:openai/gsm8k")


@pytest.mark.parametrize(
    ("cells", "item"),
    [
        ({"question": "q", "answer": "a"}, Item("q", "a")),
        ({"question": "q", "choices": ["x", "y"], "answer": 1}, Item("q", choices=("x", "y"), gold=1)),
        ({"question": "q", "options": ["x", "y"], "answer": "B"}, Item("q", choices=("x", "y"), gold=1)),
        ({"question": "q", "choices": ["x", "y"], "answer": "y"}, Item("q", choices=("x", "y"), gold=1)),
        ({"prompt": "p", "question": "q", "completion": "a"}, Item("p", "a")),
        ({"prompt": "p", "choices": ["x", "y"], "gold": 0, "label": 1}, Item("p", choices=("x", "y"), gold=0)),
    ],
)
def test_customary_columns_of_the_hub(cells: dict[str, Any], item: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    library = types.ModuleType("datasets")
    library.load_dataset = lambda *args, **kwargs: [cells]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", library)
    assert load_task("hf:owner/set:main:test").items == (item,)


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'aligntax[hub]'" in refusal("hf:owner/set:main:test")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    assert "pip install 'aligntax[eval]'" in refusal("lm_eval:arc_easy")


class HarnessTask:
    """The calls of a harness task that we rely on, with documents that hold their own answers."""

    def __init__(self, docs: list[dict[str, Any]], kind: str, multiple_input: int = 0) -> None:
        self.eval_docs, self.multiple_input = docs, multiple_input
        self.config = types.SimpleNamespace(output_type=kind, target_delimiter=" ")

    def doc_to_text(self, doc: dict[str, Any]) -> Any:
        return doc["text"]

    def doc_to_target(self, doc: dict[str, Any]) -> Any:
        return doc["target"]

    def doc_to_choice(self, doc: dict[str, Any]) -> Any:
        return doc["choices"]


@pytest.mark.parametrize(
    ("doc", "kind", "multiple", "item"),
    [
        ({"text": "q", "target": 1, "choices": ["x", "y"]}, "multiple_choice", 0, Item("q", None, (" x", " y"), 1)),
        ({"text": "q", "target": "y", "choices": ["x", "y"]}, "multiple_choice", 0, Item("q", None, (" x", " y"), 1)),
        ({"text": "q", "target": ["a", "b"]}, "generate_until", 0, Item("q", " a")),
        ({"text": "q", "target": " a"}, "loglikelihood", 0, Item("q", " a")),
        (
            {"text": 1, "target": "fell", "choices": ["x", "y"]},
            "multiple_choice",
            2,
            Item("", " fell", gold=1, prompts=("x", "y")),
        ),
    ],
)
def test_harness_documents_become_items(
    doc: dict[str, Any], kind: str, multiple: int, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = types.ModuleType("lm_eval.tasks")
    library.TaskManager = object  # type: ignore[attr-defined]
    tasks = {"quiz": HarnessTask([doc], kind, multiple), "many": {"quiz": None}, "none": HarnessTask([], kind)}
    library.get_task_dict = lambda names, manager: {names[0]: tasks[names[0]]}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lm_eval", types.ModuleType("lm_eval"))
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", library)
    task = load_task("lm_eval:quiz")
    assert (task.name, task.source, task.items) == ("quiz", "lm_eval:quiz", (item,))
    assert "is a group" in refusal("lm_eval:many")
    assert "no documents" in refusal("lm_eval:none")
    assert "not a usable task" in refusal("lm_eval:unknown")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared task files are not beside this checkout")
def test_every_shared_task_loads_and_encodes() -> None:
    paths = sorted(SHARED.glob("*.jsonl"))
    tasks = load_tasks([str(path) for path in paths])
    assert [task.name for task in tasks] == [path.stem for path in paths]
    chat = ChatFormat(make_tokenizer())
    for path, task in zip(paths, tasks, strict=True):
        distinct = {json.dumps(json.loads(line), sort_keys=True) for line in path.read_text().splitlines() if line}
        assert 0.98 * len(distinct) <= len(task.items) <= len(distinct), path.name
        few = Task(task.name, task.items[::40], task.kind, task.source, task.sha256)
        for fmt in FORMATS:
            for item, encoded in zip(few.items, encode_task(few, fmt, chat, 1 << 20), strict=True):
                assert len(encoded) == item.alternatives
                assert all(1 <= each.start < len(each.ids) for each in encoded)
