# SPDX-License-Identifier: LGPL-2.1-or-later
"""The interface of the package InterProcessPyObjects (version 1), through `ferry.Store`.

A program that was written for it runs when the line that imports ``ipc_py_objects`` names this module instead::

    from ferry.compat.ipc_py_objects import *

for any number of processes, none of which may keep others from going on by dying, and with all methods and operators of
the types that are shared. docs/store-compat.md tells what is different.
"""

from __future__ import annotations

# What the star of the original brings along, and programs use without importing it.
import asyncio
from collections.abc import Hashable
from enum import IntEnum
from typing import Any, Dict, FrozenSet, List, Optional, Sequence, Set, Tuple, Type, Union  # noqa: UP035

import numpy as np

from ferry.compat.ipc_py_objects._errors import (
    FreeMemoryChunkNotFoundError,
    NoMessagesInQueueError,
    ObjBufferIsSmallerThanRequestedNumpyArrayError,
    OperationTimedOutError,
    SharedMemoryError,
    WrongObjectTypeError,
)
from ferry.compat.ipc_py_objects._manager import (
    ASMCM,
    ASMM,
    ASharedMemoryContextManager,
    ASharedMemoryManager,
    ValueHolder,
)
from ferry.compat.ipc_py_objects._memory import (
    GetInLine,
    QueueType,
    RationalNumber,
    SharedMemory,
    WaitMyTurn,
    WaitMyTurnWhenHasMessages,
    await_my_turn,
    get_in_line,
    make_numpy_array_from_obj_offset,
    wait_my_turn,
    wait_my_turn_when_has_messages,
)
from ferry.compat.ipc_py_objects._wrappers import (
    BigInt,
    FastLimitedDict,
    FastLimitedSet,
    ForceGeneralObjectCopy,
    ForceGeneralObjectInplace,
    ForceMapping,
    ForceStaticObjectCopy,
    ForceStaticObjectInplace,
    SmallInt,
    dict_to_list,
    intenum_dict_to_list,
    intenum_list_to_dict,
    list_to_dict,
)

Offset = int
Size = int

# Its other names for some of them.
sint = smallint = SmallInt
bint = bigint = BigInt
FMapping = fmapping = forcemapping = ForceMapping
FStaticObjectCopy = fstaticobjectcopy = forcestaticobjectcopy = ForceStaticObjectCopy
FStaticObjectInplace = fstaticobjectinplace = forcestaticobjectinplace = ForceStaticObjectInplace
FGeneralObjectCopy = fgeneralobjectcopy = forcegeneralobjectcopy = ForceGeneralObjectCopy
FGeneralObjectInplace = fgeneralobjectinplace = forcegeneralobjectinplace = ForceGeneralObjectInplace

__all__ = [
    "ASMCM",
    "ASMM",
    "ASharedMemoryContextManager",
    "ASharedMemoryManager",
    "Any",
    "BigInt",
    "Dict",
    "FGeneralObjectCopy",
    "FGeneralObjectInplace",
    "FMapping",
    "FStaticObjectCopy",
    "FStaticObjectInplace",
    "FastLimitedDict",
    "FastLimitedSet",
    "ForceGeneralObjectCopy",
    "ForceGeneralObjectInplace",
    "ForceMapping",
    "ForceStaticObjectCopy",
    "ForceStaticObjectInplace",
    "FreeMemoryChunkNotFoundError",
    "FrozenSet",
    "GetInLine",
    "Hashable",
    "IntEnum",
    "List",
    "NoMessagesInQueueError",
    "ObjBufferIsSmallerThanRequestedNumpyArrayError",
    "Offset",
    "OperationTimedOutError",
    "Optional",
    "QueueType",
    "RationalNumber",
    "Sequence",
    "Set",
    "SharedMemory",
    "SharedMemoryError",
    "Size",
    "SmallInt",
    "Tuple",
    "Type",
    "Union",
    "ValueHolder",
    "WaitMyTurn",
    "WaitMyTurnWhenHasMessages",
    "WrongObjectTypeError",
    "asyncio",
    "await_my_turn",
    "bigint",
    "bint",
    "dict_to_list",
    "fgeneralobjectcopy",
    "fgeneralobjectinplace",
    "fmapping",
    "forcegeneralobjectcopy",
    "forcegeneralobjectinplace",
    "forcemapping",
    "forcestaticobjectcopy",
    "forcestaticobjectinplace",
    "fstaticobjectcopy",
    "fstaticobjectinplace",
    "get_in_line",
    "intenum_dict_to_list",
    "intenum_list_to_dict",
    "list_to_dict",
    "make_numpy_array_from_obj_offset",
    "np",
    "sint",
    "smallint",
    "wait_my_turn",
    "wait_my_turn_when_has_messages",
]
