"""Step time with each protection over the same step without, and what projectors hold in memory.

One TRL trainer a round and protection, in rounds A B A B over copies of one model, so that a slow spell of the machine meets all of
them; the first round, in which memory is first used, and the first step of a round are not counted. Rows are random tokens; what is
held are others. What is made once (moments and eigenvectors, reference states) is told apart, and so is the renewal of capability
gradients, which counts a tenth in each step, as often as it happens. Memory of the null space: bytes of its bases, and of the start
weights that full-weight training keeps, over the bytes of the matrices it protects.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import torch
import trl
from measure import MIB, Line, Run, calibrated, options, ratio, spread, wait
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from aligntax.commands.protections import Settings, build, input_subspaces
from aligntax.data import Encoded
from aligntax.models import ModelSpec, decoder_blocks, load, text_config
from aligntax.probing import Probe, TokenBudget, linear_layers
from aligntax.training import NullSpaceProjection, RecoveryObjective, RecoveryRows, freeze_head

GOALS = {"nullspace": "<= 1.1"}
NAMES = ("plain", "nullspace", "gradient", "directions", "kl", "recovery")
ENERGY, HELD, EVERY = 0.99, 32, 10


class Stopwatch(TrainerCallback):
    """Seconds of every optimizer step, with all that callbacks do before and in it."""

    def __init__(self, device: str) -> None:
        self.device, self._began = device, 0.0
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start; comes before the protections."""
        wait(self.device)
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        wait(self.device)
        self.seconds.append(time.perf_counter() - self._began)


@dataclass
class Arm:
    """One protection on a model of its own; `setup` seconds were spent before training."""

    name: str
    model: Any
    callbacks: list[Any]
    setup: float
    seconds: list[float] = field(default_factory=list)
    renewal: list[float] = field(default_factory=list)

    def train(self, train: Any, tokenizer: PreTrainedTokenizerBase, given: argparse.Namespace, count: bool) -> None:
        """A few steps of a trainer; counted from the second round on."""
        watch = Stopwatch(given.device)
        with tempfile.TemporaryDirectory() as folder:
            args = trl.SFTConfig(
                output_dir=folder, max_steps=given.steps + 1, per_device_train_batch_size=given.batch,
                learning_rate=1e-6, report_to=[], logging_steps=1000, save_strategy="no", disable_tqdm=True,
                use_cpu=given.device == "cpu", bf16=False, gradient_checkpointing=False, max_length=None,
            )  # fmt: skip
            trl.SFTTrainer(
                model=self.model, args=args, train_dataset=train, processing_class=tokenizer,
                callbacks=[watch, *self.callbacks],
            ).train()  # fmt: skip
        if count:
            rest = statistics.median(watch.seconds[1:])
            extra = max(0.0, watch.seconds[0] - rest) if self.name == "gradient" else 0.0
            self.renewal.append(extra)
            self.seconds.append(rest + extra / EVERY)


def rows(count: int, tokens: int, vocabulary: int, seed: int) -> list[Encoded]:
    """Random tokens; the second half of each row is scored."""
    rng = np.random.default_rng(seed)
    return [Encoded(tuple(rng.integers(5, vocabulary, tokens).tolist()), tokens // 2) for _ in range(count)]


def base_model(given: argparse.Namespace) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that is trained: loaded, or a tiny one that only shows that this script runs."""
    if not given.tiny:
        loaded = load(ModelSpec(given.model, None, None, "float32", given.device))
        return loaded.model, loaded.tokenizer
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2)  # fmt: skip
    words = Tokenizer(WordLevel({f"w{k}": k for k in range(97)}, unk_token="w3"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", bos_token="w1", eos_token="w2")
    return LlamaForCausalLM(config).eval().to(given.device), tokenizer  # type: ignore[arg-type]


def made(name: str, base: PreTrainedModel, held: Sequence[Encoded], lora: bool) -> Arm:
    """A copy of the base, ready to train with one protection."""
    model: Any = copy.deepcopy(base)
    device = next(model.parameters()).device
    wait(str(device))
    began = time.perf_counter()
    probe = Probe(model, device, TokenBudget(512), "all", (), lambda _: None)
    subspaces = input_subspaces(probe, held, ENERGY) if name == "nullspace" else {}
    if lora:
        model = get_peft_model(
            model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    else:
        model.requires_grad_(True)
        freeze_head(model)
    if name == "recovery":
        rest = RecoveryRows(held, [row.ids[: row.start] for row in held], held)
        recovery = RecoveryObjective(model, rest, [10, 11, 12])
        wait(str(device))
        return Arm(name, model, [recovery], time.perf_counter() - began)
    width, middle = int(text_config(base).hidden_size), len(decoder_blocks(base)) // 2
    basis = torch.linalg.qr(torch.randn(width, min(14, width // 2)))[0].T.contiguous()
    names = [] if name == "plain" else [name]
    found = build(names, model, (subspaces, held, held, {middle: basis}), Settings(every=EVERY))
    wait(str(device))
    return Arm(name, model, list(found.callbacks), time.perf_counter() - began)


def report(arms: dict[str, Arm], run: Run) -> None:
    """Ratios of step time, seconds, what was made before."""
    took = {name: statistics.median(arm.seconds) for name, arm in arms.items()}
    plain = arms["plain"].seconds
    run.add(Line("plain: step", took["plain"], "", spread(plain), "s", detail=True))
    for name, arm in arms.items():
        if name == "plain":
            continue
        note = spread(arm.seconds) + f", {arm.setup:.3g} s before training"
        if name == "gradient":
            note += f", renewal {statistics.median(arm.renewal):.3g} s every {EVERY} steps"
        goal = GOALS.get(name, "")
        value, peers = ratio(arm.seconds, plain), {"plain step": took["plain"]}
        run.add(Line(f"{name}: step over plain", value, goal, note, "s", took[name], peers, "less"))


def memory(arms: dict[str, Arm], base: PreTrainedModel, run: Run) -> None:
    """Bytes that the null space holds, over those of the matrices that it protects."""
    if "nullspace" not in arms:
        return
    guard = next(c for c in arms["nullspace"].callbacks if isinstance(c, NullSpaceProjection))
    bases = {id(part.basis): part.basis.nbytes for part in guard.subspaces.values()}
    held = {"bases": sum(bases.values()) / MIB, "start weights": sum(w.nbytes for w in guard.starts.values()) / MIB}
    whole = sum(part.get_parameter("weight").nbytes for part in linear_layers(base).values()) / MIB
    ranks = [part.rank / (part.protected().shape[0]) for part in guard.subspaces.values()]
    for name, size in held.items():
        run.add(Line(f"null space: {name} over weights", size / whole, "", "", "MiB", size, {"weights": whole}, "less"))
    share = statistics.median(ranks)
    run.add(Line("null space: median share of inputs protected", share, "", f"energy {ENERGY}", "share", detail=True))


def main() -> None:
    """Read arguments, run the rounds between two calibrations, print and save."""
    parser = options(__doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--lora", action="store_true", help="train adapters of rank 8 instead of all weights")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96, help="of each row; refusals and anchors have about so many")
    parser.add_argument("--steps", type=int, default=3, help="counted steps a round")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds")
    parser.add_argument("--only", nargs="+", choices=NAMES[1:], default=list(NAMES[1:]))
    parser.add_argument("--tiny", action="store_true", help="a model of 2 layers, to see that all of this runs")
    given = parser.parse_args()
    base, tokenizer = base_model(given)
    vocabulary = int(text_config(base).vocab_size)
    # Fewer tokens than inputs in the tiny model would leave no null space.
    held = rows(2 if given.tiny else HELD, 12 if given.tiny else given.tokens, vocabulary, 1)
    train = rows(given.batch * (given.steps + 1), given.tokens, vocabulary, 0)
    ids = [{"input_ids": list(r.ids), "labels": [-100] * r.start + list(r.ids[r.start :])} for r in train]
    with calibrated(given.device, given.json, str(base.dtype)) as run:
        arms = {name: made(name, base, held, given.lora) for name in ("plain", *given.only)}
        for number in range(given.rounds + 1):
            for arm in arms.values():
                arm.train(datasets.Dataset.from_list(ids), tokenizer, given, number > 0)
        report(arms, run)
        memory(arms, base, run)


if __name__ == "__main__":
    main()
