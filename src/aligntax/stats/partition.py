"""Which group an item belongs to: decided by its key alone, never by its position in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aligntax.errors import AligntaxError


def group_of(keys: Sequence[str], groups: int) -> NDArray[np.int64]:
    """Group of each key, (n,) in [0, groups): rank of its sha256 among the distinct keys, modulo `groups`.

    The order of the keys does not matter, equal keys share a group, and over distinct keys group sizes differ by at
    most one. The rank depends on the whole set, so group all items first and cut into shards afterwards.
    Raises AligntaxError for groups < 1.

    >>> group_of(["a", "b", "c", "d"], 2).tolist() == group_of(["d", "c", "b", "a"], 2).tolist()[::-1]
    True
    """
    if groups < 1:
        raise AligntaxError(f"groups={groups}; give at least 1")
    ranks, _ = _ranks(keys)
    return ranks % groups


def split_hash(keys: Sequence[str], fractions: Sequence[float]) -> NDArray[np.int64]:
    """Part of each key, (n,) in [0, len(fractions)): parts as disjoint as choosing and confirming must be.

    Distinct keys are ordered by sha256, as in `group_of` (so groups are balanced inside every part), and cut at the
    cumulative fractions; each boundary is rounded, so a part is within one key of its share. Order does not matter and
    equal keys never straddle parts. Raises AligntaxError unless fractions are positive and sum to 1.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.ndim != 1 or not len(shares) or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-9:
        raise AligntaxError(f"fractions={list(fractions)}; give positive numbers that sum to 1")
    ranks, distinct = _ranks(keys)
    bounds = np.floor(np.cumsum(shares)[:-1] * distinct + 0.5)
    return np.searchsorted(bounds, ranks, side="right").astype(np.int64)


def _ranks(keys: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    """Dense rank of each key's sha256, and the number of distinct keys."""
    if isinstance(keys, str):
        raise AligntaxError(f"keys={keys!r} is one string; give a sequence of strings")
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
    rank = {digest: i for i, digest in enumerate(sorted(set(digests)))}
    return np.array([rank[digest] for digest in digests], dtype=np.int64), len(rank)
