# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ways to send objects: Ferry, the standard library, and what else there is.

A way is made in the process that starts the others; its two ends travel to them as arguments,
and there each gives the function that puts or gets. What a way needs beyond that is in its
class, so that the measuring loops are the same for all.
"""

from __future__ import annotations

import os
import pickle
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any

import payloads

Put = Callable[[Any], Any]
Get = Callable[[], Any]

_FOREVER = 3600.0  # seconds, where a way knows no wait without end


class Way:
    """A way to send objects."""

    name = ""
    #: ferry, standard or peer
    group = "standard"
    #: the package that it comes from, of those in peers.py
    package: str | None = None
    #: what it can send
    kinds: tuple[str, ...] = payloads.KINDS
    #: whether two of them make a round trip; pipes have their own
    can_round_trip = True

    def make(self, context: Any, capacity: int, kind: str, size: int) -> tuple[Any, Any]:
        """Return the end that sends and the one that receives."""
        raise NotImplementedError

    def prepare(self, kind: str, size: int) -> None:
        """Find out what must be known to make it, where that takes time that nobody would measure."""

    def put(self, end: Any, kind: str) -> Put:
        """Return what sends an object, called in the sending process."""
        return end.put

    def get(self, end: Any, kind: str) -> Get:
        """Return what receives one, called in the receiving process."""
        return end.get

    def finish(self, end: Any) -> None:
        """Let the sending process end."""

    def discard(self, ends: tuple[Any, Any]) -> None:
        """Clean up in the process that made it, when the others are gone."""

    def make_pair(self, context: Any, capacity: int, kind: str, size: int) -> tuple[Any, Any]:
        """Return two ends that both send and receive, each as a pair of what sends and what receives."""
        there, back = (self.make(context, capacity, kind, size) for _ in range(2))
        return (there[0], back[1]), (back[0], there[1])


def _exit_by_error(error: BaseException, obj: Any) -> None:
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(1)


class _Queue(Way):
    def make(self, context: Any, capacity: int, kind: str, size: int) -> tuple[Any, Any]:
        queue = context.Queue(capacity)
        return queue, queue

    def discard(self, ends: tuple[Any, Any]) -> None:
        ends[0].close()


class MpQueue(_Queue):
    name = "mp.Queue"

    def put(self, end: Any, kind: str) -> Put:
        # Its thread only prints what goes wrong, and the receiver waits for ever.
        end._on_queue_feeder_error = _exit_by_error
        return end.put


class MpSimpleQueue(_Queue):
    name = "mp.SimpleQueue"

    def make(self, context: Any, capacity: int, kind: str, size: int) -> tuple[Any, Any]:
        queue = context.SimpleQueue()
        return queue, queue


class MpPipe(Way):
    name = "mp.Pipe"

    def make(self, context: Any, capacity: int, kind: str, size: int) -> tuple[Any, Any]:
        reader, writer = self._pipe(context, False)
        return writer, reader

    def make_pair(self, context: Any, capacity: int, kind: str, size: int) -> tuple[Any, Any]:
        one, other = self._pipe(context, True)
        return (one, one), (other, other)

    def put(self, end: Any, kind: str) -> Put:
        return end.send

    def get(self, end: Any, kind: str) -> Get:
        return end.recv

    def discard(self, ends: tuple[Any, Any]) -> None:
        for end in ends:
            end.close()

    def _pipe(self, context: Any, duplex: bool) -> tuple[Any, Any]:
        return context.Pipe(duplex)


class MpPipeBytes(MpPipe):
    """Bytes as they are, and arrays whose type the receiver knows."""

    name = "mp.Pipe bytes"
    kinds = ("bytes", "array")

    def put(self, end: Any, kind: str) -> Put:
        return end.send_bytes

    def get(self, end: Any, kind: str) -> Get:
        if kind == "bytes":
            return end.recv_bytes
        import numpy

        receive, frombuffer = end.recv_bytes, numpy.frombuffer

        def get() -> Any:
            data = receive()
            return frombuffer(data, "f8" if len(data) % 8 == 0 else "u1")

        return get


class FerryQueue(_Queue):
    name = "ferry.Queue"
    group = "ferry"

    def make(self, context: Any, capacity: int, kind: str, size: int) -> tuple[Any, Any]:
        import ferry

        queue = ferry.Queue(capacity)
        return queue, queue


class FerryPipe(MpPipe):
    name = "ferry.Pipe"
    group = "ferry"

    def _pipe(self, context: Any, duplex: bool) -> tuple[Any, Any]:
        import ferry

        return ferry.Pipe(duplex)


class FerryPipeBytes(MpPipeBytes):
    name = "ferry.Pipe bytes"
    group = "ferry"

    def _pipe(self, context: Any, duplex: bool) -> tuple[Any, Any]:
        import ferry

        return ferry.Pipe(duplex)


class PySharedMemory(Way):
    """The latest version, which reuses its blocks."""

    name = "py-sharedmemory"
    group = "peer"
    package = "py-sharedmemory"

    def make(self, context: Any, capacity: int, kind: str, size: int) -> tuple[Any, Any]:
        from py_sharedmemory import create_shared_memory_pair

        return create_shared_memory_pair(capacity, ctx=context)

    def finish(self, end: Any) -> None:
        end.wait_for_all_ack()

    def discard(self, ends: tuple[Any, Any]) -> None:
        for end in ends:
            if hasattr(end, "close"):
                end.close()


class PySharedMemory2(PySharedMemory):
    """The version that Ferry's drop-in replaces."""

    name = "py-sharedmemory 2"
    package = "py-sharedmemory-2"

    def make(self, context: Any, capacity: int, kind: str, size: int) -> tuple[Any, Any]:
        from memory import create_shared_memory_pair

        return create_shared_memory_pair(capacity=capacity)


class FasterFifo(Way):
    name = "faster-fifo"
    group = "peer"
    package = "faster-fifo"

    def make(self, context: Any, capacity: int, kind: str, size: int) -> tuple[Any, Any]:
        from faster_fifo import Queue

        # A ring: with as many bytes as messages of that size take, and a pickle's head for each.
        queue = Queue(max_size_bytes=capacity * (payloads.size_of(kind, size) + 1000))
        return queue, queue

    def put(self, end: Any, kind: str) -> Put:
        put = end.put
        return lambda obj: put(obj, True, _FOREVER)

    def get(self, end: Any, kind: str) -> Get:
        get = end.get
        return lambda: get(True, _FOREVER)


class Zeroq(Way):
    """Bytes as they are, other objects as pickles. All elements have one size, to which pickles are filled up."""

    name = "zeroq"
    group = "peer"
    package = "zeroq"

    def __init__(self) -> None:
        self._queues: dict[str, Any] = {}
        self._sizes: dict[tuple[str, int], int] = {}

    def prepare(self, kind: str, size: int) -> None:
        if (kind, size) not in self._sizes:
            # Numbers that mark messages make a pickle of a small object a few bytes longer.
            room = 0 if kind in payloads.SIZED else 8
            pickled = size if kind == "bytes" else len(pickle.dumps(payloads.make(kind, size), 5)) + room
            self._sizes[kind, size] = pickled

    def make(self, context: Any, capacity: int, kind: str, size: int) -> tuple[Any, Any]:
        from zeroq import Queue

        self.prepare(kind, size)
        element_size = self._sizes[kind, size]
        name = f"ferry-bench-{os.getpid()}-{secrets.token_hex(4)}"
        self._queues[name] = Queue(name, element_size, 1 << max(capacity - 1, 1).bit_length(), True)
        end = name, element_size
        return end, end

    def put(self, end: Any, kind: str) -> Put:
        from zeroq import Queue

        name, element_size = end
        put = Queue(name, create=False).put
        if kind == "bytes":
            return put
        dumps = pickle.dumps
        return lambda obj: put(dumps(obj, 5).ljust(element_size))

    def get(self, end: Any, kind: str) -> Get:
        from zeroq import Queue

        get = Queue(end[0], create=False).get
        if kind == "bytes":
            return get
        loads = pickle.loads
        return lambda: loads(get())

    def discard(self, ends: tuple[Any, Any]) -> None:
        for name, _ in {*ends}:
            self._queues.pop(name).close()


class ArrayQueues(Way):
    """Arrays only; what is got is part of a ring, and overwritten later."""

    name = "arrayqueues"
    group = "peer"
    package = "arrayqueues"
    kinds = ("array",)

    def make(self, context: Any, capacity: int, kind: str, size: int) -> tuple[Any, Any]:
        from arrayqueues import ArrayQueue

        queue = ArrayQueue((capacity + 1) * max(size, 8) / 1e6)
        return queue, queue

    def put(self, end: Any, kind: str) -> Put:
        from queue import Full

        put = end.put

        def put_when_there_is_room(obj: Any) -> None:
            while True:
                try:
                    return put(obj)
                except Full:
                    time.sleep(0)

        return put_when_there_is_room


class StandardExecutor(Way):
    """Not a way to send, but to have calls done: see calls.py."""

    name = "concurrent.futures"
    kinds = payloads.CALLS
    can_round_trip = False


class FerryExecutor(StandardExecutor):
    name = "ferry.ProcessPoolExecutor"
    group = "ferry"


class Npshmex(StandardExecutor):
    """Arrays in named shared memory."""

    name = "npshmex"
    group = "peer"
    package = "npshmex"
    kinds = ("add-one", "trivial", "repeated")


class InProcess(StandardExecutor):
    """The same calls without any other process."""

    name = "in process"
    kinds = ("add-one",)


WAYS: dict[str, Way] = {
    way.name: way
    for way in (
        FerryQueue(),
        FerryPipe(),
        FerryPipeBytes(),
        MpQueue(),
        MpSimpleQueue(),
        MpPipe(),
        MpPipeBytes(),
        PySharedMemory(),
        PySharedMemory2(),
        FasterFifo(),
        Zeroq(),
        ArrayQueues(),
        FerryExecutor(),
        StandardExecutor(),
        Npshmex(),
        InProcess(),
    )
}
