"""What enters this room: numpy, torch or lists become finite float64 arrays, rows become unit rows.

All angles are formed between unit vectors, so a row of zeros has no direction and is an error that names the row.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligntax.errors import GeometryError

Array = NDArray[np.float64]

DOUBLE_EPS = float(np.finfo(np.float64).eps)
SINGLE_EPS = float(np.finfo(np.float32).eps)


def to_numpy(values: Any) -> NDArray[Any]:
    """Numpy view of `values`; a torch tensor is detached and brought to the host (known by its methods, not by
    import).
    """
    if hasattr(values, "detach"):
        return np.asarray(values.detach().cpu().double().numpy())
    return np.asarray(values)


def as_array(values: Any, name: str) -> Array:
    """Finite float64 array of `values`.

    Raises GeometryError where an entry is nan or infinite, or is not a number.
    """
    try:
        array = np.asarray(to_numpy(values), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise GeometryError(f"{name} is not an array of numbers: {error}") from None
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise GeometryError(f"{name} holds {array[where]} at index {where}; only finite numbers have a direction")
    return array


def as_vector(values: Any, name: str, size: int | None = None) -> Array:
    """Finite float64 array `(size,)`; `(size, 1)` is accepted. Raises GeometryError for any other shape."""
    array = as_array(values, name)
    if array.ndim == 2 and array.shape[1] == 1 and array.shape[0] != 1:
        array = array[:, 0]
    if array.ndim != 1 or (size is not None and array.size != size):
        raise GeometryError(f"{name} has shape {array.shape}; expected ({'d' if size is None else size},)")
    return array


def as_rows(values: Any, name: str, width: int) -> Array:
    """Finite float64 rows `(m, width)`, `m = 0` allowed. Raises GeometryError for any other shape."""
    array = as_array(values, name)
    if array.size == 0 and array.shape[:1] == (0,):
        return np.zeros((0, width))
    if array.ndim != 2 or array.shape[1] != width:
        raise GeometryError(f"{name} has shape {array.shape}; expected (m, {width}), one direction a row")
    return array


def unit_vector(values: Any, name: str) -> Array:
    """`x / |x|`, shape `(d,)`. Raises GeometryError for the zero vector."""
    array = as_vector(values, name)
    scale = np.abs(array).max(initial=0.0)
    if scale == 0.0:
        raise GeometryError(f"{name} is the zero vector; it has no direction")
    array = array / scale
    return np.asarray(array / np.linalg.norm(array))


def unit_rows(values: Any, name: str, width: int) -> tuple[Array, Array]:
    """Rows of `(m, width)` divided by their norms, and the norms `(m,)`. Raises GeometryError naming a zero row."""
    rows = as_rows(values, name, width)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    if (norms == 0.0).any():
        index = int(np.flatnonzero(norms == 0.0)[0])
        raise GeometryError(f"{name} row {index} is zero and has no direction; leave it out")
    return rows / norms[:, None], norms


def rank_tolerance(values: Any, shape: tuple[int, ...]) -> float:
    """Singular values below this fraction of the largest count as zero.

    Rows stored in single precision are dependent only up to their rounding (6e-8 a row), which a double-precision
    tolerance would read as one more independent direction and book as tax `1/d`.
    """
    name = str(getattr(values, "dtype", "float64"))
    if any(half in name for half in ("float32", "float16")):
        return 10 * SINGLE_EPS
    return max(1e-12, max(shape, default=1) * DOUBLE_EPS)
