# SPDX-License-Identifier: LGPL-2.1-or-later
"""The arguments of processes, through shared memory.

A process that is spawned, or forked by the server, gets its arguments pickled through a pipe,
64 KiB at a time, while it starts. Here they are pickled, too, for that is what lets locks,
connections and the like travel, but by protocol 5: large data stays outside of the pickle,
is copied once, into a message of a queue of its own, and only the queue's descriptors go
through the pipe. The parent keeps nothing: when the child has taken the message, or never
came to be, the memory is gone with it.
"""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import context, reduction
from typing import Any

from ferry.queues import Queue

#: From how many bytes on a queue is worth its making: what a pipe takes at once.
LARGE = 64 * 1024

_launch = threading.local()

_PROCESS = "process"


@contextmanager
def shipping() -> Iterator[None]:
    """Let arguments that are pickled meanwhile by this thread travel through queues."""
    outer = getattr(_launch, "queues", None)
    _launch.queues = []
    try:
        yield
    finally:
        # The child has its own descriptors now, or there is none.
        for queue in _launch.queues:
            queue.close()
        _launch.queues = outer


class _Pickler(reduction.ForkingPickler):
    def __init__(self, file: io.BytesIO, process: ShipsArguments, buffers: list[pickle.PickleBuffer]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL, True, buffers.append)
        self._process = process

    def persistent_id(self, obj: Any) -> str | None:
        # The target may be a method of the process, or an argument know it: it is made before its state is read.
        return _PROCESS if obj is self._process else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: Any, process: ShipsArguments, buffers: list[Any]) -> None:
        super().__init__(io.BytesIO(stream), buffers=buffers)
        self._process = process

    def persistent_load(self, name: str) -> ShipsArguments:
        if name != _PROCESS:
            raise pickle.UnpicklingError(f"unknown persistent object {name!r}")
        return self._process


class ShipsArguments:
    """What the processes of `ferry.multiprocessing` have in common."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        reduced = super().__reduce_ex__(protocol)
        queues = getattr(_launch, "queues", None)
        if queues is None or context.get_spawning_popen() is None or not _is_plain(reduced):
            return reduced
        file = io.BytesIO()
        buffers: list[pickle.PickleBuffer] = []
        _Pickler(file, self, buffers).dump(reduced[2])
        views = [buffer.raw() for buffer in buffers]
        if file.tell() + sum(view.nbytes for view in views) < LARGE:
            parcel = file.getvalue(), [bytes(view) if view.readonly else bytearray(view) for view in views]
            return reduced[0], reduced[1], parcel, None, None, _unpack
        queue = Queue(1)
        queues.append(queue)
        with file.getbuffer() as stream:
            queue.put((stream, views))
        return reduced[0], reduced[1], queue, None, None, _unpack


def _is_plain(reduced: Any) -> bool:
    return isinstance(reduced, tuple) and len(reduced) >= 3 and reduced[2] is not None and not any(reduced[3:])


def _unpack(process: ShipsArguments, parcel: Any) -> None:
    """Set the state of a process; in the child."""
    if isinstance(parcel, Queue):
        queue = parcel
        parcel = queue.get_nowait()
        queue.close()
    state = _Unpickler(parcel[0], process, parcel[1]).load()
    set_state: Callable[[Any], None] | None = getattr(process, "__setstate__", None)
    if set_state is not None:
        set_state(state)
        return
    attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    process.__dict__.update(attributes or {})
    for name, value in (slots or {}).items():
        setattr(process, name, value)
