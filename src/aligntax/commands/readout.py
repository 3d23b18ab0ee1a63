"""How well the untrained model tells harmful requests from harmless ones, as a row of the survey."""

import numpy as np

from ..results import ReadoutRecord
from ..stats import linear_readout
from ..stats.readout import FOLDS
from .materials import Materials
from .phases import Raw

SHARES = (0.05, 0.1, 0.2)
"""Shares of harmless requests at which refusal is read."""


def readout_record(raw: Raw, materials: Materials, seed: int) -> ReadoutRecord | None:
    """The linear readout of the main objective's prompts, alarming ones among the harmless; None for too few of a class."""
    positive, negative = (states[:, -1] for states in raw.activations[materials.main.name])
    alarming = raw.alarming if raw.alarming is not None else negative[:0]
    harmless = np.concatenate([negative, alarming])
    if min(len(positive), len(harmless)) < 2 * FOLDS:
        return None
    found = linear_readout(positive, harmless, SHARES, seed)
    return ReadoutRecord(
        found.auc.value, found.auc.low, found.auc.high, list(SHARES), [c.value for c in found.caught],
        [c.low for c in found.caught], [c.high for c in found.caught], sorted(found.layers), len(positive), len(negative),
        len(alarming), found.doubling.value, found.doubling.low, found.doubling.high,
    )  # fmt: skip
