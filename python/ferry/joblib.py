# SPDX-License-Identifier: LGPL-2.1-or-later
"""A backend for joblib: its tasks run in a `ferry.ProcessPoolExecutor`.

Importing this module registers it::

    import ferry.joblib
    import joblib

    with joblib.parallel_backend("ferry"):
        results = joblib.Parallel(n_jobs=4)(joblib.delayed(function)(item) for item in items)

and so it is used by libraries that are built on joblib, such as scikit-learn. It does what joblib's
own backend `loky` does: functions and objects that only exist in the main program, lambdas and
closures travel by value, by cloudpickle; scripts need no ``if __name__ == "__main__"``; workers are
kept for the next call, killed when a task raises, and limit the threads of BLAS and OpenMP.
Arrays, at any depth, in arguments and results, travel by Ferry: each is copied once, one that
comes again in other tasks not at all, and what arrives is writable and nobody else's.

Nothing of this needs the files and memory maps of joblib's other backends: `max_nbytes`,
`mmap_mode` and `temp_folder` have no effect.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import threading
import types
import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import _ExceptionWithTraceback  # type: ignore[attr-defined]
from multiprocessing import context, popen_spawn_posix, spawn, util
from typing import Any

import numpy
from joblib import cpu_count, register_parallel_backend
from joblib._parallel_backends import FallbackToBackend, SequentialBackend
from joblib.externals import cloudpickle
from joblib.parallel import AutoBatchingMixin, ParallelBackendBase

from ferry.executor import ProcessPoolExecutor

__all__ = ["FerryBackend", "TimedOutError", "register"]

#: From how many bytes on an array is not pickled.
_ARRAY_MIN = 1024
#: How many pools wait for the next call.
_IDLE_MAX = 2


class TimedOutError(multiprocessing.TimeoutError, FutureTimeoutError):
    """A batch of tasks took longer than `Parallel` was told to wait."""


# ---- what travels ----


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """Pickles all but large arrays, which it collects."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.arrays: list[numpy.ndarray[Any, Any]] = []

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) in (numpy.ndarray, numpy.memmap) and obj.nbytes >= _ARRAY_MIN and not obj.dtype.hasobject:
            self.arrays.append(obj if type(obj) is numpy.ndarray else numpy.asarray(obj))
            return _take_array, (len(self.arrays) - 1,)
        return super().reducer_override(obj)


_Parcel = tuple[bytes, list[Any]]
_opened = threading.local()


def _take_array(index: int) -> Any:
    return _opened.arrays[index]


def _pack(obj: Any) -> _Parcel:
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(obj)
    return file.getvalue(), pickler.arrays


def _unpack(parcel: _Parcel) -> Any:
    outer = getattr(_opened, "arrays", None)
    stream, _opened.arrays = parcel
    try:
        return pickle.loads(stream)
    finally:
        _opened.arrays = outer


def _run(parcel: _Parcel) -> tuple[bool, _Parcel]:
    """Do a batch; in a worker. Return whether it was done, and the results or the exception."""
    try:
        batch = _unpack(parcel)
        del parcel
        return True, _pack(batch())
    except BaseException as error:
        carrier = _ExceptionWithTraceback(error, error.__traceback__)  # type: ignore[arg-type]
        try:
            return False, _pack(carrier)
        except Exception as failure:
            failure.add_note(f"while an exception was passed on: {error!r}")
            carrier = _ExceptionWithTraceback(failure, failure.__traceback__)  # type: ignore[arg-type]
            return False, _pack(carrier)


class _Job:
    """A batch that was submitted, as `Parallel` wants it."""

    def __init__(self, future: Future[tuple[bool, _Parcel]]) -> None:
        self._future = future

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the results."""
        try:
            is_done, parcel = self._future.result(timeout)
        except CancelledError:
            raise
        except FutureTimeoutError as error:
            if self._future.done():
                raise  # one of the executor's
            raise TimedOutError(f"no result after {timeout} s") from error
        result = _unpack(parcel)
        if not is_done:
            raise result
        return result


# ---- workers ----


class _SpawnWithoutMain:
    """`multiprocessing.spawn`, but what is spawned does not run the main program again."""

    def __getattr__(self, name: str) -> Any:
        return getattr(spawn, name)

    @staticmethod
    def get_preparation_data(name: str) -> dict[str, Any]:
        data = spawn.get_preparation_data(name)
        return {key: value for key, value in data.items() if not key.startswith("init_main_")}


class _Popen(popen_spawn_posix.Popen):
    # That of the base class, to which the name `spawn` means something else.
    _launch = types.FunctionType(
        popen_spawn_posix.Popen._launch.__code__,  # type: ignore[attr-defined]
        {**vars(popen_spawn_posix), "spawn": _SpawnWithoutMain()},
        "_launch",
    )


class _Process(context.SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802, multiprocessing's
        return _Popen(process_obj)


class _Context(context.SpawnContext):
    Process = _Process


def _set_environment(environment: dict[str, str]) -> None:
    """Limit the threads of libraries; in a worker, before it imports them."""
    os.environ.update(environment)
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return
    # Those that are in a forked worker have read their environment long since.
    threadpool_limits(limits=int(environment["OMP_NUM_THREADS"]))


class _Pool:
    """An executor that is kept from one call to the next."""

    _lock = threading.Lock()
    _idle: list[_Pool] = []
    _finalizer: util.Finalize | None = None

    def __init__(self, n_workers: int, start_method: str | None, environment: dict[str, str]) -> None:
        self._key = n_workers, start_method, environment
        self._pid = os.getpid()
        self._timer: threading.Timer | None = None
        self.executor = ProcessPoolExecutor(
            n_workers,
            mp_context=_Context() if start_method is None else multiprocessing.get_context(start_method),
            initializer=_set_environment,
            initargs=(environment,),
        )

    @classmethod
    def take(cls, *key: Any) -> _Pool:
        """Return a pool that nobody else uses: one whose tasks raise is killed."""
        with cls._lock:
            for pool in list(cls._idle):
                is_usable = pool._is_usable()
                if not is_usable or pool._key == key:
                    cls._idle.remove(pool)
                    pool._stop_timer()
                    if is_usable:
                        return pool
        return cls(*key)

    def give_back(self, idle_timeout: float) -> None:
        """Keep it for the next call, for some time."""
        surplus = None
        with self._lock:
            if not self._is_usable():
                surplus = self
            else:
                if _Pool._finalizer is None:
                    # A process of multiprocessing joins its own before anything else when it ends.
                    _Pool._finalizer = util.Finalize(None, _Pool.end_all, exitpriority=10)
                self._timer = threading.Timer(idle_timeout, self._drop)
                self._timer.daemon = True
                self._timer.start()
                self._idle.append(self)
                if len(self._idle) > _IDLE_MAX:
                    surplus = self._idle.pop(0)
        if surplus is not None:
            surplus._stop_timer()
            surplus.executor.shutdown(wait=False)

    def kill(self) -> None:
        """End the workers, whatever they do."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        for process in list(self.executor._processes.values()):
            process.kill()

    def _is_usable(self) -> bool:
        executor = self.executor
        return self._pid == os.getpid() and not executor._broken and not executor._shutdown_thread

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop(self) -> None:
        with self._lock:
            if self not in self._idle:
                return
            self._idle.remove(self)
        self.executor.shutdown(wait=False)

    @classmethod
    def end_all(cls) -> None:
        """Let the workers end that nobody uses."""
        for pool in list(cls._idle):
            pool._stop_timer()
            pool._drop()

    @classmethod
    def forked(cls) -> None:
        """In a fork child: they are the parent's."""
        cls._lock = threading.Lock()
        cls._idle = []
        cls._finalizer = None


os.register_at_fork(after_in_child=_Pool.forked)


# ---- the backend ----


class FerryBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """What ``parallel_backend("ferry")`` means to joblib.

    Parameters
    ----------
    nesting_level : int, optional
        How many calls of `Parallel` this one is in; joblib sets it.
    inner_max_num_threads : int, optional
        How many threads BLAS and OpenMP may use in each worker; the CPUs are shared out if left out.
    start_method : {"fork", "forkserver", "spawn"}, optional
        How workers are started. Left out: by spawn, but without running the main program again.
    idle_worker_timeout : float, default 300
        How long workers are kept for the next call, in seconds.
    """

    supports_timeout = True
    supports_inner_max_num_threads = True
    uses_threads = False
    supports_sharedmem = False

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        start_method: str | None = None,
        idle_worker_timeout: float = 300,
        **kwargs: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **kwargs)
        if start_method is not None and start_method not in multiprocessing.get_all_start_methods():
            known = ", ".join(multiprocessing.get_all_start_methods())
            raise ValueError(f"start_method must be one of {known}, not {start_method!r}")
        self._start_method = start_method
        self._idle_timeout = idle_worker_timeout
        self._pool: _Pool | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many tasks run at once where `n_jobs` are asked for."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        reason = None
        if multiprocessing.current_process().daemon:
            reason = "in a daemonic process, which can't have children"
        elif not (self.in_main_thread() or self.nesting_level == 0):
            reason = "nested below threads"
        if reason is not None:
            if n_jobs != 1:
                warnings.warn(f"parallel loops of backend 'ferry' can't be {reason}: setting n_jobs=1", stacklevel=3)
            return 1
        return max(cpu_count() + 1 + n_jobs, 1) if n_jobs < 0 else n_jobs

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        idle_worker_timeout: float | None = None,
        **_: Any,
    ) -> int:
        """Get workers; return how many."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if idle_worker_timeout is not None:
            self._idle_timeout = idle_worker_timeout
        self._pool = _Pool.take(n_jobs, self._start_method, self._prepare_worker_env(n_jobs=n_jobs))
        self.parallel = parallel
        return n_jobs

    def apply_async(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> _Job:
        """Submit a batch."""
        if self._pool is None:
            raise RuntimeError("the backend has no workers: it was not configured, or is terminated")
        try:
            parcel = _pack(func)
        except Exception as error:
            # Raised where the results would be. A callback would ask for the next batch.
            future: Future[Any] = Future()
            future.set_exception(error)
            return _Job(future)
        future = self._pool.executor.submit(_run, parcel)
        if callback is not None:
            future.add_done_callback(callback)
        return _Job(future)

    #: Its name from joblib 1.5 on.
    submit = apply_async

    def terminate(self) -> None:
        """Give the workers back; they are kept for the next call."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.give_back(self._idle_timeout)
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Kill the workers, and get new ones if they are wanted."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.kill()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)


def register() -> None:
    """Register the backend as ``ferry``; importing this module has done it."""
    register_parallel_backend("ferry", FerryBackend)


register()
