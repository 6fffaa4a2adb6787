# SPDX-License-Identifier: LGPL-2.1-or-later
"""Arrays that stay in shared memory between a program and the workers of an executor."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ferry
import numpy
import pytest
from ferry import _native, shared

PR_SET_DUMPABLE = 4
LIMIT = 60  # seconds: nothing here takes that long
LARGE = shared.LARGE // 8 + 1000  # float64, and so placed in shared memory of its own


@pytest.fixture(scope="module", params=["fork", "spawn"])
def executor(request: pytest.FixtureRequest) -> Iterator[ferry.ProcessPoolExecutor]:
    with ferry.ProcessPoolExecutor(1, multiprocessing.get_context(request.param)) as executor:
        executor.submit(abs, 1).result(LIMIT)
        yield executor


def describe(array: numpy.ndarray) -> Any:
    return _native.shared_find(array)


def get_kind(array: numpy.ndarray) -> str | None:
    found = _native.shared_find(array)
    return found and found[0]


def add_one(array: numpy.ndarray) -> numpy.ndarray:
    return array + 1


def increment(array: numpy.ndarray) -> None:
    array += 1


def increment_and_return(array: numpy.ndarray) -> numpy.ndarray:
    array += 1
    return array


def change_and_return_views(array: numpy.ndarray) -> Any:
    array[-1] = -5
    return array[:1000], array[-1000:]


def same(*arrays: Any) -> Any:
    return arrays if len(arrays) > 1 else arrays[0]


def view(array: numpy.ndarray) -> Any:
    return {"transposed": array.T, "reversed": array[::-1, ::3], "row": array[2]}


_kept: list[numpy.ndarray] = []


def keep(value: float) -> numpy.ndarray:
    if not _kept:
        _kept.append(numpy.zeros(400_000))
    _kept[0] += value
    return _kept[0]


def keep_argument(array: numpy.ndarray) -> int:
    _kept.append(array)
    return len(_kept)


def read_kept(index: int) -> float:
    return float(_kept[index][0])


def drop_kept() -> None:
    _kept.clear()


def make(shape: Any, dtype: Any = float) -> numpy.ndarray:
    return numpy.ones(shape, dtype)


def make_shared(n: int) -> numpy.ndarray:
    return ferry.share(numpy.arange(n))


def sleep_and_sum(array: numpy.ndarray) -> float:
    time.sleep(0.02)
    return float(array.sum())


def statistics() -> dict[str, int]:
    return _native.shared_statistics()


def fork_and_write(n: int) -> float:
    array = numpy.ones(n)
    pid = os.fork()
    if pid == 0:
        array[:] = 7
        os._exit(0 if (array == 7).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return float(array.sum())


# ---- share() and shared_array() ----


@pytest.mark.parametrize("dtype", ["f8", "i1", "c16", "M8[us]", "?", "S5", "f4,(2,3)i2", ">u4"])
def test_share_any_type(executor: ferry.ProcessPoolExecutor, dtype: str) -> None:
    source = numpy.zeros((3, 4), dtype)
    source.view("u1")[:] = numpy.arange(source.nbytes, dtype="u1").reshape(3, -1) % (2 if dtype == "?" else 200)
    array = ferry.share(source)
    assert array.dtype == source.dtype and array.tobytes() == source.tobytes()
    assert executor.submit(get_kind, array).result(LIMIT) == "foreign"
    result = executor.submit(same, array).result(LIMIT)
    assert result.dtype == source.dtype and result.tobytes() == source.tobytes()
    assert numpy.shares_memory(result, array)


def test_shared_array(executor: ferry.ProcessPoolExecutor) -> None:
    for shape, order in (((), "C"), (5, "C"), ((3, 0), "C"), ((4, 5), "F"), ([2, 3, 4], "C"), (numpy.int64(7), "C")):
        array = ferry.shared_array(shape, "i4", order)
        assert array.shape == numpy.empty(shape).shape and array.dtype == "i4" and not array.any()
        assert array.flags.f_contiguous or order == "C"
        if array.size:
            executor.submit(increment, array).result(LIMIT)
            assert (array == 1).all()
    # Memory that is used again is empty as well.
    numpy.copyto(ferry.shared_array(100_000), 3)
    assert not ferry.shared_array(100_000).any()


def test_wrong_shared_arrays() -> None:
    with pytest.raises(TypeError, match="contains objects"):
        ferry.shared_array(3, object)
    with pytest.raises(TypeError, match="contains objects"):
        ferry.share(numpy.array([None]))
    with pytest.raises(ValueError, match="negative"):
        ferry.shared_array((2, -1))
    with pytest.raises(MemoryError, match="bytes of shared memory"):
        ferry.shared_array(1 << 60)


def test_what_is_shared_is_not_copied_again() -> None:
    array = ferry.share([1, 2, 3])
    assert ferry.share(array) is array and shared.is_shared(array) and shared.is_shared(array[1:])
    assert not shared.is_shared(array + 1)
    fortran = ferry.share(numpy.asfortranarray(numpy.ones((3, 4))))
    assert fortran.flags.f_contiguous


def test_writes_are_seen_on_both_sides(executor: ferry.ProcessPoolExecutor) -> None:
    array = ferry.share(numpy.zeros((10, 12)))
    executor.submit(increment, array[2:4, ::3]).result(LIMIT)
    assert array.sum() == 8 and (array[2:4, ::3] == 1).all()
    executor.submit(increment, {"in": array}["in"].T[::-1]).result(LIMIT)
    assert array.sum() == 128
    views = executor.submit(view, array).result(LIMIT)
    views["transposed"][0, 0] = 50
    views["reversed"][0, 0] = 60
    views["row"][1] = 70
    assert (array[0, 0], array[-1, 0], array[2, 1]) == (50, 60, 70)


def test_read_only_stays_so(executor: ferry.ProcessPoolExecutor) -> None:
    array = ferry.share(numpy.ones(10))
    array.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        executor.submit(increment, array).result(LIMIT)


def test_the_same_array_twice_is_one(executor: ferry.ProcessPoolExecutor) -> None:
    array = ferry.share(numpy.ones(10))
    one, other = executor.submit(same, array, array).result(LIMIT)
    assert one is other
    large = numpy.ones(LARGE)
    one, other = executor.submit(same, large, large).result(LIMIT)
    one[0] = 5
    assert other[0] == 5 and large[0] == 1


def test_sharing_from_a_worker(executor: ferry.ProcessPoolExecutor) -> None:
    array = executor.submit(make_shared, 1000).result(LIMIT)
    assert shared.is_shared(array) and array[-1] == 999
    executor.submit(increment, array).result(LIMIT)
    assert array[-1] == 1000


def test_elsewhere_it_is_an_ordinary_array() -> None:
    array = ferry.share(numpy.arange(5))
    queue = ferry.Queue()
    queue.put({"array": array})
    copy = queue.get()["array"]
    copy[0] = 9
    assert array[0] == 0 and pickle.loads(pickle.dumps(array)).tolist() == array.tolist()


def test_the_memory_outlives_who_made_it() -> None:
    with ferry.ProcessPoolExecutor(1) as executor:
        array = executor.submit(make_shared, 100_000).result(LIMIT)
        result = executor.submit(make, 1_000_000).result(LIMIT)
    assert array.sum() == sum(range(100_000)) and result.sum() == 1_000_000
    with ferry.ProcessPoolExecutor(1) as executor:
        executor.submit(increment, array).result(LIMIT)
    assert array[0] == 1


def test_views_that_a_worker_keeps(executor: ferry.ProcessPoolExecutor) -> None:
    executor.submit(drop_kept).result(LIMIT)
    array = ferry.share(numpy.full(50_000, 3.0))
    assert executor.submit(keep_argument, array).result(LIMIT) == 1
    del array
    others = [ferry.share(numpy.full(50_000, 4.0)) for _ in range(3)]  # do not get that memory
    assert executor.submit(read_kept, 0).result(LIMIT) == 3
    executor.submit(drop_kept).result(LIMIT)
    assert all(other[0] == 4 for other in others)


def test_fork_child_has_shared_arrays_too() -> None:
    array = ferry.shared_array(1000)
    pid = os.fork()
    if pid == 0:
        array[:] = 5
        os._exit(0)
    os.waitpid(pid, 0)
    assert (array == 5).all()


# ---- ordinary arguments ----


def test_a_large_argument_is_placed_once(executor: ferry.ProcessPoolExecutor) -> None:
    array = numpy.arange(float(LARGE))
    addresses = [executor.submit(describe, array).result(LIMIT) for _ in range(3)]
    n_bytes = _native.shared_statistics()["bytes_used"]
    futures = [executor.submit(numpy.sum, array) for _ in range(20)]
    assert {future.result(LIMIT) for future in futures} == {array.sum()}
    assert _native.shared_statistics()["bytes_used"] == n_bytes
    assert all(kind == "private" for kind, *_ in addresses)
    assert len({address[3] for _, _, address, _ in addresses}) == 1  # the inode


def test_workers_do_not_see_each_others_writes(executor: ferry.ProcessPoolExecutor) -> None:
    array = numpy.ones(LARGE)
    for _ in range(3):
        result = executor.submit(increment_and_return, array).result(LIMIT)
        assert (result == 2).all() and (array == 1).all()
        result[:] = 9


def test_changes_between_calls_are_seen(executor: ferry.ProcessPoolExecutor) -> None:
    array = numpy.ones(LARGE)
    for i in range(4):
        array[i * 1000] = 10 + i
        assert executor.submit(numpy.sum, array).result(LIMIT) == array.sum()
    # Those that wait share what was there after the last of them was submitted.
    futures = [executor.submit(sleep_and_sum, array) for _ in range(10)]
    array[0] += 1
    later = executor.submit(sleep_and_sum, array)
    assert {future.result(LIMIT) for future in futures} <= {array.sum() - 1, array.sum()}
    assert later.result(LIMIT) == array.sum()
    # The calls that are handed out have what was there at that time.
    futures = []
    for i in range(3):
        array[:] = i
        futures.append(executor.submit(numpy.max, array))
    assert futures[0].result(LIMIT) == 0 and futures[2].result(LIMIT) == 2


@pytest.mark.parametrize("order", ["C", "F"])
def test_order_and_type_of_large_arguments(executor: ferry.ProcessPoolExecutor, order: Any) -> None:
    array = numpy.asarray(numpy.arange(LARGE * 2).view("M8[s]").reshape(2, LARGE), order=order)
    for _ in range(2):
        result = executor.submit(same, array).result(LIMIT)
        assert (result == array).all() and result.flags.f_contiguous == (order == "F") and result.dtype == array.dtype
    part = numpy.arange(float(LARGE * 2))[::2]
    assert (executor.submit(same, part).result(LIMIT) == part).all()


def test_an_unchanged_argument_does_not_travel_back(executor: ferry.ProcessPoolExecutor) -> None:
    array = numpy.arange(float(LARGE))
    whole, part = executor.submit(same, array, array[10:-10]).result(LIMIT)
    assert (whole == array).all() and (part == array[10:-10]).all()
    assert get_kind(whole) == "private"
    whole[0] = -1  # it is the caller's own all the same
    assert array[0] == 0 and part[0] == 10
    assert executor.submit(same, array).result(LIMIT)[0] == 0
    first, last = executor.submit(change_and_return_views, array).result(LIMIT)
    assert (first == array[:1000]).all() and last[-1] == -5 and (last[:-1] == array[-1000:-1]).all()


def test_copies_go_with_their_array() -> None:
    with ferry.ProcessPoolExecutor(1) as executor:
        array = numpy.ones(LARGE)
        before = _native.shared_statistics()["bytes_used"]
        executor.submit(numpy.sum, array).result(LIMIT)
        assert _native.shared_statistics()["bytes_used"] > before
        del array
        gc.collect()
        assert _native.shared_statistics()["bytes_used"] == before


# ---- results ----


def test_large_results_are_not_copied(executor: ferry.ProcessPoolExecutor) -> None:
    array = numpy.ones(300_000)
    result = executor.submit(add_one, array).result(LIMIT)
    assert get_kind(result) == "foreign" and result.flags.writeable and (result == 2).all()
    nested = executor.submit(same, {"a": array}, [array]).result(LIMIT)
    assert (nested[0]["a"] == 1).all() and nested[1][0] is nested[0]["a"]
    inodes = []
    for _ in range(5):
        result = executor.submit(make, 400_000).result(LIMIT)
        inodes.append(describe(result)[2][3])
        assert result.sum() == 400_000
        del result
    assert len(set(inodes)) < 5  # memory that is given back is used again


def test_results_stay_as_they_were(executor: ferry.ProcessPoolExecutor) -> None:
    executor.submit(drop_kept).result(LIMIT)
    results = [executor.submit(keep, i).result(LIMIT) for i in (1, 2, 3)]
    assert [result[0] for result in results] == [1, 3, 6]
    results[2][:] = 100
    assert executor.submit(keep, 4).result(LIMIT)[0] == 10
    many = [executor.submit(make, (50, 4000), "i8").result(LIMIT) for _ in range(100)]
    for i, result in enumerate(many):
        result[:] = i
    assert [result.mean() for result in many] == list(range(100))


def test_results_as_arguments(executor: ferry.ProcessPoolExecutor) -> None:
    result = executor.submit(make, LARGE).result(LIMIT)
    assert executor.submit(increment_and_return, result).result(LIMIT)[0] == 2
    assert result[0] == 1


def test_arrays_of_a_fork_in_a_worker(executor: ferry.ProcessPoolExecutor) -> None:
    assert executor.submit(fork_and_write, 500_000).result(LIMIT) == 500_000


def test_arrays_that_are_freed_around_a_fork() -> None:
    """Functions that were registered before ours are called while we are prepared for it."""
    program = """
    import os
    kept = {}
    os.register_at_fork(
        before=lambda: kept.pop("before"),
        after_in_child=lambda: kept.pop("child"),
        after_in_parent=lambda: kept.pop("parent"),
    )
    import ferry
    for name in ("before", "child", "parent"):
        kept[name] = ferry.share([1])
    last = ferry.share([5])
    pid = os.fork()
    new = ferry.share([6])
    assert last[0] == 5 and new[0] == 6
    if pid == 0:
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3 and last[0] == 5 and not list(kept)[1:]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=LIMIT, check=True)


def test_fork_with_results() -> None:
    with ferry.ProcessPoolExecutor(1) as executor:
        result = executor.submit(make, 500_000).result(LIMIT)
        pid = os.fork()
        if pid == 0:
            result[:] = 7
            del result
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert (result == 1).all()


def test_workers_hold_no_more_than_they_need() -> None:
    with ferry.ProcessPoolExecutor(1) as executor:
        for _ in range(20):
            executor.submit(add_one, executor.submit(make, LARGE).result(LIMIT)).result(LIMIT)
        state = executor.submit(statistics).result(LIMIT)
    assert state["bytes_used"] == 0 and state["own"] <= 8 and state["private"] <= 4


def set_dumpable(value: int) -> int:
    return ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, value)


def test_processes_that_cannot_be_looked_into() -> None:
    """Their arrays are copied."""
    with ferry.ProcessPoolExecutor(1) as executor:
        array = numpy.ones(LARGE)
        executor.submit(set_dumpable, 0).result(LIMIT)
        assert set_dumpable(0) == 0
        try:
            assert executor.submit(get_kind, array).result(LIMIT) is None
            result = executor.submit(add_one, array).result(LIMIT)
        finally:
            set_dumpable(1)
        assert get_kind(result) is None and (result == 2).all()


def test_gone_memory_says_so() -> None:
    array = ferry.share([1])
    address = describe(array)[2]
    del array
    _native.shared_trim()
    with pytest.raises(RuntimeError, match=f"process {os.getpid()}, which has it, is gone, or has given it up"):
        _native.shared_attach(address, False, False, False)


def get_mapped() -> set[str]:
    """The inodes of the blocks that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if "memfd:ferry-array" in line}


def count_descriptors() -> int:
    n = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            n += "ferry" in os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            pass  # that of the folder itself
    return n


def test_nothing_is_left() -> None:
    before = get_mapped()  # other executors live
    n_fds = count_descriptors()
    with ferry.ProcessPoolExecutor(1) as executor:
        kept = [ferry.share(numpy.ones(10)), executor.submit(make, LARGE).result(LIMIT), numpy.ones(LARGE)]
        executor.submit(same, *kept).result(LIMIT)
    kept.clear()
    gc.collect()
    _native.shared_trim()
    assert get_mapped() <= before
    assert count_descriptors() <= n_fds
