#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""put and get of Python objects between two processes: ferry beside multiprocessing, in one run.

Each way is measured several times in turns; shown is the median, and how many times faster
`ferry.Queue` is.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import ferry

Way = Callable[[Any, int], float]


def _objects() -> dict[str, tuple[Any, int]]:
    """What is sent, and how many of it in each measurement."""
    objects: dict[str, tuple[Any, int]] = {
        "int": (12345, 200_000),
        "bytes, 100 B": (b"x" * 100, 200_000),
        "small dict": ({"id": 7, "name": "frame", "ok": True, "score": 0.5}, 100_000),
        "bytes, 1 MB": (b"x" * 1_000_000, 300),
    }
    try:
        import numpy
    except ImportError:
        pass
    else:
        objects["array, 1 MB"] = numpy.arange(125_000, dtype="f8"), 300
    return objects


def _put_all(put: Callable[[Any], None], obj: Any, n: int) -> None:
    for _ in range(n + 1):
        put(obj)


def _flow(context: Any, put: Callable[[Any], None], get: Callable[[], Any], obj: Any, n: int) -> float:
    """Seconds for each message, one after the other without a pause."""
    process = context.Process(target=_put_all, args=(put, obj, n))
    process.start()
    get()
    began = time.perf_counter()
    for _ in range(n):
        get()
    elapsed = time.perf_counter() - began
    process.join()
    return elapsed / n


def _queue(make: Callable[[], Any]) -> Callable[[Any, Any, int], float]:
    def measure(context: Any, obj: Any, n: int) -> float:
        queue = make()
        return _flow(context, queue.put, queue.get, obj, n)

    return measure


def _pipe(make: Callable[..., Any], send: str, receive: str) -> Callable[[Any, Any, int], float]:
    def measure(context: Any, obj: Any, n: int) -> float:
        reader, writer = make(False)
        return _flow(context, getattr(writer, send), getattr(reader, receive), obj, n)

    return measure


def _echo(there: Any, n: int) -> None:
    for _ in range(n):
        there.send(there.recv())


def _round_trip(make: Callable[..., Any]) -> Callable[[Any, Any, int], float]:
    def measure(context: Any, obj: Any, n: int) -> float:
        n = min(n, 20_000)
        here, there = make()
        process = context.Process(target=_echo, args=(there, n + 100))
        process.start()
        for _ in range(100):
            here.send(obj)
            here.recv()
        began = time.perf_counter()
        for _ in range(n):
            here.send(obj)
            here.recv()
        elapsed = time.perf_counter() - began
        process.join()
        return elapsed / n

    return measure


def _first(make: Callable[[], Any]) -> Callable[[Any, Any, int], float]:
    def measure(context: Any, obj: Any, n: int) -> float:
        began = time.perf_counter()
        queue = make()
        queue.put(obj)
        queue.get()
        return time.perf_counter() - began

    return measure


def _time(seconds: float) -> str:
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="how often each is measured (default: 3)")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="X times as many messages")
    parser.add_argument("--start", default="fork", choices=["fork", "spawn", "forkserver"], help="start method")
    parser.add_argument("--only", metavar="TEXT", help="only objects whose name contains this")
    arguments = parser.parse_args()
    context = multiprocessing.get_context(arguments.start)

    ways = {
        "ferry.Queue": _queue(ferry.Queue),
        "mp.Queue": _queue(context.Queue),
        "mp.SimpleQueue": _queue(context.SimpleQueue),
        "mp.Pipe": _pipe(context.Pipe, "send", "recv"),
        "ferry.Pipe": _pipe(ferry.Pipe, "send", "recv"),
        "mp send_bytes": _pipe(context.Pipe, "send_bytes", "recv_bytes"),
        "round trip, ferry.Pipe": _round_trip(ferry.Pipe),
        "round trip, mp.Pipe": _round_trip(context.Pipe),
        "first message, ferry.Queue": _first(ferry.Queue),
        "first message, mp.Queue": _first(context.Queue),
    }
    ferry.Queue().close()  # the registry of plugins is read once
    for label, (obj, n) in _objects().items():
        if arguments.only is not None and arguments.only not in label:
            continue
        n = max(int(n * arguments.scale), 10)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.repeat):
            for name, measure in ways.items():
                if "bytes" not in name or isinstance(obj, (bytes, bytearray)):
                    times[name].append(measure(context, obj, n))
        print(label)
        medians = {name: statistics.median(values) for name, values in times.items() if values}
        for name, median in medians.items():
            base = "ferry.Queue"
            if "," in name:
                base = name.split(",")[0] + (", ferry.Pipe" if "round" in name else ", ferry.Queue")
            print(f"  {name:28} {_time(median):>10}   x{median / medians[base]:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
