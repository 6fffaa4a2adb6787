#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checks of the source files that need no compiler.

    sources.py SOURCE-FOLDER
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import headers
import tap

ROOT = Path(sys.argv[1]).resolve()

LEFT_OUT = re.compile(r"^(\.git|build.*|__pycache__|\.venv|\.cache|\.\w+_cache|LICENSES|corpus)$")
WITHOUT_LICENCE_LINE = re.compile(r"^(NEWS|\.gitignore|.*\.json|.*\.png)$")
DESCRIPTOR_LINES = 60  # a file with a plugin's descriptor is shorter
LICENCE_WITHIN = 5  # lines from the top


def collect() -> dict[str, str]:
    """Every text file of the tree by its path."""
    files = {}
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(name for name in folders if not LEFT_OUT.match(name))
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_symlink() or LEFT_OUT.match(name):
                continue
            try:
                files[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                pass
    return files


FILES = collect()


def lines(pattern: str) -> list[tuple[str, int, str]]:
    """Path, number and text of each line of the files that match."""
    wanted = re.compile(pattern)
    return [
        (path, number, line)
        for path, text in FILES.items()
        if wanted.search(path)
        for number, line in enumerate(text.split("\n"), 1)
    ]


def licence() -> list[str]:
    wrong = []
    for path, text in FILES.items():
        if WITHOUT_LICENCE_LINE.match(path) or not text:
            continue
        if path.startswith("tests/fixtures/") and not path.endswith((".c", ".h", ".py", ".build")):
            continue
        head = "\n".join(text.split("\n")[:LICENCE_WITHIN])
        if not re.search(r"SPDX-License-Identifier: (LGPL-2\.1-or-later|CC0-1\.0)", head):
            wrong.append(f"{path}: no SPDX-License-Identifier within the first {LICENCE_WITHIN} lines")
    return wrong


def whitespace() -> list[str]:
    wrong = [f"{path}:{n}: whitespace at the end" for path, n, line in lines(r"") if line != line.rstrip()]
    wrong += [f"{path}:{n}: tab" for path, n, line in lines(r"\.(c|h|py|build)$") if "\t" in line]
    wrong += [f"{path}: the last line does not end" for path, text in FILES.items() if text and text[-1] != "\n"]
    return wrong


def left_notes() -> list[str]:
    note = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")
    return [f"{path}:{n}: {line.strip()}" for path, n, line in lines(r"") if note.search(line)]


def umbrella() -> list[str]:
    wrong = []
    public = set(headers.public_headers(ROOT))
    in_tree = {
        Path(path).name
        for path in FILES
        if re.match(r"core/[^/]+\.h$", path) and not path.endswith("-private.h")
    }
    generated = {"ferry-version.h", "ferry-enum-types.h"}
    included = set(re.findall(r'#include "([^"]+)"', FILES["core/ferry.h"]))

    wrong += [f"core/{name} is neither private nor installed" for name in sorted(in_tree - public)]
    wrong += [f"core/{name} is installed but private" for name in sorted(public) if name.endswith("-private.h")]
    wrong += [f"ferry.h does not include {name}" for name in sorted((public | generated) - {"ferry.h"} - included)]
    wrong += [f"ferry.h includes {name}, which is not installed" for name in sorted(included - public - generated)]
    for name in sorted(public & in_tree):
        for inner in re.findall(r'#\s*include\s*["<]([^">]+)[">]', FILES[f"core/{name}"]):
            if inner.startswith("ferry") and inner not in public | generated:
                wrong.append(f"core/{name} includes {inner}, which is not installed")
    return wrong


def availability() -> list[str]:
    wrong = []
    for name in headers.public_headers(ROOT):
        for declaration in headers.declarations(FILES.get(f"core/{name}", "")):
            if not headers.is_function(declaration):
                continue
            count = len(headers.AVAILABILITY.findall(declaration))
            if count != 1:
                wrong.append(f"core/{name}: {headers.function_name(declaration)} has {count} availability macros")
    return wrong


def virtual_functions() -> list[str]:
    wrong = []
    for name in headers.public_headers(ROOT):
        text = FILES.get(f"core/{name}", "")
        for owner, body in re.findall(r"^struct _(\w+(?:Class|Interface))\n\{(.*?)^\};", text, re.M | re.S):
            comment = re.search(r"/\*\*\n \* " + owner + r":(?: \(.*?\))?\n(.*?)\*/", text, re.S)
            for function in re.findall(r"\(\*(\w+)\)", body):
                if not comment or f"@{function}:" not in comment.group(1):
                    wrong.append(f"core/{name}: {owner}.{function} is not documented")
    return wrong


def casts() -> list[str]:
    cast = re.compile(r"G_TYPE_CHECK_(INSTANCE|CLASS)_(CAST|TYPE)|G_TYPE_INSTANCE_GET_(CLASS|INTERFACE)")
    return [
        f"{path}:{n}: cast macro by hand; use G_DECLARE_*" for path, n, line in lines(r"\.[ch]$") if cast.search(line)
    ]


def descriptors() -> list[str]:
    wrong = []
    folders = {path.split("/")[1] for path in FILES if re.match(r"plugins/[^/]+/.+\.c$", path)}
    for folder in sorted(folders):
        path = f"plugins/{folder}/ferry-{folder}-plugin.c"
        if path not in FILES:
            wrong.append(f"plugins/{folder} has no ferry-{folder}-plugin.c")
            continue
        length = FILES[path].count("\n")
        if length >= DESCRIPTOR_LINES:
            wrong.append(f"{path} has {length} lines; only the descriptor belongs there")
    defined = [path for path, text in FILES.items() if re.search(r"^FERRY_PLUGIN_DEFINE", text, re.M)]
    for path in defined:
        count = len(re.findall(r"^FERRY_PLUGIN_DEFINE", FILES[path], re.M))
        if path.endswith(".c") and count != 1 and not path.startswith("tests/fixtures/"):
            wrong.append(f"{path} has {count} descriptors")
        if path.startswith("plugins/") and not path.endswith("-plugin.c"):
            wrong.append(f"{path}: a descriptor belongs into ferry-<name>-plugin.c")
    return wrong


def scripts() -> list[str]:
    wrong = []
    for path, text in FILES.items():
        first = text.split("\n", 1)[0]
        if re.match(r"#!.*\b(ba)?sh$", first) or path.startswith("tools/completions/"):
            shell = "bash" if "bash" in first or not first.startswith("#!") else "sh"
            result = subprocess.run([shell, "-n", str(ROOT / path)], capture_output=True, text=True, check=False)
            if result.returncode:
                wrong.append(result.stderr)
        elif path.endswith(".py"):
            try:
                compile(text, path, "exec")
            except SyntaxError as error:
                wrong.append(f"{path}:{error.lineno}: {error.msg}")
        if first.startswith("#!") and not os.access(ROOT / path, os.X_OK):
            wrong.append(f"{path} begins with #! and is not executable")
    return wrong


def links() -> list[str]:
    wrong = []
    for path, text in FILES.items():
        if not path.endswith(".md"):
            continue
        text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"\w+:", target) or target.startswith("#"):
                continue
            target = target.split("#")[0]
            there = (ROOT / path).parent / target
            if not there.exists():
                wrong.append(f"{path}: {target} is not there")
    return wrong


def python_style() -> list[str]:
    """What .ruff.toml asks for."""
    ruff = shutil.which("ruff")
    if ruff is None:
        raise tap.Skip("there is no ruff here; Debian 12 has none, PyPI does")
    result = subprocess.run(
        [ruff, "check", "--no-cache", "--no-fix", "--quiet", "--output-format", "concise", str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode == 0:
        return []
    return (result.stdout + result.stderr).splitlines() or [f"ruff ended with status {result.returncode}"]


sys.exit(
    tap.run(
        [
            ("every source file names its licence", licence),
            ("no stray whitespace", whitespace),
            ("no notes of unfinished work", left_notes),
            ("ferry.h includes every public header and no other", umbrella),
            ("each public prototype has one availability macro", availability),
            ("virtual functions are documented", virtual_functions),
            ("no cast macros by hand", casts),
            ("plugin descriptors are alone in short files", descriptors),
            ("scripts can be parsed and run", scripts),
            ("links in the documents lead somewhere", links),
            ("Python is as ruff wants it", python_style),
        ]
    )
)
