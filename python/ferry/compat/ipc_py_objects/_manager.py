# SPDX-License-Identifier: LGPL-2.1-or-later
"""Turns for the coroutines of a process."""

from __future__ import annotations

import asyncio
import collections
from typing import Any, Generic, TypeVar

from ferry.compat.ipc_py_objects._errors import OperationTimedOutError
from ferry.compat.ipc_py_objects._memory import SharedMemory

__all__ = ["ASMCM", "ASMM", "ASharedMemoryContextManager", "ASharedMemoryManager", "ValueHolder"]

T = TypeVar("T")

#: For how long a process leaves the turn to others when none of its coroutines is in a hurry, in seconds.
_PAUSE = 0.001


class ValueHolder(Generic[T]):
    """A value, and whether it is wanted again at once.

    Attributes
    ----------
    value : object
        The `SharedMemory`.
    existence : bool
        True at the beginning of each block. Set it to False where the next turn is not urgent.
    """

    __slots__ = ("existence", "value")

    def __init__(self, existence: bool = False, value: Any = None) -> None:
        self.existence = existence
        self.value: T = value

    def __bool__(self) -> bool:
        return self.existence


class ASharedMemoryManager:
    """Gives coroutines of this process the turn at a `SharedMemory`: ``async with`` it.

    Entering it waits until both sides are there: for the creator until there is a consumer, for a consumer until there
    is the memory.

    Parameters
    ----------
    shared_memory : SharedMemory
        What for.
    save_cpu_time : bool, default False
        Whether blocks end as if each had set `ValueHolder.existence` to False. Whoever waits sleeps either way.
    time_limit : float or None, optional
        For how many seconds to wait for the other side.

    Raises
    ------
    OperationTimedOutError
        On entering: the other side did not come in time.
    """

    def __init__(
        self, shared_memory: SharedMemory, save_cpu_time: bool = False, time_limit: float | None = None
    ) -> None:
        self.shared_memory = shared_memory
        self.save_cpu_time = save_cpu_time
        self.time_limit = time_limit
        self.closed = True
        self._n_inside = 0
        self._is_taking = False  # somebody waits in line for all
        self._wait_until = 0.0
        self._is_urgent = False
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()
        self._idle: asyncio.Event | None = None

    async def __aenter__(self) -> ASharedMemoryManager:
        memory = self.shared_memory
        await memory.__aenter__()
        try:
            if memory.create:
                came = await memory.await_consumer_ready(self.time_limit)
                who = "no consumer came"
            else:
                came = await memory.ainit_consumer(self.time_limit)
                who = "its creator did not come"
            if not came:
                raise OperationTimedOutError(f"shared memory '{memory.name}': {who} within {self.time_limit} seconds")
        except BaseException:
            await memory.aclose()
            raise
        self.closed = False
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __call__(self, if_has_messages: bool | None = None) -> ASharedMemoryContextManager:
        """Return what a coroutine waits with, as often as it likes."""
        return ASharedMemoryContextManager(self, if_has_messages)

    async def has_messages(self) -> bool:
        """Wait until a message waits."""
        await self.shared_memory.await_for_messages()
        return True

    async def aclose(self) -> None:
        """Wait until no coroutine is in a block any more, and close the shared memory."""
        if self.closed:
            return
        self.closed = True
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.cancel()
        if self._n_inside:
            self._idle = asyncio.Event()
            await self._idle.wait()
        await self.shared_memory.aclose()

    def close(self) -> asyncio.Future[None] | None:
        """Begin to close; return what is done when it has ended, None if it is closed already."""
        if self.closed:
            return None
        return asyncio.ensure_future(self.aclose())

    async def _enter(self) -> None:
        """Get the turn for a coroutine, with all those that wait."""
        if self.closed:
            raise RuntimeError("this ASharedMemoryManager is closed: use it inside of its `async with` block")
        line = self.shared_memory._get_line()
        if self._n_inside and not self._waiting and not self._is_taking and not line.is_wanted():
            self._n_inside += 1  # nobody has to wait because of us
            return
        if self._n_inside or self._is_taking:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            try:
                await waiting
            except BaseException:
                if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                    self._leave(True)  # the turn had come
                elif waiting in self._waiting:
                    self._waiting.remove(waiting)
                raise
            return
        await self._take_turn(line)
        self._n_inside += 1

    async def _take_turn(self, line: Any) -> None:
        self._is_taking = True
        try:
            pause = self._wait_until - asyncio.get_running_loop().time()
            if pause > 0:
                await asyncio.sleep(pause)
            if not line.try_now():
                await line.wait_async()
        except BaseException:
            self._is_taking = False
            self._pass_on()
            raise
        self._is_taking = False
        self._is_urgent = False
        while self._waiting:  # these came while we waited
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                self._n_inside += 1

    def _pass_on(self) -> None:
        """Let those that wait queue up on their own."""
        if self._waiting and not self._is_taking and not self.closed:
            task = asyncio.ensure_future(self._take_turn_for_others())
            _tasks.add(task)
            task.add_done_callback(_tasks.discard)

    async def _take_turn_for_others(self) -> None:
        if self._n_inside or self._is_taking or not self._waiting:
            return
        line = self.shared_memory._get_line()
        await self._take_turn(line)
        if not self._n_inside:  # all of them gave up
            line.leave()

    def _leave(self, is_urgent: bool) -> None:
        self._n_inside -= 1
        self._is_urgent = self._is_urgent or is_urgent
        if self._n_inside:
            return
        self.shared_memory.release()
        if not self._is_urgent or self.save_cpu_time:
            self._wait_until = asyncio.get_running_loop().time() + _PAUSE
        if self._idle is not None:
            self._idle.set()
        self._pass_on()


_tasks: set[asyncio.Task[None]] = set()


class ASharedMemoryContextManager:
    """The turn for one coroutine: ``async with``, as often as one likes.

    Parameters
    ----------
    ashared_memory_management : ASharedMemoryManager
        Whose coroutine it is.
    if_has_messages : bool or None, optional
        Whether each block waits until there is a message, as if `if_has_messages()` was called.
    """

    __slots__ = ("_default", "_entered", "_holder", "_if_has_messages", "ashared_memory_management")

    def __init__(self, ashared_memory_management: ASharedMemoryManager, if_has_messages: bool | None = None) -> None:
        self.ashared_memory_management = ashared_memory_management
        self._default = bool(if_has_messages)
        self._if_has_messages = self._default
        self._entered = False
        self._holder: ValueHolder[SharedMemory] = ValueHolder(True, ashared_memory_management.shared_memory)

    @property
    def shared_memory(self) -> SharedMemory:
        """What the turn is for."""
        return self.ashared_memory_management.shared_memory

    @property
    def save_cpu_time(self) -> bool:
        """The manager's."""
        return self.ashared_memory_management.save_cpu_time

    @save_cpu_time.setter
    def save_cpu_time(self, value: bool) -> None:
        self.ashared_memory_management.save_cpu_time = value

    def if_has_messages(self, value: bool = True) -> ASharedMemoryContextManager:
        """Let the next block begin when a message waits; it still waits then, however many processes take some."""
        self._if_has_messages = value
        return self

    def anyway(self) -> ASharedMemoryContextManager:
        """Let the next block begin whether or not there is a message."""
        self._if_has_messages = False
        return self

    async def has_messages(self) -> bool:
        """Wait until a message waits.

        Raises
        ------
        RuntimeError
            Called inside of a block, while which nobody else could put one.
        """
        if self._entered:
            raise RuntimeError("has_messages() waits for others, who wait until this block ends: call it outside")
        return await self.ashared_memory_management.has_messages()

    async def __aenter__(self) -> ValueHolder[SharedMemory]:
        if self._entered:
            raise RuntimeError("this context manager is in use: each coroutine needs one of its own")
        manager = self.ashared_memory_management
        self._entered = True
        try:
            while True:
                if self._if_has_messages:
                    await manager.has_messages()
                await manager._enter()
                if not self._if_has_messages or manager.shared_memory.has_messages():
                    break
                manager._leave(True)  # somebody else took it
        except BaseException:
            self._entered = False
            raise
        self._holder.existence = True
        return self._holder

    async def __aexit__(self, *exc_info: object) -> None:
        self._entered = False
        self._if_has_messages = self._default
        self.ashared_memory_management._leave(self._holder.existence)
        await asyncio.sleep(0)  # other coroutines get on as well

    def close(self) -> asyncio.Future[None] | None:
        """Close the manager."""
        return self.ashared_memory_management.close()

    async def aclose(self) -> None:
        """Close the manager, and wait for it."""
        await self.ashared_memory_management.aclose()


ASMM = ASharedMemoryManager
ASMCM = ASharedMemoryContextManager
