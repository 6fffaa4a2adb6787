# SPDX-License-Identifier: LGPL-2.1-or-later
"""`multiprocessing.queues`, through shared memory."""

from __future__ import annotations

import os
import queue
import select
import weakref
from collections.abc import Callable
from multiprocessing import context as _context
from multiprocessing import queues as _standard
from typing import Any

from ferry import queues as _queues
from ferry.multiprocessing.connection import Connection, Pipe

__all__ = list(_standard.__all__)

#: How often a reader looks whether the last process that could put is gone, in seconds.
_HANG_UP_INTERVAL = 0.5


class _Reader:
    """What programs use of `Queue._reader`: something to wait for with `multiprocessing.connection.wait()`."""

    def __init__(self, ours: Queue) -> None:
        self._get_queue = weakref.ref(ours)  # which has us, and is not to wait for the collector
        # Readable while a message is there already: the endpoint's descriptor only announces what comes.
        self._ready = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        self._epoll.register(self._ready, select.EPOLLIN)
        self._endpoint: Any = None
        self._pid = os.getpid()

    @property
    def _queue(self) -> Queue:
        ours = self._get_queue()
        if ours is None:
            raise OSError("handle is closed")
        return ours

    def fileno(self) -> int:
        endpoint = self._queue._endpoint(False)
        if endpoint is not self._endpoint:
            self._endpoint = endpoint
            self._epoll.register(endpoint.fileno(), select.EPOLLIN)
        if endpoint.check():
            os.eventfd_write(self._ready, 1)
        else:
            try:
                os.eventfd_read(self._ready)
            except BlockingIOError:
                pass
        return self._epoll.fileno()

    def poll(self, timeout: float | None = 0.0) -> bool:
        return self._queue._endpoint(False).wait(timeout)

    def recv(self) -> Any:
        return self._queue.get()

    @property
    def closed(self) -> bool:
        return self._queue.closed

    def close(self) -> None:
        self._queue.close()

    def __del__(self) -> None:
        os.close(self._ready)
        self._epoll.close()


class Queue(_queues.Queue, _standard.Queue):
    """`ferry.Queue`, and by name one of `multiprocessing.queues`."""

    _wait_for: _Reader | None = None

    @property
    def _reader(self) -> _Reader:
        # Not public, but what programs wait for that wait for several queues. Each process has its own.
        reader = self._wait_for
        if reader is None or reader._pid != os.getpid():
            reader = self._wait_for = _Reader(self)
        return reader


class JoinableQueue(_queues.JoinableQueue, Queue, _standard.JoinableQueue):
    """`ferry.JoinableQueue`, and by name one of `multiprocessing.queues`."""


class SimpleQueue(_standard.SimpleQueue):
    """A queue with `put()`, `get()`, `empty()` and `close()`, as that of `multiprocessing`, through Ferry.

    It is made of a pipe without locks. Who waits for several things, as pools and executors do,
    waits for its `_reader`; and when all processes have closed their `_writer`, or are gone,
    `get()` raises EOFError. `ferry.SimpleQueue` has neither, but time-outs and asyncio.

    Parameters
    ----------
    ctx : multiprocessing.context.BaseContext, optional
        For compatibility; the queue suits every start method.
    """

    def __init__(self, *, ctx: Any = None) -> None:
        self._set_ends(*Pipe(duplex=False))

    def _set_ends(self, reader: Connection, writer: Connection) -> None:
        self._reader = reader
        self._writer = writer
        self._messages = None if reader.closed else reader._descriptors()[0]

    def close(self) -> None:
        """Use the queue no more in this process."""
        self._reader.close()
        self._writer.close()

    def empty(self) -> bool:
        """Whether nothing waits at this moment."""
        return not self._reader.poll()

    def put(self, obj: Any) -> None:
        """Put an object; wait while there is no room.

        It is encoded and copied when the call returns.

        Raises
        ------
        OSError
            The queue is closed.
        """
        self._writer.send(obj)

    def get(self) -> Any:
        """Take the next object; wait for one.

        Raises
        ------
        EOFError
            All processes that could put are gone, and everything is taken.
        OSError
            The queue is closed.
        """
        reader = self._reader
        if reader.closed:
            return reader.recv()  # raises
        # Not by recv(): of several processes that sleep on the pipe's socket the wrong one may wake.
        take = self._messages.get
        hung_up = False
        while True:
            try:
                return take(not hung_up, _HANG_UP_INTERVAL)
            except queue.Empty:
                if hung_up:
                    raise EOFError from None
                hung_up = _is_hung_up(reader)
            except ValueError:
                if reader.closed:
                    raise OSError("handle is closed") from None
                raise

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        _context.assert_spawning(self)
        return _rebuild, (type(self), self._reader, self._writer)


def _is_hung_up(connection: Connection) -> bool:
    try:
        poll = select.poll()
        poll.register(connection._descriptors()[2], 0)
    except OSError:
        return False  # closed: the next attempt says so
    return bool(poll.poll(0))


def _rebuild(cls: type[SimpleQueue], reader: Connection, writer: Connection) -> SimpleQueue:
    self = cls.__new__(cls)
    self._set_ends(reader, writer)
    return self


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
