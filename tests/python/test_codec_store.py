# SPDX-License-Identifier: LGPL-2.1-or-later
"""Live objects through queues, pipes and channels: what is got is the object that was put."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import ferry
import ferry.store

N_MANY = 10_000
SLACK = 4096


@dataclasses.dataclass
class Job:
    number: int
    parts: list[Any]


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x: int) -> None:
        self.x = x


@pytest.fixture
def store() -> Iterator[ferry.Store]:
    with ferry.Store(f"codec-store-{os.getpid()}", max_bytes=64 << 20) as store:
        yield store


def used(store: ferry.Store) -> int:
    store.collect()
    store.verify()
    return store.bytes_used


def values() -> list[Any]:
    numpy = pytest.importorskip("numpy")
    return [[1, 2], {"a": 1}, {1, 2}, bytearray(b"abc"), Job(1, [2]), Slotted(3), numpy.arange(6).reshape(2, 3)]


@pytest.mark.parametrize("index", range(7))
@pytest.mark.parametrize("pickles", [False, True])
def test_same_object(store: ferry.Store, index: int, pickles: bool) -> None:
    store["x"] = values()[index]
    q = ferry.Queue(pickle=pickles)
    q.put(store["x"])
    x = store["x"]
    got = q.get()
    assert ferry.store_of(got) is store
    if type(x).__name__ != "ndarray":
        assert got is x
    else:
        got[0, 0] = 77
        assert x[0, 0] == 77
    q.close()


def test_pipe_and_channel(store: ferry.Store) -> None:
    store["x"] = {"list": [1]}
    one, other = ferry.Pipe()
    one.send(store["x"])
    assert other.recv() is store["x"]
    one.send([store["x"]["list"]])  # within a plain value, as a pickle would
    assert other.recv()[0] is store["x"]["list"]
    name = f"codec-store-{os.getpid()}-c"
    with ferry.Channel(name, "receiver") as receiver, ferry.Channel(name, "sender") as sender:
        sender.send(store["x"])
        assert receiver.receive() is store["x"]
        sender.send(store["x"])
        with receiver.receive_buffer() as buffer:
            assert buffer.size == 4096
    one.close()
    other.close()


def test_plain_goes_as_ever(store: ferry.Store) -> None:
    q = ferry.Queue()
    for value in ([1], {"a": 2}, 3, "text", Job(1, [2])):
        q.put(value)
        got = q.get()
        assert got == value
        assert ferry.store_of(got) is None
    q.close()


def test_queue_with_store(store: ferry.Store) -> None:
    before = used(store)
    q = ferry.Queue(store=store)
    for value in values():
        q.put(value)
        got = q.get()
        assert ferry.store_of(got) is store
        assert ferry.store.snapshot(got) is not value
        if isinstance(value, list):
            got.append(3)
            assert got == [1, 2, 3]
            assert value == [1, 2]
    for value in (None, 5, "text", b"bytes", (1, [2]), frozenset({1}), 1.5):
        q.put(value)
        got = q.get()
        assert got == value
        assert ferry.store_of(got) is None
    store["x"] = [1]
    q.put(store["x"])
    assert q.get() is store["x"]
    del got, store["x"]
    q.close()
    assert used(store) <= before + SLACK


def test_wrong_arguments(store: ferry.Store) -> None:
    with pytest.raises(ValueError, match="live objects"):
        ferry.Queue(store=store, codec="python")
    with pytest.raises(TypeError, match="ferry.Store"):
        ferry.Queue(store=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="live objects"):
        ferry.Channel(f"codec-store-{os.getpid()}-w", "sender", store=store, codec="numpy")
    q = ferry.Queue(codec="store")
    with pytest.raises(ferry.CodecError, match="FerryStoreReference"):
        q.put([1])
    store["x"] = [1]
    q.put(store["x"])
    assert q.get() is store["x"]
    q.close()


def test_not_in_a_transaction(store: ferry.Store) -> None:
    q = ferry.Queue()
    store["x"] = [1]
    with store.transaction():
        with pytest.raises(ValueError, match="transaction"):
            q.put(store["x"])
    q.put(store["x"])
    with store.transaction():
        assert q.get() is store["x"]
    q.close()


def test_transaction_of_another_thread(store: ferry.Store) -> None:
    q = ferry.Queue(4)
    store["x"] = [1]
    x = store["x"]
    held = threading.Event()
    go_on = threading.Event()

    def hold() -> None:
        with store.transaction():
            held.set()
            go_on.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with pytest.raises(queue.Full):
        q.put_nowait(x)
    timer = threading.Timer(0.3, go_on.set)
    timer.start()
    q.put(x)
    assert go_on.is_set()
    assert q.get() is x
    thread.join()
    timer.join()
    q.close()


def test_no_leak(store: ferry.Store) -> None:
    q = ferry.Queue(store=store)
    q.put([0])
    q.get()
    before = used(store)
    for i in range(N_MANY):
        q.put({"n": [i, i]})
        if i % 8 == 7:
            for _ in range(8):
                assert q.get()["n"][1] <= i
    assert store.bytes_used <= before + SLACK
    q.close()


def test_more_than_fits(store: ferry.Store) -> None:
    """What finds no room keeps its object, until it is sent."""
    before = used(store)
    q = ferry.Queue(store=store)
    for i in range(1500):
        q.put([i])
    for i in range(1500):
        assert q.get() == [i]
    q.close()
    assert used(store) <= before + 8 * SLACK


def test_broadcast(store: ferry.Store) -> None:
    name = f"codec-store-{os.getpid()}-b"
    before = used(store)
    with ferry.Channel(name, "sender", mode="broadcast", history=2, capacity=8, store=store) as sender:
        with ferry.Channel(name, "receiver", mode="broadcast") as one:
            for i in range(3):
                sender.send([i])
            first = [one.receive() for _ in range(3)]
            with ferry.Channel(name, "receiver", mode="broadcast") as late:
                second = [late.receive() for _ in range(2)]
            assert second[0] is first[1]
            assert second[1] is first[2]
    del first, second
    assert used(store) <= before + SLACK


CHILD = """
import sys, ferry
q = ferry.Channel(sys.argv[1], "receiver", open_mode="join")
out = ferry.Channel(sys.argv[2], "sender", open_mode="join")
while True:
    got = q.receive()
    if got is None:
        break
    got.append(len(got))
    out.send(got)
"""


def test_unrelated_process(store: ferry.Store) -> None:
    names = [f"codec-store-{os.getpid()}-{which}" for which in "io"]
    with ferry.Channel(names[0], "sender") as sender, ferry.Channel(names[1], "receiver") as receiver:
        child = subprocess.Popen([sys.executable, "-c", CHILD, *names])
        store["x"] = []
        for i in range(100):
            sender.send(store["x"])
            assert receiver.receive(timeout=20) is store["x"]
            assert len(store["x"]) == i + 1
        sender.send(None)
        assert child.wait(20) == 0


def work(requests: Any, answers: Any) -> None:
    while (job := requests.get()) is not None:
        job.number += 1
        job.parts.append(os.getpid())
        answers.put(job)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes(store: ferry.Store, method: str) -> None:
    context = multiprocessing.get_context(method)
    requests = ferry.Queue(store=store)
    answers = ferry.Queue()
    workers = [context.Process(target=work, args=(requests, answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
    jobs = []
    for i in range(20):
        requests.put(Job(i, []))
    for _ in range(20):
        jobs.append(answers.get(timeout=30))
    assert sorted(job.number for job in jobs) == list(range(1, 21))
    assert all(len(job.parts) == 1 and ferry.store_of(job) is store for job in jobs)
    for _ in workers:
        requests.put(None)
    for worker in workers:
        worker.join(20)
        assert worker.exitcode == 0
    requests.close()
    answers.close()


def put_and_exit(q: Any) -> None:
    q.put([1, 2, 3])
    os._exit(0)


def test_sender_exits_at_once(store: ferry.Store) -> None:
    q = ferry.Queue(store=store)
    child = multiprocessing.get_context("fork").Process(target=put_and_exit, args=(q,))
    child.start()
    child.join()
    store.collect()
    assert q.get(timeout=10) == [1, 2, 3]
    q.close()


def test_receiver_killed_with_the_message(store: ferry.Store) -> None:
    """It has received the message and not decoded it: its object is freed, and the others go on."""
    context = multiprocessing.get_context("fork")
    name = f"codec-store-{os.getpid()}-k"
    before = used(store)
    with ferry.Channel(name, "sender", store=store) as sender:
        taken = context.Event()

        def take() -> None:
            with ferry.Channel(name, "receiver") as receiver:
                buffer = receiver.receive_buffer()
                taken.set()
                time.sleep(60)
                buffer.release()

        child = context.Process(target=take)
        child.start()
        sender.send([1] * 10_000)
        assert taken.wait(20)
        assert used(store) > before + 10_000
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        with ferry.Channel(name, "receiver") as receiver:
            sender.send([2])
            assert receiver.receive(timeout=10) == [2]
    assert used(store) <= before + SLACK


COLLECTOR = """
import sys, ferry
with ferry.Store(sys.argv[1]) as store:
    store.collect()
"""


def test_channel_elsewhere(store: ferry.Store, tmp_path: Any) -> None:
    """Who can't find a channel by its name does not know that it is gone."""
    name = f"memfd directory={tmp_path} name=codec-store-{os.getpid()}-e"
    with ferry.Channel(name, "sender") as sender, ferry.Channel(name, "receiver") as receiver:
        store["x"] = [1, 2, 3]
        sender.send(store["x"])
        del store["x"]
        subprocess.run([sys.executable, "-c", COLLECTOR, store.name], check=True, timeout=60)
        assert receiver.receive(timeout=10) == [1, 2, 3]


def test_store_elsewhere(tmp_path: Any) -> None:
    """A message has no directory: it is said that such a store must be open."""
    q = ferry.Queue()
    name = f"codec-store-{os.getpid()}-dir"
    with ferry.Store(name, directory=tmp_path) as store:
        store["x"] = [1]
        q.put(store["x"])
        assert q.get(timeout=10) == [1]
        q.put(store["x"])
        child = multiprocessing.get_context("spawn").Process(target=get_elsewhere, args=(q,))
        child.start()
        child.join(60)
        assert child.exitcode == 0
    q.close()


def get_elsewhere(q: Any) -> None:
    with pytest.raises(ferry.FerryError, match="directory="):
        q.get(timeout=10)


def test_channels_leave_nothing(store: ferry.Store) -> None:
    """Neither channels that are closed nor fork children that remember them."""
    store["x"] = [1]
    before = used(store)
    for _ in range(500):
        q = ferry.Queue()
        q.put(store["x"])
        assert q.get(timeout=10) is store["x"]
        q.close()
    assert used(store) <= before + SLACK


def test_closed_in_parent_used_in_child(store: ferry.Store) -> None:
    """The number of a channel goes with the last one in it; whoever comes later has another."""
    store["x"] = [1]
    q = ferry.Queue()
    q.put(store["x"])
    assert q.get(timeout=10) is store["x"]
    go = multiprocessing.get_context("fork").Event()

    def child() -> None:
        go.wait(20)
        for _ in range(3):
            q.put(store["x"])
            assert q.get(timeout=10) is store["x"]

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    q.close()
    go.set()
    process.join(60)
    assert process.exitcode == 0


def test_many_stores_beside_a_queue(store: ferry.Store) -> None:
    """What a channel knows of a store does not stay when the store is closed."""
    q = ferry.Queue()
    data = os.urandom(6_000)

    def take_time() -> float:
        began = time.perf_counter()
        for _ in range(500):
            q.put(data)
            q.get(timeout=10)
        return time.perf_counter() - began

    first = min(take_time() for _ in range(5))
    for i in range(1_000):
        with ferry.Store(f"codec-store-{os.getpid()}-{i}", max_bytes=1 << 20) as other:
            other["x"] = [i]
            q.put(other["x"])
            assert q.get(timeout=10) == [i]
        del other
    assert min(take_time() for _ in range(5)) < 5 * first
    q.close()


def test_store_is_gone() -> None:
    """The message outlives the store: that is said."""
    q = ferry.Queue()
    name = f"codec-store-{os.getpid()}-gone"
    with ferry.Store(name) as store:
        store["x"] = [1]
        q.put(store["x"])
    with pytest.raises((ferry.FerryError, ValueError)):
        q.get(timeout=5)
    with ferry.Store(name) as store:
        store["x"] = [2]
        q.put(store["x"])
        assert q.get() is store["x"]
    q.close()


@pytest.mark.parametrize("fails", [False, True])
def test_closed_while_the_store_is_looked_for(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """Opening the store that a message is of runs code, and another thread: the channel may be closed meanwhile."""
    name = f"codec-store-{os.getpid()}-closed"
    with ferry.Channel(name, "receiver") as receiver, ferry.Channel(name, "sender") as sender:
        with ferry.Store(f"{name}-store") as store:
            store["x"] = [1]
            sender.send(store["x"])
        buffer = receiver.receive_buffer(timeout=5)

        def open_named(*_: Any) -> None:
            receiver.close()
            if fails:
                raise LookupError("not to be had")

        monkeypatch.setattr(ferry.store, "_open_named", open_named)
        with pytest.raises(LookupError if fails else ferry.FerryError):
            receiver.decode(buffer)
        with pytest.raises(ferry.ClosedError):
            receiver.decode(buffer)
        buffer.release()


def test_without_a_name() -> None:
    with ferry.Store() as store:
        q = ferry.Queue(store=store)
        q.put([1])
        assert ferry.store_of(q.get()) is store
        q.close()


def test_pickle_still_works(store: ferry.Store) -> None:
    store["x"] = [1]
    assert pickle.loads(pickle.dumps(store["x"])) is store["x"]


def test_asyncio(store: ferry.Store) -> None:
    import asyncio

    q = ferry.Queue(store=store)

    async def main() -> Any:
        await q.put_async([1])
        return await q.get_async()

    got = asyncio.run(main())
    assert ferry.store_of(got) is store
    q.close()
