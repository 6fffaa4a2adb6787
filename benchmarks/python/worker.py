# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measure one way to send objects, as told on standard input: a job and its result are a line of JSON each.

A process of its own for each way, run by the interpreter of the environment that has the way's
package. It sends nothing itself: for each job it starts a sending and a receiving process, tells
them through pipes what to do, and adds up what they found. Times are CLOCK_MONOTONIC, which
all processes share.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import mmap
import multiprocessing
import os
import resource
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import calls
import numpy as np
import payloads
from results import HUGE_ADDRESS_SPACE
from ways import WAYS

NS = 1e-9
_PR_SET_PDEATHSIG = 1
_FIRST_ROUNDS = 5
_TURNS_MAX = 1000
_SETTLE = 0.02  # seconds until a process that was told to receive surely waits, and nothing of the telling is in the caches
_SAMPLE_INTERVAL = 0.002  # seconds between looks at the memory
_WARM_UP_LIMIT = 5.0  # seconds; ways that are slower than that are not warmed up to the end
_ANSWER_LIMIT = 600.0  # seconds
_SMALL_ARRAY = 4096  # bytes
_TRIP_BATCHES = 10


class FailedError(Exception):
    """A sending or receiving process could not do what it was told."""


# ---- in the sending and in the receiving process ----


def _begin() -> None:
    # Nothing is left running when the bench is interrupted, and it is the bench that goes when memory ends.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        pass


def _limit_memory(job: dict[str, Any]) -> None:
    if job.get("address_space"):
        resource.setrlimit(resource.RLIMIT_AS, (job["address_space"], job["address_space"]))


def _serve(commands: dict[str, Callable[..., Any]], control: Any, finish: Callable[[], None]) -> None:
    """Do what comes through the pipe until that is `stop`."""
    control.send(("ready", None))
    while True:
        name, *arguments = control.recv()
        if name == "stop":
            finish()
            control.send(("done", None))
            return
        control.send(("done", commands[name](*arguments)))


def _run(main: Callable[..., None], control: Any, *arguments: Any) -> None:
    """Run the main function of a process; what it raises is told, too."""
    _begin()
    try:
        main(control, *arguments)
    except BaseException as error:
        control.send(("failed", str(error) if isinstance(error, FailedError) else f"{type(error).__name__}: {error}"))
        traceback.print_exc()
        os._exit(1)


def _sender(control: Any, job: dict[str, Any], ends: tuple[Any, ...]) -> None:
    way, kind = WAYS[job["way"]], job["kind"]
    obj = payloads.make(kind, job.get("source_size", job["size"]))
    _limit_memory(job)
    puts = [way.put(end, kind) for end in ends]
    now = time.monotonic_ns

    def send(n: int, number: int, channel: int, settle: float) -> tuple[int, int]:
        nonlocal obj
        put = puts[channel]
        obj = payloads.mark(obj, kind, number)
        message = obj
        if settle:
            # The word to send came through a pipe of multiprocessing: its code would still be in the caches, and no other.
            time.sleep(settle)
        began = now()
        for _ in itertools.repeat(None, n):
            put(message)
        return began, now()

    def send_loaned(number: int) -> tuple[int, int]:
        # The array is made in the memory of the channel, so it is not there before.
        array = ends[0].loan(job["size"] // 8, "f8")
        began = now()
        array[:] = 1.0
        array[0] = number
        ends[0].put(array)
        return began, now()

    def finish() -> None:
        for end in ends:
            way.finish(end)

    _serve({"send": send, "send_loaned": send_loaned}, control, finish)


def _receiver(control: Any, job: dict[str, Any], ends: tuple[Any, ...]) -> None:
    way, kind, size = WAYS[job["way"]], job["kind"], job["size"]
    _limit_memory(job)
    gets = [way.get(end, kind) for end in ends]
    now = time.monotonic_ns
    held: Any = None

    def receive(n: int, number: int, channel: int) -> int:
        get = gets[channel]
        obj = None
        if job.get("touch"):
            for _ in itertools.repeat(None, n):
                obj = get()
                payloads.touch(obj, kind)
        else:
            for _ in itertools.repeat(None, n):
                obj = get()
        ended = now()
        wrong = payloads.check(obj, kind, size, number)
        if wrong is not None:
            raise FailedError(f"received something else: {wrong}")
        return ended

    def hold() -> int:
        nonlocal held
        held = gets[0]()
        payloads.touch(held, kind)
        return now()

    def drop() -> None:
        nonlocal held
        held = None

    _serve({"receive": receive, "hold": hold, "drop": drop}, control, lambda: None)


def _initiator(control: Any, job: dict[str, Any], end: Any) -> None:
    way, kind = WAYS[job["way"]], job["kind"]
    obj = payloads.mark(payloads.make(kind, job["size"]), kind, 0)
    put, get = way.put(end[0], kind), way.get(end[1], kind)

    def trips(n: int) -> float:
        answer = None
        began = time.monotonic_ns()
        for _ in itertools.repeat(None, n):
            put(obj)
            answer = get()
        seconds = (time.monotonic_ns() - began) * NS
        wrong = payloads.check(answer, kind, job["size"], 0)
        if wrong is not None:
            raise FailedError(f"received something else: {wrong}")
        return seconds / n

    _serve({"trips": trips}, control, lambda: None)


def _echo(control: Any, job: dict[str, Any], end: Any) -> None:
    way, kind = WAYS[job["way"]], job["kind"]
    put, get = way.put(end[0], kind), way.get(end[1], kind)

    def trips(n: int) -> None:
        for _ in itertools.repeat(None, n):
            put(get())

    _serve({"trips": trips}, control, lambda: None)


def _waiting_sender(control: Any, job: dict[str, Any], ends: list[Any]) -> None:
    """Put a message into each channel while the receiver waits for none, and copy the same beside it."""
    sources = [np.arange(size // 8, dtype=np.float64) for size in _waiting_sizes(job)]
    # Warm shared memory: every page of it was written.
    targets = [np.frombuffer(mmap.mmap(-1, source.nbytes), np.float64) for source in sources]
    for target in targets:
        target[:] = 1
    now = time.monotonic_ns

    def put(order: list[int]) -> dict[int, dict[str, int]]:
        times = {}
        for which in order:
            end, source, target = ends[which], sources[which], targets[which]
            began = now()
            np.copyto(target, source)
            copied = now()
            end.put(source)
            times[which] = {"copy": copied - began, "put": now() - copied}
        return times

    def loan(order: list[int]) -> dict[int, dict[str, int]]:
        times = {}
        for which in order:
            end, length = ends[which], len(sources[which])
            began = now()
            end.put(end.loan(length, "f8"))
            times[which] = {"loan_put": now() - began}
        return times

    _serve({"put": put, "loan": loan}, control, lambda: None)


def _waiting_receiver(control: Any, job: dict[str, Any], ends: list[Any]) -> None:
    now = time.monotonic_ns

    def get(order: list[int]) -> dict[int, dict[str, int]]:
        times = {}
        for which in order:
            end = ends[which]
            began = now()
            obj = end.get()
            got = now()
            del obj
            times[which] = {"get": got - began, "take": now() - began}
        return times

    _serve({"get": get}, control, lambda: None)


def _waiting_sizes(job: dict[str, Any]) -> tuple[int, int, int]:
    # The first one only takes the cost of having slept.
    return _SMALL_ARRAY, _SMALL_ARRAY, job["size"]


# ---- in the process that leads them ----


class Crew:
    """Two processes and the pipes to lead them."""

    def __init__(self, context: Any, mains: tuple[Any, Any], job: dict[str, Any], ends: tuple[Any, Any]) -> None:
        self.processes: list[Any] = []
        self.controls: list[Any] = []
        self._stopped: set[int] = set()
        for main, end in zip(mains, ends, strict=True):
            here, there = context.Pipe()
            process = context.Process(target=_run, args=(main, there, job, end), daemon=True)
            process.start()
            there.close()
            self.processes.append(process)
            self.controls.append(here)
        for index in range(2):
            self.answer(index)

    def tell(self, index: int, *command: Any) -> None:
        """Tell a process what to do."""
        self.controls[index].send(command)

    def answer(self, index: int) -> Any:
        """Return what it found, or raise when either failed."""
        # Whoever fails leaves the other waiting for ever.
        deadline = time.monotonic() + _ANSWER_LIMIT
        control = self.controls[index]
        while not control.poll(0.1):
            if time.monotonic() > deadline:
                raise FailedError("no answer in time")
            other = self.controls[1 - index]
            # One that was told to stop has nothing more to say.
            if 1 - index not in self._stopped and other.poll(0) and not self.processes[1 - index].is_alive():
                self._take(1 - index)
            if not self.processes[index].is_alive() and not control.poll(0):
                raise FailedError(_how_ended(self.processes[index]))
        return self._take(index)

    def _take(self, index: int) -> Any:
        try:
            status, value = self.controls[index].recv()
        except EOFError:
            self.processes[index].join(1)
            raise FailedError(_how_ended(self.processes[index])) from None
        if status == "failed":
            raise FailedError(value)
        return value

    def stop(self) -> None:
        """Let both end in order."""
        for index in (1, 0):
            self.tell(index, "stop")
            self.answer(index)
            self._stopped.add(index)
        for process in self.processes:
            process.join(10)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: object = None, *_: object) -> None:
        try:
            if kind is None:
                self.stop()
        finally:
            for process in self.processes:
                if process.is_alive():
                    process.kill()
                process.join()
            for control in self.controls:
                control.close()


def _how_ended(process: Any) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"a process was killed by {signal.Signals(-code).name}"
    return f"a process ended with status {code}"


class Flow:
    """One sender, one receiver, a channel or several, and how often messages have flown."""

    def __init__(self, context: Any, job: dict[str, Any], n_channels: int = 1) -> None:
        self.way = WAYS[job["way"]]
        self.channels: list[tuple[Any, Any]] = []
        self.number = 0
        try:
            for _ in range(n_channels):
                began = time.monotonic_ns()
                self.channels.append(self.way.make(context, job["capacity"], job["kind"], job["size"]))
                self.creation_ns = time.monotonic_ns() - began
            self.crew = Crew(context, (_sender, _receiver), job, tuple(zip(*self.channels, strict=True)))
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        for ends in self.channels:
            self.way.discard(ends)

    def run(self, n: int, settle: float = 0.0, channel: int = 0) -> tuple[float, float]:
        """Send n messages; seconds from the first put to the last get, and to the last put."""
        self.number += 1
        self.crew.tell(1, "receive", n, self.number, channel)
        self.crew.tell(0, "send", n, self.number, channel, settle)
        ended = self.crew.answer(1)
        began, put = self.crew.answer(0)
        return (ended - began) * NS, (put - began) * NS

    def __enter__(self) -> Flow:
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self.crew.__exit__(*exc_info)
        finally:
            self._discard()


def measure_flow(context: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Messages one after the other: seconds for each, from the first put to the last get."""
    duration, capacity = job["duration"], job["capacity"]
    with Flow(context, job) as flow:
        n, count, spent = 1, 0, 0.0
        while True:
            seconds, _ = flow.run(n)
            count += n
            spent += seconds
            # Every block that may be in flight was used twice, and every buffer has grown.
            if (count >= 2 * (capacity + 2) and spent >= duration / 2) or spent >= _WARM_UP_LIMIT:
                break
            n = min(2 * n, job["max_messages"])
        n = max(min(int(duration * n / max(seconds, 1e-9)), job["max_messages"]), job["min_messages"])
        seconds, put_seconds = flow.run(n)
    return {"value": seconds / n, "put": put_seconds / n, "messages": n, "warm_up": count}


def measure_turns(context: Any, job: dict[str, Any]) -> dict[str, Any]:
    """One message at a time, the receiver waits for it: seconds from put to got."""
    duration, capacity = job["duration"], job["capacity"]
    values: list[float] = []
    spent = 0.0
    with Flow(context, job) as flow:
        for _ in range(capacity + 2):
            spent += flow.run(1)[0]
            if spent >= _WARM_UP_LIMIT:
                break
        while len(values) < job["min_messages"] or (sum(values) < duration and len(values) < _TURNS_MAX):
            values.append(flow.run(1)[0])
    return {"value": statistics.median(values), "messages": len(values)}


def measure_first(context: Any, job: dict[str, Any]) -> dict[str, Any]:
    """The first message of a new channel, from put to got; the same of new processes; and making the channel.

    Both processes get the ends of two channels. The first message of the one is also the first that they ever send or
    receive in this way; that of the other has only what is a channel's.
    """
    way = WAYS[job["way"]]
    way.prepare(job["kind"], job["size"])
    # What the first channel of a process costs beyond that, imports for example, is not a channel's.
    ends = way.make(context, job["capacity"], job["kind"], min(job["size"], 1000))
    way.discard(ends)
    values: list[float] = []
    in_processes: list[float] = []
    creations: list[float] = []
    spent = 0.0
    while len(values) < _FIRST_ROUNDS and spent < _WARM_UP_LIMIT:
        with Flow(context, job, n_channels=2) as flow:
            in_processes.append(flow.run(1, _SETTLE)[0])
            values.append(flow.run(1, _SETTLE, channel=1)[0])
            creations.append(flow.creation_ns * NS)
        spent += in_processes[-1] + values[-1] + creations[-1]
    return {
        "value": statistics.median(values),
        "first-in-process": statistics.median(in_processes),
        "creation": statistics.median(creations),
        "rounds": len(values),
    }


def measure_round_trip(context: Any, job: dict[str, Any]) -> dict[str, Any]:
    """There and back, both sides active: seconds for each trip, the median over batches."""
    way = WAYS[job["way"]]
    ends = way.make_pair(context, job["capacity"], job["kind"], job["size"])
    values: list[float] = []

    def run(n: int) -> float:
        crew.tell(1, "trips", n)
        crew.tell(0, "trips", n)
        value: float = crew.answer(0)
        crew.answer(1)
        return value

    try:
        with Crew(context, (_initiator, _echo), job, ends) as crew:
            n, spent = 1, 0.0
            while spent < job["duration"] / 2:
                value = run(n)
                spent += value * n
                n = min(2 * n, job["max_messages"])
            n = max(min(int(job["duration"] / _TRIP_BATCHES / value), job["max_messages"]), job["min_messages"])
            values = [run(n) for _ in range(_TRIP_BATCHES)]
    finally:
        for pair in {id(e): e for end in ends for e in end}.values():
            way.discard((pair, pair))
    return {"value": statistics.median(values), "messages": n * _TRIP_BATCHES}


def measure_waiting(context: Any, job: dict[str, Any]) -> dict[str, Any]:
    """ferry.Queue, nobody waiting for anybody: seconds of put, get and release, beside a copy of the same.

    In each round one message of 4 KiB and one of the size, in both orders, through a channel
    each; then both again, loaned instead of copied. `take` is to get and release.
    """
    import ferry

    queues = [ferry.Queue(job["capacity"]) for _ in range(3)]
    labels = ("opener", "small", "large")
    times: dict[str, list[float]] = {}
    with Crew(context, (_waiting_sender, _waiting_receiver), job, (queues, queues)) as crew:
        spent, rounds, warm = 0.0, 0, 2 * (job["capacity"] + 2)
        while rounds < warm + 10 or (spent < job["duration"] * 4 and rounds < warm + 2000):
            order = [0, 1, 2] if rounds % 2 == 0 else [0, 2, 1]
            began = time.monotonic()
            for how in ("put", "loan"):
                crew.tell(0, how, order)
                put = crew.answer(0)
                crew.tell(1, "get", order)
                got = crew.answer(1)
                if rounds < warm:
                    continue
                for which, label in enumerate(labels):
                    for key, value in {**put[which], **got[which]}.items():
                        times.setdefault(f"{key}_{label}", []).append(value * NS)
            spent += time.monotonic() - began
            rounds += 1
    for queue in queues:
        queue.close()
    return {key: statistics.median(values) for key, values in times.items()} | {"rounds": rounds - warm}


def measure_processes(pids: list[int]) -> int:
    """Return the bytes that the processes take together, each page once."""
    private = 0
    files: dict[tuple[int, int], int] = {}
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            name, _, rest = line.partition(":")
            if name in ("Pss_Anon", "Pss_File"):
                private += int(rest.split()[0]) << 10
        # Not Pss_Shmem: it changes between the looks at two processes, and lacks what is mapped in neither.
        for folder in ("fd", "map_files"):
            for link in os.scandir(f"/proc/{pid}/{folder}"):
                try:
                    if os.readlink(link.path).startswith(("/memfd:", "/dev/shm/")):
                        status = os.stat(link.path)
                        files[status.st_dev, status.st_ino] = status.st_blocks * 512
                except OSError:
                    pass
    return private + sum(files.values())


def measure_memory(context: Any, job: dict[str, Any]) -> dict[str, Any]:
    """The most memory that both take while a message goes over and is held, against what they had before."""
    loan = job.get("loan", False)
    if loan:
        job = job | {"source_size": _SMALL_ARRAY}
    with Flow(context, job) as flow:
        pids = [process.pid for process in flow.crew.processes]
        before = peak = measure_processes(pids)
        flow.crew.tell(1, "hold")
        if loan:
            flow.crew.tell(0, "send_loaned", 1)
        else:
            flow.crew.tell(0, "send", 1, 1, 0, 0.0)
        while not flow.crew.controls[1].poll(0):
            peak = max(peak, measure_processes(pids))
            time.sleep(_SAMPLE_INTERVAL)
        flow.crew.answer(1)
        flow.crew.answer(0)
        peak = max(peak, measure_processes(pids))
        flow.crew.tell(1, "drop")
        flow.crew.answer(1)
    return {"value": (peak - before) / job["size"], "before": before, "peak": peak}


def measure_huge(context: Any, job: dict[str, Any]) -> dict[str, Any]:
    """One message that memory holds hardly once: seconds from put to got, or what went wrong."""
    if WAYS[job["way"]].group != "ferry":
        job = job | {"address_space": HUGE_ADDRESS_SPACE}
    with Flow(context, job) as flow:
        seconds, _ = flow.run(1)
    return {"value": seconds, "messages": 1}


MEASURES = {
    "flow": measure_flow,
    "turns": measure_turns,
    "first": measure_first,
    "round-trip": measure_round_trip,
    "waiting": measure_waiting,
    "memory": measure_memory,
    "huge": measure_huge,
    "calls": calls.measure_calls,
}


def main() -> None:
    """Do the jobs that come in, until there are no more."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what packages print must not come between the results
    # Processes that are forked before there is one start one each, and these remove what others still use.
    resource_tracker.ensure_running()
    for line in sys.stdin:
        job = json.loads(line)
        # For packages that take the default context.
        multiprocessing.set_start_method(job["start"], force=True)
        context = multiprocessing.get_context(job["start"])
        try:
            result = MEASURES[job["measure"]](context, job)
        except Exception as error:
            text = str(error) if isinstance(error, FailedError) else f"{type(error).__name__}: {error}"
            result = {"error": text}
            if not isinstance(error, FailedError):
                traceback.print_exc()
        results.write(json.dumps(result) + "\n")
        results.flush()


if __name__ == "__main__":
    main()
