# SPDX-License-Identifier: LGPL-2.1-or-later
"""The exceptions of Ferry, one class for each code of its error domain.

Each is a `FerryError` and by that a `gi.repository.GLib.Error`, and where the standard
library has an exception for the case it is that one too: a full channel raises what a full
`queue.Queue` raises. Programs catch whichever they know.

This module needs nothing but PyGObject, so that the native helper, the package and what
`from gi.repository import Ferry` adds can all raise the same classes.
"""

from __future__ import annotations

import errno
import queue
from typing import Any, NoReturn

from gi.repository import GLib

__all__ = [
    "DOMAIN",
    "ChannelEmptyError",
    "ChannelExistsError",
    "ChannelFullError",
    "ChannelNotFoundError",
    "ChannelPermissionError",
    "ClosedError",
    "CodecError",
    "CorruptError",
    "EndOfStreamError",
    "FerryError",
    "InvalidArgumentError",
    "MismatchError",
    "NoSpaceError",
    "NoSuchFeatureError",
    "ParseError",
    "PluginError",
    "TimedOutError",
    "TooBigError",
    "TooManyError",
    "UnsupportedError",
    "VersionError",
    "class_for_code",
    "from_gerror",
    "raise_code",
]

#: The domain of Ferry's errors, as `GLib.Error.domain` has it.
DOMAIN = "ferry-error-quark"


class FerryError(GLib.Error):
    """An error of Ferry; the base of the others, and what has no class of its own.

    Parameters
    ----------
    message : str
        What happened, to which channel, and what to do about it.
    domain : str, optional
        The error domain; there is one.
    code : int, optional
        A code of `gi.repository.Ferry.Error`; the one of the class if left out.

    Attributes
    ----------
    message : str
        The text.
    domain : str
        `DOMAIN`.
    code : gi.repository.Ferry.Error
        What kind of error it is; a plain int where the typelib of Ferry is missing.
    """

    #: The code in the error domain that the class stands for.
    CODE = 0
    #: The system's number for the error, for classes that are an `OSError`.
    ERRNO: int | None = None

    def __init__(self, message: str = "unknown error", domain: str = DOMAIN, code: int | None = None) -> None:
        # Not the next class in the order: OSError would take two arguments for errno and text.
        RuntimeError.__init__(self, message)
        self.args = (message,)
        self.message = message
        self.domain = domain
        self.code = self.CODE if code is None else code
        if self.ERRNO is not None:
            self.errno = self.ERRNO
            self.strerror = message

    @property
    def code(self) -> int:
        """gi.repository.Ferry.Error: what kind of error it is.

        A plain int, with the same value, where the typelib of Ferry is missing. To assign an int
        is possible, too; `CODE` of a class is what its instances have unless told otherwise.
        """
        enum = _code_enum()
        return self._code if enum is None else enum(self._code)

    @code.setter
    def code(self, code: int) -> None:
        self._code = int(code)

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.domain, self._code)

    def copy(self) -> FerryError:
        """Return an error with the same text and code."""
        return type(self)(self.message, self.domain, self._code)


class InvalidArgumentError(FerryError, ValueError):
    """A value is out of its range, or does not go with another."""

    CODE = 1


class ParseError(FerryError, ValueError):
    """A description or URI is not well-formed."""

    CODE = 2


class NoSuchFeatureError(FerryError, LookupError):
    """No plugin offers a transport or codec of that name."""

    CODE = 3


class PluginError(FerryError):
    """A plugin is unavailable, blacklisted or could not be loaded."""

    CODE = 4


class ChannelNotFoundError(FerryError, FileNotFoundError):
    """There is no channel of that name."""

    CODE = 5
    ERRNO = errno.ENOENT


class ChannelExistsError(FerryError, FileExistsError):
    """There is a channel of that name already."""

    CODE = 6
    ERRNO = errno.EEXIST


class MismatchError(FerryError, ValueError):
    """The channel exists with other settings."""

    CODE = 7


class ChannelPermissionError(FerryError, PermissionError):
    """The channel belongs to somebody else, or may not be written."""

    CODE = 8
    ERRNO = errno.EACCES


class NoSpaceError(FerryError, OSError):
    """Shared memory ran out."""

    CODE = 9
    ERRNO = errno.ENOSPC


class TooBigError(FerryError, ValueError):
    """The message can never fit into this channel."""

    CODE = 10


class ChannelFullError(FerryError, queue.Full):
    """The channel is full and the sender may not wait."""

    CODE = 11


class ChannelEmptyError(FerryError, queue.Empty):
    """No message waits and the receiver may not wait."""

    CODE = 12


class TimedOutError(FerryError, TimeoutError):
    """The time-out came first."""

    CODE = 13
    ERRNO = errno.ETIMEDOUT


class ClosedError(FerryError, BrokenPipeError, ValueError):
    """The endpoint or the channel is closed."""

    CODE = 14
    ERRNO = errno.EPIPE


class EndOfStreamError(FerryError, EOFError):
    """Every sender has ended its stream and all messages are taken."""

    CODE = 15


class CorruptError(FerryError):
    """Shared memory holds what no correct peer writes."""

    CODE = 16


class VersionError(FerryError):
    """The channel has a layout that this library does not know."""

    CODE = 17


class UnsupportedError(FerryError, NotImplementedError):
    """This transport, codec, role or platform can't do it."""

    CODE = 18


class CodecError(FerryError, ValueError):
    """A value could not be encoded or a message not decoded."""

    CODE = 19


class TooManyError(FerryError):
    """The channel has no room for one more participant."""

    CODE = 20


_CLASSES = {FerryError.CODE: FerryError, **{cls.CODE: cls for cls in FerryError.__subclasses__()}}

_enum: Any = None


def _code_enum() -> Any:
    """Return `Ferry.Error`, or None where there is no typelib."""
    global _enum
    if _enum is None:
        try:
            import gi

            gi.require_version("Ferry", "1.0")
            from gi.repository import Ferry
        except (ImportError, ValueError):
            return None
        _enum = Ferry.Error
    return _enum


def class_for_code(code: int) -> type[FerryError]:
    """Return the class of exceptions for a code of `Ferry.Error`.

    A code that this version does not know gives `FerryError`.
    """
    return _CLASSES.get(int(code), FerryError)


def from_gerror(error: GLib.Error) -> GLib.Error:
    """Return the exception for an error of GLib.

    Parameters
    ----------
    error : gi.repository.GLib.Error
        An error of any domain.

    Returns
    -------
    gi.repository.GLib.Error
        An instance of a subclass of `FerryError` for an error of Ferry; the error itself if
        it is one already or of another domain, such as that of a cancelled operation
        (`Gio.IOErrorEnum.CANCELLED`).
    """
    if error.domain != DOMAIN or isinstance(error, FerryError):
        return error
    return class_for_code(error.code)(error.message, error.domain, error.code)


def raise_code(code: int, message: str) -> NoReturn:
    """Raise the exception for a code of `Ferry.Error`."""
    raise class_for_code(code)(message, DOMAIN, code)
