"""Speed and memory of a survey's passes, as ratios within one run.

throughput: tokens/s of the probing pass (gradients of every task's items, task by task, as `aligntax survey` runs them)
over the leanest loop on the same tokens: forward, backward to the embeddings only, all rows sorted together.
memory: peak of a child process that probes, 1x and 8x items, against one that loads the model and runs one bare batch.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from measure import (
    MIB,
    Line,
    Run,
    calibrated,
    current_bytes,
    in_child,
    interleaved,
    options,
    peak_bytes,
    ratio,
    reset_peak,
    spread,
)

from aligntax.commands.materials import Encoder, ItemRows
from aligntax.commands.survey import CPU_TOKENS, GPU_TOKENS
from aligntax.data import BUILTIN_TASKS, ChatFormat, choose_distractors, load_task, load_tasks
from aligntax.models import LoadedModel, ModelSpec, backbone, load, logits_of
from aligntax.probing import (
    Batch,
    Probe,
    Row,
    TokenBudget,
    answer_metric,
    collate,
    find_sinks,
    item_gradients,
    token_batches,
)

GROUPS = 8
PARTS = ("throughput", "memory")
# Few tokens a batch, so that the smallest set of items fills one and every batch is as large.
MEMORY_TASK, MEMORY_ITEMS, MEMORY_TOKENS = "reading", 12, 512
CHILDREN = 3


class Bench:
    """The loaded model and what every part of the benchmark makes from it."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.loaded: LoadedModel = load(ModelSpec(given.model, device=given.device))
        self.device = str(self.loaded.device)
        on_gpu = self.loaded.device.type == "cuda"
        self.budget = given.batch_tokens or (GPU_TOKENS if on_gpu else CPU_TOKENS)
        self.encoder = Encoder(ChatFormat(self.loaded.tokenizer), self.loaded.context_length or 2**20, GROUPS, 0)

    def probe(self, rows: Sequence[Row]) -> Probe:
        """A probe as the survey makes it, sinks found on some rows."""
        plain = Probe(self.loaded.model, self.loaded.device, TokenBudget(self.budget), "all", (), lambda tokens: None)
        return replace(plain, sinks=find_sinks(plain.model, rows, plain.budget, plain.device).positions)

    def items(self, name: str, count: int) -> ItemRows:
        """The first `count` items of a built-in task, one distractor each, as in size 'quick'."""
        items = load_task(name).items[:count]
        return self.encoder.items(name, [choose_distractors(item, 1, 0) for item in items], "plain")

    def batches(self, rows: Sequence[Row]) -> list[Batch]:
        """Ideal batches: all rows sorted by length, within the token budget, already on the device."""
        groups = token_batches([len(row.ids) for row in rows], self.budget)
        return [collate(rows, group, self.loaded.device) for group in groups]

    def bare(self, batches: Sequence[Batch]) -> None:
        """Forward, log-probability of the scored tokens, backward to the embeddings; nothing is kept."""
        model = self.loaded.model
        for batch in batches:
            embedded = model.get_input_embeddings()(batch.ids).detach().requires_grad_()
            hidden = backbone(model)(
                inputs_embeds=embedded, attention_mask=batch.mask, use_cache=False
            ).last_hidden_state
            rows, places = batch.scored.nonzero(as_tuple=True)
            logits = logits_of(model, hidden[rows, places - 1])
            score = logits.gather(-1, batch.ids[rows, places, None]).squeeze(-1) - logits.logsumexp(-1)
            torch.autograd.grad(score.sum(), embedded)


def gradients(probe: Probe, tasks: Sequence[ItemRows]) -> None:
    """The probing pass: group sums of item gradients of every task."""
    for task in tasks:
        item_gradients(probe, task.rows, answer_metric, task.groups, (GROUPS, task.name))


def throughput(bench: Bench, run: Run, items: int, repeats: int) -> None:
    """Probing pass over bare loop, interleaved."""
    tasks = [bench.items(task.name, items) for task in load_tasks(BUILTIN_TASKS())]
    rows = [row for task in tasks for row in task.rows]
    batches, probe = bench.batches(rows), bench.probe([task.rows[0] for task in tasks])
    actions: dict[str, Callable[[], None]] = {
        "probing": lambda: gradients(probe, tasks),
        "bare": lambda: bench.bare(batches),
    }
    bench.bare(batches[:2])
    gradients(probe, tasks[:1])
    seconds = interleaved(actions, repeats, bench.device)
    tokens = sum(len(row.ids) for row in rows)
    speeds = {name: tokens / statistics.median(took) for name, took in seconds.items()}
    run.add(
        Line(
            "probing over bare loop, tokens/s",
            ratio(seconds["bare"], seconds["probing"]),
            ">= 0.9",
            f"{tokens} tokens",
            unit="tokens/s",
            ours=speeds["probing"],
            peers={"bare loop": speeds["bare"]},
        ),
        *(
            Line(f"{name}: seconds", statistics.median(took), "", spread(took), "s", detail=True)
            for name, took in seconds.items()
        ),
    )


def memory(run: Run, arguments: list[str]) -> None:
    """Peaks of children, which share nothing with this process; medians, for an allocator never peaks twice alike."""
    kinds = ("bare", "once", "often")
    found = {kind: [in_child(__file__, [*arguments, "--child", kind]) for _ in range(CHILDREN)] for kind in kinds}
    model = statistics.median(child["loaded"] for child in found["bare"]) / MIB
    bare, probing, more = (statistics.median(child["peak"] for child in found[kind]) / MIB for kind in kinds)
    batch = bare - model
    run.add(
        Line(
            "peak of probing less one batch, over bare model",
            (probing - batch) / model,
            "<= 1.15",
            f"a batch is {batch:.0f} MiB",
            unit="MiB",
            ours=probing - batch,
            peers={"bare model": model},
        ),
        Line("peak of 8x items over 1x", more / probing, "<= 1.02", unit="MiB", ours=more, peers={"1x items": probing}),
    )


def child(bench: Bench, kind: str) -> dict[str, int]:
    """Memory held after loading, and the peak from then on. `once` is every eighth row of `often`, longest first."""
    task = bench.items(MEMORY_TASK, 8 * MEMORY_ITEMS)
    longest = sorted({row.item for row in task.rows}, key=lambda i: -max(len(r.ids) for r in task.rows if r.item == i))
    chosen = set(longest if kind == "often" else longest[::8])
    part = replace(task, rows=tuple(row for row in task.rows if row.item in chosen))
    loaded = current_bytes(bench.device)
    reset_peak(bench.device)
    if kind == "bare":
        bench.bare(bench.batches(part.rows)[:1])
    else:
        gradients(bench.probe(part.rows[:2]), [part])
    return {"loaded": loaded, "peak": peak_bytes(bench.device)}


def model_options(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """The parser of a script that runs a model in rounds: --model, --repeats and --batch-tokens beside what all have."""
    parser = options(description)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--batch-tokens", type=int, default=0, help="tokens a batch (0: as the survey chooses)")
    return parser


def main() -> None:
    """Read arguments, run the chosen parts between two calibrations, print and save."""
    parser = model_options(__doc__, repeats=3)
    parser.add_argument("--items", type=int, default=32, help="items a task (default 32, a shard)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--child", choices=("bare", "once", "often"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    bench = Bench(given)
    if given.child:
        print(json.dumps(child(bench, given.child)))
        return
    with calibrated(bench.device, given.json, str(bench.loaded.dtype)) as run:
        if "throughput" in given.parts:
            throughput(bench, run, given.items, given.repeats)
        if "memory" in given.parts:
            same = ["--model", given.model, "--device", given.device, "--batch-tokens", str(MEMORY_TOKENS)]
            memory(run, same)


if __name__ == "__main__":
    main()
