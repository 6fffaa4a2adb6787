# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures one way of sharing objects, in the interpreter that has it; started by store.py.

    store_worker.py WAY DURATION TASK...

The process forks one that makes the objects, and gets them from it as the way's programs do; it works on them while the
other one is attached, and then asks that one what it sees: what was measured is what was done. Each statement runs in
the same loop for all ways, and for private objects of the same types. Prints JSON.
"""

from __future__ import annotations

import json
import mmap
import multiprocessing
import multiprocessing.connection
import os
import secrets
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

_FIRST_N = 64
_TREE_MESSAGES = 2000
_GRAPH_MESSAGES = 2000
_SMALL_GRAPH = 10
_LARGE_GRAPH = 1_000_000
_LARGE_BYTES = 16 << 20
_N_LARGE = 40
_N_COLD = 10  # before memory is warm
_MEMORY = 600 << 20
_N_SMALL = 100_000
_N_ENTRIES = 1_000_000


class CompanyMetrics(IntEnum):
    """Places in a record that is a list."""

    income = 0
    employees = 1
    avg_salary = 2
    annual_income = 3
    in_a_good_state = 4
    emails = 5
    websites = 6


@dataclass
class Employee:
    """An instance with a method that changes it."""

    first_name: str
    last_name: str
    years: int
    salary: float

    def add_years(self) -> None:
        """Two times `+=`."""
        self.years += 1
        self.salary += 0.5


@dataclass
class Company:
    """An instance within an instance."""

    income: float
    some_employee: Employee
    metrics: list[Any]


@dataclass
class Shared:
    """What is handed from one process to the other."""

    flag: bool
    int_value: int
    str_value: str
    data_dict: dict[Any, Any]
    company: Company


@dataclass
class Named:
    """A record with names."""

    income: float
    employees: int
    avg_salary: float


def make_shared() -> Shared:
    """Return all that is worked on, as private objects."""
    return Shared(
        flag=False,
        int_value=18,
        str_value="Hello, ",
        data_dict={"key1": 1, ("key", 2): "value2", "key3": np.zeros(16, np.int32), "counter": 0},
        company=Company(
            income=2_000_000.0,
            some_employee=Employee("John", "Smith", 1, 100.0),
            metrics=[2e6, 10, 3000.0, 2e6, True, ("info@company.com",), ["http://company.com", "http://company.org"]],
        ),
    )


@dataclass(frozen=True)
class Task:
    """A statement to be repeated."""

    group: str
    statement: str
    view: str = ""  # what it changes or reads; must be equal to that of private objects afterwards
    setup: str = "pass"  # before


_LIST, _ATTRIBUTE, _VALUES, _DICT, _CHAIN, _ARRAY = "list", "attribute", "values", "dict", "chain", "array"

# What a statement may name: l, a list; e and s, instances; n, a small one; d, a dict; a, an array.
TASKS: dict[str, Task] = {
    "list get float": Task(_LIST, "k = l[avg_salary]", "k"),
    "list get int": Task(_LIST, "k = l[employees]", "k"),
    "list get bool": Task(_LIST, "k = l[in_a_good_state]", "k"),
    "list set float": Task(_LIST, "l[annual_income] = 2_000_001.0", "l[annual_income]"),
    "list set int": Task(_LIST, "l[employees] = 20", "l[employees]"),
    "list set None": Task(_LIST, "l[in_a_good_state] = None", "l[in_a_good_state]"),
    "list set bool": Task(_LIST, "l[in_a_good_state] = False", "l[in_a_good_state]"),
    "list += float": Task(_LIST, "l[avg_salary] += 1.5", "l[avg_salary]"),
    "list += int": Task(_LIST, "l[employees] += 1", "l[employees]"),
    "list get str in tuple": Task(_VALUES, "k = l[emails][0]", "k"),
    "list get list": Task(_VALUES, "k = l[websites]", "list(k)"),
    "list set ()": Task(_VALUES, "l[emails] = ()", "l[emails]"),
    "list set (str,)": Task(_VALUES, "l[emails] = one", "l[emails]"),
    "list set (str, str)": Task(_VALUES, "l[emails] = two", "l[emails]"),
    "list set [str, str]": Task(_VALUES, "l[websites] = sites", "list(l[websites])"),
    "method with two +=": Task(_ATTRIBUTE, "e.add_years()", "(e.years, e.salary)"),
    "attribute get int": Task(_ATTRIBUTE, "k = s.int_value", "k"),
    "attribute set int": Task(_ATTRIBUTE, "s.int_value = 200", "s.int_value"),
    "attribute += int": Task(_ATTRIBUTE, "s.int_value += 1", "s.int_value"),
    "attribute set bool": Task(_ATTRIBUTE, "s.flag = True", "s.flag"),
    "record += int": Task(_ATTRIBUTE, "n.employees += 1", "n.employees"),
    "attribute get str": Task(_VALUES, "k = s.str_value", "k", "s.str_value = 'Hello, '"),
    "attribute set str": Task(_VALUES, "s.str_value = 'Hello. '", "s.str_value"),
    "attribute str +=": Task(_VALUES, "s.str_value = 'Hello. '; s.str_value += '!'", "s.str_value"),
    "array += 10": Task(_ARRAY, "a += 10", "a.tolist()"),
    "array -= 15": Task(_ARRAY, "a -= 15", "a.tolist()"),
    "dict get str key": Task(_DICT, "k = d['key1']", "k"),
    "dict get tuple key": Task(_DICT, "k = d[key2]", "k"),
    "dict set int": Task(_DICT, "d['key1'] = 200", "d['key1']"),
    "dict += int": Task(_DICT, "d['counter'] += 1", "d['counter']"),
    "dict *= int": Task(_DICT, "d['key1'] *= 1", "d['key1']"),
    "dict set str": Task(_DICT, "d[key2] = 'value2'", "d[key2]"),
    "dict str +": Task(_DICT, "d[key2] = 'value2'; d[key2] = d[key2] + 'd'", "d[key2]"),
    "chain method": Task(_CHAIN, "s.company.some_employee.add_years()", "(e.years, e.salary)"),
    "chain get": Task(_CHAIN, "k = s.company.income", "k"),
    "chain set": Task(_CHAIN, "s.company.income = 3_000_000.0", "s.company.income"),
    "chain *=": Task(_CHAIN, "s.company.income *= 1.0", "s.company.income"),
    "chain +=": Task(_CHAIN, "s.company.income += 0.5", "s.company.income"),
    "chain array +=": Task(_CHAIN, "d['key3'] += 10", "d['key3'].tolist()"),
}
#: What ways can do that have nothing but a dict with str as keys.
DICT_ONLY = ("dict get str key", "dict set int", "dict += int", "dict *= int")
OTHERS = ("take tree", "take graph", "throughput", "scaling", "memory")

_TEMPLATE = """
def loop(o, n_times):
    from itertools import repeat
    from time import perf_counter
    income, employees, avg_salary, annual_income, in_a_good_state, emails, websites = members
    l, e, s, n, d, a = o.l, o.e, o.s, o.n, o.d, o.a
    one, two, sites = ("info@company.com",), ("info@company.com", "ceo@company.com"), ["http://a.com", "http://b.org"]
    key2 = ("key", 2)
    k = None
    {setup}
    began = perf_counter()
    for _ in repeat(None, n_times):
        {statement}
    took = perf_counter() - began
    return took, k
"""
_VIEW = """
def view(o, k):
    income, employees, avg_salary, annual_income, in_a_good_state, emails, websites = members
    l, e, s, n, d, a = o.l, o.e, o.s, o.n, o.d, o.a
    key2 = ("key", 2)
    return {view}
"""


def compile_loop(task: Task) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the loop of a task, and what looks at its result."""
    names: dict[str, Any] = {"members": tuple(CompanyMetrics)}
    exec(_TEMPLATE.format(statement=task.statement, setup=task.setup), names)  # noqa: S102
    exec(_VIEW.format(view=task.view), names)  # noqa: S102
    return names["loop"], names["view"]


class Objects:
    """What statements name."""

    l: Any = None  # noqa: E741
    e: Any = None
    s: Any = None
    n: Any = None
    d: Any = None
    a: Any = None

    @classmethod
    def of(cls, shared: Any, named: Any) -> Objects:
        """Take them out of what was handed over."""
        self = cls()
        self.s = shared
        self.n = named
        self.d = shared.data_dict
        self.a = self.d["key3"]
        self.e = shared.company.some_employee
        self.l = shared.company.metrics
        return self


# ---- ways ----


class Way:
    """A way of sharing objects. `serve` runs in the process that makes them, everything else in the other one."""

    tasks: tuple[str, ...] = (*TASKS,)

    def __init__(self) -> None:
        self.name = f"bench-{os.getpid()}-{secrets.token_hex(3)}"

    def make(self) -> Any:
        """Make the objects; return something that `release` undoes."""
        raise NotImplementedError

    def attach(self) -> Objects:
        """Get the objects."""
        raise NotImplementedError

    def begin(self) -> None:
        """Before this process uses them."""

    def end(self) -> None:
        """After it has."""

    def close(self) -> None:
        """At the end, in either process."""


class Private(Way):
    """Objects of one process."""

    def make(self) -> Objects:
        return Objects.of(make_shared(), Named(1.0, 10, 3000.0))

    attach = make


class Ferry(Way):
    """`ferry.Store`, by its own interface."""

    tasks = (*TASKS, "scaling", "memory")

    def make(self) -> Objects:
        import ferry

        self.store = ferry.Store(self.name)
        self.store["shared"] = make_shared()
        self.store["named"] = Named(1.0, 10, 3000.0)
        return Objects.of(self.store["shared"], self.store["named"])

    def attach(self) -> Objects:
        import ferry

        self.store = ferry.Store(self.name)
        return Objects.of(self.store["shared"], self.store["named"])

    def close(self) -> None:
        self.store.close()


class SharedMemories(Way):
    """Messages, by the interface of InterProcessPyObjects."""

    tasks = ("take tree", "throughput")
    MODULE = ""

    def _import(self) -> Any:
        import importlib

        warnings.simplefilter("ignore")
        return importlib.import_module(self.MODULE)

    def make(self) -> Objects:
        module = self._import()
        self.memory = module.SharedMemory(self.name, create=True, size=_MEMORY)
        self.memory.__enter__()
        self.memory.wait_consumer_ready(time_limit=20)
        with module.wait_my_turn(self.memory):
            shared = self.memory.put_message(make_shared())
            named = self.memory.put_message(Named(1.0, 10, 3000.0))
        return Objects.of(shared, named)

    def attach(self) -> Objects:
        module = self._import()
        self.memory = module.SharedMemory(self.name)
        self.memory.__enter__()
        self.memory.init_consumer(time_limit=20)
        objects = []
        while len(objects) < 2:
            self.begin()
            if self.memory.has_messages():
                objects.append(self.memory.take_message())
            self.end()
        return Objects.of(*objects)

    def begin(self) -> None:
        while not self.memory.wait_my_turn(20):
            pass

    def end(self) -> None:
        self.memory.release()

    def close(self) -> None:
        try:
            self.memory.close_consumer()
        except Exception:  # what this does in the creator is not told
            pass
        try:
            self.memory.__exit__(None, None, None)
        except Exception:
            pass  # it does not like arrays that are still there


class InterProcessPyObjects(SharedMemories):
    """InterProcessPyObjects itself."""

    tasks = (*TASKS, "take tree", "throughput", "memory")
    MODULE = "ipc_py_objects"


class FerryCompat(SharedMemories):
    """The same through Ferry."""

    tasks = ("take tree", "take graph", "throughput")
    MODULE = "ferry.compat.ipc_py_objects"


class FerryDict(Way):
    """A dict in a store: for what others have nothing but a dict."""

    tasks = DICT_ONLY

    def make(self) -> Objects:
        objects = Objects()
        objects.d = self.open()
        objects.d.update({"key1": 1, "counter": 0})
        return objects

    def attach(self) -> Objects:
        objects = Objects()
        objects.d = self.open()
        while "counter" not in objects.d:
            time.sleep(0.01)
        return objects

    def open(self) -> Any:
        """Return the dict."""
        raise NotImplementedError


class UltraDictWay(FerryDict):
    """UltraDict."""

    MODULE = "UltraDict"

    def open(self) -> Any:
        import importlib

        self.dict = importlib.import_module(self.MODULE).UltraDict(name=self.name, buffer_size=1_000_000)
        return self.dict

    def close(self) -> None:
        self.dict.close()


class FerryUltraDict(UltraDictWay):
    """The same through Ferry."""

    MODULE = "ferry.compat.ultradict"


class SharedMemoryDictWay(FerryDict):
    """SharedMemoryDict."""

    MODULE = "shared_memory_dict"

    def open(self) -> Any:
        import importlib

        self.dict = importlib.import_module(self.MODULE).SharedMemoryDict(name=self.name, size=4096)
        return self.dict

    def close(self) -> None:
        try:
            self.dict.shm.close()
            self.dict.shm.unlink()
        except FileNotFoundError:
            pass


class FerrySharedMemoryDict(SharedMemoryDictWay):
    """The same through Ferry."""

    MODULE = "ferry.compat.shared_memory_dict"


class ManagerDict(FerryDict):
    """A dict of `multiprocessing.Manager`; made before the fork."""

    def __init__(self) -> None:
        super().__init__()
        self.manager = multiprocessing.Manager()
        self.dict = self.manager.dict()

    def open(self) -> Any:
        return self.dict

    def make(self) -> Objects:
        # Another process has to have a connection of its own.
        self.dict = type(self.dict)(self.dict._token, "pickle", authkey=self.dict._authkey)
        return super().make()


WAYS: dict[str, Callable[[], Way]] = {
    "private": Private,
    "ferry": Ferry,
    "ferry.compat.ipc_py_objects": FerryCompat,
    "ferry.compat.ultradict": FerryUltraDict,
    "ferry.compat.shared_memory_dict": FerrySharedMemoryDict,
    "InterProcessPyObjects": InterProcessPyObjects,
    "UltraDict": UltraDictWay,
    "SharedMemoryDict": SharedMemoryDictWay,
    "Manager dict": ManagerDict,
}


# ---- the other process ----


def serve(way: Way, pipe: multiprocessing.connection.Connection) -> None:
    """Make the objects, and answer what they are."""
    try:
        objects = way.make()
        pipe.send("made")
        while True:
            request = pipe.recv()
            if request[0] == "view":
                way.begin()
                try:
                    pipe.send(compile_loop(TASKS[request[1]])[1](objects, request[2]))
                finally:
                    way.end()
            elif request[0] == "call":
                globals()[request[1]](way, pipe, *request[2:])
            else:
                break
        del objects
        way.close()
    except EOFError:
        pass
    except BaseException:
        traceback.print_exc()
        pipe.send(RuntimeError("the other process failed"))
        raise


def put_trees(way: Any, pipe: Any, n: int) -> None:
    """Put many messages that are trees of instances."""
    way.begin()
    for i in range(n):
        tree = make_shared()
        tree.int_value = i
        del tree.data_dict["key3"]
        way.memory.put_message(tree)
    way.end()
    pipe.send(n)


def put_graphs(way: Any, pipe: Any, n_nodes: int, n: int) -> None:
    """Put the same graph many times."""
    graph: list[Any] = [[i] for i in range(n_nodes - 1)]
    way.begin()
    live = way.memory.put_message(graph)
    for _ in range(n - 1):
        way.memory.put_message(live)
    way.end()
    del live
    pipe.send(n)


def put_large(way: Any, pipe: Any, size: int, n: int) -> None:
    """Put large bytes, never more than two ahead; tell the seconds of each."""
    payloads = [bytes([i]) * size for i in range(2)]
    times = []
    pipe.send(n)
    for i in range(n):
        pipe.recv()  # there is room for one more
        way.begin()
        began = time.perf_counter()
        way.memory.put_message(payloads[i % 2])
        times.append(time.perf_counter() - began)
        way.end()
    pipe.send(times)


# ---- measuring ----


def measure_loop(name: str, way: Way, objects: Objects, private: Objects, pipe: Any, duration: float) -> dict[str, Any]:
    """Return the seconds of one statement, and of the same on private objects."""
    loop, view = compile_loop(TASKS[name])
    n = _FIRST_N
    total_n: list[int] = []
    way.begin()
    try:
        while True:
            took, k = loop(objects, n)
            total_n.append(n)
            if took >= duration / 4 or n >= 1 << 26:
                break
            n = int(n * min(max(duration / 3 / max(took, 1e-9), 2), 50))
        samples = [took / n]
        for _ in range(2):
            took, k = loop(objects, n)
            total_n.append(n)
            samples.append(took / n)
    finally:
        way.end()
    theirs_k = None
    privates = []
    for each in total_n:
        took, theirs_k = loop(private, each)
        if each == n:
            privates.append(took / each)
    expected = view(private, theirs_k)
    if isinstance(way, Private):
        seen = view(objects, k)
    else:
        pipe.send(("view", name, _plain(k)))
        seen = pipe.recv()
    if seen != expected:
        raise AssertionError(f"{name}: the other process sees {seen!r}, expected was {expected!r}")
    return {"seconds": min(samples), "private": min(privates), "n": n}


def _plain(k: Any) -> Any:
    return list(k) if k is not None and not isinstance(k, (int, float, str, bytes, tuple)) else k


def measure_take_tree(way: Any, pipe: Any) -> dict[str, Any]:
    """Return the seconds for taking a tree of instances out of the queue."""
    pipe.send(("call", "put_trees", _TREE_MESSAGES))
    assert pipe.recv() == _TREE_MESSAGES
    memory = way.memory
    way.begin()
    began = time.perf_counter()
    taken = [memory.take_message() for _ in range(_TREE_MESSAGES)]
    took = time.perf_counter() - began
    assert [each.int_value for each in taken] == list(range(_TREE_MESSAGES))
    assert taken[-1].company.some_employee.first_name == "John"
    del taken
    way.end()
    return {"seconds": took / _TREE_MESSAGES, "n": _TREE_MESSAGES}


def measure_take_graph(way: Any, pipe: Any) -> dict[str, Any]:
    """Return the seconds for taking a graph, small and large."""
    result: dict[str, Any] = {"n": _GRAPH_MESSAGES}
    for key, n_nodes in (
        ("small", _SMALL_GRAPH),
        ("large", _LARGE_GRAPH),
        ("small", _SMALL_GRAPH),
        ("large", _LARGE_GRAPH),
    ):
        pipe.send(("call", "put_graphs", n_nodes, _GRAPH_MESSAGES))
        assert pipe.recv() == _GRAPH_MESSAGES
        memory = way.memory
        took = []
        taken = None
        for _ in range(4):
            way.begin()
            began = time.perf_counter()
            for _ in range(_GRAPH_MESSAGES // 4):
                taken = memory.take_message()
            took.append(time.perf_counter() - began)
            way.end()
        assert taken is not None and len(taken) == n_nodes - 1 and taken[-1][0] == n_nodes - 2
        del taken
        best = min(took) / (_GRAPH_MESSAGES // 4)
        result[key] = min(best, result.get(key, best))
    result["seconds"] = result["large"]
    return result


def measure_throughput(way: Any, pipe: Any) -> dict[str, Any]:
    """Return the bytes per second of large messages, and those of a copy into warm memory."""
    pipe.send(("call", "put_large", _LARGE_BYTES, _N_LARGE))
    assert pipe.recv() == _N_LARGE
    memory = way.memory
    is_ours = "ferry" in type(memory).__module__
    for _ in range(2):
        pipe.send(None)
    began = 0.0
    takes = []
    for i in range(_N_LARGE):
        while True:
            if is_ours:
                memory.wait_for_messages()
            way.begin()
            if memory.has_messages():
                break
            way.end()
        start = time.perf_counter()
        taken, offset = memory.take_message_2()
        takes.append(time.perf_counter() - start)
        if not is_ours:
            memory.destroy_obj(offset)
        way.end()
        if i + 2 < _N_LARGE:
            pipe.send(None)
        assert len(taken) == _LARGE_BYTES and taken[0] == taken[-1] == i % 2
        del taken, offset
        if i + 1 == _N_COLD:
            began = time.perf_counter()
    took = time.perf_counter() - began
    puts = pipe.recv()
    source = np.ones(_LARGE_BYTES, np.uint8)
    target = np.frombuffer(mmap.mmap(-1, _LARGE_BYTES), np.uint8)
    copies = []
    for _ in range(_N_COLD + 8):
        began = time.perf_counter()
        np.copyto(target, source)
        copies.append(time.perf_counter() - began)
    rate = (_N_LARGE - _N_COLD) * _LARGE_BYTES / took
    put, take, copy = (_LARGE_BYTES / statistics.median(times[_N_COLD:]) for times in (puts, takes, copies))
    return {"seconds": 1 / rate, "rate": rate, "put": put, "take": take, "copy": copy, "n": _N_LARGE}


def _count(name: str, key: str, duration: float, ready: Any, go: Any, result: Any) -> None:
    import ferry

    store = ferry.Store(name)
    counters = store[key]
    ready.release()
    go.acquire()
    n = 0
    end = time.perf_counter() + duration
    while time.perf_counter() < end:
        for _ in range(1000):
            counters["n"] += 1
        n += 1000
    result.put((n, counters["n"]))
    store.close()


def measure_scaling(way: Any, duration: float) -> dict[str, Any]:
    """Return how much two processes do of what one does, each with a key of its own."""
    context = multiprocessing.get_context("fork")
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for n_processes in (1, 2):
            ready, go, result = context.Semaphore(0), context.Semaphore(0), context.SimpleQueue()
            processes = []
            for i in range(n_processes):
                way.store[f"counters-{i}"] = {"n": 0}
                arguments = (way.name, f"counters-{i}", duration, ready, go, result)
                processes.append(context.Process(target=_count, args=arguments))
            for process in processes:
                process.start()
            for _ in processes:
                ready.acquire()
            for _ in processes:
                go.release()
            counts = [result.get() for _ in processes]
            for process in processes:
                process.join()
            if any(n != counted for n, counted in counts):
                raise AssertionError(f"increments were lost: {counts}")
            rates[n_processes].append(sum(n for n, _ in counts) / duration)
    one, two = max(rates[1]), max(rates[2])
    return {"seconds": 1 / one, "one": one, "two": two, "ratio": two / one, "cpus": len(os.sched_getaffinity(0))}


def measure_memory(way: Any) -> dict[str, Any]:
    """Return how many bytes elements take."""
    result: dict[str, Any] = {}
    store = way.store
    contents: list[tuple[str, int, Callable[[], Any]]] = [
        ("list of int", _N_SMALL, lambda: list(range(_N_SMALL))),
        ("list of float", _N_SMALL, lambda: [i + 0.5 for i in range(_N_SMALL)]),
        ("list of None", _N_SMALL, lambda: [None] * _N_SMALL),
        ("list of 100 int", 100, lambda: list(range(100))),
        ("dict of 100 int", 100, lambda: {i: i for i in range(100)}),
        ("dict of int to float", _N_ENTRIES, lambda: {i: i + 0.5 for i in range(_N_ENTRIES)}),
    ]
    for name, n, make in contents:
        before = store.bytes_used
        store["sized"] = make()
        result[name] = (store.bytes_used - before) / n
        assert len(store["sized"]) == n
        del store["sized"]
    result["seconds"] = None
    return result


def measure_memory_of_peer(way: Any) -> dict[str, Any]:
    """The same for InterProcessPyObjects: by the distance of what is put before and after."""
    result: dict[str, Any] = {}
    memory = way.memory
    way.begin()
    for name, make in (
        ("list of 100 int", lambda: list(range(100))),
        ("dict of 100 int", lambda: {i: i for i in range(100)}),
    ):
        before = memory.put_obj(1)[1]
        memory.put_obj(make())
        result[name] = (memory.put_obj(1)[1] - before) / 100
    way.end()
    result["seconds"] = None
    return result


def run(way_name: str, duration: float, tasks: list[str]) -> dict[str, Any]:
    """Measure a way; return what was found by task."""
    way = WAYS[way_name]()
    results: dict[str, Any] = {}
    pipe, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=serve, args=(way, theirs), daemon=True)
    process.start()
    theirs.close()
    objects: Objects | None = None
    try:
        if isinstance(way, FerryDict) or not isinstance(way, SharedMemories):
            made = pipe.recv()
            if made != "made":
                raise made
            objects = way.attach()
        else:
            objects = way.attach()
            made = pipe.recv()
            if made != "made":
                raise made
        private = Private().make()
        for name in tasks:
            if name not in way.tasks:
                continue
            try:
                if name in TASKS:
                    results[name] = measure_loop(name, way, objects, private, pipe, duration)
                elif name == "take tree":
                    results[name] = measure_take_tree(way, pipe)
                elif name == "take graph":
                    results[name] = measure_take_graph(way, pipe)
                elif name == "throughput":
                    results[name] = measure_throughput(way, pipe)
                elif name == "scaling":
                    results[name] = measure_scaling(way, max(duration, 0.3))
                elif isinstance(way, SharedMemories):
                    results[name] = measure_memory_of_peer(way)
                else:
                    results[name] = measure_memory(way)
            except AssertionError as error:
                results[name] = {"error": str(error) or "a value was wrong"}
        pipe.send(("end",))
        objects = None
        way.close()
        process.join(10)
    finally:
        if process.is_alive():
            process.terminate()
            process.join()
    return results


def main() -> int:
    """Run the program."""
    way_name, duration, tasks = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
    try:
        results = run(way_name, duration, tasks)
    except BaseException as error:
        traceback.print_exc()
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        return 1
    print(json.dumps(results), flush=True)
    os._exit(0)  # some leave threads and memory behind that complain


if __name__ == "__main__":
    sys.exit(main())
