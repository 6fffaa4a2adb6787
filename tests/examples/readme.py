#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run what README.md shows, as it stands there.

    readme.py README.md BUILD-FOLDER
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

TIMEOUT = 40  # seconds

README = Path(sys.argv[1]).read_text(encoding="utf-8")
BUILD = Path(sys.argv[2]).resolve()
ENVIRONMENT = {**os.environ, "PKG_CONFIG_PATH": str(BUILD / "meson-uninstalled")}


def block(language: str, containing: str) -> str:
    """The fenced block of that language with that text in it."""
    found = [text for text in re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S) if containing in text]
    assert len(found) == 1, f"README.md has {len(found)} blocks of {language} with '{containing}'"
    return found[0]


def greeting(folder: Path) -> str:
    """The sender in C and the receiver in Python."""
    (folder / "greet.c").write_text(block("c", "#include <ferry.h>"))
    (folder / "greet.py").write_text(block("python", "ferry.Channel"))
    command = re.search(r"`(cc greet\.c [^`]*)`", README)
    assert command, "README.md does not tell how to build the example"
    subprocess.run(command.group(1), shell=True, check=True, cwd=folder, env=ENVIRONMENT, timeout=TIMEOUT)
    with subprocess.Popen([folder / "a.out"], env=ENVIRONMENT) as sender:
        try:
            received = subprocess.run(
                ["/usr/bin/python3", folder / "greet.py"],
                env=ENVIRONMENT,
                check=True,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
            assert sender.wait(TIMEOUT) == 0, "the sender failed"
        finally:
            sender.kill()
    return received.stdout


def queue(folder: Path) -> str:
    """The queue between two processes of one program."""
    program = folder / "frames.py"
    program.write_text(block("python", "ferry.Queue"))
    command = ["/usr/bin/python3", program]
    return subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True, timeout=TIMEOUT).stdout


def shell(folder: Path) -> None:
    """The folder that goes through ferry-cat."""
    send, receive = block("sh", "ferry-cat --send").splitlines()
    (folder / "folder").mkdir()
    (folder / "folder" / "file").write_text("content")
    (folder / "there").mkdir()
    with subprocess.Popen(send, shell=True, cwd=folder, env=ENVIRONMENT) as sender:
        try:
            subprocess.run(receive, shell=True, check=True, cwd=folder / "there", env=ENVIRONMENT, timeout=TIMEOUT)
            assert sender.wait(TIMEOUT) == 0, f"{shlex.quote(send)} failed"
        finally:
            sender.kill()
    assert (folder / "there/folder/file").read_text() == "content"


with tempfile.TemporaryDirectory(dir=BUILD, prefix="readme-") as scratch:
    output = greeting(Path(scratch))
    assert output == "b'hello'\n", f"the receiver printed {output!r}"
    output = queue(Path(scratch))
    assert output == "0 0.0\n1 1.0\n2 2.0\n", f"the queue printed {output!r}"
    shell(Path(scratch))
