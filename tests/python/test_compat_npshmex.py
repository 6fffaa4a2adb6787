# SPDX-License-Identifier: LGPL-2.1-or-later
"""`ferry.compat.npshmex`: what npshmex documents, and what it gets wrong."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures._base
import gc
import multiprocessing
import os
import pickle
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy
import pytest
from ferry import _native
from ferry.compat import npshmex
from ferry.compat.npshmex import (
    ProcessPoolExecutor,
    is_shmable,
    is_shmkey,
    register_array_wrapper,
    shm_clear,
    shm_del,
    shm_pop,
    shm_put,
    unshm,
)

LIMIT = 60  # seconds: nothing here takes that long
LOOKS_LIKE_A_KEY = "shm://npshmex_data_ABCDEFGHIJKLMNOP_TEMP"


@pytest.fixture(scope="module", params=["fork", "spawn"])
def executor(request: pytest.FixtureRequest) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, multiprocessing.get_context(request.param)) as executor:
        yield executor


def same(x: Any) -> Any:
    return x


def square(x: numpy.ndarray) -> numpy.ndarray:
    return x**2


def square_member(given: dict[str, Any]) -> dict[str, Any]:
    return {"x": given["x"] ** 2, "y": given["y"]}


def increment(x: numpy.ndarray, **more: numpy.ndarray) -> None:
    for array in (x, *more.values()):
        array += 1


def put_here(n: int) -> Any:
    return {"array": shm_put(numpy.arange(n)), "list": [shm_put(numpy.ones(n), temp=True)]}


def pop_there(key: str) -> tuple[bool, float]:
    array = shm_pop(key)
    array += 1
    return is_shmkey(key), float(array.sum())


def sleep_and_kill_self(x: Any) -> None:
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


class Wrapper:
    def __init__(self, number: int, data: numpy.ndarray) -> None:
        self.number = number
        self.data = data


def square_wrapper(wrapper: Wrapper) -> Wrapper:
    wrapper.data = wrapper.data**2
    return wrapper


# ---- what it documents ----


def test_arrays_in_and_out(executor: ProcessPoolExecutor) -> None:
    assert executor.submit(square, numpy.arange(10)).result(LIMIT).sum() == 285
    result = executor.submit(square_member, {"x": numpy.arange(10), "y": "something"}).result(LIMIT)
    assert result["x"].sum() == 285 and result["y"] == "something"
    for shm_input, shm_output in ((True, False), (False, True), (False, False)):
        future = executor.submit(square, numpy.arange(10), shm_input=shm_input, shm_output=shm_output)
        assert future.result(LIMIT).sum() == 285


def test_keys(executor: ProcessPoolExecutor) -> None:
    source = numpy.arange(10)
    key = shm_put(source)
    assert isinstance(key, str) and key.startswith("shm://npshmex") and is_shmkey(key)
    assert executor.submit(square, key).result(LIMIT).sum() == 285
    executor.submit(increment, key, more=key).result(LIMIT)
    assert shm_pop(key).sum() == 65 and source.sum() == 45  # the same array in place, a copy of the source
    array = shm_pop(key, keep=False)
    assert array.sum() == 65
    with pytest.raises(FileNotFoundError, match="deleted, or popped"):
        shm_pop(key)
    with pytest.raises(FileNotFoundError, match="under the key 'shm://"):
        shm_del(key)


def test_temporary_keys(executor: ProcessPoolExecutor) -> None:
    key = shm_put(numpy.arange(10), temp=True)
    assert key.endswith("_TEMP") and shm_pop(key, keep=True).sum() == 45
    assert executor.submit(square, x=key).result(LIMIT).sum() == 285
    with pytest.raises(FileNotFoundError):
        executor.submit(square, key)
    key = shm_put(numpy.arange(10))
    shm_del(key)
    with pytest.raises(FileNotFoundError):
        shm_pop(str(key))


def test_wrappers(executor: ProcessPoolExecutor) -> None:
    assert not is_shmable(Wrapper(1, numpy.arange(2))) and is_shmable(numpy.arange(2)) and not is_shmable([1])
    with pytest.raises(ValueError, match="Wrapper"):
        shm_put(Wrapper(1, numpy.arange(2)))
    register_array_wrapper(Wrapper, "data")
    try:
        wrapper = Wrapper(42, numpy.arange(10))
        result = executor.submit(square_wrapper, wrapper).result(LIMIT)
        assert result.number == 42 and result.data.sum() == 285
        assert is_shmable(wrapper)
        key = shm_put(wrapper)
        assert type(wrapper.data) is numpy.ndarray  # not a key, as it would be there
        result = executor.submit(square_wrapper, key).result(LIMIT)
        assert result.data.sum() == 285 and shm_pop(key, keep=False).data.sum() == 45
    finally:
        npshmex._wrappers.clear()


def test_unshm() -> None:
    key = shm_put(numpy.arange(3))
    assert unshm(key).sum() == 3 and unshm({"a": key})["a"].sum() == 3 and unshm([(key,)])[0][0].sum() == 3
    untouched = {"a": [1, (2,)]}
    assert unshm(untouched) == untouched
    shm_clear()
    assert unshm(key, keep=False).sum() == 3
    key = shm_put(numpy.arange(3))
    shm_clear(alive=True)
    with pytest.raises(FileNotFoundError):
        unshm(key)


# ---- what it gets wrong ----


@pytest.mark.parametrize(
    "array",
    [
        numpy.ma.masked_array([1.0, 2.0, 3.0], [False, True, False]),
        numpy.zeros(3, numpy.dtype([("a", "i1"), ("b", "f8")], align=True)),
        numpy.zeros(3, numpy.dtype([(("title", "a"), "i4"), ("b", "f8")])),
        numpy.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        numpy.array(5.0),
        numpy.array([None, "x", [1]], object),
        numpy.asfortranarray(numpy.arange(6).reshape(2, 3)),
        numpy.empty((0, 3)),
    ],
    ids=["masked", "aligned", "titles", "subclass", "0-d", "objects", "fortran", "empty"],
)
@pytest.mark.parametrize("by_key", [False, True])
def test_every_kind_of_array(executor: ProcessPoolExecutor, array: numpy.ndarray, by_key: bool) -> None:
    result = executor.submit(same, shm_put(array, temp=True) if by_key else array).result(LIMIT)
    assert type(result) is type(array) and result.dtype == array.dtype and result.shape == array.shape
    assert result.dtype.isalignedstruct == array.dtype.isalignedstruct
    assert result.tolist() == array.tolist()
    if isinstance(array, numpy.ma.MaskedArray):
        assert result.mask.tolist() == array.mask.tolist()


def test_nested_containers_and_map(executor: ProcessPoolExecutor) -> None:
    array = numpy.arange(3)
    key = shm_put(array)
    result = executor.submit(same, [{"a": (array, [key])}, key]).result(LIMIT)
    assert result[0]["a"][0].sum() == result[0]["a"][1][0].sum() == result[1].sum() == 3
    assert [r.sum() for r in executor.map(square, [array, key, array], chunksize=2, timeout=LIMIT)] == [5, 5, 5]
    shm_del(key)


def test_strings_that_look_like_keys(executor: ProcessPoolExecutor) -> None:
    assert executor.submit(same, LOOKS_LIKE_A_KEY).result(LIMIT) == LOOKS_LIKE_A_KEY
    assert executor.submit(same, {"a": LOOKS_LIKE_A_KEY}).result(LIMIT) == {"a": LOOKS_LIKE_A_KEY}
    assert not is_shmkey(LOOKS_LIKE_A_KEY) and not is_shmkey(3)
    with pytest.raises(FileNotFoundError):
        shm_pop(LOOKS_LIKE_A_KEY)


def test_keys_of_workers(executor: ProcessPoolExecutor) -> None:
    result = executor.submit(put_here, 1000).result(LIMIT)
    assert result["array"].sum() == sum(range(1000)) and result["list"][0].sum() == 1000


def test_keys_in_other_ways(executor: ProcessPoolExecutor) -> None:
    """A key that travels as one leads to the same memory."""
    key = shm_put(numpy.zeros(10))
    assert executor.submit(pop_there, key, shm_input=False, shm_output=False).result(LIMIT) == (True, 10.0)
    assert shm_pop(key).sum() == 10
    other = pickle.loads(pickle.dumps(key))
    shm_pop(other)[:] = 2
    assert shm_pop(key, keep=False).sum() == 20


def test_nothing_global_is_changed() -> None:
    assert concurrent.futures.Future.__module__ == "concurrent.futures._base"
    state = random.getstate()
    shm_del(shm_put(numpy.arange(3)))
    assert random.getstate() == state


def test_nothing_is_left_by_cancelled_calls_and_killed_workers() -> None:
    executor = ProcessPoolExecutor(1)
    large = numpy.zeros(600_000)
    futures = [executor.submit(same, shm_put(large, temp=True)) for _ in range(2)]
    [future.result(LIMIT) for future in futures]
    futures = [executor.submit(sleep_and_kill_self, shm_put(large, temp=True))]
    futures += [executor.submit(same, shm_put(large, temp=True)) for _ in range(5)]
    assert futures[-1].cancel()
    for future in futures[:-1]:
        with pytest.raises(BrokenProcessPool):
            future.result(LIMIT)
    executor.shutdown()
    del future, futures, executor
    gc.collect()
    assert not npshmex._put
    shm_clear()
    assert _native.shared_statistics()["own"] == 0
