# SPDX-License-Identifier: LGPL-2.1-or-later
"""Codec numpy in Python: arrays go through a message and come back as they were."""

import array
import ctypes
import gc
import mmap
import os
import re
import struct
import subprocess
import sys
import threading
import tracemalloc
import weakref

import gi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

gi.require_version("Ferry", "1.0")
from gi.repository import Ferry, GLib, GObject  # noqa: E402

ALIGNMENT = 64


def make_codec(decode_to: str):
    """Return a codec that decodes to that."""
    codec = Ferry.Registry.get_default().create_codec("numpy")
    codec.set_property("decode-to", decode_to)
    return codec


CODEC = make_codec("object")


def value_of(thing) -> GObject.Value:
    """Return a GValue of type PyObject."""
    value = GObject.Value()
    value.init(GObject.TYPE_PYOBJECT)
    value.set_boxed(thing)
    return value


def encode(thing) -> GLib.Bytes:
    return CODEC.encode_bytes(value_of(thing))


def writable_buffer(data: bytes):
    buffer = Ferry.Buffer.new(len(data))
    assert buffer.fill(0, data)
    return buffer


def decode(buffer):
    return CODEC.decode(buffer, 1)[1]


def round_trip(thing) -> np.ndarray:
    """Return what arrives where the receiver owns the memory, as in a work queue."""
    return decode(writable_buffer(encode(thing).get_data()))


class CValue(ctypes.Structure):
    """A GValue as C sees it."""

    _fields_ = (("type", ctypes.c_size_t), ("data", ctypes.c_uint64 * 2))


class Tensor:
    """The C view of a decoded FerryTensor. PyGObject does not keep boxed values that come out of a GValue."""

    def __init__(self, library, value):
        self._library = library
        self._value = value
        self._pointer = ctypes.c_void_p(value.data[0])

    def _call(self, name, result, *args):
        function = getattr(self._library, f"ferry_tensor_{name}")
        function.restype = result
        return function(self._pointer, *args)

    def __del__(self):
        self._library.g_value_unset(ctypes.byref(self._value))

    @property
    def format(self) -> str:
        return self._call("get_format", ctypes.c_char_p).decode()

    @property
    def shape(self) -> tuple:
        n = self._call("get_n_dimensions", ctypes.c_uint)
        return tuple(self._call("get_shape", ctypes.POINTER(ctypes.c_int64), None)[:n])

    @property
    def writable(self) -> bool:
        return bool(self._call("is_writable", ctypes.c_int))

    @property
    def fortran(self) -> bool:
        return bool(self._call("is_f_contiguous", ctypes.c_int))

    def tobytes(self) -> bytes:
        """Return the elements as they lie in memory."""
        return ctypes.string_at(self._call("get_data", ctypes.c_void_p), self._call("get_size_bytes", ctypes.c_size_t))


def decode_in_c(message: bytes, decode_to="auto", gil=False):
    """Decode as a C program of this process does, with or without the GIL: a Tensor, or a Python object."""
    library = (ctypes.PyDLL if gil else ctypes.CDLL)("libferry-1.0.so.0")
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    codec = make_codec(decode_to)
    capsule = codec.__gpointer__
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, (ctypes.py_object,)
    pointer = ctypes.c_void_p(get_pointer(capsule, get_name(capsule)))

    library.ferry_buffer_new.restype = ctypes.c_void_p
    buffer = ctypes.c_void_p(library.ferry_buffer_new(ctypes.c_size_t(len(message))))
    assert library.ferry_buffer_fill(buffer, ctypes.c_size_t(0), message, ctypes.c_size_t(len(message)))
    value = CValue()
    decoded = library.ferry_codec_decode(pointer, buffer, 1, ctypes.byref(value), None)
    library.ferry_buffer_unref(buffer)
    assert decoded
    library.g_type_name.restype = ctypes.c_char_p
    name = library.g_type_name(ctypes.c_size_t(value.type))
    if name == b"FerryTensor":
        return Tensor(library, value)
    assert name == b"PyObject"
    thing = ctypes.cast(ctypes.c_void_p(value.data[0]), ctypes.py_object).value
    library.g_value_unset(ctypes.byref(value))
    return thing


def assert_same(sent: np.ndarray, arrived: np.ndarray) -> None:
    """Check that dtype, shape and every byte are the same."""
    assert type(arrived) is np.ndarray
    assert arrived.dtype == sent.dtype
    assert arrived.dtype.str == sent.dtype.str
    assert arrived.dtype.isalignedstruct == sent.dtype.isalignedstruct
    assert arrived.dtype.type is sent.dtype.type or sent.dtype.kind in "iu"  # long or long long
    assert arrived.dtype.fields == sent.dtype.fields
    assert arrived.dtype.metadata == sent.dtype.metadata
    assert arrived.shape == sent.shape
    assert arrived.tobytes() == sent.tobytes()  # NaNs with their payload too
    assert arrived.flags.c_contiguous or arrived.flags.f_contiguous
    if sent.flags.c_contiguous or sent.flags.f_contiguous:
        assert arrived.flags.c_contiguous == sent.flags.c_contiguous
        assert arrived.flags.f_contiguous == sent.flags.f_contiguous
    assert arrived.flags.writeable == sent.flags.writeable
    assert arrived.flags.aligned
    if arrived.size and arrived.dtype.itemsize:
        assert arrived.ctypes.data % ALIGNMENT == 0


# dtypes

DTYPES = [
    *(np.dtype(c) for c in "?bBhHiIlLqQefdgFDG"),
    *(np.dtype(c).newbyteorder() for c in "hHiIlLqQefdFD"),
    *map(np.dtype, ("S1", "S7", "<U1", ">U5", "V1", "V13")),
    *map(np.dtype, ("M8", "m8", "M8[Y]", "M8[ns]", ">M8[25us]", "m8[3D]", "m8[as]")),
]
STRUCTURES = [
    [("x", "<f4"), ("y", ">i8")],
    [("x", "f4", (2, 3)), ("name", "U8"), ("t", "M8[ms]")],
    [("point", [("x", "f8"), ("deep", [("flag", "?"), ("raw", "V3")], (2,))]), ("n", "u2")],
    [(("a title", "a"), "i4"), ("b", "f8")],
    [("größe", "f4"), ("it's", "i1"), ('"', "i1"), ("\\", "i1"), ("\ud800", "i1")],
    np.dtype([("a", "u1"), ("b", "f8"), ("c", "u1")], align=True),
    np.dtype([("in", np.dtype([("a", "u1"), ("b", "c16")], align=True)), ("c", "u1")]),
    {"names": ["a", "b"], "formats": ["<i4", "<i2"], "offsets": [0, 2]},
    {"names": ["b", "a"], "formats": ["<i4", "<i2"], "offsets": [8, 0], "itemsize": 32},
    {"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [0, 2], "titles": ["T", None], "itemsize": 9},
    {"names": [], "formats": [], "itemsize": 12},
    [],
    np.dtype((np.record, [("r", "u1"), ("g", "u1")])),
    [("long", "g"), ("clong", "G", (2,))],
    [("sub", "i4", (1,)), ("empty", "S0"), ("none", "f8", (0, 4))],
    [("one", np.dtype("f8", metadata={"unit": "mm"}))],
]
METADATA = [
    {"unit": "m"},
    {"a": (1, -2.5, None, True, False), "b": [b"bytes", {"k": [("",)]}], "c": -(2**62)},
]


def filled(dtype, shape) -> np.ndarray:
    """Return an array of bytes that are all different."""
    a = np.zeros(shape, dtype)
    if a.dtype.itemsize and a.size:
        n = a.dtype.itemsize * a.size
        raw = (np.arange(n) * 7 % 97).astype("u1")  # 0 to 96: code points as well
        if a.dtype.kind == "U":
            raw[:] = 0
            raw[:: 4] = 65
            raw = raw if a.dtype.isnative else raw.reshape(-1, 4)[:, ::-1].ravel()
        a = np.frombuffer(raw.tobytes(), f"V{a.dtype.itemsize}").reshape(shape).copy()
        a = a.view(np.ndarray)
        a.dtype = dtype
    return a


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (0,), (4, 0, 2)], ids=str)
def test_dtype(dtype, shape):
    sent = filled(dtype, shape)
    assert_same(sent, round_trip(sent))


@pytest.mark.parametrize("dtype", STRUCTURES, ids=lambda d: ascii(d)[:60])
@pytest.mark.parametrize("shape", [(), (5,), (0, 2)], ids=str)
def test_structure(dtype, shape):
    sent = np.zeros(shape, dtype)
    if sent.dtype.itemsize and sent.size:
        raw = (np.arange(sent.dtype.itemsize * sent.size) % 3).astype("u1")
        sent = np.ndarray(shape, dtype, raw.copy())
    assert_same(sent, round_trip(sent))


@pytest.mark.parametrize("metadata", METADATA, ids=["small", "large"])
@pytest.mark.parametrize("base", ["f8", "M8[D]", [("a", "i4")]], ids=str)
def test_metadata(base, metadata):
    sent = np.zeros(3, np.dtype(base, metadata=metadata))
    assert_same(sent, round_trip(sent))


def test_strings_without_characters():
    for kind in ("S0", "U0", "V0"):
        sent = np.zeros(3, [("a", kind)])["a"]
        arrived = round_trip(sent)
        assert arrived.dtype == sent.dtype and arrived.shape == (3,)


def test_padding_is_sent():
    """What lies between fields comes along, and not what the block contained before."""
    dtype = np.dtype([("a", "u1"), ("b", "f8")], align=True)
    sent = np.ndarray((4,), dtype, b"\x05" * 64)[::2]
    assert round_trip(sent).tobytes() == b"\x05" * 32


def test_nan_payloads():
    bits = np.array([0x7FF8000000000001, 0xFFF8DEADBEEF0000, 0x7FF0000000000001, 1 << 63], "u8")
    assert (round_trip(bits.view("f8")).view("u8") == bits).all()
    halves = np.arange(65536, dtype="u2")
    assert (round_trip(halves.view("f2")[::-1]).view("u2") == halves[::-1]).all()


def test_bools_keep_their_bytes():
    sent = np.array([0, 1, 2, 255], "u1").view("?")
    assert round_trip(sent).tobytes() == b"\0\1\2\xff"


def test_renamed_fields():
    """Field names can be assigned: neither side remembers old ones, nor do messages share dtypes."""
    sent = np.zeros(2, [("a", "i4"), ("b", "i4")])
    first = round_trip(sent)
    sent.dtype.names = ("c", "d")
    second = round_trip(sent)
    assert first.dtype.names == ("a", "b") and second.dtype.names == ("c", "d")
    second.dtype.names = ("e", "f")
    assert round_trip(sent).dtype.names == ("c", "d")


def test_renamed_inner_fields():
    sent = np.zeros(2, [("in", [("a", "i4")])])
    first = round_trip(sent)
    first.dtype["in"].names = ("z",)
    assert round_trip(sent).dtype["in"].names == ("a",)


# Layouts

BASE = np.arange(2 * 3 * 4 * 5, dtype="<i4").reshape(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("view", "order"),
    [
        (lambda a: a, "C"),
        (lambda a: a.T, "F"),
        (lambda a: a[::-1], "C"),
        (lambda a: a[:, :, ::2, ::-2], "C"),
        (lambda a: a.T[::2, ::-1], "F"),
        (lambda a: a.transpose(1, 0, 3, 2), "C"),
        (lambda a: a[0, 0], "C"),
        (lambda a: a[:, 1, 2, 3], "C"),
        (lambda a: a[1:1], "C"),
        (lambda a: np.broadcast_to(a[0, 0, 0], (6, 5)), "C"),
        (lambda a: np.lib.stride_tricks.as_strided(a, (3, 3), (4, 4)), "C"),
        (lambda a: a[np.newaxis, 1:, ..., np.newaxis], "C"),
    ],
)
def test_layout(view, order):
    sent = view(BASE)
    arrived = round_trip(sent)
    assert arrived.dtype == sent.dtype and arrived.shape == sent.shape
    assert (arrived == sent).all()
    assert arrived.flags.c_contiguous if order == "C" else arrived.flags.f_contiguous


def test_unaligned():
    sent = np.frombuffer(bytearray(range(41)), "u1")[1:].view("<f8")
    assert not sent.flags.aligned
    assert_same(sent, round_trip(sent))


def test_many_dimensions():
    sent = np.zeros((1,) * 31 + (2,))
    assert_same(sent, round_trip(sent))


@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_large(order):
    """Above 1 MiB the GIL is released while copying."""
    sent = np.arange(1 << 19, dtype="f8").reshape(512, 1024, order="F" if order == "F" else "C")
    if order == "strided":
        sent = sent[:, ::2]
    assert (round_trip(sent) == sent).all()


# Read-only and writable views


def test_writable():
    arrived = round_trip(np.arange(4.0))
    arrived[0] = 7
    assert arrived[0] == 7


def test_read_only_sender():
    sent = np.arange(4.0)
    sent.flags.writeable = False
    arrived = round_trip(sent)
    assert not arrived.flags.writeable
    arrived.flags.writeable = True  # the memory is the receiver's own
    arrived[0] = 7


def test_read_only_message():
    """As in broadcast: nobody may write, and NumPy can't be talked into it."""
    arrived = decode(Ferry.Buffer.new_bytes(encode(np.arange(4.0))))
    assert not arrived.flags.writeable
    with pytest.raises(ValueError):
        arrived.flags.writeable = True


# Views and who holds what


def test_view_not_copy():
    buffer = writable_buffer(encode(np.arange(1000.0)).get_data())
    first, second = decode(buffer), decode(buffer)
    first[5] = -1
    assert second[5] == -1
    assert not first.flags.owndata
    assert first.ctypes.data == second.ctypes.data


def test_message_lives_as_long_as_a_view():
    first = round_trip(np.arange(1000.0))
    slice_ = first[10:20]
    message = first.base
    assert bytes(memoryview(message))[-8:] == np.float64(999).tobytes()
    del first, message
    gc.collect()
    assert (slice_ == np.arange(10.0, 20)).all()


def test_message_type():
    message = round_trip(np.arange(3.0)).base
    with pytest.raises(TypeError):
        type(message)()
    assert memoryview(message).readonly is False
    assert memoryview(decode(Ferry.Buffer.new_bytes(encode(np.arange(3)))).base).readonly is True


def test_references():
    sent = np.arange(10.0)
    before = sys.getrefcount(sent)
    for _ in range(100):
        round_trip(sent)
        with pytest.raises(GLib.Error):
            encode(sent.astype(object))
    gc.collect()
    assert sys.getrefcount(sent) == before
    reference = weakref.ref(sent)
    encode(sent)
    del sent
    gc.collect()
    assert reference() is None


def test_released_by_other_threads():
    arrays = [round_trip(np.full(5000, i)) for i in range(200)]

    def drop():
        while True:
            try:
                arrays.pop()
            except IndexError:
                return

    threads = [threading.Thread(target=drop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not arrays


def test_threads():
    wrong = []

    def work(seed):
        for i in range(100):
            sent = np.full((seed + 1, i), seed, "i4" if i % 2 else [("x", "f8"), ("y", f"S{seed + 1}")][: 1 + i % 2])
            if round_trip(sent).tobytes() != sent.tobytes():
                wrong.append((seed, i))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("transport", ["memfd", "posix-shm"])
def test_channel(transport):
    """Through shared memory the array is a view on the block, aligned, and writable in a work queue."""
    line = f"{transport} name=codec-numpy-{os.getpid()}"
    receiver = Ferry.Channel.new_from_description(line, Ferry.Role.RECEIVER)
    sender = Ferry.Channel.new_from_description(line, Ferry.Role.SENDER)
    receiver.open()
    sender.open()
    sent = np.arange(1 << 16, dtype="f4")
    sender.send_bytes(encode(sent), 5)
    arrived = decode(receiver.receive_buffer(5))
    assert_same(sent, arrived)
    arrived[0] = 3
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for entry in maps:
            low, high = (int(n, 16) for n in entry.split()[0].split("-"))
            if low <= arrived.ctypes.data < high:
                assert re.search(r"memfd:|/dev/shm", entry), entry
                break


# Tensors


def test_python_to_tensor():
    sent = np.arange(6, dtype=">i2").reshape(2, 3, order="F")
    tensor = decode_in_c(encode(sent).get_data(), "tensor")
    assert tensor.format == ">i2"
    assert tensor.shape == (2, 3)
    assert tensor.fortran
    assert tensor.writable
    assert tensor.tobytes() == sent.tobytes("F")


def test_structure_to_tensor():
    sent = np.zeros(2, np.dtype([("a", "u1"), ("b", "f8")], align=True))
    assert decode_in_c(encode(sent).get_data()).format == "[('a', '|u1'), ('', '|V7'), ('b', '<f8')]"
    overlapping = np.zeros(2, STRUCTURES[7])
    assert decode_in_c(encode(overlapping).get_data()).format == "|V4"
    assert decode_in_c(encode(np.zeros(3, "g")).get_data()).format == f"|V{np.dtype('g').itemsize}"


def test_read_only_tensor():
    assert not decode_in_c(encode(b"abc").get_data()).writable


@pytest.mark.parametrize(
    ("decode_to", "gil", "expected"),
    [
        ("auto", True, np.ndarray),
        ("auto", False, Tensor),
        ("tensor", True, Tensor),
        ("object", True, np.ndarray),
        ("object", False, np.ndarray),
    ],
)
def test_decode_to(decode_to, gil, expected):
    """Who holds the GIL is Python, or calls for it. Calls by introspection have given it away."""
    arrived = decode_in_c(encode(np.arange(3.0)).get_data(), decode_to, gil)
    assert type(arrived) is expected
    assert np.frombuffer(arrived.tobytes()).tolist() == [0, 1, 2]


def test_same_thread_c_value_is_freed():
    arrived = decode_in_c(encode(np.arange(3.0)).get_data(), gil=True)
    message = weakref.ref(arrived)
    del arrived
    assert message() is None


def send_tensor(tensor):
    value = GObject.Value()
    value.init(Ferry.Tensor)
    value.set_boxed(tensor)
    return decode(writable_buffer(CODEC.encode_bytes(value).get_data()))


@pytest.mark.parametrize("format_", ["<f4", ">i8", "|b1", "<c16", "|S5", ">U2", "<M8[ns]", "|V3", "<f2"])
def test_tensor_to_python(format_):
    tensor = Ferry.Tensor.new(format_, [2, 3])
    arrived = send_tensor(tensor)
    assert arrived.dtype == np.dtype(format_)
    assert arrived.shape == (2, 3)
    assert arrived.flags.writeable
    assert not arrived.tobytes().strip(b"\0")


def test_structured_tensor_to_python():
    arrived = send_tensor(Ferry.Tensor.new("[('x', '<f4'), ('', '|V4'), ('y', [('z', '>i2')], (2,))]", [3]))
    assert arrived.dtype.names == ("x", "y")
    assert arrived.dtype.itemsize == 12
    assert arrived.dtype["y"].shape == (2,)


def test_bfloat16():
    """NumPy has no such type: opaque, not some numbers."""
    arrived = send_tensor(Ferry.Tensor.new_copy("<E2", [2], b"\x80\x3f\x00\x40"))
    assert arrived.dtype.itemsize == 2
    assert arrived.dtype.kind not in "iufc" or "bfloat16" in str(arrived.dtype)
    assert arrived.tobytes() == b"\x80\x3f\x00\x40"


# Other arrays


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (b"abc", np.frombuffer(b"abc", "u1")),
        (bytearray(b"abc"), np.frombuffer(b"abc", "u1")),
        (memoryview(np.arange(6, dtype="<i4").reshape(2, 3)), np.arange(6, dtype="<i4").reshape(2, 3)),
        (memoryview(bytes(range(8)))[::2], np.arange(0, 8, 2, dtype="u1")),
        (array.array("d", [1, 2]), np.array([1.0, 2.0])),
        ((ctypes.c_int16 * 3)(1, 2, 3), np.array([1, 2, 3], "i2")),
        (np.float32(1.5), np.array(1.5, "f4")),
        (np.datetime64("2024-02-29", "s"), np.array("2024-02-29", "M8[s]")),
        (np.str_("text"), np.array("text")),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_array_likes(thing, expected):
    arrived = round_trip(thing)
    assert type(arrived) is np.ndarray
    assert arrived.dtype == expected.dtype
    assert arrived.shape == expected.shape
    assert arrived.tobytes() == expected.tobytes()


def test_array_like_read_only():
    assert not round_trip(b"abc").flags.writeable
    assert round_trip(bytearray(b"abc")).flags.writeable


def test_mmap():
    with mmap.mmap(-1, 4096) as memory:
        memory[:3] = b"abc"
        assert round_trip(memory)[:3].tobytes() == b"abc"


class Interface:
    """Has nothing but the array interface."""

    def __init__(self, target):
        self.target = target
        self.__array_interface__ = target.__array_interface__


class Dlpack:
    """Has nothing but DLPack, like tensors of PyTorch."""

    def __init__(self, target):
        self.target = target

    def __dlpack__(self, stream=None):
        return self.target.__dlpack__()

    def __dlpack_device__(self):
        return self.target.__dlpack_device__()


def test_array_interface():
    sent = np.arange(6, dtype=">i2").reshape(2, 3)
    assert_same(sent, round_trip(Interface(sent)))


@pytest.mark.parametrize("view", [lambda a: a, lambda a: a.T, lambda a: a[:, ::2], lambda a: a[1, 1]])
def test_dlpack(view):
    sent = view(np.arange(12, dtype="f4").reshape(3, 4))
    if not isinstance(sent, np.ndarray):
        sent = np.asarray(sent)
    arrived = round_trip(Dlpack(sent))
    assert (arrived == sent).all() and arrived.shape == sent.shape and arrived.dtype == sent.dtype


def test_dlpack_lets_go():
    sent = np.arange(12.0)
    before = sys.getrefcount(sent)
    for _ in range(10):
        round_trip(Dlpack(sent))
    assert sys.getrefcount(sent) == before


def test_torch():
    torch = pytest.importorskip("torch")
    sent = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    assert (round_trip(sent) == sent.numpy()).all()
    assert round_trip(sent.to(torch.bfloat16)).dtype.itemsize == 2


class Broken:
    def __dlpack__(self, stream=None):
        raise RuntimeError("no such luck")


@pytest.mark.parametrize(
    ("thing", "part"),
    [
        (np.zeros(2, object), "codec python"),
        (np.zeros(2, [("a", "i4"), ("o", object)]), "codec python"),
        (np.ma.zeros(3), "codec python"),
        (np.zeros(2).view(np.recarray), "codec python"),
        (np.zeros((2, 2)).view(np.matrix), "codec python"),
        (np.zeros(2, np.dtype("f8", metadata={"o": object()})), "codec python"),
        (np.zeros(2, np.dtype([(("t", "a"), "f8")], metadata={"n": 2**70})), "codec python"),
        ([1, 2], "codec python"),
        ("text", "codec python"),
        ({}, "codec python"),
        (3, "codec python"),
        (Broken(), "no such luck"),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_refused(thing, part):
    with pytest.raises(GLib.Error) as caught:
        encode(thing)
    assert caught.value.matches(Ferry.Error.quark(), Ferry.Error.CODEC)
    assert part in caught.value.message
    assert "codec 'numpy'" in caught.value.message


# Anything


def nested(children):
    names = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True)
    return names.flatmap(
        lambda chosen: st.tuples(*[children for _ in chosen]).map(lambda types: np.dtype(list(zip(chosen, types))))
    )


SCALARS = st.one_of(npst.scalar_dtypes(), npst.byte_string_dtypes(), npst.unicode_string_dtypes())
ANY_DTYPE = st.recursive(
    SCALARS,
    lambda children: st.one_of(
        nested(children), nested(st.tuples(children, npst.array_shapes(max_dims=2, max_side=3)))
    ),
    max_leaves=6,
)


@given(st.data())
def test_any_array(data):
    dtype = data.draw(SCALARS)
    sent = data.draw(npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
    assert_same(sent, round_trip(sent))
    if sent.ndim:
        part = sent[data.draw(npst.basic_indices(sent.shape, allow_newaxis=True, allow_ellipsis=False))]
        if isinstance(part, np.ndarray):
            arrived = round_trip(part)
            assert arrived.dtype == part.dtype and arrived.tobytes() == part.tobytes()


@given(ANY_DTYPE, npst.array_shapes(max_dims=2, max_side=4), st.randoms(use_true_random=False))
def test_any_structure(dtype, shape, random):
    if dtype.subdtype is not None:
        dtype = np.dtype([("a", dtype)])
    raw = bytes(random.choices((0, 1, 65), k=dtype.itemsize * int(np.prod(shape))))
    sent = np.ndarray(shape, dtype, bytearray(raw) or None)
    arrived = round_trip(sent)
    assert arrived.dtype == dtype and arrived.shape == shape
    assert memoryview(arrived.view(f"V{dtype.itemsize}")).tobytes() == raw


@given(st.data())
def test_any_damage(data):
    """Damaged messages are arrays or errors, and no array reaches out of its message."""
    message = bytearray(encode(np.zeros(2, data.draw(st.sampled_from([*STRUCTURES, DTYPES[0]])))).get_data())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(message) - 1))
        message[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(b"sgarmO|<\0\xff")))
    cut = data.draw(st.integers(0, len(message)))
    for damaged in (bytes(message), bytes(message[:cut])):
        try:
            arrived = decode(writable_buffer(damaged))
        except GLib.Error as error:
            assert error.matches(Ferry.Error.quark(), Ferry.Error.CODEC)
            assert "codec 'numpy'" in error.message
        else:
            assert not arrived.dtype.hasobject
            assert arrived.nbytes <= len(damaged)
            arrived.tobytes()


def with_extension(extension: bytes, item_size: int = 8) -> bytes:
    """A message with an array of one element that has the dtype of the extension."""
    format_ = b"|V%d" % item_size
    header = struct.pack("<BBHIIIq", 0, 1, len(format_), item_size, len(extension), 0, 1) + format_ + extension
    return header + bytes(-len(header) % 64) + bytes(item_size)


def type_string(text: bytes) -> bytes:
    return b"s%c" % len(text) + text


def subarray(node: bytes, *shape: int) -> bytes:
    return b"a%c" % len(shape) + struct.pack(f"<{len(shape)}I", *shape) + node


def structure(item_size: int, *fields) -> bytes:
    result = b"r\0" + struct.pack("<II", item_size, len(fields))
    for i, (offset, node) in enumerate(fields):
        result += struct.pack("<I", 1) + b"%c" % (97 + i) + b"\0" + struct.pack("<I", offset) + node
    return result


BYTE = type_string(b"|u1")


def test_hand_made_dtype():
    extension = structure(8, (0, BYTE), (1, subarray(BYTE, 2, 3)), (7, structure(1, (0, BYTE), (0, BYTE))))
    assert decode(writable_buffer(with_extension(extension))).dtype.itemsize == 8


@pytest.mark.parametrize(
    "extension",
    [
        *(structure(8, (0, type_string(text))) for text in (b"|S4294967295", b"|V4294967288", b"|S9999999999")),
        *(structure(8, (0, type_string(text))) for text in (b"<U1073741823", b"<U536870912", b"<U1073741824")),
        *(structure(8, (0, type_string(text))) for text in (b"|S9", b"<M8[4294967297s]", b"<m8[99999999999s]")),
        *(structure(8, (offset, BYTE)) for offset in (8, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)),
        *(structure(8, (0, subarray(BYTE, *shape))) for shape in ((9,), (65536, 65536), (0xFFFFFFFF,), (0x80000000,))),
        structure(8, (0, subarray(type_string(b"|V2147483647"), 2147483647, 4))),
        structure(8, (0, structure(8, (4, structure(4, (0, type_string(b"|S4294967295"))))))),
        structure(8, (0, structure(8, (4, subarray(structure(4, (4, BYTE)), 1))))),
        structure(8, (7, structure(2, (0, BYTE)))),
        structure(8, (0, type_string(b"|S2147483647")), (0x7FFFFFFF, BYTE)),
    ],
)
def test_fields_outside(extension):
    """NumPy calculates with int, which may overflow: no field may end up outside."""
    with pytest.raises(GLib.Error, match="codec 'numpy'") as error:
        decode(writable_buffer(with_extension(extension)))
    assert error.value.matches(Ferry.Error.quark(), Ferry.Error.CODEC)


def test_claimed_metadata():
    """Containers within containers can't all have as many items as there are bytes left."""
    size = 1 << 20
    levels = b"".join(b"t" + struct.pack("<I", size) for _ in range(8))
    extension = b"mD" + struct.pack("<IcI", 1, b"u", 1) + b"k" + levels + bytes(size + 100)
    tracemalloc.start()
    try:
        with pytest.raises(GLib.Error, match="codec 'numpy'"):
            decode(writable_buffer(with_extension(extension)))
        assert tracemalloc.get_traced_memory()[1] < 16 * size
    finally:
        tracemalloc.stop()


# Without Python, without NumPy


def test_tools_list_it():
    """A C program has no interpreter, and lists the codec all the same."""
    result = subprocess.run(["ferry-inspect", "codec-numpy"], capture_output=True, text=True, check=True)
    assert re.search(r"codec\s+numpy\s", result.stdout)


def test_imports_numpy_itself():
    """A receiver that has not imported NumPy gets arrays too."""
    script = """
import sys
import gi
gi.require_version("Ferry", "1.0")
from gi.repository import Ferry, GLib
codec = Ferry.Registry.get_default().create_codec("numpy")
codec.set_property("decode-to", "object")
assert "numpy" not in sys.modules
message = sys.stdin.buffer.read()
print(codec.decode(Ferry.Buffer.new_bytes(GLib.Bytes(message)), 1)[1].sum())
"""
    sent = bytes(encode(np.arange(5)).get_data())
    result = subprocess.run([sys.executable, "-c", script], input=sent, capture_output=True, check=True)
    assert result.stdout.strip() == b"10"
