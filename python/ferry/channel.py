# SPDX-License-Identifier: LGPL-2.1-or-later
"""The general form: any transport, any codec, work queue or broadcast."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from ferry import _native

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from ferry.store import Store

__all__ = ["Channel", "Participant", "Statistics", "open"]

Role = Literal["sender", "receiver", "observer"]

_ROLES = {"sender": 0, "receiver": 1, "observer": 2}


class Statistics(NamedTuple):
    """A snapshot of a channel's counters, over all its participants.

    Each is exact when nothing moves; between themselves they may be a few messages apart
    while others work.

    Attributes
    ----------
    messages_sent : int
        Messages that senders sent since the channel was created.
    bytes_sent : int
        Their payload, in bytes.
    messages_received : int
        Messages that receivers took; in broadcast each receiver counts.
    bytes_received : int
        Their payload, in bytes.
    messages_dropped : int
        Messages discarded because the channel was full; each counts once.
    send_waits : int
        How often a sender had to wait for room.
    receive_waits : int
        How often a receiver had to wait for a message.
    in_flight : int
        Messages sent and not yet taken by everyone who shall.
    in_flight_peak : int
        The largest `in_flight` so far.
    capacity : int
        The bound of `in_flight`, in messages.
    bytes_committed : int
        Shared memory that backs payload now, in bytes.
    bytes_committed_peak : int
        The largest `bytes_committed` so far.
    max_bytes : int
        The bound of `bytes_committed`, in bytes.
    senders : int
        Senders that are alive.
    receivers : int
        Receivers that are alive.
    repairs : int
        Dead participants whose traces were repaired.
    """

    messages_sent: int
    bytes_sent: int
    messages_received: int
    bytes_received: int
    messages_dropped: int
    send_waits: int
    receive_waits: int
    in_flight: int
    in_flight_peak: int
    capacity: int
    bytes_committed: int
    bytes_committed_peak: int
    max_bytes: int
    senders: int
    receivers: int
    repairs: int


class Participant(NamedTuple):
    """One endpoint in one process.

    Attributes
    ----------
    id : int
        Its number in the channel, as `Buffer.sender` has it; used again when it has left.
    incarnation : int
        Tells those that had the same `id` apart.
    role : str
        ``"sender"``, ``"receiver"`` or ``"observer"``.
    pid : int
        The process, as that process sees itself.
    uid : int
        Its user.
    alive : bool
        Whether it was alive when asked.
    messages : int
        Messages it sent or received.
    bytes : int
        Their payload, in bytes.
    waits : int
        How often it had to wait.
    dropped : int
        Messages it dropped or missed.
    held : int
        Blocks of shared memory that it holds, loaned or received.
    """

    id: int
    incarnation: int
    role: str
    pid: int
    uid: int
    alive: bool
    messages: int
    bytes: int
    waits: int
    dropped: int
    held: int


class Channel(_native.Channel):
    """One end of a channel, open from the start.

    Parameters
    ----------
    description : str
        The name of a channel, such as ``"frames"``; a description, such as ``"posix-shm
        name=frames capacity=16 ! numpy"``; or a URI, such as ``"ferry+memfd:frames"``.
    role : {"sender", "receiver", "observer"}
        What this end does.
    codec : str, optional
        How objects are encoded; what the description says if left out. `auto`, the default
        there: plain arrays by `numpy`, live objects of a `Store` by `store`, everything else by
        `python`; received is what arrives.
    pickle : bool, optional
        Whether codec-python may pickle what it has no form for, and read pickles; what the
        description says (``... ! python pickle=yes``) if left out, and that is no if it says
        nothing. To read a pickle is to run code: only where every sender is trusted.
    store : ferry.Store, optional
        Where lists, dicts, sets, bytearrays, arrays and instances of classes become live objects when
        they are sent; see `Queue`.
    timeout : float or None, optional
        The time-out in seconds of calls that name none; None: for ever.
    open : bool, default True
        Whether to open it now.
    **properties
        Properties of the channel (`transport`, `capacity`, `max_bytes`, `mode`, `overflow`,
        `history`, `inline_size`, `timestamps`, `wait_strategy`, `open_mode`, `group`) or of
        its transport. The first to open a name determines what holds for all.

    Raises
    ------
    ferry.FerryError
        And what of the standard library goes with it: FileNotFoundError, FileExistsError,
        PermissionError, ValueError, TimeoutError, OSError.
    ValueError
        `codec`, `pickle` or a property is given and contradicts the description.

    See Also
    --------
    Queue : what most programs want.

    Examples
    --------
    >>> with Channel("frames", "sender", mode="broadcast") as channel:
    ...     channel.send(array)
    """

    def __new__(  # noqa: D102, the class has it
        cls,
        description: str,
        role: Role,
        *,
        codec: str | None = None,
        pickle: bool | None = None,
        store: Store | None = None,
        timeout: float | None = None,
        open: bool = True,
        **properties: Any,
    ) -> Self:
        if role not in _ROLES:
            raise ValueError(f"role must be sender, receiver or observer, not {role!r}")
        transport = properties.pop("transport", None)
        if not _is_name(description):
            if transport is not None:
                raise ValueError("the transport is the first word of the description")
            if codec is not None or pickle is not None:
                _check_codec(description, codec, pickle)
        else:
            properties["name"] = description
            description = transport or "auto"
        self = super().__new__(cls, description, _ROLES[role], codec, pickle)
        self.role = role
        self._arguments = {"codec": codec, "pickle": pickle, "store": store, "timeout": timeout}
        if store is not None:
            if codec not in (None, "auto", "store"):
                raise ValueError(f"codec={codec!r} sends no live objects; leave it out where there is a store")
            self._set_store(store)
        self.timeout = timeout
        described = () if "name" in properties or not properties else _described_properties(self)
        for key, value in properties.items():
            if value is None:
                continue
            before = self._get(key) if key.replace("_", "-") in described else None
            self._set(key, value)
            if before is not None and self._get(key) != before:
                raise ValueError(f"{key}={value!r} contradicts the description {description!r}, which says {before!r}")
        if open:
            self.open()
        return self

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def open(self) -> None:
        """Join the channel, or create it, as the property `open_mode` says."""
        super().open()
        from ferry._lifecycle import close_at_exit

        close_at_exit(self)

    def close(self) -> None:
        """Leave the channel. What waits in other threads and tasks raises; views that are held stay valid."""
        asynchronous = sys.modules.get("ferry._asyncio")
        if asynchronous is not None:
            asynchronous.wake(self)
        super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._get(name)
        except (KeyError, ValueError):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        # Whoever has the name finds the channel; what has none is found by nobody.
        if self._get("name") is None:
            raise TypeError("an anonymous channel can't be pickled; give it a name, or use ferry.Queue")
        return _rebuild, (type(self), self._description(), self.role, self._arguments)

    @property
    def description(self) -> str:
        """str: what this channel could be made from again."""
        return self._description()

    @property
    def statistics(self) -> Statistics:
        """Statistics: the channel's counters now."""
        return Statistics(**self._statistics())

    @property
    def participants(self) -> list[Participant]:
        """list of Participant: who is in the channel, this end included."""
        return [Participant(**participant) for participant in self._participants()]

    @property
    def gobject(self) -> Any:
        """gi.repository.Ferry.Channel: the same end for programs that need the whole API."""
        from ferry._gobject import wrap

        return wrap(self._address())

    def loan(
        self,
        shape: int | tuple[int, ...],
        dtype: numpy.typing.DTypeLike = None,
        timeout: float | None = None,
    ) -> numpy.ndarray[Any, Any]:
        """Borrow an array in shared memory, to be filled and sent without a copy.

        As `Queue.loan()`; what it returns is passed to `send()`.
        """
        from ferry._loan import loan_array

        return loan_array(lambda size, wait: self.loan_buffer(size, wait), shape, dtype, timeout)

    async def receive_async(self, timeout: float | None = None) -> Any:
        """Take the next message; other tasks of the event loop run meanwhile.

        Parameters
        ----------
        timeout : float or None, optional
            For how many seconds to wait at most; None: for ever. The channel's attribute
            `timeout` does not count here.

        Returns
        -------
        object
            What was sent.

        Raises
        ------
        queue.Empty
            None came in time.
        EOFError
            Every sender has ended its stream.
        ferry.ClosedError
            The channel was closed, here or for everybody.
        ferry.CodecError
            The message can't be decoded; it is taken all the same.
        """
        from ferry.queues import _retry

        return await _retry(lambda: self.receive(0), self, queue.Empty, timeout)

    async def send_async(self, obj: Any, timeout: float | None = None) -> None:
        """Send an object; other tasks of the event loop run while there is no room.

        Parameters
        ----------
        obj : object
            What to send; a `ferry.Buffer` or an array of `loan()` without a copy.
        timeout : float or None, optional
            For how many seconds to wait at most; None: for ever. The channel's attribute
            `timeout` does not count here.

        Raises
        ------
        queue.Full
            No room came in time.
        ferry.ClosedError
            The channel was closed, here or for everybody.
        ferry.CodecError
            The object can't be encoded.
        """
        from ferry.queues import _retry

        await _retry(lambda: self.send(obj, 0), self, queue.Full, timeout)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            try:
                item = await self.receive_async()
            except EOFError:
                return
            yield item

    def wait_for_peers(self, n: int = 1, timeout: float | None = None) -> bool:
        """Wait until the channel has peers: receivers for a sender, senders for a receiver.

        Parameters
        ----------
        n : int, default 1
            How many.
        timeout : float or None, optional
            For how many seconds at most.

        Returns
        -------
        bool
            False when the time-out came first.
        """
        field = "senders" if self.role == "receiver" else "receivers"
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.0005
        while self._statistics()[field] < n:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        return True

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        try:
            description = self._description()
        except ValueError:
            description = ""
        return f"<ferry.Channel {self.role} {description!r}, {state}>"


def open(description: str, role: Role, **properties: Any) -> Channel:
    """Open one end of a channel; the same as `Channel()`.

    Parameters
    ----------
    description : str
        A name, a description or a URI.
    role : {"sender", "receiver", "observer"}
        What this end does.
    **properties
        As for `Channel`.

    Returns
    -------
    Channel
        An open channel.
    """
    return Channel(description, role, **properties)


def _is_name(text: str) -> bool:
    """Whether it is the name of a channel, and neither a description nor a URI."""
    return not any(character in text for character in " =!:")


def _described_properties(channel: Channel) -> set[str]:
    """Return the keys of the properties of the channel and its transport that a description has set."""
    import itertools
    import shlex

    # A line also where it was a URI.
    words = itertools.takewhile(lambda word: word != "!", shlex.split(channel._description()))
    return {key for key, equals, _ in (word.partition("=") for word in words) if equals}


def _check_codec(description: str, codec: str | None, pickle: bool | None) -> None:
    """Refuse arguments that say something else than the description does."""
    import shlex

    described_channel = _native.Channel(description, _ROLES["observer"])
    # A line also where it was a URI. A word of one exclamation mark is no value, which has its key before it.
    words = shlex.split(described_channel._description())
    if "!" not in words:
        return
    described, *properties = words[words.index("!") + 1 :]
    if codec is not None and codec != described:
        raise ValueError(f"codec={codec!r} contradicts the description {description!r}, whose codec is {described}")
    if (
        pickle is not None
        and any(word.startswith("pickle=") for word in properties)
        and bool(pickle) != described_channel._pickle
    ):
        raise ValueError(f"pickle={pickle!r} contradicts the description {description!r}")


def _rebuild(cls: type[Channel], description: str, role: Role, arguments: dict[str, Any]) -> Channel:
    return cls(description if not _is_name(description) else f"{description} ", role, **arguments)
