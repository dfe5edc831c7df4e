"""Packs arrays of numbers into few bytes, for a file or another process, and takes them out again."""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


_LIMB: Final = 62  # bits of the lower part of a large number


def limbs(numbers: Sequence[int]) -> NDArray[np.int64]:
    """Turn whole numbers below 2¹²⁴ into an array, shape (n, 2)."""
    return np.array([divmod(number, 1 << _LIMB) for number in numbers], dtype=np.int64)


def of_limbs(array: NDArray[Any]) -> list[int]:
    """Take the numbers out again."""
    return [(high << _LIMB) + low for high, low in array.tolist()]


def packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Pack arrays by name. Whole numbers take no more bytes each than the largest of them needs."""
    file = io.BytesIO()
    narrow: dict[str, Any] = {name: _narrow(values) for name, values in arrays.items()}
    np.savez(file, **narrow)
    return zlib.compress(file.getvalue(), 1)  # higher levels take ten times as long for a tenth less


def unpacked(data: bytes) -> dict[str, NDArray[Any]]:
    """Take out what was packed; whole numbers have the type that they were packed with.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with np.load(io.BytesIO(zlib.decompress(data)), allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, zlib.error) as error:
        raise ValueError(f"packed numbers are damaged: {error}") from error


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype != np.int64 or not values.size:
        return values
    least, most = values.min(), values.max()
    kinds = (np.int8, np.int16, np.int32, np.int64)
    return values.astype(next(k for k in kinds if np.iinfo(k).min <= least and most <= np.iinfo(k).max))
