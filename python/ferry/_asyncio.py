# SPDX-License-Identifier: LGPL-2.1-or-later
"""Waiting for channels in an event loop: by the descriptor, without a thread."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from typing import Protocol


class _Pollable(Protocol):
    def fileno(self) -> int: ...

    def check(self) -> bool: ...


class _Waiters:
    """The tasks of one event loop that wait for one endpoint."""

    def __init__(self, endpoint: _Pollable, loop: asyncio.AbstractEventLoop) -> None:
        self._endpoint = weakref.ref(endpoint)  # who waits holds it
        self._loop = loop
        self._futures: deque[asyncio.Future[None]] = deque()
        self._fd = -1

    async def wait(self, endpoint: _Pollable) -> None:
        """Return when the endpoint may be ready; another task may be quicker all the same."""
        if endpoint.check():
            # Somebody else's turn, too: who finds the channel ready each time must not starve the loop.
            await asyncio.sleep(0)
            return
        future = self._loop.create_future()
        self._futures.append(future)
        if self._fd < 0:
            self._fd = endpoint.fileno()
            self._loop.add_reader(self._fd, self._readable)
            # The first call of fileno() makes the descriptor, and only what exists can be armed.
            if endpoint.check():
                self._wake()
        try:
            await future
        finally:
            if future in self._futures:
                self._futures.remove(future)
            if not self._futures:
                self._stop()

    def _readable(self) -> None:
        endpoint = self._endpoint()
        try:
            ready = endpoint is None or endpoint.check()
        except Exception:
            # The endpoint was closed: the calls of those who wait say so.
            ready = True
        if ready:
            self._wake()

    def close(self) -> None:
        """Wake everybody, from whatever thread: the endpoint is about to be closed."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            self._wake()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        # One message may be there for one task only, but which of them still wants it is not known.
        for future in self._futures:
            if not future.done():
                future.set_result(None)
        self._futures.clear()
        self._stop()

    def _stop(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._fd = -1


_waiters: weakref.WeakKeyDictionary[_Pollable, tuple[asyncio.AbstractEventLoop, _Waiters]] = weakref.WeakKeyDictionary()


async def wait_ready(endpoint: _Pollable) -> None:
    """Wait until the next call of `endpoint` has something to tell.

    Parameters
    ----------
    endpoint : ferry.Channel or an endpoint of a queue
        What to wait for: a message for a receiver, room for a sender.
    """
    loop = asyncio.get_running_loop()
    known = _waiters.get(endpoint)
    if known is None or known[0] is not loop:
        known = loop, _Waiters(endpoint, loop)
        _waiters[endpoint] = known
    await known[1].wait(endpoint)


def wake(endpoint: _Pollable) -> None:
    """Wake the tasks that wait for `endpoint`, which is about to be closed."""
    known = _waiters.pop(endpoint, None)
    if known is not None:
        known[1].close()
