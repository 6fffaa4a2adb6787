# SPDX-License-Identifier: LGPL-2.1-or-later
"""Queues and pipes as arguments of processes, under every start method, and by name."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys

import ferry
import pytest

numpy = pytest.importorskip("numpy")


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request):
    return multiprocessing.get_context(request.param)


def double(source, results):
    while (item := source.get()) is not None:
        results.put(item * 2)
        if hasattr(source, "task_done"):
            source.task_done()


def echo(connection):
    while True:
        try:
            connection.send(connection.recv())
        except EOFError:
            return


def put_last(q):
    q.put(numpy.arange(50_000))


def pass_on(q, connection):
    connection.send(q)


def test_queues(context):
    source = ferry.Queue(10)
    results = ferry.Queue()
    process = context.Process(target=double, args=(source, results))
    process.start()
    for item in (1, "a", numpy.ones(20_000)):
        source.put(item)
    source.put(None)
    assert results.get(timeout=30) == 2
    assert results.get(timeout=30) == "aa"
    assert (results.get(timeout=30) == 2).all()
    process.join(30)
    assert process.exitcode == 0


def test_joinable_queues(context):
    source = ferry.JoinableQueue()
    results = ferry.SimpleQueue()
    process = context.Process(target=double, args=(source, results))
    process.start()
    source.put_many([1, 2, 3])
    source.join()
    assert [results.get() for _ in range(3)] == [2, 4, 6]
    source.put(None)
    process.join(30)


def test_pipes(context):
    here, there = ferry.Pipe()
    process = context.Process(target=echo, args=(there,))
    process.start()
    there.close()
    for item in (1, [2, 3], numpy.arange(10_000)):
        here.send(item)
        got = here.recv()
        assert (got == item).all() if isinstance(item, numpy.ndarray) else got == item
    if context.get_start_method() != "fork":
        # a fork child has a copy of this end, and so never sees it closed
        here.close()
    else:
        process.terminate()
    process.join(30)
    assert not process.is_alive()


def test_data_outlives_its_process(context):
    q = ferry.Queue()
    process = context.Process(target=put_last, args=(q,))
    process.start()
    process.join(30)
    assert q.get(timeout=5).sum() == 49_999 * 25_000


def test_a_spawned_child_is_told_the_end(context):
    here, there = ferry.Pipe()
    process = context.Process(target=os._exit, args=(0,))
    process.start()
    there.close()
    process.join(30)
    with pytest.raises(EOFError):
        here.recv()


def test_anonymous_queues_are_for_processes_only():
    with pytest.raises(RuntimeError):
        pickle.dumps(ferry.Queue())


def test_named_queues_pickle_anywhere():
    q = ferry.Queue(5, name="pickled-anywhere")
    twin = pickle.loads(pickle.dumps(q))
    twin.put("through the twin")
    assert q.get(timeout=5) == "through the twin"
    assert twin.name == q.name == "pickled-anywhere"
    q.close()
    twin.put("still there")
    assert twin.get(timeout=5) == "still there"
    twin.close()


def test_unrelated_programs_meet_by_name():
    q = ferry.Queue(name="met-by-name")
    body = "import ferry; q = ferry.Queue(name='met-by-name'); q.put({'from': 'elsewhere'}); print(q.get())"
    q.put("for whoever comes")
    # whoever gets first takes first: the other program may get its own
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "for whoever comes\n", "")
    assert q.get(timeout=5) == {"from": "elsewhere"}
    q.close()


def test_named_channels_pickle():
    sender = ferry.Channel("pickled-channel", "sender", capacity=7)
    receiver = pickle.loads(pickle.dumps(ferry.Channel("pickled-channel", "receiver", open=True)))
    sender.send(1)
    assert receiver.receive(5) == 1
    assert receiver.capacity == 7
    sender.close()
    receiver.close()


def test_resource_tracker_is_silent():
    body = """
import ferry, multiprocessing, numpy
def work(q, r):
    r.put(q.get() + 1)
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    q, r = ferry.Queue(), ferry.Queue()
    process = context.Process(target=work, args=(q, r))
    process.start()
    q.put(numpy.zeros(100000))
    print(int(r.get().sum()))
    process.join()
"""
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"ferry-tracker-{os.getpid()}.py")
    with open(path, "w") as script:
        script.write(body)
    try:
        done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, check=False)
    finally:
        os.unlink(path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "100000\n", "")
