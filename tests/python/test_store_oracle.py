# SPDX-License-Identifier: LGPL-2.1-or-later
"""Random programs of four processes on the same objects, and a search for a serial order that explains them.

Every process notes its operations with what they returned and when they began and ended. All of them are single steps, so
there must be one order of all operations of a round in which none comes before one that had ended when it began, and in
which plain objects give the same results and end in the same state. The search is that of Wing and Gong (1993), depth first, with
the memory of Lowe (2017) of where it has been: how far each process is, and the state.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import operator
import os
import random
import time
from typing import Any, NamedTuple

import ferry
import ferry.store
import pytest

N_PROCESSES = 4
SECONDS = 300 if os.environ.get("FERRY_TEST_THOROUGH") else 7
SLOWER = 10 if os.environ.get("FERRY_TEST_SANITIZED") else 1
BATCH = 50
KINDS = ["list", "dict", "set", "record", "bytearray", "root"]
NAMES = [f"k{i}" for i in range(5)] + ["a longer key 1", "a longer key 2"]
LARGE = "a str that has a block of its own "


class Counters:
    def __init__(self) -> None:
        self.a = 0
        self.b = 0


class UndoError(Exception):
    pass


class Operation(NamedTuple):
    target: int  # which object of the round; -1: a transaction
    call: tuple[Any, ...]
    result: Any
    began: int
    ended: int


# ---- states: what objects are, as something that can be compared and hashed ----


def freeze(obj: Any) -> Any:
    """Return what is in an object, plain or live, or what an operation has returned."""
    if isinstance(obj, (list, ferry.store.List)):
        return ("list", *obj)
    if isinstance(obj, (dict, ferry.store.Dict)):
        return ("dict", *obj.items())
    if isinstance(obj, (set, ferry.store.Set)):
        return "set", frozenset(obj)
    if isinstance(obj, (bytearray, ferry.store.ByteArray)):
        return "bytearray", bytes(obj)
    if isinstance(obj, Counters):
        return ("record", *sorted(vars(obj).items()))
    return obj


def thaw(state: Any) -> Any:
    kind, *rest = state
    if kind == "list":
        return rest
    if kind == "dict":
        return dict(rest)
    if kind == "set":
        return set(rest[0])
    if kind == "bytearray":
        return bytearray(rest[0])
    obj = Counters()
    vars(obj).clear()
    vars(obj).update(rest)
    return obj


# ---- operations: (name, arguments...), of which those that Python has as functions are called as such ----

FUNCTIONS = {
    name: getattr(operator, name)
    for name in ("getitem", "setitem", "delitem", "contains", "eq", "iadd", "imul", "ior", "iand", "isub", "ixor")
}
FUNCTIONS |= {"getattr": getattr, "setattr": setattr, "delattr": delattr, "len": len}


def perform(obj: Any, call: tuple[Any, ...], add: Any) -> Any:
    name, *args = call
    try:
        if name == "plus":
            return add(obj, *args)
        if name in FUNCTIONS:
            result = FUNCTIONS[name](obj, *args)
            return None if result is obj else freeze(result)
        if name == "snapshot":
            if isinstance(obj, ferry.Store):
                return freeze(obj.snapshot())
            return freeze(obj if ferry.store.store_of(obj) is None else ferry.store.snapshot(obj))
        return freeze(getattr(obj, name)(*args))
    except (IndexError, KeyError, ValueError, TypeError, AttributeError) as error:
        return "error", type(error).__name__
    except (RuntimeError, ferry.FerryError) as error:
        return "error", repr(error)  # no plain object does that


def plain_add(obj: Any, key: Any, delta: Any) -> Any:
    if isinstance(obj, Counters):
        setattr(obj, key, getattr(obj, key) + delta)
        return getattr(obj, key)
    obj[key] = obj[key] + delta
    return obj[key]


def explains(obj: Any, call: tuple[Any, ...], result: Any) -> bool:
    """Perform an operation on a plain object and return whether it may give that."""
    if call == ("pop",) and isinstance(obj, set) and obj:
        if not (isinstance(result, (int, str, tuple)) and result in obj):
            return False
        obj.remove(result)
        return True
    if call == ("sort",):
        # A plain list may be half sorted when two elements can't be compared; a live one is as it was.
        copy = list(obj)
        if perform(copy, call, plain_add) != result:
            return False
        if result is None:
            obj[:] = copy
        return True
    return bool(perform(obj, call, plain_add) == result)


def apply(states: tuple[Any, ...], op: Operation) -> tuple[Any, ...] | None:
    """Return the state after an operation, or None if it would have given something else."""
    if op.target >= 0:
        obj = thaw(states[op.target])
        if not explains(obj, op.call, op.result):
            return None
        return *states[: op.target], freeze(obj), *states[op.target + 1 :]
    undo, steps = op.call
    objects = [thaw(state) for state in states]
    for (target, call), result in zip(steps, op.result, strict=True):
        if not explains(objects[target], call, result):
            return None
    return states if undo else tuple(map(freeze, objects))


def find_order(
    initial: tuple[Any, ...], histories: list[list[Operation]], final: tuple[Any, ...]
) -> list[tuple[int, int]] | None:
    """Return a serial order of all operations, as (process, its operation), or None if there is none."""
    lengths = tuple(map(len, histories))
    seen = set()
    todo: list[tuple[tuple[int, ...], tuple[Any, ...], Any]] = [((0,) * len(histories), initial, None)]
    while todo:
        positions, states, path = todo.pop()
        if positions == lengths:
            if states == final:
                order = []
                while path is not None:
                    path, step = path
                    order.append(step)
                return order[::-1]
            continue
        heads = [(who, histories[who][i]) for who, i in enumerate(positions) if i < lengths[who]]
        # Who began after another had ended comes after it.
        first_end = min(op.ended for _, op in heads)
        for who, op in heads:
            if op.began > first_end:
                continue
            after = apply(states, op)
            if after is None:
                continue
            place = (*positions[:who], positions[who] + 1, *positions[who + 1 :])
            if (place, after) not in seen:
                seen.add((place, after))
                todo.append((place, after, (path, (who, positions[who]))))
    return None


# ---- programs ----


def make_value(r: random.Random) -> Any:
    kind = r.randrange(10)
    if kind < 5:
        return r.randrange(6)
    if kind == 5:
        return LARGE + str(r.randrange(3))
    if kind == 6:
        return r.randrange(3), LARGE
    if kind == 7:
        return 1 << 60 | r.randrange(3)
    return f"s{r.randrange(4)}"


def make_values(r: random.Random) -> list[Any]:
    n = r.choice((0, 1, 1, 2, 3, 30))
    return [make_value(r) for _ in range(n)]


def make_items(r: random.Random) -> dict[Any, Any]:
    if r.randrange(8) == 0:
        return {i: i for i in range(12)}
    return {r.choice(NAMES): make_value(r) for _ in range(r.randrange(4))}


def make_delta(r: random.Random) -> Any:
    return r.choice((1, 1, 1, 2, -1, 0.5, 1 << 46, "x"))


def make_list_call(r: random.Random) -> tuple[Any, ...]:
    index = r.randrange(-5, 6)
    part = slice(r.randrange(-4, 6), r.randrange(-2, 9))
    return r.choice(
        (
            lambda: ("append", make_value(r)),
            lambda: ("pop",),
            lambda: ("pop", 0),
            lambda: ("pop", index),
            lambda: ("insert", index, make_value(r)),
            lambda: ("remove", make_value(r)),
            lambda: ("extend", make_values(r)),
            lambda: ("iadd", make_values(r)),
            lambda: ("imul", r.randrange(3)),
            lambda: ("plus", index, make_delta(r)),
            lambda: ("plus", 0, 1),
            lambda: ("getitem", index),
            lambda: ("getitem", part),
            lambda: ("setitem", index, make_value(r)),
            lambda: ("setitem", part, make_values(r)),
            lambda: ("setitem", slice(0, 4, 2), [make_value(r), make_value(r)]),
            lambda: ("delitem", index),
            lambda: ("delitem", part),
            lambda: ("delitem", slice(None, None, 2)),
            lambda: ("reverse",),
            lambda: ("clear",),
            lambda: ("index", make_value(r)),
            lambda: ("count", make_value(r)),
            lambda: ("contains", make_value(r)),
            lambda: ("sort",),
            lambda: ("len",),
            lambda: ("copy",),
            lambda: ("snapshot",),
        )
    )()


def make_key(r: random.Random) -> Any:
    return r.choice(NAMES) if r.randrange(5) else r.randrange(3)


def make_dict_call(r: random.Random) -> tuple[Any, ...]:
    return r.choice(
        (
            lambda: ("getitem", make_key(r)),
            lambda: ("setitem", make_key(r), make_value(r)),
            lambda: ("setitem", make_key(r), make_value(r)),
            lambda: ("delitem", make_key(r)),
            lambda: ("get", make_key(r), 7),
            lambda: ("pop", make_key(r)),
            lambda: ("pop", make_key(r), None),
            lambda: ("popitem",),
            lambda: ("setdefault", make_key(r), make_value(r)),
            lambda: ("setdefault", "k0", make_value(r)),
            lambda: ("update", make_items(r)),
            lambda: ("ior", make_items(r)),
            lambda: ("plus", make_key(r), make_delta(r)),
            lambda: ("plus", "k0", 1),
            lambda: ("contains", make_key(r)),
            lambda: ("len",),
            lambda: ("clear",),
            lambda: ("eq", make_items(r)),
            lambda: ("copy",),
            lambda: ("snapshot",),
        )
    )()


def make_set_call(r: random.Random) -> tuple[Any, ...]:
    return r.choice(
        (
            lambda: ("add", make_value(r)),
            lambda: ("add", make_value(r)),
            lambda: ("discard", make_value(r)),
            lambda: ("remove", make_value(r)),
            lambda: ("pop",),
            lambda: ("update", make_values(r), make_values(r)),
            lambda: ("ior", set(make_values(r))),
            lambda: ("iand", set(make_values(r))),
            lambda: ("isub", set(make_values(r))),
            lambda: ("ixor", set(make_values(r))),
            lambda: ("intersection_update", make_values(r)),
            lambda: ("difference_update", make_values(r)),
            lambda: ("symmetric_difference_update", make_values(r)),
            lambda: ("union", make_values(r)),
            lambda: ("issubset", make_values(r)),
            lambda: ("contains", make_value(r)),
            lambda: ("len",),
            lambda: ("clear",),
            lambda: ("copy",),
            lambda: ("snapshot",),
        )
    )()


def make_record_call(r: random.Random) -> tuple[Any, ...]:
    name = r.choice("aabx")
    return r.choice(
        (
            lambda: ("getattr", name),
            lambda: ("setattr", name, make_value(r)),
            lambda: ("delattr", name),
            lambda: ("plus", name, make_delta(r)),
            lambda: ("plus", "a", 1),
        )
    )()


def make_bytearray_call(r: random.Random) -> tuple[Any, ...]:
    index = r.randrange(-5, 6)
    part = slice(r.randrange(-4, 6), r.randrange(-2, 9))
    data = bytes([65 + r.randrange(4)]) * r.choice((0, 1, 2, 5, 100))
    return r.choice(
        (
            lambda: ("append", 65 + r.randrange(4)),
            lambda: ("extend", data),
            lambda: ("iadd", data),
            lambda: ("pop",),
            lambda: ("pop", 0),
            lambda: ("insert", index, 70),
            lambda: ("remove", 65 + r.randrange(4)),
            lambda: ("getitem", index),
            lambda: ("getitem", part),
            lambda: ("setitem", index, 71),
            lambda: ("setitem", part, data),
            lambda: ("delitem", part),
            lambda: ("find", data[:2]),
            lambda: ("reverse",),
            lambda: ("clear",),
            lambda: ("len",),
            lambda: ("snapshot",),
        )
    )()


def make_root_call(r: random.Random) -> tuple[Any, ...]:
    name = r.choice(NAMES)
    return r.choice(
        (
            lambda: ("getitem", name),
            lambda: ("setitem", name, make_value(r)),
            lambda: ("setitem", name, make_value(r)),
            lambda: ("delitem", name),
            lambda: ("get", name, 7),
            lambda: ("pop", name),
            lambda: ("pop", name, None),
            lambda: ("popitem",),
            lambda: ("setdefault", name, make_value(r)),
            lambda: ("update", {r.choice(NAMES): make_value(r) for _ in range(r.randrange(4))}),
            lambda: ("plus", name, make_delta(r)),
            lambda: ("plus", "k0", 1),
            lambda: ("contains", name),
            lambda: ("len",),
            lambda: ("clear",),
            lambda: ("snapshot",),
        )
    )()


MAKERS = {
    "list": make_list_call,
    "dict": make_dict_call,
    "set": make_set_call,
    "record": make_record_call,
    "bytearray": make_bytearray_call,
    "root": make_root_call,
}


def make_initial(r: random.Random, kind: str) -> Any:
    if kind == "list":
        return [make_value(r) for _ in range(r.choice((0, 1, 3, 8, 40)))]
    if kind == "dict":
        return make_items(r) | ({"k0": 0} if r.randrange(2) else {})
    if kind == "set":
        return set(make_values(r))
    if kind == "record":
        return Counters()
    if kind == "bytearray":
        return bytearray(b"A" * r.choice((0, 1, 5, 200)))
    return {r.choice(NAMES): make_value(r) for _ in range(r.randrange(4))}


class Round:
    """What happens in a round, the same in every process that knows the seed."""

    def __init__(self, seed: str) -> None:
        r = random.Random(seed)
        self.kinds = [r.choice(KINDS)]
        while self.kinds[0] != "root" and r.randrange(3) == 0 and len(self.kinds) < 3:
            self.kinds.append(r.choice(KINDS[:-1]))
        self.initial = [make_initial(r, kind) for kind in self.kinds]
        self.programs = [self._make_program(r) for _ in range(N_PROCESSES)]
        self.pauses = [[r.random() < 0.4 for _ in program] for program in self.programs]

    def _make_step(self, r: random.Random) -> tuple[int, tuple[Any, ...]]:
        target = r.randrange(len(self.kinds))
        return target, MAKERS[self.kinds[target]](r)

    def _make_program(self, r: random.Random) -> list[tuple[int, tuple[Any, ...]]]:
        program: list[tuple[int, tuple[Any, ...]]] = []
        for _ in range(r.choice((5, 6))):
            if r.random() < 0.15:
                steps = [self._make_step(r) for _ in range(r.randrange(2, 5))]
                program.append((-1, (r.random() < 0.3, steps)))
            else:
                program.append(self._make_step(r))
        return program


# ---- the processes ----


def torn_add(obj: Any, key: Any, delta: Any) -> Any:
    """Add as it must not be: others come in between."""
    if isinstance(obj, Counters):
        value = getattr(obj, key) + delta
        os.sched_yield()
        setattr(obj, key, value)
        return value
    value = obj[key] + delta
    os.sched_yield()
    obj[key] = value
    return value


def perform_live(store: ferry.Store, objects: list[Any], target: int, call: Any, add: Any) -> Any:
    if target >= 0:
        return perform(objects[target], call, add)
    undo, steps = call
    results = []
    try:
        with store.transaction():
            for inner, inner_call in steps:
                results.append(perform(objects[inner], inner_call, add))
            if undo:
                raise UndoError
    except UndoError:
        pass
    return results


def meet(turns: Any, who: int, turn: int) -> None:
    """Wait until all have come here; without sleeping, or they would not run at the same time afterwards."""
    turns[who] = turn
    deadline = time.monotonic() + 20
    while min(turns) < turn:
        os.sched_yield()
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {who} waits for turn {turn}, the others are at {list(turns)}")


def work(name: str, who: int, shared: Any, pipe: Any, torn: bool) -> None:
    faulthandler.enable()
    turns = memoryview(shared).cast("B").cast("Q")
    turn = 0
    with ferry.Store(name) as store, ferry.Store(name + "-root") as roots:
        while (seed := pipe.recv()) is not None:
            logs = []
            for i in range(BATCH):
                game = Round(f"{seed}-{i}")
                is_root = game.kinds[0] == "root"
                if who == 0 and is_root:
                    roots.clear()
                    roots.update(game.initial[0])
                elif who == 0:
                    store["objects"] = game.initial
                turn += 1
                meet(turns, who, turn)
                objects = [roots] if is_root else list(store["objects"])
                home = roots if is_root else store
                add = torn_add if torn else home.add
                turn += 1
                meet(turns, who, turn)
                log = []
                for (target, call), pause in zip(game.programs[who], game.pauses[who]):
                    if pause:
                        os.sched_yield()
                    began = time.monotonic_ns()
                    result = perform_live(home, objects, target, call, add)
                    log.append((result, began, time.monotonic_ns()))
                turn += 1
                meet(turns, who, turn)
                final = None
                if who == 0:
                    final = [freeze(roots.snapshot())] if is_root else [freeze(obj) for obj in objects]
                logs.append((log, final))
            pipe.send(logs)


class Crew:
    """Four processes that run rounds."""

    def __init__(self, name: str, torn: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        shared = context.RawArray("Q", N_PROCESSES)
        self.pipes = []
        self.processes = []
        for who in range(N_PROCESSES):
            here, there = context.Pipe()
            process = context.Process(target=work, args=(name, who, shared, there, torn), daemon=True)
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is None:
            for pipe in self.pipes:
                pipe.send(None)
        for process in self.processes:
            if exc[0] is None:
                process.join(60)
            alive = process.exitcode is None
            if alive:
                process.kill()
                process.join()
            assert exc[0] is not None or (not alive and process.exitcode == 0)

    def run(self, seed: str) -> list[tuple[Round, list[list[Operation]], tuple[Any, ...]]]:
        """Return BATCH rounds: what it was, what each process noted, what the objects were in the end."""
        for pipe in self.pipes:
            pipe.send(seed)
        answers = []
        for pipe in self.pipes:
            assert pipe.poll(90), "a process hangs"
            answers.append(pipe.recv())
        rounds = []
        for i in range(BATCH):
            game = Round(f"{seed}-{i}")
            histories = [
                [Operation(*step, *noted) for step, noted in zip(program, answer[i][0], strict=True)]
                for program, answer in zip(game.programs, answers)
            ]
            rounds.append((game, histories, tuple(answers[0][i][1])))
        return rounds


def count_overlaps(histories: list[list[Operation]]) -> int:
    ops = sorted((op.began, op.ended) for history in histories for op in history)
    return sum(after[0] <= before[1] for before, after in zip(ops, ops[1:]))


def describe(game: Round, histories: list[list[Operation]], final: tuple[Any, ...]) -> str:
    start = min(op.began for history in histories for op in history)
    lines = [f"from {game.initial}"]
    lines += [
        f"  {op.began - start:8} to {op.ended - start:8} process {who}: object {op.target} {op.call} -> {op.result!r}"
        for op, who in sorted(((op, who) for who, history in enumerate(histories) for op in history), key=lambda x: x[0][3])
    ]
    return "\n".join([*lines, f"to {final}"])


def test_there_is_a_serial_order() -> None:
    seed = os.environ.get("FERRY_TEST_SEED") or str(random.randrange(10**6))
    print("FERRY_TEST_SEED:", seed)
    name = f"oracle-{os.getpid()}"
    n_rounds = n_overlaps = 0
    with ferry.Store(name) as store, ferry.Store(name + "-root") as roots, Crew(name) as crew:
        end = time.monotonic() + SECONDS
        while n_rounds == 0 or time.monotonic() < end:
            for game, histories, final in crew.run(f"{seed}-{n_rounds}"):
                initial = tuple(map(freeze, game.initial))
                order = find_order(initial, histories, final)
                assert order is not None, "no serial order explains this:\n" + describe(game, histories, final)
                n_overlaps += count_overlaps(histories)
                n_rounds += 1
        print(n_rounds, "rounds,", n_overlaps, "operations began while another went on")
        store.verify()
        roots.verify()
    assert n_overlaps > 0 or os.cpu_count() == 1


def test_additions_that_are_no_steps_are_found() -> None:
    """The whole of it, with one operation that is two."""
    name = f"oracle-torn-{os.getpid()}"
    with ferry.Store(name), ferry.Store(name + "-root"), Crew(name, torn=True) as crew:
        end = time.monotonic() + 60
        n = 0
        while True:
            n += 1
            rounds = crew.run(f"torn-{n}")
            if any(find_order(tuple(map(freeze, game.initial)), *rest) is None for game, *rest in rounds):
                break
            assert time.monotonic() < end, "torn additions are not found"


# ---- what this has found ----


def store_defaults(name: str) -> None:
    with ferry.Store(name) as store:
        shared = store["shared"]
        for value in (["a list"], ("a tuple", LARGE), LARGE, {"a": [1]}, (1, [2])):
            for _ in range(1500 // SLOWER):
                assert shared.setdefault("key", value) == value or shared.get("key") != value
                shared.pop("key", None)


def test_setdefault_does_not_lose_what_it_stores() -> None:
    context = multiprocessing.get_context("spawn")
    with ferry.Store(f"oracle-default-{os.getpid()}") as store:
        store["shared"] = {}
        processes = [context.Process(target=store_defaults, args=(store.name,)) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            process.kill()
            assert process.exitcode == 0
        store.verify()


def empty_a_set(name: str) -> None:
    with ferry.Store(name) as store:
        store["set"] &= {2}  # the first thing that this process does


def test_a_set_that_becomes_empty() -> None:
    with ferry.Store(f"oracle-empty-{os.getpid()}") as store:
        store["set"] = {1}
        process = multiprocessing.get_context("spawn").Process(target=empty_a_set, args=(store.name,))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert store["set"] == set()


# ---- the search itself ----


def op(call: tuple[Any, ...], result: Any, began: int, ended: int, target: int = 0) -> Operation:
    return Operation(target, call, result, began, ended)


def is_explained(initial: list[Any], histories: list[list[Operation]], final: list[Any]) -> bool:
    return find_order(tuple(map(freeze, initial)), histories, tuple(map(freeze, final))) is not None


def test_right_histories_are_accepted() -> None:
    assert is_explained([[]], [], [[]])
    # The second to begin comes first.
    assert is_explained([[]], [[op(("append", 1), None, 0, 10)], [op(("append", 2), None, 1, 9)]], [[2, 1]])
    assert is_explained([[0]], [[op(("plus", 0, 1), 2, 0, 10)], [op(("plus", 0, 1), 1, 5, 9)]], [[2]])
    # Any element may come out of a set.
    for value in (1, 2):
        assert is_explained([{1, 2}], [[op(("pop",), value, 0, 1)]], [{3 - value}])
    assert is_explained([set()], [[op(("pop",), ("error", "KeyError"), 0, 1)]], [set()])
    undone = Operation(-1, (True, [(0, ("append", 1)), (1, ("setitem", "a", 1))]), [None, None], 0, 1)
    assert is_explained([[], {}], [[undone]], [[], {}])
    done = undone._replace(call=(False, undone.call[1]))
    assert is_explained([[], {}], [[done]], [[1], {"a": 1}])


@pytest.mark.parametrize(
    ("initial", "histories", "final"),
    [
        pytest.param([[]], [[op(("append", 1), None, 0, 1)]], [[2]], id="another end"),
        pytest.param(
            [[0]], [[op(("plus", 0, 1), 1, 0, 9)], [op(("plus", 0, 1), 1, 0, 9)]], [[1]], id="a lost addition"
        ),
        pytest.param(
            [[5]], [[op(("pop",), 5, 0, 9)], [op(("pop",), 5, 0, 9)]], [[]], id="an element that came out twice"
        ),
        pytest.param(
            [{}],
            [[op(("setitem", "a", 1), None, 0, 1)], [op(("get", "a", 7), 7, 2, 3)]],
            [{"a": 1}],
            id="a reader that is late",
        ),
        pytest.param(
            [{}],
            [[op(("update", {"a": 1, "b": 1}), None, 0, 9)], [op(("snapshot",), ("dict", ("a", 1)), 0, 9)]],
            [{"a": 1, "b": 1}],
            id="half an update",
        ),
        pytest.param(
            [[], []],
            [
                [Operation(-1, (False, [(0, ("append", 1)), (1, ("append", 1))]), [None, None], 0, 9)],
                [op(("len",), 1, 0, 4), op(("len",), 0, 5, 9, target=1)],
            ],
            [[1], [1]],
            id="half a transaction",
        ),
        pytest.param(
            [[]],
            [
                [Operation(-1, (True, [(0, ("append", 1))]), [None], 0, 9)],
                [op(("len",), 1, 0, 9)],
            ],
            [[]],
            id="what was undone",
        ),
        pytest.param([{1}], [[op(("pop",), 2, 0, 1)]], [{1}], id="an element that was not there"),
        pytest.param(
            [{}],
            [[op(("setitem", "a", 1), None, 0, 1)], [op(("setitem", "b", 1), None, 2, 3)]],
            [{"b": 1, "a": 1}],
            id="another order of keys",
        ),
    ],
)
def test_wrong_histories_are_rejected(
    initial: list[Any], histories: list[list[Operation]], final: list[Any]
) -> None:
    assert not is_explained(initial, histories, final)
