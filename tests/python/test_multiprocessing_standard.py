# SPDX-License-Identifier: LGPL-2.1-or-later
"""CPython's own tests of multiprocessing's queues, pipes and pools, with those of Ferry in their place.

They come from the package libpython3.11-testsuite (of whatever version Python has); without it
there is nothing to run. Classes and cases that can't apply are listed with the reason, which
docs/python-multiprocessing.md tells in more words.
"""

from __future__ import annotations

import importlib
import unittest

import pytest
from ferry import multiprocessing

suite = pytest.importorskip("test._test_multiprocessing", reason="needs the package libpython3.N-testsuite")

# Children that are spawned import this module, too, and then run functions of the suite.
suite.multiprocessing = multiprocessing
for name in ("queues", "connection", "pool"):
    importlib.import_module(f"ferry.multiprocessing.{name}")


class ProcessesMixin(suite.ProcessesMixin):
    """What the cases make their objects with."""

    Process = multiprocessing.Process
    connection = multiprocessing.connection
    Pool = staticmethod(multiprocessing.Pool)
    Pipe = staticmethod(multiprocessing.Pipe)
    Queue = staticmethod(multiprocessing.Queue)
    JoinableQueue = staticmethod(multiprocessing.JoinableQueue)


CLASSES = [
    "_TestProcess",
    "_TestSubclassingProcess",
    "_TestQueue",
    "_TestConnection",
    "_TestPoll",
    "_TestPicklingConnections",
    "_TestPool",
    "_TestPoolWorkerErrors",
    "_TestPoolWorkerLifetime",
    "TestSimpleQueue",
    "TestWait",
    "TestInitializers",
    "TestIgnoreEINTR",
    "TestPoolNotLeakOnFailure",
    "OtherTest",
    "_TestPollEintr",
]

_FEEDER = "an object that can't be encoded raises in put(): there is no feeder thread to report to"
_HANDLES = "the descriptor of such a connection is not the socket through which handles are sent"

INAPPLICABLE = {
    "test_ignore": "sending a large message does not wait for its receiver",
    "test_queue_feeder_donot_stop_onexc": _FEEDER,
    "test_queue_feeder_on_queue_feeder_error": _FEEDER,
    "test_fd_transfer": _HANDLES,
    "test_large_fd_transfer": _HANDLES,
    "test_missing_fd_transfer": _HANDLES,
}


def _make(base: type, method: str) -> type:
    class Case(base, *((ProcessesMixin,) if issubclass(base, suite.BaseTestCase) else ()), unittest.TestCase):
        @classmethod
        def setUpClass(cls) -> None:
            cls._method_before = multiprocessing.get_start_method(allow_none=True)
            multiprocessing.set_start_method(method, force=True)
            super().setUpClass()

        @classmethod
        def tearDownClass(cls) -> None:
            super().tearDownClass()
            multiprocessing.set_start_method(cls._method_before, force=True)

    for case, reason in INAPPLICABLE.items():
        if hasattr(Case, case):
            setattr(Case, case, unittest.skip(reason)(getattr(Case, case)))
    Case.__name__ = Case.__qualname__ = f"{base.__name__.removeprefix('_')}With{method.capitalize()}"
    Case.__module__ = __name__
    return Case


for _base in CLASSES:
    for _method in ("fork", "spawn", "forkserver"):
        _case = _make(getattr(suite, _base), _method)
        globals()[_case.__name__] = _case
del _case
