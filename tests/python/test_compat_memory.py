# SPDX-License-Identifier: LGPL-2.1-or-later
"""`ferry.compat.memory` against what py-sharedmemory documents, and where it promises more."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import pickle
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import pytest
from ferry.compat.memory import SharedMemoryReceiver, SharedMemorySender, create_shared_memory_pair

numpy = pytest.importorskip("numpy")

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = re.findall(r"^```python\n(.*?)^```", (HERE / "py_sharedmemory.md").read_text(), re.MULTILINE | re.DOTALL)
PATIENCE = 30


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request):
    return multiprocessing.get_context(request.param)


@pytest.fixture
def fork():
    return multiprocessing.get_context("fork")


@pytest.fixture
def pair():
    return create_shared_memory_pair(3)


class Point(NamedTuple):
    name: str
    value: int


# ---- the documented programs ----


def run_program(tmp_path, program):
    changed, n = re.subn(
        r"^from (memory|py_sharedmemory) import", "from ferry.compat.memory import", program, flags=re.M
    )
    assert n == 1
    path = tmp_path / "program.py"
    path.write_text(changed)
    # Unbuffered, print() writes a line and its end apart, and two processes write here.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE, env=environment)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return sorted(done.stdout.splitlines())


def test_program_of_version_1(tmp_path):
    program = PROGRAMS[0].replace("capacity=5)", "capacity=5, version=1)")
    assert run_program(tmp_path, program) == ["1 2 an item", "all received", "an item", "nothing"]


def test_program_of_version_2(tmp_path):
    assert run_program(tmp_path, PROGRAMS[1]) == ["all received", *["an item"] * 4]


def test_program_of_version_4(tmp_path):
    assert run_program(tmp_path, PROGRAMS[2]) == ["42 16000000", "all received"]


# ---- arguments, defaults, exceptions ----


def test_types(pair):
    sender, receiver = pair
    assert isinstance(sender, SharedMemorySender) and isinstance(receiver, SharedMemoryReceiver)
    assert sender.capacity == 3
    for item in (
        b"bytes", b"", -1, 2**5000, 1.5, True, None, "text", "", numpy.dtype("f4"), (), [], {}, set(), Point("a", 1),
        {"a": [1, (2.0, {3, b"4"}, Point("x", -0))], 5: {"b": None}}, object, {1, "a", False},
    ):  # fmt: skip
        sender.put(item)
        got = receiver.get()
        assert got == item and type(got) is type(item)


def test_arrays_are_writable(pair):
    sender, receiver = pair
    for array in (numpy.arange(10), numpy.zeros((3, 0)), numpy.asfortranarray(numpy.ones((100, 1000)))):
        sender.put({"array": [array]})
        got = receiver.get()["array"][0]
        assert got.flags.writeable and got.dtype == array.dtype and got.shape == array.shape
        got += 1
        assert (got == array + 1).all()


@pytest.mark.parametrize("capacity", [None, 0])
def test_unlimited(capacity):
    sender, receiver = create_shared_memory_pair(capacity)
    assert sender.capacity == capacity
    for i in range(3000):
        sender.put_nowait(i)
    assert sender.has_space()
    assert not sender.wait_for_all_ack(0.05)
    assert [receiver.get(timeout=PATIENCE) for _ in range(3000)] == list(range(3000))
    assert sender.wait_for_all_ack(PATIENCE)


def test_capacity_is_optional_and_checked():
    assert create_shared_memory_pair()[0].capacity is None
    assert create_shared_memory_pair(numpy.int64(2))[0].capacity == 2
    for wrong in (True, 1.5, "5"):
        with pytest.raises(TypeError):
            create_shared_memory_pair(wrong)
    with pytest.raises(ValueError):
        create_shared_memory_pair(-1)
    with pytest.raises(ValueError):
        create_shared_memory_pair(1, version=3)


def test_full(pair):
    sender, receiver = pair
    for i in range(3):
        assert sender.has_space()
        sender.put(i, False)
    assert not sender.has_space()
    for arguments in ((False,), (True, 0.01), (False, 5)):
        with pytest.raises(queue.Full):
            sender.put(3, *arguments)
    with pytest.raises(queue.Full):
        sender.put_nowait(3)
    began = time.monotonic()
    with pytest.raises(queue.Full):
        sender.put(3, timeout=0.2)
    assert 0.19 < time.monotonic() - began < 5
    assert [receiver.get() for _ in range(3)] == [0, 1, 2]


def test_room_is_free_when_get_returns(pair):
    sender, receiver = pair
    held = []
    for i in range(300):
        if i >= 3:
            held.append(receiver.get_nowait())
        sender.put_nowait(numpy.full(50_000 if i % 50 == 0 else 10, i))
    assert [array[0] for array in held] == list(range(297))


def test_empty_and_both_ways_of_calling_get(pair):
    sender, receiver = pair
    for arguments, keywords, seconds in (
        ((False,), {}, 0),
        ((0,), {}, 0),
        ((0.2,), {}, 0.2),
        ((True, 0.2), {}, 0.2),
        ((), {"timeout": 0.2}, 0.2),
        ((), {"block": False, "timeout": 5}, 0),
        ((numpy.float32(0.2),), {}, 0.2),
        ((numpy.bool_(False),), {}, 0),
        ((1, 0.2), {}, 0.2),
        ((-1,), {}, 0),
    ):
        began = time.monotonic()
        with pytest.raises(queue.Empty):
            receiver.get(*arguments, **keywords)
        took = time.monotonic() - began
        assert seconds * 0.95 <= took < seconds + 3, arguments
    with pytest.raises(queue.Empty):
        receiver.get_nowait()
    for arguments in ((), (3,), (2.5,), (True,), (None,), (False,), (True, 3), (True, None)):
        sender.put(arguments)
        assert receiver.get(*arguments) == arguments


def test_version_1():
    sender, receiver = create_shared_memory_pair(5, version=1)
    assert receiver.get_nowait() is None
    with pytest.raises(queue.Empty):
        receiver.get(0.01)
    sender.put("a")
    assert receiver.get_nowait() == "a"


def test_waiting_for_all(pair):
    sender, receiver = pair
    assert sender.wait_for_all_ack() and sender.wait_for_all_ack(timeout=0)
    sender.put(1)
    sender.put(2)
    began = time.monotonic()
    assert sender.wait_for_all_ack(0.2) is False
    assert time.monotonic() - began > 0.15
    with pytest.raises(ValueError):
        sender.wait_for_all_ack(float("nan"))
    thread = threading.Timer(0.2, lambda: [receiver.get(), receiver.get()])
    thread.start()
    assert sender.wait_for_all_ack() is True
    assert time.monotonic() - began > 0.3
    thread.join()


def test_waiting_for_all_of_what_is_kept():
    """The channel is full all the time, and messages wait in this process: those put later don't count."""
    sender, receiver = create_shared_memory_pair()
    n = 1100
    for i in range(n):
        sender.put(i)
    thread = threading.Thread(target=sender.wait_for_all_ack)
    thread.start()
    for i in range(n):
        time.sleep(0.05 * (i == n // 2))
        assert thread.is_alive()
        sender.put(None)
        assert receiver.get(timeout=PATIENCE) == i
    for _ in range(50):
        thread.join(0.01)
        sender.put(None)
        receiver.get(timeout=PATIENCE)
    done = not thread.is_alive()
    while not sender.wait_for_all_ack(0):
        receiver.get(timeout=PATIENCE)
    thread.join()
    assert done


def test_closing(pair):
    sender, receiver = pair
    sender.put("arrives")
    assert not sender.closed and not sender.is_closed
    with sender:
        pass
    sender.close()
    assert sender.closed and sender.is_closed
    for call in (lambda: sender.put(1), lambda: sender.put_nowait(1), sender.has_space, sender.wait_for_all_ack,
                 sender.__enter__):  # fmt: skip
        with pytest.raises(BrokenPipeError, match="Sender is closed"):
            call()
    with receiver:
        assert receiver.get() == "arrives"
    with pytest.raises(BrokenPipeError, match="Receiver is closed"):
        receiver.get()
    with pytest.raises(BrokenPipeError):
        receiver.get_nowait()


def test_what_cannot_be_encoded_harms_nothing(pair):
    class Hostile:
        def __reduce__(self):
            raise KeyError("no")

    sender, receiver = pair
    sender.put(1)
    for item in (lambda: 0, threading.Lock(), [numpy.ones(100_000), Hostile()]):
        with pytest.raises(Exception):  # noqa: B017 - whatever encoding raises
            sender.put(item)
    sender.put(2)
    sender.put(3)
    assert not sender.has_space()
    assert [receiver.get() for _ in range(3)] == [1, 2, 3]
    assert sender.wait_for_all_ack(PATIENCE)


def test_ends_are_only_inherited(pair):
    for end in pair:
        with pytest.raises(RuntimeError):
            pickle.dumps(end)


# ---- processes ----


def put_range(sender, first, n, size):
    for i in range(first, first + n):
        sender.put(numpy.full(size, i))


def get_some(receiver, results):
    while (item := receiver.get()) is not None:
        results.put(int(item[-1]))


def test_several_producers_and_consumers(context):
    sender, receiver = create_shared_memory_pair(4)
    back, results = create_shared_memory_pair(0)
    sender.put(numpy.full(10, 0))  # used here before the others begin
    producers = [context.Process(target=put_range, args=(sender, 1 + 100 * i, 100, 20_000)) for i in range(3)]
    consumers = [context.Process(target=get_some, args=(receiver, back)) for _ in range(3)]
    for process in producers + consumers:
        process.start()
    for process in producers:
        process.join(PATIENCE)
        assert process.exitcode == 0
    for _ in consumers:
        sender.put(None)
    assert sorted(results.get(timeout=PATIENCE) for _ in range(301)) == list(range(301))
    for process in consumers:
        process.join(PATIENCE)
        assert process.exitcode == 0


def test_a_producer_that_exits_after_put(context):
    sender, receiver = create_shared_memory_pair(10)
    process = context.Process(target=put_range, args=(sender, 5, 3, 200_000))
    process.start()
    process.join(PATIENCE)
    del sender
    got = [receiver.get(timeout=PATIENCE) for _ in range(3)]
    assert [int(array.sum()) for array in got] == [5 * 200_000, 6 * 200_000, 7 * 200_000]
    assert all(array.flags.writeable for array in got)


def put_many_and_exit(sender, n):
    for i in range(n):
        sender.put(i if i % 10 else numpy.full(1000, i))


def test_an_unlimited_producer_that_exits_loses_nothing(context):
    """More than the channel holds: the process ends when all of it is passed on."""
    sender, receiver = create_shared_memory_pair(None)
    n = 3000
    process = context.Process(target=put_many_and_exit, args=(sender, n))
    process.start()
    time.sleep(0.5)  # until it has put them all, and waits to end
    got = [receiver.get(timeout=PATIENCE) for _ in range(n)]
    assert [item if i % 10 else int(item.sum()) // 1000 for i, item in enumerate(got)] == list(range(n))
    process.join(PATIENCE)
    assert process.exitcode == 0
    with pytest.raises(queue.Empty):
        receiver.get_nowait()
    assert sender.wait_for_all_ack(PATIENCE)


def wait_in_get(receiver, started):
    started.set()
    receiver.get()


def test_a_consumer_killed_inside_get(fork):
    sender, receiver = create_shared_memory_pair(2)
    for _ in range(5):
        started = fork.Event()
        process = fork.Process(target=wait_in_get, args=(receiver, started))
        process.start()
        assert started.wait(PATIENCE)
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.join(PATIENCE)
        sender.put(numpy.ones(100_000))
        assert receiver.get(timeout=PATIENCE).sum() == 100_000
    assert sender.wait_for_all_ack(PATIENCE)


def tell_what_comes(receiver, last):
    while True:
        item = receiver.get()
        last.value = int(item[0])


@pytest.mark.parametrize("capacity", [5, None])
def test_a_consumer_killed_while_data_is_flowing(fork, capacity):
    """What it had taken and not told of goes with it, one message at most; room for others comes back."""
    sender, receiver = create_shared_memory_pair(capacity)
    last = fork.Value("q", lock=False)
    n = 300
    for _ in range(5):
        last.value = -1
        process = fork.Process(target=tell_what_comes, args=(receiver, last))
        process.start()
        for i in range(n):
            sender.put(numpy.full(20_000, i))
        assert last.value >= 0 or capacity is None
        # It is still at it: more comes while it dies.
        killer = threading.Timer(0.005, os.kill, (process.pid, signal.SIGKILL))
        killer.start()
        for i in range(n, 2 * n):
            try:
                sender.put(numpy.full(20_000, i), timeout=0.5)
            except queue.Full:
                break
        else:
            i = 2 * n
        killer.join()
        process.join(PATIENCE)
        rest = []
        while not sender.wait_for_all_ack(0):
            rest.append(int(receiver.get(timeout=PATIENCE)[0]))
        assert rest == list(range(i - len(rest), i))
        assert 0 <= i - len(rest) - 1 - last.value <= 1
    assert sender.has_space()


def test_many_messages_take_few_descriptors():
    sender, receiver = create_shared_memory_pair(5000)
    sender.put(1)
    receiver.get()
    before = len(os.listdir("/proc/self/fd"))
    for i in range(5000):
        sender.put(numpy.full(2000, i))
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    got = [receiver.get() for _ in range(5000)]
    assert [array[0] for array in got] == list(range(5000))
    assert len(os.listdir("/proc/self/fd")) <= before + 2


SMALL_SHM = """
import os, subprocess, sys, numpy
from ferry.compat.memory import create_shared_memory_pair
space = os.statvfs("/dev/shm")
assert space.f_blocks * space.f_frsize <= 1 << 20
sender, receiver = create_shared_memory_pair(2)
sender.put(numpy.ones(1 << 22))
print(int(receiver.get().sum()))
"""


def test_a_message_larger_than_dev_shm():
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$0" -c "$1"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, sys.executable, SMALL_SHM]
    try:
        subprocess.run([*command[:3], "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount namespace can be made here")
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if "mount:" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout == f"{1 << 22}\n", done.stderr


def test_nothing_is_left_behind(shm_folder):
    program = (
        "from ferry.compat.memory import *; import numpy; s, r = create_shared_memory_pair(9)\n"
        "for i in range(9): s.put(numpy.ones(10**5))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.listdir(shm_folder) == []
