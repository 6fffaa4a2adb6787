# SPDX-License-Identifier: LGPL-2.1-or-later
"""Arrays in shared memory, which cross to the workers of an executor and back without being copied.

docs/executor.md tells how they are kept and who may have them.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

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
#: What sys.getrefcount() returns for an object that only one variable has.
_REFERENCES = 2
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


class _Copy(NamedTuple):
    """A copy of an ordinary array in shared memory."""

    handle: Any
    size: int  # bytes
    owner: Any  # a weak reference
    seen: float  # when it was the same as the array


class _Copies:
    """Copies of ordinary arrays, by where these are.

    A call gets what its arguments contained at some moment between `submit()` and its beginning, as with the standard
    executor. So what was compared after a call was submitted need not be compared for it again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: OrderedDict[Any, _Copy] = OrderedDict()
        self._bytes_max = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _COPIES_PART

    def place(self, array: Any, since: float) -> Any:
        """Return a handle of memory with the contents of a contiguous array.

        They are those of some moment after `since`, in seconds of `time.monotonic()`. None if there is no memory.
        """
        import numpy

        key = array.ctypes.data, array.strides, array.shape, array.dtype.str
        with self._lock:
            copy = self._copies.get(key)
            if copy is not None and copy.seen >= since:
                self._copies.move_to_end(key)
                return copy.handle
            self._copies.pop(key, None)
        handle = copy.handle if copy is not None else None
        del copy
        seen = time.monotonic()
        flat = _flat(array)
        # To copy takes less than to compare, where nobody uses what is there: neither a worker nor, by this very
        # handle, a call that none has taken yet.
        is_idle = handle is not None and sys.getrefcount(handle) == _REFERENCES and _native.shared_is_idle(handle)
        if is_idle or handle is None or not _native.shared_is_equal(flat, handle):
            if not is_idle:
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
            self._copies[key] = _Copy(handle, flat.nbytes, reference, seen)
            total = sum(copy.size for copy in self._copies.values())
            while len(self._copies) > 1 and (len(self._copies) > _COPIES_MAX or total > self._bytes_max):
                total -= self._copies.popitem(last=False)[1].size
        return handle

    def _drop(self, key: Any, reference: Any) -> None:
        # Called wherever an array happens to be freed, so without the lock.
        copy = self._copies.get(key)
        if copy is not None and copy.owner is reference:
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
        #: When that was submitted.
        self.since = 0.0
        self.reducer = _native.shared_make_reducer(self._reduce, LARGE)

    def _reduce(self, array: Any, found: Any) -> Any:
        if found is not None and found[1]:
            self.held.append(array)
            return _reference(array, found[2], found[3], False, True, False)
        flags = array.flags
        if array.nbytes < LARGE or not (flags.c_contiguous or flags.f_contiguous):
            return None
        handle = copies.place(array, self.since)
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
