# SPDX-License-Identifier: LGPL-2.1-or-later
"""Objects and arrays between this process and a C program without Python."""

from __future__ import annotations

import itertools
import os
import subprocess

import ferry
import pytest

numpy = pytest.importorskip("numpy")

#: Built from plain-peer.c.
PEER = os.environ["FERRY_TEST_PLAIN_PEER"]
TIMEOUT = 30  # seconds

_counter = itertools.count()

#: What is sent, and what a C program reads.
PLAIN = [
    (None, "@mv nothing"),
    (True, "true"),
    (5, "int64 5"),
    (-(2**40), "int64 -1099511627776"),
    (2**64 - 1, "uint64 18446744073709551615"),
    (-0.5, "-0.5"),
    ("grüße, \U0001f600", "'grüße, \U0001f600'"),
    (b"\0\xff", "[byte 0x00, 0xff]"),
    ([], "@av []"),
    ({}, "@a{sv} {}"),
    ((1, "x"), "(int64 1, 'x')"),
    ([1, [2.5, "a", None]], "[<int64 1>, <[<2.5>, <'a'>, <@mv nothing>]>]"),
    (
        {"flags": [True, False], "nested": {"deeper": [{"deepest": (1, "two", 3.0)}], "raw": b"\1"}},
        "{'flags': <[<true>, <false>]>, "
        "'nested': <{'deeper': <[<{'deepest': <(int64 1, 'two', 3.0)>}>]>, 'raw': <[byte 0x01]>}>}",
    ),
    ({7: "seven", "text": 8}, "[(<int64 7>, <'seven'>), (<'text'>, <int64 8>)]"),
    # More than fits into a slot of the ring.
    (list(range(5000)), "[" + ", ".join(f"<int64 {i}>" for i in range(5000)) + "]"),
]


@pytest.fixture(params=["memfd", "posix-shm"])
def channel(request):
    """The description of a channel, up to the codec."""
    return f"{request.param} name=test-plain-peer-{os.getpid()}-{next(_counter)}"


def start(*arguments):
    return subprocess.Popen([PEER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(peer):
    out, err = peer.communicate(timeout=TIMEOUT)
    assert (peer.returncode, err) == (0, "")
    return out.splitlines()


def send(channel, codec, *objects, receiving="auto"):
    """Send objects to the C program; what it printed."""
    with ferry.Channel(channel, "sender", codec=codec) as sender:
        peer = start("receive", channel if receiving == "auto" else f"{channel} ! {receiving}")
        for item in objects:
            sender.send(item, TIMEOUT)
        sender.end_of_stream()
        sender.flush(TIMEOUT)
        return end(peer)


def receive(channel, codec, how, *variants):
    """What the C program sends with a codec."""
    with ferry.Channel(channel, "receiver", timeout=TIMEOUT) as receiver:
        peer = start(how, f"{channel} ! {codec}", *variants)
        received = list(receiver)
        end(peer)
        return received


@pytest.mark.parametrize("receiving", ["auto", "python"])
@pytest.mark.parametrize("sending", ["auto", "python"])
def test_objects_are_variants_there(channel, sending, receiving):
    lines = send(channel, sending, *[item for item, _ in PLAIN], receiving=receiving)
    assert lines == [f"variant {text}" for _, text in PLAIN]


def test_what_is_no_plain_object_is_told(channel):
    with ferry.Channel(channel, "sender", codec="python", pickle=True) as sender:
        peer = start("receive", channel)
        sender.send(subprocess.Popen)
        _, err = peer.communicate(timeout=TIMEOUT)
        assert peer.returncode == 1
        assert "codec 'python'" in err


@pytest.mark.parametrize("codec", ["auto", "numpy"])
def test_arrays_are_tensors_there(channel, codec):
    arrays = [
        numpy.arange(6, dtype="<i4").reshape(2, 3),
        numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3)) / 2,
        numpy.arange(10, dtype="u1")[::-3],
        numpy.zeros((0, 3), ">f4"),
        numpy.array(True),
        numpy.arange(20_000, dtype="<u2"),
    ]
    assert send(channel, codec, *arrays, receiving=codec) == [
        "tensor <i4 2x3: 0 1 2 3 4 5",
        "tensor <f8 2x3: 0 0.5 1 1.5 2 2.5",
        "tensor |u1 4: 9 6 3 0",
        "tensor >f4 0x3:",
        "tensor |b1: 1",
        "tensor <u2 20000: " + " ".join(str(i) for i in range(20_000)),
    ]


def without_bytes(item):
    if isinstance(item, bytes):
        return list(item)
    return {key: without_bytes(value) for key, value in item.items()} if isinstance(item, dict) else item


@pytest.mark.parametrize("codec", ["gvariant", "python"])
def test_variants_are_objects_here(channel, codec):
    texts = [text for _, text in PLAIN]
    received = receive(channel, codec, "send", *texts)
    # A variant has no dict with keys of several types, and codec gvariant knows nothing of bytes.
    expected = [[(7, "seven"), ("text", 8)] if text.startswith("[(") else item for item, text in PLAIN]
    if codec == "gvariant":
        expected = [without_bytes(item) for item in expected]
    assert received == expected
    assert [type(item) for item in received] == [type(item) for item in expected]


@pytest.mark.parametrize("codec", ["numpy", "python"])
def test_tensors_are_arrays_here(channel, codec):
    (array,) = receive(channel, codec, "send-tensor")
    assert type(array) is numpy.ndarray and array.dtype == "<i4"
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
