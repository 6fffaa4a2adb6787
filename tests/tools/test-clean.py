#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""ferry-clean: removes what the dead left, and nothing else."""

import glob
import signal
import subprocess
import time
import unittest

from tooltest import GROUP, Tool, ToolTestCase, for_each_transport


class CleanTest(ToolTestCase):
    def assert_works(self, sender: Tool, receiver: Tool) -> None:
        """The channel still carries data to its end."""
        sender.feed(b"still here")
        sender.end_input()
        self.assertEqual(sender.wait(), 0, sender.message)
        self.assertEqual(receiver.wait(), 0, receiver.message)
        self.assertEqual(receiver.output, b"still here")

    @for_each_transport
    def test_live(self, transport: str) -> None:
        """A live channel is left alone, whatever the options."""
        name = self.make_name()
        pair = self.start_pair(transport, name)
        for options in ((), ("--remove",), ("--check",), ("--remove", "--transport", transport)):
            status, output, errors = self.run_tool("ferry-clean", *options, name)
            self.assertEqual((status, output), (0, ""), errors)
            self.assertIn((transport, name), self.list_channels())
        self.assert_works(*pair)

    @for_each_transport
    def test_stopped(self, transport: str) -> None:
        """A stopped program is alive, however long."""
        name = self.make_name()
        pair = self.start_pair(transport, name)
        for tool in pair:
            tool.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        status, output, errors = self.run_tool("ferry-clean", "--remove", name)
        self.assertEqual(output, "", errors)
        if status != 0:
            # A transport that has to ask the participants can't tell more.
            self.assertIn("left alone", errors)
        for tool in pair:
            tool.send_signal(signal.SIGCONT)
        self.assert_works(*pair)

    @for_each_transport
    def test_one_survivor(self, transport: str) -> None:
        """One live participant is enough."""
        name = self.make_name()
        sender, receiver = self.start_pair(transport, name)
        other = self.start("ferry-cat", "--receive", f"{transport} name={name}", stdin=subprocess.DEVNULL)
        self.wait_for_participants(transport, name, senders=1, receivers=2)
        self.kill(other)
        status, output, errors = self.run_tool("ferry-clean", "--remove", name)
        self.assertEqual((status, output), (0, ""), errors)
        sender.feed(b"still here")
        sender.end_input()
        self.assertEqual(receiver.wait(), 0, receiver.message)
        self.assertEqual(receiver.output, b"still here")

    @for_each_transport
    def test_dead(self, transport: str) -> None:
        """Without --remove nothing is removed, with it everything that is dead."""
        name = self.make_name()
        sender, receiver = self.start_pair(transport, name)
        sender.feed(b"x" * 100_000)
        self.kill(sender, receiver)

        if transport == "memfd":
            # The memory is gone already, and whoever looks may remove the socket that nobody answers.
            self.run_tool("ferry-clean", "--remove", name)
            self.assertNotIn((transport, name), self.list_channels("--all"))
            self.assertEqual(self.run_tool("ferry-clean", "--check", name)[0], 0)
            return

        for _ in range(2):
            status, output, errors = self.run_tool("ferry-clean", name)
            self.assertEqual(status, 0, errors)
            self.assertEqual(output, f"would remove {transport} name={name}\n")
            self.assertIn("--remove", errors)
        self.assertEqual(self.run_tool("ferry-clean", "--check", "--quiet", name), (3, "", ""))
        self.assertIn((transport, name), self.list_channels("--all"))

        status, output, errors = self.run_tool("ferry-clean", "--remove", name)
        self.assertEqual((status, output), (0, f"removed {transport} name={name}\n"), errors)
        self.assertNotIn((transport, name), self.list_channels("--all"))
        self.assertEqual(self.run_tool("ferry-clean", "--check", name)[0], 0)

    @for_each_transport
    def test_next_user(self, transport: str) -> None:
        """Whoever opens the channel next gets a fresh one, without cleaning."""
        name = self.make_name()
        sender, receiver = self.start_pair(transport, name)
        sender.feed(b"x" * 100_000)
        self.kill(sender, receiver)
        self.assert_works(*self.start_pair(transport, name))
        self.assert_nothing_left(transport, name)

    def test_group(self) -> None:
        """What the dead left of a group's channel, beside a live one of the same name that is the user's own."""
        name = self.make_name()
        pair = self.start_pair("memfd", name)
        description = f"memfd name={name} group={GROUP}"
        tools = [self.start("ferry-cat", "--receive", description, stdin=subprocess.DEVNULL)]
        tools.append(self.start("ferry-cat", "--send", description))
        self.wait_until(lambda: self.list_groups(name, "--all") == [None, GROUP], "both channels are there")
        status, output, errors = self.run_tool("ferry-clean", "--remove", name)
        self.assertEqual((status, output), (0, ""), errors)
        self.assertEqual(self.list_groups(name, "--all"), [None, GROUP])

        self.kill(*tools)
        self.assertEqual(
            self.run_tool("ferry-clean", "--quiet", "--check", name)[0], 3, "the socket of the dead is not seen"
        )
        status, output, errors = self.run_tool("ferry-clean", "--remove", name)
        self.assertEqual((status, output), (0, f"removed memfd name={name} group={GROUP}\n"), errors)
        self.assertEqual(self.list_groups(name, "--all"), [None])
        self.assertEqual(glob.glob(f"/tmp/ferry-1.0-group-{GROUP}/{name}*"), [])
        self.assert_works(*pair)

    def test_names(self) -> None:
        """Only what the patterns match."""
        name = self.make_name()
        self.kill(*self.start_pair("posix-shm", name + "-a"), *self.start_pair("posix-shm", name + "-b"))
        self.run_tool("ferry-clean", "--remove", name + "-a")
        left = self.list_channels("--all")
        self.assertNotIn(("posix-shm", name + "-a"), left)
        self.run_tool("ferry-clean", "--remove", "--quiet", name + "-*")
        self.assertNotIn(("posix-shm", name + "-b"), self.list_channels("--all"))

    def test_usage(self) -> None:
        status, output, _ = self.run_tool("ferry-clean", "--help")
        self.assertEqual(status, 0)
        self.assertIn("--remove", output)
        self.assertRegex(self.run_tool("ferry-clean", "--version")[1], r"^ferry-clean \d+\.\d+\.\d+\n$")
        self.assertEqual(self.run_tool("ferry-clean", "--frobnicate")[0], 2)
        status, _, errors = self.run_tool("ferry-clean", "--transport", "memfs")
        self.assertEqual(status, 1)
        self.assertIn("memfd", errors)


if __name__ == "__main__":
    unittest.main(verbosity=2)
