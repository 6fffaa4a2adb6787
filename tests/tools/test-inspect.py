#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""ferry-inspect: tells what is there, and why something is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

FIXTURES = Path(os.environ["FERRY_TEST_FIXTURES"])

# Seconds
TIME_LIMIT = 60


class InspectTest(unittest.TestCase):
    """Each test has a folder of plugins and a cache of its own."""

    def setUp(self) -> None:
        self.scratch = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.scratch)
        self.folder = self.scratch / "plugins"
        self.folder.mkdir(mode=0o755)
        self.environment = {
            **os.environ,
            "FERRY_PLUGIN_PATH": str(self.folder),
            "FERRY_REGISTRY": str(self.scratch / "registry.json"),
            "FERRY_PLUGIN_SCAN_TIMEOUT": "1000",
            "LC_ALL": "C.UTF-8",
        }

    def install(self, *names: str) -> None:
        for name in names:
            shutil.copy(FIXTURES / f"libferry-{name}.so", self.folder)
            (self.folder / f"libferry-{name}.so").chmod(0o644)

    def run_inspect(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        """Run it, expect that exit status, and return what it printed and complained of."""
        result = subprocess.run(
            ["ferry-inspect", *arguments],
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            env=self.environment,
            check=False,
        )
        self.assertEqual(result.returncode, status, result.stderr)
        return result.stdout, result.stderr

    def test_list(self) -> None:
        self.install("good", "crash")
        output, _ = self.run_inspect()
        lines = output.splitlines()
        self.assertIn("good: A good plugin of the tests", lines)
        feature = next(line.split(maxsplit=3) for line in lines if "fixture-echo" in line)
        self.assertEqual(feature, ["codec", "fixture-echo", "128", "A codec of tests that encodes nothing"])
        self.assertTrue(any(line.split()[:2] == ["codec", "raw"] for line in lines))
        self.assertEqual(lines[-1], "2 plugins with 4 features; 1 can't be used, see ferry-inspect --blacklist")

    def test_plugin(self) -> None:
        self.install("good")
        output, _ = self.run_inspect("good")
        for part in ("Plugin good", "ok", str(self.folder / "libferry-good.so"), "0.1", "LGPL-2.1-or-later"):
            self.assertIn(part, output)

    def test_feature(self) -> None:
        """Everything about an element is found out by introspection."""
        self.install("good")
        output, _ = self.run_inspect("fixture-null")
        for part in (
            "Transport fixture-null",
            "64 (marginal)",
            "named, broadcast",
            "GoodTransport < GObject",
            "gint, -5 to 9, default 3; readable, writable, construct",
            "FerryMode, default broadcast; readable, writable, construct-only",
            "work-queue       0",
            "filled (guint, gchararray) -> void",
        ):
            self.assertIn(part, output)

    def test_feature_as_json(self) -> None:
        self.install("good")
        output, _ = self.run_inspect("--json", "fixture-echo")
        told = json.loads(output)
        (feature,) = told["features"]
        self.assertEqual(feature["wire-name"], "fixture")
        self.assertEqual(feature["wire-version"], 3)
        properties = {p["name"]: p for p in feature["element"]["properties"]}
        level = properties["level"]
        self.assertEqual((level["type"], level["minimum"], level["maximum"], level["default"]), ("gint", -5, 9, 3))
        mode = properties["mode"]
        self.assertEqual(mode["default"], "broadcast")
        self.assertEqual([v["name"] for v in mode["values"]], ["work-queue", "broadcast", "store"])
        (signal,) = feature["element"]["signals"]
        self.assertEqual((signal["name"], signal["arguments"]), ("filled", ["guint", "gchararray"]))

    def test_channel(self) -> None:
        """Numbers that no gint64 holds are told too."""
        output, _ = self.run_inspect("--json", "channel")
        properties = {p["name"]: p for p in json.loads(output)["channel"]["properties"]}
        self.assertEqual(properties["max-bytes"]["maximum"], str(2**64 - 1))
        self.assertEqual(properties["mode"]["default"], "work-queue")
        output, _ = self.run_inspect("channel")
        self.assertIn("peer-joined", output)

    def test_blacklist(self) -> None:
        self.install("good", "crash", "hang", "wrong-abi", "text", "decline", "duplicate")
        output, _ = self.run_inspect("--blacklist")
        for part in (
            "crash: blacklisted",
            "signal 11 (Segmentation fault)",
            "hang: blacklisted",
            "did not finish within 1 s",
            "built for plugin ABI 99",
            "text: blacklisted",
            "decline: unavailable",
            "/dev/fixture is not plugged in",
        ):
            self.assertIn(part, output)
        self.assertNotIn("good: ", output)

        plugins = json.loads(self.run_inspect("--blacklist", "--json")[0])["plugins"]
        states = {plugin["name"]: plugin["state"] for plugin in plugins}
        # By the order of the names the duplicate comes first, so it is the one in use.
        self.assertEqual(
            states,
            {"crash": "blacklisted", "hang": "blacklisted", "wrong-abi": "blacklisted"}
            | {"text": "blacklisted", "decline": "unavailable"},
        )
        self.assertTrue(all(plugin["reason"] for plugin in plugins))

    def test_nothing_blacklisted(self) -> None:
        self.assertEqual(self.run_inspect("--blacklist")[0], "All plugins can be used.\n")

    def test_not_used(self) -> None:
        """A feature that loses against another one is marked, with the reason."""
        self.install("good", "better")
        output, _ = self.run_inspect()
        self.assertTrue(any("fixture-echo" in line and "(not used)" in line for line in output.splitlines()))
        output, _ = self.run_inspect("fixture-echo")
        self.assertIn("plugin 'better' offers the codec 'fixture-echo' too and has the higher rank, 256", output)

    def test_rescan(self) -> None:
        device = self.scratch / "device"
        self.environment["FERRY_FIXTURE_DEVICE"] = str(device)
        self.install("need-device")
        self.assertIn("need-device: unavailable", self.run_inspect("--blacklist")[0])
        device.touch()
        self.assertIn("need-device: unavailable", self.run_inspect("--blacklist")[0])
        self.assertEqual(self.run_inspect("--rescan", "--blacklist")[0], "All plugins can be used.\n")

    def test_names(self) -> None:
        """What the completion offers."""
        self.install("good")
        output, _ = self.run_inspect("--names")
        self.assertLessEqual({"channel", "core", "raw", "gvariant", "good", "fixture-echo"}, set(output.split()))

    def test_unknown_name(self) -> None:
        self.install("good")
        output, errors = self.run_inspect("fixture-ehco", status=1)
        self.assertEqual(output, "")
        self.assertIn("did you mean 'fixture-echo'?", errors)
        # The others are told all the same.
        output, errors = self.run_inspect("nothing-like-it", "raw", status=1)
        self.assertIn("Codec raw", output)
        self.assertIn("'nothing-like-it'", errors)

    def test_can_not_be_loaded(self) -> None:
        device = self.scratch / "device"
        device.touch()
        self.environment["FERRY_FIXTURE_DEVICE"] = str(device)
        self.install("need-device")
        self.run_inspect()
        device.unlink()
        output, _ = self.run_inspect("fixture-device", status=1)
        self.assertIn("not plugged in", output)

    def test_no_scanner(self) -> None:
        self.install("good")
        self.environment["FERRY_PLUGIN_SCANNER"] = "/nonexistent/scanner"
        _, errors = self.run_inspect(status=1)
        self.assertIn("/nonexistent/scanner", errors)

    def test_unsafe_folder(self) -> None:
        self.install("good")
        self.folder.chmod(0o777)
        self.environment.pop("G_DEBUG", None)
        output, errors = self.run_inspect("--blacklist")
        self.assertIn("good: unavailable", output)
        self.assertIn("unsafe", output)
        self.assertIn("everybody may write", errors)

    def test_usage(self) -> None:
        self.run_inspect("--nonsense", status=2)
        self.run_inspect("--blacklist", "raw", status=2)
        output, _ = self.run_inspect("--help")
        self.assertIn("Examples:", output)
        self.assertRegex(self.run_inspect("--version")[0], r"^ferry-inspect \d+\.\d+\.\d+\n$")


if __name__ == "__main__":
    unittest.main(verbosity=2)
