# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several processes and threads change the same objects at random, while some of them are killed."""

from __future__ import annotations

import dataclasses
import faulthandler
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import traceback

import ferry
import ferry.store
import pytest

KEYS = "abcdef"
#: What may well happen when others change what one looks at.
EXPECTED = (IndexError, KeyError, AttributeError, RuntimeError)


@dataclasses.dataclass
class Node:
    x: int
    y: object = None


class UndoError(Exception):
    pass


def make_value(r, store, depth=0):
    kind = r.randrange(12)
    if kind < 4:
        return r.randrange(1000)
    if kind == 4:
        return "x" * r.randrange(40)
    if kind == 5:
        return r.random()
    if kind == 6:
        return 1, "abcdefgh" * r.randrange(3), r.randrange(9)
    if kind == 7:
        return store.get(r.choice(KEYS))
    if depth > 2:
        return None
    if kind == 8:
        return [make_value(r, store, depth + 1) for _ in range(r.randrange(4))]
    if kind == 9:
        return {r.randrange(5): make_value(r, store, depth + 1) for _ in range(r.randrange(4))}
    if kind == 10:
        return Node(1, make_value(r, store, depth + 1))
    return {1, "ab", r.randrange(100)}


def change_list(r, store, it):
    kind = r.randrange(9)
    if kind < 3:
        it.append(make_value(r, store))
    elif kind == 3:
        it.pop(r.randrange(len(it) + 1))
    elif kind == 4:
        it[r.randrange(5) : r.randrange(8)] = [make_value(r, store) for _ in range(r.randrange(3))]
    elif kind == 5:
        it.reverse()
    elif kind == 6:
        assert len(list(it)) >= 0 and len(it[:3]) <= 3
    elif kind == 7:
        if len(it) > 30:
            it.clear()
    else:
        it[r.randrange(len(it) + 1)] = make_value(r, store)


def change_dict(r, store, it):
    kind = r.randrange(6)
    if kind < 3:
        it[r.randrange(30)] = make_value(r, store)
    elif kind == 3:
        it.pop(r.randrange(30), None)
    elif kind == 4:
        it.update({f"k{r.randrange(9)}": make_value(r, store), "z": 1})
    else:
        it.copy()


def change(r, store):
    key = r.choice(KEYS)
    it = store.get(key)
    if it is None or r.randrange(10) == 0:
        store[key] = r.choice(([], {}, Node(0, []), set(), bytearray(b"x")))
    elif isinstance(it, ferry.store.List):
        change_list(r, store, it)
    elif isinstance(it, ferry.store.Dict):
        change_dict(r, store, it)
    elif isinstance(it, ferry.store.Set):
        (it.add if r.random() < 0.6 else it.discard)(r.randrange(50))
        it |= {1, 2}
    elif isinstance(it, Node):
        it.x += 1
        it.y = make_value(r, store)
        setattr(it, f"n{r.randrange(3)}", 1)
    elif isinstance(it, ferry.store.ByteArray):
        it.extend(b"abc")
        if len(it) > 100:
            it.clear()


def work(name, seed, seconds, n_threads):
    faulthandler.enable()
    store = ferry.Store(name)
    end = time.monotonic() + seconds

    def run(seed):
        r = random.Random(seed)
        while time.monotonic() < end:
            try:
                if r.random() < 0.05:
                    with store.transaction():
                        for _ in range(5):
                            change(r, store)
                        if r.random() < 0.3:
                            raise UndoError
                elif r.random() < 0.005:
                    store.collect()
                else:
                    change(r, store)
            except UndoError:
                pass
            except BaseException as error:
                if isinstance(error, EXPECTED) and not isinstance(error, ferry.FerryError):
                    continue
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(3)

    threads = [threading.Thread(target=run, args=(seed * 100 + i,)) for i in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("kills", [False, True], ids=["alive", "killed"])
def test_chaos(kills):
    context = multiprocessing.get_context("spawn")
    seconds = 6
    seed = random.randrange(1000)
    print("seed", seed)

    def begin(left):
        nonlocal seed
        seed += 1
        process = context.Process(target=work, args=(store.name, seed, left, 1 + seed % 2))
        process.start()
        return process

    with ferry.Store(f"chaos-{os.getpid()}-{kills}") as store:
        empty = store.bytes_used
        processes = [begin(seconds) for _ in range(4)]
        end = time.monotonic() + seconds
        while kills and time.monotonic() < end - 2:
            time.sleep(0.6 + random.random() / 2)
            victim = processes.pop(0)
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
            processes.append(begin(end - time.monotonic()))
        for process in processes:
            process.join(60)
            alive = process.exitcode is None
            if alive:
                process.kill()
            assert not alive, "a process hangs"
            assert process.exitcode == 0
        store.collect()
        store.verify()
        plain = store.snapshot()
        assert set(plain) <= set(KEYS)
        del plain
        store.clear()
        store.collect()
        store.verify()
        # The classes of instances stay described.
        assert store.bytes_used - empty < 16384
