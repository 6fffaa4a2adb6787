# SPDX-License-Identifier: LGPL-2.1-or-later
"""The packages that Ferry is compared with, each in a virtual environment of its own.

Their versions are fixed, so that figures of two runs compare the same things.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT = 300  # seconds, for a package that is to be compiled


@dataclass(frozen=True)
class Peer:
    """A package: what to install, and what to import to know that it works."""

    requirement: str
    module: str
    needs: tuple[str, ...] = ()


PEERS = {
    "py-sharedmemory": Peer("py-sharedmemory==4.3.1", "py_sharedmemory"),
    "py-sharedmemory-2": Peer("py-sharedmemory==2.0.1", "memory"),
    "faster-fifo": Peer("faster-fifo==1.5.2", "faster_fifo"),
    "zeroq": Peer("zeroq==0.1.0", "zeroq"),
    "arrayqueues": Peer("arrayqueues==1.4.1", "arrayqueues"),
    "npshmex": Peer("npshmex==0.2.1", "npshmex", ("SharedArray==3.2.4",)),
    "InterProcessPyObjects": Peer(
        "InterProcessPyObjects==1.0.7",
        "ipc_py_objects",
        ("cengal-light==4.4.0", "py-cpuinfo==9.0.0", "typing_extensions==4.12.2"),
    ),
    "UltraDict": Peer("UltraDict==0.0.6", "UltraDict"),
    "shared-memory-dict": Peer("shared-memory-dict==0.7.2", "shared_memory_dict"),
}


class UnavailableError(Exception):
    """A package can't be had here, or does not work."""


def interpreter(package: str, folder: Path) -> Path:
    """Return the interpreter of the environment that has a package; make it if it is not there.

    Parameters
    ----------
    package : str
        One of `PEERS`.
    folder : Path
        Where the environments are.

    Raises
    ------
    UnavailableError
        It can't be installed or imported.
    """
    peer = PEERS[package]
    environment = folder / peer.requirement
    python = environment / "bin" / "python"
    done = environment / "installed"
    if done.exists():
        return python
    # Half an environment is worse than none.
    shutil.rmtree(environment, ignore_errors=True)
    _run([sys.executable, "-m", "venv", "--system-site-packages", str(environment)], "no virtual environment")
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "--timeout", "15", "--retries", "1"]
    try:
        # NumPy is the system's, and what most need beyond it is not used here.
        # What is compiled is compiled against the system's NumPy.
        install = [*pip, "install", "--no-deps", *(["--no-build-isolation"] if peer.needs else [])]
        _run([*install, peer.requirement, *peer.needs], f"{peer.requirement} can't be installed")
        _run([str(python), "-c", f"import {peer.module}"], f"{peer.requirement} does not work")
    except UnavailableError:
        shutil.rmtree(environment, ignore_errors=True)
        raise
    done.touch()
    return python


def _run(command: list[str], complaint: str) -> None:
    # From Meson's environment come paths that are not for these.
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "LD_LIBRARY_PATH")}
    try:
        result = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{complaint}: {error}") from None
    if result.returncode != 0:
        lines = [line for line in result.stdout.splitlines() if line.strip()]
        raise UnavailableError(f"{complaint}: {lines[-1].strip() if lines else f'status {result.returncode}'}")
