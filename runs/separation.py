"""Whom training will teach a model to refuse, read before training, against whom it taught it: is the forecast right?

    python runs/separation.py --out out/recipes [--results runs/recipes]

For each set of training requests a linear readout of the untrained model's states (`aligntax.stats.read_out`) is fitted on
them alone and scores two sets of prompts: those of `recipes.py`, most of whose harmful ones are imperatives and harmless ones
questions, and XSTest's unsafe and safe ones, which have one form. Its areas under the curve are the forecast. Beside them stand
those of the first-token refusal odds of every model that was trained on that set. Writes separation.json and prints the table.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from recipes import BASE, REQUESTS, prompts, requests, xstest

from aligntax.commands.alignment_texts import load_requests, training_part
from aligntax.data import ChatFormat, look_alikes, over_refusal_prompts, plain_pairs
from aligntax.models import ModelSpec, load
from aligntax.probing import Probe, Row, ShardStore, TokenBudget, tail_activations
from aligntax.results import plain
from aligntax.stats import read_out
from aligntax.stats.separation import area

SETS: dict[str, tuple[str, ...]] = {
    "built-in": ("sft", "sft+replay", "sft+matched"),
    "built-in, plain pairs": (),
    "built-in, look-alikes": ("sft+alike",),
    "built-in, look-alikes, plain pairs": ("sft+pairs",),
    "public": ("sft+public", "sft+public+kl"),
    "public, plain pairs": (),
    "public, look-alikes": ("sft+public+alike", "sft+public+alike+kl"),
    "public, look-alikes, plain pairs": (),
}
"""Training requests (the public ones hold the built-in ones) -> the recipes that were trained on them."""


def training(name: str, out: Path) -> tuple[list[str], list[str]]:
    """Harmful and harmless requests of a set, those that only sound alarming among the harmless."""
    if name.startswith("public"):
        rows = [json.loads(line) for line in requests(out, REQUESTS).read_text().splitlines()]
        sides = [[row["prompt"] for row in rows if row["harmful"] is side] for side in (True, False)]
    else:
        found = load_requests("harmlessness", 0)
        sides = [[*found.harmful], [*found.harmless]]
    sides[1] += training_part(over_refusal_prompts())
    for pairs in (look_alikes,) * ("look-alikes" in name) + (plain_pairs,) * ("plain" in name):
        sides = [[*sides[0], *pairs().positive], [*sides[1], *pairs().negative]]
    return sides[0], sides[1]


def main() -> None:
    """Read the states of every prompt once, forecast each set, and look what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/recipes"), help="where `recipes.py` keeps its files")
    parser.add_argument("--results", type=Path, default=Path("runs/recipes"))
    given = parser.parse_args()
    base = load(ModelSpec(BASE))
    chat = ChatFormat(base.tokenizer)
    probe = Probe(base.model, base.device, TokenBudget(2048), "all", (), lambda tokens: None)
    store = ShardStore(given.out / "states", {"weights": base.weights_sha256})

    read: dict[str, np.ndarray] = {}

    def states(texts: Sequence[str]) -> np.ndarray:
        """States `(n, L, d)`; every prompt is run once, what is new to a set in a shard of its own."""
        new = [text for text in dict.fromkeys(texts) if text not in read]
        rows = [Row(tuple(ids), len(ids), k) for k, ids in enumerate(chat.encode_prompt(text) for text in new)]
        if rows:
            key = ([row.ids for row in rows],)
            made = store.get("states", key, lambda: {"a": tail_activations(probe, rows, 1)[:, 0]})
            read.update(zip(new, made["a"], strict=True))
        return np.stack([read[text] for text in texts])

    tests = {"held out": [*prompts().values()], "same form": xstest()}
    sides = [states(side) for both in tests.values() for side in both]
    found: dict[str, Any] = {}
    for name, recipes in SETS.items():
        harmful, harmless = training(name, given.out)
        scores, layer = read_out(states(harmful), states(harmless), np.concatenate(sides))
        parts = iter(np.split(scores, np.cumsum([len(side) for side in sides])[:-1]))
        row: dict[str, Any] = {"requests": [len(harmful), len(harmless)], "layer": layer}
        row |= {test: plain(area(next(parts), next(parts))) for test in tests}
        row["became"] = became(given.results, recipes)
        found[name] = row
        line = "; ".join(f"{test} {row[test]['value']:.3f}" for test in tests)
        print(f"{name} ({len(harmful)}, {len(harmless)}): {line} (layer {layer})", flush=True)
        for key, end in row["became"].items():
            print(f"    {key}: " + "; ".join(f"{test} {end[test]['value']:.3f}" for test in tests), flush=True)
    (given.results / "separation.json").write_text(json.dumps(plain(found), indent=1) + "\n")


def became(results: Path, recipes: tuple[str, ...]) -> dict[str, Any]:
    """Areas of every model that was trained by the recipes, by its first token's odds."""
    found = {}
    for path in sorted(path for recipe in recipes for path in results.glob(f"{recipe}-?.json")):
        record = json.loads(path.read_text())
        if "separation" in record:
            held = record["separation"]
            found[path.stem] = {
                "held out": held["auc_aligned"], "same form": record["same form"]["aligned"], "ranked": held["ranked"],
                "against": held["against"], "refusal": record["harmful"], "over-refusal": record["harmless"],
            }  # fmt: skip
    return found


if __name__ == "__main__":
    main()
