"""Cost of reading recovery and KL at every depth in one pass, against a loop over depths, and peak memory of KL.

speed: base against the same weights with an adapter, prompts of the built-in contrast with continuations of 80 random tokens.
Ours reads every depth 0..80 and every position; the loop runs both models once for each of 8 depths, as one writes it with
`model(ids).logits` (plain) or with the head at the last position alone (lean), batched alike. Numbers must agree to 1e-4.
memory: a tiny model with a vocabulary of 150k; peak of a child process over one that has loaded the models.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence

import numpy as np
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
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from aligntax.audit import LiveSide, PairReading, adapter_sides, masses, read_pair
from aligntax.data import ChatFormat, load_contrast
from aligntax.models import ModelSpec, final_hidden, load, logits_of
from aligntax.probing import Row, TokenBudget, collate, token_batches

GRIDS = {
    "as attacked": (0, 1, 2, 5, 10, 20, 40, 80),
    "even": (10, 20, 30, 40, 50, 60, 70, 80),
}
LENGTH = 80
VOCABULARY, POSITIONS, BATCH = 150_000, 128, 8


class Pair:
    """A base, the same with a random adapter, and rows of prompt and continuation."""

    def __init__(self, given: argparse.Namespace) -> None:
        loaded = load(ModelSpec(given.model, device=given.device))
        chat, rng = ChatFormat(loaded.tokenizer), np.random.default_rng(0)
        vocabulary = len(loaded.tokenizer)
        prompts = [chat.encode_prompt(text) for text in load_contrast("harmlessness").positive[: given.prompts]]
        words = rng.integers(min(100, vocabulary // 8), min(10_000, vocabulary), size=(len(prompts), LENGTH)).tolist()
        self.rows = [Row((*p, *w), len(p), k) for k, (p, w) in enumerate(zip(prompts, words, strict=True))]
        config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        self.model = get_peft_model(loaded.model, config).eval().requires_grad_(False)  # type: ignore[arg-type]
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(0.1)
        self.device, self.budget = loaded.device, given.batch_tokens
        self.dtype = str(loaded.dtype).removeprefix("torch.")
        self.recovery = tuple(range(vocabulary // 2, vocabulary // 2 + 20))

    def whole(self) -> PairReading:
        """Ours."""
        base, aligned = adapter_sides(self.model)  # type: ignore[arg-type]
        return read_pair(base, aligned, self.rows, TokenBudget(self.budget), self.device, self.recovery)

    def loop(self, depths: Sequence[int], lean: bool) -> np.ndarray:
        """`(3, n, depths)`: forward KL of the next token, mass under base and aligned."""
        found = np.zeros((3, len(self.rows), len(depths)))
        for j, depth in enumerate(depths):
            cut = [Row(row.ids[: row.start + depth], row.start, row.item) for row in self.rows]
            for group in token_batches([len(row.ids) for row in cut], self.budget):
                batch = collate(cut, group, self.device)
                last = batch.mask.sum(1) - 1
                read = _lean if lean else _plain
                p = read(self.model, batch.ids, batch.mask, last).log_softmax(-1)
                with self.model.disable_adapter():
                    q = read(self.model, batch.ids, batch.mask, last).log_softmax(-1)
                values = [(p.exp() * (p - q)).sum(-1), *(x[:, list(self.recovery)].exp().sum(-1) for x in (q, p))]
                found[:, list(batch.rows), j] = torch.stack(values).cpu().numpy()
        return found


def _plain(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits[torch.arange(len(last), device=last.device), last].float()


def _lean(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        hidden = final_hidden(model, ids, mask)
        return logits_of(model, hidden[torch.arange(len(last), device=last.device), last])


def speed(given: argparse.Namespace, run: Run) -> None:
    """Ours against both loops on either grid of depths."""
    pair = Pair(given)
    run.dtype = pair.dtype
    reading = pair.whole()
    mass = masses(reading)
    actions: dict[str, Callable[[], object]] = {"ours": pair.whole}
    for grid, depths in GRIDS.items():
        for kind, lean in (("plain", False), ("lean", True)):
            found = pair.loop(depths, lean)
            scored = [d for d in depths if d < LENGTH]  # the last prefix is followed by nothing that is scored
            worst = max(
                np.abs(found[0][:, : len(scored)] - reading.forward[:, scored]).max(),
                *(np.abs(found[1 + k] - mass[k][:, list(depths)]).max() for k in range(2)),
            )
            name = f"{grid}, {kind}: largest difference"
            run.add(Line(name, float(worst), "<= 0.0001", "nats and mass", "nats", detail=True))
            actions[f"{grid}, {kind}"] = lambda depths=depths, lean=lean: pair.loop(depths, lean)
    seconds = interleaved(actions, given.repeats, str(pair.device))
    tokens = statistics.mean(len(row.ids) - LENGTH for row in pair.rows)
    note = f"{len(pair.rows)} prompts of {tokens:.0f} tokens on average"
    took = {name: statistics.median(x) for name, x in seconds.items()}
    for name in actions:
        if name != "ours":
            goal = ">= 6" if "plain" in name else ""
            value, peers = ratio(seconds[name], seconds["ours"]), {f"{name} loop": took[name]}
            run.add(Line(f"{name}: loop over ours", value, goal, note, "s", took["ours"], peers, "more"))
        run.add(Line(f"{name}: seconds", took[name], "", spread(seconds[name]), "s", detail=True))


def memory(run: Run) -> None:
    """Peaks of children: KL of 8 responses of 128 tokens, and ten times as many."""
    kinds = ("once", "often", "full")
    found = {kind: in_child(__file__, ["--child", kind, "--device", run.device]) for kind in kinds}
    table = BATCH * POSITIONS * VOCABULARY * 4 / MIB
    peak = {kind: x["peak"] / MIB for kind, x in found.items()}
    over = {kind: (x["peak"] - x["loaded"]) / MIB for kind, x in found.items()}
    run.add(
        Line(
            "peak of KL at a vocabulary of 150k, over one (batch, time, vocab)",
            over["once"] / table,
            "<= 0.5",
            "without the models",
            unit="MiB",
            ours=over["once"],
            peers={"one such tensor": table, "whole logits of both models": over["full"]},
        ),
        Line(
            "peak of 10x responses over 1x",
            peak["often"] / peak["once"],
            "<= 1.1",
            unit="MiB",
            ours=peak["often"],
            peers={"1x responses": peak["once"]},
            detail=True,
        ),
    )


def child(kind: str, device: str) -> dict[str, int]:
    """Memory held with both models loaded, and the peak from then on."""
    models = [_tiny(seed).to(device) for seed in range(2)]  # type: ignore[arg-type]
    count = 10 * BATCH if kind == "often" else BATCH
    rows = [Row(tuple(range(5 + k, 5 + k + POSITIONS + 4)), 4, k) for k in range(count)]
    # A first small run, so that what libraries keep for themselves is not counted.
    read_pair(*map(LiveSide, models), [Row(rows[0].ids[:8], 4, 0)], TokenBudget(64), torch.device(device), (9,))
    loaded = current_bytes(device)
    reset_peak(device)
    if kind == "full":
        ids = torch.tensor([row.ids for row in rows], device=device)
        with torch.no_grad():
            p, q = (model(input_ids=ids).logits.log_softmax(-1) for model in models)
            (p.exp() * (p - q)).sum(-1)
    else:
        budget = TokenBudget(BATCH * (POSITIONS + 4))
        read_pair(*map(LiveSide, models), rows, budget, torch.device(device), (9,))
    return {"loaded": loaded, "peak": peak_bytes(device)}


def _tiny(seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)  # type: ignore[no-any-return]


def main() -> None:
    """Read arguments, run the chosen parts between two calibrations, print and save."""
    parser = options(__doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--batch-tokens", type=int, default=512)
    parser.add_argument("--parts", nargs="+", choices=("speed", "memory"), default=["speed", "memory"])
    parser.add_argument("--child", choices=("once", "often", "full"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(given.child, given.device)))
        return
    with calibrated(given.device, given.json) as run:
        if "memory" in given.parts:
            memory(run)
        if "speed" in given.parts:
            speed(given, run)


if __name__ == "__main__":
    main()
