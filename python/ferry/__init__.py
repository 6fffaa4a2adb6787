# SPDX-License-Identifier: LGPL-2.1-or-later
"""Objects between processes through shared memory.

`Queue`, `JoinableQueue`, `SimpleQueue` and `Pipe` are those of `multiprocessing`, with the same
methods and rules, and faster by an order of magnitude; `Channel` is the general form of what
they are made of, for any transport, codec and mode, and for programs that know each other by
a name only.

Examples
--------
>>> import ferry, multiprocessing
>>> queue = ferry.Queue()
>>> multiprocessing.Process(target=queue.put, args=({"answer": 42},)).start()
>>> queue.get()
{'answer': 42}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ferry._native import Buffer

if TYPE_CHECKING:
    from ferry.channel import Channel as Channel
    from ferry.channel import Participant as Participant
    from ferry.channel import Statistics as Statistics
    from ferry.channel import open as open
    from ferry.errors import ChannelEmptyError as ChannelEmptyError
    from ferry.errors import ChannelExistsError as ChannelExistsError
    from ferry.errors import ChannelFullError as ChannelFullError
    from ferry.errors import ChannelNotFoundError as ChannelNotFoundError
    from ferry.errors import ChannelPermissionError as ChannelPermissionError
    from ferry.errors import ClosedError as ClosedError
    from ferry.errors import CodecError as CodecError
    from ferry.errors import CorruptError as CorruptError
    from ferry.errors import EndOfStreamError as EndOfStreamError
    from ferry.errors import FerryError as FerryError
    from ferry.errors import InvalidArgumentError as InvalidArgumentError
    from ferry.errors import MismatchError as MismatchError
    from ferry.errors import NoSpaceError as NoSpaceError
    from ferry.errors import NoSuchFeatureError as NoSuchFeatureError
    from ferry.errors import ParseError as ParseError
    from ferry.errors import PluginError as PluginError
    from ferry.errors import TimedOutError as TimedOutError
    from ferry.errors import TooBigError as TooBigError
    from ferry.errors import TooManyError as TooManyError
    from ferry.errors import UnsupportedError as UnsupportedError
    from ferry.errors import VersionError as VersionError
    from ferry.executor import ProcessPoolExecutor as ProcessPoolExecutor
    from ferry.mapping import imap as imap
    from ferry.mapping import map as map
    from ferry.pipe import Connection as Connection
    from ferry.pipe import Pipe as Pipe
    from ferry.queues import JoinableQueue as JoinableQueue
    from ferry.queues import Queue as Queue
    from ferry.queues import SimpleQueue as SimpleQueue
    from ferry.shared import share as share
    from ferry.shared import shared_array as shared_array
    from ferry.store import Store as Store
    from ferry.store import snapshot as snapshot
    from ferry.store import store_of as store_of

__version__ = "1.0.0"

# Most programs need one or two of these: each module is imported when it is asked for.
_HOMES = {
    "Channel": "channel",
    "Participant": "channel",
    "Statistics": "channel",
    "open": "channel",
    "imap": "mapping",
    "map": "mapping",
    "Connection": "pipe",
    "Pipe": "pipe",
    "ProcessPoolExecutor": "executor",
    "JoinableQueue": "queues",
    "Queue": "queues",
    "SimpleQueue": "queues",
    "share": "shared",
    "shared_array": "shared",
    "Store": "store",
    "snapshot": "store",
    "store_of": "store",
    "ChannelEmptyError": "errors",
    "ChannelExistsError": "errors",
    "ChannelFullError": "errors",
    "ChannelNotFoundError": "errors",
    "ChannelPermissionError": "errors",
    "ClosedError": "errors",
    "CodecError": "errors",
    "CorruptError": "errors",
    "EndOfStreamError": "errors",
    "FerryError": "errors",
    "InvalidArgumentError": "errors",
    "MismatchError": "errors",
    "NoSpaceError": "errors",
    "NoSuchFeatureError": "errors",
    "ParseError": "errors",
    "PluginError": "errors",
    "TimedOutError": "errors",
    "TooBigError": "errors",
    "TooManyError": "errors",
    "UnsupportedError": "errors",
    "VersionError": "errors",
}

__all__ = ["Buffer", *_HOMES]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'ferry' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"ferry.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
