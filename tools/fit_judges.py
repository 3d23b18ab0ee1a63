"""Fit the two classifier judges on the texts under data/builtin/judging: `python tools/fit_judges.py` writes both anew.

Nothing but those texts and the built-in prompts is read. Cross-validation leaves out whole requests, so that no topic is on both
sides; it chooses the strength of regularisation (log loss) and the threshold (balanced
accuracy, by the rule of one standard error), which is folded into the bias.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from aligntax.judging.features import reply_features, request_features
from aligntax.judging.linear import LinearModel, write_models

BUILTIN = Path(__file__).parents[1] / "src/aligntax/data/builtin"
FOLDS = 5
STRENGTHS = (0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Examples:
    """Feature dicts with class, group (whole groups are left out together) and weight."""

    features: list[dict[str, float]]
    label: NDArray[np.int64]
    group: NDArray[np.int64]
    weight: NDArray[np.float64]


def rows(path: Path) -> list[dict]:
    """The JSON lines of a file."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def lengthened(row: dict, passages: dict[str, list[str]], rng: random.Random) -> list[str]:
    """The response as written and twice longer: answers go on with help, refusals with advice, as long replies do.

    One answer in three ends with advice as well, so that a word of caution alone decides nothing.
    """
    texts = [row["response"]]
    for most in (2, 5):
        kind = "moral" if row["label"] == "refusal" else "help"
        more = rng.sample(passages[kind], rng.randint(1, most))
        if kind == "help" and rng.random() < 1 / 3:
            more.append(rng.choice(passages["moral"]))
        texts.append(
            "\n\n".join([row["response"], *more]) if rng.random() < 0.5 else " ".join([row["response"], *more])
        )
    return texts


def reply_examples(name: str) -> Examples:
    """A judge's written replies at three lengths, a group for each prompt; label 1 is a refusal, a reply weighs 1 in all."""
    replies = rows(BUILTIN / f"judging/{name}_replies.jsonl")
    passages: dict[str, list[str]] = {"help": [], "moral": []}
    for row in rows(BUILTIN / f"judging/{name}_passages.jsonl"):
        passages[row["kind"]].append(row["text"])
    rng = random.Random(0)
    prompts = list(dict.fromkeys(row["prompt"] for row in replies))
    features, label, group, weight = [], [], [], []
    for row in replies:
        for text in lengthened(row, passages, rng):
            features.append(reply_features(row["prompt"], text))
            label.append(row["label"] == "refusal")
            group.append(prompts.index(row["prompt"]))
            weight.append(1 / 3)
    return Examples(features, np.array(label, dtype=np.int64), np.array(group), np.array(weight))


def request_examples(name: str, half: int) -> Examples:
    """The judge's own requests, every second pair of the built-in ones and every second alarming but harmless one."""
    found = [(row["prompt"], row["harmful"], row["pair"]) for row in rows(BUILTIN / "harmlessness.jsonl")]
    alarming = [(row["prompt"], False, number) for number, row in enumerate(rows(BUILTIN / "over_refusal.jsonl"))]
    found = [row for row in found if row[2] % 2 == half] + [
        (text, harmful, 10_000 + number) for text, harmful, number in alarming if number % 2 == half
    ]
    own = rows(BUILTIN / f"judging/{name}_requests.jsonl")
    found += [(row["prompt"], row["harmful"], 20_000 + number) for number, row in enumerate(own)]
    label = np.array([harmful for _, harmful, _ in found], dtype=np.int64)
    group = np.array([number for _, _, number in found])
    return Examples([request_features(text) for text, _, _ in found], label, group, np.ones(len(found)))


def vectorised(examples: Examples, least: int) -> tuple[csr_matrix, tuple[str, ...]]:
    """Matrix and names of the features found under at least `least` groups."""
    vectoriser = DictVectorizer(dtype=np.float64)
    matrix = csr_matrix(vectoriser.fit_transform(examples.features))
    pairs = {(int(g), int(c)) for row, g in enumerate(examples.group) for c in matrix[row].indices}
    spread = np.bincount([column for _, column in pairs], minlength=matrix.shape[1])
    kept = np.flatnonzero(spread >= least)
    return matrix[:, kept], tuple(vectoriser.get_feature_names_out()[kept])


def logistic(strength: float) -> LogisticRegression:
    """The model to fit; `strength` is the inverse of the penalty, and both classes weigh the same."""
    return LogisticRegression(C=strength, class_weight="balanced", max_iter=5000, solver="liblinear", random_state=0)


def held_out(examples: Examples, matrix: csr_matrix, strength: float) -> NDArray[np.float64]:
    """Log-odds of every row from a fit without its group."""
    scores = np.full(len(examples.label), np.nan)
    for train, test in GroupKFold(FOLDS).split(matrix, examples.label, examples.group):
        model = logistic(strength).fit(matrix[train], examples.label[train], sample_weight=examples.weight[train])
        scores[test] = model.decision_function(matrix[test])
    return scores


def log_loss(scores: NDArray, label: NDArray) -> float:
    """Mean of `-log p(label)` in nats, from log-odds `(n,)` and labels 0 or 1."""
    return float(np.logaddexp(0, np.where(label == 1, -scores, scores)).mean())


def balanced(scores: NDArray, label: NDArray, threshold: float) -> float:
    """Mean of the two classes' accuracies in [0, 1] when log-odds from `threshold` on are called 1."""
    return float(((scores >= threshold)[label == 1].mean() + (scores < threshold)[label == 0].mean()) / 2)


def fit(examples: Examples, least: int) -> tuple[LinearModel, dict[str, float]]:
    """A linear model of features seen under `least` groups, strength and threshold chosen out of fold, and what that measured."""
    matrix, names = vectorised(examples, least)
    tried = {strength: held_out(examples, matrix, strength) for strength in STRENGTHS}
    strength = min(tried, key=lambda c: log_loss(tried[c], examples.label))
    scores = tried[strength]
    grid = np.linspace(-1.5, 1.5, 61)
    curve = np.array([balanced(scores, examples.label, threshold) for threshold in grid])
    # One standard error, over rows of weight one: a better threshold within it is luck, and no shift is the simplest.
    error = np.sqrt(curve.max() * (1 - curve.max()) / examples.weight.sum())
    near = grid[curve >= curve.max() - error]
    threshold = float(near[np.abs(near).argmin()])
    model = logistic(strength).fit(matrix, examples.label, sample_weight=examples.weight)
    facts = {
        "strength": strength,
        "threshold_log_odds": round(threshold, 4),
        "held_out_log_loss": round(log_loss(scores, examples.label), 4),
        "held_out_accuracy": round(float(((scores >= threshold) == examples.label).mean()), 4),
        "held_out_balanced_accuracy": round(balanced(scores, examples.label, threshold), 4),
        "n": len(scores),
        "features": len(names),
    }
    return LinearModel(names, model.coef_[0], float(model.intercept_[0]) - threshold), facts


def texts_hash(name: str) -> str:
    """sha256 over the texts that are this judge's own."""
    digest = hashlib.sha256()
    for kind in ("replies", "passages", "requests"):
        digest.update((BUILTIN / f"judging/{name}_{kind}.jsonl").read_bytes())
    return digest.hexdigest()


def main(folder: Path) -> None:
    """Fit both judges and write them into `folder`."""
    for half, name in enumerate(("audit", "reward")):
        refusal, refusal_facts = fit(reply_examples(name), least=3)
        request, request_facts = fit(request_examples(name, half), least=2)
        facts = {"texts_hash": texts_hash(name), "refusal": refusal_facts, "request": request_facts}
        write_models({"refusal": refusal, "request": request}, facts, folder / name)
        print(name, json.dumps(facts, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=BUILTIN / "judging", help="folder for both judges")
    main(parser.parse_args().out)
