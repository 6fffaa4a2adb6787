#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""ferry-ls: tells what is there and disturbs nobody."""

import json
import signal
import subprocess
import time
import unittest

from tooltest import GROUP, Tool, ToolTestCase, for_each_transport


class LsTest(ToolTestCase):
    def finish(self, sender: Tool, receiver: Tool) -> None:
        sender.end_input()
        self.assertEqual(sender.wait(), 0, sender.message)
        self.assertEqual(receiver.wait(), 0, receiver.message)

    @for_each_transport
    def test_live(self, transport: str) -> None:
        """A live channel with its figures, as a table and as JSON."""
        name = self.make_name()
        sender, receiver = self.start_pair(transport, name, "capacity=8 mode=broadcast")
        sender.feed(b"x" * 5000)
        self.wait_until(lambda: len(receiver.output) == 5000, "the bytes came out")

        channel = self.list_channels()[transport, name]
        self.assertTrue(channel["alive"])
        self.assertEqual(channel["mode"], "broadcast")
        self.assertEqual((channel["senders"], channel["receivers"]), (1, 1))
        self.assertEqual(channel["capacity"], 8)
        self.assertEqual(channel["bytes-sent"], 5000)
        self.assertGreater(channel["messages-sent"], 0)
        self.assertEqual(channel["in-flight"], 0)
        self.assertNotIn("participants", channel)

        status, output, errors = self.run_tool("ferry-ls", "tooltest-*")
        self.assertEqual((status, errors), (0, ""))
        header, *lines = output.splitlines()
        self.assertEqual(header.split()[:3], ["NAME", "TRANSPORT", "MODE"])
        line = next(line for line in lines if line.split()[:2] == [name, transport])
        self.assertEqual(line.split()[2:6], ["broadcast", "1", "1", "0/8"])

        self.finish(sender, receiver)
        self.assertNotIn((transport, name), self.list_channels())

    def test_group(self) -> None:
        """Channels of a group meet elsewhere and are listed too, beside one's own of the same name."""
        name = self.make_name()
        receiver = self.start("ferry-cat", "--receive", f"memfd name={name} group={GROUP}", stdin=subprocess.DEVNULL)
        self.wait_for_participants("memfd", name, receivers=1)
        self.assertEqual(self.list_channels()["memfd", name]["group"], GROUP)
        own = self.start("ferry-cat", "--receive", f"memfd name={name}", stdin=subprocess.DEVNULL)
        self.wait_until(lambda: self.list_groups(name) == [None, GROUP], "both are listed")
        _, output, _ = self.run_tool("ferry-ls", name)
        self.assertEqual(len(output.splitlines()), 3)
        self.assertIn(f"{name} group={GROUP}", output)
        self.kill(own, receiver)
        self.run_tool("ferry-clean", "--remove", name)
        self.assertEqual(self.list_channels("--all", name), {})

    @for_each_transport
    def test_participants(self, transport: str) -> None:
        name = self.make_name()
        sender, receiver = self.start_pair(transport, name)
        sender.feed(b"x" * 100)
        self.wait_until(lambda: len(receiver.output) == 100, "the bytes came out")

        participants = self.list_channels("--participants")[transport, name]["participants"]
        found = {item["role"]: item for item in participants}
        self.assertEqual(sorted(found), ["receiver", "sender"])
        self.assertEqual(found["sender"]["pid"], sender.pid)
        self.assertEqual(found["receiver"]["pid"], receiver.pid)
        for item in found.values():
            self.assertTrue(item["alive"])
            self.assertEqual((item["messages"], item["bytes"]), (1, 100))

        _, output, _ = self.run_tool("ferry-ls", "-p", name)
        self.assertIn(f"process {sender.pid}", output)
        self.assertIn(f"process {receiver.pid}", output)
        self.finish(sender, receiver)

    @for_each_transport
    def test_depth(self, transport: str) -> None:
        """Messages that wait are in flight."""
        name = self.make_name()
        sender = self.start("ferry-cat", "--send", f"{transport} name={name}", "--block-size", "10")
        sender.feed(b"x" * 30)
        self.wait_until(
            lambda: self.list_channels().get((transport, name), {}).get("in-flight") == 3, "3 messages wait"
        )
        receiver = self.start("ferry-cat", "--receive", f"{transport} name={name}", stdin=subprocess.DEVNULL)
        self.finish(sender, receiver)

    @for_each_transport
    def test_dead(self, transport: str) -> None:
        """What the dead left is no live channel; --all marks it."""
        name = self.make_name()
        self.kill(*self.start_pair(transport, name))
        self.assertNotIn((transport, name), self.list_channels())
        left = self.list_channels("--all").get((transport, name))
        if left is not None:
            self.assertFalse(left["alive"])
            self.assertRegex(self.run_tool("ferry-ls", "--all", name)[1], rf"{name} +{transport} +dead ")
        self.run_tool("ferry-clean", "--remove", name)
        self.assertNotIn((transport, name), self.list_channels("--all"))

    @for_each_transport
    def test_stopped(self, transport: str) -> None:
        """A stopped participant is alive."""
        name = self.make_name()
        sender, receiver = self.start_pair(transport, name)
        for tool in (sender, receiver):
            tool.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        status, output, errors = self.run_tool("ferry-ls", "--json", name)
        (channel,) = json.loads(output)["channels"]
        if status == 0:
            self.assertEqual((channel["senders"], channel["receivers"]), (1, 1))
        else:
            # A transport that has to ask the participants can't tell more.
            self.assertIsNot(channel["alive"], False)
            self.assertIn("stopped", errors)
        for tool in (sender, receiver):
            tool.send_signal(signal.SIGCONT)
        self.wait_for_participants(transport, name, senders=1, receivers=1)
        self.finish(sender, receiver)

    @for_each_transport
    def test_looking_keeps_nothing_alive(self, transport: str) -> None:
        """Looking again and again while participants come and go harms neither."""
        name = self.make_name()
        watcher = self.start("ferry-ls", "--json", "--watch", "0.05", name, stdin=subprocess.DEVNULL)
        for _ in range(5):
            self.finish(*self.start_pair(transport, name))
        self.assertNotIn((transport, name), self.list_channels("--all"))
        watcher.send_signal(signal.SIGINT)
        self.assertEqual(watcher.wait(), 0, watcher.message)

    def test_pattern_and_transport(self) -> None:
        name = self.make_name()
        pairs = [self.start_pair("memfd", name), self.start_pair("posix-shm", name + "-other")]
        self.assertEqual(set(self.list_channels(name)), {("memfd", name)})
        self.assertEqual(set(self.list_channels(name + "*")), {("memfd", name), ("posix-shm", name + "-other")})
        self.assertEqual(set(self.list_channels("-t", "posix-shm", name + "*")), {("posix-shm", name + "-other")})
        for pair in pairs:
            self.finish(*pair)

    def test_none(self) -> None:
        name = self.make_name()
        status, output, errors = self.run_tool("ferry-ls", name)
        self.assertEqual((status, output), (0, ""))
        self.assertIn("no live channels", errors)
        self.assertEqual(self.list_channels(name), {})

    def test_watch(self) -> None:
        """A line of JSON a round, until Ctrl-C."""
        watcher = self.start("ferry-ls", "--watch", "0.1", "--json", stdin=subprocess.DEVNULL)
        self.wait_until(lambda: watcher.output.count(b"\n") >= 3, "three rounds")
        watcher.send_signal(signal.SIGINT)
        self.assertEqual(watcher.wait(), 0, watcher.message)
        for line in watcher.output.decode().splitlines():
            self.assertIn("channels", json.loads(line))

    def test_usage(self) -> None:
        status, output, _ = self.run_tool("ferry-ls", "--help")
        self.assertEqual(status, 0)
        self.assertIn("--participants", output)
        self.assertRegex(self.run_tool("ferry-ls", "--version")[1], r"^ferry-ls \d+\.\d+\.\d+\n$")
        self.assertEqual(self.run_tool("ferry-ls", "--frobnicate")[0], 2)
        self.assertEqual(self.run_tool("ferry-ls", "--watch", "-1")[0], 2)
        status, _, errors = self.run_tool("ferry-ls", "--transport", "memfs")
        self.assertEqual(status, 1)
        self.assertIn("memfd", errors)


if __name__ == "__main__":
    unittest.main(verbosity=2)
