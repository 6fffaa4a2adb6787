# SPDX-License-Identifier: LGPL-2.1-or-later
"""CPython's own tests of ProcessPoolExecutor, with that of Ferry in its place.

They come from the package libpython3.11-testsuite (of whatever version Python has); without it
there is nothing to run. Cases that can't apply are listed with the reason, which docs/executor.md
tells in more words.
"""

from __future__ import annotations

import os
import re
import unittest
from concurrent import futures
from typing import Any

import ferry
import pytest

suite = pytest.importorskip("test.test_concurrent_futures", reason="needs the package libpython3.N-testsuite")


class _Futures:
    """The module `concurrent.futures` as the suite sees it."""

    ProcessPoolExecutor = ferry.ProcessPoolExecutor

    def __getattr__(self, name: str) -> Any:
        return getattr(futures, name)


_assert_python_ok = suite.assert_python_ok


def _assert_program_ok(option: str, program: str) -> Any:
    """Run a program of the suite with our executor, where our package is found."""
    replaced = re.sub(r"from concurrent\.futures import (?=ProcessPool)", "from ferry import ", program)
    assert replaced != program
    return _assert_python_ok(option, replaced, PYTHONPATH=os.environ.get("PYTHONPATH", ""))


suite.futures = _Futures()
suite.assert_python_ok = _assert_program_ok

INAPPLICABLE: dict[str, str] = {}

# The classes that the suite made for each start method; those of threads, and of futures alone, are not about us.
for _name, _base in list(vars(suite).items()):
    if not (isinstance(_base, type) and issubclass(_base, unittest.TestCase) and _name.startswith("ProcessPool")):
        continue
    _mixin = next(base for base in _base.__mro__ if base.__name__.endswith("Mixin") and "executor_type" in vars(base))
    _mixin.executor_type = ferry.ProcessPoolExecutor
    for _case, _reason in INAPPLICABLE.items():
        if hasattr(_base, _case):
            setattr(_base, _case, unittest.skip(_reason)(getattr(_base, _case)))
    globals()[_name] = _base
del _base, _mixin


def test_that_it_is_ours() -> None:
    """The cases would pass with the standard executor as well."""
    cases = [value for name, value in globals().items() if name.startswith("ProcessPool")]
    assert len(cases) >= 21
    assert all(case.executor_type is ferry.ProcessPoolExecutor for case in cases)
