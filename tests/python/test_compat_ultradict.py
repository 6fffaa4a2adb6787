# SPDX-License-Identifier: LGPL-2.1-or-later
"""`ferry.compat.ultradict`: what UltraDict documents."""

from __future__ import annotations

import json
import marshal
import multiprocessing
import os
import pickle
import secrets
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from ferry.compat.ultradict import UltraDict

LIMIT = 30  # seconds: nothing here takes that long
context = multiprocessing.get_context("fork")


@pytest.fixture
def name() -> str:
    return f"ultra-{os.getpid()}-{secrets.token_hex(4)}"


def run(code: str, *arguments: str) -> str:
    """Run a program that is no child of a fork; return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", "import sys; from ferry.compat.ultradict import UltraDict\n" + code, *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_documented_example() -> None:
    ultra = UltraDict({1: 1}, some_key="some_value")
    assert repr(ultra) == "{1: 1, 'some_key': 'some_value'}"
    output = run("other = UltraDict(name=sys.argv[1]); print(other); other[2] = 2", ultra.name)
    assert output == "{1: 1, 'some_key': 'some_value'}\n"
    assert ultra[2] == 2
    ultra.close()


def test_documented_nested_example() -> None:
    ultra = UltraDict(recurse=True)
    ultra["nested"] = {"counter": 0, "deeper": {"list": [1]}}
    assert type(ultra["nested"]) is UltraDict and type(ultra["nested"]["deeper"]) is UltraDict
    run("UltraDict(name=sys.argv[1])['nested']['counter'] += 1", ultra.name)
    assert ultra["nested"]["counter"] == 1
    nested = ultra["nested"]
    nested["deeper"]["new"] = {}
    nested["deeper"]["new"]["x"] = 5
    assert ultra["nested"] == {"counter": 1, "deeper": {"list": [1], "new": {"x": 5}}}
    assert type(ultra["nested"]["deeper"]["list"]) is list
    ultra["same"] = nested
    nested["counter"] = 7
    assert ultra["same"]["counter"] == 7
    ultra.close()
    with pytest.raises(UltraDict.Exceptions.AlreadyClosed):
        nested["counter"]  # noqa: B018


def test_values_are_copies() -> None:
    """Without recurse what comes out is plain."""
    with UltraDict(config={"a": [1]}) as ultra:
        config = ultra["config"]
        assert type(config) is dict and json.dumps(config) == '{"a": [1]}'
        config["a"].append(2)
        assert ultra["config"] == {"a": [1]} and ultra.get("none", 5) == 5


def test_dict_methods() -> None:
    with UltraDict({"a": 1, "b": [2]}) as ultra:
        assert list(ultra) == ["a", "b"] and list(reversed(ultra)) == ["b", "a"] and len(ultra) == 2
        assert "a" in ultra and ultra.has_key("b") and "c" not in ultra
        assert list(ultra.keys()) == ["a", "b"] and list(ultra.values()) == [1, [2]]
        assert list(ultra.items()) == [("a", 1), ("b", [2])]
        assert ultra == {"a": 1, "b": [2]} and ultra != {} and ultra == UltraDict({"a": 1, "b": [2]})
        assert ultra | {"c": 3} == {"a": 1, "b": [2], "c": 3} and {"a": 0} | ultra == {"a": 1, "b": [2]}
        ultra |= {"c": 3}
        assert type(ultra) is UltraDict and ultra.pop("c") == 3 and ultra.pop("c", 4) == 4
        with pytest.raises(KeyError):
            ultra.pop("c")
        with pytest.raises(KeyError):
            ultra["c"]
        with pytest.raises(KeyError):
            del ultra["c"]
        ultra.update([("d", 4)], e=5)
        ultra.update({"f": 6})
        assert ultra.popitem() == ("f", 6) and ultra.setdefault("g", [7]) == [7] and ultra.setdefault("a", 0) == 1
        del ultra["a"]
        assert ultra.copy() == {"b": [2], "d": 4, "e": 5, "g": [7]} and type(ultra.copy()) is dict
        assert ultra.data == ultra.copy()
        for call in (ultra.dump, ultra.load, ultra.apply_update, ultra.print_status):
            call()
        assert ultra.status()["name"] == ultra.name
        ultra.clear()
        assert not ultra and repr(ultra) == "{}"
    keyed = UltraDict.fromkeys([1, (2, 3)], 0)
    assert keyed == {1: 0, (2, 3): 0}


def test_create(name: str) -> None:
    with pytest.raises(UltraDict.Exceptions.CannotAttachSharedMemory, match=name):
        UltraDict(name=name, create=False)
    first = UltraDict(name=name, create=True)
    with pytest.raises(UltraDict.Exceptions.AlreadyExists, match=name):
        UltraDict(name=name, create=True)
    second = UltraDict({"a": 1}, name=name)
    assert first["a"] == 1
    for wrong in ({"shared_lock": True}, {"recurse": True}):
        with pytest.raises(UltraDict.Exceptions.ParameterMismatch, match=next(iter(wrong))):
            UltraDict(name=name, **wrong)
    assert second.close() == {"a": 1} and first["a"] == 1
    assert first.auto_unlink and not second.auto_unlink
    first.close()
    with pytest.raises(UltraDict.Exceptions.AlreadyClosed, match=name):
        first["a"]  # noqa: B018
    assert first.data == {"a": 1} and first.close() is None


def test_unlink(name: str) -> None:
    first = UltraDict({"a": 1}, name=name)
    second = UltraDict(name=name)
    first.unlink()
    with pytest.raises(UltraDict.Exceptions.CannotAttachSharedMemory):
        UltraDict(name=name, create=False)
    third = UltraDict(name=name)
    assert third == {} and second == {"a": 1}
    third["b"] = 2
    assert "b" not in second
    assert UltraDict.unlink_by_name(name) and not UltraDict.unlink_by_name(name, ignore_errors=True)
    with pytest.raises(UltraDict.Exceptions.CannotAttachSharedMemory):
        UltraDict.unlink_by_name(name)
    second.close()
    third.close()


def test_serializer(name: str) -> None:
    with UltraDict({"a": [1]}, name=name, serializer=marshal) as ultra:
        with UltraDict(name=name, serializer=marshal) as other:
            assert other["a"] == [1] and other == {"a": [1]} and list(other.items()) == [("a", [1])]
        with pytest.raises(ValueError, match="unmarshallable"):
            ultra["b"] = object()
    with pytest.raises(ValueError, match="recurse"):
        UltraDict(recurse=True, serializer=marshal)


def test_pickled(name: str) -> None:
    with UltraDict({"a": {"b": 1}}, name=name, recurse=True) as ultra:
        other = pickle.loads(pickle.dumps(ultra))
        nested = pickle.loads(pickle.dumps(ultra["a"]))
        nested["b"] = 2
        assert other["a"]["b"] == ultra["a"]["b"] == 2
        other.close()
        assert ultra["a"]["b"] == 2
        process = multiprocessing.get_context("spawn").Process(target=_set, args=(ultra,))
        process.start()
        process.join(LIMIT)
        assert process.exitcode == 0 and ultra["set"] == 1


def _set(ultra: UltraDict) -> None:
    ultra["set"] = 1


@pytest.mark.parametrize("shared_lock", [False, True])
def test_lock_between_processes(shared_lock: bool) -> None:
    ultra = UltraDict({"counter": 0}, shared_lock=shared_lock)

    def count() -> None:
        for _ in range(100):
            with ultra.lock, ultra.lock:
                ultra["counter"] += 1

    threads = [threading.Thread(target=count) for _ in range(2)]
    processes = [context.Process(target=count) for _ in range(3)]
    for each in (*processes, *threads):
        each.start()
    for each in (*processes, *threads):
        each.join(LIMIT)
    assert ultra["counter"] == 500 and ultra.lock.get_remote_lock() == 0
    ultra.close()


def test_lock_arguments(name: str) -> None:
    ultra, other = UltraDict(name=name, shared_lock=True), UltraDict(name=name)
    assert other.shared_lock
    with ultra.lock(timeout=1.5, block=True, steal=False, sleep_time=0.000001) as lock:
        assert lock.has_lock == 1 and other.lock.get_remote_pid() == os.getpid() and lock.status()["pid"] == os.getpid()
        with pytest.raises(UltraDict.Exceptions.CannotAcquireLock) as error:
            other.lock.acquire(block=False)
        assert error.value.blocking_pid == os.getpid() and not hasattr(error.value, "time_passed")
        with pytest.raises(UltraDict.Exceptions.CannotAcquireLockTimeout) as timed_out, other.lock(timeout=0.05):
            pass
        assert timed_out.value.time_passed >= 0.05
    assert other.lock.acquire(block=False) and other.lock.release() and not other.lock.release()
    ultra.close()
    other.close()
    with UltraDict() as plain:
        assert plain.lock.acquire() and plain.lock.release()
        with pytest.raises(AssertionError):
            plain.lock.release()


@pytest.mark.parametrize("steal", [False, True])
def test_lock_of_a_killed_process(steal: bool) -> None:
    ultra = UltraDict(shared_lock=True)
    ready = context.Event()

    def hold() -> None:
        ultra.lock.acquire()
        ready.set()
        time.sleep(LIMIT)

    process = context.Process(target=hold)
    process.start()
    assert ready.wait(LIMIT)
    with pytest.raises(UltraDict.Exceptions.CannotAcquireLockTimeout) as error:
        ultra.lock.acquire(timeout=0.1, steal_after_timeout=steal)
    assert error.value.blocking_pid == process.pid
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    began = time.monotonic()
    with ultra.lock(timeout=LIMIT, steal_after_timeout=steal):
        assert time.monotonic() - began < 1
    ultra.close()


def test_iteration_while_others_change(name: str) -> None:
    with UltraDict(name=name) as ultra:
        process = context.Process(target=_change, args=(name,))
        process.start()
        while process.is_alive():
            assert sum(ultra.values()) >= 0 and len(list(ultra.items())) >= 0 and isinstance(ultra.copy(), dict)
        process.join()
        assert process.exitcode == 0


def _change(name: str) -> None:
    with UltraDict(name=name) as ultra:
        for i in range(3000):
            ultra[i % 100] = i
            ultra.pop((i * 7) % 100, None)


def test_large_values() -> None:
    """What does not fit into the buffer there."""
    with UltraDict(buffer_size=1000) as ultra:
        ultra[0] = " " * 1_000_000
        value: Any = ultra[0]
        assert value == " " * 1_000_000
