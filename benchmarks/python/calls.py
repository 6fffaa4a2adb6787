# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measure executors: calls in other processes, from `submit()` to the result."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
from ways import WAYS

WORKERS = 2
_PAGE = 4096 // 8  # elements
_WARM_UP = 4
_SAMPLES = 9
_LONG = 6.0  # seconds; what takes longer is called less often
_TRIVIAL = 10_000
_TRIVIAL_WARM_UP = 1000
_REPEATED = 50
_REPEATED_SLOW = 5  # for those that take as long for each call
_SAMPLE_INTERVAL = 0.002  # seconds between looks at the memory
_LIMIT = 120.0  # seconds, for one result


def add_one(array: Any) -> Any:
    """Return an array with one more in each element; in the worker."""
    return array + 1


def look(array: Any) -> float:
    """Read a number of every page of an array, all ones, and return their mean; in the worker."""
    return float(array[::_PAGE].mean())


class _Here:
    """Does calls in this process, as a measure for the others."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


def _make(context: Any, way: str) -> Any:
    if way == "in process":
        return _Here()
    if way == "ferry.ProcessPoolExecutor":
        from ferry import ProcessPoolExecutor
    elif way == "npshmex":
        from npshmex import ProcessPoolExecutor
    else:
        from concurrent.futures import ProcessPoolExecutor
    return ProcessPoolExecutor(WORKERS, mp_context=context)


def _check(right: bool) -> None:
    if not right:
        raise ValueError("the result is wrong")


def _measure_add_one(executor: Any, job: dict[str, Any]) -> dict[str, Any]:
    array = np.ones(job["size"] // 8)
    if job.get("share"):
        import ferry

        array = ferry.share(array)
    times: list[float] = []
    first = time.monotonic()
    for i in range(_WARM_UP + _SAMPLES):
        began = time.monotonic()
        if began - first > _LONG and i > 1:
            break
        result = executor.submit(add_one, array).result(_LIMIT)
        took = time.monotonic() - began
        _check(result[0] == 2 and result[-1] == 2 and len(result) == len(array))
        del result
        times.append(took)
    return {"value": statistics.median(times[min(_WARM_UP, len(times) - 1) :]), "calls": len(times)}


def _measure_trivial(executor: Any, job: dict[str, Any]) -> dict[str, Any]:
    def run(n: int) -> float:
        began = time.monotonic()
        futures = [executor.submit(abs, -i) for i in range(n)]
        results = [future.result(_LIMIT) for future in futures]
        took = time.monotonic() - began
        _check(results == list(range(n)))
        return took / n

    run(_TRIVIAL_WARM_UP)
    return {"value": run(_TRIVIAL), "calls": _TRIVIAL}


def _measure_repeated(executor: Any, job: dict[str, Any]) -> dict[str, Any]:
    """For each of many calls with the same array."""
    array = np.ones(job["size"] // 8)
    n = _REPEATED if WAYS[job["way"]].group == "ferry" else _REPEATED_SLOW
    for _ in range(WORKERS):
        executor.submit(abs, 1).result(_LIMIT)
    before = time.monotonic()
    futures = [executor.submit(look, array) for _ in range(n)]
    results = [future.result(_LIMIT) for future in futures]
    took = time.monotonic() - before
    _check(results == [1.0] * n)
    return {"value": took / n, "calls": n}


def _measure_memory(executor: Any, job: dict[str, Any]) -> dict[str, Any]:
    """The most memory that all processes take beside the array, in arrays, during many calls with it."""
    from worker import measure_processes

    array = np.ones(job["size"] // 8)
    for future in [executor.submit(look, array[:10]) for _ in range(4 * WORKERS)]:
        future.result(_LIMIT)
    pids = [os.getpid(), *executor._processes]
    before = peak = measure_processes(pids)
    n = _REPEATED if WAYS[job["way"]].group == "ferry" else _REPEATED_SLOW
    futures = [executor.submit(look, array) for _ in range(n)]
    while not futures[-1].done():
        peak = max(peak, measure_processes(pids))
        time.sleep(_SAMPLE_INTERVAL)
    _check(sum(future.result(_LIMIT) for future in futures) == n)
    return {"value": (peak - before) / array.nbytes, "before": before, "peak": peak}


_MEASURES = {
    "add-one": _measure_add_one,
    "trivial": _measure_trivial,
    "repeated": _measure_repeated,
    "repeated-memory": _measure_memory,
}


def measure_calls(context: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Calls of an executor: seconds from `submit()` to the result."""
    with _make(context, job["way"]) as executor:
        return _MEASURES[job["kind"]](executor, job)
