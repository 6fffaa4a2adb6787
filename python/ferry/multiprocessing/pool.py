# SPDX-License-Identifier: LGPL-2.1-or-later
"""`multiprocessing.pool`, whose tasks and results travel through shared memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from multiprocessing import pool as _standard
from typing import Any

from ferry.multiprocessing.context import get_context
from ferry.multiprocessing.queues import SimpleQueue

__all__ = list(_standard.__all__)


class Pool(_standard.Pool):
    """A pool of processes, as `multiprocessing.pool.Pool`.

    Tasks and results go through Ferry, so arrays in them, at any depth, are copied once and
    arrive as writable views. A worker that is killed while it waits for a task harms none of
    the others; and when the program that has the pool is killed the workers end, too.

    Parameters
    ----------
    processes : int, optional
        How many; as many as there are CPUs if left out.
    initializer : callable, optional
        Called by each worker when it starts.
    initargs : iterable, optional
        Its arguments.
    maxtasksperchild : int, optional
        After how many tasks a worker is replaced.
    context : multiprocessing.context.BaseContext, optional
        How workers are started.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        super().__init__(processes, initializer, initargs, maxtasksperchild, context or get_context())

    def _setup_queues(self) -> None:
        # Of our own, also with a context of the standard library.
        self._inqueue = SimpleQueue(ctx=self._ctx)
        self._outqueue = SimpleQueue(ctx=self._ctx)
        self._quick_put = self._inqueue.put
        self._quick_get = self._outqueue.get

    def _get_sentinels(self) -> list[Any]:
        # Not the queue of results, as there: it would wake the thread that looks after the workers for each of them.
        # What it has to know comes by the notifier, when the last result is in, and by the workers' own sentinels.
        return [self._change_notifier._reader]

    @staticmethod
    def _help_stuff_finish(inqueue: SimpleQueue, task_handler: threading.Thread, size: int) -> None:
        # The thread may wait for room. No lock keeps the workers from helping; they are terminated next.
        endpoint = inqueue._messages._endpoint(False)
        while task_handler.is_alive():
            try:
                endpoint.receive_buffer(0)
            except queue.Empty:
                break


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
