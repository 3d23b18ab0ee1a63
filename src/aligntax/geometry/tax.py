"""Tax rate: the share of a safety direction that lies inside the span of the capabilities ([G] Def 3.4, Cor 4.5).

Everything is read from a triangular factor of the unit rows, never from a `d x d` projector. Large products go through
numpy alone: numpy and scipy may each own a thread pool, and two pools spinning on the same cores slow each other down.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from aligntax.errors import GeometryError
from aligntax.geometry.arrays import Array, as_array, as_vector, rank_tolerance, unit_rows, unit_vector

# Above this trace of the inverse Gram matrix (a bound on its norm) squared rounding is no longer harmless; then QR.
_GRAM_LIMIT = 1e4


def safety_rows(safety: Any) -> Array:
    """Orthonormal rows `(k, d)` of a safety direction `(d,)` or subspace `(d, k)`.

    Raises GeometryError for a zero direction or for columns that are linearly dependent.
    """
    array = as_array(safety, "safety")
    if array.ndim == 1:
        return unit_vector(array, "safety")[None, :]
    if array.ndim != 2 or array.shape[1] == 0:
        raise GeometryError(f"safety has shape {array.shape}; expected (d,) or (d, k) with k >= 1")
    columns, _ = unit_rows(array.T, "safety (columns as rows)", array.shape[0])
    left, values, _ = np.linalg.svd(columns.T, full_matrices=False)
    rank = int((values > rank_tolerance(safety, array.shape) * values[0]).sum())
    if rank < array.shape[1]:
        raise GeometryError(f"safety has {array.shape[1]} columns of rank {rank}; give linearly independent columns")
    return np.ascontiguousarray(left.T)


def triangle(rows: Array) -> Array:
    """`R` of the QR factorisation of `rows.T`: a short array with the inner products of the rows `(min(n, d), n)`."""
    if rows.shape[0] == 0:
        return np.zeros((0, 0))
    return np.asarray(np.linalg.qr(rows.T, mode="r"))


def _whitening(gram: Array, units: Array, rtol: float) -> Array | None:
    """`W` `(r, m)` with `W U` orthonormal rows, from the Gram matrix of repeated or dependent rows; None if it cannot
    tell.

    The Gram matrix squares rounding, so what it calls null is measured on the rows themselves, to their own precision.
    """
    values, vectors = np.linalg.eigh(gram)
    kept = values > len(values) / _GRAM_LIMIT
    if np.linalg.norm(vectors[:, ~kept].T @ units) > rtol * np.sqrt(values[-1]):
        return None
    return np.asarray(vectors[:, kept].T / np.sqrt(values[kept])[:, None])


def coordinates(units: Array, targets: Array, rtol: float) -> Array:
    """Coordinates `(r, k)` of the projections of target rows `(k, d)` in an orthonormal basis of the span of
    `units`.
    """
    m = units.shape[0]
    if m == 0:
        return np.zeros((0, targets.shape[0]))
    gram = units @ units.T
    with contextlib.suppress(np.linalg.LinAlgError):  # raised where the Gram matrix is singular
        inverse = np.linalg.inv(np.linalg.cholesky(gram))
        if np.square(inverse).sum() < _GRAM_LIMIT:
            return np.asarray(inverse @ (units @ targets.T))
    whitening = _whitening(gram, units, rtol)
    if whitening is not None:
        return np.asarray(whitening @ (units @ targets.T))
    short = triangle(np.concatenate([units, targets]))
    left, values, _ = np.linalg.svd(short[:, :m], full_matrices=False)
    return np.asarray(left[:, values > rtol * values[0]].T @ short[:, m:])


def basis(units: Array, rtol: float) -> Array:
    """Orthonormal columns `(d, r)` spanning the rows of `units` `(m, d)`."""
    if units.shape[0] == 0:
        return np.zeros((units.shape[1], 0))
    q, short = np.linalg.qr(units.T)
    left, values, _ = np.linalg.svd(short, full_matrices=False)
    keep = values > rtol * values[0]
    # A well-conditioned set needs no rotation, which for large m is half the work.
    return np.asarray(q if keep.all() and q.shape[1] == units.shape[0] else q @ left[:, keep])


def tax_rate(safety: Any, capabilities: Any) -> float:
    """Tax rate `tau = |P_C v|^2 = a^T G^+ a`, a fraction in [0, 1] ([G] Def 3.4).

    `safety` is `(d,)` or a subspace `(d, k)`, for which `|P_C V|_F^2 / k` (the mean over its principal angles) is
    returned; the worst direction's tax is `cos(principal_angles(...)[0]) ** 2`. `capabilities` is `(m, d)`; rows need
    not be unit, may be repeated or dependent, and `m = 0` gives 0. Raises GeometryError for zero rows and for nan.

    >>> round(tax_rate([1.0, 0.0, 0.0], [[1.0, 1.0, 0.0]]), 12)
    0.5
    """
    directions = safety_rows(safety)
    units, _ = unit_rows(capabilities, "capabilities", directions.shape[1])
    parts = coordinates(units, directions, rank_tolerance(capabilities, units.shape))
    return float(min(1.0, np.square(parts).sum() / directions.shape[0]))


def signed_cosines(safety: Any, capabilities: Any) -> Array:
    """`a_i = <u_i, v>` in [-1, 1], shape `(m,)`; `a_i^2` is the per-task tax ([G] Cor 4.5).

    A negative sign is a cost of moving along the safety direction, a positive one a subsidy; the squared cosine
    cannot tell.
    """
    direction = unit_vector(as_vector(safety, "safety"), "safety")
    units, _ = unit_rows(capabilities, "capabilities", direction.size)
    return np.asarray(np.clip(units @ direction, -1.0, 1.0))


def sum_tax(safety: Any, capabilities: Any) -> float:
    """`sum_i a_i^2` (mean over a subspace's columns): equals the tax rate only for orthonormal capabilities.

    In [0, m]; overlap makes it larger and suppression smaller than `tax_rate` ([G] Rem 4.6, corrected).
    """
    directions = safety_rows(safety)
    units, _ = unit_rows(capabilities, "capabilities", directions.shape[1])
    return float(np.square(units @ directions.T).sum() / directions.shape[0])


def capability_basis(capabilities: Any) -> Array:
    """Orthonormal basis `(d, r)` of the span of the capability rows `(m, d)`; `r` is their numerical rank."""
    width = as_array(capabilities, "capabilities").shape[-1]
    units, _ = unit_rows(capabilities, "capabilities", width)
    return basis(units, rank_tolerance(capabilities, units.shape))


def principal_angles(safety: Any, capabilities: Any) -> Array:
    """Principal angles between safety and the capability span, radians in [0, pi/2], ascending, shape `(k,)`.

    Small angles come from sines and large ones from cosines, so both keep their digits (Bjorck and Golub). Directions
    beyond the rank of the span count as orthogonal, `pi/2`.
    """
    directions = safety_rows(safety)
    units, _ = unit_rows(capabilities, "capabilities", directions.shape[1])
    span = basis(units, rank_tolerance(capabilities, units.shape))
    parts = directions @ span
    k = directions.shape[0]
    cosines = np.zeros(k)
    found = np.linalg.svd(parts, compute_uv=False) if span.shape[1] else np.zeros(0)
    cosines[: found.size] = np.clip(found, 0.0, 1.0)
    sines = np.clip(np.linalg.svd(directions - parts @ span.T, compute_uv=False)[::-1], 0.0, 1.0)
    return np.asarray(np.where(cosines**2 > 0.5, np.arcsin(sines), np.arccos(cosines)))


@dataclass(frozen=True)
class LayersTax:
    """Tax of every layer: `joint` and `total` `(L,)` are tax rate and `sum a_i^2`, `cosines` `(L, m)` is signed."""

    joint: Array
    total: Array
    cosines: Array


def layers_tax(safety: Any, capabilities: Any) -> LayersTax:
    """Tax rate, signed cosines and their squared sum for `safety` `(L, d)` and `capabilities` `(L, m, d)`.

    Layers are converted one at a time, so memory stays at one layer beyond the input. Errors name the layer.
    """
    if len(safety) != len(capabilities) or len(safety) == 0:
        raise GeometryError(
            f"safety has {len(safety)} layers and capabilities {len(capabilities)}; give one each a layer"
        )
    joint, cosines = [], []
    for layer, (direction, rows) in enumerate(zip(safety, capabilities, strict=True)):
        v = unit_vector(direction, f"layer {layer}: safety")
        units, _ = unit_rows(rows, f"layer {layer}: capabilities", v.size)
        parts = coordinates(units, v[None, :], rank_tolerance(rows, units.shape))
        joint.append(min(1.0, float(np.square(parts).sum())))
        cosines.append(np.clip(units @ v, -1.0, 1.0))
    table = np.asarray(cosines)
    return LayersTax(np.asarray(joint), np.square(table).sum(axis=1), table)
