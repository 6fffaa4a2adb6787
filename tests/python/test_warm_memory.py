# SPDX-License-Identifier: LGPL-2.1-or-later
"""Large objects come in memory that earlier ones of them had, whatever else happens to that memory."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import ferry
import pytest

MIB = 1024 * 1024
SIZE = 48 * MIB


@pytest.fixture
def queue():
    q = ferry.Queue(4)
    yield q
    q.close()


def pass_on(queue, obj):
    queue.put(obj)
    return queue.get()


def address(obj: bytes) -> int:
    return id(obj)


def page_faults() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@pytest.mark.parametrize(
    "make", [bytes, bytearray, lambda data: data.decode("ascii")], ids=["bytes", "bytearray", "str"]
)
def test_memory_is_used_again(queue, make) -> None:
    sent = make(b"x" * SIZE)
    got = pass_on(queue, sent)
    assert got == sent and type(got) is type(sent)
    del got
    before = page_faults()
    for _ in range(5):
        got = pass_on(queue, sent)
        assert got == sent
        del got
    # a mapping made anew would take some 12,000 faults each time, or 24 with huge pages and their zeroing
    assert page_faults() - before < 24


def test_two_at_once_are_two(queue) -> None:
    first = pass_on(queue, b"a" * SIZE)
    second = pass_on(queue, b"b" * SIZE)
    assert address(first) != address(second)
    assert first == b"a" * SIZE and second == b"b" * SIZE
    del first
    third = pass_on(queue, b"c" * SIZE)
    assert second == b"b" * SIZE and third == b"c" * SIZE


def test_other_sizes_do_not_share(queue) -> None:
    large = pass_on(queue, b"a" * (2 * SIZE))
    where = address(large)
    del large
    small = pass_on(queue, b"b" * SIZE)
    assert address(small) != where, "half of it would lie idle"
    assert small == b"b" * SIZE


def test_bytearray_may_grow_and_shrink(queue) -> None:
    got = pass_on(queue, bytearray(b"x" * SIZE))
    got += b"y" * SIZE
    assert len(got) == 2 * SIZE and got[SIZE - 1 : SIZE + 1] == b"xy"
    del got[100:]
    assert got == b"x" * 100
    del got
    again = pass_on(queue, bytearray(b"z" * SIZE))
    assert again == b"z" * SIZE


def test_freed_by_another_thread(queue) -> None:
    held = [pass_on(queue, b"x" * SIZE) for _ in range(3)]

    def free() -> None:
        held.clear()
        gc.collect()

    thread = threading.Thread(target=free)
    thread.start()
    thread.join()
    assert pass_on(queue, b"y" * SIZE) == b"y" * SIZE


def test_after_fork(queue) -> None:
    held = pass_on(queue, b"x" * SIZE)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            own = ferry.Queue(2)
            same = held == b"x" * SIZE
            del held
            code = 0 if same and pass_on(own, b"y" * SIZE) == b"y" * SIZE else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert held == b"x" * SIZE


PROGRAM = """
import sys, tracemalloc
import ferry
size = 48 * 1024 * 1024
def once(q, fill):
    data = fill * size
    q.put(data)
    got = q.get()
    assert got == data
    return got
q = ferry.Queue(2)
{body}
print("done")
"""


@pytest.mark.parametrize(
    "body",
    [
        # began before us, so its end takes our functions out
        "tracemalloc.start(); held = once(q, b'a'); tracemalloc.stop(); del held; once(q, b'b'); once(q, b'c')",
        "once(q, b'a'); tracemalloc.start(); held = once(q, b'b'); tracemalloc.stop(); del held; once(q, b'c')",
        "held = once(q, b'a'); tracemalloc.start(); del held; held = once(q, b'b'); del held; tracemalloc.stop(); "
        "once(q, b'c')",
        "held = [once(q, bytes([i])) for i in range(8)]; held.clear(); once(q, b'x')",
        "global_held = once(q, b'a')",
    ],
)
@pytest.mark.parametrize("options", [[], ["-X", "dev"], ["-X", "tracemalloc"]], ids=["plain", "dev", "tracemalloc"])
def test_with_other_allocators(body: str, options: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *options, "-W", "ignore", "-c", PROGRAM.format(body=body)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize("allocator", ["malloc", "malloc_debug", "pymalloc_debug"])
def test_with_allocators_of_the_environment(allocator: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body="held = once(q, b'a'); del held; once(q, b'b')")],
        env=dict(os.environ, PYTHONMALLOC=allocator),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
