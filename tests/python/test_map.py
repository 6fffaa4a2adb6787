# SPDX-License-Identifier: LGPL-2.1-or-later
"""`ferry.map` and `ferry.imap`."""

from __future__ import annotations

import collections
import concurrent.futures
import gc
import itertools
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import ferry
import pytest

numpy = pytest.importorskip("numpy")

TIMEOUT = 20  # seconds


def square(number):
    return number * number


def pid_after(seconds):
    time.sleep(seconds)
    return os.getpid()


def fail_at(number, where):
    if number == where:
        raise LookupError(f"no {number}")
    return number


class NotPicklableError(Exception):
    def __init__(self, first, second):
        super().__init__(first)


def raise_what_can_not_be_pickled(number):
    if number == 2:
        raise NotPicklableError(1, 2)
    return number


def kill_at(number, where):
    if number == where:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def write_line(path, number, seconds):
    with open(path, "a", encoding="ascii") as file:
        file.write(f"{number}\n")
    time.sleep(seconds)
    return number


def children():
    return [process.pid for process in multiprocessing.active_children()]


def wait_until(condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.fixture(autouse=True)
def nothing_left():
    """No process, thread or descriptor of a pool outlives its test."""
    yield
    gc.collect()
    assert wait_until(lambda: not children())
    assert wait_until(lambda: threading.active_count() == 1)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("chunksize", [None, 1, 7, 1000])
def test_results_are_those_of_the_built_in_map(workers, chunksize):
    numbers = list(range(100))
    assert ferry.map(square, numbers, workers=workers, chunksize=chunksize) == list(map(square, numbers))
    assert list(ferry.imap(pow, numbers, [2] * 60, workers=workers, chunksize=chunksize)) == list(
        map(pow, numbers, [2] * 60)
    )
    assert ferry.map(square, [], workers=workers, chunksize=chunksize) == []


def test_runs_in_processes_of_that_number():
    pids = set(ferry.map(pid_after, [0.05] * 8, workers=2, chunksize=1))
    assert len(pids) == 2 and os.getpid() not in pids
    assert set(ferry.map(pid_after, [0] * 3, workers=0)) == {os.getpid()}


def test_order_when_the_first_is_the_slowest():
    seconds = [0.3, 0, 0, 0, 0.1, 0]
    delays = list(ferry.imap(wait_and_return, seconds, range(6), workers=2))
    assert delays == list(range(6))


def wait_and_return(seconds, number):
    time.sleep(seconds)
    return number


def test_arrays_arrive_as_they_were_and_writable():
    arrays = [numpy.full((300, 400), i, dtype) for i, dtype in enumerate(("u1", "f4", ">i2", "c16"))]
    for array, (double, name) in zip(arrays, ferry.imap(double_and_name, arrays, workers=2), strict=True):
        assert name == array.dtype.str == double.dtype.str
        assert (double == array * 2).all()
        double[0] = 0


def double_and_name(array):
    double = array.copy()
    double *= 2
    return double, array.dtype.str


@pytest.mark.parametrize("chunksize", [1, 3, 50, None])
def test_lazy_and_bounded(chunksize):
    taken = 0

    def count():
        nonlocal taken
        for number in itertools.count():
            taken = number + 1
            yield number

    results = ferry.imap(square, count(), workers=2, chunksize=chunksize, ahead=10)
    assert taken == 0
    most = 0
    for i in range(300):
        assert next(results) == i * i
        most = max(most, taken - i)
    # What is yielded here counts no more, what came with it in its chunk does.
    assert 2 <= most <= 11
    results.close()
    with pytest.raises(StopIteration):
        next(results)


def test_bounded_without_being_told():
    taken = 0

    def count():
        nonlocal taken
        for taken in itertools.count(1):  # noqa: B007
            yield 0.03

    results = ferry.imap(pid_after, count(), workers=2)
    for _ in range(4):
        next(results)
        assert taken < 40
    results.close()


def test_chunks_grow_with_quick_tasks_only():
    sizes = collections.Counter()

    class Recorder(concurrent.futures.ThreadPoolExecutor):
        def submit(self, fn, function, chunk):
            sizes[len(chunk)] += 1
            return super().submit(fn, function, chunk)

    with Recorder(1) as executor:
        assert sum(ferry.imap(square, range(20_000), executor=executor)) == sum(map(square, range(20_000)))
        assert max(sizes) >= 128 and sum(sizes.values()) < 2000
        sizes.clear()
        assert len(ferry.map(pid_after, [0.03] * 12, executor=executor)) == 12
        assert set(sizes) == {1}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("chunksize", [None, 1, 4, 100])
def test_exception_comes_in_its_place(workers, chunksize):
    results = ferry.imap(fail_at, range(50), [10] * 50, workers=workers, chunksize=chunksize)
    got = []
    with pytest.raises(LookupError, match="no 10") as caught:
        got.extend(results)
    assert got == list(range(10))
    if workers:
        assert "fail_at" in str(caught.value.__cause__)  # the worker's traceback
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("chunksize", [None, 1, 4])
def test_exception_of_an_iterable_comes_in_its_place(workers, chunksize):
    def numbers():
        yield from range(10)
        raise LookupError("no more")

    got = []
    with pytest.raises(LookupError, match="no more"):
        for result in ferry.imap(square, numbers(), workers=workers, chunksize=chunksize):
            got.append(result)
    assert got == [square(i) for i in range(10)]


def test_exception_that_can_not_be_pickled():
    got = []
    with pytest.raises(Exception, match="(?s).*") as caught:  # whatever pickle says
        for result in ferry.imap(raise_what_can_not_be_pickled, range(5), workers=1, chunksize=5):
            got.append(result)
    assert got == [0, 1]
    assert not isinstance(caught.value, NotPicklableError | AssertionError)


def test_exception_cancels_what_is_left(tmp_path):
    path = tmp_path / "lines"
    with pytest.raises(TypeError):
        ferry.map(write_line, [str(path)] * 100, [None, *range(99)], ["x", *[0.02] * 99], workers=2, chunksize=1)
    assert wait_until(lambda: not children())
    assert len(path.read_text().split()) < 20


def test_closing_cancels_what_is_left(tmp_path):
    path = tmp_path / "lines"
    results = ferry.imap(write_line, [str(path)] * 100, range(100), [0.05] * 100, workers=2, chunksize=1)
    assert next(results) == 0
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 5
    assert wait_until(lambda: not children())
    assert len(path.read_text().split()) < 20


def test_dropping_is_closing(tmp_path):
    path = tmp_path / "lines"
    for _ in ferry.imap(write_line, [str(path)] * 100, range(100), [0.05] * 100, workers=2, progress=print):
        break
    gc.collect()
    assert wait_until(lambda: not children())
    assert len(path.read_text().split()) < 20


def test_never_started_is_nothing():
    results = ferry.imap(square, range(10), workers=2)
    assert not children()
    del results


def test_killed_worker():
    got = []
    with pytest.raises(BrokenProcessPool):
        for result in ferry.imap(kill_at, range(100), [30] * 100, workers=2, chunksize=1):
            got.append(result)
    assert got == list(range(len(got))) and len(got) <= 30


def test_executor_of_ones_own_goes_on():
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        assert ferry.map(square, range(10), executor=executor) == [square(i) for i in range(10)]
        with pytest.raises(LookupError, match="no 3") as caught:
            ferry.map(fail_at, range(10), [3] * 10, executor=executor, chunksize=10)
        assert type(caught.value) is LookupError
        assert executor.submit(square, 3).result() == 9


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_start_methods_and_initializer(method):
    context = multiprocessing.get_context(method)
    assert ferry.map(
        get_setting, range(4), workers=2, mp_context=context, initializer=set_setting, initargs=(method,)
    ) == [(method, i) for i in range(4)]
    if method == "forkserver":
        from multiprocessing import forkserver

        forkserver._forkserver._stop()


_setting = None


def set_setting(value):
    global _setting
    _setting = value


def get_setting(number):
    return _setting, number


def test_initializer_without_processes():
    assert ferry.map(get_setting, [1], workers=0, initializer=set_setting, initargs=("here",)) == [("here", 1)]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"workers": -1}, ValueError, "workers must be at least 0, not -1"),
        ({"chunksize": 0}, ValueError, "chunksize must be at least 1, not 0"),
        ({"ahead": 0}, ValueError, "ahead must be at least 1, not 0"),
        ({"workers": 1.5}, TypeError, "float"),
        ({"executor": concurrent.futures.ThreadPoolExecutor(), "initializer": print}, ValueError, "the executor's"),
        ({"executor": concurrent.futures.ThreadPoolExecutor(), "workers": 0}, ValueError, "does not go with"),
    ],
)
def test_wrong_arguments_raise_at_once(arguments, error, match):
    with pytest.raises(error, match=match):
        ferry.imap(square, [1], **arguments)


def test_what_is_no_function_and_no_iterable():
    with pytest.raises(TypeError, match="function must be callable, not int"):
        ferry.imap(3, [1])
    with pytest.raises(TypeError, match="at least one iterable"):
        ferry.imap(square)
    with pytest.raises(TypeError, match="not iterable|iteration"):
        ferry.imap(square, 3)


# ---- progress ----


@pytest.mark.parametrize(
    ("iterables", "total"),
    [
        (([1, 2, 3],), 3),
        (([1, 2, 3], range(2)), 2),
        ((itertools.count(), [1, 2]), 2),
        ((itertools.repeat(1), itertools.cycle([1]), "ab"), 2),
        ((itertools.repeat(1, 2), [1, 2, 3]), 2),
        (((x for x in [1, 2]), [1, 2, 3]), None),
    ],
)
def test_progress_by_a_callable(iterables, total):
    calls = []
    for n_seen, _ in enumerate(ferry.imap(max_of, *iterables, workers=0, progress=lambda *a: calls.append(a)), 1):
        assert len(calls) == n_seen + 1
    assert calls == [(i, total) for i in range(len(calls))] and len(calls) >= 3


def max_of(*arguments):
    return max(str(argument) for argument in arguments)


def run_program(program, **modules):
    """Run a program in which modules can't be imported; return what it wrote to standard error."""
    hidden = "".join(f"import sys; sys.modules[{name!r}] = None\n" for name in modules if not modules[name])
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "FORCE_COLOR": "1"}
    result = subprocess.run(
        [sys.executable, "-c", hidden + program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment,
    )
    assert result.stdout == "[0.0, 1.0, 2.0]\n"
    return result.stderr


PROGRAM = "import ferry, math\nprint(ferry.map(math.fabs, range(3), workers=1, progress={!r}))"


def test_progress_by_tqdm():
    pytest.importorskip("tqdm")
    shown = run_program(PROGRAM.format("counting"))
    assert "counting: 100%" in shown and "3/3" in shown
    assert "3/3" in run_program(PROGRAM.format(True))


def test_progress_by_rich_without_tqdm():
    pytest.importorskip("rich")
    shown = run_program(PROGRAM.format("counting"), tqdm=False)
    assert "counting" in shown and "100%" in shown


def test_progress_without_either():
    assert run_program(PROGRAM.format("counting"), tqdm=False, rich=False) == ""


def test_no_progress_imports_nothing():
    program = (
        "import ferry, sys\nferry.map(abs, [1], workers=1)\nassert 'tqdm' not in sys.modules\nprint([0.0, 1.0, 2.0])"
    )
    assert run_program(program) == ""


def test_signature_in_the_package():
    assert "map" in ferry.__all__ and "imap" in ferry.__all__
    assert ferry.map is not map
    assert ferry.map(math.sqrt, [4.0], workers=0) == [2.0]
    assert Path(ferry.mapping.__file__).name == "mapping.py"
