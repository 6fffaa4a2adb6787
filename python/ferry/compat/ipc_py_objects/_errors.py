# SPDX-License-Identifier: LGPL-2.1-or-later
"""Exceptions of `ferry.compat.ipc_py_objects`."""

from __future__ import annotations


class SharedMemoryError(Exception):
    """The base of all others."""


class OperationTimedOutError(SharedMemoryError, TimeoutError):
    """The time limit came first."""


class FreeMemoryChunkNotFoundError(SharedMemoryError, MemoryError):
    """There is no room for an object within the `size` of the shared memory."""


class ObjBufferIsSmallerThanRequestedNumpyArrayError(SharedMemoryError, ValueError):
    """An array of that shape and type does not fit into the buffer of the object."""


class WrongObjectTypeError(SharedMemoryError, TypeError):
    """The object is gone, or of a type that does not have what was asked for."""


class NoMessagesInQueueError(SharedMemoryError, LookupError):
    """No message waits."""
