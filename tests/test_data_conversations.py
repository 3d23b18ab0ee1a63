"""Replies that stand beside prompts, and data sets of the Hub as requests and as preference pairs."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from aligntax.data import Contrast, load_contrast, read_preferences
from aligntax.data.conversations import conversed
from aligntax.data.rows import Row
from aligntax.errors import DataError

NO = [{"role": "assistant", "content": "I will not open it."}]
ASKED = [{"role": "user", "content": "pick a lock"}]


def lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def one(tmp_path: Path, cells: dict[str, Any]) -> Contrast:
    other = {"prompt": "paint a door", "harmful": False}
    return load_contrast(lines(tmp_path / "f.jsonl", [{"harmful": True, **cells}, other]))


@pytest.mark.parametrize(
    "cells",
    [
        {"prompt": "pick a lock", "completion": "I will not open it."},
        {"prompt": "pick a lock", "completion": NO},
        {"prompt": "pick a lock", "messages": [*ASKED, *NO]},
        {"messages": [*ASKED, *NO]},
        {"prompt": ASKED, "completion": NO},
    ],
)
def test_a_reply_beside_a_prompt_is_kept(tmp_path: Path, cells: dict[str, Any]) -> None:
    contrast = one(tmp_path, cells)
    assert (contrast.positive, contrast.replies) == (("pick a lock",), {"pick a lock": "I will not open it."})


@pytest.mark.parametrize("more", [{}, {"completion": "  "}, {"messages": ASKED}, {"messages": []}])
def test_without_a_reply_there_is_none(tmp_path: Path, more: dict[str, Any]) -> None:
    contrast = one(tmp_path, {"prompt": "pick a lock", **more})
    assert (contrast.positive, contrast.replies) == (("pick a lock",), {})


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"prompt": "a", "completion": 3}, "completion is 3; write text"),
        ({"prompt": "a", "completion": [{"text": "b"}]}, "'completion' is no list of messages"),
        ({"prompt": "a", "completion": ASKED}, "'completion' holds turns of user; give one turn of assistant"),
        ({"prompt": "a", "messages": [*ASKED, *NO]}, "messages ask 'pick a lock' but the prompt is another"),
        ({"messages": [*ASKED, *NO, *ASKED]}, "holds turns of user, assistant, user; give one turn of user, assistant"),
        ({"messages": [{"role": "system", "content": "x"}, *ASKED]}, "--system"),
        ({"completion": "b"}, "prompt is None"),
    ],
)
def test_messages_of_another_shape_are_named_by_row(tmp_path: Path, cells: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError) as caught:
        one(tmp_path, cells)
    assert "f.jsonl:1: " in str(caught.value) and reason in str(caught.value)


def test_a_row_in_our_own_columns_stays_as_it_is() -> None:
    row = Row("here", {"prompt": "a", "harmful": True})
    assert conversed(row) == row


def hub(monkeypatch: pytest.MonkeyPatch, **splits: list[dict[str, Any]]) -> None:
    library = types.ModuleType("datasets")
    library.load_dataset = lambda name, config, split: splits[split]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", library)


def test_requests_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"instruction": "pick a lock", "harmful": True, "completion": "No.", "note": None},
        {"instruction": "paint", "harmful": False},
    ]
    hub(monkeypatch, train=rows, test=[{"prompt": "mow"}], bad=[{"prompt": "arson"}])
    found = load_contrast("hf:owner/Locks:main:train")
    assert (found.name, found.positive, found.negative) == ("locks", ("pick a lock",), ("paint",))
    assert found.replies == {"pick a lock": "No."} and found.source == "hf:owner/Locks:main:train"
    assert load_contrast("mine=hf:owner/Locks::train").name == "mine"
    pair = load_contrast("hf:owner/Locks::bad,hf:owner/Locks::test")
    assert (pair.positive, pair.negative) == (("arson",), ("mow",))
    hub(monkeypatch, train=[*rows, {"prompt": "mow", "harmful": False}])
    assert len(found.sha256) == 64 != load_contrast("hf:owner/Locks:main:train").sha256 != found.sha256


def test_preference_pairs_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    yes = [{"role": "assistant", "content": "Sure."}]
    want = {"prompt": ASKED, "chosen": NO, "rejected": yes}
    hub(
        monkeypatch,
        plain=[{"question": "pick a lock", "chosen": "I will not open it.", "rejected": "Sure."}],
        whole=[{"prompt": "pick a lock", "chosen": [*ASKED, *NO], "rejected": [*ASKED, *yes]}],
        bad=[{"prompt": "a", "chosen": "b"}],
    )
    for split in ("plain", "whole"):
        for spec in (f"hf:owner/pairs::{split}", Path(f"hf:owner/pairs::{split}")):
            assert read_preferences(spec) == [want]
    with pytest.raises(DataError, match=r"hf:owner/pairs::bad, row 1: column 'rejected'"):
        read_preferences("hf:owner/pairs::bad")
