# SPDX-License-Identifier: LGPL-2.1-or-later
"""`map()` with processes: results in order, as they come, with a bound and a progress bar."""

from __future__ import annotations

import itertools
import operator
import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import _ExceptionWithTraceback  # type: ignore[attr-defined]
from contextlib import closing
from typing import Any, TypeVar

__all__ = ["imap", "map"]

T = TypeVar("T")

#: How long a chunk whose size nobody gave should take, in seconds: long against what passing it on takes, and short
#: enough that a bar moves and workers end together.
_CHUNK_TIME = 0.02
_CHUNK_MAX = 1024
#: Chunks a worker, running and waiting, unless `ahead` says otherwise: one that has done with its own goes on while
#: the result that is the next to be yielded takes longer.
_CHUNKS_AHEAD = 3
#: Of what is left, if that is known, so much is given to each worker at once at most.
_SHARE_OF_REST = 4


def imap(
    function: Callable[..., T],
    *iterables: Iterable[Any],
    workers: int | None = None,
    chunksize: int | None = None,
    ahead: int | None = None,
    progress: bool | str | Callable[[int, int | None], object] = False,
    total: int | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
    mp_context: Any = None,
    executor: Executor | None = None,
) -> Generator[T, None, None]:
    """Apply a function to each item in other processes, and yield the results in order.

    As the built-in `map()`, it ends with the shortest iterable, takes items only as they are needed,
    and an exception, of the function or of an iterable, comes out in the place of the result, with
    the worker's traceback as its cause. It ends the iteration. Arguments and results travel by
    Ferry: arrays are not pickled, and results are writable.

    Nothing is started before the first result is asked for. Who stops earlier closes the generator,
    or just drops it: tasks that have not begun are cancelled, those that run end on their own, and
    their results go nowhere.

    Parameters
    ----------
    function : callable
        What to call; as for `ferry.ProcessPoolExecutor`, it must be importable where processes
        are spawned.
    *iterables : iterable
        Its arguments: one iterable for each. They may be endless.
    workers : int, optional
        How many processes; as many as there are CPUs for this process if left out. 0: none, the
        function is called in this process, which is for debugging.
    chunksize : int, optional
        How many items are passed to a worker at once. If left out it follows how long they take,
        from 1 up to what takes 20 ms.
    ahead : int, optional
        How many items at most are taken from the iterables beyond the results that were yielded;
        what bounds the memory where a reader is slower than the workers. Three chunks a worker if left
        out.
    progress : bool, str or callable, default False
        True, or a description: a progress bar on standard error, by tqdm, or rich if there is no tqdm; none
        if there is neither. A callable is called with the number of results so far and their total
        number (None: unknown), first with 0.
    total : int, optional
        How many results there will be, for the bar; from the iterables' lengths if left out.
    initializer : callable, optional
        Called by each process when it starts.
    initargs : tuple, optional
        Its arguments.
    mp_context : multiprocessing.context.BaseContext, optional
        How processes are started.
    executor : concurrent.futures.Executor, optional
        Where to run instead of processes of its own. It is left running; the four arguments before do
        not go with it, and `workers` only says how many it is good for.

    Yields
    ------
    object
        What the function returns.

    Raises
    ------
    concurrent.futures.process.BrokenProcessPool
        A worker was killed.
    ValueError, TypeError
        An argument is out of range, or does not go with another one; raised by the call itself.

    Examples
    --------
    >>> for thumbnail in ferry.imap(shrink, photographs, progress="photographs"):
    ...     show(thumbnail)
    """
    if not callable(function):
        raise TypeError(f"function must be callable, not {type(function).__name__}")
    if not iterables:
        raise TypeError("at least one iterable is needed")
    for name, value, smallest in (("workers", workers, 0), ("chunksize", chunksize, 1), ("ahead", ahead, 1)):
        if value is not None and operator.index(value) < smallest:
            raise ValueError(f"{name} must be at least {smallest}, not {value}")
    if executor is not None and (initializer is not None or initargs or mp_context is not None):
        raise ValueError("initializer, initargs and mp_context are the executor's")
    if executor is not None and workers == 0:
        raise ValueError("workers=0 is this process: it does not go with an executor")
    if total is None:
        total = _count(iterables)
    if workers is None:
        workers = getattr(executor, "_max_workers", None) or len(os.sched_getaffinity(0))
    items = zip(*iterables, strict=False)
    if workers == 0:
        results = _imap_here(function, items, initializer, initargs)
    else:

        def make() -> Executor:
            from ferry.executor import ProcessPoolExecutor

            return ProcessPoolExecutor(workers, mp_context=mp_context, initializer=initializer, initargs=initargs)

        results = _imap_elsewhere(function, items, workers, chunksize, ahead, total, executor, make)
    return results if progress is False else _show(results, total, progress)


def map(  # noqa: A001, as the built-in one
    function: Callable[..., T],
    *iterables: Iterable[Any],
    workers: int | None = None,
    chunksize: int | None = None,
    ahead: int | None = None,
    progress: bool | str | Callable[[int, int | None], object] = False,
    total: int | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
    mp_context: Any = None,
    executor: Executor | None = None,
) -> list[T]:
    """Apply a function to each item in other processes, and return the list of results.

    All that `imap()` says holds. When a task raises, those that have not begun are cancelled.

    Returns
    -------
    list
        What the function returned, in the order of the items.

    Examples
    --------
    >>> ferry.map(pow, range(5), [2] * 5)
    [0, 1, 4, 9, 16]
    """
    return list(
        imap(
            function,
            *iterables,
            workers=workers,
            chunksize=chunksize,
            ahead=ahead,
            progress=progress,
            total=total,
            initializer=initializer,
            initargs=initargs,
            mp_context=mp_context,
            executor=executor,
        )
    )


def _count(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """Return how many items there are, as far as the iterables tell: None if one does not that may be the shortest."""
    lengths = []
    for iterable in iterables:
        length = operator.length_hint(iterable, -1)
        if length < 0 and isinstance(iterable, itertools.count | itertools.cycle | itertools.repeat):
            continue  # endless
        if length < 0:
            return None
        lengths.append(length)
    return min(lengths, default=None)


def _imap_here(
    function: Callable[..., T],
    items: Iterator[tuple[Any, ...]],
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> Generator[T, None, None]:
    if initializer is not None:
        initializer(*initargs)
    yield from itertools.starmap(function, items)


# ---- in the worker ----


def _run_chunk(function: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> tuple[list[Any], Any, float]:
    """Call the function for each item until it raises.

    Returns
    -------
    tuple of list, exception or None, and float
        The results, what the call after them raised, and the seconds that all took.
    """
    results = []
    began = time.perf_counter()
    for arguments in chunk:
        try:
            results.append(function(*arguments))
        except Exception as error:
            if not results:
                raise  # then this is all that there is to be said, and the executor says it
            return results, _carry(error), time.perf_counter() - began
    return results, None, time.perf_counter() - began


def _carry(error: BaseException) -> Any:
    """Return what arrives as the exception, with its traceback as the cause."""
    try:
        carrier = _ExceptionWithTraceback(error, error.__traceback__)  # type: ignore[arg-type]
        pickle.loads(pickle.dumps(carrier))
    except Exception as failure:
        failure.add_note(f"while an exception was passed on: {error!r}")
        carrier = _ExceptionWithTraceback(failure, failure.__traceback__)  # type: ignore[arg-type]
    return carrier


# ---- here ----


def _imap_elsewhere(
    function: Callable[..., T],
    items: Iterator[tuple[Any, ...]],
    workers: int,
    chunksize: int | None,
    ahead: int | None,
    total: int | None,
    executor: Executor | None,
    make: Callable[[], Executor],
) -> Generator[T, None, None]:
    own = None if executor is not None else make()
    submit = (executor or own).submit  # type: ignore[union-attr]
    waiting: deque[Future[Any]] = deque()
    size = chunksize or 1
    n_taken = 0
    n_waiting = 0  # items of those futures
    failed: Exception | None = None  # what an iterable raised
    ended = False
    completed = False

    def most() -> int:
        """How many items the next chunk may have."""
        if chunksize is not None:
            most = chunksize
        elif total is not None:
            most = min(size, max((total - n_taken) // (_SHARE_OF_REST * workers), 1))
        else:
            most = size
        if ahead is not None:
            if chunksize is None:
                most = min(most, max(ahead // (_CHUNKS_AHEAD * workers), 1))
            most = min(most, ahead - n_waiting)
        return most

    def has_room() -> bool:
        if ahead is not None:
            return n_waiting < ahead
        return len(waiting) < _CHUNKS_AHEAD * workers

    try:
        while True:
            while not ended and has_room():
                chunk: list[tuple[Any, ...]] = []
                try:
                    chunk.extend(itertools.islice(items, most()))
                    ended = not chunk
                except Exception as error:
                    # It is raised in its place, behind the items that came before it: they are in the chunk.
                    failed = error
                    ended = True
                if chunk:
                    waiting.append(submit(_run_chunk, function, chunk))
                    n_taken += len(chunk)
                    n_waiting += len(chunk)
            if not waiting:
                break
            results, raised, seconds = waiting[0].result()
            waiting.popleft()  # it holds the results, too
            if chunksize is None and results:
                wanted = int(_CHUNK_TIME * len(results) / max(seconds, 1e-9))
                size = max(1, min(wanted, 2 * size, _CHUNK_MAX))
            results.reverse()
            while results:
                n_waiting -= 1
                yield results.pop()
            if raised is not None:
                # Where nothing was pickled, in an executor of threads, it is still wrapped.
                raise raised.exc if isinstance(raised, _ExceptionWithTraceback) else raised
        if failed is not None:
            raise failed
        completed = True
    finally:
        for future in waiting:
            future.cancel()
        waiting.clear()
        if own is not None:
            # Those that still run are not waited for, unless everything is done anyway.
            own.shutdown(wait=completed, cancel_futures=True)


# ---- progress ----


def _show(
    results: Generator[T, None, None], total: int | None, progress: bool | str | Callable[[int, int | None], object]
) -> Generator[T, None, None]:
    """Yield the results and tell how many there were."""
    if callable(progress):
        return _tell(results, total, progress)
    description = progress if isinstance(progress, str) else None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        pass
    else:
        return _show_by_tqdm(results, total, description, tqdm)
    try:
        from rich.progress import Progress
    except ImportError:
        return _tell(results, total, lambda done, total: None)
    return _show_by_rich(results, total, description, Progress)


def _tell(
    results: Generator[T, None, None], total: int | None, progress: Callable[[int, int | None], object]
) -> Generator[T, None, None]:
    with closing(results):
        progress(0, total)
        for done, result in enumerate(results, 1):
            progress(done, total)
            yield result


def _show_by_tqdm(
    results: Generator[T, None, None], total: int | None, description: str | None, tqdm: Any
) -> Generator[T, None, None]:
    with closing(results), tqdm(total=total, desc=description) as bar:
        for result in results:
            bar.update()
            yield result


def _show_by_rich(
    results: Generator[T, None, None], total: int | None, description: str | None, progress: Any
) -> Generator[T, None, None]:
    from rich.console import Console

    with closing(results), progress(console=Console(stderr=True)) as bars:
        task = bars.add_task(description or "", total=total)
        for result in results:
            bars.advance(task)
            yield result
