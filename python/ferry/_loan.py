# SPDX-License-Identifier: LGPL-2.1-or-later
"""Arrays in loaned memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ferry import _native

# Where codec-numpy has the shape in its header, see docs/wire-formats.md. Bytes.
_SHAPE = 16


def loan_array(loan_buffer: Callable[[int, float | None], Any], shape: Any, dtype: Any, timeout: float | None) -> Any:
    """Return an array in a block of the channel, behind the header that codec-numpy would write.

    Parameters
    ----------
    loan_buffer : callable
        Takes a size in bytes and a time-out, and returns a `ferry.Buffer`.
    shape : int or tuple of int
        The shape of the array.
    dtype : dtype-like
        Its type.
    timeout : float or None
        In seconds.

    Returns
    -------
    numpy.ndarray
        A writable array.
    """
    import numpy

    dtype = numpy.dtype(dtype)
    shape = (int(shape),) if not hasattr(shape, "__len__") else tuple(int(length) for length in shape)
    if dtype.hasobject:
        raise TypeError(f"an array of {dtype} contains objects, which can't lie in shared memory")
    if any(length < 0 for length in shape):
        raise ValueError(f"negative dimensions are not allowed: {shape}")
    # The header of an array that differs only in its shape, which is put in then.
    sample = _native.encode(numpy.zeros((1,) * len(shape), dtype), "numpy")
    offset = len(sample) - dtype.itemsize
    header = bytearray(sample[:offset])
    header[_SHAPE : _SHAPE + 8 * len(shape)] = numpy.array(shape, "<i8").tobytes()
    buffer = loan_buffer(offset + dtype.itemsize * math.prod(shape), timeout)
    with memoryview(buffer) as view:
        view[:offset] = header
    array = numpy.ndarray(shape, dtype, buffer, offset)
    buffer._set_array(array.dtype, offset)
    return array
