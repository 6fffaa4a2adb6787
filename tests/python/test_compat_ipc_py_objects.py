# SPDX-License-Identifier: LGPL-2.1-or-later
"""`ferry.compat.ipc_py_objects`: programs that were written for InterProcessPyObjects, and what it gets wrong."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import multiprocessing
import os
import pathlib
import pickle
import resource
import secrets
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any

import numpy
import pytest
from ferry.compat import ipc_py_objects as ipc
from ferry.compat.ipc_py_objects import (
    ASharedMemoryManager,
    FastLimitedDict,
    FastLimitedSet,
    ForceGeneralObjectCopy,
    ForceGeneralObjectInplace,
    ForceMapping,
    ForceStaticObjectCopy,
    ForceStaticObjectInplace,
    QueueType,
    SharedMemory,
    wait_my_turn,
    wait_my_turn_when_has_messages,
)

LIMIT = 30  # seconds: nothing here takes that long
SIZE = 64 << 20
context = multiprocessing.get_context("fork")

# What both programs import, as those of the README do.
TYPES = """
from __future__ import annotations
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Dict, Hashable, List


class CompanyMetrics(IntEnum):
    income = 0
    employees = 1
    avg_salary = 2
    annual_income = 3
    in_a_good_state = 4
    emails = 5
    websites = 6


@dataclass
class Employee:
    first_name: str
    last_name: str
    years_of_employment: int
    salary: float

    def increase_years_of_employment(self):
        self.years_of_employment += 1


@dataclass
class CompanyInfo:
    company_id: int
    income: float
    company_metrics: List[Any]
    some_employee: Employee


@dataclass
class SomeSharedObject:
    some_processing_stage_control: bool
    int_value: int
    str_value: str
    data_dict: Dict[Hashable, Any]
    company_info: CompanyInfo
"""

SENDER = """
from ipc_py_objects import *
from ipc_types import *
import sys

N_RECEIVERS = int(sys.argv[2])


async def main():
    manager = ASharedMemoryManager(SharedMemory(sys.argv[1], create=True, size=200 * 1024**2))
    async with manager as asmm:
        ashared_memory_context_manager = asmm()
        objects = []
        for i in range(N_RECEIVERS):
            company_metrics = intenum_dict_to_list({
                CompanyMetrics.websites: ["http://company.com", "http://company.org"],
                CompanyMetrics.avg_salary: 3_000.0,
                CompanyMetrics.employees: 10,
                CompanyMetrics.in_a_good_state: True,
            })
            sso = SomeSharedObject(
                some_processing_stage_control=False,
                int_value=18 + i,
                str_value="Hello, ",
                data_dict={"key1": 1, ("key", 2): "value", "key3": np.array([[1, 2], [3, 4]], dtype=np.int32)},
                company_info=CompanyInfo(
                    company_id=1,
                    income=2_000_000.0,
                    company_metrics=company_metrics,
                    some_employee=Employee("John", "Smith", years_of_employment=1, salary=100.0),
                ),
            )
            async with ashared_memory_context_manager as shared_memory:
                mapped = shared_memory.value.put_message(sso)
            assert mapped is sso
            objects.append(sso)
        while not all(each.some_processing_stage_control for each in objects):
            async with ashared_memory_context_manager as shared_memory:
                shared_memory.existence = False
        for i, sso in enumerate(objects):
            metrics = sso.company_info.company_metrics
            print(
                sso.int_value, sso.str_value, metrics[CompanyMetrics.employees], metrics[CompanyMetrics.avg_salary],
                metrics[CompanyMetrics.income], metrics[CompanyMetrics.in_a_good_state], metrics[CompanyMetrics.emails],
                list(metrics[CompanyMetrics.websites]), sso.company_info.some_employee.years_of_employment,
                sso.company_info.income, sso.data_dict["key1"], sso.data_dict[("key", 2)],
                sso.data_dict["key3"].tolist(), sep="|",
            )


asyncio.run(main())
"""

RECEIVER = """
from ipc_py_objects import *
from ipc_types import *
import sys


async def main():
    manager = ASharedMemoryManager(SharedMemory(sys.argv[1]))
    async with manager as asmm:
        ashared_memory_context_manager: ASharedMemoryContextManager = asmm()
        async with ashared_memory_context_manager.if_has_messages() as shared_memory:
            sso: SomeSharedObject = shared_memory.value.take_message()
            company_metrics: List = sso.company_info.company_metrics
            some_employee: Employee = sso.company_info.some_employee
            data_dict: Dict = sso.data_dict
            numpy_ndarray: np.ndarray = data_dict["key3"]
        async with ashared_memory_context_manager as shared_memory:
            assert company_metrics[CompanyMetrics.avg_salary] == 3_000.0
            assert company_metrics[CompanyMetrics.employees] == 10
            assert company_metrics[CompanyMetrics.in_a_good_state] is True
            assert list(company_metrics[CompanyMetrics.websites]) == ["http://company.com", "http://company.org"]
            assert company_metrics[CompanyMetrics.income] is None
            company_metrics[CompanyMetrics.annual_income] = 2_000_000.0
            company_metrics[CompanyMetrics.employees] = 20
            company_metrics[CompanyMetrics.avg_salary] = 5_000.0
            company_metrics[CompanyMetrics.in_a_good_state] = None
            company_metrics[CompanyMetrics.in_a_good_state] = False
            company_metrics[CompanyMetrics.avg_salary] += 1.1
            company_metrics[CompanyMetrics.employees] += 1
            company_metrics[CompanyMetrics.emails] = tuple()
            company_metrics[CompanyMetrics.emails] = ("info@company.com",)
            company_metrics[CompanyMetrics.websites] = ["http://company.com", "http://company.org"]
            some_employee.increase_years_of_employment()
            assert sso.str_value == "Hello, "
            sso.int_value += 200
            sso.str_value = "Hello. "
            sso.str_value += "!"
            numpy_ndarray += 10
            numpy_ndarray -= 15
            assert data_dict["key1"] == 1 and data_dict[("key", 2)] == "value"
            data_dict["key1"] = 200
            data_dict["key1"] += 3
            data_dict["key1"] *= 2
            data_dict[("key", 2)] = "value2"
            data_dict[("key", 2)] = data_dict[("key", 2)] + "d"
            data_dict[("key", 2)] += "d"
        async with ashared_memory_context_manager as shared_memory:
            sso.company_info.some_employee.increase_years_of_employment()
            sso.company_info.income = 3_000_000.0
            sso.company_info.income += 500_000.0
            data_dict["key3"] += 10
        async with ashared_memory_context_manager as shared_memory:
            sso.some_processing_stage_control = True


asyncio.run(main())
"""


@pytest.fixture
def name() -> str:
    return f"compat-{os.getpid()}-{secrets.token_hex(4)}"


@pytest.fixture
def creator(name: str) -> Iterator[SharedMemory]:
    with SharedMemory(name, create=True, size=SIZE, creator_destroy_timeout=0) as memory:
        yield memory


@pytest.fixture
def consumer(creator: SharedMemory) -> Iterator[SharedMemory]:
    with SharedMemory(creator.name) as memory:
        assert memory.init_consumer(time_limit=LIMIT)
        yield memory


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None

    def move(self) -> None:
        self.x += 1
        self.y += 1


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a: Any, b: Any) -> None:
        self.a = a
        self.b = b


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value
        self._hidden = 1

    @property
    def double(self) -> Any:
        return self.value * 2

    @double.setter
    def double(self, value: Any) -> None:
        self.value = value // 2


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: int


class Places(IntEnum):
    first = 5
    second = 6
    last = 8


class Running:
    """A function that runs in a process of its own."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._ours, theirs = context.Pipe()

        def run() -> None:
            try:
                theirs.send((True, function(*args)))
            except BaseException as error:
                theirs.send((False, repr(error)))

        self._process = context.Process(target=run)
        self._process.start()
        theirs.close()

    def is_alive(self) -> bool:
        return not self._ours.poll()

    def result(self) -> Any:
        try:
            assert self._ours.poll(LIMIT)
            good, result = self._ours.recv()
        finally:
            self._process.join(5)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
        assert good, result
        return result


def in_process(function: Callable[..., Any], *args: Any) -> Any:
    """Run a function in a process of its own; return what it returns."""
    return Running(function, *args).result()


# ---- programs ----


@pytest.mark.parametrize("module", ["ferry.compat.ipc_py_objects", "ferry.compat.ipc_py_objects.versions.v_1"])
@pytest.mark.parametrize("n_receivers", [1, 3])
def test_program(name: str, tmp_path: pathlib.Path, n_receivers: int, module: str) -> None:
    """Only the import is changed; strings hash differently in each process."""
    (tmp_path / "ipc_types.py").write_text(TYPES)
    environment = {**os.environ, "PYTHONHASHSEED": "random"}
    processes = []
    for i, text in enumerate([RECEIVER] * (n_receivers - 1) + [SENDER, RECEIVER]):
        program = tmp_path / f"program{i}.py"
        program.write_text(text.replace("from ipc_py_objects import", f"from {module} import"))
        environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        arguments = [sys.executable, str(program), name, str(n_receivers)]
        process = subprocess.Popen(
            arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        processes.append((text, process))
    output = ""
    try:
        for text, process in processes:
            out, err = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, err
            assert "Error" not in err
            if text is SENDER:
                output = out
    finally:
        for _, process in processes:
            process.kill()
            process.wait()
    lines = output.splitlines()
    assert len(lines) == n_receivers
    for i, line in enumerate(lines):
        assert line.split("|") == [
            str(218 + i),
            "Hello. !",
            "21",
            "5001.1",
            "None",
            "False",
            "('info@company.com',)",
            "['http://company.com', 'http://company.org']",
            "3",
            "3500000.0",
            "406",
            "value2dd",
            "[[6, 7], [8, 9]]",
        ]


def test_classes_of_main(name: str, tmp_path: pathlib.Path) -> None:
    """Both programs define the class."""
    common = """
        import sys
        from dataclasses import dataclass
        from ferry.compat.ipc_py_objects import *

        @dataclass
        class Thing:
            value: int

            def add(self):
                self.value += 1
    """
    sender = """
        with SharedMemory(sys.argv[1], create=True, size=10 * 2**20) as memory:
            memory.wait_consumer_ready()
            thing = Thing(1)
            with wait_my_turn(memory):
                memory.put_message(thing)
            memory.wait_consumer_closed()
            print(thing.value, thing)
    """
    receiver = """
        with SharedMemory(sys.argv[1]) as memory:
            memory.init_consumer()
            with wait_my_turn_when_has_messages(memory):
                memory.take_message().add()
    """
    processes = []
    for word, text in (("sender", sender), ("receiver", receiver)):
        program = tmp_path / f"{word}.py"
        program.write_text(textwrap.dedent(common) + textwrap.dedent(text))
        processes.append(subprocess.Popen([sys.executable, str(program), name], stdout=subprocess.PIPE, text=True))
    try:
        assert processes[0].communicate(timeout=LIMIT)[0] == "2 Thing(value=2)\n"
        assert processes[1].wait(LIMIT) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()


# ---- messages ----


def test_queue(creator: SharedMemory, consumer: SharedMemory) -> None:
    assert not creator.has_messages() and not consumer.has_messages()
    for i in range(4):
        assert (creator if i % 2 else consumer).put_message(i) == i
    assert creator.has_messages() and consumer.read_message() == 0 and consumer.take_message() == 0
    assert consumer.read_message(QueueType.lifo) == 3 and creator.take_message(QueueType.lifo) == 3
    assert creator.get_message(7) == 1 and creator.pop_message(7) == 1 and creator.pop_message() == 2
    for empty in (creator.take_message, creator.take_message_2, creator.read_message, creator.read_message_2):
        with pytest.raises(ipc.NoMessagesInQueueError, match=creator.name):
            empty()
    assert creator.get_message() is None and creator.get_message(7) == 7 and creator.pop_message(7) == 7
    assert creator.get_message_2(7) == (7, None) and creator.pop_message_2() == (None, None)
    assert creator.read_message_info() == (None, None, None)
    assert not creator.wait_for_messages(time_limit=0.01)


def test_queue_type_of_constructor(name: str) -> None:
    with SharedMemory(name, True, SIZE, QueueType.lifo) as memory:
        memory.put_message(1)
        memory.put_message(2)
        assert memory.queue_type is QueueType.lifo
        assert memory.take_message() == 2 and memory.take_message(QueueType.fifo) == 1


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 1 << 200, -(1 << 63), 2.5, 1 + 2j, "häß\ud800", "", b"bytes", b"", bytearray(b"x"), (1, (2, "a"))],
    ids=repr,
)
@pytest.mark.parametrize("with_offset", [False, True])
def test_values_are_copies(creator: SharedMemory, consumer: SharedMemory, value: Any, with_offset: bool) -> None:
    if with_offset:
        mapped, offset = creator.put_message_2(value)
        taken, theirs = consumer.take_message_2()
        assert offset == theirs and creator.get_obj(offset) == consumer.get_obj(int(theirs)) == value
    else:
        mapped = creator.put_message(value)
        taken, theirs = consumer.take_message_2()
        assert consumer.get_obj(theirs) == value
    assert mapped is value
    assert type(taken) is type(value) and taken == value


def test_live_objects(creator: SharedMemory, consumer: SharedMemory) -> None:
    original = [1, {"a": [2]}, {3}, (4, [5])]
    mapped = creator.put_message(original)
    taken = consumer.take_message()
    taken[1]["a"].append(6)
    taken[2].add(7)
    taken[3][1].append(8)
    taken.append(9)
    assert mapped == [1, {"a": [2, 6]}, {3, 7}, (4, [5, 8]), 9]
    assert original == [1, {"a": [2]}, {3}, (4, [5])]


def test_sequence_protocol(creator: SharedMemory, consumer: SharedMemory) -> None:
    """What IPPO's containers don't have."""
    creator.put_message([5, 3, 1, 4])
    numbers = consumer.take_message()
    numbers.sort()
    assert numbers[-1] == 5 and numbers[1:3] == [3, 4] and numbers == [1, 3, 4, 5]
    creator.put_message({1, 2})
    assert consumer.take_message() | {3} == {1, 2, 3}
    creator.put_message({str(i): float(i) for i in range(1000)})
    floats = consumer.take_message()
    assert list(floats) == [str(i) for i in range(1000)] and sum(floats.values()) == 499500.0
    creator.put_message([True, Places.last, 1 << 100, 1j, slice(1, 2)])
    assert list(map(repr, consumer.take_message())) == [
        "True",
        repr(Places.last),
        str(1 << 100),
        "1j",
        "slice(1, 2, None)",
    ]
    shared: list[Any] = []
    creator.put_message([shared, shared])
    one, other = consumer.take_message()
    one.append(1)
    assert other == [1]


def test_arrays(creator: SharedMemory, consumer: SharedMemory) -> None:
    for array in (numpy.arange(6).reshape(2, 3), numpy.asfortranarray(numpy.ones((2, 3))), numpy.array(5.0)):
        mapped, offset = creator.put_message_2(array)
        taken, theirs = consumer.take_message_2()
        taken += 1
        assert (mapped == array + 1).all() and mapped.flags.f_contiguous == array.flags.f_contiguous
        assert offset == theirs
        buffer = creator.get_obj_buffer(offset)
        assert buffer.nbytes == array.nbytes and not buffer.readonly
        buffer[:] = bytes(len(buffer))
        assert not taken.any()
        address, size = creator.get_obj_buffer_2(offset)
        assert size == array.nbytes and address


def test_buffers(creator: SharedMemory, consumer: SharedMemory) -> None:
    for value, content in ((b"bytes", b"bytes"), (bytearray(b"array"), b"array"), ("häß", "häß".encode())):
        _, offset = creator.put_message_2(value)
        taken, theirs = consumer.take_message_2()
        assert taken == value and bytes(creator.get_obj_buffer(offset)) == content
        consumer.get_obj_buffer(theirs)[0:1] = b"B"
        assert bytes(creator.get_obj_buffer(int(offset))) == b"B" + content[1:]
        creator.put_message(value)
        _, theirs = consumer.take_message_2()
        assert bytes(consumer.get_obj_buffer(theirs)) == content
    _, offset = creator.put_message_2([1])
    with pytest.raises(ipc.WrongObjectTypeError, match="List"):
        creator.get_obj_buffer(offset)
    array = ipc.make_numpy_array_from_obj_offset(creator, creator.put_obj(bytes(24))[1], (3,), numpy.int64)
    assert array.tolist() == [0, 0, 0]
    with pytest.raises(ipc.ObjBufferIsSmallerThanRequestedNumpyArrayError, match="32 bytes"):
        ipc.make_numpy_array_from_obj_offset(creator, creator.put_obj(bytes(24))[1], (4,), numpy.int64)


def test_objects_by_number(creator: SharedMemory, consumer: SharedMemory) -> None:
    mapped, offset, size = creator.put_obj([1])
    assert isinstance(offset, int) and size > 0
    consumer.get_obj(int(offset)).append(2)
    assert mapped == creator.get_object(offset) == [1, 2]
    assert creator.map_object({"a": 1}) == {"a": 1}
    creator.destroy_obj(offset)
    assert mapped == [1, 2]  # nobody loses what it has
    del mapped
    with pytest.raises(ipc.WrongObjectTypeError, match="destroyed"):
        creator.get_obj(offset)
    with pytest.raises(ipc.WrongObjectTypeError):
        creator.destroy_object(offset)
    for wrong in (0, 1, 12345, -5, 1 << 60):
        with pytest.raises(ipc.WrongObjectTypeError):
            consumer.get_obj(wrong)
    _, _, message = creator.write_message([4])
    creator.put_message(5)
    creator.destroy_message(message)
    assert creator.take_message() == 5 and not creator.has_messages()


def test_memory_is_free_again(creator: SharedMemory, consumer: SharedMemory) -> None:
    """Without any call of destroy_obj(), with and without numbers."""

    def pass_on() -> None:
        for value in (bytes(100_000), [list(range(100)) for _ in range(20)], Point(1, "x" * 50_000)):
            creator.put_message(value)
            consumer.take_message()
            creator.put_message_2(value)
            consumer.take_message_2()
            creator.put_obj(value)

    pass_on()
    before = creator.store.bytes_used
    for _ in range(20):
        pass_on()
    assert creator.store.bytes_used <= before + 100_000


def test_size_is_a_bound(name: str) -> None:
    with SharedMemory(name, create=True, size=4 << 20) as memory:
        assert memory.size == 4 << 20
        for large in (
            bytes(5 << 20),
            "x" * (5 << 20),
            [1.5] * (5 << 17),
            numpy.zeros(5 << 20, "u1"),
            bytearray(5 << 20),
        ):
            with pytest.raises(ipc.FreeMemoryChunkNotFoundError, match="larger size"):
                memory.put_message(large)
            assert issubclass(ipc.FreeMemoryChunkNotFoundError, ipc.SharedMemoryError)
        assert not memory.has_messages()
        n = 0
        with pytest.raises(ipc.FreeMemoryChunkNotFoundError):
            while True:
                memory.put_message(bytes(100_000))
                n += 1
        assert n >= 20
        for _ in range(n):
            memory.take_message()
        memory.put_message(bytes(2 << 20))


def test_taking_does_not_depend_on_the_size(creator: SharedMemory, consumer: SharedMemory) -> None:
    def measure(n_nodes: int) -> float:
        live = creator.put_message([[i] for i in range(n_nodes)])
        for _ in range(300):
            creator.put_message(live)
        times = []
        for _ in range(300):
            began = time.perf_counter()
            taken = consumer.take_message()
            times.append(time.perf_counter() - began)
            assert len(taken) == n_nodes
        consumer.take_message()
        return sorted(times)[len(times) // 4]

    small = measure(10)
    assert measure(50_000) < small * 4 + 20e-6


# ---- instances ----


@pytest.mark.parametrize("wrap", [lambda x: x, ForceStaticObjectInplace, ForceGeneralObjectInplace], ids=["", "s", "g"])
@pytest.mark.parametrize(
    "make", [lambda: Point(1, 2), lambda: Slotted(1, 2), lambda: Plain(1)], ids=["dc", "slots", "dict"]
)
def test_in_place(
    creator: SharedMemory, consumer: SharedMemory, make: Callable[[], Any], wrap: Callable[[Any], Any]
) -> None:
    mine = make()
    names = [name for name in ("x", "y", "a", "b", "value") if hasattr(mine, name)]
    mapped = creator.put_message(wrap(mine))
    assert mapped is mine and isinstance(mine, type(make()))
    theirs = consumer.take_message()
    for name in names:
        assert getattr(theirs, name) == getattr(mine, name)
        setattr(theirs, name, 10)
        assert getattr(mine, name) == 10
        setattr(mine, name, [1])
        getattr(theirs, name).append(2)
        assert getattr(mine, name) == [1, 2]


@pytest.mark.parametrize("wrap", [ForceStaticObjectCopy, ForceGeneralObjectCopy])
def test_copy(creator: SharedMemory, consumer: SharedMemory, wrap: Callable[[Any], Any]) -> None:
    mine = Point(1, [2])
    mapped = creator.put_message(wrap(mine))
    theirs = consumer.take_message()
    theirs.x = 5
    theirs.y.append(3)
    assert mapped is not mine and type(mine) is Point and mine == Point(1, [2])
    assert mapped.x == 5 and mapped.y == [2, 3]


def test_methods_and_properties(creator: SharedMemory, consumer: SharedMemory) -> None:
    point, plain = Point(1, 2), Plain(4)
    creator.put_message([point, plain])
    their_point, their_plain = consumer.take_message()
    their_point.move()
    point.move()
    assert (point.x, point.y) == (3, 4) and point == Point(3, 4) and repr(point) == repr(Point(3, 4))
    their_plain.double = 20
    assert plain.value == 10 and plain.double == 20
    their_plain.new = "shared"
    assert plain.new == "shared"
    plain.other = [1]
    assert their_plain.other == [1]
    del plain.other
    assert not hasattr(their_plain, "other")
    with pytest.raises(AttributeError):
        plain.missing  # noqa: B018


def test_nested_instances_become_shared(creator: SharedMemory, consumer: SharedMemory) -> None:
    inner, deep, kept = Point(1), Point(2), Point(3)
    outer = Point(4, {"inner": inner, "list": [0, (deep,)], "copy": ForceStaticObjectCopy(kept)})
    mapped = creator.put_message([True, outer, outer])
    assert type(kept) is Point
    theirs = consumer.take_message()
    assert theirs[1] is theirs[2] or theirs[1] == theirs[2]
    theirs[1].y["inner"].x = 10
    theirs[1].y["list"][1][0].x = 20
    theirs[1].y["copy"].x = 30
    assert (inner.x, deep.x, kept.x) == (10, 20, 3) and mapped[1].y["copy"].x == 30
    outer.y = inner
    assert theirs[1].y.x == 10
    inner.x = 11
    assert theirs[1].y.x == mapped[2].y.x == 11


def test_shared_instances_are_put_again(creator: SharedMemory, consumer: SharedMemory) -> None:
    point = Point(1)
    creator.put_message(point)
    first = consumer.take_message()
    for again in (point, [point], {"a": (point,)}, Point(2, point)):
        creator.put_message(again)
        taken = consumer.take_message()
        second = taken.y if isinstance(taken, Point) and taken.y is not None else taken
        second = second[0] if isinstance(again, list) else second["a"][0] if isinstance(again, dict) else second
        second.x += 1
        assert first.x == point.x == second.x
    live = creator.put_message([None])
    live[0] = point  # assigned by hand
    live[0].x = 100
    assert point.x == first.x == 100


def test_instances_are_copied_and_pickled(creator: SharedMemory) -> None:
    point = Point(1, [2])
    creator.put_message(point)
    plain = copy.deepcopy(point)
    assert type(plain) is Point and plain == Point(1, [2])
    plain.y.append(3)
    assert point.y == [2]
    other = pickle.loads(pickle.dumps(point))
    other.x = 7
    assert point.x == 7


def test_cycles(creator: SharedMemory, consumer: SharedMemory) -> None:
    one, other = Point(1), Point(2)
    one.y, other.y = other, one
    ring: list[Any] = [one]
    ring.append(ring)
    creator.put_message(ring)
    taken = consumer.take_message()
    taken[1][1][0].y.y.y.x = 5
    assert other.x == 5 and one.y.y.x == 1


def test_frozen_instances(creator: SharedMemory, consumer: SharedMemory) -> None:
    mine = Frozen(1)
    creator.put_message(mine)
    assert consumer.take_message().a == 1 and mine.a == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        mine.a = 2  # type: ignore[misc]


def test_wrappers(creator: SharedMemory, consumer: SharedMemory) -> None:
    creator.put_message([True, 2, FastLimitedSet({"Hello ", 3}), FastLimitedDict({1: "Hello ", "2": numpy.arange(3)})])
    taken = consumer.take_message()
    assert taken[2] == {"Hello ", 3} and taken[3][1] == "Hello " and taken[3]["2"].tolist() == [0, 1, 2]
    mapped = creator.put_message(FastLimitedDict({"a": [1]}))
    taken = consumer.take_message()
    taken["a"].append(2)
    taken["b"] = 1
    assert mapped == {"a": [1, 2], "b": 1}
    for wrapped, value in (
        (FastLimitedSet({1, 2}), {1, 2}),
        (ForceMapping({1: 2}), {1: 2}),
        (ipc.SmallInt(5), 5),
        (ipc.BigInt(1 << 70), 1 << 70),
        ([ipc.BigInt(1 << 70), ipc.sint(1)], [1 << 70, 1]),
        ((FastLimitedSet({1}),), ({1},)),
        (ForceStaticObjectCopy(Point(1)), Point(1)),
    ):
        creator.put_message(wrapped)
        assert consumer.take_message() == value


def test_unhashed_dicts_between_processes(creator: SharedMemory) -> None:
    """A dict of str is found by a process whose str hash differently."""
    creator.put_message({"key": 1, ("a", 2.5): 2, frozenset("ab"): 3})
    program = f"""
import os
from ferry.compat.ipc_py_objects import *
with SharedMemory({creator.name!r}) as memory:
    memory.init_consumer()
    taken = memory.take_message()
    print(taken["key"], taken[("a", 2.5)], taken[frozenset("ab")])
"""
    for seed in ("1", "2"):
        if seed == "2":
            creator.put_message({"key": 1, ("a", 2.5): 2, frozenset("ab"): 3})
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        result = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert result.stdout == "1 2 3\n", result.stderr


def test_intenum_lists() -> None:
    listed = ipc.intenum_dict_to_list({Places.last: "c", Places.first: "a"})
    assert listed == [None] * 5 + ["a", None, None, "c"] and listed[Places.first] == "a"
    assert ipc.intenum_dict_to_list({}, Places) == [None] * 9
    assert ipc.intenum_list_to_dict(listed, Places) == {Places.first: "a", Places.second: None, Places.last: "c"}
    assert ipc.intenum_list_to_dict([1, 2]) == ipc.list_to_dict([1, 2]) == {0: 1, 1: 2}
    assert ipc.dict_to_list({2: "x", 0: "y"}) == ["y", None, "x"]
    with pytest.raises(ValueError, match="neither"):
        ipc.intenum_dict_to_list({})
    with pytest.raises(ValueError, match="not a valid Places"):
        ipc.intenum_list_to_dict([1], Places)
    with pytest.raises(ValueError, match="negative"):
        ipc.dict_to_list({-1: 2})


# ---- opening and closing ----


def test_attributes(creator: SharedMemory, consumer: SharedMemory) -> None:
    assert (creator.size, creator.create, creator.consumer_id) == (SIZE, True, None)
    assert (consumer.size, consumer.create, consumer.consumer_id) == (SIZE, False, 0)
    assert creator.name == consumer.name
    for wrong in ("", "a/b", 5):
        with pytest.raises(ValueError, match="name"):
            SharedMemory(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size"):
        SharedMemory("x", True, 0)
    with pytest.raises(AttributeError, match="Ferry's own"):
        creator.malloc  # noqa: B018
    with pytest.raises(AttributeError, match="nothing"):
        creator.nothing  # noqa: B018


def test_size_may_be_left_out(name: str) -> None:
    with SharedMemory(name, create=True) as memory:
        assert memory.size is not None and memory.size > 1 << 20


def test_without_the_other_side(name: str) -> None:
    with SharedMemory(name) as memory:
        began = time.monotonic()
        assert memory.size is None and memory.init_consumer(time_limit=0.2) is False
        assert 0.15 < time.monotonic() - began < 5
        for call in (memory.has_messages, memory.take_message, memory.wait_my_turn, lambda: memory.put_message(1)):
            with pytest.raises(ipc.SharedMemoryError, match="init_consumer"):
                call()
    with SharedMemory(name, create=True, size=SIZE) as memory:
        assert memory.wait_consumer_ready(time_limit=0.05) is False
    with pytest.raises(ipc.SharedMemoryError, match="closed"):
        memory.has_messages()
    memory.close()


def test_consumer_comes_first(name: str) -> None:
    """It sleeps until there is a creator."""

    def consume() -> tuple[bool, Any, float]:
        began = resource.getrusage(resource.RUSAGE_SELF)
        with SharedMemory(name) as memory:
            came = memory.init_consumer(time_limit=LIMIT)
            ended = resource.getrusage(resource.RUSAGE_SELF)
            memory.wait_for_messages(LIMIT)
            return came, memory.take_message(), ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime

    running = Running(consume)
    time.sleep(1)
    with SharedMemory(name, create=True, size=SIZE) as memory:
        assert memory.wait_consumer_ready(LIMIT)
        memory.put_message("hello")
        came, message, seconds = running.result()
    assert came and message == "hello" and seconds < 0.5


def test_unlink_old(name: str) -> None:
    with SharedMemory(name, create=True, size=SIZE, creator_destroy_timeout=0) as old:
        old.put_message("old")
        with pytest.raises(FileExistsError, match="alive"):
            SharedMemory(name, create=True, size=SIZE, unlink_old=False)
        with SharedMemory(name) as old_consumer:
            assert old_consumer.init_consumer(LIMIT)
            with SharedMemory(name, create=True, size=2 * SIZE, creator_destroy_timeout=0) as new:
                assert not new.has_messages()
                with SharedMemory(name) as new_consumer:
                    assert new_consumer.init_consumer(LIMIT) and new_consumer.size == 2 * SIZE
                    new.put_message("new")
                    assert new_consumer.take_message() == "new"
                assert old_consumer.take_message() == "old"
                old.put_message("still")
                assert old_consumer.take_message() == "still"


def test_old_of_a_killed_creator(name: str) -> None:
    ready = context.Event()

    def create() -> None:
        memory = SharedMemory(name, create=True, size=SIZE)
        memory.put_message([1])
        ready.set()
        time.sleep(LIMIT)

    process = context.Process(target=create)
    process.start()
    assert ready.wait(LIMIT)
    with SharedMemory(name) as consumer:
        assert consumer.init_consumer(LIMIT)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert consumer.take_message() == [1]
        with SharedMemory(name, create=True, size=2 * SIZE, unlink_old=False, creator_destroy_timeout=0) as memory:
            assert memory.size == 2 * SIZE


def test_unlink_by_name(creator: SharedMemory) -> None:
    SharedMemory.unlink_by_name(creator.name)
    with SharedMemory(creator.name) as memory:
        assert not memory.init_consumer(0.05)
    creator.put_message(1)
    assert creator.take_message() == 1


def test_consumer_ids(creator: SharedMemory) -> None:
    def consume(number: int | None) -> SharedMemory:
        memory = SharedMemory(creator.name, consumer_id=number)
        assert memory.init_consumer(LIMIT)
        return memory

    first, second, chosen = consume(None), consume(None), consume(7)
    assert [memory.consumer_id for memory in (first, second, chosen)] == [0, 1, 7]
    with pytest.raises(ipc.SharedMemoryError, match="consumer 7 already"):
        consume(7)
    first.close()
    third = consume(None)
    assert third.consumer_id == 0
    for memory in (second, third, chosen):
        memory.close()


def test_creator_waits_for_consumers_to_close(name: str) -> None:
    ready = context.Event()

    def consume(seconds: float) -> None:
        with SharedMemory(name) as memory:
            memory.init_consumer(LIMIT)
            ready.set()
            time.sleep(seconds)

    for seconds, timeout, least, most in ((0.5, LIMIT, 0.3, 10), (LIMIT, 0.2, 0.15, 5)):
        ready.clear()
        memory = SharedMemory(name, create=True, size=SIZE, creator_destroy_timeout=timeout)
        process = context.Process(target=consume, args=(seconds,))
        process.start()
        assert ready.wait(LIMIT) and memory.get_consumer_ready()
        began = time.monotonic()
        memory.close()
        assert least < time.monotonic() - began < most
        process.kill()
        process.join()


def test_creator_does_not_wait_for_a_killed_consumer(name: str) -> None:
    ready = context.Event()

    def consume() -> None:
        memory = SharedMemory(name)
        memory.init_consumer(LIMIT)
        ready.set()
        time.sleep(LIMIT)

    memory = SharedMemory(name, create=True, size=SIZE, creator_destroy_timeout=LIMIT)
    process = context.Process(target=consume)
    process.start()
    assert ready.wait(LIMIT)
    threading.Timer(0.3, process.kill).start()
    began = time.monotonic()
    memory.close()
    assert time.monotonic() - began < 5
    process.join()


# ---- turns ----


def test_turns(creator: SharedMemory, consumer: SharedMemory) -> None:
    assert creator.wait_my_turn(time_limit=LIMIT) and creator.wait_my_turn() and creator.is_in_line()
    assert creator.creator_in_charge() and not creator.consumer_in_charge()
    assert consumer.creator_in_charge() and not consumer.get_in_line()
    assert not consumer.wait_my_turn(time_limit=0.05, periodic_sleep_time=0.001)
    with pytest.raises(ipc.OperationTimedOutError, match=r"0\.05 seconds"), wait_my_turn(consumer, time_limit=0.05):
        pass
    assert issubclass(ipc.OperationTimedOutError, ipc.SharedMemoryError)
    creator.release()
    creator.release()
    with wait_my_turn(consumer, time_limit=LIMIT):
        assert consumer.consumer_in_charge() and not creator.get_in_line()
    with ipc.get_in_line(creator) as mine:
        assert mine
        with ipc.get_in_line(consumer) as theirs:
            assert not theirs
    with pytest.raises(ipc.OperationTimedOutError, match="no message"):
        wait_my_turn_when_has_messages(consumer, time_limit=0.05).__enter__()
    assert not consumer.is_in_line()
    creator.put_message(1)
    with wait_my_turn_when_has_messages(consumer, time_limit=LIMIT):
        assert consumer.take_message() == 1


def test_turns_exclude(creator: SharedMemory) -> None:
    """Many processes that do what is no single operation."""
    counts = creator.map_object([0, 0])
    creator.put_message(counts)

    def work() -> None:
        with SharedMemory(creator.name) as memory:
            memory.init_consumer(LIMIT)
            mine = memory.read_message()
            for _ in range(200):
                with wait_my_turn(memory, time_limit=LIMIT):
                    before = mine[0]
                    mine[1] = before + 1
                    mine[0] = before + 1

    processes = [context.Process(target=work) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LIMIT)
        assert process.exitcode == 0
    assert counts == [800, 800]


@pytest.mark.parametrize("in_line", [False, True])
def test_killed_in_its_turn(creator: SharedMemory, in_line: bool) -> None:
    """Who dies in its turn, or waiting for it, keeps nobody from going on."""
    ready = context.Event()

    def hold() -> None:
        memory = SharedMemory(creator.name)
        memory.init_consumer(LIMIT)
        if in_line:
            ready.set()
        memory.wait_my_turn()
        ready.set()
        time.sleep(LIMIT)

    if in_line:
        assert creator.wait_my_turn()
    process = context.Process(target=hold)
    process.start()
    assert ready.wait(LIMIT)
    if in_line:
        time.sleep(0.3)
    process.kill()
    process.join()
    creator.release()
    began = time.monotonic()
    assert creator.wait_my_turn(time_limit=LIMIT)
    assert time.monotonic() - began < 1
    creator.release()


def test_waiting_sleeps(creator: SharedMemory) -> None:
    """Also while others change things all the time."""

    def wait() -> float:
        began = resource.getrusage(resource.RUSAGE_SELF)
        with SharedMemory(creator.name) as memory:
            memory.init_consumer(LIMIT)
            assert not memory.wait_my_turn(time_limit=1.5)
        ended = resource.getrusage(resource.RUSAGE_SELF)
        return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime

    creator.wait_my_turn()
    running = Running(wait)
    counter = creator.map_object([0])
    while running.is_alive():
        counter[0] += 1
    assert running.result() < 1.0 and counter[0] > 1000


def test_fork_does_not_take_the_turn_along(creator: SharedMemory) -> None:
    creator.wait_my_turn()

    def child() -> tuple[bool, bool]:
        had = creator.is_in_line()
        creator.release()
        return had, creator.wait_my_turn(time_limit=0.1)

    assert in_process(child) == (False, False)
    assert creator.is_in_line()


# ---- asyncio ----


def run(coroutine: Any) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(coroutine, LIMIT)

    return asyncio.run(limited())


def test_manager(name: str) -> None:
    async def create() -> list[Any]:
        received = []
        async with ASharedMemoryManager(SharedMemory(name, create=True, size=SIZE)) as manager:
            asmcm = manager()
            async with asmcm as holder:
                assert holder.existence is True and bool(holder) and holder.value.create
                message = holder.value.put_message({"n": 1, "done": False})
            while not message["done"]:
                await asyncio.sleep(0.01)
            for _ in range(2):
                async with asmcm.if_has_messages() as holder:
                    received.append(holder.value.take_message())
                    holder.existence = False
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asmcm.has_messages(), 0.05)
            async with asmcm.anyway() as holder:
                with pytest.raises(RuntimeError, match="outside"):
                    await asmcm.has_messages()
                with pytest.raises(RuntimeError, match="of its own"):
                    await asmcm.__aenter__()
        assert manager.closed
        return received

    def consume() -> int:
        async def main() -> int:
            memory = SharedMemory(name)
            async with ASharedMemoryManager(memory, save_cpu_time=True) as manager:
                async with manager(if_has_messages=True) as holder:
                    taken = holder.value.take_message()
                async with manager() as holder:
                    holder.value.put_message(taken["n"] + 1)
                    holder.value.put_message(taken["n"] + 2)
                    taken["done"] = True
                return memory.consumer_id or 0

        return run(main())

    running = Running(consume)
    assert run(create()) == [2, 3]
    assert running.result() == 0


def test_manager_gives_up(name: str) -> None:
    async def main() -> None:
        for create, who in ((False, "creator"), (True, "consumer")):
            with pytest.raises(ipc.OperationTimedOutError, match=who):
                async with ASharedMemoryManager(SharedMemory(name, create, SIZE), time_limit=0.1):
                    pass

    run(main())


def test_many_coroutines(creator: SharedMemory) -> None:
    """Several coroutines of several processes; each block sees what no other process changes meanwhile."""
    counts = creator.map_object([0, 0])
    creator.put_message(counts)

    def work() -> None:
        async def main() -> None:
            async with ASharedMemoryManager(SharedMemory(creator.name)) as manager:
                mine = manager.shared_memory.read_message()

                async def one() -> None:
                    asmcm = manager()
                    for i in range(20):
                        async with asmcm as holder:
                            before = mine[0]
                            mine[0] = before + 1
                            if i % 5 == 0:
                                holder.existence = False
                                seen = mine[0]
                                await asyncio.sleep(0)
                                assert mine[0] >= seen

                await asyncio.gather(*(one() for _ in range(5)))

        run(main())

    processes = [context.Process(target=work) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LIMIT)
        assert process.exitcode == 0
    assert counts == [300, 0]


def test_one_message_for_many(creator: SharedMemory) -> None:
    """Of those that wait for a message only one gets it; the others wait on."""

    def consume() -> list[Any]:
        async def main() -> list[Any]:
            taken = []
            async with ASharedMemoryManager(SharedMemory(creator.name)) as manager:

                async def one() -> None:
                    asmcm = manager()
                    while True:
                        async with asmcm.if_has_messages() as holder:
                            message = holder.value.take_message()
                        if message is None:
                            return
                        taken.append(message)

                await asyncio.gather(one(), one())
            return taken

        return run(main())

    running = [Running(consume) for _ in range(2)]
    for i in range(40):
        creator.put_message(i)
        if i % 10 == 0:
            time.sleep(0.05)
    for _ in range(4):
        creator.put_message(None)
    assert sorted(sum((each.result() for each in running), [])) == list(range(40))


def test_cancelled_coroutines(creator: SharedMemory) -> None:
    async def main() -> None:
        memory = SharedMemory(creator.name)
        async with ASharedMemoryManager(memory) as manager:
            creator.wait_my_turn()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(manager().__aenter__(), 0.1)
            waiting = [asyncio.ensure_future(manager().__aenter__()) for _ in range(3)]
            await asyncio.sleep(0.05)
            waiting[0].cancel()
            waiting[1].cancel()
            await asyncio.sleep(0.05)
            creator.release()
            await asyncio.wait_for(waiting[2], LIMIT)
            assert memory.is_in_line()
            manager._leave(True)
            assert not memory.is_in_line()
            assert creator.wait_my_turn(time_limit=LIMIT)
            creator.release()

    run(main())
