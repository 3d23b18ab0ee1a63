"""Difference in means at every layer, by this package and by others, on the same prompts.

Each contender returns directions `{layer: (d,)}`. `repeng` estimates something else (the first principal component of
the paired differences), so its cosine only informs. Published versions ask for older libraries than this package: the extra
`bench` brings repeng with the numpy it wants, and steering-vectors is installed with `--no-deps` (see README.md).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from aligntax.commands.materials import Encoder
from aligntax.models import LoadedModel
from aligntax.probing import Probe, tail_activations

os.environ["TQDM_DISABLE"] = "1"  # their progress bars are not what is measured

Directions = dict[int, np.ndarray]


@dataclass(frozen=True)
class Prompts:
    """Harmful and harmless prompts: as the user wrote them, and as text with the chat template around it."""

    harmful: Sequence[str]
    harmless: Sequence[str]
    harmful_chat: Sequence[str]
    harmless_chat: Sequence[str]


def make_prompts(loaded: LoadedModel, encoder: Encoder, classes: tuple[Sequence[str], Sequence[str]]) -> Prompts:
    """Wrap both classes. Raises ValueError where a peer that tokenizes the text would not read the same tokens."""
    texts: list[list[str]] = []
    for prompts in classes:
        rows = encoder.prompts("prompts", prompts).rows
        texts.append([str(loaded.tokenizer.decode(list(row.ids))) for row in rows])
        for row, text in zip(rows, texts[-1], strict=True):
            if tuple(loaded.tokenizer(text)["input_ids"]) != row.ids:
                raise ValueError(f"this tokenizer reads {text[:60]!r} as other tokens than the chat template gives")
    return Prompts(classes[0], classes[1], texts[0], texts[1])


def ours(probe: Probe, encoder: Encoder, prompts: Prompts) -> Directions:
    """This package, chat template and tokenizer included."""
    harmful = encoder.prompts("harmful", prompts.harmful).rows
    harmless = encoder.prompts("harmless", prompts.harmless).rows
    values = tail_activations(probe, [*harmful, *harmless], 1)[:, 0]
    return dict(enumerate(values[: len(harmful)].mean(0) - values[len(harmful) :].mean(0)))


def per_prompt(loaded: LoadedModel, prompts: Prompts) -> Directions:
    """What a first script does: one prompt at a time, all hidden states, last token; no last layer, it is normed."""
    means = []
    for texts in (prompts.harmful_chat, prompts.harmless_chat):
        values = []
        for text in texts:
            inputs = loaded.tokenizer(text, return_tensors="pt").to(loaded.device)
            with torch.no_grad():
                states = loaded.model(**inputs, output_hidden_states=True, use_cache=False).hidden_states
            values.append(torch.stack([state[0, -1] for state in states[1:-1]]).float().cpu())
        means.append(torch.stack(values).mean(0))
    return dict(enumerate((means[0] - means[1]).numpy()))


def steering_vectors(loaded: LoadedModel, prompts: Prompts, batch_size: int) -> Directions:
    """`steering_vectors.train_steering_vector` with its mean aggregator."""
    from steering_vectors import train_steering_vector

    pairs = list(zip(prompts.harmful_chat, prompts.harmless_chat, strict=True))
    vector = train_steering_vector(loaded.model, loaded.tokenizer, pairs, batch_size=batch_size)
    return {layer: value.float().cpu().numpy() for layer, value in vector.layer_activations.items()}


def repeng(loaded: LoadedModel, prompts: Prompts) -> Directions:
    """`repeng.ControlVector.train` as it comes: principal component of paired differences, batches of 32."""
    from repeng import ControlVector, DatasetEntry

    pairs = [DatasetEntry(a, b) for a, b in zip(prompts.harmful_chat, prompts.harmless_chat, strict=True)]
    return ControlVector.train(loaded.model, loaded.tokenizer, pairs).directions


def lowest_cosine(first: Directions, second: Directions) -> float:
    """Lowest cosine over the layers that both have."""
    shared = sorted(first.keys() & second.keys())
    pairs = [(first[k].astype(np.float64), second[k].astype(np.float64)) for k in shared]
    return min(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs)


def attempt(action: Callable[[], Directions]) -> Directions | str:
    """What a contender finds, or why it does not run here, in one line."""
    try:
        return action()
    except Exception as error:  # whatever a peer raises is the finding
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
