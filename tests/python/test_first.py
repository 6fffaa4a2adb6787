# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a first message would have to wait for is ready before it, and who sends none takes no part."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from contextlib import closing
from pathlib import Path

import ferry
import pytest

WARM = 128 * 1024
#: Ends that a fork child prepares.
PREPARED = 16
OBJECTS = [1, b"x" * 10_000, b"y" * 100_000]


def in_fork_child(func) -> None:
    """Run it there; what it raises fails the test."""
    pid = os.fork()
    if pid == 0:
        try:
            func()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def resources() -> tuple[int, int]:
    """Return how many descriptors this process has, and how many mappings of channels' memory."""
    maps = Path("/proc/self/maps").read_text()
    mappings = sum("/memfd:ferry" in line for line in maps.splitlines())
    return len(os.listdir("/proc/self/fd")), mappings


def statistics(queue: ferry.Queue) -> dict[str, int]:
    return queue._endpoint(False)._statistics()


@pytest.fixture
def queue():
    with closing(ferry.Queue(10)) as q:
        yield q


@pytest.mark.parametrize("obj", OBJECTS, ids=["int", "10 KB", "100 KB"])
def test_first_put_in_a_fork_child_opens_and_maps_nothing(queue, obj):
    def child():
        before = resources()
        assert before[1] > 0
        queue.put(obj)
        assert resources() == before

    in_fork_child(child)
    assert queue.get() == obj


@pytest.mark.parametrize("obj", OBJECTS, ids=["int", "10 KB", "100 KB"])
def test_first_get_in_a_fork_child_opens_and_maps_nothing(queue, obj):
    def child():
        before = resources()
        assert queue.get() == obj
        assert resources() == before

    queue.put(obj)
    in_fork_child(child)


@pytest.mark.parametrize("obj", OBJECTS, ids=["int", "10 KB", "100 KB"])
def test_first_message_of_a_pipe_opens_and_maps_nothing(obj):
    reader, writer = ferry.Pipe(duplex=False)

    def sends():
        before = resources()
        writer.send(obj)
        assert resources() == before

    def receives():
        before = resources()
        assert reader.recv() == obj
        assert resources() == before

    in_fork_child(sends)
    in_fork_child(receives)
    reader.close()
    writer.close()


def _spawned_puts(queue, other, obj):
    before = resources()
    assert before[1] > 0
    queue.put(obj)
    assert resources() == before
    queue.end()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_first_put_in_a_spawned_process(method):
    context = multiprocessing.get_context(method)
    queue, unused = ferry.Queue(10), ferry.Queue(10)
    process = context.Process(target=_spawned_puts, args=(queue, unused, OBJECTS[2]))
    process.start()
    assert queue.get(timeout=30) == OBJECTS[2]
    process.join(30)
    assert process.exitcode == 0
    # Real before the process began: nobody had to ask for another block.
    assert statistics(queue)["bytes_committed"] == WARM
    assert statistics(unused)["senders"] == 0 and statistics(unused)["repairs"] == 0
    queue.close()
    unused.close()


def test_who_uses_nothing_is_no_participant(queue):
    inherits, tells = os.pipe()
    goes_on, ends = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(tells, b"x")
        os.close(ends)
        os.read(goes_on, 1)
        os._exit(0)
    os.read(inherits, 1)
    assert statistics(queue)["senders"] == 0
    assert statistics(queue)["receivers"] == 1
    assert len(queue._endpoint(False)._participants()) == 1
    # It is waited for neither at the end of the stream ...
    queue.put(1)
    queue.end()
    assert queue.get() == 1
    with pytest.raises(EOFError):
        queue.get(timeout=10)
    # ... nor does it leave anything behind.
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    queue._endpoint(False).verify()
    assert statistics(queue)["repairs"] == 0
    for fd in (inherits, tells, goes_on, ends):
        os.close(fd)


def test_memory_is_real_after_a_fork_only(queue):
    assert statistics(queue)["bytes_committed"] == 0
    in_fork_child(lambda: None)
    assert statistics(queue)["bytes_committed"] == WARM
    in_fork_child(lambda: None)
    assert statistics(queue)["bytes_committed"] == WARM


def test_memory_is_bounded():
    with closing(ferry.Queue(10, max_bytes=1 << 20)) as queue:
        in_fork_child(lambda: None)
        assert statistics(queue)["bytes_committed"] == (1 << 20) // 64
    with closing(ferry.Queue(10, max_bytes=64 * 1024)) as queue:
        in_fork_child(lambda: None)
        assert statistics(queue)["bytes_committed"] == 0
        for i in range(3):
            queue.put(bytes([i]) * 60_000)
            assert queue.get() == bytes([i]) * 60_000


def test_many_inherited_queues():
    queues = [ferry.Queue(10) for _ in range(3 * PREPARED)]
    before = resources()[0]

    def child():
        # Who inherits joins nothing, so it lacks the descriptors of its parent's receivers, and has some that are prepared.
        assert resources()[0] <= before - len(queues) + PREPARED
        for i, queue in enumerate(queues):
            queue.put(i)

    in_fork_child(child)
    assert [queue.get() for queue in queues] == list(range(len(queues)))
    for queue in queues:
        queue.close()


def test_closing_leaves_no_descriptors_and_no_mappings():
    ferry.Queue(10).close()
    before = resources()
    for _ in range(20):
        queue = ferry.Queue(10)
        in_fork_child(queue.close)
        queue.close()
        del queue
        for end in ferry.Pipe():
            end.close()
    assert resources() == before


def test_unused_ends_can_be_closed_in_a_child(queue):
    def child():
        before = resources()[0]
        queue.close()
        assert resources()[0] < before
        with pytest.raises(ValueError, match="closed"):
            queue.put(1)

    in_fork_child(child)
    queue.put(2)
    assert queue.get() == 2


def test_threads_that_send_first_together(queue):
    def child():
        barrier = threading.Barrier(8)

        def put(i):
            barrier.wait()
            queue.put(i)

        threads = [threading.Thread(target=put, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statistics(queue)["senders"] == 1

    in_fork_child(child)
    assert sorted(queue.get() for _ in range(8)) == list(range(8))
