# SPDX-License-Identifier: LGPL-2.1-or-later
"""`ferry.compat.shared_memory_dict`: what shared-memory-dict documents."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest
from ferry.compat.shared_memory_dict import (
    DeserializationError,
    JSONSerializer,
    PickleSerializer,
    SerializationError,
    SharedMemoryDict,
)

LIMIT = 30  # seconds: nothing here takes that long
context = multiprocessing.get_context("fork")


@dataclasses.dataclass
class Point:
    x: int


@pytest.fixture
def name() -> str:
    return f"smd-{os.getpid()}-{secrets.token_hex(4)}"


@pytest.fixture
def smd(name: str) -> Iterator[SharedMemoryDict]:
    smd = SharedMemoryDict(name=name, size=1024)
    yield smd
    smd.shm.close()


def test_documented_example(name: str) -> None:
    smd = SharedMemoryDict(name=name, size=1024)
    smd["some-key"] = "some-value-with-any-type"
    assert smd["some-key"] == "some-value-with-any-type"
    program = """
import sys
from ferry.compat.shared_memory_dict import SharedMemoryDict
existing_smd = SharedMemoryDict(name=sys.argv[1], size=2048)
print(existing_smd['some-key'])
existing_smd['new-key'] = 'some-value-with-any-type'
existing_smd.shm.close()
"""
    for lock in ("0", "1"):
        result = subprocess.run(
            [sys.executable, "-c", program, name],
            env={**os.environ, "SHARED_MEMORY_USE_LOCK": lock},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert result.stdout == "some-value-with-any-type\n", result.stderr
        assert smd.pop("new-key") == "some-value-with-any-type"
    smd.shm.close()
    smd.shm.unlink()
    del smd


def test_dict_methods(smd: SharedMemoryDict) -> None:
    smd.update({"a": 1}, b=[2])
    assert list(smd) == ["a", "b"] and list(reversed(smd)) == ["b", "a"] and len(smd) == 2 and "a" in smd
    assert list(smd.keys()) == ["a", "b"] and list(smd.values()) == [1, [2]] and dict(smd.items()) == smd
    assert smd == {"a": 1, "b": [2]} and smd != {} and str(smd) == repr(smd) == "{'a': 1, 'b': [2]}"
    assert smd | {"c": 3} == {"a": 1, "b": [2], "c": 3} and {"a": 0, "z": 1} | smd == {"a": 1, "z": 1, "b": [2]}
    smd |= {"c": 3}
    assert type(smd) is SharedMemoryDict and smd.get("c") == 3 and smd.get("d") is None and smd.get("d", 4) == 4
    assert smd.pop("c") == 3 and smd.pop("c", None) is None and smd.setdefault("e", [5]) == [5]
    with pytest.raises(KeyError):
        smd.pop("c")
    with pytest.raises(KeyError):
        smd["c"]
    with pytest.raises(KeyError):
        del smd["c"]
    with pytest.warns(DeprecationWarning):
        smd.move_to_end("a")
    assert smd.popitem() == ("a", 1)
    with pytest.warns(DeprecationWarning):
        assert smd.popitem(last=True) == ("e", [5])
    del smd["b"]
    assert len(smd) == 0
    smd["x"] = 1
    smd.clear()
    assert smd == {}


def test_values_are_copies(smd: SharedMemoryDict) -> None:
    smd["nested"] = {"list": [1]}
    nested = smd["nested"]
    nested["list"].append(2)
    assert type(nested) is dict and smd["nested"] == {"list": [1]}
    smd["point"] = Point(1)
    assert type(smd["point"]) is Point and smd["point"] == Point(1)


def test_unlink(name: str) -> None:
    first, second = SharedMemoryDict(name, 1024), SharedMemoryDict(name, 1024)
    first["a"] = 1
    first.shm.unlink()
    third = SharedMemoryDict(name, 1024)
    assert third == {} and second == {"a": 1} and third.shm.name == f"sm_{name}" and third.shm.size == 1024
    for each in (first, second, third):
        each.cleanup()


def test_serializers(name: str) -> None:
    smd = SharedMemoryDict(name, 1024, serializer=JSONSerializer())
    smd["a"] = (1, 2)
    smd[5] = None
    assert smd == {"a": [1, 2], "5": None} and smd.setdefault("b", (3,)) == [3]
    with pytest.raises(SerializationError, match="Failed to serialize"):
        smd["c"] = object()
    with pytest.raises(DeserializationError):
        JSONSerializer().loads(b"{")
    assert PickleSerializer().loads(PickleSerializer().dumps({1: 2})) == {1: 2}
    smd.shm.close()


def test_room(name: str) -> None:
    """There is at least as much room as there, and an end to it."""
    smd = SharedMemoryDict(name, 1 << 20)
    smd["large"] = bytes(1 << 20)
    with pytest.raises(ValueError, match="exceeds available storage"):
        for i in range(200):
            smd[i] = bytes(1 << 20)
    assert smd["large"] == bytes(1 << 20)
    smd.shm.close()


def test_many_processes(name: str) -> None:
    """No change is lost, without any lock."""
    smd = SharedMemoryDict(name, 4096)

    def work(number: int) -> None:
        mine = SharedMemoryDict(name, 4096)
        for i in range(200):
            mine[f"{number}-{i}"] = i
        mine.shm.close()

    processes = [context.Process(target=work, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LIMIT)
        assert process.exitcode == 0
    assert len(smd) == 800 and sum(smd.values()) == 4 * sum(range(200))
    smd.shm.close()
