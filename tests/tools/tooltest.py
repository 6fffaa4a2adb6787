# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the command-line tools have in common."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any

TRANSPORTS = ("memfd", "posix-shm")

# Sanitizers make everything slower; nothing below waits that long unless it fails.
TIME_LIMIT = 60.0  # seconds
POLL_INTERVAL = 0.02  # seconds
#: More is read, so that the tool goes on, and forgotten: a sender that fails to end must not fill the memory. Bytes.
OUTPUT_MAX = 1 << 30
THOROUGH = "FERRY_TEST_THOROUGH" in os.environ

_counter = itertools.count()

# What this program was started with ignored, by nohup or as a shell's background job, the tools would leave so.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)

# A group of ours: one that nobody else has, where we may give ourselves one.
GROUP = 2**24 + os.getpid() if os.geteuid() == 0 else os.getegid()
if os.geteuid() == 0:
    os.setgroups([GROUP])

# Directories of this program's own: whoever creates a channel sweeps what the dead left beside it, and other tests
# run at the same time.
_shm = tempfile.TemporaryDirectory(prefix="ferry-tools-", dir="/dev/shm")
_runtime = tempfile.TemporaryDirectory(prefix="t", dir=os.environ.get("XDG_RUNTIME_DIR"))


def make_environment() -> dict[str, str]:
    """What tools run in: under ThreadSanitizer with what tells it of GLib's locks, which Python could not load."""
    environment = dict(os.environ)
    environment["FERRY_SHM_DIR"] = _shm.name
    environment["XDG_RUNTIME_DIR"] = _runtime.name
    if preload := environment.pop("FERRY_TEST_PRELOAD", ""):
        environment["LD_PRELOAD"] = preload
    return environment


class Tool:
    """A running tool with its output collected in threads; killed at the end of the test."""

    def __init__(self, *arguments: str, stdin: int = subprocess.PIPE, stdout: int = subprocess.PIPE) -> None:
        self.process = subprocess.Popen(
            arguments, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=make_environment()
        )
        self.arguments = arguments
        self.output = bytearray()
        self.errors = bytearray()
        self._threads = [self._collect(self.process.stderr, self.errors)]
        if self.process.stdout is not None:
            self._threads.append(self._collect(self.process.stdout, self.output))

    def _collect(self, stream: Any, into: bytearray) -> threading.Thread:
        def collect() -> None:
            while chunk := stream.read1(1 << 16):
                if len(into) < OUTPUT_MAX:
                    into.extend(chunk)

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        return thread

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def message(self) -> str:
        """What it wrote to standard error so far."""
        return self.errors.decode(errors="replace")

    def feed(self, data: bytes) -> None:
        """Write to its standard input; its end of the pipe may be gone."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end_input(self) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, limit: float = TIME_LIMIT) -> int:
        """Wait for its end and return the exit status; fails after the limit."""
        try:
            status = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{' '.join(self.arguments)} did not end within {limit} s; it wrote: {self.message}"
            ) from None
        for thread in self._threads:
            thread.join(limit)
        return status

    def is_running(self) -> bool:
        return self.process.poll() is None

    def dispose(self) -> None:
        if self.is_running():
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join(TIME_LIMIT)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass


class ToolTestCase(unittest.TestCase):
    """A test that starts tools and leaves none of them behind."""

    maxDiff = 2000

    @classmethod
    def tearDownClass(cls) -> None:
        # What a failed test left; one that passed has left nothing.
        command = ("ferry-clean", "--remove", "--quiet", f"tooltest-{os.getpid()}-*")
        subprocess.run(command, timeout=TIME_LIMIT, env=make_environment())
        with contextlib.suppress(OSError):  # never made, or not ours alone
            os.rmdir(f"/tmp/ferry-1.0-group-{GROUP}")

    def start(self, *arguments: str, **options: int) -> Tool:
        tool = Tool(*arguments, **options)
        self.addCleanup(tool.dispose)
        return tool

    def start_with_input(self, data: bytes, *arguments: str) -> Tool:
        """Start a tool that reads the data and then the end of its input."""
        tool = self.start(*arguments)

        def feed() -> None:
            try:
                tool.feed(data)
            except (BrokenPipeError, ValueError):
                pass
            tool.end_input()

        threading.Thread(target=feed, daemon=True).start()
        return tool

    def run_tool(self, *arguments: str, data: bytes = b"") -> tuple[int, str, str]:
        """Run a tool to its end: exit status, output, standard error."""
        done = subprocess.run(
            arguments, input=data, capture_output=True, timeout=TIME_LIMIT, env=make_environment()
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def make_name(self) -> str:
        return f"tooltest-{os.getpid()}-{next(_counter)}"

    def wait_until(self, condition: Callable[[], bool], what: str, limit: float = TIME_LIMIT) -> None:
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                self.fail(f"not within {limit} s: {what}")
            time.sleep(POLL_INTERVAL)

    def list_channels(self, *arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
        """What ferry-ls tells, by transport and name; of this test's own channels unless a pattern is given."""
        if all(argument.startswith("-") for argument in arguments):
            arguments += (f"tooltest-{os.getpid()}-*",)
        status, output, errors = self.run_tool("ferry-ls", "--json", *arguments)
        self.assertEqual(status, 0, errors)
        return {(item["transport"], item["name"]): item for item in json.loads(output)["channels"]}

    def list_groups(self, name: str, *options: str) -> list[int | None]:
        """The groups of all channels of that name."""
        _, output, _ = self.run_tool("ferry-ls", "--json", *options, name)
        return [channel.get("group") for channel in json.loads(output)["channels"]]

    def start_pair(self, transport: str, name: str, settings: str = "") -> tuple[Tool, Tool]:
        """Start a sender with its input open and a receiver."""
        description = f"{transport} name={name} {settings}"
        receiver = self.start("ferry-cat", "--receive", description, stdin=subprocess.DEVNULL)
        sender = self.start("ferry-cat", "--send", description)
        self.wait_for_participants(transport, name, senders=1, receivers=1)
        return sender, receiver

    def wait_for_participants(self, transport: str, name: str, senders: int = 0, receivers: int = 0) -> None:
        """Wait until ferry-ls shows at least so many participants."""

        def are_there() -> bool:
            channel = self.list_channels().get((transport, name), {})
            return channel.get("senders", 0) >= senders and channel.get("receivers", 0) >= receivers

        self.wait_until(are_there, f"{senders} senders and {receivers} receivers in {transport} name={name}")

    def assert_nothing_left(self, transport: str, name: str) -> None:
        """Check that the channel is gone and has left no name."""
        self.wait_until(
            lambda: (transport, name) not in self.list_channels("--all"), f"{transport} name={name} is gone"
        )

    def kill(self, *tools: Tool) -> None:
        """Kill as nobody can catch, and wait until they are dead."""
        for tool in tools:
            tool.send_signal(signal.SIGKILL)
        for tool in tools:
            self.assertEqual(tool.wait(), -signal.SIGKILL)


def for_each_transport(method: Callable[[Any, str], None]) -> Callable[[Any], None]:
    """Run a test once for each transport."""

    def run(self: ToolTestCase) -> None:
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                method(self, transport)

    run.__name__ = method.__name__
    run.__doc__ = method.__doc__
    return run
