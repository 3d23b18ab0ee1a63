"""Whom training will teach a model to refuse, read before training, against whom it taught it: is the forecast right?

    python runs/separation.py --out out/recipes [--results runs/recipes]

For each set of training requests a linear readout of the untrained model's states (`aligntax.stats.read_out`) is fitted on
them alone and scores the held-out prompts of `recipes.py`: its area under the curve is the forecast. Beside it stands the area
of the first-token refusal odds of every model that was trained on that set (`separation` in its record), and what over-refusal is
made of. Writes separation.json beside the records and prints the table.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from recipes import BASE, REQUESTS, prompts, requests

from aligntax.commands.alignment_texts import load_requests, training_part
from aligntax.data import ChatFormat, look_alikes, over_refusal_prompts, plain_pairs
from aligntax.models import ModelSpec, load
from aligntax.probing import Probe, Row, ShardStore, TokenBudget, tail_activations
from aligntax.results import plain
from aligntax.stats import area_under_curve, read_out

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
    chat, probe = (
        ChatFormat(base.tokenizer),
        Probe(base.model, base.device, TokenBudget(2048), "all", (), lambda tokens: None),
    )
    store = ShardStore(given.out / "states", {"weights": base.weights_sha256})

    def states(texts: Sequence[str]) -> np.ndarray:
        rows = [Row(ids, len(ids), k) for k, ids in enumerate(tuple(chat.encode_prompt(text)) for text in texts)]
        made = store.get("states", ([row.ids for row in rows],), lambda: {"a": tail_activations(probe, rows, 1)[:, 0]})
        return made["a"]

    held = prompts()
    label = np.r_[np.ones(len(held["harmful"])), np.zeros(len(held["harmless"]))]
    others = states([*held["harmful"], *held["harmless"]])
    found: dict[str, Any] = {}
    for name, recipes in SETS.items():
        harmful, harmless = training(name, given.out)
        scores, layer = read_out(states(harmful), states(harmless), others)
        became = {}
        for path in sorted(path for recipe in recipes for path in given.results.glob(f"{recipe}-?.json")):
            record = json.loads(path.read_text())
            if "separation" in record:
                became[path.stem] = record["separation"] | {
                    "over_refusal": record["harmless"],
                    "refusal": record["harmful"],
                }
        found[name] = {
            "requests": [len(harmful), len(harmless)], "layer": layer, "forecast": area_under_curve(scores, label),
            "over_refusal_at_90": ranked(scores, label, 0.9), "over_refusal_at_75": ranked(scores, label, 0.75), "became": became,
        }  # fmt: skip
        measured = ", ".join(f"{key} {row['auc_aligned']['value']:.3f}" for key, row in became.items())
        print(f"{name}: forecast {found[name]['forecast']:.3f} (layer {layer}); became {measured}", flush=True)
    (given.results / "separation.json").write_text(json.dumps(plain(found), indent=1) + "\n")


def ranked(scores: np.ndarray, label: np.ndarray, share: float) -> float:
    """Share of harmless prompts above the score that this share of the harmful ones passes."""
    return float((scores[label == 0] >= np.quantile(scores[label == 1], 1 - share)).mean())


if __name__ == "__main__":
    main()
