# SPDX-License-Identifier: LGPL-2.1-or-later
"""Large bytes are received where they lie, and nobody can tell but by the time that it takes."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import multiprocessing
import os
import pickle
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import ferry
import pytest

MIB = 1024 * 1024
SIZE = MIB + 12345
TRANSPORTS = ["memfd", "posix-shm"]


def pattern(seed: int, size: int = SIZE) -> bytes:
    unit = hashlib.sha256(b"%d" % seed).digest() * 8
    return (unit * (size // len(unit) + 1))[:size]


def in_message(obj: bytes) -> bool:
    """Tell whether the object is in memory of a channel."""
    with open("/proc/self/maps", encoding="ascii") as maps:
        for line in maps:
            begin, end = (int(part, 16) for part in line.split(" ", 1)[0].split("-"))
            if begin <= id(obj) < end:
                return "memfd:ferry-data" in line or "/dev/shm/" in line
    return False


def count_mappings() -> int:
    with open("/proc/self/maps", encoding="ascii") as maps:
        return sum(1 for _ in maps)


def is_left(name: str) -> bool:
    """Tell whether the channel has left a name."""
    return any(name in entry for entry in os.listdir("/dev/shm"))


@pytest.fixture
def queue():
    q = ferry.Queue(4)
    yield q
    q.close()


@pytest.fixture
def channel_name():
    return f"in-place-{secrets.token_hex(8)}"


def pass_on(queue: Any, obj: object) -> Any:
    queue.put(obj)
    return queue.get(timeout=20)


def in_child(function: Callable[[], bool]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if function() else 2
        finally:
            os._exit(code)
    return pid


def await_byte(fd: int) -> None:
    assert select.select([fd], [], [], 20)[0], "the other process did not come that far"
    assert os.read(fd, 1) == b"x"


def wait_for(pid: int) -> None:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# ---- such bytes are bytes ----


def over_queue(obj: bytes, transport: str) -> bytes:
    q = ferry.Queue(4, transport=transport)
    q.put(obj)
    return q.get(timeout=20)


def over_pipe(obj: bytes, transport: str) -> bytes:
    a, b = ferry.Pipe()
    with a, b:
        a.send(obj)
        return b.recv()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("over", [over_queue, over_pipe])
def test_they_are_bytes_in_every_respect(over, transport: str) -> None:
    sent = pattern(1)
    got = over(sent, transport)
    assert in_message(got)
    assert type(got) is bytes and len(got) == SIZE and sys.getsizeof(got) == sys.getsizeof(sent)
    assert got == sent and sent == got and not got != sent and got >= sent and got != sent + b"x"
    assert hash(got) == hash(sent) and {sent: 1}[got] == 1 and got in {sent}
    assert got[0] == sent[0] and got[-1] == sent[-1] and got[5:-7:3] == sent[5:-7:3] and got[:] is got
    assert got.find(sent[-100:], SIZE - 110) == sent.find(sent[-100:], SIZE - 110) > 0 and sent[500_000:500_100] in got
    assert got + b"tail" == sent + b"tail" and b"".join([got]) == sent and b"-".join([got, got]) == sent + b"-" + sent
    assert got * 2 == sent * 2 and got.hex() == sent.hex() and got.replace(b"\0", b"1") == sent.replace(b"\0", b"1")
    assert bytes(got) is got and bytearray(got) == sent
    with memoryview(got) as view:
        assert view.readonly and view.nbytes == SIZE and view == sent
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(got, protocol)) == sent
    assert hashlib.sha256(got).digest() == hashlib.sha256(sent).digest()
    assert ctypes.string_at(ctypes.c_char_p(got), SIZE + 1) == sent + b"\0", "C code relies on the zero behind"
    assert sys.getrefcount(got) == 2


def test_sizes_around_the_bound(queue) -> None:
    for size in [512 * 1024 + i for i in (-65, -64, -1, 0, 1, 63, 64, 65, 4031, 4032, 4063, 4064, 4096)]:
        sent = pattern(size, size)
        got = pass_on(queue, sent)
        assert got == sent
        assert in_message(got) == (size >= 512 * 1024)


def test_passed_on_again(queue) -> None:
    got = sent = pattern(2)
    for _ in range(5):
        got = pass_on(queue, got)
        assert got == sent and in_message(got)


def test_inside_of_something(queue) -> None:
    sent = [pattern(3), {"a": pattern(4)}]
    got = pass_on(queue, sent)
    assert got == sent and not in_message(got[0])


def test_a_subclass_stays_one(queue) -> None:
    got = pass_on(queue, Subclass(pattern(5)))
    assert type(got) is Subclass and got == pattern(5)


class Subclass(bytes):
    pass


# ---- where they are copied ----


def test_copy_is_private(queue) -> None:
    queue.put(pattern(1))
    got = queue.get(copy=True)
    assert got == pattern(1) and not in_message(got)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("trusted", [False, True])
def test_only_of_peers_that_are_trusted(channel_name: str, transport: str, trusted: bool) -> None:
    with (
        ferry.Channel(channel_name, "sender", transport=transport, max_bytes=16 * MIB) as sender,
        ferry.Channel(channel_name, "receiver", transport=transport, pickle=trusted) as receiver,
    ):
        sender.send(pattern(1))
        got = receiver.receive(timeout=20)
        assert got == pattern(1) and in_message(got) == trusted
        committed = sender.statistics.bytes_committed
        sender.send(pattern(2))
        again = receiver.receive(timeout=20)
        # Who holds a message makes the channel take more memory; who copied it does not.
        assert (sender.statistics.bytes_committed > committed) == trusted
        assert got == pattern(1) and again == pattern(2)
        del got, again
        committed = sender.statistics.bytes_committed
        for i in range(20):
            sender.send(pattern(i))
            assert receiver.receive(timeout=20) == pattern(i)
        assert sender.statistics.bytes_committed == committed, "what is freed is given back"


def test_broadcast_is_copied(channel_name: str) -> None:
    with (
        ferry.Channel(channel_name, "sender", mode="broadcast", pickle=True) as sender,
        ferry.Channel(channel_name, "receiver", pickle=True) as one,
        ferry.Channel(channel_name, "receiver", pickle=True) as other,
    ):
        sender.send(pattern(1))
        for receiver in (one, other):
            got = receiver.receive(timeout=20)
            assert got == pattern(1) and not in_message(got)


def test_receive_bytes_and_decode(channel_name: str) -> None:
    with (
        ferry.Channel(channel_name, "sender", pickle=True) as sender,
        ferry.Channel(channel_name, "receiver", pickle=True) as receiver,
    ):
        sender.send(pattern(1))
        buffer = receiver.receive_buffer(timeout=20)
        first = receiver.decode(buffer)
        second = receiver.decode(buffer)
        assert first == second == pattern(1) and first is not second
        assert in_message(first) and not in_message(second)
        message = bytes(buffer.data)
        buffer.release()
        assert first == pattern(1)
        assert pattern(1) in message


# ---- a consumer that collects ----


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("maxsize", [0, 2])
def test_collecting_does_not_stop_the_sender(transport: str, maxsize: int) -> None:
    q = ferry.Queue(maxsize, transport=transport, max_bytes=32 * MIB)
    held = [pass_on(q, pattern(i)) for i in range(60)]
    n_in_place = sum(map(in_message, held))
    assert n_in_place == 32 * MIB // 4 // (SIZE + 4096) or n_in_place == 32 * MIB // 4 // SIZE
    # and all the rest of the memory is for messages in flight
    if maxsize == 0:
        for i in range(16):
            q.put(pattern(i), timeout=20)
        for i in range(16):
            assert q.get(timeout=20) == pattern(i)
    assert all(obj == pattern(i) for i, obj in enumerate(held))
    del held[::2]
    assert in_message(pass_on(q, pattern(1)))
    q.close()


def test_thousands_leave_no_mappings(queue) -> None:
    sent = pattern(1)
    pass_on(queue, sent)
    before = count_mappings()
    blocks = sys.getallocatedblocks()
    for _ in range(2000):
        pass_on(queue, sent)
    assert count_mappings() - before < 10
    assert abs(sys.getallocatedblocks() - blocks) < 200, "what is freed was counted when it was allocated"


# ---- processes ----


def test_held_across_fork(queue) -> None:
    first = pattern(1)
    held = pass_on(queue, first)
    assert in_message(held)
    ready, go = os.pipe()

    def check() -> bool:
        await_byte(ready)
        nonlocal held
        ok = held == first and hash(held) == hash(first)
        # The next ones come where the parent has these bytes.
        own = queue.get(timeout=20)
        ok = ok and own == pattern(100) and held == first and in_message(own)
        del held
        return ok and own == pattern(100)

    pid = in_child(check)
    del held
    for i in range(2, 8):
        assert pass_on(queue, pattern(i)) == pattern(i)
    queue.put(pattern(100))
    os.write(go, b"x")
    wait_for(pid)
    assert pass_on(queue, pattern(9)) == pattern(9)
    os.close(ready)
    os.close(go)


def test_grandchildren(queue) -> None:
    held = pass_on(queue, pattern(1))

    def child() -> bool:
        other = pass_on(queue, pattern(2))

        def grandchild() -> bool:
            third = pass_on(queue, pattern(3))
            return (held, other, third) == (pattern(1), pattern(2), pattern(3)) and in_message(third)

        wait_for(in_child(grandchild))
        return (held, other) == (pattern(1), pattern(2)) and in_message(other)

    wait_for(in_child(child))
    assert held == pattern(1) and in_message(held)


def hash_and_answer(data: bytes, results: Any) -> None:
    results.put((hashlib.sha256(data).hexdigest(), data))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_argument_of_a_process(queue, method: str) -> None:
    context = multiprocessing.get_context(method)
    results = ferry.Queue(4)
    data = pass_on(queue, pattern(1))
    process = context.Process(target=hash_and_answer, args=(data, results))
    process.start()
    del data
    for i in range(2, 6):
        assert pass_on(queue, pattern(i)) == pattern(i)
    digest, back = results.get(timeout=60)
    process.join(20)
    assert process.exitcode == 0
    assert digest == hashlib.sha256(pattern(1)).hexdigest() and back == pattern(1)
    results.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_consumer_killed_while_holding(transport: str, channel_name: str) -> None:
    q = ferry.Queue(4, name=channel_name, transport=transport, max_bytes=16 * MIB)
    ready, told = os.pipe()

    def hold() -> bool:
        held = [q.get(timeout=20) for _ in range(3)]
        assert all(map(in_message, held))
        os.write(told, b"x")
        time.sleep(60)
        return True

    pid = in_child(hold)
    for i in range(3):
        q.put(pattern(i))
    await_byte(ready)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for i in range(40):
        q.put(pattern(i), timeout=20)
        assert q.get(timeout=20) == pattern(i)
    held = [pass_on(q, pattern(i)) for i in range(3)]
    assert all(map(in_message, held))
    q.close()
    assert not is_left(channel_name)
    os.close(ready)
    os.close(told)


# ---- ends ----


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_held_across_close(transport: str, channel_name: str) -> None:
    q = ferry.Queue(4, name=channel_name, transport=transport)
    held = [pass_on(q, pattern(i)) for i in range(3)]
    assert all(map(in_message, held))
    q.close()
    assert not is_left(channel_name), "although something is held"
    assert held == [pattern(i) for i in range(3)]
    del q
    gc.collect()
    assert held == [pattern(i) for i in range(3)]
    wait_for(in_child(lambda: held == [pattern(i) for i in range(3)]))
    del held[1]
    assert held == [pattern(0), pattern(2)]


def test_closing_gives_the_memory_back(channel_name: str) -> None:
    with ferry.Channel(channel_name, "sender", max_bytes=8 * MIB) as sender:
        receiver = ferry.Channel(channel_name, "receiver", pickle=True)
        sender.send(pattern(1))
        held = receiver.receive(timeout=20)
        assert in_message(held)
        receiver.close()
        assert len(sender.participants) == 1
        committed = sender.statistics.bytes_committed
        sender.send(pattern(2))
        assert sender.statistics.bytes_committed == committed
        assert held == pattern(1)


def run(program: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", program],
        env=dict(os.environ, **environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


PROGRAM = """
import ctypes, os, sys, threading, tracemalloc
import ferry
SIZE = 1 << 20
def once(q, fill=b"a"):
    sent = fill * SIZE
    q.put(sent)
    got = q.get()
    assert got == sent and hash(got) == hash(sent)
    return got
q = ferry.Queue(4{arguments})
{body}
print("done")
"""


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    "body",
    [
        "held = once(q)",
        "held = once(q); q.close()",
        "held = once(q); del q",
        "held = once(q); sys.held = held; ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))",  # never freed
        "held = once(q); ctypes.pythonapi.Py_IncRef(ctypes.py_object(held)); q.close(); print('done'); "
        "sys.stdout.flush(); os._exit(0)",
        "held = once(q)\ndef forever(held=held):\n    threading.Event().wait()\n"
        "threading.Thread(target=forever, daemon=True).start()",
        "class Last:\n    def __init__(self): self.held = once(q)\n    def __del__(self): assert self.held[0] == 97\n"
        "last = Last(); last.itself = last",
        "import atexit; held = once(q); atexit.register(lambda: print(end='' if once(q)[0] == held[0] else 'wrong'))",
        "held = once(q); p = os.fork()\nif p == 0: sys.exit(0 if held == b'a' * SIZE else 1)\n"
        "assert os.waitpid(p, 0)[1] == 0\nprint(end='')",
    ],
)
def test_held_across_exit(body: str, transport: str, channel_name: str) -> None:
    arguments = f", transport={transport!r}, name={channel_name!r}"
    done = run(PROGRAM.format(body=body, arguments=arguments))
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == {"done"}
    assert not is_left(channel_name)


def test_threads_free_and_receive(queue) -> None:
    errors: list[str] = []
    stop = time.monotonic() + 3

    def work(number: int) -> None:
        own = ferry.Queue(4)
        held: list[bytes] = []
        i = number * 1000
        while time.monotonic() < stop:
            i += 1
            sent = pattern(i)
            own.put(sent)
            held.append(own.get(timeout=20))
            queue_of_all.append((i, held[-1]))
            if len(held) > 3:
                held.pop(0)
            if len(queue_of_all) > 20:
                j, obj = queue_of_all.pop(0)  # freed here, where another thread received it
                if obj != pattern(j):
                    errors.append(f"{j} changed")
        own.close()

    queue_of_all: list[tuple[int, bytes]] = []
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    n_forks = 0
    while time.monotonic() < stop:
        here = list(queue_of_all)
        wait_for(in_child(lambda here=here: all(obj == pattern(j) for j, obj in here)))
        n_forks += 1
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert not errors and n_forks > 1
    assert all(obj == pattern(j) for j, obj in queue_of_all)


# ---- C code that changes objects, and other allocators ----


@pytest.mark.parametrize("size", [0, 1, 100, MIB - 1, SIZE - 1, SIZE, SIZE + 1, 3 * MIB])
def test_resize(queue, size: int) -> None:
    sent = pattern(1)
    got = pass_on(queue, sent)
    assert in_message(got)
    resize = ctypes.pythonapi._PyBytes_Resize
    resize.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_ssize_t]
    pointer = ctypes.c_void_p(id(got))
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(got))
    del got  # the reference in the pointer is the only one
    assert resize(ctypes.byref(pointer), size) == 0
    resized = ctypes.cast(pointer, ctypes.py_object).value
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(resized))
    assert len(resized) == size and resized[:SIZE] == sent[:size]
    assert in_message(resized) == (size == SIZE)
    del resized
    assert pass_on(queue, pattern(2)) == pattern(2)


def test_concat(queue) -> None:
    concat = ctypes.pythonapi.PyBytes_Concat
    concat.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.py_object]
    concat.restype = None
    sent = pattern(1)
    for shared in (True, False):
        got = pass_on(queue, sent)
        pointer = ctypes.c_void_p(id(got))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(got))
        kept = got if shared else None
        del got
        concat(ctypes.byref(pointer), b"tail")
        longer = ctypes.cast(pointer, ctypes.py_object).value
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(longer))
        assert longer == sent + b"tail" and not in_message(longer)
        assert kept is None or kept == sent
        del longer


BODIES = [
    "held = once(q); del held; once(q, b'b')",
    "tracemalloc.start(); held = once(q); tracemalloc.stop(); del held; once(q, b'b')",
    "held = once(q); tracemalloc.start(); del held; held = once(q, b'b'); tracemalloc.stop(); del held; once(q, b'c')",
    "held = once(q); tracemalloc.start(); other = once(q, b'b'); tracemalloc.stop(); tracemalloc.start(); "
    "del held; tracemalloc.stop(); del other; once(q, b'c')",
    "tracemalloc.start(); held = [once(q)]; tracemalloc.stop(); held.append(once(q, b'b')); tracemalloc.start(); "
    "held.append(once(q, b'c')); held.pop(0); tracemalloc.stop(); held.clear(); once(q, b'd')",
]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(
    "options",
    [(), ("-X", "dev"), ("-X", "tracemalloc")],
    ids=["plain", "dev", "tracemalloc"],
)
def test_with_other_hooks(body: str, options: tuple[str, ...]) -> None:
    done = run(PROGRAM.format(body=body, arguments=""), *options, "-W", "ignore")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("body", BODIES[:3])
@pytest.mark.parametrize("allocator", ["malloc", "debug", "malloc_debug", "pymalloc", "pymalloc_debug"])
def test_with_other_allocators(body: str, allocator: str) -> None:
    done = run(PROGRAM.format(body=body, arguments=""), PYTHONMALLOC=allocator)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_errno_survives(queue) -> None:
    release = ctypes.PyDLL(None, use_errno=True).Py_DecRef
    release.argtypes = [ctypes.c_void_p]
    got = pass_on(queue, pattern(1))
    address = id(got)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(got))
    del got
    ctypes.set_errno(77)
    release(address)
    assert ctypes.get_errno() == 77
