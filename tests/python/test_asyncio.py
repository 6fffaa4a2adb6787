# SPDX-License-Identifier: LGPL-2.1-or-later
"""Queues and channels in event loops."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import queue
import threading
import time

import ferry
import pytest

context = multiprocessing.get_context("fork")


def n_threads():
    """All of them, also those that are not Python's."""
    return len(os.listdir("/proc/self/task"))


def produce(q, items, pause=0.0):
    for item in items:
        time.sleep(pause)
        q.put(item)
    q.end()


def test_get_async():
    async def main():
        q = ferry.Queue()
        q.put(1)
        assert await q.get_async() == 1
        process = context.Process(target=produce, args=(q, ["late"], 0.2))
        process.start()
        ticks = most_threads = 0

        async def tick():
            nonlocal ticks, most_threads
            while True:
                ticks += 1
                most_threads = max(most_threads, n_threads())
                await asyncio.sleep(0.01)

        ticker = asyncio.create_task(tick())
        before = n_threads()
        assert await q.get_async() == "late"
        # What the ticker saw while this task waited.
        assert most_threads == before
        assert ticks > 5
        ticker.cancel()
        process.join()

    asyncio.run(main())


def test_timeouts():
    async def main():
        q = ferry.Queue(1)
        began = time.monotonic()
        with pytest.raises(queue.Empty):
            await q.get_async(timeout=0.1)
        q.put(1)
        with pytest.raises(queue.Full):
            await q.put_async(2, timeout=0.1)
        assert 0.2 <= time.monotonic() - began < 2
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(q.put_async(2), 0.1)
        assert await q.get_async() == 1
        await q.put_async(3)
        assert await q.get_async() == 3

    asyncio.run(main())


def test_iteration():
    async def main():
        q = ferry.Queue(10)
        process = context.Process(target=produce, args=(q, range(1000)))
        process.start()
        assert [item async for item in q] == list(range(1000))
        process.join()

    asyncio.run(main())


def test_put_async_waits_for_room():
    async def main():
        q = ferry.Queue(2)

        def consume():
            time.sleep(0.1)
            assert [q.get() for _ in range(100)] == list(range(100))

        process = context.Process(target=consume)
        process.start()
        for i in range(100):
            await q.put_async(i)
        process.join()
        assert process.exitcode == 0

    asyncio.run(main())


def test_several_tasks_wait_for_one_queue():
    async def main():
        q = ferry.Queue()
        tasks = [asyncio.create_task(q.get_async()) for _ in range(5)]
        await asyncio.sleep(0.05)
        tasks[2].cancel()
        process = context.Process(target=produce, args=(q, range(4), 0.02))
        process.start()
        got = await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(item for item in got if isinstance(item, int)) == [0, 1, 2, 3]
        process.join()

    asyncio.run(main())


def test_one_queue_in_two_loops_in_turn():
    q = ferry.Queue()

    async def main(item):
        threading.Timer(0.05, q.put, (item,)).start()
        return await q.get_async()

    assert asyncio.run(main(1)) == 1
    assert asyncio.run(main(2)) == 2


def test_an_idle_loop_costs_nothing():
    async def main():
        q = ferry.Queue()
        task = asyncio.create_task(q.get_async())
        began = time.process_time()
        await asyncio.sleep(1)
        assert time.process_time() - began < 0.05
        q.put(1)
        assert await task == 1

    asyncio.run(main())


def test_channels():
    async def main():
        sender = ferry.Channel("asyncio", "sender", capacity=4)
        receiver = ferry.Channel("asyncio", "receiver")

        async def send():
            for i in range(200):
                await sender.send_async(i)
            sender.end_of_stream()

        task = asyncio.create_task(send())
        assert [item async for item in receiver] == list(range(200))
        await task
        with pytest.raises(EOFError):
            await receiver.receive_async()
        sender.close()
        receiver.close()

    asyncio.run(main())


def test_channels_start_no_threads():
    async def main():
        before = n_threads()
        sender = ferry.Channel("asyncio-threads", "sender", capacity=2)
        receiver = ferry.Channel("asyncio-threads", "receiver")
        task = asyncio.create_task(receiver.receive_async())
        await asyncio.sleep(0.1)
        assert n_threads() == before  # while one waits for a message
        await sender.send_async(1)
        assert await task == 1
        for i in range(2):
            await sender.send_async(i)
        task = asyncio.create_task(sender.send_async(2))
        await asyncio.sleep(0.1)
        assert not task.done() and n_threads() == before  # while one waits for room
        assert [await receiver.receive_async() for _ in range(3)] == [0, 1, 2]
        await task
        assert n_threads() == before
        sender.close()
        receiver.close()

    asyncio.run(main())


def test_closing_wakes_who_waits():
    async def main():
        q = ferry.Queue()
        task = asyncio.create_task(q.get_async())
        await asyncio.sleep(0.05)
        q.close()
        with pytest.raises(ValueError):
            await asyncio.wait_for(task, 5)

    asyncio.run(main())
