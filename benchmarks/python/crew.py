# SPDX-License-Identifier: LGPL-2.1-or-later
"""The measuring processes of all ways, from the side that gives them jobs."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from ways import WAYS

_WORKER = Path(__file__).with_name("worker.py")
_STOP_LIMIT = 5.0  # seconds


class Worker:
    """The process that measures one way. It is started when it is needed, and again when it had to be ended."""

    def __init__(self, way: str, python: Path | str, log: TextIO) -> None:
        self.way = way
        self._python = str(python)
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def do(self, job: dict[str, Any], limit: float) -> dict[str, Any]:
        """Return what a job found; `{"error": text}` if it failed or took longer than the limit in seconds."""
        process = self._process
        if process is None or process.poll() is not None:
            process = self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({"way": self.way, **job}) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            self.stop()
            return {"error": "the measuring process ended"}

        answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        stdout = process.stdout
        threading.Thread(target=lambda: answers.put(stdout.readline()), daemon=True).start()
        try:
            line = answers.get(timeout=limit)
        except queue.Empty:
            self.stop()
            return {"error": f"it took more than {limit:.0f} s"}
        if not line:
            self.stop()
            return {"error": "the measuring process ended"}
        result: dict[str, Any] = json.loads(line)
        return result

    def _start(self) -> subprocess.Popen[str]:
        environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1")
        self._process = subprocess.Popen(
            [self._python, str(_WORKER)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # so that all that it started can be ended with it
        )
        return self._process

    def stop(self) -> None:
        """End it, with all that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
        if process.poll() is None:
            # First the friendly way: the standard library's tracker then removes what was left in /dev/shm.
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, number)
                    process.wait(_STOP_LIMIT)
                    break
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue
        process.wait()
        process.stdout.close()


class Workers:
    """One `Worker` for each way."""

    def __init__(self, interpreters: dict[str, Path | str], log: Path) -> None:
        self._log = log.open("w", encoding="utf-8")
        self._workers = {way: Worker(way, python, self._log) for way, python in interpreters.items()}

    def do(self, way: str, job: dict[str, Any], limit: float) -> dict[str, Any]:
        """Return what a job of a way found."""
        return self._workers[way].do(job, limit)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in self._workers.values():
            worker.stop()
        self._log.close()


def standard_interpreter(way: str) -> str | None:
    """Return the interpreter for a way that needs no environment of its own; None if it needs one."""
    return None if WAYS[way].package else sys.executable
