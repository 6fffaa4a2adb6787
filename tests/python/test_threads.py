# SPDX-License-Identifier: LGPL-2.1-or-later
"""What other threads, forks and foreign memory must not break: closing is allowed at any moment."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time

import ferry
import pytest
from ferry import _native

context = multiprocessing.get_context("fork")

REFUSED = (ValueError, OSError, EOFError, queue.Empty, queue.Full, ferry.FerryError)

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Closing:
    """Closes something while it is pickled."""

    def __init__(self, target, size=0):
        self.target = target
        self.size = size

    def __reduce__(self):
        self.target.close()
        return bytes, (bytes(self.size),)


def in_thread(function, *args):
    """Run it in a thread; what is refused is fine."""

    def run():
        try:
            function(*args)
        except REFUSED:
            pass

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def join(*threads):
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def in_child(function):
    """Run it in a fork child, which has no other threads; whether all was well."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def in_strict_process(function, *args):
    """Run it where memory is overwritten when it is freed, so that who uses it nevertheless crashes."""
    program = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import test_threads
test_threads.{function.__name__}(*{args!r})
"""
    environment = {
        **os.environ,
        # What goes into the cache of a thread is not overwritten, nor is what Python keeps for itself.
        "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.perturb=165",
        "PYTHONMALLOC": "malloc",
        "G_SLICE": "always-malloc",
        "G_DEBUG": "fatal-warnings",
    }
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def close_while_it_is_encoded(size, codec):
    q = ferry.Queue(codec=codec)
    with pytest.raises(ValueError):
        q.put(Closing(q, size))
    a, _b = ferry.Pipe()
    with pytest.raises(REFUSED):
        a.send(Closing(a, size))
    name = f"test-threads-{os.getpid()}-{size}"
    channel = ferry.Channel(name, "sender", pickle=True, codec=codec)
    with pytest.raises(ferry.ClosedError):
        channel.send(Closing(channel, size))
    q = ferry.Queue(codec=codec)
    q._endpoint(True)
    assert len(q._encode(Closing(q, size))) > size


# A codec of its own goes with the endpoint.
@pytest.mark.parametrize("codec", ["auto", "python"])
@pytest.mark.parametrize("size", [0, 100, 100_000])
def test_closed_while_it_is_encoded(size, codec):
    in_strict_process(close_while_it_is_encoded, size, codec)


def close_by_a_size():
    class Size:
        def __index__(self):
            q.close()
            return 100

    q = ferry.Queue()
    q._endpoint(True)
    with pytest.raises(ValueError):
        q._loan_buffer(Size(), 0)


def test_a_size_that_closes():
    in_strict_process(close_by_a_size)


@pytest.mark.parametrize("method", ["recv", "recv_bytes", "_recv_contents"])
def test_closed_while_threads_receive(method):
    def receive(connection):
        while True:
            getattr(connection, method)()

    for _ in range(40):
        a, b = ferry.Pipe()
        threads = [in_thread(receive, b) for _ in range(3)]

        def send(connection):
            while True:
                connection.send_bytes(b"\x80\x04N.")

        threads.append(in_thread(send, a))
        time.sleep(0.002)
        b.close()
        join(*threads)
        a.close()


def test_closed_while_a_thread_sends():
    """What waits for room gets it, and finds its end closed when it comes back."""

    def send(connection):
        while True:
            connection.send_bytes(b"x")

    for _ in range(200):
        a, b = ferry.Pipe()
        thread = in_thread(send, a)
        time.sleep(0.003)  # the pipe is full
        b.recv_bytes()
        a.close()
        join(thread)
        b.close()


def test_closed_while_threads_wait():
    for _ in range(10):
        a, b = ferry.Pipe()
        threads = [in_thread(b.recv), in_thread(b.poll, None), in_thread(b.fileno), in_thread(a.send, 1)]
        b.close()
        join(*threads)
    q = ferry.Queue(1)
    q.put(0)
    threads = [in_thread(q.put, bytes(size)) for size in (0, 10_000, 20_000_000)]
    time.sleep(0.02)
    q.close()
    join(*threads)


def test_closed_while_it_is_opened():
    for i in range(30):
        name = f"test-threads-{os.getpid()}-open-{i}"
        channel = ferry.Channel(name, "sender", codec="python", open=False)
        threads = [in_thread(channel.open) for _ in range(3)]
        channel.close()
        join(*threads)
        assert not channel.is_open
        with pytest.raises(ferry.ClosedError):
            channel.open()
        q = ferry.Queue()
        threads = [in_thread(q.put, 1) for _ in range(3)]
        q.close()
        join(*threads)
        assert q.closed


def test_a_buffer_is_sent_by_one_thread():
    name = f"test-threads-{os.getpid()}-buffer"
    with ferry.Channel(name, "sender", capacity=1) as sender, ferry.Channel(name, "receiver") as receiver:
        sender.send(0)
        buffer = sender.loan_buffer(10)
        thread = in_thread(sender.send, buffer)
        deadline = time.monotonic() + 20
        while not buffer.released and time.monotonic() < deadline:
            time.sleep(0.001)
        with pytest.raises(ValueError):
            sender.send(buffer, 0)
        with pytest.raises(ValueError):
            memoryview(buffer)
        assert receiver.receive() == 0
        join(thread)
        assert buffer.released
        receiver.receive_bytes()
        assert len(receiver) == 0
        # what was not sent is there again
        sender.send(0)
        buffer = sender.loan_buffer(10)
        with pytest.raises(queue.Full):
            sender.send(buffer, 0)
        assert not buffer.released and len(buffer) == 10


def test_fork_while_another_thread_is_inside():
    a, b = ferry.Pipe()
    name = f"test-threads-{os.getpid()}-fork"
    channel = ferry.Channel(name, "receiver")
    threads = [in_thread(b.recv), in_thread(channel.receive, 10)]
    time.sleep(0.3)
    fd = b._descriptors()[2]

    def close():
        b.close()
        with pytest.raises(OSError):
            os.fstat(fd)
        _native.Channel.close(channel)
        assert channel._address() == 0

    in_child(close)
    a.send(1)
    channel.close()
    join(*threads)


def test_shared_memory_is_sealed():
    a, b = ferry.Pipe()
    tasks = ferry.JoinableQueue()
    for fd in (a._descriptors()[3], b._descriptors()[3], tasks._descriptors()[2]):
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
        with pytest.raises(OSError):
            os.ftruncate(fd, 0)


def memfd(size, seals):
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


@pytest.mark.parametrize("make", [lambda: memfd(4096, 0), lambda: memfd(0, SEALS), lambda: os.pipe()[0]])
def test_foreign_memory_is_checked(make):
    receive = _native.Queue("memfd", capacity=2)
    with pytest.raises((OSError, ValueError)):
        _native.Connection(receive, None, -1, make(), os.eventfd(0, os.EFD_NONBLOCK), -1, 0)
    fds = dict(zip(("control_fd", "data_fd"), map(os.dup, receive._descriptors()[:2]), strict=True))
    with pytest.raises((OSError, ValueError)):
        _native.Queue("memfd", create=False, **fds, tasks_fd=make(), joinable=True)


def test_a_foreign_bell_does_not_block():
    bells = memfd(4096, SEALS)
    for bell in (os.eventfd(0), -1, os.pipe()[0]):
        receive = _native.Queue("memfd", capacity=2)
        with pytest.raises((OSError, ValueError)):
            _native.Connection(receive, None, -1, os.dup(bells), bell, -1, 0)
    os.close(bells)


def is_asleep(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("arguments", [{"maxsize": 1}, {"maxsize": 8, "max_bytes": 1 << 20}])
def test_a_killed_putter_leaves_no_task(arguments):
    q = ferry.JoinableQueue(**arguments)
    q.put(bytes(900_000))
    process = context.Process(target=q.put, args=(bytes(900_000),))
    process.start()
    time.sleep(0.5)
    while not is_asleep(process.pid):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len(q.get()) == 900_000
    q.task_done()
    join(in_thread(q.join))
    with pytest.raises(ValueError):
        q.task_done()


def test_a_joinable_queue_waits_for_room_and_memory():
    for arguments in ({"maxsize": 1}, {"maxsize": 100, "max_bytes": 1 << 20}):
        q = ferry.JoinableQueue(**arguments)
        thread = in_thread(lambda q=q: [q.put(bytes(300_000)) for _ in range(20)])
        for _ in range(20):
            assert len(q.get(timeout=20)) == 300_000
            q.task_done()
        join(thread, in_thread(q.join))
    for arguments, item in (({"maxsize": 1}, 1), ({"maxsize": 100, "max_bytes": 1 << 20}, bytes(600_000))):
        q = ferry.JoinableQueue(**arguments)
        q.put(item)
        for timeout in (0, 0.5):
            began = time.monotonic()
            cpu = time.process_time()
            with pytest.raises(queue.Full):
                q.put(item, timeout=timeout)
            assert timeout <= time.monotonic() - began < timeout + 2
            # it sleeps meanwhile
            assert time.process_time() - cpu < 0.1
        # what was refused is no task
        q.get()
        q.task_done()
        join(in_thread(q.join))


def test_what_is_only_called_an_array():
    program = """
import ferry
q = ferry.Queue()
fake = type("numpy.ndarray", (), {"__slots__": ()})
try:
    q.put(fake())
except Exception as error:
    print(type(error).__name__)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_names_that_are_no_text():
    name = f"test-threads-{os.getpid()}-names"
    with pytest.raises(UnicodeEncodeError):
        ferry.Channel(name, "sender", **{"a\udc80": 1})
    with ferry.Channel(name, "sender") as channel:
        with pytest.raises(UnicodeEncodeError):
            channel._get("a\udc80")


def test_join_a_name_without_a_size():
    name = f"test-threads-{os.getpid()}-size"
    first = ferry.Queue(4, name=name)
    joins = [ferry.Queue(name=name), ferry.SimpleQueue(name=name), ferry.Queue(4, name=name)]
    first.put("x")
    assert joins[0].get() == "x"
    for _ in range(4):
        joins[1].put(1)
    assert first.full() and joins[1].full()
    with pytest.raises(ferry.MismatchError):
        ferry.Queue(5, name=name)
    with pytest.raises(ferry.MismatchError):
        ferry.Queue(name=name, max_bytes=1 << 20)
    for q in [first, *joins]:
        q.close()
    q = ferry.Queue(name=name)
    assert q._endpoint(False)._get("capacity") == 1024
    q.close()
