# SPDX-License-Identifier: LGPL-2.1-or-later
"""`Pipe()` of `multiprocessing`, through shared memory."""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Callable
from typing import Any, Self, TypeVar

from ferry import _native

__all__ = ["Connection", "Pipe"]

#: How many messages may wait in each direction.
CAPACITY = 256
_BELLS_SIZE = 4096
#: What an end of a queue is prepared for.
_TO_SEND = 1
_TO_RECEIVE = 2

_AnyConnection = TypeVar("_AnyConnection", bound="Connection")

_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


class Connection(_native.Connection):
    """One end of a pipe, with the methods and rules of `multiprocessing.connection.Connection`.

    Made by `Pipe()`. Objects are sent as by `ferry.Queue`: arrays are received as writable
    views on shared memory. When the last process that had the other end has closed it or is
    gone, killed for example, `recv()` raises EOFError once everything is received, and
    `send()` BrokenPipeError. As with pipes that works when each process closes the ends that
    it does not use.

    It works after a fork, as an argument of processes that are spawned, and may be sent
    through another connection. `multiprocessing.connection.wait()` accepts it.
    """

    def __init__(
        self,
        receive: _native.Queue | None,
        send: _native.Queue | None,
        socket_fd: int,
        bells_fd: int,
        bell_fd: int,
        other_bell_fd: int,
        side: int,
    ) -> None:
        super().__init__(receive, send, socket_fd, bells_fd, bell_fd, other_bell_fd, side)
        _connections.add(self)

    def recv_bytes_into(self, buf: Any, offset: int = 0) -> int:
        """Receive the next message into a buffer.

        Parameters
        ----------
        buf : object with the buffer protocol
            Where to; it must be writable.
        offset : int, default 0
            Where in it, in bytes.

        Returns
        -------
        int
            The size of the message in bytes.

        Raises
        ------
        multiprocessing.BufferTooShort
            The message is longer; it is ``args[0]`` of the exception.
        """
        with memoryview(buf) as view, view.cast("B") as target:
            if offset < 0:
                raise ValueError("negative offset")
            if offset > target.nbytes:
                raise ValueError("offset too large")
            contents = self._recv_contents()
            if isinstance(contents, tuple):
                contents = self._dumps(contents[0])
            size = len(contents)
            if target.nbytes < offset + size:
                from multiprocessing import BufferTooShort

                raise BufferTooShort(bytes(contents))
            target[offset : offset + size] = contents
            return size

    def _loads(self, data: bytes) -> Any:
        from multiprocessing.reduction import ForkingPickler

        return ForkingPickler.loads(data)

    def _dumps(self, obj: Any) -> bytes:
        from multiprocessing.reduction import ForkingPickler

        return bytes(ForkingPickler.dumps(obj))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        from multiprocessing.reduction import DupFd

        receive, send, *fds, side = self._descriptors()
        for queue in (receive, send):
            if queue is not None:
                queue._warm_up()
        queues = [
            None if queue is None else [DupFd(fd) for fd in queue._descriptors()[:2]] for queue in (receive, send)
        ]
        return _rebuild, (type(self), queues, [DupFd(fd) if fd >= 0 else None for fd in fds], side)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__module__}.{type(self).__qualname__} {state}>"


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Make a pipe between two processes.

    Parameters
    ----------
    duplex : bool, default True
        Whether both ends send and receive; if not, the first one only receives and the second
        one only sends.

    Returns
    -------
    tuple of Connection
        Its two ends.
    """
    return _make_pipe(Connection, duplex)


def _make_pipe(cls: type[_AnyConnection], duplex: bool) -> tuple[_AnyConnection, _AnyConnection]:
    sockets = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    bells = _native.make_shared("ferry-bells", _BELLS_SIZE)
    to_first = _make_queue()
    to_second = _make_queue() if duplex else None
    first_bell = _make_bell()
    second_bell = _make_bell() if duplex else (-1, -1)
    return (
        cls(to_first, _other_end(to_second), sockets[0].detach(), os.dup(bells), first_bell[0], second_bell[0], 0),
        cls(to_second, _other_end(to_first), sockets[1].detach(), bells, second_bell[1], first_bell[1], 1),
    )


def _make_queue() -> _native.Queue:
    return _native.Queue("memfd", capacity=CAPACITY, prepare=_TO_RECEIVE)


def _make_bell() -> tuple[int, int]:
    """Make what wakes the readers of an end, for both ends."""
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    return fd, os.dup(fd)


def _other_end(queue: _native.Queue | None) -> _native.Queue | None:
    if queue is None:
        return None
    control_fd, data_fd, _ = queue._descriptors()
    return _native.Queue(
        "memfd", create=False, control_fd=os.dup(control_fd), data_fd=os.dup(data_fd), prepare=_TO_SEND
    )


def _rebuild(cls: type[Connection], queues: list[Any], duplicates: list[Any], side: int) -> Connection:
    ends = [
        None
        if fds is None
        else _native.Queue(
            "memfd", create=False, control_fd=fds[0].detach(), data_fd=fds[1].detach(), prepare=prepare
        )
        for fds, prepare in zip(queues, (_TO_RECEIVE, _TO_SEND), strict=True)
    ]
    fds = [-1 if duplicate is None else duplicate.detach() for duplicate in duplicates]
    return cls(ends[0], ends[1], *fds, side)


def _after_fork() -> None:
    for connection in _connections:
        connection._forked()


os.register_at_fork(after_in_child=_after_fork)
