"""Trade-offs of alignment in the small world, where reward and harm are exact: a resumable grid of policies, then the claims.

    python runs/tradeoffs.py [--out out/tradeoffs] [--seeds 0 1 2] [--only NAME ...] [--report]

Each seed is a world of its own: pretrained, tuned, with a reward model from 896 preferences; every variant starts from the same
SFT policy and changes one thing. A finished variant is a small JSON and is not run again. `--report` reads what is there and writes
`runs/pipeline/tradeoffs.json` and `tradeoffs.svg`; models stay in --out.
"""

import argparse
import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tradeoff_claims import write_report

from aligntax.commands import pipeline_rows as rows
from aligntax.commands import pipeline_stages as stages
from aligntax.commands.pipeline_exam import world_exam
from aligntax.commands.pipeline_sheet import Sheet, examine
from aligntax.commands.pipeline_sizes import SIZES
from aligntax.commands.pipeline_table import mean_capability, mean_said
from aligntax.lab.world import World, requests, score
from aligntax.probing import Meter
from aligntax.results import write_json
from aligntax.stats import best_of_n_kl

WIDTH, DRAWS, STEPS = 32, 64, 60
SIZE = replace(
    SIZES["quick"], tokens=1_500_000, steps={"sft": 100, "reward": 100, "rl": STEPS, "dpo": 60}, prompts=96, texts=64
)


@dataclass(frozen=True)
class Variant:
    """One policy: what differs from the middle one (beta .05, fixed, learned reward of 896 pairs, groups of 8, 60 steps)."""

    beta: float = 0.05
    adaptive: float = 0.0
    gold: bool = False
    group: int = 8
    pairs: int = 896
    steps: int = STEPS


VARIANTS = {
    "middle": Variant(),
    "beta .01": Variant(beta=0.01),
    "beta .2": Variant(beta=0.2),
    "beta 1": Variant(beta=1.0),
    "gold": Variant(gold=True),
    "pairs 32": Variant(beta=0.01, pairs=32),
    "pairs 128": Variant(beta=0.01, pairs=128),
    "adaptive": Variant(adaptive=20.0),
    "group 2": Variant(group=2),
    "group 32": Variant(group=32),
    "gold beta .01": Variant(beta=0.01, gold=True),
}


def base(seed: int, out: Path) -> stages.Settings:
    """Pretraining, SFT and the reward model of a seed."""
    plan = stages.Settings(World(seed), WIDTH, SIZE, seed)
    for name in ("pretrain", "sft", "reward"):
        stages.run_stage(name, plan, out)
    return plan


def smaller_reward(plan: stages.Settings, out: Path, count: int) -> Path:
    """Folder of a reward model from `count` of the same preferences, beside the seed's other stages."""
    place = out / f"pairs-{count}"
    if not (place / "sft").exists():
        place.mkdir(parents=True, exist_ok=True)
        (place / "sft").symlink_to((out / "sft").resolve())
        kept = (out / "preferences.jsonl").read_text().splitlines()
        learnt, held = stages.split_pairs([json.loads(line) for line in kept])
        # Seven of eight are learnt from, the eighth is held out, so the split of the stage gives back `count`.
        mixed = [
            pair
            for k, pair in enumerate(learnt[:count])
            for pair in ([pair] if k % 7 < 6 else [pair, held[(k // 7) % len(held)]])
        ]
        (place / "preferences.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in mixed))
    stages.run_stage("reward", plan, place)
    return place


def run_variant(seed: int, name: str, out: Path) -> dict[str, Any]:
    """Train and measure one variant of one seed; read it where it is done."""
    place, variant = out / f"seed-{seed}", VARIANTS[name]
    mark = place / "variants" / f"{name.replace(' ', '-')}.json"
    if mark.exists():
        return dict(json.loads(mark.read_text()))
    plan = base(seed, place)
    source = place if variant.pairs == 896 else smaller_reward(plan, place, variant.pairs)
    home = place / "variants" / name.replace(" ", "-")
    home.mkdir(parents=True, exist_ok=True)
    for part in ("sft", "reward"):
        if not (home / part).exists():
            (home / part).symlink_to((source / part).resolve())
    size = replace(SIZE, steps={**SIZE.steps, "rl": variant.steps})
    changed = replace(
        plan, size=size, beta=variant.beta, adaptive=variant.adaptive, gold=variant.gold, group=variant.group
    )
    course = stages.run_stage("rl", changed, home)
    found = {"seed": seed, "variant": name, "seconds": course.seconds, "curves": dict(course.curves)}
    found |= measured(seed, place, home / "rl" / "model", home / "sheet.json")
    held = stages.split_pairs([json.loads(line) for line in (place / "preferences.jsonl").read_text().splitlines()])[1]
    found["pair accuracy"] = stages.pair_accuracy(source / "reward" / "model", held)
    write_json(mark, found)
    return dict(found)


def measured(seed: int, place: Path, model: Path, path: Path) -> dict[str, Any]:
    """Scores, KL to the SFT policy, proxy reward, and how different the replies to one request are."""
    world = World(seed)
    exam = world_exam(world, SIZE, place / "world", seed)
    with Meter(True) as meter:
        sheet = examine(exam, str(model), str(place / "sft" / "model"), path, meter)
    asked = [r for bad in (True, False) for r in requests(world, bad, 48, part="held")]
    replies = rows.said(model, [r.prompt for r in asked], exam.reply_tokens, seed)
    proxy = stages.reward_scores(place / "reward" / "model", [r.prompt for r in asked], replies)
    return summary(sheet) | {"proxy": float(np.mean(proxy)), **diversity(world, model, seed)}


def summary(sheet: Sheet) -> dict[str, Any]:
    """Means of a sheet."""
    names = ("gold reward", "harmless", "helpful", "honest", "refusal", "over-refusal")
    nats = [row[0] for row in sheet.kl.values()]
    texts = np.array(list(sheet.texts.values()))
    return {
        "capability": mean_capability(sheet),
        "tasks": {name: float(np.mean(list(sheet.right[name].values()))) for name in sheet.logprobs},
        "perplexity": float(np.exp(texts[:, 0].sum() / texts[:, 1].sum())),
        "kl": float(np.mean(nats)) if nats else 0.0,
        **{name: mean_said(sheet, name) for name in names},
    }


def diversity(world: World, model: Path, seed: int) -> dict[str, float]:
    """Share of different replies, and of different words at the deciding place, among 8 replies to each of 24 harmless requests."""
    asked = [r.prompt for r in requests(world, False, 24, part="held")]
    replies = np.array(
        rows.said(model, [p for p in asked for _ in range(8)], world.decided + rows.REPLY_ROOM, seed)
    ).reshape(-1, 8)
    place = world.decided - 1
    keys = [[(reply.split() + [""] * 20)[place] for reply in row] for row in replies]
    return {
        "distinct": float(np.mean([len(set(row)) / 8 for row in replies])),
        "distinct keys": float(np.mean([len(set(row)) / 8 for row in keys])),
    }


def best_of_n(seed: int, out: Path, count: int) -> dict[str, Any]:
    """Gold and proxy reward of the best of n replies by the reward model of `count` pairs, n = 1 to 64, from the SFT policy."""
    place = out / f"seed-{seed}"
    mark = place / "variants" / f"best-of-n-{count}.json"
    if mark.exists():
        return dict(json.loads(mark.read_text()))
    plan = base(seed, place)
    source = place if count == 896 else smaller_reward(plan, place, count)
    world = World(seed)
    asked = [r for bad in (True, False) for r in requests(world, bad, 32, part="held") for _ in range(DRAWS)]
    replies = rows.said(place / "sft" / "model", [r.prompt for r in asked], world.decided + rows.REPLY_ROOM, seed + 7)
    proxy = np.array(stages.reward_scores(source / "reward" / "model", [r.prompt for r in asked], replies)).reshape(
        -1, DRAWS
    )
    gold = np.array([score(world, r, said).gold for r, said in zip(asked, replies, strict=True)]).reshape(-1, DRAWS)
    rng = random.Random(seed)
    found = {"seed": seed, "pairs": count, "n": [], "kl": [], "gold": [], "proxy": []}
    for n in (1, 2, 4, 8, 16, 32, 64):
        picked = [rng.sample(range(DRAWS), n) for _ in range(32)]
        best = [
            [(row, max(pick, key=lambda k, row=row: proxy[row, k])) for row in range(len(proxy))] for pick in picked
        ]
        found["n"].append(n)
        found["kl"].append(float(best_of_n_kl(n)))
        found["gold"].append(float(np.mean([gold[cell] for pick in best for cell in pick])))
        found["proxy"].append(float(np.mean([proxy[cell] for pick in best for cell in pick])))
    write_json(mark, found)
    return found


def start(seed: int, out: Path) -> dict[str, Any]:
    """The SFT policy that every variant of a seed starts from."""
    place = out / f"seed-{seed}"
    mark = place / "variants" / "start.json"
    if mark.exists():
        return dict(json.loads(mark.read_text()))
    base(seed, place)
    found = {"seed": seed, "variant": "start"} | measured(seed, place, place / "sft" / "model", place / "sheet.json")
    exam = world_exam(World(seed), SIZE, place / "world", seed)
    with Meter(True) as meter:
        found["pretrained"] = summary(
            examine(exam, str(place / "pretrain" / "model"), None, place / "sheet-pretrain.json", meter)
        )
    write_json(mark, found)
    return dict(found)


def main() -> None:
    """Run what is missing, seed by seed, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/tradeoffs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[], choices=list(VARIANTS))
    parser.add_argument("--report", action="store_true", help="only read what is there")
    chosen = parser.parse_args()
    if not chosen.report:
        torch.set_num_threads(1)
        for seed in chosen.seeds:
            print(start(seed, chosen.out)["gold reward"], flush=True)
            for count in (32, 128, 896):
                best_of_n(seed, chosen.out, count)
            for name in chosen.only or VARIANTS:
                found = run_variant(seed, name, chosen.out)
                shown = {
                    k: round(found[k], 3) for k in ("capability", "gold reward", "harmless", "kl", "proxy", "distinct")
                }
                print(seed, name, shown, round(found["seconds"]), flush=True)
    read = [json.loads(p.read_text()) for p in sorted(chosen.out.glob("seed-*/variants/*.json"))]
    write_report(read, Path(__file__).parent / "pipeline")


if __name__ == "__main__":
    main()
