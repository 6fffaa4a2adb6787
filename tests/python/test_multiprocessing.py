# SPDX-License-Identifier: LGPL-2.1-or-later
"""`ferry.multiprocessing`: what is Ferry's, what is the standard library's, and that it leaves nothing behind.

What the standard library demands of its queues, pipes and pools is in test_multiprocessing_standard.py.
"""

from __future__ import annotations

import gc
import multiprocessing as standard
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor

import ferry
import pytest
from ferry import multiprocessing as mp
from ferry.multiprocessing import _arguments

numpy = pytest.importorskip("numpy")

PATIENCE = 30
#: In bytes: no pipe takes that much.
LARGE = 1 << 22


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request):
    return mp.get_context(request.param)


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---- the module ----


def test_everything_of_the_standard_module_is_there():
    assert set(standard.__all__) <= set(dir(mp))
    for name in standard.__all__:
        assert callable(getattr(mp, name)) == callable(getattr(standard, name))
    for name in ("TimeoutError", "ProcessError", "BufferTooShort", "AuthenticationError"):
        assert getattr(mp, name) is getattr(standard, name)
    assert mp.SUBDEBUG == standard.SUBDEBUG
    with pytest.raises(AttributeError, match="ferry.multiprocessing"):
        mp.no_such_thing  # noqa: B018


def test_import_forms():
    program = (
        "import ferry.multiprocessing\n"
        "from ferry.multiprocessing import Process, Queue, shared_memory, managers\n"
        "from ferry.multiprocessing.pool import Pool, ThreadPool\n"
        "from ferry.multiprocessing.shared_memory import SharedMemory\n"
        "import ferry.multiprocessing.synchronize, ferry.multiprocessing.dummy.connection\n"
        "import multiprocessing.shared_memory, multiprocessing.dummy, multiprocessing.pool\n"
        "mp = ferry.multiprocessing\n"
        "assert mp.shared_memory is shared_memory is multiprocessing.shared_memory\n"
        "assert mp.dummy is multiprocessing.dummy and mp.dummy.__spec__.name == 'multiprocessing.dummy'\n"
        "assert ThreadPool is multiprocessing.pool.ThreadPool and Pool is mp.pool.Pool\n"
        "assert mp.connection.wait is multiprocessing.connection.wait\n"
        "assert mp.queues.Empty and mp.process.current_process and mp.reduction.ForkingPickler\n"
        "from ferry.multiprocessing import *\n"
        "assert cpu_count() >= 1 and not hasattr(mp, 'nothing')\n"
        "try:\n"
        "    import ferry.multiprocessing.nothing\n"
        "except ModuleNotFoundError as error:\n"
        "    assert error.name == 'ferry.multiprocessing.nothing'\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_standard_module_stays_as_it_is():
    program = (
        "import multiprocessing, multiprocessing.queues, multiprocessing.reduction as reduction\n"
        "before = multiprocessing.Queue, multiprocessing.Process, dict(reduction.ForkingPickler._extra_reducers)\n"
        "from ferry import multiprocessing as mp\n"
        "mp.Queue(); mp.Pipe(); mp.SimpleQueue()\n"
        "assert before == (multiprocessing.Queue, multiprocessing.Process, reduction.ForkingPickler._extra_reducers)\n"
        "assert type(multiprocessing.Queue()) is multiprocessing.queues.Queue\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)


def test_classes(context):
    for ours, kind, theirs in (
        (context.Queue(3), ferry.Queue, standard.queues.Queue),
        (context.JoinableQueue(), ferry.JoinableQueue, standard.queues.JoinableQueue),
        (context.SimpleQueue(), mp.queues.SimpleQueue, standard.queues.SimpleQueue),
        (context.Pipe()[0], ferry.Connection, standard.connection.Connection),
        (context.Process(), standard.process.BaseProcess, getattr(standard.context, type(context.Process()).__name__)),
        (mp.Process(), mp.Process, standard.Process),
        (context, mp.context.BaseContext, type(standard.get_context(context.get_start_method()))),
    ):
        assert isinstance(ours, kind) and isinstance(ours, theirs)
    assert isinstance(context.JoinableQueue(), mp.queues.Queue)
    assert context.Lock().acquire() and context.Value("i", 3).value == 3


def test_contexts(context):
    name = context.get_start_method()
    assert pickle.loads(pickle.dumps(context)) is context is mp.get_context(name)
    default = mp.context._default_context
    assert pickle.loads(pickle.dumps(default)) is default
    assert context.get_context() is context and mp.get_all_start_methods() == standard.get_all_start_methods()
    with pytest.raises(ValueError):
        context.set_start_method("spawn")
    with pytest.raises(ValueError):
        mp.get_context("nothing")


def test_start_method_is_shared_with_the_standard_module():
    before = standard.get_start_method(allow_none=True)
    try:
        mp.set_start_method("spawn", force=True)
        assert standard.get_start_method() == mp.get_start_method() == "spawn"
        assert mp.get_context() is mp.get_context("spawn")
        with pytest.raises(RuntimeError):
            mp.set_start_method("fork")
        standard.set_start_method("forkserver", force=True)
        assert mp.get_start_method() == "forkserver"
    finally:
        mp.set_start_method(before, force=True)


def test_managers_are_the_standard_ones(context):
    with context.Manager() as manager:
        shared = manager.dict(a=1)
        q = manager.Queue()
        q.put(shared["a"])
        assert q.get() == 1


# ---- queues and pipes ----


def fill(q, connection):
    for i in range(3):
        q.put(numpy.full(LARGE // 8, i))
    connection.send({"done": numpy.ones(LARGE // 8)})
    connection.close()


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_arrays_arrive_as_writable_views(context, kind):
    q = getattr(context, kind)()
    here, there = context.Pipe()
    process = context.Process(target=fill, args=(q, there))
    process.start()
    there.close()
    for i in range(3):
        array = q.get()
        assert (array == i).all() and array.flags.writeable and not array.flags.owndata
    array = here.recv()["done"]
    assert array.sum() == LARGE // 8 and array.flags.writeable
    with pytest.raises(EOFError):
        here.recv()
    process.join(PATIENCE)
    assert process.exitcode == 0


def test_simple_queue_tells_the_end(context):
    q = context.SimpleQueue()
    process = context.Process(target=q.put, args=("last",))
    process.start()
    q._writer.close()
    assert q.get() == "last"
    with pytest.raises(EOFError):
        q.get()
    process.join(PATIENCE)
    assert q.get.__self__ is q and not q._reader.closed
    q.close()
    q.close()
    with pytest.raises(OSError):
        q.get()
    with pytest.raises(OSError):
        q.put(1)


def test_waiting_for_several():
    queues = [mp.Queue(), mp.JoinableQueue(), mp.SimpleQueue()]
    here, there = mp.Pipe()
    ends = [q._reader for q in queues] + [here]
    wait = mp.connection.wait
    assert wait(ends, 0.05) == []
    for sender, end in zip((*queues, there), ends, strict=True):
        send = getattr(sender, "put", None) or sender.send
        send("a")
        send("b")
        for item in "ab":
            assert wait(ends, PATIENCE) == [end]
            assert end.recv() == item
    assert wait(ends, 0.05) == []
    thread = threading.Timer(0.1, queues[0].put, ("c",))
    thread.start()
    # A queue's descriptor may give a false alarm, so it is asked again.
    deadline = time.monotonic() + PATIENCE
    while not (wait(ends, PATIENCE) and ends[0].poll()) and time.monotonic() < deadline:
        pass
    assert queues[0].get_nowait() == "c"
    thread.join()


def test_readers_of_queues_keep_nothing():
    q = mp.Queue()
    before = descriptors()
    for _ in range(20):
        q = mp.Queue()
        mp.connection.wait([q._reader], 0)
    q = mp.Queue()
    assert descriptors() <= before


def pass_on(q, results):
    while (item := q.get()) is not None:
        results.put(item)


def test_sleeping_readers_of_a_simple_queue_wake_at_once(context):
    q = context.SimpleQueue()
    results = context.SimpleQueue()
    processes = [context.Process(target=pass_on, args=(q, results)) for _ in range(4)]
    for process in processes:
        process.start()
    times = []
    for i in range(50):
        began = time.monotonic()
        q.put(i)
        assert results.get() == i
        times.append(time.monotonic() - began)
        time.sleep(0.005)  # longer than they look before they sleep
    for _ in processes:
        q.put(None)
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0
    # Who is not woken looks again after 0.1 s.
    assert sorted(times)[25] < 0.04


# ---- arguments of processes ----


def describe(results, array, nested, *, text):
    results.put((array, nested["list"][0], text, array.flags.writeable, array.flags.owndata))


def test_large_arguments(context):
    results = context.Queue()
    array = numpy.arange(LARGE // 8)
    readonly = numpy.ones(LARGE // 8)
    readonly.flags.writeable = False
    process = context.Process(
        target=describe, args=(results, array, {"list": [readonly]}), kwargs={"text": "x" * LARGE}
    )
    process.start()
    got, other, text, writeable, owns = results.get(timeout=PATIENCE)
    process.join(PATIENCE)
    assert (got == array).all() and (other == 1).all() and text == "x" * LARGE and writeable
    assert owns == (context.get_start_method() == "fork")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_large_arguments_do_not_go_through_the_pipe(method, monkeypatch):
    context = mp.get_context(method)
    pickled = []
    dump = standard.reduction.dump

    def count(obj, file, protocol=None):
        before = file.tell()
        dump(obj, file, protocol)
        pickled.append(file.tell() - before)

    monkeypatch.setattr(standard.reduction, "dump", count)
    results = context.Queue()
    process = context.Process(
        target=describe, args=(results, numpy.ones(LARGE), {"list": [1]}), kwargs={"text": "t" * LARGE}
    )
    process.start()
    assert results.get(timeout=PATIENCE)[0].sum() == LARGE
    process.join(PATIENCE)
    assert sum(pickled) < 1 << 16


class Worker(mp.Process):
    """Keeps its data in itself, as many programs do, and knows itself."""

    def __init__(self, results, data):
        super().__init__(target=self.work, name="worker")
        self.results = results
        self.data = data
        self.itself = [self]

    def work(self):
        self.results.put((self.name, self.data.sum(), self.itself[0] is self))


@pytest.mark.parametrize("size", [1, LARGE])
def test_processes_that_know_themselves(context, size):
    before = standard.get_start_method(allow_none=True)
    mp.set_start_method(context.get_start_method(), force=True)
    try:
        results = mp.Queue()
        worker = Worker(results, numpy.ones(size))
        worker.start()
        assert results.get(timeout=PATIENCE) == ("worker", size, True)
        worker.join(PATIENCE)
        assert worker.exitcode == 0
    finally:
        mp.set_start_method(before, force=True)


def use(lock, event, connection, array):
    with lock:
        connection.send(array.nbytes)
    event.set()


def test_arguments_that_only_processes_can_have(context):
    lock, event = context.Lock(), context.Event()
    here, there = context.Pipe()
    process = context.Process(target=use, args=(lock, event, there, numpy.zeros(LARGE)))
    process.start()
    assert here.recv() == LARGE * 8
    assert event.wait(PATIENCE)
    process.join(PATIENCE)
    assert process.exitcode == 0


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_arguments_leave_nothing_behind_when_nothing_starts(method, monkeypatch):
    context = mp.get_context(method)
    process = context.Process(target=print)
    process.start()
    process.join()
    process.close()
    before = descriptors()
    for _ in range(5):
        # The last argument can't be pickled, after the first has been put into shared memory or would have been.
        with pytest.raises((AttributeError, pickle.PicklingError)):
            context.Process(target=print, args=(numpy.zeros(LARGE), lambda: 0)).start()
    launched = []

    def fail(*arguments):
        launched.append(len(_arguments._launch.queues))
        raise OSError("no more processes")

    monkeypatch.setattr(mp.util, "spawnv_passfds", fail)
    monkeypatch.setattr(mp.forkserver, "connect_to_new_process", fail)
    for _ in range(5):
        with pytest.raises(OSError, match="no more processes"):
            context.Process(target=print, args=(numpy.zeros(LARGE),)).start()
    assert launched == [1] * 5
    assert descriptors() <= before
    assert getattr(_arguments._launch, "queues", None) is None


# ---- pools ----


def double(x):
    return x * 2


def identity(x):
    return x


def fail(x):
    raise KeyError(x)


def unpicklable(x):
    return lambda: x


def owns_data(array):
    return array.flags.owndata, array.flags.writeable


def test_pool(context):
    arrays = [numpy.full(100_000, i) for i in range(6)]
    with context.Pool(2) as pool:
        assert isinstance(pool, mp.pool.Pool) and isinstance(pool, standard.pool.Pool)
        assert pool.map(double, range(100)) == [2 * i for i in range(100)]
        for method in (pool.imap, pool.imap_unordered):
            results = list(method(double, arrays))
            assert sorted(int(array[7]) for array in results) == [0, 2, 4, 6, 8, 10]
            assert all(array.flags.writeable for array in results)
        assert pool.apply(owns_data, (arrays[0],)) == (False, True)
        assert pool.starmap(max, [(1, 2), (4, 3)]) == [2, 4]
        with pytest.raises(KeyError):
            pool.apply(fail, (1,))
        with pytest.raises(standard.pool.MaybeEncodingError):
            pool.apply(unpicklable, (1,))
        with pytest.raises(Exception):  # noqa: B017 - whatever encoding raises
            pool.apply(identity, (lambda: 0,))
        assert pool.apply_async(double, (arrays[1],)).get(PATIENCE)[0] == 2
        pool.close()
        pool.join()


def test_pool_with_a_context_of_the_standard_module():
    with mp.pool.Pool(1, context=standard.get_context("fork")) as pool:
        assert pool.apply(owns_data, (numpy.ones(100_000),)) == (False, True)


def test_pools_end_in_the_middle_of_work():
    for pause in (0, 0.01, 0.05):
        with mp.Pool(2, maxtasksperchild=2) as pool:
            pool.map_async(time.sleep, [0.01] * 5000, chunksize=1)
            time.sleep(pause)
            children = [worker.pid for worker in pool._pool]
        assert not any(running(pid) for pid in children)


def test_workers_killed_while_they_wait(context):
    with context.Pool(2) as pool:
        for i in range(3):
            assert pool.map(double, range(20)) == [2 * i for i in range(20)]
            time.sleep(0.1)
            os.kill(pool._pool[i % 2].pid, signal.SIGKILL)
            time.sleep(0.1)
        assert len(pool.map(double, [numpy.ones(10_000)] * 20)) == 20


def hold_pool(method, connection):
    pool = mp.get_context(method).Pool(2)
    pool.map(double, range(4))
    connection.send([worker.pid for worker in pool._pool])
    time.sleep(PATIENCE)


def test_workers_end_with_a_program_that_is_killed(context):
    here, there = mp.Pipe()
    # Not forked: a server for forking that was inherited can't be used.
    program = mp.get_context("spawn").Process(target=hold_pool, args=(context.get_start_method(), there))
    program.start()
    there.close()
    workers = here.recv()
    program.kill()
    program.join(PATIENCE)
    deadline = time.monotonic() + PATIENCE / 2
    while any(running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(running(pid) for pid in workers)


def test_pools_leave_nothing_behind():
    with mp.Pool(2) as pool:
        pool.map(double, range(10))
    before = descriptors(), threading.active_count()
    for _ in range(5):
        with mp.Pool(2) as pool:
            pool.map(double, range(10))
            pool.close()
            pool.join()
    del pool
    assert descriptors() <= before[0] and threading.active_count() <= before[1]


def test_executors(context):
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        assert list(executor.map(double, range(10))) == [2 * i for i in range(10)]
        array = executor.submit(identity, numpy.ones(100_000)).result(PATIENCE)
        assert array.sum() == 100_000 and array.flags.writeable
        with pytest.raises(KeyError):
            executor.submit(fail, 1).result(PATIENCE)
    with pytest.raises(queue.Empty):
        context.Queue().get_nowait()
