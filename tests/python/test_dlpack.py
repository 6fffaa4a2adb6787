# SPDX-License-Identifier: LGPL-2.1-or-later
"""Arrays of other libraries, which offer DLPack, go through a queue with one copy."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import sys

import ferry
import pytest

numpy = pytest.importorskip("numpy")

CPU, CUDA = 1, 2


class Array:
    """An array of another library: all that is known of it is DLPack."""

    def __init__(self, target, device=CPU):
        self.target, self.device = target, device
        self.exports = 0
        self.pickled = False

    def __dlpack__(self, stream=None):
        self.exports += 1
        return self.target.__dlpack__()

    def __dlpack_device__(self):
        return self.device, 0

    def __getstate__(self):
        self.pickled = True
        return self.__dict__


class PickledArray(Array):
    """One that says how it is pickled."""

    def __reduce__(self):
        return PickledArray, (self.target, self.device)


class Subclass(numpy.ndarray):
    """More than its elements."""


def mapping_of(array):
    address = array.ctypes.data
    with open("/proc/self/maps") as maps:
        for line in maps:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            if begin <= address < end:
                return line
    return ""


def check_view(array):
    """It lies where it was written by the sender."""
    assert type(array) is numpy.ndarray
    assert not array.flags.owndata
    assert "ferry" in mapping_of(array), mapping_of(array)


@pytest.fixture
def q():
    made = ferry.Queue()
    yield made
    made.close()


def test_arrives_as_a_view_that_may_be_written(q):
    sent = Array(numpy.arange(1 << 16, dtype="f4").reshape(256, -1))
    q.put(sent)
    got = q.get()
    check_view(got)
    assert got.dtype == "f4" and (got == sent.target).all()
    got[0, 0] = 7
    assert sent.target[0, 0] == 0
    assert sent.exports == 1 and not sent.pickled


def test_within_containers(q):
    sent = Array(numpy.arange(30000.0))
    q.put({"a": [sent, sent], "b": (Array(numpy.ones(5000, "i2")), 3)})
    got = q.get()
    assert got["a"][0] is got["a"][1]
    check_view(got["a"][0])
    check_view(got["b"][0])
    assert (got["a"][0] == sent.target).all()
    assert got["b"][0].tolist() == [1] * 5000 and got["b"][1] == 3
    assert not sent.pickled


@pytest.mark.parametrize(
    "array",
    [
        numpy.array(2.5),
        numpy.zeros((0, 3)),
        numpy.arange(6, dtype="u1").reshape(2, 3).T,
        numpy.arange(24, dtype="c16").reshape(2, 3, 4)[:, ::-2],
        numpy.arange(10, dtype="f2")[::-3],
    ],
    ids=lambda array: str(array.shape),
)
def test_layouts(q, array):
    q.put([Array(array)])
    (got,) = q.get()
    assert got.dtype == array.dtype and got.shape == array.shape and (got == array).all()
    assert got.flags.f_contiguous or not array.flags.f_contiguous


def test_without_pickle():
    q = ferry.Queue(pickle=False)
    q.put([Array(numpy.arange(3))])
    assert q.get()[0].tolist() == [0, 1, 2]


def test_pipe():
    left, right = ferry.Pipe()
    left.send(Array(numpy.arange(5000)))
    check_view(right.recv())


def test_channel():
    name = f"test-dlpack-{os.getpid()}"
    with (
        ferry.open(f"memfd name={name} ! python", "receiver") as receiver,
        ferry.open(f"memfd name={name} ! python", "sender") as sender,
    ):
        sender.send(Array(numpy.arange(5000)))
        check_view(receiver.receive())


def test_from_another_process(q):
    process = multiprocessing.get_context("fork").Process(target=lambda: q.put(Array(numpy.arange(1 << 18))))
    process.start()
    got = q.get(timeout=30)
    process.join(30)
    check_view(got)
    assert got.sum() == (1 << 17) * ((1 << 18) - 1)


def test_tensor_of_ferry(q):
    import gi

    gi.require_version("Ferry", "1.0")
    from gi.repository import Ferry

    q.put([Ferry.Tensor.from_array(numpy.arange(4000.0))])
    (got,) = q.get()
    check_view(got)
    assert got[-1] == 3999


def test_other_devices_are_refused(q):
    for sent in (Array(numpy.arange(3), CUDA), [Array(numpy.arange(3), CUDA)]):
        with pytest.raises(ferry.CodecError, match=r"Array are on the DLPack device 2:0; move it to the CPU first"):
            q.put(sent)
    q.put("still works")
    assert q.get() == "still works"


def test_what_dlpack_does_not_give_is_pickled_by_classes_that_know_how(q):
    q.put([PickledArray(numpy.arange(3), CUDA)])
    (got,) = q.get()
    assert type(got) is PickledArray and got.device == CUDA and got.target.tolist() == [0, 1, 2]
    with pytest.raises(ferry.CodecError, match="move it to the CPU"):
        ferry.Queue(pickle=False).put([PickledArray(numpy.arange(3), CUDA)])


def test_broken_exporters_are_told(q):
    class Broken:
        def __dlpack__(self):
            return 3

    class Raising:
        def __dlpack__(self):
            raise RuntimeError("no such luck")

    class Nowhere(Array):
        def __dlpack_device__(self):
            return "cpu"

    for sent, text in (
        (Broken(), "gave no DLPack capsule"),
        (Raising(), "no such luck"),
        (Nowhere(numpy.zeros(2)), "__dlpack_device__"),
    ):
        with pytest.raises(ferry.CodecError, match=text):
            q.put([sent])


def test_why_an_exporter_refuses_is_told(q):
    frozen = numpy.arange(3)
    frozen.flags.writeable = False
    try:
        frozen.__dlpack__()
    except BufferError as error:
        with pytest.raises(ferry.CodecError, match=re.escape(str(error)[:20])):
            q.put(Array(frozen))


def test_subclasses_of_ndarray_keep_their_class(q):
    q.put([numpy.arange(3).view(Subclass)])
    assert type(q.get()[0]) is Subclass


def test_lets_go(q):
    target = numpy.arange(1000.0)
    before = sys.getrefcount(target)
    for _ in range(10):
        q.put([Array(target)] * 2)
        q.get()
    with pytest.raises(ferry.CodecError):
        q.put([Array(target), Array(target, CUDA)])
    gc.collect()
    assert sys.getrefcount(target) == before
