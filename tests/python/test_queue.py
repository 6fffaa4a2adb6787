# SPDX-License-Identifier: LGPL-2.1-or-later
"""ferry.Queue against the rules of multiprocessing.Queue, and what it promises beyond."""

from __future__ import annotations

import gc
import itertools
import mmap
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, namedtuple

import ferry
import pytest

numpy = pytest.importorskip("numpy")

context = multiprocessing.get_context("fork")

Point = namedtuple("Point", "x y")


def start(target, *args):
    process = context.Process(target=target, args=args)
    process.start()
    return process


def join(*processes):
    for process in processes:
        process.join(30)
        assert process.exitcode == 0


def rss():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def shared_number():
    """An integer that processes forked from here on share."""
    return memoryview(mmap.mmap(-1, 8)).cast("q")


def n_descriptors():
    return len(os.listdir("/proc/self/fd"))


def mappings_of(address):
    with open("/proc/self/maps") as maps:
        for line in maps:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            if begin <= address < end:
                return line
    return ""


class TestRules:
    def test_objects_arrive_in_order_and_equal(self):
        q = ferry.Queue()
        objects = [None, True, 1, -(2**70), 2.5, "text", b"bytes", [1, [2]], {"a": (1, 2)}, Point(1, 2), {3, 4}]
        for item in objects:
            q.put(item)
        got = [q.get() for _ in objects]
        assert got == objects
        assert [type(item) for item in got] == [type(item) for item in objects]

    def test_empty(self):
        q = ferry.Queue()
        with pytest.raises(queue.Empty) as caught:
            q.get_nowait()
        assert type(caught.value) is queue.Empty
        with pytest.raises(queue.Empty):
            q.get(False)
        with pytest.raises(queue.Empty):
            q.get(block=False, timeout=100)
        for timeout in (0, -1, 0.05):
            began = time.monotonic()
            with pytest.raises(queue.Empty):
                q.get(True, timeout)
            assert max(timeout, 0) <= time.monotonic() - began < max(timeout, 0) + 0.3

    def test_full(self):
        q = ferry.Queue(2)
        q.put(1)
        q.put(2)
        assert q.full()
        for call in (lambda: q.put_nowait(3), lambda: q.put(3, False), lambda: q.put(3, timeout=0.05)):
            with pytest.raises(queue.Full) as caught:
                call()
            assert type(caught.value) is queue.Full
        assert q.get() == 1
        assert not q.full()
        q.put_nowait(3)
        assert [q.get(), q.get()] == [2, 3]

    def test_full_of_large_objects(self):
        q = ferry.Queue(1)
        q.put(bytes(100_000))
        with pytest.raises(queue.Full):
            q.put_nowait(bytes(100_000))
        with pytest.raises(queue.Full):
            q.put(numpy.zeros(100_000), timeout=0.05)
        assert len(q.get()) == 100_000

    def test_sizes(self):
        q = ferry.Queue(3)
        assert q.qsize() == 0 and q.empty() and not q.full()
        q.put(1)
        q.put(numpy.zeros(10_000))
        assert q.qsize() == 2 and not q.empty()
        q.get()
        q.get()
        assert q.qsize() == 0

    def test_size_counts_over_processes(self):
        q = ferry.Queue()
        join(start(q.put_many, range(5)))
        assert q.qsize() == 5
        join(start(q.get))
        assert q.qsize() == 4

    def test_closed(self):
        q = ferry.Queue()
        q.put(1)
        q.close()
        q.close()
        q.join_thread()
        for call in (lambda: q.put(2), q.get, q.get_nowait, q.qsize, lambda: q.put_many([1])):
            with pytest.raises(ValueError, match="closed"):
                call()
        assert q.closed

    def test_join_thread_wants_close_first(self):
        q = ferry.Queue()
        with pytest.raises(AssertionError):
            q.join_thread()
        q.cancel_join_thread()

    def test_close_wakes_who_waits(self):
        q = ferry.Queue()
        errors = []

        def wait():
            try:
                q.get()
            except ValueError as error:
                errors.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        q.close()
        thread.join(5)
        assert len(errors) == 1

    def test_simple_queue(self):
        q = ferry.SimpleQueue()
        assert q.empty()
        q.put({"a": 1})
        assert not q.empty()
        assert q.get() == {"a": 1}
        q.close()
        with pytest.raises(OSError):
            q.put(1)

    def test_arguments_are_checked(self):
        q = ferry.Queue()
        for call in (
            lambda: q.put(),
            lambda: q.put(1, True, None, 4),
            lambda: q.put(1, blok=True),
            lambda: q.put(1, obj=1),
            lambda: q.put(1, True, "soon"),
            lambda: q.get(True, object()),
        ):
            with pytest.raises(TypeError):
                call()
        with pytest.raises(ValueError):
            q.get(timeout=float("nan"))
        assert q.empty()

    def test_keyword_arguments(self):
        q = ferry.Queue()
        q.put(obj=1, block=False, timeout=None)
        q.put(2, timeout=1)
        assert q.get(timeout=1, block=True) == 1
        assert q.get(block=False) == 2


class TestUnlimited:
    def test_more_than_fits_waits_in_the_process(self):
        q = ferry.Queue()
        n = 5000
        began = time.monotonic()
        for i in range(n):
            q.put(i)
        assert time.monotonic() - began < 5
        assert q.qsize() == n
        assert not q.full()
        assert [q.get() for _ in range(n)] == list(range(n))
        assert q.empty()

    def test_a_process_ends_when_everything_is_passed_on(self):
        q = ferry.Queue()
        process = start(q.put_many, range(4000))
        process.join(0.5)
        assert process.is_alive()
        assert [q.get() for _ in range(4000)] == list(range(4000))
        join(process)

    def test_a_process_may_end_without(self):
        q = ferry.Queue()

        def produce():
            q.cancel_join_thread()
            q.put_many(range(4000))

        join(start(produce))
        assert q.qsize() >= 1024

    def test_closing_still_passes_everything_on(self):
        q = ferry.Queue()

        def produce():
            q.put_many(range(3000))
            q.close()
            with pytest.raises(ValueError):
                q.put(1)
            q.join_thread()

        process = start(produce)
        assert [q.get() for _ in range(3000)] == list(range(3000))
        join(process)

    def test_put_nowait_is_never_refused(self):
        q = ferry.Queue()
        for i in range(3000):
            q.put_nowait(i)
        assert q.get_many(10) == list(range(10))
        q.cancel_join_thread()  # else this process would wait for somebody to get the rest

    def test_a_fork_child_does_not_send_what_its_parent_keeps(self):
        q = ferry.Queue()
        q.put_many(range(2000))
        process = start(q.put, "child")
        got = [q.get(timeout=10) for _ in range(2001)]
        join(process)
        assert [item for item in got if item != "child"] == list(range(2000))


class TestMany:
    def test_put_many_and_get_many(self):
        q = ferry.Queue()
        assert q.put_many(range(10)) == 10
        assert q.get_many(4) == [0, 1, 2, 3]
        assert q.get_many() == [4, 5, 6, 7, 8, 9]
        assert q.get_many(0) == []
        with pytest.raises(queue.Empty):
            q.get_many(block=False)
        with pytest.raises(queue.Empty):
            q.get_many(timeout=0.02)
        with pytest.raises(ValueError):
            q.get_many(-1)

    @pytest.mark.parametrize("cls", [ferry.Queue, ferry.JoinableQueue])
    def test_put_many_is_refused_as_put_is(self, cls):
        q = cls(3)
        for arguments, n_put in (({"block": False}, 3), ({"timeout": 0.02}, 0), ({"timeout": 0}, 0)):
            items = iter(range(10))
            with pytest.raises(queue.Full) as caught:
                q.put_many(items, **arguments)
            assert type(caught.value) is queue.Full
            assert caught.value.n_put == n_put
            assert list(items) == list(range(n_put + 1, 10))
        assert q.get_many() == [0, 1, 2]
        assert q.put_many([], block=False) == 0
        assert q.put_many(range(3), timeout=1) == 3

    def test_put_many_has_one_time_out_for_all(self):
        q = ferry.Queue(2)
        timer = threading.Timer(0.2, q.get)
        began = time.monotonic()
        timer.start()
        with pytest.raises(queue.Full) as caught:
            q.put_many(range(10), timeout=0.4)
        assert 0.4 <= time.monotonic() - began < 0.4 + 0.3
        assert caught.value.n_put == 3
        timer.join()

    def test_put_many_passes_errors_of_the_iterator(self):
        q = ferry.Queue()

        def items():
            yield 1
            raise KeyError("broken")

        with pytest.raises(KeyError):
            q.put_many(items())
        assert q.get() == 1


class TestEndOfStream:
    def test_iteration_ends(self):
        q = ferry.Queue()

        def produce():
            q.put_many(range(100))
            q.end()

        process = start(produce)
        assert list(q) == list(range(100))
        with pytest.raises(EOFError):
            q.get()
        join(process)

    def test_all_producers_must_have_ended(self):
        q = ferry.Queue()
        barrier = context.Barrier(3)

        def produce(base):
            q.put(base)
            barrier.wait()
            q.put_many(range(base + 1, base + 100))
            q.end()

        processes = [start(produce, base) for base in (0, 100, 200)]
        assert sorted(q) == list(range(300))
        join(*processes)


class TestJoinable:
    def test_join(self):
        q = ferry.JoinableQueue()
        done = context.Value("i", 0)

        def work():
            for _ in iter(q.get, None):
                time.sleep(0.001)
                with done:
                    done.value += 1
                q.task_done()
            q.task_done()

        workers = [start(work) for _ in range(3)]
        q.put_many(range(60))
        q.join()
        assert done.value == 60
        q.put_many([None] * 3)
        q.join()
        join(*workers)
        with pytest.raises(ValueError):
            q.task_done()

    def test_join_of_nothing_returns(self):
        ferry.JoinableQueue().join()

    def test_what_a_killed_process_leaves_undone(self):
        """What it had got, and what it kept for want of room; no more, and anybody may call task_done() for it."""
        q = ferry.JoinableQueue()
        n = 1100
        n_put = shared_number()

        def work():
            q.get()
            n_put[0] = q.put_many(range(n))
            time.sleep(60)

        q.put("got and not done")
        process = start(work)
        while n_put[0] < n:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert q.get_many() == list(range(1024))
        for _ in range(n):
            q.task_done()
        joining = threading.Thread(target=q.join, daemon=True)
        joining.start()
        joining.join(0.2)
        assert joining.is_alive()
        q.task_done()
        joining.join(5)
        assert not joining.is_alive()
        with pytest.raises(ValueError):
            q.task_done()

    def test_a_refused_put_is_no_task(self):
        q = ferry.JoinableQueue(1)
        q.put(1)
        with pytest.raises(queue.Full):
            q.put_nowait(2)
        with pytest.raises(ferry.CodecError):
            q.put(lambda: None)
        q.get()
        q.task_done()
        q.join()


class TestArrays:
    def test_an_array_is_a_writable_view_on_the_memfd(self):
        q = ferry.Queue()
        sent = numpy.arange(100_000.0).reshape(100, 1000)
        q.put(sent)
        got = q.get()
        assert (got == sent).all()
        assert not got.flags.owndata and got.flags.writeable
        assert "memfd:ferry-data" in mappings_of(got.ctypes.data)
        assert got.ctypes.data % 64 == 0
        got[0, 0] = -1
        assert sent[0, 0] == 0

    def test_a_copy_on_request(self):
        q = ferry.Queue()
        sent = numpy.asfortranarray(numpy.arange(10_000.0).reshape(100, 100))
        q.put(sent)
        q.put({"a": sent})
        got = q.get(copy=True)
        assert got.flags.owndata and got.flags.f_contiguous and (got == sent).all()
        inner = q.get(copy=True)["a"]
        assert (inner == sent).all()
        assert "memfd" not in mappings_of(inner.ctypes.data)

    def test_views_outlive_the_queue(self):
        q = ferry.Queue()
        q.put(numpy.full(50_000, 3))
        got = q.get()
        q.close()
        del q
        gc.collect()
        assert got.sum() == 150_000

    def test_memory_is_used_again_when_views_go(self):
        q = ferry.Queue()
        sent = numpy.zeros(1_000_000)
        for _ in range(50):
            q.put(sent)
            q.get()
        assert q._endpoint(True)._statistics()["bytes_committed_peak"] < 4 * sent.nbytes

    def test_views_are_held_in_any_order(self):
        q = ferry.Queue()
        views = []
        for i in range(20):
            q.put(numpy.full(20_000, i))
            views.append(q.get())
        for i in (3, 17, 0):
            views[i] = None
        q.put(numpy.full(20_000, 99))
        assert q.get()[0] == 99
        assert all(view is None or (view == i).all() for i, view in enumerate(views))

    def test_loan(self):
        q = ferry.Queue()
        array = q.loan((300, 400), "f4")
        assert array.shape == (300, 400) and array.dtype == numpy.float32 and array.flags.writeable
        assert "memfd:ferry-data" in mappings_of(array.ctypes.data)
        array[:] = 7
        before = q._endpoint(True)._statistics()["bytes_committed"]
        q.put(array)
        assert q._endpoint(True)._statistics()["bytes_committed"] == before  # no second block
        assert not array.flags.writeable
        got = q.get()
        assert got.shape == (300, 400) and (got == 7).all()

    @pytest.mark.parametrize("shape", [(), 0, 5, (2, 0, 3), (1, 1, 1, 1)])
    @pytest.mark.parametrize("dtype", [None, "i1", ">u4", "M8[ms]", "U3", [("a", "i4"), ("b", "f8", (2,))]])
    def test_loans_of_all_kinds(self, shape, dtype):
        q = ferry.Queue()
        array = q.loan(shape, dtype)
        array[...] = numpy.zeros(shape, dtype)
        expected = array.copy()
        q.put(array)
        got = q.get()
        assert got.shape == expected.shape and got.dtype == expected.dtype and (got == expected).all()

    def test_a_loan_that_is_not_put_goes_back(self):
        q = ferry.Queue()
        for _ in range(100):
            q.loan(1_000_000)
        assert q._endpoint(True)._statistics()["bytes_committed_peak"] < 40_000_000

    def test_a_loan_that_was_changed_is_copied(self):
        q = ferry.Queue()
        array = q.loan((10, 1000))
        array[:] = 1
        array.shape = (1000, 10)
        q.put(array)
        assert q.get().shape == (1000, 10)
        q.put(array[::2])
        assert q.get().shape == (500, 10)

    def test_loans_of_objects_are_refused(self):
        with pytest.raises(TypeError):
            ferry.Queue().loan(3, object)
        with pytest.raises(ValueError):
            ferry.Queue().loan((-1,))

    def test_small_loan(self):
        q = ferry.Queue()
        array = q.loan(3, "u1")
        array[:] = 1, 2, 3
        q.put(array)
        assert q.get().tolist() == [1, 2, 3]
        assert not array.flags.writeable


class TestErrors:
    def test_what_cannot_be_encoded_harms_nothing(self):
        q = ferry.Queue()
        q.put(1)
        with pytest.raises(Exception) as caught:
            q.put(threading.Lock())
        assert not isinstance(caught.value, (queue.Full, queue.Empty))
        q.put(2)
        assert [q.get(), q.get()] == [1, 2]
        assert q.empty()

    def test_no_such_transport(self):
        with pytest.raises(ferry.NoSuchFeatureError):
            ferry.Queue(transport="carrier-pigeon")

    def test_out_of_memory(self):
        q = ferry.Queue(max_bytes=1_000_000)
        with pytest.raises((ferry.TooBigError, ferry.NoSpaceError)):
            q.put(bytes(10_000_000))
        q.put(b"small")
        assert q.get() == b"small"

    def test_memory_full_and_then_free(self):
        q = ferry.Queue(100, max_bytes=8_000_000)
        n = 0
        with pytest.raises(queue.Full):
            while True:
                q.put(bytes(1_000_000), timeout=0.05)
                n += 1
        assert n >= 3
        timer = threading.Timer(0.1, q.get)
        timer.start()
        q.put(bytes(1_000_000), timeout=10)
        timer.join()
        assert q.qsize() == n


class TestProcesses:
    def test_many_producers_and_consumers(self):
        q = ferry.Queue(64)
        results = ferry.Queue()
        n = 3000

        def produce(k):
            for i in range(n):
                q.put((k, i))

        def consume():
            got = Counter()
            last = {}
            for k, i in iter(q.get, None):
                assert last.get(k, -1) < i
                last[k] = i
                got[k] += 1
            results.put(got)

        consumers = [start(consume) for _ in range(3)]
        producers = [start(produce, k) for k in range(3)]
        join(*producers)
        q.put_many([None] * 3)
        total = sum((results.get(timeout=30) for _ in range(3)), Counter())
        assert total == {0: n, 1: n, 2: n}
        join(*consumers)

    def test_threads_share_an_end(self):
        q = ferry.Queue(50)
        got = []
        n = 2000

        def consume():
            got.extend(iter(q.get, None))

        consumers = [threading.Thread(target=consume) for _ in range(3)]
        producers = [threading.Thread(target=q.put_many, args=(range(k * n, k * n + n),)) for k in range(3)]
        for thread in consumers + producers:
            thread.start()
        for thread in producers:
            thread.join(60)
        q.put_many([None] * 3)
        for thread in consumers:
            thread.join(60)
        assert sorted(got) == list(range(3 * n))

    def test_other_threads_run_while_one_waits(self):
        q = ferry.Queue()
        thread = threading.Thread(target=q.get)
        thread.start()
        began = time.monotonic()
        sum(range(100_000))
        assert time.monotonic() - began < 5
        q.put(1)
        thread.join(5)
        assert not thread.is_alive()

    def test_what_was_put_before_the_end_arrives(self):
        q = ferry.Queue()

        def produce():
            q.put(numpy.arange(100_000))
            q.put("last")
            os._exit(0)

        join(start(produce))
        assert q.get().sum() == 99_999 * 50_000
        assert q.get() == "last"

    def test_a_producer_killed_while_putting_harms_nothing(self):
        """What was put arrives, nothing else does, and no memory stays behind."""
        capacity, n_kills = 10, 20
        data = numpy.zeros(30_000)
        q = ferry.Queue(capacity, max_bytes=(capacity + n_kills // 2) * data.nbytes)
        n_put = shared_number()

        def produce():
            for i in itertools.count():
                q.put(numpy.full(30_000, i) if i % 3 else i)
                n_put[0] = i + 1

        def take(i):
            item = q.get(timeout=10)
            assert (item == i).all() if i % 3 else item == i

        for kill in range(n_kills):
            n_put[0] = n_got = 0
            process = start(produce)
            while n_got < 20 + 7 * kill % 11:
                take(n_got)
                n_got += 1
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            while q.qsize() > 0:
                take(n_got)
                n_got += 1
            # The last one may have been put by a process that died before it could say so.
            assert n_put[0] <= n_got <= n_put[0] + 1
            assert q.qsize() == 0 and q.empty()
            # All of the memory is there again: with as much as one block lost in every other death, it would be full.
            for _ in range(capacity):
                q.put_nowait(data)
            assert len(q.get_many(capacity)) == capacity

    def test_a_consumer_killed_inside_get_takes_nothing(self):
        q = ferry.Queue()

        def consume():
            while True:
                q.get()

        for _ in range(5):
            process = start(consume)
            time.sleep(0.1)
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            q.put_many(range(100))
            assert [q.get(timeout=10) for _ in range(100)] == list(range(100))
            assert q.empty()

    @pytest.mark.parametrize("size", [0, 5000])
    def test_a_consumer_killed_while_consuming(self, size):
        """One message at most goes with it: what it had taken and not told of yet."""
        q = ferry.Queue(1000)
        n = 10_000
        last = shared_number()

        def number(item):
            return item if size == 0 else int(item[0])

        def consume():
            while True:
                item = q.get()
                last[0] = number(item)

        for _ in range(3):
            last[0] = -1
            process = start(consume)
            for i in range(n):
                q.put(i if size == 0 else numpy.full(size, i))
                if i == n // 2:
                    os.kill(process.pid, signal.SIGKILL)
                    process.join()
                    numbers = [number(q.get(timeout=5)) for _ in range(q.qsize())]
                elif i > n // 2:
                    numbers.append(number(q.get(timeout=5)))
            assert 1 <= numbers[0] - last[0] <= 2
            assert numbers == list(range(numbers[0], n))
            assert q.qsize() == 0

    def test_the_creator_may_end_first(self):
        """A grandchild goes on with what its parent made and left."""
        outer = ferry.Queue()

        def middle():
            q = ferry.Queue()
            q.put("from the creator")
            if os.fork() == 0:
                time.sleep(0.3)
                item = q.get(timeout=5)
                q.put(item + "!")
                outer.put(q.get(timeout=5))
            os._exit(0)

        join(start(middle))
        assert outer.get(timeout=10) == "from the creator!"

    def test_nested_forks(self):
        q = ferry.Queue()

        def child(depth):
            q.put(depth)
            if depth < 4:
                join(start(child, depth + 1))

        join(start(child, 0))
        assert [q.get(timeout=5) for _ in range(5)] == list(range(5))

    def test_views_held_over_a_fork_are_the_parents(self):
        q = ferry.Queue()
        q.put(numpy.full(50_000, 5))
        view = q.get()

        def child():
            assert (view == 5).all()
            q.put("seen")

        join(start(child))
        assert q.get() == "seen"
        q.put(numpy.full(50_000, 6))
        q.get()
        assert (view == 5).all()


class TestInterrupts:
    def script(self, body, *, send=None, after=0.5):
        process = subprocess.Popen(
            [sys.executable, "-c", body], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if send is not None:
            assert process.stdout.readline() == "ready\n"
            time.sleep(after)
            process.send_signal(send)
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err

    @pytest.mark.parametrize("call", ["q.get()", "[q.put(0) for _ in range(5)]", "next(iter(q))"])
    def test_interrupt(self, call):
        body = f"""
import ferry
q = ferry.Queue(2)
print("ready", flush=True)
try:
    {call}
except KeyboardInterrupt:
    print("interrupted")
"""
        code, out, err = self.script(body, send=signal.SIGINT)
        assert (code, out) == (0, "interrupted\n"), err

    def test_a_handler_runs_and_the_call_goes_on(self):
        q = ferry.Queue()
        seen = []
        before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1) or q.put("from the handler"))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            assert q.get(timeout=10) == "from the handler"
        finally:
            signal.signal(signal.SIGALRM, before)
        assert seen == [1]

    def test_exit_with_messages_and_views(self):
        body = """
import ferry, numpy, threading
q = ferry.Queue()
for i in range(10):
    q.put(numpy.arange(100000))
view = q.get()
loan = q.loan(1000000)
thread = threading.Thread(target=q.get, daemon=True)
p = ferry.Pipe()
p[0].send(view)
held = [q, view, loan, p]
held.append(held)
other = ferry.Queue()
threading.Thread(target=other.get, daemon=True).start()
"""
        code, out, err = self.script(body)
        assert (code, out, err) == (0, "", "")

    def test_import_is_light(self):
        body = "import ferry, sys; assert 'numpy' not in sys.modules; q = ferry.Queue(); q.put({'a': 1}); q.get(); \
assert 'numpy' not in sys.modules"
        code, _, err = self.script(body)
        assert code == 0, err


class TestLeaks:
    def test_two_processes(self):
        """Small objects and arrays from one process to another: in the end both have what they had after 10,000."""
        capacity = 64
        q, back = ferry.Queue(capacity), ferry.Queue()
        warm_up = 10_000
        default = 1_000_000 if os.environ.get("FERRY_TEST_THOROUGH") else 100_000
        n = max(int(os.environ.get("FERRY_TEST_MESSAGES", default)), 2 * warm_up)
        array = numpy.arange(2000.0)
        items = [1, "text", (1, "x", b"y" * 50), {"id": 7, "ok": True}, Point(1, [2]), array, {"a": array[:10]}]
        items.append(b"z" * 5000)
        objects = [*items, array[:10].dtype, Point, None]

        def state():
            gc.collect()
            names = {name for name in os.listdir("/dev/shm") if "ferry" in name}
            runtime = os.environ.get("XDG_RUNTIME_DIR", "/nowhere")
            names |= {os.path.join(path, name) for path, _, files in os.walk(runtime) for name in files}
            own = {name for name in names if f"-{os.getpid()}" in name or f"-{os.getppid()}" in name}
            return rss(), n_descriptors(), sys.getallocatedblocks(), own, [sys.getrefcount(o) for o in objects[:-1]]

        def consume():
            back.put("joined")
            while (item := q.get()) is not None:
                if isinstance(item, str) and item == "state":
                    back.put(state())
            back.put("done")

        def run(k):
            for i in range(k - len(items) * capacity):
                if i % 20 == 19:
                    loan = q.loan(2000)
                    loan[:] = i
                    q.put(loan)
                    del loan
                else:
                    q.put(items[i % len(items)])
            # The queue is full once of each, so that every block was in use that these messages can ever need.
            for item in items:
                os.kill(process.pid, signal.SIGSTOP)
                try:
                    while True:
                        q.put_nowait(item)
                except queue.Full:
                    os.kill(process.pid, signal.SIGCONT)
            q.put("state")
            theirs = back.get(timeout=60)
            return state(), theirs

        process = start(consume)
        assert back.get(timeout=10) == "joined"
        before = run(warm_up)
        after = run(n - warm_up)
        q.put(None)
        assert back.get(timeout=10) == "done"
        join(process)
        for old, new in zip(before, after):
            if "FERRY_TEST_SANITIZED" not in os.environ:  # AddressSanitizer keeps what is freed
                assert new[0] - old[0] < 1_000_000
            # A pool of memory for another size may have come, each with a descriptor, and no more with more messages.
            assert old[1] <= new[1] <= old[1] + 4
            assert new[2] - old[2] < 300
            assert new[3:] == old[3:]

    def test_large_messages(self):
        q = ferry.Queue()
        data = numpy.zeros(300_000)

        def echo(k):
            for _ in range(k):
                q.put(data)
                q.get()

        echo(20)
        memory = rss()
        echo(1000)
        assert rss() - memory < 1_000_000

    def test_references(self):
        q = ferry.Queue()
        for item in ("x" * 1000, b"y" * 10_000, [object], numpy.zeros(10_000), Point(1, 2)):
            before = sys.getrefcount(item)
            for _ in range(50):
                q.put(item)
                q.get()
            assert sys.getrefcount(item) == before

    def test_queues_give_everything_back(self):
        def use():
            for _ in range(20):
                q = ferry.JoinableQueue()
                q.put(1)
                q.get()
                p = ferry.Pipe()
                p[0].send(1)
                p[1].recv()
                p[1].fileno()

        use()
        gc.collect()
        descriptors = n_descriptors()
        use()
        gc.collect()
        assert n_descriptors() <= descriptors

    def test_nothing_is_left_behind(self, tmp_path, shm_folder):
        body = """
import ferry, multiprocessing, os
a = ferry.Queue(name="left-behind")
b = ferry.Queue(transport="posix-shm")
c = ferry.Queue()
p = multiprocessing.Process(target=lambda: [q.put(os.getpid()) for q in (a, b, c)])
p.start()
print([q.get() == p.pid for q in (a, b, c)])
p.join()
"""
        runtime = tmp_path / "run"
        runtime.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", body],
            env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "[True, True, True]\n", "")
        assert os.listdir(shm_folder) == []
        assert not [name for _, _, names in os.walk(runtime) for name in names]


class TestTransports:
    def test_posix_shm(self):
        q = ferry.Queue(transport="posix-shm")
        process = start(q.put, numpy.arange(10))
        assert q.get(timeout=10).tolist() == list(range(10))
        join(process)

    def test_codec_raw(self):
        q = ferry.Queue(codec="raw")
        q.put(b"abc")
        q.put(bytearray(100_000))
        assert q.get() == b"abc"
        assert len(q.get()) == 100_000
        with pytest.raises(TypeError):
            q.put(1)

    def test_pickles_can_be_forbidden(self):
        q = ferry.Queue(pickle=False)
        q.put([1, "a"])
        assert q.get() == [1, "a"]
        with pytest.raises(ferry.CodecError):
            q.put(signal.Handlers)


# ---- something else in place of arrays ----


@pytest.fixture
def reducing():
    queue = ferry.Queue(10, codec="python")

    def put_and_get(obj, reducer):
        queue._endpoint(True)._set_array_reducer(reducer)
        queue.put(obj)
        return queue.get()

    yield put_and_get
    queue.close()


def test_array_reducer(reducing):
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(3)
    one, other, rest = reducing((array, array, {"a": numpy.ones(2)}), lambda a: (list, (a.tolist(),)))
    assert one == [0, 1, 2] and one is other and rest == {"a": [1.0, 1.0]}
    one, other = reducing((array, array), lambda a: None)
    assert one.tolist() == [0, 1, 2] and one is other
    assert reducing(array, lambda a: (len, (range(5),))) == 5
    assert reducing([array], None)[0].tolist() == [0, 1, 2]
    # It is for exact arrays of plain elements only.
    objects, record = reducing((numpy.array([None]), numpy.rec.array([(1,)])), lambda a: (len, ([],)))
    assert objects.tolist() == [None] and record.tolist() == [(1,)]


@pytest.mark.parametrize("reducer", [lambda a: 1 / 0, lambda a: [], lambda a: (), lambda a: ("x", ())])
def test_wrong_array_reducer(reducing, reducer):
    numpy = pytest.importorskip("numpy")
    with pytest.raises(ferry.CodecError):
        reducing([numpy.arange(3)], reducer)
    assert reducing([numpy.arange(3)], None)[0].tolist() == [0, 1, 2]


def test_only_codec_python_has_an_array_reducer():
    for codec in ("auto", "numpy"):
        queue = ferry.Queue(codec=codec)
        with pytest.raises(ValueError, match="codec=python"):
            queue._endpoint(True)._set_array_reducer(len)
