#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dask with ``ferry://`` beside Dask with ``tcp://``.

    ./run exec python3 benchmarks/python/dask_cluster.py [--size MB] [--rounds N] [--json FILE]

Two clusters of two worker processes each, one for each way, in turns: each round does every
operation once with the one and then with the other. Shown are medians and their ratio. What is
moved is random, so that Dask's compression, which samples the data, leaves it alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dask.array
import numpy
from distributed import Client, LocalCluster, wait

WAYS = ("tcp", "ferry")


def checksum(array: numpy.ndarray) -> int:
    """Look at each page."""
    return int(array.reshape(-1).view("u1")[::4096].sum())


class Cluster:
    """A cluster, and what is measured with it."""

    def __init__(self, client: Client, megabytes: int) -> None:
        self.client = client
        self.first, self.second = sorted(client.scheduler_info()["workers"])
        self.array = numpy.random.default_rng(1).integers(0, 256, megabytes * 1_000_000, dtype="u1")
        self.parts = [numpy.random.default_rng(i).integers(0, 256, 1_000_000, dtype="u1") for i in range(megabytes)]
        self.expected = checksum(self.array)
        side = int((megabytes * 1_000_000 / 8) ** 0.5) // 8 * 8
        self.matrix = dask.array.random.random((side, side), chunks=(side // 8, side)).persist(scheduler=client)
        wait(self.matrix)

    @contextmanager
    def scattered(self) -> Iterator[Any]:
        """Yield a future whose array is on the first worker."""
        future = self.client.scatter(self.array, direct=True, workers=[self.first], hash=False)
        try:
            yield future
        finally:
            future.release()

    def scatter(self) -> float:
        """One array from the client to a worker."""
        began = time.perf_counter()
        with self.scattered():
            return time.perf_counter() - began

    def scatter_parts(self) -> float:
        """As many bytes, in arrays of 1 MB."""
        began = time.perf_counter()
        futures = self.client.scatter(self.parts, direct=True, workers=[self.first], hash=False)
        took = time.perf_counter() - began
        del futures
        return took

    def move(self) -> float:
        """One array from a worker to the other one, where a task looks at it."""
        with self.scattered() as future:
            began = time.perf_counter()
            result = self.client.submit(checksum, future, workers=[self.second], pure=False).result()
            took = time.perf_counter() - began
        assert result == self.expected
        return took

    def gather(self, direct: bool) -> float:
        """One array from a worker to the client."""
        with self.scattered() as future:
            began = time.perf_counter()
            got = self.client.gather(future, direct=direct)
            took = time.perf_counter() - began
        assert checksum(got) == self.expected
        return took

    def shuffle(self) -> float:
        """A matrix in rows becomes one in columns: each worker sends half of its part to the other one."""
        side = self.matrix.shape[0]
        began = time.perf_counter()
        columns = self.matrix.rechunk((side, side // 8)).persist(scheduler=self.client)
        wait(columns)
        return time.perf_counter() - began


OPERATIONS: dict[str, Callable[[Cluster], float]] = {
    "scatter": Cluster.scatter,
    "scatter, parts of 1 MB": Cluster.scatter_parts,
    "worker to worker": Cluster.move,
    "gather": lambda cluster: cluster.gather(True),
    "gather through the scheduler": lambda cluster: cluster.gather(False),
    "rows to columns": Cluster.shuffle,
}


def measure(megabytes: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the median of each operation and way, in seconds."""
    took: dict[str, dict[str, list[float]]] = {name: {way: [] for way in WAYS} for name in OPERATIONS}
    with ExitStack() as stack:
        clusters = {}
        for way in WAYS:
            cluster = stack.enter_context(
                LocalCluster(n_workers=2, threads_per_worker=1, protocol=way, dashboard_address=":0")
            )
            clusters[way] = Cluster(stack.enter_context(Client(cluster)), megabytes)
        for i in range(rounds + 1):
            for name, operation in OPERATIONS.items():
                for way in WAYS if i % 2 else WAYS[::-1]:
                    seconds = operation(clusters[way])
                    if i > 0:  # the first one opens connections
                        took[name][way].append(seconds)
                    time.sleep(0.02)  # what was released goes on its way
    return {name: {way: statistics.median(seconds) for way, seconds in ways.items()} for name, ways in took.items()}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Dask with ferry:// beside Dask with tcp://")
    parser.add_argument("--size", type=int, default=100, metavar="MB", help="of the arrays (default: 100)")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="how often each is measured (default: 9)")
    parser.add_argument("--json", metavar="FILE", help="write the figures, in seconds, to a file")
    arguments = parser.parse_args()
    if arguments.size < 1 or arguments.rounds < 1:
        parser.error("--size and --rounds are at least 1")
    results = measure(arguments.size, arguments.rounds)
    print(f"{arguments.size} MB, median of {arguments.rounds} rounds\n")
    print(f"{'':30} {'tcp://':>10} {'ferry://':>10} {'ratio':>8}")
    for name, ways in results.items():
        tcp, ferry = (ways[way] for way in WAYS)
        print(f"{name:30} {1e3 * tcp:7.1f} ms {1e3 * ferry:7.1f} ms {tcp / ferry:7.2f}x")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
