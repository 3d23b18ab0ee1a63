"""From names to callbacks: each protection is made here from what was gathered, and handed to the trainer as a value."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, TrainerCallback

from ..data import Encoded
from ..errors import AligntaxError
from ..geometry import capability_basis
from ..probing import Probe, Row, find_sinks, input_moments
from ..results import Survey, read_arrays, read_survey
from ..training import DirectionPenalty, GradientProjection, NullSpaceProjection, ReferenceKL, Subspace, subspace_of
from ..training.rows import evenly, pad

PROTECTIONS = ("nullspace", "gradient", "directions", "kl", "replay")
LOSS_BATCHES, LOSS_ROWS = 4, 8


@dataclass(frozen=True)
class Settings:
    """How strongly: energy of the protected inputs, weights of the KL and direction terms, steps between renewals, seed.

    `steps`: optimizer steps of all processes together, where they are known.
    """

    energy: float = 0.99
    kl_weight: float = 1.0
    directions_weight: float = 10.0
    every: int = 10
    seed: int = 0
    steps: int | None = None


def listed(text: str) -> tuple[str, ...]:
    """What `a, b` names.

    >>> listed("kl, replay,")
    ('kl', 'replay')
    """
    return tuple(name for name in text.replace(" ", "").split(",") if name)


def parse_protections(text: str) -> tuple[str, ...]:
    """Names in `a,b`. Raises AligntaxError for one that does not exist."""
    names = listed(text)
    unknown = [name for name in names if name not in (*PROTECTIONS, "safety")]
    if unknown:
        raise AligntaxError(f"--protect {text!r}: no protection {unknown[0]!r}; choose from {', '.join(PROTECTIONS)}")
    return tuple("nullspace" if name == "safety" else name for name in names)


def input_subspaces(probe: Probe, rows: Sequence[Encoded], energy: float) -> dict[str, Subspace]:
    """Protected input directions of every matrix in the blocks, sinks left out. Raises AligntaxError naming the layer."""
    plain = [Row(row.ids, len(row.ids), k) for k, row in enumerate(rows)]
    sinks = find_sinks(probe.model, plain[:16], probe.budget, probe.device).positions
    moments = input_moments(replace(probe, sinks=sinks), plain)
    made = {key: subspace_of(moments.sums[key], energy, key) for key in dict.fromkeys(moments.layers.values())}
    return {name: made[key] for name, key in moments.layers.items()}


def loss_batches(rows: Sequence[Encoded]) -> list[dict[str, torch.Tensor]]:
    """A few padded batches with labels on their scored tokens, for capability losses, each a cut through all rows.

    Rows come task by task, so every batch takes rows at even distances: each of them speaks for every task there is room for.
    """
    taken = evenly(rows, LOSS_BATCHES * LOSS_ROWS)
    parts = -(-len(taken) // LOSS_ROWS)
    batches = []
    for first in range(parts):
        ids, mask, scored = pad(taken[first::parts], torch.device("cpu"))
        batches.append({"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(~scored, -100)})
    return batches


def own_survey(folder: str, weights: str | None) -> Survey:
    """The survey in a folder. Raises AligntaxError where it is of other weights."""
    survey = read_survey(Path(folder))
    if survey.provenance.weights_sha256 != weights:
        raise AligntaxError(
            f"--survey {folder} is of weights {str(survey.provenance.weights_sha256)[:12]}, the model has {str(weights)[:12]}; "
            "survey this model first"
        )
    return survey


def survey_subspace(folder: str, weights: str | None) -> dict[int, torch.Tensor]:
    """Orthonormal capability directions `(r, d)` at the layer a survey selected. Raises as `own_survey`."""
    survey = own_survey(folder, weights)
    arrays = read_arrays(Path(folder) / "directions.safetensors")
    tasks = [values[survey.layer] for name, values in arrays.items() if name.startswith("task.")]
    basis = capability_basis(np.stack(tasks).astype(float))
    return {survey.layer: torch.as_tensor(basis.T.copy(), dtype=torch.float32)}


@dataclass(frozen=True)
class Protected:
    """Callbacks to hand to a trainer, and the null-space one among them, whose residual is reported."""

    callbacks: tuple[TrainerCallback, ...]
    nullspace: NullSpaceProjection | None
    ranks: dict[str, int]


def build(
    names: Sequence[str],
    model: PreTrainedModel,
    gathered: tuple[dict[str, Subspace], Sequence[Encoded], Sequence[Encoded], dict[int, torch.Tensor]],
    settings: Settings,
) -> Protected:
    """`gathered`: subspaces of inputs, protected rows, rows whose shift is penalised, subspaces of the residual stream."""
    subspaces, protected, moved, directions = gathered
    callbacks: list[TrainerCallback] = []
    guard = None
    if "nullspace" in names:
        guard = NullSpaceProjection(model, subspaces)
        callbacks.append(guard)
    if "kl" in names:
        callbacks.append(ReferenceKL(model, protected, settings.kl_weight, seed=settings.seed, steps=settings.steps))
    if "directions" in names:
        callbacks.append(DirectionPenalty(model, moved, directions, settings.directions_weight, seed=settings.seed))
    if "gradient" in names:
        callbacks.append(GradientProjection(loss_batches(protected), settings.every, inside=guard))
    return Protected(tuple(callbacks), guard, {name: part.rank for name, part in subspaces.items()})
