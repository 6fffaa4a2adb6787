# SPDX-License-Identifier: LGPL-2.1-or-later
"""Workers of an executor that are killed: what becomes of the calls, and what is left.

No other executor is alive in this process.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import re
import signal
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import ferry
import numpy
import pytest
from ferry import _native

LIMIT = 60  # seconds: nothing here takes that long


def get_names(pids: set[int]) -> list[str]:
    """Names in shared memory, or where programs meet, that one of the processes could have made."""
    folders = [Path("/dev/shm"), Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent"), "ferry")]
    names = [path.name for folder in folders if folder.is_dir() for path in folder.rglob("*")]
    return [name for name in names if any(str(pid) in re.findall("[0-9]+", name) for pid in pids)]


def add_one(array: numpy.ndarray) -> numpy.ndarray:
    return array + 1


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_killing_workers_at_random(method: str) -> None:
    """Each of 1000 calls ends with its result or BrokenProcessPool, and nothing is left."""
    random.seed(method)
    pids = {os.getpid()}
    n_fds = len(os.listdir("/proc/self/fd"))
    large = numpy.zeros(700_000)
    shared = ferry.share(large)
    n_submitted = n_right = n_broken = n_kills = 0
    while n_submitted < 1000:
        executor = ferry.ProcessPoolExecutor(2, multiprocessing.get_context(method))
        futures = []
        try:
            for _ in range(min(100, 1000 - n_submitted)):
                futures.append(executor.submit(add_one, random.choice((large, shared, shared[:200_000], large[:10]))))
                n_submitted += 1
                if random.random() < 0.05:
                    futures[-1].exception(LIMIT)
                if random.random() < 0.02:
                    os.kill(random.choice(list(executor._processes)), signal.SIGKILL)
                    n_kills += 1
        except (BrokenProcessPool, ProcessLookupError):
            pass  # from submit(), or the pool has just noticed
        pids.update(executor._processes)
        for future in futures:
            try:
                result = future.result(LIMIT)
            except BrokenProcessPool:
                n_broken += 1
            else:
                assert (result == 1).all()
                n_right += 1
                del result
        processes = list(executor._processes.values())
        executor.shutdown()
        assert not any(process.is_alive() for process in processes)
    assert n_right + n_broken == 1000 and n_kills > 3 and n_right > 0 and n_broken > 0
    del future, futures, executor, processes, shared, large
    gc.collect()
    assert _native.shared_statistics()["bytes_used"] == 0
    _native.shared_trim()  # what is kept warm for the next array
    assert _native.shared_statistics() == dict.fromkeys(_native.shared_statistics(), 0)
    assert "memfd:ferry" not in Path("/proc/self/maps").read_text()
    assert get_names(pids) == []
    assert len(os.listdir("/proc/self/fd")) <= n_fds + 4  # of the fork server, and of the tracker that it starts
