"""Every built-in capability task, read straight from its JSON lines, keeps the promises of the data set."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "src" / "aligntax" / "data" / "builtin" / "tasks"
FILES = sorted(FOLDER.glob("*.jsonl"))
NAMES = [path.stem for path in FILES]
LEAST_TASKS = 12
LEAST_ITEMS = 96
MOST_WORDS = 40
LARGEST_OVERLAP = 0.6

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSON-lines file, one per non-empty line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def right_text(row: Row) -> str:
    """The answer that counts as right."""
    return row["choices"][row["gold"]] if "choices" in row else row["answer"]


def four_grams(text: str) -> set[tuple[str, ...]]:
    """Word 4-grams, lower case, every number masked; a shorter text is one gram."""
    words = re.findall(r"[^\W_]+|#", re.sub(r"\d+", "#", text.lower()))
    return {tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3))}


def containment(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> float:
    """Shared grams over the grams of the smaller set, in [0, 1]."""
    return len(left & right) / min(len(left), len(right))


def longest_choice_score(rows: list[Row]) -> tuple[float, float]:
    """Expected accuracy of "take the longest choice" (ties shared out) and of guessing."""
    hits, chance = 0.0, 0.0
    for row in rows:
        lengths = [len(choice) for choice in row["choices"]]
        ties = [i for i, length in enumerate(lengths) if length == max(lengths)]
        hits += (row["gold"] in ties) / len(ties)
        chance += 1 / len(lengths)
    return hits / len(rows), chance / len(rows)


def test_enough_tasks_with_usable_names() -> None:
    assert len(FILES) >= LEAST_TASKS
    for name in NAMES:
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name), name


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_enough_distinct_items(path: Path) -> None:
    rows = read_rows(path)
    assert len(rows) >= LEAST_ITEMS
    prompts = [" ".join(row["prompt"].lower().split()) for row in rows]
    assert len(set(zip(prompts, map(right_text, rows), strict=True))) == len(rows)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_rows_have_the_documented_format(path: Path) -> None:
    for row in read_rows(path):
        assert set(row) in ({"prompt", "answer"}, {"prompt", "choices", "gold"}), row
        assert isinstance(row["prompt"], str), row
        assert row["prompt"].strip(), row
        assert row["prompt"] == row["prompt"].rstrip(), f"prompt ends in white space: {row}"
        texts = row.get("choices", [row.get("answer")])
        assert all(isinstance(text, str) and text.strip() for text in texts), row
        longest = max(len(text.split()) for text in texts)
        assert len(row["prompt"].split()) + longest <= MOST_WORDS, row
        if "choices" in row:
            assert 2 <= len(texts) <= 3, row
            assert len(set(texts)) == len(texts), row
            assert type(row["gold"]) is int, row
            assert 0 <= row["gold"] < len(texts), row


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_one_kind_of_item_per_task(path: Path) -> None:
    assert len({"choices" in row for row in read_rows(path)}) == 1


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_position_and_length_do_not_give_the_gold_away(path: Path) -> None:
    rows = read_rows(path)
    if "choices" not in rows[0]:
        pytest.skip("free answers have no gold position")
    positions = [row["gold"] for row in rows]
    score, chance = longest_choice_score(rows)
    for position in set(range(max(len(row["choices"]) for row in rows))):
        assert 0 < positions.count(position) / len(rows) < chance + 0.15, position
    assert score < chance + 0.15


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_two_items_are_variants_of_one_template(path: Path) -> None:
    rows = read_rows(path)
    grams = [four_grams(row["prompt"] + right_text(row)) for row in rows]
    close = [
        (rows[i]["prompt"], rows[j]["prompt"])
        for i, j in combinations(range(len(rows)), 2)
        if containment(grams[i], grams[j]) > LARGEST_OVERLAP
    ]
    assert close == []


def test_the_overlap_rule_sees_a_template_and_passes_a_rewording() -> None:
    template = four_grams("What is 47 plus 385? 432")
    assert containment(template, four_grams("What is 12 plus 9? 21")) == 1.0
    assert containment(template, four_grams("Add 12 to 9 and you obtain 21")) == 0.0


def test_the_length_rule_sees_a_giveaway() -> None:
    rows = [{"prompt": "p", "choices": ["longest", "short"], "gold": 0}] * 4
    assert longest_choice_score(rows) == (1.0, 0.5)
