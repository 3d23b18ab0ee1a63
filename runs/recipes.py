"""Recipes compared on the embedded model: a resumable queue. Each is trained by the ordinary command, then scored the same way.

    python runs/recipes.py [NAME ...] --out out/recipes [--again]

`matched.py` compares them at matched refusal, for which states along the steps are scored too (NAME@20). Scored on prompts that
training never saw: refusal on held-out harmful prompts, over-refusal on harmless and alarming ones (greedy, 48 tokens, the default
judge), selective and shared loss of every built-in task on unread items in two formats, recovery mass after 0, 1, 5, 20 and 40
tokens of the base's own compliance, KL by position. Texts stay in private shards; the JSON holds numbers.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from aligntax.audit import Case, Examinee, ModelSampler, make_requests, masses
from aligntax.cli import main as aligntax
from aligntax.commands.alignment_texts import recovery_tokens, training_part
from aligntax.commands.audit_gather import Pair, as_rows, audit_items, item_scores, make_model
from aligntax.commands.audit_rates import rate, refused
from aligntax.commands.audit_separation import first_odds, separation_of
from aligntax.commands.audit_sizes import audit_size
from aligntax.commands.audit_tables import kl_record, tax_table
from aligntax.commands.materials import Encoder
from aligntax.data import (
    BUILTIN_TASKS,
    ChatFormat,
    Encoded,
    load_contrast,
    load_tasks,
    look_alikes,
    over_refusal_prompts,
)
from aligntax.judging import default_judge
from aligntax.models import ModelSpec, load
from aligntax.probing import Meter, ShardStore, TokenBudget
from aligntax.results import plain, read_align
from aligntax.stats.separation import area

BASE = "smollm2-135m-instruct"
PUBLIC = Path("../shared/data/prompts")
TOKENS, DEPTHS = 48, (0, 1, 5, 20, 40)
LORA = ["--lora", "--steps", "40"]
MORE = ["--lora", "--lora-rank", "16", "--draws", "4"]
MATCHING = ["--learning-rate", "5e-4", "--batches", "matched", "--anchor-share", "0.6", "--completion-tokens", "24"]
MATCHED = [*MORE, *MATCHING, "--alarming-share", "0.5"]
ALIKE = [*MATCHED, "--look-alikes"]
REQUESTS, TWINS = "REQUESTS", "TWINS"
"""Stand for files of built-in and public training requests, without and with look-alikes, written where needed."""
HARMLESS = [
    f"../shared/data/tasks/{name}.jsonl" for name in ("arc_easy", "jeopardy_all", "openbook_qa", "piqa", "svamp")
]
"""What the control of equal steps learns: public tasks, none of which is scored here."""
RECIPES = {
    "sft": LORA,
    "sft+nullspace": [*LORA, "--protect", "nullspace"],
    "sft+gradient": [*LORA, "--protect", "gradient"],
    "sft+kl": [*LORA, "--protect", "kl"],
    "sft+replay": [*LORA, "--protect", "replay"],
    "sft+recovery": [*LORA, "--depth", "recovery"],
    "sft+kl+recovery": [*LORA, "--protect", "kl", "--depth", "recovery"],
    "sft+augmentation": [*LORA, "--depth", "augmentation"],
    "dpo": [*LORA, "--method", "dpo", "--batch", "4"],
    "dpo+nullspace": [*LORA, "--method", "dpo", "--batch", "4", "--protect", "nullspace"],
    "grpo": ["--lora", "--steps", "60", "--method", "grpo"],
    "harmless": [*LORA, "--goal", "capability", "--protect-items", "64", "--tasks", *HARMLESS],
    "sft+matched": [*MATCHED, "--steps", "120"],
    "sft+matched+recovery": [*MATCHED, "--steps", "120", "--protect", "kl", "--depth", "recovery"],
    "sft+public": [*MATCHED, "--steps", "240", "--safety", REQUESTS],
    "sft+public+kl": [*MATCHED, "--steps", "200", "--safety", REQUESTS, "--protect", "kl"],
    "sft+public+recovery": [*MATCHED, "--steps", "240", "--safety", REQUESTS, "--protect", "kl", "--depth", "recovery"],
    "sft+pairs": [*MORE, *MATCHING, "--alarming-share", "0.35", "--look-alikes", "--steps", "200"],
    "sft+public+alike": [*ALIKE, "--steps", "240", "--safety", TWINS],
    "sft+public+alike+kl": [*ALIKE, "--steps", "240", "--safety", TWINS, "--protect", "kl"],
    "dpo+pairs": [*MORE, "--method", "dpo", "--harmless-pairs", "--batch", "4", "--steps", "80"],
    **{f"sft+recovery,mu={mu},gamma={gamma}": [*LORA, "--depth", "recovery", "--mu", mu, "--gamma", gamma]
       for mu, gamma in (("0.3", "1"), ("3", "1"), ("0.3", "0.9"), ("1", "0.9"), ("3", "0.9"))},
}  # fmt: skip
MERGES = {"merge-uniform": "uniform", "merge-per-layer": "per-layer", "merge-random": "random"}
"""Half of the way from the base to the recipe MERGED, by `aligntax merge` (per layer: fractions from a survey)."""
MERGED = "sft+matched"


def prompts() -> dict[str, list[str]]:
    """Held-out prompts: the audit's part of the built-in ones, and public ones where they are present."""
    contrast = load_contrast("harmlessness")
    harmful = list(training_part(contrast.positive, False))
    harmless = [*training_part(contrast.negative, False), *training_part(over_refusal_prompts(), False)]
    if PUBLIC.exists():
        more = [json.loads(line) for line in (PUBLIC / "harmful_val.jsonl").read_text().splitlines()]
        harmful += [row["prompt"] for row in more][: 96 - len(harmful)]
        harmless += xstest()[1][: 256 - len(harmless)]
    return {"harmful": list(dict.fromkeys(harmful)), "harmless": list(dict.fromkeys(harmless))}


def xstest() -> list[list[str]]:
    """XSTest's unsafe and safe prompts, nearly all of them questions: the form of a prompt does not tell them apart."""
    rows = [json.loads(line) for line in (PUBLIC / "xstest.jsonl").read_text().splitlines()]
    return [[row["prompt"] for row in rows if (row["label"] == "safe") is side] for side in (False, True)]


def score(name: str, folder: str, out: Path, base_said: Path) -> dict[str, object]:
    """Everything measured about one checkpoint against the base."""
    base, aligned = load(ModelSpec(BASE)), load(ModelSpec(folder))
    chat, judge, rng = ChatFormat(aligned.tokenizer), default_judge(), np.random.default_rng(0)
    with Meter(True) as meter:
        store = [ShardStore(base_said, {"weights": m.weights_sha256}) for m in (base, aligned)]
        models = [make_model(m, chat, meter, s, 512, 0) for m, s in zip((base, aligned), store, strict=True)]
        pair = Pair(models[0], models[1], chat, meter, audit_size("quick"), 0)

        def decode(ids: object) -> str:
            return str(chat.tokenizer.decode(list(ids), skip_special_tokens=True))  # type: ignore[call-overload]

        found: dict[str, object] = {"recipe": name}
        said = {}
        for side, model in zip(("base", "aligned"), models, strict=True):
            examinee = Examinee(
                side, ModelSampler(model.loaded.model, TokenBudget(4096)), decode, judge, model.store, 0
            )
            for kind, texts in prompts().items():
                if side == "base" and kind == "harmless" and name != "base":
                    continue
                cases = [Case(r, kind, 0, r.prompt, new_tokens=TOKENS) for r in make_requests(texts, chat)]
                said[side, kind] = examinee.answer(cases)
                if side == "aligned":
                    found[kind] = plain(rate(refused([a.verdict for a in said[side, kind]])))
        fell = [a for a in said["base", "harmful"] if a.ids and not refused([a.verdict])[0]][:32]
        forced = as_rows([Encoded((*a.case.prompt, *a.ids), len(a.case.prompt)) for a in fell], TOKENS)
        own = {kind: said["aligned", kind] for kind in prompts()}
        found["separation"] = plain(separation_of(pair, own, None))
        found["same form"] = same_form(pair)
        reading = pair.read("forced", forced, recovery_tokens(chat))
        mass = [np.nanmean(m, axis=0) for m in masses(reading)]
        kl = kl_record(reading, "forced", rng)
        found["mass"] = {str(d): [float(m[d]) for m in mass] for d in DEPTHS if d < mass[0].size}
        found["kl_forced"] = {"mean": float(np.mean([m for m in kl.mean if m is not None])), "first5": kl.first5_share}
        encoder = Encoder(chat, base.context_length or 2**20, 8, 0)
        scores = {}
        for task in load_tasks(BUILTIN_TASKS()):
            items = audit_items(task, 16, 0)
            scores[task.name] = tuple(item_scores(model, encoder, task.name, items) for model in models)
        taxes = tax_table(scores, {}, rng)
    found["tax"] = {
        t.task: [t.tax, t.low, t.high, t.p_adjusted, t.shared, t.accuracy_before, t.accuracy_after] for t in taxes
    }
    found["tasks_worse"] = [
        t.task for t in taxes if t.p_adjusted is not None and t.p_adjusted <= 0.05 and (t.tax or 0) > 0
    ]
    found["selective_mean"] = float(np.mean([t.tax for t in taxes]))
    found["shared_mean"] = float(np.mean([t.shared for t in taxes]))
    return found


def same_form(pair: Pair) -> dict[str, object]:
    """Area of base and aligned on prompts that form does not tell apart, see `xstest`."""
    if not PUBLIC.exists():
        return {}
    unsafe, safe = xstest()
    requests = make_requests([*unsafe, *safe], pair.chat)
    odds = first_odds(pair, [request.prompt for request in requests], recovery_tokens(pair.chat))
    areas = (area(x[: len(unsafe)], x[len(unsafe) :]) for x in odds)
    return {side: plain(found) for side, found in zip(("base", "aligned"), areas, strict=True)}


def train(name: str, folder: Path, seed: int, texts: Path) -> None:
    """Train a recipe by the ordinary command, unless it is there; a killed run goes on."""
    if (folder / "align.json").exists():
        return
    how = "--resume" if folder.exists() else "--overwrite"
    words = [str(requests(folder.parent, word)) if word in (REQUESTS, TWINS) else word for word in RECIPES[name]]
    run(["align", BASE, "--out", str(folder), "--seed", str(seed), *words, how, "--texts", str(texts)])


def requests(out: Path, kind: str) -> Path:
    """A file of the training part of the built-in requests and all public training requests, harmful look-alikes if asked for."""
    place = out / f"{kind.lower()}.jsonl"
    contrast = load_contrast("harmlessness")
    twins = look_alikes().positive if kind == TWINS else ()
    texts = {True: [*training_part(contrast.positive), *twins], False: list(training_part(contrast.negative))}
    for harmful, name in ((True, "harmful_train"), (False, "harmless_train")):
        lines = (PUBLIC / f"{name}.jsonl").read_text().splitlines()
        texts[harmful] += [json.loads(line)["prompt"] for line in lines]
    rows = [{"prompt": text, "harmful": harmful} for harmful in texts for text in dict.fromkeys(texts[harmful])]
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def run(words: list[str]) -> None:
    """The command line, or the end of this script with its exit code."""
    if code := aligntax(words):
        raise SystemExit(code)


def merge(name: str, out: Path, seed: int, survey: Path) -> str:
    """The folder of a merge of MERGED with the base, made unless it is there."""
    folder, parent = out / f"{name}-{seed}", out / f"{MERGED}-{seed}"
    if not (folder / "merge.json").exists():
        train(MERGED, parent, seed, out / "texts")
        chosen = ["--survey", str(survey)] if MERGES[name] == "per-layer" else []
        where = ["--out", str(folder), "--overwrite"]
        run(["merge", BASE, str(parent / "model"), "--scheme", MERGES[name], *chosen, *where])
    return str(folder)


def cost(folder: Path) -> dict[str, object]:
    """What the record of a training run adds to its scores."""
    record = read_align(folder)
    found: dict[str, object] = {
        "minutes": record.provenance.wall_seconds / 60,
        "seconds_per_step": record.seconds_per_step,
    }
    return found | ({"efficiency": plain(record.efficiency)} if record.efficiency is not None else {})


def main() -> None:
    """Run the recipes that have no result yet, or score those once more that have one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", default=[*RECIPES], help="recipes, or base; NAME@20 is a kept state of step 20"
    )
    parser.add_argument("--out", type=Path, default=Path("out/recipes"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--survey", type=Path, default=Path("out/survey"), help="survey of the base, for merge-per-layer"
    )
    parser.add_argument("--again", action="store_true", help="score what has a result once more, from kept replies")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.names:
        recipe, _, step = name.partition("@")
        folder = given.out / f"{recipe}-{given.seed}"
        result = given.out / f"{recipe}-{given.seed}{'@' + step if step else ''}.json"
        if result.exists() != given.again:
            continue
        checkpoint = BASE
        if name in MERGES:
            checkpoint = merge(name, given.out, given.seed, given.survey)
        elif name != "base":
            if given.again and not (folder / "align.json").exists():
                raise SystemExit(f"--again {name}: {folder} holds no finished run to score once more")
            train(recipe, folder, given.seed, given.out / "texts")
            checkpoint = str(folder / "state" / f"checkpoint-{step}" if step else folder / "model")
        found = score(name, checkpoint, given.out, given.out / "shards")
        if given.again:
            found = json.loads(result.read_text()) | found
        elif recipe in RECIPES and not step:
            found |= cost(folder)
        result.write_text(json.dumps(plain(found), indent=1) + "\n")
        print(json.dumps({k: v for k, v in plain(found).items() if k != "tax"}), flush=True)


if __name__ == "__main__":
    main()
