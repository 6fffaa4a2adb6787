# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `from gi.repository import Ferry` has beyond the introspected API.

- Errors of Ferry are exceptions of `ferry.errors`: a full channel raises `queue.Full`, and
  so on; each is a `GLib.Error` as well.
- `Ferry.Channel` takes keyword arguments, is a context manager, and can be iterated over;
  `send` and `receive` carry Python objects. Time-outs are in seconds, None waits for ever.
- `Ferry.Buffer` and `Ferry.Tensor` are views on their memory: `view()`, `bytes()`,
  `numpy.asarray()`, DLPack.
- Codecs and transports can be written in Python: what they raise becomes an error.

Everything else is as the API reference of Ferry says.
"""

from __future__ import annotations

import ast
import asyncio
import ctypes
import functools
import importlib.util
import math
import queue
import threading
import time
import types
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from gi.overrides import override
from gi.repository import Gio, GLib, GObject

from ..module import get_introspection_module

Ferry = get_introspection_module("Ferry")

__all__ = []

#: Seconds. Waiting is done in slices, between which Python's signal handlers run.
_SLICE = 0.1
#: Seconds between two tries where nothing tells when the next is worth while.
_POLL = 0.001
_MICROSECONDS = 1_000_000
_DOMAIN = GLib.quark_to_string(Ferry.error_quark())
_IN = GLib.IOCondition.IN
_OUT = GLib.IOCondition.OUT


# ---- errors ----


# In each thread what a codec or transport in Python raised that is no error but shall end the program.
_interrupts = threading.local()


def _exception(error: GLib.Error) -> BaseException:
    """Return the exception of `ferry.errors` for an error, or the error where that is not installed.

    Callers raise it at once and keep it in no variable: a frame that an exception leads back to would
    live, and hold the messages in the variables of its callers, until the garbage collector runs.
    """
    interrupt = vars(_interrupts).pop("exception", None)
    if interrupt is not None:
        return interrupt
    try:
        # Not at the top: the package may be what is importing this module.
        from ferry.errors import from_gerror
    except ImportError:
        return error
    return from_gerror(error)


def _error(code: int, message: str) -> GLib.Error:
    return GLib.Error.new_literal(Ferry.error_quark(), message, int(code))


def _translated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function raise exceptions of `ferry.errors`."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except GLib.Error as error:
            raise _exception(error) from None

    return call


def _wrap_function(info: Any) -> Any:
    """Return what stands for an introspected function in a class."""
    if info.is_method():

        @functools.wraps(info)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return info(self, *args, **kwargs)
            except GLib.Error as error:
                raise _exception(error) from None

        return method
    if info.is_constructor():

        @functools.wraps(info)
        def constructor(cls: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return info(cls, *args, **kwargs)
            except GLib.Error as error:
                raise _exception(error) from None

        return classmethod(constructor)
    return staticmethod(_translated(info))


def _wrap_class(cls: type) -> None:
    for name, info in list(vars(cls).items()):
        # Virtual functions are not called from here.
        if hasattr(info, "is_constructor") and info.can_throw_gerror():
            setattr(cls, name, _wrap_function(info))


# The bare functions: below they are called without a detour.
_channel_send = Ferry.Channel.send
_channel_send_bytes = Ferry.Channel.send_bytes
_channel_send_buffer = Ferry.Channel.send_buffer
_channel_send_value_with_codec = Ferry.Channel.send_value_with_codec
_channel_send_encoded = Ferry.Channel.send_encoded
_channel_send_variant = Ferry.Channel.send_variant
_channel_receive = Ferry.Channel.receive
_channel_receive_bytes = Ferry.Channel.receive_bytes
_channel_receive_variant = Ferry.Channel.receive_variant
_channel_loan = Ferry.Channel.loan
_channel_loan_tensor = Ferry.Channel.loan_tensor
_channel_mark = Ferry.Channel.mark
_channel_flush_mark = Ferry.Channel.flush_mark
_channel_wait = Ferry.Channel.wait
_channel_decode = Ferry.Channel.decode
_channel_open = Ferry.Channel.open
_channel_create_source = Ferry.Channel.create_source
_channel_new = Ferry.Channel.new
_channel_new_from_description = Ferry.Channel.new_from_description
_channel_new_with_transport = Ferry.Channel.new_with_transport

for _cls in (
    Ferry.Buffer,
    Ferry.Channel,
    Ferry.ChannelConfig,
    Ferry.Codec,
    Ferry.CodecFactory,
    Ferry.Feature,
    Ferry.Plugin,
    Ferry.Registry,
    Ferry.SegmentTransport,
    Ferry.Tensor,
    Ferry.Transport,
    Ferry.TransportFactory,
):
    _wrap_class(_cls)


# ---- memory ----


def _view(owner: Any, address: int, size: int, writable: bool) -> memoryview:
    """Return a view on memory that lives as long as `owner`."""
    if size == 0:
        view = memoryview(bytearray())
    else:
        block = (ctypes.c_ubyte * size).from_address(address)
        block.owner = owner
        view = memoryview(block).cast("B")
    return view if writable else view.toreadonly()


class Buffer(Ferry.Buffer):
    """A message: loaned memory, or what was received.

    `len()` is its size in bytes, `bytes()` a copy, `view()` and `numpy.asarray()` are the memory itself.
    As a context manager it gives its block back at the end of the block of code; views that still
    exist then hold the memory until they go.
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Buffer:
        raise TypeError("make a buffer with Ferry.Buffer.new(), new_bytes() or Channel.loan()")

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __len__(self) -> int:
        return self.get_size()

    def __bytes__(self) -> bytes:
        return self.get_data()

    def view(self) -> memoryview:
        """Return the contents without copying: a memoryview of bytes.

        It can be written if `is_writable()`, and holds the message as long as it exists.
        """
        return _view(self.ref(), self.get_address(), self.get_size(), self.is_writable())

    def __buffer__(self, _flags: int) -> memoryview:
        return self.view()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """The bytes as a NumPy array of uint8 on the memory itself."""
        size = self.get_size()
        # NumPy holds what `data` exports: a view, which holds the message.
        return {"version": 3, "typestr": "|u1", "shape": (size,), "data": self.view()}

    def release(self) -> None:
        """Give the block back. Nothing but this function and `view`s that exist may be used afterwards."""
        if not vars(self).get("_released"):
            self._released = True
            self._clear_boxed()

    def __enter__(self) -> Buffer:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()


def _guard_released(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def method(self: Buffer, *args: Any, **kwargs: Any) -> Any:
        if "_released" in vars(self):
            raise ValueError(f"{name}(): the buffer was released")
        return function(self, *args, **kwargs)

    return method


# Without the guard the library would be called with NULL.
for _name, _info in list(vars(Ferry.Buffer).items()):
    if hasattr(_info, "is_method") and _info.is_method():
        setattr(Buffer, _name, _guard_released(_name, _info))
Buffer.spend = _guard_released("spend", Ferry.Buffer.spend)

Buffer = override(Buffer)
__all__.append("Buffer")


# ---- tensors ----

_CAPSULE_NAME = b"dltensor"
_CAPSULE_NAME_USED = b"used_dltensor"

_capsule_new = ctypes.pythonapi.PyCapsule_New
_capsule_new.restype = ctypes.py_object
_capsule_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_capsule_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_capsule_is_valid.restype = ctypes.c_int
_capsule_is_valid.argtypes = [ctypes.py_object, ctypes.c_char_p]
_capsule_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_get_pointer.restype = ctypes.c_void_p
_capsule_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_capsule_set_name = ctypes.pythonapi.PyCapsule_SetName
_capsule_set_name.restype = ctypes.c_int
_capsule_set_name.argtypes = [ctypes.py_object, ctypes.c_char_p]

# The destructor gets a capsule whose reference count is 0: a pointer here, as ctypes would count references.
_raw_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_raw_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
def _capsule_destructor(capsule: int) -> None:
    """Drop the tensor of a capsule that nobody consumed."""
    if _raw_is_valid(capsule, _CAPSULE_NAME):
        # The library makes a tensor of its own description again, which calls its deleter.
        Ferry.Tensor.new_from_dlpack_address(_raw_get_pointer(capsule, _CAPSULE_NAME), False)


class Tensor(Ferry.Tensor):
    """An array of numbers, strings or structures.

    `numpy.asarray(tensor)` and `torch.from_dlpack(tensor)` are views on its memory.
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Tensor:
        raise TypeError("make a tensor with Ferry.Tensor.from_array(), new() or new_copy()")

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    @classmethod
    def from_array(cls, array: Any) -> Tensor:
        """Make a tensor of a NumPy array, or of anything that `numpy.asarray()` takes.

        Arrays of numbers that can be written are referred to, not copied; others are copied.

        Parameters
        ----------
        array : array_like
            Of any shape and any dtype but object.

        Returns
        -------
        Ferry.Tensor
            Of the same shape and dtype.

        Raises
        ------
        ferry.errors.InvalidArgumentError
            If the dtype is not known to Ferry.
        """
        import numpy

        array = numpy.asarray(array)
        try:
            capsule = array.__dlpack__()
        except (BufferError, RuntimeError, TypeError):
            descr = numpy.lib.format.dtype_to_descr(array.dtype)
            fmt = descr if isinstance(descr, str) else repr(descr)
            return cls.new_copy(fmt, list(array.shape), array.tobytes())
        tensor = cls.new_from_dlpack_address(_capsule_get_pointer(capsule, _CAPSULE_NAME), False)
        _capsule_set_name(capsule, _CAPSULE_NAME_USED)
        return tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of elements along each dimension."""
        return tuple(self.get_shape())

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next along each dimension."""
        return tuple(self.get_strides())

    @property
    def format(self) -> str:
        """What the elements are, as a type string of NumPy."""
        return self.get_format()

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor without dimensions has no len()")
        return self.shape[0]

    def __bool__(self) -> bool:
        return True

    def __bytes__(self) -> bytes:
        return self.to_bytes().get_data()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """The elements where they are; NumPy holds the tensor."""
        interface: dict[str, Any] = {
            "version": 3,
            "shape": self.shape,
            "strides": self.strides,
            "data": (self.get_address(), not self.is_writable()),
        }
        if self.format.startswith("["):
            interface["typestr"] = f"|V{self.get_item_size()}"
            interface["descr"] = ast.literal_eval(self.format)
        else:
            interface["typestr"] = self.format
        return interface

    def __dlpack__(self, **_options: Any) -> Any:
        """Return a capsule for `from_dlpack()` of any array library."""
        address = self.to_dlpack_address(False)
        return _capsule_new(address, _CAPSULE_NAME, ctypes.cast(_capsule_destructor, ctypes.c_void_p))

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # kDLCPU


Tensor = override(Tensor)
__all__.append("Tensor")


# ---- channels ----

_ENUMS = {
    "role": Ferry.Role,
    "mode": Ferry.Mode,
    "overflow": Ferry.Overflow,
    "wait_strategy": Ferry.WaitStrategy,
    "open_mode": Ferry.OpenMode,
}


def _enum(name: str, value: Any) -> Any:
    """Return a member of an enumeration, of which `value` may be the nick."""
    if not isinstance(value, str):
        return value
    member = getattr(_ENUMS[name], value.upper().replace("-", "_"), None)
    if not isinstance(member, int):
        raise ValueError(f"{name}={value!r}: there is no such {_ENUMS[name].__name__}")
    return member


def _microseconds(seconds: float | None) -> int:
    if seconds is None or seconds < 0 or math.isinf(seconds):
        return Ferry.WAIT_FOREVER
    return math.ceil(seconds * _MICROSECONDS)


def _decode_to_objects(codec: Ferry.Codec | None) -> None:
    """Have a codec make objects of Python, if it can choose and nobody has told it what.

    Left to themselves codecs ask who holds the GIL, and nobody does when PyGObject calls the library.
    """
    if codec is not None and codec.find_property("decode-to") and codec.get_property("decode-to") == 0:
        GObject.GObject.set_property(codec, "decode-to", "object")


def _is_array(obj: Any) -> bool:
    """Whether an object is an array of NumPy, and not of Python objects, without importing NumPy."""
    cls = type(obj)
    return cls.__module__ == "numpy" and cls.__name__ == "ndarray" and not obj.dtype.hasobject


def _variant_type(obj: Any) -> str | None:
    """Return the type of the variant that a basic object can be."""
    if isinstance(obj, bool):
        return "b"
    if isinstance(obj, int):
        return "x" if -(2**63) <= obj < 2**63 else "t" if 0 <= obj < 2**64 else None
    return "d" if isinstance(obj, float) else "s" if isinstance(obj, str) else None


class Channel(Ferry.Channel):
    """One end of a channel.

    Parameters
    ----------
    transport : str or Ferry.Transport, optional
        The transport; the best ranked if left out.
    name : str, optional
        Name of the channel; without one it is anonymous.
    role : Ferry.Role or str, optional
        `'sender'` (default) or `'receiver'`.
    codec : str or Ferry.Codec, optional
        The codec; chosen for each message if left out.
    **properties
        Other properties of the class, such as `capacity=16` or `mode='broadcast'`; those that
        are enumerations may be given by nick.

    Examples
    --------
    >>> with Ferry.Channel(transport='memfd', name='frames', role='receiver') as channel:
    ...     for message in channel:
    ...         print(bytes(message))

    Notes
    -----
    All time-outs are in seconds: None, the default, waits for ever, 0 not at all. (The functions in C
    count microseconds; `Ferry.WAIT_FOREVER` and `Ferry.NO_WAIT` mean the same in both.)
    Signal handlers run while a call waits, so that Ctrl-C interrupts it.
    """

    def __new__(cls, transport: Any = None, codec: Any = None, **_properties: Any) -> Channel:
        if isinstance(transport, Ferry.Transport) or isinstance(codec, Ferry.Codec):
            registry = Ferry.Registry.get_default()
            if not isinstance(transport, Ferry.Transport):
                transport = registry.create_transport(transport)
            if isinstance(codec, str):
                codec = registry.create_codec(codec) if codec != "auto" else None
            self = _channel_new_with_transport(transport, codec, Ferry.Role.SENDER)
            self._made = True
            return self
        return super().__new__(cls)

    def __init__(self, transport: Any = None, codec: Any = None, **properties: Any) -> None:
        for name in _ENUMS.keys() & properties.keys():
            properties[name] = _enum(name, properties[name])
        if vars(self).pop("_made", False):
            for name, value in properties.items():
                self.set_property(name.replace("_", "-"), value)
            return
        if transport is not None:
            properties["transport"] = transport
        if codec is not None:
            properties["codec"] = codec
        super().__init__(**properties)

    @classmethod
    def new(cls, transport: str | None, name: str | None, role: Any) -> Channel:
        """Make an endpoint; it is not open yet."""
        return _channel_new(transport, name, _enum("role", role))

    @classmethod
    @_translated
    def new_from_description(cls, description: str, role: Any) -> Channel:
        """Make an endpoint from text such as `'memfd name=x ! gvariant'`; it is not open yet."""
        return _channel_new_from_description(description, _enum("role", role))

    @classmethod
    def new_with_transport(cls, transport: Any, codec: Any, role: Any) -> Channel:
        """Make an endpoint from objects, for instance of classes in Python; it is not open yet."""
        return _channel_new_with_transport(transport, codec, _enum("role", role))

    @_translated
    def open(self, cancellable: Gio.Cancellable | None = None) -> bool:
        """Join the channel, or create it."""
        return _channel_open(self, cancellable)

    def __enter__(self) -> Channel:
        if not self.is_open():
            self.open()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Return how many messages are sent and not yet received."""
        return self.get_statistics().in_flight

    def __bool__(self) -> bool:
        return True

    def _wait_for(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        condition: Any,
        timeout: float | None,
        cancellable: Any,
    ) -> Any:
        """Call a function of the library until it need not wait, and wait here meanwhile.

        If the library waited, and returned with an error, a signal handler would run inside of
        PyGObject's conversion of that error, and what it raises would be lost.
        """
        forever = timeout is None or timeout < 0
        deadline = math.inf if forever else time.monotonic() + timeout
        transport = None
        while True:
            try:
                return function(self, *args, Ferry.NO_WAIT, cancellable)
            except GLib.Error as error:
                if timeout == 0 or not self._is_worth_waiting(error):
                    raise _exception(error) from None
            left = deadline - time.monotonic()
            if left <= 0:
                text = f"channel '{self.props.name or '(anonymous)'}': nothing came of it within {timeout:g} s"
                raise _exception(_error(Ferry.Error.TIMED_OUT, text))
            transport = transport or self.get_transport_object()
            began = time.monotonic()
            wait = _microseconds(min(left, _SLICE))
            if condition is not None:
                transport.wait_quietly(condition, wait, cancellable)
            self.dispatch_events()
            if time.monotonic() - began < _POLL:
                # Not everything can be waited for: memory that others hold, for example.
                time.sleep(_POLL)

    def _is_worth_waiting(self, error: GLib.Error) -> bool:
        if error.domain != _DOMAIN:
            return False
        if error.code == Ferry.Error.FULL:
            return self.props.overflow != Ferry.Overflow.ERROR
        return error.code in (Ferry.Error.EMPTY, Ferry.Error.TIMED_OUT)

    # -- sending

    def _is_raw(self) -> bool:
        codec = self.get_codec_object()
        return codec.get_wire_name() == "raw" if codec else self.props.codec in (None, "auto", "raw")

    def send(self, obj: Any, timeout: float | None = None, cancellable: Gio.Cancellable | None = None) -> bool:
        """Send an object.

        Parameters
        ----------
        obj : object
            A `Ferry.Buffer` goes as it is. Bytes, bytearray, memoryview and `GLib.Bytes` go as raw bytes
            unless the channel has a codec of its own. Everything else as by `send_value`.
        timeout : float, optional
            Seconds to wait for room; None for ever.
        cancellable : Gio.Cancellable, optional
            To give up.

        Returns
        -------
        bool
            True

        Raises
        ------
        queue.Full
            There is no room, and the channel or `timeout=0` says not to wait.
        TimeoutError
            There was no room for so long.
        ferry.errors.ClosedError
            The channel is closed.
        ferry.errors.CodecError
            The object can't be encoded.
        """
        if isinstance(obj, Buffer):
            return self.send_buffer(obj, timeout, cancellable)
        if isinstance(obj, (bytes, bytearray, memoryview)) and self._is_raw():
            return self._wait_for(
                _channel_send, (obj if isinstance(obj, bytes) else bytes(obj),), _OUT, timeout, cancellable
            )
        if isinstance(obj, GLib.Bytes) and self._is_raw():
            return self.send_bytes(obj, timeout, cancellable)
        return self.send_value(obj, timeout, cancellable)

    def send_bytes(
        self, data: GLib.Bytes, timeout: float | None = None, cancellable: Gio.Cancellable | None = None
    ) -> bool:
        """Send raw bytes; see `send`."""
        return self._wait_for(_channel_send_bytes, (data,), _OUT, timeout, cancellable)

    def send_buffer(
        self, buffer: Buffer, timeout: float | None = None, cancellable: Gio.Cancellable | None = None
    ) -> bool:
        """Send a loaned buffer, which is empty afterwards, or a copy of any other; see `send`."""
        return self._wait_for(_channel_send_buffer, (buffer,), _OUT, timeout, cancellable)

    def send_variant(
        self, variant: GLib.Variant, timeout: float | None = None, cancellable: Gio.Cancellable | None = None
    ) -> bool:
        """Send a variant; see `send`."""
        return self._wait_for(_channel_send_variant, (variant,), _OUT, timeout, cancellable)

    def send_value(
        self,
        obj: Any,
        timeout: float | None = None,
        cancellable: Gio.Cancellable | None = None,
        *,
        codec: Ferry.Codec | None = None,
    ) -> bool:
        """Encode an object with a codec and send it; see `send`.

        The codec is `codec`, or that of the channel. Where that is chosen for each message, arrays of NumPy
        go by codec numpy and other objects of Python by codec python. Without these, and where the
        codec does not take objects of Python, bool, int, float and str go as `GLib.Variant`. A
        `GObject.Value` is encoded as what it holds.
        """
        value = self._to_value(obj, codec)
        if codec is None and self._is_auto() and value.g_type == GObject.TYPE_PYOBJECT and not _is_array(obj):
            codec = self._object_codec()
        return self._wait_for(_channel_send_value_with_codec, (codec, value), _OUT, timeout, cancellable)

    def send_value_with_codec(
        self,
        codec: Ferry.Codec | None,
        obj: Any,
        timeout: float | None = None,
        cancellable: Gio.Cancellable | None = None,
    ) -> bool:
        """Encode an object with a codec and send it; see `send_value`."""
        return self.send_value(obj, timeout, cancellable, codec=codec)

    def send_encoded(
        self, codec: Ferry.Codec, data: bytes, timeout: float | None = None, cancellable: Gio.Cancellable | None = None
    ) -> bool:
        """Send what a codec has encoded already; see `send`."""
        return self._wait_for(_channel_send_encoded, (codec, data), _OUT, timeout, cancellable)

    def _is_auto(self) -> bool:
        return self.get_codec_object() is None and self.props.codec in (None, "auto")

    def _object_codec(self) -> Ferry.Codec | None:
        """Return the codec for objects of Python; None: there is none."""
        return self._codecs().get("python")

    def _codecs(self) -> dict[str, Ferry.Codec]:
        """Return the codecs of a channel that chooses for each message, made once."""
        if "_known_codecs" not in vars(self):
            codecs = {}
            registry = Ferry.Registry.get_default()
            for name in ("python", "numpy"):
                if registry.find_codec(name) and (name != "numpy" or importlib.util.find_spec("numpy")):
                    codecs[name] = registry.create_codec(name)
                    _decode_to_objects(codecs[name])
                    self.add_codec(codecs[name])
            self._known_codecs = codecs
        return self._known_codecs

    def _to_value(self, obj: Any, codec: Ferry.Codec | None) -> GObject.Value:
        if isinstance(obj, GObject.Value):
            return obj
        if not isinstance(obj, (Tensor, GLib.Variant, GLib.Bytes)) and not self._takes_objects(codec):
            if isinstance(obj, (bytes, bytearray, memoryview)):
                obj = GLib.Bytes.new(bytes(obj))
            elif kind := _variant_type(obj):
                obj = GLib.Variant(kind, obj)
        for cls in (Tensor, GLib.Variant, GLib.Bytes):
            if isinstance(obj, cls):
                return GObject.Value(cls.__gtype__, obj)
        return GObject.Value(GObject.TYPE_PYOBJECT, obj)

    def _takes_objects(self, codec: Ferry.Codec | None) -> bool:
        codec = codec or self.get_codec_object()
        if codec is not None:
            return codec.accepts(GObject.TYPE_PYOBJECT)
        if self._is_auto():
            return self._object_codec() is not None
        return self.props.codec not in ("raw", "gvariant")

    def loan(self, size: int, timeout: float | None = None, cancellable: Gio.Cancellable | None = None) -> Buffer:
        """Borrow shared memory, to be filled through `view()` and sent with `send_buffer`."""
        return self._wait_for(_channel_loan, (size,), _OUT, timeout, cancellable)

    def loan_tensor(
        self,
        format: str,
        shape: Sequence[int],
        timeout: float | None = None,
        cancellable: Gio.Cancellable | None = None,
    ) -> tuple[Buffer, Tensor]:
        """Borrow a message with an array in it, to be filled through the tensor and sent with `send_buffer`.

        Drop the tensor, and what views it has, before: then the elements are the receiver's.
        """
        return self._wait_for(_channel_loan_tensor, (format, shape), _OUT, timeout, cancellable)

    def flush(self, timeout: float | None = None, cancellable: Gio.Cancellable | None = None) -> bool:
        """Wait until everything that was sent so far is received; what is sent meanwhile does not count."""
        return self.flush_mark(self.mark(), timeout, cancellable)

    def mark(self) -> int:
        """Tell how far has been sent, for `flush_mark`."""
        try:
            _, mark = _channel_mark(self)
        except GLib.Error as error:
            raise _exception(error) from None
        return mark

    def flush_mark(
        self, mark: int, timeout: float | None = None, cancellable: Gio.Cancellable | None = None
    ) -> bool:
        """Wait until everything that was sent before a mark is received."""
        return self._wait_for(_channel_flush_mark, (mark,), None, timeout, cancellable)

    # -- receiving

    def receive(self, timeout: float | None = None, cancellable: Gio.Cancellable | None = None) -> Any:
        """Take the next message.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; None for ever.
        cancellable : Gio.Cancellable, optional
            To give up.

        Returns
        -------
        object
            What was sent; for raw bytes the `Ferry.Buffer` with them, which is a view on shared memory.

        Raises
        ------
        queue.Empty
            There is no message, and `timeout=0`.
        TimeoutError
            There was no message for so long.
        EOFError
            The stream has ended.
        ferry.errors.ClosedError
            The channel is closed.
        ferry.errors.CodecError
            The message can't be decoded; it is lost.
        """
        buffer = self.receive_buffer(timeout, cancellable)
        wire_name, _version = buffer.dup_wire_name()
        return buffer if wire_name in ("", "raw") and self._is_raw() else self.decode(buffer)

    def receive_buffer(self, timeout: float | None = None, cancellable: Gio.Cancellable | None = None) -> Buffer:
        """Take the next message as it is, to look at it or to `decode` it later; see `receive`."""
        return self._wait_for(_channel_receive, (), _IN, timeout, cancellable)

    def receive_bytes(self, timeout: float | None = None, cancellable: Gio.Cancellable | None = None) -> GLib.Bytes:
        """Take the next message as bytes, undecoded; see `receive`."""
        return self._wait_for(_channel_receive_bytes, (), _IN, timeout, cancellable)

    def receive_value(self, timeout: float | None = None, cancellable: Gio.Cancellable | None = None) -> Any:
        """Take the next message and decode it, raw ones too (to `GLib.Bytes`); see `receive`."""
        return self.decode(self.receive_buffer(timeout, cancellable))

    def receive_variant(self, timeout: float | None = None, cancellable: Gio.Cancellable | None = None) -> GLib.Variant:
        """Take the next message, which must be a variant; see `receive`."""
        return self._wait_for(_channel_receive_variant, (), _IN, timeout, cancellable)

    @_translated
    def decode(self, buffer: Buffer) -> Any:
        """Decode a received message."""
        if self._is_auto():
            self._codecs()
        else:
            _decode_to_objects(self.get_codec_object())
        _ok, value = _channel_decode(self, buffer)
        return value

    def wait(self, condition: Any, timeout: float | None = None, cancellable: Gio.Cancellable | None = None) -> bool:
        """Wait until a message (`GLib.IOCondition.IN`) or room (`OUT`) is there."""
        return self._wait_for(_channel_wait, (condition,), condition, timeout, cancellable)

    @_translated
    def create_source(self, condition: Any, cancellable: Gio.Cancellable | None = None) -> GLib.Source:
        """Make a source for a main loop.

        Its callback, set with `set_callback(function, *data)`, is called as `function(channel, condition, *data)`
        and returns whether the source stays.
        """
        source = _channel_create_source(self, condition, cancellable)

        def set_callback(function: Callable[..., Any], *data: Any) -> None:
            # The source calls with more than a plain GLib.Source does, which only a closure can take.
            GObject.source_set_closure(source, lambda channel, ready: bool(function(channel, ready, *data)))

        source.set_callback = set_callback
        return source

    def __iter__(self) -> Iterator[Any]:
        """Yield what `receive` returns, until the stream ends."""
        while True:
            try:
                # Not through a variable, which would hold the block until the next message.
                yield self.receive()
            except GLib.Error as error:
                if not error.matches(Ferry.error_quark(), Ferry.Error.END_OF_STREAM):
                    raise
                return

    # -- asyncio

    async def _ready(self, condition: Any) -> None:
        """Wait in the running event loop until a condition holds."""
        loop = asyncio.get_running_loop()
        fd = self.get_fd()
        while not self.check(condition):
            readable = loop.create_future()
            loop.add_reader(fd, lambda f=readable: f.done() or f.set_result(None))
            try:
                await readable
            finally:
                loop.remove_reader(fd)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield what `receive` returns, until the stream ends, without blocking the event loop."""
        while True:
            try:
                yield self.receive(0)
            except GLib.Error as error:
                if error.matches(Ferry.error_quark(), Ferry.Error.END_OF_STREAM):
                    return
                if not error.matches(Ferry.error_quark(), Ferry.Error.EMPTY):
                    raise
                await self._ready(_IN)


Channel = override(Channel)
__all__.append("Channel")


# ---- codecs and transports in Python ----

# What an exception means to the library, looked up in this order.
_CODES = (
    (queue.Full, Ferry.Error.FULL),
    (queue.Empty, Ferry.Error.EMPTY),
    (TimeoutError, Ferry.Error.TIMED_OUT),
    (FileNotFoundError, Ferry.Error.NOT_FOUND),
    (FileExistsError, Ferry.Error.EXISTS),
    (PermissionError, Ferry.Error.PERMISSION),
    (BrokenPipeError, Ferry.Error.CLOSED),
    (EOFError, Ferry.Error.END_OF_STREAM),
    (MemoryError, Ferry.Error.NO_SPACE),
    (NotImplementedError, Ferry.Error.UNSUPPORTED),
)


def _to_gerror(where: str, exception: BaseException, default: int) -> GLib.Error:
    if isinstance(exception, GLib.Error):
        return exception
    if not isinstance(exception, Exception):
        # KeyboardInterrupt, SystemExit: the library gives up, and Python hears of it again when that has returned.
        _interrupts.exception = exception
        return GLib.Error.new_literal(Gio.io_error_quark(), "interrupted", int(Gio.IOErrorEnum.CANCELLED))
    code = next((code for cls, code in _CODES if isinstance(exception, cls)), default)
    return _error(code, f"{where}: {type(exception).__name__}: {exception}")


def _find(cls: type, name: str) -> _Virtual | None:
    return next((own for own in (vars(base).get(name) for base in cls.__mro__) if isinstance(own, _Virtual)), None)


class _Virtual:
    """A virtual function in a class in Python.

    To Python it is a method like any other. When the library calls it, it raises what the library
    understands, and returns what that expects.

    A class and its subclasses share the table of an interface, and PyGObject puts the functions of
    the one that was made last into it. So which of them is meant is only decided here.
    """

    def __init__(self, name: str, function: Callable[..., Any], default: int, convert: Callable[..., Any]) -> None:
        self.name = name
        self.function = function
        self.default = default
        self.convert = convert
        functools.update_wrapper(self, function)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self.function, instance)

    def __call__(self, instance: Any, *args: Any) -> Any:
        where = f"{type(instance).__name__}.{_SHOWN.get(self.name, self.name)}()"
        virtual = _find(type(instance), self.name)
        try:
            if virtual is None:
                if self.name in _ABSENT:
                    return _ABSENT[self.name](*args)
                raise NotImplementedError("it has no such function")
            return virtual.convert(instance, where, virtual.function(instance, *args))
        except BaseException as exception:
            error = _to_gerror(where, exception, self.default)
            if error is not exception and isinstance(exception, (queue.Empty, queue.Full)) and self.had_time(args):
                # Who was allowed to wait has waited, for all that the library knows.
                error = _error(Ferry.Error.TIMED_OUT, error.message)
            raise error from exception

    def had_time(self, args: tuple[Any, ...]) -> bool:
        return (
            self.name in ("do_loan", "do_commit", "do_take", "do_wait", "do_flush", "do_flush_mark") and args[-2] != 0
        )


def _as_success(_self: Any, where: str, result: Any) -> bool:
    """No result is a success too."""
    if result is not None and not result:
        raise _error(Ferry.Error.FAILED, f"{where} failed without saying why")
    return True


def _as_wait(_self: Any, where: str, result: Any) -> bool:
    if result is not None and not result:
        raise _error(Ferry.Error.TIMED_OUT, f"{where}: nothing came of it")
    return True


def _as_buffer(_self: Any, where: str, result: Any) -> Buffer:
    if isinstance(result, (bytes, bytearray, memoryview)):
        result = Buffer.new_bytes(GLib.Bytes.new(bytes(result)))
    if not isinstance(result, Buffer):
        raise TypeError(f"{where} must return a Ferry.Buffer, not {type(result).__name__}")
    return result


def _as_bytes(_self: Any, where: str, result: Any) -> GLib.Bytes:
    if isinstance(result, (bytes, bytearray, memoryview)):
        return GLib.Bytes.new(bytes(result))
    if not isinstance(result, GLib.Bytes):
        raise TypeError(f"{where} must return bytes, not {type(result).__name__}")
    return result


def _as_decoded(self: Any, _where: str, result: Any) -> bool:
    if not isinstance(result, GObject.Value):
        result = GObject.Value(GObject.TYPE_PYOBJECT, result)
    return self.set_decoded(result)


def _as_probe(_self: Any, _where: str, result: Any) -> tuple[bool, bool]:
    return True, bool(result)


def _as_mark(_self: Any, _where: str, result: Any) -> tuple[bool, int]:
    return True, int(result)


def _as_names(_self: Any, _where: str, result: Any) -> list[str]:
    return list(result)


def _as_fd(_self: Any, _where: str, result: Any) -> int:
    fd = result if isinstance(result, int) else result.fileno()
    if fd < 0:
        raise ValueError(f"the descriptor is {fd}")
    return fd


def _as_is(_self: Any, _where: str, result: Any) -> Any:
    return result


_TRANSPORT_RESULTS = {
    "do_loan": _as_buffer,
    "do_take": _as_buffer,
    "do_probe_channel": _as_probe,
    "do_list_channels": _as_names,
    "do_get_fd": _as_fd,
    "do_wait": _as_wait,
    "do_mark": _as_mark,
    **dict.fromkeys(
        (
            "do_open",
            "do_close",
            "do_commit",
            "do_flush",
            "do_flush_mark",
            "do_end_of_stream",
            "do_shut_down",
            "do_get_statistics",
            "do_verify",
            "do_sweep_channel",
        ),
        _as_success,
    ),
}

_PARTICIPANT_FIELDS = (
    "id",
    "incarnation",
    "role",
    "pid",
    "uid",
    "alive",
    "messages",
    "bytes",
    "waits",
    "dropped",
    "held",
)


def _get_participant(self: Any, index: int, participant: Any) -> bool:
    """Answer the library's question for one participant with `do_list_participants`."""
    if index == 0:
        self._participants = list(self.do_list_participants())
    if index >= len(self._participants):
        del self._participants
        return False
    for name in _PARTICIPANT_FIELDS:
        setattr(participant, name, getattr(self._participants[index], name))
    return True


def _dup_wire_name(self: Any) -> str:
    return self.do_get_wire_name()


def _accepts_type_name(self: Any, name: str) -> bool:
    accepts = getattr(self, "do_accepts", None)
    return name == "PyObject" if accepts is None else bool(accepts(GObject.GType.from_name(name)))


def _encode_bytes(self: Any, value: Any) -> Any:
    return self.do_encode(value)


def _decode_value(self: Any, buffer: Buffer, version: int) -> Any:
    return self.do_decode(buffer, version)


_TRANSPORT_RESULTS |= dict.fromkeys(("do_wake", "do_check", "do_trim", "do_poll_events"), _as_is)

# What users call what the library calls otherwise.
_SHOWN = {"do_encode_bytes": "do_encode", "do_decode_value": "do_decode"}

# What the library does where there is no such function.
_ABSENT = {
    "do_wake": lambda: None,
    "do_check": lambda condition: condition,
    "do_trim": lambda: 0,
    "do_poll_events": lambda _participant: Ferry.TransportEvent.NONE,
    "do_get_wire_version": lambda: 1,
}


def _init_transport_class(cls: type, **kwargs: Any) -> None:
    """Prepare a transport in Python, before PyGObject looks at the virtual functions of its class."""
    super(Ferry.Transport, cls).__init_subclass__(**kwargs)
    for name, convert in _TRANSPORT_RESULTS.items():
        function = vars(cls).get(name)
        if callable(function):
            function = getattr(function, "function", function)
            setattr(cls, name, _Virtual(name, function, Ferry.Error.FAILED, convert))
    if "do_list_participants" in vars(cls) and not hasattr(cls, "_participants"):
        cls.do_get_participant = _get_participant
        cls._participants = None


def _init_codec_class(cls: type, **kwargs: Any) -> None:
    """Prepare a codec in Python, before PyGObject looks at the virtual functions of its class.

    Users write the functions that the documentation of codecs names; the library is given the
    twins that can be called from C, which look for those when they are called.
    """
    super(Ferry.Codec, cls).__init_subclass__(**kwargs)
    own = vars(cls)
    if callable(own.get("do_get_wire_version")):
        cls.do_get_wire_version = _Virtual(
            "do_get_wire_version", own["do_get_wire_version"], Ferry.Error.FAILED, _as_is
        )
    if Ferry.Codec not in cls.__bases__:
        return
    cls.do_dup_wire_name = _dup_wire_name
    cls.do_accepts_type_name = _accepts_type_name
    cls.do_encode_bytes = _Virtual("do_encode_bytes", _encode_bytes, Ferry.Error.CODEC, _as_bytes)
    cls.do_decode_value = _Virtual("do_decode_value", _decode_value, Ferry.Error.CODEC, _as_decoded)


Ferry.Transport.__init_subclass__ = classmethod(_init_transport_class)
Ferry.Codec.__init_subclass__ = classmethod(_init_codec_class)


class Registry(Ferry.Registry):
    """Knows all plugins and their features; channels use the one of `get_default()`."""

    def register_codec(
        self,
        name: str,
        cls: type,
        *,
        rank: int = Ferry.Rank.SECONDARY,
        wire_name: str | None = None,
        wire_version: int | None = None,
        description: str | None = None,
    ) -> bool:
        """Let descriptions and messages in this process find a codec in Python.

        Parameters
        ----------
        name : str
            What descriptions call it: up to 64 characters of `a-z`, `0-9` and `-`.
        cls : type
            A class that implements `Ferry.Codec`; it is made without arguments.
        rank : int, optional
            How much it is preferred to others that decode the same; see `Ferry.Rank`.
        wire_name, wire_version : optional
            What its messages carry; what an instance says if left out.
        description : str, optional
            What it is, in a line; by default the first line of the docstring of the class.

        Raises
        ------
        ferry.errors.InvalidArgumentError
            If there is a codec of that name, or an argument is wrong.
        """
        if wire_name is None or wire_version is None:
            codec = cls()
            wire_name = codec.get_wire_name() if wire_name is None else wire_name
            wire_version = codec.get_wire_version() if wire_version is None else wire_version
        return super().register_codec(name, rank, wire_name, wire_version, description or _first_line(cls), cls)

    def register_transport(
        self,
        name: str,
        cls: type,
        *,
        rank: int = Ferry.Rank.MARGINAL,
        capabilities: int = Ferry.TransportCapabilities.NONE,
        description: str | None = None,
    ) -> bool:
        """Let descriptions in this process find a transport in Python.

        Parameters
        ----------
        name : str
            What descriptions call it: up to 64 characters of `a-z`, `0-9` and `-`.
        cls : type
            A class that implements `Ferry.Transport`; it is made without arguments.
        rank : int, optional
            How much it is preferred to others; see `Ferry.Rank`.
        capabilities : Ferry.TransportCapabilities, optional
            What it can do.
        description : str, optional
            What it is, in a line; by default the first line of the docstring of the class.

        Raises
        ------
        ferry.errors.InvalidArgumentError
            If there is a transport of that name, or an argument is wrong.
        """
        return super().register_transport(name, rank, capabilities, description or _first_line(cls), cls)


def _first_line(cls: type) -> str:
    return (cls.__doc__ or cls.__name__).strip().splitlines()[0]


Registry = override(Registry)
__all__.append("Registry")
