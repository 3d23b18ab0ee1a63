"""A logistic model over named features, kept as safetensors and JSON: no pickle, no fitting library needed to judge."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from aligntax.errors import JudgeError


@dataclass(frozen=True)
class LinearModel:
    """`P(class | x) = 1 / (1 + exp(-(b + sum_i w_i x_i)))` over features by name; an unknown feature counts nothing.

    `weights` (n_features,) in nats of log-odds per unit of a feature, `bias` in nats. The bias is shifted so that the threshold
    chosen in fitting is 0.5.
    """

    names: tuple[str, ...]
    weights: NDArray[np.float64]
    bias: float

    def log_odds(self, features: Mapping[str, float]) -> float:
        """Log-odds of the class, in nats."""
        place = self._places
        return self.bias + sum(float(self.weights[place[name]]) * x for name, x in features.items() if name in place)

    def probability(self, features: Mapping[str, float]) -> float:
        """Probability of the class in [0, 1]."""
        return 0.5 * (1.0 + math.tanh(0.5 * self.log_odds(features)))

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}


def write_models(models: Mapping[str, LinearModel], facts: Mapping[str, object], stem: Path) -> None:
    """Write `stem.safetensors` (weights and bias of each model) and `stem.json` (vocabularies and facts, such as hashes)."""
    arrays: dict[str, NDArray] = {}
    for name, model in models.items():
        arrays[f"{name}.weights"] = model.weights.astype(np.float32)
        arrays[f"{name}.bias"] = np.array([model.bias], dtype=np.float32)
    stem.with_suffix(".safetensors").write_bytes(save(arrays))
    record = {**facts, "vocabulary": {name: list(model.names) for name, model in models.items()}}
    stem.with_suffix(".json").write_text(json.dumps(record, ensure_ascii=False, indent=0, sort_keys=True) + "\n")


def read_models(folder: Traversable, name: str) -> tuple[dict[str, LinearModel], dict[str, object]]:
    """The models and facts that `write_models` left under `folder/name`; JudgeError when they are missing or do not match."""
    try:
        arrays = load(folder.joinpath(f"{name}.safetensors").read_bytes())
        facts: dict[str, object] = json.loads(folder.joinpath(f"{name}.json").read_text("utf-8"))
        vocabulary = facts.pop("vocabulary")
        assert isinstance(vocabulary, dict)
        models = {
            key: LinearModel(tuple(names), arrays[f"{key}.weights"].astype(np.float64), float(arrays[f"{key}.bias"][0]))
            for key, names in vocabulary.items()
        }
    except (OSError, ValueError, KeyError, AssertionError, SafetensorError) as error:
        raise JudgeError(f"judge {name!r} cannot be read ({type(error).__name__}); install aligntax again") from error
    if any(len(model.names) != len(model.weights) for model in models.values()):
        raise JudgeError(f"judge {name!r} has a vocabulary and weights of different lengths; fit it again")
    return models, facts
