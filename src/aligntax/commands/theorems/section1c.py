"""Section 1, what is measured: zero-shift gradients on a tiny model (1.2, 1.18) and estimation by simulation (1.17)."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from ...lab.oracles import geometry as oracle
from ...lab.oracles import shifted_model
from ...models import decoder_blocks
from ...probing import Probe, Row, TokenBudget, answer_metric, collate, find_sinks, row_gradients
from ...stats import crossfit_tax, debiased_norm2, debiased_squared_inner, estimate_cosine
from .check import Check
from .gap import gap, unit_draws, worst

WIDTH, LAYERS, VOCAB = 8, 2, 23
PUSHES = 3
FIRST = 1
"""The token that every row begins with."""
STANDARD_ERRORS = 4.0


def _tiny(sink: float) -> PreTrainedModel:
    """A random Llama in double precision; the first token's embedding is `sink` times as long as the others'."""
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=12, num_hidden_layers=LAYERS, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, initializer_range=0.3, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).double().eval().requires_grad_(False)
    model.model.embed_tokens.weight[FIRST] *= sink
    return model


def _rows(rng: np.random.Generator) -> list[Row]:
    """Three rows of different lengths, with answers of different lengths."""
    shapes = ((6, 2), (3, 1), (4, 4))
    return [
        Row((FIRST, *(int(t) for t in rng.integers(2, VOCAB, prompt + answer - 1))), prompt, k)
        for k, (prompt, answer) in enumerate(shapes)
    ]


def _gradient_errors(model: PreTrainedModel, rows: Sequence[Row], kind: str, sinks: tuple[int, ...]) -> list[float]:
    """Zero-shift gradients of one padded batch against rows alone, along a few pushes, relative to the largest slope."""
    device, pushes = torch.device("cpu"), unit_draws(np.random.default_rng(len(kind)), PUSHES, WIDTH)
    probe = Probe(model, device, TokenBudget(4096), kind, sinks, lambda tokens: None)
    batch = collate(rows, range(len(rows)), device)
    found, blocks, errors = row_gradients(probe, batch, answer_metric)[1].numpy(), list(decoder_blocks(model)), []
    for row, gradient in zip(rows, found, strict=True):
        reached = {"all": range(len(row.ids)), "response": range(row.start - 1, len(row.ids)), "last": [row.start - 1]}
        positions = [t for t in reached[kind] if t not in sinks]

        def score(row: Row = row) -> float:
            return shifted_model.answer_score(model, row.ids, row.start)

        expected = shifted_model.shift_slopes(score, blocks, pushes, positions)
        errors.append(gap(gradient @ pushes.T, expected) / float(np.abs(expected).max()))
    return errors


def row_1_2() -> Check:
    """Zero-shift gradients."""
    rng = np.random.default_rng(12)
    return Check(
        "1.2",
        "the gradient at one zero vector per layer and row, from one backward pass, is the capability direction",
        f"row_gradients on a padded batch of a random {LAYERS}-layer Llama, every layer",
        f"central differences: every layer pushed by hand along {PUSHES} directions, rows alone; relative",
        worst(_gradient_errors(_tiny(1.0), _rows(rng), "all", ())),
        3e-4,
    )


def row_1_18() -> Check:
    """Kinds of shift and attention sinks."""
    rng = np.random.default_rng(118)
    model, rows, errors = _tiny(60.0), _rows(rng), []
    sinks = find_sinks(model, rows, TokenBudget(4096), torch.device("cpu"))
    blocks = list(decoder_blocks(model))
    states = [shifted_model.outputs_of(model, blocks, row.ids) for row in rows]
    lists = [shifted_model.long_positions(s, 10.0) for s in states]
    for layer in range(LAYERS):
        common = {t for one in lists for t in one[layer] if 2 * sum(t in other[layer] for other in lists) >= len(rows)}
        errors.append(float(set(sinks.by_layer[layer]) != common or common != {0}))
        usual = [
            float(np.linalg.norm(x))
            for own, long in zip(states, lists, strict=True)
            for t, x in enumerate(own[layer])
            if t not in long[layer]
        ]
        errors.append(gap(sinks.activation_norm[layer], np.median(usual)) / float(np.median(usual)))
    for kind in ("all", "response", "last"):
        errors += _gradient_errors(model, rows, kind, sinks.positions)
    return Check(
        "1.18",
        "a shift reaches all positions, the response or the last prompt token, and never an attention sink",
        "find_sinks and row_gradients of every kind on a random Llama with a planted sink",
        "lengths position by position; central differences with positions listed by hand; relative",
        worst(errors),
        3e-4,
    )


def _off(sample: Sequence[float] | np.ndarray, truth: float) -> float:
    """Distance of a sample's mean from the truth in standard errors; nan where the sample holds nan."""
    values = np.asarray(sample, dtype=float)
    return float(abs(values.mean() - truth) / (values.std(ddof=1) / np.sqrt(values.size)))


def _loops(rng: np.random.Generator) -> list[float]:
    """Closed forms against explicit loops over groups."""
    errors = []
    for _ in range(5):
        v, u = rng.standard_normal((2, 6, 4)) + 1.0
        errors.append(gap(debiased_norm2(v), oracle.pair_mean(v, v)))
        table, squared = v @ u.T, oracle.quadruple_mean(v @ u.T)
        errors.append(gap(debiased_squared_inner(table), squared))
        found, norms = estimate_cosine(v, u), oracle.pair_mean(v, v) * oracle.pair_mean(u, u)
        errors += [gap(found.value, oracle.pair_mean(v, u) / np.sqrt(norms)), gap(found.tax, squared / norms)]
    return errors


def _shared_noise(rng: np.random.Generator, draws: int) -> list[float]:
    """True cosines 0 and .5, half of the noise shared: the mean estimate, and how often its interval misses."""
    off = []
    for cosine in (0.0, 0.5):
        values, missed = [], []
        for _ in range(draws):
            v = unit_draws(rng, 24)
            (u,) = oracle.at_cosines(v, np.array([cosine]), rng)
            noise = rng.standard_normal((3, 8, 24)) * 0.2
            found = estimate_cosine(v + noise[0] + noise[2], u + noise[1] + noise[2])
            values.append(found.value)
            missed.append(not found.low <= cosine <= found.high)
        off.append(_off(values, cosine) if cosine == 0.0 else gap(np.mean(values), cosine) / 0.02)
        off.append(max(0.0, (np.mean(missed) - 0.1) / np.sqrt(0.09 / draws)))
    return off


def row_1_17() -> Check:
    """Estimation from noisy samples."""
    rng, draws = np.random.default_rng(117), 200
    off = _shared_noise(rng, draws)
    for d in (4, 64):
        pairs = rng.standard_normal((2, 10 * draws, 8, d))
        off.append(_off(debiased_squared_inner(pairs[0] @ np.swapaxes(pairs[1], -1, -2)), 0.0))
    joint, d = [], 20
    for _ in range(draws // 3):
        span = np.linalg.qr(rng.standard_normal((d, 3)))[0].T
        v, mix = unit_draws(rng, d) + span.sum(0), rng.standard_normal((3, 3))
        noisy = (mix @ span)[:, None] + 1e-4 * rng.standard_normal((3, 8, d))
        found = crossfit_tax(v + rng.standard_normal((8, d)) * 0.5, noisy, splits=10)
        joint.append(found.value - oracle.share_inside(v, mix @ span))
    off.append(_off(joint, 0.0))
    return Check(
        "1.17",
        "cosines and taxes from group means are free of noise bias, also where items are shared; intervals cover",
        f"estimate_cosine, debiased_squared_inner, debiased_norm2, crossfit_tax on {draws} simulated surveys and more",
        "planted directions, in standard errors; loops over distinct groups (1e-9 counts as 4)",
        worst([*off, STANDARD_ERRORS * worst(_loops(rng)) / 1e-9]),
        STANDARD_ERRORS,
    )
