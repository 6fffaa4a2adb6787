#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checks that everything public is documented.

    documented.py FERRY.gir
"""

import sys
from xml.etree import ElementTree

import tap

CORE = "{http://www.gtk.org/introspection/core/1.0}"
C = "{http://www.gtk.org/introspection/c/1.0}"
GLIB = "{http://www.gtk.org/introspection/glib/1.0}"

TYPES = ("class", "interface", "record", "enumeration", "bitfield", "callback", "constant", "alias")
CALLABLES = ("function", "method", "constructor")

NAMESPACE = ElementTree.parse(sys.argv[1]).getroot().find(f"{CORE}namespace")
assert NAMESPACE is not None


def tag(element: ElementTree.Element) -> str:
    return element.tag.replace(CORE, "").replace(GLIB, "glib:")


def is_documented(element: ElementTree.Element) -> bool:
    return element.find(f"{CORE}doc") is not None


def types() -> list[ElementTree.Element]:
    return [
        element
        for element in NAMESPACE
        if tag(element) in TYPES
        # The class structures of final types and the private ones have nothing to tell.
        and not (element.get("disguised") == "1" or element.get(f"{GLIB}is-gtype-struct-for") and len(element) < 3)
    ]


def callables() -> list[ElementTree.Element]:
    return [
        element
        for element in NAMESPACE.iter()
        if tag(element) in CALLABLES and element.get("moved-to") is None
    ]


def is_type_function(element: ElementTree.Element) -> bool:
    return (element.get(f"{C}identifier") or "").endswith("_get_type")


def documented_types() -> list[str]:
    wrong = []
    for element in types():
        name = element.get(f"{C}type") or element.get(f"{GLIB}type-name") or element.get("name")
        if element.get(f"{GLIB}is-gtype-struct-for") and not is_documented(element):
            continue
        if not is_documented(element):
            wrong.append(f"{name} is not documented")
        elif element.get("version") is None:
            wrong.append(f"{name} lacks Since:")
    return wrong


def documented_callables() -> list[str]:
    wrong = []
    for element in callables():
        name = element.get(f"{C}identifier")
        if is_type_function(element):
            continue
        if not is_documented(element):
            wrong.append(f"{name}() is not documented")
            continue
        if element.get("version") is None:
            wrong.append(f"{name}() lacks Since:")
        for parameter in element.iterfind(f"{CORE}parameters/{CORE}parameter"):
            if not is_documented(parameter):
                wrong.append(f"{name}(): parameter {parameter.get('name')} is not documented")
        returned = element.find(f"{CORE}return-value")
        kind = returned.find(f"{CORE}type") if returned is not None else None
        nothing = kind is not None and kind.get("name") == "none"
        # That the return value of a function that throws tells success goes without saying.
        success = element.get("throws") == "1" and kind is not None and kind.get("name") == "gboolean"
        if returned is not None and not nothing and not success and not is_documented(returned):
            wrong.append(f"{name}(): what it returns is not documented")
    return wrong


def documented_members() -> list[str]:
    wrong = []
    for element in types():
        owner = element.get("name")
        for member in element:
            kind = tag(member)
            if kind == "member" and not is_documented(member):
                wrong.append(f"{member.get(f'{C}identifier')} is not documented")
            elif kind in ("property", "glib:signal"):
                if not is_documented(member):
                    wrong.append(f"{owner}: {kind.replace('glib:', '')} {member.get('name')} is not documented")
                elif member.get("version") is None:
                    wrong.append(f"{owner}: {kind.replace('glib:', '')} {member.get('name')} lacks Since:")
            elif kind == "field" and member.get("private") != "1" and not is_documented(member):
                # What the scanner does not carry over is checked in the headers, by sources.py.
                hidden = member.find(f"{CORE}callback") is not None
                hidden = hidden or member.get("name") in ("parent_class", "parent_instance", "g_iface")
                opaque = tag(element) in ("class", "interface")
                if not hidden and not opaque and is_documented(element):
                    wrong.append(f"{owner}: field {member.get('name')} is not documented")
    return wrong


def bindable() -> list[str]:
    """What a binding cannot call is left out on purpose: it says (skip)."""
    wrong = []
    for element in callables():
        if element.get("introspectable") == "0":
            continue
        for parameter in element.iterfind(f"{CORE}parameters/{CORE}parameter"):
            if parameter.find(f"{CORE}varargs") is not None:
                wrong.append(f"{element.get(f'{C}identifier')}() takes variable arguments and is not (skip)")
    return wrong


sys.exit(
    tap.run(
        [
            ("types are documented", documented_types),
            ("functions, their parameters and results are documented", documented_callables),
            ("members, properties, signals and fields are documented", documented_members),
            ("variable arguments are skipped", bindable),
        ]
    )
)
