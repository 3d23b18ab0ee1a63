"""The judges' texts: enough, varied, apart from one another, and apart from the replies that humans labelled."""

import importlib.util
import json
import re
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from aligntax.judging import default_judge, reward_judge, same_judge
from aligntax.judging.linear import read_models

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


@pytest.fixture(scope="module")
def fitting():
    spec = importlib.util.spec_from_file_location("fit_judges", ROOT / "tools/fit_judges.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["fit_judges"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["fit_judges"]


@pytest.mark.parametrize("judge", [default_judge(), reward_judge()], ids=lambda judge: judge.name)
def test_the_stored_judge_was_fitted_on_these_texts(fitting, judge):
    assert judge.texts_hash == fitting.texts_hash(judge.name.removeprefix("classifier:"))


def test_fitting_again_gives_the_committed_judge(fitting):
    stored, facts = read_models(FOLDER, "reward")
    fitted, found = fitting.fit(fitting.reply_examples("reward"), least=3)
    assert fitted.names == stored["refusal"].names
    assert np.abs(fitted.weights - stored["refusal"].weights).max() < 1e-3
    assert found["held_out_balanced_accuracy"] == pytest.approx(
        facts["refusal"]["held_out_balanced_accuracy"], abs=0.01
    )


def test_shuffled_labels_leave_nothing_to_find(fitting):
    examples = fitting.reply_examples("reward")
    order = np.random.default_rng(0).permutation(len(set(examples.group)))
    # Labels are dealt out anew by request, so that a request's lengthened copies keep one label.
    shuffled = replace(examples, label=(order[examples.group] % 2).astype(np.int64))
    matrix, _ = fitting.vectorised(shuffled, 3)
    assert abs(fitting.balanced(fitting.held_out(shuffled, matrix, 1.0), shuffled.label, 0.0) - 0.5) < 0.2
