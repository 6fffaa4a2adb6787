# SPDX-License-Identifier: LGPL-2.1-or-later
"""The introspected API in Python: what the overrides add, ownership, codecs and transports in Python."""

import asyncio
import collections
import gc
import json
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
import traceback

import gi
import pytest

gi.require_version("Ferry", "1.0")
import ferry.errors  # noqa: E402
from gi.repository import Ferry, Gio, GLib, GObject  # noqa: E402

numpy = pytest.importorskip("numpy")

TIMEOUT = 10.0  # seconds; for what should happen at once
BLOCK = 100_000  # bytes: more than travels inside a slot

names = (f"gi-{os.getpid()}-{i}" for i in range(1_000_000))


@pytest.fixture
def name():
    return next(names)


@pytest.fixture
def pair(name):
    """A sender and a receiver of one channel, open."""
    with (
        Ferry.Channel(transport="memfd", name=name, role="receiver", capacity=8) as receiver,
        Ferry.Channel(transport="memfd", name=name, role="sender") as sender,
    ):
        yield sender, receiver


def held(channel):
    """How many blocks all participants hold."""
    gc.collect()
    return sum(participant.held for participant in channel.list_participants())


def in_child(function, *arguments):
    """Run a function in a forked process, and return the process id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function(*arguments)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def reap(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def iterate_until(condition):
    """Run the default main loop until a condition holds."""
    timer = GLib.timeout_add(10, lambda: True)
    end = time.monotonic() + TIMEOUT
    try:
        while not condition() and time.monotonic() < end:
            GLib.MainContext.default().iteration(True)
    finally:
        GLib.source_remove(timer)
    assert condition()


def resident():
    """Resident memory in KB."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


measures_memory = pytest.mark.skipif(
    "FERRY_TEST_SANITIZED" in os.environ, reason="AddressSanitizer keeps what is freed, and looks for leaks itself"
)


# ---- the namespace ----


def test_every_class_has_its_gtype():
    kinds = (GObject.Object, GObject.GInterface, GObject.GBoxed)
    classes = [cls for cls in map(Ferry.__getattr__, dir(Ferry._introspection_module)) if isinstance(cls, type)]
    found = {cls.__name__ for cls in classes if issubclass(cls, kinds)}
    assert found >= {
        "Buffer",
        "Channel",
        "Codec",
        "Participant",
        "Plugin",
        "Registry",
        "Statistics",
        "Tensor",
        "Transport",
    }
    for cls in classes:
        if not hasattr(cls, "__info__") or cls.__name__.endswith(("Class", "Interface", "Private")):
            continue
        assert cls.__gtype__.name.startswith("Ferry"), cls


def test_objects_from_the_library_are_of_the_overridden_classes(pair):
    assert type(pair[0]) is Ferry.Channel
    assert type(Ferry.Channel.new("memfd", "x", "sender")) is Ferry.Channel
    assert type(Ferry.Buffer.new(1)) is Ferry.Buffer
    assert type(Ferry.Tensor.new("<f8", [2])) is Ferry.Tensor
    assert type(Ferry.Registry.get_default()) is Ferry.Registry


@pytest.mark.parametrize("first", ["import ferry", "import ferry.errors", "import gi.repository.Ferry"])
def test_import_in_any_order(first):
    code = (
        "import gi; gi.require_version('Ferry', '1.0')\n"
        f"{first}\n"
        "from gi.repository import Ferry; import ferry, ferry.errors\n"
        "try: Ferry.Channel.new_from_description('', 'sender')\n"
        "except ferry.errors.ParseError: print('caught')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "caught\n", result.stderr


# ---- errors ----

STANDARD = {
    "NOT_FOUND": FileNotFoundError,
    "EXISTS": FileExistsError,
    "PERMISSION": PermissionError,
    "NO_SPACE": OSError,
    "FULL": queue.Full,
    "EMPTY": queue.Empty,
    "TIMED_OUT": TimeoutError,
    "CLOSED": BrokenPipeError,
    "END_OF_STREAM": EOFError,
    "INVALID_ARGUMENT": ValueError,
    "PARSE": ValueError,
    "CODEC": ValueError,
    "NO_SUCH_FEATURE": LookupError,
    "UNSUPPORTED": NotImplementedError,
}


def error_codes():
    return {key: value for key, value in vars(Ferry.Error).items() if isinstance(value, Ferry.Error)}


def test_every_code_has_a_class():
    assert len(error_codes()) >= 21
    for key, code in error_codes().items():
        error = ferry.errors.from_gerror(GLib.Error.new_literal(Ferry.error_quark(), "text", int(code)))
        assert isinstance(error, (ferry.errors.FerryError, GLib.Error))
        assert (type(error) is ferry.errors.FerryError) == (key == "FAILED"), key
        assert isinstance(error, STANDARD.get(key, Exception)), key
        assert isinstance(error.code, Ferry.Error)
        assert error.code == code == type(error).CODE
        assert error.matches(Ferry.error_quark(), code)
        assert (str(error), error.message, error.args) == ("text", "text", ("text",))
        assert isinstance(error, OSError) == (type(error).ERRNO is not None)
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.code, again.message) == (type(error), code, "text")


def test_unknown_code_and_other_domains():
    assert type(ferry.errors.from_gerror(GLib.Error("text", ferry.errors.DOMAIN, 999))) is ferry.errors.FerryError
    other = GLib.Error.new_literal(Gio.io_error_quark(), "text", int(Gio.IOErrorEnum.CANCELLED))
    assert ferry.errors.from_gerror(other) is other


def test_functions_raise_them(pair):
    sender, receiver = pair
    with pytest.raises(queue.Empty) as caught:
        receiver.receive(0)
    assert caught.value.code == Ferry.Error.EMPTY
    assert isinstance(caught.value, ferry.errors.ChannelEmptyError)
    for _i in range(8):
        sender.send(b"x", 0)
    with pytest.raises(queue.Full):
        sender.send(b"x", 0)
    with pytest.raises(TimeoutError, match="within 0.25 s"):
        sender.send(b"x", 0.25)
    with pytest.raises(LookupError, match="did you mean 'memfd'"):
        Ferry.Channel.new_from_description("memfs name=x", "sender")
    with pytest.raises(FileNotFoundError):
        Ferry.Channel(transport="memfd", name=next(names), open_mode="join").open()
    with pytest.raises(FileExistsError):
        Ferry.Channel(transport="memfd", name=sender.props.name, open_mode="create").open()
    with pytest.raises(ValueError):
        Ferry.Registry.get_default().create_transport("memfd").probe_channel("../x")
    with pytest.raises(ValueError):
        Ferry.Tensor.new("nonsense", [1])
    sender.shut_down()
    with pytest.raises(ferry.errors.ClosedError):
        sender.send(b"x")


def test_cancelled_is_not_ours(pair):
    cancellable = Gio.Cancellable()
    threading.Timer(0.1, cancellable.cancel).start()
    with pytest.raises(GLib.Error) as caught:
        pair[1].receive(TIMEOUT, cancellable)
    assert caught.value.matches(Gio.io_error_quark(), Gio.IOErrorEnum.CANCELLED)


# ---- channels ----


def test_keyword_arguments(name):
    channel = Ferry.Channel(
        transport="memfd", name=name, role="receiver", mode="work-queue", capacity=5, open_mode="create"
    )
    assert (channel.props.role, channel.props.capacity) == (Ferry.Role.RECEIVER, 5)
    assert channel.props.open_mode == Ferry.OpenMode.CREATE
    assert Ferry.Channel(role=Ferry.Role.RECEIVER).props.role == Ferry.Role.RECEIVER
    assert Ferry.Channel(overflow="drop-oldest", wait_strategy="sleep").props.overflow == Ferry.Overflow.DROP_OLDEST
    assert Ferry.Channel.new("memfd", name, "receiver").props.role == Ferry.Role.RECEIVER
    with pytest.raises(ValueError, match="role='listener': there is no such Role"):
        Ferry.Channel(role="listener")
    with pytest.raises(TypeError):
        Ferry.Channel(no_such_property=1)


def test_context_opens_and_closes(name):
    channel = Ferry.Channel(transport="memfd", name=name)
    assert not channel.is_open()
    with channel as same:
        assert same is channel
        assert channel.is_open()
        assert channel
    assert not channel.is_open()
    channel = Ferry.Channel(transport="memfd", name=name)
    channel.open()
    with channel:
        assert channel.is_open()


def test_len(pair):
    sender, receiver = pair
    for i in range(5):
        assert len(receiver) == len(sender) == i
        sender.send(b"x")
    receiver.receive()
    assert len(sender) == 4


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes(pair, kind):
    sender, receiver = pair
    for text in (b"", b"short", b"long" * BLOCK):
        assert sender.send(kind(text))
        message = receiver.receive(TIMEOUT)
        assert isinstance(message, Ferry.Buffer)
        assert bytes(message) == text
        sender.send(GLib.Bytes.new(text))
        assert receiver.receive_bytes(TIMEOUT).get_data() == text


def test_constants_of_c_work(pair):
    sender, receiver = pair
    sender.send(b"x", Ferry.WAIT_FOREVER, None)
    assert bytes(receiver.receive(Ferry.WAIT_FOREVER, None)) == b"x"
    with pytest.raises(queue.Empty):
        receiver.receive(Ferry.NO_WAIT, None)


def test_variants(pair):
    sender, receiver = pair
    for variant in (GLib.Variant("(is)", (1, "a")), GLib.Variant("a{sv}", {"k": GLib.Variant("d", 0.5)})):
        sender.send(variant)
        assert receiver.receive(TIMEOUT).equal(variant)
        sender.send_variant(variant)
        assert receiver.receive_variant(TIMEOUT).equal(variant)


@pytest.mark.parametrize(("obj", "kind"), [(True, "b"), (-1, "x"), (2**63, "t"), (0.5, "d"), ("text", "s")])
def test_basic_objects_as_variants(name, obj, kind):
    with (
        Ferry.Channel(transport="memfd", name=name, role="receiver", codec="gvariant") as receiver,
        Ferry.Channel(transport="memfd", name=name, codec="gvariant") as sender,
    ):
        sender.send(obj)
        variant = receiver.receive(TIMEOUT)
        assert (variant.get_type_string(), variant.unpack()) == (kind, obj)
        for refused in (2**64, b"bytes", object()):
            with pytest.raises(ferry.errors.CodecError):
                sender.send(refused)


needs_codec_python = pytest.mark.skipif(
    Ferry.Registry.get_default().find_codec("python") is None, reason="codec python is not built"
)


@needs_codec_python
def test_any_object(pair):
    sender, receiver = pair
    for obj, codec in (
        ({1: (2, 3.5), "k": {None}}, "python"),
        (2**80, "python"),
        ("text", "python"),
        (None, "python"),
        (numpy.arange(5), "numpy"),
        (numpy.array([1, "a", None], object), "python"),
    ):
        sender.send(obj)
        message = receiver.receive_buffer(TIMEOUT)
        assert message.dup_wire_name()[0] == codec
        again = receiver.decode(message)
        assert type(again) is type(obj)
        assert numpy.array_equal(again, obj)
    sender.send(Ferry.Tensor.from_array(numpy.arange(5)))
    assert receiver.receive(TIMEOUT).tolist() == [0, 1, 2, 3, 4]
    sender.send_value([1, 2], codec=JsonCodec())
    assert bytes(receiver.receive_buffer()) == b"[1, 2]"
    sender.send_encoded(JsonCodec(), b"[3]")
    receiver.add_codec(JsonCodec())
    assert receiver.receive(TIMEOUT) == [3]


@needs_codec_python
def test_bytes_by_codec_python(name):
    with (
        Ferry.Channel(transport="memfd", name=name, role="receiver") as receiver,
        Ferry.Channel(transport="memfd", name=name, codec="python") as sender,
    ):
        for obj in (b"bytes", bytearray(b"array"), True, 1):
            sender.send(obj)
            again = receiver.receive(TIMEOUT)
            assert (type(again), again) == (type(obj), obj)


def test_iteration_ends_with_the_stream(pair):
    sender, receiver = pair
    for i in range(5):
        sender.send(bytes([i]) * BLOCK)
    sender.end_of_stream()
    seen = 0
    for message in receiver:
        assert message.view()[0] == seen
        seen += 1
        del message
        assert held(sender) == 0
    assert seen == 5
    assert list(receiver) == []


def test_iteration_in_another_process(pair):
    sender, receiver = pair

    def consume(name, n):
        with Ferry.Channel(transport="memfd", name=name, role="receiver") as own:
            assert [bytes(message) for message in own] == [b"%d" % i for i in range(n)]

    receiver.close()
    pid = in_child(consume, sender.props.name, 1000)
    for i in range(1000):
        sender.send(b"%d" % i, TIMEOUT)
    sender.end_of_stream()
    sender.flush(TIMEOUT)
    reap(pid)


def test_a_signal_interrupts_a_wait(pair):
    with pytest.raises(KeyboardInterrupt):
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        started = time.monotonic()
        pair[1].receive(TIMEOUT)
    assert time.monotonic() - started < TIMEOUT / 2


def test_other_threads_run_while_one_waits(pair):
    sender, receiver = pair
    threading.Timer(0.1, lambda: sender.send(b"late")).start()
    assert bytes(receiver.receive(TIMEOUT)) == b"late"


def test_asyncio(pair):
    sender, receiver = pair

    async def consume():
        return [bytes(message) async for message in receiver]

    async def produce():
        for i in range(100):
            while True:
                try:
                    sender.send(b"%d" % i, 0)
                    break
                except queue.Full:
                    await asyncio.sleep(0.001)
            if i % 10 == 0:
                await asyncio.sleep(0.001)
        sender.end_of_stream()

    async def both():
        return (await asyncio.gather(consume(), produce()))[0]

    assert asyncio.run(asyncio.wait_for(both(), TIMEOUT)) == [b"%d" % i for i in range(100)]


# ---- buffers and tensors ----


def test_views_are_the_memory(pair):
    sender, receiver = pair
    loan = sender.loan(BLOCK)
    view = loan.view()
    assert (len(loan), len(view), view.format, view.readonly) == (BLOCK, BLOCK, "B", False)
    view[:4] = b"zero"
    numpy.asarray(loan)[4:8] = 7
    del view
    sender.send(loan)
    assert len(loan) == 0
    message = receiver.receive()
    view = message.view()
    assert bytes(view[:8]) == b"zero\7\7\7\7"
    assert numpy.asarray(message).ctypes.data == message.get_address()
    view[0] = ord("Z")  # in a work queue the block is the receiver's
    assert bytes(message)[:4] == b"Zero"


def test_read_only_views():
    buffer = Ferry.Buffer.new_bytes(GLib.Bytes.new(b"text"))
    assert buffer.view().readonly
    assert not numpy.asarray(buffer).flags.writeable
    with pytest.raises(TypeError):
        buffer.view()[0] = 1


def test_a_block_goes_back_with_its_last_holder(pair):
    sender, receiver = pair
    sender.send(bytes(BLOCK))
    message = receiver.receive()
    view, array = message.view(), numpy.asarray(message)
    part = view[10:20]
    del view
    assert held(sender) == 1
    del message
    assert held(sender) == 1
    assert part[9] == 0
    del part
    assert held(sender) == 1
    assert array[0] == 0
    del array
    assert held(sender) == 0
    with sender.loan(BLOCK):
        assert held(sender) == 1
    assert held(sender) == 0


def test_errors_leave_no_garbage(pair):
    """What waits for the garbage collector would hold the messages of its callers."""
    gc.collect()
    gc.disable()
    try:
        sender, receiver = pair

        def take():
            threading.Timer(0.2, lambda: sender.send(bytes(BLOCK))).start()
            message = receiver.receive(TIMEOUT)
            try:
                receiver.receive(0)
            except queue.Empty:
                pass
            try:
                receiver.receive(0.01)
            except TimeoutError:
                pass
            assert len(message) == BLOCK

        take()
        assert sum(participant.held for participant in sender.list_participants()) == 0
    finally:
        gc.enable()


def test_context_of_a_buffer(pair):
    sender, receiver = pair
    sender.send(bytes(BLOCK))
    with receiver.receive() as message:
        view = message.view()
        assert held(sender) == 1
    assert held(sender) == 1
    assert view[BLOCK - 1] == 0
    del view
    assert held(sender) == 0
    for function in (
        message.get_size,
        message.view,
        message.is_writable,
        message.__len__,
        message.__bytes__,
        message.ref,
    ):
        with pytest.raises(ValueError, match="released"):
            function()
    message.release()


def test_buffers_do_not_leak(pair):
    sender, receiver = pair
    for _i in range(3000):
        sender.send(bytes(BLOCK))
        message = receiver.receive()
        assert len(message.view()) == BLOCK
        message.to_bytes()
        message.as_bytes()
    del message
    statistics = sender.get_statistics()
    assert statistics.in_flight_peak == 1
    assert statistics.bytes_committed_peak < 40 * BLOCK
    assert held(sender) == 0
    for channel in pair:
        channel.verify()


def test_buffers_cannot_be_made_by_calling():
    for cls in (Ferry.Buffer, Ferry.Tensor):
        with pytest.raises(TypeError):
            cls()


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
@pytest.mark.parametrize(
    "dtype", ["<f8", ">i2", "?", "<c16", "S5", "<U3", "<M8[ms]", [("a", "<i4"), ("b", "<f8", (2,))]]
)
def test_tensors_and_arrays(shape, dtype):
    array = numpy.zeros(shape, dtype)
    array.flat = numpy.arange(array.size).astype("i4") if isinstance(dtype, str) else numpy.zeros(1, dtype)
    tensor = Ferry.Tensor.from_array(array)
    again = numpy.asarray(tensor)
    assert (again.dtype, again.shape, tensor.shape) == (array.dtype, array.shape, array.shape)
    assert numpy.array_equal(again, array)
    if again.size:
        assert again.ctypes.data == tensor.get_address()
    if shape:
        assert len(tensor) == shape[0]
    assert tensor


def test_tensors_share_memory_with_arrays():
    array = numpy.arange(12.0).reshape(3, 4)[::-1, ::2]
    tensor = Ferry.Tensor.from_array(array)
    assert tensor.strides == array.strides
    array[0, 0] = 99
    view = numpy.asarray(tensor)
    exchanged = numpy.from_dlpack(tensor)
    assert view[0, 0] == exchanged[0, 0] == 99
    view[1, 1] = 77
    assert array[1, 1] == 77
    del array, tensor
    gc.collect()
    assert view[0, 0] == exchanged[0, 0] == 99


def test_capsules_that_nobody_takes_do_not_leak():
    array = numpy.zeros(1_000_000)
    before = sys.getrefcount(array)
    tensor = Ferry.Tensor.from_array(array)
    for _i in range(1000):
        tensor.__dlpack__()
        numpy.from_dlpack(tensor)
    del tensor
    gc.collect()
    assert sys.getrefcount(array) == before


def test_a_tensor_holds_its_message(pair):
    sender, receiver = pair
    sender.send(numpy.arange(BLOCK // 8).tobytes())
    tensor = Ferry.Tensor.new_for_buffer("<i8", [10, 10], None, receiver.receive(), 0)
    array = numpy.asarray(tensor)
    del tensor
    assert held(sender) == 1
    assert array[9, 9] == 99
    del array
    assert held(sender) == 0


@needs_codec_python
def test_an_array_in_a_message_on_loan(name):
    with (
        Ferry.Channel(transport="memfd", name=name, role="receiver") as receiver,
        Ferry.Channel(transport="memfd", name=name, codec="numpy") as sender,
    ):
        message, tensor = sender.loan_tensor("<i4", (100, 300), TIMEOUT)
        numpy.asarray(tensor)[:] = numpy.arange(30_000).reshape(100, 300)
        del tensor
        sender.send_buffer(message)
        assert held(sender) == 0
        array = receiver.receive(TIMEOUT)
        assert array.shape == (100, 300) and array.dtype == "<i4"
        assert (array.ravel() == numpy.arange(30_000)).all()
        with pytest.raises(ValueError):
            sender.loan_tensor("nonsense", (1,))
    with Ferry.Channel(transport="memfd", name=name, codec="raw") as sender, pytest.raises(NotImplementedError):
        sender.loan_tensor("<i4", (1,))


# ---- main loop ----


def test_signals(name):
    seen = []
    with Ferry.Channel(transport="memfd", name=name, role="receiver") as receiver:
        receiver.connect("peer-joined", lambda _channel, peer: seen.append(("joined", peer.id, peer.role)))
        receiver.connect("peer-gone", lambda _channel, peer, died: seen.append(("gone", peer.id, died)))
        receiver.connect("closed", lambda _channel: seen.append(("closed",)))
        source = receiver.create_source(GLib.IOCondition.IN, None)
        messages = []

        def ready(channel, condition):
            assert channel is receiver
            if condition & GLib.IOCondition.IN:
                try:
                    messages.append(bytes(channel.receive(0)))
                except (queue.Empty, ferry.errors.ClosedError):
                    return not condition & GLib.IOCondition.HUP
            return True

        source.set_callback(ready)
        source.attach(None)
        with Ferry.Channel(transport="memfd", name=name) as sender:
            iterate_until(lambda: len(seen) == 1)
            sender.send(b"one")
            sender.send(b"two")
            iterate_until(lambda: messages == [b"one", b"two"])
        iterate_until(lambda: len(seen) == 2)
        peer = seen[0][1]
        assert seen == [("joined", peer, Ferry.Role.SENDER), ("gone", peer, False)]
        dying = Ferry.Channel(transport="memfd", name=name)
        pid = in_child(lambda: (dying.open(), os.kill(os.getpid(), signal.SIGKILL)))
        os.waitpid(pid, 0)
        iterate_until(lambda: seen[-1] == ("gone", peer, True))
        Ferry.Channel(transport="memfd", name=name, role="sender").open()
        receiver.shut_down()
        iterate_until(lambda: ("closed",) in seen)
        source.destroy()


def test_asynchronous_pairs(name):
    results = []

    def finished(function):
        def callback(channel, result, data):
            try:
                results.append((data, function(channel, result)))
            except GLib.Error as error:
                results.append((data, error))

        return callback

    receiver = Ferry.Channel(transport="memfd", name=name, role="receiver", capacity=1)
    sender = Ferry.Channel(transport="memfd", name=name)
    receiver.open_async(0, None, finished(Ferry.Channel.open_finish), "open")
    iterate_until(lambda: results == [("open", True)])
    sender.open()
    results.clear()
    receiver.receive_async(0, None, finished(Ferry.Channel.receive_finish), "receive")
    sender.send_bytes_async(GLib.Bytes.new(b"text"), 0, None, finished(Ferry.Channel.send_bytes_finish), "send")
    iterate_until(lambda: len(results) == 2)
    assert dict(results)["send"] is True
    assert bytes(dict(results)["receive"]) == b"text"
    results.clear()
    sender.flush_async(0, None, finished(Ferry.Channel.flush_finish), "flush")
    iterate_until(lambda: results == [("flush", True)])
    results.clear()
    cancellable = Gio.Cancellable()
    receiver.receive_async(0, cancellable, finished(Ferry.Channel.receive_finish), "cancelled")
    cancellable.cancel()
    iterate_until(lambda: len(results) == 1)
    assert results[0][1].matches(Gio.io_error_quark(), Gio.IOErrorEnum.CANCELLED)
    results.clear()
    sender.end_of_stream()
    receiver.receive_async(0, None, finished(Ferry.Channel.receive_finish), "ended")
    iterate_until(lambda: len(results) == 1)
    assert isinstance(results[0][1], EOFError)
    sender.close()
    receiver.close()


# ---- a codec in Python ----


class JsonCodec(GObject.Object, Ferry.Codec):
    """JSON text, for the tests."""

    indent = GObject.Property(type=int, default=0)
    version = 1

    def do_get_wire_name(self):
        return "json"

    def do_get_wire_version(self):
        return self.version

    def do_encode(self, value):
        return json.dumps(value, indent=self.indent or None).encode()

    def do_decode(self, buffer, version):
        assert 0 < version <= self.version
        return json.loads(bytes(buffer))


class StrictCodec(JsonCodec):
    """Accepts by type, returns a value of a GLib type, and lets the encoder of its base work."""

    def do_get_wire_name(self):
        return "strict"

    def do_accepts(self, gtype):
        return gtype == GObject.TYPE_INT

    def do_decode(self, buffer, version):
        return GObject.Value(GObject.TYPE_STRING, super().do_decode(buffer, version) * "x")


class BadCodec(GObject.Object, Ferry.Codec):
    """Does everything wrong."""

    def do_get_wire_name(self):
        return "bad"

    def do_encode(self, value):
        if isinstance(value, BaseException):
            raise value
        return value

    def do_decode(self, buffer, _version):
        raise ZeroDivisionError("of the decoder")


OBJECTS = [None, True, 1, 2**100, -0.5, "text", "\u20ac\0", [], {"a": [1, {"b": None}]}, ["x" * BLOCK]]


def test_codec_alone():
    codec = JsonCodec()
    assert (codec.get_wire_name(), codec.get_wire_version()) == ("json", 1)
    assert codec.accepts(GObject.TYPE_PYOBJECT)
    assert not codec.accepts(GObject.TYPE_INT)
    for obj in OBJECTS:
        data = codec.encode_bytes(GObject.Value(GObject.TYPE_PYOBJECT, obj))
        assert data.get_data() == json.dumps(obj).encode()
        assert codec.decode(Ferry.Buffer.new_bytes(data), 1) == (True, obj)
    with pytest.raises(ferry.errors.CodecError, match="version 2"):
        codec.decode(Ferry.Buffer.new_bytes(data), 2)
    strict = StrictCodec()
    assert strict.accepts(GObject.TYPE_INT)
    assert not strict.accepts(GObject.TYPE_PYOBJECT)
    data = strict.encode_bytes(GObject.Value(GObject.TYPE_INT, 3))
    assert strict.decode(Ferry.Buffer.new_bytes(data), 1) == (True, "xxx")


def test_codec_in_two_processes(name):
    def echo():
        with (
            Ferry.Channel(transport="memfd", name=name, role="receiver", codec=JsonCodec()) as receiver,
            Ferry.Channel(transport="memfd", name=f"{name}-back", codec=JsonCodec()) as back,
        ):
            for message in receiver:
                back.send(message, TIMEOUT)
            back.end_of_stream()
            back.flush(TIMEOUT)

    with (
        Ferry.Channel(transport="memfd", name=name, codec=JsonCodec()) as sender,
        Ferry.Channel(transport="memfd", name=f"{name}-back", role="receiver", codec=JsonCodec()) as receiver,
    ):
        pid = in_child(echo)
        for obj in OBJECTS:
            sender.send(obj, TIMEOUT)
            assert receiver.receive(TIMEOUT) == obj
        sender.end_of_stream()
        assert list(receiver) == []
        reap(pid)
        assert held(sender) == 0
        sender.verify()


def test_exceptions_of_a_codec(name, capfd):
    with (
        Ferry.Channel(transport="memfd", name=name, role="receiver", codec=BadCodec()) as receiver,
        Ferry.Channel(transport="memfd", name=name, codec=BadCodec()) as sender,
    ):
        for wrong, text in (
            (KeyError("key"), "BadCodec.do_encode(): KeyError: 'key'"),
            (17, "do_encode() must return bytes, not int"),
        ):
            with pytest.raises(ferry.errors.CodecError) as caught:
                sender.send(wrong)
            assert text in str(caught.value)
        own = GLib.Error.new_literal(Gio.io_error_quark(), "mine", int(Gio.IOErrorEnum.BUSY))
        with pytest.raises(GLib.Error) as caught:
            sender.send(own)
        assert (caught.value.message, caught.value.domain) == ("mine", own.domain)
        with pytest.raises(KeyboardInterrupt):
            sender.send(KeyboardInterrupt())
        assert len(sender) == 0
        assert held(sender) == 0
        sender.send(b"good")
        with pytest.raises(ferry.errors.CodecError, match="BadCodec.do_decode.*ZeroDivisionError: of the decoder"):
            receiver.receive()
        assert held(sender) == 0
    assert "CRITICAL" not in capfd.readouterr().err


@measures_memory
def test_codec_does_not_leak(name):
    with (
        Ferry.Channel(transport="memfd", name=name, role="receiver", codec=JsonCodec()) as receiver,
        Ferry.Channel(transport="memfd", name=name, codec=JsonCodec()) as sender,
    ):

        def work(n):
            for _i in range(n):
                sender.send({"x": "y" * 1000})
                assert len(receiver.receive()["x"]) == 1000
                with pytest.raises(ValueError):
                    sender.send({1, 2})

        work(500)
        before = resident()
        work(4000)
        # Any leak of a message, a value or an error would be more than 4000 times 100 bytes.
        assert resident() - before < 400


def test_registered_codec_is_found(name):
    registry = Ferry.Registry.get_default()
    assert registry.register_codec("json", JsonCodec, rank=Ferry.Rank.MARGINAL)
    factory = registry.find_codec("json")
    assert factory.get_description() == "JSON text, for the tests."
    assert (factory.get_wire_name(), factory.get_wire_version()) == ("json", 1)
    with pytest.raises(ValueError, match="there is a codec 'json' already"):
        registry.register_codec("json", JsonCodec)
    with pytest.raises(ValueError):
        registry.register_codec("Bad Name", JsonCodec)
    registry.rescan()
    with (
        Ferry.Channel.new_from_description(f"memfd name={name}", "receiver") as receiver,
        Ferry.Channel.new_from_description(f"memfd name={name} ! json indent=2", "sender") as sender,
    ):
        assert sender.get_codec_object().indent == 2
        sender.send([1])
        assert bytes(receiver.receive_buffer()) == b"[\n  1\n]"
        sender.send([1])
        assert receiver.receive() == [1]
        sender.send([2])
        assert receiver.receive_value() == [2]
    with Ferry.Channel(transport="memfd", name=name, codec="json") as sender:
        assert isinstance(sender.get_codec_object(), JsonCodec)


# ---- a transport in Python ----


class Room:
    """What the participants of a channel in this process share."""

    all = {}

    def __init__(self):
        self.changed = threading.Condition()
        self.messages = collections.deque()
        self.members = []
        self.capacity = 0
        self.n_sent = 0
        self.closed = False


class LocalTransport(GObject.Object, Ferry.Transport):
    """A queue in this process."""

    label = GObject.Property(type=str, default="")

    def __init__(self):
        super().__init__()
        self.room = None

    def _wait(self, condition, timeout):
        """With the lock."""
        if not self.room.changed.wait_for(lambda: self.left or condition(), None if timeout < 0 else timeout / 1e6):
            return False
        if self.left:
            raise BrokenPipeError("left")
        return True

    def _change(self):
        self.room.changed.notify_all()
        for member in self.room.members:
            os.eventfd_write(member.fd, 1)

    def do_open(self, config, cancellable):
        assert cancellable is None or isinstance(cancellable, Gio.Cancellable)
        self.room = Room.all.setdefault(config.name, Room())
        if not self.room.members:
            self.room.capacity = config.capacity or 16
        config.capacity = self.room.capacity
        self.role = config.role
        self.overflow = config.overflow
        self.ended = self.left = False
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.id = len(self.room.members)
        self.room.members.append(self)

    def do_close(self):
        with self.room.changed:
            self.left = True
            self._change()
            self.room.members.remove(self)
            os.close(self.fd)

    def do_loan(self, size, timeout, cancellable):
        return Ferry.Buffer.new(size)

    def do_commit(self, buffer, timeout, cancellable):
        room = self.room
        with room.changed:
            room_left = lambda: room.closed or len(room.messages) < room.capacity  # noqa: E731
            if self.overflow == Ferry.Overflow.ERROR and not room_left():
                raise ferry.errors.ChannelFullError("no room")
            if not self._wait(room_left, timeout):
                raise queue.Full
            if room.closed:
                raise BrokenPipeError("closed")
            wire_name, version = buffer.dup_wire_name()
            room.messages.append((buffer.spend(), wire_name, version, buffer.get_timestamp(), room.n_sent, self.id))
            room.n_sent += 1
            self._change()

    def _is_over(self):
        senders = [member for member in self.room.members if member.role == Ferry.Role.SENDER]
        return senders and all(member.ended for member in senders)

    def do_take(self, timeout, cancellable):
        room = self.room
        with room.changed:
            if not self._wait(lambda: room.messages or room.closed or self._is_over(), timeout):
                raise queue.Empty
            if not room.messages:
                raise BrokenPipeError("closed") if room.closed else EOFError("over")
            data, wire_name, version, timestamp, sequence, sender = room.messages.popleft()
            self._change()
        buffer = Ferry.Buffer.new_bytes(data)
        buffer.set_wire_name(wire_name, version)
        buffer.set_timestamp(timestamp)
        buffer.set_sequence(sequence)
        buffer.set_sender(sender)
        return buffer

    def _holds(self, condition):
        room, found = self.room, GLib.IOCondition(0)
        if condition & GLib.IOCondition.IN and (room.messages or room.closed or self._is_over()):
            found |= GLib.IOCondition.IN
        if condition & GLib.IOCondition.OUT and len(room.messages) < room.capacity:
            found |= GLib.IOCondition.OUT
        return found | (GLib.IOCondition.HUP if room.closed else GLib.IOCondition(0))

    def do_wait(self, condition, timeout, cancellable):
        with self.room.changed:
            return self._wait(lambda: self._holds(condition), timeout)

    def do_wake(self):
        with self.room.changed:
            self._change()

    def do_get_fd(self):
        return self.fd

    def do_check(self, condition):
        with self.room.changed:
            found = self._holds(condition)
            if not found:
                try:
                    os.eventfd_read(self.fd)
                except BlockingIOError:
                    pass
            return found

    def do_flush(self, timeout, cancellable):
        with self.room.changed:
            return self._wait(lambda: not self.room.messages, timeout) or self._raise_timeout()

    def _raise_timeout(self):
        raise TimeoutError("not flushed")

    def do_end_of_stream(self):
        with self.room.changed:
            self.ended = True
            self._change()

    def do_shut_down(self):
        with self.room.changed:
            self.room.closed = True
            self._change()

    def do_get_statistics(self, statistics):
        statistics.in_flight = len(self.room.messages)
        statistics.messages_sent = self.room.n_sent
        statistics.capacity = self.room.capacity

    def do_list_participants(self):
        participants = []
        for member in self.room.members:
            participant = Ferry.Participant.new()
            participant.id, participant.role, participant.alive = member.id, member.role, True
            participants.append(participant)
        return participants

    def do_verify(self):
        return len(self.room.messages) <= self.room.capacity

    def do_list_channels(self):
        return list(Room.all)

    def do_probe_channel(self, name):
        if name not in Room.all:
            raise FileNotFoundError(name)
        return bool(Room.all[name].members)

    def do_sweep_channel(self, name):
        if Room.all[name].members:
            raise FileExistsError(name)
        del Room.all[name]


Ferry.Registry.get_default().register_transport("local", LocalTransport)


class Ends:
    """Ends of a channel of some transport."""

    def __init__(self, transport):
        self.transport = transport
        self.name = next(names)
        self.open = []

    def __call__(self, role, **properties):
        channel = Ferry.Channel(transport=self.transport, name=self.name, role=role, **properties)
        channel.open()
        self.open.append(channel)
        return channel


@pytest.fixture(params=["memfd", "local"])
def ends(request):
    """What every transport must do is asked of one in C, too."""
    ends = Ends(request.param)
    yield ends
    for channel in ends.open:
        channel.close()


def test_transport_order_and_sizes(ends):
    receiver, sender = ends("receiver", capacity=4), ends("sender")
    for size in (0, 1, 63, 200, 201, 4096, BLOCK):
        for i in range(4):
            sender.send(bytes([i]) * size, 0)
        for i in range(4):
            assert bytes(receiver.receive(0)) == bytes([i]) * size


def test_transport_capacity(ends):
    receiver, sender = ends("receiver", capacity=3), ends("sender")
    assert receiver.props.capacity == 3
    for i in range(3):
        sender.send(b"x", 0)
        assert len(receiver) == i + 1
    with pytest.raises(queue.Full):
        sender.send(b"x", 0)
    with pytest.raises(TimeoutError):
        sender.send(b"x", 0.3)
    picky = ends("sender", overflow="error")
    with pytest.raises(queue.Full):
        picky.send(b"x")
    threading.Timer(0.1, receiver.receive).start()
    sender.send(b"x", TIMEOUT)
    assert sender.get_statistics().messages_sent == 4


def test_transport_waiting(ends):
    receiver, sender = ends("receiver"), ends("sender")
    with pytest.raises(queue.Empty):
        receiver.receive(0)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        receiver.receive(0.4)
    assert 0.35 < time.monotonic() - started < TIMEOUT
    with pytest.raises(TimeoutError):
        receiver.wait(GLib.IOCondition.IN, 0.1)
    threading.Timer(0.5, lambda: sender.send(b"late")).start()
    assert receiver.wait(GLib.IOCondition.IN, TIMEOUT)
    assert bytes(receiver.receive()) == b"late"
    assert sender.wait(GLib.IOCondition.OUT, 0)


def test_transport_metadata(ends):
    receiver, first, second = ends("receiver"), ends("sender"), ends("sender")
    for i, sender in enumerate((first, second, first)):
        loan = sender.loan(3)
        loan.view()[:] = b"abc"
        loan.set_timestamp(1000 + i)
        assert loan.set_wire_name("strange", 7)
        sender.send(loan)
        assert len(loan) == 0
        assert not loan.is_writable()
        with pytest.raises(ferry.errors.InvalidArgumentError):
            sender.send(loan)
    messages = [receiver.receive_buffer() for _i in range(3)]
    assert [message.get_sequence() for message in messages] == [0, 1, 2]
    assert [message.get_timestamp() for message in messages] == [1000, 1001, 1002]
    assert messages[0].get_sender() == messages[2].get_sender() != messages[1].get_sender()
    name, version = messages[0].dup_wire_name()
    assert (name, version) == ("strange", 7)
    with pytest.raises(ferry.errors.CodecError, match="strange"):
        receiver.decode(messages[0])


def test_transport_end(ends):
    receiver, first, second = ends("receiver"), ends("sender"), ends("sender")
    first.send(b"1")
    first.end_of_stream()
    second.send(b"2")
    assert [bytes(receiver.receive()) for _i in range(2)] == [b"1", b"2"]
    with pytest.raises(queue.Empty):
        receiver.receive(0)
    second.send(b"3")
    second.end_of_stream()
    assert [bytes(message) for message in receiver] == [b"3"]


def test_transport_flush(ends):
    receiver, sender = ends("receiver"), ends("sender")
    sender.flush(0)
    sender.send(b"x")
    with pytest.raises(TimeoutError):
        sender.flush(0.3)
    threading.Timer(0.1, receiver.receive).start()
    sender.flush(TIMEOUT)


def test_transport_flush_on_a_busy_channel(ends, request):
    """A transport that has no marks waits for what comes later, too, and does not fail for it."""
    receiver, sender = ends("receiver"), ends("sender")
    sender.send(b"x")
    mark = sender.mark()
    sender.send(b"later")
    with pytest.raises(TimeoutError):
        sender.flush_mark(mark, 0)
    receiver.receive()
    if "local" in request.node.name:
        with pytest.raises(TimeoutError):
            sender.flush_mark(mark, 0.05)
        receiver.receive()
    sender.flush_mark(mark, 0)


def test_marks_of_a_transport_in_python(name):
    class Marking(GObject.Object, Ferry.Transport):
        sent = taken = 0

        def do_open(self, config, cancellable):
            pass

        def do_close(self):
            pass

        def do_mark(self):
            return self.sent

        def do_flush_mark(self, mark, timeout, cancellable):
            if self.taken < mark:
                raise queue.Full
            Marking.seen = mark, timeout

    transport = Marking()
    with Ferry.Channel.new_with_transport(transport, None, Ferry.Role.SENDER) as sender:
        transport.sent = 2**40 + 7
        with pytest.raises(TimeoutError):
            sender.flush(0.05)
        transport.taken = transport.sent
        sender.flush(0)
        assert Marking.seen == (2**40 + 7, 0)


def test_transport_shut_down(ends):
    receiver, sender = ends("receiver"), ends("sender")
    sender.send(b"left")
    receiver.shut_down()
    with pytest.raises(ferry.errors.ClosedError):
        sender.send(b"x", 0)
    assert bytes(receiver.receive()) == b"left"
    with pytest.raises(ferry.errors.ClosedError):
        receiver.receive(TIMEOUT)


def test_transport_closing_ends_waits(ends):
    receiver = ends("receiver")
    threading.Timer(0.3, receiver.close).start()
    with pytest.raises(ferry.errors.ClosedError):
        receiver.receive(TIMEOUT)
    assert not receiver.is_open()


def test_transport_participants(ends):
    receiver, sender = ends("receiver"), ends("sender")
    for channel in (receiver, sender):
        participants = channel.list_participants()
        assert sorted(int(participant.role) for participant in participants) == [0, 1]
        assert len({participant.id for participant in participants}) == 2
        assert all(participant.alive for participant in participants)
    sender.close()
    assert len(receiver.list_participants()) == 1
    assert receiver.verify()


def test_transport_values(ends):
    receiver, sender = ends("receiver"), ends("sender")
    for variant in (GLib.Variant("s", "text"), GLib.Variant("ay", bytes(BLOCK))):
        sender.send(variant)
        assert receiver.receive(TIMEOUT).equal(variant)


def test_transport_many_threads(ends):
    receivers, senders = [ends("receiver", capacity=4) for _i in range(3)], [ends("sender") for _i in range(3)]
    n, got, lock = 200, [], threading.Lock()

    def produce(sender, i):
        for j in range(n):
            sender.send(b"%d" % (i * n + j), TIMEOUT)
        sender.end_of_stream()

    def consume(receiver):
        for message in receiver:
            with lock:
                got.append(int(bytes(message)))

    threads = [threading.Thread(target=produce, args=(sender, i)) for i, sender in enumerate(senders)]
    threads += [threading.Thread(target=consume, args=(receiver,)) for receiver in receivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT * 3)
    assert sorted(got) == list(range(3 * n))


def test_transport_descriptor(ends):
    receiver, sender = ends("receiver", capacity=1), ends("sender")

    async def consume():
        return [bytes(message) async for message in receiver]

    async def both():
        loop = asyncio.get_running_loop()
        consumer = asyncio.create_task(consume())
        for i in range(20):
            await loop.run_in_executor(None, sender.send, b"%d" % i, TIMEOUT)
        sender.end_of_stream()
        return await consumer

    assert asyncio.run(asyncio.wait_for(both(), TIMEOUT)) == [b"%d" % i for i in range(20)]
    seen = []
    sender, receiver = ends("sender"), ends("receiver")
    receiver.receive_async(0, None, lambda channel, result: seen.append(bytes(channel.receive_finish(result))))
    sender.send(b"called back")
    iterate_until(lambda: seen == [b"called back"])


def test_transport_directory(ends):
    ends("receiver")
    transport = Ferry.Registry.get_default().create_transport(ends.transport)
    assert ends.name in transport.list_channels()
    assert transport.probe_channel(ends.name) == (True, True)
    try:
        assert transport.probe_channel("no-such-channel") == (True, False)
    except FileNotFoundError:
        pass  # that is an answer, too
    with pytest.raises(FileExistsError):
        transport.sweep_channel(ends.name)


def test_transport_properties_in_a_description():
    channel = Ferry.Channel.new_from_description("local name=described label=hello", "sender")
    assert channel.get_transport_object().label == "hello"


class Incomplete(GObject.Object, Ferry.Transport):
    """Can be opened."""

    def do_open(self, config, _cancellable):
        self.config = config

    def do_close(self):
        pass


class Failing(Incomplete):
    """Fails in every way."""

    how = None

    def _fail(self, *_args):
        if isinstance(self.how, BaseException):
            raise self.how
        return self.how

    do_loan = do_commit = do_take = do_flush = do_verify = do_wait = do_get_fd = do_end_of_stream = _fail
    do_shut_down = do_get_statistics = do_probe_channel = do_list_channels = do_sweep_channel = _fail


CALLS = {
    "send": lambda channel: channel.send(b"x", 0),
    "loan": lambda channel: channel.loan(1, 0),
    "receive": lambda channel: channel.receive(0),
    "receive-slices": lambda channel: channel.receive(0.3),
    "flush": lambda channel: channel.flush(0),
    "verify": lambda channel: channel.verify(),
    "get-fd": lambda channel: channel.get_fd(),
    "end": lambda channel: channel.end_of_stream(),
    "shut-down": lambda channel: channel.shut_down(),
    "statistics": lambda channel: len(channel),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_is_missing_is_an_error(call, capfd):
    with Ferry.Channel(transport=Incomplete()) as channel, pytest.raises(ferry.errors.UnsupportedError):
        CALLS[call](channel)
    assert "CRITICAL" not in capfd.readouterr().err


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (ValueError("why"), ferry.errors.FerryError),
        (False, GLib.Error),
        (NotImplementedError("not here"), ferry.errors.UnsupportedError),
        (MemoryError("none"), ferry.errors.NoSpaceError),
        (ferry.errors.CorruptError("damaged"), ferry.errors.CorruptError),
        ("nonsense", GLib.Error),
    ],
)
def test_exceptions_of_a_transport(call, how, expected, capfd):
    transport = Failing()
    transport.how = how
    with Ferry.Channel(transport=transport) as channel:
        if how == "nonsense" and call not in ("send", "loan", "receive", "receive-slices", "get-fd"):
            return
        if how is False and call == "get-fd":
            return
        with pytest.raises(expected) as caught:
            CALLS[call](channel)
    if isinstance(how, BaseException):
        assert str(how) in str(caught.value)
    assert "CRITICAL" not in capfd.readouterr().err


def test_arguments_may_be_kept():
    kept = []

    class Keeping(LocalTransport):
        def do_open(self, config, cancellable):
            kept.append(config)
            super().do_open(config, cancellable)

        def do_commit(self, buffer, timeout, cancellable):
            kept.append(buffer)
            super().do_commit(buffer, timeout, cancellable)

    name = next(names)
    with Ferry.Channel(transport=Keeping(), name=name) as sender:
        for i in range(4):
            sender.send(b"%d" % i * BLOCK)
    gc.collect()
    del sender
    gc.collect()
    assert kept[0].name == name
    assert [len(buffer) for buffer in kept[1:]] == [0] * 4


@measures_memory
def test_transport_does_not_leak():
    name = next(names)
    with (
        Ferry.Channel(transport=LocalTransport(), name=name, role="receiver") as receiver,
        Ferry.Channel(transport=LocalTransport(), name=name) as sender,
    ):

        def work(n):
            for _i in range(n):
                sender.send(bytes(1000))
                receiver.receive()
                with pytest.raises(queue.Empty):
                    receiver.receive(0)
                receiver.list_participants()
                len(receiver)

        work(500)
        before = resident()
        work(4000)
        assert resident() - before < 400


def test_dropping_a_channel_drops_its_transport():
    transport = LocalTransport()
    transport.weak_ref(lambda: gone.append(True))
    gone = []
    channel = Ferry.Channel(transport=transport, name=next(names))
    channel.open()
    channel.close()
    del transport, channel
    gc.collect()
    assert gone == [True]


# ---- the guide ----

GUIDE = pathlib.Path(__file__).parents[2] / "docs/python-gi.md"
PRINTED = [
    "2 messages wait\nb'some bytes'\nb'more'\n",
    "7.0 [7, 7, 7]\n(2, 3) <f8 15.0\n",
    "channel 'errors': no message waits True True\nchannel 'errors': nothing came of it within 0.1 s\n",
    "somebody joined: sender\nb'hello'\n",
    "{'answer': [42]}\n",
    "b'through a queue'\n",
]


@pytest.mark.parametrize(("number", "printed"), enumerate(PRINTED))
def test_guide(number, printed):
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == len(PRINTED)
    result = subprocess.run(
        [sys.executable, "-c", blocks[number]], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.stdout, result.stderr, result.returncode) == (printed, "", 0)
