"""What may enter the recovery formulas: each check returns the number it was given or raises, repeating the value."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligntax.errors import DepthError

Array = NDArray[np.float64]


def open_fraction(values: Any, name: str) -> Array:
    """Float64 array strictly between 0 and 1. Raises DepthError with the first value that is not."""
    array = _numbers(values, name)
    _refuse(array, ~((array > 0.0) & (array < 1.0)), name, "it lies strictly between 0 and 1")
    return array


def closed_fraction(values: Any, name: str) -> Array:
    """Float64 array in [0, 1]. Raises DepthError with the first value that is not."""
    array = _numbers(values, name)
    _refuse(array, ~((array >= 0.0) & (array <= 1.0)), name, "it lies in [0, 1]")
    return array


def not_negative(values: Any, name: str) -> Array:
    """Finite float64 array `>= 0`. Raises DepthError with the first value that is not."""
    array = _numbers(values, name)
    _refuse(array, ~((array >= 0.0) & np.isfinite(array)), name, "it is finite and >= 0")
    return array


def discount(values: Any, name: str = "gamma") -> Array:
    """Float64 array in (0, 1]. Raises DepthError with the first value that is not."""
    array = _numbers(values, name)
    _refuse(array, ~((array > 0.0) & (array <= 1.0)), name, "a discount lies in (0, 1]")
    return array


def _numbers(values: Any, name: str) -> Array:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DepthError(f"{name}={values!r} is not a number or an array of numbers") from None


def _refuse(array: Array, bad: NDArray[np.bool_], name: str, rule: str) -> None:
    if bad.any():
        raise DepthError(f"{name}={float(array[bad].ravel()[0])}: {rule}")
