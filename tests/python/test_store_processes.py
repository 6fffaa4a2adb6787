# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stores between processes and threads: start methods, references in messages, transactions, waiting."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import pickle
import select
import signal
import threading
import time
import traceback

import ferry
import pytest

numpy = pytest.importorskip("numpy")

METHODS = ["fork", "spawn", "forkserver"]


class Counter:
    def __init__(self):
        self.n = 0

    def increment(self):
        self.n += 1


@pytest.fixture(params=METHODS)
def context(request):
    return multiprocessing.get_context(request.param)


@pytest.fixture
def store(request):
    with ferry.Store(f"test-{os.getpid()}-{request.node.name.split('[')[0]}") as store:
        yield store
        if not store.closed:
            store.verify()


def run(context, target, *args):
    process = context.Process(target=target, args=args)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def change(items, settings, counter, results):
    items.append("child")
    settings["list"] = items
    counter.increment()
    assert settings["list"] is items
    results.put((items, counter.n))


def test_arguments_are_the_same_objects(context, store):
    store["items"] = ["parent"]
    store["settings"] = {}
    store["counter"] = Counter()
    results = ferry.Queue()
    run(context, change, store["items"], store["settings"], store["counter"], results)
    items, n = results.get(timeout=30)
    assert n == 1 and store["counter"].n == 1
    assert items is store["items"]
    assert store["items"] == ["parent", "child"]
    assert store["settings"]["list"] is store["items"]


def use_store(store):
    store["child"] = {"pid": os.getpid()}
    store["list"].append(2)


def test_a_store_as_argument(context, store):
    store["list"] = [1]
    run(context, use_store, store)
    assert store["list"] == [1, 2]
    assert store["child"]["pid"] != os.getpid()


def test_an_anonymous_store_is_for_forks():
    with ferry.Store() as store:
        store["list"] = [1]
        run(multiprocessing.get_context("fork"), use_store, store)
        assert store["list"] == [1, 2]
        data = pickle.dumps(store["list"])
        assert pickle.loads(data) is store["list"]
        with pytest.raises(ValueError, match="without a name"):
            ferry.store._open_for_reference(b"x" * 16, store._description, False)


def hold_and_leave(source, results):
    results.put(source.get()["inner"])


def test_references_in_messages(context, store):
    source, results = ferry.Queue(), ferry.Queue()
    process = context.Process(target=hold_and_leave, args=(source, results))
    process.start()
    store["value"] = {"inner": [1, 2]}
    inner = store["value"]["inner"]
    source.put(store["value"])
    process.join(60)
    assert process.exitcode == 0
    assert results.get(timeout=30) is inner


def test_a_reference_keeps_its_object(store):
    queue = ferry.Queue()
    store["value"] = ["something to keep"]
    queue.put({"here": store["value"]})
    del store["value"]
    gc.collect()
    store.collect()
    assert queue.get(timeout=10)["here"] == ["something to keep"]


def add_many(store, n):
    counts, values, counter = store["counts"], store["list"], store["counter"]
    for i in range(n):
        store.add(counts, "a", 1)
        store.add(values, 0, 1)
        store.add(counter, "n", 1)
        with store.atomic():
            counts["b"] += 1
        values.append(i)
        counts[(os.getpid(), i)] = i


def test_nothing_is_lost(store):
    context = multiprocessing.get_context("fork")
    store["counts"] = {"a": 0, "b": 0}
    store["list"] = [0]
    store["counter"] = Counter()
    processes = [context.Process(target=add_many, args=(store, 300)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert store["counts"]["a"] == store["counts"]["b"] == store["list"][0] == store["counter"].n == 1200
    assert len(store["list"]) == 1201 and len(store["counts"]) == 1202
    assert sorted(store["list"][1:]) == sorted(list(range(300)) * 4)


def test_threads(store):
    store["counts"] = {"a": 0, "b": 0}
    store["list"] = [0]
    store["counter"] = Counter()
    errors = []

    def work(store):
        try:
            counts, values, counter = store["counts"], store["list"], store["counter"]
            for i in range(300):
                store.add(counts, "a", 1)
                with store.atomic():
                    counts["b"] += 1
                    values[0] += 1
                store.add(counter, "n", 1)
                values.append([i])
                assert values[-1] is not None
                store[f"key {i % 10}"] = {"i": i}
                assert "i" in store[f"key {i % 10}"]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(store,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors
    assert store["counts"] == {"a": 1200, "b": 1200}
    assert store["list"][0] == store["counter"].n == 1200
    assert len(store["list"]) == 1201


# transactions


def test_transactions(store):
    store["list"] = [1]
    found = store["list"]
    with store.transaction() as same:
        assert same is store and store.in_transaction
        found.append(2)
        store["new"] = {"a": 1}
        with pytest.raises(KeyError), store.transaction():
            found.append(3)
            store["new"]["a"] = 2
            raise KeyError
        assert found == [1, 2] and store["new"]["a"] == 1
    assert not store.in_transaction
    with pytest.raises(ValueError), store.transaction():
        found.clear()
        del store["new"]
        found.extend(range(100))
        raise ValueError
    assert found == [1, 2] and store["new"] == {"a": 1}
    with pytest.raises(ferry.InvalidArgumentError):
        store.commit()


def be_killed(store, ready):
    with store.transaction():
        store["list"].append("half")
        store["dict"]["a"] = "half"
        store["other"] = "half"
        ready.set()
        time.sleep(60)


def test_a_killed_transaction_is_undone(store):
    context = multiprocessing.get_context("fork")
    store["list"], store["dict"], store["other"] = [1], {"a": 1}, 1
    ready = context.Event()
    process = context.Process(target=be_killed, args=(store, ready))
    process.start()
    assert ready.wait(30)
    assert store["list"] == [1] and store["dict"]["a"] == 1 and store["other"] == 1
    with pytest.raises(TimeoutError), store.transaction(timeout=0.2):
        pass
    os.kill(process.pid, signal.SIGKILL)
    before = time.monotonic()
    store["list"].append(2)
    assert time.monotonic() - before < 5
    process.join(30)
    assert store["list"] == [1, 2] and store["dict"] == {"a": 1} and store["other"] == 1


def test_another_thread_waits_for_a_transaction(store):
    store["list"] = []
    entered = threading.Event()
    leave = threading.Event()

    def hold():
        with store.transaction():
            store["list"].append(1)
            entered.set()
            leave.wait(30)
            store["list"].append(2)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(30)
    assert store["list"] == []
    timer = threading.Timer(0.2, leave.set)
    timer.start()
    store["list"].append(3)
    thread.join(30)
    assert store["list"] == [1, 2, 3]


# waiting


def set_later(store, delay):
    for i in range(1, 4):
        time.sleep(delay)
        store["n"] = i
        store["list"].append(i)


def test_waiting(store):
    store["n"] = 0
    store["list"] = []
    process = multiprocessing.get_context("fork").Process(target=set_later, args=(store, 0.1))
    process.start()
    assert store.wait("n", lambda n: n >= 2, timeout=30) >= 2
    assert len(store.wait("list", lambda items: len(items) == 3, timeout=30)) == 3
    process.join(30)
    before = time.monotonic()
    with pytest.raises(TimeoutError):
        store.wait("n", lambda n: n > 5, timeout=0.2)
    with pytest.raises(TimeoutError):
        store.wait("none", timeout=0.1)
    assert 0.25 < time.monotonic() - before < 10
    threading.Timer(0.1, store["list"].append, [4]).start()
    assert store.wait("list", timeout=30)[-1] == 4
    threading.Timer(0.1, lambda: store.update(n=True)).start()
    assert store.wait("n", timeout=30) is True


def test_waiting_in_tasks(store):
    async def main():
        store["n"] = 0
        store["list"] = []
        process = multiprocessing.get_context("fork").Process(target=set_later, args=(store, 0.05))
        process.start()
        found, items = await asyncio.gather(
            store.wait_async("n", lambda n: n == 3, timeout=30),
            store.wait_async("list", lambda items: len(items) == 3, timeout=30),
        )
        assert found == 3 and items == [1, 2, 3]
        process.join(30)
        with pytest.raises(TimeoutError):
            await store.wait_async("n", lambda n: n > 5, timeout=0.1)
        seen = []

        async def collect():
            async for value in store.changes("n"):
                seen.append(value)
                if value == "end":
                    return

        task = asyncio.ensure_future(collect())
        await asyncio.sleep(0.05)
        for value in (10, 11, "end"):
            store["n"] = value
            store["unrelated"] = value
            await asyncio.sleep(0.05)
        await asyncio.wait_for(task, 30)
        assert seen == [10, 11, "end"]

    asyncio.run(main())


def test_an_interrupted_wait(store):
    def handler(number, frame):
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(InterruptedError):
            store.wait("none", timeout=30)
    finally:
        signal.signal(signal.SIGALRM, before)


# fork


def use_what_was_read(items, array, counter, results):
    items.append(len(items))
    array += 1
    counter.increment()
    results.put(list(items))


def test_a_fork_child_uses_what_was_read(store):
    store["items"], store["array"], store["counter"] = [0], numpy.zeros(3), Counter()
    items, array, counter = store["items"], store["array"], store["counter"]
    del store["items"]
    results = ferry.SimpleQueue()
    processes = []
    for _ in range(3):
        processes.append(
            multiprocessing.get_context("fork").Process(target=use_what_was_read, args=(items, array, counter, results))
        )
        processes[-1].start()
        processes[-1].join(30)
        assert processes[-1].exitcode == 0
    assert items == [0, 1, 2, 3]
    assert (array == 3).all()
    assert counter.n == 3


def in_fork(function):
    """Run a function in a fork child; it goes on when that has ended, or after the child said so."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    return pid


def end_of(pid):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "it hung"


def test_a_fork_child_whose_objects_are_gone(store):
    """What the parent gave up before the child's first use of the store is gone there, and says so."""
    store["items"], store["settings"], store["set"] = [1], {"a": 1}, {1}
    store["bytes"], store["counter"], store["array"] = bytearray(b"abc"), Counter(), numpy.arange(3)
    store["kept"] = ["kept"]
    names = ["items", "settings", "set", "bytes", "counter", "array"]
    objects = {name: store[name] for name in names}
    kept = store["kept"]
    go_read, go_write = os.pipe()

    def child():
        os.read(go_read, 1)
        # others are where they were: these are none of them
        uses = {
            "items": [
                lambda o: o[0], len, list, repr, lambda o: o.append(1), lambda o: o.__setitem__(0, 5), lambda o: o + [1],
                lambda o: o.snapshot(), pickle.dumps, lambda o: store.__setitem__("again", o), lambda o: o == [1], sorted,
            ],
            "settings": [lambda o: o["a"], len, dict, lambda o: o.__setitem__("a", 2), lambda o: o.pop("a"), lambda o: "a" in o],
            "set": [len, lambda o: 1 in o, lambda o: o.add(2), lambda o: o | {2}],
            "bytes": [len, bytes, lambda o: o[0], lambda o: o.append(1)],
            "counter": [lambda o: o.n, lambda o: setattr(o, "n", 5), lambda o: o.increment()],
        }
        for name, some in uses.items():
            for i, use in enumerate(some):
                with contextlib.suppress(ferry.ClosedError):
                    pytest.fail(f"use {i} of {name} gave {use(objects[name])!r}")
        assert kept == ["kept"]
        kept.append("child")
        # what is there now is all right
        again = store["others"]
        assert [list(one) for one in again] == [[i] for i in range(50)]
        assert store["items"] == ["new"]
        objects.clear()
        assert [list(one) for one in again] == [[i] for i in range(50)]

    pid = in_fork(child)
    objects.clear()
    for name in names:
        del store[name]
    store.collect()
    # in their places
    store["others"] = [[i] for i in range(50)]
    store["items"] = ["new"]
    os.write(go_write, b"x")
    assert end_of(pid) == 0
    os.close(go_read)
    os.close(go_write)
    assert store["kept"] == ["kept", "child"]
    assert [list(one) for one in store["others"]] == [[i] for i in range(50)]


@pytest.mark.parametrize("use", ["store", "send", "snapshot", "nest"])
def test_a_lost_array_is_the_first_thing_used(store, use):
    """What is in the place of an array that is gone is not taken for it, also when nothing else was used before."""
    store["array"] = numpy.arange(4.0)
    array = store["array"]
    del store["array"]
    queue = ferry.Queue()
    uses = {
        "store": lambda: store.__setitem__("again", array),
        "send": lambda: queue.put(array),
        "snapshot": lambda: ferry.store.snapshot(array),
        "nest": lambda: store.__setitem__("again", [array]),
    }
    go_read, go_write = os.pipe()

    def child():
        os.read(go_read, 1)
        with pytest.raises(ferry.ClosedError, match="is gone"):
            uses[use]()

    pid = in_fork(child)
    del array
    store.collect()
    store["others"] = [numpy.arange(10.0 + i, 14.0 + i) for i in range(10)]  # in its place
    os.write(go_write, b"x")
    assert end_of(pid) == 0
    os.close(go_read)
    os.close(go_write)
    assert "again" not in store
    assert queue.empty()
    queue.close()


def test_a_fork_child_gives_up_what_it_never_held(store):
    """What a child drops before its first use of the store stays with the parent."""
    store["items"] = [["inner"]]
    items = store["items"]
    inner = [items[0]]
    for drop_all in (False, True):
        held = {"items": items, "inner": inner[0]}

        def child(held=held, drop_all=drop_all):
            nonlocal items
            held.clear()
            inner.clear()
            if drop_all:
                items = None
            gc.collect()
            store["child"] = 1
            store.collect()

        assert end_of(in_fork(child)) == 0
    del store["items"], items[0]
    store.collect()
    store["others"] = [[i] for i in range(50)]
    assert items == [] and inner[0] == ["inner"]


@pytest.mark.parametrize("ending", ["commit", "roll back"])
def test_a_fork_child_within_a_transaction_of_its_parent(store, ending):
    """The child is in none: it reads what was before, waits to write, and takes over nothing of the parent's."""
    store["items"], store["n"] = [["old"], 1], 0
    items = store["items"]
    read_end, write_end = os.pipe()

    def child():
        assert not store.in_transaction
        assert items[1] == 1 and list(items[0]) == ["old"]
        assert store["n"] == 0
        with pytest.raises(ValueError, match="in no transaction"):
            store.commit()
        os.write(write_end, b"x")
        with store.transaction():  # waits for the end of it
            store["n"] += 1
            items[1] += 10
            items.append(["child's"])

    with pytest.raises(KeyError) if ending == "roll back" else contextlib.nullcontext():
        with store.transaction():
            items[0] = ["new"]
            items[1] = 2
            store["n"] = 5
            pid = in_fork(child)
            assert select.select([read_end], [], [], 5)[0], "it waits where it should read"
            if ending == "roll back":
                raise KeyError
    assert end_of(pid) == 0
    os.close(read_end)
    os.close(write_end)
    if ending == "commit":
        assert items == [["new"], 12, ["child's"]] and store["n"] == 6
    else:
        assert items == [["old"], 11, ["child's"]] and store["n"] == 1
    store.collect()
    store.verify()


def test_a_fork_child_whose_parent_dies_within_a_transaction(store):
    """The child finds the transaction of the dead one, and undoes it."""
    store["items"] = [1]
    items = store["items"]

    def parent():
        def child():
            while os.getppid() == first:
                time.sleep(0.001)
            items.append(items[0])
            store["done"] = True

        first = os.getpid()
        with store.transaction():
            items[0] = 2
            in_fork(child)
            os.kill(first, signal.SIGKILL)

    assert end_of(in_fork(parent)) == -signal.SIGKILL
    assert store.wait("done", bool, timeout=30)
    assert items == [1, 1]


def test_a_fork_child_closes_what_it_never_used(store):
    store["items"] = [1]
    items = store["items"]

    def child():
        assert not store.closed
        store.close()
        assert store.closed
        with pytest.raises(ferry.ClosedError):
            items.append(1)

    assert end_of(in_fork(child)) == 0
    assert items == [1]


def test_the_mapping(store):
    assert len(store) == 0 and list(store) == []
    store.update({"a": 1}, b=[2])
    assert list(store) == list(store.keys()) == ["a", "b"]
    assert dict(store.items()) == {"a": 1, "b": [2]}
    assert store.setdefault("a", 5) == 1 and store.setdefault("c", []) == []
    store["c"].append(1)
    assert store.snapshot() == {"a": 1, "b": [2], "c": [1]}
    assert store.pop("a") == 1 and store.pop("a", None) is None
    with pytest.raises(KeyError):
        store.pop("a")
    with pytest.raises(KeyError):
        store["a"]
    with pytest.raises(KeyError):
        del store["a"]
    assert store.get("a") is None and store.get("a", 3) == 3
    assert store.popitem() == ("c", [1])
    store.clear()
    assert len(store) == 0
    with pytest.raises(KeyError):
        store.popitem()
    assert store == store and hash(store)
    assert "Store" in repr(store)


def test_opening(store):
    with pytest.raises(ferry.ChannelNotFoundError):
        ferry.Store("nobody-made-this", mode="join")
    with pytest.raises(ferry.ChannelExistsError):
        ferry.Store(store.name, mode="create")
    with pytest.raises(ferry.MismatchError):
        ferry.Store(store.name, max_bytes=1 << 20)
    with pytest.raises(ValueError):
        ferry.Store(mode="no")
    store["a"] = [1]
    with ferry.Store(store.name, mode="join") as other:
        assert other.identity == store.identity
        other["a"].append(2)
        assert store["a"] == [1, 2]
        assert other["a"] is not store["a"] and other["a"] == store["a"]


def test_a_bound_of_memory():
    with ferry.Store(max_bytes=8 << 20) as store:
        store["a"] = "x" * (1 << 20)
        with pytest.raises(ferry.NoSpaceError):
            store["b"] = [b"x" * (3 << 20) for _ in range(5)]
        with pytest.raises(ferry.NoSpaceError):
            store["array"] = numpy.zeros(4 << 20)
        assert list(store) == ["a"]
        store.verify()
        del store["a"]
        for _ in range(20):
            store["b"] = "y" * (3 << 20)
        assert len(store["b"]) == 3 << 20
