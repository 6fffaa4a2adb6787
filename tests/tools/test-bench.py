#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""ferry-bench: measures what it says, between processes that end. How fast things are is not tested here."""

import json
import os
import signal
import subprocess
import unittest
from pathlib import Path
from typing import Any

from tooltest import THOROUGH, TRANSPORTS, ToolTestCase, make_environment

BASELINES = {"pipe", "unix", "memcpy"}
LATENCY_BASELINES = {"pipe", "unix", "cache-line", "futex", "eventfd"}
SHORT = ("--duration", "0.02", "--repeat", "1")


class BenchTest(ToolTestCase):
    def measure(self, *arguments: str) -> dict[str, Any]:
        status, output, errors = self.run_tool("ferry-bench", "--json", *arguments)
        self.assertEqual(status, 0, errors)
        data: dict[str, Any] = json.loads(output)
        self.assertEqual((data["program"], data["format"]), ("ferry-bench", 1))
        return data

    def assert_quantity(self, quantity: dict[str, Any], unit: str, n_samples: int) -> None:
        self.assertEqual(quantity["unit"], unit)
        self.assertEqual(len(quantity["samples"]), n_samples)
        self.assertTrue(all(sample > 0 for sample in quantity["samples"]), quantity)
        self.assertLessEqual(min(quantity["samples"]), quantity["median"])
        self.assertLessEqual(quantity["median"], max(quantity["samples"]))

    def test_everything(self) -> None:
        """All series and sizes, with units, machine and settings."""
        data = self.measure("--duration", "0.02", "--repeat", "2", "--sizes", "64,4K,1M")
        self.assertGreater(data["machine"]["cpus"], 0)
        self.assertTrue(data["machine"]["kernel"])
        self.assertEqual(data["settings"]["repeats"], 2)
        self.assertEqual(set(data["settings"]["transports"]), set(TRANSPORTS))

        found = {(item["series"], item["size-bytes"]): item for item in data["throughput"]}
        self.assertEqual(len(found), len(data["throughput"]))
        self.assertEqual(set(found), {(s, z) for s in BASELINES | set(TRANSPORTS) for z in (64, 4096, 1 << 20)})
        for (series, size), item in found.items():
            self.assertIsNone(item["error"])
            self.assertEqual(item["baseline"], series in BASELINES)
            self.assert_quantity(item["messages"], "1/s", 2)
            self.assert_quantity(item["bytes"], "B/s", 2)
            self.assertAlmostEqual(item["bytes"]["median"], item["messages"]["median"] * size, delta=1)

        latency = {(item["series"], item["wait"]): item for item in data["latency"]}
        expected = {(series, None) for series in LATENCY_BASELINES}
        expected |= {(series, wait) for series in TRANSPORTS for wait in ("spin", "sleep", "adaptive")}
        if (os.cpu_count() or 1) > 1:
            self.assertEqual(set(latency), expected)
            for item in latency.values():
                self.assertIsNone(item["error"])
                for member in ("typical", "p50", "p99", "max"):
                    self.assert_quantity(item[member], "ns", 2)
                self.assertLessEqual(item["p50"]["samples"][0], item["p99"]["samples"][0])
                self.assertLessEqual(item["p99"]["samples"][0], item["max"]["samples"][0])

    def test_shapes(self) -> None:
        """Modes, numbers of processes, loans, touching, pinning, messages instead of time."""
        for arguments in (
            ("--mode", "broadcast", "--receivers", "2"),
            ("--senders", "2", "--receivers", "2"),
            ("--senders", "3", "--mode", "broadcast", "--capacity", "16"),
            ("--loan", "--pin"),
            ("--loan", "--touch"),
            ("--touch", "--wait", "sleep"),
            ("--messages", "500"),
            ("--capacity", "1"),
        ):
            with self.subTest(arguments=arguments):
                sizes = ("--sizes", "0,64,100K")
                data = self.measure(*SHORT, "--only", "throughput", "--no-baselines", *sizes, *arguments)
                self.assertEqual(data["latency"], [])
                self.assertEqual(len(data["throughput"]), 3 * len(TRANSPORTS))
                for item in data["throughput"]:
                    self.assertIsNone(item["error"])
                    self.assertGreater(item["messages"]["median"], 0)

    def test_choice(self) -> None:
        data = self.measure(*SHORT, "-t", "memfd", "--only", "latency", "--wait", "sleep", "--no-baselines")
        self.assertEqual(data["throughput"], [])
        self.assertEqual([(item["series"], item["wait"]) for item in data["latency"]], [("memfd", "sleep")])
        for names in (("-t", "posix-shm, memfd"), ("-t", "posix-shm", "-t", "memfd")):
            data = self.measure(*SHORT, *names, "--only", "throughput", "--sizes", "64", "--no-baselines")
            self.assertEqual([item["series"] for item in data["throughput"]], ["posix-shm", "memfd"])

    def test_table_and_file(self) -> None:
        """A table for people, and the same as JSON in a file."""
        target = Path(os.environ.get("MESON_BUILD_ROOT", "/tmp")) / f"{self.make_name()}.json"
        self.addCleanup(target.unlink, missing_ok=True)
        status, output, errors = self.run_tool(
            "ferry-bench", "--quick", "--sizes", "64,64K", "--duration", "0.02", "--output", str(target)
        )
        self.assertEqual((status, errors), (0, ""))
        lines = output.splitlines()
        header = next(line for line in lines if line.split()[:1] == ["size"])
        self.assertEqual(set(header.split()[1:]), BASELINES | set(TRANSPORTS))
        self.assertTrue(any(line.split()[:2] == ["64", "KiB"] for line in lines))
        self.assertTrue(any(line.split()[:2] == ["memfd,", "spin"] for line in lines))
        self.assertEqual(len(json.loads(target.read_text())["throughput"]), 2 * len(BASELINES | set(TRANSPORTS)))

    def test_interrupt(self) -> None:
        """Ctrl-C ends it soon and leaves neither processes nor channels."""
        bench = self.start("ferry-bench", "--duration", "30", "--only", "throughput", stdin=subprocess.DEVNULL)
        self.wait_until(lambda: self.list_channels(f"ferry-bench-{bench.pid}-*") != {}, "a channel is there")
        bench.send_signal(signal.SIGINT)
        self.assertEqual(bench.wait(15), 130, bench.message)
        self.assertEqual(self.list_channels("--all", f"ferry-bench-{bench.pid}-*"), {})

    def test_killed(self) -> None:
        """The measuring processes go with the one that started them."""
        bench = self.start("ferry-bench", "--duration", "30", "--only", "throughput", stdin=subprocess.DEVNULL)
        pattern = f"ferry-bench-{bench.pid}-*"
        self.wait_until(lambda: self.list_channels(pattern) != {}, "a channel is there")
        self.kill(bench)
        self.wait_until(lambda: self.list_channels(pattern) == {}, "its processes are gone", limit=10)
        self.run_tool("ferry-clean", "--remove", pattern)
        self.assertEqual(self.list_channels("--all", pattern), {})

    def test_usage(self) -> None:
        status, output, _ = self.run_tool("ferry-bench", "--help")
        self.assertEqual(status, 0)
        for text in ("--sizes", "--claims", "ferry-bench --quick"):
            self.assertIn(text, output)
        self.assertRegex(self.run_tool("ferry-bench", "--version")[1], r"^ferry-bench \d+\.\d+\.\d+\n$")
        for arguments in (
            ("--sizes", "large"),
            ("--sizes", ""),
            ("--sizes", "-1"),
            ("--sizes", "900G"),
            ("--senders", "0"),
            ("--receivers", "1000"),
            ("--mode", "multicast"),
            ("--wait", "sometimes"),
            ("--only", "nothing"),
            ("--huge",),
            ("--transport", ""),
            ("--repeat", "-3"),
            ("stray",),
        ):
            with self.subTest(arguments=arguments):
                status, output, errors = self.run_tool("ferry-bench", *arguments)
                self.assertEqual((status, output), (2, ""), errors)
                self.assertIn("ferry-bench --help", errors)

    def test_unknown_transport(self) -> None:
        for names in ("memfs", "posix-shm,memfs"):
            status, output, errors = self.run_tool("ferry-bench", *SHORT, "--sizes", "64", "-t", names)
            self.assertEqual((status, output), (1, ""), errors)
            self.assertIn("memfd", errors)

    def test_too_many_transports(self) -> None:
        status, output, errors = self.run_tool("ferry-bench", *SHORT, "--sizes", "64", "-t", ",".join(["memfd"] * 33))
        self.assertEqual((status, output), (1, ""), errors)
        self.assertIn("33 transports are asked for, at most 32", errors)

    @unittest.skipUnless(THOROUGH, "takes minutes and gigabytes")
    def test_claims(self) -> None:
        """Every claim can be measured; whether it is met depends on the machine's peace."""
        target = Path(os.environ.get("MESON_BUILD_ROOT", "/tmp")) / f"{self.make_name()}.json"
        self.addCleanup(target.unlink, missing_ok=True)
        done = subprocess.run(
            ["ferry-bench", "--claims", "--repeat", "1", "--duration", "0.1", "-o", str(target)],
            capture_output=True,
            timeout=900,
            env=make_environment(),
        )
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        claims = json.loads(target.read_text())["claims"]
        self.assertGreater(len(claims), 10 * len(TRANSPORTS))
        for claim in claims:
            self.assertIsNone(claim["error"], claim["what"])
            self.assertIsNotNone(claim["met"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
