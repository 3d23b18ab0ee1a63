"""How far two answers are apart, and seeded directions to ask about."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def gap(found: Any, expected: Any) -> float:
    """Largest absolute difference; nan where either holds nan. Raises ValueError for shapes that do not fit."""
    return float(np.abs(np.asarray(found, dtype=float) - np.asarray(expected, dtype=float)).max(initial=0.0))


def worst(errors: Iterable[float]) -> float:
    """The largest of some errors, nan if one is nan."""
    return float(np.max(np.fromiter(errors, dtype=float), initial=0.0))


def unit_draws(rng: np.random.Generator, *shape: int) -> NDArray[np.float64]:
    """Uniform unit vectors along the last axis."""
    draws = rng.standard_normal(shape)
    return np.asarray(draws / np.linalg.norm(draws, axis=-1, keepdims=True))
