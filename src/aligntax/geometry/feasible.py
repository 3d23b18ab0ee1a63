"""Directions from correlations: for questions asked in numbers ("a = .1, b = -.9, rho = -.5") instead of vectors."""

from typing import Any

import numpy as np

from aligntax.errors import GeometryError
from aligntax.geometry.arrays import Array, as_array, as_vector

_SLACK = 1e-9


def _coordinates(gram: Any, values: Array, name: str) -> tuple[Array, Array]:
    """Capability rows `(m, r)` with the given Gram matrix, and `x` `(r,)` with `rows @ x = values`, `|x| <= 1`."""
    g = np.eye(values.size) if gram is None else as_array(gram, "gram")
    if g.shape != (values.size, values.size):
        raise GeometryError(f"gram has shape {g.shape}; expected {(values.size, values.size)}, one row a capability")
    spectrum, vectors = np.linalg.eigh((g + g.T) / 2.0)
    if np.abs(g - g.T).max(initial=0.0) > _SLACK or np.abs(np.diag(g) - 1.0).max(initial=0.0) > _SLACK:
        raise GeometryError(f"gram {g.tolist()} is not symmetric with ones on its diagonal; give cosines")
    if spectrum.min(initial=0.0) < -_SLACK:
        raise GeometryError(f"gram {g.tolist()} has eigenvalue {spectrum[0]:.3g}; no capabilities have these cosines")
    keep = spectrum > 1e-12 * max(1, values.size)
    x = (vectors[:, keep].T @ values) / np.sqrt(spectrum[keep])
    rows = vectors[:, keep] * np.sqrt(spectrum[keep])
    if np.abs(rows @ x - values).max(initial=0.0) > _SLACK or x @ x > 1.0 + _SLACK:
        raise GeometryError(
            f"{name} = {values.tolist()} is not jointly feasible with gram {g.tolist()}: its tax would be "
            f"{x @ x:.6g} or its cosines contradict each other; lower it"
        )
    return rows, x


def directions_with(rho: float, a: Any, b: Any, gram: Any = None) -> tuple[Array, Array, Array]:
    """Unit directions `v1`, `v2` `(r + 2,)` and capability rows `(m, r + 2)` with the given cosines.

    `rho = <v1, v2>`, `a_i = <u_i, v1>`, `b_i = <u_i, v2>`, `gram` `(m, m)` the cosines between capabilities (identity
    by default); `a` and `b` may be numbers for one capability. Feed them to anything that takes directions. Raises
    GeometryError, repeating the numbers, where no directions have these cosines: `|rho - a^T G^+ b|` must be at most
    `sqrt((1-tau_1)(1-tau_2))`.

    >>> v1, v2, rows = directions_with(-0.5, 0.1, -0.9)
    >>> round(float(v1 @ v2), 12), (rows @ v1).round(12).tolist(), (rows @ v2).round(12).tolist()
    (-0.5, [0.1], [-0.9])
    """
    first, second = as_vector(np.atleast_1d(as_array(a, "a")), "a"), np.atleast_1d(as_array(b, "b"))
    second = as_vector(second, "b", first.size)
    wanted = float(as_vector([rho], "rho")[0])
    rows, x = _coordinates(gram, first, "a")
    _, y = _coordinates(gram, second, "b")
    taxes = float(x @ x), float(y @ y)
    left = [float(np.sqrt(1.0 - tax)) if tax < 1.0 - 1e-12 else 0.0 for tax in taxes]
    rest, room = wanted - float(x @ y), left[0] * left[1]
    if abs(rest) > room + _SLACK:
        raise GeometryError(
            f"rho = {rho}, a = {first.tolist()}, b = {second.tolist()} are not jointly feasible: given a and b, rho "
            f"lies in [{x @ y - room:.6g}, {x @ y + room:.6g}]"
        )
    along = float(np.clip(rest / left[0], -left[1], left[1])) if left[0] > 0.0 else 0.0
    beside = float(np.sqrt(max(0.0, (left[1] - along) * (left[1] + along))))
    v1, v2 = np.concatenate([x, [left[0], 0.0]]), np.concatenate([y, [along, beside]])
    return v1, v2, np.hstack([rows, np.zeros((len(rows), 2))])
