"""Rollouts with shared prefixes against independent ones: the same starts, the same limits, the same memory budget.

Two pieces of an audit. *Attack*: greedy replies after 0, 1, 2, 5, 10, 20, 40 and 80 tokens of each request's continuation.
*Horizon*: at the same depths two continuations each of sampled responses, which independent rollouts draw twice and ours once,
because a response is the first continuation of its own prefixes. The rival `batched` is Hugging Face's `generate` on
padded batches, as the survey uses it, and `one by one` a row at a time. The continuations are the model's own text, or tokens
that it would never say (`foreign`): then no greedy reply runs into a longer prefill. The goal of 2x holds for own text, for the
horizon, and against one by one. Foreign text in batches has none: there only the prefixes are saved, and decoding is most of
the work.

By default a random Llama of 30 million parameters and a 32k vocabulary, without an end-of-text, so that every reply takes all its
tokens; with --model a checkpoint. Greedy ids are compared as well: the share of replies that are the same to the last token.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from measure import Line, Run, calibrated, interleaved, options, ratio, spread
from transformers import LlamaConfig, LlamaForCausalLM

from aligntax.audit import DEPTHS, ModelSampler
from aligntax.models import ModelSpec, Rollout, Start, load, text_config
from aligntax.probing import Probe, TokenBudget, generate

Starts = list[Start]


def random_model(device: str) -> Any:
    """A Llama of width 384 and 8 layers with random weights, no end-of-text."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.08,
        tie_word_embeddings=True,
        eos_token_id=None,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False).to(device)


def independent(model: Any, starts: Starts, budget: int, device: str) -> list[list[int]]:
    """`generate` on whole rows, starts of one limit and kind together, nothing shared."""
    probe = Probe(model, torch.device(device), TokenBudget(budget), "all", (), lambda tokens: None)
    found: list[list[int]] = [[] for _ in starts]
    for limit, drawn in sorted({(s.new_tokens, s.seed is not None) for s in starts}):
        chosen = [k for k, s in enumerate(starts) if (s.new_tokens, s.seed is not None) == (limit, drawn)]
        for k, ids in zip(chosen, generate(probe, [starts[k].ids for k in chosen], limit, drawn, 0), strict=True):
            found[k] = ids
    return found


def attack_starts(prompts: Sequence[tuple[int, ...]], texts: Sequence[tuple[int, ...]], limit: int) -> Starts:
    """Greedy starts at every depth of every text."""
    return [Start(p, t[:depth], limit) for p, t in zip(prompts, texts, strict=True) for depth in DEPTHS]


def second_starts(
    prompts: Sequence[tuple[int, ...]], responses: Sequence[Sequence[int]], limit: int, salt: int
) -> Starts:
    """One sampled continuation of every prefix of every response, up to the same limit."""
    pairs = enumerate(zip(prompts, responses, strict=True))
    return [
        Start(p, tuple(r[:depth]), limit - depth, salt + 1000 * k + depth)
        for k, (p, r) in pairs
        for depth in DEPTHS
        if depth < min(limit, len(r) + 1)
    ]


def shared_horizon(sampler: ModelSampler, prompts: Sequence[tuple[int, ...]], limit: int) -> list[Rollout]:
    """Responses, then one more continuation from each of their prefixes."""
    responses = sampler([Start(p, (), limit, k) for k, p in enumerate(prompts)])
    return responses + sampler(second_starts(prompts, [r.ids for r in responses], limit, 10**6))


def independent_horizon(model: Any, prompts: Sequence[tuple[int, ...]], sizes: tuple[int, int], device: str) -> None:
    """Responses, then two continuations from each of their prefixes."""
    limit, budget = sizes
    responses = independent(model, [Start(p, (), limit, k) for k, p in enumerate(prompts)], budget, device)
    second = second_starts(prompts, responses, limit, 10**6)
    independent(model, second + [replace(s, seed=(s.seed or 0) + 1) for s in second], budget, device)


def agreement(found: Sequence[Rollout], rival: Sequence[Sequence[int]]) -> float:
    """Share of replies that are the same to the last token."""
    return float(np.mean([list(a.ids) == list(b) for a, b in zip(found, rival, strict=True)]))


def against(name: str, seconds: dict[str, list[float]], run: Run) -> None:
    """Every rival over shared rollouts; foreign text in batches has no goal."""
    shared = statistics.median(seconds["shared"])
    for rival in [other for other in seconds if other != "shared"]:
        run.add(
            Line(
                f"{name}: {rival} / shared",
                ratio(seconds[rival], seconds["shared"]),
                "" if (name, rival) == ("attack, foreign text", "batched") else ">= 2",
                spread(seconds["shared"]),
                unit="s",
                ours=shared,
                peers={rival: statistics.median(seconds[rival])},
                better="more",
            )
        )


def attacks(run: Run, name: str, starts: Starts, world: tuple[Any, ModelSampler], given: argparse.Namespace) -> None:
    """Greedy replies to one set of starts, and how many are the same."""
    (model, sampler), budget, device = world, given.budget, given.device
    actions: dict[str, Callable[[], Any]] = {
        "shared": lambda: sampler(starts),
        "batched": lambda: independent(model, starts, budget, device),
    }
    if given.single:
        actions["one by one"] = lambda: independent(model, starts, 1, device)
    against(f"attack, {name} text", interleaved(actions, given.repeats, device), run)
    same = agreement(sampler(starts), independent(model, starts, budget, device))
    run.add(Line(f"attack, {name} text: same greedy replies", same, unit="share", detail=True))


def horizon(run: Run, prompts: Sequence[tuple[int, ...]], world: tuple[Any, ModelSampler], given: Any) -> None:
    """Pairs of sampled continuations at every depth."""
    (model, sampler), limit = world, given.new_tokens
    actions: dict[str, Callable[[], Any]] = {
        "shared": lambda: shared_horizon(sampler, prompts, limit),
        "batched": lambda: independent_horizon(model, prompts, (limit, given.budget), given.device),
    }
    against("horizon", interleaved(actions, given.repeats, given.device), run)


def main() -> None:
    """Attack with own and foreign continuations, horizon; print and save."""
    parser = options(__doc__)
    parser.add_argument("--model", help="a folder or Hub id; default a random Llama")
    parser.add_argument("--requests", type=int, default=4)
    parser.add_argument("--prompt-tokens", type=int, default=60)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--budget", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--single", action="store_true", help="time one row at a time too")
    given = parser.parse_args()
    limit = given.new_tokens
    loaded = load(ModelSpec(given.model, device=given.device)).model if given.model else None
    model = random_model(given.device) if loaded is None else loaded
    rng = np.random.default_rng(0)
    last = min(9000, int(text_config(model).vocab_size))
    head = rng.integers(3, last, given.prompt_tokens // 2).tolist()
    size = given.prompt_tokens - len(head)
    prompts = [tuple(head + rng.integers(3, last, size).tolist()) for _ in range(given.requests)]
    sampler = ModelSampler(model, TokenBudget(given.budget))
    own = [r.ids for r in sampler([Start(p, (), limit) for p in prompts])]
    foreign = [tuple(rng.integers(3, last, max(DEPTHS)).tolist()) for _ in prompts]
    with calibrated(given.device, given.json, str(model.dtype)) as run:
        for name, texts in (("own", own), ("foreign", foreign)):
            attacks(run, name, attack_starts(prompts, texts, limit), (model, sampler), given)
        horizon(run, prompts, (model, sampler), given)


if __name__ == "__main__":
    main()
