"""The judges' texts: enough, varied, apart from one another, and apart from the replies that humans labelled."""

import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from aligntax.judging import default_judge, reward_judge, same_judge

ROOT = Path(__file__).parents[1]
FOLDER = files("aligntax.data").joinpath("builtin", "judging")
JUDGED = ROOT.parent / "shared/data/judged"


def read(name: str) -> list[dict]:
    return [json.loads(line) for line in FOLDER.joinpath(f"{name}.jsonl").read_text("utf-8").split("\n") if line]


def texts(name: str) -> list[str]:
    rows = read(f"{name}_replies") + read(f"{name}_passages") + read(f"{name}_requests")
    return [row[key] for row in rows for key in ("prompt", "response", "text") if key in row]


def grams(text: str, size: int = 8) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower().replace("’", "'"))
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def test_audit_texts_are_many_and_varied():
    rows = read("audit_replies")
    labels = [row["label"] for row in rows]
    assert labels.count("refusal") >= 300 and labels.count("answer") >= 300 and labels.count("partial") >= 20
    assert len({row["prompt"] for row in rows}) >= 150
    assert len({row["response"] for row in rows}) >= 0.97 * len(rows)


@pytest.mark.skipif(not JUDGED.is_dir(), reason="the human-labelled replies are not beside this checkout")
@pytest.mark.parametrize("name", ["audit", "reward"])
def test_no_eight_words_in_a_row_come_from_the_judged_replies(name):
    labelled: set[tuple[str, ...]] = set()
    for file in JUDGED.glob("*.jsonl"):
        for line in file.read_text("utf-8").split("\n"):
            if line:
                row = json.loads(line)
                labelled |= grams(row["prompt"]) | grams(row["completion"])
    assert len(labelled) > 10_000
    assert not any(grams(text) & labelled for text in texts(name))


def test_audit_and_reward_share_no_text():
    assert not set(texts("audit")) & set(texts("reward"))
    assert not same_judge(default_judge(), reward_judge())


def test_the_overlap_check_can_fail():
    shared = "one two three four five six seven eight"
    assert grams(f"Zero, {shared}!") & grams(f"{shared.upper()} nine")
    assert not grams("one two three four five six seven nine") & grams(shared)


def test_fitting_again_gives_the_committed_judges(tmp_path):
    subprocess.run([sys.executable, ROOT / "tools/fit_judges.py", "--out", tmp_path], check=True, capture_output=True)
    for name in ("audit", "reward"):
        fitted = json.loads((tmp_path / f"{name}.json").read_text("utf-8"))
        stored = json.loads(FOLDER.joinpath(f"{name}.json").read_text("utf-8"))
        assert fitted["texts_hash"] == stored["texts_hash"]
        assert fitted["vocabulary"] == stored["vocabulary"]
        assert fitted["refusal"]["held_out_balanced_accuracy"] == pytest.approx(
            stored["refusal"]["held_out_balanced_accuracy"], abs=0.005
        )
