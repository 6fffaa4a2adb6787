# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dask's messages through shared memory, where both ends are on one host.

`dask.distributed` picks how two processes talk by the scheme of an address. This module adds
``ferry://``, and ``ferry+tls://`` for clusters with TLS: the sockets of ``tcp://`` and
``tls://``, but between processes of one user on one host the large parts of a message (the
data of arrays, data frames, bytes) lie in shared memory, copied once, and arrive as writable
views on it. Between hosts, and wherever memory can't be shared, everything goes through the
socket as it does with Dask alone::

    from dask.distributed import Client, LocalCluster

    cluster = LocalCluster(protocol="ferry")
    client = Client(cluster)

or ``dask-scheduler --protocol ferry``, to whose address workers and clients connect as usual.
Dask finds the schemes by itself in every process that can import `ferry`; where Ferry is used
from a place without its package metadata, import this module first (``--preload ferry.dask``).

Dask's configuration has, under ``distributed.comm.ferry``:

- ``shared-memory`` (True): whether to offer and take shared memory at all;
- ``minimum`` ("64 kiB"): from what size on a part of a message goes there;
- ``max-bytes`` (None): how much shared memory one direction of a connection may take, half of
  the machine's if None. What finds no room goes through the socket.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import logging
import os
import queue
import secrets
import struct
import sys
import threading
import weakref
from pathlib import Path
from typing import Any, ClassVar

import dask
import msgpack
from dask.utils import parse_bytes
from distributed.comm import registry, tcp
from distributed.comm.core import CommClosedError
from distributed.comm.utils import OFFLOAD_THRESHOLD, from_frames, host_array, to_frames
from distributed.protocol.utils import pack_frames_prelude, unpack_frames
from distributed.system import MEMORY_LIMIT
from distributed.utils import ensure_memoryview, nbytes, offload
from tornado.iostream import StreamClosedError

from ferry import _native
from ferry.channel import Channel
from ferry.errors import FerryError

try:
    import numpy
except ImportError:  # arrays are what this is for, but Dask itself can do without
    numpy = None  # type: ignore[assignment]

__all__ = ["FerryBackend", "FerryComm", "FerryTLSBackend", "FerryTLSComm"]

logger = logging.getLogger(__name__)

dask.config.update_defaults(
    {"distributed": {"comm": {"ferry": {"shared-memory": True, "minimum": "64 kiB", "max-bytes": None}}}}
)

#: What both ends must agree on: the form of the envelope and of the offer.
_VERSION = 1
#: How many parts of messages may wait in shared memory. What is more goes through the socket.
_CAPACITY = 1024
#: How long the first large message waits for the other end to open the memory, in seconds. Its event loop may be
#: busy; then that message goes through the socket, and the next one looks again.
_JOIN_TIMEOUT = 0.1
_JOIN_INTERVAL = 0.0005
#: When a connection was not used for so long its idle memory goes back to the system, in seconds. Touching fresh memory
#: takes several times the copy; and until then it counts as used by whoever has it mapped.
_IDLE = 5.0
#: Up to this size a message through the socket is joined before it is written, in bytes.
_JOINED = 128 * 1024

_LENGTH = struct.Struct("<Q")


# ---- whether memory can be shared ----


class _Probe:
    """A few bytes that only a process which could share memory with this one can read."""

    _lock = threading.Lock()
    _current: ClassVar[_Probe | None] = None

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.cookie = secrets.token_hex(16)
        self.fd = os.memfd_create("ferry-dask-probe", os.MFD_CLOEXEC)
        os.write(self.fd, self.cookie.encode())

    @classmethod
    def get(cls) -> _Probe:
        with cls._lock:
            if cls._current is None or cls._current.pid != os.getpid():
                cls._current = cls()
            return cls._current


@functools.cache
def _boot() -> str:
    """What tells this host, since it was started, from all others."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _describe_memory() -> dict[str, Any] | None:
    """What the other end needs to find out whether it can share memory with this process."""
    if not dask.config.get("distributed.comm.ferry.shared-memory"):
        return None
    try:
        probe = _Probe.get()
        return {
            "version": _VERSION,
            "boot": _boot(),
            "uid": os.getuid(),
            "pid": probe.pid,
            "fd": probe.fd,
            "cookie": probe.cookie,
        }
    except OSError as error:
        logger.info("No shared memory is offered: %s", error)
        return None


def _open_of(pid: int, fd: int, flags: int) -> int:
    # The kernel lets only those in who may trace the process: of the same user, and of one PID name space.
    return os.open(f"/proc/{pid:d}/fd/{fd:d}", flags | os.O_CLOEXEC)


def _can_share(remote: Any) -> bool:
    """Whether memory that a process described as `_describe_memory()` does can be opened here; it is tried."""
    if not isinstance(remote, dict) or not dask.config.get("distributed.comm.ferry.shared-memory"):
        return False
    try:
        if remote["version"] != _VERSION or remote["boot"] != _boot() or remote["uid"] != os.getuid():
            return False
        fd = _open_of(remote["pid"], remote["fd"], os.O_RDONLY)
        try:
            return os.pread(fd, 64, 0).decode("ascii", "replace") == remote["cookie"]
        finally:
            os.close(fd)
    except (KeyError, OSError, TypeError, ValueError) as error:
        logger.info("Memory is not shared with %s: %s", remote, error)
        return False


# ---- the memory of one direction ----


def _madvise() -> Any:
    function = ctypes.CDLL(None, use_errno=True).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function


# <linux/mman.h>
_MADV_DONTNEED = 4
_MADV_POPULATE_WRITE = 23
_advise = _madvise()
_PAGE = os.sysconf("SC_PAGESIZE")


#: How much of what it has sent a process keeps mapped, in bytes: the next copy into that memory need not map it then.
_MAPPED_MAX = int(min(256 << 20, MEMORY_LIMIT / 64))


class _Mapped:
    """Which blocks of one queue this process has mapped.

    What is sent is the receiver's. As long as it is mapped here it counts as memory of this
    process, too, and Dask spills, pauses and kills by that. So beyond `_MAPPED_MAX` bytes pages
    are unmapped after the copy, which leaves them in the memory that is shared, and mapped all at
    once before it: one by one, as they are touched, takes twice as long as the copy itself.
    """

    _total = 0  # of all queues
    _lock = threading.Lock()

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}  # address to bytes

    def fill(self, buffer: _native.Buffer, frame: memoryview) -> None:
        """Copy a frame into a block, without the interpreter's lock."""
        with buffer.data as data:
            if numpy is None:
                data[:] = frame
                return
            target = numpy.frombuffer(data, numpy.uint8)
            begin = -(-target.ctypes.data // _PAGE) * _PAGE
            whole = (target.ctypes.data + target.nbytes) // _PAGE * _PAGE - begin
            if whole > self._blocks.get(begin, 0):
                _advise(begin, whole, _MADV_POPULATE_WRITE)  # Linux 5.14; before it they are mapped one by one
            numpy.copyto(target, numpy.frombuffer(frame, numpy.uint8))
            if whole > self._blocks.get(begin, 0) and not self._keep(begin, whole):
                _advise(begin, whole, _MADV_DONTNEED)
            del target

    def _keep(self, begin: int, whole: int) -> bool:
        more = whole - self._blocks.get(begin, 0)
        with _Mapped._lock:
            if _Mapped._total + more > _MAPPED_MAX:
                return False
            _Mapped._total += more
        self._blocks[begin] = whole
        return True

    def forget(self) -> None:
        """The memory was unmapped."""
        with _Mapped._lock:
            _Mapped._total -= sum(self._blocks.values())
        self._blocks.clear()


class _Outbox:
    """Where this end puts what the other one takes: a channel, and what is to be known to open it."""

    def __init__(self) -> None:
        max_bytes = dask.config.get("distributed.comm.ferry.max-bytes")
        self._channel = Channel(
            "memfd ! raw", "sender", capacity=_CAPACITY, max_bytes=parse_bytes(max_bytes) if max_bytes else None
        )
        self._joined = False
        self._mapped = _Mapped()
        self.n_uses = 0

    def offer(self) -> dict[str, Any]:
        """Describe the channel for `_Inbox`."""
        fds = self._channel.control_fd, self._channel.data_fd
        files = [(fd, status.st_dev, status.st_ino) for fd, status in zip(fds, map(os.fstat, fds), strict=True)]
        return {"pid": os.getpid(), "files": files}

    @property
    def joined(self) -> bool:
        """Whether the other end has opened it. That it has is seen in the memory itself."""
        if not self._joined:
            self._joined = self._channel._statistics()["receivers"] > 0
        return self._joined

    def put(self, frames: list[Any], indices: list[int]) -> list[tuple[int, int]]:
        """Put those frames for which there is room. Return their indices and sizes, in bytes."""
        placed = []
        self.n_uses += 1
        for i in indices:
            frame = ensure_memoryview(frames[i])
            try:
                buffer = self._channel.loan_buffer(frame.nbytes, 0)
                self._mapped.fill(buffer, frame)
                self._channel.send(buffer, 0)
            except (queue.Full, TimeoutError):
                break  # nor would there be any for the next one
            except (FerryError, OSError) as error:
                logger.info("%d bytes go through the socket: %s", frame.nbytes, error)
                break
            placed.append((i, frame.nbytes))
        return placed

    def trim(self) -> bool:
        """Give idle memory back to the system. Return whether there is some that is not idle."""
        self._channel.trim()
        if self._channel._statistics()["bytes_committed"] > 0:
            return True
        self._mapped.forget()
        return False

    def close(self) -> None:
        self._mapped.forget()
        self._channel.close()


class _Inbox:
    """The other end of an `_Outbox`."""

    def __init__(self, offer: Any) -> None:
        fds: list[int] = []
        try:
            for fd, device, inode in offer["files"]:
                fds.append(_open_of(offer["pid"], fd, os.O_RDWR))
                status = os.fstat(fds[-1])
                if (status.st_dev, status.st_ino) != (device, inode):
                    raise OSError(f"descriptor {fd} of process {offer['pid']} is another file than was offered")
            control_fd, data_fd = fds
            self._channel = Channel(f"memfd control-fd={control_fd} data-fd={data_fd} ! raw", "receiver")
        finally:
            for fd in fds:
                os.close(fd)  # the channel has its own

    def take(self, size: int) -> memoryview:
        """Take the next frame. It was put before the message that tells of it was written."""
        buffer = self._channel.receive_buffer(0)
        if buffer.size != size:
            raise EOFError(f"{size} bytes of shared memory were announced, {buffer.size} are there")
        return memoryview(buffer)

    def close(self) -> None:
        self._channel.close()


# ---- connections ----


def _tidy(ref: weakref.ref[_SharesMemory], seen: int) -> None:
    comm = ref()
    if comm is not None:
        comm._tidy(seen)


class _SharesMemory(tcp.TCP):
    """What `FerryComm` and `FerryTLSComm` have in common.

    A message is: its length in bytes (64 bits, little-endian), and that many bytes, which are the
    lengths of frames and the frames as with ``tcp://``. The first frame is the envelope: empty,
    or by msgpack an offer of memory (or None), whether the sender has declined one, and index and
    size of each frame that is taken from shared memory; those have no bytes here. A message that
    has nothing but an envelope is no message to Dask.
    """

    _shares = False
    _declines = False  # what was offered can't be opened here; to be told
    _declined = False  # the other end has said so
    _outbox: _Outbox | None = None
    _inbox: _Inbox | None = None
    _timer: asyncio.TimerHandle | None = None
    _minimum = 0

    @staticmethod
    def handshake_info() -> dict[str, Any]:
        return {**tcp.TCP.handshake_info(), "ferry": _describe_memory()}

    def handshake_configuration(self, local: dict[str, Any], remote: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        """Agree on what holds for the connection; called when both ends know what the other one has."""
        options: dict[str, Any] = tcp.TCP.handshake_configuration(local, remote)
        self._shares = bool(local.get("ferry")) and _can_share(remote.get("ferry"))
        if self._shares:
            self._minimum = max(parse_bytes(dask.config.get("distributed.comm.ferry.minimum")), 1)
            options["compression"] = None  # takes longer than the copy that it could spare
        return options

    @property
    def shares_memory(self) -> bool:
        """bool: whether large parts of messages go through shared memory, as far as there is room."""
        return self._shares and not self._declined

    # ---- writing ----

    async def write(self, msg: Any, serializers: Any = None, on_error: str = "message") -> int:
        """Write a message; as `distributed.comm.Comm.write()`."""
        if self.stream is None:
            raise CommClosedError()
        frames = await to_frames(
            msg,
            allow_offload=self.allow_offload,
            serializers=serializers,
            on_error=on_error,
            context={"sender": self.local_info, "recipient": self.remote_info, **self.handshake_options},
            # In memory nothing is gained by splitting, and joining would copy.
            frame_split_size=sys.maxsize if self.shares_memory else self.max_shard_size,
        )
        placed: list[tuple[int, int]] = []
        try:
            if self.shares_memory:
                large = [i for i, frame in enumerate(frames) if nbytes(frame) >= self._minimum]
                if large and await self._open_outbox():
                    placed = await self._put(frames, large)
            for i, _ in placed:
                frames[i] = b""
            return self._write_frames(None, placed, frames) + sum(size for _, size in placed)
        except StreamClosedError as error:
            self._drop_stream()
            if not sys.is_finalizing():
                tcp.convert_stream_closed_error(self, error)
            return 0
        except BaseException:
            # What was put or written, in part, nobody can tell: neither memory nor stream is of use any more.
            self.abort()
            raise

    def _write_frames(self, offer: Any, placed: list[tuple[int, int]], frames: list[Any]) -> int:
        """Write to the socket; return the number of bytes."""
        if self.stream is None:
            raise StreamClosedError
        envelope = msgpack.packb((offer, self._declines, placed)) if offer or placed or self._declines else b""
        self._declines = False
        frames = [envelope, *frames]
        prelude = pack_frames_prelude(frames)
        total = len(prelude) + sum(map(nbytes, frames))
        frames = [_LENGTH.pack(total), prelude, *frames]
        if total < _JOINED:
            frames = [b"".join(frames)]
        for frame in frames:
            if nbytes(frame):
                # Its end is not waited for; that it fails is seen by whoever reads, as with Dask's own.
                self.stream.write(ensure_memoryview(frame)).add_done_callback(lambda future: future.exception())
        return total + _LENGTH.size

    async def _open_outbox(self) -> bool:
        """Offer memory to the other end if it was not yet. Return whether it has opened it."""
        if self._outbox is None:
            try:
                self._outbox = outbox = _Outbox()
                offer = outbox.offer()
            except (FerryError, OSError) as error:
                logger.warning("No shared memory for %r, large data goes through its socket: %s", self, error)
                self._declined = True
                self._close_outbox()
                return False
            self._write_frames(offer, [], [])
            waited = 0.0
            while not (self._declined or self.stream is None or outbox.joined) and waited < _JOIN_TIMEOUT:
                await asyncio.sleep(_JOIN_INTERVAL)
                waited += _JOIN_INTERVAL
        return self._outbox is not None and self._outbox.joined

    async def _put(self, frames: list[Any], large: list[int]) -> list[tuple[int, int]]:
        outbox = self._outbox
        assert outbox is not None
        if self._timer is None:
            self._arm(outbox.n_uses)
        size = sum(nbytes(frames[i]) for i in large)
        if OFFLOAD_THRESHOLD and self.allow_offload and size > OFFLOAD_THRESHOLD:
            return await offload(outbox.put, frames, large)
        return outbox.put(frames, large)

    # ---- reading ----

    async def read(self, deserializers: Any = None) -> Any:
        """Read a message; as `distributed.comm.Comm.read()`."""
        while True:
            frames = await self._read_frames()
            try:
                only_envelope = self._open_envelope(frames)
                if only_envelope:
                    continue
                return await from_frames(
                    frames,
                    deserialize=self.deserialize,
                    deserializers=deserializers,
                    allow_offload=self.allow_offload,
                )
            except (EOFError, queue.Empty, FerryError) as error:
                self.abort()
                raise CommClosedError(f"aborted {self!r}, what it got is not what was sent: {error}") from error

    async def _read_frames(self) -> list[Any]:
        stream = self.stream
        if stream is None:
            raise CommClosedError()
        try:
            (total,) = _LENGTH.unpack(await stream.read_bytes(_LENGTH.size))
            data = host_array(total)
            if await stream.read_into(data) != total:  # type: ignore[arg-type]
                raise StreamClosedError
        except StreamClosedError as error:
            self._drop_stream()
            if not sys.is_finalizing():
                tcp.convert_stream_closed_error(self, error)
            raise CommClosedError() from error
        except BaseException:
            # Nobody knows how much of it was read.
            self.abort()
            raise
        frames: list[Any] = unpack_frames(data)
        return frames

    def _open_envelope(self, frames: list[Any]) -> bool:
        """Take the envelope from the frames, and put those in their places that lie in memory.

        Returns
        -------
        bool
            Whether there was nothing else.
        """
        envelope = frames.pop(0)
        if not nbytes(envelope):
            return False
        offer, declined, placed = msgpack.unpackb(envelope)
        if offer is not None:
            try:
                self._inbox = _Inbox(offer)
            except (FerryError, OSError, KeyError, TypeError, ValueError) as error:
                logger.warning("The memory that %r offers can't be opened: %s", self, error)
                self._declines = True
        if declined:
            self._declined = True
            self._close_outbox()
        for i, size in placed:
            if self._inbox is None:
                raise EOFError("frames are said to lie in memory that is not open")
            frames[i] = self._inbox.take(size)
        return not frames

    # ---- idle memory ----

    def _arm(self, n_uses: int) -> None:
        self._timer = asyncio.get_running_loop().call_later(_IDLE, _tidy, weakref.ref(self), n_uses)

    def _tidy(self, seen: int) -> None:
        """Give memory back when the connection was idle; look again while there is any."""
        self._timer = None
        outbox = self._outbox
        if outbox is None:
            return
        try:
            if outbox.n_uses != seen or outbox.trim():
                self._arm(outbox.n_uses)
        except FerryError as error:
            logger.info("Idle memory of %r can't be given back: %s", self, error)

    # ---- the end ----

    def _close_outbox(self) -> None:
        outbox, self._outbox = self._outbox, None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if outbox is not None:
            outbox.close()

    def _drop_memory(self) -> None:
        """Close both directions. Data that was taken stays valid, and its memory with it."""
        self._close_outbox()
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            inbox.close()

    def _drop_stream(self) -> None:
        self.stream = None
        self._closed = True
        self._drop_memory()

    def close(self) -> Any:
        """Close the connection when what was written is sent. What is returned may be awaited, and need not be."""
        future = super().close()
        # What was written and not yet read needs no sender; the other end has the memory open.
        if future.done():
            self._drop_memory()
        else:
            future.add_done_callback(lambda _: self._drop_memory())
        return future

    def abort(self) -> None:
        """Close the connection at once."""
        super().abort()
        self._drop_memory()


class FerryComm(_SharesMemory):
    """A connection of ``ferry://``: a TCP socket, and shared memory where that can be had."""


class FerryTLSComm(_SharesMemory, tcp.TLS):
    """A connection of ``ferry+tls://``: both ends know who the other one is by their certificates.

    What goes through shared memory is not encrypted; only processes of the same user can read it.
    """


class _FerryConnector(tcp.TCPConnector):
    prefix = "ferry://"
    comm_class = FerryComm


class _FerryListener(tcp.TCPListener):
    prefix = "ferry://"
    comm_class = FerryComm


class _FerryTLSConnector(tcp.TLSConnector):
    prefix = "ferry+tls://"
    comm_class = FerryTLSComm


class _FerryTLSListener(tcp.TLSListener):
    prefix = "ferry+tls://"
    comm_class = FerryTLSComm


class FerryBackend(tcp.BaseTCPBackend):
    """What ``ferry://`` means to Dask."""

    _connector_class = _FerryConnector
    _listener_class = _FerryListener


class FerryTLSBackend(tcp.BaseTCPBackend):
    """What ``ferry+tls://`` means to Dask."""

    _connector_class = _FerryTLSConnector
    _listener_class = _FerryTLSListener


registry.backends.setdefault("ferry", FerryBackend())
registry.backends.setdefault("ferry+tls", FerryTLSBackend())
