# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading of the public headers, as far as lint needs it."""

import re
from pathlib import Path

AVAILABILITY = re.compile(r"\bFERRY_(?:AVAILABLE|DEPRECATED)_IN_\d+_\d+(?:_FOR\s*\([^)]*\))?")


def public_headers(source_root: Path) -> list[str]:
    """The names of the installed headers that core/meson.build lists."""
    text = (source_root / "core/meson.build").read_text()
    listed = re.findall(r"^ferry_(?:live_)?headers = files\((.*?)\)$", text, re.M | re.S)
    assert len(listed) == 2, "core/meson.build has no ferry_headers or no ferry_live_headers"
    return re.findall(r"'([^']+\.h)'", " ".join(listed))


def declarations(text: str) -> list[str]:
    """The declarations at file scope, without comments and preprocessor lines."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*$", "", text, flags=re.M)
    text = re.sub(r"\bG_(?:BEGIN|END)_DECLS\b", "", text)
    text = re.sub(r"\bG_DEFINE_AUTO\w*_FUNC\s*\([^)]*\)", "", text)
    text = re.sub(r"\b(G_DECLARE_\w+\s*\([^)]*\))", r"\1;", text)
    found = []
    depth = start = 0
    for position, character in enumerate(text):
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0 and text[start:position].lstrip().startswith("static inline"):
                start = position + 1
        elif character == ";" and depth == 0:
            found.append(" ".join(text[start:position].split()))
            start = position + 1
    return [declaration for declaration in found if declaration]


def is_function(declaration: str) -> bool:
    """Whether a declaration is a prototype or declares a type with its functions."""
    return not re.match(r"(typedef|struct|enum|union)\b", declaration) and "(" in declaration


def function_name(declaration: str) -> str | None:
    """The name of the function that a prototype declares."""
    if found := re.search(r"G_DECLARE_\w+\s*\(\s*\w+\s*,\s*(\w+)", declaration):
        return found.group(1) + "_get_type"
    without = AVAILABILITY.sub("", declaration)
    found = re.search(r"\b(\w+)\s*\(", without)
    return found.group(1) if found else None
