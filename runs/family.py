"""The same small world at seven widths: surveys and `scale`, loss against parameters, difficulty of alignment against capability.

    python runs/family.py [--out out/family] [--part pretrain survey difficulty speed report]

Same depth, same tokens, same items; learning rate from a fixed grid for each width, chosen on one seed by held-out loss; three
seeds. Every model, survey and number is kept and never made twice. Writes runs/family: family.json,
family.svg, and scale.json, which `aligntax report runs/family` draws.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from family_difficulty import difficulty
from family_figure import figure

from aligntax.cli import main as aligntax
from aligntax.commands.pipeline_model import (
    PackedBlocks,
    Pretraining,
    encode_documents,
    pretrain,
    tiny_model,
    vocabulary,
)
from aligntax.commands.scale import ScaleCommand
from aligntax.lab.world import World, capability_items, safety_rows
from aligntax.models import ModelSpec, load
from aligntax.results import plain
from aligntax.stats import Resampling, fit_power_law

WORLD = World(0, 8)
WIDTHS = (24, 32, 48, 64, 96, 128, 192)
SEEDS = (0, 1, 2)
RATES = (6e-3, 1.2e-2, 2.4e-2)
TOKENS, TRIAL_TOKENS, BATCH = 600_000, 150_000, 8
HELD_SEED, HELD_TOKENS = 10_000, 32_768
PLACE = Path("runs/family")


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """The JSON at `path`, made where it is missing."""
    if not path.exists():
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plain(found), indent=1) + "\n")
    return json.loads(path.read_text())


def plan(tokens: int, rate: float, seed: int) -> Pretraining:
    """A pretraining of this family."""
    return Pretraining(tokens, batch=BATCH, learning_rate=rate, seed=seed, save_every=400)


def held_loss(model: torch.nn.Module) -> float:
    """Nats per token on documents that nobody trained on."""
    blocks = PackedBlocks(encode_documents(WORLD, HELD_TOKENS, HELD_SEED)).blocks
    with torch.no_grad():
        losses = [float(model(input_ids=part, labels=part).loss) for part in blocks.split(16)]
    return float(np.mean(losses))


def accuracy(model: torch.nn.Module) -> dict[str, float]:
    """Share of items of each capability whose right answer has the highest mean log-probability, of four."""
    known, found = vocabulary(), {}
    for name, rows in capability_items(WORLD, 64, seed=1).items():
        texts = [[f"<start> {row['prompt']}".split(), answer.split()] for row in rows for answer in row["choices"]]
        ids = [[known[word] for word in [*prompt, *answer]] for prompt, answer in texts]
        padded = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.long)
        for k, row in enumerate(ids):
            padded[k, : len(row)] = torch.tensor(row)
        with torch.no_grad():
            logs = torch.log_softmax(model(padded).logits, dim=-1)
        scores = [
            float(logs[k, range(len(p) - 1, len(p) + len(a) - 1), ids[k][len(p) :]].mean())
            for k, (p, a) in enumerate(texts)
        ]
        best = np.array(scores).reshape(-1, 4).argmax(axis=1)
        found[name] = float(np.mean(best == np.array([row["gold"] for row in rows])))
    return found


def best_rate(out: Path, width: int) -> float:
    """The rate of the grid with the lowest held-out loss after a quarter of the tokens, on seed 0."""

    def trial(rate: float) -> dict[str, float]:
        folder = out / "rates" / f"{width}-{rate:g}"
        pretrain(WORLD, width, folder, plan(TRIAL_TOKENS, rate, 0))
        loss = held_loss(load(ModelSpec(str(folder))).model)
        shutil.rmtree(folder)
        return {"rate": rate, "loss": loss}

    found = [kept(out / "rates" / f"{width}-{rate:g}.json", lambda rate=rate: trial(rate)) for rate in RATES]
    return float(min(found, key=lambda row: row["loss"])["rate"])


def pretrained(out: Path, width: int, seed: int) -> dict[str, Any]:
    """One model of the family, and what it can do."""

    def make() -> dict[str, Any]:
        rate, began = best_rate(out, width), time.process_time()
        pretrain(WORLD, width, folder(out, width, seed), plan(TOKENS, rate, seed))
        model = load(ModelSpec(str(folder(out, width, seed)))).model
        scores = accuracy(model)
        return {
            "width": width, "seed": seed, "rate": rate, "parameters": model.num_parameters(), "tokens": TOKENS,
            "loss": held_loss(model), "accuracy": scores, "capability": float(np.mean(list(scores.values()))),
            "cpu_seconds": time.process_time() - began,
        }  # fmt: skip

    return dict(kept(out / f"model-{width}-{seed}.json", make))


def folder(out: Path, width: int, seed: int) -> Path:
    """Where a model lies."""
    return out / "models" / f"{width}-{seed}"


def inputs(out: Path) -> tuple[str, list[str]]:
    """Files for `survey`: requests of both classes, and the tasks."""
    place = out / "inputs"
    files = capability_items(WORLD, 192) | {"requests": safety_rows(WORLD, 96)}
    for name, rows in files.items():
        path = place / f"{name}.jsonl"
        if not path.exists():
            place.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(place / "requests.jsonl"), [str(place / f"{name}.jsonl") for name in files if name != "requests"]


def surveyed(out: Path, width: int, seed: int) -> Path:
    """The ordinary survey of one model."""
    place = out / "surveys" / f"w{width}-s{seed}"
    if not (place / "survey.json").exists():
        requests, tasks = inputs(out)
        words = [
            "survey", str(folder(out, width, seed)), "--out", str(place), "--size", "full", "--safety", requests,
            "--tasks", *tasks, "--refusal-tokens", "sorry", "--no-linearity", "--quiet",
        ]  # fmt: skip
        if aligntax(words):
            raise SystemExit(f"the survey of width {width}, seed {seed} failed")
        shutil.rmtree(place / "shards")
    return place


def speed(width: int, steps: int = 24) -> dict[str, float]:
    """Tokens a CPU second of pretraining and of bare steps (forward, backward, clip, AdamW) on the same blocks, in turns."""
    blocks = PackedBlocks(encode_documents(WORLD, steps * BATCH * 128)).blocks
    found: dict[str, list[float]] = {"trainer": [], "bare": []}
    for _ in range(3):
        model = tiny_model(width)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
        began = time.process_time()
        for part in blocks.split(BATCH):
            model(input_ids=part, labels=part).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        found["bare"].append(blocks.numel() / (time.process_time() - began))
        with tempfile.TemporaryDirectory() as place:
            one, long = (trained_in(Path(place) / name, width, n) for name, n in (("one", 1), ("long", steps + 1)))
        found["trainer"].append(steps * BATCH * 128 / (long - one))
    middle = {name: float(np.median(values)) for name, values in found.items()}
    return {"width": width, **middle, "ratio": middle["trainer"] / middle["bare"]}


def trained_in(place: Path, width: int, steps: int) -> float:
    """CPU seconds of a pretraining of `steps` steps."""
    began = time.process_time()
    pretrain(WORLD, width, place, Pretraining(steps * BATCH * 128, batch=BATCH, save_every=10**6))
    return time.process_time() - began


def fits(models: list[dict[str, Any]], hard: list[dict[str, Any]]) -> dict[str, Any]:
    """Loss against parameters, and difficulty against capability; seeds are points of their own."""
    sizes, losses = [m["parameters"] for m in models], [m["loss"] for m in models]
    found = {
        "loss": fit_power_law(sizes, losses),
        "loss_with_floor": fit_power_law(sizes, losses, floor=True),
    }
    able = {(m["width"], m["seed"]): m["capability"] for m in models}
    for method in ("sft", "dpo"):
        rows = [(able[h["width"], h["seed"]], h[method]["kl"]) for h in hard if h[method]["kl"]]
        if len({c for c, _ in rows}) >= 4:
            law = fit_power_law(*zip(*rows, strict=True), resampling=Resampling(2000))
            found[f"difficulty_{method}"] = {
                **plain(law), "superlinear": law.superlinear, "models": len(rows), "of": len(hard)
            }  # fmt: skip
    return {name: plain(law) for name, law in found.items()}


def report(out: Path) -> None:
    """Everything in one file and one figure."""
    models = [pretrained(out, width, seed) for seed in SEEDS for width in WIDTHS]
    hard = [kept(out / f"difficulty-{w}-{s}.json", dict) for s in SEEDS for w in WIDTHS]
    surveys = [str(surveyed(out, width, seed)) for seed in SEEDS for width in WIDTHS]
    ScaleCommand(tuple(surveys), out=out / "scale", depth=0.5).execute()
    speeds = [json.loads(path.read_text()) for path in sorted(out.glob("speed-*.json"))]
    found = {
        "world": plain(WORLD), "tokens": TOKENS, "batch_blocks": BATCH, "rates": RATES, "models": models, "speed": speeds,
        "difficulty": hard, "fits": fits(models, hard),
    }  # fmt: skip
    PLACE.mkdir(parents=True, exist_ok=True)
    (PLACE / "family.json").write_text(json.dumps(plain(found), indent=1) + "\n")
    (PLACE / "family.svg").write_text(figure(found))
    shutil.copy(out / "scale" / "scale.json", PLACE / "scale.json")


def main() -> None:
    """Run the parts that are asked for, each model once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/family"))
    parser.add_argument("--part", nargs="*", default=["pretrain", "survey", "difficulty", "speed", "report"])
    args = parser.parse_args()
    for seed in SEEDS:
        for width in WIDTHS:
            if "pretrain" in args.part:
                print(json.dumps(pretrained(args.out, width, seed)), flush=True)
            if "survey" in args.part:
                print(surveyed(args.out, width, seed), flush=True)
            if "difficulty" in args.part:
                where = args.out / f"difficulty-{width}-{seed}.json"
                print(kept(where, lambda w=width, s=seed: difficulty(WORLD, folder(args.out, w, s), w, s)), flush=True)
    if "speed" in args.part:
        for width in WIDTHS:
            print(kept(args.out / f"speed-{width}.json", lambda width=width: speed(width)), flush=True)
    if "report" in args.part:
        report(args.out)


if __name__ == "__main__":
    main()
