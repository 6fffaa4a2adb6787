#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""ferry-store: shows, changes and watches stores; ferry-ls and ferry-clean know them too."""

import json
import signal
import subprocess
import unittest

from tooltest import Tool, ToolTestCase, for_each_transport


class StoreTest(ToolTestCase):
    def keep(self, transport: str, name: str, *values: str) -> Tool:
        """Start a program that has a store open, and set values: a path and a text in turn."""
        keeper = self.start("ferry-store", "--create", f"{transport} name={name}", "watch", stdin=subprocess.DEVNULL)
        self.wait_until(lambda: (transport, name) in self.list_channels(), "the store is there")
        for path, text in zip(values[::2], values[1::2]):
            self.store(name, "set", path, text)
        return keeper

    def store(self, name: str, *arguments: str, status: int = 0) -> str:
        """Run ferry-store with a store and give what it printed, or what it complained about."""
        found, output, errors = self.run_tool("ferry-store", name, *arguments)
        self.assertEqual(found, status, errors)
        if status == 0:
            self.assertEqual(errors, "")
        return errors if status else output

    def end(self, keeper: Tool) -> None:
        keeper.send_signal(signal.SIGINT)
        self.assertEqual(keeper.wait(), 0, keeper.message)

    @for_each_transport
    def test_values(self, transport: str) -> None:
        name = self.make_name()
        keeper = self.keep(transport, name, "cfg", '{"servers": <[<{"port": <80>}>]>, "a.b": <1.5>}', "n", "5")
        self.assertEqual(self.store(name, "get", "cfg.servers[0].port"), "80\n")
        self.assertEqual(self.store(name, "get", 'cfg["a.b"]'), "1.5\n")
        self.store(name, "set", "cfg.servers[+]", '{"port": 81}')
        self.assertEqual(self.store(name, "get", "cfg.servers[-1]"), "{'port': <int64 81>}\n")
        self.store(name, "set", "cfg.title", '"a title"')
        self.assertEqual(self.store(name, "get", "cfg.title"), "'a title'\n")
        self.store(name, "remove", "cfg.servers[0]")
        self.assertEqual(self.store(name, "get", "cfg.servers"), "[<{'port': <int64 81>}>]\n")
        self.store(name, "--", "set", "n", "-7")
        self.assertEqual(self.store(name, "get", "n"), "-7\n")
        # without knowing where
        self.assertEqual(self.run_tool("ferry-store", "-t", transport, name, "get", "n")[1], "-7\n")
        self.assertEqual(self.run_tool("ferry-store", f"{transport} name={name}", "get", "n")[1], "-7\n")
        self.end(keeper)

    def test_tree(self) -> None:
        name = self.make_name()
        keeper = self.keep(
            "memfd", name, "cfg", '{"l": <[1, 2]>, "t": <(1, "x")>, "a b": <@mv nothing>}', "long", f'"{"x" * 200}"',
            "raw", 'b"some bytes"',
        )  # fmt: skip
        self.assertEqual(
            self.store(name),
            "cfg: dict of 3\n  l: list of 2\n    [0]: 1\n    [1]: 2\n  t: tuple of 2\n    [0]: 1\n    [1]: 'x'\n"
            "  ['a b']: None\n"
            f"long: '{'x' * 58}…  (str of 200 characters)\nraw: bytes of 11 bytes\n",
        )
        self.assertEqual(self.store(name, "tree", "cfg.l"), "cfg.l: list of 2\n  [0]: 1\n  [1]: 2\n")
        self.assertEqual(
            self.run_tool("ferry-store", "--limit", "1", name, "tree", "cfg.l")[1],
            "cfg.l: list of 2\n  [0]: 1\n  … 1 more\n",
        )
        self.assertEqual(
            json.loads(self.run_tool("ferry-store", "--json", name)[1]),
            {
                "cfg": {"l": [1, 2], "t": [1, "x"], "a b": None},
                "long": "x" * 200,
                "raw": "c29tZSBieXRlcwA=",
            },
        )
        self.assertEqual(json.loads(self.run_tool("ferry-store", "--json", name, "get", "cfg.l")[1]), [1, 2])
        self.end(keeper)

    def test_watch(self) -> None:
        name = self.make_name()
        keeper = self.keep("memfd", name, "a", "1", "b", "[1, 2]")
        one = self.start("ferry-store", name, "watch", "a", stdin=subprocess.DEVNULL)
        every = self.start("ferry-store", name, "watch", stdin=subprocess.DEVNULL)
        self.wait_until(lambda: bytes(one.output) == b"a: 1\n", "what it is at first")
        self.wait_until(lambda: len(every.output.splitlines()) == 2, "what all are at first")
        self.store(name, "set", "a", "2")
        self.wait_until(lambda: one.output.endswith(b"a: 2\n"), "a change")
        self.store(name, "set", "b[0]", "5")
        self.wait_until(lambda: every.output.endswith(b"b: [<int64 5>, <int64 2>]\n"), "a change within")
        self.store(name, "remove", "a")
        self.wait_until(lambda: one.output.endswith(b"a is gone\n"), "its end")
        self.wait_until(lambda: every.output.endswith(b"a is gone\n"), "the end of one of all")
        self.assertEqual(bytes(one.output), b"a: 1\na: 2\na is gone\n")
        for tool in (one, every):
            self.end(tool)
        self.end(keeper)

    def test_upkeep(self) -> None:
        name = self.make_name()
        keeper = self.keep("memfd", name, "a", "[[1], [2]]", "b", "5")
        text = self.store(name, "stat")
        found = {line.split()[0]: line.split(None, 1)[1] for line in text.splitlines()}
        self.assertEqual((found["names"], found["objects"], found["participants"]), ("2", "3", "1"))
        _, output, _ = self.run_tool("ferry-store", "--json", name, "stat")
        figures = json.loads(output)
        self.assertEqual((figures["names"], figures["objects"], figures["participants"]), (2, 3, 1))
        self.assertLessEqual(figures["bytes-used"], figures["bytes-committed"])
        self.assertLessEqual(figures["bytes-committed"], figures["max-bytes"])
        self.assertRegex(self.store(name, "collect"), "^freed ")
        self.assertEqual(self.store(name, "verify"), "the store is sound\n")
        self.assertEqual(self.store(name, "get", "a[1][0]"), "2\n")
        self.end(keeper)

    def test_errors(self) -> None:
        name = self.make_name()
        self.assertIn(name, self.store(name, status=3))
        keeper = self.keep("memfd", name, "a", "[1]")
        self.assertIn("there is no 'a[1]'", self.store(name, "get", "a[1]", status=3))
        self.assertIn("there is no 'x'", self.store(name, "tree", "x", status=3))
        self.assertIn("there is no 'x'", self.store(name, "remove", "x", status=3))
        self.assertIn("at character 3", self.store(name, "get", "a..b", status=1))
        self.assertIn("the value is no GVariant", self.store(name, "set", "a", "text", status=2))
        self.assertIn("there is no command 'put'", self.store(name, "put", status=2))
        self.assertIn("usage: ferry-store STORE get PATH", self.store(name, "get", status=2))
        self.assertIn("which store?", self.run_tool("ferry-store")[2])
        self.assertEqual(self.run_tool("ferry-store")[0], 2)
        self.assertEqual(self.run_tool("ferry-store", "--create", name, "get", "a")[0], 2)
        # a channel is no store, and the other way round
        other = self.make_name()
        receiver = self.start("ferry-cat", "--receive", f"memfd name={other}", stdin=subprocess.DEVNULL)
        self.wait_for_participants("memfd", other, receivers=1)
        self.assertIn("is the name of a channel", self.store(other, status=1))
        status, _, errors = self.run_tool("ferry-cat", "--send", f"memfd name={name}")
        self.assertEqual(status, 1)
        self.assertIn("is the name of a store", errors)
        self.kill(receiver)
        self.run_tool("ferry-clean", "--remove", other)
        self.end(keeper)

    @for_each_transport
    def test_ls(self, transport: str) -> None:
        name = self.make_name()
        keeper = self.keep(transport, name, "a", "1")
        store = self.list_channels()[transport, name]
        committed = store["bytes-committed"]
        self.assertGreater(committed, 0)
        self.assertLess(committed, 500_000)
        self.assertEqual((store["mode"], store["alive"], store["participants-alive"]), ("store", True, 1))
        for figure in ("senders", "receivers", "in-flight", "capacity", "messages-sent"):
            self.assertNotIn(figure, store)
        _, output, errors = self.run_tool("ferry-ls", name)
        self.assertEqual(errors, "")
        line = output.splitlines()[1].split()
        self.assertEqual(line[:6], [name, transport, "store", "1", "-", "-"])
        self.assertRegex(" ".join(line[6:-2]), r"^[0-9.]+ KiB$")
        self.assertEqual(line[-2:], ["-", "-"])
        for key in "bcdefg":
            self.store(name, "set", key, f'"{"x" * 100_000}"')
        store = self.list_channels()[transport, name]
        self.assertGreaterEqual(store["bytes-committed"], 600_000)
        self.assertLessEqual(store["bytes-committed"], store["bytes-committed-peak"])
        self.assertLess(store["bytes-committed-peak"], store["max-bytes"])
        _, output, _ = self.run_tool("ferry-ls", "-p", name)
        self.assertIn(f"process {keeper.pid}", output)
        self.end(keeper)
        self.assert_nothing_left(transport, name)

    @for_each_transport
    def test_clean(self, transport: str) -> None:
        name = self.make_name()
        keeper = self.keep(transport, name, "a", f'"{"x" * 100_000}"')
        status, output, errors = self.run_tool("ferry-clean", "--remove", name)
        self.assertEqual((status, output), (0, ""), errors)
        self.assertEqual(len(self.store(name, "get", "a")), 100_003)
        self.kill(keeper)
        self.run_tool("ferry-clean", "--remove", name)
        self.assertNotIn((transport, name), self.list_channels("--all"))
        self.assertEqual(self.run_tool("ferry-clean", "--check", name)[0], 0)
        self.store(name, status=3)


if __name__ == "__main__":
    unittest.main(verbosity=2)
