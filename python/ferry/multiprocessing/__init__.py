# SPDX-License-Identifier: LGPL-2.1-or-later
"""The module `multiprocessing`, whose objects travel through shared memory.

`Queue`, `SimpleQueue`, `JoinableQueue`, `Pipe`, `Pool` and the arguments of `Process` carry
objects through Ferry; everything else is that of the standard library, and so are the start
method and the list of children: both modules may be used in one program.

Examples
--------
>>> from ferry import multiprocessing as mp
>>> import numpy
>>> with mp.Pool(2) as pool:
...     pool.map(numpy.sum, [numpy.ones((1000, 1000))] * 2)
[1000000.0, 1000000.0]
"""

from __future__ import annotations

import multiprocessing as _standard
import sys as _sys
from importlib import import_module as _import_module
from importlib.machinery import ModuleSpec as _ModuleSpec
from importlib.util import find_spec as _find_spec
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING, Any

from ferry.multiprocessing import context

if TYPE_CHECKING:
    from multiprocessing import *  # noqa: F403 - what each context has

__all__ = list(_standard.__all__)

# As the standard library does: the methods of the default context are the functions of the module.
globals().update((_name, getattr(context._default_context, _name)) for _name in __all__)


class _StandardModules:
    """Finds the submodules that are as they are in the standard library."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> _ModuleSpec | None:
        if not name.startswith(f"{__name__}."):
            return None
        standard = f"multiprocessing.{name[len(__name__) + 1 :]}"
        if _find_spec(standard) is None:
            return None
        return _ModuleSpec(name, _StandardModules, loader_state=standard)

    @staticmethod
    def create_module(spec: _ModuleSpec) -> None:
        return None

    @staticmethod
    def exec_module(module: _ModuleType) -> None:
        # The very module, under a second name: what it defines exists once.
        _sys.modules[module.__name__] = _import_module(module.__spec__.loader_state)


_sys.meta_path.append(_StandardModules)


def __getattr__(name: str) -> Any:
    if not name.startswith("__"):
        try:
            return _import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    try:
        return getattr(_standard, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_standard)})
