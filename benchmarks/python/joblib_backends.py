#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""joblib with the backend `ferry` beside its default, `loky`.

    ./run exec python3 benchmarks/python/joblib_backends.py [--rounds N] [--jobs N]

Both keep their workers from one call to the next; each round does every call once with the one
and then with the other. Shown are medians and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import ferry
import ferry.joblib
import joblib
import numpy
from joblib import Parallel, delayed

WAYS = ("loky", "ferry")


def square(number: int) -> int:
    """Nearly nothing."""
    return number * number


def at(array: numpy.ndarray, index: int) -> float:
    """Look at one element."""
    return float(array[index])


def calls() -> dict[str, tuple[Callable[[], Any], Any]]:
    """Return what is measured: a call, and what it must return."""
    array = numpy.arange(12_500_000.0)
    shared = ferry.share(array)
    parts = [numpy.full(1_000_000, i, float) for i in range(20)]
    return {
        "5000 trivial tasks": (
            lambda: Parallel()(delayed(square)(i) for i in range(5000)),
            [square(i) for i in range(5000)],
        ),
        "one array of 100 MB, 50 tasks": (
            lambda: Parallel()(delayed(at)(array, i) for i in range(50)),
            [float(i) for i in range(50)],
        ),
        "the same, share()d": (
            lambda: Parallel()(delayed(at)(shared, i) for i in range(50)),
            [float(i) for i in range(50)],
        ),
        "20 arguments of 8 MB": (
            lambda: Parallel()(delayed(at)(part, -1) for part in parts),
            [float(i) for i in range(20)],
        ),
        "20 results of 8 MB": (
            lambda: [at(part, -1) for part in Parallel()(delayed(numpy.full)(1_000_000, float(i)) for i in range(20))],
            [float(i) for i in range(20)],
        ),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="joblib's backend ferry beside loky")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="how often each is measured (default: 7)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="workers (default: 2)")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.jobs < 2:
        parser.error("--rounds is at least 1, --jobs at least 2")
    print(f"{arguments.jobs} workers, median of {arguments.rounds} rounds\n")
    print(f"{'':30} {'loky':>10} {'ferry':>10} {'ratio':>8}")
    for name, (call, expected) in calls().items():
        took: dict[str, list[float]] = {way: [] for way in WAYS}
        for i in range(arguments.rounds + 1):
            for way in WAYS if i % 2 else WAYS[::-1]:
                with joblib.parallel_backend(way, n_jobs=arguments.jobs):
                    began = time.perf_counter()
                    results = call()
                    seconds = time.perf_counter() - began
                if results != expected:
                    print(f"{way}: wrong results", file=sys.stderr)
                    return 1
                if i > 0:  # the first one starts workers
                    took[way].append(seconds)
        loky, ferry_ = (statistics.median(took[way]) for way in WAYS)
        print(f"{name:30} {1e3 * loky:7.1f} ms {1e3 * ferry_:7.1f} ms {loky / ferry_:7.2f}x", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
