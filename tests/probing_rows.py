"""Rows and a probe that the tests of probing share."""

import numpy as np
import torch
from conftest import VOCAB

from aligntax.probing import Probe, Row, TokenBudget

GROUPS = np.array([0, 1, 0, 1, 2])
"""Group of each of the five items of `make_rows`."""


def make_probe(model, tokens=4096, shift="all", sinks=(), advance=lambda n: None) -> Probe:
    """A probe on the CPU."""
    return Probe(model, torch.device("cpu"), TokenBudget(tokens), shift, sinks, advance)


def make_rows(seed: int = 0) -> list[Row]:
    """Five items in nine rows: three plain answers and two gold answers with distractors, of many lengths."""
    rng = np.random.default_rng(seed)
    plan = [(0, 1.0, 7, 3), (1, 1.0, 4, 1), (2, 1.0, 11, 4)]
    plan += [(3, 1.0, 5, 2), (3, -0.5, 5, 4), (3, -0.5, 5, 1), (4, 1.0, 9, 2), (4, -0.5, 9, 2), (4, -0.5, 9, 5)]
    return [
        Row(tuple(int(t) for t in rng.integers(7, VOCAB, prompt + answer)), prompt, item, weight)
        for item, weight, prompt, answer in plan
    ]
