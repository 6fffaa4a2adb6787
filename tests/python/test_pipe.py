# SPDX-License-Identifier: LGPL-2.1-or-later
"""ferry.Pipe against the rules of multiprocessing.Pipe."""

from __future__ import annotations

import multiprocessing
import os
import selectors
import signal
import sys
import threading
import time
from multiprocessing.connection import wait

import ferry
import pytest

context = multiprocessing.get_context("fork")


@pytest.fixture(params=["ferry", "multiprocessing"])
def make(request):
    """The same tests hold for both."""
    return ferry.Pipe if request.param == "ferry" else multiprocessing.Pipe


def test_both_ways(make):
    a, b = make()
    a.send({"x": [1, 2]})
    assert b.recv() == {"x": [1, 2]}
    b.send("back")
    assert a.recv() == "back"
    assert a.readable and a.writable and b.readable and b.writable


def test_one_way(make):
    reader, writer = make(duplex=False)
    assert (reader.readable, reader.writable, writer.readable, writer.writable) == (True, False, False, True)
    writer.send(1)
    assert reader.recv() == 1
    with pytest.raises(OSError):
        reader.send(1)
    with pytest.raises(OSError):
        writer.recv()
    with pytest.raises(OSError):
        writer.poll()


def test_bytes(make):
    a, b = make()
    for data in (b"", b"x", bytes(range(256)) * 100, bytearray(b"abc"), memoryview(b"defg")):
        a.send_bytes(data)
        assert b.recv_bytes() == bytes(data)
    a.send_bytes(b"0123456789", 2)
    assert b.recv_bytes() == b"23456789"
    a.send_bytes(b"0123456789", 2, 3)
    assert b.recv_bytes() == b"234"
    a.send_bytes(b"0123456789", size=0)
    assert b.recv_bytes() == b""


@pytest.mark.parametrize("size", [(4 << 20) - 1, 4 << 20, (40 << 20) + 3])
def test_large_bytes(make, size):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    a, b = make()
    for kind in (bytes, bytearray, memoryview):
        thread = threading.Thread(target=a.send_bytes, args=(kind(data),))
        thread.start()
        received = b.recv_bytes(size)
        thread.join()
        assert type(received) is bytes and received == data
        assert hash(received) == hash(data)


@pytest.mark.parametrize("arguments", [(-1,), (11,), (2, -1), (2, 9), (-sys.maxsize - 1,), (2, -sys.maxsize - 1)])
def test_offsets_are_checked(make, arguments):
    a, _b = make()
    with pytest.raises(ValueError):
        a.send_bytes(b"0123456789", *arguments)


def test_maxlength(make):
    a, b = make()
    a.send_bytes(b"0123")
    assert b.recv_bytes(4) == b"0123"
    with pytest.raises(ValueError):
        b.recv_bytes(-1)
    a.send_bytes(b"01234")
    with pytest.raises(OSError):
        b.recv_bytes(4)


def test_recv_bytes_into(make):
    a, b = make()
    buffer = bytearray(8)
    a.send_bytes(b"abc")
    assert b.recv_bytes_into(buffer, 2) == 3
    assert bytes(buffer) == b"\0\0abc\0\0\0"
    a.send_bytes(b"too long for it")
    with pytest.raises(multiprocessing.BufferTooShort) as caught:
        b.recv_bytes_into(buffer)
    assert caught.value.args[0] == b"too long for it"
    with pytest.raises(ValueError):
        b.recv_bytes_into(buffer, -1)
    with pytest.raises(ValueError):
        b.recv_bytes_into(buffer, 9)


def test_objects_and_bytes_are_one_stream(make):
    from multiprocessing.reduction import ForkingPickler

    a, b = make()
    a.send_bytes(ForkingPickler.dumps([1, 2]))
    assert b.recv() == [1, 2]
    a.send([3, 4])
    assert ForkingPickler.loads(b.recv_bytes()) == [3, 4]


def test_poll(make):
    a, b = make()
    assert not b.poll()
    began = time.monotonic()
    assert not b.poll(0.1)
    assert 0.09 < time.monotonic() - began < 1
    a.send(1)
    assert b.poll() and b.poll(None) and b.poll(1)
    b.recv()
    timer = threading.Timer(0.1, a.send, (2,))
    timer.start()
    assert b.poll(10)
    assert b.recv() == 2
    timer.join()


def test_closed(make):
    a, b = make()
    with a:
        assert not a.closed
    assert a.closed
    a.close()
    for call in (a.recv, lambda: a.send(1), a.poll, a.fileno, lambda: a.send_bytes(b"")):
        with pytest.raises(OSError):
            call()
    assert b.poll()
    with pytest.raises(EOFError):
        b.recv()
    with pytest.raises(OSError):
        b.send(1)


def test_what_was_sent_before_the_close_arrives(make):
    a, b = make()
    a.send(1)
    a.send_bytes(b"x")
    a.close()
    assert b.recv() == 1
    assert b.recv_bytes() == b"x"
    with pytest.raises(EOFError):
        b.recv()


def test_the_other_end_is_killed(make):
    a, b = make()

    def child():
        a.close()
        b.send("here")
        time.sleep(60)

    process = context.Process(target=child)
    process.start()
    b.close()
    assert a.recv() == "here"
    timer = threading.Timer(0.2, os.kill, (process.pid, signal.SIGKILL))
    timer.start()
    began = time.monotonic()
    with pytest.raises(EOFError):
        a.recv()
    assert time.monotonic() - began < 2
    with pytest.raises(BrokenPipeError):
        a.send(1)
    process.join()
    timer.join()


def test_the_other_end_is_killed_before_it_used_the_pipe(make):
    a, b = make()
    process = context.Process(target=time.sleep, args=(60,))
    process.start()
    b.close()
    assert not a.poll(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    # the child had a copy of this end, too, but that counts for nothing
    with pytest.raises(EOFError):
        a.recv()


def test_one_of_two_copies_is_not_the_end(make):
    a, b = make()

    def child():
        a.close()
        b.send(1)

    process = context.Process(target=child)
    process.start()
    process.join()
    assert a.recv() == 1
    assert not a.poll(0.05)
    b.send(2)
    assert a.recv() == 2


def test_a_sender_that_waits_for_room_learns_of_the_end(make):
    a, b = make()

    def child():
        a.close()
        time.sleep(0.3)

    process = context.Process(target=child)
    process.start()
    b.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            a.send(b"x" * 1000)
    process.join()


def test_wait(make):
    pairs = [make() for _ in range(3)]
    readers = [b for _, b in pairs]
    assert wait(readers, 0) == []
    pairs[1][0].send(1)
    assert wait(readers) == [readers[1]]
    assert wait(readers, 0) == [readers[1]]
    pairs[2][0].send(2)
    assert set(wait(readers, 1)) == {readers[1], readers[2]}
    assert readers[1].recv() == 1
    assert wait(readers, 1) == [readers[2]]
    assert readers[2].recv() == 2
    assert wait(readers, 0.05) == []
    timer = threading.Timer(0.1, pairs[0][0].send, ("late",))
    timer.start()
    assert wait(readers, 10) == [readers[0]]
    timer.join()
    assert readers[0].recv() == "late"
    pairs[0][0].close()
    assert wait(readers, 1) == [readers[0]]


def test_the_descriptor_stays_readable_while_messages_wait(make):
    a, b = make()
    with selectors.DefaultSelector() as selector:
        selector.register(b, selectors.EVENT_READ)
        for round_number in range(3):
            assert selector.select(0) == []
            for i in range(5):
                a.send(i)
            for i in range(5):
                assert selector.select(1)
                assert b.recv() == i
            assert selector.select(0.01) == [], round_number
        a.close()
        assert selector.select(1)


def test_a_reader_that_polls_is_woken_for_the_second_message(make):
    """Two readers have this end, and one of them takes its message before the other one can look."""
    a, b = make()
    back = ferry.Queue()
    b.fileno()  # who has it looks after each message whether it is still readable

    def child():
        while b.recv() is not None:
            back.put(time.monotonic())

    process = context.Process(target=child)
    process.start()
    delays = []
    for i in range(15):
        time.sleep(0.01 + 0.001 * i)  # it polls by now
        os.kill(process.pid, signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        a.send(1)
        a.send(2)
        assert b.recv() == 1
        began = time.monotonic()
        os.kill(process.pid, signal.SIGCONT)
        delays.append(back.get(timeout=10) - began)
    a.send(None)
    process.join()
    assert sorted(delays)[len(delays) // 2] < 0.02


def test_closing_wakes_who_polls_in_another_thread():
    delays = []
    for _ in range(10):
        a, b = ferry.Pipe()
        ended = []

        def receive(b=b, ended=ended):
            with pytest.raises(OSError):
                b.recv()
            ended.append(time.monotonic())

        thread = threading.Thread(target=receive)
        thread.start()
        time.sleep(0.02)
        began = time.monotonic()
        b.close()
        thread.join(10)
        delays.append(ended[0] - began)
        a.close()
    assert sorted(delays)[len(delays) // 2] < 0.02


def test_no_false_alarms(make):
    a, b = make()
    assert wait([b], 1.2) == []
    a.send(1)
    assert wait([b], 0) == [b]


def test_a_connection_through_a_connection(make):
    a, b = make()
    c, d = make()

    def child():
        inner = b.recv()
        inner.send("through")

    process = context.Process(target=child)
    process.start()
    a.send(d)
    d.close()
    assert c.recv() == "through"
    process.join()
    with pytest.raises(EOFError):
        c.recv()


def test_arrays_are_views():
    numpy = pytest.importorskip("numpy")
    a, b = ferry.Pipe()
    a.send(numpy.arange(100_000))
    got = b.recv()
    assert not got.flags.owndata and got.flags.writeable
    a.close()
    b.close()
    assert got.sum() == 99_999 * 50_000


def test_threads_send_and_receive(make):
    a, b = make()
    n = 3000
    got = []
    thread = threading.Thread(target=lambda: got.extend(b.recv() for _ in range(n)))
    thread.start()
    for i in range(n):
        a.send(i)
    thread.join(30)
    assert got == list(range(n))
