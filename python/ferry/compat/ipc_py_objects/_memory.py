# SPDX-License-Identifier: LGPL-2.1-or-later
"""`SharedMemory`: a store with a queue of messages in it, and a line of those who want to be alone with it."""

from __future__ import annotations

import enum
import itertools
import math
import secrets
import time
import weakref
from typing import Any

import numpy

from ferry.compat import _store
from ferry.compat._line import Line, is_dead, myself, wait_until, wait_until_async
from ferry.compat.ipc_py_objects._errors import (
    FreeMemoryChunkNotFoundError,
    NoMessagesInQueueError,
    ObjBufferIsSmallerThanRequestedNumpyArrayError,
    OperationTimedOutError,
    SharedMemoryError,
    WrongObjectTypeError,
)
from ferry.compat.ipc_py_objects._wrappers import Parcel
from ferry.errors import ChannelNotFoundError, ClosedError, NoSpaceError

__all__ = [
    "GetInLine",
    "QueueType",
    "SharedMemory",
    "WaitMyTurn",
    "WaitMyTurnWhenHasMessages",
    "await_my_turn",
    "get_in_line",
    "make_numpy_array_from_obj_offset",
    "wait_my_turn",
    "wait_my_turn_when_has_messages",
]

RationalNumber = float | int

# What leads from the name to the store of the present session. It is small, and the same for all, so that also a
# consumer that is first can make it, and sleep until there is a session.
_DIRECTORY_BYTES = 16 << 20
_SESSION = "session"  # key of the directory: (name of the store, size, its creator); of the store: see below
_SMALLEST_SIZE = 1 << 20

# Keys of a store.
_MESSAGES = "messages"  # list
_LINE = "line"  # list
_CONSUMERS = "consumers"  # dict: number to who it is
_IS_OPEN = "is-open"  # bool: until the creator closes it
_SCRATCH = "scratch"  # dict: of each process one, in which it makes objects live

# Whose place in the line it is.
_CREATOR = 1
_CONSUMER = 2

# Messages without an identity, and what comes back as a copy.
_COPIES = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, tuple})


_serials = itertools.count()


class QueueType(enum.IntEnum):
    """From which end of the queue a message is taken."""

    fifo = 0
    lifo = 1


class _Box:
    """What has no identity of its own, but whose number somebody was told.

    Attributes
    ----------
    kind : str
        ``"bytes"``, ``"bytearray"`` or ``"str"``: `value` is an array of its bytes, so that it has a buffer; ``""``: it
        is the value itself.
    """

    __slots__ = ("kind", "value")

    def __init__(self, value: Any) -> None:
        self.kind = ""
        if isinstance(value, (bytes, bytearray)):
            self.kind = type(value).__name__
            value = numpy.frombuffer(bytearray(value), numpy.uint8)  # one of bytes could not be written
        elif isinstance(value, str):
            self.kind = "str"
            value = numpy.frombuffer(bytearray(value.encode("utf-8", "surrogatepass")), numpy.uint8)
        self.value = value

    def open(self) -> Any:
        """Return what is in it."""
        value = self.value
        if self.kind == "bytes":
            return value.tobytes()
        if self.kind == "bytearray":
            return bytearray(value)
        if self.kind == "str":
            return value.tobytes().decode("utf-8", "surrogatepass")
        return value


_DESTROYED = object()


class _Holder:
    """What keeps an object alive, until it is destroyed."""

    __slots__ = ("__weakref__", "stored")

    def __init__(self, stored: Any) -> None:
        self.stored = stored


class _Offset(int):
    """The number of an object, which lives at least as long as this."""

    holder: _Holder

    def __new__(cls, number: int, holder: _Holder) -> _Offset:
        self = super().__new__(cls, number)
        self.holder = holder
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)


class SharedMemory:
    """Memory that processes share, in which objects live, and a queue through which they hand them to each other.

    One process, the creator, makes it; any number of others, the consumers, find it by its name.

    Parameters
    ----------
    name : str
        Up to 180 characters, without ``/``.
    create : bool, default False
        Whether this is the creator.
    size : int or None, optional
        Of the creator: how many bytes all that is shared may take; at least 1 MiB. Memory is taken when it is needed.
        None: half of the machine's.
    queue_type : QueueType, default QueueType.fifo
        Which message is taken when the call does not say it.
    zero_mem : bool, default True
        Accepted; fresh memory is always zeroed.
    consumer_id : int or None, optional
        Of a consumer: the number it is known by. None: the lowest that is free, from 0.
    creator_destroy_timeout : float or None, default 5.0
        Of the creator: for how many seconds `close()` waits for consumers that are alive to close. They may go on with
        what they have afterwards; nobody new finds it.
    unlink_old : bool, default True
        Of the creator: whether it takes the place of one of the same name that exists already, and whose processes then
        are among themselves. Otherwise that raises FileExistsError.

    Raises
    ------
    FileExistsError
        There is one of that name, its creator lives, and `unlink_old` is false.
    """

    def __init__(
        self,
        name: str,
        create: bool = False,
        size: int | None = None,
        queue_type: QueueType = QueueType.fifo,
        zero_mem: bool = True,
        consumer_id: int | None = None,
        creator_destroy_timeout: float | None = 5.0,
        unlink_old: bool = True,
    ) -> None:
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(f"the name of shared memory is a str without '/', not {name!r}")
        if size is not None and create and size <= 0:
            raise ValueError(f"size must be a positive number of bytes, not {size}")
        self._name = name
        self._create = bool(create)
        self._size = size
        self._queue_type = QueueType(queue_type)
        self._zero_mem = zero_mem
        self._consumer_id = consumer_id
        self._creator_destroy_timeout = creator_destroy_timeout
        self._unlink_old = unlink_old
        self._directory: Any = None
        self._store: Any = None
        self._line: Line | None = None
        self._messages: Any = None
        self._consumers: Any = None
        self._scratch: Any = None
        self._owner: tuple[int, ...] = ()
        self._is_ready = False
        self._offsets: weakref.WeakValueDictionary[int, _Holder] = weakref.WeakValueDictionary()
        if create:
            self._create_session()

    # ---- what it is ----

    @property
    def name(self) -> str:
        """What it is found by."""
        return self._name

    @property
    def create(self) -> bool:
        """Whether this is the creator."""
        return self._create

    @property
    def size(self) -> int | None:
        """How many bytes all that is shared may take; None as long as a consumer has not found it."""
        return self._size

    @property
    def consumer_id(self) -> int | None:
        """The number of a consumer; None for the creator, and before `init_consumer()`."""
        return self._consumer_id

    @property
    def queue_type(self) -> QueueType:
        """Which message is taken when the call does not say it."""
        return self._queue_type

    @property
    def store(self) -> Any:
        """The `ferry.Store` in which everything is."""
        return self._get_store()

    def __repr__(self) -> str:
        role = "creator" if self._create else f"consumer {self._consumer_id}"
        return f"<{type(self).__name__} {self._name!r} {role} {'closed' if self._store is None else 'open'}>"

    def __getattr__(self, name: str) -> Any:
        if name in _OF_THE_LAYOUT:
            raise AttributeError(
                f"SharedMemory has no {name}(): how the memory is laid out is Ferry's own affair; "
                "objects are reached through put_message(), take_message(), put_obj() and get_obj()"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _get_store(self) -> Any:
        if self._store is None:
            hint = "it is closed" if self._is_ready or self._create else "call init_consumer() first"
            raise SharedMemoryError(f"shared memory '{self._name}' is not open: {hint}")
        return self._store

    # ---- opening and closing ----

    def _create_session(self) -> None:
        directory = _store.open_store(self._name, _DIRECTORY_BYTES)
        try:
            if not self._unlink_old:
                found = directory.get(_SESSION)
                if found is not None and not is_dead(found[2]):
                    raise FileExistsError(
                        f"shared memory '{self._name}' exists, and its creator (process {found[2][0]}) is alive; "
                        "close it there, use another name, or let unlink_old be true"
                    )
            size = None if self._size is None else max(self._size, _SMALLEST_SIZE)
            name = f"{self._name}.{secrets.token_hex(4)}"
            store = _store.open_store(name, size, create=True)
            store[_MESSAGES] = []
            store[_LINE] = []
            store[_CONSUMERS] = {}
            store[_SCRATCH] = {}
            store[_IS_OPEN] = True
            self._size = store.max_bytes if self._size is None else self._size
            directory[_SESSION] = (name, self._size, myself())
        except BaseException:
            directory.close()
            raise
        self._directory = directory
        self._use(store)

    def _use(self, store: Any) -> None:
        self._store = store
        self._messages = store[_MESSAGES]
        self._consumers = store[_CONSUMERS]
        self._line = Line(store, store[_LINE], _CREATOR if self._create else _CONSUMER)
        scratch = store[_SCRATCH]
        for owner in _store.keys_of(scratch):
            if is_dead(owner[:3]):
                scratch.pop(owner, None)
        self._owner = (*myself(), next(_serials))
        scratch[self._owner] = {}
        self._scratch = scratch[self._owner]

    def _find_session(self) -> bool:
        """Open the store of the present session, if there is one that is open."""
        if self._store is not None:
            return True
        if self._directory is None:
            self._directory = _store.open_store(self._name, _DIRECTORY_BYTES)
        found = self._directory.get(_SESSION)
        if found is None:
            return False
        try:
            store = _store.open_store(found[0], None, create=False)
        except ChannelNotFoundError:
            return False  # everybody who had it is gone
        if not store.get(_IS_OPEN):
            store.close()
            return False
        self._size = found[1]
        self._use(store)
        return True

    def _register(self) -> None:
        """Take a consumer's number."""
        consumers = self._consumers
        me = myself()
        with self._get_store().transaction():
            if self._consumer_id is None:
                number = 0
                while number in consumers and not is_dead(consumers[number]):
                    number += 1
            else:
                number = self._consumer_id
                if number in consumers and not is_dead(consumers[number]):
                    raise SharedMemoryError(
                        f"shared memory '{self._name}': process {consumers[number][0]} is consumer {number} already; "
                        "let consumer_id be None, or choose another"
                    )
            consumers[number] = me
        self._consumer_id = number
        self._is_ready = True

    def init_consumer(self, time_limit: float | None = None, periodic_sleep_time: float | None = None) -> bool:
        """Wait, asleep, until the creator has made the memory, and use it. Return whether that came in time."""
        if self._is_ready:
            return True
        if not self.wait_shared_memory_ready(time_limit):
            return False
        self._register()
        return True

    async def ainit_consumer(self, time_limit: float | None = None) -> bool:
        """The same for a coroutine."""
        if self._is_ready:
            return True
        if not await self.await_shared_memory_ready(time_limit):
            return False
        self._register()
        return True

    def close_consumer(self) -> None:
        """Tell that this consumer does not need the creator any more. What it has stays usable."""
        if self._is_ready and self._store is not None:
            self._is_ready = False
            if self._consumers.get(self._consumer_id) == myself():
                self._consumers.pop(self._consumer_id, None)

    def close(self) -> None:
        """Give up the turn, and use the memory no more. The creator waits a while for its consumers."""
        store = self._store
        if store is None:
            self._close_directory()
            return
        self.release()
        if self._create:
            store[_IS_OPEN] = False
            self._wait_closed(self._creator_destroy_timeout or 0)
            self._forget_session()
        else:
            self.close_consumer()
        self._drop()

    async def aclose(self) -> None:
        """The same for a coroutine."""
        store = self._store
        if store is not None and self._create:
            self.release()
            store[_IS_OPEN] = False
            await wait_until_async(
                store, self._all_closed, self._creator_destroy_timeout or 0, self._look_for_dead_consumers
            )
            self._forget_session()
            self._drop()
        else:
            self.close()

    proper_close = close
    aproper_close = aclose

    def _forget_session(self) -> None:
        directory = self._directory
        with directory.transaction():
            found = directory.get(_SESSION)
            if found is not None and found[0] == self._store.name:
                del directory[_SESSION]

    def _drop(self) -> None:
        store, self._store = self._store, None
        try:
            store[_SCRATCH].pop(self._owner, None)
        except ClosedError:
            pass
        self._messages = self._consumers = self._scratch = self._line = None
        self._offsets.clear()
        store.close()
        self._close_directory()

    def _close_directory(self) -> None:
        directory, self._directory = self._directory, None
        if directory is not None:
            directory.close()

    def __enter__(self) -> SharedMemory:
        if self._create and self._store is None:
            self._create_session()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> SharedMemory:
        return self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @staticmethod
    def unlink_by_name(shared_memory_name: str) -> None:
        """Let nobody find the memory of a name any more; who has it goes on."""
        directory = _store.open_store(shared_memory_name, _DIRECTORY_BYTES)
        try:
            directory.pop(_SESSION, None)
        finally:
            directory.close()

    # ---- waiting for each other ----

    def wait_shared_memory_ready(
        self, time_limit: float | None = None, periodic_sleep_time: float | None = None
    ) -> bool:
        """Wait until the memory is there; return whether it came in time."""
        if self._find_session():
            return True
        return wait_until(self._directory, self._find_session, time_limit, self._find_session)

    async def await_shared_memory_ready(self, time_limit: float | None = None) -> bool:
        """The same for a coroutine."""
        if self._find_session():
            return True
        return await wait_until_async(self._directory, self._find_session, time_limit, self._find_session)

    wait_creator_ready = wait_shared_memory_ready
    await_creator_ready = await_shared_memory_ready

    def get_creator_ready(self) -> bool:
        """Whether the memory is there."""
        return self._find_session()

    def get_consumer_ready(self) -> bool:
        """Whether a consumer uses it."""
        return len(self._get_consumers()) > 0

    def wait_consumer_ready(self, time_limit: float | None = None, periodic_sleep_time: float | None = None) -> bool:
        """Wait until a consumer uses the memory; return whether one came in time."""
        self._get_store()
        return wait_until(self._store, self.get_consumer_ready, time_limit)

    async def await_consumer_ready(self, time_limit: float | None = None) -> bool:
        """The same for a coroutine."""
        self._get_store()
        return await wait_until_async(self._store, self.get_consumer_ready, time_limit)

    def wait_consumer_closed(self, time_limit: float | None = None, periodic_sleep_time: float | None = None) -> bool:
        """Wait until no consumer that is alive uses the memory; return whether that came in time."""
        self._get_store()
        return self._wait_closed(time_limit)

    async def await_consumer_closed(self, time_limit: float | None = None) -> bool:
        """The same for a coroutine."""
        self._get_store()
        return await wait_until_async(self._store, self._all_closed, time_limit, self._look_for_dead_consumers)

    def _get_consumers(self) -> Any:
        self._get_store()
        return self._consumers

    def _all_closed(self) -> bool:
        return len(self._consumers) == 0

    def _wait_closed(self, time_limit: float | None) -> bool:
        return wait_until(self._store, self._all_closed, time_limit, self._look_for_dead_consumers)

    def _look_for_dead_consumers(self) -> None:
        for number, owner in _store.items_of(self._consumers):
            if is_dead(owner):
                self._consumers.pop(number, None)

    # ---- turns ----

    def _get_line(self) -> Line:
        line = self._line
        if line is None:
            self._get_store()
            raise AssertionError
        return line

    def wait_my_turn(self, time_limit: float | None = None, periodic_sleep_time: float | None = None) -> bool:
        """Wait, asleep, until no other process has its turn; return whether that came in time.

        It returns at once while we have the turn. Who dies in its turn loses it.
        """
        line = self._get_line()
        return line.is_first() or line.wait(time_limit)

    async def await_my_turn(self, time_limit: float | None = None) -> bool:
        """The same for a coroutine."""
        line = self._get_line()
        return line.is_first() or await line.wait_async(time_limit)

    def get_in_line(self) -> bool:
        """Take the turn if nobody has it and nobody waits for it; return whether we have it."""
        return self._get_line().try_now()

    def is_in_line(self) -> bool:
        """Whether we have the turn."""
        return self._get_line().is_first()

    def release(self) -> None:
        """Give up the turn."""
        if self._line is not None:
            self._line.leave()

    def creator_in_charge(self) -> bool:
        """Whether the creator has the turn."""
        return self._get_line().first_tag() == _CREATOR

    def consumer_in_charge(self) -> bool:
        """Whether a consumer has the turn."""
        return self._get_line().first_tag() == _CONSUMER

    def has_messages(self) -> bool:
        """Whether a message waits."""
        messages = self._messages
        if messages is None:
            self._get_store()
        return len(messages) > 0

    def wait_for_messages(self, time_limit: float | None = None, periodic_sleep_time: float | None = None) -> bool:
        """Wait, asleep, until a message waits; return whether one came in time."""
        return wait_until(self._get_store(), self.has_messages, time_limit)

    async def await_for_messages(self, time_limit: float | None = None) -> bool:
        """The same for a coroutine."""
        return await wait_until_async(self._get_store(), self.has_messages, time_limit)

    # ---- objects ----

    def _store_object(self, obj: Any, box: bool) -> tuple[Any, Any]:
        """Make what stands for an object in the queue, and what the caller gets for it."""
        kind = type(obj)
        scratch = self._scratch
        if scratch is None:
            self._get_store()
        try:
            if kind in _COPIES and kind is not tuple:
                return self._live(_Box(obj)) if box or kind is bytearray else obj, obj
            parcel = Parcel(obj)
            content = parcel.content
            if type(content) in _COPIES:
                if type(content) is tuple:
                    content = self._live(_Box(content))
                    return content, self._settle_tuple(parcel, content, obj)
                return self._live(_Box(content)) if box or type(content) is bytearray else content, content
            live = self._live(content)
            mapped = parcel.settle(live)
            return live, mapped
        except NoSpaceError as error:
            raise FreeMemoryChunkNotFoundError(
                f"shared memory '{self._name}' of {self._size} bytes has no room for this {kind.__name__}: {error}; "
                "create it with a larger size, or keep less in it"
            ) from error

    @staticmethod
    def _settle_tuple(parcel: Parcel, stored: Any, obj: Any) -> Any:
        """A tuple has no identity, but what is in it may."""
        parcel.settle(stored.value)
        return obj if type(obj) is tuple else stored.value

    def _live(self, content: Any) -> Any:
        return _store.make_live(self._scratch, content)

    def put_message(self, obj: Any) -> Any:
        """Put an object into the shared memory and into the queue.

        Returns
        -------
        object
            What all processes share from now on: a live object; an instance itself, which has become that, unless it
            was wrapped to be copied; the same object for None, bool, int, float, complex, str, bytes, bytearray and
            tuple.

        Raises
        ------
        FreeMemoryChunkNotFoundError
            There is no room. Nothing was changed.
        """
        stored, mapped = self._store_object(obj, False)
        self._append(stored)
        return mapped

    def _append(self, stored: Any) -> None:
        try:
            self._messages.append(stored)
        except NoSpaceError as error:
            raise FreeMemoryChunkNotFoundError(
                f"shared memory '{self._name}' of {self._size} bytes has no room for one more message: {error}; "
                "create it with a larger size, or keep less in it"
            ) from error

    def put_message_2(self, obj: Any) -> tuple[Any, int]:
        """The same; return also the number of the object, for `get_obj_buffer()`, `get_obj()` and `destroy_obj()`."""
        stored, mapped = self._store_object(obj, True)
        self._append(stored)
        return mapped, self._offset_of(stored)

    def write_message(self, obj: Any) -> tuple[Any, int, int]:
        """The same as `put_message_2()`, with the number once more as that of the message."""
        mapped, offset = self.put_message_2(obj)
        return mapped, offset, offset

    def _offset_of(self, stored: Any) -> int:
        number = _store.number_of(stored)
        if number is None:
            # Nobody was told its number before, so nobody else asks for it: it gets one that is no object's.
            number = -1 - len(self._offsets)
            while number in self._offsets:
                number -= 1
        holder = self._offsets.get(number)
        if holder is None or holder.stored is _DESTROYED:
            holder = self._offsets[number] = _Holder(stored)
        return _Offset(number, holder)

    @staticmethod
    def _open_message(stored: Any) -> Any:
        if isinstance(stored, _Box):
            return stored.open()
        return stored

    def _take(self, queue_type: QueueType | None, remove: bool) -> Any:
        """Return what stands for the next message; raise IndexError if there is none."""
        messages = self._messages
        if messages is None:
            self._get_store()
        last = self._queue_type if queue_type is None else queue_type
        place = -1 if last == QueueType.lifo else 0
        return messages.pop(place) if remove else messages[place]

    def _no_messages(self) -> NoMessagesInQueueError:
        return NoMessagesInQueueError(f"no message waits in shared memory '{self._name}'")

    def take_message(self, queue_type: QueueType | None = None) -> Any:
        """Take the next message out of the queue: the same live object, or a copy of what has no identity.

        Raises
        ------
        NoMessagesInQueueError
            There is none.
        """
        try:
            return self._open_message(self._take(queue_type, True))
        except IndexError:
            raise self._no_messages() from None

    def take_message_2(self, queue_type: QueueType | None = None) -> tuple[Any, int]:
        """The same; return also the number of the object."""
        try:
            stored = self._take(queue_type, True)
        except IndexError:
            raise self._no_messages() from None
        return self._open_message(stored), self._offset_of(stored)

    def read_message(self, queue_type: QueueType | None = None) -> Any:
        """Return the next message, which stays in the queue."""
        try:
            return self._open_message(self._take(queue_type, False))
        except IndexError:
            raise self._no_messages() from None

    def read_message_2(self, queue_type: QueueType | None = None) -> tuple[Any, int]:
        """The same; return also the number of the object."""
        try:
            stored = self._take(queue_type, False)
        except IndexError:
            raise self._no_messages() from None
        return self._open_message(stored), self._offset_of(stored)

    def read_message_info(self, queue_type: QueueType | None = None) -> tuple[Any, int | None, int | None]:
        """The same, with the number once more as that of the message; three times None if there is none."""
        try:
            obj, offset = self.read_message_2(queue_type)
        except NoMessagesInQueueError:
            return None, None, None
        return obj, offset, offset

    def get_message(self, default: Any = None, queue_type: QueueType | None = None) -> Any:
        """Return the next message, which stays in the queue, or the default if there is none."""
        try:
            return self._open_message(self._take(queue_type, False))
        except IndexError:
            return default

    def get_message_2(self, default: Any = None, queue_type: QueueType | None = None) -> tuple[Any, int | None]:
        """The same; return also the number of the object, or None."""
        try:
            return self.read_message_2(queue_type)
        except NoMessagesInQueueError:
            return default, None

    def pop_message(self, default: Any = None, queue_type: QueueType | None = None) -> Any:
        """Take the next message, or return the default if there is none."""
        try:
            return self._open_message(self._take(queue_type, True))
        except IndexError:
            return default

    def pop_message_2(self, default: Any = None, queue_type: QueueType | None = None) -> tuple[Any, int | None]:
        """The same; return also the number of the object, or None."""
        try:
            return self.take_message_2(queue_type)
        except NoMessagesInQueueError:
            return default, None

    def destroy_message(self, message_offset: int) -> None:
        """Take the message of that number out of the queue, wherever it is."""
        stored = self._find(message_offset)
        messages = self._messages
        with self._get_store().transaction():
            for place, message in enumerate(messages):
                if _store.number_of(message) == message_offset:
                    del messages[place]
                    return
        del stored
        raise WrongObjectTypeError(f"shared memory '{self._name}': {message_offset} is no message that waits")

    def put_obj(self, obj: Any) -> tuple[Any, int, int]:
        """Put an object into the shared memory. Return what is shared, its number, and the bytes of its head.

        It lives as long as somebody has it, or the number.
        """
        stored, mapped = self._store_object(obj, True)
        return mapped, self._offset_of(stored), _store.HEAD_BYTES

    def map_object(self, obj: Any) -> Any:
        """Put an object into the shared memory; return what is shared."""
        return self._store_object(obj, False)[1]

    def get_obj(self, offset: int) -> Any:
        """Return the object of a number.

        Raises
        ------
        WrongObjectTypeError
            It is gone.
        """
        return self._open_message(self._find(offset))

    get_object = get_obj

    def _find(self, offset: int) -> Any:
        """Return what an offset stands for."""
        holder = offset.holder if isinstance(offset, _Offset) else self._offsets.get(offset)
        if holder is not None:
            if holder.stored is not _DESTROYED:
                return holder.stored
        elif offset > 0:
            found = _store.find(self._get_store(), offset)
            if found is not None:
                return found
        raise WrongObjectTypeError(
            f"shared memory '{self._name}' has no object {int(offset)}: it was destroyed, or never was"
        )

    def destroy_obj(self, offset: int) -> None:
        """Do without an object. Its memory is free as soon as nobody else refers to it; nobody loses what it has."""
        self._find(offset)
        holders = {self._offsets.pop(int(offset), None), offset.holder if isinstance(offset, _Offset) else None}
        for holder in holders:
            if holder is None:
                continue
            holder.stored = _DESTROYED

    destroy_object = destroy_obj

    def get_obj_buffer(self, offset: int) -> memoryview:
        """Return the memory of a bytes, bytearray, str (in UTF-8), ndarray or tensor, to be read and written.

        Raises
        ------
        WrongObjectTypeError
            The object is gone, or of another type.
        """
        stored = self._find(offset)
        if isinstance(stored, (bytes, str)):  # a copy, whose number nobody else knows
            stored = _Box(stored)
            known = offset.holder if isinstance(offset, _Offset) else self._offsets[offset]
            known.stored = stored
        view = _store.buffer_of(stored.value if isinstance(stored, _Box) else stored)
        if view is None:
            raise WrongObjectTypeError(
                f"shared memory '{self._name}': a {type(self._open_message(stored)).__name__} has no buffer; "
                "bytes, bytearray, str, ndarray and tensors have one"
            )
        return view

    get_obj_mem_view = get_obj_buffer

    def get_obj_buffer_2(self, offset: int) -> tuple[int, int]:
        """Return the address of that memory in this process, and its size in bytes."""
        array = numpy.frombuffer(self.get_obj_buffer(offset), numpy.uint8)
        return array.ctypes.data, array.nbytes


# ---- context managers ----


class _Turn:
    """What `wait_my_turn` and its like have in common."""

    __slots__ = ("shared_memory", "time_limit")

    def __init__(
        self,
        shared_memory: SharedMemory,
        time_limit: float | None = None,
        periodic_sleep_time: float | None = None,
    ) -> None:
        self.shared_memory = shared_memory
        self.time_limit = time_limit

    def _time_out(self, what: str) -> OperationTimedOutError:
        return OperationTimedOutError(
            f"shared memory '{self.shared_memory.name}': {what} within {self.time_limit} seconds"
        )

    def __exit__(self, *exc_info: object) -> None:
        self.shared_memory.release()


class WaitMyTurn(_Turn):
    """Wait for the turn, and give it up at the end.

    Parameters
    ----------
    shared_memory : SharedMemory
        Whose turn.
    time_limit : float or None, optional
        For how many seconds to wait at most.
    periodic_sleep_time : float or None, optional
        Accepted; whoever waits sleeps until there is something to do.

    Raises
    ------
    OperationTimedOutError
        The turn did not come in time.
    """

    __slots__ = ()

    def __enter__(self) -> SharedMemory:
        if not self.shared_memory.wait_my_turn(self.time_limit):
            raise self._time_out("the turn did not come")
        return self.shared_memory


class WaitMyTurnWhenHasMessages(_Turn):
    """The same once a message waits; it still waits when the turn has come.

    Raises
    ------
    OperationTimedOutError
        There was no message, or the turn did not come, in time.
    """

    __slots__ = ()

    def __enter__(self) -> SharedMemory:
        memory = self.shared_memory
        deadline = None if self.time_limit is None else time.monotonic() + self.time_limit
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            if not memory.wait_for_messages(left):
                raise self._time_out("no message came")
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            if not memory.wait_my_turn(left):
                raise self._time_out("the turn did not come")
            if memory.has_messages():
                return memory
            memory.release()  # somebody else took it


class GetInLine:
    """Take the turn if it is free, tell whether that was so, and give it up at the end."""

    __slots__ = ("shared_memory",)

    def __init__(self, shared_memory: SharedMemory) -> None:
        self.shared_memory = shared_memory

    def __enter__(self) -> bool:
        return self.shared_memory.get_in_line()

    def __exit__(self, *exc_info: object) -> None:
        self.shared_memory.release()


class await_my_turn:  # noqa: N801
    """`wait_my_turn` for a coroutine: ``async with await_my_turn(shared_memory):``."""

    __slots__ = ("_turn",)

    def __init__(self, shared_memory: SharedMemory, time_limit: float | None = None) -> None:
        self._turn = WaitMyTurn(shared_memory, time_limit)

    async def __aenter__(self) -> SharedMemory:
        turn = self._turn
        if not await turn.shared_memory.await_my_turn(turn.time_limit):
            raise turn._time_out("the turn did not come")
        return turn.shared_memory

    async def __aexit__(self, *exc_info: object) -> None:
        self._turn.shared_memory.release()


def make_numpy_array_from_obj_offset(
    shared_memory: SharedMemory, offset: int, np_shape: Any, np_dtype_or_ctypes_type: Any = None
) -> numpy.ndarray[Any, Any]:
    """Return an array on the buffer of an object.

    Raises
    ------
    ObjBufferIsSmallerThanRequestedNumpyArrayError
        An array of that shape and type does not fit.
    """
    dtype = numpy.dtype(np_dtype_or_ctypes_type)
    buffer = shared_memory.get_obj_buffer(offset)
    shape = (np_shape,) if isinstance(np_shape, int) else tuple(np_shape)
    n_bytes = dtype.itemsize * math.prod(shape)
    if n_bytes > buffer.nbytes:
        raise ObjBufferIsSmallerThanRequestedNumpyArrayError(
            f"an array of {dtype} with shape {shape} has {n_bytes} bytes, "
            f"the buffer of object {int(offset)} has {buffer.nbytes}"
        )
    return numpy.ndarray(shape, dtype, buffer)


wait_my_turn = WaitMyTurn
wait_my_turn_when_has_messages = WaitMyTurnWhenHasMessages
get_in_line = GetInLine

# Of the original, what reads and writes its memory by offsets.
_OF_THE_LAYOUT = frozenset(
    (
        *("malloc", "calloc", "realloc", "free", "buf", "mem_view", "read_mem", "print_mem"),
        *("read_uint64", "write_uint64", "read_uint8", "write_uint8", "read_int64", "write_int64"),
        *("read_double", "write_double", "read_obj_type_and_size", "write_obj_type_and_size"),
        *("get_data_start_offset", "get_data_end_offset", "get_data_size"),
        *("get_first_message_offset", "get_last_message_offset", "set_first_message_offset"),
        *("set_last_message_offset", "get_free_memory_search_start", "set_free_memory_search_start"),
    )
)
