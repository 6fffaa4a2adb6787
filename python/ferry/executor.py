# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pool of processes, as `concurrent.futures` has it, whose calls and results travel through shared memory.

docs/executor.md has the design.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import select
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, _base
from concurrent.futures import process as _standard
from concurrent.futures.process import BrokenProcessPool, _ExceptionWithTraceback, _RemoteTraceback
from multiprocessing import reduction
from traceback import format_exception
from typing import TYPE_CHECKING, Any, TypeVar

from ferry import _native, shared
from ferry.queues import Queue

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    _P = ParamSpec("_P")
_T = TypeVar("_T")

__all__ = ["BrokenProcessPool", "ProcessPoolExecutor"]

#: How many calls beyond one for each worker are handed out before it is known how long they take.
_EXTRA_CALLS = 1
#: For how long the calls that are handed out shall keep the workers busy, in seconds: these can't be cancelled any
#: more. It is what a thread of this process may have to wait for the interpreter.
_HANDED_OUT_SECONDS = 0.005
#: How many calls are handed out at most, and how much of a new measurement goes into the mean.
_HANDED_OUT_MAX = 512
_MEAN_WEIGHT = 0.125
#: How many calls or results the queues take: never fewer than are handed out.
_CAPACITY = 2 * _HANDED_OUT_MAX
#: How many results are taken before calls are handed out again, and calls or results before looking at the memory.
_BATCH = 64
#: How long to wait for shared memory before looking again, and for a process to end that was asked to. Seconds.
_PAUSE = 0.0005
_MEMORY_INTERVAL = 0.02
_TERMINATE_SECONDS = 5.0
#: How often a worker looks whether its program still lives while that takes no result. Seconds.
_ORPHAN_INTERVAL = 1.0
#: For how long a worker expects the next call at any moment. Waiting for longer takes more to wake from. Seconds.
_BUSY_SECONDS = 0.05
#: From when on handing out a call takes long. Seconds.
_COSTLY_SECONDS = 0.001
#: After a call that took longer a worker looks whether its program still lives. Seconds.
_LONG_SECONDS = 0.01
#: From which part of a queue's memory on what is received is copied, so that views can't stop the senders.
_HELD_PART = 4

_BROKEN = "A child process terminated abruptly, the process pool is not usable anymore"

_exiting = False
_managers: weakref.WeakKeyDictionary[threading.Thread, _Pool] = weakref.WeakKeyDictionary()
_pools: weakref.WeakSet[_Pool] = weakref.WeakSet()


def _python_exit() -> None:
    """Let pools do what is pending, and end their workers, before the interpreter exits."""
    global _exiting
    _exiting = True
    items = list(_managers.items())
    for _, pool in items:
        pool.wake()
    for thread, _ in items:
        thread.join()


threading._register_atexit(_python_exit)  # type: ignore[attr-defined]


class _Pickled:
    """What the codec could not encode, and pickle can."""

    def __init__(self, obj: Any) -> None:
        self.data = bytes(reduction.ForkingPickler.dumps(obj))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[bytes]]:
        return reduction.ForkingPickler.loads, (self.data,)


def _is_full_of_views(endpoint: Any) -> bool:
    """Whether so much of a queue's memory is held that what comes is to be copied."""
    statistics = endpoint._statistics()
    return bool(statistics["bytes_committed"] * _HELD_PART > statistics["max_bytes"])


# ---- in the worker ----


def _explain(error: BaseException) -> _ExceptionWithTraceback:
    """Return an exception with its traceback as a text, for that does not travel."""
    return _ExceptionWithTraceback(error, error.__traceback__)  # type: ignore[arg-type]


class _Replies:
    """The way back from a worker."""

    def __init__(self, results: Queue) -> None:
        self._results = results
        self._arrays = shared.Results()
        results._endpoint(True)._set_array_reducer(self._arrays.reducer)

    def send(self, reply: tuple[Any, ...]) -> Any:
        """Send what a call returned, or why it failed, or why that can't be sent.

        What has arrays in it whose memory goes along is only encoded, and returned: it is for `send_encoded()`, when
        nobody uses them any more.
        """
        arrays = self._arrays
        arrays.must_give = False
        try:
            self._put(reply)
            return None
        except BaseException:
            if arrays.must_give:
                try:
                    return self._encode(reply)
                except BaseException:
                    _native.shared_finish_giving(False)
        # The codec says what it met; pickle raises what concurrent.futures would have raised, or does it.
        work_id, took, exit_pid, result, failure = reply
        try:
            reply = (work_id, took, exit_pid, _Pickled((result, failure)), True)
        except BaseException as error:
            reply = (work_id, took, exit_pid, None, _explain(error))
        self._put(reply)
        return None

    def _encode(self, reply: tuple[Any, ...]) -> Any:
        self._arrays.may_give = True
        try:
            return self._results._encode(reply)
        finally:
            self._arrays.may_give = False

    def send_encoded(self, buffer: Any) -> None:
        """Send what `send()` returned."""
        _native.shared_finish_giving(True)
        pause = _PAUSE
        while not self._results._put_buffer(buffer):
            _check_parent()
            time.sleep(pause)
            pause = min(2 * pause, _MEMORY_INTERVAL)

    def _put(self, reply: Any) -> None:
        while True:
            try:
                self._results.put(reply, timeout=_ORPHAN_INTERVAL)
                return
            except queue.Full:
                _check_parent()

    def finish(self) -> None:
        """Wait until everything is taken: arrays are found by this process."""
        while not _native.shared_is_taken():
            _check_parent()
            time.sleep(_PAUSE)


def _make_wait(tasks: Queue) -> Callable[[], bool]:
    """Return a function that waits for the next call, and returns False when there is nobody any more to make one."""
    endpoint = tasks._endpoint(False)
    parent = multiprocessing.parent_process()
    poll = select.poll()
    poll.register(endpoint.fileno(), select.POLLIN)
    if parent is not None:
        poll.register(parent.sentinel, select.POLLIN)

    def wait() -> bool:
        while not endpoint.check():
            for fd, _ in poll.poll():
                if parent is not None and fd == parent.sentinel:
                    return False
        return True

    return wait


def _check_parent() -> None:
    """End this process if there is nobody to work for."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)


def _work(
    tasks: Queue,
    results: Queue,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    max_tasks: int | None,
    n_workers: int,
) -> None:
    """Do calls until there are no more; in the worker."""
    if initializer is not None:
        try:
            initializer(*initargs)
        except BaseException:
            _base.LOGGER.critical("Exception in initializer:", exc_info=True)
            return  # the pool is broken then
    replies = _Replies(results)
    wait_for_task = _make_wait(tasks)
    clock = time.perf_counter
    modules = sys.modules
    uses_shared_memory = False
    exit_pid = None
    copy = False
    n_done = 0
    while True:
        try:
            call = tasks.get(timeout=_BUSY_SECONDS, copy=copy)
        except queue.Empty:
            if not wait_for_task():
                return  # the program is gone
            continue
        except EOFError:
            return  # so is the end of the queue
        if call is None:
            return  # the pool has ended
        work_id, function, args, keywords = call
        del call
        if not uses_shared_memory and "numpy" in modules:
            _native.shared_use_for_arrays(n_workers)
            uses_shared_memory = True
        if not n_done % _BATCH:
            _check_parent()
            copy = _is_full_of_views(tasks._endpoint(False))
        n_done += 1
        if n_done == max_tasks:
            exit_pid = os.getpid()
        began = clock()
        reply: tuple[Any, ...]
        try:
            result = function(*args, **keywords) if keywords else function(*args)
        except BaseException as error:
            reply = (work_id, clock() - began, exit_pid, None, _explain(error))
        else:
            reply = (work_id, clock() - began, exit_pid, result, None)
            del result
        if reply[1] > _LONG_SECONDS:
            _check_parent()
        encoded = replies.send(reply)
        # What the call had is free again before the next one comes.
        del function, args, keywords, reply
        if encoded is not None:
            replies.send_encoded(encoded)
            del encoded
        if exit_pid is not None:
            replies.finish()
            return


# ---- in the program ----


class _Future(Future[Any]):
    """A future that can be cancelled until a worker has taken its call."""

    _pool: weakref.ref[_Pool]

    def cancel(self) -> bool:
        """Cancel the call if no worker has it yet.

        Returns
        -------
        bool
            Whether it is cancelled.
        """
        if super().cancel():
            return True
        pool = self._pool()
        if self.done() or pool is None:
            return False
        with pool.lock:
            pool.take_back()
            cancelled = super().cancel()
            pool.wake()
        return cancelled


class _WorkItem:
    """A call that is not done."""

    __slots__ = ("args", "fn", "future", "held", "kwargs", "since")

    def __init__(self, future: _Future, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.future = future
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.since = time.monotonic()
        self.held: Any = None  # memory that its arrays are in


class _Pool:
    """What works for an executor, and goes on when that is gone."""

    def __init__(
        self,
        max_workers: int,
        context: Any,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        max_tasks: int | None,
    ) -> None:
        self.max_workers = max_workers
        self.context = context
        self.initializer = initializer
        self.initargs = initargs
        self.max_tasks = max_tasks
        # A process that is forked while other threads run may hang: those are all started first.
        self.starts_on_demand = context.get_start_method(allow_none=False) != "fork"
        self.pid = os.getpid()
        self.lock = threading.RLock()  # of everything below; an RLock, for collecting garbage may run our code anywhere
        self.pending: dict[int, _WorkItem] = {}
        self.backlog: deque[int] = deque()  # those that are not handed out
        self.order: deque[int] = deque(maxlen=_CAPACITY)  # in which calls were put into the queue
        self.reference = weakref.ref(self)
        self.n_submitted = 0
        self.n_handed_out = 0
        self.limit = self.least = max_workers + _EXTRA_CALLS
        # Whether handing out took long, as with large arrays: of calls that wait the manager does them all at once.
        self.is_costly = False
        self.n_ended = 0  # workers that have done as much as they may, and are to be replaced
        self.n_idle = 0  # workers that nothing is to be started for: one for each result
        self.mean = 0.0  # seconds that a call takes
        self.is_stalled = False  # there is no memory for the next call
        self.broken: str | bool = False
        self.is_ending = False  # no more calls come
        self.is_done = False  # and all are done
        self.cancels = False
        self.processes: dict[int, Any] = {}
        self.manager: threading.Thread | None = None
        self.tasks = Queue(_CAPACITY, codec="python")
        self.results = Queue(_CAPACITY, codec="python")
        self.arrays = shared.Arguments()
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        _pools.add(self)
        # A pool that never worked has nobody who would close it.
        self._finalizer = weakref.finalize(self, os.close, self.bell)
        self._finalizer.atexit = False

    # ---- called by the executor ----

    def submit(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Future[Any]:
        """Take a call, and hand it out if it is to be done soon."""
        with self.lock:
            if self.broken:
                raise BrokenProcessPool(self.broken)
            if self.is_ending:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if _exiting:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            if self.pid != os.getpid():
                raise RuntimeError(
                    f"this executor belongs to process {self.pid}, and process {os.getpid()} is forked from it;"
                    " make an executor in this process"
                )
            future = _Future()
            future._pool = self.reference
            item = _WorkItem(future, fn, args, kwargs)
            work_id = self.n_submitted
            self.n_submitted = work_id + 1
            self.pending[work_id] = item
            try:
                if self.n_idle:
                    self.n_idle -= 1
                elif len(self.processes) < self.max_workers:
                    self._start_processes(len(self.processes) + 1)
                if self.manager is None:
                    self._start_manager()
            except BaseException:
                del self.pending[work_id]
                raise
            if self.backlog or self.n_handed_out >= (self.least if self.is_costly else self.limit):
                self.backlog.append(work_id)
                return future
            failure = self._hand_out(work_id, item)
        if failure is not None:
            future.set_exception(failure)
        return future

    def wake(self) -> None:
        """Let the manager look at what has changed."""
        with self.lock:
            if self.bell >= 0:
                os.eventfd_write(self.bell, 1)

    def end(self, cancels: bool = False) -> None:
        """Do what is pending, and nothing else."""
        with self.lock:
            self.is_ending = True
            self.cancels = self.cancels or cancels
            if self.manager is None:
                self._close()
            self.wake()

    def forked(self) -> None:
        """In a fork child: nothing of this goes on."""
        self.lock = threading.RLock()
        self.manager = None
        self.pending = {}
        self.backlog.clear()
        self.processes = {}

    # ---- processes ----

    def _start_processes(self, wanted: int) -> None:
        if not self.starts_on_demand:
            # Not beside a thread of our own, and so never again.
            wanted = self.max_workers if self.manager is None else 0
        while len(self.processes) < wanted:
            process = self.context.Process(
                target=_work,
                args=(self.tasks, self.results, self.initializer, self.initargs, self.max_tasks, self.max_workers),
            )
            process.start()
            self.processes[process.pid] = process

    def _start_manager(self) -> None:
        self.tasks._endpoint(True)._set_array_reducer(self.arrays.reducer)
        self.manager = threading.Thread(target=self._manage, name="ferry.ProcessPoolExecutor")
        _managers[self.manager] = self
        self.manager.start()

    # ---- handing out; the lock is held ----

    def _hand_out(self, work_id: int, item: _WorkItem) -> BaseException | None:
        """Send a call to whichever worker is free; return why that can't be done."""
        if not item.future.set_running_or_notify_cancel():
            del self.pending[work_id]
            return None
        arrays = self.arrays
        arrays.since = item.since
        began = time.monotonic()
        try:
            try:
                self.tasks.put_nowait((work_id, item.fn, item.args, item.kwargs))
            except (queue.Full, MemoryError, KeyboardInterrupt):
                raise
            except BaseException:
                # As for results: pickle raises what is to be raised, or does it.
                call = _Pickled((item.fn, item.args, item.kwargs))
                self.tasks.put_nowait((work_id, _call_pickled, (call,), None))
        except queue.Full:
            arrays.held.clear()
            self.is_stalled = True
            with item.future._condition:
                item.future._state = _base.PENDING
            self.backlog.appendleft(work_id)
            return None
        except KeyboardInterrupt:
            # Of whoever calls submit(), and nothing about this call.
            arrays.held.clear()
            del self.pending[work_id]
            raise
        except BaseException as error:
            arrays.held.clear()
            text = "".join(format_exception(type(error), error, error.__traceback__))
            error.__cause__ = _RemoteTraceback(f'\n"""\n{text}"""')  # type: ignore[arg-type]
            error.__traceback__ = error.__context__ = None  # their frames have all of this, and the arguments
            del self.pending[work_id]
            return error
        if arrays.held:
            item.held = arrays.held
            arrays.held = []
        self.n_handed_out += 1
        self.order.append(work_id)
        self.is_costly = time.monotonic() - began > _COSTLY_SECONDS
        return None

    def take_back(self) -> int:
        """Take calls back that no worker has taken; return how many."""
        if self.manager is None or self.is_done:
            return 0
        endpoint = self.tasks._endpoint(False)
        n_taken = 0
        while True:
            try:
                endpoint.receive_buffer(0).release()
            except queue.Empty:
                break
            n_taken += 1
        # Nobody else puts, and workers take them in order: these are the last ones.
        for _ in range(n_taken):
            work_id = self.order.pop()
            item = self.pending.get(work_id)
            if item is None:
                continue
            item.held = None
            with item.future._condition:
                if item.future._state == _base.RUNNING:
                    item.future._state = _base.PENDING
            self.backlog.appendleft(work_id)
        self.n_handed_out -= n_taken
        self.limit = self.least
        return n_taken

    def _hand_out_more(self) -> list[tuple[Future[Any], BaseException]]:
        """Hand out calls until it is enough; return those that can't be."""
        failures: list[tuple[Future[Any], BaseException]] = []
        self.is_stalled = False
        while self.backlog and self.n_handed_out < self.limit and not self.is_stalled:
            work_id = self.backlog.popleft()
            item = self.pending[work_id]
            failure = self._hand_out(work_id, item)
            if failure is not None:
                failures.append((item.future, failure))
        return failures

    # ---- the manager ----

    def _manage(self) -> None:
        try:
            self._watch()
        except BaseException as error:
            # Nobody would give the futures their results.
            self._break("".join(format_exception(type(error), error, error.__traceback__)))
        finally:
            with self.lock:
                self._close()

    def _watch(self) -> None:
        endpoint = self.results._endpoint(False)
        poll, watched = self._make_poll(endpoint)
        while True:
            taken, cause = self._take_results(endpoint)
            if cause is not None:
                self._break(cause)
                return
            if self.is_costly and self.backlog:
                # Whoever submits in a row gets done with it, instead of waiting for the lock after each call.
                time.sleep(_COSTLY_SECONDS)
            with self.lock:
                self.n_handed_out -= taken
                ending = self.is_ending or _exiting
                if ending and self.cancels:
                    self.cancels = False
                    # As many as the standard executor would have handed out are done.
                    kept = min(self.take_back(), max(self.limit - self.n_handed_out, 0))
                    cancelled = [self.pending.pop(self.backlog.pop()) for _ in range(len(self.backlog) - kept)]
                else:
                    cancelled = []
                failures = self._hand_out_more()
                # In place of those that have done as much as they may.
                if self.n_ended:
                    self._start_processes(min(len(self.processes) + self.n_ended, len(self.pending)))
                    self.n_ended = 0
                if len(watched) != len(self.processes) or any(p.pid not in self.processes for p in watched.values()):
                    poll, watched = self._make_poll(endpoint)
                done = self.is_done = ending and not self.pending
            for item in cancelled:
                Future.cancel(item.future)
            for future, failure in failures:
                future.set_exception(failure)
            del cancelled, failures
            if done:
                # The end of the queue alone is heard late by a worker that has just begun.
                self.tasks.put_many([None] * len(self.processes))
                self.tasks.end()
                self._join()
                return
            if taken == _BATCH or endpoint.check():
                continue
            ready = poll.poll(_MEMORY_INTERVAL * 1000 if self.is_stalled else None)
            for fd, _ in ready:
                if fd == self.bell:
                    os.eventfd_read(self.bell)
                elif fd in watched:
                    gone = watched[fd].pid
                    taken, cause = self._take_results(endpoint, sys.maxsize)
                    with self.lock:
                        self.n_handed_out -= taken
                        # One that said that it would end is not there any more.
                        is_abrupt = gone in self.processes
                    if is_abrupt or cause is not None:
                        self._break(cause)
                        return

    def _make_poll(self, endpoint: Any) -> tuple[select.poll, dict[int, Any]]:
        poll = select.poll()
        poll.register(endpoint.fileno(), select.POLLIN)
        poll.register(self.bell, select.POLLIN)
        watched = {process.sentinel: process for process in self.processes.values()}
        for sentinel in watched:
            poll.register(sentinel, select.POLLIN)
        return poll, watched

    def _take_results(self, endpoint: Any, most: int = _BATCH) -> tuple[int, str | None]:
        """Give the futures their results; return how many, and what is wrong."""
        get = self.results.get
        get_nowait = self.results.get_nowait
        pop = self.pending.pop
        mean = self.mean
        taken = 0
        copy: bool | None = None
        while taken < most:
            try:
                if copy is None or not taken % _BATCH:
                    copy = _is_full_of_views(endpoint)
                work_id, took, exit_pid, result, failure = get(False, copy=True) if copy else get_nowait()
            except queue.Empty:
                break
            except BaseException as error:
                return taken, "".join(format_exception(type(error), error, error.__traceback__))
            taken += 1
            if self.starts_on_demand and exit_pid is None:
                # Before who waits for the result makes the next call.
                with self.lock:
                    self.n_idle = min(self.n_idle + 1, len(self.processes))
            mean += (took - mean) * _MEAN_WEIGHT
            if failure is True:
                result, failure = result
            if exit_pid is not None:
                with self.lock:
                    process = self.processes.pop(exit_pid, None)
                    self.n_ended += 1
                    self.n_idle = min(self.n_idle, len(self.processes))
                if process is not None:
                    process.join()
                    _native.shared_forget(exit_pid)
            item = pop(work_id, None)
            if item is not None:
                try:
                    if failure is not None:
                        item.future.set_exception(failure)
                    else:
                        item.future.set_result(result)
                except InvalidStateError:
                    pass
            del item, result, failure
        if taken:
            self.mean = mean
            self.limit = min(
                self.least + int(self.max_workers * _HANDED_OUT_SECONDS / max(mean, 1e-6)),
                _HANDED_OUT_MAX,
            )
        return taken, None

    def _break(self, cause: str | None) -> None:
        """Fail everything: a worker is gone, and with it what it was doing."""
        with self.lock:
            self.broken = _BROKEN
            self.is_ending = True
            items = list(self.pending.values())
            self.pending.clear()
            self.backlog.clear()
        error = BrokenProcessPool(
            "A process in the process pool was terminated abruptly while the future was running or pending."
        )
        if cause is not None:
            error.__cause__ = _RemoteTraceback(f"\n'''\n{cause}'''")  # type: ignore[arg-type]
        for item in items:
            try:
                item.future.set_exception(error)
            except InvalidStateError:
                pass  # it was cancelled
        del items
        for process in self.processes.values():
            process.terminate()
        self._join(_TERMINATE_SECONDS)

    def _join(self, timeout: float | None = None) -> None:
        for process in self.processes.values():
            process.join(timeout)
            if process.is_alive():
                process.kill()
                process.join()
            _native.shared_forget(process.pid)

    def _close(self) -> None:
        if self.bell < 0:
            return
        self.bell = -1
        _managers.pop(self.manager, None) if self.manager is not None else None
        self._finalizer()
        self.tasks.close()
        self.results.close()
        _pools.discard(self)
        if not _pools:
            _native.shared_trim()


def _call_pickled(call: Any) -> Any:
    """Do a call that the codec could not encode; in the worker."""
    function, args, keywords = call
    return function(*args, **keywords)


class ProcessPoolExecutor(_standard.ProcessPoolExecutor):
    """`concurrent.futures.ProcessPoolExecutor`, through shared memory.

    It has the same methods and rules. Calls, their arguments and what they return are copied once, into shared
    memory, and arrays, at any depth, arrive as writable views on it.

    Parameters
    ----------
    max_workers : int, optional
        How many processes; as many as there are CPUs if left out.
    mp_context : multiprocessing.context.BaseContext, optional
        How they are started.
    initializer : callable, optional
        Called by each worker when it starts.
    initargs : tuple, optional
        Its arguments.
    max_tasks_per_child : int, optional
        After how many calls a worker is replaced. Not with the start method fork; `spawn` is taken if no context
        is given.

    Examples
    --------
    >>> import ferry, numpy
    >>> with ferry.ProcessPoolExecutor(2) as executor:
    ...     executor.submit(numpy.add, numpy.ones(3), 1).result()
    array([2., 2., 2.])
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        # Not that of the base class: it makes queues, pipes and semaphores, which are not needed here.
        if max_workers is None:
            max_workers = os.cpu_count() or 1
        elif max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if mp_context is None:
            mp_context = multiprocessing.get_context("spawn" if max_tasks_per_child is not None else None)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
            if mp_context.get_start_method(allow_none=False) == "fork":
                raise ValueError(
                    "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method;"
                    " supply a different mp_context."
                )
        self._pool = pool = _Pool(max_workers, mp_context, initializer, initargs, max_tasks_per_child)
        # An executor that is forgotten without shutdown() ends as if it had been called.
        weakref.finalize(self, pool.end).atexit = False

    # What programs look at, although it is not public.
    _max_workers = property(lambda self: self._pool.max_workers)
    _mp_context = property(lambda self: self._pool.context)
    _initializer = property(lambda self: self._pool.initializer)
    _initargs = property(lambda self: self._pool.initargs)
    _max_tasks_per_child = property(lambda self: self._pool.max_tasks)
    _processes = property(lambda self: self._pool.processes)
    _executor_manager_thread = property(lambda self: self._pool.manager)
    _pending_work_items = property(lambda self: self._pool.pending)
    _call_queue = property(lambda self: self._pool.tasks)
    _result_queue = property(lambda self: self._pool.results)
    _broken = property(lambda self: self._pool.broken)
    _shutdown_thread = property(lambda self: self._pool.is_ending)

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Schedule a call.

        Parameters
        ----------
        fn : callable
            What to call, in a worker.
        *args, **kwargs
            Its arguments. They are copied when the call is near to running, which may be at once.

        Returns
        -------
        concurrent.futures.Future
            Of what it returns.

        Raises
        ------
        RuntimeError
            After `shutdown()`, or in a process that was forked from the one that made the executor.
        concurrent.futures.process.BrokenProcessPool
            A worker has died.
        """
        return self._pool.submit(fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end the workers when all are done.

        Parameters
        ----------
        wait : bool, default True
            Whether to return only then.
        cancel_futures : bool, default False
            Whether to cancel those that are not handed out to workers.
        """
        pool = self._pool
        manager = pool.manager
        pool.end(cancel_futures)
        if manager is not None and wait:
            manager.join()


def _after_fork() -> None:
    for pool in list(_pools):
        pool.forked()
    _managers.clear()


os.register_at_fork(after_in_child=_after_fork)
