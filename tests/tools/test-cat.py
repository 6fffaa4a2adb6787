#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""ferry-cat: every byte comes through, or both sides say that it did not."""

import hashlib
import io
import os
import random
import signal
import subprocess
import tarfile
import time
import unittest
from pathlib import Path

from tooltest import THOROUGH, TIME_LIMIT, Tool, ToolTestCase, for_each_transport, make_environment

TREE_FOLDERS = ("/usr/share/doc", "/usr/lib/python3", "/usr/include")
TREE_SIZE = (200 if THOROUGH else 20) << 20  # bytes of archive at least, if there are so many
MAX_FILE_SIZE = 4 << 20  # bytes
BLOCK_SIZE = 256 << 10  # bytes, ferry-cat's own
ENDLESS = "/dev/zero"


def make_archive() -> bytes:
    """An archive of a real tree, of bounded size."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder in TREE_FOLDERS:
            for path in sorted(Path(folder).rglob("*")):
                if archive.tell() > TREE_SIZE:
                    return archive.getvalue()
                try:
                    if path.is_symlink() or path.is_dir() or (path.is_file() and path.stat().st_size < MAX_FILE_SIZE):
                        tar.add(path, recursive=False)
                except OSError:
                    continue
    return archive.getvalue()


def make_noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


class CatTest(ToolTestCase):
    def start_receiver(self, description: str, *options: str, **streams: int) -> Tool:
        return self.start("ferry-cat", "--receive", description, *options, stdin=subprocess.DEVNULL, **streams)

    def start_endless_sender(self, description: str, *options: str) -> Tool:
        with open(ENDLESS, "rb") as source:
            return self.start("ferry-cat", "--send", description, *options, stdin=source.fileno())

    def assert_passes(self, transport: str, data: bytes, *options: str, receiver_first: bool = True) -> None:
        """Send the data and check that the same bytes arrive and both sides end well."""
        name = self.make_name()
        description = f"{transport} name={name}"
        if receiver_first:
            receiver = self.start_receiver(description)
            self.wait_for_participants(transport, name, receivers=1)
            sender = self.start_with_input(data, "ferry-cat", "--send", description, *options)
        else:
            sender = self.start_with_input(data, "ferry-cat", "--send", description, *options)
            self.wait_for_participants(transport, name, senders=1)
            receiver = self.start_receiver(description)
        self.assertEqual(sender.wait(), 0, sender.message)
        self.assertEqual(receiver.wait(), 0, receiver.message)
        self.assertEqual(len(receiver.output), len(data))
        self.assertEqual(hashlib.sha256(receiver.output).hexdigest(), hashlib.sha256(data).hexdigest())
        # Nothing to say, and no terminal to say progress to.
        self.assertEqual((sender.message, receiver.message), ("", ""))
        self.assert_nothing_left(transport, name)


class Passing(CatTest):
    @for_each_transport
    def test_tree(self, transport: str) -> None:
        """A real directory tree."""
        archive = make_archive()
        self.assertGreater(len(archive), 1 << 20)
        self.assert_passes(transport, archive)
        self.assert_passes(transport, archive, receiver_first=False)

    @for_each_transport
    def test_empty(self, transport: str) -> None:
        """Empty input: only the end of the stream travels."""
        self.assert_passes(transport, b"")
        self.assert_passes(transport, b"", receiver_first=False)

    @for_each_transport
    def test_one_byte(self, transport: str) -> None:
        self.assert_passes(transport, b"\0")
        self.assert_passes(transport, b"\n", receiver_first=False)

    @for_each_transport
    def test_sizes(self, transport: str) -> None:
        """Binary data of sizes around that of a block."""
        for size in (BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 5 * BLOCK_SIZE + 17):
            self.assert_passes(transport, make_noise(size))

    @for_each_transport
    def test_block_size(self, transport: str) -> None:
        """Small blocks, inside the slots and beyond, and a large one."""
        for block_size, size in (("1", 500), ("100", 20_000), ("1000", 300_000), ("4M", 9_000_000)):
            self.assert_passes(transport, make_noise(size), "--block-size", block_size)

    @for_each_transport
    def test_file(self, transport: str) -> None:
        """A plain file as input and output instead of pipes."""
        name = self.make_name()
        data = make_noise(3 * BLOCK_SIZE + 5)
        scratch = Path(os.environ.get("MESON_BUILD_ROOT", "/tmp"))
        source, target = scratch / f"{name}-source", scratch / f"{name}-target"
        self.addCleanup(source.unlink, missing_ok=True)
        self.addCleanup(target.unlink, missing_ok=True)
        source.write_bytes(data)
        with source.open("rb") as stdin, target.open("wb") as stdout:
            sender = self.start("ferry-cat", "-s", f"{transport} name={name}", stdin=stdin.fileno())
            receiver = self.start_receiver(f"{transport} name={name}", stdout=stdout.fileno())
        self.assertEqual(sender.wait(), 0, sender.message)
        self.assertEqual(receiver.wait(), 0, receiver.message)
        self.assertEqual(target.read_bytes(), data)

    @for_each_transport
    def test_trickle(self, transport: str) -> None:
        """What trickles in comes out at once, not when a block is full."""
        name = self.make_name()
        receiver = self.start_receiver(f"{transport} name={name}")
        sender = self.start("ferry-cat", "--send", f"{transport} name={name}")
        for count in range(1, 4):
            sender.feed(b"word\n")
            self.wait_until(lambda: receiver.output == b"word\n" * count, "the words so far came out")
        sender.end_input()
        self.assertEqual(sender.wait(), 0, sender.message)
        self.assertEqual(receiver.wait(), 0, receiver.message)

    @for_each_transport
    def test_stopped_sender(self, transport: str) -> None:
        """A stopped sender is alive."""
        name = self.make_name()
        receiver = self.start_receiver(f"{transport} name={name}")
        sender = self.start("ferry-cat", "--send", f"{transport} name={name}")
        sender.feed(b"before ")
        self.wait_until(lambda: receiver.output == b"before ", "the first part came out")
        sender.send_signal(signal.SIGSTOP)
        time.sleep(2)
        self.assertTrue(receiver.is_running(), receiver.message)
        sender.send_signal(signal.SIGCONT)
        sender.feed(b"after")
        sender.end_input()
        self.assertEqual(sender.wait(), 0, sender.message)
        self.assertEqual(receiver.wait(), 0, receiver.message)
        self.assertEqual(receiver.output, b"before after")

    @for_each_transport
    def test_two_receivers(self, transport: str) -> None:
        """Two receivers of a work queue share the stream and lose nothing."""
        name = self.make_name()
        description = f"{transport} name={name}"
        receivers = [self.start_receiver(description) for _ in range(2)]
        lines = [b"%07d\n" % i for i in range(50_000)]
        # Blocks that hold whole lines: the stream is cut between messages only.
        sender = self.start_with_input(
            b"".join(lines), "ferry-cat", "--send", description, "--block-size", "8", "--wait-receivers", "2"
        )
        self.assertEqual(sender.wait(), 0, sender.message)
        for receiver in receivers:
            self.assertEqual(receiver.wait(), 0, receiver.message)
        received = [bytes(receiver.output).splitlines(keepends=True) for receiver in receivers]
        self.assertEqual(sorted(received[0] + received[1]), lines)
        self.assertEqual(received[0], sorted(received[0]))

    @for_each_transport
    def test_broadcast(self, transport: str) -> None:
        """Each receiver of a broadcast gets all of it."""
        name = self.make_name()
        description = f"{transport} name={name} mode=broadcast"
        data = make_noise(10 * BLOCK_SIZE + 3)
        receivers = [self.start_receiver(description) for _ in range(2)]
        sender = self.start_with_input(data, "ferry-cat", "--send", description, "-w", "2")
        self.assertEqual(sender.wait(), 0, sender.message)
        for receiver in receivers:
            self.assertEqual(receiver.wait(), 0, receiver.message)
            self.assertEqual(receiver.output, data)

    @for_each_transport
    def test_two_senders(self, transport: str) -> None:
        """Two senders are merged; the stream ends when both have."""
        name = self.make_name()
        description = f"{transport} name={name}"
        receiver = self.start_receiver(description)
        senders = [self.start("ferry-cat", "--send", description, "--block-size", "8") for _ in range(2)]
        self.wait_for_participants(transport, name, senders=2, receivers=1)
        lines = [[b"%c%06d\n" % (b"ab"[i], j) for j in range(5000)] for i in range(2)]
        senders[0].feed(b"".join(lines[0]))
        senders[0].end_input()
        self.assertEqual(senders[0].wait(), 0, senders[0].message)
        self.assertTrue(receiver.is_running(), receiver.message)
        senders[1].feed(b"".join(lines[1]))
        senders[1].end_input()
        self.assertEqual(senders[1].wait(), 0, senders[1].message)
        self.assertEqual(receiver.wait(), 0, receiver.message)
        received = bytes(receiver.output).splitlines(keepends=True)
        for i in range(2):
            self.assertEqual([line for line in received if line[:1] == b"ab"[i : i + 1]], lines[i])

    def test_words_and_uri(self) -> None:
        """A description may be several words, or a URI."""
        name = self.make_name()
        receiver = self.start("ferry-cat", "-r", f"ferry+memfd:{name}?capacity=8", stdin=subprocess.DEVNULL)
        sender = self.start_with_input(b"data", "ferry-cat", "-s", "memfd", f"name={name}", "capacity=8")
        self.assertEqual(sender.wait(), 0, sender.message)
        self.assertEqual(receiver.wait(), 0, receiver.message)
        self.assertEqual(receiver.output, b"data")

    def test_progress(self) -> None:
        name = self.make_name()
        receiver = self.start_receiver(f"memfd name={name}", "--progress")
        sender = self.start_with_input(bytes(3 << 20), "ferry-cat", "--progress", "--send", f"memfd name={name}")
        self.assertEqual(sender.wait(), 0, sender.message)
        self.assertEqual(receiver.wait(), 0, receiver.message)
        self.assertIn("sent 3.00 MiB", sender.message)
        self.assertIn("received 3.00 MiB", receiver.message)


class Ending(CatTest):
    """The ways in which one side ends the stream before its time."""

    @for_each_transport
    def test_broken_pipe(self, transport: str) -> None:
        """The reader of the receiver goes: both sides end and say so."""
        name = self.make_name()
        description = f"{transport} name={name}"
        reading, writing = os.pipe()
        receiver = self.start_receiver(description, stdout=writing)
        os.close(writing)
        sender = self.start_endless_sender(description)
        self.assertEqual(len(os.read(reading, 10)), 10)
        os.close(reading)
        self.assertEqual(receiver.wait(), 1)
        self.assertIn("nobody reads standard output any more", receiver.message)
        self.assertEqual(sender.wait(), 1)
        self.assertIn("closed by a receiver", sender.message)
        self.assert_nothing_left(transport, name)

    @for_each_transport
    def test_broken_pipe_at_rest(self, transport: str) -> None:
        """The reader goes while no message comes: nobody waits for one to find out."""
        name = self.make_name()
        description = f"{transport} name={name}"
        reading, writing = os.pipe()
        receiver = self.start_receiver(description, stdout=writing)
        os.close(writing)
        sender = self.start("ferry-cat", "--send", description)
        self.wait_for_participants(transport, name, senders=1, receivers=1)
        os.close(reading)
        self.assertEqual(receiver.wait(), 1, receiver.message)
        self.assertEqual(sender.wait(), 1, sender.message)
        self.assertIn("closed by a receiver", sender.message)

    @for_each_transport
    def test_broken_pipe_at_the_end(self, transport: str) -> None:
        """The last message can't be written: the sender, who had sent it, hears of it."""
        name = self.make_name()
        description = f"{transport} name={name}"
        reading, writing = os.pipe()
        receiver = self.start_receiver(description, stdout=writing)
        os.close(writing)
        os.close(reading)
        sender = self.start_with_input(b"all there is", "ferry-cat", "--send", description)
        self.assertEqual(receiver.wait(), 1, receiver.message)
        # The receiver may have left before the sender came, and then nobody ever comes.
        try:
            self.assertEqual(sender.wait(2), 1, sender.message)
        except AssertionError:
            self.assertTrue(sender.is_running())

    @for_each_transport
    def test_interrupted_receiver(self, transport: str) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            name = self.make_name()
            description = f"{transport} name={name}"
            receiver = self.start_receiver(description)
            sender = self.start_endless_sender(description)
            self.wait_until(lambda: len(receiver.output) > BLOCK_SIZE, "data flows")
            receiver.send_signal(number)
            self.assertEqual(receiver.wait(), 128 + number, receiver.message)
            self.assertIn("interrupted", receiver.message)
            self.assertEqual(sender.wait(), 1, sender.message)
            self.assertIn("receiver", sender.message)
            self.assert_nothing_left(transport, name)

    @for_each_transport
    def test_interrupted_sender(self, transport: str) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            name = self.make_name()
            description = f"{transport} name={name}"
            receiver = self.start_receiver(description)
            sender = self.start_endless_sender(description)
            self.wait_until(lambda: len(receiver.output) > BLOCK_SIZE, "data flows")
            sender.send_signal(number)
            self.assertEqual(sender.wait(), 128 + number, sender.message)
            self.assertEqual(receiver.wait(), 1, receiver.message)
            self.assertIn("closed before the end of the stream", receiver.message)
            self.assert_nothing_left(transport, name)

    @for_each_transport
    def test_interrupted_while_waiting(self, transport: str) -> None:
        """Ctrl-C gets each side out of everything that it may wait for."""
        name = self.make_name()
        description = f"{transport} name={name}"

        receiver = self.start_receiver(description)
        self.wait_for_participants(transport, name, receivers=1)
        receiver.send_signal(signal.SIGINT)
        self.assertEqual(receiver.wait(), 130, "a receiver waits for a sender: " + receiver.message)

        sender = self.start("ferry-cat", "--send", description)
        self.wait_for_participants(transport, name, senders=1)
        sender.send_signal(signal.SIGINT)
        self.assertEqual(sender.wait(), 130, "a sender waits for input: " + sender.message)

        sender = self.start_with_input(b"", "ferry-cat", "--send", description)
        self.wait_for_participants(transport, name, senders=1)
        time.sleep(0.2)
        sender.send_signal(signal.SIGINT)
        self.assertEqual(sender.wait(), 130, "a sender waits for a receiver: " + sender.message)

        sender = self.start_endless_sender(description + " capacity=4")
        self.wait_for_participants(transport, name, senders=1)
        time.sleep(0.2)
        sender.send_signal(signal.SIGINT)
        self.assertEqual(sender.wait(), 130, "a sender waits for room: " + sender.message)
        self.assert_nothing_left(transport, name)

    @for_each_transport
    def test_interrupted_in_write(self, transport: str) -> None:
        """A receiver whose output nobody takes is interrupted inside write()."""
        name = self.make_name()
        description = f"{transport} name={name}"
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        receiver = self.start_receiver(description, stdout=writing)
        os.close(writing)
        sender = self.start_endless_sender(description)
        self.wait_for_participants(transport, name, senders=1, receivers=1)
        time.sleep(0.5)
        receiver.send_signal(signal.SIGTERM)
        self.assertEqual(receiver.wait(), 143, receiver.message)
        self.assertEqual(sender.wait(), 1, sender.message)

    @for_each_transport
    def test_killed_sender(self, transport: str) -> None:
        """What a sender sent before it was killed comes out, then an error."""
        name = self.make_name()
        description = f"{transport} name={name}"
        receiver = self.start_receiver(description)
        sender = self.start("ferry-cat", "--send", description)
        sender.feed(b"last words")
        self.wait_until(lambda: receiver.output == b"last words", "the words came out")
        killed = time.monotonic()
        self.kill(sender)
        self.assertEqual(receiver.wait(), 1)
        self.assertLess(time.monotonic() - killed, 10)
        self.assertIn("sender died before the end of the stream", receiver.message)
        self.assert_nothing_left(transport, name)

    @for_each_transport
    def test_killed_busy_sender(self, transport: str) -> None:
        name = self.make_name()
        description = f"{transport} name={name}"
        receiver = self.start_receiver(description)
        sender = self.start_endless_sender(description)
        self.wait_until(lambda: len(receiver.output) > BLOCK_SIZE, "data flows")
        self.kill(sender)
        self.assertEqual(receiver.wait(), 1)
        self.assertIn("sender died before the end of the stream", receiver.message)
        self.assertEqual(receiver.output.count(0), len(receiver.output))
        self.assert_nothing_left(transport, name)

    @for_each_transport
    def test_killed_receiver(self, transport: str) -> None:
        """The sender, blocked or at rest, hears that nobody receives any more."""
        for endless in (True, False):
            name = self.make_name()
            description = f"{transport} name={name}"
            receiver = self.start_receiver(description)
            if endless:
                sender = self.start_endless_sender(description)
                self.wait_until(lambda: len(receiver.output) > BLOCK_SIZE, "data flows")
            else:
                sender = self.start("ferry-cat", "--send", description)
                self.wait_for_participants(transport, name, senders=1, receivers=1)
                # A receiver that came and died between two looks of the sender has taken nothing.
                time.sleep(1)
            self.kill(receiver)
            self.assertEqual(sender.wait(), 1)
            self.assertIn("died before the end of the stream", sender.message)
            self.assert_nothing_left(transport, name)

    @for_each_transport
    def test_one_of_two_receivers_killed(self, transport: str) -> None:
        """The others go on to the end, and the loss is told."""
        name = self.make_name()
        description = f"{transport} name={name}"
        receivers = [self.start_receiver(description) for _ in range(2)]
        sender = self.start("ferry-cat", "--send", description)
        self.wait_for_participants(transport, name, senders=1, receivers=2)
        self.kill(receivers[0])
        for word in (b"one ", b"two ", b"three"):
            sender.feed(word)
            time.sleep(0.3)
        sender.end_input()
        self.assertEqual(receivers[1].wait(), 0, receivers[1].message)
        self.assertEqual(receivers[1].output, b"one two three")
        self.assertEqual(sender.wait(), 1)
        self.assertIn("may be lost", sender.message)

    @for_each_transport
    def test_timeout(self, transport: str) -> None:
        name = self.make_name()
        for tool in (
            self.start_receiver(f"{transport} name={name}", "--timeout", "0.3"),
            self.start_with_input(b"", "ferry-cat", "-s", f"{transport} name={name}-2", "--timeout", "0.3"),
        ):
            self.assertEqual(tool.wait(), 1)
            self.assertIn("nothing moved for 0.3 s", tool.message)


class Usage(CatTest):
    def test_help(self) -> None:
        status, output, _ = self.run_tool("ferry-cat", "--help")
        self.assertEqual(status, 0)
        for text in ("--send", "--receive", "tar c dir | ferry-cat --send 'memfd name=x'", "Exit status"):
            self.assertIn(text, output)

    def test_version(self) -> None:
        self.assertRegex(self.run_tool("ferry-cat", "--version")[1], r"^ferry-cat \d+\.\d+\.\d+\n$")

    def test_wrong_usage(self) -> None:
        for arguments in (
            (),
            ("--send", "memfd name=x", "--receive", "memfd name=x"),
            ("--frobnicate",),
            ("--send", "memfd name=x", "--block-size", "0"),
            ("--send", "memfd name=x", "--block-size", "huge"),
            ("--send", "memfd name=x", "--block-size", "99999999G"),
            ("--send", "memfd name=x", "--timeout", "-1"),
            ("--receive", "memfd name=x", "--wait-receivers", "1"),
        ):
            with self.subTest(arguments=arguments):
                status, output, errors = self.run_tool("ferry-cat", *arguments)
                self.assertEqual((status, output), (2, ""), errors)
                self.assertIn("ferry-cat --help", errors)

    def test_bad_descriptions(self) -> None:
        """The message holds the name that was likely meant, or what is wrong."""
        for description, expected in (
            ("memfs name=x", "memfd"),
            ("posix-shn name=x", "posix-shm"),
            ("memfd nane=x", "name"),
            ("memfd name=x capacity=many", "capacity"),
            ("memfd name=x mode=broadcst", "broadcast"),
            ("memfd name=a/b", "a/b"),
            ("memfd name=" + "n" * 300, "name"),
            ("", ""),
        ):
            with self.subTest(description=description):
                for role in ("--send", "--receive"):
                    status, output, errors = self.run_tool("ferry-cat", role, description)
                    self.assertEqual((status, output), (1, ""), errors)
                    self.assertTrue(errors.startswith("ferry-cat: "), errors)
                    self.assertIn(expected, errors)

    def test_closed_streams(self) -> None:
        for number, role in enumerate(("--send", "--receive")):
            done = subprocess.run(
                ("ferry-cat", role, f"memfd name={self.make_name()}"),
                stderr=subprocess.PIPE,
                preexec_fn=lambda: os.close(number),
                timeout=TIME_LIMIT,
                env=make_environment(),
            )
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"is closed", done.stderr)

    def test_unreadable_input(self) -> None:
        """Input that can't be read is no end of the stream."""
        name = self.make_name()
        receiver = self.start_receiver(f"memfd name={name}")
        self.wait_for_participants("memfd", name, receivers=1)
        folder = os.open("/", os.O_RDONLY)
        self.addCleanup(os.close, folder)
        sender = self.start("ferry-cat", "--send", f"memfd name={name}", stdin=folder)
        self.assertEqual(sender.wait(), 1)
        self.assertIn("can't read standard input", sender.message)
        self.assertEqual(receiver.wait(), 1, receiver.message)

    def test_full_disk(self) -> None:
        """Output that can't be written ends the stream on both sides."""
        name = self.make_name()
        with open("/dev/full", "wb") as full:
            receiver = self.start_receiver(f"memfd name={name}", stdout=full.fileno())
        sender = self.start_endless_sender(f"memfd name={name}")
        self.assertEqual(receiver.wait(), 1)
        self.assertIn("can't write to standard output", receiver.message)
        self.assertEqual(sender.wait(), 1, sender.message)


if __name__ == "__main__":
    unittest.main(verbosity=2)
