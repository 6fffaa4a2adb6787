# SPDX-License-Identifier: LGPL-2.1-or-later
"""Arrays in shared memory, which cross to the workers of an executor and back without being copied.

docs/executor.md tells how they are kept and who may have them.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ferry import _native

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    _DType = TypeVar("_DType", bound=numpy.generic)

__all__ = ["share", "shared_array"]

#: From how many bytes on an argument is placed in shared memory of its own, to be found there when it comes again.
LARGE = 4 << 20
#: How many such copies are kept, and which part of the machine's memory they may take.
_COPIES_MAX = 8
_COPIES_PART = 16
#: Which part of a block a result must be to keep all of it.
_WORTH = 2
#: How many blocks of workers this process holds before what comes next is copied: each takes a descriptor.
_FOREIGN_PART = 4


def shared_array(
    shape: int | tuple[int, ...],
    dtype: numpy.typing.DTypeLike = float,
    order: Literal["C", "F"] = "C",
) -> numpy.ndarray[Any, Any]:
    """Make an array of zeros in shared memory.

    As an argument or a result of a call of `ferry.ProcessPoolExecutor` it is not copied: what a worker writes into it
    is seen here, and the other way round. So it is with every view of it. Anywhere else it is an ordinary array. Its
    memory is free when the last view of it is gone, in whatever process.

    Parameters
    ----------
    shape : int or tuple of int
        Its shape.
    dtype : dtype-like, default float
        The type of its elements.
    order : {"C", "F"}, default "C"
        Whether the last or the first index runs fastest.

    Returns
    -------
    numpy.ndarray
        A writable array.

    Raises
    ------
    TypeError
        The type contains objects.
    MemoryError
        There is not enough memory, or there are no descriptors left: each array takes one.
    """
    return _make(shape, dtype, order, True)


def share(array: numpy.typing.ArrayLike) -> numpy.ndarray[Any, Any]:
    """Copy an array into shared memory, see `shared_array()`.

    Parameters
    ----------
    array : array-like
        What to copy.

    Returns
    -------
    numpy.ndarray
        An array with the same elements; `array` itself if it lies in such memory.
    """
    import numpy

    source = numpy.asarray(array)
    found = _native.shared_find(source)
    if found is not None and found[1] and source is array:
        return source
    fortran = source.flags.f_contiguous and not source.flags.c_contiguous
    copy = _make(source.shape, source.dtype, "F" if fortran else "C", False)
    numpy.copyto(copy, source)
    return copy


def is_shared(array: numpy.ndarray[Any, Any]) -> bool:
    """Return whether an array lies in memory of `share()` or `shared_array()`."""
    found = _native.shared_find(array)
    return found is not None and found[1]


def _make(shape: Any, dtype: Any, order: str, zero: bool) -> Any:
    import numpy

    dtype = numpy.dtype(dtype)
    if dtype.hasobject:
        raise TypeError(f"an array of {dtype} contains objects, which can't lie in shared memory")
    dimensions = (shape,) if isinstance(shape, (int, numpy.integer)) else tuple(shape)
    if any(length < 0 for length in dimensions):
        raise ValueError(f"negative dimensions are not allowed: {dimensions}")
    size = math.prod(map(int, dimensions)) * dtype.itemsize
    if size > sys.maxsize // 2:
        raise MemoryError(f"can't make an array of {size} bytes of shared memory")
    handle = _native.shared_allocate(max(size, 1), zero, True)
    return numpy.ndarray(dimensions, dtype, handle, 0, None, order)


def _reference(array: Any, address: Any, offset: int, *how: bool) -> tuple[Any, ...]:
    """Return what is sent in place of an array; `how` is as in `_rebuild()`."""
    return _rebuild, (address, offset, array.shape, array.strides, array.dtype, array.flags.writeable, *how)


def _rebuild(
    address: Any,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: Any,
    writable: bool,
    is_private: bool,
    is_shared: bool,
    is_given: bool,
) -> Any:
    """Return a view on memory of another process, or of this one."""
    import numpy

    handle = _native.shared_attach(address, is_private, is_shared, is_given)
    array = numpy.ndarray(shape, dtype, handle, offset, strides)
    if is_given and not is_shared and _native.shared_statistics()["foreign"] > _foreign_max():
        return array.copy(order="K")
    if not writable:
        array.flags.writeable = False
    return array


def _foreign_max() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _FOREIGN_PART


def _flat(array: Any) -> Any:
    """Return the bytes of a contiguous array."""
    import numpy

    return array.reshape(-1, order="A").view(numpy.uint8)


class _Copies:
    """Copies of ordinary arrays in shared memory, by where the arrays are; each is compared before it is used again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: OrderedDict[Any, tuple[Any, int, Any]] = OrderedDict()
        self._bytes_max = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _COPIES_PART

    def place(self, array: Any) -> Any:
        """Return a handle of memory with the contents of a contiguous array; None if there is none."""
        import numpy

        key = array.ctypes.data, array.strides, array.shape, array.dtype.str
        flat = _flat(array)
        with self._lock:
            handle = self._copies.pop(key, (None,))[0]
        if handle is None or not _native.shared_is_equal(flat, handle):
            handle = None  # if nobody uses it any more it is what comes next
            try:
                handle = _native.shared_allocate(flat.nbytes)
            except MemoryError:
                return None
            numpy.copyto(numpy.frombuffer(handle, numpy.uint8, flat.nbytes), flat)
        owner = array
        while isinstance(owner.base, numpy.ndarray):
            owner = owner.base
        reference = weakref.ref(owner, lambda gone: self._drop(key, gone))
        with self._lock:
            self._copies[key] = handle, flat.nbytes, reference
            total = sum(entry[1] for entry in self._copies.values())
            while len(self._copies) > 1 and (len(self._copies) > _COPIES_MAX or total > self._bytes_max):
                total -= self._copies.popitem(last=False)[1][1]
        return handle

    def _drop(self, key: Any, reference: Any) -> None:
        # Called wherever an array happens to be freed, so without the lock.
        if self._copies.get(key, (None, 0, None))[2] is reference:
            self._copies.pop(key, None)

    def forked(self) -> None:
        """In a fork child: they are the parent's."""
        self._lock = threading.Lock()
        self._copies.clear()


copies = _Copies()
os.register_at_fork(after_in_child=copies.forked)


class Arguments:
    """Decides how arrays travel in calls."""

    def __init__(self) -> None:
        #: What must stay until the call is done that is being encoded.
        self.held: list[Any] = []
        self.reducer = _native.shared_make_reducer(self._reduce, LARGE)

    def _reduce(self, array: Any, found: Any) -> Any:
        if found is not None and found[1]:
            self.held.append(array)
            return _reference(array, found[2], found[3], False, True, False)
        flags = array.flags
        if array.nbytes < LARGE or not (flags.c_contiguous or flags.f_contiguous):
            return None
        handle = copies.place(array)
        if handle is None:
            return None
        self.held.append(handle)
        return _reference(array, handle.address, 0, True, False, False)


class Results:
    """Decides how arrays travel in what calls return."""

    def __init__(self) -> None:
        #: Whether memory may be given away with the message that is being encoded; and whether it should have been.
        self.may_give = False
        self.must_give = False
        self.reducer = _native.shared_make_reducer(self._reduce, 1 << 62)

    def _reduce(self, array: Any, found: Any) -> Any:
        kind, shared, address, offset = found
        if kind == "private":
            if not _native.shared_is_unchanged(array):
                return None
            return _reference(array, address, offset, True, False, False)
        if kind == "foreign":
            return _reference(array, address, offset, False, True, False) if shared else None
        if not shared and array.nbytes * _WORTH < address[-1]:
            return None
        if not self.may_give:
            self.must_give = True
            raise BufferError("the message is to be encoded before it is sent")
        _native.shared_give(array)
        return _reference(array, address, offset, False, shared, True)
