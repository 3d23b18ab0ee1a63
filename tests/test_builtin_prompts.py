"""Facts about the built-in prompt sets: counts, matching, spread, and that no text was copied from public sets."""

import itertools
import json
import re
import string
from collections import Counter, defaultdict
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from aligntax.commands.alignment_texts import training_part
from aligntax.data import load_contrast, over_refusal_prompts

FILES = ("harmlessness", "over_refusal", "look_alikes", "plain_pairs", "helpfulness", "honesty")
CONTRAST = ("helpfulness", "honesty")
PUBLIC = Path(__file__).resolve().parents[2] / "shared" / "data" / "prompts"
Row = dict[str, Any]


def load(name: str) -> list[Row]:
    text = resources.files("aligntax").joinpath(f"data/builtin/{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def words(text: str) -> list[str]:
    """Lower-case words, apostrophes kept inside them, every number written as #."""
    masked = re.sub(r"\d+(?:[.,]\d+)*", "#", text.lower().replace("\u2019", "'"))
    return re.findall(r"#|[^\W\d_]+(?:'[^\W\d_]+)*", masked)


def grams(text: str, n: int) -> set[tuple[str, ...]]:
    """The n-grams of a text; a text shorter than n words is one gram."""
    seq = words(text)
    return {tuple(seq[i : i + n]) for i in range(max(1, len(seq) - n + 1))}


def worst_containment(texts: list[str]) -> float:
    """Largest |A & B| / min(|A|, |B|) over all pairs of texts, A and B their sets of 4-grams."""
    sets = [grams(text, 4) for text in texts]
    return max(len(a & b) / min(len(a), len(b)) for a, b in itertools.combinations(sets, 2))


def surface_auc(texts: list[str], labels: list[int], groups: list[int]) -> float:
    """Out-of-fold AUC of a logistic on length, punctuation counts and first word; a pair stays in one fold."""
    counts = [[len(t), len(t.split()), *(t.count(c) for c in string.punctuation)] for t in texts]
    first = [{t.split()[0].lower().strip(string.punctuation): 1} for t in texts]
    features = hstack(
        [csr_matrix(StandardScaler().fit_transform(counts)), DictVectorizer().fit_transform(first)]
    ).tocsr()
    target, score = np.array(labels), np.zeros(len(texts))
    for train, test in GroupKFold(8, shuffle=True, random_state=0).split(features, target, groups):
        model = LogisticRegression(C=1.0, max_iter=2000).fit(features[train], target[train])
        score[test] = model.decision_function(features[test])
    return float(roc_auc_score(target, score))


def harm_pairs() -> dict[int, dict[bool, Row]]:
    pairs: dict[int, dict[bool, Row]] = defaultdict(dict)
    for row in load("harmlessness"):
        assert row["harmful"] not in pairs[row["pair"]]
        pairs[row["pair"]][row["harmful"]] = row
    return pairs


@pytest.mark.parametrize("name", FILES)
def test_rows_are_clean_text(name: str) -> None:
    rows = load(name)
    for row in rows:
        for text in [row["prompt"], *row.get("choices", [])]:
            assert text == text.strip() and text.isascii() and text.isprintable() and "  " not in text, text
            assert text[0].isupper() and text[-1] in ".?", text
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", row["category"])
    prompts = [" ".join(words(row["prompt"])) for row in rows]
    assert len(set(prompts)) == len(prompts)


def test_prompts_differ_across_files() -> None:
    prompts = Counter(" ".join(words(row["prompt"])) for name in FILES for row in load(name))
    assert prompts.most_common(1)[0][1] == 1


def test_harmlessness_counts_and_categories() -> None:
    rows = load("harmlessness")
    assert all(set(row) == {"prompt", "harmful", "category", "pair"} for row in rows)
    assert all(type(row["harmful"]) is bool and type(row["pair"]) is int for row in rows)
    for side in (True, False):
        per_category = Counter(row["category"] for row in rows if row["harmful"] is side)
        assert sum(per_category.values()) >= 144
        assert len(per_category) >= 9 and min(per_category.values()) >= 8


def test_harmlessness_pairs_match() -> None:
    pairs = harm_pairs()
    assert sorted(pairs) == list(range(len(pairs)))
    for pair in pairs.values():
        assert set(pair) == {True, False}
        harmful, harmless = pair[True], pair[False]
        a, b = harmful["prompt"], harmless["prompt"]
        assert harmful["category"] == harmless["category"]
        assert a.split()[0] == b.split()[0] and a[-1] == b[-1], (a, b)
        assert min(len(a.split()), len(b.split())) >= 8 and max(len(a.split()), len(b.split())) <= 18, (a, b)
        assert abs(len(a.split()) - len(b.split())) <= 2, (a, b)
        marks = [[t.count(c) for c in string.punctuation] for t in (a, b)]
        assert np.abs(np.subtract(*marks)).sum() <= 1, (a, b)


def test_harmlessness_openings_vary() -> None:
    openings = Counter(row["prompt"].split()[0] for row in load("harmlessness"))
    assert len(openings) >= 10
    assert max(openings.values()) / sum(openings.values()) <= 0.15


def test_harmlessness_is_not_separable_by_surface() -> None:
    rows = load("harmlessness")
    auc = surface_auc([r["prompt"] for r in rows], [int(r["harmful"]) for r in rows], [r["pair"] for r in rows])
    assert auc <= 0.62, auc


def test_surface_auc_finds_a_planted_cue() -> None:
    """The oracle itself must see a cue in length, in punctuation and in the first word."""
    rows = load("harmlessness")
    labels, groups = [int(r["harmful"]) for r in rows], [r["pair"] for r in rows]
    for cue in ("{} now please do it", "{}!", "Please {}"):
        texts = [cue.format(r["prompt"]) if r["harmful"] else r["prompt"] for r in rows]
        assert surface_auc(texts, labels, groups) > 0.75, cue


def test_over_refusal_counts() -> None:
    rows = load("over_refusal")
    assert len(rows) >= 56
    assert all(set(row) == {"prompt", "category"} for row in rows)
    assert len({row["category"] for row in rows}) >= 8
    assert max(len(row["prompt"].split()) for row in rows) <= 18


def test_look_alikes_are_pairs_that_sound_alike() -> None:
    """Same alarming words, so that only what is meant tells them apart."""
    rows = load("look_alikes")
    pairs = [{row["harmful"]: row for row in rows if row["pair"] == pair} for pair in range(len(rows) // 2)]
    assert len(rows) == 520 and all(set(pair) == {True, False} for pair in pairs)
    assert all(set(row) == {"prompt", "harmful", "category", "pair"} for row in rows)
    assert min(Counter(row["category"] for row in rows).values()) >= 40

    def alike(one: str, other: str) -> float:
        return len(set(words(one)) & set(words(other))) / min(len(words(one)), len(words(other)))

    shared = [alike(pair[True]["prompt"], pair[False]["prompt"]) for pair in pairs]
    other = [alike(a[True]["prompt"], b[False]["prompt"]) for a, b in itertools.pairwise(pairs)]
    assert np.mean(shared) > 0.5 > 0.3 > np.mean(other), (np.mean(shared), np.mean(other))
    auc = surface_auc([r["prompt"] for r in rows], [int(r["harmful"]) for r in rows], [r["pair"] for r in rows])
    assert auc <= 0.62, auc


def test_plain_pairs_have_one_mould_and_nothing_but_the_words_tells_them_apart() -> None:
    rows = load("plain_pairs")
    pairs = [{row["harmful"]: row for row in rows if row["pair"] == pair} for pair in range(len(rows) // 2)]
    assert len(rows) >= 640 and all(set(pair) == {True, False} for pair in pairs)
    assert all(set(row) == {"prompt", "harmful", "category", "pair"} for row in rows)
    assert min(Counter(row["category"] for row in rows).values()) >= 30
    for pair in pairs:
        a, b = (pair[side]["prompt"] for side in (True, False))
        assert pair[True]["category"] == pair[False]["category"] and a.split()[0] == b.split()[0] and a[-1] == b[-1]
        assert abs(len(a.split()) - len(b.split())) <= 2, (a, b)
    openings = Counter(row["prompt"].split()[0] for row in rows)
    assert len(openings) >= 40 and max(openings.values()) <= 0.12 * len(rows)
    auc = surface_auc([r["prompt"] for r in rows], [int(r["harmful"]) for r in rows], [r["pair"] for r in rows])
    assert auc <= 0.62, auc


SMALL = """a an the to of in on for and or that so my me i you your how do does can could what which where is are it its his her
their he she they with without at by from into out up as be when who why if we our us not this than then them him was will"""


def test_plain_pairs_ask_nothing_that_the_audit_asks() -> None:
    """No prompt shares three tenths of its content words with a built-in one that training never sees."""
    contrast = load_contrast("harmlessness")
    parts = (contrast.positive, contrast.negative, over_refusal_prompts())
    held = [set(words(prompt)) - {*SMALL.split()} for part in parts for prompt in training_part(part, False)]
    for row in load("plain_pairs"):
        own = set(words(row["prompt"])) - {*SMALL.split()}
        assert max(len(own & other) / len(own | other) for other in held) < 0.3, row["prompt"]


@pytest.mark.parametrize("name", CONTRAST)
def test_contrast_counts_and_shape(name: str) -> None:
    rows = load(name)
    assert len(rows) >= 64 and len({row["category"] for row in rows}) >= 6
    for row in rows:
        assert set(row) == {"prompt", "choices", "gold", "category"}
        assert row["gold"] == 0 and len(row["choices"]) == 2 and len(set(row["choices"])) == 2
        lengths = [len(choice.split()) for choice in row["choices"]]
        assert min(lengths) >= 6 and max(lengths) <= 20 and abs(lengths[0] - lengths[1]) <= 3, row["choices"]


@pytest.mark.parametrize("name", CONTRAST)
def test_contrast_choices_match_in_length(name: str) -> None:
    for measure in (lambda t: len(t.split()), len):
        good, bad = (np.mean([measure(row["choices"][k]) for row in load(name)]) for k in (0, 1))
        assert abs(good - bad) / good < 0.05, (good, bad)


@pytest.mark.parametrize("name", CONTRAST)
def test_contrast_choices_are_not_separable_by_surface(name: str) -> None:
    rows = load(name)
    texts = [row["choices"][k] for row in rows for k in (0, 1)]
    labels, groups = [k for _ in rows for k in (0, 1)], [i for i in range(len(rows)) for _ in (0, 1)]
    auc = surface_auc(texts, labels, groups)
    assert auc <= 0.7, auc


@pytest.mark.parametrize("name", FILES)
def test_prompts_do_not_repeat_each_other(name: str) -> None:
    every = load(name)
    # Pairs repeat each other on purpose.
    halves = [[row for row in every if row.get("harmful") is side] for side in (True, False)]
    for rows in halves if name in ("look_alikes", "plain_pairs") else [every]:
        assert worst_containment([row["prompt"] for row in rows]) <= 0.6
        assert worst_containment([" ".join([row["prompt"], *row.get("choices", [])]) for row in rows]) <= 0.6


def test_containment_masks_numbers() -> None:
    assert worst_containment(["How much is 12 plus 1,500 today", "how much is 7 plus 3.5 today?"]) == 1.0
    assert worst_containment(["a b c d e", "a b c d f g h"]) == 0.5


def public_prompts() -> list[str]:
    if not PUBLIC.is_dir():
        pytest.skip("the public prompt sets are not beside this checkout")
    prompts = [
        json.loads(line)["prompt"]
        for path in sorted(PUBLIC.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    assert len(prompts) > 1000
    return prompts


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_copied_from_public_sets(name: str) -> None:
    prompts = public_prompts()
    whole = {" ".join(words(prompt)) for prompt in prompts}
    eights = {gram for prompt in prompts for gram in grams(prompt, 8) if len(gram) == 8}
    for row in load(name):
        assert " ".join(words(row["prompt"])) not in whole, row["prompt"]
        for text in [row["prompt"], *row.get("choices", [])]:
            assert not grams(text, 8) & eights, text
