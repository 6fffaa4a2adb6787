# SPDX-License-Identifier: LGPL-2.1-or-later
"""`multiprocessing.context`: the start methods, with the queues, pipes, pools and processes of Ferry."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import context as _standard
from typing import Any

from ferry.multiprocessing._arguments import ShipsArguments, shipping

__all__ = list(_standard.__all__)


class BaseContext(_standard.BaseContext):
    """What all contexts have."""

    def Manager(self) -> Any:  # noqa: N802 - the names of the standard library, here and below
        """Return a manager, as `multiprocessing.Manager`."""
        return _standard._concrete_contexts[self.get_start_method()].Manager()

    def Pipe(self, duplex: bool = True) -> tuple[Any, Any]:  # noqa: N802
        """Return the two ends of a pipe."""
        from ferry.multiprocessing.connection import Pipe

        return Pipe(duplex)

    def Queue(self, maxsize: int = 0) -> Any:  # noqa: N802
        """Return a queue."""
        from ferry.multiprocessing.queues import Queue

        return Queue(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize: int = 0) -> Any:  # noqa: N802
        """Return a queue that can be joined."""
        from ferry.multiprocessing.queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self.get_context())

    def SimpleQueue(self) -> Any:  # noqa: N802
        """Return a queue with few methods."""
        from ferry.multiprocessing.queues import SimpleQueue

        return SimpleQueue(ctx=self.get_context())

    def Pool(  # noqa: N802
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Any = (),
        maxtasksperchild: int | None = None,
    ) -> Any:
        """Return a pool of processes."""
        from ferry.multiprocessing.pool import Pool

        return Pool(processes, initializer, initargs, maxtasksperchild, context=self.get_context())

    def get_context(self, method: str | None = None) -> BaseContext:
        """Return the context of a start method; this one if left out."""
        if method is None:
            return self
        _standard._default_context.get_context(method)  # raises what is to be raised
        return _concrete_contexts[method]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return get_context, (self._name,)


class Process(ShipsArguments, _standard.Process):
    """A process, as `multiprocessing.Process`; large arguments travel through shared memory."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802
        return _default_context.get_context().Process._Popen(process_obj)


class SpawnProcess(ShipsArguments, _standard.SpawnProcess):
    """A process that is spawned."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802
        with shipping():
            return _standard.SpawnProcess._Popen(process_obj)


class ForkServerProcess(ShipsArguments, _standard.ForkServerProcess):
    """A process that the server forks."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802
        with shipping():
            return _standard.ForkServerProcess._Popen(process_obj)


class ForkContext(BaseContext, _standard.ForkContext):
    """The start method fork. Its processes inherit their arguments."""


class SpawnContext(BaseContext, _standard.SpawnContext):
    """The start method spawn."""

    Process = SpawnProcess


class ForkServerContext(BaseContext, _standard.ForkServerContext):
    """The start method forkserver."""

    Process = ForkServerProcess


class DefaultContext(BaseContext, _standard.DefaultContext):
    """The context with the start method that is set for the program, here or in `multiprocessing`."""

    Process = Process

    def __init__(self) -> None:
        super().__init__(_standard._default_context._default_context)

    def get_context(self, method: str | None = None) -> BaseContext:
        """Return the context of a start method; of the one that is set if left out."""
        return super().get_context(_standard._default_context.get_context()._name if method is None else method)

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Set the start method, for `multiprocessing` as well."""
        _standard._default_context.set_start_method(method, force)

    def get_start_method(self, allow_none: bool = False) -> str | None:
        """Return the name of the start method that is set."""
        return _standard._default_context.get_start_method(allow_none)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return get_default_context, ()


_concrete_contexts: dict[str, BaseContext] = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}
_default_context = DefaultContext()


def get_context(method: str | None = None) -> BaseContext:
    """Return the context of a start method; of the one that is set if left out."""
    return _default_context.get_context(method)


def get_default_context() -> DefaultContext:
    """Return the context whose methods are the functions of `ferry.multiprocessing`."""
    return _default_context


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)
