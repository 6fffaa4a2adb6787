# SPDX-License-Identifier: LGPL-2.1-or-later
"""The queues of `multiprocessing`, through shared memory."""

from __future__ import annotations

import os
import queue
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from ferry import _native

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from ferry.store import Store

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

#: How many objects wait in shared memory when there is no limit; what is more waits in the process that put it.
UNLIMITED = 1024
#: How often that process looks for room for it, in seconds.
_OVERFLOW_INTERVAL = 0.002
_OVERFLOW_INTERVAL_MAX = 0.05


_overflowing: weakref.WeakSet[Queue] = weakref.WeakSet()


class Queue(_native.Queue):
    """A queue of `multiprocessing`, with the same methods and rules.

    Any number of processes and threads put and get. An object is encoded and copied into
    shared memory when `put()` returns: there is no feeder thread, so nothing is to be flushed
    or joined, an object that can't be encoded raises in `put()`, and what was put before its
    process ended arrives. Only a queue without a limit, from which nobody gets, is different:
    see `maxsize`. Arrays are got as writable views on shared memory, without a copy.
    A process that is killed, wherever it is, harms no other; one that is killed inside
    `get()` takes at most the object along that it had just taken.

    The queue works after a fork, and as an argument of processes that are spawned; with a
    name it may be pickled anywhere, and is found by programs that know the name. It lives as
    long as a process has it; with a name, as long as a process has it open.

    Parameters
    ----------
    maxsize : int, default 0
        How many objects may wait; `put()` blocks when there are that many. 0 or less: no
        limit. Then what is put beyond 1024 objects, or beyond `max_bytes`, while nobody gets any
        is kept, encoded, in its own process, and a thread that is started only then passes it
        on. As with `multiprocessing` that process does not end before this is done, unless
        `cancel_join_thread()` was called; `os._exit()` and being killed lose what is kept.
    ctx : multiprocessing.context.BaseContext, optional
        For compatibility; the queue suits every start method.
    name : str, optional
        Under which other programs find it. All of them give the same `maxsize`, or none: who gives
        none joins a queue of any size, and keeps what is put beyond that as said above.
    transport : str, default "memfd"
        What memory it lives in; `ferry-inspect` lists what there is.
    codec : str, default "auto"
        How objects are encoded. `auto`: plain arrays by `numpy`, live objects of a `Store` by `store`,
        everything else by `python`.
    max_bytes : int, optional
        How much shared memory it may take, in bytes; views that are held count, and `put()`
        blocks when there is no more. Half of the machine's if left out.
    pickle : bool, default True
        Whether objects may be pickled that codec-python has no form for, and such pickles be
        read. Turn it off for queues with a name that less trusted programs open: to unpickle
        is to run code.
    store : ferry.Store, optional
        Where lists, dicts, sets, bytearrays, arrays and instances of classes become live objects when
        they are put: who gets one gets the live object itself, in every process. Others are
        encoded as ever. What is live already needs none: it is put as a reference to itself.

    Raises
    ------
    ValueError
        There is a `store`, and a `codec` that sends no references.
    ferry.NoSuchFeatureError
        There is no such transport or codec.
    ferry.MismatchError
        There is a queue of that name with another `maxsize` or `max_bytes` than was given.
    """

    _joinable = False

    def __init__(
        self,
        maxsize: int = 0,
        *,
        ctx: Any = None,
        name: str | None = None,
        transport: str = "memfd",
        codec: str = "auto",
        max_bytes: int | None = None,
        pickle: bool = True,
        store: Store | None = None,
    ) -> None:
        if store is not None and codec not in ("auto", "store"):
            raise ValueError(f"codec={codec!r} sends no live objects; leave it out where there is a store")
        if name is None and transport != "memfd":
            # Other memory has no descriptors that could be passed on: it is found by its name.
            name = f"python-{secrets.token_hex(16)}"
        self._init(
            {
                "transport": transport,
                "name": name,
                "codec": codec,
                "pickle": pickle,
                "capacity": max(maxsize, 0),
                "max_bytes": max_bytes or 0,
                "unlimited": maxsize <= 0,
                "store": store,
            }
        )

    def _init(self, settings: dict[str, Any], **arguments: Any) -> None:
        self._settings = settings
        self._maxsize = 0 if settings["unlimited"] else settings["capacity"] or UNLIMITED
        self._overflow: deque[_native.Buffer] = deque()
        self._n_passed_on = 0  # of those that were in there
        self._overflow_lock = threading.Lock()
        self._overflow_thread: threading.Thread | None = None
        self._overflow_dropped = False
        self._polled: dict[bool, _native.Channel] = {}  # those that tasks wait for
        try:
            super().__init__(**{**settings, "capacity": settings["capacity"] or UNLIMITED}, **arguments)
        except ValueError as error:
            from ferry.errors import MismatchError

            if settings["capacity"] or not isinstance(error, MismatchError):
                raise
            super().__init__(**settings, **arguments)  # the size is its creator's
        if settings["name"] is not None:
            from ferry._lifecycle import close_at_exit

            close_at_exit(self)

    # ---- other processes ----

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        descriptors = self._descriptors()
        if descriptors is None:
            return _rebuild, (type(self), self._settings, None)
        from multiprocessing import context, reduction

        context.assert_spawning(self)
        self._warm_up()
        return _rebuild, (type(self), self._settings, [reduction.DupFd(fd) for fd in descriptors if fd >= 0])

    # ---- more than fits ----

    def _spill(self, obj: Any) -> None:
        """Keep an object in this process until there is room for it. Called by `put()`."""
        encoded = self._encode(obj)
        with self._overflow_lock:
            self._overflow.append(encoded)
            self._set_spilling(True)
            _overflowing.add(self)
            if not self._pass_on() and self._overflow_thread is None:
                self._overflow_thread = threading.Thread(target=self._pass_on_all, name="ferry.Queue")
                self._overflow_thread.start()

    def _pass_on(self) -> bool:
        """Send what there is room for; whether that was all. The lock is held."""
        while self._overflow:
            if not self._put_buffer(self._overflow[0]):
                return False
            self._overflow.popleft()
            self._n_passed_on += 1
        self._set_spilling(False)
        return True

    def _pass_on_all(self) -> None:
        """Send everything. In a thread, for only then nobody needs to call `put()`."""
        pause = _OVERFLOW_INTERVAL
        while True:
            with self._overflow_lock:
                n_before = len(self._overflow)
                try:
                    done = self._pass_on()
                except Exception:
                    # Shut down, or out of memory for good: nobody is left to be told.
                    done = True
                    self._overflow.clear()
                    self._set_spilling(False)
                if done or (self._overflow_dropped and not threading.main_thread().is_alive()):
                    self._overflow_thread = None
                    if self.closed:
                        super().close()
                    return
                pause = _OVERFLOW_INTERVAL if len(self._overflow) < n_before else min(2 * pause, _OVERFLOW_INTERVAL_MAX)
            time.sleep(pause)

    def _forget_overflow(self) -> None:
        """In a fork child: what the parent could not pass on yet is the parent's to pass on."""
        self._overflow.clear()
        self._overflow_lock = threading.Lock()
        self._overflow_thread = None
        self._set_spilling(False)

    def close(self) -> None:
        """Use the queue no more in this process: `put()` and `get()` raise ValueError. Others go on."""
        if self._polled:
            from ferry._asyncio import wake

            for endpoint in self._polled.values():
                wake(endpoint)
            self._polled.clear()
        with self._overflow_lock:
            if self._overflow:
                self._refuse()  # the thread closes when all is passed on
                return
        super().close()

    def join_thread(self) -> None:
        """Wait until what this process put is in shared memory, after `close()`.

        It is already, unless there is no limit and more than 1024 objects were put while
        nobody got any.
        """
        if not self.closed:
            raise AssertionError(f"Queue {self!r} not closed")
        thread = self._overflow_thread
        if thread is not None:
            thread.join()

    def cancel_join_thread(self) -> None:
        """Let the process end although objects wait in it that there was no room for; they are lost then."""
        self._overflow_dropped = True

    # ---- asyncio ----

    async def get_async(self, timeout: float | None = None) -> Any:
        """Take the next object; other tasks of the event loop run meanwhile.

        Parameters
        ----------
        timeout : float or None, optional
            For how many seconds to wait at most.

        Returns
        -------
        object
            What was put.

        Raises
        ------
        queue.Empty
            None came in time.
        EOFError
            Every process that put has called `end()`, and everything is taken.
        ValueError
            The queue is closed.
        """
        return await _retry(self.get_nowait, self._polled_endpoint(False), queue.Empty, timeout)

    async def put_async(self, obj: Any, timeout: float | None = None) -> None:
        """Put an object; other tasks of the event loop run while there is no room.

        That of a queue without a limit never waits: what finds no room is kept, as `put()` does.

        Parameters
        ----------
        obj : object
            What to put.
        timeout : float or None, optional
            For how many seconds to wait at most.

        Raises
        ------
        queue.Full
            No room came in time.
        ValueError
            The queue is closed.
        ferry.CodecError
            The object can't be encoded.
        """
        await _retry(lambda: self.put_nowait(obj), self._polled_endpoint(True), queue.Full, timeout)

    def _polled_endpoint(self, sending: bool) -> _native.Channel:
        endpoint = self._endpoint(sending)
        self._polled[sending] = endpoint
        return endpoint

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            try:
                item = await self.get_async()
            except EOFError:
                return
            yield item

    # ---- arrays in place ----

    def loan(
        self,
        shape: int | tuple[int, ...],
        dtype: numpy.typing.DTypeLike = None,
        timeout: float | None = None,
    ) -> numpy.ndarray[Any, Any]:
        """Borrow an array in shared memory, to be filled and put without a copy.

        Parameters
        ----------
        shape : int or tuple of int
            The shape of the array.
        dtype : dtype-like, optional
            Its type; float64 if left out. It must not contain objects.
        timeout : float or None, optional
            For how many seconds to wait for memory at most.

        Returns
        -------
        numpy.ndarray
            Writable, in C order, aligned to 64 bytes; its contents are undefined. `put()` of it
            moves the memory into the queue: it must not be touched any more. Deleting it
            instead gives the memory back.
        """
        from ferry._loan import loan_array

        return loan_array(self._loan_buffer, shape, dtype, timeout)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name is not None else ""
        state = "closed" if self.closed else f"{self.qsize()} of {self._maxsize or 'any number'}"
        return f"<{type(self).__module__}.{type(self).__qualname__}{name}, {self.transport}, {state}>"


class JoinableQueue(Queue):
    """A queue that can tell when everything that was put into it is done.

    As `multiprocessing.JoinableQueue`: for each object that it got a consumer calls
    `task_done()`, and `join()` waits until all is done. Such a queue has no name.

    What was put and never done, `join()` waits for for ever, as there: a consumer that is killed
    between `get()` and `task_done()` leaves its task undone, for nobody knows how much of the
    work it had done; who knows calls `task_done()` in its place. So does a process that is
    killed while it keeps objects that found no room, which happens without `maxsize` only (see
    `Queue`): they count from `put()` on, and are gone. With a `maxsize` a process that is killed
    inside `put()` leaves no task.
    """

    _joinable = True

    def __init__(
        self,
        maxsize: int = 0,
        *,
        ctx: Any = None,
        name: None = None,
        transport: str = "memfd",
        codec: str = "auto",
        max_bytes: int | None = None,
        pickle: bool = True,
        store: Store | None = None,
    ) -> None:
        if name is not None:
            raise ValueError("a JoinableQueue has no name: what is undone is counted in memory that is passed on")
        super().__init__(
            maxsize,
            ctx=ctx,
            name=name,
            transport=transport,
            codec=codec,
            max_bytes=max_bytes,
            pickle=pickle,
            store=store,
        )

    def _init(self, settings: dict[str, Any], **arguments: Any) -> None:
        super()._init(settings, joinable=True, **arguments)

    def task_done(self) -> None:
        """Tell that an object that was got is done.

        Raises
        ------
        ValueError
            It was called more often than objects were put.
        """
        self._task_done()

    def join(self) -> None:
        """Wait until all objects that were put are done."""
        self._wait_tasks()


class SimpleQueue(Queue):
    """A queue with `put()`, `get()`, `empty()` and `close()`, as `multiprocessing.SimpleQueue`.

    The other methods of `Queue` are there as well. `put()` blocks when 1024 objects wait, or
    `max_bytes` are taken: nothing is ever kept in the process that puts, and no thread runs.

    Parameters
    ----------
    ctx : multiprocessing.context.BaseContext, optional
        For compatibility; the queue suits every start method.
    **keywords
        As for `Queue`, but for `maxsize`.
    """

    def __init__(
        self,
        *,
        ctx: Any = None,
        name: str | None = None,
        transport: str = "memfd",
        codec: str = "auto",
        max_bytes: int | None = None,
        pickle: bool = True,
        store: Store | None = None,
    ) -> None:
        super().__init__(
            0,
            ctx=ctx,
            name=name,
            transport=transport,
            codec=codec,
            max_bytes=max_bytes,
            pickle=pickle,
            store=store,
        )

    def _init(self, settings: dict[str, Any], **arguments: Any) -> None:
        super()._init({**settings, "unlimited": False}, **arguments)
        self._set_closed_error(OSError, "handle is closed")


async def _retry(attempt: Callable[[], Any], endpoint: Any, not_yet: type[Exception], timeout: float | None) -> Any:
    """Try until it succeeds, waiting for the endpoint in between."""
    import asyncio

    from ferry._asyncio import wait_ready

    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            return attempt()
        except not_yet:
            if deadline is None:
                await wait_ready(endpoint)
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise
        try:
            await asyncio.wait_for(wait_ready(endpoint), left)
        except TimeoutError:
            pass


def _rebuild(cls: type[Queue], settings: dict[str, Any], descriptors: list[Any] | None) -> Queue:
    self = cls.__new__(cls)
    if descriptors is None:
        self._init(settings)
    else:
        fds = dict(zip(("control_fd", "data_fd", "tasks_fd"), (fd.detach() for fd in descriptors), strict=False))
        self._init(settings, create=False, **fds)
    return self


def _after_fork() -> None:
    for overflowing in list(_overflowing):
        overflowing._forget_overflow()
    _overflowing.clear()


os.register_at_fork(after_in_child=_after_fork)
