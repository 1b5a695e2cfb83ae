"""What k-means accepts as points, and what it says of the rest, as scikit-learn's users expect."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.errors import ConfigError

F64 = npt.NDArray[np.float64]


class DataError(ConfigError, ValueError):
    """The points are not such that they can be clustered; a `ValueError` as scikit-learn's."""


class DataTypeError(ConfigError, TypeError):
    """The points are of a kind that is not supported; a `TypeError` as scikit-learn's."""


class NotFittedError(DataError, AttributeError):
    """The estimator has not been fitted yet."""


def not_fitted(name: str) -> Exception:
    """The error for use before `fit`: scikit-learn's own where that is loaded."""
    message = (
        f"This {name} instance is not fitted yet. Call 'fit' with appropriate arguments "
        "before using this estimator"
    )
    loaded = sys.modules.get("sklearn.exceptions")
    if loaded is not None:
        return loaded.NotFittedError(message)  # type: ignore[no-any-return]
    return NotFittedError(f"{name}", None, "must be fitted first: call `fit`")


def points_of(data: Any, name: str) -> npt.NDArray[Any]:
    """Points as a contiguous array (num_points, dim) of finite float32 or float64.

    Raises:
        DataError: There are none, or not two dimensions, or NaN, infinity or complex numbers.
        DataTypeError: The points are a sparse matrix.
    """
    if hasattr(data, "tocsr"):
        raise DataTypeError(
            f"{name}: X", type(data).__name__, "sparse data is not supported: pass a dense array"
        )
    array = np.asarray(data)
    if array.dtype.kind == "c":
        problem = "Complex data not supported; expected real numbers"
        raise DataError(f"{name}: X", str(array.dtype), problem)
    if array.dtype.kind not in "fiub":
        try:
            array = array.astype(np.float64)
        except TypeError as err:
            problem = f"expected numbers, but {err}: argument must be a string or a number"
            raise DataTypeError(f"{name}: X", str(array.dtype), problem) from err
        except ValueError as err:
            raise DataError(f"{name}: X", str(array.dtype), f"expected numbers: {err}") from err
    if array.ndim != 2:
        problem = (
            f"Expected 2D array, got {array.ndim}D array instead. Reshape your data: "
            "array.reshape(-1, 1) if it has a single feature, array.reshape(1, -1) for one point"
        )
        raise DataError(f"{name}: X", f"an array of shape {array.shape}", problem)
    for axis, what in enumerate(("sample", "feature")):
        if array.shape[axis] == 0:
            problem = (
                f"Found array with 0 {what}(s) (shape={array.shape}) "
                "while a minimum of 1 is required"
            )
            raise DataError(f"{name}: X", f"an array of shape {array.shape}", problem)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    array = np.ascontiguousarray(array)
    _check_finite(array, name)
    return array


def _check_finite(array: npt.NDArray[Any], name: str) -> None:
    for first in range(0, len(array), 1 << 16):
        part = array[first : first + (1 << 16)]
        if not np.isfinite(part).all():
            row = first + int(np.flatnonzero(~np.isfinite(part).all(axis=1))[0])
            problem = (
                f"row {row} contains NaN or infinity; expected finite numbers: "
                "remove such rows or fill them"
            )
            raise DataError(f"{name}: X", "an array with NaN or inf", problem)


def weights_of(weights: Any, num_points: int, name: str) -> F64:
    """Weights of the points, (num_points,) float64; empty where all are 1.

    Raises:
        DataError: They are not one finite number of at least 0 for each point, or all are 0.
    """
    if weights is None:
        return np.empty(0)
    array = np.asarray(weights, np.float64)
    array = np.full(num_points, array) if array.ndim == 0 else np.ascontiguousarray(array)
    if array.shape != (num_points,):
        problem = f"expected one weight for each of {num_points} points, (num_points,)"
        raise DataError(f"{name}: sample_weight", f"an array of shape {array.shape}", problem)
    if not np.isfinite(array).all() or (array < 0).any() or not array.any():
        problem = "expected finite weights of at least 0, not all of them zero"
        raise DataError(f"{name}: sample_weight", weights, problem)
    return np.empty(0) if (array == 1).all() else array


def feature_names(data: Any) -> npt.NDArray[Any] | None:
    """Names of the columns of a data frame, where all are strings."""
    columns = getattr(data, "columns", None)
    if columns is None or not all(isinstance(name, str) for name in columns):
        return None
    return np.asarray(list(columns), object)
