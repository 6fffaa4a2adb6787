# SPDX-License-Identifier: LGPL-2.1-or-later
"""The interface of the package py-sharedmemory, through Ferry.

A program that was written for it runs when the line that imports `memory`, or from version 4
of that package on `py_sharedmemory`, names this module instead::

    from ferry.compat.memory import create_shared_memory_pair, SharedMemorySender, SharedMemoryReceiver

What it does differently, always to the good of the program:

- Room is free again at the moment when `get()` returns. Nothing is acknowledged, so no
  thread runs and no message of the sender depends on the sender being alive; but a pair
  without a capacity keeps what is more than 1024 messages in the process that put them,
  until a thread of that process, which runs only then, has passed them on.
- An object that can't be encoded raises in `put()` and changes nothing for others.
- Every type arrives as it was; arrays arrive writable.
- Any number of processes and threads may put, and any number get, before and after a fork.
- A message may be larger than /dev/shm, and any number of messages takes the same few
  descriptors.
"""

from __future__ import annotations

import numbers
import operator
import os
import queue
import time
from collections.abc import Callable
from typing import Any

from ferry.queues import Queue

__all__ = ["SharedMemoryReceiver", "SharedMemorySender", "create_shared_memory_pair"]

#: How often a sender looks whether the objects that there was no room for are passed on, in seconds.
_OVERFLOW_INTERVAL = 0.002


def create_shared_memory_pair(
    capacity: int | None = None, *, ctx: Any = None, version: int = 2
) -> tuple[SharedMemorySender, SharedMemoryReceiver]:
    """Make a sender and the receiver of what it sends.

    Both may be used right away, by any number of processes that inherit them or get them as
    arguments, whatever their start method is.

    Parameters
    ----------
    capacity : int or None, optional
        How many messages may be put and not yet got; `put()` blocks when there are that many.
        None or 0: any number.
    ctx : multiprocessing.context.BaseContext, optional
        Accepted as by version 4 of py-sharedmemory; the pair suits every start method.
    version : {2, 1}, default 2
        1: `SharedMemoryReceiver.get_nowait()` returns None when there is no message, as in
        version 1 of py-sharedmemory, instead of raising `queue.Empty` as since version 2.

    Returns
    -------
    tuple of SharedMemorySender and SharedMemoryReceiver
        The two ends.

    Raises
    ------
    TypeError
        `capacity` is not an integer.
    ValueError
        `capacity` is negative, or there is no such `version`.
    """
    if isinstance(capacity, bool):
        raise TypeError("capacity must be an integer or None, not a bool")
    capacity = None if capacity is None else operator.index(capacity)
    if capacity is not None and capacity < 0:
        raise ValueError(f"capacity must not be negative: {capacity}")
    if version not in (1, 2):
        raise ValueError(f"there is no version {version!r} to follow: 1 or 2")
    ours = Queue(capacity or 0)
    return SharedMemorySender(capacity, ours), SharedMemoryReceiver(_other_end(ours), version)


class _End:
    """What both ends are: a queue, which is closed for this end and process alone."""

    _CLOSED = "{} is closed."

    def __init__(self, ours: Queue) -> None:
        self._queue = ours
        ours._set_closed_error(BrokenPipeError, self._CLOSED.format(self._NAME))

    _NAME = "End"

    @property
    def closed(self) -> bool:
        """Whether `close()` was called in this process."""
        return self._queue.closed

    @property
    def is_closed(self) -> bool:
        """The same as `closed`."""
        return self._queue.closed

    def close(self) -> None:
        """Use this end no more in this process. What was put arrives all the same; others go on."""
        self._queue.close()

    def _check(self) -> None:
        if self._queue.closed:
            raise BrokenPipeError(self._CLOSED.format(self._NAME))

    def __enter__(self) -> Any:
        self._check()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class SharedMemorySender(_End):
    """The end of a pair that puts. Made by `create_shared_memory_pair()`.

    Attributes
    ----------
    capacity : int or None
        How many messages may be put and not yet got; None or 0: any number.
    """

    _NAME = "Sender"

    def __init__(self, capacity: int | None, ours: Queue) -> None:
        super().__init__(ours)
        self.capacity = capacity

    def put(self, data: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put a message.

        It lies in shared memory when the call returns: the process may end right after it. (In
        a pair without a capacity what is more than 1024 messages is kept in this process, which
        does not end before it is passed on; `os._exit()` and being killed lose it.)

        Parameters
        ----------
        data : object
            Anything that can be pickled; arrays, at any depth, are copied once and not pickled.
        block : bool, default True
            Whether to wait for room.
        timeout : float or None, optional
            For how many seconds at most.

        Raises
        ------
        queue.Full
            There is no room, or none came in time.
        BrokenPipeError
            The sender is closed.
        Exception
            Whatever encoding the object raises. The sender and all messages are as before.
        """
        self._queue.put(data, block, timeout)

    def put_nowait(self, data: Any) -> None:
        """The same as ``put(data, block=False)``."""
        self._queue.put_nowait(data)

    def has_space(self) -> bool:
        """Whether `put()` would find room at this moment."""
        self._check()
        return not self._queue.full()

    def wait_for_all_ack(self, timeout: float | None = None) -> bool:
        """Wait until every message that was put so far is got.

        That is what this process put, and what other processes put and had room for; what is
        put meanwhile does not count. Nothing is lost without it: what was put arrives also when
        its sender is closed or its process has ended.

        Parameters
        ----------
        timeout : float or None, optional
            For how many seconds to wait at most.

        Returns
        -------
        bool
            False when the time-out came first.

        Raises
        ------
        BrokenPipeError
            The sender is closed.
        ValueError
            `timeout` is not a number.
        """
        self._check()
        if timeout is not None and timeout != timeout:
            raise ValueError("timeout must be a number of seconds, not NaN")
        deadline = None if timeout is None else time.monotonic() + timeout
        queue_ = self._queue
        with queue_._overflow_lock:
            n_kept = queue_._n_passed_on + len(queue_._overflow)
        while queue_._overflow and queue_._n_passed_on < n_kept:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(_OVERFLOW_INTERVAL)
            self._check()
        left = None if deadline is None else max(deadline - time.monotonic(), 0)
        try:
            queue_._endpoint(True).flush(left)
        except (TimeoutError, queue.Full):
            return False
        except Exception:
            self._check()  # closed by another thread meanwhile
            raise
        return True

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self), (self.capacity, self._queue)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} capacity={self.capacity} {'closed' if self.closed else 'open'}>"


class SharedMemoryReceiver(_End):
    """The end of a pair that gets. Made by `create_shared_memory_pair()`."""

    _NAME = "Receiver"

    def __init__(self, ours: Queue, version: int = 2) -> None:
        super().__init__(ours)
        self._version = version

    def get(self, block: bool | float | None = True, timeout: float | None = None) -> Any:
        """Get the next message.

        Parameters
        ----------
        block : bool, default True
            Whether to wait for one. A number that is not a bool, or None, is the time-out: that
            was the first argument in version 1 of py-sharedmemory.
        timeout : float or None, optional
            For how many seconds to wait at most.

        Returns
        -------
        object
            What was put. Arrays are writable.

        Raises
        ------
        queue.Empty
            There is none, or none came in time.
        BrokenPipeError
            The receiver is closed.
        """
        if timeout is None and (block is None or (isinstance(block, numbers.Real) and not isinstance(block, bool))):
            return self._queue.get(True, block)
        return self._queue.get(bool(block), timeout)

    def get_nowait(self) -> Any:
        """Get the next message if there is one, as ``get(block=False)``.

        Raises
        ------
        queue.Empty
            There is none. If the pair was made for version 1 None is returned instead.
        """
        if self._version > 1:
            return self._queue.get_nowait()
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self), (self._queue, self._version)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self.closed else 'open'}>"


def _other_end(ours: Queue) -> Queue:
    """Return the same queue as another object, so that each end can be closed alone."""
    descriptors = ours._descriptors()
    if descriptors is None:
        raise ValueError("a queue with a name has no descriptors: its other end is opened by the name")
    other = Queue.__new__(Queue)
    other._init(ours._settings, create=False, control_fd=os.dup(descriptors[0]), data_fd=os.dup(descriptors[1]))
    return other
