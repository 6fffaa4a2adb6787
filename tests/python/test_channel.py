# SPDX-License-Identifier: LGPL-2.1-or-later
"""ferry.Channel and ferry.Buffer."""

from __future__ import annotations

import itertools
import os
import pickle
import queue
import select
import threading
import time

import ferry
import pytest

numpy = pytest.importorskip("numpy")

_counter = itertools.count()


@pytest.fixture
def name():
    return f"test-channel-{os.getpid()}-{next(_counter)}"


@pytest.fixture
def ends(name):
    with ferry.Channel(name, "sender", capacity=8) as sender, ferry.Channel(name, "receiver") as receiver:
        yield sender, receiver


def test_objects(ends):
    sender, receiver = ends
    for item in (None, 1, "a", [1, {"b": 2.5}], (1, 2)):
        sender.send(item)
        assert receiver.receive() == item


def test_bytes_and_buffers(ends):
    sender, receiver = ends
    sender.send_bytes(b"abc")
    sender.send_bytes(numpy.arange(3, dtype="u1"))
    sender.send_bytes(bytes(100_000))
    assert receiver.receive_bytes() == b"abc"
    assert receiver.receive() == b"\0\1\2"
    with receiver.receive_buffer() as buffer:
        assert isinstance(buffer, ferry.Buffer)
        assert len(buffer) == buffer.size == 100_000
        assert buffer.codec == "raw" and buffer.sequence == 2 and buffer.writable and buffer.timestamp == 0
        with buffer.data as view:
            view[0] = 5
            with pytest.raises(BufferError):
                buffer.release()
        assert bytes(buffer)[:2] == b"\5\0"
    assert buffer.released
    with pytest.raises(ValueError):
        memoryview(buffer)
    with pytest.raises(ValueError):
        len(buffer.data)


def test_decode_later(ends):
    sender, receiver = ends
    sender.send({"a": 1})
    buffer = receiver.receive_buffer()
    assert buffer.codec == "python"
    assert receiver.decode(buffer) == {"a": 1}


def test_loaned_buffers(ends):
    sender, receiver = ends
    buffer = sender.loan_buffer(100_000)
    buffer.data[:4] = b"loan"
    buffer.timestamp = 77
    buffer.resize(50_000)
    with pytest.raises(ValueError):
        buffer.resize(100_001)
    sender.send(buffer)
    assert buffer.released
    with pytest.raises(ValueError):
        sender.send(buffer)
    got = receiver.receive_buffer()
    assert (got.size, got.timestamp, bytes(got)[:4]) == (50_000, 77, b"loan")


def test_numbers_that_run_code(name, ends):
    class Number:
        def __init__(self, call):
            self.call = call

        def __index__(self):
            self.call()
            return 5

    sender, receiver = ends
    loan = sender.loan_buffer(100_000)
    with pytest.raises(ValueError, match="released"):
        loan.timestamp = Number(loan.release)
    loan = sender.loan_buffer(100_000)
    with pytest.raises(ValueError, match="released"):
        loan._set_array(numpy.dtype("u1"), Number(loan.release))
    unopened = ferry.Channel(name, "sender", open=False)
    unopened._set("capacity", Number(unopened.close))
    with pytest.raises(ferry.FerryError):
        unopened.open()


def test_loaned_arrays(ends):
    sender, receiver = ends
    array = sender.loan((10, 10), "i2")
    array[:] = 3
    sender.send(array)
    assert receiver.receive().tolist() == [[3] * 10] * 10


def test_errors_are_those_of_the_standard_library(name, ends):
    sender, receiver = ends
    with pytest.raises(queue.Empty) as caught:
        receiver.receive(0)
    assert isinstance(caught.value, ferry.FerryError)
    assert int(caught.value.code) == 12 and caught.value.domain == "ferry-error-quark"
    with pytest.raises(TimeoutError):
        receiver.receive(0.02)
    for _ in range(8):
        sender.send(0)
    with pytest.raises(queue.Full):
        sender.send(0, 0)
    with pytest.raises(TimeoutError):
        sender.send(0, timeout=0.02)
    with pytest.raises(ferry.UnsupportedError):
        receiver.send(1)
    with pytest.raises(FileExistsError):
        ferry.Channel(name, "sender", open_mode="create")
    with pytest.raises(FileNotFoundError):
        ferry.Channel(name + "x", "sender", open_mode="join")
    with pytest.raises(ferry.MismatchError):
        ferry.Channel(name, "receiver", capacity=9)
    with pytest.raises(ValueError):
        ferry.Channel("a/b", "sender")
    with pytest.raises(ValueError):
        ferry.Channel(name, "sendr")
    with pytest.raises(TypeError):
        ferry.Channel(name, "sender", capacitty=1)
    with pytest.raises(ValueError):
        ferry.Channel(name, "sender", mode="sideways")
    with pytest.raises(ValueError):
        ferry.Channel(name, "sender", capacity=-1)


def test_closed(ends):
    _, receiver = ends
    receiver.close()
    receiver.close()
    with pytest.raises(ferry.ClosedError):
        receiver.receive(0)
    assert not receiver.is_open


def test_pickles_only_where_allowed(name):
    with (
        ferry.Channel(name, "sender", pickle=True) as sender,
        ferry.Channel(name, "receiver") as careful,
        ferry.Channel(name, "receiver", pickle=True) as trusting,
    ):
        sender.send(threading.Thread)
        with pytest.raises(ferry.CodecError):
            careful.receive()
        sender.send(threading.Thread)
        assert trusting.receive() is threading.Thread
    with ferry.Channel(name, "sender") as sender, pytest.raises(ferry.CodecError):
        sender.send(threading.Thread)


@pytest.mark.parametrize("form", ["memfd name={} ! python pickle={}", "ferry+memfd:{}?codec=python&codec.pickle={}"])
def test_pickles_as_the_description_says(name, form):
    def allowed(says, **arguments):
        with ferry.Channel(form.format(name, says), "sender", **arguments) as sender:
            try:
                sender.send(threading.Thread)
            except ferry.CodecError:
                return False
        return True

    assert allowed("yes") and allowed("yes", pickle=True, codec="python")
    with ferry.Channel(form.format(name, "yes"), "sender") as sender, pickle.loads(pickle.dumps(sender)) as again:
        again.send(threading.Thread)
    assert not allowed("no") and not allowed("no", pickle=False)
    for says, argument in (("yes", False), ("no", True)):
        with pytest.raises(ValueError, match="contradicts"):
            allowed(says, pickle=argument)
    with pytest.raises(ValueError, match="contradicts"):
        allowed("yes", codec="raw")


@pytest.mark.parametrize("form", ["memfd name={} capacity=8 mode=broadcast", "ferry+memfd:{}?capacity=8&mode=broadcast"])
def test_properties_that_contradict_the_description(name, form):
    description = form.format(name)
    with ferry.Channel(description, "sender", capacity=8, mode="broadcast", history=4, inline_size=None) as sender:
        assert (sender.capacity, sender.history) == (8, 4)
    for wrong in ({"capacity": 9}, {"mode": "work-queue"}, {"mode": 0}):
        with pytest.raises(ValueError, match="contradicts the description"):
            ferry.Channel(description, "sender", **wrong)
    with pytest.raises(ValueError, match="contradicts the description"):
        ferry.Channel(f"memfd name={name} max-bytes=1M", "sender", max_bytes=1 << 21)


def test_pickles_where_the_description_says_nothing(name):
    for description in (f"memfd name={name}", f"memfd name={name} ! python", f"memfd name={name} ! auto"):
        for allowed in (None, False, True):
            with ferry.Channel(description, "sender", pickle=allowed) as sender:
                if allowed:
                    sender.send(threading.Thread)
                    continue
                with pytest.raises(ferry.CodecError):
                    sender.send(threading.Thread)
    with ferry.Channel(f"memfd name={name}", "sender", codec="raw") as sender:
        sender.send(b"bytes")
    with ferry.Channel(f"memfd name='{name} ! python pickle=no'", "observer", pickle=True, codec="python", open=False):
        pass


def test_flush_does_not_wait_for_what_comes_later(name):
    with ferry.Channel(name, "sender", capacity=8) as sender, ferry.Channel(name, "receiver") as receiver:
        for i in range(5):
            sender.send(i)
        thread = threading.Thread(target=sender.flush)
        thread.start()
        # The channel is never empty; what was there before takes longer than a slice of the call's wait.
        for n_taken in range(1, 16):
            time.sleep(0.04)
            sender.send("later")
            receiver.receive()
            if n_taken == 4:
                assert thread.is_alive()
        thread.join(0.1)
        done = not thread.is_alive()
        while len(receiver) > 0:
            receiver.receive()
        thread.join()
        assert done


def test_broadcast_is_read_only(name):
    with (
        ferry.Channel(name, "sender", mode="broadcast") as sender,
        ferry.Channel(name, "receiver") as one,
        ferry.Channel(name, "receiver") as two,
    ):
        sender.send(numpy.arange(50_000))
        sender.send_bytes(bytes(50_000))
        for receiver in (one, two):
            array = receiver.receive()
            assert array.sum() == 49_999 * 25_000 and not array.flags.writeable
            buffer = receiver.receive_buffer()
            assert not buffer.writable
            with pytest.raises(TypeError):
                buffer.data[0] = 1


def test_descriptions_and_uris(name):
    with (
        ferry.open(f"memfd name={name} capacity=3 ! raw", "sender") as sender,
        ferry.open(f"ferry+memfd:{name}", "receiver") as receiver,
    ):
        assert sender.capacity == receiver.capacity == 3
        sender.send(b"x")
        assert receiver.receive() == b"x"
        assert f"name={name}" in receiver.description


def test_iteration_and_length(ends):
    sender, receiver = ends
    for i in range(5):
        sender.send(i)
    assert len(receiver) == len(sender) == 5
    sender.end_of_stream()
    assert list(receiver) == [0, 1, 2, 3, 4]
    assert len(receiver) == 0 and receiver
    with pytest.raises(EOFError):
        receiver.receive()


def test_statistics_and_participants(ends):
    sender, receiver = ends
    sender.send(b"abc")
    receiver.receive()
    statistics = receiver.statistics
    assert (statistics.messages_sent, statistics.messages_received) == (1, 1)
    assert (statistics.senders, statistics.receivers, statistics.capacity) == (1, 1, 8)
    assert {(p.role, p.pid, p.alive) for p in sender.participants} == {
        ("sender", os.getpid(), True),
        ("receiver", os.getpid(), True),
    }


def test_flush_wait_and_shut_down(ends):
    sender, receiver = ends
    assert sender.wait(0) and not receiver.wait(0.01)
    sender.send(1)
    assert receiver.wait(1)
    with pytest.raises(TimeoutError):
        sender.flush(0.02)
    threading.Timer(0.05, receiver.receive).start()
    sender.flush(5)
    assert sender.wait_for_peers(1, 1)
    assert not sender.wait_for_peers(2, 0.02)
    receiver.shut_down()
    with pytest.raises(ferry.ClosedError):
        sender.send(1)


def test_default_timeout(name):
    with ferry.Channel(name, "receiver", timeout=0.02) as receiver:
        assert receiver.timeout == pytest.approx(0.02)
        with pytest.raises(TimeoutError):
            receiver.receive()
        receiver.timeout = None
        assert receiver.timeout is None


def test_descriptor(ends):
    sender, receiver = ends
    assert not receiver.check()
    fd = receiver.fileno()
    assert not receiver.check()
    threading.Timer(0.1, sender.send, (1,)).start()
    end = time.monotonic() + 10
    while not receiver.check() and time.monotonic() < end:
        select.select([fd], [], [], 10)
    assert receiver.receive(0) == 1


def test_copies(ends):
    sender, receiver = ends
    sender.send(numpy.zeros(10_000))
    assert receiver.receive(copy=True).flags.owndata
    sender.send(numpy.zeros(10_000))
    assert not receiver.receive().flags.owndata


def test_gobject(ends):
    sender, receiver = ends
    sender.send_bytes(b"by gi")
    assert receiver.gobject.is_open()
    assert type(receiver.gobject).__gtype__.name == "FerryChannel"
