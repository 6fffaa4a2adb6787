# SPDX-License-Identifier: LGPL-2.1-or-later
"""ferry.ProcessPoolExecutor: what CPython's own tests do not look at."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import ferry
import numpy
import pytest

METHODS = ["fork", "spawn", "forkserver"]
LIMIT = 60  # seconds: nothing here takes that long


@pytest.fixture(scope="module", params=METHODS)
def executor(request: pytest.FixtureRequest) -> Iterator[ferry.ProcessPoolExecutor]:
    with ferry.ProcessPoolExecutor(2, multiprocessing.get_context(request.param)) as executor:
        yield executor


@pytest.fixture
def two() -> Iterator[ferry.ProcessPoolExecutor]:
    with ferry.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as executor:
        yield executor


def call(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def fail(*args: Any) -> None:
    raise LookupError(*args)


def make_lambda() -> Any:
    return lambda: 1


class Unpicklable:
    def __reduce__(self) -> Any:
        raise pickle.PicklingError("not this one")


class Late:
    """What the codec, which comes first, can't encode, and pickle can."""

    def __init__(self) -> None:
        self.is_ready = False

    def __reduce__(self) -> Any:
        if self.is_ready:
            return str, ("late",)
        self.is_ready = True
        raise RuntimeError("not yet")


class Interrupting(numpy.ndarray):
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise KeyboardInterrupt


def make_bytes(size: int) -> numpy.ndarray:
    return numpy.frombuffer(bytes(size), numpy.uint8)


def make_late() -> Late:
    return Late()


@dataclasses.dataclass
class Frame:
    image: numpy.ndarray
    time: float


def double(frame: Frame) -> dict[str, Any]:
    frame.image *= 2
    return {"frames": [frame], "time": frame.time}


def sleep_and_get_pid(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# ---- what it is ----


def test_it_is_one_of_the_standard_library(executor: ferry.ProcessPoolExecutor) -> None:
    assert isinstance(executor, concurrent.futures.ProcessPoolExecutor)
    assert isinstance(executor, concurrent.futures.Executor)
    assert isinstance(executor.submit(abs, 1), concurrent.futures.Future)


def test_arguments_and_results(executor: ferry.ProcessPoolExecutor) -> None:
    assert executor.submit(call).result(LIMIT) == ((), {})
    assert executor.submit(call, 1, "two", three=[4.0]).result(LIMIT) == ((1, "two"), {"three": [4.0]})
    assert executor.submit(functools.partial(call, 1), 2).result(LIMIT) == ((1, 2), {})
    assert executor.submit(call, fn=1, self=2).result(LIMIT) == ((), {"fn": 1, "self": 2})


def test_arrays_anywhere_are_writable(executor: ferry.ProcessPoolExecutor) -> None:
    frame = Frame(numpy.ones((30, 20)), 1.5)
    result = executor.submit(double, frame).result(LIMIT)
    assert result["time"] == 1.5
    image = result["frames"][0].image
    assert image.flags.writeable and (image == 2).all()
    image[:] = 3
    assert (frame.image == 1).all()  # the worker had its own


def test_map_and_chunks(executor: ferry.ProcessPoolExecutor) -> None:
    expected = [pow(i, 2) for i in range(1000)]
    assert list(executor.map(pow, range(1000), [2] * 1000, timeout=LIMIT)) == expected
    assert list(executor.map(pow, range(1000), [2] * 1000, chunksize=30, timeout=LIMIT)) == expected


def test_more_calls_than_are_handed_out_at_once(executor: ferry.ProcessPoolExecutor) -> None:
    futures = [executor.submit(abs, -i) for i in range(3000)]
    assert [future.result(LIMIT) for future in futures] == list(range(3000))


# ---- errors ----


def test_traceback_of_the_worker(executor: ferry.ProcessPoolExecutor) -> None:
    error = executor.submit(fail, 1, "two").exception(LIMIT)
    assert type(error) is LookupError and error.args == (1, "two")
    assert "raise LookupError(*args)" in str(error.__cause__)


def test_what_cannot_be_pickled_fails_alone(executor: ferry.ProcessPoolExecutor) -> None:
    before = executor.submit(abs, -1)
    with pytest.raises(pickle.PicklingError, match="not this one"):
        executor.submit(call, [Unpicklable()]).result(LIMIT)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        executor.submit(call, lambda: 1).result(LIMIT)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        executor.submit(make_lambda).result(LIMIT)
    assert before.result(LIMIT) == 1
    assert executor.submit(abs, -2).result(LIMIT) == 2


def test_what_only_pickle_can(executor: ferry.ProcessPoolExecutor) -> None:
    assert executor.submit(call, Late(), x=1).result(LIMIT) == (("late",), {"x": 1})
    assert executor.submit(make_late).result(LIMIT) == "late"


def test_bad_arguments() -> None:
    for keywords, error in (
        ({"max_workers": 0}, ValueError),
        ({"max_workers": 1, "initializer": 3}, TypeError),
        ({"max_workers": 1, "max_tasks_per_child": 0}, ValueError),
        ({"max_workers": 1, "max_tasks_per_child": "1"}, TypeError),
        ({"max_workers": 1, "max_tasks_per_child": 1, "mp_context": multiprocessing.get_context("fork")}, ValueError),
    ):
        with pytest.raises(error):
            ferry.ProcessPoolExecutor(**keywords)


def test_more_than_the_memory_of_the_queue(two: ferry.ProcessPoolExecutor) -> None:
    """Results that are kept don't stop the workers: from a part of the memory on they are copied."""
    two._pool.results.close()
    two._pool.results = ferry.Queue(1024, codec="python", max_bytes=32 << 20)
    results = list(two.map(bytearray, [500_000] * 100, timeout=LIMIT))
    arrays = list(two.map(make_bytes, [500_000] * 100, timeout=LIMIT))
    assert all(len(result) == 500_000 for result in (*results, *arrays))


def test_failure_to_start_a_worker(two: ferry.ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_to_start(self: Any) -> None:
        raise BlockingIOError("no more processes")

    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing.context.ForkProcess, "start", fail_to_start)
        with pytest.raises(BlockingIOError):
            two.submit(abs, -1)
    assert two.submit(abs, -1).result(LIMIT) == 1


def test_failure_of_the_manager(two: ferry.ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for ever although the thread that would end it is gone."""
    two.submit(abs, -1).result(LIMIT)
    busy = [two.submit(time.sleep, 0.1) for _ in range(10)]
    monkeypatch.setattr(two._pool, "_take_results", fail)
    for future in busy:
        error = future.exception(LIMIT)
        assert error is None or isinstance(error, BrokenProcessPool)
    assert isinstance(error, BrokenProcessPool) and "LookupError" in str(error.__cause__)


def test_interrupted_submit(two: ferry.ProcessPoolExecutor) -> None:
    two.submit(abs, -1).result(LIMIT)
    with pytest.raises(KeyboardInterrupt):
        two.submit(call, numpy.ones(3).view(Interrupting))
    assert not two._pending_work_items
    assert two.submit(abs, -2).result(LIMIT) == 2


def test_what_failed_keeps_nothing() -> None:
    executor = ferry.ProcessPoolExecutor(1)
    future = executor.submit(call, lambda: 1, numpy.ones(3))
    error = future.exception(LIMIT)
    assert "in _hand_out" in str(error.__cause__)
    reference = weakref.ref(executor._pool)
    executor.shutdown()
    del executor
    assert reference() is None


# ---- futures ----


def test_cancelled_are_not_run(two: ferry.ProcessPoolExecutor, tmp_path: Path) -> None:
    busy = [two.submit(time.sleep, 0.3) for _ in range(2)]
    futures = [two.submit((tmp_path / str(i)).touch) for i in range(20)]
    cancelled = [future.cancel() for future in futures]
    assert sum(cancelled) >= 19  # one more than there are workers is handed out
    for future, was_cancelled in zip(futures, cancelled, strict=True):
        assert future.cancelled() == was_cancelled
        if not was_cancelled:
            future.result(LIMIT)
    concurrent.futures.wait(busy)
    assert two.submit(abs, -1).result(LIMIT) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(i) for i, was in enumerate(cancelled) if not was]


def test_cancelling_after_many_short_calls(two: ferry.ProcessPoolExecutor, tmp_path: Path) -> None:
    """More calls are handed out then; they can be taken back, and go on in order."""
    list(two.map(abs, range(2000)))
    busy = [two.submit(time.sleep, 0.3) for _ in range(2)]
    futures = [two.submit((tmp_path / str(i)).touch) for i in range(200)]
    time.sleep(0.05)
    assert all(future.cancel() for future in futures[::2])
    assert not any(future.cancel() for future in busy)
    concurrent.futures.wait(futures, LIMIT)
    for future in futures[1::2]:
        future.result(LIMIT)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(1, 200, 2))
    list(two.map(abs, range(2000)))
    busy = [two.submit(time.sleep, 0.3) for _ in range(2)]
    futures = [two.submit(abs, i) for i in range(200)]
    time.sleep(0.05)
    two.shutdown(cancel_futures=True)
    assert sum(future.cancelled() for future in futures) >= 199 and not any(future.cancelled() for future in busy)


def test_shutdown_cancels(tmp_path: Path) -> None:
    executor = ferry.ProcessPoolExecutor(1)
    first = executor.submit(time.sleep, 0.2)
    futures = [executor.submit((tmp_path / str(i)).touch) for i in range(10)]
    executor.shutdown(cancel_futures=True)
    assert first.done() and not first.cancelled()
    done = [future for future in futures if not future.cancelled()]
    assert len(done) <= 2 and all(future.done() for future in futures)
    assert len(list(tmp_path.iterdir())) == len(done)


def test_shutdown_without_waiting() -> None:
    executor = ferry.ProcessPoolExecutor(2)
    futures = [executor.submit(sleep_and_get_pid, 0.05) for _ in range(8)]
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)
    assert len({future.result(LIMIT) for future in futures}) <= 2
    executor.shutdown()
    executor.shutdown()


def test_shutdown_before_anything() -> None:
    executor = ferry.ProcessPoolExecutor(2)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)


def test_callbacks_may_submit(two: ferry.ProcessPoolExecutor) -> None:
    later: list[concurrent.futures.Future[int]] = []
    done = threading.Event()

    def go_on(future: concurrent.futures.Future[int]) -> None:
        later.append(two.submit(abs, -future.result() - 1))
        done.set()

    two.submit(abs, -1).add_done_callback(go_on)
    assert done.wait(LIMIT) and later[0].result(LIMIT) == 2
    # Also that of a call that can't be sent, which is done within submit() already.
    done.clear()
    two.submit(call, lambda: 1).add_done_callback(lambda _: go_on(later[0]))
    assert done.wait(LIMIT) and later[1].result(LIMIT) == 3


def test_many_threads(two: ferry.ProcessPoolExecutor) -> None:
    results: dict[int, list[int]] = {}

    def work(start: int) -> None:
        results[start] = list(two.map(abs, range(-start - 300, -start), timeout=LIMIT))

    threads = [threading.Thread(target=work, args=(i * 1000,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert results == {i * 1000: list(range(i * 1000 + 300, i * 1000, -1)) for i in range(4)}


# ---- workers ----


def test_workers_are_started_when_they_are_needed() -> None:
    with ferry.ProcessPoolExecutor(3, multiprocessing.get_context("forkserver")) as executor:
        assert len({executor.submit(os.getpid).result(LIMIT) for _ in range(4)}) == 1
        assert len(executor._processes) == 1


def test_workers_are_replaced() -> None:
    with ferry.ProcessPoolExecutor(2, multiprocessing.get_context("forkserver"), max_tasks_per_child=3) as executor:
        pids = list(executor.map(sleep_and_get_pid, [0.01] * 20))
        assert all(pids.count(pid) <= 3 for pid in pids)
        # What they made goes along, although they end.
        arrays = list(executor.map(numpy.full, [300_000] * 8, range(8)))
        assert [array[-1] for array in arrays] == list(range(8))


def test_failing_initializer(capfd: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("spawn")  # whose standard error is that of this moment
    with ferry.ProcessPoolExecutor(1, context, fail, ("no",)) as executor:
        with pytest.raises(BrokenProcessPool):
            executor.submit(abs, 1).result(LIMIT)
        with pytest.raises(BrokenProcessPool):
            executor.submit(abs, 1)
    assert "LookupError: no" in capfd.readouterr().err


@pytest.mark.parametrize("method", METHODS)
def test_dead_worker_breaks_the_pool(method: str) -> None:
    with ferry.ProcessPoolExecutor(2, multiprocessing.get_context(method)) as executor:
        executor.submit(abs, 1).result(LIMIT)
        futures = [executor.submit(kill_self), *(executor.submit(time.sleep, 1) for _ in range(20))]
        errors = [future.exception(LIMIT) for future in futures]
        assert isinstance(errors[0], BrokenProcessPool) and isinstance(errors[-1], BrokenProcessPool)
        with pytest.raises(BrokenProcessPool):
            executor.submit(abs, 1)
    assert not executor._processes or not any(process.is_alive() for process in executor._processes.values())


def test_idle_worker_that_is_killed_breaks_the_pool(two: ferry.ProcessPoolExecutor) -> None:
    os.kill(two.submit(os.getpid).result(LIMIT), signal.SIGKILL)
    deadline = time.monotonic() + LIMIT
    while not two._broken and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(BrokenProcessPool):
        two.submit(abs, 1)


# ---- life ----


def test_forgotten_executor_ends() -> None:
    executor = ferry.ProcessPoolExecutor(2)
    futures = [executor.submit(abs, -i) for i in range(100)]
    processes = list(executor._processes.values())
    manager = executor._executor_manager_thread
    reference = weakref.ref(executor)
    del executor
    assert reference() is None  # no cycle keeps it
    assert [future.result(LIMIT) for future in futures] == list(range(100))
    manager.join(LIMIT)
    assert not manager.is_alive() and not any(process.is_alive() for process in processes)


def test_in_a_fork_child() -> None:
    with ferry.ProcessPoolExecutor(1) as executor:
        assert executor.submit(abs, -1).result(LIMIT) == 1
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                executor.submit(abs, -1)
            except RuntimeError as error:
                status = 0 if "forked" in str(error) else 2
            executor.shutdown()
            del executor
            gc.collect()
            with ferry.ProcessPoolExecutor(1) as own:
                status += own.submit(abs, -1).result(LIMIT) - 1
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert executor.submit(abs, -2).result(LIMIT) == 2


def run(program: str, *, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == status, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("shutdown", ["", "executor.shutdown(wait=False)", "del executor"])
def test_exit_with_pending_work(shutdown: str) -> None:
    output = run(
        f"""
        import ferry, os, time
        executor = ferry.ProcessPoolExecutor(2)
        def work(i):
            time.sleep(0.02)
            os.write(1, b"%d\\n" % i)
        for i in range(10):
            executor.submit(work, i)
        {shutdown}
        """
    )
    assert sorted(map(int, output.split())) == list(range(10))


@pytest.mark.parametrize("last", ["pass", "futures = [executor.submit(time.sleep, 0.2) for _ in range(300)]"])
def test_workers_end_with_their_program(last: str) -> None:
    """Idle ones, and those for which many calls wait."""
    output = run(
        f"""
        import ferry, os, signal, time
        executor = ferry.ProcessPoolExecutor(2)
        list(executor.map(abs, range(1000)))
        print(*executor._processes, flush=True)
        {last}
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        status=-signal.SIGKILL,
    )
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in output.split()):
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in output.split())
